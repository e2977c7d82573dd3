//! What the server needs of the engine: one narrow trait per resource, over `api-types`.
//!
//! Every method takes names as the client wrote them (a name, an id or a unique prefix of an id). Errors carry
//! Docker's texts. Methods return boxed futures so that the traits are object-safe:
//!
//! ```
//! use wharf_api_server::backend::Reply;
//! fn answer<'a>(text: &'a str) -> Reply<'a, usize> {
//!     Box::pin(async move { Ok(text.len()) })
//! }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::mpsc::Receiver;
use wharf_api_types as api;
use wharf_api_types::query;

use crate::ApiError;

/// A boxed future of an answer or an API error.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// A body that is produced while it is sent. The channel's capacity bounds the memory a slow reader costs; when the
/// client leaves, the receiver is dropped and the sender's next `send` fails. What shall become an HTTP status must be
/// the method's own error: an error in the channel comes after a success status, and becomes the last line of a
/// progress stream, or ends the connection of any other.
pub type Outgoing<T> = Receiver<Result<T, ApiError>>;

/// A request's body as it comes in, for uploads. Dropping it early is allowed: the server drains or closes.
pub type Incoming = Receiver<Result<Bytes, ApiError>>;

/// A connection to the standard streams of a process, to be joined to a hijacked HTTP connection.
pub struct Stdio {
    /// Whether the process has a terminal: bytes are raw then, else framed (stdcopy) from process to client.
    pub tty: bool,
    /// Whether the client's bytes go to the process. If not, they are read and dropped.
    pub stdin: bool,
    /// The stream, which the server awaits after it has answered the client with success. Client → process: raw
    /// stdin, half-close is its end. Process → client: what the client is to see, byte for byte. An error is shown
    /// to the client in the stream, as Docker does.
    pub stream: Reply<'static, UnixStream>,
    /// What to wait for between the end of the output and the end of the connection. Clients ask for an exec's exit code
    /// as soon as the connection has ended, so it must be known by then.
    pub ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The keys that detach from a terminal: the request's or the daemon's; empty means Docker's `ctrl-p,ctrl-q`.
    pub detach_keys: String,
    /// Called when the client typed the detach keys.
    pub on_detach: Box<dyn FnOnce() + Send>,
}

/// A container's log.
pub struct LogStream {
    /// Whether the container has a terminal: decides the content type.
    pub tty: bool,
    /// The lines, framed (stdcopy) unless there is a terminal. Large chunks are best: each costs a system call.
    pub body: Outgoing<Bytes>,
}

/// What starting an exec gives.
pub enum ExecStarted {
    /// It runs on its own.
    Detached,
    /// The client's connection becomes its standard streams.
    Attached(Stdio),
}

/// A tar stream with the facts about its path (`GET /containers/{id}/archive`).
pub struct ArchiveStream {
    /// What the path is.
    pub stat: api::PathStat,
    /// The tar stream.
    pub body: Outgoing<Bytes>,
}

/// The fields of `PUT /containers/{id}/archive` beside the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchivePut {
    /// Refuse to replace a directory by a file and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners.
    pub copy_uid_gid: bool,
}

