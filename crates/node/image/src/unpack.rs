//! Unpacking layers into snapshots by chain id, and taking whole images into the records.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf_archive::Compression;
use wharf_content::Ingest;
use wharf_metadata::Batch;
use wharf_oci::image::{Descriptor, media_type};
use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::{Digest, Reference, Timestamp};

use crate::apart::{Apart, Client, Work, arriving};
use crate::import::this_platform;
use crate::load::fits;
use crate::pipeline::{Passed, pass};
use crate::records::{Layer, Tag, chain_id};
use crate::store::{Pins, Shared};
use crate::{ArrivingLayer, Image, ImageError, Unpacking};

/// A snapshot that no record owns yet. It is thrown away unless it is taken.
pub(crate) struct Fresh {
    snapshots: Arc<dyn Snapshotter>,
    pub(crate) chain: Digest,
    layer: Option<Layer>,
}

impl Fresh {
    pub(crate) fn new(shared: &Shared, chain: Digest, layer: Layer) -> Self {
        Self { snapshots: shared.parts.snapshots.clone(), chain, layer: Some(layer) }
    }

    /// Its directory, for the layer above; `None` once it is taken.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.layer.as_ref().map(|layer| layer.snapshot.clone())
    }

    /// What it unpacked to; `None` once it is taken.
    fn diff_id(&self) -> Option<Digest> {
        self.layer.as_ref().map(|layer| layer.diff_id.clone())
    }

    /// The blob it was unpacked from; `None` once it is taken.
    pub(crate) fn blob(&self) -> Option<Descriptor> {
        self.layer.as_ref().map(|layer| layer.blob.clone())
    }

    fn take(&mut self) -> Option<Layer> {
        self.layer.take()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(layer) = self.layer.take() {
            // If this fails the directory stays without an owner and goes when the daemon starts.
            let _ = self.snapshots.remove(&layer.snapshot);
        }
    }
}

/// A prepared snapshot while it is written, thrown away on the way out unless it was committed.
pub(crate) struct Writing<'a> {
    pub(crate) snapshots: &'a dyn Snapshotter,
    pub(crate) snapshot: Option<Snapshot>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            // As in `Fresh`.
            let _ = self.snapshots.remove(&snapshot);
        }
    }
}

/// Layers that wait for the disk.
#[derive(Default)]
pub(crate) struct Unsynced {
    chains: Vec<Digest>,
    /// When the newest came.
    newest: Option<Instant>,
    /// Whether a thread waits for the moment.
    waiting: bool,
}

/// How long images must have rested before new layers are synced, and how long that is waited for at most.
const QUIET: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(30);

/// The layer below the one to unpack.
#[derive(Clone, Default)]
pub(crate) struct Below {
    pub(crate) chain: Option<Digest>,
    pub(crate) snapshot: Option<Snapshot>,
}

impl Below {
    /// Goes one layer up.
    pub(crate) fn rise(&mut self, diff_id: &Digest, snapshot: Snapshot) {
        self.chain = Some(chain_id(self.chain.as_ref(), diff_id));
        self.snapshot = Some(snapshot);
    }
}

/// Passes a source through the pipeline into a new snapshot upon `below`.
pub(crate) fn unpack(
    shared: &Shared,
    source: &mut dyn Read,
    ingest: Option<Ingest>,
    below: &Below,
    blob: impl FnOnce(&mut Passed) -> Result<Descriptor, ImageError>,
) -> Result<Fresh, ImageError> {
    unpack_known(shared, source, ingest, None, below, blob)
}

