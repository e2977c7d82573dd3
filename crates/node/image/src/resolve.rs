//! From what a person typed to an image.

use wharf_types::Reference;

use crate::{ImageError, ImageId, Images};

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The image.
    pub id: ImageId,
    /// The name by which it was found; absent when found by id.
    pub reference: Option<Reference>,
}

impl Images {
    /// Finds an image by name, `name@digest`, id or id prefix. `wharf/hello` is made when it is first asked for.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] (`No such image: x:latest`), [`ImageError::Ambiguous`], [`ImageError::Reference`].
    pub fn resolve(&self, text: &str) -> Result<Resolved, ImageError> {
        let _ = text;
        unimplemented!()
    }
}
