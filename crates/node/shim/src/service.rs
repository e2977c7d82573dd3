//! The task service: one function for each method of `containerd.task.v2.Task`, and ours.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{PidfdFlags, pidfd_open};
use wharf_fault::point;
use wharf_logs::Stream;
use wharf_oci::runtime::Process as Document;
use wharf_proto_task::record::RecordKind;
use wharf_proto_task::{Any, Code, Empty, Message, Request, Status, events, shim, task};
use wharf_types::{Failure, Mount, Signal, Stage, Timestamp};

use crate::attached::{From, Plan};
use crate::client::Reply;
use crate::container::{self, Container};
use crate::fifo::{self, Paths};
use crate::process::{Input, Phase, Pipes, Prepared, Process, terminal};
use crate::supervisor::{INIT, Supervisor};

pub(crate) type Answer = Result<Vec<u8>, Status>;

/// Execs that one container may hold, ended and not deleted ones included: a client cannot make the shim grow without
/// bound (CVE-2022-23471, CVE-2022-31030).
const MAX_PROCESSES: usize = 4096;

fn decode<M: Message + Default>(request: &Request) -> Result<M, Status> {
    M::decode(request.payload.as_slice())
        .map_err(|e| Status::new(Code::InvalidArgument, format!("{}: {e}", request.method)))
}

fn empty() -> Vec<u8> {
    Empty {}.encode_to_vec()
}

fn internal(what: &str, e: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, format!("{what}: {e}"))
}

pub(crate) fn failure(stage: Stage, what: &str, e: &std::io::Error) -> Status {
    Status::from_failure(&Failure { stage, errno: e.raw_os_error().unwrap_or(0), subject: what.to_owned() })
}

impl Supervisor {
    /// Carries out one call.
    pub(crate) fn dispatch(&mut self, client: u32, stream: u32, request: &Request) -> Reply {
        let now = match (request.service.as_str(), request.method.as_str()) {
            (task::SERVICE, "Wait") => return self.wait(client, stream, request),
            (shim::SERVICE, shim::ATTACH) => return self.attach(request),
            (shim::SERVICE, shim::HOLD) => decode(request).and_then(|r| self.hold(&r)),
            (task::SERVICE, "Create") => decode(request).and_then(|r| self.create(r)),
            (task::SERVICE, "Start") => decode(request).and_then(|r| self.start_process(&r)),
            (task::SERVICE, "Exec") => decode(request).and_then(|r| self.exec(r)),
            (task::SERVICE, "Kill") => decode(request).and_then(|r| self.kill(&r)),
            (task::SERVICE, "State") => decode(request).and_then(|r| self.state(&r)),
            (task::SERVICE, "Pids") => decode(request).and_then(|r| self.pids(&r)),
            (task::SERVICE, "ResizePty") => decode(request).and_then(|r| self.resize(&r)),
            (task::SERVICE, "CloseIO") => decode(request).and_then(|r| self.close_io(&r)),
            (task::SERVICE, "Delete") => decode(request).and_then(|r| self.delete(&r)),
            (task::SERVICE, "Connect") => decode(request).and_then(|r| self.connect(&r)),
            (task::SERVICE, "Shutdown") => decode(request).and_then(|r| self.shut_down(&r)),
            (task::SERVICE, "Pause") => decode(request).and_then(|r: task::PauseRequest| self.freeze(&r.id, true)),
            (task::SERVICE, "Resume") => decode(request).and_then(|r: task::ResumeRequest| self.freeze(&r.id, false)),
            (task::SERVICE, "Update") => decode(request).and_then(|r| self.update(&r)),
            (task::SERVICE, "Stats") => decode(request).and_then(|r| self.stats(&r)),
            (task::SERVICE, "Checkpoint") => decode(request).and_then(|r| self.checkpoint(&r)),
            (service, method) => Err(Status::new(Code::Unimplemented, format!("/{service}/{method} is not known"))),
        };
        Reply::Now(now)
    }

