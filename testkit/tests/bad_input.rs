//! Wrong input on purpose: Docker's status and message, nothing changed, nothing left behind. Texts were read off dockerd 28.5.2.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use testkit::{Cli, Daemon, DaemonOptions, Residue};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn create(daemon: &Daemon, content: (&str, &str), body: &str) -> (u16, String) {
    let open = daemon.rest().open("POST", "/v1.51/containers/create", &[content], body.as_bytes()).expect("an answer");
    let answer = open.finish().expect("a body");
    (answer.status, answer.json()["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn bodies_that_are_not_what_they_should_be_get_dockers_messages() {
    let daemon = Daemon::with_image();
    let cases: &[(&str, &str)] = &[
        ("not json", "invalid JSON: invalid character 'o' in literal null (expecting 'u')"),
        (r#"{"Image":"busybox""#, "invalid JSON: unexpected EOF"),
        (r#"{"Image":"busybox"} {}"#, "unexpected content after JSON"),
        (r#"{"Image":5}"#, "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string"),
        ("[]", "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest"),
    ];
    for (body, message) in cases {
        assert_eq!(create(&daemon, JSON, body), (400, (*message).to_owned()), "{body}");
    }
    let plain = create(&daemon, ("Content-Type", "text/plain"), r#"{"Image":"busybox"}"#);
    assert_eq!(plain, (400, "unsupported Content-Type header (text/plain): must be 'application/json'".to_owned()));
    let long = format!(r#"{{"Image":"{}"}}"#, "a".repeat(6_000_000));
    assert_eq!(create(&daemon, JSON, &long).0, 400);
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_body_that_ends_early_or_never_changes_nothing_and_the_daemon_lives_on() {
    let daemon = Daemon::with_image();
    for declared in ["100", "99999999999"] {
        let mut socket = UnixStream::connect(daemon.socket()).expect("connected");
        let head = format!(
            "POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {declared}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("sent");
        socket.write_all(br#"{"Image":"busybox""#).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).expect("closed");
        let mut answer = Vec::new();
        // Some servers close without an answer; what counts is that they go on.
        let _ = socket.read_to_end(&mut answer);
        assert_eq!(daemon.rest().get("/_ping").status, 200);
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn unknown_versions_paths_filters_and_names_are_refused_as_docker_does() {
    let daemon = Daemon::start(DaemonOptions::default());
    let cases: &[(&str, &str, u16, &str)] = &[
        ("GET", "/v1.99/containers/json", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("GET", "/nope", 404, "page not found"),
        ("GET", "/vx/containers/json", 404, "page not found"),
        ("DELETE", "/v1.51/containers/json", 404, "No such container: json"),
        ("GET", "/v1.51/containers/json?filters=%7Bx", 400, "invalid filter"),
        ("GET", "/v1.51/containers/json?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", 400, "invalid filter 'nope'"),
        ("POST", "/v1.51/containers/none/start", 404, "No such container: none"),
        ("POST", "/v1.51/containers/none/kill", 404, "No such container: none"),
        ("POST", "/v1.51/containers/none/kill?signal=NOPE", 400, "invalid signal: NOPE"),
        ("GET", "/v1.51/images/none/json", 404, "No such image: none"),
        ("GET", "/v1.51/exec/none/json", 404, "No such exec instance: none"),
    ];
    for (method, path, status, message) in cases {
        let answer = daemon.rest().call(method, path, b"").expect("an answer");
        let said = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == *status && said.contains(message), "{method} {path}: {} {said}", answer.status);
    }
}

#[test]
fn mounts_limits_and_runtimes_that_cannot_be_are_refused_before_anything_is_made() {
    let daemon = Daemon::with_image();
    let cases: &[(&[&str], &str)] = &[
        (&["--mount", "type=bind,src=/no/such,dst=/y"], "bind source path does not exist: /no/such"),
        (&["--mount", "type=nope,dst=/y"], "mount type unknown"),
        (&["-m", "5m"], "Minimum memory limit allowed is 6MB"),
        (&["--cpus", "1000"], "range of CPUs is from 0.01 to"),
        (&["--runtime", "nope"], "unknown or invalid runtime name: nope"),
        (&["--cap-add", "NOPE"], "invalid CapAdd: unknown capability: \"CAP_NOPE\""),
        (&["-w", "relative"], "the working directory 'relative' is invalid, it needs to be an absolute path"),
        (&["--log-driver", "nope"], "error looking up logging plugin nope: plugin \"nope\" not found"),
        (&["--stop-signal", "NOPE"], "invalid signal: NOPE"),
    ];
    for cli in Cli::all() {
        for (flags, message) in cases {
            let done = daemon.run(cli, &[&["create"], *flags, &["busybox", "true"]].concat());
            assert!(done.code != 0 && done.stderr.contains(message), "{flags:?}: {} {}", done.code, done.stderr);
            assert_eq!(daemon.run(cli, &["ps", "-aq"]).ok(), "", "{flags:?} left a container");
        }
    }
    assert!(Residue::of_containers(&daemon).is_empty(), "{:?}", Residue::of_containers(&daemon));
}

#[test]
fn a_held_socket_a_held_data_root_and_dockers_own_data_root_are_refused_and_untouched() {
    let daemon = Daemon::with_image();
    let refuse = |arguments: &[(&str, String)], message: &str| {
        let mut command = Command::new(testkit::binaries().join("dockerd"));
        for (flag, value) in arguments {
            command.arg(flag).arg(value);
        }
        let done = command.args(["--bridge", "none"]).output().expect("dockerd");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(message), "{message}: {said}");
    };
    let other = tempfile::tempdir().expect("folder");
    let path = |name: &str| other.path().join(name).display().to_string();
    std::fs::write(other.path().join("none.json"), "{}").expect("file");
    let private = |data: String, socket: String| {
        [
            ("--data-root", data),
            ("--exec-root", path("r")),
            ("--pidfile", path("pid")),
            ("--config-file", path("none.json")),
            ("--host", socket),
        ]
    };
    refuse(&private(path("d"), daemon.host()), "is a Docker daemon already running?");
    refuse(&private(daemon.data_root().display().to_string(), format!("unix://{}", path("s"))), "another daemon");
    std::fs::create_dir_all(other.path().join("docker/image/overlay2")).expect("folder");
    std::fs::create_dir_all(other.path().join("docker/containerd")).expect("folder");
    std::fs::write(other.path().join("docker/engine-id"), "x").expect("file");
    refuse(&private(path("docker"), format!("unix://{}", path("s"))), "--data-root");
    let mut left: Vec<_> =
        std::fs::read_dir(other.path().join("docker")).expect("there").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["containerd", "engine-id", "image"]);
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn a_full_disk_gives_an_error_and_the_daemon_works_again_with_room() {
    let folder = tempfile::tempdir().expect("folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("folder");
    let mount = |arguments: &[&str]| {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).status().expect("mount").success())
    };
    let at = disk.to_str().expect("plain");
    mount(&["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", at]);
    let arguments = vec!["--data-root".to_owned(), disk.join("d").display().to_string()];
    let mut daemon = Daemon::start(DaemonOptions { arguments, ..Default::default() });
    testkit::base_image(&daemon);
    daemon.docker(&["create", "--name", "before", "busybox", "true"]).ok();
    let filler = disk.join("filler");
    let full: std::io::Result<()> = std::fs::File::create(&filler).and_then(|mut file| {
        loop {
            file.write_all(&[1; 65536])?;
        }
    });
    assert!(full.is_err_and(|e| e.raw_os_error() == Some(28)), "the disk is full");
    // A few creates may still find room in what the store has set aside.
    let body = serde_json::json!({"Image": "busybox", "Cmd": ["true"]});
    let refused = (0..2000).find_map(|n| {
        let answer = daemon.rest().post(&format!("/v1.51/containers/create?name=full{n}"), &body);
        (answer.status != 201).then(|| (answer.status, answer.json()["message"].to_string()))
    });
    let (status, message) = refused.expect("a full disk is noticed");
    assert!(status == 500 && message.to_lowercase().contains("no space left on device"), "{status} {message}");
    let listed = daemon.docker(&["ps", "-aq"]).ok().lines().count();
    std::fs::remove_file(&filler).expect("removed");
    assert_eq!(daemon.docker(&["start", "-a", "before"]).code, 0);
    assert_eq!(daemon.docker(&["run", "--rm", "busybox", "echo", "room"]).ok(), "room");
    daemon.docker(&["inspect", "before"]).ok();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok().lines().count(), listed, "what was promised is kept, and no more");
    daemon.stop();
    drop(daemon);
    mount(&["umount", at]);
}
