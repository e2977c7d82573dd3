//! Reading the statistics files of v1 and v2.

use std::path::Path;

use crate::CgroupError;
use crate::file::{get_if_present, number, parse_number, table};
use crate::stats::{BlockEntry, BlockStats, CpuStats, HugetlbStats, MemoryStats, PidsStats, Stats, Throttling};

/// `cpuacct.stat` counts in clock ticks, which user space sees as 100 per second on every architecture of ours.
const NANOS_PER_TICK: u64 = 10_000_000;

/// Reads a v1 group; `folder` gives where a controller's files are.
pub fn v1<'a>(folder: impl Fn(&str) -> Option<&'a Path>) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(path) = folder("cpuacct") {
        stats.cpu = cpu_time_v1(path)?;
    }
    if let Some(path) = folder("cpu") {
        let held = table(&path.join("cpu.stat"))?;
        let of = |name: &str| held.get(name).copied().unwrap_or(0);
        stats.cpu.throttling = Throttling {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: of("throttled_time"),
        };
    }
    if let Some(path) = folder("memory") {
        stats.memory = MemoryStats {
            usage: number(&path.join("memory.usage_in_bytes"))?,
            max_usage: number(&path.join("memory.max_usage_in_bytes"))?,
            failures: number(&path.join("memory.failcnt"))?,
            limit: number(&path.join("memory.limit_in_bytes"))?,
            detail: table(&path.join("memory.stat"))?,
        };
    }
    if let Some(path) = folder("pids") {
        stats.pids = pids(path)?;
    }
    if let Some(path) = folder("blkio") {
        stats.block = block_v1(path)?;
    }
    if let Some(path) = folder("hugetlb") {
        for size in page_sizes(path, ".usage_in_bytes") {
            let of = |what: &str| number(&path.join(format!("hugetlb.{size}.{what}")));
            let found = HugetlbStats {
                usage: of("usage_in_bytes")?,
                max_usage: of("max_usage_in_bytes")?,
                failures: of("failcnt")?,
            };
            stats.hugetlb.insert(size, found);
        }
    }
    Ok(stats)
}

fn cpu_time_v1(path: &Path) -> Result<CpuStats, CgroupError> {
    let split = table(&path.join("cpuacct.stat"))?;
    let nanos = |name: &str| split.get(name).copied().unwrap_or(0).saturating_mul(NANOS_PER_TICK);
    let per_cpu = get_if_present(&path.join("cpuacct.usage_percpu"))?.unwrap_or_default();
    Ok(CpuStats {
        total: number(&path.join("cpuacct.usage"))?,
        per_cpu: per_cpu.split_whitespace().map(parse_number).collect(),
        kernel: nanos("system"),
        user: nanos("user"),
        throttling: Throttling::default(),
    })
}

fn pids(path: &Path) -> Result<PidsStats, CgroupError> {
    let limit = number(&path.join("pids.max"))?;
    let current = number(&path.join("pids.current"))?;
    Ok(PidsStats { current, limit: if limit == u64::MAX { 0 } else { limit } })
}

/// With BFQ as scheduler its own counters have numbers, otherwise only the throttling layer's.
fn block_v1(path: &Path) -> Result<BlockStats, CgroupError> {
    let read = |name: &str| -> Result<Vec<BlockEntry>, CgroupError> {
        Ok(get_if_present(&path.join(name))?.map_or_else(Vec::new, |text| parse_block_v1(&text)))
    };
    let serviced = read("blkio.bfq.io_serviced_recursive")?;
    if serviced.is_empty() {
        return Ok(BlockStats {
            service_bytes: read("blkio.throttle.io_service_bytes_recursive")?,
            serviced: read("blkio.throttle.io_serviced_recursive")?,
            ..BlockStats::default()
        });
    }
    Ok(BlockStats {
        serviced,
        service_bytes: read("blkio.bfq.io_service_bytes_recursive")?,
        queued: read("blkio.bfq.io_queued_recursive")?,
        service_time: read("blkio.bfq.io_service_time_recursive")?,
        wait_time: read("blkio.bfq.io_wait_time_recursive")?,
        merged: read("blkio.bfq.io_merged_recursive")?,
        time: read("blkio.bfq.time_recursive")?,
        sectors: read("blkio.bfq.sectors_recursive")?,
    })
}

