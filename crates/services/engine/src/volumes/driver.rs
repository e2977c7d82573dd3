//! Volumes that a plugin keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_plugin::volume::{CAPABILITY, Described, Driver};
use wharf_plugin::{Plugin, PluginError};

use super::{VolumeRecord, Volumes};
use crate::EngineError;
use crate::create::mounts::MountError;

/// How long a plugin that does not answer may hold up a list of all volumes.
const LISTING: Duration = Duration::from_secs(1);

/// What a plugin's answer is in the words of Docker's volume service.
fn failed(operation: &'static str, name: &str, source: PluginError) -> EngineError {
    EngineError::VolumePlugin { operation, name: name.to_owned(), source }
}

impl Volumes {
    /// Finds a driver's plugin.
    pub(super) fn plugin(&self, name: &str, driver: &str) -> Result<Arc<Plugin>, EngineError> {
        self.plugins.get(driver, CAPABILITY).map_err(|source| match source {
            PluginError::NotFound(_) => MountError::Driver { name: name.to_owned(), driver: driver.to_owned() }.into(),
            source => failed("create", name, source),
        })
    }

    pub(super) fn make_by_plugin(&self, record: &VolumeRecord) -> Result<(), EngineError> {
        let plugin = self.plugin(&record.name, &record.driver)?;
        let none = BTreeMap::new();
        let options = record.options.as_ref().unwrap_or(&none);
        Driver(&plugin).create(&record.name, options).map_err(|e| failed("create", &record.name, e))
    }

    pub(super) fn remove_by_plugin(&self, record: &VolumeRecord) -> Result<(), EngineError> {
        let plugin = self.plugins.get(&record.driver, CAPABILITY);
        let removed = plugin.and_then(|p| Driver(&p).remove(&record.name));
        removed.map_err(|e| failed("remove", &record.name, e))
    }

    /// Refuses a request that names another driver than the volume has.
    pub(crate) fn check_driver(&self, have: &VolumeRecord, wanted: &str) -> Result<(), EngineError> {
        if wanted.is_empty() || wanted == have.driver() {
            return Ok(());
        }
        if wanted != super::LOCAL {
            crate::in_place(|| self.plugin(&have.name, wanted))?;
        }
        Err(EngineError::VolumeName(have.name.clone()))
    }

    /// What a plugin tells of a volume now.
    pub(super) fn described(&self, record: &VolumeRecord) -> Result<(Described, &'static str), PluginError> {
        let plugin = self.plugins.get_within(&record.driver, CAPABILITY, LISTING)?;
        let driver = Driver(&plugin);
        Ok((driver.get(&record.name)?, driver.scope()))
    }

    /// Volumes that plugins keep and that nobody made through this engine.
    pub(super) fn foreign(&self) -> (Vec<(VolumeRecord, Described)>, Vec<String>) {
        let (mut found, mut warnings) = (Vec::new(), Vec::new());
        for name in self.plugins.names() {
            let plugin = match self.plugins.get_within(&name, CAPABILITY, LISTING) {
                Ok(plugin) => plugin,
                // Another kind of plugin.
                Err(PluginError::Capability { .. }) => continue,
                Err(e) => {
                    warnings.push(wharf_error::Chain(&e).to_string());
                    continue;
                }
            };
            match Driver(&plugin).list() {
                Ok(list) => {
                    let unknown = list.into_iter().filter(|v| !v.name.is_empty() && self.get(&v.name).is_none());
                    found.extend(unknown.map(|described| {
                        let record = VolumeRecord {
                            name: described.name.clone(),
                            created: wharf_types::Timestamp::default(),
                            labels: None,
                            options: None,
                            driver: name.clone(),
                        };
                        (record, described)
                    }));
                }
                Err(e) => warnings.push(wharf_error::Chain(&e).to_string()),
            }
        }
        (found, warnings)
    }
}
