//! Pulling from registries, good ones and bad ones: what is stored is right or nothing, and what was fetched is not fetched again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use testkit::registry::{Answer, Fate, Flaw, Registry, layer, layer_of};
use testkit::{Daemon, DaemonOptions, Outcome, busybox_tar, eventually};

const MIB: usize = 1 << 20;

fn daemon() -> Daemon {
    Daemon::start(DaemonOptions::default())
}

/// A busybox image that runs, with further layers.
fn runnable(registry: &Registry, daemon: &Daemon, repository: &str, tag: &str, sizes: &[usize]) -> String {
    let tar = std::fs::read(busybox_tar(daemon.folder())).expect("made");
    let mut layers = vec![layer_of(&tar)];
    layers.extend(sizes.iter().enumerate().map(|(n, size)| layer(&format!("data{n}"), *size)));
    registry.put_image(repository, tag, "amd64", &layers).manifest
}

/// Blobs below a data root.
fn blobs(daemon: &Daemon) -> Vec<String> {
    let folder = daemon.data_root().join("content/blobs/sha256");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

/// Every stored blob is what its name says.
fn check_blobs(daemon: &Daemon) {
    for name in blobs(daemon) {
        let bytes = std::fs::read(daemon.data_root().join("content/blobs/sha256").join(&name)).expect("readable");
        assert_eq!(testkit::registry::digest_of(&bytes), format!("sha256:{name}"));
    }
}

fn pull(daemon: &Daemon, registry: &Registry, rest: &str) -> Outcome {
    daemon.docker(&["pull", &registry.name(rest)])
}

#[test]
fn a_pulled_image_runs_and_is_told_as_docker_tells_it() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let digest = runnable(&registry, &daemon, "app", "v1", &[1000]);
    let name = registry.name("app:v1");
    let said = pull(&daemon, &registry, "app:v1").ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "v1: Pulling from app");
    assert_eq!(lines.iter().filter(|l| l.ends_with(": Pulling fs layer")).count(), 2, "{said}");
    assert_eq!(lines.iter().filter(|l| l.ends_with(": Download complete")).count(), 2, "{said}");
    assert_eq!(lines.iter().filter(|l| l.ends_with(": Pull complete")).count(), 2, "{said}");
    let end = [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}"), name.clone()];
    assert_eq!(lines[lines.len() - 3..], end);
    assert_eq!(daemon.docker(&["run", "--rm", &name, "busybox", "echo", "hi"]).ok(), "hi");
    assert_eq!(
        daemon.docker(&["image", "inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", &name]).ok(),
        format!("{digest} {}@{digest}", registry.name("app"))
    );
    check_blobs(&daemon);
    registry.forget();
    let again = pull(&daemon, &registry, "app:v1").ok();
    assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    assert!(registry.asked().iter().all(|ask| ask.method == "HEAD"), "what is here is not fetched again");
    let quiet = daemon.docker(&["pull", "-q", &name]).ok();
    assert_eq!(quiet, name);
}

#[test]
fn run_and_create_pull_what_is_missing() {
    let (registry, daemon) = (Registry::plain(), daemon());
    runnable(&registry, &daemon, "app", "latest", &[]);
    let name = registry.name("app");
    daemon.docker(&["run", "--pull", "never", &name, "true"]).fails(125, "No such image");
    let first = daemon.docker(&["run", "--rm", &name, "busybox", "echo", "hi"]);
    assert_eq!(first.ok(), "hi");
    assert!(first.stderr.contains(&format!("Unable to find image '{name}:latest' locally")), "{}", first.stderr);
    let always = daemon.docker(&["run", "--rm", "--pull", "always", &name, "busybox", "echo", "hi"]);
    assert_eq!(always.ok(), "hi");
    assert!(always.stderr.contains("Image is up to date"), "{}", always.stderr);
}

