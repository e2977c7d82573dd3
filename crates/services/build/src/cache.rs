//! What was built before: snapshots by the keys of the operations that made them, and folders of cache mounts.
//!
//! A record owns its snapshot together with the images that were exported from it: a layer directory stays as long as
//! one of them needs it ([`wharf_snapshot::Kept`]). A record that is not known to be on disk carries the boot id; after
//! a power cut it is forgotten.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wharf_metadata::{Batch, Record, Store, Table};
use wharf_oci::image::Descriptor;
use wharf_snapshot::{Kept, Snapshot, Snapshotter};
use wharf_types::{Digest, Timestamp};

use crate::BuildError;

/// One thing that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The files.
    pub snapshot: Snapshot,
    /// Keys by which it is found; the first is its own, on which further steps build theirs.
    pub keys: Vec<String>,
    /// What made it, for people.
    pub description: String,
    /// `regular`, `exec.cachemount`.
    pub kind: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// How often.
    pub uses: u64,
    /// Bytes, once measured.
    pub size: Option<u64>,
    /// The blob and diff id of its layer, once packed.
    pub layer: Option<(Descriptor, Digest)>,
    /// The boot in which it was made, until it is known to be on disk.
    pub boot: Option<String>,
}

impl Record for BuildRecord {
    const TABLE: Table = Table::Builds;
    const VERSION: u32 = 1;
}

/// The snapshots that records own, for the daemon's start.
///
/// # Errors
/// The store cannot be read.
pub fn kept_snapshots(store: &Store) -> Result<Vec<Snapshot>, wharf_metadata::StoreError> {
    Ok(store.view()?.all::<BuildRecord>()?.into_iter().map(|(_, record)| record.snapshot).collect())
}

/// A record in use. As long as anyone has it, it is not collected.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its files.
    pub snapshot: Snapshot,
    /// Its own key.
    pub key: String,
    /// When it was made.
    pub created: Timestamp,
    record: Mutex<BuildRecord>,
}

impl Node {
    fn record(&self) -> MutexGuard<'_, BuildRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer's blob and diff id, once packed.
    pub fn layer(&self) -> Option<(Descriptor, Digest)> {
        self.record().layer.clone()
    }

    /// A copy of the record.
    pub fn snapshot_of_record(&self) -> BuildRecord {
        self.record().clone()
    }
}

/// A key in the cache.
#[derive(Default)]
struct State {
    nodes: HashMap<String, Arc<Node>>,
    keys: HashMap<String, String>,
    /// Records that changed since the last commit.
    dirty: HashSet<String>,
}

/// All records of a daemon.
pub struct Cache {
    store: Arc<Store>,
    snapshots: Arc<dyn Snapshotter>,
    images: Arc<wharf_image::Images>,
    kept: Arc<Kept>,
    boot: String,
    state: Mutex<State>,
}

/// What was collected.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// Its id.
    pub id: String,
    /// The record.
    pub record: BuildRecord,
}

/// What to collect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// Also what a build may use at once again, not only what nothing stands on.
    pub all: bool,
    /// Only what was not used for this long, in seconds.
    pub unused_for: Option<i64>,
    /// Stop when no more than this is left.
    pub keep: Option<u64>,
    /// Only these kinds; empty means every kind.
    pub kinds: Vec<String>,
    /// Only this id.
    pub id: Option<String>,
    /// Only these.
    pub only: Option<HashSet<String>>,
    /// Bytes of the disk that should be free: where they are not, less stays than [`Collect::keep`] says.
    pub free: Option<u64>,
    /// Only say what would go.
    pub dry: bool,
}

impl Collect {
    /// With what stays lowered so that enough of the disk is free, of a cache of this size.
    #[must_use]
    pub fn with_free(&self, free: Option<u64>, size: u64) -> Self {
        let lacking = match (self.free, free) {
            (Some(wanted), Some(free)) => wanted.saturating_sub(free),
            _ => 0,
        };
        let keep =
            if lacking == 0 { self.keep } else { Some(size.saturating_sub(lacking).min(self.keep.unwrap_or(size))) };
        Self { keep, ..self.clone() }
    }
}

