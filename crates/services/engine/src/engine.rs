//! Joining the use cases to one engine, and its orderly end.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_api_types::query::ContainerStop;
use wharf_cgroup::{Layout, Mode};
use wharf_dns::Resolver;
use wharf_metadata::Store;
use wharf_network::{NetworkConfig, Networks};
use wharf_snapshot::{Kept, Sharing, Snapshot, Snapshotter, Trash};
use wharf_task::Shims;

use crate::changes::Changes;
use crate::config::EngineConfig;
use crate::container::{Records, Registry};
use crate::create::Host;
use crate::creator::Creator;
use crate::events::Events;
use crate::execs::Execs;
use crate::files::Files;
use crate::images::{Capture, Images};
use crate::init_layer::InitLayers;
use crate::lifecycle::{Lifecycle, Saver};
use crate::lists::Lists;
use crate::networks::egress::Denials;
use crate::networks::{Catalog, NetworkList};
use crate::processes::Processes;
use crate::registries::Registries;
use crate::streams::Streams;
use crate::system::System;
use crate::volumes::Volumes;
use crate::{OpenError, blocking, recovery};

/// One engine: its use cases, each with what it needs and nothing more.
pub struct Engine {
    /// Creating containers.
    pub creator: Arc<Creator>,
    /// Starting, ending, removing.
    pub lifecycle: Arc<Lifecycle>,
    /// Renaming, updating, pruning.
    pub changes: Arc<Changes>,
    /// Listing and inspecting.
    pub lists: Arc<Lists>,
    /// Attaching, waiting, logs.
    pub streams: Arc<Streams>,
    /// Processes and resource use.
    pub processes: Arc<Processes>,
    /// Execs.
    pub execs: Arc<Execs>,
    /// Files of containers.
    pub files: Arc<Files>,
    /// Images.
    pub images: Arc<Images>,
    /// Containers' file systems as images and archives.
    pub capture: Arc<Capture>,
    /// Registries.
    pub registries: Arc<Registries>,
    /// Networks.
    pub networks: Arc<NetworkList>,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// Version, information.
    pub system: Arc<System>,
    /// Events.
    pub events: Arc<Events>,
    /// How long actions took.
    pub timings: Arc<crate::metrics::Timings>,
    /// What builds are made with.
    pub build: BuildParts,
    config: Arc<EngineConfig>,
    registry: Arc<Registry>,
    net: Arc<Networks>,
    saver: Arc<Saver>,
    writer: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// What the builder needs of the engine.
pub struct BuildParts {
    /// Images.
    pub images: Arc<wharf_image::Images>,
    /// Layer directories.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Which of them the build cache needs.
    pub kept: Arc<Kept>,
    /// Records.
    pub store: Arc<Store>,
    /// Runs steps.
    pub steps: crate::Steps,
    /// Where the daemon's data is.
    pub data_root: PathBuf,
    /// Where its run-time state is.
    pub exec_root: PathBuf,
}

/// What an engine is opened with besides its configuration.
pub struct Setup {
    /// The configuration.
    pub config: EngineConfig,
    /// Networking.
    pub network: NetworkConfig,
    /// The shim program.
    pub shim: PathBuf,
    /// The snapshots that the build cache owns.
    pub kept: fn(&Store) -> Result<Vec<Snapshot>, wharf_metadata::StoreError>,
    /// Storage driver, or the best one.
    pub storage_driver: Option<String>,
    /// Registries.
    pub registries: wharf_distribution::Config,
    /// Plugins.
    pub plugins: Arc<wharf_plugin::Plugins>,
}

fn folder(path: &Path, mode: u32) -> Result<(), OpenError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| OpenError::Folder { path: path.to_owned(), source })
}

fn host_facts() -> Host {
    let list = |files: &[&str], default: String| {
        let read = files.iter().find_map(|f| std::fs::read_to_string(f).ok());
        read.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).unwrap_or(default)
    };
    let cpus = crate::system::online_cpus();
    Host {
        cpus,
        cpuset: list(&["/sys/devices/system/cpu/online"], format!("0-{}", cpus.saturating_sub(1))),
        mems: list(&["/sys/devices/system/node/online"], "0".to_owned()),
        real_time: Path::new("/sys/fs/cgroup/cpu/cpu.rt_period_us").exists(),
        blkio_weight: Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists()
            || Path::new("/sys/fs/cgroup/blkio/blkio.bfq.weight").exists(),
    }
}

