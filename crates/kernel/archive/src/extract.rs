//! Extracting an archive into a directory.
//!
//! Each entry's parent is opened beneath the root (links in it are followed there and nowhere else), and the entry is
//! made in it by its last name alone, never over something that exists. So no name, link or race in an archive
//! reaches outside the directory.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, fstat, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, setxattr, statat, symlinkat,
    utimensat,
};
use rustix::io::{Errno, pwrite};
use wharf_types::IdMaps;

use crate::header::{Entry, EntryKind, Reader};
use crate::pax::Time;
use crate::{ArchiveError, Root, remove_tree};

/// What to do with `.wh.` entries (image-spec, layer.md, "Whiteouts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Write them as overlayfs has them: character device 0:0, `trusted.overlay.opaque`.
    Overlay,
    /// Remove what they name from the directory, unless this very archive made it.
    Apply,
    /// Take them as ordinary files: the archive is no layer.
    Keep,
}

/// What was extracted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Directories that the archive needs and does not describe, parents first; the empty path is the root. With
    /// [`Whiteouts::Overlay`] only: [`settle`] gives them the attributes of the layers below, once those are known.
    pub implied: Vec<PathBuf>,
}

/// Gives the directories that an archive implied the owner and mode that they have in the layers below (nearest first),
/// for a layer that was extracted before those were there.
///
/// # Errors
/// What the kernel gives.
pub fn settle(root: OwnedFd, below: &[OwnedFd], implied: &[PathBuf]) -> io::Result<()> {
    let root = Root::new(root);
    let below = below.iter().map(|fd| Ok(Root::new(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)));
    let below: Vec<Root> = below.collect::<io::Result<_>>()?;
    for path in implied {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        // A later entry may have put something else in its place.
        let Ok(made) = root.open(path, flags, Mode::empty()) else { continue };
        imitate(&made, &below, path)?;
    }
    Ok(())
}

/// Gives a directory the owner and mode that its path has below. Says whether it got the set-gid bit.
fn imitate(made: &OwnedFd, below: &[Root], path: &Path) -> io::Result<bool> {
    for below in below {
        let Ok(fd) = below.open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) else {
            continue;
        };
        let like: Stat = fstat(fd)?;
        fchown(made, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)))?;
        fchmod(made, Mode::from_raw_mode(like.st_mode & 0o7777))?;
        return Ok(like.st_mode & 0o2000 != 0);
    }
    Ok(false)
}

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Extracts an uncompressed tar stream beneath `root`, with owners, modes, times, extended attributes, devices and
/// hard links. Missing parent directories take their attributes from `parents` (layers below, nearest first).
/// Attributes `trusted.*` are left out: overlayfs keeps its own there, and an image must not write them.
///
/// The stream is read to the archive's end; what follows in it is left.
///
/// # Errors
/// See [`ArchiveError`]. What was extracted before the error stays.
pub fn extract(
    stream: &mut dyn BufRead,
    root: OwnedFd,
    parents: &[OwnedFd],
    whiteouts: Whiteouts,
) -> Result<Extracted, ArchiveError> {
    unpack(stream, Root::new(root), PathBuf::new(), parents, whiteouts, Copying::default())
}

/// How an archive is copied into a tree that is in use (`docker cp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copying<'a> {
    /// Who owns everything that is made, instead of whom the archive names.
    pub owner: Option<(u32, u32)>,
    /// The ids of the host that owners in the archive stand for. What has none is refused.
    pub users: Option<&'a IdMaps>,
    /// Refuses to put a file in a directory's place and the other way round.
    pub keep_kinds: bool,
    /// The first part of names and of what hard links name, and what it becomes.
    pub renamed: Option<(&'a [u8], &'a [u8])>,
}

/// Gives a name another first part, if it has this one.
fn rename(name: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    match name.strip_prefix(old) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => [new, rest].concat(),
        _ => name.to_vec(),
    }
}

