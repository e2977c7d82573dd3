//! Writing tar: pax headers where ustar's fields are too small, and whole trees below a descriptor.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, getxattr, lgetxattr, listxattr, llistxattr, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use crate::ArchiveError;
use crate::header::{BLOCK, Entry, EntryKind};
use crate::pax::Time;

/// Bytes of an extended attribute's value and of a list of names (Linux, `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_LIMIT: usize = 1 << 16;

/// Bytes of a file that are read at once.
const PIECE: usize = 128 << 10;

/// Writes entries to a stream.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    /// For the data of files; made with the first.
    buffer: Vec<u8>,
    /// No entry is said to be later than this.
    latest: Option<Time>,
}

impl<'a> Writer<'a> {
    /// Writes to this stream.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, buffer: Vec::new(), latest: None }
    }

    /// Writes an entry with its data, of which exactly `entry.size` bytes must come.
    ///
    /// # Errors
    /// [`ArchiveError::Write`]; [`ArchiveError::Source`] if the data is shorter than promised.
    pub fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), ArchiveError> {
        let size = self.head(entry)?;
        if size > 0 {
            self.copy(entry, size, data)?;
            self.pad(size)?;
        }
        Ok(())
    }

    /// Writes what stands before an entry's data, and says how many bytes of that must follow, from whoever has them, with
    /// [`Writer::pad`] after them if there are any.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    pub fn head(&mut self, entry: &Entry) -> Result<u64, ArchiveError> {
        let after = |t: &Time| (entry.modified.seconds, entry.modified.nanoseconds) > (t.seconds, t.nanoseconds);
        let earlier = self.latest.filter(after).map(|modified| Entry { modified, ..entry.clone() });
        let entry = earlier.as_ref().unwrap_or(entry);
        let records = pax_records(entry);
        if !records.is_empty() {
            let header = header(b"PaxHeaders.0/", b"", 0o644, records.len() as u64, b'x', entry);
            self.write(&header)?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        let kind = match entry.kind {
            EntryKind::File => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::Character => b'3',
            EntryKind::Block => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        self.write(&header(&entry.name, &entry.link, entry.mode, size, kind, entry))?;
        Ok(size)
    }

    fn copy(&mut self, entry: &Entry, mut left: u64, data: &mut dyn Read) -> Result<(), ArchiveError> {
        let unreadable = |source| {
            let path = String::from_utf8_lossy(&entry.name).into_owned();
            ArchiveError::Source { path, source }
        };
        self.buffer.resize(PIECE, 0);
        while left > 0 {
            let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            match data.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.out.write_all(&self.buffer[..n]).map_err(ArchiveError::Write)?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(e)),
            }
        }
        Ok(())
    }

    /// Ends the archive by two zero blocks.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    pub fn finish(self) -> Result<(), ArchiveError> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(ArchiveError::Write)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes).map_err(ArchiveError::Write)
    }

    /// Fills the last block of an entry's data.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    pub fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.write(&[0; BLOCK][..padding])
    }
}

impl Entry {
    /// Describes a plain file or directory, for archives that are not made from a tree.
    pub fn plain(name: &str, kind: EntryKind, mode: u32, size: u64, modified: Time) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            modified,
            accessed: None,
            stored: size,
            size,
            sparse: None,
            xattrs: Vec::new(),
            device: (0, 0),
        }
    }
}

