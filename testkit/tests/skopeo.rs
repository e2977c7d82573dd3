//! skopeo (containers/image, which podman, buildah and CRI-O use too) as a peer: what it writes we pull and load, what we push and
//! save it reads, with the same digests. Long tier; `apt install skopeo`.

use std::process::Command;

use testkit::registry::{Registry, layer};
use testkit::{Daemon, DaemonOptions};

fn skopeo(words: &[&str]) -> String {
    let done = Command::new("skopeo").args(words).output().expect("skopeo runs");
    assert!(done.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Whether the long tier was asked for and skopeo is there.
fn is_wanted() -> bool {
    if std::env::var_os("WHARF_LONG").is_none() {
        println!("left to the long tier");
        return false;
    }
    let there = Command::new("skopeo").arg("--version").output().is_ok_and(|done| done.status.success());
    if !there {
        println!("skipped: no skopeo on this host");
    }
    there
}

#[test]
fn skopeo_reads_what_is_pushed_and_what_it_writes_is_pulled() {
    if !is_wanted() {
        return;
    }
    let (registry, daemon) = (Registry::plain(), Daemon::with_image());
    let at = |name: &str| format!("docker://{}", registry.name(name));
    let ours = registry.name("ours:v1");
    daemon.docker(&["tag", "busybox", &ours]).ok();
    let said = daemon.docker(&["push", &ours]).ok();
    let digest = said.lines().last().and_then(|l| l.split(' ').find(|w| w.starts_with("sha256:"))).expect("a digest");
    let seen = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &at("ours:v1")]);
    assert_eq!(seen.trim(), digest);
    // Through each form of manifest and back: the program runs, the layers are the same.
    let layers = |name: &str| daemon.docker(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]).ok();
    for (form, name) in [("oci", "theirs:oci"), ("v2s2", "theirs:v2s2")] {
        let both = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&[&["copy", "--quiet", "--format", form], &both[..], &[&at("ours:v1"), &at(name)]].concat());
        let name = registry.name(name);
        daemon.docker(&["pull", "-q", &name]).ok();
        assert_eq!(layers(&name), layers("busybox"), "{form}");
        assert_eq!(daemon.docker(&["run", "--rm", &name, "echo", form]).ok(), form);
    }
    // An index of two platforms as it is.
    let (first, second) = (layer("a", 5000), layer("b", 6000));
    registry.put_image("base", "v1", "amd64", &[first, second]);
    let all = ["--all", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&["copy", "--quiet"], &all[..], &[&at("base:v1"), &at("copy:v1")]].concat());
    daemon.docker(&["pull", "-q", &registry.name("copy:v1")]).ok();
    let digests = |name: &str| skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &at(name)]);
    assert_eq!(digests("copy:v1"), digests("base:v1"));
}

#[test]
fn archives_go_both_ways() {
    if !is_wanted() {
        return;
    }
    let daemon = Daemon::start(DaemonOptions::default());
    testkit::base_image(&daemon);
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let layers = |name: &str| daemon.docker(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]).ok();
    let before = layers("busybox");
    let saved = path("saved.tar");
    daemon.docker(&["save", "-o", &saved, "busybox"]).ok();
    for (kind, file) in [("docker-archive", "theirs.tar"), ("oci-archive", "theirs-oci.tar")] {
        let to = path(file);
        let name = format!("theirs-{kind}:v1");
        let target = match kind {
            "docker-archive" => format!("{kind}:{to}:{name}"),
            _ => format!("{kind}:{to}:docker.io/library/{name}"),
        };
        skopeo(&["copy", "--quiet", &format!("docker-archive:{saved}"), &target]);
        let said = daemon.docker(&["load", "-i", &to]).ok();
        let loaded = said.rsplit(": ").next().expect("a name").trim().trim_start_matches("ID: ").to_owned();
        assert_eq!(layers(&loaded), before, "{kind}: {said}");
        assert_eq!(daemon.docker(&["run", "--rm", &loaded, "echo", "works"]).ok(), "works", "{kind}");
    }
}
