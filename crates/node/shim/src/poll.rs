//! The one epoll set, and what its events mean.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

pub(crate) use rustix::event::epoll::EventFlags as Ready;

/// What a descriptor in the set belongs to. Numbers are never used twice, so an event that was fetched before its object
/// went away finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Signals,
    Oom,
    Client(u32),
    Attached(u32),
    Stdout(u32),
    Stderr(u32),
    Stdin(u32),
    Relay(u32),
    Source(u32),
    Sink(u32),
    Publisher,
}

impl Token {
    fn pack(self) -> epoll::EventData {
        let (kind, number) = match self {
            Token::Listener => (0, 0),
            Token::Signals => (1, 0),
            Token::Oom => (2, 0),
            Token::Client(n) => (3, n),
            Token::Attached(n) => (4, n),
            Token::Stdout(n) => (5, n),
            Token::Stderr(n) => (6, n),
            Token::Stdin(n) => (7, n),
            Token::Relay(n) => (8, n),
            Token::Source(n) => (9, n),
            Token::Sink(n) => (10, n),
            Token::Publisher => (11, 0),
        };
        epoll::EventData::new_u64(kind << 32 | u64::from(number))
    }

    fn unpack(data: epoll::EventData) -> Token {
        let number = data.u64() as u32;
        match data.u64() >> 32 {
            0 => Token::Listener,
            1 => Token::Signals,
            2 => Token::Oom,
            3 => Token::Client(number),
            4 => Token::Attached(number),
            5 => Token::Stdout(number),
            6 => Token::Stderr(number),
            7 => Token::Stdin(number),
            8 => Token::Relay(number),
            9 => Token::Source(number),
            10 => Token::Sink(number),
            _ => Token::Publisher,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: Token, ready: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.pack(), ready)?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, token: Token, ready: Ready) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token.pack(), ready)?)
    }

    /// Takes a descriptor out. One that was never in is fine: the caller wants it out.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events until the deadline.
    pub(crate) fn wait(&self, events: &mut Vec<(Token, Ready)>, deadline: Option<Instant>) -> io::Result<()> {
        // Rounded up, so that a deadline has passed when its time-out is over.
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = left.and_then(|t| Timespec::try_from(t).ok());
        let mut buffer = [epoll::Event { flags: Ready::empty(), data: epoll::EventData::new_u64(0) }; 16];
        events.clear();
        match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok(n) => {
                events.extend(buffer[..n].iter().map(|e| (Token::unpack(e.data), e.flags)));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
