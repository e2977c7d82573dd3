//! Local volumes: folders under the data root, with a record each.
//!
//! ```text
//! <data-root>/volumes/<name>/_data        the content          <data-root>/volumes/.new-<name>/   being made or removed
//! ```
//!
//! A volume is made beside its place, recorded, and then renamed; it is removed the other way round. What a crash leaves
//! beside its place is put there if it has a record, and deleted if it has none. What is behind a volume (a device, a disk
//! image, a plugin) is mounted while a container holds it: see [`active`].

mod active;
mod driver;
mod moves;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use wharf_api_types::{Filters, StringMap, Volume, VolumeCreateRequest, VolumePruneResponse};
use wharf_fault::point;
use wharf_metadata::{Batch, Record, Store, Table};
use wharf_plugin::Plugins;
use wharf_types::{IdMaps, Timestamp};
use wharf_volume::{Backing, LocalOptions, Staging, is_mount_point, unmount_all};

use crate::EngineError;
use crate::container::Registry;
use crate::create::mounts::check_volume_name;
use crate::events::{Events, Subject};

pub(crate) use active::VolumeUseError;

/// The driver of volumes that are folders here.
pub(crate) const LOCAL: &str = "local";

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
    /// The driver; empty is `local`.
    #[serde(default)]
    pub driver: String,
}

impl VolumeRecord {
    /// The driver's name.
    pub fn driver(&self) -> &str {
        if self.driver.is_empty() { LOCAL } else { &self.driver }
    }

    fn is_local(&self) -> bool {
        self.driver() == LOCAL
    }

    /// The options of a local volume, which were checked when it was made.
    fn local(&self) -> LocalOptions {
        let none = LocalOptions { backing: Backing::Folder, owner: (None, None) };
        self.options.as_ref().map_or(none.clone(), |o| LocalOptions::parse(o).unwrap_or(none))
    }
}

impl Record for VolumeRecord {
    const TABLE: Table = Table::Volumes;
    const VERSION: u32 = 1;
}

/// All volumes of one engine.
pub struct Volumes {
    folder: PathBuf,
    /// Who owns new volumes: the root of containers' user namespaces, if they have any.
    root: Option<(u32, u32)>,
    store: Arc<Store>,
    events: Arc<Events>,
    registry: Arc<Registry>,
    plugins: Arc<Plugins>,
    pub(crate) staging: Staging,
    known: RwLock<BTreeMap<String, Arc<VolumeRecord>>>,
    holders: active::Holders,
    /// Held while named volumes are made or removed, from the look at what there is to the commit.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// A volume that is made and not yet committed.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) record: VolumeRecord,
    /// Its folder until it is placed; none if a plugin keeps it.
    path: Option<PathBuf>,
}

/// What a new volume is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) driver: String,
    pub(crate) labels: Option<StringMap>,
    pub(crate) options: Option<StringMap>,
}

fn file(operation: &'static str, path: &Path, source: std::io::Error) -> EngineError {
    EngineError::File { operation, path: path.to_owned(), source }
}