/// Parses `8:0 Read 4096` and `8:0 17` lines; the `Total 4096` line is left out, as by Docker.
pub(crate) fn parse_block_v1(text: &str) -> Vec<BlockEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            let (op, value) = match (words.next()?, words.next()) {
                (op, Some(value)) => (op.to_owned(), value.parse().ok()?),
                (value, None) => (String::new(), value.parse().ok()?),
            };
            Some(BlockEntry { major, minor, op, value })
        })
        .collect()
}

/// Reads a v2 group.
pub fn v2(path: &Path) -> Result<Stats, CgroupError> {
    let cpu = table(&path.join("cpu.stat"))?;
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let nanos = |name: &str| count(name).saturating_mul(1000);
    let events = table(&path.join("memory.events"))?;
    let mut stats = Stats {
        cpu: CpuStats {
            total: nanos("usage_usec"),
            per_cpu: Vec::new(),
            kernel: nanos("system_usec"),
            user: nanos("user_usec"),
            throttling: Throttling {
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_time: nanos("throttled_usec"),
            },
        },
        memory: MemoryStats {
            usage: number(&path.join("memory.current"))?,
            max_usage: number(&path.join("memory.peak"))?,
            failures: events.get("max").copied().unwrap_or(0),
            limit: number(&path.join("memory.max"))?,
            detail: table(&path.join("memory.stat"))?,
        },
        pids: pids(path)?,
        ..Stats::default()
    };
    if let Some(text) = get_if_present(&path.join("io.stat"))? {
        stats.block = parse_io_stat(&text);
    }
    for size in page_sizes(path, ".current") {
        let usage = number(&path.join(format!("hugetlb.{size}.current")))?;
        let failures = table(&path.join(format!("hugetlb.{size}.events")))?.get("max").copied().unwrap_or(0);
        stats.hugetlb.insert(size, HugetlbStats { usage, max_usage: 0, failures });
    }
    Ok(stats)
}

/// Parses `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0` lines.
pub(crate) fn parse_io_stat(text: &str) -> BlockStats {
    let mut out = BlockStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|w| w.split_once(':'));
        let numbers = device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let Some((major, minor)) = numbers else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut out.service_bytes, "read"),
                "wbytes" => (&mut out.service_bytes, "write"),
                "rios" => (&mut out.serviced, "read"),
                "wios" => (&mut out.serviced, "write"),
                _ => continue,
            };
            list.push(BlockEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
    out
}

/// Lists the sizes for which `hugetlb.<size><suffix>` exists, reservations apart.
fn page_sizes(path: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let sizes = names.filter_map(|n| Some(n.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.to_owned()));
    sizes.filter(|size| !size.contains('.')).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn v1_counters_keep_their_operation() {
        let found = parse_block_v1("8:0 Read 4096\n8:0 Write 1\n8:16 17\nTotal 4097\n");
        let entry = |major, minor, op: &str, value| BlockEntry { major, minor, op: op.into(), value };
        assert_eq!(found, [entry(8, 0, "Read", 4096), entry(8, 0, "Write", 1), entry(8, 16, "", 17)]);
    }

    #[test]
    fn v2_counters_are_split_by_kind() {
        let found = parse_io_stat("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0 \n");
        let values = |list: &[BlockEntry]| list.iter().map(|e| (e.op.clone(), e.value)).collect::<Vec<_>>();
        assert_eq!(values(&found.service_bytes), [("read".into(), 1), ("write".into(), 2)]);
        assert_eq!(values(&found.serviced), [("read".into(), 3), ("write".into(), 4)]);
    }

    proptest! {
        #[test]
        fn any_statistics_are_survived(text in "([0-9:a-z= .-]{0,40}\n){0,6}", other in "\\PC*") {
            for text in [text, other] {
                let _ = (parse_block_v1(&text), parse_io_stat(&text), crate::file::parse_table(&text));
            }
        }
    }
}
