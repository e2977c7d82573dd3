//! Deleting a tree of any depth with constant memory and descriptors.
//!
//! A container can nest directories far deeper than a recursion has stack or a process descriptors. So nothing
//! recurses: a directory within the tree that is not empty is renamed up, next to the tree, and takes its turn later.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::RenameFlags;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

/// Deletes `name` in `parent`, whatever it is. Directories within it pass through `parent` under names that begin
/// with `.removing-`. What does not exist is no error.
///
/// # Errors
/// The first thing that could not be deleted (a mount point, an immutable file); the rest is deleted all the same.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    remove_tree_while(parent, name, &mut || true)
}

/// As [`remove_tree`], asking before each entry whether to go on. What is left when the answer is no lies in `parent`, part
/// of it under names that begin with `.removing-`.
///
/// # Errors
/// As [`remove_tree`]; [`io::ErrorKind::Interrupted`] when told to stop.
pub fn remove_tree_while(parent: BorrowedFd<'_>, name: &OsStr, go_on: &mut dyn FnMut() -> bool) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let mut turn = 0u64;
    let mut failed = None;
    let mut waiting = vec![CString::new(name.as_bytes())?];
    while let Some(name) = waiting.pop() {
        match empty(parent, &name, &mut waiting, &mut turn, go_on) {
            Err(Errno::INTR) => return Err(Errno::INTR.into()),
            Ok(()) => match unlinkat(parent, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => failed = failed.or(Some(e)),
            },
            Err(Errno::NOENT) => {}
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), |e| Err(e.into()))
}

fn empty(
    parent: BorrowedFd<'_>,
    name: &CString,
    waiting: &mut Vec<CString>,
    turn: &mut u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder: OwnedFd = openat(parent, name.as_c_str(), flags, Mode::empty())?;
    let mut failed = None;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let child = entry.file_name();
        if matches!(child.to_bytes(), b"." | b"..") {
            continue;
        }
        if !go_on() {
            return Err(Errno::INTR);
        }
        // Directories are told by the error, because not every file system gives types in its entries.
        let outcome = match unlinkat(&folder, child, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => match unlinkat(&folder, child, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    lift(folder.as_fd(), child, parent, turn).map(|name| waiting.push(name))
                }
                // It was no directory: the PERM of the first try stands.
                Err(Errno::NOTDIR) => Err(Errno::PERM),
                other => other,
            },
            other => other,
        };
        if let Err(e) = outcome
            && e != Errno::NOENT
        {
            failed = failed.or(Some(e));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Renames a directory up into `parent` under a free name.
fn lift(
    folder: BorrowedFd<'_>,
    child: &std::ffi::CStr,
    parent: BorrowedFd<'_>,
    turn: &mut u64,
) -> Result<CString, Errno> {
    loop {
        let name = CString::new(format!(".removing-{turn}")).map_err(|_| Errno::INVAL)?;
        *turn += 1;
        match renameat_with(folder, child, parent, name.as_c_str(), RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, mkdirat};

    use super::*;
    use crate::Root;

    #[test]
    fn a_tree_deeper_than_any_path_or_stack_is_deleted() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let top = Root::at(folder.path()).expect("root");
        mkdirat(&top, "deep", Mode::RWXU).expect("directory");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = openat(&top, "deep", flags, Mode::empty()).expect("open");
        for _ in 0..5_000 {
            mkdirat(&here, "d", Mode::RWXU).expect("directory");
            openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("file");
            here = openat(&here, "d", flags, Mode::empty()).expect("open");
        }
        remove_tree(top.as_fd(), OsStr::new("deep")).expect("removed");
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_removal_that_is_told_to_stop_is_finished_by_the_next() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for n in 0..4 {
            let inner = folder.path().join(format!("tree/{n}/inner"));
            std::fs::create_dir_all(&inner).expect("folders");
            std::fs::write(inner.join("file"), "x").expect("file");
        }
        let top = Root::at(folder.path()).expect("root");
        let mut entries = 6;
        let mut go_on = || {
            entries -= 1;
            entries > 0
        };
        let stopped = remove_tree_while(top.as_fd(), OsStr::new("tree"), &mut go_on).expect_err("stopped");
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert!(!left.is_empty());
        for name in left {
            remove_tree(top.as_fd(), &name).expect("removed");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn links_out_of_the_tree_are_deleted_and_not_followed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir_all(folder.path().join("kept/inner")).expect("folders");
        std::fs::create_dir(folder.path().join("tree")).expect("folder");
        std::os::unix::fs::symlink("../kept", folder.path().join("tree/link")).expect("link");
        let top = openat(CWD, folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        remove_tree(top.as_fd(), OsStr::new("tree")).expect("removed");
        remove_tree(top.as_fd(), OsStr::new("never there")).expect("no error");
        assert!(folder.path().join("kept/inner").exists() && !folder.path().join("tree").exists());
    }
}
