//! Settings as the engine's and the network's configuration: every text parsed and checked before anything is touched.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use wharf_api_types::Ulimit;
use wharf_engine::config::{EngineConfig, Live, Reloadable, SeccompDefault};
use wharf_network::{BridgeConfig, Cidr, NetworkConfig};
use wharf_plugin::Folders;
use wharf_types::InstanceId;

use crate::settings::{Settings, SettingsError};

/// The Docker release whose behaviour is matched, plus our own as build metadata: tools that compare versions work.
pub const VERSION: &str = concat!("28.5.2+wharf.", env!("CARGO_PKG_VERSION"));
/// The newest API version.
pub const API_VERSION: &str = "1.51";
/// The oldest API version that is answered.
pub const MIN_API_VERSION: &str = "1.24";
/// The commit of the build, if the builder named it.
pub const GIT_COMMIT: &str = match option_env!("WHARF_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The time of the build, if the builder named it.
pub const BUILD_TIME: &str = match option_env!("WHARF_BUILD_TIME") {
    Some(time) => time,
    None => "",
};

fn wrong(flag: &'static str, value: &str, reason: impl ToString) -> SettingsError {
    SettingsError::Value { flag, value: value.to_owned(), reason: reason.to_string() }
}

/// One of a few words.
fn word(settings: &Settings, flag: &'static str, words: &[&'static str]) -> Result<&'static str, SettingsError> {
    let value = settings.text(flag);
    let known = words.iter().find(|w| **w == value);
    known.copied().ok_or_else(|| wrong(flag, value, format!("expected one of: {}", words.join(", "))))
}

fn addresses(settings: &Settings, flag: &'static str) -> Result<Vec<IpAddr>, SettingsError> {
    let parse = |text: &String| text.parse().map_err(|_| wrong(flag, text, format!("invalid IP address: {text}")));
    settings.list(flag).iter().map(parse).collect()
}

fn cidr(settings: &Settings, flag: &'static str) -> Result<Option<Cidr>, SettingsError> {
    settings.parsed(flag, |text| text.parse::<Cidr>())
}

/// What the default bridge is to be; none with `--bridge none`.
fn bridge(settings: &Settings) -> Result<Option<BridgeConfig>, SettingsError> {
    let name = settings.given("bridge").unwrap_or("docker0");
    if name == "none" {
        return Ok(None);
    }
    if name.len() > 15 {
        return Err(wrong("bridge", name, "the name of a link has at most 15 characters"));
    }
    let mtu = settings.number("mtu");
    let mtu = u32::try_from(mtu).map_err(|_| wrong("mtu", &mtu.to_string(), "invalid default MTU"))?;
    let binding = settings.parsed("ip", str::parse::<IpAddr>)?;
    Ok(Some(BridgeConfig {
        create: settings.switch("bridge-create"),
        bip: cidr(settings, "bip")?,
        fixed_cidr: cidr(settings, "fixed-cidr")?,
        default_gateway: settings.parsed("default-gateway", str::parse)?,
        ipv6: settings.switch("ipv6"),
        bip6: cidr(settings, "bip6")?,
        fixed_cidr_v6: cidr(settings, "fixed-cidr-v6")?,
        default_gateway_v6: settings.parsed("default-gateway-v6", str::parse)?,
        icc: settings.switch("icc"),
        ip_masq: settings.switch("ip-masq"),
        mtu,
        host_binding: binding.filter(|ip| !ip.is_unspecified()),
        ..BridgeConfig::new(name)
    }))
}

/// The network's configuration.
pub fn network(settings: &Settings, instance: &InstanceId) -> Result<NetworkConfig, SettingsError> {
    let mut config = NetworkConfig::new(instance.clone());
    config.bridge = bridge(settings)?;
    if let Some(table) = settings.given("firewall-table") {
        config.table = table.to_owned();
    }
    config.ip_forward = settings.switch("ip-forward");
    config.iptables = settings.switch("iptables");
    config.ip6tables = settings.switch("ip6tables");
    let pool = settings.number("sandbox-pool");
    config.pool_size =
        usize::try_from(pool).map_err(|_| wrong("sandbox-pool", &pool.to_string(), "must not be negative"))?;
    Ok(config)
}

/// `nofile=1024:2048` or `nofile=1024`, as docker's `--ulimit`.
fn ulimits(settings: &Settings) -> Result<Vec<Ulimit>, SettingsError> {
    let map = settings.map("default-ulimit");
    let parse = |(name, text): (&String, &String)| {
        let bad = || wrong("default-ulimit", &format!("{name}={text}"), "expected name=soft[:hard]");
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let soft = soft.parse().map_err(|_| bad())?;
        let hard = hard.parse().map_err(|_| bad())?;
        Ok(Ulimit { name: name.clone(), soft, hard })
    };
    map.iter().map(parse).collect()
}

