//! Flags of `docker run`, `create` and `update` beside those of `flags.rs`: long names, old names, those that need a second
//! container or a terminal, and those that this host or this platform cannot give.

use std::time::{Duration, Instant};

use testkit::{Cli, Daemon, Session, eventually};

/// Each: the flags, what runs, what it prints.
const ROWS: &[(&str, &str, &str)] = &[
    ("--env X=y", "echo $X", "y"),
    ("--workdir /tmp", "pwd", "/tmp"),
    ("--volume /x", "grep -c ' /x ' /proc/mounts", "1"),
    ("--user 7", "id -u", "7"),
    ("--hostname hh", "hostname", "hh"),
    ("--interactive", "cat; echo end", "end"),
    ("--dns-opt ndots:3", "grep -o ndots:3 /etc/resolv.conf", "ndots:3"),
    ("--dns-option ndots:4", "grep -o ndots:4 /etc/resolv.conf", "ndots:4"),
    (
        "--cpu-shares 512",
        "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || sed s/20/512/ /sys/fs/cgroup/cpu.weight",
        "512",
    ),
    (
        "--memory 64m",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
        "67108864",
    ),
    // Signatures are not looked at, whatever is asked for; kernel memory has been without effect since 28.0.
    ("--disable-content-trust", "echo ok", "ok"),
    ("--disable-content-trust=false", "echo ok", "ok"),
    ("--kernel-memory 100m", "echo ok", "ok"),
    ("--link-local-ip 169.254.9.9", "echo ok", "ok"),
    ("--isolation default", "echo ok", "ok"),
];

