//! rtnetlink and nfnetlink messages and sockets.

mod error;

pub use error::NetlinkError;
