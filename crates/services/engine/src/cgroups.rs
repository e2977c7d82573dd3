//! Containers' cgroups, where no shim is left to remove them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::EngineConfig;

/// How long the remains of a container may take to go.
pub(crate) const CLEARING: Duration = Duration::from_secs(5);

/// The path of a container's cgroup below the hierarchies. `own_parent` is its `--cgroup-parent`, empty for the daemon's.
pub(crate) fn path(config: &EngineConfig, own_parent: &str, id: &str) -> String {
    let parent = if own_parent.is_empty() { config.cgroup_parent.as_str() } else { own_parent };
    format!("/{}/{id}", parent.trim_matches('/'))
}

/// Kills what is in a cgroup and removes it.
pub(crate) fn clear(path: &str) {
    let cleared = wharf_cgroup::Layout::detect().and_then(|layout| {
        let group = wharf_cgroup::Cgroup::open(&layout, path)?;
        group.kill_all()?;
        group.delete(Instant::now() + CLEARING)
    });
    if let Err(error) = cleared {
        tracing::debug!(cgroup = path, %error, "no cgroup to clear");
    }
}

/// The daemon's parent of containers' cgroups, in each hierarchy.
pub(crate) fn parents(config: &EngineConfig) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let parent = config.cgroup_parent.trim_matches('/');
    let Ok(mounts) = std::fs::read_dir(root) else { return Vec::new() };
    mounts.flatten().map(|e| e.path().join(parent)).chain([root.join(parent)]).collect()
}

/// Removes the empty parent of our containers' cgroups, in every hierarchy.
pub(crate) fn remove_parent(config: &EngineConfig) {
    let parent = config.cgroup_parent.trim_matches('/');
    // A slice belongs to systemd.
    if parent.is_empty() || parent.ends_with(".slice") {
        return;
    }
    for folder in parents(config) {
        // One with children or processes refuses, and stays.
        let _ = std::fs::remove_dir(folder);
    }
}
