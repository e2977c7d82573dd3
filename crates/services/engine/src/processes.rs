//! Looking at what runs in containers: processes and resource use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wharf_api_types::{
    BlkioEntry, BlkioStats, ContainerStats, ContainerTopResponse, CpuStats, CpuUsage, MemoryStats, NetworkStats,
    PidsStats, ThrottlingData,
};
use wharf_types::Timestamp;

use crate::container::{Container, Registry, Task};
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
    pub fn stats(
        &self,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<mpsc::Receiver<Result<ContainerStats, EngineError>>, EngineError> {
        let container = self.registry.find(name)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut previous = ContainerStats::default();
            // Without a stream Docker primes with one sample, so that a rate can be worked out, unless `one-shot` is set.
            let mut skip = !stream && !one_shot;
            loop {
                let sample = sample(&container, &previous).await;
                let running = container.view().task.is_some();
                let shown = !skip || !running;
                if shown && (sender.send(Ok(sample.clone())).await.is_err() || !stream) {
                    return;
                }
                skip = false;
                previous = sample;
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

async fn sample(container: &Container, previous: &ContainerStats) -> ContainerStats {
    let view = container.view();
    let mut stats = ContainerStats {
        name: format!("/{}", view.record.name),
        id: container.id.to_string(),
        preread: previous.read,
        precpu_stats: previous.cpu_stats.clone(),
        ..ContainerStats::default()
    };
    let Some(task) = &view.task else { return stats };
    // A shim that does not answer costs its own client only.
    let Ok(raw) = task.shim.stats().await else { return stats };
    stats.read = Timestamp::now();
    stats.pids_stats = PidsStats { current: raw.pids.current, limit: raw.pids.limit };
    stats.cpu_stats = cpu(&raw.cpu);
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
    stats
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
