//! The registry client: references to hosts, logins and tokens, pulling and pushing blobs and manifests.
//!
//! Source: OCI distribution specification 1.1; distribution's token specification; containerd `docs/hosts.md`.
//! [`Client`] is the registries of one daemon, [`Repository`] one repository for one user. Progress is data: a
//! [`Fetch`] tells how far it is, [`push`] tells a listener.

mod auth;
mod blob;
pub mod challenge;
mod client;
pub mod document;
mod download;
mod endpoint;
mod error;
mod fetch;
mod graph;
pub mod hosts_toml;
mod proxy;
mod repository;
mod tls;
mod transport;
mod upload;

pub use auth::Credentials;
pub use client::{Client, Found};
pub use download::Download;
pub use endpoint::{Capabilities, Config, Endpoint, HUB, HUB_LOGIN, Scheme, TlsSettings, endpoints, is_insecure};
pub use error::{Complaint, DistributionError, Refusal, TransportError};
pub use fetch::{Fetch, Following, ingest_key};
pub use graph::{Graph, Protect, Shelf};
pub use proxy::{Proxies, Proxy};
pub use repository::{Purpose, Repository};
pub use upload::{Listener, Parcel, Sent, Shipment, push};
