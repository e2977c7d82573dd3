//! The OCI runtime as a library: create, start, exec, kill, delete.
//!
//! Synchronous, for a single-threaded caller: the process that calls [`create`] becomes the parent of the container's
//! first process and reaps it (through [`Container::pidfd`]). Everything that can be checked, opened or computed is done
//! before clone3(2); the child then carries out a prepared plan and reports over one socket, as [`types::Failure`].
//!
//! ```text
//! create ── plan ── cgroup ── clone3 ──────────────── reads "ready" ── hooks ── returns Container
//!                                └─ child: namespaces, mounts, pivot, user … "ready" ── gate ── seccomp ── execve
//! ```
//!
//! [`types::Failure`]: wharf_types::Failure
//!
//! # What keeps the host safe
//!
//! * Paths of the configuration are opened beneath the root by descriptor (`rooted`), mounts are attached to descriptors,
//!   terminals are opened by TIOCGPTPEER; no path inside is resolved by name on the host.
//! * procfs is written through the host's own, opened and verified before the clone (`host`).
//! * Before the directory is entered all descriptors but the streams, the preserved ones and the report socket are closed,
//!   and the directory must have a name inside (CVE-2024-21626).
//! * A process that joins a container is not dumpable until its execve(2) (CVE-2016-9962).
//! * Until that execve(2) a child of ours is still the caller's program, which a container can reach as `/proc/<pid>/exe` and can
//!   even be made to execute (CVE-2019-5736). So the *caller* must run from a file that cannot be written that way:
//!   `wharf-runtime` executes itself anew from a read-only mount, and dockerd starts shims from one
//!   ([`wharf_sys::image`]).
//!
//! # What it refuses
//!
//! `linux.intelRdt` without resctrl, labels without SELinux or AppArmor, NOTIFY as seccomp's default action or for write(2), and a
//! container without a mount namespace of its own: each with the [`Stage`](wharf_types::Stage) it belongs to. An overlay in a user namespace needs Linux 6.5, as its parts are then
//! mounted by fsconfig(2); id-mapped mounts need 5.12.

mod affinity;
mod ahead;
mod capability;
mod cgroup_view;
mod console;
mod container;
mod copy_up;
mod create;
pub mod criu;
mod device;
mod failure;
mod gate;
mod hook;
mod host;
mod idmap;
mod init;
mod join;
mod mounting;
mod namespaces;
mod net_device;
mod notify;
mod options;
mod passwd;
mod pivot;
mod process;
mod rdt;
mod rooted;
mod rootfs;
mod scheduling;
mod sysctl;
pub mod weaken;
mod wire;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_error::{HasKind, Kind};
use wharf_oci::runtime as oci;
use wharf_types::{Failure, Mount};

pub use ahead::prepare;
pub use capability::names as capability_names;
pub use console::resize;
pub use container::{Container, Known, kill_rest, make_cgroup, pids_of_rest, remove, start_time};
pub use create::create;
pub use namespaces::other_owner;
pub use options::names as mount_options;
pub use rootfs::mount_root;
pub use scheduling::{memory_flags, memory_modes};

/// What [`create`] needs.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id: names the session keyring, and the cgroup where the configuration names none.
    pub id: &'a str,
    /// The bundle's folder: relative paths of the configuration start here; hooks are told it.
    pub bundle: &'a Path,
    /// The configuration.
    pub spec: &'a oci::Spec,
    /// Mounts that make the root file system, done in the container's mount namespace over `root.path` in this order; empty
    /// when `root.path` holds it already.
    pub rootfs_mounts: &'a [Mount],
    /// The first process's standard streams.
    pub stdio: Stdio<'a>,
    /// The network namespace to join, instead of what the configuration says.
    pub netns: Option<BorrowedFd<'a>>,
    /// What the first process waits at before it becomes the user's program.
    pub gate: Gate,
    /// Descriptors 3 to 3+n−1 of the caller stay open in the first process.
    pub preserve_fds: u32,
    /// chroot(2) into a moved mount instead of pivot_root(2), for hosts whose root is an initramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Have systemd make the cgroup: `linux.cgroupsPath` is then `slice:prefix:name`.
    pub systemd: bool,
    /// Go on without cgroup where the caller may make none and no limit is asked for.
    pub rootless: bool,
}

/// Standard streams of a process.
#[derive(Clone, Copy, Debug)]
pub enum Stdio<'a> {
    /// These become descriptors 0, 1 and 2.
    Descriptors([BorrowedFd<'a>; 3]),
    /// A pseudo-terminal of the container's devpts; its controlling end is given by `take_console`.
    Terminal,
}

/// What the first process waits at.
#[derive(Debug)]
pub enum Gate {
    /// The caller opens it with [`Container::start`].
    Caller,
    /// Whoever connects to this listening unix socket opens it, and reads what failed afterwards from the connection (end of file:
    /// the user's program runs). For a start by another process than the creator: [`start_by_socket`].
    Socket(OwnedFd),
}

/// What [`Container::exec`] needs.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The process. Its capabilities, labels and the like are its own; the seccomp filter is the container's.
    pub process: &'a oci::Process,
    /// Its standard streams.
    pub stdio: Stdio<'a>,
    /// Descriptors 3 to 3+n−1 of the caller stay open in it.
    pub preserve_fds: u32,
    /// Existing groups below the container's to run in: controllers separated by commas (none for all) and path.
    pub groups: &'a [(String, String)],
}

/// A process that [`Container::exec`] started. The caller is its parent and reaps it.
#[derive(Debug)]
pub struct Process {
    /// Its id in the caller's namespace.
    pub pid: i32,
    /// The process as a descriptor.
    pub pidfd: OwnedFd,
    /// The controlling end of its terminal, if it has one.
    pub console: Option<OwnedFd>,
}

/// Why an operation on an existing container failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first process has ended.
    #[error("container not running")]
    NotRunning,
    /// A signal could not be sent.
    #[error("sending signal {signal} to process {pid}")]
    Kill {
        /// Signal number.
        signal: u8,
        /// Process id.
        pid: i32,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Its cgroup could not be used.
    #[error(transparent)]
    Cgroup(wharf_cgroup::CgroupError),
    /// A hook failed, or the configuration it was created with cannot be carried out any more.
    #[error(transparent)]
    Configuration(Failure),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NotRunning => Kind::Conflict,
            Error::Kill { .. } | Error::Configuration(_) => Kind::System,
            Error::Cgroup(e) => e.kind(),
        }
    }
}

/// Opens the gate of a container that waits at [`Gate::Socket`]; `connection` is connected to that socket.
///
/// Errors: as [`Container::start`].
pub fn start_by_socket(connection: BorrowedFd<'_>) -> Result<(), Failure> {
    gate::open(connection)
}
