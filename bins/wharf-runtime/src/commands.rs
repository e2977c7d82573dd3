//! The commands.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_cgroup::systemd::{self, Scope};
use wharf_oci::runtime::{Spec, Status};
use wharf_runtime::{Container, CreateRequest, Gate, Stdio, start_by_socket, start_time};
use wharf_types::{Signal, Timestamp};

use crate::args::Invocation;
use crate::error::Error;
use crate::store::{self, Folder, Record};
use crate::supervise::{Foreground, hand_over};
use crate::{checkpoint, events, exec, features, listing, template, update};

/// How long `delete --force` waits for the first process to end.
const KILL: Duration = Duration::from_secs(10);

/// Runs a command and returns the exit code.
pub fn run(i: &Invocation) -> Result<u8, Error> {
    if let Some(text) = &i.print {
        return print(text);
    }
    match i.command.map_or("", |command| command.name) {
        "features" => print(&features::json()),
        "spec" => spec(i),
        "checkpoint" => checkpoint::checkpoint(i),
        "create" => create(i),
        "run" => run_container(i),
        "exec" => exec::run(i),
        "restore" => checkpoint::restore(i),
        "start" => start(i),
        "state" => state(i),
        "kill" => kill(i),
        "delete" => delete(i),
        "list" => listing::list(i),
        "ps" => listing::ps(i),
        "pause" => pause(i),
        "resume" => resume(i),
        "update" => update::run(i),
        "events" => events::run(i),
        other => Err(Error::NoCommand(other.to_owned())),
    }
}

/// Prints a text.
pub fn print(text: &str) -> Result<u8, Error> {
    // A reader that went away is no failure of the command.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// Reads a JSON file; `-` is standard input.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.map_err(|source| Error::File { what: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// A container just made, with its folder.
struct Made {
    folder: Folder,
    container: Container,
    /// systemd's unit, if its group is one.
    unit: Option<String>,
}

fn make(i: &Invocation, by_socket: bool) -> Result<Made, Error> {
    store::check_id(i.id())?;
    let (bundle, mut config) = bundle(i)?;
    let preserved = preserved(i, &mut config)?;
    let terminal = config.process.as_ref().is_some_and(|p| p.terminal);
    check_console(i, terminal, by_socket || i.is_set("detach"))?;
    let folder = store::make(&i.root, i.id())?;
    let rootless = is_rootless(i);
    let gate = || if by_socket { folder.listen().map(Gate::Socket) } else { Ok(Gate::Caller) };
    let made = gate().and_then(|gate| make_in(i, &bundle, &config, terminal, gate, preserved, rootless));
    match made {
        Ok(container) => {
            let (started, _) = start_time(container.pid()).unwrap_or_default();
            let pid = container.pid();
            let mut systemd = None;
            if let Some(path) = container.scope_path() {
                let linux = config.linux.get_or_insert_default();
                let asked = linux.cgroups_path.replace(path.to_owned()).unwrap_or_default();
                systemd = Scope::parse(&asked, i.id()).ok().map(|scope| scope.unit);
            }
            let record = Record {
                id: i.id().to_owned(),
                pid,
                started,
                bundle,
                created: Timestamp::now(),
                config,
                systemd,
                rootless,
            };
            let saved = folder.save(&record).and_then(|()| announce(i, pid, container.pidfd()));
            if let Err(e) = saved {
                undo(container, &folder);
                return Err(e);
            }
            Ok(Made { folder, container, unit: record.systemd })
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
    bundle: &Path,
    spec: &Spec,
    terminal: bool,
    gate: Gate,
    preserve_fds: u32,
    rootless: bool,
) -> Result<Container, Error> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut container = wharf_runtime::create(CreateRequest {
        id: i.id(),
        bundle,
        spec,
        rootfs_mounts: &[],
        stdio: if terminal { Stdio::Terminal } else { Stdio::Descriptors(streams) },
        netns: None,
        gate,
        preserve_fds,
        no_pivot: i.is_set("no-pivot"),
        no_new_keyring: i.is_set("no-new-keyring"),
        systemd: i.systemd,
        rootless,
    })
    .map_err(Error::Start)?;
    if let Some(socket) = i.value("console-socket")
        && let Some(console) = container.take_console()
        && let Err(e) = hand_over(Path::new(socket), "/dev/ptmx", console.as_fd())
    {
        let _ = container.delete();
        return Err(e);
    }
    Ok(container)
}

/// Writes `--pid-file` and hands the process to `--pidfd-socket`.
pub fn announce(i: &Invocation, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    if let Some(path) = i.value("pid-file") {
        store::write_whole(Path::new(path), pid.to_string().as_bytes(), 0o666)?;
    }
    i.value("pidfd-socket").map_or(Ok(()), |socket| hand_over(Path::new(socket), "pidfd", pidfd))
}

/// Whether to go on without cgroup rights: as told, or where nobody is root of the host (as runc's `auto`).
fn is_rootless(i: &Invocation) -> bool {
    i.rootless.unwrap_or_else(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        !rustix::process::geteuid().is_root() || !whole
    })
}

/// The bundle and its configuration.
pub fn bundle(i: &Invocation) -> Result<(PathBuf, Spec), Error> {
    let bundle = PathBuf::from(i.value("bundle").unwrap_or("."));
    let bundle = match bundle.canonicalize() {
        Ok(found) if found.is_dir() => found,
        Ok(found) => {
            return Err(Error::File { what: "chdir", path: found, source: std::io::ErrorKind::NotADirectory.into() });
        }
        Err(source) => return Err(Error::File { what: "chdir", path: bundle, source }),
    };
    let path = bundle.join("config.json");
    match read_json(&path) {
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::State(format!("JSON specification file {} not found", path.display())))
        }
        other => Ok((bundle, other?)),
    }
}

