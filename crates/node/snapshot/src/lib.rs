//! Layer directories: prepared (writable) and committed (read-only) snapshots, and how to mount them.
//!
//! A driver keeps no records. A [`Snapshot`] is a small value that says everything about one directory; its owner
//! (a container, an image layer) stores it in its own record, in the same transaction as everything else. So a
//! container costs one commit, and what no record owns after a crash is found by [`Snapshotter::reconcile`].
//!
//! ```text
//! <data-root>/overlay/<n>/fs        the layer             <data-root>/overlay/<n>/work   overlayfs work (prepared only)
//! <data-root>/btrfs/<n>/fs          a subvolume
//! <data-root>/vfs/<n>/fs            a full copy           <data-root>/trash/<n>…         renamed away, being deleted
//! ```
//!
//! Numbers are never reused while a daemon runs and no name from outside ever becomes a path.

mod btrfs;
mod directory;
mod durable;
mod error;
mod kept;
mod overlay;
mod trash;
mod vfs;
mod view;
mod whole;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wharf_archive::Difference;
use wharf_types::Mount;

pub use btrfs::Btrfs;
pub use durable::sync;
pub use error::SnapshotError;
pub use kept::{Kept, Sharing};
pub use overlay::Overlay;
pub use trash::Trash;
pub use vfs::Vfs;
pub use view::stack;

/// One layer directory. Its owner keeps it in its record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// The number of its directory.
    pub number: u64,
    /// The numbers of the committed layers below it, nearest first. With drivers that copy, of what it was copied
    /// from: then nothing but [`Snapshotter::difference`] needs them.
    pub lowers: Vec<u64>,
    /// Whether it can be written: prepared, not yet committed.
    pub writable: bool,
}

/// What a snapshot takes of the disk, without the layers below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of allocated blocks, hard links counted once.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Where and how to extract a layer into a prepared snapshot.
pub struct Target {
    /// The directory to write to.
    pub root: OwnedFd,
    /// The directories of the layers below, nearest first, to take attributes of missing parents from.
    pub parents: Vec<OwnedFd>,
    /// Whether whiteouts are to be applied at once (the lower content is in the same directory) or to be written in
    /// overlayfs' form.
    pub whiteouts: wharf_archive::Whiteouts,
}

/// A way to keep layers. Every driver passes the suite in `tests/contract.rs`.
pub trait Snapshotter: Send + Sync {
    /// The name that `docker info` shows: `overlayfs`, `vfs`.
    fn name(&self) -> &'static str;

    /// Whether layers are stacked when they are mounted, so that one more between image and container costs nothing. If
    /// not, each snapshot is a copy of what is below it.
    fn stacks(&self) -> bool {
        false
    }

    /// Makes a writable directory upon a committed snapshot, or an empty one.
    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError>;

    /// The mounts that make up the root file system, to be performed by another process, in order. Paths are
    /// absolute. Overlay layers stand in one option `lowerdir=<a>:<b>:…`, nearest first, the form of containerd's
    /// shims; who mounts splits it where option strings are too short. With `volatile` the file system never syncs,
    /// for content that dies with its container; the mark of an earlier volatile mount is taken away.
    fn mounts(&self, snapshot: &Snapshot, volatile: bool) -> Result<Vec<Mount>, SnapshotError>;

    /// Opens a prepared snapshot for extraction.
    fn target(&self, snapshot: &Snapshot) -> Result<Target, SnapshotError>;

    /// Opens the directory in which the snapshot's own content is, for reading. For layered drivers this is only
    /// the snapshot's own layer.
    fn layer(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError>;

    /// Opens the snapshot with everything below it as one tree, read-only and mounted nowhere. Of a snapshot that is
    /// being written to, files come as they are at the moment of reading.
    fn view(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError>;

    /// Opens the snapshot and what is below it for comparing: what [`Difference::pack`] makes of it is the
    /// snapshot's layer, what [`Difference::changes`] makes of it is `docker diff`.
    fn difference(&self, snapshot: &Snapshot) -> Result<Difference, SnapshotError>;

    /// Puts a prepared snapshot, which was prepared upon nothing and extracted into, upon a committed one, as if it had been
    /// prepared upon it: so layers can be extracted side by side. `implied` is what [`wharf_archive::Extracted`] tells.
    /// Only drivers that stack can ([`Snapshotter::stacks`]).
    ///
    /// # Errors
    /// [`SnapshotError::State`] with the others.
    fn rebase(&self, snapshot: Snapshot, parent: &Snapshot, implied: &[PathBuf]) -> Result<Snapshot, SnapshotError> {
        let _ = (parent, implied);
        Err(SnapshotError::State { number: snapshot.number, state: "a copy of what is below it" })
    }

    /// Whether [`Snapshotter::limit`] works here.
    fn limits(&self) -> bool {
        false
    }

    /// Limits what a prepared snapshot takes of the disk, in bytes.
    ///
    /// # Errors
    /// [`SnapshotError::State`] with drivers that cannot, [`SnapshotError::Directory`].
    fn limit(&self, snapshot: &Snapshot, bytes: u64) -> Result<(), SnapshotError> {
        let _ = bytes;
        Err(SnapshotError::State { number: snapshot.number, state: "not to be limited" })
    }

    /// Turns a prepared snapshot into one that others can be prepared upon.
    fn commit(&self, snapshot: Snapshot) -> Result<Snapshot, SnapshotError>;

    /// Empties a committed snapshot in place, so that its content can be made anew upon the same parent: for content
    /// that a power cut may have damaged or that is lost. Its number stays, because others are prepared upon it.
    fn reset(&self, snapshot: &Snapshot, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError>;

    /// Renames the directory into the trash, where a background thread deletes it. A snapshot that is already gone
    /// is no error. Call it after the record that owned it is removed.
    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError>;

    /// Measures the snapshot's own directory by walking it.
    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError>;

    /// Moves every directory whose number is not `known` to the trash and returns those numbers. To be called
    /// before anything is prepared, when the daemon starts.
    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError>;
}

/// Opens the wanted driver (`overlayfs`, `overlay2`, `btrfs` or `vfs`), or with `None` overlay where the kernel and file
/// system can, btrfs where it cannot and the data root lies on it, and vfs elsewhere.
///
/// # Errors
/// [`SnapshotError::UnknownDriver`]; [`SnapshotError::Unsupported`] when overlay is asked for and cannot work here.
pub fn open(data_root: &Path, wanted: Option<&str>, trash: Arc<Trash>) -> Result<Arc<dyn Snapshotter>, SnapshotError> {
    match wanted {
        Some("overlayfs" | "overlay2") => Ok(Arc::new(Overlay::open(data_root, trash)?)),
        Some("btrfs") => Ok(Arc::new(Btrfs::open(data_root, trash)?)),
        Some("vfs") => Ok(Arc::new(Vfs::open(data_root, trash)?)),
        Some(other) => Err(SnapshotError::UnknownDriver(other.to_owned())),
        None => match Overlay::open(data_root, trash.clone()) {
            Ok(overlay) => Ok(Arc::new(overlay)),
            Err(SnapshotError::Unsupported { source, .. }) => {
                if let Ok(btrfs) = Btrfs::open(data_root, trash.clone()) {
                    return Ok(Arc::new(btrfs));
                }
                tracing::warn!(error = %source, "overlay does not work here, using vfs");
                Ok(Arc::new(Vfs::open(data_root, trash)?))
            }
            Err(e) => Err(e),
        },
    }
}
