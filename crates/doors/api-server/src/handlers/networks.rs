//! Networks.

use http::StatusCode;
use wharf_api_types as api;

use crate::call::{Call, Handled};
use crate::gotypes::Root;
use crate::respond;
use crate::routes::Endpoint;

const CREATE: Root = Root { value: "network.CreateRequest", prefix: "" };
const CONNECT: Root = Root { value: "network.ConnectOptions", prefix: "ConnectOptions" };
const DISCONNECT: Root = Root { value: "network.DisconnectOptions", prefix: "DisconnectOptions" };

/// Carries out a request on networks.
pub async fn handle(mut call: Call) -> Handled {
    match call.endpoint {
        Endpoint::NetworkList => Ok(call.ok(&call.backends.networks.list(call.query.filters()?).await?)),
        Endpoint::NetworkInspect => {
            let network = call.backends.networks.inspect(&call.name, call.query.text("scope")).await?;
            Ok(call.ok(&network))
        }
        Endpoint::NetworkCreate => {
            let request: api::NetworkCreateRequest = call.json(CREATE).await?;
            let made = call.backends.networks.create(request).await?;
            Ok(respond::json(StatusCode::CREATED, &made))
        }
        Endpoint::NetworkConnect => {
            let request: api::NetworkConnectRequest = call.json(CONNECT).await?;
            call.backends.networks.connect(&call.name, request).await?;
            Ok(respond::empty(StatusCode::OK))
        }
        Endpoint::NetworkDisconnect => {
            let request: api::NetworkDisconnectRequest = call.json(DISCONNECT).await?;
            call.backends.networks.disconnect(&call.name, request).await?;
            Ok(respond::empty(StatusCode::OK))
        }
        Endpoint::NetworkRemove => {
            call.backends.networks.remove(&call.name).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        _ => Ok(call.ok(&call.backends.networks.prune(call.query.filters()?).await?)),
    }
}
