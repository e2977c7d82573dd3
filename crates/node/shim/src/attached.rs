//! Attached clients: connections that carry a process's raw stdio.
//!
//! A client is *live* while it takes every chunk as it comes. When its socket is full it keeps the rest of that chunk, at
//! most one read of output, and falls *behind*: from then on it gets what follows from the spool, by offset, until it has
//! caught up. Bytes of an unterminated line are in no spool yet; `skip` counts those it was given already.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send};
use wharf_logs::{Cursor, Stream, Writer};

use crate::poll::{Ready, Token};
use crate::process::Phase;
use crate::records::report;
use crate::supervisor::{INIT, Supervisor};

/// Bytes of stdin read at once.
const INPUT: usize = 32 * 1024;

/// Where a client's output starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With what comes next.
    Now,
    /// With the first byte of this run that the spool's current file holds.
    Run,
    /// With the first byte that the spool does not hold yet.
    Line,
}

/// What a client asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) process: u32,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) framed: bool,
    pub(crate) from: From,
}

/// A client that catches up.
#[derive(Debug)]
struct Behind {
    cursor: Cursor,
    skip: [usize; 2],
}

/// One attached client.
#[derive(Debug)]
pub(crate) struct Attached {
    fd: OwnedFd,
    plan: Plan,
    pending: Vec<u8>,
    sent: usize,
    behind: Option<Behind>,
    /// Whether stdin is still expected from it.
    input: bool,
    /// Whether its stdin waits for room in the pipe.
    input_paused: bool,
    /// Whether it gets nothing more than what is on the way.
    ending: bool,
    interest: Ready,
}

