//! Extraction: what honest archives become, and what hostile ones must not do. Runs as root.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use tar::{EntryType, Header};
use wharf_archive::{ArchiveError, Compression, Decoder, Extracted, Reader, Root, Whiteouts, extract, pack};

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an entry under exactly this name: the builder itself would refuse hostile ones.
    fn add(mut self, name: &str, kind: EntryType, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.append(&header, data).expect("append");
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.add(name, EntryType::Regular, 0o644, "", text.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.add(name, EntryType::Directory, 0o755, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Symlink, 0o777, target, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Link, 0o644, target, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).expect("pax");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("archive")
    }
}

/// A folder with a root to extract to and a file beside it that no archive may touch.
struct Target {
    folder: tempfile::TempDir,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-archive-").tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("root")).expect("root");
        fs::create_dir(folder.path().join("victim")).expect("victim");
        fs::write(folder.path().join("victim/file"), "untouched").expect("victim");
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    fn take(&self, bytes: &[u8], whiteouts: Whiteouts) -> Result<Extracted, ArchiveError> {
        let root = OwnedFd::from(File::open(self.path("")).expect("root"));
        let outcome = extract(&mut &*bytes, root, &[], whiteouts);
        self.victim_is_untouched();
        outcome
    }

    fn layer(&self, archive: Archive) -> Result<Extracted, ArchiveError> {
        self.take(&archive.bytes(), Whiteouts::Overlay)
    }

    fn victim_is_untouched(&self) {
        let victim = self.folder.path().join("victim");
        assert_eq!(fs::read_dir(&victim).expect("victim").count(), 1, "something was made outside of the root");
        let file = victim.join("file");
        assert_eq!(fs::read_to_string(&file).expect("victim"), "untouched");
        let facts = fs::metadata(&file).expect("victim");
        assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.nlink()), (0o644, 0, 1));
        assert_eq!(fs::read_dir(self.folder.path()).expect("list").count(), 2);
    }
}

#[test]
fn files_folders_links_and_devices_come_out_with_their_attributes() {
    let target = Target::new();
    let archive = Archive::new()
        .add("./", EntryType::Directory, 0o750, "", b"")
        .add("bin/", EntryType::Directory, 0o1777, "", b"")
        .add("bin/su", EntryType::Regular, 0o4755, "", b"program")
        .link("bin/su2", "bin/su")
        .symlink("sbin", "bin")
        .file("sbin/through", "a link")
        .add("pipe", EntryType::Fifo, 0o622, "", b"")
        .file("made/on/the/way", "x");
    let done = target.layer(archive).expect("extracted");
    assert_eq!(done.entries, 8);
    let facts = |name: &str| fs::symlink_metadata(target.path(name)).expect("there");
    assert_eq!(facts("").mode() & 0o7777, 0o750);
    assert_eq!(facts("bin").mode() & 0o7777, 0o1777);
    assert_eq!((facts("bin/su").mode() & 0o7777, facts("bin/su").mtime()), (0o4755, 1_000_000_000));
    assert_eq!(facts("bin/su").ino(), facts("bin/su2").ino());
    assert_eq!(facts("bin").mtime(), 1_000_000_000, "a folder's time is that of the archive though it was filled");
    assert_eq!(target.text("bin/through").as_deref(), Some("a link"));
    assert!(facts("pipe").file_type().is_fifo());
    assert_eq!((facts("pipe").mode() & 0o7777, facts("made/on").mode() & 0o7777), (0o622, 0o755));
}

#[test]
fn owners_times_names_and_attributes_of_pax_headers_are_taken() {
    let target = Target::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let archive = Archive::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"70000"),
            ("gid", b"3000000"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/victim"),
        ])
        .file("short", "text");
    target.layer(archive).expect("extracted");
    let path = target.path(&long);
    let facts = fs::metadata(&path).expect("there");
    assert_eq!((facts.uid(), facts.gid()), (70_000, 3_000_000));
    assert_eq!((facts.mtime(), facts.mtime_nsec()), (-2, 750_000_000));
    let mut value = [0; 16];
    let n = rustix::fs::getxattr(&path, "user.note", &mut value).expect("attribute");
    assert_eq!(&value[..n], b"kept");
    let redirect = rustix::fs::getxattr(&path, "trusted.overlay.redirect", &mut value);
    assert!(redirect.is_err(), "an image must not write overlayfs' own attributes");
}

