//! `docker pull`: resolve, describe, fetch and unpack side by side, and one commit at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use wharf_distribution::{Credentials, DistributionError, Fetch, Graph, Purpose, Repository, Shelf};
use wharf_image::{Arrival, ArrivingLayer, Image, ImageError, Unpacking};
use wharf_oci::image::{Descriptor, Platform};
use wharf_types::{Digest, Reference};

use super::Registries;
use crate::EngineError;

/// How often progress is told, as dockerd does.
const TICK: Duration = Duration::from_millis(100);

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The name, with tag or digest; neither means all tags.
    pub reference: Reference,
    /// The platform; this machine's where none is given.
    pub platform: Option<Platform>,
    /// Who we are.
    pub credentials: Credentials,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullStep {
    /// A tag begins.
    Begins {
        /// The repository's path.
        repository: String,
        /// Tag or digest.
        tag: String,
    },
    /// A layer moved on.
    Layer {
        /// The first 12 digits of its digest.
        id: String,
        /// To where.
        step: LayerStep,
    },
    /// What the tag means.
    Digest(Digest),
    /// The end: whether something came.
    Done {
        /// The image's name.
        name: String,
        /// Whether it means something else than before.
        newer: bool,
    },
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// It is needed.
    Needed,
    /// Bytes so far, and in all.
    Downloading(u64, u64),
    /// All bytes are here.
    Downloaded,
    /// It is being unpacked, for so many seconds.
    Extracting(u64),
    /// It is unpacked.
    Complete,
}

/// Who hears of progress. When nobody listens any more, the pull is cancelled.
pub type Listener = mpsc::Sender<PullStep>;

impl Registries {
    /// Pulls an image, or all tags of a repository. Returns the last image.
    ///
    /// # Errors
    /// [`EngineError::Resolve`], [`EngineError::Distribution`], [`EngineError::Image`].
    pub async fn pull(&self, request: PullRequest, listener: Listener) -> Result<Option<Arc<Image>>, EngineError> {
        let gone = listener.clone();
        tokio::select! {
            pulled = self.pull_listened(request, listener) => pulled,
            () = gone.closed() => Err(DistributionError::Cancelled.into()),
        }
    }

    async fn pull_listened(&self, request: PullRequest, listener: Listener) -> Result<Option<Arc<Image>>, EngineError> {
        let reference = &request.reference;
        if reference.familiar_name() == "scratch" {
            return Err(EngineError::ScratchReserved);
        }
        let repository = self.client.repository(reference, request.credentials.clone(), Purpose::Pull)?;
        let repository = Arc::new(repository);
        if reference.tag().is_some() || reference.digest().is_some() {
            return self.pull_one(&repository, reference, &request, &listener).await.map(Some);
        }
        let mut last = None;
        for tag in repository.tags().await? {
            // A tag that is none is the registry's fault, and no reason to leave out the others.
            let Ok(tagged) = reference.with_tag(&tag) else { continue };
            last = Some(self.pull_one(&repository, &tagged, &request, &listener).await?);
        }
        Ok(last)
    }

    async fn pull_one(
        &self,
        repository: &Arc<Repository>,
        reference: &Reference,
        request: &PullRequest,
        listener: &Listener,
    ) -> Result<Arc<Image>, EngineError> {
        let resolve = |source| EngineError::Resolve { reference: reference.to_string(), source: Box::new(source) };
        let target = repository.resolve(reference).await.map_err(resolve)?;
        wharf_fault::point("pull.resolved");
        let tag = reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), Digest::to_string);
        let say = |step| async { drop(listener.send(step).await) };
        let named = match reference.digest() {
            // A name with both is known by its digest.
            Some(digest) => reference.with_digest(digest.clone()),
            None => reference.clone(),
        };
        let platform = request.platform.clone().unwrap_or_else(wharf_image::this_platform);
        let before = self.store.resolve(&named.to_string()).ok().map(|found| found.id.0);
        let pull = Pull { registries: self, repository, named: &named, platform: &platform, listener };
        let mut attempts = 0;
        let image = loop {
            attempts += 1;
            let begun = PullStep::Begins { repository: reference.path().to_owned(), tag: tag.clone() };
            match pull.image(target.clone(), (attempts == 1).then_some(begun)).await {
                // A download that someone else had begun failed with their login, not with ours.
                Err(EngineError::Distribution(DistributionError::Shared(_))) if attempts == 1 => {}
                other => break other?,
            }
        };
        say(PullStep::Digest(image.target.digest.clone())).await;
        let newer = before.as_ref() != Some(&image.target.digest);
        self.tell("pull", &named);
        say(PullStep::Done { name: named.familiar(), newer }).await;
        Ok(image)
    }
}

/// One image on its way.
struct Pull<'p> {
    registries: &'p Registries,
    repository: &'p Arc<Repository>,
    named: &'p Reference,
    platform: &'p Platform,
    listener: &'p Listener,
}

