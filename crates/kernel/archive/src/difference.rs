//! What one tree has that the tree below it has not: as a list (`docker diff`) and as a layer (image-spec, layer.md).
//!
//! Both trees are walked side by side by descriptor, sorted by name, so the same difference is the same archive to
//! the byte. A directory that only holds changes is described where the first of them comes.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, fstat, openat, statat};
use rustix::io::Errno;

use crate::ArchiveError;
use crate::header::{Entry, EntryKind};
use crate::pack::{Packer, attributes, entry_of, look, names, open_folder, unreadable};
use crate::pax::Time;

/// How a tree says what it hides of the tree below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It is the upper directory of an overlayfs: only what changed is in it, what is gone is a character device 0:0,
    /// and a directory that hides the one below has `trusted.overlay.opaque` (overlayfs.rst, "whiteouts and opaque
    /// directories").
    Overlay,
    /// It is a whole tree: what is gone is not in it.
    Whole,
}

/// Two trees to compare.
#[derive(Debug)]
pub struct Difference {
    /// The tree as it is.
    pub now: OwnedFd,
    /// What it was made upon, as one tree. Without one, everything counts as new, and an overlay's whiteouts are
    /// taken as they are.
    pub before: Option<OwnedFd>,
    /// How `now` is to be read.
    pub form: Form,
    /// Paths that count only if they have content: empty files, links and directories that an engine made as places
    /// for its mounts, and that were not there before. Relative, sorted or not.
    pub places: Vec<PathBuf>,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It, or something in it, is different.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// One line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path, relative to the tree.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What a directory of `now` lies upon.
enum Below {
    /// Nobody knows: there is no tree below.
    Unknown,
    /// Nothing.
    Nothing,
    /// Another directory.
    Folder(OwnedFd),
}

impl Below {
    fn stat(&self, name: &[u8]) -> Option<Stat> {
        let Below::Folder(fd) = self else { return None };
        let stat = statat(fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (!is_whiteout(&stat)).then_some(stat)
    }

    fn folder(&self, name: &[u8], stat: Option<&Stat>) -> Below {
        match self {
            Below::Unknown => Below::Unknown,
            Below::Nothing => Below::Nothing,
            Below::Folder(fd) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let is_folder = stat.is_some_and(is_folder);
                let opened = is_folder.then(|| openat(fd, OsStr::from_bytes(name), flags, Mode::empty()));
                opened.and_then(Result::ok).map_or(Below::Nothing, Below::Folder)
            }
        }
    }
}

/// A directory that is being gone through.
struct Level {
    now: OwnedFd,
    below: Below,
    path: PathBuf,
    /// In reverse order; with `false` what only the tree below has.
    names: Vec<(Vec<u8>, bool)>,
    /// What is to be told of the directory itself once something in it is told.
    pending: Option<(ChangeKind, Entry)>,
    /// Whether the directory's own time is a change: not where a place was made in it.
    touched: bool,
}

/// Who is told of the differences.
enum Sink<'a> {
    List(Vec<Change>),
    Layer(Packer<'a>),
}

impl Sink<'_> {
    fn is_list(&self) -> bool {
        matches!(self, Sink::List(_))
    }

    fn folder(&mut self, path: &Path, kind: ChangeKind, entry: &Entry) -> Result<(), ArchiveError> {
        match self {
            Sink::List(list) => {
                list.push(Change { path: path.to_owned(), kind });
                Ok(())
            }
            Sink::Layer(packer) => packer.bare(entry),
        }
    }

    fn gone(&mut self, path: &Path) -> Result<(), ArchiveError> {
        match self {
            Sink::List(list) => {
                list.push(Change { path: path.to_owned(), kind: ChangeKind::Deleted });
                Ok(())
            }
            Sink::Layer(packer) => {
                let name = path.file_name().unwrap_or_default().as_bytes();
                packer.bare(&marker(path.parent(), &[b".wh.", name].concat()))
            }
        }
    }
}

/// The empty file by which a layer hides something.
fn marker(folder: Option<&Path>, name: &[u8]) -> Entry {
    let mut entry = Entry::plain("", EntryKind::File, 0, 0, Time { seconds: 0, nanoseconds: 0 });
    let path = folder.unwrap_or(Path::new("")).join(OsStr::from_bytes(name));
    entry.name = path.into_os_string().into_encoded_bytes();
    entry
}

impl Difference {
    /// Lists the changes, sorted by path. A directory is listed if it or anything in it changed; of a directory that
    /// is gone only the directory. A file that was written to and looks as before, and times of directories do not
    /// count, as in moby (`pkg/archive/changes.go`). The root is not listed.
    ///
    /// # Errors
    /// [`ArchiveError::Source`].
    pub fn changes(&self) -> Result<Vec<Change>, ArchiveError> {
        let mut sink = Sink::List(Vec::new());
        self.walk(&mut sink)?;
        let Sink::List(mut list) = sink else { return Ok(Vec::new()) };
        list.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(list)
    }

