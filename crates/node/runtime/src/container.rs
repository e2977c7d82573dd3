//! A container that exists.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use wharf_cgroup::{Cgroup, Layout};
use wharf_oci::runtime as oci;
use wharf_seccomp::Program;
use wharf_sys::clone::flags;
use wharf_types::{Failure, Signal, Stage};

use crate::failure::{OrFail, refuse};
use crate::wire::{Channel, Message};
use crate::{Error, hook, namespaces, notify, rdt};

/// How long [`Container::delete`] waits for the cgroup to become empty.
const DELETE: Duration = Duration::from_secs(5);

/// A container whose first process exists.
#[derive(Debug)]
pub struct Container {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) gate: Option<Channel>,
    pub(crate) cgroup: Cgroup,
    pub(crate) scope_path: Option<String>,
    pub(crate) shared: Shared,
}

/// What of the configuration later processes and the end need.
#[derive(Debug)]
pub(crate) struct Shared {
    pub state: oci::State,
    /// Namespaces that are not the caller's, as clone flags.
    pub namespaces: u64,
    pub filter: Option<Program>,
    pub agent: Option<notify::Address>,
    pub rdt: Option<oci::IntelRdt>,
    pub keyring: bool,
    pub personality: Option<oci::Personality>,
    pub poststart: Vec<oci::Hook>,
    pub poststop: Vec<oci::Hook>,
}

impl Shared {
    pub(crate) fn new(
        linux: &oci::Linux,
        hooks: &oci::Hooks,
        state: oci::State,
        filter: Option<Program>,
        keyring: bool,
        netns: bool,
    ) -> Self {
        Self {
            state,
            namespaces: namespaces::all(linux, netns),
            agent: notify::Address::of(linux.seccomp.as_ref(), filter.as_ref()),
            rdt: linux.intel_rdt.clone(),
            filter,
            keyring,
            personality: linux.personality.clone(),
            poststart: hooks.poststart.clone(),
            poststop: hooks.poststop.clone(),
        }
    }

    pub(crate) fn state(&self, status: oci::Status, pid: Option<i32>) -> oci::State {
        oci::State { status, pid, ..self.state.clone() }
    }
}

/// What another process needs to know to take hold of a container again: [`Container::open`].
#[derive(Debug)]
pub struct Known<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a std::path::Path,
    /// Its configuration, as it was created with.
    pub spec: &'a oci::Spec,
    /// Its first process.
    pub pid: i32,
    /// When that started, in clock ticks since boot ([`start_time`]): so that a reused number is not taken for it.
    pub started: u64,
    /// Whether it may be without cgroup.
    pub rootless: bool,
}

/// The path of a container's cgroup: what the configuration says, or its id.
pub(crate) fn cgroup_path(id: &str, linux: Option<&oci::Linux>) -> String {
    match linux.and_then(|l| l.cgroups_path.as_deref()) {
        Some(path) if !path.is_empty() => path.to_owned(),
        _ => format!("/{id}"),
    }
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22), and whether it still runs.
///
/// Errors: `None` if there is no such process.
pub fn start_time(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields count from after its end.
    let at = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(at + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let alive = !matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(18)?.parse().ok()?, alive))
}

