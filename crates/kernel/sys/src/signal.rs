//! Signal dispositions, masks and signalfd(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

/// Resets every signal to its default action and unblocks all: what a process wants just before exec, because ignored and
/// blocked signals are inherited (the Rust runtime ignores SIGPIPE).
pub fn reset_all() -> io::Result<()> {
    // The kernel's own structure (handler, flags, restorer, mask), all bytes zero: SIG_DFL, no flags, empty mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // By the system call, since libc refuses signals it keeps for itself (32, 33), which may be ignored by
        // inheritance all the same. KILL and STOP give EINVAL; nobody can have changed those.
        // SAFETY: the kernel reads 32 bytes of `default` with a signal set of 8; it installs no handler.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                8usize,
            )
        };
    }
    set_mask(&[])
}

/// Blocks exactly these signals in the calling thread.
pub fn set_mask(blocked: &[i32]) -> io::Result<()> {
    let set = set_of(blocked);
    // SAFETY: `set` is initialised and lives through the call.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }.into()).map(drop)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all bytes zero is a value of the type; sigemptyset and sigaddset write only into it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Sends a signal, real-time ones included, to the process behind a descriptor. Source: pidfd_send_signal(2).
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the kernel takes numbers and a null pointer for the optional siginfo.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_uint,
        )
    })
    .map(drop)
}

/// Signals as a descriptor. They must be blocked as well ([`set_mask`]).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Opens a non-blocking, close-on-exec descriptor for these signals.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())?;
        // SAFETY: the kernel just made it, nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// The next pending signal's number, if any.
    pub fn read(&self) -> io::Result<Option<i32>> {
        // struct signalfd_siginfo is 128 bytes and starts with the number.
        let mut info = [0u8; 128];
        match rustix::io::read(&self.0, &mut info) {
            Ok(128) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        set_mask(&[libc::SIGUSR1]).expect("mask");
        let fd = SignalFd::new(&[libc::SIGUSR1]).expect("signalfd");
        assert_eq!(fd.read().expect("read"), None);
        // SAFETY: the signal is blocked in this thread, to which it is sent.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
        assert_eq!(fd.read().expect("read"), Some(libc::SIGUSR1));
    }
}
