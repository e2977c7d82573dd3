//! Registries: requests into the engine's words, progress into Docker's lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use wharf_api_server::ApiError;
use wharf_api_server::backend::{Outgoing, RegistryBackend, Reply};
use wharf_api_types as api;
use wharf_api_types::query;
use wharf_distribution::{Credentials, Sent};
use wharf_engine::registries::{LayerStep, PullRequest, PullStep, PushRequest, PushStep};
use wharf_oci::image::Platform;
use wharf_types::{Digest, Reference};

use super::images::{descriptor, parse_platform, platform};
use super::{Joined, later};

/// Lines that wait for a slow client.
const LINES: usize = 64;

/// A login in the API's form. Old clients send user and password as one text in base64.
pub(super) fn credentials(auth: api::AuthConfig) -> Credentials {
    let (mut username, mut password) = (auth.username, auth.password);
    if username.is_empty() && !auth.auth.is_empty() {
        let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((user, secret)) = decoded.as_deref().and_then(|text| text.split_once(':')) {
            (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
    }
    Credentials { username, password, identity_token: auth.identitytoken, registry_token: auth.registrytoken }
}

/// The name of a pull: the tag may also be a digest (moby `api/server/router/image`).
fn pull_reference(image: &str, tag: &str) -> Result<Reference, ApiError> {
    let parsed = Reference::parse(image).map_err(|e| ApiError::of(&e))?;
    if tag.is_empty() {
        return Ok(parsed);
    }
    match Digest::parse(tag) {
        Ok(digest) => Ok(parsed.with_digest(digest)),
        Err(_) => parsed.with_tag(tag).map_err(|e| ApiError::of(&e)),
    }
}

/// Passes steps on as lines until the work is done; its error is the last one.
fn lines<S: Send + 'static, W>(
    line: fn(S) -> api::Progress,
    work: impl FnOnce(mpsc::Sender<S>) -> W,
) -> Outgoing<api::Progress>
where
    W: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(LINES);
    let (steps, mut told) = mpsc::channel(LINES);
    let work = tokio::spawn(work(steps));
    tokio::spawn(async move {
        while let Some(step) = told.recv().await {
            if sender.send(Ok(line(step))).await.is_err() {
                // The client left: `told` is dropped, and so the work hears of it.
                return;
            }
        }
        let failed = match work.await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e,
            Err(e) => ApiError::new(wharf_error::Kind::System, e.to_string()),
        };
        let _ = sender.send(Err(failed)).await;
    });
    receiver
}

fn layer(id: String, status: &str, detail: api::ProgressDetail) -> api::Progress {
    let progress = bar(&detail);
    api::Progress { status: status.to_owned(), id, progress_detail: Some(detail), progress, ..api::Progress::default() }
}

fn pull_line(step: PullStep) -> api::Progress {
    let status = |status: String| api::Progress { status, ..api::Progress::default() };
    let none = api::ProgressDetail::default;
    let hidden = || api::ProgressDetail { hide_counts: true, ..none() };
    match step {
        PullStep::Begins { repository, tag } => {
            api::Progress { id: tag, ..status(format!("Pulling from {repository}")) }
        }
        PullStep::Layer { id, step } => match step {
            LayerStep::Needed => layer(id, "Pulling fs layer", none()),
            LayerStep::Downloading(current, total) => {
                layer(id, "Downloading", api::ProgressDetail { current: current as i64, total: total as i64, ..none() })
            }
            LayerStep::Downloaded => layer(id, "Download complete", hidden()),
            LayerStep::Extracting(seconds) => layer(
                id,
                "Extracting",
                api::ProgressDetail { current: seconds as i64, units: "s".to_owned(), ..none() },
            ),
            LayerStep::Complete => layer(id, "Pull complete", hidden()),
        },
        PullStep::Digest(digest) => status(format!("Digest: {digest}")),
        PullStep::Done { name, newer: true } => status(format!("Status: Downloaded newer image for {name}")),
        PullStep::Done { name, newer: false } => status(format!("Status: Image is up to date for {name}")),
    }
}

