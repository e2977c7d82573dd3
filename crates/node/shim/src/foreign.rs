//! A container made by an OCI runtime of another maker, called as containerd calls it: `create`, `start`, `exec --detach`,
//! `kill`, `delete`, `pause`, `resume`, `update`, `ps`.
//!
//! What it makes is a child of ours by the end of the call, because we are subreaper; so streams, attach, exits and records
//! are the same as with the library. Figures and the out-of-memory watch come from the cgroup that the configuration names.
//!
//! ```text
//! <task folder>/oci/        the runtime's own state (--root), gone with the task
//! <task folder>/oci.json    what it logged: the last error becomes ours
//! <task folder>/rootfs      the root file system, mounted in a mount namespace of this shim: it goes with us
//! ```
//!
//! The runtime is started without a shell, with our working directory (the bundle) and an environment of `PATH` alone.

use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde_json::{Value, json};
use wharf_cgroup::{Cgroup, Layout};
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime as oci;
use wharf_sys::exec::Strings;
use wharf_sys::spawn::{Spawn, spawn};
use wharf_types::{Failure, Signal, Stage};

use crate::args::Runtime;
use crate::container::{Checkpoint, Made, Plan};

/// State folder and log, in the task folder.
const STATE: &str = "oci";
const LOG: &str = "oci.json";
const PID_FILE: &str = "oci.pid";
const CONSOLE: &str = "console.sock";

/// What the runtime finds programs by, as in Debian's root shell. Nothing of dockerd's environment reaches it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what a runtime says is read.
const WORDS: u64 = 64 << 10;

/// How long the cgroup may take to become empty.
const CLEARING: Duration = Duration::from_secs(5);

/// Why a call of the other runtime failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The runtime refused; its own words.
    #[error("{text}")]
    Refused {
        /// What it said.
        text: String,
        /// Whether the container's process is not there any more.
        gone: bool,
    },
    /// A step of ours failed.
    #[error("{what}: {source}")]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Refused { gone: true, .. } => Kind::Conflict,
            Error::Refused { .. } | Error::System { .. } => Kind::System,
        }
    }
}

fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::System { what, source: e.into() }
}

/// A container of another runtime.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: Runtime,
    id: String,
    /// Absolute path of the task folder, which is the working directory, too.
    bundle: String,
    /// The first process; none if the runtime named none that exists.
    pidfd: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    mounted: bool,
    /// The user namespace that the runtime finds by our descriptor.
    users: Option<OwnedFd>,
}

/// What a call left behind: how it ended, and what it printed.
struct Done {
    success: bool,
    printed: String,
}

impl Foreign {
    /// Mounts the root file system and has the runtime make the container.
    pub(crate) fn create(runtime: &Runtime, plan: &Plan<'_>) -> Result<(Foreign, Made), Failure> {
        Self::make_by(runtime, plan, &["create"])
    }

    /// Mounts the root file system and has the runtime bring the container back.
    pub(crate) fn restore(runtime: &Runtime, plan: &Plan<'_>, images: &Path) -> Result<(Foreign, Made), Failure> {
        let (images, work) = (images.to_string_lossy(), plan.bundle.to_string_lossy());
        Self::make_by(runtime, plan, &["restore", "--detach", "--image-path", &images, "--work-path", &work])
    }

