//! Requests and answers over connections.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;

use crate::chunks::Chunks;
use crate::connection::Connection;
use crate::error::Error;
use crate::host::Host;
use crate::message::{Framing, Head};
use crate::query::Query;
use crate::version::Version;

/// What a request carries.
pub enum Body<'a> {
    /// Nothing.
    None,
    /// JSON text.
    Json(Vec<u8>),
    /// A stream of unknown length, sent in chunks.
    Stream(&'a mut dyn Read),
    /// As [`Body::Stream`], of what this writes.
    Written(&'a mut dyn FnMut(&mut Chunks<'_>) -> io::Result<()>),
}

impl Body<'_> {
    /// Whether it can be sent only once.
    fn passes(&self) -> bool {
        matches!(self, Body::Stream(_) | Body::Written(_))
    }
}

/// One request.
pub struct Request<'a> {
    method: &'static str,
    path: String,
    query: Query,
    body: Body<'a>,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    protocol: &'static str,
}

impl<'a> Request<'a> {
    /// Begins a request; `path` comes without the version and must be escaped ([`crate::escape_path`]).
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Query::new(),
            body: Body::None,
            content_type: "application/json",
            headers: Vec::new(),
            protocol: "tcp",
        }
    }

    /// Begins a GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// Begins a POST.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new("POST", path)
    }

    /// Begins a DELETE.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    /// Sets the query.
    #[must_use]
    pub fn query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    /// Sets a body of JSON text.
    #[must_use]
    pub fn json(mut self, body: Vec<u8>) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// Sets a streamed body.
    #[must_use]
    pub fn stream(mut self, content_type: &'static str, body: &'a mut dyn Read) -> Self {
        self.body = Body::Stream(body);
        self.content_type = content_type;
        self
    }

    /// Sets a body that is written while it is sent.
    #[must_use]
    pub fn written(
        mut self,
        content_type: &'static str,
        body: &'a mut dyn FnMut(&mut Chunks<'_>) -> io::Result<()>,
    ) -> Self {
        self.body = Body::Written(body);
        self.content_type = content_type;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Names what is spoken on a connection that is taken over; `tcp` if nothing is said.
    #[must_use]
    pub fn protocol(mut self, protocol: &'static str) -> Self {
        self.protocol = protocol;
        self
    }

    fn head(&self, prefix: &str, client: &Client, upgrade: bool) -> Vec<u8> {
        let (host, agent) = (&client.host, &client.agent);
        let name = match host {
            // What Docker's client sends over a unix socket, so that logs read alike.
            Host::Unix(_) | Host::Ssh(_) => "api.moby.localhost",
            Host::Tcp(address) | Host::Tls(address, _) => address,
        };
        let mut head = format!(
            "{} {prefix}{}{} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: {agent}\r\n",
            self.method,
            self.path,
            self.query.as_str()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in &client.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if upgrade {
            head.push_str(&format!("Connection: Upgrade\r\nUpgrade: {}\r\n", self.protocol));
        }
        match &self.body {
            Body::None if self.method == "POST" => head.push_str("Content-Length: 0\r\n"),
            Body::None => {}
            Body::Json(b) => {
                head.push_str(&format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, b.len()))
            }
            Body::Stream(_) | Body::Written(_) => {
                head.push_str(&format!("Content-Type: {}\r\nTransfer-Encoding: chunked\r\n", self.content_type));
            }
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if let Body::Json(b) = &self.body {
            bytes.extend_from_slice(b);
        }
        bytes
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads the body as JSON.
    ///
    /// # Errors
    /// [`Error::Answer`] where it is not the JSON that is expected.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|e| Error::Answer(e.to_string()))
    }
}

/// An answer whose body is read as it comes.
#[derive(Debug)]
pub struct Streamed {
    /// Status and headers.
    pub head: Head,
    connection: Connection,
    framing: Framing,
    /// Bytes left in the chunk; the end of a chunk still to be read is `None`.
    chunk: Option<u64>,
    ended: bool,
}

impl Streamed {
    fn new(head: Head, connection: Connection, head_request: bool) -> Result<Self, Error> {
        let framing = head.framing(head_request).ok_or_else(|| Error::Answer("malformed Content-Length".into()))?;
        let ended = framing == Framing::Length(0);
        Ok(Self { head, connection, framing, chunk: Some(0), ended })
    }

    /// Returns the connection, for poll(2).
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn next_chunk(&mut self) -> io::Result<u64> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "malformed chunk");
        if self.chunk.is_none() && !self.connection.read_line()?.is_empty() {
            return Err(invalid());
        }
        let line = self.connection.read_line()?;
        let text = std::str::from_utf8(&line).map_err(|_| invalid())?;
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid())?;
        if size == 0 {
            while !self.connection.read_line()?.is_empty() {}
            self.ended = true;
        }
        self.chunk = Some(size);
        Ok(size)
    }

    fn read_some(&mut self, left: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.connection.read(&mut buf[..n])? {
            0 if n > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

impl Read for Streamed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended || buf.is_empty() {
            return Ok(0);
        }
        match self.framing {
            Framing::UntilClose => {
                let n = self.connection.read(buf)?;
                self.ended = n == 0;
                Ok(n)
            }
            Framing::Length(left) => {
                let n = self.read_some(left, buf)?;
                let left = left - n as u64;
                self.framing = Framing::Length(left);
                self.ended = left == 0;
                Ok(n)
            }
            Framing::Chunked => {
                let left = match self.chunk {
                    Some(left) if left > 0 => left,
                    _ => self.next_chunk()?,
                };
                if left == 0 {
                    return Ok(0);
                }
                let n = self.read_some(left, buf)?;
                let left = left - n as u64;
                self.chunk = if left == 0 { None } else { Some(left) };
                Ok(n)
            }
        }
    }
}