/// As [`unpack`], of a source whose bytes are verified elsewhere to have a digest, where one is given.
pub(crate) fn unpack_known(
    shared: &Shared,
    source: &mut dyn Read,
    ingest: Option<Ingest>,
    known: Option<&Digest>,
    below: &Below,
    blob: impl FnOnce(&mut Passed) -> Result<Descriptor, ImageError>,
) -> Result<Fresh, ImageError> {
    let snapshots = shared.parts.snapshots.as_ref();
    let snapshot = snapshots.prepare(below.snapshot.as_ref())?;
    let mut writing = Writing { snapshots, snapshot: Some(snapshot.clone()) };
    wharf_fault::point("unpack.begin");
    let mut passed = pass(source, ingest, known, snapshots.target(&snapshot)?)?;
    wharf_fault::point("unpack.after-extract");
    let usage = snapshots.usage(&snapshot)?;
    let blob = blob(&mut passed)?;
    writing.snapshot = None;
    let snapshot = snapshots.commit(snapshot)?;
    wharf_fault::point("unpack.after-snapshot");
    let diff_id = passed.unpacked.diff_id;
    let chain = chain_id(below.chain.as_ref(), &diff_id);
    let layer =
        Layer { snapshot, parent: below.chain.clone(), diff_id, blob, usage, unsynced: Some(shared.boot.clone()) };
    Ok(Fresh::new(shared, chain, layer))
}

/// The compression that a media type promises; a stream that has another is read by what it is.
pub(crate) fn known_layer(kind: &str) -> bool {
    use media_type::{DOCKER_LAYER, DOCKER_LAYER_GZIP, LAYER, LAYER_GZIP, LAYER_ZSTD};
    [LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP].contains(&kind)
}

/// The OCI media type of a layer.
pub(crate) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media_type::LAYER,
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
    }
}

/// Another platform of an index that is here already: what the record had stays, or its layers would go under the
/// containers that stand on them. The record tells of this host's platform, if that is one of them.
fn keep_known(image: &mut Image, known: &Image) {
    image.added = known.added;
    let here = this_platform();
    if fits(&known.config.platform, &here) && !fits(&image.config.platform, &here) {
        image.manifest = known.manifest.clone();
        image.config = known.config.clone();
        image.size = known.size;
        image.more.extend(std::mem::replace(&mut image.chain, known.chain.clone()));
    } else {
        image.more.extend(known.chain.clone());
    }
    image.more.extend(known.more.iter().cloned());
    let mut seen: HashSet<Digest> = image.chain.iter().cloned().collect();
    image.more.retain(|chain| seen.insert(chain.clone()));
    let mut seen: HashSet<Digest> = image.blobs.iter().map(|blob| blob.digest.clone()).collect();
    image.blobs.extend(known.blobs.iter().filter(|blob| seen.insert(blob.digest.clone())).cloned());
}

/// Layers whose blobs are here.
struct Stored<'a> {
    pins: &'a mut Pins,
    layers: &'a [ArrivingLayer],
    made: HashSet<Digest>,
    done: &'a mut dyn FnMut(&Digest, u64),
}

impl Client for Stored<'_> {
    fn known(&mut self, chain: &Digest) -> Option<Snapshot> {
        let known = self.pins.chain(chain).map(|layer| layer.snapshot);
        // One that was just made here has no record yet.
        known.or_else(|| self.pins.fresh.iter().find(|f| f.chain == *chain).and_then(Fresh::snapshot))
    }

    fn made(&mut self, fresh: Fresh) {
        self.made.extend(fresh.diff_id());
        self.pins.fresh.push(fresh);
    }

    fn tell(&mut self, step: Unpacking) {
        if let Unpacking::Done(place) = step
            && let Some(layer) = self.layers.get(place).filter(|layer| self.made.contains(&layer.diff_id))
        {
            (self.done)(&layer.diff_id, layer.blob.size);
        }
    }
}

