//! OCI runtimes of other makers under dockerd: Debian's runc and crun, and our own by its path. What a container does must not
//! depend on which of them made it.

use std::path::{Path, PathBuf};

use testkit::{Cli, Daemon, DaemonOptions, Residue, eventually};

/// The runtimes, by the names the tests give them.
const NAMES: [&str; 3] = ["debian-runc", "crun", "by-path"];

/// Their programs. A folder for what stands in for them.
fn programs(folder: &Path) -> [PathBuf; 3] {
    let find = |name: &str| {
        let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
        let file = folders.map(|f| PathBuf::from(f).join(name)).into_iter().find(|f| f.exists());
        file.unwrap_or_else(|| panic!("{name} is missing: scripts/prerequisites installs it"))
    };
    let mut crun = find("crun");
    if Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        // crun refuses a host whose second hierarchy has controllers, too: it is not shown that one.
        let text = format!(
            "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec \"$0\" \"$@\"' {} \"$@\"\n",
            crun.display()
        );
        crun = folder.join("crun");
        std::fs::write(&crun, text).expect("written");
        std::fs::set_permissions(&crun, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    }
    [find("runc"), crun, testkit::binaries().join("wharf-runtime")]
}

fn daemon() -> Daemon {
    let mut daemon = Daemon::prepare(DaemonOptions::default());
    let programs = programs(daemon.folder());
    let arguments = NAMES.iter().zip(programs).map(|(name, path)| format!("--add-runtime={name}={}", path.display()));
    daemon.options().arguments.extend(arguments);
    daemon.launch();
    testkit::base_image(&daemon);
    daemon
}

