//! Reading a container's log: since, until, tail and follow, as Docker's log endpoint has them.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use wharf_types::Timestamp;

use crate::files::{Files, Source};
use crate::record::{Format, Record, Step};
use crate::watch::{Ending, Watch};
use crate::{Config, LogError, Position, Stream, tail};

/// Bytes read from a file at once, and about what one call of [`Reader::read`] gives.
const CHUNK: usize = 128 * 1024;
/// Messages collected at once.
const MOST: usize = 256;

/// How messages are laid out in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each behind a stdcopy header (containers without a terminal).
    Frames,
    /// Plain bytes (containers with a terminal).
    Raw,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Only messages at or after this time.
    pub since: Option<Timestamp>,
    /// Only messages at or before this time; reading ends at the first later one.
    pub until: Option<Timestamp>,
    /// Only the last n messages; `None` for all.
    pub tail: Option<u64>,
    /// Whether to go on with what is written later, until [`Ending::finish`].
    pub follow: bool,
    /// Whether stdout is wanted.
    pub stdout: bool,
    /// Whether stderr is wanted.
    pub stderr: bool,
    /// Whether each message starts with its time, nine digits of fraction, and a space.
    pub timestamps: bool,
    /// Whether each message starts with its attributes (`k=v,k2=v2`) and a space.
    pub details: bool,
    /// Layout.
    pub form: Form,
    /// Ends before this place: what an attached client gets from the shim starts there.
    pub before: Option<Position>,
}

/// A place in the log that outlives this process: inode numbers are used again, so the time of the file's first message
/// tells whether it is the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File and byte.
    pub position: Position,
    /// RFC 3339; when the first message of that file was written.
    pub first: String,
}

/// One message, as it is sent on.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which stream it came from.
    pub stream: Stream,
    /// When it was written.
    pub time: Timestamp,
    /// The exact bytes, newline included if there was one.
    pub bytes: Vec<u8>,
    /// Where the next message begins.
    pub next: Place,
}

/// What a call of [`Reader::read`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Output may have been appended, more may be there at once.
    More,
    /// All that is written was read; wait for [`Reader::watch`] to become readable. Only when following.
    Idle,
    /// Nothing will follow.
    End,
}

/// A reader of one container's log. Tolerates a torn last line, damaged lines (passed over) and rotation while it reads.
#[derive(Debug)]
pub struct Reader {
    files: Files,
    format: Format,
    options: ReadOptions,
    since: Option<String>,
    until: Option<String>,
    sources: VecDeque<Source>,
    place: Option<At>,
    /// Where messages are collected instead of laid out.
    collected: Option<Vec<Message>>,
    /// The time of the first message in the present file.
    first: String,
    watch: Option<Watch>,
    buffer: Vec<u8>,
    used: usize,
    record: Record,
    ended: bool,
}

/// Where reading is.
#[derive(Debug)]
struct At {
    file: File,
    inode: u64,
    end: Option<u64>,
    /// Where the next byte is read; the buffer holds those before it.
    offset: u64,
}

impl Reader {
    /// Opens the log in `dir` (`<data-root>/containers/<id>`). A log that does not exist yet is empty.
    ///
    /// Errors: NotImplemented with driver `none`, System if a file cannot be read.
    pub fn open(
        dir: BorrowedFd<'_>,
        container: &str,
        config: &Config,
        options: ReadOptions,
    ) -> Result<Reader, LogError> {
        let (Some(name), Some(format)) = (config.file(container), Format::of(config.driver)) else {
            return Err(LogError::Unreadable);
        };
        // The caller's descriptor may be O_PATH, which inotify and O_TMPFILE do not take.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(dir, ".", flags, Mode::empty()).map_err(|e| LogError::file("open", ".", e))?;
        let files = Files { dir, name };
        let watch = options.follow.then(Watch::new).transpose().map_err(|e| LogError::file("watch", ".", e))?;
        let mut reader = Reader {
            since: options.since.map(Timestamp::fixed_nanos),
            until: options.until.map(Timestamp::fixed_nanos),
            files,
            format,
            options,
            sources: VecDeque::new(),
            place: None,
            collected: None,
            first: String::new(),
            watch,
            buffer: Vec::new(),
            used: 0,
            record: Record::default(),
            ended: false,
        };
        // The watch comes before the first look, so that nothing written in between is missed.
        reader.watch_folders()?;
        reader.sources = reader.files.open_all()?.into();
        if let Some(before) = reader.options.before {
            // The number of a compressed and removed file may be used again: the newest is meant.
            if let Some(source) = reader.sources.iter_mut().rfind(|s| s.inode == before.inode) {
                source.end = Some(before.offset);
            }
        } else if reader.watch.is_none()
            && let Some(newest) = reader.sources.back_mut()
        {
            // A container that goes on writing must not keep a reader busy for ever.
            newest.end = newest.present_end()?;
        }
        if let Some(n) = reader.options.tail {
            reader.start_at_tail(n)?;
        }
        Ok(reader)
    }

