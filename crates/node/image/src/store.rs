//! The image store: its parts, its state and what protects work in flight.
//!
//! Locks, in this order: `changes` is held while a change is decided, committed and its files removed, so changes
//! come one after another; `state` is what readers see and is never held over disk access.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wharf_metadata::{Batch, Table};
use wharf_snapshot::{Snapshot, SnapshotError, Snapshotter, Trash};
use wharf_types::{Digest, Reference, Timestamp};

use crate::data::Names;
use crate::lease::Lease;
use crate::records::{Layer, Tag};
use crate::unpack::{Fresh, Unsynced};
use crate::{Image, ImageError, ImageId, Resolved};

/// What the image store is made of.
pub struct Parts {
    /// Records.
    pub metadata: Arc<wharf_metadata::Store>,
    /// Blobs.
    pub content: wharf_content::Store,
    /// Layer directories.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Where blobs go that nobody needs: to unlink a large file takes the file system long.
    pub trash: Arc<Trash>,
}

impl Parts {
    /// Throws a blob away.
    pub(crate) fn discard(&self, blob: &Digest) -> Result<(), SnapshotError> {
        self.trash.discard(&self.content.place(blob))
    }
}

/// How long an unfinished pull can be gone on with, as containerd's leases of pulls last.
const UNFINISHED: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// All images of one daemon. Share it by `Arc`; calls block and belong on blocking threads, but those that only look
/// something up ([`Images::resolve`], [`Images::get`], [`Images::list`], [`Images::inspect`]) work on memory.
pub struct Images {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) boot: String,
    changes: Mutex<()>,
    state: RwLock<State>,
    /// Layers whose files are to be brought to disk.
    pub(crate) unsynced: Mutex<Unsynced>,
}

/// What is in the records, and what is in flight.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<ImageId, Arc<Image>>,
    pub(crate) tags: BTreeMap<Reference, Tag>,
    pub(crate) layers: HashMap<Digest, Layer>,
    /// What outlives this daemon without an image, by key.
    pub(crate) leases: BTreeMap<String, Lease>,
    /// Blobs and chains that an operation in flight counts on.
    pins: HashMap<Digest, usize>,
    /// Images that must not be removed now.
    holds: HashMap<ImageId, usize>,
    /// Images whose removal is being committed.
    pub(crate) leaving: HashSet<ImageId>,
}

impl State {
    /// The names of all images that have any: of many images at once, because each name is looked at only once.
    pub(crate) fn all_names(&self) -> HashMap<&ImageId, Names> {
        let mut of: HashMap<&ImageId, Vec<&Reference>> = HashMap::new();
        for (name, tag) in &self.tags {
            of.entry(&tag.id).or_default().push(name);
        }
        of.into_iter().map(|(id, names)| (id, names_of(id, names.into_iter().cloned()))).collect()
    }

    /// The names of an image.
    pub(crate) fn names(&self, id: &ImageId) -> Names {
        names_of(id, self.tags.iter().filter(|(_, tag)| tag.id == *id).map(|(name, _)| name.clone()))
    }

    pub(crate) fn held(&self, id: &ImageId) -> bool {
        self.holds.contains_key(id)
    }

    /// The chain ids of an image's layers, top first, then those of its other platforms; some may come twice.
    pub(crate) fn chain<'s>(&'s self, image: &'s Image) -> impl Iterator<Item = (&'s Digest, &'s Layer)> {
        image.chain.iter().chain(&image.more).flat_map(|top| self.downwards(Some(top)))
    }

    /// A layer and those below it.
    pub(crate) fn downwards<'s>(&'s self, top: Option<&'s Digest>) -> impl Iterator<Item = (&'s Digest, &'s Layer)> {
        let mut next = top;
        std::iter::from_fn(move || {
            let chain = next?;
            let layer = self.layers.get(chain)?;
            next = layer.parent.as_ref();
            Some((chain, layer))
        })
    }

    /// Whether anything but the images in `without` needs a blob.
    pub(crate) fn needs_blob(&self, blob: &Digest, without: &HashSet<ImageId>) -> bool {
        let of_image = |image: &Arc<Image>| image.blobs.iter().any(|b| b.digest == *blob);
        self.pins.contains_key(blob)
            || self.images.values().any(|i| !without.contains(&i.id) && of_image(i))
            || self.leases.values().any(|lease| lease.blobs.contains(blob))
    }

    /// Whether anything but the images in `without` needs a layer.
    pub(crate) fn needs_chain(&self, chain: &Digest, without: &HashSet<ImageId>) -> bool {
        let of_image = |image: &Arc<Image>| self.chain(image).any(|(c, _)| c == chain);
        let of_lease =
            |lease: &Lease| lease.chains.iter().any(|top| self.downwards(Some(top)).any(|(c, _)| c == chain));
        self.pins.contains_key(chain)
            || self.images.values().any(|i| !without.contains(&i.id) && of_image(i))
            || self.leases.values().any(of_lease)
    }
}

