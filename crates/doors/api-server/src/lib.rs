//! The REST door: listeners, routing by version and path, hijacked connections and streams over backend traits.
//!
//! One narrow trait per resource stands in [`backend`]; `bins/dockerd` joins them to the engine. This crate knows
//! HTTP and Docker's texts of malformed requests, and nothing of what containers are.

pub mod authorize;
pub mod backend;
mod call;
mod create;
mod detach;
mod error;
mod gotypes;
mod handlers;
mod hijack;
mod json;
mod listen;
pub mod metrics;
mod query;
mod respond;
mod routes;
mod server;
mod shapes;
mod socket;
mod tls;
mod version;
mod websocket;

pub use backend::Backends;
pub use error::ApiError;
pub use listen::{Address, ListenError, Listener};
pub use server::{Identity, serve};
pub use tls::{Tls, TlsError, TlsFiles};
