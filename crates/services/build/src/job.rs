//! One build at work: vertices are evaluated side by side, each once, and not at all if the cache has them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use wharf_image::Hold;
use wharf_proto_buildkit::pb;
use wharf_snapshot::Snapshot;
use wharf_solver::{Graph, Hasher, Output, Vertex, operation_key};
use wharf_types::Timestamp;

use crate::builder::{Builder, Login};
use crate::cache::Node;
use crate::content::{Selection, digest};
use crate::error::Place;
use crate::local::{Context, in_place};
use crate::progress::{Progress, Step};
use crate::session::Session;
use crate::tree::Tree;
use crate::{BuildError, exec, file, merge, source, transfer};

/// Files that a vertex gives.
#[derive(Clone)]
pub enum Files {
    /// None.
    Empty,
    /// What a step made.
    Layer(Arc<Node>),
    /// An image.
    Base(Arc<Base>),
    /// A folder of the client.
    Context(Arc<Context>),
}

/// An image that a build stands on; it is not removed meanwhile.
pub struct Base {
    /// Its files; nothing for an image without layers.
    pub snapshot: Option<Snapshot>,
    /// Keeps it.
    pub hold: Hold,
}

/// An output of a vertex.
#[derive(Clone)]
pub struct Value {
    /// The files.
    pub files: Files,
    /// By which steps upon it find what they made before.
    pub key: String,
}

impl Value {
    /// The empty file system.
    pub fn empty() -> Self {
        Self { files: Files::Empty, key: "scratch".to_owned() }
    }

    /// What a step made.
    pub fn of(node: Arc<Node>) -> Self {
        Self { key: node.key.clone(), files: Files::Layer(node) }
    }

    /// The snapshot, if the files are in one.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match &self.files {
            Files::Layer(node) => Some(&node.snapshot),
            Files::Base(base) => base.snapshot.as_ref(),
            Files::Empty | Files::Context(_) => None,
        }
    }

    /// When it was made, if a step made it.
    pub fn created(&self) -> Option<Timestamp> {
        match &self.files {
            Files::Layer(node) => Some(node.created),
            _ => None,
        }
    }
}

/// All outputs of a vertex.
pub type Values = Arc<Vec<Value>>;

type Shared<T> = Arc<OnceCell<Result<T, BuildError>>>;

/// What holds for a whole build.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Allows `--network=host`.
    pub network_host: bool,
    /// Allows `--security=insecure`.
    pub insecure: bool,
    /// Looks into the registry even for images that are here.
    pub pull: bool,
    /// SOURCE_DATE_EPOCH: times in layers are not later.
    pub epoch: Option<i64>,
}

/// A build.
pub struct Job {
    /// The daemon's builder.
    pub builder: Arc<Builder>,
    /// What clients see.
    pub progress: Arc<Progress>,
    /// The client.
    pub session: Option<Arc<Session>>,
    /// What holds for the whole build.
    pub settings: Settings,
    /// Contexts that came with the request, by name.
    pub given: HashMap<String, Arc<Context>>,
    contexts: Mutex<HashMap<String, Shared<Arc<Context>>>>,
    values: Mutex<HashMap<String, Shared<Values>>>,
    keys: Mutex<HashMap<String, Shared<String>>>,
    shown: Mutex<HashSet<String>>,
    /// Whether a vertex, or one below it, is to be made anew.
    fresh: Mutex<HashMap<String, bool>>,
    /// Where cached steps may be taken from.
    pub imports: Vec<transfer::Place>,
    imported: transfer::Imports,
    /// Front end containers that run.
    pub(crate) frontends: AtomicUsize,
    /// Whether images tell by which keys their layers are found.
    pub inline: bool,
    /// Keys of the cache mounts of its steps.
    mounts: Mutex<BTreeSet<String>>,
    /// What it was asked to make.
    graphs: Mutex<Vec<Arc<Graph>>>,
}

fn shared<T>(map: &Mutex<HashMap<String, Shared<T>>>, key: &str) -> Shared<T> {
    map.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_owned()).or_default().clone()
}

