//! A backend without an engine: containers named by how they behave, so that tests see only the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use wharf_api_server::backend::*;
use wharf_api_server::{ApiError, Backends, Identity};
use wharf_api_types::{self as api, query};
use wharf_error::Kind;

/// The fake engine. Its fields are what tests steer and look at.
#[derive(Default)]
pub struct Fake {
    /// Ends all waits.
    pub exit: Mutex<Option<watch::Sender<bool>>>,
    /// Bytes the process read before end-of-file, once it came.
    pub stdin: Arc<Mutex<Option<Vec<u8>>>>,
    /// Whether the exit code could be asked for.
    pub exit_known: Arc<AtomicBool>,
    /// Whether the client detached by keys.
    pub detached: Arc<AtomicBool>,
    /// Whether the producer of an endless stream noticed that nobody reads.
    pub abandoned: Arc<AtomicBool>,
    /// Chunks an endless stream has handed over.
    pub produced: Arc<std::sync::atomic::AtomicUsize>,
    /// Bytes of the last upload.
    pub uploaded: Arc<Mutex<Vec<u8>>>,
}

impl Fake {
    /// The fake as all backends.
    pub fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            containers: self.clone(),
            execs: self.clone(),
            images: self.clone(),
            system: self.clone(),
            networks: self.clone(),
            volumes: self.clone(),
            registries: self.clone(),
            build: self.clone(),
            events: self.clone(),
            authorizer: self.clone(),
        }
    }

    /// A process that shouts back: what it reads comes out again, framed unless it has a terminal, then `bye`.
    fn process(&self, tty: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let stdin = Arc::clone(&self.stdin);
        tokio::spawn(async move {
            let (mut read, mut write) = ours.into_split();
            let mut all = Vec::new();
            let mut buf = vec![0; 65536];
            while let Ok(n) = read.read(&mut buf).await {
                if n == 0 {
                    break;
                }
                all.extend_from_slice(&buf[..n]);
                let _ = write.write_all(&frame(tty, &buf[..n])).await;
            }
            *stdin.lock().expect("lock") = Some(all);
            let _ = write.write_all(&frame(tty, b"bye")).await;
        });
        theirs
    }

    fn stdio(&self, tty: bool, stdin: bool) -> Stdio {
        let process = self.process(tty);
        let (detached, known) = (Arc::clone(&self.detached), Arc::clone(&self.exit_known));
        Stdio {
            tty,
            stdin,
            stream: Box::pin(async move { Ok(process) }),
            ended: Box::pin(async move {
                // Later than the end of the output, as an exit is reported.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                known.store(true, Ordering::SeqCst);
            }),
            detach_keys: String::new(),
            on_detach: Box::new(move || detached.store(true, Ordering::SeqCst)),
        }
    }

    fn endless(&self) -> Outgoing<Bytes> {
        let (send, receive) = mpsc::channel(4);
        let (abandoned, produced) = (Arc::clone(&self.abandoned), Arc::clone(&self.produced));
        tokio::spawn(async move {
            while send.send(Ok(Bytes::from(vec![b'x'; 65536]))).await.is_ok() {
                produced.fetch_add(1, Ordering::SeqCst);
            }
            abandoned.store(true, Ordering::SeqCst);
        });
        receive
    }

    fn silent<T: Send + 'static>(&self) -> Outgoing<T> {
        let (send, receive) = mpsc::channel::<Result<T, ApiError>>(1);
        let abandoned = Arc::clone(&self.abandoned);
        tokio::spawn(async move {
            send.closed().await;
            abandoned.store(true, Ordering::SeqCst);
        });
        receive
    }

    fn take(&self, mut body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        Box::pin(async move {
            let mut all = Vec::new();
            while let Some(chunk) = body.recv().await {
                all.extend_from_slice(&chunk?);
            }
            let text = format!("{} bytes", all.len());
            *self.uploaded.lock().expect("lock") = all;
            let (send, receive) = mpsc::channel(4);
            let line = api::Progress { status: text, ..Default::default() };
            send.try_send(Ok(line)).expect("room");
            send.try_send(Err(ApiError::invalid("broken at the end"))).expect("room");
            Ok(receive)
        })
    }
}

