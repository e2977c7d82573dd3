//! From a container's configuration to its OCI runtime configuration: pure but for looking at device nodes
//! and at the daemon's own capabilities.

mod cdi;
mod devices;
mod mounts;
mod process;
mod resources;
mod security;

pub use security::{MASKED, READONLY};

use std::collections::BTreeMap;
use std::path::PathBuf;

use wharf_api_types::{ContainerConfig, HostConfig};
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime::{IdMapping, Linux, Namespace, NamespaceType, Root, Spec};
use wharf_types::{IdMaps, IdRange};

use crate::cgroups;
use crate::config::EngineConfig;
use crate::create::mounts::{MountError, Point};

pub use process::{ExecInput, exec_process};
pub use resources::{linux_resources, of_update};

/// A container that cannot be started as configured. Docker's texts.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum SpecError {
    #[error("error gathering device information while adding custom device {path:?}: {}", lower(.error))]
    Device { path: String, error: std::io::Error },
    #[error("error gathering device information while adding custom device {0:?}: not a device node")]
    NotADevice(String),
    #[error("invalid device cgroup rule format: '{0}'")]
    DeviceRule(String),
    #[error("stat {path}: {}", lower(.error))]
    BlockDevice { path: String, error: std::io::Error },
    #[error("could not select device driver {driver:?} with capabilities: [{}]", capabilities.iter().map(|c| format!("[{}]", c.join(" "))).collect::<Vec<_>>().join(" "))]
    DeviceDriver { driver: String, capabilities: Vec<Vec<String>> },
    #[error("CDI device injection failed: unresolvable CDI devices {0}")]
    CdiDevices(String),
    #[error("Decoding seccomp profile failed: {0}")]
    SeccompProfile(String),
    #[error("{0} is not supported by this host's kernel")]
    Label(&'static str),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("--init needs the program docker-init; name it with dockerd's --init-path")]
    NoInit,
}

/// Go's texts of common errno values, which clients of Docker see.
pub(crate) fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

impl HasKind for SpecError {
    fn kind(&self) -> Kind {
        match self {
            // moby leaves all of these unclassified at start: status 500.
            SpecError::Device { .. }
            | SpecError::NotADevice(_)
            | SpecError::DeviceRule(_)
            | SpecError::BlockDevice { .. }
            | SpecError::DeviceDriver { .. }
            | SpecError::CdiDevices(_)
            | SpecError::SeccompProfile(_)
            | SpecError::Label(_)
            | SpecError::Mount(_)
            | SpecError::NoInit => Kind::System,
        }
    }
}

/// Numeric identity of a process, looked up in the container's own passwd and group files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder, if the passwd file has one.
    pub home: Option<String>,
}

/// How a container gets its network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// The host's.
    Host,
    /// One that is joined: the prepared one, `/proc/self/fd/5` of the shim, or another container's.
    Join(PathBuf),
}

/// What the configuration is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The engine.
    pub engine: &'a EngineConfig,
    /// The container's id.
    pub id: &'a str,
    /// The container's configuration, merged with the image's.
    pub config: &'a ContainerConfig,
    /// The host's part.
    pub host: &'a HostConfig,
    /// Command and arguments, entrypoint first.
    pub args: Vec<String>,
    /// Who runs it.
    pub identity: &'a Identity,
    /// Mount points.
    pub points: &'a [Point],
    /// What is mounted at each point: a path of the host, empty for memory.
    pub sources: &'a [PathBuf],
    /// Whether the kernel can make a tree of mounts read-only.
    pub recursive_read_only: bool,
    /// The network namespace.
    pub net: Net,
    /// Namespaces of other containers that are joined: ipc, pid.
    pub joined: &'a [(NamespaceType, PathBuf)],
    /// The user namespace of a container whose other namespaces are joined.
    pub users: Option<PathBuf>,
    /// Host's name for `--uts host` and `--network host`.
    pub host_name: &'a str,
    /// The container's files: hosts, hostname, resolv.conf. `None` for those that are not mounted.
    pub files: &'a Files,
    /// Whether the host's hierarchies are cgroup v2 only.
    pub cgroup_v2: bool,
}

