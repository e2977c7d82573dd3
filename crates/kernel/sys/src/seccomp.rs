//! Loading a system call filter (seccomp(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::check;

/// One instruction of classic BPF, as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped when a comparison holds.
    pub jt: u8,
    /// Instructions skipped when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Flags of [`load`].
pub mod flags {
    /// All threads of the process get the filter.
    pub const TSYNC: u32 = 1;
    /// Actions except ALLOW are logged.
    pub const LOG: u32 = 2;
    /// Speculative store bypass is not switched off.
    pub const SPEC_ALLOW: u32 = 4;
    /// Loading returns the descriptor on which calls are asked about (seccomp_unotify(2)).
    pub const NEW_LISTENER: u32 = 8;
    /// A waiting notification can be ended by fatal signals only (5.19).
    pub const WAIT_KILLABLE_RECV: u32 = 32;
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Loads a filter for the calling thread and all it becomes. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// Errors: `EINVAL` for a program the kernel's checker refuses or one of more than 4096 instructions.
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    set(program, flags & !self::flags::NEW_LISTENER).map(drop)
}

/// As [`load`], with a listener: returns its descriptor, close-on-exec.
pub fn load_with_listener(program: &[Instruction], flags: u32) -> io::Result<OwnedFd> {
    let number = set(program, flags | self::flags::NEW_LISTENER)?;
    // SAFETY: with this flag the call returned a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

fn set(program: &[Instruction], flags: u32) -> io::Result<libc::c_long> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let raw = Program { len, filter: program.as_ptr() };
    // SAFETY: `raw` describes a slice of `len` instructions with the kernel's layout; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const raw) })
}
