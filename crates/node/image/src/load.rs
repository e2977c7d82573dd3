//! `docker load`: archives of images, in Docker's form and as OCI layouts.
//!
//! The archive is read once, and what looks like a layer is extracted while it comes ([`Apart`]). Every file becomes a blob by the digest of its bytes, under no name from outside; then
//! `index.json` (with `oci-layout`) or `manifest.json` says what they are. Paths are compared, never opened
//! (CVE-2014-9356, CVE-2014-9358).

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};

use serde::Deserialize;
use serde::de::IgnoredAny;
use wharf_archive::{ArchiveError, Compression, Decoder, Entry, EntryKind, Reader};
use wharf_content::Ingest;
use wharf_oci::image::{self as oci, Descriptor, Index, Manifest, Platform, annotation, media_type};
use wharf_types::{Digest, Reference, Timestamp};

use crate::apart::Apart;
use crate::import::{digest_of, this_platform};
use crate::pipeline::pass_if_layer;
use crate::store::Pins;
use crate::{Image, ImageError, ImageId, Images};

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A layer is unpacked.
    Layer {
        /// The short diff id, as Docker shows it.
        id: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An image is complete; the text is Docker's line, with its line break.
    Line(String),
}

/// One image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// Its name, if the archive gave one.
    pub reference: Option<Reference>,
}

/// Bytes of an index, manifest or configuration at most (CVE-2023-25153: without a limit they exhaust memory).
pub(crate) const JSON_LIMIT: u64 = 8 << 20;
/// Bytes from which a file is extracted while it comes.
const WORTHWHILE: u64 = 64 << 10;
/// Files in an archive at most: each is a blob of its own.
const FILES: usize = 100_000;
/// Indexes within indexes at most.
pub(crate) const DEPTH: usize = 3;

/// An image's line in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The fields that tell an index from a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// What an archive holds, by the cleaned path of each file.
#[derive(Default)]
struct Files {
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
    /// What was extracted on the way, by the blob.
    apart: HashMap<Digest, Apart>,
}

/// One image to take in.
pub(crate) struct Candidate {
    pub(crate) target: Descriptor,
    pub(crate) reference: Option<Reference>,
}

impl Images {
    /// Loads every image of an archive (plain, gzip or zstd). With a platform, the matching image of each index is
    /// taken, and it is an error if there is none.
    ///
    /// # Errors
    /// [`ImageError::Format`], [`ImageError::Archive`], [`ImageError::DiffId`], [`ImageError::Platform`] and those of
    /// the stores. Images before the faulty one stay loaded, as with Docker.
    pub fn load(
        &self,
        body: &mut (dyn Read + Send),
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut pins = Pins::new(&self.shared);
        let mut files = self.take_files(body, &mut pins)?;
        wharf_fault::point("load.after-blobs");
        let candidates = match files.find("oci-layout").and_then(|_| files.find("index.json")) {
            Some((index, _)) => self.of_layout(index)?,
            None => self.of_docker(&files, &mut pins)?,
        };
        let mut loaded = Vec::new();
        for candidate in candidates {
            let image = self.describe(&candidate, platform)?;
            let names: Vec<Reference> = candidate.reference.iter().cloned().collect();
            let mut layer = |diff_id: &Digest, size: u64| {
                let id = diff_id.hex().chars().take(12).collect();
                progress(LoadProgress::Layer { id, current: size, total: size });
            };
            let (layers, diff_ids) = (&image.manifest.layers, &image.config.rootfs.diff_ids);
            let chain = self.shared.unpack_all(&mut pins, &mut files.apart, layers, diff_ids, &mut layer)?;
            let image = self.shared.register(Image { chain, ..image }, &names, &mut pins)?;
            progress(LoadProgress::Line(match &candidate.reference {
                Some(name) => format!("Loaded image: {}\n", name.familiar()),
                None => format!("Loaded image ID: {}\n", image.id),
            }));
            loaded.push(Loaded { id: image.id.clone(), reference: candidate.reference });
        }
        Ok(loaded)
    }

