//! The vfs driver.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use wharf_types::Mount;

use crate::{Snapshot, SnapshotError, Snapshotter, Target, Trash, Usage};

/// The vfs driver.
pub struct Vfs;

impl Vfs {
    /// Opens the driver below the data root.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(data_root: &Path, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        let _ = (data_root, trash);
        unimplemented!()
    }
}

impl Snapshotter for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }
    fn prepare(&self, _: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        unimplemented!()
    }
    fn mounts(&self, _: &Snapshot, _: bool) -> Result<Vec<Mount>, SnapshotError> {
        unimplemented!()
    }
    fn target(&self, _: &Snapshot) -> Result<Target, SnapshotError> {
        unimplemented!()
    }
    fn layer(&self, _: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        unimplemented!()
    }
    fn commit(&self, _: Snapshot) -> Result<Snapshot, SnapshotError> {
        unimplemented!()
    }
    fn remove(&self, _: &Snapshot) -> Result<(), SnapshotError> {
        unimplemented!()
    }
    fn usage(&self, _: &Snapshot) -> Result<Usage, SnapshotError> {
        unimplemented!()
    }
    fn reconcile(&self, _: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        unimplemented!()
    }
}
