//! The OCI runtime as a library: create, start, exec, kill, delete.
//!
//! Synchronous, for a single-threaded caller: the process that calls [`create`] becomes the parent of the container's
//! first process and reaps it (through [`Container::pidfd`]). Everything that can be checked, opened or computed is done
//! before clone3(2); the child then carries out a prepared plan and reports over one socket, as [`types::Failure`].
//!
//! ```text
//! create ── plan ── cgroup ── clone3 ──────────────── reads "ready" ── hooks ── returns Container
//!                                └─ child: namespaces, mounts, pivot, user … "ready" ── gate ── seccomp ── execve
//! ```
//!
//! [`types::Failure`]: wharf_types::Failure

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_error::{HasKind, Kind};
use wharf_oci::runtime as oci;
use wharf_types::{Failure, Mount, Signal};

/// What [`create`] needs.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id: names the session keyring, and the cgroup where the configuration names none.
    pub id: &'a str,
    /// The bundle's folder: relative paths of the configuration start here; hooks are told it.
    pub bundle: &'a Path,
    /// The configuration.
    pub spec: &'a oci::Spec,
    /// Mounts that make the root file system, done in the container's mount namespace over `root.path` in this order; empty
    /// when `root.path` holds it already.
    pub rootfs_mounts: &'a [Mount],
    /// The first process's standard streams.
    pub stdio: Stdio<'a>,
    /// The network namespace to join, instead of what the configuration says.
    pub netns: Option<BorrowedFd<'a>>,
    /// What the first process waits at before it becomes the user's program.
    pub gate: Gate,
    /// Descriptors 3 to 3+n−1 of the caller stay open in the first process.
    pub preserve_fds: u32,
    /// chroot(2) into a moved mount instead of pivot_root(2), for hosts whose root is an initramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// Standard streams of a process.
#[derive(Clone, Copy, Debug)]
pub enum Stdio<'a> {
    /// These become descriptors 0, 1 and 2.
    Descriptors([BorrowedFd<'a>; 3]),
    /// A pseudo-terminal of the container's devpts; its controlling end is given by `take_console`.
    Terminal,
}

/// What the first process waits at.
#[derive(Debug)]
pub enum Gate {
    /// The caller opens it with [`Container::start`].
    Caller,
    /// Whoever connects to this listening unix socket opens it, and reads what failed afterwards from the connection (end of file:
    /// the user's program runs). For a start by another process than the creator: [`start_by_socket`].
    Socket(OwnedFd),
}

/// A container whose first process exists.
#[derive(Debug)]
pub struct Container {
    pid: i32,
    pidfd: OwnedFd,
}

/// What [`Container::exec`] needs.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The process. Its capabilities, labels and the like are its own; the seccomp filter is the container's.
    pub process: &'a oci::Process,
    /// Its standard streams.
    pub stdio: Stdio<'a>,
    /// Descriptors 3 to 3+n−1 of the caller stay open in it.
    pub preserve_fds: u32,
}

/// A process that [`Container::exec`] started. The caller is its parent and reaps it.
#[derive(Debug)]
pub struct Process {
    /// Its id in the caller's namespace.
    pub pid: i32,
    /// The process as a descriptor.
    pub pidfd: OwnedFd,
    /// The controlling end of its terminal, if it has one.
    pub console: Option<OwnedFd>,
}

/// Why an operation on an existing container failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first process has ended.
    #[error("container not running")]
    NotRunning,
    /// A signal could not be sent.
    #[error("sending signal {signal} to process {pid}")]
    Kill {
        /// Signal number.
        signal: u8,
        /// Process id.
        pid: i32,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NotRunning => Kind::Conflict,
            Error::Kill { .. } => Kind::System,
        }
    }
}

/// Makes a container: its cgroup, its namespaces and its first process, prepared and waiting at the gate.
///
/// Errors: all of preparation, including the look-up of the command. Nothing is left behind then.
#[allow(clippy::unimplemented)]
pub fn create(_request: CreateRequest<'_>) -> Result<Container, Failure> {
    unimplemented!()
}

#[allow(clippy::unimplemented)]
impl Container {
    /// The first process's id in the caller's namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The first process as a descriptor: readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The controlling end of the first process's terminal, the first time it is asked for.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        unimplemented!()
    }

    /// Opens the gate and waits until the user's program runs.
    ///
    /// Errors: seccomp load, `startContainer` hooks, execve(2).
    pub fn start(&mut self) -> Result<(), Failure> {
        unimplemented!()
    }

    /// Starts one more process in the container's namespaces and cgroup.
    pub fn exec(&self, _request: ExecRequest<'_>) -> Result<Process, Failure> {
        unimplemented!()
    }

    /// Sends a signal to the first process, or to all processes of the container's cgroup.
    pub fn kill(&self, _signal: Signal, _all: bool) -> Result<(), Error> {
        unimplemented!()
    }

    /// The ids of all processes in the container's cgroup, in the caller's namespace.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        unimplemented!()
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The container's cgroup, for figures and the out-of-memory watch; `None` if it has none of its own.
    pub fn cgroup(&self) -> Option<&wharf_cgroup::Cgroup> {
        unimplemented!()
    }

    /// Changes limits.
    pub fn update(&self, _resources: &oci::LinuxResources) -> Result<(), Error> {
        unimplemented!()
    }

    /// Kills what is left, removes the cgroup and runs `poststop` hooks. The first process must have been reaped, or is killed and reaped
    /// here if the caller is its parent.
    pub fn delete(self) -> Result<(), Error> {
        unimplemented!()
    }
}
