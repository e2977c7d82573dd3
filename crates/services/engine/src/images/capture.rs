//! A container's file system as an image (`docker commit`), as a tar stream (`docker export`) and as a difference.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use wharf_api_types::ContainerConfig;
use wharf_api_types::query::Commit;
use wharf_archive::{ArchiveError, Difference};
use wharf_error::{HasKind, Kind};
use wharf_fault::point;
use wharf_image::{ImageId, NewImage, Packing, Part, change};
use wharf_oci::image::{Config, History};
use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::{ContainerId, Reference, Timestamp};

use crate::container::{Container, ContainerRecord, Registry, Status};
use crate::creator::tell;
use crate::events::Events;
use crate::lifecycle::Lifecycle;
use crate::{EngineError, blocking};

/// What the engine and the runtime make in a root file system so that they can mount over it. Docker keeps these in a
/// layer of their own below the container's (moby `daemon/initlayer`), so they show in no difference.
const PLACES: [&str; 14] = [
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "run",
    "sys",
];

/// In a task's folder while a commit has paused it: a daemon that finds it lets the container go on.
pub(crate) const PAUSE_MARK: &str = "commit-pause";

/// What a container's writable layer has that its image has not, without the places for the engine's own mounts.
///
/// # Errors
/// [`EngineError::Snapshot`].
pub fn difference(snapshots: &dyn Snapshotter, snapshot: &Snapshot) -> Result<Difference, EngineError> {
    let places = PLACES.iter().map(PathBuf::from).collect();
    Ok(Difference { places, ..snapshots.difference(snapshot)? })
}

