//! Tar streams to and from a directory descriptor; every path is resolved beneath it.
//!
//! Archives are hostile input. Names are bounded, never resolved by the host's root, never followed out of the tree;
//! compression is undone in-process by formats named here and by no helper program.

mod compression;
mod difference;
mod error;
mod extract;
mod header;
mod pack;
mod pack_live;
mod pax;
mod remove;
mod root;
mod sparse;

pub use compression::{Bomb, Compression, Decoder, Inflation, Peeked};
pub use difference::{Change, ChangeKind, Difference, Form};
pub use error::ArchiveError;
pub use extract::{Copying, Extracted, Whiteouts, copy_into, extract, settle};
pub use header::{Entry, EntryKind, Reader};
pub use pack::{Writer, pack};
pub use pack_live::pack_as;
pub use pax::Time;
pub use remove::{remove_tree, remove_tree_while};
pub use root::Root;
