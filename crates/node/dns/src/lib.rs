//! The resolver that containers on user-defined networks have at 127.0.0.11.
//!
//! One thread serves all containers: a socket keeps the network namespace in which it was made, so UDP and TCP sockets
//! of every container hang on one epoll. Names come from [`Names`], which the engine keeps; everything else is forwarded
//! as raw packets, from the namespace that the upstream belongs to. The thread never waits for one container or upstream.

mod answer;
mod error;
mod exchange;
mod names;
mod server;
mod socket;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

pub use answer::{Decision, answer};
pub use error::DnsError;
use error::failed;
pub use names::{Host, Names, Zone};
pub use socket::{Sockets, open_sockets};

/// A server that unknown names are asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Address and port.
    pub address: SocketAddr,
    /// Asked from the host's namespace: it was found in the host's resolv.conf. Otherwise from the container's.
    pub from_host: bool,
}

/// Told of the addresses of a forwarded name, with their lifetime in seconds, before the client is.
pub type Observer = Arc<dyn Fn(&str, &[(IpAddr, u32)]) + Send + Sync>;

/// Says whether a name may be asked of upstreams.
pub type Permit = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What one container is answered from.
#[derive(Clone, Default)]
pub struct Client {
    /// Ids of its networks, in the order in which they are searched.
    pub networks: Vec<String>,
    /// Names that only this container has for others: alias → name.
    pub links: HashMap<String, String>,
    /// Where unknown names are asked for.
    pub upstreams: Vec<Upstream>,
    /// Whether it may ask at all: a container on internal networks only may not (CVE-2024-29018).
    pub external: bool,
    /// Its namespace, from which its own upstreams are asked.
    pub netns: Option<Arc<OwnedFd>>,
    /// Which names may be forwarded, if not all: the others do not exist.
    pub permits: Option<Permit>,
    /// Told of forwarded answers.
    pub observer: Option<Observer>,
}

/// One container in the table that callers and the thread share.
pub(crate) struct Served {
    pub(crate) client: RwLock<Arc<Client>>,
}

pub(crate) struct Shared {
    pub(crate) names: RwLock<Names>,
    pub(crate) served: Mutex<HashMap<String, Arc<Served>>>,
    pub(crate) inbox: Mutex<Vec<Command>>,
    pub(crate) home: OwnedFd,
}

pub(crate) enum Command {
    Serve { key: String, sockets: Sockets, served: Arc<Served> },
    Forget { key: String },
    Stop,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data consistent at each step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The resolver of one daemon. Dropping it stops its thread.
pub struct Resolver {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Resolver {
    /// Starts the thread, in the caller's network namespace, which is the host's.
    pub fn start() -> Result<Resolver, DnsError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(failed("waking"))?);
        let shared = Arc::new(Shared {
            names: RwLock::default(),
            served: Mutex::default(),
            inbox: Mutex::default(),
            home: socket::current_namespace().map_err(failed("finding the namespace of"))?,
        });
        let server = server::Server::new(shared.clone(), wake.clone()).map_err(failed("starting"))?;
        let thread = std::thread::Builder::new()
            .name("resolver".into())
            .stack_size(512 * 1024)
            .spawn(move || server.run())
            .map_err(failed("starting"))?;
        Ok(Resolver { shared, wake, thread: Mutex::new(Some(thread)) })
    }

    /// Serves a container on its sockets. One that is served already gets the new sockets.
    pub fn serve(&self, key: &str, sockets: Sockets, client: Client) {
        let served = Arc::new(Served { client: RwLock::new(Arc::new(client)) });
        lock(&self.shared.served).insert(key.to_owned(), served.clone());
        self.send(Command::Serve { key: key.to_owned(), sockets, served });
    }

    /// Whether a container is served.
    pub fn serves(&self, key: &str) -> bool {
        lock(&self.shared.served).contains_key(key)
    }

    /// Changes what a container is answered from; queries that come from now on see it.
    pub fn change(&self, key: &str, client: Client) {
        if let Some(served) = lock(&self.shared.served).get(key) {
            *served.client.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        }
    }

    /// Serves a container no longer.
    pub fn forget(&self, key: &str) {
        if lock(&self.shared.served).remove(key).is_some() {
            self.send(Command::Forget { key: key.to_owned() });
        }
    }

    /// Changes the names; queries that come from now on see it.
    pub fn names<T>(&self, change: impl FnOnce(&mut Names) -> T) -> T {
        change(&mut self.shared.names.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(&self, command: Command) {
        lock(&self.shared.inbox).push(command);
        // A full counter (EAGAIN) is a wake-up that was not yet seen.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
