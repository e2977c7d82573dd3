//! Layers as subvolumes of btrfs (btrfs-subvolume(8)): a snapshot shares all blocks with what it was taken of, and is
//! made in the time of one call, whatever its size.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::fstatfs;
use wharf_archive::{ChangeKind, Difference, Form, Whiteouts};
use wharf_sys::btrfs::{self, MAGIC};
use wharf_types::Mount;

use crate::directory::{Numbered, committed, failed, prepared};
use crate::{Snapshot, SnapshotError, Snapshotter, Target, Trash, Usage};

const NAME: &str = "btrfs";
const CONTENT: &CStr = c"fs";

/// The btrfs driver.
pub struct Btrfs {
    numbered: Numbered,
}

impl Btrfs {
    /// Opens the driver below the data root, which must lie on btrfs.
    ///
    /// # Errors
    /// [`SnapshotError::Unsupported`] on another file system, [`SnapshotError::DataRoot`],
    /// [`SnapshotError::Directory`].
    pub fn open(data_root: &Path, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        let here = File::open(data_root).map_err(|e| failed("open", data_root, e))?;
        let found = fstatfs(&here).map_err(|e| failed("look at the file system of", data_root, e.into()))?;
        if found.f_type as u64 & 0xffff_ffff != MAGIC {
            let source = io::Error::other("prerequisites for driver not satisfied (wrong filesystem?)");
            return Err(SnapshotError::Unsupported { driver: NAME, path: data_root.to_owned(), source });
        }
        Ok(Self { numbered: Numbered::open(data_root, NAME, trash)? })
    }

    fn folder(&self, number: u64) -> Result<File, SnapshotError> {
        let path = self.numbered.path(number);
        File::open(&path).map_err(|e| failed("open", &path, e))
    }

    /// Makes the subvolume of a number: empty, or a snapshot of another's.
    fn fill(&self, number: u64, parent: Option<u64>) -> Result<(), SnapshotError> {
        let folder = self.folder(number)?;
        let made = match parent {
            Some(parent) => btrfs::snapshot(self.numbered.open_content(parent)?.as_fd(), folder.as_fd(), CONTENT),
            None => btrfs::create(folder.as_fd(), CONTENT),
        };
        made.map_err(|e| failed("make the subvolume", &self.numbered.content(number), e))
    }

    /// Takes away the subvolume of a number; none is no error.
    fn drain(&self, number: u64) -> Result<(), SnapshotError> {
        let path = self.numbered.path(number);
        let folder = match File::open(&path) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("open", &path, e)),
        };
        match btrfs::destroy(folder.as_fd(), CONTENT) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the subvolume", &self.numbered.content(number), e))
            }
            _ => Ok(()),
        }
    }
}

impl Snapshotter for Btrfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn stacks(&self) -> bool {
        true
    }

    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        if let Some(parent) = parent {
            committed(parent)?;
        }
        let number = self.numbered.make(&[])?;
        self.fill(number, parent.map(|parent| parent.number))?;
        self.numbered.dress(number, parent)?;
        let lowers = parent.map(|parent| std::iter::once(&parent.number).chain(&parent.lowers).copied().collect());
        Ok(Snapshot { number, lowers: lowers.unwrap_or_default(), writable: true })
    }

    fn mounts(&self, snapshot: &Snapshot, _volatile: bool) -> Result<Vec<Mount>, SnapshotError> {
        prepared(snapshot)?;
        let source = self.numbered.content(snapshot.number).display().to_string();
        let options = vec!["rbind".to_owned(), "rw".to_owned()];
        Ok(vec![Mount { kind: "bind".to_owned(), source, target: String::new(), options }])
    }

    fn target(&self, snapshot: &Snapshot) -> Result<Target, SnapshotError> {
        prepared(snapshot)?;
        let root = self.numbered.open_content(snapshot.number)?;
        Ok(Target { root, parents: Vec::new(), whiteouts: Whiteouts::Apply })
    }

    fn layer(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.numbered.open_content(snapshot.number)
    }

    fn view(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.numbered.open_content(snapshot.number)
    }

    fn difference(&self, snapshot: &Snapshot) -> Result<Difference, SnapshotError> {
        let now = self.numbered.open_content(snapshot.number)?;
        let before = snapshot.lowers.first().map(|below| self.numbered.open_content(*below)).transpose()?;
        Ok(Difference { now, before, form: Form::Whole, places: Vec::new() })
    }

    fn commit(&self, snapshot: Snapshot) -> Result<Snapshot, SnapshotError> {
        prepared(&snapshot)?;
        Ok(Snapshot { writable: false, ..snapshot })
    }

    fn reset(&self, snapshot: &Snapshot, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        committed(snapshot)?;
        self.drain(snapshot.number)?;
        self.fill(snapshot.number, parent.map(|parent| parent.number))?;
        self.numbered.dress(snapshot.number, parent)?;
        Ok(Snapshot { writable: true, ..snapshot.clone() })
    }

    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        // The blocks of a subvolume go at once and in the background; the trash would go through every file.
        self.drain(snapshot.number)?;
        self.numbered.remove(snapshot)
    }

    /// What differs from the snapshot below: blocks that both have are counted there.
    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        if snapshot.lowers.is_empty() {
            return self.numbered.usage(snapshot.number);
        }
        let failed = |source| SnapshotError::Copy { number: snapshot.number, source };
        let root = wharf_archive::Root::new(self.numbered.open_content(snapshot.number)?);
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        for change in self.difference(snapshot)?.changes().map_err(failed)? {
            if change.kind != ChangeKind::Deleted {
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
                // A running container may remove what was listed.
                let Ok(file) = root.open(&change.path, flags, rustix::fs::Mode::empty()) else { continue };
                let stat =
                    rustix::fs::fstat(&file).map_err(|e| crate::directory::failed("stat", &change.path, e.into()))?;
                usage.add(&stat, &mut linked);
            }
        }
        Ok(usage)
    }

    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        for number in self.numbered.unknown(known)? {
            self.drain(number)?;
        }
        self.numbered.reconcile(known)
    }
}
