//! Recognising and undoing compression, in this process (CVE-2014-9357, CVE-2026-41567: never by a helper program).

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use crate::ArchiveError;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A stream whose first bytes were looked at.
pub type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Bytes that tell the format: xz has the longest mark.
const MARK: usize = 6;

impl Compression {
    /// Tells the format from a stream's first bytes (fewer than six only at its end).
    ///
    /// # Errors
    /// [`ArchiveError::Compression`] for bzip2 and xz, which are refused by name.
    pub fn detect(start: &[u8]) -> Result<Self, ArchiveError> {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Ok(Compression::Gzip),
            // The second form is a skippable frame, with which zstd:chunked and pzstd streams may begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => Err(ArchiveError::Compression("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Err(ArchiveError::Compression("xz")),
            _ => Ok(Compression::None),
        }
    }

    /// Reads as many bytes as tell the format, and gives them back in front of the rest.
    ///
    /// # Errors
    /// [`ArchiveError::Read`], [`ArchiveError::Compression`].
    pub fn peek<R: Read>(mut stream: R) -> Result<(Self, Peeked<R>), ArchiveError> {
        let mut start = vec![0; MARK];
        let mut have = 0;
        while have < MARK {
            match stream.read(&mut start[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ArchiveError::Read(e)),
            }
        }
        start.truncate(have);
        let compression = Self::detect(&start)?;
        Ok((compression, Cursor::new(start).chain(stream)))
    }
}

/// Memory that a zstd frame may ask for as its window: 2^27 bytes, the decoder's own default limit, said here so
/// that a hostile frame cannot ask for more.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A stream without its compression.
pub enum Decoder<R: BufRead> {
    /// As it comes.
    Plain(R),
    /// From gzip, with any number of members.
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    /// From zstd, with any number of frames.
    Zstd(Box<zstd::Decoder<'static, R>>),
}

impl<R: Read> Decoder<BufReader<R>> {
    /// Undoes this compression.
    ///
    /// # Errors
    /// [`ArchiveError::Read`] if the decoder cannot be made.
    pub fn new(compression: Compression, stream: R) -> Result<Self, ArchiveError> {
        Self::buffered(compression, BufReader::with_capacity(1 << 17, stream))
    }
}

impl<R: BufRead> Decoder<R> {
    /// As [`Decoder::new`], of a stream that has a buffer.
    ///
    /// # Errors
    /// [`ArchiveError::Read`].
    pub fn buffered(compression: Compression, stream: R) -> Result<Self, ArchiveError> {
        Ok(match compression {
            Compression::None => Decoder::Plain(stream),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(stream))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(stream).map_err(ArchiveError::Read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(ArchiveError::Read)?;
                Decoder::Zstd(Box::new(decoder))
            }
        })
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(stream) => stream.read(buffer),
            Decoder::Gzip(stream) => stream.read(buffer),
            Decoder::Zstd(stream) => stream.read(buffer),
        }
    }
}