#[test]
fn a_killed_pull_goes_on_where_it_was_by_range() {
    let (registry, mut daemon) = (Registry::plain(), daemon());
    runnable(&registry, &daemon, "app", "v1", &[8 * MIB, 1000]);
    let large = 8 * MIB;
    registry.judge(move |ask| {
        if ask.reads_blob() && ask.header("range").is_none() {
            Fate::Flawed(Flaw::Stall(large / 2))
        } else {
            Fate::Fair
        }
    });
    let session = daemon.session(testkit::Cli::Ours, &["pull", &registry.name("app:v1")]);
    let ingests = daemon.data_root().join("content/ingest");
    let size = || {
        std::fs::read_dir(&ingests)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .max()
    };
    eventually("half of the layer is on disk", || size().filter(|n| *n as usize >= large / 2));
    daemon.kill();
    drop(session.finish());
    registry.be_fair();
    registry.forget();
    daemon.launch();
    pull(&daemon, &registry, "app:v1").ok();
    let ranges: Vec<String> = registry
        .asked()
        .iter()
        .filter(|a| a.reads_blob())
        .filter_map(|a| a.header("range").map(str::to_owned))
        .collect();
    assert!(ranges.contains(&format!("bytes={}-", large / 2)), "{ranges:?}");
    check_blobs(&daemon);
    assert_eq!(
        daemon.docker(&["run", "--rm", &registry.name("app:v1"), "busybox", "wc", "-c", "/data0"]).ok(),
        format!("{large} /data0")
    );
}

#[test]
fn a_cancelled_pull_keeps_what_it_has() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let tar = std::fs::read(busybox_tar(daemon.folder())).expect("made");
    let image = registry.put_image("app", "v1", "amd64", &[layer_of(&tar), layer("slow", MIB)]);
    let slow = image.layers[1].clone();
    registry.judge(move |ask| {
        if ask.reads_blob() && ask.path().ends_with(&slow) { Fate::Flawed(Flaw::Stall(1000)) } else { Fate::Fair }
    });
    let session = daemon.session(testkit::Cli::Ours, &["pull", &registry.name("app:v1")]);
    eventually("all is asked for", || (registry.asked().iter().filter(|a| a.reads_blob()).count() >= 3).then_some(()));
    let ingests = daemon.data_root().join("content/ingest");
    let complete = || {
        std::fs::read_dir(&ingests)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .max()
    };
    eventually("the first layer is here", || complete().filter(|n| *n > 100_000));
    session.signal(rustix::process::Signal::INT);
    session.finish();
    registry.be_fair();
    registry.forget();
    let first = image.layers[0].clone();
    // The end of the first pull is seen by the server when the client has left, which may take a moment.
    pull(&daemon, &registry, "app:v1").ok();
    let fetched = registry.asked().iter().any(|a| a.reads_blob() && a.path().ends_with(&first));
    assert!(!fetched, "a whole layer was fetched again");
    check_blobs(&daemon);
}

#[test]
fn a_connection_that_is_reset_at_each_of_fifty_points_is_gone_on_with() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let image = registry.put_image("app", "v1", "amd64", &[layer("big", 2 * MIB)]);
    let blob = image.layers[0].clone();
    let point = Arc::new(AtomicUsize::new(0));
    let seen = point.clone();
    registry.judge(move |ask| {
        if !ask.reads_blob() || !ask.path().ends_with(&blob) {
            return Fate::Fair;
        }
        match seen.fetch_add(1, Ordering::SeqCst) {
            n if n < 50 && n % 2 == 0 => Fate::Flawed(Flaw::Cut(2 * MIB / 60 + n)),
            n if n < 50 => Fate::Flawed(Flaw::Reset(2 * MIB / 60 + n)),
            _ => Fate::Fair,
        }
    });
    pull(&daemon, &registry, "app:v1").ok();
    assert!(point.load(Ordering::SeqCst) > 50);
    check_blobs(&daemon);
}

