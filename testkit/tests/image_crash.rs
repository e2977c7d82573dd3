//! dockerd is killed at every step of what it does with images: the next one has what was acknowledged, and no blob,
//! directory or ingest that no image needs.

use std::collections::{BTreeMap, BTreeSet};

use testkit::registry::{Registry, digest_of, tar_of};
use testkit::{Daemon, eventually};

/// The steps of importing, loading, tagging, committing, pushing, removing and pruning. Those of a pull are in
/// `registry_pull`, those that pause a running container in `capture`.
fn points() -> Vec<&'static str> {
    let ours =
        ["unpack.", "blob.", "import.", "load.", "image.", "layers.", "tag.", "commit.", "push.", "rmi.", "prune."];
    wharf_fault::POINTS.iter().copied().filter(|point| ours.iter().any(|verb| point.starts_with(verb))).collect()
}

fn names(daemon: &Daemon, folder: &str) -> BTreeSet<String> {
    let read = std::fs::read_dir(daemon.data_root().join(folder)).into_iter().flatten().flatten();
    read.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What is on disk for images: blobs, layer directories, ingests.
fn on_disk(daemon: &Daemon) -> [BTreeSet<String>; 3] {
    ["content/blobs/sha256", "overlay", "content/ingest"].map(|folder| names(daemon, folder))
}

/// What a client was told of names: `Some(true)` there, `Some(false)` gone, `None` unknown, because the command failed.
type Told = BTreeMap<String, Option<bool>>;

/// One round of everything; it ends where a command fails.
fn round(daemon: &Daemon, registry: &Registry, archive: &str, n: usize) -> Told {
    let mut told = Told::new();
    let file = daemon.folder().join("one.tar");
    std::fs::write(&file, tar_of(&[("file", format!("of round {n}").as_bytes())])).expect("written");
    let file = file.to_str().expect("a plain name");
    let far = registry.name(&format!("app:{n}"));
    let steps: [(&[&str], &[&str], bool); 8] = [
        (&["import", file, "k1:1"], &["k1:1"], true),
        (&["load", "-q", "-i", archive], &["k2:1"], true),
        (&["tag", "k1:1", "k3:1"], &["k3:1"], true),
        (&["commit", "kc", &far], &[&far], true),
        (&["push", "-q", &far], &[], true),
        (&["rmi", "k3:1"], &["k3:1"], false),
        (&["rmi", "k1:1"], &["k1:1"], false),
        (&["image", "prune", "-a", "-f"], &["k2:1", &far], false),
    ];
    for (command, subjects, present) in steps {
        let done = daemon.docker(command).code == 0;
        for subject in subjects {
            told.insert((*subject).to_owned(), done.then_some(present));
        }
        if !done {
            return told;
        }
    }
    told
}

#[test]
fn killed_at_any_step_of_any_work_on_images_nothing_acknowledged_is_lost_and_nothing_is_left_over() {
    let mut daemon = Daemon::with_image();
    let registry = Registry::plain();
    daemon.docker(&["create", "--name", "kc", "busybox", "true"]).ok();
    let file = daemon.folder().join("changed");
    std::fs::write(&file, "changed").expect("written");
    daemon.docker(&["cp", file.to_str().expect("a plain name"), "kc:/changed"]).ok();
    // Two layers, of which the lower is the base image's.
    let archive = daemon.folder().join("two.tar");
    let archive = archive.to_str().expect("a plain name");
    daemon.docker(&["commit", "kc", "k2:1"]).ok();
    daemon.docker(&["save", "-o", archive, "k2:1"]).ok();
    daemon.docker(&["image", "prune", "-a", "-f"]).ok();
    let base = on_disk(&daemon);
    assert!(base[2].is_empty(), "{base:?}");
    let points = points();
    assert!(points.len() >= 25, "{points:?}");
    let mut missed = Vec::new();
    for (n, point) in points.into_iter().enumerate() {
        daemon.stop();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), point.to_owned())];
        daemon.launch();
        let told = round(&daemon, &registry, archive, n);
        if point.starts_with("layers.") {
            // Layers are brought to disk when images have rested for a while, those that are still there.
            daemon.docker(&["import", archive, "rests:1"]);
        }
        if told.values().any(Option::is_none) || told.len() < 4 {
            daemon.wait_for_end();
        } else if daemon.has_ended() || eventually_ends(&mut daemon) {
            // Killed by what goes on in the background.
            daemon.kill();
        } else {
            missed.push(point);
            daemon.stop();
        }
        daemon.options().environment.clear();
        daemon.launch();
        for (name, told) in &told {
            let found = daemon.docker(&["image", "inspect", name]).code == 0;
            if let Some(told) = told {
                assert_eq!(found, *told, "{point}: {name}");
            }
            if found {
                // Its layers are whole and can be stood upon.
                let id = daemon.docker(&["create", name, "true"]).ok();
                daemon.docker(&["rm", &id]).ok();
                daemon.docker(&["save", name]).ok();
            }
        }
        for blob in names(&daemon, "content/blobs/sha256") {
            let bytes = std::fs::read(daemon.data_root().join("content/blobs/sha256").join(&blob)).expect("readable");
            assert_eq!(digest_of(&bytes), format!("sha256:{blob}"), "{point}");
        }
        assert!(names(&daemon, "content/ingest").is_empty(), "{point}: an ingest is left over");
        daemon.docker(&["image", "prune", "-a", "-f"]).ok();
        // What lies between an image that is gone and containers that are gone is swept when a daemon starts.
        daemon.stop();
        daemon.launch();
        is_base(point, &daemon, &base);
        eventually("the trash is emptied", || names(&daemon, "trash").is_empty().then_some(()));
        // The next round is whole.
        let again = round(&daemon, &registry, archive, 1000 + n);
        assert!(again.len() >= 4 && again.values().all(|told| *told == Some(false)), "{point}: {again:?}");
        is_base(point, &daemon, &base);
        let pushed = ("app".to_owned(), (1000 + n).to_string());
        assert!(registry.content().manifests.contains_key(&pushed), "{point}: pushed");
    }
    assert!(missed.is_empty(), "points that no round reaches: {missed:?}");
    daemon.docker(&["rm", "kc"]).ok();
}

/// Nothing is on disk but what was there in the beginning; a container's directory goes a moment after it.
fn is_base(point: &str, daemon: &Daemon, base: &[BTreeSet<String>; 3]) {
    let shown = || format!("{point}: {:?} and not {base:?}", on_disk(daemon));
    eventually(&shown(), || (on_disk(daemon) == *base).then_some(()));
}

/// Whether the daemon dies within a moment, by what it does in the background.
fn eventually_ends(daemon: &mut Daemon) -> bool {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(8);
    while std::time::Instant::now() < end {
        if daemon.has_ended() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    false
}