impl Cache {
    /// Reads the records; those that a power cut may have damaged go.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        store: Arc<Store>,
        snapshots: Arc<dyn Snapshotter>,
        images: Arc<wharf_image::Images>,
        kept: Arc<Kept>,
    ) -> Result<Self, BuildError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let mut state = State::default();
        let mut lost = Vec::new();
        for (id, record) in store.view()?.all::<BuildRecord>()? {
            if record.boot.as_ref().is_some_and(|b| *b != boot) {
                lost.push((id, record));
                continue;
            }
            for key in &record.keys {
                state.keys.insert(key.clone(), id.clone());
            }
            state.nodes.insert(id.clone(), Arc::new(node(id, record)));
        }
        let cache = Self { store, snapshots, images, kept, boot, state: Mutex::new(state) };
        cache.forget(lost)?;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what a key made.
    pub fn find(&self, key: &str) -> Option<Arc<Node>> {
        let mut state = self.lock();
        let id = state.keys.get(key)?.clone();
        let node = state.nodes.get(&id)?.clone();
        {
            let mut record = node.record();
            record.used = Timestamp::now();
            record.uses += 1;
        }
        state.dirty.insert(id);
        Some(node)
    }

    /// Says that another key means the same.
    pub fn alias(&self, key: &str, node: &Arc<Node>) {
        let mut state = self.lock();
        if state.keys.insert(key.to_owned(), node.id.clone()).as_ref() != Some(&node.id) {
            node.record().keys.push(key.to_owned());
            state.dirty.insert(node.id.clone());
        }
    }

    /// Takes a committed snapshot that a step made.
    ///
    /// # Errors
    /// The store is broken.
    pub fn add(
        &self,
        snapshot: Snapshot,
        keys: Vec<String>,
        description: &str,
        kind: &str,
        created: Timestamp,
    ) -> Result<Arc<Node>, BuildError> {
        let mut bytes = [0u8; 16];
        // getrandom(2) does not fail once the pool is ready.
        let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
        let id: String =
            bytes.iter().map(|b| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(b % 32)])).collect();
        let now = Timestamp::now();
        let record = BuildRecord {
            snapshot,
            keys,
            description: description.to_owned(),
            kind: kind.to_owned(),
            created,
            used: now,
            uses: 1,
            size: None,
            layer: None,
            boot: Some(self.boot.clone()),
        };
        self.kept.add(&record.snapshot);
        let mut batch = Batch::new();
        batch.put(&id, &record);
        // Not waited for: without its record the snapshot goes at the next start, which costs only the work.
        drop(self.store.submit(batch));
        let node = Arc::new(node(id.clone(), record.clone()));
        let mut state = self.lock();
        for key in &record.keys {
            state.keys.insert(key.clone(), id.clone());
        }
        state.nodes.insert(id, node.clone());
        Ok(node)
    }

    /// Notes the blob of a layer.
    pub fn packed(&self, node: &Arc<Node>, blob: &Descriptor, diff_id: &Digest) {
        node.record().layer = Some((blob.clone(), diff_id.clone()));
        self.lock().dirty.insert(node.id.clone());
    }

    /// The node whose layer directory has this number.
    pub fn by_number(&self, number: u64) -> Option<Arc<Node>> {
        self.lock().nodes.values().find(|n| n.snapshot.number == number).cloned()
    }

    /// Commits what changed, and notes in the background what has reached the disk.
    pub fn settle(self: &Arc<Self>) {
        let (batch, unsynced) = {
            let mut state = self.lock();
            let mut batch = Batch::new();
            let dirty: Vec<String> = state.dirty.drain().collect();
            for id in dirty {
                if let Some(node) = state.nodes.get(&id) {
                    batch.put(&id, &*node.record());
                }
            }
            let unsynced: Vec<Arc<Node>> =
                state.nodes.values().filter(|n| n.record().boot.is_some()).cloned().collect();
            (batch, unsynced)
        };
        if !batch.is_empty() {
            drop(self.store.submit(batch));
        }
        let cache = self.clone();
        let Some(any) = unsynced.first().map(|n| n.snapshot.clone()) else { return };
        let sync = move || {
            let synced = cache.snapshots.layer(&any).map(rustix::fs::syncfs);
            if !matches!(synced, Ok(Ok(()))) {
                return;
            }
            let mut batch = Batch::new();
            let state = cache.lock();
            for node in unsynced.iter().filter(|n| state.nodes.contains_key(&n.id)) {
                let mut record = node.record();
                record.boot = None;
                batch.put(&node.id, &*record);
            }
            drop(state);
            drop(cache.store.submit(batch));
        };
        if let Err(error) = std::thread::Builder::new().name("build-sync".to_owned()).spawn(sync) {
            tracing::warn!(%error, "cannot start syncing the build cache");
        }
    }

    /// All records, with whether each is in use.
    pub fn list(&self) -> Vec<(String, BuildRecord, bool)> {
        let state = self.lock();
        let all = state.nodes.values().map(|n| (n.id.clone(), n.record().clone(), Arc::strong_count(n) > 1));
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| a.1.created.unix_nanos().cmp(&b.1.created.unix_nanos()).then(a.0.cmp(&b.0)));
        all
    }

    /// Measures what was not measured yet.
    pub fn measure(&self) {
        let waiting: Vec<Arc<Node>> =
            self.lock().nodes.values().filter(|n| n.record().size.is_none()).cloned().collect();
        for node in waiting {
            if let Ok(usage) = self.snapshots.usage(&node.snapshot) {
                node.record().size = Some(usage.bytes);
                self.lock().dirty.insert(node.id.clone());
            }
        }
    }

    /// Bytes of all that is measured.
    pub fn size(&self) -> u64 {
        self.lock().nodes.values().filter_map(|n| n.record().size).sum()
    }

    /// Collects what is wanted, the longest unused first, as long as nothing stands on it. With [`Collect::dry`] it only
    /// tells what that would be.
    ///
    /// # Errors
    /// The store is broken.
    pub fn collect(&self, wanted: &Collect) -> Result<Vec<Collected>, BuildError> {
        self.measure();
        let now = Timestamp::now().seconds();
        let mut gone = Vec::new();
        // Of a dry run nothing is taken away: what would be is passed over.
        let mut passed: HashSet<String> = HashSet::new();
        loop {
            let mut state = self.lock();
            let left = || state.nodes.values().filter(|n| !passed.contains(&n.id));
            let total: u64 = left().filter_map(|n| n.record().size).sum();
            if wanted.keep.is_some_and(|keep| total <= keep) {
                break;
            }
            let below: HashSet<u64> = left().flat_map(|n| n.snapshot.lowers.clone()).collect();
            let fits = |node: &&Arc<Node>| {
                let record = node.record();
                !below.contains(&node.snapshot.number)
                    && Arc::strong_count(node) == 1
                    && wanted.unused_for.is_none_or(|age| now - record.used.seconds() >= age)
                    && (wanted.kinds.is_empty() || wanted.kinds.contains(&record.kind))
                    && wanted.id.as_ref().is_none_or(|id| node.id.starts_with(id.as_str()))
                    && wanted.only.as_ref().is_none_or(|only| only.contains(&node.id))
            };
            let oldest = left().filter(fits).min_by_key(|n| n.record().used.unix_nanos()).cloned();
            let Some(node) = oldest else { break };
            if wanted.dry {
                passed.insert(node.id.clone());
                gone.push(Collected { id: node.id.clone(), record: node.record().clone() });
                continue;
            }
            state.nodes.remove(&node.id);
            state.keys.retain(|_, id| *id != node.id);
            drop(state);
            let record = node.record().clone();
            self.forget(vec![(node.id.clone(), record.clone())])?;
            gone.push(Collected { id: node.id.clone(), record });
        }
        Ok(gone)
    }

    /// Takes records out of the store, and away what only they needed.
    fn forget(&self, records: Vec<(String, BuildRecord)>) -> Result<(), BuildError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (id, _) in &records {
            batch.remove(Table::Builds, id);
        }
        self.store.commit(batch)?;
        let free: Vec<u64> = records.iter().flat_map(|(_, record)| self.kept.release(&record.snapshot)).collect();
        let imaged = self.images.snapshot_numbers();
        for number in free.into_iter().filter(|n| !imaged.contains(n)) {
            self.snapshots.remove(&Snapshot { number, lowers: Vec::new(), writable: false })?;
        }
        Ok(())
    }
}

fn node(id: String, record: BuildRecord) -> Node {
    let key = record.keys.first().cloned().unwrap_or_default();
    Node { id, snapshot: record.snapshot.clone(), key, created: record.created, record: Mutex::new(record) }
}