/// Extracts a tar stream into the directory `folder` of a tree in which links lead where they lead in that tree. What
/// others do in the tree meanwhile can spoil what is made, and reaches nothing outside of it.
///
/// # Errors
/// As [`extract`]; [`ArchiveError::Kind`] with [`Copying::keep_kinds`].
pub fn copy_into(
    stream: &mut dyn BufRead,
    root: OwnedFd,
    folder: &Path,
    how: Copying<'_>,
) -> Result<Extracted, ArchiveError> {
    let folder = folder.strip_prefix("/").unwrap_or(folder).to_owned();
    unpack(stream, Root::new(root), folder, &[], Whiteouts::Keep, how)
}

fn unpack(
    stream: &mut dyn BufRead,
    root: Root,
    base: PathBuf,
    parents: &[OwnedFd],
    whiteouts: Whiteouts,
    how: Copying<'_>,
) -> Result<Extracted, ArchiveError> {
    let parents = parents.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 0).map(Root::new));
    let parents = parents.collect::<Result<_, _>>().map_err(|e| ArchiveError::Read(e.into()))?;
    let mut extractor = Extractor {
        root,
        base,
        how,
        parents,
        whiteouts,
        umask: umask(),
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        // In a directory that was there before, any folder may have the bit.
        inherits_group: whiteouts != Whiteouts::Overlay,
        last: None,
        folders: Vec::new(),
        made: HashSet::new(),
        implied: BTreeSet::new(),
        done: Extracted::default(),
    };
    if whiteouts == Whiteouts::Overlay {
        extractor.implied.insert(PathBuf::new());
    }
    let mut reader = Reader::new(stream);
    while let Some(mut entry) = reader.entry()? {
        if let Some((uid, gid)) = how.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some(users) = how.users {
            let outside = users.outside(entry.uid, entry.gid);
            (entry.uid, entry.gid) =
                outside.ok_or_else(|| invalid(&entry, "its owner has no id in the container's user namespace"))?;
        }
        if let Some((old, new)) = how.renamed {
            entry.name = rename(&entry.name, old, new);
            if entry.kind == EntryKind::HardLink {
                entry.link = rename(&entry.link, old, new);
            }
        }
        extractor.take(&entry, &mut reader)?;
    }
    extractor.finish()
}

/// The mask that the kernel takes from the mode of what this process makes.
fn umask() -> u32 {
    // Reading it by umask(2) would change it for other threads for a moment.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Unknown means that every mode is set explicitly.
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o7777)
}

/// A file whose removal takes time.
const LARGE: i64 = 8 << 20;

struct Extractor<'a> {
    root: Root,
    /// Where in the root the archive's own root is.
    base: PathBuf,
    how: Copying<'a>,
    parents: Vec<Root>,
    whiteouts: Whiteouts,
    umask: u32,
    owner: (u32, u32),
    /// Whether a directory with the set-gid bit was made: files in it get its group, not ours.
    inherits_group: bool,
    /// The directory of the last entry, because the next one is mostly in it too.
    last: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set at the end because filling a directory changes them.
    folders: Vec<(PathBuf, Timestamps)>,
    /// What this archive made, with [`Whiteouts::Apply`].
    made: HashSet<PathBuf>,
    /// See [`Extracted::implied`].
    implied: BTreeSet<PathBuf>,
    done: Extracted,
}

