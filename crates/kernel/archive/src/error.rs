//! What can go wrong with archives.

use std::io;

use wharf_error::{HasKind, Kind};

/// A failed operation on an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream cannot be read, or ends within an entry.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The stream is not a tar archive, or is damaged.
    #[error("archive/tar: invalid tar header: {0}")]
    Header(&'static str),
    /// A header that describes the next one is longer than any honest one (CVE-2017-14992).
    #[error("archive/tar: an extended header of {0} bytes is too long")]
    TooLong(u64),
    /// The compression is known and not supported.
    #[error("archives compressed by {0} are not supported: use gzip, zstd or none")]
    Compression(&'static str),
    /// An entry's name or link target cannot be used.
    #[error("invalid path {path:?} in the archive: {why}")]
    Path {
        /// The entry's name.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry cannot be made on the file system.
    #[error("cannot {action} {path:?}")]
    Entry {
        /// What was tried.
        action: &'static str,
        /// The entry's name.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory would take the place of something else, or the other way round. Docker's text.
    #[error("cannot overwrite {what} {path:?} with {by} {path:?}")]
    Kind {
        /// What is there.
        what: &'static str,
        /// The entry's name.
        path: String,
        /// What would replace it.
        by: &'static str,
    },
    /// A file in the tree cannot be read.
    #[error("cannot read {path:?}")]
    Source {
        /// The file, relative to the tree.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl HasKind for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            ArchiveError::Header(_) | ArchiveError::TooLong(_) | ArchiveError::Path { .. } => Kind::Invalid,
            ArchiveError::Compression(_) | ArchiveError::Kind { .. } => Kind::Invalid,
            ArchiveError::Read(_)
            | ArchiveError::Write(_)
            | ArchiveError::Entry { .. }
            | ArchiveError::Source { .. } => Kind::System,
        }
    }
}
