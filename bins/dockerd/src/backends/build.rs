//! Building: the builder is made when the first build comes, and joined to the engine here.

use std::collections::HashMap;
use std::io::BufReader;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use wharf_api_server::ApiError;
use wharf_api_server::backend::{
    BuildBackend, BuildPrune, BuildQuery, Incoming, Outgoing, RegistryBackend, Reply, SessionHead,
};
use wharf_api_types::{self as api, query};
use wharf_archive::{Compression, Decoder};
use wharf_build::{
    BuildError, BuildRequest, Builder, Collect, Exporter, Frontend, Later, Login, Parts, Pushed, Registry, Settings,
};
use wharf_buildkit::Door;
use wharf_distribution::Purpose;
use wharf_engine::Engine;
use wharf_error::Kind;

use super::Joined;
use super::bodies::BodyReader;
use crate::collection::Policy;

/// The builder, once it was needed, and how much of its cache stays.
pub struct Opened {
    builder: tokio::sync::OnceCell<(Arc<Builder>, Door)>,
    collection: Policy,
}

impl Opened {
    /// Nothing is opened yet.
    pub fn new(collection: Policy) -> Self {
        Self { builder: tokio::sync::OnceCell::new(), collection }
    }
}

/// Builds.
pub struct Building {
    joined: Joined,
    running: Mutex<HashMap<String, tokio::task::AbortHandle>>,
}

/// Fetches and sends images by the same ways as `docker pull` and `docker push`.
struct Registries(Joined);

fn auth(login: Login) -> api::AuthConfig {
    match login {
        None => api::AuthConfig::default(),
        Some((user, token)) if user.is_empty() => {
            api::AuthConfig { identitytoken: token, ..api::AuthConfig::default() }
        }
        Some((username, password)) => api::AuthConfig { username, password, ..api::AuthConfig::default() },
    }
}

fn failed(e: ApiError) -> BuildError {
    BuildError::new(e.kind, e.message)
}

impl Registry for Registries {
    fn pull<'a>(&'a self, name: &'a str, platform: &'a str, login: Login) -> Later<'a, ()> {
        Box::pin(async move {
            let wanted = query::ImagePull {
                image: name.to_owned(),
                tag: String::new(),
                platform: platform.to_owned(),
                auth: auth(login),
            };
            let mut lines = self.0.pull(wanted).await.map_err(failed)?;
            while let Some(line) = lines.recv().await {
                let line = line.map_err(failed)?;
                if !line.error.is_empty() {
                    return Err(BuildError::new(Kind::NotFound, line.error));
                }
            }
            Ok(())
        })
    }

    fn push<'a>(&'a self, name: &'a wharf_types::Reference, login: Login, told: Pushed<'a>) -> Later<'a, ()> {
        Box::pin(async move {
            let wanted = query::ImagePush {
                tag: name.tag().unwrap_or_default().to_owned(),
                auth: auth(login),
                ..query::ImagePush::default()
            };
            let mut lines = self.0.push(name.name(), wanted).await.map_err(failed)?;
            let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
            while let Some(line) = lines.recv().await {
                let line = line.map_err(failed)?;
                if !line.error.is_empty() {
                    return Err(BuildError::new(Kind::Unavailable, line.error));
                }
                if let Some(detail) = line.progress_detail.filter(|d| d.total > 0) {
                    layers.insert(line.id, (detail.current, detail.total));
                    told(layers.values().map(|l| l.0).sum(), layers.values().map(|l| l.1).sum());
                }
            }
            Ok(())
        })
    }

    fn repository(
        &self,
        name: &wharf_types::Reference,
        login: Login,
        push: bool,
    ) -> Result<Arc<wharf_distribution::Repository>, BuildError> {
        let purpose = if push { Purpose::Push } else { Purpose::Pull };
        let credentials = super::registries::credentials(auth(login));
        let found = self.0.engine().registries.repository(name, credentials, purpose);
        found.map_err(|e| failed(ApiError::of(&e)))
    }
}

