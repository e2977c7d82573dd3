//! The nouns that cross crate boundaries: typed ids, digests, mounts, signals, timestamps, start failures. Pure.

mod digest;
mod failure;
mod id;
mod idmap;
mod mount;
mod reference;
mod signal;
mod time;

pub use digest::{Digest, DigestError};
pub use failure::{Failure, Stage};
pub use id::{ContainerId, ExecId, IdError, InstanceId, NetworkId};
pub use idmap::{IdMaps, IdRange};
pub use mount::Mount;
pub use reference::{Reference, ReferenceError};
pub use signal::{Signal, SignalError};
pub use time::{Timestamp, TimestampError};
