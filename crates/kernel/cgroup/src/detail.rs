//! Figures that only `events` of the runtime asks for: swap and kernel memory, CPU set, pressure. Apart from
//! [`crate::Stats`], so that what is read every second for many containers stays small.

use std::path::Path;

use crate::file::{get_if_present, number, parse_number};
use crate::{Cgroup, CgroupError, Mode};

/// What is known beyond [`crate::Stats`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Swap alone (v2), or memory and swap together (v1).
    pub swap: Counter,
    /// Kernel memory (v1).
    pub kernel: Counter,
    /// Buffers of TCP (v1).
    pub kernel_tcp: Counter,
    /// Kernel and user time by CPU in nanoseconds (v1).
    pub per_cpu: Vec<(u64, u64)>,
    /// CPUs and memory nodes.
    pub cpuset: CpuSet,
    /// Who waits for CPU time (v2).
    pub cpu_pressure: Option<Pressure>,
    /// Who waits for memory (v2).
    pub memory_pressure: Option<Pressure>,
    /// Who waits for block devices (v2).
    pub io_pressure: Option<Pressure>,
}

/// One resource counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// In use now.
    pub usage: u64,
    /// Highest use so far.
    pub max_usage: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// The limit, `u64::MAX` without one.
    pub limit: u64,
}

/// The CPU set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// CPUs, each by number.
    pub cpus: Vec<u16>,
    /// Memory nodes.
    pub mems: Vec<u16>,
    /// Single values by file name without `cpuset.` (v1).
    pub flags: Vec<(&'static str, i64)>,
}

/// Pressure stall information (kernel Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some task waits.
    pub some: Stall,
    /// All tasks wait.
    pub full: Stall,
}

/// Shares of time in percent, and the sum in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// Microseconds altogether.
    pub total: u64,
}

const CPUSET_FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// Reads what is there; what the host does not have stays at its default.
pub(crate) fn read(group: &Cgroup) -> Result<Detail, CgroupError> {
    if group.mode() == Mode::V2 {
        let Some(path) = group.folder_of("memory") else { return Ok(Detail::default()) };
        return Ok(Detail {
            swap: Counter {
                usage: number_if_present(path, "memory.swap.current")?,
                max_usage: number_if_present(path, "memory.swap.peak")?,
                failures: 0,
                limit: number_if_present(path, "memory.swap.max")?,
            },
            cpuset: CpuSet {
                cpus: list(path, "cpuset.cpus.effective")?,
                mems: list(path, "cpuset.mems.effective")?,
                flags: Vec::new(),
            },
            cpu_pressure: pressure(path, "cpu.pressure")?,
            memory_pressure: pressure(path, "memory.pressure")?,
            io_pressure: pressure(path, "io.pressure")?,
            ..Detail::default()
        });
    }
    let mut detail = Detail::default();
    if let Some(path) = group.folder_of("memory") {
        detail.swap = counter(path, "memory.memsw")?;
        detail.kernel = counter(path, "memory.kmem")?;
        detail.kernel_tcp = counter(path, "memory.kmem.tcp")?;
    }
    if let Some(path) = group.folder_of("cpuacct") {
        let text = get_if_present(&path.join("cpuacct.usage_all"))?.unwrap_or_default();
        detail.per_cpu = text.lines().skip(1).filter_map(usage_of_cpu).collect();
    }
    if let Some(path) = group.folder_of("cpuset") {
        detail.cpuset = CpuSet {
            cpus: list(path, "cpuset.cpus")?,
            mems: list(path, "cpuset.mems")?,
            flags: CPUSET_FLAGS.iter().filter_map(|name| Some((*name, flag(path, name)?))).collect(),
        };
    }
    Ok(detail)
}

fn number_if_present(path: &Path, name: &str) -> Result<u64, CgroupError> {
    Ok(get_if_present(&path.join(name))?.map_or(0, |text| parse_number(text.trim())))
}

fn counter(path: &Path, name: &str) -> Result<Counter, CgroupError> {
    if get_if_present(&path.join(format!("{name}.limit_in_bytes")))?.is_none() {
        return Ok(Counter::default());
    }
    let of = |what: &str| number(&path.join(format!("{name}.{what}")));
    Ok(Counter {
        usage: of("usage_in_bytes")?,
        max_usage: of("max_usage_in_bytes")?,
        failures: of("failcnt")?,
        limit: of("limit_in_bytes")?,
    })
}

/// A line `cpu user system` of `cpuacct.usage_all`, as kernel and user.
fn usage_of_cpu(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let (user, system) = (words.next()?, words.next()?);
    Some((parse_number(system), parse_number(user)))
}

fn flag(path: &Path, name: &str) -> Option<i64> {
    std::fs::read_to_string(path.join(format!("cpuset.{name}"))).ok()?.trim().parse().ok()
}

fn list(path: &Path, name: &str) -> Result<Vec<u16>, CgroupError> {
    Ok(get_if_present(&path.join(name))?.map_or_else(Vec::new, |text| parse_list(&text)))
}

/// Writes a list such as `0-2,5` out.
pub(crate) fn parse_list(text: &str) -> Vec<u16> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(part).flatten().collect()
}

fn pressure(path: &Path, name: &str) -> Result<Option<Pressure>, CgroupError> {
    // Reading gives EOPNOTSUPP where the kernel keeps it but was booted with psi=0.
    match get_if_present(&path.join(name)) {
        Ok(text) => Ok(text.and_then(|text| parse_pressure(&text))),
        Err(CgroupError::Read { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and its like with `full`.
pub(crate) fn parse_pressure(text: &str) -> Option<Pressure> {
    let of = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let mut stall = Stall::default();
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stall)
    };
    // The kernel has no `full` line for CPU before 5.13.
    Some(Pressure { some: of("some")?, full: of("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_written_out() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("\n"), [0u16; 0]);
    }

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let found = parse_pressure(text).expect("pressure");
        assert_eq!((found.some.avg10, found.some.total, found.full.total), (1.5, 42, 7));
        assert_eq!(parse_pressure("some avg10=x"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,60}", lines in "((some|full|[0-9,-]{0,8}) ?(avg10=[0-9.x]{0,4} ?)?\n){0,4}") {
            for text in [text, lines] {
                let _ = (parse_list(&text), parse_pressure(&text), usage_of_cpu(&text));
            }
        }
    }
}