fn names_of(id: &ImageId, tagged: impl Iterator<Item = Reference>) -> Names {
    let (digests, tags): (Vec<_>, Vec<_>) = tagged.partition(|name| name.tag().is_none());
    let mut digests: Vec<_> =
        digests.into_iter().chain(tags.iter().map(|name| name.with_digest(id.0.clone()))).collect();
    digests.sort();
    digests.dedup();
    Names { tags, digests }
}

/// An image that cannot be removed while this value lives. Take it before a container's record names the image and
/// drop it when the record is committed and visible to the `users` of [`Images::remove`].
pub struct Hold {
    /// The image.
    pub image: Arc<Image>,
    /// The name by which it was found or that it got.
    pub reference: Option<Reference>,
    /// The id under which it is held: that of the whole image, whatever part of it `image` tells of.
    held: ImageId,
    shared: Arc<Shared>,
}

impl Hold {
    /// Tells of the image as it is for one platform; what is held stays.
    pub(crate) fn replace(&mut self, image: Image) {
        self.image = Arc::new(image);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        release(&mut self.shared.write().holds, &self.held);
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hold({:?})", self.image.id)
    }
}

fn release<K: std::hash::Hash + Eq + Clone>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Blobs and layers of one operation in flight. What no image needs when it is dropped is removed again, so an
/// operation that fails leaves nothing.
pub(crate) struct Pins {
    shared: Arc<Shared>,
    blobs: Vec<Digest>,
    chains: Vec<Digest>,
    pub(crate) fresh: Vec<Fresh>,
}

impl Pins {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), blobs: Vec::new(), chains: Vec::new(), fresh: Vec::new() }
    }

    /// Protects a blob, before it is looked for or stored.
    pub(crate) fn blob(&mut self, digest: &Digest) {
        // Waits for a removal that may be deleting this very blob.
        let _changes = self.shared.changes();
        *self.shared.write().pins.entry(digest.clone()).or_default() += 1;
        self.blobs.push(digest.clone());
    }

    /// Protects a layer, and returns its record if it is there already.
    pub(crate) fn chain(&mut self, chain: &Digest) -> Option<Layer> {
        let _changes = self.shared.changes();
        let mut state = self.shared.write();
        *state.pins.entry(chain.clone()).or_default() += 1;
        self.chains.push(chain.clone());
        state.layers.get(chain).cloned()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _changes = self.shared.changes();
        let none = HashSet::new();
        let (mut blobs, mut chains) = (Vec::new(), Vec::new());
        {
            let mut state = self.shared.write();
            for digest in self.blobs.iter().chain(&self.chains) {
                release(&mut state.pins, digest);
            }
            blobs.extend(self.blobs.drain(..).filter(|blob| !state.needs_blob(blob, &none)));
            chains.extend(self.chains.drain(..).filter(|chain| !state.needs_chain(chain, &none)));
        }
        // Only layers with a record matter here; others are in `fresh` and throw themselves away.
        self.shared.discard(&blobs, &chains);
    }
}

impl Shared {
    pub(crate) fn changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while the lock is held cannot leave the state inconsistent: changes are applied by plain inserts and
    /// removes after the commit.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes blobs and layers that nobody needs. `changes` is held. Failures are logged: what stays is found when
    /// the daemon starts.
    pub(crate) fn discard(&self, blobs: &[Digest], chains: &[Digest]) {
        for blob in blobs {
            if let Err(error) = self.parts.discard(blob) {
                tracing::warn!(%error, %blob, "cannot remove a blob that no image needs");
            }
        }
        let known: Vec<Layer> = {
            let mut state = self.write();
            chains.iter().filter_map(|chain| state.layers.remove(chain)).collect()
        };
        if known.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        for chain in chains {
            batch.remove(Table::Snapshots, chain.as_str());
        }
        if let Err(error) = self.parts.metadata.commit(batch) {
            tracing::warn!(%error, "cannot forget layers that no image needs");
        }
        for layer in known {
            if let Err(error) = self.parts.snapshots.remove(&layer.snapshot) {
                tracing::warn!(%error, "cannot remove a layer that no image needs");
            }
        }
    }
}