    pub(crate) fn check_id(&self, id: &str) -> Result<(), Status> {
        if id == self.args.id {
            return Ok(());
        }
        Err(Status::new(Code::NotFound, format!("container {id} is not served here")))
    }

    fn process(&mut self, id: &str, exec_id: &str) -> Result<(u32, &mut Process), Status> {
        self.check_id(id)?;
        let missing = || match exec_id {
            "" => Status::new(Code::NotFound, "container not created"),
            exec => Status::new(Code::NotFound, format!("exec {exec} not found")),
        };
        let number = self.find(exec_id).ok_or_else(missing)?;
        let process = self.processes.get_mut(&number).ok_or_else(missing)?;
        Ok((number, process))
    }

    fn container(&self) -> Result<&Container, Status> {
        self.container.as_ref().ok_or_else(|| Status::new(Code::NotFound, "container not running"))
    }

    fn create(&mut self, request: task::CreateTaskRequest) -> Answer {
        self.check_id(&request.id)?;
        if self.processes.contains_key(&INIT) {
            return Err(Status::new(Code::AlreadyExists, format!("container {} exists", request.id)));
        }
        let bundle = std::env::current_dir().map_err(|e| internal("task folder", e))?;
        let rootfs: Vec<Mount> = request.rootfs.into_iter().map(Mount::from).collect();
        let netns = self.netns.as_ref().map(std::os::fd::AsFd::as_fd);
        let paths = Paths { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        point("shim.create");
        let (mut process, ends) = self.prepare("", request.terminal, paths)?;
        if !request.checkpoint.is_empty() {
            // Brought back by Start, as containerd's runc shim does it.
            let images = absolute(&request.checkpoint)?;
            process.phase = Phase::Created(Some(Prepared::Restore { images, rootfs, ends }));
            self.processes.insert(INIT, process);
            self.tell_created(&bundle, 0, &request.checkpoint);
            return Ok(task::CreateTaskResponse { pid: 0 }.encode_to_vec());
        }
        let lent = ends.as_ref().map(|ends| ends.each_ref().map(std::os::fd::AsFd::as_fd));
        let made = container::create(&container::Plan {
            id: &self.args.id,
            bundle: &bundle,
            rootfs: &rootfs,
            netns,
            stdio: lent,
            runtime: self.args.runtime.as_ref(),
        });
        let (container, made) = made.map_err(|f| Status::from_failure(&f))?;
        process.pid = made.pid.unsigned_abs();
        if let Some(console) = made.console {
            process.take_console(console).map_err(|e| failure(Stage::Console, "terminal", &e))?;
        }
        self.container = Some(container);
        self.processes.insert(INIT, process);
        self.watch_oom();
        point("shim.created");
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.watch_output(INIT, stream);
        }
        self.watch_source(INIT);
        self.tell_created(&bundle, made.pid.unsigned_abs(), "");
        Ok(task::CreateTaskResponse { pid: made.pid.unsigned_abs() }.encode_to_vec())
    }

