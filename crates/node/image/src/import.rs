//! `docker import`: a root file system as a tar stream becomes an image of one layer.

use std::io::Read;

use wharf_oci::image::Platform;
use wharf_types::Reference;

use crate::{Hold, ImageError, Images};

/// What to make of an imported tar stream.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// The name to give, if any. Without a tag it gets `latest`.
    pub reference: Option<Reference>,
    /// Dockerfile instructions that change the configuration (`--change`).
    pub changes: Vec<String>,
    /// The comment of the image's one history entry.
    pub message: String,
    /// The platform; absent means this machine's.
    pub platform: Option<Platform>,
}

impl Images {
    /// Imports a tar stream, plain or compressed by gzip or zstd, and unpacks it while it comes.
    ///
    /// # Errors
    /// [`ImageError::Change`], [`ImageError::Extract`], [`ImageError::Stream`] and those of the stores. Nothing is
    /// left behind then.
    pub fn import(&self, request: ImportRequest, body: &mut (dyn Read + Send)) -> Result<Hold, ImageError> {
        let _ = (request, body);
        unimplemented!()
    }
}
