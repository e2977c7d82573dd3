//! Limits as data: which files get which values.

use std::borrow::Cow;

use wharf_oci::runtime::{BlockIo, Cpu, LinuxResources, Memory, Network, Rdma, ThrottleDevice};

use crate::CgroupError;

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose file it is; several hierarchies may have the same file name.
    pub controller: Cow<'static, str>,
    /// File name in the group's folder.
    pub file: Cow<'static, str>,
    /// What is written.
    pub value: String,
    /// What is done where the host has no such file.
    pub absent: Absent,
}

/// What is done where the host has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be kept: an error.
    Refuse,
    /// Nothing is lost.
    Skip,
    /// Another file does the same.
    Instead(Cow<'static, str>, String),
}

/// Collects settings of one controller.
struct Plan {
    settings: Vec<Setting>,
}

impl Plan {
    fn set(&mut self, controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) {
        self.add(controller, file, value, Absent::Refuse);
    }

    fn add(
        &mut self,
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        absent: Absent,
    ) {
        let (controller, file) = (controller.into(), file.into());
        self.settings.push(Setting { controller, file, value: value.to_string(), absent });
    }
}

fn invalid(what: &'static str, value: impl ToString) -> CgroupError {
    CgroupError::Value { what, value: value.to_string() }
}

/// Returns what cgroup v1 files get, in order. Device rules are apart: [`crate::devices`].
///
/// Source: kernel Documentation/admin-guide/cgroup-v1; zero and empty mean "as it is", as with runc.
pub fn plan_v1(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let mut plan = Plan { settings: Vec::new() };
    if !resources.unified.is_empty() {
        return Err(invalid("unified resources need cgroup v2:", join(resources.unified.keys())));
    }
    if let Some(cpu) = &resources.cpu {
        cpu_v1(&mut plan, cpu);
    }
    if let Some(memory) = &resources.memory {
        memory_v1(&mut plan, memory)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|n| *n != 0) {
        plan.set("pids", "pids.max", number_or_max(limit));
    }
    if let Some(block) = &resources.block_io {
        block_v1(&mut plan, block);
    }
    for page in &resources.hugepage_limits {
        check_file_name(&page.page_size)?;
        plan.set("hugetlb", format!("hugetlb.{}.limit_in_bytes", page.page_size), page.limit);
        let reserved = format!("hugetlb.{}.rsvd.limit_in_bytes", page.page_size);
        plan.add("hugetlb", reserved, page.limit, Absent::Skip);
    }
    if let Some(network) = &resources.network {
        network_v1(&mut plan, network);
    }
    for (device, limits) in &resources.rdma {
        plan.set("rdma", "rdma.max", rdma(device, limits));
    }
    Ok(plan.settings)
}

fn cpu_v1(plan: &mut Plan, cpu: &Cpu) {
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.shares", shares);
    }
    if let Some(period) = cpu.period.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = cpu.burst {
        plan.set("cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = cpu.idle {
        plan.set("cpu", "cpu.idle", idle);
    }
    cpuset(plan, cpu);
}

fn cpuset(plan: &mut Plan, cpu: &Cpu) {
    if let Some(cpus) = cpu.cpus.as_ref().filter(|s| !s.is_empty()) {
        plan.set("cpuset", "cpuset.cpus", cpus);
    }
    if let Some(mems) = cpu.mems.as_ref().filter(|s| !s.is_empty()) {
        plan.set("cpuset", "cpuset.mems", mems);
    }
}

