//! Checkpoints: what Docker answers without experimental mode and to wrong requests, and the way there and back by CRIU, where
//! one is installed that works on this kernel (Debian 12's 3.17 does not start on 6.18; Debian 14's 4.2 does).

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Cli, Daemon, DaemonOptions, Residue, eventually};

/// Where the runtime looks for CRIU.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.2; done";

fn experimental() -> Daemon {
    let daemon =
        Daemon::start(DaemonOptions { arguments: vec!["--experimental".to_owned()], ..DaemonOptions::default() });
    testkit::base_image(&daemon);
    daemon
}

/// The CRIU that would be used, if there is any.
fn criu() -> Option<std::path::PathBuf> {
    PLACES.split(':').map(|folder| Path::new(folder).join("criu")).find(|path| path.is_file())
}

/// Whether CRIU works here. Says so if not.
fn criu_works(test: &str) -> bool {
    let output = criu().map(|path| std::process::Command::new(path).arg("check").env("PATH", PLACES).output());
    let works = matches!(&output, Some(Ok(output)) if output.status.success());
    if !works {
        println!("skipped: {test}: CRIU is not installed or does not work on this kernel");
    }
    works
}

/// The last number that a container has counted to, by its log.
fn counted(daemon: &Daemon, name: &str) -> u64 {
    let text = daemon.docker(&["logs", "--tail", "1", name]).ok();
    text.trim().parse().unwrap_or(0)
}

fn counts_beyond(daemon: &Daemon, name: &str, number: u64) {
    eventually("it counts on", || (counted(daemon, name) > number).then_some(()));
}

#[test]
fn without_experimental_mode_checkpoints_are_refused_in_dockers_words() {
    let daemon = Daemon::start(DaemonOptions::default());
    const DISABLED: &str = "This experimental feature is disabled by default. Start the Docker daemon in experimental \
                            mode in order to enable it.";
    let rest = daemon.rest();
    for (method, path) in [
        ("GET", "/v1.51/containers/nono/checkpoints"),
        ("POST", "/v1.51/containers/nono/checkpoints"),
        ("DELETE", "/v1.51/containers/nono/checkpoints/cp1"),
    ] {
        let answer = rest.call(method, path, b"").expect("an answer");
        assert_eq!((answer.status, &answer.json()["message"]), (501, &json!(DISABLED)), "{method}");
    }
    let start = rest.call("POST", "/v1.51/containers/nono/start?checkpoint=cp1", b"").expect("an answer");
    assert_eq!(
        (start.status, &start.json()["message"]),
        (400, &json!("checkpoint is only supported in experimental mode"))
    );
    const ONLY: &str = "is only supported on a Docker daemon with experimental features enabled";
    for cli in Cli::all() {
        daemon.run(cli, &["checkpoint", "ls", "nono"]).fails(1, &format!("docker checkpoint ls {ONLY}"));
        let words = ["start", "--checkpoint-dir", "y", "--checkpoint", "x", "nono"];
        let both = format!("\"--checkpoint\" {ONLY}\n\"--checkpoint-dir\" {ONLY}");
        daemon.run(cli, &words).fails(1, &both);
    }
}

/// Method, path, body, status and message; all as dockerd 28.5.2 answers.
type Case = (&'static str, &'static str, Value, u16, String);

