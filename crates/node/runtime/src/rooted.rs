//! Paths beneath a container's root, resolved by descriptors only.
//!
//! A path of the configuration is hostile: an image can put symbolic links anywhere, and with shared volumes another
//! container can change them meanwhile. [`Root`] resolves it with openat2(2) and `RESOLVE_IN_ROOT`, so that no link leads
//! outside, and hands out `O_PATH` descriptors. Where openat2 is denied (older sandboxes' seccomp profiles), it walks component by
//! component.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawMode, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};

use crate::weaken::is_dropped;

/// A container's root folder.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

/// What is made where the path ends and nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing: the error is returned.
    Fail,
    /// A folder, mode 0755 as runc makes it.
    Folder,
    /// An empty file, mode 0755 as runc makes it.
    File,
}

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: u32 = 40;

impl Root {
    /// Takes a folder as root.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens what `path` leads to, as `O_PATH`; links are followed within the root.
    pub(crate) fn open(&self, path: &Path) -> Result<OwnedFd> {
        self.open_with(path, OFlags::PATH)
    }

    /// Opens what `path` leads to with the given flags (close-on-exec is added).
    pub(crate) fn open_with(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        match self.open_at_once(path, flags, ResolveFlags::empty()) {
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, Missing::Fail).and_then(|fd| reopen(&fd, flags)),
            other => other,
        }
    }

    /// Opens the folder at `path` if no component of it is a symbolic link.
    ///
    /// Errors: `ELOOP` for a link.
    pub(crate) fn open_without_links(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_at_once(path, flags, ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS | Errno::PERM) => {
                let mut at = self.duplicate()?;
                for part in path.components() {
                    match part {
                        Component::Normal(name) => {
                            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                            at = openat(&at, name, flags, Mode::empty()).map_err(|e| match e {
                                Errno::NOTDIR => Errno::LOOP,
                                e => e,
                            })?;
                        }
                        Component::ParentDir => return Err(Errno::INVAL),
                        _ => {}
                    }
                }
                Ok(at)
            }
            other => other,
        }
    }

    /// Opens what `path` names; if that is a link, the link itself.
    pub(crate) fn open_without_final_link(&self, path: &Path) -> Result<OwnedFd> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let folder = self.open(path.parent().unwrap_or(Path::new("/")))?;
        openat(&folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    fn open_at_once(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd> {
        if is_dropped("openat2") {
            return Err(Errno::NOSYS);
        }
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let mut path = path;
        if is_dropped("beneath") {
            resolve = more;
            path = path.strip_prefix("/").unwrap_or(path);
            if path.as_os_str().is_empty() {
                path = Path::new(".");
            }
        }
        // EAGAIN: something on the way was renamed while a ".." was resolved.
        for _ in 0..64 {
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens what `path` leads to and makes what is missing: folders on the way, and at its end what `missing` says.
    pub(crate) fn make(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::NOENT) => self.walk(path, missing),
            other => other,
        }
    }

    /// Opens the folder that holds the last component (made if missing) and returns that component's name.
    ///
    /// Errors: `EINVAL` where the path ends in no name.
    pub(crate) fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let folder = self.make(path.parent().unwrap_or(Path::new("/")), Missing::Folder)?;
        Ok((folder, name))
    }

    fn duplicate(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
    }

    /// Resolves component by component. The folders passed are kept on a stack, so that `..` goes back to where we came
    /// from instead of asking the file system, and never above the root.
    fn walk(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        let mut rest = reversed(path);
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                stack.pop();
                continue;
            }
            let here = stack.last().unwrap_or(&self.fd).as_fd();
            let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            flags.set(OFlags::NOFOLLOW, !is_dropped("beneath"));
            let next = match openat(here, &part, flags, Mode::empty()) {
                Err(Errno::NOENT) if missing != Missing::Fail => {
                    let folder = !rest.is_empty() || missing == Missing::Folder;
                    create(here, &part, folder)?;
                    openat(here, &part, flags, Mode::empty())?
                }
                other => other?,
            };
            if file_type(next.as_fd())? != FileType::Symlink {
                stack.push(next);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                stack.clear();
            }
            rest.extend(reversed(&target));
        }
        match stack.pop() {
            Some(fd) => Ok(fd),
            None => self.duplicate(),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The components that name something, last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

fn create(folder: BorrowedFd<'_>, name: &OsString, is_folder: bool) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    let made = if is_folder {
        rustix::fs::mkdirat(folder, name, mode)
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(folder, name, flags, mode).map(drop)
    };
    match made {
        // Someone else was quicker; what is there now is looked at by the caller.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The kind of file behind a descriptor.
pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode as RawMode))
}

/// Opens an `O_PATH` descriptor's file for use. The host's /proc must be at `/proc`.
fn reopen(fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    if flags.contains(OFlags::PATH) {
        return rustix::io::fcntl_dupfd_cloexec(fd, 0);
    }
    rustix::fs::open(magic(fd.as_fd()), flags | OFlags::CLOEXEC, Mode::empty())
}

