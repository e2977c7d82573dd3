//! Starting shims, and finding those of an earlier dockerd again.

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use wharf_proto_task::{Code, spare};
use wharf_sys::descriptor::duplicate_above;
use wharf_sys::exec::Strings;
use wharf_sys::spawn::{Spawn, Spawned};
use wharf_types::ContainerId;

use crate::record::{boot_id, exit_of, read_records};
use crate::spares::Spares;
use crate::{Exit, Record, RecordKind, Shim, Status, TaskError, TaskFolder, folder};

/// The lowest number for the shim's executable: above those a shim gets, unless it gets very many.
const IMAGE_FD: RawFd = 256;

/// All shims of one dockerd.
#[derive(Clone, Debug)]
pub struct Shims {
    binary: PathBuf,
    /// The executable on a read-only mount of its own: what a shim becomes its container's first process from must not be
    /// writable through `/proc/<pid>/exe` (CVE-2019-5736), not even when no shim runs any more.
    image: Option<Arc<OwnedFd>>,
    exec_root: PathBuf,
    /// A kill point of the shim, for tests.
    aim: Option<String>,
    /// Shims that wait for work; none for shims that are aimed, which get another environment.
    spares: Option<Arc<Spares>>,
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

/// An OCI runtime of another maker that a shim calls instead of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRuntime {
    /// The program, absolute.
    pub path: String,
    /// What it is given before everything else.
    pub args: Vec<String>,
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
    /// What makes the container, if it is not the shim's own library.
    pub runtime: Option<&'a OtherRuntime>,
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

impl Shims {
    /// Takes the shim's executable and the exec root.
    pub fn new(binary: PathBuf, exec_root: PathBuf) -> Shims {
        let aim = std::env::var("WHARF_KILL_AT").ok().filter(|name| name.starts_with("shim."));
        // A file that cannot be opened is reported when the first shim is started.
        let path = CString::new(binary.as_os_str().as_bytes()).ok();
        let image = path.and_then(|path| wharf_sys::image::open_protected(&path).ok());
        let image = image.and_then(|fd| duplicate_above(fd.as_fd(), IMAGE_FD).ok()).map(Arc::new);
        let spares = match (&image, &aim) {
            (Some(image), None) => start_spares(image.clone()),
            _ => None,
        };
        Shims { binary, image, exec_root, aim, spares }
    }

    /// Has the shims killed at a point of `wharf_fault::POINTS`, if they are built for that. For tests.
    pub fn aimed_at(self, point: &str) -> Shims {
        Shims { aim: Some(point.to_owned()), spares: None, ..self }
    }

    /// Makes the task folder (mode 0700) with `rootfs/` and the listening socket. One that is left over must be taken away
    /// by [`Shims::remove`] first: the error is then `mkdir …: file exists`.
    pub fn prepare(&self, id: &ContainerId) -> Result<TaskFolder, TaskError> {
        TaskFolder::make(id.as_str(), self.folder(id))
    }

    /// Starts a shim. Returns as soon as the process exists: calls wait in its socket until it serves them. Must be called
    /// within a tokio runtime, which later reaps the process.
    pub fn spawn(&self, request: SpawnRequest<'_>) -> Result<Shim, TaskError> {
        let failed = |source| TaskError::Spawn { binary: self.binary.clone(), source };
        let folder = &request.folder;
        let mut args = vec!["--id".to_owned(), folder.id.clone()];
        args.extend(["--task-dir".to_owned(), folder.path.to_string_lossy().into_owned()]);
        args.extend(request.log.to_args());
        if let Some(runtime) = request.runtime {
            args.extend(["--runtime".to_owned(), runtime.path.clone()]);
            args.extend(runtime.args.iter().flat_map(|arg| ["--runtime-arg".to_owned(), arg.clone()]));
        }
        let mut map = vec![(folder.listener.as_fd(), 3), (request.log_dir, 4)];
        if let Some(netns) = request.netns {
            map.push((netns, 5));
            args.extend(["--netns-fd".to_owned(), "5".to_owned()]);
        }
        let mut next = 6;
        if let Some(more) = request.hold.len().checked_sub(1) {
            // dockerd cannot have opened more descriptors than an i32 counts.
            let last = next + more as i32;
            args.extend(["--hold-fds".to_owned(), format!("{next}-{last}")]);
            map.extend(request.hold.iter().map(AsFd::as_fd).zip(next..));
            next = last + 1;
        }
        for relay in &request.relays {
            map.push((relay.listener.as_fd(), next));
            args.extend(["--relay".to_owned(), format!("fd={next},to={}", relay.to)]);
            next += 1;
        }
        let spawned = match self.give_spare(folder.dir.as_fd(), &map, &args) {
            Some(spawned) => spawned,
            None => {
                let program = match &self.image {
                    Some(image) if image.as_raw_fd() >= next => by_descriptor(image),
                    _ => self.binary.as_os_str().as_bytes().to_vec(),
                };
                execute(program, &args, self.aim.as_deref(), &map, Some(folder.dir.as_fd())).map_err(failed)?
            }
        };
        let gone = watch_end(spawned.pidfd, true).map_err(failed)?;
        let TaskFolder { id, path, dir, .. } = request.folder;
        Ok(Shim::new(&id, path, dir, spawned.pid.unsigned_abs(), gone))
    }