#[test]
fn a_registry_that_lies_is_found_out_and_nothing_wrong_is_stored() {
    let (registry, daemon) = (Registry::plain(), daemon());
    for (n, (flaw, message)) in [
        (Flaw::Flip(100_000), "unexpected commit digest"),
        (Flaw::Length(7), "unexpected commit size"),
        (Flaw::Length(-7), "unexpected commit size"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = registry.put_image("app", &format!("v{n}"), "amd64", &[layer(&format!("l{n}"), 200_000)]);
        let blob = image.layers[0].clone();
        registry.judge(
            move |ask| if ask.reads_blob() && ask.path().ends_with(&blob) { Fate::Flawed(flaw) } else { Fate::Fair },
        );
        pull(&daemon, &registry, &format!("app:v{n}")).fails(1, message);
        assert_eq!(blobs(&daemon), Vec::<String>::new(), "{flaw:?}");
        registry.be_fair();
        pull(&daemon, &registry, &format!("app:v{n}")).ok();
        check_blobs(&daemon);
        daemon.docker(&["rmi", &registry.name(&format!("app:v{n}"))]).ok();
    }
    assert_eq!(daemon.docker(&["images", "-q"]).ok(), "");
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let (registry, daemon) = (Registry::plain(), daemon());
    registry.put_image("app", "v1", "amd64", &[layer("a", 1000)]);
    registry.judge(|ask| if ask.reads_manifest() { Fate::Flawed(Flaw::Flip(20)) } else { Fate::Fair });
    pull(&daemon, &registry, "app:v1").fails(1, "unexpected commit digest");
    assert_eq!(blobs(&daemon), Vec::<String>::new());
}

#[test]
fn statuses_are_recovered_from_or_told_in_one_message() {
    let (registry, daemon) = (Registry::plain(), daemon());
    registry.put_image("app", "v1", "amd64", &[layer("a", 100_000)]);
    let name = registry.name("app:v1");
    // Passing ones are forgiven.
    for status in [429, 500, 503] {
        let left = Arc::new(AtomicUsize::new(2));
        registry.judge(move |ask| {
            let again =
                ask.reads_blob() && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if again { Fate::Instead(Answer::status(status)) } else { Fate::Fair }
        });
        daemon.docker(&["pull", &name]).ok();
        check_blobs(&daemon);
        daemon.docker(&["rmi", &name]).ok();
    }
    // Lasting ones are told.
    for (status, message) in [
        (401, "pull access denied, repository does not exist or may require authorization"),
        (403, "403 Forbidden"),
        (404, "not found"),
    ] {
        registry.judge(
            move |ask| if ask.reads_blob() { Fate::Instead(Answer::complaint(status, "X", "no")) } else { Fate::Fair },
        );
        daemon.docker(&["pull", &name]).fails(1, message);
        registry.judge(move |_| Fate::Instead(Answer::complaint(status, "X", "no")));
        daemon.docker(&["pull", &name]).fails(1, &format!("failed to resolve reference \"{name}\": "));
    }
    registry.judge(|_| {
        let answer = Answer::complaint(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.");
        Fate::Instead(answer.with("ratelimit-limit", "100;w=21600").with("ratelimit-remaining", "0;w=21600"))
    });
    let refused = daemon.docker(&["pull", &name]);
    refused.fails(1, "429 Too Many Requests");
    assert!(refused.stderr.contains("limit 100;w=21600, remaining 0;w=21600"), "{}", refused.stderr);
    assert_eq!(blobs(&daemon), Vec::<String>::new());
}

#[test]
fn a_registry_without_ranges_or_that_refuses_them_is_read_from_the_start() {
    let (registry, daemon) = (Registry::plain(), daemon());
    for (n, refuses) in [false, true].into_iter().enumerate() {
        let image = registry.put_image("app", &format!("v{n}"), "amd64", &[layer(&format!("l{n}"), MIB)]);
        let (blob, bytes) =
            (image.layers[0].clone(), registry.content().blobs[&("app".to_owned(), image.layers[0].clone())].clone());
        let cut = AtomicUsize::new(0);
        registry.judge(move |ask| {
            if !ask.reads_blob() || !ask.path().ends_with(&blob) {
                return Fate::Fair;
            }
            match (cut.fetch_add(1, Ordering::SeqCst), ask.header("range")) {
                (0, _) => Fate::Flawed(Flaw::Cut(300_000)),
                (_, Some(_)) if refuses => Fate::Instead(Answer::status(416)),
                _ => Fate::Instead(Answer { status: 200, body: bytes.clone(), ..Answer::default() }),
            }
        });
        pull(&daemon, &registry, &format!("app:v{n}")).ok();
        check_blobs(&daemon);
    }
}

#[test]
fn a_silent_registry_is_given_up_after_the_time_set() {
    let arguments = ["--registry-stall", "1", "--max-download-attempts", "2"].map(str::to_owned).to_vec();
    let daemon = Daemon::start(DaemonOptions { arguments, ..DaemonOptions::default() });
    let registry = Registry::plain();
    registry.put_image("app", "v1", "amd64", &[layer("a", 100_000)]);
    registry.judge(|ask| if ask.reads_blob() { Fate::Flawed(Flaw::Stall(0)) } else { Fate::Fair });
    pull(&daemon, &registry, "app:v1").fails(1, "timeout awaiting response");
    let once = AtomicUsize::new(0);
    registry.judge(move |ask| match ask.reads_blob() && once.fetch_add(1, Ordering::SeqCst) == 0 {
        true => Fate::Flawed(Flaw::Stall(60)),
        false => Fate::Fair,
    });
    pull(&daemon, &registry, "app:v1").ok();
    check_blobs(&daemon);
}

#[test]
fn two_clients_share_a_download() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let image = registry.put_image("app", "v1", "amd64", &[layer("a", MIB)]);
    registry.judge(|ask| if ask.reads_blob() { Fate::Flawed(Flaw::Slow(2 * MIB)) } else { Fate::Fair });
    let name = registry.name("app:v1");
    let sessions: Vec<_> = (0..2).map(|_| daemon.session(testkit::Cli::Ours, &["pull", &name])).collect();
    for session in sessions {
        session.finish().ok();
    }
    let times = registry.asked().iter().filter(|a| a.reads_blob() && a.path().ends_with(&image.layers[0])).count();
    assert_eq!(times, 1);
    check_blobs(&daemon);
}

#[test]
fn a_slow_layer_is_fetched_in_several_ranges_at_a_time() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let image = registry.put_image("app", "v1", "amd64", &[layer("a", 48 * MIB)]);
    let blob = image.layers[0].clone();
    // Each connection alone would take twelve seconds.
    registry.judge(move |ask| {
        if ask.path().ends_with(&blob) && ask.reads_blob() { Fate::Flawed(Flaw::Slow(4 * MIB)) } else { Fate::Fair }
    });
    let begun = std::time::Instant::now();
    pull(&daemon, &registry, "app:v1").ok();
    let ranges = registry.asked().iter().filter(|a| a.header("range").is_some_and(|r| !r.ends_with('-'))).count();
    assert!(ranges >= 8, "{ranges} ranges");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    check_blobs(&daemon);
}

