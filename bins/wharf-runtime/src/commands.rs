//! The commands.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_oci::runtime::{LinuxResources, Spec, Status};
use wharf_runtime::{Container, CreateRequest, Gate, Stdio, start_by_socket, start_time};
use wharf_types::{Signal, Timestamp};

use crate::args::{HELP, Invocation};
use crate::error::Error;
use crate::store::{self, Folder, Record};
use crate::supervise::{Foreground, hand_over};
use crate::{exec, features, template};

/// How long `delete --force` waits for the first process to end.
const KILL: Duration = Duration::from_secs(10);

/// Runs a command and returns the exit code.
pub fn run(i: &Invocation) -> Result<u8, Error> {
    match i.command {
        "help" => print(HELP),
        "version" => print(&features::version()),
        "features" => print(&features::json()),
        "spec" => spec(i),
        "create" => create(i),
        "run" => run_container(i),
        "exec" => exec::run(i),
        "start" => start(i),
        "state" => state(i),
        "kill" => kill(i),
        "delete" => delete(i),
        "list" => list(i),
        "ps" => ps(i),
        "pause" => with_container(i, Container::pause),
        "resume" => with_container(i, Container::resume),
        "update" => update(i),
        other => Err(Error::Usage(format!("No help topic for '{other}'"))),
    }
}

