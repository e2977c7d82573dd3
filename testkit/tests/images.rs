//! Images from the outside: indexes with several platforms, lists, trees, sizes, archives that come back the same.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::{Cli, Daemon};

fn each_client(test: impl Fn(&Daemon, Cli)) {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        test(&daemon, cli);
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut sum = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum");
    sum.stdin.take().expect("stdin").write_all(bytes).expect("written");
    let out = sum.wait_with_output().expect("sha256sum");
    String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned()
}

fn tar_of(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).expect("append");
    }
    archive.into_inner().expect("archive")
}

/// An OCI layout with one index of two platforms and an attestation, as BuildKit writes it. The program is the same.
fn layout(folder: &Path, busybox: &[u8]) -> String {
    let mut files = BTreeMap::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let mut put = |bytes: Vec<u8>, kind: &str| -> serde_json::Value {
        let digest = sha256(&bytes);
        let described =
            serde_json::json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        files.insert(format!("blobs/sha256/{digest}"), bytes);
        described
    };
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let content = BTreeMap::from([
            ("bin/busybox".to_owned(), busybox.to_vec()),
            ("platform".to_owned(), architecture.as_bytes().to_vec()),
        ]);
        let mut layer = tar::Builder::new(Vec::new());
        for (name, bytes) in &content {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            layer.append_data(&mut header, name, bytes.as_slice()).expect("append");
        }
        let layer = layer.into_inner().expect("layer");
        let diff_id = format!("sha256:{}", sha256(&layer));
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": {"Entrypoint": ["/bin/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": format!("COPY for {architecture}"), "created": "2024-05-06T07:08:09Z"}],
        });
        let config = put(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let layer = put(layer, "application/vnd.oci.image.layer.v1.tar");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        let mut manifest = put(manifest.to_string().into_bytes(), kind);
        manifest["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        manifests.push(manifest);
    }
    let config = serde_json::json!({
        "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []},
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let config = put(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []});
    let mut attestation = put(manifest.to_string().into_bytes(), kind);
    attestation["platform"] = serde_json::json!({"architecture": "unknown", "os": "unknown"});
    attestation["annotations"] = serde_json::json!({
        "vnd.docker.reference.digest": manifests[0]["digest"], "vnd.docker.reference.type": "attestation-manifest",
    });
    manifests.push(attestation);
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    let mut index = put(index.to_string().into_bytes(), kind);
    index["annotations"] = serde_json::json!({"io.containerd.image.name": "docker.io/library/multi:1"});
    let top = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": [index]});
    files.insert("index.json".to_owned(), top.to_string().into_bytes());
    let path = folder.join("multi.tar");
    std::fs::write(&path, tar_of(&files)).expect("written");
    path.to_str().expect("a plain name").to_owned()
}

fn busybox() -> Vec<u8> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok()).expect("busybox-static")
}

