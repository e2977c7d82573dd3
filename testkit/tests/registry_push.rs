//! Pushing: only what is missing, with the bytes as they are; and Debian's registry as a peer.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::registry::{Answer, Fate, Flaw, Login, Registry, RegistryOptions, layer};
use testkit::{Cli, Daemon, DaemonOptions, eventually};

const MIB: usize = 1 << 20;

/// A daemon with an image that was pulled as `app:v1`, and the registry that it came from.
fn pulled() -> (Registry, Daemon, testkit::registry::Seeded) {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    let image = registry.put_image("app", "v1", "amd64", &[layer("a", 300_000), layer("b", 5000)]);
    daemon.docker(&["pull", &registry.name("app:v1")]).ok();
    (registry, daemon, image)
}

#[test]
fn an_image_goes_with_its_own_bytes_and_only_what_is_missing() {
    let (from, daemon, image) = pulled();
    let to = Registry::plain();
    let name = to.name("team/app:v2");
    daemon.docker(&["tag", &from.name("app:v1"), &name]).ok();
    let said = daemon.docker(&["push", &name]).ok();
    assert!(said.starts_with(&format!("The push refers to repository [{}]", to.name("team/app"))), "{said}");
    assert_eq!(said.lines().filter(|l| l.ends_with(": Pushed")).count(), 2, "{said}");
    assert!(said.ends_with(&format!("v2: digest: {} size: {}", image.manifest, image.size)), "{said}");
    let key = |digest: &str| ("team/app".to_owned(), digest.to_owned());
    for digest in image.layers.iter().chain([&image.config]) {
        assert_eq!(to.content().blobs[&key(digest)], from.content().blobs[&("app".to_owned(), digest.clone())]);
    }
    assert_eq!(to.content().manifests[&key("v2")], from.content().manifests[&("app".to_owned(), "v1".to_owned())]);
    to.forget();
    let again = daemon.docker(&["push", &name]).ok();
    assert_eq!(again.lines().filter(|l| l.ends_with(": Layer already exists")).count(), 2, "{again}");
    let asked = to.asked();
    assert!(!asked.iter().any(|a| matches!(a.method.as_str(), "POST" | "PATCH")), "nothing is uploaded again");
    // One layer is lost there: it alone goes.
    to.content().blobs.remove(&key(&image.layers[0]));
    to.forget();
    daemon.docker(&["push", "-q", &name]).ok();
    assert_eq!(to.asked().iter().filter(|a| a.method == "POST").count(), 1);
}

#[test]
fn layers_are_mounted_from_other_repositories_of_the_same_registry() {
    let (registry, daemon, image) = pulled();
    let name = registry.name("copy:v1");
    daemon.docker(&["tag", &registry.name("app:v1"), &name]).ok();
    registry.forget();
    let said = daemon.docker(&["push", &name]).ok();
    assert_eq!(said.lines().filter(|l| l.ends_with(": Mounted from app")).count(), 2, "{said}");
    let asked = registry.asked();
    assert!(asked.iter().all(|a| a.body.is_empty() || a.target.contains("/manifests/")), "no bytes were sent");
    assert!(registry.content().blobs.contains_key(&("copy".to_owned(), image.layers[0].clone())));
}

#[test]
fn an_upload_that_breaks_begins_again() {
    let (from, daemon, image) = pulled();
    let to = Registry::plain();
    let name = to.name("app:v1");
    daemon.docker(&["tag", &from.name("app:v1"), &name]).ok();
    let count = AtomicUsize::new(0);
    to.judge(move |ask| match (ask.method.as_str(), ask.target.contains("/blobs/uploads/")) {
        ("PUT", true) if count.fetch_add(1, Ordering::SeqCst) < 3 => Fate::Instead(Answer::status(500)),
        ("POST", true) if count.fetch_add(1, Ordering::SeqCst) < 5 => Fate::Flawed(Flaw::Reset(0)),
        _ => Fate::Fair,
    });
    daemon.docker(&["push", &name]).ok();
    assert!(to.content().manifests.contains_key(&("app".to_owned(), image.manifest.clone())));
}

#[test]
fn what_a_registry_refuses_is_told_once() {
    let (from, daemon, _) = pulled();
    let to = Registry::plain();
    let name = to.name("app:v1");
    daemon.docker(&["push", &name]).fails(1, &format!("tag does not exist: {name}"));
    daemon.docker(&["tag", &from.name("app:v1"), &name]).ok();
    to.judge(|ask| match ask.method.as_str() {
        "POST" => Fate::Instead(Answer::complaint(403, "DENIED", "requested access to the resource is denied")),
        _ => Fate::Fair,
    });
    daemon.docker(&["push", &name]).fails(1, "denied: requested access to the resource is denied");
    to.judge(|ask| match ask.target.contains("/manifests/") && ask.method == "PUT" {
        true => Fate::Instead(Answer::complaint(400, "MANIFEST_INVALID", "manifest invalid")),
        false => Fate::Fair,
    });
    daemon.docker(&["push", &name]).fails(1, "manifest invalid");
    daemon.docker(&["push", "-a", &name]).fails(1, "tag can't be used with --all-tags/-a");
}

