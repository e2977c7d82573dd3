//! Results: images of this daemon, archives and folders for the client, pushed images.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use wharf_archive::{Entry, EntryKind, Time};
use wharf_error::Kind;
use wharf_image::{Hold, NewImage, Packing, Part};
use wharf_oci::image::{self as oci, Descriptor, Index, media_type};
use wharf_proto_buildkit::filesync::BytesMessage;
use wharf_snapshot::Snapshot;
use wharf_types::{Digest, Reference, Timestamp};

use crate::frontend::Image;
use crate::job::{Files, Job, Value};
use crate::local::in_place;
use crate::progress::Step;
use crate::{BuildError, send};

/// One wanted result.
#[derive(Clone, Debug, Default)]
pub struct Exporter {
    /// `image`, `moby`, `docker`, `oci`, `tar`, `local`, `cacheonly`.
    pub kind: String,
    /// `name`, `push`, `annotation.X`, …
    pub attrs: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// `containerimage.digest` and the like.
    pub facts: BTreeMap<String, String>,
    /// The image's id, if one was made.
    pub image: Option<String>,
}

impl Exporter {
    fn names(&self) -> Result<Vec<Reference>, BuildError> {
        let text = self.attrs.get("name").map_or("", String::as_str);
        let parse = |n: &str| {
            Reference::parse(n)
                .map(Reference::with_default_tag)
                .map_err(|e| BuildError::invalid(format!("failed to parse {n}: {e}")))
        };
        text.split(',').map(str::trim).filter(|n| !n.is_empty() && *n != "*").map(parse).collect()
    }

    /// Annotations of a level, under each of the names that it has.
    fn annotations(&self, levels: &[&str]) -> oci::Labels {
        let all = self.attrs.iter().filter_map(|(k, v)| {
            let key = levels.iter().find_map(|level| k.strip_prefix(level)?.strip_prefix('.'))?;
            Some((key.to_owned(), v.clone()))
        });
        all.collect()
    }

    fn pushes(&self) -> bool {
        self.attrs.get("push").is_some_and(|p| p == "true")
    }

    /// SOURCE_DATE_EPOCH: the result's own, or the build's.
    fn epoch(&self, job: &Job) -> Result<Option<i64>, BuildError> {
        match self.attrs.get("source-date-epoch").filter(|t| !t.is_empty()) {
            None => Ok(job.settings.epoch),
            Some(text) => {
                let seconds = text.parse().map_err(|_| BuildError::invalid(format!("invalid epoch: {text}")))?;
                Ok(Some(seconds))
            }
        }
    }

    fn packing(&self) -> Packing {
        match self.attrs.get("compression").map(String::as_str) {
            Some("gzip" | "estargz") => Packing::Gzip,
            Some("zstd") => Packing::Zstd,
            // What travels is made small.
            _ if self.pushes() => Packing::Gzip,
            _ => Packing::Plain,
        }
    }

