//! Streams that are FIFOs or files by path, as a real containerd gives them.
//!
//! ```text
//!                  ┌── write end ──▶ process            stdout, stderr: the process writes to the FIFO itself, and
//! FIFO ◀───────────┤                                    we hold it open, so that it never sees it without a reader
//!                  └── both ends ──▶ shim, until the process ends
//! FIFO ──▶ shim ──▶ pipe ──▶ process                    stdin, which CloseIO must be able to end
//! terminal ──▶ shim ──▶ FIFO
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawMode, openat};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::poll::{Ready, Token};
use crate::process::{Input, Process};
use crate::supervisor::Supervisor;

/// Where a process's streams come from and go; empty is `/dev/null`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What the shim holds of such streams.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The FIFO that input comes from.
    pub(crate) source: Option<OwnedFd>,
    /// Kept open until the process ends.
    pub(crate) open: Vec<OwnedFd>,
    /// Where a terminal's output goes.
    pub(crate) sink: Option<Sink>,
}

/// A FIFO that takes a terminal's output.
#[derive(Debug)]
pub(crate) struct Sink {
    fd: OwnedFd,
    pending: Vec<u8>,
    waiting: bool,
}

impl Sink {
    /// Whether it has to be read before more is taken.
    pub(crate) fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// The path of a stream: plain, or with scheme `fifo` or `file`.
///
/// Errors: `EOPNOTSUPP` for `binary://`, which names a program of the host by container data (CVE-2026-53488), and others.
fn path_of(text: &str) -> io::Result<PathBuf> {
    let path = match text.split_once("://") {
        None => text,
        Some(("fifo" | "file", path)) => path.split('?').next().unwrap_or(path),
        Some(_) => return Err(Errno::OPNOTSUPP.into()),
    };
    if path.starts_with('/') { Ok(PathBuf::from(path)) } else { Err(Errno::INVAL.into()) }
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o600);
    Ok(openat(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode)?)
}

fn is_fifo(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode as RawMode) == FileType::Fifo)
}

/// Opens an output: the end for the process, and what we hold meanwhile.
fn output(text: &str) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    if text.is_empty() {
        return Ok((open(Path::new("/dev/null"), OFlags::WRONLY)?, None));
    }
    let path = path_of(text)?;
    if text.starts_with("file://") {
        return Ok((open(&path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?, None));
    }
    // Both ends at once: opening does not wait, and the process is never without a reader.
    let held = open(&path, OFlags::RDWR | OFlags::NONBLOCK)?;
    if !is_fifo(&held)? {
        return Err(Errno::INVAL.into());
    }
    Ok((open(&path, OFlags::WRONLY)?, Some(held)))
}

/// The three ends of a process without terminal, our end of its input, and what we hold.
pub(crate) fn streams(paths: &Paths) -> io::Result<([OwnedFd; 3], Option<Input>, Held)> {
    let mut held = Held::default();
    let (stdin_end, stdin) = if paths.stdin.is_empty() {
        (open(Path::new("/dev/null"), OFlags::RDONLY)?, None)
    } else {
        held.source = Some(source(&paths.stdin)?);
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (theirs, Some(Input::new(ours)?))
    };
    let (stdout, stdout_held) = output(&paths.stdout)?;
    let (stderr, stderr_held) = output(&paths.stderr)?;
    held.open.extend(stdout_held.into_iter().chain(stderr_held));
    Ok(([stdin_end, stdout, stderr], stdin, held))
}

fn source(text: &str) -> io::Result<OwnedFd> {
    // Without waiting for a writer; until the first one came the kernel reports nothing.
    let fd = open(&path_of(text)?, OFlags::RDONLY | OFlags::NONBLOCK)?;
    if is_fifo(&fd)? { Ok(fd) } else { Err(Errno::INVAL.into()) }
}

