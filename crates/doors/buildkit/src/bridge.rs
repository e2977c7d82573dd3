//! The gateway service: a client that drives its build itself, step by step, as buildx does.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{oneshot, watch};
use wharf_build::{BuildError, BuiltImage, Driver, Frontend, Gateway, Job, Later, Outcome, Value};
use wharf_error::Kind;
use wharf_grpc::{Call, Code, Service, Status};
use wharf_oci::image as oci;
use wharf_proto_buildkit::caps::APICap;
use wharf_proto_buildkit::gateway::{
    EvaluateRequest, EvaluateResponse, InputsResponse, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, Ref, RefMap, ResolveImageConfigRequest, ResolveImageConfigResponse, Result as BridgeResult,
    ResultResult, ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse,
    WarnResponse,
};
use wharf_proto_buildkit::pb;
use wharf_solver::Graph;

use crate::{Door, control, convert};

/// How long a call waits for the build that it names: clients start both at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The header that names the build.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// What the gateway can do, in BuildKit's names.
const FRONTEND_CAPS: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What definitions may use.
const LLB_CAPS: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.subdir",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "source.http.uidgid",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "exec.cwd.create",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "mergeop",
    "diffop",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "sourceinfo.progressgroup",
];

/// Something that a client got a name for.
#[derive(Clone)]
enum Held {
    Value(Value, Option<Box<oci::Image>>),
    Graph(Arc<Graph>),
}

/// A build that its client drives.
#[derive(Default)]
pub struct Bridge {
    job: Mutex<Option<Arc<Job>>>,
    ready: watch::Sender<bool>,
    held: Mutex<HashMap<String, Held>>,
    returned: Mutex<Option<oneshot::Sender<Result<Outcome, BuildError>>>>,
    /// The failure that the client handed in, as it was.
    failure: Mutex<Option<Status>>,
    /// Definitions that the build was given.
    inputs: BTreeMap<String, pb::Definition>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bridge {
    /// The failure that the client handed in.
    pub fn told(&self) -> Option<Status> {
        lock(&self.failure).clone()
    }

    async fn job(&self) -> Result<Arc<Job>, Status> {
        let mut ready = self.ready.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, ready.wait_for(|r| *r)).await;
        if !matches!(waiting, Ok(Ok(_))) {
            return Err(Status::new(Code::Unavailable, "the build has not begun"));
        }
        lock(&self.job).clone().ok_or_else(|| Status::new(Code::Unavailable, "the build has not begun"))
    }

    fn hold(&self, held: Held) -> String {
        let mut all = lock(&self.held);
        let id = format!("wharf-{}", all.len());
        all.insert(id.clone(), held);
        id
    }

    async fn value(&self, id: &str) -> Result<(Value, Option<oci::Image>), Status> {
        let held = lock(&self.held).get(id).cloned();
        match held {
            None => Err(Status::new(Code::NotFound, format!("no such ref: {id}"))),
            Some(Held::Value(value, config)) => Ok((value, config.map(|c| *c))),
            Some(Held::Graph(graph)) => {
                let value = self.job().await?.evaluate(&graph).await.map_err(|e| convert::status(&e))?;
                lock(&self.held).insert(id.to_owned(), Held::Value(value.clone(), None));
                Ok((value, None))
            }
        }
    }
}

/// Serves front ends that run in containers.
pub struct Frontends;

impl Gateway for Frontends {
    fn serve(
        &self,
        job: Arc<Job>,
        inputs: BTreeMap<String, pb::Definition>,
        stream: DuplexStream,
    ) -> Later<'static, Option<Outcome>> {
        let (sender, mut receiver) = oneshot::channel();
        let bridge = Bridge { job: Mutex::new(Some(job)), inputs, ..Bridge::default() };
        *lock(&bridge.returned) = Some(sender);
        bridge.ready.send_replace(true);
        let bridge = Arc::new(bridge);
        Box::pin(async move {
            if let Err(error) = wharf_grpc::serve(stream, Arc::new(Contained(bridge))).await {
                // It leaves as it ends.
                tracing::debug!(%error, "a front end broke off");
            }
            receiver.try_recv().ok().transpose()
        })
    }
}

