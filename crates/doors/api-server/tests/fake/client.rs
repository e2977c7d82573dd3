//! A raw client: bytes as written, bytes as read, deadlines everywhere.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wharf_api_server::{Address, Listener, serve};

use super::fake::{Fake, identity};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A server with a fake engine on a socket of its own.
pub struct Server {
    /// Where it listens.
    pub path: PathBuf,
    /// The engine.
    pub fake: Arc<Fake>,
    /// Turns true to stop it.
    pub stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    served: Option<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("api.sock");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let listeners = runtime.block_on(Listener::bind(&Address::Unix(path.clone()), "docker")).expect("bound");
        let served = runtime.spawn(serve(listeners, fake.backends(), identity(), stopped, Duration::from_secs(5)));
        Self { path, fake, stop, runtime: Some(runtime), served: Some(served), _dir: dir }
    }

    /// Connects.
    pub fn connect(&self) -> Raw {
        let stream = UnixStream::connect(&self.path).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
        Raw(stream)
    }

    /// Sends one request on a connection of its own and reads the answer whole.
    pub fn ask(&self, head: &str, body: &str) -> Answer {
        let mut raw = self.connect();
        let length = if body.is_empty() && !head.starts_with("POST") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        raw.send(format!("{head}\r\nHost: d\r\nConnection: close\r\n{length}\r\n{body}").as_bytes());
        Answer::parse(&raw.rest())
    }

    /// Sends a GET.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), "")
    }

    /// Sends JSON.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path} HTTP/1.1\r\nContent-Type: application/json"), body)
    }

    /// Stops the server and waits until it has.
    pub fn finish(mut self) {
        self.stop.send(true).expect("still serving");
        let (runtime, served) = (self.runtime.take().expect("once"), self.served.take().expect("once"));
        runtime.block_on(async { tokio::time::timeout(DEADLINE, served).await }).expect("in time").expect("no panic");
    }
}

/// One connection.
pub struct Raw(pub UnixStream);

impl Raw {
    /// Writes all of it.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("sent");
    }

    /// Reads until the given bytes came; returns all up to and including them.
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut byte = [0];
        while !all.ends_with(end) {
            let n = self.0.read(&mut byte).expect("in time");
            assert_ne!(n, 0, "ended after {:?}", String::from_utf8_lossy(&all));
            all.push(byte[0]);
        }
        all
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.read_exact(&mut bytes).expect("in time");
        bytes
    }

    /// Reads until the server ends the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self.0.read_to_end(&mut all) {
            Ok(_) => all,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => all,
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&all)),
        }
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        self.0.shutdown(Shutdown::Write).expect("half-closed");
    }
}

/// An answer, split.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, whole.
    pub head: String,
    /// The body, without chunk framing.
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = if head.contains("Transfer-Encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Self { status, head: head.to_owned(), body }
    }

    /// The message of an error.
    pub fn message(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        value["message"].as_str().unwrap_or_default().to_owned()
    }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = &rest[(size + 2).min(rest.len())..];
    }
    out
}

/// Waits until something is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