impl Volumes {
    /// Reads the records and finishes or removes what a crash left.
    pub fn open(
        config: &crate::config::EngineConfig,
        store: Arc<Store>,
        events: Arc<Events>,
        registry: Arc<Registry>,
        plugins: Arc<Plugins>,
    ) -> Result<Volumes, EngineError> {
        let folder = config.data_root.join("volumes");
        std::fs::create_dir_all(&folder).map_err(|e| file("mkdir", &folder, e))?;
        let records = store.view()?.all::<VolumeRecord>()?;
        let known: BTreeMap<_, _> = records.into_iter().map(|(name, r)| (name, Arc::new(r))).collect();
        finish_renames(&folder, &known)?;
        let entries = std::fs::read_dir(&folder).map_err(|e| file("read", &folder, e))?;
        for entry in entries.flatten() {
            let text = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = text.strip_prefix(".new-") else { continue };
            let place = folder.join(name);
            unmount_all(&entry.path().join("_data"));
            if known.contains_key(name) && !place.exists() {
                std::fs::rename(entry.path(), &place).map_err(|e| file("rename", &place, e))?;
            } else {
                delete(&entry.path())?;
            }
        }
        let staging = Staging::new(config.exec_root.join("mounts"));
        let (known, holders, changing) = (RwLock::new(known), Default::default(), Default::default());
        let root = config.users.as_ref().map(IdMaps::root);
        Ok(Volumes { root, folder, store, events, registry, plugins, staging, known, holders, changing })
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

    /// Makes a volume: a local one beside its place, another by its plugin. Blocks.
    pub(crate) fn make(&self, name: &str, wish: Wish) -> Result<Fresh, EngineError> {
        let Wish { driver, labels, options } = wish;
        let driver = if driver.is_empty() { LOCAL.to_owned() } else { driver };
        let created = Timestamp::now();
        let record = VolumeRecord { name: name.to_owned(), created, labels, options, driver };
        if !record.is_local() {
            self.make_by_plugin(&record)?;
            return Ok(Fresh { record, path: None });
        }
        check_volume_name(name)?;
        let none = StringMap::new();
        let options = LocalOptions::parse(record.options.as_ref().unwrap_or(&none));
        let failed = |source| EngineError::VolumeCreate { name: name.to_owned(), source };
        let options = options.map_err(failed)?;
        let path = self.folder.join(format!(".new-{name}"));
        let data = path.join("_data");
        std::fs::create_dir_all(&data).map_err(|e| file("mkdir", &data, e))?;
        if let Err(e) = prepare(&options, &path, self.root) {
            delete(&path)?;
            return Err(failed(e));
        }
        Ok(Fresh { record, path: Some(path) })
    }

    /// Makes an anonymous volume. Blocks.
    pub(crate) fn make_anonymous(&self, name: &str, mut wish: Wish) -> Result<Fresh, EngineError> {
        wish.labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        self.make(name, wish)
    }

    /// Puts a committed volume in its place and tells of it. Blocks for one rename.
    pub(crate) fn place(&self, fresh: Fresh) -> Result<(), EngineError> {
        if let Some(path) = &fresh.path {
            let place = self.folder.join(&fresh.record.name);
            std::fs::rename(path, &place).map_err(|e| file("rename", &place, e))?;
        }
        let name = fresh.record.name.clone();
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::new(fresh.record));
        self.tell("create", &name, &[]);
        Ok(())
    }

    /// Takes back a volume that was not committed.
    pub(crate) fn discard(&self, fresh: &Fresh) {
        let undone = match &fresh.path {
            Some(path) => delete(path),
            None => self.remove_by_plugin(&fresh.record),
        };
        if let Err(error) = undone {
            tracing::warn!(volume = fresh.record.name, %error, "cannot remove an unfinished volume");
        }
    }

    pub(crate) fn tell(&self, action: &str, name: &str, more: &[(&str, &str)]) {
        let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let known = self.get(name);
        let driver = known.as_ref().map_or(LOCAL, |r| r.driver());
        let attributes = more.iter().chain(&[("driver", driver)]).map(pair).collect();
        self.events.publish(Subject::Volume, action, name, attributes);
    }

    /// Ids of the containers that mount a volume.
    fn users(&self, name: &str) -> Vec<String> {
        let mounts = |c: &Arc<crate::container::Container>| c.view().record.volumes().any(|v| v == name);
        self.registry.all().iter().filter(|c| mounts(c)).map(|c| c.id.to_string()).collect()
    }

