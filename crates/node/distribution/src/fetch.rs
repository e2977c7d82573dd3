//! Downloads of blobs: into ingests that survive a kill, shared by all who want the same blob, resumed by range.
//!
//! ```text
//! registry ─▶ task ─▶ queue ─▶ thread: write to the ingest, hash ─▶ verify digest and size ─▶ (later) commit
//!                                   └─▶ readers follow the growing file (unpacking begins before the end)
//! ```
//!
//! Disk is the buffer between a download and who unpacks it, so neither holds the other back and memory stays bounded. A
//! verified download becomes a blob only when the image it belongs to is complete ([`Fetch::commit`]). Until then it is
//! an ingest like an unfinished one, which the next pull goes on with: so a cancelled or killed pull loses nothing, and
//! leaves no blob that no image needs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use wharf_content::{ContentError, Ingest, Store};
use wharf_oci::image::Descriptor;
use wharf_types::Digest;

use crate::DistributionError;
use crate::blob::Source;
use crate::repository::Repository;

/// Pieces between the connection and the thread that writes.
const QUEUE: usize = 8;
/// The first pause after a failed attempt; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Pauses that a registry asks for are kept up to this.
const ASKED_PAUSE: Duration = Duration::from_secs(60);

/// Downloads in flight, by digest.
#[derive(Default)]
pub(crate) struct Fetches(Mutex<HashMap<Digest, Weak<Fetch>>>);

/// One download in flight or done. It is cancelled when the last one who waits for it drops it; what has come stays in
/// the ingest.
pub struct Fetch {
    progress: Arc<Progress>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.progress.lock().cancelled = true;
        self.progress.wake.notify_waiters();
        self.progress.wake.notify_one();
    }
}

/// What the task, the writing thread and the readers share.
pub(crate) struct Progress {
    descriptor: Descriptor,
    state: Mutex<State>,
    /// What is verified and not committed yet. Held while it is committed, so that others who need the blob wait for it.
    ready: Mutex<Option<Ingest>>,
    /// For readers, which block.
    changed: Condvar,
    /// For those who await.
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Bytes in the file.
    written: u64,
    file: Option<Arc<File>>,
    outcome: Option<Result<(), Arc<DistributionError>>>,
    cancelled: bool,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Option<Ingest>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether someone else may wait for this download: it is in flight, or verified and not yet a blob, of which who
    /// comes now cannot know whether it was removed again.
    fn can_be_joined(&self) -> bool {
        match &self.lock().outcome {
            None => true,
            Some(Ok(())) => self.ready().is_some(),
            Some(Err(_)) => false,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
        self.wake.notify_waiters();
    }
}

/// The key of the ingest of a download.
pub fn ingest_key(digest: &Digest) -> String {
    format!("pull {digest}")
}

impl Repository {
    /// Starts the download of a blob, or joins one that is in flight. The second value tells whether it was joined: then
    /// it is done with someone else's login, whose failure says nothing about ours. `places` bounds the downloads of one
    /// pull. Must be called inside a tokio runtime.
    pub fn fetch(self: &Arc<Self>, blob: &Descriptor, store: &Store, places: &Arc<Semaphore>) -> (Arc<Fetch>, bool) {
        let mut known = self.shared.fetches.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, fetch| fetch.strong_count() > 0);
        let live = known.get(&blob.digest).and_then(Weak::upgrade);
        if let Some(fetch) = live.filter(|fetch| fetch.progress.can_be_joined()) {
            return (fetch, true);
        }
        let progress = Arc::new(Progress {
            descriptor: blob.clone(),
            state: Mutex::default(),
            ready: Mutex::default(),
            changed: Condvar::new(),
            wake: Notify::new(),
        });
        let fetch = Arc::new(Fetch { progress: progress.clone() });
        known.insert(blob.digest.clone(), Arc::downgrade(&fetch));
        let (repository, store, places) = (self.clone(), store.clone(), places.clone());
        tokio::spawn(async move {
            let task = Task { repository, store, progress: progress.clone() };
            let outcome = tokio::select! {
                biased;
                () = cancelled(&progress) => Err(DistributionError::Cancelled),
                outcome = task.run(&places) => outcome,
            };
            progress.change(|state| state.outcome = Some(outcome.map_err(Arc::new)));
        });
        (fetch, false)
    }
}

