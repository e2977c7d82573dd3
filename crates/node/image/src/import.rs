//! `docker import`: a root file system as a tar stream becomes an image of one layer.

use std::io::Read;

use wharf_oci::image::{self as oci, Descriptor, Manifest, Platform, media_type};
use wharf_types::{Reference, Timestamp};

use crate::store::{Pins, check_name};
use crate::unpack::{Below, layer_type, unpack};
use crate::{Hold, Image, ImageError, ImageId, Images, Resolved, change};

/// What to make of an imported tar stream.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// The name to give, if any. Without a tag it gets `latest`.
    pub reference: Option<Reference>,
    /// Dockerfile instructions that change the configuration (`--change`).
    pub changes: Vec<String>,
    /// The comment of the image's one history entry; empty means Docker's `Imported from -`.
    pub message: String,
    /// The platform; absent means this machine's.
    pub platform: Option<Platform>,
}

/// What an imported layer becomes.
pub(crate) struct Shape {
    pub(crate) names: Vec<Reference>,
    pub(crate) config: oci::Config,
    pub(crate) message: String,
    pub(crate) platform: Platform,
    pub(crate) created: Timestamp,
}

impl Images {
    /// Imports a tar stream, plain or compressed by gzip or zstd, and unpacks it while it comes. The layer's blob is
    /// kept as it came (dockerd compresses a plain one).
    ///
    /// # Errors
    /// [`ImageError::Change`], [`ImageError::Extract`], [`ImageError::Stream`] and those of the stores. Nothing is
    /// left behind then.
    pub fn import(&self, request: ImportRequest, body: &mut (dyn Read + Send)) -> Result<Hold, ImageError> {
        let mut config = oci::Config::default();
        change::apply(&mut config, &request.changes)?;
        let shape = Shape {
            names: request.reference.as_ref().map(check_name).transpose()?.into_iter().collect(),
            config,
            message: if request.message.is_empty() { "Imported from -".to_owned() } else { request.message },
            platform: request.platform.unwrap_or_else(this_platform),
            created: Timestamp::now(),
        };
        self.import_as(shape, body)
    }

    pub(crate) fn import_as(&self, shape: Shape, body: &mut (dyn Read + Send)) -> Result<Hold, ImageError> {
        let shared = &self.shared;
        let content = &shared.parts.content;
        let mut pins = Pins::new(shared);
        let ingest = content.once()?;
        let fresh = unpack(shared, body, Some(ingest), &Below::default(), |passed| {
            let kind = layer_type(passed.compression);
            pins.blob(&passed.digest);
            // The pipeline returns what it was given.
            let ingest = passed.ingest.take().ok_or_else(|| ImageError::Archive("the layer is lost".to_owned()))?;
            let (digest, info) = ingest.commit_hashed(passed.digest.clone(), None)?;
            wharf_fault::point("import.after-blob");
            Ok(Descriptor::new(kind, digest, info.size))
        });
        let fresh = fresh?;
        // A layer without a parent has its diff id as chain id.
        let chain = fresh.chain.clone();
        let layers: Vec<Descriptor> = fresh.blob().into_iter().collect();
        pins.chain(&chain);
        pins.fresh.push(fresh);
        let config = oci::Image {
            created: Some(shape.created),
            platform: shape.platform,
            rootfs: oci::RootFs { diff_ids: vec![chain.clone()], ..oci::RootFs::default() },
            history: vec![oci::History {
                created: Some(shape.created),
                comment: shape.message,
                ..oci::History::default()
            }],
            config: shape.config,
            ..oci::Image::default()
        };
        let config_blob = self.put_json(&mut pins, media_type::CONFIG, &config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            config: config_blob.clone(),
            layers: layers.clone(),
            annotations: oci::Labels::new(),
        };
        let target = self.put_json(&mut pins, media_type::MANIFEST, &manifest)?;
        wharf_fault::point("import.after-manifest");
        let blobs: Vec<Descriptor> = [target.clone(), config_blob].into_iter().chain(layers).collect();
        let image = Image {
            id: ImageId(target.digest.clone()),
            size: blobs.iter().map(|blob| blob.size).sum(),
            target,
            manifest,
            config,
            chain: Some(chain),
            blobs,
            unpacked: 0,
            added: Timestamp::now(),
            parent: None,
            more: Vec::new(),
        };
        let image = shared.register(image, &shape.names, &mut pins)?;
        let found = Resolved { id: image.id.clone(), reference: shape.names.into_iter().next() };
        self.hold_resolved(found).ok_or_else(|| ImageError::NotFound(image.id.to_string()))
    }

    pub(crate) fn put_json(
        &self,
        pins: &mut Pins,
        kind: &str,
        value: &impl serde::Serialize,
    ) -> Result<Descriptor, ImageError> {
        let json = |source| ImageError::Json { what: kind.to_owned(), source };
        let bytes = serde_json::to_vec(value).map_err(json)?;
        pins.blob(&digest_of(&bytes));
        let digest = self.shared.parts.content.put(&bytes)?;
        Ok(Descriptor::new(kind, digest, bytes.len() as u64))
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> wharf_types::Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut array = [0; 32];
    array.copy_from_slice(hash.as_ref());
    wharf_types::Digest::from_sha256(array)
}

/// This machine's platform in Go's words.
pub fn this_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "x86" => ("386", ""),
        "arm" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        "loongarch64" => ("loong64", ""),
        other => (other, ""),
    };
    Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        variant: variant.to_owned(),
        ..Platform::default()
    }
}