    /// Carries it out.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn export(&self, job: &Arc<Job>, number: usize, images: &[Image]) -> Result<Exported, BuildError> {
        let title = match self.kind.as_str() {
            "image" | "moby" => "exporting to image",
            "docker" => "exporting to docker image format",
            "oci" => "exporting to oci image format",
            "tar" => "exporting to client tarball",
            "local" => "exporting to client directory",
            "cacheonly" | "" => return Ok(Exported::default()),
            other => return Err(BuildError::invalid(format!("exporter {other:?} could not be found"))),
        };
        let step = Step::start(
            &job.progress,
            &wharf_solver::digest_of(format!("{title}{number}").as_bytes()),
            title,
            Vec::new(),
            None,
        );
        let done = self.carry_out(job, number, images, &step).await;
        step.done(false, &done.as_ref().err().map(ToString::to_string).unwrap_or_default());
        done
    }

    async fn carry_out(
        &self,
        job: &Arc<Job>,
        number: usize,
        images: &[Image],
        step: &Step,
    ) -> Result<Exported, BuildError> {
        let single = || images.first().ok_or_else(|| BuildError::invalid("the build has no result"));
        match self.kind.as_str() {
            "image" | "moby" => {
                let names = self.names()?;
                if self.pushes() && names.is_empty() {
                    return Err(BuildError::invalid("tag is needed when pushing to registry"));
                }
                let hold = match images {
                    [] => return Err(BuildError::invalid("the build has no result")),
                    [single] => in_place(|| self.assemble(job, single, names.clone(), step))?,
                    several => in_place(|| self.index(job, several, &names, step))?,
                };
                for name in &names {
                    step.status(&format!("naming to {name}"), 0, 0, true);
                    (job.builder.parts.told)(&name.familiar(), "tag");
                }
                if self.pushes() {
                    for name in &names {
                        self.push(job, name, step).await?;
                    }
                }
                let mut done = facts(&hold, &names);
                // Clients take it for the image's id if it is there, which here is the manifest's digest.
                done.facts.remove("containerimage.config.digest");
                Ok(done)
            }
            "docker" | "oci" => {
                let docker = self.kind == "docker";
                if docker && images.len() > 1 {
                    return Err(BuildError::invalid(
                        "docker exporter does not currently support exporting manifest lists",
                    ));
                }
                let names = self.names()?;
                let begun = Timestamp::now();
                let mut held = Vec::new();
                for image in images {
                    held.push(in_place(|| self.assemble(job, image, Vec::new(), step))?);
                }
                let index = (held.len() > 1).then(|| self.index_of(&held));
                let mut done = held.first().map(|h| facts(h, &names)).unwrap_or_default();
                if let Some((bytes, target)) = &index {
                    done = facts_of(target, &names);
                    step.status(&format!("exporting manifest list {}", target.digest), bytes.len() as i64, 0, true);
                }
                let ids: Vec<_> = held.iter().map(|h| (h.image.id.clone(), h.image.added)).collect();
                let content = Layout { job: job.clone(), held, names, docker, index };
                let sent = self.stream(job, number, move |out| content.write(out)).await;
                in_place(|| forget(job, &ids, begun));
                sent?;
                Ok(done)
            }
            "tar" => {
                if images.len() > 1 {
                    return Err(BuildError::new(
                        Kind::NotImplemented,
                        "results of several platforms cannot go into one archive yet: use type=local or type=oci",
                    ));
                }
                let tree = job.view(&single()?.value)?;
                // The root of a fresh mount is no folder that can be listed (fsmount(2): O_PATH).
                let root = tree.folder(Path::new("/"))?;
                self.stream(job, number, move |out| {
                    wharf_archive::pack(root.as_fd(), out).map_err(|e| BuildError::system("pack the result", &e))
                })
                .await?;
                Ok(Exported::default())
            }
            _ => {
                let mut trees = Vec::new();
                for image in images {
                    // Each platform has a folder of its own, if there are several.
                    let platform = [&image.platform.os, &image.platform.architecture, &image.platform.variant];
                    let name: Vec<&str> = platform.into_iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
                    let name = if images.len() > 1 { name.join("_") } else { String::new() };
                    trees.push((name, job.view(&image.value)?));
                }
                send::folders(job.session()?, number, &trees, step).await?;
                Ok(Exported::default())
            }
        }
    }

    /// Sends what `write` writes to the client as it is written.
    async fn stream<F>(&self, job: &Arc<Job>, number: usize, write: F) -> Result<(), BuildError>
    where
        F: FnOnce(&mut dyn Write) -> Result<(), BuildError> + Send + 'static,
    {
        let (sender, answer) = job.session()?.send_result(number, &[]).await?;
        let (pipe, mut received) = tokio::sync::mpsc::channel::<Vec<u8>>(8);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = std::io::BufWriter::with_capacity(512 << 10, Pipe(pipe));
            write(&mut out)?;
            out.flush().map_err(|e| BuildError::system("send the result", &e))
        });
        while let Some(data) = received.recv().await {
            sender.send(&BytesMessage { data }).await?;
        }
        writing.await.map_err(|_| BuildError::cancelled())??;
        drop(sender);
        let mut answer = answer.await?;
        while answer.bytes().await?.is_some() {}
        Ok(())
    }

    /// Makes an image of a result.
    fn assemble(&self, job: &Job, image: &Image, names: Vec<Reference>, step: &Step) -> Result<Hold, BuildError> {
        step.status("exporting layers", 0, 0, false);
        let epoch = self.epoch(job)?;
        // The layers of the base stay as they are.
        let rewritten = epoch.filter(|_| self.attrs.get("rewrite-timestamp").is_some_and(|r| r == "true"));
        let latest = rewritten.map(|seconds| {
            let base = image.config.rootfs.diff_ids.len();
            Latest { base, time: Time { seconds, nanoseconds: 0 } }
        });
        let (parts, times, top) = layers(job, &image.value, self.packing(), latest)?;
        step.status("exporting layers", 0, 0, true);
        let mut config = image.config.clone();
        let epoch = epoch.map(|s| Timestamp::from_unix(s, 0));
        complete_history(&mut config, &times, epoch);
        config.rootfs = oci::RootFs::default();
        // That of the base tells of the base.
        config.build_cache =
            if job.inline { crate::transfer::inline(job, top.as_ref(), &parts) } else { String::new() };
        let annotations = self.annotations(&["annotation", "annotation-manifest"]);
        let wanted = NewImage { names, config, annotations, parent: None };
        let hold = job.builder.parts.images.assemble(wanted, parts)?;
        step.status(&format!("writing image {}", hold.image.id.as_str()), 0, 0, true);
        Ok(hold)
    }
}

