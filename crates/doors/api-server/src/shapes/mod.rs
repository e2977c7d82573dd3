//! Shapes of older API versions: what to change in an answer for a client below a version.
//!
//! Answers are made in the newest shape. Each row is one change of the API, applied for clients older than its
//! version, newest change first. Found by asking dockerd 28.5 for each version.

mod info;
mod request;

pub use request::age_create;

use serde_json::{Map, Value, json};

use crate::routes::Endpoint;
use crate::version::ApiVersion;

type Change = fn(&mut Map<String, Value>);

/// An endpoint, the minor version that brought the change, and how to undo it in one object of the answer.
const CHANGES: &[(Endpoint, u32, Change)] = &[
    (Endpoint::ImageList, 51, |image| set(image, "Containers", json!(-1))),
    (Endpoint::ImageInspect, 50, fill_image_config),
    (Endpoint::Info, 50, info::add_bridge_filters),
    (Endpoint::Info, 49, info::drop_firewall),
    (Endpoint::Info, 49, info::repeat_commits),
    (Endpoint::Info, 47, info::add_nondistributable),
    (Endpoint::Info, 46, |info| drop_key(info, "Containerd")),
    (Endpoint::ContainerInspect, 48, |container| drop_key(container, "ImageManifestDescriptor")),
    (Endpoint::ContainerList, 48, |container| drop_key(container, "ImageManifestDescriptor")),
    (Endpoint::ImageInspect, 48, |image| drop_key(image, "Descriptor")),
    (Endpoint::ImageInspect, 48, |image| drop_key(image, "Manifests")),
    (Endpoint::ImageList, 48, |image| drop_key(image, "Descriptor")),
    (Endpoint::ImageList, 47, |image| drop_key(image, "Manifests")),
    (Endpoint::DiskUsage, 48, |usage| {
        let images = usage.get_mut("Images").and_then(Value::as_array_mut);
        images.into_iter().flatten().filter_map(Value::as_object_mut).for_each(|image| drop_key(image, "Descriptor"));
    }),
];

/// Whether an answer for this version differs from the newest shape.
pub fn differs(endpoint: Endpoint, version: &ApiVersion) -> bool {
    CHANGES.iter().any(|(e, minor, _)| *e == endpoint && version.before(*minor))
}

/// Changes an answer, or each element of a list, to the version's shape.
pub fn age(endpoint: Endpoint, version: &ApiVersion, answer: &mut Value) {
    for (_, _, change) in CHANGES.iter().filter(|(e, minor, _)| *e == endpoint && version.before(*minor)) {
        match answer {
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(change),
            Value::Object(object) => change(object),
            _ => {}
        }
    }
}

fn set(object: &mut Map<String, Value>, key: &str, value: Value) {
    object.insert(key.to_owned(), value);
}

fn drop_key(object: &mut Map<String, Value>, key: &str) {
    // Not `remove`, which would move the last key into the gap.
    object.shift_remove(key);
}

/// Before 1.50 an image's configuration had the fields of a container's, all empty.
fn fill_image_config(image: &mut Map<String, Value>) {
    let Some(Value::Object(config)) = image.get_mut("Config") else { return };
    for key in ["Hostname", "Domainname", "Image"] {
        config.entry(key).or_insert(json!(""));
    }
    for key in ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"] {
        config.entry(key).or_insert(json!(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(endpoint: Endpoint, version: &str, mut value: Value) -> Value {
        age(endpoint, &ApiVersion::parse(version), &mut value);
        value
    }

    #[test]
    fn descriptors_came_with_1_48() {
        let list = json!([{"Id": "a", "ImageManifestDescriptor": {}, "Mounts": []}]);
        assert_eq!(aged(Endpoint::ContainerList, "1.47", list.clone()), json!([{"Id": "a", "Mounts": []}]));
        assert_eq!(aged(Endpoint::ContainerList, "1.48", list.clone()), list);
        assert!(!differs(Endpoint::ContainerList, &ApiVersion::parse("1.51")));
    }

    #[test]
    fn image_configurations_had_more_fields_before_1_50() {
        let image = aged(Endpoint::ImageInspect, "1.49", json!({"Config": {"User": "x"}}));
        assert_eq!(image["Config"]["Tty"], json!(false));
        assert_eq!(image["Config"]["Image"], json!(""));
        assert_eq!(aged(Endpoint::ImageList, "1.50", json!([{"Containers": 2}])), json!([{"Containers": -1}]));
    }

    #[test]
    fn information_loses_and_gains_parts_by_version() {
        let info = json!({
            "IPv4Forwarding": true, "RegistryConfig": {}, "RuncCommit": {"ID": "a"},
            "FirewallBackend": {}, "Containerd": {},
        });
        let new = aged(Endpoint::Info, "1.50", info.clone());
        assert_eq!(new, info);
        let old = aged(Endpoint::Info, "1.44", info);
        assert_eq!(old["BridgeNfIptables"], json!(false));
        assert_eq!(old["RuncCommit"]["Expected"], json!("a"));
        assert_eq!(old["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"], Value::Null);
        assert!(old.get("FirewallBackend").is_none() && old.get("Containerd").is_none());
    }
}
