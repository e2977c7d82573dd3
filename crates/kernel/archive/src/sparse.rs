//! Maps of sparse files: which parts of the file the archive has (GNU tar manual, "Storing Sparse Files").

use crate::ArchiveError;
use crate::header::{BLOCK, number};
use crate::pax::decimal;

/// Chunks in one map at most: 16 MiB of memory.
const LIMIT: usize = 1 << 20;

/// A part of the file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A sparse file's size and chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) real: u64,
    pub(crate) map: Vec<Chunk>,
}

impl Sparse {
    /// Chunks must be ascending, within the file, and together as long as the stored data.
    pub(crate) fn verify(&self, stored: u64) -> Result<(), ArchiveError> {
        let wrong = ArchiveError::Header("sparse map");
        let (mut end, mut sum) = (0u64, 0u64);
        for chunk in &self.map {
            if chunk.offset < end {
                return Err(wrong);
            }
            match (chunk.offset.checked_add(chunk.length), sum.checked_add(chunk.length)) {
                (Some(next), Some(total)) if next <= self.real => (end, sum) = (next, total),
                _ => return Err(wrong),
            }
        }
        if sum == stored && self.real <= i64::MAX as u64 { Ok(()) } else { Err(wrong) }
    }
}

pub(crate) fn bound(chunks: usize) -> Result<(), ArchiveError> {
    if chunks > LIMIT { Err(ArchiveError::Header("sparse map too long")) } else { Ok(()) }
}

/// Entries of 24 bytes in old GNU headers, ended by an empty one.
pub(crate) fn old_gnu(bytes: &[u8]) -> Result<Vec<Chunk>, ArchiveError> {
    let field = |bytes| number(bytes).and_then(|n| u64::try_from(n).ok()).ok_or(ArchiveError::Header("sparse map"));
    let entries = bytes.chunks_exact(24).take_while(|entry| entry[0] != 0);
    entries.map(|entry| Ok(Chunk { offset: field(&entry[..12])?, length: field(&entry[12..])? })).collect()
}

/// Version 1.0: decimal lines in whole blocks before the data: the count, then offset and length of each chunk.
pub(crate) fn version_1(
    block: &mut dyn FnMut() -> Result<[u8; BLOCK], ArchiveError>,
) -> Result<Vec<Chunk>, ArchiveError> {
    let wrong = || ArchiveError::Header("sparse map");
    let mut lines = Lines { block, have: Vec::new(), at: 0 };
    let count = lines.number()?.try_into().map_err(|_| wrong())?;
    bound(count)?;
    let mut map = Vec::new();
    for _ in 0..count {
        map.push(Chunk { offset: lines.number()?, length: lines.number()? });
    }
    Ok(map)
}

struct Lines<'a> {
    block: &'a mut dyn FnMut() -> Result<[u8; BLOCK], ArchiveError>,
    have: Vec<u8>,
    at: usize,
}

impl Lines<'_> {
    fn number(&mut self) -> Result<u64, ArchiveError> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.have.len() {
                self.have = (self.block)()?.to_vec();
                self.at = 0;
            }
            let byte = self.have[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or(ArchiveError::Header("sparse map")),
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(ArchiveError::Header("sparse map")),
            }
        }
    }
}
