//! Connections to hosts: opened directly or through a proxy, kept for the next request, given up when nothing comes.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::endpoint::{TlsSettings, without_port};
use crate::proxy::{Proxies, Proxy};
use crate::tls::TlsCache;
use crate::{DistributionError, TransportError};

/// Idle connections kept for one host.
const IDLE: usize = 8;
/// How long an idle connection is trusted to be alive.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long connecting may take.
const DIAL: Duration = Duration::from_secs(30);
/// Bytes that one read takes from a connection: large enough for speed, small enough for many at a time.
const READ_BUFFER: usize = 256 << 10;

/// What a request carries. It can be made again, for requests that are sent again.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stream of known length.
    Stream(Arc<dyn Fn() -> mpsc::Receiver<io::Result<Bytes>> + Send + Sync>, u64),
}

/// A payload on its way.
pub(crate) struct Sending {
    kind: Kind,
    sent: Arc<AtomicU64>,
}

enum Kind {
    Whole(Option<Bytes>),
    Stream { source: mpsc::Receiver<io::Result<Bytes>>, left: u64 },
}

impl Payload {
    fn begin(&self, sent: Arc<AtomicU64>) -> Sending {
        let kind = match self {
            Payload::Empty => Kind::Whole(None),
            Payload::Bytes(bytes) => Kind::Whole(Some(bytes.clone())),
            Payload::Stream(make, size) => Kind::Stream { source: make(), left: *size },
        };
        Sending { kind, sent }
    }

    fn size(&self) -> u64 {
        match self {
            Payload::Empty => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Stream(_, size) => *size,
        }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match &mut self.kind {
            Kind::Whole(bytes) => bytes.take().map(Ok),
            Kind::Stream { left: 0, .. } => None,
            Kind::Stream { source, left } => match source.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if bytes.len() as u64 <= *left => {
                    *left -= bytes.len() as u64;
                    Some(Ok(bytes))
                }
                Poll::Ready(Some(Err(e))) => Some(Err(e)),
                // More or less than was announced.
                Poll::Ready(_) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            },
        };
        if let Some(Ok(bytes)) = &next {
            self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Whole(None) | Kind::Stream { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.kind {
            Kind::Whole(bytes) => bytes.as_ref().map_or(0, |b| b.len() as u64),
            Kind::Stream { left, .. } => *left,
        })
    }
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// TLS settings, or plain.
    pub(crate) tls: Option<TlsSettings>,
    /// `host[:port]`.
    pub(crate) host: String,
}

impl Route {
    fn address(&self) -> String {
        let bare = match self.host.rsplit_once(':') {
            None => true,
            Some((_, port)) => port.ends_with(']'),
        };
        let port = if self.tls.is_some() { 443 } else { 80 };
        if bare { format!("{}:{port}", self.host) } else { self.host.clone() }
    }
}

struct Idle {
    sender: SendRequest<Sending>,
    since: Instant,
}

type Pool = Mutex<HashMap<Route, Vec<Idle>>>;

/// All connections of one client.
pub(crate) struct Transport {
    idle: Arc<Pool>,
    tls: TlsCache,
    proxies: Proxies,
    pub(crate) stall: Duration,
}

/// An answer whose body is read as it comes.
pub(crate) struct Answer {
    /// Status and headers.
    pub(crate) head: http::response::Parts,
    body: Incoming,
    /// Kept to use the connection again when the body is complete.
    sender: Option<SendRequest<Sending>>,
    pool: Weak<Pool>,
    route: Route,
    stall: Duration,
}

