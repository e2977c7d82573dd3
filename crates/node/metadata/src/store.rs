//! The store itself: opening, the writer thread and its group commit.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::backend::Preallocated;
use crate::batch::{Change, Condition};
use crate::ticket::{Promise, ticket};
use crate::view::read;
use crate::{Batch, StoreError, Ticket, View};

/// Bytes of pages that redb may hold; its own default is a gigabyte. The engine keeps its hot state in memory, so
/// the store is read at start and written after.
const CACHE: usize = 2 << 20;

/// Batches in one commit at most, so that the first of a flood does not wait for the last.
const GROUP: usize = 256;

pub(crate) const NAMES: &str = "names";

/// A slash cannot occur in a space, so no name of one space can pass for a name of another.
pub(crate) fn name_key(space: &str, name: &str) -> String {
    format!("{space}/{name}")
}

type Waiting = (Batch, Promise);
type Shared = RwLock<Option<Database>>;

/// The store. Share it by `Arc`; dropping the last one commits what was submitted and closes the file.
pub struct Store {
    database: Arc<Shared>,
    queue: Mutex<Option<Sender<Waiting>>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in this file, making it and its folder where missing; repairs what a crash left.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the file is damaged, of a foreign kind or open in another process;
    /// [`StoreError::Folder`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            let failed = |e| StoreError::Folder { path: folder.to_owned(), source: Arc::new(e) };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let database = Arc::new(RwLock::new(Some(open_database(path)?)));
        let (queue, waiting) = channel();
        let writer = Writer { database: database.clone(), path: path.to_owned() };
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&waiting));
        let writer =
            spawned.map_err(|e| StoreError::Open { path: path.to_owned(), source: Arc::new(redb::Error::Io(e)) })?;
        Ok(Self { database, queue: Mutex::new(Some(queue)), writer: Some(writer) })
    }

    /// Queues a batch for the next commit. Does not block.
    pub fn submit(&self, batch: Batch) -> Ticket {
        let (promise, ticket) = ticket();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            // A send fails only when the writer is gone; the promise, dropped with the batch, then says so.
            let _ = queue.send((batch, promise));
        }
        ticket
    }

    /// Commits a batch and waits until it is on disk.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::Exists`], [`StoreError::Missing`] when a condition does not hold;
    /// [`StoreError::Commit`] when the disk is full or fails. Nothing of the batch is stored then.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.submit(batch).wait()
    }

    /// A view of what is committed now.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Closed`].
    pub fn view(&self) -> Result<View, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        database.begin_read().map(View).map_err(read)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed; there is no one to hand it to.
            let _ = writer.join();
        }
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let failed = |source: redb::Error| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
    let fresh = !path.exists();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|e| failed(redb::Error::Io(e)))?;
    let backend = Preallocated::new(file).map_err(failed)?;
    let database = redb::Builder::new().set_cache_size(CACHE).create_with_backend(backend);
    let database = database.map_err(|e| failed(e.into()))?;
    if fresh && let Some(folder) = path.parent() {
        // The file's entry must survive power loss as the commits in it do.
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(redb::Error::Io(e)))?;
    }
    Ok(database)
}

struct Writer {
    database: Arc<Shared>,
    path: PathBuf,
}

impl Writer {
    fn run(&self, waiting: &Receiver<Waiting>) {
        while let Ok(first) = waiting.recv() {
            let mut group = vec![first];
            group.extend(waiting.try_iter().take(GROUP - 1));
            self.commit_group(group);
        }
    }

    fn commit_group(&self, group: Vec<Waiting>) {
        let (batches, promises): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        match self.attempt(batches) {
            Ok(outcomes) => promises.into_iter().zip(outcomes).for_each(|(promise, outcome)| promise.keep(outcome)),
            Err(e) => {
                // After a failed write redb refuses everything until it is opened anew.
                self.reopen();
                promises.into_iter().for_each(|promise| promise.keep(Err(e.clone())));
            }
        }
    }

