//! Images: the store's data in the API's shapes, progress as lines.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;
use wharf_api_server::ApiError;
use wharf_api_server::backend::{ImageBackend, Incoming, Outgoing, Reply};
use wharf_api_types as api;
use wharf_api_types::query;
use wharf_engine::EngineError;
use wharf_error::{HasKind, Kind};
use wharf_image::{
    Details, Filters, HistoryEntry, ImportRequest, LoadProgress, ManifestKind, ManifestSummary, More, RemoveOptions,
    Removed, Summary,
};
use wharf_oci::image as oci;
use wharf_types::{Reference, Timestamp};

use super::bodies::{BodyReader, send};
use super::{Joined, blocking};

/// Filters of `docker images` and `docker image prune`.
fn filters(given: &api::Filters, known: &[&str]) -> Result<Filters, ApiError> {
    given.check_keys(known).map_err(|e| ApiError::of(&e))?;
    let all = |key: &str| given.get(key).map(str::to_owned).collect::<Vec<_>>();
    let dangling = match given.contains("dangling") {
        true => Some(given.bool_or("dangling", false).map_err(|e| ApiError::of(&e))?),
        false => None,
    };
    let until = match given.get("until").next() {
        Some(text) => Some(wharf_engine::until(text).map_err(|e| ApiError::of(&e))?),
        None => None,
    };
    Ok(Filters {
        dangling,
        label: all("label"),
        label_not: all("label!"),
        before: all("before"),
        since: all("since"),
        reference: all("reference"),
        until,
    })
}

pub(super) fn platform(p: &oci::Platform) -> api::OciPlatform {
    api::OciPlatform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        os_version: p.os_version.clone(),
        os_features: (!p.os_features.is_empty()).then(|| p.os_features.clone()),
        variant: p.variant.clone(),
    }
}

/// `os[/arch[/variant]]`.
pub(super) fn parse_platform(text: &str) -> Option<oci::Platform> {
    let mut words = text.split('/').map(str::to_owned);
    let os = words.next().filter(|w| !w.is_empty())?;
    let default = oci::Platform::default();
    let (architecture, variant) = (words.next().unwrap_or(default.architecture), words.next().unwrap_or_default());
    Some(oci::Platform { os, architecture, variant, ..oci::Platform::default() })
}

fn of_api(p: &api::OciPlatform) -> oci::Platform {
    oci::Platform {
        os: p.os.clone(),
        architecture: p.architecture.clone(),
        variant: p.variant.clone(),
        ..oci::Platform::default()
    }
}

pub(super) fn descriptor(d: &oci::Descriptor) -> api::OciDescriptor {
    api::OciDescriptor {
        media_type: d.media_type.clone(),
        digest: d.digest.to_string(),
        size: d.size as i64,
        annotations: (!d.annotations.is_empty()).then(|| d.annotations.clone().into_iter().collect()),
        artifact_type: d.artifact_type.clone(),
        platform: d.platform.as_ref().map(platform),
        ..api::OciDescriptor::default()
    }
}

fn names(list: &[Reference]) -> Vec<String> {
    list.iter().map(Reference::familiar).collect()
}

pub(super) fn summary(row: &Summary, images: &wharf_engine::images::Images) -> api::ImageSummary {
    let image = &row.image;
    let containers = images.containers(&image.id);
    let users = if row.manifests.is_empty() { Vec::new() } else { images.containers_with_platform(&image.id) };
    let labels = &image.config.config.labels;
    api::ImageSummary {
        containers,
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: image.config.created.map_or(0, Timestamp::seconds),
        id: image.id.to_string(),
        labels: (!labels.is_empty()).then(|| labels.clone().into_iter().collect()),
        descriptor: Some(descriptor(&image.target)),
        repo_digests: names(&row.names.digests),
        repo_tags: names(&row.names.tags),
        shared_size: row.shared.map_or(-1, |shared| shared as i64),
        size: row.total as i64,
        manifests: (!row.manifests.is_empty()).then(|| row.manifests.iter().map(|row| manifest(row, &users)).collect()),
    }
}

