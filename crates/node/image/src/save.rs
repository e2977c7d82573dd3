//! `docker save`: an OCI layout with Docker's `manifest.json` beside it, as the containerd image store writes it.
//!
//! ```text
//! blobs/  blobs/sha256/  blobs/sha256/<hex>…  index.json  manifest.json  oci-layout
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::Serialize;
use wharf_archive::{ArchiveError, Entry, EntryKind, Time, Writer};
use wharf_oci::image::{Descriptor, Index, Labels, Platform, annotation, media_type};
use wharf_types::{Digest, Reference};

use crate::{Hold, Image, ImageError, ImageId, Images};

/// An image's line in `manifest.json` (moby `image/tarexport`, `manifestItem`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image to save, under the names that were asked for.
struct Chosen {
    image: Arc<Image>,
    names: BTreeSet<Reference>,
}

impl Images {
    /// Checks that everything that is to be saved is here, for an error before the archive begins.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Platform`], [`ImageError::Incomplete`].
    pub fn savable(&self, names: &[String], platforms: &[Platform]) -> Result<(), ImageError> {
        self.to_save(names, platforms).map(drop)
    }

    /// The images to save, each as it is for the platforms that are asked for.
    fn to_save(&self, names: &[String], platforms: &[Platform]) -> Result<Vec<Hold>, ImageError> {
        let mut holds = Vec::new();
        for name in names {
            let hold = self.hold(name)?;
            if platforms.is_empty() {
                holds.push(hold);
                continue;
            }
            for platform in platforms {
                let found = self.manifest_for(&hold.image, platform, name).map_err(|e| match e {
                    e @ ImageError::Platform { .. } => ImageError::NoExport(Box::new(e)),
                    e => e,
                })?;
                let mut blobs = vec![found.descriptor.clone(), found.manifest.config.clone()];
                blobs.extend(found.manifest.layers.iter().cloned());
                let mut target = found.descriptor;
                target.platform.get_or_insert_with(|| found.config.platform.clone());
                let image = Image {
                    id: ImageId(target.digest.clone()),
                    target,
                    manifest: found.manifest,
                    config: found.config,
                    blobs,
                    ..hold.image.as_ref().clone()
                };
                let mut part = self.hold(name)?;
                part.replace(image);
                holds.push(part);
            }
        }
        let content = &self.shared.parts.content;
        for hold in &holds {
            for blob in &hold.image.blobs {
                content
                    .blob(&blob.digest)
                    .map_err(|source| ImageError::Incomplete { id: hold.image.id.clone(), source })?;
            }
        }
        Ok(holds)
    }

    /// Writes an archive of these images (names, ids or id prefixes), whole or for some platforms only.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Platform`] before anything is written; [`ImageError::Stream`] when the
    /// client goes away.
    pub fn save(&self, names: &[String], platforms: &[Platform], out: &mut dyn Write) -> Result<(), ImageError> {
        let holds = self.to_save(names, platforms)?;
        let mut index = Vec::new();
        let mut chosen: BTreeMap<ImageId, Chosen> = BTreeMap::new();
        for hold in &holds {
            index.push(index_entry(hold));
            let known = chosen
                .entry(hold.image.id.clone())
                .or_insert_with(|| Chosen { image: hold.image.clone(), names: BTreeSet::new() });
            known.names.extend(hold.reference.clone().filter(|name| name.tag().is_some()));
        }
        let mut blobs: BTreeMap<&Digest, &Descriptor> = BTreeMap::new();
        for chosen in chosen.values() {
            blobs.extend(chosen.image.blobs.iter().map(|blob| (&blob.digest, blob)));
        }
        let items: Vec<Item> = chosen.values().map(Chosen::item).collect();
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests: index,
            annotations: Labels::new(),
        };
        let mut archive = Archive(Writer::new(out));
        archive.folder("blobs/")?;
        archive.folder("blobs/sha256/")?;
        for digest in blobs.into_keys() {
            let mut blob = self.shared.parts.content.blob(digest)?;
            let size = blob.size();
            archive.file(&format!("blobs/sha256/{}", digest.hex()), 0o444, size, &mut blob)?;
        }
        archive.json("index.json", &index)?;
        archive.json("manifest.json", &items)?;
        let layout: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
        archive.file("oci-layout", 0o444, layout.len() as u64, &mut &*layout)?;
        archive.0.finish().map_err(stream)
    }
}

impl Chosen {
    fn item(&self) -> Item {
        let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
        let names: Vec<String> = self.names.iter().map(Reference::familiar).collect();
        Item {
            config: path(&self.image.manifest.config),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: self.image.manifest.layers.iter().map(path).collect(),
        }
    }
}

fn index_entry(hold: &Hold) -> Descriptor {
    let mut entry = hold.image.target.clone();
    entry.annotations.remove(annotation::IMAGE_NAME);
    entry.annotations.remove(annotation::REF_NAME);
    if let Some(name) = &hold.reference
        && let Some(tag) = name.tag()
    {
        entry.annotations.insert(annotation::IMAGE_NAME.to_owned(), name.to_string());
        entry.annotations.insert(annotation::REF_NAME.to_owned(), tag.to_owned());
    }
    entry
}

struct Archive<'a>(Writer<'a>);

/// The epoch, so that the same images give the same archive.
const TIME: Time = Time { seconds: 0, nanoseconds: 0 };

impl Archive<'_> {
    fn folder(&mut self, name: &str) -> Result<(), ImageError> {
        self.0.entry(&Entry::plain(name, EntryKind::Directory, 0o755, 0, TIME), &mut io::empty()).map_err(stream)
    }

    fn file(&mut self, name: &str, mode: u32, size: u64, data: &mut dyn Read) -> Result<(), ImageError> {
        self.0.entry(&Entry::plain(name, EntryKind::File, mode, size, TIME), data).map_err(stream)
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), ImageError> {
        let json = |source| ImageError::Json { what: name.to_owned(), source };
        let bytes = serde_json::to_vec(value).map_err(json)?;
        self.file(name, 0o644, bytes.len() as u64, &mut bytes.as_slice())
    }
}

fn stream(e: ArchiveError) -> ImageError {
    match e {
        ArchiveError::Write(source) => ImageError::Stream { action: "write the archive", source },
        other => ImageError::Extract(other),
    }
}
