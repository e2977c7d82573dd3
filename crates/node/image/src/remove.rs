//! Removing: names first, the image with its last name, then what nothing refers to any more.

use crate::{Filters, ImageError, ImageId, Images};

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Remove all names of an id, and the image although stopped containers use it.
    pub force: bool,
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// One thing that was removed, in order; the engine makes an event of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name, familiar form.
    Untagged {
        /// The name.
        name: String,
        /// The image it pointed to.
        id: ImageId,
    },
    /// An image.
    Deleted(ImageId),
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was removed.
    pub removed: Vec<Removed>,
    /// Bytes freed.
    pub reclaimed: u64,
}

impl Images {
    /// Removes by name (untags, and deletes with the last name) or by id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::InUse`], [`ImageError::Held`].
    pub fn remove(
        &self,
        text: &str,
        options: RemoveOptions,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Vec<Removed>, ImageError> {
        let _ = (text, options, users);
        unimplemented!()
    }

    /// Removes images that no container uses: those without a name, or with `dangling` = false all.
    ///
    /// # Errors
    /// Those of the stores; images that are in use are passed over.
    pub fn prune(&self, filters: &Filters, users: &dyn Fn(&ImageId) -> Vec<User>) -> Result<Pruned, ImageError> {
        let _ = (filters, users);
        unimplemented!()
    }
}
