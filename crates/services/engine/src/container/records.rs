//! Where container records are kept.
//!
//! A record is in the store, except that of a container which goes when it ends (`--rm`): it lives no longer than the
//! boot, so it is a file below the exec root, which survives a killed daemon without waiting for a disk.
//!
//! ```text
//! <exec-root>/passing/<id>.json     {"boot": "…", "record": {…}}; of another boot: forgotten, as its container is
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wharf_metadata::{Batch, Store, Table, Ticket};

use super::ContainerRecord;
use crate::EngineError;
use crate::creator::NAMES;
use crate::volumes::VolumeRecord;

/// Container records of both kinds.
pub(crate) struct Records {
    store: Arc<Store>,
    folder: PathBuf,
    boot: String,
}

#[derive(Serialize)]
struct PassingRef<'a> {
    boot: &'a str,
    record: &'a ContainerRecord,
}

#[derive(Deserialize)]
struct Passing {
    boot: String,
    record: ContainerRecord,
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> EngineError {
    EngineError::File { operation, path: path.to_owned(), source }
}

impl Records {
    pub(crate) fn open(store: Arc<Store>, exec_root: &Path) -> Result<Self, EngineError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = exec_root.join("passing");
        // Records hold environment variables, which are secrets more often than not.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|e| failed("mkdir", &folder, e))?;
        Ok(Self { store, folder, boot: wharf_task::boot_id()? })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// All records, by id.
    pub(crate) fn all(&self) -> Result<BTreeMap<String, ContainerRecord>, EngineError> {
        let mut records: BTreeMap<String, ContainerRecord> =
            self.store.view()?.all::<ContainerRecord>()?.into_iter().collect();
        let entries = fs::read_dir(&self.folder).map_err(|e| failed("read", &self.folder, e))?;
        for entry in entries.flatten() {
            let text = fs::read(entry.path()).map_err(|e| failed("read", &entry.path(), e))?;
            match serde_json::from_slice::<Passing>(&text) {
                Ok(passing) if passing.boot == self.boot => {
                    records.insert(passing.record.id.to_string(), passing.record);
                }
                // Of an earlier boot, or torn: whoever was writing it was killed before the create was acknowledged.
                _ => fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), e))?,
            }
        }
        Ok(records)
    }

    /// Makes a container exist, together with the volumes made for it.
    pub(crate) async fn insert(&self, record: &ContainerRecord, volumes: &[&VolumeRecord]) -> Result<(), EngineError> {
        if record.host.auto_remove && volumes.is_empty() {
            let path = self.path(record.id.as_str());
            return fs::write(&path, self.text(record)).map_err(|e| {
                // What is there of it is torn, which is passed over anyway.
                let _ = fs::remove_file(&path);
                failed("write", &path, e)
            });
        }
        let mut batch = Batch::new();
        batch.claim(NAMES, &record.name, record.id.as_str()).put(record.id.as_str(), record);
        for volume in volumes {
            batch.put(&volume.name, *volume);
        }
        Ok(self.store.submit(batch).await?)
    }

    /// Writes down a changed record, under a new name if `old_name` is given.
    pub(crate) async fn replace(&self, record: &ContainerRecord, old_name: Option<&str>) -> Result<(), EngineError> {
        let id = record.id.as_str();
        let path = self.path(id);
        if record.host.auto_remove && path.exists() {
            let new = self.folder.join(format!(".{id}"));
            fs::write(&new, self.text(record)).map_err(|e| failed("write", &new, e))?;
            return fs::rename(&new, &path).map_err(|e| failed("rename", &new, e));
        }
        let mut batch = Batch::new();
        if let Some(old) = old_name {
            batch.claim(NAMES, &record.name, id).release(NAMES, old);
        }
        batch.put(id, record);
        Ok(self.store.submit(batch).await?)
    }

    /// Makes a container cease to exist, together with volumes of its own. `None` when that is done already.
    pub(crate) fn remove(&self, record: &ContainerRecord, volumes: &[String]) -> Result<Option<Ticket>, EngineError> {
        let mut batch = Batch::new();
        let path = self.path(record.id.as_str());
        let passing = record.host.auto_remove.then(|| fs::remove_file(&path));
        match passing {
            Some(Ok(())) if volumes.is_empty() => return Ok(None),
            Some(Ok(())) => {}
            Some(Err(e)) if e.kind() != ErrorKind::NotFound => return Err(failed("remove", &path, e)),
            Some(Err(_)) | None => {
                batch.remove(Table::Containers, record.id.as_str()).release(NAMES, &record.name);
            }
        }
        for name in volumes {
            batch.remove(Table::Volumes, name);
        }
        Ok(Some(self.store.submit(batch)))
    }

    fn text(&self, record: &ContainerRecord) -> Vec<u8> {
        // A record is plain data: making JSON of it does not fail.
        serde_json::to_vec(&PassingRef { boot: &self.boot, record }).unwrap_or_default()
    }
}
