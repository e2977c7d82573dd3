//! Read views: what was committed at one moment.

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError};

use crate::record::decode;
use crate::store::{NAMES, name_key};
use crate::{Record, StoreError, Table};

/// A consistent view of the store. Making one costs no disk access and no lock that a commit holds; it sees no later
/// commit. Drop it soon: pages that it may read are not reused meanwhile.
pub struct View(pub(crate) ReadTransaction);

impl View {
    fn open(&self, name: &str) -> Result<Option<ReadOnlyTable<&'static str, &'static [u8]>>, StoreError> {
        match self.0.open_table(TableDefinition::new(name)) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(read(e)),
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub fn get<T: Record>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let Some(table) = self.open(T::TABLE.name())? else { return Ok(None) };
        match table.get(key).map_err(read)? {
            Some(value) => decode(key, value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Reads all records of a table, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError::Read`]; [`StoreError::Damaged`] for the first record that does not parse.
    pub fn all<T: Record>(&self) -> Result<Vec<(String, T)>, StoreError> {
        let mut records = Vec::new();
        self.each(|key, record| {
            records.push((key.to_owned(), record?));
            Ok(())
        })?;
        Ok(records)
    }

    /// Hands each record of a table to `visit`, with its own parse error if it is damaged; stops at the first error
    /// that `visit` returns.
    ///
    /// # Errors
    /// [`StoreError::Read`], and what `visit` returns.
    pub fn each<T: Record>(
        &self,
        mut visit: impl FnMut(&str, Result<T, StoreError>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(table) = self.open(T::TABLE.name())? else { return Ok(()) };
        for entry in table.iter().map_err(read)? {
            let (key, value) = entry.map_err(read)?;
            visit(key.value(), decode(key.value(), value.value()))?;
        }
        Ok(())
    }

    /// Whether a table has a record.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn contains(&self, table: Table, key: &str) -> Result<bool, StoreError> {
        let Some(table) = self.open(table.name())? else { return Ok(false) };
        Ok(table.get(key).map_err(read)?.is_some())
    }

    /// The id that holds a name.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn holder(&self, space: &str, name: &str) -> Result<Option<String>, StoreError> {
        let Some(table) = self.open(NAMES)? else { return Ok(None) };
        let held = table.get(name_key(space, name).as_str()).map_err(read)?;
        Ok(held.map(|id| String::from_utf8_lossy(id.value()).into_owned()))
    }

    /// All names of a space with the ids that hold them, in the order of the names.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn names(&self, space: &str) -> Result<Vec<(String, String)>, StoreError> {
        let Some(table) = self.open(NAMES)? else { return Ok(Vec::new()) };
        let start = name_key(space, "");
        let mut names = Vec::new();
        for entry in table.range(start.as_str()..).map_err(read)? {
            let (key, id) = entry.map_err(read)?;
            let Some(name) = key.value().strip_prefix(start.as_str()) else { break };
            names.push((name.to_owned(), String::from_utf8_lossy(id.value()).into_owned()));
        }
        Ok(names)
    }
}

pub(crate) fn read(e: impl Into<redb::Error>) -> StoreError {
    StoreError::Read(Arc::new(e.into()))
}