/// One front end's service: all that it can ask is about its own build.
struct Contained(Arc<Bridge>);

impl Service for Contained {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> {
        let bridge = self.0.clone();
        Box::pin(async move {
            let path = call.path.clone();
            match path.trim_start_matches('/').split_once('/') {
                Some(("moby.buildkit.v1.frontend.LLBBridge", method)) => bridge.answer(method, call).await,
                Some(("grpc.health.v1.Health", "Check")) => crate::healthy(&call).await,
                _ => Err(Status::new(Code::Unimplemented, format!("unknown method {path}"))),
            }
        })
    }
}

/// All of them, by the reference of their build.
#[derive(Default)]
pub struct Bridges {
    open: Mutex<HashMap<String, Arc<Bridge>>>,
    changed: tokio::sync::Notify,
}

impl Bridges {
    /// Opens one; the driver goes to the builder.
    pub fn open(&self, reference: &str) -> (Driver, Arc<Bridge>) {
        let bridge = Arc::new(Bridge::default());
        let (sender, receiver) = oneshot::channel();
        *lock(&bridge.returned) = Some(sender);
        lock(&self.open).insert(reference.to_owned(), bridge.clone());
        self.changed.notify_waiters();
        let given = bridge.clone();
        let driver: Driver = Box::new(move |job| {
            *lock(&given.job) = Some(job);
            given.ready.send_replace(true);
            Box::pin(async move { receiver.await.map_err(|_| BuildError::cancelled())? })
        });
        (driver, bridge)
    }

    /// Closes one.
    pub fn close(&self, reference: &str) {
        lock(&self.open).remove(reference);
    }

