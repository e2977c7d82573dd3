//! A tree in which untrusted paths are resolved: no path leaves it, whatever links it goes through.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Links that one path may go through, as in the kernel (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// A directory that is the root of every path opened through it: absolute paths and links start there and `..` stops
/// there, as if it were the root of a mount namespace.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Set once openat2(2) turned out to be missing or denied (seccomp profiles older than Linux 5.6).
    walk: AtomicBool,
}

impl Root {
    /// Takes an open directory as root.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, walk: AtomicBool::new(false) }
    }

    /// Opens a directory of the host as root, following links: its path is the engine's own.
    ///
    /// # Errors
    /// What open(2) gives.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a path beneath the root; links in it are followed beneath the root, and the last part too unless the
    /// flags have `NOFOLLOW`. Descriptors are close-on-exec.
    ///
    /// # Errors
    /// What openat2(2) gives; `ELOOP` after too many links.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if !self.walk.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            loop {
                match openat2(&self.fd, path, flags, mode, resolve) {
                    Ok(fd) => return Ok(fd),
                    // A rename elsewhere raced with a `..` of ours (openat2(2), EAGAIN).
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::NOSYS | Errno::PERM) if !flags.contains(OFlags::CREATE) => break,
                    Err(e) => return Err(e.into()),
                }
            }
            self.walk.store(true, Ordering::Relaxed);
        }
        Ok(self.open_by_walk(path, flags, mode)?)
    }

    /// Opens a directory beneath the root to make or look up entries in.
    ///
    /// # Errors
    /// As [`Root::open`]; `ENOTDIR`.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// The same without openat2(2): one component at a time, never following a link by the kernel.
    fn open_by_walk(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The directories from the root to where the walk is: `..` goes back to one that was really gone through.
        let mut trail = vec![fcntl_dupfd_cloexec(&self.fd, 0)?];
        let mut rest: VecDeque<PathBuf> = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == Path::new("/") {
                trail.truncate(1);
                continue;
            }
            if part == Path::new("..") {
                trail.truncate(1.max(trail.len() - 1));
                continue;
            }
            let here = trail.last().ok_or(Errno::INVAL)?.as_fd();
            let last = rest.is_empty();
            match statat(here, &part, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_link(&stat) && !(last && flags.contains(OFlags::NOFOLLOW)) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(here, &part, Vec::new())?;
                    let mut more = parts(Path::new(OsStr::from_bytes(target.to_bytes())));
                    more.append(&mut rest);
                    rest = more;
                }
                Ok(_) if !last => trail.push(openat(here, &part, step | OFlags::DIRECTORY, Mode::empty())?),
                // NOFOLLOW because what was looked at may be a link by now.
                Ok(_) => return openat(here, &part, flags | OFlags::NOFOLLOW, mode),
                Err(Errno::NOENT) if last && flags.contains(OFlags::CREATE) => {
                    return openat(here, &part, flags | OFlags::NOFOLLOW, mode);
                }
                Err(e) => return Err(e),
            }
        }
        openat(trail.last().ok_or(Errno::INVAL)?.as_fd(), ".", flags, mode)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_link(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink
}

fn parts(path: &Path) -> VecDeque<PathBuf> {
    path.components()
        .filter_map(|part| match part {
            Component::RootDir => Some(PathBuf::from("/")),
            Component::ParentDir => Some(PathBuf::from("..")),
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::fstat;

    use super::*;

    fn read(root: &Root, path: &str) -> io::Result<String> {
        use std::io::Read;
        let fd = root.open(Path::new(path), OFlags::RDONLY, Mode::empty())?;
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text)?;
        Ok(text)
    }

    fn tree() -> (tempfile::TempDir, [Root; 2]) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/b")).expect("folders");
        fs::write(folder.path().join("secret"), "outside").expect("file");
        fs::write(root.join("secret"), "inside").expect("file");
        fs::write(root.join("a/b/f"), "f").expect("file");
        for (target, link) in [
            ("/secret", "absolute"),
            ("../../../../secret", "a/climbing"),
            ("/a/b", "short"),
            ("loop", "loop"),
            ("/proc/self/root/secret", "magic"),
        ] {
            symlink(target, root.join(link)).expect("link");
        }
        let roots = [Root::at(&root).expect("root"), Root::at(&root).expect("root")];
        roots[1].walk.store(true, Ordering::Relaxed);
        (folder, roots)
    }

    #[test]
    fn links_and_dots_stay_beneath_the_root_with_and_without_openat2() {
        let (_folder, roots) = tree();
        for root in &roots {
            for path in ["secret", "/secret", "absolute", "a/climbing", "../../secret", "a/b/../../../secret"] {
                assert_eq!(read(root, path).expect(path), "inside", "{path}");
            }
            assert_eq!(read(root, "short/f").expect("through a link"), "f");
        }
    }

    #[test]
    fn loops_missing_files_and_foreign_roots_give_errors() {
        let (_folder, roots) = tree();
        for root in &roots {
            assert_eq!(read(root, "loop").expect_err("loop").raw_os_error(), Some(Errno::LOOP.raw_os_error()));
            assert_eq!(read(root, "none").expect_err("none").kind(), io::ErrorKind::NotFound);
            assert_eq!(read(root, "magic").expect_err("no /proc inside").kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn the_last_link_is_opened_itself_if_not_to_be_followed() {
        let (_folder, roots) = tree();
        for root in &roots {
            let fd = root.open(Path::new("absolute"), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).expect("link");
            assert!(is_link(&fstat(fd).expect("stat")));
        }
    }
}