impl Exporter {
    /// An index of images that are here, and what it is.
    fn index_of(&self, held: &[Hold]) -> (Vec<u8>, Descriptor) {
        let notes = self.annotations(&["annotation-manifest-descriptor"]);
        let entry = |hold: &Hold| {
            let mut one = hold.image.target.clone();
            one.platform = Some(hold.image.config.platform.clone());
            one.annotations.extend(notes.clone());
            one
        };
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests: held.iter().map(entry).collect(),
            annotations: self.annotations(&["annotation-index"]),
        };
        // Indexes always print.
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        let target = Descriptor {
            media_type: media_type::INDEX.to_owned(),
            digest: wharf_distribution::document::digest_of(&bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: oci::Labels::new(),
            platform: None,
            artifact_type: String::new(),
        };
        (bytes, target)
    }

    /// Makes one image of several platforms.
    fn index(&self, job: &Job, images: &[Image], names: &[Reference], step: &Step) -> Result<Hold, BuildError> {
        let begun = Timestamp::now();
        let store = &job.builder.parts.images;
        let held: Vec<Hold> =
            images.iter().map(|i| self.assemble(job, i, Vec::new(), step)).collect::<Result<_, _>>()?;
        let (bytes, target) = self.index_of(&held);
        let arrival = store.arrival();
        arrival.protect(&target.digest);
        for blob in held.iter().flat_map(|h| &h.image.blobs) {
            arrival.protect(&blob.digest);
        }
        job.builder.parts.content.put(&bytes).map_err(|e| BuildError::system("store the index", &e))?;
        let own = wharf_image::this_platform();
        let fits = |h: &&Hold| h.image.config.platform.architecture == own.architecture;
        let Some(best) = held.iter().find(fits).or(held.first()) else {
            return Err(BuildError::invalid("the build has no result"));
        };
        let image = arrival.finish(&target, &best.image.config.platform, best.image.chain.clone(), names)?;
        let hold = store.hold(image.id.as_str())?;
        step.status(&format!("exporting manifest list {}", target.digest), 0, 0, true);
        let ids: Vec<_> = held.iter().map(|h| (h.image.id.clone(), h.image.added)).collect();
        drop(held);
        forget(job, &ids, begun);
        Ok(hold)
    }

    async fn push(&self, job: &Job, name: &Reference, step: &Step) -> Result<(), BuildError> {
        let login = job.login(name.domain()).await;
        let told = |current: i64, total: i64| step.status("pushing layers", current, total, false);
        step.status("pushing layers", 0, 0, false);
        let pushed = job.builder.parts.registry.push(name, login, &told).await;
        pushed.map_err(|e| BuildError { text: format!("failed to push {}: {e}", name.familiar()).into(), ..e })?;
        step.status("pushing layers", 0, 0, true);
        step.status(&format!("pushing manifest for {name}"), 0, 0, true);
        Ok(())
    }
}

/// Takes images away that were made only to be sent on. What was here before stays, and so does what got a name since.
fn forget(job: &Job, ids: &[(wharf_image::ImageId, Timestamp)], begun: Timestamp) {
    for (id, added) in ids.iter().filter(|(_, added)| added.unix_nanos() >= begun.unix_nanos()) {
        let removed = job.builder.parts.images.remove(id.as_str(), Default::default(), &|_| Vec::new());
        if let Err(error) = removed {
            tracing::debug!(%error, image = id.as_str(), ?added, "an image that was made on the way stays");
        }
    }
}