/// Values are those of dockerd 28.5 with the containerd image store, told of a like image.
#[test]
fn an_index_is_listed_inspected_run_and_saved_by_platform() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        let file = layout(daemon.folder(), &busybox());
        assert_eq!(run(&["load", "-i", &file]).ok(), "Loaded image: multi:1");
        let shown: serde_json::Value = serde_json::from_str(&run(&["image", "inspect", "multi:1"]).ok()).expect("JSON");
        let index = shown[0]["Descriptor"].clone();
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        assert_eq!((&shown[0]["Id"], &shown[0]["Architecture"]), (&index["digest"], &"amd64".into()));
        let rows =
            daemon.rest().call("GET", "/v1.51/images/json?manifests=1&shared-size=1", b"").expect("answer").json();
        let row = rows.as_array().and_then(|rows| rows.iter().find(|r| r["Id"] == index["digest"])).expect("listed");
        let manifests = row["Manifests"].as_array().expect("manifests");
        let kinds: Vec<_> =
            manifests.iter().map(|m| (m["Kind"].as_str().unwrap_or(""), m["Available"] == true)).collect();
        assert_eq!(kinds, [("image", true), ("image", true), ("attestation", true)]);
        let total: i64 = manifests.iter().filter_map(|m| m["Size"]["Total"].as_i64()).sum();
        assert_eq!(row["Size"].as_i64(), Some(total));
        let content = manifests[0]["Size"]["Content"].as_i64().expect("a size");
        assert_eq!(shown[0]["Size"].as_i64(), Some(content + index["size"].as_i64().expect("a size")));
        assert_eq!(manifests[2]["AttestationData"]["For"], manifests[0]["ID"]);
        // The other platform.
        let arm = ["image", "inspect", "--platform", "linux/arm64", "-f", "{{.Architecture}} {{.Id}}", "multi:1"];
        assert_eq!(run(&arm).ok(), format!("arm64 {}", manifests[1]["ID"].as_str().expect("an id")));
        let history = ["history", "--platform", "linux/arm64", "--format", "{{.CreatedBy}}", "multi:1"];
        assert_eq!(run(&history).ok(), "COPY for arm64");
        assert_eq!(run(&["run", "--rm", "multi:1", "cat", "/platform"]).ok(), "amd64");
        assert_eq!(run(&["run", "--rm", "--platform", "linux/arm64", "multi:1", "cat", "/platform"]).ok(), "arm64");
        run(&["image", "inspect", "--platform", "linux/s390x", "multi:1"]).fails(
            1,
            "image with reference multi:1 was found but does not provide the specified platform (linux/s390x)",
        );
        let one = run(&["save", "--platform", "linux/arm64", "multi:1"]);
        one.ok();
        let names = entries(&one.stdout);
        assert_eq!(names.iter().filter(|name| name.len() > 60).count(), 3, "manifest, configuration, layer: {names:?}");
        let nowhere = daemon.folder().join("nowhere.tar");
        let nowhere = nowhere.to_str().expect("a plain name");
        run(&["save", "--platform", "linux/s390x", "-o", nowhere, "multi:1"])
            .fails(1, "no suitable export target found");
        // Saved, loaded and saved again it is the same archive.
        let first = run(&["save", "multi:1", "busybox"]);
        first.ok();
        run(&["rmi", "multi:1"]).ok();
        let path = daemon.folder().join("again.tar");
        std::fs::write(&path, &first.stdout).expect("written");
        run(&["load", "-q", "-i", path.to_str().expect("a plain name")]).ok();
        let second = run(&["save", "multi:1", "busybox"]);
        assert!(first.stdout == second.stdout, "{} and {} bytes", first.stdout.len(), second.stdout.len());
        run(&["rmi", "multi:1"]).ok();
    });
}

fn entries(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("an archive");
    entries.map(|entry| entry.expect("an entry").path().expect("path").display().to_string()).collect()
}

#[test]
fn the_tree_and_the_disk_usage_tell_what_images_share() {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let run = |args: &[&str]| daemon.run(cli, args);
        run(&["create", "--name", "u1", "busybox", "true"]).ok();
        run(&["create", "--name", "u2", "busybox", "sleep", "7"]).ok();
        run(&["commit", "u2", "upon:1"]).ok();
        let tree = run(&["image", "ls", "--tree"]).ok();
        let line = tree.lines().find(|line| line.starts_with("busybox:latest")).expect("a line");
        assert!(line.trim_end().ends_with('U'), "{tree:?}");
        assert!(tree.contains("└─ linux/amd64") && tree.contains("CONTENT SIZE"), "{tree:?}");
        run(&["image", "ls", "--tree", "-q"]).fails(1, "--quiet is not yet supported with --tree");
        let usage = run(&["system", "df", "-v"]).ok();
        let row = |name: &str| -> Vec<String> {
            let line = usage.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        let (base, upon) = (row("busybox "), row("upon "));
        // Repository, tag, id, created (several words), size, shared, unique, containers.
        let shared = |row: &[String]| row[row.len() - 3].clone();
        assert_eq!(shared(&base), shared(&upon), "{usage}");
        assert_ne!(shared(&base), "0B", "{usage}");
        run(&["rm", "u1", "u2"]).ok();
        run(&["rmi", "upon:1"]).ok();
    }
}

