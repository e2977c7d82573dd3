//! Mounts of type `cgroup`: what a container sees at `/sys/fs/cgroup`.
//!
//! On v1 and hybrid hosts it is a tmpfs with one folder per hierarchy, as systemd arranges them; on v2 hosts the one
//! hierarchy. With a cgroup namespace the hierarchies are mounted (their root is then the container's group); without, the
//! container's own folders are bound, so that it does not see its neighbours.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountFlags;
use wharf_sys::mount::Attributes;
use wharf_types::{Failure, Stage};

use crate::failure::OrFail;
use crate::mounting::{CgroupView, PlannedMount, attach, change, clone_tree};
use crate::options::ms;
use crate::rooted::{Missing, Root, magic};

pub(crate) fn mount(planned: &PlannedMount<'_>, root: &Root, view: &CgroupView) -> Result<(), Failure> {
    let failed = || format!("error mounting \"cgroup\" to rootfs at {:?}", planned.destination.display().to_string());
    let target = root.make(planned.destination, Missing::Folder).or_fail(Stage::Mount, failed)?;
    if view.unified || planned.kind == "cgroup2" {
        let folder = view.folders.iter().find(|(name, _)| name.is_empty()).map(|(_, folder)| folder);
        return unified(planned, &target, view, folder).or_fail(Stage::Mount, failed);
    }
    hierarchies(planned, root, &target, view).or_fail(Stage::Mount, failed)
}

fn unified(
    planned: &PlannedMount<'_>,
    target: &OwnedFd,
    view: &CgroupView,
    folder: Option<&PathBuf>,
) -> std::io::Result<()> {
    let flags = MountFlags::from_bits_retain(planned.options.flags as u32);
    match folder {
        Some(folder) if !view.namespace => bind(planned, folder, target),
        _ => Ok(rustix::mount::mount(c"cgroup", magic(target.as_fd()), c"cgroup2", flags, None)?),
    }
}

fn hierarchies(planned: &PlannedMount<'_>, root: &Root, target: &OwnedFd, view: &CgroupView) -> std::io::Result<()> {
    let base = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(c"tmpfs", magic(target.as_fd()), c"tmpfs", base, Some(c"mode=755"))?;
    let top = root.open(planned.destination)?;
    let flags = MountFlags::from_bits_retain(planned.options.flags as u32);
    for (controllers, folder) in &view.folders {
        let name = match controllers.as_str() {
            "" => "unified",
            named => named.strip_prefix("name=").unwrap_or(named),
        };
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755))?;
        let place = openat(&top, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if !view.namespace {
            bind(planned, folder, &place)?;
        } else if controllers.is_empty() {
            rustix::mount::mount(c"cgroup", magic(place.as_fd()), c"cgroup2", flags, None)?;
        } else {
            let data = std::ffi::CString::new(controllers.as_str())?;
            rustix::mount::mount(c"cgroup", magic(place.as_fd()), c"cgroup", flags, Some(data.as_c_str()))?;
        }
        // Where controllers share a hierarchy, each is found under its own name too.
        for alias in name.split(',').filter(|alias| *alias != name) {
            rustix::fs::symlinkat(name, &top, alias)?;
        }
    }
    if planned.options.flags & ms::RDONLY != 0 {
        change(top.as_fd(), false, &Attributes { set: Attributes::RDONLY, ..Attributes::default() })?;
    }
    Ok(())
}

fn bind(planned: &PlannedMount<'_>, folder: &Path, target: &OwnedFd) -> std::io::Result<()> {
    let tree = clone_tree(CWD, folder, true)?;
    let (set, clear) = planned.options.attributes();
    attach(tree.as_fd(), target.as_fd())?;
    change(tree.as_fd(), false, &Attributes { set, clear, propagation: ms::PRIVATE, ..Attributes::default() })
}
