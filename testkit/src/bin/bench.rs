//! `make bench`: our engine and a peer side by side, in one run, medians and ratios.
//!
//! Each engine is driven by its own command line (what a user feels) and by one thin REST client (what the daemon does). Rounds
//! alternate between the engines, so that a change in the host's load touches both.
//!
//! Environment: `PEER=unix:///…` the peer's socket (without it only ours is measured), `PEER_CLI` its command line (default: `docker`
//! on PATH), `ROUNDS` (default 15), `SETTLE` seconds before memory is read (default 10), `ONLY` a part of the names to run,
//! `ROWS=images` for the rows of images in place of the others.
//! `ROWS=network` measures networks instead (20 rounds by default), `ROWS=life` stops, lists and the daemon's start.

#[path = "bench/life.rs"]
mod life;
#[path = "bench/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[path = "bench/images.rs"]
mod images;

use testkit::registry::{Registry, layer};
use testkit::{Cli, Daemon, DaemonOptions, Rest};

/// One engine under measurement.
struct Engine {
    label: &'static str,
    host: String,
    cli: PathBuf,
    config: PathBuf,
    rest: Rest,
    /// dockerd's process id.
    pid: u32,
}

impl Engine {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.config).env("DOCKER_CLI_HINTS", "false");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn docker(&self, arguments: &[&str]) -> Result<(), String> {
        let done = self.command(arguments).output().map_err(|e| format!("{}: {e}", self.cli.display()))?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(()) } else { Err(format!("{}: docker {arguments:?}: {said}", self.label)) }
    }

    /// A whole `run --rm` as the command line does it: create, attach, wait for removal, start.
    fn rest_run(&self, network: &str) -> Result<(), String> {
        let wrong = |e: std::io::Error| format!("{}: {e}", self.label);
        let body = serde_json::json!({"Image": "busybox", "Cmd": ["true"], "AttachStdout": true, "AttachStderr": true,
            "HostConfig": {"AutoRemove": true, "NetworkMode": network}});
        let made = self.rest.post("/v1.51/containers/create", &body).json();
        let id = made["Id"].as_str().ok_or_else(|| format!("{}: create: {made}", self.label))?.to_owned();
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let path = format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stderr=1");
        let mut attached = self.rest.open("POST", &path, &upgrade, b"").map_err(wrong)?;
        let path = format!("/v1.51/containers/{id}/wait?condition=removed");
        let waiting = self.rest.open("POST", &path, &[("Connection", "close")], b"").map_err(wrong)?;
        let started = self.rest.post(&format!("/v1.51/containers/{id}/start"), &serde_json::Value::Null);
        if started.status != 204 {
            return Err(format!("{}: start: {}", self.label, started.json()));
        }
        attached.stream.read_to_end(&mut Vec::new()).map_err(wrong)?;
        let status = waiting.finish().map_err(wrong)?.json()["StatusCode"].clone();
        if status == 0 { Ok(()) } else { Err(format!("{}: exit {status}", self.label)) }
    }

    fn rest_exec(&self, container: &str) -> Result<(), String> {
        let wrong = |e: std::io::Error| format!("{}: {e}", self.label);
        let body = serde_json::json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
        let made = self.rest.post(&format!("/v1.51/containers/{container}/exec"), &body).json();
        let id = made["Id"].as_str().ok_or_else(|| format!("{}: exec: {made}", self.label))?.to_owned();
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let path = format!("/v1.51/exec/{id}/start");
        let mut open = self.rest.open("POST", &path, &upgrade, br#"{"Detach":false,"Tty":false}"#).map_err(wrong)?;
        open.stream.read_to_end(&mut Vec::new()).map_err(wrong)?;
        let code = self.rest.get(&format!("/v1.51/exec/{id}/json")).json()["ExitCode"].clone();
        if code == 0 { Ok(()) } else { Err(format!("{}: exec exit {code}", self.label)) }
    }

    /// Kilobytes of proportional memory of the daemon and every process that serves it. containerd's shims leave the process tree
    /// and are known by containerd's address on their command line.
    fn memory(&self) -> u64 {
        let parents = parents();
        let below = |mut pid: u32| {
            while pid > 1 && pid != self.pid {
                pid = parents.get(&pid).copied().unwrap_or(0);
            }
            pid == self.pid
        };
        let lines: BTreeMap<u32, Vec<String>> = parents.keys().map(|pid| (*pid, command_line(*pid))).collect();
        let containerd = lines.iter().find(|(pid, line)| program(line) == "containerd" && below(**pid));
        let folder =
            containerd.and_then(|(_, line)| line.iter().find_map(|word| word.strip_suffix("/containerd.toml")));
        let engine = |pid: u32, line: &[String]| {
            let known = ["dockerd", "containerd", "containerd-shim-runc-v2", "wharf-shim", "docker-proxy"];
            let served = folder.is_some_and(|folder| line.iter().any(|word| word.starts_with(folder)));
            known.contains(&program(line).as_str()) && (served || below(pid))
        };
        lines.iter().filter(|(pid, line)| engine(**pid, line)).map(|(pid, _)| pss(*pid)).sum()
    }
}

