//! Layers unpacked side by side: each into a directory upon nothing, then put upon the one below, in order.
//!
//! ```text
//! layer 0 ─▶ extract ─┐
//! layer 1 ─▶ extract ─┼─▶ 0 ─▶ 1 upon 0 ─▶ 2 upon 1
//! layer 2 ─▶ extract ─┘        (Snapshotter::rebase)
//! ```
//!
//! Drivers that copy what is below cannot do that; with them one layer comes after the other.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use wharf_oci::image::Descriptor;
use wharf_snapshot::{Snapshot, Snapshotter, Target, Usage};
use wharf_types::Digest;

use crate::pipeline::{Unpacked, pass};
use crate::records::{Layer, chain_id};
use crate::store::Shared;
use crate::unpack::{Below, Fresh, known_layer, unpack_known};
use crate::{ArrivingLayer, ImageError, Unpacking};

/// Layers that are unpacked at the same time at most. Each takes a few MiB of memory and up to four threads.
const SIDE_BY_SIDE: usize = 4;

/// A layer that is extracted, and not known yet upon what. It is thrown away unless it is put somewhere.
pub(crate) struct Apart {
    snapshots: Arc<dyn Snapshotter>,
    snapshot: Option<Snapshot>,
    unpacked: Option<(Unpacked, Usage)>,
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            // If this fails the directory stays without an owner and goes when the daemon starts.
            let _ = self.snapshots.remove(&snapshot);
        }
    }
}

impl Apart {
    /// Makes the directory.
    pub(crate) fn prepare(shared: &Shared) -> Result<(Self, Target), ImageError> {
        let snapshots = shared.parts.snapshots.clone();
        let snapshot = snapshots.prepare(None)?;
        let apart = Self { snapshots, snapshot: Some(snapshot.clone()), unpacked: None };
        wharf_fault::point("unpack.begin");
        let target = apart.snapshots.target(&snapshot)?;
        Ok((apart, target))
    }

    /// Notes what was extracted into it.
    pub(crate) fn filled(mut self, unpacked: Unpacked) -> Result<Self, ImageError> {
        wharf_fault::point("unpack.after-extract");
        if let Some(snapshot) = &self.snapshot {
            let usage = self.snapshots.usage(snapshot)?;
            self.unpacked = Some((unpacked, usage));
        }
        Ok(self)
    }

    fn extract(shared: &Shared, source: &mut dyn Read, blob: &Digest) -> Result<Self, ImageError> {
        let (apart, target) = Self::prepare(shared)?;
        let passed = pass(source, None, Some(blob), target)?;
        apart.filled(passed.unpacked)
    }

    /// Puts it upon the layers below.
    fn put(mut self, shared: &Shared, layer: &ArrivingLayer, below: &Below) -> Result<Fresh, ImageError> {
        let lost = || ImageError::Archive(format!("layer {} is lost", layer.diff_id));
        let (Unpacked { diff_id, implied }, usage) = self.unpacked.take().ok_or_else(lost)?;
        if diff_id != layer.diff_id {
            return Err(ImageError::DiffId { expected: layer.diff_id.clone(), found: diff_id });
        }
        let mut snapshot = self.snapshot.clone().ok_or_else(lost)?;
        if let Some(parent) = &below.snapshot {
            snapshot = self.snapshots.rebase(snapshot, parent, &implied)?;
        }
        self.snapshot = None;
        let snapshot = self.snapshots.commit(snapshot)?;
        wharf_fault::point("unpack.after-snapshot");
        let chain = chain_id(below.chain.as_ref(), &diff_id);
        let record = Layer {
            snapshot,
            parent: below.chain.clone(),
            diff_id,
            blob: layer.blob.clone(),
            usage,
            unsynced: Some(shared.boot.clone()),
        };
        Ok(Fresh::new(shared, chain, record))
    }
}

/// Gives the bytes of the layer of a place, which may still be growing. Called on any thread. A source whose bytes are
/// not those of the blob's digest must end with an error: they are not hashed again.
pub(crate) type Open<'a> = &'a (dyn Fn(usize) -> Result<Box<dyn Read + Send>, ImageError> + Sync);

/// Who has layers unpacked.
pub(crate) trait Client {
    /// Protects a chain, and gives its directory if it is unpacked already.
    fn known(&mut self, chain: &Digest) -> Option<Snapshot>;
    /// Takes a layer.
    fn made(&mut self, fresh: Fresh);
    /// Hears how far it is.
    fn tell(&mut self, step: Unpacking);
}

/// What is known of the layer of a place.
enum Slot {
    Known(Snapshot),
    Ready(Apart),
    /// Still to be unpacked.
    Open,
}

/// Layers of one image to be unpacked, lowest first.
pub(crate) struct Work<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) layers: &'a [ArrivingLayer],
    pub(crate) open: Open<'a>,
    /// Set when one fails, for the others to stop; and by who no longer wants any.
    pub(crate) stopped: &'a AtomicBool,
}

/// A step on a thread of its own.
enum Event {
    Begins(usize),
    Ended(usize, Result<Apart, ImageError>),
}

