//! Which namespaces are made and which are joined.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use wharf_oci::runtime::{Linux, NamespaceType, TimeOffset};
use wharf_sys::clone::{self, flags};
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::host::write_file;

/// The namespaces of a container as the configuration wants them.
#[derive(Debug, Default)]
pub(crate) struct Namespaces<'a> {
    /// Kinds that are new, as clone flags; the time namespace is not among them.
    pub new: u64,
    /// Kinds to be joined.
    pub joined: Vec<(u64, Handle<'a>)>,
    /// Clock offsets of a new time namespace.
    pub time: Option<Vec<(&'a str, TimeOffset)>>,
}

/// A namespace file, opened by us or lent.
#[derive(Debug)]
pub(crate) enum Handle<'a> {
    Opened(OwnedFd),
    Lent(BorrowedFd<'a>),
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Opened(fd) => fd.as_fd(),
            Handle::Lent(fd) => *fd,
        }
    }
}

/// The clone flag of a kind.
pub(crate) fn flag(kind: NamespaceType) -> u64 {
    match kind {
        NamespaceType::Pid => flags::NEWPID,
        NamespaceType::Network => flags::NEWNET,
        NamespaceType::Mount => flags::NEWNS,
        NamespaceType::Ipc => flags::NEWIPC,
        NamespaceType::Uts => flags::NEWUTS,
        NamespaceType::User => flags::NEWUSER,
        NamespaceType::Cgroup => flags::NEWCGROUP,
        NamespaceType::Time => flags::NEWTIME,
    }
}

/// All kinds the container has that are not the caller's, new or joined, as clone flags.
pub(crate) fn all(linux: &Linux, netns: bool) -> u64 {
    let listed = linux.namespaces.iter().fold(0, |all, n| all | flag(n.kind));
    if netns { listed | flags::NEWNET } else { listed }
}

impl<'a> Namespaces<'a> {
    /// Reads the configuration and opens the files of what is joined.
    pub(crate) fn plan(linux: &'a Linux, netns: Option<BorrowedFd<'a>>) -> Result<Self, Failure> {
        let mut this = Self::default();
        let mut seen = 0;
        for namespace in &linux.namespaces {
            let flag = flag(namespace.kind);
            if seen & flag != 0 {
                return Err(refuse(Stage::Config, format!("duplicated namespace {:?}", namespace.kind)));
            }
            seen |= flag;
            if flag == flags::NEWNET && netns.is_some() {
                continue;
            }
            match &namespace.path {
                Some(path) if !path.as_os_str().is_empty() => {
                    this.joined.push((flag, Handle::Opened(open(path)?)));
                }
                _ if flag == flags::NEWTIME => {
                    this.time = Some(linux.time_offsets.iter().map(|(clock, o)| (clock.as_str(), *o)).collect());
                }
                _ => this.new |= flag,
            }
        }
        if let Some(fd) = netns {
            if this.new & flags::NEWUSER != 0
                && let Some(owner) = other_owner(fd)?
            {
                // Made for this container, with these maps: only within it may sysfs of that network be mounted.
                this.new &= !flags::NEWUSER;
                this.joined.push((flags::NEWUSER, Handle::Opened(owner)));
            }
            this.joined.push((flags::NEWNET, Handle::Lent(fd)));
        }
        if this.time.is_none() && !linux.time_offsets.is_empty() {
            return Err(refuse(Stage::Config, "time namespace offsets specified, but time namespace isn't enabled"));
        }
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        let asked = linux
            .namespaces
            .iter()
            .any(|n| n.kind == NamespaceType::User && n.path.as_ref().is_none_or(|p| p.as_os_str().is_empty()));
        if asked && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
            return Err(refuse(Stage::Config, "user namespaces enabled, but no user mapping found"));
        }
        if maps && seen & flags::NEWUSER == 0 {
            return Err(refuse(Stage::Config, "user namespace mappings specified, but user namespace isn't enabled"));
        }
        Ok(this)
    }

    /// Whether a kind is joined.
    pub(crate) fn joins(&self, flag: u64) -> bool {
        self.joined.iter().any(|(f, _)| *f == flag)
    }

    /// Whether the container has a kind of its own, new or joined.
    pub(crate) fn has(&self, flag: u64) -> bool {
        self.new & flag != 0 || self.joins(flag) || (flag == flags::NEWTIME && self.time.is_some())
    }

    /// The flags for clone3. The cgroup namespace is unshared later, when the process is in its cgroup.
    pub(crate) fn at_clone(&self) -> u64 {
        self.new & !flags::NEWCGROUP
    }

    /// The user namespace to be joined. The new namespaces must belong to it, so the process that makes them by clone3
    /// has to be in it already.
    pub(crate) fn joined_user(&self) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|(flag, _)| *flag == flags::NEWUSER).map(|(_, handle)| handle.as_fd())
    }

    /// Whether a joined kind is entered by the caller before the clone, for the child to inherit: a child in another user
    /// namespace has no rights over namespaces of the initial one.
    fn before_clone(&self, flag: u64) -> bool {
        const INHERITED: u64 = flags::NEWNET | flags::NEWIPC | flags::NEWUTS;
        self.has(flags::NEWUSER) && flag & INHERITED != 0
    }

    /// In the child: joins what is left to join.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        const LEFT: u64 = flags::NEWNET | flags::NEWIPC | flags::NEWUTS | flags::NEWCGROUP;
        for (flag, handle) in self.joined.iter().filter(|(flag, _)| flag & LEFT != 0 && !self.before_clone(*flag)) {
            clone::setns(handle.as_fd(), *flag).or_fail(Stage::Namespace, || format!("join {}", name(*flag)))?;
        }
        Ok(())
    }
}

