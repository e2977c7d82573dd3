//! Work on one tree of files: every path is resolved beneath its root, as if the root were `/`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps, Uid, openat2,
};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use wharf_types::Mount;

/// Owner of what is made.
pub type Owner = Option<(u32, u32)>;

/// A tree.
#[derive(Debug)]
pub struct Tree(OwnedFd);

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn relative(path: &Path) -> PathBuf {
    let rest: PathBuf =
        path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
    if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest }
}

impl Tree {
    /// Takes a folder as root.
    pub fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Opens a folder of the host that belongs to the engine.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Mounts what a snapshot says, seen by nobody else; it ends with its descriptor.
    ///
    /// # Errors
    /// Those of the mount calls.
    pub fn mount(mounts: &[Mount]) -> io::Result<Self> {
        let Some(mount) = mounts.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
        if mount.kind == "bind" {
            return Self::at(Path::new(&mount.source));
        }
        let context = rustix::mount::fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        // Held until the mount is made: long paths are given as descriptors.
        let mut held: Vec<OwnedFd> = Vec::new();
        for option in &mount.options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "lowerdir" => lower_layers(&context, value, &mut held)?,
                "upperdir" | "workdir" => {
                    let value = short(value, &mut held)?;
                    rustix::mount::fsconfig_set_string(&context, key, value)?;
                }
                _ if value.is_empty() => rustix::mount::fsconfig_set_flag(&context, key)?,
                _ => rustix::mount::fsconfig_set_string(&context, key, value)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        let fd = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self(fd))
    }

    /// The root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a path; links are followed, but never out of the tree.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        // Not blocking: the path may be a FIFO (CVE-2024-9676).
        let mut flags = flags | OFlags::CLOEXEC;
        if !flags.contains(OFlags::PATH) {
            // openat2(2) refuses these together with O_PATH, which open(2) ignores.
            flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        }
        loop {
            match openat2(&self.0, relative(path), flags, Mode::empty(), inside()) {
                // A rename elsewhere made the lookup uncertain (openat2(2)).
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Looks at a path without following a link in its last place.
    pub fn look(&self, path: &Path) -> Option<Stat> {
        let fd = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        rustix::fs::fstat(fd).ok()
    }

    /// Looks at what a path leads to.
    pub fn stat(&self, path: &Path) -> Option<Stat> {
        rustix::fs::fstat(self.open(path, OFlags::PATH).ok()?).ok()
    }

    /// Where a path leads when links are followed, as a path in the tree. What is not there yet is appended as it is.
    pub fn follow(&self, path: &Path) -> PathBuf {
        let mut done = PathBuf::from("/");
        let mut links = 0;
        let mut waiting: Vec<std::ffi::OsString> = components(path);
        waiting.reverse();
        while let Some(name) = waiting.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            let link = self.look(&next).filter(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink);
            match link.and_then(|_| self.read_link(&next).ok()) {
                Some(target) if links < 40 => {
                    links += 1;
                    if target.is_absolute() {
                        done = PathBuf::from("/");
                    }
                    waiting.extend(components(&target).into_iter().rev());
                }
                _ => done = next,
            }
        }
        done
    }

    /// Reads a link.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let fd = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// Those of open(2) and read(2); too large; no regular file.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let fd = self.open(path, OFlags::RDONLY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// Makes a folder and those above it that are missing; returns whether it was made.
    ///
    /// # Errors
    /// Those of mkdirat(2); something else is in the way.
    pub fn make_folders(&self, path: &Path, mode: RawMode, owner: Owner, time: Option<Timespec>) -> io::Result<bool> {
        let whole = self.follow(path);
        let mut made = false;
        let mut at = PathBuf::from("/");
        let mut folder = self.folder(&at)?;
        for name in components(&whole) {
            at.push(&name);
            folder = match self.folder(&at) {
                Ok(next) => next,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&folder, &name, Mode::from_raw_mode(0o700))?;
                    let next = self.folder(&at)?;
                    rustix::fs::fchmod(&next, Mode::from_raw_mode(mode))?;
                    if let Some((uid, gid)) = owner {
                        rustix::fs::fchown(&next, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                    }
                    if let Some(time) = time {
                        set_times(next.as_fd(), time)?;
                    }
                    made = true;
                    next
                }
                Err(e) => return Err(e),
            };
        }
        drop(folder);
        Ok(made)
    }

    /// Opens the folder that a path is in, with the path's last name. Links above it are followed.
    ///
    /// # Errors
    /// Those of openat2(2); the path is the root.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, std::ffi::OsString)> {
        let mut names = components(path);
        let name = names.pop().filter(|n| n != "..").ok_or(io::ErrorKind::InvalidInput)?;
        let above: PathBuf = std::iter::once(std::ffi::OsString::from("/")).chain(names).collect();
        Ok((self.folder(&above)?, name))
    }

    /// Removes a path with everything in it; a link is removed itself.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        wharf_archive::remove_tree(folder.as_fd(), &name)
    }
}