/// What we hold of the streams of a process with terminal.
pub(crate) fn for_terminal(paths: &Paths) -> io::Result<Held> {
    let mut held = Held::default();
    if !paths.stdin.is_empty() {
        held.source = Some(source(&paths.stdin)?);
    }
    if !paths.stdout.is_empty() {
        let path = path_of(&paths.stdout)?;
        let fd = if paths.stdout.starts_with("file://") {
            open(&path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?
        } else {
            open(&path, OFlags::RDWR | OFlags::NONBLOCK)?
        };
        held.sink = Some(Sink { fd, pending: Vec::new(), waiting: false });
    }
    Ok(held)
}

impl Supervisor {
    /// Starts reading a process's input, once it can be given.
    pub(crate) fn watch_source(&mut self, number: u32) {
        let Some(source) = self.processes.get(&number).and_then(|p| p.held.source.as_ref()) else { return };
        // In the set already after a pause that never was.
        let _ = self.poll.add(source, Token::Source(number), Ready::IN);
    }

    /// Reads input; its end closes the process's.
    pub(crate) fn read_source(&mut self, number: u32) {
        let Some(source) = self.processes.get(&number).and_then(|p| p.held.source.as_ref()) else { return };
        let mut buffer = [0u8; 8192];
        match rustix::io::read(source, &mut buffer) {
            Ok(0) => {
                self.close_source(number);
                // A terminal's end of input is a character, which its user types.
                if self.processes.get(&number).is_some_and(|p| !p.terminal) {
                    self.close_stdin(number);
                }
            }
            Ok(n) => self.take_input(number, &buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.close_source(number),
        }
    }

    /// Stops or goes on reading input, as there is room for it.
    pub(crate) fn pause_source(&mut self, number: u32, pause: bool) {
        let Some(source) = self.processes.get(&number).and_then(|p| p.held.source.as_ref()) else { return };
        if pause {
            self.poll.remove(source);
        } else {
            self.watch_source(number);
        }
    }

    pub(crate) fn close_source(&mut self, number: u32) {
        if let Some(source) = self.processes.get_mut(&number).and_then(|p| p.held.source.take()) {
            self.poll.remove(&source);
        }
    }

    /// Passes a terminal's output on.
    pub(crate) fn pour(&mut self, number: u32, bytes: &[u8]) {
        let Some(sink) = self.processes.get_mut(&number).and_then(|p| p.held.sink.as_mut()) else { return };
        sink.pending.extend_from_slice(bytes);
        self.flush_sink(number);
    }

    /// Writes what waits for a reader.
    pub(crate) fn flush_sink(&mut self, number: u32) {
        let Some(sink) = self.processes.get_mut(&number).and_then(|p| p.held.sink.as_mut()) else { return };
        while !sink.pending.is_empty() {
            match rustix::io::write(&sink.fd, &sink.pending) {
                Ok(n) => drop(sink.pending.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !sink.waiting && self.poll.add(&sink.fd, Token::Sink(number), Ready::OUT).is_ok() {
                        sink.waiting = true;
                    }
                    return;
                }
                // A full disk behind a file: output is lost, the process is not held up.
                Err(_) => sink.pending.clear(),
            }
        }
        if sink.waiting {
            sink.waiting = false;
            self.poll.remove(&sink.fd);
        }
        self.resume_outputs(number);
    }

    /// The process is over: readers of its FIFOs see the end.
    pub(crate) fn let_go(&mut self, number: u32) {
        self.close_source(number);
        let Some(process) = self.processes.get_mut(&number) else { return };
        process.held.open.clear();
        if let Some(sink) = process.held.sink.take() {
            last_words(&sink);
            if sink.waiting {
                self.poll.remove(&sink.fd);
            }
        }
    }
}

/// Gives what is left to a pipe that has room; a reader that never comes back is not waited for.
fn last_words(sink: &Sink) {
    let mut rest = sink.pending.as_slice();
    while let Ok(n) = rustix::io::write(&sink.fd, rest) {
        rest = &rest[n..];
        if rest.is_empty() {
            return;
        }
    }
}

impl Process {
    /// The streams, as State tells them.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_53488_a_stream_never_names_a_program() {
        for text in ["binary:///bin/sh?x", "http://x/y", "relative", "fifo://relative"] {
            assert!(path_of(text).is_err(), "{text}");
        }
        assert_eq!(path_of("fifo:///a/b").expect("path"), Path::new("/a/b"));
        assert_eq!(path_of("/a/b").expect("path"), Path::new("/a/b"));
    }

    #[test]
    fn what_is_no_fifo_is_not_taken_for_one() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let text = file.path().to_str().expect("UTF-8").to_owned();
        assert!(output(&text).is_err() && source(&text).is_err());
        let (_end, held) = output(&format!("file://{text}")).expect("opened");
        assert!(held.is_none());
    }
}
