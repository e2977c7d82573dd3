//! The engine as a whole: version, information, disk use.

use std::sync::Arc;

use wharf_api_types::{
    ComponentVersion, ContainerdInfo, ContainerdNamespaces, FirewallInfo, IndexInfo, Info, PlatformName, Plugins,
    RegistryConfig, RuntimeInfo, StringMap, SwarmInfo, Version,
};
use wharf_snapshot::Snapshotter;
use wharf_types::Timestamp;

use crate::config::{EngineConfig, Runtime, Runtimes, SeccompDefault};
use crate::container::{Registry, Status};
use crate::events::Events;

/// API versions that are spoken.
pub const API_VERSION: &str = "1.51";
/// The oldest.
pub const MIN_API_VERSION: &str = "1.24";

/// Tells about the engine.
pub struct System {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) images: Arc<wharf_image::Images>,
    pub(crate) events: Arc<Events>,
    pub(crate) cgroup_v2: bool,
    pub(crate) plugins: Arc<wharf_plugin::Plugins>,
    pub(crate) networks: Arc<wharf_network::Networks>,
}

/// Go's name of the architecture.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Processors that are online.
pub(crate) fn online_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// What an administrator must know who has rules that we can neither see nor change.
const LEGACY: &str = "WARNING: legacy iptables rules are loaded (xtables-legacy). What their FORWARD chain drops does not reach \
    containers, whatever is published: let the bridges through there, or use iptables-nft";

/// What keeps containers apart, in the form of moby's `FirewallBackend`.
pub(crate) fn firewall(networks: &wharf_network::Networks) -> FirewallInfo {
    let Some(table) = networks.table() else {
        return FirewallInfo { driver: "none".to_owned(), info: None };
    };
    let firewalld = networks.firewalld();
    let driver = if firewalld.here { "nftables+firewalld" } else { "nftables" };
    let mut info = vec![["Table".to_owned(), format!("inet {table}")]];
    if let Some(at) = firewalld.reloaded.filter(|_| firewalld.here) {
        info.push(["ReloadedAt".to_owned(), at.to_string()]);
    }
    FirewallInfo { driver: driver.to_owned(), info: Some(info) }
}

