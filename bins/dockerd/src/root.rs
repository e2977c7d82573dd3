//! The daemon's claim on its folders: instance id, lock on the data root, PID file, and the refusal of another engine's data.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use wharf_error::{HasKind, Kind, kind_of_io};
use wharf_types::InstanceId;

/// Why the daemon may not use a folder.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The data root is Docker's own.
    #[error(
        "{0} holds the data of another engine (Docker); Wharf leaves it untouched. Choose another folder with --data-root, or move that one away"
    )]
    Foreign(PathBuf),
    /// Another daemon uses the data root.
    #[error("another daemon uses the data root {0}: stop it, or choose another folder with --data-root")]
    Held(PathBuf),
    /// The PID file names a live process.
    #[error(
        "failed to start daemon, ensure docker is not running or delete {path}: process with PID {pid} is still running"
    )]
    Running {
        /// The PID file.
        path: PathBuf,
        /// Who it names.
        pid: i32,
    },
    /// A system call failed.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl HasKind for RootError {
    fn kind(&self) -> Kind {
        match self {
            Self::Foreign(_) | Self::Held(_) | Self::Running { .. } => Kind::Conflict,
            Self::Io { source, .. } => kind_of_io(source),
        }
    }
}

fn io_error<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RootError + 'a {
    move |source| RootError::Io { operation, path: path.to_owned(), source }
}

/// A data root that this process holds until it ends.
#[derive(Debug)]
pub struct DataRoot {
    /// Marks this data root's kernel objects.
    pub instance: InstanceId,
    // The lock goes with the descriptor.
    _lock: File,
}

/// How long the lock of a killed daemon may be held by what it was starting.
const INHERITED: Duration = Duration::from_millis(500);

/// Names that only Docker's own data root has, at its top.
const DOCKERS: &[&str] = &["engine-id", "buildkit", "image", "overlay2", "containerd", "network"];

impl DataRoot {
    /// Makes the folder if need be, refuses another engine's, takes the lock, and reads or makes the instance id.
    ///
    /// The folder gets mode 0710 as Docker's (CVE-2021-41091: others must not traverse it).
    pub fn claim(path: &Path) -> Result<Self, RootError> {
        let ours = path.join("wharf");
        if !ours.exists() && DOCKERS.iter().any(|name| path.join(name).exists()) {
            return Err(RootError::Foreign(path.to_owned()));
        }
        make_folder(path, 0o710)?;
        make_folder(&ours, 0o700)?;
        let lock = ours.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&lock).map_err(io_error("open", &lock))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // A daemon that was killed while it started a program leaves the lock to that until it is executed.
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < INHERITED => std::thread::sleep(INHERITED / 50),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RootError::Held(path.to_owned())),
                Err(e) => return Err(io_error("lock", &lock)(e.into())),
            }
        }
        let instance = instance(&ours.join("instance"))?;
        Ok(Self { instance, _lock: file })
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), RootError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(io_error("create folder", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("set mode of", path))
}

/// Reads the instance id, or makes it. It is written under another name first: a torn one would orphan kernel objects.
fn instance(path: &Path) -> Result<InstanceId, RootError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let damaged = |e| io::Error::new(io::ErrorKind::InvalidData, e);
            return InstanceId::parse(text.trim()).map_err(|e| io_error("read", path)(damaged(e)));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error("read", path)(e)),
    }
    let mut bytes = [0; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| io_error("draw random bytes for", path)(e.into()))?;
    let id = InstanceId::from_bytes(bytes);
    let draft = path.with_extension("new");
    let write = || {
        let mut file = File::create(&draft)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(io_error("write", path))?;
    Ok(id)
}

/// A PID file, removed when dropped if it still is ours.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id, unless the file names another live process.
    pub fn write(path: &Path) -> Result<Self, RootError> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.exists()) {
            fs::create_dir_all(folder).map_err(io_error("create folder", folder))?;
        }
        let own = rustix::process::getpid();
        let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = open.map_err(io_error("open", path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io_error("read", path))?;
        if let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
            && pid != own
            && is_alive(pid)
        {
            return Err(RootError::Running { path: path.to_owned(), pid: pid.as_raw_nonzero().get() });
        }
        let mut write = || {
            file.rewind()?;
            file.set_len(0)?;
            write!(file, "{}", own.as_raw_nonzero())
        };
        write().map_err(io_error("write", path))?;
        Ok(Self { path: path.to_owned() })
    }
}

/// Whether a process lives. One that was killed and that its parent has not waited for does not (proc_pid_stat(5)).
fn is_alive(pid: rustix::process::Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state stands behind the name, which may hold anything, parentheses too.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    rustix::process::test_kill_process(pid).is_ok() && !matches!(state, Some('Z' | 'X'))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let own = rustix::process::getpid().as_raw_nonzero().to_string();
        if fs::read_to_string(&self.path).is_ok_and(|text| text == own) {
            // Nothing can be done about a failure at the end; the next daemon takes over a stale file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_root_is_held_once_and_keeps_its_instance_id() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("data");
        let first = DataRoot::claim(&path).expect("claimed");
        assert!(matches!(DataRoot::claim(&path), Err(RootError::Held(_))));
        let id = first.instance.clone();
        drop(first);
        assert_eq!(DataRoot::claim(&path).expect("claimed again").instance, id);
    }

    #[test]
    fn dockers_own_data_root_is_refused_and_not_written_to() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("overlay2")).expect("made");
        let error = DataRoot::claim(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("--data-root"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn cve_2021_41091_others_cannot_traverse_the_data_root() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("data");
        DataRoot::claim(&path).expect("claimed");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o007, 0);
    }

    #[test]
    fn a_pid_file_that_names_a_live_process_is_kept_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pid");
        fs::write(&path, "1").expect("written");
        assert!(matches!(PidFile::write(&path), Err(RootError::Running { pid: 1, .. })));
        fs::write(&path, "2147483000").expect("written");
        let file = PidFile::write(&path).expect("stale");
        assert_eq!(fs::read_to_string(&path).expect("read"), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());
    }
}