fn frame(tty: bool, bytes: &[u8]) -> Vec<u8> {
    if tty {
        return bytes.to_vec();
    }
    let mut framed = vec![1, 0, 0, 0];
    framed.extend_from_slice(&u32::try_from(bytes.len()).expect("small").to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}

/// Who the fake says it is.
pub fn identity() -> Identity {
    Identity {
        server: "Docker/28.5.2+wharf.test (linux)".to_owned(),
        api_version: "1.51".to_owned(),
        min_api_version: "1.24".to_owned(),
        experimental: false,
        builder_version: "2".to_owned(),
    }
}

fn missing<'a, T: 'a + Send>(name: &str) -> Reply<'a, T> {
    let e = ApiError::new(Kind::NotFound, format!("No such container: {name}"));
    Box::pin(async move { Err(e) })
}

fn ok<'a, T: 'a + Send>(value: T) -> Reply<'a, T> {
    Box::pin(async move { Ok(value) })
}

fn refuse<'a, T: 'a + Send>() -> Reply<'a, T> {
    Box::pin(async move { Err(ApiError::not_implemented("not in the fake")) })
}

fn by_name<'a, T: 'a + Send>(name: &str, value: T) -> Reply<'a, T> {
    match name {
        "nope" => missing(name),
        "running" => Box::pin(async { Err(ApiError::new(Kind::NotModified, "")) }),
        "broken" => Box::pin(async { Err(ApiError::new(Kind::System, "it broke: <&>")) }),
        _ => ok(value),
    }
}

impl ContainerBackend for Fake {
    fn create<'a>(
        &'a self,
        name: &'a str,
        _platform: &'a str,
        request: api::ContainerCreateRequest,
    ) -> Reply<'a, api::ContainerCreateResponse> {
        ok(api::ContainerCreateResponse { id: format!("{name}-{}", request.config.image), warnings: vec![] })
    }
    fn start<'a>(&'a self, name: &'a str, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn checkpoint<'a>(&'a self, name: &'a str, _: api::CheckpointCreateRequest) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn checkpoints<'a>(&'a self, name: &'a str, _: &'a str) -> Reply<'a, Vec<api::CheckpointSummary>> {
        by_name(name, vec![])
    }
    fn remove_checkpoint<'a>(&'a self, name: &'a str, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn stop<'a>(&'a self, name: &'a str, _: query::ContainerStop) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn restart<'a>(&'a self, name: &'a str, _: query::ContainerStop) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn kill<'a>(&'a self, name: &'a str, _: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn pause<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn unpause<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn rename<'a>(&'a self, name: &'a str, _: &'a str) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn update<'a>(&'a self, name: &'a str, _: api::ContainerUpdateRequest) -> Reply<'a, api::ContainerUpdateResponse> {
        by_name(name, api::ContainerUpdateResponse { warnings: None })
    }
    fn remove<'a>(&'a self, name: &'a str, _: query::ContainerRemove) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn prune(&self, _: api::Filters) -> Reply<'_, api::ContainerPruneResponse> {
        ok(Default::default())
    }
    fn list(&self, _: query::ContainerList) -> Reply<'_, Vec<api::ContainerSummary>> {
        let descriptor = Some(api::OciDescriptor::default());
        ok(vec![api::ContainerSummary {
            id: "a".to_owned(),
            image_manifest_descriptor: descriptor,
            ..Default::default()
        }])
    }
    fn inspect<'a>(&'a self, name: &'a str, _: bool) -> Reply<'a, api::ContainerInspect> {
        by_name(name, api::ContainerInspect { id: name.to_owned(), ..Default::default() })
    }
    fn top<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, api::ContainerTopResponse> {
        refuse()
    }
    fn changes<'a>(&'a self, _: &'a str) -> Reply<'a, Option<Vec<api::FilesystemChange>>> {
        ok(None)
    }
    fn wait<'a>(
        &'a self,
        name: &'a str,
        _: query::WaitCondition,
    ) -> Reply<'a, Reply<'static, api::ContainerWaitResponse>> {
        let mut exit = self.exit.lock().expect("lock").get_or_insert_with(|| watch::channel(false).0).subscribe();
        let inner: Reply<'static, _> = Box::pin(async move {
            let _ = exit.wait_for(|e| *e).await;
            Ok(api::ContainerWaitResponse { status_code: 7, error: None })
        });
        by_name(name, inner)
    }
    fn attach<'a>(&'a self, name: &'a str, query: query::Attach) -> Reply<'a, Stdio> {
        match name {
            "unstarted" => {
                let mut stdio = self.stdio(false, true);
                stdio.stream = Box::pin(async {
                    std::future::pending::<()>().await;
                    Err(ApiError::invalid("never"))
                });
                ok(stdio)
            }
            _ => by_name(name, self.stdio(name == "tty", query.stdin)),
        }
    }
    fn resize<'a>(&'a self, name: &'a str, _: u32, _: u32) -> Reply<'a, ()> {
        by_name(name, ())
    }
    fn logs<'a>(&'a self, name: &'a str, query: query::Logs) -> Reply<'a, LogStream> {
        let body = if query.follow { self.silent() } else { self.endless() };
        by_name(name, LogStream { tty: name == "tty", body })
    }
    fn stats<'a>(&'a self, name: &'a str, _: query::Stats) -> Reply<'a, Outgoing<api::ContainerStats>> {
        by_name(name, self.silent())
    }
    fn export<'a>(&'a self, name: &'a str) -> Reply<'a, Outgoing<Bytes>> {
        let (send, receive) = mpsc::channel(4);
        send.try_send(Ok(Bytes::from_static(b"half a tar"))).expect("room");
        send.try_send(Err(ApiError::new(Kind::System, "disk went away"))).expect("room");
        by_name(name, receive)
    }
    fn archive_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Reply<'a, api::PathStat> {
        by_name(name, api::PathStat { name: path.to_owned(), ..Default::default() })
    }
    fn archive_get<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, ArchiveStream> {
        refuse()
    }
    fn archive_put<'a>(&'a self, _: &'a str, _: &'a str, _: ArchivePut, _: Incoming) -> Reply<'a, ()> {
        refuse()
    }
    fn commit(&self, _: query::Commit) -> Reply<'_, String> {
        refuse()
    }
}