fn push_line(step: PushStep) -> api::Progress {
    let status = |status: String| api::Progress { status, ..api::Progress::default() };
    match step {
        PushStep::Begins(name) => status(format!("The push refers to repository [{name}]")),
        PushStep::Layer { id, layer: of_files, total, sent } => {
            let none = api::ProgressDetail::default();
            match sent {
                Sent::Waiting => layer(id, "Waiting", none),
                Sent::Exists if of_files => layer(id, "Layer already exists", none),
                Sent::Exists => layer(id, "Already exists", none),
                Sent::Mounted(from) => layer(id, &format!("Mounted from {from}"), none),
                Sent::Bytes(current) => {
                    layer(id, "Pushing", api::ProgressDetail { current: current as i64, total: total as i64, ..none })
                }
                Sent::Done => layer(id, "Pushed", none),
            }
        }
        PushStep::Done { tag, target } => status(format!("{tag}: digest: {} size: {}", target.digest, target.size)),
        PushStep::Instead { index, manifest } => api::Progress {
            progress_detail: Some(api::ProgressDetail::default()),
            aux: Some(serde_json::json!({
                "manifestPushedInsteadOfIndex": true,
                "originalIndex": descriptor(&index),
                "selectedManifest": descriptor(&manifest),
            })),
            ..api::Progress::default()
        },
    }
}

/// The bar that dockerd draws for clients that cannot (moby `pkg/jsonmessage`, `JSONProgress.String`).
fn bar(detail: &api::ProgressDetail) -> String {
    let (current, total) = (detail.current.max(0) as u64, detail.total.max(0) as u64);
    if current == 0 && total == 0 {
        return String::new();
    }
    if total == 0 {
        return match detail.units.as_str() {
            "" => format!("{:>8}", size(current)),
            units => format!("{current} {units}"),
        };
    }
    let filled = usize::try_from(u128::from(current) * 50 / u128::from(total)).unwrap_or(50).min(50);
    let space = if total > current { 50 - filled } else { 50usize.saturating_sub(filled) };
    let numbers = match (detail.hide_counts, current > total) {
        (true, _) => String::new(),
        (_, true) => format!("{:>8}", size(current)),
        _ => format!("{:>8}/{}", size(current), size(total)),
    };
    format!("[{}>{}] {numbers}", "=".repeat(filled), " ".repeat(space))
}

