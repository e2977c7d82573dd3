//! A disk of its own for drivers that need a file system: a file behind a loop device, mounted in a namespace of the test's
//! thread, so that it goes with the test however that ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

/// A mounted file system over a folder. Dropped, it leaves the folder as it was.
pub struct Disk(Option<PathBuf>);

/// Bytes of the disk: btrfs needs 109 MiB. The file is sparse.
const SIZE: u64 = 256 << 20;

impl Disk {
    /// What the driver needs below this folder; `None` where this machine cannot make it, which is printed.
    pub fn under(folder: &Path, driver: &str) -> Option<Self> {
        if driver != "btrfs" {
            return Some(Self(None));
        }
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("btrfs");
        if !known && !Command::new("modprobe").arg("btrfs").status().is_ok_and(|s| s.success()) {
            println!("SKIP btrfs: the kernel has none");
            return None;
        }
        wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWNS).expect("unshare");
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private mounts");
        let file = tempfile::Builder::new().prefix("wharf-disk-").tempfile().expect("file");
        File::options().write(true).open(file.path()).and_then(|f| f.set_len(SIZE)).expect("size");
        let made = Command::new("mkfs.btrfs").arg("-q").arg(file.path()).status();
        assert!(made.expect("mkfs.btrfs: install btrfs-progs").success());
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(file.path()).arg(folder).status();
        if !mounted.expect("mount").success() {
            println!("SKIP btrfs: no loop device can be mounted here");
            return None;
        }
        Some(Self(Some(folder.to_owned())))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            // Lazily: threads that empty the trash may still look into it. The namespace goes with this process.
            let _ = unmount(&folder, UnmountFlags::DETACH);
        }
    }
}
