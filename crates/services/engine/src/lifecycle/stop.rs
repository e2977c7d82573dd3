//! Stopping, killing, restarting, pausing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_api_types::query::ContainerStop;
use wharf_error::{HasKind, Kind};
use wharf_fault::point;
use wharf_types::Signal;

use super::Lifecycle;
use crate::EngineError;
use crate::container::{Container, LookupError, Status, View};
use crate::creator::tell;

/// How long a container has between its stop signal and SIGKILL, unless it or the client says otherwise.
pub(crate) const GRACE: i64 = 10;
/// How long a killed container may take to end.
const KILLED: Duration = Duration::from_secs(10);

/// Counts a stop in progress, so that the container's end is told as one.
struct Stopping<'a>(&'a Container);

impl<'a> Stopping<'a> {
    fn of(container: &'a Container) -> Self {
        container.stops.fetch_add(1, Ordering::AcqRel);
        Self(container)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.stops.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits until the run that this view shows has ended. `None` for no limit. Returns whether it has.
async fn run_over(container: &Container, view: &View, limit: Option<Duration>) -> bool {
    let exits = view.state.exits;
    let mut watch = container.watch();
    let over = watch.wait_for(|v| v.state.exits > exits || v.removed);
    match limit {
        // The sender lives in the container, so waiting fails only with the container.
        None => over.await.is_ok(),
        Some(limit) => tokio::time::timeout(limit, over).await.is_ok(),
    }
}

impl Lifecycle {
    fn stop_signal(view: &View, asked: &str) -> Result<Signal, EngineError> {
        let text = if asked.is_empty() { view.record.config.stop_signal.as_str() } else { asked };
        if text.is_empty() { Ok(Signal::TERM) } else { Ok(Signal::parse(text)?) }
    }

    /// Stops a container: its stop signal, then SIGKILL after the grace.
    pub async fn stop(self: &Arc<Self>, name: &str, query: &ContainerStop) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let view = container.view();
        if view.state.status == Status::Restarting {
            self.end_restarting(&container).await;
            return Ok(());
        }
        if !view.state.status.is_running() {
            return Err(EngineError::AlreadyStopped(container.id.to_string()));
        }
        self.stop_run(&container, query).await.map_err(|e| match e {
            EngineError::Signal(error) => EngineError::StopSignal { name: name.to_owned(), error },
            other => other,
        })
    }

    /// Takes a container out of its restart policy.
    async fn end_restarting(&self, container: &Arc<Container>) {
        let _guard = container.lock.lock().await;
        container.publish(|v| {
            if v.state.status == Status::Restarting {
                v.state.status = Status::Exited;
                v.state.stopped_by_hand = true;
            }
        });
        self.saver.note(container);
    }

    /// Ends the present run of a container.
    pub(crate) async fn stop_run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        query: &ContainerStop,
    ) -> Result<(), EngineError> {
        let view = container.view();
        let signal = Self::stop_signal(&view, &query.signal)?;
        let _stopping = Stopping::of(container);
        let grace = query.timeout.or(view.record.config.stop_timeout).unwrap_or(GRACE);
        container.publish(|v| v.state.stopped_by_hand = true);
        let sent = self.signal(container, &view, signal, false).await;
        point("stop.after-signal");
        let limit = (grace >= 0).then(|| Duration::from_secs(grace.unsigned_abs()));
        // A process that is gone already, or a shim that does not answer, is settled by the second signal.
        let limit = if sent.is_ok() { limit } else { Some(Duration::ZERO) };
        if run_over(container, &view, limit).await {
            return Ok(());
        }
        self.kill_run(container, &view).await
    }

    /// Ends the present run because the engine ends: the restart policy stays in force for its next start.
    pub(crate) async fn stop_for_shutdown(
        self: &Arc<Self>,
        container: &Arc<Container>,
        query: &ContainerStop,
    ) -> Result<(), EngineError> {
        let by_hand = container.view().state.stopped_by_hand;
        let stopped = self.stop_run(container, query).await;
        container.publish(|v| v.state.stopped_by_hand = by_hand);
        if container.view().record.host.restart_policy.name == "unless-stopped" {
            let mut record = super::current_record(&container.view());
            record.last.wanted = true;
            container.publish(|v| v.record = Arc::new(record));
        }
        self.saver.note(container);
        stopped
    }

    /// SIGKILL to the whole container, and its end.
    pub(crate) async fn kill_run(&self, container: &Arc<Container>, view: &View) -> Result<(), EngineError> {
        let sent = self.signal(container, view, Signal::KILL, true).await;
        point("kill.after-signal");
        if run_over(container, view, Some(KILLED)).await {
            return Ok(());
        }
        let reason = match sent {
            Err(e) => e.to_string(),
            Ok(()) => "the container does not end".to_owned(),
        };
        Err(EngineError::Kill { name: container.id.to_string(), kind: Kind::System, reason })
    }