/// A size in bytes with Docker's units (`64m`, `1g`; powers of 1024).
fn bytes(flag: &'static str, text: &str) -> Result<i64, SettingsError> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let shift = match lower.chars().last() {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { lower } else { &lower[..lower.len() - 1] };
    let number: Option<i64> = digits.trim().parse().ok();
    number.and_then(|n| n.checked_mul(1 << shift)).filter(|n| *n >= 0).ok_or_else(|| wrong(flag, text, "invalid size"))
}

fn seccomp(settings: &Settings) -> Result<SeccompDefault, SettingsError> {
    match settings.text("seccomp-profile") {
        "builtin" | "" => Ok(SeccompDefault::Builtin),
        "unconfined" => Ok(SeccompDefault::Unconfined),
        path => {
            let text = std::fs::read_to_string(path).map_err(|e| wrong("seccomp-profile", path, e))?;
            let profile = serde_json::from_str(&text).map_err(|e| wrong("seccomp-profile", path, e))?;
            Ok(SeccompDefault::Profile(profile))
        }
    }
}

/// Finds a program of ours: as the flag says, else beside this executable.
fn beside(settings: &Settings, flag: &'static str, name: &str) -> Result<PathBuf, SettingsError> {
    if let Some(path) = settings.given(flag) {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().map_err(|e| wrong(flag, "", e))?;
    Ok(own.parent().unwrap_or(Path::new("/")).join(name))
}

/// The shim program.
pub fn shim(settings: &Settings) -> Result<PathBuf, SettingsError> {
    let path = beside(settings, "shim", "wharf-shim")?;
    if path.is_file() { Ok(path) } else { Err(wrong("shim", &path.display().to_string(), "no such file")) }
}

/// Where plugins are looked for: Docker's folders, or those of `--plugin-dir`, which then hold sockets and
/// specifications alike.
pub fn plugin_folders(settings: &Settings) -> Folders {
    let own: Vec<PathBuf> = settings.list("plugin-dir").iter().map(PathBuf::from).collect();
    if own.is_empty() { Folders::default() } else { Folders { sockets: own.clone(), specifications: own } }
}

/// The cgroup driver is cgroupfs; systemd's comes with a later version.
fn check_exec_options(settings: &Settings) -> Result<(), SettingsError> {
    for option in settings.list("exec-opt") {
        match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs")) => {}
            Some(("native.cgroupdriver", "systemd")) => {
                return Err(SettingsError::Later { flag: "exec-opt native.cgroupdriver=systemd" });
            }
            _ => return Err(wrong("exec-opt", option, "expected native.cgroupdriver=cgroupfs")),
        }
    }
    Ok(())
}

/// A folder as an absolute path: shims and their containers have other working directories.
pub fn folder(settings: &Settings, flag: &'static str) -> Result<PathBuf, SettingsError> {
    let text = settings.text(flag);
    std::path::absolute(text).map_err(|e| wrong(flag, text, e))
}

/// The registries' configuration.
pub fn registries(settings: &Settings) -> Result<wharf_distribution::Config, SettingsError> {
    let count = |flag: &'static str, least: i64| {
        let number = settings.number(flag);
        let fits = usize::try_from(number).ok().filter(|_| number >= least);
        fits.ok_or_else(|| wrong(flag, &number.to_string(), format!("invalid {}: {number}", flag.replace('-', " "))))
    };
    let mut mirrors = Vec::new();
    for mirror in settings.list("registry-mirror") {
        let url = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
        let bare = url.filter(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
        bare.ok_or_else(|| wrong("registry-mirror", mirror, format!("invalid mirror: {mirror:?} is not a valid URI")))?;
        mirrors.push(mirror.clone());
    }
    let proxies = wharf_distribution::Proxies {
        http: settings.text("http-proxy").to_owned(),
        https: settings.text("https-proxy").to_owned(),
        no_proxy: settings.text("no-proxy").to_owned(),
    };
    Ok(wharf_distribution::Config {
        mirrors,
        insecure: settings.list("insecure-registry").to_vec(),
        certificates: PathBuf::from(settings.text("registry-certs")),
        proxies: proxies.or_environment(|name| std::env::var(name).ok()),
        downloads: count("max-concurrent-downloads", 1)?,
        uploads: count("max-concurrent-uploads", 1)?,
        attempts: count("max-download-attempts", 1)?,
        stall: std::time::Duration::from_secs(count("registry-stall", 1)? as u64),
        agent: format!("docker/{VERSION} os/linux arch/{}", std::env::consts::ARCH),
        ..wharf_distribution::Config::default()
    })
}

