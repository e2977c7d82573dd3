//! Files of containers from outside: `docker cp` both ways, `docker diff`, and who tries to abuse them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use testkit::{Cli, Daemon};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[test]
fn files_and_folders_are_copied_into_running_and_resting_containers_and_out_again() {
    let daemon = Daemon::with_image();
    let here = daemon.folder().join("here");
    fs::create_dir_all(here.join("d/sub")).expect("made");
    fs::write(here.join("d/sub/f"), "text").expect("written");
    fs::set_permissions(here.join("d/sub/f"), fs::Permissions::from_mode(0o4751)).expect("set");
    symlink("sub/f", here.join("d/l")).expect("linked");
    for cli in Cli::all() {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&["run", "-d", "--name", "up", "-v", "kept:/v", "busybox", "sleep", "1000"]).ok();
        docker(&["create", "--name", "down", "-v", "kept:/v/deep/er", "busybox", "true"]).ok();
        for name in ["up", "down"] {
            docker(&["cp", text(&here.join("d")), &format!("{name}:/tmp/")]).ok();
            docker(&["cp", text(&here.join("d")), &format!("{name}:/new")]).ok();
            let back = daemon.folder().join(format!("back-{name}"));
            docker(&["cp", &format!("{name}:/new"), text(&back)]).ok();
            let meta = fs::metadata(back.join("sub/f")).expect("copied");
            assert_eq!((meta.mode() & 0o7777, meta.len()), (0o4751, 4));
            assert_eq!(fs::read_link(back.join("l")).expect("a link").to_str(), Some("sub/f"));
            fs::remove_dir_all(&back).expect("ours");
            let listed = docker(&["cp", &format!("{name}:/tmp/d"), "-"]);
            assert!(listed.stdout.windows(7).any(|w| w == b"d/sub/f"), "{name}: a tar stream");
        }
        assert_eq!(docker(&["exec", "up", "cat", "/tmp/d/l", "/new/sub/f"]).ok(), "texttext");
        // Into a volume, also where the container never ran and its mount point is not there yet.
        docker(&["cp", text(&here.join("d/sub/f")), "down:/v/deep/er/from-down"]).ok();
        assert_eq!(docker(&["exec", "up", "cat", "/v/from-down"]).ok(), "text");
        docker(&["exec", "up", "ln", "-s", "/nowhere/../etc/passwd", "/link"]).ok();
        docker(&["cp", "-L", "up:/link", text(&here.join("passwd"))]).ok();
        assert!(fs::read_to_string(here.join("passwd")).expect("copied").starts_with("root:"));
        docker(&["rm", "-f", "up", "down"]).ok();
        docker(&["volume", "rm", "kept"]).ok();
    }
}

#[test]
fn a_copied_file_belongs_to_its_owner_or_with_a_to_the_containers_user() {
    let daemon = Daemon::with_image();
    let file = daemon.folder().join("mine");
    fs::write(&file, "x").expect("written");
    std::os::unix::fs::chown(&file, Some(1234), Some(1235)).expect("given away");
    for cli in Cli::all() {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&["run", "-d", "--name", "own", "-u", "nobody", "busybox", "sleep", "1000"]).ok();
        docker(&["cp", text(&file), "own:/plain"]).ok();
        docker(&["cp", "-a", text(&file), "own:/archive"]).ok();
        let owners = docker(&["exec", "own", "stat", "-c", "%u:%g", "/plain", "/archive"]).ok();
        assert_eq!(owners, "1234:1235\n65534:65534");
        docker(&["rm", "-f", "own"]).ok();
    }
}

