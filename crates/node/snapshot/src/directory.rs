//! Directories by number: what the drivers share.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat, statat};
use rustix::io::Errno;

use wharf_archive::remove_tree;

use crate::{Snapshot, SnapshotError, Trash, Usage};

/// Makes a folder into which only root can look: layers hold set-id programs, which a user of the host must not reach
/// (CVE-2021-41091). The kernel checks this at each lookup, so what is below keeps its own modes.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o710).create(path)
}

/// Asks the file system to put each directory that is made here into a part of the disk by itself, as it does below its own
/// root (`FS_TOPDIR_FL`, ext4's Orlov allocator), and empties the folder. The part follows from the directory's name there,
/// so names are random. Layers do not get into each other's way then; and ext4 without a journal does not give out an inode
/// that was freed a minute ago and looks at all of those first, which made the next layer of 20,000 files in the place of a
/// removed one four times slower (measured). Other file systems do not know the flag.
fn scatter(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(entry.path());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(fd) = openat(CWD, folder, flags, Mode::empty())
        && let Ok(now) = ioctl_getflags(&fd)
    {
        let _ = ioctl_setflags(&fd, now | IFlags::TOPDIR);
    }
}

/// The numbered directories of one driver. Its module is private: outside it is only a name in signatures.
pub struct Numbered {
    folder: PathBuf,
    /// Where directories that stand alone are made, before they get their place.
    spread: PathBuf,
    next: AtomicU64,
    trash: Arc<Trash>,
}

impl Numbered {
    pub(crate) fn open(data_root: &Path, name: &str, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        // Mount options know no way to write these that every kernel and shim reads alike.
        let text = data_root.to_str().filter(|text| !text.contains([':', ',', '\\', '\n', '"']));
        if text.is_none() {
            return Err(SnapshotError::DataRoot(data_root.to_owned()));
        }
        let folder = data_root.join(name);
        make_private(&folder).map_err(|e| failed("make", &folder, e))?;
        let spread = data_root.join("spread");
        make_private(&spread).map_err(|e| failed("make", &spread, e))?;
        scatter(&spread);
        let this = Self { folder, spread, next: AtomicU64::new(1), trash };
        let last = this.numbers()?.into_iter().max().unwrap_or(0);
        this.next.store(last + 1, Ordering::Relaxed);
        Ok(this)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    pub(crate) fn content(&self, number: u64) -> PathBuf {
        self.path(number).join("fs")
    }

    /// Makes a new directory and in it those that are named, with their modes. One that stands alone, a layer of an image
    /// and not a container's, gets a place of the disk for itself ([`scatter`]).
    pub(crate) fn make(&self, alone: bool, inner: &[(&str, u32)]) -> Result<u64, SnapshotError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(number);
        let make = |path: &Path, mode: u32| -> Result<(), SnapshotError> {
            DirBuilder::new().mode(mode).create(path).map_err(|e| failed("make", path, e))
        };
        if alone {
            let name = RandomState::new().build_hasher().finish();
            let first = self.spread.join(name.to_string());
            make(&first, 0o700)?;
            // What a kill leaves here is an empty folder.
            fs::rename(&first, &path).map_err(|e| failed("rename", &first, e))?;
        } else {
            make(&path, 0o700)?;
        }
        for (name, mode) in inner {
            make(&path.join(name), *mode)?;
        }
        Ok(number)
    }

    /// Gives a content directory the owner and mode of its parent's, since it stands for the root of the whole tree;
    /// without a parent, root's and 0755 whatever this process's umask is.
    pub(crate) fn dress(&self, number: u64, parent: Option<&Snapshot>) -> Result<(), SnapshotError> {
        let path = self.content(number);
        let made = fs::metadata(&path).map_err(|e| failed("stat", &path, e))?;
        let (uid, gid, mode) = match parent {
            Some(parent) => {
                let like = self.content(parent.number);
                let like = fs::metadata(&like).map_err(|e| failed("stat", &like, e))?;
                (like.uid(), like.gid(), like.mode() & 0o7777)
            }
            None => (made.uid(), made.gid(), 0o755),
        };
        if (uid, gid) != (made.uid(), made.gid()) {
            chown(&path, Some(uid), Some(gid)).map_err(|e| failed("chown", &path, e))?;
        }
        if mode != made.mode() & 0o7777 {
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(|e| failed("chmod", &path, e))?;
        }
        Ok(())
    }