impl Engine {
    /// Opens the stores, reconciles what is recorded with what is there, and goes on where the last engine stopped.
    /// Must run inside a tokio runtime.
    pub async fn open(setup: Setup) -> Result<Engine, OpenError> {
        let Setup { config, network, shim, kept: owned_by_builds, storage_driver, registries, plugins } = setup;
        let config = Arc::new(config);
        // The data root holds other users' secrets; only its own name may be seen (CVE-2021-41091).
        folder(&config.data_root, 0o710)?;
        folder(&config.data_root.join("containers"), 0o710)?;
        folder(&config.exec_root.join("tasks"), 0o711)?;
        folder(&config.exec_root.join("netns"), 0o755)?;
        let cgroup_v2 = Layout::detect().map_err(OpenError::Cgroup)?.mode() == Mode::V2;
        let store = Arc::new(Store::open(&config.data_root.join("wharf/meta.redb"))?);
        let trash = Arc::new(Trash::open(&config.data_root)?);
        let snapshots = wharf_snapshot::open(&config.data_root, storage_driver.as_deref(), trash.clone())?;
        if config.storage_size.is_some() && !snapshots.limits() {
            return Err(OpenError::StorageSize(snapshots.name()));
        }
        let content = wharf_content::Store::open(&config.data_root.join("content"))?;
        let kept = Arc::new(Kept::default());
        for snapshot in owned_by_builds(&store)? {
            kept.add(&snapshot);
        }
        // What the build cache needs too stays when an image goes.
        let shared: Arc<dyn Snapshotter> = Arc::new(Sharing::new(snapshots.clone(), kept.clone()));
        let parts = wharf_image::Parts { metadata: store.clone(), content, snapshots: shared, trash };
        let image_store = Arc::new(wharf_image::Images::open(parts)?);
        let shims = Shims::new(shim, config.exec_root.clone());
        let journal = config.data_root.join("wharf");
        let failed = |source| OpenError::Folder { path: journal.clone(), source };
        let events = Arc::new(Events::with_journal(&journal).map_err(failed)?);
        let registry = Arc::new(Registry::default());
        let records = Arc::new(Records::open(store.clone(), &config.exec_root)?);
        let inventory = recovery::take_stock(&config, &records, &snapshots, &image_store, &kept, &shims).await?;
        let endpoints = inventory.endpoints.clone();
        let catalog = Arc::new(Catalog::open(&store)?);
        let specs = catalog.specs();
        let net = blocking(move || Networks::open(network, specs, endpoints)).await?.map_err(OpenError::Network)?;
        let net = Arc::new(net);
        catalog.add_builtin(&config, net.bridge());
        let volumes =
            Arc::new(Volumes::open(&config, store.clone(), events.clone(), registry.clone(), plugins.clone())?);
        let saver = Arc::new(Saver::new(store.clone(), registry.clone(), shims.clone()));
        let execs = Arc::new(Execs::new(registry.clone(), events.clone()));
        let denials = Arc::new(Denials::new(registry.clone(), events.clone()));
        let lifecycle = Arc::new(Lifecycle {
            config: config.clone(),
            cgroup_v2,
            recursive_read_only: wharf_volume::recursive_read_only(),
            registry: registry.clone(),
            records: records.clone(),
            snapshots: snapshots.clone(),
            volumes: volumes.clone(),
            networks: net.clone(),
            catalog: catalog.clone(),
            resolver: Arc::new(Resolver::start().map_err(OpenError::Resolver)?),
            kept_sockets: Default::default(),
            shims: shims.clone(),
            events: events.clone(),
            execs: execs.clone(),
            saver: saver.clone(),
            identities: Default::default(),
            runs: AtomicU64::new(0),
            forwarders: Default::default(),
            denials: denials.clone(),
            ending: AtomicBool::new(false),
        });
        net.on_refusal(Box::new(move |refusal| denials.tell_packet(&refusal)));
        let background = saver.clone();
        let writer = tokio::spawn(async move { background.run().await });
        recovery::resume(&lifecycle, &registry, &shims, inventory).await?;
        let host = host_facts();
        let build = BuildParts {
            images: image_store.clone(),
            snapshots: snapshots.clone(),
            kept,
            store: store.clone(),
            steps: crate::Steps { lifecycle: lifecycle.clone() },
            data_root: config.data_root.clone(),
            exec_root: config.exec_root.clone(),
        };
        Ok(Engine {
            build,
            creator: Arc::new(Creator {
                config: config.clone(),
                host: host.clone(),
                registry: registry.clone(),
                records: records.clone(),
                snapshots: snapshots.clone(),
                images: image_store.clone(),
                init_layers: InitLayers::new(snapshots.clone(), image_store.clone(), registry.clone()),
                volumes: volumes.clone(),
                events: events.clone(),
                catalog: catalog.clone(),
            }),
            changes: Arc::new(Changes {
                host,
                registry: registry.clone(),
                records: records.clone(),
                snapshots: snapshots.clone(),
                lifecycle: lifecycle.clone(),
                events: events.clone(),
                pruning: Default::default(),
            }),
            lists: Arc::new(Lists {
                config: config.clone(),
                registry: registry.clone(),
                snapshots: snapshots.clone(),
                images: image_store.clone(),
                volumes: volumes.clone(),
                catalog: catalog.clone(),
            }),
            streams: Arc::new(Streams { config: config.clone(), registry: registry.clone(), events: events.clone() }),
            processes: Arc::new(Processes { registry: registry.clone(), events: events.clone() }),
            execs,
            files: Arc::new(Files {
                config: config.clone(),
                registry: registry.clone(),
                snapshots: snapshots.clone(),
                volumes: volumes.clone(),
                events: events.clone(),
            }),
            images: Arc::new(Images { store: image_store.clone(), registry: registry.clone(), events: events.clone() }),
            capture: Arc::new(Capture {
                images: image_store.clone(),
                snapshots: snapshots.clone(),
                registry: registry.clone(),
                lifecycle: lifecycle.clone(),
                events: events.clone(),
            }),
            registries: Arc::new(Registries {
                client: wharf_distribution::Client::new(registries),
                store: image_store.clone(),
                events: events.clone(),
            }),
            networks: Arc::new(NetworkList {
                registry: registry.clone(),
                networks: net.clone(),
                catalog,
                store: store.clone(),
                records: records.clone(),
                events: events.clone(),
                lifecycle: lifecycle.clone(),
                changing: Default::default(),
            }),
            system: Arc::new(System {
                config: config.clone(),
                registry: registry.clone(),
                snapshots,
                images: image_store,
                events: events.clone(),
                cgroup_v2,
                plugins,
                networks: net.clone(),
            }),
            volumes,
            lifecycle,
            events,
            timings: Default::default(),
            config,
            registry,
            net,
            saver,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// How every container stands.
    pub fn states(&self) -> Vec<crate::container::Status> {
        self.registry.all().iter().map(|c| c.view().state.status).collect()
    }

    /// Changes what can be changed while the engine runs, and tells of it.
    pub fn reload(&self, live: crate::config::Live) {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
        let info = self.system.info();
        let runtimes: Vec<_> = live.runtimes.others.iter().map(|(n, r)| format!("{n}:{}", r.path)).collect();
        let attributes = [
            ("debug", live.debug.to_string()),
            ("default-runtime", live.runtimes.default.clone()),
            ("labels", list(&live.labels)),
            ("live-restore", live.live_restore.to_string()),
            ("name", info.name),
            ("runtimes", runtimes.join(" ")),
            ("shutdown-timeout", live.shutdown_timeout.to_string()),
        ];
        self.config.live.set(live);
        let attributes = attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.events.publish(crate::events::Subject::Daemon, "reload", info.id, attributes);
    }

    /// Stops all containers (unless live-restore is on), writes down how they stand, and closes the network. Nothing may be
    /// started afterwards.
    pub async fn close(&self) {
        self.lifecycle.ending.store(true, Ordering::Release);
        if !self.config.live.get().live_restore {
            self.stop_all().await;
        }
        let forwarders = self.lifecycle.forwarders.clone();
        let _ = blocking(move || forwarders.close()).await;
        self.saver.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It ends after a last flush.
            let _ = writer.await;
        }
        crate::cgroups::remove_parent(&self.config);
        let net = self.net.clone();
        match blocking(move || net.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot close the network"),
            Err(error) => tracing::warn!(%error, "closing the network was interrupted"),
        }
    }

    async fn stop_all(&self) {
        let limit = Duration::from_secs(self.config.live.get().shutdown_timeout);
        let running = self.registry.all().into_iter().filter(|c| c.view().task.is_some());
        let stops: Vec<_> = running
            .map(|container| {
                let lifecycle = self.lifecycle.clone();
                let seconds = limit.as_secs() as i64;
                tokio::spawn(async move {
                    let own = container.view().record.config.stop_timeout;
                    let query = ContainerStop {
                        timeout: Some(own.unwrap_or(seconds.min(crate::lifecycle::GRACE))),
                        ..ContainerStop::default()
                    };
                    if let Err(error) = lifecycle.stop_for_shutdown(&container, &query).await {
                        tracing::warn!(container = %container.id, %error, "cannot stop");
                    }
                })
            })
            .collect();
        for stop in stops {
            // Each has its own time limit; this one is for a shim that does not answer at all.
            if tokio::time::timeout(limit + Duration::from_secs(15), stop).await.is_err() {
                tracing::warn!("a container does not end; it is left to the next start");
            }
        }
    }
}
