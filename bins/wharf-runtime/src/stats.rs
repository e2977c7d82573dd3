//! Statistics as `events` prints them: the JSON of runc's `types/events.go`.

use serde_json::{Map, Value, json};
use wharf_cgroup::{BlockEntry, BlockStats, Cgroup, Counter, Detail, Pressure, Stall, Stats};

use crate::error::Error;

/// Reads a group's statistics as the `data` of an event.
pub fn of(group: &Cgroup) -> Result<Value, Error> {
    let stats = group.stats().map_err(Error::Cgroup)?;
    let detail = group.detail().map_err(Error::Cgroup)?;
    Ok(value(&stats, &detail))
}

fn value(stats: &Stats, detail: &Detail) -> Value {
    json!({
        "cpu": cpu(stats, detail),
        "cpuset": cpuset(detail),
        "memory": memory(stats, detail),
        "pids": present([("current", stats.pids.current.into()), ("limit", stats.pids.limit.into())]),
        "blkio": block(&stats.block, detail),
        "hugetlb": stats.hugetlb.iter().map(|(size, s)| {
            let values = [("usage", s.usage.into()), ("max", s.max_usage.into())];
            let mut entry = present(values);
            entry.insert("failcnt".to_owned(), s.failures.into());
            (size.clone(), Value::Object(entry))
        }).collect::<Map<_, _>>(),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// Leaves out what is zero or empty, as Go's `omitempty`.
fn present<const N: usize>(values: [(&str, Value); N]) -> Map<String, Value> {
    let empty = |value: &Value| match value {
        Value::Number(n) => n.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        _ => false,
    };
    values.into_iter().filter(|(_, value)| !empty(value)).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn cpu(stats: &Stats, detail: &Detail) -> Map<String, Value> {
    let of = |pick: fn(&(u64, u64)) -> u64| json!(detail.per_cpu.iter().map(pick).collect::<Vec<u64>>());
    let mut usage = present([
        ("total", stats.cpu.total.into()),
        ("percpu", json!(stats.cpu.per_cpu)),
        ("percpu_kernel", of(|(kernel, _)| *kernel)),
        ("percpu_user", of(|(_, user)| *user)),
    ]);
    usage.insert("kernel".to_owned(), stats.cpu.kernel.into());
    usage.insert("user".to_owned(), stats.cpu.user.into());
    let held = stats.cpu.throttling;
    let throttling = present([
        ("periods", held.periods.into()),
        ("throttledPeriods", held.throttled_periods.into()),
        ("throttledTime", held.throttled_time.into()),
    ]);
    let mut cpu = present([("usage", usage.into()), ("psi", pressure(detail.cpu_pressure))]);
    cpu.insert("throttling".to_owned(), throttling.into());
    cpu
}

fn cpuset(detail: &Detail) -> Map<String, Value> {
    let set = &detail.cpuset;
    let mut map = present([("cpus", json!(set.cpus)), ("mems", json!(set.mems))]);
    map.extend(set.flags.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    map
}

fn memory(stats: &Stats, detail: &Detail) -> Map<String, Value> {
    let own = Counter {
        usage: stats.memory.usage,
        max_usage: stats.memory.max_usage,
        failures: stats.memory.failures,
        limit: stats.memory.limit,
    };
    let raw = &stats.memory.detail;
    let cache = raw.get("cache").or_else(|| raw.get("file")).copied().unwrap_or(0);
    let mut map = present([("cache", cache.into()), ("raw", json!(raw)), ("psi", pressure(detail.memory_pressure))]);
    for (name, of) in
        [("usage", own), ("swap", detail.swap), ("kernel", detail.kernel), ("kernelTCP", detail.kernel_tcp)]
    {
        map.insert(name.to_owned(), counter(of).into());
    }
    map
}

fn counter(of: Counter) -> Map<String, Value> {
    let mut map = present([("usage", of.usage.into()), ("max", of.max_usage.into())]);
    map.insert("limit".to_owned(), of.limit.into());
    map.insert("failcnt".to_owned(), of.failures.into());
    map
}

fn block(stats: &BlockStats, detail: &Detail) -> Map<String, Value> {
    let list = |entries: &[BlockEntry]| {
        let entry = |e: &BlockEntry| {
            let op = if e.op.is_empty() { Value::Null } else { json!(e.op) };
            present([("major", e.major.into()), ("minor", e.minor.into()), ("op", op), ("value", e.value.into())])
        };
        json!(entries.iter().map(entry).collect::<Vec<_>>())
    };
    present([
        ("ioServiceBytesRecursive", list(&stats.service_bytes)),
        ("ioServicedRecursive", list(&stats.serviced)),
        ("ioQueueRecursive", list(&stats.queued)),
        ("ioServiceTimeRecursive", list(&stats.service_time)),
        ("ioWaitTimeRecursive", list(&stats.wait_time)),
        ("ioMergedRecursive", list(&stats.merged)),
        ("ioTimeRecursive", list(&stats.time)),
        ("sectorsRecursive", list(&stats.sectors)),
        ("psi", pressure(detail.io_pressure)),
    ])
}

fn pressure(of: Option<Pressure>) -> Value {
    let stall = |s: Stall| json!({"avg10": s.avg10, "avg60": s.avg60, "avg300": s.avg300, "total": s.total});
    of.map_or(Value::Null, |p| json!({"some": stall(p.some), "full": stall(p.full)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_where_runc_leaves_them_out() {
        let value = value(&Stats::default(), &Detail::default());
        assert_eq!(value["cpu"], json!({"usage": {"kernel": 0, "user": 0}, "throttling": {}}));
        assert_eq!(value["pids"], json!({}));
        assert_eq!(value["memory"]["usage"], json!({"limit": 0, "failcnt": 0}));
    }
}