fn memory_v1(plan: &mut Plan, memory: &Memory) -> Result<(), CgroupError> {
    let limit = memory.limit.filter(|n| *n != 0);
    let swap = memory.swap.filter(|n| *n != 0);
    if let Some(limit) = limit {
        plan.set("memory", "memory.limit_in_bytes", limit);
    }
    match (limit, swap) {
        (_, Some(swap)) => plan.set("memory", "memory.memsw.limit_in_bytes", swap),
        // Unlimited memory within limited memory plus swap would be no limit at all.
        (Some(-1), None) => plan.add("memory", "memory.memsw.limit_in_bytes", -1, Absent::Skip),
        _ => {}
    }
    if let Some(reservation) = memory.reservation.filter(|n| *n != 0) {
        plan.set("memory", "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|n| *n != 0) {
        plan.add("memory", "memory.kmem.tcp.limit_in_bytes", tcp, Absent::Skip);
    }
    if memory.disable_oom_killer == Some(true) {
        plan.set("memory", "memory.oom_control", 1);
    }
    match memory.swappiness {
        None => {}
        Some(n @ 0..=100) => plan.set("memory", "memory.swappiness", n),
        Some(n) => return Err(invalid("memory swappiness (valid range is 0-100)", n)),
    }
    Ok(())
}

fn block_v1(plan: &mut Plan, block: &BlockIo) {
    let bfq = |value: String| Absent::Instead("blkio.bfq.weight".into(), value);
    if let Some(weight) = block.weight.filter(|n| *n != 0) {
        plan.add("blkio", "blkio.weight", weight, bfq(weight.to_string()));
    }
    if let Some(weight) = block.leaf_weight.filter(|n| *n != 0) {
        plan.set("blkio", "blkio.leaf_weight", weight);
    }
    for device in &block.weight_device {
        let of = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|n| *n != 0) {
            let instead = Absent::Instead("blkio.bfq.weight_device".into(), of(weight));
            plan.add("blkio", "blkio.weight_device", of(weight), instead);
        }
        if let Some(weight) = device.leaf_weight.filter(|n| *n != 0) {
            plan.set("blkio", "blkio.leaf_weight_device", of(weight));
        }
    }
    let mut throttle = |file: &'static str, devices: &[ThrottleDevice]| {
        for d in devices {
            plan.set("blkio", file, format_args!("{}:{} {}", d.major, d.minor, d.rate));
        }
    };
    throttle("blkio.throttle.read_bps_device", &block.throttle_read_bps_device);
    throttle("blkio.throttle.write_bps_device", &block.throttle_write_bps_device);
    throttle("blkio.throttle.read_iops_device", &block.throttle_read_iops_device);
    throttle("blkio.throttle.write_iops_device", &block.throttle_write_iops_device);
}

fn network_v1(plan: &mut Plan, network: &Network) {
    if let Some(class) = network.class_id.filter(|n| *n != 0) {
        plan.set("net_cls", "net_cls.classid", class);
    }
    for interface in &network.priorities {
        plan.set("net_prio", "net_prio.ifpriomap", format_args!("{} {}", interface.name, interface.priority));
    }
}

/// Returns what cgroup v2 files get, in order. Device rules are apart: [`crate::devices`].
///
/// Conversions from v1 units are runc's and crun's. Swappiness and a disabled OOM killer do not exist in v2 and are left out,
/// as by them; Docker warns of it. Source: kernel Documentation/admin-guide/cgroup-v2.rst.
pub fn plan_v2(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let mut plan = Plan { settings: Vec::new() };
    if let Some(cpu) = &resources.cpu {
        cpu_v2(&mut plan, cpu);
    }
    if let Some(memory) = &resources.memory {
        memory_v2(&mut plan, memory)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|n| *n != 0) {
        plan.set("pids", "pids.max", number_or_max(limit));
    }
    if let Some(block) = &resources.block_io {
        block_v2(&mut plan, block);
    }
    for page in &resources.hugepage_limits {
        check_file_name(&page.page_size)?;
        plan.set("hugetlb", format!("hugetlb.{}.max", page.page_size), page.limit);
        plan.add("hugetlb", format!("hugetlb.{}.rsvd.max", page.page_size), page.limit, Absent::Skip);
    }
    for (device, limits) in &resources.rdma {
        plan.set("rdma", "rdma.max", rdma(device, limits));
    }
    for (file, value) in &resources.unified {
        check_file_name(file)?;
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        plan.add(controller, file.clone(), value, Absent::Refuse);
    }
    Ok(plan.settings)
}