    fn exec(&mut self, request: task::ExecProcessRequest) -> Answer {
        self.check_id(&request.id)?;
        if request.exec_id.is_empty() || self.find(&request.exec_id).is_some() {
            return Err(Status::new(Code::AlreadyExists, format!("exec {:?} exists", request.exec_id)));
        }
        if self.processes.len() >= MAX_PROCESSES {
            return Err(Status::new(Code::ResourceExhausted, format!("container has {MAX_PROCESSES} execs already")));
        }
        let running = self.processes.get(&INIT).is_some_and(|p| matches!(p.phase, Phase::Running));
        if !running {
            return Err(Status::new(Code::FailedPrecondition, "container not running"));
        }
        let paths = Paths { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let json = request.spec.map(|any| any.value).unwrap_or_default();
        let document = serde_json::from_slice(&json)
            .map_err(|e| Status::new(Code::InvalidArgument, format!("process document: {e}")))?;
        let (mut process, ends) = self.prepare(&request.exec_id, request.terminal, paths)?;
        process.phase = Phase::Created(Some(Prepared::Exec { document: Box::new(document), ends }));
        let number = self.number();
        self.processes.insert(number, process);
        let container_id = self.args.id.clone();
        self.publish(&events::TaskExecAdded { container_id, exec_id: request.exec_id });
        Ok(empty())
    }

    /// A process that is to be, with the ends of its streams where it has no terminal.
    fn prepare(&self, exec_id: &str, terminal: bool, paths: Paths) -> Result<(Process, Option<[OwnedFd; 3]>), Status> {
        let wrong = |e: std::io::Error| failure(Stage::Process, "open standard streams", &e);
        if self.args.containerd.is_none() {
            let (stdin_open, stdin_once) = stdin_of(&paths.stdin)?;
            let mut process = Process::new(exec_id, terminal, stdin_open, stdin_once);
            if terminal {
                return Ok((process, None));
            }
            let pipes = Pipes::new(stdin_open).map_err(|e| failure(Stage::Process, "pipe", &e))?;
            let ends = process.take_pipes(pipes);
            return Ok((process, Some(ends)));
        }
        let mut process = Process::new(exec_id, terminal, !paths.stdin.is_empty(), true);
        let mut ends = None;
        if terminal {
            process.held = fifo::for_terminal(&paths).map_err(wrong)?;
        } else {
            let (theirs, stdin, held) = fifo::streams(&paths).map_err(wrong)?;
            (process.stdin, process.held, ends) = (stdin, held, Some(theirs));
        }
        process.paths = paths;
        Ok((process, ends))
    }

    fn tell_created(&mut self, bundle: &Path, pid: u32, checkpoint: &str) {
        let Some(process) = self.processes.get(&INIT) else { return };
        let Paths { stdin, stdout, stderr } = process.paths().clone();
        let io = Some(events::TaskIo { stdin, stdout, stderr, terminal: process.terminal });
        let (container_id, bundle) = (self.args.id.clone(), bundle.display().to_string());
        self.publish(&events::TaskCreate { container_id, bundle, io, checkpoint: checkpoint.to_owned(), pid });
    }

    fn start_process(&mut self, request: &task::StartRequest) -> Answer {
        let (number, process) = self.process(&request.id, &request.exec_id)?;
        let Phase::Created(prepared) = &mut process.phase else {
            return Err(Status::new(Code::FailedPrecondition, "process has been started already"));
        };
        let prepared = prepared.take();
        point("shim.start");
        let started = match prepared {
            Some(Prepared::Exec { document, ends }) => self.start_exec(number, &document, ends),
            Some(Prepared::Restore { images, rootfs, ends }) => self.restore(&images, &rootfs, ends),
            None => self.start_init(),
        };
        let process = self.processes.get_mut(&number);
        let pid = match (started, process) {
            (Ok(()), Some(process)) => {
                process.phase = Phase::Running;
                process.pid
            }
            (Err(status), _) => {
                if number != INIT {
                    self.drop_process(number);
                }
                return Err(status);
            }
            (Ok(()), None) => return Err(Status::new(Code::Internal, "process vanished")),
        };
        let put = self.records.put(RecordKind::Started, &request.exec_id, pid, 0, Timestamp::now());
        put.map_err(|e| internal("records", e))?;
        point("shim.started");
        self.resume_inputs(number);
        let container_id = self.args.id.clone();
        if number == INIT {
            self.publish(&events::TaskStart { container_id, pid });
        } else {
            self.publish(&events::TaskExecStarted { container_id, exec_id: request.exec_id.clone(), pid });
        }
        Ok(task::StartResponse { pid }.encode_to_vec())
    }

    fn start_init(&mut self) -> Result<(), Status> {
        let container = self.container.as_mut().ok_or_else(|| Status::new(Code::NotFound, "container not created"))?;
        container.start().map_err(|f| Status::from_failure(&f))
    }

    /// Brings the container back from a checkpoint; blocks as long as CRIU takes.
    fn restore(&mut self, images: &Path, rootfs: &[Mount], ends: Option<[OwnedFd; 3]>) -> Result<(), Status> {
        let bundle = std::env::current_dir().map_err(|e| internal("task folder", e))?;
        let plan = container::Plan {
            id: &self.args.id,
            bundle: &bundle,
            rootfs,
            netns: self.netns.as_ref().map(std::os::fd::AsFd::as_fd),
            stdio: ends.as_ref().map(|ends| ends.each_ref().map(std::os::fd::AsFd::as_fd)),
            runtime: self.args.runtime.as_ref(),
        };
        let (container, made) = container::restore(&plan, images).map_err(|e| status_of(&e))?;
        drop(ends);
        self.container = Some(container);
        if let Some(process) = self.processes.get_mut(&INIT) {
            process.pid = made.pid.unsigned_abs();
            if let Some(console) = made.console {
                process.take_console(console).map_err(|e| failure(Stage::Console, "terminal", &e))?;
            }
        }
        self.watch_oom();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.watch_output(INIT, stream);
        }
        self.watch_source(INIT);
        Ok(())
    }

