//! `docker system check`: what is damaged or missing in the image store is found, and mended where it can be.

use std::path::PathBuf;

use testkit::registry::{Registry, digest_of, layer, layer_of};
use testkit::{Daemon, DaemonOptions, busybox_tar};

fn blob(daemon: &Daemon, digest: &str) -> PathBuf {
    daemon.data_root().join("content/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

/// The directory that holds a file of this name at a layer's root.
fn layer_with(daemon: &Daemon, name: &str) -> PathBuf {
    let layers = std::fs::read_dir(daemon.data_root().join("overlay")).expect("layers").flatten();
    let mut found = layers.map(|entry| entry.path()).filter(|path| path.join("fs").join(name).exists());
    found.next().unwrap_or_else(|| panic!("no layer has {name}"))
}

#[test]
fn damaged_and_missing_blobs_and_layers_are_found_and_fetched_or_unpacked_again() {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    let tar = std::fs::read(busybox_tar(daemon.folder())).expect("made");
    let image = registry.put_image("app", "v1", "amd64", &[layer_of(&tar), layer("data", 5000), layer("more", 7000)]);
    let name = registry.name("app:v1");
    daemon.docker(&["pull", "-q", &name]).ok();
    let well = daemon.docker(&["system", "check"]).ok();
    assert!(well.ends_with(" and 3 layers were checked") && well.starts_with("5 blobs ("), "{well}");
    let damage = || {
        // A flipped bit, a cut blob, a blob that is gone, a manifest that is gone, a layer that is gone, a lost file.
        let mut bytes = std::fs::read(blob(&daemon, &image.layers[0])).expect("a blob");
        bytes[100] ^= 1;
        std::fs::write(blob(&daemon, &image.layers[0]), bytes).expect("written");
        std::fs::write(blob(&daemon, &image.layers[1]), b"short").expect("written");
        std::fs::remove_file(blob(&daemon, &image.layers[2])).expect("removed");
        std::fs::remove_file(blob(&daemon, &image.manifest)).expect("removed");
        std::fs::remove_dir_all(layer_with(&daemon, "data")).expect("removed");
        std::fs::remove_file(layer_with(&daemon, "more").join("fs/more")).expect("removed");
    };
    damage();
    let found = daemon.docker(&["system", "check"]);
    found.fails(1, "6 things are wrong with the image store");
    let lines = found.text();
    for (subject, fault) in [
        (&image.layers[0], "damaged"),
        (&image.layers[1], "damaged"),
        (&image.layers[2], "missing"),
        (&image.manifest, "missing"),
    ] {
        assert!(lines.contains(&format!("blob {subject} of {name} is {fault}\n")), "{lines}");
    }
    assert!(
        lines.contains("is missing\n") && lines.lines().filter(|l| l.starts_with("layer ")).count() == 2,
        "{lines}"
    );
    let mended = daemon.docker(&["system", "check", "--repair"]).ok();
    assert_eq!(mended.matches(&format!("fetched again from {}/app", registry.host())).count(), 4, "{mended}");
    assert_eq!(mended.matches("unpacked anew").count(), 2, "{mended}");
    assert_eq!(daemon.docker(&["system", "check"]).ok(), well);
    for digest in image.layers.iter().chain([&image.manifest, &image.config]) {
        assert_eq!(digest_of(&std::fs::read(blob(&daemon, digest)).expect("a blob")), **digest);
    }
    let counted = daemon.docker(&["run", "--rm", &name, "busybox", "wc", "-c", "/data", "/more"]).ok();
    assert!(counted.contains("5000 /data") && counted.contains("7000 /more"), "{counted}");
    // Where the registry has it no more, the image goes, unless a container uses it.
    registry.content().blobs.clear();
    std::fs::remove_file(blob(&daemon, &image.layers[2])).expect("removed");
    daemon.docker(&["create", "--name", "user", &name, "true"]).ok();
    let kept = daemon.docker(&["system", "check", "--repair"]);
    kept.fails(1, "1 thing is wrong with the image store");
    assert!(kept.text().contains("is missing: cannot be had, and containers use it: "), "{}", kept.text());
    daemon.docker(&["rm", "user"]).ok();
    let dropped = daemon.docker(&["system", "check", "--repair"]).ok();
    assert!(dropped.contains("is missing: cannot be had, so removed: "), "{dropped}");
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
    assert_eq!(daemon.docker(&["system", "check"]).ok(), "0 blobs (0B) and 0 layers were checked");
}