/// A server of one file; it ends with the test.
fn serve(status: &'static str, body: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let head = match first.contains("/moved") {
                true => "HTTP/1.1 302 Found\r\nLocation: /file.tar\r\nContent-Length: 0\r\n\r\n".to_owned(),
                false => format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()),
            };
            let moved = first.contains("/moved");
            // A client that goes away is no concern of ours.
            let _ = stream.write_all(head.as_bytes());
            if !moved {
                let _ = stream.write_all(&body);
            }
        }
    });
    address.to_string()
}

/// Texts are those of dockerd 28.5.
#[test]
fn an_import_takes_a_url_follows_redirects_and_tells_where_it_came_from() {
    let daemon = Daemon::start(testkit::DaemonOptions::default());
    let tar = testkit::registry::tar_of(&[("from-afar", b"text")]);
    let address = serve("200 OK", tar);
    for cli in Cli::all() {
        let run = |args: &[&str]| daemon.run(cli, args);
        let said = run(&["import", &format!("http://{address}/moved"), "far:1"]).ok();
        assert!(said.contains(&format!("Downloading from http://{address}/moved")), "{said}");
        assert!(said.lines().last().is_some_and(|line| line.starts_with("sha256:")), "{said}");
        let comment = run(&["history", "--format", "{{.Comment}}", "far:1"]).ok();
        assert_eq!(comment, format!("Imported from http://{address}/moved"));
        let id = run(&["create", "far:1", "x"]).ok();
        run(&["cp", &format!("{id}:/from-afar"), "-"]).ok();
        run(&["rm", &id]).ok();
        run(&["rmi", "far:1"]).ok();
    }
    // Without a scheme it is HTTP.
    let bare = format!("/images/create?fromSrc={address}/file.tar&repo=bare");
    let said = daemon.rest().call("POST", &bare, b"").expect("answer");
    assert_eq!(said.status, 200);
    daemon.docker(&["rmi", "bare"]).ok();
    let refusing = serve("404 Not Found", b"no such file".to_vec());
    let refused = format!("failed to GET http://{refusing}/x with status 404 Not Found: no such file");
    daemon.docker(&["import", &format!("http://{refusing}/x"), "no:1"]).fails(1, &refused);
    daemon
        .docker(&["import", "http://127.0.0.1:1/x.tar", "no:1"])
        .fails(1, "Get \"http://127.0.0.1:1/x.tar\": dial tcp 127.0.0.1:1: connect: connection refused");
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
}

#[test]
fn removing_an_image_removes_the_nameless_ones_it_was_made_from_unless_told_not_to() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        let count = || run(&["images", "-aq", "--no-trunc"]).ok().lines().count();
        for keep in [false, true] {
            run(&["create", "--name", "pa", "busybox", "true"]).ok();
            run(&["commit", "pa", "step:1"]).ok();
            run(&["create", "--name", "pb", "step:1", "true"]).ok();
            run(&["commit", "pb", "step:2"]).ok();
            run(&["rm", "pa", "pb"]).ok();
            let parent = run(&["image", "inspect", "-f", "{{.Id}}", "step:1"]).ok();
            // Another image takes the name: the parent has none now.
            run(&["tag", "step:2", "step:1"]).ok();
            assert_eq!(count(), 4, "busybox, step:1, step:2 and the one without a name");
            run(&["rmi", "step:1"]).ok();
            let remove: &[&str] = if keep { &["rmi", "--no-prune", "step:2"] } else { &["rmi", "step:2"] };
            let said = run(remove).ok();
            assert_eq!(said.contains(&format!("Deleted: {parent}")), !keep, "{said}");
            assert_eq!(run(&["image", "inspect", &parent]).code == 0, keep);
            run(&["image", "prune", "-f"]).ok();
            assert_eq!(count(), 1, "busybox, which has a name and is a parent, stays");
        }
    });
}

