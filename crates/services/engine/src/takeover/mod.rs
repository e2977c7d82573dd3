//! Taking over what another engine left: images, volumes, networks and stopped containers of a Docker engine's data root
//! (`dockerd --import-from`, ours). Its folder is only read; everything is copied.
//!
//! Images of Docker's own store get the ids that `docker save` and `docker load` would give them here, since their manifests
//! were not kept; those of containerd's store keep theirs. Containers keep their ids, names, settings, layers and logs.

mod bolt;
mod found;
mod layers;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use wharf_archive::{ArchiveError, Difference, Form, extract, pack};
use wharf_error::{Chain, HasKind, Kind, kind_of_io};
use wharf_snapshot::Snapshot;
use wharf_types::ContainerId;

use crate::container::{Container, ContainerRecord, View};
use crate::create::mounts::{Point, Source as PointSource};
use crate::create::{mounts, request};
use crate::creator::{Creator, descriptor, make_folder};
use crate::{Engine, EngineError, blocking};
pub use found::{Found, look};
use found::{FoundContainer, FoundVolume};
use layers::Image;

/// Why something cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It is no data root of Docker's.
    #[error("{0} is no data root of a Docker engine")]
    NotDocker(PathBuf),
    /// Somebody has its records open.
    #[error("an engine runs on this data root ({0} is locked): stop it first")]
    Running(PathBuf),
    /// A file is not what it should be.
    #[error("{path}: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file is not the JSON that it should be.
    #[error("{path}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A system call failed.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Packing or unpacking failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// This engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The container's image was not taken over.
    #[error("its image {0} was not taken over")]
    Image(String),
}

impl HasKind for TakeoverError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotDocker(_) | Self::Format { .. } | Self::Json { .. } => Kind::Invalid,
            Self::Running(_) => Kind::Conflict,
            Self::Io { source, .. } => kind_of_io(source),
            Self::Archive(e) => e.kind(),
            Self::Engine(e) => e.kind(),
            Self::Image(_) => Kind::NotFound,
        }
    }
}

fn io_failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TakeoverError + 'a {
    move |source| TakeoverError::Io { operation, path: path.to_owned(), source }
}

impl Found {
    /// Says, a line each, what would be taken over and what stays.
    pub fn plan(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for image in &self.images {
            let names = if image.names.is_empty() { "<none>".to_owned() } else { image.names.join(" ") };
            let _ = writeln!(text, "image {} {names}", image.id);
        }
        for volume in &self.volumes {
            let empty = if volume.data.is_none() { " (without content)" } else { "" };
            let _ = writeln!(text, "volume {}{empty}", volume.request.name);
        }
        for network in &self.networks {
            let _ = writeln!(text, "network {} {}", network.name, network.driver);
        }
        for container in &self.containers {
            let starts = if container.last.wanted { " (starts with the daemon)" } else { "" };
            let _ = writeln!(text, "container {} {}{starts}", container.id, container.name);
        }
        for left in &self.left {
            let _ = writeln!(text, "left: {left}");
        }
        text
    }
}

/// Runs `write` on a thread of its own and `read` on what it writes.
fn piped<T>(
    write: impl FnOnce(&mut dyn io::Write) -> Result<(), TakeoverError> + Send,
    read: impl FnOnce(io::PipeReader) -> Result<T, TakeoverError>,
) -> Result<T, TakeoverError> {
    let (reader, writer) = io::pipe().map_err(io_failed("make a pipe", Path::new("-")))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut out = io::BufWriter::with_capacity(256 << 10, writer);
            write(&mut out)?;
            io::Write::flush(&mut out).map_err(|e| ArchiveError::Write(e).into())
        });
        let taken = read(reader);
        let written = writing.join().unwrap_or(Err(EngineError::Worker.into()));
        match (taken, written) {
            // Who stopped reading knows why; else the reader's complaint follows from the writer's.
            (Err(e), Ok(()) | Err(TakeoverError::Archive(ArchiveError::Write(_)))) => Err(e),
            (Ok(taken), Ok(()) | Err(TakeoverError::Archive(ArchiveError::Write(_)))) => Ok(taken),
            (_, Err(e)) => Err(e),
        }
    })
}

