//! User namespaces that no process is in: for id-mapped mounts, and as owners of network namespaces.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::check;
use crate::clone::{Args, flags};

/// What was made.
#[derive(Debug)]
pub struct Users {
    /// The user namespace.
    pub user: OwnedFd,
    /// A network namespace that belongs to it, if one was wanted.
    pub network: Option<OwnedFd>,
}

/// `CLONE_CLEAR_SIGHAND` (5.5): the process has none of the caller's handlers.
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Makes a user namespace with these maps, in the form of `/proc/<pid>/uid_map`, and a network namespace in it if `network`. May be
/// called from a process with many threads.
///
/// Errors: the kernel's, `ENOSPC` where user namespaces are switched off (`user.max_user_namespaces`).
pub fn make(uids: &str, gids: &str, network: bool) -> io::Result<Users> {
    let keeper = Keeper::start(flags::NEWUSER | if network { flags::NEWNET } else { 0 }, None)?;
    std::fs::write(format!("/proc/{}/gid_map", keeper.pid), gids)?;
    std::fs::write(format!("/proc/{}/uid_map", keeper.pid), uids)?;
    let open = |name: &str| -> io::Result<OwnedFd> {
        let path = format!("/proc/{}/ns/{name}", keeper.pid);
        Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    Ok(Users { user: open("user")?, network: if network { Some(open("net")?) } else { None } })
}

/// Makes a network namespace that belongs to a user namespace which is there. May be called from a process with many threads.
pub fn network_in(user: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let keeper = Keeper::start(0, Some(user.as_raw_fd()))?;
    // It stops when it is there, and ends with the error's number if it cannot get there.
    let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::PidFd(keeper.pidfd.as_fd()), options)?;
    if let Some(errno) = status.and_then(|status| status.exit_status()) {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let path = format!("/proc/{}/ns/net", keeper.pid);
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The user namespace that a namespace belongs to (ioctl_ns(2), `NS_GET_USERNS`).
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument; the kernel answers with a fresh descriptor, close-on-exec.
    let fd = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _) }.into())?;
    // SAFETY: the descriptor is fresh and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A process that only waits to be ended, so that namespaces exist until they are opened.
struct Keeper {
    pid: i32,
    pidfd: OwnedFd,
}

impl Keeper {
    /// Starts it in new namespaces, or in a new network namespace within a user namespace that it enters.
    fn start(namespaces: u64, within: Option<i32>) -> io::Result<Self> {
        let mut pidfd: i32 = -1;
        let args = Args {
            flags: namespaces | flags::PIDFD | CLEAR_SIGHAND,
            pidfd: (&raw mut pidfd) as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..Args::default()
        };
        // SAFETY: the child has its own copy of memory and makes a few system calls without arguments in memory: no lock, no
        // allocation, nothing of what other threads may have held. `args` and `pidfd` live through the call.
        let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<Args>()) })?;
        if pid == 0 {
            // SAFETY: as above. It never returns; should the caller's thread die first, it is ended.
            unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if let Some(user) = within {
                    if libc::syscall(libc::SYS_setns, user, libc::CLONE_NEWUSER) == -1
                        || libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNET) == -1
                    {
                        libc::_exit(*libc::__errno_location());
                    }
                    // Becoming another user took the signal away (prctl(2)).
                    libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                    libc::syscall(libc::SYS_kill, libc::syscall(libc::SYS_getpid), libc::SIGSTOP);
                }
                loop {
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            }
        }
        // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel wrote a fresh descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid: pid as i32, pidfd })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_network_namespace_belongs_to_the_user_namespace_that_it_was_made_in() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: maps of several ids need root");
            return;
        }
        let made = make("0 100000 65536\n", "0 100000 65536\n", true).expect("made on a thread of many");
        let number = |fd: &OwnedFd| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::metadata(path).expect("a namespace file").ino()
        };
        let network = made.network.expect("asked for");
        assert_eq!(number(&owner(network.as_fd()).expect("an owner")), number(&made.user));
        let own = std::fs::File::open("/proc/self/ns/net").expect("there").into();
        let another = network_in(made.user.as_fd()).expect("made");
        assert_eq!(number(&owner(another.as_fd()).expect("an owner")), number(&made.user));
        assert_ne!(number(&another), number(&network));
        assert_ne!(number(&owner(OwnedFd::as_fd(&own)).expect("an owner")), number(&made.user));
    }
}
