//! Layer directories that have a second owner besides the image store: the build cache.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use wharf_archive::Difference;
use wharf_types::Mount;

use crate::{Snapshot, SnapshotError, Snapshotter, Target, Usage};

/// Counts which directories the build cache needs: its own and those below them.
#[derive(Debug, Default)]
pub struct Kept(RwLock<HashMap<u64, usize>>);

impl Kept {
    /// Counts a snapshot and what is below it.
    pub fn add(&self, snapshot: &Snapshot) {
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for number in std::iter::once(&snapshot.number).chain(&snapshot.lowers) {
            *counts.entry(*number).or_default() += 1;
        }
    }

    /// Counts a snapshot and what is below it no more; returns those that nothing counts on now.
    pub fn release(&self, snapshot: &Snapshot) -> Vec<u64> {
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut free = Vec::new();
        for number in std::iter::once(&snapshot.number).chain(&snapshot.lowers) {
            if let Some(count) = counts.get_mut(number) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(number);
                    free.push(*number);
                }
            }
        }
        free
    }

    /// Whether the build cache needs a directory.
    pub fn has(&self, number: u64) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// All directories that it needs.
    pub fn numbers(&self) -> HashSet<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// A driver for the image store: what the build cache needs too is not removed.
pub struct Sharing {
    driver: Arc<dyn Snapshotter>,
    kept: Arc<Kept>,
}

impl Sharing {
    /// Wraps a driver.
    pub fn new(driver: Arc<dyn Snapshotter>, kept: Arc<Kept>) -> Self {
        Self { driver, kept }
    }
}

impl Snapshotter for Sharing {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn stacks(&self) -> bool {
        self.driver.stacks()
    }

    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        self.driver.prepare(parent)
    }

    fn mounts(&self, snapshot: &Snapshot, volatile: bool) -> Result<Vec<Mount>, SnapshotError> {
        self.driver.mounts(snapshot, volatile)
    }

    fn target(&self, snapshot: &Snapshot) -> Result<Target, SnapshotError> {
        self.driver.target(snapshot)
    }

    fn layer(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.driver.layer(snapshot)
    }

    fn view(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.driver.view(snapshot)
    }

    fn difference(&self, snapshot: &Snapshot) -> Result<Difference, SnapshotError> {
        self.driver.difference(snapshot)
    }

    fn rebase(&self, snapshot: Snapshot, parent: &Snapshot, implied: &[PathBuf]) -> Result<Snapshot, SnapshotError> {
        self.driver.rebase(snapshot, parent, implied)
    }

    fn commit(&self, snapshot: Snapshot) -> Result<Snapshot, SnapshotError> {
        self.driver.commit(snapshot)
    }

    fn reset(&self, snapshot: &Snapshot, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        self.driver.reset(snapshot, parent)
    }

    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        if self.kept.has(snapshot.number) {
            return Ok(());
        }
        self.driver.remove(snapshot)
    }

    fn limits(&self) -> bool {
        self.driver.limits()
    }

    fn limit(&self, snapshot: &Snapshot, bytes: u64) -> Result<(), SnapshotError> {
        self.driver.limit(snapshot, bytes)
    }

    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        self.driver.usage(snapshot)
    }

    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        self.driver.reconcile(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_when_nothing_counts_on_it() {
        let kept = Kept::default();
        let low = Snapshot { number: 1, lowers: vec![], writable: false };
        let high = Snapshot { number: 2, lowers: vec![1], writable: false };
        kept.add(&low);
        kept.add(&high);
        assert_eq!(kept.release(&low), Vec::<u64>::new());
        assert!(kept.has(1));
        assert_eq!(kept.release(&high), [2, 1]);
        assert!(kept.numbers().is_empty());
    }
}