#[test]
fn what_is_read_only_missing_or_of_another_kind_is_refused_in_dockers_words() {
    let daemon = Daemon::with_image();
    let file = daemon.folder().join("f");
    fs::write(&file, "x").expect("written");
    let mount = format!("{}:/ro:ro", daemon.folder().display());
    for cli in Cli::all() {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&["run", "-d", "--name", "ro", "--read-only", "-v", &mount, "busybox", "sleep", "1000"]).ok();
        docker(&["create", "--name", "rest", "--read-only", "-v", &mount, "busybox", "true"]).ok();
        for name in ["ro", "rest"] {
            let to = |path: &str| docker(&["cp", text(&file), &format!("{name}:{path}")]);
            to("/f").fails(1, "container rootfs is marked read-only");
            to("/ro/").fails(1, "mounted volume is marked read-only");
            let missing = docker(&["cp", &format!("{name}:/no/such"), "-"]);
            missing.fails(1, &format!("Could not find the file /no/such in container {name}"));
        }
        docker(&["cp", "nosuch:/x", "-"]).fails(1, "No such container: nosuch");
        docker(&["rm", "-f", "ro", "rest"]).ok();
    }
    daemon.docker(&["create", "--name", "kinds", "busybox", "true"]).ok();
    let put = |path: &str, body: &[u8]| {
        daemon.rest().call("PUT", &format!("/v1.51/containers/kinds/archive?noOverwriteDirNonDir=1&path={path}"), body)
    };
    assert_eq!(put("/etc/passwd", b"").expect("answered").json()["message"], "extraction point is not a directory");
    let header = |name: &str| {
        let mut block = [0_u8; 1536];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(b"00000000000");
        block[148..156].copy_from_slice(b"        ");
        block[156] = b'0';
        block[257..263].copy_from_slice(b"ustar\0");
        let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        block
    };
    let refused = put("/", &header("tmp")).expect("answered");
    assert_eq!(refused.status, 400);
    assert!(refused.json()["message"].as_str().is_some_and(|m| m.contains("cannot overwrite directory")));
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&["run", "--name", "changed", "busybox", "true"]).ok();
        assert_eq!(docker(&["diff", "changed"]).ok(), "");
        docker(&["rm", "changed"]).ok();
        let script = "rm /bin/tar; mkdir -p /a/b; echo x > /a/b/c; echo y >> /etc/group; rm -r /home; touch /var/n";
        docker(&["run", "--name", "changed", "busybox", "sh", "-c", script]).ok();
        let listed = docker(&["diff", "changed"]).ok();
        let mut lines: Vec<&str> = listed.lines().collect();
        lines.sort_unstable_by_key(|l| &l[2..]);
        // A folder that holds a change is listed, as with the containerd image store; overlay2 leaves out /etc here.
        let expected = [
            "A /a",
            "A /a/b",
            "A /a/b/c",
            "C /bin",
            "D /bin/tar",
            "C /etc",
            "C /etc/group",
            "D /home",
            "C /var",
            "A /var/n",
        ];
        assert_eq!(lines, expected);
        docker(&["rm", "changed"]).ok();
    }
}

/// A container that swaps a folder for a link to `/` as fast as it can.
const SWAPPER: &str = "mkdir -p /t/real /t/real/sub; echo inside > /t/real/secret; \
                       while :; do mv /t/x /t/gone; ln -s / /t/x; rm /t/x; cp -r /t/real /t/x; rm -r /t/gone; done";

#[test]
fn cve_2018_15664_a_path_that_becomes_a_link_while_it_is_copied_stays_in_the_container() {
    let daemon = Daemon::with_image();
    let name = format!("secret-{}", std::process::id());
    // On the host the name exists at the root of everything that the link could lead to.
    let canary = Path::new("/").join(&name);
    fs::write(&canary, "host").expect("written");
    daemon.docker(&["run", "-d", "--name", "race", "busybox", "sh", "-c", SWAPPER]).ok();
    let file = daemon.folder().join(&name);
    fs::write(&file, "from outside").expect("written");
    let (mut read, mut written) = (0, 0);
    for round in 0..60 {
        let out = daemon.folder().join(format!("out{round}"));
        let copied = daemon.docker(&["cp", &format!("race:/t/x/{name}"), text(&out)]);
        if copied.code == 0 {
            read += 1;
            // Earlier rounds may have put it there, by the link or not; the host's content must never come.
            assert_ne!(fs::read_to_string(&out).expect("copied"), "host");
        }
        written += i32::from(daemon.docker(&["cp", text(&file), "race:/t/x/"]).code == 0);
        assert_eq!(fs::read_to_string(&canary).expect("still there"), "host");
    }
    fs::remove_file(&canary).expect("ours");
    daemon.docker(&["rm", "-f", "race"]).ok();
    assert!(written > 0, "the race was never run: {read} read");
}