impl Container {
    /// Takes hold of a container that another process made. Its first process need not be a child of the caller.
    ///
    /// Errors: [`Error::NotRunning`] if its first process has ended.
    pub fn open(known: &Known<'_>) -> Result<Self, Error> {
        let id = Pid::from_raw(known.pid).ok_or(Error::NotRunning)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(|_| Error::NotRunning)?;
        // Looked at after the descriptor is open: from here on the number cannot change its meaning unseen.
        match start_time(known.pid) {
            Some((started, true)) if started == known.started => {}
            _ => return Err(Error::NotRunning),
        }
        let nothing = (oci::Linux::default(), oci::Hooks::default());
        let linux = known.spec.linux.as_ref().unwrap_or(&nothing.0);
        let hooks = known.spec.hooks.as_ref().unwrap_or(&nothing.1);
        let layout = Layout::detect().map_err(Error::Cgroup)?;
        let cgroup = match Cgroup::open(&layout, &cgroup_path(known.id, Some(linux))) {
            Err(_) if known.rootless => Cgroup::none(&layout),
            other => other.map_err(Error::Cgroup)?,
        };
        let filter = crate::create::compile(linux).map_err(Error::Configuration)?;
        let state = oci::State {
            oci_version: oci::VERSION.to_owned(),
            id: known.id.to_owned(),
            status: oci::Status::Running,
            pid: Some(known.pid),
            bundle: known.bundle.to_owned(),
            annotations: known.spec.annotations.clone(),
        };
        let shared = Shared::new(linux, hooks, state, filter, true, false);
        Ok(Self { pid: known.pid, pidfd, console: None, gate: None, cgroup, scope_path: None, shared })
    }

    /// The first process's id in the caller's namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The first process as a descriptor: readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The controlling end of the first process's terminal, the first time it is asked for.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Opens the gate and waits until the user's program runs.
    ///
    /// Errors: seccomp load, `startContainer` hooks, execve(2), `poststart` hooks (after which the first process is
    /// killed).
    pub fn start(&mut self) -> Result<(), Failure> {
        let gate = self.gate.take().ok_or_else(|| refuse(Stage::Config, "container was started already"))?;
        let failed = || "start container's first process";
        gate.give_leave().or_fail(Stage::Process, failed)?;
        match gate.receive().or_fail(Stage::Process, failed)? {
            Message::Closed => self.started(),
            Message::Failed(failure) => Err(failure),
            other => Err(refuse(Stage::Process, format!("unexpected message {other:?}"))),
        }
    }

    /// Runs the hooks that follow a start.
    pub fn started(&self) -> Result<(), Failure> {
        let state = self.shared.state(oci::Status::Running, Some(self.pid));
        hook::run(&self.shared.poststart, "poststart", &state).inspect_err(|_| {
            // Reported by the failure itself.
            let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        })
    }

