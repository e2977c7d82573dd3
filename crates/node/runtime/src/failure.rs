//! Making `types::Failure` from the kernel's answers.

use std::io;

use wharf_types::{Failure, Stage};

/// Names the step and its subject for an error.
pub(crate) trait OrFail<T> {
    /// Turns an error into a failure of `stage`; the subject is made only then.
    fn or_fail<S: Into<String>>(self, stage: Stage, subject: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> OrFail<T> for Result<T, E> {
    fn or_fail<S: Into<String>>(self, stage: Stage, subject: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|e| {
            let e: io::Error = e.into();
            match e.raw_os_error() {
                Some(errno) => Failure { stage, errno, subject: subject().into() },
                None => Failure { stage, errno: 0, subject: format!("{}: {e}", subject().into()) },
            }
        })
    }
}

/// A failure that no system call reported.
pub(crate) fn refuse(stage: Stage, subject: impl Into<String>) -> Failure {
    Failure { stage, errno: 0, subject: subject.into() }
}
