//! Chaos (long tier): many clients do random things while the daemon is killed again and again. Afterwards what is there
//! equals what the clients' models say, and nothing is left behind. `WHARF_LONG=1` runs it for ten minutes;
//! `WHARF_CHAOS_SECONDS` sets another time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Daemon, Response, Rest};

/// How many clients work at the same time.
const CLIENTS: u64 = 16;
/// Containers of one client.
const NAMES: u64 = 3;

/// How a container stands, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    Running,
    Exited,
}

/// A small generator (Knuth's MMIX), so that a failure can be run again with its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Asks until the daemon answers: it is away while it is killed and started again.
fn ask(rest: &Rest, path: &str) -> Response {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match rest.call("GET", path, b"") {
            Ok(answer) if answer.status != 503 => return answer,
            other => assert!(Instant::now() < end, "GET {path}: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn state(rest: &Rest, name: &str) -> State {
    let answer = ask(rest, &format!("/v1.51/containers/{name}/json"));
    if answer.status == 404 {
        return State::Absent;
    }
    match answer.json()["State"]["Status"].as_str() {
        Some("created") => State::Created,
        Some("running" | "paused" | "restarting") => State::Running,
        Some("removing") => State::Absent,
        _ => State::Exited,
    }
}

/// What an operation makes of a state; `None` where it changes nothing.
fn after(operation: u64, before: State) -> Option<State> {
    match (operation, before) {
        (0, State::Absent) => Some(State::Created),
        (1, State::Created | State::Exited) => Some(State::Running),
        (2 | 3, State::Running) => Some(State::Exited),
        (4, State::Created | State::Exited | State::Running) => Some(State::Absent),
        _ => None,
    }
}

fn perform(rest: &Rest, operation: u64, name: &str) -> std::io::Result<Response> {
    let post = |path: String, body: Value| {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        rest.call("POST", &path, &bytes)
    };
    let container = format!("/v1.51/containers/{name}");
    match operation {
        0 => {
            let body = json!({"Image": "busybox", "Cmd": ["sleep", "10000"], "HostConfig": {"NetworkMode": "none"}});
            post(format!("/v1.51/containers/create?name={name}"), body)
        }
        1 => post(format!("{container}/start"), Value::Null),
        2 => post(format!("{container}/stop?t=0"), Value::Null),
        3 => post(format!("{container}/kill"), Value::Null),
        4 => rest.call("DELETE", &format!("{container}?force=1"), b""),
        5 => post(format!("{container}/exec"), json!({"Cmd": ["true"]})),
        6 => rest.call("GET", &format!("{container}/archive?path=/etc"), b""),
        _ => rest.call("GET", "/v1.51/containers/json?all=1", b""),
    }
}

/// One client: random operations on containers that only it knows.
fn client(rest: &Rest, number: u64, stop: &AtomicBool, done: &AtomicU64) -> BTreeMap<String, State> {
    let mut random = Random(number * 7919 + 1);
    let mut model: BTreeMap<String, State> = (0..NAMES).map(|n| (format!("c{number}n{n}"), State::Absent)).collect();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("c{number}n{}", random.below(NAMES));
        let operation = random.below(8);
        let before = model[&name];
        let wanted = after(operation, before);
        let answer = perform(rest, operation, &name);
        let sure = matches!(&answer, Ok(answer) if answer.status < 500);
        let there = state(rest, &name);
        let expected: Vec<State> = match wanted {
            Some(wanted) if sure => vec![wanted],
            // The daemon died on the way: it may have happened, or not, or so far that the process was killed.
            Some(State::Absent) if before == State::Running => vec![before, State::Exited, State::Absent],
            Some(wanted) => vec![before, wanted],
            None => vec![before],
        };
        assert!(expected.contains(&there), "{name}: operation {operation} on {before:?} gave {there:?}: {answer:?}");
        model.insert(name, there);
        done.fetch_add(1, Ordering::Relaxed);
    }
    model
}

#[test]
fn what_many_clients_do_while_the_daemon_is_killed_equals_their_models() {
    let seconds = std::env::var("WHARF_CHAOS_SECONDS").ok().and_then(|s| s.parse().ok());
    let Some(seconds) = seconds.or_else(|| std::env::var_os("WHARF_LONG").map(|_| 600)) else {
        eprintln!("skipped: WHARF_LONG is not set");
        return;
    };
    let mut daemon = Daemon::with_image();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let rest = daemon.rest();
    let mut kills = 0_u32;
    let models: Vec<BTreeMap<String, State>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (rest, stop, done) = (&rest, &stop, &done);
                scope.spawn(move || client(rest, n, stop, done))
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut random = Random(42);
        while Instant::now() < end && clients.iter().all(|c| !c.is_finished()) {
            std::thread::sleep(Duration::from_millis(1000 + random.below(3000)));
            daemon.kill();
            daemon.launch();
            kills += 1;
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|c| c.join().expect("a client whose model holds")).collect()
    });
    let mut there = 0;
    for (name, expected) in models.iter().flatten() {
        assert_eq!(state(&rest, name), *expected, "{name}");
        there += usize::from(*expected != State::Absent);
    }
    let listed = ask(&rest, "/v1.51/containers/json?all=1").json();
    assert_eq!(listed.as_array().map(Vec::len), Some(there), "nothing is there that no client knows");
    println!(
        "{} operations of {CLIENTS} clients, {kills} kills, {there} containers left",
        done.load(Ordering::Relaxed)
    );
    for (name, _) in models.iter().flatten().filter(|(_, state)| **state != State::Absent) {
        daemon.docker(&["rm", "-f", name]).ok();
    }
    let residue = testkit::Residue::of_containers(&daemon);
    assert!(residue.is_empty(), "{residue:?}");
}
