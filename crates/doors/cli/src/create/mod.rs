//! Turns the flags of `run` and `create` into the body of a create request, field by field what docker 28.2.2 sends.

pub mod check;
pub mod device;
pub mod environment;
pub mod mount;
pub mod network;
pub mod port;
pub mod resource;

use std::collections::{BTreeMap, BTreeSet};

use wharf_api_types::go::{Pair, Unit, Words};
use wharf_api_types::{
    ContainerConfig, ContainerCreateRequest, DeviceRequest, HealthConfig, HostConfig, LogConfig, RestartPolicy,
    StringMap,
};

use crate::exit::{Exit, go_text};
use crate::parse::Matches;
use crate::value;

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

fn some(items: Vec<String>) -> Option<Vec<String>> {
    if items.is_empty() { None } else { Some(items) }
}

fn some_owned(items: &[&str]) -> Option<Vec<String>> {
    some(owned(items))
}

fn map_of<'a>(items: impl IntoIterator<Item = &'a str>) -> StringMap {
    items
        .into_iter()
        .map(|t| {
            let (k, v) = t.split_once('=').unwrap_or((t, ""));
            (k.to_owned(), v.to_owned())
        })
        .collect()
}

fn some_map(map: StringMap) -> Option<StringMap> {
    if map.is_empty() { None } else { Some(map) }
}

/// Builds the request.
///
/// # Errors
/// Docker's text for values that contradict each other or cannot be read.
pub fn request(m: &Matches) -> Result<ContainerCreateRequest, Exit> {
    let networks = network::attachments(m).map_err(Exit::new)?;
    let mode = networks.first().map_or("default", |n| n.target.as_str()).to_owned();
    let mac = m.text("mac-address");
    if !mac.trim().is_empty() && !network::is_mac(mac.trim()) {
        return Err(Exit::new(format!("{mac} is not a valid mac address")));
    }
    let swappiness = m.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(Exit::new(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100")));
    }
    let (volumes, binds) = volumes(m)?;
    let (ports, bindings) = port::parse(&m.list("publish"), &m.list("expose")).map_err(Exit::new)?;
    let mut config = config(m, volumes)?;
    config.exposed_ports = Some(ports);
    let mut host = host(m)?;
    host.binds = binds;
    host.port_bindings = Some(bindings);
    host.network_mode = mode;
    resources(m, &mut host).map_err(Exit::new)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Exit::new("conflicting options: cannot specify both --restart and --rm"));
    }
    let networking = network::networking(m, networks).map_err(Exit::new)?;
    Ok(ContainerCreateRequest { config, host_config: Some(host), networking_config: Some(networking) })
}

type Volumes = BTreeMap<String, Unit>;

fn volumes(m: &Matches) -> Result<(Volumes, Option<Vec<String>>), Exit> {
    let (mut anonymous, mut binds) = (Volumes::new(), Vec::new());
    for spec in m.list("volume") {
        match mount::parse_volume(spec).map_err(Exit::new)? {
            mount::Volume::Anonymous(path) => {
                anonymous.insert(path, Unit {});
            }
            mount::Volume::Bind(bind) => binds.push(bind),
        }
    }
    Ok((anonymous, some(binds)))
}

fn config(m: &Matches, volumes: Volumes) -> Result<ContainerConfig, Exit> {
    let attach: Vec<String> = m.list("attach").iter().map(|a| a.to_lowercase()).collect();
    let attached = |name: &str| attach.iter().any(|a| a == name);
    let stdin = m.bool("interactive");
    let attach_stdin = stdin || attached("stdin");
    let entrypoint = match m.text("entrypoint") {
        "" if m.changed("entrypoint") => Some(Words(vec![String::new()])),
        "" => None,
        e => Some(Words(vec![e.to_owned()])),
    };
    let command = &m.args[1..];
    Ok(ContainerConfig {
        hostname: m.text("hostname").to_owned(),
        domainname: m.text("domainname").to_owned(),
        user: m.text("user").to_owned(),
        attach_stdin,
        attach_stdout: attach.is_empty() || attached("stdout"),
        attach_stderr: attach.is_empty() || attached("stderr"),
        tty: m.bool("tty"),
        open_stdin: stdin,
        stdin_once: stdin && attach_stdin,
        env: some(environment::variables(&m.list("env-file"), &m.list("env"))?),
        cmd: if command.is_empty() { None } else { Some(Words(command.to_vec())) },
        healthcheck: health(m)?,
        image: m.args[0].clone(),
        volumes: Some(volumes),
        working_dir: m.text("workdir").to_owned(),
        entrypoint,
        labels: Some(map_of(environment::labels(&m.list("label-file"), &m.list("label"))?.iter().map(String::as_str))),
        stop_signal: m.text("stop-signal").to_owned(),
        stop_timeout: m.changed("stop-timeout").then(|| m.int("stop-timeout")),
        ..ContainerConfig::default()
    })
}