impl Pull<'_> {
    async fn say(&self, step: PullStep) {
        // A listener that has gone ends the whole pull elsewhere.
        drop(self.listener.send(step).await);
    }

    async fn layer(&self, blob: &Descriptor, step: LayerStep) {
        self.say(PullStep::Layer { id: short(&blob.digest), step }).await;
    }

    async fn image(&self, target: Descriptor, begun: Option<PullStep>) -> Result<Arc<Image>, EngineError> {
        let store = &self.registries.store;
        let arrival = Arc::new(store.arrival());
        let protector = arrival.clone();
        let protect = Arc::new(move |blob: &Descriptor| protector.protect(&blob.digest));
        let shelf = Shelf { store: store.content().clone(), protect };
        let graph = self.repository.graph(self.named, target, self.platform, &shelf).await?;
        if let Some(begun) = begun {
            self.say(begun).await;
        }
        wharf_fault::point("pull.described");
        let missing = missing(&arrival, store.content(), &graph).await?;
        let fetches = self.fetch(&graph, missing).await;
        let chain = self.unpack(&arrival, &graph, &fetches).await?;
        wharf_fault::point("pull.unpacked");
        drop(shelf);
        self.register(arrival, graph, fetches, chain).await
    }

    /// Starts the downloads, which wait for their places by themselves.
    async fn fetch(&self, graph: &Graph, missing: Vec<bool>) -> Vec<Option<(Arc<Fetch>, bool)>> {
        let content = self.registries.store.content();
        let places = Arc::new(Semaphore::new(self.registries.client.config().downloads.max(1)));
        let mut fetches = Vec::new();
        for (layer, missing) in graph.manifest.layers.iter().zip(missing) {
            fetches.push(missing.then(|| self.repository.fetch(layer, content, &places)));
        }
        for (layer, fetch) in graph.manifest.layers.iter().zip(&fetches) {
            if fetch.is_some() {
                self.layer(layer, LayerStep::Needed).await;
            }
        }
        fetches
    }

    /// Unpacks on a thread of its own while this task tells how far everything is.
    async fn unpack(
        &self,
        arrival: &Arc<Arrival>,
        graph: &Graph,
        fetches: &[Option<(Arc<Fetch>, bool)>],
    ) -> Result<Option<Digest>, EngineError> {
        let layers: Vec<ArrivingLayer> = graph
            .manifest
            .layers
            .iter()
            .zip(&graph.config.rootfs.diff_ids)
            .map(|(blob, diff_id)| ArrivingLayer { blob: blob.clone(), diff_id: diff_id.clone() })
            .collect();
        let (tell, mut told) = mpsc::unbounded_channel();
        let (arrival, content) = (arrival.clone(), self.registries.store.content().clone());
        let sources: Vec<Option<Arc<Fetch>>> = fetches.iter().map(|f| f.as_ref().map(|(f, _)| f.clone())).collect();
        let stopped = arrival.stopped();
        // A pull that is given up takes its threads and downloads with it.
        let stop = Stop(stopped.clone());
        let mut unpacking = tokio::task::spawn_blocking(move || {
            let open = |place: usize| -> Result<Box<dyn std::io::Read + Send>, ImageError> {
                match &sources[place] {
                    Some(fetch) => Ok(Box::new(fetch.follow(&stopped))),
                    None => Ok(Box::new(content.blob(&layers[place].blob.digest)?)),
                }
            };
            arrival.unpack(&layers, &open, &mut |step| {
                // Who no longer listens is not told.
                let _ = tell.send(step);
            })
        });
        let mut board = Board::new(self, graph, fetches);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures = std::pin::pin!(all(fetches));
        let mut fetched = fetches.is_empty();
        let unpacked = loop {
            tokio::select! {
                biased;
                Some(step) = told.recv() => board.unpacking(step).await,
                done = &mut unpacking => break done,
                done = &mut failures, if !fetched => {
                    if let Err(e) = done {
                        // Who hears of the failure finds nothing left of the pull.
                        drop(stop);
                        let _ = unpacking.await;
                        return Err(e);
                    }
                    fetched = true;
                    board.tick().await;
                }
                _ = ticks.tick() => board.tick().await,
            }
        };
        while let Ok(step) = told.try_recv() {
            board.unpacking(step).await;
        }
        let unpacked = unpacked.map_err(|_| DistributionError::Cancelled)?;
        if let Err(e) = unpacked {
            // Where a download failed its error is the cause of the other.
            return Err(failed(fetches).unwrap_or_else(|| e.into()));
        }
        if !fetched {
            failures.await?;
        }
        board.tick().await;
        Ok(unpacked?)
    }

    async fn register(
        &self,
        arrival: Arc<Arrival>,
        graph: Graph,
        fetches: Vec<Option<(Arc<Fetch>, bool)>>,
        chain: Option<Digest>,
    ) -> Result<Arc<Image>, EngineError> {
        let named = self.named.clone();
        let register = move || -> Result<Arc<Image>, EngineError> {
            for (fetch, _) in fetches.iter().flatten() {
                fetch.commit()?;
            }
            wharf_fault::point("pull.before-register");
            // Nobody else has it: the thread that unpacked has ended.
            let arrival = Arc::into_inner(arrival).ok_or(DistributionError::Cancelled)?;
            let image = arrival.finish(&graph.target, &graph.config.platform, chain, &[named])?;
            wharf_fault::point("pull.registered");
            Ok(image)
        };
        crate::blocking(register).await?
    }
}

