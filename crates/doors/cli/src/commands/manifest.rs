//! `docker manifest`: lists of manifests, put together here and sent to a registry. These commands talk to registries
//! themselves; the daemon has no part in them.
//!
//! ```text
//! <config>/manifests/<list>/<manifest>      one entry, JSON; names with `/` as `_` and `:` as `-`
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_distribution::document::{self, Content};
use wharf_distribution::{Client, Config, Credentials, Parcel, Purpose, Repository, Sent, Shipment};
use wharf_oci::image::{Descriptor, Index, Platform, media_type};
use wharf_types::Reference;

use crate::credentials::{Keeping, server_of};
use crate::exit::{Exit, go_text};
use crate::parse::Matches;
use crate::shell::Shell;

/// Bytes of a configuration at most.
const CONFIG_LIMIT: u64 = 8 << 20;

/// One manifest of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    /// Where it comes from.
    r#ref: String,
    /// What it is, with its platform.
    descriptor: Descriptor,
    /// Its bytes, as text: they are JSON.
    raw: String,
}

fn reference(text: &str) -> Result<Reference, Exit> {
    Reference::parse(text).map(Reference::with_default_tag).map_err(|e| Exit::new(e.to_string()))
}

/// The folder or file name of a reference.
fn safe(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn place(shell: &Shell, list: &Reference) -> PathBuf {
    shell.folder().join("manifests").join(safe(list))
}

fn failed(action: &str, path: &Path, e: &std::io::Error) -> Exit {
    Exit::new(format!("{action} {}: {}", path.display(), go_text(e)))
}

/// Runs what talks to registries.
fn block_on<T>(work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Exit::new(e.to_string()))?.block_on(work)
}

fn said(e: wharf_distribution::DistributionError) -> Exit {
    Exit::new(wharf_error::Chain(&e).to_string())
}

fn repository(shell: &Shell, name: &Reference, insecure: bool, purpose: Purpose) -> Result<Arc<Repository>, Exit> {
    let mut config = Config::default();
    config.proxies = config.proxies.or_environment(|name| std::env::var(name).ok());
    if insecure {
        config.insecure.push(name.domain().to_owned());
    }
    let login = match Keeping::open(shell.folder()) {
        Ok(keeping) => keeping.get(&server_of(name.name()))?,
        Err(_) => Default::default(),
    };
    let credentials = Credentials {
        username: login.username,
        password: login.password,
        identity_token: login.identity_token,
        registry_token: login.registry_token,
    };
    Client::new(config).repository(name, credentials, purpose).map(Arc::new).map_err(said)
}

