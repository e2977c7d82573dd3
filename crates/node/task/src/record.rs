//! The `records` file: what the shim states before it reports it, one JSON line each.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wharf_types::Timestamp;

use crate::TaskError;

/// The kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// A process runs.
    Started,
    /// A process ended.
    Exit,
    /// The kernel killed a process of the container for want of memory.
    Oom,
}

/// One fact of a container's run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The kernel's boot id; a record of another boot is history.
    pub boot: String,
    /// The kind.
    pub kind: RecordKind,
    /// The exec, empty for the container's first process.
    #[serde(default)]
    pub exec: String,
    /// Process id on the host, 0 where none applies.
    #[serde(default)]
    pub pid: u32,
    /// Exit code or 128 + signal; only with `exit`.
    #[serde(default)]
    pub status: u32,
    /// When.
    pub at: Timestamp,
}

#[allow(clippy::unimplemented, reason = "first landing: signatures")]
impl Record {
    /// Reads the records of a task folder; a torn last line is passed over, a missing file has none.
    pub fn read_all(folder: &Path) -> Result<Vec<Record>, TaskError> {
        let _ = folder;
        unimplemented!()
    }
}

/// The kernel's boot id, as records carry it. Source: proc_sys_kernel(5), `random/boot_id`.
#[allow(clippy::unimplemented, reason = "first landing: signatures")]
pub fn boot_id() -> Result<String, TaskError> {
    unimplemented!()
}
