//! Bringing file data towards the disk without waiting for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check;

/// Starts writing a range of a file (`length` 0: to its end) to the disk. Nothing is promised by it: what it began,
/// fdatasync(2) finds done. Source: sync_file_range(2); unlike `POSIX_FADV_DONTNEED` it leaves the pages in memory.
pub fn start(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until what was started of a range is written.
pub fn wait(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    range(file, offset, length, libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER)
}

fn range(file: impl AsFd, offset: u64, length: u64, flags: libc::c_uint) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: numbers only; the descriptor lives through the call.
    check(unsafe { libc::sync_file_range(fd, offset.cast_signed(), length.cast_signed(), flags) }.into()).map(drop)
}
