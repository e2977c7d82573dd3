//! The `records` file in the task folder: facts are appended before they are reported.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{Mode, OFlags};
use wharf_proto_task::record::{Record, RecordKind};
use wharf_types::Timestamp;

/// Appends to `records`, and messages for people to `shim.log`.
#[derive(Debug)]
pub(crate) struct Records {
    file: File,
    boot: String,
}

impl Records {
    /// Opens the file in the working directory.
    pub(crate) fn open() -> io::Result<Records> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Records { file: append("records")?, boot })
    }

    /// Appends a fact with one write(2), so that a reader sees all of it or nothing.
    pub(crate) fn put(&mut self, kind: RecordKind, exec: &str, pid: u32, status: u32, at: Timestamp) -> io::Result<()> {
        let record = Record { boot: self.boot.clone(), kind, exec: exec.to_owned(), pid, status, at };
        let mut line = serde_json::to_vec(&record).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// Appends a line to `shim.log`, which exists only if there was something to say.
pub(crate) fn report(text: &dyn std::fmt::Display) {
    if let Ok(mut file) = append("shim.log") {
        // There is nowhere left to report this to.
        let _ = file.write_all(format!("{} {text}\n", Timestamp::now()).as_bytes());
    }
}

fn append(name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(name, flags, Mode::from_raw_mode(0o600))?.into())
}