/// The names of a path.
pub fn components(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

/// Sets both times of an open file.
///
/// # Errors
/// Those of utimensat(2).
pub fn set_times(fd: BorrowedFd<'_>, time: Timespec) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &Timestamps { last_access: time, last_modification: time })?)
}

/// The names in a folder, sorted.
///
/// # Errors
/// Those of getdents64(2).
pub fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Looks at a name in a folder without following a link.
///
/// # Errors
/// Those of statx(2).
pub fn look_at(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The path as option text: by descriptor where it is too long (256 bytes, fs_context.c).
fn short(path: &str, held: &mut Vec<OwnedFd>) -> io::Result<String> {
    if path.len() < 200 {
        return Ok(path.to_owned());
    }
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let text = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(text)
}

fn lower_layers(context: &OwnedFd, value: &str, held: &mut Vec<OwnedFd>) -> io::Result<()> {
    let all = value.split(':').map(|p| short(p, held)).collect::<io::Result<Vec<_>>>()?;
    // `lowerdir+` is of Linux 6.5; before, one option holds them all.
    if all.iter().try_for_each(|p| rustix::mount::fsconfig_set_string(context, "lowerdir+", p)).is_ok() {
        return Ok(());
    }
    let mut joined = all.join(":");
    if joined.len() > 255 {
        let open = |p: &str| rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let fds = value.split(':').map(open).collect::<Result<Vec<_>, _>>()?;
        joined = fds.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect::<Vec<_>>().join(":");
        held.extend(fds);
    }
    Ok(rustix::mount::fsconfig_set_string(context, "lowerdir", joined)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().expect("folder");
        let tree = Tree::at(folder.path()).expect("opens");
        (folder, tree)
    }

    #[test]
    fn links_lead_nowhere_but_into_the_tree() {
        let (folder, tree) = tree();
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).expect("made");
        std::os::unix::fs::symlink("../../../..", folder.path().join("up")).expect("made");
        assert_eq!(tree.follow(Path::new("/out/passwd")), Path::new("/etc/passwd"));
        assert!(tree.stat(Path::new("/out/passwd")).is_none());
        assert!(tree.stat(Path::new("/up/out")).is_none());
        tree.make_folders(Path::new("/out/a/b"), 0o755, None, None).expect("made");
        assert!(folder.path().join("etc/a/b").is_dir());
        assert!(!Path::new("/etc/a/b").exists());
    }

    #[test]
    fn removing_a_link_leaves_what_it_leads_to() {
        let (folder, tree) = tree();
        std::fs::create_dir(folder.path().join("d")).expect("made");
        std::os::unix::fs::symlink("d", folder.path().join("l")).expect("made");
        tree.remove(Path::new("/l")).expect("removed");
        assert!(folder.path().join("d").is_dir());
    }
}