    /// Writes the difference as a layer: what is new or different, `.wh.<name>` for what is gone, `.wh..wh..opq` in
    /// directories that hide what is below. Whiteouts have no owner, mode or time, so that a layer which is unpacked
    /// and packed again has the same digest. The root's own entry `./` is written if its attributes differ, or if
    /// there is no tree below. Returns the number of entries; 0 means that there is no difference.
    ///
    /// # Errors
    /// [`ArchiveError::Source`], [`ArchiveError::Write`].
    pub fn pack(&self, out: &mut dyn Write) -> Result<u64, ArchiveError> {
        self.pack_until(out, None)
    }

    /// As [`Difference::pack`], with times after `latest` written as `latest`.
    ///
    /// # Errors
    /// As [`Difference::pack`].
    pub fn pack_until(&self, out: &mut dyn Write, latest: Option<Time>) -> Result<u64, ArchiveError> {
        let mut sink = Sink::Layer(Packer::until(out, latest));
        self.walk(&mut sink)?;
        match sink {
            Sink::Layer(packer) => packer.finish(),
            Sink::List(_) => Ok(0),
        }
    }

    fn walk(&self, sink: &mut Sink<'_>) -> Result<(), ArchiveError> {
        let open = |fd: &OwnedFd| open_folder(fd.as_fd(), b".", Path::new("."));
        let now = open(&self.now)?;
        let below = self.before.as_ref().map(open).transpose()?.map_or(Below::Unknown, Below::Folder);
        self.root(&now, &below, sink)?;
        let opaque = self.form == Form::Overlay && is_opaque(&now);
        let mut levels = vec![self.level(now, below, PathBuf::new(), opaque, sink)?];
        while let Some(level) = levels.last_mut() {
            let Some((name, here)) = level.names.pop() else {
                let done = levels.pop();
                leave(done, &mut levels, sink)?;
                continue;
            };
            if here {
                let inner = self.step(&mut levels, &name, sink)?;
                levels.extend(inner);
            } else {
                let path = level.path.join(OsStr::from_bytes(&name));
                tell_folders(&mut levels, sink)?;
                sink.gone(&path)?;
            }
        }
        Ok(())
    }

    fn root(&self, now: &OwnedFd, below: &Below, sink: &mut Sink<'_>) -> Result<(), ArchiveError> {
        let top = Path::new("");
        let stat = fstat(now).map_err(|e| unreadable(top, e))?;
        let Some(mut entry) = entry_of(now.as_fd(), b".", top, &stat)? else { return Ok(()) };
        let differs = match below {
            Below::Folder(fd) => {
                let before = fstat(fd).map_err(|e| unreadable(top, e))?;
                !alike(&stat, &before) || !same_attributes(&entry, fd.as_fd(), b".", top)?
            }
            _ => true,
        };
        if !differs || sink.is_list() {
            return Ok(());
        }
        entry.name = b"./".to_vec();
        sink.folder(top, ChangeKind::Modified, &entry)
    }

