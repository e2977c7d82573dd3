//! A stored blob, open for reading.

use std::fs::File;
use std::io::{self, Read};

/// A blob's bytes and size.
#[derive(Debug)]
pub struct Blob {
    pub(crate) file: File,
    pub(crate) size: u64,
}

impl Blob {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open file, for sendfile(2) and the like.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}
