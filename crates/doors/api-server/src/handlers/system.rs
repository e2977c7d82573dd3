//! The engine as a whole: ping, version, information, disk use, events.

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderValue, StatusCode};
use wharf_api_types::query;

use crate::ApiError;
use crate::call::{Call, Handled};
use crate::respond;
use crate::routes::Endpoint;

/// Carries out a request on the engine.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::Ping => Ok(ping(&call)),
        Endpoint::DebugVars | Endpoint::DebugProfile => {
            let absent = || ApiError::new(wharf_error::Kind::NotFound, "page not found");
            let vars = call.backends.system.debug_vars().ok_or_else(absent)?;
            match call.endpoint {
                Endpoint::DebugVars => Ok(respond::json(StatusCode::OK, &vars)),
                _ => Err(ApiError::not_implemented(
                    "there are no Go profiles: this engine is no Go program; use perf(1) or /debug/vars",
                )),
            }
        }
        Endpoint::Version => Ok(call.ok(&call.backends.system.version().await?)),
        Endpoint::Info => Ok(call.ok(&call.backends.system.info().await?)),
        Endpoint::DiskUsage => disk_usage(call).await,
        Endpoint::StoreCheck => {
            let repair = call.query.flag("repair");
            Ok(call.ok(&call.backends.system.check(repair).await?))
        }
        Endpoint::Events => events(call).await,
        _ => Ok(respond::empty(StatusCode::OK)),
    }
}

fn ping(call: &Call) -> respond::Answer {
    let head = call.method == http::Method::HEAD;
    let mut answer = respond::text(StatusCode::OK, if head { "" } else { "OK" });
    let headers = answer.headers_mut();
    if head {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    if let Ok(builder) = HeaderValue::from_str(&call.identity.builder_version) {
        headers.insert("builder-version", builder);
    }
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    answer
}

async fn disk_usage(call: Call) -> Handled {
    let types = if call.version.before(42) { Vec::new() } else { call.query.all("type") };
    let all = types.is_empty();
    let mut wanted = query::DiskUsage { containers: all, images: all, volumes: all, build_cache: all };
    for kind in &types {
        match kind.as_str() {
            "container" => wanted.containers = true,
            "image" => wanted.images = true,
            "volume" => wanted.volumes = true,
            "build-cache" => wanted.build_cache = true,
            other => return Err(ApiError::invalid(format!("unknown object type: {other}"))),
        }
    }
    Ok(call.ok(&call.backends.system.disk_usage(wanted).await?))
}

async fn events(call: Call) -> Handled {
    let q = &call.query;
    let (since, until) = (q.time("since")?, q.time("until")?);
    if let (Some(s), Some(u)) = (since, until)
        && s > u
    {
        let (s, u) = (q.text("since"), q.text("until"));
        return Err(ApiError::invalid(format!("`since` time ({s}) cannot be after `until` time ({u})")));
    }
    let filters = q.filters()?;
    let stream = call.backends.events.subscribe(query::Events { since, until, filters }).await?;
    Ok(respond::stream("application/json", respond::lines(stream, call.ends())))
}
