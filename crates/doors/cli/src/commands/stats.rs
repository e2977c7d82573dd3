//! `docker stats`.

use std::time::{Duration, Instant};

use wharf_api_client::{Client, Query, Request};
use wharf_api_types::{ContainerStats, ContainerSummary};
use wharf_template::Value;

use super::path;
use crate::exit::Exit;
use crate::format::row::{Row, short_id};
use crate::format::{Listing, size};
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// `docker stats`. Without `--no-stream`, readings are printed each second until the command is interrupted.
pub fn stats(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let once = m.bool("no-stream");
    let configured = if m.changed("format") { "" } else { shell.config().stats_format.as_str() };
    let format = if configured.is_empty() { m.text("format") } else { configured };
    let listing = Listing {
        format,
        table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
        headers: HEADERS,
    };
    loop {
        let began = Instant::now();
        let names = if m.args.is_empty() { running(client, m.bool("all"))? } else { m.args.clone() };
        let rows = readings(client, &names, m.bool("no-trunc"))?;
        let text = listing.render(&rows)?;
        if once {
            return shell.print(&text);
        }
        // Home, the text with the rest of each old line cleared, then all below it cleared.
        shell.print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        // Other daemons take a second or two for an answer.
        std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
    }
}

fn running(client: &Client, all: bool) -> Result<Vec<String>, Exit> {
    let query = Query::new().with_flag("all", all);
    let containers: Vec<ContainerSummary> = client.call(Request::get("/containers/json").query(query))?.parse()?;
    Ok(containers.into_iter().map(|c| c.id).collect())
}

/// Reads all containers at once: each answer takes the while over which the daemon measures.
fn readings(client: &Client, names: &[String], full: bool) -> Result<Vec<Value>, Exit> {
    client.settle()?;
    let mut pending = Vec::with_capacity(names.len());
    for name in names {
        let query = Query::new().with("stream", "0");
        pending.push(client.send(Request::get(path("containers", name, "/stats")).query(query), false)?);
    }
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (name, p) in names.iter().zip(pending) {
        let answer = client.receive(p).and_then(|s| client.finish(s)).and_then(|r| r.parse::<ContainerStats>());
        match answer {
            Ok(s) => rows.push(row(name, &s, full)),
            Err(e) => failures.push(e.to_string()),
        }
    }
    if failures.is_empty() {
        return Ok(rows);
    }
    Err(Exit::new(failures.join("\n")))
}

fn row(name: &str, s: &ContainerStats, full: bool) -> Value {
    let memory = memory_without_cache(s);
    let limit = s.memory_stats.limit as f64;
    let memory_share = if limit > 0.0 { memory / limit * 100.0 } else { 0.0 };
    let (mut received, mut sent) = (0f64, 0f64);
    for n in s.networks.iter().flat_map(|n| n.values()) {
        received += n.rx_bytes as f64;
        sent += n.tx_bytes as f64;
    }
    let (mut read, mut written) = (0u64, 0u64);
    for e in s.blkio_stats.io_service_bytes_recursive.iter().flatten() {
        match e.op.bytes().next() {
            Some(b'r' | b'R') => read += e.value,
            Some(b'w' | b'W') => written += e.value,
            _ => {}
        }
    }
    let pair = |a: f64, b: f64| format!("{} / {}", size::decimal_short(a), size::decimal_short(b));
    Row::new("*container.statsContext")
        .with("Container", name)
        .with("Name", s.name.strip_prefix('/').unwrap_or(&s.name))
        .with("ID", if full { s.id.clone() } else { short_id(&s.id) })
        .with("CPUPerc", format!("{:.2}%", processor_share(s)))
        .with("MemUsage", format!("{} / {}", size::binary(memory), size::binary(limit)))
        .with("MemPerc", format!("{memory_share:.2}%"))
        .with("NetIO", pair(received, sent))
        .with("BlockIO", pair(read as f64, written as f64))
        .with("PIDs", s.pids_stats.current.to_string())
        .value()
}

/// Percent of one processor over the time between the two samples.
fn processor_share(s: &ContainerStats) -> f64 {
    let used = s.cpu_stats.cpu_usage.total_usage as f64 - s.precpu_stats.cpu_usage.total_usage as f64;
    let passed = s.cpu_stats.system_cpu_usage as f64 - s.precpu_stats.system_cpu_usage as f64;
    let processors = match s.cpu_stats.online_cpus {
        0 => s.cpu_stats.cpu_usage.percpu_usage.as_ref().map_or(0, Vec::len) as f64,
        n => f64::from(n),
    };
    if passed > 0.0 && used > 0.0 { used / passed * processors * 100.0 } else { 0.0 }
}

/// Memory without the page cache that can go: `total_inactive_file` of cgroup v1, `inactive_file` of v2.
fn memory_without_cache(s: &ContainerStats) -> f64 {
    let usage = s.memory_stats.usage;
    let stats = s.memory_stats.stats.as_ref();
    let cache = stats.and_then(|m| m.get("total_inactive_file").or_else(|| m.get("inactive_file")).copied());
    cache.filter(|c| *c < usage).map_or(usage, |c| usage - c) as f64
}
