//! dockerd's own options: validation, reload, metrics, debug endpoints, several listeners, TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use testkit::{Daemon, DaemonOptions, eventually};

fn write_config(daemon: &Daemon, text: &str) {
    std::fs::write(daemon.folder().join("daemon.json"), text).expect("written");
}

fn reload(daemon: &Daemon) {
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

#[test]
fn a_hangup_reads_the_configuration_again_and_tells_of_it() {
    let daemon = Daemon::start(DaemonOptions::default());
    let shown = || daemon.docker(&["info", "-f", "{{.Labels}} {{.Debug}} {{.LiveRestoreEnabled}}"]).ok();
    assert_eq!(shown(), "[] false false");
    write_config(&daemon, r#"{"labels": ["a=b"], "debug": true, "live-restore": true, "shutdown-timeout": 3}"#);
    reload(&daemon);
    eventually("it is reloaded", || (shown() == "[a=b] true true").then_some(()));
    let events = daemon.docker(&["events", "--since", "10m", "--until", "0s", "--filter", "type=daemon"]).ok();
    assert!(events.contains("daemon reload ") && events.contains("live-restore=true"), "{events}");
    // A fault changes nothing, and the daemon goes on.
    for wrong in [r#"{"labels": ["x=y"], "nope": 1}"#, r#"{"labels": ["nolabel"]}"#, "{"] {
        write_config(&daemon, wrong);
        let before = daemon.log().matches("is not reloaded").count();
        reload(&daemon);
        eventually("it says so", || (daemon.log().matches("is not reloaded").count() > before).then_some(()));
        assert_eq!(shown(), "[a=b] true true");
    }
}

#[test]
fn the_configuration_is_validated_without_starting_anything() {
    let daemon = Daemon::prepare(DaemonOptions::default());
    let validate = |file: &str, more: &[&str]| {
        write_config(&daemon, file);
        let config = daemon.folder().join("daemon.json").display().to_string();
        let mut command = std::process::Command::new(testkit::binaries().join("dockerd"));
        command.args(["--validate", "--config-file", &config]).args(more);
        let out = command.output().expect("it runs");
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let good = r#"{"labels": ["a=b"], "proxies": {"http-proxy": "http://p:1"}, "builder": {"gc": {"enabled": true}},
        "features": {"buildkit": true}, "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}}"#;
    assert_eq!(validate(good, &[]), (Some(0), "configuration OK\n".to_owned()));
    let cases: &[(&str, &[&str], &str)] = &[
        (r#"{"nope": 1}"#, &[], "the following directives don't match any configuration option: nope"),
        (
            r#"{"debug": true, "hosts": ["unix:///x"]}"#,
            &["-D", "-H", "unix:///y"],
            "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true), hosts: (from flag: [unix:///y], from file: [unix:///x])",
        ),
        (r#"{"debug": "yes"}"#, &[], "json: cannot unmarshal string into Go struct field Config.debug of type bool"),
        (r#"{"labels": ["a=b", "a=c"]}"#, &[], "conflict labels for a"),
        ("{", &[], "invalid JSON: unexpected end of JSON input"),
    ];
    for (file, more, message) in cases {
        let (code, text) = validate(file, more);
        assert!(code != Some(0) && text.contains(message), "{file}: {code:?} {text}");
    }
    assert!(!daemon.data_root().exists(), "nothing was started");
}

#[test]
fn metrics_are_there_for_prometheus() {
    let port = free_port();
    let arguments = vec![format!("--metrics-addr=127.0.0.1:{port}")];
    let daemon = Daemon::start(DaemonOptions { arguments, ..DaemonOptions::default() });
    testkit::base_image(&daemon);
    daemon.docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let (status, text) = http_get(port, "/metrics").expect("answered");
    assert_eq!(status, 200);
    for line in [
        "engine_daemon_container_states_containers{state=\"running\"} 1\n",
        "engine_daemon_container_actions_seconds_count{action=\"start\"} 1\n",
        "engine_daemon_container_actions_seconds_count{action=\"create\"} 1\n",
        "# TYPE engine_daemon_events_total counter\n",
        "engine_daemon_engine_info{architecture=",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(http_get(port, "/nosuch").expect("answered").0, 404);
    assert_eq!(http_get(port, "/containers/json").expect("answered").0, 404, "the API is not there");
}

#[test]
fn debug_endpoints_are_there_with_debug_only_and_say_what_they_are() {
    let daemon = Daemon::start(DaemonOptions::default());
    assert_eq!(daemon.rest().get("/debug/vars").status, 404);
    write_config(&daemon, r#"{"debug": true}"#);
    reload(&daemon);
    let vars = eventually("debug is on", || Some(daemon.rest().get("/debug/vars")).filter(|r| r.status == 200));
    assert!(vars.json()["threads"].as_u64().is_some_and(|n| n > 0), "{}", vars.json());
    let profile = daemon.rest().get("/debug/pprof/heap");
    assert_eq!(profile.status, 501);
    assert!(profile.json()["message"].as_str().is_some_and(|m| m.contains("no Go program")));
}

#[test]
fn a_daemon_listens_on_several_sockets_and_on_tcp() {
    let port = free_port();
    let folder = tempfile::tempdir().expect("folder");
    let second = folder.path().join("second.sock");
    let arguments = vec![format!("-Hunix://{}", second.display()), format!("-Htcp://127.0.0.1:{port}")];
    let daemon = Daemon::start(DaemonOptions { arguments, ..DaemonOptions::default() });
    for host in [daemon.host(), format!("unix://{}", second.display()), format!("tcp://127.0.0.1:{port}")] {
        let out = daemon.docker(&["-H", &host, "info", "-f", "{{.OSType}}"]).ok();
        assert_eq!(out, "linux", "{host}");
    }
}