    /// Sends a signal to the first process, or to all processes of the container's cgroup.
    ///
    /// Errors: [`Error::NotRunning`] if the first process has ended.
    pub fn kill(&self, signal: Signal, all: bool) -> Result<(), Error> {
        let number = i32::from(signal.number());
        // Without a pid namespace of its own the rest would outlive the first process (runc does the same).
        let all = all || (signal == Signal::KILL && self.shared.namespaces & flags::NEWPID == 0);
        if !all {
            return self.send(self.pidfd.as_fd(), number);
        }
        if signal == Signal::KILL {
            self.cgroup.kill_all().map_err(Error::Cgroup)?;
            // Without a group there is the first process, whose pid namespace dies with it.
            return if self.cgroup.is_none() { self.send(self.pidfd.as_fd(), number) } else { Ok(()) };
        }
        for pid in self.cgroup.pids().map_err(Error::Cgroup)? {
            // One that ended meanwhile needs no signal.
            if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
                match self.send(fd.as_fd(), number) {
                    Err(Error::NotRunning) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    fn send(&self, pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Error> {
        let signal = rustix::process::Signal::from_named_raw(number);
        let sent = match signal {
            Some(signal) => pidfd_send_signal(pidfd, signal).map_err(std::io::Error::from),
            // The real-time signals, which rustix does not name.
            None => wharf_sys::signal::send(pidfd, number),
        };
        sent.map_err(|source| match source.raw_os_error() {
            Some(errno) if errno == Errno::SRCH.raw_os_error() => Error::NotRunning,
            _ => Error::Kill { signal: number as u8, pid: self.pid, source },
        })
    }

    /// The ids of all processes in the container's cgroup, in the caller's namespace.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let pids = self.cgroup.pids().map_err(Error::Cgroup)?;
        Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<(), Error> {
        self.cgroup.freeze().map_err(Error::Cgroup)
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), Error> {
        self.cgroup.thaw().map_err(Error::Cgroup)
    }

    /// Where systemd put the group that it made for this container: what `linux.cgroupsPath` comes to.
    pub fn scope_path(&self) -> Option<&str> {
        self.scope_path.as_deref()
    }

    /// The container's cgroup, for figures and the out-of-memory watch; every container has one of its own.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        Some(&self.cgroup)
    }

    /// Changes limits.
    pub fn update(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        self.cgroup.update(resources).map_err(Error::Cgroup)
    }

    /// Kills what is left, removes the cgroup and runs `poststop` hooks. The first process must have been reaped, or is killed
    /// and reaped here if the caller is its parent.
    pub fn delete(self) -> Result<(), Error> {
        let ended = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        if ended == Ok(0) {
            let _ = self.kill(Signal::KILL, false);
        }
        // ECHILD: reaped already, or not our child.
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        remove_cgroup(&self.cgroup)?;
        rdt::forget(self.shared.rdt.as_ref(), &self.shared.state.id);
        let state = self.shared.state(oci::Status::Stopped, None);
        hook::run_all(&self.shared.poststop, "poststop", &state).map_err(Error::Configuration)
    }
}

/// Makes the cgroup that the configuration names, with its limits, for processes that are brought back into it.
pub fn make_cgroup(id: &str, spec: &oci::Spec) -> Result<Cgroup, Error> {
    let layout = Layout::detect().map_err(Error::Cgroup)?;
    let linux = spec.linux.as_ref();
    let resources = linux.and_then(|l| l.resources.clone()).unwrap_or_default();
    Cgroup::create(&layout, &cgroup_path(id, linux), &resources).map_err(Error::Cgroup)
}

/// Kills what is left in the cgroup of a container whose first process has ended.
pub fn kill_rest(id: &str, spec: &oci::Spec) -> Result<(), Error> {
    let layout = Layout::detect().map_err(Error::Cgroup)?;
    let cgroup = Cgroup::open(&layout, &cgroup_path(id, spec.linux.as_ref())).map_err(|_| Error::NotRunning)?;
    cgroup.kill_all().map_err(Error::Cgroup)
}

/// The processes left in the cgroup of a container whose first process has ended.
pub fn pids_of_rest(id: &str, spec: &oci::Spec) -> Result<Vec<i32>, Error> {
    let layout = Layout::detect().map_err(Error::Cgroup)?;
    let cgroup = Cgroup::open(&layout, &cgroup_path(id, spec.linux.as_ref())).map_err(Error::Cgroup)?;
    let pids = cgroup.pids().map_err(Error::Cgroup)?;
    Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
}

/// Removes what an ended container left: its cgroup, and runs its `poststop` hooks.
pub fn remove(id: &str, bundle: &std::path::Path, spec: &oci::Spec) -> Result<(), Error> {
    let layout = Layout::detect().map_err(Error::Cgroup)?;
    // One that is gone already is as wanted.
    if let Ok(cgroup) = Cgroup::open(&layout, &cgroup_path(id, spec.linux.as_ref())) {
        remove_cgroup(&cgroup)?;
    }
    rdt::forget(spec.linux.as_ref().and_then(|l| l.intel_rdt.as_ref()), id);
    let state = oci::State {
        oci_version: oci::VERSION.to_owned(),
        id: id.to_owned(),
        status: oci::Status::Stopped,
        pid: None,
        bundle: bundle.to_owned(),
        annotations: spec.annotations.clone(),
    };
    let hooks = spec.hooks.as_ref().map_or(&[][..], |h| &h.poststop);
    hook::run_all(hooks, "poststop", &state).map_err(Error::Configuration)
}

fn remove_cgroup(cgroup: &Cgroup) -> Result<(), Error> {
    if !cgroup.pids().map_err(Error::Cgroup)?.is_empty() {
        cgroup.kill_all().map_err(Error::Cgroup)?;
    }
    cgroup.delete(Instant::now() + DELETE).map_err(Error::Cgroup)
}