impl ExecBackend for Fake {
    fn create<'a>(&'a self, container: &'a str, _: api::ExecCreateRequest) -> Reply<'a, String> {
        by_name(container, "exec-of-".to_owned() + container)
    }
    fn start<'a>(&'a self, id: &'a str, request: api::ExecStartRequest) -> Reply<'a, ExecStarted> {
        if request.detach {
            return ok(ExecStarted::Detached);
        }
        let mut stdio = self.stdio(request.tty, true);
        if id == "notfound" {
            stdio.stream = Box::pin(async { Err(ApiError::invalid("exec: \"x\": executable file not found")) });
        }
        ok(ExecStarted::Attached(stdio))
    }
    fn inspect<'a>(&'a self, _: &'a str) -> Reply<'a, api::ExecInspect> {
        ok(api::ExecInspect::default())
    }
    fn resize<'a>(&'a self, _: &'a str, _: u32, _: u32) -> Reply<'a, ()> {
        ok(())
    }
}

impl ImageBackend for Fake {
    fn list(&self, _: query::ImageList) -> Reply<'_, Vec<api::ImageSummary>> {
        ok(vec![])
    }
    fn inspect<'a>(&'a self, name: &'a str, _: query::ImageInspect) -> Reply<'a, api::ImageInspect> {
        by_name(name, api::ImageInspect { id: name.to_owned(), ..Default::default() })
    }
    fn history<'a>(&'a self, _: &'a str, _: query::ImageInspect) -> Reply<'a, Vec<api::ImageHistoryItem>> {
        refuse()
    }
    fn tag<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        ok(())
    }
    fn remove<'a>(&'a self, _: &'a str, _: query::ImageRemove) -> Reply<'a, Vec<api::ImageDeleteItem>> {
        refuse()
    }
    fn prune(&self, _: api::Filters, _: bool) -> Reply<'_, api::ImagePruneResponse> {
        refuse()
    }
    fn import(&self, query: query::ImageImport, body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        if query.repo == "broken" {
            let (send, receive) = mpsc::channel(1);
            send.try_send(Err(ApiError::invalid("no such change"))).expect("room");
            return ok(receive);
        }
        self.take(body)
    }
    fn load(&self, _: query::ImageLoad, body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        self.take(body)
    }
    fn save(&self, _: query::ImageSave) -> Reply<'_, Outgoing<Bytes>> {
        ok(self.endless())
    }
}

impl SystemBackend for Fake {
    fn debug_vars(&self) -> Option<serde_json::Value> {
        None
    }
    fn version(&self) -> Reply<'_, api::Version> {
        ok(api::Version {
            version: "28.5.2+wharf.test".to_owned(),
            api_version: "1.51".to_owned(),
            ..Default::default()
        })
    }
    fn info(&self) -> Reply<'_, api::Info> {
        ok(api::Info::default())
    }
    fn check(&self, _: bool) -> Reply<'_, api::StoreCheck> {
        ok(api::StoreCheck::default())
    }

    fn disk_usage(&self, _: query::DiskUsage) -> Reply<'_, api::DiskUsage> {
        ok(api::DiskUsage::default())
    }
}

