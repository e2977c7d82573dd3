//! Docker's plugin protocol: finding plugins, activating them, and calling their methods. Synchronous.
//!
//! A plugin is a program that answers `POST /<Subsystem>.<Method>` with JSON on a socket. It is found by name, in this order
//! (docs.docker.com/engine/extend/plugin_api, "Plugin discovery"):
//!
//! ```text
//! /run/docker/plugins/<name>.sock, /run/docker/plugins/<name>/<name>.sock
//! /etc/docker/plugins/<name>.spec, …/<name>/<name>.spec, <name>.json      one line with an address, or JSON
//! /usr/lib/docker/plugins/…                                               likewise
//! ```
//!
//! Network drivers, volume drivers and authorisation plugins all speak through [`Plugin::call`].

mod address;
mod error;
mod http;
mod registry;
pub mod volume;

pub use address::Address;
pub use error::PluginError;
pub use http::parse_answer;
pub use registry::{Folders, Plugin, Plugins};
