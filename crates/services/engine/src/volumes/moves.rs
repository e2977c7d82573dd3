//! What Docker's volumes cannot do (Wharf extras; asked for in moby#31154, #31854, #33782): rename, clone, export, import.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use wharf_api_types::Volume;
use wharf_archive::{Compression, Decoder, Whiteouts};
use wharf_fault::point;
use wharf_metadata::{Batch, Table};
use wharf_types::Timestamp;

use super::{VolumeRecord, Volumes, Wish, file};
use crate::EngineError;
use crate::create::mounts::check_volume_name;

fn folder(path: &Path) -> Result<OwnedFd, EngineError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|e| file("open", path, e.into()))
}

impl Volumes {
    fn known(&self, name: &str) -> Result<Arc<VolumeRecord>, EngineError> {
        self.get(name).ok_or_else(|| EngineError::NoVolume(name.to_owned()))
    }

    /// A volume of the local driver; others belong to their plugin.
    fn own(&self, operation: &'static str, name: &str) -> Result<Arc<VolumeRecord>, EngineError> {
        let record = self.known(name)?;
        if record.is_local() {
            Ok(record)
        } else {
            Err(EngineError::VolumeOfPlugin { operation, name: name.to_owned() })
        }
    }

    /// Gives a volume that no container mounts another name.
    pub async fn rename(self: &Arc<Self>, name: &str, new_name: &str) -> Result<(), EngineError> {
        check_volume_name(new_name)?;
        let _changing = self.changing.lock().await;
        let old = self.own("rename", name)?;
        if self.get(new_name).is_some() {
            return Err(EngineError::VolumeName(new_name.to_owned()));
        }
        let users = self.users(name);
        if !users.is_empty() {
            return Err(EngineError::VolumeInUse { name: name.to_owned(), users });
        }
        let record = VolumeRecord { name: new_name.to_owned(), ..(*old).clone() };
        // Set aside, recorded, placed. The folder keeps its old name until the commit, with which a crash before it puts it
        // back; a link beside the new place leads a crash after it to the folder.
        let (place, aside) = (self.folder.join(name), self.aside(name));
        std::fs::rename(&place, &aside).map_err(|e| file("rename", &place, e))?;
        let mut batch = Batch::new();
        batch.remove(Table::Volumes, name).put(new_name, &record);
        let fresh = self.aside(new_name);
        point("volume.rename-aside");
        let linked = std::os::unix::fs::symlink(&aside, &fresh).map_err(|e| file("link", &fresh, e));
        if let Err(e) = linked {
            self.put_back(name);
            return Err(e);
        }
        if let Err(e) = self.store.submit(batch).await {
            let _ = std::fs::remove_file(&fresh);
            self.put_back(name);
            return Err(e.into());
        }
        point("volume.rename-committed");
        let new_place = self.folder.join(new_name);
        std::fs::rename(&aside, &new_place).map_err(|e| file("rename", &new_place, e))?;
        let _ = std::fs::remove_file(&fresh);
        {
            let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.remove(name);
            known.insert(new_name.to_owned(), Arc::new(record));
        }
        self.tell("rename", new_name, &[("oldName", name)]);
        Ok(())
    }

    /// Makes a volume with the content, labels and options of another one. The content is copied as it is at that time;
    /// with a writer at work it is not one moment's.
    pub async fn clone_as(self: &Arc<Self>, name: &str, new_name: &str) -> Result<Volume, EngineError> {
        let _changing = self.changing.lock().await;
        let source = self.own("clone", name)?;
        if self.get(new_name).is_some() {
            return Err(EngineError::VolumeName(new_name.to_owned()));
        }
        let (this, old, wanted) = (self.clone(), source, new_name.to_owned());
        let fresh = crate::blocking(move || -> Result<_, EngineError> {
            let wish = Wish { driver: String::new(), labels: old.labels.clone(), options: old.options.clone() };
            let fresh = this.make(&wanted, wish)?;
            // A device is one and the same for both: there is nothing to be copied.
            let device = matches!(old.local().backing, wharf_volume::Backing::Device { .. });
            if device {
                return Ok(fresh);
            }
            let copied = this.acquire(&old.name, &wanted).map_err(EngineError::from).and_then(|from| {
                let to = this.acquire_fresh(&fresh, &wanted)?;
                let done = crate::copy::fill(folder(&from)?.as_fd(), folder(&to)?.as_fd(), None);
                done.map_err(|e| file("copy to", &to, e.into()))
            });
            this.release_fresh(&fresh, &wanted);
            this.release(&old.name, &wanted);
            if let Err(e) = copied {
                this.discard(&fresh);
                return Err(e);
            }
            Ok(fresh)
        })
        .await??;
        let record = Arc::new(VolumeRecord { created: Timestamp::now(), ..fresh.record.clone() });
        self.commit(fresh).await?;
        self.show(record).await
    }

    /// Writes a volume's content as a tar stream. Blocks.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<(), EngineError> {
        self.known(name)?;
        let holder = format!("export-{}", crate::random_hex());
        let done = self.acquire(name, &holder).map_err(EngineError::from).and_then(|place| {
            let packed = wharf_archive::pack(folder(&place)?.as_fd(), out);
            packed.map_err(|e| EngineError::Tar(wharf_error::Chain(&e).to_string()))
        });
        self.release(name, &holder);
        done
    }

    /// Extracts a tar stream, compressed or not, into a volume. Every path is resolved beneath it. Blocks.
    pub fn import(&self, name: &str, from: Box<dyn Read + Send>) -> Result<(), EngineError> {
        self.known(name)?;
        let tar = |e: wharf_archive::ArchiveError| EngineError::Tar(wharf_error::Chain(&e).to_string());
        let holder = format!("import-{}", crate::random_hex());
        let done = self.acquire(name, &holder).map_err(EngineError::from).and_then(|place| {
            let (kind, stream) = Compression::peek(from).map_err(tar)?;
            let stream = Decoder::new(kind, std::io::BufReader::new(stream)).map_err(tar)?;
            let mut stream = std::io::BufReader::new(stream);
            wharf_archive::extract(&mut stream, folder(&place)?, &[], Whiteouts::Keep).map_err(tar).map(drop)
        });
        self.release(name, &holder);
        done
    }
}
