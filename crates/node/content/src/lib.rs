//! Blobs by digest: verified while written, whole or absent, and ingests that survive a kill.
//!
//! ```text
//! <data-root>/content/blobs/sha256/<hex>     a blob; never changed after it appears
//! <data-root>/content/ingest/<id>            a blob being written; `id` is the SHA-256 of the writer's key
//! ```
//!
//! A blob is fsynced before it gets its name, so a record that is committed afterwards never names a blob that
//! power loss took.

mod blob;
mod error;
mod ingest;
mod store;

pub use blob::Blob;
pub use error::ContentError;
pub use ingest::Ingest;
pub use store::{Info, Store};
