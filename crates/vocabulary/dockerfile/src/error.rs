//! Errors with their place in the file.

use crate::line::Range;

/// A Dockerfile that cannot be understood. Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// At a known place.
    #[error("dockerfile parse error on line {}: {text}", .at.first)]
    At {
        /// Where.
        at: Range,
        /// What is wrong.
        text: String,
    },
    /// The file as a whole.
    #[error("{0}")]
    Whole(String),
}

impl DockerfileError {
    /// The lines that are meant, if any.
    pub fn range(&self) -> Option<Range> {
        match self {
            Self::At { at, .. } => Some(*at),
            Self::Whole(_) => None,
        }
    }
}

/// Adds the place to a bare text.
pub trait Located<T> {
    /// The error at these lines.
    ///
    /// # Errors
    /// [`DockerfileError::At`].
    fn at(self, range: Range) -> Result<T, DockerfileError>;
}

impl<T> Located<T> for Result<T, String> {
    fn at(self, range: Range) -> Result<T, DockerfileError> {
        self.map_err(|text| DockerfileError::At { at: range, text })
    }
}
