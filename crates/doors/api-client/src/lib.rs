//! REST client for the command line: unix sockets, tcp with and without TLS, ssh; streamed bodies and hijacked connections.
//!
//! It is synchronous and keeps one idle connection. The API version is not asked for: the first request names the
//! newest we speak, and a daemon that is older answers with its own, which is used from then on. A body that cannot be
//! sent twice is preceded by `/_ping` instead.
//!
//! Source: the Engine API reference 1.51; RFC 9112 for HTTP/1.1.

mod chunks;
mod client;
mod connection;
mod error;
mod host;
mod message;
mod query;
mod ssh;
mod tls;
mod version;

pub use chunks::Chunks;
pub use client::{Body, Client, Hijacked, Pending, Reply, Request, Streamed};
pub use connection::Connection;
pub use error::Error;
pub use host::{Host, HostError};
pub use message::Head;
pub use query::{Query, escape_path};
pub use ssh::Login;
pub use tls::{Material, Tls, TlsError};
pub use version::Version;

#[cfg(test)]
mod tests;