#[test]
fn sparse_files_have_their_holes_and_their_data() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = File::create(folder.path().join("sparse")).expect("file");
    file.set_len(8 << 20).expect("length");
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 4 << 20).expect("data");
    drop(file);
    for format in ["oldgnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"] {
        let mut words = format.split(' ');
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(folder.path()).arg("-S").arg("--format").arg(words.next().expect("format"));
        let output = tar.args(words).args(["-cf", "-", "sparse"]).output().expect("GNU tar");
        assert!(output.status.success());
        let target = Target::new();
        target.take(&output.stdout, Whiteouts::Overlay).expect(format);
        let facts = fs::metadata(target.path("sparse")).expect(format);
        assert_eq!(facts.len(), 8 << 20, "{format}");
        assert!(facts.blocks() * 512 < 1 << 20, "{format}");
        let bytes = fs::read(target.path("sparse")).expect(format);
        assert_eq!(&bytes[4 << 20..][..6], b"middle", "{format}");
        assert!(bytes[..4 << 20].iter().all(|b| *b == 0), "{format}");
    }
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let target = Target::new();
    let archive = Archive::new().file("dir/.wh.gone", "").folder("opaque/").file("opaque/.wh..wh..opq", "");
    target.layer(archive).expect("extracted");
    let gone = fs::symlink_metadata(target.path("dir/gone")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 4];
    let n = rustix::fs::getxattr(target.path("opaque"), "trusted.overlay.opaque", &mut value).expect("attribute");
    assert_eq!(&value[..n], b"y");
    assert!(target.layer(Archive::new().file(".wh...", "")).is_err(), "a whiteout of `..` names no entry");
}

#[test]
fn applied_whiteouts_remove_what_was_there_and_spare_what_the_layer_brings() {
    let target = Target::new();
    fs::create_dir_all(target.path("dir/old/deep")).expect("folders");
    fs::write(target.path("dir/kept"), "k").expect("file");
    let archive = Archive::new().file("dir/new", "n").file("dir/.wh..wh..opq", "").file("dir/.wh.new", "");
    target.take(&archive.bytes(), Whiteouts::Apply).expect("extracted");
    assert_eq!(target.text("dir/new").as_deref(), Some("n"));
    assert!(!target.path("dir/old").exists() && !target.path("dir/kept").exists());
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_another_kind() {
    let target = Target::new();
    let archive = Archive::new()
        .file("a/b/c", "deep")
        .file("a", "now a file")
        .symlink("l", "a")
        .file("l", "no longer a link")
        .file("f", "file")
        .folder("f/")
        .file("f/in", "folder");
    target.layer(archive).expect("extracted");
    assert_eq!(target.text("a").as_deref(), Some("now a file"));
    assert_eq!(target.text("l").as_deref(), Some("no longer a link"));
    assert_eq!(target.text("f/in").as_deref(), Some("folder"));
}

#[test]
fn cve_2014_6407_links_do_not_lead_writes_out_of_the_root() {
    let outside = Target::new();
    let victim = outside.folder.path().join("victim");
    let victim = victim.to_str().expect("path");
    for archive in [
        Archive::new().symlink("l", victim).file("l/file", "overwritten"),
        Archive::new().symlink("l", "../victim").file("l/new", "made"),
        Archive::new().symlink("l", &format!("{victim}/file")).file("l", "overwritten"),
        Archive::new().symlink("a", "..").symlink("a/b", "..").file("a/b/victim/file", "overwritten"),
        Archive::new().symlink("l", victim).folder("l/sub/"),
        Archive::new().symlink("l", victim).file("l/.wh.file", ""),
        Archive::new().symlink("l", victim).file("l/.wh..wh..opq", ""),
    ] {
        let target = Target::new();
        // Whether the entry is refused or lands beneath the root, nothing outside changes.
        let _ = target.layer(archive);
        outside.victim_is_untouched();
        assert_eq!(fs::read_dir(victim).expect("victim").count(), 1);
    }
    for (name, link) in [("h", format!("{victim}/file")), ("h", "../victim/file".to_owned())] {
        let target = Target::new();
        assert!(target.layer(Archive::new().link(name, &link).file(name, "overwritten")).is_err());
        outside.victim_is_untouched();
    }
}

#[test]
fn cve_2014_9356_names_that_leave_the_root_are_refused() {
    for name in ["../victim/file", "a/../../victim/file", "/../victim/new", "./../victim/new"] {
        let target = Target::new();
        let refused = target.layer(Archive::new().file(name, "overwritten")).expect_err(name);
        assert!(matches!(refused, ArchiveError::Path { .. }), "{name}: {refused:?}");
    }
    let target = Target::new();
    target.layer(Archive::new().file("/etc/absolute", "inside")).expect("taken as relative to the root");
    assert_eq!(target.text("etc/absolute").as_deref(), Some("inside"));
}

#[test]
fn cve_2021_32760_modes_of_host_files_are_not_changed_through_links() {
    let outside = Target::new();
    let file = outside.folder.path().join("victim/file");
    let file = file.to_str().expect("path");
    let target = Target::new();
    let archive = Archive::new()
        .symlink("l", file)
        .add("l", EntryType::Directory, 0o777, "", b"")
        .symlink("m", file)
        .add("m", EntryType::Fifo, 0o777, "", b"");
    target.layer(archive).expect("extracted");
    outside.victim_is_untouched();
    assert!(fs::symlink_metadata(target.path("l")).expect("there").is_dir());
}

#[test]
fn cve_2025_47290_a_link_swapped_in_during_extraction_is_not_followed_out() {
    let outside = Target::new();
    let victim = outside.folder.path().join("victim");
    let mut archive = Archive::new();
    for i in 0..2_000 {
        archive = archive.file(&format!("d/{i}"), "x");
    }
    let target = Target::new();
    let (folder, aside) = (target.path("d"), target.path("aside"));
    fs::create_dir(&folder).expect("folder");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if fs::rename(&folder, &aside).is_ok() && symlink(&victim, &folder).is_ok() {
                    let _ = fs::remove_file(&folder);
                    let _ = fs::rename(&aside, &folder);
                }
            }
        });
        // The race may make it fail; it must not make it write elsewhere.
        let _ = target.take(&archive.bytes(), Whiteouts::Overlay);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    outside.victim_is_untouched();
}

