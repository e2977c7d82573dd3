//! Relays: listening sockets whose connections are carried into the container's network by a child of the shim.
//!
//! `[::1]:port` cannot be translated by the kernel, so its socket is held here, and the first connection starts a child
//! that accepts, connects and copies with splice(2). It ends when it has been idle, so that the shim stays small.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, connect, shutdown, socket_with};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::poll::{Ready, Token};
use crate::records::report;
use crate::supervisor::Supervisor;

/// How long a relay without connections stays.
const IDLE: Duration = Duration::from_secs(10);

/// Connections of one relay at a time; more wait in the listening socket.
const MAX: usize = 1024;

/// A listening socket, and the child that serves it at the moment.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) listener: OwnedFd,
    to: SocketAddr,
    child: Option<i32>,
}

impl Relay {
    pub(crate) fn new(listener: OwnedFd, to: SocketAddr) -> Relay {
        Relay { listener, to, child: None }
    }
}

impl Supervisor {
    /// A connection waits: a child takes over.
    pub(crate) fn start_relay(&mut self, number: u32) {
        let Some(relay) = self.relays.get_mut(&number) else { return };
        match wharf_sys::clone::clone3(0, None) {
            Ok(wharf_sys::clone::Cloned::Child) => {
                let status = i32::from(serve_child(&relay.listener, relay.to).is_err());
                wharf_sys::clone::exit_now(status)
            }
            Ok(wharf_sys::clone::Cloned::Parent { pid, .. }) => {
                relay.child = Some(pid);
                self.poll.remove(&relay.listener);
            }
            Err(e) => report(&format_args!("starting a relay: {e}")),
        }
    }

    /// Notes that a relay's child has ended. False if the pid is none.
    pub(crate) fn end_relay(&mut self, pid: i32) -> bool {
        let Some((number, relay)) = self.relays.iter_mut().find(|(_, r)| r.child == Some(pid)) else { return false };
        relay.child = None;
        if let Err(e) = self.poll.add(&relay.listener, Token::Relay(*number), Ready::IN) {
            report(&format_args!("watching a relay: {e}"));
        }
        true
    }

    /// Ends the relays' children: the container is gone.
    pub(crate) fn stop_relays(&mut self) {
        for relay in self.relays.values_mut() {
            let pid = relay.child.take().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It is our child and not reaped, so the number is still its own.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The child: only the listening socket stays open, lest it hold a client's or the container's pipes.
fn serve_child(listener: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    const KEPT: i32 = 3;
    wharf_sys::descriptor::place(listener.as_fd(), KEPT)?;
    wharf_sys::descriptor::close_from(KEPT as u32 + 1)?;
    let listener = wharf_sys::descriptor::inherit(KEPT)?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    let parent = rustix::process::getppid();
    if rustix::net::sockopt::socket_type(&listener)? == SocketType::DGRAM {
        return crate::datagrams::serve(&listener, to, IDLE, parent);
    }
    let mut connections: BTreeMap<u32, [Way; 2]> = BTreeMap::new();
    let (mut next, mut idle_since) = (0u32, Instant::now());
    while !connections.is_empty() || idle_since.elapsed() < IDLE {
        if rustix::process::getppid() != parent {
            return Ok(());
        }
        for number in wait(&listener, &connections)? {
            let done = connections.get_mut(&number).is_some_and(|ways| {
                let broken = ways.iter_mut().map(|way| way.carry().is_err()).fold(false, |a, b| a | b);
                broken || ways.iter().all(|way| way.closed)
            });
            if done {
                connections.remove(&number);
                idle_since = Instant::now();
            }
        }
        while connections.len() < MAX
            && let Ok(client) = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            if let Ok(ways) = open_connection(client, to) {
                connections.insert(next, ways);
                next = next.wrapping_add(1);
            }
        }
    }
    Ok(())
}

/// One direction of a connection.
struct Way {
    from: OwnedFd,
    to: OwnedFd,
    pipe: (OwnedFd, OwnedFd),
    /// Bytes in the pipe.
    held: usize,
    ended: bool,
    closed: bool,
}

fn open_connection(client: OwnedFd, to: SocketAddr) -> io::Result<[Way; 2]> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let server = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&server, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    Ok([Way::new(client.try_clone()?, server.try_clone()?)?, Way::new(server, client)?])
}

impl Way {
    fn new(from: OwnedFd, to: OwnedFd) -> io::Result<Way> {
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Way { from, to, pipe, held: 0, ended: false, closed: false })
    }

    /// Copies as much as goes without waiting. An error breaks the connection.
    fn carry(&mut self) -> rustix::io::Result<()> {
        const CHUNK: usize = 64 * 1024;
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            let mut moved = 0;
            if !self.ended && self.held == 0 {
                match splice(&self.from, None, &self.pipe.1, None, CHUNK, flags) {
                    Ok(0) => self.ended = true,
                    Ok(n) => {
                        self.held += n;
                        moved += n;
                    }
                    Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => {}
                    Err(e) => return Err(e),
                }
            }
            if self.held > 0 {
                match splice(&self.pipe.0, None, &self.to, None, self.held, flags) {
                    Ok(n) => {
                        self.held -= n;
                        moved += n;
                    }
                    Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => {}
                    Err(e) => return Err(e),
                }
            }
            if self.ended && self.held == 0 && !self.closed {
                self.closed = true;
                // The other side may be gone already, which the other way finds out.
                let _ = shutdown(&self.to, Shutdown::Write);
            }
            if moved == 0 {
                return Ok(());
            }
        }
    }
}

/// Waits for something to do, a second at most, and names the connections that have it.
fn wait(listener: &OwnedFd, connections: &BTreeMap<u32, [Way; 2]>) -> io::Result<Vec<u32>> {
    let mut fds = Vec::with_capacity(1 + connections.len() * 4);
    fds.push(PollFd::new(listener, if connections.len() < MAX { PollFlags::IN } else { PollFlags::empty() }));
    let mut owners = Vec::with_capacity(connections.len() * 2);
    for (number, ways) in connections {
        for way in ways.iter().filter(|way| !way.closed) {
            let (fd, flags) = if way.held > 0 { (&way.to, PollFlags::OUT) } else { (&way.from, PollFlags::IN) };
            fds.push(PollFd::new(fd, flags));
            owners.push(*number);
        }
    }
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    match poll(&mut fds, Some(&second)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = fds[1..].iter().zip(owners).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, n)| n);
    Ok(ready.collect())
}
