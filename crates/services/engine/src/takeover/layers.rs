//! Images of another engine as archives that `docker load` takes.
//!
//! Docker's own store keeps a layer as files and, in `tar-split.json.gz`, everything of its archive that is not a file's
//! content: both together give the archive back byte for byte, and with it the layer's digest (github.com/vbatts/tar-split).
//! containerd's store has the archives themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use wharf_archive::{Compression, Decoder, Entry, EntryKind, Root, Time, Writer};
use wharf_types::Digest;

use super::TakeoverError;

/// One image.
#[derive(Debug)]
pub(super) struct Image {
    /// The id that it had.
    pub(super) id: String,
    /// Its names.
    pub(super) names: Vec<String>,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    /// Docker's own store: the configuration's file and the layers, lowest first.
    Files { config: PathBuf, layers: Vec<Layer> },
    /// A blob of containerd's store, and the folder of the blobs.
    Blob { blobs: PathBuf, media_type: String, size: u64 },
}

#[derive(Debug)]
pub(super) struct Layer {
    /// What is extracted.
    pub(super) files: PathBuf,
    /// What is not.
    pub(super) split: PathBuf,
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TakeoverError + 'a {
    move |source| TakeoverError::Io { operation, path: path.to_owned(), source }
}

fn head(name: &str, size: u64) -> Entry {
    Entry::plain(name, EntryKind::File, 0o644, size, Time { seconds: 0, nanoseconds: 0 })
}

fn put(writer: &mut Writer<'_>, name: &str, bytes: &[u8]) -> Result<(), TakeoverError> {
    Ok(writer.entry(&head(name, bytes.len() as u64), &mut &*bytes)?)
}

impl Image {
    /// Writes it as an archive.
    pub(super) fn write(&self, out: &mut dyn Write) -> Result<(), TakeoverError> {
        match &self.source {
            Source::Files { config, layers } => self.write_files(config, layers, out),
            Source::Blob { blobs, media_type, size } => self.write_blobs(blobs, media_type, *size, out),
        }
    }

    fn write_files(&self, config: &Path, layers: &[Layer], out: &mut dyn Write) -> Result<(), TakeoverError> {
        let bytes = std::fs::read(config).map_err(failed("read", config))?;
        let name = format!("{}.json", self.id.trim_start_matches("sha256:"));
        put(&mut Writer::new(out), &name, &bytes)?;
        let mut names = Vec::new();
        for (n, layer) in layers.iter().enumerate() {
            let name = format!("{n}/layer.tar");
            let mut size = 0;
            layer.each(&mut |piece| {
                size += match piece {
                    Piece::Bytes(bytes) => bytes.len() as u64,
                    Piece::File { size, .. } => size,
                };
                Ok(())
            })?;
            Writer::new(out).head(&head(&name, size))?;
            let root = Root::at(&layer.files).map_err(failed("open", &layer.files))?;
            layer.each(&mut |piece| layer.write(&root, piece, out))?;
            Writer::new(out).pad(size)?;
            names.push(name);
        }
        let manifest = serde_json::json!([{ "Config": name, "RepoTags": self.names, "Layers": names }]);
        let mut writer = Writer::new(out);
        put(&mut writer, "manifest.json", manifest.to_string().as_bytes())?;
        Ok(writer.finish()?)
    }