impl Building {
    /// Nothing is opened yet.
    pub fn new(joined: Joined) -> Self {
        Self { joined, running: Mutex::default() }
    }

    async fn open(&self) -> Result<&(Arc<Builder>, Door), ApiError> {
        self.joined.builder().await
    }
}

impl Joined {
    async fn builder(&self) -> Result<&(Arc<Builder>, Door), ApiError> {
        self.1
            .builder
            .get_or_try_init(|| async {
                let joined = self.clone();
                let opening = tokio::task::spawn_blocking(move || open_builder(&joined));
                let builder = opening.await.map_err(|e| ApiError::new(Kind::System, e.to_string()))?;
                let builder = builder.map_err(|e| ApiError::of(&e))?;
                Ok((builder.clone(), Door::new(builder)))
            })
            .await
    }
}

impl Joined {
    /// The build cache as `system df` shows it.
    pub(super) async fn build_cache(&self) -> Result<Vec<api::BuildCache>, ApiError> {
        let cache = self.builder().await?.0.cache.clone();
        let imaged = self.engine().build.images.clone();
        let list = move || {
            cache.measure();
            let records = cache.list();
            let ids: HashMap<u64, String> = records.iter().map(|(id, r, _)| (r.snapshot.number, id.clone())).collect();
            let imaged = imaged.snapshot_numbers();
            let shown = records.into_iter().map(|(id, record, in_use)| api::BuildCache {
                parents: record.snapshot.lowers.first().and_then(|n| ids.get(n)).map(|id| vec![id.clone()]),
                r#type: record.kind,
                description: record.description,
                in_use,
                shared: imaged.contains(&record.snapshot.number),
                size: record.size.unwrap_or(0) as i64,
                created_at: record.created,
                last_used_at: Some(record.used),
                usage_count: record.uses as i64,
                id,
            });
            shown.collect()
        };
        tokio::task::spawn_blocking(list).await.map_err(|e| ApiError::new(Kind::System, e.to_string()))
    }
}

fn open_builder(joined: &Joined) -> Result<Arc<Builder>, BuildError> {
    let engine: &Arc<Engine> = joined.engine();
    let parts = &engine.build;
    let content = parts.images.content().clone();
    let disk = rustix::fs::statvfs(&parts.data_root).map_or(0, |s| s.f_blocks * s.f_frsize);
    let told = engine.clone();
    Builder::open(Parts {
        images: parts.images.clone(),
        content,
        snapshots: parts.snapshots.clone(),
        kept: parts.kept.clone(),
        store: parts.store.clone(),
        steps: parts.steps.clone(),
        registry: Arc::new(Registries(joined.clone())),
        folder: parts.data_root.join("build"),
        steps_folder: parts.exec_root.join("steps"),
        told: Arc::new(move |name, action| told.images.tell_built(name, action)),
        rules: joined.1.collection.rules(disk),
    })
}

