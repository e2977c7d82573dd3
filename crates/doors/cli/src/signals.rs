//! Signals that we take instead of dying of them: those to pass on, and changes of the terminal's size.

use wharf_sys::signal::{SignalFd, set_mask};
use wharf_types::Signal;

use crate::exit::Exit;

/// Signals caught through a descriptor.
pub struct Signals(SignalFd);

impl Signals {
    /// Catches these.
    ///
    /// # Errors
    /// That of signalfd(2).
    pub fn catch(numbers: &[i32]) -> Result<Self, Exit> {
        set_mask(numbers)?;
        Ok(Self(SignalFd::new(numbers)?))
    }

    /// Catches all that Docker passes on to the process in the container: all but CHLD, PIPE and URG.
    ///
    /// # Errors
    /// As [`Signals::catch`].
    pub fn catch_all() -> Result<Self, Exit> {
        let numbers: Vec<i32> =
            (1..=64).filter(|n| ![libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG].contains(n)).collect();
        Self::catch(&numbers)
    }

    /// Returns the next one.
    ///
    /// # Errors
    /// That of read(2).
    pub fn next(&self) -> Result<Option<i32>, Exit> {
        Ok(self.0.read()?)
    }

    /// Returns the descriptor, for poll(2).
    pub fn descriptor(&self) -> &SignalFd {
        &self.0
    }
}

/// Returns what the API calls a signal: `TERM`.
pub fn name(number: i32) -> Option<String> {
    let name = Signal::from_number(i64::from(number))?.name();
    Some(name.strip_prefix("SIG").unwrap_or(&name).to_owned())
}
