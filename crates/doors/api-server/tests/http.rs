//! Requests and answers as clients see them on the wire; texts are those of dockerd 28.5.

#[path = "fake/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "fake/mod.rs"]
#[allow(dead_code)]
mod fake;

use client::{Server, eventually};
use std::sync::atomic::Ordering;

#[test]
fn ping_carries_the_headers_that_clients_negotiate_by() {
    let server = Server::start();
    let answer = server.get("/_ping");
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    for header in [
        "Api-Version: 1.51",
        "Builder-Version: 2",
        "Cache-Control: no-cache, no-store, must-revalidate",
        "Docker-Experimental: false",
        "Ostype: linux",
        "Pragma: no-cache",
        "Server: Docker/28.5.2+wharf.test (linux)",
        "Swarm: inactive",
        "Content-Type: text/plain; charset=utf-8",
    ] {
        assert!(answer.head.contains(header), "{header} in {}", answer.head);
    }
    let head = server.ask("HEAD /v1.24/_ping HTTP/1.1", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("Content-Length: 0"), "{}", head.head);
}

#[test]
fn versions_outside_the_range_are_refused_in_docker_s_words() {
    let server = Server::start();
    let old = server.get("/v1.23/version");
    assert_eq!(old.status, 400);
    assert!(old.head.contains("Content-Type: text/plain") && old.head.contains("X-Content-Type-Options: nosniff"));
    assert_eq!(
        old.body,
        "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
    );
    for version in ["1.52", "9", "1.51.1"] {
        let new = server.get(&format!("/v{version}/version"));
        assert_eq!(new.status, 400);
        let text = format!("client version {version} is too new. Maximum supported API version is 1.51");
        assert_eq!(new.message(), text);
    }
    assert_eq!(server.get("/v1.44/version").status, 200);
}

#[test]
fn unknown_paths_and_methods_are_not_found() {
    let server = Server::start();
    for (method, path) in [
        ("GET", "/nope"),
        ("GET", "/vx/version"),
        ("POST", "/version"),
        ("GET", "/version/"),
        ("HEAD", "/containers/a/json"),
    ] {
        let answer = server.ask(&format!("{method} {path} HTTP/1.1"), "");
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(!answer.head.contains("Api-Version"), "{}", answer.head);
        if method != "HEAD" {
            assert_eq!(answer.body, "{\"message\":\"page not found\"}\n");
        }
    }
    let moved = server.get("/containers//json?all=1");
    assert_eq!(moved.status, 301);
    assert!(moved.head.contains("Location: /containers/json?all=1"), "{}", moved.head);
}

#[test]
fn features_outside_this_engine_answer_as_docker_does_or_501() {
    let server = Server::start();
    let nodes = server.get("/nodes");
    assert_eq!(nodes.status, 503);
    assert!(nodes.message().starts_with("This node is not a swarm manager. Use \"docker swarm init\""));
    assert_eq!(server.post("/swarm/leave", "").message(), "This node is not part of a swarm");
    assert_eq!((server.get("/plugins").status, server.get("/plugins").body.as_str()), (200, "[]\n"));
    assert_eq!(server.get("/plugins/x/json").message(), "plugin \"x\" not found");
}

#[test]
fn errors_have_the_status_of_their_kind_and_json() {
    let server = Server::start();
    let answer = server.get("/containers/nope/json");
    assert_eq!((answer.status, answer.body.as_str()), (404, "{\"message\":\"No such container: nope\"}\n"));
    let answer = server.get("/containers/broken/json");
    assert_eq!((answer.status, answer.body.as_str()), (500, "{\"message\":\"it broke: <&>\"}\n"));
    let answer = server.post("/containers/running/start", "");
    assert_eq!((answer.status, answer.body.as_str()), (304, ""));
    let answer = server.post("/containers/a/start", "");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
}

#[test]
fn create_bodies_are_checked_in_docker_s_words() {
    let server = Server::start();
    let of = |body: &str| server.post("/containers/create?name=n", body);
    assert_eq!(of("{\"Image\":\"i\"}").body, "{\"Id\":\"n-i\",\"Warnings\":[]}\n");
    assert_eq!(of("{\"Image\":\"i\"}").status, 201);
    assert_eq!(of("").message(), "invalid JSON: got EOF while reading request body");
    assert_eq!(of("{").message(), "invalid JSON: unexpected EOF");
    assert_eq!(of("{}").message(), "config cannot be empty in order to create a container");
    assert_eq!(of("{} x").message(), "unexpected content after JSON");
    let text = server.ask("POST /containers/create HTTP/1.1\r\nContent-Type: text/plain", "{}");
    assert_eq!(text.message(), "unsupported Content-Type header (text/plain): must be 'application/json'");
    let large = of(&format!("{{\"Image\":\"{}\"}}", "a".repeat(9 << 20)));
    assert_eq!((large.status, large.message().as_str()), (413, "http: request body too large"));
}