impl Shared {
    /// Unpacks the layers of an image that are not unpacked yet. `ready` are some that were extracted before. Returns the
    /// top chain id.
    pub(crate) fn unpack_all(
        &self,
        pins: &mut Pins,
        ready: &mut HashMap<Digest, Apart>,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        done: &mut dyn FnMut(&Digest, u64),
    ) -> Result<Option<Digest>, ImageError> {
        let layers: Vec<_> = layers.iter().zip(diff_ids).map(|(blob, diff_id)| arriving(blob, diff_id)).collect();
        // A stored blob was verified when it came.
        let open = |place: usize| -> Result<Box<dyn Read + Send>, ImageError> {
            Ok(Box::new(self.parts.content.blob(&layers[place].blob.digest)?))
        };
        let work = Work { shared: self, layers: &layers, open: &open, stopped: &AtomicBool::new(false) };
        work.run(ready, &mut Stored { pins, layers: &layers, made: HashSet::new(), done })
    }

    /// Takes an image, its new layers and its names into the records, in one commit.
    pub(crate) fn register(
        self: &Arc<Self>,
        mut image: Image,
        names: &[Reference],
        pins: &mut Pins,
    ) -> Result<Arc<Image>, ImageError> {
        let _changes = self.changes();
        let mut batch = Batch::new();
        let mut layers = Vec::new();
        {
            let state = self.read();
            for fresh in &mut pins.fresh {
                // Someone else may have unpacked the same layer meanwhile; then this one is thrown away.
                if !state.layers.contains_key(&fresh.chain)
                    && let Some(layer) = fresh.take()
                {
                    batch.put(fresh.chain.as_str(), &layer);
                    layers.push((fresh.chain.clone(), layer));
                }
            }
            if let Some(known) = state.images.get(&image.id) {
                keep_known(&mut image, known);
            }
            let fresh = |chain: &Digest| layers.iter().find(|(c, _)| c == chain).map(|(_, layer)| layer);
            let mut chain = image.chain.clone();
            image.unpacked = 0;
            while let Some(layer) = chain.as_ref().and_then(|c| fresh(c).or_else(|| state.layers.get(c))) {
                image.unpacked += layer.usage.bytes;
                chain.clone_from(&layer.parent);
            }
        }
        let tag = Tag { id: image.id.clone(), tagged: Timestamp::now() };
        batch.put(image.id.as_str(), &image);
        for name in names {
            batch.put(&name.to_string(), &tag);
        }
        let image = Arc::new(image);
        wharf_fault::point("image.before-commit");
        if let Err(e) = self.parts.metadata.commit(batch) {
            for (_, layer) in layers {
                // As in `Fresh`.
                let _ = self.parts.snapshots.remove(&layer.snapshot);
            }
            return Err(e.into());
        }
        wharf_fault::point("image.after-commit");
        let unsynced: Vec<Digest> = layers.iter().map(|(chain, _)| chain.clone()).collect();
        let mut state = self.write();
        state.layers.extend(layers);
        state.images.insert(image.id.clone(), image.clone());
        state.tags.extend(names.iter().map(|name| (name.clone(), tag.clone())));
        drop(state);
        self.sync_later(unsynced);
        Ok(image)
    }

