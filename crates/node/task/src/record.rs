//! The `records` file: what the shim states before it reports it.

use std::path::Path;

use wharf_proto_task::record::{Record, RecordKind};

use crate::{Exit, TaskError};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads the records of a task folder; a torn last line is passed over, a missing file has none.
pub fn read_records(folder: &Path) -> Result<Vec<Record>, TaskError> {
    let path = folder.join("records");
    match std::fs::read(&path) {
        Ok(text) => Ok(Record::parse_all(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(TaskError::Folder { operation: "read", path, source }),
    }
}

/// The kernel's boot id, as records carry it. Source: proc_sys_kernel(5), `random/boot_id`.
pub fn boot_id() -> Result<String, TaskError> {
    std::fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).map_err(|source| TaskError::Folder {
        operation: "read",
        path: BOOT_ID.into(),
        source,
    })
}

/// How a process ended, if that was recorded.
pub(crate) fn exit_of(records: &[Record], exec: &str) -> Option<Exit> {
    let exit = records.iter().rfind(|r| r.kind == RecordKind::Exit && r.exec == exec)?;
    let oom = records.iter().any(|r| r.kind == RecordKind::Oom);
    Some(Exit { status: exit.status, at: exit.at, oom })
}
