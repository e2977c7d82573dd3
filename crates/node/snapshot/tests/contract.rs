//! The contract of snapshotters, run on every driver. What a snapshot looks like is read through its mounts, done in
//! a mount namespace of the test's own thread.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use wharf_archive::extract;
use wharf_snapshot::{Btrfs, Overlay, Snapshot, SnapshotError, Snapshotter, Trash, Vfs};

mod disk;

use disk::Disk;

struct Stage {
    disk: Disk,
    folder: tempfile::TempDir,
    trash: Arc<Trash>,
    driver: Box<dyn Snapshotter>,
}

impl Stage {
    fn new(name: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("wharf-snapshot-").tempdir().expect("temporary folder");
        let disk = Disk::under(folder.path(), name)?;
        let trash = Arc::new(Trash::open(folder.path()).expect("trash"));
        let driver = open(name, folder.path(), trash.clone());
        Some(Self { disk, folder, trash, driver })
    }

    fn reopen(self) -> Self {
        let Self { disk, folder, trash, driver } = self;
        let name = driver.name();
        drop((driver, trash));
        let trash = Arc::new(Trash::open(folder.path()).expect("trash"));
        let driver = open(name, folder.path(), trash.clone());
        Self { disk, folder, trash, driver }
    }

    fn layer(&self, parent: Option<&Snapshot>, files: &[(&str, &str)]) -> Snapshot {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, text.as_bytes()).expect("append");
        }
        let bytes = archive.into_inner().expect("archive");
        let snapshot = self.driver.prepare(parent).expect("prepared");
        let target = self.driver.target(&snapshot).expect("target");
        extract(&mut bytes.as_slice(), target.root, &target.parents, target.whiteouts).expect("extracted");
        self.driver.commit(snapshot).expect("committed")
    }

    /// Mounts a snapshot in a private namespace and hands its root to `look`.
    fn within<T: Send>(&self, snapshot: &Snapshot, volatile: bool, look: impl FnOnce(&Path) -> T + Send) -> T {
        let mounts = self.driver.mounts(snapshot, volatile).expect("mounts");
        let root = self.folder.path().join("mounted");
        fs::create_dir_all(&root).expect("mount point");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                leave_host_mounts();
                for m in &mounts {
                    if m.kind == "bind" {
                        mount(&m.source, &root, "", MountFlags::BIND, None).expect("bind mount");
                    } else {
                        let data = std::ffi::CString::new(m.options.join(",")).expect("options");
                        mount(&m.source, &root, &m.kind, MountFlags::empty(), data.as_c_str()).expect("mount");
                    }
                }
                let seen = look(&root);
                unmount(&root, UnmountFlags::empty()).expect("unmounted");
                seen
            });
            worker.join().expect("the mounting thread")
        })
    }
}

/// Gives this thread a mount namespace from which nothing reaches the host.
fn leave_host_mounts() {
    wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWNS).expect("unshare");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
}

fn open(name: &str, root: &Path, trash: Arc<Trash>) -> Box<dyn Snapshotter> {
    match name {
        "vfs" => Box::new(Vfs::open(root, trash).expect("vfs")),
        "btrfs" => Box::new(Btrfs::open(root, trash).expect("btrfs")),
        _ => Box::new(Overlay::open(root, trash).expect("overlay")),
    }
}

fn text(root: &Path, name: &str) -> Option<String> {
    fs::read_to_string(root.join(name)).ok()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::yield_now();
    }
}

fn layers_are_seen_through_each_other(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.layer(None, &[("a", "low"), ("gone", "x"), ("dir/kept", "k"), ("opaque/old", "o")]);
    let high = stage.layer(
        Some(&low),
        &[("a", "high"), (".wh.gone", ""), ("opaque/.wh..wh..opq", ""), ("opaque/new", "n"), ("dir/more", "m")],
    );
    let top = stage.driver.prepare(Some(&high)).expect("prepared");
    stage.within(&top, false, |root| {
        assert_eq!(text(root, "a").as_deref(), Some("high"));
        assert_eq!((text(root, "gone"), text(root, "opaque/old")), (None, None));
        assert_eq!(text(root, "opaque/new").as_deref(), Some("n"));
        assert_eq!(text(root, "dir/kept").as_deref(), Some("k"));
        assert_eq!(text(root, "dir/more").as_deref(), Some("m"));
        fs::write(root.join("a"), "mine").expect("write");
        fs::remove_file(root.join("dir/kept")).expect("remove");
    });
    let other = stage.driver.prepare(Some(&high)).expect("prepared");
    stage.within(&other, false, |root| {
        assert_eq!(text(root, "a").as_deref(), Some("high"), "one container's write does not reach another");
        assert_eq!(text(root, "dir/kept").as_deref(), Some("k"));
    });
    stage.within(&top, false, |root| {
        assert_eq!(text(root, "a").as_deref(), Some("mine"), "a write is there after a restart");
        assert_eq!(text(root, "dir/kept"), None);
    });
}

fn an_empty_snapshot_is_an_empty_writable_root(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let top = stage.driver.prepare(None).expect("prepared");
    stage.within(&top, true, |root| {
        assert_eq!(fs::read_dir(root).expect("list").count(), 0);
        assert_eq!(fs::metadata(root).expect("root").mode() & 0o7777, 0o755);
        fs::write(root.join("new"), "n").expect("write");
    });
}

fn a_volatile_snapshot_can_be_mounted_again(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.layer(None, &[("a", "low")]);
    let top = stage.driver.prepare(Some(&low)).expect("prepared");
    stage.within(&top, true, |root| fs::write(root.join("b"), "b").expect("write"));
    stage.within(&top, true, |root| assert_eq!(text(root, "b").as_deref(), Some("b")));
}

