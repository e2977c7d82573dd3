//! Which container holds which volume, and mounting what is behind it for the first and unmounting after the last.
//!
//! A plain folder needs none of this and costs nothing. The holders are not stored: after a crash they follow from the
//! containers that run ([`Volumes::adopt`]), and what is mounted for nobody is unmounted ([`Volumes::settle`]).

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use wharf_error::{HasKind, Kind};
use wharf_plugin::PluginError;
use wharf_plugin::volume::{CAPABILITY, Driver};
use wharf_volume::{VolumeError, is_mount_point, unmount_all};

use super::{Fresh, VolumeRecord, Volumes};

/// A volume that cannot be used. Docker's words around them (moby `volume/mounts`, `MountPoint.Setup`).
#[derive(Debug, thiserror::Error)]
#[error("error while mounting volume '{place}': {reason}")]
pub struct VolumeUseError {
    place: String,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Local(VolumeError),
    #[error("{}", wharf_error::Chain(.0))]
    Plugin(PluginError),
}

impl HasKind for VolumeUseError {
    fn kind(&self) -> Kind {
        match &self.reason {
            Reason::Local(e) => e.kind(),
            Reason::Plugin(e) => e.kind(),
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    by: BTreeSet<String>,
    /// Where a plugin mounted it.
    place: PathBuf,
}

/// Holders by volume. Each volume has a lock of its own, because a network file system may take minutes to mount.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<HashMap<String, Arc<Mutex<Held>>>>);

impl Holders {
    fn of(&self, volume: &str) -> Arc<Mutex<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(volume.to_owned()).or_default().clone()
    }
}

impl Volumes {
    fn trouble(&self, record: &VolumeRecord, reason: Reason) -> VolumeUseError {
        let place = if record.is_local() { self.data(&record.name).display().to_string() } else { String::new() };
        VolumeUseError { place, reason }
    }

    /// Whether a container has to hold the volume while it uses it.
    fn is_plain(&self, record: &VolumeRecord) -> bool {
        record.is_local() && (record.options.is_none() || !record.local().needs_mount())
    }

    /// Makes a volume's content available to a holder and tells where it is. Blocks.
    pub(crate) fn acquire(&self, name: &str, holder: &str) -> Result<PathBuf, VolumeUseError> {
        let data = self.data(name);
        let Some(record) = self.get(name) else { return Ok(data) };
        if self.is_plain(&record) {
            return Ok(data);
        }
        let held = self.holders.of(name);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if record.is_local() {
            if !is_mount_point(&data) {
                let mounted = record.local().mount(&self.folder.join(name));
                mounted.map_err(|e| self.trouble(&record, Reason::Local(e)))?;
            }
            held.place = data;
        } else if !held.by.contains(holder) || held.place.as_os_str().is_empty() {
            let plugin = self.plugins.get(&record.driver, CAPABILITY);
            let place = plugin.and_then(|p| Driver(&p).mount(name, holder));
            held.place = place.map_err(|e| self.trouble(&record, Reason::Plugin(e)))?.into();
        }
        held.by.insert(holder.to_owned());
        Ok(held.place.clone())
    }

    /// Ends a holder's use. Trouble is logged: whoever held it is gone.
    pub(crate) fn release(&self, name: &str, holder: &str) {
        let Some(record) = self.get(name).filter(|r| !self.is_plain(r)) else { return };
        let held = self.holders.of(name);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.by.remove(holder) {
            return;
        }
        if record.is_local() {
            if held.by.is_empty() {
                unmount_all(&self.data(name));
            }
            return;
        }
        let plugin = self.plugins.get(&record.driver, CAPABILITY);
        if let Err(error) = plugin.and_then(|p| Driver(&p).unmount(name, holder)) {
            tracing::warn!(volume = name, error = %wharf_error::Chain(&error), "the plugin cannot unmount");
        }
    }

    /// Uses a volume that is not placed yet. Blocks.
    pub(crate) fn acquire_fresh(&self, fresh: &Fresh, holder: &str) -> Result<PathBuf, VolumeUseError> {
        let trouble = |reason| self.trouble(&fresh.record, reason);
        match &fresh.path {
            Some(path) => {
                fresh.record.local().mount(path).map_err(|e| trouble(Reason::Local(e)))?;
                Ok(path.join("_data"))
            }
            None => {
                let plugin = self.plugins.get(&fresh.record.driver, CAPABILITY);
                let place = plugin.and_then(|p| Driver(&p).mount(&fresh.record.name, holder));
                place.map(PathBuf::from).map_err(|e| trouble(Reason::Plugin(e)))
            }
        }
    }

    /// Ends that use.
    pub(crate) fn release_fresh(&self, fresh: &Fresh, holder: &str) {
        match &fresh.path {
            Some(path) if fresh.record.local().needs_mount() => unmount_all(&path.join("_data")),
            Some(_) => {}
            None => {
                let plugin = self.plugins.get(&fresh.record.driver, CAPABILITY);
                if let Err(error) = plugin.and_then(|p| Driver(&p).unmount(&fresh.record.name, holder)) {
                    tracing::warn!(volume = fresh.record.name, %error, "the plugin cannot unmount");
                }
            }
        }
    }

    /// Notes that a container which an earlier engine started holds a volume. Mounts nothing.
    pub(crate) fn adopt(&self, name: &str, holder: &str) {
        if self.get(name).is_some_and(|r| !self.is_plain(&r)) {
            let held = self.holders.of(name);
            held.lock().unwrap_or_else(PoisonError::into_inner).by.insert(holder.to_owned());
        }
    }

    /// Unmounts what is mounted for nobody, after all running containers were adopted.
    pub(crate) fn settle(&self, running: &BTreeSet<String>) {
        for record in self.all() {
            let data = self.data(&record.name);
            if !record.is_local() || self.is_plain(&record) || !is_mount_point(&data) {
                continue;
            }
            let held = self.holders.of(&record.name);
            if held.lock().unwrap_or_else(PoisonError::into_inner).by.is_empty() {
                tracing::info!(volume = record.name, "unmounting a volume that nobody uses");
                unmount_all(&data);
            }
        }
        for holder in self.staging.holders().iter().filter(|h| !running.contains(*h)) {
            self.staging.release(holder);
        }
    }
}