    /// Gives the work to a shim that waits, if one does.
    fn give_spare(
        &self,
        directory: BorrowedFd<'_>,
        map: &[(BorrowedFd<'_>, RawFd)],
        args: &[String],
    ) -> Option<Spawned> {
        let spares = self.spares.as_ref()?;
        let numbers: Vec<RawFd> = map.iter().map(|(_, number)| *number).collect();
        let message = spare::message(&numbers, args)?;
        let descriptors: Vec<BorrowedFd<'_>> = [directory].into_iter().chain(map.iter().map(|(fd, _)| *fd)).collect();
        spares.give(&message, &descriptors)
    }

    /// Finds out what became of a container whose task folder exists.
    ///
    /// Errors: Deadline if the shim is there and does not answer; NotFound without a task folder.
    pub async fn adopt(&self, id: &ContainerId) -> Result<Adopted, TaskError> {
        let path = self.folder(id);
        let dir = folder::open(&path)?;
        let (_, never) = watch::channel(false);
        let stranger = Shim::new(id.as_str(), path.clone(), dir, 0, never);
        let pid = match stranger.identity().await {
            Ok(identity) => identity.shim_pid,
            Err(TaskError::Gone { .. } | TaskError::Lost { .. }) => return adopt_dead(&path),
            Err(e) => return Err(e),
        };
        let failed = |source| TaskError::Folder { operation: "watching the shim of", path: path.clone(), source };
        let pidfd = i32::try_from(pid).ok().and_then(Pid::from_raw).map(|p| pidfd_open(p, PidfdFlags::empty()));
        let gone = match pidfd {
            Some(Ok(pidfd)) => watch_end(pidfd, false).map_err(failed)?,
            _ => return adopt_dead(&path),
        };
        let shim = Shim::new(id.as_str(), path.clone(), folder::open(&path)?, pid, gone);
        // Asked after the descriptor was opened: an answer means that the number was not used again in between.
        let state = match shim.state(None).await {
            Ok(state) => Some(state),
            Err(TaskError::Remote { code: Code::NotFound, .. }) => None,
            Err(TaskError::Gone { .. } | TaskError::Lost { .. }) => return adopt_dead(&path),
            Err(e) => return Err(e),
        };
        let records = read_records(&path)?;
        let started = records.iter().find(|r| r.kind == RecordKind::Started && r.exec.is_empty()).map(|r| r.at);
        let stopped = state.is_some_and(|s| s.status == Status::Stopped);
        let exit = if stopped { Some(shim.wait(None).await?) } else { None };
        Ok(Adopted::Alive { shim, pid: state.map_or(0, |s| s.pid), started, exit })
    }

    /// Containers that have a task folder. Other names are passed over.
    pub fn list(&self) -> Result<Vec<ContainerId>, TaskError> {
        let path = self.exec_root.join("tasks");
        let failed = |source| TaskError::Folder { operation: "read", path: path.clone(), source };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            ids.extend(name.to_str().and_then(|name| ContainerId::parse(name).ok()));
        }
        Ok(ids)
    }

    /// Removes a task folder. Missing is success.
    pub fn remove(&self, id: &ContainerId) -> Result<(), TaskError> {
        let path = self.folder(id);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(TaskError::Folder { operation: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Path of a container's task folder.
    pub fn folder(&self, id: &ContainerId) -> PathBuf {
        self.exec_root.join("tasks").join(id.as_str())
    }
}

/// A name of the executable for the child, whose table is a copy of ours with low numbers replaced.
fn by_descriptor(image: &OwnedFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", image.as_raw_fd()).into_bytes()
}

/// Has shims started ahead. Without the thread for it each start makes its own.
fn start_spares(image: Arc<OwnedFd>) -> Option<Arc<Spares>> {
    // The words that a shim with work shows take the place of the second one.
    let args = ["--spare".to_owned(), "-".repeat(spare::SHOWN_BYTES)];
    let start = move |socket: BorrowedFd<'_>| execute(by_descriptor(&image), &args, None, &[(socket, 3)], None);
    Spares::new(start).ok().map(Arc::new)
}

/// Starts the shim's executable in a session of its own, with /dev/null as standard streams.
fn execute(
    program: Vec<u8>,
    args: &[String],
    aim: Option<&str>,
    descriptors: &[(BorrowedFd<'_>, RawFd)],
    directory: Option<BorrowedFd<'_>>,
) -> std::io::Result<Spawned> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let streams = (0..3).map(|number| (null.as_fd(), number));
    let words = ["wharf-shim"].into_iter().chain(args.iter().map(String::as_str)).map(str::to_owned);
    wharf_sys::spawn::spawn(&Spawn {
        program: &CString::new(program)?,
        args: &Strings::new(words)?,
        // Nothing of dockerd's environment, in which there may be secrets.
        env: &Strings::new(aim.iter().map(|point| format!("WHARF_KILL_AT={point}")))?,
        descriptors: &streams.chain(descriptors.iter().copied()).collect::<Vec<_>>(),
        directory,
        new_session: true,
    })
}

fn adopt_dead(path: &Path) -> Result<Adopted, TaskError> {
    let records = read_records(path)?;
    if let Some(exit) = exit_of(&records, "") {
        return Ok(Adopted::Exited(exit));
    }
    let boot = boot_id()?;
    let same_boot = records.iter().all(|r| r.boot == boot);
    Ok(Adopted::Lost { records, same_boot })
}

/// Waits for the end of a process beside everything else; a child is also reaped.
fn watch_end(pidfd: OwnedFd, is_child: bool) -> std::io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    #[allow(
        deprecated,
        reason = "the replacement is unsafe; an OwnedFd keeps its number, which is what the safe one assumes"
    )]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    tokio::spawn(async move {
        // Readiness can only fail when the runtime shuts down.
        if pidfd.readable().await.is_ok() {
            if is_child {
                // Nothing is done with the status: records and the shim's answers tell what happened.
                let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
            let _ = sender.send(true);
        }
    });
    Ok(receiver)
}