fn open_folder(path: &Path) -> Result<OwnedFd, TakeoverError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| io_failed("open", path)(e.into()))
}

impl Engine {
    /// Takes over what was found; each thing is told of as it is done or fails. Returns whether nothing failed. What is here
    /// already under the same name stays as it is, so that an import which was interrupted can be done again.
    pub async fn take_over(&self, found: Found, tell: &mut dyn FnMut(String)) -> bool {
        let mut complete = true;
        let mut told = |what: String, outcome: Result<bool, TakeoverError>| match outcome {
            Ok(true) => tell(format!("{what}: taken over")),
            Ok(false) => tell(format!("{what}: is here already")),
            Err(e) => {
                complete = false;
                tell(format!("{what}: {}", Chain(&e)));
            }
        };
        let mut ids = HashMap::new();
        for image in found.images {
            let what = format!("image {} {}", image.id, image.names.join(" "));
            let taken = self.take_image(image, &mut ids).await;
            told(what, taken.map(|()| true));
        }
        for volume in found.volumes {
            told(format!("volume {}", volume.request.name), self.take_volume(volume).await);
        }
        for network in found.networks {
            let what = format!("network {}", network.name);
            let taken = match self.networks.create(network).await {
                Ok(_) => Ok(true),
                Err(EngineError::NetworkExists(_)) => Ok(false),
                Err(e) => Err(e.into()),
            };
            told(what, taken);
        }
        for container in found.containers {
            let what = format!("container {} {}", container.id, container.name);
            let image = ids.get(&container.image).cloned();
            let creator = self.creator.clone();
            let taken = match image {
                Some(image) => creator.take_container(container, &image).await,
                None => Err(TakeoverError::Image(container.image.clone())),
            };
            told(what, taken);
        }
        complete
    }

    async fn take_image(&self, image: Image, ids: &mut HashMap<String, String>) -> Result<(), TakeoverError> {
        let store = self.images.store.clone();
        let old = image.id.clone();
        let loaded = blocking(move || {
            let load = |mut reader: io::PipeReader| {
                store.load(&mut reader, None, &mut |_| {}).map_err(|e| EngineError::from(e).into())
            };
            piped(|out| image.write(out), load)
        })
        .await??;
        if let Some(loaded) = loaded.first() {
            ids.insert(old, loaded.id.to_string());
        }
        Ok(())
    }

    async fn take_volume(&self, volume: FoundVolume) -> Result<bool, TakeoverError> {
        let FoundVolume { request, data } = volume;
        let name = request.name.clone();
        if self.volumes.get(&name).is_some() {
            return Ok(false);
        }
        self.volumes.create(request).await?;
        let Some(data) = data else { return Ok(true) };
        let volumes = self.volumes.clone();
        let from = open_folder(&data)?;
        blocking(move || {
            piped(|out| Ok(pack(from.as_fd(), out)?), |reader| Ok(volumes.import(&name, Box::new(reader))?))
        })
        .await??;
        Ok(true)
    }
}

