//! Removing: the record first, in one commit; then what it owned, which a crash leaves to the scan at the next start.

use std::sync::Arc;

use wharf_error::Kind;
use wharf_fault::point;
use wharf_metadata::Ticket;

use super::Lifecycle;
use crate::container::{Container, ContainerRecord, Status};
use crate::creator::tell;
use crate::{EngineError, in_place};

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// End it first, if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// A removal on its way to the disk.
pub(super) struct Removal {
    commit: Result<Option<Ticket>, EngineError>,
    volumes: Vec<String>,
}

impl Removal {
    /// Waits until the record is gone.
    async fn committed(self) -> (Result<(), EngineError>, Vec<String>) {
        let done = match self.commit {
            Ok(Some(ticket)) => ticket.await.map_err(EngineError::from),
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        (done, self.volumes)
    }
}

impl Lifecycle {
    /// Removes a container.
    pub async fn remove(self: &Arc<Self>, name: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        let running = view.state.status.is_running() || view.state.status == Status::Restarting;
        if running && !options.force {
            let (status, hint) = match view.state.status {
                Status::Paused => ("paused", "unpause and then stop the container before removing or force remove"),
                Status::Restarting => ("restarting", "stop the container before removing or force remove"),
                _ => ("running", "stop the container before removing or force remove"),
            };
            return Err(EngineError::RemoveRunning { name: name.to_owned(), status, hint });
        }
        if running {
            container.publish(|v| v.state.stopped_by_hand = true);
            if view.task.is_some() {
                self.kill_run(&container, &view).await?;
            }
        }
        let _guard = container.lock.lock().await;
        let view = container.view();
        if view.removed {
            // `--rm` was faster; with force the client has what it wants.
            return if options.force { Ok(()) } else { Err(EngineError::Removing(container.id.to_string())) };
        }
        if view.state.status.is_running() {
            // Started again by somebody between the kill and the lock.
            let reason = "the container was started again while it was being removed".to_owned();
            return Err(EngineError::Kill { name: name.to_owned(), kind: Kind::Conflict, reason });
        }
        self.remove_locked(&container, options.volumes).await
    }

    /// Removes a container that does not run and whose lock the caller holds.
    pub(super) async fn remove_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<(), EngineError> {
        point("remove.begin");
        let before = container.view().state.status;
        let view = container.publish(|v| v.state.status = Status::Removing);
        let (done, volumes) = self.commit_removal(&view.record, volumes).committed().await;
        if let Err(e) = done {
            volumes.iter().for_each(|name| self.volumes.put_back(name));
            container.publish(|v| v.state.status = before);
            return Err(e);
        }
        self.clear_away(container, volumes).await;
        Ok(())
    }

    /// Submits the commit by which a container ceases to exist.
    pub(super) fn commit_removal(&self, record: &ContainerRecord, volumes: bool) -> Removal {
        let volumes = if volumes { self.unshared(record) } else { Vec::new() };
        volumes.iter().for_each(|name| self.volumes.set_aside(name));
        point("remove.before-commit");
        Removal { commit: self.records.remove(record, &volumes), volumes }
    }

    /// Anonymous volumes of this container that no other one mounts.
    fn unshared(&self, record: &ContainerRecord) -> Vec<String> {
        let own = record.anonymous_volumes();
        if own.is_empty() {
            return own;
        }
        let others = self.registry.all();
        let shared =
            |name: &String| others.iter().any(|c| c.id != record.id && c.view().record.volumes().any(|v| v == name));
        own.into_iter().filter(|name| !shared(name)).collect()
    }

    /// Finishes the removal of a container that went with its process.
    pub(super) async fn finish_removal(self: &Arc<Self>, container: &Arc<Container>, removal: Removal) {
        let (done, volumes) = removal.committed().await;
        match done {
            Ok(()) => self.clear_away(container, volumes).await,
            Err(error) => {
                tracing::error!(container = %container.id, %error, "cannot remove the container");
                volumes.iter().for_each(|name| self.volumes.put_back(name));
                container.publish(|v| v.state.status = Status::Dead);
            }
        }
    }

    /// Removes what a container owned, after its record.
    async fn clear_away(self: &Arc<Self>, container: &Arc<Container>, volumes: Vec<String>) {
        point("remove.after-commit");
        let record = container.view().record.clone();
        in_place(|| self.clear_owned(&record, volumes));
        self.registry.remove(&record.id);
        tell(&self.events, &record, "destroy", &[]);
        container.publish(|v| {
            v.removed = true;
            v.state.status = Status::Removing;
        });
        point("remove.done");
    }

    fn clear_owned(&self, record: &ContainerRecord, volumes: Vec<String>) {
        let warn = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(container = %record.id, %error, "cannot remove {what}");
        };
        if let Err(e) = self.snapshots.remove(&record.snapshot) {
            warn("the layer", &e);
        }
        point("remove.after-snapshot");
        if let Err(e) = self.shims.remove(&record.id) {
            warn("the task folder", &e);
        }
        point("remove.after-task");
        let folder = self.config.container_folder(&record.id);
        if let Err(e) = self.forwarders.remove_folder(record.id.as_str(), &folder) {
            warn("the container's folder", &e);
        }
        if record.host.auto_remove {
            match std::fs::remove_dir_all(self.config.shown_folder(record)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => warn("the files it was shown", &e),
                _ => {}
            }
        }
        point("remove.after-folder");
        for name in volumes {
            if let Err(e) = self.volumes.forget(&name) {
                warn("an anonymous volume", &e);
            }
        }
        point("remove.after-volumes");
    }
}
