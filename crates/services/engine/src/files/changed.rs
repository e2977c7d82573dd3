//! What a container changed of its image: by its own layer where layers are stacked, by comparing two trees elsewhere.
//! The rules and the order are moby's (`pkg/archive/changes.go`): a folder that only holds a change is shown as changed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, getxattr, openat, statat};
use rustix::io::Errno;
use wharf_api_types::FilesystemChange;

const MODIFIED: u32 = 0;
const ADDED: u32 = 1;
const DELETED: u32 = 2;

/// What the runtime makes in every container to mount on. Where layers are stacked these are in a layer of their own
/// below; here they are left out by name.
const STUBS: &[&str] = &[
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// Changes by path; a folder above one is marked as well.
#[derive(Default)]
struct Changes(BTreeMap<OsString, u32>);

impl Changes {
    fn add(&mut self, path: &Path, kind: u32) {
        if kind != MODIFIED
            && let Some(parent) = path.parent().filter(|p| *p != Path::new("/"))
        {
            self.0.entry(parent.as_os_str().to_owned()).or_insert(MODIFIED);
        }
        let at = self.0.entry(path.as_os_str().to_owned()).or_insert(kind);
        if kind != MODIFIED {
            *at = kind;
        }
    }

    fn list(self) -> Vec<FilesystemChange> {
        let shown =
            |(path, kind): (OsString, u32)| FilesystemChange { path: path.to_string_lossy().into_owned(), kind };
        self.0.into_iter().map(shown).collect()
    }
}

/// Whether a folder differs only by the time at which stubs were made in it.
fn holds_stubs(path: &Path, old: &Stat, now: &Stat) -> bool {
    let mut aged = *now;
    (aged.st_mtime, aged.st_mtime_nsec) = (old.st_mtime, old.st_mtime_nsec);
    path == Path::new("/etc") && same(old, &aged)
}

fn is_stub(path: &Path) -> bool {
    path.to_str().is_some_and(|p| STUBS.contains(&p))
}

fn open_folder(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn names(folder: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut list = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            list.push(OsString::from_vec(name));
        }
    }
    list.sort_unstable();
    Ok(list)
}

fn same(a: &Stat, b: &Stat) -> bool {
    let time = |s: &Stat| (s.st_mtime, s.st_mtime_nsec);
    (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) == (b.st_mode, b.st_uid, b.st_gid, b.st_rdev)
        && time(a) == time(b)
        && (is_folder(a) || a.st_size == b.st_size)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// overlayfs' mark of something that is not there any more.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let mut value = [0_u8; 8];
    matches!(getxattr(path, "trusted.overlay.opaque", &mut value), Ok(1) if value[0] == b'y')
}

/// A folder of the own layer and the same one in the layers below, nearest first, as far as they have it.
struct Level {
    own: OwnedFd,
    below: Vec<OwnedFd>,
    path: PathBuf,
}

