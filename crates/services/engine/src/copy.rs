//! Copies a folder of an image into a volume, as Docker fills empty volumes: owners, modes, times, links, devices and
//! extended attributes. Works on descriptors only: names below are never followed as links.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
    utimensat,
};
use rustix::io::Errno;
use wharf_types::IdMaps;

/// Folders below one another at most: deeper trees are hostile, and each level holds two descriptors.
const DEPTH: usize = 512;

/// Copies what is in `from` into `to`, and gives `to` the owner, mode and times of `from`. With `users` the owners in `from` are
/// those inside, and get the host's ids.
pub fn fill(from: BorrowedFd<'_>, to: BorrowedFd<'_>, users: Option<&IdMaps>) -> Result<(), Errno> {
    let mut copied = Copied { files: HashMap::new(), users };
    folder(from, to, &mut copied, 0)
}

/// Whether a folder has nothing in it.
pub fn is_empty(folder: BorrowedFd<'_>) -> Result<bool, Errno> {
    for entry in Dir::read_from(folder)? {
        if !is_dot(entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// What was copied already, and how owners become the host's.
struct Copied<'a> {
    files: HashMap<(u64, u64), OwnedFd>,
    users: Option<&'a IdMaps>,
}

fn folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, copied: &mut Copied<'_>, depth: usize) -> Result<(), Errno> {
    if depth > DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let (inner_from, inner_to) =
                    (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
                folder(inner_from.as_fd(), inner_to.as_fd(), copied, depth + 1)?;
            }
            FileType::RegularFile => file(from, to, name, &stat, copied)?,
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                symlinkat(&target, to, name)?;
                own(to, name, &stat, copied.users)?;
            }
            kind => {
                mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
                own(to, name, &stat, copied.users)?;
            }
        }
    }
    let stat = rustix::fs::fstat(from)?;
    dress(from, to, &stat, copied.users)
}

fn file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    copied: &mut Copied<'_>,
) -> Result<(), Errno> {
    let key = (stat.st_dev, stat.st_ino);
    if let Some(first) = copied.files.get(&key) {
        use std::os::fd::AsRawFd;
        // A further name of a file that was copied (linkat(2): by descriptor through /proc).
        let path = format!("/proc/self/fd/{}", first.as_raw_fd());
        return linkat(CWD, path, to, name, AtFlags::SYMLINK_FOLLOW);
    }
    let source = openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut reader, mut writer) = (std::fs::File::from(source), std::fs::File::from(target));
    std::io::copy(&mut reader, &mut writer).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    dress(reader.as_fd(), writer.as_fd(), stat, copied.users)?;
    if stat.st_nlink > 1 {
        copied.files.insert(key, writer.into());
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let at = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// An owner that has no id of the host stays as it is.
fn ids(stat: &Stat, users: Option<&IdMaps>) -> (Option<Uid>, Option<Gid>) {
    let inside = (stat.st_uid, stat.st_gid);
    let (uid, gid) = users.and_then(|users| users.outside(inside.0, inside.1)).unwrap_or(inside);
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Owner and times of what has no mode or attributes of its own.
fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, users: Option<&IdMaps>) -> Result<(), Errno> {
    let (uid, gid) = ids(stat, users);
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, mode, attributes and times; the owner first, because chown(2) clears set-id bits.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, users: Option<&IdMaps>) -> Result<(), Errno> {
    let (uid, gid) = ids(stat, users);
    fchown(to, uid, gid)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    attributes(from, to)?;
    futimens(to, &times(stat))
}

fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = vec![0_u8; 65_536];
    let length = match flistxattr(from, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(n) => n,
        Err(e) => return Err(e),
    };
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // overlayfs' own marks mean nothing in a volume.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 65_536];
        let n = match fgetxattr(from, name, &mut value[..]) {
            Ok(n) => n,
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e),
        };
        match fsetxattr(to, name, &value[..n], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened")
    }

    #[test]
    fn a_tree_is_copied_with_links_modes_and_times() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("sub")).expect("made");
        fs::create_dir(&to).expect("made");
        fs::write(from.join("sub/a"), "text").expect("written");
        fs::set_permissions(from.join("sub/a"), fs::Permissions::from_mode(0o4750)).expect("set");
        fs::hard_link(from.join("sub/a"), from.join("b")).expect("linked");
        symlink("/etc/passwd", from.join("link")).expect("linked");
        assert!(is_empty(open(&to).as_fd()).expect("read"));
        fill(open(&from).as_fd(), open(&to).as_fd(), None).expect("copied");
        assert_eq!(fs::read_to_string(to.join("b")).expect("read"), "text");
        let (a, b) = (fs::metadata(to.join("sub/a")).expect("stat"), fs::metadata(to.join("b")).expect("stat"));
        assert_eq!((a.ino(), a.mode() & 0o7777), (b.ino(), 0o4750));
        assert_eq!(a.mtime_nsec(), fs::metadata(from.join("b")).expect("stat").mtime_nsec());
        assert_eq!(fs::read_link(to.join("link")).expect("read").to_str(), Some("/etc/passwd"));
        assert!(!is_empty(open(&to).as_fd()).expect("read"));
    }
}