fn health(m: &Matches) -> Result<Option<HealthConfig>, Exit> {
    let command = m.text("health-cmd");
    let health = HealthConfig {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".into(), command.to_owned()]),
        interval: m.duration("health-interval"),
        timeout: m.duration("health-timeout"),
        start_period: m.duration("health-start-period"),
        start_interval: m.duration("health-start-interval"),
        retries: m.int("health-retries"),
        on_failure: m.text("health-on-failure").to_owned(),
    };
    let any = health != HealthConfig::default();
    if m.bool("no-healthcheck") {
        if any {
            return Err(Exit::new("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }));
    }
    for (value, name) in [
        (health.interval, "interval"),
        (health.timeout, "timeout"),
        (health.retries, "retries"),
        (health.start_period, "start-period"),
        (health.start_interval, "start-interval"),
    ] {
        if value < 0 {
            return Err(Exit::new(format!("--health-{name} cannot be negative")));
        }
    }
    Ok(any.then_some(health))
}

fn host(m: &Matches) -> Result<HostConfig, Exit> {
    for (flag, name, valid) in [
        ("pid", "PID", m.text("pid").is_empty() || m.text("pid") == "host" || container_of(m.text("pid"))),
        ("uts", "UTS", matches!(m.text("uts"), "" | "host")),
        ("userns", "USER", matches!(m.text("userns"), "" | "host")),
        ("cgroupns", "CGROUP", matches!(m.text("cgroupns"), "" | "host" | "private")),
    ] {
        if !valid {
            return Err(Exit::new(format!("--{flag}: invalid {name} mode")));
        }
    }
    let log = logging(m)?;
    let (security, masked, readonly) = security(m)?;
    let storage = m.list("storage-opt");
    if storage.iter().any(|s| !s.contains('=')) {
        return Err(Exit::new("invalid storage option"));
    }
    let mut mounts = Vec::new();
    for text in m.list("mount") {
        mounts.push(mount::parse(text).map_err(Exit::new)?);
    }
    let tmpfs: StringMap = m
        .list("tmpfs")
        .iter()
        .map(|t| {
            let (path, options) = t.split_once(':').unwrap_or((t, ""));
            (path.to_owned(), options.to_owned())
        })
        .collect();
    let capabilities = |flag| {
        let all: BTreeSet<String> = m.list(flag).iter().map(|c| capability(c)).collect();
        some(all.into_iter().collect()).map(Words)
    };
    let mut annotations = map_of(m.list("annotation"));
    annotations.extend(super::commands::egress(m));
    let dns_options: Vec<&str> =
        m.given().filter(|(f, _)| matches!(f.long, "dns-option" | "dns-opt")).map(|(_, v)| v).collect();
    Ok(HostConfig {
        container_id_file: m.text("cidfile").to_owned(),
        log_config: log,
        restart_policy: restart_policy(m.text("restart"))?,
        auto_remove: m.bool("rm"),
        volume_driver: m.text("volume-driver").to_owned(),
        volumes_from: some_owned(&m.list("volumes-from")),
        console_size: Pair([0, 0]),
        annotations: some_map(annotations),
        cap_add: capabilities("cap-add"),
        cap_drop: capabilities("cap-drop"),
        cgroupns_mode: m.text("cgroupns").to_owned(),
        dns: Some(owned(&m.list("dns"))),
        dns_options: Some(owned(&dns_options)),
        dns_search: Some(owned(&m.list("dns-search"))),
        extra_hosts: some(m.list("add-host").iter().map(|h| check::extra_host_line(h)).collect()),
        group_add: some_owned(&m.list("group-add")),
        ipc_mode: m.text("ipc").to_owned(),
        links: some_owned(&m.list("link")),
        oom_score_adj: m.int("oom-score-adj"),
        pid_mode: m.text("pid").to_owned(),
        privileged: m.bool("privileged"),
        publish_all_ports: m.bool("publish-all"),
        readonly_rootfs: m.bool("read-only"),
        security_opt: some(security),
        storage_opt: some_map(map_of(storage)),
        tmpfs: some_map(tmpfs),
        uts_mode: m.text("uts").to_owned(),
        userns_mode: m.text("userns").to_owned(),
        shm_size: m.bytes("shm-size"),
        sysctls: some_map(map_of(m.list("sysctl"))),
        runtime: m.text("runtime").to_owned(),
        isolation: m.text("isolation").to_owned(),
        mounts: if mounts.is_empty() { None } else { Some(mounts) },
        masked_paths: masked,
        readonly_paths: readonly,
        init: m.changed("init").then(|| m.bool("init")),
        ..HostConfig::default()
    })
}

/// Writes a capability in full: `CAP_NET_ADMIN`; `ALL` stays.
fn capability(name: &str) -> String {
    let upper = name.trim().to_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

fn container_of(mode: &str) -> bool {
    mode.strip_prefix("container:").is_some_and(|c| !c.is_empty())
}

fn resources(m: &Matches, host: &mut HostConfig) -> Result<(), String> {
    let rates = |flag: &str, bytes| -> Result<_, String> {
        m.list(flag).iter().map(|t| resource::parse_rate(t, bytes)).collect::<Result<Vec<_>, _>>().map(Some)
    };
    host.blkio_weight = u16::try_from(m.int("blkio-weight")).unwrap_or(0);
    host.blkio_weight_device =
        Some(m.list("blkio-weight-device").iter().map(|t| resource::parse_weight(t)).collect::<Result<_, _>>()?);
    host.blkio_device_read_bps = rates("device-read-bps", true)?;
    host.blkio_device_write_bps = rates("device-write-bps", true)?;
    host.blkio_device_read_iops = rates("device-read-iops", false)?;
    host.blkio_device_write_iops = rates("device-write-iops", false)?;
    host.cgroup_parent = m.text("cgroup-parent").to_owned();
    host.memory = m.bytes("memory");
    host.memory_reservation = m.bytes("memory-reservation");
    host.memory_swap = m.bytes("memory-swap");
    host.memory_swappiness = Some(m.int("memory-swappiness"));
    host.oom_kill_disable = Some(m.bool("oom-kill-disable"));
    host.nano_cpus = if m.changed("cpus") { value::parse_nano(m.text("cpus"))? } else { 0 };
    host.cpu_count = m.int("cpu-count");
    host.cpu_percent = m.int("cpu-percent");
    host.cpu_shares = m.int("cpu-shares");
    host.cpu_period = m.int("cpu-period");
    host.cpu_quota = m.int("cpu-quota");
    host.cpu_realtime_period = m.int("cpu-rt-period");
    host.cpu_realtime_runtime = m.int("cpu-rt-runtime");
    host.cpuset_cpus = m.text("cpuset-cpus").to_owned();
    host.cpuset_mems = m.text("cpuset-mems").to_owned();
    host.pids_limit = Some(m.int("pids-limit"));
    host.io_maximum_iops = u64::try_from(m.int("io-maxiops")).unwrap_or(0);
    host.io_maximum_bandwidth = u64::try_from(m.bytes("io-maxbandwidth")).unwrap_or(0);
    host.device_cgroup_rules = some_owned(&m.list("device-cgroup-rule"));
    // Of several limits of one name the last counts; Docker's order is by name.
    let mut ulimits = BTreeMap::new();
    for text in m.list("ulimit") {
        let u = resource::parse_ulimit(text)?;
        ulimits.insert(u.name.clone(), u);
    }
    host.ulimits = Some(ulimits.into_values().collect());
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for text in m.list("device") {
        if device::is_cdi(text) {
            cdi.push(text.to_owned());
        } else {
            devices.push(device::parse(text)?);
        }
    }
    host.devices = Some(devices);
    let mut requests = m.list("gpus").iter().map(|g| device::parse_gpus(g)).collect::<Result<Vec<_>, _>>()?;
    if !cdi.is_empty() {
        requests.push(DeviceRequest { driver: "cdi".into(), device_ids: Some(cdi), ..DeviceRequest::default() });
    }
    host.device_requests = if requests.is_empty() { None } else { Some(requests) };
    Ok(())
}

/// Reads `--restart`, `policy[:count]`.
///
/// # Errors
/// Docker's text.
pub fn restart_policy(text: &str) -> Result<RestartPolicy, Exit> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    if !text.is_empty() && name.is_empty() {
        return Err(Exit::new("invalid restart policy format: no policy provided before colon"));
    }
    let maximum_retry_count = match count {
        Some(c) => {
            c.parse().map_err(|_| Exit::new("invalid restart policy format: maximum retry count must be an integer"))?
        }
        None => 0,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn logging(m: &Matches) -> Result<LogConfig, Exit> {
    let (driver, options) = (m.text("log-driver"), m.list("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(Exit::new(format!("invalid logging opts for driver {driver}")));
    }
    Ok(LogConfig { r#type: driver.to_owned(), config: Some(map_of(options)) })
}

type Security = (Vec<String>, Option<Vec<String>>, Option<Vec<String>>);

/// Reads `--security-opt`: a seccomp profile is sent as its text; `systempaths=unconfined` lifts the masks.
fn security(m: &Matches) -> Result<Security, Exit> {
    let (mut options, mut paths) = (Vec::new(), None);
    for text in m.list("security-opt") {
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        let Some((key, value)) = pair else {
            if text == "no-new-privileges" {
                options.push(text.to_owned());
                continue;
            }
            return Err(Exit::new(format!("invalid --security-opt: {}", value::quoted(text))));
        };
        match (key, value) {
            ("systempaths", "unconfined") => paths = Some(Vec::new()),
            ("seccomp", "unconfined" | "builtin") => options.push(text.to_owned()),
            ("seccomp", file) => {
                let bytes = std::fs::read(file).map_err(|e| {
                    Exit::new(format!("opening seccomp profile ({file}) failed: open {file}: {}", go_text(&e)))
                })?;
                let profile: &serde_json::value::RawValue = serde_json::from_slice(&bytes)
                    .map_err(|e| Exit::new(format!("compacting json for seccomp profile ({file}) failed: {e}")))?;
                options.push(format!("seccomp={}", crate::format::json::compact(profile.get())));
            }
            _ => options.push(text.to_owned()),
        }
    }
    Ok((options, paths.clone(), paths))
}
