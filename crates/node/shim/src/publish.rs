//! Events for containerd. They are told in order and never waited for: while containerd is away they are kept, up to a bound.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
};
use wharf_proto_task::events::{self, Envelope, Event, ForwardRequest};
use wharf_proto_task::{Any, Frame, FrameKind, KeyValue, Message, Request};
use wharf_types::Timestamp;

use crate::poll::{Ready, Token};
use crate::supervisor::Supervisor;

/// More events are not kept; the oldest go.
const KEPT: usize = 1024;
/// How long after a failed attempt the next one is made.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to containerd.
#[derive(Debug)]
pub(crate) struct Publisher {
    address: PathBuf,
    namespace: String,
    socket: Option<OwnedFd>,
    /// Whole frames; the first may be sent in part.
    frames: VecDeque<Vec<u8>>,
    sent: usize,
    waiting: bool,
    stream: u32,
    again: Option<Instant>,
}

impl Publisher {
    pub(crate) fn new(address: PathBuf, namespace: String) -> Self {
        Self {
            address,
            namespace,
            socket: None,
            frames: VecDeque::new(),
            sent: 0,
            waiting: false,
            stream: 1,
            again: None,
        }
    }

    fn frame<E: Event>(&mut self, event: &E) -> Vec<u8> {
        let envelope = Envelope {
            timestamp: Some(Timestamp::now().into()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(Any { type_url: E::TYPE.to_owned(), value: event.encode_to_vec() }),
        };
        let request = Request {
            service: events::SERVICE.to_owned(),
            method: events::FORWARD.to_owned(),
            payload: ForwardRequest { envelope: Some(envelope) }.encode_to_vec(),
            timeout_nano: 0,
            metadata: vec![KeyValue { key: "containerd-namespace-ttrpc".to_owned(), value: self.namespace.clone() }],
        };
        let mut frame = Vec::new();
        // Events are a few hundred bytes; the limit is 4 MiB.
        let _ = Frame::put(&mut frame, self.stream, FrameKind::Request, &request);
        self.stream = self.stream.wrapping_add(2);
        frame
    }

    fn connect(&self) -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(self.address.as_path())?)?;
        Ok(socket)
    }

    /// Whether containerd is there to be told.
    pub(crate) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether something is still to be told.
    pub(crate) fn is_busy(&self) -> bool {
        !self.frames.is_empty()
    }
}

impl Supervisor {
    /// Tells containerd, if that is who we serve.
    pub(crate) fn publish<E: Event>(&mut self, event: &E) {
        let Some(publisher) = &mut self.publisher else { return };
        let frame = publisher.frame(event);
        if publisher.frames.len() >= KEPT && publisher.sent == 0 {
            publisher.frames.pop_front();
        }
        publisher.frames.push_back(frame);
        self.push_events();
    }

    /// Sends what is kept.
    pub(crate) fn push_events(&mut self) {
        let Some(publisher) = &mut self.publisher else { return };
        publisher.again = None;
        if publisher.socket.is_none() {
            match publisher.connect() {
                Ok(socket) => {
                    let _ = self.poll.add(&socket, Token::Publisher, Ready::IN);
                    publisher.socket = Some(socket);
                }
                Err(_) => {
                    publisher.again = Some(Instant::now() + AGAIN);
                    return;
                }
            }
        }
        while let (Some(frame), Some(socket)) = (publisher.frames.front(), &publisher.socket) {
            match send(socket, &frame[publisher.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => {
                    publisher.sent += n;
                    if publisher.sent == frame.len() {
                        publisher.frames.pop_front();
                        publisher.sent = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    // A new connection begins with a whole frame.
                    (publisher.socket, publisher.sent, publisher.waiting) = (None, 0, false);
                    publisher.again = Some(Instant::now() + AGAIN);
                    return;
                }
            }
        }
        let waiting = !publisher.frames.is_empty();
        if let Some(socket) = publisher.socket.as_ref().filter(|_| waiting != publisher.waiting) {
            publisher.waiting = waiting;
            let ready = if waiting { Ready::IN | Ready::OUT } else { Ready::IN };
            let _ = self.poll.modify(socket, Token::Publisher, ready);
        }
    }

    /// The connection has answers, which say nothing new, or room, or its end.
    pub(crate) fn hear_publisher(&mut self) {
        let Some(publisher) = &mut self.publisher else { return };
        let mut answers = [0u8; 4096];
        while let Some(socket) = &publisher.socket {
            match recv(socket, &mut answers[..], RecvFlags::empty()) {
                Ok((1.., _)) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Ok((0, _)) | Err(_) => (publisher.socket, publisher.sent, publisher.waiting) = (None, 0, false),
            }
        }
        if publisher.is_busy() {
            self.push_events();
        }
    }

    /// When kept events are tried again.
    pub(crate) fn publish_deadline(&self) -> Option<Instant> {
        self.publisher.as_ref().and_then(|p| p.again)
    }
}
