//! `update`: new limits, from a file or from options.

use std::path::Path;

use wharf_oci::runtime::{BlockIo, Cpu, LinuxResources, Memory, Pids};

use crate::args::Invocation;
use crate::commands::read_json;
use crate::error::Error;
use crate::store;

/// Changes limits, and remembers them for what reads the configuration later.
pub fn run(i: &Invocation) -> Result<u8, Error> {
    let (folder, mut record) = store::open(&i.root, i.id())?;
    let asked = match i.value("resources") {
        Some(path) => read_json(Path::new(path))?,
        None => from_options(i)?,
    };
    let present = record.config.linux.get_or_insert_default().resources.get_or_insert_default();
    let change = change(&asked, present);
    let container = record.container()?;
    container.update(&change)?;
    if let (Some(unit), Some(group)) = (&record.systemd, container.cgroup()) {
        wharf_cgroup::systemd::set_limits(unit, &change, group.mode()).map_err(Error::Cgroup)?;
    }
    let present = record.config.linux.get_or_insert_default().resources.get_or_insert_default();
    remember(&asked, present);
    let schemata = [i.value("l3-cache-schema"), i.value("mem-bw-schema")];
    if schemata.iter().any(Option::is_some) {
        return Err(Error::State("Intel RDT: l3 cache schema is specified, but Intel RDT is not enabled".to_owned()));
    }
    folder.save(&record)?;
    Ok(0)
}

/// What the kernel is asked for: a new memory limit must come with the swap limit it has, which counts both.
fn change(asked: &LinuxResources, present: &LinuxResources) -> LinuxResources {
    let mut change = LinuxResources { devices: Vec::new(), ..asked.clone() };
    let before = present.memory.clone().unwrap_or_default();
    if let Some(memory) = &mut change.memory {
        match (memory.limit.filter(|n| *n != 0), memory.swap.filter(|n| *n != 0)) {
            (Some(limit), None) if limit > 0 => memory.swap = before.swap.filter(|swap| *swap == -1 || *swap >= limit),
            (None, Some(swap)) if swap > 0 => memory.limit = before.limit,
            _ => {}
        }
    }
    let before = present.cpu.clone().unwrap_or_default();
    if let Some(cpu) = &mut change.cpu {
        // Quota and period are one value with cgroup v2.
        match (cpu.quota.filter(|n| *n != 0), cpu.period.filter(|n| *n != 0)) {
            (Some(_), None) => cpu.period = before.period,
            (None, Some(_)) => cpu.quota = before.quota,
            _ => {}
        }
    }
    change
}

/// Takes over what was asked for; what was not stays.
fn remember(asked: &LinuxResources, present: &mut LinuxResources) {
    macro_rules! take {
        ($object:ident: $($field:ident)*) => {
            if let Some(asked) = &asked.$object {
                let present = present.$object.get_or_insert_default();
                $(if asked.$field.is_some() { present.$field = asked.$field.clone(); })*
            }
        };
    }
    take!(memory: limit reservation swap kernel kernel_tcp swappiness disable_oom_killer check_before_update);
    take!(cpu: shares quota burst period realtime_runtime realtime_period cpus mems idle);
    take!(pids: limit);
    take!(block_io: weight leaf_weight);
    present.unified.extend(asked.unified.clone());
}

fn from_options(i: &Invocation) -> Result<LinuxResources, Error> {
    let memory = |name: &str| i.value(name).map(|text| bytes(name, text)).transpose();
    let memory = Memory {
        limit: memory("memory")?,
        reservation: memory("memory-reservation")?,
        swap: memory("memory-swap")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: number(i, "cpu-share")?,
        quota: number(i, "cpu-quota")?,
        burst: number(i, "cpu-burst")?,
        period: number(i, "cpu-period")?,
        realtime_runtime: number(i, "cpu-rt-runtime")?,
        realtime_period: number(i, "cpu-rt-period")?,
        cpus: i.value("cpuset-cpus").map(str::to_owned),
        mems: i.value("cpuset-mems").map(str::to_owned),
        idle: number(i, "cpu-idle")?,
    };
    Ok(LinuxResources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: i.number("pids-limit")?.map(|limit| Pids { limit: Some(limit) }),
        block_io: i.number("blkio-weight")?.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..LinuxResources::default()
    })
}

fn number<N: std::str::FromStr>(i: &Invocation, name: &str) -> Result<Option<N>, Error> {
    let Some(text) = i.value(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::Usage(format!("invalid value for {name}: {text:?} is no number")))
}

/// Reads a size such as `100m`, as Docker's go-units; -1 is no limit.
fn bytes(name: &str, text: &str) -> Result<i64, Error> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = |what: String| Error::Usage(format!("invalid value for {name}: {what}"));
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |at| at + 1);
    let (number, suffix) = text.split_at(end);
    let short = suffix.trim_start().to_ascii_lowercase();
    let short = short.strip_suffix("ib").or_else(|| short.strip_suffix('b')).unwrap_or(&short);
    let shift = match short {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong(format!("invalid suffix: '{suffix}'"))),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = number.parse().ok().filter(|_| plain);
    let number: f64 = number.ok_or_else(|| wrong(format!("invalid size: '{text}'")))?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes < i64::MAX as f64 { Ok(bytes as i64) } else { Err(wrong(format!("invalid size: '{text}'"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        let of = |text| bytes("memory", text).ok();
        assert_eq!(
            ["1k", "1.5m", "2GiB", "7", "-1"].map(of),
            [Some(1024), Some(1_572_864), Some(2 << 30), Some(7), Some(-1)]
        );
        assert_eq!(["1x", "", "m", "-5", "1e9g"].map(of), [None; 5]);
        let error = bytes("memory", "1x").expect_err("suffix").to_string();
        assert_eq!(error, "invalid value for memory: invalid suffix: 'x'");
    }

    #[test]
    fn a_change_carries_what_belongs_to_it_and_the_rest_stays() {
        let memory = |limit, swap| LinuxResources {
            memory: Some(Memory { limit, swap, ..Memory::default() }),
            ..LinuxResources::default()
        };
        let mut present = memory(Some(100), Some(300));
        let asked = memory(Some(200), None);
        assert_eq!(change(&asked, &present), memory(Some(200), Some(300)));
        remember(&asked, &mut present);
        assert_eq!(present, memory(Some(200), Some(300)));
    }
}