#[test]
fn cve_2026_41568_cve_2026_42306_mount_points_that_move_are_never_made_or_mounted_on_the_host() {
    let daemon = Daemon::with_image();
    let target = daemon.folder().join("target");
    fs::create_dir(&target).expect("made");
    let swap = format!(
        "while :; do mv /a /b; ln -s {} /a; rm /a; mv /b /a; done",
        target.parent().expect("has one").display()
    );
    daemon.docker(&["run", "-d", "--name", "race", "-v", "vol:/a/target/deep", "busybox", "sh", "-c", &swap]).ok();
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("read").lines().count();
    let before = mounts();
    let file = daemon.folder().join("f");
    fs::write(&file, "x").expect("written");
    for _ in 0..60 {
        daemon.docker(&["cp", text(&file), "race:/a/target/deep/"]);
        daemon.docker(&["cp", "race:/a", "-"]);
        assert_eq!(fs::read_dir(&target).expect("read").count(), 0, "nothing may appear on the host");
        assert!(mounts() <= before, "nothing may be mounted on the host");
    }
    daemon.docker(&["rm", "-f", "race"]).ok();
}

#[test]
fn cve_2019_14271_cve_2026_41567_nothing_of_the_container_runs_when_files_are_copied() {
    let daemon = Daemon::with_image();
    // Whatever might be called for help says so in a file of the container.
    let trap = "for p in tar xz unxz gzip unpigz pigz getent id; do rm -f /bin/$p; \
                printf '#!/bin/sh\\necho $0 >> /called\\n' > /bin/$p; chmod +x /bin/$p; done; \
                mkdir -p /lib; cp /bin/busybox /lib/libnss_files.so.2; sleep 1000";
    daemon.docker(&["run", "-d", "--name", "trap", "-u", "0", "busybox", "sh", "-c", trap]).ok();
    testkit::eventually("the trap is set", || {
        (daemon.docker(&["exec", "trap", "test", "-e", "/lib/libnss_files.so.2"]).code == 0).then_some(())
    });
    let file = daemon.folder().join("f");
    fs::write(&file, "x").expect("written");
    daemon.docker(&["cp", "-a", text(&file), "trap:/f"]).ok();
    daemon.docker(&["cp", "trap:/etc", "-"]).ok();
    let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4];
    let answer = daemon.rest().call("PUT", "/v1.51/containers/trap/archive?path=/", &xz).expect("answered");
    assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(daemon.docker(&["exec", "trap", "ls", "/called"]).code, 1);
    daemon.docker(&["rm", "-f", "trap"]).ok();
}

#[test]
fn a_device_or_a_fifo_in_a_container_is_described_and_never_opened() {
    let daemon = Daemon::with_image();
    let make = "mknod /tmp/d c 1 5; mknod /tmp/b b 259 0; mkfifo /tmp/p; sleep 1000";
    daemon.docker(&["run", "-d", "--name", "odd", "busybox", "sh", "-c", make]).ok();
    testkit::eventually("the FIFO is there", || {
        (daemon.docker(&["exec", "odd", "test", "-p", "/tmp/p"]).code == 0).then_some(())
    });
    let done = daemon.docker(&["cp", "odd:/tmp", "-"]);
    done.ok();
    // Three entries and their folder, no content: an endless /dev/zero would be seen.
    assert!(done.stdout.len() < 20_000, "{} bytes", done.stdout.len());
    daemon.docker(&["rm", "-f", "odd"]).ok();
}

#[test]
fn a_device_is_not_replaced_by_a_copy() {
    let daemon = Daemon::with_image();
    let made = daemon.docker(&["create", "busybox", "true"]).ok();
    // A node of our own: were it the host's, a failure would take it away from everybody.
    let node = daemon.folder().join("null");
    let (mode, number) = (rustix::fs::Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3));
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::CharacterDevice, mode, number).expect("node");
    let path = node.display().to_string();
    for cli in testkit::Cli::all() {
        let text = format!("invalid output path: \"{path}\" must be a directory or a regular file: got a device");
        daemon.run(cli, &["cp", &format!("{made}:/bin/busybox"), &path]).fails(1, &text);
        let kind = std::fs::symlink_metadata(&node).expect("still there").file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&kind));
    }
}
