//! Cached steps from elsewhere and for elsewhere: `--cache-from` and `--cache-to` with `type=local`, `type=registry`,
//! `type=inline` (in the image's own configuration) and `type=mounts` (folders of cache mounts, which is our own).
//!
//! The form is BuildKit's: a manifest of layers whose configuration (`application/vnd.buildkit.cacheconfig.v0`) says
//! under which keys they are found. The keys are our own: a cache that another builder wrote is read, and never hit.
//! What is imported is believed as a base image is: who may write a cache may write what builds take from it. Every
//! blob is verified by its digest and every layer by its diff id.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use wharf_archive::{Compression, Decoder};
use wharf_distribution::{Parcel, Repository, Shipment, document};
use wharf_error::{Chain, Kind};
use wharf_image::{Arrival, Packing, Part};
use wharf_oci::image::{self as oci, Descriptor, Index, Manifest, media_type};
use wharf_proto_buildkit::content;
use wharf_snapshot::Snapshot;
use wharf_types::{Digest, Reference, Timestamp};

use crate::BuildError;
use crate::cache::Node;
use crate::export::chain_parts;
use crate::frontend::Image;
use crate::job::{Files, Job};
use crate::local::in_place;
use crate::progress::Step;
use crate::session::Session;

/// The configuration's media type.
const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The largest configuration.
const CONFIG_LIMIT: u64 = 64 << 20;
/// The kind of records that are folders of cache mounts, which travel only by themselves.
const MOUNT: &str = "exec.cachemount";
/// What their keys begin with.
pub(crate) const MOUNT_KEY: &str = "cachemount:";

/// One `--cache-from` or `--cache-to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `local`, `registry`.
    pub kind: String,
    /// `src`, `dest`, `ref`, `mode`, …
    pub attrs: BTreeMap<String, String>,
}

impl Place {
    fn attr(&self, name: &str) -> &str {
        self.attrs.get(name).map_or("", String::as_str)
    }

    fn reference(&self) -> Result<Reference, BuildError> {
        let text = self.attr("ref");
        let parsed = Reference::parse(text).map(Reference::with_default_tag);
        parsed.map_err(|e| BuildError::invalid(format!("invalid cache reference {text:?}: {e}")))
    }

    fn packing(&self) -> Packing {
        match self.attr("compression") {
            "uncompressed" => Packing::Plain,
            "zstd" => Packing::Zstd,
            _ => Packing::Gzip,
        }
    }

