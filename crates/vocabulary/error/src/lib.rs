//! The small set of error kinds that every public error of Wharf maps to, and nothing else.
//!
//! Libraries define one error enum per family of operations and implement [`HasKind`] by a match without
//! wildcard. The edges turn a kind into an HTTP status, a gRPC code or an exit code: one function each, there.
//! The set follows moby's `errdefs` package, whose names are what API clients see as statuses.

use std::fmt;

/// What a caller can do about an error, independent of which part of the engine raised it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist (HTTP 404).
    NotFound,
    /// The request contradicts the present state: name in use, already running (HTTP 409).
    Conflict,
    /// The request itself is wrong; no state could make it right (HTTP 400).
    Invalid,
    /// The thing is already in the asked-for state (HTTP 304).
    NotModified,
    /// The caller did not prove who it is (HTTP 401).
    Unauthorised,
    /// The caller is known and may not do this (HTTP 403).
    Forbidden,
    /// Not built, or switched off on this host (HTTP 501).
    NotImplemented,
    /// A dependency is not ready; trying again later may help (HTTP 503).
    Unavailable,
    /// The body is larger than this endpoint takes (HTTP 413).
    TooLarge,
    /// The caller went away or cancelled.
    Cancelled,
    /// A deadline passed (HTTP 504 at gateways; 500 in Docker's API).
    Deadline,
    /// Stored data is damaged (HTTP 500).
    DataLoss,
    /// Everything else: the engine or the kernel failed (HTTP 500).
    System,
}

/// Implemented by every public error enum.
pub trait HasKind: std::error::Error {
    /// Returns the kind of this error.
    fn kind(&self) -> Kind;
}

/// Prints an error with all of its sources, joined by `: `, as the outermost layer does.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(e) = next {
            write!(f, ": {e}")?;
            next = e.source();
        }
        Ok(())
    }
}

/// Maps the errno of a failed file or kernel operation to the kind a client can act on.
///
/// Everything that is not plainly the caller's doing is [`Kind::System`].
pub fn kind_of_io(e: &std::io::Error) -> Kind {
    match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Forbidden,
        std::io::ErrorKind::AlreadyExists => Kind::Conflict,
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => Kind::Invalid,
        std::io::ErrorKind::TimedOut => Kind::Deadline,
        _ => Kind::System,
    }
}
