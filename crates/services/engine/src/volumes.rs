//! Local volumes: folders under the data root, with a record each.
//!
//! ```text
//! <data-root>/volumes/<name>/_data        the content          <data-root>/volumes/.new-<name>/   being made or removed
//! ```
//!
//! A volume is made beside its place, recorded, and then renamed; it is removed the other way round. What a crash leaves
//! beside its place is put there if it has a record, and deleted if it has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use wharf_api_types::{Filters, StringMap, Volume, VolumeCreateRequest, VolumeList, VolumePruneResponse, VolumeUsage};
use wharf_fault::point;
use wharf_metadata::{Batch, Record, Store, Table};
use wharf_types::Timestamp;

use crate::EngineError;
use crate::container::Registry;
use crate::create::mounts::{MountError, check_volume_name};
use crate::events::{Events, Subject};

/// The label by which Docker marks volumes that nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What the store keeps of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels; absent and empty are different for clients.
    pub labels: Option<StringMap>,
    /// Driver options.
    pub options: Option<StringMap>,
}

impl Record for VolumeRecord {
    const TABLE: Table = Table::Volumes;
    const VERSION: u32 = 1;
}

/// All volumes of one engine.
pub struct Volumes {
    folder: PathBuf,
    store: Arc<Store>,
    events: Arc<Events>,
    registry: Arc<Registry>,
    known: RwLock<BTreeMap<String, Arc<VolumeRecord>>>,
    /// Held while named volumes are made or removed, from the look at what there is to the commit.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// A volume that is made and not yet committed.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) record: VolumeRecord,
    path: PathBuf,
}

impl Fresh {
    /// Where its content is until it is placed.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("_data")
    }
}

fn file(operation: &'static str, path: &Path, source: std::io::Error) -> EngineError {
    EngineError::File { operation, path: path.to_owned(), source }
}

impl Volumes {
    /// Reads the records and finishes or removes what a crash left.
    pub fn open(
        data_root: &Path,
        store: Arc<Store>,
        events: Arc<Events>,
        registry: Arc<Registry>,
    ) -> Result<Volumes, EngineError> {
        let folder = data_root.join("volumes");
        std::fs::create_dir_all(&folder).map_err(|e| file("mkdir", &folder, e))?;
        let records = store.view()?.all::<VolumeRecord>()?;
        let known: BTreeMap<_, _> = records.into_iter().map(|(name, r)| (name, Arc::new(r))).collect();
        let entries = std::fs::read_dir(&folder).map_err(|e| file("read", &folder, e))?;
        for entry in entries.flatten() {
            let text = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = text.strip_prefix(".new-") else { continue };
            let place = folder.join(name);
            if known.contains_key(name) && !place.exists() {
                std::fs::rename(entry.path(), &place).map_err(|e| file("rename", &place, e))?;
            } else {
                std::fs::remove_dir_all(entry.path()).map_err(|e| file("remove", &entry.path(), e))?;
            }
        }
        Ok(Volumes { folder, store, events, registry, known: RwLock::new(known), changing: Default::default() })
    }

