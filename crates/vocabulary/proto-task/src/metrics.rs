//! Statistics as containerd's clients read them: `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`.

/// Type name of [`V1`].
pub const V1_TYPE: &str = "io.containerd.cgroups.v1.Metrics";
/// Type name of [`V2`].
pub const V2_TYPE: &str = "io.containerd.cgroups.v2.Metrics";

macro_rules! message {
    ($(#[$about:meta])* $name:ident { $($field:ident: $type:ty = $kind:ident $tag:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, prost::Message)]
        #[allow(missing_docs, reason = "the fields are named as the kernel's files")]
        pub struct $name { $(#[prost($kind, tag = $tag)] pub $field: $type),* }
    };
}

message! {
    /// Present number and limit of processes.
    Pids { current: u64 = uint64 "1", limit: u64 = uint64 "2" }
}

/// A host with cgroup v1.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct V1 {
    /// Huge pages.
    #[prost(message, repeated, tag = "1")]
    pub hugetlb: Vec<HugetlbV1>,
    /// Processes.
    #[prost(message, optional, tag = "2")]
    pub pids: Option<Pids>,
    /// CPU time.
    #[prost(message, optional, tag = "3")]
    pub cpu: Option<CpuV1>,
    /// Memory.
    #[prost(message, optional, tag = "4")]
    pub memory: Option<MemoryV1>,
    /// Block devices.
    #[prost(message, optional, tag = "5")]
    pub blkio: Option<BlockV1>,
}

message! {
    /// Huge pages of one size.
    HugetlbV1 { usage: u64 = uint64 "1", max: u64 = uint64 "2", failcnt: u64 = uint64 "3", pagesize: String = string "4" }
}

/// CPU time in nanoseconds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CpuV1 {
    /// Time used.
    #[prost(message, optional, tag = "1")]
    pub usage: Option<CpuUsageV1>,
    /// Time held back.
    #[prost(message, optional, tag = "2")]
    pub throttling: Option<ThrottleV1>,
}

/// Time used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CpuUsageV1 {
    /// All.
    #[prost(uint64, tag = "1")]
    pub total: u64,
    /// In the kernel.
    #[prost(uint64, tag = "2")]
    pub kernel: u64,
    /// In user mode.
    #[prost(uint64, tag = "3")]
    pub user: u64,
    /// By CPU.
    #[prost(uint64, repeated, tag = "4")]
    pub per_cpu: Vec<u64>,
}

message! {
    /// Time held back.
    ThrottleV1 { periods: u64 = uint64 "1", throttled_periods: u64 = uint64 "2", throttled_time: u64 = uint64 "3" }
}

/// Memory: lines of `memory.stat`, and counters.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(missing_docs, reason = "the fields are named as the lines of memory.stat")]
pub struct MemoryV1 {
    #[prost(uint64, tag = "1")]
    pub cache: u64,
    #[prost(uint64, tag = "2")]
    pub rss: u64,
    #[prost(uint64, tag = "4")]
    pub mapped_file: u64,
    #[prost(uint64, tag = "9")]
    pub pgfault: u64,
    #[prost(uint64, tag = "10")]
    pub pgmajfault: u64,
    #[prost(uint64, tag = "11")]
    pub inactive_anon: u64,
    #[prost(uint64, tag = "12")]
    pub active_anon: u64,
    #[prost(uint64, tag = "13")]
    pub inactive_file: u64,
    #[prost(uint64, tag = "14")]
    pub active_file: u64,
    #[prost(uint64, tag = "16")]
    pub hierarchical_memory_limit: u64,
    #[prost(uint64, tag = "18")]
    pub total_cache: u64,
    #[prost(uint64, tag = "19")]
    pub total_rss: u64,
    #[prost(uint64, tag = "30")]
    pub total_inactive_file: u64,
    #[prost(uint64, tag = "31")]
    pub total_active_file: u64,
    #[prost(message, optional, tag = "33")]
    pub usage: Option<MemoryEntryV1>,
}

message! {
    /// One counter.
    MemoryEntryV1 { limit: u64 = uint64 "1", usage: u64 = uint64 "2", max: u64 = uint64 "3", failcnt: u64 = uint64 "4" }
}

/// Block devices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BlockV1 {
    /// Bytes.
    #[prost(message, repeated, tag = "1")]
    pub io_service_bytes_recursive: Vec<BlockEntryV1>,
    /// Requests.
    #[prost(message, repeated, tag = "2")]
    pub io_serviced_recursive: Vec<BlockEntryV1>,
}

message! {
    /// One counter of one device.
    BlockEntryV1 {
        op: String = string "1",
        device: String = string "2",
        major: u64 = uint64 "3",
        minor: u64 = uint64 "4",
        value: u64 = uint64 "5",
    }
}

/// A host with cgroup v2.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct V2 {
    /// Processes.
    #[prost(message, optional, tag = "1")]
    pub pids: Option<Pids>,
    /// CPU time.
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<CpuV2>,
    /// Memory.
    #[prost(message, optional, tag = "4")]
    pub memory: Option<MemoryV2>,
    /// Block devices.
    #[prost(message, optional, tag = "6")]
    pub io: Option<IoV2>,
    /// Huge pages.
    #[prost(message, repeated, tag = "7")]
    pub hugetlb: Vec<HugetlbV2>,
}

message! {
    /// CPU time in microseconds.
    CpuV2 {
        usage_usec: u64 = uint64 "1",
        user_usec: u64 = uint64 "2",
        system_usec: u64 = uint64 "3",
        nr_periods: u64 = uint64 "4",
        nr_throttled: u64 = uint64 "5",
        throttled_usec: u64 = uint64 "6",
    }
}

message! {
    /// Memory.
    MemoryV2 {
        anon: u64 = uint64 "1",
        file: u64 = uint64 "2",
        kernel_stack: u64 = uint64 "3",
        slab: u64 = uint64 "4",
        sock: u64 = uint64 "5",
        shmem: u64 = uint64 "6",
        file_mapped: u64 = uint64 "7",
        inactive_anon: u64 = uint64 "11",
        active_anon: u64 = uint64 "12",
        inactive_file: u64 = uint64 "13",
        active_file: u64 = uint64 "14",
        pgfault: u64 = uint64 "18",
        pgmajfault: u64 = uint64 "19",
        usage: u64 = uint64 "32",
        usage_limit: u64 = uint64 "33",
        max_usage: u64 = uint64 "36",
    }
}

/// Block devices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IoV2 {
    /// By device.
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<IoEntryV2>,
}

message! {
    /// One device.
    IoEntryV2 {
        major: u64 = uint64 "1",
        minor: u64 = uint64 "2",
        rbytes: u64 = uint64 "3",
        wbytes: u64 = uint64 "4",
        rios: u64 = uint64 "5",
        wios: u64 = uint64 "6",
    }
}

message! {
    /// Huge pages of one size.
    HugetlbV2 { current: u64 = uint64 "1", max: u64 = uint64 "2", pagesize: String = string "3" }
}