/// A container that cannot be made an image or an archive. Texts are Docker's.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum CaptureError {
    #[error("You cannot commit container {id} which is {word}")]
    CommitState { id: String, word: &'static str },
    #[error("invalid configuration of the container: {0}")]
    Config(String),
    #[error("You cannot export container {id} which is {word}")]
    ExportState { id: String, word: &'static str },
    #[error("failed to export container {name}")]
    Export {
        name: String,
        #[source]
        source: ArchiveError,
    },
}

impl HasKind for CaptureError {
    fn kind(&self) -> Kind {
        match self {
            CaptureError::CommitState { .. } | CaptureError::ExportState { .. } => Kind::Conflict,
            CaptureError::Config(_) => Kind::Invalid,
            CaptureError::Export { .. } => Kind::System,
        }
    }
}

/// Takes what containers have written.
pub struct Capture {
    pub(crate) images: Arc<wharf_image::Images>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Arc<Events>,
}

impl Capture {
    /// Makes an image of a container. `name` is the new image's, if it is to have one. The work goes on to its end
    /// though the client leaves, so that the container never stays paused.
    ///
    /// # Errors
    /// [`EngineError::Lookup`], [`CaptureError`], [`EngineError::Image`].
    pub async fn commit(self: &Arc<Self>, request: Commit, name: Option<Reference>) -> Result<ImageId, EngineError> {
        let this = self.clone();
        let work = tokio::spawn(async move { this.commit_whole(request, name).await });
        work.await.map_err(|_| EngineError::Worker)?
    }

    async fn commit_whole(self: Arc<Self>, request: Commit, name: Option<Reference>) -> Result<ImageId, EngineError> {
        let container = self.registry.find(&request.container)?;
        let view = container.view();
        let word = match view.state.status {
            Status::Dead => Some("Dead"),
            Status::Removing => Some("being removed"),
            _ => None,
        };
        if let Some(word) = word {
            return Err(CaptureError::CommitState { id: container.id.to_string(), word }.into());
        }
        let record = view.record.clone();
        // A wrong change must not cost a pause.
        let config = changed(&record, &request)?;
        let paused = request.pause && view.state.status == Status::Running && self.pause(&container).await;
        let this = self.clone();
        let of = record.clone();
        let given = name.clone();
        let (author, comment) = (request.author.clone(), request.comment.clone());
        let made = blocking(move || this.make(&of, config, author, comment, given)).await;
        if paused {
            self.resume(&container.id).await;
        }
        let id = made??;
        let name = name.map(|name| name.with_default_tag().familiar()).unwrap_or_default();
        let attributes = [("comment", request.comment), ("imageID", id.to_string()), ("imageRef", name)];
        tell(&self.events, &record, "commit", &attributes);
        Ok(id)
    }

    /// Freezes a container for a while. One that ended meanwhile needs no pause.
    async fn pause(&self, container: &Container) -> bool {
        let mark = self.lifecycle.shims.folder(&container.id).join(PAUSE_MARK);
        if let Err(error) = std::fs::write(&mark, "") {
            tracing::warn!(%error, "cannot note that a container is paused for a commit");
            return false;
        }
        point("capture.before-pause");
        let paused = self.lifecycle.pause(container.id.as_str()).await.is_ok();
        point("capture.after-pause");
        if !paused {
            drop(std::fs::remove_file(&mark));
        }
        paused
    }

    async fn resume(&self, id: &ContainerId) {
        if let Err(error) = self.lifecycle.unpause(id.as_str()).await {
            tracing::warn!(container = %id, %error, "cannot unpause after a commit");
        }
        // The task's folder goes with a container that ended.
        drop(std::fs::remove_file(self.lifecycle.shims.folder(id).join(PAUSE_MARK)));
    }

    fn make(
        &self,
        record: &ContainerRecord,
        config: Config,
        author: String,
        comment: String,
        name: Option<Reference>,
    ) -> Result<ImageId, EngineError> {
        let base = self.images.hold(&record.image)?.image.clone();
        let difference = difference(self.snapshots.as_ref(), &record.snapshot)?;
        let layer = self.images.layer_upon(base.chain.as_ref(), &difference, Packing::Gzip)?;
        let empty = layer.entries == 0;
        let layers = base.manifest.layers.iter().zip(&base.config.rootfs.diff_ids);
        let mut parts: Vec<Part> = layers.map(|(blob, id)| Part::Known(blob.clone(), id.clone())).collect();
        if !empty {
            parts.push(Part::New(layer));
        }
        let created = Some(Timestamp::now());
        let command = record.config.cmd.as_ref().map(|words| words.0.join(" ")).unwrap_or_default();
        let step = History { created, created_by: command, author: author.clone(), comment, empty_layer: empty };
        let mut whole = base.config.clone();
        whole.history.push(step);
        whole.created = created;
        whole.author = author;
        whole.config = config;
        let image = NewImage {
            names: name.into_iter().collect(),
            config: whole,
            parent: Some(base.id.clone()),
            ..NewImage::default()
        };
        let hold = self.images.assemble(image, parts)?;
        Ok(hold.image.id.clone())
    }

    /// Writes a container's whole file system as a tar stream, without what is mounted in it. Blocks while it writes.
    ///
    /// # Errors
    /// [`EngineError::Lookup`], [`EngineError::Snapshot`], [`CaptureError`].
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<(), EngineError> {
        let container = self.exportable(name)?;
        let tree = self.snapshots.view(&container.view().record.snapshot)?;
        use std::os::fd::AsFd;
        match wharf_archive::pack(tree.as_fd(), out) {
            // A client that left is no fault of ours.
            Ok(()) | Err(ArchiveError::Write(_)) => {}
            Err(source) => return Err(CaptureError::Export { name: name.to_owned(), source }.into()),
        }
        tell(&self.events, &container.view().record, "export", &[]);
        Ok(())
    }

    /// Finds a container that can be exported, for a status before the stream begins.
    ///
    /// # Errors
    /// [`EngineError::Lookup`], [`CaptureError`].
    pub fn exportable(&self, name: &str) -> Result<Arc<Container>, EngineError> {
        let container = self.registry.find(name)?;
        let word = match container.view().state.status {
            Status::Dead => "Dead",
            Status::Removing => "being removed",
            _ => return Ok(container),
        };
        Err(CaptureError::ExportState { id: container.id.to_string(), word }.into())
    }
}

/// The configuration of the new image: the container's, or the one in the request completed by the container's, with
/// the changes applied.
fn changed(record: &ContainerRecord, request: &Commit) -> Result<Config, EngineError> {
    let own = of_container(&record.config)?;
    let Some(given) = &request.config else { return Ok(change(own, &request.changes)?) };
    let given = change(of_container(given)?, &request.changes)?;
    Ok(merge(given, own))
}

/// The keys are the same in both; what belongs to containers alone is left out.
fn of_container(config: &ContainerConfig) -> Result<Config, EngineError> {
    let moved = serde_json::to_value(config).and_then(serde_json::from_value);
    moved.map_err(|e| CaptureError::Config(e.to_string()).into())
}

/// Completes a configuration by another (moby `daemon/commit.go`, `merge`).
fn merge(mut given: Config, below: Config) -> Config {
    if given.user.is_empty() {
        given.user = below.user;
    }
    for (port, empty) in below.exposed_ports {
        given.exposed_ports.entry(port).or_insert(empty);
    }
    for entry in below.env {
        let key = entry.split('=').next().unwrap_or_default();
        if !given.env.iter().any(|known| known.split('=').next() == Some(key)) {
            given.env.push(entry);
        }
    }
    for (key, value) in below.labels {
        given.labels.entry(key).or_insert(value);
    }
    if given.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if given.cmd.as_ref().is_none_or(Vec::is_empty) {
            given.cmd = below.cmd;
        }
        given.entrypoint = given.entrypoint.or(below.entrypoint);
    }
    given.healthcheck = given.healthcheck.or(below.healthcheck);
    if given.working_dir.is_empty() {
        given.working_dir = below.working_dir;
    }
    for (path, empty) in below.volumes {
        given.volumes.entry(path).or_insert(empty);
    }
    if given.stop_signal.is_empty() {
        given.stop_signal = below.stop_signal;
    }
    given
}
