//! Handing the listener of a NOTIFY filter to the agent that answers for it (OCI config-linux.md, "Seccomp", `listenerPath`).
//!
//! After the filter is loaded every call of the process may wait for that agent, so what still has to be sent is sent by
//! a helper without the filter, which shares the process's descriptors. The socket is connected before the container's
//! root is entered: its path is the host's.
//!
//! ```text
//! caller     connect ── clone ──┐
//! process                       └─ … gate ── helper ── load ── write ─────────── wait ── execve
//! helper                                       └─ (no filter)   read ── sendmsg ─┘
//! ```

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;
use wharf_oci::runtime::{LinuxSeccomp, State};
use wharf_seccomp::Program;
use wharf_sys::clone::{Cloned, clone3, exit_now, flags};
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};

/// The agent, connected, and what it is told.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    metadata: String,
    state: State,
}

/// Where a profile's agent listens, if its filter asks one, and what it is told besides the process.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    path: PathBuf,
    metadata: String,
}

impl Address {
    pub(crate) fn of(profile: Option<&LinuxSeccomp>, filter: Option<&Program>) -> Option<Self> {
        let profile = profile.filter(|_| filter.is_some_and(Program::notifies))?;
        Some(Self {
            path: profile.listener_path.as_deref()?.into(),
            metadata: profile.listener_metadata.clone().unwrap_or_default(),
        })
    }

    /// Connects to the agent.
    pub(crate) fn connect(&self, state: &State) -> Result<Agent, Failure> {
        let path: &Path = &self.path;
        let failed =
            || format!("failed to connect with seccomp agent specified in the seccomp profile: {}", path.display());
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .or_fail(Stage::Seccomp, failed)?;
        SocketAddrUnix::new(path).and_then(|address| connect(&socket, &address)).or_fail(Stage::Seccomp, failed)?;
        Ok(Agent { socket, metadata: self.metadata.clone(), state: state.clone() })
    }
}

impl Agent {
    /// The number of the connection, which must stay open until the filter is loaded.
    pub(crate) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Loads the filter and hands its listener over; `pid` is this process as the agent sees it.
    pub(crate) fn load(&self, filter: &Program, pid: i32) -> Result<(), Failure> {
        let failed = || "hand seccomp listener to the agent";
        let mut state = self.state.clone();
        state.pid = state.pid.or(Some(pid));
        let process = json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": state,
        });
        let text = process.to_string();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).or_fail(Stage::Seccomp, failed)?;
        let helper = match clone3(flags::FILES, None).or_fail(Stage::Seccomp, failed)? {
            Cloned::Child => exit_now(i32::from(self.serve(&read, text.as_bytes()).is_err())),
            Cloned::Parent { pidfd, .. } => pidfd,
        };
        let listener = wharf_sys::seccomp::load_with_listener(&filter.instructions, filter.flags)
            .or_fail(Stage::Seccomp, || "load seccomp filter")?;
        // From here on any call but this one may wait for the agent, which the helper brings about.
        rustix::io::write(&write, &listener.as_raw_fd().to_ne_bytes()).or_fail(Stage::Seccomp, failed)?;
        let ended = waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED).or_fail(Stage::Seccomp, failed)?;
        match ended.and_then(|s| s.exit_status()) {
            Some(0) => Ok(()),
            _ => Err(refuse(Stage::Seccomp, failed())),
        }
    }

    /// In the helper: waits for the listener's number and sends what it stands for.
    fn serve(&self, read: &OwnedFd, text: &[u8]) -> std::io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let mut number = [0u8; 4];
        // Closed, in both tables that are one, where the filter could not be loaded.
        if rustix::io::read(read, &mut number)? != number.len() {
            return Err(rustix::io::Errno::PIPE.into());
        }
        let listener = wharf_sys::descriptor::inherit(RawFd::from_ne_bytes(number))?;
        let sent = self.send(listener.as_fd(), text);
        // It is the process's: both share one table, and this one ends at once.
        std::mem::forget(listener);
        Ok(sent?)
    }

    fn send(&self, listener: BorrowedFd<'_>, text: &[u8]) -> rustix::io::Result<()> {
        let fds = [listener];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}
