//! Stores in a temporary folder, and archives to feed them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_image::{Image, Images, ImportRequest, Parts};
use wharf_snapshot::Trash;
use wharf_types::Reference;

pub struct Stage {
    pub images: Images,
    pub metadata: Arc<wharf_metadata::Store>,
    folder: tempfile::TempDir,
}

fn open(root: &Path) -> (Images, Arc<wharf_metadata::Store>) {
    let metadata = Arc::new(wharf_metadata::Store::open(&root.join("wharf/meta.redb")).expect("metadata"));
    let trash = Arc::new(Trash::open(root).expect("trash"));
    let parts = Parts {
        metadata: metadata.clone(),
        content: wharf_content::Store::open(&root.join("content")).expect("content"),
        snapshots: wharf_snapshot::open(root, None, trash).expect("snapshots"),
    };
    (Images::open(parts).expect("images"), metadata)
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-image-").tempdir().expect("temporary folder");
        let (images, metadata) = open(folder.path());
        Self { images, metadata, folder }
    }

    pub fn reopen(self) -> Self {
        let Self { images, metadata, folder } = self;
        drop((images, metadata));
        // The background sync of new layers may hold the store for a moment longer.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match wharf_metadata::Store::open(&folder.path().join("wharf/meta.redb")) {
                Ok(store) => break drop(store),
                Err(e) => assert!(std::time::Instant::now() < end, "the store stays open: {e}"),
            }
            std::thread::yield_now();
        }
        let (images, metadata) = open(folder.path());
        Self { images, metadata, folder }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn import(&self, name: &str, layer: &[u8]) -> Arc<Image> {
        self.import_with(name, layer, &[])
    }

    pub fn import_with(&self, name: &str, layer: &[u8], changes: &[&str]) -> Arc<Image> {
        let request = ImportRequest {
            reference: Some(Reference::parse(name).expect("name")),
            changes: changes.iter().map(|c| (*c).to_owned()).collect(),
            ..ImportRequest::default()
        };
        self.images.import(request, &mut &*layer).expect("imported").image.clone()
    }

    /// The path of a file in an image's top layer.
    pub fn path(&self, image: &Image, name: &str) -> PathBuf {
        let snapshot = self.images.snapshot(image).expect("snapshot").expect("layers");
        self.root().join("overlay").join(snapshot.number.to_string()).join("fs").join(name)
    }

    pub fn text(&self, image: &Image, name: &str) -> Option<String> {
        fs::read_to_string(self.path(image, name)).ok()
    }

    fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.root().join(folder)).expect("list").count()
    }

    pub fn blobs(&self) -> usize {
        self.count("content/blobs/sha256")
    }

    pub fn ingests(&self) -> usize {
        self.count("content/ingest")
    }

    pub fn layers(&self) -> usize {
        self.count("overlay")
    }
}

pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).expect("append");
    }
    archive.into_inner().expect("archive")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}
