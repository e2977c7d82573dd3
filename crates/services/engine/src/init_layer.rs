//! The layer between an image and its containers: the places onto which every container's own mounts go.
//!
//! Docker calls it the init layer (moby `daemon/initlayer/setup_unix.go`). One is made per image and shared by all its
//! containers, so that a start makes no file in the container's layer, `diff` and `commit` do not show what the engine
//! needs, and programs find `/.dockerenv`. No record says which layers there are: a container's record names those below
//! it, and a layer that no container's record names is swept away when the engine starts or makes the next one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use wharf_archive::{ArchiveError, Entry, EntryKind, Time, Writer};
use wharf_image::{Image, Images};
use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::Timestamp;

use crate::EngineError;
use crate::container::Registry;
use crate::rootfs::Root;

/// What is made where the image has nothing: a name, and where a link leads.
const PLACES: &[(&str, EntryKind, &str)] = &[
    (".dockerenv", EntryKind::File, ""),
    ("dev", EntryKind::Directory, ""),
    ("dev/console", EntryKind::File, ""),
    ("dev/pts", EntryKind::Directory, ""),
    ("dev/shm", EntryKind::Directory, ""),
    ("etc", EntryKind::Directory, ""),
    ("etc/hostname", EntryKind::File, ""),
    ("etc/hosts", EntryKind::File, ""),
    ("etc/mtab", EntryKind::Symlink, "/proc/mounts"),
    ("etc/resolv.conf", EntryKind::File, ""),
    ("proc", EntryKind::Directory, ""),
    ("sys", EntryKind::Directory, ""),
];

/// Mode of what is made (moby's).
const MODE: u32 = 0o755;

/// The init layers of this engine's images.
pub(crate) struct InitLayers {
    snapshots: Arc<dyn Snapshotter>,
    images: Arc<Images>,
    registry: Arc<Registry>,
    /// By the number of the image's topmost snapshot.
    made: Mutex<HashMap<u64, Snapshot>>,
}

impl InitLayers {
    pub(crate) fn new(snapshots: Arc<dyn Snapshotter>, images: Arc<Images>, registry: Arc<Registry>) -> Self {
        Self { snapshots, images, registry, made: Mutex::default() }
    }

    /// Prepares a container's own layer upon the image and its init layer. The image must be held.
    pub(crate) fn prepare(&self, image: &Image) -> Result<Snapshot, EngineError> {
        let below = self.images.snapshot(image)?;
        match below.as_ref() {
            Some(below) if self.snapshots.stacks() => Ok(self.snapshots.prepare(Some(&self.upon(below)?))?),
            below => {
                let own = self.snapshots.prepare(below)?;
                self.lay_or_remove(&own)?;
                Ok(own)
            }
        }
    }

    fn upon(&self, below: &Snapshot) -> Result<Snapshot, EngineError> {
        // Held while the layer is made: who wants the same one waits, once per image.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made.get(&below.number) {
            return Ok(found.clone());
        }
        self.sweep(&mut made);
        let own = self.snapshots.prepare(Some(below))?;
        self.lay_or_remove(&own)?;
        let layer = self.snapshots.commit(own)?;
        made.insert(below.number, layer.clone());
        Ok(layer)
    }

    /// Removes the layers of images that are gone, unless a container stands on them.
    fn sweep(&self, made: &mut HashMap<u64, Snapshot>) {
        let images = self.images.snapshot_numbers();
        let mut gone: Vec<u64> = made.keys().filter(|below| !images.contains(below)).copied().collect();
        if gone.is_empty() {
            return;
        }
        let used: HashSet<u64> =
            self.registry.all().iter().flat_map(|c| c.view().record.snapshot.lowers.clone()).collect();
        gone.retain(|below| !used.contains(&made[below].number));
        for below in gone {
            let Some(layer) = made.remove(&below) else { continue };
            if let Err(error) = self.snapshots.remove(&layer) {
                tracing::warn!(%error, "cannot remove the init layer of an image that is gone");
            }
        }
    }

    fn lay_or_remove(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        self.lay(snapshot).inspect_err(|_| {
            if let Err(error) = self.snapshots.remove(snapshot) {
                tracing::warn!(%error, "cannot remove a layer that was not finished");
            }
        })
    }

    /// Makes the places that are missing. Where the image leads elsewhere by a link, nothing is made: the runtime
    /// resolves it inside the container's root when it mounts.
    fn lay(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        let failed = |e: rustix::io::Errno| EngineError::InitLayer(ArchiveError::Read(e.into()));
        let seen = Root::of_mounts(&self.snapshots.mounts(snapshot, false)?).map_err(failed)?;
        let mut tar = Vec::new();
        let mut writer = Writer::new(&mut tar);
        let now = Time { seconds: Timestamp::now().seconds(), nanoseconds: 0 };
        for (name, kind, link) in PLACES {
            if seen.is_free(name) {
                let mut entry = Entry::plain(name, *kind, MODE, 0, now);
                entry.link = link.as_bytes().to_vec();
                writer.entry(&entry, &mut std::io::empty()).map_err(EngineError::InitLayer)?;
            }
        }
        writer.finish().map_err(EngineError::InitLayer)?;
        drop(seen);
        let target = self.snapshots.target(snapshot)?;
        // Containers are acknowledged as lasting, so what they stand on must last too.
        let root = self.snapshots.layer(snapshot)?;
        wharf_archive::extract(&mut tar.as_slice(), target.root, &target.parents, target.whiteouts)
            .map_err(EngineError::InitLayer)?;
        rustix::fs::fsync(&root).map_err(|e| EngineError::InitLayer(ArchiveError::Write(e.into())))
    }
}
