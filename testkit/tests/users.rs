//! `--userns-remap`: containers in a user namespace with subordinate ids. Layers, and with them what cp, diff, commit and export
//! give, have the ids that are seen inside; processes and volumes have the host's.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use testkit::{Daemon, DaemonOptions, eventually};

const MAP: &str = "0 100000 65536";

fn options(arguments: &[&str]) -> DaemonOptions {
    let line = "nobody:100000:65536".to_owned();
    DaemonOptions {
        arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        etc: vec![("subuid".to_owned(), line.clone()), ("subgid".to_owned(), line)],
        ..DaemonOptions::default()
    }
}

fn remapped(more: &[&str]) -> Daemon {
    let daemon = Daemon::start(options(&[&["--userns-remap", "nobody:nogroup"], more].concat()));
    testkit::base_image(&daemon);
    daemon
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn host_id(path: &Path) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (found.uid(), found.gid())
}

/// Owners and names of what `docker <words>` writes as a tar stream.
fn listed(daemon: &Daemon, words: &str) -> String {
    let script = format!("{} {words} | tar -tv --numeric-owner", testkit::binaries().join("docker").display());
    let out = Command::new("sh").args(["-c", &script]).env("DOCKER_HOST", daemon.host()).output().expect("it runs");
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| squeezed(l) + "\n").collect()
}

fn has_owner(list: &str, owner: &str, name: &str) -> bool {
    list.lines().any(|line| line.split(' ').nth(1) == Some(owner) && line.ends_with(&format!(" {name}")))
}

#[test]
fn containers_have_other_ids_on_the_host_than_inside_and_host_mode_has_the_same() {
    let daemon = remapped(&[]);
    let run = |more: &[&str], script: &str| {
        let words = [&["run", "--rm"], more, &["busybox", "sh", "-c", script]].concat();
        squeezed(&daemon.docker(&words).ok())
    };
    assert_eq!(run(&[], "cat /proc/self/uid_map"), MAP);
    assert_eq!(run(&[], "cat /proc/self/gid_map"), MAP);
    assert_eq!(run(&["--userns", "host"], "cat /proc/self/uid_map"), "0 0 4294967295");
    assert_eq!(run(&[], "id -u; stat -c %u:%g / /bin/busybox /etc/hosts"), "0 0:0 0:0 0:0");
    assert_eq!(run(&["--userns", "host"], "stat -c %u:%g / /bin/busybox"), "0:0 0:0");
    // What needs the network namespace to belong to the user namespace: sysfs, and rights within.
    assert!(run(&[], "ls /sys/class/net").contains("eth0"));
    assert_eq!(run(&["--cap-add", "NET_ADMIN"], "ip link set lo down && echo down"), "down");
    assert_eq!(run(&["--network", "none"], "ls /sys/class/net"), "lo");
    daemon.docker(&["network", "create", "own"]).ok();
    assert!(run(&["--network", "own"], "ls /sys/class/net; ip route").contains("default via"));
    assert_eq!(run(&["--init", "--read-only", "--tmpfs", "/t"], "touch /t/x && stat -c %u /t/x"), "0");
    assert_eq!(run(&["-t"], "tty"), "/dev/pts/0");
    assert_eq!(run(&["-u", "1000:1000"], "touch /dev/shm/x && stat -c %u:%g /dev/shm/x; id -u"), "1000:1000 1000");
    // Root inside is nobody outside.
    daemon.docker(&["run", "-d", "--name", "long", "busybox", "sleep", "600"]).ok();
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "long"]).ok();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(squeezed(&status).contains("Uid: 100000 100000 100000 100000 Gid: 100000"), "{status}");
    // Namespaces that are joined bring the user namespace along.
    assert!(run(&["--network", "container:long"], "ls /sys/class/net").contains("eth0"));
    for more in [&[][..], &["--network", "none"], &["--network", "own"]] {
        let shown = run(&[&["--pid", "container:long"], more].concat(), "ls /sys/class/net; ps");
        assert!(shown.contains("lo") && shown.contains("sleep 600"), "{more:?}: {shown}");
    }
    assert!(daemon.docker(&["exec", "long", "cat", "/proc/self/uid_map"]).ok().contains("100000"));
    daemon.docker(&["run", "-d", "--name", "giver", "--ipc", "shareable", "busybox", "sleep", "600"]).ok();
    assert_eq!(run(&["--ipc", "container:giver"], "touch /dev/shm/x && stat -c %u /dev/shm/x"), "0");
    daemon.docker(&["exec", "giver", "test", "-e", "/dev/shm/x"]).ok();
    let shown = daemon.docker(&["info", "-f", "{{.SecurityOptions}} {{.DockerRootDir}}"]).ok();
    assert!(shown.contains("name=userns") && shown.ends_with("/100000.100000"), "{shown}");
    let root = daemon.data_root().join("100000.100000");
    assert_eq!((host_id(&root), std::fs::metadata(&root).expect("there").mode() & 0o7777), ((0, 100_000), 0o710));
    daemon.docker(&["rm", "-f", "long", "giver"]).ok();
    daemon.docker(&["network", "rm", "own"]).ok();
}

