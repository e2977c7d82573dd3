//! Indexes: what manifests an image has, which of them is for a platform, and what each takes of the disk.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use wharf_oci::image::{self as oci, Descriptor, Index, Manifest, Platform, media_type};
use wharf_types::Digest;

use crate::load::{DEPTH, JSON_LIMIT, fits};
use crate::records::chain_id;
use crate::store::{Pins, State};
use crate::{Hold, Image, ImageError, Images};

/// Marks of attestations in an index (BuildKit, docs/attestations/attestation-storage.md).
const KIND: &str = "vnd.docker.reference.type";
const OF: &str = "vnd.docker.reference.digest";

/// What a manifest of an index is.
#[derive(Clone, Debug, PartialEq)]
pub enum ManifestKind {
    /// An image for a platform.
    Image {
        /// The platform.
        platform: Platform,
        /// Bytes of its unpacked layers, as far as they are unpacked.
        unpacked: u64,
    },
    /// Statements about another manifest of the same index.
    Attestation {
        /// That manifest.
        of: String,
    },
    /// Something else.
    Unknown,
}

/// One manifest of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestSummary {
    /// Its descriptor, as the index has it.
    pub descriptor: Descriptor,
    /// Whether it and everything it names is here.
    pub available: bool,
    /// Bytes of what is here: the manifest, its configuration, its layers.
    pub content: u64,
    /// What it is.
    pub kind: ManifestKind,
}

impl ManifestSummary {
    /// Bytes of blobs and unpacked layers.
    pub fn total(&self) -> u64 {
        match self.kind {
            ManifestKind::Image { unpacked, .. } => self.content + unpacked,
            ManifestKind::Attestation { .. } | ManifestKind::Unknown => self.content,
        }
    }
}

/// A manifest with its configuration, all of it here.
pub(crate) struct Found {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) config: oci::Image,
}

impl Found {
    /// The chain id of its layers.
    pub(crate) fn chain(&self) -> Option<Digest> {
        let ids = self.config.rootfs.diff_ids.iter();
        ids.fold(None, |below: Option<Digest>, id| Some(chain_id(below.as_ref(), id)))
    }
}

/// Bytes of a layer and those below it, unpacked.
pub(crate) fn unpacked(state: &State, chain: Option<&Digest>) -> u64 {
    state.downwards(chain).map(|(_, layer)| layer.usage.bytes).sum()
}

