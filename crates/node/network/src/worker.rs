//! The background thread: fills the pool, names links, watches other programs' tables.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wharf_error::Chain;
use wharf_firewall::{LOGGED, Protocol, neighbours};
use wharf_netlink::route::{self, Which};
use wharf_netlink::{Family, NetlinkError, Requests, Socket, conntrack, nflog, nft};
use wharf_types::ContainerId;

use crate::networks::{Shared, lock};
use crate::{NetworkConfig, NetworkError};

/// How long other programs' tables must be quiet before we look at them: reloads come in many transactions.
const QUIET: Duration = Duration::from_millis(20);

/// What callers leave for the thread to do.
#[derive(Debug, Default)]
struct Inbox {
    stop: bool,
    taken: Vec<(String, ContainerId)>,
    flows: Flows,
}

/// Connections to forget.
#[derive(Debug, Default)]
struct Flows {
    /// Those that these containers answered.
    containers: Vec<IpAddr>,
    /// UDP to these ports of the host.
    ports: Vec<u16>,
}

impl Flows {
    fn contain(&self, flow: &conntrack::Flow) -> bool {
        let udp = flow.protocol == Protocol::Udp.number();
        self.containers.contains(&flow.answered_by) || (udp && self.ports.contains(&flow.port))
    }
}