#[test]
fn the_right_platform_of_an_index_comes_alone() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let amd = registry.put_image("app", "", "amd64", &[layer("amd", 1000)]);
    let arm = registry.put_image("app", "", "arm64", &[layer("arm", 1000)]);
    let proof = registry.put_image("app", "", "unknown", &[layer("proof", 1000)]);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let entry = |image: &testkit::registry::Seeded, os: &str, architecture: &str| json!({"mediaType": kind, "digest": image.manifest, "size": image.size, "platform": {"os": os, "architecture": architecture}});
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_kind,
        "manifests": [entry(&arm, "linux", "arm64"), entry(&proof, "unknown", "unknown"), entry(&amd, "linux", "amd64")]});
    let digest = registry.put_manifest("app", "multi", index_kind, &index);
    let name = registry.name("app:multi");
    let inspect = |name: &str| daemon.docker(&["image", "inspect", "-f", "{{.Id}} {{.Architecture}}", name]).ok();
    pull(&daemon, &registry, "app:multi").ok();
    assert_eq!(inspect(&name), format!("{digest} amd64"));
    let asked = registry.asked();
    let touched = |image: &testkit::registry::Seeded| asked.iter().any(|a| a.target.contains(&image.manifest));
    assert!(touched(&amd) && !touched(&arm) && !touched(&proof));
    daemon.docker(&["rmi", &name]).ok();
    daemon.docker(&["pull", "--platform", "linux/arm64", &name]).ok();
    assert_eq!(inspect(&name), format!("{digest} arm64"));
    daemon
        .docker(&["pull", "--platform", "linux/s390x", &name])
        .fails(1, "no matching manifest for linux/s390x in the manifest list entries");
    let by_digest = registry.name(&format!("app@{}", amd.manifest));
    daemon.docker(&["pull", &by_digest]).ok();
    assert_eq!(inspect(&by_digest), format!("{} amd64", amd.manifest));
    let single = registry.name(&format!("app@{}", arm.manifest));
    daemon.docker(&["pull", &single]).fails(1, "no matching manifest for linux/amd64");
}