    /// Applies each batch whose conditions hold and commits once. The outer error is that of the whole commit.
    fn attempt(&self, batches: Vec<Batch>) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen();
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        let mut transaction = database.begin_write().map_err(commit)?;
        transaction.set_durability(Durability::Immediate).map_err(commit)?;
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut changed = false;
        {
            let mut tables = Tables { transaction: &transaction, open: HashMap::new() };
            for batch in batches {
                let outcome = match batch.error {
                    Some(e) => Err(e),
                    None => tables.check(&batch.conditions)?,
                };
                if outcome.is_ok() {
                    changed |= !batch.changes.is_empty();
                    tables.apply(batch.changes)?;
                }
                outcomes.push(outcome);
            }
        }
        if changed {
            transaction.commit().map_err(commit)?;
        } else {
            transaction.abort().map_err(commit)?;
        }
        Ok(outcomes)
    }

    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first, because the file's lock admits one handle.
        drop(database.take());
        // A failure shows to the next caller as `Closed`, and the next commit tries again.
        *database = open_database(&self.path).ok();
    }
}

struct Tables<'t> {
    transaction: &'t WriteTransaction,
    open: HashMap<&'static str, redb::Table<'t, &'static str, &'static [u8]>>,
}

impl<'t> Tables<'t> {
    fn table(&mut self, name: &'static str) -> Result<&mut redb::Table<'t, &'static str, &'static [u8]>, StoreError> {
        use std::collections::hash_map::Entry;
        match self.open.entry(name) {
            Entry::Occupied(table) => Ok(table.into_mut()),
            Entry::Vacant(place) => {
                let table = self.transaction.open_table(TableDefinition::new(name)).map_err(commit)?;
                Ok(place.insert(table))
            }
        }
    }

    fn has(&mut self, table: &'static str, key: &str) -> Result<bool, StoreError> {
        Ok(self.table(table)?.get(key).map_err(commit)?.is_some())
    }

    /// The inner result is the batch's own, the outer one that of the store.
    fn check(&mut self, conditions: &[Condition]) -> Result<Result<(), StoreError>, StoreError> {
        for condition in conditions {
            match condition {
                Condition::Absent(table, key) if self.has(table.name(), key)? => {
                    return Ok(Err(StoreError::Exists { table: table.name(), key: key.clone() }));
                }
                Condition::Present(table, key) if !self.has(table.name(), key)? => {
                    return Ok(Err(StoreError::Missing { table: table.name(), key: key.clone() }));
                }
                Condition::Absent(..) | Condition::Present(..) => {}
                Condition::Free { space, name, id } => {
                    let names = self.table(NAMES)?;
                    let held = names.get(name_key(space, name).as_str()).map_err(commit)?;
                    let holder = held.map(|held| String::from_utf8_lossy(held.value()).into_owned());
                    if let Some(holder) = holder.filter(|holder| holder != id) {
                        let (space, name) = (space.clone(), name.clone());
                        return Ok(Err(StoreError::NameTaken { space, name, holder }));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        for change in changes {
            match change {
                Change::Put(table, key, bytes) => {
                    self.table(table.name())?.insert(key.as_str(), bytes.as_slice()).map_err(commit)?;
                }
                Change::Remove(table, key) => {
                    self.table(table.name())?.remove(key.as_str()).map_err(commit)?;
                }
                Change::Claim { space, name, id } => {
                    let key = name_key(&space, &name);
                    self.table(NAMES)?.insert(key.as_str(), id.as_bytes()).map_err(commit)?;
                }
                Change::Release { space, name } => {
                    self.table(NAMES)?.remove(name_key(&space, &name).as_str()).map_err(commit)?;
                }
            }
        }
        Ok(())
    }
}

fn commit(e: impl Into<redb::Error>) -> StoreError {
    StoreError::Commit(Arc::new(e.into()))
}