    /// Lists a directory.
    fn level(
        &self,
        now: OwnedFd,
        mut below: Below,
        path: PathBuf,
        opaque: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Level, ArchiveError> {
        if opaque && let Sink::Layer(packer) = sink {
            packer.bare(&marker(Some(&path), b".wh..wh..opq"))?;
            below = Below::Nothing;
        }
        let mut all: Vec<(Vec<u8>, bool)> = names(&now, &path)?.into_iter().map(|name| (name, true)).collect();
        all.sort_unstable();
        if let Below::Folder(fd) = &below
            && (opaque || self.form == Form::Whole)
        {
            let mut gone = names(fd, &path)?;
            gone.retain(|name| all.binary_search_by(|(known, _)| known.cmp(name)).is_err());
            gone.retain(|name| below.stat(name).is_some());
            all.extend(gone.into_iter().map(|name| (name, false)));
        }
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        Ok(Level { now, below, path, names: all, pending: None, touched: false })
    }

    /// Tells one name of the deepest directory; a directory is returned to be gone through next.
    fn step(&self, levels: &mut [Level], name: &[u8], sink: &mut Sink<'_>) -> Result<Option<Level>, ArchiveError> {
        let Some(level) = levels.last_mut() else { return Ok(None) };
        let path = level.path.join(OsStr::from_bytes(name));
        let stat = match look(level.now.as_fd(), name, &path) {
            Ok(stat) => stat,
            // A running container may remove what was listed.
            Err(ArchiveError::Source { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let before = level.below.stat(name);
        if self.form == Form::Overlay && is_whiteout(&stat) {
            if before.is_some() || matches!(level.below, Below::Unknown) {
                tell_folders(levels, sink)?;
                sink.gone(&path)?;
            }
            return Ok(None);
        }
        if is_folder(&stat) {
            return self.folder(levels, name, path, &stat, before.as_ref(), sink);
        }
        let empty = stat.st_size == 0 || FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if before.is_none() && empty && self.is_place(&path) {
            level.touched = false;
            return Ok(None);
        }
        let same = match &before {
            Some(before) => same_file(level, name, &path, &stat, before)?,
            None => false,
        };
        // That a file is in an overlay's upper directory says that it was written to, whatever it looks like.
        if same && (sink.is_list() || self.form == Form::Whole) {
            return Ok(None);
        }
        tell_folders(levels, sink)?;
        match (sink, levels.last()) {
            (Sink::Layer(packer), Some(level)) => packer.file(level.now.as_fd(), name, &path, &stat)?,
            (Sink::List(list), _) => list.push(Change { path, kind: kind(before.as_ref()) }),
            (Sink::Layer(_), None) => {}
        }
        Ok(None)
    }

    fn folder(
        &self,
        levels: &mut [Level],
        name: &[u8],
        path: PathBuf,
        stat: &Stat,
        before: Option<&Stat>,
        sink: &mut Sink<'_>,
    ) -> Result<Option<Level>, ArchiveError> {
        let Some(level) = levels.last_mut() else { return Ok(None) };
        let now = open_folder(level.now.as_fd(), name, &path)?;
        let Some(entry) = entry_of(level.now.as_fd(), name, &path, stat)? else { return Ok(None) };
        let opaque = self.form == Form::Overlay && is_opaque(&now);
        let quiet = match (&level.below, before) {
            (Below::Folder(fd), Some(before)) => {
                alike(stat, before) && same_attributes(&entry, fd.as_fd(), name, &path)?
            }
            _ => false,
        };
        let place = matches!((&level.below, before), (Below::Folder(_), None)) && self.is_place(&path);
        if place {
            level.touched = false;
        }
        let below = level.below.folder(name, before);
        // An opaque directory hides something, unless there is nothing below.
        let opaque = opaque && !matches!(below, Below::Nothing);
        let mut pending = Some((kind(before), entry));
        if !place && (!quiet || opaque && !sink.is_list()) {
            tell_folders(levels, sink)?;
            if let Some((kind, entry)) = pending.take() {
                sink.folder(&path, kind, &entry)?;
            }
        }
        let mut inner = self.level(now, below, path, opaque, sink)?;
        inner.touched = quiet && before.is_some_and(|before| moved(stat, before));
        inner.pending = pending;
        Ok(Some(inner))
    }

    fn is_place(&self, path: &Path) -> bool {
        self.places.iter().any(|place| place == path)
    }
}

fn kind(before: Option<&Stat>) -> ChangeKind {
    if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added }
}

/// A directory in which nothing was told is told in a layer if its own time says that something happened.
fn leave(done: Option<Level>, levels: &mut [Level], sink: &mut Sink<'_>) -> Result<(), ArchiveError> {
    let Some(Level { path, pending: Some((kind, entry)), touched: true, .. }) = done else { return Ok(()) };
    if sink.is_list() {
        return Ok(());
    }
    tell_folders(levels, sink)?;
    sink.folder(&path, kind, &entry)
}

/// Tells of the directories that lead to what is told next.
fn tell_folders(levels: &mut [Level], sink: &mut Sink<'_>) -> Result<(), ArchiveError> {
    for level in levels {
        if let Some((kind, entry)) = level.pending.take() {
            sink.folder(&level.path, kind, &entry)?;
        }
    }
    Ok(())
}

/// Whether a file looks the same in both trees: everything but its content, for which size and time stand.
fn same_file(level: &Level, name: &[u8], path: &Path, now: &Stat, before: &Stat) -> Result<bool, ArchiveError> {
    let size = now.st_size == before.st_size && now.st_rdev == before.st_rdev;
    let Below::Folder(fd) = &level.below else { return Ok(false) };
    if !size || !alike(now, before) || moved(now, before) {
        return Ok(false);
    }
    let here = attributes(level.now.as_fd(), name).map_err(|e| unreadable(path, e))?;
    Ok(here == attributes(fd.as_fd(), name).map_err(|e| unreadable(path, e))?)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 4];
    // Without the attribute, or on a file system that has none, it is not.
    matches!(fgetxattr(folder, "trusted.overlay.opaque", &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Whether kind, mode and owner are the same.
fn alike(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

/// Whether the times of last change differ.
fn moved(a: &Stat, b: &Stat) -> bool {
    (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec)
}

fn same_attributes(entry: &Entry, below: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<bool, ArchiveError> {
    let before = match attributes(below, name) {
        Ok(before) => before,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(unreadable(path, e)),
    };
    Ok(entry.xattrs == before)
}
