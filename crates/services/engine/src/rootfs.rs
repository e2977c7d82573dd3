//! Looking into a container's root file system from outside, without mounting it anywhere: through a detached mount
//! or the layer directories themselves. Every path is resolved beneath the root's descriptor.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use wharf_types::Mount;

/// Most bytes of a file that is read whole (passwd, group): CVE-2026-47262 made an engine read without end.
const WHOLE: u64 = 8 << 20;

/// A root file system that can be read.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the tree that these mounts would make, read-only. A writable upper layer is read as the topmost layer,
    /// so the tree must not be mounted for writing at the same time.
    pub fn of_mounts(mounts: &[Mount]) -> Result<Root, Errno> {
        let Some(mount) = mounts.first() else { return Err(Errno::INVAL) };
        if mount.kind != "overlay" {
            return Ok(Root(folder(Path::new(&mount.source))?));
        }
        let value = |key: &str| mount.options.iter().find_map(|o| o.strip_prefix(key));
        let upper = value("upperdir=").into_iter();
        let lowers = value("lowerdir=").into_iter().flat_map(|l| l.split(':'));
        let layers: Vec<OwnedFd> = upper.chain(lowers).map(|p| folder(Path::new(p))).collect::<Result<_, _>>()?;
        wharf_snapshot::stack(&layers).map(Root)
    }

    /// Takes an opened tree.
    pub(crate) fn of_folder(folder: OwnedFd) -> Root {
        Root(folder)
    }

    /// Opens the tree that a running process sees.
    pub fn of_process(pid: u32) -> Result<Root, Errno> {
        Ok(Root(folder(Path::new(&format!("/proc/{pid}/root")))?))
    }

    /// Whether nothing is at a path, nor on the way to it a link or a file.
    pub fn is_free(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let plain = inside() | ResolveFlags::NO_SYMLINKS;
        matches!(openat2(&self.0, path, flags, Mode::empty(), plain), Err(Errno::NOENT))
    }

    /// Opens a path inside for reading; links are followed, but never out of the root.
    pub fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        // Not blocking: the path may be a FIFO (CVE-2024-9676).
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        openat2(&self.0, path.trim_start_matches('/'), flags, Mode::empty(), inside())
    }

    /// Reads a regular file whole; `None` if there is none or it is no regular file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let fd = self.open(path).ok()?;
        if FileType::from_raw_mode(fstat(&fd).ok()?.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(WHOLE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn folder(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[(&str, &str)]) -> (tempfile::TempDir, Vec<Mount>) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut lower = Vec::new();
        for (i, (name, text)) in names.iter().enumerate() {
            let path = folder.path().join(i.to_string());
            std::fs::create_dir_all(path.join("etc")).expect("made");
            std::fs::write(path.join("etc").join(name), text).expect("written");
            lower.push(path.display().to_string());
        }
        let option = format!("lowerdir={}", lower.join(":"));
        let mount = Mount { kind: "overlay".to_owned(), options: vec![option], ..Mount::default() };
        (folder, vec![mount])
    }

    #[test]
    fn layers_are_read_as_one_tree_with_the_nearest_on_top() {
        let (_folder, mounts) = layers(&[("a", "upper"), ("a", "lower")]);
        let root = Root::of_mounts(&mounts).expect("opened");
        assert_eq!(root.read("/etc/a").as_deref(), Some(b"upper".as_slice()));
        assert_eq!(root.read("/etc/nosuch"), None);
    }

    #[test]
    fn cve_2024_9676_a_fifo_or_a_device_in_place_of_passwd_does_not_hang_or_read() {
        let (folder, mounts) = layers(&[("a", "x")]);
        let fifo = folder.path().join("0/etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("made");
        assert_eq!(Root::of_mounts(&mounts).expect("opened").read("/etc/passwd"), None);
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("0/etc/group")).expect("made");
        assert_eq!(Root::of_mounts(&mounts).expect("opened").read("/etc/group"), None);
    }

    #[test]
    fn cve_2019_10152_links_are_resolved_inside_the_root() {
        let (folder, mounts) = layers(&[("a", "inside")]);
        std::os::unix::fs::symlink("/etc/a", folder.path().join("0/link")).expect("made");
        std::os::unix::fs::symlink("../../../../../../etc/a", folder.path().join("0/up")).expect("made");
        let root = Root::of_mounts(&mounts).expect("opened");
        assert_eq!(root.read("/link").as_deref(), Some(b"inside".as_slice()));
        assert_eq!(root.read("/up").as_deref(), Some(b"inside".as_slice()));
    }
}
