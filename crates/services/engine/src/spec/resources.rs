//! Limits as the runtime takes them.

use std::os::unix::fs::MetadataExt;

use wharf_api_types::{ContainerUpdateRequest, HostConfig, ThrottleDevice as Throttle};
use wharf_oci::runtime::{BlockIo, Cpu, LinuxResources, Memory, Pids, ThrottleDevice, WeightDevice};

use super::SpecError;

/// The CFS period that `--cpus` is counted in, microseconds (moby `daemon_unix.go`).
const PERIOD: i64 = 100_000;

fn positive(n: i64) -> Option<i64> {
    (n != 0).then_some(n)
}

fn cpu(host: &HostConfig) -> Option<Cpu> {
    let mut cpu = Cpu {
        shares: (host.cpu_shares > 0).then_some(host.cpu_shares as u64),
        quota: positive(host.cpu_quota),
        period: (host.cpu_period > 0).then_some(host.cpu_period as u64),
        realtime_runtime: positive(host.cpu_realtime_runtime),
        realtime_period: (host.cpu_realtime_period > 0).then_some(host.cpu_realtime_period as u64),
        cpus: Some(host.cpuset_cpus.clone()).filter(|s| !s.is_empty()),
        mems: Some(host.cpuset_mems.clone()).filter(|s| !s.is_empty()),
        ..Cpu::default()
    };
    if host.nano_cpus > 0 {
        cpu.period = Some(PERIOD as u64);
        cpu.quota = Some(host.nano_cpus * PERIOD / 1_000_000_000);
    }
    (cpu != Cpu::default()).then_some(cpu)
}

fn memory(host: &HostConfig) -> Option<Memory> {
    let memory = Memory {
        limit: (host.memory > 0).then_some(host.memory),
        reservation: (host.memory_reservation > 0).then_some(host.memory_reservation),
        swap: positive(host.memory_swap),
        kernel_tcp: (host.kernel_memory_tcp > 0).then_some(host.kernel_memory_tcp),
        swappiness: host.memory_swappiness.and_then(|n| u64::try_from(n).ok()),
        disable_oom_killer: host.oom_kill_disable.filter(|d| *d),
        ..Memory::default()
    };
    (memory != Memory::default()).then_some(memory)
}

fn device_number(path: &str) -> Result<(i64, i64), SpecError> {
    let meta = std::fs::metadata(path).map_err(|error| SpecError::BlockDevice { path: path.to_owned(), error })?;
    let dev = meta.rdev();
    Ok((i64::from(rustix::fs::major(dev)), i64::from(rustix::fs::minor(dev))))
}

fn throttles(list: Option<&Vec<Throttle>>) -> Result<Vec<ThrottleDevice>, SpecError> {
    let one = |t: &Throttle| {
        let (major, minor) = device_number(&t.path)?;
        Ok(ThrottleDevice { major, minor, rate: t.rate })
    };
    list.into_iter().flatten().map(one).collect()
}

/// Makes the limits of a container, without device rules.
pub fn linux_resources(host: &HostConfig) -> Result<LinuxResources, SpecError> {
    let weights = host.blkio_weight_device.iter().flatten().map(|w| {
        let (major, minor) = device_number(&w.path)?;
        Ok(WeightDevice { major, minor, weight: Some(w.weight), leaf_weight: None })
    });
    let block_io = BlockIo {
        weight: (host.blkio_weight > 0).then_some(host.blkio_weight),
        weight_device: weights.collect::<Result<_, SpecError>>()?,
        throttle_read_bps_device: throttles(host.blkio_device_read_bps.as_ref())?,
        throttle_write_bps_device: throttles(host.blkio_device_write_bps.as_ref())?,
        throttle_read_iops_device: throttles(host.blkio_device_read_iops.as_ref())?,
        throttle_write_iops_device: throttles(host.blkio_device_write_iops.as_ref())?,
        ..BlockIo::default()
    };
    Ok(LinuxResources {
        memory: memory(host),
        cpu: cpu(host),
        // 0 and -1 both mean no limit.
        pids: host.pids_limit.filter(|n| *n > 0).map(|n| Pids { limit: Some(n) }),
        block_io: (block_io != BlockIo::default()).then_some(block_io),
        ..LinuxResources::default()
    })
}

/// Applies an update to a copy of the host configuration: 0 and absent leave a value alone (moby
/// `container_unix.go` UpdateContainer).
pub fn of_update(host: &HostConfig, update: &ContainerUpdateRequest) -> HostConfig {
    let mut new = host.clone();
    let number = |target: &mut i64, value: i64| {
        if value != 0 {
            *target = value;
        }
    };
    number(&mut new.cpu_shares, update.cpu_shares);
    number(&mut new.memory, update.memory);
    number(&mut new.memory_reservation, update.memory_reservation);
    number(&mut new.memory_swap, update.memory_swap);
    number(&mut new.nano_cpus, update.nano_cpus);
    number(&mut new.cpu_period, update.cpu_period);
    number(&mut new.cpu_quota, update.cpu_quota);
    number(&mut new.cpu_realtime_period, update.cpu_realtime_period);
    number(&mut new.cpu_realtime_runtime, update.cpu_realtime_runtime);
    if update.blkio_weight != 0 {
        new.blkio_weight = update.blkio_weight;
    }
    if !update.cpuset_cpus.is_empty() {
        new.cpuset_cpus.clone_from(&update.cpuset_cpus);
    }
    if !update.cpuset_mems.is_empty() {
        new.cpuset_mems.clone_from(&update.cpuset_mems);
    }
    if update.pids_limit.is_some() {
        new.pids_limit = update.pids_limit;
    }
    if !update.restart_policy.name.is_empty() {
        new.restart_policy = update.restart_policy.clone();
    }
    new
}