    /// Appends the next messages to `out`, about 128 KiB at a time. Blocks for file reads only.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<Progress, LogError> {
        let goal = out.len() + CHUNK;
        while !self.ended && out.len() < goal && self.collected.as_ref().is_none_or(|c| c.len() < MOST) {
            if self.step(out)? {
                continue;
            }
            if self.fill()? || self.next_file()? {
                continue;
            }
            let Some(watch) = &mut self.watch else {
                self.ended = true;
                break;
            };
            // First the signals are taken, then the files are looked at again: an event after that wakes the next wait.
            watch.clear();
            let finishing = watch.is_finishing();
            self.watch_folders()?;
            if self.fill()? || self.next_file()? {
                continue;
            }
            if !finishing {
                return Ok(Progress::Idle);
            }
            self.ended = true;
        }
        Ok(if self.ended { Progress::End } else { Progress::More })
    }

    /// Opens the whole log for sending it on: follows, both streams. Starts at `from`, or at the first message if there is
    /// none. Returns also whether the place was found; where it was rotated away, the log starts with what is left.
    pub fn open_at(
        dir: BorrowedFd<'_>,
        container: &str,
        config: &Config,
        from: Option<&Place>,
    ) -> Result<(Reader, bool), LogError> {
        let options = ReadOptions {
            since: None,
            until: None,
            tail: None,
            follow: true,
            stdout: true,
            stderr: true,
            timestamps: false,
            details: false,
            form: Form::Raw,
            before: None,
        };
        let mut reader = Reader::open(dir, container, config, options)?;
        let Some(from) = from else { return Ok((reader, true)) };
        let mut at = None;
        for (number, source) in reader.sources.iter().enumerate().filter(|(_, s)| s.inode == from.position.inode) {
            if source.first(reader.format)? == from.first {
                at = Some(number);
            }
        }
        let Some(at) = at else { return Ok((reader, false)) };
        reader.sources.drain(..at);
        reader.next_file()?;
        if let Some(place) = &mut reader.place {
            place.offset = from.position.offset;
        }
        Ok((reader, true))
    }

    /// Appends the next messages, a few hundred at a time. Only for readers of [`Reader::open_at`].
    pub fn read_messages(&mut self, messages: &mut Vec<Message>) -> Result<Progress, LogError> {
        self.collected = Some(std::mem::take(messages));
        let progress = self.read(&mut Vec::new());
        *messages = self.collected.take().unwrap_or_default();
        progress
    }

    /// The descriptor (an epoll) that becomes readable when the log may have grown or [`Ending::finish`] was called;
    /// `None` if not following. Usable with tokio's `AsyncFd`; [`Reader::read`] clears it.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(Watch::fd)
    }

    /// Blocks until [`Reader::watch`] is readable or the time is over. Returns whether there is something to read; at once
    /// true if not following.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, LogError> {
        let Some(watch) = &self.watch else { return Ok(true) };
        watch.wait(timeout).map_err(|e| LogError::file("poll", &self.files.name, e))
    }

    /// A handle that ends the following; `None` if not following.
    pub fn ending(&self) -> Option<Ending> {
        self.watch.as_ref().map(Watch::ending)
    }

    fn watch_folders(&self) -> Result<(), LogError> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let failed = |e| LogError::file("watch", &self.files.name, e);
        let Some((folder, _)) = self.files.name.split_once('/') else {
            return watch.add(self.files.dir.as_fd()).map_err(failed);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.files.dir, folder, flags, Mode::empty()) {
            Ok(fd) => watch.add(fd.as_fd()).map_err(failed),
            Err(rustix::io::Errno::NOENT) => watch.add(self.files.dir.as_fd()).map_err(failed),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Drops what lies before the last `n` messages.
    fn start_at_tail(&mut self, n: u64) -> Result<(), LogError> {
        let mut left = n;
        let mut kept = VecDeque::new();
        while let Some(source) = self.sources.pop_back() {
            let (inode, end) = (source.inode, source.end);
            let file = source.into_plain(&self.files.dir)?;
            let (offset, found) =
                tail::find(&file, self.format, left).map_err(|e| LogError::file("read", &self.files.name, e))?;
            left -= found;
            let place = At { file, inode, end, offset };
            if left == 0 || self.sources.is_empty() {
                self.place = Some(place);
                self.sources = kept;
                return Ok(());
            }
            kept.push_front(Source::plain(place.file, inode, end));
        }
        Ok(())
    }

    /// Hands out one message of the buffer. False if the buffer holds none.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, LogError> {
        let Some(place) = &self.place else { return Ok(false) };
        let at = place.offset - (self.buffer.len() - self.used) as u64;
        if place.end.is_some_and(|end| at >= end) {
            self.ended = true;
            return Ok(true);
        }
        match self.format.take(&self.buffer[self.used..], &mut self.record) {
            Step::Short => return Ok(false),
            Step::Skip(len) => self.used += len,
            Step::Message(len) => {
                self.used += len;
                if self.first.is_empty() {
                    self.first.clone_from(&self.record.time);
                }
                match &mut self.collected {
                    Some(messages) => messages.push(Message {
                        stream: self.record.stream,
                        time: Timestamp::parse(&self.record.time).unwrap_or_default(),
                        bytes: self.record.bytes.clone(),
                        next: Place {
                            position: Position { inode: place.inode, offset: at + len as u64 },
                            first: self.first.clone(),
                        },
                    }),
                    None => self.emit(out),
                }
            }
        }
        Ok(true)
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        let wanted = match self.record.stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        let needs_time = self.since.is_some() || self.until.is_some() || (self.options.timestamps && wanted);
        if needs_time {
            fix_nanos(&mut self.record.time);
            if self.since.as_ref().is_some_and(|since| self.record.time < *since) {
                return;
            }
            if self.until.as_ref().is_some_and(|until| self.record.time > *until) {
                self.ended = true;
                return;
            }
        }
        if !wanted {
            return;
        }
        let start = out.len();
        if self.options.form == Form::Frames {
            out.extend_from_slice(&[self.record.stream as u8, 0, 0, 0, 0, 0, 0, 0]);
        }
        if self.options.timestamps {
            out.extend_from_slice(self.record.time.as_bytes());
            out.push(b' ');
        }
        if self.options.details {
            put_details(out, &self.record.attrs);
        }
        out.extend_from_slice(&self.record.bytes);
        if self.options.form == Form::Frames {
            // A message is at most 16 KiB and its attributes 64 KiB.
            let len = (out.len() - start - 8) as u32;
            out[start + 4..start + 8].copy_from_slice(&len.to_be_bytes());
        }
    }

    /// Reads on in the present file. False at its end.
    fn fill(&mut self) -> Result<bool, LogError> {
        let Some(place) = &mut self.place else { return Ok(false) };
        self.buffer.drain(..self.used);
        self.used = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + CHUNK, 0);
        let read = place.file.read_at(&mut self.buffer[held..], place.offset);
        let n = read.as_ref().map_or(0, |n| *n);
        self.buffer.truncate(held + n);
        place.offset += n as u64;
        read.map_err(|e| LogError::file("read", &self.files.name, e))?;
        Ok(n > 0)
    }

    /// Goes on with the next newer file. False if the present one is the newest.
    fn next_file(&mut self) -> Result<bool, LogError> {
        if self.sources.is_empty() && self.watch.is_some() {
            let current = self.files.current_inode()?;
            match (&self.place, current) {
                (Some(place), Some(inode)) if place.inode != inode => {
                    // Rotated. What was written to our file before that is read first.
                    let newer = self.files.newer_than(place.inode)?;
                    if self.fill()? {
                        return Ok(true);
                    }
                    self.sources = newer.into();
                }
                (None, Some(_)) => self.sources = self.files.open_all()?.into(),
                _ => {}
            }
        }
        let Some(source) = self.sources.pop_front() else { return Ok(false) };
        let (inode, end) = (source.inode, source.end);
        self.first = source.first(self.format)?;
        let file = source.into_plain(&self.files.dir)?;
        self.place = Some(At { file, inode, end, offset: 0 });
        // A torn end of the file before is no start of this one.
        self.buffer.clear();
        self.used = 0;
        Ok(true)
    }
}

