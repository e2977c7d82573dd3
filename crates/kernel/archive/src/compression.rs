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

/// How far a compressed stream may inflate: some bytes for nothing, and so many for each byte that came. What goes
/// further is a bomb, made to fill a disk or to keep a machine busy (CWE-409).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflation {
    /// Bytes whatever came.
    pub free: u64,
    /// Bytes for each byte that came.
    pub ratio: u64,
}

impl Default for Inflation {
    /// 16 GiB, and 200 times what came: archives of files inflate to about 3 times, of nothing but zeros gzip's to 1,030
    /// times and zstd's to any size.
    fn default() -> Self {
        Self { free: 16 << 30, ratio: 200 }
    }
}

/// A stream inflates further than it may.
#[derive(Debug, thiserror::Error)]
#[error("decompression bomb: {packed} bytes inflate to more than {bound}")]
pub struct Bomb {
    /// Bytes that came.
    pub packed: u64,
    /// What they may inflate to.
    pub bound: u64,
}

/// A stream without its compression, which ends with [`Bomb`] as its error where it inflates further than it may.
pub struct Decoder<R: BufRead> {
    kind: Kind<Counted<R>>,
    inflation: Inflation,
    out: u64,
}

enum Kind<R: BufRead> {
    /// As it comes.
    Plain(R),
    /// From gzip, with any number of members.
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    /// From zstd, with any number of frames.
    Zstd(Box<zstd::Decoder<'static, R>>),
}

/// A stream that counts what was taken of it.
struct Counted<R> {
    stream: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.taken += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.taken += n as u64;
        self.stream.consume(n);
    }
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
        Self::bounded(compression, stream, Inflation::default())
    }

    /// As [`Decoder::buffered`], with a bound of one's own.
    ///
    /// # Errors
    /// [`ArchiveError::Read`].
    pub fn bounded(compression: Compression, stream: R, inflation: Inflation) -> Result<Self, ArchiveError> {
        let stream = Counted { stream, taken: 0 };
        let kind = match compression {
            Compression::None => Kind::Plain(stream),
            Compression::Gzip => Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(stream))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(stream).map_err(ArchiveError::Read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(ArchiveError::Read)?;
                Kind::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { kind, inflation, out: 0 })
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (n, packed) = match &mut self.kind {
            Kind::Plain(stream) => return stream.read(buffer),
            Kind::Gzip(stream) => (stream.read(buffer)?, stream.get_ref().taken),
            Kind::Zstd(stream) => (stream.read(buffer)?, stream.get_ref().taken),
        };
        self.out += n as u64;
        let bound = self.inflation.free.saturating_add(self.inflation.ratio.saturating_mul(packed));
        if self.out > bound {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Bomb { packed, bound }));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what comes out before the stream ends or is refused.
    fn inflate(compression: Compression, packed: &[u8], inflation: Inflation) -> (u64, Option<String>) {
        let mut decoder = Decoder::bounded(compression, packed, inflation).expect("a decoder");
        let mut buffer = vec![0; 1 << 20];
        let mut count = 0;
        loop {
            match decoder.read(&mut buffer) {
                Ok(0) => return (count, None),
                Ok(n) => count += n as u64,
                Err(e) => return (count, Some(e.to_string())),
            }
        }
    }

    fn zstd_of_zeros(bytes: u64) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        io::copy(&mut io::repeat(0).take(bytes), &mut encoder).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[test]
    fn a_bomb_is_refused_when_it_passes_its_bound_and_not_later() {
        let inflation = Inflation { free: 8 << 20, ratio: 200 };
        let bomb = zstd_of_zeros(64 << 20);
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        let (count, refused) = inflate(Compression::Zstd, &bomb, inflation);
        assert!(refused.is_some_and(|text| text.starts_with("decompression bomb: ")));
        assert!(count <= inflation.free + 200 * bomb.len() as u64, "{count}");
        assert_eq!(inflate(Compression::Zstd, &zstd_of_zeros(8 << 20), inflation), (8 << 20, None));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).expect("memory takes it");
        let bomb = encoder.finish().expect("memory takes it");
        assert!(inflate(Compression::Gzip, &bomb, inflation).1.is_some());
    }

    #[test]
    fn frames_one_after_the_other_are_bounded_together() {
        let frames = zstd_of_zeros(4 << 20).repeat(4);
        assert!(inflate(Compression::Zstd, &frames, Inflation { free: 8 << 20, ratio: 10 }).1.is_some());
    }

    #[test]
    fn what_is_not_compressed_has_no_bound() {
        let plain = vec![1; 1 << 20];
        assert_eq!(inflate(Compression::None, &plain, Inflation { free: 0, ratio: 0 }), (1 << 20, None));
    }
}
