//! What an image consists of at its registry: from the reference to the manifest of a platform, its configuration and
//! layers. Documents are stored on the way.

use std::sync::Arc;

use wharf_content::Store;
use wharf_oci::image::{self as oci, Descriptor, Manifest, Platform, media_type};
use wharf_types::Reference;

use crate::DistributionError;
use crate::document::{self, Content, Document};
use crate::repository::Repository;

/// Indexes within indexes at most.
const DEPTH: usize = 3;
/// Layers at most: overlayfs takes 500, and no real image has more than 127.
const LAYERS: usize = 500;
/// Bytes of a configuration at most.
const CONFIG_LIMIT: u64 = 8 << 20;

/// One image of one platform.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What the reference means: an index or the manifest.
    pub target: Descriptor,
    /// The manifest's descriptor.
    pub manifest_descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: oci::Image,
}

/// Told of every blob before it is looked for or stored, so that it is protected from then on. May block.
pub type Protect = Arc<dyn Fn(&Descriptor) + Send + Sync>;

/// Where documents are kept.
#[derive(Clone)]
pub struct Shelf {
    /// The blobs.
    pub store: Store,
    /// Called before each.
    pub protect: Protect,
}

impl Shelf {
    /// Protects a blob, and reads it if it is there.
    async fn look(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, DistributionError> {
        let (shelf, blob) = (self.clone(), blob.clone());
        let look = move || {
            (shelf.protect)(&blob);
            match shelf.store.info(&blob.digest)? {
                Some(_) => shelf.store.read(&blob.digest, CONFIG_LIMIT).map(Some),
                None => Ok(None),
            }
        };
        let found = tokio::task::spawn_blocking(look).await.map_err(|_| DistributionError::Cancelled)?;
        Ok(found?)
    }

    async fn put(&self, bytes: Vec<u8>) -> Result<(), DistributionError> {
        let store = self.store.clone();
        let put = tokio::task::spawn_blocking(move || store.put(&bytes));
        put.await.map_err(|_| DistributionError::Cancelled)??;
        Ok(())
    }
}

impl Repository {
    /// Finds out what a reference consists of for a platform.
    ///
    /// # Errors
    /// [`DistributionError::Platform`], [`DistributionError::Document`], [`DistributionError::MediaType`] and those of
    /// requests.
    pub async fn graph(
        self: &Arc<Self>,
        reference: &Reference,
        target: Descriptor,
        platform: &Platform,
        shelf: &Shelf,
    ) -> Result<Graph, DistributionError> {
        let subject = reference.to_string();
        let top = self.stored(&target, &subject, shelf).await?;
        let target = Descriptor::new(&top.descriptor.media_type, target.digest, top.descriptor.size);
        let (manifest_descriptor, manifest) = self.manifest_of(top, platform, shelf).await?;
        let config = self.config(&manifest, shelf).await?;
        let offered = &config.platform;
        // An index vouches for the platform of its entries; a manifest alone is what its configuration says.
        if target.digest == manifest_descriptor.digest && !fits(offered, platform) {
            return Err(DistributionError::Platform(document::platform_text(platform)));
        }
        check_layers(&manifest, &config, &manifest_descriptor)?;
        Ok(Graph { target, manifest_descriptor, manifest, config })
    }

    /// A document from the store, or from the registry and then stored.
    async fn stored(&self, wanted: &Descriptor, subject: &str, shelf: &Shelf) -> Result<Document, DistributionError> {
        if let Some(bytes) = shelf.look(wanted).await? {
            return Ok(Document { descriptor: Descriptor { size: bytes.len() as u64, ..wanted.clone() }, bytes });
        }
        let mut found = self.document(wanted.digest.as_str(), subject).await?;
        // What it is was said by who named it; the registry's header for the same digest may say otherwise.
        if document::is_index(&wanted.media_type) || document::is_manifest(&wanted.media_type) {
            found.descriptor.media_type.clone_from(&wanted.media_type);
        }
        // Refused documents are not stored.
        found.content()?;
        shelf.put(found.bytes.clone()).await?;
        Ok(found)
    }

