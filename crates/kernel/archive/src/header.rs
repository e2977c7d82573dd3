//! Reading tar: ustar, GNU and pax headers, one entry at a time, with bounds on everything an archive may claim.
//!
//! Sources: POSIX `pax`, "Extended Header" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files". Limits and leniency follow Go's `archive/tar`, which every image passed through.

use std::io::{self, BufRead};

use crate::ArchiveError;
use crate::pax::{Pax, Time};
use crate::sparse::{self, Sparse};

/// Bytes of a tar block.
pub(crate) const BLOCK: usize = 512;

/// Bytes of a pax header, long name or long link (Go's `maxSpecialFileSize`).
const SPECIAL_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A hard link to an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry of an archive, as its headers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it stands in the archive.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change.
    pub modified: Time,
    /// Time of last access, where given.
    pub accessed: Option<Time>,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// Bytes of the file; more than `stored` for sparse files.
    pub size: u64,
    /// Where the data belongs in a sparse file.
    pub(crate) sparse: Option<Sparse>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// Reads entries from an uncompressed stream.
pub struct Reader<'a> {
    stream: &'a mut dyn BufRead,
    /// Bytes of the present entry's data that were not read yet.
    remaining: u64,
    /// Zero bytes that follow the data.
    padding: u64,
}

impl<'a> Reader<'a> {
    /// Reads from this stream.
    pub fn new(stream: &'a mut dyn BufRead) -> Self {
        Self { stream, remaining: 0, padding: 0 }
    }