    fn take_files(&self, body: &mut (dyn Read + Send), pins: &mut Pins) -> Result<Files, ImageError> {
        let (compression, body) = Compression::peek(body).map_err(ImageError::Extract)?;
        let mut stream =
            BufReader::with_capacity(1 << 18, Decoder::new(compression, body).map_err(ImageError::Extract)?);
        let mut reader = Reader::new(&mut stream);
        let mut files = Files::default();
        let unrecognised = |e| match e {
            // What is no tar archive at all is Docker's "unrecognized image format".
            wharf_archive::ArchiveError::Header(_) => ImageError::Format,
            wharf_archive::ArchiveError::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                ImageError::Stream { action: "read the archive", source: e }
            }
            other => ImageError::Extract(other),
        };
        while let Some(entry) = reader.entry().map_err(unrecognised)? {
            let Some(path) = clean(&entry.name) else { continue };
            if files.blobs.len() + files.links.len() >= FILES {
                return Err(ImageError::Archive(format!("more than {FILES} files")));
            }
            match entry.kind {
                EntryKind::File if entry.size == entry.stored => {
                    let blob = self.take_file(&mut reader, &entry, &path, pins, &mut files)?;
                    files.blobs.insert(path, blob);
                }
                EntryKind::Symlink | EntryKind::HardLink => {
                    let base = if entry.kind == EntryKind::Symlink { parent(&path) } else { "" };
                    let target = [base.as_bytes(), b"/", &entry.link].concat();
                    if let Some(target) = clean(&target) {
                        files.links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        Ok(files)
    }

    /// Stores one file as a blob. A file below `blobs/sha256` must have the digest that its name says.
    fn take_file(
        &self,
        reader: &mut Reader<'_>,
        entry: &Entry,
        path: &str,
        pins: &mut Pins,
        files: &mut Files,
    ) -> Result<(Digest, u64), ImageError> {
        let named = path.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        let content = &self.shared.parts.content;
        if let Some(named) = &named {
            pins.blob(named);
            if content.info(named)?.is_some() {
                let digest = hash_only(reader)?;
                return if digest == *named { Ok((digest, entry.size)) } else { Err(not_as_named(named, digest)) };
            }
        }
        let ingest = content.once()?;
        let (digest, ingest, apart) = if self.may_be_layer(reader, entry)? {
            let (apart, target) = Apart::prepare(&self.shared)?;
            let mut source = Data { reader, failed: None };
            let tried = pass_if_layer(&mut source, ingest, target);
            if let Some(e) = source.failed {
                return Err(ImageError::Extract(e));
            }
            let tried = tried?;
            (tried.digest, tried.ingest, tried.unpacked.map(|unpacked| apart.filled(unpacked)).transpose()?)
        } else {
            let (digest, ingest) = store(reader, ingest)?;
            (digest, ingest, None)
        };
        if let Some(named) = named.filter(|named| *named != digest) {
            return Err(not_as_named(&named, digest));
        }
        pins.blob(&digest);
        let (digest, info) = ingest.commit_hashed(digest, None)?;
        if let Some(apart) = apart {
            files.apart.insert(digest.clone(), apart);
        }
        Ok((digest, info.size))
    }

    /// Whether it pays to extract a file while it comes, in case it turns out to be a layer: what it is the archive says
    /// at its end.
    fn may_be_layer(&self, reader: &mut Reader<'_>, entry: &Entry) -> Result<bool, ImageError> {
        if entry.size < WORTHWHILE || !self.shared.parts.snapshots.stacks() {
            return Ok(false);
        }
        let start = reader.data().map_err(ImageError::Extract)?;
        Ok(match Compression::detect(start) {
            Ok(Compression::None) => start.get(257..262) == Some(b"ustar".as_slice()),
            Ok(_) => true,
            // It is refused when it is used.
            Err(_) => false,
        })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, digest: &Digest, what: &str) -> Result<T, ImageError> {
        let bytes = self.shared.parts.content.read(digest, JSON_LIMIT)?;
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Json { what: what.to_owned(), source })
    }

    /// Reads an index or manifest that a descriptor of this media type names. A blob that could be read as either is
    /// refused (CVE-2021-41190): one blob, one meaning.
    fn document<T: serde::de::DeserializeOwned>(&self, target: &Descriptor, what: &str) -> Result<T, ImageError> {
        let index = matches!(target.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX);
        let kind: Kind = self.json(&target.digest, what)?;
        let both = if index { kind.layers.is_some() || kind.config.is_some() } else { kind.manifests.is_some() };
        if both || kind.media_type.is_some_and(|said| said != target.media_type) {
            return Err(ImageError::Archive(format!("{} is not clearly {what}", target.digest)));
        }
        self.json(&target.digest, what)
    }

    fn of_layout(&self, index: &Digest) -> Result<Vec<Candidate>, ImageError> {
        let index: Index = self.json(index, "index.json")?;
        index
            .manifests
            .into_iter()
            .map(|target| {
                let name = target.annotations.get(annotation::IMAGE_NAME);
                // Other tools write only the tag, or a whole name in its place.
                let name =
                    name.or_else(|| target.annotations.get(annotation::REF_NAME).filter(|n| n.contains(['/', ':'])));
                let reference = name.map(|name| Reference::parse(name)).transpose()?.map(Reference::with_default_tag);
                Ok(Candidate { target, reference })
            })
            .collect()
    }

    /// Makes manifests of what `manifest.json` lists, as containerd does (`images/archive/importer.go`), so that
    /// the same archive gets the same image id.
    fn of_docker(&self, files: &Files, pins: &mut Pins) -> Result<Vec<Candidate>, ImageError> {
        let (list, _) = files.find("manifest.json").ok_or(ImageError::Format)?;
        let items: Vec<Item> = self.json(list, "manifest.json")?;
        let mut candidates = Vec::new();
        for item in items {
            let (config, size) = files.get(&item.config)?;
            let mut layers = Vec::new();
            for path in item.layers.unwrap_or_default() {
                let (digest, size) = files.get(&path)?;
                let mut start = [0; 6];
                let n = self.shared.parts.content.blob(digest)?.read(&mut start).map_err(read)?;
                let kind = match Compression::detect(&start[..n]).map_err(ImageError::Extract)? {
                    Compression::None => media_type::DOCKER_LAYER,
                    Compression::Gzip | Compression::Zstd => media_type::DOCKER_LAYER_GZIP,
                };
                layers.push(Descriptor::new(kind, digest.clone(), size));
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: media_type::DOCKER_MANIFEST.to_owned(),
                config: Descriptor::new(media_type::DOCKER_CONFIG, config.clone(), size),
                layers,
                annotations: oci::Labels::new(),
            };
            let json = |source| ImageError::Json { what: "a manifest".to_owned(), source };
            let bytes = serde_json::to_vec(&manifest).map_err(json)?;
            pins.blob(&digest_of(&bytes));
            let digest = self.shared.parts.content.put(&bytes)?;
            let target = Descriptor::new(media_type::DOCKER_MANIFEST, digest, bytes.len() as u64);
            let tags = item.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                candidates.push(Candidate { target, reference: None });
                continue;
            }
            for tag in tags {
                let reference = Some(Reference::parse(&tag)?.with_default_tag());
                candidates.push(Candidate { target: target.clone(), reference });
            }
        }
        Ok(candidates)
    }

    /// Reads what a candidate is: its manifest for the platform, its configuration, all its blobs.
    pub(crate) fn describe(&self, candidate: &Candidate, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let wanted = platform.cloned().unwrap_or_else(this_platform);
        let mut target = candidate.target.clone();
        target.annotations.retain(|key, _| key != annotation::IMAGE_NAME && key != annotation::REF_NAME);
        let mut found = Vec::new();
        let mut blobs = vec![target.clone()];
        self.manifests(&target, DEPTH, &mut found, &mut blobs)?;
        let strict = platform.is_some();
        let place = found.iter().position(|(_, config)| fits(&config.platform, &wanted)).or_else(|| {
            // An image for another machine is taken as it is, unless the platform was asked for.
            (!strict && !found.is_empty()).then_some(0)
        });
        let Some(place) = place else {
            let name = candidate.reference.as_ref().map_or_else(|| target.digest.to_string(), Reference::familiar);
            let platform = format!("{}/{}", wanted.os, wanted.architecture);
            return Err(ImageError::Platform { reference: name, platform });
        };
        let (manifest, config) = found.swap_remove(place);
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            let text = format!("image {} has {layers} layers and {diffs} diff ids", target.digest);
            return Err(ImageError::Archive(text));
        }
        let mut seen = std::collections::HashSet::new();
        blobs.retain(|blob| seen.insert(blob.digest.clone()));
        Ok(Image {
            id: ImageId(target.digest.clone()),
            size: blobs.iter().map(|blob| blob.size).sum(),
            target,
            manifest,
            config,
            chain: None,
            blobs,
            unpacked: 0,
            added: Timestamp::now(),
            parent: None,
            more: Vec::new(),
        })
    }

