//! Sending logs on: journald, syslog, GELF, Fluentd and Splunk, each from the spool and with a stored cursor. Synchronous.
//!
//! The shim writes the spool and never waits for a collector. One thread for each container with such a driver reads it
//! and delivers; where it got to stands in `<data-root>/containers/<id>/forward.json`. So nothing is lost when dockerd or
//! the collector restarts, as long as the spool (bounded by `cache-max-size` × `cache-max-file`) holds it. Delivery is at
//! least once: what a collector did not confirm before a connection broke is sent again. Protocols without confirmation
//! count as confirmed when the connection has lived on for [`SETTLED`].

mod cursor;
mod error;
mod fluentd;
mod forwarder;
mod gelf;
mod journald;
mod msgpack;
mod net;
mod splunk;
mod syslog;

pub use error::ForwardError;
pub use forwarder::{Forwarder, Request, SETTLED, is_drained};
pub use msgpack::{Value, decode, encode};

use std::collections::BTreeMap;

/// What messages tell of their container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Its id.
    pub id: String,
    /// Its name, without slash.
    pub name: String,
    /// The image's id.
    pub image_id: String,
    /// The image's name.
    pub image_name: String,
    /// Command and arguments.
    pub command: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The rendered `tag`.
    pub tag: String,
    /// Labels and variables that the options `labels` and `env` select.
    pub extra: BTreeMap<String, String>,
}

impl Info {
    fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// The host's name.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A message without its newline.
fn line(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}