/// An entry's place: its directory, opened, and its name there.
struct Place {
    folder: PathBuf,
    name: OsString,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

impl Extractor<'_> {
    fn take(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), ArchiveError> {
        self.done.entries += 1;
        let Some(place) = self.place(&entry.name)? else { return self.take_root(entry) };
        self.enter(&place.folder).map_err(|e| failed("open the folder of", entry, e))?;
        if self.whiteouts != Whiteouts::Keep && place.name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&place, entry);
        }
        match entry.kind {
            EntryKind::Directory => self.directory(&place, entry)?,
            EntryKind::File => self.file(&place, entry, reader)?,
            EntryKind::HardLink => self.hard_link(&place, entry)?,
            EntryKind::Symlink | EntryKind::Character | EntryKind::Block | EntryKind::Fifo => {
                self.special(&place, entry)?;
            }
        }
        if self.whiteouts == Whiteouts::Apply {
            self.remember(&place);
        }
        Ok(())
    }

    /// The place of an entry below the archive's root; `None` for the root itself.
    fn place(&self, name: &[u8]) -> Result<Option<Place>, ArchiveError> {
        let found = place(name)?;
        Ok(found.map(|place| Place { folder: self.base.join(place.folder), ..place }))
    }

    fn remember(&mut self, place: &Place) {
        self.made.insert(place.path());
        let mut folder = place.folder.as_path();
        while !folder.as_os_str().is_empty() && self.made.insert(folder.to_owned()) {
            folder = folder.parent().unwrap_or(Path::new(""));
        }
    }

    /// The entry `./` carries the attributes of the root itself.
    fn take_root(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        if entry.kind != EntryKind::Directory {
            return Err(invalid(entry, "only a directory can stand for the root"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.root.open(&self.base, flags, Mode::empty()).map_err(|e| failed("open", entry, e))?;
        self.attributes(&fd, entry, None).map_err(|e| failed("set attributes of", entry, e))?;
        self.inherits_group |= entry.mode & 0o2000 != 0;
        self.implied.remove(&self.base);
        self.folders.push((self.base.clone(), timestamps(entry)));
        Ok(())
    }

    /// Opens the directory of the next entry into `last`, making what is missing.
    fn enter(&mut self, folder: &Path) -> io::Result<()> {
        if self.last.as_ref().is_some_and(|(path, _)| path == folder) {
            return Ok(());
        }
        let fd = match self.root.directory(folder) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_folders(folder)?;
                self.root.directory(folder)?
            }
            Err(e) => return Err(e),
        };
        self.last = Some((folder.to_owned(), fd));
        Ok(())
    }

    fn folder(&self) -> io::Result<BorrowedFd<'_>> {
        self.last.as_ref().map(|(_, fd)| fd.as_fd()).ok_or_else(|| Errno::BADF.into())
    }

    /// Makes the missing directories of a path, like those of the layers below where they have them.
    fn make_folders(&mut self, folder: &Path) -> io::Result<()> {
        let mut path = PathBuf::new();
        let mut parent = self.root.directory(Path::new(""))?;
        for part in folder {
            path.push(part);
            parent = match self.root.directory(&path) {
                Ok(fd) => fd,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // EEXIST is a link to nowhere: opening it again gives the error that says so.
                    match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) => {
                            self.like_below(&path)?;
                            if let Some((uid, gid)) = self.how.users.map(IdMaps::root) {
                                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                                chownat(&parent, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                            }
                        }
                        Err(Errno::EXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.root.directory(&path)?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(())
    }

    fn like_below(&mut self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o755);
        let made = self.root.open(path, flags, Mode::empty())?;
        fchmod(&made, mode)?;
        self.inherits_group |= imitate(&made, &self.parents, path)?;
        if self.whiteouts == Whiteouts::Overlay {
            self.implied.insert(path.to_owned());
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place, entry: &Entry) -> Result<(), ArchiveError> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777 | 0o700);
        let parent = self.folder().map_err(|e| failed("make", entry, e))?;
        let mut fresh = true;
        let mut made = mkdirat(parent, &place.name, mode);
        if made == Err(Errno::EXIST) {
            let stat = statat(parent, &place.name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|e| failed("look at", entry, e.into()))?;
            fresh = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
            if fresh && self.how.keep_kinds {
                return Err(ArchiveError::Kind { what: "non-directory", path: shown(&entry.name), by: "directory" });
            }
            made = Ok(());
            if fresh {
                self.clear(place).map_err(|e| failed("replace", entry, e))?;
                let parent = self.folder().map_err(|e| failed("make", entry, e))?;
                made = mkdirat(parent, &place.name, mode);
            }
        }
        made.map_err(|e| failed("make", entry, e.into()))?;
        let parent = self.folder().map_err(|e| failed("open", entry, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, &place.name, flags, Mode::empty()).map_err(|e| failed("open", entry, e.into()))?;
        let created = fresh.then_some(entry.mode & 0o777 | 0o700);
        self.attributes(&fd, entry, created).map_err(|e| failed("set attributes of", entry, e))?;
        self.inherits_group |= entry.mode & 0o2000 != 0;
        let path = place.path();
        self.implied.remove(&path);
        self.folders.push((path.clone(), timestamps(entry)));
        self.last = Some((path, fd));
        Ok(())
    }

    fn file(&mut self, place: &Place, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), ArchiveError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.create(place, entry, |folder, name| openat(folder, name, flags, mode))?;
        match &entry.sparse {
            None => copy(reader, &fd, entry)?,
            Some(sparse) => {
                ftruncate(&fd, sparse.real).map_err(|e| failed("write", entry, e.into()))?;
                for chunk in &sparse.map {
                    copy_at(reader, &fd, chunk.offset, chunk.length, entry)?;
                }
            }
        }
        self.done.bytes += entry.stored;
        self.attributes(&fd, entry, Some(entry.mode & 0o777)).map_err(|e| failed("set attributes of", entry, e))?;
        futimens(&fd, &timestamps(entry)).map_err(|e| failed("set times of", entry, e.into()))
    }

    fn hard_link(&mut self, place: &Place, entry: &Entry) -> Result<(), ArchiveError> {
        let target = self.place(&entry.link).map_err(|_| invalid(entry, "its link target leaves the root"))?;
        let target = target.ok_or_else(|| invalid(entry, "its link target is the root"))?;
        let from = self.root.directory(&target.folder).map_err(|e| failed("link", entry, e))?;
        if target.path() == place.path() {
            // Replacing the entry by a link to itself would lose it.
            return Ok(());
        }
        self.create(place, entry, |folder, name| linkat(&from, &target.name, folder, name, AtFlags::empty()))
    }

    fn special(&mut self, place: &Place, entry: &Entry) -> Result<(), ArchiveError> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let device = makedev(entry.device.0, entry.device.1);
        let link =
            CString::new(entry.link.as_slice()).map_err(|_| invalid(entry, "its link target has a zero byte"))?;
        self.create(place, entry, |folder, name| match entry.kind {
            EntryKind::Symlink => symlinkat(link.as_c_str(), folder, name),
            EntryKind::Character => mknodat(folder, name, FileType::CharacterDevice, mode, device),
            EntryKind::Block => mknodat(folder, name, FileType::BlockDevice, mode, device),
            _ => mknodat(folder, name, FileType::Fifo, mode, 0),
        })?;
        self.special_attributes(place, entry).map_err(|e| failed("set attributes of", entry, e))
    }

    /// Attributes of what is better not opened. Everything goes through one descriptor of the entry itself: in a
    /// tree that is in use its name can be a link by now, and chmod(2) by name would follow it.
    fn special_attributes(&self, place: &Place, entry: &Entry) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.folder()?, &place.name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != kind_of(entry.kind) {
            return Err(io::Error::other("it was replaced by something else meanwhile"));
        }
        if self.must_chown(entry) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(&fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        // A link has no mode and no attributes of its own; it is not reached by this path, which would follow it.
        if entry.kind != EntryKind::Symlink {
            let path = Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
            if entry.mode & (self.umask | 0o7000) != 0 || self.must_chown(entry) {
                rustix::fs::chmod(&path, Mode::from_raw_mode(entry.mode))?;
            }
            for (name, value) in kept(&entry.xattrs) {
                tolerate(setxattr(&path, name, value, XattrFlags::empty()))?;
            }
        }
        Ok(utimensat(&fd, "", &timestamps(entry), AtFlags::EMPTY_PATH)?)
    }

    /// Makes an entry; what stands in its place is removed first.
    fn create<T>(
        &mut self,
        place: &Place,
        entry: &Entry,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, ArchiveError> {
        let folder = self.folder().map_err(|e| failed("make", entry, e))?;
        match make(folder, &place.name) {
            Err(Errno::EXIST) => {
                if self.how.keep_kinds {
                    self.check_kind(place, entry)?;
                }
                self.clear(place).map_err(|e| failed("replace", entry, e))?;
                let folder = self.folder().map_err(|e| failed("make", entry, e))?;
                make(folder, &place.name).map_err(|e| failed("make", entry, e.into()))
            }
            other => other.map_err(|e| failed("make", entry, e.into())),
        }
    }

    /// Refuses to replace a directory by something else.
    fn check_kind(&self, place: &Place, entry: &Entry) -> Result<(), ArchiveError> {
        let folder = self.folder().map_err(|e| failed("look at", entry, e))?;
        match statat(folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Err(ArchiveError::Kind { what: "directory", path: shown(&entry.name), by: "non-directory" })
            }
            _ => Ok(()),
        }
    }

    /// Removes what stands at a place. The open directory may be what a removed link led to, so it is opened anew.
    fn clear(&mut self, place: &Place) -> io::Result<()> {
        let folder = self.folder()?;
        let held = openat(folder, &place.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        remove_tree(folder, &place.name)?;
        if let Ok(held) = held
            && fstat(&held).is_ok_and(|s| s.st_size >= LARGE && FileType::from_raw_mode(s.st_mode).is_file())
        {
            // The kernel gives the blocks and the memory of a file back with its last descriptor, and takes its time. A
            // thread that cannot be had means only that it is done here.
            let _ = std::thread::Builder::new().name("free".to_owned()).spawn(move || drop(held));
        }
        self.last = None;
        self.enter(&place.folder)
    }

    fn must_chown(&self, entry: &Entry) -> bool {
        self.inherits_group || (entry.uid, entry.gid) != self.owner
    }

    /// Sets owner, mode and attributes. `created` is the mode with which the entry was just made, if it was.
    fn attributes(&self, fd: &OwnedFd, entry: &Entry, created: Option<u32>) -> io::Result<()> {
        let chown = created.is_none() || self.must_chown(entry);
        if chown {
            fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        }
        // After chown, which clears the set-id bits. What the kernel gave already is not set again.
        if chown || created != Some(entry.mode) || entry.mode & self.umask != 0 {
            fchmod(fd, Mode::from_raw_mode(entry.mode))?;
        }
        for (name, value) in kept(&entry.xattrs) {
            tolerate(fsetxattr(fd, name, value, XattrFlags::empty()))?;
        }
        Ok(())
    }

    fn whiteout(&mut self, place: &Place, entry: &Entry) -> Result<(), ArchiveError> {
        let name = place.name.as_bytes();
        if name == OPAQUE {
            return self.opaque(place).map_err(|e| failed("whiten", entry, e));
        }
        if name.starts_with(WHITEOUT_META) {
            // AUFS' own bookkeeping.
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(invalid(entry, "a whiteout must name an entry"));
        }
        let folder = self.folder().map_err(|e| failed("whiten", entry, e))?;
        if self.whiteouts == Whiteouts::Apply {
            let path = place.folder.join(hidden);
            if !self.made.contains(&path) {
                remove_tree(folder, hidden).map_err(|e| failed("whiten", entry, e))?;
                self.last = None;
            }
            return Ok(());
        }
        match mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // What the same layer has is not what it hides.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(failed("whiten", entry, e.into())),
        }
    }

    fn opaque(&mut self, place: &Place) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = self.root.open(&place.folder, flags, Mode::empty())?;
        if self.whiteouts == Whiteouts::Overlay {
            return Ok(fsetxattr(&folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
        }
        for child in Dir::read_from(&folder)? {
            let child = child?;
            let name = OsStr::from_bytes(child.file_name().to_bytes());
            if !matches!(name.as_bytes(), b"." | b"..") && !self.made.contains(&place.folder.join(name)) {
                remove_tree(folder.as_fd(), name)?;
            }
        }
        self.last = None;
        Ok(())
    }

    fn finish(self) -> Result<Extracted, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (path, times) in self.folders.iter().rev() {
            // A later entry may have replaced the directory.
            let Ok(fd) = self.root.open(path, flags, Mode::empty()) else { continue };
            futimens(&fd, times).map_err(|e| ArchiveError::Entry {
                action: "set times of",
                path: path.display().to_string(),
                source: e.into(),
            })?;
        }
        Ok(Extracted { implied: self.implied.into_iter().collect(), ..self.done })
    }
}

