//! Layers as subvolumes of btrfs (btrfs-subvolume(8)): a snapshot shares all blocks with what it was taken of, and is
//! made in the time of one call, whatever its size.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::fstatfs;
use wharf_archive::ChangeKind;
use wharf_sys::btrfs::{self, MAGIC};

use crate::directory::{Numbered, failed};
use crate::whole::{Trees, Whole, difference};
use crate::{Snapshot, SnapshotError, Trash, Usage};

const CONTENT: &CStr = c"fs";

/// The btrfs driver.
pub type Btrfs = Whole<Subvolumes>;

/// Trees that share blocks.
pub struct Subvolumes;

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
            return Err(SnapshotError::Unsupported { driver: Subvolumes::NAME, path: data_root.to_owned(), source });
        }
        Ok(Self { numbered: Numbered::open(data_root, Subvolumes::NAME, trash)?, trees: Subvolumes })
    }
}

impl Trees for Subvolumes {
    const NAME: &'static str = "btrfs";
    const STACKS: bool = true;

    fn fill(&self, numbered: &Numbered, number: u64, parent: Option<&Snapshot>) -> Result<(), SnapshotError> {
        let path = numbered.path(number);
        let folder = File::open(&path).map_err(|e| failed("open", &path, e))?;
        let made = match parent {
            Some(parent) => btrfs::snapshot(numbered.open_content(parent.number)?.as_fd(), folder.as_fd(), CONTENT),
            None => btrfs::create(folder.as_fd(), CONTENT),
        };
        made.map_err(|e| failed("make the subvolume", &numbered.content(number), e))
    }

    /// The blocks of a subvolume go at once and in the background; the trash would go through every file.
    fn drain(&self, numbered: &Numbered, number: u64) -> Result<(), SnapshotError> {
        let path = numbered.path(number);
        let folder = match File::open(&path) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("open", &path, e)),
        };
        match btrfs::destroy(folder.as_fd(), CONTENT) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the subvolume", &numbered.content(number), e))
            }
            _ => Ok(()),
        }
    }

    fn empty(&self, numbered: &Numbered, number: u64) -> Result<(), SnapshotError> {
        self.drain(numbered, number)
    }

    fn limits(&self) -> bool {
        true
    }

    /// Of what it refers to, its image's content included, as with Docker.
    fn limit(&self, numbered: &Numbered, number: u64, bytes: u64) -> Result<(), SnapshotError> {
        let limited = wharf_sys::quota::limit_subvolume(numbered.open_content(number)?.as_fd(), bytes);
        limited.map_err(|e| failed("limit the subvolume", &numbered.content(number), e))
    }

    /// What differs from the snapshot below: blocks that both have are counted there.
    fn usage(&self, numbered: &Numbered, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        if snapshot.lowers.is_empty() {
            return numbered.usage(snapshot.number);
        }
        let unread = |source| SnapshotError::Copy { number: snapshot.number, source };
        let root = wharf_archive::Root::new(numbered.open_content(snapshot.number)?);
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        for change in difference(numbered, snapshot)?.changes().map_err(unread)? {
            if change.kind != ChangeKind::Deleted {
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
                // A running container may remove what was listed.
                let Ok(file) = root.open(&change.path, flags, rustix::fs::Mode::empty()) else { continue };
                let stat = rustix::fs::fstat(&file).map_err(|e| failed("stat", &change.path, e.into()))?;
                usage.add(&stat, &mut linked);
            }
        }
        Ok(usage)
    }
}
