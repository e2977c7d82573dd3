//! A container's folder under the exec root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::TaskError;

/// A prepared task folder with the socket that the shim will serve, already listening.
#[derive(Debug)]
pub struct TaskFolder {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
    pub(crate) listener: OwnedFd,
}

#[allow(clippy::unimplemented, reason = "first landing: signatures")]
impl TaskFolder {
    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open folder.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Writes `config.json`.
    pub fn write_config(&self, json: &[u8]) -> Result<(), TaskError> {
        let _ = (json, &self.id, &self.listener);
        unimplemented!()
    }
}