    /// Collects the manifests below a descriptor whose blobs are all here, with their configurations.
    fn manifests(
        &self,
        target: &Descriptor,
        depth: usize,
        found: &mut Vec<(Manifest, oci::Image)>,
        blobs: &mut Vec<Descriptor>,
    ) -> Result<(), ImageError> {
        let content = &self.shared.parts.content;
        match target.media_type.as_str() {
            media_type::INDEX | media_type::DOCKER_INDEX => {
                if depth == 0 {
                    return Err(ImageError::Archive("indexes are nested too deeply".to_owned()));
                }
                let index: Index = self.document(target, "an index")?;
                for inner in index.manifests {
                    // Archives often hold one platform of an index that names many.
                    if content.info(&inner.digest)?.is_some() {
                        blobs.push(inner.clone());
                        self.manifests(&inner, depth - 1, found, blobs)?;
                    }
                }
                Ok(())
            }
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => {
                let manifest: Manifest = self.document(target, "a manifest")?;
                let parts: Vec<Descriptor> =
                    std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect();
                // Artifacts are manifests too, but no images: what of them is here is kept with the index.
                if !matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
                    for part in parts {
                        if content.info(&part.digest)?.is_some() {
                            blobs.push(part);
                        }
                    }
                    return Ok(());
                }
                for part in &parts {
                    if content.info(&part.digest)?.is_none() {
                        return Err(ImageError::Archive(format!("blob {} is missing", part.digest)));
                    }
                }
                let config: oci::Image = self.json(&manifest.config.digest, "an image configuration")?;
                blobs.extend(parts);
                if config.platform.os != "unknown" {
                    found.push((manifest, config));
                }
                Ok(())
            }
            other => Err(ImageError::MediaType(other.to_owned())),
        }
    }
}