impl RegistryBackend for Fake {
    fn pull(&self, _: query::ImagePull) -> Reply<'_, Outgoing<api::Progress>> {
        refuse()
    }
    fn push<'a>(&'a self, _: &'a str, _: query::ImagePush) -> Reply<'a, Outgoing<api::Progress>> {
        refuse()
    }
    fn auth(&self, _: api::AuthConfig) -> Reply<'_, api::AuthResponse> {
        refuse()
    }
    fn search(&self, _: query::ImageSearch) -> Reply<'_, Vec<api::SearchResult>> {
        refuse()
    }
    fn distribution<'a>(&'a self, _: &'a str, _: api::AuthConfig) -> Reply<'a, api::DistributionInspect> {
        refuse()
    }
}

impl NetworkBackend for Fake {
    fn list(&self, _: api::Filters) -> Reply<'_, Vec<api::Network>> {
        ok(vec![])
    }
    fn inspect<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, api::Network> {
        refuse()
    }
    fn create(&self, _: api::NetworkCreateRequest) -> Reply<'_, api::NetworkCreateResponse> {
        refuse()
    }
    fn remove<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        refuse()
    }
    fn connect<'a>(&'a self, _: &'a str, _: api::NetworkConnectRequest) -> Reply<'a, ()> {
        refuse()
    }
    fn disconnect<'a>(&'a self, _: &'a str, _: api::NetworkDisconnectRequest) -> Reply<'a, ()> {
        refuse()
    }
    fn prune(&self, _: api::Filters) -> Reply<'_, api::NetworkPruneResponse> {
        refuse()
    }
}

impl VolumeBackend for Fake {
    fn list(&self, _: api::Filters) -> Reply<'_, api::VolumeList> {
        ok(api::VolumeList::default())
    }
    fn inspect<'a>(&'a self, _: &'a str) -> Reply<'a, api::Volume> {
        refuse()
    }
    fn create(&self, _: api::VolumeCreateRequest) -> Reply<'_, api::Volume> {
        ok(api::Volume::default())
    }
    fn remove<'a>(&'a self, _: &'a str, _: bool) -> Reply<'a, ()> {
        refuse()
    }
    fn prune(&self, _: api::Filters) -> Reply<'_, api::VolumePruneResponse> {
        refuse()
    }
    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        refuse()
    }
    fn clone_as<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, api::Volume> {
        refuse()
    }
    fn export<'a>(&'a self, _: &'a str) -> Reply<'a, Outgoing<Bytes>> {
        refuse()
    }
    fn import<'a>(&'a self, _: &'a str, _: Incoming) -> Reply<'a, ()> {
        refuse()
    }
}

impl wharf_api_server::authorize::Authorizer for Fake {
    fn is_active(&self) -> bool {
        false
    }
    fn request<'a>(&'a self, _: &'a wharf_api_server::authorize::Asked) -> Reply<'a, ()> {
        ok(())
    }
    fn response<'a>(
        &'a self,
        _: &'a wharf_api_server::authorize::Asked,
        _: &'a wharf_api_server::authorize::Given,
    ) -> Reply<'a, ()> {
        ok(())
    }
}

impl EventBackend for Fake {
    fn subscribe(&self, query: query::Events) -> Reply<'_, Outgoing<api::EventMessage>> {
        if query.until.is_none() {
            return ok(self.silent());
        }
        let (send, receive) = mpsc::channel(4);
        let event = |action: &str| {
            let at = wharf_types::Timestamp::from_unix(1, 5);
            api::EventMessage::new("container", action, "id", api::StringMap::new(), at)
        };
        send.try_send(Ok(event("create"))).expect("room");
        send.try_send(Ok(event("start"))).expect("room");
        ok(receive)
    }
}

impl BuildBackend for Fake {
    fn grpc(&self) -> Reply<'_, UnixStream> {
        let stream = self.process(true);
        Box::pin(async move { Ok(stream) })
    }

    fn session(&self, _: SessionHead) -> Reply<'_, UnixStream> {
        self.grpc()
    }

    fn build(&self, query: BuildQuery, _: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        let (send, receive) = mpsc::channel(1);
        let stream = format!("{query:?}");
        send.try_send(Ok(api::Progress { stream, ..api::Progress::default() })).expect("room");
        ok(receive)
    }

    fn cancel<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        ok(())
    }

    fn prune(&self, _: BuildPrune) -> Reply<'_, (Vec<String>, u64)> {
        ok((Vec::new(), 0))
    }
}