#[test]
fn a_second_platform_of_an_index_leaves_the_first_to_its_containers() {
    let (registry, mut daemon) = (Registry::plain(), daemon());
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let entries: Vec<_> = ["amd64", "arm64"]
        .map(|architecture| {
            let image = registry.put_image("app", "", architecture, &[layer(&format!("of-{architecture}"), 1000)]);
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest, "size": image.size,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .into();
    registry.put_manifest(
        "app",
        "multi",
        index_kind,
        &json!({"schemaVersion": 2, "mediaType": index_kind, "manifests": entries}),
    );
    let name = registry.name("app:multi");
    daemon.docker(&["create", "--name", "kept", &name, "true"]).ok();
    daemon.docker(&["pull", "--platform", "linux/arm64", &name]).ok();
    daemon.docker(&["create", "--name", "other", "--platform", "linux/arm64", &name, "true"]).ok();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker(&["image", "inspect", "-f", "{{.Architecture}}", &name]).ok().trim(), "amd64");
    daemon.docker(&["cp", "kept:/of-amd64", "-"]).ok();
    daemon.docker(&["cp", "other:/of-arm64", "-"]).ok();
    daemon.docker(&["create", "--name", "again", &name, "true"]).ok();
    daemon.docker(&["cp", "again:/of-amd64", "-"]).ok();
    daemon.docker(&["cp", "again:/of-arm64", "-"]).fails(1, "Could not find the file /of-arm64 in container again");
}

#[test]
fn all_tags_of_a_repository_come_page_by_page() {
    let (registry, daemon) = (Registry::plain(), daemon());
    for tag in ["a", "b", "c", "d", "e"] {
        registry.put_image("many", tag, "amd64", &[layer(tag, 1000)]);
    }
    daemon.docker(&["pull", "--all-tags", &registry.name("many:a")]).fails(1, "tag can't be used with --all-tags/-a");
    daemon.docker(&["pull", "-a", "-q", &registry.name("many")]).ok();
    let listed = daemon.docker(&["images", "--format", "{{.Tag}}", &registry.name("many")]).ok();
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_layer_that_unpacks_to_something_else_than_its_configuration_says_is_refused() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let mut wrong = layer("a", 1000);
    wrong.diff_id = testkit::registry::digest_of(b"something else");
    registry.put_image("app", "v1", "amd64", &[wrong]);
    pull(&daemon, &registry, "app:v1").fails(1, "wrong diff id calculated on extraction");
    assert_eq!(blobs(&daemon), Vec::<String>::new());
    assert_eq!(daemon.docker(&["images", "-q"]).ok(), "");
}

#[test]
fn kill_9_at_every_point_of_a_pull_leaves_a_store_that_the_next_pull_completes() {
    let points: Vec<&str> = wharf_fault::POINTS
        .iter()
        .copied()
        .filter(|p| p.starts_with("pull.") || *p == "unpack.after-extract" || p.starts_with("image."))
        .collect();
    assert!(points.len() >= 10);
    let registry = Registry::plain();
    let mut daemon = daemon();
    let lost = Mutex::new(0);
    for (n, point) in points.iter().enumerate() {
        let tag = format!("v{n}");
        registry.put_image("app", &tag, "amd64", &[layer(&format!("x{n}"), 300_000), layer(&format!("y{n}"), 5000)]);
        daemon.stop();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), (*point).to_owned())];
        daemon.launch();
        let cut = pull(&daemon, &registry, &format!("app:{tag}"));
        daemon.wait_for_end();
        *lost.lock().expect("alone") += usize::from(cut.code != 0);
        daemon.options().environment.clear();
        daemon.launch();
        check_blobs(&daemon);
        pull(&daemon, &registry, &format!("app:{tag}")).ok();
        // Every image that was acknowledged before is still here.
        let listed = daemon.docker(&["images", "-q", &registry.name("app")]).ok();
        assert_eq!(listed.lines().count(), n + 1, "{point}");
        check_blobs(&daemon);
    }
    assert!(*lost.lock().expect("alone") >= points.len() - 2, "the points were reached");
    for n in 0..points.len() {
        daemon.docker(&["rmi", &registry.name(&format!("app:v{n}"))]).ok();
    }
    assert_eq!(blobs(&daemon), Vec::<String>::new(), "no orphan stays");
    let numbered = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    let layers = || {
        let read = std::fs::read_dir(daemon.data_root().join("overlay")).into_iter().flatten().flatten();
        read.filter(|e| numbered(&e.file_name().to_string_lossy())).count()
    };
    eventually("no layer stays", || (layers() == 0).then_some(()));
}

