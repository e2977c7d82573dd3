//! Extracting a layer into a directory.

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::ArchiveError;

/// What to do with `.wh.` entries (image-spec, layer.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Write them as overlayfs has them: character device 0:0, `trusted.overlay.opaque`.
    Overlay,
    /// Remove what they name from the directory, unless this very archive made it.
    Apply,
    /// Take them as ordinary files: the archive is no layer.
    Keep,
}

/// What was extracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// Extracts an uncompressed tar stream beneath `root`, with owners, modes, times, extended attributes, devices and
/// hard links. Missing parent directories take their attributes from `parents` (layers below, nearest first).
///
/// # Errors
/// See [`ArchiveError`]. What was extracted before the error stays.
pub fn extract(
    stream: &mut dyn Read,
    root: BorrowedFd<'_>,
    parents: &[OwnedFd],
    whiteouts: Whiteouts,
) -> Result<Extracted, ArchiveError> {
    let _ = (stream, root, parents, whiteouts);
    unimplemented!()
}
