//! Resource use of a container: the lines of `GET /containers/{id}/stats`.

use std::collections::BTreeMap;

use wharf_types::Timestamp;

use crate::go::{empty, nil_or_empty};

bodies! {
    /// One sample, with the processor part of the sample before it.
    pub struct ContainerStats as "snake_case" {
        #[serde(skip_serializing_if = "empty")]
        name: String,
        #[serde(skip_serializing_if = "empty")]
        id: String,
        read: Timestamp,
        preread: Timestamp,
        pids_stats: PidsStats,
        blkio_stats: BlkioStats,
        num_procs: u32,
        storage_stats: StorageStats,
        cpu_stats: CpuStats,
        precpu_stats: CpuStats,
        memory_stats: MemoryStats,
        #[serde(skip_serializing_if = "nil_or_empty")]
        networks: Option<BTreeMap<String, NetworkStats>>,
    }

    /// Number of processes.
    pub struct PidsStats as "snake_case" {
        #[serde(skip_serializing_if = "empty")]
        current: u64,
        #[serde(skip_serializing_if = "empty")]
        limit: u64,
    }

    /// Block input/output.
    pub struct BlkioStats as "snake_case" {
        io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        io_serviced_recursive: Option<Vec<BlkioEntry>>,
        io_queue_recursive: Option<Vec<BlkioEntry>>,
        io_service_time_recursive: Option<Vec<BlkioEntry>>,
        io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        io_merged_recursive: Option<Vec<BlkioEntry>>,
        io_time_recursive: Option<Vec<BlkioEntry>>,
        sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// One device and operation.
    pub struct BlkioEntry as "snake_case" {
        major: u64,
        minor: u64,
        op: String,
        value: u64,
    }

    /// Windows only; empty here.
    pub struct StorageStats as "snake_case" {
        #[serde(skip_serializing_if = "empty")]
        read_count_normalized: u64,
        #[serde(skip_serializing_if = "empty")]
        read_size_bytes: u64,
        #[serde(skip_serializing_if = "empty")]
        write_count_normalized: u64,
        #[serde(skip_serializing_if = "empty")]
        write_size_bytes: u64,
    }

    /// Processor time.
    pub struct CpuStats as "snake_case" {
        cpu_usage: CpuUsage,
        #[serde(skip_serializing_if = "empty")]
        system_cpu_usage: u64,
        #[serde(skip_serializing_if = "empty")]
        online_cpus: u32,
        throttling_data: ThrottlingData,
    }

    /// Nanoseconds of processor time.
    pub struct CpuUsage as "snake_case" {
        total_usage: u64,
        #[serde(skip_serializing_if = "nil_or_empty")]
        percpu_usage: Option<Vec<u64>>,
        usage_in_kernelmode: u64,
        usage_in_usermode: u64,
    }

    /// Throttling by the processor limit.
    pub struct ThrottlingData as "snake_case" {
        periods: u64,
        throttled_periods: u64,
        throttled_time: u64,
    }

    /// Memory, in bytes.
    pub struct MemoryStats as "snake_case" {
        #[serde(skip_serializing_if = "empty")]
        usage: u64,
        #[serde(skip_serializing_if = "empty")]
        max_usage: u64,
        #[serde(skip_serializing_if = "nil_or_empty")]
        stats: Option<BTreeMap<String, u64>>,
        #[serde(skip_serializing_if = "empty")]
        failcnt: u64,
        #[serde(skip_serializing_if = "empty")]
        limit: u64,
    }

    /// Counters of one interface.
    pub struct NetworkStats as "snake_case" {
        rx_bytes: u64,
        rx_packets: u64,
        rx_errors: u64,
        rx_dropped: u64,
        tx_bytes: u64,
        tx_packets: u64,
        tx_errors: u64,
        tx_dropped: u64,
    }
}
