//! Descriptors as numbers: what dup2(2) and close_range(2) do to a whole table.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_from_at_exec(first: u32) -> io::Result<()> {
    // SAFETY: the flag is set on descriptors, none is closed now.
    let done = check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) });
    match done {
        Ok(_) => Ok(()),
        // CLOSE_RANGE_CLOEXEC is of 5.11; our floor is 5.10.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => mark_each(first),
        Err(e) => Err(e),
    }
}

/// Closes all descriptors from a number on: for a child that was cloned and does not execute another program.
///
/// The caller must not use the owners of those descriptors afterwards. Source: close_range(2), Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: closing descriptors touches no memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

fn mark_each(first: u32) -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    for fd in first..=limit.min(1 << 20) as u32 {
        // SAFETY: F_SETFD on a number that may be closed gives EBADF and changes nothing.
        unsafe { libc::fcntl(fd as RawFd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Closes every descriptor from `first` on except `kept`: for a process that is about to exec and uses no others.
pub fn close_others(first: u32, kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.into_iter().filter(|fd| *fd >= first).chain([u32::MAX]) {
        if from < fd {
            // SAFETY: by contract the caller uses none of these numbers any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Calls `work` with standard stream 0, 1 or 2.
pub fn with_standard<T>(number: RawFd, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    assert!((0..3).contains(&number), "no standard stream");
    // SAFETY: the standard streams are open in every process of ours and borrowed only for this call; on a closed one the
    // kernel answers EBADF.
    work(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Makes descriptor number `to` a duplicate of `from` that stays open over exec. Whatever `to` was is closed: for a
/// process that is about to exec and owns its whole table.
pub fn place(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // SAFETY: clears the close-on-exec flag of an open descriptor.
        return check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: `from` is open; the caller gives up `to` by contract.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into()).map(drop)
}

/// Duplicates to a number of at least `lowest`, close-on-exec.
pub fn duplicate_above(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: duplicating an open descriptor gives a new one or an error.
    let new = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) }.into())?;
    // SAFETY: the kernel just made it, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// Takes over a descriptor that the process was started with (for example `--netns-fd 5`) and makes it close-on-exec.
///
/// Errors: `EBADF` if it is not open. Each number may be taken once only, before other descriptors are opened: a second owner
/// would close it under the first.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD fails on a closed number and otherwise sets one flag.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open (checked above) and by contract nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn a_duplicate_lands_above_and_closes_on_exec() {
        let file = std::fs::File::open("/dev/null").expect("open");
        let dup = duplicate_above(file.as_fd(), 200).expect("dup");
        assert!(dup.as_raw_fd() >= 200);
        assert!(fcntl_getfd(&dup).expect("flags").contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn a_closed_number_cannot_be_inherited() {
        assert_eq!(inherit(99_999).expect_err("closed").raw_os_error(), Some(libc::EBADF));
    }
}
