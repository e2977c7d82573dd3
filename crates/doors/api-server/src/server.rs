//! Connections: accepting, HTTP/1.1 on each, draining at shutdown.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::sync::{mpsc, watch};
use wharf_error::Kind;

use crate::call::{Call, Link, RequestBody};
use crate::query::{Query, unescape};
use crate::respond::{self, Answer};
use crate::socket::{Gate, HyperIo, Socket};
use crate::version::{self, ApiVersion};
use crate::{ApiError, Backends, Listener, authorize, handlers, routes};

/// The largest request head taken, as Go's `DefaultMaxHeaderBytes`: registry credentials travel in headers.
const HEAD_LIMIT: usize = 1 << 20;

/// What the version headers say.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `Docker/<version> (linux)`, the `Server` header.
    pub server: String,
    /// The newest API version, `1.51`.
    pub api_version: String,
    /// The oldest API version, `1.24`.
    pub min_api_version: String,
    /// Whether experimental features are on.
    pub experimental: bool,
    /// The builder offered to clients: `2` is BuildKit, `1` the classic one.
    pub builder_version: String,
}

impl Identity {
    /// The headers of every answer to a known path.
    pub fn headers(&self) -> Vec<(String, String)> {
        [
            ("Api-Version", self.api_version.as_str()),
            ("Docker-Experimental", if self.experimental { "true" } else { "false" }),
            ("Ostype", "linux"),
            ("Server", &self.server),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn stamp(&self, answer: &mut Answer) {
        for (name, value) in self.headers() {
            // Names and values come from the daemon's own constants; one that is no header is left out.
            if let (Ok(name), Ok(value)) =
                (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
            {
                answer.headers_mut().insert(name, value);
            }
        }
    }
}

struct Shared {
    backends: Backends,
    identity: Arc<Identity>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` turns true: then accepts nothing new, ends idle connections and streams (logs -f, events,
/// attach), and returns when the requests at work are done or `grace` has passed.
pub async fn serve(
    listeners: Vec<Listener>,
    backends: Backends,
    identity: Identity,
    stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let shared = Arc::new(Shared { backends, identity: Arc::new(identity), stop: stop.clone() });
    // Each connection holds a sender; the receiver ends when the last one is dropped.
    let (alive, mut done) = mpsc::channel::<Infallible>(1);
    let mut acceptors = tokio::task::JoinSet::new();
    for listener in listeners {
        acceptors.spawn(accept(listener, Arc::clone(&shared), alive.clone()));
    }
    drop(alive);
    while acceptors.join_next().await.is_some() {}
    if tokio::time::timeout(grace, done.recv()).await.is_err() {
        tracing::warn!("requests still at work when the time for them ended");
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>, alive: mpsc::Sender<Infallible>) {
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(client) => {
                let (shared, alive) = (Arc::clone(&shared), alive.clone());
                tokio::spawn(async move {
                    match client.ready().await {
                        Ok((socket, user)) => connection(socket, user, shared).await,
                        Err(e) => tracing::debug!(error = %e, "TLS handshake error"),
                    }
                    drop(alive);
                });
            }
            Err(e) => {
                // Out of descriptors or memory: existing connections may give some back.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

type Served = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

async fn connection(socket: Socket, user: Arc<str>, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let gate = Arc::new(Gate::default());
    let takeover = Arc::new(Mutex::new(None));
    let link = Link {
        socket: Arc::clone(&socket),
        gate: Arc::clone(&gate),
        takeover: Arc::clone(&takeover),
        stop: shared.stop.clone(),
        user,
    };
    let mut stop = shared.stop.clone();
    let service = service_fn(move |request: Request<Incoming>| -> Served {
        let (shared, link) = (Arc::clone(&shared), link.clone());
        Box::pin(async move { Ok(answer(request, &shared, link).await) })
    });
    let io = HyperIo::new(Arc::clone(&socket), Arc::clone(&gate));
    let mut http = http1::Builder::new();
    // A client that half-closes its side after an attach request ends the process' stdin, not the request.
    http.half_close(true).title_case_headers(true).max_buf_size(HEAD_LIMIT);
    let mut http = http.serve_connection(io, service);
    let mut stopping = false;
    let finished = {
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        loop {
            tokio::select! {
                result = poll_fn(|cx| http.poll_without_shutdown(cx)) => break result,
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
            }
        }
    };
    let taken = takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (finished, taken) {
        (Ok(()), Some(takeover)) => {
            let early = http.into_parts().read_buf;
            tokio::select! {
                () = takeover.run(Arc::clone(&socket), gate.take_earlier(), &early) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        (Ok(()), None) => {}
        (Err(e), _) => tracing::debug!(error = %e, "connection ended"),
    }
    socket.shutdown(rustix::net::Shutdown::Both);
}

async fn answer(request: Request<Incoming>, shared: &Shared, link: Link) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (mut parts, body) = request.into_parts();
    let mut body = RequestBody::new(body);
    tracing::debug!(%method, path = %uri.path(), "handling {method} request");
    if parts.version == http::Version::HTTP_11 && !parts.headers.contains_key(header::HOST) {
        return refused("400 Bad Request: missing required Host header");
    }
    let Ok(path) = unescape(uri.path(), false) else {
        return refused("400 Bad Request");
    };
    if !path.starts_with('/') {
        return refused("400 Bad Request");
    }
    let clean = routes::clean(&path);
    if clean != path {
        return redirect(&clean, uri.query());
    }
    let (version, rest) = version::split(&path);
    let Some((endpoint, name)) = routes::find(method.as_str(), rest) else {
        return respond::error(&ApiError::new(Kind::NotFound, "page not found"));
    };
    let mut answer = match check_version(version, &shared.identity) {
        Ok(version) => {
            let name = name.to_owned();
            let authorizer = &shared.backends.authorizer;
            let allowed = authorize::request(authorizer, endpoint, &parts, &mut body, &link.user).await;
            match (Query::parse(uri.query().unwrap_or_default()), allowed) {
                (Ok(query), Ok(allowed)) => {
                    let call = Call {
                        endpoint,
                        name,
                        version,
                        query,
                        headers: std::mem::take(&mut parts.headers),
                        body,
                        backends: shared.backends.clone(),
                        link: link.clone(),
                        method: method.clone(),
                        identity: Arc::clone(&shared.identity),
                    };
                    let answer = handlers::handle(call).await.unwrap_or_else(|e| fail(&method, &path, &e));
                    match allowed {
                        None => answer,
                        Some(allowed) => {
                            allowed.response(answer, &link).await.unwrap_or_else(|e| fail(&method, &path, &e))
                        }
                    }
                }
                (_, Err(e)) | (Err(e), _) => fail(&method, &path, &e),
            }
        }
        Err(answer) => *answer,
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        shared.identity.stamp(&mut answer);
    }
    answer
}

fn fail(method: &http::Method, path: &str, e: &ApiError) -> Answer {
    if respond::status(e.kind).is_server_error() {
        tracing::error!("Handler for {method} {path} returned error: {e}");
    } else {
        tracing::debug!("Handler for {method} {path} returned error: {e}");
    }
    respond::error(e)
}

/// A request that HTTP itself forbids, in the form of Go's server.
fn refused(text: &'static str) -> Answer {
    let mut answer = respond::text(StatusCode::BAD_REQUEST, text);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn redirect(path: &str, query: Option<&str>) -> Answer {
    let mut target = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
                target.push(char::from(byte));
            }
            other => target.push_str(&format!("%{other:02X}")),
        }
    }
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let mut answer = respond::empty(StatusCode::MOVED_PERMANENTLY);
    if let Ok(target) = HeaderValue::from_str(&target) {
        answer.headers_mut().insert(header::LOCATION, target);
    }
    answer
}

/// Checks the version of the path; without one the client gets the newest.
fn check_version(given: Option<&str>, identity: &Identity) -> Result<ApiVersion, Box<Answer>> {
    let (newest, oldest) = (ApiVersion::parse(&identity.api_version), ApiVersion::parse(&identity.min_api_version));
    let Some(given) = given else { return Ok(newest) };
    let version = ApiVersion::parse(given);
    if version < oldest {
        // Clients that old read no JSON errors.
        let mut answer = respond::text(
            StatusCode::BAD_REQUEST,
            format!(
                "client version {given} is too old. Minimum supported API version is {}, please upgrade your client to a newer version\n",
                identity.min_api_version
            ),
        );
        answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        return Err(Box::new(answer));
    }
    if version > newest {
        return Err(Box::new(respond::error(&ApiError::invalid(format!(
            "client version {given} is too new. Maximum supported API version is {}",
            identity.api_version
        )))));
    }
    Ok(version)
}