fn command_line(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect()
}

/// The file name of a command line's program.
fn program(line: &[String]) -> String {
    let path = Path::new(line.first().map_or("", String::as_str));
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn parents() -> BTreeMap<u32, u32> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

type Measure<'a> = &'a dyn Fn(&Engine) -> Result<(), String>;

/// The middle of `rounds` timings per engine, in milliseconds, rounds alternating between the engines.
fn medians(engines: &[Engine], rounds: usize, measure: Measure<'_>) -> Result<Vec<f64>, String> {
    let mut times = vec![Vec::new(); engines.len()];
    for round in 0..=rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            let start = Instant::now();
            measure(engine)?;
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// 40 runs, 8 at a time; each engine's whole time divided by 40.
fn burst(engine: &Engine) -> Result<(), String> {
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let client = || (0..5).try_for_each(|_| engine.docker(&["run", "--rm", "busybox", "true"]));
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|c| c.join().unwrap_or_else(|_| Err("client panicked".to_owned()))).collect()
    });
    results.into_iter().collect()
}

/// A file of 64 MB into the container that execs run in, and out again.
fn copy(engine: &Engine) -> Result<(), String> {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("bench-cp-{}", std::process::id()));
    if !file.exists() {
        std::fs::write(&file, vec![b'x'; 64 << 20]).map_err(|e| e.to_string())?;
    }
    let path = file.display().to_string();
    engine.docker(&["cp", &path, "bench-exec:/file"])?;
    engine.docker(&["cp", "bench-exec:/file", &format!("{path}-back")])
}

/// How long after its fact an event reaches a client that listens: a kill of a container of its own, heard by REST.
fn event(engine: &Engine) -> Result<(), String> {
    use std::io::BufRead;
    let wrong = |e: std::io::Error| format!("{}: {e}", engine.label);
    let filters = "%7B%22event%22:[%22kill%22]%7D";
    let mut open = engine.rest.open("GET", &format!("/v1.51/events?filters={filters}"), &[], b"").map_err(wrong)?;
    let told = engine.rest.post("/v1.51/containers/bench-exec/kill?signal=CONT", &serde_json::Value::Null);
    if told.status != 204 {
        return Err(format!("{}: kill: {}", engine.label, told.status));
    }
    // The chunk's size, then the event.
    let mut line = String::new();
    open.stream.read_line(&mut line).and_then(|_| open.stream.read_line(&mut line)).map(drop).map_err(wrong)
}