    fn make_by(runtime: &Runtime, plan: &Plan<'_>, words: &[&str]) -> Result<(Foreign, Made), Failure> {
        let wrong = |stage, what: &'static str| {
            move |e: std::io::Error| Failure { stage, errno: e.raw_os_error().unwrap_or(0), subject: what.to_owned() }
        };
        let mut foreign = Foreign {
            runtime: runtime.clone(),
            id: plan.id.to_owned(),
            bundle: plan.bundle.to_string_lossy().into_owned(),
            pidfd: None,
            cgroup: None,
            mounted: false,
            users: None,
        };
        let mut config = read_config().map_err(wrong(Stage::Config, "reading config.json"))?;
        own_namespace().map_err(wrong(Stage::Namespace, "a mount namespace for the root file system"))?;
        if !plan.rootfs.is_empty() {
            wharf_runtime::mount_root(plan.rootfs, Path::new("rootfs"))?;
            foreign.mounted = true;
            // Mounting may have left for the layers' folder.
            std::env::set_current_dir(plan.bundle).map_err(wrong(Stage::Rootfs, "entering the bundle"))?;
        }
        let users = plan.netns.map(wharf_runtime::other_owner).transpose()?.flatten();
        adapt(&mut config, users.as_ref()).map_err(wrong(Stage::Mount, "naming what the shim holds"))?;
        foreign.users = users;
        write_config(&config).map_err(wrong(Stage::Config, "writing config.json"))?;
        let bundle = foreign.bundle.clone();
        let words: Vec<&str> = words.iter().copied().chain(["--bundle", bundle.as_str()]).collect();
        let made = match foreign.make(&words, plan.stdio) {
            Ok(made) => made,
            Err(failure) => {
                // What it made before it failed; its first process, if there was one, is a child of ours and reaped as such.
                let _ = foreign.call(&["delete", "--force", &foreign.id]);
                foreign.unmount();
                return Err(failure);
            }
        };
        foreign.pidfd = Pid::from_raw(made.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let path = config.pointer("/linux/cgroupsPath").and_then(Value::as_str).unwrap_or_default();
        foreign.cgroup = Layout::detect().and_then(|layout| Cgroup::open(&layout, path)).ok();
        Ok((foreign, made))
    }

