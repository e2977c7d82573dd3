//! The spool: json-file and local formats, writer (in the shim) and reader (in dockerd). Synchronous.
//!
//! The spool of a container is its final log: `<log folder>/<id>-json.log` (json-file) or
//! `<log folder>/local-logs/container.log` (local), with rotated files beside it, newest first:
//! `.1`, `.2`, … or `.1.gz`, `.2.gz`, … as Docker names them. Both formats keep every byte that the container wrote:
//! where a json-file line is not valid UTF-8, Docker's replacement characters are followed by an additive key `raw`.

mod config;
mod cursor;
mod error;
mod files;
mod json;
mod line;
mod local;
mod reader;
mod record;
mod remote;
mod tail;
mod watch;
mod writer;

pub use config::{Config, Driver, Position, Stream};
pub use cursor::Cursor;
pub use error::LogError;
pub use reader::{Form, Message, Place, Progress, ReadOptions, Reader};
pub use remote::{Remote, RemoteKind, facility};
pub use watch::Ending;
pub use writer::{Compression, Rotations, Writer};
