//! One shim: typed calls, waiting and attaching.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use wharf_logs::Position;
use wharf_proto_task::events::CheckpointOptions;
use wharf_proto_task::{Any, Code, Empty, Message, Response, shim, task};
use wharf_types::{ExecId, Mount, Signal, Timestamp};

use crate::TaskError;
use crate::connection::{Broken, Connection, connect, read_response, request_frame, send_now};
use crate::folder::socket_path;
use crate::record::{exit_of, read_records};

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
    /// The images of a checkpoint that Start brings it back from.
    pub checkpoint: Option<PathBuf>,
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
    /// Output from the first byte of this run (as far as the spool's current file holds it) instead of from now on.
    pub from_start: bool,
    /// An unterminated last line first, so that output joins without a gap to what the log holds before
    /// [`Attached::spool`].
    pub whole_line: bool,
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

/// A shim's client: cheap to clone, safe to share. Calls have time limits (10 s; Create, Start and Exec 120 s; 3 s to one that
/// is stopped), so a shim that is stopped or stuck holds up only its own container. `exec` is `None` for the container's first process.
#[derive(Clone, Debug)]
pub struct Shim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    path: PathBuf,
    dir: OwnedFd,
    pid: u32,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// Becomes true when the shim's process is gone.
    gone: watch::Receiver<bool>,
}

/// Time limit of a call that only looks or tells.
const SHORT: Duration = Duration::from_secs(10);

/// Time limit of a call that starts a process: hooks and slow disks are in it.
const LONG: Duration = Duration::from_secs(120);

/// Between two looks at a shim that owes an answer, and how often in a row it must be found stopped.
const LOOK: Duration = Duration::from_secs(1);
const STOPPED_LOOKS: u32 = 3;

/// Whether a process is stopped: state T of /proc/PID/stat, after the name in parentheses (proc_pid_stat(5)).
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn name(exec: Option<&ExecId>) -> String {
    exec.map_or_else(String::new, |exec| exec.as_str().to_owned())
}

impl Shim {
    pub(crate) fn new(id: &str, path: PathBuf, dir: OwnedFd, pid: u32, gone: watch::Receiver<bool>) -> Shim {
        let (id, connection) = (id.to_owned(), tokio::sync::Mutex::new(None));
        Shim { inner: Arc::new(Inner { id, path, dir, pid, connection, gone }) }
    }

    /// The shim's own process id.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Prepares the container; its first process waits for [`Shim::start`]. Returns its pid.
    pub async fn create(&self, request: CreateRequest) -> Result<u32, TaskError> {
        let message = task::CreateTaskRequest {
            id: self.inner.id.clone(),
            bundle: self.inner.path.to_string_lossy().into_owned(),
            rootfs: request.rootfs.iter().map(task::Mount::from).collect(),
            terminal: request.terminal,
            stdin: request.stdin.field(),
            checkpoint: request.checkpoint.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
            ..task::CreateTaskRequest::default()
        };
        let answer: task::CreateTaskResponse = self.call("Create", &message, Some(LONG)).await?;
        Ok(answer.pid)
    }

    /// Runs a prepared process. Returns its pid.
    pub async fn start(&self, exec: Option<&ExecId>) -> Result<u32, TaskError> {
        let message = task::StartRequest { id: self.inner.id.clone(), exec_id: name(exec) };
        let answer: task::StartResponse = self.call("Start", &message, Some(LONG)).await?;
        Ok(answer.pid)
    }

    /// Prepares a further process.
    pub async fn exec(&self, request: ExecRequest) -> Result<(), TaskError> {
        let message = task::ExecProcessRequest {
            id: self.inner.id.clone(),
            exec_id: request.exec.as_str().to_owned(),
            terminal: request.terminal,
            stdin: request.stdin.field(),
            spec: Some(Any { type_url: task::PROCESS_TYPE.to_owned(), value: request.process }),
            ..task::ExecProcessRequest::default()
        };
        self.call::<Empty>("Exec", &message, Some(LONG)).await.map(drop)
    }