/// Our own and those that plugins brought, sorted.
fn with(own: &[&str], more: Vec<String>) -> Vec<String> {
    let mut all = texts(own);
    all.extend(more);
    all.sort();
    all
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

impl System {
    /// Who this is.
    pub fn version(&self) -> Version {
        let config = &self.config;
        let details = [
            ("ApiVersion", API_VERSION.to_owned()),
            ("Arch", go_arch().to_owned()),
            ("BuildTime", config.build_time.clone()),
            ("Experimental", config.experimental.to_string()),
            ("GitCommit", config.git_commit.clone()),
            ("GoVersion", "none".to_owned()),
            ("KernelVersion", kernel()),
            ("MinAPIVersion", MIN_API_VERSION.to_owned()),
            ("Os", "linux".to_owned()),
        ];
        let own = |name: &str| ComponentVersion {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details: Some(StringMap::from([("GitCommit".to_owned(), config.git_commit.clone())])),
        };
        let engine = ComponentVersion {
            name: "Engine".to_owned(),
            version: config.version.clone(),
            details: Some(details.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        };
        Version {
            platform: PlatformName { name: "Wharf Engine".to_owned() },
            components: vec![engine, own("wharf-shim"), own("wharf-runtime"), own("docker-init")],
            version: config.version.clone(),
            api_version: API_VERSION.to_owned(),
            min_api_version: MIN_API_VERSION.to_owned(),
            git_commit: config.git_commit.clone(),
            go_version: "none".to_owned(),
            os: "linux".to_owned(),
            arch: go_arch().to_owned(),
            kernel_version: kernel(),
            experimental: config.experimental,
            build_time: config.build_time.clone(),
        }
    }

    /// The storage driver's name, as clients see it.
    pub fn storage_driver(&self) -> &str {
        self.snapshots.name()
    }

    /// What the engine has and how it is set up.
    pub fn info(&self) -> Info {
        let config = &self.config;
        let views: Vec<_> = self.registry.all().iter().map(|c| c.view()).collect();
        let count = |test: &dyn Fn(Status) -> bool| views.iter().filter(|v| test(v.state.status)).count() as i64;
        let memory = rustix::system::sysinfo();
        let host = rustix::system::uname();
        let builtin = matches!(config.seccomp, SeccompDefault::Builtin);
        let profile = if builtin { "builtin" } else { "custom" };
        let mut security = Vec::new();
        if config.seccomp != SeccompDefault::Unconfined {
            security.push(format!("name=seccomp,profile={profile}"));
        }
        if config.users.is_some() {
            security.push("name=userns".to_owned());
        }
        if config.cgroupns_mode == "private" {
            security.push("name=cgroupns".to_owned());
        }
        if config.no_new_privileges {
            security.push("name=no-new-privileges".to_owned());
        }
        Info {
            id: instance_uuid(config.instance.as_str()),
            containers: views.len() as i64,
            containers_running: count(&|s| s == Status::Running),
            containers_paused: count(&|s| s == Status::Paused),
            containers_stopped: count(&|s| !s.is_running()),
            images: self
                .images
                .list(&wharf_image::Filters::default(), wharf_image::More::default())
                .map_or(0, |l| l.len() as i64),
            driver: self.snapshots.name().to_owned(),
            driver_status: vec![["driver-type".to_owned(), "io.containerd.snapshotter.v1".to_owned()]],
            plugins: Plugins {
                volume: Some(with(&["local"], self.plugins.activated(wharf_plugin::volume::CAPABILITY))),
                network: Some(with(
                    &["bridge", "host", "macvlan", "null"],
                    self.plugins.activated(wharf_plugin::network::CAPABILITY),
                )),
                authorization: None,
                log: Some(texts(&["fluentd", "gelf", "journald", "json-file", "local", "splunk", "syslog"])),
            },
            memory_limit: true,
            swap_limit: true,
            kernel_memory_tcp: !self.cgroup_v2,
            cpu_cfs_period: true,
            cpu_cfs_quota: true,
            cpu_shares: true,
            cpu_set: true,
            pids_limit: true,
            ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|t| t.trim() == "1"),
            debug: config.live.get().debug,
            n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |d| d.count() as i64),
            oom_kill_disable: !self.cgroup_v2,
            n_goroutines: std::fs::read_dir("/proc/self/task").map_or(0, |d| d.count() as i64),
            system_time: Timestamp::now().to_string(),
            logging_driver: config.log_driver.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if self.cgroup_v2 { "2" } else { "1" }.to_owned(),
            n_events_listener: self.events.listeners() as i64,
            kernel_version: host.release().to_string_lossy().into_owned(),
            operating_system: operating_system(),
            os_type: "linux".to_owned(),
            architecture: host.machine().to_string_lossy().into_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: Some(self.registries()),
            n_cpu: i64::from(online_cpus()),
            mem_total: (memory.totalram as u64 * u64::from(memory.mem_unit)) as i64,
            docker_root_dir: config.data_root.display().to_string(),
            name: host.nodename().to_string_lossy().into_owned(),
            labels: config.live.get().labels.clone(),
            experimental_build: config.experimental,
            server_version: config.version.clone(),
            runtimes: self.runtimes(),
            default_runtime: config.live.get().runtimes.default.clone(),
            swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
            live_restore_enabled: config.live.get().live_restore,
            init_binary: "docker-init".to_owned(),
            security_options: security,
            firewall_backend: Some(firewall(&self.networks)),
            warnings: self.networks.has_legacy_rules().then(|| texts(&[LEGACY])),
            cdi_spec_dirs: config.cdi_spec_dirs.iter().map(|d| d.display().to_string()).collect(),
            containerd: Some(ContainerdInfo {
                address: String::new(),
                namespaces: ContainerdNamespaces { containers: "moby".to_owned(), plugins: "plugins.moby".to_owned() },
            }),
            ..Info::default()
        }
    }

    fn registries(&self) -> RegistryConfig {
        let mut cidrs = texts(&["::1/128", "127.0.0.0/8"]);
        let mut indexes = std::collections::BTreeMap::new();
        let index =
            |name: &str, official, secure| IndexInfo { mirrors: Vec::new(), name: name.to_owned(), official, secure };
        indexes.insert("docker.io".to_owned(), index("docker.io", true, true));
        for registry in &self.config.insecure_registries {
            if registry.contains('/') {
                cidrs.push(registry.clone());
            } else {
                indexes.insert(registry.clone(), index(registry, false, false));
            }
        }
        RegistryConfig { index_configs: indexes, insecure_registry_cidrs: cidrs, mirrors: None }
    }

    fn runtimes(&self) -> std::collections::BTreeMap<String, RuntimeInfo> {
        let runtimes = &self.config.live.get().runtimes;
        // Our own third name is shown where it is the default only, so that lists look as Docker's.
        let own = Runtimes::OWN.iter().filter(|name| **name != "wharf" || runtimes.default == **name).map(|name| {
            let path = "wharf-runtime".to_owned();
            ((*name).to_owned(), RuntimeInfo { path, ..RuntimeInfo::default() })
        });
        let others = runtimes.others.iter().map(|(name, runtime)| {
            let Runtime { path, args, kind } = runtime.clone();
            let runtime_args = Some(args).filter(|args| !args.is_empty());
            (name.clone(), RuntimeInfo { path, runtime_args, runtime_type: kind, ..RuntimeInfo::default() })
        });
        own.chain(others).collect()
    }
}

/// The engine's id in the form that clients know, a UUID made of the instance id.
fn instance_uuid(instance: &str) -> String {
    let full = crate::networks::digits(instance, "engine");
    format!("{}-{}-4{}-8{}-{}", &full[..8], &full[8..12], &full[13..16], &full[17..20], &full[20..32])
}
