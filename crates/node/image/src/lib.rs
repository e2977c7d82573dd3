//! Images: import, load, save, list, inspect, tag, remove; and the hello image that the engine carries inside.
//!
//! The model is that of the containerd image store (Docker 29's default): an image is the digest of its manifest,
//! names point to it, blobs stay as they came, and each layer is unpacked once into a snapshot found by its chain id.
//!
//! ```text
//! tags:      docker.io/library/busybox:latest ─▶ image id (manifest digest)
//! images:    image id ─▶ record {target, manifest, config, layers, created…}
//! snapshots: chain id ─▶ record {snapshot, parent chain, size}          chain ids: image-spec, config.md
//! content:   manifest, config and layer blobs by digest
//! ```
//!
//! Nothing counts references: what a removed image leaves is found by walking from the images that stay and from
//! what is in flight ([`Hold`]).

mod apart;
mod arrival;
mod change;
mod check;
mod data;
mod error;
mod expand;
mod hello;
mod import;
mod layer;
mod lease;
mod list;
mod load;
mod pipeline;
mod platforms;
mod records;
mod remove;
mod resolve;
mod save;
mod store;
mod unpack;

pub use arrival::{Arrival, ArrivingLayer, Unpacking};
pub use change::change;
pub use check::{Checked, Fault, Finding, Subject};
pub use data::{Details, HistoryEntry, Image, ImageId, Names, Summary};
pub use error::ImageError;
pub use import::{ImportRequest, this_platform};
pub use layer::{NewImage, NewLayer, Part};
pub use lease::Lease;
pub use list::{Filters, More};
pub use load::{LoadProgress, Loaded};
pub use pipeline::Packing;
pub use platforms::{ManifestKind, ManifestSummary};
pub use remove::{Pruned, RemoveOptions, Removed, User};
pub use resolve::Resolved;
pub use store::{Hold, Images, Parts};
