//! Being told when the kernel kills for want of memory.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, Mode as Permissions, OFlags, inotify, openat};
use rustix::io::{Errno, read};

use crate::file::{put, table};
use crate::{CgroupError, Mode};

/// A descriptor that becomes readable when the group may have run out of memory.
#[derive(Debug)]
pub struct OomWatch {
    /// v1: an eventfd; v2: inotify on `memory.events`. Both are close-on-exec and non-blocking.
    fd: OwnedFd,
    folder: PathBuf,
    mode: Mode,
}

impl OomWatch {
    pub(crate) fn new(folder: &Path, mode: Mode) -> Result<Self, CgroupError> {
        let fd = if mode == Mode::V2 { watch_v2(folder)? } else { watch_v1(folder)? };
        Ok(Self { fd, folder: folder.into(), mode })
    }

    /// Clears the readiness and returns how many processes of the group the kernel has killed so far for want of memory.
    ///
    /// Removal of the group makes the descriptor readable, too; the number is then 0.
    pub fn acknowledge(&mut self) -> Result<u64, CgroupError> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 1024];
        // Whatever was queued is only a reason to look; an empty queue is no error.
        while matches!(read(&self.fd, &mut buffer), Ok((seen, _)) if !seen.is_empty() && self.mode == Mode::V2) {}
        kills(&self.folder, self.mode)
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Registers an eventfd for `memory.oom_control` (kernel Documentation/admin-guide/cgroup-v1/memory.rst, section 10).
fn watch_v1(folder: &Path) -> Result<OwnedFd, CgroupError> {
    let file = folder.join("memory.oom_control");
    let failed = |e: Errno| CgroupError::Open { path: file.clone(), source: e.into() };
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
    let control = openat(CWD, &file, OFlags::RDONLY | OFlags::CLOEXEC, Permissions::empty()).map_err(failed)?;
    let request = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    let registrar = folder.join("cgroup.event_control");
    put(&registrar, request.as_bytes()).map_err(|e| CgroupError::Write {
        path: registrar.clone(),
        value: request.clone(),
        source: e.into(),
    })?;
    Ok(event)
}

fn watch_v2(folder: &Path) -> Result<OwnedFd, CgroupError> {
    let path = folder.join("memory.events");
    let watch = || {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY)?;
        Ok(fd)
    };
    watch().map_err(|e: Errno| CgroupError::Open { path: path.clone(), source: e.into() })
}

/// Reads how many processes were killed; 0 once the group is gone. v1 counts since 4.13.
pub(crate) fn kills(folder: &Path, mode: Mode) -> Result<u64, CgroupError> {
    let file = if mode == Mode::V2 { "memory.events" } else { "memory.oom_control" };
    Ok(table(&folder.join(file))?.get("oom_kill").copied().unwrap_or(0))
}
