//! CPU and I/O scheduling, execution domain and memory policy of the calling thread.

use std::io;
use std::mem::size_of;

use crate::check;

/// What sched_setattr(2) takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// −20 to 19.
    pub nice: i32,
    /// 1 to 99 for the real-time policies.
    pub priority: u32,
    /// Nanoseconds (DEADLINE).
    pub runtime: u64,
    /// Nanoseconds (DEADLINE).
    pub deadline: u64,
    /// Nanoseconds (DEADLINE).
    pub period: u64,
}

/// Sets the calling thread's CPU scheduling.
pub fn set(attributes: &Attributes) -> io::Result<()> {
    let sized = Attributes { size: size_of::<Attributes>() as u32, ..*attributes };
    // SAFETY: the kernel reads `size` bytes of `sized`, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) }).map(drop)
}

/// Sets the calling thread's nice value, −20 to 19, under the usual policy.
pub fn set_nice(nice: i32) -> io::Result<()> {
    set(&Attributes { nice, ..Attributes::default() })
}

/// Sets the calling thread's I/O class (1 real-time, 2 best effort, 3 idle) and priority (ioprio_set(2)).
pub fn set_io_priority(class: u16, priority: u16) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = (libc::c_int::from(class) << 13) | libc::c_int::from(priority);
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the execution domain (personality(2)): 0 is Linux, 8 is 32-bit Linux.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: numbers only; the domains offered change what uname(2) reports.
    check(unsafe { libc::personality(libc::c_ulong::from(domain)) }.into()).map(drop)
}

/// Sets the NUMA memory policy (set_mempolicy(2)): mode with its flags, and the nodes as bits.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    let bits = nodes.len() * 64;
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel takes the number of bits plus one.
    let maximum = if nodes.is_empty() { 0 } else { bits + 1 };
    // SAFETY: the kernel reads `bits` bits of the slice, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, maximum) }).map(drop)
}
