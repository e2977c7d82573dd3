//! The gate: where the first process waits before it becomes the user's program, and how what fails after it is told.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use wharf_types::{Failure, Stage};

use crate::failure::OrFail;
use crate::wire::{self, Channel};

/// What the child waits at.
#[derive(Debug)]
pub(crate) enum Waiting {
    Channel,
    Listener(OwnedFd),
}

/// Where what fails after the gate is told.
pub(crate) enum Report {
    Channel(Channel),
    Connection(OwnedFd),
}

impl Report {
    /// Waits until someone opens the gate; `None` if whoever could do it is gone.
    pub(crate) fn pass(channel: Channel, waiting: Waiting) -> Option<Self> {
        match waiting {
            Waiting::Channel => channel.wait_for_leave().ok().map(|()| Report::Channel(channel)),
            Waiting::Listener(listener) => {
                drop(channel);
                loop {
                    let connection = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).ok()?;
                    let mut byte = [0u8; 1];
                    // A connection without the word is someone who looked whether we are there.
                    if let Ok((1, _)) = rustix::net::recv(&connection, &mut byte, RecvFlags::empty()) {
                        return Some(Report::Connection(connection));
                    }
                }
            }
        }
    }

    pub(crate) fn send(&self, failure: &Failure) {
        // Whoever opened the gate may be gone by now; the exit status still tells that it failed.
        let _ = match self {
            Report::Channel(channel) => channel.failed(failure),
            Report::Connection(fd) => rustix::net::send(fd, &wire::encode(failure), SendFlags::NOSIGNAL).map(drop),
        };
    }
}

/// Opens a gate from the other side of its socket and waits for what comes of it.
pub(crate) fn open(connection: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = || "start container's first process";
    rustix::net::send(connection, b"g", SendFlags::NOSIGNAL).or_fail(Stage::Process, failed)?;
    let mut bytes = vec![0u8; 32 * 1024];
    loop {
        match rustix::net::recv(connection, &mut bytes[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return Ok(()),
            Ok((n, _)) => return Err(wire::decode(&bytes[..n])),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).or_fail(Stage::Process, failed),
        }
    }
}
