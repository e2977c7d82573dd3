//! Images.

use http::StatusCode;
use wharf_api_types::query;

use crate::call::{Call, Handled};
use crate::routes::Endpoint;
use crate::{ApiError, respond};

/// Carries out a request on images.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::ImageCreate => create(call).await,
        Endpoint::ImageLoad => load(call).await,
        Endpoint::ImageSave | Endpoint::ImageSaveAll => save(call).await,
        Endpoint::ImageList | Endpoint::ImageInspect | Endpoint::ImageHistory => show(call).await,
        _ => change(call).await,
    }
}

async fn create(call: Call) -> Handled {
    let q = &call.query;
    let platform = if call.version.before(32) { "" } else { q.text("platform") }.to_owned();
    if !q.text("fromImage").is_empty() {
        return super::registries::pull(call, platform).await;
    }
    let (images, ends) = (call.backends.images.clone(), call.ends());
    let import = query::ImageImport {
        source: q.text("fromSrc").to_owned(),
        repo: q.text("repo").to_owned(),
        tag: q.text("tag").to_owned(),
        message: q.text("message").to_owned(),
        changes: q.all("changes"),
        platform,
    };
    let mut lines = images.import(import, call.upload()).await?;
    // An import says nothing before its end, so that a failure can still be a status.
    match lines.recv().await {
        Some(Err(e)) => Err(e),
        first => Ok(respond::stream("application/json", respond::progress(first, lines, ends))),
    }
}

async fn load(call: Call) -> Handled {
    let platforms = if call.version.before(48) { Vec::new() } else { call.query.platforms("platform")? };
    let load = query::ImageLoad { quiet: call.query.flag_or("quiet", true), platforms };
    let (images, ends) = (call.backends.images.clone(), call.ends());
    let lines = images.load(load, call.upload()).await?;
    Ok(respond::stream("application/json", respond::progress(None, lines, ends)))
}

async fn save(call: Call) -> Handled {
    let platforms = if call.version.before(48) { Vec::new() } else { call.query.platforms("platform")? };
    let names = match call.endpoint {
        Endpoint::ImageSave => vec![call.name.clone()],
        _ => call.query.all("names"),
    };
    let body = call.backends.images.save(query::ImageSave { names, platforms }).await?;
    Ok(respond::stream("application/x-tar", respond::bytes(body, call.ends())))
}

fn inspect_query(call: &Call, since: u32) -> Result<query::ImageInspect, ApiError> {
    let q = &call.query;
    let manifests = !call.version.before(48) && q.flag("manifests");
    let platform = if call.version.before(since) { None } else { q.platforms("platform")?.into_iter().next() };
    if manifests && platform.is_some() {
        return Err(ApiError::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    Ok(query::ImageInspect { manifests, platform })
}

async fn show(call: Call) -> Handled {
    let (images, q) = (&call.backends.images, &call.query);
    match call.endpoint {
        Endpoint::ImageList => {
            let list = query::ImageList {
                filters: q.filters()?,
                all: q.flag("all"),
                shared_size: !call.version.before(42) && q.flag("shared-size"),
                manifests: !call.version.before(47) && q.flag("manifests"),
            };
            Ok(call.ok(&images.list(list).await?))
        }
        Endpoint::ImageInspect => Ok(call.ok(&images.inspect(&call.name, inspect_query(&call, 49)?).await?)),
        _ => Ok(call.ok(&images.history(&call.name, inspect_query(&call, 48)?).await?)),
    }
}

async fn change(call: Call) -> Handled {
    let (images, q) = (&call.backends.images, &call.query);
    match call.endpoint {
        Endpoint::ImageTag => {
            images.tag(&call.name, q.text("repo"), q.text("tag")).await?;
            Ok(respond::empty(StatusCode::CREATED))
        }
        Endpoint::ImageRemove => {
            if call.name.trim().is_empty() {
                return Err(ApiError::invalid("image name cannot be blank"));
            }
            let platforms = if call.version.before(50) { Vec::new() } else { q.platforms("platforms")? };
            let remove = query::ImageRemove { force: q.flag("force"), prune: !q.flag("noprune"), platforms };
            Ok(call.ok(&images.remove(&call.name, remove).await?))
        }
        _ => Ok(call.ok(&images.prune(q.filters()?, q.flag("dry-run")).await?)),
    }
}
