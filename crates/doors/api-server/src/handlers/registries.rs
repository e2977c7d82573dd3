//! Registries: pull, push, login, search, and what a registry says of an image.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use wharf_api_types as api;
use wharf_api_types::query;

use crate::ApiError;
use crate::call::{Call, Handled};
use crate::gotypes::Root;
use crate::respond;
use crate::routes::Endpoint;

const AUTH: Root = Root { value: "registry.AuthConfig", prefix: "AuthConfig" };

/// Results of a search where no number is given, and at most (moby `registry/search.go`).
const SEARCH_DEFAULT: i64 = 25;
const SEARCH_LIMIT: i64 = 100;
/// A login is never as large as this.
const LOGIN_LIMIT: usize = 64 << 10;

/// Carries out a request about registries.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::ImagePush => push(call).await,
        Endpoint::ImageSearch => search(call).await,
        Endpoint::Auth => {
            let mut call = call;
            let request: api::AuthConfig = call.json(AUTH).await?;
            Ok(call.ok(&call.backends.registries.auth(request).await?))
        }
        _ => {
            let login = login(&call);
            Ok(call.ok(&call.backends.registries.distribution(&call.name, login).await?))
        }
    }
}

/// The login in the header `X-Registry-Auth`: JSON in base64, for URLs or not, padded or not. One that cannot be read is
/// none, as with Docker, whose old clients send nonsense.
pub(super) fn login(call: &Call) -> api::AuthConfig {
    let text = call.headers.get("x-registry-auth").and_then(|v| v.to_str().ok()).unwrap_or_default();
    decode(text).unwrap_or_default()
}

fn decode(text: &str) -> Option<api::AuthConfig> {
    if text.is_empty() || text.len() > LOGIN_LIMIT {
        return None;
    }
    let mode = base64::engine::DecodePaddingMode::Indifferent;
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(mode);
    let urls = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    let json = urls.decode(text).or_else(|_| STANDARD.decode(text)).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The first part of `POST /images/create` with `fromImage`.
pub(super) async fn pull(call: Call, platform: String) -> Handled {
    let q = &call.query;
    let (image, tag) = (q.text("fromImage").to_owned(), q.text("tag").to_owned());
    let pull = query::ImagePull { image, tag, platform, auth: login(&call) };
    let (registries, ends) = (call.backends.registries.clone(), call.ends());
    let mut lines = registries.pull(pull).await?;
    // What fails before anything is told is a status.
    match lines.recv().await {
        Some(Err(e)) => Err(e),
        first => Ok(respond::stream("application/json", respond::progress(first, lines, ends))),
    }
}

async fn push(mut call: Call) -> Handled {
    let platforms = if call.version.before(46) { Vec::new() } else { call.query.platforms("platform")? };
    let mut auth = login(&call);
    if auth == api::AuthConfig::default() && !call.headers.contains_key("x-registry-auth") {
        // Clients before API 1.22 send it as the body.
        let bytes = call.json_bytes().await.unwrap_or_default();
        auth = serde_json::from_slice(&bytes).unwrap_or_default();
    }
    let push =
        query::ImagePush { tag: call.query.text("tag").to_owned(), platform: platforms.into_iter().next(), auth };
    let (registries, ends) = (call.backends.registries.clone(), call.ends());
    let mut lines = registries.push(&call.name, push).await?;
    match lines.recv().await {
        Some(Err(e)) => Err(e),
        first => Ok(respond::stream("application/json", respond::progress(first, lines, ends))),
    }
}

async fn search(call: Call) -> Handled {
    let q = &call.query;
    let limit = match q.text("limit") {
        "" => SEARCH_DEFAULT,
        text => text.parse().map_err(|_| {
            ApiError::invalid(format!("invalid limit specified: strconv.Atoi: parsing {text:?}: invalid syntax"))
        })?,
    };
    let limit = if limit == 0 { SEARCH_DEFAULT } else { limit };
    if !(1..=SEARCH_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(format!("limit {limit} is outside the range of [1, {SEARCH_LIMIT}]")));
    }
    let search = query::ImageSearch {
        term: q.text("term").to_owned(),
        limit: limit as u32,
        filters: q.filters()?,
        auth: login(&call),
    };
    Ok(call.ok(&call.backends.registries.search(search).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    #[test]
    fn logins_are_read_in_every_base64_that_clients_send() {
        let json = br#"{"username":"b?b>","password":"s"}"#;
        for text in [STANDARD.encode(json), URL_SAFE.encode(json), URL_SAFE_NO_PAD.encode(json)] {
            assert_eq!(decode(&text).map(|a| a.username).as_deref(), Some("b?b>"), "{text}");
        }
        // What cannot be read is nobody's login, as with moby.
        assert_eq!(decode("%%%").unwrap_or_default(), api::AuthConfig::default());
        assert_eq!(decode(&STANDARD.encode("[]")).unwrap_or_default(), api::AuthConfig::default());
    }
}