impl BuildBackend for Building {
    fn grpc(&self) -> Reply<'_, UnixStream> {
        Box::pin(async move {
            let (_, door) = self.open().await?;
            let (ours, theirs) = pair()?;
            let door = door.clone();
            tokio::spawn(async move { door.serve(ours).await });
            Ok(theirs)
        })
    }

    fn session(&self, head: SessionHead) -> Reply<'_, UnixStream> {
        Box::pin(async move {
            let (_, door) = self.open().await?;
            let (ours, theirs) = pair()?;
            let door = door.clone();
            tokio::spawn(async move { door.session(&head.id, &head.shared_key, head.methods, ours).await });
            Ok(theirs)
        })
    }

    fn build(&self, query: BuildQuery, body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        Box::pin(async move {
            if query.squash {
                return Err(ApiError::invalid("squash is only supported with experimental mode"));
            }
            let (builder, _) = self.open().await?;
            let builder = builder.clone();
            let (sender, receiver) = mpsc::channel(64);
            let id = query.id.clone();
            let task = tokio::spawn(async move {
                let work = classic(&builder, query, body, &sender);
                // Who leaves cancels the build.
                tokio::select! {
                    done = work => if let Err(e) = done {
                        let text = e.to_string();
                        let detail = api::ErrorDetail { code: exit_code(&text), message: text.clone() };
                        let line = api::Progress { error: text, error_detail: Some(detail), ..api::Progress::default() };
                        drop(sender.send(Ok(line)).await);
                    },
                    () = sender.closed() => {}
                }
            });
            if !id.is_empty() {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.retain(|_, t| !t.is_finished());
                running.insert(id, task.abort_handle());
            }
            Ok(receiver)
        })
    }

    fn cancel<'a>(&'a self, id: &'a str) -> Reply<'a, ()> {
        if let Some(task) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id) {
            task.abort();
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn prune(&self, wanted: BuildPrune) -> Reply<'_, (Vec<String>, u64)> {
        Box::pin(async move {
            let (builder, _) = self.open().await?;
            let BuildPrune { all, keep, filters, dry } = wanted;
            let mut wanted = Collect { all, keep, dry, ..Collect::default() };
            for age in filters.get("until").chain(filters.get("unused-for")) {
                let seconds = crate::collection::seconds(age);
                wanted.unused_for =
                    Some(seconds.ok_or_else(|| ApiError::invalid(format!("invalid duration {age:?}")))?);
            }
            wanted.kinds.extend(filters.get("type").map(str::to_owned));
            wanted.id = filters.get("id").next().map(str::to_owned);
            let cache = builder.cache.clone();
            let gone = tokio::task::spawn_blocking(move || cache.collect(&wanted)).await;
            let gone = gone.map_err(|e| ApiError::new(Kind::System, e.to_string()))?.map_err(|e| ApiError::of(&e))?;
            let bytes = gone.iter().filter_map(|g| g.record.size).sum();
            Ok((gone.into_iter().map(|g| g.id).collect(), bytes))
        })
    }
}

fn pair() -> Result<(UnixStream, UnixStream), ApiError> {
    UnixStream::pair().map_err(|e| ApiError::new(Kind::System, e.to_string()))
}

/// The exit code that the classic builder's clients end with.
fn exit_code(text: &str) -> i64 {
    text.rsplit_once("exit code: ").and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
}

type Lines = mpsc::Sender<Result<api::Progress, ApiError>>;