/// 50 MB of lines through the container's log and back through `docker logs`.
fn log_round_trip(engine: &Engine) -> Result<(), String> {
    let name = format!("bench-log-{}", std::process::id());
    let script = "yes 'a line of the usual length, as a web server or an application would write it, more or less' | head -c 52428800";
    // Docker's json-file is unbounded by default and takes no -1; ours is bounded by default.
    let size = if engine.label == "wharf" { "max-size=-1" } else { "max-size=1g" };
    engine.docker(&["run", "--name", &name, "-d", "--log-opt", size, "busybox", "sh", "-c", script])?;
    engine.docker(&["wait", &name])?;
    let mut logs = engine.command(&["logs", &name]);
    let mut child = logs.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let read = std::io::copy(&mut stdout, &mut std::io::sink()).map_err(|e| e.to_string())?;
    let _ = child.wait();
    engine.docker(&["rm", &name])?;
    if read == 52_428_800 { Ok(()) } else { Err(format!("{}: {read} bytes came back", engine.label)) }
}

fn print(name: &str, unit: &str, values: &[f64]) {
    let ratio = values.get(1).map(|peer| format!("{:>8.1}x", peer / values[0])).unwrap_or_default();
    let peer = values.get(1).map(|v| format!("{v:>10.2}")).unwrap_or_default();
    println!("{name:<44} {:>10.2} {peer} {unit:<5}{ratio}", values[0]);
    let _ = std::io::stdout().flush();
}

/// Memory with no container and, over 30 containers, per container.
fn memory(engines: &[Engine], settle: Duration) -> Result<(), String> {
    std::thread::sleep(settle);
    let idle: Vec<u64> = engines.iter().map(Engine::memory).collect();
    print("idle daemon memory, PSS", "MB", &idle.iter().map(|kb| *kb as f64 / 1024.0).collect::<Vec<_>>());
    let names: Vec<String> = (0..30).map(|n| format!("bench-{}-{n}", std::process::id())).collect();
    for engine in engines {
        for name in &names {
            engine.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"])?;
        }
    }
    std::thread::sleep(settle);
    let full: Vec<u64> = engines.iter().map(Engine::memory).collect();
    let each = full.iter().zip(&idle).map(|(full, idle)| full.saturating_sub(*idle) as f64 / 30.0 / 1024.0);
    print("memory per running container, PSS", "MB", &each.collect::<Vec<_>>());
    let mut arguments = vec!["rm", "-f"];
    arguments.extend(names.iter().map(String::as_str));
    engines.iter().try_for_each(|engine| engine.docker(&arguments))
}

fn timings(engines: &[Engine], rounds: usize, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let run: Measure<'_> = &|e| e.docker(&["run", "--rm", "busybox", "true"]);
    let run_none: Measure<'_> = &|e| e.docker(&["run", "--rm", "--network", "none", "busybox", "true"]);
    let exec: Measure<'_> = &|e| e.docker(&["exec", "bench-exec", "true"]);
    // The layers do not compress: what is measured is the way, not the decoder.
    let registry = Registry::plain();
    registry.put_image("bench", "v1", "amd64", &[layer("a", 32 << 20), layer("b", 32 << 20)]);
    let name = registry.name("bench:v1");
    let pull = |e: &Engine| {
        e.docker(&["pull", "-q", &name])?;
        e.docker(&["rmi", &name])
    };
    let rows: &[(&str, usize, f64, Measure<'_>)] = &[
        ("run --rm busybox true", rounds, 1.0, run),
        ("  by REST", rounds, 1.0, &|e| e.rest_run("bridge")),
        ("run --rm --network none busybox true", rounds, 1.0, run_none),
        ("  by REST, no network", rounds, 1.0, &|e| e.rest_run("none")),
        ("exec c true", rounds, 1.0, exec),
        ("  by REST, exec", rounds, 1.0, &|e| e.rest_exec("bench-exec")),
        ("40 runs, 8 at a time, each", 3, 40.0, &burst),
        ("ps", rounds, 1.0, &|e| e.docker(&["ps", "-a"])),
        ("inspect", rounds, 1.0, &|e| e.docker(&["inspect", "bench-exec"])),
        ("stats --no-stream", 3, 1.0, &|e| e.docker(&["stats", "--no-stream", "bench-exec"])),
        ("logs --tail 10", rounds, 1.0, &|e| e.docker(&["logs", "--tail", "10", "bench-exec"])),
        ("cp of 64 MB, in and out", 3, 1.0, &copy),
        ("a kill and its event, by REST", rounds, 1.0, &event),
        ("version (own CLI)", rounds, 1.0, &|e| e.docker(&["version"])),
        ("50 MB through the log and back", 3, 1.0, &log_round_trip),
        ("pull 64 MB from loopback, and rmi", 3, 1.0, &pull),
    ];
    for engine in engines {
        // A container of this name may be left of a bench that was interrupted.
        let _ = engine.docker(&["rm", "-f", "bench-exec"]);
        engine.docker(&["run", "-d", "--name", "bench-exec", "busybox", "sleep", "10000"])?;
    }
    for (name, rounds, divisor, measure) in rows.iter().filter(|(name, ..)| wanted(name)) {
        let values = medians(engines, *rounds, measure)?;
        print(name, "ms", &values.iter().map(|v| v / divisor).collect::<Vec<_>>());
    }
    for suffix in ["", "-back"] {
        // Only `cp` makes them.
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("bench-cp-{}{suffix}", std::process::id())));
    }
    engines.iter().try_for_each(|e| e.docker(&["rm", "-f", "bench-exec"]))
}