/// Attributes that an archive may set.
fn kept(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&OsStr, &[u8])> {
    let allowed = |name: &[u8]| !name.starts_with(b"trusted.");
    xattrs.iter().filter(move |(name, _)| allowed(name)).map(|(name, value)| (OsStr::from_bytes(name), &value[..]))
}

/// Attributes that the file system or a security module does not know are left out, as Docker does.
fn tolerate(outcome: Result<(), Errno>) -> io::Result<()> {
    match outcome {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Cleans an entry's name lexically; `None` for the root itself.
fn kind_of(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File | EntryKind::HardLink => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Character => FileType::CharacterDevice,
        EntryKind::Block => FileType::BlockDevice,
        EntryKind::Fifo => FileType::Fifo,
    }
}

fn place(name: &[u8]) -> Result<Option<Place>, ArchiveError> {
    let wrong = |why| ArchiveError::Path { path: shown(name), why };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| wrong("it leaves the root"))?;
            }
            part => parts.push(part),
        }
    }
    let Some(last) = parts.pop() else { return Ok(None) };
    let folder = PathBuf::from(OsString::from_vec(parts.join(&b'/')));
    Ok(Some(Place { folder, name: OsString::from_vec(last.to_vec()) }))
}

fn timestamps(entry: &Entry) -> Timestamps {
    let time = |t: Time| Timespec { tv_sec: t.seconds, tv_nsec: i64::from(t.nanoseconds) };
    Timestamps { last_access: time(entry.accessed.unwrap_or(entry.modified)), last_modification: time(entry.modified) }
}

