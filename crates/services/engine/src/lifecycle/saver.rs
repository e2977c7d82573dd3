//! Writing down how containers stand, late and together.
//!
//! Starts and exits are facts in the task folders, which survive a killed daemon; the store needs them only for what
//! outlives a boot. So they are committed in the background, many at once, and a container that is removed soon after
//! costs no commit at all. A task folder is kept until what it says is committed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wharf_metadata::{Batch, Store, Table};
use wharf_task::Shims;
use wharf_types::ContainerId;

use crate::container::{Container, ContainerRecord, LastRun, Registry, View};

/// How long changes are gathered.
const DELAY: Duration = Duration::from_millis(500);

/// The background writer of run states.
pub struct Saver {
    store: Arc<Store>,
    registry: Arc<Registry>,
    shims: Shims,
    dirty: Mutex<HashSet<ContainerId>>,
    wake: Notify,
    closing: Notify,
}

/// The record with what the view knows of the last run.
pub(crate) fn current_record(view: &View) -> ContainerRecord {
    let state = &view.state;
    let last = LastRun {
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: state.started_at,
        finished_at: state.finished_at,
        oom_killed: state.oom_killed,
        wanted: view.task.is_some() || (view.record.last.wanted && !state.stopped_by_hand),
        restarts: state.restarts,
        health: view.health.clone(),
    };
    ContainerRecord { last, ..ContainerRecord::clone(&view.record) }
}

impl Saver {
    /// Makes the writer; [`Saver::run`] must be spawned.
    pub fn new(store: Arc<Store>, registry: Arc<Registry>, shims: Shims) -> Saver {
        Saver { store, registry, shims, dirty: Mutex::default(), wake: Notify::new(), closing: Notify::new() }
    }

    /// Says that a container's run state changed.
    pub fn note(&self, container: &Container) {
        // A container that is removed when it ends has no run state worth keeping.
        if container.view().record.host.auto_remove {
            return;
        }
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(container.id.clone());
        self.wake.notify_one();
    }

    /// Writes until [`Saver::close`], and then once more.
    pub async fn run(&self) {
        loop {
            let closing = tokio::select! {
                () = self.wake.notified() => tokio::select! {
                    () = tokio::time::sleep(DELAY) => false,
                    () = self.closing.notified() => true,
                },
                () = self.closing.notified() => true,
            };
            self.flush().await;
            if closing {
                return;
            }
        }
    }

    /// Ends [`Saver::run`].
    pub fn close(&self) {
        self.closing.notify_one();
    }

    /// Writes what is noted, now.
    pub async fn flush(&self) {
        let ids = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let saved = ids.iter().filter_map(|id| self.registry.find(id.as_str()).ok()).map(|c| self.save(c));
        // All batches are submitted before the first is awaited, so they share a commit.
        let tickets: Vec<_> = saved.collect();
        for ticket in tickets {
            ticket.await;
        }
    }

    /// Writes down how a container's last run went, if only its task folder says so: the next run takes that folder. The
    /// caller holds the container's lock.
    pub async fn settle(&self, container: &Container) {
        let id = container.id.as_str();
        if !self.shims.folder(&container.id).exists() || container.view().record.host.auto_remove {
            return;
        }
        let mut batch = Batch::new();
        batch.expect_present(Table::Containers, id).put(id, &current_record(&container.view()));
        if let Err(error) = self.store.submit(batch).await {
            tracing::error!(container = %container.id, %error, "cannot write down the run state");
        }
    }

    fn save(&self, container: Arc<Container>) -> impl Future<Output = ()> {
        let view = container.view();
        let mut batch = Batch::new();
        let id = container.id.as_str();
        batch.expect_present(Table::Containers, id).put(id, &current_record(&view));
        let ticket = self.store.submit(batch);
        async move {
            match ticket.await {
                Ok(()) => self.tidy(&container).await,
                // Removed meanwhile: nothing is left to write down.
                Err(wharf_metadata::StoreError::Missing { .. }) => {}
                Err(error) => tracing::error!(container = %container.id, %error, "cannot write down the run state"),
            }
        }
    }

    /// Removes the task folder of a run that has ended and is committed.
    async fn tidy(&self, container: &Container) {
        let _guard = container.lock.lock().await;
        let view = container.view();
        if view.task.is_none()
            && !view.removed
            && let Err(error) = self.shims.remove(&container.id)
        {
            tracing::warn!(container = %container.id, %error, "cannot remove the task folder");
        }
    }
}
