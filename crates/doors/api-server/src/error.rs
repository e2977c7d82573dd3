//! The one error of the API: a kind, which is an HTTP status, and a message.

use wharf_error::{Chain, HasKind, Kind};

/// An error answer: `{"message": …}` with the status of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What decides the status.
    pub kind: Kind,
    /// What the client shows to people, whole: sources included.
    pub message: String,
}

impl ApiError {
    /// Makes an error of a kind and its message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Takes the kind of a library's error and prints it with all of its sources.
    pub fn of(error: &impl HasKind) -> Self {
        Self { kind: error.kind(), message: Chain(error).to_string() }
    }

    /// A request that no state could make right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A feature that is not built.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, message)
    }
}

impl HasKind for ApiError {
    fn kind(&self) -> Kind {
        self.kind
    }
}