/// A name for a descriptor that calls which take paths understand, in namespaces that see the host's /proc.
pub(crate) fn magic(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("folder");
        let fd = openat(CWD, dir.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        (dir, Root::new(fd.expect("open")))
    }

    /// Both ways of resolving must agree.
    fn both(root: &Root, path: &str) -> Result<u64> {
        let path = Path::new(path);
        let quick = root.open(path).map(|fd| rustix::fs::fstat(&fd).expect("stat").st_ino);
        let walked = root.walk(path, Missing::Fail).map(|fd| rustix::fs::fstat(&fd).expect("stat").st_ino);
        assert_eq!(quick, walked, "{path:?}");
        quick
    }

    #[test]
    fn links_and_parents_stay_inside() {
        let (dir, root) = root();
        std::fs::create_dir_all(dir.path().join("etc/deep")).expect("folders");
        std::fs::write(dir.path().join("etc/passwd"), "inside").expect("file");
        symlink("/etc", dir.path().join("absolute")).expect("link");
        symlink("../../../../../../etc", dir.path().join("etc/deep/up")).expect("link");
        symlink("loop", dir.path().join("loop")).expect("link");
        let inside =
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(dir.path().join("etc/passwd")).expect("stat"));
        for path in ["/absolute/passwd", "etc/deep/up/passwd", "/../../../etc/passwd", "/etc/deep/../passwd"] {
            assert_eq!(both(&root, path), Ok(inside), "{path}");
        }
        assert_eq!(both(&root, "/loop"), Err(Errno::LOOP));
        assert_eq!(both(&root, "/etc/shadow"), Err(Errno::NOENT));
        assert_eq!(root.open_without_links(Path::new("/absolute")).err(), Some(Errno::LOOP));
    }

    #[test]
    fn cve_2024_45310_what_is_missing_is_made_inside_also_behind_a_dangling_link() {
        let (dir, root) = root();
        let outside = tempfile::tempdir().expect("folder");
        let target = outside.path().join("made");
        symlink(&target, dir.path().join("run")).expect("link");
        root.make(Path::new("/run/a/file"), Missing::File).expect("made");
        assert!(!target.exists());
        let inside = dir.path().join(target.strip_prefix("/").expect("absolute")).join("a/file");
        assert!(inside.is_file(), "{inside:?}");
    }

    /// Resolves below a folder that another thread keeps swapping for a link that leads outside, until both have done so many rounds.
    fn race(rounds: u32, resolve: impl Fn(&Root, &Path, Missing) -> Result<OwnedFd>) {
        let (dir, root) = root();
        let outside = tempfile::tempdir().expect("folder");
        std::fs::write(outside.path().join("x"), "outside").expect("file");
        let ino = |fd: &OwnedFd| rustix::fs::fstat(fd).expect("stat").st_ino;
        let forbidden = |name: &str| {
            let path = outside.path().join(name);
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("stat"))
        };
        let (outside_folder, outside_file) = (forbidden("."), forbidden("x"));
        let (place, spare) = (dir.path().join("volume"), dir.path().join("spare"));
        std::fs::create_dir(&place).expect("folder");
        symlink(outside.path(), &spare).expect("link");
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = over.clone();
        let swaps = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = swaps.clone();
        let swapper = std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if rustix::fs::renameat_with(CWD, &place, CWD, &spare, rustix::fs::RenameFlags::EXCHANGE).is_ok() {
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        let mut round = 0;
        while round < rounds || swaps.load(std::sync::atomic::Ordering::Relaxed) < rounds {
            round += 1;
            let below = format!("/volume/sub{}", round % 8);
            if let Ok(fd) = resolve(&root, Path::new(&below), Missing::Folder) {
                assert_eq!(file_type(fd.as_fd()), Ok(FileType::Directory));
            }
            for path in ["/volume", "/volume/x"] {
                if let Ok(fd) = resolve(&root, Path::new(path), Missing::Fail) {
                    assert!(![outside_folder, outside_file].contains(&ino(&fd)), "{path} led outside");
                }
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().expect("joined");
        let made: Vec<_> =
            std::fs::read_dir(outside.path()).expect("folder").flatten().map(|e| e.file_name()).collect();
        assert_eq!(made, ["x"], "something was made outside");
    }

    fn rounds() -> u32 {
        if std::env::var_os("WHARF_LONG").is_some() { 20_000 } else { 3_000 }
    }

    #[test]
    fn cve_2021_30465_a_folder_swapped_for_a_link_is_never_followed_outside() {
        race(rounds(), |root, path, missing| match missing {
            Missing::Fail => root.open(path),
            missing => root.make(path, missing),
        });
    }

    #[test]
    fn cve_2021_30465_nor_where_openat2_is_denied() {
        race(rounds(), Root::walk);
    }
}
