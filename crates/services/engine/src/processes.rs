//! Looking at what runs in containers: processes and resource use.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wharf_api_types::{
    BlkioEntry, BlkioStats, ContainerStats, ContainerTopResponse, CpuStats, CpuUsage, MemoryStats, NetworkStats,
    PidsStats, ThrottlingData,
};
use wharf_types::Timestamp;

use crate::container::{Container, Reading, Registry, Task};
use crate::creator::tell;
use crate::events::Events;
use crate::{EngineError, blocking};

/// Looks at what runs in containers.
pub struct Processes {
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: Arc<Events>,
}

impl Processes {
    /// Lists a container's processes by the host's ps(1), as Docker does; nothing of the container is executed
    /// (CVE-2022-1227).
    pub async fn top(&self, name: &str, arguments: &str) -> Result<ContainerTopResponse, EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        let task = view.task.clone().ok_or_else(|| EngineError::NotRunning(container.id.to_string()))?;
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let words = if words.is_empty() { vec!["-ef".to_owned()] } else { words };
        let pids = task.shim.pids().await?;
        let output = blocking(move || std::process::Command::new("ps").args(&words).output()).await?;
        let output = output.map_err(|e| EngineError::Ps(e.to_string()))?;
        if !output.status.success() {
            return Err(EngineError::Ps(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let listed = rows(&String::from_utf8_lossy(&output.stdout), &pids)?;
        tell(&self.events, &view.record, "top", &[]);
        Ok(listed)
    }

    /// Samples a container's resource use each second, or once. A container that does not run gives zeroes.
    ///
    /// One sample alone tells no rate, so one that is not part of a stream comes with an earlier reading: the last one that
    /// anybody asked for, if it is recent, or one taken now, [`SHORT`] before the answer (Docker: a second or two before).
    /// With `one_shot` it comes as it is and at once.
    pub fn stats(
        &self,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<mpsc::Receiver<Result<ContainerStats, EngineError>>, EngineError> {
        let container = self.registry.find(name)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            if !stream {
                let sample = if one_shot { sample(&container, None).await.0 } else { compared(&container).await };
                // The client may have left.
                return drop(sender.send(Ok(sample)).await);
            }
            let mut previous: Option<Box<Reading>> = None;
            loop {
                let (shown, reading) = sample(&container, previous.as_deref()).await;
                if sender.send(Ok(shown)).await.is_err() {
                    return;
                }
                previous = reading;
                let mut watch = container.watch();
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    _ = watch.wait_for(|v| v.removed) => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }
}

/// The least time over which a rate is told.
const SHORT: Duration = Duration::from_millis(200);
/// The longest: what a container did before is not what it does now.
const LONG: Duration = Duration::from_secs(10);

/// The last reading of a container, if it is of the process that runs now.
fn last(container: &Container) -> Option<Box<Reading>> {
    let pid = container.view().task.as_ref()?.pid;
    let reading = container.reading.lock().unwrap_or_else(PoisonError::into_inner);
    reading.clone().filter(|r| r.pid == pid)
}

/// A sample with the reading that it is compared with.
async fn compared(container: &Container) -> ContainerStats {
    let first = match last(container).filter(|r| r.taken.elapsed() < LONG) {
        Some(reading) => reading,
        None => match sample(container, None).await {
            (_, Some(reading)) => reading,
            (nothing, None) => return nothing,
        },
    };
    // No time at all, if the last reading is old enough.
    let mut watch = container.watch();
    tokio::select! {
        () = tokio::time::sleep(SHORT.saturating_sub(first.taken.elapsed())) => {}
        _ = watch.wait_for(|v| v.removed) => {}
    }
    sample(container, Some(&first)).await.0
}

/// Picks the container's processes out of what ps printed.
fn rows(text: &str, pids: &[u32]) -> Result<ContainerTopResponse, EngineError> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|t| t == "PID");
    let column = column.ok_or(EngineError::PsNoPid)?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(column).and_then(|p| p.parse().ok()).is_none_or(|pid: u32| !pids.contains(&pid)) {
            continue;
        }
        // The last column takes the rest of the line.
        let split = titles.len().saturating_sub(1).min(words.len());
        let mut row: Vec<String> = words[..split].iter().map(|w| (*w).to_owned()).collect();
        row.push(words[split..].join(" "));
        processes.push(row);
    }
    Ok(ContainerTopResponse { processes, titles })
}

/// Reads what a container uses, and keeps the reading.
async fn sample(container: &Container, previous: Option<&Reading>) -> (ContainerStats, Option<Box<Reading>>) {
    let view = container.view();
    let mut stats =
        ContainerStats { name: format!("/{}", view.record.name), id: container.id.to_string(), ..Default::default() };
    let Some(task) = &view.task else { return (stats, None) };
    // A shim that does not answer costs its own client only.
    let Ok(raw) = task.shim.stats().await else { return (stats, None) };
    stats.read = Timestamp::now();
    let taken = Instant::now();
    stats.cpu_stats = cpu(&raw.cpu);
    if let Some(previous) = previous.filter(|p| p.pid == task.pid) {
        stats.preread = previous.at;
        stats.precpu_stats = previous.cpu.clone();
        // The kernel counts what the processors did in hundredths of a second, which is too coarse for a short while.
        let passed = taken.duration_since(previous.taken).as_nanos() * u128::from(stats.cpu_stats.online_cpus);
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        stats.precpu_stats.system_cpu_usage = stats.cpu_stats.system_cpu_usage.saturating_sub(passed);
    }
    let reading = Box::new(Reading { pid: task.pid, taken, at: stats.read, cpu: stats.cpu_stats.clone() });
    *container.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading.clone());
    stats.pids_stats = PidsStats { current: raw.pids.current, limit: raw.pids.limit };
    let memory_total = memory_total();
    stats.memory_stats = MemoryStats {
        usage: raw.memory.usage,
        max_usage: raw.memory.max_usage,
        failcnt: raw.memory.failures,
        limit: if raw.memory.limit == 0 { memory_total } else { raw.memory.limit.min(memory_total) },
        stats: Some(raw.memory.detail.clone()),
    };
    stats.blkio_stats = block(&raw.block);
    if view.sandbox.is_some() {
        stats.networks = interfaces(task);
    }
    (stats, Some(reading))
}

