//! The builder: LLB graphs carried out on snapshots, the Dockerfile front end, contexts of clients, results as images.
//!
//! Doors hand in requests; this crate knows no HTTP. Everything is made lazily: a daemon that never builds holds none
//! of it.
//!
//! ```text
//! <data-root>/build/local/…    contexts of clients        <data-root>/build/empty/    an empty folder
//! <exec-root>/steps/<id>/      what a step mounts, while it runs
//! ```

mod builder;
mod cache;
mod content;
mod copy;
mod error;
mod exec;
mod export;
mod file;
mod frontend;
mod gateway;
mod job;
mod local;
mod lower;
mod merge;
mod progress;
mod remote;
mod request;
mod send;
mod session;
mod source;
mod transfer;
mod tree;

pub use builder::{Builder, Later, Login, Parts, Pushed, Registry};
pub use cache::{BuildRecord, Cache, Collect, Collected, kept_snapshots};
pub use error::{BuildError, Place};
pub use export::{Exported, Exporter};
pub use frontend::base64_text;
pub use frontend::{Frontend, Image as BuiltImage, Outcome};
pub use gateway::Gateway;
pub use job::{Job, Settings, Value, place};
pub use local::{Context, Pool};
pub use lower::{parse_platform, to_platform};
pub use progress::{Progress, now, stamp};
pub use request::{BuildRequest, BuildResult, Driver, Histories, History};
pub use session::{Session, Sessions, SyncRequest};
pub use source::image as find_image;
pub use transfer::Place as CachePlace;
pub use wharf_image::this_platform;

/// An image configuration as JSON.
pub fn config_json(config: &wharf_oci::image::Image) -> Vec<u8> {
    // These types always print.
    serde_json::to_vec(config).unwrap_or_default()
}

/// Reads an image configuration that a front end wrote.
///
/// # Errors
/// It is none.
pub fn config_of_json(json: &[u8]) -> Result<wharf_oci::image::Image, BuildError> {
    serde_json::from_slice(json).map_err(|e| BuildError::invalid(format!("failed to parse image config: {e}")))
}
