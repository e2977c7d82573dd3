//! `docker manifest`: lists of manifests made here and sent to a registry.

use testkit::registry::{Registry, layer};
use testkit::{Daemon, DaemonOptions};

#[test]
fn a_list_of_manifests_is_made_annotated_sent_and_pulled() {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    let amd = registry.put_image("amd", "v1", "amd64", &[layer("amd", 1000)]);
    let arm = registry.put_image("arm", "v1", "arm", &[layer("arm", 1000)]);
    let (list, one, two) = (registry.name("all:v1"), registry.name("amd:v1"), registry.name("arm:v1"));
    let said = daemon.docker(&["manifest", "create", &list, &one, &two]).ok();
    assert_eq!(said, format!("Created manifest list {list}"));
    daemon
        .docker(&["manifest", "create", &list, &one])
        .fails(1, "refusing to amend an existing manifest list with no --amend flag");
    daemon.docker(&["manifest", "annotate", &list, &two, "--arch", "arm64", "--variant", "v8"]).ok();
    daemon
        .docker(&["manifest", "annotate", &list, &registry.name("no:v1"), "--arch", "arm64"])
        .fails(1, "does not exist in");
    let shown: serde_json::Value =
        serde_json::from_str(&daemon.docker(&["manifest", "inspect", &list]).ok()).expect("JSON");
    let platforms: Vec<_> =
        shown["manifests"].as_array().expect("a list").iter().map(|m| m["platform"].clone()).collect();
    assert_eq!(platforms[0]["architecture"], "amd64");
    assert_eq!((platforms[1]["architecture"].as_str(), platforms[1]["variant"].as_str()), (Some("arm64"), Some("v8")));
    let sent = daemon.docker(&["manifest", "push", "--purge", &list]).ok();
    let digest = sent.lines().last().expect("the list's digest").to_owned();
    assert!(sent.contains(&format!("Pushed ref {}@{}", registry.name("all"), arm.manifest)), "{sent}");
    // Its blobs came along without being sent.
    assert!(registry.content().blobs.contains_key(&("all".to_owned(), amd.layers[0].clone())));
    daemon.docker(&["manifest", "rm", &list]).fails(1, "No such manifest");
    let pulled = daemon.docker(&["pull", &list]).ok();
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    let remote: serde_json::Value =
        serde_json::from_str(&daemon.docker(&["manifest", "inspect", "-v", &list]).ok()).expect("JSON");
    assert_eq!(remote.as_array().map(Vec::len), Some(2));
    assert_eq!(remote[0]["Descriptor"]["digest"], serde_json::Value::from(amd.manifest));
    daemon.docker(&["manifest", "inspect", &registry.name("none:v1")]).fails(1, "no such manifest");
}
