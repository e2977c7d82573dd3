//! Saving and loading: what is saved loads as the same image, archives of other tools load, hostile ones do not.

mod stage;

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};
use stage::{Stage, gzip, tar_of};
use wharf_image::{Filters, ImageError, LoadProgress, More, RemoveOptions};
use wharf_oci::image::Platform;
use wharf_types::{Digest, Reference};

fn digest(bytes: &[u8]) -> Digest {
    let mut array = [0; 32];
    array.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest::from_sha256(array)
}

fn save(stage: &Stage, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut out = Vec::new();
    stage.images.save(&names, &[], &mut out).expect("saved");
    out
}

fn load(stage: &Stage, archive: &[u8]) -> Result<Vec<String>, ImageError> {
    let mut lines = Vec::new();
    stage.images.load(&mut &*archive, None, &mut |progress| {
        if let LoadProgress::Line(line) = progress {
            lines.push(line);
        }
    })?;
    Ok(lines)
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("entry");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("data");
        (entry.path().expect("path").display().to_string(), bytes)
    });
    entries.collect()
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *bytes).expect("append");
    }
    archive.into_inner().expect("archive")
}

#[test]
fn what_is_saved_loads_as_the_same_image_under_the_same_names() {
    let one = Stage::new();
    let image = one.import("a:1", &tar_of(&[("etc/os", "wharf")]));
    let other = one.import_with("user/b:2", &gzip(&tar_of(&[("x", "y")])), &["CMD [\"x\"]"]);
    one.images.tag("a:1", &Reference::parse("a:2").expect("name")).expect("tagged");
    let saved = save(&one, &["a:1", "a:2", "user/b:2"]);
    let two = Stage::new();
    let lines = load(&two, &saved).expect("loaded");
    assert_eq!(lines, ["Loaded image: a:1\n", "Loaded image: a:2\n", "Loaded image: user/b:2\n"]);
    assert_eq!(two.images.resolve("a:2").expect("a").id, image.id);
    assert_eq!(two.images.resolve("user/b:2").expect("b").id, other.id);
    let loaded = two.images.get(&image.id).expect("a");
    assert_eq!((loaded.size, loaded.unpacked), (image.size, image.unpacked));
    assert_eq!(two.text(&loaded, "etc/os").as_deref(), Some("wharf"));
    assert_eq!(two.blobs(), 6, "index.json and its like are no blobs of any image");
    assert_eq!(save(&two, &["a:1", "a:2", "user/b:2"]), saved, "the same images give the same bytes");
    assert_eq!(load(&two, &saved).expect("again").len(), 3);
    assert_eq!((two.layers(), two.blobs()), (2, 6));
}

/// The layout is that of dockerd 28.5 with the containerd image store, compared with one of its archives.
#[test]
fn what_is_saved_loaded_and_saved_again_is_the_same_archive() {
    let one = Stage::new();
    one.import("a:1", &tar_of(&[("etc/os", "wharf")]));
    one.import_with("user/b:2", &gzip(&tar_of(&[("x", &"y".repeat(200_000))])), &["CMD [\"x\"]"]);
    one.commit("a:1", "c:3");
    let names = ["a:1", "user/b:2", "c:3"];
    let saved = save(&one, &names);
    let two = Stage::new();
    load(&two, &saved).expect("loaded");
    assert!(save(&two, &names) == saved, "the archives differ");
}

#[test]
fn an_archive_has_the_files_that_docker_writes() {
    let stage = Stage::new();
    let image = stage.import("a:1", &tar_of(&[("a", "a")]));
    let files = files(&save(&stage, &["a:1", image.id.short()]));
    let (config, layer) = (&image.manifest.config.digest, &image.manifest.layers[0].digest);
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
    let target = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.id.as_str(),
        "size": image.target.size});
    let mut named = target.clone();
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/library/a:1",
        "org.opencontainers.image.ref.name": "1"});
    let kind = "application/vnd.oci.image.index.v1+json";
    assert_eq!(index, json!({"schemaVersion": 2, "mediaType": kind, "manifests": [named, target]}));
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    assert_eq!(manifest, json!([{"Config": blob(config), "RepoTags": ["a:1"], "Layers": [blob(layer)]}]));
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut names: Vec<String> = ["blobs/", "blobs/sha256/", "index.json", "manifest.json", "oci-layout"]
        .into_iter()
        .map(str::to_owned)
        .chain([blob(&image.id.0), blob(config), blob(layer)])
        .collect();
    names.sort();
    assert_eq!(files.into_keys().collect::<Vec<_>>(), names);
}

