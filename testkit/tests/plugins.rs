//! Docker's plugin protocol: a volume driver and an authorisation plugin, each a few lines in this process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;
use testkit::plugin::{Answer, serve};
use testkit::{Daemon, DaemonOptions, base_image};

fn options(folder: &Path, more: &[&str]) -> DaemonOptions {
    let mut arguments = vec![format!("--plugin-dir={}", folder.display())];
    arguments.extend(more.iter().map(|m| (*m).to_owned()));
    DaemonOptions { arguments, ..DaemonOptions::default() }
}

/// A volume driver that keeps folders below `root` and remembers who mounts what.
fn volume_driver(root: PathBuf, mounts: Arc<Mutex<Vec<String>>>) -> Arc<Answer> {
    let volumes: Mutex<BTreeMap<String, PathBuf>> = Mutex::default();
    Arc::new(move |method, body| {
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        let mut volumes = volumes.lock().expect("not poisoned");
        let known = |v: &BTreeMap<String, PathBuf>| v.get(&name).map(|p| p.display().to_string());
        match method {
            "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
            "VolumeDriver.Create" if body["Opts"]["fail"] == "yes" => json!({"Err": "no room"}),
            "VolumeDriver.Create" => {
                let place = root.join(&name);
                std::fs::create_dir_all(&place).expect("made");
                volumes.insert(name, place);
                json!({})
            }
            "VolumeDriver.Get" => match known(&volumes) {
                Some(place) => json!({"Volume": {"Name": name, "Mountpoint": place, "Status": {"colour": "red"}}}),
                None => json!({"Err": "no such volume"}),
            },
            "VolumeDriver.List" => {
                json!({"Volumes": volumes.keys().map(|n| json!({"Name": n})).collect::<Vec<_>>()})
            }
            "VolumeDriver.Mount" => {
                mounts.lock().expect("not poisoned").push(format!("mount {name}"));
                json!({"Mountpoint": known(&volumes)})
            }
            "VolumeDriver.Unmount" => {
                mounts.lock().expect("not poisoned").push(format!("unmount {name}"));
                json!({})
            }
            "VolumeDriver.Remove" => {
                volumes.remove(&name);
                json!({})
            }
            "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "global"}}),
            other => json!({"Err": format!("unknown: {other}")}),
        }
    })
}

