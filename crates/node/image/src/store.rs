//! The image store: its parts, its records and what protects work in flight.

use std::collections::HashSet;
use std::sync::Arc;

use wharf_snapshot::{Snapshot, Snapshotter};
use wharf_types::Reference;

use crate::{Image, ImageError, ImageId, Resolved};

/// What the image store is made of.
pub struct Parts {
    /// Records.
    pub metadata: Arc<wharf_metadata::Store>,
    /// Blobs.
    pub content: wharf_content::Store,
    /// Layer directories.
    pub snapshots: Arc<dyn Snapshotter>,
}

/// All images of one daemon. Share it by `Arc`; calls block and belong on blocking threads, but those that only look
/// something up ([`Images::resolve`], [`Images::get`], [`Images::list`], [`Images::inspect`]) work on memory.
pub struct Images {
    #[allow(dead_code)]
    parts: Parts,
}

/// An image that cannot be removed while this value lives. Take it before a container's record names the image and
/// drop it when the record is committed and visible to the `users` of [`Images::remove`].
pub struct Hold {
    /// The image.
    pub image: Arc<Image>,
    /// The name by which it was found or that it got.
    pub reference: Option<Reference>,
}

impl Images {
    /// Reads the records and finishes or undoes what a crash interrupted.
    ///
    /// # Errors
    /// [`ImageError::Store`], [`ImageError::Content`].
    pub fn open(parts: Parts) -> Result<Self, ImageError> {
        Ok(Self { parts })
    }

    /// An image by its id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub fn get(&self, id: &ImageId) -> Result<Arc<Image>, ImageError> {
        let _ = id;
        unimplemented!()
    }

    /// Resolves and protects an image in one step.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn hold(&self, text: &str) -> Result<Hold, ImageError> {
        let _ = text;
        unimplemented!()
    }

    /// The committed snapshot of an image's layers, to prepare a container's upon; `None` for an image without
    /// layers. An image whose layers are not unpacked is unpacked now.
    ///
    /// # Errors
    /// [`ImageError::Incomplete`], [`ImageError::Extract`], [`ImageError::Snapshot`].
    pub fn snapshot(&self, image: &Image) -> Result<Option<Snapshot>, ImageError> {
        let _ = image;
        unimplemented!()
    }

    /// The numbers of all snapshots that images own, for [`Snapshotter::reconcile`].
    pub fn snapshot_numbers(&self) -> HashSet<u64> {
        unimplemented!()
    }

    /// Gives an image another name; an image that had it loses it. Returns the image found.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Reference`], [`ImageError::TagWithDigest`], [`ImageError::DigestAsName`].
    pub fn tag(&self, source: &str, name: &Reference) -> Result<Resolved, ImageError> {
        let _ = (source, name);
        unimplemented!()
    }
}
