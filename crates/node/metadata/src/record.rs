//! Records: what the tables hold, and how they carry their version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The tables of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Containers by id.
    Containers,
    /// Images by id (digest).
    Images,
    /// Canonical references → image id.
    Tags,
    /// Unpacked layers by chain id.
    Snapshots,
    /// Networks by id.
    Networks,
    /// Volumes by name.
    Volumes,
    /// What protects work in flight.
    Leases,
    /// What was built, by id.
    Builds,
    /// Facts about the store and the daemon itself.
    Meta,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 9] = [
        Table::Containers,
        Table::Images,
        Table::Tags,
        Table::Snapshots,
        Table::Networks,
        Table::Volumes,
        Table::Leases,
        Table::Builds,
        Table::Meta,
    ];

    /// The table's name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Table::Containers => "containers",
            Table::Images => "images",
            Table::Tags => "tags",
            Table::Snapshots => "snapshots",
            Table::Networks => "networks",
            Table::Volumes => "volumes",
            Table::Leases => "leases",
            Table::Builds => "builds",
            Table::Meta => "meta",
        }
    }
}

/// A type that one table holds.
pub trait Record: Serialize + DeserializeOwned {
    /// The table.
    const TABLE: Table;
    /// The version that this program writes. Older ones pass through [`Record::upgrade`]; newer ones are refused.
    const VERSION: u32;

    /// Turns the stored form of an older version into the present one. Returns what is missing or wrong as text.
    ///
    /// The default refuses, which is right as long as there is only one version.
    fn upgrade(version: u32, _stored: serde_json::Value) -> Result<Self, String> {
        Err(format!("version {version} cannot be upgraded"))
    }
}

#[derive(Serialize)]
struct Written<'a, T> {
    v: u32,
    d: &'a T,
}

#[derive(Deserialize)]
struct Stored<'a> {
    v: u32,
    #[serde(borrow)]
    d: &'a serde_json::value::RawValue,
}

pub(crate) fn encode<T: Record>(key: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Written { v: T::VERSION, d: record }).map_err(|e| StoreError::Encode {
        table: T::TABLE.name(),
        key: key.to_owned(),
        why: e.to_string(),
    })
}

pub(crate) fn decode<T: Record>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |why: String| StoreError::Damaged { table: T::TABLE.name(), key: key.to_owned(), why };
    let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if stored.v == T::VERSION {
        return serde_json::from_str(stored.d.get()).map_err(|e| damaged(e.to_string()));
    }
    if stored.v > T::VERSION {
        return Err(damaged(format!("version {} is newer than this program's {}", stored.v, T::VERSION)));
    }
    let value = serde_json::from_str(stored.d.get()).map_err(|e| damaged(e.to_string()))?;
    T::upgrade(stored.v, value).map_err(damaged)
}
