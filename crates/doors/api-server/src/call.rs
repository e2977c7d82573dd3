//! One request on its way to a handler.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming as HyperBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use wharf_error::Kind;

use crate::backend::{Incoming, Stdio};
use crate::detach::DetachKeys;
use crate::gotypes::Root;
use crate::hijack::{self, After, Takeover};
use crate::query::Query;
use crate::respond::{self, Answer, Ends};
use crate::routes::Endpoint;
use crate::socket::{Gate, HIJACK_MARK, Socket};
use crate::version::ApiVersion;
use crate::{ApiError, Backends, json, shapes};

/// The largest JSON body taken, as a bound on memory: the largest real ones (thousands of variables) stay far below.
const JSON_LIMIT: usize = 8 * 1024 * 1024;
/// How much of a body that is too large is read and dropped, so that its sender gets to see the answer.
const JSON_PATIENCE: usize = 128 * 1024 * 1024;
/// Chunks of an upload that wait between the connection and its reader.
const UPLOAD_CHUNKS: usize = 8;

/// A connection's parts that a request may need.
#[derive(Clone)]
pub struct Link {
    /// The socket.
    pub socket: Arc<Socket>,
    /// What holds back the head of a hijacked answer.
    pub gate: Arc<Gate>,
    /// Where a handler leaves what to do after hyper has let go.
    pub takeover: Arc<Mutex<Option<Takeover>>>,
    /// Turns true at shutdown.
    pub stop: watch::Receiver<bool>,
    /// The name in the client's certificate, or empty.
    pub user: Arc<str>,
}

/// One request, routed and split.
pub struct Call {
    /// What it asks for.
    pub endpoint: Endpoint,
    /// The resource's name in the path, decoded.
    pub name: String,
    /// The client's API version.
    pub version: ApiVersion,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, unread.
    pub body: RequestBody,
    /// The engine.
    pub backends: Backends,
    /// The connection.
    pub link: Link,
    /// The method.
    pub method: http::Method,
    /// Who answers.
    pub identity: Arc<crate::Identity>,
}

/// A request's body. What nobody has read of it is read and dropped, within bounds, so that a client that is still
/// sending gets to see the answer and can use the connection again (Go's server does the same).
pub struct RequestBody {
    body: Option<HyperBody>,
    /// What was read of it already, for somebody else.
    held: Option<Bytes>,
}

/// How much of an unread body is dropped before the connection is given up, as in Go's server.
const DRAIN_LIMIT: usize = 256 * 1024;

impl RequestBody {
    /// Takes a body.
    pub fn new(body: HyperBody) -> Self {
        Self { body: Some(body), held: None }
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        if let Some(held) = self.held.take() {
            return Some(Ok(Frame::data(held)));
        }
        self.body.as_mut()?.frame().await
    }

    fn is_empty(&self) -> bool {
        self.held.is_none() && self.body.as_ref().is_none_or(|body| body.size_hint().exact() == Some(0))
    }

    /// Reads the whole body, keeps it for the handler, and shows it.
    pub(crate) async fn hold(&mut self) -> Result<Bytes, ApiError> {
        let bytes = self.whole().await?;
        self.body = None;
        self.held = (!bytes.is_empty()).then(|| bytes.clone());
        Ok(bytes)
    }

    /// Reads to the end, within bounds.
    async fn whole(&mut self) -> Result<Bytes, ApiError> {
        let mut bytes = BytesMut::new();
        let mut received = 0;
        while let Some(frame) = self.next().await {
            let frame = frame.map_err(|e| cut(&e))?;
            if let Ok(data) = frame.into_data() {
                received += data.len();
                if received <= JSON_LIMIT {
                    bytes.extend_from_slice(&data);
                } else if received > JSON_PATIENCE {
                    break;
                }
            }
        }
        if received > JSON_LIMIT {
            return Err(ApiError::new(Kind::TooLarge, "http: request body too large"));
        }
        Ok(bytes.freeze())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        tokio::spawn(async move {
            let mut dropped = 0;
            while let Some(Ok(frame)) = body.frame().await {
                dropped += frame.data_ref().map_or(0, Bytes::len);
                if dropped > DRAIN_LIMIT {
                    return;
                }
            }
        });
    }
}

/// A handler's result.
pub type Handled = Result<Answer, ApiError>;

impl Call {
    /// What ends a streamed answer.
    pub fn ends(&self) -> Ends {
        Ends { socket: Arc::clone(&self.link.socket), stop: self.link.stop.clone() }
    }

