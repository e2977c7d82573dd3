//! Messages of `containerd.task.v2.Task`, in the order of containerd's `shim.proto`.

use std::collections::HashMap;

use crate::{Any, Timestamp};

/// Full name of the service.
pub const SERVICE: &str = "containerd.task.v2.Task";

/// Type name of [`ExecProcessRequest::spec`].
pub const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Type name of [`UpdateTaskRequest::resources`].
pub const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Prepares a container and its first process, which then waits for Start.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateTaskRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The folder that holds `config.json`.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Mounts that make the root file system, performed in the container's mount namespace.
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    /// Whether the process has a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Where stdin comes from: empty, [`crate::shim::STDIN_KEPT`], [`crate::shim::STDIN_ONCE`] or a FIFO.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// A FIFO for output, or empty for attached clients and the spool.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// A FIFO for errors, or empty.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// A checkpoint to restore: the folder of its images.
    #[prost(string, tag = "8")]
    pub checkpoint: String,
    /// Its parent; not used, as CRIU finds it by the images.
    #[prost(string, tag = "9")]
    pub parent_checkpoint: String,
    /// Runtime options.
    #[prost(message, optional, tag = "10")]
    pub options: Option<Any>,
}

/// The answer to [`CreateTaskRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CreateTaskResponse {
    /// Process id on the host.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// Releases what a stopped process left: its cgroup and its place in the table.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// The answer to [`DeleteRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DeleteResponse {
    /// Process id on the host.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Exit code, or 128 + signal.
    #[prost(uint32, tag = "2")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "3")]
    pub exited_at: Option<Timestamp>,
}

/// Prepares a further process in the container; Start runs it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExecProcessRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Whether the process has a terminal.
    #[prost(bool, tag = "3")]
    pub terminal: bool,
    /// Where stdin comes from: empty, [`crate::shim::STDIN_KEPT`], [`crate::shim::STDIN_ONCE`] or a FIFO.
    #[prost(string, tag = "4")]
    pub stdin: String,
    /// A FIFO for output, or empty for attached clients and the spool.
    #[prost(string, tag = "5")]
    pub stdout: String,
    /// A FIFO for errors, or empty.
    #[prost(string, tag = "6")]
    pub stderr: String,
    /// An OCI `process` document in JSON.
    #[prost(message, optional, tag = "7")]
    pub spec: Option<Any>,
}

/// Sets the size of a process's terminal.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResizePtyRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Columns.
    #[prost(uint32, tag = "3")]
    pub width: u32,
    /// Rows.
    #[prost(uint32, tag = "4")]
    pub height: u32,
}

/// Asks for a process's state.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StateRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// The answer to [`StateRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StateResponse {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The folder that holds `config.json`.
    #[prost(string, tag = "2")]
    pub bundle: String,
    /// Process id on the host.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Its state.
    #[prost(enumeration = "Status", tag = "4")]
    pub status: i32,
    /// Where stdin comes from: empty, [`crate::shim::STDIN_KEPT`], [`crate::shim::STDIN_ONCE`] or a FIFO.
    #[prost(string, tag = "5")]
    pub stdin: String,
    /// A FIFO for output, or empty for attached clients and the spool.
    #[prost(string, tag = "6")]
    pub stdout: String,
    /// A FIFO for errors, or empty.
    #[prost(string, tag = "7")]
    pub stderr: String,
    /// Whether the process has a terminal.
    #[prost(bool, tag = "8")]
    pub terminal: bool,
    /// Exit code, or 128 + signal.
    #[prost(uint32, tag = "9")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "10")]
    pub exited_at: Option<Timestamp>,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "11")]
    pub exec_id: String,
}

/// Sends a signal.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KillRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Signal number.
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    /// Whether every process of the container gets it.
    #[prost(bool, tag = "4")]
    pub all: bool,
}

/// Closes a process's stdin.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CloseIORequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Whether stdin is meant.
    #[prost(bool, tag = "3")]
    pub stdin: bool,
}

/// Asks for all processes of the container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PidsRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The answer to [`PidsRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PidsResponse {
    /// The processes.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<ProcessInfo>,
}

/// Asks for a checkpoint.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CheckpointTaskRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Where to put it.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Runtime options.
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
}

/// Changes resource limits.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UpdateTaskRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// An OCI `linux.resources` document in JSON.
    #[prost(message, optional, tag = "2")]
    pub resources: Option<Any>,
    /// Annotations.
    #[prost(map = "string, string", tag = "3")]
    pub annotations: HashMap<String, String>,
}

/// Starts a prepared process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// The answer to [`StartRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StartResponse {
    /// Process id on the host.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// Answers when a process has ended and its output is in the spool.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WaitRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// The answer to [`WaitRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct WaitResponse {
    /// Exit code, or 128 + signal.
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    /// When it ended.
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Timestamp>,
    /// Extension: whether the kernel killed a process of the container for want of memory.
    #[prost(bool, tag = "1000")]
    pub oom: bool,
}

/// Asks for cgroup figures.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatsRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The answer to [`StatsRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatsResponse {
    /// The figures.
    #[prost(message, optional, tag = "1")]
    pub stats: Option<Any>,
}

/// Asks who serves this socket.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConnectRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The answer to [`ConnectRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConnectResponse {
    /// The shim's process id.
    #[prost(uint32, tag = "1")]
    pub shim_pid: u32,
    /// The container's first process.
    #[prost(uint32, tag = "2")]
    pub task_pid: u32,
    /// Version of the shim.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// Ends the shim once nothing runs and no attached client waits for output.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ShutdownRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whether to end even if clients wait.
    #[prost(bool, tag = "2")]
    pub now: bool,
}

/// Freezes the container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PauseRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Thaws the container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResumeRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    /// File system type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Source.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Where, relative to the rootfs.
    #[prost(string, tag = "3")]
    pub target: String,
    /// Flags and file-system options.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// One process of the container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessInfo {
    /// Process id on the host.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Details; unused.
    #[prost(message, optional, tag = "2")]
    pub info: Option<Any>,
}

/// State of a process: `containerd.v1.types.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Not known.
    Unknown = 0,
    /// Prepared, waiting for Start.
    Created = 1,
    /// Running.
    Running = 2,
    /// Ended.
    Stopped = 3,
    /// Frozen.
    Paused = 4,
    /// About to be frozen.
    Pausing = 5,
}

impl From<&wharf_types::Mount> for Mount {
    fn from(mount: &wharf_types::Mount) -> Self {
        Mount {
            kind: mount.kind.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        }
    }
}

impl From<Mount> for wharf_types::Mount {
    fn from(mount: Mount) -> Self {
        wharf_types::Mount { kind: mount.kind, source: mount.source, target: mount.target, options: mount.options }
    }
}