fn print(text: &str) -> Result<u8, Error> {
    // A reader that went away is no failure of the command.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// The one word that is the container's id.
pub fn id(i: &Invocation) -> Result<&str, Error> {
    match i.words.as_slice() {
        [id, ..] if !id.is_empty() => Ok(id),
        _ => Err(Error::Usage(format!("{}: \"container-id\" is required", i.command))),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.map_err(|source| Error::File { what: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Reads a `process` object.
pub fn read_process(path: &Path) -> Result<wharf_oci::runtime::Process, Error> {
    read_json(path)
}

/// A container just made, with its folder.
struct Made {
    folder: Folder,
    container: Container,
}

fn make(i: &Invocation, by_socket: bool) -> Result<Made, Error> {
    let id = id(i)?;
    let bundle = PathBuf::from(i.value("bundle").unwrap_or("."));
    let bundle = bundle.canonicalize().map_err(|source| Error::File { what: "find bundle", path: bundle, source })?;
    let config: Spec = read_json(&bundle.join("config.json"))?;
    let terminal = config.process.as_ref().is_some_and(|p| p.terminal);
    check_console(i, terminal, by_socket || i.is_set("detach"))?;
    let folder = store::make(&i.root, id)?;
    let made = make_in(i, &folder, &bundle, &config, terminal, by_socket);
    match made {
        Ok(container) => {
            let (started, _) = start_time(container.pid()).unwrap_or_default();
            let pid = container.pid();
            let record = Record { id: id.to_owned(), pid, started, bundle, created: Timestamp::now(), config };
            let saved = folder.save(&record).and_then(|()| write_pid(i, pid));
            if let Err(e) = saved {
                undo(container, &folder);
                return Err(e);
            }
            Ok(Made { folder, container })
        }
        Err(e) => {
            // What failed first is what counts.
            let _ = folder.remove();
            Err(e)
        }
    }
}

fn undo(container: Container, folder: &Folder) {
    // Undoing after another failure, which is the one that is reported.
    let _ = container.kill(Signal::KILL, true);
    let _ = container.delete();
    let _ = folder.remove();
}

fn check_console(i: &Invocation, terminal: bool, detached: bool) -> Result<(), Error> {
    let socket = i.value("console-socket").is_some();
    let text = match (terminal, detached, socket) {
        (true, true, false) => "cannot allocate tty if runc will detach without setting console socket",
        (false, _, true) => "cannot use console socket if runc will not detach or allocate tty",
        _ => return Ok(()),
    };
    Err(Error::Usage(text.to_owned()))
}

fn make_in(
    i: &Invocation,
    folder: &Folder,
    bundle: &Path,
    spec: &Spec,
    terminal: bool,
    by_socket: bool,
) -> Result<Container, Error> {
    let gate = if by_socket { Gate::Socket(folder.listen()?) } else { Gate::Caller };
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut container = wharf_runtime::create(CreateRequest {
        id: id(i)?,
        bundle,
        spec,
        rootfs_mounts: &[],
        stdio: if terminal { Stdio::Terminal } else { Stdio::Descriptors(streams) },
        netns: None,
        gate,
        preserve_fds: i.number("preserve-fds")?,
        no_pivot: i.is_set("no-pivot"),
        no_new_keyring: i.is_set("no-new-keyring"),
    })
    .map_err(Error::Start)?;
    if let Some(socket) = i.value("console-socket")
        && let Some(console) = container.take_console()
        && let Err(e) = hand_over(Path::new(socket), &console)
    {
        let _ = container.delete();
        return Err(e);
    }
    Ok(container)
}

/// Writes `--pid-file`.
pub fn write_pid(i: &Invocation, pid: i32) -> Result<(), Error> {
    match i.value("pid-file") {
        Some(path) => store::write_whole(Path::new(path), pid.to_string().as_bytes(), 0o666),
        None => Ok(()),
    }
}

fn create(i: &Invocation) -> Result<u8, Error> {
    make(i, true).map(|_| 0)
}

fn run_container(i: &Invocation) -> Result<u8, Error> {
    let detached = i.is_set("detach");
    let foreground = if detached { None } else { Some(Foreground::new()?) };
    let Made { folder, mut container } = make(i, false)?;
    let console = container.take_console();
    if let Err(failure) = container.start() {
        undo(container, &folder);
        return Err(Error::Start(failure));
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(container.pidfd(), console.as_ref());
    if !i.is_set("keep") {
        container.delete()?;
        folder.remove()?;
    }
    code
}

fn start(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, id(i)?)?;
    let status = folder.status(&record)?;
    if status != Status::Created {
        let text = match status {
            Status::Stopped => "cannot start a container that has stopped",
            _ => "cannot start an already running container",
        };
        return Err(Error::State(text.to_owned()));
    }
    let Some(connection) = folder.connect()? else {
        return Err(Error::State("cannot start an already running container".to_owned()));
    };
    let started = start_by_socket(connection.as_fd());
    folder.remove_gate()?;
    started.map_err(Error::Start)?;
    if record.config.hooks.as_ref().is_some_and(|h| !h.poststart.is_empty()) {
        match record.container() {
            Ok(container) => container.started().map_err(Error::Start)?,
            // It ended already.
            Err(wharf_runtime::Error::NotRunning) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(0)
}

fn state(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, id(i)?)?;
    let mut value = serde_json::to_value(record.state(folder.status(&record)?))
        .map_err(|source| Error::Json { path: PathBuf::from("state"), source })?;
    let rootfs = record.config.root.as_ref().map(|r| record.bundle.join(&r.path));
    value["rootfs"] = serde_json::json!(rootfs);
    value["created"] = serde_json::json!(record.created.to_string());
    value["owner"] = serde_json::json!("");
    print(&format!("{value:#}\n"))
}

fn kill(i: &Invocation) -> Result<u8, Error> {
    let (_, record) = store::open(&i.root, id(i)?)?;
    let name = i.words.get(1).map_or("TERM", String::as_str);
    let signal = Signal::parse(name).map_err(|e| Error::Usage(e.to_string()))?;
    match record.container() {
        Ok(container) => container.kill(signal, i.is_set("all"))?,
        // The rest of its cgroup may still run where it shared the host's process ids.
        Err(wharf_runtime::Error::NotRunning) if i.is_set("all") => {
            wharf_runtime::kill_rest(&record.id, &record.config)?;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(0)
}

fn delete(i: &Invocation) -> Result<u8, Error> {
    let (id, force) = (id(i)?, i.is_set("force"));
    let (folder, record) = match store::open(&i.root, id) {
        Err(Error::NoSuchContainer) if force => return Ok(0),
        other => other?,
    };
    let status = folder.status(&record)?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        let text = format!("cannot delete container {id} that is not stopped: {}", status.as_str());
        return Err(Error::State(text));
    }
    if status != Status::Stopped {
        match record.container() {
            Ok(container) => {
                container.kill(Signal::KILL, true)?;
                if status == Status::Paused {
                    container.resume()?;
                }
                wait_gone(record.pid, id)?;
            }
            Err(wharf_runtime::Error::NotRunning) => {}
            Err(e) => return Err(e.into()),
        }
    }
    wharf_runtime::remove(&record.id, &record.bundle, &record.config)?;
    folder.remove()?;
    Ok(0)
}

/// Waits until a killed process has ended; whose child it is does not matter.
fn wait_gone(pid: i32, id: &str) -> Result<(), Error> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let deadline = Instant::now() + KILL;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err(Error::State(format!("container {id} does not end after SIGKILL"))),
            other => return other.map(drop).map_err(|e| Error::Wait(e.into())),
        }
    }
}

fn list(i: &Invocation) -> Result<u8, Error> {
    let mut rows = Vec::new();
    for id in store::ids(&i.root)? {
        match store::open(&i.root, &id) {
            Ok((folder, record)) => rows.push((folder.status(&record)?, record)),
            // Being made or removed just now.
            Err(Error::NoSuchContainer) => {}
            Err(e) => return Err(e),
        }
    }
    if i.is_set("quiet") {
        return print(&rows.iter().map(|(_, r)| format!("{}\n", r.id)).collect::<String>());
    }
    match i.value("format") {
        Some("json") => {
            let states: Vec<serde_json::Value> = rows
                .iter()
                .map(|(status, r)| {
                    let state = r.state(*status);
                    serde_json::json!({"ociVersion": state.oci_version, "id": state.id, "pid": state.pid,
                        "status": status.as_str(), "bundle": state.bundle, "created": r.created.to_string(), "owner": ""})
                })
                .collect();
            print(&format!("{}\n", serde_json::Value::Array(states)))
        }
        None | Some("table") => {
            let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            for (status, r) in &rows {
                let pid = if *status == Status::Stopped { 0 } else { r.pid };
                let bundle = r.bundle.display().to_string();
                let created = r.created.to_string();
                table.push([
                    r.id.clone(),
                    pid.to_string(),
                    status.as_str().to_owned(),
                    bundle,
                    created,
                    "root".to_owned(),
                ]);
            }
            print(&columns(&table))
        }
        Some(_) => Err(Error::Usage("invalid format option".to_owned())),
    }
}

/// Lines up columns three spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|r| r[at].chars().count()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().enumerate().map(|(at, cell)| format!("{cell:<w$}", w = width(at))).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn with_container(i: &Invocation, work: fn(&Container) -> Result<(), wharf_runtime::Error>) -> Result<u8, Error> {
    let (_, record) = store::open(&i.root, id(i)?)?;
    work(&record.container()?)?;
    Ok(0)
}

fn ps(i: &Invocation) -> Result<u8, Error> {
    let (_, record) = store::open(&i.root, id(i)?)?;
    if i.value("format") != Some("json") {
        return Err(Error::Usage("ps: only --format json is supported".to_owned()));
    }
    let pids = record.container()?.pids()?;
    print(&format!("{}\n", serde_json::json!(pids)))
}

fn update(i: &Invocation) -> Result<u8, Error> {
    let (_, record) = store::open(&i.root, id(i)?)?;
    let Some(path) = i.value("resources") else {
        return Err(Error::Usage("update: only --resources FILE is supported".to_owned()));
    };
    let resources: LinuxResources = read_json(Path::new(path))?;
    record.container()?.update(&resources)?;
    Ok(0)
}

fn spec(i: &Invocation) -> Result<u8, Error> {
    let path = Path::new(i.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::State("File config.json exists. Remove it first".to_owned()));
    }
    let text =
        serde_json::to_string_pretty(&template::spec()).map_err(|source| Error::Json { path: path.clone(), source })?;
    store::write_whole(&path, format!("{text}\n").as_bytes(), 0o666)?;
    Ok(0)
}
