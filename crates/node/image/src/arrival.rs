//! Images that arrive from elsewhere piece by piece, as a pull brings them: layers are unpacked while others still come.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_content::Store;
use wharf_oci::image::{Descriptor, Platform};
use wharf_snapshot::Snapshot;
use wharf_types::{Digest, Reference};

use crate::apart::{Client, Work};
use crate::load::Candidate;
use crate::store::{Pins, Shared};
use crate::unpack::Fresh;
use crate::{Image, ImageError, ImageId, Images};

/// An image on its way in. What it protects stays until it is dropped; what no image needs then goes.
pub struct Arrival {
    shared: Arc<Shared>,
    pins: Mutex<Pins>,
    stopped: Arc<AtomicBool>,
}

/// A layer that is about to be unpacked.
#[derive(Clone, Debug)]
pub struct ArrivingLayer {
    /// The blob.
    pub blob: Descriptor,
    /// What it must unpack to.
    pub diff_id: Digest,
}

/// How far unpacking is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacking {
    /// The layer of this place begins.
    Begins(usize),
    /// It is unpacked, or was before.
    Done(usize),
}

impl Images {
    /// Begins to take an image in.
    pub fn arrival(&self) -> Arrival {
        Arrival { shared: self.shared.clone(), pins: Mutex::new(Pins::new(&self.shared)), stopped: Arc::default() }
    }

    /// The blobs, for who fetches or sends them.
    pub fn content(&self) -> &Store {
        &self.shared.parts.content
    }

    /// Names of one registry whose images have a blob: from their repositories it can be mounted into another.
    pub fn names_with(&self, domain: &str, blob: &Digest) -> Vec<Reference> {
        let state = self.shared.read();
        let has = |id: &ImageId| state.images.get(id).is_some_and(|i| i.blobs.iter().any(|b| b.digest == *blob));
        let names = state.tags.iter().filter(|(name, tag)| name.domain() == domain && has(&tag.id));
        names.map(|(name, _)| name.clone()).collect()
    }

    /// The tagged names of a repository.
    pub fn tags_of(&self, repository: &Reference) -> Vec<Reference> {
        let state = self.shared.read();
        let fits = |name: &&Reference| name.name() == repository.name() && name.tag().is_some();
        state.tags.keys().filter(fits).cloned().collect()
    }
}

struct Arriving<'a> {
    pins: &'a mut Pins,
    tell: &'a mut dyn FnMut(Unpacking),
}

impl Client for Arriving<'_> {
    fn known(&mut self, chain: &Digest) -> Option<Snapshot> {
        self.pins.chain(chain).map(|layer| layer.snapshot)
    }

    fn made(&mut self, fresh: Fresh) {
        self.pins.fresh.push(fresh);
    }

    fn tell(&mut self, step: Unpacking) {
        (self.tell)(step);
    }
}

impl Arrival {
    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Protects a blob, before it is looked for or stored. May wait for a removal.
    pub fn protect(&self, blob: &Digest) {
        self.pins().blob(blob);
    }

    /// Unpacks layers from sources that may still be growing, several at a time where the driver stacks them; `open` is
    /// called on other threads. A source whose bytes are not those of the blob's digest must end with an error: they are
    /// not hashed again. Returns the top chain id. Blocks, and so does [`Arrival::protect`] meanwhile.
    ///
    /// # Errors
    /// [`ImageError::DiffId`], [`ImageError::MediaType`], [`ImageError::Extract`], [`ImageError::Stream`] and those of
    /// the stores. Layers that were unpacked before the error are thrown away with this value.
    pub fn unpack(
        &self,
        layers: &[ArrivingLayer],
        open: &(dyn Fn(usize) -> Result<Box<dyn Read + Send>, ImageError> + Sync),
        tell: &mut dyn FnMut(Unpacking),
    ) -> Result<Option<Digest>, ImageError> {
        let mut pins = self.pins();
        let work = Work { shared: &self.shared, layers, open, stopped: &self.stopped };
        work.run(&mut HashMap::new(), &mut Arriving { pins: &mut pins, tell })
    }

    /// Set when unpacking failed or is no longer wanted: sources should end then. Who gives up an arrival sets it.
    pub fn stopped(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// Takes the image, all of whose blobs are in the store now, into the records under names, in one commit. A name
    /// with a digest and no tag is kept as such. Blocks.
    ///
    /// # Errors
    /// [`ImageError::Archive`] where blobs are missing; [`ImageError::Store`].
    pub fn finish(
        self,
        target: &Descriptor,
        platform: &Platform,
        chain: Option<Digest>,
        names: &[Reference],
    ) -> Result<Arc<Image>, ImageError> {
        let images = Images { shared: self.shared.clone() };
        let candidate = Candidate { target: target.clone(), reference: names.first().cloned() };
        let image = images.describe(&candidate, Some(platform))?;
        let mut pins = self.pins.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.shared.register(Image { chain, ..image }, names, &mut pins)
    }
}
