//! What one engine is set up with; immutable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wharf_api_types::{HostConfig, StringMap, Ulimit};
use wharf_oci::runtime::LinuxSeccomp;
use wharf_types::{IdMaps, InstanceId};

use crate::container::ContainerRecord;

/// The system call filter of containers that name none.
#[derive(Clone, Debug, PartialEq)]
pub enum SeccompDefault {
    /// Docker's default profile.
    Builtin,
    /// No filter.
    Unconfined,
    /// A profile of the administrator.
    Profile(Box<LinuxSeccomp>),
}

/// The OCI runtimes by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtimes {
    /// The name of the one for containers that name none.
    pub default: String,
    /// Those of the configuration, beside our own.
    pub others: BTreeMap<String, Runtime>,
}

/// An OCI runtime of another maker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// The program; one without slash is looked for in dockerd's `PATH`.
    pub path: String,
    /// What it is given before everything else.
    pub args: Vec<String>,
    /// The type by which it was configured, if it was not by path.
    pub kind: String,
}

impl Runtimes {
    /// Names of our own runtime: Docker's two, by which every client knows the default, and ours.
    pub const OWN: &[&str] = &["runc", "io.containerd.runc.v2", "wharf"];

    /// Whether containers may ask for it.
    pub fn has(&self, name: &str) -> bool {
        Self::OWN.contains(&name) || self.others.contains_key(name)
    }
}

/// Whether a container's runtime is ours. A record without a name is older than names.
pub fn is_own_runtime(name: &str) -> bool {
    name.is_empty() || Runtimes::OWN.contains(&name)
}

impl Default for Runtimes {
    fn default() -> Self {
        Self { default: Self::OWN[0].to_owned(), others: BTreeMap::new() }
    }
}

/// What a reload of the daemon's configuration changes while the engine runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Seconds that containers get at shutdown.
    pub shutdown_timeout: u64,
    /// Whether containers go on at shutdown.
    pub live_restore: bool,
    /// The daemon's labels.
    pub labels: Vec<String>,
    /// Whether the daemon logs at level debug.
    pub debug: bool,
    /// What containers can be run by.
    pub runtimes: Runtimes,
}

/// The present [`Live`] part; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Reloadable(Arc<ArcSwap<Live>>);

impl Reloadable {
    /// Starts with a value.
    pub fn new(live: Live) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(live)))
    }

    /// The value now.
    pub fn get(&self) -> Arc<Live> {
        self.0.load_full()
    }

    pub(crate) fn set(&self, live: Live) {
        self.0.store(Arc::new(live));
    }
}

/// What one engine is set up with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Everything that lasts.
    pub data_root: PathBuf,
    /// Run-time state.
    pub exec_root: PathBuf,
    /// Marks this engine's kernel objects.
    pub instance: InstanceId,
    /// Parent cgroup of containers that name none, absolute.
    pub cgroup_parent: String,
    /// `host` or `private`.
    pub cgroupns_mode: &'static str,
    /// `private` or `shareable`.
    pub ipc_mode: &'static str,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// Limits of containers that name none.
    pub ulimits: Vec<Ulimit>,
    /// Whether containers get an init.
    pub init: bool,
    /// The init program, if there is one.
    pub init_path: Option<PathBuf>,
    /// Folders of CDI specifications.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Whether all containers get no-new-privileges.
    pub no_new_privileges: bool,
    /// Log driver of containers that name none.
    pub log_driver: String,
    /// Log options of containers whose driver is the default.
    pub log_options: StringMap,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// DNS options.
    pub dns_options: Vec<String>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// What `host-gateway` means; empty is the bridge's own address.
    pub host_gateway: Vec<IpAddr>,
    /// What a reload changes.
    pub live: Reloadable,
    /// Default system call filter.
    pub seccomp: SeccompDefault,
    /// Whether experimental features are on.
    pub experimental: bool,
    /// Registries without TLS, as `/info` shows them.
    pub insecure_registries: Vec<String>,
    /// The bridge's name, as inspect shows it; empty if there is none.
    pub bridge: String,
    /// Whether container-to-container traffic is on, as network inspect shows it.
    pub icc: bool,
    /// Whether masquerading is on, as network inspect shows it.
    pub ip_masq: bool,
    /// Default host address of published ports, as network inspect shows it.
    pub host_binding: String,
    /// Version that clients see.
    pub version: String,
    /// The most that a container may write which says nothing else (`--storage-opt overlay2.size`).
    pub storage_size: Option<u64>,
    /// The ids of containers' user namespaces (`--userns-remap`).
    pub users: Option<IdMaps>,
    /// Commit that clients see.
    pub git_commit: String,
    /// Build time that clients see.
    pub build_time: String,
}

/// Folder below the exec root.
pub(crate) const SHOWN: &str = "shown";

impl EngineConfig {
    /// The ids of a container's user namespace, if it has one: not with `--userns host`.
    pub(crate) fn users_of(&self, host: &HostConfig) -> Option<&IdMaps> {
        self.users.as_ref().filter(|_| host.userns_mode != "host")
    }

    /// Folder of a container's files.
    pub fn container_folder(&self, id: &wharf_types::ContainerId) -> PathBuf {
        self.data_root.join("containers").join(id.as_str())
    }

    /// Folder of the files that a container sees in place of its image's: /etc/hosts, /etc/hostname and /etc/resolv.conf. Those
    /// of a container that goes when it ends stand where its record does, below the exec root.
    pub(crate) fn shown_folder(&self, record: &ContainerRecord) -> PathBuf {
        match record.host.auto_remove {
            true => self.exec_root.join(SHOWN).join(record.id.as_str()),
            false => self.container_folder(&record.id),
        }
    }
}