impl Images {
    /// Reads the records and finishes or undoes what a crash interrupted: names without image, layers and blobs that
    /// no image needs and half-written blobs go; layers that may have lost writes in a power cut are unpacked anew.
    ///
    /// # Errors
    /// [`ImageError::Store`], [`ImageError::Content`].
    pub fn open(parts: Parts) -> Result<Self, ImageError> {
        // Unknown means that every layer not known to be synced is unpacked anew.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let mut state = State::default();
        let view = parts.metadata.view()?;
        for (_, image) in view.all::<Image>()? {
            state.images.insert(image.id.clone(), Arc::new(image));
        }
        let mut gone = Batch::new();
        for (name, tag) in view.all::<Tag>()? {
            match Reference::parse(&name) {
                Ok(name) if state.images.contains_key(&tag.id) => drop(state.tags.insert(name, tag)),
                _ => drop(gone.remove(Table::Tags, &name)),
            }
        }
        for (chain, layer) in view.all::<Layer>()? {
            match Digest::parse(&chain) {
                Ok(chain) => drop(state.layers.insert(chain, layer)),
                Err(_) => drop(gone.remove(Table::Snapshots, &chain)),
            }
        }
        state.leases = view.all::<Lease>()?.into_iter().collect();
        drop(view);
        let tops = state.images.values().filter_map(|image| image.chain.as_ref());
        let tops = tops.chain(state.images.values().flat_map(|image| &image.more));
        let tops = tops.chain(state.leases.values().flat_map(|lease| &lease.chains));
        let needed: HashSet<Digest> =
            tops.flat_map(|top| state.downwards(Some(top)).map(|(chain, _)| chain.clone())).collect();
        state.layers.retain(|chain, _| {
            let keep = needed.contains(chain);
            if !keep {
                gone.remove(Table::Snapshots, chain.as_str());
            }
            keep
        });
        if !gone.is_empty() {
            parts.metadata.commit(gone)?;
        }
        // What a pull has fetched is kept for the next one.
        parts.content.sweep(UNFINISHED)?;
        let blobs: HashSet<&Digest> =
            state.images.values().flat_map(|image| image.blobs.iter().map(|blob| &blob.digest)).collect();
        let leased: HashSet<&Digest> = state.leases.values().flat_map(|lease| &lease.blobs).collect();
        for (blob, _) in parts.content.walk()? {
            if !blobs.contains(&blob) && !leased.contains(&blob) {
                parts.discard(&blob)?;
            }
        }
        let shared = Arc::new(Shared {
            parts,
            boot,
            changes: Mutex::new(()),
            state: RwLock::new(state),
            unsynced: Mutex::default(),
        });
        shared.repair();
        let of_this_boot = |layer: &Layer| layer.unsynced.as_ref().is_some_and(|boot| *boot == shared.boot);
        let left = shared.read().layers.iter().filter(|(_, l)| of_this_boot(l)).map(|(c, _)| c.clone()).collect();
        shared.sync_later(left);
        Ok(Self { shared })
    }

    /// An image by its id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub fn get(&self, id: &ImageId) -> Result<Arc<Image>, ImageError> {
        self.shared.read().images.get(id).cloned().ok_or_else(|| ImageError::NotFound(id.to_string()))
    }

    /// Resolves and protects an image in one step.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn hold(&self, text: &str) -> Result<Hold, ImageError> {
        let found = self.resolve(text)?;
        self.hold_resolved(found).ok_or_else(|| ImageError::NotFound(text.to_owned()))
    }

    pub(crate) fn hold_resolved(&self, found: Resolved) -> Option<Hold> {
        let mut state = self.shared.write();
        let image = state.images.get(&found.id).filter(|image| !state.leaving.contains(&image.id)).cloned()?;
        *state.holds.entry(found.id).or_default() += 1;
        Some(Hold { held: image.id.clone(), image, reference: found.reference, shared: self.shared.clone() })
    }

    /// The committed snapshot of an image's layers, to prepare a container's upon; `None` for an image without
    /// layers.
    ///
    /// # Errors
    /// [`ImageError::Unpacked`] if a layer's record is lost.
    pub fn snapshot(&self, image: &Image) -> Result<Option<Snapshot>, ImageError> {
        let Some(chain) = &image.chain else { return Ok(None) };
        let state = self.shared.read();
        let layer = state.layers.get(chain).ok_or_else(|| ImageError::Unpacked(image.id.clone()))?;
        Ok(Some(layer.snapshot.clone()))
    }

    /// The numbers of all snapshots that images own, for [`Snapshotter::reconcile`].
    pub fn snapshot_numbers(&self) -> HashSet<u64> {
        self.shared.read().layers.values().map(|layer| layer.snapshot.number).collect()
    }

    /// Gives an image another name; an image that had it loses it. Returns the image found.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Reference`], [`ImageError::TagWithDigest`],
    /// [`ImageError::DigestAsName`].
    pub fn tag(&self, source: &str, name: &Reference) -> Result<Resolved, ImageError> {
        let name = check_name(name)?;
        let found = self.resolve(source)?;
        let hold = self.hold_resolved(found).ok_or_else(|| ImageError::NotFound(source.to_owned()))?;
        let tag = Tag { id: hold.image.id.clone(), tagged: Timestamp::now() };
        let _changes = self.shared.changes();
        let mut batch = Batch::new();
        batch.put(&name.to_string(), &tag);
        self.shared.parts.metadata.commit(batch)?;
        wharf_fault::point("tag.after-commit");
        self.shared.write().tags.insert(name.clone(), tag);
        Ok(Resolved { id: hold.image.id.clone(), reference: Some(name) })
    }
}

/// Completes a name that an image is to get, and refuses those that Docker refuses.
pub(crate) fn check_name(name: &Reference) -> Result<Reference, ImageError> {
    if name.digest().is_some() {
        return Err(ImageError::TagWithDigest);
    }
    if name.familiar_name() == "sha256" {
        return Err(ImageError::DigestAsName);
    }
    Ok(name.clone().with_default_tag())
}
