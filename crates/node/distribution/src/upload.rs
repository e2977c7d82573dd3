//! Sending: blobs that the registry lacks, then manifests, then the tag.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use wharf_content::Store;
use wharf_oci::image::Descriptor;
use wharf_types::Digest;

use crate::DistributionError;
use crate::auth::encoded;
use crate::document::{ACCEPT, LIMIT};
use crate::endpoint::Endpoint;
use crate::repository::{Ask, Repository};
use crate::transport::{Answer, Payload};

/// Bytes that are read of a blob at a time.
const PIECE: usize = 256 << 10;
/// Attempts of one upload.
const ATTEMPTS: u32 = 5;
/// The first pause after a failed attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// Repositories that are tried as the source of a mount.
const SOURCES: usize = 3;

/// How far the upload of a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It waits for its turn.
    Waiting,
    /// The registry has it already.
    Exists,
    /// The registry took it from another repository.
    Mounted(String),
    /// Bytes so far.
    Bytes(u64),
    /// It is there.
    Done,
}

/// A blob to send.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The blob.
    pub descriptor: Descriptor,
    /// Repositories of the same registry that may have it.
    pub sources: Vec<String>,
}

/// What a push sends, in its order.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// Configurations and layers.
    pub blobs: Vec<Parcel>,
    /// Manifests and indexes, each after what it names; the last is what the tag will mean.
    pub documents: Vec<Descriptor>,
    /// The tag; by digest only where there is none.
    pub tag: Option<String>,
}

/// Hears of progress.
pub type Listener = Arc<dyn Fn(&Descriptor, Sent) + Send + Sync>;

