//! `hosts.toml`, containerd's description of the hosts of a registry (containerd `docs/hosts.md`).
//!
//! ```toml
//! server = "https://reg.example"              # the registry itself, tried last
//! [host."https://mirror.example"]             # tried in the order of the file
//!   capabilities = ["pull", "resolve"]        # all, where absent
//!   ca = "mirror.crt"                         # a file or several, relative to the folder
//!   client = [["me.cert", "me.key"]]          # files with both, or pairs
//!   skip_verify = true
//!   override_path = true                      # the URL's path is the whole path of the API
//!   [host."https://mirror.example".header]
//!     x-custom = ["a", "b"]
//! ```

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::endpoint::{Capabilities, Endpoint, Scheme, TlsSettings, split_url};

/// A file larger than this is none of a person's making.
const LIMIT: usize = 1 << 20;

/// Reads the file. `own` is the registry's host without the file. The error is the reason alone.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn parse(text: &str, folder: &Path, own: Endpoint) -> Result<Vec<Endpoint>, String> {
    if text.len() > LIMIT {
        return Err("the file is too large".to_owned());
    }
    let file: Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
    let mut all = Vec::new();
    match file.get("host") {
        None => {}
        Some(Value::Table(hosts)) => {
            for (url, settings) in hosts {
                let settings = settings.as_table().ok_or_else(|| format!("host {url:?} is no table"))?;
                let (named_own, mut endpoint) = host(url, settings, folder)?;
                endpoint.own = named_own == own.host;
                all.push(endpoint);
            }
        }
        Some(_) => return Err("\"host\" is no table".to_owned()),
    }
    let server = match file.get("server") {
        None => {
            let mut own = own;
            own.tls = tls(&file, folder)?.unwrap_or(own.tls);
            own.headers = headers(&file)?;
            own
        }
        Some(Value::String(url)) => {
            let (_, mut endpoint) = host(url, &file, folder)?;
            if file.get("skip_verify").is_none() && own.tls.insecure {
                endpoint.tls.insecure = true;
            }
            endpoint.own = true;
            endpoint
        }
        Some(_) => return Err("\"server\" is no text".to_owned()),
    };
    all.push(server);
    Ok(all)
}

/// Reads one host, and returns its name as well.
fn host(url: &str, settings: &Table, folder: &Path) -> Result<(String, Endpoint), String> {
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let (scheme, host, path) = split_url(&with_scheme).ok_or_else(|| format!("{url:?} is no URL of a host"))?;
    let path = path.trim_end_matches('/').to_owned();
    let override_path = flag(settings, "override_path")?.unwrap_or(false);
    let endpoint = Endpoint {
        scheme: if scheme == "http" { Scheme::Http } else { Scheme::Https },
        prefix: if override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") },
        tls: tls(settings, folder)?.unwrap_or_default(),
        headers: headers(settings)?,
        capabilities: capabilities(settings)?,
        own: false,
        host: host.clone(),
    };
    Ok((host, endpoint))
}

fn flag(settings: &Table, key: &str) -> Result<Option<bool>, String> {
    match settings.get(key) {
        None => Ok(None),
        Some(Value::Boolean(on)) => Ok(Some(*on)),
        Some(_) => Err(format!("{key:?} is neither true nor false")),
    }
}

