//! Reconciling at start, which is the same after a clean stop, a kill or a power cut: records are compared with what
//! is there, shims are adopted, and what no record owns is taken away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_network::Endpoint;
use wharf_oci::runtime::Spec;
use wharf_snapshot::Snapshotter;
use wharf_task::{Adopted, Exit, RecordKind, Shim, Shims};
use wharf_types::{ContainerId, Signal};

use crate::EngineError;
use crate::cgroups::{self, CLEARING};
use crate::config::{EngineConfig, SHOWN};
use crate::container::{Container, ContainerRecord, Records, Registry, Sandbox, Status, Task, View};
use crate::lifecycle::{Lifecycle, SANDBOX_FILE};

/// What was found of one container.
pub(crate) struct Found {
    view: View,
    alive: Option<Alive>,
    /// The container ended while no engine watched: policies and `--rm` act on it.
    missed: Option<Exit>,
}

struct Alive {
    shim: Shim,
    pid: u32,
    ended: bool,
}

/// All that was found.
pub(crate) struct Inventory {
    pub(crate) found: Vec<Found>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// The sandbox of a running container, without endpoints that its record does not name: a connect that was not
/// committed, or a disconnect that was. Their links are swept.
fn sandbox_of(folder: &Path, record: &ContainerRecord) -> Option<Sandbox> {
    let mut sandbox: Sandbox = serde_json::from_slice(&std::fs::read(folder.join(SANDBOX_FILE)).ok()?).ok()?;
    let names = record.network_names();
    sandbox.endpoints.retain(|name, _| names.contains(name));
    Some(sandbox)
}

fn spec_of(folder: &Path) -> Option<Spec> {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()
}

/// Reads the records, adopts shims, and clears what no record owns: layers, container folders, tasks, cgroups.
pub(crate) async fn take_stock(
    config: &EngineConfig,
    stored: &Records,
    snapshots: &Arc<dyn Snapshotter>,
    images: &wharf_image::Images,
    kept: &wharf_snapshot::Kept,
    shims: &Shims,
) -> Result<Inventory, EngineError> {
    let records = stored.all()?;
    let mut known: HashSet<u64> = images.snapshot_numbers();
    // Below a container's own layer is its image's init layer, which no other record names.
    let layers = records.values().flat_map(|r| r.snapshot.lowers.iter().chain([&r.snapshot.number]));
    known.extend(layers);
    known.extend(kept.numbers());
    let strays = snapshots.reconcile(&known)?;
    if !strays.is_empty() {
        tracing::info!(layers = strays.len(), "moved layers that nothing owns to the trash");
    }
    clear_folders(config, &records)?;
    crate::steps::clear_all(&config.exec_root.join("steps"));
    let mut tasks: HashSet<ContainerId> = shims.list()?.into_iter().collect();
    let mut inventory = Inventory { found: Vec::new(), endpoints: Vec::new() };
    for record in records.into_values() {
        let has_task = tasks.remove(&record.id);
        let folder = shims.folder(&record.id);
        let mut found = Found { view: View::resting(record), alive: None, missed: None };
        if has_task {
            adopt(config, shims, &mut found).await?;
        }
        if found.alive.is_some() {
            let sandbox = sandbox_of(&folder, &found.view.record);
            inventory.endpoints.extend(sandbox.iter().flat_map(|s| s.endpoints.values().cloned()));
            found.view.sandbox = sandbox.map(Arc::new);
        }
        inventory.found.push(found);
    }
    for id in tasks {
        tracing::info!(container = %id, "ending a task whose container is gone");
        if let Adopted::Alive { shim, .. } = shims.adopt(&id).await? {
            end(&shim).await;
        }
        cgroups::clear(&cgroups::path(config, "", id.as_str()));
        shims.remove(&id)?;
    }
    clear_cgroups(config, &inventory);
    clear_links(config);
    Ok(inventory)
}

/// Ends a shim and everything in its container.
async fn end(shim: &Shim) {
    let _ = shim.kill(None, Signal::KILL, true).await;
    // A process that was never started has no end to wait for.
    let _ = tokio::time::timeout(CLEARING, shim.wait(None)).await;
    let _ = shim.delete(None).await;
    if shim.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(CLEARING, shim.gone()).await;
    }
}

async fn adopt(config: &EngineConfig, shims: &Shims, found: &mut Found) -> Result<(), EngineError> {
    let id = found.view.record.id.clone();
    let cgroup = cgroups::path(config, &found.view.record.host.cgroup_parent, id.as_str());
    match shims.adopt(&id).await? {
        Adopted::Alive { shim, pid, started: Some(started), exit } => {
            let state = &mut found.view.state;
            state.status = Status::Running;
            state.started_at = started;
            state.error.clear();
            state.exit_code = 0;
            found.alive = Some(Alive { shim, pid, ended: exit.is_some() });
        }
        Adopted::Alive { shim, .. } => {
            tracing::info!(container = %id, "undoing a start that was interrupted");
            end(&shim).await;
            cgroups::clear(&cgroup);
            shims.remove(&id)?;
        }
        Adopted::Exited(exit) => found.missed = Some(exit),
        Adopted::Lost { records, same_boot } => {
            let ran = records.iter().rev().find(|r| r.kind == RecordKind::Started && r.exec.is_empty());
            let Some(ran) = ran else {
                shims.remove(&id)?;
                return Ok(());
            };
            found.view.state.started_at = ran.at;
            if same_boot {
                cgroups::clear(&cgroup);
            }
            found.missed = Some(Exit { status: 255, at: wharf_types::Timestamp::now(), oom: false });
        }
    }
    if let Some(exit) = &found.missed {
        let state = &mut found.view.state;
        // The exit that the store knows already is no news.
        if state.finished_at == exit.at {
            found.missed = None;
        } else {
            if state.started_at.is_zero() {
                state.started_at = exit.at;
            }
            state.status = Status::Exited;
            state.exit_code = i64::from(exit.status);
            state.finished_at = exit.at;
            state.oom_killed = exit.oom;
        }
        cgroups::clear(&cgroup);
    }
    Ok(())
}

