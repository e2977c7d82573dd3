//! Packing what is in use: a path of a running container, whose processes may replace anything at any time.
//!
//! What an entry is, is looked at through its descriptor only. By name it could be a device by the time it is opened, and
//! reading that would be reading the host's.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use wharf_types::IdMaps;

use crate::ArchiveError;
use crate::header::EntryKind;
use crate::pack::{Folder, Packer, attributes_of, describe, unreadable};

/// Writes one file, or one directory with all below it, as a tar stream with its end; `name` is what it is called in
/// the archive. `what` may be opened with `O_PATH`. With `users` owners are written as they are inside of a user namespace with
/// these ids. Otherwise as [`crate::pack`].
///
/// # Errors
/// As [`crate::pack`].
pub fn pack_as(what: OwnedFd, name: &Path, users: Option<&IdMaps>, out: &mut dyn Write) -> Result<(), ArchiveError> {
    let mut packer = Packer::new(out);
    let mut open: Vec<Folder> = add(&mut packer, what, name.to_owned(), users)?.into_iter().collect();
    while let Some(folder) = open.last_mut() {
        let Some(name) = folder.names.pop() else {
            open.pop();
            continue;
        };
        let name = OsStr::from_bytes(&name);
        let path = folder.path.join(name);
        match openat(&folder.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => open.extend(add(&mut packer, fd, path, users)?),
            // Files come and go.
            Err(Errno::NOENT) => {}
            Err(e) => return Err(unreadable(&path, e)),
        }
    }
    packer.finish().map(drop)
}

/// Writes one entry; a directory is returned to be gone through next.
fn add(
    packer: &mut Packer<'_>,
    fd: OwnedFd,
    path: PathBuf,
    users: Option<&IdMaps>,
) -> Result<Option<Folder>, ArchiveError> {
    if path.as_os_str().len() >= 4096 {
        return Err(unreadable(&path, Errno::NAMETOOLONG));
    }
    let stat = fstat(&fd).map_err(|e| unreadable(&path, e))?;
    let Some(mut entry) = describe(&path, &stat) else { return Ok(None) };
    if let Some(users) = users {
        (entry.uid, entry.gid) = users.inside(entry.uid, entry.gid);
    }
    if path == Path::new("/") {
        entry.name = b"/".to_vec();
    }
    if packer.link(&mut entry, &stat) {
        return packer.bare(&entry).map(|()| None);
    }
    if entry.kind == EntryKind::Symlink {
        // Links have neither capabilities nor attributes of the user's.
        let target = readlinkat(&fd, "", Vec::new()).map_err(|e| unreadable(&path, e))?;
        entry.link = target.into_bytes();
        return packer.bare(&entry).map(|()| None);
    }
    entry.xattrs = attributes_of(&fd).map_err(|e| unreadable(&path, e))?;
    if users.is_some() {
        let capability = entry.xattrs.iter_mut().find(|(name, _)| name == b"security.capability");
        capability.into_iter().for_each(|(_, value)| forget_root(value));
    }
    match entry.kind {
        EntryKind::File => {
            let again = Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = openat(CWD, &again, flags, Mode::empty()).map_err(|e| unreadable(&path, e))?;
            packer.whole(&entry, &mut std::fs::File::from(file))?;
        }
        EntryKind::Directory => {
            packer.bare(&entry)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inner = openat(&fd, ".", flags, Mode::empty()).map_err(|e| unreadable(&path, e))?;
            return Folder::list(inner, path).map(Some);
        }
        _ => packer.bare(&entry)?,
    }
    Ok(None)
}

/// File capabilities that hold in one user namespace (version 3, with its root's id at the end) become those that hold where
/// the archive is extracted (version 2). Source: capabilities(7), "File capability extended attribute versioning".
fn forget_root(value: &mut Vec<u8>) {
    const WITHOUT_ROOT: usize = 20;
    if value.len() > WITHOUT_ROOT && value[3] == 3 {
        value.truncate(WITHOUT_ROOT);
        value[3] = 2;
    }
}