async fn cancelled(progress: &Progress) {
    loop {
        let woken = progress.wake.notified();
        if progress.lock().cancelled {
            return;
        }
        woken.await;
    }
}

impl Fetch {
    /// Bytes that have come, and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.progress.lock().written, self.progress.descriptor.size)
    }

    /// Waits until all has come and is verified.
    ///
    /// # Errors
    /// [`DistributionError::Shared`], as others may wait for the same.
    pub async fn wait(&self) -> Result<(), DistributionError> {
        loop {
            let woken = self.progress.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some(outcome) = &self.progress.lock().outcome {
                return outcome.clone().map_err(DistributionError::Shared);
            }
            woken.await;
        }
    }

    /// Makes the download, which is complete, a blob of the store; the caller has protected it before. Blocks for
    /// fsync(2), which finds little left to do.
    ///
    /// # Errors
    /// [`DistributionError::Content`].
    pub fn commit(&self) -> Result<(), DistributionError> {
        let mut ready = self.progress.ready();
        if let Some(ingest) = ready.take() {
            let Descriptor { digest, size, .. } = &self.progress.descriptor;
            ingest.commit(Some(digest), Some(*size))?;
            wharf_fault::point("pull.after-blob");
        }
        Ok(())
    }

    /// Why it failed, if it has failed.
    pub fn failure(&self) -> Option<DistributionError> {
        match &self.progress.lock().outcome {
            Some(Err(e)) => Some(DistributionError::Shared(e.clone())),
            _ => None,
        }
    }

    /// A reader that follows the download. Its end comes when the blob is verified; reading blocks, until it is told to
    /// stop.
    pub fn follow(self: &Arc<Self>, stopped: &Arc<AtomicBool>) -> Following {
        Following { fetch: self.clone(), at: 0, stopped: stopped.clone() }
    }
}

/// Reads a blob while it is downloaded.
pub struct Following {
    fetch: Arc<Fetch>,
    at: u64,
    stopped: Arc<AtomicBool>,
}