#[test]
fn an_index_of_which_one_image_is_here_sends_that_image() {
    let (registry, daemon) = (Registry::plain(), Daemon::start(DaemonOptions::default()));
    let amd = registry.put_image("app", "", "amd64", &[layer("amd", 1000)]);
    let kind = "application/vnd.oci.image.index.v1+json";
    let entry = |image: &testkit::registry::Seeded, architecture: &str| {
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest,
            "size": image.size, "platform": {"os": "linux", "architecture": architecture}})
    };
    let arm = registry.put_image("app", "", "arm64", &[layer("arm", 1000)]);
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry(&amd, "amd64"), entry(&arm, "arm64")]});
    let digest = registry.put_manifest("app", "multi", kind, &index);
    daemon.docker(&["pull", "-q", &registry.name("app:multi")]).ok();
    let to = Registry::plain();
    daemon.docker(&["tag", &registry.name("app:multi"), &to.name("app:one")]).ok();
    let said = daemon.docker(&["push", &to.name("app:one")]).ok();
    assert!(said.contains("only the available single-platform image was pushed"), "{said}");
    assert!(said.contains(&format!("{digest} -> {}", amd.manifest)), "{said}");
    assert!(to.content().manifests.contains_key(&("app".to_owned(), amd.manifest)));
}

#[test]
fn the_events_of_transfers_carry_the_name() {
    let (registry, daemon, _) = pulled();
    daemon.docker(&["push", "-q", &registry.name("app:v1")]).ok();
    let filters =
        ["events", "--since", "0s", "--until", "0s", "--filter", "type=image", "--format", "{{.Action}} {{.Actor.ID}}"];
    let since = ["events", "--since", "2020-01-01T00:00:00Z"];
    let arguments: Vec<&str> = since.into_iter().chain(filters[3..].iter().copied()).collect();
    let told = daemon.docker(&arguments).ok();
    let name = registry.name("app:v1");
    assert_eq!(told, format!("pull {name}\npush {name}"));
}

/// Debian's `docker-registry`, in a folder of its own.
struct Peer {
    child: Child,
    host: String,
    _folder: tempfile::TempDir,
}

impl Peer {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("wkpeer").tempdir().expect("a temporary folder");
        // Asked of the kernel and given back: the program takes no open socket.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let host = format!("127.0.0.1:{port}");
        let root = folder.path().join("store");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            root.display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is missing: apt-get install docker-registry");
        eventually("the registry listens", || std::net::TcpStream::connect(&host).ok());
        Self { child, host, _folder: folder }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn debians_registry_takes_and_gives_images_with_the_same_digests() {
    let daemon = Daemon::with_image();
    let peer = Peer::start();
    let name = format!("{}/base/busybox:v1", peer.host);
    daemon.docker(&["tag", "busybox", &name]).ok();
    let id = daemon.docker(&["image", "inspect", "-f", "{{.Id}}", &name]).ok();
    let said = daemon.docker(&["push", &name]).ok();
    assert!(said.contains(&format!("v1: digest: {id}")), "{said}");
    for cli in Cli::all() {
        daemon.docker(&["rmi", "-f", "busybox", &name]);
        let said = daemon.run(cli, &["pull", &name]).ok();
        assert!(said.contains(&format!("Digest: {id}")), "{said}");
        assert_eq!(daemon.run(cli, &["run", "--rm", &name, "echo", "hi"]).ok(), "hi");
        let copy = format!("{}/copy-{cli:?}", peer.host).to_lowercase();
        daemon.docker(&["tag", &name, &copy]).ok();
        let said = daemon.run(cli, &["push", &copy]).ok();
        assert!(said.contains("Mounted from base/busybox"), "{said}");
    }
    let body = daemon.rest().get(&format!("/v1.51/distribution/{name}/json")).json();
    assert_eq!(body["Descriptor"]["digest"], serde_json::Value::from(id));
}

#[test]
fn tokens_are_bought_for_writing_and_for_the_source_of_a_mount() {
    let login = Login::Token { user: "bob".into(), password: "s".into(), anonymous_reads: true, uses: 3 };
    let registry = Registry::start(RegistryOptions { login, ..RegistryOptions::default() });
    let daemon = Daemon::start(DaemonOptions::default());
    registry.put_image("app", "v1", "amd64", &[layer("a", 2 * MIB), layer("b", 5000), layer("c", 10)]);
    daemon.docker(&["pull", "-q", &registry.name("app:v1")]).ok();
    let name = registry.name("copy:v1");
    daemon.docker(&["tag", &registry.name("app:v1"), &name]).ok();
    daemon
        .docker(&["push", &name])
        .fails(1, "push access denied, repository does not exist or may require authorization");
    daemon.docker(&["login", "-u", "bob", "-p", "s", &registry.host()]).ok();
    let said = daemon.docker(&["push", &name]).ok();
    assert_eq!(said.lines().filter(|l| l.ends_with(": Mounted from app")).count(), 3, "{said}");
}
