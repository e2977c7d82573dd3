//! Layers made here: from the difference of a snapshot into the content store, and images from configurations and
//! layers. `docker commit` and the builder stand on this.
//!
//! ```text
//! Snapshotter::difference ─▶ Images::layer (blob, diff id) ─┬─▶ Images::assemble(configuration, layers) ─▶ image
//!                            Images::layer_upon (unpacked too) ─┘        layers of a base image by their descriptors
//! ```

use std::collections::HashMap;

use wharf_archive::Difference;
use wharf_oci::image::{self as oci, Descriptor, Manifest, media_type};
use wharf_snapshot::{Snapshot, Usage};
use wharf_types::{Digest, Reference, Timestamp};

use crate::pipeline::{Produced, produce};
use crate::records::{Layer, chain_id};
use crate::store::Pins;
use crate::unpack::{Below, Fresh, Writing};
use crate::{Hold, Image, ImageError, ImageId, Images, Packing, Resolved};

/// A layer whose blob is in the content store. While this value lives the blob cannot be removed; when it is dropped
/// and no image or lease refers to the blob, the blob goes.
pub struct NewLayer {
    /// The blob: an OCI layer.
    pub blob: Descriptor,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// How many entries it has. A layer without any changes nothing, and images do without it.
    pub entries: u64,
    /// The layer unpacked, if it is.
    ready: Option<Ready>,
    /// Keeps the blob.
    _pins: Pins,
}

/// A layer directory that has no record yet.
enum Ready {
    Unpacked(Box<Fresh>),
    Given(Snapshot, Usage),
}

impl NewLayer {
    /// Says that this committed snapshot holds exactly this layer upon the layers below it, so that it need not be
    /// unpacked. The image store owns the snapshot from [`Images::assemble`] on; before, its owner stays the caller.
    #[must_use]
    pub fn with_snapshot(mut self, snapshot: Snapshot, usage: Usage) -> Self {
        self.ready = Some(Ready::Given(snapshot, usage));
        self
    }
}

impl std::fmt::Debug for NewLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewLayer({})", self.blob.digest)
    }
}

/// A layer of an image to be assembled, lowest first.
#[derive(Debug)]
pub enum Part {
    /// A layer of an image that is here: its descriptor from the manifest and its diff id from the configuration.
    Known(Descriptor, Digest),
    /// A layer that was just made.
    New(NewLayer),
}

/// An image to be assembled.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// Names to give; each gets a tag if it has none.
    pub names: Vec<Reference>,
    /// The configuration. Its `rootfs` is filled in from the layers.
    pub config: oci::Image,
    /// Annotations of the manifest.
    pub annotations: oci::Labels,
    /// The image it was made from, for `Parent` in inspect.
    pub parent: Option<ImageId>,
}

impl Images {
    /// Packs what a snapshot has that the snapshots below it have not
    /// ([`wharf_snapshot::Snapshotter::difference`]) into a blob. The snapshot should rest meanwhile; a file that
    /// shrinks while it is read is an error.
    ///
    /// The same content gives the same diff id, and with the same packing the same blob, on every machine.
    ///
    /// # Errors
    /// [`ImageError::Extract`] if the tree cannot be read, [`ImageError::Stream`] if the blob cannot be written
    /// (a full disk), [`ImageError::Content`].
    pub fn layer(&self, difference: &Difference, packing: Packing) -> Result<NewLayer, ImageError> {
        self.layer_until(difference, packing, None)
    }

    /// As [`Images::layer`], with times after `latest` written as `latest`.
    ///
    /// # Errors
    /// As [`Images::layer`].
    pub fn layer_until(
        &self,
        difference: &Difference,
        packing: Packing,
        latest: Option<wharf_archive::Time>,
    ) -> Result<NewLayer, ImageError> {
        let ingest = self.shared.parts.content.once()?;
        let produced = produce(|out| difference.pack_until(out, latest), packing, ingest, None)?;
        self.stored(produced, packing)
    }

    /// As [`Images::layer`], and unpacks the layer in the same pass upon the layers of an image (`chain` of
    /// [`Image`], its top chain id): for a tree that goes on changing, as a container's.
    ///
    /// # Errors
    /// As [`Images::layer`]; [`ImageError::Archive`] if the chain is not here.
    pub fn layer_upon(
        &self,
        chain: Option<&Digest>,
        difference: &Difference,
        packing: Packing,
    ) -> Result<NewLayer, ImageError> {
        let shared = &self.shared;
        let snapshots = shared.parts.snapshots.as_ref();
        let mut pins = Pins::new(shared);
        let lost = |chain: &Digest| ImageError::Archive(format!("layer {chain} is lost"));
        let below = match chain {
            Some(chain) => {
                let layer = pins.chain(chain).ok_or_else(|| lost(chain))?;
                Below { chain: Some(chain.clone()), snapshot: Some(layer.snapshot) }
            }
            None => Below::default(),
        };
        let snapshot = snapshots.prepare(below.snapshot.as_ref())?;
        let mut writing = Writing { snapshots, snapshot: Some(snapshot.clone()) };
        let target = snapshots.target(&snapshot)?;
        let produced = produce(|out| difference.pack(out), packing, shared.parts.content.once()?, Some(target))?;
        let usage = snapshots.usage(&snapshot)?;
        wharf_fault::point("commit.after-extract");
        let mut layer = self.stored(produced, packing)?;
        wharf_fault::point("commit.after-blob");
        writing.snapshot = None;
        let snapshot = snapshots.commit(snapshot)?;
        let record = Layer {
            snapshot,
            parent: below.chain.clone(),
            diff_id: layer.diff_id.clone(),
            blob: layer.blob.clone(),
            usage,
            unsynced: Some(shared.boot.clone()),
        };
        let chain = chain_id(below.chain.as_ref(), &layer.diff_id);
        layer.ready = Some(Ready::Unpacked(Box::new(Fresh::new(shared, chain, record))));
        Ok(layer)
    }

