//! Crafted layers and documents from a registry (the layer rows of the attack catalogue that a single archive does not show):
//! each is refused in bounded time and memory, and the next pull goes well.

use testkit::registry::{Fate, Layer, Registry, digest_of, layer, layer_of, tar_of};
use testkit::{Daemon, DaemonOptions, Outcome};

fn pull(daemon: &Daemon, registry: &Registry, tag: &str) -> Outcome {
    daemon.docker(&["pull", "-q", &registry.name(&format!("app:{tag}"))])
}

/// Nothing of a refused image is kept, and the daemon takes the next one.
fn is_well(daemon: &Daemon, registry: &Registry, what: &str) {
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "", "{what}");
    let blobs = std::fs::read_dir(daemon.data_root().join("content/blobs/sha256")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "{what}");
    pull(daemon, registry, "good").ok();
    daemon.docker(&["rmi", &registry.name("app:good")]).ok();
}

fn crafted(kind: &'static str, blob: Vec<u8>, plain: &[u8]) -> Layer {
    Layer { kind, blob, diff_id: digest_of(plain) }
}

#[test]
fn cve_2021_20291_a_crafted_layer_hangs_neither_its_pull_nor_the_next_one() {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    registry.put_image("app", "good", "amd64", &[layer("good", 1000)]);
    let tar = tar_of(&[("file", &[7; 200_000])]);
    let whole = layer_of(&tar).blob;
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let trailing = [&whole[..], b"\x1f\x8b\x08 and no more"].concat();
    let cases = [
        ("cut gzip", crafted(gzip, whole[..whole.len() / 2].to_vec(), &tar)),
        ("damaged gzip", crafted(gzip, flipped, &tar)),
        ("gzip with half a member after it", crafted(gzip, trailing, &tar)),
        ("xz under gzip's name", crafted(gzip, b"\xfd7zXZ\0 and no more".to_vec(), &tar)),
        ("no zstd", crafted(zstd, b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff".to_vec(), &tar)),
        ("a window of terabytes", crafted(zstd, b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00".to_vec(), &tar)),
        ("no tar", layer_of(&[0x41; 4096])),
        ("a cut tar", layer_of(&tar[..1000])),
    ];
    for (n, (what, bad)) in cases.into_iter().enumerate() {
        let tag = format!("bad{n}");
        // A good layer below and above: those that wait for the bad one must not wait for ever.
        registry.put_image("app", &tag, "amd64", &[layer("below", 5000), bad, layer("above", 300_000)]);
        let refused = pull(&daemon, &registry, &tag);
        assert_eq!(refused.code, 1, "{what}: {}", refused.stderr);
        assert!(!refused.stderr.trim().is_empty(), "{what}");
        is_well(&daemon, &registry, what);
    }
}

#[test]
fn cve_2023_25153_a_manifest_without_end_is_refused_at_its_bound() {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    registry.put_image("app", "good", "amd64", &[layer("good", 1000)]);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let padding = "x".repeat(64 << 20);
    let document = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "annotations": {"a": padding},
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b""), "size": 0}, "layers": []});
    registry.put_manifest("app", "huge", kind, &document);
    let refused = pull(&daemon, &registry, "huge");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("bytes"), "{}", refused.stderr);
    is_well(&daemon, &registry, "huge");
    // Nor does a size that is promised make memory be taken.
    let image = registry.put_image("app", "lie", "amd64", &[layer("lie", 1000)]);
    let config = image.config.clone();
    registry.judge(move |ask| match ask.reads_blob() && ask.path().ends_with(&config) {
        true => Fate::Flawed(testkit::registry::Flaw::Length(1 << 40)),
        false => Fate::Fair,
    });
    assert_eq!(pull(&daemon, &registry, "lie").code, 1);
    registry.be_fair();
    is_well(&daemon, &registry, "a length of a terabyte");
}
