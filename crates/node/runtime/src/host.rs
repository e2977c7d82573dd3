//! The host's /proc, opened before anything of the container exists.
//!
//! Labels, sysctls and the like are written through this descriptor, never through a /proc that the container's
//! configuration or image could have covered or redirected (CVE-2019-16884, CVE-2025-52881). procfs answers by the
//! *calling task's* namespaces where that matters (`sys/net`, `sys/kernel/shm*`), so the host's instance will do.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::weaken::is_dropped;

/// procfs as it is on the host.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// Opens `/proc` and makes sure that it is the root of a procfs.
    pub(crate) fn open() -> Result<Self, Failure> {
        let subject = || "open the host's /proc";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, c"/proc", flags, Mode::empty()).or_fail(Stage::Process, subject)?;
        let magic = rustix::fs::fstatfs(&fd).or_fail(Stage::Process, subject)?.f_type;
        // fs/proc/root.c gives the root inode number 1.
        let inode = rustix::fs::fstat(&fd).or_fail(Stage::Process, subject)?.st_ino;
        if magic as u64 != PROC_SUPER_MAGIC as u64 || inode != 1 {
            return Err(refuse(Stage::Process, "/proc of the host is not a procfs"));
        }
        Ok(Self(fd))
    }

    /// Writes a file. No link is followed except `self` and `thread-self` at the beginning, and no mount is crossed.
    pub(crate) fn write(&self, path: &Path, text: &[u8]) -> rustix::io::Result<()> {
        let mut rest = path;
        let folder = match path.components().next() {
            Some(Component::Normal(first)) if first == "thread-self" => {
                rest = path.strip_prefix(first).map_err(|_| Errno::INVAL)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Some(openat(&self.0, first, flags, Mode::empty())?)
            }
            _ => None,
        };
        let folder = folder.as_ref().unwrap_or(&self.0);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = match is_dropped("openat2") {
            true => Err(Errno::NOSYS),
            false => openat2(folder, rest, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve),
        };
        let file = match opened {
            // Denied by an old sandbox. The descriptor is the host's own /proc, nothing of the container is in the way.
            Err(Errno::NOSYS | Errno::PERM) => {
                if rest.components().any(|c| !matches!(c, Component::Normal(_))) {
                    return Err(Errno::INVAL);
                }
                openat(folder, rest, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?
            }
            other => other?,
        };
        // One write: procfs files take their value whole or not at all.
        match rustix::io::write(&file, text)? {
            n if n == text.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

/// Writes a small file of the host's by name, at once.
pub(crate) fn write_file(path: &str, text: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2025_52881_only_plain_files_of_the_hosts_procfs_are_written() {
        let proc = Proc::open().expect("procfs");
        assert_eq!(proc.write(Path::new("thread-self/oom_score_adj"), b"0"), Ok(()));
        for path in ["sys/../self/oom_score_adj", "../etc/passwd", "net/route", "self/oom_score_adj"] {
            assert!(proc.write(Path::new(path), b"0").is_err(), "{path}");
        }
    }
}
