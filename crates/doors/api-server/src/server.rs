//! Connections: accepting, HTTP/1.1 on each, draining at shutdown.

use tokio::sync::watch;

use crate::{Backends, Listener};

/// What the version headers say.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `Docker/<version> (linux)`, the `Server` header.
    pub server: String,
    /// The newest API version, `1.51`.
    pub api_version: String,
    /// The oldest API version, `1.24`.
    pub min_api_version: String,
    /// Whether experimental features are on.
    pub experimental: bool,
    /// The builder offered to clients: `2` is BuildKit, `1` the classic one.
    pub builder_version: String,
}

/// Serves until `stop` turns true: then accepts nothing new, ends idle connections, and returns when the requests at
/// work are done or `grace` has passed. Streams (logs -f, events, attach) are ended at once.
pub async fn serve(
    _listeners: Vec<Listener>,
    _backends: Backends,
    _identity: Identity,
    _stop: watch::Receiver<bool>,
    _grace: std::time::Duration,
) {
    #[allow(clippy::unimplemented)]
    {
        unimplemented!()
    }
}
