//! The loop: one thread, one epoll, all containers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketFlags, accept_with, recv, recvfrom, send, sendto};

use crate::exchange::{Asker, Attempt, Exchange, Progress};
use crate::{Client, Command, Decision, Served, Shared, answer, lock};

/// Queries of one container that may wait for upstreams at a time, as in libnetwork.
const MAX_EXCHANGES: usize = 1024;
/// Connections that one container may have.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// Packets that one container may have answered before the others' turn.
const TURN: usize = 64;

const WAKE: u64 = 0;

/// A container's sockets.
struct Container {
    key: String,
    udp: OwnedFd,
    /// Kept open: it is known to epoll by its number.
    tcp: OwnedFd,
    served: Arc<Served>,
    exchanges: usize,
    connections: usize,
}

/// A client's connection.
struct Connection {
    socket: OwnedFd,
    container: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Queries of it that upstreams are asked.
    waiting: usize,
    ended: bool,
    used: Instant,
}

/// What a number in epoll means.
#[derive(Clone, Copy)]
enum Token {
    Udp(u64),
    Listener(u64),
    Connection(u64),
    Attempt(u64),
}

pub(crate) struct Server {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    epoll: OwnedFd,
    tokens: HashMap<u64, Token>,
    next: u64,
    containers: HashMap<u64, Container>,
    connections: HashMap<u64, Connection>,
    exchanges: HashMap<u64, Exchange>,
    /// Asked servers by their token.
    attempts: HashMap<u64, Attempt>,
    /// When exchanges want attention.
    deadlines: BTreeMap<(Instant, u64), ()>,
    turn: usize,
    buffer: Vec<u8>,
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, wake: Arc<OwnedFd>) -> io::Result<Server> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Server {
            shared,
            wake,
            epoll,
            tokens: HashMap::new(),
            next: WAKE + 1,
            containers: HashMap::new(),
            connections: HashMap::new(),
            exchanges: HashMap::new(),
            attempts: HashMap::new(),
            deadlines: BTreeMap::new(),
            turn: 0,
            buffer: vec![0; 65_536],
        })
    }

    pub(crate) fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the resolver cannot wait; it ends");
                    return;
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        if !self.obey() {
                            return;
                        }
                    }
                    number => self.happen(number),
                }
            }
            self.pass_deadlines();
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let first = self.deadlines.keys().next().map(|(at, _)| *at);
        let idle = self.connections.values().map(|c| c.used + IDLE).min();
        let at = first.into_iter().chain(idle).min()?;
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).ok()
    }

    fn watch(&mut self, fd: &OwnedFd, token: Token, flags: epoll::EventFlags) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(number), flags)?;
        self.tokens.insert(number, token);
        Ok(number)
    }

    /// Does what callers asked for. False if that is to stop.
    fn obey(&mut self) -> bool {
        let mut counter = [0; 8];
        // EAGAIN: somebody else's wake-up was read together with ours.
        let _ = rustix::io::read(&*self.wake, &mut counter);
        let commands = std::mem::take(&mut *lock(&self.shared.inbox));
        for command in commands {
            match command {
                Command::Stop => return false,
                Command::Forget { key } => self.forget(&key),
                Command::Serve { key, sockets, served } => {
                    self.forget(&key);
                    if let Err(error) = self.serve(key, sockets, served) {
                        tracing::error!(%error, "cannot serve names to a container");
                    }
                }
            }
        }
        true
    }

    fn serve(&mut self, key: String, sockets: crate::Sockets, served: Arc<Served>) -> io::Result<()> {
        for fd in [&sockets.udp, &sockets.tcp] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let id = self.next;
        self.next += 1;
        self.watch(&sockets.udp, Token::Udp(id), epoll::EventFlags::IN)?;
        self.watch(&sockets.tcp, Token::Listener(id), epoll::EventFlags::IN)?;
        let crate::Sockets { udp, tcp } = sockets;
        self.containers.insert(id, Container { key, udp, tcp, served, exchanges: 0, connections: 0 });
        Ok(())
    }

    fn forget(&mut self, key: &str) {
        let Some(id) = self.containers.iter().find(|(_, c)| c.key == key).map(|(id, _)| *id) else { return };
        if let Some(container) = self.containers.remove(&id) {
            // Other processes hold duplicates, so closing alone would not end the watch.
            let _ = epoll::delete(&self.epoll, &container.udp);
            let _ = epoll::delete(&self.epoll, &container.tcp);
        }
        self.connections.retain(|_, c| c.container != id);
        let gone: Vec<u64> = self.exchanges.iter().filter(|(_, e)| e.container == id).map(|(n, _)| *n).collect();
        gone.iter().for_each(|n| drop(self.exchanges.remove(n)));
        self.sweep();
    }

    /// Forgets tokens whose owners are gone.
    fn sweep(&mut self) {
        let Server { tokens, containers, connections, exchanges, attempts, deadlines, .. } = self;
        tokens.retain(|number, token| match token {
            Token::Udp(id) | Token::Listener(id) => containers.contains_key(id),
            Token::Connection(id) => connections.contains_key(id),
            Token::Attempt(id) => exchanges.contains_key(id) && attempts.contains_key(number),
        });
        attempts.retain(|number, _| tokens.contains_key(number));
        deadlines.retain(|(_, id), ()| exchanges.contains_key(id));
    }

    fn happen(&mut self, number: u64) {
        match self.tokens.get(&number).copied() {
            Some(Token::Udp(id)) => self.datagrams(id),
            Some(Token::Listener(id)) => self.accept(id),
            Some(Token::Connection(id)) => self.connection(id),
            Some(Token::Attempt(exchange)) => self.attempt(exchange, number),
            // Its owner went while the event was under way.
            None => {}
        }
    }

    fn client(&self, container: u64) -> Option<Arc<Client>> {
        let served = &self.containers.get(&container)?.served;
        Some(served.client.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn decide(&mut self, client: &Client, query: &[u8], over_tcp: bool) -> Decision {
        self.turn = self.turn.wrapping_add(1);
        let names = self.shared.names.read().unwrap_or_else(PoisonError::into_inner);
        answer(&names, client, query, over_tcp, self.turn)
    }

    fn datagrams(&mut self, id: u64) {
        let Some(client) = self.client(id) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..TURN {
            let Some(container) = self.containers.get(&id) else { break };
            let received = recvfrom(&container.udp, &mut buffer[..], RecvFlags::empty());
            let (length, from) = match received {
                Ok((length, _, Some(from))) => (length, from),
                Ok(_) | Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            match self.decide(&client, &buffer[..length], false) {
                Decision::Reply(reply) => self.send_to(id, &from, &reply),
                Decision::Forward { limit } => {
                    let exchange =
                        Exchange::new(id, Asker::Udp(id, from), client.clone(), buffer[..length].to_vec(), limit);
                    self.begin(exchange);
                }
                Decision::Ignore => {}
            }
        }
        self.buffer = buffer;
    }

    fn send_to(&self, container: u64, to: &SocketAddrAny, packet: &[u8]) {
        if let Some(container) = self.containers.get(&container) {
            // A full socket loses the answer, as any network may; the client asks again.
            let _ = sendto(&container.udp, packet, SendFlags::empty(), to);
        }
    }

    fn accept(&mut self, id: u64) {
        loop {
            let Some(container) = self.containers.get_mut(&id) else { return };
            let accepted = accept_with(&container.tcp, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let socket = match accepted {
                Ok(socket) if container.connections < MAX_CONNECTIONS => socket,
                // Too many: closed at once.
                Ok(_) => continue,
                Err(_) => return,
            };
            container.connections += 1;
            let number = self.next;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            // The connection's number is that of the token after it.
            self.next += 1;
            if self.watch(&socket, Token::Connection(number), flags).is_ok() {
                let connection = Connection {
                    socket,
                    container: id,
                    input: Vec::new(),
                    output: Vec::new(),
                    waiting: 0,
                    ended: false,
                    used: Instant::now(),
                };
                self.connections.insert(number, connection);
                self.connection(number);
            }
        }
    }

    /// Reads a connection's queries and writes its answers, as far as goes.
    fn connection(&mut self, id: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(connection) = self.connections.get_mut(&id) else {
            self.buffer = buffer;
            return;
        };
        connection.used = Instant::now();
        let container = connection.container;
        // A client that sends and does not read is not read either.
        while !connection.ended && connection.input.len() + connection.output.len() < 4 * 65_536 {
            match recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => connection.ended = true,
                Ok((n, _)) => connection.input.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    connection.ended = true;
                    connection.output.clear();
                }
            }
        }
        self.buffer = buffer;
        while let Some(query) = self.connections.get_mut(&id).and_then(|c| next_message(&mut c.input)) {
            let Some(client) = self.client(container) else { return };
            match self.decide(&client, &query, true) {
                Decision::Reply(reply) => self.write(id, &reply),
                Decision::Forward { limit } => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.waiting += 1;
                    }
                    self.begin(Exchange::new(container, Asker::Tcp(id), client, query, limit));
                }
                Decision::Ignore => {}
            }
        }
        self.flush(id);
    }

    fn write(&mut self, id: u64, packet: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            // Packets are at most 65535 bytes long.
            connection.output.extend_from_slice(&(packet.len() as u16).to_be_bytes());
            connection.output.extend_from_slice(packet);
        }
    }

    /// Writes what is ready; a connection that has nothing more to get or give is closed.
    fn flush(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        while !connection.output.is_empty() {
            match send(&connection.socket, &connection.output, SendFlags::NOSIGNAL) {
                Ok(n) => drop(connection.output.drain(..n)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    connection.output.clear();
                    connection.ended = true;
                    connection.waiting = 0;
                }
            }
        }
        if connection.ended && connection.waiting == 0 {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id)
            && let Some(container) = self.containers.get_mut(&connection.container)
        {
            container.connections -= 1;
        }
        self.tokens.retain(|_, t| !matches!(t, Token::Connection(n) if *n == id));
    }

    fn begin(&mut self, mut exchange: Exchange) {
        let Some(container) = self.containers.get_mut(&exchange.container) else { return };
        if container.exchanges >= MAX_EXCHANGES {
            let refused = exchange.give_up();
            return self.deliver(&exchange.asker.clone(), refused);
        }
        container.exchanges += 1;
        let id = self.next;
        self.next += 1;
        self.exchanges.insert(id, exchange);
        self.ask(id);
    }

    /// Asks the next server; without one left and none that may answer, the exchange ends.
    fn ask(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let over_tcp = matches!(exchange.asker, Asker::Tcp(_));
        match exchange.ask_next(&self.shared.home) {
            Some(attempt) => {
                let flags = match over_tcp {
                    true => epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET,
                    false => epoll::EventFlags::IN,
                };
                match self.watch(&attempt.socket, Token::Attempt(id), flags) {
                    Ok(number) => drop(self.attempts.insert(number, attempt)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot wait for a name server");
                        return self.finish(id, None);
                    }
                }
            }
            None if exchange.live == 0 => return self.finish(id, None),
            None => {}
        }
        if let Some(exchange) = self.exchanges.get(&id) {
            self.deadlines.insert((exchange.deadline(), id), ());
        }
    }

    fn attempt(&mut self, id: u64, number: u64) {
        let Some(mut attempt) = self.attempts.remove(&number) else { return };
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let progress = match exchange.asker {
            Asker::Udp(..) => exchange.receive(&mut attempt, &mut buffer),
            Asker::Tcp(_) => exchange.stream(&mut attempt, &mut buffer),
        };
        self.buffer = buffer;
        match progress {
            Progress::Waiting => drop(self.attempts.insert(number, attempt)),
            Progress::Answer(answer) => self.finish(id, Some(answer)),
            Progress::Failed => {
                exchange.live -= 1;
                self.tokens.remove(&number);
                drop(attempt);
                self.ask(id);
            }
        }
    }

    fn finish(&mut self, id: u64, answer: Option<Vec<u8>>) {
        let Some(mut exchange) = self.exchanges.remove(&id) else { return };
        if let Some(container) = self.containers.get_mut(&exchange.container) {
            container.exchanges -= 1;
        }
        let Server { tokens, attempts, .. } = self;
        tokens.retain(|number, token| {
            let own = matches!(token, Token::Attempt(n) if *n == id);
            if own {
                attempts.remove(number);
            }
            !own
        });
        let answer = answer.or_else(|| exchange.give_up());
        self.deliver(&exchange.asker, answer);
    }

    fn deliver(&mut self, asker: &Asker, answer: Option<Vec<u8>>) {
        match asker {
            Asker::Udp(container, to) => {
                if let Some(answer) = answer {
                    self.send_to(*container, to, &answer);
                }
            }
            Asker::Tcp(connection) => {
                if let Some(answer) = answer {
                    self.write(*connection, &answer);
                }
                if let Some(connection) = self.connections.get_mut(connection) {
                    connection.waiting = connection.waiting.saturating_sub(1);
                }
                self.flush(*connection);
            }
        }
    }

    fn pass_deadlines(&mut self) {
        let now = Instant::now();
        while let Some(((at, id), ())) = self.deadlines.pop_first() {
            if at > now {
                self.deadlines.insert((at, id), ());
                break;
            }
            let Some(exchange) = self.exchanges.get(&id) else { continue };
            if exchange.is_over(now) {
                self.finish(id, None);
            } else if exchange.deadline() <= now {
                self.ask(id);
            } else {
                self.deadlines.insert((exchange.deadline(), id), ());
            }
        }
        let idle = |c: &Connection| c.waiting == 0 && now.duration_since(c.used) >= IDLE;
        let stale: Vec<u64> = self.connections.iter().filter(|(_, c)| idle(c)).map(|(id, _)| *id).collect();
        stale.into_iter().for_each(|id| self.close(id));
    }
}

/// Takes the next whole message, which has its length before it, out of a connection's input.
fn next_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}