fn cpu(raw: &wharf_cgroup::CpuStats) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: raw.total,
            percpu_usage: Some(raw.per_cpu.clone()).filter(|l| !l.is_empty()),
            usage_in_kernelmode: raw.kernel,
            usage_in_usermode: raw.user,
        },
        system_cpu_usage: system_cpu(),
        online_cpus: crate::system::online_cpus(),
        throttling_data: ThrottlingData {
            periods: raw.throttling.periods,
            throttled_periods: raw.throttling.throttled_periods,
            throttled_time: raw.throttling.throttled_time,
        },
    }
}

fn block(raw: &wharf_cgroup::BlockStats) -> BlkioStats {
    let list = |entries: &[wharf_cgroup::BlockEntry]| {
        let one = |e: &wharf_cgroup::BlockEntry| BlkioEntry {
            major: e.major,
            minor: e.minor,
            op: e.op.clone(),
            value: e.value,
        };
        Some(entries.iter().map(one).collect())
    };
    BlkioStats {
        io_service_bytes_recursive: list(&raw.service_bytes),
        io_serviced_recursive: list(&raw.serviced),
        io_queue_recursive: list(&raw.queued),
        io_service_time_recursive: list(&raw.service_time),
        io_wait_time_recursive: list(&raw.wait_time),
        io_merged_recursive: list(&raw.merged),
        io_time_recursive: list(&raw.time),
        sectors_recursive: list(&raw.sectors),
    }
}

/// Nanoseconds that all processors have worked or idled, from the first line of /proc/stat (proc_stat(5)).
fn system_cpu() -> u64 {
    const TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: u64 = line.split_whitespace().skip(1).take(8).filter_map(|w| w.parse::<u64>().ok()).sum();
    ticks * TICK
}

fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// Counters of a container's links, from its own /proc/net/dev.
fn interfaces(task: &Task) -> Option<std::collections::BTreeMap<String, NetworkStats>> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", task.pid)).ok()?;
    let mut map = std::collections::BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let n: Vec<u64> = numbers.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or_default();
        if name.trim() == "lo" {
            continue;
        }
        let counters = NetworkStats {
            rx_bytes: at(0),
            rx_packets: at(1),
            rx_errors: at(2),
            rx_dropped: at(3),
            tx_bytes: at(8),
            tx_packets: at(9),
            tx_errors: at(10),
            tx_dropped: at(11),
        };
        map.insert(name.trim().to_owned(), counters);
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown_and_the_last_column_keeps_its_blanks() {
        let text = "UID PID CMD\nroot 1 init\nroot 77 sh -c sleep 1\n";
        let top = rows(text, &[77]).expect("has a PID column");
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "77", "sh -c sleep 1"]]);
        assert_eq!(rows("A B\n", &[]).unwrap_err().to_string(), "Couldn't find PID field in ps output");
    }
}