    /// Skips what is left of the present entry and reads the next one; `None` at the archive's end.
    ///
    /// # Errors
    /// [`ArchiveError::Read`], [`ArchiveError::Header`], [`ArchiveError::TooLong`].
    pub fn entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let Some(block) = self.block()? else { return Ok(None) };
            let raw = Raw(&block);
            raw.verify()?;
            let size = raw.number(124..136).ok_or(ArchiveError::Header("size"))?;
            self.expect(size);
            match raw.kind() {
                // Each header stands alone, so that a row of them cannot pile up.
                b'x' => pax = Pax::parse(&self.special(size)?)?,
                // A global header describes the archive, not its files; containerd and moby pass over it too.
                b'g' => drop(self.special(size)?),
                b'L' => long_name = Some(until_nul(&self.special(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.special(size)?).to_vec()),
                _ => return self.finish(&block, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn finish(
        &mut self,
        block: &[u8; BLOCK],
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, ArchiveError> {
        let raw = Raw(block);
        let name = pax.path.clone().or(long_name).unwrap_or_else(|| raw.name());
        let link = pax.link.clone().or(long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let kind = match raw.kind() {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 | b'0' | b'7' if name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Character,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(ArchiveError::Header("unhandled type")),
        };
        if name.contains(&0) || link.contains(&0) {
            return Err(ArchiveError::Header("name with a zero byte"));
        }
        let header_size = raw.number(124..136).ok_or(ArchiveError::Header("size"))?;
        let stored = match kind {
            EntryKind::File => pax.size.unwrap_or(header_size),
            // Other entries have no data whatever their size field says (Go's `isHeaderOnlyType`).
            _ => 0,
        };
        self.expect(stored);
        let id = |range, given: Option<u64>| {
            let id = given.or_else(|| raw.number(range));
            id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX).ok_or(ArchiveError::Header("owner"))
        };
        let seconds = raw.signed(136..148).ok_or(ArchiveError::Header("time"))?;
        let device = |range| raw.number(range).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let mut entry = Entry {
            kind,
            link,
            mode: (raw.number(100..108).ok_or(ArchiveError::Header("mode"))? & 0o7777) as u32,
            uid: id(108..116, pax.uid)?,
            gid: id(116..124, pax.gid)?,
            modified: pax.modified.unwrap_or(Time { seconds, nanoseconds: 0 }),
            accessed: pax.accessed,
            stored,
            size: stored,
            sparse: None,
            xattrs: Vec::new(),
            device: (device(329..337), device(337..345)),
            name,
        };
        self.read_sparse(block, &pax, &mut entry)?;
        entry.xattrs = pax.xattrs;
        Ok(entry)
    }

    fn read_sparse(&mut self, block: &[u8; BLOCK], pax: &Pax, entry: &mut Entry) -> Result<(), ArchiveError> {
        if entry.kind != EntryKind::File {
            return Ok(());
        }
        let sparse = if block[156] == b'S' {
            let real = Raw(block).number(483..495).ok_or(ArchiveError::Header("sparse size"))?;
            let mut map = sparse::old_gnu(&block[386..482])?;
            let mut more = block[482] != 0;
            while more {
                // Extension blocks stand between header and data and are not counted in the size.
                let mut extension = [0; BLOCK];
                self.fill(&mut extension)?;
                map.extend(sparse::old_gnu(&extension[..504])?);
                sparse::bound(map.len())?;
                more = extension[504] != 0;
            }
            Sparse { real, map }
        } else if let Some((real, map)) = pax.sparse_map()? {
            Sparse { real, map }
        } else if pax.sparse_in_data() {
            let real = pax.sparse_real().ok_or(ArchiveError::Header("sparse size"))?;
            let mut read = 0;
            let map = sparse::version_1(&mut || {
                let mut block = [0; BLOCK];
                self.fill(&mut block)?;
                read += BLOCK as u64;
                Ok(block)
            })?;
            self.remaining = self.remaining.checked_sub(read).ok_or(ArchiveError::Header("sparse map"))?;
            Sparse { real, map }
        } else {
            return Ok(());
        };
        if let Some(name) = &pax.sparse_name {
            entry.name.clone_from(name);
        }
        sparse.verify(self.remaining)?;
        entry.stored = self.remaining;
        entry.size = sparse.real;
        entry.sparse = Some(sparse);
        Ok(())
    }

    /// Hands out a piece of the present entry's data; empty at its end. What is not consumed comes again.
    ///
    /// # Errors
    /// [`ArchiveError::Read`], also when the stream ends within the entry.
    pub fn data(&mut self) -> Result<&[u8], ArchiveError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let have = self.stream.fill_buf().map_err(ArchiveError::Read)?;
        if have.is_empty() {
            return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let n = have.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&have[..n])
    }

    /// Marks `n` bytes of what [`Reader::data`] gave as used.
    pub fn consume(&mut self, n: usize) {
        self.stream.consume(n);
        self.remaining -= n as u64;
    }

    fn expect(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn special(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > SPECIAL_LIMIT {
            return Err(ArchiveError::TooLong(size));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.remaining = 0;
        Ok(bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let have = self.stream.fill_buf().map_err(ArchiveError::Read)?;
            if have.is_empty() {
                return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let n = have.len().min(bytes.len());
            bytes[..n].copy_from_slice(&have[..n]);
            self.stream.consume(n);
            bytes = &mut bytes[n..];
        }
        Ok(())
    }

    fn skip(&mut self, mut n: u64) -> Result<(), ArchiveError> {
        while n > 0 {
            let have = self.stream.fill_buf().map_err(ArchiveError::Read)?.len();
            if have == 0 {
                return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let step = have.min(usize::try_from(n).unwrap_or(usize::MAX));
            self.stream.consume(step);
            n -= step as u64;
        }
        Ok(())
    }

    /// The next block with something in it; `None` at two zero blocks or where the stream ends between entries.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        if self.stream.fill_buf().map_err(ArchiveError::Read)?.is_empty() {
            return Ok(None);
        }
        self.fill(&mut block)?;
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        if self.stream.fill_buf().map_err(ArchiveError::Read)?.is_empty() {
            return Ok(None);
        }
        self.fill(&mut block)?;
        if block.iter().any(|b| *b != 0) {
            return Err(ArchiveError::Header("a single zero block"));
        }
        Ok(None)
    }
}

/// A header block, by the fields of POSIX ustar.
struct Raw<'a>(&'a [u8; BLOCK]);

impl Raw<'_> {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Checks the sum over all bytes, with the sum's own field as blanks. Some old writers summed signed bytes.
    fn verify(&self) -> Result<(), ArchiveError> {
        let stored = self.number(148..156).ok_or(ArchiveError::Header("checksum"))?;
        let (mut plain, mut signed) = (0u64, 0i64);
        for (i, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            plain += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == plain || i64::try_from(stored) == Ok(signed) {
            return Ok(());
        }
        Err(ArchiveError::Header("checksum"))
    }

    /// The name, with ustar's prefix. GNU headers (`ustar␠␠`) have other things in the prefix's place.
    fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    /// A number that cannot be negative.
    fn number(&self, range: std::ops::Range<usize>) -> Option<u64> {
        self.signed(range).and_then(|n| u64::try_from(n).ok())
    }

    /// An octal number in blanks or zero bytes, or GNU's base 256 (first bit set, two's complement).
    fn signed(&self, range: std::ops::Range<usize>) -> Option<i64> {
        number(&self.0[range])
    }
}

pub(crate) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
        let value = field[1..].iter().try_fold(first, |n, b| n.checked_mul(256)?.checked_add(i128::from(*b)))?;
        return i64::try_from(value).ok();
    }
    let text = field.trim_ascii_start();
    let digits: Vec<u8> = text.iter().copied().take_while(|b| *b != 0 && *b != b' ').collect();
    digits.iter().try_fold(0i64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}
