//! The main job with both clients: run, output, exit codes, input, limits, names, errors.

use testkit::{Cli, Daemon, eventually};

fn each_client(test: impl Fn(&Daemon, Cli)) {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        test(&daemon, cli);
    }
}

#[test]
fn the_embedded_hello_image_runs_without_any_registry() {
    let daemon = Daemon::start(Default::default());
    for cli in Cli::all() {
        let text = daemon.run(cli, &["run", "--rm", "wharf/hello"]).ok();
        assert!(text.contains("Hello from Wharf!"), "{text}");
    }
}

#[test]
fn output_and_exit_code_come_back_exactly() {
    each_client(|daemon, cli| {
        let done = daemon.run(cli, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!((done.code, done.text().as_str(), done.stderr.trim_end()), (3, "out", "err"));
        assert_eq!(daemon.run(cli, &["run", "--rm", "busybox", "true"]).code, 0);
    });
}

#[test]
fn binary_output_is_not_changed_on_its_way() {
    each_client(|daemon, cli| {
        let done = daemon.run(cli, &["run", "--rm", "busybox", "cat", "/bin/busybox"]);
        done.ok();
        let original = daemon.run(cli, &["run", "--rm", "busybox", "sha256sum", "/bin/busybox"]).ok();
        use std::io::Write;
        let mut sum = std::process::Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sha256sum");
        sum.stdin.take().expect("stdin").write_all(&done.stdout).expect("written");
        let sum = sum.wait_with_output().expect("sha256sum");
        let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
        assert_eq!(sum.split(' ').next(), original.split(' ').next());
    });
}

#[test]
fn standard_input_reaches_the_process_and_its_end_too() {
    each_client(|daemon, cli| {
        let mut session = daemon.session(cli, &["run", "--rm", "-i", "busybox", "cat"]);
        session.send(b"first\n");
        assert_eq!(session.receive(6), b"first\n");
        session.send(b"second\n");
        let done = session.finish();
        assert_eq!((done.code, done.text().as_str()), (0, "second"));
    });
}

#[test]
fn failures_to_start_give_dockers_exit_codes_and_leave_no_container() {
    each_client(|daemon, cli| {
        let none = daemon.run(cli, &["run", "--rm", "busybox", "nosuchcmd"]);
        none.fails(127, "exec: \"nosuchcmd\": executable file not found in $PATH");
        daemon.run(cli, &["run", "--rm", "busybox", "/tmp"]).fails(126, "permission denied");
        daemon
            .run(cli, &["run", "--rm", "--no-such-flag", "busybox", "true"])
            .fails(125, "unknown flag: --no-such-flag");
        daemon
            .run(cli, &["run", "--rm", "--name", "a/b", "busybox", "true"])
            .fails(125, "Invalid container name (a/b)");
        daemon
            .run(cli, &["run", "--rm", "-u", "nobodyhere", "busybox", "true"])
            .fails(125, "unable to find user nobodyhere");
        daemon
            .run(cli, &["run", "--rm", "-m", "1m", "busybox", "true"])
            .fails(125, "Minimum memory limit allowed is 6MB");
        let missing = daemon.run(
            cli,
            &["run", "--rm", "-v", "/no/such/dir:/x:ro", "--mount", "type=bind,src=/no/such,dst=/y", "busybox", "true"],
        );
        missing.fails(125, "bind source path does not exist: /no/such");
        assert_eq!(daemon.run(cli, &["ps", "-aq", "--filter", "ancestor=busybox"]).ok(), "");
    });
}

#[test]
fn a_missing_image_gives_the_error_on_which_clients_pull() {
    let daemon = Daemon::with_image();
    let body = serde_json::json!({"Image": "no-such-image"});
    let answer = daemon.rest().post("/v1.51/containers/create", &body);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["message"], "No such image: no-such-image:latest");
}

#[test]
fn a_name_is_taken_once_and_free_again_after_removal() {
    each_client(|daemon, cli| {
        let id = daemon.run(cli, &["create", "--name", "twice", "busybox", "true"]).ok();
        let second = daemon.run(cli, &["create", "--name", "twice", "busybox", "true"]);
        second.fails(1, &format!("Conflict. The container name \"/twice\" is already in use by container \"{id}\"."));
        assert_eq!(daemon.run(cli, &["rm", "twice"]).ok(), "twice");
        daemon.run(cli, &["create", "--name", "twice", "busybox", "true"]).ok();
        daemon.run(cli, &["rm", "twice"]).ok();
    });
}

