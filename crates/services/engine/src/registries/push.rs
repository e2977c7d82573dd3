//! `docker push`: what the registry lacks, with the bytes as they are stored.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use wharf_distribution::document::{self, Content};
use wharf_distribution::{Credentials, DistributionError, Parcel, Purpose, Sent, Shipment};
use wharf_image::Hold;
use wharf_oci::image::{Descriptor, Platform, media_type};
use wharf_types::Reference;

use super::Registries;
use crate::EngineError;

/// Indexes within indexes at most.
const DEPTH: usize = 3;

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The name with its tag; without one, all tags of the repository.
    pub reference: Reference,
    /// One platform of an index, instead of all of it.
    pub platform: Option<Platform>,
    /// Who we are.
    pub credentials: Credentials,
}

/// How far a push is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    /// It begins; the repository with its registry.
    Begins(String),
    /// A layer moved on.
    Layer {
        /// The first 12 digits of its digest.
        id: String,
        /// Whether it is a layer of a file system, and not of an attestation.
        layer: bool,
        /// Bytes in all.
        total: u64,
        /// To where.
        sent: Sent,
    },
    /// A tag is there.
    Done {
        /// The tag.
        tag: String,
        /// What it means.
        target: Box<Descriptor>,
    },
    /// Only one manifest of an index could be sent, because the others are not here.
    Instead {
        /// The index.
        index: Box<Descriptor>,
        /// What was sent.
        manifest: Box<Descriptor>,
    },
}

/// Who hears of progress. When nobody listens any more, the push is cancelled.
pub type Listener = mpsc::Sender<PushStep>;

/// What a push sends for one name.
struct Plan {
    target: Descriptor,
    /// The index in whose place the target is sent.
    instead_of: Option<Descriptor>,
    /// Each after what it names.
    documents: Vec<Descriptor>,
    /// Configurations and layers, with whether to show them.
    blobs: Vec<Descriptor>,
}

impl Registries {
    /// Pushes a name, or all tags of a repository.
    ///
    /// # Errors
    /// [`EngineError::NoTag`], [`EngineError::Distribution`], [`EngineError::Image`].
    pub async fn push(&self, request: PushRequest, listener: Listener) -> Result<(), EngineError> {
        let gone = listener.clone();
        tokio::select! {
            pushed = self.push_listened(request, listener) => pushed,
            () = gone.closed() => Err(DistributionError::Cancelled.into()),
        }
    }

    async fn push_listened(&self, request: PushRequest, listener: Listener) -> Result<(), EngineError> {
        let reference = &request.reference;
        let repository = self.client.repository(reference, request.credentials.clone(), Purpose::Push)?;
        drop(listener.send(PushStep::Begins(repository.name())).await);
        let repository = Arc::new(repository);
        let names = match reference.tag() {
            Some(_) => vec![reference.clone()],
            None => self.store.tags_of(reference),
        };
        if names.is_empty() {
            return Err(EngineError::NoTags(reference.familiar_name().to_owned()));
        }
        for name in names {
            let hold = self.store.hold(&name.to_string());
            let hold = hold.map_err(|_| EngineError::NoTag(name.familiar()))?;
            self.push_one(&repository, &name, hold, &request, &listener).await?;
        }
        Ok(())
    }

    async fn push_one(
        &self,
        repository: &Arc<wharf_distribution::Repository>,
        name: &Reference,
        hold: Hold,
        request: &PushRequest,
        listener: &Listener,
    ) -> Result<(), EngineError> {
        let plan = self.plan(name, &hold, request.platform.as_ref()).await?;
        let shown: HashSet<String> = plan.blobs.iter().filter(|b| is_shown(b)).map(|b| b.digest.to_string()).collect();
        let parcels =
            plan.blobs.iter().map(|blob| Parcel { descriptor: blob.clone(), sources: self.sources(name, blob) });
        let shipment = Shipment {
            blobs: parcels.collect(),
            documents: plan.documents.clone(),
            tag: name.tag().map(str::to_owned),
        };
        let steps = listener.clone();
        let meter = Meter::default();
        let hear: wharf_distribution::Listener = Arc::new(move |blob, sent| {
            if !shown.contains(blob.digest.as_str()) || !meter.lets_pass(blob, &sent) {
                return;
            }
            let id = blob.digest.hex()[..12].to_owned();
            let step = PushStep::Layer { id, layer: is_layer(blob), total: blob.size, sent: sent.clone() };
            match sent {
                // Telling less of it is better than holding it up.
                Sent::Bytes(_) | Sent::Waiting => drop(steps.try_send(step)),
                _ => {
                    let steps = steps.clone();
                    if let Err(mpsc::error::TrySendError::Full(step)) = steps.try_send(step) {
                        tokio::spawn(async move { drop(steps.send(step).await) });
                    }
                }
            }
        });
        wharf_distribution::push(repository, self.store.content(), shipment, &hear).await?;
        drop(hold);
        self.tell("push", name);
        let tag = name.tag().unwrap_or_default().to_owned();
        drop(listener.send(PushStep::Done { tag, target: Box::new(plan.target.clone()) }).await);
        if let Some(index) = plan.instead_of {
            drop(listener.send(PushStep::Instead { index: Box::new(index), manifest: Box::new(plan.target) }).await);
        }
        Ok(())
    }

    /// Other repositories of the same registry that should have a blob.
    fn sources(&self, name: &Reference, blob: &Descriptor) -> Vec<String> {
        let names = self.store.names_with(name.domain(), &blob.digest);
        let paths: BTreeSet<&str> = names.iter().map(Reference::path).filter(|path| *path != name.path()).collect();
        paths.into_iter().map(str::to_owned).collect()
    }

