//! The queries of the API as plain values, after parsing.
//!
//! Defaults of the types are the API's defaults for absent parameters, except where a field says otherwise.

use crate::Filters;

/// `GET /containers/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerList {
    /// Also containers that do not run.
    pub all: bool,
    /// At most this many, newest first, running or not; 0 or less is no limit.
    pub limit: i64,
    /// Fill `SizeRw` and `SizeRootFs`.
    pub size: bool,
    /// before, since, id, name, label, status, exited, health, ancestor, network, volume, publish, expose, is-task …
    pub filters: Filters,
}

/// `DELETE /containers/{id}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerRemove {
    /// Also its anonymous volumes.
    pub volumes: bool,
    /// Kill it if it runs.
    pub force: bool,
    /// Remove the link of that name, not the container.
    pub link: bool,
}

/// `POST /containers/{id}/stop` and `/restart`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStop {
    /// The signal; empty for the container's own.
    pub signal: String,
    /// Seconds until it is killed; absent for the container's own, negative for ever.
    pub timeout: Option<i64>,
}

/// `POST /containers/{id}/attach`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// Replay what was written so far.
    pub logs: bool,
    /// Stay connected.
    pub stream: bool,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
    /// The sequence as written by the client; empty for the daemon's default. The server watches for it.
    pub detach_keys: String,
}

/// `GET /containers/{id}/logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Stay and send what comes.
    pub follow: bool,
    /// Include stdout.
    pub stdout: bool,
    /// Include stderr.
    pub stderr: bool,
    /// From this point on, nanoseconds since the epoch; absent is the beginning.
    pub since: Option<i128>,
    /// Up to this point, nanoseconds since the epoch.
    pub until: Option<i128>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Put the driver's extra attributes before each line.
    pub details: bool,
    /// At most the last so many lines; absent is all.
    pub tail: Option<u64>,
}

/// When `POST /containers/{id}/wait` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once if it does not run, else at its end.
    #[default]
    NotRunning,
    /// At the end of the present or next run.
    NextExit,
    /// When it is gone.
    Removed,
}

/// `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Replay from here, nanoseconds since the epoch; absent starts now.
    pub since: Option<i128>,
    /// End here; a point in the past ends after the replay.
    pub until: Option<i128>,
    /// container, image, volume, network, daemon, plugin, type, event, label, scope …
    pub filters: Filters,
}

/// `GET /containers/{id}/stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// A sample each second until the client leaves; else one, after two were taken.
    pub stream: bool,
    /// One sample at once, without the one before it.
    pub one_shot: bool,
}

/// `POST /commit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// The container's name or id.
    pub container: String,
    /// Repository of the new image; empty for none.
    pub repo: String,
    /// Tag of the new image.
    pub tag: String,
    /// Message.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Pause the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Configuration that replaces the container's, if given.
    pub config: Option<crate::ContainerConfig>,
}

/// `GET /images/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageList {
    /// Also intermediate images.
    pub all: bool,
    /// Compute `SharedSize`.
    pub shared_size: bool,
    /// Fill `Manifests`.
    pub manifests: bool,
    /// before, since, until, label, reference, dangling.
    pub filters: Filters,
}

/// `POST /images/create` with `fromSrc`: a tar archive becomes an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageImport {
    /// `-` for the request's body, else a URL.
    pub source: String,
    /// Repository, possibly with a tag; empty for none.
    pub repo: String,
    /// Tag; empty for the one in `repo`, or `latest`.
    pub tag: String,
    /// Message of the history's entry.
    pub message: String,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`; empty for this host's.
    pub platform: String,
}

/// `POST /images/create` with `fromImage`: an image from a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImagePull {
    /// The image as the client names it.
    pub image: String,
    /// Tag or digest; empty for the one in `image`, or all.
    pub tag: String,
    /// `os[/arch[/variant]]`; empty for this host's.
    pub platform: String,
    /// Who we are there.
    pub auth: crate::AuthConfig,
}

/// `POST /images/{name}/push`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImagePush {
    /// The tag; empty for all.
    pub tag: String,
    /// Only this platform of an index.
    pub platform: Option<crate::OciPlatform>,
    /// Who we are there.
    pub auth: crate::AuthConfig,
}

/// `GET /images/search`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageSearch {
    /// What to search, perhaps with a registry in front.
    pub term: String,
    /// Results at most.
    pub limit: u32,
    /// `is-official`, `is-automated`, `stars`.
    pub filters: crate::Filters,
    /// Who we are there.
    pub auth: crate::AuthConfig,
}

/// `POST /images/load`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageLoad {
    /// No progress, only the outcome.
    pub quiet: bool,
    /// Platforms as JSON texts of the OCI platform; empty loads all.
    pub platforms: Vec<crate::OciPlatform>,
}

/// `GET /images/get` and `GET /images/{name}/get`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageSave {
    /// What to save, in this order.
    pub names: Vec<String>,
    /// Only these platforms; empty saves all.
    pub platforms: Vec<crate::OciPlatform>,
}

/// `DELETE /images/{name}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageRemove {
    /// Even if it has several names or stopped containers use it.
    pub force: bool,
    /// Also parents without a name.
    pub prune: bool,
    /// Only these platforms; empty removes all.
    pub platforms: Vec<crate::OciPlatform>,
}

/// `GET /images/{name}/json` and `/history`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageInspect {
    /// Fill `Manifests`.
    pub manifests: bool,
    /// Describe this platform's manifest.
    pub platform: Option<crate::OciPlatform>,
}

/// `GET /system/df`: which parts to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Count containers.
    pub containers: bool,
    /// Count images.
    pub images: bool,
    /// Count volumes.
    pub volumes: bool,
    /// Count the build cache.
    pub build_cache: bool,
}
