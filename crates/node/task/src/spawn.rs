//! Starting shims, and finding those of an earlier dockerd again.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use wharf_types::ContainerId;

use crate::{Exit, Record, Shim, TaskError, TaskFolder};

/// All shims of one dockerd.
#[derive(Clone, Debug)]
pub struct Shims {
    binary: PathBuf,
    exec_root: PathBuf,
}

/// A listening socket whose connections are carried to an address inside the container's network, from a relay
/// process that starts with the first of them (`::1` cannot be translated by the kernel).
#[derive(Debug)]
pub struct Relay {
    /// The listening socket.
    pub listener: OwnedFd,
    /// Where connections go.
    pub to: SocketAddr,
}

/// What a shim gets at its start.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
    /// The prepared folder.
    pub folder: TaskFolder,
    /// The folder for the log, `<data-root>/containers/<id>`.
    pub log_dir: BorrowedFd<'a>,
    /// How output is kept.
    pub log: &'a wharf_logs::Config,
    /// The network namespace, if the container has one of its own prepared.
    pub netns: Option<BorrowedFd<'a>>,
    /// Sockets that are only held, for as long as the shim lives.
    pub hold: Vec<OwnedFd>,
    /// Relays.
    pub relays: Vec<Relay>,
}

/// What is left of a container that an earlier dockerd started.
#[derive(Debug)]
pub enum Adopted {
    /// Its shim answers; `exit` is there if its first process has ended, `started` if it was ever started.
    Alive {
        /// The shim.
        shim: Shim,
        /// The first process, 0 if Create was not reached.
        pid: u32,
        /// When it started.
        started: Option<wharf_types::Timestamp>,
        /// How it ended.
        exit: Option<Exit>,
    },
    /// The shim is gone and recorded the end of the first process.
    Exited(Exit),
    /// The shim is gone and recorded no end: it was killed, or the host was restarted. `records` tell what ran; a pid
    /// in them is meaningful only if `same_boot`.
    Lost {
        /// Everything that was recorded.
        records: Vec<Record>,
        /// Whether the records are of this boot.
        same_boot: bool,
    },
}

#[allow(clippy::unimplemented, reason = "first landing: signatures")]
impl Shims {
    /// Takes the shim's executable and the exec root.
    pub fn new(binary: PathBuf, exec_root: PathBuf) -> Shims {
        Shims { binary, exec_root }
    }

    /// Makes the task folder (mode 0700) with `rootfs/` and the listening socket. A folder left over is an error of kind
    /// Conflict's origin, so call [`Shims::remove`] first where one may be.
    pub fn prepare(&self, id: &ContainerId) -> Result<TaskFolder, TaskError> {
        let _ = (id, &self.binary, &self.exec_root);
        unimplemented!()
    }

    /// Starts a shim. Returns as soon as the process exists: calls wait in its socket until it serves them. Must be called
    /// within a tokio runtime, which later reaps the process.
    pub fn spawn(&self, request: SpawnRequest<'_>) -> Result<Shim, TaskError> {
        let _ = request;
        unimplemented!()
    }

    /// Finds out what became of a container whose task folder exists.
    pub async fn adopt(&self, id: &ContainerId) -> Result<Adopted, TaskError> {
        let _ = id;
        unimplemented!()
    }

    /// Containers that have a task folder.
    pub fn list(&self) -> Result<Vec<ContainerId>, TaskError> {
        unimplemented!()
    }

    /// Removes a task folder. Missing is success.
    pub fn remove(&self, id: &ContainerId) -> Result<(), TaskError> {
        let _ = id;
        unimplemented!()
    }

    /// Path of a container's task folder.
    pub fn folder(&self, id: &ContainerId) -> PathBuf {
        let _ = id;
        unimplemented!()
    }
}
