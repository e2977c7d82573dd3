//! Creating containers: everything is checked before the first effect, effects are undone in reverse order, and one
//! commit makes the container exist. What a crash leaves before that commit is found by scan when the engine starts.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use wharf_api_types::{
    ContainerConfig, ContainerCreateRequest, ContainerCreateResponse, EndpointSettings, HostConfig, OciDescriptor,
    OciPlatform,
};
use wharf_fault::point;
use wharf_image::{Hold, Image, Images};
use wharf_metadata::StoreError;
use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::{ContainerId, IdMaps, Timestamp};

use crate::config::EngineConfig;
use crate::container::{Container, ContainerRecord, LastRun, LookupError, Records, Registry, View};
use crate::create::mounts::{self, Point, Source};
use crate::create::{CreateError, Host, request, validate};
use crate::events::{Events, Subject};
use crate::init_layer::InitLayers;
use crate::networks::{Catalog, endpoint_problems, problems_text};
use crate::rootfs::Root;
use crate::volumes::{Fresh, Volumes, Wish};
use crate::{EngineError, blocking, in_place, names};

/// The space of container names in the store.
pub(crate) const NAMES: &str = "container";

/// Creates containers.
pub struct Creator {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) host: Host,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) images: Arc<Images>,
    pub(crate) init_layers: InitLayers,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) events: Arc<Events>,
    pub(crate) catalog: Arc<Catalog>,
}

/// What a create has made so far, in the order in which it was made.
#[derive(Default)]
struct Made {
    folder: Option<PathBuf>,
    snapshot: Option<Snapshot>,
    volumes: Vec<Fresh>,
}

/// The name of a container that is being created, given back unless it is kept.
struct Reserved<'a> {
    registry: &'a Registry,
    name: String,
    id: ContainerId,
    kept: bool,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.release(&self.name, &self.id);
        }
    }
}

impl Creator {
    /// Creates a container; an empty name is replaced by a generated one.
    pub async fn create(
        self: &Arc<Self>,
        name: &str,
        platform: &str,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let ContainerCreateRequest { mut config, host_config, networking_config } = request;
        if config == ContainerConfig::default() {
            return Err(CreateError::EmptyConfig.into());
        }
        let mut host = host_config.unwrap_or_default();
        let warnings = validate::check(&config, &mut host, &self.config.live.get().runtimes, &self.host)?;
        if self.config.users_of(&host).is_some() {
            validate::users(&host)?;
        }
        self.storage_size(&host)?;
        let networks = self.networks(&mut host, networking_config);
        if host.network_mode != "none" {
            validate::endpoints(&config, &networks)?;
            self.check_networks(&networks)?;
        }
        if config.image.is_empty() {
            return Err(CreateError::NoCommand.into());
        }
        let mut hold = self.images.hold(&config.image)?;
        if let Err(e) = check_platform(platform, &config.image, &hold.image) {
            // An index may have another manifest that fits; its layers are unpacked now.
            let (images, name, wanted) = (self.images.clone(), config.image.clone(), platform_of(platform));
            hold = blocking(move || images.hold_for(&name, &wanted)).await?.map_err(|_| e)?;
        }
        request::merge(&mut config, &hold.image.config.config)?;
        request::defaults(&mut host, &self.config);
        let joined = self.joined(&host)?;
        let id = ContainerId::from_bytes(crate::random_bytes());
        let mut reserved = self.reserve(name, &id)?;
        self.host_name(&mut config, &host, &id, joined.as_deref());
        let points = request::points(&config, &host, &self.volumes_from(&host)?)?;
        let (points, image_holds) = self.mounted_images(points)?;

        let changing = match points.iter().any(is_named_volume) {
            true => Some(self.volumes.changing.lock().await),
            false => None,
        };
        let record = ContainerRecord {
            id: id.clone(),
            name: reserved.name.clone(),
            created: Timestamp::now(),
            image: hold.image.id.to_string(),
            manifest: Some(descriptor(&hold.image)),
            config,
            host,
            networks,
            snapshot: Snapshot { number: 0, lowers: Vec::new(), writable: true },
            points,
            last: LastRun::default(),
        };
        self.make(record, hold).await?;
        drop((changing, image_holds));
        reserved.kept = true;
        Ok(ContainerCreateResponse { id: id.to_string(), warnings })
    }

