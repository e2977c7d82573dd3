//! Looking at layers as one tree without mounting it anywhere.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

/// Stacks directories, nearest first, into a detached read-only overlay mount, which ends with its descriptor. One
/// directory alone is itself.
///
/// # Errors
/// Those of the mount calls: `EPERM` without CAP_SYS_ADMIN, `ENODEV` without overlayfs.
pub fn stack(layers: &[OwnedFd]) -> Result<OwnedFd, Errno> {
    if let [only] = layers {
        return rustix::io::fcntl_dupfd_cloexec(only, 0);
    }
    // Paths by descriptor are short, because option strings end at 256 bytes (fs_context.c, before Linux 6.5).
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    // Before 6.5 overlayfs takes any option and refuses only when the mount is made.
    one_by_one(layers, path).or_else(|_| at_once(layers, path))
}

fn one_by_one(layers: &[OwnedFd], path: impl Fn(&OwnedFd) -> String) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    layers.iter().try_for_each(|l| fsconfig_set_string(context.as_fd(), "lowerdir+", path(l)))?;
    mount_read_only(&context)
}

fn at_once(layers: &[OwnedFd], path: impl Fn(&OwnedFd) -> String) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let all: Vec<String> = layers.iter().map(path).collect();
    fsconfig_set_string(context.as_fd(), "lowerdir", all.join(":"))?;
    mount_read_only(&context)
}

fn mount_read_only(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}
