//! Rename, update and prune: changes of containers that stay what they are.

use std::sync::Arc;

use wharf_api_types::{ContainerPruneResponse, ContainerUpdateRequest, ContainerUpdateResponse, Filters, StringMap};
use wharf_fault::point;
use wharf_snapshot::Snapshotter;
use wharf_types::Timestamp;

use crate::container::{Records, Registry, Status};
use crate::create::{CreateError, Host, validate};
use crate::creator::tell;
use crate::events::{Events, Subject};
use crate::lifecycle::{Lifecycle, RemoveOptions, current_record};
use crate::{EngineError, StartError, names, spec};

/// Changes containers.
pub struct Changes {
    pub(crate) host: Host,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) events: Arc<Events>,
    pub(crate) pruning: tokio::sync::Mutex<()>,
}

impl Changes {
    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let new = new_name.strip_prefix('/').unwrap_or(new_name);
        if name.is_empty() || new_name.is_empty() {
            return Err(EngineError::RenameEmpty);
        }
        let _guard = container.lock.lock().await;
        let view = container.view();
        let old = view.record.name.clone();
        if old == new {
            return Err(EngineError::RenameSame);
        }
        let refused = |e: EngineError| EngineError::RenameName(Box::new(e));
        if !names::is_valid(new) {
            return Err(refused(CreateError::Name(format!("/{new}")).into()));
        }
        self.registry.reserve(new, &container.id).map_err(|e| refused(e.into()))?;
        let mut record = current_record(&view);
        new.clone_into(&mut record.name);
        if let Err(e) = self.records.replace(&record, Some(&old)).await {
            self.registry.release(new, &container.id);
            return Err(e);
        }
        point("rename.after-commit");
        self.registry.release(&old, &container.id);
        let view = container.publish(|v| v.record = Arc::new(record));
        self.lifecycle.rename(&view);
        tell(&self.events, &view.record, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Changes limits and restart policy.
    pub async fn update(
        &self,
        name: &str,
        request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse, EngineError> {
        let container = self.registry.find(name)?;
        let _guard = container.lock.lock().await;
        let view = container.view();
        if view.removed || view.state.status == Status::Removing {
            return Err(EngineError::Update {
                id: container.id.to_string(),
                reason: "container is marked for removal and cannot be \"update\"".to_owned(),
            });
        }
        if !request.restart_policy.name.is_empty() {
            validate::restart_policy(&request.restart_policy)?;
            if view.record.host.auto_remove && request.restart_policy.name != "no" {
                return Err(EngineError::UpdateAutoRemove);
            }
        }
        let mut host = spec::of_update(&view.record.host, &request);
        let mut warnings = Vec::new();
        validate::resources(&mut host, &self.host, &mut warnings)?;
        if let Some(task) = &view.task {
            let resources = spec::linux_resources(&host).map_err(StartError::from)?;
            let json = serde_json::to_vec(&resources).unwrap_or_default();
            task.shim.update(json).await.map_err(|e| EngineError::Update {
                id: container.id.to_string(),
                reason: wharf_error::Chain(&e).to_string(),
            })?;
        }
        point("update.after-limits");
        let mut record = current_record(&view);
        record.host = host;
        self.records.replace(&record, None).await?;
        point("update.after-commit");
        let view = container.publish(|v| v.record = Arc::new(record));
        tell(&self.events, &view.record, "update", &[]);
        Ok(ContainerUpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }

    /// Removes all containers that do not run and match.
    pub async fn prune(&self, filters: &Filters) -> Result<ContainerPruneResponse, EngineError> {
        filters.check_keys(&["label", "label!", "until"])?;
        let until = filters.get("until").next().map(until).transpose()?;
        let _pruning = self.pruning.try_lock().map_err(|_| EngineError::PruneRunning)?;
        let none = StringMap::new();
        let mut done = ContainerPruneResponse::default();
        for container in self.registry.all() {
            let view = container.view();
            let labels = view.record.config.labels.as_ref().unwrap_or(&none);
            let unwanted = filters.contains("label!") && filters.match_labels("label!", labels);
            let resting = matches!(view.state.status, Status::Created | Status::Exited | Status::Dead);
            let young = until.is_some_and(|t| view.record.created > t);
            if !resting || unwanted || young || !filters.match_labels("label", labels) {
                continue;
            }
            let (snapshots, snapshot) = (self.snapshots.clone(), view.record.snapshot.clone());
            let size = crate::blocking(move || snapshots.usage(&snapshot).map_or(0, |u| u.bytes)).await?;
            match self.lifecycle.remove(container.id.as_str(), RemoveOptions::default()).await {
                Ok(()) => {
                    done.space_reclaimed += size;
                    done.containers_deleted.get_or_insert_default().push(container.id.to_string());
                }
                Err(error) => tracing::warn!(container = %container.id, %error, "cannot prune"),
            }
        }
        let attributes = [("reclaimed".to_owned(), done.space_reclaimed.to_string())].into();
        self.events.publish(Subject::Container, "prune", "", attributes);
        Ok(done)
    }
}

/// Reads `until`: a time, seconds since the epoch, or a duration before now (`10m`, `1h30m`).
///
/// # Errors
/// [`EngineError::FilterValue`].
pub fn until(text: &str) -> Result<Timestamp, EngineError> {
    if let Ok(time) = Timestamp::parse(text) {
        return Ok(time);
    }
    if let Some(seconds) = text.split('.').next().and_then(|s| s.parse::<i64>().ok()) {
        return Ok(Timestamp::from_unix(seconds, 0));
    }
    let wrong = || EngineError::FilterValue {
        key: "until",
        value: text.to_owned(),
        reason: format!("time: invalid duration {text:?}"),
    };
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        seconds += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_end..];
    }
    Ok(Timestamp::from_unix(Timestamp::now().seconds() - seconds as i64, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_takes_times_and_durations() {
        let now = Timestamp::now().seconds();
        assert!((until("1h30m").expect("duration").seconds() - (now - 5400)).abs() <= 1);
        assert_eq!(until("100").expect("seconds").seconds(), 100);
        assert_eq!(until("1970-01-01T00:01:00Z").expect("time").seconds(), 60);
        for text in ["x", "1q", "h", "1"] {
            assert_eq!(until(text).is_ok(), text == "1", "{text}");
        }
    }
}
