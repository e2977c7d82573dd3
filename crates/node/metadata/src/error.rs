//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use wharf_error::{HasKind, Kind};

/// A failed operation on the store. Cheap to clone, because one failed commit fails every batch in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or is not a store.
    #[error("cannot open the store {path}")]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why.
        source: Arc<redb::Error>,
    },
    /// The folder of the store cannot be made.
    #[error("cannot make the store's folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Reading failed.
    #[error("cannot read the store")]
    Read(#[source] Arc<redb::Error>),
    /// Committing failed; nothing of the batch is in the store. A full disk shows here.
    #[error("cannot commit to the store")]
    Commit(#[source] Arc<redb::Error>),
    /// A name is held by another id.
    #[error("name {name:?} in {space} is held by {holder}")]
    NameTaken {
        /// The space of names.
        space: String,
        /// The name.
        name: String,
        /// The id that holds it.
        holder: String,
    },
    /// [`Batch::expect_absent`](crate::Batch::expect_absent) met a record.
    #[error("{table} already has a record {key:?}")]
    Exists {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// [`Batch::expect_present`](crate::Batch::expect_present) met none.
    #[error("{table} has no record {key:?}")]
    Missing {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// A stored record does not parse, or a newer program wrote it.
    #[error("record {key:?} of {table} is damaged or of an unknown version: {why}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What the parser says.
        why: String,
    },
    /// A record cannot be written as JSON.
    #[error("record {key:?} of {table} cannot be encoded: {why}")]
    Encode {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What the encoder says.
        why: String,
    },
    /// The store was closed while the batch waited.
    #[error("the store is closed")]
    Closed,
}

impl HasKind for StoreError {
    fn kind(&self) -> Kind {
        match self {
            StoreError::NameTaken { .. } | StoreError::Exists { .. } => Kind::Conflict,
            StoreError::Missing { .. } => Kind::NotFound,
            StoreError::Damaged { .. } => Kind::DataLoss,
            StoreError::Closed => Kind::Unavailable,
            StoreError::Open { .. }
            | StoreError::Folder { .. }
            | StoreError::Read(_)
            | StoreError::Commit(_)
            | StoreError::Encode { .. } => Kind::System,
        }
    }
}