fn cpu_v2(plan: &mut Plan, cpu: &Cpu) {
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        plan.set("cpu", "cpu.weight", weight_of_shares(shares));
    }
    let (quota, period) = (cpu.quota.filter(|n| *n != 0), cpu.period.filter(|n| *n != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|n| *n > 0).map_or_else(|| "max".to_owned(), |n| n.to_string());
        plan.set("cpu", "cpu.max", format_args!("{quota} {}", period.unwrap_or(100_000)));
    }
    if let Some(burst) = cpu.burst {
        plan.set("cpu", "cpu.max.burst", burst);
    }
    if let Some(idle) = cpu.idle {
        plan.set("cpu", "cpu.idle", idle);
    }
    cpuset(plan, cpu);
}

/// Converts v1's 2 to 262,144 linearly to v2's 1 to 10,000.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn memory_v2(plan: &mut Plan, memory: &Memory) -> Result<(), CgroupError> {
    let limit = memory.limit.filter(|n| *n != 0);
    // v1's kernel refuses what is less than "no limit" itself.
    if let Some(wrong) = [memory.limit, memory.reservation, memory.swap].into_iter().flatten().find(|n| *n < -1) {
        return Err(invalid("memory limit", wrong));
    }
    // The specification's swap is memory plus swap; v2 counts swap alone.
    match (memory.swap.filter(|n| *n != 0), limit) {
        (Some(-1), _) | (None, Some(-1)) => plan.add("memory", "memory.swap.max", "max", Absent::Skip),
        (Some(swap), Some(limit)) if limit > 0 => {
            let alone = swap.checked_sub(limit).filter(|n| *n >= 0);
            let alone = alone.ok_or_else(|| invalid("memory+swap limit below the memory limit:", swap))?;
            plan.set("memory", "memory.swap.max", alone);
        }
        (Some(swap), _) => return Err(invalid("swap limit without memory limit:", swap)),
        (None, _) => {}
    }
    if let Some(limit) = limit {
        plan.set("memory", "memory.max", number_or_max(limit));
    }
    if let Some(reservation) = memory.reservation.filter(|n| *n != 0) {
        plan.set("memory", "memory.low", number_or_max(reservation));
    }
    Ok(())
}

fn block_v2(plan: &mut Plan, block: &BlockIo) {
    // io.weight has another scale than BFQ's, which is that of Docker's flag.
    let scaled = |weight: u16| 1 + (u64::from(weight.max(10)) - 10) * 9_999 / 990;
    if let Some(weight) = block.weight.filter(|n| *n != 0) {
        let instead = Absent::Instead("io.weight".into(), scaled(weight).to_string());
        plan.add("io", "io.bfq.weight", weight, instead);
    }
    for device in &block.weight_device {
        if let Some(weight) = device.weight.filter(|n| *n != 0) {
            let of = |n: u64| format!("{}:{} {n}", device.major, device.minor);
            let instead = Absent::Instead("io.weight".into(), of(scaled(weight)));
            plan.add("io", "io.bfq.weight", of(u64::from(weight)), instead);
        }
    }
    let mut throttle = |key: &str, devices: &[ThrottleDevice]| {
        for d in devices {
            let rate = if d.rate == 0 { "max".to_owned() } else { d.rate.to_string() };
            plan.set("io", "io.max", format_args!("{}:{} {key}={rate}", d.major, d.minor));
        }
    };
    throttle("rbps", &block.throttle_read_bps_device);
    throttle("wbps", &block.throttle_write_bps_device);
    throttle("riops", &block.throttle_read_iops_device);
    throttle("wiops", &block.throttle_write_iops_device);
}

fn number_or_max(n: i64) -> String {
    if n < 0 { "max".to_owned() } else { n.to_string() }
}

fn rdma(device: &str, limits: &Rdma) -> String {
    let number = |n: Option<u32>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
    format!("{device} hca_handle={} hca_object={}", number(limits.hca_handles), number(limits.hca_objects))
}

/// Refuses what would leave the group's folder or reach its structure.
fn check_file_name(name: &str) -> Result<(), CgroupError> {
    let structural = name.starts_with("cgroup.") && !matches!(name, "cgroup.max.depth" | "cgroup.max.descendants");
    if name.is_empty()
        || name.contains('/')
        || name.contains('\0')
        || !name.contains(char::is_alphanumeric)
        || structural
    {
        return Err(invalid("cgroup file name", name));
    }
    Ok(())
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
