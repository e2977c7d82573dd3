//! `docker load`: archives of images, in Docker's form and as OCI layouts.

use std::io::Read;

use wharf_oci::image::Platform;
use wharf_types::Reference;

use crate::{ImageError, ImageId, Images};

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// Bytes of a layer unpacked.
    Layer {
        /// The short diff id, as Docker shows it.
        id: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An image is complete; the text is Docker's line.
    Line(String),
}

/// One image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// Its name, if the archive gave one.
    pub reference: Option<Reference>,
}

impl Images {
    /// Loads every image of an archive (plain, gzip or zstd).
    ///
    /// # Errors
    /// [`ImageError::Format`], [`ImageError::Archive`], [`ImageError::DiffId`] and those of the stores.
    pub fn load(
        &self,
        body: &mut (dyn Read + Send),
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Loaded>, ImageError> {
        let _ = (body, platform, progress);
        unimplemented!()
    }
}
