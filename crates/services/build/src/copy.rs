//! Copying between trees: COPY, ADD, and the parts of a context that a snapshot takes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use wharf_dockerfile::ignore::Patterns;

use crate::tree::{Tree, look_at, names};

/// How to copy.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Owner of everything copied, else the source's.
    pub owner: Option<(u32, u32)>,
    /// Mode of everything copied, else the source's.
    pub mode: Option<ModeChange>,
    /// Time of everything copied, else the source's.
    pub time: Option<Timespec>,
    /// A folder's content is copied, not the folder.
    pub contents: bool,
    /// Only what fits.
    pub include: Patterns,
    /// Not what fits.
    pub exclude: Patterns,
    /// Replaces what is in the way, whatever it is.
    pub replace: bool,
}

/// `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// Octal.
    Octal(u32),
    /// `u=rwX,go=rX`.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    operator: u8,
    permissions: String,
}

impl ModeChange {
    /// Reads `0755` or `u+x,go-w`.
    ///
    /// # Errors
    /// Docker's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid mode: {text}");
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(wrong()) };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
            let mut who = 0;
            for c in clause[..at].chars() {
                who |= match c {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(wrong()),
                };
            }
            let permissions = clause[at + 1..].to_owned();
            if !permissions.chars().all(|c| "rwxXst".contains(c)) {
                return Err(wrong());
            }
            let who = if at == 0 { 0o7777 } else { who };
            clauses.push(Clause { who, operator: clause.as_bytes()[at], permissions });
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The mode that comes of an old one.
    pub fn apply(&self, old: u32, folder: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(old & 0o7777, |mode, clause| {
                let bits = clause.permissions.chars().fold(0, |bits, c| {
                    bits | match c {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => 0o111,
                        'X' if folder || mode & 0o111 != 0 => 0o111,
                        's' => 0o6000,
                        't' => 0o1000,
                        _ => 0,
                    }
                }) & clause.who;
                match clause.operator {
                    b'+' => mode | bits,
                    b'-' => mode & !bits,
                    _ => (mode & !(clause.who & 0o777)) | bits,
                }
            }),
        }
    }
}

/// What a copy could not do.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A system call failed.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A folder is where a file shall be, or the other way round.
    #[error("cannot copy to non-directory: {}", .0.display())]
    NoFolder(PathBuf),
    /// A folder is where a file shall be.
    #[error("cannot replace to directory {} with file", .0.display())]
    Folder(PathBuf),
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> CopyError + 'a {
    move |source| CopyError::Io { action, path: path.to_owned(), source }
}

/// Copies a path of one tree to a path of another, as `COPY` does: a folder that exists at the destination takes the
/// source in (or its content), anything else is the new name. Both are followed within their trees; with a slash at
/// its end the destination is made as a folder.
///
/// # Errors
/// [`CopyError`].
pub fn copy(from: &Tree, source: &Path, to: &Tree, destination: &str, options: &CopyOptions) -> Result<(), CopyError> {
    let place = Path::new(destination);
    let above = match place.file_name() {
        Some(_) if !destination.ends_with('/') && !destination.ends_with("/.") => {
            place.parent().unwrap_or(Path::new("/")).to_owned()
        }
        _ => place.to_owned(),
    };
    // What is made on the way gets the mode that was asked for, as at BuildKit.
    let mode = match options.mode {
        Some(ModeChange::Octal(mode)) => mode & 0o777,
        _ => 0o755,
    };
    to.make_folders(&above, mode, options.owner, options.time).map_err(failed("mkdir", &above))?;
    let mut target = to.follow(place);
    let stat = from.look(source).ok_or_else(|| failed("lstat", source)(io::ErrorKind::NotFound.into()))?;
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let there = to.stat(&target);
    let there_folder = there.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
    if (!options.contents && is_folder && there.is_some()) || (!is_folder && there_folder) {
        target.push(source.file_name().unwrap_or(OsStr::new(".")));
    }
    let mut copier = Copier { options, links: HashMap::new(), buffer: Vec::new() };
    if is_folder {
        let reading = from.folder(source).map_err(failed("open", source))?;
        if there.is_some() && !there_folder && options.contents {
            return Err(CopyError::NoFolder(target));
        }
        let new = !to.stat(&target).is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        to.make_folders(&target, 0o755, options.owner, options.time).map_err(failed("mkdir", &target))?;
        let writing = to.folder(&target).map_err(failed("open", &target))?;
        copier.folder(reading.as_fd(), writing.as_fd(), Path::new(""), false)?;
        if new {
            copier.dress(reading.as_fd(), writing.as_fd(), &stat).map_err(failed("set attributes of", &target))?;
        }
        return Ok(());
    }
    let (reading, name) = from.parent(source).map_err(failed("open", source))?;
    let (writing, new_name) = to.parent(&target).map_err(failed("open", &target))?;
    copier.entry(reading.as_fd(), &name, writing.as_fd(), &new_name, &stat, &target)
}

