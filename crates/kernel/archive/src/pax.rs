//! pax extended headers: `<length> <key>=<value>\n` (POSIX `pax`, "pax Extended Header").

use crate::ArchiveError;
use crate::sparse::Chunk;

/// A point in time as archives have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds on top, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What a pax header says of the entry after it.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) modified: Option<Time>,
    pub(crate) accessed: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse_name: Option<Vec<u8>>,
    sparse_major: Option<u64>,
    sparse_real: Option<u64>,
    sparse_text: Option<Vec<u8>>,
    sparse_offset: Option<u64>,
    sparse_pairs: Vec<Chunk>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut pax = Self::default();
        let wrong = ArchiveError::Header("pax record");
        while !bytes.is_empty() {
            let Some(space) = bytes.iter().take(20).position(|b| *b == b' ') else { return Err(wrong) };
            let length = decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok());
            let Some(length) = length.filter(|n| *n > space + 1 && *n <= bytes.len()) else { return Err(wrong) };
            let (record, rest) = bytes.split_at(length);
            bytes = rest;
            let Some(record) = record[space + 1..].strip_suffix(b"\n") else { return Err(wrong) };
            let Some(equals) = record.iter().position(|b| *b == b'=') else { return Err(wrong) };
            pax.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        let wrong = || ArchiveError::Header("pax value");
        let number = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or_else(wrong) };
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?.filter(|n| *n <= i64::MAX as u64),
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.modified = time(value)?,
            b"atime" => self.accessed = time(value)?,
            b"GNU.sparse.name" => self.sparse_name = text(),
            b"GNU.sparse.major" => self.sparse_major = number()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_real = number()?,
            b"GNU.sparse.map" => self.sparse_text = text(),
            b"GNU.sparse.offset" => self.sparse_offset = number()?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse_offset.take().ok_or_else(wrong)?;
                self.sparse_pairs.push(Chunk { offset, length: number()?.ok_or_else(wrong)? });
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty() && !name.contains(&0)) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn sparse_real(&self) -> Option<u64> {
        self.sparse_real
    }

    /// Whether the map stands in front of the data (version 1.0).
    pub(crate) fn sparse_in_data(&self) -> bool {
        self.sparse_major == Some(1)
    }

    /// The real size and the map of versions 0.0 and 0.1, which stand in the header.
    pub(crate) fn sparse_map(&self) -> Result<Option<(u64, Vec<Chunk>)>, ArchiveError> {
        let wrong = || ArchiveError::Header("sparse map");
        let map = match &self.sparse_text {
            Some(text) => {
                let numbers = text.split(|b| *b == b',').map(|n| decimal(n).ok_or_else(wrong));
                let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
                if numbers.len() % 2 != 0 {
                    return Err(wrong());
                }
                numbers.chunks(2).map(|pair| Chunk { offset: pair[0], length: pair[1] }).collect()
            }
            None if !self.sparse_pairs.is_empty() => self.sparse_pairs.clone(),
            None => return Ok(None),
        };
        Ok(Some((self.sparse_real.ok_or_else(wrong)?, map)))
    }
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// Seconds with any number of decimals, perhaps negative; an empty value takes an earlier one back.
fn time(text: &[u8]) -> Result<Option<Time>, ArchiveError> {
    let wrong = || ArchiveError::Header("pax time");
    if text.is_empty() {
        return Ok(None);
    }
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let whole = decimal(whole).and_then(|n| i64::try_from(n).ok()).ok_or_else(wrong)?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds: 0 },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    }))
}
