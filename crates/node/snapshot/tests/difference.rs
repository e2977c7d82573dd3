//! The difference of a snapshot, on every driver: as a list and as a layer that makes the same tree again.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use wharf_archive::{ChangeKind, extract, pack};
use wharf_snapshot::{Snapshot, Snapshotter, Trash};

mod disk;

struct Stage {
    _disk: disk::Disk,
    folder: tempfile::TempDir,
    driver: Arc<dyn Snapshotter>,
}

impl Stage {
    fn new(name: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("wharf-difference-").tempdir().expect("temporary folder");
        let disk = disk::Disk::under(folder.path(), name)?;
        let trash = Arc::new(Trash::open(folder.path()).expect("trash"));
        let driver = wharf_snapshot::open(folder.path(), Some(name), trash).expect("driver");
        Some(Self { _disk: disk, folder, driver })
    }

    /// Makes a snapshot whose tree is `change`d as a container would, through its mounts, in a namespace of its own.
    fn changed(&self, parent: Option<&Snapshot>, change: impl FnOnce(&Path) + Send) -> Snapshot {
        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
        let snapshot = self.driver.prepare(parent).expect("prepared");
        let mounts = self.driver.mounts(&snapshot, false).expect("mounts");
        let root = self.folder.path().join("mounted");
        fs::create_dir_all(&root).expect("mount point");
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWNS).expect("unshare");
                mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private");
                for m in &mounts {
                    let data = std::ffi::CString::new(m.options.join(",")).expect("options");
                    match m.kind.as_str() {
                        "bind" => mount(&m.source, &root, "", MountFlags::BIND, None).expect("bind mount"),
                        _ => mount(&m.source, &root, &m.kind, MountFlags::empty(), data.as_c_str()).expect("mount"),
                    }
                }
                change(&root);
                unmount(&root, UnmountFlags::empty()).expect("unmounted");
            });
            work.join().expect("the mounting thread");
        });
        snapshot
    }

    fn layer(&self, snapshot: &Snapshot) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.driver.difference(snapshot).expect("difference").pack(&mut bytes).expect("packed");
        bytes
    }

    fn unpacked(&self, parent: Option<&Snapshot>, layer: &[u8]) -> Snapshot {
        let snapshot = self.driver.prepare(parent).expect("prepared");
        let target = self.driver.target(&snapshot).expect("target");
        extract(&mut &*layer, target.root, &target.parents, target.whiteouts).expect("extracted");
        self.driver.commit(snapshot).expect("committed")
    }

    fn tree(&self, snapshot: &Snapshot) -> Vec<u8> {
        let view = self.driver.view(snapshot).expect("view");
        let mut bytes = Vec::new();
        pack(view.as_fd(), &mut bytes).expect("packed");
        bytes
    }
}

fn low(root: &Path) {
    for folder in ["kept/deep", "replaced", "gone", "emptied", "quiet", "etc", "times"] {
        fs::create_dir_all(root.join(folder)).expect("folder");
    }
    for file in ["kept/deep/a", "kept/b", "replaced/old", "gone/x", "emptied/y", "quiet/q", "removed", "becomes-folder"]
    {
        fs::write(root.join(file), file).expect("file");
    }
    symlink("kept", root.join("link")).expect("link");
}