struct Copier<'a> {
    options: &'a CopyOptions,
    /// Files with several names, by device and inode: where the first copy is.
    links: HashMap<(u64, u64), (OwnedFd, OsString)>,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies what is in a folder. `below` tells whether a folder above was taken in by a pattern as a whole.
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: &Path, below: bool) -> Result<(), CopyError> {
        for name in names(from).map_err(failed("list", at))? {
            let path = at.join(&name);
            let text = path.to_string_lossy();
            let stat = look_at(from, &name).map_err(failed("lstat", &path))?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if self.options.exclude.matches(&text) && !(is_folder && self.options.exclude.has_exceptions()) {
                continue;
            }
            let taken = below || self.options.include.is_empty() || self.options.include.matches(&text);
            if !is_folder {
                if taken {
                    self.entry(from, &name, to, &name, &stat, &path)?;
                }
                continue;
            }
            if !taken && !self.holds(from, &name, &path)? {
                continue;
            }
            let reading = open_folder(from, &name).map_err(failed("open", &path))?;
            let writing = self.make_folder(to, &name, &path)?;
            self.folder(reading.as_fd(), writing.as_fd(), &path, taken)?;
            self.dress(reading.as_fd(), writing.as_fd(), &stat).map_err(failed("set attributes of", &path))?;
        }
        Ok(())
    }

    /// Whether anything within a folder is taken by a pattern.
    fn holds(&self, from: BorrowedFd<'_>, name: &OsStr, at: &Path) -> Result<bool, CopyError> {
        let folder = open_folder(from, name).map_err(failed("open", at))?;
        for name in names(folder.as_fd()).map_err(failed("list", at))? {
            let path = at.join(&name);
            let text = path.to_string_lossy();
            if self.options.include.matches(&text) && !self.options.exclude.matches(&text) {
                return Ok(true);
            }
            let stat = look_at(folder.as_fd(), &name).map_err(failed("lstat", &path))?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder && self.holds(folder.as_fd(), &name, &path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn make_folder(&mut self, to: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, CopyError> {
        match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("mkdir", path)(e.into())),
        }
        match open_folder(to, name) {
            Ok(folder) => Ok(folder),
            Err(_) if self.options.replace => {
                wharf_archive::remove_tree(to, name).map_err(failed("remove", path))?;
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o755))
                    .map_err(|e| failed("mkdir", path)(e.into()))?;
                open_folder(to, name).map_err(failed("open", path))
            }
            Err(_) => Err(CopyError::NoFolder(path.to_owned())),
        }
    }

    /// Copies one thing that is no folder; what has the name at the destination is replaced unless it is a folder.
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
        stat: &Stat,
        path: &Path,
    ) -> Result<(), CopyError> {
        if let Ok(there) = look_at(to, new_name) {
            if FileType::from_raw_mode(there.st_mode) == FileType::Directory && !self.options.replace {
                return Err(CopyError::Folder(path.to_owned()));
            }
            wharf_archive::remove_tree(to, new_name).map_err(failed("remove", path))?;
        }
        let several = stat.st_nlink > 1;
        let inode = (stat.st_dev, stat.st_ino);
        if let Some((folder, first)) = self.links.get(&inode).filter(|_| several)
            && rustix::fs::linkat(folder, first.as_os_str(), to, new_name, AtFlags::empty()).is_ok()
        {
            return Ok(());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => self.file(from, name, to, new_name, stat).map_err(failed("copy", path))?,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(|e| failed("read", path)(e.into()))?;
                rustix::fs::symlinkat(target.as_c_str(), to, new_name).map_err(|e| failed("link", path)(e.into()))?;
                self.dress_name(to, new_name, stat, false).map_err(failed("set attributes of", path))?;
            }
            // A socket means nothing without its process.
            FileType::Socket => return Ok(()),
            _ => {
                rustix::fs::mknodat(to, new_name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)
                    .map_err(|e| failed("mknod", path)(e.into()))?;
                self.dress_name(to, new_name, stat, true).map_err(failed("set attributes of", path))?;
            }
        }
        if several && kind == FileType::RegularFile {
            let folder = rustix::io::fcntl_dupfd_cloexec(to, 0).map_err(|e| failed("copy", path)(e.into()))?;
            self.links.insert(inode, (folder, new_name.to_owned()));
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let reading = rustix::fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let writing = rustix::fs::openat(to, new_name, flags, Mode::from_raw_mode(0o600))?;
        self.content(&reading, &writing, stat.st_size.cast_unsigned())?;
        self.attributes(reading.as_fd(), writing.as_fd(), stat, false)
    }

    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            match rustix::fs::copy_file_range(from, None, to, None, usize::try_from(left).unwrap_or(1 << 30)) {
                Ok(0) => break,
                Ok(n) => left -= n as u64,
                // Not between these file systems (copy_file_range(2)).
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => break,
                Err(e) => return Err(e.into()),
            }
        }
        if left == 0 {
            return Ok(());
        }
        self.buffer.resize(128 << 10, 0);
        loop {
            let n = rustix::io::read(from, &mut self.buffer[..])?;
            if n == 0 {
                return Ok(());
            }
            let mut done = 0;
            while done < n {
                done += rustix::io::write(to, &self.buffer[done..n])?;
            }
        }
    }

    fn mode(&self, stat: &Stat, folder: bool) -> u32 {
        self.options.mode.as_ref().map_or(stat.st_mode & 0o7777, |m| m.apply(stat.st_mode, folder))
    }

    fn dress(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        self.attributes(from, to, stat, true)
    }

    fn attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, folder: bool) -> io::Result<()> {
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        rustix::fs::fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // After the owner, whose change clears set-id bits.
        rustix::fs::fchmod(to, Mode::from_raw_mode(self.mode(stat, folder)))?;
        extended(from, to)?;
        Ok(rustix::fs::futimens(to, &self.times(stat))?)
    }

    fn times(&self, stat: &Stat) -> Timestamps {
        let own = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() as _ };
        let time = self.options.time.unwrap_or(own);
        Timestamps { last_access: time, last_modification: time }
    }

    /// Attributes of a link or device, by name.
    fn dress_name(&self, to: BorrowedFd<'_>, name: &OsStr, stat: &Stat, device: bool) -> io::Result<()> {
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if device {
            // Just made in a folder that nobody else writes to.
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(self.mode(stat, false)), AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(to, name, &self.times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn open_folder(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// Copies extended attributes but for overlayfs' own. File systems without them are no error.
fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0; 4096];
    let size = match rustix::fs::flistxattr(from, &mut list[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(size) => size,
        Err(Errno::RANGE) => {
            list.resize(65536, 0);
            rustix::fs::flistxattr(from, &mut list[..])?
        }
        Err(e) => return Err(e.into()),
    };
    for name in list[..size].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"trusted.")) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 65536];
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..size], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The paths that a source with wildcards means, sorted; a path without is itself.
pub fn wildcards(tree: &Tree, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|p| !p.is_empty() && *p != ".") {
        let mut next = Vec::new();
        for folder in found {
            if !wharf_dockerfile::ignore::has_wildcard(part) {
                next.push(folder.join(part));
                continue;
            }
            let Ok(fd) = tree.folder(&folder) else { continue };
            for name in names(fd.as_fd()).unwrap_or_default() {
                if wharf_dockerfile::ignore::go_match(part, &name.to_string_lossy()) == Ok(true) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| tree.look(path).is_some());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn trees() -> (tempfile::TempDir, Tree, Tree) {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["from", "to"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        let tree = |name: &str| Tree::at(&folder.path().join(name)).expect("opens");
        let (from, to) = (tree("from"), tree("to"));
        (folder, from, to)
    }

    #[test]
    fn destinations_are_taken_as_docker_takes_them() {
        let (folder, from, to) = trees();
        let root = folder.path();
        std::fs::create_dir_all(root.join("from/d/e")).expect("made");
        std::fs::write(root.join("from/d/e/f"), "x").expect("written");
        std::fs::write(root.join("from/a"), "y").expect("written");
        let contents = CopyOptions { contents: true, ..CopyOptions::default() };
        copy(&from, Path::new("/a"), &to, "/x/b", &contents).expect("a file gets a new name");
        copy(&from, Path::new("/a"), &to, "/y/", &contents).expect("a file goes into a folder");
        copy(&from, Path::new("/d"), &to, "/z", &contents).expect("a folder's content");
        copy(&from, Path::new("/d"), &to, "/x", &CopyOptions::default()).expect("a folder goes into a folder");
        for path in ["to/x/b", "to/y/a", "to/z/e/f", "to/x/d/e/f"] {
            assert!(root.join(path).exists(), "{path}");
        }
        assert!(copy(&from, Path::new("/d"), &to, "/x/b", &contents).is_err());
    }

    #[test]
    fn links_at_the_destination_stay_inside() {
        let (folder, from, to) = trees();
        std::fs::write(folder.path().join("from/a"), "y").expect("written");
        std::os::unix::fs::symlink("/etc", folder.path().join("to/l")).expect("made");
        copy(&from, Path::new("/a"), &to, "/l/wharf-copied", &CopyOptions::default()).expect("copied");
        assert!(folder.path().join("to/etc/wharf-copied").exists());
        assert!(!Path::new("/etc/wharf-copied").exists());
    }

    #[test]
    fn hard_links_modes_and_patterns_are_kept() {
        let (folder, from, to) = trees();
        let root = folder.path();
        std::fs::write(root.join("from/a"), "y").expect("written");
        std::fs::hard_link(root.join("from/a"), root.join("from/b")).expect("linked");
        std::fs::write(root.join("from/c.md"), "z").expect("written");
        let options = CopyOptions {
            contents: true,
            exclude: Patterns::new(&["*.md"]).expect("valid"),
            mode: Some(ModeChange::parse("u=rwX,go=rX").expect("valid")),
            ..CopyOptions::default()
        };
        copy(&from, Path::new("/"), &to, "/n", &options).expect("copied");
        let meta = |p: &str| std::fs::metadata(root.join(p));
        assert_eq!(meta("to/n/a").expect("there").ino(), meta("to/n/b").expect("there").ino());
        assert_eq!(meta("to/n/a").expect("there").permissions().mode() & 0o777, 0o644);
        assert!(meta("to/n/c.md").is_err());
        assert!(ModeChange::parse("9").is_err() && ModeChange::parse("u?x").is_err());
    }

    #[test]
    fn wildcards_find_what_fits() {
        let (folder, from, _) = trees();
        for name in ["a1", "a2", "b1"] {
            std::fs::create_dir(folder.path().join("from").join(name)).expect("made");
            std::fs::write(folder.path().join("from").join(name).join("f"), "").expect("written");
        }
        let found: Vec<String> = wildcards(&from, "/a*/f").iter().map(|p| p.display().to_string()).collect();
        assert_eq!(found, ["/a1/f", "/a2/f"]);
        assert!(wildcards(&from, "/nope").is_empty());
    }
}
