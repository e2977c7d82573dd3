//! A batch: what one use case changes, all of it or nothing.

use crate::record::encode;
use crate::{Record, StoreError, Table};

#[derive(Debug)]
pub(crate) enum Condition {
    Absent(Table, String),
    Present(Table, String),
    /// The name is free or already held by this id.
    Free {
        space: String,
        name: String,
        id: String,
    },
}

#[derive(Debug)]
pub(crate) enum Change {
    Put(Table, String, Vec<u8>),
    Remove(Table, String),
    Claim { space: String, name: String, id: String },
    Release { space: String, name: String },
}

/// Changes that are committed together. Conditions are checked inside the transaction before any change is made.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) changes: Vec<Change>,
    pub(crate) error: Option<StoreError>,
}

impl Batch {
    /// Makes an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the batch holds neither changes nor conditions.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.changes.is_empty() && self.error.is_none()
    }

    /// Writes a record, over an older one if there is one. An encoding error shows at commit.
    pub fn put<T: Record>(&mut self, key: &str, record: &T) -> &mut Self {
        match encode(key, record) {
            Ok(bytes) => self.changes.push(Change::Put(T::TABLE, key.to_owned(), bytes)),
            Err(e) => self.error = Some(e),
        }
        self
    }

    /// Removes a record; does nothing if there is none.
    pub fn remove(&mut self, table: Table, key: &str) -> &mut Self {
        self.changes.push(Change::Remove(table, key.to_owned()));
        self
    }

    /// Takes a name in a space (`container`, `network`, …) for an id. The commit fails with
    /// [`StoreError::NameTaken`] if another id holds it.
    pub fn claim(&mut self, space: &str, name: &str, id: &str) -> &mut Self {
        let (space, name, id) = (space.to_owned(), name.to_owned(), id.to_owned());
        self.conditions.push(Condition::Free { space: space.clone(), name: name.clone(), id: id.clone() });
        self.changes.push(Change::Claim { space, name, id });
        self
    }

    /// Frees a name; does nothing if it is free.
    pub fn release(&mut self, space: &str, name: &str) -> &mut Self {
        self.changes.push(Change::Release { space: space.to_owned(), name: name.to_owned() });
        self
    }

    /// Fails the commit with [`StoreError::Exists`] if the record is there.
    pub fn expect_absent(&mut self, table: Table, key: &str) -> &mut Self {
        self.conditions.push(Condition::Absent(table, key.to_owned()));
        self
    }

    /// Fails the commit with [`StoreError::Missing`] if the record is not there.
    pub fn expect_present(&mut self, table: Table, key: &str) -> &mut Self {
        self.conditions.push(Condition::Present(table, key.to_owned()));
        self
    }
}
