//! Layers made here: what they hold, that they are the same again after unpacking, and images and leases of them.

mod stage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use stage::{Stage, tar_of};
use wharf_image::{Image, Lease, NewImage, NewLayer, Packing, Part, RemoveOptions};
use wharf_types::Reference;

fn name(text: &str) -> Vec<Reference> {
    vec![Reference::parse(text).expect("name")]
}

/// A prepared snapshot upon an image, written to by `change`, and its layer.
fn layer_of(stage: &Stage, base: Option<&Image>, packing: Packing, change: impl FnOnce(&Path)) -> NewLayer {
    let parent = base.and_then(|base| stage.images.snapshot(base).expect("snapshot"));
    let snapshot = stage.snapshots.prepare(parent.as_ref()).expect("prepared");
    change(&stage.root().join("overlay").join(snapshot.number.to_string()).join("fs"));
    let difference = stage.snapshots.difference(&snapshot).expect("difference");
    let layer = stage.images.layer(&difference, packing).expect("layer");
    stage.snapshots.remove(&snapshot).expect("removed");
    layer
}

fn parts(base: Option<&Image>, layer: NewLayer) -> Vec<Part> {
    let known = base.map(|base| base.manifest.layers.iter().cloned().zip(base.config.rootfs.diff_ids.iter().cloned()));
    known.into_iter().flatten().map(|(blob, id)| Part::Known(blob, id)).chain([Part::New(layer)]).collect()
}

fn assemble(stage: &Stage, base: Option<&Image>, layer: NewLayer, named: &str) -> Arc<Image> {
    let image = NewImage { names: name(named), ..NewImage::default() };
    stage.images.assemble(image, parts(base, layer)).expect("assembled").image.clone()
}

/// Writes a file of `size` bytes that do not compress to nothing.
fn file(path: &Path, size: usize) {
    fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    let bytes: Vec<u8> = (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(path, bytes).expect("file");
}

fn whiteout(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).expect("whiteout");
}

