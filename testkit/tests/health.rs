//! Health checks, restart policies and the journal of events.

use testkit::{Cli, Daemon, DaemonOptions, eventually};

fn state(daemon: &Daemon, name: &str, template: &str) -> String {
    daemon.docker(&["inspect", "-f", template, name]).ok()
}

#[test]
fn a_container_becomes_healthy_and_unhealthy_as_its_check_says() {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let docker = |arguments: &[&str]| daemon.run(cli, arguments);
        docker(&[
            "run",
            "-d",
            "--name",
            "well",
            "--health-cmd",
            "test -e /ok || { echo not yet; exit 1; }",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
        let status = || state(&daemon, "well", "{{.State.Health.Status}}");
        assert_eq!(status(), "starting");
        eventually("it is unhealthy", || (status() == "unhealthy").then_some(()));
        let log = state(&daemon, "well", "{{json (index .State.Health.Log 0)}}");
        assert!(log.contains("\"ExitCode\":1") && log.contains("not yet"), "{log}");
        assert_eq!(docker(&["ps", "-q", "--filter", "health=healthy"]).ok(), "");
        docker(&["exec", "well", "touch", "/ok"]).ok();
        eventually("it is healthy", || (status() == "healthy").then_some(()));
        let shown = docker(&["ps", "--filter", "health=healthy", "--format", "{{.Status}}"]).ok();
        assert!(shown.ends_with("(healthy)"), "{shown}");
        assert_eq!(
            state(&daemon, "well", "{{.State.Health.FailingStreak}} {{len .State.Health.Log}}").split(' ').next(),
            Some("0")
        );
        // `--until 0s` is the whole second that has begun, so the newest events come a little later.
        eventually("both are told", || {
            let told = docker(&["events", "--since", "1h", "--until", "0s", "--filter", "container=well"]).ok();
            (told.contains("health_status: unhealthy") && told.contains("health_status: healthy")).then_some(())
        });
        docker(&["stop", "-t", "0", "well"]).ok();
        assert_eq!(status(), "unhealthy");
        docker(&["rm", "well"]).ok();
    }
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_counts_as_failed() {
    let daemon = Daemon::with_image();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "slow",
            "--health-cmd",
            "sleep 50",
            "--health-interval",
            "100ms",
            "--health-timeout",
            "200ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    eventually("it is unhealthy", || (state(&daemon, "slow", "{{.State.Health.Status}}") == "unhealthy").then_some(()));
    let log = state(&daemon, "slow", "{{json (index .State.Health.Log 0)}}");
    assert!(log.contains("Health check exceeded timeout (200ms)") && log.contains("\"ExitCode\":-1"), "{log}");
    eventually("the check is gone", || {
        let count = daemon.docker(&["top", "slow", "-eo", "pid,args"]).ok().matches("sleep 50").count();
        // The next check may run by now, but no more than one.
        (count <= 2).then_some(())
    });
}

#[test]
fn in_its_start_period_a_failing_container_is_starting_and_is_asked_at_the_start_interval() {
    let daemon = Daemon::with_image();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "young",
            "--health-cmd",
            "date >> /asked; false",
            "--health-interval",
            "50s",
            "--health-start-period",
            "100s",
            "--health-start-interval",
            "100ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    eventually("it was asked several times", || {
        let asked = daemon.docker(&["exec", "young", "sh", "-c", "wc -l < /asked"]).text();
        (asked.trim().parse::<u32>().unwrap_or(0) >= 3).then_some(())
    });
    assert_eq!(state(&daemon, "young", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"), "starting 0");
}

#[test]
fn an_unhealthy_container_is_killed_restarted_or_stopped_if_it_asks_for_that() {
    let daemon = Daemon::with_image();
    let run = |action: &str, more: &[&str]| {
        let flag = format!("--health-on-failure={action}");
        let mut arguments = vec![
            "run",
            "-d",
            "--name",
            action,
            "--health-cmd",
            "test ! -e /bad",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            &flag,
        ];
        arguments.extend(more);
        // It gets well by being started anew.
        arguments.extend(["busybox", "sh", "-c", "rm -f /bad; trap 'exit 3' TERM; while :; do sleep 0.1; done"]);
        daemon.docker(&arguments).ok();
        eventually("it is well", || (state(&daemon, action, "{{.State.Health.Status}}") == "healthy").then_some(()));
        daemon.docker(&["exec", action, "touch", "/bad"]).ok();
    };
    run("stop", &["--restart", "always"]);
    eventually("it is stopped", || {
        (state(&daemon, "stop", "{{.State.Status}} {{.State.ExitCode}}") == "exited 3").then_some(())
    });
    run("restart", &[]);
    eventually("it was restarted and is well", || {
        (state(&daemon, "restart", "{{.State.Status}} {{.State.Health.Status}} {{.State.Health.FailingStreak}}")
            == "running healthy 0"
            && daemon.docker(&["exec", "restart", "test", "-e", "/bad"]).code == 1)
            .then_some(())
    });
    run("kill", &["--restart", "on-failure"]);
    eventually("its policy started it", || {
        (state(&daemon, "kill", "{{.RestartCount}} {{.State.Status}}") == "1 running").then_some(())
    });
    daemon
        .docker(&["run", "--health-cmd", "true", "--health-on-failure=dance", "busybox", "true"])
        .fails(125, "OnFailure in Healthcheck must be none, kill, restart or stop");
}

#[test]
fn a_failing_container_is_started_again_after_growing_pauses_and_as_often_as_its_policy_says() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "again", "--restart", "on-failure:3", "busybox", "false"]).ok();
    eventually("it gives up", || {
        (state(&daemon, "again", "{{.RestartCount}} {{.State.Status}}") == "3 exited").then_some(())
    });
    let at: Vec<i64> = eventually("all starts are told", || {
        let flags = ["--since", "1h", "--until", "0s", "--filter", "event=start", "--format", "{{.TimeNano}}"];
        let told = daemon.docker(&[&["events"], &flags[..]].concat()).ok();
        (told.lines().count() == 4).then(|| told.lines().map(|l| l.parse().expect("a number")).collect())
    });
    let pauses: Vec<i64> = at.windows(2).map(|w| (w[1] - w[0]) / 1_000_000).collect();
    assert_eq!(pauses.len(), 3);
    assert!(pauses[0] >= 100 && pauses[1] >= 200 && pauses[2] >= 400, "{pauses:?}");
}