    /// Lets the first process become the user's program.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        self.call(&["start", &self.id]).map(drop).map_err(failure)
    }

    /// Runs a further process.
    pub(crate) fn exec(&self, process: &oci::Process, ends: Option<[BorrowedFd<'_>; 3]>) -> Result<Made, Failure> {
        let wrong = |e: std::io::Error| Failure {
            stage: Stage::Config,
            errno: e.raw_os_error().unwrap_or(0),
            subject: "writing the process document".to_owned(),
        };
        let path = format!("{}/process.json", self.bundle);
        let json = serde_json::to_vec(process).unwrap_or_default();
        std::fs::write(&path, json).map_err(wrong)?;
        let made = self.make(&["exec", "--detach", "--process", &path], ends);
        // It may hold secrets in its environment.
        let _ = std::fs::remove_file(&path);
        made
    }

    /// Signals the first process, or all.
    pub(crate) fn kill(&self, signal: Signal, all: bool) -> Result<(), Error> {
        let number = signal.number().to_string();
        if !all {
            return self.call(&["kill", &self.id, &number]).map(drop);
        }
        match (self.call(&["kill", "--all", &self.id, &number]), &self.cgroup) {
            (Err(_), Some(cgroup)) if signal == Signal::KILL => {
                // Some runtimes have no --all, or refuse it once the first process is over.
                cgroup.kill_all().map_err(|e| system("ending the container's processes")(std::io::Error::other(e)))
            }
            (outcome, _) => outcome.map(drop),
        }
    }

    /// Ids of all processes.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Error> {
        let printed = self.call(&["ps", "--format", "json", &self.id])?;
        serde_json::from_str::<Option<Vec<i32>>>(printed.trim())
            .map(Option::unwrap_or_default)
            .map_err(|e| system("reading the list of processes")(std::io::Error::other(e)))
    }

    /// Freezes all processes, or lets them go on.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<(), Error> {
        self.call(&[if freeze { "pause" } else { "resume" }, &self.id]).map(drop)
    }

    /// Writes the processes to files.
    pub(crate) fn checkpoint(&self, checkpoint: &Checkpoint<'_>) -> Result<(), Error> {
        let (images, work) = (checkpoint.images.to_string_lossy(), checkpoint.work.to_string_lossy());
        let mut words = vec!["checkpoint", "--image-path", &images, "--work-path", &work];
        if !checkpoint.exit {
            words.push("--leave-running");
        }
        words.extend(checkpoint.words.iter().map(String::as_str));
        words.push(&self.id);
        self.call(&words).map(drop)
    }

    /// Changes limits.
    pub(crate) fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        let path = format!("{}/resources.json", self.bundle);
        std::fs::write(&path, serde_json::to_vec(resources).unwrap_or_default()).map_err(system("writing limits"))?;
        let done = self.call(&["update", "--resources", &path, &self.id]).map(drop);
        let _ = std::fs::remove_file(&path);
        done
    }

    /// Its cgroup, if the configuration named one that exists.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Ends the first process if it runs still, has the runtime forget the container, and takes away what it may have left.
    pub(crate) fn delete(mut self) -> Result<(), Error> {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            // ECHILD: reaped already.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        let outcome = self.call(&["delete", "--force", &self.id]).map(drop);
        if let Some(cgroup) = &self.cgroup {
            let rest = cgroup.pids().is_ok_and(|pids| !pids.is_empty());
            let cleared = if rest { cgroup.kill_all() } else { Ok(()) };
            let cleared = cleared.and_then(|()| cgroup.delete(Instant::now() + CLEARING));
            cleared.map_err(|e| system("removing the cgroup")(std::io::Error::other(e)))?;
        }
        self.unmount();
        outcome
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            // It goes with our mount namespace at the latest.
            let _ = rustix::mount::unmount("rootfs", rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// A call that makes a process: with these streams, or with a terminal whose controlling end the runtime sends.
    fn make(&self, words: &[&str], ends: Option<[BorrowedFd<'_>; 3]>) -> Result<Made, Failure> {
        let pid_path = format!("{}/{PID_FILE}", self.bundle);
        let _ = std::fs::remove_file(&pid_path);
        let mut words = words.to_vec();
        words.extend(["--pid-file", &pid_path]);
        let socket = match ends {
            Some(_) => None,
            None => Some(Console::listen().map_err(|e| Failure {
                stage: Stage::Console,
                errno: e.raw_os_error().unwrap_or(0),
                subject: "console socket".to_owned(),
            })?),
        };
        if socket.is_some() {
            words.extend(["--console-socket", CONSOLE]);
        }
        words.push(&self.id);
        let done = self.run(&words, ends).map_err(failure)?;
        if !done.success {
            return Err(failure(self.refused(done)));
        }
        let pid = std::fs::read_to_string(&pid_path).ok().and_then(|text| text.trim().parse().ok());
        let _ = std::fs::remove_file(&pid_path);
        let pid = pid.ok_or_else(|| verbatim("the runtime wrote no process id"))?;
        let console = socket.map(Console::receive).transpose();
        let console = console.map_err(|e| verbatim(&format!("the runtime sent no terminal: {e}")))?;
        Ok(Made { pid, console })
    }

    /// A call that makes no process. Returns what it printed.
    fn call(&self, words: &[&str]) -> Result<String, Error> {
        let done = self.run(words, None)?;
        if done.success { Ok(done.printed) } else { Err(self.refused(done)) }
    }

    /// Runs the program to its end. Without streams it has `/dev/null`, and what it prints is returned.
    fn run(&self, words: &[&str], ends: Option<[BorrowedFd<'_>; 3]>) -> Result<Done, Error> {
        let _ = std::fs::remove_file(LOG);
        let program = self.runtime.path.as_str();
        let fixed = ["--root", STATE, "--log", LOG, "--log-format", "json"];
        // Absolute: some runtimes leave the working directory before they use these.
        let fixed = fixed.map(|w| if w == STATE || w == LOG { format!("{}/{w}", self.bundle) } else { w.to_owned() });
        let all = [program.to_owned()].into_iter().chain(self.runtime.args.iter().cloned()).chain(fixed);
        let all = all.chain(words.iter().map(|w| (*w).to_owned()));
        let failed = system("running the OCI runtime");
        let nul = |e: std::ffi::NulError| system("running the OCI runtime")(std::io::Error::from(e));
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let output = rustix::fs::memfd_create("oci", MemfdFlags::CLOEXEC).map_err(system("memfd"))?;
        let streams = ends.unwrap_or([null.as_fd(), output.as_fd(), output.as_fd()]);
        let program = std::ffi::CString::new(program).map_err(nul)?;
        let spawned = spawn(&Spawn {
            program: &program,
            args: &Strings::new(all).map_err(nul)?,
            env: &Strings::new([PATH]).map_err(nul)?,
            descriptors: &[(streams[0], 0), (streams[1], 1), (streams[2], 2)],
            directory: None,
            new_session: false,
        })
        .map_err(|e| not_found(&self.runtime.path, e))?;
        let ended = loop {
            match waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                other => break other.map_err(system("waiting for the OCI runtime"))?,
            }
        };
        let success = ended.and_then(|status| status.exit_status()) == Some(0);
        let mut file = std::fs::File::from(output);
        let mut printed = Vec::new();
        file.rewind().map_err(system("reading what the OCI runtime printed"))?;
        file.take(WORDS).read_to_end(&mut printed).map_err(system("reading what the OCI runtime printed"))?;
        Ok(Done { success, printed: String::from_utf8_lossy(&printed).into_owned() })
    }

    /// The last error of its log, else what it printed.
    fn refused(&self, done: Done) -> Error {
        let mut log = String::new();
        if let Ok(file) = std::fs::File::open(LOG) {
            let _ = file.take(WORDS).read_to_string(&mut log);
        }
        let last = log.lines().rev().find_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let level = entry["level"].as_str().unwrap_or("error");
            let text = entry["msg"].as_str().map(str::trim).filter(|text| !text.is_empty())?;
            matches!(level, "error" | "fatal" | "panic").then(|| text.to_owned())
        });
        let printed = done.printed.trim();
        let text = match last {
            Some(text) => text,
            None if !printed.is_empty() => printed.to_owned(),
            None => format!("{} failed and said nothing", self.runtime.path),
        };
        let gone = self.pidfd.as_ref().is_some_and(|pidfd| {
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&now)) == Ok(1)
        });
        Error::Refused { text, gone }
    }
}

