//! What is remembered of containers between commands.
//!
//! ```text
//! <root>/<id>/            0700
//!   state.json            the record; there from the moment the container exists
//!   gate.sock             there while it is created and not started
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use serde::{Deserialize, Serialize};
use wharf_oci::runtime::{Spec, State, Status};
use wharf_runtime::{Container, Known, start_time};
use wharf_types::Timestamp;

use crate::error::Error;

/// A container as the file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub id: String,
    /// The first process.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    pub bundle: PathBuf,
    pub created: Timestamp,
    /// The configuration it was created with; the bundle's file may have changed since.
    pub config: Spec,
    /// The systemd unit that its cgroup is, if one made it.
    #[serde(default)]
    pub systemd: Option<String>,
    /// Whether it may be without cgroup.
    #[serde(default)]
    pub rootless: bool,
}

/// The folder of one container.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

/// Whether a text can be an id: what runc takes, so that it is one plain file name.
pub fn check_id(id: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() {
        return Err(Error::NoId);
    }
    if id.len() > 1024 || matches!(id, "." | "..") || !id.bytes().all(plain) {
        return Err(Error::Id(id.chars().take(80).collect()));
    }
    Ok(())
}

/// Makes the folder of a new container.
pub fn make(root: &Path, id: &str) -> Result<Folder, Error> {
    check_id(id)?;
    // 0711 as runc's: traversable, not listable; the containers' own folders are closed (CVE-2021-41091).
    fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(file("create", root))?;
    let path = root.join(id);
    let mode = if wharf_runtime::weaken::is_dropped("state-mode") { 0o755 } else { 0o700 };
    match fs::DirBuilder::new().mode(mode).create(&path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists),
        Err(e) => Err(file("create", &path)(e)),
        Ok(()) => Ok(Folder { path }),
    }
}

/// Finds the folder of a container and reads its record.
pub fn open(root: &Path, id: &str) -> Result<(Folder, Record), Error> {
    check_id(id)?;
    let folder = Folder { path: root.join(id) };
    let path = folder.path.join("state.json");
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoSuchContainer),
        other => other.map_err(file("read", &path))?,
    };
    let record = serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })?;
    Ok((folder, record))
}

/// The ids of all containers, sorted.
pub fn ids(root: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file("read", root))?,
    };
    let mut ids: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|id| check_id(id).is_ok()).collect();
    ids.sort();
    Ok(ids)
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut f| f.write_all(text))
        .and_then(|()| fs::rename(&new, path))
        .map_err(file("write", path))
}

impl Folder {
    /// Remembers a container.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.path.join("state.json");
        let text = serde_json::to_vec(record).map_err(|source| Error::Json { path: path.clone(), source })?;
        write_whole(&path, &text, 0o600)
    }

    /// The name of the user who made it, or the number of one who has no name.
    pub fn owner(&self) -> String {
        let Ok(uid) = fs::metadata(&self.path).map(|m| m.uid()) else { return String::new() };
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        name.unwrap_or_else(|| uid.to_string())
    }

    /// Forgets it.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(file("remove", &self.path)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn gate(&self) -> PathBuf {
        self.path.join("gate.sock")
    }

    /// Runs `work` with an address of the gate that is short enough for `sun_path`, whatever the folder's name.
    fn with_address<T>(&self, work: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>) -> io::Result<T> {
        let folder = fs::File::open(&self.path)?;
        let path = format!("/proc/self/fd/{}/gate.sock", folder.as_raw_fd());
        Ok(work(&SocketAddrUnix::new(path)?)?)
    }

    fn socket() -> rustix::io::Result<OwnedFd> {
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
    }

    /// Makes the gate's listening socket.
    pub fn listen(&self) -> Result<OwnedFd, Error> {
        let made = self.with_address(|address| {
            let socket = Self::socket()?;
            bind(&socket, address)?;
            listen(&socket, 1)?;
            Ok(socket)
        });
        made.map_err(file("listen on", &self.gate()))
    }

    /// Connects to the gate; `None` if there is none: the container was started already.
    pub fn connect(&self) -> Result<Option<OwnedFd>, Error> {
        if !self.gate().exists() {
            return Ok(None);
        }
        let made = self.with_address(|address| {
            let socket = Self::socket()?;
            connect(&socket, address)?;
            Ok(socket)
        });
        made.map(Some).map_err(file("connect to", &self.gate()))
    }

    /// Takes the gate away: the container is started.
    pub fn remove_gate(&self) -> Result<(), Error> {
        match fs::remove_file(self.gate()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(file("remove", &self.gate())),
        }
    }

    /// Where the container is in its life.
    pub fn status(&self, record: &Record) -> Result<Status, Error> {
        match start_time(record.pid) {
            Some((started, true)) if started == record.started => {}
            _ => return Ok(Status::Stopped),
        }
        if self.gate().exists() {
            return Ok(Status::Created);
        }
        match record.container() {
            Err(wharf_runtime::Error::NotRunning) => Ok(Status::Stopped),
            Err(e) => Err(e.into()),
            Ok(container) => {
                let frozen = container.cgroup().is_some_and(|c| c.is_frozen().unwrap_or(false));
                Ok(if frozen { Status::Paused } else { Status::Running })
            }
        }
    }
}

impl Record {
    /// Takes hold of the running container.
    pub fn container(&self) -> Result<Container, wharf_runtime::Error> {
        Container::open(&Known {
            id: &self.id,
            bundle: &self.bundle,
            spec: &self.config,
            pid: self.pid,
            started: self.started,
            rootless: self.rootless,
        })
    }

    /// The processes in its cgroup; none where it is gone.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        match self.container() {
            Ok(container) => Ok(container.pids()?),
            Err(wharf_runtime::Error::NotRunning) => {
                Ok(wharf_runtime::pids_of_rest(&self.id, &self.config).unwrap_or_default())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The state as the specification has it.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.config.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: Some(if status == Status::Stopped { 0 } else { self.pid }),
            bundle: self.bundle.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_file_names() {
        for id in ["", ".", "..", "a/b", "../x", "a b", "ä"] {
            assert!(check_id(id).is_err(), "{id}");
        }
        assert!(check_id("abc-1_2.3+4").is_ok());
    }

    #[test]
    fn an_id_is_taken_once_and_a_missing_one_does_not_exist() {
        let root = tempfile::tempdir().expect("folder");
        make(root.path(), "x").expect("made");
        assert!(matches!(make(root.path(), "x"), Err(Error::Exists)));
        assert!(matches!(open(root.path(), "y"), Err(Error::NoSuchContainer)));
        assert_eq!(ids(root.path()).expect("ids"), ["x"]);
    }

    #[test]
    fn the_gate_works_below_a_folder_with_a_long_name() {
        let root = tempfile::tempdir().expect("folder");
        let deep = root.path().join("d".repeat(120));
        let folder = make(&deep, &"i".repeat(100)).expect("made");
        assert!(folder.connect().expect("looked").is_none());
        let _listener = folder.listen().expect("listening");
        assert!(folder.connect().expect("connected").is_some());
    }
}