impl Behind {
    /// For a client that was given everything so far, the unterminated lines included.
    fn at_end(writer: &Writer, driver: wharf_logs::Driver) -> Option<Behind> {
        let skip = [Stream::Stdout, Stream::Stderr].map(|s| writer.unterminated(s).len());
        Cursor::at_end(writer, driver).map(|cursor| Behind { cursor, skip })
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn frame(stream: Stream, len: usize) -> [u8; 8] {
    // Chunks are far below 4 GiB.
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

impl Attached {
    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.plan.stdout,
            Stream::Stderr => self.plan.stderr,
        }
    }

    fn is_live(&self) -> bool {
        self.behind.is_none() && self.pending.is_empty()
    }

    /// Whether it makes its process wait: nothing else holds what it has not taken.
    fn holds(&self) -> bool {
        self.behind.is_none() && !self.pending.is_empty()
    }

    fn queue(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.plan.framed {
            self.pending.extend_from_slice(&frame(stream, bytes.len()));
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Sends a chunk to a live client; what its socket does not take becomes pending. False if it is gone.
    fn deliver(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let header = frame(stream, bytes.len());
        let header: &[u8] = if self.plan.framed { &header } else { &[] };
        let parts = [std::io::IoSlice::new(header), std::io::IoSlice::new(bytes)];
        let sent = loop {
            match rustix::io::writev(&self.fd, &parts) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break 0,
                Err(_) => return false,
            }
        };
        if sent < header.len() {
            self.pending.extend_from_slice(&header[sent..]);
            self.pending.extend_from_slice(bytes);
        } else {
            self.pending.extend_from_slice(&bytes[sent - header.len()..]);
        }
        true
    }

    /// Sends pending bytes. `None` if the client is gone, else whether all were taken.
    fn flush(&mut self) -> Option<bool> {
        while self.sent < self.pending.len() {
            match send(&self.fd, &self.pending[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Some(false),
                Err(_) => return None,
            }
        }
        self.sent = 0;
        // Given back, so that a shim with idle clients stays small.
        self.pending = Vec::new();
        Some(true)
    }

    /// Fetches what the spool holds beyond what it was given. Returns whether it is live afterwards.
    fn catch_up(&mut self, writer: &Writer) -> bool {
        let Some(mut behind) = self.behind.take() else { return true };
        let mut fetched = Vec::new();
        let more = behind.cursor.read(writer, |stream, bytes| fetched.push((stream, bytes.to_vec())));
        let more = more.unwrap_or_else(|e| {
            // What cannot be read is lost to this client; it goes on at the end.
            report(&wharf_error::Chain(&e));
            false
        });
        for (stream, bytes) in fetched {
            let skip = &mut behind.skip[index(stream)];
            let from = (*skip).min(bytes.len());
            *skip -= from;
            if self.wants(stream) {
                self.queue(stream, &bytes[from..]);
            }
        }
        if more {
            self.behind = Some(behind);
            return false;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = writer.unterminated(stream);
            let from = behind.skip[index(stream)].min(rest.len());
            if self.wants(stream) {
                self.queue(stream, &rest[from..]);
            }
        }
        true
    }
}

impl Supervisor {
    /// Makes a connection an attached client. `answer` goes out first; `early` is what it sent behind its request.
    pub(crate) fn become_attached(&mut self, number: u32, fd: OwnedFd, answer: Vec<u8>, early: &[u8], plan: Plan) {
        let process = plan.process;
        let input = plan.stdin;
        let behind = self.start_behind(&plan);
        let mut client = Attached {
            fd,
            plan,
            pending: answer,
            sent: 0,
            behind,
            input,
            input_paused: false,
            ending: false,
            interest: Ready::IN,
        };
        let over = self.processes.get(&process).is_none_or(|p| matches!(p.phase, Phase::Stopped { .. }));
        client.ending = over;
        let _ = self.poll.modify(&client.fd, Token::Attached(number), client.interest);
        // The number was a client's; as an attached client's it is in another map and under another token.
        self.attached.insert(number, client);
        if input && !early.is_empty() {
            self.take_input(process, early);
        }
        self.advance(number);
    }

    fn start_behind(&self, plan: &Plan) -> Option<Behind> {
        let writer = self.spool.as_ref().filter(|_| plan.process == INIT)?;
        let driver = self.args.log.driver;
        match plan.from {
            From::Now => None,
            From::Line => Some(Behind { cursor: Cursor::at_end(writer, driver)?, skip: [0; 2] }),
            From::Run => {
                let start = self.run_start.as_ref()?;
                let same = std::rc::Rc::ptr_eq(&start.file, &writer.file());
                let offset = if same { start.offset } else { 0 };
                Some(Behind { cursor: Cursor::at(writer.file(), offset, driver)?, skip: [0; 2] })
            }
        }
    }

    pub(crate) fn serve_attached(&mut self, number: u32, ready: Ready) {
        if ready.intersects(Ready::IN | Ready::HUP | Ready::ERR) && !self.receive_input(number) {
            return;
        }
        if ready.intersects(Ready::HUP | Ready::ERR) {
            self.drop_attached(number);
            return;
        }
        self.advance(number);
    }

    /// Reads stdin from a client. False if the client was dropped.
    fn receive_input(&mut self, number: u32) -> bool {
        let Some(client) = self.attached.get_mut(&number) else { return false };
        if !client.input || client.input_paused {
            return true;
        }
        let process = client.plan.process;
        let mut chunk = [0u8; INPUT];
        match recv(&client.fd, &mut chunk, RecvFlags::empty()) {
            Ok((0, _)) => {
                client.input = false;
                if self.end_input(process) {
                    self.update_interest(number);
                } else {
                    // Docker ends the whole attachment when a client ends an input that must stay open.
                    self.end_attached(number);
                }
                self.attached.contains_key(&number)
            }
            Ok((n, _)) => {
                self.take_input(process, &chunk[..n]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => {
                self.drop_attached(number);
                false
            }
        }
    }

    /// Hands a chunk of output to everybody who listens.
    pub(crate) fn broadcast(&mut self, process: u32, stream: Stream, bytes: &[u8]) {
        let numbers: Vec<u32> = self.listeners(process, stream);
        let driver = self.args.log.driver;
        let (mut gone, mut full) = (Vec::new(), Vec::new());
        for number in numbers {
            let Some(client) = self.attached.get_mut(&number) else { continue };
            if client.behind.is_some() {
                continue;
            }
            if !client.is_live() {
                // Only at the end of a process without spool, whose last output must be taken in: bounded by its pipe.
                client.queue(stream, bytes);
                continue;
            }
            if !client.deliver(stream, bytes) {
                gone.push(number);
                continue;
            }
            if client.is_live() {
                continue;
            }
            if let Some(writer) = self.spool.as_ref().filter(|_| process == INIT) {
                client.behind = Behind::at_end(writer, driver);
            }
            full.push(number);
        }
        for number in full {
            self.update_interest(number);
        }
        for number in gone {
            self.drop_attached(number);
        }
    }

    fn listeners(&self, process: u32, stream: Stream) -> Vec<u32> {
        let listens = |c: &Attached| c.plan.process == process && c.wants(stream) && !c.ending;
        self.attached.iter().filter(|(_, c)| listens(c)).map(|(n, _)| *n).collect()
    }

    /// Sends on to a client as much as it takes.
    pub(crate) fn advance(&mut self, number: u32) {
        let Some(client) = self.attached.get_mut(&number) else { return };
        let (held, process) = (client.holds(), client.plan.process);
        let mut was_old = false;
        loop {
            match client.flush() {
                None => return self.drop_attached(number),
                Some(false) => break,
                Some(true) => {}
            }
            let (Some(behind), Some(writer)) = (&client.behind, &self.spool) else { break };
            was_old |= !behind.cursor.is_current(writer);
            if client.catch_up(writer) && client.pending.is_empty() {
                break;
            }
        }
        // A client that is live but still has pending bytes goes behind again at the spool's end, lest it hold the process.
        if client.holds()
            && process == INIT
            && let Some(writer) = &self.spool
        {
            client.behind = Behind::at_end(writer, self.args.log.driver);
        }
        let done = client.ending && client.is_live();
        let released = held || was_old;
        if done {
            self.drop_attached(number);
        } else {
            self.update_interest(number);
        }
        if released {
            self.resume_outputs(process);
        }
    }

    /// A process is over: its clients get what is on the way, then end of file.
    pub(crate) fn end_all_attached(&mut self, process: u32) {
        let numbers: Vec<u32> =
            self.attached.iter().filter(|(_, c)| c.plan.process == process).map(|(n, _)| *n).collect();
        for number in numbers {
            self.end_attached(number);
        }
    }

    fn end_attached(&mut self, number: u32) {
        if let Some(client) = self.attached.get_mut(&number) {
            client.ending = true;
            client.input = false;
        }
        self.advance(number);
    }

    fn drop_attached(&mut self, number: u32) {
        let Some(client) = self.attached.remove(&number) else { return };
        // Bytes that the client sent and nobody read would turn the close into a reset, which takes delivered
        // output away from the client: say the end first.
        let _ = rustix::net::shutdown(&client.fd, Shutdown::Both);
        self.poll.remove(&client.fd);
        self.resume_outputs(client.plan.process);
    }

    /// Room for stdin again, or none: clients are listened to accordingly.
    pub(crate) fn pause_inputs(&mut self, process: u32, paused: bool) {
        self.pause_source(process, paused);
        let numbers: Vec<u32> = self
            .attached
            .iter_mut()
            .filter(|(_, c)| c.plan.process == process && c.input_paused != paused)
            .map(|(n, c)| {
                c.input_paused = paused;
                *n
            })
            .collect();
        for number in numbers {
            self.update_interest(number);
        }
    }

    fn update_interest(&mut self, number: u32) {
        let Some(client) = self.attached.get_mut(&number) else { return };
        let mut interest = Ready::empty();
        interest.set(Ready::IN, client.input && !client.input_paused);
        interest.set(Ready::OUT, !client.is_live());
        if interest != client.interest {
            client.interest = interest;
            let _ = self.poll.modify(&client.fd, Token::Attached(number), interest);
        }
    }

    /// Whether some client makes a process without spool wait.
    pub(crate) fn is_held(&self, process: u32, stream: Stream) -> bool {
        self.attached.values().any(|c| c.plan.process == process && c.wants(stream) && c.holds())
    }

    /// How far the spool may rotate without taking from a client what it has not read.
    pub(crate) fn rotations(&self) -> wharf_logs::Rotations {
        let Some(writer) = &self.spool else { return wharf_logs::Rotations::Any };
        let mut allowed = wharf_logs::Rotations::Any;
        for behind in self.attached.values().filter_map(|c| c.behind.as_ref()) {
            if !behind.cursor.is_current(writer) {
                return wharf_logs::Rotations::None;
            }
            allowed = wharf_logs::Rotations::One;
        }
        allowed
    }
}
