//! Front ends that come as images (`# syntax=`): a container that drives the build by BuildKit's gateway protocol over
//! its standard input and output.
//!
//! What it may ask for is what a client that drives its own build may: the same server answers both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use wharf_engine::{StepBind, StepNetwork, StepRequest};
use wharf_error::{Chain, Kind};
use wharf_oci::image as oci;
use wharf_proto_buildkit::pb;
use wharf_solver::digest_of;

use crate::BuildError;
use crate::builder::Later;
use crate::exec::Scene;
use crate::frontend::{Frontend, Outcome};
use crate::job::{Files, Job, Value};
use crate::local::in_place;
use crate::lower::full_name;
use crate::progress::Step;

/// The server of the gateway protocol.
pub trait Gateway: Send + Sync {
    /// Serves one front end until its connection ends; gives what it returned, if it did.
    fn serve(
        &self,
        job: Arc<Job>,
        inputs: BTreeMap<String, pb::Definition>,
        stream: DuplexStream,
    ) -> Later<'static, Option<Outcome>>;
}

/// Front end containers of one build at a time: one may ask for another, and so on.
const AT_ONCE: usize = 16;

/// Bytes on their way between the container and the server.
const PIPE: usize = 256 << 10;

/// What is kept of what a front end says on stderr, for the log.
const SAID: usize = 4 << 10;

/// Where BuildKit's front ends find the definition that they were made from.
const METADATA: &str = "/run/config/buildkit/metadata";

/// Counts a front end as long as it runs.
struct Counted<'a>(&'a Job);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.frontends.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The image of a front end.
struct Program {
    value: Value,
    config: oci::Image,
    definition: pb::Definition,
}

/// Runs the front end that `source` names.
///
/// # Errors
/// There is no such image, the front end cannot do what is asked of it, or says that the build failed.
pub async fn run(job: &Arc<Job>, frontend: &Frontend) -> Result<Outcome, BuildError> {
    if frontend.attrs.contains_key("gateway-devel") {
        return Err(BuildError::invalid("development gateway is no longer supported"));
    }
    let Some(source) = frontend.attrs.get("source") else {
        return Err(BuildError::invalid("no source specified for gateway"));
    };
    if crate::frontend::is_own(source) {
        // Marked as asked for, so that the file's own line does not lead elsewhere.
        let mut own = frontend.clone();
        own.attrs.entry("cmdline".to_owned()).or_insert_with(|| source.clone());
        return Box::pin(own.solve(job)).await;
    }
    if job.frontends.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
        job.frontends.fetch_sub(1, Ordering::Relaxed);
        return Err(BuildError::invalid(format!("front end {source}: more than {AT_ONCE} front ends at a time")));
    }
    let _counted = Counted(job);
    let program = find(job, frontend, source).await?;
    check(&program, frontend)?;
    let gateway = job.builder.gateway().ok_or_else(|| {
        BuildError::new(Kind::NotImplemented, format!("front end {source}: nothing serves the gateway protocol"))
    })?;
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let serving = gateway.serve(job.clone(), frontend.inputs.clone(), ours);
    let running = contain(job, frontend, program, theirs);
    let (returned, ended) = tokio::join!(serving, running);
    // What it says of a failure counts most; then that it failed; then what it gave.
    match (returned, ended) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(Some(outcome)), Ok(())) => Ok(outcome),
        (Ok(None), Ok(())) => Err(BuildError::invalid("no result for incomplete build")),
    }
}

/// Finds the image: a named context of that name, or what is here, or in a registry.
async fn find(job: &Arc<Job>, frontend: &Frontend, source: &str) -> Result<Program, BuildError> {
    let named = |name: &str| frontend.attrs.get(&format!("context:{name}")).cloned();
    let mut image = source.to_owned();
    match named(source).or_else(|| named(&full_name(source))) {
        None => {}
        Some(text) => match (text.strip_prefix("docker-image://"), text.strip_prefix("input:")) {
            (Some(other), _) => image = other.to_owned(),
            (None, Some(input)) => {
                let config = frontend.input_config(input)?.config;
                let value = frontend.input_value(job, input).await;
                let value = value.ok_or_else(|| BuildError::invalid(format!("no input {input}")))??;
                let definition = frontend.inputs.get(input).cloned().unwrap_or_default();
                return Ok(Program { value, config, definition });
            }
            (None, None) => {
                return Err(BuildError::invalid(format!("context {text} cannot be the front end {source}")));
            }
        },
    }
    if wharf_types::Reference::parse(&image).is_err() {
        return Err(BuildError::invalid(format!("failed to parse front end {image:?}: invalid reference format")));
    }
    let full = full_name(&image);
    let title = format!("resolve image config for docker-image://{full}");
    let step = Step::start(&job.progress, &digest_of(title.as_bytes()), &title, Vec::new(), None);
    let found = crate::source::image(job, &full, None, &BTreeMap::new()).await;
    step.done(false, &found.as_ref().err().map(ToString::to_string).unwrap_or_default());
    let base = found.map_err(|e| BuildError {
        text: Arc::from(format!("{image}: failed to resolve source metadata for {full}: {e}")),
        ..e
    })?;
    let op = pb::SourceOp { identifier: format!("docker-image://{full}"), attrs: BTreeMap::new() };
    let op = pb::Op { op: Some(pb::OpOp::Source(op)), ..pb::Op::default() };
    let definition = Frontend::only(&op, &format!("docker-image://{full}"));
    let config = base.hold.image.config.clone();
    let key = base.hold.image.chain.as_ref().map_or("scratch".to_owned(), |chain| format!("chain:{chain}"));
    Ok(Program { value: Value { files: Files::Base(Arc::new(base)), key }, config, definition })
}

