//! Layers by full copies: slow and large, but right on any file system.

use std::collections::HashSet;
use std::io::{BufReader, BufWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use wharf_archive::{ArchiveError, Difference, Form, Whiteouts, extract, pack};
use wharf_types::Mount;

use crate::directory::{Numbered, committed, prepared};
use crate::{Snapshot, SnapshotError, Snapshotter, Target, Trash, Usage};

/// The vfs driver.
pub struct Vfs {
    numbered: Numbered,
}

impl Vfs {
    /// Opens the driver below the data root.
    ///
    /// # Errors
    /// [`SnapshotError::DataRoot`], [`SnapshotError::Directory`].
    pub fn open(data_root: &Path, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        Ok(Self { numbered: Numbered::open(data_root, "vfs", trash)? })
    }

    /// Copies a layer through a pipe of tar: what an archive cannot hold a layer cannot have either.
    fn copy(&self, from: &Snapshot, to: u64) -> Result<(), SnapshotError> {
        let failed = |source| SnapshotError::Copy { number: from.number, source };
        let source = self.numbered.open_content(from.number)?;
        let root = self.numbered.open_content(to)?;
        let (reader, writer) = std::io::pipe().map_err(|e| failed(ArchiveError::Read(e)))?;
        std::thread::scope(|scope| {
            let packed = scope.spawn(move || pack(source.as_fd(), &mut BufWriter::with_capacity(1 << 17, writer)));
            let mut stream = BufReader::with_capacity(1 << 17, reader);
            let extracted = extract(&mut stream, root, &[], Whiteouts::Keep);
            drop(stream);
            let ended = || ArchiveError::Read(std::io::Error::other("the copying thread ended unexpectedly"));
            let packed = packed.join().unwrap_or_else(|_| Err(ended()));
            // If extracting failed, packing fails for want of a reader; the first of them is the cause.
            extracted.and(packed).map_err(failed)
        })
    }
}

impl Snapshotter for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        if let Some(parent) = parent {
            committed(parent)?;
        }
        let number = self.numbered.make(&[("fs", 0o755)])?;
        self.numbered.dress(number, parent)?;
        let lowers = parent.map(|parent| std::iter::once(&parent.number).chain(&parent.lowers).copied().collect());
        let snapshot = Snapshot { number, lowers: lowers.unwrap_or_default(), writable: true };
        if let Some(parent) = parent
            && let Err(e) = self.copy(parent, number)
        {
            // The directory is empty or half a copy; if it cannot be thrown away now, the next daemon does it.
            let _ = self.remove(&snapshot);
            return Err(e);
        }
        Ok(snapshot)
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
        self.numbered.wipe(snapshot.number)?;
        if let Some(parent) = parent {
            self.copy(parent, snapshot.number)?;
        }
        Ok(Snapshot { writable: true, ..snapshot.clone() })
    }

    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.numbered.remove(snapshot)
    }

    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        self.numbered.usage(snapshot.number)
    }

    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        self.numbered.reconcile(known)
    }
}
