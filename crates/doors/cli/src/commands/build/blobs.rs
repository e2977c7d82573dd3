//! Folders of blobs for caches (`--cache-to type=local`): OCI layouts that the daemon reads and writes through us.
//!
//! ```text
//! <folder>/index.json   oci-layout   blobs/sha256/<hex>
//! ```
//!
//! Source: containerd `api/services/content/v1`, `plugins/content/local`; moby/buildkit `client/ociindex`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wharf_grpc::{Call, Code, Status};
use wharf_proto_buildkit::content::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};

use crate::exit::{Exit, go_text, path_error};

/// Bytes of one message.
const CHUNK: usize = 1 << 20;

/// The annotation of a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The digest that a tag means in a folder; `None` where there is no such thing yet.
pub fn tagged(folder: &Path, tag: &str) -> Option<String> {
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json")).ok()?).ok()?;
    let manifests = index.get("manifests")?.as_array()?;
    let named = |m: &&Value| m.get("annotations").and_then(|a| a.get(REF_NAME)).and_then(Value::as_str) == Some(tag);
    let found = manifests.iter().find(named).or_else(|| manifests.first().filter(|_| manifests.len() == 1))?;
    Some(found.get("digest")?.as_str()?.to_owned())
}

/// Gives a manifest that is in a folder a tag, in place of what had it.
///
/// # Errors
/// The folder cannot be written.
pub fn tag(folder: &Path, tag: &str, manifest: &str) -> Result<(), Exit> {
    let wrong = |e: serde_json::Error| Exit::new(format!("cache manifest: {e}"));
    let mut manifest: Value = serde_json::from_str(manifest).map_err(wrong)?;
    if let Some(object) = manifest.as_object_mut() {
        let notes = object.entry("annotations").or_insert_with(|| json!({}));
        notes[REF_NAME] = tag.into();
    }
    let path = folder.join("index.json");
    let old: Option<Value> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut manifests = old.and_then(|o| o.get("manifests")?.as_array().cloned()).unwrap_or_default();
    manifests.retain(|m| m.get("annotations").and_then(|a| a.get(REF_NAME)) != Some(&tag.into()));
    manifests.push(manifest);
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    let failed = |path: &Path, e: io::Error| path_error("open", &path.to_string_lossy(), &e);
    let layout = folder.join("oci-layout");
    fs::write(&layout, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(|e| failed(&layout, e))?;
    fs::write(&path, index.to_string()).map_err(|e| failed(&path, e))
}

fn blob(folder: &Path, digest: &str) -> Result<PathBuf, Status> {
    // Nothing else leads to a file: the name comes from the daemon.
    let hex = digest.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| Status::new(Code::InvalidArgument, format!("invalid digest {digest:?}")))?;
    Ok(folder.join("blobs/sha256").join(hex))
}

fn missing(digest: &str, e: &io::Error) -> Status {
    match e.kind() {
        io::ErrorKind::NotFound => Status::new(Code::NotFound, format!("content {digest}: not found")),
        _ => Status::new(Code::Unknown, format!("content {digest}: {}", go_text(e))),
    }
}

/// Answers a call on a folder.
///
/// # Errors
/// The blob is not there, or cannot be written.
pub async fn answer(folder: &Path, mut call: Call) -> Result<(), Status> {
    match call.path.rsplit('/').next().unwrap_or_default() {
        "Info" => {
            let request: InfoRequest = call.message().await?;
            let meta = fs::metadata(blob(folder, &request.digest)?).map_err(|e| missing(&request.digest, &e))?;
            let size = i64::try_from(meta.len()).unwrap_or(i64::MAX);
            call.sender.send(&InfoResponse { info: Some(Info { digest: request.digest, size }) }).await
        }
        "Read" => {
            let request: ReadContentRequest = call.message().await?;
            let mut file = File::open(blob(folder, &request.digest)?).map_err(|e| missing(&request.digest, &e))?;
            let mut offset = 0u64;
            if let Ok(from @ 1..) = u64::try_from(request.offset) {
                offset = from;
                io::Seek::seek(&mut file, io::SeekFrom::Start(from)).map_err(|e| missing(&request.digest, &e))?;
            }
            let mut file = file.take(u64::try_from(request.size).ok().filter(|s| *s > 0).unwrap_or(u64::MAX));
            loop {
                let mut data = vec![0; CHUNK];
                let n = file.read(&mut data).map_err(|e| missing(&request.digest, &e))?;
                if n == 0 {
                    return Ok(());
                }
                data.truncate(n);
                call.sender.send(&ReadContentResponse { offset: i64::try_from(offset).unwrap_or(0), data }).await?;
                offset += n as u64;
            }
        }
        "Write" => write(folder, call).await,
        other => Err(Status::new(Code::Unimplemented, format!("unknown method {other}"))),
    }
}

/// A blob on its way; its draft goes when this is dropped.
struct Draft {
    path: PathBuf,
    file: File,
    hash: ring::digest::Context,
    written: u64,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit there is none.
        let _ = fs::remove_file(&self.path);
    }
}

async fn write(folder: &Path, mut call: Call) -> Result<(), Status> {
    let mut draft: Option<Draft> = None;
    let (mut expected, mut total) = (String::new(), 0);
    while let Some(message) = call.receiver.message::<WriteContentRequest>().await? {
        if !message.expected.is_empty() {
            expected.clone_from(&message.expected);
        }
        total = total.max(message.total);
        let place = blob(folder, &expected)?;
        let failed = |e: io::Error| Status::new(Code::Unknown, format!("write {}: {}", place.display(), go_text(&e)));
        if place.exists() {
            return Err(Status::new(Code::AlreadyExists, format!("content {expected}: already exists")));
        }
        if draft.is_none() {
            fs::create_dir_all(folder.join("blobs/sha256")).map_err(failed)?;
            fs::create_dir_all(folder.join("ingest")).map_err(failed)?;
            let path = folder.join("ingest").join(super::solve::name());
            let file = File::create(&path).map_err(failed)?;
            draft = Some(Draft { path, file, hash: ring::digest::Context::new(&ring::digest::SHA256), written: 0 });
        }
        let Some(open) = &mut draft else { break };
        let action = WriteAction::try_from(message.action).unwrap_or(WriteAction::Stat);
        if action != WriteAction::Stat {
            if message.offset > 0 && u64::try_from(message.offset).ok() != Some(open.written) {
                return Err(Status::new(Code::InvalidArgument, "write at an offset where nothing is written"));
            }
            open.file.write_all(&message.data).map_err(failed)?;
            open.hash.update(&message.data);
            open.written += message.data.len() as u64;
        }
        let offset = i64::try_from(open.written).unwrap_or(i64::MAX);
        if action == WriteAction::Commit {
            let digest = open.hash.clone().finish();
            let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            if expected != format!("sha256:{hex}") || (total > 0 && total != offset) {
                return Err(Status::new(Code::FailedPrecondition, format!("unexpected content for {expected}")));
            }
            fs::rename(&open.path, &place).map_err(failed)?;
        }
        let digest = expected.clone();
        call.sender.send(&WriteContentResponse { action: message.action, offset, total, digest }).await?;
    }
    Ok(())
}
