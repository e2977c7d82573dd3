//! What clients see of a build while it runs; kept so that who comes later sees it too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use wharf_proto_buildkit::Timestamp;
use wharf_proto_buildkit::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use wharf_proto_buildkit::pb;

/// Log bytes kept of one step (BuildKit: 2 MiB, which its clients are told in these words).
const LOG_LIMIT: usize = 2 << 20;

/// The progress of one build.
#[derive(Default)]
pub struct Progress {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: Vec<Arc<StatusResponse>>,
    done: bool,
    cached: i32,
    total: i32,
    warnings: i32,
}

/// The time now.
pub fn now() -> Timestamp {
    stamp(wharf_types::Timestamp::now())
}

/// A time in the protocol's form.
pub fn stamp(time: wharf_types::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds(), nanos: time.subsec_nanos().cast_signed() }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event.
    pub fn tell(&self, event: StatusResponse) {
        {
            let mut state = self.lock();
            for vertex in &event.vertexes {
                if vertex.completed.is_some() && vertex.error.is_empty() {
                    state.total += 1;
                    state.cached += i32::from(vertex.cached);
                }
            }
            state.warnings += i32::try_from(event.warnings.len()).unwrap_or(0);
            state.events.push(Arc::new(event));
        }
        self.changed.notify_waiters();
    }

    /// Nothing follows.
    pub fn finish(&self) {
        self.lock().done = true;
        self.changed.notify_waiters();
    }

    /// Steps cached, steps done, warnings.
    pub fn counts(&self) -> (i32, i32, i32) {
        let state = self.lock();
        (state.cached, state.total, state.warnings)
    }

    /// All that was told so far.
    pub fn events(&self) -> Vec<Arc<StatusResponse>> {
        self.lock().events.clone()
    }

    /// The events after the first `seen`; waits until there are some. `None` at the end.
    pub async fn after(&self, seen: usize) -> Option<Vec<Arc<StatusResponse>>> {
        loop {
            let waiting = self.changed.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            {
                let state = self.lock();
                if state.events.len() > seen {
                    return Some(state.events[seen..].to_vec());
                }
                if state.done {
                    return None;
                }
            }
            waiting.await;
        }
    }
}

/// One vertex on its way; tells its start, and at the end how it ended.
pub struct Step {
    progress: Arc<Progress>,
    vertex: Mutex<Vertex>,
    logged: Mutex<usize>,
}

impl Step {
    /// Tells of a vertex that has started.
    pub fn start(
        progress: &Arc<Progress>,
        digest: &str,
        name: &str,
        inputs: Vec<String>,
        group: Option<pb::ProgressGroup>,
    ) -> Self {
        let vertex = Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            inputs,
            started: Some(now()),
            progress_group: group,
            ..Vertex::default()
        };
        progress.tell(StatusResponse { vertexes: vec![vertex.clone()], ..StatusResponse::default() });
        Self { progress: progress.clone(), vertex: Mutex::new(vertex), logged: Mutex::new(0) }
    }

    fn vertex(&self) -> Vertex {
        self.vertex.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells that it is done.
    pub fn done(&self, cached: bool, error: &str) {
        let vertex = Vertex { completed: Some(now()), cached, error: error.to_owned(), ..self.vertex() };
        self.progress.tell(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    /// Passes output on, up to a bound.
    pub fn log(&self, stream: i64, data: &[u8]) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged > LOG_LIMIT {
            return;
        }
        *logged += data.len();
        let msg =
            if *logged > LOG_LIMIT { b"[output clipped, log limit 2MiB reached]".to_vec() } else { data.to_vec() };
        let log = VertexLog { vertex: self.vertex().digest, timestamp: Some(now()), stream, msg };
        self.progress.tell(StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// Tells how far a part of it is.
    pub fn status(&self, id: &str, current: i64, total: i64, done: bool) {
        let time = now();
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.vertex().digest,
            name: id.to_owned(),
            current,
            total,
            timestamp: Some(time),
            started: Some(time),
            completed: done.then_some(time),
        };
        self.progress.tell(StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }
}

/// Tells a warning of a build check.
pub fn warn(progress: &Progress, vertex: &str, warning: &wharf_dockerfile::Warning, info: &pb::SourceInfo) {
    let position = |line: usize| Some(pb::Position { line: i32::try_from(line).unwrap_or(0), character: 0 });
    let range = pb::Range { start: position(warning.range.first), end: position(warning.range.last) };
    let warning = VertexWarning {
        vertex: vertex.to_owned(),
        level: 1,
        short: warning.short().into_bytes(),
        detail: vec![warning.rule.description().as_bytes().to_vec()],
        url: warning.rule.url(),
        info: Some(info.clone()),
        ranges: vec![range],
    };
    progress.tell(StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
}
