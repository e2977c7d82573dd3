//! Where forwarding got to, in a file beside the spool.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use wharf_logs::{Place, Position};

const NAME: &str = "forward.json";

/// What the file holds. It is padded with spaces to one length, so that one write replaces it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    inode: u64,
    offset: u64,
    first: String,
    /// Whether everything of a container that has ended was delivered.
    #[serde(default)]
    pub(crate) drained: bool,
}

const LENGTH: usize = 160;

impl Stored {
    pub(crate) fn place(&self) -> Option<Place> {
        let position = Position { inode: self.inode, offset: self.offset };
        (self.inode != 0).then(|| Place { position, first: self.first.clone() })
    }
}

/// The file, held open.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: File,
    pub(crate) stored: Stored,
}

/// Reads what is stored in a folder; nothing is the start.
pub(crate) fn read(folder: &OwnedFd) -> Stored {
    let file = openat(folder, NAME, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let Ok(file) = file.map(File::from) else { return Stored::default() };
    let mut text = [0; LENGTH];
    let n = file.read_at(&mut text, 0).unwrap_or(0);
    serde_json::from_slice(&text[..n]).unwrap_or_default()
}

impl Cursor {
    pub(crate) fn open(folder: &OwnedFd) -> io::Result<Cursor> {
        let stored = read(folder);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(folder.as_fd(), NAME, flags, Mode::from_raw_mode(0o600))?;
        Ok(Cursor { file: file.into(), stored })
    }

    /// Notes a place. It outlives this process, and no power cut: after one, some messages are sent twice.
    pub(crate) fn save(&mut self, place: &Place, drained: bool) -> io::Result<()> {
        let Position { inode, offset } = place.position;
        self.stored = Stored { inode, offset, first: place.first.clone(), drained };
        self.write()
    }

    /// Notes whether everything was delivered.
    pub(crate) fn set_drained(&mut self, drained: bool) -> io::Result<()> {
        if self.stored.drained == drained {
            return Ok(());
        }
        self.stored.drained = drained;
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(&self.stored)?;
        text.resize(text.len().max(LENGTH - 1), b' ');
        text.push(b'\n');
        self.file.write_all_at(&text, 0)
    }
}
