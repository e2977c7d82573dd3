//! A container's life after create: start, end, restart, stop, kill, pause and remove. Whoever changes a container's
//! run holds its lock; nobody holds it while waiting for a process to end.

mod attach;
mod checkpoint;
mod endings;
mod files;
mod health;
mod launch;
mod links;
mod names;
mod ports;
mod remove;
mod saver;
mod sources;
mod start;
mod stop;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use wharf_dns::Resolver;
use wharf_network::Networks;
use wharf_snapshot::Snapshotter;
use wharf_task::Shims;
use wharf_types::ContainerId;

use crate::config::EngineConfig;
use crate::container::{Records, Registry};
use crate::events::Events;
use crate::execs::Execs;
use crate::logging::Forwarders;
use crate::networks::Catalog;
use crate::spec::Identity;
use crate::volumes::Volumes;

pub(crate) use attach::{Kept, SANDBOX_FILE};
pub(crate) use links::split as split_link;
pub use remove::RemoveOptions;
pub use saver::Saver;
pub(crate) use saver::current_record;
pub(crate) use stop::GRACE;

/// What starting, ending and removing need.
pub struct Lifecycle {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) cgroup_v2: bool,
    /// Whether the kernel can make a tree of mounts read-only.
    pub(crate) recursive_read_only: bool,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) resolver: Arc<Resolver>,
    /// Sockets that were opened after the container's shim was started, and that it does not hold yet.
    pub(crate) kept_sockets: Mutex<HashMap<ContainerId, Kept>>,
    pub(crate) shims: Shims,
    pub(crate) events: Arc<Events>,
    pub(crate) execs: Arc<Execs>,
    pub(crate) saver: Arc<Saver>,
    pub(crate) identities: Mutex<HashMap<String, Identity>>,
    pub(crate) runs: AtomicU64,
    pub(crate) forwarders: Arc<Forwarders>,
    pub(crate) denials: Arc<crate::networks::egress::Denials>,
    /// Set when the engine shuts down: policies start nothing any more.
    pub(crate) ending: AtomicBool,
}

impl Lifecycle {
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}
