//! Containers: the calls that answer once.

use http::StatusCode;
use wharf_api_types as api;
use wharf_api_types::query;

use crate::ApiError;
use crate::call::{Call, Handled};
use crate::gotypes::Root;
use crate::respond;
use crate::routes::{CHECKPOINTS, Endpoint};

const UPDATE: Root = Root { value: "container.UpdateConfig", prefix: "UpdateConfig" };
const CHECKPOINT: Root = Root { value: "checkpoint.CreateOptions", prefix: "CreateOptions" };
const COMMIT: Root = Root { value: "container.Config", prefix: "Config" };

/// Carries out a request on containers.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::ContainerCreate => create(call).await,
        Endpoint::ContainerUpdate => update(call).await,
        Endpoint::Commit => commit(call).await,
        Endpoint::CheckpointCreate | Endpoint::CheckpointList | Endpoint::CheckpointRemove => checkpoint(call).await,
        Endpoint::ContainerList
        | Endpoint::ContainerInspect
        | Endpoint::ContainerTop
        | Endpoint::ContainerChanges
        | Endpoint::ContainerPrune => show(call).await,
        _ => act(call).await,
    }
}

async fn create(mut call: Call) -> Handled {
    let body = call.json_bytes().await?;
    let mut request = crate::create::decode(&body)?;
    crate::shapes::age_create(&mut request, &call.version);
    let platform = if call.version.before(41) { "" } else { call.query.text("platform") };
    if platform.split('/').count() > 3 {
        let text = format!("{platform:?}: cannot parse platform specifier: invalid argument");
        return Err(ApiError::invalid(text));
    }
    let made = call.backends.containers.create(call.query.text("name"), platform, request).await?;
    Ok(respond::json(StatusCode::CREATED, &made))
}

async fn update(mut call: Call) -> Handled {
    let request: api::ContainerUpdateRequest = call.json(UPDATE).await?;
    let updated = call.backends.containers.update(&call.name, request).await?;
    Ok(call.ok(&updated))
}

async fn commit(mut call: Call) -> Handled {
    let config: Option<api::ContainerConfig> = call.json(COMMIT).await?;
    let q = &call.query;
    let request = query::Commit {
        container: q.text("container").to_owned(),
        repo: q.text("repo").to_owned(),
        tag: q.text("tag").to_owned(),
        comment: q.text("comment").to_owned(),
        author: q.text("author").to_owned(),
        pause: q.flag_or("pause", true),
        changes: q.all("changes"),
        config,
    };
    let id = call.backends.containers.commit(request).await?;
    Ok(respond::json(StatusCode::CREATED, &api::IdResponse { id }))
}

/// What Docker has only in experimental mode.
async fn checkpoint(mut call: Call) -> Handled {
    if !call.identity.experimental {
        return Err(ApiError::not_implemented(
            "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to \
             enable it.",
        ));
    }
    match call.endpoint {
        Endpoint::CheckpointCreate => {
            let request: api::CheckpointCreateRequest = call.json(CHECKPOINT).await?;
            call.backends.containers.checkpoint(&call.name, request).await?;
            Ok(respond::empty(StatusCode::CREATED))
        }
        Endpoint::CheckpointList => {
            Ok(call.ok(&call.backends.containers.checkpoints(&call.name, call.query.text("dir")).await?))
        }
        _ => {
            // The route has matched both names.
            let (name, checkpoint) = call.name.rsplit_once(CHECKPOINTS).unwrap_or((&call.name, ""));
            call.backends.containers.remove_checkpoint(name, checkpoint, call.query.text("dir")).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
    }
}

async fn show(call: Call) -> Handled {
    let (containers, q, name) = (&call.backends.containers, &call.query, call.name.as_str());
    match call.endpoint {
        Endpoint::ContainerList => {
            let filters = q.filters()?;
            let limit = q.number("limit")?.unwrap_or(0);
            let list = query::ContainerList { all: q.flag("all"), limit, size: q.flag("size"), filters };
            Ok(call.ok(&containers.list(list).await?))
        }
        Endpoint::ContainerInspect => Ok(call.ok(&containers.inspect(name, q.flag("size")).await?)),
        Endpoint::ContainerTop => Ok(call.ok(&containers.top(name, q.text("ps_args")).await?)),
        Endpoint::ContainerChanges => Ok(call.ok(&containers.changes(name).await?)),
        _ => Ok(call.ok(&containers.prune(q.filters()?).await?)),
    }
}

fn stop_query(call: &Call) -> Result<query::ContainerStop, ApiError> {
    let signal = if call.version.before(42) { "" } else { call.query.text("signal") };
    Ok(query::ContainerStop { signal: signal.to_owned(), timeout: call.query.number("t")? })
}

/// Calls that answer with a status only.
async fn act(call: Call) -> Handled {
    let (containers, q, name) = (&call.backends.containers, &call.query, call.name.as_str());
    let mut status = StatusCode::NO_CONTENT;
    match call.endpoint {
        Endpoint::ContainerStart => containers.start(name, q.text("checkpoint"), q.text("checkpoint-dir")).await?,
        Endpoint::ContainerStop => containers.stop(name, stop_query(&call)?).await?,
        Endpoint::ContainerRestart => containers.restart(name, stop_query(&call)?).await?,
        Endpoint::ContainerKill => containers.kill(name, q.text("signal")).await?,
        Endpoint::ContainerPause => containers.pause(name).await?,
        Endpoint::ContainerUnpause => containers.unpause(name).await?,
        Endpoint::ContainerRename => containers.rename(name, q.text("name")).await?,
        Endpoint::ContainerResize => {
            let (height, width) = q.size()?;
            containers.resize(name, height, width).await?;
            status = StatusCode::OK;
        }
        _ => {
            let remove = query::ContainerRemove { volumes: q.flag("v"), force: q.flag("force"), link: q.flag("link") };
            containers.remove(name, remove).await?;
        }
    }
    Ok(respond::empty(status))
}
