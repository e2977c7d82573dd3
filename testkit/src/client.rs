//! Command-line clients: the stock `docker` where it is installed, and ours.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::wait::DEADLINE;

/// Which command line drives a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cli {
    /// The `docker` that this project builds.
    Ours,
    /// The `docker` found on PATH.
    Stock,
}

impl Cli {
    /// Both clients, or only ours where no stock one is installed (which is printed, so that a skip is seen).
    pub fn all() -> Vec<Cli> {
        if Cli::Stock.program().is_some() {
            return vec![Cli::Stock, Cli::Ours];
        }
        println!("SKIP stock docker CLI: none on PATH");
        vec![Cli::Ours]
    }

    /// The binary, if there is one.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Cli::Ours => Some(crate::binaries().join("docker")),
            Cli::Stock => std::env::split_paths(&std::env::var_os("PATH")?)
                .map(|folder| folder.join("docker"))
                .find(|file| file.exists() && !file.starts_with(crate::binaries())),
        }
    }

    /// A command of this client against the daemon at `host`, with a configuration folder of its own.
    ///
    /// # Panics
    /// When the client is not installed.
    pub fn command(self, host: &str, config: &Path) -> Command {
        let program = self.program().unwrap_or_else(|| panic!("{self:?} is not installed"));
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", host).env("DOCKER_CONFIG", config).env_remove("DOCKER_CONTEXT");
        command.env("DOCKER_CLI_HINTS", "false").stdin(Stdio::null());
        command
    }
}

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; 128 + n for a death by signal n.
    pub code: i32,
    /// Standard output, exactly.
    pub stdout: Vec<u8>,
    /// Standard error as text.
    pub stderr: String,
    /// The command line, for messages.
    pub line: String,
}

impl Outcome {
    /// Standard output as text without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Gives the text of a command that must have succeeded.
    ///
    /// # Panics
    /// When it did not, with everything it said.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, 0, "{}\n{}\n{}", self.line, self.text(), self.stderr);
        self.text()
    }

    /// Checks the exit code and that standard error holds `message`.
    ///
    /// # Panics
    /// When either differs.
    #[track_caller]
    pub fn fails(&self, code: i32, message: &str) -> &Self {
        assert_eq!(self.code, code, "{}\n{}\n{}", self.line, self.text(), self.stderr);
        assert!(self.stderr.contains(message), "{}\nexpected: {message}\nstderr: {}", self.line, self.stderr);
        self
    }
}

/// A running client whose input and output the test holds.
pub struct Session {
    child: Child,
    line: String,
}

impl Session {
    /// Starts a command with pipes on all three descriptors.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let line = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        Self { child, line }
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When the client closed it.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).unwrap_or_else(|e| panic!("{}: stdin: {e}", self.line));
    }

    /// Closes its standard input.
    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Reads exactly `n` bytes of its standard output.
    ///
    /// # Panics
    /// When it ends earlier.
    pub fn receive(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        let stdout = self.child.stdout.as_mut().expect("stdout is open");
        stdout.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{}: stdout: {e}", self.line));
        bytes
    }

    /// The client's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid is not zero");
        rustix::process::kill_process(pid, signal).expect("the client is there");
    }

    /// Collects what is left of its output and waits for its end.
    pub fn finish(mut self) -> Outcome {
        self.end_input();
        collect(self.child, self.line)
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or does not end before the deadline (times four: some commands wait on purpose).
pub fn run(mut command: Command) -> Outcome {
    let line = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
    collect(child, line)
}

fn collect(mut child: Child, line: String) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                // An error here is a client killed by the test: what came before is still wanted.
                let _ = stream.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = drain(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let stderr = drain(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let end = Instant::now() + 4 * DEADLINE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() > end => {
                let _ = child.kill();
                panic!("{line}: not finished after {:?}", 4 * DEADLINE);
            }
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(e) => panic!("{line}: wait: {e}"),
        }
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    Outcome { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), line }
}
