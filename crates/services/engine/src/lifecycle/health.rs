//! Health checks: a command run in the container at intervals, whose exit codes make it healthy or unhealthy. The rules
//! are moby's (`daemon/health.go`); what to do about an unhealthy container (`OnFailure`) is ours.
//!
//! A monitor belongs to one run of a container and ends with it. The state survives the engine with the other facts of
//! the run.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use wharf_api_types::query::ContainerStop;
use wharf_api_types::{ExecCreateRequest, ExecStartRequest, Health, HealthConfig, HealthcheckResult};
use wharf_types::Timestamp;

use super::Lifecycle;
use crate::EngineError;
use crate::container::{Container, ContainerRecord, Status, Task, View};
use crate::creator::tell;
use crate::execs::Started;

const INTERVAL: i64 = 30_000_000_000;
const TIMEOUT: i64 = 30_000_000_000;
const START_INTERVAL: i64 = 5_000_000_000;
const RETRIES: i64 = 3;
/// Results that are kept.
const LOG: usize = 5;
/// Bytes of output that are kept of each.
const OUTPUT: usize = 4096;
/// How long a check that was killed may take to end.
const KILLED: Duration = Duration::from_secs(10);

const STARTING: &str = "starting";
const HEALTHY: &str = "healthy";
const UNHEALTHY: &str = "unhealthy";

/// What runs as check; `None` if the container has none.
fn command(record: &ContainerRecord) -> Option<(&HealthConfig, Vec<String>)> {
    let check = record.config.healthcheck.as_ref()?;
    let test = check.test.as_deref()?;
    let (kind, words) = test.split_first()?;
    let command = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let own = record.config.shell.as_ref().map(|s| s.0.clone()).filter(|s| !s.is_empty());
            let mut line = own.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            line.extend(words.iter().cloned());
            line
        }
        // `NONE`, and what moby warns of and leaves alone.
        _ => return None,
    };
    (!command.is_empty()).then_some((check, command))
}

/// The state at the start of a run; results of earlier runs are still shown.
pub(super) fn at_start(view: &View) -> Option<Health> {
    command(&view.record)?;
    let log = view.health.as_ref().map(|h| h.log.clone()).unwrap_or_default();
    Some(Health { status: STARTING.to_owned(), failing_streak: 0, log })
}

/// The state of a container that is not watched now: moby calls it unhealthy.
pub(super) fn unwatched(health: &mut Option<Health>) {
    if let Some(health) = health {
        UNHEALTHY.clone_into(&mut health.status);
    }
}

fn or(nanos: i64, default: i64) -> Duration {
    Duration::from_nanos(if nanos > 0 { nanos } else { default }.unsigned_abs())
}

fn since(start: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.unix_nanos() - start.unix_nanos()).unwrap_or_default())
}

/// How long until the next check.
fn pause(check: &HealthConfig, view: &View) -> Duration {
    let starting = view.health.as_ref().is_some_and(|h| h.status == STARTING);
    let young = since(view.state.started_at, Timestamp::now()) < or(check.start_period, 0);
    if starting && young { or(check.start_interval, START_INTERVAL) } else { or(check.interval, INTERVAL) }
}

/// Takes a result in.
fn judge(health: &mut Health, check: &HealthConfig, started: Timestamp, result: HealthcheckResult) {
    let within_start = health.status == STARTING && since(started, result.start) < or(check.start_period, 0);
    if result.exit_code == 0 {
        health.failing_streak = 0;
        HEALTHY.clone_into(&mut health.status);
    } else if !within_start {
        health.failing_streak += 1;
        let retries = if check.retries > 0 { check.retries } else { RETRIES };
        if health.failing_streak >= retries {
            UNHEALTHY.clone_into(&mut health.status);
        }
    }
    if health.log.len() >= LOG {
        health.log.drain(..health.log.len() + 1 - LOG);
    }
    health.log.push(result);
}

impl Lifecycle {
    /// Checks a run until it ends.
    pub(crate) fn watch_health(self: &Arc<Self>, container: &Arc<Container>, task: &Task) {
        if command(&container.view().record).is_none() {
            return;
        }
        let (this, container, run) = (self.clone(), container.clone(), task.run);
        tokio::spawn(async move { this.monitor(container, run).await });
    }

    async fn monitor(self: Arc<Self>, container: Arc<Container>, run: u64) {
        let mut watch = container.watch();
        let is_over = |v: &Arc<View>| v.removed || v.task.as_ref().is_none_or(|t| t.run != run);
        loop {
            let view = container.view();
            let Some((check, words)) = command(&view.record) else { return };
            let changed = watch.wait_for(|v| is_over(v) || v.state.status == Status::Paused);
            if tokio::time::timeout(pause(check, &view), changed).await.is_ok() {
                // A paused container is not checked.
                if watch.wait_for(|v| is_over(v) || v.state.status == Status::Running).await.is_err() {
                    return;
                }
                if is_over(&container.view()) {
                    return;
                }
                continue;
            }
            let result = self.check(&container, check, words).await;
            if is_over(&container.view()) || self.is_ending() {
                return;
            }
            self.take_in(&container, check, result).await;
        }
    }

    async fn take_in(self: &Arc<Self>, container: &Arc<Container>, check: &HealthConfig, result: HealthcheckResult) {
        let mut before = String::new();
        let view = container.publish(|v| {
            let started = v.state.started_at;
            let health = v.health.get_or_insert_default();
            before.clone_from(&health.status);
            judge(health, check, started, result);
        });
        let now = view.health.as_ref().map(|h| h.status.clone()).unwrap_or_default();
        if now == before {
            return;
        }
        tell(&self.events, &view.record, &format!("health_status: {now}"), &[]);
        self.saver.note(container);
        if now == UNHEALTHY {
            self.act_on_failure(container, check).await;
        }
    }

