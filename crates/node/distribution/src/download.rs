//! Files by their address, which belong to no registry: what `docker import` takes from a URL.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};

use crate::endpoint::split_url;
use crate::transport::{Answer, Payload, Route};
use crate::{Client, DistributionError};

/// Redirects at most, as Go's client follows.
const REDIRECTS: usize = 10;
/// Bytes of an answer that says no, at most: they become part of the message.
const REFUSAL_LIMIT: usize = 8 << 10;

/// A file on its way. Dropping it ends the connection.
pub struct Download {
    /// Bytes in all, where the server tells.
    pub length: Option<u64>,
    url: String,
    answer: Answer,
}

/// Where a request goes.
struct Place {
    route: Route,
    /// Path and query.
    target: String,
}

impl Place {
    fn parse(url: &str) -> Option<Self> {
        let url = url.split('#').next().unwrap_or_default();
        let (address, query) = url.find('?').map_or((url, ""), |at| url.split_at(at));
        let (scheme, host, path) = split_url(address)?;
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let tls = (scheme == "https").then(Default::default);
        Some(Self { route: Route { tls, host }, target: format!("{path}{query}") })
    }

    /// The address for messages: queries may hold secrets.
    fn shown(&self) -> String {
        let scheme = if self.route.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.route.host, self.target.split('?').next().unwrap_or_default())
    }

    /// Where a redirect leads, if it may be followed.
    fn redirected(&self, to: &str) -> Result<Self, DistributionError> {
        let refused = |reason| DistributionError::Redirect { url: self.shown(), reason };
        if to.starts_with('/') && !to.starts_with("//") {
            return Ok(Self { route: self.route.clone(), target: to.to_owned() });
        }
        let next = Self::parse(to).ok_or_else(|| refused("it leads to no URL of a host"))?;
        if next.route.tls.is_none() && self.route.tls.is_some() {
            return Err(refused("it leads from TLS to plain HTTP"));
        }
        Ok(next)
    }
}

impl Client {
    /// Asks for the file at an `http` or `https` address, directly or through the proxies that are set. An address with a
    /// user in it is none: nobody is logged in here.
    ///
    /// # Errors
    /// [`DistributionError::Invalid`], [`DistributionError::Redirect`], [`DistributionError::Get`],
    /// [`DistributionError::Unreachable`].
    pub async fn download(&self, url: &str) -> Result<Download, DistributionError> {
        let invalid = || DistributionError::Invalid(format!("invalid address {url:?}"));
        let mut place = Place::parse(url).ok_or_else(invalid)?;
        let transport = &self.shared.transport;
        for _ in 0..=REDIRECTS {
            let proxy = transport.plain_proxy(&place.route);
            let target = match &proxy {
                // RFC 9112 §3.2.2: a proxy wants the whole URL.
                Some(_) => format!("http://{}{}", place.route.host, place.target),
                None => place.target.clone(),
            };
            let mut request = Request::builder()
                .method(Method::GET)
                .uri(target)
                .header(header::HOST, &place.route.host)
                .header(header::USER_AGENT, &self.shared.config.agent);
            if let Some(Some(login)) = proxy {
                request = request.header(header::PROXY_AUTHORIZATION, login);
            }
            let request =
                request.body(()).map_err(|e| DistributionError::Invalid(format!("{}: {e}", place.shown())))?;
            let sent = transport.send(&place.route, &request, &Payload::Empty).await;
            let mut answer = sent.map_err(|e| match e {
                DistributionError::Request { source, .. } => {
                    DistributionError::Unreachable { url: place.shown(), source }
                }
                e => e,
            })?;
            let text = |name| answer.head.headers.get(name).and_then(|v| v.to_str().ok());
            match answer.head.status {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    place = place.redirected(text(header::LOCATION).unwrap_or_default())?;
                    let _ = answer.whole(REFUSAL_LIMIT).await;
                }
                // As Go's client with moby's check: what is not refused is the file.
                status if status.as_u16() < 400 => {
                    let length = text(header::CONTENT_LENGTH).and_then(|v| v.parse().ok());
                    return Ok(Download { length, url: place.shown(), answer });
                }
                status => {
                    let body = answer.whole(REFUSAL_LIMIT).await.ok().flatten().unwrap_or_default();
                    let body = String::from_utf8_lossy(&body).trim().to_owned();
                    return Err(DistributionError::Get { url: place.shown(), status: status.as_u16(), body });
                }
            }
        }
        Err(DistributionError::Redirect { url: place.shown(), reason: "there were ten already" })
    }
}

impl Download {
    /// The next bytes, or `None` at the end. A body that is cut off before its announced end is an error.
    ///
    /// # Errors
    /// [`DistributionError::Unreachable`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DistributionError> {
        let chunk = self.answer.chunk().await;
        chunk.map_err(|source| DistributionError::Unreachable { url: self.url.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_redirects_never_leave_tls() {
        let place = Place::parse("https://Host.example:8443/a/b?c=d#e").expect("an address");
        assert_eq!((place.route.host.as_str(), place.target.as_str()), ("host.example:8443", "/a/b?c=d"));
        assert_eq!(place.shown(), "https://host.example:8443/a/b");
        assert_eq!(place.redirected("/x?y").expect("same host").target, "/x?y");
        assert!(place.redirected("http://host.example/x").is_err());
        assert!(place.redirected("//evil").is_err() && place.redirected("file:///etc/passwd").is_err());
        for bad in ["", "ftp://a/b", "http://", "http://user:pass@host/x"] {
            assert!(Place::parse(bad).is_none(), "{bad}");
        }
    }
}