/// A request that has been sent and whose answer is still to be read.
#[derive(Debug)]
pub struct Pending {
    connection: Connection,
    head_request: bool,
}

/// A connection that the daemon has handed over to the two ends of a stream.
#[derive(Debug)]
pub struct Hijacked {
    /// Status and headers.
    pub head: Head,
    /// The raw stream.
    pub connection: Connection,
}

/// A client of one daemon.
#[derive(Debug)]
pub struct Client {
    host: Host,
    version: Cell<Version>,
    /// Whether the version is settled: given by the user, or confirmed by an answer.
    settled: Cell<bool>,
    agent: String,
    /// Sent with every request.
    headers: Vec<(String, String)>,
    idle: RefCell<Option<Connection>>,
}

impl Client {
    /// Makes a client; nothing is sent yet. `pinned` is the user's choice of a version (`DOCKER_API_VERSION`).
    pub fn new(host: Host, pinned: Option<Version>, agent: &str) -> Self {
        Self {
            host,
            version: Cell::new(pinned.unwrap_or(Version::NEWEST)),
            settled: Cell::new(pinned.is_some()),
            agent: agent.to_owned(),
            headers: Vec::new(),
            idle: RefCell::new(None),
        }
    }

    /// Adds headers to every request (`HttpHeaders` of the configuration); `User-Agent` takes the place of ours. Names and
    /// values that HTTP does not allow are left out.
    #[must_use]
    pub fn with_headers(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        for (name, value) in headers {
            if name.is_empty() || !name.chars().all(token) || value.chars().any(|c| c.is_control()) {
                continue;
            }
            if name.eq_ignore_ascii_case("user-agent") {
                self.agent = value;
            } else {
                self.headers.push((name, value));
            }
        }
        self
    }

    /// Returns the daemon's address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the version in use; before the first answer, the newest we speak.
    pub fn version(&self) -> Version {
        self.version.get()
    }

    /// Asks `/_ping` and settles the version, unless that has been done.
    ///
    /// # Errors
    /// Those of connecting and of the daemon.
    pub fn settle(&self) -> Result<(), Error> {
        if self.settled.get() {
            return Ok(());
        }
        let reply = self.exchange(&mut Request::new("HEAD", "/_ping"), "")?;
        let streamed = Streamed::new(reply.0, reply.1, true)?;
        self.learn(&streamed.head);
        self.keep(streamed);
        self.settled.set(true);
        Ok(())
    }