    /// Writes the container to files; blocks as long as CRIU takes, in which the container stands still anyway.
    fn checkpoint(&mut self, request: &task::CheckpointTaskRequest) -> Answer {
        let (_, process) = self.process(&request.id, "")?;
        if !matches!(process.phase, Phase::Running) {
            return Err(Status::new(Code::FailedPrecondition, "container not running"));
        }
        let options = request.options.as_ref().map(|any| events::CheckpointOptions::decode(any.value.as_slice()));
        let options = options.transpose().map_err(|e| Status::new(Code::InvalidArgument, format!("options: {e}")))?;
        let options = options.unwrap_or_default();
        let bundle = std::env::current_dir().map_err(|e| internal("task folder", e))?;
        let named = |path: &str, other: &str| if path.is_empty() { other.to_owned() } else { path.to_owned() };
        let images = absolute(&named(&options.image_path, &request.path))?;
        let work = absolute(&named(&options.work_path, &bundle.to_string_lossy()))?;
        let words = criu_words(&options, self.args.runtime.is_some())?;
        let checkpoint = container::Checkpoint { images: &images, work: &work, exit: options.exit, words };
        self.container()?.checkpoint(&bundle, checkpoint).map_err(|e| status_of(&e))?;
        let (container_id, checkpoint) = (self.args.id.clone(), images.to_string_lossy().into_owned());
        self.publish(&events::TaskCheckpointed { container_id, checkpoint });
        Ok(empty())
    }

    fn start_exec(&mut self, number: u32, document: &Document, ends: Option<[OwnedFd; 3]>) -> Result<(), Status> {
        let made = self.container()?.exec(document, ends).map_err(|f| Status::from_failure(&f))?;
        let Some(process) = self.processes.get_mut(&number) else { return Ok(()) };
        process.pid = made.pid.unsigned_abs();
        if let Some(console) = made.console {
            process.take_console(console).map_err(|e| failure(Stage::Console, "terminal", &e))?;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.watch_output(number, stream);
        }
        self.watch_source(number);
        Ok(())
    }

    fn kill(&mut self, request: &task::KillRequest) -> Answer {
        let signal = Signal::from_number(i64::from(request.signal))
            .ok_or_else(|| Status::new(Code::InvalidArgument, format!("invalid signal {}", request.signal)))?;
        let (number, process) = self.process(&request.id, &request.exec_id)?;
        let pid = process.pid;
        if process.is_over() || pid == 0 {
            return Err(Status::new(Code::NotFound, "process already finished"));
        }
        if number == INIT {
            self.container()?.kill(signal, request.all).map_err(|e| status_of(&e))?;
            if signal == Signal::KILL && self.paused {
                // A frozen process of cgroup v1 dies when it is thawed (runc does the same).
                self.freeze(&request.id, false)?;
            }
        } else {
            send_signal(pid, signal).map_err(|e| internal("kill", e))?;
        }
        Ok(empty())
    }

