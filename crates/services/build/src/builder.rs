//! The daemon's builder: what all builds share.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::OwnedMutexGuard;
use wharf_distribution::Repository;
use wharf_oci::image::Descriptor;
use wharf_snapshot::{Kept, Snapshot, Snapshotter};
use wharf_types::{Digest, Reference};

use crate::BuildError;
use crate::cache::{Cache, Collect};
use crate::gateway::Gateway;
use crate::local::Pool;
use crate::progress::Progress;
use crate::request::Histories;
use crate::session::Sessions;

/// User and secret; without a user the secret is a token.
pub type Login = Option<(String, String)>;

/// Hears how far a push is: bytes that are there, and in all.
pub type Pushed<'a> = &'a (dyn Fn(i64, i64) + Send + Sync);

/// What takes time and may fail.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, BuildError>> + Send + 'a>>;

/// Registries, as the engine knows them.
pub trait Registry: Send + Sync {
    /// Fetches an image by its name into the image store; `platform` may be empty.
    fn pull<'a>(&'a self, name: &'a str, platform: &'a str, login: Login) -> Later<'a, ()>;

    /// Sends what a name with a tag means.
    fn push<'a>(&'a self, name: &'a Reference, login: Login, told: Pushed<'a>) -> Later<'a, ()>;

    /// The repository of a name, for blobs that are no image.
    ///
    /// # Errors
    /// The name has no registry that may be asked.
    fn repository(&self, name: &Reference, login: Login, push: bool) -> Result<Arc<Repository>, BuildError>;
}

/// Told of an event: the name or id, and the action.
pub type Told = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What the builder is made of.
pub struct Parts {
    /// Images.
    pub images: Arc<wharf_image::Images>,
    /// Blobs, for results that are no images of this daemon.
    pub content: wharf_content::Store,
    /// Layer directories.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Which of them the cache needs.
    pub kept: Arc<Kept>,
    /// Records.
    pub store: Arc<wharf_metadata::Store>,
    /// Runs steps.
    pub steps: wharf_engine::Steps,
    /// Fetches base images, sends results.
    pub registry: Arc<dyn Registry>,
    /// `<data-root>/build`.
    pub folder: PathBuf,
    /// `<exec-root>/steps`.
    pub steps_folder: PathBuf,
    /// Told of images that were made: name or id, and action.
    pub told: Told,
    /// What is collected after each build, one rule after the other.
    pub rules: Vec<Collect>,
}

/// The builder.
pub struct Builder {
    /// What it is made of.
    pub parts: Parts,
    /// What was built before.
    pub cache: Arc<Cache>,
    /// Contexts.
    pub pool: Arc<Pool>,
    /// Clients.
    pub sessions: Arc<Sessions>,
    /// Builds of this daemon's life.
    pub histories: Histories,
    builds: Mutex<HashMap<String, Arc<Progress>>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    digests: Mutex<HashMap<String, String>>,
    layers: Mutex<HashMap<u64, (Descriptor, Digest)>>,
    /// Directories of base images by the chain ids of their layers.
    chains: Mutex<HashMap<Digest, Snapshot>>,
    gateway: OnceLock<Arc<dyn Gateway>>,
}

/// Digests of selections that are remembered at most.
const DIGESTS: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Builder {
    /// Opens the builder.
    ///
    /// # Errors
    /// The records or folders cannot be read.
    pub fn open(parts: Parts) -> Result<Arc<Self>, BuildError> {
        std::fs::create_dir_all(parts.folder.join("empty"))?;
        let cache =
            Cache::open(parts.store.clone(), parts.snapshots.clone(), parts.images.clone(), parts.kept.clone())?;
        let pool = Arc::new(Pool::new(parts.folder.join("local")));
        Ok(Arc::new(Self {
            cache: Arc::new(cache),
            pool,
            sessions: Arc::default(),
            histories: Histories::default(),
            builds: Mutex::default(),
            turns: Mutex::default(),
            digests: Mutex::default(),
            layers: Mutex::default(),
            chains: Mutex::default(),
            gateway: OnceLock::new(),
            parts,
        }))
    }

    /// Says who serves front ends that run in containers; the first word counts.
    pub fn serve_frontends(&self, gateway: Arc<dyn Gateway>) {
        let _ = self.gateway.set(gateway);
    }

    pub(crate) fn gateway(&self) -> Option<&Arc<dyn Gateway>> {
        self.gateway.get()
    }

    /// The progress of a build by the reference its client gave it; made by whoever asks first.
    pub fn progress(&self, reference: &str) -> Arc<Progress> {
        lock(&self.builds).entry(reference.to_owned()).or_default().clone()
    }

    /// Forgets the progress of a build that is over.
    pub fn forget(&self, reference: &str) {
        lock(&self.builds).remove(reference);
    }

    /// Waits until nobody else makes what this key stands for.
    pub async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        let mutex = {
            let mut turns = lock(&self.turns);
            if turns.len() > 1024 {
                turns.retain(|_, m| Arc::strong_count(m) > 1);
            }
            turns.entry(key.to_owned()).or_default().clone()
        };
        mutex.lock_owned().await
    }

    pub(crate) fn digest_of(&self, key: &str) -> Option<String> {
        lock(&self.digests).get(key).cloned()
    }

    pub(crate) fn remember_digest(&self, key: String, digest: String) {
        let mut digests = lock(&self.digests);
        if digests.len() >= DIGESTS {
            digests.clear();
        }
        digests.insert(key, digest);
    }

    /// Notes which blobs the layer directories of an image are made of.
    pub(crate) fn know_layers(&self, numbers: &[u64], image: &wharf_image::Image) {
        let mut below: Option<Digest> = None;
        for (i, (number, diff_id)) in numbers.iter().zip(&image.config.rootfs.diff_ids).enumerate() {
            let chain = crate::transfer::chain_of(below.as_ref(), diff_id);
            let lowers = numbers[..i].iter().rev().copied().collect();
            lock(&self.chains).insert(chain.clone(), Snapshot { number: *number, lowers, writable: false });
            below = Some(chain);
        }
        let mut layers = lock(&self.layers);
        let parts = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        for (number, (blob, diff_id)) in numbers.iter().zip(parts) {
            layers.insert(*number, (blob.clone(), diff_id.clone()));
        }
    }

    /// The directory of an image's layers, as long as an image has it.
    pub(crate) fn known_chain(&self, chain: &Digest) -> Option<Snapshot> {
        let found = lock(&self.chains).get(chain).cloned()?;
        self.parts.images.snapshot_numbers().contains(&found.number).then_some(found)
    }

    pub(crate) fn known_layer(&self, number: u64) -> Option<(Descriptor, Digest)> {
        lock(&self.layers).get(&number).cloned()
    }

    /// A folder with nothing in it.
    pub(crate) fn empty_folder(&self) -> Result<OwnedFd, BuildError> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.parts.folder.join("empty"), flags, Mode::empty()).map_err(std::io::Error::from)?)
    }
}
