//! A thin blocking REST client on a unix socket: what a client adds to a call should not hide what the daemon does.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Rest {
    socket: PathBuf,
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Header lines as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A connection after the head of the answer was read: the body, a stream, or hijacked bytes follow.
pub struct Open {
    /// The HTTP status.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Everything after the head.
    pub stream: BufReader<UnixStream>,
}

impl Rest {
    /// Talks to the daemon at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends a request on a new connection and reads the head of its answer.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Open> {
        let mut socket = UnixStream::connect(&self.socket)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type")) && !body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        socket.write_all(&bytes)?;
        let mut stream = BufReader::new(socket);
        let (status, headers) = read_head(&mut stream)?;
        Ok(Open { status, headers, stream })
    }

    /// Sends a request and reads the whole answer.
    pub fn call(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Response> {
        let open = self.open(method, path, &[("Connection", "close")], body)?;
        open.finish()
    }

    /// GET, whole.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, b"").unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// POST of a JSON value, whole.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Response {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.call("POST", path, &bytes).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }
}

impl Open {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Reads the rest of the answer: chunked, by length, or to the end.
    pub fn finish(mut self) -> std::io::Result<Response> {
        let mut body = Vec::new();
        let length = self.header("content-length").and_then(|l| l.parse::<u64>().ok());
        if self.header("transfer-encoding").is_some_and(|t| t.contains("chunked")) {
            while let Some(chunk) = read_chunk(&mut self.stream)? {
                body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = length {
            (&mut self.stream).take(length).read_to_end(&mut body)?;
        } else if !matches!(self.status, 204 | 304) {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

fn read_head(stream: &mut BufReader<UnixStream>) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let broken = || std::io::Error::other(format!("no HTTP status line: {line:?}"));
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(broken)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads one chunk of a chunked body; none at the end.
pub(crate) fn read_chunk(stream: &mut BufReader<UnixStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let size = line.trim_end().split(';').next().unwrap_or_default();
    let size = usize::from_str_radix(size, 16).map_err(|_| std::io::Error::other(format!("chunk size {line:?}")))?;
    let mut bytes = vec![0; size + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(size);
    Ok((size > 0).then_some(bytes))
}
