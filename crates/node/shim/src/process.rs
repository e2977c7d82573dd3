//! A process of the container and its stdio.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::pipe::PipeFlags;
use wharf_logs::Stream;
use wharf_oci::runtime::Process as Document;
use wharf_types::{Mount, Timestamp};

use crate::fifo::{Held, Paths};

/// Bytes an output pipe holds, so that a burst of output costs few switches between container and shim. The kernel's own
/// default is 64 KiB. Source: pipe(7).
pub(crate) const PIPE: usize = 256 * 1024;

/// Where a process is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Prepared: for an exec the document and its pipe ends are kept until Start, and for a checkpoint what it is restored by.
    Created(Option<Prepared>),
    /// Runs.
    Running,
    /// Was reaped; output is still to come from others that hold its pipes.
    Draining { status: u32, at: Timestamp },
    /// Ended and recorded.
    Stopped { status: u32, at: Timestamp },
}

/// What Start needs.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Of an exec.
    Exec { document: Box<Document>, ends: Option<[OwnedFd; 3]> },
    /// Of a container that comes from a checkpoint: its images, and the parts of its root.
    Restore { images: PathBuf, rootfs: Vec<Mount>, ends: Option<[OwnedFd; 3]> },
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Empty for the container's first process.
    pub(crate) exec_id: String,
    pub(crate) pid: u32,
    pub(crate) terminal: bool,
    pub(crate) phase: Phase,
    /// Calls of Wait to answer: client and stream.
    pub(crate) waiters: Vec<(u32, u32)>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    pub(crate) stdin: Option<Input>,
    /// The terminal, for its size.
    pub(crate) console: Option<OwnedFd>,
    /// A size asked for before the terminal existed.
    pub(crate) size: Option<(u16, u16)>,
    /// Whether the process was given stdin that ends with the first client that ends it.
    pub(crate) stdin_once: bool,
    /// Whether it has any stdin.
    pub(crate) stdin_open: bool,
    /// stdin that came before the terminal it is for.
    pub(crate) early: Vec<u8>,
    /// Until when others may hold the pipes of this ended process.
    pub(crate) grace: Option<Instant>,
    /// Where its streams come from and go, if by path.
    pub(crate) paths: Paths,
    /// What is held of them.
    pub(crate) held: Held,
    /// Whether it was deleted and only its pipes are still read.
    pub(crate) deleted: bool,
}

/// The reading end of an output pipe or of a terminal.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: OwnedFd,
    /// Whether it is out of the epoll set, because a reader must catch up first.
    pub(crate) paused: bool,
}

/// The writing end of stdin.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) fd: OwnedFd,
    /// Taken from clients and not yet written: back pressure holds it to one read.
    pub(crate) pending: Vec<u8>,
    /// Whether it is in the epoll set, waiting for room.
    pub(crate) waiting: bool,
    /// Whether to close it once `pending` is written.
    pub(crate) closing: bool,
}

impl Process {
    pub(crate) fn output(&mut self, stream: Stream) -> &mut Option<Output> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Stopped { .. })
    }
}

/// The two sides of a process's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) ends: [OwnedFd; 3],
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

impl Pipes {
    /// Makes pipes; our ends do not block. Without `stdin` the process reads `/dev/null`.
    pub(crate) fn new(stdin: bool) -> io::Result<Pipes> {
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let (stdin, stdin_end) = if stdin {
            let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            (Some(Input::new(ours)?), theirs)
        } else {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
            (None, rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?)
        };
        Ok(Pipes { ends: [stdin_end, stdout_end, stderr_end], stdin, stdout, stderr })
    }
}

fn output_pipe() -> io::Result<(Output, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // A host may allow less (fs.pipe-max-size); the default works as well, only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE);
    Ok((Output { fd: ours, paused: false }, theirs))
}

impl Input {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Input> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Input { fd, pending: Vec::new(), waiting: false, closing: false })
    }
}

/// The two directions of a terminal as they stand in the epoll set: two descriptors, because one can be in it only once.
pub(crate) fn terminal(console: &OwnedFd) -> io::Result<(Output, OwnedFd)> {
    let output = console.as_fd().try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let input = console.as_fd().try_clone_to_owned()?;
    Ok((Output { fd: output, paused: false }, input))
}