    /// Performs the effects, commits and publishes.
    async fn make(self: &Arc<Self>, record: ContainerRecord, hold: Hold) -> Result<(), EngineError> {
        point("create.begin");
        let mut made = Made::default();
        let mut record = record;
        if let Err(e) = self.prepare(&mut record, &hold.image, &mut made).await {
            self.undo(made);
            return Err(e);
        }
        let volumes: Vec<_> = made.volumes.iter().map(|fresh| &fresh.record).collect();
        point("create.before-commit");
        if let Err(e) = self.records.insert(&record, &volumes).await {
            self.undo(made);
            return Err(match e {
                EngineError::Store(StoreError::NameTaken { .. }) => {
                    let owner = record.id.clone();
                    LookupError::NameTaken { name: record.name, owner }.into()
                }
                e => e,
            });
        }
        point("create.after-commit");
        for fresh in made.volumes.drain(..) {
            self.volumes.place(fresh)?;
        }
        point("create.after-volumes");
        let container = Arc::new(Container::new(View::resting(record)));
        self.registry.add(container.clone());
        drop(hold);
        tell(&self.events, &container.view().record, "create", &[]);
        point("create.done");
        Ok(())
    }

    /// Performs the effects: in place where they are short, on a thread of their own where files are copied.
    async fn prepare(
        self: &Arc<Self>,
        record: &mut ContainerRecord,
        image: &Arc<Image>,
        made: &mut Made,
    ) -> Result<(), EngineError> {
        let copies = |p: &Point| matches!(p.source, Source::Volume { copy: true, .. });
        if !record.points.iter().any(copies) {
            return in_place(|| self.effects(record, image, made));
        }
        let (this, image) = (self.clone(), image.clone());
        let (mut taken, mut partly) = (record.clone(), Made::default());
        let done = blocking(move || {
            let outcome = this.effects(&mut taken, &image, &mut partly);
            (outcome, taken, partly)
        });
        let outcome;
        (outcome, *record, *made) = done.await?;
        outcome
    }

    fn effects(&self, record: &mut ContainerRecord, image: &Image, made: &mut Made) -> Result<(), EngineError> {
        let folder = self.config.container_folder(&record.id);
        make_folder(&folder)?;
        made.folder = Some(folder);
        point("create.after-folder");
        record.snapshot = self.init_layers.prepare(image)?;
        made.snapshot = Some(record.snapshot.clone());
        if let Some(bytes) = self.storage_size(&record.host)? {
            self.snapshots.limit(&record.snapshot, bytes)?;
        }
        point("create.after-snapshot");
        let mut root = None;
        for i in 0..record.points.len() {
            self.volume(record, i, made, &mut root)?;
        }
        Ok(())
    }

    /// The most that the container may write: its own option's, or the daemon's. What the file system cannot is asked only where
    /// there is an option.
    fn storage_size(&self, host: &HostConfig) -> Result<Option<u64>, CreateError> {
        let given = host.storage_opt.as_ref().is_some_and(|options| !options.is_empty());
        let limits = given && self.snapshots.limits();
        Ok(validate::storage_options(host, self.snapshots.name(), limits)?.or(self.config.storage_size))
    }

    /// Makes the volume of a mount point where it is missing, and fills it from the image where it is empty.
    fn volume(
        &self,
        record: &mut ContainerRecord,
        index: usize,
        made: &mut Made,
        root: &mut Option<Root>,
    ) -> Result<(), EngineError> {
        let point_ = &mut record.points[index];
        let Source::Volume { name, copy, subpath, driver, options, .. } = &mut point_.source else { return Ok(()) };
        let wish = || Wish {
            driver: driver.clone(),
            labels: Some(point_.labels.clone()).filter(|l| !l.is_empty()),
            options: Some(options.clone()).filter(|o| !o.is_empty()),
        };
        if name.is_empty() {
            *name = crate::random_hex();
            made.volumes.push(self.volumes.make_anonymous(name, wish())?);
        } else if let Some(have) = self.volumes.get(name) {
            self.volumes.check_driver(&have, driver)?;
        } else if !made.volumes.iter().any(|f| f.record.name == *name) {
            made.volumes.push(self.volumes.make(name, wish())?);
        }
        point("create.after-volume");
        if !*copy {
            return Ok(());
        }
        let fresh = made.volumes.iter().find(|f| f.record.name == *name);
        if root.is_none() {
            let mounts = self.snapshots.mounts(&record.snapshot, false)?;
            let failed = |e: rustix::io::Errno| file("open root file system of", Path::new(name), e.into());
            *root = Some(Root::of_mounts(&mounts).map_err(failed)?);
        }
        let Some(from) = root.as_ref().and_then(|root| content(root, &point_.target)) else { return Ok(()) };
        let holder = record.id.as_str();
        let data = match fresh {
            Some(fresh) => self.volumes.acquire_fresh(fresh, holder),
            None => self.volumes.acquire(name, holder),
        };
        let filled = data
            .map_err(EngineError::from)
            .and_then(|data| fill(&from, &data, subpath, self.config.users_of(&record.host)));
        match fresh {
            Some(fresh) => self.volumes.release_fresh(fresh, holder),
            None => self.volumes.release(name, holder),
        }
        filled
    }

