//! A dockerd in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use crate::client::{Cli, Outcome, Session, run};
use crate::residue::Residue;
use crate::rest::Rest;
use crate::wait::eventually;

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    /// Further arguments of dockerd.
    pub arguments: Vec<String>,
    /// Further environment, e.g. the kill point.
    pub environment: Vec<(String, String)>,
    /// Whether the daemon, and with it everything it starts, gets a network namespace of its own: for tests that change
    /// foreign firewall rules or claim fixed ports. Clients then use [`Daemon::inside`].
    pub own_network: bool,
    /// Whether the exec root is on a tmpfs, as `/run` is on hosts with systemd and often is not on test machines.
    pub in_memory: bool,
    /// Lines by file to be added to a copy of `/etc` that only this daemon sees: `("subuid", "nobody:100000:65536")`. The copy is
    /// [`Daemon::etc`].
    pub etc: Vec<(String, String)>,
}

/// A running (or killed) dockerd under test. Dropping it stops it and its containers and removes its folder.
///
/// With `WHARF_TEST_HOST=unix:///…` behaviour tests run against that engine instead: the way to show that a test is right is
/// to see it pass on a real dockerd. Tests that kill or inspect their daemon need one of their own.
pub struct Daemon {
    folder: tempfile::TempDir,
    memory: Option<tempfile::TempDir>,
    name: String,
    options: DaemonOptions,
    child: Option<Child>,
    /// The network namespace of a daemon that was killed, for the next one.
    network: Option<fs::File>,
    foreign: Option<String>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    /// Starts a daemon with default options and the base image.
    pub fn with_image() -> Self {
        let daemon = Self::start(DaemonOptions::default());
        crate::base_image(&daemon);
        daemon
    }

    /// Starts a daemon and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up; its log is shown.
    pub fn start(options: DaemonOptions) -> Self {
        let mut daemon = Self::prepare(options);
        if daemon.foreign.is_none() {
            daemon.launch();
        }
        daemon
    }

