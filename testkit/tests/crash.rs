//! The daemon is killed: containers go on, output and exit codes are kept, nothing acknowledged is lost, nothing is left behind.

use testkit::{Daemon, DaemonOptions, Residue, eventually};

#[test]
fn a_container_that_writes_200_mb_never_pauses_when_dockerd_is_killed_and_keeps_its_whole_output() {
    let mut daemon = Daemon::with_image();
    let lines = 2_000_000_u64;
    let script = format!("yes '{}' | head -n {lines} | cat -n; exit 9", "x".repeat(92));
    let arguments = ["run", "-d", "--name", "writer", "--log-opt", "max-size=-1", "busybox", "sh", "-c", &script];
    daemon.docker(&arguments).ok();
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "writer"]).ok();
    let log = daemon.docker(&["inspect", "-f", "{{.LogPath}}", "writer"]).ok();
    let size = || std::fs::metadata(&log).map_or(0, |m| m.len());
    eventually("it writes", || (size() > 1 << 20).then_some(()));
    daemon.kill();
    let before = size();
    eventually("it goes on writing without a daemon", || (size() > before).then_some(()));
    daemon.launch();
    let running = daemon.docker(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "writer"]).ok();
    assert!(running == format!("{pid} true") || running == "0 false", "adopted: {running}");
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker(&["wait", "writer"]).ok(), "9");
    let text = daemon.docker(&["logs", "writer"]);
    let mut count = 0;
    for line in text.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        count += 1;
        let number = std::str::from_utf8(line).ok().and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        assert_eq!(number, Some(count), "in order");
    }
    assert_eq!(count, lines);
}

#[test]
fn an_exit_while_dockerd_is_away_is_known_to_the_next_one() {
    let mut daemon = Daemon::with_image();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "short",
            "busybox",
            "sh",
            "-c",
            "while [ ! -e /go ]; do sleep 0.02; done; echo bye; exit 42",
        ])
        .ok();
    let pid: i32 = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "short"]).ok().parse().expect("a pid");
    daemon.kill();
    std::fs::write(format!("/proc/{pid}/root/go"), "").expect("written into the container");
    eventually("it ends", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    daemon.launch();
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "short"]).ok(), "exited 42");
    assert_eq!(daemon.docker(&["logs", "short"]).ok(), "bye");
}

#[test]
fn a_clean_stop_ends_containers_and_leaves_nothing_on_the_host() {
    let mut daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "one", "-p", "80", "busybox", "sleep", "1000"]).ok();
    assert_eq!(daemon.stop().and_then(|s| s.code()), Some(0));
    let residue = daemon.residue();
    let kept = Residue { containers: residue.containers.clone(), ..Residue::default() };
    assert_eq!(residue, kept, "only the stopped container's folder is kept");
    assert_eq!(residue.containers.len(), 1);
    daemon.launch();
    let state = daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"]).ok();
    assert_eq!(state, "exited 137");
    daemon.docker(&["rm", "one"]).ok();
}

#[test]
fn live_restore_keeps_containers_over_a_clean_restart() {
    let arguments = vec!["--live-restore".to_owned()];
    let mut daemon = Daemon::start(DaemonOptions { arguments, ..Default::default() });
    testkit::base_image(&daemon);
    daemon.docker(&["run", "-d", "--name", "on", "busybox", "sleep", "1000"]).ok();
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "on"]).ok();
    daemon.stop();
    daemon.launch();
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "on"]).ok(), pid);
    assert_eq!(daemon.docker(&["exec", "on", "echo", "here"]).ok(), "here");
    daemon.docker(&["rm", "-f", "on"]).ok();
}

/// What a client was told before the daemon died.
#[derive(Default)]
struct Promised {
    created: bool,
    removed: bool,
    /// What the first failing command said.
    failed: Option<testkit::Outcome>,
}

/// Creates, starts, stops and removes a container while the daemon may die at any step.
fn life(daemon: &Daemon) -> Promised {
    let mut promised = Promised::default();
    let create = [
        "create",
        "--name",
        "kp",
        "-p",
        "80",
        "-v",
        "/anonymous",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' TERM; while :; do sleep 0.02; done",
    ];
    let created = daemon.docker(&create);
    if created.code != 0 {
        return Promised { failed: Some(created), ..promised };
    }
    promised.created = true;
    for step in [&["start", "kp"][..], &["exec", "kp", "true"], &["stop", "kp"], &["rm", "-v", "kp"]] {
        let done = daemon.docker(step);
        if done.code != 0 {
            return Promised { failed: Some(done), ..promised };
        }
    }
    promised.removed = true;
    promised
}

#[test]
fn killed_at_any_named_point_nothing_acknowledged_is_lost_and_nothing_is_left_over() {
    let mut daemon = Daemon::with_image();
    assert!(wharf_fault::POINTS.len() >= 30, "{} kill points", wharf_fault::POINTS.len());
    let mut reached = 0;
    for point in wharf_fault::POINTS.iter().filter(in_a_life) {
        daemon.kill();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), (*point).to_owned())];
        daemon.spawn();
        eventually("dockerd answers or died", || {
            let up = daemon.rest().call("GET", "/_ping", b"").is_ok_and(|r| r.status == 200);
            (up || daemon.has_ended()).then_some(())
        });
        let promised = life(&daemon);
        if promised.failed.is_some() {
            // The connection closes a moment before the process is a zombie.
            eventually(&format!("{point}: dockerd died: {:?}", promised.failed), || daemon.has_ended().then_some(()));
        }
        reached += usize::from(daemon.has_ended());
        println!("{point}: {}", if daemon.has_ended() { "reached" } else { "not on the way" });
        daemon.kill();
        daemon.options().environment.clear();
        daemon.launch();
        let known = daemon.docker(&["ps", "-aq"]).ok();
        if promised.removed {
            assert_eq!(known, "", "{point}: a removed container came back");
        } else if promised.created && !point.starts_with("remove") {
            assert_ne!(known, "", "{point}: a created container was lost");
        }
        if !known.is_empty() {
            daemon.docker(&["rm", "-f", "-v", "kp"]).ok();
        }
        eventually(&format!("{point}: nothing is left over: {:?}", Residue::of_containers(&daemon)), || {
            Residue::of_containers(&daemon).is_empty().then_some(())
        });
        assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "", "{point}: volumes");
        // The next life of the same container must be whole.
        let next = life(&daemon);
        assert!(next.removed, "{point}: a later life fails: {:?}", next.failed);
    }
    assert!(reached >= 25, "only {reached} points were reached by a container's life");
}

/// Points that lie on the way of [`life`]; the others have tests beside their code.
fn in_a_life(point: &&&str) -> bool {
    ["create", "start", "stop", "remove", "exec"].iter().any(|verb| point.starts_with(verb))
}
