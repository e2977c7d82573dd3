//! Volumes as clients see them.

use std::sync::Arc;

use wharf_api_types::{Filters, StringMap, Volume, VolumeList, VolumeUsage};
use wharf_plugin::volume::Described;
use wharf_types::Timestamp;

use super::{LOCAL, VolumeRecord, Volumes};
use crate::EngineError;

impl Volumes {
    /// What the record says.
    fn describe(&self, record: &VolumeRecord) -> Volume {
        let mountpoint = if record.is_local() { self.data(&record.name).display().to_string() } else { String::new() };
        Volume {
            created_at: Timestamp::from_unix(record.created.seconds(), 0).to_string(),
            driver: record.driver().to_owned(),
            labels: record.labels.clone(),
            mountpoint,
            name: record.name.clone(),
            options: record.options.clone(),
            scope: LOCAL.to_owned(),
            usage_data: None,
            status: None,
        }
    }

    /// What its plugin says beside that.
    fn with_plugin(mut volume: Volume, described: Described, scope: &str) -> Volume {
        volume.mountpoint = described.mountpoint.unwrap_or_default();
        volume.status = described.status.map(|s| serde_json::Value::Object(s.into_iter().collect()));
        volume.created_at = described.created_at.unwrap_or_default();
        scope.clone_into(&mut volume.scope);
        volume
    }

    /// Describes one, asking its plugin if it has one.
    pub(super) async fn show(self: &Arc<Self>, record: Arc<VolumeRecord>) -> Result<Volume, EngineError> {
        if record.is_local() {
            return Ok(self.describe(&record));
        }
        let this = self.clone();
        crate::blocking(move || this.show_foreign(&record)).await?
    }

    fn show_foreign(&self, record: &VolumeRecord) -> Result<Volume, EngineError> {
        let shown = self.describe(record);
        match self.described(record) {
            Ok((described, scope)) => Ok(Self::with_plugin(shown, described, scope)),
            Err(source) => Err(EngineError::VolumePlugin { operation: "get", name: record.name.clone(), source }),
        }
    }

    /// Lists, sorted by name. Blocks where plugins are asked.
    pub fn list(&self, filters: &Filters) -> Result<VolumeList, EngineError> {
        filters.check_keys(&["dangling", "name", "driver", "label"])?;
        let dangling = filters.contains("dangling").then(|| filters.bool_or("dangling", false)).transpose()?;
        let none = StringMap::new();
        let fits = |r: &VolumeRecord| {
            let named = filters.get("name").next().is_none() || filters.get("name").any(|n| r.name.contains(n));
            named
                && filters.match_exact("driver", r.driver())
                && filters.match_labels("label", r.labels.as_ref().unwrap_or(&none))
                && dangling.is_none_or(|wanted| self.users(&r.name).is_empty() == wanted)
        };
        let mut volumes: Vec<Volume> = self.all().iter().filter(|r| fits(r)).map(|r| self.describe(r)).collect();
        let (foreign, warnings) = self.foreign();
        let foreign = foreign.into_iter().filter(|(record, _)| fits(record));
        volumes.extend(foreign.map(|(r, described)| Self::with_plugin(self.describe(&r), described, LOCAL)));
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(VolumeList { volumes, warnings: Some(warnings).filter(|w| !w.is_empty()) })
    }

    /// Lists with sizes and reference counts, for `system df`. Blocks while it walks.
    pub fn disk_usage(&self) -> Vec<Volume> {
        let measured = |record: &Arc<VolumeRecord>| {
            let ref_count = self.users(&record.name).len() as i64;
            // What a plugin keeps is not on this disk, as far as anybody knows.
            let size = if record.is_local() { crate::disk::bytes_below(&self.data(&record.name)) as i64 } else { -1 };
            Volume { usage_data: Some(VolumeUsage { ref_count, size }), ..self.describe(record) }
        };
        self.all().iter().map(measured).collect()
    }

    /// Shows one. Blocks where plugins are asked.
    pub fn inspect(&self, name: &str) -> Result<Volume, EngineError> {
        if let Some(record) = self.get(name) {
            return if record.is_local() { Ok(self.describe(&record)) } else { self.show_foreign(&record) };
        }
        let (foreign, _) = self.foreign();
        let found = foreign.into_iter().find(|(record, _)| record.name == name);
        found.map_or_else(|| Err(EngineError::NoVolume(name.to_owned())), |(record, _)| self.show_foreign(&record))
    }
}