/// Go's words for a program that cannot be run, which Docker's clients see.
fn not_found(path: &str, e: std::io::Error) -> Error {
    let text = match e.kind() {
        std::io::ErrorKind::NotFound if path.contains('/') => {
            format!("fork/exec {path}: no such file or directory")
        }
        std::io::ErrorKind::NotFound => format!("exec: {path:?}: executable file not found in $PATH"),
        std::io::ErrorKind::PermissionDenied => format!("fork/exec {path}: permission denied"),
        _ => format!("fork/exec {path}: {e}"),
    };
    Error::Refused { text: format!("unable to retrieve OCI runtime error: {text}"), gone: false }
}

fn verbatim(text: &str) -> Failure {
    Failure { stage: Stage::Process, errno: 0, subject: text.to_owned() }
}

/// A runtime's words as a failure. There is nothing but its text to tell a missing command by (moby does the same:
/// `daemon/start_unix.go`).
fn failure(error: Error) -> Failure {
    let subject = error.to_string();
    let lower = subject.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    let ours = lower.contains("unable to retrieve oci runtime error");
    let stage = if ours {
        Stage::Process
    } else if says(&["executable file not found", "no such file or directory", "executable file `"]) {
        Stage::CommandNotFound
    } else if says(&["permission denied", "is a directory", "exec format error", "not a directory"]) {
        Stage::CommandNotExecutable
    } else {
        Stage::Process
    };
    Failure { stage, errno: 0, subject }
}

fn read_config() -> std::io::Result<Value> {
    serde_json::from_slice(&std::fs::read("config.json")?).map_err(std::io::Error::other)
}

fn write_config(config: &Value) -> std::io::Result<()> {
    std::fs::write(".config.json", serde_json::to_vec(config)?)?;
    std::fs::rename(".config.json", "config.json")
}