/// The local entries of a list, in the order of their names; none where there is no such list.
fn entries(folder: &Path) -> Result<Option<Vec<Entry>>, Exit> {
    let read = match std::fs::read_dir(folder) {
        Ok(read) => read,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", folder, &e)),
    };
    let mut files: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: PathBuf| -> Result<Entry, Exit> {
        let bytes = std::fs::read(&path).map_err(|e| failed("open", &path, &e))?;
        serde_json::from_slice(&bytes).map_err(|e| Exit::new(format!("{}: {e}", path.display())))
    };
    files.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn store(folder: &Path, name: &Reference, entry: &Entry) -> Result<(), Exit> {
    std::fs::create_dir_all(folder).map_err(|e| failed("mkdir", folder, &e))?;
    let path = folder.join(safe(name));
    let bytes = serde_json::to_vec(entry).map_err(|e| Exit::new(e.to_string()))?;
    std::fs::write(&path, bytes).map_err(|e| failed("open", &path, &e))
}

/// Fetches what a name means: one manifest with its platform, or all of an index.
async fn fetch(repository: &Arc<Repository>, name: &Reference) -> Result<Vec<Entry>, Exit> {
    let missing = |e| match e {
        wharf_distribution::DistributionError::NotFound(_) => Exit::new(format!("no such manifest: {name}")),
        e => said(e),
    };
    let top = repository.resolve(name).await.map_err(missing)?;
    let found = repository.document(top.digest.as_str(), &name.to_string()).await.map_err(missing)?;
    let mut all = Vec::new();
    match found.content().map_err(said)? {
        Content::Manifest(manifest) => {
            let config = repository.small_blob(&manifest.config, CONFIG_LIMIT).await.map_err(said)?;
            let platform: Platform = serde_json::from_slice(&config).unwrap_or_default();
            let descriptor = Descriptor { platform: Some(platform), ..found.descriptor.clone() };
            all.push(entry(name, descriptor, &found.bytes));
        }
        Content::Index(index) => {
            for inner in index.manifests {
                let name = name.with_digest(inner.digest.clone());
                let found = repository.document(inner.digest.as_str(), &name.to_string()).await.map_err(missing)?;
                all.push(entry(&name, inner, &found.bytes));
            }
        }
    }
    Ok(all)
}

fn entry(name: &Reference, descriptor: Descriptor, bytes: &[u8]) -> Entry {
    Entry { r#ref: name.to_string(), descriptor, raw: String::from_utf8_lossy(bytes).into_owned() }
}

/// `docker manifest create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let list = reference(m.first())?;
    let folder = place(shell, &list);
    if folder.exists() && !m.bool("amend") {
        return Err(Exit::new("refusing to amend an existing manifest list with no --amend flag"));
    }
    for text in &m.args[1..] {
        let name = reference(text)?;
        let repository = repository(shell, &name, m.bool("insecure"), Purpose::Pull)?;
        let found = block_on(fetch(&repository, &name))?;
        match found.as_slice() {
            [one] if one.r#ref == name.to_string() => store(&folder, &name, one)?,
            _ => return Err(Exit::new(format!("{name} is a manifest list"))),
        }
    }
    shell.line(&format!("Created manifest list {list}"))
}

/// `docker manifest annotate`.
pub fn annotate(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (list, name) = (reference(&m.args[0])?, reference(&m.args[1])?);
    let folder = place(shell, &list);
    let known = entries(&folder)?.unwrap_or_default().into_iter().find(|e| e.r#ref == name.to_string());
    let missing = || Exit::new(format!("manifest for image {name} does not exist in {list}"));
    let mut entry = known.ok_or_else(missing)?;
    let platform = entry.descriptor.platform.get_or_insert_with(Platform::default);
    for (flag, field) in [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ] {
        if !m.text(flag).is_empty() {
            m.text(flag).clone_into(field);
        }
    }
    for feature in m.strings("os-features") {
        if !platform.os_features.contains(&feature) {
            platform.os_features.push(feature);
        }
    }
    if platform.os.is_empty() || platform.architecture.is_empty() {
        let (os, architecture) = (&platform.os, &platform.architecture);
        return Err(Exit::new(format!(
            "manifest entry for image has unsupported os/arch combination: {os}/{architecture}"
        )));
    }
    store(&folder, &name, &entry)
}

fn pretty(value: &Value) -> Result<String, Exit> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut writer).map_err(|e| Exit::new(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn json(value: &impl Serialize) -> Result<Value, Exit> {
    serde_json::to_value(value).map_err(|e| Exit::new(e.to_string()))
}

fn verbose(entry: &Entry) -> Result<Value, Exit> {
    let manifest: Value = serde_json::from_str(&entry.raw).map_err(|e| Exit::new(e.to_string()))?;
    let key = if entry.descriptor.media_type == media_type::MANIFEST { "OCIManifest" } else { "SchemaV2Manifest" };
    let descriptor = json(&entry.descriptor)?;
    Ok(serde_json::json!({ "Ref": entry.r#ref, "Descriptor": descriptor, key: manifest }))
}

/// `docker manifest inspect`.
pub fn inspect(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let name = reference(m.args.last().map_or("", String::as_str))?;
    let list = reference(m.first())?;
    let local = entries(&place(shell, &list))?;
    let found = match (local, m.args.len()) {
        (Some(local), 1) => local,
        (local, 2) => {
            let entry = local.unwrap_or_default().into_iter().find(|e| e.r#ref == name.to_string());
            let entry = entry.ok_or_else(|| Exit::new(format!("no such manifest: {name}")))?;
            let value = if m.bool("verbose") { verbose(&entry)? } else { raw(&entry)? };
            return shell.line(&pretty(&value)?);
        }
        _ => {
            let repository = repository(shell, &name, m.bool("insecure"), Purpose::Pull)?;
            let found = block_on(fetch(&repository, &name))?;
            if let [one] = found.as_slice()
                && one.r#ref == name.to_string()
            {
                let value = if m.bool("verbose") { verbose(one)? } else { raw(one)? };
                return shell.line(&pretty(&value)?);
            }
            found
        }
    };
    if m.bool("verbose") {
        let all = found.iter().map(verbose).collect::<Result<Vec<_>, _>>()?;
        return shell.line(&pretty(&Value::Array(all))?);
    }
    shell.line(&pretty(&json(&index(&found))?)?)
}

fn raw(entry: &Entry) -> Result<Value, Exit> {
    serde_json::from_str(&entry.raw).map_err(|e| Exit::new(e.to_string()))
}

/// The list of entries as an index: of Docker's type if all are of Docker's types.
fn index(entries: &[Entry]) -> Index {
    let docker = entries.iter().all(|e| e.descriptor.media_type == media_type::DOCKER_MANIFEST);
    Index {
        schema_version: 2,
        media_type: if docker { media_type::DOCKER_INDEX } else { media_type::INDEX }.to_owned(),
        manifests: entries.iter().map(|e| e.descriptor.clone()).collect(),
        annotations: Default::default(),
    }
}

/// `docker manifest push`.
pub fn push(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let list = reference(m.first())?;
    let folder = place(shell, &list);
    let Some(entries) = entries(&folder)?.filter(|all| !all.is_empty()) else {
        return Err(Exit::new(format!("{list} not found")));
    };
    let repository = repository(shell, &list, m.bool("insecure"), Purpose::Push)?;
    let bytes = serde_json::to_vec(&index(&entries)).map_err(|e| Exit::new(e.to_string()))?;
    let target = Descriptor::new(&index(&entries).media_type, document::digest_of(&bytes), bytes.len() as u64);
    // Manifests of other repositories come along, with their blobs mounted.
    let scratch = shell.folder().join(format!("manifests/.push-{}", std::process::id()));
    let sent = send(shell, &repository, &list, &entries, (&target, bytes), &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    sent?;
    shell.line(target.digest.as_str())?;
    if m.bool("purge") {
        std::fs::remove_dir_all(&folder).map_err(|e| failed("remove", &folder, &e))?;
    }
    Ok(())
}

fn send(
    shell: &Shell,
    repository: &Arc<Repository>,
    list: &Reference,
    entries: &[Entry],
    (target, bytes): (&Descriptor, Vec<u8>),
    scratch: &Path,
) -> Result<(), Exit> {
    let content = |e: wharf_content::ContentError| Exit::new(wharf_error::Chain(&e).to_string());
    let store = wharf_content::Store::open(scratch).map_err(content)?;
    store.put(&bytes).map_err(content)?;
    let mut shipment = Shipment { blobs: Vec::new(), documents: Vec::new(), tag: list.tag().map(str::to_owned) };
    for entry in entries {
        let from = reference(&entry.r#ref)?;
        if from.domain() != list.domain() {
            return Err(Exit::new(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                from.domain(),
                list.domain()
            )));
        }
        store.put(entry.raw.as_bytes()).map_err(content)?;
        if from.path() != list.path()
            && let Content::Manifest(manifest) =
                document::read(entry.raw.as_bytes(), &entry.descriptor).map_err(said)?
        {
            let parts = std::iter::once(manifest.config).chain(manifest.layers);
            let parcel = |descriptor| Parcel { descriptor, sources: vec![from.path().to_owned()] };
            shipment.blobs.extend(parts.map(parcel));
        }
        shipment.documents.push(Descriptor { platform: None, ..entry.descriptor.clone() });
    }
    let named: Vec<String> = shipment.documents.iter().map(|d| d.digest.to_string()).collect();
    shipment.documents.push(target.clone());
    let silent: wharf_distribution::Listener = Arc::new(|_: &Descriptor, _: Sent| {});
    block_on(async { wharf_distribution::push(repository, &store, shipment, &silent).await.map_err(said) })?;
    for digest in named {
        shell.line(&format!("Pushed ref {}@{digest} with digest: {digest}", list.name()))?;
    }
    Ok(())
}

/// `docker manifest rm`.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let mut lost = Vec::new();
    for text in &m.args {
        let list = reference(text)?;
        match std::fs::remove_dir_all(place(shell, &list)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => lost.push(format!("No such manifest: {list}")),
            Err(e) => lost.push(failed("remove", &place(shell, &list), &e).message),
        }
    }
    if lost.is_empty() { Ok(()) } else { Err(Exit::new(lost.join("\n"))) }
}
