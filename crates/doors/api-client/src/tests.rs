use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;

/// A daemon that answers each connection's requests with these texts, and returns what it read.
fn daemon(answers: Vec<&'static str>) -> (tempfile::TempDir, Client, std::thread::JoinHandle<Vec<String>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            if answer == "CLOSE" {
                stream.shutdown(std::net::Shutdown::Both).unwrap();
                stream = listener.accept().unwrap().0;
                continue;
            }
            let mut bytes = Vec::new();
            let mut byte = [0];
            while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                bytes.push(byte[0]);
            }
            seen.push(String::from_utf8(bytes).unwrap().lines().next().unwrap_or_default().to_owned());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        seen
    });
    let client = Client::new(Host::Unix(path.to_str().unwrap().into()), None, "test");
    (dir, client, thread)
}

#[test]
fn one_connection_serves_several_requests_of_both_framings() {
    let (_dir, client, thread) = daemon(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ]);
    assert_eq!(client.call(Request::get("/info")).unwrap().body, b"{}");
    assert_eq!(client.call(Request::get("/x")).unwrap().body, b"abcde");
    assert_eq!(client.call(Request::post("/y").query(Query::new().with("a", "b c&d"))).unwrap().body, b"");
    assert_eq!(
        thread.join().unwrap(),
        ["GET /v1.51/info HTTP/1.1", "GET /v1.51/x HTTP/1.1", "POST /v1.51/y?a=b+c%26d HTTP/1.1"]
    );
}

#[test]
fn an_older_daemon_is_asked_again_in_its_own_version() {
    let old = "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.44\r\nContent-Length: 90\r\n\r\n{\"message\":\"client version 1.51 is too new. Maximum supported API version is 1.44\"}       ";
    let (_dir, client, thread) = daemon(vec![old, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    client.call(Request::get("/info")).unwrap();
    assert_eq!(client.version().to_string(), "1.44");
    assert_eq!(thread.join().unwrap(), ["GET /v1.51/info HTTP/1.1", "GET /v1.44/info HTTP/1.1"]);
}

#[test]
fn an_idle_connection_that_was_closed_is_replaced() {
    let (_dir, client, thread) = daemon(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "CLOSE",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ]);
    client.call(Request::get("/a")).unwrap();
    assert_eq!(client.call(Request::get("/b")).unwrap().body, b"x");
    assert_eq!(thread.join().unwrap().len(), 2);
}

#[test]
fn the_daemons_message_is_the_error() {
    let (_dir, client, _thread) =
        daemon(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 31\r\n\r\n{\"message\":\"No such thing: x\"} "]);
    let e = client.call(Request::get("/a")).unwrap_err();
    assert_eq!((e.to_string().as_str(), e.status()), ("Error response from daemon: No such thing: x", Some(404)));
}

#[test]
fn a_refused_head_request_is_not_waited_on_for_a_body() {
    let (_dir, client, _thread) = daemon(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 31\r\n\r\n"]);
    assert_eq!(client.call(Request::new("HEAD", "/a")).unwrap_err().status(), Some(404));
}

#[test]
fn nobody_listening_is_dockers_message() {
    let client = Client::new(Host::parse("unix:///nonexistent.sock").unwrap(), None, "test");
    assert_eq!(
        client.call(Request::get("/a")).unwrap_err().to_string(),
        "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?"
    );
}

#[test]
fn a_body_that_ends_early_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        "HTTP/1.1 2",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let (_dir, client, _thread) = daemon(vec![answer]);
        assert!(client.call(Request::get("/a")).is_err(), "{answer}");
    }
}

#[test]
fn hosts_are_read_as_docker_reads_them() {
    let show = |t: &str| Host::parse(t).map_or_else(|e| e.to_string(), |h| h.to_string());
    assert_eq!(show(""), "unix:///var/run/docker.sock");
    assert_eq!(show("unix:///a/b"), "unix:///a/b");
    assert_eq!(show("tcp://1.2.3.4"), "tcp://1.2.3.4:2375");
    assert_eq!(show("tcp://[::1]:5"), "tcp://[::1]:5");
    assert_eq!(show("tcp://:5/"), "tcp://localhost:5");
    assert_eq!(show("nosuch://x"), "invalid bind address format: nosuch://x");
    assert_eq!(show("ssh://x"), "ssh://x");
}

proptest! {
    #[test]
    fn heads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "HTTP/1.[01] [0-9]{1,4}[ a-z]{0,4}(\r\n[a-zA-Z: 0-9]{0,20}){0,4}") {
        let _ = Head::parse(&bytes);
        if let Some(h) = Head::parse(text.as_bytes()) {
            let _ = h.framing(false);
        }
    }

    #[test]
    fn hosts_never_panic(text in "([a-z]{0,5}(://)?)?[-a-z0-9:/.\\[\\]]{0,20}") {
        let _ = Host::parse(&text);
    }
}