/// Which layers' blobs are not here, each protected first.
async fn missing(
    arrival: &Arc<Arrival>,
    content: &wharf_content::Store,
    graph: &Graph,
) -> Result<Vec<bool>, EngineError> {
    let (arrival, content) = (arrival.clone(), content.clone());
    let layers = graph.manifest.layers.clone();
    let look = move || -> Result<Vec<bool>, EngineError> {
        let mut missing = Vec::new();
        for layer in layers {
            arrival.protect(&layer.digest);
            let found = content.info(&layer.digest).map_err(DistributionError::Content)?;
            if let Some(found) = found.filter(|found| found.size != layer.size) {
                return Err(DistributionError::Size { expected: layer.size, found: found.size }.into());
            }
            missing.push(found.is_none());
        }
        Ok(missing)
    };
    crate::blocking(look).await?
}

/// Tells the threads that unpack to end.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

async fn all(fetches: &[Option<(Arc<Fetch>, bool)>]) -> Result<(), EngineError> {
    for (fetch, joined) in fetches.iter().flatten() {
        fetch.wait().await.map_err(|e| of_fetch(e, *joined))?;
    }
    Ok(())
}

/// Why the first of the downloads that failed did so.
fn failed(fetches: &[Option<(Arc<Fetch>, bool)>]) -> Option<EngineError> {
    fetches.iter().flatten().find_map(|(fetch, joined)| Some(of_fetch(fetch.failure()?, *joined)))
}

fn of_fetch(error: DistributionError, joined: bool) -> EngineError {
    match error {
        // Only a failure of someone else's login is worth another attempt.
        DistributionError::Shared(cause) if !joined => EngineError::Fetch(cause),
        e => e.into(),
    }
}

fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// What was told of each layer, so that each change is told once.
struct Board<'b> {
    pull: &'b Pull<'b>,
    layers: Vec<Row<'b>>,
}

struct Row<'b> {
    blob: &'b Descriptor,
    fetch: Option<Arc<Fetch>>,
    told: u64,
    downloaded: bool,
    extracting: Option<(Instant, u64)>,
    complete: bool,
}

impl<'b> Board<'b> {
    fn new(pull: &'b Pull<'b>, graph: &'b Graph, fetches: &[Option<(Arc<Fetch>, bool)>]) -> Self {
        let rows = graph.manifest.layers.iter().zip(fetches).map(|(blob, fetch)| Row {
            blob,
            fetch: fetch.as_ref().map(|(fetch, _)| fetch.clone()),
            told: 0,
            downloaded: fetch.is_none(),
            extracting: None,
            complete: false,
        });
        Self { pull, layers: rows.collect() }
    }

    async fn unpacking(&mut self, step: Unpacking) {
        match step {
            Unpacking::Begins(place) => {
                if let Some(row) = self.layers.get_mut(place) {
                    row.extracting = Some((Instant::now(), 0));
                }
            }
            Unpacking::Done(place) => {
                let Some(row) = self.layers.get_mut(place).filter(|row| !row.complete) else { return };
                row.complete = true;
                // A layer that was here and unpacked is not told of, as with Docker.
                if row.fetch.is_none() && row.extracting.is_none() {
                    return;
                }
                let downloaded = std::mem::replace(&mut row.downloaded, true);
                let blob = row.blob;
                if !downloaded {
                    self.pull.layer(blob, LayerStep::Downloaded).await;
                }
                self.pull.layer(blob, LayerStep::Complete).await;
            }
        }
    }

    async fn tick(&mut self) {
        for row in self.layers.iter_mut().filter(|row| !row.complete) {
            if let Some(fetch) = row.fetch.as_ref().filter(|_| !row.downloaded) {
                let (current, total) = fetch.progress();
                if current == total {
                    row.downloaded = true;
                    self.pull.layer(row.blob, LayerStep::Downloaded).await;
                } else if current > row.told {
                    row.told = current;
                    self.pull.layer(row.blob, LayerStep::Downloading(current, total)).await;
                }
            }
            if let Some((since, told)) = row.extracting.as_mut().filter(|_| row.downloaded) {
                let seconds = since.elapsed().as_secs() + 1;
                if seconds > *told {
                    *told = seconds;
                    self.pull.layer(row.blob, LayerStep::Extracting(seconds)).await;
                }
            }
        }
    }
}