    /// Finds the images that are mounted, and keeps them until the record does.
    fn mounted_images(&self, mut points: Vec<Point>) -> Result<(Vec<Point>, Vec<Hold>), EngineError> {
        let mut holds = Vec::new();
        for point in &mut points {
            if let Source::Image { name, id, snapshot, .. } = &mut point.source
                && id.is_empty()
            {
                let hold = self.images.hold(name)?;
                *id = hold.image.id.to_string();
                *snapshot = self.images.snapshot(&hold.image)?;
                holds.push(hold);
            }
        }
        Ok((points, holds))
    }

    fn undo(&self, made: Made) {
        for fresh in made.volumes.iter().rev() {
            self.volumes.discard(fresh);
        }
        if let Some(snapshot) = made.snapshot
            && let Err(error) = self.snapshots.remove(&snapshot)
        {
            tracing::warn!(%error, "cannot remove the layer of a container that was not created");
        }
        if let Some(folder) = made.folder
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            tracing::warn!(%error, "cannot remove the folder of a container that was not created");
        }
    }

    fn reserve(&self, name: &str, id: &ContainerId) -> Result<Reserved<'_>, EngineError> {
        let reserved = |name: String| Reserved { registry: &self.registry, name, id: id.clone(), kept: false };
        if !name.is_empty() {
            let bare = name.strip_prefix('/').unwrap_or(name);
            if !names::is_valid(bare) {
                return Err(CreateError::Name(name.to_owned()).into());
            }
            self.registry.reserve(bare, id)?;
            return Ok(reserved(bare.to_owned()));
        }
        // Random names collide seldom; the last resort, as with Docker, is the id itself.
        for attempt in 0..6 {
            let bytes = crate::random_bytes();
            let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            let candidate = names::compose(number(0), number(4), (attempt > 0).then_some(bytes[8]));
            if self.registry.reserve(&candidate, id).is_ok() {
                return Ok(reserved(candidate));
            }
        }
        self.registry.reserve(id.short(), id)?;
        Ok(reserved(id.short().to_owned()))
    }

    /// Finds the containers whose namespaces are joined; returns the one whose network is.
    fn joined(&self, host: &HostConfig) -> Result<Option<Arc<Container>>, EngineError> {
        for mode in [&host.ipc_mode, &host.pid_mode] {
            if let Some(name) = mode.strip_prefix("container:") {
                self.registry.find(name).map_err(EngineError::Named)?;
            }
        }
        for link in host.links.iter().flatten() {
            let name = crate::lifecycle::split_link(link).0;
            self.registry.find(name).map_err(|error| EngineError::Link { name: name.to_owned(), error })?;
        }
        // A missing one is an error of start, as with Docker.
        Ok(host.network_mode.strip_prefix("container:").and_then(|name| self.registry.find(name).ok()))
    }

    /// The networks asked for, by name whatever the client wrote; the network of the mode is one of them, unless it is
    /// one that says all.
    fn networks(
        &self,
        host: &mut HostConfig,
        config: Option<wharf_api_types::NetworkingConfig>,
    ) -> BTreeMap<String, EndpointSettings> {
        let name = |text: &str| match text {
            "default" | "" => "bridge".to_owned(),
            other => self.catalog.find(other).map_or_else(|_| other.to_owned(), |n| n.name.clone()),
        };
        let all = config.and_then(|c| c.endpoints_config).unwrap_or_default();
        let mut networks: BTreeMap<String, EndpointSettings> =
            all.into_iter().map(|(text, settings)| (name(&text), settings.unwrap_or_default())).collect();
        let mode = host.network_mode.as_str();
        if !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:") {
            host.network_mode = name(mode);
            // There, links are names of the resolver.
            let links = host.links.clone().filter(|l| !l.is_empty());
            let settings = networks.entry(host.network_mode.clone()).or_default();
            if settings.links.is_none() {
                settings.links = links;
            }
        }
        networks
    }

    fn check_networks(&self, networks: &BTreeMap<String, EndpointSettings>) -> Result<(), CreateError> {
        for (name, settings) in networks {
            let problems = endpoint_problems(name, self.catalog.named(name).as_deref(), settings);
            if !problems.is_empty() {
                return Err(CreateError::Endpoint { network: name.clone(), problems: problems_text(&problems) });
            }
        }
        Ok(())
    }

    fn host_name(&self, config: &mut ContainerConfig, host: &HostConfig, id: &ContainerId, net: Option<&Container>) {
        if !config.hostname.is_empty() {
            return;
        }
        config.hostname = match net {
            Some(other) => other.view().record.config.hostname.clone(),
            None if host.network_mode == "host" || host.uts_mode == "host" => node_name(),
            None => id.short().to_owned(),
        };
    }

    #[allow(clippy::type_complexity)] // It is what `points` takes.
    fn volumes_from(&self, host: &HostConfig) -> Result<Vec<(Vec<Point>, Option<bool>)>, EngineError> {
        let mut list = Vec::new();
        for spec in host.volumes_from.iter().flatten() {
            let (name, read_only) = mounts::parse_from(spec)?;
            let other = self.registry.find(name).map_err(EngineError::Named)?;
            list.push((other.view().record.points.clone(), read_only));
        }
        Ok(list)
    }
}

