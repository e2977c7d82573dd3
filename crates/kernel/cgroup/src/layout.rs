//! Which hierarchies this host has, where they are mounted, and where this process is in them.

#![allow(clippy::unimplemented)]

use crate::CgroupError;

/// How a host arranges its hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Controllers in hierarchies of their own, no v2.
    V1,
    /// As `V1`, with a v2 hierarchy without controllers beside them.
    Hybrid,
    /// One hierarchy.
    V2,
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    mode: Mode,
}

impl Layout {
    /// Reads `/proc/self/mountinfo`, and `/proc/self/cgroup` for where this process is.
    pub fn detect() -> Result<Self, CgroupError> {
        unimplemented!()
    }

    /// Returns how the hierarchies are arranged.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}
