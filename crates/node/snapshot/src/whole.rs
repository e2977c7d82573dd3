//! Layers that are whole trees: each holds what it was made upon as well. How it comes to hold that, by a copy or by
//! sharing blocks, is all that tells vfs from btrfs.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use wharf_archive::{Difference, Form, Whiteouts};
use wharf_types::Mount;

use crate::directory::{Numbered, committed, prepared};
use crate::{Snapshot, SnapshotError, Snapshotter, Target, Usage};

/// How the content directory `fs` of a number is made, filled and taken away.
pub trait Trees: Send + Sync {
    /// The name of the driver.
    const NAME: &'static str;
    /// See [`Snapshotter::stacks`].
    const STACKS: bool;

    /// Makes it: empty, or with what a parent has.
    fn fill(&self, numbered: &Numbered, number: u64, parent: Option<&Snapshot>) -> Result<(), SnapshotError>;

    /// Takes it away at once, where that is cheaper than by the trash; none is no error.
    fn drain(&self, numbered: &Numbered, number: u64) -> Result<(), SnapshotError>;

    /// Makes it empty for [`Trees::fill`].
    fn empty(&self, numbered: &Numbered, number: u64) -> Result<(), SnapshotError>;

    /// See [`Snapshotter::limits`].
    fn limits(&self) -> bool {
        false
    }

    /// Limits it.
    fn limit(&self, _numbered: &Numbered, number: u64, _bytes: u64) -> Result<(), SnapshotError> {
        Err(SnapshotError::State { number, state: "not to be limited" })
    }

    /// What it takes of the disk beyond what it shares.
    fn usage(&self, numbered: &Numbered, snapshot: &Snapshot) -> Result<Usage, SnapshotError>;
}

/// A driver whose layers are whole trees.
pub struct Whole<T: Trees> {
    pub(crate) numbered: Numbered,
    pub(crate) trees: T,
}

pub(crate) fn difference(numbered: &Numbered, snapshot: &Snapshot) -> Result<Difference, SnapshotError> {
    let now = numbered.open_content(snapshot.number)?;
    let before = snapshot.lowers.first().map(|below| numbered.open_content(*below)).transpose()?;
    Ok(Difference { now, before, form: Form::Whole, places: Vec::new() })
}

impl<T: Trees> Snapshotter for Whole<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn stacks(&self) -> bool {
        T::STACKS
    }

    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        if let Some(parent) = parent {
            committed(parent)?;
        }
        let number = self.numbered.make(parent.is_none(), &[])?;
        let lowers = parent.map(|parent| std::iter::once(&parent.number).chain(&parent.lowers).copied().collect());
        let snapshot = Snapshot { number, lowers: lowers.unwrap_or_default(), writable: true };
        let filled = self.trees.fill(&self.numbered, number, parent);
        if let Err(e) = filled.and_then(|()| self.numbered.dress(number, parent)) {
            // It is empty or half a copy; if it cannot be thrown away now, the next daemon does it.
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
        difference(&self.numbered, snapshot)
    }

    fn commit(&self, snapshot: Snapshot) -> Result<Snapshot, SnapshotError> {
        prepared(&snapshot)?;
        Ok(Snapshot { writable: false, ..snapshot })
    }

    fn reset(&self, snapshot: &Snapshot, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        committed(snapshot)?;
        self.numbered.restore(snapshot.number, &[])?;
        self.trees.empty(&self.numbered, snapshot.number)?;
        self.trees.fill(&self.numbered, snapshot.number, parent)?;
        self.numbered.dress(snapshot.number, parent)?;
        Ok(Snapshot { writable: true, ..snapshot.clone() })
    }

    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.trees.drain(&self.numbered, snapshot.number)?;
        self.numbered.remove(snapshot)
    }

    fn limits(&self) -> bool {
        self.trees.limits()
    }

    fn limit(&self, snapshot: &Snapshot, bytes: u64) -> Result<(), SnapshotError> {
        prepared(snapshot)?;
        self.trees.limit(&self.numbered, snapshot.number, bytes)
    }

    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        self.trees.usage(&self.numbered, snapshot)
    }

    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        for number in self.numbered.unknown(known)? {
            self.trees.drain(&self.numbered, number)?;
        }
        self.numbered.reconcile(known)
    }
}