    fn learn(&self, head: &Head) {
        if let Some(theirs) = head.header("api-version").and_then(|v| v.parse::<Version>().ok()) {
            self.version.set(theirs.min(Version::NEWEST));
        }
    }

    /// Takes the idle connection or opens one.
    fn connect(&self) -> Result<(Connection, bool), Error> {
        match self.idle.borrow_mut().take() {
            Some(c) => Ok((c, true)),
            None => Ok((Connection::open(&self.host)?, false)),
        }
    }

    fn keep(&self, streamed: Streamed) {
        if streamed.ended && streamed.framing != Framing::UntilClose && !streamed.head.closes() {
            *self.idle.borrow_mut() = Some(streamed.connection);
        }
    }

    fn write(
        &self,
        connection: &mut Connection,
        request: &mut Request<'_>,
        prefix: &str,
        upgrade: bool,
    ) -> Result<(), Error> {
        let sending = |source| Error::Transfer { operation: "sending the request", source };
        let head = request.head(prefix, self, upgrade);
        connection.write_all(&head).map_err(sending)?;
        let source = match &mut request.body {
            Body::None | Body::Json(_) => return Ok(()),
            Body::Stream(source) => source,
            Body::Written(write) => {
                let mut chunks = Chunks::new(connection);
                let written = write(&mut chunks).and_then(|()| chunks.end());
                return match (written, chunks.failed) {
                    (_, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)) => Ok(()),
                    (Err(e), Some(_)) => Err(sending(e)),
                    (Err(e), None) => Err(Error::Source(e)),
                    (Ok(()), _) => Ok(()),
                };
            }
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match source.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Source(e)),
            };
            let mut chunk = format!("{n:x}\r\n").into_bytes();
            chunk.extend_from_slice(&buffer[..n]);
            chunk.extend_from_slice(b"\r\n");
            match connection.write_all(&chunk) {
                // The daemon may answer, and close, before it has read all: its answer says why.
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(e) => return Err(sending(e)),
                Ok(()) if n == 0 => return Ok(()),
                Ok(()) => {}
            }
        }
    }

    /// Sends and reads the head. An idle connection that turns out closed is replaced once.
    fn exchange(&self, request: &mut Request<'_>, prefix: &str) -> Result<(Head, Connection), Error> {
        let (mut connection, reused) = self.connect()?;
        let head = match self.write(&mut connection, request, prefix, false) {
            Ok(()) => connection.read_head()?,
            Err(Error::Transfer { .. }) if reused => None,
            Err(e) => return Err(e),
        };
        match head {
            Some(head) => Ok((head, connection)),
            None if reused && !request.body.passes() => {
                let mut connection = Connection::open(&self.host)?;
                self.write(&mut connection, request, prefix, false)?;
                let head = connection.read_head()?.ok_or_else(closed)?;
                Ok((head, connection))
            }
            None => Err(closed()),
        }
    }

    fn prefix(&self) -> String {
        format!("/v{}", self.version.get())
    }

    /// Turns an answer that says no into the daemon's error.
    fn refused(&self, head: Head, connection: Connection, head_request: bool) -> Error {
        let status = head.status;
        let mut body = Vec::new();
        if let Ok(streamed) = Streamed::new(head, connection, head_request) {
            let mut limited = streamed.take(1 << 20);
            // A body cut short still says more than none.
            let _ = limited.read_to_end(&mut body);
            self.keep(limited.into_inner());
        }
        Error::Daemon { status, message: message_of(status, &body) }
    }

    /// Whether a refusal only says that our version is too new; then the daemon's own is used from here on.
    fn outdated(&self, head: &Head, error: &Error) -> bool {
        let refused = matches!(error, Error::Daemon { status: 400, message } if message.contains("is too new"));
        if self.settled.get() || !refused || head.header("api-version").is_none() {
            return false;
        }
        self.learn(head);
        self.settled.set(true);
        true
    }

    /// Sends a request and returns its answer as a stream, once its status is good (below 400).
    ///
    /// # Errors
    /// Those of connecting, and the daemon's own as [`Error::Daemon`].
    pub fn open(&self, mut request: Request<'_>) -> Result<Streamed, Error> {
        if request.body.passes() {
            self.settle()?;
        }
        let head_request = request.method == "HEAD";
        let (head, connection) = self.exchange(&mut request, &self.prefix())?;
        if head.status < 400 {
            self.settled.set(true);
            return Streamed::new(head, connection, head_request);
        }
        let copy = head.clone();
        let error = self.refused(head, connection, head_request);
        if !self.outdated(&copy, &error) {
            return Err(error);
        }
        let (head, connection) = self.exchange(&mut request, &self.prefix())?;
        if head.status < 400 {
            Streamed::new(head, connection, head_request)
        } else {
            Err(self.refused(head, connection, head_request))
        }
    }

    /// Sends a request and reads its whole answer; the connection is kept for the next one.
    ///
    /// # Errors
    /// Those of [`Client::open`], and of a connection that breaks.
    pub fn call(&self, request: Request<'_>) -> Result<Reply, Error> {
        self.finish(self.open(request)?)
    }

    /// Reads what is left of an answer and keeps the connection.
    ///
    /// # Errors
    /// [`Error::Transfer`] where the connection breaks.
    pub fn finish(&self, mut streamed: Streamed) -> Result<Reply, Error> {
        let mut body = Vec::new();
        streamed
            .read_to_end(&mut body)
            .map_err(|source| Error::Transfer { operation: "reading the answer", source })?;
        let head = streamed.head.clone();
        self.keep(streamed);
        Ok(Reply { head, body })
    }

    /// Sends a request without waiting for the answer. The version must be settled, since it is not sent twice.
    ///
    /// # Errors
    /// Those of connecting and sending.
    pub fn send(&self, mut request: Request<'_>, upgrade: bool) -> Result<Pending, Error> {
        let mut connection = Connection::open(&self.host)?;
        self.write(&mut connection, &mut request, &self.prefix(), upgrade)?;
        Ok(Pending { connection, head_request: request.method == "HEAD" })
    }

    /// Reads the answer of a request that was sent before.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn receive(&self, pending: Pending) -> Result<Streamed, Error> {
        let Pending { mut connection, head_request } = pending;
        let head = connection.read_head()?.ok_or_else(closed)?;
        if head.status < 400 {
            return Streamed::new(head, connection, head_request);
        }
        Err(self.refused(head, connection, head_request))
    }

    /// Reads the answer of a request that was sent with `upgrade`, and takes the connection over.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn take_over(&self, pending: Pending) -> Result<Hijacked, Error> {
        let mut connection = pending.connection;
        let head = connection.read_head()?.ok_or_else(closed)?;
        if head.status < 400 { Ok(Hijacked { head, connection }) } else { Err(self.refused(head, connection, false)) }
    }

    /// Sends a request that turns the connection into a raw stream (attach, exec start).
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn hijack(&self, mut request: Request<'_>) -> Result<Hijacked, Error> {
        loop {
            let mut connection = match self.idle.borrow_mut().take() {
                Some(c) => c,
                None => Connection::open(&self.host)?,
            };
            self.write(&mut connection, &mut request, &self.prefix(), true)?;
            let head = connection.read_head()?.ok_or_else(closed)?;
            if head.status < 400 {
                self.settled.set(true);
                return Ok(Hijacked { head, connection });
            }
            let copy = head.clone();
            let error = self.refused(head, connection, false);
            if !self.outdated(&copy, &error) {
                return Err(error);
            }
        }
    }
}

fn closed() -> Error {
    Error::Transfer { operation: "reading the answer", source: io::ErrorKind::UnexpectedEof.into() }
}

fn message_of(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<wharf_api_types::ErrorResponse>(body) {
        Ok(e) if !e.message.is_empty() => e.message,
        _ => {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            if text.is_empty() { format!("request returned status {status}") } else { text }
        }
    }
}
