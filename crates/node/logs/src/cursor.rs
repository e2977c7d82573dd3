//! Reading the spool forward from a place, in the shim: how an attached client that fell behind catches up.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use crate::record::{Format, Record, Step};
use crate::{Driver, LogError, Stream, Writer};

/// A place in the spool that moves forward. It holds its file, so rotation does not take away what is not yet read.
#[derive(Debug)]
pub struct Cursor {
    file: Rc<File>,
    offset: u64,
    format: Format,
    buffer: Vec<u8>,
    record: Record,
}

impl Cursor {
    /// Starts at the end of what is written.
    pub fn at_end(writer: &Writer, driver: Driver) -> Option<Cursor> {
        Cursor::at(writer.file(), writer.position().offset, driver)
    }

    /// Starts at a place in a file.
    pub fn at(file: Rc<File>, offset: u64, driver: Driver) -> Option<Cursor> {
        let format = Format::of(driver)?;
        Some(Cursor { file, offset, format, buffer: Vec::new(), record: Record::default() })
    }

    /// Whether this is still in the writer's current file.
    pub fn is_current(&self, writer: &Writer) -> bool {
        Rc::ptr_eq(&self.file, &writer.file())
    }

    /// Whether everything written was read.
    pub fn is_caught_up(&self, writer: &Writer) -> bool {
        self.is_current(writer) && self.offset == writer.position().offset && self.buffer.is_empty()
    }

    /// Reads up to 64 KiB and hands each message to `take`. Returns whether anything was there. At the end of an earlier
    /// file it goes on with the writer's current one.
    pub fn read(&mut self, writer: &Writer, mut take: impl FnMut(Stream, &[u8])) -> Result<bool, LogError> {
        const CHUNK: usize = 64 * 1024;
        let held = self.buffer.len();
        self.buffer.resize(held + CHUNK, 0);
        let read = self.file.read_at(&mut self.buffer[held..], self.offset);
        let n = read.as_ref().map_or(0, |n| *n);
        self.buffer.truncate(held + n);
        self.offset += n as u64;
        read.map_err(|e| LogError::file("read", "spool", e))?;
        if n == 0 {
            if self.is_current(writer) {
                return Ok(false);
            }
            (self.file, self.offset) = (writer.file(), 0);
            self.buffer.clear();
            return Ok(true);
        }
        let mut used = 0;
        loop {
            match self.format.take(&self.buffer[used..], &mut self.record) {
                Step::Message(len) => {
                    take(self.record.stream, &self.record.bytes);
                    used += len;
                }
                Step::Skip(len) => used += len,
                Step::Short => break,
            }
        }
        self.buffer.drain(..used);
        Ok(true)
    }
}
