//! What stands behind a container's mount points while it runs: volumes are taken, sub-paths and images staged. Everything
//! that is checked here is held by descriptor or by a mount of the engine's own, so nobody can put something else in its place.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use wharf_volume::{open_beneath, propagation_of};

use super::Lifecycle;
use crate::StartError;
use crate::container::ContainerRecord;
use crate::create::mounts::{Depth, Point, Source};

impl Lifecycle {
    /// Takes hold of everything that the container mounts, in the order of its points. On error nothing is held.
    pub(super) fn acquire_sources(&self, record: &ContainerRecord) -> Result<Vec<PathBuf>, StartError> {
        let each = record.points.iter().enumerate().map(|(number, point)| self.acquire_source(record, number, point));
        let sources = each.collect::<Result<Vec<_>, _>>();
        if sources.is_err() {
            self.release_sources(record);
        }
        sources
    }

    fn acquire_source(&self, record: &ContainerRecord, number: usize, point: &Point) -> Result<PathBuf, StartError> {
        let holder = record.id.as_str();
        let staging = &self.volumes.staging;
        if point.read_only && point.read_only_depth == Depth::Whole && !self.recursive_read_only {
            return Err(StartError::ReadOnly(point.target.clone()));
        }
        match &point.source {
            Source::Tmpfs { .. } => Ok(PathBuf::new()),
            Source::Bind { path, .. } => {
                check_propagation(path, &point.propagation)?;
                Ok(PathBuf::from(path))
            }
            Source::Volume { name, subpath, .. } => {
                let base = self.volumes.acquire(name, holder)?;
                if subpath.is_empty() {
                    return Ok(base);
                }
                let inner = open_beneath(&base, subpath)?;
                Ok(staging.hold(holder, number, inner.as_fd(), false)?)
            }
            Source::Image { snapshot, subpath, .. } => {
                let Some(snapshot) = snapshot else { return Err(StartError::Root(rustix::io::Errno::NOENT)) };
                let tree = self.snapshots.view(snapshot)?;
                let whole = if subpath.is_empty() { number } else { number + record.points.len() };
                // A stack of layers is a mount already; a single layer is a folder.
                let base = staging
                    .attach(holder, whole, tree.as_fd())
                    .or_else(|_| staging.hold(holder, whole, tree.as_fd(), true))?;
                if subpath.is_empty() {
                    return Ok(base);
                }
                let inner = open_beneath(&base, subpath)?;
                Ok(staging.hold(holder, number, inner.as_fd(), true)?)
            }
        }
    }

    /// Lets go of everything. Points that hold nothing cost nothing.
    pub(crate) fn release_sources(&self, record: &ContainerRecord) {
        let holder = record.id.as_str();
        let mut staged = false;
        for point in &record.points {
            match &point.source {
                Source::Volume { name, subpath, .. } => {
                    staged |= !subpath.is_empty();
                    self.volumes.release(name, holder);
                }
                Source::Image { .. } => staged = true,
                Source::Bind { .. } | Source::Tmpfs { .. } => {}
            }
        }
        if staged {
            self.volumes.staging.release(holder);
        }
    }
}

/// Refuses mounts that could not spread as asked, because what they are on does not (moby `daemon/oci_linux.go`).
fn check_propagation(path: &str, wanted: &str) -> Result<(), StartError> {
    let (shared, wanted) = match wanted {
        "shared" | "rshared" => (true, "shared"),
        "slave" | "rslave" => (false, "shared or slave"),
        _ => return Ok(()),
    };
    let have = propagation_of(Path::new(path));
    if have.shared || (!shared && have.slave) {
        return Ok(());
    }
    let mounted_on = have.mounted_on.display().to_string();
    Err(StartError::Propagation { path: path.to_owned(), mounted_on, wanted })
}