    pub(crate) fn open_content(&self, number: u64) -> Result<OwnedFd, SnapshotError> {
        let path = self.content(number);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(CWD, &path, flags, Mode::empty()).map_err(|e| failed("open", &path, e.into()))
    }

    pub(crate) fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.trash.discard(&self.path(snapshot.number))
    }

    /// Makes the directory of a number and those that are named in it again, where they are lost.
    pub(crate) fn restore(&self, number: u64, inner: &[(&str, u32)]) -> Result<(), SnapshotError> {
        let path = self.path(number);
        let places = std::iter::once((path.clone(), 0o700)).chain(inner.iter().map(|(n, mode)| (path.join(n), *mode)));
        for (path, mode) in places {
            match DirBuilder::new().mode(mode).create(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", &path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes everything within a content directory.
    pub(crate) fn wipe(&self, number: u64) -> Result<(), SnapshotError> {
        let root = self.open_content(number)?;
        let path = self.content(number);
        for entry in Dir::read_from(&root).map_err(|e| failed("list", &path, e.into()))? {
            let entry = entry.map_err(|e| failed("list", &path, e.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                remove_tree(root.as_fd(), name).map_err(|e| failed("empty", &path, e))?;
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>, SnapshotError> {
        let entries = fs::read_dir(&self.folder).map_err(|e| failed("list", &self.folder, e))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| failed("list", &self.folder, e))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// The numbers that nobody knows, in order.
    pub(crate) fn unknown(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        let mut unknown: Vec<u64> = self.numbers()?.into_iter().filter(|n| !known.contains(n)).collect();
        unknown.sort_unstable();
        Ok(unknown)
    }

    pub(crate) fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        let unknown = self.unknown(known)?;
        for number in &unknown {
            self.trash.discard(&self.path(*number))?;
        }
        Ok(unknown)
    }

    /// Adds up blocks and inodes below the content directory, itself included, without holding more than one
    /// directory open. Directories are visited by path: the tree is the engine's own, and only its size is told.
    pub(crate) fn usage(&self, number: u64) -> Result<Usage, SnapshotError> {
        let top = self.open_content(number)?;
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        let mut waiting = VecDeque::from([PathBuf::from(".")]);
        let root = wharf_archive::Root::new(top);
        while let Some(path) = waiting.pop_front() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let folder = match root.open(&path, flags, Mode::empty()) {
                Ok(folder) => folder,
                // A running container may remove what was listed.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(failed("open", &self.content(number).join(&path), e)),
            };
            usage.add(&rustix::fs::fstat(&folder).map_err(|e| failed("stat", &path, e.into()))?, &mut linked);
            let entries = Dir::read_from(&folder).map_err(|e| failed("list", &path, e.into()))?;
            for entry in entries {
                let entry = entry.map_err(|e| failed("list", &path, e.into()))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let stat = match statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(failed("stat", &path.join(name), e.into())),
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => waiting.push_back(path.join(name)),
                    _ => usage.add(&stat, &mut linked),
                }
            }
        }
        Ok(usage)
    }
}

impl Usage {
    pub(crate) fn add(&mut self, stat: &rustix::fs::Stat, linked: &mut HashSet<(u64, u64)>) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        // st_blocks counts units of 512 bytes whatever the file system's block size (stat(2)).
        self.bytes += stat.st_blocks.cast_unsigned() * 512;
        self.inodes += 1;
    }
}

/// Only committed snapshots can have children.
pub(crate) fn committed(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    if snapshot.writable {
        return Err(SnapshotError::State { number: snapshot.number, state: "not committed" });
    }
    Ok(())
}

/// Only prepared snapshots can be written.
pub(crate) fn prepared(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    if !snapshot.writable {
        return Err(SnapshotError::State { number: snapshot.number, state: "committed already" });
    }
    Ok(())
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Directory { action, path: path.to_owned(), source }
}
