//! What we serve while the daemon builds: folders, places for results, secrets, agents and logins, by gRPC over a
//! connection that we opened.
//!
//! Source: moby/buildkit `session/{filesync,secrets,sshforward,auth}`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_grpc::{Call, Code, Service, Status};
use wharf_proto_buildkit::{auth, filesync, secrets, ssh};

use super::plan::{Place, Plan, Secret};
use super::{blobs, folder, receive};
use crate::credentials::Keeping;
use crate::exit::go_text;

/// What a session serves, told when it is opened.
pub const METHODS: &[&str] = &[
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Write",
    "/grpc.health.v1.Health/Check",
];

/// What is served.
pub struct Served {
    folders: BTreeMap<String, PathBuf>,
    secrets: BTreeMap<String, Secret>,
    agents: BTreeMap<String, PathBuf>,
    places: Vec<Place>,
    stores: BTreeMap<String, PathBuf>,
    /// Where logins are kept.
    configuration: PathBuf,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Health {
    /// 1 is serving.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The service.
#[derive(Clone)]
pub struct Door(Arc<Served>);

impl Door {
    /// Serves what a plan has.
    pub fn new(plan: &Plan, configuration: PathBuf) -> Self {
        Self(Arc::new(Served {
            folders: plan.folders.clone(),
            secrets: plan.secrets.clone(),
            agents: plan.agents.clone(),
            places: plan.places.clone(),
            stores: plan.stores.clone(),
            configuration,
        }))
    }
}

impl Service for Door {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> {
        let served = self.0.clone();
        Box::pin(async move { served.answer(call).await })
    }
}

/// A header's text.
pub fn header(call: &Call, name: &str) -> String {
    call.metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

impl Served {
    async fn answer(&self, mut call: Call) -> Result<(), Status> {
        match call.path.as_str() {
            "/moby.filesync.v1.FileSync/DiffCopy" => {
                let wanted = folder::Wanted::of(&call)?;
                let root = self.folders.get(&wanted.name);
                let root = root.ok_or_else(|| {
                    Status::new(Code::NotFound, format!("no access allowed to dir {:?}", wanted.name))
                })?;
                folder::send(root, &wanted, call).await
            }
            "/moby.filesync.v1.FileSend/DiffCopy" => self.take_result(call).await,
            "/moby.filesync.v1.Auth/Credentials" => {
                let request: auth::CredentialsRequest = call.message().await?;
                let answer = self.login(&request.host)?;
                call.sender.send(&answer).await
            }
            "/moby.buildkit.secrets.v1.Secrets/GetSecret" => {
                let request: secrets::GetSecretRequest = call.message().await?;
                let data = self.secret(&request.id)?;
                call.sender.send(&secrets::GetSecretResponse { data }).await
            }
            "/moby.sshforward.v1.SSH/CheckAgent" => {
                let request: ssh::CheckAgentRequest = call.message().await?;
                self.agent(&request.id)?;
                call.sender.send(&ssh::CheckAgentResponse {}).await
            }
            "/moby.sshforward.v1.SSH/ForwardAgent" => {
                let id = header(&call, "buildkit.ssh.id");
                let path = self.agent(&id)?.clone();
                forward(call, &path).await
            }
            path if path.starts_with("/containerd.services.content.v1.Content/") => {
                let id = header(&call, "buildkit-attachable-store-id");
                let unknown = || Status::new(Code::NotFound, format!("unknown store {id:?}"));
                blobs::answer(self.stores.get(&id).ok_or_else(unknown)?, call).await
            }
            "/grpc.health.v1.Health/Check" => call.sender.send(&Health { status: 1 }).await,
            other => Err(Status::new(Code::Unimplemented, format!("unknown method {other}"))),
        }
    }

    async fn take_result(&self, mut call: Call) -> Result<(), Status> {
        let number: usize = header(&call, "buildkit-attachable-exporter-id").parse().unwrap_or(0);
        let unknown = || Status::new(Code::NotFound, format!("no output of number {number}"));
        match self.places.get(number).ok_or_else(unknown)? {
            Place::Daemon => Err(unknown()),
            Place::Output => copy_out(&mut call, &mut std::io::stdout()).await,
            Place::File(path) => {
                let failed = |e: &std::io::Error| {
                    Status::new(Code::Unknown, format!("failed to open {}: {}", path.display(), go_text(e)))
                };
                let mut file = std::fs::File::create(path).map_err(|e| failed(&e))?;
                copy_out(&mut call, &mut file).await
            }
            Place::Folder(path) => receive::folder(path, call).await,
        }
    }

    fn login(&self, host: &str) -> Result<auth::CredentialsResponse, Status> {
        let server = crate::credentials::server_key(host);
        let failed = |e: crate::exit::Exit| Status::new(Code::Unknown, e.message);
        let login = Keeping::open(&self.configuration).and_then(|k| k.get(&server)).map_err(failed)?;
        let (username, secret) = match login.identity_token.is_empty() {
            true => (login.username, login.password),
            false => (String::new(), login.identity_token),
        };
        Ok(auth::CredentialsResponse { username, secret })
    }

    fn secret(&self, id: &str) -> Result<Vec<u8>, Status> {
        let missing = || Status::new(Code::NotFound, format!("secret {id}: not found"));
        match self.secrets.get(id).ok_or_else(missing)? {
            Secret::File(path) => std::fs::read(path)
                .map_err(|e| Status::new(Code::Unknown, format!("open {}: {}", path.display(), go_text(&e)))),
            Secret::Variable(name) => {
                use std::os::unix::ffi::OsStringExt;
                std::env::var_os(name).map(OsStringExt::into_vec).ok_or_else(missing)
            }
        }
    }

    fn agent(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { "default" } else { id };
        self.agents.get(id).ok_or_else(|| Status::new(Code::NotFound, format!("unset ssh forward key {id}")))
    }
}

async fn copy_out(call: &mut Call, out: &mut (impl std::io::Write + Send)) -> Result<(), Status> {
    let failed = |e: std::io::Error| Status::new(Code::Unknown, format!("write: {}", go_text(&e)));
    while let Some(message) = call.receiver.message::<filesync::BytesMessage>().await? {
        out.write_all(&message.data).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

/// Joins a call to an agent.
async fn forward(call: Call, path: &std::path::Path) -> Result<(), Status> {
    let stream = tokio::net::UnixStream::connect(path).await;
    let stream = stream
        .map_err(|e| Status::new(Code::Unknown, format!("failed to connect to {}: {}", path.display(), go_text(&e))))?;
    let (mut reading, mut writing) = stream.into_split();
    let Call { sender, mut receiver, .. } = call;
    let out = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(n @ 1..) = reading.read(&mut buffer).await {
            if sender.send(&ssh::BytesMessage { data: buffer[..n].to_vec() }).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        while let Ok(Some(message)) = receiver.message::<ssh::BytesMessage>().await {
            if writing.write_all(&message.data).await.is_err() {
                break;
            }
        }
        // The agent sees that nothing follows.
        let _ = writing.shutdown().await;
    };
    tokio::join!(out, back);
    Ok(())
}
