//! Layers by full copies: slow and large, but right on any file system.

use std::fs::DirBuilder;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use wharf_archive::{ArchiveError, Whiteouts, extract, pack};

use crate::directory::{Numbered, failed};
use crate::whole::{Trees, Whole};
use crate::{Snapshot, SnapshotError, Trash, Usage};

/// The vfs driver.
pub type Vfs = Whole<Copies>;

/// Trees that are copied.
pub struct Copies;

impl Vfs {
    /// Opens the driver below the data root.
    ///
    /// # Errors
    /// [`SnapshotError::DataRoot`], [`SnapshotError::Directory`].
    pub fn open(data_root: &Path, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        Ok(Self { numbered: Numbered::open(data_root, Copies::NAME, trash)?, trees: Copies })
    }
}

/// Copies a layer through a pipe of tar: what an archive cannot hold a layer cannot have either.
fn copy(numbered: &Numbered, from: &Snapshot, to: u64) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Copy { number: from.number, source };
    let source = numbered.open_content(from.number)?;
    let root = numbered.open_content(to)?;
    let (reader, writer) = std::io::pipe().map_err(|e| failed(ArchiveError::Read(e)))?;
    std::thread::scope(|scope| {
        let packed = scope.spawn(move || pack(source.as_fd(), &mut BufWriter::with_capacity(1 << 17, writer)));
        let mut stream = BufReader::with_capacity(1 << 17, reader);
        let extracted = extract(&mut stream, root, &[], Whiteouts::Keep);
        drop(stream);
        let ended = || ArchiveError::Read(io::Error::other("the copying thread ended unexpectedly"));
        let packed = packed.join().unwrap_or_else(|_| Err(ended()));
        // If extracting failed, packing fails for want of a reader; the first of them is the cause.
        extracted.and(packed).map_err(failed)
    })
}

impl Trees for Copies {
    const NAME: &'static str = "vfs";
    const STACKS: bool = false;

    fn fill(&self, numbered: &Numbered, number: u64, parent: Option<&Snapshot>) -> Result<(), SnapshotError> {
        let path = numbered.content(number);
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", &path, e)),
            _ => {}
        }
        parent.map_or(Ok(()), |parent| copy(numbered, parent, number))
    }

    fn drain(&self, _numbered: &Numbered, _number: u64) -> Result<(), SnapshotError> {
        // File by file is what the trash does.
        Ok(())
    }

    fn empty(&self, numbered: &Numbered, number: u64) -> Result<(), SnapshotError> {
        if numbered.content(number).exists() { numbered.wipe(number) } else { Ok(()) }
    }

    fn usage(&self, numbered: &Numbered, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        numbered.usage(snapshot.number)
    }
}
