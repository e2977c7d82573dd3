//! Further processes in running containers. An exec lives in memory and in its shim; it ends with its container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixStream;
use tokio::sync::watch;
use wharf_api_types::{ExecCreateRequest, ExecInspect, ExecStartRequest, ProcessConfig};
use wharf_error::HasKind;
use wharf_fault::point;
use wharf_task::{AttachRequest, ExecRequest, Shim, Stdin, TaskError};
use wharf_types::{ExecId, Signal};

use crate::container::{Container, Registry, Status, Task};
use crate::creator::tell;
use crate::events::Events;
use crate::rootfs::Root;
use crate::spec::{ExecInput, Identity, exec_process};
use crate::{EngineError, blocking, identity};

/// How an exec stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    /// Whom it runs as, once that was looked up.
    identity: Option<Identity>,
    started: bool,
    running: bool,
    pid: u32,
    exit_code: Option<i64>,
}

/// One exec.
struct Exec {
    id: ExecId,
    container: Arc<Container>,
    task: Task,
    request: ExecCreateRequest,
    run: watch::Sender<Run>,
}

impl Exec {
    /// Looks the asked-for user up in the files of the running container; `None` if none is asked for.
    async fn look_up(&self, task: &Task) -> Result<Option<Identity>, EngineError> {
        if self.request.user.is_empty() {
            return Ok(None);
        }
        let (user, pid) = (self.request.user.clone(), task.pid);
        let add = self.container.view().record.host.group_add.clone().unwrap_or_default();
        let looked_up = blocking(move || {
            let root = Root::of_process(pid).map_err(|e| EngineError::File {
                operation: "open the root file system of process",
                path: pid.to_string().into(),
                source: e.into(),
            })?;
            Ok::<_, EngineError>(identity::look_up(&user, &add, &root)?)
        });
        looked_up.await?.map(Some)
    }
}

/// All execs of one engine.
pub struct Execs {
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: Arc<Events>,
    all: Mutex<HashMap<String, Arc<Exec>>>,
}

/// An exec that was started with its streams attached.
#[derive(Debug)]
pub struct Attached {
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it takes input.
    pub stdin: bool,
    /// Its streams.
    pub stream: UnixStream,
}

/// What a start is asked to be.
#[derive(Debug)]
pub enum Started {
    /// It runs on its own.
    Detached,
    /// Its streams.
    Attached(Attached),
}

/// What an exec that is started attached will be, known before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it takes input.
    pub stdin: bool,
}