/// Zeros of this length, at a multiple of it, become a hole: archives of images say nothing of holes, and without
/// them a sparse file of a few blocks would fill the disk.
const HOLE: usize = 32 << 10;

fn copy(reader: &mut Reader<'_>, fd: &OwnedFd, entry: &Entry) -> Result<(), ArchiveError> {
    let mut at = 0;
    let mut written = 0;
    loop {
        let piece = reader.data()?;
        if piece.is_empty() {
            break;
        }
        let (zeros, n) = run(piece, at);
        if !zeros {
            pwrite_all(fd, &piece[..n], at).map_err(|e| failed("write", entry, e.into()))?;
            written = at + n as u64;
        }
        reader.consume(n);
        at += n as u64;
    }
    if written < at {
        ftruncate(fd, at).map_err(|e| failed("write", entry, e.into()))?;
    }
    Ok(())
}

/// How many bytes from the start of a piece, which belongs at this offset, are to be a hole or to be written.
fn run(piece: &[u8], at: u64) -> (bool, usize) {
    static ZEROS: [u8; HOLE] = [0; HOLE];
    let first = (at.wrapping_neg() % HOLE as u64) as usize;
    let Some(whole) = piece.get(first..).map(|rest| rest.chunks_exact(HOLE)) else { return (false, piece.len()) };
    let hole = |window: &&[u8]| **window == ZEROS[..];
    let windows = whole.len();
    let zeros = whole.clone().take_while(hole).count();
    if first == 0 && zeros > 0 {
        return (true, zeros * HOLE);
    }
    let data = whole.take_while(|window| !hole(window)).count();
    (false, if data < windows { first + data * HOLE } else { piece.len() })
}