    async fn get(&self, reference: &str) -> Result<Arc<Bridge>, Status> {
        let look = async {
            loop {
                let waiting = self.changed.notified();
                tokio::pin!(waiting);
                waiting.as_mut().enable();
                if let Some(bridge) = lock(&self.open).get(reference) {
                    return bridge.clone();
                }
                waiting.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.map_err(|_| Status::new(Code::NotFound, format!("no such job {reference}")))
    }
}

impl Door {
    pub(crate) async fn bridge(&self, method: &str, call: Call) -> Result<(), Status> {
        let id = call.metadata.get(BUILD_ID).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        if method == "Ping" {
            return Bridge::default().answer(method, call).await;
        }
        self.bridges.get(&id).await?.answer(method, call).await
    }
}

impl Bridge {
    async fn answer(&self, method: &str, mut call: Call) -> Result<(), Status> {
        let bridge = self;
        if method == "Ping" {
            let cap = |id: &&str| APICap { id: (*id).to_owned(), enabled: true, ..APICap::default() };
            let pong = PongResponse {
                frontend_api_caps: FRONTEND_CAPS.iter().map(cap).collect(),
                llb_caps: LLB_CAPS.iter().map(cap).collect(),
                workers: vec![control::worker()],
            };
            return call.sender.send(&pong).await;
        }
        match method {
            "Solve" => {
                let request: SolveRequest = call.message().await?;
                let answer = solve(bridge, request).await?;
                call.sender.send(&answer).await
            }
            "Return" => {
                let request: ReturnRequest = call.message().await?;
                take_result(bridge, request).await;
                call.sender.send(&ReturnResponse {}).await
            }
            "ReadFile" => {
                let request: ReadFileRequest = call.message().await?;
                let (value, _) = bridge.value(&request.r#ref).await?;
                let data = read_file(&*bridge.job().await?, &value, &request)?;
                call.sender.send(&ReadFileResponse { data }).await
            }
            "StatFile" => {
                let request: StatFileRequest = call.message().await?;
                let (value, _) = bridge.value(&request.r#ref).await?;
                let stat =
                    bridge.job().await?.stat(&value, Path::new(&request.path)).map_err(|e| convert::status(&e))?;
                call.sender.send(&StatFileResponse { stat: Some(stat) }).await
            }
            "Evaluate" => {
                let request: EvaluateRequest = call.message().await?;
                bridge.value(&request.r#ref).await?;
                call.sender.send(&EvaluateResponse {}).await
            }
            "ReadDir" => {
                let request: ReadDirRequest = call.message().await?;
                let (value, _) = bridge.value(&request.r#ref).await?;
                let job = bridge.job().await?;
                let entries = job.list(&value, Path::new(&request.dir_path), &request.include_pattern);
                let entries = entries.map_err(|e| convert::status(&e))?;
                call.sender.send(&ReadDirResponse { entries }).await
            }
            "Inputs" => call.sender.send(&InputsResponse { definitions: bridge.inputs.clone() }).await,
            "Warn" => call.sender.send(&WarnResponse {}).await,
            "ResolveImageConfig" => {
                let request: ResolveImageConfigRequest = call.message().await?;
                let answer = resolve(bridge, &request).await?;
                call.sender.send(&answer).await
            }
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("unknown method {method} for service moby.buildkit.v1.frontend.LLBBridge"),
            )),
        }
    }
}

fn read_file(job: &Job, value: &Value, request: &ReadFileRequest) -> Result<Vec<u8>, Status> {
    let bytes = job.read(value, Path::new(&request.file_path)).map_err(|e| convert::status(&e))?;
    Ok(match &request.range {
        Some(range) => {
            let start = usize::try_from(range.offset).unwrap_or(0).min(bytes.len());
            let length = usize::try_from(range.length).unwrap_or(usize::MAX);
            bytes[start..start.saturating_add(length).min(bytes.len())].to_vec()
        }
        None => bytes,
    })
}

async fn solve(bridge: &Bridge, request: SolveRequest) -> Result<SolveResponse, Status> {
    let job = bridge.job().await?;
    let answer = |result: BridgeResult| SolveResponse { r#ref: String::new(), result: Some(result) };
    if request.frontend.is_empty() {
        let definition = request.definition.unwrap_or_default();
        let graph = Graph::of(&definition).map_err(|e| Status::new(Code::InvalidArgument, e.to_string()))?;
        let id = bridge.hold(Held::Graph(Arc::new(graph)));
        if request.evaluate {
            bridge.value(&id).await?;
        }
        let reference = Ref { id, def: Some(definition) };
        return Ok(answer(BridgeResult { result: Some(ResultResult::Ref(reference)), ..BridgeResult::default() }));
    }
    let several = request.frontend_opt.get("platform").is_some_and(|p| p.contains(','))
        || request.frontend_opt.get("multi-platform").is_some_and(|m| m == "true");
    let frontend = Frontend { attrs: request.frontend_opt, inputs: request.frontend_inputs };
    let outcome = frontend.solve_as(&request.frontend, &job).await.map_err(|e| convert::status(&e))?;
    let mut metadata: BTreeMap<String, Vec<u8>> = outcome.metadata;
    let mut refs = BTreeMap::new();
    let mut platforms = Vec::new();
    for image in outcome.images {
        let BuiltImage { platform, value, config } = image;
        let name = format!(
            "{}/{}{}",
            platform.os,
            platform.architecture,
            if platform.variant.is_empty() { String::new() } else { format!("/{}", platform.variant) }
        );
        let key = if several { format!("containerimage.config/{name}") } else { "containerimage.config".to_owned() };
        metadata.insert(key, wharf_build::config_json(&config));
        let id = bridge.hold(Held::Value(value, Some(Box::new(config))));
        platforms.push(format!(
            "{{\"ID\":\"{name}\",\"Platform\":{{\"architecture\":\"{}\",\"os\":\"{}\"}}}}",
            platform.architecture, platform.os
        ));
        refs.insert(name, Ref { id, def: None });
    }
    let result = if several {
        metadata
            .insert("refs.platforms".to_owned(), format!("{{\"Platforms\":[{}]}}", platforms.join(",")).into_bytes());
        Some(ResultResult::Refs(RefMap { refs }))
    } else {
        refs.into_values().next().map(ResultResult::Ref)
    };
    Ok(answer(BridgeResult { result, metadata, ..BridgeResult::default() }))
}

async fn resolve(bridge: &Bridge, request: &ResolveImageConfigRequest) -> Result<ResolveImageConfigResponse, Status> {
    let job = bridge.job().await?;
    let mut attrs = BTreeMap::new();
    if request.resolve_mode == "pull" {
        attrs.insert("image.resolvemode".to_owned(), "pull".to_owned());
    }
    let base = wharf_build::find_image(&job, &request.r#ref, request.platform.as_ref(), &attrs).await;
    let base = base.map_err(|e| convert::status(&e))?;
    let image = &base.hold.image;
    Ok(ResolveImageConfigResponse {
        digest: image.id.as_str().to_owned(),
        config: wharf_build::config_json(&image.config),
        r#ref: request.r#ref.clone(),
    })
}

/// Takes what the client says is the result.
async fn take_result(bridge: &Bridge, request: ReturnRequest) {
    let outcome = match request.error {
        Some(error) => {
            let error = Status { code: code(error.code), message: error.message, details: error.details };
            let details = Some(Arc::from(error.details.clone()));
            let failed = BuildError { details, ..BuildError::new(Kind::Invalid, error.message.clone()) };
            *lock(&bridge.failure) = Some(error);
            Err(failed)
        }
        None => collect(bridge, request.result.unwrap_or_default()).await.map_err(|status| {
            let details = Some(Arc::from(status.details.clone()));
            let failed = BuildError { details, ..BuildError::new(Kind::Invalid, status.message.clone()) };
            *lock(&bridge.failure) = Some(status);
            failed
        }),
    };
    if let Some(sender) = lock(&bridge.returned).take() {
        // The build may have been cancelled.
        let _ = sender.send(outcome);
    }
}

fn code(number: i32) -> Code {
    match number {
        1 => Code::Canceled,
        3 => Code::InvalidArgument,
        5 => Code::NotFound,
        7 => Code::PermissionDenied,
        12 => Code::Unimplemented,
        14 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

async fn collect(bridge: &Bridge, result: BridgeResult) -> Result<Outcome, Status> {
    let refs: Vec<(String, Ref)> = match result.result {
        Some(ResultResult::Ref(reference)) => vec![(String::new(), reference)],
        Some(ResultResult::Refs(map)) => map.refs.into_iter().collect(),
        Some(ResultResult::RefDeprecated(id)) => vec![(String::new(), Ref { id, def: None })],
        Some(ResultResult::RefsDeprecated(map)) => {
            map.refs.into_iter().map(|(k, id)| (k, Ref { id, def: None })).collect()
        }
        // An image without files.
        None if result.metadata.contains_key("containerimage.config") => vec![(String::new(), Ref::default())],
        None => Vec::new(),
    };
    let mut images = Vec::new();
    for (name, reference) in refs {
        let (value, config) =
            if reference.id.is_empty() { (Value::empty(), None) } else { bridge.value(&reference.id).await? };
        let key =
            if name.is_empty() { "containerimage.config".to_owned() } else { format!("containerimage.config/{name}") };
        let config = match (result.metadata.get(&key), config) {
            (Some(json), _) => wharf_build::config_of_json(json).map_err(|e| convert::status(&e))?,
            (None, Some(config)) => config,
            (None, None) => oci::Image { platform: wharf_build::this_platform(), ..oci::Image::default() },
        };
        let platform = wharf_build::parse_platform(&name).unwrap_or_else(|| config.platform.clone());
        images.push(BuiltImage { platform, value, config });
    }
    Ok(Outcome { images, metadata: result.metadata })
}
