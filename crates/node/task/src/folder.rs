//! A container's folder under the exec root.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::TaskError;

pub(crate) const SOCKET: &str = "shim.sock";

/// Calls of clients that wait for the shim to come up.
const BACKLOG: i32 = 4096;

/// A prepared task folder with the socket that the shim will serve, already listening.
#[derive(Debug)]
pub struct TaskFolder {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
    pub(crate) listener: OwnedFd,
}

impl TaskFolder {
    pub(crate) fn make(id: &str, path: PathBuf) -> Result<TaskFolder, TaskError> {
        let failed = |operation| {
            let path = path.clone();
            move |e: rustix::io::Errno| TaskError::Folder { operation, path, source: e.into() }
        };
        match rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o700)) {
            Err(rustix::io::Errno::NOENT) => {
                if let Some(parent) = path.parent() {
                    make_parents(parent)?;
                }
                rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o700)).map_err(failed("mkdir"))?;
            }
            other => other.map_err(failed("mkdir"))?,
        }
        let dir = open(&path)?;
        rustix::fs::mkdirat(&dir, "rootfs", Mode::from_raw_mode(0o755)).map_err(failed("mkdir rootfs in"))?;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed("socket in"))?;
        let address = SocketAddrUnix::new(socket_path(&dir)).map_err(failed("socket in"))?;
        bind(&listener, &address).map_err(failed("bind in"))?;
        listen(&listener, BACKLOG).map_err(failed("listen in"))?;
        Ok(TaskFolder { id: id.to_owned(), path, dir, listener })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open folder.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Writes `config.json`.
    pub fn write_config(&self, json: &[u8]) -> Result<(), TaskError> {
        let failed = |source| TaskError::Folder { operation: "write config.json in", path: self.path.clone(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.dir, "config.json", flags, Mode::from_raw_mode(0o600))
            .map_err(|e| failed(e.into()))?;
        std::io::Write::write_all(&mut std::fs::File::from(fd), json).map_err(failed)
    }
}

fn make_parents(path: &Path) -> Result<(), TaskError> {
    use std::os::unix::fs::DirBuilderExt;
    // Not readable by others: a task folder's name is nobody's business, and its socket commands the container
    // (CVE-2021-41091, CVE-2020-15257).
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| TaskError::Folder {
        operation: "mkdir",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd, TaskError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| TaskError::Folder {
        operation: "open",
        path: path.to_owned(),
        source: e.into(),
    })
}

/// A path of the socket that fits into `sun_path` however long the exec root's is. Source: unix(7).
pub(crate) fn socket_path(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())
}