fn files_have_the_ids_of_inside(daemon: &Daemon) {
    let script = "mkdir /made; echo text >/made/mine; chown 1000:1001 /made/mine; chown 5:6 /etc/passwd; rm -r /var; \
                  ln -s mine /made/link; sleep 600";
    daemon.docker(&["run", "-d", "--name", "first", "busybox", "sh", "-c", script]).ok();
    eventually("it is made", || {
        (daemon.docker(&["exec", "first", "test", "-e", "/made/link"]).code == 0).then_some(())
    });
    let folder = daemon.folder().join("files");
    let _ = std::fs::create_dir(&folder);
    let given = folder.join("given");
    std::fs::write(&given, "given").expect("written");
    chown(&given, Some(1000), Some(1001)).expect("given away");
    let given = given.to_str().expect("plain").to_owned();
    let inside = |path: &str| daemon.docker(&["exec", "first", "stat", "-c", "%u:%g", path]).ok();
    for state in ["running", "stopped"] {
        let out = listed(daemon, "cp first:/made -");
        assert!(has_owner(&out, "1000/1001", "made/mine") && has_owner(&out, "0/0", "made/"), "{state}: {out}");
        daemon.docker(&["cp", "-a", &given, &format!("first:/made/{state}")]).ok();
        daemon.docker(&["cp", &given, &format!("first:/made/plain-{state}")]).ok();
        if state == "running" {
            daemon.docker(&["stop", "-t", "0", "first"]).ok();
        }
    }
    daemon.docker(&["start", "first"]).ok();
    for state in ["running", "stopped"] {
        assert_eq!(inside(&format!("/made/{state}")), "1000:1001", "{state}");
        assert_eq!(inside(&format!("/made/plain-{state}")), inside("/made/plain-running"), "{state}");
        assert_eq!(daemon.docker(&["exec", "first", "cat", &format!("/made/{state}")]).ok(), "given");
    }
    assert_eq!(inside("/made/mine"), "1000:1001", "the same after a stop");
    let changed = daemon.docker(&["diff", "first"]).ok();
    for line in ["A /made", "A /made/mine", "C /etc/passwd", "D /var"] {
        assert!(changed.lines().any(|l| l == line), "{line}: {changed}");
    }
    let whole = listed(daemon, "export first");
    assert!(has_owner(&whole, "1000/1001", "made/mine") && has_owner(&whole, "5/6", "etc/passwd"), "{whole}");
    assert!(has_owner(&whole, "0/0", "bin/busybox") || whole.contains("bin/busybox"), "{whole}");
    daemon.docker(&["commit", "first", "made"]).ok();
    for mode in [&[][..], &["--userns", "host"]] {
        let words = [&["run", "--rm"], mode, &["made", "stat", "-c", "%u:%g", "/made/mine", "/etc/passwd", "/made"]];
        assert_eq!(squeezed(&daemon.docker(&words.concat()).ok()), "1000:1001 5:6 0:0", "{mode:?}");
    }
    assert_ne!(daemon.docker(&["run", "--rm", "made", "test", "-e", "/var"]).code, 0, "what was removed stays removed");
    daemon.docker(&["rm", "-f", "first"]).ok();
}

#[test]
fn cp_diff_commit_and_export_give_the_ids_of_inside() {
    files_have_the_ids_of_inside(&remapped(&[]));
}

#[test]
fn drivers_that_copy_give_the_ids_of_inside_as_well() {
    files_have_the_ids_of_inside(&remapped(&["--storage-driver", "vfs"]));
}

