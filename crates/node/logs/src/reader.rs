//! Reading a container's log: since, until, tail and follow, as Docker's log endpoint has them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use wharf_types::Timestamp;

use crate::{Config, LogError, Position};

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

/// What a call of [`Reader::read`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Output was appended, more may be there at once.
    More,
    /// All that is written was read; wait for [`Reader::watch`] to become readable. Only when following.
    Idle,
    /// Nothing will follow.
    End,
}

/// Tells a following [`Reader`], from any thread, that the container is done: it reads to the end and stops.
#[derive(Clone, Debug)]
pub struct Ending {
    signal: Arc<OwnedFd>,
}

impl Ending {
    /// Ends the following. Idempotent.
    pub fn finish(&self) {
        let _ = &self.signal;
    }
}

/// A reader of one container's log. Tolerates a torn last line and rotation while it reads.
#[derive(Debug)]
pub struct Reader {}

#[allow(clippy::unimplemented, reason = "first landing: signatures")]
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
        let _ = (dir, container, config, options);
        unimplemented!()
    }

    /// Appends the next messages to `out`, about 64 KiB at a time. Never blocks beyond file reads.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<Progress, LogError> {
        let _ = out;
        unimplemented!()
    }

    /// The descriptor (an epoll) that becomes readable when the log may have grown or [`Ending::finish`] was called;
    /// `None` if not following. Usable with tokio's `AsyncFd`; [`Reader::read`] clears it.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        unimplemented!()
    }

    /// Blocks until [`Reader::watch`] is readable or the time is over. Returns whether there is something to read.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, LogError> {
        let _ = timeout;
        unimplemented!()
    }

    /// A handle that ends the following; `None` if not following.
    pub fn ending(&self) -> Option<Ending> {
        unimplemented!()
    }
}
