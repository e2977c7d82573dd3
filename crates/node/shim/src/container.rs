//! The container as what carries it out has it: the runtime library, or an OCI runtime of another maker (`foreign`).
//! The only file that calls `wharf_runtime`, save containerd's clean-up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_cgroup::Cgroup;
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime as oci;
use wharf_runtime::criu::{self, Criu, CriuError, Dump, RootPlace, Subject};
use wharf_runtime::{CreateRequest, ExecRequest, Gate, Known, Stdio};
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
    /// CRIU, or what it needs.
    #[error(transparent)]
    Criu(#[from] CriuError),
    /// What the other runtime said.
    #[error(transparent)]
    Foreign(#[from] foreign::Error),
    /// What else could not be done.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Own(e) => e.kind(),
            Error::Criu(e) => e.kind(),
            Error::Failure(_) => Kind::System,
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
    let spec = read_spec(plan.bundle)?;
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

fn read_spec(bundle: &Path) -> Result<oci::Spec, Failure> {
    let path = bundle.join("config.json");
    let wrong = |errno, what: String| Failure { stage: Stage::Config, errno, subject: what };
    let json = std::fs::read(&path)
        .map_err(|e| wrong(e.raw_os_error().unwrap_or(0), format!("reading {}", path.display())))?;
    serde_json::from_slice(&json).map_err(|e| wrong(0, format!("config.json: {e}")))
}

/// A checkpoint that is to be written.
#[derive(Debug)]
pub(crate) struct Checkpoint<'a> {
    /// Where its images go, absolute.
    pub(crate) images: &'a Path,
    /// Where CRIU logs, absolute.
    pub(crate) work: &'a Path,
    /// Whether the container ends with it.
    pub(crate) exit: bool,
    /// Further words for CRIU.
    pub(crate) words: Vec<String>,
}

/// Reads `config.json` in the bundle and brings the container back from the images; it runs then.
pub(crate) fn restore(plan: &Plan<'_>, images: &Path) -> Result<(Container, Made), Error> {
    if let Some(runtime) = plan.runtime {
        let (container, made) = Foreign::restore(runtime, plan, images)?;
        return Ok((Container::Foreign(Box::new(container)), made));
    }
    let spec = read_spec(plan.bundle)?;
    criu::check(&spec)?;
    let streams = plan.stdio.ok_or(CriuError::Terminal)?;
    let criu = Criu {
        program: criu::find(None)?,
        images: images.to_owned(),
        work: plan.bundle.to_owned(),
        log: "criu-restore.log",
        words: vec!["--manage-cgroups=ignore".to_owned()],
        keep: Vec::new(),
    };
    let cgroup = wharf_runtime::make_cgroup(plan.id, &spec)?;
    let subject = Subject { spec: &spec, bundle: plan.bundle, cgroup: &cgroup };
    let at = plan.bundle.join("rootfs");
    let made = criu.restore(&subject, RootPlace { at: &at, mounts: plan.rootfs }, streams);
    let opened = made.map_err(Error::from).and_then(|pid| {
        let started = wharf_runtime::start_time(pid).map_or(0, |(started, _)| started);
        let known = Known { id: plan.id, bundle: plan.bundle, spec: &spec, pid, started, rootless: false };
        Ok(wharf_runtime::Container::open(&known)?)
    });
    match opened {
        Ok(container) => {
            let pid = container.pid();
            Ok((Container::Own(Box::new(container)), Made { pid, console: None }))
        }
        Err(e) => {
            // What failed first is what counts.
            let _ = cgroup.kill_all();
            let _ = cgroup.delete(std::time::Instant::now() + CLEARING);
            Err(e)
        }
    }
}

/// How long the cgroup of a restore that failed may take to become empty.
const CLEARING: std::time::Duration = std::time::Duration::from_secs(5);

impl Container {
    /// Writes the processes to files. Its bundle is the working directory's.
    pub(crate) fn checkpoint(&self, bundle: &Path, checkpoint: Checkpoint<'_>) -> Result<(), Error> {
        let container = match self {
            Container::Own(container) => container,
            Container::Foreign(container) => return Ok(container.checkpoint(&checkpoint)?),
        };
        let spec = read_spec(bundle)?;
        criu::check(&spec)?;
        let cgroup = container.cgroup().ok_or(wharf_runtime::Error::NotRunning)?;
        let criu = Criu {
            program: criu::find(None)?,
            images: checkpoint.images.to_owned(),
            work: checkpoint.work.to_owned(),
            log: "criu-dump.log",
            words: checkpoint.words,
            keep: Vec::new(),
        };
        let dump = if checkpoint.exit { Dump::Ending } else { Dump::Running };
        Ok(criu.dump(&Subject { spec: &spec, bundle, cgroup }, container.pid(), dump)?)
    }

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
