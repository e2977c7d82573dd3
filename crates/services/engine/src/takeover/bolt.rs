//! Reading bbolt files, in which Docker and containerd keep records: pages of sorted keys, buckets within buckets.
//!
//! ```text
//! page    id u64 · flags u16 (1 branch, 2 leaf, 4 meta) · count u16 · overflow u32 · elements · keys and values
//! meta    magic u32 · version u32 · page size u32 · flags u32 · root page u64 · sequence u64 · freelist u64 · pages u64 · transaction u64
//! branch  position u32 · key size u32 · page u64         leaf  flags u32 (1 bucket) · position u32 · key size u32 · value size u32
//! ```
//!
//! A position counts from its element. A bucket's value is its root page and a sequence; root 0 means that its one page follows
//! in the value. Source: go.etcd.io/bbolt, `internal/common`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::TakeoverError;

const MAGIC: u32 = 0xED0C_DAED;
const HEADER: usize = 16;
const ELEMENT: usize = 16;
/// The smallest page there is.
const SMALLEST: usize = 512;

/// One file, read whole: those of an engine have some megabytes.
pub(super) struct Bolt {
    data: Vec<u8>,
    page: usize,
    root: u64,
    path: PathBuf,
}

/// Where a bucket's keys are.
#[derive(Clone)]
pub(super) enum Bucket {
    Page(u64),
    Inline(Vec<u8>),
}

/// What stands behind a key.
pub(super) enum Item {
    Bucket(Bucket),
    Value(Vec<u8>),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut whole = [0; 8];
    whole[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(whole))
}

