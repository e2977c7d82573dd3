//! One pass over a layer: its bytes are stored, hashed, decompressed, hashed again and extracted side by side.
//!
//! ```text
//! source ─▶ read ──┬─▶ write blob              source ─▶ read ──┬─▶ write blob
//!   (plain tar)    ├─▶ hash (digest = diff id)   (compressed)   ├─▶ hash (digest)
//!                  └─▶ extract                                  └─▶ decompress ──┬─▶ hash (diff id)
//!                                                                                └─▶ extract
//! ```
//!
//! And one pass the other way, for layers that are made here:
//!
//! ```text
//! pack ──┬─▶ hash (diff id)
//!        ├─▶ compress ─▶ write blob and hash it (or only write it: then the digest is the diff id)
//!        └─▶ extract, where the layer is to be a snapshot at once
//! ```
//!
//! Pieces of [`PIECE`] bytes are shared by reference between the threads and reused. Queues are short, so a slow
//! step holds the others back and memory stays bounded whatever comes.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ring::digest::{Context, SHA256};
use wharf_archive::{ArchiveError, Compression, Decoder, extract};
use wharf_content::Ingest;
use wharf_snapshot::Target;
use wharf_types::Digest;

use crate::ImageError;

const PIECE: usize = 512 << 10;
const QUEUE: usize = 3;

/// What a pass found.
pub(crate) struct Passed {
    /// Digest of the bytes as they came.
    pub(crate) digest: Digest,
    /// What it unpacked to.
    pub(crate) unpacked: Unpacked,
    /// How the source was compressed.
    pub(crate) compression: Compression,
    /// The blob as written, if it was to be stored; not yet committed.
    pub(crate) ingest: Option<Ingest>,
}

/// What extracting found.
pub(crate) struct Unpacked {
    /// Digest of the uncompressed bytes.
    pub(crate) diff_id: Digest,
    /// See [`wharf_archive::Extracted::implied`].
    pub(crate) implied: Vec<PathBuf>,
}

/// What a pass over something found that may be a layer or not.
pub(crate) struct Tried {
    /// Digest of the bytes as they came.
    pub(crate) digest: Digest,
    /// The bytes as written; not yet committed.
    pub(crate) ingest: Ingest,
    /// What it unpacked to, if it did.
    pub(crate) unpacked: Option<Unpacked>,
}

/// How a layer that is made here is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// As it is: the fastest, for layers that stay here.
    Plain,
    /// By gzip, which every registry and engine reads.
    #[default]
    Gzip,
    /// By zstd: smaller and faster than gzip, for registries and engines since 2020 (OCI media types).
    Zstd,
}

/// gzip's level: about twice as fast as the usual 6 for a tenth more bytes.
const GZIP_LEVEL: u32 = 3;
/// zstd's level, its own default.
const ZSTD_LEVEL: i32 = 3;