#[test]
fn cve_2017_14992_headers_that_describe_headers_are_bounded() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8 << 30);
        header.set_cksum();
        let endless = std::io::Read::chain(&header.as_bytes()[..], std::io::repeat(b'a'));
        let mut stream = std::io::BufReader::new(endless);
        let refused = Reader::new(&mut stream).entry().expect_err("too long");
        assert!(matches!(refused, ArchiveError::TooLong(_)), "{kind:?}: {refused:?}");
    }
}

#[test]
fn cve_2014_9357_foreign_compression_is_refused_by_name_and_runs_nothing() {
    for (start, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz")] {
        let refused = Compression::detect(start).expect_err(name);
        assert!(refused.to_string().contains(name));
    }
}

#[test]
fn cve_2024_40635_owners_that_overflow_are_refused() {
    for uid in ["4294967295", "4294967296", "18446744073709551616"] {
        let target = Target::new();
        let archive = Archive::new().pax(&[("uid", uid.as_bytes())]).file("a", "x");
        assert!(target.layer(archive).is_err(), "{uid}");
    }
}

#[test]
fn cut_and_damaged_archives_give_errors() {
    let whole = Archive::new().file("a", &"x".repeat(2_000)).file("b", "y").bytes();
    for cut in [1, 511, 513, 700, 2_559, 2_600] {
        assert!(Target::new().take(&whole[..cut], Whiteouts::Overlay).is_err(), "cut at {cut}");
    }
    let mut damaged = whole.clone();
    damaged[10] ^= 1;
    assert!(matches!(Target::new().take(&damaged, Whiteouts::Overlay), Err(ArchiveError::Header("checksum"))));
    assert_eq!(Target::new().take(&whole[..2_560], Whiteouts::Overlay).expect("no end mark").entries, 1);
    assert_eq!(Target::new().take(b"", Whiteouts::Overlay).expect("empty").entries, 0);
}

