//! gRPC over one given connection, as client and as server; knows no service.
//!
//! BuildKit's sessions turn the roles around: the daemon calls services that its client serves, over a connection
//! that the client opened. So nothing here dials or listens. Source: grpc/doc/PROTOCOL-HTTP2.md.

mod body;
mod client;
mod server;
mod status;

pub use body::{Receiver, Sender};
pub use client::{Channel, Exchange};
pub use server::{Call, Service, serve};
pub use status::{Code, Status};

/// The largest message taken (Go's clients send up to 16 MiB to BuildKit).
pub const MESSAGE_LIMIT: usize = 32 << 20;

#[cfg(test)]
mod tests;
