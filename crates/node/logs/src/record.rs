//! One logged message, and the two formats behind one face.

use wharf_types::Timestamp;

use crate::{Driver, Stream, json, local};

/// A message as read from the spool. Buffers are used again for the next one.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) stream: Stream,
    /// RFC 3339, UTC, as stored.
    pub(crate) time: String,
    /// The attributes' JSON object, empty for none.
    pub(crate) attrs: Vec<u8>,
    /// The exact bytes, newline included if there was one.
    pub(crate) bytes: Vec<u8>,
}

impl Default for Record {
    fn default() -> Self {
        Record { stream: Stream::Stdout, time: String::new(), attrs: Vec::new(), bytes: Vec::new() }
    }
}

impl Record {
    pub(crate) fn clear(&mut self) {
        self.time.clear();
        self.attrs.clear();
        self.bytes.clear();
    }
}

/// How messages stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Local,
}

/// What [`Format::take`] found at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A message; skip this many bytes.
    Message(usize),
    /// Something else, torn or damaged; skip this many bytes.
    Skip(usize),
    /// More bytes are needed.
    Short,
}

impl Format {
    /// The format of a driver that keeps something.
    pub(crate) fn of(driver: Driver) -> Option<Format> {
        match driver {
            Driver::JsonFile => Some(Format::Json),
            Driver::Local => Some(Format::Local),
            Driver::None => None,
        }
    }

    /// Reads the message at the start of `bytes`.
    pub(crate) fn take(self, bytes: &[u8], record: &mut Record) -> Step {
        match self {
            Format::Json => match memchr::memchr(b'\n', bytes) {
                None => Step::Short,
                Some(end) if json::decode(&bytes[..end], record) => Step::Message(end + 1),
                Some(end) => Step::Skip(end + 1),
            },
            Format::Local => match local::decode(bytes, record) {
                local::Taken::Record(len) => Step::Message(len),
                local::Taken::Short => Step::Short,
                local::Taken::Damaged => Step::Skip(1),
            },
        }
    }
}

/// Appends messages of one batch, which all have one time, to a buffer.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    format: Format,
    time: Timestamp,
    stream: Stream,
    attrs: &'a str,
    tail: Vec<u8>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(format: Format, stream: Stream, attrs: &'a str, time: Timestamp) -> Encoder<'a> {
        let tail = match format {
            Format::Json => json::tail(stream, attrs, &time.to_string()),
            Format::Local => Vec::new(),
        };
        Encoder { format, time, stream, attrs, tail }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, message: &[u8]) {
        match self.format {
            Format::Json => json::encode(out, message, &self.tail),
            Format::Local => local::encode(out, self.stream, self.time, self.attrs, message),
        }
    }
}
