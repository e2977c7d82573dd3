//! A blob being written: hashed and counted on the way, resumed after a kill.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use ring::digest::{Context, SHA256};
use rustix::fs::{FlockOperation, flock};
use wharf_types::Digest;

use crate::{ContentError, Info};

/// Bytes after which the kernel is asked to start writing, so that the final fsync finds little left to do.
const WRITEBACK: u64 = 8 << 20;

/// One blob being written. Dropped without [`Ingest::commit`], one of [`Store::ingest`](crate::Store::ingest) stays and
/// can be resumed under the same key, and one of [`Store::once`](crate::Store::once) is removed; [`Ingest::abort`]
/// removes either.
pub struct Ingest {
    key: String,
    path: PathBuf,
    file: File,
    hash: Option<Context>,
    written: u64,
    flushed: u64,
    blobs: PathBuf,
    /// Whether the file has no further use when this value is dropped.
    disposable: bool,
}

impl Ingest {
    pub(crate) fn open(key: &str, path: PathBuf, blobs: PathBuf, disposable: bool) -> Result<Self, ContentError> {
        let failed = |action| {
            let path = path.clone();
            move |source| ContentError::File { action, path, source }
        };
        let mut file = loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(failed("open"))?;
            // The lock dies with the process, so a kill never leaves an ingest that nobody can resume.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(ContentError::Busy(key.to_owned()));
            }
            // Between open and lock an earlier writer may have made a blob of this very file.
            let opened = file.metadata().map_err(failed("stat"))?;
            match std::fs::metadata(&path) {
                Ok(named) if named.ino() == opened.ino() => break file,
                _ => drop(file),
            }
        };
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 18];
        let mut written = 0;
        loop {
            match file.read(&mut buffer).map_err(failed("read"))? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    written += n as u64;
                }
            }
        }
        Ok(Self { key: key.to_owned(), path, file, hash: Some(hash), written, flushed: written, blobs, disposable })
    }

    /// Bytes that are already there: where a resumed download goes on.
    pub fn offset(&self) -> u64 {
        self.written
    }

    /// The file that is written, for others to read what is there already ([`FileExt::read_at`]). It stays the same file
    /// when it becomes a blob.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn file(&self) -> Result<File, ContentError> {
        self.file.try_clone().map_err(|e| self.failed("open", e))
    }

    /// Leaves hashing to the caller, who does it on another thread, of the same bytes, and names the digest in
    /// [`Ingest::commit_hashed`]. Only for an ingest that starts empty.
    pub fn hashed_elsewhere(&mut self) {
        if self.written == 0 {
            self.hash = None;
        }
    }

    /// The digest of what was written so far.
    ///
    /// # Errors
    /// [`ContentError::File`] after [`Ingest::hashed_elsewhere`]: then only the caller knows.
    pub fn digest(&self) -> Result<Digest, ContentError> {
        let Some(hash) = &self.hash else { return Err(self.unhashed()) };
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.clone().finish().as_ref());
        Ok(Digest::from_sha256(bytes))
    }

    /// Brings what was written to disk ahead of [`Ingest::commit`].
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn sync(&self) -> Result<(), ContentError> {
        self.file.sync_data().map_err(|e| self.failed("sync", e))
    }

    /// Starts again from nothing, for a source that cannot resume.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn restart(&mut self) -> Result<(), ContentError> {
        self.file.set_len(0).map_err(|e| self.failed("truncate", e))?;
        self.hash = Some(Context::new(&SHA256));
        (self.written, self.flushed) = (0, 0);
        Ok(())
    }

    /// Verifies what was written, syncs it and gives it its name. A blob that exists already is kept.
    ///
    /// # Errors
    /// [`ContentError::Digest`], [`ContentError::Size`]: the ingest is removed, since it can never become right.
    /// [`ContentError::File`]: it stays.
    pub fn commit(self, expected: Option<&Digest>, size: Option<u64>) -> Result<(Digest, Info), ContentError> {
        let found = self.digest()?;
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            let expected = expected.clone();
            self.abort()?;
            return Err(ContentError::Digest { expected, found });
        }
        self.place(found, size)
    }

    /// Like [`Ingest::commit`], for bytes that the caller hashed himself after [`Ingest::hashed_elsewhere`].
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub fn commit_hashed(self, digest: Digest, size: Option<u64>) -> Result<(Digest, Info), ContentError> {
        self.place(digest, size)
    }

    fn unhashed(&self) -> ContentError {
        let source = io::Error::other("the digest of this ingest is computed elsewhere");
        ContentError::File { action: "commit", path: self.path.clone(), source }
    }

    fn place(mut self, digest: Digest, size: Option<u64>) -> Result<(Digest, Info), ContentError> {
        if let Some(expected) = size.filter(|size| *size != self.written) {
            let found = self.written;
            let subject = digest.to_string();
            self.abort()?;
            return Err(ContentError::Size { subject, expected, found });
        }
        let info = Info { size: self.written };
        let target = self.blobs.join(digest.hex());
        if target.exists() {
            self.abort()?;
            return Ok((digest, info));
        }
        self.file.sync_data().map_err(|e| self.failed("sync", e))?;
        wharf_fault::point("blob.before-rename");
        std::fs::rename(&self.path, &target).map_err(|e| self.failed("rename", e))?;
        self.disposable = false;
        wharf_fault::point("blob.after-rename");
        let folder = File::open(&self.blobs).and_then(|folder| folder.sync_all());
        folder.map_err(|source| ContentError::File { action: "sync", path: self.blobs.clone(), source })?;
        Ok((digest, info))
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// [`ContentError::File`].
    pub fn abort(mut self) -> Result<(), ContentError> {
        self.disposable = false;
        std::fs::remove_file(&self.path).map_err(|e| self.failed("remove", e))
    }

    /// The key under which it can be resumed.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn failed(&self, action: &'static str, source: io::Error) -> ContentError {
        ContentError::File { action, path: self.path.clone(), source }
    }

    fn start_writeback(&mut self) {
        if self.written - self.flushed >= WRITEBACK {
            // If it fails, the fsync at the end does all the work.
            let _ = wharf_sys::writeback::start(&self.file, self.flushed, self.written - self.flushed);
            self.flushed = self.written;
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.disposable {
            // If this fails, the sweep when the daemon starts removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.written)?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.written += bytes.len() as u64;
        self.start_writeback();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ingest({:?}, {} bytes)", self.key, self.written)
    }
}