    fn wait(&mut self, client: u32, stream: u32, request: &Request) -> Reply {
        let oom = self.oom_kills > 0;
        let found = decode(request).and_then(|r: task::WaitRequest| {
            let (_, process) = self.process(&r.id, &r.exec_id)?;
            if let Phase::Stopped { status, at } = process.phase {
                let answer = task::WaitResponse { exit_status: status, exited_at: Some(at.into()), oom };
                return Ok(Some(answer.encode_to_vec()));
            }
            process.waiters.push((client, stream));
            Ok(None)
        });
        match found {
            Ok(None) => Reply::Later,
            Ok(Some(answer)) => Reply::Now(Ok(answer)),
            Err(status) => Reply::Now(Err(status)),
        }
    }

    fn state(&mut self, request: &task::StateRequest) -> Answer {
        let (paused, bundle) = (self.paused, self.args.task_dir.display().to_string());
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let (status, exit_status, exited_at) = match process.phase {
            Phase::Created(_) => (task::Status::Created, 0, None),
            Phase::Running if paused => (task::Status::Paused, 0, None),
            // Until its output is in the spool, a process that ended counts as running: Wait has not answered either.
            Phase::Running | Phase::Draining { .. } => (task::Status::Running, 0, None),
            Phase::Stopped { status, at } => (task::Status::Stopped, status, Some(at.into())),
        };
        Ok(task::StateResponse {
            id: request.id.clone(),
            bundle,
            pid: process.pid,
            status: status as i32,
            stdin: process.paths().stdin.clone(),
            stdout: process.paths().stdout.clone(),
            stderr: process.paths().stderr.clone(),
            terminal: process.terminal,
            exit_status,
            exited_at,
            exec_id: request.exec_id.clone(),
        }
        .encode_to_vec())
    }

    fn pids(&mut self, request: &task::PidsRequest) -> Answer {
        self.check_id(&request.id)?;
        let pids = self.container()?.pids().map_err(|e| status_of(&e))?;
        let info = |pid: i32| task::ProcessInfo { pid: pid.unsigned_abs(), info: None };
        Ok(task::PidsResponse { processes: pids.into_iter().map(info).collect() }.encode_to_vec())
    }

    fn resize(&mut self, request: &task::ResizePtyRequest) -> Answer {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if !process.terminal {
            return Err(Status::new(Code::FailedPrecondition, "process has no terminal"));
        }
        // The kernel's fields have 16 bits; what is beyond is no size.
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        process.size = Some((clamp(request.width), clamp(request.height)));
        process.apply_size().map_err(|e| internal("resize", e))?;
        Ok(empty())
    }

