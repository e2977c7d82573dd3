//! What the commands do, one file per family.

pub mod build;
pub mod checkpoint;
pub mod completion;
pub mod context;
pub mod copy;
pub mod dial;
pub mod disk;
pub mod events;
pub mod exec;
pub mod files;
pub mod help;
pub mod history;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod plugin;
pub mod processes;
pub mod progress;
pub mod prune;
pub mod ps;
pub mod registry;
pub mod run;
pub mod start;
pub mod stats;
pub mod transfer;
mod tree;
pub mod update;
pub mod version;
pub mod volume;

use wharf_api_client::{Request, escape_path};

use crate::exit::Exit;
use crate::shell::Shell;

/// Returns the path of a container, an image or the like.
fn path(kind: &str, name: &str, rest: &str) -> String {
    format!("/{kind}/{}{rest}", escape_path(name))
}

/// The egress policy of a network or container, as options or annotations. Something allowed means that the rest is not.
pub(crate) fn egress(m: &crate::parse::Matches) -> Vec<(String, String)> {
    let allowed = m.strings("egress-allow").join(",");
    let mode = if m.changed("egress") || allowed.is_empty() { m.text("egress") } else { "deny" };
    let pairs = [("com.wharf.egress", mode.to_owned()), ("com.wharf.egress.allow", allowed)];
    pairs.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect()
}

/// Reads `--filter` values into the API's JSON: name → value → true.
fn filters(values: &[&str]) -> String {
    let mut all: std::collections::BTreeMap<String, std::collections::BTreeMap<&str, bool>> = Default::default();
    for v in values {
        if let Some((name, value)) = v.split_once('=') {
            all.entry(name.trim().to_lowercase()).or_default().insert(value.trim(), true);
        }
    }
    if all.is_empty() {
        return String::new();
    }
    // Maps of strings always become JSON.
    serde_json::to_string(&all).unwrap_or_default()
}

/// Asks the daemon about a command that is not here yet, where it may refuse it anyway: a node outside of a swarm does, and
/// then its words are what counts.
///
/// # Errors
/// The daemon's refusal.
pub fn refused(shell: &Shell, command: &str) -> Result<(), Exit> {
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let request = match words.as_slice() {
        ["node", ..] => Request::get("/nodes"),
        ["service" | "stack", ..] => Request::get("/services"),
        ["secret", ..] => Request::get("/secrets"),
        ["config", ..] => Request::get("/configs"),
        ["swarm", "leave"] => Request::get("/swarm"),
        ["swarm", "ca" | "join-token" | "unlock-key" | "update"] => Request::get("/swarm"),
        _ => return Ok(()),
    };
    match shell.client()?.call(request) {
        Ok(_) => Ok(()),
        Err(e) if words == ["swarm", "leave"] && e.status() == Some(503) => {
            Err(Exit::new("Error response from daemon: This node is not part of a swarm"))
        }
        Err(e) => Err(e.into()),
    }
}
