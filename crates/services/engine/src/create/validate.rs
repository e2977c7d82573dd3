//! Checks of a create request that need nothing but the request and facts about the host. Docker's texts, in Docker's
//! order (moby `daemon/container.go` verifyContainerSettings, `daemon_unix.go` verifyPlatformContainerSettings).

use std::collections::{BTreeMap, BTreeSet};

use wharf_api_types::{ContainerConfig, EndpointSettings, HealthConfig, HostConfig, RestartPolicy};
use wharf_error::{HasKind, Kind};
use wharf_types::{Signal, SignalError};

use super::mounts::{self, MountError};
use crate::config::Runtimes;

/// Facts about the host that limits are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Online processors.
    pub cpus: u32,
    /// The list that `cpuset.cpus` of the root cgroup shows, for example `0-3`.
    pub cpuset: String,
    /// The list of memory nodes.
    pub mems: String,
    /// Whether the kernel has weights of block devices.
    pub blkio_weight: bool,
    /// Whether the kernel can give real-time shares of the processors.
    pub real_time: bool,
}

/// The least memory limit, as in moby (`linuxMinMemory`).
pub const MIN_MEMORY: i64 = 6 * 1024 * 1024;

/// A create request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum CreateError {
    #[error("kernel does not support CPU real-time scheduler")]
    RealTime,
    #[error("cpu real-time runtime cannot be higher than cpu real-time period")]
    RealTimeRuntime,
    #[error("config cannot be empty in order to create a container")]
    EmptyConfig,
    #[error("no command specified")]
    NoCommand,
    #[error(
        "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"
    )]
    UsersPrivileged,
    #[error("cannot share the host's network namespace when user namespaces are enabled")]
    UsersNetwork,
    #[error("cannot share the host PID namespace when user namespaces are enabled")]
    UsersPid,
    /// An option that no storage driver of Docker knows.
    #[error("Unknown option {0}")]
    StorageOption(String),
    #[error("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")]
    StorageSizeOverlay,
    #[error("Filesystem does not support, or has not enabled quotas")]
    StorageSize,
    #[error("{0}")]
    StorageValue(String),
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    WorkingDirectory(String),
    #[error("invalid environment variable: {0}")]
    Environment(String),
    #[error(transparent)]
    Signal(#[from] SignalError),
    #[error("{0} in Healthcheck cannot be less than 1ms")]
    HealthTime(&'static str),
    #[error("{0} in Healthcheck cannot be negative")]
    HealthNumber(&'static str),
    #[error("OnFailure in Healthcheck must be none, kill, restart or stop: {0:?}")]
    HealthAction(String),
    #[error("can't create 'AutoRemove' container with restart policy")]
    RemoveAndRestart,
    #[error("bad format for add-host: {0:?}")]
    ExtraHost(String),
    #[error("invalid IP address in add-host: {0:?}")]
    ExtraHostAddress(String),
    #[error("invalid port specification: {0:?}")]
    Port(String),
    #[error(
        "invalid restart policy: unknown policy '{0}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )]
    RestartPolicy(String),
    #[error("invalid restart policy: maximum retry count can only be used with 'on-failure'")]
    RestartCount,
    #[error("invalid restart policy: maximum retry count cannot be negative")]
    RestartCountNegative,
    #[error("invalid {list}: unknown capability: \"{name}\"")]
    Capability { list: &'static str, name: String },
    #[error("invalid Annotations: the empty string is not permitted as an annotation key")]
    Annotation,
    #[error("{0}")]
    Egress(String),
    #[error("invalid isolation ({0}): linux only supports 'default'")]
    Isolation(String),
    #[error("invalid option: QoS maximum {0} configuration is not supported on linux")]
    Qos(&'static str),
    #[error("Minimum {0} allowed is 6MB")]
    MinimumMemory(&'static str),
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    #[error("Invalid value: {0}, valid memory swappiness range is 0-100")]
    Swappiness(i64),
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveMemory,
    #[error("Conflicting options: Nano CPUs and CPU {0} cannot both be set")]
    NanoCpusConflict(&'static str),
    #[error("range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available")]
    NanoCpus(u32),
    #[error("invalid CPU shares ({0}): value must be a positive integer")]
    CpuShares(i64),
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    CpuPeriod,
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    CpuQuota,
    #[error("Invalid value {value} for cpuset {what}: invalid format: {value}")]
    CpusetFormat { what: &'static str, value: String },
    #[error("Requested {what} are not available - requested {value}, available: {available}")]
    CpusetRange { what: &'static str, value: String, available: String },
    #[error("Range of blkio weight is from 10 to 1000")]
    BlkioWeight,
    #[error("Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScore(i64),
    #[error("SHM size can not be less than 0")]
    ShmSize,
    #[error("invalid {what}: {value}")]
    Mode { what: &'static str, value: String },
    #[error("invalid network mode: invalid container format container:<name|id>")]
    NetworkContainer,
    #[error("conflicting options: {0}")]
    Conflict(&'static str),
    #[error("unknown or invalid runtime name: {0}")]
    Runtime(String),
    #[error("invalid --security-opt {form}: {value:?}")]
    SecurityOption { form: u8, value: String },
    #[error("error looking up logging plugin {0}: plugin \"{0}\" not found")]
    LogDriver(String),
    #[error("unknown log opt '{option}' for {driver}")]
    LogOption { option: String, driver: String },
    #[error("{0}")]
    LogConfig(String),
    #[error("invalid config for network bridge: invalid MAC address {0}")]
    MacAddress(String),
    #[error("invalid config for network {network}: invalid endpoint settings:\n{problems}")]
    Endpoint { network: String, problems: String },
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl HasKind for CreateError {
    fn kind(&self) -> Kind {
        match self {
            // moby leaves these unclassified, which makes them status 500.
            CreateError::SecurityOption { .. } => Kind::System,
            CreateError::StorageOption(_)
            | CreateError::StorageSizeOverlay
            | CreateError::StorageSize
            | CreateError::StorageValue(_) => Kind::System,
            CreateError::Mount(e) => e.kind(),
            CreateError::EmptyConfig
            | CreateError::NoCommand
            | CreateError::UsersPrivileged
            | CreateError::UsersNetwork
            | CreateError::UsersPid
            | CreateError::Name(_)
            | CreateError::WorkingDirectory(_)
            | CreateError::Environment(_)
            | CreateError::Signal(_)
            | CreateError::HealthTime(_)
            | CreateError::HealthNumber(_)
            | CreateError::HealthAction(_)
            | CreateError::RemoveAndRestart
            | CreateError::ExtraHost(_)
            | CreateError::ExtraHostAddress(_)
            | CreateError::Port(_)
            | CreateError::RestartPolicy(_)
            | CreateError::RestartCount
            | CreateError::RestartCountNegative
            | CreateError::Capability { .. }
            | CreateError::Annotation
            | CreateError::Egress(_)
            | CreateError::Isolation(_)
            | CreateError::Qos(_)
            | CreateError::MinimumMemory(_)
            | CreateError::SwapBelowMemory
            | CreateError::SwapWithoutMemory
            | CreateError::Swappiness(_)
            | CreateError::ReservationAboveMemory
            | CreateError::NanoCpusConflict(_)
            | CreateError::NanoCpus(_)
            | CreateError::CpuShares(_)
            | CreateError::CpuPeriod
            | CreateError::CpuQuota
            | CreateError::CpusetFormat { .. }
            | CreateError::CpusetRange { .. }
            | CreateError::BlkioWeight
            | CreateError::RealTime
            | CreateError::RealTimeRuntime
            | CreateError::OomScore(_)
            | CreateError::ShmSize
            | CreateError::Mode { .. }
            | CreateError::NetworkContainer
            | CreateError::Conflict(_)
            | CreateError::Runtime(_)
            | CreateError::LogDriver(_)
            | CreateError::LogOption { .. }
            | CreateError::LogConfig(_)
            | CreateError::Endpoint { .. }
            | CreateError::MacAddress(_) => Kind::Invalid,
        }
    }
}

/// A container's own bound on its layer needs quotas by project, which no driver here sets up: refused as dockerd refuses it
/// on a file system without them (moby `daemon/graphdriver/overlay2`, `vfs`).
///
/// # Errors
/// [`CreateError::StorageOption`], [`CreateError::StorageSizeOverlay`], [`CreateError::StorageSize`].
pub fn storage_options(host: &HostConfig, driver: &str, limits: bool) -> Result<Option<u64>, CreateError> {
    let Some(options) = host.storage_opt.as_ref().filter(|options| !options.is_empty()) else { return Ok(None) };
    if let Some((unknown, _)) = options.iter().find(|(key, _)| key.to_lowercase() != "size") {
        return Err(CreateError::StorageOption(unknown.clone()));
    }
    if limits {
        let size = options.values().next().map_or("", String::as_str);
        let bytes = wharf_volume::parse_size(size).map_err(|e| CreateError::StorageValue(e.to_string()))?;
        return if bytes == 0 {
            Err(CreateError::StorageValue(format!("invalid storage size: {size}")))
        } else {
            Ok(Some(bytes))
        };
    }
    Err(if driver == "overlayfs" { CreateError::StorageSizeOverlay } else { CreateError::StorageSize })
}

/// Checks what cannot be had in a user namespace (moby `verifyPlatformContainerSettings`).
pub fn users(host: &HostConfig) -> Result<(), CreateError> {
    if host.privileged {
        return Err(CreateError::UsersPrivileged);
    }
    if host.network_mode == "host" {
        return Err(CreateError::UsersNetwork);
    }
    if host.pid_mode == "host" { Err(CreateError::UsersPid) } else { Ok(()) }
}

/// Checks everything and returns the warnings Docker gives. Values that the kernel cannot honour are taken back in
/// `host_config`, as Docker does together with the warning.
pub fn check(
    config: &ContainerConfig,
    host_config: &mut HostConfig,
    runtimes: &Runtimes,
    host: &Host,
) -> Result<Vec<String>, CreateError> {
    self::config(config)?;
    self::host_config(host_config)?;
    let mut warnings = Vec::new();
    self::resources(host_config, host, &mut warnings)?;
    real_time(host_config, host)?;
    self::modes(config, host_config, runtimes)?;
    if host_config.network_mode == "host" && host_config.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if !config.mac_address.is_empty() {
        warnings.push(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
                .to_owned(),
        );
    }
    self::security(host_config)?;
    self::logging(host_config)?;
    Ok(warnings)
}

fn config(config: &ContainerConfig) -> Result<(), CreateError> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(CreateError::WorkingDirectory(config.working_dir.clone()));
    }
    if let Some(bad) = config.env.iter().flatten().find(|e| e.is_empty() || e.starts_with('=')) {
        return Err(CreateError::Environment(bad.clone()));
    }
    if !config.stop_signal.is_empty() {
        Signal::parse(&config.stop_signal)?;
    }
    config.healthcheck.as_ref().map_or(Ok(()), health)
}

/// Checks the Ethernet addresses asked for; what networks make of the rest is checked against them.
pub fn endpoints(config: &ContainerConfig, networks: &BTreeMap<String, EndpointSettings>) -> Result<(), CreateError> {
    let mac = |text: &str| text.is_empty() || text.parse::<wharf_network::MacAddress>().is_ok();
    if !mac(&config.mac_address) {
        return Err(CreateError::MacAddress(config.mac_address.clone()));
    }
    match networks.values().find(|settings| !mac(&settings.mac_address)) {
        Some(settings) => Err(CreateError::MacAddress(settings.mac_address.clone())),
        None => Ok(()),
    }
}

fn health(check: &HealthConfig) -> Result<(), CreateError> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    if let Some((name, _)) = times.iter().find(|(_, t)| *t != 0 && *t < 1_000_000) {
        return Err(CreateError::HealthTime(name));
    }
    if !matches!(check.on_failure.as_str(), "" | "none" | "kill" | "restart" | "stop") {
        return Err(CreateError::HealthAction(check.on_failure.clone()));
    }
    if check.retries < 0 { Err(CreateError::HealthNumber("Retries")) } else { Ok(()) }
}

fn host_config(host: &HostConfig) -> Result<(), CreateError> {
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(CreateError::RemoveAndRestart);
    }
    for extra in host.extra_hosts.iter().flatten() {
        let Some((_, address)) = extra.split_once([':', '=']).filter(|(n, _)| !n.is_empty()) else {
            return Err(CreateError::ExtraHost(extra.clone()));
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(CreateError::ExtraHostAddress(address.to_owned()));
        }
    }
    ports(host)?;
    restart_policy(&host.restart_policy)?;
    capabilities("CapAdd", host.cap_add.as_deref())?;
    capabilities("CapDrop", host.cap_drop.as_deref())?;
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(CreateError::Annotation);
    }
    let policy = host.annotations.as_ref().map(crate::networks::egress::read).transpose();
    if policy.map_err(|e| CreateError::Egress(e.to_string()))?.flatten().flatten().is_some()
        && (host.network_mode == "host" || host.network_mode.starts_with("container:"))
    {
        return Err(CreateError::Egress("invalid egress policy: it needs a network of the container's own".to_owned()));
    }
    for mount in host.mounts.iter().flatten() {
        mounts::check(mount)?;
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(CreateError::Isolation(host.isolation.clone()));
    }
    Ok(())
}

fn ports(host: &HostConfig) -> Result<(), CreateError> {
    let number = |text: &str| text.parse::<u16>().is_ok();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let private = port.split('/').next().unwrap_or_default();
        if !number(private) {
            return Err(CreateError::Port(private.to_owned()));
        }
        for binding in bindings.iter().flatten() {
            let wanted = &binding.host_port;
            let range = wanted.split_once('-').is_some_and(|(a, b)| number(a) && number(b));
            if !(wanted.is_empty() || number(wanted) || range) {
                return Err(CreateError::Port(wanted.clone()));
            }
        }
    }
    Ok(())
}

/// Checks a restart policy; also used by update.
pub fn restart_policy(policy: &RestartPolicy) -> Result<(), CreateError> {
    match policy.name.as_str() {
        "on-failure" if policy.maximum_retry_count < 0 => Err(CreateError::RestartCountNegative),
        "on-failure" => Ok(()),
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => Err(CreateError::RestartCount),
        "" | "no" | "always" | "unless-stopped" => Ok(()),
        other => Err(CreateError::RestartPolicy(other.to_owned())),
    }
}

/// All capabilities of Linux 5.9 and later, in numeric order (capabilities(7)).
pub const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The form in which capabilities are compared: upper case, with `CAP_`; `ALL` stays.
pub fn capability_name(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

fn capabilities(list: &'static str, names: Option<&Vec<String>>) -> Result<(), CreateError> {
    for name in names.into_iter().flatten() {
        let name = capability_name(name);
        let known = name == "ALL" || name.strip_prefix("CAP_").is_some_and(|bare| CAPABILITIES.contains(&bare));
        if !known {
            return Err(CreateError::Capability { list, name });
        }
    }
    Ok(())
}

/// Checks limits; also used by update.
pub fn resources(host: &mut HostConfig, facts: &Host, warnings: &mut Vec<String>) -> Result<(), CreateError> {
    memory(host, warnings)?;
    cpu(host, facts, warnings)?;
    cpuset("cpus", "CPUs", &host.cpuset_cpus, &facts.cpuset)?;
    cpuset("mems", "memory nodes", &host.cpuset_mems, &facts.mems)?;
    let mut discard = |what: &str, name: &str| {
        warnings.push(format!(
            "Your kernel does not support Block I/O {what} or the cgroup is not mounted. {name} discarded."
        ));
    };
    if host.blkio_weight > 0 {
        if !facts.blkio_weight {
            discard("weight", "Weight");
            host.blkio_weight = 0;
        } else if !(10..=1000).contains(&host.blkio_weight) {
            return Err(CreateError::BlkioWeight);
        }
    }
    if host.blkio_weight_device.as_ref().is_some_and(|d| !d.is_empty()) && !facts.blkio_weight {
        discard("weight_device", "Weight-device");
        host.blkio_weight_device = Some(Vec::new());
    }
    if host.io_maximum_bandwidth != 0 {
        return Err(CreateError::Qos("bandwidth"));
    }
    if host.io_maximum_iops != 0 {
        return Err(CreateError::Qos("IOPs"));
    }
    Ok(())
}

fn memory(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), CreateError> {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return Err(CreateError::MinimumMemory("memory limit"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(CreateError::SwapBelowMemory);
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return Err(CreateError::SwapWithoutMemory);
    }
    match host.memory_swappiness {
        Some(-1) | None => host.memory_swappiness = None,
        Some(n) if !(0..=100).contains(&n) => return Err(CreateError::Swappiness(n)),
        Some(_) => {}
    }
    if host.memory_reservation != 0 && host.memory_reservation < MIN_MEMORY {
        return Err(CreateError::MinimumMemory("memory reservation"));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(CreateError::ReservationAboveMemory);
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .to_owned(),
        );
    }
    Ok(())
}

/// moby checks this at create only.
fn real_time(host: &HostConfig, facts: &Host) -> Result<(), CreateError> {
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !facts.real_time {
        return Err(CreateError::RealTime);
    }
    if period != 0 && runtime > period {
        return Err(CreateError::RealTimeRuntime);
    }
    Ok(())
}

fn cpu(host: &mut HostConfig, facts: &Host, warnings: &mut Vec<String>) -> Result<(), CreateError> {
    if host.nano_cpus != 0 && host.cpu_period != 0 {
        return Err(CreateError::NanoCpusConflict("Period"));
    }
    if host.nano_cpus != 0 && host.cpu_quota != 0 {
        return Err(CreateError::NanoCpusConflict("Quota"));
    }
    if host.nano_cpus < 0 || host.nano_cpus > i64::from(facts.cpus) * 1_000_000_000 {
        return Err(CreateError::NanoCpus(facts.cpus));
    }
    if host.cpu_shares < 0 {
        return Err(CreateError::CpuShares(host.cpu_shares));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(CreateError::CpuPeriod);
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(CreateError::CpuQuota);
    }
    if host.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host.cpu_percent = 0;
    }
    Ok(())
}

/// Reads a list such as `0-2,5`.
fn list(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.trim().parse::<u32>().ok()?, high.trim().parse::<u32>().ok()?);
        // A bound far above any machine keeps hostile ranges from filling memory.
        if low > high || high > 65_535 {
            return None;
        }
        set.extend(low..=high);
    }
    Some(set)
}

fn cpuset(what: &'static str, plural: &'static str, wanted: &str, available: &str) -> Result<(), CreateError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted_set = list(wanted).ok_or_else(|| CreateError::CpusetFormat { what, value: wanted.to_owned() })?;
    if list(available).is_some_and(|have| !wanted_set.is_subset(&have)) {
        let (value, available) = (wanted.to_owned(), available.trim().to_owned());
        return Err(CreateError::CpusetRange { what: plural, value, available });
    }
    Ok(())
}

fn modes(config: &ContainerConfig, host: &HostConfig, runtimes: &Runtimes) -> Result<(), CreateError> {
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(CreateError::OomScore(host.oom_score_adj));
    }
    if host.shm_size < 0 {
        return Err(CreateError::ShmSize);
    }
    let of_container = |mode: &str| mode.strip_prefix("container:").is_some_and(|c| !c.is_empty());
    let wrong = |what, value: &str| Err(CreateError::Mode { what, value: value.to_owned() });
    match host.ipc_mode.as_str() {
        "" | "none" | "private" | "shareable" | "host" => {}
        mode if of_container(mode) => {}
        mode => return wrong("IPC mode", mode),
    }
    match host.pid_mode.as_str() {
        "" | "host" => {}
        mode if of_container(mode) => {}
        mode => return wrong("PID mode", mode),
    }
    match host.uts_mode.as_str() {
        "" => {}
        "host" if config.hostname.is_empty() => {}
        "host" => return Err(CreateError::Conflict("hostname and the UTS mode")),
        mode => return wrong("UTS mode", mode),
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return wrong("cgroup namespace mode", &host.cgroupns_mode);
    }
    network(host)?;
    if !host.runtime.is_empty() && !runtimes.has(&host.runtime) {
        return Err(CreateError::Runtime(host.runtime.clone()));
    }
    Ok(())
}

fn network(host: &HostConfig) -> Result<(), CreateError> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let links = given(&host.links);
    if host.network_mode == "host" && links {
        return Err(CreateError::Conflict(
            "host type networking can't be used with links. This would result in undefined behavior",
        ));
    }
    let Some(target) = host.network_mode.strip_prefix("container:") else { return Ok(()) };
    if target.is_empty() {
        return Err(CreateError::NetworkContainer);
    }
    let checks = [
        (links, "container type network can't be used with links. This would result in undefined behavior"),
        (given(&host.dns), "dns and the network mode"),
        (given(&host.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (
            host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()),
            "port publishing and the container type network mode",
        ),
    ];
    match checks.iter().find(|(wrong, _)| *wrong) {
        Some((_, text)) => Err(CreateError::Conflict(text)),
        None => Ok(()),
    }
}

fn security(host: &HostConfig) -> Result<(), CreateError> {
    for option in host.security_opt.iter().flatten() {
        let wrong = |form| CreateError::SecurityOption { form, value: option.clone() };
        if option == "no-new-privileges" || option == "disable" {
            continue;
        }
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(|| wrong(1))?;
        match key {
            "label" | "apparmor" | "seccomp" | "writable-cgroups" => {}
            "no-new-privileges" if matches!(value, "true" | "false" | "1" | "0") => {}
            _ => return Err(wrong(2)),
        }
    }
    Ok(())
}

/// Checks the log driver and the names of its options; their values are checked at start, as with Docker.
fn logging(host: &HostConfig) -> Result<(), CreateError> {
    let options = host.log_config.config.iter().flatten();
    let known: &[&str] = match host.log_config.r#type.as_str() {
        "" | "json-file" => &[
            "max-size",
            "max-file",
            "compress",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
            "mode",
            "max-buffer-size",
            "cache-disabled",
            "cache-max-size",
            "cache-max-file",
            "cache-compress",
        ],
        "local" => &["max-size", "max-file", "compress", "mode", "max-buffer-size"],
        "none" => return Ok(()),
        // Of these Docker checks the values here, too.
        other if wharf_logs::RemoteKind::of(other).is_some() || matches!(other, "awslogs" | "gcplogs") => {
            let options = options.map(|(k, v)| (k.as_str(), v.as_str()));
            let checked = wharf_logs::Config::parse(other, options).map(drop);
            return checked.map_err(|e| CreateError::LogConfig(crate::error::log_text(&e)));
        }
        other => return Err(CreateError::LogDriver(other.to_owned())),
    };
    for (option, _) in options {
        if !known.contains(&option.as_str()) {
            let driver = match host.log_config.r#type.as_str() {
                "local" => "log driver local".to_owned(),
                _ => "json-file log driver".to_owned(),
            };
            return Err(CreateError::LogOption { option: option.clone(), driver });
        }
    }
    let size =
        host.log_config.config.iter().flatten().filter(|(k, _)| matches!(k.as_str(), "mode" | "max-buffer-size"));
    let checked = wharf_logs::Config::parse("", size.map(|(k, v)| (k.as_str(), v.as_str())));
    checked.map(drop).map_err(|e| CreateError::LogConfig(crate::error::log_text(&e)))
}
