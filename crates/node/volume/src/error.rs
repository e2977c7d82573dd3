//! Errors of local volumes. The texts are Docker's (moby `volume/local`, `internal/safepath`).

use std::path::PathBuf;

use rustix::io::Errno;
use wharf_error::{HasKind, Kind};

/// What can go wrong with a volume on the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum VolumeError {
    #[error("invalid option: {0:?}")]
    InvalidOption(String),
    #[error("missing required option: {0:?}")]
    MissingOption(&'static str),
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("invalid {option}: '{value}'")]
    Owner { option: &'static str, value: String },
    #[error("option {option:?} cannot be combined with a device: give it to the file system with \"o\"")]
    OwnerOfDevice { option: &'static str },
    #[error("quota size requested but no quota support: {0}")]
    NoQuota(String),
    #[error("error resolving passed in network volume address: lookup {0}: no such host")]
    Resolve(String),
    #[error("failed to mount local volume: mount {what}: {}", errno(*source))]
    Mount { what: String, source: Errno },
    #[error("path concatenation escapes the base directory, base: {}, subpath: {subpath}", base.display())]
    Escapes { base: PathBuf, subpath: String },
    #[error("cannot access path {path}: lstat {path}: {}", errno(*source))]
    Access { path: String, source: Errno },
    #[error("{operation} {}: {}", path.display(), errno(*source))]
    File { operation: &'static str, path: PathBuf, source: Errno },
}

/// An error number in Go's words: lower case, without the number.
fn errno(number: Errno) -> String {
    let text = std::io::Error::from(number).to_string();
    let bare = text.rfind(" (os error").map_or(text.as_str(), |i| &text[..i]);
    let mut letters = bare.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl HasKind for VolumeError {
    fn kind(&self) -> Kind {
        match self {
            VolumeError::InvalidOption(_)
            | VolumeError::MissingOption(_)
            | VolumeError::Size(_)
            | VolumeError::Owner { .. }
            | VolumeError::OwnerOfDevice { .. }
            | VolumeError::NoQuota(_) => Kind::Invalid,
            VolumeError::Resolve(_)
            | VolumeError::Mount { .. }
            | VolumeError::Escapes { .. }
            | VolumeError::Access { .. }
            | VolumeError::File { .. } => Kind::System,
        }
    }
}