fn peer(config: &Path) -> Result<Option<Engine>, String> {
    let Ok(host) = std::env::var("PEER") else { return Ok(None) };
    let socket = host.strip_prefix("unix://").ok_or("PEER must be unix:///path")?;
    let cli = std::env::var_os("PEER_CLI").map(PathBuf::from).or_else(|| Cli::Stock.program());
    let cli = cli.ok_or("no docker on PATH: set PEER_CLI")?;
    let pid = peer_pid(socket)?;
    let rest = Rest::new(Path::new(socket));
    Ok(Some(Engine { label: "peer", cli, config: config.to_owned(), rest, pid, host: host.clone() }))
}

/// The process that listens on the peer's socket.
fn peer_pid(socket: &str) -> Result<u32, String> {
    let stream = std::os::unix::net::UnixStream::connect(socket).map_err(|e| format!("{socket}: {e}"))?;
    let credentials = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| format!("{socket}: {e}"))?;
    Ok(credentials.pid.as_raw_nonzero().get() as u32)
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn bench() -> Result<(), String> {
    let daemon = Daemon::start(DaemonOptions { in_memory: true, ..DaemonOptions::default() });
    testkit::base_image(&daemon);
    let cli = Cli::Ours.program().ok_or("our docker is not built")?;
    let config = daemon.folder().join("config");
    let ours = Engine {
        label: "wharf",
        host: daemon.host(),
        cli,
        config: config.clone(),
        rest: daemon.rest(),
        pid: daemon.pid(),
    };
    let mut engines = vec![ours];
    engines.extend(peer(&config)?);
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |name: &str| name.contains(&only);
    println!("{:<44} {:>10} {:>10} {:<5}{:>9}", "", "wharf", if engines.len() > 1 { "peer" } else { "" }, "", "ratio");
    if std::env::var("ROWS").is_ok_and(|rows| rows == "images") {
        return images::rows(&engines, number("ROUNDS", 15), &wanted);
    }
    if std::env::var("ROWS").is_ok_and(|rows| rows == "life") {
        return life::rows(&engines, number("ROUNDS", 10), &wanted);
    }
    if std::env::var("ROWS").is_ok_and(|rows| rows == "network") {
        return network::rows(&engines, number("ROUNDS", 20), &wanted);
    }
    timings(&engines, number("ROUNDS", 15), &wanted)?;
    if wanted("memory") {
        memory(&engines, Duration::from_secs(number("SETTLE", 10) as u64))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}