    /// Makes one, or shows the one that has the name.
    pub async fn create(self: &Arc<Self>, request: VolumeCreateRequest) -> Result<Volume, EngineError> {
        let local = matches!(request.driver.as_str(), "" | LOCAL);
        let changing = if local { Some(self.changing.lock().await) } else { None };
        if let Some(have) = self.get(&request.name) {
            self.check_driver(&have, &request.driver)?;
            return self.show(have).await;
        }
        let labels = Some(request.labels.unwrap_or_default());
        let wish = Wish { driver: request.driver, labels, options: request.driver_opts.filter(|o| !o.is_empty()) };
        let (this, name) = (self.clone(), request.name);
        let fresh = crate::blocking(move || match name.as_str() {
            "" => this.make_anonymous(&crate::random_hex(), Wish { labels: None, ..wish }),
            name => this.make(name, wish),
        })
        .await??;
        let record = Arc::new(fresh.record.clone());
        self.commit(fresh).await?;
        drop(changing);
        self.show(record).await
    }

    /// Commits a volume that is made, and puts it in its place.
    async fn commit(&self, fresh: Fresh) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        batch.put(&fresh.record.name, &fresh.record);
        point("volume.before-commit");
        if let Err(e) = self.store.submit(batch).await {
            self.discard(&fresh);
            return Err(e.into());
        }
        point("volume.after-commit");
        self.place(fresh)
    }

    /// Removes one that no container mounts.
    pub async fn remove(self: &Arc<Self>, name: &str, force: bool) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        let Some(record) = self.get(name) else {
            return if force { Ok(()) } else { Err(EngineError::NoVolume(name.to_owned())) };
        };
        let users = self.users(name);
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), users });
        }
        if !record.is_local() {
            let (this, record) = (self.clone(), record.clone());
            let removed = crate::blocking(move || this.remove_by_plugin(&record)).await?;
            // With force a volume is forgotten whose driver is gone.
            if !force {
                removed?;
            }
        }
        let mut batch = Batch::new();
        batch.remove(Table::Volumes, name);
        self.set_aside(name);
        point("remove.volume-aside");
        if let Err(e) = self.store.submit(batch).await {
            self.put_back(name);
            return Err(e.into());
        }
        let (this, name, local) = (self.clone(), name.to_owned(), record.is_local());
        crate::blocking(move || if local { this.forget(&name) } else { this.strike(&name) }).await?
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".new-{name}"))
    }

    /// Takes a volume's folder from its place, before the commit that removes its record: a crash before the commit has
    /// [`Volumes::open`] put it back, a crash after it has it removed.
    pub(crate) fn set_aside(&self, name: &str) {
        if self.get(name).is_some_and(|r| !r.is_local()) {
            return;
        }
        if let Err(error) = std::fs::rename(self.folder.join(name), self.aside(name)) {
            tracing::warn!(volume = name, %error, "cannot set the volume aside");
        }
    }

    /// Puts a volume's folder back, after a commit that failed.
    pub(crate) fn put_back(&self, name: &str) {
        if self.get(name).is_some_and(|r| !r.is_local()) {
            return;
        }
        if let Err(error) = std::fs::rename(self.aside(name), self.folder.join(name)) {
            tracing::warn!(volume = name, %error, "cannot put the volume back");
        }
    }

    /// Deletes a volume that was set aside and whose record is gone from the store.
    pub(crate) fn forget(&self, name: &str) -> Result<(), EngineError> {
        if let Some(record) = self.get(name).filter(|r| !r.is_local())
            && let Err(error) = self.remove_by_plugin(&record)
        {
            tracing::warn!(volume = name, %error, "the plugin cannot remove the volume");
        }
        self.strike(name)
    }

    /// Forgets a volume whose record is gone from the store.
    fn strike(&self, name: &str) -> Result<(), EngineError> {
        let record = self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let driver = record.as_ref().map_or(LOCAL, |r| r.driver()).to_owned();
        if driver == LOCAL {
            delete(&self.aside(name))?;
        }
        let attributes = [("driver".to_owned(), driver)].into();
        self.events.publish(Subject::Volume, "destroy", name, attributes);
        Ok(())
    }

    /// Removes those that no container mounts: anonymous ones, with `all=true` named ones too.
    pub async fn prune(self: &Arc<Self>, filters: &Filters) -> Result<VolumePruneResponse, EngineError> {
        filters.check_keys(&["label", "label!", "all"])?;
        let every = filters.bool_or("all", false)?;
        let none = StringMap::new();
        let mut done = VolumePruneResponse::default();
        for record in self.all() {
            let labels = record.labels.as_ref().unwrap_or(&none);
            let unwanted = filters.get("label!").next().is_some() && filters.match_labels("label!", labels);
            // Docker prunes volumes of the local driver only.
            let wanted = record.is_local() && (every || labels.contains_key(ANONYMOUS));
            if !wanted || unwanted || !filters.match_labels("label", labels) || !self.users(&record.name).is_empty() {
                continue;
            }
            let size = crate::disk::bytes_below(&self.data(&record.name));
            match self.remove(&record.name, true).await {
                Ok(()) => {}
                // A container took it meanwhile.
                Err(EngineError::VolumeInUse { .. }) => continue,
                Err(e) => return Err(e),
            }
            done.space_reclaimed += size;
            done.volumes_deleted.push(record.name.clone());
        }
        let attributes = [("reclaimed".to_owned(), done.space_reclaimed.to_string())].into();
        self.events.publish(Subject::Volume, "prune", "", attributes);
        Ok(done)
    }
}

