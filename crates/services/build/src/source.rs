//! Sources: images, folders of the client, files and archives by address, git repositories.

use std::sync::Arc;

use wharf_error::Kind;
use wharf_proto_buildkit::pb;
use wharf_solver::{Vertex, digest_of};
use wharf_types::Reference;

use crate::job::{Base, Files, Job, Value};
use crate::local::in_place;
use crate::progress::Step;
use crate::session::SyncRequest;
use crate::{BuildError, remote};

/// Loads a source.
///
/// # Errors
/// [`BuildError`].
pub async fn load(job: &Arc<Job>, vertex: &Vertex, op: &pb::SourceOp, step: &Step) -> Result<Value, BuildError> {
    let (scheme, rest) = op
        .identifier
        .split_once("://")
        .ok_or_else(|| BuildError::invalid(format!("failed to parse source {}", op.identifier)))?;
    match scheme {
        "docker-image" => {
            let base = image(job, rest, vertex.op.platform.as_ref(), &op.attrs).await?;
            let key = base.hold.image.chain.as_ref().map_or("scratch".to_owned(), |chain| format!("chain:{chain}"));
            if base.snapshot.is_none() {
                return Ok(Value { files: Files::Empty, key });
            }
            Ok(Value { files: Files::Base(Arc::new(base)), key })
        }
        "local" => local(job, rest, &op.attrs, step).await,
        "http" | "https" => remote::http(job, &op.identifier, &op.attrs, step).await,
        "git" => remote::git(job, rest, &op.attrs, step).await,
        other => Err(BuildError::invalid(format!("unknown source scheme: {other}"))),
    }
}

/// Finds an image here, or fetches it.
///
/// # Errors
/// It is nowhere.
pub async fn image(
    job: &Arc<Job>,
    name: &str,
    platform: Option<&pb::Platform>,
    attrs: &std::collections::BTreeMap<String, String>,
) -> Result<Base, BuildError> {
    let builder = &job.builder;
    let reference = Reference::parse(name)
        .map_err(|e| BuildError::invalid(format!("failed to parse reference {name:?}: {e}")))?
        .with_default_tag();
    let pull = job.settings.pull || attrs.get("image.resolvemode").is_some_and(|m| m == "pull");
    let wanted = platform.map(|p| format!("{}/{}", p.os, p.architecture)).unwrap_or_default();
    let text = reference.familiar();
    let hold = || match platform.filter(|p| !p.architecture.is_empty()) {
        Some(p) => {
            let wanted = wharf_oci::image::Platform {
                os: p.os.clone(),
                architecture: p.architecture.clone(),
                variant: p.variant.clone(),
                ..wharf_oci::image::Platform::default()
            };
            in_place(|| builder.parts.images.hold_for(&text, &wanted))
        }
        None => builder.parts.images.hold(&text),
    };
    let found = hold().ok();
    let hold = match found {
        Some(hold) if !pull => hold,
        found => {
            let login = job.login(reference.domain()).await;
            match (builder.parts.registry.pull(&text, &wanted, login).await, found) {
                (Ok(()), _) => hold()?,
                // It is here, though not from a registry.
                (Err(e), Some(hold)) if e.kind == Kind::NotFound || e.kind == Kind::NotImplemented => hold,
                (Err(e), _) => return Err(e),
            }
        }
    };
    let snapshot = builder.parts.images.snapshot(&hold.image)?;
    if let Some(snapshot) = &snapshot {
        let mut numbers: Vec<u64> = snapshot.lowers.iter().rev().copied().collect();
        numbers.push(snapshot.number);
        builder.know_layers(&numbers, &hold.image);
    }
    Ok(Base { snapshot, hold })
}

fn list(attrs: &std::collections::BTreeMap<String, String>, name: &str) -> Result<Vec<String>, BuildError> {
    match attrs.get(name) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<Option<Vec<String>>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|e| BuildError::invalid(format!("invalid {name}: {e}"))),
    }
}

async fn local(
    job: &Arc<Job>,
    name: &str,
    attrs: &std::collections::BTreeMap<String, String>,
    step: &Step,
) -> Result<Value, BuildError> {
    if let Some(context) = job.given.get(name) {
        return Ok(Value { key: format!("local:{}", context.key), files: Files::Context(context.clone()) });
    }
    let request = SyncRequest {
        name: name.to_owned(),
        include: list(attrs, "local.includepattern")?,
        exclude: list(attrs, "local.excludepatterns")?,
        follow: list(attrs, "local.followpaths")?,
    };
    let session = match attrs.get("local.session").filter(|s| !s.is_empty()) {
        Some(id) => job.builder.sessions.get(id).await?,
        None => job.session()?.clone(),
    };
    let hint = attrs.get("local.sharedkeyhint").map_or(name, String::as_str);
    let key = format!("{}\0{hint}\0{request:?}", session.shared_key);
    let unique = digest_of(key.as_bytes());
    let context = job.context(&unique, async {
        let (sender, receiver) = session.sync(&request).await?;
        let id = format!("transferring {name}:");
        let told = std::sync::Mutex::new(std::time::Instant::now());
        let progress = |bytes: u64| {
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if told.elapsed() > std::time::Duration::from_millis(100) {
                *told = std::time::Instant::now();
                step.status(&id, i64::try_from(bytes).unwrap_or(0), 0, false);
            }
        };
        let context = job.builder.pool.receive(&key, sender, receiver, &progress).await?;
        step.status(&id, i64::try_from(context.transferred).unwrap_or(0), 0, true);
        Ok(Arc::new(context))
    });
    let context = context.await?;
    Ok(Value { key: format!("local:{}", context.key), files: Files::Context(context) })
}
