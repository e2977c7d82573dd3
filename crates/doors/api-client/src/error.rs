//! What can go wrong between the command line and a daemon, with the texts of Docker's client.

use std::io;

use wharf_error::{HasKind, Kind};

use crate::host::Host;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Connect {
        /// The daemon's address.
        host: Host,
        /// Why.
        source: io::Error,
    },
    /// The socket is there, but not for this user.
    #[error("permission denied while trying to connect to the Docker daemon socket at {host}")]
    Permission {
        /// The daemon's address.
        host: Host,
        /// Why.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The connection broke.
    #[error("error during connect: {operation}: {source}")]
    Transfer {
        /// What was under way: `reading the answer`, `sending the request`.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The answer is not HTTP, or not the JSON that belongs to the request.
    #[error("invalid answer from daemon: {0}")]
    Answer(String),
    /// The body to send could not be read.
    #[error("reading what is to be sent: {0}")]
    Source(#[source] io::Error),
}

impl Error {
    /// Returns the status of the daemon's answer, if it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Daemon { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Connect { .. } => Kind::Unavailable,
            Error::Permission { .. } => Kind::Forbidden,
            Error::Transfer { .. } | Error::Answer(_) | Error::Source(_) => Kind::System,
            Error::Daemon { status, .. } => match status {
                304 => Kind::NotModified,
                400 => Kind::Invalid,
                401 => Kind::Unauthorised,
                403 => Kind::Forbidden,
                404 => Kind::NotFound,
                409 => Kind::Conflict,
                413 => Kind::TooLarge,
                501 => Kind::NotImplemented,
                503 => Kind::Unavailable,
                504 => Kind::Deadline,
                _ => Kind::System,
            },
        }
    }
}