/// Lists what an overlay's upper layer changes of those below it, nearest first.
pub(super) fn in_layer(own: OwnedFd, below: Vec<OwnedFd>) -> io::Result<Vec<FilesystemChange>> {
    let mut changes = Changes::default();
    let mut levels = vec![Level { own, below, path: PathBuf::from("/") }];
    while let Some(level) = levels.pop() {
        for name in names(&level.own)? {
            let path = level.path.join(&name);
            let stat = match statat(&level.own, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // The container runs, and has removed it meanwhile.
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let before = before(&level.below, &name)?;
            if is_whiteout(&stat) {
                if before.is_some() {
                    changes.add(&path, DELETED);
                }
                continue;
            }
            match &before {
                None => changes.add(&path, ADDED),
                Some(old) if is_folder(old) && is_folder(&stat) && same(old, &stat) => {}
                Some(_) => changes.add(&path, MODIFIED),
            }
            if is_folder(&stat) {
                let own = open_folder(&level.own, &name)?;
                let mut inner = Vec::new();
                for layer in &level.below {
                    match statat(layer, &name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(s) if is_folder(&s) => inner.push(open_folder(layer, &name)?),
                        // Something else hides what is further below.
                        Ok(_) => break,
                        Err(Errno::NOENT) => continue,
                        Err(e) => return Err(e.into()),
                    }
                    if inner.last().is_some_and(is_opaque) {
                        break;
                    }
                }
                if is_opaque(&own) {
                    hidden(&inner, &own, &path, &mut changes)?;
                    inner.clear();
                }
                levels.push(Level { own, below: inner, path });
            }
        }
    }
    Ok(changes.list())
}

/// The nearest thing of this name below.
fn before(below: &[OwnedFd], name: &OsStr) -> io::Result<Option<Stat>> {
    for layer in below {
        match statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => return Ok((!is_whiteout(&stat)).then_some(stat)),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

/// What an opaque folder hides of those below it is deleted.
fn hidden(below: &[OwnedFd], own: &OwnedFd, path: &Path, changes: &mut Changes) -> io::Result<()> {
    for layer in below {
        for name in names(layer)? {
            let there = statat(own, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            if !there && before(below, &name)?.is_some() {
                changes.add(&path.join(&name), DELETED);
            }
        }
    }
    Ok(())
}

/// Lists what differs between two whole trees.
pub(super) fn between(before: Option<OwnedFd>, now: OwnedFd) -> io::Result<Vec<FilesystemChange>> {
    let mut changes = Changes::default();
    let mut levels = vec![(before, now, PathBuf::from("/"))];
    while let Some((before, now, folder)) = levels.pop() {
        let old_names = before.as_ref().map(names).transpose()?.unwrap_or_default();
        for name in old_names {
            if matches!(statat(&now, &name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
                changes.add(&folder.join(&name), DELETED);
            }
        }
        for name in names(&now)? {
            let path = folder.join(&name);
            let Ok(stat) = statat(&now, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let old = before.as_ref().and_then(|b| statat(b, &name, AtFlags::SYMLINK_NOFOLLOW).ok());
            if !is_stub(&path) {
                match &old {
                    None => changes.add(&path, ADDED),
                    Some(old) if same(old, &stat) || holds_stubs(&path, old, &stat) => {}
                    Some(_) => changes.add(&path, MODIFIED),
                }
            }
            if is_folder(&stat) {
                let inner = match (&before, &old) {
                    (Some(b), Some(old)) if is_folder(old) => Some(open_folder(b, &name)?),
                    _ => None,
                };
                levels.push((inner, open_folder(&now, &name)?, path));
            }
        }
    }
    Ok(changes.list())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened")
    }

    fn shown(list: &[FilesystemChange]) -> Vec<String> {
        list.iter().map(|c| format!("{} {}", ["C", "A", "D"][c.kind as usize], c.path)).collect()
    }

    #[test]
    fn a_layers_changes_are_told_with_the_folders_that_hold_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (own, low) = (folder.path().join("own"), folder.path().join("low"));
        for name in ["etc", "opq", "kept"] {
            fs::create_dir_all(low.join(name)).expect("made");
            fs::write(low.join(name).join("a"), "1").expect("written");
        }
        fs::create_dir_all(own.join("etc")).expect("made");
        fs::create_dir_all(own.join("opq")).expect("made");
        fs::write(own.join("etc/new"), "").expect("written");
        let whiteout = own.join("etc/a");
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).expect("made");
        rustix::fs::setxattr(own.join("opq"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .expect("set");
        let list = in_layer(open(&own), vec![open(&low)]).expect("read");
        assert_eq!(shown(&list), ["C /etc", "D /etc/a", "A /etc/new", "C /opq", "D /opq/a"]);
    }

    #[test]
    fn two_trees_are_compared_where_there_are_no_layers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::create_dir_all(old.join("d")).expect("made");
        fs::create_dir_all(new.join("d")).expect("made");
        fs::write(old.join("gone"), "").expect("written");
        fs::write(old.join("d/f"), "1").expect("written");
        fs::write(new.join("d/f"), "22").expect("written");
        fs::write(new.join("d/g"), "").expect("written");
        let list = between(Some(open(&old)), open(&new)).expect("read");
        assert_eq!(shown(&list), ["C /d", "C /d/f", "A /d/g", "D /gone"]);
    }
}
