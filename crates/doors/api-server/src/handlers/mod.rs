//! From a routed request to a backend's method and back.

mod build;
mod containers;
mod execs;
mod images;
mod networks;
mod registries;
mod streams;
mod system;
mod volumes;

use http::StatusCode;

use crate::ApiError;
use crate::call::{Call, Handled};
use crate::gotypes::Root;
use crate::respond;
use crate::routes::{self, Endpoint};
use wharf_error::Kind;

/// What a node outside of any swarm answers to managers' calls.
const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

const SWARM: Root = Root { value: "swarm.InitRequest", prefix: "InitRequest" };

/// Carries out a request.
pub async fn handle(call: Call) -> Handled {
    use Endpoint as E;
    match call.endpoint {
        E::Ping
        | E::Options
        | E::Version
        | E::Info
        | E::DiskUsage
        | E::StoreCheck
        | E::Events
        | E::DebugVars
        | E::DebugProfile => system::handle(call).await,
        E::Auth | E::ImagePush | E::ImageSearch | E::Distribution => registries::handle(call).await,
        E::ContainerAttach
        | E::ContainerAttachWebsocket
        | E::ContainerLogs
        | E::ContainerStats
        | E::ContainerWait
        | E::ContainerExport
        | E::ArchiveStat
        | E::ArchiveGet
        | E::ArchivePut => streams::handle(call).await,
        E::ContainerCreate
        | E::ContainerList
        | E::ContainerInspect
        | E::ContainerTop
        | E::ContainerChanges
        | E::ContainerKill
        | E::ContainerPause
        | E::ContainerUnpause
        | E::ContainerRestart
        | E::ContainerStart
        | E::ContainerStop
        | E::ContainerResize
        | E::ContainerRename
        | E::ContainerUpdate
        | E::ContainerPrune
        | E::ContainerRemove
        | E::CheckpointCreate
        | E::CheckpointList
        | E::CheckpointRemove
        | E::Commit => containers::handle(call).await,
        E::ExecCreate | E::ExecStart | E::ExecInspect | E::ExecResize => execs::handle(call).await,
        E::ImageList
        | E::ImageInspect
        | E::ImageHistory
        | E::ImageSaveAll
        | E::ImageSave
        | E::ImageCreate
        | E::ImageLoad
        | E::ImageTag
        | E::ImageRemove
        | E::ImagePrune => images::handle(call).await,
        E::NetworkList
        | E::NetworkInspect
        | E::NetworkCreate
        | E::NetworkRemove
        | E::NetworkConnect
        | E::NetworkDisconnect
        | E::NetworkPrune => networks::handle(call).await,
        E::VolumeList
        | E::VolumeInspect
        | E::VolumeCreate
        | E::VolumeRemove
        | E::VolumePrune
        | E::VolumeUpdate
        | E::VolumeRename
        | E::VolumeClone
        | E::VolumeExport
        | E::VolumeImport => volumes::handle(call).await,
        E::Session | E::Grpc | E::Build | E::BuildCancel | E::BuildPrune => build::handle(call).await,
        E::PluginList | E::PluginMissing | E::NoManager | E::NoSwarm | E::Later(_) => absent(call).await,
    }
}

/// Endpoints of features that are not there.
async fn absent(mut call: Call) -> Handled {
    match call.endpoint {
        Endpoint::PluginList => Ok(respond::json(StatusCode::OK, &serde_json::json!([]))),
        Endpoint::PluginMissing => Err(ApiError::new(Kind::NotFound, format!("plugin {:?} not found", call.name))),
        Endpoint::NoManager => Err(ApiError::new(Kind::Unavailable, NO_MANAGER)),
        Endpoint::NoSwarm => Err(ApiError::new(Kind::Unavailable, "This node is not part of a swarm")),
        Endpoint::Later(feature) => {
            // A body that is no JSON where JSON belongs is the client's mistake, whatever this engine can do.
            if feature == routes::SWARM_MODE {
                call.json::<serde_json::Value>(SWARM).await?;
            }
            Err(ApiError::not_implemented(format!("{feature} is not implemented")))
        }
        _ => Err(ApiError::new(Kind::NotFound, "page not found")),
    }
}