#[test]
fn images_are_pruned_by_label_age_and_whether_they_have_a_name() {
    each_client(|daemon, cli| {
        let run = |args: &[&str]| daemon.run(cli, args);
        let tar = daemon.folder().join("p.tar");
        std::fs::write(&tar, testkit::registry::tar_of(&[("p", b"x")])).expect("written");
        let tar = tar.to_str().expect("a plain name");
        for (name, label) in [("la:1", "LABEL keep=yes"), ("lb:1", "LABEL keep=no"), ("lc:1", "LABEL other=1")] {
            run(&["import", "-c", label, tar, name]).ok();
        }
        run(&["import", "-c", "LABEL keep=no", tar]).ok();
        run(&["create", "--name", "user", "busybox", "true"]).ok();
        let left = || {
            let listed = run(&["images", "--format", "{{.Repository}}"]).ok();
            let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        let all = "<none> busybox la lb lc";
        assert_eq!(left(), all);
        // Nothing is that old, whatever the image says of itself.
        run(&["image", "prune", "-a", "-f", "--filter", "until=1h"]).ok();
        run(&["image", "prune", "-a", "-f", "--filter", "until=2006-01-02T15:04:05Z"]).ok();
        assert_eq!(left(), all);
        run(&["image", "prune", "-f", "--filter", "until=nonsense"]).fails(1, "nonsense");
        run(&["image", "prune", "-f", "--filter", "label=keep=yes"]).ok();
        assert_eq!(left(), all, "only what has no name");
        let said = run(&["image", "prune", "-f", "--filter", "label=keep"]).ok();
        assert!(said.contains("deleted: sha256:") && said.contains("Total reclaimed space: "), "{said}");
        assert_eq!(left(), "busybox la lb lc");
        run(&["image", "prune", "-a", "-f", "--filter", "label!=keep"]).ok();
        assert_eq!(left(), "busybox la lb");
        run(&["image", "prune", "-a", "-f", "--filter", "label=keep=no", "--filter", "until=4102444800"]).ok();
        assert_eq!(left(), "busybox la");
        run(&["image", "prune", "-a", "-f"]).ok();
        assert_eq!(left(), "busybox", "an image that is used stays");
        run(&["rm", "user"]).ok();
    });
}

#[test]
fn disk_usage_in_full_takes_a_format() {
    let daemon = Daemon::with_image();
    daemon.docker(&["create", "--name", "dc", "busybox", "true"]).ok();
    daemon.docker(&["volume", "create", "dv"]).ok();
    let mut said = Vec::new();
    for cli in Cli::all() {
        let run = |format: &str| daemon.run(cli, &["system", "df", "-v", "--format", format]).ok();
        let whole: serde_json::Value = serde_json::from_str(&run("json")).expect("JSON");
        assert_eq!(whole["Images"][0]["Repository"], "busybox");
        assert_eq!(whole["Containers"][0]["Names"], "dc");
        assert_eq!(whole["Volumes"][0]["Name"], "dv");
        let text = "{{range .Images}}{{.Repository}}:{{.Tag}} {{.ID}} {{.Containers}} {{.SharedSize}};{{end}}\
            {{range .Containers}}{{.Names}} {{.Image}} {{.Size}};{{end}}{{range .Volumes}}{{.Name}} {{.Links}};{{end}}\
            {{range .BuildCache}}{{.ID}}{{end}}";
        said.push((run(text), run("table"), daemon.run(cli, &["system", "df", "-v"]).ok()));
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:#?}");
    daemon.docker(&["rm", "dc"]).ok();
    daemon.docker(&["volume", "rm", "dv"]).ok();
}

/// Texts are those of dockerd 28.5 on a file system without project quotas.
#[test]
fn a_bound_on_a_containers_layer_is_refused_where_it_cannot_be_kept() {
    let daemon = Daemon::with_image();
    daemon
        .docker(&["create", "--storage-opt", "size=1G", "busybox", "true"])
        .fails(1, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
    daemon.docker(&["create", "--storage-opt", "foo=1G", "busybox", "true"]).fails(1, "Unknown option foo");
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}
