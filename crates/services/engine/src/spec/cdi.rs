//! Devices named by CDI (`vendor/class=name`, Container Device Interface 0.8): the files that describe them are read at
//! each start, and what they say is added to the container. Files in JSON; those in YAML are not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wharf_api_types::DeviceRequest;
use wharf_oci::runtime::{Hook, Hooks, Mount, Spec};

use super::SpecError;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<NamedHook>,
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    r#type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamedHook {
    hook_name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// Files that several requests name are read once.
type Known = BTreeMap<String, File>;

/// Reads all descriptions; a folder later in the list takes precedence, as in the specification.
fn read(folders: &[PathBuf]) -> Known {
    let mut known = Known::new();
    for folder in folders {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
            match std::fs::read(path).map_err(|e| e.to_string()).and_then(|b| parse(&b)) {
                Ok(file) => {
                    let entry = known.entry(file.kind.clone()).or_default();
                    entry.kind = file.kind;
                    entry.container_edits = file.container_edits;
                    entry.devices.retain(|d| !file.devices.iter().any(|new| new.name == d.name));
                    entry.devices.extend(file.devices);
                }
                Err(error) => tracing::warn!(path = %path.display(), error, "cannot read a CDI specification"),
            }
        }
    }
    known
}

fn parse(bytes: &[u8]) -> Result<File, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// The devices that requests name by CDI; a request for GPUs means NVIDIA's or AMD's, where they are described. `None`
/// for a request that is none of CDI's.
fn names(request: &DeviceRequest, known: &Known) -> Option<Vec<String>> {
    let ids = request.device_ids.clone().unwrap_or_default();
    if request.driver == "cdi" {
        return Some(ids);
    }
    let gpu = request.capabilities.iter().flatten().any(|all| all.iter().any(|c| c == "gpu"));
    let kind = ["nvidia.com/gpu", "amd.com/gpu"].into_iter().find(|kind| known.contains_key(*kind))?;
    if !gpu || !matches!(request.driver.as_str(), "" | "nvidia" | "amd") {
        return None;
    }
    let wanted = match (ids.is_empty(), request.count) {
        (false, _) => ids,
        (true, ..0) => vec!["all".to_owned()],
        (true, count) => (0..count).map(|n| n.to_string()).collect(),
    };
    Some(wanted.into_iter().map(|id| format!("{kind}={id}")).collect())
}

/// Adds what requests name to a container's configuration.
pub(super) fn inject(requests: &[DeviceRequest], folders: &[PathBuf], spec: &mut Spec) -> Result<(), SpecError> {
    if requests.is_empty() {
        return Ok(());
    }
    let known = read(folders);
    let (mut edits, mut missing, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for request in requests {
        let Some(names) = names(request, &known) else {
            return Err(SpecError::DeviceDriver {
                driver: request.driver.clone(),
                capabilities: request.capabilities.clone().unwrap_or_default(),
            });
        };
        for name in names {
            let found = name.split_once('=').and_then(|(kind, device)| {
                let file = known.get(kind)?;
                Some((file, file.devices.iter().find(|d| d.name == device)?))
            });
            let Some((file, device)) = found else {
                missing.push(name);
                continue;
            };
            // What all devices of a kind need is added once, after the first.
            edits.push(&device.container_edits);
            if !kinds.contains(&&file.kind) {
                kinds.push(&file.kind);
                edits.push(&file.container_edits);
            }
        }
    }
    if !missing.is_empty() {
        return Err(SpecError::CdiDevices(missing.join(", ")));
    }
    edits.into_iter().try_for_each(|edit| apply(edit, spec))
}

fn apply(edits: &Edits, spec: &mut Spec) -> Result<(), SpecError> {
    if let Some(process) = &mut spec.process {
        for entry in &edits.env {
            let name = entry.split('=').next().unwrap_or_default();
            process.env.retain(|have| have.split('=').next() != Some(name));
            process.env.push(entry.clone());
        }
        process.user.additional_gids.extend(&edits.additional_gids);
    }
    for node in &edits.device_nodes {
        let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        let permissions = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        let device = super::devices::node(Path::new(host), PathBuf::from(&node.path))
            .ok_or_else(|| SpecError::NotADevice(host.clone()))?;
        let Some(linux) = &mut spec.linux else { continue };
        let limits = linux.resources.get_or_insert_default();
        limits.devices.push(super::devices::allow(&device, permissions));
        linux.devices.retain(|d| d.path != device.path);
        linux.devices.push(device);
    }
    for bind in &edits.mounts {
        let kind = if bind.r#type.is_empty() { "bind" } else { &bind.r#type };
        let options = if bind.options.is_empty() { vec!["rbind".to_owned()] } else { bind.options.clone() };
        spec.mounts.retain(|m| m.destination != bind.container_path);
        spec.mounts.push(Mount {
            destination: bind.container_path.clone(),
            kind: Some(kind.to_owned()),
            source: Some(bind.host_path.clone()),
            options,
            ..Mount::default()
        });
    }
    for named in &edits.hooks {
        let hook =
            Hook { path: named.path.clone(), args: named.args.clone(), env: named.env.clone(), timeout: named.timeout };
        let hooks = spec.hooks.get_or_insert_with(Hooks::default);
        match named.hook_name.as_str() {
            "prestart" => hooks.prestart.push(hook),
            "createRuntime" => hooks.create_runtime.push(hook),
            "createContainer" => hooks.create_container.push(hook),
            "startContainer" => hooks.start_container.push(hook),
            "poststart" => hooks.poststart.push(hook),
            "poststop" => hooks.poststop.push(hook),
            other => return Err(SpecError::CdiDevices(format!("unknown hook {other:?}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_those_that_are_described_and_nothing_else_is_one() {
        let mut known = Known::new();
        let all =
            DeviceRequest { count: -1, capabilities: Some(vec![vec!["gpu".to_owned()]]), ..DeviceRequest::default() };
        assert_eq!(names(&all, &known), None);
        known.insert("nvidia.com/gpu".to_owned(), File::default());
        assert_eq!(names(&all, &known), Some(vec!["nvidia.com/gpu=all".to_owned()]));
        let two = DeviceRequest { count: 2, ..all.clone() };
        assert_eq!(names(&two, &known).map(|n| n.join(" ")).as_deref(), Some("nvidia.com/gpu=0 nvidia.com/gpu=1"));
        let named = DeviceRequest { device_ids: Some(vec!["7".to_owned()]), count: 0, ..all.clone() };
        assert_eq!(names(&named, &known), Some(vec!["nvidia.com/gpu=7".to_owned()]));
        assert_eq!(names(&DeviceRequest { driver: "other".to_owned(), ..all }, &known), None);
    }
}
