//! rtnetlink and nfnetlink messages and sockets.
//!
//! Synchronous and without decisions: which links, rules or entries exist is the caller's. [`Requests`] encodes any
//! number of messages into one buffer, [`Socket`] sends them with one system call and reads every answer;
//! [`route`] knows links, addresses and routes, [`nft`] tables, chains, rules and sets, [`conntrack`]
//! connection entries, [`nflog`] logged packets. A socket keeps the network namespace in which it was opened.

pub mod conntrack;
mod decode;
mod encode;
mod error;
pub mod nflog;
pub mod nft;
pub mod route;
mod socket;

pub use decode::{Attribute, Attributes, Message, Messages, attributes, messages};
pub use encode::Requests;
pub use error::NetlinkError;
pub use rustix::io::Errno;
pub use socket::{Family, Socket};