struct Pipe(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn facts(hold: &Hold, names: &[Reference]) -> Exported {
    let image = &hold.image;
    let mut done = facts_of(&image.target, names);
    done.facts.insert("containerimage.config.digest".to_owned(), image.manifest.config.digest.to_string());
    done.image = Some(image.id.as_str().to_owned());
    done
}

fn facts_of(target: &Descriptor, names: &[Reference]) -> Exported {
    let mut facts = BTreeMap::new();
    facts.insert("containerimage.digest".to_owned(), target.digest.to_string());
    // Descriptors always print.
    let descriptor = serde_json::to_vec(target).unwrap_or_default();
    facts.insert("containerimage.descriptor".to_owned(), crate::frontend::base64_text(&descriptor));
    if !names.is_empty() {
        let list: Vec<String> = names.iter().map(ToString::to_string).collect();
        facts.insert("image.name".to_owned(), list.join(","));
    }
    Exported { facts, image: None }
}

/// The layers of a value, lowest first, and when each was made, where a step made it.
fn layers(job: &Job, value: &Value, packing: Packing, latest: Option<Latest>) -> Result<Layers, BuildError> {
    let top = match &value.files {
        Files::Context(_) => Some(crate::merge::as_snapshot(job, value)?),
        _ => value.snapshot().cloned(),
    };
    let (parts, times) = match &top {
        Some(top) => chain_parts(job, top, packing, latest)?,
        None => (Vec::new(), Vec::new()),
    };
    Ok((parts, times, top))
}

/// Times in layers upon a base of so many are not later than this.
#[derive(Clone, Copy)]
pub(crate) struct Latest {
    base: usize,
    time: Time,
}

/// Layers, lowest first, when each was made, and the snapshot that they are.
type Layers = (Vec<Part>, Vec<Option<Timestamp>>, Option<Snapshot>);

/// The layers of a snapshot and of those below it, lowest first, and when each was made, where a step made it.
pub(crate) fn chain_parts(
    job: &Job,
    top: &Snapshot,
    packing: Packing,
    latest: Option<Latest>,
) -> Result<(Vec<Part>, Vec<Option<Timestamp>>), BuildError> {
    let builder = &job.builder;
    let chain: Vec<u64> = top.lowers.iter().rev().copied().chain([top.number]).collect();
    let (mut parts, mut times) = (Vec::new(), Vec::new());
    for (i, number) in chain.iter().enumerate() {
        let node = builder.cache.by_number(*number);
        times.push(node.as_ref().map(|n| n.created));
        if let Some(latest) = latest.filter(|l| i >= l.base) {
            let snapshot =
                Snapshot { number: *number, lowers: chain[..i].iter().rev().copied().collect(), writable: false };
            let difference = builder.parts.snapshots.difference(&snapshot)?;
            // Its directory has other times, so it is not this layer's: the image gets one of its own.
            parts.push(Part::New(builder.parts.images.layer_until(&difference, packing, Some(latest.time))?));
            continue;
        }
        let known = builder.known_layer(*number).or_else(|| node.as_ref().and_then(|n| n.layer()));
        let here = |blob: &Descriptor| matches!(builder.parts.content.info(&blob.digest), Ok(Some(_)));
        if let Some((blob, diff_id)) = known.filter(|(blob, _)| here(blob)) {
            parts.push(Part::Known(blob, diff_id));
            continue;
        }
        let snapshot =
            Snapshot { number: *number, lowers: chain[..i].iter().rev().copied().collect(), writable: false };
        let difference = builder.parts.snapshots.difference(&snapshot)?;
        let layer = builder.parts.images.layer(&difference, packing)?;
        if let Some(node) = &node {
            builder.cache.packed(node, &layer.blob, &layer.diff_id);
        }
        let usage = builder.parts.snapshots.usage(&snapshot)?;
        parts.push(Part::New(layer.with_snapshot(snapshot, usage)));
    }
    Ok((parts, times))
}

/// Gives the history's new entries their times, and makes it tell of exactly as many layers as there are.
fn complete_history(config: &mut oci::Image, times: &[Option<Timestamp>], epoch: Option<Timestamp>) {
    let told = config.history.iter().filter(|h| !h.empty_layer).count();
    for _ in told..times.len() {
        // Layers of a base whose history does not tell of them stand first.
        config.history.insert(0, oci::History { created_by: "missing history".to_owned(), ..oci::History::default() });
    }
    let mut layer = 0;
    let mut last = None;
    for entry in &mut config.history {
        let made = if entry.empty_layer { None } else { times.get(layer).copied().flatten() };
        layer += usize::from(!entry.empty_layer);
        let time = entry.created.or(epoch).or(made).or(last);
        if time.is_some() {
            entry.created = time;
            last = time;
        }
    }
    // Entries before the first layer have the time of the first that has one.
    let first = config.history.iter().find_map(|h| h.created).or(epoch).unwrap_or_else(Timestamp::now);
    for entry in config.history.iter_mut().filter(|h| h.created.is_none()) {
        entry.created = Some(first);
    }
    config.created = epoch.or(last).or(Some(first));
}

/// An archive of images: an OCI layout, which `docker load` reads as well with `manifest.json` in it.
struct Layout {
    job: Arc<Job>,
    held: Vec<Hold>,
    names: Vec<Reference>,
    docker: bool,
    /// The index of several images.
    index: Option<(Vec<u8>, Descriptor)>,
}

impl Layout {
    fn write(self, out: &mut dyn Write) -> Result<(), BuildError> {
        let failed = |e: wharf_archive::ArchiveError| BuildError::system("write the archive", &e);
        let zero = Time { seconds: 0, nanoseconds: 0 };
        let mut writer = wharf_archive::Writer::new(out);
        let mut seen: Vec<Digest> = Vec::new();
        for folder in ["blobs/", "blobs/sha256/"] {
            writer
                .entry(&Entry::plain(folder, EntryKind::Directory, 0o755, 0, zero), &mut std::io::empty())
                .map_err(failed)?;
        }
        for hold in &self.held {
            for blob in &hold.image.blobs {
                if seen.contains(&blob.digest) {
                    continue;
                }
                seen.push(blob.digest.clone());
                let mut content = self
                    .job
                    .builder
                    .parts
                    .content
                    .blob(&blob.digest)
                    .map_err(|e| BuildError::system("read a blob", &e))?;
                let name = format!("blobs/sha256/{}", blob.digest.hex());
                writer
                    .entry(&Entry::plain(&name, EntryKind::File, 0o644, content.size(), zero), &mut content)
                    .map_err(failed)?;
            }
        }
        let mut file = |name: &str, bytes: &[u8]| {
            let entry = Entry::plain(name, EntryKind::File, 0o644, bytes.len() as u64, zero);
            writer.entry(&entry, &mut &bytes[..]).map_err(failed)
        };
        let mut manifests = Vec::new();
        let whole = match &self.index {
            Some((bytes, target)) => {
                file(&format!("blobs/sha256/{}", target.digest.hex()), bytes)?;
                vec![target.clone()]
            }
            None => self.held.iter().map(|h| h.image.target.clone()).collect(),
        };
        for one in whole {
            let plain = one.clone();
            for name in &self.names {
                let mut named = one.clone();
                named.annotations.insert(oci::annotation::IMAGE_NAME.to_owned(), name.to_string());
                named
                    .annotations
                    .insert(oci::annotation::REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
                manifests.push(named);
            }
            if self.names.is_empty() {
                manifests.push(plain);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests,
            annotations: oci::Labels::new(),
        };
        let json = |value: &dyn erased::Json| value.bytes();
        file("index.json", &json(&index))?;
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if self.docker {
            let list: Vec<serde_json::Value> = self
                .held
                .iter()
                .map(|hold| {
                    let path = |d: &Digest| format!("blobs/sha256/{}", d.hex());
                    serde_json::json!({
                        "Config": path(&hold.image.manifest.config.digest),
                        "RepoTags": self.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                        "Layers": hold.image.manifest.layers.iter().map(|l| path(&l.digest)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            file("manifest.json", &json(&serde_json::Value::Array(list)))?;
        }
        writer.finish().map_err(failed)
    }
}

mod erased {
    /// What prints as JSON.
    pub trait Json {
        /// The text.
        fn bytes(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn bytes(&self) -> Vec<u8> {
            // These types always print.
            serde_json::to_vec(self).unwrap_or_default()
        }
    }
}
