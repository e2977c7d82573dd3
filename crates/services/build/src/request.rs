//! A whole build: front end or graph, then its results; and the history of builds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use wharf_oci::image as oci;
use wharf_proto_buildkit::pb;
use wharf_solver::Graph;
use wharf_types::Timestamp;

use crate::BuildError;
use crate::builder::Builder;
use crate::export::{Exported, Exporter};
use crate::frontend::{Frontend, Image, Outcome};
use crate::job::{Job, Settings};
use crate::local::{Context, in_place};
use crate::progress::Progress;
use crate::session::Session;
use crate::transfer::{self, Place};

/// Drives a build: is given the job, and gives the result.
pub type Driver = Box<dyn FnOnce(Arc<Job>) -> Pin<Box<dyn Future<Output = Result<Outcome, BuildError>> + Send>> + Send>;

/// What to build.
#[derive(Default)]
pub struct BuildRequest {
    /// The reference by which clients ask for the progress.
    pub reference: String,
    /// `dockerfile.v0`, or nothing for a graph.
    pub frontend: String,
    /// What the front end is asked for.
    pub input: Frontend,
    /// A graph.
    pub definition: Option<pb::Definition>,
    /// A client that drives the build itself, instead of both.
    pub driver: Option<Driver>,
    /// The results.
    pub exporters: Vec<Exporter>,
    /// The client.
    pub session: Option<Arc<Session>>,
    /// Contexts that came with the request.
    pub given: HashMap<String, Arc<Context>>,
    /// What is allowed.
    pub settings: Settings,
    /// Where cached steps may be taken from.
    pub imports: Vec<Place>,
    /// Where they are put afterwards.
    pub exports: Vec<Place>,
    /// Whether it is left out of the history.
    pub internal: bool,
}

/// What came of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildResult {
    /// Facts of all results.
    pub facts: BTreeMap<String, String>,
    /// The image's id, if one was made.
    pub image: Option<String>,
    /// Answers of requests that build nothing.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// One build in the history.
#[derive(Clone, Debug)]
pub struct History {
    /// Its reference.
    pub reference: String,
    /// The front end.
    pub frontend: String,
    /// What it was asked for.
    pub attrs: BTreeMap<String, String>,
    /// The kinds of results.
    pub exporters: Vec<Exporter>,
    /// When it began.
    pub created: Timestamp,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<BuildError>,
    /// Facts of its results.
    pub facts: BTreeMap<String, String>,
    /// Steps: cached, all; warnings.
    pub counts: (i32, i32, i32),
    /// Whether it is kept whatever comes.
    pub pinned: bool,
    /// What clients saw.
    pub progress: Arc<Progress>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

/// Builds that are remembered.
const REMEMBERED: usize = 50;

/// The builds of this daemon's life, newest last.
pub struct Histories {
    list: Mutex<VecDeque<History>>,
    changed: broadcast::Sender<History>,
}

impl Default for Histories {
    fn default() -> Self {
        Self { list: Mutex::default(), changed: broadcast::channel(64).0 }
    }
}

impl Histories {
    fn lock(&self) -> MutexGuard<'_, VecDeque<History>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All builds.
    pub fn all(&self) -> Vec<History> {
        self.lock().iter().cloned().collect()
    }

    /// Builds as they begin and end.
    pub fn follow(&self) -> broadcast::Receiver<History> {
        self.changed.subscribe()
    }

    fn put(&self, history: History) {
        let mut list = self.lock();
        match list.iter_mut().find(|h| h.reference == history.reference) {
            Some(old) => *old = history.clone(),
            None => list.push_back(history.clone()),
        }
        while list.len() > REMEMBERED {
            let Some(at) = list.iter().position(|h| !h.pinned && h.completed.is_some()) else { break };
            list.remove(at);
        }
        drop(list);
        // Nobody may be listening.
        let _ = self.changed.send(history);
    }

