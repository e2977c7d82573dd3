//! Stores in a temporary folder, and archives to feed them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf_image::{Image, Images, ImportRequest, NewImage, Packing, Part, Parts};
use wharf_metadata::{Batch, Record, Store, Table};
use wharf_snapshot::{Snapshotter, Trash};
use wharf_types::{Digest, Reference};

/// Where a stage lives: a folder of its own, or one that somebody else made and will look at.
pub enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Folder {
    pub fn path(&self) -> &Path {
        match self {
            Folder::Own(folder) => folder.path(),
            Folder::Given(path) => path,
        }
    }
}

pub struct Stage {
    pub images: Images,
    pub metadata: Arc<Store>,
    pub snapshots: Arc<dyn Snapshotter>,
    folder: Folder,
}

/// A layer's record as stored, to be looked at and changed from outside.
#[derive(Serialize, Deserialize)]
struct Layer(serde_json::Value);

impl Record for Layer {
    const TABLE: Table = Table::Snapshots;
    const VERSION: u32 = 1;
}

fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < end, "not within 60 s: {what}");
        std::thread::yield_now();
    }
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-image-").tempdir().expect("temporary folder");
        Self::reopened(Folder::Own(folder))
    }

    pub fn at(path: PathBuf) -> Self {
        Self::reopened(Folder::Given(path))
    }

    pub fn reopened(folder: Folder) -> Self {
        let root = folder.path();
        let metadata = Arc::new(Store::open(&root.join("wharf/meta.redb")).expect("metadata"));
        let trash = Arc::new(Trash::open(root).expect("trash"));
        let snapshots = wharf_snapshot::open(root, None, trash.clone()).expect("snapshots");
        let content = wharf_content::Store::open(&root.join("content")).expect("content");
        let parts = Parts { metadata: metadata.clone(), content, snapshots: snapshots.clone(), trash };
        let images = Images::open(parts).expect("images");
        Self { images, metadata, snapshots, folder }
    }

    /// Closes all stores. The background sync of new layers may hold them for a moment longer.
    pub fn close(self) -> Folder {
        let Self { images, metadata, snapshots, folder } = self;
        drop((images, metadata, snapshots));
        let path = folder.path().join("wharf/meta.redb");
        until("the store is closed", || Store::open(&path).ok());
        folder
    }

    pub fn reopen(self) -> Self {
        Self::reopened(self.close())
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

    /// A file of an image, through all its layers.
    pub fn seen(&self, image: &Image, name: &str) -> Option<String> {
        use std::os::fd::AsRawFd;
        let snapshot = self.images.snapshot(image).expect("snapshot").expect("layers");
        let view = self.snapshots.view(&snapshot).expect("view");
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", view.as_raw_fd())).ok()
    }

    /// Makes an image of another with a file `more` in a layer of its own, as `docker commit` does.
    pub fn commit(&self, base: &str, name: &str) -> Arc<Image> {
        let base = self.images.hold(base).expect("base").image.clone();
        let parent = self.images.snapshot(&base).expect("snapshot");
        let snapshot = self.snapshots.prepare(parent.as_ref()).expect("prepared");
        let folder = self.root().join("overlay").join(snapshot.number.to_string()).join("fs");
        fs::write(folder.join("more"), name).expect("written");
        let difference = self.snapshots.difference(&snapshot).expect("difference");
        let layer = self.images.layer_upon(base.chain.as_ref(), &difference, Packing::Gzip).expect("layer");
        let known = base.manifest.layers.iter().cloned().zip(base.config.rootfs.diff_ids.iter().cloned());
        let parts = known.map(|(blob, id)| Part::Known(blob, id)).chain([Part::New(layer)]).collect();
        let image = NewImage {
            names: vec![Reference::parse(name).expect("name")],
            config: base.config.clone(),
            ..NewImage::default()
        };
        let made = self.images.assemble(image, parts).expect("assembled").image.clone();
        self.snapshots.remove(&snapshot).expect("removed");
        made
    }

    fn layer(&self, chain: &Digest) -> serde_json::Value {
        let view = self.metadata.view().expect("view");
        view.get::<Layer>(chain.as_str()).expect("read").expect("record").0
    }

    pub fn wait_until_synced(&self, chain: &Digest) {
        until("the layer is synced", || self.layer(chain)["unsynced"].is_null().then_some(()));
    }

    pub fn forge_unsynced(&self, chain: &Digest, boot: &str) {
        let mut layer = self.layer(chain);
        layer["unsynced"] = boot.into();
        let mut batch = Batch::new();
        batch.put(chain.as_str(), &Layer(layer));
        self.metadata.commit(batch).expect("commit");
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