/// The thread; dropping it stops and joins it.
pub(crate) struct Worker {
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread. It first fills the pool.
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self, NetworkError> {
        let io = |action, source| NetworkError::Io { action, subject: "background thread".to_owned(), source };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|e| io("waking", e.into()))?);
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let monitor = match &shared.rules {
            Some(_) => Some(open_monitor(&shared.config)?),
            None => None,
        };
        let this = Thread {
            shared,
            inbox: Arc::clone(&inbox),
            wake: Arc::clone(&wake),
            monitor,
            refused: None,
            deaf: false,
            changed: None,
        };
        let thread = std::thread::Builder::new()
            .name("network".into())
            .stack_size(256 * 1024)
            .spawn(move || this.run())
            .map_err(|e| io("starting", e))?;
        Ok(Self { inbox, wake, thread: Mutex::new(Some(thread)) })
    }

    /// A sandbox went to a container: another is to be made, and its link is to be named after the container.
    pub(crate) fn taken(&self, link: String, container: ContainerId) {
        lock(&self.inbox).taken.push((link, container));
        self.refill();
    }

    /// The pool may have room.
    pub(crate) fn refill(&self) {
        // A full counter (EAGAIN) is a wake-up that was not yet seen.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// Stops the thread and waits for it.
    pub(crate) fn stop(&self) {
        lock(&self.inbox).stop = true;
        self.refill();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// Connections to these addresses are to be forgotten, so that datagrams of old clients find the next container.
    pub(crate) fn forget_containers(&self, addresses: Vec<IpAddr>) {
        lock(&self.inbox).flows.containers.extend(addresses);
        self.refill();
    }

    /// Connections to these UDP ports of the host are to be forgotten: clients that asked before the port was
    /// published would go on to ask the host.
    pub(crate) fn forget_ports(&self, ports: impl Iterator<Item = u16>) {
        lock(&self.inbox).flows.ports.extend(ports);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open_monitor(config: &NetworkConfig) -> Result<Socket, NetworkError> {
    Socket::with_groups(Family::Netfilter, nft::EVENTS).map_err(|source| NetworkError::Link {
        action: "watching tables beside",
        link: config.table.clone(),
        source,
    })
}

struct Thread {
    shared: Arc<Shared>,
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<OwnedFd>,
    monitor: Option<Socket>,
    /// Where refused packets are heard of, once there are policies.
    refused: Option<Socket>,
    /// That could not be opened.
    deaf: bool,
    /// When somebody last changed a chain or rule.
    changed: Option<Instant>,
}

impl Thread {
    fn run(mut self) {
        loop {
            let inbox = std::mem::take(&mut *lock(&self.inbox));
            if inbox.stop {
                return;
            }
            self.name(inbox.taken);
            self.forget(&inbox.flows);
            self.fill();
            self.listen();
            if self.changed.is_some_and(|at| at.elapsed() >= QUIET) {
                self.changed = None;
                self.restore();
            }
            self.wait();
        }
    }

    fn wait(&mut self) {
        let timeout = self.changed.map(|at| QUIET.saturating_sub(at.elapsed()) + Duration::from_millis(1));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        let sockets = [&self.monitor, &self.refused];
        fds.extend(sockets.into_iter().flatten().map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut ready = fds.iter().skip(1).map(|fd| !fd.revents().is_empty());
        let heard = self.monitor.is_some() && ready.next() == Some(true);
        let refused = self.refused.is_some() && ready.next() == Some(true);
        drop(ready);
        let mut counter = [0; 8];
        // EAGAIN: it was the monitor.
        let _ = rustix::io::read(&*self.wake, &mut counter);
        if heard {
            self.hear();
        }
        if refused {
            self.hear_refused();
        }
    }

    /// Begins to listen for refused packets when there are policies.
    fn listen(&mut self) {
        let Some(group) = self.shared.log_group().filter(|_| self.refused.is_none() && !self.deaf) else { return };
        match nflog::listen(group, LOGGED) {
            Ok(socket) => self.refused = Some(socket),
            Err(e) => {
                self.deaf = true;
                tracing::warn!(group, error = %Chain(&e), "refused packets are not told of");
            }
        }
    }

    fn hear_refused(&mut self) {
        let Some(socket) = &mut self.refused else { return };
        let mut packets = Vec::new();
        match socket.events(|message| packets.extend(nflog::packet(message))) {
            // More than could be told.
            Ok(()) | Err(NetlinkError::Overrun) => {}
            Err(e) => {
                tracing::warn!(error = %Chain(&e), "refused packets are told of no longer");
                (self.refused, self.deaf) = (None, true);
            }
        }
        packets.iter().for_each(|packet| self.shared.refused(packet));
    }

    fn hear(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let mut foreign = false;
        match monitor.events(|message| foreign |= nft::event(message).is_some()) {
            Ok(()) => {}
            Err(NetlinkError::Overrun) => foreign = true,
            Err(e) => {
                tracing::warn!(error = %Chain(&e), "tables are no longer watched");
                self.monitor = None;
            }
        }
        if foreign {
            self.changed = Some(Instant::now());
        }
    }

    /// Puts back what a reload of other programs' rules took away.
    fn restore(&self) {
        let Some(rules) = &self.shared.rules else { return };
        self.shared.zones.iter().for_each(crate::zones::Zones::look);
        let (whole, wish) = {
            let written = lock(&rules.written);
            (rules.table.is_whole(&written.set), written.wish.clone())
        };
        let outcome = match whole {
            Ok(true) => neighbours::settle(&rules.table, &wish).map(|changes| {
                if !changes.is_empty() {
                    tracing::info!(changes = changes.len(), "firewall rules of neighbours changed; added ours again");
                }
            }),
            Ok(false) => {
                tracing::warn!(table = rules.table.name(), "firewall table was removed by someone; writing it again");
                match self.shared.write_rules() {
                    Err(NetworkError::Firewall(e)) => Err(e),
                    _ => Ok(()),
                }
            }
            Err(e) => Err(e),
        };
        if let Err(e) = outcome {
            tracing::warn!(error = %Chain(&e), "firewall rules");
        }
    }

    fn name(&self, taken: Vec<(String, ContainerId)>) {
        if taken.is_empty() {
            return;
        }
        let mut requests = Requests::new();
        for (link, container) in &taken {
            let alias = format!("wharf:{}:{container}", self.shared.config.instance);
            route::set_alias(&mut requests, Which::Name(link), &alias);
        }
        match lock(&self.shared.host).call(&mut requests) {
            // The container is gone already.
            Err(e) if !e.is(wharf_netlink::Errno::NODEV) => {
                tracing::warn!(error = %Chain(&e), "naming container links");
            }
            _ => {}
        }
    }

    fn forget(&self, flows: &Flows) {
        if flows.containers.is_empty() && flows.ports.is_empty() {
            return;
        }
        let ipv6 = self.shared.config.bridge.as_ref().is_some_and(|b| b.ipv6)
            || flows.containers.iter().any(std::net::IpAddr::is_ipv6);
        for family in [false, true].into_iter().take(if ipv6 { 2 } else { 1 }) {
            let outcome = Socket::open(Family::Netfilter)
                .and_then(|mut s| conntrack::forget(&mut s, family, |flow| flows.contain(flow)));
            if let Err(e) = outcome {
                tracing::warn!(error = %Chain(&e), "forgetting connections");
            }
        }
    }

    /// Fills the pool when half of it is used.
    fn fill(&self) {
        if let Err(e) = self.shared.solitude.fill(&self.shared.home, self.shared.config.users.as_ref()) {
            tracing::debug!(error = %Chain(&e), "no namespace without network is kept ready");
        }
        let Some(plan) = &self.shared.plan else { return };
        let size = self.shared.config.pool_size;
        let present = lock(&self.shared.state).ready.len();
        if present > size / 2 {
            return;
        }
        for _ in present..size {
            let _filling = lock(&self.shared.filling);
            match self.shared.build(plan) {
                Ok(sandbox) => lock(&self.shared.state).ready.push_back(sandbox),
                Err(e) => {
                    // The container that needs one will be told.
                    tracing::debug!(error = %Chain(&e), "no sandbox for the pool");
                    return;
                }
            }
        }
    }
}
