//! An attached process: our standard streams joined to a hijacked connection, in one poll(2) loop.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use wharf_api_client::{Client, Connection, Query, Request};

use crate::exit::Exit;
use crate::signals::{self, Signals};
use crate::stream::{self, Splitter};
use crate::terminal::{self, DetachKeys, RawMode};

/// What is attached.
pub struct Session<'a> {
    /// The client, for resizing and for passing signals on.
    pub client: &'a Client,
    /// Where the process is: `/containers/ID` or `/exec/ID`.
    pub path: String,
    /// Whether our standard input goes there.
    pub stdin: bool,
    /// Whether the process has a terminal, so that its output is raw.
    pub tty: bool,
    /// The signals that were caught.
    pub signals: Option<Signals>,
    /// The keys that detach, of a process with a terminal.
    pub keys: Option<DetachKeys>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The stream ended.
    Stream,
    /// The user typed the keys that detach.
    Detached,
}

impl Session<'_> {
    /// Tells the daemon the size of our terminal, if we have one. Failure is not the user's concern: the process may
    /// have ended.
    pub fn resize(&self) {
        let [height, width] = terminal::size();
        if height == 0 && width == 0 {
            return;
        }
        let query = Query::new().with("h", &height.to_string()).with("w", &width.to_string());
        let _ = self.client.call(Request::post(format!("{}/resize", self.path)).query(query));
    }

    /// Handles the signals that have come.
    ///
    /// # Errors
    /// That of reading them.
    pub fn handle_signals(&self) -> Result<(), Exit> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while let Some(number) = signals.next()? {
            if self.tty {
                self.resize();
            } else if let Some(name) = signals::name(number) {
                let query = Query::new().with("signal", &name);
                // The process may just have ended.
                let _ = self.client.call(Request::post(format!("{}/kill", self.path)).query(query));
            }
        }
        Ok(())
    }

    /// Joins the streams until the daemon ends the connection or the user detaches.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn join(&mut self, mut connection: Connection) -> Result<Ended, Exit> {
        let raw = if self.stdin && self.tty { RawMode::enter()? } else { None };
        connection.set_nonblocking(true)?;
        let mut splitter = Splitter::default();
        let mut input = Input { open: self.stdin, pending: Vec::new(), sent: 0, closed: !self.stdin };
        let mut buffer = vec![0; 64 << 10];
        // What came together with the head waits in the connection, not in the socket.
        let mut first = !connection.buffered().is_empty();
        loop {
            if first || self.wait(&connection, &input)? {
                first = false;
                match connection.read(&mut buffer) {
                    Ok(0) => {
                        drop(raw);
                        return Ok(Ended::Stream);
                    }
                    Ok(n) if self.tty => stream::write(false, &buffer[..n])?,
                    Ok(n) => {
                        splitter.feed(&buffer[..n])?;
                        splitter.flush()?;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    // A daemon that was killed; the exit status says more.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Ended::Stream),
                    Err(e) => return Err(e.into()),
                }
            }
            self.handle_signals()?;
            if self.poll_stdin(&mut input, &mut buffer)? {
                return Ok(Ended::Detached);
            }
            input.send(&mut connection)?;
        }
    }

    /// Waits until something can be done; returns whether the connection can be read.
    fn wait(&self, connection: &Connection, input: &Input) -> Result<bool, Exit> {
        let stdin = rustix::stdio::stdin();
        let mut events = PollFlags::IN;
        if input.waits() {
            events |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::from_borrowed_fd(connection.as_fd(), events)];
        if let Some(s) = &self.signals {
            fds.push(PollFd::from_borrowed_fd(s.descriptor().as_fd(), PollFlags::IN));
        }
        if input.open && !input.waits() {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
                Ok(_) => break,
            }
        }
        Ok(fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }

    /// Takes standard input if it is there at once; returns whether the user detached.
    fn poll_stdin(&mut self, input: &mut Input, buffer: &mut [u8]) -> Result<bool, Exit> {
        if !input.open || input.waits() {
            return Ok(false);
        }
        let stdin = rustix::stdio::stdin();
        let mut fds = [PollFd::from_borrowed_fd(stdin, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
        let n = match rustix::io::read(stdin, &mut *buffer) {
            Ok(n) => n,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(false),
            // A closed or broken input is an ended one.
            Err(_) => 0,
        };
        if n == 0 {
            input.open = false;
            return Ok(false);
        }
        let bytes = match &mut self.keys {
            Some(keys) => match keys.filter(&buffer[..n]) {
                Some(bytes) => bytes,
                None => return Ok(true),
            },
            None => buffer[..n].to_vec(),
        };
        input.pending = bytes;
        input.sent = 0;
        Ok(false)
    }
}

/// Our standard input on its way.
struct Input {
    open: bool,
    pending: Vec<u8>,
    sent: usize,
    closed: bool,
}

impl Input {
    fn waits(&self) -> bool {
        self.sent < self.pending.len()
    }

    /// Sends what the connection takes; ends our direction after the last byte.
    fn send(&mut self, connection: &mut Connection) -> Result<(), Exit> {
        while self.waits() {
            match connection.write(&self.pending[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The process no longer reads; its output still counts.
                Err(_) => {
                    self.open = false;
                    self.sent = self.pending.len();
                }
            }
        }
        if !self.open && !self.closed {
            self.closed = true;
            // A connection that is gone has no direction to end.
            let _ = connection.close_write();
        }
        Ok(())
    }
}
