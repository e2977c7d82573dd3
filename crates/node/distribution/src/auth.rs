//! Who we are towards a registry: logins, the tokens that they buy, and where neither may go.
//!
//! Source: distribution's token specification (`docs/spec/auth/token.md`, `oauth.md`). What must not happen:
//! CVE-2020-15157 (a login sent to the host of a redirect), CVE-2019-10214 (to plain HTTP).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, header};
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::endpoint::split_url;
use crate::transport::{Payload, Route, Transport, basic};
use crate::{DistributionError, TransportError};

/// A login at one registry. Its `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// A token that buys others.
    pub identity_token: String,
    /// A token for the registry itself.
    pub registry_token: String,
}

impl Credentials {
    /// Whether there is nothing to show.
    pub fn is_anonymous(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, anonymous: {})", self.username, self.is_anonymous())
    }
}

/// Bytes of a token server's answer at most.
const ANSWER_LIMIT: usize = 1 << 20;
/// Tokens without a time live so long (the specification's default).
const DEFAULT_LIFE: u64 = 60;

/// What is known of how one host wants to be asked.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    scheme: Option<Scheme>,
    tokens: BTreeMap<BTreeSet<String>, (String, Instant)>,
}

#[derive(Clone, Copy, Debug)]
enum Scheme {
    Basic,
    Bearer,
}

impl Standing {
    /// The `Authorization` of a request of these scopes, if it is known already.
    pub(crate) fn header(&self, credentials: &Credentials, scopes: &BTreeSet<String>) -> Option<String> {
        match self.scheme.as_ref()? {
            Scheme::Basic => login(credentials),
            Scheme::Bearer if !credentials.registry_token.is_empty() => {
                Some(format!("Bearer {}", credentials.registry_token))
            }
            Scheme::Bearer => {
                let (token, until) = self.tokens.get(scopes)?;
                (*until > Instant::now()).then(|| format!("Bearer {token}"))
            }
        }
    }

    /// Takes over what a token bought.
    pub(crate) fn learn(&mut self, scopes: BTreeSet<String>, token: Token) {
        // A little early, so that no request carries a token that ends on its way.
        let until = Instant::now() + Duration::from_secs(token.life.saturating_sub(token.life / 10));
        self.tokens.insert(scopes, (token.value, until));
    }

    /// Forgets the token of these scopes, which the registry refused.
    pub(crate) fn forget(&mut self, scopes: &BTreeSet<String>) {
        self.tokens.remove(scopes);
    }
}

fn login(credentials: &Credentials) -> Option<String> {
    let known = !credentials.username.is_empty() || !credentials.password.is_empty();
    known.then(|| basic(&format!("{}:{}", credentials.username, credentials.password)))
}

/// What a registry's challenge asks us to do.
#[derive(Debug)]
pub(crate) enum Demand {
    /// Show the login; it is in [`Standing`] now.
    Login,
    /// Buy a token there.
    Token(TokenRequest),
}

/// Where and for what a token is bought.
#[derive(Clone, Debug)]
pub(crate) struct TokenRequest {
    realm: String,
    service: String,
}

/// Reads challenges, the strongest first that we know, and notes the scheme. The error is why nothing can be done.
pub(crate) fn demand(
    standing: &mut Standing,
    challenges: &[Challenge],
    credentials: &Credentials,
) -> Result<Demand, String> {
    let parameter = |c: &Challenge, name: &str| c.parameters.get(name).cloned().unwrap_or_default();
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
        let (realm, service) = (parameter(bearer, "realm"), parameter(bearer, "service"));
        if realm.is_empty() {
            return Err("no realm specified for token auth challenge".to_owned());
        }
        standing.scheme = Some(Scheme::Bearer);
        if parameter(bearer, "error") == "insufficient_scope" && !credentials.registry_token.is_empty() {
            return Err("insufficient_scope: authorization failed".to_owned());
        }
        return Ok(Demand::Token(TokenRequest { realm, service }));
    }
    if challenges.iter().any(|c| c.scheme == "basic") {
        standing.scheme = Some(Scheme::Basic);
        return match login(credentials) {
            Some(_) => Ok(Demand::Login),
            None => Err("authorization failed: no basic auth credentials".to_owned()),
        };
    }
    Err("authorization failed: the registry asks for no way of logging in that is known".to_owned())
}

