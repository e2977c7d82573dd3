//! Listing, inspecting and history.

use wharf_types::Timestamp;

use crate::{Details, HistoryEntry, ImageError, Images, Summary};

/// Filters of `docker images`. Values of one filter are alternatives unless said otherwise; filters are combined.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Only images without (`true`) or with (`false`) a tag.
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must fit.
    pub label: Vec<String>,
    /// `key` or `key=value`; none may fit (`label!`).
    pub label_not: Vec<String>,
    /// Images made before these.
    pub before: Vec<String>,
    /// Images made after these.
    pub since: Vec<String>,
    /// Patterns of references (`path.Match`).
    pub reference: Vec<String>,
    /// Images made before this moment.
    pub until: Option<Timestamp>,
}

impl Images {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] for `before` and `since`; [`ImageError::Store`].
    pub fn list(&self, filters: &Filters) -> Result<Vec<Summary>, ImageError> {
        let _ = filters;
        unimplemented!()
    }

    /// Tells all of one image.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], [`ImageError::Reference`].
    pub fn inspect(&self, text: &str) -> Result<Details, ImageError> {
        let _ = text;
        unimplemented!()
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    /// As [`Images::inspect`].
    pub fn history(&self, text: &str) -> Result<Vec<HistoryEntry>, ImageError> {
        let _ = text;
        unimplemented!()
    }
}