#[test]
fn a_daemon_that_is_told_to_end_does_not_wait_for_a_pull() {
    let (registry, mut daemon) = (Registry::plain(), daemon());
    registry.put_image("app", "v1", "amd64", &[layer("slow", MIB), layer("done", MIB)]);
    registry.judge(|ask| if ask.reads_blob() { Fate::Flawed(Flaw::Stall(100_000)) } else { Fate::Fair });
    let session = daemon.session(testkit::Cli::Ours, &["pull", &registry.name("app:v1")]);
    eventually("both are asked for", || {
        (registry.asked().iter().filter(|a| a.reads_blob()).count() >= 2).then_some(())
    });
    let begun = std::time::Instant::now();
    daemon.stop();
    // Requests at work get five seconds.
    assert!(begun.elapsed() < std::time::Duration::from_secs(12), "{:?}", begun.elapsed());
    session.finish();
    registry.be_fair();
    daemon.launch();
    pull(&daemon, &registry, "app:v1").ok();
    check_blobs(&daemon);
}

#[test]
fn layers_are_unpacked_while_others_still_come() {
    let (registry, daemon) = (Registry::plain(), daemon());
    let image = registry.put_image("app", "v1", "amd64", &[layer("low", MIB), layer("high", 2 * MIB)]);
    let low = image.layers[0].clone();
    registry.judge(move |ask| {
        if ask.reads_blob() && ask.path().ends_with(&low) { Fate::Flawed(Flaw::Stall(MIB / 2)) } else { Fate::Fair }
    });
    let session = daemon.session(testkit::Cli::Ours, &["pull", &registry.name("app:v1")]);
    let overlay = daemon.data_root().join("overlay");
    let unpacked = || {
        let layers = std::fs::read_dir(&overlay).into_iter().flatten().flatten();
        layers.map(|l| l.path().join("fs/high")).find(|f| f.metadata().is_ok_and(|m| m.len() as usize == 2 * MIB))
    };
    eventually("the upper layer is unpacked before the lower one has come", unpacked);
    registry.be_fair();
    session.signal(rustix::process::Signal::INT);
    session.finish();
    pull(&daemon, &registry, "app:v1").ok();
    check_blobs(&daemon);
}