/// What a layer is to hold, and how it is made in a directory.
type Content = (&'static str, fn(&Path));

/// Twenty-two kinds of content, one layer upon the other.
fn corpus() -> Vec<Content> {
    vec![
        ("files", |r| (0..50).for_each(|n| file(&r.join(format!("d{}/f{n}", n % 7)), n * 37))),
        ("a large file", |r| file(&r.join("large"), 3 << 20)),
        ("empty folders", |r| fs::create_dir_all(r.join("e/m/p/t/y")).expect("folders")),
        ("symbolic links", |r| {
            symlink("/etc/passwd", r.join("absolute")).expect("link");
            symlink("../up", r.join("up")).expect("link");
            symlink("t".repeat(300), r.join("far")).expect("link");
        }),
        ("hard links", |r| {
            file(&r.join("h/one"), 5000);
            fs::hard_link(r.join("h/one"), r.join("h/two")).expect("link");
            fs::hard_link(r.join("h/one"), r.join("three")).expect("link");
        }),
        ("a whiteout", |r| whiteout(&r.join("large"))),
        ("an opaque folder", |r| {
            file(&r.join("d1/only"), 10);
            lsetxattr(r.join("d1"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("opaque");
        }),
        ("a folder in a file's place", |r| {
            fs::create_dir(r.join("three")).expect("folder");
            file(&r.join("three/inside"), 4);
        }),
        ("a file in a folder's place", |r| file(&r.join("e"), 3)),
        ("set-id and sticky bits", |r| {
            for (n, mode) in [0o4755, 0o2755, 0o1777, 0o6711, 0o000].into_iter().enumerate() {
                file(&r.join(format!("bits/{n}")), 1);
                fs::set_permissions(r.join(format!("bits/{n}")), fs::Permissions::from_mode(mode)).expect("mode");
            }
            fs::set_permissions(r.join("bits"), fs::Permissions::from_mode(0o3770)).expect("mode");
        }),
        ("owners", |r| {
            file(&r.join("owned/a"), 1);
            chown(r.join("owned/a"), Some(1000), Some(100)).expect("owner");
            chown(r.join("owned"), Some(4_000_000_000), Some(2_097_152)).expect("owner");
        }),
        ("attributes", |r| {
            file(&r.join("x/a"), 9);
            for (key, value) in [("user.z", &b"last"[..]), ("user.a", b"\0\n="), ("user.empty", b"")] {
                lsetxattr(r.join("x/a"), key, value, XattrFlags::empty()).expect("attribute");
            }
            lsetxattr(r.join("x"), "user.folder", b"f", XattrFlags::empty()).expect("attribute");
        }),
        ("capabilities", |r| {
            file(&r.join("bin/ping"), 100);
            let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
            lsetxattr(r.join("bin/ping"), "security.capability", capability, XattrFlags::empty()).expect("capability");
        }),
        ("devices and pipes", |r| {
            fs::create_dir(r.join("nodes")).expect("folder");
            let mode = Mode::from_raw_mode(0o640);
            for (kind, device, name) in [
                (FileType::CharacterDevice, rustix::fs::makedev(1, 3), "null"),
                (FileType::BlockDevice, rustix::fs::makedev(4000, 1_000_000), "disk"),
                (FileType::Fifo, 0, "fifo"),
            ] {
                mknodat(CWD, r.join("nodes").join(name), kind, mode, device).expect("node");
            }
        }),
        ("long names", |r| {
            file(&r.join("l".repeat(255)), 2);
            let deep: std::path::PathBuf = (0..12).map(|n| format!("{n}{}", "p".repeat(120))).collect();
            file(&r.join(deep).join("end"), 3);
        }),
        ("names that are no UTF-8, with blanks and controls", |r| {
            use std::os::unix::ffi::OsStrExt;
            for name in [&b"\xff\xfe"[..], b" blank ", b"new\nline", b"tab\t", "né☃".as_bytes(), b"a=b", b".hidden"]
            {
                file(&r.join(std::ffi::OsStr::from_bytes(name)), 1);
            }
        }),
        ("times before and far after the epoch", |r| {
            for (name, seconds, nanoseconds) in
                [("old", -86_400, 1), ("epoch", 0, 0), ("nano", 1_700_000_000, 123_456_789), ("far", 8_589_934_592, 5)]
            {
                file(&r.join("t").join(name), 1);
                let at = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
                let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
                let none = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(CWD, r.join("t").join(name), &times, none).expect("times");
            }
        }),
        ("a sparse file", |r| {
            let sparse = fs::File::create(r.join("sparse")).expect("file");
            sparse.set_len(4 << 20).expect("length");
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 2 << 20).expect("write");
        }),
        ("an empty file and a file of zeros", |r| {
            file(&r.join("nothing"), 0);
            fs::write(r.join("zeros"), vec![0; 200_000]).expect("file");
        }),
        ("the root's own mode", |r| fs::set_permissions(r, fs::Permissions::from_mode(0o751)).expect("mode")),
        ("a hidden name again", |r| file(&r.join("large"), 77)),
        ("many whiteouts", |r| (0..7).for_each(|n| whiteout(&r.join(format!("d{n}"))))),
    ]
}

#[test]
fn layers_unpacked_and_packed_again_have_the_same_digest() {
    let stage = Stage::new();
    let mut base: Option<Arc<Image>> = None;
    let corpus = corpus();
    assert!(corpus.len() >= 20);
    for (n, (what, change)) in corpus.into_iter().enumerate() {
        let packing = [Packing::Gzip, Packing::Zstd, Packing::Plain][n % 3];
        let layer = layer_of(&stage, base.as_deref(), packing, change);
        assert!(layer.entries > 0, "{what}");
        let (diff_id, blob) = (layer.diff_id.clone(), layer.blob.clone());
        // Not given as a snapshot, so it is unpacked from its blob.
        let image = assemble(&stage, base.as_deref(), layer, &format!("step:{n}"));
        let snapshot = stage.images.snapshot(&image).expect("snapshot").expect("layers");
        let difference = stage.snapshots.difference(&snapshot).expect("difference");
        let again = stage.images.layer(&difference, packing).expect("layer");
        assert_eq!((again.diff_id, again.blob), (diff_id, blob), "{what}");
        base = Some(image);
    }
    let view = base.expect("images");
    assert_eq!(view.manifest.layers.len(), 22);
    assert_eq!(stage.seen(&view, "large").map(|text| text.len()), None, "binary");
    assert!(stage.seen(&view, "d1/only").is_none(), "whitened out by the last layer");
}

/// Folders of this machine's own Debian, as `cp -a` copies them: what packages really hold, with their owners, links and
/// times.
fn folders_of_this_machine() -> Vec<std::path::PathBuf> {
    let size = |folder: &Path| {
        let told = std::process::Command::new("du").arg("-sxk").arg(folder).output().expect("du");
        String::from_utf8_lossy(&told.stdout).split('\t').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut found = Vec::new();
    for parent in ["/etc", "/usr/share", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/share/doc", "/var/lib"] {
        let mut folders: Vec<_> = fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()).collect();
        folders.retain(|folder| folder.symlink_metadata().is_ok_and(|m| m.is_dir()));
        folders.sort();
        found.extend(folders.into_iter().filter(|folder| (40..4_000).contains(&size(folder))).take(6));
    }
    found
}

#[test]
fn twenty_folders_of_a_real_system_are_the_same_layers_again() {
    let stage = Stage::new();
    let folders = folders_of_this_machine();
    assert!(folders.len() >= 20, "{folders:?}");
    for (n, folder) in folders.iter().enumerate() {
        let layer = layer_of(&stage, None, Packing::Zstd, |root| {
            let copied = std::process::Command::new("cp").arg("-a").arg(folder).arg(root).status().expect("cp");
            assert!(copied.success(), "{}", folder.display());
        });
        let (diff_id, blob) = (layer.diff_id.clone(), layer.blob.clone());
        let image = assemble(&stage, None, layer, &format!("real:{n}"));
        let snapshot = stage.images.snapshot(&image).expect("snapshot").expect("layers");
        let difference = stage.snapshots.difference(&snapshot).expect("difference");
        let again = stage.images.layer(&difference, Packing::Zstd).expect("layer");
        assert_eq!((again.diff_id, again.blob), (diff_id, blob), "{}", folder.display());
    }
}

#[test]
fn sparse_files_stay_sparse() {
    use std::os::unix::fs::MetadataExt;
    let stage = Stage::new();
    let layer = layer_of(&stage, None, Packing::Gzip, |r| {
        let sparse = fs::File::create(r.join("sparse")).expect("file");
        sparse.set_len(8 << 20).expect("length");
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 4 << 20).expect("write");
    });
    let image = assemble(&stage, None, layer, "sparse:1");
    let facts = fs::metadata(stage.path(&image, "sparse")).expect("stat");
    assert_eq!(facts.len(), 8 << 20);
    assert!(facts.blocks() * 512 < 1 << 20, "{} bytes on disk", facts.blocks() * 512);
    assert_eq!(&fs::read(stage.path(&image, "sparse")).expect("read")[4 << 20..][..6], b"middle");
}

#[test]
fn a_given_snapshot_is_taken_as_it_is_and_a_dropped_layer_leaves_nothing() {
    let stage = Stage::new();
    let base = stage.import("base:1", &tar_of(&[("a", "base")]));
    let parent = stage.images.snapshot(&base).expect("snapshot");
    let snapshot = stage.snapshots.prepare(parent.as_ref()).expect("prepared");
    fs::write(stage.root().join(format!("overlay/{}/fs/new", snapshot.number)), "new").expect("written");
    let difference = stage.snapshots.difference(&snapshot).expect("difference");
    let layer = stage.images.layer(&difference, Packing::Zstd).expect("layer");
    let usage = stage.snapshots.usage(&snapshot).expect("usage");
    let snapshot = stage.snapshots.commit(snapshot).expect("committed");
    let layer = layer.with_snapshot(snapshot.clone(), usage);
    let made = assemble(&stage, Some(&base), layer, "made:1");
    assert_eq!(stage.images.snapshot(&made).expect("snapshot"), Some(snapshot));
    assert_eq!(stage.seen(&made, "new").as_deref(), Some("new"));
    let blobs = stage.blobs();
    let lost = layer_of(&stage, Some(&base), Packing::Plain, |r| file(&r.join("lost"), 100));
    assert_eq!(stage.blobs(), blobs + 1);
    drop(lost);
    assert_eq!((stage.blobs(), stage.ingests()), (blobs, 0));
}

#[test]
fn a_lease_keeps_a_layer_without_an_image_over_a_restart() {
    let stage = Stage::new();
    let layer = layer_of(&stage, None, Packing::Gzip, |r| file(&r.join("cached"), 100));
    let blob = layer.blob.digest.clone();
    let image = assemble(&stage, None, layer, "cache:1");
    let chain = image.chain.clone().expect("layers");
    let lease = Lease { blobs: vec![blob.clone()], chains: vec![chain.clone()] };
    stage.images.lease("build/1", lease.clone()).expect("leased");
    stage.images.remove("cache:1", RemoveOptions::default(), &|_| Vec::new()).expect("removed");
    assert_eq!((stage.blobs(), stage.layers()), (1, 1), "manifest and configuration are gone");
    let stage = stage.reopen();
    stage.snapshots.reconcile(&stage.images.snapshot_numbers()).expect("reconciled");
    assert_eq!((stage.blobs(), stage.layers()), (1, 1));
    assert_eq!(stage.images.leased("build/1"), Some(lease));
    stage.images.release("build/1").expect("released");
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
}