    /// A 200 with JSON in the shape of the client's version.
    pub fn ok(&self, value: &impl Serialize) -> Answer {
        if !shapes::differs(self.endpoint, &self.version) {
            return respond::json(StatusCode::OK, value);
        }
        // The types always serialise; null would be plainly wrong rather than misleading.
        let mut value = serde_json::to_value(value).unwrap_or_default();
        shapes::age(self.endpoint, &self.version, &mut value);
        respond::json(StatusCode::OK, &value)
    }

    /// Reads a JSON body whole; an empty one is an empty object.
    pub async fn json<T: DeserializeOwned + Default>(&mut self, root: Root) -> Result<T, ApiError> {
        let body = self.json_bytes().await?;
        if body.is_empty() {
            return Ok(T::default());
        }
        Ok(json::decode::<Option<T>>(&body, root)?.unwrap_or_default())
    }

    /// Reads the bytes of a body that must be JSON by its content type; an empty body needs none.
    pub async fn json_bytes(&mut self) -> Result<Bytes, ApiError> {
        let content_type = self.headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
        if content_type.is_some() || !self.body.is_empty() {
            check_json_type(content_type.as_deref().unwrap_or_default())?;
        }
        self.body.whole().await
    }

    /// Passes the body on while it comes in.
    pub fn upload(self) -> Incoming {
        let (sender, receiver) = mpsc::channel(UPLOAD_CHUNKS);
        let mut body = self.body;
        tokio::spawn(async move {
            while let Some(frame) = body.next().await {
                let chunk = match frame {
                    Ok(frame) => frame.into_data().map_err(|_| None),
                    Err(e) => Err(Some(cut(&e))),
                };
                let sent = match chunk {
                    Ok(data) => sender.send(Ok(data)).await,
                    Err(None) => continue, // trailers
                    Err(Some(e)) => sender.send(Err(e)).await,
                };
                if sent.is_err() {
                    return; // The reader has what it wanted.
                }
            }
        });
        receiver
    }

    /// Whether the client asked to change the protocol of the connection.
    pub fn upgrade(&self) -> bool {
        self.headers.contains_key(header::UPGRADE)
    }

    /// Answers with success and joins the connection to a process. `further` headers go into the head.
    pub fn hijack(&self, stdio: Stdio, keys: DetachKeys, further: &[(String, String)]) -> Answer {
        let multiplexed = !stdio.tty && !self.version.before(42);
        let head = hijack::success_head(self.upgrade(), multiplexed, further);
        self.take_over(Takeover { head, after: After::Raw(stdio, keys) })
    }

    /// Answers as moby does after it has hijacked: an error that is not JSON, and the connection's end.
    pub fn hijack_failure(&self, error: &ApiError) -> Answer {
        self.take_over(Takeover { head: hijack::failure(error, false), after: After::Nothing })
    }

    /// Has a head sent and the connection taken over once hyper lets go of it.
    pub fn take_over(&self, takeover: Takeover) -> Answer {
        self.link.gate.close();
        *self.link.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
        let mut answer = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
        answer.headers_mut().insert(HIJACK_MARK, header::HeaderValue::from_static("1"));
        answer
    }
}

fn cut(error: &hyper::Error) -> ApiError {
    tracing::debug!(error = %error, "request body ended early");
    ApiError::invalid("invalid JSON: unexpected EOF")
}

/// Checks a content type as moby's `matchesContentType` does.
fn check_json_type(given: &str) -> Result<(), ApiError> {
    let malformed = |reason| ApiError::invalid(format!("malformed Content-Type header ({given}): mime: {reason}"));
    let (media, rest) = given.split_once(';').map_or((given, None), |(m, r)| (m, Some(r)));
    if media.trim().is_empty() {
        return Err(malformed("no media type"));
    }
    for parameter in
        rest.into_iter().flat_map(|r| r.split(';')).map(str::trim).filter(|p| !p.is_empty() || rest != Some(""))
    {
        let valid = parameter.split_once('=').is_some_and(|(k, v)| !k.is_empty() && !v.is_empty());
        if !valid {
            return Err(malformed("invalid media parameter"));
        }
    }
    if !media.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_types_other_than_json_are_refused_in_docker_s_words() {
        let text = |given: &str| check_json_type(given).err().map(|e| e.message);
        assert_eq!(text("application/json"), None);
        assert_eq!(text("application/json; charset=utf-8"), None);
        assert_eq!(
            text("text/plain").as_deref(),
            Some("unsupported Content-Type header (text/plain): must be 'application/json'")
        );
        assert_eq!(
            text("application/json;;=").as_deref(),
            Some("malformed Content-Type header (application/json;;=): mime: invalid media parameter")
        );
        assert_eq!(text("").as_deref(), Some("malformed Content-Type header (): mime: no media type"));
    }

    proptest! {
        #[test]
        fn content_types_never_panic(given in ".{0,60}") {
            let _ = check_json_type(&given);
        }
    }
}