impl Job {
    /// A new build.
    pub fn new(
        builder: Arc<Builder>,
        progress: Arc<Progress>,
        session: Option<Arc<Session>>,
        settings: Settings,
    ) -> Self {
        Self {
            builder,
            progress,
            session,
            settings,
            given: HashMap::new(),
            contexts: Mutex::default(),
            values: Mutex::default(),
            keys: Mutex::default(),
            shown: Mutex::default(),
            fresh: Mutex::default(),
            imports: Vec::new(),
            imported: transfer::Imports::default(),
            frontends: AtomicUsize::new(0),
            inline: false,
            mounts: Mutex::default(),
            graphs: Mutex::default(),
        }
    }

    /// Whether a vertex stands on something that is made anew, so that what its operations made before is no answer.
    fn stands_on_fresh(&self, graph: &Graph, vertex: &Vertex) -> bool {
        let known = |digest: &str| self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied();
        if let Some(fresh) = known(&vertex.digest) {
            return fresh;
        }
        let below = |input: &Output| graph.vertex(&input.digest).is_some_and(|v| self.stands_on_fresh(graph, v));
        let fresh = vertex.metadata.ignore_cache || vertex.inputs.iter().any(below);
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex.digest.clone(), fresh);
        fresh
    }

    /// The client's session.
    ///
    /// # Errors
    /// There is none.
    pub fn session(&self) -> Result<&Arc<Session>, BuildError> {
        self.session.as_ref().ok_or_else(|| BuildError::invalid("no active session: the build has no client to ask"))
    }

    /// What the client knows of a registry.
    pub async fn login(&self, domain: &str) -> Login {
        let session = self.session.as_ref()?;
        session.credentials(domain).await.ok().filter(|(_, secret)| !secret.is_empty())
    }

    /// Makes what a definition wants.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn evaluate(self: &Arc<Self>, graph: &Arc<Graph>) -> Result<Value, BuildError> {
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner).push(graph.clone());
        match &graph.result {
            Some(output) => self.output(graph, output).await,
            None => Ok(Value::empty()),
        }
    }

    async fn output(self: &Arc<Self>, graph: &Arc<Graph>, output: &Output) -> Result<Value, BuildError> {
        let values = self.vertex(graph.clone(), output.digest.clone()).await?;
        let missing = || BuildError::invalid(format!("invalid output {} of {}", output.index, output.digest));
        values.get(output.index).cloned().ok_or_else(missing)
    }

    /// All values of a vertex, made once.
    fn vertex(
        self: &Arc<Self>,
        graph: Arc<Graph>,
        digest: String,
    ) -> Pin<Box<dyn Future<Output = Result<Values, BuildError>> + Send + 'static>> {
        let job = self.clone();
        Box::pin(async move {
            let cell = shared(&job.values, &digest);
            let made = cell.get_or_init(|| async {
                let vertex = graph.vertex(&digest).cloned().ok_or_else(|| BuildError::invalid("missing vertex"))?;
                let result = job.make(&graph, &vertex).await;
                result.map_err(|e| e.of(&digest).at(place(&graph, &digest)))
            });
            made.await.clone()
        })
    }

    async fn make(self: &Arc<Self>, graph: &Arc<Graph>, vertex: &Arc<Vertex>) -> Result<Values, BuildError> {
        if let Some(pb::OpOp::Source(op)) = &vertex.op.op {
            let step = self.start(vertex);
            let made = source::load(self, vertex, op, &step).await;
            step.done(false, &made.as_ref().err().map(ToString::to_string).unwrap_or_default());
            return made.map(|value| Arc::new(vec![value]));
        }
        let count = outputs(&vertex.op);
        let fresh = vertex.metadata.ignore_cache;
        let quick = self.key(graph.clone(), vertex.digest.clone()).await?;
        if !self.stands_on_fresh(graph, vertex)
            && let Some(found) = self.cached(&quick, count).await
        {
            self.show_cached(graph, vertex);
            return Ok(found);
        }
        let inputs = self.inputs(graph, vertex).await?;
        let key = self.content_key(vertex, &inputs).await?;
        // Another build may be making the very same.
        let _turn = self.builder.turn(&key).await;
        if !fresh && let Some(found) = self.cached(&key, count).await {
            for (i, value) in found.iter().enumerate() {
                if let Files::Layer(node) = &value.files {
                    self.builder.cache.alias(&format!("{quick}#{i}"), node);
                }
            }
            self.show_cached(graph, vertex);
            return Ok(found);
        }
        let step = self.start(vertex);
        let made = self.carry_out(vertex, inputs, &step).await;
        step.done(false, &made.as_ref().err().map(ToString::to_string).unwrap_or_default());
        let mut values = Vec::new();
        for (i, made) in made?.into_iter().enumerate() {
            // The content key first: it is what a later step's own key stands on. Of what is made anew that is a key of
            // its own, so that steps upon it are made anew as well.
            let mut keys = vec![format!("{key}#{i}"), format!("{quick}#{i}")];
            if fresh {
                let mut bytes = [0u8; 16];
                // getrandom(2) does not fail once the pool is ready.
                let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
                keys.insert(0, wharf_solver::digest_of(&bytes));
            }
            let kind = "regular";
            let node = in_place(|| self.builder.cache.add(made, keys, &vertex.name(), kind, Timestamp::now()))?;
            values.push(Value::of(node));
        }
        Ok(Arc::new(values))
    }

    async fn carry_out(
        self: &Arc<Self>,
        vertex: &Arc<Vertex>,
        inputs: Vec<Value>,
        step: &Step,
    ) -> Result<Vec<Snapshot>, BuildError> {
        match &vertex.op.op {
            Some(pb::OpOp::File(op)) => {
                let (job, op) = (self.clone(), op.clone());
                let work = move || file::carry_out(&job, &op, &inputs);
                tokio::task::spawn_blocking(work).await.map_err(|_| BuildError::cancelled())?
            }
            Some(pb::OpOp::Exec(op)) => exec::carry_out(self, op, &inputs, step).await,
            Some(pb::OpOp::Merge(_) | pb::OpOp::Diff(_)) => {
                let (job, vertex) = (self.clone(), vertex.clone());
                let work = move || merge::carry_out(&job, &vertex.op, &inputs);
                tokio::task::spawn_blocking(work).await.map_err(|_| BuildError::cancelled())?
            }
            _ => Err(BuildError::new(wharf_error::Kind::NotImplemented, "this kind of LLB operation is not supported")),
        }
    }

    /// The values of all inputs, made side by side.
    async fn inputs(self: &Arc<Self>, graph: &Arc<Graph>, vertex: &Arc<Vertex>) -> Result<Vec<Value>, BuildError> {
        if let [only] = vertex.inputs.as_slice() {
            return Ok(vec![self.output(graph, only).await?]);
        }
        let mut set = JoinSet::new();
        for (i, input) in vertex.inputs.iter().cloned().enumerate() {
            let (job, graph) = (self.clone(), graph.clone());
            set.spawn(async move { (i, job.output(&graph, &input).await) });
        }
        let mut values: Vec<Option<Value>> = vec![None; vertex.inputs.len()];
        while let Some(done) = set.join_next().await {
            let (i, value) = done.map_err(|_| BuildError::cancelled())?;
            values[i] = Some(value?);
        }
        Ok(values.into_iter().flatten().collect())
    }

    async fn cached(self: &Arc<Self>, key: &str, count: usize) -> Option<Values> {
        let mut found = Vec::new();
        for i in 0..count {
            let key = format!("{key}#{i}");
            let node = match self.builder.cache.find(&key) {
                Some(node) => Some(node),
                None => self.from_elsewhere(&key).await,
            };
            found.push(Value::of(node?));
        }
        Some(Arc::new(found))
    }

    /// Looks in the caches that the build was told of. One that is broken is as one that has nothing.
    async fn from_elsewhere(self: &Arc<Self>, key: &str) -> Option<Arc<Node>> {
        if self.imports.is_empty() {
            return None;
        }
        for cache in self.imported.get_or_init(|| transfer::import(self, &self.imports)).await {
            match cache.find(self, key).await {
                Ok(Some(node)) => return Some(node),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a build cache cannot be used"),
            }
        }
        None
    }

    /// Everything that was made or found so far.
    pub(crate) fn made(&self) -> Vec<Value> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let done = values.values().filter_map(|cell| cell.get()?.as_ref().ok());
        done.flat_map(|values| values.iter().cloned()).collect()
    }

    /// The key that follows from the operations alone, without making anything but sources.
    fn key(
        self: &Arc<Self>,
        graph: Arc<Graph>,
        digest: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, BuildError>> + Send + 'static>> {
        let job = self.clone();
        Box::pin(async move {
            let cell = shared(&job.keys, &digest);
            let made = cell.get_or_init(|| async {
                let vertex = graph.vertex(&digest).cloned().ok_or_else(|| BuildError::invalid("missing vertex"))?;
                if let Some(pb::OpOp::Source(_)) = &vertex.op.op {
                    let values = job.vertex(graph.clone(), digest.clone()).await?;
                    return values.first().map(|v| v.key.clone()).ok_or_else(|| BuildError::invalid("empty source"));
                }
                let mut hasher = Hasher::default();
                hasher.part(operation_key(&vertex.op).as_bytes());
                let mut set = JoinSet::new();
                for (i, input) in vertex.inputs.iter().enumerate() {
                    let work = job.key(graph.clone(), input.digest.clone());
                    set.spawn(async move { (i, work.await) });
                }
                let mut keys = vec![String::new(); vertex.inputs.len()];
                while let Some(done) = set.join_next().await {
                    let (i, key) = done.map_err(|_| BuildError::cancelled())?;
                    keys[i] = key?;
                }
                for (key, input) in keys.iter().zip(&vertex.inputs) {
                    hasher.part(key.as_bytes()).part(&input.index.to_le_bytes());
                }
                Ok(hasher.finish())
            });
            made.await.clone()
        })
    }

    /// The key that follows from what the operation reads of its inputs.
    async fn content_key(self: &Arc<Self>, vertex: &Arc<Vertex>, inputs: &[Value]) -> Result<String, BuildError> {
        let (job, vertex, inputs) = (self.clone(), vertex.clone(), inputs.to_vec());
        let work = move || {
            let mut hasher = Hasher::default();
            hasher.part(operation_key(&vertex.op).as_bytes());
            for (i, value) in inputs.iter().enumerate() {
                match selections(&vertex.op, i) {
                    None => drop(hasher.part(value.key.as_bytes())),
                    Some(list) => {
                        for selection in list {
                            hasher.part(b"content").part(job.digest(value, &selection)?.as_bytes());
                        }
                    }
                }
            }
            Ok::<_, BuildError>(hasher.finish())
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| BuildError::cancelled())?
    }

    /// The digest of what is read of a value.
    fn digest(&self, value: &Value, selection: &Selection) -> Result<String, BuildError> {
        let known_key = match &value.files {
            Files::Empty | Files::Context(_) => None,
            _ => Some(format!("{}\0{selection:?}", value.key)),
        };
        if let Some(found) = known_key.as_ref().and_then(|key| self.builder.digest_of(key)) {
            return Ok(found);
        }
        let result = match &value.files {
            Files::Empty => Ok("scratch".to_owned()),
            Files::Context(context) => digest(context.tree(), selection, &|path, _| context.digest(path)),
            _ => digest(&self.view(value)?, selection, &|_, _| None),
        }?;
        if let Some(key) = known_key {
            self.builder.remember_digest(key, result.clone());
        }
        Ok(result)
    }

    /// Opens a value's files for reading.
    ///
    /// # Errors
    /// The layers cannot be stacked.
    pub fn view(&self, value: &Value) -> Result<Tree, BuildError> {
        match (&value.files, value.snapshot()) {
            (Files::Context(context), _) => {
                Ok(Tree::new(rustix::io::fcntl_dupfd_cloexec(context.tree().root(), 0).map_err(std::io::Error::from)?))
            }
            (_, Some(snapshot)) => Ok(Tree::new(self.builder.parts.snapshots.view(snapshot)?)),
            (_, None) => Ok(Tree::new(self.builder.empty_folder()?)),
        }
    }

    /// Reads a file of a value.
    ///
    /// # Errors
    /// It is not there, or too large.
    pub fn read(&self, value: &Value, path: &Path) -> Result<Vec<u8>, BuildError> {
        self.view(value)?.read(path, 16 << 20).map_err(|e| missing(path, &e))
    }

    /// The entries of a folder of a value, by name; of those that a pattern fits, if there is one.
    ///
    /// # Errors
    /// It is no folder.
    pub fn list(
        &self,
        value: &Value,
        path: &Path,
        pattern: &str,
    ) -> Result<Vec<wharf_proto_buildkit::fsutil::Stat>, BuildError> {
        let tree = self.view(value)?;
        let mut entries = Vec::new();
        let folder = tree.folder(path).map_err(|e| missing(path, &e))?;
        let mut names = crate::tree::names(folder.as_fd()).map_err(|e| missing(path, &e))?;
        names.sort();
        for name in names {
            let fits = match pattern {
                "" => Ok(true),
                _ => wharf_dockerfile::ignore::go_match(pattern, &name.to_string_lossy()),
            };
            if fits.map_err(|_| BuildError::invalid(format!("syntax error in pattern {pattern:?}")))? {
                entries.push(self.stat(value, &path.join(name))?);
            }
        }
        Ok(entries)
    }

    /// Looks at a path of a value.
    ///
    /// # Errors
    /// It is not there.
    pub fn stat(&self, value: &Value, path: &Path) -> Result<wharf_proto_buildkit::fsutil::Stat, BuildError> {
        let tree = self.view(value)?;
        let stat = tree.look(path).ok_or_else(|| missing(path, &std::io::ErrorKind::NotFound.into()))?;
        Ok(wharf_proto_buildkit::fsutil::Stat {
            path: path.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default(),
            mode: wharf_proto_buildkit::fsutil::mode::of_stat(stat.st_mode),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size,
            mod_time: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
            ..wharf_proto_buildkit::fsutil::Stat::default()
        })
    }

    /// A context, brought here once.
    ///
    /// # Errors
    /// Those of making it.
    pub async fn context<F>(&self, key: &str, make: F) -> Result<Arc<Context>, BuildError>
    where
        F: Future<Output = Result<Arc<Context>, BuildError>>,
    {
        let cell = shared(&self.contexts, key);
        cell.get_or_init(|| make).await.clone()
    }

    /// Notes that a step has a cache mount.
    pub(crate) fn note_mount(&self, key: &str) {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    }

    /// The cache mounts of its steps, of those that were cached too.
    pub(crate) async fn mounts(self: &Arc<Self>) -> Result<BTreeSet<String>, BuildError> {
        let graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for graph in graphs {
            let mut waiting: Vec<String> = graph.result.iter().map(|o| o.digest.clone()).collect();
            let mut seen = HashSet::new();
            while let Some(digest) = waiting.pop() {
                let Some(vertex) = graph.vertex(&digest).filter(|_| seen.insert(digest)) else { continue };
                waiting.extend(vertex.inputs.iter().map(|i| i.digest.clone()));
                let Some(pb::OpOp::Exec(op)) = &vertex.op.op else { continue };
                for mount in op.mounts.iter().filter(|m| m.mount_type == pb::MountType::Cache as i32) {
                    let below = usize::try_from(mount.input).ok().and_then(|n| vertex.inputs.get(n));
                    let value = match below {
                        Some(input) => self.output(&graph, input).await?,
                        None => Value::empty(),
                    };
                    self.note_mount(&exec::mount_key(op, mount, &value));
                }
            }
        }
        Ok(self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Fills a fresh folder of a cache mount from the caches that the build was told of. One that is broken is as one
    /// that has nothing.
    pub(crate) async fn fill_mount(self: &Arc<Self>, key: &str, prepared: &Snapshot) -> bool {
        if self.imports.is_empty() {
            return false;
        }
        for cache in self.imported.get_or_init(|| transfer::import(self, &self.imports)).await {
            match cache.mount(self, key, prepared).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a cache mount cannot be imported"),
            }
        }
        false
    }

    fn start(&self, vertex: &Vertex) -> Step {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex.digest.clone());
        let inputs = vertex.inputs.iter().map(|i| i.digest.clone()).collect();
        Step::start(&self.progress, &vertex.digest, &vertex.name(), inputs, vertex.metadata.progress_group.clone())
    }

    /// Shows a vertex that the cache had, and before it what it stands on.
    fn show_cached(&self, graph: &Graph, vertex: &Vertex) {
        if self.shown.lock().unwrap_or_else(PoisonError::into_inner).contains(&vertex.digest) {
            return;
        }
        for input in &vertex.inputs {
            if let Some(below) = graph.vertex(&input.digest) {
                self.show_cached(graph, below);
            }
        }
        self.start(vertex).done(true, "");
    }
}

