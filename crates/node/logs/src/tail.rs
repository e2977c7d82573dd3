//! Finding where the last n messages of a file begin, from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::local;
use crate::record::{Format, Record, Step};

const BLOCK: usize = 64 * 1024;

/// Where the last `n` whole messages of a file begin, and how many there are up to `n`.
pub(crate) fn find(file: &File, format: Format, n: u64) -> io::Result<(u64, u64)> {
    let size = file.metadata()?.len();
    match format {
        Format::Json => lines(file, size, n),
        Format::Local => records(file, size, n),
    }
}

fn lines(file: &File, size: u64, n: u64) -> io::Result<(u64, u64)> {
    let mut buffer = vec![0; BLOCK];
    // The newline that ends message k from the end is the k-th seen; the message begins behind the next one.
    let (mut end, mut seen) = (size, 0u64);
    while end > 0 {
        let len = BLOCK.min(usize::try_from(end).unwrap_or(BLOCK));
        let from = end - len as u64;
        file.read_exact_at(&mut buffer[..len], from)?;
        for at in memchr::memrchr_iter(b'\n', &buffer[..len]) {
            let behind = from + at as u64 + 1;
            if seen == n {
                return Ok((behind, n));
            }
            seen += 1;
        }
        end = from;
    }
    Ok((0, seen))
}

fn records(file: &File, size: u64, n: u64) -> io::Result<(u64, u64)> {
    let (mut at, mut seen) = (size, 0);
    while at > 0 && seen < n {
        let mut word = [0; 4];
        let step = if at >= 8 {
            file.read_exact_at(&mut word, at - 4)?;
            u64::from(u32::from_be_bytes(word)) + 8
        } else {
            u64::MAX
        };
        let foot = word;
        if step <= at {
            file.read_exact_at(&mut word, at - step)?;
        }
        if step > at || word != foot || step > local::MAX as u64 + 8 {
            return forward(file, size, n);
        }
        at -= step;
        seen += 1;
    }
    Ok((at, seen))
}

/// For a file whose end is torn: reads it from the start and remembers where messages begin.
fn forward(file: &File, size: u64, n: u64) -> io::Result<(u64, u64)> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let (mut starts, mut at, mut record) = (Vec::new(), 0, Record::default());
    loop {
        match Format::Local.take(&bytes[at..], &mut record) {
            Step::Message(len) => {
                starts.push(at as u64);
                at += len;
            }
            Step::Skip(len) => at += len,
            Step::Short => break,
        }
    }
    let keep = usize::try_from(n).unwrap_or(usize::MAX).min(starts.len());
    let start = starts.get(starts.len() - keep).copied().unwrap_or(at as u64);
    Ok((start, keep as u64))
}
