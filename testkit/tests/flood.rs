//! Many at once, and those who do not keep up: nobody else waits for them, and memory stays bounded.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Daemon, Rest, eventually};

/// Runs an exec and returns its output and exit code.
fn exec(rest: &Rest, container: &str, words: &[&str]) -> (Vec<u8>, i64) {
    let body = json!({"Cmd": words, "AttachStdout": true, "AttachStderr": true});
    let made = rest.post(&format!("/v1.51/containers/{container}/exec"), &body).json();
    let id = made["Id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
    let path = format!("/v1.51/exec/{id}/start");
    let mut open = rest.open("POST", &path, &upgrade, br#"{"Detach":false,"Tty":false}"#).expect("started");
    let mut output = Vec::new();
    open.stream.read_to_end(&mut output).expect("read");
    let code = rest.get(&format!("/v1.51/exec/{id}/json")).json()["ExitCode"].as_i64().unwrap_or(-1);
    (output, code)
}

/// Resident memory of a process in kilobytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn many_execs_at_once_all_give_their_output_and_exit_code() {
    let count = if std::env::var_os("WHARF_LONG").is_some() { 1000 } else { 60 };
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "many", "busybox", "sleep", "10000"]).ok();
    let rest = daemon.rest();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|n| {
                let rest = &rest;
                let work = move || exec(rest, "many", &["sh", "-c", &format!("echo {n}; exit {}", n % 7)]);
                std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).expect("a thread")
            })
            .collect();
        for (n, client) in clients.into_iter().enumerate() {
            let (output, code) = client.join().expect("a client");
            let text = format!("{n}\n");
            let mut framed = vec![1, 0, 0, 0, 0, 0, 0, text.len() as u8];
            framed.extend_from_slice(text.as_bytes());
            assert_eq!((output, code), (framed, n as i64 % 7), "exec {n}");
        }
    });
    eventually("no exec is left", || {
        let shown = rest.get("/v1.51/containers/many/json").json();
        shown["ExecIDs"].is_null().then_some(())
    });
}

#[test]
fn clients_that_never_read_cost_little_and_stop_nobody() {
    let daemon = Daemon::with_image();
    let script = "head -c 30000000 /dev/zero > /big; while :; do echo a line that somebody does not read; done";
    daemon.docker(&["run", "-d", "--name", "loud", "--log-opt", "max-size=1m", "busybox", "sh", "-c", script]).ok();
    eventually("the file is there", || {
        let size = daemon.docker(&["exec", "loud", "stat", "-c", "%s", "/big"]).text();
        (size.trim() == "30000000").then_some(())
    });
    let rest = daemon.rest();
    let paths = [
        "/v1.51/containers/loud/archive?path=/big",
        "/v1.51/containers/loud/logs?follow=1&stdout=1",
        "/v1.51/containers/loud/stats",
        "/v1.51/events",
    ];
    // Their connections stay open, and nothing is read from them.
    let idle: Vec<_> =
        paths.iter().cycle().take(40).map(|path| rest.open("GET", path, &[], b"").expect("answered")).collect();
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(exec(&rest, "loud", &["true"]).1, 0);
        daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
        daemon.docker(&["ps"]).ok();
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(resident(daemon.pid()) < 120 << 10, "{} kB", resident(daemon.pid()));
    daemon.docker(&["rm", "-f", "loud"]).ok();
    drop(idle);
}

#[test]
fn a_stopped_shim_blocks_nobody_else() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "stuck", "busybox", "sleep", "10000"]).ok();
    daemon.docker(&["run", "-d", "--name", "free", "busybox", "sleep", "10000"]).ok();
    let id = daemon.docker(&["inspect", "-f", "{{.Id}}", "stuck"]).ok();
    let file = daemon.exec_root().join("tasks").join(id).join("shim.pid");
    let pid: i32 = std::fs::read_to_string(&file).expect("a shim").trim().parse().expect("its id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
    let rest = daemon.rest();
    let start = Instant::now();
    std::thread::scope(|scope| {
        // Somebody waits for the stuck one; that is his business alone.
        let waiting = scope.spawn(|| daemon.docker(&["stop", "-t", "1", "stuck"]));
        for _ in 0..5 {
            assert_eq!(exec(&rest, "free", &["true"]).1, 0);
            assert_eq!(daemon.docker(&["ps", "-q"]).ok().lines().count(), 2);
            daemon.docker(&["inspect", "stuck"]).ok();
            daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
        }
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
        let _ = waiting.join();
    });
    daemon.docker(&["rm", "-f", "stuck", "free"]).ok();
}