    /// Makes the folder and the name and starts nothing yet.
    pub fn prepare(options: DaemonOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("wk").tempdir().expect("a temporary folder");
        // Links have 15 characters; the process id keeps parallel test binaries apart.
        let name = format!("wk{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let foreign = std::env::var("WHARF_TEST_HOST").ok();
        let in_memory = || tempfile::Builder::new().prefix("wk").tempdir_in("/dev/shm").expect("a folder in memory");
        let memory = options.in_memory.then(in_memory);
        Self { folder, memory, name, options, child: None, network: None, foreign }
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name that bridge, firewall table and cgroup parent carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The data root.
    pub fn data_root(&self) -> PathBuf {
        self.folder().join("d")
    }

    /// The exec root.
    pub fn exec_root(&self) -> PathBuf {
        self.memory.as_ref().map_or_else(|| self.folder(), |memory| memory.path()).join("r")
    }

    /// The copy of `/etc` that this daemon sees, if it has one of its own.
    pub fn etc(&self) -> PathBuf {
        self.folder().join("etc")
    }

    fn make_etc(&self) {
        if self.options.etc.is_empty() || self.etc().exists() {
            return;
        }
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(self.etc()).status().expect("cp runs");
        assert!(copied.success(), "/etc is copied");
        for (file, line) in &self.options.etc {
            let path = self.etc().join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            fs::write(&path, format!("{text}{line}\n")).expect("the copy is ours");
        }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        let foreign = self.foreign.as_deref().and_then(|host| host.strip_prefix("unix://"));
        foreign.map_or_else(|| self.folder().join("s"), PathBuf::from)
    }

    /// `DOCKER_HOST` for this daemon.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// The options; changes take effect at the next launch.
    pub fn options(&mut self) -> &mut DaemonOptions {
        &mut self.options
    }

    /// The dockerd command of this daemon.
    pub fn command(&self) -> Command {
        let dockerd = crate::binaries().join("dockerd");
        let mut command = if self.options.own_network {
            let mut command = Command::new(if self.network.is_some() { "nsenter" } else { "unshare" });
            match &self.network {
                Some(held) => {
                    let held = std::os::fd::AsRawFd::as_raw_fd(held);
                    command.arg(format!("--net=/proc/{}/fd/{held}", std::process::id()))
                }
                None => command.arg("--net"),
            };
            command.arg("--").arg(&dockerd);
            command
        } else {
            Command::new(&dockerd)
        };
        if !self.options.etc.is_empty() {
            let script = r#"mount --bind "$1" /etc && shift && exec "$@""#;
            let (program, given) = (command.get_program().to_owned(), command.get_args().map(Into::into));
            let given: Vec<std::ffi::OsString> = given.collect();
            command = Command::new("unshare");
            command.args(["--mount", "--propagation", "slave", "--", "sh", "-c", script, "sh"]);
            command.arg(self.etc()).arg(program).args(given);
        }
        let pairs = [
            ("--data-root", self.data_root().display().to_string()),
            ("--exec-root", self.exec_root().display().to_string()),
            ("--pidfile", self.folder().join("pid").display().to_string()),
            ("--config-file", self.folder().join("daemon.json").display().to_string()),
            ("--host", self.host()),
            ("--bridge", self.name.clone()),
            ("--firewall-table", self.name.clone()),
            ("--cgroup-parent", format!("/{}", self.name)),
        ];
        for (flag, value) in pairs {
            command.arg(flag).arg(value);
        }
        command.arg("--bridge-create").args(&self.options.arguments);
        command.envs(self.options.environment.iter().cloned());
        command
    }

    /// Starts dockerd (again) and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up; its log is shown.
    pub fn launch(&mut self) {
        self.spawn();
        eventually("dockerd answers", || {
            let exited = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(exited.is_none(), "dockerd ended ({exited:?}):\n{}", self.log());
            self.rest().call("GET", "/_ping", b"").ok().filter(|r| r.status == 200)
        });
    }

    /// Starts dockerd and waits for nothing.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "dockerd runs already");
        let config = self.folder().join("daemon.json");
        if !config.exists() {
            fs::write(&config, "{}").expect("the folder is ours");
        }
        self.make_etc();
        let log = fs::File::options().create(true).append(true).open(self.folder().join("log")).expect("log file");
        let errors = log.try_clone().expect("log file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    }

    /// dockerd's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("dockerd runs").id()
    }

    /// Ends dockerd with SIGKILL. Containers go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            if self.options.own_network && self.network.is_none() {
                self.network = fs::File::open(format!("/proc/{}/ns/net", child.id())).ok();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether dockerd was started and neither killed nor stopped since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether dockerd has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// Waits until dockerd has ended by itself, as at a kill point.
    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("dockerd runs");
        eventually("dockerd ends", || child.try_wait().ok().flatten())
    }

    /// Ends dockerd with SIGTERM, which stops its containers (unless live-restore is on), and waits.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        let mut child = self.child.take()?;
        let pid = rustix::process::Pid::from_raw(child.id() as i32)?;
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        Some(eventually("dockerd stops", || child.try_wait().ok().flatten()))
    }

    /// A REST client of this daemon.
    pub fn rest(&self) -> Rest {
        Rest::new(&self.socket())
    }

    /// A command of a client against this daemon.
    pub fn client(&self, cli: Cli, arguments: &[&str]) -> Command {
        let mut command = cli.command(&self.host(), &self.folder().join("config"));
        command.args(arguments);
        command
    }

    /// Runs our client.
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        self.run(Cli::Ours, arguments)
    }

    /// Runs a client.
    pub fn run(&self, cli: Cli, arguments: &[&str]) -> Outcome {
        run(self.client(cli, arguments))
    }

    /// Starts a client and hands its input and output to the test.
    pub fn session(&self, cli: Cli, arguments: &[&str]) -> Session {
        Session::start(self.client(cli, arguments))
    }

    /// Runs a program of the host in the daemon's network namespace.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string(), "--", program]).args(arguments);
        command.stdin(Stdio::null());
        run(command)
    }

    /// What of this daemon is on the host now.
    pub fn residue(&self) -> Residue {
        Residue::of(self)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
        if self.child.is_none() && self.exec_root().exists() {
            // Killed by the test: the next daemon finds and ends what it left.
            self.options.environment.clear();
            self.spawn();
        }
        let _ = self.stop();
        let ended = Residue::end_processes(self.folder());
        if ended > 0 && !std::thread::panicking() {
            panic!("{}: {ended} processes outlived a clean stop", self.name);
        }
        let groups = Residue::cgroups(&self.name);
        if !groups.is_empty() && !std::thread::panicking() {
            panic!("{}: cgroups outlived a clean stop: {groups:?}", self.name);
        }
    }
}

/// Reads the folders' names below `path`; none if it does not exist.
pub(crate) fn entries(path: &Path) -> Vec<String> {
    let read = |path: &Path| -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    };
    read(path).unwrap_or_default()
}
