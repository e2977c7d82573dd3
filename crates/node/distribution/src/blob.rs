//! The bytes of one blob from a registry: one stream, or several ranges at a time where one is too slow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::task::JoinSet;
use wharf_oci::image::Descriptor;

use crate::fetch::Writer;
use crate::repository::{Ask, Repository};
use crate::transport::Answer;
use crate::{DistributionError, TransportError};

/// Bytes of one range.
const SEGMENT: u64 = 2 << 20;
/// Ranges of one blob at a time.
const LANES: usize = 4;
/// How long a stream is watched before it is judged.
const WATCHED: Duration = Duration::from_millis(300);

/// A blob and where it comes from.
pub(crate) struct Source<'a> {
    pub(crate) repository: &'a std::sync::Arc<Repository>,
    pub(crate) blob: &'a Descriptor,
}

/// An answer that begins where it was asked to begin.
struct Opened {
    answer: Answer,
    url: String,
    /// Bytes to leave out: of a registry that knows no ranges.
    skip: u64,
    /// Whether the registry serves ranges.
    ranges: bool,
}

impl Opened {
    fn broken(&self, source: TransportError) -> DistributionError {
        let (method, url) = ("Get".to_owned(), self.url.clone());
        DistributionError::Request { method, url, source }
    }

    /// The next bytes from where the answer should begin.
    async fn next(&mut self) -> Result<Option<Bytes>, DistributionError> {
        loop {
            let piece = self.answer.chunk().await;
            let Some(mut bytes) = piece.map_err(|e| self.broken(e))? else { return Ok(None) };
            if self.skip > 0 {
                let n = self.skip.min(bytes.len() as u64);
                self.skip -= n;
                bytes = bytes.slice(n as usize..);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

impl Source<'_> {
    /// Asks for the blob from a byte on, up to another or to its end.
    async fn open(&self, from: u64, to: Option<u64>) -> Result<Opened, DistributionError> {
        let (repository, blob) = (self.repository, self.blob);
        let target = repository.place(&format!("blobs/{}", blob.digest));
        let last = to.map_or(String::new(), |to| (to - 1).to_string());
        let whole = from == 0 && to.is_none();
        let plain = || Ask::new(Method::GET, target.clone());
        let ask = if whole { plain() } else { plain().header(header::RANGE, &format!("bytes={from}-{last}")) };
        let (answer, url) = match repository.read(|c| c.pull, &ask, blob.digest.as_str()).await {
            // It does not want to go on there: then from the beginning, leaving out what we have.
            Err(DistributionError::Refused(refusal)) if refusal.status == 416 && !whole => {
                repository.read(|c| c.pull, &plain(), blob.digest.as_str()).await?
            }
            other => other?,
        };
        let text = |name| answer.head.headers.get(name).and_then(|v| v.to_str().ok());
        let lied = |reason: &str| DistributionError::Download { url: url.clone(), reason: reason.to_owned() };
        let partial = answer.head.status == StatusCode::PARTIAL_CONTENT;
        let mut skip = if partial { 0 } else { from };
        if partial {
            let (start, total) = text(header::CONTENT_RANGE).and_then(range).ok_or_else(|| lied("no Content-Range"))?;
            if start > from || total.is_some_and(|total| total != blob.size) {
                return Err(lied("the registry answered another range than was asked for"));
            }
            skip = from - start;
        } else if let Some(length) = text(header::CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok())
            && length != blob.size
        {
            return Err(DistributionError::Size { expected: blob.size, found: length });
        }
        let ranges = partial || text(header::ACCEPT_RANGES).is_some_and(|v| v.contains("bytes"));
        Ok(Opened { answer, url, skip, ranges })
    }

    /// Downloads what is missing to its end, or until something breaks; what came before that counts.
    pub(crate) async fn stream(&self, to: &mut Writer) -> Result<(), DistributionError> {
        let mut opened = self.open(to.at, None).await?;
        let split_from = self.repository.shared.config.split_from;
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        loop {
            let asked = Instant::now();
            let Some(bytes) = opened.next().await? else { break };
            waited += asked.elapsed();
            to.put(bytes).await?;
            let (left, passed) = (to.size - to.at, began.elapsed());
            // Mostly waiting for the network: further connections may bring more.
            if opened.ranges && left >= split_from.max(2 * SEGMENT) && passed >= WATCHED && waited > passed / 2 {
                return self.split(to, opened).await;
            }
        }
        match to.at == to.size {
            true => Ok(()),
            false => Err(opened.broken(TransportError::Http("unexpected EOF".to_owned()))),
        }
    }

    /// Goes on with several ranges at a time, the present answer being the first of them.
    async fn split(&self, to: &mut Writer, mut opened: Opened) -> Result<(), DistributionError> {
        let mut next = (to.at + SEGMENT).min(to.size);
        let mut lanes = Lanes::default();
        let first_end = next;
        self.fill(&mut lanes, &mut next, to.size);
        while to.at < first_end {
            let Some(bytes) = opened.next().await? else {
                return Err(opened.broken(TransportError::Http("unexpected EOF".to_owned())));
            };
            let room = usize::try_from(first_end - to.at).unwrap_or(usize::MAX).min(bytes.len());
            to.put(bytes.slice(..room)).await?;
        }
        // The rest of this answer is fetched by others.
        drop(opened);
        while to.at < to.size {
            self.fill(&mut lanes, &mut next, to.size);
            match lanes.first().await {
                Some(pieces) => {
                    for piece in pieces? {
                        to.put(piece).await?;
                    }
                }
                // No memory for a piece ahead: this one directly.
                None => {
                    let end = (to.at + SEGMENT).min(to.size);
                    for piece in segment(self.repository, self.blob, to.at, end).await? {
                        to.put(piece).await?;
                    }
                    next = next.max(end);
                }
            }
        }
        Ok(())
    }

    /// Starts ranges ahead, as far as lanes and memory allow.
    fn fill(&self, lanes: &mut Lanes, next: &mut u64, size: u64) {
        while lanes.order.len() < LANES && *next < size {
            let Ok(permit) = self.repository.shared.ahead.clone().try_acquire_owned() else { return };
            let (from, end) = (*next, (*next + SEGMENT).min(size));
            let (repository, blob) = (self.repository.clone(), self.blob.clone());
            let (sender, receiver) = tokio::sync::oneshot::channel();
            lanes.tasks.spawn(async move {
                let pieces = segment(&repository, &blob, from, end).await;
                // The permit stays with the pieces until they are written.
                let _ = sender.send((pieces, permit));
            });
            lanes.order.push_back(receiver);
            *next = end;
        }
    }
}

type Pieces = Result<Vec<Bytes>, DistributionError>;
type Lane = tokio::sync::oneshot::Receiver<(Pieces, tokio::sync::OwnedSemaphorePermit)>;

/// Ranges that are being fetched, in the order of the blob. Dropping it ends them.
#[derive(Default)]
struct Lanes {
    tasks: JoinSet<()>,
    order: VecDeque<Lane>,
}

impl Lanes {
    async fn first(&mut self) -> Option<Pieces> {
        let lane = self.order.pop_front()?;
        let outcome = lane.await;
        while self.tasks.try_join_next().is_some() {}
        Some(match outcome {
            Ok((pieces, _permit)) => pieces,
            Err(_) => Err(DistributionError::Cancelled),
        })
    }
}

/// Fetches one range into memory. One failure is forgiven here; further ones are the caller's.
async fn segment(repository: &std::sync::Arc<Repository>, blob: &Descriptor, from: u64, end: u64) -> Pieces {
    let source = Source { repository, blob };
    let mut pieces = Vec::new();
    let mut at = from;
    let mut failed = false;
    loop {
        match source.range(&mut pieces, &mut at, end).await {
            Ok(()) => return Ok(pieces),
            Err(e) if e.is_passing() && !failed => failed = true,
            Err(e) => return Err(e),
        }
    }
}

impl Source<'_> {
    async fn range(&self, pieces: &mut Vec<Bytes>, at: &mut u64, end: u64) -> Result<(), DistributionError> {
        let mut opened = self.open(*at, Some(end)).await?;
        while *at < end {
            let Some(bytes) = opened.next().await? else {
                return Err(opened.broken(TransportError::Http("unexpected EOF".to_owned())));
            };
            let room = usize::try_from(end - *at).unwrap_or(usize::MAX).min(bytes.len());
            *at += room as u64;
            pieces.push(bytes.slice(..room));
        }
        // Its end is read too, so that the connection can be used again.
        let _ = opened.answer.chunk().await;
        Ok(())
    }
}

/// Reads `bytes 5-9/10`: where it starts, and the whole's size if it is told.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (bounds, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = bounds.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (start <= end).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 9-5/10", "items 0-1/2", "bytes 0-1/x"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