/// Brings a stored time into the form with nine digits of fraction, in which times compare as text.
fn fix_nanos(time: &mut String) {
    const WHOLE: usize = "2006-01-02T15:04:05".len();
    const FULL: usize = "2006-01-02T15:04:05.000000000Z".len();
    if time.len() == FULL && time.ends_with('Z') {
        return;
    }
    let fraction_only = time.len() > WHOLE + 1 && time.as_bytes()[WHOLE] == b'.';
    if time.ends_with('Z') && (fraction_only || time.len() == WHOLE + 1) && time.len() < FULL {
        time.pop();
        if !fraction_only {
            time.push('.');
        }
        while time.len() < FULL - 1 {
            time.push('0');
        }
        time.push('Z');
    } else if let Ok(parsed) = Timestamp::parse(time) {
        *time = parsed.fixed_nanos();
    }
}

/// `k=v,k2=v2 `, keys in order, escaped as moby does with `url.QueryEscape`; only the space without attributes.
fn put_details(out: &mut Vec<u8>, attrs: &[u8]) {
    let attrs: std::collections::BTreeMap<String, String> = serde_json::from_slice(attrs).unwrap_or_default();
    for (n, (key, value)) in attrs.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_escaped(out, key);
        out.push(b'=');
        put_escaped(out, value);
    }
    out.push(b' ');
}

fn put_escaped(out: &mut Vec<u8>, text: &str) {
    use std::io::Write;
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(b),
            b' ' => out.push(b'+'),
            // Writing to a Vec cannot fail.
            _ => drop(write!(out, "%{b:02X}")),
        }
    }
}
