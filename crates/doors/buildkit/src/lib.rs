//! BuildKit's gRPC door: control and gateway services over a connection that was handed over, and sessions.

mod bridge;
mod control;
mod convert;

use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use wharf_build::Builder;
use wharf_grpc::{Call, Code, Service, Status};

/// The version of BuildKit whose protocol is spoken.
pub const VERSION: &str = "v0.25.1";

/// The door.
#[derive(Clone)]
pub struct Door {
    builder: Arc<Builder>,
    bridges: Arc<bridge::Bridges>,
}

impl Door {
    /// Opens it.
    pub fn new(builder: Arc<Builder>) -> Self {
        builder.serve_frontends(Arc::new(bridge::Frontends));
        Self { builder, bridges: Arc::default() }
    }

    /// Serves a connection of `/grpc` until it ends.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Err(error) = wharf_grpc::serve(stream, Arc::new(self.clone())).await {
            tracing::debug!(%error, "a BuildKit client broke off");
        }
    }

    /// Serves a connection of `/session` until it ends.
    pub async fn session<S>(&self, id: &str, shared_key: &str, methods: Vec<String>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Err(error) = self.builder.sessions.attend(id, shared_key, methods, stream).await {
            tracing::debug!(%error, "a build session broke off");
        }
    }

    async fn answer(self, call: Call) -> Result<(), Status> {
        let path = call.path.clone();
        let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
            return Err(Status::new(Code::Unimplemented, format!("malformed method name {path}")));
        };
        match service {
            "moby.buildkit.v1.Control" => self.control(method, call).await,
            "moby.buildkit.v1.frontend.LLBBridge" => self.bridge(method, call).await,
            "grpc.health.v1.Health" if method == "Check" => healthy(&call).await,
            _ => Err(Status::new(Code::Unimplemented, format!("unknown service {service}"))),
        }
    }
}

/// Answers that all is well.
async fn healthy(call: &Call) -> Result<(), Status> {
    // HealthCheckResponse{status: SERVING}; its one field is a number like this one's.
    call.sender.send(&wharf_proto_buildkit::errdefs::FileAction { index: 1 }).await
}

impl Service for Door {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> {
        Box::pin(self.clone().answer(call))
    }
}