pub(crate) fn fits(offered: &Platform, wanted: &Platform) -> bool {
    let variant = wanted.variant.is_empty() || offered.variant.is_empty() || offered.variant == wanted.variant;
    offered.os == wanted.os && offered.architecture == wanted.architecture && variant
}

/// The data of an entry as a stream.
struct Data<'a, 'r> {
    reader: &'a mut Reader<'r>,
    failed: Option<ArchiveError>,
}

impl Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = match self.reader.data() {
            Ok(piece) => piece,
            Err(e) => {
                self.failed = Some(e);
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let n = piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&piece[..n]);
        self.reader.consume(n);
        Ok(n)
    }
}

/// Hands the data of an entry piece by piece to `act`, and hashes it.
fn hashed(reader: &mut Reader<'_>, act: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<Digest, ImageError> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    loop {
        let piece = reader.data().map_err(ImageError::Extract)?;
        if piece.is_empty() {
            break;
        }
        context.update(piece);
        act(piece).map_err(|source| ImageError::Stream { action: "store a blob", source })?;
        let n = piece.len();
        reader.consume(n);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(Digest::from_sha256(hash))
}

fn hash_only(reader: &mut Reader<'_>) -> Result<Digest, ImageError> {
    hashed(reader, &mut |_| Ok(()))
}

fn store(reader: &mut Reader<'_>, mut ingest: Ingest) -> Result<(Digest, Ingest), ImageError> {
    ingest.hashed_elsewhere();
    let digest = hashed(reader, &mut |piece| ingest.write_all(piece))?;
    Ok((digest, ingest))
}

fn not_as_named(expected: &Digest, found: Digest) -> ImageError {
    wharf_content::ContentError::Digest { expected: expected.clone(), found }.into()
}

fn read(source: io::Error) -> ImageError {
    ImageError::Stream { action: "read a blob", source }
}

/// Links within the archive that one lookup follows at most.
const LINKS: usize = 8;

impl Files {
    fn find(&self, path: &str) -> Option<(&Digest, u64)> {
        let mut path = path;
        for _ in 0..LINKS {
            if let Some((digest, size)) = self.blobs.get(path) {
                return Some((digest, *size));
            }
            path = self.links.get(path)?;
        }
        None
    }

    fn get(&self, path: &str) -> Result<(&Digest, u64), ImageError> {
        let cleaned = clean(path.as_bytes());
        let found = cleaned.as_deref().and_then(|path| self.find(path));
        found.ok_or_else(|| ImageError::Archive(format!("{path:?} is not in the archive")))
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Resolves `.` and `..` in the text; `None` for what leaves the archive or is not UTF-8.
fn clean(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
