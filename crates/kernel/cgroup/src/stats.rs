//! What a group has used, as raw numbers for Docker's statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a group has used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub block: BlockStats,
    /// Huge pages by size, for example `2MB`.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All time.
    pub total: u64,
    /// By CPU; empty with cgroup v2.
    pub per_cpu: Vec<u64>,
    /// Time in the kernel.
    pub kernel: u64,
    /// Time in user mode.
    pub user: u64,
    /// What the quota held back.
    pub throttling: Throttling,
}

/// What the CPU quota held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Periods that have passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting.
    pub throttled_time: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use now.
    pub usage: u64,
    /// Highest use so far; 0 where the kernel does not tell (cgroup v2 before 5.19).
    pub max_usage: u64,
    /// How often the limit was met; `memory.events` `max` with cgroup v2.
    pub failures: u64,
    /// The limit, `u64::MAX` without one; never more than the machine has, as Docker reports it, is the caller's business.
    pub limit: u64,
    /// Lines of `memory.stat`.
    pub detail: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Present number.
    pub current: u64,
    /// The limit; 0 without one.
    pub limit: u64,
}

/// One counter of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total` (v1), `read`, `write` (v2), or empty.
    pub op: String,
    /// The counter.
    pub value: u64,
}

/// Counters of block devices; with cgroup v2 only the first two are kept by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStats {
    /// Bytes.
    pub service_bytes: Vec<BlockEntry>,
    /// Requests.
    pub serviced: Vec<BlockEntry>,
    /// Requests waiting.
    pub queued: Vec<BlockEntry>,
    /// Nanoseconds from dispatch to completion.
    pub service_time: Vec<BlockEntry>,
    /// Nanoseconds spent waiting.
    pub wait_time: Vec<BlockEntry>,
    /// Requests merged.
    pub merged: Vec<BlockEntry>,
    /// Milliseconds of device time.
    pub time: Vec<BlockEntry>,
    /// Sectors.
    pub sectors: Vec<BlockEntry>,
}

/// Huge pages of one size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugetlbStats {
    /// In use now.
    pub usage: u64,
    /// Highest use so far; 0 with cgroup v2.
    pub max_usage: u64,
    /// How often the limit was met.
    pub failures: u64,
}
