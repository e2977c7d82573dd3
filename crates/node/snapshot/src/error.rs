//! What can go wrong with snapshots.

use std::io;
use std::path::PathBuf;

use wharf_archive::ArchiveError;
use wharf_error::{HasKind, Kind};

/// A failed operation of a snapshotter.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No driver has this name.
    #[error("unknown storage driver {0:?}: overlayfs, btrfs and vfs are built in")]
    UnknownDriver(String),
    /// The driver cannot work on this kernel or file system.
    #[error("driver not supported: {driver} below {path}")]
    Unsupported {
        /// The driver.
        driver: &'static str,
        /// Where it was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The data root's path cannot stand in mount options.
    #[error("the data root {0} must not contain a colon, comma, backslash or line break, nor bytes that are not UTF-8")]
    DataRoot(PathBuf),
    /// A directory of the snapshotter cannot be made, read or renamed.
    #[error("cannot {action} {path}")]
    Directory {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Only a committed snapshot can have children, only a prepared one be written or committed.
    #[error("snapshot {number} is {state}")]
    State {
        /// The snapshot.
        number: u64,
        /// What it is.
        state: &'static str,
    },
    /// Copying a layer failed (vfs).
    #[error("cannot copy snapshot {number}")]
    Copy {
        /// The snapshot that was copied.
        number: u64,
        /// Why.
        source: ArchiveError,
    },
    /// The background thread cannot be started.
    #[error("cannot start the thread that empties the trash")]
    Thread(#[source] io::Error),
}

impl HasKind for SnapshotError {
    fn kind(&self) -> Kind {
        match self {
            SnapshotError::UnknownDriver(_) | SnapshotError::DataRoot(_) => Kind::Invalid,
            SnapshotError::State { .. } => Kind::Conflict,
            SnapshotError::Unsupported { .. } => Kind::NotImplemented,
            SnapshotError::Directory { .. } | SnapshotError::Copy { .. } | SnapshotError::Thread(_) => Kind::System,
        }
    }
}