/// Nothing of any container is left but the daemon itself.
#[track_caller]
fn nothing_is_left(daemon: &Daemon) {
    let mut last = Residue::default();
    for _ in 0..100 {
        let residue = Residue::of_containers(daemon);
        // The bridge's own cgroup parent stays with the daemon, and shims that wait for work.
        let busy = residue.processes.iter().filter(|p| !p.contains("--spare")).count();
        if residue.mounts.is_empty() && residue.tasks.is_empty() && residue.containers.is_empty() && busy == 0 {
            return;
        }
        last = residue;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("left behind: {last:?}");
}

#[test]
fn a_run_gives_output_and_exit_code_whichever_runtime_made_it() {
    let daemon = daemon();
    for name in NAMES {
        let script = "echo out; echo err >&2; exit 7";
        let outcome = daemon.docker(&["run", "--rm", "--runtime", name, "busybox", "sh", "-c", script]);
        assert_eq!((outcome.code, outcome.text().as_str(), outcome.stderr.trim()), (7, "out", "err"), "{name}");
        // Bytes that go in come out, and end of input is end of input.
        let mut session = daemon.session(Cli::Ours, &["run", "--rm", "-i", "--runtime", name, "busybox", "cat"]);
        session.send(b"through\n");
        session.end_input();
        assert_eq!(session.finish().ok(), "through", "{name}");
        // The client goes by Go's words (docker/cli `toStatusError`), which crun does not use; the engine knows crun's, too.
        let codes = if name == "crun" { (125, 125) } else { (127, 126) };
        let folder = if name == "crun" { "128" } else { "126" };
        for (command, code, of_state) in [("nosuchcommand", codes.0, "127"), ("/etc", codes.1, folder)] {
            let c = format!("fails-{name}");
            let missing = daemon.docker(&["run", "--name", &c, "--runtime", name, "busybox", command]);
            missing.fails(code, "OCI runtime create failed: ");
            assert!(command == "/etc" || missing.stderr.contains(command), "{name}: {}", missing.stderr);
            assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.ExitCode}}", &c]).ok(), of_state, "{name}");
            daemon.docker(&["rm", &c]).ok();
        }
        let file = daemon.docker(&["create", "--runtime", name, "busybox", "true"]).ok();
        assert_eq!(daemon.docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", &file]).ok(), name);
        daemon.docker(&["rm", &file]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn a_terminal_and_its_size_are_the_runtimes_too() {
    let daemon = daemon();
    for name in NAMES {
        let c = format!("tty-{name}");
        daemon
            .docker(&[
                "run",
                "-dt",
                "--name",
                &c,
                "--runtime",
                name,
                "busybox",
                "sh",
                "-c",
                "tty; stty size; sleep 1000",
            ])
            .ok();
        eventually("its output", || daemon.docker(&["logs", &c]).ok().lines().nth(1).map(drop));
        assert!(daemon.docker(&["logs", &c]).ok().starts_with("/dev/pts/0"), "{name}");
        assert!(daemon.docker(&["exec", "-t", &c, "tty"]).ok().starts_with("/dev/pts/"), "{name}");
        daemon.docker(&["rm", "-f", &c]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn execs_logs_pause_statistics_limits_and_stop_work_with_each() {
    let daemon = daemon();
    for name in NAMES {
        let c = format!("all-{name}");
        let script = "trap 'echo asked; exit 3' TERM; echo begun; while :; do sleep 0.05; done";
        let words = ["run", "-d", "--name", &c, "--runtime", name, "--memory", "64m", "--pids-limit", "50", "busybox"];
        daemon.docker(&[&words[..], &["sh", "-c", script]].concat()).ok();
        let exec = daemon.docker(&["exec", "-e", "A=b", "-w", "/etc", &c, "sh", "-c", "echo $A $PWD; exit 5"]);
        assert_eq!((exec.text().as_str(), exec.code), ("b /etc", 5), "{name}");
        let mut session = daemon.session(Cli::Ours, &["exec", "-i", &c, "cat"]);
        session.send(b"in\n");
        session.end_input();
        assert_eq!(session.finish().ok(), "in", "{name}");
        let missing = daemon.docker(&["exec", &c, "nosuchcommand"]);
        assert_eq!(missing.code, 127, "{name}");
        assert!(missing.text().contains("OCI runtime exec failed: "), "{name}: {}", missing.text());
        daemon.docker(&["exec", "-d", &c, "touch", "/made"]).ok();
        eventually("the detached exec", || {
            (daemon.docker(&["exec", &c, "test", "-e", "/made"]).code == 0).then_some(())
        });

        daemon.docker(&["pause", &c]).ok();
        assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Status}}", &c]).ok(), "paused", "{name}");
        daemon.docker(&["unpause", &c]).ok();
        let stats = daemon.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", &c]).ok();
        assert!(stats.contains("64MiB") && !stats.ends_with(" 0"), "{name}: {stats}");
        assert!(daemon.docker(&["top", &c]).ok().contains("sh -c"), "{name}");
        daemon.docker(&["update", "--memory", "48m", "--memory-swap", "96m", &c]).ok();
        let stats = daemon.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &c]).ok();
        assert!(stats.contains("48MiB"), "{name}: {stats}");
        let state =
            ["exec", &c, "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; echo"];
        assert!(daemon.docker(&state).ok().contains("50"), "{name}");
        let file = daemon.folder().join("copied").display().to_string();
        daemon.docker(&["cp", &format!("{c}:/bin/busybox"), &file]).ok();

        daemon.docker(&["stop", &c]).ok();
        assert_eq!(
            daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &c]).ok(),
            "exited 3",
            "{name}"
        );
        assert_eq!(daemon.docker(&["logs", &c]).ok(), "begun\nasked", "{name}");
        // Again, from the same layer.
        daemon.docker(&["start", &c]).ok();
        assert_eq!(daemon.docker(&["exec", &c, "ls", "/made"]).ok(), "/made", "{name}");
        daemon.docker(&["kill", &c]).ok();
        assert_eq!(daemon.docker(&["wait", &c]).ok(), "137", "{name}");
        daemon.docker(&["rm", &c]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn volumes_networks_and_shared_namespaces_work_with_each() {
    let daemon = daemon();
    daemon.docker(&["network", "create", "net1"]).ok();
    for name in NAMES {
        let (c, v) = (format!("vol-{name}"), format!("volume-{name}"));
        let words = ["run", "-d", "--name", &c, "--runtime", name, "--network", "net1", "--ipc", "shareable", "-v"];
        let volume = format!("{v}:/data");
        daemon.docker(&[&words[..], &[&volume, "--tmpfs", "/scratch", "busybox", "sleep", "1000"]].concat()).ok();
        daemon.docker(&["exec", &c, "sh", "-c", "echo kept >/data/f; echo shared >/dev/shm/f; touch /scratch/f"]).ok();
        // A neighbour of the same runtime: network, ids of processes and shared memory of the first.
        let join = format!("container:{c}");
        let script = "cat /data/f /dev/shm/f; ps | grep -c 'sleep 1000'; ip -o link | grep -c eth";
        let words =
            ["run", "--rm", "--runtime", name, "--network", &join, "--pid", &join, "--ipc", &join, "-v", &volume];
        let text = daemon.docker(&[&words[..], &["busybox", "sh", "-c", script]].concat()).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["kept", "shared"], "{name}");
        assert_ne!(lines[2], "0", "{name}");
        assert_eq!(lines[3], "1", "{name}");
        let read_only = ["run", "--rm", "--read-only", "--runtime", name, "busybox", "touch", "/x"];
        assert_ne!(daemon.docker(&read_only).code, 0, "{name}");
        daemon.docker(&["rm", "-f", &c]).ok();
        daemon.docker(&["volume", "rm", &v]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn a_killed_dockerd_finds_their_containers_again() {
    let mut daemon = daemon();
    let script = "echo one; while [ ! -e /go ]; do sleep 0.02; done; echo two; exit 42";
    for name in NAMES {
        daemon
            .docker(&["run", "-d", "--name", &format!("stays-{name}"), "--runtime", name, "busybox", "sleep", "1000"])
            .ok();
        daemon
            .docker(&["run", "-d", "--name", &format!("ends-{name}"), "--runtime", name, "busybox", "sh", "-c", script])
            .ok();
    }
    let pid = |c: &str| daemon.docker(&["inspect", "-f", "{{.State.Pid}}", c]).ok();
    let stay = NAMES.map(|name| pid(&format!("stays-{name}")));
    let end = NAMES.map(|name| pid(&format!("ends-{name}")));
    daemon.kill();
    for pid in &end {
        std::fs::write(format!("/proc/{pid}/root/go"), "").expect("written into the container");
        eventually("it ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
    daemon.launch();
    for (name, pid) in NAMES.into_iter().zip(stay) {
        let (stays, ends) = (format!("stays-{name}"), format!("ends-{name}"));
        let found = daemon.docker(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", &stays]).ok();
        assert_eq!(found, format!("{pid} true"), "{name}");
        assert_eq!(daemon.docker(&["exec", &stays, "echo", "there"]).ok(), "there", "{name}");
        let found = daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &ends]).ok();
        assert_eq!(
            (found.as_str(), daemon.docker(&["logs", &ends]).ok().as_str()),
            ("exited 42", "one\ntwo"),
            "{name}"
        );
        daemon.docker(&["rm", "-f", &stays, &ends]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn a_killed_shim_takes_the_container_of_another_runtime_with_it() {
    let daemon = daemon();
    for name in NAMES {
        let c = format!("shim-{name}");
        daemon.docker(&["run", "-d", "--name", &c, "--runtime", name, "busybox", "sleep", "1000"]).ok();
        let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", &c]).ok();
        let id = daemon.docker(&["inspect", "-f", "{{.Id}}", &c]).ok();
        let file = daemon.exec_root().join("tasks").join(id).join("shim.pid");
        let shim: i32 = std::fs::read_to_string(file).expect("shim.pid").trim().parse().expect("a number");
        let shim = rustix::process::Pid::from_raw(shim).expect("a pid");
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("killed");
        eventually("it is seen", || {
            (daemon.docker(&["inspect", "-f", "{{.State.Running}}", &c]).ok() == "false").then_some(())
        });
        eventually("its process is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        daemon.docker(&["rm", "-f", &c]).ok();
    }
    nothing_is_left(&daemon);
}

#[test]
fn runtimes_are_listed_reloaded_and_refused_by_name() {
    let daemon = Daemon::start(DaemonOptions::default());
    testkit::base_image(&daemon);
    let [runc, crun, _] = programs(daemon.folder());
    let shown = |what: &str| daemon.docker(&["info", "-f", what]).ok();
    assert_eq!(shown("{{.DefaultRuntime}}"), "runc");
    daemon.docker(&["create", "--runtime", "other", "busybox"]).fails(1, "unknown or invalid runtime name: other");
    let config = format!(
        r#"{{"default-runtime": "other", "runtimes": {{
            "other": {{"path": "{}", "runtimeArgs": ["--debug"]}},
            "typed": {{"runtimeType": "io.containerd.runc.v2", "options": {{"BinaryName": "{}"}}}},
            "absent": {{"path": "/nosuch/runtime"}}}}}}"#,
        crun.display(),
        runc.display()
    );
    std::fs::write(daemon.folder().join("daemon.json"), config).expect("written");
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
    eventually("it is reloaded", || (shown("{{.DefaultRuntime}}") == "other").then_some(()));
    let list = shown("{{range $k, $v := .Runtimes}}{{$k}} {{end}}");
    assert_eq!(list.trim(), "absent io.containerd.runc.v2 other runc typed");
    let info = daemon.rest().get("/info").json();
    assert_eq!(info["Runtimes"]["other"]["runtimeArgs"][0], "--debug", "{info}");
    assert_eq!(info["Runtimes"]["other"]["path"], crun.display().to_string().as_str());
    let events = daemon.docker(&["events", "--since", "10m", "--until", "0s", "--filter", "type=daemon"]).ok();
    assert!(events.contains("default-runtime=other") && events.contains("other:"), "{events}");

    let made = daemon.docker(&["run", "-d", "busybox", "sleep", "1000"]).ok();
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", &made]).ok(), "other");
    assert_eq!(daemon.docker(&["run", "--rm", "--runtime", "typed", "busybox", "echo", "typed"]).ok(), "typed");
    let absent = daemon.docker(&["run", "--rm", "--runtime", "absent", "busybox", "true"]);
    assert_ne!(absent.code, 0);
    assert!(
        absent.stderr.contains("unable to retrieve OCI runtime error: fork/exec /nosuch/runtime"),
        "{}",
        absent.stderr
    );

    // One that is configured no more: what runs goes on, what is started again is refused.
    std::fs::write(daemon.folder().join("daemon.json"), "{}").expect("written");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
    eventually("it is reloaded", || (shown("{{.DefaultRuntime}}") == "runc").then_some(()));
    assert_eq!(daemon.docker(&["exec", &made, "echo", "runs"]).ok(), "runs");
    daemon.docker(&["kill", &made]).ok();
    daemon.docker(&["wait", &made]).ok();
    daemon.docker(&["start", &made]).fails(1, "unknown or invalid runtime name: other");
    daemon.docker(&["rm", "-f", &made]).ok();
    nothing_is_left(&daemon);
}

#[test]
fn wrong_runtimes_are_refused_at_start_in_dockers_words() {
    let daemon = Daemon::prepare(DaemonOptions::default());
    let start = |file: &str, more: &[&str]| {
        std::fs::write(daemon.folder().join("daemon.json"), file).expect("written");
        let config = daemon.folder().join("daemon.json").display().to_string();
        let mut command = std::process::Command::new(testkit::binaries().join("dockerd"));
        let out = command.args(["--validate", "--config-file", &config]).args(more).output().expect("it runs");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    for (file, more, code, text) in [
        (
            r#"{"runtimes": {"runc": {"path": "/x"}}}"#,
            &[][..],
            1,
            "failed to start daemon: runtime name 'runc' is reserved",
        ),
        (
            r#"{"default-runtime": "zz"}"#,
            &[],
            1,
            "failed to start daemon: specified default runtime 'zz' does not exist",
        ),
        (r#"{"runtimes": {"a": {}}}"#, &[], 1, "runtime a: either a runtimeType or a path must be configured"),
        (r#"{"runtimes": {"a": {"runtimeType": "io.containerd.kata.v2"}}}"#, &[], 1, "is not supported"),
        (
            "{}",
            &["--add-runtime", "x"],
            125,
            "invalid argument \"x\" for \"--add-runtime\" flag: invalid runtime argument: x",
        ),
        ("{}", &["--add-runtime", "runc=/x"], 125, "flag: runtime name 'runc' is reserved"),
    ] {
        let (got, said) = start(file, more);
        assert_eq!(got, Some(code), "{said}");
        assert!(said.contains(text), "{said}");
    }
}
