//! `dockerd --import-from`: what a stopped Docker engine left is taken over, and its folder stays as it is.

use std::path::Path;
use std::process::Command;

use testkit::moby::{self, ANONYMOUS, FIRST, Store};
use testkit::{Daemon, DaemonOptions, Outcome, run};

/// Everything of a tree that a change would show: names, kinds, owners, modes, sizes, times and contents.
fn fingerprint(root: &Path) -> String {
    let script = "find . -printf '%p %y %U %G %m %s %T@\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum";
    let done = Command::new("sh").current_dir(root).args(["-c", script]).output().expect("find");
    String::from_utf8(done.stdout).expect("text")
}

fn import(daemon: &Daemon, from: &Path, apply: bool) -> Outcome {
    let mut command = daemon.command();
    command.arg("--import-from").arg(from);
    if apply {
        command.arg("--import-apply");
    }
    run(command)
}

fn take_over(store: Store) {
    let mut daemon = Daemon::prepare(DaemonOptions::default());
    std::fs::write(daemon.folder().join("daemon.json"), "{}").expect("written");
    let from = daemon.folder().join("docker");
    moby::data_root(&from, store, &testkit::busybox());
    let before = fingerprint(&from);

    // First it is only said what would be done.
    let plan = import(&daemon, &from, false).ok();
    for line in [
        "own:1",
        "volume named",
        "volume mem (without content)",
        "network net1 bridge",
        &format!("container {FIRST} first"),
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert!(!daemon.data_root().exists(), "a dry run makes nothing");

    let done = import(&daemon, &from, true).ok();
    assert!(done.contains(&format!("container {FIRST} first: taken over")), "{done}");
    assert_eq!(fingerprint(&from), before, "the other engine's folder stays as it is");
    // Once more finds everything there.
    let again = import(&daemon, &from, true).ok();
    assert!(again.contains("volume named: is here already"), "{again}");

    daemon.launch();
    let shown = |format: &str| daemon.docker(&["inspect", "-f", format, "first"]).ok();
    assert_eq!(shown("{{.Id}} {{.Name}} {{.Created}}"), format!("{FIRST} /first 2026-01-02T03:04:05.6Z"));
    assert_eq!(shown("{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.Memory}}"), "exited 137 67108864");
    assert_eq!(shown("{{range .Mounts}}{{.Name}}:{{.Destination}} {{end}}").split_whitespace().count(), 2);
    assert_eq!(daemon.docker(&["logs", "first"]).ok(), "said before");
    assert_eq!(
        daemon.docker(&["images", "-q", "own:1"]).ok(),
        daemon.docker(&["images", "-q", "reg.example/own:2"]).ok()
    );
    let network =
        daemon.docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{.Labels.n}}", "net1"]);
    assert_eq!(network.ok(), "10.231.77.0/24 1");
    let mem = daemon.docker(&["volume", "inspect", "-f", "{{.Options.o}} {{.Options.type}}", "mem"]).ok();
    assert_eq!(mem, "size=1m,uid=7 tmpfs");
    let named = daemon.docker(&["volume", "inspect", "-f", "{{.Labels.a}}", "named"]).ok();
    assert_eq!(named, "b");
    // What it wrote, what it removed, and the folder that hides the image's.
    let mut changes: Vec<String> = daemon.docker(&["diff", "first"]).ok().lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /d/above", "A /new", "C /d", "D /d/below", "D /gone"]);

    daemon.docker(&["update", "--restart", "no", "first"]).ok();
    assert_eq!(daemon.docker(&["start", "-a", "first"]).ok(), "above");
    let files = "cat /d/*; cat /new /data/f /vol/g; ls /gone 2>/dev/null; stat -c %a /new; ip -4 addr show eth0 | grep -o 10.231.77.77; echo $X$A";
    let commit = daemon.docker(&["commit", "first", "copy"]).ok();
    assert!(commit.starts_with("sha256:"), "{commit}");
    daemon.docker(&["rm", "second"]).ok();
    let mut arguments = vec!["run", "--rm", "-v", "named:/data"];
    let anonymous = format!("{ANONYMOUS}:/vol");
    arguments.extend([
        "-v",
        &anonymous,
        "--network",
        "net1",
        "--ip",
        "10.231.77.77",
        "-e",
        "X=y",
        "copy",
        "sh",
        "-c",
        files,
    ]);
    let text = daemon.docker(&arguments).text();
    assert_eq!(text, "above\nnew\nof the volume\nof nobody\n4755\n10.231.77.77\nyb");
    daemon.docker(&["rm", "-v", "first"]).ok();
    daemon.docker(&["network", "rm", "net1"]).ok();
    let left = daemon.docker(&["volume", "ls", "-q"]).ok();
    assert_eq!(left, "mem\nnamed", "a volume that nobody named goes with its container");
}

#[test]
fn what_an_engine_with_dockers_own_store_left_is_taken_over() {
    take_over(Store::Overlay2);
}

#[test]
fn what_an_engine_with_containerds_store_left_is_taken_over() {
    take_over(Store::Containerd);
}

#[test]
fn an_engine_that_runs_and_a_folder_that_is_no_data_root_are_refused() {
    let daemon = Daemon::prepare(DaemonOptions::default());
    std::fs::write(daemon.folder().join("daemon.json"), "{}").expect("written");
    let from = daemon.folder().join("docker");
    std::fs::create_dir(&from).expect("made");
    import(&daemon, &from, false).fails(1, "is no data root of a Docker engine");
    moby::data_root(&from, Store::Overlay2, &testkit::busybox());
    // Docker holds this lock as long as it runs.
    let records = std::fs::File::open(from.join("volumes/metadata.db")).expect("opened");
    rustix::fs::flock(&records, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    import(&daemon, &from, true).fails(1, "an engine runs on this data root");
    drop(records);
    // A damaged file is told of, and nothing is made.
    std::fs::write(from.join("network/files/local-kv.db"), vec![7; 8192]).expect("written");
    import(&daemon, &from, true).fails(1, "no bbolt file");
    assert!(!daemon.data_root().exists());
}
