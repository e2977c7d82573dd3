//! Our runtime under podman, containerd and Docker's dockerd, in runc's place, and our shim under containerd (long tier).
//!
//! Each runs as a daemon of its own with all its folders below a folder of the test, in mount, process and network namespaces of the
//! test, so that nothing outlives it. They are looked for on this host, or below `WHARF_PEER_ROOT`, a root file system with other versions
//! of them (`debootstrap` makes one): podman, conmon, containerd, ctr, containerd-shim-runc-v2, dockerd, docker, iptables and script.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::vm::wanted;

const COMMON: &str = include_str!("peers/common.sh");

/// What the namespaces get before the script: what a root file system of its own needs of the host, and no link but `lo`.
const ENTER: &str = r#"
set -e
root=$1 folder=$2
mount --make-rprivate /
if [ "$root" != / ]; then
	mount --bind "$root" "$root"
	mount -t tmpfs tmpfs "$root/run"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t sysfs sysfs "$root/sys"
	mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
else
	mount -t tmpfs tmpfs /run
	groups=$(mktemp -d)
	mount --rbind /sys/fs/cgroup "$groups"
	mount -t sysfs sysfs /sys
	mount --move "$groups" /sys/fs/cgroup
	rmdir "$groups"
fi
# Paths are the same outside and inside.
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
ip link set lo up
if [ "$root" != / ]; then
	# Not by chroot, in which nobody may make a user namespace.
	cd "$root"
	pivot_root . mnt
	cd /
	umount -l /mnt
fi
exec /bin/sh "$folder/script"
"#;

fn root() -> PathBuf {
    std::env::var_os("WHARF_PEER_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

fn is_there(program: &str) -> bool {
    let folders = ["usr/sbin", "usr/bin", "usr/local/sbin", "usr/local/bin"];
    folders.iter().any(|folder| root().join(folder).join(program).exists())
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().expect("cp runs").success());
}

/// An image of busybox as `docker save` writes it, which all three read.
fn image(folder: &Path) {
    let made = folder.join("image");
    std::fs::create_dir(&made).expect("folder");
    let layer = testkit::busybox_tar(&made);
    let sum = Command::new("sha256sum").arg(&layer).output().expect("sha256sum runs");
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]}});
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["docker.io/library/busybox:latest"],
        "Layers": ["busybox.tar"]}]);
    std::fs::write(made.join("config.json"), config.to_string()).expect("written");
    std::fs::write(made.join("manifest.json"), manifest.to_string()).expect("written");
    let words = ["manifest.json", "config.json", "busybox.tar"];
    let done = Command::new("tar").arg("-C").arg(&made).arg("-cf").arg(folder.join("image.tar")).args(words).status();
    assert!(done.expect("tar").success(), "tar of the image");
    std::fs::remove_dir_all(&made).expect("the folder is ours");
}

/// Cgroups whose names only a test's peers give, over all hierarchies.
fn groups(of: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                if of.iter().any(|name_of| name == *name_of) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

fn run(test: &str, needs: &[&str], script: &str, parents: &[&str]) {
    if !wanted(test) {
        return;
    }
    for program in needs {
        let root = root();
        assert!(is_there(program), "{program} is missing in {}: install it or set WHARF_PEER_ROOT", root.display());
    }
    let before = groups(parents);
    let folder = tempfile::Builder::new().prefix("wharf-peer-").tempdir().expect("folder");
    // Users who are mapped go through it.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).expect("folder");
    copy(&testkit::binaries().join("wharf-runtime"), &bin.join("wharf-runtime"));
    copy(&testkit::binaries().join("wharf-shim"), &bin.join("containerd-shim-wharf-v2"));
    image(&bin);
    std::fs::write(folder.path().join("subid"), "nobody:100000:65536\nnogroup:100000:65536\n").expect("written");
    let text = folder.path().to_str().expect("UTF-8").to_owned();
    // Another runtime's path, as seen inside, shows what is this script's own mistake.
    let runtime = std::env::var("WHARF_RUNTIME").unwrap_or_else(|_| format!("{text}/bin/wharf-runtime"));
    let head = format!("W={text} RUNTIME={runtime}\n");
    std::fs::write(folder.path().join("script"), [&head, COMMON, script, "\nexit $failed\n"].concat())
        .expect("written");
    let log = folder.path().join("output");
    let output = std::fs::File::create(&log).expect("file");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", ENTER, "sh"]);
    command
        .arg(root())
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("file"))
        .stderr(output);
    // Only what a login has.
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    let status = command.status().expect("unshare runs");
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    println!("{said}");
    if root() != Path::new("/") {
        // Where the folder was shown inside.
        let _ = std::fs::remove_dir(root().join(text.trim_start_matches('/')));
    }
    assert!(status.success(), "{status}");
    let left: Vec<_> = groups(parents).into_iter().filter(|g| !before.contains(g)).collect();
    // The parent stays with each of these engines, whatever the runtime; nothing may be in it.
    for parent in left {
        // podman's own, for its monitors, which are gone.
        let _ = std::fs::remove_dir(parent.join("conmon"));
        let inner: Vec<_> =
            std::fs::read_dir(&parent).expect("group").flatten().filter(|e| e.path().is_dir()).collect();
        assert!(inner.is_empty(), "left behind: {inner:?}");
        std::fs::remove_dir(&parent).expect("an empty group");
    }
}

#[test]
fn podman_runs_containers_by_our_runtime() {
    let needs = ["podman", "conmon", "script"];
    run("podman_runs_containers_by_our_runtime", &needs, include_str!("peers/podman.sh"), &["libpod_parent"]);
}

#[test]
fn containerd_runs_containers_by_our_runtime_and_by_our_shim() {
    let needs = ["containerd", "ctr", "containerd-shim-runc-v2", "script"];
    let name = "containerd_runs_containers_by_our_runtime_and_by_our_shim";
    run(name, &needs, include_str!("peers/containerd.sh"), &["default"]);
}

#[test]
fn dockers_daemon_runs_containers_by_our_runtime() {
    let needs = ["dockerd", "docker", "containerd", "containerd-shim-runc-v2", "iptables", "script"];
    run("dockers_daemon_runs_containers_by_our_runtime", &needs, include_str!("peers/dockerd.sh"), &["docker"]);
}
