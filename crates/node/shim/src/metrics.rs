//! Statistics in containerd's form.

use std::collections::BTreeMap;

use wharf_cgroup::{BlockEntry, Mode, Stats};
use wharf_proto_task::metrics as m;
use wharf_proto_task::{Any, Message};

/// Puts statistics into the message that containerd's clients know for this kind of host.
pub(crate) fn any(stats: &Stats, mode: Mode) -> Any {
    match mode {
        Mode::V2 => Any { type_url: m::V2_TYPE.to_owned(), value: v2(stats).encode_to_vec() },
        Mode::V1 | Mode::Hybrid => Any { type_url: m::V1_TYPE.to_owned(), value: v1(stats).encode_to_vec() },
    }
}

fn pids(stats: &Stats) -> m::Pids {
    m::Pids { current: stats.pids.current, limit: stats.pids.limit }
}

fn v1(stats: &Stats) -> m::V1 {
    let of = |name: &str| stats.memory.detail.get(name).copied().unwrap_or(0);
    let entries = |list: &[BlockEntry]| {
        let entry = |e: &BlockEntry| m::BlockEntryV1 {
            op: e.op.clone(),
            device: String::new(),
            major: e.major,
            minor: e.minor,
            value: e.value,
        };
        list.iter().map(entry).collect()
    };
    let held = stats.cpu.throttling;
    m::V1 {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, h)| m::HugetlbV1 {
                usage: h.usage,
                max: h.max_usage,
                failcnt: h.failures,
                pagesize: size.clone(),
            })
            .collect(),
        pids: Some(pids(stats)),
        cpu: Some(m::CpuV1 {
            usage: Some(m::CpuUsageV1 {
                total: stats.cpu.total,
                kernel: stats.cpu.kernel,
                user: stats.cpu.user,
                per_cpu: stats.cpu.per_cpu.clone(),
            }),
            throttling: Some(m::ThrottleV1 {
                periods: held.periods,
                throttled_periods: held.throttled_periods,
                throttled_time: held.throttled_time,
            }),
        }),
        memory: Some(m::MemoryV1 {
            cache: of("cache"),
            rss: of("rss"),
            mapped_file: of("mapped_file"),
            pgfault: of("pgfault"),
            pgmajfault: of("pgmajfault"),
            inactive_anon: of("inactive_anon"),
            active_anon: of("active_anon"),
            inactive_file: of("inactive_file"),
            active_file: of("active_file"),
            hierarchical_memory_limit: of("hierarchical_memory_limit"),
            total_cache: of("total_cache"),
            total_rss: of("total_rss"),
            total_inactive_file: of("total_inactive_file"),
            total_active_file: of("total_active_file"),
            usage: Some(m::MemoryEntryV1 {
                limit: stats.memory.limit,
                usage: stats.memory.usage,
                max: stats.memory.max_usage,
                failcnt: stats.memory.failures,
            }),
        }),
        blkio: Some(m::BlockV1 {
            io_service_bytes_recursive: entries(&stats.block.service_bytes),
            io_serviced_recursive: entries(&stats.block.serviced),
        }),
    }
}

fn v2(stats: &Stats) -> m::V2 {
    let of = |name: &str| stats.memory.detail.get(name).copied().unwrap_or(0);
    let (cpu, held) = (&stats.cpu, stats.cpu.throttling);
    m::V2 {
        pids: Some(pids(stats)),
        cpu: Some(m::CpuV2 {
            usage_usec: cpu.total / 1000,
            user_usec: cpu.user / 1000,
            system_usec: cpu.kernel / 1000,
            nr_periods: held.periods,
            nr_throttled: held.throttled_periods,
            throttled_usec: held.throttled_time / 1000,
        }),
        memory: Some(m::MemoryV2 {
            anon: of("anon"),
            file: of("file"),
            kernel_stack: of("kernel_stack"),
            slab: of("slab"),
            sock: of("sock"),
            shmem: of("shmem"),
            file_mapped: of("file_mapped"),
            inactive_anon: of("inactive_anon"),
            active_anon: of("active_anon"),
            inactive_file: of("inactive_file"),
            active_file: of("active_file"),
            pgfault: of("pgfault"),
            pgmajfault: of("pgmajfault"),
            usage: stats.memory.usage,
            usage_limit: stats.memory.limit,
            max_usage: stats.memory.max_usage,
        }),
        io: Some(m::IoV2 { usage: devices(stats) }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, h)| m::HugetlbV2 { current: h.usage, max: h.max_usage, pagesize: size.clone() })
            .collect(),
    }
}

/// One entry for each device, where ours are by device and operation.
fn devices(stats: &Stats) -> Vec<m::IoEntryV2> {
    let mut all: BTreeMap<(u64, u64), m::IoEntryV2> = BTreeMap::new();
    for (list, requests) in [(&stats.block.service_bytes, false), (&stats.block.serviced, true)] {
        for e in list {
            let entry = all.entry((e.major, e.minor)).or_insert_with(|| m::IoEntryV2 {
                major: e.major,
                minor: e.minor,
                ..m::IoEntryV2::default()
            });
            match (e.op.as_str(), requests) {
                ("read", false) => entry.rbytes = e.value,
                ("write", false) => entry.wbytes = e.value,
                ("read", true) => entry.rios = e.value,
                ("write", true) => entry.wios = e.value,
                _ => {}
            }
        }
    }
    all.into_values().collect()
}
