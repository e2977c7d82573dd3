//! Writing the spool, in the shim: messages in, whole lines out, one write(2) for each chunk.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags};
use wharf_types::Timestamp;

use crate::line::Line;
use crate::record::{Encoder, Format, Record, Step};
use crate::{Config, LogError, Position, Stream};

/// Encoded bytes beyond which a batch is written before the chunk is done.
const BATCH: usize = 256 * 1024;

/// A rotated file that waits for compression, to be done beside the writer (in a child of the shim).
#[derive(Debug)]
pub struct Compression {
    dir: OwnedFd,
    file: String,
    inode: u64,
}

/// How far a chunk may rotate the log, so that no reader at an earlier place is overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotations {
    /// As often as the size asks.
    Any,
    /// Once.
    One,
    /// Not at all: the file grows beyond its size for now.
    None,
}

/// The writer of one container's spool.
#[derive(Debug)]
pub struct Writer {
    dir: OwnedFd,
    name: String,
    config: Config,
    format: Format,
    attrs: String,
    file: Rc<File>,
    inode: u64,
    size: u64,
    stdout: Line,
    stderr: Line,
    batch: Vec<u8>,
    compression: Option<Compression>,
    compressing: bool,
    lost: u64,
}

impl Writer {
    /// Opens the log in `dir` for appending, mode 0640; what a crash left torn at its end is closed off. `None` if the driver
    /// keeps nothing.
    pub fn open(dir: OwnedFd, container: &str, config: Config) -> Result<Option<Writer>, LogError> {
        let (Some(name), Some(format)) = (config.file(container), Format::of(config.driver)) else { return Ok(None) };
        if let Some((folder, _)) = name.split_once('/') {
            match rustix::fs::mkdirat(&dir, folder, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(LogError::file("mkdir", folder, e)),
            }
        }
        let attrs = encode_attrs(&config);
        let (file, inode, size) = open_current(&dir, &name)?;
        let mut writer = Writer {
            dir,
            name,
            config,
            format,
            attrs,
            file: Rc::new(file),
            inode,
            size,
            stdout: Line::default(),
            stderr: Line::default(),
            batch: Vec::new(),
            compression: None,
            compressing: false,
            lost: 0,
        };
        writer.close_off_torn_end()?;
        Ok(Some(writer))
    }

    /// Takes a chunk of output: complete lines are in the file when this returns, the rest waits for its newline.
    ///
    /// Errors: a write failed (a full disk); that batch is lost and counted, the file keeps whole lines, and later
    /// chunks are tried again.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], now: Timestamp, allowed: Rotations) -> Result<(), LogError> {
        let attrs = std::mem::take(&mut self.attrs);
        let encoder = Encoder::new(self.format, stream, &attrs, now);
        let mut line = std::mem::take(self.line(stream));
        let mut outcome = Ok(());
        let mut left = allowed;
        line.feed(chunk, |message| {
            let result = self.put(&encoder, message, &mut left);
            if outcome.is_ok() {
                outcome = result;
            }
        });
        *self.line(stream) = line;
        drop(encoder);
        self.attrs = attrs;
        let flushed = self.flush();
        outcome.and(flushed)
    }

    /// Writes unterminated last lines: the process is done. Does not rotate, so that no reader is overtaken at the end.
    pub fn finish(&mut self, now: Timestamp) -> Result<(), LogError> {
        let mut outcome = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.line(stream).take();
            if rest.is_empty() {
                continue;
            }
            let attrs = self.attrs.clone();
            let encoder = Encoder::new(self.format, stream, &attrs, now);
            let mut allowed = Rotations::None;
            outcome = outcome.and(self.put(&encoder, &rest, &mut allowed));
        }
        let flushed = self.flush();
        outcome.and(flushed)
    }

    /// What was taken of a stream and waits for its newline.
    pub fn unterminated(&self, stream: Stream) -> &[u8] {
        match stream {
            Stream::Stdout => self.stdout.rest(),
            Stream::Stderr => self.stderr.rest(),
        }
    }

    /// The end of the spool.
    pub fn position(&self) -> Position {
        Position { inode: self.inode, offset: self.size }
    }

    /// The current file, for [`crate::Cursor`].
    pub fn file(&self) -> Rc<File> {
        Rc::clone(&self.file)
    }

    /// Whether the next message wants a rotation first.
    pub fn is_full(&self) -> bool {
        self.config.max_size.is_some_and(|max| self.size + self.batch.len() as u64 >= max)
    }

    /// Takes the compression that the last rotation asks for. No further rotation happens until
    /// [`Writer::compressed`] is called.
    pub fn take_compression(&mut self) -> Option<Compression> {
        self.compression.take()
    }

    /// Notes that the compression is done, well or not.
    pub fn compressed(&mut self) {
        self.compressing = false;
    }

    /// Whether a rotation has to wait for a compression.
    pub fn is_compressing(&self) -> bool {
        self.compressing
    }

    /// Bytes of output that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Docker's rule: a file that has reached its size is rotated before the next message.
    fn put(&mut self, encoder: &Encoder<'_>, message: &[u8], allowed: &mut Rotations) -> Result<(), LogError> {
        if self.is_full() && *allowed != Rotations::None && !self.compressing {
            self.flush()?;
            self.rotate()?;
            if *allowed == Rotations::One {
                *allowed = Rotations::None;
            }
        } else if self.batch.len() >= BATCH {
            self.flush()?;
        }
        encoder.put(&mut self.batch, message);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let outcome = (&*self.file).write_all(&self.batch);
        match &outcome {
            Ok(()) => self.size += self.batch.len() as u64,
            Err(_) => {
                self.lost += self.batch.len() as u64;
                // Part of a line would spoil the next one. If even this fails, the reader passes the torn line over.
                let _ = self.file.set_len(self.size);
            }
        }
        if self.batch.capacity() > BATCH {
            self.batch = Vec::new();
        } else {
            self.batch.clear();
        }
        outcome.map_err(|e| LogError::file("write", &self.name, e))
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        let files = self.config.max_file;
        if files < 2 {
            let removed = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
            missing_is_fine(removed).map_err(|e| LogError::file("unlink", &self.name, e))?;
        } else {
            let suffix = if self.config.compress { ".gz" } else { "" };
            for n in (1..files - 1).rev() {
                let (from, to) = (format!("{}.{n}{suffix}", self.name), format!("{}.{}{suffix}", self.name, n + 1));
                let moved = rustix::fs::renameat(&self.dir, &from, &self.dir, &to);
                missing_is_fine(moved).map_err(|e| LogError::file("rename", &from, e))?;
            }
            let first = format!("{}.1", self.name);
            let moved = rustix::fs::renameat(&self.dir, &self.name, &self.dir, &first);
            missing_is_fine(moved).map_err(|e| LogError::file("rename", &self.name, e))?;
            if self.config.compress {
                let dir = self.dir.try_clone().map_err(|e| LogError::file("dup", &self.name, e))?;
                self.compression = Some(Compression { dir, file: first, inode: self.inode });
                self.compressing = true;
            }
        }
        let (file, inode, size) = open_current(&self.dir, &self.name)?;
        (self.file, self.inode, self.size) = (Rc::new(file), inode, size);
        Ok(())
    }

    /// A crash may have left part of a line or record. A json-file line gets its newline (readers pass it over), a binary
    /// record is cut away.
    fn close_off_torn_end(&mut self) -> Result<(), LogError> {
        if self.size == 0 {
            return Ok(());
        }
        let failed = |e| LogError::file("read", &self.name, e);
        match self.format {
            Format::Json => {
                let mut last = [0];
                self.file.read_exact_at(&mut last, self.size - 1).map_err(failed)?;
                if last != *b"\n" {
                    self.batch.push(b'\n');
                    return self.flush();
                }
            }
            Format::Local => {
                let whole = whole_records(&self.file, self.size).map_err(failed)?;
                if whole < self.size {
                    self.file.set_len(whole).map_err(|e| LogError::file("truncate", &self.name, e))?;
                    self.size = whole;
                }
            }
        }
        Ok(())
    }
}

