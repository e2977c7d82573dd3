//! bpf(2), as far as a cgroup's device filter needs it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

/// One instruction of eBPF, as the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

#[repr(C)]
#[derive(Default)]
struct LoadArgs {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachArgs {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryArgs {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

fn bpf<T>(command: libc::c_int, args: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `args` has the kernel's layout of this command's part of `union bpf_attr`, and its size is passed; the pointers
    // in it are to memory that the callers below keep alive through the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(args), size_of::<T>()) })
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us; bpf(2) makes them close-on-exec.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// Has the kernel check and keep a device filter (`BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// Errors: `EINVAL` or `EACCES` for a program the verifier refuses, `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`.
pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut args = LoadArgs {
        kind: TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadArgs::default()
    };
    bpf(PROG_LOAD, &mut args).map(owned)
}

/// Attaches a device filter to a cgroup v2 folder beside others (`BPF_F_ALLOW_MULTI`), or in the place of one of them.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut args = AttachArgs {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replaced: 0,
    };
    if let Some(old) = replaced {
        args.flags |= REPLACE;
        args.replaced = old.as_raw_fd().cast_unsigned();
    }
    bpf(PROG_ATTACH, &mut args).map(drop)
}

/// Returns the ids of the device filters attached to a cgroup v2 folder itself, at most 64.
pub fn device_filters(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut args = QueryArgs {
        target: cgroup.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..QueryArgs::default()
    };
    bpf(PROG_QUERY, &mut args)?;
    Ok(ids[..(args.count as usize).min(ids.len())].to_vec())
}

/// Opens a loaded program by its id.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut args = [id, 0, 0];
    bpf(PROG_GET_FD_BY_ID, &mut args).map(owned)
}