/// Whether the front end says that it can do what is asked of it.
fn check(program: &Program, frontend: &Frontend) -> Result<(), BuildError> {
    let list = |text: Option<&String>| -> Vec<String> {
        let all = text.map_or("", String::as_str).split(',').map(|c| c.split_once('+').map_or(c, |(name, _)| name));
        all.map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect()
    };
    let has = list(program.config.config.labels.get("moby.buildkit.frontend.caps"));
    let mut needs = list(frontend.attrs.get("frontend.caps"));
    if !frontend.inputs.is_empty() {
        needs.push("moby.buildkit.frontend.inputs".to_owned());
    }
    match needs.iter().find(|need| !has.contains(need)) {
        Some(missing) => {
            Err(BuildError::new(Kind::NotImplemented, format!("unsupported frontend capability {missing}")))
        }
        None => Ok(()),
    }
}

/// Runs the container to its end.
async fn contain(
    job: &Arc<Job>,
    frontend: &Frontend,
    program: Program,
    stream: DuplexStream,
) -> Result<(), BuildError> {
    let mut scene = Scene::new(job)?;
    let config = &program.config.config;
    let args = config.entrypoint.clone().filter(|e| !e.is_empty()).unwrap_or_else(|| vec!["/run".to_owned()]);
    let alone = config
        .labels
        .get("moby.buildkit.frontend.network.none")
        .is_some_and(|v| ["1", "t", "T", "true", "True", "TRUE"].contains(&v.as_str()));
    let (rootfs, metadata) = in_place(|| {
        let prepared = scene.snapshots.prepare(program.value.snapshot())?;
        scene.scratch.push(prepared.clone());
        let metadata = scene.folder.join("metadata");
        std::fs::create_dir(&metadata)?;
        let bytes = prost::Message::encode_to_vec(&program.definition);
        std::fs::write(metadata.join("frontend.bin"), bytes)?;
        Ok::<_, BuildError>((scene.snapshots.mounts(&prepared, false)?, metadata))
    })?;
    let request = StepRequest {
        args: args.clone(),
        env: environment(job, frontend, config.env.clone()),
        cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
        hostname: "buildkitsandbox".to_owned(),
        network: if alone { StepNetwork::None } else { StepNetwork::Bridge },
        rootfs,
        binds: vec![StepBind { source: metadata, target: METADATA.to_owned(), read_only: true }],
        ..StepRequest::default()
    };
    let (input, mut output) = tokio::io::split(stream);
    let (sender, mut receiver) = mpsc::channel::<(u8, Vec<u8>)>(16);
    let steps = job.builder.parts.steps.clone();
    let running = steps.converse(request, Some(Box::new(input)), sender);
    let passing = async {
        let mut said = Vec::new();
        while let Some((stream, data)) = receiver.recv().await {
            match stream {
                // A server that has left reads no more; the container is told by the end of its input.
                1 => drop(output.write_all(&data).await),
                _ => said.extend_from_slice(&data[..data.len().min(SAID.saturating_sub(said.len()))]),
            }
        }
        let _ = output.shutdown().await;
        said
    };
    let (end, said) = tokio::join!(running, passing);
    if !said.is_empty() {
        tracing::info!(front_end = %args.join(" "), said = %String::from_utf8_lossy(&said), "a front end said");
    }
    let end = end.map_err(|e| BuildError::new(Kind::System, Chain(&e).to_string()))?;
    if end.cancelled {
        return Err(BuildError::cancelled());
    }
    crate::exec::judge(&end, &args, &[])
}

/// What a front end is told in its environment.
fn environment(job: &Job, frontend: &Frontend, mut env: Vec<String>) -> Vec<String> {
    for (number, (name, value)) in frontend.attrs.iter().enumerate() {
        env.push(format!("BUILDKIT_FRONTEND_OPT_{number}={name}={value}"));
    }
    let session = job.session.as_ref().map_or("", |s| s.id.as_str());
    env.push(format!("BUILDKIT_SESSION_ID={session}"));
    let platform = wharf_image::this_platform();
    let mut shown = serde_json::json!({"architecture": platform.architecture, "os": platform.os});
    if !platform.variant.is_empty() {
        shown["variant"] = platform.variant.into();
    }
    let workers = serde_json::json!([{"id": "wharf", "labels": {}, "platforms": [shown]}]);
    env.push(format!("BUILDKIT_WORKERS={workers}"));
    env.push("BUILDKIT_EXPORTEDPRODUCT=docker".to_owned());
    env
}
