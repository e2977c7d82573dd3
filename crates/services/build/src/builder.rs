//! The daemon's builder: what all builds share.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use wharf_oci::image::Descriptor;
use wharf_snapshot::{Kept, Snapshotter};
use wharf_types::Digest;

use crate::BuildError;
use crate::cache::Cache;
use crate::local::Pool;
use crate::progress::Progress;
use crate::request::Histories;
use crate::session::Sessions;

/// Fetches an image that is not here, by its name.
pub trait Pull: Send + Sync {
    /// Fetches it into the image store; `platform` may be empty.
    fn pull<'a>(
        &'a self,
        name: &'a str,
        platform: &'a str,
        credentials: Option<(String, String)>,
    ) -> Pin<Box<dyn Future<Output = Result<(), BuildError>> + Send + 'a>>;
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
    /// Fetches base images.
    pub pull: Arc<dyn Pull>,
    /// `<data-root>/build`.
    pub folder: PathBuf,
    /// `<exec-root>/steps`.
    pub steps_folder: PathBuf,
    /// Told of images that were made: name or id, and action.
    pub told: Told,
    /// Most bytes of the cache; what was used longest ago goes first.
    pub keep: u64,
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
            parts,
        }))
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
        let mut layers = lock(&self.layers);
        let parts = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        for (number, (blob, diff_id)) in numbers.iter().zip(parts) {
            layers.insert(*number, (blob.clone(), diff_id.clone()));
        }
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