/// Containers, each with the platform of its image's manifest.
type Users = [(String, api::OciPlatform)];

fn manifest(row: &ManifestSummary, users: &Users) -> api::ImageManifestSummary {
    let (kind, image_data, attestation_data) = match &row.kind {
        ManifestKind::Image { platform: of, unpacked } => {
            let size = api::UnpackedSize { unpacked: *unpacked as i64 };
            let fits = |p: &api::OciPlatform| {
                let variant = p.variant.is_empty() || of.variant.is_empty() || p.variant == of.variant;
                p.os == of.os && p.architecture == of.architecture && variant
            };
            let containers: Vec<String> =
                users.iter().filter(|(_, platform)| fits(platform)).map(|(id, _)| id.clone()).collect();
            let containers = (!containers.is_empty()).then_some(containers);
            ("image", Some(api::ManifestImageData { platform: platform(of), size, containers }), None)
        }
        ManifestKind::Attestation { of } => {
            ("attestation", None, Some(api::ManifestAttestationData { r#for: of.clone() }))
        }
        ManifestKind::Unknown => ("unknown", None, None),
    };
    api::ImageManifestSummary {
        id: row.descriptor.digest.to_string(),
        descriptor: descriptor(&row.descriptor),
        available: row.available,
        size: api::ManifestSize { content: row.content as i64, total: row.total() as i64 },
        kind: kind.to_owned(),
        image_data,
        attestation_data,
    }
}

/// The configuration's keys are the same in both; only what absence means differs, which serde keeps apart.
fn image_config(config: &oci::Config) -> Result<api::ImageConfig, ApiError> {
    let moved = serde_json::to_value(config).and_then(serde_json::from_value);
    moved.map_err(|e| ApiError::new(Kind::DataLoss, format!("image configuration: {e}")))
}

fn inspect(details: &Details, driver: &str) -> Result<api::ImageInspect, ApiError> {
    let image = &details.image;
    let config = &image.config;
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    Ok(api::ImageInspect {
        id: image.id.to_string(),
        repo_tags: names(&details.names.tags),
        repo_digests: names(&details.names.digests),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: config.history.last().map(|h| h.comment.clone()).unwrap_or_default(),
        created: config.created,
        author: config.author.clone(),
        architecture: config.platform.architecture.clone(),
        variant: config.platform.variant.clone(),
        os: config.platform.os.clone(),
        os_version: config.platform.os_version.clone(),
        size: details.size as i64,
        graph_driver: api::DriverData { name: driver.to_owned(), ..api::DriverData::default() },
        root_fs: api::RootFs { r#type: config.rootfs.kind.clone(), layers: (!layers.is_empty()).then_some(layers) },
        metadata: api::ImageMetadata { last_tag_time: details.last_tagged.unwrap_or_default() },
        descriptor: Some(descriptor(&image.target)),
        config: Some(image_config(&config.config)?),
        ..api::ImageInspect::default()
    })
}

fn history(entry: HistoryEntry) -> api::ImageHistoryItem {
    api::ImageHistoryItem {
        comment: entry.comment,
        created: entry.created,
        created_by: entry.created_by,
        id: entry.id,
        size: entry.size as i64,
        tags: (!entry.tags.is_empty()).then_some(entry.tags),
    }
}

fn removed(items: Vec<Removed>) -> Vec<api::ImageDeleteItem> {
    let item = |removed| match removed {
        Removed::Untagged { name, .. } => api::ImageDeleteItem { untagged: name, ..api::ImageDeleteItem::default() },
        Removed::Deleted(id) => api::ImageDeleteItem { deleted: id.to_string(), ..api::ImageDeleteItem::default() },
    };
    items.into_iter().map(item).collect()
}

/// The reference of an import: repository, and a tag beside it or within.
pub(super) fn reference(repo: &str, tag: &str) -> Result<Option<Reference>, ApiError> {
    if repo.is_empty() {
        return Ok(None);
    }
    let parsed = Reference::parse(repo).map_err(|e| ApiError::of(&e))?;
    let parsed = if tag.is_empty() { parsed } else { parsed.with_tag(tag).map_err(|e| ApiError::of(&e))? };
    Ok(Some(parsed.with_default_tag()))
}

/// Runs work that blocks and reports lines; its error comes as the last one.
fn progress<E: HasKind>(
    work: impl FnOnce(&mut (dyn FnMut(api::Progress) + Send)) -> Result<(), E> + Send + 'static,
) -> Outgoing<api::Progress> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        // A client that left does not stop the work: what was sent whole is kept.
        let outcome = work(&mut |line| drop(sender.blocking_send(Ok(line))));
        if let Err(e) = outcome {
            let _ = sender.blocking_send(Err(ApiError::of(&e)));
        }
    });
    receiver
}

/// A file as a request's body would come.
fn fetched(mut file: wharf_distribution::Download) -> Incoming {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let piece = match file.chunk().await {
                Ok(None) => return,
                Ok(Some(bytes)) => Ok(bytes),
                Err(e) => Err(ApiError::of(&e)),
            };
            let last = piece.is_err();
            // Whoever reads it may have failed.
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// Bytes between two lines of progress, as moby's.
const TOLD_EVERY: i64 = 512 << 10;

/// A reader that says how far it is.
struct Telling<'a> {
    source: BodyReader,
    say: &'a mut (dyn FnMut(api::Progress) + Send),
    current: i64,
    told: i64,
    total: i64,
}

impl Read for Telling<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(out)?;
        self.current += n as i64;
        let ended = n == 0 && self.told < self.current;
        if ended || self.current - self.told >= TOLD_EVERY {
            self.told = self.current;
            let detail =
                api::ProgressDetail { current: self.current, total: self.total, ..api::ProgressDetail::default() };
            (self.say)(api::Progress {
                status: "Importing".to_owned(),
                progress_detail: Some(detail),
                ..api::Progress::default()
            });
        }
        Ok(n)
    }
}