/// Sends a shipment. Nothing is sent that the registry has.
///
/// # Errors
/// Those of requests and of reading the blobs.
pub async fn push(
    repository: &Arc<Repository>,
    store: &Store,
    shipment: Shipment,
    listener: &Listener,
) -> Result<(), DistributionError> {
    for parcel in &shipment.blobs {
        for source in &parcel.sources {
            repository.read_too(source);
        }
    }
    let places = Arc::new(Semaphore::new(repository.shared.config.uploads.max(1)));
    let mut tasks = JoinSet::new();
    for parcel in shipment.blobs {
        let (repository, store, listener, places) =
            (repository.clone(), store.clone(), listener.clone(), places.clone());
        tasks.spawn(async move {
            if places.available_permits() == 0 {
                listener(&parcel.descriptor, Sent::Waiting);
            }
            let Ok(_place) = places.acquire().await else { return Err(DistributionError::Cancelled) };
            Upload { repository: &repository, store: &store, parcel: &parcel, listener: &listener }.send().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        // The first failure ends the others, which are dropped with the set.
        done.map_err(|_| DistributionError::Cancelled)??;
    }
    let (last, inner) = match shipment.documents.split_last() {
        Some(split) => split,
        None => return Ok(()),
    };
    for document in inner {
        repository.send_document(store, document, document.digest.as_str()).await?;
    }
    let name = shipment.tag.unwrap_or_else(|| last.digest.to_string());
    wharf_fault::point("push.before-manifest");
    repository.send_document(store, last, &name).await?;
    wharf_fault::point("push.after-manifest");
    Ok(())
}

struct Upload<'a> {
    repository: &'a Arc<Repository>,
    store: &'a Store,
    parcel: &'a Parcel,
    listener: &'a Listener,
}

impl Upload<'_> {
    fn say(&self, sent: Sent) {
        (self.listener)(&self.parcel.descriptor, sent);
    }

    async fn send(&self) -> Result<(), DistributionError> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            match self.attempt().await {
                Err(e) if e.is_passing() && attempt < ATTEMPTS => {
                    tracing::debug!(error = %e, digest = %self.parcel.descriptor.digest, "an upload begins again");
                    attempt += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
    }

    async fn attempt(&self) -> Result<(), DistributionError> {
        let digest = &self.parcel.descriptor.digest;
        let endpoint = self.repository.writer()?;
        if self.repository.has_blob(endpoint, digest).await? {
            self.say(Sent::Exists);
            return Ok(());
        }
        let Some(place) = self.begin(endpoint).await? else { return Ok(()) };
        let chunk = self.repository.shared.config.upload_chunk;
        let size = self.parcel.descriptor.size;
        wharf_fault::point("push.before-blob");
        if chunk == 0 || size <= chunk {
            self.whole(endpoint, &place).await?;
        } else {
            self.pieces(endpoint, place, chunk).await?;
        }
        wharf_fault::point("push.after-blob");
        Ok(())
    }

    /// Opens an upload and returns its place; none where the blob could be mounted.
    async fn begin(&self, endpoint: &Endpoint) -> Result<Option<String>, DistributionError> {
        let digest = self.parcel.descriptor.digest.as_str();
        let sources = self.parcel.sources.iter().take(SOURCES).map(Some).chain([None]);
        for source in sources {
            let query = match source {
                Some(from) => format!("?{}", encoded(&[("mount", digest), ("from", from)])),
                None => String::new(),
            };
            let target = self.repository.place(&format!("blobs/uploads/{query}"));
            let ask = Ask::new(Method::POST, target);
            let answer = self.repository.call(endpoint, &ask).await;
            match (answer, source) {
                (Ok(answer), Some(from)) if answer.head.status == StatusCode::CREATED => {
                    self.say(Sent::Mounted(from.clone()));
                    return Ok(None);
                }
                (Ok(mut answer), _) if answer.head.status == StatusCode::ACCEPTED => {
                    let place = self.location(endpoint, &answer)?;
                    let _ = answer.whole(LIMIT).await;
                    return Ok(Some(place));
                }
                // Not allowed to read there, or not known: then without.
                (Ok(_) | Err(DistributionError::PushUnauthorised(_)), Some(_)) => {}
                (Ok(answer), None) => return Err(self.refused(endpoint, &ask, answer).await),
                (Err(e), _) => return Err(e),
            }
        }
        Err(DistributionError::NotFound(self.repository.name()))
    }

    async fn refused(&self, endpoint: &Endpoint, ask: &Ask, answer: Answer) -> DistributionError {
        let url = match ask.target.contains("://") {
            true => ask.target.split('?').next().unwrap_or_default().to_owned(),
            false => self.repository.url(endpoint, &ask.target),
        };
        self.repository.refusal(&ask.method, &url, "", answer).await
    }

    /// Where an upload goes on.
    fn location(&self, endpoint: &Endpoint, answer: &Answer) -> Result<String, DistributionError> {
        let text = answer.head.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
        let missing = || DistributionError::Redirect {
            url: self.repository.url(endpoint, "/"),
            reason: "the registry names no place for an upload",
        };
        let text = text.ok_or_else(missing)?;
        match text.strip_prefix('/') {
            // Made whole, because targets are taken as below the API's path.
            Some(_) => Ok(format!("http://{}{text}", endpoint.host)),
            None => Ok(text.to_owned()),
        }
    }

    fn payload(&self, from: u64, to: u64) -> Result<Payload, DistributionError> {
        let digest = &self.parcel.descriptor.digest;
        let blob = self.store.blob(digest)?;
        let found = blob.size();
        if found != self.parcel.descriptor.size {
            return Err(DistributionError::Size { expected: self.parcel.descriptor.size, found });
        }
        let file = Arc::new(blob.into_file());
        let (listener, descriptor) = (self.listener.clone(), self.parcel.descriptor.clone());
        let make = move || {
            let (queue, pieces) = mpsc::channel(4);
            let (file, listener, descriptor) = (file.clone(), listener.clone(), descriptor.clone());
            tokio::task::spawn_blocking(move || {
                let at = AtomicU64::new(from);
                while at.load(Ordering::Relaxed) < to {
                    let start = at.load(Ordering::Relaxed);
                    let mut buffer = vec![0; PIECE.min((to - start) as usize)];
                    let read = file.read_exact_at(&mut buffer, start).map(|()| Bytes::from(buffer));
                    let (failed, n) = (read.is_err(), read.as_ref().map_or(0, |bytes| bytes.len() as u64));
                    if queue.blocking_send(read).is_err() || failed {
                        return;
                    }
                    at.store(start + n, Ordering::Relaxed);
                    listener(&descriptor, Sent::Bytes(start + n));
                }
            });
            pieces
        };
        Ok(Payload::Stream(Arc::new(make), to - from))
    }

    /// One request with all bytes.
    async fn whole(&self, endpoint: &Endpoint, place: &str) -> Result<(), DistributionError> {
        let payload = self.payload(0, self.parcel.descriptor.size)?;
        self.finish(endpoint, place, payload).await
    }

    async fn finish(&self, endpoint: &Endpoint, place: &str, payload: Payload) -> Result<(), DistributionError> {
        let joint = if place.contains('?') { '&' } else { '?' };
        let target = format!("{place}{joint}{}", encoded(&[("digest", self.parcel.descriptor.digest.as_str())]));
        let ask =
            Ask::new(Method::PUT, target).header(header::CONTENT_TYPE, "application/octet-stream").payload(payload);
        let answer = self.repository.call(endpoint, &ask).await?;
        if answer.head.status != StatusCode::CREATED {
            return Err(self.refused(endpoint, &ask, answer).await);
        }
        self.say(Sent::Done);
        Ok(())
    }

    /// Piece after piece (distribution-spec, "Pushing a blob in chunks").
    async fn pieces(&self, endpoint: &Endpoint, mut place: String, chunk: u64) -> Result<(), DistributionError> {
        let size = self.parcel.descriptor.size;
        let mut at = 0;
        while at < size {
            let end = (at + chunk).min(size);
            let ask = Ask::new(Method::PATCH, place.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &format!("{at}-{}", end - 1))
                .payload(self.payload(at, end)?);
            let mut answer = self.repository.call(endpoint, &ask).await?;
            if answer.head.status != StatusCode::ACCEPTED {
                return Err(self.refused(endpoint, &ask, answer).await);
            }
            place = self.location(endpoint, &answer)?;
            let range = answer.head.headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(taken);
            let _ = answer.whole(LIMIT).await;
            // The registry says how much it took; it may be less.
            at = range.filter(|n| *n <= end).unwrap_or(end);
        }
        self.finish(endpoint, &place, Payload::Empty).await
    }
}

/// Reads `0-1023` or `bytes=0-1023`: how many bytes were taken.
fn taken(range: &str) -> Option<u64> {
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    last.checked_add(1)
}

impl Repository {
    /// The host that takes uploads.
    fn writer(&self) -> Result<&Endpoint, DistributionError> {
        let none = || DistributionError::Invalid(format!("no host of {} takes uploads", self.domain()));
        self.endpoints(|c| c.push).into_iter().next_back().ok_or_else(none)
    }

    async fn has_blob(&self, endpoint: &Endpoint, digest: &Digest) -> Result<bool, DistributionError> {
        self.has(endpoint, Ask::new(Method::HEAD, self.place(&format!("blobs/{digest}")))).await
    }

    async fn has(&self, endpoint: &Endpoint, ask: Ask) -> Result<bool, DistributionError> {
        let answer = self.call(endpoint, &ask).await?;
        match answer.head.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(&ask.method, &self.url(endpoint, &ask.target), "", answer).await),
        }
    }

    /// Sends a manifest or index under a tag or its digest, with the bytes that are stored.
    ///
    /// # Errors
    /// Those of requests; [`DistributionError::Digest`] where the registry has understood something else.
    pub async fn send_document(
        &self,
        store: &Store,
        document: &Descriptor,
        name: &str,
    ) -> Result<(), DistributionError> {
        let bytes = store.read(&document.digest, LIMIT as u64)?;
        self.put_document(document, bytes.into(), name).await
    }

    /// Whether a tag means a document already, as the registry says by the digest. One that cannot or will not say is
    /// told anew.
    async fn means(&self, endpoint: &Endpoint, target: &str, document: &Descriptor) -> bool {
        let ask = Ask::new(Method::HEAD, target.to_owned()).header(header::ACCEPT, ACCEPT);
        let Ok(answer) = self.call(endpoint, &ask).await else { return false };
        let said = answer.head.headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
        answer.head.status == StatusCode::OK && said == Some(document.digest.as_str())
    }

    /// As [`Repository::send_document`], with bytes at hand.
    ///
    /// # Errors
    /// As there.
    pub async fn put_document(&self, document: &Descriptor, bytes: Bytes, name: &str) -> Result<(), DistributionError> {
        let endpoint = self.writer()?;
        let target = self.place(&format!("manifests/{name}"));
        if name == document.digest.as_str() {
            let ask = Ask::new(Method::HEAD, target.clone()).header(header::ACCEPT, ACCEPT);
            if self.has(endpoint, ask).await? {
                return Ok(());
            }
        } else if self.means(endpoint, &target, document).await {
            // Nothing to say: the tag means this already, and storing it again costs the registry a sync.
            return Ok(());
        }
        let ask = Ask::new(Method::PUT, target)
            .header(header::CONTENT_TYPE, &document.media_type)
            .payload(Payload::Bytes(bytes));
        let mut pause = PAUSE;
        for attempt in 1.. {
            let failed = match self.call(endpoint, &ask).await {
                Ok(answer) if answer.head.status == StatusCode::CREATED => return stored(document, &answer),
                Ok(answer) => self.refusal(&ask.method, &self.url(endpoint, &ask.target), "", answer).await,
                Err(e) => e,
            };
            if !failed.is_passing() || attempt >= ATTEMPTS {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(DistributionError::Cancelled)
    }
}

/// Checks what the registry says it stored.
fn stored(document: &Descriptor, answer: &Answer) -> Result<(), DistributionError> {
    let said = answer.head.headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
    match said.and_then(|said| Digest::parse(said).ok()) {
        Some(found) if found != document.digest => {
            Err(DistributionError::Digest { expected: document.digest.clone(), found })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ranges_are_read() {
        assert_eq!((taken("0-1023"), taken("bytes=0-9"), taken("x")), (Some(1024), Some(10), None));
        assert_eq!(taken("0-18446744073709551615"), None);
    }
}