/// A build by the classic door: context from the body, progress as the classic builder's texts.
async fn classic(builder: &Arc<Builder>, query: BuildQuery, body: Incoming, lines: &Lines) -> Result<(), BuildError> {
    let mut attrs = attributes(&query);
    let mut given = HashMap::new();
    if query.remote.is_empty() || query.remote == "client-session" {
        let unpacking = builder.clone();
        let context = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            let _within = runtime.enter();
            let failed = |e: wharf_archive::ArchiveError| BuildError::invalid(wharf_error::Chain(&e).to_string());
            let reader = BufReader::with_capacity(256 << 10, BodyReader::new(body));
            let (compression, stream) = Compression::peek(reader).map_err(failed)?;
            let mut stream = BufReader::new(Decoder::buffered(compression, stream).map_err(failed)?);
            unpacking.context_of_tar(&mut stream)
        });
        let context = context.await.map_err(|_| BuildError::cancelled())??;
        given.insert("context".to_owned(), context.clone());
        given.insert("dockerfile".to_owned(), context);
    } else {
        attrs.insert("context".to_owned(), query.remote.clone());
    }
    let names: Vec<String> = query.tags.iter().filter(|t| !t.is_empty()).cloned().collect();
    let exporter = Exporter { kind: "image".to_owned(), attrs: [("name".to_owned(), names.join(","))].into() };
    let mut bytes = [0u8; 8];
    // getrandom(2) does not fail once the pool is ready.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let reference = format!("classic{:016x}", u64::from_le_bytes(bytes));
    let progress = builder.progress(&reference);
    let kept: Vec<_> = given.values().cloned().collect();
    let request = BuildRequest {
        reference,
        frontend: "dockerfile.v0".to_owned(),
        input: Frontend { attrs, ..Frontend::default() },
        exporters: vec![exporter],
        given,
        settings: Settings { network_host: true, pull: query.pull, ..Settings::default() },
        ..BuildRequest::default()
    };
    let telling = async {
        let mut seen = 0;
        let mut told = Told::default();
        while let Some(events) = progress.after(seen).await {
            seen += events.len();
            for text in events.iter().flat_map(|e| told.lines(e)) {
                if !query.quiet {
                    let line = api::Progress { stream: text, ..api::Progress::default() };
                    drop(lines.send(Ok(line)).await);
                }
            }
        }
    };
    let (done, ()) = tokio::join!(builder.build(request), telling);
    if let Some(context) = kept.first() {
        builder.pool.discard(context);
    }
    let image = done?.image.unwrap_or_default();
    let say = |stream: String| api::Progress { stream, ..api::Progress::default() };
    let mut last = vec![api::Progress { aux: Some(serde_json::json!({"ID": image})), ..api::Progress::default() }];
    let short: String = image.trim_start_matches("sha256:").chars().take(12).collect();
    if query.quiet {
        last.push(say(format!("{image}\n")));
    } else {
        last.push(say(format!("Successfully built {short}\n")));
        for name in names {
            let name = wharf_types::Reference::parse(&name).map_or(name, |r| r.with_default_tag().familiar());
            last.push(say(format!("Successfully tagged {name}\n")));
        }
    }
    for line in last {
        drop(lines.send(Ok(line)).await);
    }
    Ok(())
}

fn attributes(query: &BuildQuery) -> std::collections::BTreeMap<String, String> {
    let mut attrs = std::collections::BTreeMap::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            attrs.insert(key.to_owned(), value);
        }
    };
    put("filename", query.dockerfile.clone());
    put("target", query.target.clone());
    put("platform", query.platform.clone());
    put("force-network-mode", query.network.clone());
    put("cgroup-parent", query.cgroup_parent.clone());
    put("add-hosts", query.hosts.iter().map(|h| h.replacen(':', "=", 1)).collect::<Vec<_>>().join(","));
    put("ulimit", query.ulimits.join(","));
    if query.shm_size > 0 {
        put("shm-size", query.shm_size.to_string());
    }
    for (key, value) in &query.args {
        if let Some(value) = value {
            attrs.insert(format!("build-arg:{key}"), value.clone());
        }
    }
    for (key, value) in &query.labels {
        attrs.insert(format!("label:{key}"), value.clone());
    }
    if query.no_cache {
        attrs.insert("no-cache".to_owned(), String::new());
    }
    if query.pull {
        attrs.insert("image-resolve-mode".to_owned(), "pull".to_owned());
    }
    attrs
}

/// Turns progress into the classic builder's texts.
#[derive(Default)]
struct Told {
    started: Vec<String>,
}

impl Told {
    fn lines(&mut self, event: &wharf_proto_buildkit::control::StatusResponse) -> Vec<String> {
        let mut out = Vec::new();
        for vertex in &event.vertexes {
            let Some((place, text)) = vertex.name.strip_prefix('[').and_then(|n| n.split_once("] ")) else { continue };
            let Some(place) = place.split_whitespace().rev().find(|p| p.contains('/')) else { continue };
            if !self.started.contains(&vertex.digest) {
                self.started.push(vertex.digest.clone());
                out.push(format!("Step {place} : {text}\n"));
            }
            if vertex.completed.is_some() && vertex.error.is_empty() {
                if vertex.cached {
                    out.push(" ---> Using cache\n".to_owned());
                }
                let short: String = vertex.digest.trim_start_matches("sha256:").chars().take(12).collect();
                out.push(format!(" ---> {short}\n"));
            }
        }
        out.extend(event.logs.iter().map(|log| String::from_utf8_lossy(&log.msg).into_owned()));
        out
    }
}
