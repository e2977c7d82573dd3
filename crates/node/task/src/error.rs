//! Errors of the task boundary.

use std::path::PathBuf;
use std::time::Duration;

use wharf_error::{HasKind, Kind};
use wharf_proto_task::Code;
use wharf_types::Failure;

/// What can go wrong between dockerd and a shim.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A system call on the task folder failed.
    #[error("{operation} {path}")]
    Folder {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The shim could not be started.
    #[error("starting shim {binary}")]
    Spawn {
        /// The shim's executable.
        binary: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// No shim answers for this container: it was killed.
    #[error("shim of container {id} is gone")]
    Gone {
        /// The container.
        id: String,
    },
    /// The connection broke before the answer: the shim may or may not have done what was asked.
    #[error("connection to the shim of container {id} was lost during {call}")]
    Lost {
        /// The container.
        id: String,
        /// The method.
        call: &'static str,
    },
    /// The shim did not answer in time.
    #[error("shim of container {id} did not answer {call} within {after:?}")]
    Deadline {
        /// The container.
        id: String,
        /// The method.
        call: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The shim answered with an error.
    #[error("{message}")]
    Remote {
        /// The method.
        call: &'static str,
        /// gRPC's code.
        code: Code,
        /// The shim's message.
        message: String,
        /// The typed reason, where a process could not be started.
        failure: Option<Failure>,
    },
    /// The shim's bytes are no valid answer.
    #[error("shim of container {id} sent an answer to {call} that cannot be read")]
    Protocol {
        /// The container.
        id: String,
        /// The method.
        call: &'static str,
    },
}

impl TaskError {
    /// The typed reason of a failed create, start or exec.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            TaskError::Remote { failure, .. } => failure.as_ref(),
            _ => None,
        }
    }
}

impl HasKind for TaskError {
    fn kind(&self) -> Kind {
        match self {
            TaskError::Folder { .. } | TaskError::Spawn { .. } | TaskError::Protocol { .. } => Kind::System,
            TaskError::Gone { .. } | TaskError::Lost { .. } => Kind::Unavailable,
            TaskError::Deadline { .. } => Kind::Deadline,
            TaskError::Remote { code, .. } => code.kind(),
        }
    }
}