impl Bolt {
    /// Reads a file; `None` if there is none. Whoever has it open for writing holds a lock on it.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, TakeoverError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TakeoverError::Io { operation: "open", path: path.to_owned(), source }),
        };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Err(TakeoverError::Running(path.to_owned()));
        }
        let mut data = Vec::new();
        let read = file.read_to_end(&mut data);
        read.map_err(|source| TakeoverError::Io { operation: "read", path: path.to_owned(), source })?;
        let meta = |at: usize| {
            let magic = number::<4>(&data, at + HEADER)?;
            let field = |offset| number::<8>(&data, at + HEADER + offset);
            let valid = magic == u64::from(MAGIC) && number::<4>(&data, at + HEADER + 4)? == 2;
            valid.then_some((field(48)?, field(16)?, number::<4>(&data, at + HEADER + 8)?))
        };
        // The second copy is one page further, and only the first says how long that is; it may be the damaged one.
        let sizes = (9..17).map(|power| 1usize << power);
        let newest = std::iter::once(0).chain(sizes).filter_map(meta).max();
        let damaged = || TakeoverError::Format { path: path.to_owned(), what: "no bbolt file" };
        let (_, root, page) = newest.ok_or_else(damaged)?;
        Self::new(data, page as usize, root, path).map(Some)
    }

    fn new(data: Vec<u8>, page: usize, root: u64, path: &Path) -> Result<Self, TakeoverError> {
        let path = path.to_owned();
        if page < SMALLEST {
            return Err(TakeoverError::Format { path, what: "no bbolt file" });
        }
        Ok(Self { data, page, root, path })
    }

    fn damaged(&self) -> TakeoverError {
        TakeoverError::Format { path: self.path.clone(), what: "a damaged page" }
    }

    /// The topmost bucket.
    pub(super) fn root(&self) -> Bucket {
        Bucket::Page(self.root)
    }

    /// A bucket by its path from the top; `None` if it is not there.
    pub(super) fn bucket(&self, path: &[&str]) -> Result<Option<Bucket>, TakeoverError> {
        let mut at = self.root();
        for name in path {
            let found = self.items(&at)?.into_iter().find(|(key, _)| key == name.as_bytes());
            match found {
                Some((_, Item::Bucket(bucket))) => at = bucket,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The keys of a bucket with what stands behind them, in order.
    pub(super) fn items(&self, bucket: &Bucket) -> Result<Vec<(Vec<u8>, Item)>, TakeoverError> {
        let mut items = Vec::new();
        match bucket {
            Bucket::Page(page) => self.walk(*page, &mut self.data.len(), &mut items)?,
            Bucket::Inline(bytes) => leaf(bytes, &mut bytes.len(), &mut items).ok_or_else(|| self.damaged())?,
        }
        Ok(items)
    }

    /// The text behind a key of a bucket.
    pub(super) fn text(&self, bucket: &Bucket, key: &str) -> Result<Option<String>, TakeoverError> {
        let found = self.items(bucket)?.into_iter().find(|(k, _)| k == key.as_bytes());
        Ok(match found {
            Some((_, Item::Value(value))) => String::from_utf8(value).ok(),
            _ => None,
        })
    }

    /// Collects the items below a page. `left` is how many bytes of the file are not accounted for: in a tree that needs more,
    /// pages lead back to themselves or values lie over each other.
    fn walk(&self, page: u64, left: &mut usize, items: &mut Vec<(Vec<u8>, Item)>) -> Result<(), TakeoverError> {
        *left = left.checked_sub(HEADER).ok_or_else(|| self.damaged())?;
        let start = usize::try_from(page).ok().and_then(|page| page.checked_mul(self.page));
        let bytes = start.and_then(|start| self.data.get(start..)).ok_or_else(|| self.damaged())?;
        let flags = number::<2>(bytes, 8).ok_or_else(|| self.damaged())?;
        if flags & 1 == 0 {
            return leaf(bytes, left, items).filter(|()| flags & 2 != 0).ok_or_else(|| self.damaged());
        }
        let count = number::<2>(bytes, 10).ok_or_else(|| self.damaged())?;
        for i in 0..count as usize {
            let child = number::<8>(bytes, HEADER + ELEMENT * i + 8).ok_or_else(|| self.damaged())?;
            self.walk(child, left, items)?;
        }
        Ok(())
    }
}

/// Collects the items of a leaf page.
fn leaf(bytes: &[u8], left: &mut usize, items: &mut Vec<(Vec<u8>, Item)>) -> Option<()> {
    for i in 0..number::<2>(bytes, 10)? as usize {
        let at = HEADER + ELEMENT * i;
        let field = |n: usize| number::<4>(bytes, at + 4 * n).map(|v| v as usize);
        let (flags, position, key, value) = (field(0)?, field(1)?, field(2)?, field(3)?);
        *left = left.checked_sub(ELEMENT + key + value)?;
        let rest = bytes.get(at + position..)?;
        let (key, value) = (rest.get(..key)?.to_vec(), rest.get(key..key + value)?);
        items.push((key, if flags & 1 == 0 { Item::Value(value.to_vec()) } else { Item::Bucket(bucket(value)?) }));
    }
    Some(())
}

fn bucket(value: &[u8]) -> Option<Bucket> {
    match number::<8>(value, 0)? {
        0 => Some(Bucket::Inline(value.get(16..)?.to_vec())),
        page => Some(Bucket::Page(page)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 512;

    fn branch_to(children: &[u64]) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[8] = 1;
        page[10] = children.len() as u8;
        for (i, child) in children.iter().enumerate() {
            let at = HEADER + ELEMENT * i + 8;
            page[at..at + 8].copy_from_slice(&child.to_le_bytes());
        }
        page
    }

    #[test]
    fn pages_that_lead_back_to_themselves_are_damage_found_at_once() {
        let bolt = Bolt::new(branch_to(&[0; 30]), PAGE, 0, Path::new("x")).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(bolt.items(&bolt.root()), Err(TakeoverError::Format { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data: Vec<u8>, root in 0u64..4, flags in 0u8..3, count in 0u8..40) {
            let mut data = [data, vec![0; PAGE]].concat();
            data[8] = flags;
            data[10] = count;
            if let Ok(bolt) = Bolt::new(data.clone(), PAGE, root, Path::new("x")) {
                let kept: usize = bolt.items(&bolt.root()).into_iter().flatten().map(|(key, _)| key.len()).sum();
                prop_assert!(kept <= data.len());
            }
            let _ = leaf(&data, &mut data.len(), &mut Vec::new());
        }
    }
}
