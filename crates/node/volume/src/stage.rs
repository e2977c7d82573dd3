//! Holding a place of the host for one container, so that what was checked is what is mounted.
//!
//! A sub-path of a volume is written by containers, so between looking at it and mounting it somebody may put a link in its
//! place (the race of CVE-2024-23651; moby has `internal/safepath` against it). It is therefore opened beneath the volume's
//! descriptor, and the opened place itself is mounted at `<exec-root>/mounts/<container>/<n>`, which only root may write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use wharf_sys::mount::{Attributes, set_attributes};

use crate::{VolumeError, unmount_all};

/// Opens `subpath` beneath `base`. Links are followed within the base only; one that leads out is refused.
pub fn open_beneath(base: &Path, subpath: &str) -> Result<OwnedFd, VolumeError> {
    let access = |path: &Path, source| VolumeError::Access { path: path.display().to_string(), source };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(base, flags, Mode::empty()).map_err(|e| access(base, e))?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(&root, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Ok(fd) => return Ok(fd),
            // A rename raced with the look-up (openat2(2)): it is safe to look again.
            Err(Errno::AGAIN) => {}
            Err(Errno::XDEV | Errno::LOOP) => {
                return Err(VolumeError::Escapes { base: base.to_owned(), subpath: subpath.to_owned() });
            }
            Err(e) => return Err(access(&base.join(subpath), e)),
        }
    }
}

/// The folder of staged places.
#[derive(Clone, Debug)]
pub struct Staging(PathBuf);

impl Staging {
    /// Takes the folder; touches nothing.
    pub fn new(folder: PathBuf) -> Staging {
        Staging(folder)
    }

    fn folder(&self, container: &str) -> PathBuf {
        self.0.join(container)
    }

    /// Where the `number`-th place of a container is.
    pub fn place(&self, container: &str, number: usize) -> PathBuf {
        self.folder(container).join(number.to_string())
    }

    /// Mounts an opened file or folder at the container's `number`-th place, over what may be there already.
    pub fn hold(
        &self,
        container: &str,
        number: usize,
        what: BorrowedFd<'_>,
        read_only: bool,
    ) -> Result<PathBuf, VolumeError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let place = self.place(container, number);
        let failed = |operation| {
            let path = place.clone();
            move |source| VolumeError::File { operation, path, source }
        };
        let tree = open_tree(what, c"", flags).map_err(failed("open tree for"))?;
        if read_only {
            let what = Attributes { set: Attributes::RDONLY, ..Attributes::default() };
            let set = set_attributes(tree.as_fd(), false, &what);
            set.map_err(|e| failed("make read-only")(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        }
        self.attach(container, number, tree.as_fd())
    }

    /// Attaches a detached mount at the container's `number`-th place.
    pub fn attach(&self, container: &str, number: usize, tree: BorrowedFd<'_>) -> Result<PathBuf, VolumeError> {
        let place = self.place(container, number);
        let failed = |operation| {
            let path = place.clone();
            move |source| VolumeError::File { operation, path, source }
        };
        let folder = self.folder(container);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|e| failed("mkdir")(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        let kind = FileType::from_raw_mode(fstat(tree).map_err(failed("stat"))?.st_mode);
        let made = match kind {
            FileType::Directory => rustix::fs::mkdir(&place, Mode::RWXU),
            _ => rustix::fs::mknodat(CWD, &place, FileType::RegularFile, Mode::RUSR, 0),
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("make")(e)),
        }
        move_mount(tree, c"", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("mount"))?;
        Ok(place)
    }

    /// Lets go of all places of a container. One that has none costs a single look.
    pub fn release(&self, container: &str) {
        let folder = self.folder(container);
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        for entry in entries.flatten() {
            let place = entry.path();
            unmount_all(&place);
            // Never by walking: were it still mounted, that would delete what is behind it.
            let _ = std::fs::remove_dir(&place).or_else(|_| std::fs::remove_file(&place));
        }
        let _ = std::fs::remove_dir(&folder);
    }

    /// Containers that have places.
    pub fn holders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn open(base: &Path, subpath: &str) -> Result<OwnedFd, String> {
        let hidden = |e: VolumeError| e.to_string().replace(&base.display().to_string(), "B");
        open_beneath(base, subpath).map_err(hidden)
    }

    #[test]
    fn sub_paths_stay_beneath_and_errors_are_dockers() {
        let folder = tempfile::tempdir().expect("folder");
        let base = folder.path();
        std::fs::create_dir_all(base.join("a/b")).expect("made");
        symlink("a", base.join("in")).expect("linked");
        symlink("/etc", base.join("out")).expect("linked");
        symlink("../..", base.join("up")).expect("linked");
        for inside in ["a", "a/b", "in/b", "a/../a"] {
            assert!(open(base, inside).is_ok(), "{inside}");
        }
        for outside in ["out", "up", "a/../../x", "/etc"] {
            let text = format!("path concatenation escapes the base directory, base: B, subpath: {outside}");
            assert_eq!(open(base, outside).expect_err("refused"), text);
        }
        let text = "cannot access path B/nope: lstat B/nope: no such file or directory";
        assert_eq!(open(base, "nope").expect_err("missing"), text);
    }
}
