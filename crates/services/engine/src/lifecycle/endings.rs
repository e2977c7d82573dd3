//! Ends: what happens when a container's first process has ended, and the restart policies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_fault::point;
use wharf_task::{Exit, TaskError};
use wharf_types::Timestamp;

use super::Lifecycle;
use crate::cgroups;
use crate::container::{Container, Status, Task, View};
use crate::creator::tell;
use crate::in_place;

/// First and longest pause between restarts (moby `restartmanager`: 100 ms, doubled, at most a minute).
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run of this length starts the pauses anew.
const GOOD_RUN: i128 = 10_000_000_000;

/// The exit code that is shown where nobody knows the real one: the shim was killed.
const UNKNOWN: u32 = 137;

impl Lifecycle {
    /// Follows a run to its end.
    pub(crate) fn watch_end(self: &Arc<Self>, container: Arc<Container>, task: Task) {
        let this = self.clone();
        tokio::spawn(async move {
            let exit = match task.shim.wait(None).await {
                Ok(exit) => exit,
                Err(error) => {
                    tracing::error!(container = %container.id, %error, "the shim is lost");
                    this.end_lost(&container.view(), &task, &error);
                    Exit { status: UNKNOWN, at: Timestamp::now(), oom: false }
                }
            };
            this.ended(&container, &task, exit).await;
        });
    }

    /// Ends what a dead shim left running: its processes are nobody's now.
    fn end_lost(&self, view: &View, task: &Task, error: &TaskError) {
        if !matches!(error, TaskError::Gone { .. }) {
            return;
        }
        // The pid is that of a process of this boot whose shim died a moment ago; a pidfd keeps it from being another's.
        let pid = rustix::process::Pid::from_raw(task.pid as i32);
        let fd = pid.and_then(|p| rustix::process::pidfd_open(p, rustix::process::PidfdFlags::empty()).ok());
        if let Some(fd) = fd {
            let _ = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL);
        }
        let cgroup = cgroups::path(&self.config, &view.record.host.cgroup_parent, view.record.id.as_str());
        in_place(|| cgroups::clear(&cgroup));
    }

    /// Takes a run's end in: network, shim, state, events, then removal or restart.
    pub(crate) async fn ended(self: &Arc<Self>, container: &Arc<Container>, task: &Task, exit: Exit) {
        let _guard = container.lock.lock().await;
        let view = container.view();
        if view.task.as_ref().is_none_or(|t| t.run != task.run) {
            return;
        }
        point("exit.seen");
        let remove = view.record.host.auto_remove;
        // For a container that goes with its process the removal is committed while the rest is cleared away.
        let commit = remove.then(|| self.commit_removal(&view.record, true));
        let release = async {
            container.attached(super::start::ATTACHING).await;
            if let Err(error) = task.shim.delete(None).await {
                tracing::warn!(container = %container.id, %error, "cannot release the task");
            }
            if let Err(error) = task.shim.shutdown().await {
                tracing::debug!(container = %container.id, %error, "the shim was gone before it was told to go");
            }
        };
        release.await;
        if let Some(sandbox) = &view.sandbox {
            in_place(|| self.detach_all(&view.record, sandbox));
            self.remove_netns_link(&view.record);
        }
        point("exit.after-release");
        self.tell_networks("disconnect", &view);
        self.forwarders.finish(container.id.as_str());
        in_place(|| self.release_sources(&view.record));
        self.tell_unmounts(&view);
        let pause = if remove { None } else { self.restart_pause(&view, &exit) };
        let view = container.publish(|v| {
            v.state.status = if pause.is_some() { Status::Restarting } else { Status::Exited };
            v.state.exit_code = i64::from(exit.status);
            v.state.finished_at = exit.at;
            v.state.oom_killed = exit.oom;
            v.state.exits += 1;
            v.task = None;
            v.sandbox = None;
            super::health::unwatched(&mut v.health);
            v.execs.clear();
        });
        point("exit.published");
        self.tell_end(container, &view);
        self.saver.note(container);
        if let Some(commit) = commit {
            self.finish_removal(container, commit).await;
        } else if let Some(pause) = pause {
            self.restart_later(container.clone(), pause);
        }
    }

    fn tell_end(&self, container: &Container, view: &View) {
        if view.state.oom_killed {
            tell(&self.events, &view.record, "oom", &[]);
        }
        if container.stops.load(Ordering::Acquire) > 0 {
            tell(&self.events, &view.record, "stop", &[]);
        }
        let ran = (view.state.finished_at.unix_nanos() - view.state.started_at.unix_nanos()) / 1_000_000_000;
        let more = [("execDuration", ran.max(0).to_string()), ("exitCode", view.state.exit_code.to_string())];
        tell(&self.events, &view.record, "die", &more);
    }

    /// Whether and after which pause the policy starts the container again.
    pub(crate) fn restart_pause(&self, view: &View, exit: &Exit) -> Option<Duration> {
        if view.state.stopped_by_hand || self.is_ending() {
            return None;
        }
        let policy = &view.record.host.restart_policy;
        let again = match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let left = policy.maximum_retry_count == 0 || view.state.restarts < policy.maximum_retry_count;
                exit.status != 0 && left
            }
            _ => false,
        };
        let good = exit.at.unix_nanos() - view.state.started_at.unix_nanos() >= GOOD_RUN;
        let doublings = if good { 0 } else { view.state.restarts.clamp(0, 20) as u32 };
        again.then(|| (FIRST_PAUSE * 2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE))
    }

    /// Acts, when the engine starts, on a container that does not run: `--rm` and the restart policy.
    pub(crate) async fn catch_up(self: &Arc<Self>, container: &Arc<Container>, missed: Option<Exit>) {
        let view = container.view();
        if missed.is_some() {
            self.saver.note(container);
        }
        let started = !view.state.started_at.is_zero();
        if view.record.host.auto_remove && (started || missed.is_some()) {
            let _guard = container.lock.lock().await;
            if let Err(error) = self.remove_locked(container, true).await {
                tracing::error!(container = %container.id, %error, "cannot remove a container that ended");
            }
            return;
        }
        let again = match (view.record.host.restart_policy.name.as_str(), &missed) {
            // Started again with the engine, unless a client stopped it.
            ("always", _) => started,
            ("unless-stopped", _) => view.record.last.wanted || missed.is_some(),
            (_, Some(exit)) => self.restart_pause(&view, exit).is_some(),
            _ => false,
        };
        if again {
            container.publish(|v| v.state.status = Status::Restarting);
            self.restart_later(container.clone(), Duration::ZERO);
        }
    }

    /// Starts a container again after a pause, unless somebody stops, starts or removes it meanwhile.
    pub(crate) fn restart_later(self: &Arc<Self>, container: Arc<Container>, pause: Duration) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut watch = container.watch();
            let changed = watch.wait_for(|v| v.state.status != Status::Restarting || v.removed);
            if tokio::time::timeout(pause, changed).await.is_ok() {
                return;
            }
            let _guard = container.lock.lock().await;
            if container.view().state.status != Status::Restarting || this.is_ending() {
                return;
            }
            container.publish(|v| v.state.restarts += 1);
            if let Err(error) = this.start_locked(&container, "").await {
                tracing::error!(container = %container.id, %error, "the restart policy cannot start the container");
            }
        });
    }
}
