//! The base image of the tests: Debian's static busybox with its applets, as a tar archive.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Daemon;

/// Finds the static busybox of Debian's package `busybox-static`.
///
/// # Panics
/// When it is not installed.
pub fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|p| p.exists());
    found.expect("busybox is missing: apt-get install busybox-static")
}

/// Writes a tar archive of a small root file system below `folder` and returns its path.
///
/// # Panics
/// When a step fails: without the image no test can run.
pub fn busybox_tar(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    for name in ["bin", "tmp", "etc", "root", "proc", "sys", "dev", "var", "home"] {
        fs::create_dir_all(root.join(name)).expect("folder of the image");
    }
    fs::copy(busybox(), root.join("bin/busybox")).expect("busybox");
    let listed = Command::new(busybox()).arg("--list").output().expect("busybox --list");
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("applet");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nstaff:x:50:nobody\nnogroup:x:65534:\n").expect("group");
    let file = folder.join("busybox.tar");
    let done = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&file).arg(".").status();
    assert!(done.expect("tar").success(), "tar of the base image");
    fs::remove_dir_all(&root).expect("the folder is ours");
    file
}

/// Imports the base image as `busybox:latest` into a daemon.
///
/// # Panics
/// When the import fails.
pub fn base_image(daemon: &Daemon) {
    let file = busybox_tar(daemon.folder());
    let path = file.to_str().expect("temporary folders have plain names");
    daemon.docker(&["import", path, "busybox:latest"]).ok();
    fs::remove_file(&file).expect("the file is ours");
}
