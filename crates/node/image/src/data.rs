//! Images as data: what is stored of them and what is told of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_oci::image as oci;
use wharf_types::{Digest, Reference, Timestamp};

use crate::ManifestSummary;

/// The id of an image: the digest of what its names point to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// The whole id, `sha256:…`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The first 12 hexadecimal digits, as Docker shows ids.
    pub fn short(&self) -> &str {
        &self.0.hex()[..12]
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageId({})", self.short())
    }
}

/// One image with what is needed to run it. Immutable; shared by `Arc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// What names point to: the manifest.
    pub target: oci::Descriptor,
    /// The manifest.
    pub manifest: oci::Manifest,
    /// The configuration.
    pub config: oci::Image,
    /// The chain id of the unpacked layers; absent for an image without layers.
    pub chain: Option<Digest>,
    /// Every blob that belongs to it, each once: manifests, configurations, layers.
    pub blobs: Vec<oci::Descriptor>,
    /// Bytes of those blobs: the size that `image inspect` shows.
    pub size: u64,
    /// Bytes of its unpacked layers. `docker images` shows this and [`Image::size`] together.
    pub unpacked: u64,
    /// When it came into this store.
    pub added: Timestamp,
    /// Top chain ids of other platforms of the same index that are unpacked, too.
    #[serde(default)]
    pub more: Vec<Digest>,
    /// The image it was made from, where it was made here by `commit` or a build.
    #[serde(default)]
    pub parent: Option<ImageId>,
}

/// The names of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Names with a tag, sorted.
    pub tags: Vec<Reference>,
    /// Names with the digest, sorted.
    pub digests: Vec<Reference>,
}

/// What `image inspect` tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// The image.
    pub image: std::sync::Arc<Image>,
    /// Its names.
    pub names: Names,
    /// When it was last tagged.
    pub last_tagged: Option<Timestamp>,
    /// Bytes of its blobs: of an index, those of the platform that is told of.
    pub size: u64,
}

/// One line of `docker images`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The image.
    pub image: std::sync::Arc<Image>,
    /// Its names.
    pub names: Names,
    /// Bytes of blobs and unpacked layers, of all its manifests.
    pub total: u64,
    /// Bytes of unpacked layers that other images have, too; where it was asked for.
    pub shared: Option<u64>,
    /// Its manifests, where they were asked for.
    pub manifests: Vec<ManifestSummary>,
}

/// One line of `docker history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id in the first line, `<missing>` in the others.
    pub id: String,
    /// When, in seconds since the epoch.
    pub created: i64,
    /// What was done.
    pub created_by: String,
    /// The familiar tags of the image, in the first line.
    pub tags: Vec<String>,
    /// Bytes that the step added when unpacked.
    pub size: u64,
    /// Its comment.
    pub comment: String,
}