/// Containers, from create to remove.
pub trait ContainerBackend: Send + Sync {
    /// Creates a container; `name` may be empty, `platform` too.
    fn create<'a>(
        &'a self,
        name: &'a str,
        platform: &'a str,
        request: api::ContainerCreateRequest,
    ) -> Reply<'a, api::ContainerCreateResponse>;
    /// Starts it, from a checkpoint if that is not empty. Already running is [`wharf_error::Kind::NotModified`], a 304.
    fn start<'a>(&'a self, name: &'a str, checkpoint: &'a str, checkpoint_dir: &'a str) -> Reply<'a, ()>;
    /// Writes it to files.
    fn checkpoint<'a>(&'a self, name: &'a str, request: api::CheckpointCreateRequest) -> Reply<'a, ()>;
    /// Lists its checkpoints; `dir` is empty for its own folder.
    fn checkpoints<'a>(&'a self, name: &'a str, dir: &'a str) -> Reply<'a, Vec<api::CheckpointSummary>>;
    /// Removes a checkpoint.
    fn remove_checkpoint<'a>(&'a self, name: &'a str, checkpoint: &'a str, dir: &'a str) -> Reply<'a, ()>;
    /// Stops it. Not running is a 304.
    fn stop<'a>(&'a self, name: &'a str, query: query::ContainerStop) -> Reply<'a, ()>;
    /// Stops and starts it.
    fn restart<'a>(&'a self, name: &'a str, query: query::ContainerStop) -> Reply<'a, ()>;
    /// Sends a signal; an empty text is SIGKILL.
    fn kill<'a>(&'a self, name: &'a str, signal: &'a str) -> Reply<'a, ()>;
    /// Freezes it.
    fn pause<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Thaws it.
    fn unpause<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Gives it another name.
    fn rename<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, ()>;
    /// Changes limits and restart policy.
    fn update<'a>(
        &'a self,
        name: &'a str,
        request: api::ContainerUpdateRequest,
    ) -> Reply<'a, api::ContainerUpdateResponse>;
    /// Removes it.
    fn remove<'a>(&'a self, name: &'a str, query: query::ContainerRemove) -> Reply<'a, ()>;
    /// Removes all that do not run and match.
    fn prune(&self, filters: api::Filters) -> Reply<'_, api::ContainerPruneResponse>;
    /// Lists.
    fn list(&self, query: query::ContainerList) -> Reply<'_, Vec<api::ContainerSummary>>;
    /// Shows everything; `size` fills the sizes.
    fn inspect<'a>(&'a self, name: &'a str, size: bool) -> Reply<'a, api::ContainerInspect>;
    /// Lists processes; `ps_args` as for ps(1), empty is `-ef`.
    fn top<'a>(&'a self, name: &'a str, ps_args: &'a str) -> Reply<'a, api::ContainerTopResponse>;
    /// Lists changed paths; `null` when there are none.
    fn changes<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Vec<api::FilesystemChange>>>;
    /// Registers a waiter: the outer future ends when it is registered (the server then sends the headers), the inner
    /// one when the condition holds.
    fn wait<'a>(
        &'a self,
        name: &'a str,
        condition: query::WaitCondition,
    ) -> Reply<'a, Reply<'static, api::ContainerWaitResponse>>;
    /// Connects to the standard streams; works on a created container too, and then waits for its start.
    fn attach<'a>(&'a self, name: &'a str, query: query::Attach) -> Reply<'a, Stdio>;
    /// Sets the terminal's size.
    fn resize<'a>(&'a self, name: &'a str, height: u32, width: u32) -> Reply<'a, ()>;
    /// Reads the log.
    fn logs<'a>(&'a self, name: &'a str, query: query::Logs) -> Reply<'a, LogStream>;
    /// Samples resource use.
    fn stats<'a>(&'a self, name: &'a str, query: query::Stats) -> Reply<'a, Outgoing<api::ContainerStats>>;
    /// Sends its file system as a tar stream.
    fn export<'a>(&'a self, name: &'a str) -> Reply<'a, Outgoing<Bytes>>;
    /// Says what a path is.
    fn archive_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Reply<'a, api::PathStat>;
    /// Sends a path as a tar stream.
    fn archive_get<'a>(&'a self, name: &'a str, path: &'a str) -> Reply<'a, ArchiveStream>;
    /// Extracts a tar stream at a path.
    fn archive_put<'a>(&'a self, name: &'a str, path: &'a str, options: ArchivePut, body: Incoming) -> Reply<'a, ()>;
    /// Makes an image of a container; answers the image's id.
    fn commit(&self, query: query::Commit) -> Reply<'_, String>;
}

/// Further processes in running containers.
pub trait ExecBackend: Send + Sync {
    /// Prepares an exec; answers its id.
    fn create<'a>(&'a self, container: &'a str, request: api::ExecCreateRequest) -> Reply<'a, String>;
    /// Starts it. What can be refused is refused here; a failed start comes in the stream. Without attachment the
    /// future ends when the process runs.
    fn start<'a>(&'a self, id: &'a str, request: api::ExecStartRequest) -> Reply<'a, ExecStarted>;
    /// Shows it.
    fn inspect<'a>(&'a self, id: &'a str) -> Reply<'a, api::ExecInspect>;
    /// Sets its terminal's size.
    fn resize<'a>(&'a self, id: &'a str, height: u32, width: u32) -> Reply<'a, ()>;
}