/// How often a reader that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let progress = &self.fetch.progress;
        let (file, end) = {
            let mut state = progress.lock();
            loop {
                match &state.outcome {
                    Some(Err(e)) => return Err(io::Error::other(DistributionError::Shared(e.clone()))),
                    Some(Ok(())) if self.at >= state.written => return Ok(0),
                    _ => {}
                }
                if let Some(file) = state.file.clone().filter(|_| state.written > self.at) {
                    break (file, state.written);
                }
                if self.stopped.load(Ordering::Acquire) {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download is no longer wanted"));
                }
                state = progress.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        let room = buffer.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        let n = file.read_at(&mut buffer[..room], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

struct Task {
    repository: Arc<Repository>,
    store: Store,
    progress: Arc<Progress>,
}

/// What the writing thread tells when it has opened the ingest.
type Opened = oneshot::Receiver<Result<u64, DistributionError>>;

impl Task {
    async fn run(&self, places: &Semaphore) -> Result<(), DistributionError> {
        let Ok(_place) = places.acquire().await else { return Err(DistributionError::Cancelled) };
        let size = self.progress.descriptor.size;
        let (queue, opened, done) = self.write();
        let at = opened.await.map_err(|_| DistributionError::Cancelled)??;
        let mut to = Writer { queue, at, size };
        if let Err(e) = self.download(&mut to).await {
            drop(to);
            return match (e, done.await) {
                // The thread that writes went away first and says why, a full disk perhaps.
                (DistributionError::Cancelled, Ok(Err(cause))) => Err(cause),
                (e, _) => Err(e),
            };
        }
        // The writing thread verifies when its queue has ended and everything is there.
        drop(to);
        done.await.map_err(|_| DistributionError::Cancelled)?
    }

    /// Opens the ingest on a thread of its own, which then writes what comes.
    fn write(&self) -> (mpsc::Sender<Bytes>, Opened, oneshot::Receiver<Result<(), DistributionError>>) {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let (tell_opened, opened) = oneshot::channel();
        let (tell_done, done) = oneshot::channel();
        let (store, progress) = (self.store.clone(), self.progress.clone());
        tokio::task::spawn_blocking(move || match open(&store, &progress) {
            Err(e) => drop(tell_opened.send(Err(e))),
            // It is a blob already.
            Ok(None) => {
                let _ = tell_opened.send(Ok(progress.descriptor.size));
                let _ = tell_done.send(Ok(()));
            }
            Ok(Some(ingest)) => {
                let _ = tell_opened.send(Ok(ingest.offset()));
                // Whoever cancelled does not listen.
                let _ = tell_done.send(take(ingest, pieces, &progress));
            }
        });
        (queue, opened, done)
    }

    /// Gets all bytes, trying again as long as it may help.
    async fn download(&self, to: &mut Writer) -> Result<(), DistributionError> {
        let attempts = self.repository.shared.config.attempts.max(1);
        let source = Source { repository: &self.repository, blob: &self.progress.descriptor };
        let (mut failures, mut pause) = (0, FIRST_PAUSE);
        while to.at < to.size {
            let before = to.at;
            let e = match source.stream(to).await {
                Ok(()) => continue,
                Err(e) => e,
            };
            if !e.is_passing() {
                return Err(e);
            }
            if to.at > before {
                (failures, pause) = (0, FIRST_PAUSE);
            }
            failures += 1;
            if failures >= attempts {
                return Err(e);
            }
            tracing::debug!(error = %e, digest = %self.progress.descriptor.digest, at = to.at, "a download is resumed");
            let asked = match &e {
                DistributionError::Refused(refusal) => refusal.retry_after.map(Duration::from_secs),
                _ => None,
            };
            tokio::time::sleep(asked.map_or(pause, |asked| asked.min(ASKED_PAUSE))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        Ok(())
    }
}

/// Where downloaded pieces go, in order.
pub(crate) struct Writer {
    queue: mpsc::Sender<Bytes>,
    /// Bytes so far.
    pub(crate) at: u64,
    /// Bytes that there must be.
    pub(crate) size: u64,
}

impl Writer {
    /// Hands a piece over. More than was promised is an error, before it costs disk.
    pub(crate) async fn put(&mut self, bytes: Bytes) -> Result<(), DistributionError> {
        let after = self.at + bytes.len() as u64;
        if after > self.size {
            return Err(DistributionError::Size { expected: self.size, found: after });
        }
        self.queue.send(bytes).await.map_err(|_| DistributionError::Cancelled)?;
        self.at = after;
        Ok(())
    }
}

fn open(store: &Store, progress: &Progress) -> Result<Option<Ingest>, DistributionError> {
    let descriptor = &progress.descriptor;
    if store.info(&descriptor.digest)?.is_some() {
        let blob = store.blob(&descriptor.digest)?;
        let found = blob.size();
        if found != descriptor.size {
            return Err(DistributionError::Size { expected: descriptor.size, found });
        }
        progress.change(|state| (state.file, state.written) = (Some(Arc::new(blob.into_file())), found));
        return Ok(None);
    }
    let mut ingest = open_when_free(store, &ingest_key(&descriptor.digest))?;
    if ingest.offset() > descriptor.size {
        ingest.restart()?;
    }
    let file = Arc::new(ingest.file()?);
    progress.change(|state| (state.file, state.written) = (Some(file), ingest.offset()));
    Ok(Some(ingest))
}

/// A download that was just cancelled may still hold the ingest for a moment.
fn open_when_free(store: &Store, key: &str) -> Result<Ingest, DistributionError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match store.ingest(key) {
            Err(ContentError::Busy(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            other => return Ok(other?),
        }
    }
}

/// Writes what comes, and commits when all is there. What is not complete stays, for the next time.
fn take(mut ingest: Ingest, mut pieces: mpsc::Receiver<Bytes>, progress: &Progress) -> Result<(), DistributionError> {
    let Descriptor { digest, size, .. } = &progress.descriptor;
    let failed = |source: io::Error| ContentError::File { action: "write", path: digest.as_str().into(), source };
    while let Some(piece) = pieces.blocking_recv() {
        ingest.write_all(&piece).map_err(failed)?;
        let written = ingest.offset();
        wharf_fault::point("pull.during-blob");
        progress.change(|state| state.written = written);
    }
    if ingest.offset() < *size {
        return Err(DistributionError::Cancelled);
    }
    let found = ingest.digest()?;
    if found != *digest {
        // It can never become right.
        ingest.abort()?;
        return Err(DistributionError::Digest { expected: digest.clone(), found });
    }
    // Brought to disk now, while others download, and not when everybody waits.
    ingest.sync()?;
    wharf_fault::point("pull.verified");
    *progress.ready() = Some(ingest);
    Ok(())
}