fn missing(path: &Path, e: &std::io::Error) -> BuildError {
    match e.kind() {
        std::io::ErrorKind::NotFound => {
            BuildError::new(wharf_error::Kind::NotFound, format!("open {}: no such file or directory", path.display()))
        }
        _ => BuildError::system(&format!("open {}", path.display()), e),
    }
}

/// Where a vertex was written.
pub fn place(graph: &Graph, digest: &str) -> Option<Place> {
    let locations = graph.source.locations.get(digest)?;
    let location = locations.locations.first()?;
    let info = graph.source.infos.get(usize::try_from(location.source_index).ok()?)?;
    Some(Place { info: info.clone(), ranges: location.ranges.clone() })
}

/// How many outputs a vertex has.
fn outputs(op: &pb::Op) -> usize {
    let count = |numbers: Vec<i64>| numbers.into_iter().filter(|n| *n >= 0).count();
    match &op.op {
        Some(pb::OpOp::Exec(exec)) => count(exec.mounts.iter().map(|m| m.output).collect()),
        Some(pb::OpOp::File(file)) => count(file.actions.iter().map(|a| a.output).collect()),
        _ => 1,
    }
}

/// What an operation reads of an input, if it is not the whole of it with its history.
fn selections(op: &pb::Op, input: usize) -> Option<Vec<Selection>> {
    let index = i64::try_from(input).ok()?;
    match &op.op {
        Some(pb::OpOp::File(file)) => {
            let mut list = Vec::new();
            for action in &file.actions {
                if action.input == index {
                    return None;
                }
                if action.secondary_input == index {
                    match &action.action {
                        Some(pb::FileActionAction::Copy(copy)) => list.push(Selection {
                            path: copy.src.clone(),
                            wild: copy.allow_wildcard,
                            follow: copy.follow_symlink,
                            include: copy.include_patterns.clone(),
                            exclude: copy.exclude_patterns.clone(),
                        }),
                        _ => return None,
                    }
                }
            }
            Some(list)
        }
        Some(pb::OpOp::Exec(exec)) => {
            let mut list = Vec::new();
            for mount in exec.mounts.iter().filter(|m| m.input == index) {
                // What can be written goes on as a whole.
                if mount.dest == "/" || !mount.readonly || mount.mount_type != pb::MountType::Bind as i32 {
                    return None;
                }
                list.push(Selection {
                    path: format!("/{}", mount.selector.trim_start_matches('/')),
                    ..Selection::default()
                });
            }
            Some(list)
        }
        _ => None,
    }
}