#[test]
fn a_failed_import_is_a_status_and_bad_parameters_are_named() {
    let server = Server::start();
    let import = server.ask("POST /images/create?fromSrc=-&repo=broken HTTP/1.1", "x");
    assert_eq!((import.status, import.message().as_str()), (400, "no such change"));
    assert_eq!(server.get("/volumes?filters=x").message(), "error reading volume filters: invalid filter");
    let keys = server.post("/containers/a/exec", "{\"Cmd\":[\"x\"],\"DetachKeys\":\"zz\"}");
    assert_eq!((keys.status, keys.message().as_str()), (500, "Invalid escape keys (zz) provided"));
    let platform = server.post("/containers/create?platform=a/b/c/d", "{\"Image\":\"i\"}");
    assert_eq!(platform.message(), "\"a/b/c/d\": cannot parse platform specifier: invalid argument");
}

#[test]
fn a_body_that_ends_early_creates_nothing() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"Image\":\"a\"");
    raw.half_close();
    let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(!answer.contains("201"), "{answer}");
}

#[test]
fn malformed_http_is_refused_and_harms_nobody() {
    let server = Server::start();
    for bytes in [
        &b"garbage\r\n\r\n"[..],
        b"GET /version HTTP/1.1\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: d\r\nBad Header: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let mut raw = server.connect();
        raw.send(bytes);
        raw.half_close();
        let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(server.get("/_ping").status, 200);
}

#[test]
fn a_head_beyond_the_limit_is_refused() {
    use std::io::Write;
    let server = Server::start();
    let mut raw = server.connect();
    let mut sent = raw.0.try_clone().expect("clone");
    let writer = std::thread::spawn(move || {
        let _ = sent.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: ");
        let _ = sent.write_all(&vec![b'a'; 3 << 20]);
    });
    let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    writer.join().expect("writer");
    assert_eq!(server.get("/_ping").status, 200);
}

#[test]
fn older_clients_get_older_shapes() {
    let server = Server::start();
    assert!(server.get("/v1.48/containers/json").body.contains("ImageManifestDescriptor"));
    assert!(!server.get("/v1.47/containers/json").body.contains("ImageManifestDescriptor"));
    assert!(server.get("/v1.49/info").body.contains("\"BridgeNfIptables\":false"));
    assert!(!server.get("/v1.50/info").body.contains("BridgeNfIptables"));
}

#[test]
fn wait_sends_its_headers_before_the_container_ends() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(b"POST /containers/a/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n");
    let head = String::from_utf8(raw.until(b"\r\n\r\n")).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Transfer-Encoding: chunked"), "{head}");
    server.fake.exit.lock().expect("lock").as_ref().expect("registered").send(true).expect("waiting");
    let body = String::from_utf8(raw.until(b"0\r\n\r\n")).expect("text");
    assert!(body.contains("{\"StatusCode\":7}\n"), "{body}");
    let bad = server.post("/containers/a/wait?condition=foo", "");
    assert_eq!((bad.status, bad.message().as_str()), (400, "invalid condition: \"foo\""));
}

#[test]
fn events_are_lines_and_a_client_that_leaves_is_noticed() {
    let server = Server::start();
    let lines = server.get("/events?since=1&until=2").body;
    let actions: Vec<String> =
        lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect(l)["Action"].to_string()).collect();
    assert_eq!(actions, ["\"create\"", "\"start\""]);
    assert_eq!(server.get("/events?since=5&until=2").message(), "`since` time (5) cannot be after `until` time (2)");
    let mut raw = server.connect();
    raw.send(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n");
    raw.until(b"\r\n\r\n");
    drop(raw);
    eventually("the stream was dropped", || server.fake.abandoned.load(Ordering::SeqCst));
}

