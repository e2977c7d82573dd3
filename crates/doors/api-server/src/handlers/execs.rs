//! Execs.

use http::StatusCode;
use wharf_api_types as api;
use wharf_error::Kind;

use crate::backend::ExecStarted;
use crate::call::{Call, Handled};
use crate::detach::DetachKeys;
use crate::gotypes::Root;
use crate::routes::Endpoint;
use crate::{ApiError, respond};

const CREATE: Root = Root { value: "container.ExecOptions", prefix: "ExecOptions" };
const START: Root = Root { value: "container.ExecStartOptions", prefix: "ExecStartOptions" };

/// Carries out a request on execs.
pub async fn handle(mut call: Call) -> Handled {
    match call.endpoint {
        Endpoint::ExecCreate => {
            let request: api::ExecCreateRequest = call.json(CREATE).await?;
            if request.cmd.as_ref().is_none_or(Vec::is_empty) {
                return Err(ApiError::invalid("No exec command specified"));
            }
            DetachKeys::parse(&request.detach_keys).map_err(|_| {
                ApiError::new(Kind::System, format!("Invalid escape keys ({}) provided", request.detach_keys))
            })?;
            let id = call.backends.execs.create(&call.name, request).await?;
            Ok(respond::json(StatusCode::CREATED, &api::IdResponse { id }))
        }
        Endpoint::ExecStart => start(call).await,
        Endpoint::ExecInspect => Ok(call.ok(&call.backends.execs.inspect(&call.name).await?)),
        _ => {
            let (height, width) = call.query.size()?;
            call.backends.execs.resize(&call.name, height, width).await?;
            Ok(respond::empty(StatusCode::OK))
        }
    }
}

async fn start(mut call: Call) -> Handled {
    let mut request: api::ExecStartRequest = call.json(START).await?;
    if call.version.before(42) || !request.tty {
        request.console_size = None;
    }
    match call.backends.execs.start(&call.name, request).await? {
        ExecStarted::Detached => Ok(respond::empty(StatusCode::OK)),
        ExecStarted::Attached(stdio) => {
            let keys = DetachKeys::or_default(&stdio.detach_keys).map_err(|e| ApiError::of(&e))?;
            Ok(call.hijack(stdio, keys, &call.identity.headers()))
        }
    }
}