    fn close_io(&mut self, request: &task::CloseIORequest) -> Answer {
        let (number, _) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            // What its writer put in before it asked is in the FIFO still.
            self.read_source(number);
            self.close_source(number);
            self.close_stdin(number);
        }
        Ok(empty())
    }

    fn delete(&mut self, request: &task::DeleteRequest) -> Answer {
        let (number, process) = self.process(&request.id, &request.exec_id)?;
        let pid = process.pid;
        let (status, at) = match process.phase {
            Phase::Stopped { status, at } => (status, at),
            Phase::Created(_) => {
                if number == INIT {
                    self.abandon();
                } else {
                    self.drop_process(number);
                }
                (0, Timestamp::default())
            }
            Phase::Running | Phase::Draining { .. } => {
                return Err(Status::new(Code::FailedPrecondition, "process is running"));
            }
        };
        if number != INIT {
            if let Some(process) = self.processes.get_mut(&number) {
                process.deleted = true;
            }
            self.forget_if_deleted(number);
        } else {
            self.release_container().map_err(|e| status_of(&e))?;
            let (container_id, id) = (self.args.id.clone(), self.args.id.clone());
            let exited_at = Some(at.into());
            self.publish(&events::TaskDelete { container_id, pid, exit_status: status, exited_at, id });
        }
        Ok(task::DeleteResponse { pid, exit_status: status, exited_at: Some(at.into()) }.encode_to_vec())
    }

    fn connect(&mut self, request: &task::ConnectRequest) -> Answer {
        self.check_id(&request.id)?;
        Ok(task::ConnectResponse {
            shim_pid: rustix::process::getpid().as_raw_pid().unsigned_abs(),
            task_pid: self.processes.get(&INIT).map_or(0, |p| p.pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
        .encode_to_vec())
    }

    fn shut_down(&mut self, request: &task::ShutdownRequest) -> Answer {
        self.check_id(&request.id)?;
        let runs = |p: &Process| matches!(p.phase, Phase::Running | Phase::Draining { .. });
        if self.processes.values().any(runs) {
            return Err(Status::new(Code::FailedPrecondition, "container is running"));
        }
        self.abandon();
        self.shutdown = Some(request.now || self.shutdown == Some(true));
        Ok(empty())
    }

    fn freeze(&mut self, id: &str, freeze: bool) -> Answer {
        self.check_id(id)?;
        self.container()?.freeze(freeze).map_err(|e| status_of(&e))?;
        self.paused = freeze;
        let container_id = self.args.id.clone();
        if freeze {
            self.publish(&events::TaskPaused { container_id });
        } else {
            self.publish(&events::TaskResumed { container_id });
        }
        Ok(empty())
    }

    fn update(&mut self, request: &task::UpdateTaskRequest) -> Answer {
        self.check_id(&request.id)?;
        let json = request.resources.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        let resources = serde_json::from_slice(json)
            .map_err(|e| Status::new(Code::InvalidArgument, format!("resources document: {e}")))?;
        self.container()?.update(&resources).map_err(|e| status_of(&e))?;
        Ok(empty())
    }

    fn stats(&mut self, request: &task::StatsRequest) -> Answer {
        self.check_id(&request.id)?;
        let cgroup = self.container()?.cgroup();
        let cgroup = cgroup.ok_or_else(|| Status::new(Code::FailedPrecondition, "container has no cgroup"))?;
        let stats = cgroup.stats().map_err(|e| internal("stats", wharf_error::Chain(&e)))?;
        if self.args.containerd.is_some() {
            let stats = Some(crate::metrics::any(&stats, cgroup.mode()));
            return Ok(task::StatsResponse { stats }.encode_to_vec());
        }
        let value = serde_json::to_vec(&stats).map_err(|e| internal("stats", e))?;
        let stats = Some(Any { type_url: shim::STATS_TYPE.to_owned(), value });
        Ok(task::StatsResponse { stats }.encode_to_vec())
    }

    fn attach(&mut self, request: &Request) -> Reply {
        let spool = self.spool.as_ref().map(wharf_logs::Writer::position);
        let planned = decode(request).and_then(|r: shim::AttachRequest| {
            let (number, process) = self.process(&r.id, &r.exec_id)?;
            let from = match r.logs_from() {
                shim::LogsFrom::Now => From::Now,
                shim::LogsFrom::Run => From::Run,
                shim::LogsFrom::Line => From::Line,
            };
            let stdin = r.stdin && process.stdin_open;
            let plan =
                Plan { process: number, stdin, stdout: r.stdout, stderr: r.stderr, framed: !process.terminal, from };
            let spool = spool.filter(|_| number == INIT);
            let answer = shim::AttachResponse {
                spool_inode: spool.map_or(0, |p| p.inode),
                spool_offset: spool.map_or(0, |p| p.offset),
                terminal: process.terminal,
            };
            Ok((plan, answer.encode_to_vec()))
        });
        match planned {
            Ok((plan, answer)) => Reply::Attach(Box::new(plan), answer),
            Err(status) => Reply::Now(Err(status)),
        }
    }
}

impl Process {
    fn new(exec_id: &str, terminal: bool, stdin_open: bool, stdin_once: bool) -> Process {
        Process {
            exec_id: exec_id.to_owned(),
            pid: 0,
            terminal,
            phase: Phase::Created(None),
            waiters: Vec::new(),
            stdout: None,
            stderr: None,
            stdin: None,
            console: None,
            size: None,
            stdin_once,
            stdin_open,
            early: Vec::new(),
            grace: None,
            paths: Paths::default(),
            held: fifo::Held::default(),
            deleted: false,
        }
    }

    fn take_pipes(&mut self, pipes: Pipes) -> [std::os::fd::OwnedFd; 3] {
        self.stdin = pipes.stdin;
        self.stdout = Some(pipes.stdout);
        self.stderr = Some(pipes.stderr);
        pipes.ends
    }

    fn take_console(&mut self, console: std::os::fd::OwnedFd) -> std::io::Result<()> {
        let (output, input) = terminal(&console)?;
        self.stdout = Some(output);
        if self.stdin_open {
            self.stdin = Some(Input::new(input)?);
        }
        self.console = Some(console);
        self.apply_size()
    }

    fn apply_size(&self) -> std::io::Result<()> {
        let (Some(console), Some((columns, rows))) = (&self.console, self.size) else { return Ok(()) };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(console, size)?)
    }
}

