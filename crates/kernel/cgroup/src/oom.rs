//! Being told when the kernel kills for want of memory.

#![allow(clippy::unimplemented)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::CgroupError;

/// A descriptor that becomes readable when the group may have run out of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl OomWatch {
    /// Clears the readiness and returns how many processes of the group the kernel has killed so far for want of memory.
    ///
    /// Removal of the group makes the descriptor readable, too; the number is then what it was before.
    pub fn acknowledge(&mut self) -> Result<u64, CgroupError> {
        unimplemented!()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
