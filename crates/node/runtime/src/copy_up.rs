//! `tmpcopyup`: what a fresh tmpfs covers is copied into it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, Uid, openat};
use rustix::io::Result;

/// Copies the content of a folder, with owners and modes. Links are copied as links, never followed.
pub(crate) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let to = openat(to, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode as RawMode);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(&to, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let (source, copy) =
                    (openat(from, name, flags, Mode::empty())?, openat(&to, name, flags, Mode::empty())?);
                copy_up(source.as_fd(), copy.as_fd())?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, &to, name)?;
            }
            FileType::RegularFile => copy_file(from, &to, name, mode)?,
            _ => rustix::fs::mknodat(&to, name, kind, mode, stat.st_rdev)?,
        }
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::chownat(&to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            // chown(2) clears set-user-id, and the mask of this process cut the mode.
            rustix::fs::chmodat(&to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn copy_file(from: BorrowedFd<'_>, to: &OwnedFd, name: &std::ffi::CStr, mode: Mode) -> Result<()> {
    // NONBLOCK: were it swapped for a FIFO meanwhile, opening must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(to, name, flags, mode)?;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let n = rustix::io::read(&source, &mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&copy, rest)?..];
        }
    }
}
