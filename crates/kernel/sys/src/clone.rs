//! clone3(2) in its forking form: the child goes on with a copy of the memory.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

/// Namespaces and relations of the new process, to be combined with `|` (clone(2)).
pub mod flags {
    /// New mount namespace.
    pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
    /// New cgroup namespace.
    pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// New UTS namespace.
    pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
    /// New IPC namespace.
    pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
    /// New user namespace.
    pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
    /// New process id namespace.
    pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
    /// New network namespace.
    pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
    /// New time namespace (unshare(2) and setns(2); offsets must be set before a process is in it).
    pub const NEWTIME: u64 = 0x80;
    /// The child is a sibling: its parent is the caller's.
    pub const PARENT: u64 = libc::CLONE_PARENT as u64;
    /// The child shares the table of descriptors, until one of both calls execve(2).
    pub const FILES: u64 = libc::CLONE_FILES as u64;
    pub(crate) const PIDFD: u64 = libc::CLONE_PIDFD as u64;
    pub(crate) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// Which side of the clone returned.
#[derive(Debug)]
pub enum Cloned {
    /// This is the new process.
    Child,
    /// This is the caller.
    Parent {
        /// The child's id in the caller's namespace.
        pid: i32,
        /// The child, as a descriptor that cannot be mistaken for another process; close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Layout of the kernel's `struct clone_args`, version 2 (5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// Makes a process with a copy of the caller's memory, in new namespaces as `flags` says, and in `cgroup` (a cgroup v2
/// directory) if given. It ends with SIGCHLD to its parent.
///
/// Errors: the kernel's, and `EAGAIN`-like [`io::ErrorKind::ResourceBusy`] when the calling process has more than one thread:
/// a lock held by another thread would stay locked for ever in the child.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    single_threaded()?;
    let mut pidfd: i32 = -1;
    let mut args = Args {
        flags: flags | flags::PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the signal is the caller's own; the kernel demands 0 since 5.11 for both forms.
        exit_signal: if flags & flags::PARENT != 0 { 0 } else { libc::SIGCHLD as u64 },
        ..Args::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= flags::INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory, so no reference is shared, and `stack` 0 makes
    // both sides return here. `args` and `pidfd` live through the call. One thread only was checked above, so the
    // copy's locks (allocator, stdio) are free.
    let pid = match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<Args>()) }) {
        // Docker's default profile answers so inside containers, where docker-init is such a caller.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() && flags & flags::NEWTIME == 0 => {
            let old = (args.flags | args.exit_signal) as libc::c_ulong;
            // SAFETY: as above; clone(2) takes the place for the pidfd as its third argument.
            check(unsafe { libc::syscall(libc::SYS_clone, old, 0, &raw mut pidfd, 0, 0) })?
        }
        other => other?,
    };
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel wrote a fresh descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// Succeeds if the calling process has exactly one thread.
fn single_threaded() -> io::Result<()> {
    // The folder's link count is 2 plus the number of threads (fs/proc/base.c, proc_task_getattr).
    let stat = rustix::fs::stat("/proc/self/task")?;
    if stat.st_nlink == 3 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "a process with several threads cannot be cloned"))
}

/// Leaves namespaces for new ones (unshare(2)).
pub fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: only namespace flags are passed on, which change no memory or descriptor that Rust code relies on.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags & NAMESPACES) }).map(drop)
}

/// Joins the namespaces of `fd`: a namespace file, or a pidfd with the kinds wanted in `flags` (setns(2), 5.8).
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    // SAFETY: setns changes which namespaces the thread is in; no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags & NAMESPACES) }).map(drop)
}

const NAMESPACES: u64 = flags::NEWNS
    | flags::NEWCGROUP
    | flags::NEWUTS
    | flags::NEWIPC
    | flags::NEWUSER
    | flags::NEWPID
    | flags::NEWNET
    | flags::NEWTIME;

/// Ends the calling process at once, without destructors or exit handlers: what a child after [`clone3`] must do, because
/// those belong to its parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit does not return and runs no code of this process.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        // The test harness runs this on a second thread.
        let error = clone3(0, None).expect_err("two threads");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
}
