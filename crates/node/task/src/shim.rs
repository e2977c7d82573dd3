//! One shim: typed calls, waiting and attaching.

use std::sync::Arc;

use tokio::net::UnixStream;
use wharf_logs::Position;
use wharf_types::{ExecId, Mount, Signal, Timestamp};

use crate::TaskError;

/// Where a process's stdin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that stays open whoever attaches and leaves (`OpenStdin`).
    Kept,
    /// A pipe that is closed when an attached client ends its input (`StdinOnce`; every exec with stdin).
    Once,
}

/// What Create needs beyond the folder's `config.json`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Mounts that make the root file system.
    pub rootfs: Vec<Mount>,
    /// Whether the first process has a terminal.
    pub terminal: bool,
    /// Its stdin.
    pub stdin: Stdin,
}

/// A further process.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// Its id.
    pub exec: ExecId,
    /// The OCI `process` document, JSON.
    pub process: Vec<u8>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its stdin.
    pub stdin: Stdin,
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Sends stdin.
    pub stdin: bool,
    /// Gets stdout (with a terminal: all output).
    pub stdout: bool,
    /// Gets stderr.
    pub stderr: bool,
    /// Output from the first byte of this run instead of from now on.
    pub from_start: bool,
}

/// An attached connection.
#[derive(Debug)]
pub struct Attached {
    /// Raw from here on: stdcopy frames (plain bytes with a terminal) to the client, stdin from it. End of file means
    /// that the process is done and all was delivered.
    pub stream: UnixStream,
    /// Where in the spool the delivered output begins: read the log before it for `logs=1`. `None` without a spool.
    pub spool: Option<Position>,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// When.
    pub at: Timestamp,
    /// Whether the kernel killed a process of the container for want of memory.
    pub oom: bool,
}

/// A process's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Prepared, waiting for start.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

/// Answer to [`Shim::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Process id on the host.
    pub pid: u32,
    /// State.
    pub status: Status,
    /// Exit code, if stopped.
    pub exit_status: u32,
    /// When it stopped.
    pub exited_at: Option<Timestamp>,
}

/// A shim's client: cheap to clone, safe to share. Calls have time limits (10 s; Create, Start and Exec 120 s), so a shim
/// that is stopped or stuck holds up only its own container. `exec` is `None` for the container's first process.
#[derive(Clone, Debug)]
pub struct Shim {
    inner: Arc<()>,
}

#[allow(clippy::unimplemented, clippy::unused_async, reason = "first landing: signatures")]
#[allow(unused_variables, reason = "first landing: signatures")]
impl Shim {
    /// The shim's own process id.
    pub fn pid(&self) -> u32 {
        let _ = &self.inner;
        unimplemented!()
    }

    /// Prepares the container; its first process waits for [`Shim::start`]. Returns its pid.
    pub async fn create(&self, request: CreateRequest) -> Result<u32, TaskError> {
        unimplemented!()
    }

    /// Runs a prepared process. Returns its pid.
    pub async fn start(&self, exec: Option<&ExecId>) -> Result<u32, TaskError> {
        unimplemented!()
    }

    /// Prepares a further process.
    pub async fn exec(&self, request: ExecRequest) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Sends a signal, with `all` to every process of the container. NotFound if the process has ended.
    pub async fn kill(&self, exec: Option<&ExecId>, signal: Signal, all: bool) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Waits, without limit, until a process has ended and its output is in the spool. Survives a lost connection; if the
    /// shim is gone, its records answer, else the error is `Gone`.
    pub async fn wait(&self, exec: Option<&ExecId>) -> Result<Exit, TaskError> {
        unimplemented!()
    }

    /// A process's state.
    pub async fn state(&self, exec: Option<&ExecId>) -> Result<State, TaskError> {
        unimplemented!()
    }

    /// Process ids, on the host, of everything in the container.
    pub async fn pids(&self) -> Result<Vec<u32>, TaskError> {
        unimplemented!()
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, exec: Option<&ExecId>, columns: u16, rows: u16) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Closes a process's stdin.
    pub async fn close_stdin(&self, exec: Option<&ExecId>) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Freezes the container.
    pub async fn pause(&self) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Thaws the container.
    pub async fn resume(&self) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Changes limits: an OCI `linux.resources` document, JSON.
    pub async fn update(&self, resources: Vec<u8>) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// cgroup figures as JSON (`wharf_cgroup::Stats`).
    pub async fn stats(&self) -> Result<Vec<u8>, TaskError> {
        unimplemented!()
    }

    /// Releases a stopped process; for the first process also the container's cgroup.
    pub async fn delete(&self, exec: Option<&ExecId>) -> Result<Exit, TaskError> {
        unimplemented!()
    }

    /// Ends the shim: at once if nothing runs and no client waits for output, else after the last such client. Returns when
    /// the shim has taken note.
    pub async fn shutdown(&self) -> Result<(), TaskError> {
        unimplemented!()
    }

    /// Waits until the shim's process is gone.
    pub async fn gone(&self) {
        unimplemented!()
    }

    /// Takes part in a process's stdio.
    pub async fn attach(&self, exec: Option<&ExecId>, request: AttachRequest) -> Result<Attached, TaskError> {
        unimplemented!()
    }
}