/// A path of a request, which must not depend on where we happen to be.
fn absolute(path: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(path);
    let wrong = || Status::new(Code::InvalidArgument, format!("checkpoint path {:?} is not absolute", path.display()));
    if path.is_absolute() { Ok(path) } else { Err(wrong()) }
}

/// containerd's options as words of CRIU, or of a runtime's `checkpoint`, which has mostly the same.
fn criu_words(options: &events::CheckpointOptions, foreign: bool) -> Result<Vec<String>, Status> {
    let switches = [
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ];
    let mut words: Vec<String> = switches.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()).collect();
    let mode = if options.cgroups_mode.is_empty() { "soft" } else { options.cgroups_mode.as_str() };
    if !matches!(mode, "soft" | "full" | "strict" | "ignore") {
        return Err(Status::new(Code::InvalidArgument, format!("invalid cgroups mode {mode:?}")));
    }
    match (foreign, options.cgroups_mode.is_empty()) {
        (true, true) => {}
        (true, false) => words.extend(["--manage-cgroups-mode".to_owned(), mode.to_owned()]),
        (false, _) => words.push(format!("--manage-cgroups={mode}")),
    }
    for namespace in &options.empty_namespaces {
        words.extend(match (namespace.as_str(), foreign) {
            ("network", false) => ["--empty-ns".to_owned(), "net".to_owned()],
            ("network", true) => ["--empty-ns".to_owned(), "network".to_owned()],
            (other, _) => {
                return Err(Status::new(Code::InvalidArgument, format!("namespace {other} is not supported")));
            }
        });
    }
    Ok(words)
}

/// Whether a process has stdin, and whether it ends with the first client that ends it.
fn stdin_of(field: &str) -> Result<(bool, bool), Status> {
    match field {
        "" => Ok((false, false)),
        shim::STDIN_KEPT => Ok((true, false)),
        shim::STDIN_ONCE => Ok((true, true)),
        other => {
            Err(Status::new(Code::InvalidArgument, format!("stdin {other:?}: only a real containerd gives paths")))
        }
    }
}

fn send_signal(pid: u32, signal: Signal) -> std::io::Result<()> {
    let gone = || std::io::Error::from(rustix::io::Errno::SRCH);
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    // It is our child and not reaped, so the number is still its own.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    wharf_sys::signal::send(std::os::fd::AsFd::as_fd(&pidfd), i32::from(signal.number()))
}

pub(crate) fn status_of(e: &container::Error) -> Status {
    use wharf_error::{Chain, HasKind, Kind};
    let code = match e.kind() {
        Kind::NotFound | Kind::Conflict => Code::NotFound,
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotImplemented => Code::Unimplemented,
        _ => Code::Internal,
    };
    Status::new(code, Chain(e).to_string())
}