    /// Sends a signal, with `all` to every process of the container. NotFound if the process has ended.
    pub async fn kill(&self, exec: Option<&ExecId>, signal: Signal, all: bool) -> Result<(), TaskError> {
        let signal = u32::from(signal.number());
        let message = task::KillRequest { id: self.inner.id.clone(), exec_id: name(exec), signal, all };
        self.call::<Empty>("Kill", &message, Some(SHORT)).await.map(drop)
    }

    /// Waits, without limit, until a process has ended and its output is in the spool. Survives a lost connection; if the
    /// shim is gone, its records answer, else the error is `Gone`.
    pub async fn wait(&self, exec: Option<&ExecId>) -> Result<Exit, TaskError> {
        let message = task::WaitRequest { id: self.inner.id.clone(), exec_id: name(exec) };
        loop {
            match self.call::<task::WaitResponse>("Wait", &message, None).await {
                Ok(answer) => {
                    let at = answer.exited_at.map(Timestamp::from).unwrap_or_default();
                    return Ok(Exit { status: answer.exit_status, at, oom: answer.oom });
                }
                // Asked again: the next call connects anew, and that fails if nobody listens any more.
                Err(TaskError::Lost { .. }) => {}
                Err(TaskError::Gone { .. }) => {
                    let records = read_records(&self.inner.path)?;
                    return exit_of(&records, &message.exec_id).ok_or_else(|| self.is_gone());
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// A process's state.
    pub async fn state(&self, exec: Option<&ExecId>) -> Result<State, TaskError> {
        let message = task::StateRequest { id: self.inner.id.clone(), exec_id: name(exec) };
        let answer: task::StateResponse = self.call("State", &message, Some(SHORT)).await?;
        let status = match answer.status() {
            task::Status::Created => Status::Created,
            task::Status::Running => Status::Running,
            task::Status::Paused | task::Status::Pausing => Status::Paused,
            task::Status::Stopped => Status::Stopped,
            task::Status::Unknown => return Err(self.protocol("State")),
        };
        let exited_at = answer.exited_at.map(Timestamp::from);
        Ok(State { pid: answer.pid, status, exit_status: answer.exit_status, exited_at })
    }

    /// Process ids, on the host, of everything in the container.
    pub async fn pids(&self) -> Result<Vec<u32>, TaskError> {
        let message = task::PidsRequest { id: self.inner.id.clone() };
        let answer: task::PidsResponse = self.call("Pids", &message, Some(SHORT)).await?;
        Ok(answer.processes.iter().map(|p| p.pid).collect())
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, exec: Option<&ExecId>, columns: u16, rows: u16) -> Result<(), TaskError> {
        let message = task::ResizePtyRequest {
            id: self.inner.id.clone(),
            exec_id: name(exec),
            width: columns.into(),
            height: rows.into(),
        };
        self.call::<Empty>("ResizePty", &message, Some(SHORT)).await.map(drop)
    }

    /// Closes a process's stdin.
    pub async fn close_stdin(&self, exec: Option<&ExecId>) -> Result<(), TaskError> {
        let message = task::CloseIORequest { id: self.inner.id.clone(), exec_id: name(exec), stdin: true };
        self.call::<Empty>("CloseIO", &message, Some(SHORT)).await.map(drop)
    }

    /// Freezes the container.
    pub async fn pause(&self) -> Result<(), TaskError> {
        let message = task::PauseRequest { id: self.inner.id.clone() };
        self.call::<Empty>("Pause", &message, Some(SHORT)).await.map(drop)
    }

    /// Thaws the container.
    pub async fn resume(&self) -> Result<(), TaskError> {
        let message = task::ResumeRequest { id: self.inner.id.clone() };
        self.call::<Empty>("Resume", &message, Some(SHORT)).await.map(drop)
    }

    /// Writes the container to files, without limit of time; with `exit` it is killed then.
    pub async fn checkpoint(&self, images: &Path, exit: bool) -> Result<(), TaskError> {
        let options = CheckpointOptions { exit, ..CheckpointOptions::default() };
        let value = options.encode_to_vec();
        let message = task::CheckpointTaskRequest {
            id: self.inner.id.clone(),
            path: images.to_string_lossy().into_owned(),
            options: Some(Any { type_url: "containerd.runc.v1.CheckpointOptions".to_owned(), value }),
        };
        self.call::<Empty>("Checkpoint", &message, None).await.map(drop)
    }

    /// Changes limits: an OCI `linux.resources` document, JSON.
    pub async fn update(&self, resources: Vec<u8>) -> Result<(), TaskError> {
        let resources = Some(Any { type_url: task::RESOURCES_TYPE.to_owned(), value: resources });
        let id = self.inner.id.clone();
        let message = task::UpdateTaskRequest { id, resources, ..task::UpdateTaskRequest::default() };
        self.call::<Empty>("Update", &message, Some(SHORT)).await.map(drop)
    }

    /// Has the shim hold sockets of this process for its lifetime, and relay the connections of others to an address.
    /// Returns the numbers that the held ones have there. Afterwards they may be closed here.
    pub async fn hold(
        &self,
        sockets: &[BorrowedFd<'_>],
        relays: &[(BorrowedFd<'_>, SocketAddr)],
    ) -> Result<Vec<i32>, TaskError> {
        let relays = relays.iter().map(|(fd, to)| shim::HeldRelay { socket: fd.as_raw_fd(), to: to.to_string() });
        let message = shim::HoldRequest {
            id: self.inner.id.clone(),
            pid: std::process::id(),
            sockets: sockets.iter().map(AsRawFd::as_raw_fd).collect(),
            relays: relays.collect(),
        };
        let answer: shim::HoldResponse = self.call_of(shim::SERVICE, shim::HOLD, &message, Some(SHORT)).await?;
        if answer.sockets.len() != sockets.len() {
            return Err(self.protocol(shim::HOLD));
        }
        Ok(answer.sockets)
    }

    /// What the container's cgroup has used.
    pub async fn stats(&self) -> Result<wharf_cgroup::Stats, TaskError> {
        let message = task::StatsRequest { id: self.inner.id.clone() };
        let answer: task::StatsResponse = self.call("Stats", &message, Some(SHORT)).await?;
        let value = answer.stats.map(|any| any.value).unwrap_or_default();
        serde_json::from_slice(&value).map_err(|_| self.protocol("Stats"))
    }

    /// Releases a stopped process; for the first process also the container's cgroup.
    pub async fn delete(&self, exec: Option<&ExecId>) -> Result<Exit, TaskError> {
        let message = task::DeleteRequest { id: self.inner.id.clone(), exec_id: name(exec) };
        let answer: task::DeleteResponse = self.call("Delete", &message, Some(LONG)).await?;
        let at = answer.exited_at.map(Timestamp::from).unwrap_or_default();
        Ok(Exit { status: answer.exit_status, at, oom: false })
    }

    /// Ends the shim: at once if nothing runs and no client waits for output, else after the last such client. Returns when
    /// the shim has taken note. Conflict while a process runs.
    pub async fn shutdown(&self) -> Result<(), TaskError> {
        let message = task::ShutdownRequest { id: self.inner.id.clone(), now: false };
        self.call::<Empty>("Shutdown", &message, Some(SHORT)).await.map(drop)
    }

    /// Waits until the shim's process is gone.
    pub async fn gone(&self) {
        let mut gone = self.inner.gone.clone();
        // The sender goes away only after it said so, or with the whole runtime.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Takes part in a process's stdio.
    pub async fn attach(&self, exec: Option<&ExecId>, request: AttachRequest) -> Result<Attached, TaskError> {
        let logs_from = match (request.from_start, request.whole_line) {
            (true, _) => shim::LogsFrom::Run,
            (false, true) => shim::LogsFrom::Line,
            (false, false) => shim::LogsFrom::Now,
        };
        let message = shim::AttachRequest {
            id: self.inner.id.clone(),
            exec_id: name(exec),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            logs_from: logs_from as i32,
        };
        let attach = async {
            let mut stream = self.connect()?;
            let frame = request_frame(1, shim::SERVICE, shim::ATTACH, &message).map_err(|_| self.protocol("Attach"))?;
            let sent = send_now(&stream, &frame).map_err(|_| self.is_gone())?;
            stream.write_all(&frame[sent..]).await.map_err(|_| self.is_gone())?;
            let answered = read_response(&mut stream).await.map_err(|_| self.is_gone())?;
            let (_, response) = answered.map_err(|_| self.protocol("Attach"))?;
            let answer: shim::AttachResponse = self.unpack("Attach", response)?;
            let spool = Position { inode: answer.spool_inode, offset: answer.spool_offset };
            let spool = (answer.spool_inode != 0).then_some(spool);
            Ok(Attached { stream, spool, terminal: answer.terminal })
        };
        tokio::time::timeout(SHORT, attach).await.map_err(|_| self.deadline("Attach", SHORT))?
    }

    pub(crate) async fn identity(&self) -> Result<task::ConnectResponse, TaskError> {
        let message = task::ConnectRequest { id: self.inner.id.clone() };
        self.call("Connect", &message, Some(SHORT)).await
    }

    fn connect(&self) -> Result<UnixStream, TaskError> {
        connect(&socket_path(&self.inner.dir)).map_err(|source| match source.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => self.is_gone(),
            // The queue of a shim that does not accept is full.
            std::io::ErrorKind::WouldBlock => self.deadline("connect", Duration::ZERO),
            _ => TaskError::Folder { operation: "connect in", path: self.inner.path.clone(), source },
        })
    }

    async fn connection(&self) -> Result<Arc<Connection>, TaskError> {
        let mut slot = self.inner.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(Connection::new(self.connect()?));
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn call<R: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
        limit: Option<Duration>,
    ) -> Result<R, TaskError> {
        self.call_of(task::SERVICE, method, message, limit).await
    }

    async fn call_of<R: Message + Default>(
        &self,
        service: &'static str,
        method: &'static str,
        message: &impl Message,
        limit: Option<Duration>,
    ) -> Result<R, TaskError> {
        let call = async {
            let connection = self.connection().await?;
            connection.call(service, method, message).await.map_err(|e| match e {
                Broken::Lost => TaskError::Lost { id: self.inner.id.clone(), call: method },
                Broken::Protocol => self.protocol(method),
            })
        };
        let response = match limit {
            Some(limit) => tokio::select! {
                answer = tokio::time::timeout(limit, call) => answer.map_err(|_| self.deadline(method, limit))??,
                after = self.stopped() => return Err(self.deadline(method, after)),
            },
            None => call.await?,
        };
        self.unpack(method, response)
    }

    /// Returns when the shim has been stopped (SIGSTOP) for some looks: it will not answer in time, however long that is.
    async fn stopped(&self) -> Duration {
        let mut looks = 0;
        while looks < STOPPED_LOOKS {
            tokio::time::sleep(LOOK).await;
            looks = if is_stopped(self.inner.pid) { looks + 1 } else { 0 };
        }
        LOOK * STOPPED_LOOKS
    }

    fn unpack<R: Message + Default>(&self, call: &'static str, response: Response) -> Result<R, TaskError> {
        match response.status {
            Some(status) if status.code() != Code::Ok => {
                Err(TaskError::Remote { call, code: status.code(), failure: status.failure(), message: status.message })
            }
            _ => R::decode(response.payload.as_slice()).map_err(|_| self.protocol(call)),
        }
    }

    fn is_gone(&self) -> TaskError {
        TaskError::Gone { id: self.inner.id.clone() }
    }

    fn protocol(&self, call: &'static str) -> TaskError {
        TaskError::Protocol { id: self.inner.id.clone(), call }
    }

    fn deadline(&self, call: &'static str, after: Duration) -> TaskError {
        TaskError::Deadline { id: self.inner.id.clone(), call, after }
    }
}

impl Stdin {
    fn field(self) -> String {
        match self {
            Stdin::Null => String::new(),
            Stdin::Kept => shim::STDIN_KEPT.to_owned(),
            Stdin::Once => shim::STDIN_ONCE.to_owned(),
        }
    }
}
