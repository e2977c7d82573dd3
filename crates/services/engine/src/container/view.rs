//! What is published about a container: an immutable view, replaced as a whole. Lists and inspections read views and
//! never wait for a container; only operations on the container itself take its lock.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::{Mutex, watch};
use wharf_api_types::Health;
use wharf_task::Shim;
use wharf_types::{ContainerId, ExecId, Timestamp};

use super::{ContainerRecord, Sandbox};

/// Docker's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Waits for its restart policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl Status {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Whether it has a process: Docker counts a paused container as running, too.
    pub fn is_running(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

/// The running half of a container.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its shim.
    pub shim: Shim,
    /// The first process.
    pub pid: u32,
    /// Counts the runs of this container in this daemon, so that a late report of an earlier run is told apart.
    pub run: u64,
    /// The first process as it was configured: execs start from it.
    pub process: Arc<wharf_oci::runtime::Process>,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    /// Docker's state.
    pub status: Status,
    /// Exit code of the last run.
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    /// When the last run started.
    pub started_at: Timestamp,
    /// When the last run ended.
    pub finished_at: Timestamp,
    /// Whether the kernel killed the last run for want of memory.
    pub oom_killed: bool,
    /// How often the restart policy has started it in a row.
    pub restarts: i64,
    /// Whether a client stopped it, so that the restart policy leaves it alone.
    pub stopped_by_hand: bool,
    /// How many runs have ended: what `next-exit` waits for.
    pub exits: u64,
}

/// Everything that is published about a container.
#[derive(Clone, Debug)]
pub struct View {
    /// What the store keeps.
    pub record: Arc<ContainerRecord>,
    /// How it stands.
    pub state: RunState,
    /// Its running half.
    pub task: Option<Task>,
    /// The shim of a run that is prepared and not yet started: clients that wait for the start attach to it.
    pub starting: Option<Shim>,
    /// Its place in its networks, while it runs and has a network of its own.
    pub sandbox: Option<Arc<Sandbox>>,
    /// How its health checks go, if it has any.
    pub health: Option<Health>,
    /// Its execs.
    pub execs: Vec<ExecId>,
    /// Whether it is gone.
    pub removed: bool,
}

impl View {
    /// Whether the container is on a network, or will be when it runs.
    pub fn on_network(&self, name: &str) -> bool {
        match &self.sandbox {
            Some(sandbox) => sandbox.endpoints.contains_key(name),
            None => self.record.network_names().iter().any(|n| n == name),
        }
    }

    /// A view of a container at rest.
    pub fn resting(record: ContainerRecord) -> View {
        let last = &record.last;
        let started = !last.started_at.is_zero();
        let state = RunState {
            status: if started { Status::Exited } else { Status::Created },
            exit_code: last.exit_code,
            error: last.error.clone(),
            started_at: last.started_at,
            finished_at: last.finished_at,
            oom_killed: last.oom_killed,
            restarts: last.restarts,
            stopped_by_hand: false,
            exits: 0,
        };
        View {
            health: record.last.health.clone(),
            record: Arc::new(record),
            state,
            task: None,
            starting: None,
            sandbox: None,
            execs: Vec::new(),
            removed: false,
        }
    }
}

/// A container in the registry.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Held by whoever starts, ends or removes it.
    pub lock: Arc<Mutex<()>>,
    /// How many clients are stopping it now.
    pub stops: AtomicU32,
    /// How many clients are on their way to its streams.
    pub attaching: watch::Sender<u32>,
    /// The last reading of what it uses.
    pub reading: std::sync::Mutex<Option<Box<Reading>>>,
    view: watch::Sender<Arc<View>>,
}

/// A reading of a container's processor time, from which the next one tells a rate.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The process that the container was then.
    pub pid: u32,
    /// By the clock that never jumps.
    pub taken: std::time::Instant,
    /// By the clock on the wall.
    pub at: wharf_types::Timestamp,
    /// What was read.
    pub cpu: wharf_api_types::CpuStats,
}

impl Container {
    /// Publishes a first view.
    pub fn new(view: View) -> Container {
        let id = view.record.id.clone();
        Container {
            id,
            lock: Arc::default(),
            stops: AtomicU32::new(0),
            attaching: watch::Sender::new(0),
            reading: std::sync::Mutex::default(),
            view: watch::Sender::new(Arc::new(view)),
        }
    }

    /// What is published now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Waits until no client is on its way to the streams, at most this long.
    pub async fn attached(&self, limit: std::time::Duration) {
        let mut watch = self.attaching.subscribe();
        if *watch.borrow() > 0 {
            // Late clients are served from the log.
            let _ = tokio::time::timeout(limit, watch.wait_for(|n| *n == 0)).await;
        }
    }

    /// Follows what is published.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Publishes a changed view and returns it.
    pub fn publish(&self, change: impl FnOnce(&mut View)) -> Arc<View> {
        let mut published = None;
        self.view.send_modify(|view| {
            let mut next = View::clone(view);
            change(&mut next);
            *view = Arc::new(next);
            published = Some(view.clone());
        });
        published.unwrap_or_else(|| self.view())
    }
}