/// Removes folders of containers that no record owns.
fn clear_folders(config: &EngineConfig, records: &BTreeMap<String, ContainerRecord>) -> Result<(), EngineError> {
    let folder = config.data_root.join("containers");
    let entries = std::fs::read_dir(&folder).map_err(|source| EngineError::File {
        operation: "read",
        path: folder.clone(),
        source,
    })?;
    let shown = std::fs::read_dir(config.exec_root.join(SHOWN)).into_iter().flatten();
    for entry in entries.chain(shown).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ContainerId::parse(&name).is_ok() && !records.contains_key(&name) {
            tracing::info!(container = name, "removing the folder of a container that does not exist");
            std::fs::remove_dir_all(entry.path()).map_err(|source| EngineError::File {
                operation: "remove",
                path: entry.path(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Removes links to network namespaces whose shim is gone.
fn clear_links(config: &EngineConfig) {
    let links = config.exec_root.join("netns");
    for entry in std::fs::read_dir(links).into_iter().flatten().flatten() {
        // A link whose shim is gone leads nowhere.
        if !entry.path().exists() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Clears cgroups below our parent that carry a container's id and that no running container owns.
fn clear_cgroups(config: &EngineConfig, inventory: &Inventory) {
    let running: HashSet<&str> =
        inventory.found.iter().filter(|f| f.alive.is_some()).map(|f| f.view.record.id.as_str()).collect();
    let mut strays = HashSet::new();
    for folder in cgroups::parents(config) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ContainerId::parse(&name).is_ok() && !running.contains(name.as_str()) {
                strays.insert(name);
            }
        }
    }
    strays.iter().for_each(|id| cgroups::clear(&cgroups::path(config, "", id)));
}

/// A commit that was killed left the container paused.
async fn unpause_after_commit(folder: &Path, view: &mut View, shim: &Shim) {
    let mark = folder.join(crate::images::PAUSE_MARK);
    if !mark.exists() {
        return;
    }
    match shim.resume().await {
        Ok(()) => view.state.status = Status::Running,
        Err(error) => tracing::warn!(container = %view.record.id, %error, "cannot unpause after a commit"),
    }
    // What cannot be removed now goes with the folder.
    drop(std::fs::remove_file(mark));
}

/// Puts what was found into the registry, follows what runs, and lets policies act on what ended meanwhile.
pub(crate) async fn resume(
    lifecycle: &Arc<Lifecycle>,
    registry: &Registry,
    shims: &Shims,
    inventory: Inventory,
) -> Result<(), EngineError> {
    let mut later: HashMap<String, (Arc<Container>, Option<Exit>)> = HashMap::new();
    let mut ending = Vec::new();
    let mut running = std::collections::BTreeSet::new();
    for found in inventory.found {
        let Found { mut view, alive, missed } = found;
        let ended = alive.as_ref().is_some_and(|alive| alive.ended);
        if let Some(alive) = &alive {
            let folder = shims.folder(&view.record.id);
            let process = spec_of(&folder).and_then(|s| s.process).unwrap_or_default();
            let run = lifecycle.runs.fetch_add(1, Ordering::Relaxed);
            view.task = Some(Task { shim: alive.shim.clone(), pid: alive.pid, run, process: Arc::new(process) });
            if !alive.ended && alive.shim.state(None).await.is_ok_and(|s| s.status == wharf_task::Status::Paused) {
                view.state.status = Status::Paused;
                unpause_after_commit(&folder, &mut view, &alive.shim).await;
            }
        }
        let name = view.record.name.clone();
        let container = Arc::new(Container::new(view));
        registry.reserve(&name, &container.id)?;
        registry.add(container.clone());
        match container.view().task.clone() {
            Some(task) => {
                lifecycle.adopt_names(&container.view());
                running.insert(container.id.to_string());
                container.view().record.volumes().for_each(|v| lifecycle.volumes.adopt(v, container.id.as_str()));
                if ended {
                    ending.push((container.clone(), task.run));
                }
                lifecycle.forwarders.adopt(&lifecycle.config, &container.view().record, true);
                lifecycle.watch_health(&container, &task);
                lifecycle.watch_end(container, task);
            }
            None => {
                later.insert(container.id.to_string(), (container, missed));
            }
        }
    }
    lifecycle.volumes.settle(&running);
    for (container, missed) in later.into_values() {
        lifecycle.forwarders.adopt(&lifecycle.config, &container.view().record, false);
        lifecycle.catch_up(&container, missed).await;
    }
    // What had ended before this engine looked is settled before clients may ask.
    for (container, run) in ending {
        let mut watch = container.watch();
        let settled = watch.wait_for(|v| v.removed || v.task.as_ref().is_none_or(|task| task.run != run));
        if tokio::time::timeout(CLEARING, settled).await.is_err() {
            tracing::warn!(container = %container.id, "its end is settled later");
        }
    }
    Ok(())
}
