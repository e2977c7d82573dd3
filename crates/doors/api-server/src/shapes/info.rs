//! Older shapes of `GET /info`.

use serde_json::{Map, Value, json};

use super::{drop_key, set};

/// Until 1.49 two facts about br_netfilter were shown; 28.5 gives both as false.
pub fn add_bridge_filters(info: &mut Map<String, Value>) {
    set(info, "BridgeNfIptables", json!(false));
    set(info, "BridgeNfIp6tables", json!(false));
}

/// The firewall's backend came with 1.49.
pub fn drop_firewall(info: &mut Map<String, Value>) {
    drop_key(info, "FirewallBackend");
}

/// Until 1.48 commits said which one was expected; it was the same one.
pub fn repeat_commits(info: &mut Map<String, Value>) {
    for key in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
        if let Some(Value::Object(commit)) = info.get_mut(key) {
            let id = commit.get("ID").cloned().unwrap_or_default();
            if id.as_str().is_some_and(|id| !id.is_empty()) {
                commit.insert("Expected".to_owned(), id);
            }
        }
    }
}

/// Until 1.46 registries had two more lists, always null in the end.
pub fn add_nondistributable(info: &mut Map<String, Value>) {
    if let Some(Value::Object(registries)) = info.get_mut("RegistryConfig") {
        set(registries, "AllowNondistributableArtifactsCIDRs", Value::Null);
        set(registries, "AllowNondistributableArtifactsHostnames", Value::Null);
    }
}