/// An archive in the form of Docker before OCI layouts.
fn docker_archive(tags: Value, layers: &[&[u8]], paths: &[&str]) -> Vec<u8> {
    let plain = |layer: &&[u8]| match layer.starts_with(&[0x1f, 0x8b]) {
        true => {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(*layer).read_to_end(&mut bytes).expect("gzip");
            bytes
        }
        false => layer.to_vec(),
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(&plain(layer)).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [{"created_by": "x"}, {"empty_layer": true}]});
    let config = serde_json::to_vec(&config).expect("JSON");
    let manifest = json!([{"Config": "c.json", "RepoTags": tags, "Layers": paths}]);
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let mut files: Vec<(&str, &[u8])> = vec![("c.json", &config)];
    files.extend(paths.iter().zip(layers).map(|(path, layer)| (*path, *layer)));
    files.push(("manifest.json", &manifest));
    archive(&files)
}

#[test]
fn archives_of_older_dockers_load_with_whiteouts_across_layers() {
    let stage = Stage::new();
    let low = tar_of(&[("a", "low"), ("gone", "x")]);
    let high = gzip(&tar_of(&[("a", "high"), (".wh.gone", "")]));
    let bytes = docker_archive(json!(["old:1", "old:2"]), &[&low, &high], &["l1/layer.tar", "l2/layer.tar"]);
    assert_eq!(load(&stage, &bytes).expect("loaded"), ["Loaded image: old:1\n", "Loaded image: old:2\n"]);
    let image = stage.images.hold("old:1").expect("found").image.clone();
    assert_eq!(image.target.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(image.manifest.layers[0].media_type, "application/vnd.docker.image.rootfs.diff.tar");
    assert_eq!(image.manifest.layers[1].media_type, "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(stage.text(&image, "a").as_deref(), Some("high"));
    let gone = std::fs::symlink_metadata(stage.path(&image, "gone")).expect("whiteout");
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type()));
    assert_eq!(stage.images.snapshot(&image).expect("snapshot").expect("layers").lowers.len(), 1);
}

#[test]
fn compressed_archives_load_and_unnamed_images_are_told_by_id() {
    let stage = Stage::new();
    let layer = tar_of(&[("a", "a")]);
    let bytes = gzip(&docker_archive(Value::Null, &[&layer], &["layer.tar"]));
    let lines = load(&stage, &bytes).expect("loaded");
    let found = stage.images.list(&Filters::default(), More::default()).expect("list");
    assert_eq!(lines, [format!("Loaded image ID: {}\n", found[0].image.id)]);
    assert!(found[0].names.tags.is_empty());
}

#[test]
fn what_is_no_archive_of_images_is_refused_with_dockers_text() {
    let stage = Stage::new();
    for bytes in [&b""[..], b"garbage, and more of it than a header has bytes", &tar_of(&[("etc/passwd", "root")])] {
        let text = load(&stage, bytes).map_err(|e| wharf_error::Chain(&e).to_string());
        match bytes.len() {
            0 | 1024.. => assert_eq!(text, Err("unrecognized image format".to_owned())),
            _ => assert!(text.expect_err("cut").contains("unexpected"), "docker says: unexpected EOF"),
        }
    }
    assert_eq!((stage.blobs(), stage.layers(), stage.ingests()), (0, 0, 0));
}

#[test]
fn cve_2014_9356_paths_in_archives_are_never_opened() {
    let stage = Stage::new();
    let layer = tar_of(&[("a", "a")]);
    for path in ["../../../../../../../../etc/passwd", "/etc/passwd", "c.json/../../x"] {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifest = serde_json::to_vec(&json!([{"Config": path, "RepoTags": ["x:1"], "Layers": []}])).expect("JSON");
        let bytes = archive(&[("c.json", config), ("layer.tar", &layer), ("manifest.json", &manifest)]);
        assert!(matches!(load(&stage, &bytes), Err(ImageError::Archive(_))), "{path}");
    }
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
}