/// What a reload changes.
pub fn live(settings: &Settings) -> Result<Live, SettingsError> {
    let labels = settings.list("label");
    if let Some(bad) = labels.iter().find(|l| !l.contains('=')) {
        return Err(wrong("label", bad, format!("bad attribute format: {bad}")));
    }
    let mut values = std::collections::BTreeMap::new();
    for (key, value) in labels.iter().filter_map(|l| l.split_once('=')) {
        if values.insert(key, value).is_some_and(|other| other != value) {
            return Err(wrong("label", key, format!("conflict labels for {key}")));
        }
    }
    // A negative number waits without end, as with Docker.
    let timeout = settings.number("shutdown-timeout");
    Ok(Live {
        shutdown_timeout: u64::try_from(timeout).unwrap_or(u64::MAX >> 8),
        live_restore: settings.switch("live-restore"),
        labels: labels.to_vec(),
        debug: settings.switch("debug") || settings.text("log-level") == "debug",
        runtimes: crate::runtimes::read(settings)?,
    })
}

/// The engine's configuration.
pub fn engine(settings: &Settings, instance: &InstanceId, unified: bool) -> Result<EngineConfig, SettingsError> {
    check_exec_options(settings)?;
    let cgroupns: &[&'static str] = &["host", "private"];
    let cgroupns_mode = match (settings.given("default-cgroupns-mode"), unified) {
        (Some(_), _) => word(settings, "default-cgroupns-mode", cgroupns)?,
        (None, true) => "private",
        (None, false) => "host",
    };
    let bridge = bridge(settings)?;
    let init_path = beside(settings, "init-path", "docker-init")?;
    let parent = settings.given("cgroup-parent").unwrap_or("docker");
    Ok(EngineConfig {
        data_root: folder(settings, "data-root")?,
        exec_root: folder(settings, "exec-root")?,
        instance: instance.clone(),
        cgroup_parent: format!("/{}", parent.trim_start_matches('/')),
        cgroupns_mode,
        ipc_mode: word(settings, "default-ipc-mode", &["private", "shareable"])?,
        shm_size: bytes("default-shm-size", settings.text("default-shm-size"))?,
        ulimits: ulimits(settings)?,
        init: settings.switch("init"),
        init_path: init_path.is_file().then_some(init_path),
        cdi_spec_dirs: cdi_folders(settings.list("cdi-spec-dir")),
        no_new_privileges: settings.switch("no-new-privileges"),
        log_driver: settings.text("log-driver").to_owned(),
        log_options: settings.map("log-opt"),
        dns: addresses(settings, "dns")?,
        dns_options: settings.list("dns-opt").to_vec(),
        dns_search: settings.list("dns-search").to_vec(),
        host_gateway: addresses(settings, "host-gateway-ip")?,
        live: Reloadable::new(live(settings)?),
        seccomp: seccomp(settings)?,
        experimental: settings.switch("experimental"),
        insecure_registries: settings.list("insecure-registry").to_vec(),
        bridge: bridge.map(|b| b.name).unwrap_or_default(),
        icc: settings.switch("icc"),
        ip_masq: settings.switch("ip-masq"),
        host_binding: settings.text("ip").to_owned(),
        version: VERSION.to_owned(),
        storage_size: storage_size(settings)?,
        users: None,
        git_commit: GIT_COMMIT.to_owned(),
        build_time: BUILD_TIME.to_owned(),
    })
}

/// The size of `--storage-opt`; what only changes how moby's own drivers go about things has no effect.
fn storage_size(settings: &Settings) -> Result<Option<u64>, SettingsError> {
    let mut size = None;
    for option in settings.list("storage-opt") {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key.to_ascii_lowercase().as_str() {
            "overlay2.size" | "overlay.size" | "btrfs.size" => {
                let bytes = bytes("storage-opt", value)?;
                size = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
            }
            "overlay2.override_kernel_check" | "overlay.override_kernel_check" | "btrfs.min_space" => {}
            _ => return Err(wrong("storage-opt", option, format!("overlay2: unknown option {key}"))),
        }
    }
    Ok(size)
}

/// The folders named, or those of the CDI specification; one empty name switches it off.
fn cdi_folders(named: &[String]) -> Vec<PathBuf> {
    if named.is_empty() {
        return vec!["/etc/cdi".into(), "/var/run/cdi".into()];
    }
    named.iter().filter(|folder| !folder.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_units() {
        for (text, size) in [("64m", 64 << 20), ("1G", 1 << 30), ("1024", 1024), ("2kb", 2048), ("1MiB", 1 << 20)] {
            assert_eq!(bytes("default-shm-size", text).expect(text), size);
        }
        for text in ["", "m", "-1", "1x", "99999999999g"] {
            assert!(bytes("default-shm-size", text).is_err(), "{text}");
        }
    }
}
