//! The trash: what was removed by rename, deleted by a background thread.

use std::path::Path;

use crate::SnapshotError;

/// A folder on the data root's file system whose content a background thread deletes. Anything below the data root
/// may be thrown in: layer directories, container folders.
pub struct Trash;

impl Trash {
    /// Opens `<data-root>/trash` and starts deleting what a former daemon left in it.
    ///
    /// # Errors
    /// [`SnapshotError::Directory`], [`SnapshotError::Thread`].
    pub fn open(data_root: &Path) -> Result<Self, SnapshotError> {
        let _ = data_root;
        unimplemented!()
    }

    /// Renames a path into the trash and wakes the thread. A path that does not exist is no error.
    ///
    /// # Errors
    /// [`SnapshotError::Directory`].
    pub fn discard(&self, path: &Path) -> Result<(), SnapshotError> {
        let _ = path;
        unimplemented!()
    }
}
