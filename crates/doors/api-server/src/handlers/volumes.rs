//! Volumes.

use http::StatusCode;
use wharf_api_types as api;
use wharf_error::Kind;

use crate::call::{Call, Handled};
use crate::gotypes::Root;
use crate::routes::Endpoint;
use crate::{ApiError, respond};

const CREATE: Root = Root { value: "volume.CreateOptions", prefix: "CreateOptions" };

/// Carries out a request on volumes.
pub async fn handle(mut call: Call) -> Handled {
    match call.endpoint {
        Endpoint::VolumeList => {
            let filters = call
                .query
                .filters()
                .map_err(|e| ApiError { message: format!("error reading volume filters: {}", e.message), ..e })?;
            Ok(call.ok(&call.backends.volumes.list(filters).await?))
        }
        Endpoint::VolumeInspect => Ok(call.ok(&call.backends.volumes.inspect(&call.name).await?)),
        Endpoint::VolumeCreate => {
            let request: api::VolumeCreateRequest = call.json(CREATE).await?;
            let made = call.backends.volumes.create(request).await?;
            Ok(respond::json(StatusCode::CREATED, &made))
        }
        Endpoint::VolumeRemove => {
            call.backends.volumes.remove(&call.name, call.query.flag("force")).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Endpoint::VolumeRename => {
            call.backends.volumes.rename(&call.name, call.query.text("name")).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Endpoint::VolumeClone => {
            let made = call.backends.volumes.clone_as(&call.name, call.query.text("name")).await?;
            Ok(respond::json(StatusCode::CREATED, &made))
        }
        Endpoint::VolumeExport => {
            let body = call.backends.volumes.export(&call.name).await?;
            Ok(respond::stream("application/x-tar", respond::bytes(body, call.ends())))
        }
        Endpoint::VolumeImport => {
            let (volumes, name) = (call.backends.volumes.clone(), call.name.clone());
            volumes.import(&name, call.upload()).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Endpoint::VolumePrune => Ok(call.ok(&call.backends.volumes.prune(call.query.filters()?).await?)),
        _ => Err(ApiError::new(
            Kind::Unavailable,
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )),
    }
}