#[test]
fn a_volume_driver_by_socket_makes_mounts_shows_and_removes_volumes() {
    let folder = tempfile::tempdir().expect("folder");
    let mounts = Arc::new(Mutex::new(Vec::new()));
    serve(folder.path(), "mine", volume_driver(folder.path().join("volumes"), mounts.clone()));
    let mut daemon = Daemon::start(options(folder.path(), &[]));
    base_image(&daemon);
    assert_eq!(daemon.docker(&["volume", "create", "-d", "mine", "-o", "a=b", "one"]).ok(), "one");
    let shown = ["volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Status.colour}} {{.Options.a}}", "one"];
    assert_eq!(daemon.docker(&shown).ok(), "mine global red b");
    daemon.docker(&["volume", "create", "-d", "mine", "-o", "fail=yes", "two"]).fails(1, "no room");
    daemon.docker(&["run", "--rm", "-v", "one:/x", "busybox", "sh", "-c", "echo hi > /x/f"]).ok();
    assert_eq!(std::fs::read_to_string(folder.path().join("volumes/one/f")).expect("written"), "hi\n");
    let done = mounts.lock().expect("not poisoned").clone();
    assert_eq!(done, ["mount one", "unmount one"]);
    let line = ["run", "--rm", "--volume-driver", "mine", "-v", "three:/x", "busybox", "true"];
    daemon.docker(&line).ok();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker(&["volume", "ls", "-q", "-f", "driver=mine"]).ok(), "one\nthree");
    daemon.docker(&["volume", "create", "-d", "local", "one"]).fails(1, "volume name must be unique");
    daemon.docker(&["volume", "rename", "one", "zz"]).fails(1, "the volume is kept by a plugin");
    daemon.docker(&["volume", "rm", "one", "three"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn plugins_are_found_by_spec_and_json_files_and_other_kinds_are_told_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let hidden = folder.path().join("elsewhere");
    let mounts = Arc::new(Mutex::new(Vec::new()));
    serve(&hidden, "p", volume_driver(folder.path().join("volumes"), mounts));
    serve(&hidden, "q", Arc::new(|_, _| json!({"Implements": ["NetworkDriver"]})));
    let socket = |name: &str| format!("unix://{}", hidden.join(format!("{name}.sock")).display());
    std::fs::write(folder.path().join("bySpec.spec"), socket("p")).expect("written");
    let json = json!({"Name": "byJson", "Addr": socket("p")}).to_string();
    std::fs::write(folder.path().join("byJson.json"), json).expect("written");
    std::fs::write(folder.path().join("other.spec"), socket("q")).expect("written");
    std::fs::write(folder.path().join("broken.spec"), "nonsense").expect("written");
    let daemon = Daemon::start(options(folder.path(), &[]));
    for driver in ["bySpec", "byJson"] {
        daemon.docker(&["volume", "create", "-d", driver, driver]).ok();
    }
    daemon.docker(&["volume", "create", "-d", "other", "xx"]).fails(1, "does not implement \"VolumeDriver\"");
    daemon.docker(&["volume", "create", "-d", "broken", "xx"]).fails(1, "unknown protocol");
}

/// Base64 of a request's body, unpacked with the host's tool.
fn unpack(text: &str) -> String {
    let mut child = std::process::Command::new("base64")
        .arg("-d")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("base64 runs");
    let (mut input, text) = (child.stdin.take().expect("piped"), text.to_owned());
    // Beside the reading: a pipe holds less than a large body.
    std::thread::spawn(move || input.write_all(text.as_bytes()));
    String::from_utf8_lossy(&child.wait_with_output().expect("ended").stdout).into_owned()
}

/// Refuses privileged containers by what it sees of the body, and everything under `/volumes` in the answer.
fn guard(seen: Seen) -> Arc<Answer> {
    Arc::new(move |method, body| match method {
        "Plugin.Activate" => json!({"Implements": ["authz"]}),
        "AuthZPlugin.AuthZReq" => {
            let uri = body["RequestURI"].as_str().unwrap_or_default().to_owned();
            let text = unpack(body["RequestBody"].as_str().unwrap_or_default());
            let privileged = text.contains("\"Privileged\":true");
            let create = uri.contains("/containers/create");
            seen.lock().expect("not poisoned").push((uri, text.clone()));
            if create && (text.is_empty() || privileged) {
                return json!({"Allow": false, "Msg": "privileged is not for you"});
            }
            json!({"Allow": true})
        }
        _ => {
            let uri = body["RequestURI"].as_str().unwrap_or_default();
            json!({"Allow": !uri.contains("/volumes"), "Msg": "not shown"})
        }
    })
}

/// What a guard was asked: URI and body.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

fn guarded() -> (tempfile::TempDir, Daemon, Seen) {
    let folder = tempfile::tempdir().expect("folder");
    let seen = Arc::new(Mutex::new(Vec::new()));
    serve(folder.path(), "guard", guard(seen.clone()));
    let daemon = Daemon::start(options(folder.path(), &["--authorization-plugin=guard"]));
    base_image(&daemon);
    (folder, daemon, seen)
}

#[test]
fn an_authorisation_plugin_decides_on_requests_and_on_answers() {
    let (_folder, daemon, _) = guarded();
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
    let refused = "authorization denied by plugin guard: privileged is not for you";
    daemon.docker(&["run", "--rm", "--privileged", "busybox", "true"]).fails(125, refused);
    daemon.docker(&["volume", "ls"]).fails(1, "authorization denied by plugin guard: not shown");
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_plugin_that_is_gone_stops_everything() {
    let folder = tempfile::tempdir().expect("folder");
    let daemon = Daemon::prepare(options(folder.path(), &["--authorization-plugin=nosuch"]));
    let mut daemon = daemon;
    daemon.spawn();
    let status = testkit::eventually("it listens", || daemon.rest().call("GET", "/info", b"").ok());
    assert_eq!(status.status, 500);
    assert!(status.json()["message"].as_str().is_some_and(|m| m.contains("plugin \"nosuch\" not found")));
}

/// CVE-2024-41110: a body whose announced length is zero was not shown to the plugin and read all the same.
#[test]
fn cve_2024_41110_a_plugin_sees_a_body_whatever_its_length_is_said_to_be() {
    let (_folder, daemon, seen) = guarded();
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":true}}"#;
    let path = "/v1.44/containers/create?name=evil";
    // In chunks, so that no length is announced at all; and with both, which HTTP forbids (RFC 9112, 6.3).
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (headers, payload) in [
        ("Transfer-Encoding: chunked\r\n", chunked.as_str()),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunked.as_str()),
        ("Content-Length: 0\r\n", body),
    ] {
        let mut socket = UnixStream::connect(daemon.socket()).expect("connected");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n"
        );
        socket.write_all((head + payload).as_bytes()).expect("sent");
        socket.set_read_timeout(Some(testkit::DEADLINE)).expect("set");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 201"), "{headers}: {answer}");
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
    let seen = seen.lock().expect("not poisoned");
    assert!(seen.iter().any(|(uri, text)| uri == path && text == body), "shown whole: {seen:?}");
}

/// CVE-2026-34040: a body beyond a limit (1 MiB in moby) was carried out without being shown.
#[test]
fn cve_2026_34040_a_large_body_is_shown_whole_or_not_carried_out() {
    let (_folder, daemon, _) = guarded();
    let padded = |size: usize| {
        format!(
            r#"{{"Image":"busybox","Cmd":["true"],"Labels":{{"pad":"{}"}},"HostConfig":{{"Privileged":true}}}}"#,
            "x".repeat(size)
        )
    };
    for size in [2 << 20, 5 << 20, 9 << 20] {
        let answer = daemon.rest().call("POST", "/containers/create?name=evil", padded(size).as_bytes());
        let status = answer.expect("answered").status;
        assert!(status == 403 || status == 413, "{size}: {status}");
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}
