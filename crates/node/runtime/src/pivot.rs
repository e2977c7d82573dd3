//! Making the container's root the root of its mount namespace.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use wharf_types::{Failure, Stage};

use crate::failure::OrFail;
use crate::mounting::open_host;
use crate::rooted::Root;

/// pivot_root(2) without a folder for the old root: it is stacked on the new one and taken away.
pub(crate) fn pivot(root: &Root) -> Result<(), Failure> {
    let failed = || "error jailing process inside rootfs: pivot_root";
    let old = open_host(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY).or_fail(Stage::Pivot, failed)?;
    rustix::process::fchdir(root.as_fd()).or_fail(Stage::Pivot, failed)?;
    rustix::process::pivot_root(c".", c".").or_fail(Stage::Pivot, failed)?;
    rustix::process::fchdir(&old).or_fail(Stage::Pivot, failed)?;
    // So that taking the old tree away is not propagated to the host, whatever the root's propagation was.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change(c".", slave).or_fail(Stage::Pivot, failed)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).or_fail(Stage::Pivot, failed)?;
    rustix::process::chdir(c"/").or_fail(Stage::Pivot, failed)
}

/// For hosts whose root is an initramfs, which cannot be pivoted away: the root is moved over `/`.
///
/// Weaker: the host's mounts remain beneath. Mounts of procfs and sysfs that could show them are detached first, as runc does.
pub(crate) fn move_over(root: &Root, path: &Path) -> Result<(), Failure> {
    let failed = || "error jailing process inside rootfs: move mount";
    for (kind, place) in mounts().or_fail(Stage::Pivot, failed)? {
        if !matches!(kind.as_str(), "proc" | "sysfs") || Path::new(&place).starts_with(path) {
            continue;
        }
        let _ = rustix::mount::mount_change(&place, MountPropagationFlags::PRIVATE);
        // One that is locked or covered cannot be unmounted; then it is covered.
        if rustix::mount::unmount(&place, UnmountFlags::DETACH).is_err() {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount(c"tmpfs", &place, c"tmpfs", flags, None).or_fail(Stage::Pivot, failed)?;
        }
    }
    rustix::process::fchdir(root.as_fd()).or_fail(Stage::Pivot, failed)?;
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root.as_fd(), c"", CWD, c"/", flags).or_fail(Stage::Pivot, failed)?;
    rustix::process::chroot(c".").or_fail(Stage::Pivot, failed)?;
    rustix::process::chdir(c"/").or_fail(Stage::Pivot, failed)
}

/// Type and place of every mount of this namespace.
fn mounts() -> std::io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let entry = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        Some((right.split(' ').next()?.to_owned(), unescape(left.split(' ').nth(4)?)))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// Octal escapes of mountinfo: space, tab, newline, backslash.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Makes the mount that holds `path` private: pivot_root(2) refuses a shared parent.
pub(crate) fn make_parent_private(path: &Path) -> Result<(), Failure> {
    let failed = || format!("make parent mount of {} private", path.display());
    let all = mounts().or_fail(Stage::Pivot, failed)?;
    let parent = all.iter().map(|(_, place)| place).filter(|place| path.starts_with(place)).max_by_key(|p| p.len());
    let parent = parent.map_or("/", |p| p.as_str());
    rustix::mount::mount_change(parent, MountPropagationFlags::PRIVATE).or_fail(Stage::Pivot, failed)
}