#[test]
fn long_and_old_names_of_flags_do_what_the_others_do() {
    let daemon = Daemon::with_image();
    let mut wrong = Vec::new();
    for (flags, script, shows) in ROWS {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(flags.split(' '));
        arguments.extend(["busybox", "sh", "-c", script]);
        let done = daemon.docker(&arguments);
        if done.text() != *shows {
            wrong.push(format!("{flags}: {:?}, not {shows:?} ({})", done.text(), done.stderr.trim()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let attached =
        daemon.docker(&["run", "--rm", "--attach", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((attached.ok().as_str(), attached.stderr.as_str()), ("", "err\n"));
    let arguments =
        ["run", "--detach", "--name", "dd", "--publish", "127.0.0.1::80", "--publish-all", "--expose", "81"];
    let id = daemon.docker(&[&arguments[..], &["--volume", "/vol", "busybox", "sleep", "1000"]].concat()).ok();
    assert_eq!(id.len(), 64);
    let ports = daemon.docker(&["port", "dd"]).ok();
    assert!(ports.contains("80/tcp -> 127.0.0.1:") && ports.contains("81/tcp -> 0.0.0.0:"), "{ports}");
    daemon.docker(&["exec", "dd", "touch", "/vol/f"]).ok();
    let from = |mode: &str, script: &str| {
        daemon.docker(&["run", "--rm", "--volumes-from", &format!("dd{mode}"), "busybox", "sh", "-c", script])
    };
    assert_eq!(from("", "touch /vol/g; ls /vol").ok(), "f\ng");
    from(":ro", "touch /vol/h").fails(1, "Read-only file system");
    daemon.docker(&["rm", "-f", "-v", "dd"]).ok();
}

#[test]
fn names_and_addresses_on_a_network_are_those_of_the_flags() {
    let daemon = Daemon::with_image();
    daemon.docker(&["network", "create", "--subnet", "10.231.90.0/24", "nn"]).ok();
    let flags = ["--network", "nn", "--net-alias", "old", "--network-alias", "new", "--link-local-ip", "169.254.7.7"];
    daemon.docker(&[&["run", "-d", "--name", "na"], &flags[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let shown = daemon.docker(&["inspect", "-f", "{{json .NetworkSettings.Networks.nn}}", "na"]).ok();
    assert!(shown.contains(r#""LinkLocalIPs":["169.254.7.7"]"#), "{shown}");
    for name in ["old", "new"] {
        let found = daemon.docker(&["run", "--rm", "--network", "nn", "busybox", "nslookup", name]).text();
        assert!(found.contains("10.231.90.2"), "{name}: {found}");
    }
    daemon
        .docker(&["run", "--rm", "--net-alias", "x", "busybox", "true"])
        .fails(125, "network-scoped aliases are only supported for user-defined networks");
    daemon.docker(&["rm", "-f", "na"]).ok();
}

/// Whether block devices have weights here (CFQ is gone; BFQ is often not built).
fn weights() -> bool {
    let files = ["/sys/fs/cgroup/blkio/blkio.weight", "/sys/fs/cgroup/blkio/blkio.bfq.weight"];
    files.iter().any(|file| std::path::Path::new(file).exists())
}

#[test]
fn what_the_kernel_or_the_platform_cannot_give_is_said_in_dockers_words() {
    let daemon = Daemon::with_image();
    let disk = std::fs::read_dir("/sys/block").expect("sysfs").flatten().next().expect("a block device").file_name();
    let device = format!("/dev/{}:300", disk.to_string_lossy());
    let weight = daemon.docker(&["create", "--name", "ww", "--blkio-weight", "300", "busybox", "true"]);
    let each = daemon.docker(&["create", "--name", "wd", "--blkio-weight-device", &device, "busybox", "true"]);
    weight.ok();
    each.ok();
    let show = |name: &str, field: &str| {
        daemon.docker(&["inspect", "-f", &format!("{{{{json .HostConfig.{field}}}}}"), name]).ok()
    };
    if weights() {
        assert_eq!(show("ww", "BlkioWeight"), "300");
        assert!(show("wd", "BlkioWeightDevice").contains("300"));
    } else {
        assert!(weight.stderr.contains("does not support Block I/O weight or"), "{}", weight.stderr);
        assert!(each.stderr.contains("does not support Block I/O weight_device or"), "{}", each.stderr);
        assert_eq!(show("ww", "BlkioWeight"), "0");
    }
    let updated =
        daemon.docker(&["update", "--blkio-weight", "400", "--cpu-shares", "256", "--kernel-memory", "100m", "ww"]);
    assert_eq!(updated.ok(), "ww", "{}", updated.stderr);
    assert_eq!(show("ww", "CpuShares"), "256");
    if !weights() {
        assert!(updated.stderr.contains("Weight discarded"), "{}", updated.stderr);
    }
    let real_time = ["--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000", "busybox", "true"];
    let refused = daemon.docker(&[&["run", "--rm"], &real_time[..]].concat());
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        refused.fails(125, "cpu real-time runtime cannot be higher than cpu real-time period");
        daemon.docker(&["update", "--cpu-rt-runtime", "1000", "--cpu-rt-period", "2000", "ww"]).ok();
        assert_eq!((show("ww", "CpuRealtimeRuntime"), show("ww", "CpuRealtimePeriod")), ("1000".into(), "2000".into()));
    } else {
        refused.fails(125, "kernel does not support CPU real-time scheduler");
    }
    // What only Windows has. Docker's own client refuses some of it before it asks the daemon.
    daemon
        .docker(&["run", "--rm", "--isolation", "hyperv", "busybox", "true"])
        .fails(125, "invalid isolation (hyperv)");
    daemon.docker(&["run", "--rm", "--io-maxbandwidth", "1m", "busybox", "true"]).fails(125, "QoS maximum bandwidth");
    daemon.docker(&["run", "--rm", "--io-maxiops", "10", "busybox", "true"]).fails(125, "QoS maximum IOPs");
    let percent = daemon.docker(&["run", "--rm", "--cpu-count", "2", "--cpu-percent", "10", "busybox", "true"]);
    percent.ok();
    assert!(percent.stderr.contains("linux does not support CPU percent"), "{}", percent.stderr);
}

/// Starts our client on a terminal of its own, by script(1).
fn on_terminal(daemon: &Daemon, line: &str) -> Session {
    let docker = Cli::Ours.program().expect("built");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("{} {line}", docker.display()), "/dev/null"]);
    command.env("DOCKER_HOST", daemon.host()).env("DOCKER_CONFIG", daemon.folder().join("config"));
    Session::start(command)
}

#[test]
fn a_terminal_is_left_by_the_keys_that_were_asked_for() {
    let daemon = Daemon::with_image();
    let mut session = on_terminal(
        &daemon,
        "run --interactive --tty --name kk --detach-keys ctrl-x,q busybox sh -c 'echo up; sleep 1000'",
    );
    assert_eq!(session.receive(2), b"up");
    session.send(b"\x18q");
    let left = session.finish();
    assert_eq!(left.code, 0, "{left:?}");
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Running}} {{.Config.Tty}}", "kk"]).ok(), "true true");
    daemon.docker(&["rm", "-f", "kk"]).ok();
}

#[test]
fn signals_reach_the_process_unless_they_are_kept_from_it() {
    let daemon = Daemon::with_image();
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";
    let start = |name: &str, proxy: &str| {
        let mut session = daemon.session(Cli::Ours, &["run", "--name", name, proxy, "busybox", "sh", "-c", script]);
        assert_eq!(session.receive(3), b"up\n");
        session.signal(rustix::process::Signal::TERM);
        session.finish()
    };
    assert_eq!(start("passed", "--sig-proxy").code, 7);
    let began = Instant::now();
    let kept = start("kept", "--sig-proxy=false");
    assert_ne!(kept.code, 7, "{kept:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Running}}", "kept"]).ok(), "true");
    daemon.docker(&["rm", "-f", "kept", "passed"]).ok();
    eventually("nothing is left", || daemon.docker(&["ps", "-aq"]).ok().is_empty().then_some(()));
}