    fn all(&self) -> Vec<Arc<VolumeRecord>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<VolumeRecord>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Where a volume's content is.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("_data")
    }

    /// Makes a volume beside its place. Blocks.
    pub(crate) fn make(
        &self,
        name: &str,
        labels: Option<StringMap>,
        options: Option<StringMap>,
    ) -> Result<Fresh, EngineError> {
        check_volume_name(name)?;
        let path = self.folder.join(format!(".new-{name}"));
        let data = path.join("_data");
        std::fs::create_dir_all(&data).map_err(|e| file("mkdir", &data, e))?;
        let record = VolumeRecord { name: name.to_owned(), created: Timestamp::now(), labels, options };
        Ok(Fresh { record, path })
    }

    /// Makes an anonymous volume. Blocks.
    pub(crate) fn make_anonymous(&self, name: &str) -> Result<Fresh, EngineError> {
        self.make(name, Some(StringMap::from([(ANONYMOUS.to_owned(), String::new())])), None)
    }

    /// Puts a committed volume in its place and tells of it. Blocks for one rename.
    pub(crate) fn place(&self, fresh: Fresh) -> Result<(), EngineError> {
        let place = self.folder.join(&fresh.record.name);
        std::fs::rename(&fresh.path, &place).map_err(|e| file("rename", &place, e))?;
        let name = fresh.record.name.clone();
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::new(fresh.record));
        self.tell("create", &name, &[]);
        Ok(())
    }

    /// Takes back a volume that was not committed.
    pub(crate) fn discard(&self, fresh: &Fresh) {
        if let Err(error) = std::fs::remove_dir_all(&fresh.path) {
            tracing::warn!(volume = fresh.record.name, %error, "cannot remove an unfinished volume");
        }
    }

    pub(crate) fn tell(&self, action: &str, name: &str, more: &[(&str, &str)]) {
        let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let attributes = more.iter().chain(&[("driver", "local")]).map(pair).collect();
        self.events.publish(Subject::Volume, action, name, attributes);
    }

    /// Ids of the containers that mount a volume.
    fn users(&self, name: &str) -> Vec<String> {
        let mounts = |c: &Arc<crate::container::Container>| c.view().record.volumes().any(|v| v == name);
        self.registry.all().iter().filter(|c| mounts(c)).map(|c| c.id.to_string()).collect()
    }

    fn describe(&self, record: &VolumeRecord) -> Volume {
        Volume {
            created_at: Timestamp::from_unix(record.created.seconds(), 0).to_string(),
            driver: "local".to_owned(),
            labels: record.labels.clone(),
            mountpoint: self.data(&record.name).display().to_string(),
            name: record.name.clone(),
            options: record.options.clone(),
            scope: "local".to_owned(),
            usage_data: None,
        }
    }

    /// Lists, sorted by name.
    pub fn list(&self, filters: &Filters) -> Result<VolumeList, EngineError> {
        filters.check_keys(&["dangling", "name", "driver", "label"])?;
        let dangling = filters.contains("dangling").then(|| filters.bool_or("dangling", false)).transpose()?;
        let none = StringMap::new();
        let fits = |r: &Arc<VolumeRecord>| {
            let named = filters.get("name").next().is_none() || filters.get("name").any(|n| r.name.contains(n));
            named
                && filters.match_exact("driver", "local")
                && filters.match_labels("label", r.labels.as_ref().unwrap_or(&none))
                && dangling.is_none_or(|wanted| self.users(&r.name).is_empty() == wanted)
        };
        let volumes = self.all().iter().filter(|r| fits(r)).map(|r| self.describe(r)).collect();
        Ok(VolumeList { volumes, warnings: None })
    }

    /// Lists with sizes and reference counts, for `system df`. Blocks while it walks.
    pub fn disk_usage(&self) -> Vec<Volume> {
        let measured = |record: &Arc<VolumeRecord>| {
            let ref_count = self.users(&record.name).len() as i64;
            let size = crate::disk::bytes_below(&self.data(&record.name)) as i64;
            Volume { usage_data: Some(VolumeUsage { ref_count, size }), ..self.describe(record) }
        };
        self.all().iter().map(measured).collect()
    }

    /// Shows one.
    pub fn inspect(&self, name: &str) -> Result<Volume, EngineError> {
        let record = self.get(name).ok_or_else(|| EngineError::NoVolume(name.to_owned()))?;
        Ok(self.describe(&record))
    }

    /// Makes one, or shows the one that has the name.
    pub async fn create(&self, request: VolumeCreateRequest) -> Result<Volume, EngineError> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(MountError::Driver { name: request.name, driver: request.driver }.into());
        }
        if request.driver_opts.as_ref().is_some_and(|o| !o.is_empty()) {
            return Err(EngineError::Later("driver options of local volumes"));
        }
        let _changing = self.changing.lock().await;
        if let Some(have) = self.get(&request.name) {
            return Ok(self.describe(&have));
        }
        let fresh = if request.name.is_empty() {
            self.make_anonymous(&crate::random_hex())?
        } else {
            self.make(&request.name, Some(request.labels.unwrap_or_default()), None)?
        };
        let mut batch = Batch::new();
        batch.put(&fresh.record.name, &fresh.record);
        if let Err(e) = self.store.submit(batch).await {
            self.discard(&fresh);
            return Err(e.into());
        }
        let volume = self.describe(&fresh.record);
        self.place(fresh)?;
        Ok(volume)
    }

    /// Removes one that no container mounts.
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        if self.get(name).is_none() {
            return if force { Ok(()) } else { Err(EngineError::NoVolume(name.to_owned())) };
        }
        let users = self.users(name);
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), users });
        }
        let mut batch = Batch::new();
        batch.remove(Table::Volumes, name);
        self.set_aside(name);
        point("remove.volume-aside");
        if let Err(e) = self.store.submit(batch).await {
            self.put_back(name);
            return Err(e.into());
        }
        self.forget(name)
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".new-{name}"))
    }

    /// Takes a volume's folder from its place, before the commit that removes its record: a crash before the commit has
    /// [`Volumes::open`] put it back, a crash after it has it removed.
    pub(crate) fn set_aside(&self, name: &str) {
        if let Err(error) = std::fs::rename(self.folder.join(name), self.aside(name)) {
            tracing::warn!(volume = name, %error, "cannot set the volume aside");
        }
    }

    /// Puts a volume's folder back, after a commit that failed.
    pub(crate) fn put_back(&self, name: &str) {
        if let Err(error) = std::fs::rename(self.aside(name), self.folder.join(name)) {
            tracing::warn!(volume = name, %error, "cannot put the volume back");
        }
    }

    /// Deletes a volume that was set aside and whose record is gone from the store.
    pub(crate) fn forget(&self, name: &str) -> Result<(), EngineError> {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let aside = self.aside(name);
        std::fs::remove_dir_all(&aside).map_err(|e| file("remove", &aside, e))?;
        self.tell("destroy", name, &[]);
        Ok(())
    }

    /// Removes those that no container mounts: anonymous ones, with `all=true` named ones too.
    pub async fn prune(&self, filters: &Filters) -> Result<VolumePruneResponse, EngineError> {
        filters.check_keys(&["label", "label!", "all"])?;
        let every = filters.bool_or("all", false)?;
        let none = StringMap::new();
        let mut done = VolumePruneResponse::default();
        for record in self.all() {
            let labels = record.labels.as_ref().unwrap_or(&none);
            let unwanted = filters.get("label!").next().is_some() && filters.match_labels("label!", labels);
            let wanted = every || labels.contains_key(ANONYMOUS);
            if !wanted || unwanted || !filters.match_labels("label", labels) || !self.users(&record.name).is_empty() {
                continue;
            }
            let size = crate::disk::bytes_below(&self.data(&record.name));
            self.remove(&record.name, true).await?;
            done.space_reclaimed += size;
            done.volumes_deleted.push(record.name.clone());
        }
        let attributes = [("reclaimed".to_owned(), done.space_reclaimed.to_string())].into();
        self.events.publish(Subject::Volume, "prune", "", attributes);
        Ok(done)
    }
}
