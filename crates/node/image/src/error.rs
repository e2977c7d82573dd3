//! What can go wrong with images. Texts that clients compare are Docker's.

use std::io;

use wharf_archive::ArchiveError;
use wharf_content::ContentError;
use wharf_error::{HasKind, Kind};
use wharf_metadata::StoreError;
use wharf_snapshot::SnapshotError;
use wharf_types::{Digest, ReferenceError};

use crate::ImageId;

/// A failed operation on images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of this name or id; the text is completed by `:latest` as Docker does.
    #[error("No such image: {0}")]
    NotFound(String),
    /// An id prefix fits several images.
    #[error("ambiguous reference")]
    Ambiguous(String),
    /// The text is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name would hide ids.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    DigestAsName,
    /// A tag was given with a digest.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// Removal is not possible as asked.
    #[error("conflict: unable to delete {what} ({remedy}) - {reason}")]
    InUse {
        /// What was to be deleted, as typed.
        what: String,
        /// `must be forced` or `cannot be forced`.
        remedy: &'static str,
        /// Why.
        reason: String,
    },
    /// The image is held by an operation in flight.
    #[error("conflict: unable to delete {0} (cannot be forced) - image is being used by an operation in progress")]
    Held(String),
    /// A `--change` instruction is wrong.
    #[error("{0}")]
    Change(String),
    /// The archive holds nothing to load.
    #[error("unrecognized image format")]
    Format,
    /// A file that the archive's index names is missing from it, or its path leaves the archive.
    #[error("invalid archive: {0}")]
    Archive(String),
    /// A manifest, index or configuration does not parse.
    #[error("{what} is not valid JSON of its kind")]
    Json {
        /// What was parsed.
        what: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An unpacked layer is not what the configuration says.
    #[error("wrong diff id calculated on extraction {found:?}: expected {expected:?}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// The image is for another platform only.
    #[error("image with reference {reference} was found but does not provide the specified platform ({platform})")]
    Platform {
        /// What was asked for.
        reference: String,
        /// The platform.
        platform: String,
    },
    /// Nothing to save for the platforms asked for.
    #[error("no suitable export target found")]
    NoExport(#[source] Box<ImageError>),
    /// A layer's media type is not known.
    #[error("unsupported layer format {0:?}")]
    MediaType(String),
    /// An image without its layers' blobs cannot be saved or unpacked.
    #[error("image {id} is incomplete")]
    Incomplete {
        /// The image.
        id: ImageId,
        /// What is missing.
        source: ContentError,
    },
    /// The record of an unpacked layer is lost.
    #[error("the layers of image {0} are lost: remove it and load it again")]
    Unpacked(ImageId),
    /// Blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Layer directories.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Extracting a layer or reading an archive failed.
    #[error("failed to extract layer")]
    Extract(#[source] ArchiveError),
    /// Reading what the client sends, or writing what it gets.
    #[error("cannot {action}")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl HasKind for ImageError {
    fn kind(&self) -> Kind {
        match self {
            ImageError::NotFound(_) | ImageError::Ambiguous(_) | ImageError::Platform { .. } => Kind::NotFound,
            ImageError::InUse { .. } | ImageError::Held(_) => Kind::Conflict,
            ImageError::DigestAsName
            | ImageError::TagWithDigest
            | ImageError::Change(_)
            | ImageError::Format
            | ImageError::Archive(_)
            | ImageError::Json { .. }
            | ImageError::DiffId { .. }
            | ImageError::MediaType(_) => Kind::Invalid,
            ImageError::Incomplete { .. } | ImageError::Unpacked(_) => Kind::DataLoss,
            ImageError::NoExport(_) => Kind::NotFound,
            ImageError::Reference(e) => e.kind(),
            ImageError::Content(e) => e.kind(),
            ImageError::Store(e) => e.kind(),
            ImageError::Snapshot(e) => e.kind(),
            ImageError::Extract(e) => e.kind(),
            ImageError::Stream { .. } => Kind::System,
        }
    }
}
