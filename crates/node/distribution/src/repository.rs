//! One repository of a registry: requests with logins, redirects and several hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;
use wharf_oci::image::Descriptor;
use wharf_types::{Digest, Reference};

use crate::auth::{self, Credentials, Demand, Standing, encoded};
use crate::client::Shared;
use crate::document::{self, ACCEPT, Document};
use crate::endpoint::{Capabilities, Endpoint, Scheme, split_url};
use crate::error::{Complaint, Refusal};
use crate::transport::{Answer, Payload, Route, value};
use crate::{DistributionError, TransportError, challenge};

/// Redirects of one request at most.
const REDIRECTS: usize = 10;
/// Bytes of an answer that says no, at most.
const REFUSAL_LIMIT: usize = 64 << 10;
/// Pages of a list of tags at most, and tags in all.
const PAGES: usize = 10_000;
const TAGS: usize = 1_000_000;

/// What is asked of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading.
    Pull,
    /// Writing.
    Push,
}

/// One repository, for one user and one purpose. Tokens that were bought are kept as long as it is.
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
    domain: String,
    path: String,
    endpoints: Vec<Endpoint>,
    credentials: Credentials,
    scopes: Mutex<BTreeSet<String>>,
    standings: Mutex<BTreeMap<String, Standing>>,
    /// What a token server gave to buy further tokens with.
    identity: Mutex<String>,
}

/// One request, relative to an endpoint's prefix.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Below the prefix, or a whole URL of the same host.
    pub(crate) target: String,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    pub(crate) payload: Payload,
}

