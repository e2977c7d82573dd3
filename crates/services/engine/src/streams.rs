//! A container's input, output, log and end, as clients follow them.

use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use wharf_api_types::query::{Logs, WaitCondition};
use wharf_logs::{Form, Position, Progress, ReadOptions, Reader};
use wharf_task::AttachRequest;
use wharf_types::Timestamp;

use crate::config::EngineConfig;
use crate::container::{Container, Registry, Status, View};
use crate::creator::tell;
use crate::events::Events;
use crate::logging::log_config;
use crate::{EngineError, StartError};

/// Which streams a client of a container wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Sends input.
    pub stdin: bool,
    /// Gets standard output.
    pub stdout: bool,
    /// Gets standard error.
    pub stderr: bool,
    /// First gets what was put out before.
    pub logs: bool,
    /// Then gets what comes; without it the connection ends with the past.
    pub stream: bool,
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit code.
    pub code: i64,
    /// Why the container could not be started, if so.
    pub error: String,
}

/// Chunks of a log.
pub type Chunks = mpsc::Receiver<Result<Vec<u8>, EngineError>>;

/// A log being read: chunks of messages, framed unless the container has a terminal.
#[derive(Debug)]
pub struct LogReading {
    /// Whether the container has a terminal.
    pub tty: bool,
    /// The chunks; a reader that is slow holds up nothing but itself.
    pub chunks: Chunks,
}

/// An attached client's connection, once there is one.
pub type Connecting = std::pin::Pin<Box<dyn Future<Output = Result<UnixStream, EngineError>> + Send>>;

/// Streams of containers.
pub struct Streams {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: Arc<Events>,
}

fn timestamp(nanos: i128) -> Timestamp {
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    Timestamp::from_unix(seconds, nanos.rem_euclid(1_000_000_000) as u32)
}

impl Streams {
    /// Registers a waiter and returns what ends when the condition holds. Nothing that happens after this call is missed.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Ended> + Send + use<>, EngineError> {
        let container = self.registry.find(name)?;
        let mut watch = container.watch();
        let exits = watch.borrow_and_update().state.exits;
        Ok(async move {
            let holds = |view: &Arc<View>| match condition {
                WaitCondition::NotRunning => {
                    !view.state.status.is_running() && view.state.status != Status::Restarting || view.removed
                }
                WaitCondition::NextExit => view.state.exits > exits || view.removed,
                WaitCondition::Removed => view.removed,
            };
            // The sender lives in the container that this future holds.
            let state = watch.wait_for(holds).await.map(|v| v.state.clone());
            drop(container);
            let Ok(state) = state else { return Ended { code: 0, error: String::new() } };
            // A container that was removed after a failed start has told whoever started it (moby `State.SetRemoved`).
            let error = if condition == WaitCondition::Removed { String::new() } else { state.error };
            Ended { code: state.exit_code, error }
        })
    }

    /// Records that a client left a container's terminal by its detach keys.
    pub fn detached(&self, name: &str) {
        if let Ok(container) = self.registry.find(name) {
            tell(&self.events, &container.view().record, "detach", &[]);
        }
    }

    /// Connects a client to a container's standard streams. A container that does not run yet is waited for.
    pub fn attach(&self, name: &str, wanted: Wanted) -> Result<(bool, Connecting), EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        match view.state.status {
            Status::Paused => {
                return Err(EngineError::AttachPaused(container.id.to_string()));
            }
            Status::Restarting => return Err(EngineError::AttachRestarting(container.id.to_string())),
            _ => {}
        }
        tell(&self.events, &view.record, "attach", &[]);
        let (tty, open_stdin) = (view.record.config.tty, view.record.config.open_stdin);
        let config = self.config.clone();
        let stdin = wanted.stdin && open_stdin;
        let request = AttachRequest {
            stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            from_start: view.task.is_none(),
            whole_line: wanted.logs,
        };
        // Registered now, before the client can start the container: the run waits for this client where it must.
        let attaching = Attaching::of(&container);
        let connecting: Connecting = Box::pin(async move {
            if !wanted.stream {
                return past(&config, &container.view(), request).await;
            }
            let connected = connect(&config, &container, &view, request, wanted.logs).await;
            drop(attaching);
            connected
        });
        Ok((tty, connecting))
    }

    /// Sets the size of the first process's terminal.
    pub async fn resize(&self, name: &str, height: u32, width: u32) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        let task = view.task.clone();
        let task = task.ok_or_else(|| EngineError::NotRunning(container.id.to_string()))?;
        if !view.record.config.tty {
            // Nothing has that size; moby takes the call, too.
            return Ok(());
        }
        Ok(task.shim.resize(None, width.min(65_535) as u16, height.min(65_535) as u16).await?)
    }

    /// Reads a container's log.
    pub fn logs(&self, name: &str, query: &Logs) -> Result<LogReading, EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        let tty = view.record.config.tty;
        let options = ReadOptions {
            since: query.since.map(timestamp),
            until: query.until.map(timestamp),
            tail: query.tail,
            follow: query.follow && view.state.status != Status::Removing,
            stdout: query.stdout,
            stderr: query.stderr,
            timestamps: query.timestamps,
            details: query.details,
            form: if tty { Form::Raw } else { Form::Frames },
            before: None,
        };
        let reader = open_log(&self.config, &view, options)?;
        let (sender, chunks) = mpsc::channel(4);
        if let Some(ending) = reader.ending() {
            let mut watch = container.watch();
            let (gone, runtime) = (sender.clone(), tokio::runtime::Handle::current());
            runtime.spawn(async move {
                // A container that restarts goes on writing.
                let done = |v: &Arc<View>| v.removed || (v.task.is_none() && v.state.status != Status::Restarting);
                tokio::select! {
                    _ = watch.wait_for(done) => {}
                    () = gone.closed() => {}
                }
                ending.finish();
                drop(container);
            });
        }
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 << 10)
            .spawn(move || read_log(reader, &sender))
            .map_err(|source| EngineError::File { operation: "start a thread for", path: "log".into(), source })?;
        Ok(LogReading { tty, chunks })
    }
}

