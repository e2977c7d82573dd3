//! Asking authorisation plugins, before a request is carried out and before its answer is sent
//! (docs.docker.com/engine/extend/plugins_authorization).
//!
//! What a plugin allows is what is carried out: it gets the very bytes that the handler reads, whole, whatever the headers
//! say of their length (CVE-2024-41110: a body announced as empty; CVE-2026-34040: a body beyond a limit, which moby did not
//! pass on). A body that is too large for that is refused. Only uploads (archives) are carried out unseen, as in moby.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use wharf_error::Kind;

use crate::ApiError;
use crate::backend::Reply;
use crate::call::{Link, RequestBody};
use crate::hijack::{self, After, Takeover};
use crate::respond::Answer;
use crate::routes::Endpoint;

/// What a plugin is told of a request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Who asks: the name in the client's certificate, or empty.
    pub user: String,
    /// The method.
    pub method: String,
    /// Path and query as they came.
    pub uri: String,
    /// Headers, the first value of each; credentials for registries are left out.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
}

/// What a plugin is told of an answer.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The body, if it is there as a whole; streams are not shown.
    pub body: Bytes,
}

/// Those who decide.
pub trait Authorizer: Send + Sync {
    /// Whether there is anybody to ask.
    fn is_active(&self) -> bool;
    /// Decides on a request.
    fn request<'a>(&'a self, asked: &'a Asked) -> Reply<'a, ()>;
    /// Decides on its answer.
    fn response<'a>(&'a self, asked: &'a Asked, given: &'a Given) -> Reply<'a, ()>;
}

/// Whether the body is an archive that is taken while it comes in.
fn is_upload(endpoint: Endpoint) -> bool {
    use Endpoint as E;
    matches!(endpoint, E::ArchivePut | E::ImageLoad | E::ImageCreate | E::VolumeImport)
        || matches!(endpoint, E::Later(feature) if feature == "building images")
}

fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    let secret = ["x-registry-config", "x-registry-auth"];
    let names = map.keys().filter(|name| !secret.contains(&name.as_str()));
    let canonical = |name: &str| {
        let word =
            |w: &str| w.chars().take(1).flat_map(char::to_uppercase).chain(w.chars().skip(1)).collect::<String>();
        name.split('-').map(word).collect::<Vec<_>>().join("-")
    };
    let value = |name| map.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    names.map(|name| (canonical(name.as_str()), value(name).unwrap_or_default())).collect()
}

/// A request that was allowed, and what its answer is judged by.
pub(crate) struct Allowed {
    authorizer: Arc<dyn Authorizer>,
    asked: Asked,
}

/// Asks about a request; the body is read for that and put back. `None` if nobody is to be asked.
pub(crate) async fn request(
    authorizer: &Arc<dyn Authorizer>,
    endpoint: Endpoint,
    parts: &http::request::Parts,
    body: &mut RequestBody,
    user: &str,
) -> Result<Option<Allowed>, ApiError> {
    if !authorizer.is_active() {
        return Ok(None);
    }
    let bytes = if is_upload(endpoint) { Bytes::new() } else { body.hold().await? };
    let asked = Asked {
        user: user.to_owned(),
        method: parts.method.to_string(),
        uri: parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string),
        headers: headers(&parts.headers),
        body: bytes,
    };
    authorizer.request(&asked).await?;
    Ok(Some(Allowed { authorizer: authorizer.clone(), asked }))
}

impl Allowed {
    /// Asks about the answer; one that is refused is replaced.
    pub(crate) async fn response(self, answer: Answer, link: &Link) -> Result<Answer, ApiError> {
        let (parts, body) = answer.into_parts();
        let (body, bytes) = match body {
            Either::Left(full) => {
                let bytes = full.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                (Either::Left(Full::new(bytes.clone())), bytes)
            }
            stream @ Either::Right(_) => (stream, Bytes::new()),
        };
        let given = Given { status: parts.status.as_u16(), headers: headers(&parts.headers), body: bytes };
        let answer = Answer::from_parts(parts, body);
        match self.authorizer.response(&self.asked, &given).await {
            Ok(()) => Ok(answer),
            Err(refused) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                // The connection is to be taken over already: it is, to say no.
                let takeover = Takeover { head: hijack::failure(&refused, false), after: After::Nothing };
                *link.takeover.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(takeover);
                Ok(answer)
            }
            Err(refused) => Err(refused),
        }
    }
}

/// The error of a refusal.
pub fn denied(plugin: &str, message: &str) -> ApiError {
    ApiError::new(Kind::Forbidden, format!("authorization denied by plugin {plugin}: {message}"))
}

/// The error of a plugin that could not decide: nothing is carried out.
pub fn undecided(plugin: &str, reason: &str) -> ApiError {
    ApiError::new(Kind::System, format!("plugin {plugin} failed with error: {reason}"))
}