/// Images.
pub trait ImageBackend: Send + Sync {
    /// Lists.
    fn list(&self, query: query::ImageList) -> Reply<'_, Vec<api::ImageSummary>>;
    /// Shows everything.
    fn inspect<'a>(&'a self, name: &'a str, query: query::ImageInspect) -> Reply<'a, api::ImageInspect>;
    /// Lists the steps it was made by.
    fn history<'a>(&'a self, name: &'a str, query: query::ImageInspect) -> Reply<'a, Vec<api::ImageHistoryItem>>;
    /// Gives it a further name.
    fn tag<'a>(&'a self, name: &'a str, repo: &'a str, tag: &'a str) -> Reply<'a, ()>;
    /// Removes a name, or the image.
    fn remove<'a>(&'a self, name: &'a str, query: query::ImageRemove) -> Reply<'a, Vec<api::ImageDeleteItem>>;
    /// Removes unused images.
    fn prune(&self, filters: api::Filters, dry: bool) -> Reply<'_, api::ImagePruneResponse>;
    /// Makes an image of a file system's tar stream.
    fn import(&self, query: query::ImageImport, body: Incoming) -> Reply<'_, Outgoing<api::Progress>>;
    /// Takes images from a saved archive.
    fn load(&self, query: query::ImageLoad, body: Incoming) -> Reply<'_, Outgoing<api::Progress>>;
    /// Writes images into an archive.
    fn save(&self, query: query::ImageSave) -> Reply<'_, Outgoing<Bytes>>;
}

/// The engine as a whole.
pub trait SystemBackend: Send + Sync {
    /// Who this is; also decides the version headers.
    fn version(&self) -> Reply<'_, api::Version>;
    /// What it has and how it is set up.
    fn info(&self) -> Reply<'_, api::Info>;
    /// Counts what is stored.
    fn disk_usage(&self, query: query::DiskUsage) -> Reply<'_, api::DiskUsage>;
    /// Checks the image store, and mends it if asked to (Wharf extra).
    fn check(&self, repair: bool) -> Reply<'_, api::StoreCheck>;
    /// What the process tells of itself under `/debug/vars`; `None` unless the daemon runs with debug.
    fn debug_vars(&self) -> Option<serde_json::Value>;
}

/// Registries.
pub trait RegistryBackend: Send + Sync {
    /// Fetches an image. An error in the channel before any line becomes a status.
    fn pull(&self, query: query::ImagePull) -> Reply<'_, Outgoing<api::Progress>>;
    /// Sends an image.
    fn push<'a>(&'a self, name: &'a str, query: query::ImagePush) -> Reply<'a, Outgoing<api::Progress>>;
    /// Checks a login.
    fn auth(&self, request: api::AuthConfig) -> Reply<'_, api::AuthResponse>;
    /// Searches.
    fn search(&self, query: query::ImageSearch) -> Reply<'_, Vec<api::SearchResult>>;
    /// Says what a name means at its registry.
    fn distribution<'a>(&'a self, name: &'a str, auth: api::AuthConfig) -> Reply<'a, api::DistributionInspect>;
}

/// Networks.
pub trait NetworkBackend: Send + Sync {
    /// Lists.
    fn list(&self, filters: api::Filters) -> Reply<'_, Vec<api::Network>>;
    /// Shows one.
    fn inspect<'a>(&'a self, name: &'a str, scope: &'a str) -> Reply<'a, api::Network>;
    /// Makes one.
    fn create(&self, request: api::NetworkCreateRequest) -> Reply<'_, api::NetworkCreateResponse>;
    /// Removes one.
    fn remove<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Connects a container.
    fn connect<'a>(&'a self, name: &'a str, request: api::NetworkConnectRequest) -> Reply<'a, ()>;
    /// Disconnects a container.
    fn disconnect<'a>(&'a self, name: &'a str, request: api::NetworkDisconnectRequest) -> Reply<'a, ()>;
    /// Removes unused ones.
    fn prune(&self, filters: api::Filters) -> Reply<'_, api::NetworkPruneResponse>;
}