    async fn plan(&self, name: &Reference, hold: &Hold, platform: Option<&Platform>) -> Result<Plan, EngineError> {
        let content = self.store.content().clone();
        let (target, image) = (hold.image.target.clone(), hold.image.clone());
        let (name, platform) = (name.familiar(), platform.cloned());
        let plan = move || -> Result<Plan, EngineError> {
            let mut planner = Planner { content: &content, documents: Vec::new(), blobs: Vec::new() };
            if let Some(wanted) = platform {
                let chosen = planner.choose(&target, &wanted, DEPTH)?;
                let chosen = chosen.ok_or_else(|| {
                    let platform = document::platform_text(&wanted);
                    EngineError::Image(wharf_image::ImageError::Platform { reference: name.clone(), platform })
                })?;
                planner.take(&chosen, DEPTH)?;
                return Ok(planner.plan(chosen, None));
            }
            if planner.take(&target, DEPTH)? {
                return Ok(planner.plan(target, None));
            }
            // Parts of the index are not here: the one image that is here goes alone.
            let mut planner = Planner { content: &content, documents: Vec::new(), blobs: Vec::new() };
            let chosen = planner.choose(&target, &image.config.platform, DEPTH)?;
            let chosen = chosen.ok_or_else(|| EngineError::NoTag(name.clone()))?;
            planner.take(&chosen, DEPTH)?;
            let chosen = Descriptor { platform: None, ..chosen };
            Ok(planner.plan(chosen, Some(target)))
        };
        crate::blocking(plan).await?
    }
}

/// Whether a blob is a layer of a file system.
fn is_layer(blob: &Descriptor) -> bool {
    let known = [media_type::LAYER, media_type::LAYER_GZIP, media_type::LAYER_ZSTD];
    known.contains(&blob.media_type.as_str())
        || [media_type::DOCKER_LAYER, media_type::DOCKER_LAYER_GZIP].contains(&blob.media_type.as_str())
}

/// Configurations are sent without a word.
fn is_shown(blob: &Descriptor) -> bool {
    !matches!(blob.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG)
}

/// Lets progress of bytes pass ten times a second, and everything else always.
#[derive(Default)]
struct Meter(std::sync::Mutex<std::collections::HashMap<String, std::time::Instant>>);

impl Meter {
    fn lets_pass(&self, blob: &Descriptor, sent: &Sent) -> bool {
        if !matches!(sent, Sent::Bytes(_)) {
            return true;
        }
        let now = std::time::Instant::now();
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = last.entry(blob.digest.to_string()).or_insert(now);
        let due = now.duration_since(*before) >= std::time::Duration::from_millis(100);
        if due {
            *before = now;
        }
        due
    }
}

/// Walks from a target to everything that must be sent with it.
struct Planner<'c> {
    content: &'c wharf_content::Store,
    documents: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
}

impl Planner<'_> {
    fn plan(mut self, target: Descriptor, instead_of: Option<Descriptor>) -> Plan {
        let mut seen = HashSet::new();
        self.blobs.retain(|blob| seen.insert(blob.digest.clone()));
        let mut seen = HashSet::new();
        self.documents.retain(|document| seen.insert(document.digest.clone()));
        Plan { target, instead_of, documents: self.documents, blobs: self.blobs }
    }

    fn read(&self, target: &Descriptor) -> Result<Option<Content>, EngineError> {
        let wrong = |e| EngineError::Distribution(DistributionError::Content(e));
        if self.content.info(&target.digest).map_err(wrong)?.is_none() {
            return Ok(None);
        }
        let bytes = self.content.read(&target.digest, document::LIMIT as u64).map_err(wrong)?;
        Ok(Some(document::read(&bytes, target)?))
    }

    /// Collects a document with what it names; false where something is not here.
    fn take(&mut self, target: &Descriptor, depth: usize) -> Result<bool, EngineError> {
        let Some(content) = self.read(target)? else { return Ok(false) };
        match content {
            Content::Index(index) => {
                if depth == 0 {
                    let (subject, reason) = (target.digest.to_string(), "indexes are nested too deeply".to_owned());
                    return Err(DistributionError::Document { subject, reason }.into());
                }
                for inner in &index.manifests {
                    if !self.take(inner, depth - 1)? {
                        return Ok(false);
                    }
                }
            }
            Content::Manifest(manifest) => {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    let found = self.content.info(&blob.digest).map_err(DistributionError::Content)?;
                    if found.is_none() {
                        return Ok(false);
                    }
                    self.blobs.push(blob.clone());
                }
            }
        }
        self.documents.push(target.clone());
        Ok(true)
    }

    /// The manifest for a platform.
    fn choose(&self, target: &Descriptor, wanted: &Platform, depth: usize) -> Result<Option<Descriptor>, EngineError> {
        match self.read(target)? {
            Some(Content::Index(index)) if depth > 0 => match document::choose(&index, wanted) {
                Some(entry) => self.choose(entry, wanted, depth - 1),
                None => Ok(None),
            },
            Some(Content::Manifest(manifest)) => {
                let bytes = self.content.read(&manifest.config.digest, document::LIMIT as u64);
                let config: wharf_oci::image::Image =
                    bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
                let same = config.platform.os == wanted.os && config.platform.architecture == wanted.architecture;
                Ok(same.then(|| target.clone()))
            }
            _ => Ok(None),
        }
    }
}
