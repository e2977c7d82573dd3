//! The registry's answers: distribution-spec 1.1.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::http::{Answer, Ask, decoded};
use super::seed::digest_of;
use super::{Content, Login, State, lock};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Answers a request as a good registry does.
pub(super) fn answer(state: &State, ask: &Ask) -> Answer {
    if ask.path() == "/token" {
        return token(state, ask);
    }
    if ask.path() == "/v1/search" {
        return search(state, ask);
    }
    let Some(rest) = ask.path().strip_prefix("/v2") else { return Answer::status(404) };
    let place = place(rest.trim_start_matches('/'));
    if let Err(refusal) = admit(state, ask, place.as_ref()) {
        return refusal;
    }
    let Some((repository, kind, name)) = place else {
        let root = rest.is_empty() || rest == "/";
        return if root { Answer::status(200).body("{}") } else { Answer::status(404) };
    };
    let mut content = lock(&state.content);
    match kind {
        "manifests" => manifest(&mut content, ask, &repository, name),
        "blobs" if name.starts_with("uploads/") => upload(&mut content, ask, &repository, &name["uploads/".len()..]),
        "blobs" => blob(&content, ask, &repository, name),
        "tags" => tags(&content, ask, &repository),
        "referrers" if state.referrers => referrers(&content, ask, &repository, name),
        _ => Answer::complaint(404, "UNSUPPORTED", "no such thing"),
    }
}

/// Splits `<repository>/<kind>/<name>`.
fn place(path: &str) -> Option<(String, &'static str, &str)> {
    ["manifests", "blobs", "tags", "referrers"].into_iter().find_map(|kind| {
        let (repository, name) = path.split_once(&format!("/{kind}/"))?;
        Some((repository.to_owned(), kind, name))
    })
}