/// A bought token.
#[derive(Debug)]
pub(crate) struct Token {
    value: String,
    /// Seconds.
    life: u64,
    /// A token that buys others, if the server gave one.
    pub(crate) refresh: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

/// Reads a token server's answer.
pub(crate) fn read_token(bytes: &[u8]) -> Result<Token, String> {
    let answer: TokenAnswer =
        serde_json::from_slice(bytes).map_err(|e| format!("unable to decode token response: {e}"))?;
    let value = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).filter(|t| !t.is_empty());
    let value = value.ok_or("authorization server did not include a token in the response")?;
    let life = answer.expires_in.filter(|s| *s >= 1.0).map_or(DEFAULT_LIFE, |s| s.min(1e6) as u64);
    Ok(Token { value, life: life.max(DEFAULT_LIFE), refresh: answer.refresh_token.unwrap_or_default() })
}

impl TokenRequest {
    /// Where the token server is. A registry that speaks TLS must not send a login to one that does not.
    fn place(&self, registry_is_encrypted: bool, anonymous: bool) -> Result<(Route, String), DistributionError> {
        let refused = |reason| DistributionError::Realm { realm: self.realm.chars().take(200).collect(), reason };
        let (scheme, host, path) = split_url(&self.realm).ok_or_else(|| refused("it is no URL of a host"))?;
        if scheme == "http" && registry_is_encrypted && !anonymous {
            return Err(refused("the registry speaks TLS and the token server does not (CVE-2019-10214)"));
        }
        let tls = (scheme == "https").then(crate::endpoint::TlsSettings::default);
        Ok((Route { tls, host }, if path.is_empty() { "/".to_owned() } else { path }))
    }

    /// Buys a token.
    pub(crate) async fn buy(
        &self,
        transport: &Transport,
        credentials: &Credentials,
        scopes: &BTreeSet<String>,
        registry: &Route,
    ) -> Result<Token, DistributionError> {
        let anonymous = credentials.is_anonymous();
        let (mut route, path) = self.place(registry.tls.is_some(), anonymous)?;
        if route.host == registry.host && route.tls.is_some() {
            // The registry's own certificate holds for its token server, too.
            route.tls.clone_from(&registry.tls);
        }
        let kind = if anonymous { "anonymous" } else { "oauth" };
        let failed = |reason: String| DistributionError::Token { kind, reason };
        let (request, payload) = if credentials.identity_token.is_empty() {
            (self.get(&path, credentials, scopes), Payload::Empty)
        } else {
            let form = self.form(credentials, scopes);
            (post(&path), Payload::Bytes(form.into()))
        };
        let request = request.map_err(|e| failed(e.to_string()))?;
        let mut answer = transport.send(&route, &request, &payload).await?;
        let status = answer.head.status;
        let body = answer.whole(ANSWER_LIMIT).await;
        let body: Bytes = body.map_err(|e: TransportError| failed(e.to_string()))?.unwrap_or_default();
        if !status.is_success() {
            let place = self.realm.split('?').next().unwrap_or_default();
            return Err(failed(format!("unexpected status from {} request to {place}: {status}", request.method())));
        }
        read_token(&body).map_err(failed)
    }

