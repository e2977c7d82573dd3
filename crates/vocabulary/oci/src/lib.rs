//! The serde types of the OCI specifications: images ([`image`]) and the runtime configuration ([`runtime`]). Pure data,
//! no behaviour.

pub mod image;
pub mod runtime;