/// In the child, in a user namespace with maps: becomes its root.
pub(crate) fn become_root() -> Result<(), Failure> {
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    let (gid, uid) = (rustix::fs::Gid::ROOT, rustix::fs::Uid::ROOT);
    set_thread_res_gid(gid, gid, gid).or_fail(Stage::IdMap, || "become group 0 of the user namespace")?;
    set_thread_res_uid(uid, uid, uid).or_fail(Stage::IdMap, || "become user 0 of the user namespace")
}

/// The user namespace that a network namespace belongs to, if it is not the caller's.
pub fn other_owner(netns: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
    let failed = || "user namespace of the network";
    let owner = wharf_sys::users::owner(netns).or_fail(Stage::Namespace, failed)?;
    let own = open(Path::new("/proc/self/ns/user"))?;
    let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let same = number(&owner).or_fail(Stage::Namespace, failed)? == number(&own).or_fail(Stage::Namespace, failed)?;
    Ok((!same).then_some(owner))
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .or_fail(Stage::Namespace, || format!("open namespace {}", path.display()))
}

/// The kind's name, as in `/proc/<pid>/ns`.
pub(crate) fn name(flag: u64) -> &'static str {
    match flag {
        flags::NEWPID => "pid namespace",
        flags::NEWNET => "net namespace",
        flags::NEWNS => "mnt namespace",
        flags::NEWIPC => "ipc namespace",
        flags::NEWUTS => "uts namespace",
        flags::NEWUSER => "user namespace",
        flags::NEWCGROUP => "cgroup namespace",
        _ => "time namespace",
    }
}

/// Makes the caller's next children be born in other namespaces, until dropped.
///
/// The pid and time namespaces are entered by children only, so a single clone3 suffices where runc forks twice.
#[derive(Debug, Default)]
pub(crate) struct Birthplace {
    own: Vec<(u64, OwnedFd)>,
}

impl Birthplace {
    /// For a container that is made.
    pub(crate) fn for_create(namespaces: &Namespaces<'_>) -> Result<Self, Failure> {
        let mut this = Self::default();
        for (flag, handle) in &namespaces.joined {
            if matches!(*flag, flags::NEWPID | flags::NEWTIME) || namespaces.before_clone(*flag) {
                this.enter(*flag, handle.as_fd())?;
            }
        }
        if let Some(offsets) = &namespaces.time {
            this.remember(flags::NEWTIME)?;
            clone::unshare(flags::NEWTIME).or_fail(Stage::Namespace, || "new time namespace")?;
            let text: String =
                offsets.iter().map(|(clock, o)| format!("{clock} {} {}\n", o.secs, o.nanosecs)).collect();
            if !text.is_empty() {
                write_file("/proc/self/timens_offsets", text.as_bytes())
                    .or_fail(Stage::Namespace, || format!("time offsets {text:?}"))?;
            }
        }
        Ok(this)
    }

    /// For a process that is added to the container of `pidfd`, which has these kinds.
    pub(crate) fn for_exec(pidfd: BorrowedFd<'_>, kinds: u64) -> Result<Self, Failure> {
        let mut this = Self::default();
        for flag in [flags::NEWPID, flags::NEWTIME] {
            if kinds & flag != 0 {
                this.enter(flag, pidfd)?;
            }
        }
        Ok(this)
    }

    fn enter(&mut self, flag: u64, fd: BorrowedFd<'_>) -> Result<(), Failure> {
        self.remember(flag)?;
        clone::setns(fd, flag).or_fail(Stage::Namespace, || format!("join {}", name(flag)))
    }

    fn remember(&mut self, flag: u64) -> Result<(), Failure> {
        let path = match flag {
            flags::NEWPID => "/proc/self/ns/pid",
            flags::NEWNET => "/proc/self/ns/net",
            flags::NEWIPC => "/proc/self/ns/ipc",
            flags::NEWUTS => "/proc/self/ns/uts",
            _ => "/proc/self/ns/time",
        };
        self.own.push((flag, open(Path::new(path))?));
        Ok(())
    }
}

impl Drop for Birthplace {
    fn drop(&mut self) {
        for (flag, fd) in &self.own {
            // Going back to a namespace we came from a moment ago needs nothing we did not have then. If it failed all
            // the same, later children would be born in the container: that must not happen in silence.
            if let Err(e) = clone::setns(fd.as_fd(), *flag) {
                eprintln!("cannot return to own {}: {e}", name(*flag));
                std::process::abort();
            }
        }
    }
}