    fn write_blobs(&self, blobs: &Path, media_type: &str, size: u64, out: &mut dyn Write) -> Result<(), TakeoverError> {
        let mut writer = Writer::new(out);
        put(&mut writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let target = |name: Option<&String>| {
            let annotations: BTreeMap<_, _> = name.map(|name| ("io.containerd.image.name", name)).into_iter().collect();
            serde_json::json!({ "mediaType": media_type, "digest": self.id, "size": size, "annotations": annotations })
        };
        let manifests: Vec<_> = match self.names.is_empty() {
            true => vec![target(None)],
            false => self.names.iter().map(|name| target(Some(name))).collect(),
        };
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        put(&mut writer, "index.json", index.to_string().as_bytes())?;
        for digest in tree(blobs, &self.id, media_type)? {
            let path = blobs.join(&digest);
            // An index may name platforms that were never fetched.
            let Ok(mut file) = File::open(&path) else { continue };
            let size = file.metadata().map_err(failed("look at", &path))?.len();
            writer.entry(&head(&format!("blobs/sha256/{digest}"), size), &mut file)?;
        }
        Ok(writer.finish()?)
    }
}

/// The blobs that a blob leads to, itself among them, without `sha256:`.
fn tree(blobs: &Path, digest: &str, media_type: &str) -> Result<BTreeSet<String>, TakeoverError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Descriptor {
        digest: String,
        media_type: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Document {
        manifests: Vec<Descriptor>,
        config: Option<Descriptor>,
        layers: Vec<Descriptor>,
    }
    let mut found = BTreeSet::new();
    let mut waiting = vec![(digest.to_owned(), media_type.to_owned())];
    while let Some((digest, media_type)) = waiting.pop() {
        // It becomes a path.
        let Ok(digest) = Digest::parse(&digest) else { continue };
        let known = !found.insert(digest.hex().to_owned());
        let document = media_type.contains("manifest") || media_type.contains("index");
        if known || !document {
            continue;
        }
        let path = blobs.join(digest.hex());
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|source| TakeoverError::Json { path: path.clone(), source })?;
        let all = document.manifests.into_iter().chain(document.config).chain(document.layers);
        waiting.extend(all.map(|d| (d.digest, d.media_type)));
    }
    Ok(found)
}

/// A part of a layer's archive.
enum Piece {
    Bytes(Vec<u8>),
    File { name: Vec<u8>, size: u64 },
}

#[derive(Deserialize)]
struct Line {
    r#type: u8,
    #[serde(default)]
    name: String,
    #[serde(default)]
    name_raw: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

impl Layer {
    /// Goes through the parts of the archive.
    fn each(&self, take: &mut dyn FnMut(Piece) -> Result<(), TakeoverError>) -> Result<(), TakeoverError> {
        let file = File::open(&self.split).map_err(failed("open", &self.split))?;
        let lines = BufReader::new(Decoder::new(Compression::Gzip, BufReader::new(file))?);
        let damaged = || TakeoverError::Format { path: self.split.clone(), what: "no tar-split" };
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| damaged());
        for line in lines.lines() {
            let line = line.map_err(failed("read", &self.split))?;
            let line: Line = serde_json::from_str(&line).map_err(|_| damaged())?;
            match line.r#type {
                1 if line.size == 0 => {}
                1 => {
                    let name = if line.name_raw.is_empty() { line.name.into_bytes() } else { decode(&line.name_raw)? };
                    take(Piece::File { name, size: line.size })?;
                }
                2 => take(Piece::Bytes(decode(line.payload.as_deref().unwrap_or_default())?))?,
                _ => return Err(damaged()),
            }
        }
        Ok(())
    }

    fn write(&self, root: &Root, piece: Piece, out: &mut dyn Write) -> Result<(), TakeoverError> {
        use std::os::unix::ffi::OsStrExt;
        match piece {
            Piece::Bytes(bytes) => out.write_all(&bytes).map_err(wharf_archive::ArchiveError::Write)?,
            Piece::File { name, size } => {
                let name = Path::new(std::ffi::OsStr::from_bytes(&name));
                let path = self.files.join(name);
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
                let fd = root.open(name.strip_prefix("/").unwrap_or(name), flags, Mode::empty());
                let file = File::from(fd.map_err(failed("open", &path))?);
                let copied = io::copy(&mut file.take(size), out).map_err(failed("copy", &path))?;
                if copied != size {
                    return Err(TakeoverError::Format { path, what: "a file that is shorter than its layer says" });
                }
            }
        }
        Ok(())
    }
}
