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
use wharf_oci::image::{Descriptor, Index, Labels, annotation, media_type};
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
    /// Writes an archive of these images (names, ids or id prefixes).
    ///
    /// # Errors
    /// [`ImageError::NotFound`] before anything is written; [`ImageError::Stream`] when the client goes away.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<(), ImageError> {
        let holds = names.iter().map(|name| self.hold(name)).collect::<Result<Vec<Hold>, _>>()?;
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