/// Runs what `pack` writes, a plain layer, through the steps.
pub(crate) fn produce(
    pack: impl FnOnce(&mut dyn Write) -> Result<u64, ArchiveError>,
    packing: Packing,
    ingest: Ingest,
    target: Option<Target>,
) -> Result<Produced, ImageError> {
    let pool = Pool::default();
    thread::scope(|scope| {
        let mut sinks = Vec::new();
        let mut pieces = || {
            let (sink, pieces) = sync_channel(QUEUE);
            sinks.push(sink);
            Pieces::new(pieces)
        };
        let mut to_hash = pieces();
        let hashed = scope.spawn(move || hash(&mut to_hash));
        let mut to_store = pieces();
        let stored = scope.spawn(move || compress(ingest, packing, &mut to_store));
        let extracted = target.map(|target| {
            let mut to_extract = pieces();
            scope.spawn(move || extract_all(&mut to_extract, target))
        });
        let mut cutter = Cutter { pool: &pool, sinks, buffer: pool.take(), have: 0 };
        let packed = pack(&mut cutter);
        let packed = packed.and_then(|entries| cutter.end().map_err(ArchiveError::Write).map(|()| entries));
        drop(cutter);
        let stored = join(stored.join()).map_err(ImageError::Extract)?;
        let extracted = extracted.map(|extracted| join(extracted.join()).and_then(|done| done)).transpose();
        let hashed = join(hashed.join()).map_err(ImageError::Extract)?;
        let failed = |source| ImageError::Stream { action: "store the layer", source };
        // A step that was cut off is not the cause.
        let cut_off = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        let entries = match packed {
            Ok(entries) => entries,
            // Nobody takes the pieces: the step that failed says why.
            Err(ArchiveError::Write(_)) => 0,
            Err(e) => return Err(ImageError::Extract(e)),
        };
        let ingest = match stored {
            Err(e) if !cut_off(&e) => return Err(failed(e)),
            other => other,
        };
        extracted.map_err(ImageError::Extract)?;
        Ok(Produced { ingest: ingest.map_err(failed)?, diff_id: hashed.map_err(failed)?, entries })
    })
}

/// What [`produce`] made.
pub(crate) struct Produced {
    /// The blob, not yet committed. It knows its own digest, unless the layer is plain.
    pub(crate) ingest: Ingest,
    /// Digest of the plain bytes.
    pub(crate) diff_id: Digest,
    /// Entries of the archive.
    pub(crate) entries: u64,
}

fn compress(mut ingest: Ingest, packing: Packing, pieces: &mut Pieces) -> io::Result<Ingest> {
    match packing {
        Packing::Plain => store(ingest, pieces),
        Packing::Gzip => {
            // Without name and time in its header, so that the same layer gives the same blob.
            let mut encoder = flate2::write::GzEncoder::new(&mut ingest, flate2::Compression::new(GZIP_LEVEL));
            io::copy(pieces, &mut encoder)?;
            encoder.finish()?;
            Ok(ingest)
        }
        Packing::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut ingest, ZSTD_LEVEL)?;
            io::copy(pieces, &mut encoder)?;
            encoder.finish()?;
            Ok(ingest)
        }
    }
}

/// Cuts what is written to it into pieces for all sinks.
struct Cutter<'p> {
    pool: &'p Pool,
    sinks: Vec<SyncSender<Piece>>,
    buffer: Vec<u8>,
    have: usize,
}

impl Cutter<'_> {
    fn send(&mut self) -> io::Result<()> {
        let bytes = std::mem::replace(&mut self.buffer, self.pool.take());
        let shared = Arc::new(Shared { bytes, length: self.have, pool: self.pool.clone() });
        self.have = 0;
        // A sink that is gone has failed and says why.
        let gone = self.sinks.iter().any(|sink| sink.send(Piece::Data(shared.clone())).is_err());
        if gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.have > 0 {
            self.send()?;
        }
        for sink in &self.sinks {
            // As in `feed`.
            let _ = sink.send(Piece::End);
        }
        Ok(())
    }
}

impl Write for Cutter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.have);
        self.buffer[self.have..self.have + n].copy_from_slice(&bytes[..n]);
        self.have += n;
        if self.have == PIECE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a whole source through the steps. Bytes after the archive's end are hashed and stored like the rest. The
/// bytes as they come are not hashed where their digest is `known`, because someone else verifies it.
pub(crate) fn pass(
    source: &mut dyn Read,
    ingest: Option<Ingest>,
    known: Option<&Digest>,
    target: Target,
) -> Result<Passed, ImageError> {
    let run = run(source, ingest, known, target, false)?;
    let unpacked = run.unpacked.map_err(ImageError::Extract)?;
    Ok(Passed { digest: run.digest, unpacked, compression: run.compression, ingest: run.ingest })
}