impl Answer {
    /// The next piece of the body, or `None` at its end. A body cut off before its announced end is an error.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            let frame = tokio::time::timeout(self.stall, self.body.frame()).await;
            match frame.map_err(|_| TransportError::Stalled(self.stall.as_secs()))? {
                None => {
                    self.keep();
                    return Ok(None);
                }
                Some(Err(e)) => return Err(broken(&e)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_) => {} // trailers
                },
            }
        }
    }

    /// Reads a body of at most `limit` bytes; `None` where it is larger.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>, TransportError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if all.len() + bytes.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all.into()))
    }

    fn keep(&mut self) {
        let (Some(sender), Some(pool)) = (self.sender.take(), self.pool.upgrade()) else { return };
        if sender.is_closed() {
            return;
        }
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pool.entry(self.route.clone()).or_default();
        if idle.len() < IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// Says what hyper says, with its cause.
fn broken(e: &hyper::Error) -> TransportError {
    let mut text = match e.is_incomplete_message() {
        true => "unexpected EOF".to_owned(),
        false => e.to_string(),
    };
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    TransportError::Http(text)
}

impl Transport {
    pub(crate) fn new(proxies: Proxies, stall: Duration) -> Self {
        Self { idle: Arc::default(), tls: TlsCache::default(), proxies, stall }
    }

    /// Sends a request whose URI is a path, and reads the head of its answer. A kept connection that turns out closed
    /// is replaced once.
    pub(crate) async fn send(
        &self,
        route: &Route,
        request: &Request<()>,
        payload: &Payload,
    ) -> Result<Answer, DistributionError> {
        let failed = |source| {
            let scheme = if route.tls.is_some() { "https" } else { "http" };
            let url = format!("{scheme}://{}{}", route.host, request.uri().path());
            DistributionError::Request { method: go_method(request.method().as_str()), url, source }
        };
        while let Some(sender) = self.take(route) {
            match self.exchange(route, sender, request, payload).await {
                // It was closed meanwhile; nothing of the request was taken, or it may be repeated.
                Err(TransportError::Http(_)) => {}
                other => return other.map_err(failed),
            }
        }
        let sender = match self.open(route).await {
            Ok(sender) => sender,
            Err(Opening::Transport(e)) => return Err(failed(e)),
            Err(Opening::Settings(e)) => return Err(*e),
        };
        self.exchange(route, sender, request, payload).await.map_err(failed)
    }

    fn take(&self, route: &Route) -> Option<SendRequest<Sending>> {
        let mut pool = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pool.get_mut(route)?;
        while let Some(kept) = idle.pop() {
            if kept.since.elapsed() < IDLE_TIME && kept.sender.is_ready() {
                return Some(kept.sender);
            }
        }
        pool.remove(route);
        None
    }

    async fn exchange(
        &self,
        route: &Route,
        mut sender: SendRequest<Sending>,
        request: &Request<()>,
        payload: &Payload,
    ) -> Result<Answer, TransportError> {
        let sent = Arc::new(AtomicU64::new(0));
        let mut outgoing = Request::builder().method(request.method()).uri(request.uri());
        for (name, value) in request.headers() {
            outgoing = outgoing.header(name, value);
        }
        if !outgoing.headers_ref().is_some_and(|h| h.contains_key(header::HOST)) {
            outgoing = outgoing.header(header::HOST, &route.host);
        }
        if payload.size() == 0 && matches!(request.method().as_str(), "POST" | "PUT" | "PATCH") {
            outgoing = outgoing.header(header::CONTENT_LENGTH, 0);
        }
        let outgoing = outgoing.body(payload.begin(sent.clone())).map_err(|e| TransportError::Http(e.to_string()))?;
        let answer = {
            let mut answering = std::pin::pin!(sender.send_request(outgoing));
            let mut before = 0;
            loop {
                match tokio::time::timeout(self.stall, &mut answering).await {
                    Ok(answer) => break answer.map_err(|e| broken(&e))?,
                    // As long as bytes go out the other side is alive.
                    Err(_) => match sent.load(Ordering::Relaxed) {
                        now if now > before => before = now,
                        _ => return Err(TransportError::Stalled(self.stall.as_secs())),
                    },
                }
            }
        };
        let (head, body) = Response::into_parts(answer);
        let pool = Arc::downgrade(&self.idle);
        let mut answer = Answer { head, body, sender: Some(sender), pool, route: route.clone(), stall: self.stall };
        if answer.body.is_end_stream() {
            answer.keep();
        }
        Ok(answer)
    }

    async fn open(&self, route: &Route) -> Result<SendRequest<Sending>, Opening> {
        let proxy = self.proxies.to(route.tls.is_some(), &route.host);
        let (target, tunnel) = match &proxy {
            Some(proxy) => (proxy.address.clone(), route.tls.is_some()),
            None => (route.address(), false),
        };
        let mut stream = dial(&target).await?;
        // Small requests must not wait for an acknowledgement (RFC 896).
        let _ = stream.set_nodelay(true);
        if let Some(proxy) = proxy.as_ref().filter(|_| tunnel) {
            connect_through(&mut stream, proxy, &route.address()).await?;
        }
        let Some(settings) = &route.tls else {
            return handshake(stream).await.map_err(Opening::Transport);
        };
        let config = self.tls.config(settings).map_err(|e| Opening::Settings(Box::new(e)))?;
        let name = ServerName::try_from(without_port(&route.host).to_owned());
        let name = name.map_err(|e| TransportError::Tls { reason: e.to_string(), plain: false })?;
        let encrypted = tokio::time::timeout(DIAL, TlsConnector::from(config).connect(name, stream)).await;
        let encrypted = encrypted.map_err(|_| TransportError::Stalled(DIAL.as_secs()))?.map_err(|e| tls_error(&e))?;
        handshake(encrypted).await.map_err(Opening::Transport)
    }

    /// The header that a proxy for plain requests wants, and the request's target in its form.
    pub(crate) fn plain_proxy(&self, route: &Route) -> Option<Option<String>> {
        if route.tls.is_some() {
            return None;
        }
        self.proxies.to(false, &route.host).map(|proxy| proxy.login.map(|login| basic(&login)))
    }
}

/// Why no connection came about.
enum Opening {
    Transport(TransportError),
    Settings(Box<DistributionError>),
}

impl From<TransportError> for Opening {
    fn from(e: TransportError) -> Self {
        Opening::Transport(e)
    }
}

/// `Basic …` of `user:password`.
pub(crate) fn basic(login: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
}

/// Go writes methods in its errors as `Head`, `Get`.
fn go_method(method: &str) -> String {
    let mut chars = method.chars();
    let first = chars.next();
    first.into_iter().chain(chars.flat_map(char::to_lowercase)).collect()
}

async fn dial(address: &str) -> Result<TcpStream, TransportError> {
    let host = without_port(address).to_owned();
    let found = tokio::net::lookup_host(address).await;
    let addresses: Vec<_> = found.map_err(|source| TransportError::Lookup { host: host.clone(), source })?.collect();
    let mut last = TransportError::Lookup { host, source: io::ErrorKind::NotFound.into() };
    for address in addresses {
        match tokio::time::timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = TransportError::Connect { address: address.to_string(), reason: go_reason(&e) },
            Err(_) => {
                last = TransportError::Connect { address: address.to_string(), reason: "i/o timeout".to_owned() };
            }
        }
    }
    Err(last)
}

