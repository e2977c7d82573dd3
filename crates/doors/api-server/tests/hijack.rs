//! Connections that become the streams of a process, in both forms, with packets split anywhere.

#[path = "fake/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "fake/mod.rs"]
#[allow(dead_code)]
mod fake;

use client::{Raw, Server, eventually};
use std::sync::atomic::Ordering;

const UPGRADE: &str = "POST /containers/a/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const PLAIN: &str = "POST /containers/a/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n";

fn framed(text: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(text.len()).expect("small").to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn head(raw: &mut Raw) -> String {
    String::from_utf8(raw.until(b"\r\n\r\n")).expect("text")
}

#[test]
fn with_upgrade_the_answer_is_101_and_then_raw_bytes() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.as_bytes());
    assert_eq!(
        head(&mut raw),
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    raw.send(b"hi");
    assert_eq!(raw.exactly(10), framed("hi"));
    raw.half_close();
    assert_eq!(raw.rest(), framed("bye"), "output after the client's half-close");
    assert_eq!(server.fake.stdin.lock().expect("lock").as_deref(), Some(&b"hi"[..]));
}

#[test]
fn without_upgrade_the_answer_is_200_without_chunks() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(PLAIN.as_bytes());
    assert_eq!(head(&mut raw), "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
    raw.send(b"hi");
    assert_eq!(raw.exactly(10), framed("hi"));
    raw.half_close();
    assert_eq!(raw.rest(), framed("bye"));
}

#[test]
fn bytes_in_the_packet_of_the_head_and_an_early_half_close_are_stdin() {
    let server = Server::start();
    for form in [UPGRADE, PLAIN] {
        let mut raw = server.connect();
        raw.send(format!("{form}early").as_bytes());
        raw.half_close();
        head(&mut raw);
        let mut expected = framed("early");
        expected.extend(framed("bye"));
        assert_eq!(raw.rest(), expected);
    }
}

#[test]
fn a_head_sent_byte_by_byte_is_understood() {
    let server = Server::start();
    let mut raw = server.connect();
    for byte in UPGRADE.as_bytes().chunks(1) {
        raw.send(byte);
    }
    assert!(head(&mut raw).starts_with("HTTP/1.1 101 UPGRADED"));
    raw.send(b"x");
    assert_eq!(raw.exactly(9), framed("x"));
}

#[test]
fn answers_to_pipelined_requests_come_first() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(format!("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n{UPGRADE}x").as_bytes());
    raw.until(b"\r\n\r\nOK");
    assert!(head(&mut raw).starts_with("HTTP/1.1 101 UPGRADED"));
    assert_eq!(raw.exactly(9), framed("x"));
}

#[test]
fn large_input_and_output_pass_whole() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.replace("/a/", "/tty/").as_bytes());
    assert!(head(&mut raw).contains("application/vnd.docker.raw-stream"));
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    let mut writer = Raw(raw.0.try_clone().expect("clone"));
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.send(&copy);
        writer.half_close();
    });
    let got = raw.rest();
    writing.join().expect("writer");
    assert_eq!(got.len(), sent.len() + 3);
    assert!(got.starts_with(&sent) && got.ends_with(b"bye"));
}

#[test]
fn the_detach_keys_leave_the_process_alone() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.replace("/a/", "/tty/").as_bytes());
    head(&mut raw);
    raw.send(b"ab\x10");
    assert_eq!(raw.exactly(2), b"ab");
    raw.send(b"\x11");
    raw.rest();
    eventually("the backend heard of it", || server.fake.detached.load(Ordering::SeqCst));
}

#[test]
fn without_stdin_what_the_client_sends_is_dropped() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.replace("stdin=1&", "").as_bytes());
    head(&mut raw);
    raw.send(b"unheard");
    raw.half_close();
    assert_eq!(raw.rest(), framed("bye"));
    assert_eq!(server.fake.stdin.lock().expect("lock").as_deref(), Some(&b""[..]));
}

#[test]
fn a_failed_attach_answers_in_the_stream_s_type() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.replace("/a/", "/nope/").as_bytes());
    let all = String::from_utf8(raw.rest()).expect("text");
    assert!(all.starts_with("HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nNo such container: nope\r\n"), "{all}");
    let mut raw = server.connect();
    raw.send(PLAIN.replace("stream=1", "stream=1&detachKeys=zzz").as_bytes());
    let all = String::from_utf8(raw.rest()).expect("text");
    assert!(all.starts_with("HTTP/1.1 400 ") && all.ends_with("Invalid detach keys (zzz) provided\r\n"), "{all}");
}

fn exec(id: &str, body: &str, upgrade: bool) -> String {
    let upgrade = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    format!(
        "POST /v1.51/exec/{id}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{upgrade}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn an_exec_start_reads_its_body_and_then_hijacks() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(format!("{}more", exec("e", "{\"Tty\":false}", true)).as_bytes());
    let answer = head(&mut raw);
    assert!(answer.starts_with("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"));
    assert!(answer.contains("Api-Version: 1.51\r\n") && answer.contains("Ostype: linux\r\n"), "{answer}");
    assert_eq!(raw.exactly(12), framed("more"));

    let mut raw = server.connect();
    raw.send(exec("e", "{\"Tty\":true}", false).as_bytes());
    assert!(head(&mut raw).starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"));
    raw.half_close();
    assert_eq!(raw.rest(), b"bye");
}

#[test]
fn the_connection_ends_when_the_exit_code_can_be_asked_for() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(exec("e", "{}", true).as_bytes());
    head(&mut raw);
    raw.half_close();
    assert_eq!(raw.rest(), framed("bye"));
    assert!(server.fake.exit_known.load(Ordering::SeqCst));
}

#[test]
fn an_exec_that_cannot_start_says_so_in_the_stream() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(exec("notfound", "{}", true).as_bytes());
    head(&mut raw);
    assert_eq!(raw.rest(), framed("exec: \"x\": executable file not found\r\n"));
}

#[test]
fn a_detached_exec_answers_at_once() {
    let server = Server::start();
    let answer = server.post("/exec/e/start", "{\"Detach\":true}");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let none = server.post("/containers/a/exec", "{}");
    assert_eq!((none.status, none.message().as_str()), (400, "No exec command specified"));
}

#[test]
fn a_client_that_leaves_before_the_start_frees_its_connection() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.replace("/a/", "/unstarted/").as_bytes());
    head(&mut raw);
    drop(raw);
    // Shutdown waits for connections at work; it would take its whole grace if this one were still there.
    server.finish();
}

#[test]
fn shutdown_ends_attached_clients() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(UPGRADE.as_bytes());
    head(&mut raw);
    server.finish();
    assert!(raw.rest().is_empty());
}

#[test]
fn a_websocket_carries_input_and_output() {
    let server = Server::start();
    let mut raw = server.connect();
    raw.send(b"GET /containers/a/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let answer = head(&mut raw);
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    // A masked binary frame with an all-zero mask is its own plain text.
    raw.send(b"\x82\x82\0\0\0\0hi");
    assert_eq!(raw.exactly(4), b"\x82\x02hi", "the stdcopy header is gone");
    raw.send(b"\x89\x81\0\0\0\0p");
    assert_eq!(raw.exactly(3), b"\x8a\x01p", "a ping is answered");
    raw.send(b"\x88\x80\0\0\0\0");
    assert!(raw.rest().is_empty());
    let plain = server.get("/containers/a/attach/ws?stream=1");
    assert_eq!((plain.status, plain.body.as_str()), (400, "Bad Request"));
    assert_eq!(server.get("/containers/nope/attach/ws?stream=1&stdin=1").status, 404);
}