fn change(root: &Path) {
    fs::write(root.join("kept/deep/a"), "changed").expect("write");
    fs::remove_file(root.join("removed")).expect("remove");
    fs::remove_dir_all(root.join("gone")).expect("remove");
    fs::remove_dir_all(root.join("replaced")).expect("remove");
    fs::create_dir(root.join("replaced")).expect("again");
    fs::write(root.join("replaced/new"), "new").expect("write");
    fs::remove_file(root.join("emptied/y")).expect("remove");
    fs::remove_file(root.join("becomes-folder")).expect("remove");
    fs::create_dir(root.join("becomes-folder")).expect("folder");
    fs::create_dir_all(root.join("fresh/folder")).expect("folder");
    fs::write(root.join("fresh/folder/file"), vec![7; 300_000]).expect("write");
    fs::hard_link(root.join("fresh/folder/file"), root.join("fresh/second")).expect("link");
    fs::set_permissions(root.join("fresh/folder/file"), fs::Permissions::from_mode(0o6755)).expect("mode");
    chown(root.join("fresh/folder"), Some(1234), Some(70_000)).expect("owner");
    fs::write(root.join("fresh").join("n".repeat(255)), "long").expect("write");
    fs::write(root.join("fresh/naïve ☃"), "unicode").expect("write");
    symlink("x".repeat(180), root.join("fresh/far")).expect("link");
    lchown(root.join("fresh/far"), Some(5), Some(6)).expect("owner");
    lsetxattr(root.join("fresh/second"), "user.note", b"two\0lines\n", XattrFlags::empty()).expect("attribute");
    mknodat(CWD, root.join("fresh/fifo"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).expect("fifo");
    let device = rustix::fs::makedev(259, 70_000);
    mknodat(CWD, root.join("fresh/block"), FileType::BlockDevice, Mode::from_raw_mode(0o600), device).expect("device");
    for place in ["etc/hosts", ".dockerenv"] {
        fs::write(root.join(place), "").expect("place");
    }
    fs::create_dir(root.join("proc")).expect("place");
}

fn it_is_a_list_and_a_layer(driver: &str) {
    let Some(stage) = Stage::new(driver) else { return };
    let low = stage.changed(None, low);
    let low = stage.driver.commit(low).expect("committed");
    let high = stage.changed(Some(&low), change);
    let places = ["etc/hosts", ".dockerenv", "proc"].map(PathBuf::from).to_vec();
    let difference = stage.driver.difference(&high).expect("difference");
    let difference = wharf_archive::Difference { places, ..difference };
    let changes = difference.changes().expect("listed");
    let listed: Vec<String> = changes
        .iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} {}", change.path.display())
        })
        .filter(|line| !line.starts_with("A fresh/"))
        .collect();
    assert_eq!(
        listed,
        [
            "C becomes-folder",
            "C emptied",
            "D emptied/y",
            "A fresh",
            "D gone",
            "C kept",
            "C kept/deep",
            "C kept/deep/a",
            "D removed",
            "C replaced",
            "A replaced/new",
            "D replaced/old",
        ]
    );
    let mut layer = Vec::new();
    difference.pack(&mut layer).expect("packed");
    let again = stage.unpacked(Some(&low), &layer);
    assert_eq!(stage.layer(&again), layer, "unpacked and packed again it is the same layer");
    // The trees are the same but for the places, which are no difference.
    for place in ["fs/etc/hosts", "fs/.dockerenv"] {
        let path = stage.folder.path().join(folder_of(driver)).join(high.number.to_string()).join(place);
        fs::remove_file(path).expect("removed");
    }
    let path = stage.folder.path().join(folder_of(driver)).join(high.number.to_string()).join("fs/proc");
    fs::remove_dir(path).expect("removed");
    let strip = |tree: Vec<u8>| {
        let mut seen = Vec::new();
        let mut archive = tar::Archive::new(&*tree);
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("entry");
            let header = entry.header();
            let etc = entry.path().expect("path").starts_with("etc");
            let facts = (entry.path_bytes().into_owned(), header.mode().ok(), header.uid().ok(), header.size().ok());
            seen.push((facts, (!etc).then(|| header.mtime().ok()), entry.link_name_bytes().map(|l| l.into_owned())));
        }
        seen
    };
    assert_eq!(strip(stage.tree(&again)), strip(stage.tree(&high)));
    assert!(stage.driver.difference(&low).expect("difference").changes().expect("listed").len() >= 15);
}

fn folder_of(driver: &str) -> &str {
    if driver == "overlayfs" { "overlay" } else { driver }
}

fn a_snapshot_without_changes_has_no_difference(driver: &str) {
    let Some(stage) = Stage::new(driver) else { return };
    let low = stage.changed(None, low);
    let low = stage.driver.commit(low).expect("committed");
    let same = stage.driver.prepare(Some(&low)).expect("prepared");
    let difference = stage.driver.difference(&same).expect("difference");
    assert_eq!(difference.changes().expect("listed"), []);
    assert_eq!(difference.pack(&mut std::io::sink()).expect("packed"), 0);
    let touched =
        stage.changed(Some(&low), |root| fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("mode"));
    let mut layer = Vec::new();
    assert_eq!(stage.driver.difference(&touched).expect("difference").pack(&mut layer).expect("packed"), 1);
    assert_eq!(layer.chunks(512).filter(|block| block.starts_with(b"./\0")).count(), 1, "only the root's own entry");
}

/// Two files with the same name in the tree below and the same size and time: overlayfs knows that it was written to.
#[test]
fn overlay_a_file_whose_time_was_put_back_is_in_the_layer() {
    let stage = Stage::new("overlayfs").expect("no disk is needed");
    let low = stage.changed(None, low);
    let low = stage.driver.commit(low).expect("committed");
    let high = stage.changed(Some(&low), |root| {
        let path = root.join("kept/b");
        let before = fs::metadata(&path).expect("stat").modified().expect("time");
        fs::write(&path, "KEPT/B").expect("write");
        fs::File::options().write(true).open(&path).expect("open").set_modified(before).expect("time");
    });
    let layer = stage.layer(&high);
    assert!(layer.windows(6).any(|part| part == b"KEPT/B"));
}

macro_rules! on_every_driver {
    ($($case:ident)*) => {
        mod overlay {
            $(#[test] fn $case() { super::$case("overlayfs"); })*
        }
        mod btrfs {
            $(#[test] fn $case() { super::$case("btrfs"); })*
        }
        mod vfs {
            $(#[test] fn $case() { super::$case("vfs"); })*
        }
    };
}

on_every_driver! {
    it_is_a_list_and_a_layer
    a_snapshot_without_changes_has_no_difference
}
