//! Errors of parsing and executing, with Go's texts.

use wharf_error::{HasKind, Kind};

/// A template that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {name}:{line}: {message}")]
pub struct ParseError {
    /// The template's name.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// What was wrong.
    pub message: String,
}

impl HasKind for ParseError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A template that failed while it ran.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {location}: {message}")]
pub struct ExecuteError {
    /// `NAME:LINE:COLUMN`, with the column counted in bytes from 0.
    pub location: String,
    /// `executing "NAME" at <NODE>: ` and what was wrong.
    pub message: String,
}

impl HasKind for ExecuteError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}
