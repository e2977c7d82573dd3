//! The facts that a shim appends to its `records` file before it reports them, one JSON line each.

use serde::{Deserialize, Serialize};
use wharf_types::Timestamp;

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

impl Record {
    /// Reads the lines of a records file. A torn last line is passed over, as is one that another build wrote.
    pub fn parse_all(text: &[u8]) -> Vec<Record> {
        text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_passed_over() {
        let record = Record {
            boot: "b".into(),
            kind: RecordKind::Exit,
            exec: String::new(),
            pid: 7,
            status: 137,
            at: Timestamp::from_unix(1, 0),
        };
        let line = serde_json::to_string(&record).expect("JSON");
        assert_eq!(line, r#"{"boot":"b","kind":"exit","exec":"","pid":7,"status":137,"at":"1970-01-01T00:00:01Z"}"#);
        let text = format!("{line}\n{}", &line[..20]);
        assert_eq!(Record::parse_all(text.as_bytes()), [record]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            Record::parse_all(&bytes);
        }
    }
}
