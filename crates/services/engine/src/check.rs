//! Checking the image store and mending it (a Wharf extra): what is missing or damaged is fetched again from where the
//! images came from; what cannot be had is dropped, unless a container needs it, and told of either way.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wharf_distribution::{Credentials, Purpose, document};
use wharf_image::{Fault, Finding, ImageId, RemoveOptions, Subject};
use wharf_oci::image::Descriptor;
use wharf_types::Reference;

use crate::images::Images;
use crate::registries::Registries;
use crate::{EngineError, blocking};

/// What became of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be done.
    Found,
    /// It was fetched from this repository.
    Fetched(String),
    /// The layer was unpacked anew.
    Unpacked,
    /// These images were removed, because it cannot be had.
    Dropped(Vec<ImageId>),
    /// It cannot be had, and containers use the image.
    Kept(String),
}

impl Outcome {
    /// Whether the store is whole again as far as this finding goes.
    pub fn is_mended(&self) -> bool {
        match self {
            Outcome::Fetched(_) | Outcome::Unpacked | Outcome::Dropped(_) => true,
            Outcome::Found | Outcome::Kept(_) => false,
        }
    }
}

/// A checked store.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Layers that were looked at.
    pub layers: u64,
    /// What was wrong, with the images' names, and what became of it.
    pub findings: Vec<(Finding, Vec<String>, Outcome)>,
}

/// Checks, and mends where `repair`. Blobs are asked for without a login.
///
/// # Errors
/// Those of the stores as a whole.
pub async fn check(images: &Arc<Images>, registries: &Registries, repair: bool) -> Result<Report, EngineError> {
    let store = images.store.clone();
    let checked = blocking(move || store.check()).await??;
    let mut report =
        Report { blobs: checked.blobs, bytes: checked.bytes, layers: checked.layers, findings: Vec::new() };
    for finding in checked.findings {
        let names: Vec<Reference> = finding.images.iter().flat_map(|id| images.store.names_of(id)).collect();
        let shown = names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
        let outcome = match repair {
            true => mend(images, registries, &finding, &names).await?,
            false => Outcome::Found,
        };
        report.findings.push((finding, shown, outcome));
    }
    Ok(report)
}

async fn mend(
    images: &Arc<Images>,
    registries: &Registries,
    finding: &Finding,
    names: &[Reference],
) -> Result<Outcome, EngineError> {
    let store = images.store.clone();
    match &finding.subject {
        Subject::Blob(blob) => {
            if finding.fault == Fault::Damaged {
                let digest = blob.digest.clone();
                let store = store.clone();
                blocking(move || store.forget_blob(&digest)).await??;
            }
            let mut last = "no registry is known for it".to_owned();
            for name in names {
                match registries.fetch_again(name, blob).await {
                    Ok(()) => return Ok(Outcome::Fetched(format!("{}/{}", name.domain(), name.path()))),
                    Err(e) => last = wharf_error::Chain(&e).to_string(),
                }
            }
            drop_images(images, &finding.images, last).await
        }
        Subject::Layer(chain) => {
            let chain = chain.clone();
            match blocking(move || store.unpack_anew(&chain)).await? {
                Ok(()) => Ok(Outcome::Unpacked),
                Err(e) => {
                    let reason = wharf_error::Chain(&e).to_string();
                    drop_images(images, &finding.images, reason).await
                }
            }
        }
    }
}

/// Removes images that cannot be made whole; those that containers use stay.
async fn drop_images(images: &Arc<Images>, ids: &[ImageId], reason: String) -> Result<Outcome, EngineError> {
    let (images, ids) = (images.clone(), ids.to_vec());
    let outcome = blocking(move || {
        let mut dropped = Vec::new();
        for id in ids {
            let used = images.containers(&id) > 0;
            if used || images.remove(id.as_str(), RemoveOptions { force: true, prune: false }).is_err() {
                return Outcome::Kept(reason);
            }
            dropped.push(id);
        }
        Outcome::Dropped(dropped)
    });
    outcome.await
}

impl Registries {
    /// Fetches one blob of an image that is here.
    async fn fetch_again(&self, name: &Reference, blob: &Descriptor) -> Result<(), EngineError> {
        let repository = Arc::new(self.client.repository(name, Credentials::default(), Purpose::Pull)?);
        let content = self.store.content().clone();
        if document::is_index(&blob.media_type) || document::is_manifest(&blob.media_type) {
            let found = repository.document(blob.digest.as_str(), &name.familiar()).await?;
            let put = blocking(move || content.put(&found.bytes)).await?;
            return put.map(drop).map_err(|e| wharf_distribution::DistributionError::Content(e).into());
        }
        let (fetch, _) = repository.fetch(blob, &content, &Arc::new(Semaphore::new(1)));
        fetch.wait().await?;
        Ok(blocking(move || fetch.commit()).await??)
    }
}
