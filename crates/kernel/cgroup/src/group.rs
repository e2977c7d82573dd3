//! One group: a folder in every hierarchy.

#![allow(clippy::unimplemented)]

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Pid;
use wharf_oci::runtime::LinuxResources;

use crate::{CgroupError, Layout, OomWatch, Stats};

/// A group: one folder in each hierarchy of the host.
#[derive(Debug)]
pub struct Cgroup {}

impl Cgroup {
    /// Makes the group and sets its limits. On failure nothing is left.
    ///
    /// `path` is `linux.cgroupsPath`: absolute paths count from each hierarchy's root, others from where this process is.
    /// A group that exists already and is empty is taken over, as by runc.
    pub fn create(layout: &Layout, path: &str, resources: &LinuxResources) -> Result<Self, CgroupError> {
        let _ = (layout, path, resources);
        unimplemented!()
    }

    /// Opens a group that another process made. Hierarchies in which it has no folder are left out.
    ///
    /// Errors: [`CgroupError::Open`] where it has none at all.
    pub fn open(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        let _ = (layout, path);
        unimplemented!()
    }

    /// Opens what a process needs to enter the group, before it is cloned.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        unimplemented!()
    }

    /// Moves a process, with all of its threads, into the group.
    pub fn join(&self, pid: Pid) -> Result<(), CgroupError> {
        let _ = pid;
        unimplemented!()
    }

    /// Changes limits of a live group: what is absent in `resources` stays as it is.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let _ = resources;
        unimplemented!()
    }

    /// Stops every process and returns when they stand still; after about two seconds thaws again and fails.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }

    /// Tells whether the group is frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        unimplemented!()
    }

    /// Sends SIGKILL to every process of the group and of groups below it, frozen or not.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }

    /// Returns the processes of the group and of groups below it.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        unimplemented!()
    }

    /// Reads what the group has used.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        unimplemented!()
    }

    /// Returns how many processes the kernel has killed for want of memory; 0 without memory controller.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        unimplemented!()
    }

    /// Starts watching for OOM kills; nothing without memory controller.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        unimplemented!()
    }

    /// Returns the folders, with the controllers of each (`cpu`, `name=systemd`; empty for the v2 hierarchy).
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        unimplemented!()
    }

    /// Removes the group and all below it; tries again until `deadline` while a dying process still holds it.
    ///
    /// Its processes must have been killed. It may be called after the exit was reported: nothing else depends on it.
    pub fn delete(&self, deadline: Instant) -> Result<(), CgroupError> {
        let _ = deadline;
        unimplemented!()
    }
}

/// Descriptors through which a process enters a group. All are close-on-exec.
#[derive(Debug)]
pub struct Entrance {}

impl Entrance {
    /// Returns the folder for clone3's `CLONE_INTO_CGROUP`, where the host has a v2 hierarchy.
    ///
    /// A process cloned without it is moved by [`Self::enter`].
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Moves the calling process into the group; it must be single-threaded. One write(2) per hierarchy, no allocation.
    pub fn enter(&self, cloned_into: bool) -> Result<(), rustix::io::Errno> {
        let _ = cloned_into;
        unimplemented!()
    }
}
