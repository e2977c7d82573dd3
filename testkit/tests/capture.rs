//! `commit` and `export`: containers as images and as archives, and a daemon killed meanwhile.

use std::collections::BTreeMap;

use testkit::{Cli, Daemon, Outcome, Residue, eventually};

fn each_client(test: impl Fn(&Daemon, Cli)) {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        test(&daemon, cli);
    }
}

/// The entries of a tar archive with their kind and size.
fn entries(done: &Outcome) -> BTreeMap<String, (u8, u64)> {
    done.ok();
    let mut archive = tar::Archive::new(&*done.stdout);
    let entries = archive.entries().expect("an archive");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let kind = entry.header().entry_type().as_byte();
            (entry.path().expect("path").display().to_string(), (kind, entry.header().size().expect("size")))
        })
        .collect()
}

#[test]
fn a_commit_has_the_changes_the_configuration_and_the_history_that_docker_gives_it() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        let script = "echo one > /one; rm -r /home; mkdir -p /var/lib/x; chmod 700 /root; ln /one /two";
        run(&["run", "--name", "c1", "-e", "A=b", "-w", "/tmp", "busybox", "sh", "-c", script]).ok();
        let changes = ["ENV X=$A/z", "LABEL l=${A:-q}${N:-q}", "EXPOSE 80", "CMD [\"cat\", \"/one\"]"];
        let mut line = vec!["commit", "-a", "me", "-m", "the message"];
        changes.iter().for_each(|change| line.extend(["-c", change]));
        line.extend(["c1", "made:1"]);
        let id = run(&line).ok();
        let shown = run(&["image", "inspect", "-f", "{{json .}}", "made:1"]).ok();
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let base = run(&["image", "inspect", "-f", "{{.Id}}", "busybox"]).ok();
        assert_eq!((shown["Id"].as_str(), shown["Parent"].as_str()), (Some(id.as_str()), Some(base.as_str())));
        assert_eq!((shown["Author"].as_str(), shown["Comment"].as_str()), (Some("me"), Some("the message")));
        let config = &shown["Config"];
        assert_eq!(config["Env"], serde_json::json!(["A=b", "X=b/z"]));
        assert_eq!(config["Labels"]["l"], "bq");
        assert_eq!(config["WorkingDir"], "/tmp");
        assert_eq!(shown["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
        assert_eq!(run(&["run", "--rm", "made:1"]).ok(), "one");
        let check = "ls -d /home; stat -c '%a %h' /root /one; ls /etc";
        let seen = run(&["run", "--rm", "made:1", "sh", "-c", check]);
        assert!(seen.text().starts_with("700 "), "{seen:?}");
        assert!(seen.text().contains("644 2\n"), "hard links stay: {seen:?}");
        let steps = run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:1"]).ok();
        assert_eq!(steps, format!("sh -c {script}|the message\n|Imported from -"));
        // The places for the engine's own mounts are no changes.
        let names = names_of_top_layer(daemon, cli, "made:1");
        assert_eq!(names, [".wh.home", "one", "root/", "two", "var/", "var/lib/", "var/lib/x/"]);
        run(&["rm", "c1"]).ok();
        run(&["rmi", "made:1"]).ok();
    });
}

/// The names in an image's top layer, sorted.
fn names_of_top_layer(daemon: &Daemon, cli: Cli, image: &str) -> Vec<String> {
    let saved = daemon.run(cli, &["save", image]);
    saved.ok();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&*saved.stdout).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("read");
        files.insert(entry.path().expect("path").display().to_string(), bytes);
    }
    let items: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let top = items[0]["Layers"].as_array().and_then(|l| l.last()?.as_str()).expect("layers").to_owned();
    let plain = flate2::read::GzDecoder::new(&*files[&top]);
    let mut names: Vec<String> = tar::Archive::new(plain)
        .entries()
        .expect("a layer")
        .map(|entry| entry.expect("an entry").path().expect("path").display().to_string())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_commit_without_changes_adds_no_layer_and_what_docker_refuses_is_refused() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        run(&["create", "--name", "c2", "busybox", "sleep", "1"]).ok();
        run(&["commit", "c2", "same:1"]).ok();
        let layers = |image: &str| run(&["image", "inspect", "-f", "{{.RootFS.Layers}}", image]).ok();
        assert_eq!(layers("same:1"), layers("busybox"));
        assert_eq!(
            run(&["history", "--format", "{{.CreatedBy}} {{.Size}}", "same:1"]).ok().lines().next(),
            Some("sleep 1 0B")
        );
        run(&["commit", "-c", "RUN x", "c2"]).fails(1, "RUN is not a valid change command");
        run(&["commit", "-c", "ENV", "c2"]).fails(1, "ENV requires at least one argument");
        run(&["commit", "nosuch"]).fails(1, "No such container: nosuch");
        run(&["commit", "c2", "Foo"]).fails(1, "must be lowercase");
        let unnamed = run(&["commit", "c2"]).ok();
        assert_eq!(run(&["image", "inspect", "-f", "{{.RepoTags}}", &unnamed]).ok(), "[]");
        run(&["rm", "c2"]).ok();
        run(&["rmi", "same:1", &unnamed]).ok();
    });
}