const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.name.len() > 100 || !entry.name.is_ascii() {
        record(&mut records, b"path", &entry.name);
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        record(&mut records, b"linkpath", &entry.link);
    }
    if entry.kind == EntryKind::File && entry.size > OCTAL_11 {
        record(&mut records, b"size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > OCTAL_7 {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let time = entry.modified;
    if time.nanoseconds != 0 || !(0..=OCTAL_11 as i64).contains(&time.seconds) {
        record(&mut records, b"mtime", decimal(time).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn decimal(time: Time) -> String {
    // Decimals count away from zero, nanoseconds always forward.
    let (sign, seconds, nanoseconds) = match (time.seconds < 0, time.nanoseconds) {
        (true, 0) | (false, _) => ("", time.seconds, time.nanoseconds),
        (true, n) => ("-", -(time.seconds + 1), 1_000_000_000 - n),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned()
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn header(name: &[u8], link: &[u8], mode: u32, size: u64, kind: u8, entry: &Entry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    // What is too long or too large stands in the pax header in front, and here cut.
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}\0", mode & 0o7777).as_bytes());
    put(108, format!("{:07o}\0", u64::from(entry.uid).min(OCTAL_7)).as_bytes());
    put(116, format!("{:07o}\0", u64::from(entry.gid).min(OCTAL_7)).as_bytes());
    put(124, format!("{:011o}\0", size.min(OCTAL_11)).as_bytes());
    put(136, format!("{:011o}\0", entry.modified.seconds.clamp(0, OCTAL_11 as i64)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", u64::from(entry.device.0).min(OCTAL_7)).as_bytes());
    put(337, format!("{:07o}\0", u64::from(entry.device.1).min(OCTAL_7)).as_bytes());
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Writes the tree below `root` as a tar stream with its end, entries sorted by name, with owners, modes, times,
/// extended attributes, devices and hard links. Sockets are left out, as Docker does.
///
/// # Errors
/// [`ArchiveError::Source`] (also `ENAMETOOLONG` for paths that no archive reader could make),
/// [`ArchiveError::Write`].
pub fn pack(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), ArchiveError> {
    let mut packer = Packer::new(out);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(root, ".", flags, Mode::empty()).map_err(|e| unreadable(Path::new("."), e))?;
    let mut open = vec![Folder::list(top, PathBuf::new())?];
    while let Some(folder) = open.last_mut() {
        let Some(name) = folder.names.pop() else {
            open.pop();
            continue;
        };
        if let Some(inner) = packer.add(folder, &name)? {
            open.push(inner);
        }
    }
    packer.finish().map(drop)
}

/// A directory that is being gone through.
pub(crate) struct Folder {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    /// In reverse order.
    pub(crate) names: Vec<Vec<u8>>,
}

impl Folder {
    pub(crate) fn list(fd: OwnedFd, path: PathBuf) -> Result<Self, ArchiveError> {
        let mut names = names(&fd, &path)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { fd, path, names })
    }
}

/// The names in a directory, in no order.
pub(crate) fn names(folder: &OwnedFd, path: &Path) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(|e| unreadable(path, e))? {
        let name = entry.map_err(|e| unreadable(path, e))?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Writes files of a tree as entries.
pub(crate) struct Packer<'a> {
    writer: Writer<'a>,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { writer: Writer::new(out), links: HashMap::new(), entries: 0 }
    }

    /// As [`Packer::new`]; nothing is said to be later than `latest`.
    pub(crate) fn until(out: &'a mut dyn Write, latest: Option<Time>) -> Self {
        let mut packer = Self::new(out);
        packer.writer.latest = latest;
        packer
    }

    /// Ends the archive and tells how many entries it has.
    pub(crate) fn finish(self) -> Result<u64, ArchiveError> {
        self.writer.finish().map(|()| self.entries)
    }

    /// Writes an entry that has no data.
    pub(crate) fn bare(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.entries += 1;
        self.writer.entry(entry, &mut io::empty())
    }

    /// Writes an entry with its data.
    pub(crate) fn whole(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), ArchiveError> {
        self.entries += 1;
        self.writer.entry(entry, data)
    }

    /// Makes an entry a hard link, if the file was written under another name.
    pub(crate) fn link(&mut self, entry: &mut Entry, stat: &Stat) -> bool {
        if stat.st_nlink <= 1 || entry.kind == EntryKind::Directory {
            return false;
        }
        let id = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&id) {
            (entry.kind, entry.link) = (EntryKind::HardLink, first.clone());
            return true;
        }
        self.links.insert(id, entry.name.clone());
        false
    }

    /// Writes one entry; a directory is returned to be gone through next.
    fn add(&mut self, folder: &Folder, name: &[u8]) -> Result<Option<Folder>, ArchiveError> {
        let path = folder.path.join(OsStr::from_bytes(name));
        let stat = look(folder.fd.as_fd(), name, &path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.file(folder.fd.as_fd(), name, &path, &stat)?;
            return Ok(None);
        }
        if let Some(entry) = entry_of(folder.fd.as_fd(), name, &path, &stat)? {
            self.bare(&entry)?;
        }
        Folder::list(open_folder(folder.fd.as_fd(), name, &path)?, path).map(Some)
    }

    /// Writes anything but a directory; sockets are left out.
    pub(crate) fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        path: &Path,
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        let Some(mut entry) = describe(path, stat) else { return Ok(()) };
        if self.link(&mut entry, stat) {
            return self.bare(&entry);
        }
        entry.xattrs = attributes(folder, name).map_err(|e| unreadable(path, e))?;
        match entry.kind {
            EntryKind::Symlink => {
                let target = readlinkat(folder, OsStr::from_bytes(name), Vec::new());
                entry.link = target.map_err(|e| unreadable(path, e))?.into_bytes();
                self.bare(&entry)
            }
            EntryKind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = openat(folder, OsStr::from_bytes(name), flags, Mode::empty());
                let file = file.map_err(|e| unreadable(path, e))?;
                self.whole(&entry, &mut std::fs::File::from(file))
            }
            _ => self.bare(&entry),
        }
    }
}

/// Looks at a file without following it.
pub(crate) fn look(folder: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<Stat, ArchiveError> {
    if path.as_os_str().len() >= 4096 {
        return Err(unreadable(path, Errno::NAMETOOLONG));
    }
    statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| unreadable(path, e))
}

pub(crate) fn open_folder(folder: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<OwnedFd, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, OsStr::from_bytes(name), flags, Mode::empty()).map_err(|e| unreadable(path, e))
}

/// The entry of a directory with its attributes.
pub(crate) fn entry_of(
    folder: BorrowedFd<'_>,
    name: &[u8],
    path: &Path,
    stat: &Stat,
) -> Result<Option<Entry>, ArchiveError> {
    let Some(mut entry) = describe(path, stat) else { return Ok(None) };
    entry.xattrs = attributes(folder, name).map_err(|e| unreadable(path, e))?;
    Ok(Some(entry))
}

/// The entry of a file; `None` for sockets, which archives cannot hold.
pub(crate) fn describe(path: &Path, stat: &Stat) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::CharacterDevice => EntryKind::Character,
        FileType::BlockDevice => EntryKind::Block,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    };
    let mut name = path.as_os_str().as_bytes().to_vec();
    if kind == EntryKind::Directory {
        name.push(b'/');
    }
    let size = if kind == EntryKind::File { stat.st_size.cast_unsigned() } else { 0 };
    let device = matches!(kind, EntryKind::Character | EntryKind::Block);
    Some(Entry {
        name,
        kind,
        link: Vec::new(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        accessed: None,
        stored: size,
        size,
        sparse: None,
        xattrs: Vec::new(),
        device: if device { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) },
    })
}

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether an extended attribute belongs to the content: capabilities, access control lists and the user's own. Others
/// are the machine's (`security.selinux`) or the engine's (`trusted.overlay.*`).
fn is_content(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

/// The extended attributes that belong to the content, sorted by name.
pub(crate) fn attributes(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Attributes, Errno> {
    // There is no llistxattrat before Linux 6.13; through /proc the name is looked up in the open directory.
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name));
    listed(|names| llistxattr(&path, names), |name, value| lgetxattr(&path, name, value))
}

/// As [`attributes`], of what a descriptor stands for, which may be one with `O_PATH` of anything but a link.
pub(crate) fn attributes_of(fd: &OwnedFd) -> Result<Attributes, Errno> {
    let path = Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
    listed(|names| listxattr(&path, names), |name, value| getxattr(&path, name, value))
}

fn listed(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Attributes, Errno> {
    let mut names = vec![0u8; 256];
    let n = loop {
        match list(&mut names) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(n) => break n,
            Err(Errno::RANGE) if names.len() < XATTR_LIMIT => names.resize(XATTR_LIMIT, 0),
            Err(e) => return Err(e),
        }
    };
    let mut found = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|name| is_content(name)) {
        let mut value = vec![0u8; XATTR_LIMIT];
        let n = get(OsStr::from_bytes(name), &mut value)?;
        value.truncate(n);
        found.push((name.to_vec(), value));
    }
    // The kernel lists them in an order of its own, and the same file must give the same archive.
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn unreadable(path: &Path, e: Errno) -> ArchiveError {
    ArchiveError::Source { path: path.display().to_string(), source: e.into() }
}