/// As [`pass`], of something that is stored whether it can be extracted or not.
pub(crate) fn pass_if_layer(source: &mut dyn Read, ingest: Ingest, target: Target) -> Result<Tried, ImageError> {
    let run = run(source, Some(ingest), None, target, true)?;
    let lost = || ImageError::Archive("a blob is lost".to_owned());
    Ok(Tried { digest: run.digest, ingest: run.ingest.ok_or_else(lost)?, unpacked: run.unpacked.ok() })
}

struct Run {
    digest: Digest,
    compression: Compression,
    ingest: Option<Ingest>,
    unpacked: Result<Unpacked, ArchiveError>,
}

fn run(
    source: &mut dyn Read,
    ingest: Option<Ingest>,
    known: Option<&Digest>,
    target: Target,
    optional: bool,
) -> Result<Run, ImageError> {
    let (compression, mut source) = Compression::peek(source).map_err(ImageError::Extract)?;
    let pool = Pool::default();
    thread::scope(|scope| {
        let (raw, mut sinks) = (&pool, Vec::new());
        let hashed = known.is_none().then(|| {
            let (sink, pieces) = sync_channel(QUEUE);
            sinks.push(sink);
            scope.spawn(move || hash(&mut Pieces::new(pieces)))
        });
        let stored = ingest.map(|ingest| {
            let (sink, pieces) = sync_channel(QUEUE);
            sinks.push(sink);
            scope.spawn(move || store(ingest, &mut Pieces::new(pieces)))
        });
        let (sink, pieces) = sync_channel(QUEUE);
        sinks.push(sink);
        let inner = Pieces::new(pieces);
        let unpacked = scope.spawn(move || unpack(compression, inner, raw, target));
        let essential = if optional { sinks.len() - 1 } else { sinks.len() };
        let fed = feed(&mut source, &pool, sinks, essential);
        let hashed = hashed.map(|hashed| join(hashed.join()));
        let stored = stored.map(|stored| join(stored.join()));
        let unpacked = join(unpacked.join());
        // A broken source breaks every step after it, so its error is the cause.
        fed.map_err(|source| ImageError::Stream { action: "read the layer", source })?;
        let failed = |source| ImageError::Stream { action: "store the layer", source };
        let stored = stored.transpose().map_err(ImageError::Extract)?.transpose();
        // Cut off by another step, or itself the cause (a full disk)?
        let cut_off = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        let ingest = match stored {
            Err(e) if !cut_off(&e) => return Err(failed(e)),
            other => other,
        };
        let unpacked = match unpacked.and_then(|done| done) {
            Err(e) if !optional => return Err(ImageError::Extract(e)),
            other => other,
        };
        let hashed = hashed.transpose().map_err(ImageError::Extract)?.transpose().map_err(failed)?;
        let digest = hashed.or_else(|| known.cloned()).ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        let ingest = ingest.map_err(failed)?;
        let unpacked = unpacked.map(|(inner, implied)| {
            let diff_id = inner.unwrap_or_else(|| digest.clone());
            Unpacked { diff_id, implied }
        });
        Ok(Run { digest, compression, ingest, unpacked })
    })
}

/// A panic of a step has been printed by its thread; here it is an error of the whole pass.
fn join<T>(outcome: thread::Result<T>) -> Result<T, ArchiveError> {
    outcome.map_err(|_| ArchiveError::Read(io::Error::other("a step of unpacking ended unexpectedly")))
}

/// Undoes the compression and extracts; the digest of the uncompressed bytes is told if there was a compression.
fn unpack(
    compression: Compression,
    mut pieces: Pieces,
    pool: &Pool,
    target: Target,
) -> Result<(Option<Digest>, Vec<PathBuf>), ArchiveError> {
    if compression == Compression::None {
        return extract_all(&mut pieces, target).map(|implied| (None, implied));
    }
    let mut decoder = Decoder::buffered(compression, pieces)?;
    thread::scope(|scope| {
        let (to_hash, hashing) = sync_channel(QUEUE);
        let (to_extract, extracting) = sync_channel(QUEUE);
        let hashed = scope.spawn(move || hash(&mut Pieces::new(hashing)));
        let extracted = scope.spawn(move || extract_all(&mut Pieces::new(extracting), target));
        let fed = feed(&mut decoder, pool, vec![to_hash, to_extract], 2);
        let (hashed, extracted) = (join(hashed.join()), join(extracted.join()));
        fed.map_err(ArchiveError::Read)?;
        let implied = extracted??;
        Ok((Some(hashed?.map_err(ArchiveError::Read)?), implied))
    })
}