#[test]
fn a_running_container_is_paused_for_its_commit_unless_told_not_to() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        run(&["run", "-d", "--name", "c3", "busybox", "sleep", "1000"]).ok();
        let since = run(&["info", "-f", "{{.SystemTime}}"]).ok();
        run(&["commit", "c3", "paused:1"]).ok();
        run(&["commit", "--pause=false", "c3", "paused:2"]).ok();
        let until = run(&["info", "-f", "{{.SystemTime}}"]).ok();
        let line =
            ["events", "--since", &since, "--until", &until, "--filter", "container=c3", "--format", "{{.Action}}"];
        assert_eq!(run(&line).ok(), "pause\nunpause\ncommit\ncommit");
        assert_eq!(run(&["exec", "c3", "echo", "alive"]).ok(), "alive");
        run(&["rm", "-f", "c3"]).ok();
        run(&["rmi", "paused:1", "paused:2"]).ok();
    });
}

#[test]
fn an_export_is_the_whole_tree_without_what_is_mounted_in_it() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        let script = "echo text > /made; rm /etc/group; echo hidden > /data/in-the-volume; sleep 1000";
        run(&["run", "-d", "--name", "c4", "-v", "/data", "busybox", "sh", "-c", script]).ok();
        eventually("it has written", || (run(&["exec", "c4", "cat", "/data/in-the-volume"]).code == 0).then_some(()));
        let running = entries(&run(&["export", "c4"]));
        assert_eq!(running.get("made"), Some(&(b'0', 5)));
        assert_eq!(running.get("bin/sh"), Some(&(b'2', 0)));
        assert!(running.contains_key("data/") && !running.contains_key("data/in-the-volume"));
        assert!(!running.contains_key("etc/group") && running.contains_key("etc/passwd"));
        assert!(!running.keys().any(|name| name.starts_with("proc/") && name != "proc/"));
        run(&["kill", "c4"]).ok();
        run(&["wait", "c4"]).ok();
        assert_eq!(entries(&run(&["export", "c4"])), running, "a stopped one is the same");
        let file = daemon.folder().join("export.tar");
        let path = file.to_str().expect("a plain name");
        run(&["export", "-o", path, "c4"]).ok();
        run(&["import", path, "again:1"]).ok();
        assert_eq!(run(&["run", "--rm", "again:1", "cat", "/made"]).ok(), "text");
        run(&["export", "-o", path, "nosuch"]).fails(1, "No such container: nosuch");
        run(&["rm", "-v", "c4"]).ok();
        run(&["rmi", "again:1"]).ok();
    });
}

#[test]
fn killed_at_any_point_of_a_commit_the_container_goes_on_and_nothing_is_left_over() {
    let mut daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "c5", "busybox", "sh", "-c", "echo x > /x; sleep 1000"]).ok();
    let blobs =
        |daemon: &Daemon| std::fs::read_dir(daemon.data_root().join("content/blobs/sha256")).map_or(0, Iterator::count);
    let before = blobs(&daemon);
    let points = [
        "capture.before-pause",
        "capture.after-pause",
        "commit.after-extract",
        "commit.after-blob",
        "commit.after-manifest",
        "image.before-commit",
        "image.after-commit",
    ];
    for point in points {
        daemon.kill();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), point.to_owned())];
        daemon.launch();
        let cut = daemon.docker(&["commit", "c5", "cut:1"]);
        assert_ne!(cut.code, 0, "{point}");
        daemon.wait_for_end();
        daemon.options().environment.clear();
        daemon.launch();
        assert_eq!(daemon.docker(&["exec", "c5", "cat", "/x"]).ok(), "x", "{point}: it runs");
        let there = daemon.docker(&["images", "-q", "cut"]).ok();
        assert_eq!(!there.is_empty(), point == "image.after-commit", "{point}");
        if there.is_empty() {
            assert_eq!(blobs(&daemon), before, "{point}: blobs are left over");
        }
    }
    assert_eq!(daemon.docker(&["run", "--rm", "cut:1", "cat", "/x"]).ok(), "x");
    daemon.docker(&["rm", "-f", "c5"]).ok();
    eventually("nothing is left", || Residue::of_containers(&daemon).is_empty().then_some(()));
}