#[test]
fn volumes_belong_to_the_root_of_the_namespace_and_binds_to_whom_they_did() {
    let daemon = remapped(&[]);
    let run = |more: &[&str], script: &str| {
        daemon.docker(&[&["run", "--rm"], more, &["busybox", "sh", "-c", script]].concat())
    };
    run(&["-v", "vol:/data"], "touch /data/x && chown 7:8 /data/x").ok();
    let data = daemon.data_root().join("100000.100000/volumes/vol/_data");
    assert_eq!((host_id(&data), host_id(&data.join("x"))), ((100_000, 100_000), (100_007, 100_008)));
    // Content of the image goes into an empty volume, owners shifted.
    daemon
        .docker(&["run", "--name", "owned", "busybox", "sh", "-c", "mkdir /own && touch /own/f && chown -R 9:10 /own"])
        .ok();
    daemon.docker(&["commit", "owned", "owned"]).ok();
    let shown = daemon.docker(&["run", "--rm", "-v", "filled:/own", "owned", "stat", "-c", "%u:%g", "/own", "/own/f"]);
    assert_eq!(squeezed(&shown.ok()), "9:10 9:10");
    assert_eq!(host_id(&daemon.data_root().join("100000.100000/volumes/filled/_data/f")), (100_009, 100_010));
    // A volume's files through cp, running or not.
    daemon.docker(&["create", "--name", "look", "-v", "vol:/data", "busybox", "sleep", "600"]).ok();
    assert!(has_owner(&listed(&daemon, "cp look:/data -"), "7/8", "data/x"), "at rest");
    daemon.docker(&["start", "look"]).ok();
    assert!(has_owner(&listed(&daemon, "cp look:/data -"), "7/8", "data/x"), "running");
    // Binds are the host's.
    let bind = daemon.folder().join("bind");
    std::fs::create_dir(&bind).expect("made");
    let at = format!("{}:/bind", bind.display());
    assert_ne!(run(&["-v", &at], "touch /bind/x").code, 0, "root of the host owns it");
    chown(&bind, Some(100_000), Some(100_000)).expect("given away");
    run(&["-v", &at], "touch /bind/x").ok();
    assert_eq!(host_id(&bind.join("x")), (100_000, 100_000));
    daemon.docker(&["rm", "-f", "look", "owned"]).ok();
}

#[test]
fn processes_that_join_and_a_daemon_that_comes_back_find_the_same_ids() {
    let mut daemon = remapped(&[]);
    let health = ["--health-cmd", "touch /healthy", "--health-interval", "100ms"];
    daemon
        .docker(
            &[&["run", "-d", "--name", "kept", "--restart", "always"], &health[..], &["busybox", "sleep", "600"]]
                .concat(),
        )
        .ok();
    eventually("it is healthy", || {
        (daemon.docker(&["inspect", "-f", "{{.State.Health.Status}}", "kept"]).ok() == "healthy").then_some(())
    });
    let look = |daemon: &Daemon| {
        daemon.docker(&["exec", "-u", "12", "kept", "touch", "/dev/shm/by-exec"]).ok();
        squeezed(&daemon.docker(&["exec", "kept", "stat", "-c", "%u", "/healthy", "/dev/shm/by-exec"]).ok())
    };
    assert_eq!(look(&daemon), "0 12");
    daemon.kill();
    daemon.launch();
    assert_eq!(look(&daemon), "0 12");
    assert!(has_owner(&listed(&daemon, "cp kept:/healthy -"), "0/0", "healthy"));
    daemon.docker(&["restart", "-t", "0", "kept"]).ok();
    assert_eq!(look(&daemon), "0 12");
    daemon.docker(&["rm", "-f", "kept"]).ok();
}

#[test]
fn what_a_user_namespace_cannot_have_is_refused_in_dockers_words() {
    let daemon = remapped(&[]);
    for (flags, words) in [
        (
            &["--privileged"][..],
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (&["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (&["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
    ] {
        let refused = daemon.docker(&[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(refused.code == 125 && refused.stderr.contains(words), "{flags:?}: {}", refused.stderr);
        daemon.docker(&[&["run", "--rm", "--userns", "host"], flags, &["busybox", "true"]].concat()).ok();
    }
}

#[test]
fn the_default_user_is_made_with_its_ranges_and_missing_ones_stop_the_daemon() {
    let mut daemon = Daemon::prepare(options(&["--userns-remap", "default"]));
    daemon.launch();
    for file in ["subuid", "subgid"] {
        let text = std::fs::read_to_string(daemon.etc().join(file)).expect("there");
        assert!(text.lines().any(|l| l.starts_with("dockremap:") && l.ends_with(":65536")), "{file}: {text}");
        assert!(!text.contains("dockremap:100000"), "those are nobody's: {text}");
    }
    let passwd = std::fs::read_to_string(daemon.etc().join("passwd")).expect("there");
    assert!(passwd.contains("\ndockremap:"), "{passwd}");
    drop(daemon);
    for (wanted, words) in [
        ("daemon", "Can't create ID mappings: no subuid ranges found for user \"daemon\""),
        ("no-such-user", "Error during uid lookup for \"no-such-user\""),
        ("a:b:c", "Invalid user/group specification in --userns-remap: \"a:b:c\""),
    ] {
        let mut daemon = Daemon::prepare(options(&["--userns-remap", wanted]));
        daemon.spawn();
        assert!(!daemon.wait_for_end().success());
        assert!(daemon.log().contains(words), "{wanted}: {}", daemon.log());
    }
}