fn extract_all(pieces: &mut Pieces, target: Target) -> Result<Vec<PathBuf>, ArchiveError> {
    let extracted = extract(pieces, target.root, &target.parents, target.whiteouts)?;
    // What follows the archive belongs to the layer's digests, and the other steps wait for this one to take it.
    loop {
        let n = pieces.fill_buf().map_err(ArchiveError::Read)?.len();
        if n == 0 {
            return Ok(extracted.implied);
        }
        pieces.consume(n);
    }
}

fn hash(pieces: &mut Pieces) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    loop {
        let piece = pieces.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        context.update(piece);
        let n = piece.len();
        pieces.consume(n);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Ok(Digest::from_sha256(bytes))
}

fn store(mut ingest: Ingest, pieces: &mut Pieces) -> io::Result<Ingest> {
    ingest.hashed_elsewhere();
    loop {
        let piece = pieces.fill_buf()?;
        if piece.is_empty() {
            return Ok(ingest);
        }
        ingest.write_all(piece)?;
        let n = piece.len();
        pieces.consume(n);
    }
}

/// Cuts a source into pieces for all sinks. Ends early, without an error of its own, when one of the first, `essential`
/// sinks is gone: its step has failed and says why. Of the others it goes on without those that are gone.
fn feed(source: &mut dyn Read, pool: &Pool, mut sinks: Vec<SyncSender<Piece>>, essential: usize) -> io::Result<()> {
    loop {
        let mut buffer = pool.take();
        let mut have = 0;
        while have < PIECE {
            match source.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let last = have < PIECE;
        if have > 0 {
            let shared = Arc::new(Shared { bytes: buffer, length: have, pool: pool.clone() });
            let mut place = 0;
            while let Some(sink) = sinks.get(place) {
                match sink.send(Piece::Data(shared.clone())) {
                    Ok(()) => place += 1,
                    Err(_) if place < essential => return Ok(()),
                    Err(_) => drop(sinks.remove(place)),
                }
            }
        }
        if last {
            for sink in &sinks {
                // A sink that is gone has failed; the others still need to hear of the end.
                let _ = sink.send(Piece::End);
            }
            return Ok(());
        }
    }
}

enum Piece {
    Data(Arc<Shared>),
    /// The source is complete. A queue that closes without it was cut off.
    End,
}

struct Shared {
    bytes: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

/// Buffers to use again: fresh ones cost a page fault for every 4 KiB.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; PIECE])
    }

    fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// The receiving end of a queue as a stream.
struct Pieces {
    queue: Receiver<Piece>,
    present: Option<Arc<Shared>>,
    at: usize,
    ended: bool,
}

impl Pieces {
    fn new(queue: Receiver<Piece>) -> Self {
        Self { queue, present: None, at: 0, ended: false }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.present.as_ref().is_none_or(|piece| self.at == piece.length) && !self.ended {
            self.at = 0;
            self.present = match self.queue.recv() {
                Ok(Piece::Data(piece)) => Some(piece),
                Ok(Piece::End) => {
                    self.ended = true;
                    None
                }
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        Ok(self.present.as_ref().map_or(&[], |piece| &piece.bytes[self.at..piece.length]))
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let n = have.len().min(buffer.len());
        buffer[..n].copy_from_slice(&have[..n]);
        self.consume(n);
        Ok(n)
    }
}