/// Opens a container's log.
fn open_log(config: &EngineConfig, view: &View, options: ReadOptions) -> Result<Reader, EngineError> {
    use rustix::fs::{Mode, OFlags, open};
    let folder = config.container_folder(&view.record.id);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(&folder, flags, Mode::empty()).map_err(|e| EngineError::File {
        operation: "open",
        path: folder.clone(),
        source: e.into(),
    })?;
    let log = log_config(&view.record).map_err(StartError::Log)?;
    Ok(Reader::open(dir.as_fd(), view.record.id.as_str(), &log, options)?)
}

/// Reads to the end, on a thread of its own.
fn read_log(mut reader: Reader, chunks: &mpsc::Sender<Result<Vec<u8>, EngineError>>) {
    loop {
        let mut out = Vec::with_capacity(64 << 10);
        let progress = match reader.read(&mut out) {
            Ok(progress) => progress,
            Err(e) => {
                // The client may be gone.
                let _ = chunks.blocking_send(Err(e.into()));
                return;
            }
        };
        if !out.is_empty() && chunks.blocking_send(Ok(out)).is_err() {
            return;
        }
        match progress {
            Progress::More => {}
            Progress::End => return,
            Progress::Idle => {
                if let Err(e) = reader.wait(None) {
                    let _ = chunks.blocking_send(Err(e.into()));
                    return;
                }
            }
        }
    }
}

/// A client on its way to a container's streams.
struct Attaching(Arc<Container>);

impl Attaching {
    fn of(container: &Arc<Container>) -> Attaching {
        container.attaching.send_modify(|n| *n += 1);
        Attaching(container.clone())
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        self.0.attaching.send_modify(|n| *n -= 1);
    }
}

async fn connect(
    config: &EngineConfig,
    container: &Arc<Container>,
    first: &View,
    request: AttachRequest,
    logs: bool,
) -> Result<UnixStream, EngineError> {
    let mut watch = container.watch();
    let ready =
        |v: &Arc<View>| v.starting.is_some() || v.task.is_some() || v.removed || v.state.exits > first.state.exits;
    let waited = watch.wait_for(ready).await.map(|v| v.clone());
    let Ok(view) = waited else { return Err(EngineError::NotRunning(container.id.to_string())) };
    let shim = view.starting.clone().or_else(|| view.task.as_ref().map(|t| t.shim.clone()));
    let Some(shim) = shim else { return past(config, &view, request).await };
    match shim.attach(None, request).await {
        Ok(attached) => match attached.spool.filter(|_| logs) {
            Some(before) => join_past(config, &view, request, before, attached.stream).await,
            None => Ok(attached.stream),
        },
        // It ended and its shim went while this client was on the way: what it put out is in the log.
        Err(wharf_task::TaskError::Gone { .. }) => past(config, &view, request).await,
        Err(e) => Err(e.into()),
    }
}

/// The output of a container that has ended already, from its log.
async fn past(config: &EngineConfig, view: &View, request: AttachRequest) -> Result<UnixStream, EngineError> {
    let (client, mut ours) = UnixStream::pair().map_err(pair)?;
    if view.removed {
        // Its log went with it; the client gets an end of file.
        return Ok(client);
    }
    if let Some(mut chunks) = replay(config, view, request, None)? {
        tokio::spawn(async move {
            copy_chunks(&mut chunks, &mut ours).await;
        });
    }
    Ok(client)
}

/// What was put out before, then what the shim sends.
async fn join_past(
    config: &EngineConfig,
    view: &View,
    request: AttachRequest,
    before: Position,
    mut live: UnixStream,
) -> Result<UnixStream, EngineError> {
    let (client, mut ours) = UnixStream::pair().map_err(pair)?;
    let chunks = replay(config, view, request, Some(before))?;
    tokio::spawn(async move {
        if let Some(mut chunks) = chunks {
            copy_chunks(&mut chunks, &mut ours).await;
        }
        // Either side may leave at any time; then both ends close.
        let _ = tokio::io::copy_bidirectional(&mut ours, &mut live).await;
    });
    Ok(client)
}

async fn copy_chunks(chunks: &mut Chunks, to: &mut UnixStream) {
    use tokio::io::AsyncWriteExt;
    while let Some(Ok(chunk)) = chunks.recv().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

fn replay(
    config: &EngineConfig,
    view: &View,
    request: AttachRequest,
    before: Option<Position>,
) -> Result<Option<Chunks>, EngineError> {
    let options = ReadOptions {
        since: None,
        until: None,
        tail: None,
        follow: false,
        stdout: request.stdout,
        stderr: request.stderr,
        timestamps: false,
        details: false,
        form: if view.record.config.tty { Form::Raw } else { Form::Frames },
        before,
    };
    let reader = match open_log(config, view, options) {
        Ok(reader) => reader,
        // With driver `none` there is no past.
        Err(EngineError::Log(wharf_logs::LogError::Unreadable)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let (sender, chunks) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || read_log(reader, &sender));
    Ok(Some(chunks))
}

fn pair(source: std::io::Error) -> EngineError {
    StartError::File { operation: "connect", path: "socketpair".into(), source }.into()
}