/// Volumes.
pub trait VolumeBackend: Send + Sync {
    /// Lists.
    fn list(&self, filters: api::Filters) -> Reply<'_, api::VolumeList>;
    /// Shows one.
    fn inspect<'a>(&'a self, name: &'a str) -> Reply<'a, api::Volume>;
    /// Makes one.
    fn create(&self, request: api::VolumeCreateRequest) -> Reply<'_, api::Volume>;
    /// Removes one.
    fn remove<'a>(&'a self, name: &'a str, force: bool) -> Reply<'a, ()>;
    /// Removes unused ones.
    fn prune(&self, filters: api::Filters) -> Reply<'_, api::VolumePruneResponse>;
    /// Gives one another name (Wharf extra).
    fn rename<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, ()>;
    /// Makes one with the content of another (Wharf extra).
    fn clone_as<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, api::Volume>;
    /// Sends its content as a tar stream (Wharf extra).
    fn export<'a>(&'a self, name: &'a str) -> Reply<'a, Outgoing<Bytes>>;
    /// Extracts a tar stream into it (Wharf extra).
    fn import<'a>(&'a self, name: &'a str, body: Incoming) -> Reply<'a, ()>;
}

/// Events.
pub trait EventBackend: Send + Sync {
    /// Replays and follows. The stream ends at `until`. A client too slow to follow loses the stream, not the engine.
    fn subscribe(&self, query: query::Events) -> Reply<'_, Outgoing<api::EventMessage>>;
}

/// What a client of `/session` says of itself in the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionHead {
    /// Its id.
    pub id: String,
    /// What tells its folders from those of others.
    pub shared_key: String,
    /// What it serves.
    pub methods: Vec<String>,
}

/// A request to the classic builder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildQuery {
    /// The names that the image gets.
    pub tags: Vec<String>,
    /// The Dockerfile's name in the context.
    pub dockerfile: String,
    /// Where the context is, if not in the body.
    pub remote: String,
    /// The stage to stop at.
    pub target: String,
    /// Variables; without a value they are as the daemon has them, which is not at all.
    pub args: Vec<(String, Option<String>)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Names for /etc/hosts, `name:address`.
    pub hosts: Vec<String>,
    /// Limits, `name=soft:hard`.
    pub ulimits: Vec<String>,
    /// Do without the cache.
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    pub pull: bool,
    /// The network of steps.
    pub network: String,
    /// The platform.
    pub platform: String,
    /// Size of /dev/shm.
    pub shm_size: i64,
    /// Below which cgroup.
    pub cgroup_parent: String,
    /// Say only the image's id.
    pub quiet: bool,
    /// All layers as one.
    pub squash: bool,
    /// A name by which the build can be cancelled.
    pub id: String,
}

/// Building.
pub trait BuildBackend: Send + Sync {
    /// BuildKit's services for a connection.
    fn grpc(&self) -> Reply<'_, UnixStream>;
    /// A client that serves builds.
    fn session(&self, head: SessionHead) -> Reply<'_, UnixStream>;
    /// The classic builder.
    fn build(&self, query: BuildQuery, body: Incoming) -> Reply<'_, Outgoing<api::Progress>>;
    /// Cancels a build of the classic builder.
    fn cancel<'a>(&'a self, id: &'a str) -> Reply<'a, ()>;
    /// Collects parts of the cache: the ids, and the bytes.
    fn prune(&self, wanted: BuildPrune) -> Reply<'_, (Vec<String>, u64)>;
}

/// What of the build cache is to go.
#[derive(Clone, Debug, Default)]
pub struct BuildPrune {
    /// Also what a build may use at once again.
    pub all: bool,
    /// Bytes that stay.
    pub keep: Option<u64>,
    /// Which parts.
    pub filters: api::Filters,
    /// Only tell what would go (a Wharf extra).
    pub dry: bool,
}

/// Everything the server serves.
#[derive(Clone)]
pub struct Backends {
    /// Containers.
    pub containers: Arc<dyn ContainerBackend>,
    /// Execs.
    pub execs: Arc<dyn ExecBackend>,
    /// Images.
    pub images: Arc<dyn ImageBackend>,
    /// The engine.
    pub system: Arc<dyn SystemBackend>,
    /// Networks.
    pub networks: Arc<dyn NetworkBackend>,
    /// Volumes.
    pub volumes: Arc<dyn VolumeBackend>,
    /// Registries.
    pub registries: Arc<dyn RegistryBackend>,
    /// Events.
    pub events: Arc<dyn EventBackend>,
    /// Who is asked about every request.
    pub authorizer: Arc<dyn crate::authorize::Authorizer>,
    /// Building.
    pub build: Arc<dyn BuildBackend>,
}
