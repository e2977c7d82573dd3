//! What can go wrong with blobs.

use std::io;
use std::path::PathBuf;

use wharf_error::{HasKind, Kind};
use wharf_types::Digest;

/// A failed operation of the content store.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No such blob.
    #[error("content digest {0}: not found")]
    NotFound(Digest),
    /// What was written has another digest than was promised.
    #[error("unexpected digest {found}: expected {expected}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// What was written has another size than was promised.
    #[error("unexpected size {found} of {subject}: expected {expected}")]
    Size {
        /// What was written.
        subject: String,
        /// The promised size in bytes.
        expected: u64,
        /// The size that came.
        found: u64,
    },
    /// A blob is larger than its reader takes into memory.
    #[error("content digest {digest}: {size} bytes are more than the {limit} allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Another writer has this ingest open.
    #[error("ingest {0:?} is being written by someone else")]
    Busy(String),
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl HasKind for ContentError {
    fn kind(&self) -> Kind {
        match self {
            ContentError::NotFound(_) => Kind::NotFound,
            ContentError::Digest { .. } | ContentError::Size { .. } => Kind::Invalid,
            ContentError::TooLarge { .. } => Kind::TooLarge,
            ContentError::Busy(_) => Kind::Unavailable,
            ContentError::File { .. } => Kind::System,
        }
    }
}
