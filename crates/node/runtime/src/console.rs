//! The pseudo-terminal of a process: opened in the container's own devpts, so that its name means something inside.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, RawMode};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use wharf_oci::runtime::ConsoleSize;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::mounting::clone_tree;
use crate::rooted::{Missing, Root};

/// Magic number of devpts (`linux/magic.h`).
const DEVPTS: u64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Console {
    /// The controlling end.
    pub master: OwnedFd,
    /// The process's end.
    pub slave: OwnedFd,
}

/// Opens a new terminal of the devpts at `/dev/pts` beneath `root`.
pub(crate) fn open(root: &Root, size: Option<ConsoleSize>) -> Result<Console, Failure> {
    let failed = || "open /dev/pts/ptmx";
    let path = Path::new("/dev/pts/ptmx");
    // Looked at before it is opened for use: opening some devices has effects.
    let found = root.open(path).or_fail(Stage::Console, failed)?;
    let stat = rustix::fs::fstat(&found).or_fail(Stage::Console, failed)?;
    let magic = rustix::fs::fstatfs(&found).or_fail(Stage::Console, failed)?.f_type as u64;
    let device = FileType::from_raw_mode(stat.st_mode as RawMode) == FileType::CharacterDevice;
    if !device || stat.st_rdev != rustix::fs::makedev(5, 2) || magic != DEVPTS {
        return Err(refuse(Stage::Console, "/dev/pts/ptmx is not a terminal multiplexer"));
    }
    let master = root.open_with(path, OFlags::RDWR | OFlags::NOCTTY).or_fail(Stage::Console, failed)?;
    let opened = rustix::fs::fstat(&master).or_fail(Stage::Console, failed)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(refuse(Stage::Console, "/dev/pts/ptmx changed while it was opened"));
    }
    rustix::pty::unlockpt(&master).or_fail(Stage::Console, || "unlock terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // TIOCGPTPEER: no name is resolved (CVE-2025-52565).
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).or_fail(Stage::Console, || "open terminal")?;
    if let Some(size) = size.filter(|s| s.height != 0 || s.width != 0) {
        resize(master.as_fd(), size).or_fail(Stage::Console, || "set terminal size")?;
    }
    Ok(Console { master, slave })
}

/// Sets a terminal's size in characters.
pub fn resize(terminal: BorrowedFd<'_>, size: ConsoleSize) -> rustix::io::Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Binds the process's end onto `/dev/console`.
pub(crate) fn bind(root: &Root, slave: &OwnedFd) -> Result<(), Failure> {
    let failed = || "bind terminal to /dev/console";
    let dev = root.make(Path::new("/dev"), Missing::Folder).or_fail(Stage::Console, failed)?;
    let tree = clone_tree(slave.as_fd(), Path::new(""), false).or_fail(Stage::Console, failed)?;
    crate::device::bind(&dev, OsStr::new("console"), &tree).or_fail(Stage::Console, failed)
}