    fn stored(&self, produced: Produced, packing: Packing) -> Result<NewLayer, ImageError> {
        let Produced { ingest, diff_id, entries } = produced;
        let mut pins = Pins::new(&self.shared);
        let (kind, (digest, info)) = match packing {
            Packing::Plain => {
                pins.blob(&diff_id);
                (media_type::LAYER, ingest.commit_hashed(diff_id.clone(), None)?)
            }
            Packing::Gzip | Packing::Zstd => {
                let digest = ingest.digest()?;
                pins.blob(&digest);
                let gzip = packing == Packing::Gzip;
                let kind = if gzip { media_type::LAYER_GZIP } else { media_type::LAYER_ZSTD };
                (kind, ingest.commit(Some(&digest), None)?)
            }
        };
        Ok(NewLayer { blob: Descriptor::new(kind, digest, info.size), diff_id, entries, ready: None, _pins: pins })
    }

    /// Makes an image of a configuration and layers, and names it, in one commit. Layers that are not unpacked yet
    /// are unpacked. Nothing is left behind if it fails.
    ///
    /// # Errors
    /// [`ImageError::TagWithDigest`], [`ImageError::DigestAsName`], [`ImageError::DiffId`] and those of the stores.
    pub fn assemble(&self, image: NewImage, parts: Vec<Part>) -> Result<Hold, ImageError> {
        let shared = &self.shared;
        let mut pins = Pins::new(shared);
        let names = image.names.iter().map(crate::store::check_name).collect::<Result<Vec<_>, _>>()?;
        let mut config = image.config;
        let mut layers = Vec::new();
        config.rootfs = oci::RootFs::default();
        let mut below: Option<Digest> = None;
        // What keeps the blobs lives until the record is there.
        let mut kept = Vec::new();
        for part in parts {
            let (blob, diff_id) = match part {
                Part::Known(blob, diff_id) => (blob, diff_id),
                Part::New(NewLayer { blob, diff_id, ready, _pins: blobs, .. }) => {
                    kept.push(blobs);
                    let chain = chain_id(below.as_ref(), &diff_id);
                    match ready {
                        // Only if it was unpacked upon these very layers.
                        Some(Ready::Unpacked(fresh)) if fresh.chain == chain => pins.fresh.push(*fresh),
                        Some(Ready::Given(snapshot, usage)) => {
                            let record = Layer {
                                snapshot,
                                parent: below.clone(),
                                diff_id: diff_id.clone(),
                                blob: blob.clone(),
                                usage,
                                unsynced: Some(shared.boot.clone()),
                            };
                            pins.fresh.push(Fresh::new(shared, chain, record));
                        }
                        _ => {}
                    }
                    (blob, diff_id)
                }
            };
            pins.blob(&blob.digest);
            below = Some(chain_id(below.as_ref(), &diff_id));
            layers.push(blob);
            config.rootfs.diff_ids.push(diff_id);
        }
        let chain =
            shared.unpack_all(&mut pins, &mut HashMap::new(), &layers, &config.rootfs.diff_ids, &mut |_, _| {})?;
        let config_blob = self.put_json(&mut pins, media_type::CONFIG, &config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            config: config_blob.clone(),
            layers: layers.clone(),
            annotations: image.annotations,
        };
        let target = self.put_json(&mut pins, media_type::MANIFEST, &manifest)?;
        wharf_fault::point("commit.after-manifest");
        let mut blobs: Vec<Descriptor> = [target.clone(), config_blob].into_iter().chain(layers).collect();
        let mut seen = std::collections::HashSet::new();
        blobs.retain(|blob| seen.insert(blob.digest.clone()));
        let image = Image {
            id: ImageId(target.digest.clone()),
            size: blobs.iter().map(|blob| blob.size).sum(),
            target,
            manifest,
            config,
            chain,
            blobs,
            unpacked: 0,
            added: Timestamp::now(),
            parent: image.parent,
            more: Vec::new(),
        };
        let image = shared.register(image, &names, &mut pins)?;
        let found = Resolved { id: image.id.clone(), reference: names.into_iter().next() };
        self.hold_resolved(found).ok_or_else(|| ImageError::NotFound(image.id.to_string()))
    }
}
