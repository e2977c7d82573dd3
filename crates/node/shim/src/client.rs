//! A connection that speaks ttRPC.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use wharf_proto_task::{Code, Frame, FrameKind, HEADER_LEN, MAX_LEN, Message, Request, Response, Status};

use crate::poll::{Ready, Token};
use crate::supervisor::Supervisor;

/// Answers that a client has not fetched, beyond which it is dropped.
const MAX_UNREAD: usize = 8 << 20;

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) fd: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether the epoll set was asked for room to write.
    waiting: bool,
}

/// How a call was dealt with.
pub(crate) enum Reply {
    /// Answer now.
    Now(Result<Vec<u8>, Status>),
    /// Will be answered later.
    Later,
    /// The connection now belongs to an attached client, which gets this answer first.
    Attach(Box<crate::attached::Plan>, Vec<u8>),
}

impl Client {
    pub(crate) fn new(fd: OwnedFd) -> Client {
        Client { fd, input: Vec::new(), output: Vec::new(), waiting: false }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn put(&mut self, stream: u32, outcome: Result<Vec<u8>, Status>) {
        let response = match outcome {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(status), payload: Vec::new() },
        };
        if Frame::put(&mut self.output, stream, FrameKind::Response, &response).is_err() {
            let status = Some(Status::new(Code::ResourceExhausted, "response exceeds the frame limit"));
            // A status without a payload always fits.
            let _ =
                Frame::put(&mut self.output, stream, FrameKind::Response, &Response { status, payload: Vec::new() });
        }
    }

    /// Sends what it can. False if the connection is broken.
    fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match send(&self.fd, &self.output, SendFlags::NOSIGNAL) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.output.len() <= MAX_UNREAD,
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        true
    }

    /// Receives what is there. False at the end of the connection.
    fn receive(&mut self) -> bool {
        let mut chunk = [0u8; 8192];
        loop {
            match recv(&self.fd, &mut chunk, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((n, _)) => {
                    self.input.extend_from_slice(&chunk[..n]);
                    if n < chunk.len() || self.input.len() > MAX_LEN + HEADER_LEN {
                        return true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl Supervisor {
    pub(crate) fn serve_client(&mut self, number: u32, ready: Ready) {
        if ready.intersects(Ready::IN | Ready::HUP | Ready::ERR) {
            let Some(client) = self.clients.get_mut(&number) else { return };
            let open = client.receive();
            self.dispatch_all(number);
            if !open {
                self.drop_client(number);
                return;
            }
        }
        self.flush_client(number);
    }

    /// Carries out the calls that have arrived whole.
    fn dispatch_all(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut input = std::mem::take(&mut client.input);
        let mut used = 0;
        let broken = loop {
            let (stream, request, len) = match Frame::take(&input[used..]) {
                Ok(None) => break false,
                Err(_) => break true,
                Ok(Some(frame)) => (frame.header.stream, Request::decode(frame.payload), frame.len()),
            };
            used += len;
            let reply = match request {
                Ok(request) => self.dispatch(number, stream, &request),
                Err(_) => Reply::Now(Err(Status::new(Code::InvalidArgument, "request cannot be decoded"))),
            };
            match reply {
                Reply::Later => {}
                Reply::Now(outcome) => self.answer(number, stream, outcome),
                Reply::Attach(plan, payload) => {
                    let Some(mut client) = self.clients.remove(&number) else { break false };
                    client.put(stream, Ok(payload));
                    self.forget_waiters(number);
                    self.become_attached(number, client.fd, client.output, &input[used..], *plan);
                    return;
                }
            }
        };
        if broken {
            self.drop_client(number);
        } else if let Some(client) = self.clients.get_mut(&number) {
            input.drain(..used);
            client.input = if input.is_empty() { Vec::new() } else { input };
        }
    }

    /// Queues the answer to a call; a client that has gone meanwhile gets none.
    pub(crate) fn answer(&mut self, client: u32, stream: u32, outcome: Result<Vec<u8>, Status>) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.put(stream, outcome);
        }
    }

    /// Sends queued answers.
    pub(crate) fn flush_client(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if !client.flush() {
            self.drop_client(number);
            return;
        }
        let waiting = client.has_output();
        if waiting != client.waiting {
            client.waiting = waiting;
            let ready = if waiting { Ready::IN | Ready::OUT } else { Ready::IN };
            let _ = self.poll.modify(&client.fd, Token::Client(number), ready);
        }
    }

    fn drop_client(&mut self, number: u32) {
        // Closing takes the descriptor out of the epoll set.
        self.clients.remove(&number);
        self.forget_waiters(number);
    }

    fn forget_waiters(&mut self, number: u32) {
        for process in self.processes.values_mut() {
            process.waiters.retain(|(client, _)| *client != number);
        }
    }
}
