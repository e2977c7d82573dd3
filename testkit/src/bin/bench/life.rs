//! Rows of containers' life: `ROWS=life`. A stop of a process that obeys, the list of 1,000 containers, and the start of a daemon that
//! finds 200 stopped and 100 running ones. The last is of ours alone: a peer would have to be restarted under its users.

use std::time::{Duration, Instant};

use testkit::{Daemon, DaemonOptions};

use crate::{Engine, median, print};

/// Containers in the long list.
const MANY: usize = 1000;
/// What a daemon finds when it starts.
const STOPPED: usize = 200;
const RUNNING: usize = 100;

/// A stop of a process that ends at SIGTERM, by REST: what is above the time of a kill by hand is the engine's.
fn stop(engines: &[Engine], rounds: usize) -> Result<Vec<f64>, String> {
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 100 & wait $!; done";
    let mut times = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            engine.docker(&["run", "-d", "--name", "bench-stop", "busybox", "sh", "-c", script])?;
            // Its trap is set when it has said so.
            let up = || !engine.rest.get("/v1.51/containers/bench-stop/logs?stdout=1").body.is_empty();
            let end = Instant::now() + Duration::from_secs(5);
            while !up() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let start = Instant::now();
            let answer = engine.rest.post("/v1.51/containers/bench-stop/stop", &serde_json::Value::Null);
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            if answer.status != 204 {
                return Err(format!("{}: stop: {}", engine.label, answer.status));
            }
            engine.docker(&["rm", "-f", "bench-stop"])?;
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// Requests for the whole list in a second, by one client on one connection after the other, and the processor time of the daemon that
/// each takes: what one core could do.
fn list(engines: &[Engine]) -> Result<(), String> {
    let body = serde_json::json!({"Image": "busybox", "Cmd": ["true"]});
    let (mut rates, mut cores) = (Vec::new(), Vec::new());
    for engine in engines {
        let names: Vec<String> = (0..MANY).map(|n| format!("bench-list-{n}")).collect();
        for name in &names {
            let made = engine.rest.post(&format!("/v1.51/containers/create?name={name}"), &body);
            if made.status != 201 {
                return Err(format!("{}: create: {}", engine.label, made.json()));
            }
        }
        let (start, used) = (Instant::now(), processor(engine.pid));
        let mut asked = 0_u32;
        while start.elapsed() < Duration::from_secs(5) {
            let answer = engine.rest.get("/v1.51/containers/json?all=1");
            if answer.status != 200 {
                return Err(format!("{}: list: {}", engine.label, answer.status));
            }
            asked += 1;
        }
        rates.push(f64::from(asked) / start.elapsed().as_secs_f64());
        cores.push(f64::from(asked) / (processor(engine.pid) - used).max(0.01));
        for some in names.chunks(200) {
            let words: Vec<&str> = ["rm", "-f"].into_iter().chain(some.iter().map(String::as_str)).collect();
            engine.docker(&words)?;
        }
    }
    print("/containers/json of 1,000, one client", "1/s", &rates);
    print("/containers/json of 1,000, a core's worth", "1/s", &cores);
    Ok(())
}

/// Seconds of processor time that a process has used (proc_pid_stat(5), in hundredths).
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// From the daemon's start to its first answer.
fn start(rounds: usize) -> Result<f64, String> {
    let arguments = vec!["--live-restore".to_owned()];
    let mut daemon = Daemon::start(DaemonOptions { in_memory: true, arguments, ..DaemonOptions::default() });
    testkit::base_image(&daemon);
    for n in 0..STOPPED + RUNNING {
        let name = format!("bench-start-{n}");
        let mut words = vec!["run", "-d", "--name", &name, "--network", "none", "busybox"];
        words.extend(if n < STOPPED { &["true"][..] } else { &["sleep", "10000"] });
        let done = daemon.docker(&words);
        if done.code != 0 {
            return Err(done.stderr);
        }
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        daemon.stop();
        let begun = Instant::now();
        daemon.spawn();
        while !daemon.rest().call("GET", "/_ping", b"").is_ok_and(|r| r.status == 200) {
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        let running = daemon.docker(&["ps", "-q"]).text().lines().count();
        if running != RUNNING {
            return Err(format!("{running} of {RUNNING} are found running"));
        }
    }
    // A daemon that keeps its containers running is no clean end for the folder that goes away with it.
    let names: Vec<String> = (STOPPED..STOPPED + RUNNING).map(|n| format!("bench-start-{n}")).collect();
    let words: Vec<&str> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let done = daemon.docker(&words);
    if done.code != 0 {
        return Err(done.stderr);
    }
    Ok(median(times))
}

pub fn rows(engines: &[Engine], rounds: usize, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    if wanted("stop of a process that obeys, by REST") {
        print("stop of a process that obeys, by REST", "ms", &stop(engines, rounds)?);
    }
    if wanted("/containers/json of 1,000") {
        list(engines)?;
    }
    if wanted("daemon start, 200 stopped and 100 running") {
        print("daemon start, 200 stopped and 100 running", "ms", &[start(rounds.min(5))?]);
    }
    Ok(())
}