/// Makes the configuration one for another process: what it names as a descriptor of ours gets a name for others, too.
fn adapt(config: &mut Value, users: Option<&OwnedFd>) -> std::io::Result<()> {
    const OURS: &str = "/proc/self/fd/";
    // Debian's crun 1.8.1 refuses every version but 1.0; no runtime reads it to tell what it may find.
    config["ociVersion"] = json!("1.0.2");
    let own = format!("/proc/{}/fd/", std::process::id());
    let namespaces = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten() {
        if let Some(number) = namespace["path"].as_str().and_then(|path| path.strip_prefix(OURS)) {
            namespace["path"] = json!(format!("{own}{number}"));
        }
        if let Some(users) = users.filter(|_| namespace["type"] == "user" && namespace["path"].is_null()) {
            namespace["path"] = json!(format!("{own}{}", users.as_raw_fd()));
        }
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        let Some(number) = mount["source"].as_str().and_then(|path| path.strip_prefix(OURS)) else { continue };
        // Detached mounts, which cannot be bound by name before Linux 6.15: put into our namespace first.
        let place = format!("held-{number}");
        std::fs::create_dir(&place)?;
        let held = rustix::fs::open(format!("{OURS}{number}"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&held, "", CWD, place.as_str(), flags)?;
        mount["source"] = json!(std::env::current_dir()?.join(place));
    }
    Ok(())
}

/// Leaves the host's mount namespace for a copy, in which the mount that holds our folder hands nothing on: what is mounted
/// there is seen by the runtime, by nobody else, and goes with us. All other mounts keep their propagation, because volumes
/// may be shared.
fn own_namespace() -> std::io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let folder = std::env::current_dir()?;
    wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWNS)?;
    std::env::set_current_dir(&folder)?;
    let flags = rustix::fs::AtFlags::empty();
    let id = rustix::fs::statx(CWD, ".", flags, rustix::fs::StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let place = table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next()?.parse::<u64>().ok()? == id).then(|| fields.nth(3).map(unescape))?
    });
    let place = place.ok_or_else(|| std::io::Error::from(Errno::NOENT))?;
    Ok(mount_change(place.as_str(), MountPropagationFlags::DOWNSTREAM)?)
}

/// A path of mountinfo, in which blanks and the like stand as octal numbers. Source: proc_pid_mountinfo(5).
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, letter) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, letter);
    }
    plain
}

/// The socket by which a runtime hands over the controlling end of a terminal.
struct Console(OwnedFd);

impl Console {
    /// Listens in the working directory: the runtime is started there, and `sun_path` is short.
    fn listen() -> std::io::Result<Console> {
        let _ = std::fs::remove_file(CONSOLE);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(CONSOLE)?)?;
        rustix::net::listen(&socket, 1)?;
        Ok(Console(socket))
    }

    /// Takes what was sent; the runtime has ended, so it is there or never comes.
    fn receive(self) -> std::io::Result<OwnedFd> {
        let connection = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // The text is the terminal's name.
        let mut name = [0u8; 4096];
        let mut parts = [std::io::IoSliceMut::new(&mut name)];
        rustix::net::recvmsg(&connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        descriptor.ok_or_else(|| std::io::Error::from(Errno::BADMSG))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(CONSOLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_runtime_tell_a_missing_command() {
        let stage = |text: &str| failure(Error::Refused { text: text.to_owned(), gone: false }).stage;
        let runc =
            "runc create failed: unable to start container process: exec: \"x\": executable file not found in $PATH";
        assert_eq!(stage(runc), Stage::CommandNotFound);
        assert_eq!(stage("executable file `x` not found in $PATH: No such file or directory"), Stage::CommandNotFound);
        assert_eq!(stage("exec: \"/etc\": is a directory: permission denied"), Stage::CommandNotExecutable);
        assert_eq!(stage("something else"), Stage::Process);
        assert_eq!(failure(not_found("/x", Errno::NOENT.into())).stage, Stage::Process);
    }

    #[test]
    fn paths_of_mountinfo_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
