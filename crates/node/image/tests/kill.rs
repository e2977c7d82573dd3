//! The daemon killed at every kill point of this crate: the next one finds every acknowledged image whole, and no
//! blob, layer or half-written file that no image owns. The victim is this very program.

mod stage;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use stage::{Stage, gzip, tar_of};
use wharf_image::{Filters, More, RemoveOptions};

const FOLDER: &str = "WHARF_TEST_VICTIM";

/// What the victim does; returns only if no point was aimed at. Does nothing when run as an ordinary test.
#[test]
fn victim() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let stage = Stage::at(PathBuf::from(folder));
    stage.import("fresh:1", &tar_of(&[("a", "fresh")]));
    stage.import("fresh:2", &gzip(&tar_of(&[("a", "zipped")])));
    let mut archive = Vec::new();
    stage.images.save(&["kept:1".to_owned(), "fresh:1".to_owned()], &[], &mut archive).expect("saved");
    for name in ["fresh:1", "lost:1"] {
        stage.images.remove(name, RemoveOptions::default(), &|_| Vec::new()).expect("removed");
    }
    stage.images.load(&mut archive.as_slice(), None, &mut |_| {}).expect("loaded");
    stage.commit("kept:1", "made:1");
    println!("the victim was not killed");
}

/// The kill points of this crate with how often the victim passes each.
const POINTS: [(&str, u32); 15] = [
    ("unpack.begin", 2),
    ("unpack.after-snapshot", 2),
    ("rmi.before-commit", 2),
    ("rmi.after-layers", 2),
    ("unpack.after-extract", 2),
    ("import.after-blob", 2),
    ("import.after-manifest", 2),
    ("load.after-blobs", 1),
    ("commit.after-extract", 1),
    ("commit.after-blob", 1),
    ("commit.after-manifest", 1),
    ("image.before-commit", 4),
    ("image.after-commit", 4),
    ("rmi.after-commit", 2),
    ("rmi.after-blobs", 2),
];

#[test]
fn every_point_of_this_crate_is_visited() {
    let ours = ["unpack.", "import.", "load.", "image.", "rmi.", "commit."];
    let listed: HashSet<&str> =
        wharf_fault::POINTS.iter().copied().filter(|point| ours.iter().any(|verb| point.starts_with(verb))).collect();
    assert_eq!(listed, POINTS.iter().map(|(point, _)| *point).collect());
}

#[test]
fn a_kill_at_any_point_loses_no_image_and_leaves_no_litter() {
    for (point, times) in POINTS {
        for nth in 1..=times {
            kill_at(&format!("{point}:{nth}"));
        }
    }
}

fn kill_at(point: &str) {
    let stage = Stage::new();
    let kept = stage.import("kept:1", &tar_of(&[("a", "kept")]));
    stage.import("lost:1", &tar_of(&[("a", "lost")]));
    let folder = stage.close();
    let mut victim = Command::new(std::env::current_exe().expect("own path"));
    victim.args(["--exact", "victim", "--nocapture"]).env(FOLDER, folder.path()).env("WHARF_KILL_AT", point);
    let output = victim.stderr(Stdio::piped()).output().expect("victim");
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(killed, "{point}: {output:?}");
    let stage = Stage::reopened(folder);
    let known = stage.images.snapshot_numbers();
    stage.snapshots.reconcile(&known).expect("reconciled");
    assert_eq!(stage.text(&kept, "a").as_deref(), Some("kept"), "{point}");
    let images = stage.images.list(&Filters::default(), More::default()).expect("list");
    let mut blobs = HashSet::new();
    for summary in &images {
        let image = &summary.image;
        assert!(!summary.names.tags.is_empty(), "{point}: an image without a name: {image:?}");
        assert!(stage.seen(image, "a").is_some(), "{point}: {:?} is not whole", summary.names);
        blobs.extend(image.blobs.iter().map(|blob| blob.digest.clone()));
    }
    assert_eq!((stage.blobs(), stage.ingests()), (blobs.len(), 0), "{point}");
    assert_eq!(stage.layers(), known.len(), "{point}");
    // And it goes on: the same work, this time to its end.
    stage.import("fresh:1", &tar_of(&[("a", "fresh")]));
    let archive = {
        let mut out = Vec::new();
        stage.images.save(&["kept:1".to_owned(), "fresh:1".to_owned()], &[], &mut out).expect("saved");
        out
    };
    stage.images.remove("fresh:1", RemoveOptions::default(), &|_| Vec::new()).expect("removed");
    stage.images.load(&mut archive.as_slice(), None, &mut |_| {}).expect("loaded");
}

#[test]
fn layers_that_a_power_cut_may_have_damaged_are_unpacked_anew() {
    let stage = Stage::new();
    let low = tar_of(&[("a", "low"), ("b", "low")]);
    let image = stage.import("x:1", &low);
    let chain = image.chain.clone().expect("layers");
    stage.wait_until_synced(&chain);
    // As the record stands before the background sync, written by another boot; and a file that lost its content.
    stage.forge_unsynced(&chain, "another boot");
    std::fs::write(stage.path(&image, "a"), "").expect("damage");
    std::fs::write(stage.path(&image, "extra"), "").expect("damage");
    let stage = stage.reopen();
    assert_eq!(stage.text(&image, "a").as_deref(), Some("low"));
    assert_eq!(stage.text(&image, "extra"), None);
    stage.wait_until_synced(&chain);
}
