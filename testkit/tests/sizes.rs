//! `--storage-opt size=…`: what a container may write. btrfs limits by its own quotas everywhere; overlay needs a file system that
//! counts projects (ext4 and XFS mounted with `prjquota`), which kernels without quota support refuse to mount.

use std::path::Path;
use std::process::Command;

use testkit::{Daemon, DaemonOptions};

fn run(program: &str, words: &[&str]) -> bool {
    let done = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    if !done.status.success() {
        println!("{program} {words:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    done.status.success()
}

/// A file system in a file, mounted over a daemon's data root; unmounted after the daemon.
struct Disk(std::path::PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

fn disk(daemon: &Daemon, make: &[&str], options: &str) -> Option<Disk> {
    let image = daemon.folder().join("disk").display().to_string();
    assert!(run("truncate", &["-s", "600M", &image]), "made");
    let (program, words) = make.split_first().expect("a program");
    if !run(program, &[words, &[&image]].concat()) {
        return None;
    }
    std::fs::create_dir_all(daemon.data_root()).expect("made");
    let place = daemon.data_root().display().to_string();
    run("mount", &["-o", options, &image, &place]).then(|| Disk(daemon.data_root()))
}

fn write(daemon: &Daemon, more: &[&str], megabytes: u32) -> (i32, String) {
    let script = format!("dd if=/dev/zero of=/file bs=1M count={megabytes} 2>&1; stat -c %s /file");
    let done = daemon.docker(&[&["run", "--rm"], more, &["busybox", "sh", "-c", &script]].concat());
    (done.code, done.text())
}

fn limits_hold(daemon: &Daemon) {
    testkit::base_image(daemon);
    let (code, said) = write(daemon, &["--storage-opt", "size=20m"], 40);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("quota exceeded") || said.contains("No space left"), "{said}");
    let size: u64 = said.lines().last().and_then(|l| l.trim().parse().ok()).expect("a size");
    assert!((10 << 20..=20 << 20).contains(&size), "{size}");
    let (_, said) = write(daemon, &[], 40);
    assert!(said.ends_with(&(40 << 20).to_string()), "others are not limited: {said}");
    let (_, said) = write(daemon, &["--storage-opt", "size=100m"], 40);
    assert!(said.ends_with(&(40 << 20).to_string()), "{said}");
    // It stays with the container.
    daemon.docker(&["create", "--name", "kept", "--storage-opt", "size=30m", "busybox", "true"]).ok();
    let shown = daemon.docker(&["inspect", "-f", "{{json .HostConfig.StorageOpt}}", "kept"]).ok();
    assert_eq!(shown, r#"{"size":"30m"}"#);
    daemon.docker(&["rm", "kept"]).ok();
    for wrong in ["size=x", "size=0"] {
        let refused = daemon.docker(&["create", "--storage-opt", wrong, "busybox", "true"]);
        assert!(refused.code == 1 && refused.stderr.contains("invalid"), "{wrong}: {}", refused.stderr);
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "", "what was refused left nothing");
}

#[test]
fn a_container_on_btrfs_writes_no_more_than_its_size() {
    let options =
        DaemonOptions { arguments: vec!["--storage-driver".into(), "btrfs".into()], ..DaemonOptions::default() };
    let mut daemon = Daemon::prepare(options);
    let disk = disk(&daemon, &["mkfs.btrfs", "-q"], "loop").expect("this kernel has btrfs");
    daemon.launch();
    limits_hold(&daemon);
    drop((daemon, disk));
}

#[test]
fn a_container_on_overlay_writes_no_more_than_its_size_where_projects_are_counted() {
    let make = ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
    let mut daemon = Daemon::prepare(DaemonOptions::default());
    let Some(disk) = disk(&daemon, &make, "loop,prjquota") else {
        println!("skipped: this kernel has no project quotas");
        return;
    };
    daemon.launch();
    limits_hold(&daemon);
    daemon.stop();
    daemon.options().arguments = vec!["--storage-opt".into(), "overlay2.size=20m".into()];
    daemon.launch();
    let (_, said) = write(&daemon, &[], 40);
    assert!(said.contains("quota exceeded") || said.contains("No space left"), "{said}");
    drop((daemon, disk));
}

#[test]
fn sizes_that_the_file_system_cannot_hold_are_refused_in_dockers_words() {
    let daemon = Daemon::with_image();
    let refused = |option: &str| daemon.docker(&["create", "--storage-opt", option, "busybox", "true"]).stderr;
    if !refused("size=10m").is_empty() {
        let words = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        assert!(refused("size=10m").contains(words), "{}", refused("size=10m"));
    }
    assert!(refused("nope=1").contains("Unknown option nope"), "{}", refused("nope=1"));
    drop(daemon);
    for (option, words) in [
        ("overlay2.size=10m", "Storage option overlay2.size not supported. Filesystem does not support Project Quota"),
        ("overlay2.nope=1", "overlay2: unknown option overlay2.nope"),
        ("overlay2.size=x", "invalid size"),
    ] {
        let arguments = vec!["--storage-opt".to_owned(), option.to_owned()];
        let mut daemon = Daemon::prepare(DaemonOptions { arguments, ..DaemonOptions::default() });
        daemon.spawn();
        assert!(!daemon.wait_for_end().success(), "{option}");
        assert!(daemon.log().contains(words), "{option}: {}", daemon.log());
        assert!(!Path::new(&daemon.socket()).exists(), "{option}");
    }
}