fn load_line(step: LoadProgress) -> api::Progress {
    match step {
        LoadProgress::Line(text) => api::Progress { stream: text, ..api::Progress::default() },
        LoadProgress::Layer { id, current, total } => api::Progress {
            status: "Loading layer".to_owned(),
            id,
            progress_detail: Some(api::ProgressDetail {
                current: current as i64,
                total: total as i64,
                ..api::ProgressDetail::default()
            }),
            ..api::Progress::default()
        },
    }
}

impl ImageBackend for Joined {
    fn list(&self, query: query::ImageList) -> Reply<'_, Vec<api::ImageSummary>> {
        let images = self.0.images.clone();
        let wanted = filters(&query.filters, &["dangling", "label", "label!", "before", "since", "reference", "until"]);
        blocking(move || -> Result<_, ApiError> {
            let more = More { shared: query.shared_size, manifests: query.manifests };
            let rows = images.list(&wanted?, more).map_err(|e| ApiError::of(&e))?;
            Ok(rows.iter().map(|row| summary(row, &images)).collect())
        })
    }

    fn inspect<'a>(&'a self, name: &'a str, query: query::ImageInspect) -> Reply<'a, api::ImageInspect> {
        let (images, name) = (self.0.images.clone(), name.to_owned());
        let driver = self.0.system.storage_driver().to_owned();
        blocking(move || -> Result<_, ApiError> {
            let wanted = query.platform.as_ref().map(of_api);
            let details = images.inspect(&name, wanted.as_ref()).map_err(|e| ApiError::of(&e))?;
            let mut shown = inspect(&details, &driver)?;
            if query.manifests {
                let rows = images.manifests(&details).map_err(|e| ApiError::of(&e))?;
                let users = images.containers_with_platform(&details.image.id);
                shown.manifests = Some(rows.iter().map(|row| manifest(row, &users)).collect());
            }
            Ok(shown)
        })
    }

    fn history<'a>(&'a self, name: &'a str, query: query::ImageInspect) -> Reply<'a, Vec<api::ImageHistoryItem>> {
        let (images, name) = (self.0.images.clone(), name.to_owned());
        blocking(move || {
            let wanted = query.platform.as_ref().map(of_api);
            images.history(&name, wanted.as_ref()).map(|list| list.into_iter().map(history).collect())
        })
    }

    fn tag<'a>(&'a self, name: &'a str, repo: &'a str, tag: &'a str) -> Reply<'a, ()> {
        let (images, name) = (self.0.images.clone(), name.to_owned());
        let target = reference(repo, tag);
        blocking(move || -> Result<(), ApiError> {
            let target = target?.ok_or_else(|| ApiError::invalid("invalid reference format"))?;
            images.tag(&name, &target).map(drop).map_err(|e| ApiError::of(&e))
        })
    }

    fn remove<'a>(&'a self, name: &'a str, query: query::ImageRemove) -> Reply<'a, Vec<api::ImageDeleteItem>> {
        let (images, name) = (self.0.images.clone(), name.to_owned());
        let options = RemoveOptions { force: query.force, prune: query.prune };
        blocking(move || images.remove(&name, options).map(removed))
    }

    fn prune(&self, given: api::Filters, dry: bool) -> Reply<'_, api::ImagePruneResponse> {
        let images = self.0.images.clone();
        let wanted = filters(&given, &["dangling", "label", "label!", "until"]);
        blocking(move || -> Result<_, ApiError> {
            let pruned = images.prune(&wanted?, dry).map_err(|e| ApiError::of(&e))?;
            let list = removed(pruned.removed);
            let images_deleted = (!list.is_empty()).then_some(list);
            Ok(api::ImagePruneResponse { images_deleted, space_reclaimed: pruned.reclaimed })
        })
    }

    fn import(&self, query: query::ImageImport, body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        let images = self.0.images.clone();
        let client = self.0.registries.client().clone();
        Box::pin(async move {
            let mut request = ImportRequest {
                reference: reference(&query.repo, &query.tag)?,
                changes: query.changes,
                message: query.message,
                platform: parse_platform(&query.platform),
            };
            let (mut source, mut url) = (BodyReader::new(body), None);
            let mut total = 0;
            if query.source != "-" {
                // As moby's `imagesrv.ImportImage`: what names no scheme is fetched by HTTP.
                let address = if query.source.contains("://") {
                    query.source.clone()
                } else {
                    format!("http://{}", query.source)
                };
                let file = client.download(&address).await.map_err(|e| ApiError::of(&e))?;
                total = file.length.unwrap_or(0) as i64;
                source = BodyReader::new(fetched(file));
                url = Some(address);
                if request.message.is_empty() {
                    request.message = format!("Imported from {}", query.source);
                }
            }
            Ok(progress(move |say| {
                let id = match url {
                    None => images.import(request, &mut source)?,
                    Some(url) => {
                        say(api::Progress { status: format!("Downloading from {url}"), ..api::Progress::default() });
                        images.import(request, &mut Telling { source, say, current: 0, told: 0, total })?
                    }
                };
                say(api::Progress { status: id.to_string(), ..api::Progress::default() });
                Ok::<(), EngineError>(())
            }))
        })
    }

    fn load(&self, query: query::ImageLoad, body: Incoming) -> Reply<'_, Outgoing<api::Progress>> {
        let images = self.0.images.clone();
        let wanted = query.platforms.first().map(of_api);
        let quiet = query.quiet;
        Box::pin(async move {
            Ok(progress(move |say| {
                let mut step = |step: LoadProgress| {
                    if !quiet || matches!(step, LoadProgress::Line(_)) {
                        say(load_line(step));
                    }
                };
                images.load(&mut BodyReader::new(body), wanted.as_ref(), &mut step).map(drop)
            }))
        })
    }

    fn save(&self, query: query::ImageSave) -> Reply<'_, Outgoing<Bytes>> {
        let images = self.0.images.clone();
        Box::pin(async move {
            // Unknown names must become a status, so they are looked up before the body begins.
            let platforms: Vec<oci::Platform> = query.platforms.iter().map(of_api).collect();
            images.savable(&query.names, &platforms).map_err(|e| ApiError::of(&e))?;
            Ok(send(move |out| images.save(&query.names, &platforms, out)))
        })
    }
}