/// Bytes with four digits and decimal units (go-units `HumanSize`).
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = (value.log10().floor().max(0.0) as usize) + 1;
    let text = format!("{value:.*}", 4usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

impl RegistryBackend for Joined {
    fn pull(&self, query: query::ImagePull) -> Reply<'_, Outgoing<api::Progress>> {
        let registries = self.0.registries.clone();
        Box::pin(async move {
            let reference = pull_reference(&query.image, &query.tag)?;
            let wanted = match query.platform.as_str() {
                "" => None,
                text => {
                    let wrong = || ApiError::invalid(format!("{text:?}: invalid platform"));
                    Some(parse_platform(text).ok_or_else(wrong)?)
                }
            };
            let request = PullRequest { reference, platform: wanted, credentials: credentials(query.auth) };
            Ok(lines(pull_line, |steps| async move {
                registries.pull(request, steps).await.map(drop).map_err(|e| ApiError::of(&e))
            }))
        })
    }

    fn push<'a>(&'a self, name: &'a str, query: query::ImagePush) -> Reply<'a, Outgoing<api::Progress>> {
        let registries = self.0.registries.clone();
        Box::pin(async move {
            let mut reference = Reference::parse(name).map_err(|e| ApiError::of(&e))?;
            if !query.tag.is_empty() {
                reference = reference.with_tag(&query.tag).map_err(|e| ApiError::of(&e))?;
            }
            let wanted = query.platform.map(|p| Platform {
                os: p.os,
                architecture: p.architecture,
                variant: p.variant,
                ..Platform::default()
            });
            let request = PushRequest { reference, platform: wanted, credentials: credentials(query.auth) };
            Ok(lines(
                push_line,
                |steps| async move { registries.push(request, steps).await.map_err(|e| ApiError::of(&e)) },
            ))
        })
    }

    fn auth(&self, request: api::AuthConfig) -> Reply<'_, api::AuthResponse> {
        let registries = self.0.registries.clone();
        Box::pin(async move {
            let server = request.serveraddress.clone();
            let token = registries.log_in(&server, credentials(request)).await.map_err(|e| ApiError::of(&e))?;
            Ok(api::AuthResponse { identity_token: token, status: "Login Succeeded".to_owned() })
        })
    }

    fn search(&self, query: query::ImageSearch) -> Reply<'_, Vec<api::SearchResult>> {
        let registries = self.0.registries.clone();
        Box::pin(async move {
            let filters = &query.filters;
            filters.check_keys(&["is-automated", "is-official", "stars"]).map_err(|e| ApiError::of(&e))?;
            let flag = |key: &str| match filters.contains(key) {
                true => filters.bool_or(key, false).map(Some).map_err(|e| ApiError::of(&e)),
                false => Ok(None),
            };
            let (automated, official) = (flag("is-automated")?, flag("is-official")?);
            let mut stars = 0;
            for text in filters.get("stars") {
                let wrong = || ApiError::invalid(format!("invalid filter 'stars={text}'"));
                stars = stars.max(text.parse::<i64>().map_err(|_| wrong())?);
            }
            let found = registries.search(&query.term, query.limit, credentials(query.auth)).await;
            let found = found.map_err(|e| ApiError::of(&e))?;
            let fits = |f: &wharf_distribution::Found| {
                automated.is_none_or(|wanted| f.is_automated == wanted)
                    && official.is_none_or(|wanted| f.is_official == wanted)
                    && f.star_count >= stars
            };
            let row = |f: wharf_distribution::Found| api::SearchResult {
                star_count: f.star_count,
                is_official: f.is_official,
                name: f.name,
                is_automated: f.is_automated,
                description: f.description,
            };
            Ok(found.into_iter().filter(fits).map(row).collect())
        })
    }

    fn distribution<'a>(&'a self, name: &'a str, auth: api::AuthConfig) -> Reply<'a, api::DistributionInspect> {
        let registries = self.0.registries.clone();
        later(async move {
            let reference = Reference::parse(name).map_err(|e| ApiError::of(&e))?.with_default_tag();
            let found = registries.inspect(&reference, credentials(auth)).await.map_err(|e| ApiError::of(&e))?;
            let platforms: Vec<_> = found.platforms.iter().map(platform).collect();
            Ok::<_, ApiError>(api::DistributionInspect {
                descriptor: descriptor(&found.descriptor),
                platforms: (!platforms.is_empty()).then_some(platforms),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(current: i64, total: i64) -> api::ProgressDetail {
        api::ProgressDetail { current, total, ..api::ProgressDetail::default() }
    }

    #[test]
    fn bars_are_dockers() {
        let text = bar(&detail(3_145_728, 30_003_974));
        assert_eq!(text, "[=====>                                             ]  3.146MB/30MB");
        let text = bar(&detail(11_534_336, 30_003_974));
        assert_eq!(text, "[===================>                               ]  11.53MB/30MB");
        assert_eq!(bar(&detail(0, 0)), "");
        assert_eq!(bar(&api::ProgressDetail { units: "s".to_owned(), ..detail(1, 0) }), "1 s");
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in
            [(999, "999B"), (1_000, "1kB"), (3_145_728, "3.146MB"), (2_131_968, "2.132MB"), (19_922_944, "19.92MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn lines_have_dockers_shape() {
        let json = |line| serde_json::to_string(&line).expect("serialises");
        let step = |step| pull_line(PullStep::Layer { id: "d100650d27b1".to_owned(), step });
        assert_eq!(
            json(step(LayerStep::Needed)),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"d100650d27b1"}"#
        );
        assert_eq!(
            json(step(LayerStep::Downloaded)),
            r#"{"status":"Download complete","progressDetail":{"hidecounts":true},"id":"d100650d27b1"}"#
        );
        assert_eq!(
            json(step(LayerStep::Extracting(1))),
            r#"{"status":"Extracting","progressDetail":{"current":1,"units":"s"},"progress":"1 s","id":"d100650d27b1"}"#
        );
        let begun = PullStep::Begins { repository: "three".to_owned(), tag: "v1".to_owned() };
        assert_eq!(json(pull_line(begun)), r#"{"status":"Pulling from three","id":"v1"}"#);
    }

    #[test]
    fn names_take_digests_as_tags() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let name = pull_reference("busybox", &digest).ok().map(|r| r.to_string());
        assert_eq!(name, Some(format!("docker.io/library/busybox@{digest}")));
        assert!(pull_reference("busybox", "-").is_err());
    }

    #[test]
    fn old_logins_are_one_text() {
        let auth = api::AuthConfig { auth: STANDARD.encode("bob:se:cret"), ..api::AuthConfig::default() };
        let found = credentials(auth);
        assert_eq!((found.username.as_str(), found.password.as_str()), ("bob", "se:cret"));
    }
}