    /// Runs one check.
    async fn check(&self, container: &Arc<Container>, check: &HealthConfig, words: Vec<String>) -> HealthcheckResult {
        let start = Timestamp::now();
        let limit = or(check.timeout, TIMEOUT);
        let done = self.probe(container, words, limit).await;
        let (exit_code, output) = match done {
            Ok(Some(done)) => done,
            Ok(None) => (-1, format!("Health check exceeded timeout ({})", crate::go_duration(limit))),
            Err(e) => (-1, wharf_error::Chain(&e).to_string()),
        };
        HealthcheckResult { start, end: Timestamp::now(), exit_code, output }
    }

    /// Runs the command; `None` if it took too long and was killed.
    async fn probe(
        &self,
        container: &Arc<Container>,
        words: Vec<String>,
        limit: Duration,
    ) -> Result<Option<(i64, String)>, EngineError> {
        let record = container.view().record.clone();
        let request = ExecCreateRequest {
            cmd: Some(words),
            attach_stdout: true,
            attach_stderr: true,
            tty: record.config.tty,
            user: record.config.user.clone(),
            working_dir: record.config.working_dir.clone(),
            ..ExecCreateRequest::default()
        };
        let id = self.execs.create(container.id.as_str(), request)?.to_string();
        let work = async {
            let Started::Attached(attached) = self.execs.start(&id, ExecStartRequest::default()).await? else {
                return Ok(String::new());
            };
            let output = gather(attached.stream, attached.tty).await;
            self.execs.ended(&id).await;
            Ok::<_, EngineError>(output)
        };
        let outcome = match tokio::time::timeout(limit, work).await {
            Ok(Ok(output)) => Ok(Some((self.execs.inspect(&id).ok().and_then(|e| e.exit_code).unwrap_or(-1), output))),
            Ok(Err(e)) => Err(e),
            Err(_) => {
                self.execs.kill(&id).await;
                // Its end is told before the next check begins.
                let _ = tokio::time::timeout(KILLED, self.execs.ended(&id)).await;
                Ok(None)
            }
        };
        self.execs.forget(&id);
        outcome
    }

    /// What the container asks for when it becomes unhealthy. It is done beside the monitor, which the end of the run
    /// ends.
    async fn act_on_failure(self: &Arc<Self>, container: &Arc<Container>, check: &HealthConfig) {
        let (this, container, action) = (self.clone(), container.clone(), check.on_failure.clone());
        tokio::spawn(async move {
            let name = container.id.as_str();
            let done = match action.as_str() {
                // As if it had died by itself: the restart policy decides what comes next.
                "kill" => this.kill_run(&container, &container.view()).await,
                "restart" => this.restart(name, &ContainerStop::default()).await,
                "stop" => this.stop(name, &ContainerStop::default()).await,
                _ => return,
            };
            if let Err(error) = done {
                tracing::warn!(container = name, action, %error, "cannot act on an unhealthy container");
            }
        });
    }
}

/// Reads an exec's output to its end; what is more than is kept is counted out by `...`, as with moby.
async fn gather(mut stream: tokio::net::UnixStream, tty: bool) -> String {
    let mut kept = Vec::new();
    let (mut buffer, mut rest) = (vec![0_u8; 8192], Vec::new());
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if tty {
            keep(&mut kept, &buffer[..n]);
            continue;
        }
        rest.extend_from_slice(&buffer[..n]);
        // Frames of stdcopy: stream, three zero bytes, big-endian length.
        while let Some(head) = rest.first_chunk::<8>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            if rest.len() < 8 + length {
                break;
            }
            keep(&mut kept, &rest[8..8 + length]);
            rest.drain(..8 + length);
        }
    }
    let cut = kept.len() > OUTPUT;
    kept.truncate(OUTPUT);
    let mut text = String::from_utf8_lossy(&kept).into_owned();
    if cut {
        text.push_str("...");
    }
    text
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = (OUTPUT + 1).saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(code: i64, at: i64) -> HealthcheckResult {
        HealthcheckResult { start: Timestamp::from_unix(at, 0), exit_code: code, ..HealthcheckResult::default() }
    }

    #[test]
    fn failures_count_after_the_start_period_and_one_success_resets() {
        let check = HealthConfig { retries: 2, start_period: 10_000_000_000, ..HealthConfig::default() };
        let started = Timestamp::from_unix(100, 0);
        let mut health = Health { status: STARTING.to_owned(), ..Health::default() };
        judge(&mut health, &check, started, result(1, 105));
        assert_eq!((health.status.as_str(), health.failing_streak), (STARTING, 0));
        judge(&mut health, &check, started, result(1, 111));
        assert_eq!((health.status.as_str(), health.failing_streak), (STARTING, 1));
        judge(&mut health, &check, started, result(-1, 112));
        assert_eq!((health.status.as_str(), health.failing_streak), (UNHEALTHY, 2));
        judge(&mut health, &check, started, result(0, 113));
        assert_eq!((health.status.as_str(), health.failing_streak), (HEALTHY, 0));
        // Once healthy, failures count even within the start period.
        judge(&mut health, &check, started, result(1, 105));
        assert_eq!((health.status.as_str(), health.failing_streak), (HEALTHY, 1));
        for at in 0..10 {
            judge(&mut health, &check, started, result(0, at));
        }
        assert_eq!(health.log.len(), LOG);
        assert_eq!(health.log[LOG - 1].start, Timestamp::from_unix(9, 0));
    }
}