fn the_root_keeps_the_mode_of_the_layer_below(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.driver.prepare(None).expect("prepared");
    let target = stage.driver.target(&low).expect("target");
    rustix::fs::fchmod(&target.root, rustix::fs::Mode::from_raw_mode(0o1711)).expect("chmod");
    let low = stage.driver.commit(low).expect("committed");
    let top = stage.driver.prepare(Some(&low)).expect("prepared");
    let mode = stage.within(&top, false, |root| fs::metadata(root).expect("root").permissions().mode());
    assert_eq!(mode & 0o7777, 0o1711);
}

fn only_committed_snapshots_have_children_and_only_prepared_ones_are_written(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let open = stage.driver.prepare(None).expect("prepared");
    assert!(matches!(stage.driver.prepare(Some(&open)), Err(SnapshotError::State { .. })));
    let done = stage.driver.commit(open).expect("committed");
    assert!(matches!(stage.driver.commit(done.clone()), Err(SnapshotError::State { .. })));
    assert!(matches!(stage.driver.mounts(&done, false), Err(SnapshotError::State { .. })));
    assert!(stage.driver.target(&done).is_err());
}

fn removed_snapshots_leave_nothing(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.layer(None, &[("deep/er/file", "x")]);
    stage.driver.remove(&low).expect("removed");
    stage.driver.remove(&low).expect("removing twice is no error");
    let trash = stage.folder.path().join("trash");
    until("the trash is empty", || fs::read_dir(&trash).expect("list").count() == 0);
    assert!(stage.driver.layer(&low).is_err());
}

fn reconciling_removes_what_nobody_owns_and_numbers_go_on(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let kept = stage.layer(None, &[("a", "kept")]);
    let lost = stage.driver.prepare(Some(&kept)).expect("prepared");
    let stage = stage.reopen();
    let removed = stage.driver.reconcile(&HashSet::from([kept.number])).expect("reconciled");
    assert_eq!(removed, [lost.number]);
    let next = stage.driver.prepare(Some(&kept)).expect("prepared");
    assert!(next.number > kept.number && next.number != lost.number);
    stage.within(&next, false, |root| assert_eq!(text(root, "a").as_deref(), Some("kept")));
}

fn a_reset_layer_can_be_filled_again_beneath_those_upon_it(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.layer(None, &[("low", "l")]);
    let high = stage.layer(Some(&low), &[("damaged/file", "")]);
    let again = stage.driver.reset(&high, Some(&low)).expect("reset");
    assert_eq!((again.number, again.writable), (high.number, true));
    let again = stage.driver.commit(again).expect("committed");
    let top = stage.driver.prepare(Some(&again)).expect("prepared");
    stage.within(&top, false, |root| {
        assert_eq!(text(root, "low").as_deref(), Some("l"));
        assert!(!root.join("damaged").exists());
    });
}

fn usage_counts_blocks_and_inodes(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let low = stage.layer(None, &[("a", &"x".repeat(10_000)), ("d/b", "y")]);
    let usage = stage.driver.usage(&low).expect("usage");
    assert_eq!(usage.inodes, 4, "root, a, d and b");
    assert!((10_000..100_000).contains(&usage.bytes), "{usage:?}");
}

fn many_layers_mount(name: &str) {
    let Some(stage) = Stage::new(name) else { return };
    let mut layer = stage.layer(None, &[("0", "0")]);
    for i in 1..20 {
        let file = i.to_string();
        layer = stage.layer(Some(&layer), &[(file.as_str(), file.as_str())]);
    }
    let top = stage.driver.prepare(Some(&layer)).expect("prepared");
    stage.within(&top, false, |root| assert_eq!(fs::read_dir(root).expect("list").count(), 20));
}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod overlay { $(#[test] fn $test() { super::$test("overlayfs"); })* }
        mod btrfs { $(#[test] fn $test() { super::$test("btrfs"); })* }
        mod vfs { $(#[test] fn $test() { super::$test("vfs"); })* }
    };
}

contract!(
    layers_are_seen_through_each_other,
    an_empty_snapshot_is_an_empty_writable_root,
    a_volatile_snapshot_can_be_mounted_again,
    the_root_keeps_the_mode_of_the_layer_below,
    only_committed_snapshots_have_children_and_only_prepared_ones_are_written,
    removed_snapshots_leave_nothing,
    reconciling_removes_what_nobody_owns_and_numbers_go_on,
    a_reset_layer_can_be_filled_again_beneath_those_upon_it,
    usage_counts_blocks_and_inodes,
    many_layers_mount,
);

#[test]
fn cve_2021_41091_a_user_of_the_host_cannot_enter_the_layers() {
    let stage = Stage::new("overlayfs").expect("no disk is needed");
    let mode = fs::metadata(stage.folder.path().join("overlay")).expect("folder").mode();
    assert_eq!(mode & 0o007, 0);
}

#[test]
fn a_data_root_that_mount_options_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root: PathBuf = folder.path().join("a:b");
    fs::create_dir(&root).expect("folder");
    let trash = Arc::new(Trash::open(&root).expect("trash"));
    assert!(matches!(Overlay::open(&root, trash), Err(SnapshotError::DataRoot(_))));
}

#[test]
fn btrfs_on_another_file_system_is_refused() {
    let folder = tempfile::Builder::new().prefix("wharf-nobtrfs-").tempdir_in("/dev/shm").expect("temporary folder");
    let trash = Arc::new(Trash::open(folder.path()).expect("trash"));
    assert!(matches!(Btrfs::open(folder.path(), trash), Err(SnapshotError::Unsupported { driver: "btrfs", .. })));
}