#[test]
fn wrong_requests_on_checkpoints_are_answered_as_docker_does() {
    let daemon = experimental();
    daemon.docker(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    daemon.docker(&["create", "--name", "made", "busybox", "sleep", "1000"]).ok();
    let made = daemon.docker(&["inspect", "-f", "{{.Id}}", "made"]).ok();
    let invalid = |id: &str| format!("Invalid checkpoint ID ({id}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    let missing = |id: &str| format!("checkpoint {id} does not exist for container up");
    let asked = |id: &str| json!({"CheckpointID": id, "Exit": false});
    let unknown = || "No such container: nono".to_owned();
    let cases: Vec<Case> = vec![
        ("POST", "/containers/nono/checkpoints", asked("cp1"), 404, unknown()),
        ("POST", "/containers/made/checkpoints", asked("cp1"), 409, format!("container {made} is not running")),
        ("POST", "/containers/up/checkpoints", asked("../x"), 500, invalid("../x")),
        ("POST", "/containers/up/checkpoints", asked(""), 500, invalid("")),
        ("GET", "/containers/nono/checkpoints", Value::Null, 404, unknown()),
        ("GET", "/containers/up/checkpoints?dir=/nonexist", Value::Null, 500, missing("")),
        ("DELETE", "/containers/up/checkpoints/nope", Value::Null, 500, missing("nope")),
        ("DELETE", "/containers/up/checkpoints/nope?dir=/tmp", Value::Null, 500, missing("nope")),
        ("DELETE", "/containers/nono/checkpoints/nope", Value::Null, 404, unknown()),
        ("POST", "/containers/up/start?checkpoint=nope", Value::Null, 304, String::new()),
        ("POST", "/containers/nono/start?checkpoint=nope", Value::Null, 404, unknown()),
        (
            "POST",
            "/containers/made/start?checkpoint=nope&checkpoint-dir=/tmp",
            Value::Null,
            403,
            "custom checkpointdir is not supported".to_owned(),
        ),
        (
            "POST",
            "/containers/made/start?checkpoint=nope",
            Value::Null,
            500,
            "checkpoint nope does not exist for container /made".to_owned(),
        ),
    ];
    for (method, path, body, status, message) in cases {
        let path = format!("/v1.51{path}");
        let answer = match body {
            Value::Null => daemon.rest().call(method, &path, b"").expect("an answer"),
            body => daemon.rest().post(&path, &body),
        };
        assert_eq!(answer.status, status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        if !message.is_empty() {
            assert_eq!(answer.json()["message"], message, "{method} {path}");
        }
    }
    let state =
        daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", "made"]).ok();
    assert_eq!(state, "created 128 checkpoint nope does not exist for container /made");
    let list = daemon.rest().get("/v1.51/containers/made/checkpoints");
    assert_eq!((list.status, list.json()), (200, json!([])));
}

#[test]
fn what_criu_says_reaches_the_client_and_nothing_stays() {
    let daemon = experimental();
    // On a terminal there is nothing that CRIU's command could restore, so this fails wherever it runs; and where there is
    // no CRIU, that is said first by the same path.
    daemon.docker(&["run", "-dt", "--name", "tty", "busybox", "sleep", "1000"]).ok();
    let failed = daemon.docker(&["checkpoint", "create", "tty", "cp1"]);
    failed.fails(1, "Cannot checkpoint container tty: runc did not terminate successfully: exit status 1: ");
    failed.fails(1, "criu-dump.log");
    let list = daemon.docker(&["checkpoint", "ls", "tty"]).ok();
    assert_eq!(list, "CHECKPOINT NAME");
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.Status}}", "tty"]).ok(), "running");
}

#[test]
fn without_criu_a_checkpoint_fails_in_dockers_words() {
    if criu().is_some() {
        println!("skipped: without_criu_a_checkpoint_fails_in_dockers_words: CRIU is installed");
        return;
    }
    let daemon = experimental();
    daemon.docker(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    const WORDS: &str = "CRIU version check failed: exec: \"criu\": executable file not found in $PATH";
    let failed = daemon.docker(&["checkpoint", "create", "up", "cp1"]);
    failed.fails(
        1,
        &format!("Cannot checkpoint container up: runc did not terminate successfully: exit status 1: {WORDS}"),
    );
}

#[test]
fn a_container_goes_on_from_its_checkpoint() {
    if !criu_works("a_container_goes_on_from_its_checkpoint") {
        return;
    }
    let daemon = experimental();
    let run = ["run", "-d", "--name", "count", "-m", "64m", "-v", "vol:/data", "--tmpfs", "/scratch", "busybox"];
    let program = format!("echo kept >/scratch/file; echo kept >/data/file; {COUNT}");
    daemon.docker(&[&run[..], &["sh", "-c", &program]].concat()).ok();
    counts_beyond(&daemon, "count", 3);

    assert_eq!(daemon.docker(&["checkpoint", "create", "--leave-running", "count", "first"]).ok(), "first");
    counts_beyond(&daemon, "count", counted(&daemon, "count"));
    let again = daemon.docker(&["checkpoint", "create", "count", "first"]);
    again.fails(1, "cannot checkpoint container count: checkpoint with name first already exists for container count");

    assert_eq!(daemon.docker(&["checkpoint", "create", "count", "second"]).ok(), "second");
    let shown = || daemon.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "count"]).ok();
    eventually("it has ended", || (shown() == "exited 137").then_some(()));
    let listed = daemon.docker(&["checkpoint", "ls", "count"]).ok();
    assert_eq!(listed, "CHECKPOINT NAME\nfirst\nsecond");

    let before = counted(&daemon, "count");
    // Stock Docker prints nothing either.
    assert_eq!(daemon.docker(&["start", "--checkpoint", "second", "count"]).ok(), "");
    assert_eq!(shown(), "running 0");
    counts_beyond(&daemon, "count", before);
    let log = daemon.docker(&["logs", "count"]).ok();
    let numbers: Vec<u64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "it went on from where it was: {numbers:?}");
    let inside = daemon.docker(&["exec", "count", "cat", "/scratch/file", "/data/file", "/proc/self/cgroup"]).ok();
    assert!(inside.starts_with("kept\nkept\n"), "{inside}");
    let limit = daemon.docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "count"]).ok();
    assert!(limit.ends_with("/ 64MiB"), "{limit}");
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = daemon.docker(&["inspect", "-f", address, "count"]).ok();
    let link = daemon.docker(&["exec", "count", "ip", "address"]).ok();
    assert!(link.contains(&format!("inet {address}/")), "{link}");
    isolated(&daemon, "count");

    // It can be stopped, paused and written again like any other.
    daemon.docker(&["pause", "count"]).ok();
    assert_eq!(daemon.docker(&["checkpoint", "create", "--leave-running", "count", "third"]).ok(), "third");
    assert_eq!(shown(), "paused 0");
    daemon.docker(&["unpause", "count"]).ok();
    counts_beyond(&daemon, "count", counted(&daemon, "count"));
    daemon.docker(&["stop", "-t", "0", "count"]).ok();
    let events = daemon.docker(&["events", "--since", "10m", "--until", "0s", "--filter", "event=checkpoint"]).ok();
    assert_eq!(events.lines().count(), 3, "{events}");

    let before = counted(&daemon, "count");
    daemon.docker(&["start", "--checkpoint", "third", "count"]).ok();
    eventually("it counts from the third", || (counted(&daemon, "count") != before).then_some(()));
    daemon.docker(&["checkpoint", "rm", "count", "first"]).ok();
    daemon.docker(&["checkpoint", "rm", "count", "first"]).fails(1, "checkpoint first does not exist");
    assert_eq!(daemon.docker(&["checkpoint", "ls", "count"]).ok(), "CHECKPOINT NAME\nsecond\nthird");

    // A folder of one's own, which a start does not take.
    let folder = daemon.folder().join("mine").display().to_string();
    daemon.docker(&["checkpoint", "create", "--checkpoint-dir", &folder, "count", "away"]).ok();
    let listed = daemon.docker(&["checkpoint", "ls", "--checkpoint-dir", &folder, "count"]).ok();
    assert_eq!(listed, "CHECKPOINT NAME\naway");
    let start = ["start", "--checkpoint-dir", &folder, "--checkpoint", "away", "count"];
    eventually("it has ended", || (shown() == "exited 137").then_some(()));
    daemon.docker(&start).fails(1, "custom checkpointdir is not supported");
    daemon.docker(&["rm", "-f", "count"]).ok();
    daemon.docker(&["volume", "rm", "vol"]).ok();
    eventually("nothing is left", || Residue::of_containers(&daemon).is_empty().then_some(()));
}

/// A restored container sees no more of the host than one that was made: its own groups, and no mount of the host's.
fn isolated(daemon: &Daemon, restored: &str) {
    daemon.docker(&["run", "-d", "--name", "fresh", "-m", "64m", "busybox", "sleep", "1000"]).ok();
    let seen = |name: &str| {
        let groups =
            daemon.docker(&["exec", name, "sh", "-c", "cd /sys/fs/cgroup; ls | wc -l; ls memory | wc -l"]).text();
        let mounts = daemon.docker(&["exec", name, "sh", "-c", "cut -d' ' -f5 /proc/self/mountinfo"]).ok();
        let mut mounts: Vec<String> =
            mounts.lines().filter(|m| !matches!(*m, "/data" | "/scratch")).map(str::to_owned).collect();
        mounts.sort_unstable();
        let status = daemon.docker(&["exec", name, "sh", "-c", "grep -E 'Cap|Seccomp|NoNewPrivs' /proc/1/status"]).ok();
        (groups, mounts, status)
    };
    assert_eq!(seen(restored), seen("fresh"));
    daemon.docker(&["rm", "-f", "fresh"]).ok();
}