    /// Sends a signal and tells of it. A paused container is thawed for it: frozen processes do not die.
    async fn signal(&self, container: &Container, view: &View, signal: Signal, all: bool) -> Result<(), EngineError> {
        let Some(task) = &view.task else { return Err(EngineError::NotRunning(container.id.to_string())) };
        task.shim.kill(None, signal, all).await?;
        if view.state.status == Status::Paused {
            task.shim.resume().await?;
            container.publish(|v| {
                if v.state.status == Status::Paused {
                    v.state.status = Status::Running;
                }
            });
        }
        tell(&self.events, &view.record, "kill", &[("signal", signal.number().to_string())]);
        Ok(())
    }

    /// Sends a signal; an empty text is SIGKILL, which also waits for the end.
    pub async fn kill(self: &Arc<Self>, name: &str, signal: &str) -> Result<(), EngineError> {
        // As dockerd: a wrong signal is told even of a container that does not exist.
        let parsed = if signal.is_empty() { Ok(Signal::KILL) } else { Signal::parse(signal) };
        let signal = parsed.map_err(|error| EngineError::KillSignal { name: name.to_owned(), error })?;
        let found = self.registry.find(name);
        let unknown =
            |e: LookupError| EngineError::Kill { name: name.to_owned(), kind: e.kind(), reason: e.to_string() };
        let container = found.map_err(unknown)?;
        let view = container.view();
        let failed = |kind: Kind, reason: String| EngineError::Kill { name: name.to_owned(), kind, reason };
        if !view.state.status.is_running() {
            let error = EngineError::NotRunning(container.id.to_string());
            return Err(failed(Kind::Conflict, error.to_string()));
        }
        let own = view.record.config.stop_signal.as_str();
        // moby `daemon/kill.go`: with a stop signal of its own, only that and SIGKILL end the restart policy.
        let ends = signal == Signal::KILL || own.is_empty() || Signal::parse(own) == Ok(signal);
        if ends {
            container.publish(|v| v.state.stopped_by_hand = true);
        }
        if signal == Signal::KILL {
            return self.kill_run(&container, &view).await;
        }
        match self.signal(&container, &view, signal, false).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == Kind::NotFound => {
                let error = EngineError::NotRunning(container.id.to_string());
                Err(failed(Kind::Conflict, error.to_string()))
            }
            Err(e) => Err(failed(e.kind(), e.to_string())),
        }
    }

    /// Stops, if it runs, and starts.
    pub async fn restart(self: &Arc<Self>, name: &str, query: &ContainerStop) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        Self::stop_signal(&container.view(), &query.signal)?;
        match container.view().state.status {
            Status::Running | Status::Paused => self.stop_run(&container, query).await?,
            Status::Restarting => self.end_restarting(&container).await,
            Status::Removing | Status::Dead => return Err(EngineError::StartRemoved),
            Status::Created | Status::Exited => {}
        }
        point("restart.after-stop");
        match self.start(container.id.as_str()).await {
            // Somebody else was faster.
            Ok(()) | Err(EngineError::AlreadyRunning(_)) => {}
            Err(e) => return Err(e),
        }
        tell(&self.events, &container.view().record, "restart", &[]);
        Ok(())
    }

    /// Freezes.
    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let _guard = container.lock.lock().await;
        let view = container.view();
        let id = || container.id.to_string();
        match (view.state.status, &view.task) {
            (Status::Paused, _) => return Err(EngineError::AlreadyPaused(id())),
            (Status::Restarting, _) => return Err(EngineError::Restarting(id())),
            (Status::Running, Some(task)) => task.shim.pause().await?,
            _ => return Err(EngineError::NotRunning(id())),
        }
        point("pause.after-freeze");
        let view = container.publish(|v| {
            v.state.status = Status::Paused;
            super::health::unwatched(&mut v.health);
        });
        tell(&self.events, &view.record, "pause", &[]);
        Ok(())
    }

    /// Thaws.
    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let _guard = container.lock.lock().await;
        let view = container.view();
        match (view.state.status, &view.task) {
            (Status::Paused, Some(task)) => task.shim.resume().await?,
            _ => return Err(EngineError::NotPaused(container.id.to_string())),
        }
        point("unpause.after-thaw");
        let view = container.publish(|v| v.state.status = Status::Running);
        tell(&self.events, &view.record, "unpause", &[]);
        Ok(())
    }
}
