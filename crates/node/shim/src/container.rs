//! The container as what carries it out has it: the runtime library, or an OCI runtime of another maker (`foreign`).
//! The only file that calls `wharf_runtime`, save containerd's clean-up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_cgroup::Cgroup;
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime as oci;
use wharf_runtime::{CreateRequest, ExecRequest, Gate, Stdio};
use wharf_types::{Failure, Mount, Signal, Stage};

use crate::args::Runtime;
use crate::foreign::{self, Foreign};

/// A process just made: its pid and, with a terminal, the controlling end.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) console: Option<OwnedFd>,
}

/// A container that exists.
#[derive(Debug)]
pub(crate) enum Container {
    /// Made by the library.
    Own(Box<wharf_runtime::Container>),
    /// Made by a program.
    Foreign(Box<Foreign>),
}

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// In the library.
    #[error(transparent)]
    Own(#[from] wharf_runtime::Error),
    /// What the other runtime said.
    #[error(transparent)]
    Foreign(#[from] foreign::Error),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Own(e) => e.kind(),
            Error::Foreign(e) => e.kind(),
        }
    }
}

/// What a container is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) rootfs: &'a [Mount],
    pub(crate) netns: Option<BorrowedFd<'a>>,
    /// None for a terminal.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    /// The program that makes it; the library where there is none.
    pub(crate) runtime: Option<&'a Runtime>,
}

/// Reads `config.json` in the bundle and makes the container.
pub(crate) fn create(plan: &Plan<'_>) -> Result<(Container, Made), Failure> {
    if let Some(runtime) = plan.runtime {
        let (container, made) = Foreign::create(runtime, plan)?;
        return Ok((Container::Foreign(Box::new(container)), made));
    }
    let path = plan.bundle.join("config.json");
    let wrong = |errno, what: String| Failure { stage: Stage::Config, errno, subject: what };
    let json = std::fs::read(&path)
        .map_err(|e| wrong(e.raw_os_error().unwrap_or(0), format!("reading {}", path.display())))?;
    let spec: oci::Spec = serde_json::from_slice(&json).map_err(|e| wrong(0, format!("config.json: {e}")))?;
    let mut container = wharf_runtime::create(CreateRequest {
        id: plan.id,
        bundle: plan.bundle,
        spec: &spec,
        rootfs_mounts: plan.rootfs,
        stdio: plan.stdio.map_or(Stdio::Terminal, Stdio::Descriptors),
        netns: plan.netns,
        gate: Gate::Caller,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        systemd: false,
        rootless: false,
    })?;
    let console = container.take_console();
    let pid = container.pid();
    Ok((Container::Own(Box::new(container)), Made { pid, console }))
}

impl Container {
    /// Runs a further process from an OCI `process` document.
    pub(crate) fn exec(&self, process: &oci::Process, stdio: Option<[OwnedFd; 3]>) -> Result<Made, Failure> {
        let ends = stdio.as_ref().map(|fds| fds.each_ref().map(AsFd::as_fd));
        match self {
            Container::Own(container) => {
                let stdio = ends.map_or(Stdio::Terminal, Stdio::Descriptors);
                let made = container.exec(ExecRequest { process, stdio, preserve_fds: 0, groups: &[] })?;
                Ok(Made { pid: made.pid, console: made.console })
            }
            Container::Foreign(container) => container.exec(process, ends),
        }
    }

    /// Lets the first process become the user's program.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        match self {
            Container::Own(container) => container.start(),
            Container::Foreign(container) => container.start(),
        }
    }

    /// Signals the first process, or all.
    pub(crate) fn kill(&self, signal: Signal, all: bool) -> Result<(), Error> {
        match self {
            Container::Own(container) => Ok(container.kill(signal, all)?),
            Container::Foreign(container) => Ok(container.kill(signal, all)?),
        }
    }

    /// Ids of all processes, in our namespace.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Error> {
        match self {
            Container::Own(container) => Ok(container.pids()?),
            Container::Foreign(container) => Ok(container.pids()?),
        }
    }

    /// Freezes all processes, or lets them go on.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<(), Error> {
        match self {
            Container::Own(container) if freeze => Ok(container.pause()?),
            Container::Own(container) => Ok(container.resume()?),
            Container::Foreign(container) => Ok(container.freeze(freeze)?),
        }
    }

    /// Changes limits.
    pub(crate) fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        match self {
            Container::Own(container) => Ok(container.update(resources)?),
            Container::Foreign(container) => Ok(container.update(resources)?),
        }
    }

    /// Its cgroup, for figures and the out-of-memory watch. Another runtime may have made none.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Container::Own(container) => container.cgroup(),
            Container::Foreign(container) => container.cgroup(),
        }
    }

    /// Takes away what the kernel holds for it. The first process is over, or is ended here.
    pub(crate) fn delete(self) -> Result<(), Error> {
        match self {
            Container::Own(container) => Ok(container.delete()?),
            Container::Foreign(container) => Ok(container.delete()?),
        }
    }
}
