//! The trash: what was removed by rename, deleted by a background thread.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wharf_archive::{Root, remove_tree_while};
use wharf_sys::schedule;

use crate::SnapshotError;

/// How long closing the trash goes on with deleting. The rest is the next daemon's: a daemon that is told to end must not
/// wait for a million files.
const REST: Duration = Duration::from_secs(1);

/// Entries that may wait before their deletion gets the same share of the processors as everything else, so that
/// disk space comes back as fast as it is given up.
const BACKLOG: u64 = 64;

/// The thread's nice value while little waits: about a tenth of a busy processor. Not SCHED_IDLE: the thread holds
/// locks of the file system, for which others would wait as long as it does not run.
const NICE: i32 = 10;

/// A folder on the data root's file system whose content a background thread deletes. Anything below the data root
/// may be thrown in: layer directories, blobs, container folders. What is in it after a crash is deleted by the next daemon.
pub struct Trash {
    folder: PathBuf,
    turn: AtomicU64,
    wake: Mutex<Option<Sender<()>>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Entries thrown in and not deleted yet.
    waiting: AtomicU64,
    /// When to stop, once that is known.
    end: OnceLock<Instant>,
}

impl State {
    fn go_on(&self) -> bool {
        self.end.get().is_none_or(|end| Instant::now() < *end)
    }
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
        let state = Arc::new(State::default());
        let (wake, woken) = channel();
        let mut emptying = Emptying { root, path: folder.clone(), state: state.clone(), nice: 0 };
        let thread = std::thread::Builder::new().name("trash".to_owned()).spawn(move || {
            // Idle: the disk is for others first. Where the scheduler of the disk knows no classes it has no effect.
            let _ = schedule::set_io_priority(3, 0);
            emptying.empty();
            while emptying.state.go_on() && woken.recv().is_ok() {
                while woken.try_recv().is_ok() {}
                emptying.empty();
            }
        });
        let thread = Some(thread.map_err(SnapshotError::Thread)?);
        Ok(Self { folder, turn, wake: Mutex::new(Some(wake)), state, thread })
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
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(wake) = self.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // Without the thread the entry waits for the next daemon.
            let _ = wake.send(());
        }
        Ok(())
    }
}

/// Dropping it goes on deleting for [`REST`] at most; the next daemon deletes what is left.
impl Drop for Trash {
    fn drop(&mut self) {
        let _ = self.state.end.set(Instant::now() + REST);
        // What little there is goes at full speed.
        self.state.waiting.fetch_add(BACKLOG, Ordering::Relaxed);
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; what it left is deleted by the next daemon.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Emptying {
    root: Root,
    path: PathBuf,
    state: Arc<State>,
    /// The nice value that the thread has.
    nice: i32,
}

impl Emptying {
    /// Sets the thread's nice value. Who may not change it goes on as before.
    fn give_way(&mut self, nice: i32) {
        if nice != self.nice && schedule::set_nice(nice).is_ok() {
            self.nice = nice;
        }
    }

    fn empty(&mut self) {
        let names: Vec<OsString> = match fs::read_dir(&self.path) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect(),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot list the trash");
                return;
            }
        };
        for name in names {
            let nice = if self.state.waiting.load(Ordering::Relaxed) > BACKLOG { 0 } else { NICE };
            self.give_way(nice);
            let removed = remove_tree_while(self.root.as_fd(), &name, &mut || self.state.go_on());
            if !self.state.go_on() {
                return;
            }
            let one_less = |waiting: u64| Some(waiting.saturating_sub(1));
            let _ = self.state.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            if let Err(error) = removed {
                tracing::warn!(%error, path = %self.path.join(&name).display(), "cannot delete from the trash");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &Path, files: usize) {
        fs::create_dir_all(path).expect("folder");
        for n in 0..files {
            fs::write(path.join(n.to_string()), "x").expect("file");
        }
    }

    #[test]
    fn what_is_thrown_in_goes_and_what_is_missing_is_no_error() {
        let root = tempfile::tempdir().expect("temporary folder");
        let trash = Trash::open(root.path()).expect("trash");
        tree(&root.path().join("a/b"), 10);
        trash.discard(&root.path().join("a")).expect("discarded");
        trash.discard(&root.path().join("a")).expect("no error");
        assert!(!root.path().join("a").exists());
        drop(trash);
        assert_eq!(fs::read_dir(root.path().join("trash")).expect("list").count(), 0);
    }

    #[test]
    fn what_a_daemon_left_is_deleted_by_the_next() {
        let root = tempfile::tempdir().expect("temporary folder");
        tree(&root.path().join("trash/7"), 10);
        tree(&root.path().join("trash/.removing-3"), 10);
        drop(Trash::open(root.path()).expect("trash"));
        assert_eq!(fs::read_dir(root.path().join("trash")).expect("list").count(), 0);
    }
}
