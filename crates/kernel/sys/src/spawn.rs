//! posix_spawn(3) with an explicit map of descriptors: how a large, multi-threaded process starts another cheaply.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::descriptor::duplicate_above;
use crate::exec::Strings;

/// What is started and how.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program's file. `PATH` is not searched.
    pub program: &'a CStr,
    /// Arguments, including argument 0.
    pub args: &'a Strings,
    /// The whole environment.
    pub env: &'a Strings,
    /// Which descriptors the program gets, and as which numbers. Numbers 0, 1 and 2 are not given by themselves. All
    /// others must be close-on-exec, as everything is that Rust's library and rustix (with CLOEXEC) open.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Working directory, if another than the caller's.
    pub directory: Option<BorrowedFd<'a>>,
    /// Whether the program leads a session of its own.
    pub new_session: bool,
}

/// A started program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: i32,
    /// The process as a descriptor: readable when it has ended, to be waited for with `waitid(P_PIDFD)`.
    pub pidfd: OwnedFd,
}

/// Starts a program with default signals, none blocked. Errors of execve(2) are returned here.
///
/// The memory of the caller is not copied (glibc and musl use CLONE_VM | CLONE_VFORK).
pub fn spawn(request: &Spawn<'_>) -> io::Result<Spawned> {
    // A source whose number is also a target would be overwritten before its turn: move all above the targets.
    let above = request.descriptors.iter().map(|(_, to)| to + 1).max().unwrap_or(0).max(3);
    let mut sources = Vec::with_capacity(request.descriptors.len());
    for (from, to) in request.descriptors {
        sources.push((duplicate_above(*from, above)?, *to));
    }
    // The working directory is read after the targets are placed, so it must be out of their way too.
    let directory = request.directory.map(|fd| duplicate_above(fd, above)).transpose()?;
    let mut actions = Actions::new()?;
    for (from, to) in &sources {
        actions.place(from.as_raw_fd(), *to)?;
    }
    if let Some(fd) = &directory {
        actions.change_directory(fd.as_raw_fd())?;
    }
    let attributes = Attributes::new(request.new_session)?;
    let mut pid: libc::pid_t = 0;
    // SAFETY: every pointer is to an initialised object or NUL/NULL-terminated list that lives through the call.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            request.program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            request.args.as_ptr().cast(),
            request.env.as_ptr().cast(),
        )
    };
    number(error)?;
    let id = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    // The child cannot be gone: it stays a zombie until we wait for it.
    let pidfd = pidfd_open(id, PidfdFlags::empty())?;
    Ok(Spawned { pid, pidfd })
}

/// posix_spawn's functions return the error number.
fn number(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        // SAFETY: init writes the object before anything reads it.
        unsafe {
            let mut raw = std::mem::zeroed();
            number(libc::posix_spawn_file_actions_init(&raw mut raw))?;
            Ok(Self(raw))
        }
    }

    fn place(&mut self, from: RawFd, to: RawFd) -> io::Result<()> {
        // SAFETY: the object was initialised by `new`.
        number(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }

    fn change_directory(&mut self, fd: RawFd) -> io::Result<()> {
        // SAFETY: the object was initialised by `new`.
        number(unsafe { libc::posix_spawn_file_actions_addfchdir_np(&raw mut self.0, fd) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: the object was initialised by `new` and is not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(new_session: bool) -> io::Result<Self> {
        // POSIX_SPAWN_SETSID has this value in glibc and musl.
        const SETSID: libc::c_int = 0x80;
        let mut flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        if new_session {
            flags |= SETSID;
        }
        // SAFETY: init writes the object before the setters; the signal sets are initialised by their own functions.
        unsafe {
            let mut raw = std::mem::zeroed();
            number(libc::posix_spawnattr_init(&raw mut raw))?;
            let mut this = Self(raw);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            number(libc::posix_spawnattr_setsigmask(&raw mut this.0, &raw const set))?;
            libc::sigfillset(&raw mut set);
            number(libc::posix_spawnattr_setsigdefault(&raw mut this.0, &raw const set))?;
            number(libc::posix_spawnattr_setflags(&raw mut this.0, flags as libc::c_short))?;
            Ok(this)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the object was initialised by `new` and is not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    fn run(script: &str, descriptors: &[(BorrowedFd<'_>, RawFd)], directory: Option<BorrowedFd<'_>>) -> i32 {
        let args = Strings::new(["sh", "-c", script]).expect("no NUL");
        let env = Strings::new(["PATH=/usr/bin:/bin"]).expect("no NUL");
        let request = Spawn { program: c"/bin/sh", args: &args, env: &env, descriptors, directory, new_session: true };
        let spawned = spawn(&request).expect("spawned");
        let ended = waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waited");
        ended.and_then(|s| s.exit_status()).expect("exited")
    }

    #[test]
    fn crossing_descriptor_maps_and_the_directory_arrive_and_nothing_else() {
        let (r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let null = File::open("/dev/null").expect("open");
        // The two sources are each other's targets.
        let map = [(w.as_fd(), null.as_raw_fd()), (null.as_fd(), w.as_raw_fd()), (null.as_fd(), 0), (w.as_fd(), 1)];
        let root = File::open("/").expect("open");
        let other = tempfile::NamedTempFile::new().expect("temporary file");
        assert_eq!(run("pwd; echo through >&1; ls -l /proc/$$/fd", &map, Some(root.as_fd())), 0);
        drop(w);
        let mut text = String::new();
        File::from(r).read_to_string(&mut text).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["/", "through"]);
        let leaked = other.path().to_str().expect("UTF-8");
        assert!(text.contains("/dev/null") && !text.contains(leaked), "{text}");
    }

    #[test]
    fn a_missing_program_is_reported_by_the_call() {
        let none = Strings::new::<&str>([]).expect("no NUL");
        let request = Spawn {
            program: c"/nonexistent",
            args: &none,
            env: &none,
            descriptors: &[],
            directory: None,
            new_session: false,
        };
        assert_eq!(spawn(&request).expect_err("missing").raw_os_error(), Some(libc::ENOENT));
    }
}
