//! Digests of what an operation reads of a tree: names, kinds, modes, owners, links and content, not times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use wharf_dockerfile::ignore::Patterns;
use wharf_solver::Hasher;

use crate::copy::wildcards;
use crate::tree::{Tree, look_at, names};

/// Looks a file's digest up that is known already.
pub type Known<'a> = &'a dyn Fn(&Path, &Stat) -> Option<[u8; 32]>;

/// What is read of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// A path, with wildcards if `wild`.
    pub path: String,
    /// Whether it has wildcards.
    pub wild: bool,
    /// Whether a link in its last place is followed.
    pub follow: bool,
    /// Only what fits.
    pub include: Vec<String>,
    /// Not what fits.
    pub exclude: Vec<String>,
}

/// The digest of a selection.
///
/// # Errors
/// The tree cannot be read; a pattern is malformed.
pub fn digest(tree: &Tree, selection: &Selection, known: Known<'_>) -> io::Result<String> {
    let wrong = |e: String| io::Error::new(io::ErrorKind::InvalidInput, e);
    let mut walk = Walk {
        hasher: Hasher::default(),
        include: Patterns::new(&selection.include).map_err(wrong)?,
        exclude: Patterns::new(&selection.exclude).map_err(wrong)?,
        known,
    };
    let paths = if selection.wild {
        wildcards(tree, &selection.path)
    } else {
        vec![Path::new("/").join(selection.path.trim_start_matches('/'))]
    };
    for path in paths {
        let path = if selection.follow { tree.follow(&path) } else { path };
        let Some(stat) = tree.look(&path) else { continue };
        // A single file's own name is part of what is copied.
        walk.hasher.part(path.file_name().unwrap_or_default().as_bytes());
        walk.header(&stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let folder = tree.folder(&path)?;
            walk.folder(folder.as_fd(), Path::new(""), &path)?;
        } else {
            let (folder, name) = tree.parent(&path)?;
            walk.entry(folder.as_fd(), &name, &stat, &path)?;
        }
    }
    Ok(walk.hasher.finish())
}

struct Walk<'a> {
    hasher: Hasher,
    include: Patterns,
    exclude: Patterns,
    known: Known<'a>,
}

impl Walk<'_> {
    fn header(&mut self, stat: &Stat) {
        for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
            self.hasher.raw(&number.to_le_bytes());
        }
    }

    fn folder(&mut self, folder: BorrowedFd<'_>, at: &Path, whole: &Path) -> io::Result<()> {
        for name in names(folder)? {
            let path = at.join(&name);
            let text = path.to_string_lossy();
            let stat = look_at(folder, &name)?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if self.exclude.matches(&text) && !(is_folder && self.exclude.has_exceptions()) {
                continue;
            }
            if is_folder {
                // Folders count with their content only where patterns choose, because they are made as needed.
                if self.include.is_empty() || self.include.matches(&text) {
                    self.hasher.part(path.as_os_str().as_bytes());
                    self.header(&stat);
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let inner = rustix::fs::openat(folder, &name, flags, Mode::empty())?;
                self.folder(inner.as_fd(), &path, whole)?;
            } else if self.include.is_empty() || self.include.matches(&text) {
                self.hasher.part(path.as_os_str().as_bytes());
                self.header(&stat);
                self.entry(folder, &name, &stat, &whole.join(&path))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &std::ffi::OsStr, stat: &Stat, path: &Path) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let digest = match (self.known)(path, stat) {
                    Some(digest) => digest,
                    None => file(folder, name)?,
                };
                self.hasher.raw(&digest);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                self.hasher.part(target.to_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.hasher.raw(&stat.st_rdev.to_le_bytes());
            }
            _ => {}
        }
        Ok(())
    }
}

fn file(folder: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<[u8; 32]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = rustix::io::read(&fd, &mut buffer[..])?;
        if n == 0 {
            break;
        }
        context.update(&buffer[..n]);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_follow_content_and_modes_but_not_times() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        std::fs::create_dir(root.join("d")).expect("made");
        std::fs::write(root.join("d/a"), "1").expect("written");
        std::fs::write(root.join("d/b.md"), "2").expect("written");
        let tree = Tree::at(root).expect("opens");
        let select = |exclude: &[&str]| Selection {
            path: "/d".to_owned(),
            exclude: exclude.iter().map(|e| (*e).to_owned()).collect(),
            ..Selection::default()
        };
        let none: Known<'_> = &|_, _| None;
        let first = digest(&tree, &select(&[]), none).expect("reads");
        let time = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::open(root.join("d/a")).expect("opens").set_modified(time).expect("set");
        assert_eq!(digest(&tree, &select(&[]), none).expect("reads"), first);
        let without = digest(&tree, &select(&["*.md"]), none).expect("reads");
        std::fs::write(root.join("d/b.md"), "3").expect("written");
        assert_ne!(digest(&tree, &select(&[]), none).expect("reads"), first);
        assert_eq!(digest(&tree, &select(&["*.md"]), none).expect("reads"), without);
        std::fs::set_permissions(root.join("d/a"), std::fs::Permissions::from_mode(0o700)).expect("set");
        assert_ne!(digest(&tree, &select(&["*.md"]), none).expect("reads"), without);
    }
}