impl Compression {
    /// Compresses the rotated file beside itself and removes the plain one. The original's inode number stands in the gzip header's
    /// comment, by which a following reader finds its place again.
    pub fn run(self) -> Result<(), LogError> {
        let target = format!("{}.gz", self.file);
        let failed = |operation, e: std::io::Error| LogError::file(operation, &self.file, e);
        let source = rustix::fs::openat(&self.dir, &self.file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed("open", e.into()))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let temporary = format!("{target}.tmp");
        let out = rustix::fs::openat(&self.dir, &temporary, flags, Mode::from_raw_mode(0o640))
            .map_err(|e| failed("create", e.into()))?;
        let mut gzip = flate2::GzBuilder::new()
            .comment(format!("inode {}", self.inode))
            .write(File::from(out), flate2::Compression::fast());
        std::io::copy(&mut File::from(source), &mut gzip).map_err(|e| failed("compress", e))?;
        gzip.finish().map_err(|e| failed("compress", e))?;
        rustix::fs::renameat(&self.dir, &temporary, &self.dir, &target).map_err(|e| failed("rename", e.into()))?;
        rustix::fs::unlinkat(&self.dir, &self.file, AtFlags::empty()).map_err(|e| failed("unlink", e.into()))
    }
}

fn encode_attrs(config: &Config) -> String {
    if config.attrs.is_empty() {
        return String::new();
    }
    // A map of strings always serialises.
    serde_json::to_string(&config.attrs).unwrap_or_default()
}

fn open_current(dir: &impl AsFd, name: &str) -> Result<(File, u64, u64), LogError> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o640))
        .map_err(|e| LogError::file("open", name, e))?;
    let file = File::from(fd);
    let meta = file.metadata().map_err(|e| LogError::file("stat", name, e))?;
    Ok((file, meta.ino(), meta.len()))
}

fn missing_is_fine(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Length of the run of whole binary records at the start of a file.
fn whole_records(file: &File, size: u64) -> std::io::Result<u64> {
    let mut buffer = vec![0; crate::local::MAX + 8];
    let (mut at, mut record) = (0, Record::default());
    while at < size {
        let mut n = 0;
        while n < buffer.len() {
            let got = file.read_at(&mut buffer[n..], at + n as u64)?;
            if got == 0 {
                break;
            }
            n += got;
        }
        let mut used = 0;
        while let Step::Message(len) = Format::Local.take(&buffer[used..n], &mut record) {
            used += len;
        }
        if used == 0 {
            return Ok(at);
        }
        at += used as u64;
    }
    Ok(at)
}