impl Work<'_> {
    /// Unpacks what is not unpacked yet. `ready` are layers that were extracted before, by their blobs. Returns the top
    /// chain id.
    pub(crate) fn run(
        &self,
        ready: &mut HashMap<Digest, Apart>,
        client: &mut dyn Client,
    ) -> Result<Option<Digest>, ImageError> {
        let mut slots = Vec::new();
        let mut chain: Option<Digest> = None;
        for layer in self.layers {
            let next = chain_id(chain.as_ref(), &layer.diff_id);
            slots.push(match client.known(&next) {
                Some(snapshot) => Slot::Known(snapshot),
                None => match ready.remove(&layer.blob.digest) {
                    Some(apart) => Slot::Ready(apart),
                    None if known_layer(&layer.blob.media_type) => Slot::Open,
                    None => return Err(ImageError::MediaType(layer.blob.media_type.clone())),
                },
            });
            chain = Some(next);
        }
        if self.shared.parts.snapshots.stacks() { self.all(slots, client) } else { self.each(slots, client) }
    }

    /// One after the other.
    fn each(&self, slots: Vec<Slot>, client: &mut dyn Client) -> Result<Option<Digest>, ImageError> {
        let mut below = Below::default();
        for (place, (layer, slot)) in self.layers.iter().zip(slots).enumerate() {
            let fresh = match slot {
                Slot::Known(snapshot) => {
                    below.rise(&layer.diff_id, snapshot);
                    client.tell(Unpacking::Done(place));
                    continue;
                }
                Slot::Ready(apart) => apart.put(self.shared, layer, &below)?,
                Slot::Open => {
                    client.tell(Unpacking::Begins(place));
                    self.unpack(layer, (self.open)(place)?, &below)?
                }
            };
            self.take(place, fresh, &mut below, client)?;
        }
        Ok(below.chain)
    }

    fn unpack(&self, layer: &ArrivingLayer, source: Box<dyn Read + Send>, below: &Below) -> Result<Fresh, ImageError> {
        let mut source = Stoppable { source, stopped: self.stopped };
        unpack_known(self.shared, &mut source, None, Some(&layer.blob.digest), below, |passed| {
            if passed.unpacked.diff_id != layer.diff_id {
                let (expected, found) = (layer.diff_id.clone(), passed.unpacked.diff_id.clone());
                return Err(ImageError::DiffId { expected, found });
            }
            Ok(layer.blob.clone())
        })
    }

    fn take(&self, place: usize, fresh: Fresh, below: &mut Below, client: &mut dyn Client) -> Result<(), ImageError> {
        let layer = &self.layers[place];
        let snapshot = fresh.snapshot();
        client.made(fresh);
        below.rise(&layer.diff_id, snapshot.ok_or_else(|| lost(layer))?);
        client.tell(Unpacking::Done(place));
        Ok(())
    }

    /// Several at a time.
    fn all(&self, mut slots: Vec<Slot>, client: &mut dyn Client) -> Result<Option<Digest>, ImageError> {
        let open = |(place, slot): (usize, &Slot)| matches!(slot, Slot::Open).then_some(place);
        let todo: Vec<usize> = slots.iter().enumerate().filter_map(open).collect();
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = todo.len().min(processors.clamp(2, SIDE_BY_SIDE));
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (tell, told) = channel();
            for _ in 0..workers {
                let (tell, todo, next) = (tell.clone(), &todo, &next);
                scope.spawn(move || self.work(todo, next, &tell));
            }
            drop(tell);
            let mut below = Below::default();
            let mut at = 0;
            let mut failed = None;
            loop {
                while failed.is_none() && at < slots.len() && !matches!(slots[at], Slot::Open) {
                    let layer = &self.layers[at];
                    let outcome = match std::mem::replace(&mut slots[at], Slot::Open) {
                        Slot::Known(snapshot) => {
                            below.rise(&layer.diff_id, snapshot);
                            client.tell(Unpacking::Done(at));
                            Ok(())
                        }
                        Slot::Ready(apart) => apart
                            .put(self.shared, layer, &below)
                            .and_then(|fresh| self.take(at, fresh, &mut below, client)),
                        Slot::Open => Err(lost(layer)),
                    };
                    failed = outcome.err();
                    at += 1;
                }
                if failed.is_some() {
                    self.stopped.store(true, Ordering::Release);
                }
                match told.recv() {
                    Ok(Event::Begins(place)) => client.tell(Unpacking::Begins(place)),
                    Ok(Event::Ended(place, Ok(apart))) => slots[place] = Slot::Ready(apart),
                    // Those that fail after the first were stopped by it.
                    Ok(Event::Ended(_, Err(e))) => failed = failed.or(Some(e)),
                    // All threads have ended.
                    Err(_) => break,
                }
            }
            match failed {
                Some(e) => Err(e),
                None if at < slots.len() => Err(lost(&self.layers[at])),
                None => Ok(below.chain),
            }
        })
    }

    /// Takes one layer after the other, lowest first, as long as there are any.
    fn work(&self, todo: &[usize], next: &AtomicUsize, tell: &Sender<Event>) {
        while !self.stopped.load(Ordering::Acquire) {
            let Some(place) = todo.get(next.fetch_add(1, Ordering::Relaxed)).copied() else { return };
            let source = match (self.open)(place) {
                Ok(source) => source,
                Err(e) => {
                    let _ = tell.send(Event::Ended(place, Err(e)));
                    return;
                }
            };
            // The other side listens until every thread has ended.
            let _ = tell.send(Event::Begins(place));
            let mut source = Stoppable { source, stopped: self.stopped };
            let outcome = Apart::extract(self.shared, &mut source, &self.layers[place].blob.digest);
            let ended = outcome.is_err();
            let _ = tell.send(Event::Ended(place, outcome));
            if ended {
                return;
            }
        }
    }
}

fn lost(layer: &ArrivingLayer) -> ImageError {
    ImageError::Archive(format!("layer {} is lost", layer.diff_id))
}

/// A source that ends when nobody wants it any more.
struct Stoppable<'a> {
    source: Box<dyn Read + Send>,
    stopped: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "unpacking was given up"));
        }
        self.source.read(buffer)
    }
}

/// A layer of an image whose blob is here.
pub(crate) fn arriving(blob: &Descriptor, diff_id: &Digest) -> ArrivingLayer {
    ArrivingLayer { blob: blob.clone(), diff_id: diff_id.clone() }
}
