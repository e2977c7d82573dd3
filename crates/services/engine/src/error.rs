//! Errors of the use cases.

use std::path::PathBuf;

use wharf_api_types::FilterError;
use wharf_error::{HasKind, Kind};
use wharf_types::{Failure, SignalError, Stage};

use crate::container::LookupError;
use crate::create::CreateError;
use crate::create::mounts::MountError;
use crate::identity::IdentityError;
use crate::spec::SpecError;

/// What can go wrong in a use case. Texts that clients know are Docker's.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum EngineError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("invalid filter '{key}={value}': {reason}")]
    FilterValue { key: &'static str, value: String, reason: String },
    #[error(transparent)]
    Image(#[from] wharf_image::ImageError),
    #[error(transparent)]
    Store(#[from] wharf_metadata::StoreError),
    #[error(transparent)]
    Snapshot(#[from] wharf_snapshot::SnapshotError),
    #[error(transparent)]
    Log(#[from] wharf_logs::LogError),
    #[error(transparent)]
    Task(#[from] wharf_task::TaskError),
    /// A container named by another one (`--pid container:x`, `--volumes-from`): the request is what is wrong.
    #[error("{0}")]
    Named(LookupError),
    #[error("could not get container for {name}: {error}")]
    Link { name: String, error: LookupError },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("cannot kill container: {name}: {reason}")]
    Kill { name: String, kind: Kind, reason: String },
    #[error("cannot kill container: {name}: {error}")]
    KillSignal { name: String, error: SignalError },
    #[error("cannot stop container: {name}: {error}")]
    StopSignal { name: String, error: SignalError },
    #[error("invalid filter: 'type'='{0}'")]
    NetworkType(String),
    #[error(transparent)]
    Signal(#[from] SignalError),
    #[error("container {0} is already running")]
    AlreadyRunning(String),
    #[error("container {0} is already stopped")]
    AlreadyStopped(String),
    #[error("cannot start a paused container, try unpause instead")]
    StartPaused,
    #[error("container is marked for removal and cannot be started")]
    StartRemoved,
    #[error("checkpoint is only supported in experimental mode")]
    CheckpointExperimental,
    #[error("custom checkpointdir is not supported")]
    CheckpointFolder,
    #[error("Invalid checkpoint ID ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    CheckpointName(String),
    #[error(
        "cannot checkpoint container {name}: checkpoint with name {checkpoint} already exists for container {name}"
    )]
    CheckpointExists { name: String, checkpoint: String },
    #[error("checkpoint {checkpoint} does not exist for container {name}")]
    NoCheckpoint { name: String, checkpoint: String },
    /// The words around the reason are those of containerd's client of runc, which people look for.
    #[error(
        "Cannot checkpoint container {name}: runc did not terminate successfully: exit status 1: {reason} path= {}",
        log.display()
    )]
    Checkpoint { name: String, reason: String, log: PathBuf },
    #[error("{} exists and is not a directory", .0.display())]
    NoFolder(PathBuf),
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    #[error("Container {0} is not paused")]
    NotPaused(String),
    #[error("container {0} is paused, unpause the container before attach")]
    AttachPaused(String),
    #[error("container {0} is restarting, wait until the container is running before attach")]
    AttachRestarting(String),
    #[error("Container {0} is paused, unpause the container before exec")]
    ExecPaused(String),
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    #[error("cannot remove container {name:?}: container is {status}: {hint}")]
    RemoveRunning { name: String, status: &'static str, hint: &'static str },
    #[error("removal of container {0} is already in progress")]
    Removing(String),
    #[error("Renaming a container with the same name as its current name")]
    RenameSame,
    #[error("Neither old nor new names may be empty")]
    RenameEmpty,
    #[error("Error when allocating new name: {0}")]
    RenameName(Box<EngineError>),
    #[error("Cannot update container {id}: {reason}")]
    Update { id: String, reason: String },
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    UpdateAutoRemove,
    #[error("Could not find the file {path} in container {container}")]
    NoFile { path: String, container: String },
    #[error("extraction point is not a directory")]
    CopyNoFolder,
    #[error("container rootfs is marked read-only")]
    CopyRootReadOnly,
    #[error("mounted volume is marked read-only")]
    CopyMountReadOnly,
    #[error("lstat {path}: {reason}")]
    FileAccess { path: String, reason: String },
    #[error("cannot reach the container's files")]
    ContainerFiles(#[source] std::io::Error),
    #[error(transparent)]
    Archive(#[from] wharf_archive::ArchiveError),
    #[error("No such exec instance: {0}")]
    NoExec(String),
    #[error("exec {0} has already run")]
    ExecRan(String),
    #[error("exec {0} is not running")]
    ExecNotRunning(String),
    #[error("No exec command specified")]
    ExecEmpty,
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {}", reason(.0))]
    ExecFailed(Failure),
    /// The words of another runtime.
    #[error("OCI runtime exec failed: {}", reason(.0))]
    OtherExecFailed(Failure),
    #[error(transparent)]
    Capture(#[from] crate::images::CaptureError),
    #[error(transparent)]
    Distribution(#[from] wharf_distribution::DistributionError),
    /// A download that failed, of which several hear.
    #[error("{}", wharf_error::Chain(.0.as_ref()))]
    Fetch(std::sync::Arc<wharf_distribution::DistributionError>),
    #[error("failed to resolve reference \"{reference}\"")]
    Resolve {
        reference: String,
        #[source]
        source: Box<wharf_distribution::DistributionError>,
    },
    #[error("'scratch' is a reserved name")]
    ScratchReserved,
    #[error("tag does not exist: {0}")]
    NoTag(String),
    #[error("An image does not exist locally with the tag: {0}")]
    NoTags(String),
    #[error("manifest unknown: manifest unknown")]
    ManifestUnknown,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("network {0} not found")]
    NoNetwork(String),
    #[error("{0} is a pre-defined network and cannot be removed")]
    NetworkPredefined(String),
    #[error("operation is not permitted on predefined {0} network")]
    NetworkReserved(String),
    #[error("multiple networks found with the ID prefix {0}")]
    NetworkAmbiguous(String),
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    #[error("invalid name: name is empty")]
    NetworkName,
    #[error("only one instance of \"{0}\" network is allowed")]
    NetworkOne(String),
    #[error("operation not supported")]
    NetworkUnsupported,
    #[error("null ipam driver does not handle specific address pool requests")]
    NetworkNullRange,
    #[error("ipv{0} pool is empty")]
    NetworkEmptyPool(u8),
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NoManager,
    #[error("cannot create a swarm scoped network when swarm is not active")]
    NetworkSwarmScope,
    #[error("Ingress network can only be global scope network")]
    NetworkIngress,
    #[error("IPv4 or IPv6 must be enabled")]
    NetworkNoFamily,
    #[error("invalid network config:\n{0}")]
    NetworkRanges(String),
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    NetworkOverlap,
    #[error("bridge driver doesn't support multiple subnets")]
    NetworkManySubnets,
    #[error("invalid egress policy: {0}")]
    Egress(String),
    #[error("failed to parse {label} value: {value} ({reason})")]
    NetworkOption { label: String, value: String, reason: String },
    #[error("invalid MTU value: {0}")]
    NetworkMtu(i64),
    #[error("gateway mode 'isolated' can only be used for an internal network")]
    NetworkIsolated,
    #[error("requested macvlan mode '{0}' is not valid, 'bridge' mode is the macvlan driver default")]
    MacvlanMode(String),
    #[error("loopback interface is not a valid macvlan parent link")]
    MacvlanParent,
    #[error("invalid subinterface vlan name {0}, example formatting is eth0.10")]
    MacvlanVlan(String),
    #[error("cannot find network configuration for the provided network {0}")]
    NetworkTemplate(String),
    #[error("{0} is not a configuration network")]
    NetworkNoTemplate(String),
    #[error("user specified configurations are not supported if the network depends on a configuration network")]
    NetworkTemplateMixed,
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    NetworkBusy { name: String, endpoints: String },
    #[error("invalid endpoint settings:\n{0}")]
    EndpointSettings(String),
    #[error("endpoint with name {container} already exists in network {network}")]
    EndpointExists { container: String, network: String },
    #[error("endpoint {0} not found")]
    NoEndpoint(String),
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: String, network: String },
    #[error("Container {0} is marked for removal and cannot be connected or disconnected to the network")]
    ConnectRemoved(String),
    #[error("cannot connect container to host network - container must be created in host network mode")]
    ConnectHost,
    #[error("container cannot be disconnected from host network or connected to host network")]
    DisconnectHost,
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    ConnectShared,
    #[error("container cannot be connected to multiple networks with one of the networks in private (none) mode")]
    ConnectNone,
    #[error("cannot connect container to network {0}: it is a configuration network")]
    ConnectTemplate(String),
    #[error(transparent)]
    Connect(wharf_network::NetworkError),
    #[error(transparent)]
    Network(#[from] wharf_network::NetworkError),
    #[error("get {0}: no such volume")]
    NoVolume(String),
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse { name: String, users: Vec<String> },
    #[error("create {name}: {source}")]
    VolumeCreate { name: String, source: wharf_volume::VolumeError },
    #[error("{operation} {name}: {}", wharf_error::Chain(source))]
    VolumePlugin { operation: &'static str, name: String, source: wharf_plugin::PluginError },
    #[error("create {0}: volume name must be unique")]
    VolumeName(String),
    #[error("{operation} {name}: the volume is kept by a plugin")]
    VolumeOfPlugin { operation: &'static str, name: String },
    #[error(transparent)]
    VolumeUse(#[from] crate::volumes::VolumeUseError),
    #[error(transparent)]
    VolumePath(#[from] wharf_volume::VolumeError),
    #[error("a prune operation is already running")]
    PruneRunning,
    #[error("Error processing tar file: {0}")]
    Tar(String),
    #[error("error running ps: {0}")]
    Ps(String),
    #[error("Couldn't find PID field in ps output")]
    PsNoPid,
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the layer that containers of the image stand on")]
    InitLayer(#[source] wharf_archive::ArchiveError),
    #[error("{0} comes with a later release of Wharf")]
    Later(&'static str),
    #[error("the engine is shutting down")]
    ShuttingDown,
    #[error("a worker of the engine failed")]
    Worker,
}

/// An engine that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum OpenError {
    #[error("cannot make {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the host's cgroups")]
    Cgroup(#[source] wharf_cgroup::CgroupError),
    #[error(transparent)]
    Store(#[from] wharf_metadata::StoreError),
    #[error(transparent)]
    Content(#[from] wharf_content::ContentError),
    #[error(transparent)]
    Snapshot(#[from] wharf_snapshot::SnapshotError),
    #[error(transparent)]
    Image(#[from] wharf_image::ImageError),
    #[error("cannot set up the network")]
    Network(#[source] wharf_network::NetworkError),
    #[error("cannot set up the network")]
    Resolver(#[source] wharf_dns::DnsError),
    #[error("Storage option overlay2.size not supported. Filesystem does not support Project Quota (driver {0})")]
    StorageSize(&'static str),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl HasKind for OpenError {
    fn kind(&self) -> Kind {
        match self {
            OpenError::Folder { .. } | OpenError::Cgroup(_) => Kind::System,
            OpenError::StorageSize(_) => Kind::NotImplemented,
            OpenError::Store(e) => e.kind(),
            OpenError::Content(e) => e.kind(),
            OpenError::Snapshot(e) => e.kind(),
            OpenError::Image(e) => e.kind(),
            OpenError::Network(e) => e.kind(),
            OpenError::Resolver(e) => e.kind(),
            OpenError::Engine(e) => e.kind(),
        }
    }
}

/// A start that failed. The text is what Docker says of it, with the sources in a chain.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum StartError {
    #[error("failed to set up container networking")]
    Network(#[source] wharf_network::NetworkError),
    #[error("failed to set up container networking: network {0} not found")]
    NoNetwork(String),
    #[error("Cannot link to a non running container: /{name} AS /{own}/{alias}")]
    Link { name: String, own: String, alias: String },
    #[error("failed to set up container networking: network {0} is a configuration network")]
    Template(String),
    #[error("joining network namespace of container")]
    JoinNetwork(#[source] Box<EngineError>),
    #[error("cannot join the {what} namespace of container {id}: it is not running")]
    Join { what: &'static str, id: String },
    #[error("can't join IPC of container {0}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)")]
    NotShareable(String),
    #[error("cannot share /dev/shm of container {id}")]
    ShareMemory {
        id: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Snapshot(#[from] wharf_snapshot::SnapshotError),
    #[error("bad nameserver address {0}: ParseAddr(\"{0}\"): unable to parse IP")]
    NameServer(String),
    #[error("failed to create task for container: failed to initialize logging driver: {0}")]
    Log(crate::logging::LoggingError),
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: {}",
        runtime_text(.0)
    )]
    Runtime(Failure),
    /// The words of another runtime.
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: {}", reason(.0)
    )]
    OtherRuntime(Failure),
    #[error("checkpoint {checkpoint} does not exist for container /{name}")]
    NoCheckpoint { checkpoint: String, name: String },
    /// Of a start from a checkpoint.
    #[error("OCI runtime restore failed: {0}")]
    Restore(wharf_task::TaskError),
    #[error("unknown or invalid runtime name: {0}")]
    NoRuntime(String),
    #[error("failed to create task for container")]
    Task(#[source] wharf_task::TaskError),
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the root file system")]
    Root(#[source] rustix::io::Errno),
    #[error(transparent)]
    Volume(#[from] crate::volumes::VolumeUseError),
    #[error(transparent)]
    VolumePath(#[from] wharf_volume::VolumeError),
    #[error("path {path} is mounted on {mounted_on} but it is not a {wanted} mount")]
    Propagation { path: String, mounted_on: String, wanted: &'static str },
    #[error("cannot make {0} read-only with all mounts below it: the kernel cannot do that before 5.12")]
    ReadOnly(String),
    #[error("error while creating mount source path '{path}': mkdir {path}: {reason}")]
    BindSource { path: String, reason: String },
}

// Its text is part of ours, so it is no source.
impl From<crate::logging::LoggingError> for StartError {
    fn from(error: crate::logging::LoggingError) -> Self {
        Self::Log(error)
    }
}

impl StartError {
    /// The exit code that the container shows, and `docker run` with it (moby `daemon/start_unix.go`
    /// translateContainerdStartErr): 127, 126 or 128.
    pub fn exit_code(&self) -> i64 {
        match self {
            StartError::Runtime(failure) | StartError::OtherRuntime(failure) => i64::from(failure.exit_code()),
            // CRIU is missing, which moby takes for a missing command.
            StartError::Restore(e) if e.kind() == Kind::Invalid => 127,
            _ => 128,
        }
    }
}

/// Docker does not name the option whose value is wrong.
pub(crate) fn log_text(error: &wharf_logs::LogError) -> String {
    match error {
        wharf_logs::LogError::Value { text, .. } => text.clone(),
        other => wharf_error::Chain(other).to_string(),
    }
}

/// What runc would say of the failure, without naming itself.
fn runtime_text(failure: &Failure) -> String {
    format!("unable to start container process: error during container init: {}", reason(failure))
}

/// The reason in the words of runc and Go's os/exec, which clients of Docker see: the runtime words the subject.
pub(crate) fn reason(failure: &Failure) -> String {
    let errno = std::io::Error::from_raw_os_error(failure.errno);
    match failure.errno {
        0 => failure.subject.clone(),
        _ if failure.stage == Stage::CommandNotExecutable && errno.kind() == std::io::ErrorKind::IsADirectory => {
            format!("{}: is a directory: permission denied", failure.subject)
        }
        _ => format!("{}: {}", failure.subject, go_errno(&errno)),
    }
}

/// Go prints errno texts in lower case and without the number.
fn go_errno(error: &std::io::Error) -> String {
    let text = error.to_string();
    let bare = text.rfind(" (os error").map_or(text.as_str(), |i| &text[..i]);
    let mut letters = bare.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl HasKind for StartError {
    fn kind(&self) -> Kind {
        match self {
            StartError::NoNetwork(_) => Kind::NotFound,
            StartError::Template(_) => Kind::Invalid,
            StartError::NoRuntime(_) => Kind::Invalid,
            StartError::Restore(e) if e.kind() == Kind::Invalid => Kind::Invalid,
            StartError::Runtime(f) | StartError::OtherRuntime(f) => match f.stage {
                Stage::CommandNotFound | Stage::CommandNotExecutable => Kind::Invalid,
                _ => Kind::System,
            },
            StartError::Network(_)
            | StartError::NoCheckpoint { .. }
            | StartError::Restore(_)
            | StartError::Link { .. }
            | StartError::JoinNetwork(_)
            | StartError::Join { .. }
            | StartError::NotShareable(_)
            | StartError::ShareMemory { .. }
            | StartError::Spec(_)
            | StartError::Identity(_)
            | StartError::Snapshot(_)
            | StartError::NameServer(_)
            | StartError::Log(_)
            | StartError::Task(_)
            | StartError::File { .. }
            | StartError::Root(_)
            | StartError::Propagation { .. }
            | StartError::BindSource { .. } => Kind::System,
            StartError::Volume(e) => e.kind(),
            StartError::VolumePath(e) => e.kind(),
            StartError::ReadOnly(_) => Kind::Invalid,
        }
    }
}

impl HasKind for EngineError {
    fn kind(&self) -> Kind {
        match self {
            EngineError::Lookup(e) => e.kind(),
            EngineError::Create(e) => e.kind(),
            EngineError::Mount(e) => e.kind(),
            EngineError::Filter(e) => e.kind(),
            EngineError::Image(e) => e.kind(),
            EngineError::Store(e) => e.kind(),
            EngineError::Snapshot(e) => e.kind(),
            EngineError::Log(e) => e.kind(),
            EngineError::Task(e) => e.kind(),
            EngineError::Start(e) => e.kind(),
            EngineError::Capture(e) => e.kind(),
            EngineError::Distribution(e) => e.kind(),
            EngineError::Resolve { source, .. } => source.kind(),
            EngineError::Fetch(e) => e.kind(),
            EngineError::NoTag(_) | EngineError::NoTags(_) | EngineError::ManifestUnknown => Kind::NotFound,
            EngineError::ScratchReserved | EngineError::CheckpointFolder => Kind::Forbidden,
            EngineError::Identity(e) => e.kind(),
            EngineError::Kill { kind, .. } => *kind,
            EngineError::AlreadyRunning(_) | EngineError::AlreadyStopped(_) => Kind::NotModified,
            EngineError::Connect(e) | EngineError::Network(e) => e.kind(),
            EngineError::Archive(e) => e.kind(),
            EngineError::NoExec(_)
            | EngineError::NoNetwork(_)
            | EngineError::NoVolume(_)
            | EngineError::NoEndpoint(_)
            | EngineError::NoFile { .. } => Kind::NotFound,
            EngineError::NotRunning(_)
            | EngineError::StartPaused
            | EngineError::StartRemoved
            | EngineError::AlreadyPaused(_)
            | EngineError::AttachPaused(_)
            | EngineError::AttachRestarting(_)
            | EngineError::ExecPaused(_)
            | EngineError::ExecRan(_)
            | EngineError::ExecNotRunning(_)
            | EngineError::Restarting(_)
            | EngineError::RemoveRunning { .. }
            | EngineError::Removing(_)
            | EngineError::VolumeInUse { .. }
            | EngineError::PruneRunning => Kind::Conflict,
            EngineError::NetworkPredefined(_)
            | EngineError::NetworkReserved(_)
            | EngineError::NetworkOne(_)
            | EngineError::NetworkIngress
            | EngineError::NetworkOverlap
            | EngineError::NetworkBusy { .. }
            | EngineError::NotConnected { .. }
            | EngineError::ConnectHost
            | EngineError::ConnectNone
            | EngineError::ConnectShared
            | EngineError::ConnectTemplate(_)
            | EngineError::NetworkNoTemplate(_)
            | EngineError::NetworkTemplate(_)
            | EngineError::NetworkTemplateMixed
            | EngineError::EndpointExists { .. } => Kind::Forbidden,
            EngineError::NetworkExists(_) | EngineError::DisconnectHost | EngineError::ConnectRemoved(_) => {
                Kind::Conflict
            }
            EngineError::NetworkAmbiguous(_)
            | EngineError::NetworkName
            | EngineError::NetworkNoFamily
            | EngineError::NetworkRanges(_)
            | EngineError::NetworkManySubnets
            | EngineError::NetworkOption { .. }
            | EngineError::Egress(_)
            | EngineError::NetworkMtu(_)
            | EngineError::NetworkIsolated
            | EngineError::MacvlanMode(_)
            | EngineError::MacvlanParent
            | EngineError::EndpointSettings(_) => Kind::Invalid,
            EngineError::NoManager | EngineError::NetworkSwarmScope => Kind::Unavailable,
            EngineError::Named(_)
            | EngineError::CheckpointExperimental
            | EngineError::CopyNoFolder
            | EngineError::CopyRootReadOnly
            | EngineError::CopyMountReadOnly
            | EngineError::Link { .. }
            | EngineError::KillSignal { .. }
            | EngineError::Signal(_)
            | EngineError::FilterValue { .. }
            | EngineError::RenameSame
            | EngineError::UpdateAutoRemove
            | EngineError::RenameEmpty
            | EngineError::ExecEmpty
            | EngineError::ExecFailed(_)
            | EngineError::OtherExecFailed(_) => Kind::Invalid,
            EngineError::VolumeName(_) => Kind::Conflict,
            EngineError::VolumeOfPlugin { .. } => Kind::NotImplemented,
            EngineError::VolumeCreate { source, .. } => source.kind(),
            EngineError::VolumePlugin { source, .. } => source.kind(),
            EngineError::VolumeUse(e) => e.kind(),
            EngineError::VolumePath(e) => e.kind(),
            EngineError::RenameName(e) => e.kind(),
            EngineError::Later(_) => Kind::NotImplemented,
            EngineError::ShuttingDown => Kind::Unavailable,
            // A 500 in moby, which leaves these errors without a kind.
            EngineError::NotPaused(_)
            | EngineError::StopSignal { .. }
            | EngineError::CheckpointName(_)
            | EngineError::CheckpointExists { .. }
            | EngineError::NoCheckpoint { .. }
            | EngineError::Checkpoint { .. }
            | EngineError::NoFolder(_)
            | EngineError::NetworkType(_)
            | EngineError::NetworkNullRange
            | EngineError::NetworkEmptyPool(_)
            | EngineError::NetworkUnsupported
            | EngineError::MacvlanVlan(_)
            | EngineError::Update { .. }
            | EngineError::PsNoPid
            | EngineError::Tar(_)
            | EngineError::ContainerFiles(_)
            | EngineError::FileAccess { .. }
            | EngineError::Ps(_)
            | EngineError::File { .. }
            | EngineError::InitLayer(_)
            | EngineError::Worker => Kind::System,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stage: Stage, errno: i32, subject: &str) -> String {
        StartError::Runtime(Failure { stage, errno, subject: subject.to_owned() }).to_string()
    }

    #[test]
    fn failed_commands_are_told_in_dockers_words() {
        const START: &str = "failed to create task for container: failed to create shim task: OCI runtime create \
                             failed: runc create failed: unable to start container process: error during container \
                             init: ";
        for (stage, errno, subject, expected) in [
            (
                Stage::CommandNotFound,
                0,
                "exec: \"nosuch\": executable file not found in $PATH",
                "exec: \"nosuch\": executable file not found in $PATH",
            ),
            (
                Stage::CommandNotFound,
                2,
                "exec: \"/nosuch\": stat /nosuch",
                "exec: \"/nosuch\": stat /nosuch: no such file or directory",
            ),
            (Stage::CommandNotExecutable, 13, "exec: \"/etc/passwd\"", "exec: \"/etc/passwd\": permission denied"),
            (Stage::CommandNotExecutable, 21, "exec: \"/tmp\"", "exec: \"/tmp\": is a directory: permission denied"),
            (Stage::Process, 22, "sethostname", "sethostname: invalid argument"),
        ] {
            assert_eq!(text(stage, errno, subject), format!("{START}{expected}"));
        }
    }

    #[test]
    fn exit_codes_follow_from_the_stage() {
        let code = |stage| StartError::Runtime(Failure { stage, errno: 0, subject: String::new() }).exit_code();
        assert_eq!(
            (code(Stage::CommandNotFound), code(Stage::CommandNotExecutable), code(Stage::Mount)),
            (127, 126, 128)
        );
    }
}
