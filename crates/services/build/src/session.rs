//! Sessions: what the client of a build serves to it. Folders, secrets, agents, credentials, and places for results.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use wharf_grpc::{Channel, Code, Receiver, Sender, Status};
use wharf_oci::image::Descriptor;
use wharf_proto_buildkit::{auth, content, secrets, ssh};
use wharf_types::Digest;

use crate::BuildError;

/// How long a build waits for the session that it names: clients open both at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of one message with content.
const CHUNK: u64 = 1 << 20;

/// One client.
pub struct Session {
    /// Its id, which builds name.
    pub id: String,
    /// What tells contexts of different folders apart.
    pub shared_key: String,
    /// What it serves: `/package.Service/Method`.
    methods: HashSet<String>,
    channel: Channel,
}

/// What to ask a client's folder for.
#[derive(Clone, Debug, Default)]
pub struct SyncRequest {
    /// The folder's name: `context`, `dockerfile`.
    pub name: String,
    /// Only what fits.
    pub include: Vec<String>,
    /// Not what fits.
    pub exclude: Vec<String>,
    /// Paths whose links are followed, so that what they lead to comes along.
    pub follow: Vec<String>,
}

fn set(map: &mut HeaderMap, name: &'static str, values: &[String]) {
    let encoded = values.iter().any(|v| !v.bytes().all(|b| (0x20..0x7f).contains(&b)));
    for value in values {
        let text = if encoded { escape(value) } else { value.clone() };
        if let Ok(value) = HeaderValue::from_str(&text) {
            map.append(HeaderName::from_static(name), value);
        }
    }
    if encoded {
        let flag = format!("{name}-encoded");
        if let Ok(flag) = HeaderName::try_from(flag) {
            map.insert(flag, HeaderValue::from_static("1"));
        }
    }
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            // Writing to a String does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

impl Session {
    /// Whether the client serves a method.
    pub fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Ends when the client has left.
    pub async fn closed(&self) {
        self.channel.closed().await;
    }

    /// Asks for a folder.
    ///
    /// # Errors
    /// The client has no such folder, or left.
    pub async fn sync(&self, request: &SyncRequest) -> Result<(Sender, Receiver), Status> {
        let mut metadata = HeaderMap::new();
        set(&mut metadata, "dir-name", std::slice::from_ref(&request.name));
        set(&mut metadata, "include-patterns", &request.include);
        set(&mut metadata, "exclude-patterns", &request.exclude);
        set(&mut metadata, "followpaths", &request.follow);
        let (sender, answer) = self.channel.open_call("/moby.filesync.v1.FileSync/DiffCopy", metadata).await?;
        Ok((sender, answer.await?))
    }

    /// Opens a place for a result: one stream of bytes, or a folder, as the client wants it.
    ///
    /// # Errors
    /// The client wants none, or left.
    pub async fn send_result(
        &self,
        exporter: usize,
        further: &[(String, String)],
    ) -> Result<(Sender, impl Future<Output = Result<Receiver, Status>> + Send + 'static), Status> {
        let mut metadata = HeaderMap::new();
        set(&mut metadata, "buildkit-attachable-exporter-id", &[exporter.to_string()]);
        for (key, value) in further {
            let name = HeaderName::try_from(format!("exporter-md-{key}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                metadata.insert(name, value);
            }
        }
        self.channel.open_call("/moby.filesync.v1.FileSend/DiffCopy", metadata).await
    }

    /// Reads a blob from a store that the client serves.
    ///
    /// # Errors
    /// There is no such store or blob, or the client left.
    pub async fn read_blob(&self, store: &str, digest: &Digest) -> Result<Receiver, Status> {
        let request = content::ReadContentRequest { digest: digest.to_string(), ..Default::default() };
        let (sender, answer) = self.content("/containerd.services.content.v1.Content/Read", store).await?;
        sender.send(&request).await?;
        drop(sender);
        answer.await
    }

    /// The size of a blob in such a store.
    ///
    /// # Errors
    /// As [`Session::read_blob`].
    pub async fn blob_size(&self, store: &str, digest: &Digest) -> Result<u64, Status> {
        let (sender, answer) = self.content("/containerd.services.content.v1.Content/Info", store).await?;
        sender.send(&content::InfoRequest { digest: digest.to_string() }).await?;
        drop(sender);
        let mut answer = answer.await?;
        let found = answer.message::<content::InfoResponse>().await?.and_then(|a| a.info);
        while answer.bytes().await?.is_some() {}
        let found = found.ok_or_else(|| Status::new(Code::NotFound, format!("content {digest}: not found")))?;
        Ok(u64::try_from(found.size).unwrap_or(0))
    }

    /// Writes a blob to such a store, unless it is there.
    ///
    /// # Errors
    /// The client left, or cannot write it.
    pub async fn write_blob(&self, store: &str, blob: &Descriptor, mut source: impl Read) -> Result<(), BuildError> {
        let (sender, answer) = self.content("/containerd.services.content.v1.Content/Write", store).await?;
        let request = |action: content::WriteAction, offset: u64, data: Vec<u8>| content::WriteContentRequest {
            action: action as i32,
            r#ref: format!("buildkit-{}", blob.digest),
            total: i64::try_from(blob.size).unwrap_or(0),
            expected: blob.digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(0),
            data,
        };
        let there = |status: &Status| status.code == Code::AlreadyExists;
        sender.send(&request(content::WriteAction::Stat, 0, Vec::new())).await?;
        let mut answer = match answer.await {
            Err(status) if there(&status) => return Ok(()),
            answer => answer?,
        };
        match answer.message::<content::WriteContentResponse>().await {
            Err(status) if there(&status) => return Ok(()),
            first => drop(first?),
        }
        let mut offset = 0;
        loop {
            let mut data = Vec::new();
            crate::local::in_place(|| source.by_ref().take(CHUNK).read_to_end(&mut data))?;
            let last = data.is_empty();
            let action = if last { content::WriteAction::Commit } else { content::WriteAction::Write };
            let length = data.len() as u64;
            sender.send(&request(action, offset, data)).await?;
            offset += length;
            match answer.message::<content::WriteContentResponse>().await {
                Err(status) if there(&status) => return Ok(()),
                told => drop(told?),
            }
            if last {
                break;
            }
        }
        drop(sender);
        while answer.bytes().await?.is_some() {}
        Ok(())
    }

    async fn content(
        &self,
        path: &'static str,
        store: &str,
    ) -> Result<(Sender, impl Future<Output = Result<Receiver, Status>> + Send + 'static), Status> {
        let mut metadata = HeaderMap::new();
        set(&mut metadata, "buildkit-attachable-store-id", &[store.to_owned()]);
        self.channel.open_call(path, metadata).await
    }

    /// Fetches a secret.
    ///
    /// # Errors
    /// There is none of that name, or the client left.
    pub async fn secret(&self, id: &str) -> Result<Vec<u8>, Status> {
        let request = secrets::GetSecretRequest { id: id.to_owned(), ..secrets::GetSecretRequest::default() };
        let answer: secrets::GetSecretResponse =
            self.channel.unary("/moby.buildkit.secrets.v1.Secrets/GetSecret", &request).await?;
        Ok(answer.data)
    }

    /// Asks whether an agent may be used.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn check_agent(&self, id: &str) -> Result<(), Status> {
        let request = ssh::CheckAgentRequest { id: id.to_owned() };
        self.channel.unary::<ssh::CheckAgentResponse>("/moby.sshforward.v1.SSH/CheckAgent", &request).await.map(drop)
    }

    /// Connects to an agent.
    ///
    /// # Errors
    /// The client left.
    pub async fn agent(&self, id: &str) -> Result<(Sender, Receiver), Status> {
        let mut metadata = HeaderMap::new();
        set(&mut metadata, "buildkit.ssh.id", &[id.to_owned()]);
        let (sender, answer) = self.channel.open_call("/moby.sshforward.v1.SSH/ForwardAgent", metadata).await?;
        Ok((sender, answer.await?))
    }

    /// Asks for the credentials of a registry: user and secret, both empty where there are none.
    ///
    /// # Errors
    /// The client left.
    pub async fn credentials(&self, host: &str) -> Result<(String, String), Status> {
        let request = auth::CredentialsRequest { host: host.to_owned() };
        match self.channel.unary::<auth::CredentialsResponse>("/moby.filesync.v1.Auth/Credentials", &request).await {
            Ok(answer) => Ok((answer.username, answer.secret)),
            Err(e) if e.code == Code::Unimplemented => Ok(Default::default()),
            Err(e) => Err(e),
        }
    }
}

/// The sessions that are open.
#[derive(Default)]
pub struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    changed: Notify,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a client until it leaves.
    ///
    /// # Errors
    /// It does not speak HTTP/2.
    pub async fn attend<S>(&self, id: &str, shared_key: &str, methods: Vec<String>, stream: S) -> Result<(), Status>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let channel = Channel::open(stream).await?;
        let session = Arc::new(Session {
            id: id.to_owned(),
            shared_key: shared_key.to_owned(),
            methods: methods.iter().map(|m| m.to_ascii_lowercase()).collect(),
            channel: channel.clone(),
        });
        self.lock().insert(id.to_owned(), session.clone());
        self.changed.notify_waiters();
        channel.closed().await;
        let mut open = self.lock();
        if open.get(id).is_some_and(|s| Arc::ptr_eq(s, &session)) {
            open.remove(id);
        }
        Ok(())
    }

    /// A session by its id; waits a while for one that is being opened.
    ///
    /// # Errors
    /// It does not come.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, BuildError> {
        let look = async {
            loop {
                let waiting = self.changed.notified();
                tokio::pin!(waiting);
                waiting.as_mut().enable();
                if let Some(session) = self.lock().get(id) {
                    return session.clone();
                }
                waiting.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.map_err(|_| {
            BuildError::new(
                wharf_error::Kind::NotFound,
                format!("no active session for {id}: context deadline exceeded"),
            )
        })
    }
}