#[test]
fn what_is_packed_comes_out_the_same() {
    let one = Target::new();
    let long = "n".repeat(150);
    let archive = Archive::new()
        .add("d/", EntryType::Directory, 0o2775, "", b"")
        .add("d/su", EntryType::Regular, 0o4711, "", &vec![b'x'; 70_000])
        .link("d/hard", "d/su")
        .symlink("d/soft", "/etc/passwd")
        .add("pipe", EntryType::Fifo, 0o600, "", b"")
        .pax(&[("path", long.as_bytes()), ("mtime", b"12.5"), ("uid", b"3000000"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", "long name");
    one.layer(archive).expect("extracted");
    let mut first = Vec::new();
    pack(Root::at(&one.path("")).expect("root").as_fd(), &mut first).expect("packed");
    let two = Target::new();
    two.take(&first, Whiteouts::Keep).expect("extracted");
    let mut second = Vec::new();
    pack(Root::at(&two.path("")).expect("root").as_fd(), &mut second).expect("packed");
    assert!(first == second, "packing what was unpacked gives the same bytes");
    let output = std::process::Command::new("tar").args(["-tf", "-"]).stdin(file_of(&first)).output().expect("GNU tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
}

fn file_of(bytes: &[u8]) -> File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(bytes).expect("write");
    file.rewind().expect("rewind");
    file
}

/// Reads every entry and its data, as far as the archive goes.
fn read_all(bytes: &[u8]) {
    let mut stream = bytes;
    let mut reader = Reader::new(&mut stream);
    while let Ok(Some(_)) = reader.entry() {
        while let Ok(n @ 1..) = reader.data().map(<[u8]>::len) {
            reader.consume(n);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        read_all(&bytes);
    }

    #[test]
    fn reading_damaged_archives_never_panics(
        changes in proptest::collection::vec((0usize..4096, any::<u8>()), 1..12),
        fix in any::<bool>(),
    ) {
        let mut bytes = Archive::new()
            .pax(&[("path", b"long"), ("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9000"), ("mtime", b"1.5")])
            .file("a", "1\n0\n5\n")
            .add("s", EntryType::GNUSparse, 0o644, "", b"")
            .file("b", "x")
            .bytes();
        for (at, byte) in changes {
            let n = bytes.len();
            bytes[at % n] = byte;
        }
        if fix {
            // With right checksums the damage reaches what is behind them.
            for block in bytes.chunks_mut(512).filter(|block| block.len() == 512 && block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        read_all(&bytes);
    }

    #[test]
    fn extracting_arbitrary_names_stays_in_the_root(name in "[a./\\\\]{1,20}", link in "[a./]{1,12}") {
        let target = Target::new();
        let _ = target.layer(Archive::new().symlink(&link, &name).file(&name, "x").link("h", &link).file(&link, "y"));
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        use std::io::Read;
        for start in [&[][..], &[0x1f, 0x8b, 0x08], &[0x28, 0xb5, 0x2f, 0xfd]] {
            let bytes = [start, &bytes].concat();
            let Ok((compression, stream)) = Compression::peek(bytes.as_slice()) else { continue };
            let mut out = Vec::new();
            let _ = Decoder::new(compression, stream).expect("decoder").take(1 << 20).read_to_end(&mut out);
        }
    }
}

#[test]
fn a_missing_folder_takes_its_attributes_from_the_layer_below() {
    let below = Target::new();
    let archive = Archive::new().add("var/", EntryType::Directory, 0o700, "", b"");
    below.layer(archive).expect("extracted");
    std::os::unix::fs::chown(below.path("var"), Some(5), Some(6)).expect("chown");
    let target = Target::new();
    let open = |path: &Path| OwnedFd::from(File::open(path).expect("folder"));
    let bytes = Archive::new().file("var/new/file", "x").bytes();
    extract(&mut &bytes[..], open(&target.path("")), &[open(&below.path(""))], Whiteouts::Overlay).expect("extracted");
    let facts = fs::metadata(target.path("var")).expect("there");
    assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o700, 5, 6));
    assert_eq!(fs::metadata(target.path("var/new")).expect("there").mode() & 0o7777, 0o755);
}
