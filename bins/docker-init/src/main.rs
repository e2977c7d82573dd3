//! The first process of a container started with `--init`: starts the command, passes signals on, reaps orphans, and ends with the
//! command's exit code (128 + n for a death by signal n).
//!
//! `docker-init [--] COMMAND [ARGUMENT…]`; `docker-init --version`. Takes tini's place in Docker's packages, whose behaviour
//! it follows: the command leads a process group of its own, which becomes the terminal's foreground group.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use wharf_sys::clone::{Cloned, clone3, exit_now};
use wharf_sys::exec::{Strings, execve};
use wharf_sys::signal::{SignalFd, reset_all, set_mask};

/// The command was not found, or could not be executed: as a shell reports them.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "--version") {
        println!("docker-init {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|a| a == "--") {
        arguments.remove(0);
    }
    if arguments.is_empty() {
        eprintln!("usage: docker-init [--] COMMAND [ARGUMENT...]");
        return ExitCode::from(1);
    }
    match supervise(&arguments) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("docker-init: {e}");
            ExitCode::from(1)
        }
    }
}

/// Starts the command and stays until it ends.
fn supervise(arguments: &[OsString]) -> std::io::Result<u8> {
    // The faults of init itself stay deadly; everything else is read from a descriptor.
    let faults = [Signal::FPE, Signal::ILL, Signal::SEGV, Signal::BUS, Signal::ABORT, Signal::TRAP, Signal::SYS]
        .map(Signal::as_raw);
    let signals: Vec<i32> = (1..=64).filter(|n| !faults.contains(n)).collect();
    set_mask(&signals)?;
    let pending = SignalFd::new(&signals)?;
    let candidates = candidates(&arguments[0])?;
    let args = Strings::new(arguments.iter().map(|a| a.as_bytes()))?;
    let variables = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let env = Strings::new(variables)?;
    let child = match clone3(0, None)? {
        Cloned::Child => become_command(&candidates, &args, &env),
        Cloned::Parent { pid, .. } => Pid::from_raw(pid).ok_or(std::io::ErrorKind::NotFound)?,
    };
    loop {
        let mut fds = [rustix::event::PollFd::new(&pending, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        while let Some(number) = pending.read()? {
            if number == Signal::CHILD.as_raw() {
                if let Some(status) = reap(child)? {
                    return Ok(status);
                }
            } else if let Some(signal) = Signal::from_named_raw(number) {
                // The command may have ended a moment ago; its SIGCHLD follows.
                let _ = rustix::process::kill_process(child, signal);
            }
        }
    }
}

/// The files that the command may be, in the order of `PATH` (execvp(3)).
fn candidates(command: &OsStr) -> std::io::Result<Vec<CString>> {
    if command.as_bytes().contains(&b'/') {
        return Ok(vec![CString::new(command.as_bytes())?]);
    }
    let path = std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let files = std::env::split_paths(&path).map(|folder| CString::new(folder.join(command).as_os_str().as_bytes()));
    Ok(files.collect::<Result<_, _>>()?)
}

/// In the child: takes the terminal, restores signals and executes the first candidate that can be.
fn become_command(candidates: &[CString], args: &Strings, env: &Strings) -> ! {
    // Without a terminal there is no foreground group to set.
    if rustix::process::setpgid(None, None).is_ok() && rustix::termios::isatty(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
    }
    if reset_all().is_err() {
        exit_now(NOT_EXECUTABLE);
    }
    let mut status = NOT_FOUND;
    for file in candidates {
        let error = execve(file, args, env);
        if error.kind() != std::io::ErrorKind::NotFound {
            status = NOT_EXECUTABLE;
            eprintln!("docker-init: {}: {error}", lossy(file));
        }
    }
    if status == NOT_FOUND {
        let command = args.list().first().map(|c| lossy(c)).unwrap_or_default();
        eprintln!("docker-init: {command}: command not found");
    }
    exit_now(status)
}

fn lossy(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Reaps every child that has ended; gives the command's exit code when it is among them.
fn reap(command: Pid) -> std::io::Result<Option<u8>> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => ended = code(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn code(status: WaitStatus) -> Option<u8> {
    let signal = || status.terminating_signal().map(|n| 128 + n);
    status.exit_status().or_else(signal).and_then(|n| u8::try_from(n).ok())
}