    /// Descends from a document to the manifest for a platform.
    async fn manifest_of(
        &self,
        top: Document,
        platform: &Platform,
        shelf: &Shelf,
    ) -> Result<(Descriptor, Manifest), DistributionError> {
        let mut document = top;
        for _ in 0..=DEPTH {
            let index = match document.content()? {
                Content::Manifest(manifest) => return Ok((document.descriptor, *manifest)),
                Content::Index(index) => index,
            };
            let entry = document::choose(&index, platform);
            let missing = || DistributionError::Platform(document::platform_text(platform));
            let entry = entry.ok_or_else(missing)?;
            document = self.stored(entry, entry.digest.as_str(), shelf).await?;
            if document.bytes.len() as u64 != entry.size {
                return Err(DistributionError::Size { expected: entry.size, found: document.bytes.len() as u64 });
            }
        }
        let subject = document.descriptor.digest.to_string();
        Err(DistributionError::Document { subject, reason: "indexes are nested too deeply".to_owned() })
    }

    async fn config(self: &Arc<Self>, manifest: &Manifest, shelf: &Shelf) -> Result<oci::Image, DistributionError> {
        let config = &manifest.config;
        let subject = config.digest.to_string();
        let wrong = |reason: String| DistributionError::Document { subject: subject.clone(), reason };
        if !matches!(config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
            let (media_type, digest) = (config.media_type.clone(), config.digest.clone());
            return Err(DistributionError::MediaType { media_type, digest });
        }
        if config.size > CONFIG_LIMIT {
            return Err(wrong(format!("{} bytes are more than a configuration may have", config.size)));
        }
        let bytes = match shelf.look(config).await? {
            Some(bytes) => bytes,
            None => {
                let places = Arc::new(tokio::sync::Semaphore::new(1));
                let (mut fetch, joined) = self.fetch(config, &shelf.store, &places);
                let mut done = fetch.wait().await;
                if joined && done.is_err() {
                    fetch = self.fetch(config, &shelf.store, &places).0;
                    done = fetch.wait().await;
                }
                done?;
                let commit = tokio::task::spawn_blocking(move || fetch.commit());
                commit.await.map_err(|_| DistributionError::Cancelled)??;
                // Someone else may have removed what was shared with them; then all begins again.
                let gone = || DistributionError::Shared(Arc::new(DistributionError::Cancelled));
                shelf.look(config).await?.ok_or_else(gone)?
            }
        };
        serde_json::from_slice(&bytes).map_err(|e| wrong(format!("malformed configuration: {e}")))
    }
}

fn fits(offered: &Platform, wanted: &Platform) -> bool {
    let index = oci::Index {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests: vec![Descriptor {
            platform: Some(offered.clone()),
            ..Descriptor::new(media_type::MANIFEST, wharf_types::Digest::from_sha256([0; 32]), 1)
        }],
        annotations: Default::default(),
    };
    document::choose(&index, wanted).is_some()
}

/// Refuses layers that must not be distributed, whose place is elsewhere, or that nobody can unpack.
fn check_layers(manifest: &Manifest, config: &oci::Image, descriptor: &Descriptor) -> Result<(), DistributionError> {
    const KNOWN: [&str; 5] = [
        media_type::LAYER,
        media_type::LAYER_GZIP,
        media_type::LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
    ];
    let subject = descriptor.digest.to_string();
    let wrong = |reason: String| DistributionError::Document { subject: subject.clone(), reason };
    if manifest.layers.len() > LAYERS {
        return Err(wrong(format!("{} layers are more than {LAYERS}", manifest.layers.len())));
    }
    for layer in &manifest.layers {
        // Foreign layers would be fetched from wherever the manifest says (CVE-2020-15157 came that way).
        if !KNOWN.contains(&layer.media_type.as_str()) || !layer.urls.is_empty() {
            let (media_type, digest) = (layer.media_type.clone(), layer.digest.clone());
            return Err(DistributionError::MediaType { media_type, digest });
        }
    }
    let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diffs {
        return Err(wrong(format!("mismatched image rootfs and manifest layers: {diffs} and {layers}")));
    }
    Ok(())
}