#[test]
fn policies_act_when_the_daemon_comes_back() {
    let mut daemon = Daemon::with_image();
    for (name, policy) in
        [("always", "always"), ("unless", "unless-stopped"), ("halted", "unless-stopped"), ("no", "no")]
    {
        daemon.docker(&["run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "1000"]).ok();
    }
    daemon.docker(&["stop", "-t", "0", "halted"]).ok();
    daemon.docker(&["stop", "-t", "0", "always"]).ok();
    daemon.stop();
    daemon.launch();
    for (name, expected) in [("always", "running"), ("unless", "running"), ("halted", "exited"), ("no", "exited")] {
        eventually(name, || (state(&daemon, name, "{{.State.Status}}") == expected).then_some(()));
    }
}

#[test]
fn health_survives_the_daemon_and_checks_go_on() {
    let mut daemon = Daemon::with_image();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "well",
            "--health-cmd",
            "test ! -e /bad",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let status = |daemon: &Daemon| state(daemon, "well", "{{.State.Health.Status}}");
    eventually("it is healthy", || (status(&daemon) == "healthy").then_some(()));
    // What outlives the daemon is written half a second after it changed.
    eventually("it is written down", || {
        let told = daemon.docker(&["events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die"]).ok();
        (told.lines().count() >= 9).then_some(())
    });
    daemon.kill();
    daemon.launch();
    assert_eq!(status(&daemon), "healthy");
    daemon.docker(&["exec", "well", "touch", "/bad"]).ok();
    eventually("it is unhealthy", || (status(&daemon) == "unhealthy").then_some(()));
}

#[test]
fn events_are_remembered_across_daemons_and_found_by_every_filter() {
    let mut daemon = Daemon::with_image();
    daemon.docker(&["run", "--name", "told", "--label", "color=red", "-v", "vol:/v", "busybox", "true"]).ok();
    daemon.kill();
    daemon.launch();
    daemon.docker(&["rename", "told", "tale"]).ok();
    for cli in Cli::all() {
        let events = |filters: &[&str]| {
            let mut arguments = vec!["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
            filters.iter().for_each(|f| arguments.extend(["--filter", f]));
            daemon.run(cli, &arguments).ok()
        };
        // The newest are told when their second is over.
        eventually("the rename is told", || (events(&["event=rename"]) == "container rename").then_some(()));
        assert_eq!(
            events(&["type=container", "container=told"]),
            "container create\ncontainer attach\ncontainer start\ncontainer die"
        );
        assert_eq!(events(&["event=rename"]), "container rename");
        assert_eq!(events(&["event=create", "event=destroy", "type=volume"]), "volume create");
        assert_eq!(events(&["label=color=red", "event=die"]), "container die");
        assert_eq!(events(&["label=color=blue"]), "");
        assert_eq!(events(&["image=busybox", "event=start"]), "container start");
        assert_eq!(events(&["volume=vol", "event=mount"]), "volume mount");
        assert_eq!(events(&["network=bridge", "event=connect"]), "network connect");
        assert_eq!(events(&["scope=swarm"]), "");
    }
}

#[test]
fn a_clean_stop_leaves_no_cgroup_behind() {
    let mut daemon = Daemon::start(DaemonOptions::default());
    daemon.docker(&["run", "--rm", "wharf/hello"]).ok();
    daemon.stop();
    assert_eq!(daemon.residue().cgroups, Vec::<std::path::PathBuf>::new());
}
