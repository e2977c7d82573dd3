//! A query on its way to upstreams: as raw packets, with another id; the next server is asked as well when one is slow.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketType, recv, send};

use crate::socket::{to_upstream, within};
use crate::{Client, answer};

/// After how long without an answer the next server is asked, too.
const PATIENCE: Duration = Duration::from_millis(500);
/// After how long the client is told that it failed: before its own resolver asks again (resolv.conf(5): 5 s).
const LIMIT: Duration = Duration::from_millis(4500);

/// To whom the answer goes.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// The socket of a container, and who asked there.
    Udp(u64, SocketAddrAny),
    /// A connection.
    Tcp(u64),
}

/// One server that was asked.
pub(crate) struct Attempt {
    pub(crate) socket: OwnedFd,
    id: [u8; 2],
    /// What still has to be written to a connection, and what came from it.
    out: Vec<u8>,
    input: Vec<u8>,
}

/// A query that upstreams are asked.
pub(crate) struct Exchange {
    pub(crate) container: u64,
    pub(crate) asker: Asker,
    client: Arc<Client>,
    query: Vec<u8>,
    /// The end of the question in the query: an answer must repeat it.
    question_end: usize,
    limit: usize,
    next: usize,
    pub(crate) live: usize,
    begun: Instant,
    asked: Instant,
    refusal: Option<Vec<u8>>,
}

/// What came of something that happened to an attempt.
pub(crate) enum Progress {
    /// Nothing yet.
    Waiting,
    /// This is the answer.
    Answer(Vec<u8>),
    /// This server will not answer, or refused.
    Failed,
}

impl Exchange {
    pub(crate) fn new(container: u64, asker: Asker, client: Arc<Client>, query: Vec<u8>, limit: usize) -> Exchange {
        let now = Instant::now();
        let question_end = question_end(&query).unwrap_or(12);
        Exchange {
            container,
            asker,
            client,
            query,
            question_end,
            limit,
            next: 0,
            live: 0,
            begun: now,
            asked: now,
            refusal: None,
        }
    }

    /// Asks the next server that can be asked; none if there is no other.
    pub(crate) fn ask_next(&mut self, home: &OwnedFd) -> Option<Attempt> {
        while let Some(upstream) = self.client.upstreams.get(self.next).copied() {
            self.next += 1;
            self.asked = Instant::now();
            let over_tcp = matches!(self.asker, Asker::Tcp(_));
            let netns = self.client.netns.as_deref().filter(|_| !upstream.from_host).map(std::os::fd::AsFd::as_fd);
            let kind = if over_tcp { SocketType::STREAM } else { SocketType::DGRAM };
            let Ok(socket) = within(home, netns, || to_upstream(kind, upstream.address)) else { continue };
            let id = random_id();
            let mut packet = self.query.clone();
            packet[..2].copy_from_slice(&id);
            let mut attempt = Attempt { socket, id, out: Vec::new(), input: Vec::new() };
            if over_tcp {
                attempt.out.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                attempt.out.extend_from_slice(&packet);
            } else if send(&attempt.socket, &packet, SendFlags::empty()).is_err() {
                continue;
            }
            self.live += 1;
            return Some(attempt);
        }
        None
    }

    /// When something is to be done although nothing happens.
    pub(crate) fn deadline(&self) -> Instant {
        let end = self.begun + LIMIT;
        if self.next < self.client.upstreams.len() { end.min(self.asked + PATIENCE) } else { end }
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.begun + LIMIT
    }

    /// What the client is told when no server answered: what one of them said instead, or that it failed.
    pub(crate) fn give_up(&mut self) -> Option<Vec<u8>> {
        self.refusal.take().or_else(|| answer::failure(&self.query))
    }

    /// Takes what came from a server over UDP.
    pub(crate) fn receive(&mut self, attempt: &mut Attempt, buffer: &mut [u8]) -> Progress {
        loop {
            let length = match recv(&attempt.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(Errno::INTR) => continue,
                // Nobody listens there (ICMP).
                Err(_) => return Progress::Failed,
            };
            if let Some(done) = self.judge(attempt, &buffer[..length]) {
                return done;
            }
        }
    }

    /// Goes on with a connection to a server.
    pub(crate) fn stream(&mut self, attempt: &mut Attempt, buffer: &mut [u8]) -> Progress {
        while !attempt.out.is_empty() {
            match send(&attempt.socket, &attempt.out, SendFlags::NOSIGNAL) {
                Ok(n) => drop(attempt.out.drain(..n)),
                Err(Errno::AGAIN | Errno::NOTCONN) => return Progress::Waiting,
                Err(Errno::INTR) => {}
                Err(_) => return Progress::Failed,
            }
        }
        loop {
            match recv(&attempt.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Progress::Failed,
                Ok((n, _)) => attempt.input.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(Errno::INTR) => continue,
                Err(_) => return Progress::Failed,
            }
            let input = std::mem::take(&mut attempt.input);
            let whole = input.get(..2).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])));
            match whole.and_then(|length| input.get(2..2 + length)) {
                // A server that answers something else over a connection is not waited for.
                Some(packet) => return self.judge(attempt, packet).unwrap_or(Progress::Failed),
                None => attempt.input = input,
            }
        }
    }

    /// Whether a packet answers the query: the id, the direction and the question must be its own. `None` if it is
    /// somebody's guess.
    fn judge(&mut self, attempt: &Attempt, packet: &[u8]) -> Option<Progress> {
        let question = &self.query[12..self.question_end];
        let repeats = packet.get(12..self.question_end).is_some_and(|q| q.eq_ignore_ascii_case(question));
        if packet.len() < 12 || packet[..2] != attempt.id || packet[2] & 0x80 == 0 || !repeats {
            return None;
        }
        let mut answer = packet.to_vec();
        answer[..2].copy_from_slice(&self.query[..2]);
        // SERVFAIL, NOTIMP and REFUSED: another server may know better.
        if matches!(answer[3] & 0xf, 2 | 4 | 5) {
            self.refusal.get_or_insert(answer);
            return Some(Progress::Failed);
        }
        if let Some(observer) = &self.client.observer
            && let Some((name, addresses)) = answer::addresses(&answer)
        {
            observer(&name, &addresses);
        }
        if answer.len() > self.limit {
            // More than the client can take: what fits, marked as cut.
            answer.truncate(self.question_end);
            answer[2] |= 0x02;
            answer[6..12].fill(0);
        }
        Some(Progress::Answer(answer))
    }
}

/// Where the first question ends: names of questions are not compressed.
fn question_end(query: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        if length & 0xc0 != 0 {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            return (query.len() >= at + 4).then_some(at + 4);
        }
    }
}

fn random_id() -> [u8; 2] {
    let mut id = [0; 2];
    // Up to 256 bytes come whole; before the pool is ready (never in a daemon) the id is just easier to guess.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn finding_the_questions_end_never_panics(query in proptest::collection::vec(0u8.., 0..80)) {
            if let Some(end) = question_end(&query) {
                proptest::prop_assert!(end <= query.len());
            }
        }
    }
}