fn capabilities(settings: &Table) -> Result<Capabilities, String> {
    let Some(list) = settings.get("capabilities") else { return Ok(Capabilities::ALL) };
    let list = list.as_array().ok_or("\"capabilities\" is no list")?;
    let mut found = Capabilities { pull: false, resolve: false, push: false };
    for word in list {
        match word.as_str() {
            Some("pull") => found.pull = true,
            Some("resolve") => found.resolve = true,
            Some("push") => found.push = true,
            _ => return Err(format!("unknown capability {word}")),
        }
    }
    Ok(found)
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

/// A text or a list of texts.
fn texts(value: &Value, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{key:?} is neither a text nor a list of texts");
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

/// The TLS settings, if there are any.
fn tls(settings: &Table, folder: &Path) -> Result<Option<TlsSettings>, String> {
    let mut found = TlsSettings::default();
    let insecure = flag(settings, "skip_verify")?;
    found.insecure = insecure.unwrap_or(false);
    if let Some(ca) = settings.get("ca") {
        found.authorities = texts(ca, "ca")?.iter().map(|name| path(folder, name)).collect();
    }
    match settings.get("client") {
        None => {}
        Some(Value::String(both)) => found.clients.push((path(folder, both), None)),
        Some(Value::Array(list)) => {
            for item in list {
                match texts(item, "client")?.as_slice() {
                    [both] => found.clients.push((path(folder, both), None)),
                    [cert, key] if key.is_empty() => found.clients.push((path(folder, cert), None)),
                    [cert, key] => found.clients.push((path(folder, cert), Some(path(folder, key)))),
                    _ => return Err("\"client\" takes a file, or pairs of certificate and key".to_owned()),
                }
            }
        }
        Some(_) => return Err("\"client\" takes a file, or pairs of certificate and key".to_owned()),
    }
    let any = insecure.is_some() || !found.authorities.is_empty() || !found.clients.is_empty();
    Ok(any.then_some(found))
}

fn headers(settings: &Table) -> Result<Vec<(String, String)>, String> {
    let Some(table) = settings.get("header") else { return Ok(Vec::new()) };
    let table = table.as_table().ok_or("\"header\" is no table")?;
    let mut all = Vec::new();
    for (name, value) in table {
        for text in texts(value, name)? {
            let valid = http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(&text).is_ok();
            if !valid {
                return Err(format!("{name:?} is no header that can be sent"));
            }
            all.push((name.clone(), text));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Endpoint {
        Endpoint {
            host: "reg.example".to_owned(),
            scheme: Scheme::Https,
            prefix: "/v2".to_owned(),
            tls: TlsSettings::default(),
            headers: Vec::new(),
            capabilities: Capabilities::ALL,
            own: true,
        }
    }

    #[test]
    fn hosts_come_in_the_order_of_the_file_with_their_settings() {
        let text = r#"
            server = "https://up.example"
            [host."https://z.example/cache"]
              capabilities = ["pull", "resolve"]
              ca = "z.crt"
              [host."https://z.example/cache".header]
                x-one = ["a", "b"]
            [host."http://a.example:5000/api"]
              override_path = true
              skip_verify = true
              client = [["c.cert", "c.key"], "both.pem"]
        "#;
        let all = parse(text, Path::new("/d"), own()).expect("valid");
        let shown: Vec<_> = all.iter().map(|e| (e.host.as_str(), e.prefix.as_str(), e.scheme, e.own)).collect();
        assert_eq!(
            shown,
            [
                ("z.example", "/cache/v2", Scheme::Https, false),
                ("a.example:5000", "/api", Scheme::Http, false),
                ("up.example", "/v2", Scheme::Https, true),
            ]
        );
        assert_eq!(all[0].capabilities, Capabilities::READ);
        assert_eq!(all[0].tls.authorities, [PathBuf::from("/d/z.crt")]);
        assert_eq!(all[0].headers.len(), 2);
        assert!(all[1].tls.insecure);
        assert_eq!(all[1].tls.clients.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("server = 1", "\"server\" is no text"),
            ("[host.\"ftp://x\"]", "is no URL of a host"),
            ("[host.\"https://x\"]\ncapabilities=[\"fly\"]", "unknown capability"),
            ("[host.\"https://x\"]\nskip_verify=\"yes\"", "neither true nor false"),
            ("[host.\"https://x\"]\nheader={\"a b\"=\"c\"}", "is no header"),
            ("host = 3", "\"host\" is no table"),
            ("= 3", ""),
        ] {
            let error = parse(text, Path::new("/d"), own()).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n]{0,120}") {
            let _ = parse(&text, Path::new("/d"), own());
        }
    }
}
