//! The trash: what was removed by rename, deleted by a background thread.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use wharf_archive::{Root, remove_tree};

use crate::SnapshotError;

/// A folder on the data root's file system whose content a background thread deletes. Anything below the data root
/// may be thrown in: layer directories, container folders. What is in it after a crash is deleted by the next daemon.
pub struct Trash {
    folder: PathBuf,
    turn: AtomicU64,
    wake: Mutex<Option<Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    /// Opens `<data-root>/trash` and starts deleting what a former daemon left in it.
    ///
    /// # Errors
    /// [`SnapshotError::Directory`], [`SnapshotError::Thread`].
    pub fn open(data_root: &Path) -> Result<Self, SnapshotError> {
        let folder = data_root.join("trash");
        let failed = |action| {
            let path = folder.clone();
            move |source| SnapshotError::Directory { action, path, source }
        };
        crate::directory::make_private(&folder).map_err(failed("make"))?;
        // Names go on where a former daemon stopped, so that none is in use.
        let entries = fs::read_dir(&folder).map_err(failed("list"))?;
        let used = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
        let turn = AtomicU64::new(used.max().map_or(0, |n| n + 1));
        let root = Root::at(&folder).map_err(failed("open"))?;
        let (wake, woken) = channel();
        let path = folder.clone();
        let thread = std::thread::Builder::new().name("trash".to_owned()).spawn(move || {
            empty(&root, &path);
            while woken.recv().is_ok() {
                while woken.try_recv().is_ok() {}
                empty(&root, &path);
            }
        });
        let thread = Some(thread.map_err(SnapshotError::Thread)?);
        Ok(Self { folder, turn, wake: Mutex::new(Some(wake)), thread })
    }

    /// Renames a path into the trash and wakes the thread. A path that does not exist is no error.
    ///
    /// # Errors
    /// [`SnapshotError::Directory`].
    pub fn discard(&self, path: &Path) -> Result<(), SnapshotError> {
        let place = self.folder.join(self.turn.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::rename(path, &place) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(SnapshotError::Directory { action: "discard", path: path.to_owned(), source }),
        }
        if let Some(wake) = self.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // Without the thread the entry waits for the next daemon.
            let _ = wake.send(());
        }
        Ok(())
    }
}

/// Dropping it waits until what is in the trash now is deleted.
impl Drop for Trash {
    fn drop(&mut self) {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; what it left is deleted by the next daemon.
            let _ = thread.join();
        }
    }
}

fn empty(root: &Root, path: &Path) {
    let names: Vec<OsString> = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot list the trash");
            return;
        }
    };
    for name in names {
        if let Err(error) = remove_tree(root.as_fd(), &name) {
            tracing::warn!(%error, path = %path.join(&name).display(), "cannot delete from the trash");
        }
    }
}