#[test]
fn cve_2014_9358_ids_and_names_from_archives_are_no_paths() {
    let stage = Stage::new();
    let layer = tar_of(&[("a", "a")]);
    let bytes = docker_archive(json!(["../../x:1"]), &[&layer], &["layer.tar"]);
    assert!(matches!(load(&stage, &bytes), Err(ImageError::Reference(_))));
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
}

/// An OCI layout of one image, with its blobs and index as `change` leaves them.
fn layout(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>, &mut Value)) -> Vec<u8> {
    let stage = Stage::new();
    stage.import("a:1", &tar_of(&[("a", "a")]));
    let mut files = files(&save(&stage, &["a:1"]));
    let mut index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
    change(&mut files, &mut index);
    files.insert("index.json".to_owned(), serde_json::to_vec(&index).expect("JSON"));
    files.retain(|name, _| !name.ends_with('/'));
    archive(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
}

fn put(files: &mut BTreeMap<String, Vec<u8>>, value: &Value) -> Value {
    let bytes = serde_json::to_vec(value).expect("JSON");
    let digest = digest(&bytes);
    let descriptor = json!({"mediaType": value["mediaType"], "digest": digest.as_str(), "size": bytes.len()});
    files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
    descriptor
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let bytes = layout(|files, _| {
        let name = files.keys().find(|name| name.starts_with("blobs/sha256/") && name.len() > 20).cloned();
        if let Some(bytes) = name.and_then(|name| files.get_mut(&name)) {
            bytes.push(0);
        }
    });
    let stage = Stage::new();
    assert!(matches!(load(&stage, &bytes), Err(ImageError::Content(_))));
    assert_eq!((stage.blobs(), stage.layers(), stage.ingests()), (0, 0, 0));
}

#[test]
fn cve_2021_41190_a_manifest_that_is_an_index_too_is_refused() {
    let bytes = layout(|files, index| {
        let target = index["manifests"][0]["digest"].as_str().expect("digest").to_owned();
        let name = format!("blobs/sha256/{}", &target[7..]);
        let mut manifest: Value = serde_json::from_slice(&files[&name]).expect("JSON");
        manifest["manifests"] = json!([]);
        let descriptor = put(files, &manifest);
        index["manifests"] = json!([descriptor]);
    });
    let stage = Stage::new();
    assert!(matches!(load(&stage, &bytes), Err(ImageError::Archive(_))));
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
}

#[test]
fn of_an_index_the_image_for_this_platform_is_taken_and_the_index_is_the_id() {
    let bytes = layout(|files, index| {
        let mut here = index["manifests"][0].clone();
        here["annotations"] = Value::Null;
        let absent = json!({"mediaType": here["mediaType"], "digest": digest(b"absent").as_str(), "size": 6,
            "platform": {"os": "linux", "architecture": "s390x"}});
        let kind = "application/vnd.oci.image.index.v1+json";
        let inner = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [absent, here]});
        let mut descriptor = put(files, &inner);
        descriptor["annotations"] = json!({"io.containerd.image.name": "docker.io/library/multi:1"});
        index["manifests"] = json!([descriptor]);
    });
    let stage = Stage::new();
    assert_eq!(load(&stage, &bytes).expect("loaded"), ["Loaded image: multi:1\n"]);
    let image = stage.images.hold("multi:1").expect("found").image.clone();
    assert_eq!(image.target.media_type, "application/vnd.oci.image.index.v1+json");
    assert_eq!((stage.blobs(), stage.text(&image, "a").as_deref()), (4, Some("a")));
    let two = Stage::new();
    load(&two, &save(&stage, &["multi:1"])).expect("loaded again");
    assert_eq!(two.images.resolve("multi:1").expect("found").id, image.id);
    let other = Platform { os: "linux".into(), architecture: "s390x".into(), ..Platform::default() };
    let refused = stage.images.load(&mut bytes.as_slice(), Some(&other), &mut |_| {}).expect_err("not here");
    assert!(refused.to_string().contains("does not provide the specified platform (linux/s390x)"), "{refused}");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let stage = Stage::new();
    let good = docker_archive(json!(["x:1"]), &[&tar_of(&[("a", "a")])], &["layer.tar"]);
    let mut files = files(&good);
    files.insert("layer.tar".to_owned(), tar_of(&[("a", "forged")]));
    let forged = archive(&files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect::<Vec<_>>());
    assert!(matches!(load(&stage, &forged), Err(ImageError::DiffId { .. })));
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
    load(&stage, &good).expect("the honest one loads");
    stage.images.remove("x:1", RemoveOptions::default(), &|_| Vec::new()).expect("removed");
    assert_eq!((stage.blobs(), stage.layers()), (0, 0));
}

