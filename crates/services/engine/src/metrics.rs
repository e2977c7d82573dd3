//! Figures for Prometheus, under the names that dockerd has for them (`engine_daemon_…`), and the process' own.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use crate::container::Status;
use crate::engine::Engine;

/// Upper bounds of the buckets in seconds, Prometheus' default ones, which dockerd uses.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Their names say what they are.
pub enum Action {
    Create,
    Start,
    Delete,
    Changes,
    Commit,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Changes, "changes"),
    (Action::Commit, "commit"),
    (Action::Create, "create"),
    (Action::Delete, "delete"),
    (Action::Start, "start"),
];

#[derive(Clone, Copy, Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    all: u64,
    sum: f64,
}

/// How long actions took.
#[derive(Debug, Default)]
pub struct Timings(Mutex<[Histogram; ACTIONS.len()]>);

impl Timings {
    /// Takes note of an action that went well.
    pub fn note(&self, action: Action, time: Duration) {
        let seconds = time.as_secs_f64();
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(at) = ACTIONS.iter().position(|(a, _)| *a == action) else { return };
        let histogram = &mut all[at];
        histogram.all += 1;
        histogram.sum += seconds;
        for (count, bound) in histogram.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    fn write(&self, out: &mut String) {
        const NAME: &str = "engine_daemon_container_actions_seconds";
        let _ = writeln!(out, "# HELP {NAME} The number of seconds it takes to process each container action");
        let _ = writeln!(out, "# TYPE {NAME} histogram");
        let all = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((_, action), histogram) in ACTIONS.iter().zip(all) {
            for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
                let _ = writeln!(out, "{NAME}_bucket{{action=\"{action}\",le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{NAME}_bucket{{action=\"{action}\",le=\"+Inf\"}} {}", histogram.all);
            let _ = writeln!(out, "{NAME}_sum{{action=\"{action}\"}} {}", histogram.sum);
            let _ = writeln!(out, "{NAME}_count{{action=\"{action}\"}} {}", histogram.all);
        }
    }
}

/// A text as a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// What /proc/self/stat says: processor seconds, start after boot in seconds, virtual and resident bytes.
fn process() -> Option<(f64, f64, u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // proc_pid_stat(5): ticks are hundredths of a second on every Linux that is left.
    let ticks = 100.0;
    let page = rustix::param::page_size() as u64;
    Some(((number(11)? + number(12)?) as f64 / ticks, number(19)? as f64 / ticks, number(20)?, number(21)? * page))
}

/// Everything, in Prometheus' text form.
pub fn text(engine: &Engine) -> String {
    let (info, version) = (engine.system.info(), engine.system.version());
    let mut out = String::new();
    engine.timings.write(&mut out);
    let name = "engine_daemon_container_states_containers";
    let _ = writeln!(out, "# HELP {name} The count of containers in various states\n# TYPE {name} gauge");
    let counts = engine.states();
    let count = |test: &dyn Fn(Status) -> bool| counts.iter().filter(|s| test(**s)).count();
    let states = [
        ("paused", count(&|s| s == Status::Paused)),
        ("running", count(&|s| s == Status::Running)),
        ("stopped", count(&|s| !s.is_running())),
    ];
    for (state, count) in states {
        let _ = writeln!(out, "{name}{{state=\"{state}\"}} {count}");
    }
    single(
        &mut out,
        "engine_daemon_engine_cpus_cpus",
        "gauge",
        "The number of cpus that the host system of the engine has",
        info.n_cpu,
    );
    let name = "engine_daemon_engine_info";
    let labels = [
        ("architecture", &info.architecture),
        ("commit", &version.git_commit),
        ("daemon_id", &info.id),
        ("graphdriver", &info.driver),
        ("kernel", &info.kernel_version),
        ("os", &info.operating_system),
        ("os_type", &info.os_type),
        ("os_version", &info.os_version),
        ("version", &version.version),
    ];
    let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
    let _ = writeln!(
        out,
        "# HELP {name} The information related to the engine and the OS it is running on\n# TYPE {name} gauge"
    );
    let _ = writeln!(out, "{name}{{{}}} 1", labels.join(","));
    single(
        &mut out,
        "engine_daemon_engine_memory_bytes",
        "gauge",
        "The number of bytes of memory that the host system of the engine has",
        info.mem_total,
    );
    single(
        &mut out,
        "engine_daemon_events_subscribers_total",
        "gauge",
        "The number of current subscribers to events",
        engine.events.listeners(),
    );
    single(&mut out, "engine_daemon_events_total", "counter", "The number of events logged", engine.events.published());
    single(&mut out, "process_open_fds", "gauge", "Number of open file descriptors.", info.n_fd);
    single(&mut out, "process_threads", "gauge", "Number of threads.", info.n_goroutines);
    if let Some((cpu, started, memory, resident)) = process() {
        single(
            &mut out,
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            cpu,
        );
        single(&mut out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
        single(&mut out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory);
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.parse::<f64>().ok());
        if let Some(boot) = boot {
            single(
                &mut out,
                "process_start_time_seconds",
                "gauge",
                "Start time of the process since unix epoch in seconds.",
                boot + started,
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_counted_in_all_buckets_that_hold_them() {
        let timings = Timings::default();
        timings.note(Action::Start, Duration::from_millis(30));
        timings.note(Action::Start, Duration::from_secs(60));
        let mut text = String::new();
        timings.write(&mut text);
        for line in [
            "{action=\"start\",le=\"0.025\"} 0",
            "{action=\"start\",le=\"0.05\"} 1",
            "{action=\"start\",le=\"+Inf\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("_count{action=\"start\"} 2") && text.contains("_count{action=\"create\"} 0"));
        assert!(process().is_some_and(|(_, _, _, resident)| resident > 1 << 16));
    }
}