/// The files that the engine writes for a container; absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// /etc/resolv.conf
    pub resolv_conf: Option<PathBuf>,
    /// /etc/hostname
    pub hostname: Option<PathBuf>,
    /// /etc/hosts
    pub hosts: Option<PathBuf>,
    /// /dev/shm of another container, as the shim has it: a descriptor of a mount that is moved into place.
    pub shm: Option<PathBuf>,
}

/// Makes the configuration.
pub fn build(input: &Input<'_>) -> Result<Spec, SpecError> {
    let host = input.host;
    let uts_host = host.uts_mode == "host";
    let hostname = match (uts_host, input.config.hostname.as_str()) {
        (true, _) => None,
        (false, "") => Some(input.host_name.to_owned()),
        (false, name) => Some(name.to_owned()),
    };
    let mut resources = linux_resources(host)?;
    let device_nodes = devices::add(host, &mut resources)?;
    let (masked, readonly) = security::hidden_paths(host);
    let capabilities = security::capabilities(host);
    let linux = Linux {
        sysctl: sysctls(input),
        resources: Some(resources),
        cgroups_path: Some(cgroups::path(input.engine, &input.host.cgroup_parent, input.id)),
        namespaces: namespaces(input),
        uid_mappings: mappings(input, |users| &users.uids),
        gid_mappings: mappings(input, |users| &users.gids),
        devices: device_nodes,
        seccomp: security::seccomp(input, &capabilities)?,
        rootfs_propagation: mounts::root_propagation(input.points),
        masked_paths: masked,
        readonly_paths: readonly,
        ..Linux::default()
    };
    let domain = Some(input.config.domainname.clone()).filter(|d| !d.is_empty() && !uts_host);
    let mut spec = Spec {
        oci_version: "1.2.1".to_owned(),
        process: Some(process::first(input, capabilities)?),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: host.readonly_rootfs }),
        hostname,
        domainname: domain,
        mounts: mounts::all(input)?,
        hooks: None,
        annotations: host.annotations.clone().unwrap_or_default(),
        linux: Some(linux),
    };
    cdi::inject(host.device_requests.as_deref().unwrap_or_default(), &input.engine.cdi_spec_dirs, &mut spec)?;
    Ok(spec)
}

fn namespaces(input: &Input<'_>) -> Vec<Namespace> {
    let host = input.host;
    let fresh = |kind| Namespace { kind, path: None };
    let mut list = vec![fresh(NamespaceType::Mount)];
    if input.engine.users_of(input.host).is_some() {
        // Where another's network, IPC or PID namespace is joined, the user namespace that it belongs to is, too (moby).
        list.push(Namespace { kind: NamespaceType::User, path: input.users.clone() });
    }
    match &input.net {
        Net::Host => {}
        Net::Join(path) => list.push(Namespace { kind: NamespaceType::Network, path: Some(path.clone()) }),
    }
    if host.uts_mode != "host" {
        list.push(fresh(NamespaceType::Uts));
    }
    for (kind, mode) in [(NamespaceType::Pid, &host.pid_mode), (NamespaceType::Ipc, &host.ipc_mode)] {
        let joined = input.joined.iter().find(|(k, _)| *k == kind).map(|(_, path)| path.clone());
        if mode != "host" {
            list.push(Namespace { kind, path: joined });
        }
    }
    let private = match host.cgroupns_mode.as_str() {
        "" => input.engine.cgroupns_mode == "private",
        mode => mode == "private",
    };
    if private {
        list.push(fresh(NamespaceType::Cgroup));
    }
    list
}

/// The ids of the container's user namespace.
fn mappings(input: &Input<'_>, of: fn(&IdMaps) -> &Vec<IdRange>) -> Vec<IdMapping> {
    let ranges = input.engine.users_of(input.host).map(of).into_iter().flatten();
    let mapping = |r: &IdRange| IdMapping { container_id: r.inside, host_id: r.outside, size: r.count };
    ranges.map(mapping).collect()
}

/// Only what is asked for: a prepared network namespace has Docker's defaults already (wharf-network sets them).
fn sysctls(input: &Input<'_>) -> BTreeMap<String, String> {
    input.host.sysctls.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
