//! Being in the foreground of a process: passing signals on, relaying its terminal, giving its exit status.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use wharf_oci::runtime::ConsoleSize;
use wharf_sys::signal::{self, SignalFd};

use crate::error::Error;

const WINCH: i32 = 28;
/// HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT, TSTP, TTIN, TTOU, WINCH: what a user or a service manager sends.
const PASSED: &[i32] = &[1, 2, 3, 10, 12, 14, 15, 18, 20, 21, 22, WINCH];

fn terminal(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |e| Error::Terminal { what, source: e.into() }
}

/// Holds back signals until [`Foreground::wait`] passes them on.
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Begins holding signals back; to be called before the process is made.
    pub fn new() -> Result<Self, Error> {
        signal::set_mask(PASSED).map_err(Error::Wait)?;
        Ok(Self { signals: SignalFd::new(PASSED).map_err(Error::Wait)? })
    }

    /// Waits until the process ends and returns its exit code, 128 + n if signal n ended it.
    pub fn wait(&self, pidfd: BorrowedFd<'_>, console: Option<&OwnedFd>) -> Result<u8, Error> {
        let mut relay = console.map(Relay::new).transpose()?;
        loop {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(relay) = &relay {
                relay.interest(&mut fds);
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|e| Error::Wait(e.into()))?,
            };
            let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
            drop(fds);
            while let Some(number) = self.signals.read().map_err(Error::Wait)? {
                match (&relay, number) {
                    (Some(relay), WINCH) => relay.resize()?,
                    // A process that ended in this moment needs no signal.
                    _ => drop(signal::send(pidfd, number)),
                }
            }
            if let Some(relay) = relay.as_mut() {
                relay.copy(&ready[2..])?;
            }
            if ready[0] {
                if let Some(relay) = relay.as_mut() {
                    relay.drain()?;
                }
                return reap(pidfd);
            }
        }
    }
}

/// Takes the exit status of a child that has ended or will.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<u8, Error> {
    let ended = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).map_err(|e| Error::Wait(e.into()))?;
    let code = ended.and_then(|s| s.exit_status().or_else(|| s.terminating_signal().map(|n| 128 + n)));
    Ok(code.map_or(255, |c| c as u8))
}

/// Copies between our terminal and that of the process.
struct Relay<'a> {
    master: &'a OwnedFd,
    saved: Option<Termios>,
    input: bool,
    output: bool,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self, Error> {
        let stdin = io::stdin();
        let mut relay = Self { master, saved: None, input: true, output: true };
        if isatty(&stdin) {
            let present = tcgetattr(&stdin).map_err(terminal("read terminal attributes"))?;
            let mut raw = present.clone();
            raw.make_raw();
            relay.saved = Some(present);
            tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(terminal("set terminal attributes"))?;
            relay.resize()?;
        }
        Ok(relay)
    }

    fn resize(&self) -> Result<(), Error> {
        // Without a terminal of our own there is no size to pass on.
        let Ok(size) = tcgetwinsize(io::stdin()) else { return Ok(()) };
        let size = ConsoleSize { height: size.ws_row, width: size.ws_col };
        wharf_runtime::resize(self.master.as_fd(), size).map_err(terminal("resize terminal"))
    }

    fn interest<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        let wanted = |on| if on { PollFlags::IN } else { PollFlags::empty() };
        // A closed end would be reported for ever; a negative descriptor cannot be made, so it is left out by order.
        if self.output {
            fds.push(PollFd::new(self.master, wanted(true)));
        }
        if self.input {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), wanted(true)));
        }
    }

    /// `ready` is in the order of `interest`.
    fn copy(&mut self, ready: &[bool]) -> Result<(), Error> {
        let mut ready = ready.iter().copied();
        if self.output && ready.next() == Some(true) {
            self.output = pass(self.master.as_fd(), rustix::stdio::stdout())?;
        }
        if self.input && ready.next() == Some(true) {
            self.input = pass(rustix::stdio::stdin(), self.master.as_fd())?;
        }
        Ok(())
    }

    /// Copies what the process wrote before it ended.
    fn drain(&mut self) -> Result<(), Error> {
        rustix::io::ioctl_fionbio(self.master, true).map_err(terminal("read terminal"))?;
        while self.output {
            self.output = pass(self.master.as_fd(), rustix::stdio::stdout())?;
        }
        Ok(())
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // Nothing more can be done for a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// Copies once; false at the end. EIO is how a terminal says that its other end is closed.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut buffer = [0u8; 8192];
    let n = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO | Errno::AGAIN) => return Ok(false),
        Err(Errno::INTR) => return Ok(true),
        other => other.map_err(terminal("read terminal"))?,
    };
    let mut rest = &buffer[..n];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(Errno::IO | Errno::PIPE) => return Ok(false),
            Err(e) => return Err(terminal("write terminal")(e)),
        }
    }
    Ok(true)
}

/// Sends a descriptor to whoever listens at a socket; its name goes with it as data.
pub fn hand_over(socket: &Path, name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let send = || {
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&stream, &SocketAddrUnix::new(socket)?)?;
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&stream, &[io::IoSlice::new(name.as_bytes())], &mut control, SendFlags::NOSIGNAL).map(drop)
    };
    send().map_err(|e: Errno| Error::File {
        what: "hand a descriptor over to",
        path: socket.to_owned(),
        source: e.into(),
    })
}