#[test]
fn logs_need_a_stream_and_say_whether_they_are_framed() {
    let server = Server::start();
    let none = server.get("/containers/a/logs");
    assert_eq!((none.status, none.message().as_str()), (400, "Bad parameters: you must choose at least one stream"));
    for (path, kind) in [
        ("/containers/a/logs?stdout=1&follow=1", "multiplexed"),
        ("/containers/tty/logs?stdout=1&follow=1", "raw"),
        ("/v1.41/containers/a/logs?stdout=1&follow=1", "raw"),
    ] {
        let mut raw = server.connect();
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes());
        let head = String::from_utf8(raw.until(b"\r\n\r\n")).expect("text");
        assert!(head.contains(&format!("Content-Type: application/vnd.docker.{kind}-stream")), "{head}");
    }
}

#[test]
fn a_slow_reader_costs_bounded_memory() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(b"GET /containers/a/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n");
    raw.until(b"\r\n\r\n");
    // Nothing is read: production must come to rest, after what socket, hyper and channel hold.
    let count = || server.fake.produced.load(Ordering::SeqCst);
    let mut last = (count(), std::time::Instant::now());
    eventually("production rests for half a second", || {
        let now = count();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        now > 0 && last.1.elapsed() > std::time::Duration::from_millis(500)
    });
    assert!(count() < 64, "{} chunks of 64 KiB are waiting", count());
    drop(raw);
    eventually("the producer was told", || server.fake.abandoned.load(Ordering::SeqCst));
}

#[test]
fn a_stream_that_fails_is_cut_not_ended() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(b"GET /containers/a/export HTTP/1.1\r\nHost: d\r\n\r\n");
    let all = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(!all.ends_with("0\r\n\r\n"), "{all}");
}

#[test]
fn uploads_arrive_whole_and_progress_ends_with_its_error() {
    let server = Server::start();
    let body = "tar".repeat(400_000);
    let answer = server.ask("POST /images/load HTTP/1.1\r\nContent-Type: application/x-tar", &body);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        "{\"status\":\"1200000 bytes\"}\r\n{\"errorDetail\":{\"message\":\"broken at the end\"},\"error\":\"broken at the end\"}\r\n"
    );
    assert_eq!(server.fake.uploaded.lock().expect("lock").len(), body.len());
}

#[test]
fn a_thousand_idle_connections_leave_room_for_work() {
    let server = Server::start();
    let idle: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    let mut half: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for raw in &mut half {
        raw.send(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{");
    }
    assert_eq!(server.get("/_ping").status, 200);
    drop((idle, half));
    server.finish();
}

#[test]
fn shutdown_ends_idle_connections_and_streams_and_finishes_requests() {
    let server = Server::start();
    let mut idle = server.connect();
    idle.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    idle.until(b"\r\n\r\nOK");
    let mut events = server.connect();
    events.send(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n");
    events.until(b"\r\n\r\n");
    let path = server.path.clone();
    server.finish();
    assert!(idle.rest().is_empty());
    assert_eq!(events.rest(), b"0\r\n\r\n");
    assert!(!path.exists());
}

#[test]
fn requests_that_follow_each_other_share_a_connection() {
    let server = Server::start();
    let mut raw = server.connect();
    for _ in 0..3 {
        raw.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
        raw.until(b"\r\n\r\nOK");
    }
    raw.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    raw.until(b"\r\n\r\nOK");
    raw.until(b"\r\n\r\nOK");
}

#[test]
fn a_body_that_nobody_reads_does_not_cost_its_sender_the_answer() {
    let server = Server::start();
    let mut raw = server.connect();
    for path in ["/plugins/x/set", "/nope", "/v1.99/containers/create", "/containers/create"] {
        raw.send(
            format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n")
                .as_bytes(),
        );
        let head = String::from_utf8(raw.until(b"\r\n\r\n")).expect("text");
        assert!(head.starts_with("HTTP/1.1 40"), "{head}");
        raw.until(b"}\n");
        raw.send(&[b'x'; 100_000]);
    }
    raw.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    raw.until(b"\r\n\r\nOK");
}

#[test]
fn characters_that_urls_should_escape_are_taken_as_typed() {
    let server = Server::start();
    assert_eq!(server.get("/events?until=1&filters={\"type\":[\"container\"]}").status, 200);
    let bad = server.get("/events?until=1&filters={\"a\":1}");
    assert_eq!((bad.status, bad.message().as_str()), (400, "invalid filter"));
    let mut raw = server.connect();
    raw.send(b"GET /events?until=1&filters={\"type\"");
    raw.send(b":[\"container\"]} HTTP/1.1\r\nHost: \"d\"\r\nConnection: close\r\n\r\n");
    assert!(raw.rest().starts_with(b"HTTP/1.1 200 OK"));
}
