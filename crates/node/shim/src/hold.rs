//! Sockets that dockerd hands over while the container runs: a live connect brings a resolver, or published ports.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use wharf_proto_task::{Code, Message, Status, shim};

use crate::poll::{Ready, Token};
use crate::relay::Relay;
use crate::service::Answer;
use crate::supervisor::Supervisor;

/// Sockets that one container may have held: each connect may bring some, and a shim must not grow without bound.
const MOST: usize = 16_384;

impl Supervisor {
    /// Duplicates the caller's sockets. All of them, or none.
    pub(crate) fn hold(&mut self, request: &shim::HoldRequest) -> Answer {
        self.check_id(&request.id)?;
        if self.held.len() + self.relays.len() + request.sockets.len() + request.relays.len() > MOST {
            return Err(Status::new(Code::ResourceExhausted, format!("container has {MOST} sockets already")));
        }
        let failed = |what: &'static str| {
            move |e: rustix::io::Errno| Status::new(Code::Internal, format!("{what}: {}", std::io::Error::from(e)))
        };
        let pid = i32::try_from(request.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Status::new(Code::InvalidArgument, "no process id"))?;
        let owner = pidfd_open(pid, PidfdFlags::empty()).map_err(failed("opening the caller"))?;
        let take = |number: i32| {
            pidfd_getfd(&owner, number, PidfdGetfdFlags::empty()).map_err(failed("taking a socket of the caller"))
        };
        let sockets = request.sockets.iter().map(|n| take(*n)).collect::<Result<Vec<OwnedFd>, _>>()?;
        let mut relays = Vec::new();
        for relay in &request.relays {
            let to = relay.to.parse::<SocketAddr>().map_err(|e| Status::new(Code::InvalidArgument, e.to_string()))?;
            relays.push(Relay::new(take(relay.socket)?, to));
        }
        let next = self.relays.keys().next_back().map_or(0, |n| n + 1);
        for (number, relay) in (next..).zip(relays) {
            let watched = self.poll.add(&relay.listener, Token::Relay(number), Ready::IN);
            watched.map_err(|e| Status::new(Code::Internal, format!("watching a relay: {e}")))?;
            self.relays.insert(number, relay);
        }
        let numbers = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        self.held.extend(sockets);
        Ok(shim::HoldResponse { sockets: numbers }.encode_to_vec())
    }
}
