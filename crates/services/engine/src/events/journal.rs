//! Events on disk, so that `since` reaches back beyond the engine's own life.
//!
//! ```text
//! <data-root>/wharf/events.jsonl      one JSON line per event, appended        events.1.jsonl    the one before it
//! ```
//!
//! A line is written before the event is told. It survives a killed engine; a power cut may take the last ones. At
//! [`LIMIT`] bytes a file becomes the one before, so both together keep some ten thousand events.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wharf_types::Timestamp;

use super::{Event, Subject};

/// Bytes of one file.
pub const LIMIT: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    /// Nanoseconds since 1970.
    t: i64,
    /// Subject.
    s: String,
    /// Action.
    a: String,
    /// Id.
    i: String,
    /// Attributes.
    m: BTreeMap<String, String>,
}

/// The files being written.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

const NOW: &str = "events.jsonl";
const BEFORE: &str = "events.1.jsonl";

impl Journal {
    /// Opens the journal in a folder; a line that a power cut left unfinished is taken away.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Journal> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path(folder, NOW))?;
        let size = whole_lines(&mut file)?;
        file.set_len(size)?;
        Ok(Journal { folder: folder.to_owned(), file, size, limit })
    }

    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let line = Line {
            t: i64::try_from(event.at.unix_nanos()).unwrap_or(i64::MAX),
            s: event.subject.as_str().to_owned(),
            a: event.action.clone(),
            i: event.id.clone(),
            m: event.attributes.clone(),
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        if self.size + bytes.len() as u64 > self.limit && self.size > 0 {
            std::fs::rename(path(&self.folder, NOW), path(&self.folder, BEFORE))?;
            self.file = OpenOptions::new().create(true).append(true).open(path(&self.folder, NOW))?;
            self.size = 0;
        }
        self.file.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Opens what is written up to now for reading.
    pub(super) fn history(&self) -> io::Result<History> {
        let mut parts = Vec::new();
        match File::open(path(&self.folder, BEFORE)) {
            Ok(file) => parts.push((file, u64::MAX)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        parts.push((File::open(path(&self.folder, NOW))?, self.size));
        Ok(History(parts))
    }
}

/// The length of a file up to its last line's end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// What was written up to a moment; later events are not in it.
#[derive(Debug)]
pub struct History(Vec<(File, u64)>);

impl History {
    /// The events, oldest first. Reads files: for threads that may block.
    pub fn events(self) -> impl Iterator<Item = Event> {
        let lines = self.0.into_iter().flat_map(|(file, length)| BufReader::new(file.take(length)).split(b'\n'));
        // What cannot be read is not there; the rest still is.
        lines.map_while(Result::ok).filter_map(|line| {
            let line: Line = serde_json::from_slice(&line).ok()?;
            let at = Timestamp::from_unix(line.t.div_euclid(1_000_000_000), line.t.rem_euclid(1_000_000_000) as u32);
            Some(Event { subject: Subject::parse(&line.s)?, action: line.a, id: line.i, attributes: line.m, at })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        Event {
            subject: Subject::Container,
            action: "start".to_owned(),
            id: n.to_string(),
            attributes: BTreeMap::from([("name".to_owned(), "a \"b\"\n".to_owned())]),
            at: Timestamp::from_unix(n as i64, 5),
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_an_unfinished_line_is_dropped() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut journal = Journal::open(folder.path(), LIMIT).expect("opened");
        (0..3).for_each(|n| journal.append(&event(n)).expect("written"));
        let history = journal.history().expect("opened");
        journal.append(&event(3)).expect("written");
        assert_eq!(history.events().collect::<Vec<_>>(), (0..3).map(event).collect::<Vec<_>>());
        journal.file.write_all(b"{\"t\":1,\"s\":\"cont").expect("written");
        let mut journal = Journal::open(folder.path(), LIMIT).expect("opened");
        journal.append(&event(4)).expect("written");
        let ids: Vec<String> = journal.history().expect("opened").events().map(|e| e.id).collect();
        assert_eq!(ids, ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn the_journal_is_bounded_and_keeps_the_newest() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut journal = Journal::open(folder.path(), 1000).expect("opened");
        (0..100).for_each(|n| journal.append(&event(n)).expect("written"));
        let ids: Vec<usize> =
            journal.history().expect("opened").events().map(|e| e.id.parse().expect("number")).collect();
        assert_eq!(ids.last(), Some(&99));
        assert!(ids.len() < 40 && ids.windows(2).all(|w| w[1] == w[0] + 1), "{ids:?}");
        let size = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |m| m.len());
        assert!(size(NOW) <= 1000 && size(BEFORE) <= 1000);
    }
}