fn go_reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => e.to_string(),
    }
}

/// Asks a proxy for a tunnel (RFC 9110 §9.3.6).
async fn connect_through(stream: &mut TcpStream, proxy: &Proxy, target: &str) -> Result<(), TransportError> {
    let failed = |e: io::Error| TransportError::Proxy(e.to_string());
    let login = proxy.login.as_deref().map(|login| format!("Proxy-Authorization: {}\r\n", basic(login)));
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", login.unwrap_or_default());
    stream.write_all(ask.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    let read = async {
        let mut byte = [0];
        // Byte by byte: what follows the head belongs to the tunnel.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > 16 << 10 || stream.read(&mut byte).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            head.push(byte[0]);
        }
        Ok(())
    };
    let read = tokio::time::timeout(DIAL, read).await;
    read.map_err(|_| TransportError::Stalled(DIAL.as_secs()))?.map_err(failed)?;
    let text = String::from_utf8_lossy(&head);
    let status = text.lines().next().unwrap_or_default().split(' ').skip(1).collect::<Vec<_>>().join(" ");
    if status.starts_with("200") { Ok(()) } else { Err(TransportError::Proxy(status)) }
}

fn tls_error(e: &io::Error) -> TransportError {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let plain = matches!(inner, Some(rustls::Error::InvalidMessage(_)));
    let reason = match inner {
        Some(rustls::Error::InvalidMessage(_)) => "first record does not look like a TLS handshake".to_owned(),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(e)) => format!("failed to verify certificate: x509: {e}"),
        Some(other) => other.to_string(),
        None => go_reason(e),
    };
    // A plain server often just closes on what it cannot read.
    let closed = inner.is_none()
        && matches!(
            e.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
    TransportError::Tls { reason, plain: plain || closed }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<SendRequest<Sending>, TransportError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_BUFFER.max(8 << 10)).max_headers(128);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    tokio::spawn(async move {
        // Whoever waits for an answer hears of it too.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a registry ended");
        }
    });
    Ok(sender)
}

/// A header value of a text; texts that cannot be one are left out.
pub(crate) fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
