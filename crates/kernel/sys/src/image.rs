//! A program file opened so that nobody can write to it through `/proc/<pid>/exe` of a process that runs it.
//!
//! CVE-2019-5736: a container made its runtime execute `/proc/self/exe` and then opened `/proc/<pid>/exe` for writing. A
//! process executed from a read-only mount has that mount behind its `exe` link, so opening it for writing gives
//! `EROFS`; a sealed memfd gives `EPERM`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;

use crate::mount::{Attributes, set_attributes};

/// Opens `path` on a read-only mount of its own that appears in no namespace; on kernels without mount_setattr(2) (before 5.12)
/// or without the right to mount, copies it into a sealed memory file.
pub fn open_protected(path: &CStr) -> io::Result<OwnedFd> {
    read_only_mount(path).or_else(|_| sealed_copy(path))
}

fn read_only_mount(path: &CStr) -> io::Result<OwnedFd> {
    let tree = rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(tree.as_fd(), false, &Attributes { set: Attributes::RDONLY, ..Attributes::default() })?;
    Ok(tree)
}

fn sealed_copy(path: &CStr) -> io::Result<OwnedFd> {
    let source = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let size = rustix::fs::fstat(&source)?.st_size as u64;
    let copy = rustix::fs::memfd_create(c"program", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut done = 0u64;
    while done < size {
        match rustix::fs::sendfile(&copy, &source, None, (size - done) as usize)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n as u64,
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy)
}

/// Whether the calling process already runs from such a file.
pub fn is_protected() -> io::Result<bool> {
    let exe = rustix::fs::open(c"/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatvfs(&exe)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    Ok(rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::io::Errno;

    use super::*;

    fn program() -> (tempfile::NamedTempFile, std::ffi::CString) {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(b"#!/bin/true\n").expect("write");
        let path = std::ffi::CString::new(file.path().to_str().expect("UTF-8")).expect("no NUL");
        (file, path)
    }

    fn write_through_proc(fd: &OwnedFd) -> Errno {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(&file, b"overwritten"))
            .expect_err("not writable")
    }

    #[test]
    fn cve_2019_5736_the_program_cannot_be_written_through_its_descriptor() {
        let (_file, path) = program();
        if let Ok(fd) = read_only_mount(&path) {
            assert_eq!(write_through_proc(&fd), Errno::ROFS);
        }
        assert_eq!(write_through_proc(&sealed_copy(&path).expect("copy")), Errno::PERM);
    }
}
