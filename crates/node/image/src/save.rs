//! `docker save`: an OCI layout with Docker's `manifest.json` beside it.

use std::io::Write;

use crate::{ImageError, Images};

impl Images {
    /// Writes an archive of these images (names, ids or id prefixes).
    ///
    /// # Errors
    /// [`ImageError::NotFound`] before anything is written; [`ImageError::Stream`] when the client goes away.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<(), ImageError> {
        let _ = (names, out);
        unimplemented!()
    }
}
