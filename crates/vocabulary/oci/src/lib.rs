//! The serde types of the OCI specifications: images ([`image`]). Pure data, no behaviour.

pub mod image;
