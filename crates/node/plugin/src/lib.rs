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
pub mod ipam;
pub mod network;
mod registry;
pub mod volume;

pub use address::Address;
pub use error::PluginError;
pub use http::parse_answer;
pub use registry::{Folders, Plugin, Plugins};

/// Asks a plugin of the network or address subsystem, which tell of a failure in the member `Err` or, as libnetwork's
/// own helpers for plugins write it, `Error`.
fn ask<A: serde::de::DeserializeOwned>(
    plugin: &Plugin,
    method: &str,
    request: &impl serde::Serialize,
) -> Result<A, PluginError> {
    let mut answer: serde_json::Value = plugin.call(method, request)?;
    let failed = ["Err", "Error"].into_iter().find_map(|m| answer[m].as_str().filter(|text| !text.is_empty()));
    if let Some(text) = failed {
        return Err(PluginError::Refused { method: "remote".to_owned(), status: 200, text: text.to_owned() });
    }
    drop_nulls(&mut answer);
    serde_json::from_value(answer)
        .map_err(|e| PluginError::Answer { method: method.to_owned(), reason: format!("invalid JSON: {e}") })
}

/// Go writes empty lists and maps as null.
fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
