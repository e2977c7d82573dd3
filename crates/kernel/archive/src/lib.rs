//! Tar streams to and from a directory descriptor; every path is resolved beneath it.
//!
//! Archives are hostile input. Names are bounded, never resolved by the host's root, never followed out of the tree;
//! compression is undone in-process by formats named here and by no helper program.

#![allow(clippy::unimplemented)]

mod compression;
mod error;
mod extract;
mod header;
mod pack;
mod root;

pub use compression::{Compression, Decoder, Peeked};
pub use error::ArchiveError;
pub use extract::{Extracted, Whiteouts, extract};
pub use pack::pack;
pub use root::Root;