#[test]
fn saving_what_is_not_there_writes_nothing() {
    let stage = Stage::new();
    stage.import("a:1", &tar_of(&[("a", "a")]));
    let mut out = Vec::new();
    let names = ["a:1".to_owned(), "none".to_owned()];
    let refused = stage.images.save(&names, &[], &mut out).expect_err("not there");
    assert_eq!((refused.to_string().as_str(), out.len()), ("No such image: none:latest", 0));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_archives_never_panic_and_leave_only_whole_images(
        changes in proptest::collection::vec((proptest::prelude::any::<u16>(), proptest::prelude::any::<u8>()), 1..6),
    ) {
        let mut bytes = docker_archive(json!(["x:1"]), &[&tar_of(&[("a", "a")])], &["layer.tar"]);
        for (at, byte) in changes {
            let n = bytes.len();
            bytes[usize::from(at) % n] = byte;
        }
        let stage = Stage::new();
        let _ = load(&stage, &bytes);
        for summary in stage.images.list(&Filters::default(), More::default()).expect("list") {
            stage.images.remove(summary.image.id.as_str(), RemoveOptions { force: true, prune: true }, &|_| Vec::new()).expect("removed");
        }
        assert_eq!((stage.blobs(), stage.layers(), stage.ingests()), (0, 0, 0));
    }
}

#[test]
fn a_folder_that_an_upper_layer_only_implies_is_as_in_the_lower_one_whichever_comes_first() {
    use std::os::unix::fs::MetadataExt;
    let entry = |name: &str, mode: u32, uid: u64, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if size == 0 { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_size(size as u64);
        header.set_path(name).expect("short");
        header.set_cksum();
        header
    };
    let layer = |headers: &[tar::Header]| {
        let mut archive = tar::Builder::new(Vec::new());
        for header in headers {
            let bytes = vec![b'x'; header.size().expect("size") as usize];
            archive.append(header, bytes.as_slice()).expect("append");
        }
        archive.into_inner().expect("archive")
    };
    let big = 100 << 10;
    let low = layer(&[entry("./", 0o750, 7, 0), entry("data/", 0o2710, 5, 0), entry("low", 0o644, 0, big)]);
    let high = layer(&[entry("data/high", 0o600, 6, big)]);
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&low).to_string(), digest(&high).to_string()]}});
    let config = serde_json::to_vec(&config).expect("json");
    let list = br#"[{"Config": "c.json", "RepoTags": ["implied:1"], "Layers": ["low.tar", "high.tar"]}]"#;
    // Layers come in either order: as the archive has them, and as the image has them.
    for order in [["low.tar", "high.tar"], ["high.tar", "low.tar"]] {
        let stage = Stage::new();
        let bytes = |name: &str| if name == "low.tar" { &low[..] } else { &high[..] };
        let files = [
            (order[0], bytes(order[0])),
            (order[1], bytes(order[1])),
            ("c.json", &config[..]),
            ("manifest.json", &list[..]),
        ];
        load(&stage, &archive(&files)).expect("loaded");
        let image = stage.images.hold("implied:1").expect("image").image.clone();
        let facts = |name: &str| {
            let found = std::fs::metadata(stage.path(&image, name)).expect("stat");
            (found.mode() & 0o7777, found.uid(), found.gid())
        };
        assert_eq!(facts("."), (0o750, 7, 7), "{order:?}");
        assert_eq!(facts("data"), (0o2710, 5, 5), "{order:?}");
        assert_eq!(facts("data/high"), (0o600, 6, 6), "{order:?}");
        assert_eq!(stage.images.list(&Filters::default(), More::default()).expect("list").len(), 1);
    }
}