impl Ask {
    pub(crate) fn new(method: Method, target: String) -> Self {
        Self { method, target, headers: Vec::new(), payload: Payload::Empty }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

/// Where a request goes now.
#[derive(Clone)]
struct Place {
    route: Route,
    target: String,
}

impl Place {
    fn url(&self) -> String {
        let scheme = if self.route.tls.is_some() { "https" } else { "http" };
        // Queries of redirects hold signatures, which are secrets.
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{scheme}://{}{path}", self.route.host)
    }
}

impl Repository {
    pub(crate) fn new(
        shared: Arc<Shared>,
        domain: &str,
        path: &str,
        credentials: Credentials,
        scopes: BTreeSet<String>,
    ) -> Result<Self, DistributionError> {
        let endpoints = crate::endpoint::endpoints(domain, &shared.config)?;
        Ok(Self {
            shared,
            domain: domain.to_owned(),
            path: path.to_owned(),
            endpoints,
            credentials,
            scopes: Mutex::new(scopes),
            standings: Mutex::default(),
            identity: Mutex::default(),
        })
    }

    /// The repository's name with its registry, `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The registry's name.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The token that buys others, if a token server gave one at login.
    pub(crate) fn identity(&self) -> String {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn scopes(&self) -> BTreeSet<String> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for reading another repository as well, from which blobs are to be mounted.
    pub(crate) fn read_too(&self, path: &str) {
        let scope = format!("repository:{path}:pull");
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
    }

    fn standings(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts that may be asked for something, in order.
    pub(crate) fn endpoints(&self, fits: impl Fn(&Capabilities) -> bool) -> Vec<&Endpoint> {
        self.endpoints.iter().filter(|e| fits(&e.capabilities)).collect()
    }

    /// `/v2/<path>/<rest>` without the prefix.
    pub(crate) fn place(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.path)
    }

    /// The login that belongs to a host: none for mirrors.
    fn credentials_for(&self, endpoint: &Endpoint) -> Credentials {
        if endpoint.own { self.credentials.clone() } else { Credentials::default() }
    }

    fn route(&self, endpoint: &Endpoint, plain: bool) -> Route {
        let tls = (!plain).then(|| endpoint.tls.clone());
        Route { tls, host: endpoint.host.clone() }
    }

    /// Sends a request to one host, logs in where that is asked for, and follows redirects of reading requests.
    pub(crate) async fn call(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Answer, DistributionError> {
        let known = self.shared.plain_hosts().get(&endpoint.host).copied();
        match (endpoint.scheme, known) {
            (Scheme::Http, _) | (Scheme::Either, Some(true)) => self.follow(endpoint, ask, true).await,
            (Scheme::Https, _) | (Scheme::Either, Some(false)) => self.follow(endpoint, ask, false).await,
            (Scheme::Either, None) => match self.follow(endpoint, ask, false).await {
                Err(DistributionError::Request { source, .. }) if speaks_no_tls(&source, &endpoint.host) => {
                    let answer = self.follow(endpoint, ask, true).await?;
                    self.shared.plain_hosts().insert(endpoint.host.clone(), true);
                    Ok(answer)
                }
                Ok(answer) => {
                    self.shared.plain_hosts().insert(endpoint.host.clone(), false);
                    Ok(answer)
                }
                Err(e) => Err(e),
            },
        }
    }

    async fn follow(&self, endpoint: &Endpoint, ask: &Ask, plain: bool) -> Result<Answer, DistributionError> {
        let origin = self.route(endpoint, plain);
        let target = match ask.target.contains("://") {
            true => here(&origin, &ask.target)?,
            false => format!("{}{}", endpoint.prefix, ask.target),
        };
        let mut place = Place { route: origin.clone(), target };
        let (mut logins, mut redirects) = (0, 0);
        loop {
            let own = place.route == origin;
            let request = self.request(endpoint, &place, own, ask)?;
            let mut answer = self.shared.transport.send(&place.route, &request, &ask.payload).await?;
            match answer.head.status {
                // Only the registry itself is told who we are (CVE-2020-15157).
                StatusCode::UNAUTHORIZED if own && logins < 2 => {
                    logins += 1;
                    let headers = std::mem::take(&mut answer.head.headers);
                    // Read to the end so that the connection can be used again.
                    let body = answer.whole(REFUSAL_LIMIT).await.ok().flatten();
                    self.log_in(endpoint, &origin, &headers, body.as_deref(), logins).await?;
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
                    if matches!(ask.method, Method::GET | Method::HEAD) =>
                {
                    redirects += 1;
                    if redirects > REDIRECTS {
                        let url = place.url();
                        return Err(DistributionError::Redirect { url, reason: "there were ten already" });
                    }
                    let to = answer.head.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
                    place = self.redirected(endpoint, &place, to.unwrap_or_default())?;
                    let _ = answer.whole(REFUSAL_LIMIT).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        place: &Place,
        own: bool,
        ask: &Ask,
    ) -> Result<Request<()>, DistributionError> {
        let proxy = self.shared.transport.plain_proxy(&place.route);
        let target = match &proxy {
            // RFC 9112 §3.2.2: a proxy wants the whole URL.
            Some(_) => format!("http://{}{}", place.route.host, place.target),
            None => place.target.clone(),
        };
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(target)
            .header(header::HOST, &place.route.host)
            .header(header::USER_AGENT, &self.shared.config.agent);
        if let Some(Some(login)) = proxy {
            request = request.header(header::PROXY_AUTHORIZATION, login);
        }
        for (name, text) in &ask.headers {
            request = request.header(name, text);
        }
        if own {
            for (name, text) in &endpoint.headers {
                request = request.header(name, text);
            }
            let credentials = self.credentials_for(endpoint);
            let standing = self.standings();
            let known = standing.get(&endpoint.host).and_then(|s| s.header(&credentials, &self.scopes()));
            if let Some(mut secret) = known.as_deref().and_then(value) {
                secret.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, secret);
            }
        }
        request.body(()).map_err(|e| DistributionError::Invalid(format!("{}: {e}", place.url())))
    }

    async fn log_in(
        &self,
        endpoint: &Endpoint,
        origin: &Route,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        attempt: u32,
    ) -> Result<(), DistributionError> {
        let challenges: Vec<_> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let credentials = self.credentials_for(endpoint);
        let scopes = self.scopes();
        let said = || body.map(complaints).and_then(|list| list.first().map(ToString::to_string));
        let demand = {
            let mut standings = self.standings();
            let standing = standings.entry(endpoint.host.clone()).or_default();
            standing.forget(&scopes);
            auth::demand(standing, &challenges, &credentials).map_err(|e| self.unauthorised(e))?
        };
        match demand {
            // The same login again helps nobody.
            Demand::Login if attempt > 1 => Err(self.unauthorised(said().unwrap_or_else(refused))),
            Demand::Login => Ok(()),
            Demand::Token(_) if attempt > 1 => {
                Err(self.unauthorised("insufficient_scope: authorization failed".to_owned()))
            }
            Demand::Token(request) => {
                let transport = &self.shared.transport;
                let token = request.buy(transport, &credentials, &scopes, origin).await?;
                self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&token.refresh);
                self.standings().entry(endpoint.host.clone()).or_default().learn(scopes, token);
                Ok(())
            }
        }
    }

    fn unauthorised(&self, reason: String) -> DistributionError {
        let push = self.scopes().iter().any(|scope| scope.ends_with(":pull,push"));
        if push { DistributionError::PushUnauthorised(reason) } else { DistributionError::Unauthorised(reason) }
    }

    /// Where a redirect leads, if it may be followed.
    fn redirected(&self, endpoint: &Endpoint, from: &Place, to: &str) -> Result<Place, DistributionError> {
        let refused = |reason| DistributionError::Redirect { url: from.url(), reason };
        if to.starts_with('/') && !to.starts_with("//") {
            return Ok(Place { route: from.route.clone(), target: to.to_owned() });
        }
        let to = to.split('#').next().unwrap_or_default();
        let (address, query) = to.find('?').map_or((to, ""), |at| to.split_at(at));
        let (scheme, host, path) = split_url(address).ok_or_else(|| refused("it leads to no URL of a host"))?;
        if scheme == "http" && from.route.tls.is_some() {
            return Err(refused("it leads from TLS to plain HTTP"));
        }
        let tls = match scheme {
            "https" if host == endpoint.host => Some(endpoint.tls.clone()),
            "https" => Some(Default::default()),
            _ => None,
        };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok(Place { route: Route { tls, host }, target: format!("{path}{query}") })
    }

    /// Turns an answer that says no into an error. `subject` is what a 404 is about.
    pub(crate) async fn refusal(
        &self,
        method: &Method,
        url: &str,
        subject: &str,
        mut answer: Answer,
    ) -> DistributionError {
        let status = answer.head.status.as_u16();
        if status == 404 && !subject.is_empty() {
            return DistributionError::NotFound(subject.to_owned());
        }
        let text = |name: &str| answer.head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let retry_after = text("retry-after").and_then(|v| v.trim().parse().ok());
        let limits = [text("ratelimit-limit"), text("ratelimit-remaining")];
        let rate_limit = limits[0]
            .as_ref()
            .map(|limit| format!("limit {limit}, remaining {}", limits[1].as_deref().unwrap_or("unknown")));
        let body = answer.whole(REFUSAL_LIMIT).await.ok().flatten();
        let complaints = body.as_deref().map(complaints).unwrap_or_default();
        DistributionError::Refused(Box::new(Refusal {
            method: method.to_string(),
            url: url.to_owned(),
            status,
            complaints,
            retry_after,
            rate_limit,
        }))
    }

    /// The URL of a target at a host, for messages.
    pub(crate) fn url(&self, endpoint: &Endpoint, target: &str) -> String {
        let plain = match endpoint.scheme {
            Scheme::Http => true,
            Scheme::Https => false,
            Scheme::Either => self.shared.plain_hosts().get(&endpoint.host).copied().unwrap_or(false),
        };
        let path = target.split('?').next().unwrap_or_default();
        format!("{}://{}{}{path}", if plain { "http" } else { "https" }, endpoint.host, endpoint.prefix)
    }

    /// Asks the hosts that may be asked, in order, until one has what is wanted. The last one's error counts: it is the
    /// registry itself.
    pub(crate) async fn read(
        &self,
        fits: impl Fn(&Capabilities) -> bool,
        ask: &Ask,
        subject: &str,
    ) -> Result<(Answer, String), DistributionError> {
        let mut last = DistributionError::NotFound(subject.to_owned());
        for endpoint in self.endpoints(fits) {
            match self.call(endpoint, ask).await {
                Ok(answer) if answer.head.status.is_success() => {
                    return Ok((answer, self.url(endpoint, &ask.target)));
                }
                Ok(answer) => {
                    let url = self.url(endpoint, &ask.target);
                    last = self.refusal(&ask.method, &url, subject, answer).await;
                }
                Err(e) => last = e,
            }
            if !endpoint.own {
                tracing::info!(host = endpoint.host, error = %last, "a mirror does not help, trying the next host");
            }
        }
        Err(last)
    }

    /// What a tag or digest names. Asks by HEAD; a registry that does not say enough is asked by GET.
    ///
    /// # Errors
    /// [`DistributionError::NotFound`] and those of requests.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, DistributionError> {
        let subject = reference.to_string();
        let wanted = wanted(reference);
        let target = self.place(&format!("manifests/{wanted}"));
        let ask = Ask::new(Method::HEAD, target).header(header::ACCEPT, ACCEPT);
        match self.read(|c| c.resolve, &ask, &subject).await {
            Ok((answer, _)) => {
                if let Some(descriptor) = described(&answer.head.headers, reference.digest()) {
                    return Ok(descriptor);
                }
            }
            // Some registries know no HEAD.
            Err(DistributionError::Refused(refusal)) if matches!(refusal.status, 400 | 405 | 501) => {}
            Err(e) => return Err(e),
        }
        Ok(self.document(&wanted, &subject).await?.descriptor)
    }

    /// Fetches a manifest or index by tag or digest. By digest, it is verified.
    ///
    /// # Errors
    /// [`DistributionError::NotFound`], [`DistributionError::Digest`], [`DistributionError::Document`] and those of
    /// requests.
    pub async fn document(&self, wanted: &str, subject: &str) -> Result<Document, DistributionError> {
        let by_digest = Digest::parse(wanted).ok();
        let target = self.place(&format!("manifests/{wanted}"));
        let ask = Ask::new(Method::GET, target).header(header::ACCEPT, ACCEPT);
        let fits = |c: &Capabilities| if by_digest.is_some() { c.pull } else { c.resolve };
        let (mut answer, url) = self.read(fits, &ask, subject).await?;
        let kind = answer.head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let failed = |source| DistributionError::Request { method: "Get".to_owned(), url, source };
        let bytes = answer.whole(document::LIMIT).await.map_err(failed)?;
        let Some(bytes) = bytes else {
            let reason = format!("more than the {} bytes that a manifest may have", document::LIMIT);
            return Err(DistributionError::Document { subject: subject.to_owned(), reason });
        };
        if let Some(expected) = by_digest {
            let found = document::digest_of(&bytes);
            if found != expected {
                return Err(DistributionError::Digest { expected, found });
            }
        }
        document::identify(bytes.to_vec(), &kind, subject)
    }

    /// Fetches a small blob into memory, and verifies it.
    ///
    /// # Errors
    /// [`DistributionError::Digest`], [`DistributionError::Document`] where it is larger than `limit`, and those of
    /// requests.
    pub async fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, DistributionError> {
        let subject = blob.digest.to_string();
        let ask = Ask::new(Method::GET, self.place(&format!("blobs/{}", blob.digest)));
        let (mut answer, url) = self.read(|c| c.pull, &ask, &subject).await?;
        let failed = |source| DistributionError::Request { method: "Get".to_owned(), url, source };
        let bytes = answer.whole(limit.min(blob.size) as usize).await.map_err(failed)?;
        let reason = format!("more than {} bytes", limit.min(blob.size));
        let bytes = bytes.ok_or(DistributionError::Document { subject, reason })?;
        let (expected, found) = (blob.digest.clone(), document::digest_of(&bytes));
        if found == expected { Ok(bytes.to_vec()) } else { Err(DistributionError::Digest { expected, found }) }
    }

    /// Lists the tags, page by page.
    ///
    /// # Errors
    /// Those of requests.
    pub async fn tags(&self) -> Result<Vec<String>, DistributionError> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        let mut target = self.place("tags/list");
        for _ in 0..PAGES {
            let ask = Ask::new(Method::GET, target);
            let (mut answer, url) = self.read(|c| c.resolve, &ask, &self.name()).await?;
            let next = answer.head.headers.get(header::LINK).and_then(|v| v.to_str().ok()).and_then(next_page);
            let failed = |source| DistributionError::Request { method: "Get".to_owned(), url, source };
            let bytes = answer.whole(document::LIMIT).await.map_err(failed)?.unwrap_or_default();
            let list: List = serde_json::from_slice(&bytes).map_err(|e| DistributionError::Document {
                subject: self.name(),
                reason: format!("malformed list of tags: {e}"),
            })?;
            all.extend(list.tags.unwrap_or_default());
            match next {
                // The link holds the whole path; ours goes below the prefix of whichever host is asked.
                Some(next) if all.len() < TAGS => match next.split_once("/tags/list") {
                    Some((_, query)) => target = self.place(&format!("tags/list{query}")),
                    None => break,
                },
                _ => break,
            }
        }
        Ok(all)
    }

    /// Lists what refers to a manifest: signatures, SBOMs (distribution-spec 1.1, "Listing Referrers"), by the API
    /// or, where the registry has none, by the fallback tag.
    ///
    /// # Errors
    /// Those of requests.
    pub async fn referrers(&self, digest: &Digest, kind: &str) -> Result<Vec<Descriptor>, DistributionError> {
        let query = if kind.is_empty() { String::new() } else { format!("?{}", encoded(&[("artifactType", kind)])) };
        let target = self.place(&format!("referrers/{digest}{query}"));
        let ask = Ask::new(Method::GET, target).header(header::ACCEPT, wharf_oci::image::media_type::INDEX);
        let found = match self.read(|c| c.resolve, &ask, digest.as_str()).await {
            Ok((mut answer, url)) => {
                let failed = |source| DistributionError::Request { method: "Get".to_owned(), url, source };
                let bytes = answer.whole(document::LIMIT).await.map_err(failed)?.unwrap_or_default();
                document::identify(bytes.to_vec(), wharf_oci::image::media_type::INDEX, digest.as_str())?
            }
            Err(DistributionError::NotFound(_)) => {
                let tag = format!("sha256-{}", digest.hex());
                match self.document(&tag, &tag).await {
                    Ok(document) => document,
                    Err(DistributionError::NotFound(_)) => return Ok(Vec::new()),
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        let document::Content::Index(index) = found.content()? else { return Ok(Vec::new()) };
        let fits = |d: &Descriptor| kind.is_empty() || d.artifact_type == kind;
        Ok(index.manifests.into_iter().filter(fits).collect())
    }
}

fn refused() -> String {
    "authorization failed".to_owned()
}

/// What a reference asks a registry for: the digest, or the tag.
pub(crate) fn wanted(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// Whether an insecure registry should be asked without TLS: it speaks none, or nothing listens on the port of TLS.
fn speaks_no_tls(e: &TransportError, host: &str) -> bool {
    let no_port = host.rsplit_once(':').is_none_or(|(_, port)| port.ends_with(']'));
    match e {
        TransportError::Tls { plain, .. } => *plain,
        TransportError::Connect { .. } => no_port,
        _ => false,
    }
}

/// The path of a URL that must lead to the same host.
fn here(origin: &Route, url: &str) -> Result<String, DistributionError> {
    let refused = |reason| DistributionError::Redirect { url: url.chars().take(200).collect(), reason };
    let (address, query) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    let (_, host, path) = split_url(address).ok_or_else(|| refused("it is no URL of a host"))?;
    // Registries behind proxies often call themselves by http; the connection stays what it is.
    if host != origin.host.to_ascii_lowercase() {
        return Err(refused("an upload leads to another host"));
    }
    Ok(format!("{path}{query}"))
}

/// Reads what a registry lists as errors.
pub(crate) fn complaints(body: &[u8]) -> Vec<Complaint> {
    #[derive(Deserialize)]
    struct List {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let list: Option<List> = serde_json::from_slice(body).ok();
    let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(512).collect::<String>();
    let items = list.map(|l| l.errors).unwrap_or_default().into_iter().take(8);
    items.map(|item| Complaint { code: clean(item.code), message: clean(item.message) }).collect()
}

/// What the headers of an answer to HEAD say of a manifest, if they say enough.
fn described(headers: &HeaderMap, expected: Option<&Digest>) -> Option<Descriptor> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let kind = text("content-type")?.split(';').next()?.trim();
    let size: u64 = text("content-length")?.parse().ok()?;
    let digest = match expected {
        Some(digest) => digest.clone(),
        None => Digest::parse(text("docker-content-digest")?).ok()?,
    };
    let known = document::is_index(kind) || document::is_manifest(kind);
    (known && size > 0).then(|| Descriptor::new(kind, digest, size))
}

/// The target of `Link: <…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_read_without_control_characters_and_bounded() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{}},{"code":"X"}]}"#;
        let all = complaints(body);
        assert_eq!(all[0].to_string(), "denied: no[31m");
        assert_eq!(all[1].to_string(), "x");
        assert!(complaints(b"<html>").is_empty());
    }

    #[test]
    fn uploads_stay_at_their_host() {
        let origin = Route { tls: None, host: "reg:5000".to_owned() };
        assert_eq!(here(&origin, "http://reg:5000/v2/a?x=1").expect("same"), "/v2/a?x=1");
        assert!(here(&origin, "http://evil/v2/a").is_err());
    }

    #[test]
    fn pages_are_found() {
        assert_eq!(
            next_page("</v2/a/tags/list?n=1&last=x>; rel=\"next\"").as_deref(),
            Some("/v2/a/tags/list?n=1&last=x")
        );
        assert_eq!(next_page("nonsense"), None);
    }
}