/// Lets a request in, or says how to log in.
fn admit(state: &State, ask: &Ask, place: Option<&(String, &'static str, &str)>) -> Result<(), Answer> {
    let scheme = if state.encrypted { "https" } else { "http" };
    let unauthorised = |challenge: String| {
        Answer::complaint(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge)
    };
    let sent = ask.header("authorization").unwrap_or_default();
    match &state.login {
        Login::None => Ok(()),
        Login::Basic(user, password) => {
            let right = basic(sent) == Some((user.clone(), password.clone()));
            if right { Ok(()) } else { Err(unauthorised("Basic realm=\"test\"".to_owned())) }
        }
        Login::Token { .. } => {
            let needed: Vec<String> = place
                .map(|(repository, ..)| {
                    let writes = !matches!(ask.method.as_str(), "GET" | "HEAD");
                    let mut all = vec![format!("repository:{repository}:pull")];
                    if writes {
                        all.push(format!("repository:{repository}:push"));
                    }
                    all
                })
                .unwrap_or_default();
            let mut content = lock(&state.content);
            let token = sent.strip_prefix("Bearer ").unwrap_or_default();
            if let Some((scopes, left)) = content.tokens.get_mut(token)
                && *left > 0
                && needed.iter().all(|scope| scopes.contains(scope))
            {
                *left -= 1;
                return Ok(());
            }
            let realm = format!("{scheme}://{}/token", state.address);
            let scope =
                place.map(|(repository, ..)| format!(",scope=\"repository:{repository}:pull\"")).unwrap_or_default();
            Err(unauthorised(format!("Bearer realm=\"{realm}\",service=\"test registry\"{scope}")))
        }
    }
}

/// Reads `Basic …`.
fn basic(header: &str) -> Option<(String, String)> {
    let bytes = unbase64(header.strip_prefix("Basic ")?)?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Base64, standard alphabet.
pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0u32, 0, Vec::new());
    for b in text.bytes().filter(|b| *b != b'=') {
        bits = bits << 6 | ALPHABET.iter().position(|a| *a == b)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// Sells tokens.
fn token(state: &State, ask: &Ask) -> Answer {
    let Login::Token { user, password, anonymous_reads, uses } = &state.login else { return Answer::status(404) };
    let form = String::from_utf8_lossy(&ask.body).into_owned();
    let field = |name: &str| {
        let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, v)| decoded(v)).next()
    };
    let (scopes, known) = if ask.method == "POST" {
        let scopes: Vec<String> =
            field("scope").unwrap_or_default().split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        (scopes, field("refresh_token").as_deref() == Some("an identity"))
    } else {
        let sent = ask.header("authorization").map(basic);
        let right = sent == Some(Some((user.clone(), password.clone())));
        if sent.is_some() && !right {
            return Answer::status(401).body(r#"{"details":"incorrect username or password"}"#);
        }
        (ask.queries("scope"), right)
    };
    if ask.method == "POST" && !known {
        return Answer::status(401);
    }
    let mut granted = HashSet::new();
    for scope in scopes {
        let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
        for action in actions.split(',').filter(|action| known || (*anonymous_reads && *action == "pull")) {
            granted.insert(format!("{resource}:{action}"));
        }
    }
    let mut content = lock(&state.content);
    content.next += 1;
    let token = format!("token-{}", content.next);
    content.tokens.insert(token.clone(), (granted, *uses));
    let mut body = json!({"token": token, "expires_in": 300});
    if ask.query("offline_token").is_some() && known {
        body["refresh_token"] = Value::from("an identity");
    }
    Answer::status(200).with("Content-Type", "application/json").body(body.to_string())
}

fn search(state: &State, ask: &Ask) -> Answer {
    let term = ask.query("q").unwrap_or_default();
    let limit = ask.query("n").and_then(|n| n.parse().ok()).unwrap_or(25);
    let content = lock(&state.content);
    let names: std::collections::BTreeSet<&str> = content.manifests.keys().map(|(r, _)| r.as_str()).collect();
    let found = names.into_iter().filter(|name| name.contains(&term)).take(limit).enumerate();
    let results: Vec<Value> = found
        .map(|(n, name)| {
            let official = !name.contains('/');
            json!({"name": name, "description": format!("about {name}"), "star_count": 10 - n, "is_official": official,
                "is_automated": false})
        })
        .collect();
    let body = json!({"num_results": results.len(), "query": term, "results": results});
    Answer::status(200).with("Content-Type", "application/json").body(body.to_string())
}

fn manifest(content: &mut Content, ask: &Ask, repository: &str, name: &str) -> Answer {
    let key = (repository.to_owned(), name.to_owned());
    if ask.method == "PUT" {
        let digest = digest_of(&ask.body);
        if name.starts_with("sha256:") && name != digest {
            return Answer::complaint(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        if let Some(missing) = unknown_part(content, repository, &ask.body) {
            return Answer::complaint(400, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown to registry: {missing}"));
        }
        let kind = ask.header("content-type").unwrap_or_default().to_owned();
        let stored = (kind, ask.body.to_vec());
        content.manifests.insert((repository.to_owned(), digest.clone()), stored.clone());
        content.manifests.insert(key, stored);
        return Answer::status(201).with("Docker-Content-Digest", digest);
    }
    match content.manifests.get(&key) {
        None => Answer::complaint(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        Some((kind, bytes)) => Answer::status(200)
            .with("Content-Type", kind)
            .with("Docker-Content-Digest", digest_of(bytes))
            .body(bytes.clone()),
    }
}

/// What a manifest names and the repository lacks.
fn unknown_part(content: &Content, repository: &str, bytes: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let blobs = list("layers").into_iter().chain(document.get("config").cloned());
    let manifests = list("manifests");
    let digest = |part: &Value| part["digest"].as_str().map(str::to_owned);
    let no_blob = |d: &String| !content.blobs.contains_key(&(repository.to_owned(), d.clone()));
    let no_manifest = |d: &String| !content.manifests.contains_key(&(repository.to_owned(), d.clone()));
    let missing_blob = blobs.filter_map(|part| digest(&part)).find(no_blob);
    missing_blob.or_else(|| manifests.iter().filter_map(digest).find(no_manifest))
}

fn blob(content: &Content, ask: &Ask, repository: &str, digest: &str) -> Answer {
    let Some(bytes) = content.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
        return Answer::complaint(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let whole = Answer { status: 200, body: bytes.clone(), ..Answer::default() }
        .with("Content-Type", "application/octet-stream")
        .with("Accept-Ranges", "bytes")
        .with("Docker-Content-Digest", digest);
    let Some(range) = ask.header("range").and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.split_once('-')) else {
        return whole;
    };
    let start: usize = range.0.parse().unwrap_or(0);
    let end = range.1.parse::<usize>().map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
    if start >= bytes.len() {
        return Answer::status(416).with("Content-Range", format!("bytes */{}", bytes.len()));
    }
    let said = format!("bytes {start}-{}/{}", end - 1, bytes.len());
    Answer { status: 206, part: Some((start, end)), ..whole }.with("Content-Range", said)
}

fn upload(content: &mut Content, ask: &Ask, repository: &str, id: &str) -> Answer {
    let place = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
    if ask.method == "POST" {
        if let (Some(digest), Some(from)) = (ask.query("mount"), ask.query("from"))
            && let Some(bytes) = content.blobs.get(&(from, digest.clone())).cloned()
        {
            content.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return Answer::status(201).with("Docker-Content-Digest", digest);
        }
        content.next += 1;
        let id = format!("upload-{}", content.next);
        content.uploads.insert(id.clone(), Vec::new());
        return Answer::status(202).with("Location", place(&id)).with("Range", "0-0");
    }
    let Some(bytes) = content.uploads.get_mut(id) else {
        return Answer::complaint(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    if let Some((start, _)) = ask.header("content-range").and_then(|range| range.split_once('-'))
        && start.parse() != Ok(bytes.len())
    {
        return Answer::status(416).with("Location", place(id)).with("Range", format!("0-{}", bytes.len().max(1) - 1));
    }
    bytes.extend_from_slice(&ask.body);
    let length = bytes.len();
    if ask.method == "PATCH" {
        return Answer::status(202).with("Location", place(id)).with("Range", format!("0-{}", length.max(1) - 1));
    }
    let bytes = content.uploads.remove(id).unwrap_or_default();
    let digest = ask.query("digest").unwrap_or_default();
    if digest_of(&bytes) != digest {
        return Answer::complaint(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    content.blobs.insert((repository.to_owned(), digest.clone()), Arc::new(bytes));
    Answer::status(201).with("Docker-Content-Digest", digest)
}

/// Two tags on a page, so that clients must turn pages.
fn tags(content: &Content, ask: &Ask, repository: &str) -> Answer {
    let after = ask.query("last").unwrap_or_default();
    let names = content.manifests.keys().filter(|(r, name)| r == repository && !name.starts_with("sha256:"));
    let all: Vec<&str> = names.map(|(_, name)| name.as_str()).filter(|name| *name > after.as_str()).collect();
    if all.is_empty() && after.is_empty() {
        return Answer::complaint(404, "NAME_UNKNOWN", "repository name not known to registry");
    }
    let page: Vec<&str> = all.iter().copied().take(2).collect();
    let answer = Answer::status(200)
        .with("Content-Type", "application/json")
        .body(json!({"name": repository, "tags": page}).to_string());
    match page.last().filter(|_| all.len() > 2) {
        Some(last) => answer.with("Link", format!("</v2/{repository}/tags/list?n=2&last={last}>; rel=\"next\"")),
        None => answer,
    }
}

fn referrers(content: &Content, ask: &Ask, repository: &str, digest: &str) -> Answer {
    let wanted = ask.query("artifactType");
    let mut found = Vec::new();
    for ((r, name), (kind, bytes)) in &content.manifests {
        if r != repository || !name.starts_with("sha256:") {
            continue;
        }
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let artifact = document["artifactType"].as_str().or(document["config"]["mediaType"].as_str());
        if document["subject"]["digest"] != digest || wanted.as_deref().is_some_and(|w| Some(w) != artifact) {
            continue;
        }
        found.push(json!({"mediaType": kind, "digest": name, "size": bytes.len(), "artifactType": artifact}));
    }
    let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found});
    Answer::status(200).with("Content-Type", OCI_INDEX).body(body.to_string())
}
