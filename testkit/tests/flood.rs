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

/// Bytes of one line of the long log: a number and filling.
const LINE: usize = 4000;

/// The largest that a process has been, in kilobytes of resident memory.
fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|l| l.starts_with("VmHWM:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// Reads lines of the long log from a client's output and checks each; returns how many came.
fn check_lines(mut source: impl Read) -> usize {
    let (mut buffer, mut have, mut next) = (vec![0; 256 * LINE], 0, 0);
    loop {
        let n = source.read(&mut buffer[have..]).expect("read");
        have += n;
        let whole = have / LINE * LINE;
        for line in buffer[..whole].chunks_exact(LINE) {
            let number: usize = std::str::from_utf8(&line[..8]).ok().and_then(|t| t.parse().ok()).expect("a number");
            assert_eq!(number, next, "a line is missing or came twice");
            assert!(
                line[8..LINE - 1].iter().all(|byte| *byte == b'x') && line[LINE - 1] == b'\n',
                "line {next} is torn"
            );
            next += 1;
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
        if n == 0 {
            assert_eq!(have, 0, "the last line is torn");
            return next;
        }
    }
}

#[test]
fn no_byte_of_a_huge_log_is_lost_and_nobody_s_memory_grows() {
    // 10 GB in the long tier.
    let lines = if std::env::var_os("WHARF_LONG").is_some() { 2_500_000 } else { 25_000 };
    let daemon = Daemon::with_image();
    let awk = format!(
        "BEGIN {{ s = sprintf(\"%{}s\", \"\"); gsub(\" \", \"x\", s); for (i = 0; i < {lines}; i++) printf \"%08d%s\\n\", i, s }}",
        LINE - 9
    );
    let script = format!("read go; awk '{awk}'");
    daemon
        .docker(&["run", "-d", "-i", "--name", "huge", "--log-opt", "max-size=-1", "busybox", "sh", "-c", &script])
        .ok();
    let id = daemon.docker(&["inspect", "-f", "{{.Id}}", "huge"]).ok();
    let shim = std::fs::read_to_string(daemon.exec_root().join("tasks").join(&id).join("shim.pid")).expect("a shim");
    let shim: u32 = shim.trim().parse().expect("its id");
    let rest = daemon.rest();
    // One follows and never reads, one follows and reads all, one attaches only to start it.
    let idle = rest.open("GET", "/v1.51/containers/huge/logs?follow=1&stdout=1", &[], b"").expect("answered");
    let mut follow = daemon.client(testkit::Cli::Ours, &["logs", "-f", "huge"]);
    let mut following = follow.stdout(std::process::Stdio::piped()).spawn().expect("started");
    let output = following.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || check_lines(output));
    let mut starter = daemon.session(testkit::Cli::Ours, &["attach", "--sig-proxy=false", "huge"]);
    starter.send(b"go\n");
    let mut largest = 0;
    while !reader.is_finished() {
        // It goes with its container's end.
        largest = largest.max(resident_or(shim));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(reader.join().expect("the reader"), lines);
    assert!(following.wait().expect("ended").success());
    assert!(largest < 40 << 10, "the shim: {largest} kB");
    assert!(peak(daemon.pid()) < 150 << 10, "dockerd: {} kB", peak(daemon.pid()));
    drop((idle, starter));
    // And all of it is there afterwards.
    let mut again = daemon.client(testkit::Cli::Ours, &["logs", "huge"]);
    let mut reading = again.stdout(std::process::Stdio::piped()).spawn().expect("started");
    assert_eq!(check_lines(reading.stdout.take().expect("piped")), lines);
    assert!(reading.wait().expect("ended").success());
    assert!(peak(daemon.pid()) < 150 << 10, "dockerd: {} kB", peak(daemon.pid()));
    daemon.docker(&["rm", "-f", "huge"]).ok();
}

/// Resident memory of a process that may have ended.
fn resident_or(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
