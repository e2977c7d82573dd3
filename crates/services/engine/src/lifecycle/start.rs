//! Starting: the blocking half, then create and start in the shim; a failure is undone in reverse order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_error::Chain;
use wharf_fault::point;
use wharf_task::{CreateRequest, Stdin, TaskError};
use wharf_types::{Signal, Timestamp};

use super::Lifecycle;
use super::launch::Launched;
use crate::container::{Container, Status, Task, View};
use crate::creator::tell;
use crate::{EngineError, StartError, in_place};

/// How long a start or an end waits for clients on their way to the streams.
pub(super) const ATTACHING: std::time::Duration = std::time::Duration::from_secs(2);

/// How the first process gets its input.
fn stdin_of(view: &View) -> Stdin {
    match (view.record.config.open_stdin, view.record.config.stdin_once) {
        (false, _) => Stdin::Null,
        (true, false) => Stdin::Kept,
        (true, true) => Stdin::Once,
    }
}

impl Lifecycle {
    /// Starts a container.
    pub async fn start(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        self.start_from(name, "", "").await
    }

    /// Starts a container from a checkpoint of it, if one is named.
    pub async fn start_from(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        checkpoint_dir: &str,
    ) -> Result<(), EngineError> {
        if !checkpoint.is_empty() && !self.config.experimental {
            return Err(EngineError::CheckpointExperimental);
        }
        let container = self.registry.find(name)?;
        let _guard = container.lock.lock().await;
        let view = container.view();
        match view.state.status {
            Status::Running => return Err(EngineError::AlreadyRunning(container.id.to_string())),
            Status::Paused => return Err(EngineError::StartPaused),
            Status::Removing | Status::Dead => return Err(EngineError::StartRemoved),
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        if !checkpoint_dir.is_empty() {
            return Err(EngineError::CheckpointFolder);
        }
        container.publish(|v| {
            v.state.stopped_by_hand = false;
            v.state.restarts = 0;
        });
        self.start_locked(&container, checkpoint).await?;
        Ok(())
    }

    /// Starts a container whose lock the caller holds. A failure is published as the container's error.
    pub(super) async fn start_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        checkpoint: &str,
    ) -> Result<(), StartError> {
        point("start.begin");
        self.saver.settle(container).await;
        match self.try_start(container, checkpoint).await {
            Ok(()) => Ok(()),
            Err(e) => {
                let (text, code) = (Chain(&e).to_string(), e.exit_code());
                container.publish(|v| {
                    v.state.error = text;
                    v.state.exit_code = code;
                    if v.state.status == Status::Restarting {
                        v.state.status = Status::Exited;
                    }
                });
                self.saver.note(container);
                if container.view().record.host.auto_remove {
                    self.remove_locked(container, true).await.unwrap_or_else(|error| {
                        tracing::warn!(container = %container.id, %error, "cannot remove a container that failed to start");
                    });
                }
                Err(e)
            }
        }
    }

    async fn try_start(self: &Arc<Self>, container: &Arc<Container>, checkpoint: &str) -> Result<(), StartError> {
        let view = container.view();
        let images = (!checkpoint.is_empty()).then(|| self.checkpoint_images(container, checkpoint));
        if images == Some(None) {
            let (checkpoint, name) = (checkpoint.to_owned(), view.record.name.clone());
            return Err(StartError::NoCheckpoint { checkpoint, name });
        }
        let images = images.flatten();
        let plan = self.plan_network(&view.record)?;
        let launched = in_place(|| self.launch(&view, &plan))?;
        for point in &view.record.points {
            if let crate::create::mounts::Source::Volume { name, .. } = &point.source {
                let writable = if point.read_only { "false" } else { "true" };
                let more = [
                    ("container", container.id.as_str()),
                    ("destination", &point.target),
                    ("propagation", &point.propagation),
                    ("read/write", writable),
                ];
                self.volumes.tell("mount", name, &more);
            }
        }
        self.tell_networks("connect", &view);
        let restored = images.is_some();
        let request = CreateRequest {
            rootfs: launched.rootfs.clone(),
            terminal: view.record.config.tty,
            stdin: stdin_of(&view),
            checkpoint: images,
        };
        match self.run(container, &launched, request).await {
            Ok(pid) => {
                self.running(container, launched, pid);
                Ok(())
            }
            Err(e) => {
                self.undo(container, launched).await;
                Err(match e.failure() {
                    _ if restored => StartError::Restore(e),
                    Some(failure) if crate::config::is_own_runtime(&view.record.host.runtime) => {
                        StartError::Runtime(failure.clone())
                    }
                    Some(failure) => StartError::OtherRuntime(failure.clone()),
                    None => StartError::Task(e),
                })
            }
        }
    }

    async fn run(&self, container: &Container, launched: &Launched, request: CreateRequest) -> Result<u32, TaskError> {
        // The link is made while the shim works.
        let link = async {
            if launched.own_netns {
                self.make_netns_link(&container.view().record, launched.shim.pid());
            }
        };
        let (created, ()) = tokio::join!(launched.shim.create(request), link);
        created?;
        point("start.after-create");
        let view = container.publish(|v| v.starting = Some(launched.shim.clone()));
        if view.record.host.log_config.r#type == "none" {
            // Nothing is kept for clients that come after the first byte.
            container.attached(ATTACHING).await;
        }
        let pid = launched.shim.start(None).await?;
        point("start.after-start");
        Ok(pid)
    }

    /// Publishes a running container and watches for its end.
    fn running(self: &Arc<Self>, container: &Arc<Container>, launched: Launched, pid: u32) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let Launched { shim, sandbox, process, .. } = launched;
        let task = Task { shim, pid, run, process };
        let view = container.publish(|v| {
            v.state.status = Status::Running;
            v.state.exit_code = 0;
            v.state.error.clear();
            v.state.oom_killed = false;
            v.state.started_at = Timestamp::now();
            v.task = Some(task.clone());
            v.starting = None;
            v.sandbox = sandbox;
            v.health = super::health::at_start(v);
            v.execs.clear();
        });
        tell(&self.events, &view.record, "start", &[]);
        self.saver.note(container);
        self.watch_health(container, &task);
        self.watch_end(container.clone(), task);
        point("start.done");
    }

    async fn undo(self: &Arc<Self>, container: &Arc<Container>, launched: Launched) {
        container.publish(|v| v.starting = None);
        // The first process may wait at the gate; the shim may be gone. Either way the rest is taken back.
        let _ = launched.shim.kill(None, Signal::KILL, true).await;
        let _ = launched.shim.delete(None).await;
        if launched.shim.shutdown().await.is_ok() {
            launched.shim.gone().await;
        }
        in_place(|| {
            let record = &container.view().record;
            self.undo_launch(record, launched.sandbox.as_deref());
            self.release_sources(record);
            self.forwarders.finish(record.id.as_str());
        });
        self.tell_networks("disconnect", &container.view());
        self.tell_unmounts(&container.view());
    }

    pub(super) fn tell_unmounts(&self, view: &View) {
        for name in view.record.volumes() {
            self.volumes.tell("unmount", name, &[("container", view.record.id.as_str())]);
        }
    }
}