    fn unknown(&self, what: &str) -> BuildError {
        let kind = &self.kind;
        BuildError::new(
            Kind::NotImplemented,
            format!("unknown cache {what}: {kind:?} (there are local, registry, inline to export, and mounts)"),
        )
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Config {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Layer {
    blob: Digest,
    /// The layer below; −1 for none.
    #[serde(default)]
    parent: i64,
    /// An inline cache has none: the image's manifest and configuration tell.
    #[serde(default, skip_serializing_if = "Notes::is_empty")]
    annotations: Notes,
}

impl Notes {
    fn is_empty(&self) -> bool {
        self.diff_id.is_empty()
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Notes {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(rename = "diffID", default)]
    diff_id: String,
    #[serde(default)]
    size: u64,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    digest: String,
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    results: Vec<Found>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    layer: usize,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
}

/// Where blobs come from and go to.
enum Store {
    /// A folder of the client, by the id that it gave it.
    Session(Arc<Session>, String),
    /// A registry.
    Registry(Arc<Repository>),
    /// An image that is here.
    Here,
}

fn said(e: &wharf_distribution::DistributionError) -> BuildError {
    BuildError::new(Kind::Unavailable, Chain(e).to_string())
}

fn stored(e: &wharf_content::ContentError) -> BuildError {
    BuildError::system("content store", e)
}

impl Store {
    async fn of(job: &Job, place: &Place, push: bool) -> Result<Self, BuildError> {
        match place.kind.as_str() {
            "local" | "mounts" if place.attr("ref").is_empty() => {
                let folder = place.attr(if push { "dest" } else { "src" });
                if folder.is_empty() {
                    let kind = &place.kind;
                    let text = format!("{kind} cache needs a folder: src to import, dest to export");
                    return Err(BuildError::invalid(text));
                }
                Ok(Self::Session(job.session()?.clone(), format!("local:{folder}")))
            }
            "registry" | "mounts" => {
                let reference = place.reference()?;
                let login = job.login(reference.domain()).await;
                Ok(Self::Registry(job.builder.parts.registry.repository(&reference, login, push)?))
            }
            _ => Err(place.unknown(if push { "exporter" } else { "importer" })),
        }
    }

    /// Writes a blob into the content store, verified.
    async fn fetch(&self, job: &Job, blob: &Descriptor) -> Result<(), BuildError> {
        let content = &job.builder.parts.content;
        if content.info(&blob.digest).map_err(|e| stored(&e))?.is_some() {
            return Ok(());
        }
        match self {
            Self::Session(session, store) => {
                let mut ingest = content.once().map_err(|e| stored(&e))?;
                let mut receiver = session.read_blob(store, &blob.digest).await?;
                while let Some(part) = receiver.message::<content::ReadContentResponse>().await? {
                    ingest.write_all(&part.data)?;
                }
                in_place(|| ingest.commit(Some(&blob.digest), Some(blob.size))).map_err(|e| stored(&e))?;
                Ok(())
            }
            Self::Registry(repository) => {
                let places = Arc::new(tokio::sync::Semaphore::new(3));
                let (fetch, _) = repository.fetch(blob, content, &places);
                fetch.wait().await.map_err(|e| said(&e))?;
                in_place(|| fetch.commit()).map_err(|e| said(&e))
            }
            Self::Here => Err(BuildError::new(Kind::NotFound, format!("{} is not here", blob.digest))),
        }
    }

    /// Reads a small blob.
    async fn read(&self, job: &Job, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, BuildError> {
        if blob.size > limit {
            return Err(BuildError::invalid(format!("{} is too large", blob.digest)));
        }
        self.fetch(job, blob).await?;
        job.builder.parts.content.read(&blob.digest, limit).map_err(|e| stored(&e))
    }
}

/// A cache from elsewhere.
pub struct Imported {
    store: Store,
    config: Config,
    keys: HashMap<String, usize>,
    /// Keeps the blobs.
    arrival: Arrival,
}

/// Reads the caches that a build may take steps from. One that cannot be read is told of and left out.
pub async fn import(job: &Arc<Job>, places: &[Place]) -> Vec<Arc<Imported>> {
    let mut all = Vec::new();
    for place in places {
        let shown = if place.kind == "local" { place.attr("src") } else { place.attr("ref") };
        let title = format!("importing cache manifest from {}:{shown}", place.kind);
        let digest = wharf_solver::digest_of(title.as_bytes());
        let step = Step::start(&job.progress, &digest, &title, Vec::new(), None);
        match read(job, place).await {
            Ok(imported) => {
                step.done(false, "");
                all.push(Arc::new(imported));
            }
            Err(e) => step.done(false, &e.to_string()),
        }
    }
    all
}

async fn read(job: &Arc<Job>, place: &Place) -> Result<Imported, BuildError> {
    let arrival = job.builder.parts.images.arrival();
    if let Some(found) = in_place(|| inline_here(job, place)) {
        let (image, config) = found?;
        image.blobs.iter().for_each(|blob| arrival.protect(&blob.digest));
        return Ok(Imported::of(Store::Here, config, arrival));
    }
    let store = Store::of(job, place, false).await?;
    let bytes = document(job, place, &store, &arrival).await?;
    // Both forms in which BuildKit writes it, a manifest, and an index whose entries are blobs; or an image with an
    // inline cache, or an index of such.
    let wrong = |e: serde_json::Error| BuildError::invalid(format!("cache manifest: {e}"));
    let mut value: serde_json::Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    let mut config = None;
    if value.get("manifests").is_some() {
        let index: Index = serde_json::from_value(value.clone()).map_err(wrong)?;
        config = index.manifests.iter().find(|m| m.media_type == CONFIG).cloned();
        let own = wharf_image::this_platform();
        let fits = |m: &&Descriptor| m.platform.as_ref().is_some_and(|p| p.architecture == own.architecture);
        if let Some(image) = index.manifests.iter().find(fits) {
            let bytes = match &store {
                Store::Registry(repository) => {
                    let name = place.reference()?.to_string();
                    repository.document(image.digest.as_str(), &name).await.map_err(|e| said(&e))?.bytes
                }
                _ => {
                    arrival.protect(&image.digest);
                    store.read(job, image, document::LIMIT as u64).await?
                }
            };
            value = serde_json::from_slice(&bytes).map_err(wrong)?;
        }
    }
    let none = || BuildError::invalid("no cache configuration in the manifest");
    if config.is_none() {
        let manifest: Manifest = serde_json::from_value(value).map_err(wrong)?;
        if manifest.config.media_type != CONFIG {
            arrival.protect(&manifest.config.digest);
            let bytes = store.read(job, &manifest.config, CONFIG_LIMIT).await?;
            let image: oci::Image = serde_json::from_slice(&bytes).map_err(wrong)?;
            let config = inline_of(&manifest, &image).ok_or_else(none)??;
            return Ok(Imported::of(store, config, arrival));
        }
        config = Some(manifest.config);
    }
    let config = config.ok_or_else(none)?;
    arrival.protect(&config.digest);
    let config: Config = serde_json::from_slice(&store.read(job, &config, CONFIG_LIMIT).await?).map_err(wrong)?;
    Ok(Imported::of(store, config, arrival))
}

/// An image of this daemon that `type=registry` names, if it has an inline cache: it is not asked for elsewhere then.
fn inline_here(job: &Job, place: &Place) -> Option<Result<(Arc<wharf_image::Image>, Config), BuildError>> {
    let reference = (place.kind == "registry").then(|| place.reference().ok())??;
    let hold = job.builder.parts.images.hold(&reference.familiar()).ok()?;
    let config = inline_of(&hold.image.manifest, &hold.image.config)?;
    Some(config.map(|config| (hold.image.clone(), config)))
}

/// The inline cache of an image, if it has one. Its layers are told of by the image.
fn inline_of(manifest: &Manifest, image: &oci::Image) -> Option<Result<Config, BuildError>> {
    use base64::Engine;
    if image.build_cache.is_empty() {
        return None;
    }
    let wrong = |e: String| BuildError::invalid(format!("inline cache: {e}"));
    let read = || {
        let engine = base64::engine::general_purpose::STANDARD;
        let json = engine.decode(&image.build_cache).map_err(|e| wrong(e.to_string()))?;
        let mut config: Config = serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))?;
        for layer in &mut config.layers {
            let at = manifest.layers.iter().position(|l| l.digest == layer.blob);
            let at = at.ok_or_else(|| wrong(format!("layer {} is not the image's", layer.blob)))?;
            let blob = &manifest.layers[at];
            let diff_id = image.rootfs.diff_ids.get(at).map(ToString::to_string).unwrap_or_default();
            layer.annotations = Notes { media_type: blob.media_type.clone(), diff_id, size: blob.size, created: None };
        }
        Ok(config)
    };
    Some(read())
}

/// The inline cache of an image that is made: by which keys its layers are found.
pub(crate) fn inline(job: &Job, top: Option<&Snapshot>, parts: &[Part]) -> String {
    let Some(top) = top else { return String::new() };
    let mut config = Config::default();
    let numbers = top.lowers.iter().rev().copied().chain([top.number]);
    for (index, (part, number)) in parts.iter().zip(numbers).enumerate() {
        let blob = match part {
            Part::Known(blob, _) => blob,
            Part::New(layer) => &layer.blob,
        };
        let parent = i64::try_from(index).unwrap_or(0) - 1;
        config.layers.push(Layer { blob: blob.digest.clone(), parent, annotations: Notes::default() });
        let node = job.builder.cache.by_number(number).filter(|n| n.snapshot_of_record().kind != MOUNT);
        for key in node.iter().flat_map(|n| n.snapshot_of_record().keys).filter(|k| !k.starts_with("layers:")) {
            config.records.push(Record { digest: key, results: vec![Found { layer: index, created: None }] });
        }
    }
    // In an order of their own, and each once, so that the same build gives the same image.
    config.records.sort_by(|a, b| a.digest.cmp(&b.digest));
    config.records.dedup_by(|a, b| a.digest == b.digest);
    // These types always print.
    crate::frontend::base64_text(&serde_json::to_vec(&config).unwrap_or_default())
}

/// The document that a place has.
async fn document(job: &Job, place: &Place, store: &Store, arrival: &Arrival) -> Result<Vec<u8>, BuildError> {
    Ok(match store {
        Store::Session(session, id) => {
            let text = place.attr("digest");
            let digest = Digest::parse(text)
                .map_err(|_| BuildError::invalid("local cache importer requires explicit digest"))?;
            let size = session.blob_size(id, &digest).await?;
            arrival.protect(&digest);
            let blob = descriptor(media_type::MANIFEST, digest, size);
            store.read(job, &blob, document::LIMIT as u64).await?
        }
        Store::Registry(repository) => {
            let reference = place.reference()?;
            let wanted = reference.tag().unwrap_or("latest").to_owned();
            repository.document(&wanted, &reference.to_string()).await.map_err(|e| said(&e))?.bytes
        }
        Store::Here => Vec::new(),
    })
}

fn descriptor(kind: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: oci::Labels::new(),
        platform: None,
        artifact_type: String::new(),
    }
}

/// The chain id of a layer upon others (image-spec, config.md).
pub(crate) fn chain_of(below: Option<&Digest>, diff_id: &Digest) -> Digest {
    match below {
        None => diff_id.clone(),
        Some(below) => document::digest_of(format!("{below} {diff_id}").as_bytes()),
    }
}

/// The key under which the files of a chain of layers are found.
fn chain_key(chain: &Digest) -> String {
    format!("layers:{chain}")
}

impl Imported {
    fn of(store: Store, config: Config, arrival: Arrival) -> Self {
        let mut keys = HashMap::new();
        for record in &config.records {
            if let Some(found) = record.results.first().filter(|f| f.layer < config.layers.len()) {
                keys.insert(record.digest.clone(), found.layer);
            }
        }
        Self { store, config, keys, arrival }
    }

    /// Fills a prepared folder with that of a cache mount, if it is known here; says whether it is.
    ///
    /// # Errors
    /// The cache cannot be read, or is damaged.
    pub async fn mount(&self, job: &Arc<Job>, key: &str, prepared: &Snapshot) -> Result<bool, BuildError> {
        let Some(layer) = self.keys.get(key).and_then(|n| self.config.layers.get(*n)) else { return Ok(false) };
        let diff_id = Digest::parse(&layer.annotations.diff_id)
            .map_err(|_| BuildError::invalid("a layer of the cache has no diff id"))?;
        let blob = descriptor(&layer.annotations.media_type, layer.blob.clone(), layer.annotations.size);
        self.arrival.protect(&blob.digest);
        self.store.fetch(job, &blob).await?;
        in_place(|| fill(&job.builder, &blob, &diff_id, prepared))?;
        Ok(true)
    }

    /// Makes what a key stands for from its layers; nothing if it is not known here.
    ///
    /// # Errors
    /// The cache cannot be read, or is damaged.
    pub async fn find(&self, job: &Arc<Job>, key: &str) -> Result<Option<Arc<Node>>, BuildError> {
        let Some(top) = self.keys.get(key).filter(|_| !key.starts_with(MOUNT_KEY)) else { return Ok(None) };
        let mut order = Vec::new();
        let mut at = i64::try_from(*top).unwrap_or(-1);
        while let Some(layer) = usize::try_from(at).ok().and_then(|n| self.config.layers.get(n)) {
            order.push(at as usize);
            at = layer.parent;
            if order.len() > self.config.layers.len() {
                return Err(BuildError::invalid("the layers of a cache stand upon each other in a circle"));
            }
        }
        order.reverse();
        // Two steps must not unpack the same layers side by side.
        let _turn = job.builder.turn("import").await;
        let mut chain: Option<Digest> = None;
        let mut below: Option<Snapshot> = None;
        // What is found on the way is not collected meanwhile.
        let mut held: Vec<Arc<Node>> = Vec::new();
        for number in order {
            let layer = &self.config.layers[number];
            let diff_id = Digest::parse(&layer.annotations.diff_id)
                .map_err(|_| BuildError::invalid("a layer of the cache has no diff id"))?;
            let own = chain_of(chain.as_ref(), &diff_id);
            let known = job.builder.cache.find(&chain_key(&own));
            let base = job.builder.known_chain(&own);
            let node = match (known, base) {
                (Some(node), _) => node,
                (None, Some(snapshot)) => {
                    (below, chain) = (Some(snapshot), Some(own));
                    held.clear();
                    continue;
                }
                (None, None) => self.unpack(job, number, &diff_id, below.as_ref(), &own).await?,
            };
            (below, chain) = (Some(node.snapshot.clone()), Some(own));
            held.push(node);
        }
        let Some(node) = held.pop() else { return Ok(None) };
        job.builder.cache.alias(key, &node);
        Ok(Some(node))
    }

    async fn unpack(
        &self,
        job: &Arc<Job>,
        number: usize,
        diff_id: &Digest,
        below: Option<&Snapshot>,
        chain: &Digest,
    ) -> Result<Arc<Node>, BuildError> {
        let layer = &self.config.layers[number];
        let blob = descriptor(&layer.annotations.media_type, layer.blob.clone(), layer.annotations.size);
        self.arrival.protect(&blob.digest);
        self.store.fetch(job, &blob).await?;
        let builder = &job.builder;
        in_place(|| {
            let snapshots = &builder.parts.snapshots;
            let prepared = snapshots.prepare(below)?;
            let filled = fill(builder, &blob, diff_id, &prepared);
            if let Err(e) = filled {
                // What stays has no owner and goes when the daemon starts.
                let _ = snapshots.remove(&prepared);
                return Err(e);
            }
            let snapshot = snapshots.commit(prepared)?;
            let own = self.config.records.iter().filter(|r| r.results.first().is_some_and(|f| f.layer == number));
            let mut keys: Vec<String> = own.map(|r| r.digest.clone()).collect();
            keys.push(chain_key(chain));
            let created = layer.annotations.created.unwrap_or_else(Timestamp::now);
            let node = builder.cache.add(snapshot, keys, "imported from a cache", "regular", created)?;
            builder.cache.packed(&node, &blob, diff_id);
            Ok(node)
        })
    }
}

/// Extracts a layer into a prepared snapshot, and checks what it is.
fn fill(builder: &crate::Builder, blob: &Descriptor, diff_id: &Digest, prepared: &Snapshot) -> Result<(), BuildError> {
    let wrong = |e: wharf_archive::ArchiveError| BuildError::invalid(format!("layer {}: {}", blob.digest, Chain(&e)));
    let source = builder.parts.content.blob(&blob.digest).map_err(|e| stored(&e))?;
    let (compression, stream) = Compression::peek(BufReader::with_capacity(256 << 10, source)).map_err(wrong)?;
    let decoder = Decoder::buffered(compression, stream).map_err(wrong)?;
    let hashed = Hashed { inner: decoder, hash: ring::digest::Context::new(&ring::digest::SHA256) };
    let mut stream = BufReader::with_capacity(256 << 10, hashed);
    let target = builder.parts.snapshots.target(prepared)?;
    wharf_archive::extract(&mut stream, target.root, &target.parents, target.whiteouts).map_err(wrong)?;
    // What follows the end of the archive counts for the digest as well.
    std::io::copy(&mut stream, &mut std::io::sink())?;
    let found: String = stream.into_inner().hash.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    if found != diff_id.hex() {
        return Err(BuildError::invalid(format!("layer {}: diff id sha256:{found} instead of {diff_id}", blob.digest)));
    }
    Ok(())
}

struct Hashed<R> {
    inner: R,
    hash: ring::digest::Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

/// Writes what a build made to a cache elsewhere; returns facts for the client.
///
/// # Errors
/// The place is unknown or cannot be written.
pub async fn export(job: &Arc<Job>, place: &Place, images: &[Image]) -> Result<BTreeMap<String, String>, BuildError> {
    if place.kind == "inline" {
        // It went into the image.
        return Ok(BTreeMap::new());
    }
    let to_client = place.kind == "local" || place.attr("ref").is_empty();
    let what = if place.kind == "mounts" { "cache mounts" } else { "cache" };
    let title = format!("exporting {what} to {}", if to_client { "client directory" } else { "registry" });
    let digest = wharf_solver::digest_of(format!("{title}{:?}", place.attrs).as_bytes());
    let step = Step::start(&job.progress, &digest, &title, Vec::new(), None);
    let done = write(job, place, images, &step).await;
    step.done(false, &done.as_ref().err().map(ToString::to_string).unwrap_or_default());
    match done {
        Err(e) if place.attr("ignore-error") == "true" => {
            tracing::warn!(error = %e, "a build cache was not exported");
            Ok(BTreeMap::new())
        }
        done => done,
    }
}

async fn write(
    job: &Arc<Job>,
    place: &Place,
    images: &[Image],
    step: &Step,
) -> Result<BTreeMap<String, String>, BuildError> {
    let store = Store::of(job, place, true).await?;
    step.status("preparing build cache for export", 0, 0, false);
    let arrival = job.builder.parts.images.arrival();
    // The parts keep their blobs until all is sent.
    let (config, blobs, _parts) = match place.kind.as_str() {
        "mounts" => {
            let mounts = job.mounts().await?;
            in_place(|| collect_mounts(job, place, mounts))?
        }
        _ => in_place(|| collect(job, place, images))?,
    };
    let content = &job.builder.parts.content;
    let put = |kind: &str, bytes: &[u8]| -> Result<Descriptor, BuildError> {
        let digest = document::digest_of(bytes);
        arrival.protect(&digest);
        content.put(bytes).map_err(|e| stored(&e))?;
        Ok(descriptor(kind, digest, bytes.len() as u64))
    };
    // These types always print.
    let config = put(CONFIG, &serde_json::to_vec(&config).unwrap_or_default())?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        config: config.clone(),
        layers: blobs.clone(),
        annotations: oci::Labels::new(),
    };
    let target = put(media_type::MANIFEST, &serde_json::to_vec(&manifest).unwrap_or_default())?;
    step.status("preparing build cache for export", 0, 0, true);
    let mut facts = BTreeMap::new();
    match &store {
        Store::Session(session, id) => {
            for blob in blobs.iter().chain([&config, &target]) {
                let source = content.blob(&blob.digest).map_err(|e| stored(&e))?;
                session.write_blob(id, blob, source).await?;
                step.status(&format!("writing layer {}", blob.digest), 0, 0, true);
            }
            let fact = if place.kind == "mounts" { "cache.mounts.manifest" } else { "cache.manifest" };
            facts.insert(fact.to_owned(), serde_json::to_string(&target).unwrap_or_default());
        }
        Store::Here => {}
        Store::Registry(repository) => {
            let parcel = |blob: &Descriptor| Parcel { descriptor: blob.clone(), sources: Vec::new() };
            let shipment = Shipment {
                blobs: blobs.iter().chain([&config]).map(parcel).collect(),
                documents: vec![target.clone()],
                tag: place.reference()?.tag().map(str::to_owned),
            };
            let hear: wharf_distribution::Listener = Arc::new(|_, _| {});
            wharf_distribution::push(repository, content, shipment, &hear).await.map_err(|e| said(&e))?;
            step.status(&format!("writing cache manifest {}", target.digest), 0, 0, true);
        }
    }
    Ok(facts)
}

/// What to export: layers, each once, and the keys of the steps that made them.
fn collect(
    job: &Arc<Job>,
    place: &Place,
    images: &[Image],
) -> Result<(Config, Vec<Descriptor>, Vec<Part>), BuildError> {
    let cache = &job.builder.cache;
    let mut tops: BTreeMap<u64, Snapshot> = BTreeMap::new();
    for image in images {
        if let Some(snapshot) = image.value.snapshot() {
            tops.insert(snapshot.number, snapshot.clone());
        }
    }
    if place.attr("mode") == "max" {
        for value in job.made() {
            if let Files::Layer(node) = &value.files {
                tops.insert(node.snapshot.number, node.snapshot.clone());
            }
        }
    }
    let packing = place.packing();
    let mut config = Config::default();
    let (mut places, mut blobs, mut kept) = (HashMap::new(), Vec::new(), Vec::new());
    let mut told: BTreeSet<(String, usize)> = BTreeSet::new();
    for top in tops.values() {
        let (parts, _) = chain_parts(job, top, packing, None)?;
        let numbers = top.lowers.iter().rev().copied().chain([top.number]);
        let (mut chain, mut parent): (Option<Digest>, i64) = (None, -1);
        for (part, number) in parts.iter().zip(numbers) {
            let (blob, diff_id) = match part {
                Part::Known(blob, diff_id) => (blob, diff_id),
                Part::New(layer) => (&layer.blob, &layer.diff_id),
            };
            let own = chain_of(chain.as_ref(), diff_id);
            let node = cache.by_number(number).filter(|n| n.snapshot_of_record().kind != MOUNT);
            let index = *places.entry(own.clone()).or_insert_with(|| {
                let annotations = Notes {
                    media_type: blob.media_type.clone(),
                    diff_id: diff_id.to_string(),
                    size: blob.size,
                    created: node.as_ref().map(|n| n.created),
                };
                config.layers.push(Layer { blob: blob.digest.clone(), parent, annotations });
                if !blobs.iter().any(|b: &Descriptor| b.digest == blob.digest) {
                    blobs.push(Descriptor { annotations: oci::Labels::new(), ..blob.clone() });
                }
                config.layers.len() - 1
            });
            for key in node.iter().flat_map(|n| n.snapshot_of_record().keys) {
                if !key.starts_with("layers:") && told.insert((key.clone(), index)) {
                    let found = Found { layer: index, created: node.as_ref().map(|n| n.created) };
                    config.records.push(Record { digest: key, results: vec![found] });
                }
            }
            (chain, parent) = (Some(own), i64::try_from(index).unwrap_or(-1));
        }
        kept.extend(parts);
    }
    Ok((config, blobs, kept))
}

/// The folders of cache mounts that the build's steps have, each as one layer.
fn collect_mounts(
    job: &Arc<Job>,
    place: &Place,
    mounts: BTreeSet<String>,
) -> Result<(Config, Vec<Descriptor>, Vec<Part>), BuildError> {
    let builder = &job.builder;
    let mut config = Config::default();
    let (mut blobs, mut kept): (Vec<Descriptor>, Vec<Part>) = (Vec::new(), Vec::new());
    for key in mounts {
        let Some(node) = builder.cache.find(&format!("{key}#0")) else { continue };
        let difference = builder.parts.snapshots.difference(&node.snapshot)?;
        let layer = builder.parts.images.layer(&difference, place.packing())?;
        let annotations = Notes {
            media_type: layer.blob.media_type.clone(),
            diff_id: layer.diff_id.to_string(),
            size: layer.blob.size,
            created: Some(node.created),
        };
        let found = Found { layer: config.layers.len(), created: Some(node.created) };
        config.layers.push(Layer { blob: layer.blob.digest.clone(), parent: -1, annotations });
        config.records.push(Record { digest: key, results: vec![found] });
        if !blobs.iter().any(|b| b.digest == layer.blob.digest) {
            blobs.push(layer.blob.clone());
        }
        kept.push(Part::New(layer));
    }
    Ok((config, blobs, kept))
}

/// The caches of a job, read once.
pub type Imports = OnceCell<Vec<Arc<Imported>>>;
