//! Measuring and moving trees on the engine's own disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of the files below a folder, as their lengths say; what cannot be read counts nothing.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) if meta.is_file() => meta.size(),
        _ => 0,
    };
    entries.flatten().map(of).sum()
}
