//! Verifying what is stored: every blob against its digest, every unpacked layer against what its record says of it.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use ring::digest::{Context, SHA256};
use wharf_oci::image::Descriptor;
use wharf_types::{Digest, Reference};

use crate::records::Layer;
use crate::{ImageError, ImageId, Images};

/// Bytes of a blob that are read at once.
const PIECE: usize = 1 << 20;

/// What is wrong with a blob or a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is not what it was.
    Damaged,
}

/// What a fault is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A blob, as the images describe it.
    Blob(Box<Descriptor>),
    /// An unpacked layer, by its chain id.
    Layer(Digest),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what.
    pub subject: Subject,
    /// Which.
    pub fault: Fault,
    /// The images that have it.
    pub images: Vec<ImageId>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Layers that were looked at.
    pub layers: u64,
    /// What is wrong: blobs first, then layers, lowest first.
    pub findings: Vec<Finding>,
}

impl Images {
    /// Reads every blob that an image or a lease needs and compares its digest and size, and goes through every unpacked
    /// layer, whose entries must be as many as when it was unpacked. Holds no lock while it reads; what is removed
    /// meanwhile is no fault. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// None of single blobs or layers, which are findings.
    pub fn check(&self) -> Result<Checked, ImageError> {
        let (blobs, mut layers) = {
            let state = self.shared.read();
            let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
            for blob in state.images.values().flat_map(|image| &image.blobs) {
                blobs.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
            }
            let layers: Vec<(Digest, Layer)> = state.layers.iter().map(|(c, l)| (c.clone(), l.clone())).collect();
            (blobs, layers)
        };
        layers.sort_by_cached_key(|(chain, _)| (self.shared.depth(chain), chain.clone()));
        let mut checked = Checked::default();
        let none = HashSet::new();
        for blob in blobs.into_values() {
            checked.blobs += 1;
            checked.bytes += blob.size;
            let Some(fault) = self.fault_of(&blob) else { continue };
            if self.shared.read().needs_blob(&blob.digest, &none) {
                let images = self.images_with_blob(&blob.digest);
                checked.findings.push(Finding { subject: Subject::Blob(Box::new(blob)), fault, images });
            }
        }
        let snapshots = &self.shared.parts.snapshots;
        for (chain, layer) in layers {
            checked.layers += 1;
            let fault = match snapshots.layer(&layer.snapshot) {
                Err(_) => Fault::Missing,
                Ok(_) => match snapshots.usage(&layer.snapshot) {
                    Ok(usage) if usage.inodes == layer.usage.inodes => continue,
                    _ => Fault::Damaged,
                },
            };
            let state = self.shared.read();
            if state.layers.get(&chain).is_some_and(|now| now.snapshot == layer.snapshot) {
                let has = |image: &&std::sync::Arc<crate::Image>| state.chain(image).any(|(c, _)| *c == chain);
                let images = state.images.values().filter(has).map(|image| image.id.clone()).collect();
                checked.findings.push(Finding { subject: Subject::Layer(chain), fault, images });
            }
        }
        Ok(checked)
    }

    fn fault_of(&self, blob: &Descriptor) -> Option<Fault> {
        let Ok(mut stored) = self.shared.parts.content.blob(&blob.digest) else { return Some(Fault::Missing) };
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; PIECE];
        let mut read = 0;
        loop {
            match stored.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    context.update(&buffer[..n]);
                    read += n as u64;
                }
                // A disk that cannot read it has lost it.
                Err(_) => return Some(Fault::Damaged),
            }
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        (Digest::from_sha256(hash) != blob.digest || read != blob.size).then_some(Fault::Damaged)
    }

    fn images_with_blob(&self, blob: &Digest) -> Vec<ImageId> {
        let state = self.shared.read();
        let has = |image: &&std::sync::Arc<crate::Image>| image.blobs.iter().any(|b| b.digest == *blob);
        state.images.values().filter(has).map(|image| image.id.clone()).collect()
    }

    /// The names of an image, with tags and with digests: where its blobs may be had.
    pub fn names_of(&self, id: &ImageId) -> Vec<Reference> {
        let names = self.shared.read().names(id);
        names.tags.into_iter().chain(names.digests).collect()
    }

    /// Throws a damaged blob away, so that it can be stored again. Images go on naming it.
    ///
    /// # Errors
    /// [`ImageError::Snapshot`].
    pub fn forget_blob(&self, blob: &Digest) -> Result<(), ImageError> {
        Ok(self.shared.parts.discard(blob)?)
    }

    /// Unpacks a layer anew from its blob, in place: what stands upon it goes on standing there. A container that runs on
    /// it may see the files come and go meanwhile.
    ///
    /// # Errors
    /// [`ImageError::Archive`] if it is not known; [`ImageError::DiffId`]; those of unpacking.
    pub fn unpack_anew(&self, chain: &Digest) -> Result<(), ImageError> {
        let layer = self.shared.read().layers.get(chain).cloned();
        let layer = layer.ok_or_else(|| ImageError::Archive(format!("layer {chain} is lost")))?;
        self.shared.repair_layer(chain, &layer)
    }
}