impl Images {
    fn read<T: DeserializeOwned>(&self, digest: &Digest, what: &str) -> Result<T, ImageError> {
        let bytes = self.shared.parts.content.read(digest, JSON_LIMIT)?;
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Json { what: what.to_owned(), source })
    }

    /// The manifests of an image in the index's order; one for an image without an index. Reads blobs.
    ///
    /// # Errors
    /// [`ImageError::Content`], [`ImageError::Json`].
    pub fn manifests_of(&self, image: &Image) -> Result<Vec<ManifestSummary>, ImageError> {
        let mut all = Vec::new();
        self.collect(&image.target, DEPTH, &mut all)?;
        all.into_iter().map(|descriptor| self.summary(descriptor)).collect()
    }

    fn collect(&self, target: &Descriptor, depth: usize, all: &mut Vec<Descriptor>) -> Result<(), ImageError> {
        let is_index = matches!(target.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX);
        if !is_index || depth == 0 || self.shared.parts.content.info(&target.digest)?.is_none() {
            all.push(target.clone());
            return Ok(());
        }
        let index: Index = self.read(&target.digest, "an index")?;
        index.manifests.iter().try_for_each(|inner| self.collect(inner, depth - 1, all))
    }

    fn summary(&self, mut descriptor: Descriptor) -> Result<ManifestSummary, ImageError> {
        let content = &self.shared.parts.content;
        let size = |blob: &Descriptor| content.info(&blob.digest).map(|info| info.map(|_| blob.size));
        let attested = descriptor.annotations.get(KIND).is_some_and(|kind| kind == "attestation-manifest");
        let of = descriptor.annotations.get(OF).cloned().unwrap_or_default();
        let attestation = attested.then_some(ManifestKind::Attestation { of });
        let Some(own) = size(&descriptor)? else {
            // What kind of image it is, only the index can tell.
            let image = descriptor.platform.clone().map(|platform| ManifestKind::Image { platform, unpacked: 0 });
            let kind = attestation.or(image).unwrap_or(ManifestKind::Unknown);
            return Ok(ManifestSummary { descriptor, available: false, content: 0, kind });
        };
        let manifest: Manifest = self.read(&descriptor.digest, "a manifest")?;
        let (mut bytes, mut available) = (own, true);
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let here = size(part)?;
            available &= here.is_some();
            bytes += here.unwrap_or(0);
        }
        let is_image = matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG);
        let kind = match attestation {
            Some(kind) => kind,
            None if is_image && size(&manifest.config)?.is_some() => {
                let config: oci::Image = self.read(&manifest.config.digest, "an image configuration")?;
                let found = Found { descriptor: descriptor.clone(), manifest, config };
                let unpacked = unpacked(&self.shared.read(), found.chain().as_ref());
                let platform = descriptor.platform.clone().unwrap_or(found.config.platform);
                descriptor.platform = Some(platform.clone());
                ManifestKind::Image { platform, unpacked }
            }
            None => ManifestKind::Unknown,
        };
        Ok(ManifestSummary { descriptor, available, content: bytes, kind })
    }

    /// The manifest of an image for a platform, if it is here as a whole.
    ///
    /// # Errors
    /// [`ImageError::Platform`], and those of reading.
    pub(crate) fn manifest_for(&self, image: &Image, wanted: &Platform, name: &str) -> Result<Found, ImageError> {
        let none = || ImageError::Platform { reference: name.to_owned(), platform: platform_text(wanted) };
        let all = self.manifests_of(image)?;
        let fitting = all.into_iter().find(|manifest| match &manifest.kind {
            ManifestKind::Image { platform, .. } => manifest.available && fits(platform, wanted),
            ManifestKind::Attestation { .. } | ManifestKind::Unknown => false,
        });
        let descriptor = fitting.ok_or_else(none)?.descriptor;
        let manifest: Manifest = self.read(&descriptor.digest, "a manifest")?;
        let config = self.read(&manifest.config.digest, "an image configuration")?;
        Ok(Found { descriptor, manifest, config })
    }

    /// An image as it is for one platform: its manifest, configuration and layers, under the id of the whole. Reads
    /// blobs; unpacks nothing.
    ///
    /// # Errors
    /// [`ImageError::Platform`].
    pub fn for_platform(&self, image: &Arc<Image>, wanted: &Platform, name: &str) -> Result<Arc<Image>, ImageError> {
        let found = self.manifest_for(image, wanted, name)?;
        if found.manifest == image.manifest {
            return Ok(image.clone());
        }
        let chain = found.chain();
        let unpacked = unpacked(&self.shared.read(), chain.as_ref());
        let Found { manifest, config, .. } = found;
        Ok(Arc::new(Image { manifest, config, chain, unpacked, ..image.as_ref().clone() }))
    }

    /// Resolves and protects an image for a platform, and unpacks its layers if they are not yet.
    ///
    /// # Errors
    /// As [`Images::hold`]; [`ImageError::Platform`]; those of unpacking.
    pub fn hold_for(&self, text: &str, wanted: &Platform) -> Result<Hold, ImageError> {
        let mut hold = self.hold(text)?;
        let image = self.for_platform(&hold.image, wanted, text)?;
        if Arc::ptr_eq(&image, &hold.image) {
            return Ok(hold);
        }
        let mut pins = Pins::new(&self.shared);
        let diff_ids = &image.config.rootfs.diff_ids;
        let chain =
            self.shared.unpack_all(&mut pins, &mut HashMap::new(), &image.manifest.layers, diff_ids, &mut |_, _| {})?;
        if chain.is_some() && chain != hold.image.chain && chain.iter().all(|c| !hold.image.more.contains(c)) {
            let more = chain.into_iter().collect();
            self.shared.register(Image { more, ..hold.image.as_ref().clone() }, &[], &mut pins)?;
        }
        hold.image = image;
        Ok(hold)
    }
}

/// `os/architecture[/variant]`.
pub(crate) fn platform_text(platform: &Platform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/")
}