#[test]
fn start_attach_wait_stop_restart_kill_and_remove_do_what_they_say() {
    each_client(|daemon, cli| {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&[
            "create",
            "--name",
            "life",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
        ])
        .ok();
        assert_eq!(docker(&["start", "life"]).ok(), "life");
        eventually("the process says up", || (docker(&["logs", "life"]).ok() == "up").then_some(()));
        docker(&["rm", "life"]).fails(1, "container is running: stop the container before removing or force remove");
        assert_eq!(docker(&["stop", "life"]).ok(), "life");
        assert_eq!(docker(&["wait", "life"]).ok(), "7");
        assert_eq!(
            docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "life"]).ok(),
            "exited 7 false"
        );
        docker(&["restart", "life"]).ok();
        assert_eq!(docker(&["inspect", "-f", "{{.State.Status}}", "life"]).ok(), "running");
        docker(&["kill", "life"]).ok();
        assert_eq!(docker(&["wait", "life"]).ok(), "137");
        docker(&["kill", "life"]).fails(1, "is not running");
        docker(&["rm", "life"]).ok();
        docker(&["inspect", "life"]).fails(1, "No such object: life");
    });
}

#[test]
fn logs_keep_streams_apart_and_take_tail_and_timestamps() {
    each_client(|daemon, cli| {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&[
            "run",
            "--name",
            "lines",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3; do echo $i; done; echo bad >&2; printf tail",
        ])
        .ok();
        let logs = docker(&["logs", "lines"]);
        assert_eq!((logs.ok().as_str(), logs.stderr.as_str()), ("1\n2\n3\ntail", "bad\n"));
        assert_eq!(docker(&["logs", "--tail", "1", "lines"]).ok(), "tail");
        let stamped = docker(&["logs", "-t", "lines"]).ok();
        let first = stamped.lines().next().expect("a line").split_once(' ').expect("a time");
        assert_eq!((first.0.len(), first.1), (30, "1"), "{stamped}");
        docker(&["rm", "lines"]).ok();
    });
}

#[test]
fn exec_runs_in_the_container_with_its_own_exit_code_environment_and_user() {
    each_client(|daemon, cli| {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&["run", "-d", "--name", "host", "-e", "A=1", "busybox", "sleep", "1000"]).ok();
        assert_eq!(docker(&["exec", "host", "sh", "-c", "exit 5"]).code, 5);
        assert_eq!(
            docker(&[
                "exec",
                "-e",
                "B=2",
                "-u",
                "nobody",
                "-w",
                "/tmp",
                "host",
                "sh",
                "-c",
                "echo $A $B $(id -u) $(pwd)"
            ])
            .ok(),
            "1 2 65534 /tmp"
        );
        // Docker answers the start of an exec with a stream, and the reason comes down that stream.
        let missing = docker(&["exec", "host", "nosuch"]);
        assert!(missing.code == 127 && missing.text().contains("executable file not found in $PATH"), "{missing:?}");
        let mut session = daemon.session(cli, &["exec", "-i", "host", "cat"]);
        session.send(b"through exec\n");
        assert_eq!(session.finish().text(), "through exec");
        docker(&["kill", "host"]).ok();
        docker(&["exec", "host", "true"]).fails(1, "is not running");
        docker(&["rm", "host"]).ok();
    });
}

#[test]
fn rm_with_running_attached_readers_loses_no_output() {
    each_client(|daemon, cli| {
        let script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done";
        let text = daemon.run(cli, &["run", "--rm", "busybox", "sh", "-c", script]).ok();
        assert_eq!(text.lines().count(), 20_000);
        assert!(text.lines().enumerate().all(|(n, line)| line == n.to_string()));
    });
}

#[test]
fn events_name_each_step_of_a_run_in_order() {
    each_client(|daemon, cli| {
        let clock =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        // A name per client: events have whole seconds as bounds.
        let name = format!("seen-{cli:?}");
        let since = clock().to_string();
        daemon.run(cli, &["run", "--rm", "--name", &name, "--network", "none", "busybox", "true"]).ok();
        let until = (clock() + 1).to_string();
        let filter = format!("container={name}");
        let bounds = ["events", "--since", &since, "--until", &until, "--filter", &filter, "--format", "{{.Action}}"];
        let events = daemon.run(cli, &bounds).ok();
        let wanted = ["create", "attach", "start", "die", "destroy"];
        let seen: Vec<&str> = events.lines().filter(|line| wanted.contains(line)).collect();
        assert_eq!(seen, wanted, "{events}");
    });
}
