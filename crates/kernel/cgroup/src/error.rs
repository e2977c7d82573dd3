//! What can go wrong with a group.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use wharf_error::{HasKind, Kind, kind_of_io};

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted, or its description in /proc could not be read.
    #[error("find cgroup mounts in {path}")]
    Detect {
        /// The file in /proc.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// systemd did not do what it was asked for.
    #[error("{operation} systemd unit {unit}")]
    Systemd {
        /// What was asked for.
        operation: &'static str,
        /// The unit.
        unit: String,
        /// What it said.
        source: io::Error,
    },
    /// A limit needs a controller that this host does not have.
    #[error("cgroup controller {controller} is not available on this host, {file} cannot be set")]
    NoController {
        /// The controller's name.
        controller: String,
        /// The file that would have been written.
        file: String,
    },
    /// A file of the group could not be written.
    #[error("failed to write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What should have been written.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the group could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The group's folder could not be made.
    #[error("create cgroup {path}")]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The group's folder could not be opened.
    #[error("open cgroup {path}")]
    Open {
        /// The folder or file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A process could not be moved into the group.
    #[error("enter cgroup {path}")]
    Enter {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The group could not be removed before the deadline.
    #[error("remove cgroup {path}")]
    Delete {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The group exists and has processes.
    #[error("container's cgroup is not empty: {processes} process(es) found in {path}")]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        processes: usize,
    },
    /// A limit is below what is in use.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse {
        /// The limit in bytes that was asked for.
        limit: String,
        /// Bytes in use now.
        usage: u64,
        /// Most bytes ever in use.
        peak: u64,
    },
    /// A value can not be right on any host.
    #[error("{what} {value:?} is invalid")]
    Value {
        /// What is limited.
        what: &'static str,
        /// The value that was asked for.
        value: String,
    },
    /// The device filter could not be loaded.
    #[error("load device filter for {path}")]
    Devices {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The freezer did not reach the state asked for before the deadline.
    #[error("cgroup {path} did not become {state} in time")]
    Freeze {
        /// The folder.
        path: PathBuf,
        /// `frozen` or `thawed`.
        state: &'static str,
    },
}

impl CgroupError {
    /// Whether the caller has no right to what was tried.
    pub fn is_denied(&self) -> bool {
        let source = std::error::Error::source(self).and_then(|s| s.downcast_ref::<std::io::Error>());
        let errno = source.and_then(std::io::Error::raw_os_error);
        let denied = [Errno::ACCESS, Errno::PERM, Errno::ROFS].map(|e| Some(e.raw_os_error()));
        denied.contains(&errno)
    }
}

impl HasKind for CgroupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Value { .. } | Self::NoController { .. } => Kind::Invalid,
            Self::Occupied { .. } | Self::MemoryInUse { .. } => Kind::Conflict,
            Self::Freeze { .. } => Kind::Deadline,
            Self::Detect { source, .. }
            | Self::Write { source, .. }
            | Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Open { source, .. }
            | Self::Enter { source, .. }
            | Self::Delete { source, .. }
            | Self::Systemd { source, .. }
            | Self::Devices { source, .. } => kind_of_io(source),
        }
    }
}
