//! Unpacking layers into snapshots by chain id, and taking whole images into the records.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use wharf_archive::Compression;
use wharf_content::Ingest;
use wharf_metadata::Batch;
use wharf_oci::image::{Descriptor, media_type};
use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::{Digest, Reference, Timestamp};

use crate::import::this_platform;
use crate::load::fits;
use crate::pipeline::{Passed, pass};
use crate::records::{Layer, Tag, chain_id};
use crate::store::{Pins, Shared};
use crate::{Image, ImageError};

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

    /// Its directory; `None` once it is taken.
    fn snapshot(&self) -> Option<Snapshot> {
        self.layer.as_ref().map(|layer| layer.snapshot.clone())
    }

    /// The blob it was unpacked from; `None` once it is taken.
    pub(crate) fn blob(&self) -> Option<Descriptor> {
        self.layer.as_ref().map(|layer| layer.blob.clone())
    }

    /// The directory, for the layer above; `None` once it is taken.
    pub(crate) fn directory(&self) -> Option<Snapshot> {
        self.layer.as_ref().map(|layer| layer.snapshot.clone())
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

/// The layer below the one to unpack.
#[derive(Clone, Default)]
pub(crate) struct Below {
    pub(crate) chain: Option<Digest>,
    pub(crate) snapshot: Option<Snapshot>,
}

/// Passes a source through the pipeline into a new snapshot upon `below`.
pub(crate) fn unpack(
    shared: &Shared,
    source: &mut (dyn Read + Send),
    ingest: Option<Ingest>,
    below: &Below,
    blob: impl FnOnce(&mut Passed) -> Result<Descriptor, ImageError>,
) -> Result<Fresh, ImageError> {
    unpack_known(shared, source, ingest, None, below, blob)
}

/// As [`unpack`], of a source whose bytes are verified elsewhere to have a digest, where one is given.
pub(crate) fn unpack_known(
    shared: &Shared,
    source: &mut (dyn Read + Send),
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
    let chain = chain_id(below.chain.as_ref(), &passed.diff_id);
    let layer = Layer {
        snapshot,
        parent: below.chain.clone(),
        diff_id: passed.diff_id,
        blob,
        usage,
        unsynced: Some(shared.boot.clone()),
    };
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

impl Shared {
    /// Unpacks the layers of an image that are not unpacked yet, lowest first. Returns the top chain id.
    pub(crate) fn unpack_all(
        &self,
        pins: &mut Pins,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        done: &mut dyn FnMut(&Digest, u64),
    ) -> Result<Option<Digest>, ImageError> {
        let mut below = Below::default();
        for (blob, diff_id) in layers.iter().zip(diff_ids) {
            let chain = chain_id(below.chain.as_ref(), diff_id);
            let known = pins.chain(&chain).map(|layer| layer.snapshot);
            // One that was just made here has no record yet.
            let known = known.or_else(|| pins.fresh.iter().find(|f| f.chain == chain).and_then(Fresh::snapshot));
            let ready = match known {
                Some(snapshot) => snapshot,
                None => {
                    let layer = self.unpack_blob(blob, diff_id, &below)?;
                    let snapshot = layer.snapshot();
                    pins.fresh.push(layer);
                    done(diff_id, blob.size);
                    // Just made above.
                    snapshot.ok_or_else(|| ImageError::Archive(format!("layer {diff_id} is lost")))?
                }
            };
            below = Below { chain: Some(chain), snapshot: Some(ready) };
        }
        Ok(below.chain)
    }

    fn unpack_blob(&self, blob: &Descriptor, diff_id: &Digest, below: &Below) -> Result<Fresh, ImageError> {
        if !known_layer(&blob.media_type) {
            return Err(ImageError::MediaType(blob.media_type.clone()));
        }
        let mut source = self.parts.content.blob(&blob.digest)?;
        // A stored blob was verified when it came.
        unpack_known(self, &mut source, None, Some(&blob.digest), below, |passed| {
            if passed.diff_id != *diff_id {
                return Err(ImageError::DiffId { expected: diff_id.clone(), found: passed.diff_id.clone() });
            }
            Ok(blob.clone())
        })
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
    /// so until then a power cut costs unpacking anew, and nothing is lost.
    fn sync_later(self: &Arc<Self>, chains: Vec<Digest>) {
        if chains.is_empty() {
            return;
        }
        let shared = Arc::downgrade(self);
        let sync = move || {
            let Some(shared) = shared.upgrade() else { return };
            if let Err(error) = shared.sync_layers(&chains) {
                tracing::warn!(%error, "cannot sync new layers; they are unpacked anew after a power cut");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("layer-sync".to_owned()).spawn(sync) {
            tracing::warn!(%error, "cannot start syncing new layers");
        }
    }

    pub(crate) fn sync_layers(&self, chains: &[Digest]) -> Result<(), ImageError> {
        let layers = chains.iter().filter_map(|chain| self.read().layers.get(chain).cloned());
        let Some(any) = layers.last() else { return Ok(()) };
        sync(&self.parts.snapshots.layer(&any.snapshot)?)?;
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
        if passed.diff_id != layer.diff_id {
            return Err(ImageError::DiffId { expected: layer.diff_id.clone(), found: passed.diff_id });
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
    rustix::fs::syncfs(folder)
        .map_err(|e| ImageError::Stream { action: "sync the file system of the layers", source: e.into() })
}