    /// Brings the files of new layers to disk in the background and notes it. The image's blobs are on disk already,
    /// so until then a power cut costs unpacking anew, and nothing is lost. It waits until images rest for a moment, so
    /// that the disk is for whoever waits for it, and what is removed meanwhile is never written.
    pub(crate) fn sync_later(self: &Arc<Self>, chains: Vec<Digest>) {
        if chains.is_empty() {
            return;
        }
        {
            let mut unsynced = self.unsynced();
            unsynced.chains.extend(chains);
            unsynced.newest = Some(Instant::now());
            if std::mem::replace(&mut unsynced.waiting, true) {
                return;
            }
        }
        let shared = Arc::downgrade(self);
        let begun = Instant::now();
        let sync = move || {
            loop {
                std::thread::sleep(QUIET);
                let Some(shared) = shared.upgrade() else { return };
                let chains = {
                    let mut unsynced = shared.unsynced();
                    let resting = unsynced.newest.is_none_or(|newest| newest.elapsed() >= QUIET);
                    if !resting && begun.elapsed() < LONGEST {
                        continue;
                    }
                    unsynced.waiting = false;
                    std::mem::take(&mut unsynced.chains)
                };
                if let Err(error) = shared.sync_layers(&chains) {
                    tracing::warn!(%error, "cannot sync new layers; they are unpacked anew after a power cut");
                }
                return;
            }
        };
        if let Err(error) = std::thread::Builder::new().name("layer-sync".to_owned()).spawn(sync) {
            self.unsynced().waiting = false;
            tracing::warn!(%error, "cannot start syncing new layers");
        }
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sync_layers(&self, chains: &[Digest]) -> Result<(), ImageError> {
        for chain in chains {
            // One that was removed meanwhile needs none of it.
            let known = |shared: &Self| shared.read().layers.get(chain).cloned();
            let Some(layer) = known(self) else { continue };
            let synced = self.parts.snapshots.layer(&layer.snapshot).map_err(ImageError::from);
            match synced.and_then(|folder| sync(&folder)) {
                Err(e) if known(self).is_some() => return Err(e),
                _ => {}
            }
        }
        wharf_fault::point("layers.synced");
        let _changes = self.changes();
        let mut batch = Batch::new();
        let mut synced = Vec::new();
        for chain in chains {
            // It may have been removed meanwhile.
            let Some(mut layer) = self.read().layers.get(chain).cloned() else { continue };
            layer.unsynced = None;
            batch.put(chain.as_str(), &layer);
            synced.push((chain.clone(), layer));
        }
        self.parts.metadata.commit(batch)?;
        wharf_fault::point("layers.after-commit");
        self.write().layers.extend(synced);
        Ok(())
    }

    /// Unpacks layers anew that may have lost writes when the machine went down, lowest first.
    pub(crate) fn repair(&self) {
        let mut doubtful: Vec<(Digest, Layer)> = {
            let state = self.read();
            let lost = |layer: &Layer| layer.unsynced.as_ref().is_some_and(|boot| *boot != self.boot);
            state.layers.iter().filter(|(_, layer)| lost(layer)).map(|(c, l)| (c.clone(), l.clone())).collect()
        };
        doubtful.sort_by_key(|(chain, _)| self.depth(chain));
        for (chain, layer) in doubtful {
            if let Err(error) = self.repair_layer(&chain, &layer) {
                tracing::warn!(%error, %chain, "cannot unpack a layer anew that a power cut may have damaged");
            }
        }
    }

    /// Layers from a chain id down to the lowest.
    pub(crate) fn depth(&self, chain: &Digest) -> usize {
        let state = self.read();
        std::iter::successors(Some(chain), |chain| state.layers.get(chain)?.parent.as_ref()).count()
    }

    pub(crate) fn repair_layer(&self, chain: &Digest, layer: &Layer) -> Result<(), ImageError> {
        let snapshots = &self.parts.snapshots;
        let parent = layer.parent.as_ref().and_then(|parent| Some(self.read().layers.get(parent)?.snapshot.clone()));
        let snapshot = snapshots.reset(&layer.snapshot, parent.as_ref())?;
        let target = snapshots.target(&snapshot)?;
        let mut source = self.parts.content.blob(&layer.blob.digest)?;
        let passed = pass(&mut source, None, None, target)?;
        let found = passed.unpacked.diff_id;
        if found != layer.diff_id {
            return Err(ImageError::DiffId { expected: layer.diff_id.clone(), found });
        }
        sync(&snapshots.layer(&snapshot)?)?;
        let layer = Layer { snapshot: snapshots.commit(snapshot)?, unsynced: None, ..layer.clone() };
        let mut batch = Batch::new();
        batch.put(chain.as_str(), &layer);
        self.parts.metadata.commit(batch)?;
        self.write().layers.insert(chain.clone(), layer);
        Ok(())
    }
}

fn sync(folder: &OwnedFd) -> Result<(), ImageError> {
    wharf_snapshot::sync(folder).map_err(|source| ImageError::Stream { action: "sync a layer", source })
}
