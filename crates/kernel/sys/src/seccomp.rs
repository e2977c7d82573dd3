//! Loading a system call filter (seccomp(2)).

use std::io;

use crate::check;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const libc::sock_filter,
}

/// Loads a filter for the calling thread and all it becomes. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// Errors: `EINVAL` for a program the kernel's checker refuses or one of more than 4096 instructions.
pub fn load(program: &[libc::sock_filter], flags: u32) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let raw = Program { len, filter: program.as_ptr() };
    // SAFETY: `raw` describes a slice of `len` instructions with the kernel's layout; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const raw) }).map(drop)
}
