//! The REST API's JSON bodies in the shape of API 1.51, and the plain values of its queries. Pure.
//!
//! Names, order and the three states absent, `null` and empty follow what dockerd 28.5 emits: `Option` fields print
//! `null`, fields marked with [`go::empty`] are left out when empty, and plain collections print `[]` or `{}`.
//! Reading is as lenient as Go's decoder: any field may be missing or `null`, unknown keys are ignored.
//! Shapes of older API versions are transforms in `api-server`.
//!
//! Fields carry their API names and meanings (Docker Engine API 1.51 reference); a comment stands where a unit, a
//! default or a special value is not plain from the name.

#[macro_use]
pub mod go;
mod checkpoint;
mod container;
mod create;
mod event;
mod exec;
mod filters;
mod image;
mod inspect;
mod mount;
mod network;
pub mod query;
mod stats;
mod system;
mod volume;

pub use checkpoint::*;
pub use container::*;
pub use create::*;
pub use event::*;
pub use exec::*;
pub use filters::{FilterError, Filters};
pub use image::*;
pub use inspect::*;
pub use mount::*;
pub use network::*;
pub use stats::*;
pub use system::*;
pub use volume::*;

/// A string-to-string map; printed sorted by key, as Go prints maps.
pub type StringMap = std::collections::BTreeMap<String, String>;

bodies! {
    /// The body of every error answer.
    pub struct ErrorResponse as "lowercase" {
        message: String,
    }

    /// The answer of calls that only make something with an id.
    pub struct IdResponse {
        id: String,
    }
}
