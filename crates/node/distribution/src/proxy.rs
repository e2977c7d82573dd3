//! Proxies: which one, if any, leads to a host (the rules of Go's `httpproxy`).

use std::net::IpAddr;

use crate::endpoint::{split_url, without_port};

/// The proxies of one daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For plain connections, a URL.
    pub http: String,
    /// For TLS, a URL.
    pub https: String,
    /// Hosts that are reached directly: names, `.suffixes`, addresses, ranges, `*`; comma-separated.
    pub no_proxy: String,
}

/// A proxy as we use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// `host:port`.
    pub address: String,
    /// `user:password`, decoded.
    pub login: Option<String>,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (or in lower case) through `get`; settings that are given
    /// win over the environment, as with dockerd.
    pub fn or_environment(self, get: impl Fn(&str) -> Option<String>) -> Self {
        let from = |own: String, name: &str| match own.is_empty() {
            false => own,
            true => get(name).filter(|v| !v.is_empty()).or_else(|| get(&name.to_lowercase())).unwrap_or_default(),
        };
        Self {
            http: from(self.http, "HTTP_PROXY"),
            https: from(self.https, "HTTPS_PROXY"),
            no_proxy: from(self.no_proxy, "NO_PROXY"),
        }
    }

    /// The proxy that leads to a host. Loopback is always reached directly.
    pub fn to(&self, tls: bool, host: &str) -> Option<Proxy> {
        let url = if tls { &self.https } else { &self.http };
        if url.is_empty() || self.is_direct(host) {
            return None;
        }
        proxy(url)
    }

    fn is_direct(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.parse::<IpAddr>().ok();
        if name == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return true;
        }
        self.no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            let entry = entry.to_ascii_lowercase();
            if entry == "*" || entry == host.to_ascii_lowercase() || entry == name {
                return true;
            }
            if let (Some(_), Some((_, _))) = (address, entry.split_once('/')) {
                return crate::endpoint::is_insecure(&name, &[entry]);
            }
            let suffix = entry.trim_start_matches('*');
            let suffix = if suffix.starts_with('.') { suffix.to_owned() } else { format!(".{suffix}") };
            address.is_none() && name.ends_with(&suffix)
        })
    }
}

fn proxy(url: &str) -> Option<Proxy> {
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let (scheme, rest) = with_scheme.split_once("://")?;
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(percent_decoded(login)), rest),
        None => (None, rest),
    };
    let (scheme, host, _) = split_url(&format!("{scheme}://{rest}"))
        .filter(|(scheme, ..)| *scheme == "http")
        .map(|(scheme, host, path)| (scheme.to_owned(), host, path))?;
    let port = if scheme == "http" { 80 } else { 443 };
    let bare = host.rsplit_once(':').is_none_or(|(_, port)| port.ends_with(']'));
    Some(Proxy { address: if bare { format!("{host}:{port}") } else { host }, login })
}

/// Undoes `%xx`.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_chosen_by_scheme_and_exceptions() {
        let proxies = Proxies {
            http: "http://p.example:3128".to_owned(),
            https: "user:p%40ss@q.example".to_owned(),
            no_proxy: "internal.example, .corp, 10.0.0.0/8".to_owned(),
        };
        let address = |tls, host| proxies.to(tls, host).map(|p| p.address);
        assert_eq!(address(false, "reg.example"), Some("p.example:3128".to_owned()));
        assert_eq!(address(true, "reg.example:443"), Some("q.example:80".to_owned()));
        assert_eq!(proxies.to(true, "x").and_then(|p| p.login), Some("user:p@ss".to_owned()));
        for direct in
            ["localhost:5000", "127.0.0.1", "internal.example", "a.internal.example", "b.corp", "10.1.2.3:5000"]
        {
            assert_eq!(address(true, direct), None, "{direct}");
        }
        assert!(address(true, "11.1.2.3").is_some());
    }

    #[test]
    fn settings_win_over_the_environment() {
        let environment = |name: &str| (name == "https_proxy").then(|| "http://env:1".to_owned());
        let found = Proxies { http: "http://set:1".to_owned(), ..Proxies::default() }.or_environment(environment);
        assert_eq!((found.http.as_str(), found.https.as_str()), ("http://set:1", "http://env:1"));
    }
}