fn is_named_volume(point: &Point) -> bool {
    // A plugin may take its time, and nobody else is to wait for it.
    matches!(&point.source, Source::Volume { name, driver, .. }
        if !name.is_empty() && matches!(driver.as_str(), "" | crate::volumes::LOCAL))
}

fn file(operation: &'static str, path: &Path, source: std::io::Error) -> EngineError {
    EngineError::File { operation, path: path.to_owned(), source }
}

/// Container folders are for root only (CVE-2021-41091: world-traversable state).
pub(crate) fn make_folder(folder: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().mode(0o710).create(folder);
    made.map_err(|e| file("mkdir", folder, e))
}

/// What the image has at a volume's target, if it is a folder. The path is resolved inside the root, so a link in the
/// image cannot lead out of it (CVE-2022-23648).
fn content(root: &Root, target: &str) -> Option<OwnedFd> {
    let from = root.open(target).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&from).ok()?.st_mode);
    (kind == FileType::Directory).then_some(from)
}

/// Fills an empty volume, or an empty folder in it.
fn fill(from: &OwnedFd, data: &Path, subpath: &str, users: Option<&IdMaps>) -> Result<(), EngineError> {
    let failed = |e: rustix::io::Errno| file("copy image content to", data, e.into());
    let place = wharf_volume::open_beneath(data, if subpath.is_empty() { "." } else { subpath })?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place).map_err(failed)?.st_mode);
    if kind != FileType::Directory {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&place, ".", flags, rustix::fs::Mode::empty()).map_err(failed)?;
    if !crate::copy::is_empty(to.as_fd()).map_err(failed)? {
        return Ok(());
    }
    crate::copy::fill(from.as_fd(), to.as_fd(), users).map_err(failed)
}

pub(crate) fn descriptor(image: &Image) -> OciDescriptor {
    let platform = &image.config.platform;
    OciDescriptor {
        media_type: image.target.media_type.clone(),
        digest: image.target.digest.to_string(),
        size: image.target.size as i64,
        platform: Some(OciPlatform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..OciPlatform::default()
        }),
        ..OciDescriptor::default()
    }
}

/// `[os/]architecture[/variant]` as a platform.
fn platform_of(text: &str) -> wharf_oci::image::Platform {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        [architecture] => ("linux", *architecture, ""),
        [os, architecture, rest @ ..] => (*os, *architecture, rest.first().copied().unwrap_or_default()),
        [] => ("linux", "", ""),
    };
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    wharf_oci::image::Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        ..wharf_oci::image::Platform::default()
    }
}

/// Refuses an image of another platform than the one asked for. An empty text is any.
fn check_platform(wanted: &str, reference: &str, image: &Image) -> Result<(), EngineError> {
    let have = &image.config.platform;
    let parts: Vec<&str> = wanted.split('/').collect();
    let normal = |arch: &str| match arch {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let fits = match parts.as_slice() {
        [""] | ["linux"] => true,
        [arch] => normal(arch) == have.architecture,
        [os, arch, ..] => *os == have.os && normal(arch) == have.architecture,
        [] => true,
    };
    if fits {
        return Ok(());
    }
    let (reference, platform) = (reference.to_owned(), wanted.to_owned());
    Err(wharf_image::ImageError::Platform { reference, platform }.into())
}

/// The host's name.
pub(crate) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Publishes an event of a container, with Docker's attributes.
pub(crate) fn tell(events: &Events, record: &ContainerRecord, action: &str, more: &[(&str, String)]) {
    let mut attributes = record.config.labels.clone().unwrap_or_default();
    attributes.insert("image".to_owned(), record.config.image.clone());
    attributes.insert("name".to_owned(), record.name.clone());
    attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
    events.publish(Subject::Container, action, record.id.as_str(), attributes);
}
