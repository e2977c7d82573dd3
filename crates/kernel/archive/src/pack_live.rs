//! Packing what is in use: a path of a running container, whose processes may replace anything at any time.
//!
//! What an entry is, is looked at through its descriptor only. By name it could be a device by the time it is opened, and
//! reading that would be reading the host's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, fstat, getxattr, listxattr, openat, readlinkat};
use rustix::io::Errno;

use crate::ArchiveError;
use crate::header::EntryKind;
use crate::pack::{Attributes, Writer, XATTR_LIMIT, describe, is_content, unreadable};

/// Writes one file, or one directory with all below it, as a tar stream with its end; `name` is what it is called in
/// the archive. `what` may be opened with `O_PATH`. Otherwise as [`crate::pack`].
///
/// # Errors
/// As [`crate::pack`].
pub fn pack_as(what: OwnedFd, name: &Path, out: &mut dyn Write) -> Result<(), ArchiveError> {
    let mut packer = Packer { writer: Writer::new(out), links: HashMap::new() };
    let mut open: Vec<Folder> = packer.add(what, name.to_owned())?.into_iter().collect();
    while let Some(folder) = open.last_mut() {
        let Some(name) = folder.names.pop() else {
            open.pop();
            continue;
        };
        let name = OsStr::from_bytes(&name);
        let path = folder.path.join(name);
        match openat(&folder.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => open.extend(packer.add(fd, path)?),
            // Files come and go.
            Err(Errno::NOENT) => {}
            Err(e) => return Err(unreadable(&path, e)),
        }
    }
    packer.writer.finish()
}

struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// In reverse order.
    names: Vec<Vec<u8>>,
}

impl Folder {
    fn list(fd: OwnedFd, path: PathBuf) -> Result<Self, ArchiveError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).map_err(|e| unreadable(&path, e))? {
            let name = entry.map_err(|e| unreadable(&path, e))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { fd, path, names })
    }
}

struct Packer<'a> {
    writer: Writer<'a>,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    /// Writes one entry; a directory is returned to be gone through next.
    fn add(&mut self, fd: OwnedFd, path: PathBuf) -> Result<Option<Folder>, ArchiveError> {
        if path.as_os_str().len() >= 4096 {
            return Err(unreadable(&path, Errno::NAMETOOLONG));
        }
        let stat = fstat(&fd).map_err(|e| unreadable(&path, e))?;
        let Some(mut entry) = describe(&path, &stat) else { return Ok(None) };
        if path == Path::new("/") {
            entry.name = b"/".to_vec();
        }
        if entry.kind != EntryKind::Directory && stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                (entry.kind, entry.link) = (EntryKind::HardLink, first.clone());
                self.writer.entry(&entry, &mut io::empty())?;
                return Ok(None);
            }
            self.links.insert(id, entry.name.clone());
        }
        if entry.kind == EntryKind::Symlink {
            // Links have neither capabilities nor attributes of the user's.
            let target = readlinkat(&fd, "", Vec::new()).map_err(|e| unreadable(&path, e))?;
            entry.link = target.into_bytes();
            self.writer.entry(&entry, &mut io::empty())?;
            return Ok(None);
        }
        let again = Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
        entry.xattrs = attributes(&again).map_err(|e| unreadable(&path, e))?;
        match entry.kind {
            EntryKind::File => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = openat(CWD, &again, flags, Mode::empty()).map_err(|e| unreadable(&path, e))?;
                self.writer.entry(&entry, &mut std::fs::File::from(file))?;
            }
            EntryKind::Directory => {
                self.writer.entry(&entry, &mut io::empty())?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inner = openat(&fd, ".", flags, Mode::empty()).map_err(|e| unreadable(&path, e))?;
                return Folder::list(inner, path).map(Some);
            }
            _ => self.writer.entry(&entry, &mut io::empty())?,
        }
        Ok(None)
    }
}

fn attributes(path: &Path) -> Result<Attributes, Errno> {
    let mut names = vec![0u8; 256];
    let n = loop {
        match listxattr(path, &mut names) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(n) => break n,
            Err(Errno::RANGE) if names.len() < XATTR_LIMIT => names.resize(XATTR_LIMIT, 0),
            Err(e) => return Err(e),
        }
    };
    let mut found = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|name| is_content(name)) {
        let mut value = vec![0u8; XATTR_LIMIT];
        let n = getxattr(path, OsStr::from_bytes(name), &mut value)?;
        value.truncate(n);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
