//! The file behind redb, grown by fallocate(2), so that a full disk shows when the file grows and never in the
//! middle of writing a commit into it.
//!
//! What it grew by is written with zeros at once. Blocks that are only reserved become written ones by a change of the
//! file's metadata, for which fdatasync(2) must commit the file system's journal where it has one, and with it what anyone
//! else did there since. Blocks that were written before need the data alone.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

#[derive(Debug)]
pub(crate) struct Preallocated {
    inner: FileBackend,
    file: File,
}

impl Preallocated {
    pub(crate) fn new(file: File) -> Result<Self, redb::Error> {
        let twin = file.try_clone().map_err(redb::Error::Io)?;
        #[allow(deprecated, reason = "the replacement is behind an experimental feature of redb")]
        let inner = FileBackend::new(file)?;
        Ok(Self { inner, file: twin })
    }
}

impl Preallocated {
    fn fill(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; 64 << 10];
        let mut at = from;
        while at < to {
            let piece = (to - at).min(zeros.len() as u64) as usize;
            at += self.file.write_at(&zeros[..piece], at)? as u64;
        }
        Ok(())
    }
}

type Edge = Bound<u64>;

impl StorageBackend for Preallocated {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.inner.len()?;
        if len > now {
            match fallocate(&self.file, FallocateFlags::empty(), now, len - now) {
                Ok(()) => return self.fill(now, len),
                // File systems without fallocate(2) grow sparsely; a full disk then shows while writing.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