impl Creator {
    /// Makes a container exist that another engine made. The image is here.
    async fn take_container(self: Arc<Self>, found: FoundContainer, image: &str) -> Result<bool, TakeoverError> {
        let bad = |_| TakeoverError::Format { path: found.folder.clone(), what: "no container's id" };
        let id = ContainerId::parse(&found.id).map_err(bad)?;
        if self.registry.find(id.as_str()).is_ok() {
            return Ok(false);
        }
        let name = found.name.clone();
        let hold = self.images.hold(image).map_err(EngineError::from)?;
        self.registry.reserve(&name, &id).map_err(EngineError::from)?;
        let (this, of) = (self.clone(), hold.image.clone());
        let made = match blocking(move || this.copy_container(found, &of)).await {
            Ok(Ok(record)) => self.records.insert(&record, &[]).await.map(|()| record).map_err(TakeoverError::from),
            Ok(Err(e)) => Err(e),
            Err(e) => Err(e.into()),
        };
        match made {
            Ok(record) => {
                self.registry.add(Arc::new(Container::new(View::resting(record))));
                drop(hold);
                Ok(true)
            }
            Err(e) => {
                // What there is of its folder and its layer has no record: the next start removes them.
                self.registry.release(&name, &id);
                Err(e)
            }
        }
    }

    /// Copies what a container wrote, and its logs. Blocks.
    fn copy_container(
        &self,
        found: FoundContainer,
        image: &wharf_image::Image,
    ) -> Result<ContainerRecord, TakeoverError> {
        let points = points(&found)?;
        let bad = |_| TakeoverError::Format { path: found.folder.clone(), what: "no container's id" };
        let id = ContainerId::parse(&found.id).map_err(bad)?;
        let folder = self.config.container_folder(&id);
        make_folder(&folder)?;
        copy_logs(&found, &folder)?;
        let snapshot = self.init_layers.prepare(image)?;
        if let Some(layer) = &found.layer
            && let Err(e) = self.copy_layer(layer, &snapshot)
        {
            // Nothing can be done about a second failure, and the next start finds what is left.
            let _ = self.snapshots.remove(&snapshot);
            return Err(e);
        }
        Ok(ContainerRecord {
            id,
            name: found.name,
            created: found.created,
            image: image.id.to_string(),
            manifest: Some(descriptor(image)),
            config: found.config,
            host: found.host,
            networks: found.networks,
            snapshot,
            points,
            last: found.last,
        })
    }

    /// An overlay's upper directory becomes a layer, which any driver can take in.
    fn copy_layer(&self, layer: &Path, snapshot: &Snapshot) -> Result<(), TakeoverError> {
        let upper = Difference { now: open_folder(layer)?, before: None, form: Form::Overlay, places: Vec::new() };
        let target = self.snapshots.target(snapshot).map_err(EngineError::from)?;
        piped(
            |out| Ok(upper.pack(out).map(drop)?),
            |reader| {
                let mut stream = BufReader::with_capacity(256 << 10, reader);
                Ok(extract(&mut stream, target.root, &target.parents, target.whiteouts).map(drop)?)
            },
        )
    }
}

/// The logs of json-file, which have the same form here, with those that were rotated.
fn copy_logs(found: &FoundContainer, folder: &Path) -> Result<(), TakeoverError> {
    let base = format!("{}-json.log", found.id);
    let entries = std::fs::read_dir(&found.folder).map_err(io_failed("read", &found.folder))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(&base) {
            let path = entry.path();
            std::fs::copy(&path, folder.join(name)).map_err(io_failed("copy", &path))?;
        }
    }
    Ok(())
}

/// Mount points as they were asked for, with the volumes that they got.
fn points(found: &FoundContainer) -> Result<Vec<Point>, EngineError> {
    let mut points = request::points(&found.config, &found.host, &[])?;
    for point in &mut points {
        if let PointSource::Volume { name, .. } = &mut point.source
            && name.is_empty()
            && let Some(got) = found.volumes.get(&point.target)
        {
            name.clone_from(&got.name);
        }
    }
    // Those of other containers (`--volumes-from`).
    for (target, got) in &found.volumes {
        if points.iter().all(|point| point.target != *target) {
            let mut point = mounts::anonymous(target);
            if let PointSource::Volume { name, anonymous, driver, .. } = &mut point.source {
                name.clone_from(&got.name);
                *anonymous = false;
                driver.clone_from(&got.driver);
            }
            point.read_only = !got.writable;
            points.push(point);
        }
    }
    Ok(points)
}
