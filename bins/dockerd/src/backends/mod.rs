//! Joins the API server's backend traits to the engine: names and channels are matched here, and nothing is decided.

mod bodies;
mod build;
mod containers;
mod execs;
mod images;
mod registries;
mod system;

use std::sync::Arc;

use tokio::sync::mpsc;
use wharf_api_server::backend::{Outgoing, Reply};
use wharf_api_server::{ApiError, Backends};
use wharf_engine::Engine;
use wharf_engine::metrics::Action;
use wharf_error::{HasKind, Kind};

use crate::authorization::Authorization;
use crate::collection::Policy;

/// The engine behind every trait, and the builder, once it was needed.
#[derive(Clone)]
pub struct Joined(Arc<Engine>, Arc<build::Opened>);

impl Joined {
    /// The engine.
    fn engine(&self) -> &Arc<Engine> {
        &self.0
    }
}

/// Makes the backends of an engine.
pub fn join(engine: Arc<Engine>, authorizer: Arc<Authorization>, collection: Policy) -> Backends {
    let joined = Arc::new(Joined(engine, Arc::new(build::Opened::new(collection))));
    Backends {
        containers: joined.clone(),
        execs: joined.clone(),
        images: joined.clone(),
        system: joined.clone(),
        networks: joined.clone(),
        volumes: joined.clone(),
        registries: joined.clone(),
        build: Arc::new(build::Building::new(Joined::clone(&joined))),
        events: joined,
        authorizer,
    }
}

impl Joined {
    /// Takes note of how long an action takes that goes well.
    async fn timed<T, E>(&self, action: Action, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let start = std::time::Instant::now();
        let done = work.await;
        if done.is_ok() {
            self.0.timings.note(action, start.elapsed());
        }
        done
    }
}

/// An answer that is there already.
fn ready<'a, T: Send + 'a, E: HasKind>(result: Result<T, E>) -> Reply<'a, T> {
    let result = result.map_err(|e| ApiError::of(&e));
    Box::pin(std::future::ready(result))
}

/// An answer that takes its time.
fn later<'a, T, E, F>(future: F) -> Reply<'a, T>
where
    E: HasKind,
    F: Future<Output = Result<T, E>> + Send + 'a,
{
    Box::pin(async move { future.await.map_err(|e| ApiError::of(&e)) })
}

/// What comes with a later issue is refused with this.
fn later_feature<'a, T: Send + 'a>(what: &str) -> Reply<'a, T> {
    let error = ApiError::not_implemented(format!("{what} is not supported by this version of Wharf yet"));
    Box::pin(std::future::ready(Err(error)))
}

/// An answer that reads or writes files: worked out on a thread that may block.
fn blocking<'a, T, E, F>(work: F) -> Reply<'a, T>
where
    T: Send + 'static,
    E: HasKind,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    let work = tokio::task::spawn_blocking(move || work().map_err(|e| ApiError::of(&e)));
    Box::pin(async move {
        // The task fails only by panicking or when the runtime shuts down.
        work.await.unwrap_or_else(|e| Err(ApiError::new(Kind::System, e.to_string())))
    })
}

/// Passes a channel's items on, converted. Ends with either side.
fn forward<A, B, E>(mut from: mpsc::Receiver<Result<A, E>>, convert: impl Fn(A) -> B + Send + 'static) -> Outgoing<B>
where
    A: Send + 'static,
    B: Send + 'static,
    E: HasKind + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let item = tokio::select! {
                item = from.recv() => item,
                () = sender.closed() => return,
            };
            let Some(item) = item else { return };
            let item = item.map(&convert).map_err(|e| ApiError::of(&e));
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    receiver
}