    /// Pins, unpins or deletes a build; returns whether there is one.
    pub fn update(&self, reference: &str, pinned: bool, delete: bool) -> bool {
        let mut list = self.lock();
        let Some(at) = list.iter().position(|h| h.reference == reference) else { return false };
        if delete {
            list.remove(at);
        } else {
            list[at].pinned = pinned;
        }
        true
    }
}

impl Builder {
    /// Builds.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(self: &Arc<Self>, request: BuildRequest) -> Result<BuildResult, BuildError> {
        let progress = self.progress(&request.reference);
        let mut history = History {
            reference: request.reference.clone(),
            frontend: request.frontend.clone(),
            attrs: request.input.attrs.clone(),
            exporters: request.exporters.clone(),
            created: Timestamp::now(),
            completed: None,
            error: None,
            facts: BTreeMap::new(),
            counts: (0, 0, 0),
            pinned: false,
            progress: progress.clone(),
        };
        let internal = request.internal;
        if !internal {
            self.histories.put(history.clone());
        }
        // Who asks for the progress sees its end, however the build ends.
        let ending = Ending { builder: self.clone(), reference: request.reference.clone(), progress: progress.clone() };
        let result = self.carry_out(request, &progress).await;
        drop(ending);
        history.completed = Some(Timestamp::now());
        history.counts = progress.counts();
        match &result {
            Ok(done) => history.facts = done.facts.clone(),
            Err(e) => history.error = Some(e.clone()),
        }
        if !internal {
            self.histories.put(history);
        }
        result
    }

    async fn carry_out(
        self: &Arc<Self>,
        request: BuildRequest,
        progress: &Arc<Progress>,
    ) -> Result<BuildResult, BuildError> {
        let mut job = Job::new(self.clone(), progress.clone(), request.session, request.settings);
        job.given = request.given;
        job.imports = request.imports;
        job.inline = request.exports.iter().any(|place| place.kind == "inline");
        let job = Arc::new(job);
        let images = match (&request.definition, request.frontend.as_str()) {
            _ if request.driver.is_some() => match request.driver {
                Some(driver) => driver(job.clone()).await?.images,
                None => Vec::new(),
            },
            (Some(definition), "") => {
                let graph = Graph::of(definition).map_err(|e| BuildError::invalid(e.to_string()))?;
                let value = job.evaluate(&Arc::new(graph)).await?;
                let platform = wharf_image::this_platform();
                let config = oci::Image { platform: platform.clone(), ..oci::Image::default() };
                vec![Image { platform, value, config }]
            }
            (None, "") => Vec::new(),
            (_, name) => {
                let outcome = request.input.solve_as(name, &job).await?;
                if outcome.images.is_empty() {
                    return Ok(BuildResult { metadata: outcome.metadata, ..BuildResult::default() });
                }
                outcome.images
            }
        };
        let mut result = BuildResult::default();
        for (number, exporter) in request.exporters.iter().enumerate() {
            let Exported { facts, image } = exporter.export(&job, number, &images).await?;
            result.facts.extend(facts);
            result.image = result.image.or(image);
        }
        for place in &request.exports {
            result.facts.extend(transfer::export(&job, place, &images).await?);
        }
        self.cache.settle();
        self.tidy();
        Ok(result)
    }

    /// Collects what is too much, in the background.
    fn tidy(self: &Arc<Self>) {
        let builder = self.clone();
        let work = move || {
            let disk = rustix::fs::statvfs(&builder.parts.folder).ok();
            for rule in &builder.parts.rules {
                let free = disk.as_ref().map(|disk| disk.f_bavail * disk.f_frsize);
                if let Err(error) = builder.cache.collect(&rule.with_free(free, builder.cache.size())) {
                    tracing::warn!(%error, "cannot collect old parts of the build cache");
                }
            }
        };
        drop(tokio::task::spawn_blocking(work));
    }

    /// Makes a context of a tar stream for one build.
    ///
    /// # Errors
    /// The archive is damaged.
    pub fn context_of_tar(&self, stream: &mut dyn std::io::BufRead) -> Result<Arc<Context>, BuildError> {
        in_place(|| self.pool.extract(stream)).map(Arc::new)
    }
}

/// How long the progress of a build that is over is kept for clients that are late.
const LINGER: std::time::Duration = std::time::Duration::from_secs(20);

struct Ending {
    builder: Arc<Builder>,
    reference: String,
    progress: Arc<Progress>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.progress.finish();
        // A client may ask for the progress of a build that was over before its call came.
        let (builder, reference) = (self.builder.clone(), std::mem::take(&mut self.reference));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                builder.forget(&reference);
            });
        }
    }
}