/// Does what has to be done once: the file system of a volume with a size, the owner of its root.
fn prepare(options: &LocalOptions, path: &Path, root: Option<(u32, u32)>) -> Result<(), wharf_volume::VolumeError> {
    use wharf_volume::VolumeError;
    let data = path.join("_data");
    let (uid, gid) = options.owner;
    // With user namespaces a volume is their root's, so that containers may write to it; owners that are asked for are the
    // host's, as those in files of a bind are.
    let (uid, gid) = (uid.or(root.map(|r| r.0)), gid.or(root.map(|r| r.1)));
    if let Backing::Disk { size } = options.backing {
        wharf_volume::make_disk(&path.join("image"), size, (uid.unwrap_or(0), gid.unwrap_or(0)))?;
        options.mount(path)?;
        // An empty volume has nothing in it: e2fsck makes this folder again if it ever needs it.
        let _ = std::fs::remove_dir(data.join("lost+found"));
        unmount_all(&data);
    } else if uid.is_some() || gid.is_some() {
        std::os::unix::fs::chown(&data, uid, gid).map_err(|e| VolumeError::File {
            operation: "chown",
            path: data.clone(),
            source: rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO),
        })?;
    }
    Ok(())
}

/// Finishes or takes back renames that a crash interrupted: a link with the new name shows where the volume is.
fn finish_renames(folder: &Path, known: &BTreeMap<String, Arc<VolumeRecord>>) -> Result<(), EngineError> {
    let entries = std::fs::read_dir(folder).map_err(|e| file("read", folder, e))?;
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_symlink())) {
        let text = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = text.strip_prefix(".new-") else { continue };
        let place = folder.join(name);
        let target = std::fs::read_link(entry.path()).map_err(|e| file("read", &entry.path(), e))?;
        if known.contains_key(name) && !place.exists() && target.starts_with(folder) {
            std::fs::rename(&target, &place).map_err(|e| file("rename", &place, e))?;
        }
        std::fs::remove_file(entry.path()).map_err(|e| file("remove", &entry.path(), e))?;
    }
    Ok(())
}

/// Deletes a volume's folder, and never what is mounted in it.
fn delete(folder: &Path) -> Result<(), EngineError> {
    let data = folder.join("_data");
    unmount_all(&data);
    if is_mount_point(&data) {
        let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
        return Err(file("remove", folder, busy));
    }
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("remove", folder, e)),
        _ => Ok(()),
    }
}
