//! The content store: finding, listing, removing blobs and opening ingests.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wharf_types::Digest;

use crate::{Blob, ContentError, Ingest};

/// Facts about a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its size in bytes.
    pub size: u64,
}

/// The blobs of one daemon. Any number of threads may use it.
#[derive(Clone, Debug)]
pub struct Store {
    blobs: PathBuf,
    ingests: PathBuf,
}

impl Store {
    /// Opens the store below this folder (`<data-root>/content`), making what is missing.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn open(folder: &Path) -> Result<Self, ContentError> {
        let store = Self { blobs: folder.join("blobs/sha256"), ingests: folder.join("ingest") };
        for path in [&store.blobs, &store.ingests] {
            fs::create_dir_all(path).map_err(|e| failed("make", path, e))?;
        }
        Ok(store)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// The size of a blob, or `None` if there is no such blob.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn info(&self, digest: &Digest) -> Result<Option<Info>, ContentError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(Info { size: found.len() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("stat", &path, e)),
        }
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`ContentError::NotFound`], [`ContentError::File`].
    pub fn blob(&self, digest: &Digest) -> Result<Blob, ContentError> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ContentError::NotFound(digest.clone()),
            _ => failed("open", &path, e),
        })?;
        let size = file.metadata().map_err(|e| failed("stat", &path, e))?.len();
        Ok(Blob { file, size })
    }

    /// Reads a whole blob that may have at most `limit` bytes, as manifests and configurations do
    /// (CVE-2023-25153: without a limit an image exhausts memory).
    ///
    /// # Errors
    /// [`ContentError::TooLarge`], [`ContentError::NotFound`], [`ContentError::File`].
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let mut blob = self.blob(digest)?;
        if blob.size > limit {
            return Err(ContentError::TooLarge { digest: digest.clone(), size: blob.size, limit });
        }
        let mut bytes = Vec::with_capacity(blob.size as usize);
        blob.file.read_to_end(&mut bytes).map_err(|e| failed("read", &self.path(digest), e))?;
        Ok(bytes)
    }

    /// Stores bytes from memory.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut array = [0; 32];
        array.copy_from_slice(hash.as_ref());
        let digest = Digest::from_sha256(array);
        if self.info(&digest)?.is_some() {
            return Ok(digest);
        }
        let mut ingest = self.once()?;
        ingest.write_all(bytes).map_err(|e| failed("write", &self.path(&digest), e))?;
        Ok(ingest.commit(Some(&digest), None)?.0)
    }

    /// Opens the ingest of this key, going on where an earlier one of the same key stopped.
    ///
    /// # Errors
    /// [`ContentError::Busy`] while another writer has it open; [`ContentError::File`].
    pub fn ingest(&self, key: &str) -> Result<Ingest, ContentError> {
        self.open_ingest(key, false)
    }

    /// Opens an ingest of its own that nobody can resume and that goes when it is dropped.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn once(&self) -> Result<Ingest, ContentError> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let mut ingest = self.open_ingest(&format!("once {} {turn}", std::process::id()), true)?;
        // A former process with the same id may have left one of the same name.
        ingest.restart()?;
        Ok(ingest)
    }

    fn open_ingest(&self, key: &str, disposable: bool) -> Result<Ingest, ContentError> {
        // The key may come from outside; its hash is always a safe file name.
        let name = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        let mut name: String = name.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        if disposable {
            name.insert_str(0, ONCE);
        }
        Ingest::open(key, self.ingests.join(name), self.blobs.clone(), disposable)
    }

    /// The file of a blob, whether it is there or not: for who throws it away by a rename.
    pub fn place(&self, digest: &Digest) -> PathBuf {
        self.path(digest)
    }

    /// Removes a blob. One that is not there is no error.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn remove(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Lists all blobs in no order. Files that are no blobs are passed over.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn walk(&self) -> Result<Vec<(Digest, Info)>, ContentError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(|e| failed("list", &self.blobs, e))? {
            let entry = entry.map_err(|e| failed("list", &self.blobs, e))?;
            let name = entry.file_name();
            let Ok(digest) = Digest::parse(&format!("sha256:{}", name.to_string_lossy())) else { continue };
            match entry.metadata() {
                Ok(facts) => found.push((digest, Info { size: facts.len() })),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("stat", &entry.path(), e)),
            }
        }
        Ok(found)
    }

    /// Bytes of all blobs.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn size(&self) -> Result<u64, ContentError> {
        Ok(self.walk()?.iter().map(|(_, info)| info.size).sum())
    }

    /// Removes ingests that nobody has written to for longer than `age`, and those that nobody can go on with
    /// ([`Store::once`]) of processes that are gone, and returns how many.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn sweep(&self, age: Duration) -> Result<usize, ContentError> {
        let mut removed = 0;
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.ingests).map_err(|e| failed("list", &self.ingests, e))? {
            let path = entry.map_err(|e| failed("list", &self.ingests, e))?.path();
            let Ok(touched) = fs::metadata(&path).and_then(|facts| facts.modified()) else { continue };
            let old = now.duration_since(touched).is_ok_and(|since| since >= age);
            // A lock means that it is being written at this moment.
            let lost = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ONCE)) && is_free(&path);
            if (old || lost) && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// What the names of ingests begin with that nobody can go on with.
const ONCE: &str = "once-";

/// Whether nobody holds an ingest open.
fn is_free(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ContentError {
    ContentError::File { action, path: path.to_owned(), source }
}
