//! Our bridges in firewalld's zone: a thread that talks to it, since a reload may take its time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use wharf_firewall::firewalld::{BUS, Firewalld, News};
use wharf_types::Timestamp;

use crate::NetworkError;

/// What is known of firewalld.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirewalldState {
    /// It runs, and our bridges are in its zone.
    pub here: bool,
    /// When it last read its configuration again.
    pub reloaded: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Inbox {
    stop: bool,
    /// The bridges that there are.
    bridges: Vec<String>,
    state: FirewalldState,
}

/// The thread, where there is one; dropping it stops and joins it.
pub(crate) struct Zones {
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<OwnedFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock(inbox: &Mutex<Inbox>) -> std::sync::MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Zones {
    /// Prepares the thread, which starts when there is a bus: most hosts have no firewalld, and many no bus.
    pub(crate) fn new() -> Result<Zones, NetworkError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(|e| NetworkError::Io {
            action: "waking",
            subject: "firewalld thread".to_owned(),
            source: e.into(),
        })?;
        Ok(Zones { inbox: Arc::default(), wake: Arc::new(wake), thread: Mutex::default() })
    }

    fn wake(&self) {
        let mut handle = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() && !lock(&self.inbox).stop && Path::new(BUS).exists() {
            let (inbox, wake) = (self.inbox.clone(), self.wake.clone());
            let thread = Thread { inbox, wake, bus: None, zoned: Vec::new(), told: false };
            let builder = std::thread::Builder::new().name("firewalld".into()).stack_size(256 * 1024);
            match builder.spawn(move || thread.run()) {
                Ok(started) => *handle = Some(started),
                Err(error) => tracing::warn!(%error, "cannot start the thread that talks to firewalld"),
            }
        }
        drop(handle);
        // A full counter (EAGAIN) is a wake-up that was not yet seen.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// These bridges are to be in the zone, and no others of ours.
    pub(crate) fn want(&self, bridges: Vec<String>) {
        let mut inbox = lock(&self.inbox);
        if inbox.bridges != bridges {
            inbox.bridges = bridges;
            drop(inbox);
            self.wake();
        }
    }

    /// Rules of others changed: firewalld may have come.
    pub(crate) fn look(&self) {
        self.wake();
    }

    pub(crate) fn state(&self) -> FirewalldState {
        lock(&self.inbox).state
    }

    /// Stops the thread, which takes the bridges that are not wanted any more out of the zone first.
    pub(crate) fn stop(&self) {
        lock(&self.inbox).stop = true;
        self.wake();
        let handle = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // A panic of the thread has been reported by the panic hook.
            let _ = handle.join();
        }
    }
}

impl Drop for Zones {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Thread {
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<OwnedFd>,
    bus: Option<Firewalld>,
    /// What we put into the zone.
    zoned: Vec<String>,
    /// It was said that the bus cannot be used.
    told: bool,
}

impl Thread {
    fn run(mut self) {
        loop {
            let (bridges, stop) = {
                let inbox = lock(&self.inbox);
                (inbox.bridges.clone(), inbox.stop)
            };
            if let Err(error) = self.settle(&bridges) {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(%error, "firewalld cannot be asked; it may drop containers' traffic");
                }
                self.bus = None;
                self.note(|state| state.here = false);
            }
            if stop {
                return;
            }
            self.wait();
        }
    }

    fn note(&self, change: impl FnOnce(&mut FirewalldState)) {
        change(&mut lock(&self.inbox).state);
    }

    fn settle(&mut self, bridges: &[String]) -> std::io::Result<()> {
        if self.bus.is_none() {
            let socket = Path::new(BUS);
            if !socket.exists() {
                return Ok(());
            }
            self.bus = Some(Firewalld::connect(socket)?);
        }
        let Some(bus) = &mut self.bus else { return Ok(()) };
        let here = bus.is_here()?;
        self.note(|state| state.here = here);
        let Some(bus) = self.bus.as_mut().filter(|_| here) else {
            self.zoned.clear();
            return Ok(());
        };
        let gone: Vec<String> = self.zoned.iter().filter(|b| !bridges.contains(b)).cloned().collect();
        bus.forget(&gone)?;
        let changed = bus.settle(bridges)?;
        if changed > 0 {
            tracing::info!(bridges = changed, "put bridges into firewalld's zone docker");
        }
        self.zoned = bridges.to_vec();
        self.told = false;
        // The reload that made the zone is our own.
        if self.bus.as_mut().and_then(Firewalld::missed) == Some(News::Reloaded) {
            self.note(|state| state.reloaded = Some(Timestamp::now()));
        }
        Ok(())
    }

    fn wait(&mut self) {
        let heard = {
            let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
            fds.extend(self.bus.iter().map(|b| PollFd::from_borrowed_fd(b.as_fd(), PollFlags::IN)));
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, None);
            fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
        };
        let mut counter = [0; 8];
        // EAGAIN: it was the bus.
        let _ = rustix::io::read(&*self.wake, &mut counter);
        if let (true, Some(bus)) = (heard, &mut self.bus) {
            match bus.news() {
                Ok(Some(News::Reloaded)) => self.note(|state| state.reloaded = Some(Timestamp::now())),
                Ok(_) => {}
                // The bus went; another may come.
                Err(_) => self.bus = None,
            }
        }
    }
}