/// How many descriptors the process keeps: those asked for, and those of socket activation, which it is told of
/// (sd_listen_fds(3)).
pub fn preserved(i: &Invocation, config: &mut Spec) -> Result<u32, Error> {
    let asked = i.number("preserve-fds")?.unwrap_or(0);
    // Only if they are meant for this process: the variables may be inherited from one that is further up.
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let activated = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).filter(|n| ours && *n > 0);
    let Some(activated) = activated else { return Ok(asked) };
    if let Some(process) = &mut config.process {
        process.env.push(format!("LISTEN_FDS={activated}"));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    let open = |number: u32| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    let all = activated.saturating_add(asked).min(1 << 20);
    match (3..3 + all).find(|number| !open(*number)) {
        Some(number) => Err(Error::Usage(format!("please check that preserved-fd {number} (of {all}) is present"))),
        None => Ok(all),
    }
}

fn create(i: &Invocation) -> Result<u8, Error> {
    make(i, true).map(|_| 0)
}

fn run_container(i: &Invocation) -> Result<u8, Error> {
    let detached = i.is_set("detach");
    let foreground = if detached { None } else { Some(Foreground::new()?) };
    let Made { folder, mut container, unit } = make(i, false)?;
    let console = container.take_console();
    if let Err(failure) = container.start() {
        undo(container, &folder);
        return Err(Error::Start(failure));
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(container.pidfd(), console.as_ref());
    if !i.is_set("keep") {
        let ended = container.delete();
        if let Some(unit) = unit {
            end_scope(i, &unit);
        }
        forget(&folder, ended)?;
    }
    code
}

fn start(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
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
    let (folder, record) = store::open(&i.root, i.id())?;
    let value = listing::state(&record, folder.status(&record)?, "");
    print(&format!("{value:#}\n"))
}

fn kill(i: &Invocation) -> Result<u8, Error> {
    let (_, record) = store::open(&i.root, i.id())?;
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
    let (id, force) = (i.id(), i.is_set("force"));
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
    if let Some(unit) = &record.systemd {
        end_scope(i, unit);
    }
    forget(&folder, wharf_runtime::remove(&record.id, &record.bundle, &record.config))?;
    Ok(0)
}

/// Has systemd end the scope of a container that is over. It sees for itself that the group is empty or gone, so a manager that
/// does not answer is told of and keeps no state.
fn end_scope(i: &Invocation, unit: &str) {
    if let Err(e) = systemd::stop(unit) {
        crate::log::report(&i.log, "", &Error::Cgroup(e));
    }
}

/// Forgets a container that was taken away. A `poststop` hook that failed is reported and keeps nothing, or it could never be
/// deleted (runc removes its state before it says so).
pub fn forget(folder: &Folder, ended: Result<(), wharf_runtime::Error>) -> Result<(), Error> {
    if matches!(ended, Ok(()) | Err(wharf_runtime::Error::Configuration(_))) {
        folder.remove()?;
    }
    Ok(ended?)
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

fn pause(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
    match folder.status(&record)? {
        Status::Running | Status::Created => record.container()?.pause()?,
        _ => return Err(Error::Runtime(wharf_runtime::Error::NotRunning)),
    }
    Ok(0)
}

fn resume(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
    match folder.status(&record)? {
        Status::Paused => record.container()?.resume()?,
        _ => return Err(Error::State("container not paused".to_owned())),
    }
    Ok(0)
}

fn spec(i: &Invocation) -> Result<u8, Error> {
    let path = Path::new(i.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::State("File config.json exists. Remove it first".to_owned()));
    }
    let text = serde_json::to_string_pretty(&template::spec(i.is_set("rootless")))
        .map_err(|source| Error::Json { path: path.clone(), source })?;
    store::write_whole(&path, format!("{text}\n").as_bytes(), 0o666)?;
    Ok(0)
}