fn pwrite_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = pwrite(fd, bytes, offset)?;
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

fn copy_at(
    reader: &mut Reader<'_>,
    fd: &OwnedFd,
    mut offset: u64,
    mut length: u64,
    entry: &Entry,
) -> Result<(), ArchiveError> {
    while length > 0 {
        let piece = reader.data()?;
        let piece = &piece[..piece.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let n = pwrite(fd, piece, offset).map_err(|e| failed("write", entry, e.into()))?;
        reader.consume(n);
        offset += n as u64;
        length -= n as u64;
    }
    Ok(())
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}

fn invalid(entry: &Entry, why: &'static str) -> ArchiveError {
    ArchiveError::Path { path: shown(&entry.name), why }
}

fn failed(action: &'static str, entry: &Entry, source: io::Error) -> ArchiveError {
    ArchiveError::Entry { action, path: shown(&entry.name), source }
}

#[cfg(test)]
mod tests {
    use super::rename;

    #[test]
    fn only_the_first_part_of_a_name_is_renamed() {
        assert_eq!(rename(b"a/a", b"a", b"b"), b"b/a");
        assert_eq!(rename(b"ab/a", b"a", b"b"), b"ab/a");
        assert_eq!(rename(b"./x", b".", b"b"), b"b/x");
    }
}
