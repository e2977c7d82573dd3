//! Every system call we need beyond rustix; the only crate with `unsafe`.
//!
//! One module a topic, each a thin and safe door: what it returns is the kernel's answer as [`std::io::Error`] or as
//! rustix's `Errno`. No decisions are made here, except falling back where an old kernel lacks a call.

pub mod bpf;
pub mod btrfs;
pub mod clone;
pub mod descriptor;
pub mod exec;
pub mod image;
pub mod keyring;
pub mod link;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod quota;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod title;
pub mod users;
pub mod writeback;

use std::io;

/// Turns the result of `syscall(2)` or a libc function into a value or the thread's `errno`.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