    fn get(&self, path: &str, credentials: &Credentials, scopes: &BTreeSet<String>) -> http::Result<Request<()>> {
        let mut query: Vec<(&str, &str)> = Vec::new();
        if !self.service.is_empty() {
            query.push(("service", &self.service));
        }
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let login = login(credentials);
        if login.is_some() {
            query.push(("account", &credentials.username));
        }
        // A login asks for nothing but to be known later.
        if scopes.is_empty() && login.is_some() {
            query.extend([("offline_token", "true"), ("client_id", "docker")]);
        }
        let joint = if path.contains('?') { "&" } else { "?" };
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}{joint}{}", encoded(&query)) };
        let mut request = Request::builder().method(Method::GET).uri(target);
        if let Some(login) = login {
            request = request.header(header::AUTHORIZATION, login);
        }
        request.body(())
    }

    fn form(&self, credentials: &Credentials, scopes: &BTreeSet<String>) -> String {
        let scope = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        encoded(&[
            ("grant_type", "refresh_token"),
            ("service", &self.service),
            ("client_id", "docker"),
            ("scope", &scope),
            ("refresh_token", &credentials.identity_token),
        ])
    }
}

fn post(path: &str) -> http::Result<Request<()>> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(())
}

/// `a=b&c=d`, escaped for a query or a form.
pub(crate) fn encoded(pairs: &[(&str, &str)]) -> String {
    let one = |(name, value): &(&str, &str)| format!("{name}={}", escaped(value));
    pairs.iter().map(one).collect::<Vec<_>>().join("&")
}

/// Escapes everything that is not unreserved (RFC 3986 §2.3).
pub(crate) fn escaped(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b as char),
            b => drop(write!(out, "%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::challenge::parse;

    fn bob() -> Credentials {
        Credentials { username: "bob".to_owned(), password: "se:cret".to_owned(), ..Credentials::default() }
    }

    #[test]
    fn a_login_does_not_print_its_secret() {
        assert!(!format!("{:?}", bob()).contains("se:cret"));
    }

    #[test]
    fn demands_follow_from_challenges() {
        let mut standing = Standing::default();
        let bearer = parse(r#"Basic realm="r", Bearer realm="https://a.example/t",service="s""#);
        assert!(matches!(demand(&mut standing, &bearer, &bob()), Ok(Demand::Token(_))));
        let basic = parse(r#"Basic realm="r""#);
        assert!(matches!(demand(&mut standing, &basic, &bob()), Ok(Demand::Login)));
        assert_eq!(standing.header(&bob(), &BTreeSet::new()).as_deref(), Some("Basic Ym9iOnNlOmNyZXQ="));
        let none = demand(&mut standing, &basic, &Credentials::default()).expect_err("no login");
        assert_eq!(none, "authorization failed: no basic auth credentials");
        assert!(demand(&mut standing, &parse("Digest realm=x"), &bob()).is_err());
    }

    #[test]
    fn cve_2019_10214_no_login_goes_to_a_token_server_without_tls() {
        let ask = TokenRequest { realm: "http://evil.example/t".to_owned(), service: String::new() };
        assert!(matches!(ask.place(true, false), Err(DistributionError::Realm { .. })));
        assert!(ask.place(true, true).is_ok(), "anonymous tokens are no secret");
        assert!(ask.place(false, false).is_ok(), "the registry itself is plain");
        for realm in ["ftp://x/", "https://user@evil/", "//x", "https:///x", "https://a\r\nb/"] {
            let ask = TokenRequest { realm: realm.to_owned(), service: String::new() };
            assert!(ask.place(true, true).is_err(), "{realm:?}");
        }
    }

    #[test]
    fn tokens_are_read_and_live_at_least_a_minute() {
        let token = read_token(br#"{"access_token":"a","expires_in":5,"refresh_token":"r"}"#).expect("valid");
        assert_eq!((token.value.as_str(), token.life, token.refresh.as_str()), ("a", 60, "r"));
        assert!(read_token(b"{}").is_err());
        assert!(read_token(b"<html>").is_err());
        assert_eq!(read_token(br#"{"token":"t","expires_in":1e30}"#).expect("valid").life, 1_000_000);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            encoded(&[("scope", "repository:a/b:pull,push"), ("x", "é &")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A9%20%26"
        );
    }
}