impl Execs {
    /// Makes an empty set.
    pub(crate) fn new(registry: Arc<Registry>, events: Arc<Events>) -> Execs {
        Execs { registry, events, all: Mutex::default() }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>, EngineError> {
        self.map().get(id).cloned().ok_or_else(|| EngineError::NoExec(id.to_owned()))
    }

    fn running_task(container: &Container, name: &str) -> Result<Task, EngineError> {
        let view = container.view();
        match (view.state.status, view.task.clone()) {
            (Status::Paused, _) => Err(EngineError::ExecPaused(name.to_owned())),
            (Status::Restarting, _) => Err(EngineError::Restarting(container.id.to_string())),
            (Status::Running, Some(task)) => Ok(task),
            _ => Err(EngineError::NotRunning(container.id.to_string())),
        }
    }

    /// Prepares an exec; returns its id.
    pub fn create(&self, name: &str, request: ExecCreateRequest) -> Result<ExecId, EngineError> {
        let container = self.registry.find(name)?;
        let task = Self::running_task(&container, name)?;
        let words = request.cmd.clone().unwrap_or_default();
        if words.is_empty() {
            return Err(EngineError::ExecEmpty);
        }
        if let Some(bad) = request.env.iter().flatten().find(|e| e.is_empty()) {
            return Err(crate::create::CreateError::Environment(bad.clone()).into());
        }
        let id = ExecId::from_bytes(crate::random_bytes());
        let exec = Exec { id: id.clone(), container: container.clone(), task, request, run: watch::Sender::default() };
        self.map().insert(id.to_string(), Arc::new(exec));
        let view = container.publish(|v| v.execs.push(id.clone()));
        let action = format!("exec_create: {}", shown(&words));
        tell(&self.events, &view.record, &action, &[("execID", id.to_string())]);
        point("exec.after-create");
        Ok(id)
    }

    /// What can be refused before the client is answered: an unknown exec, one that ran, a container that stopped, a user
    /// that does not exist.
    pub async fn check_start(&self, id: &str) -> Result<Shape, EngineError> {
        let exec = self.find(id)?;
        if exec.run.borrow().started {
            return Err(EngineError::ExecRan(id.to_owned()));
        }
        let task = Self::running_task(&exec.container, exec.container.id.as_str())?;
        let identity = exec.look_up(&task).await?;
        exec.run.send_modify(|run| run.identity = identity);
        Ok(Shape { tty: exec.request.tty, stdin: exec.request.attach_stdin })
    }

    /// The keys that detach a client from it; empty for the daemon's default.
    pub fn detach_keys(&self, id: &str) -> String {
        self.find(id).map(|exec| exec.request.detach_keys.clone()).unwrap_or_default()
    }

    /// Starts an exec.
    pub async fn start(self: &Arc<Self>, id: &str, request: ExecStartRequest) -> Result<Started, EngineError> {
        let exec = self.find(id)?;
        let first = exec.run.send_if_modified(|run| !std::mem::replace(&mut run.started, true));
        if !first {
            return Err(EngineError::ExecRan(id.to_owned()));
        }
        match self.try_start(&exec, &request).await {
            Ok(started) => Ok(started),
            Err(e) => {
                let code = match &e {
                    EngineError::ExecFailed(failure) | EngineError::OtherExecFailed(failure) => {
                        i64::from(failure.exit_code())
                    }
                    _ => 126,
                };
                exec.run.send_modify(|run| {
                    run.running = false;
                    run.exit_code = Some(code);
                });
                Err(e)
            }
        }
    }

    async fn try_start(self: &Arc<Self>, exec: &Arc<Exec>, request: &ExecStartRequest) -> Result<Started, EngineError> {
        let task = Self::running_task(&exec.container, exec.container.id.as_str())?;
        let wants = &exec.request;
        let known = exec.run.borrow().identity.clone();
        let user = match known {
            Some(identity) => Some(identity),
            None => exec.look_up(&task).await?,
        };
        let console = request.console_size.or(wants.console_size).map_or([0, 0], |pair| pair.0);
        let process = exec_process(&ExecInput {
            first: &task.process,
            args: wants.cmd.clone().unwrap_or_default(),
            env: wants.env.as_deref().unwrap_or_default(),
            cwd: &wants.working_dir,
            tty: wants.tty,
            console,
            privileged: wants.privileged,
            identity: user.as_ref(),
        });
        let stdin = if wants.attach_stdin && !request.detach { Stdin::Once } else { Stdin::Null };
        let view = exec.container.view();
        let action = format!("exec_start: {}", shown(wants.cmd.as_deref().unwrap_or_default()));
        tell(&self.events, &view.record, &action, &[("execID", exec.id.to_string())]);
        let prepared = ExecRequest {
            exec: exec.id.clone(),
            process: serde_json::to_vec(&process).unwrap_or_default(),
            terminal: wants.tty,
            stdin,
        };
        let shim = &task.shim;
        let own = crate::config::is_own_runtime(&view.record.host.runtime);
        shim.exec(prepared).await.map_err(|e| failed(e, own))?;
        point("exec.after-exec");
        let attach = AttachRequest {
            stdin: stdin != Stdin::Null,
            stdout: wants.attach_stdout,
            stderr: wants.attach_stderr,
            from_start: false,
            whole_line: false,
        };
        let attached = match request.detach {
            true => None,
            // Attached before it runs, because the output of an exec is kept nowhere.
            false => Some(shim.attach(Some(&exec.id), attach).await?),
        };
        let pid = match shim.start(Some(&exec.id)).await {
            Ok(pid) => pid,
            Err(e) => {
                // A process that could not be started has nothing more to release than its entry.
                let _ = shim.delete(Some(&exec.id)).await;
                return Err(failed(e, own));
            }
        };
        point("exec.after-start");
        exec.run.send_modify(|run| {
            run.running = true;
            run.pid = pid;
        });
        self.watch_end(exec.clone(), shim.clone());
        Ok(match attached {
            Some(a) => Started::Attached(Attached { tty: a.terminal, stdin: attach.stdin, stream: a.stream }),
            None => Started::Detached,
        })
    }

    fn watch_end(self: &Arc<Self>, exec: Arc<Exec>, shim: Shim) {
        let this = self.clone();
        tokio::spawn(async move {
            let code = match shim.wait(Some(&exec.id)).await {
                Ok(exit) => i64::from(exit.status),
                // The container ended, and the exec with it.
                Err(_) => i64::from(Signal::KILL.number()) + 128,
            };
            exec.run.send_modify(|run| {
                run.running = false;
                run.exit_code = Some(code);
            });
            let view = exec.container.view();
            let more = [("execID", exec.id.to_string()), ("exitCode", code.to_string())];
            tell(&this.events, &view.record, "exec_die", &more);
            exec.container.publish(|v| v.execs.retain(|e| *e != exec.id));
            point("exec.after-end");
            // Its entry in the shim goes; a shim that is gone has none.
            let _ = shim.delete(Some(&exec.id)).await;
            this.forget_later(exec);
        });
    }

    /// Keeps what clients ask for after the end, for a while: docker exec asks for the exit code.
    fn forget_later(self: &Arc<Self>, exec: Arc<Exec>) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(300)).await;
            this.map().remove(exec.id.as_str());
        });
    }

    /// Kills an exec.
    pub(crate) async fn kill(&self, id: &str) {
        if let Ok(exec) = self.find(id) {
            // One that has ended, or whose container has, needs no signal.
            let _ = exec.task.shim.kill(Some(&exec.id), Signal::KILL, false).await;
        }
    }

    /// Drops an exec that nobody will ask for: a health check's.
    pub(crate) fn forget(&self, id: &str) {
        self.map().remove(id);
    }

    /// Shows an exec.
    pub fn inspect(&self, id: &str) -> Result<ExecInspect, EngineError> {
        let exec = self.find(id)?;
        let run = exec.run.borrow().clone();
        let request = &exec.request;
        let mut words = request.cmd.clone().unwrap_or_default().into_iter();
        Ok(ExecInspect {
            id: exec.id.to_string(),
            running: run.running,
            exit_code: run.exit_code,
            process_config: ProcessConfig {
                tty: request.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: exec.container.id.to_string(),
            detach_keys: String::new(),
            pid: i64::from(run.pid),
        })
    }

    /// Waits until the exit code of an exec is known, so that who saw its output end can ask for the code at once. A
    /// process that closed its output and runs on is waited for no longer than ten seconds.
    pub async fn ended(&self, id: &str) {
        let Ok(exec) = self.find(id) else { return };
        let mut watch = exec.run.subscribe();
        let ended = watch.wait_for(|run| run.exit_code.is_some());
        if tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.is_err() {
            tracing::debug!(exec = id, "the output has ended, the process has not");
        }
    }

    /// Records that the client left an exec by its detach keys.
    pub fn detached(&self, id: &str) {
        if let Ok(exec) = self.find(id) {
            let record = exec.container.view().record.clone();
            tell(&self.events, &record, "exec_detach", &[("execID", exec.id.to_string())]);
        }
    }

    /// Sets an exec's terminal's size. One that is about to start is waited for.
    pub async fn resize(&self, id: &str, height: u32, width: u32) -> Result<(), EngineError> {
        let exec = self.find(id)?;
        let mut watch = exec.run.subscribe();
        let runs = watch.wait_for(|r| r.running || r.exit_code.is_some());
        // moby waits ten seconds for the start, too (`ContainerExecResize`).
        let limit = std::time::Duration::from_secs(10);
        if !matches!(tokio::time::timeout(limit, runs).await, Ok(Ok(run)) if run.running) {
            return Err(EngineError::ExecNotRunning(id.to_owned()));
        }
        let (columns, rows) = (width.min(65_535) as u16, height.min(65_535) as u16);
        Ok(exec.task.shim.resize(Some(&exec.id), columns, rows).await?)
    }
}

/// A command as events show it: moby puts a blank behind a single word.
fn shown(words: &[String]) -> String {
    match words {
        [one] => format!("{one} "),
        many => many.join(" "),
    }
}

/// `own` says whether it is our runtime that failed.
fn failed(error: TaskError, own: bool) -> EngineError {
    match error.failure() {
        Some(failure) if own => EngineError::ExecFailed(failure.clone()),
        Some(failure) => EngineError::OtherExecFailed(failure.clone()),
        None => {
            tracing::debug!(kind = ?error.kind(), "exec failed without a reason of its own");
            EngineError::Task(error)
        }
    }
}
