//! A container's file system put together for the host's use: its root, its volumes and binds, and nothing else (no
//! /proc, /sys or /dev). It exists in a mount namespace that only one thread of the engine is in, so neither the
//! host nor the container sees it, and it is gone with the thread.
//!
//! Nothing of the container is executed, and no path of the container is ever resolved by the host's root
//! (CVE-2018-15664, CVE-2019-14271). Mount points are opened beneath the tree's root and mounted upon by descriptor;
//! they are made only where nobody else is at work in the tree (CVE-2026-41568, CVE-2026-42306).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags, fstatvfs, mkdirat, open, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use wharf_archive::Root;
use wharf_sys::clone::{flags::NEWNS, setns, unshare};
use wharf_types::{IdMaps, Mount};

/// Where a container's root comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// The mount namespace of its running processes.
    Running(OwnedFd),
    /// Its layers; nobody else mounts them meanwhile, unless they are only read.
    Resting {
        /// What its root is mounted from.
        mounts: Vec<Mount>,
        /// Only to be read: the writable layer is stacked upon the others.
        read_only: bool,
    },
}

/// One of its mount points.
#[derive(Debug)]
pub(super) struct Hung {
    /// Absolute path in the container.
    pub target: String,
    /// What is there when the container does not run; without it only a running container has it.
    pub source: Option<Source>,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// A path of the host, and a path within it that is resolved there.
#[derive(Debug)]
pub(super) struct Source {
    /// The host's.
    pub path: PathBuf,
    /// Within; empty for the path itself.
    pub within: String,
    /// Whether its owners are those of the container's user namespace: a volume's.
    pub shifted: bool,
}

/// What to put together.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its root.
    pub origin: Origin,
    /// Its mount points.
    pub points: Vec<Hung>,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// The ids of its user namespace.
    pub users: Option<IdMaps>,
    /// A directory of the host under which it is mounted, in the thread's own mount namespace.
    pub place: PathBuf,
}

/// A container's file system, put together.
#[derive(Debug)]
pub(super) struct Tree {
    /// Paths are opened through this.
    pub root: Root,
    /// The ids by which owners in the tree are the host's: a running container's. At rest they are those inside.
    pub users: Option<IdMaps>,
    root_id: u64,
    /// Whether a mount point was missing, so that what is mounted there cannot be seen.
    pub incomplete: bool,
}

/// Whether something can be made in a directory of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writable {
    /// Yes.
    Yes,
    /// No: it is in the root, which is read-only.
    RootReadOnly,
    /// No: it is in a mount that is read-only.
    MountReadOnly,
}

impl Tree {
    /// Puts a tree together in a mount namespace of the calling thread's own, which the thread never leaves.
    pub(super) fn enter(plan: Plan) -> io::Result<Tree> {
        unshare(NEWNS)?;
        // What the host mounts later may show here; what is mounted here never shows on the host.
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?;
        let running = matches!(plan.origin, Origin::Running(_));
        let (root, points) = match plan.origin {
            Origin::Running(namespace) => clones(namespace.as_fd(), plan.points)?,
            Origin::Resting { mounts, read_only } => {
                (resting_root(&mounts, read_only)?, resting_points(plan.points, plan.users.as_ref())?)
            }
        };
        attach(root.as_fd(), open_place(&plan.place)?.as_fd())?;
        let root = open_place(&plan.place)?;
        let root_id = mount_id(root.as_fd())?;
        let users = plan.users.filter(|_| running);
        let mut tree = Tree { root: Root::new(root), users, root_id, incomplete: false };
        for (point, mount) in points {
            let found = tree.root.open(Path::new(&point.target), OFlags::PATH, Mode::empty());
            let target = match found {
                Ok(fd) => fd,
                // In a running container somebody may be at work; nothing is made there.
                Err(e) if e.kind() == io::ErrorKind::NotFound && !running => {
                    match make_point(&tree.root, &point.target, mount.as_fd()) {
                        Ok(fd) => fd,
                        Err(_) => {
                            tree.incomplete = true;
                            continue;
                        }
                    }
                }
                Err(_) => continue,
            };
            if point.read_only {
                let read_only = wharf_sys::mount::Attributes {
                    set: wharf_sys::mount::Attributes::RDONLY,
                    ..wharf_sys::mount::Attributes::default()
                };
                wharf_sys::mount::set_attributes(mount.as_fd(), true, &read_only)?;
            }
            attach(mount.as_fd(), target.as_fd())?;
        }
        if plan.read_only {
            let read_only = wharf_sys::mount::Attributes {
                set: wharf_sys::mount::Attributes::RDONLY,
                ..wharf_sys::mount::Attributes::default()
            };
            let root = open_place(&plan.place)?;
            wharf_sys::mount::set_attributes(root.as_fd(), false, &read_only)?;
        }
        Ok(tree)
    }

    /// Whether something can be made in a directory that was opened in the tree.
    pub(super) fn writable(&self, folder: BorrowedFd<'_>) -> io::Result<Writable> {
        if !fstatvfs(folder)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(Writable::Yes);
        }
        Ok(if mount_id(folder)? == self.root_id { Writable::RootReadOnly } else { Writable::MountReadOnly })
    }
}

fn open_place(place: &Path) -> io::Result<OwnedFd> {
    Ok(open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", by_descriptor)?)
}

fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, "", flags)
}

/// Mounts, nearest to the root first, with what they are.
type Points = Vec<(Hung, OwnedFd)>;

/// Takes copies of the mounts of a running container: of its root alone, and of each mount point with what is below.
/// The calling thread goes into the container's mount namespace for that, and back.
fn clones(namespace: BorrowedFd<'_>, mut points: Vec<Hung>) -> io::Result<(OwnedFd, Points)> {
    let own = open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    points.sort_by_key(|p| p.target.matches('/').count());
    setns(namespace, NEWNS)?;
    let taken = (|| {
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = clone_of(root.as_fd(), false)?;
        let inside = Root::new(root);
        let mut list = Vec::new();
        for point in points {
            let Ok(fd) = inside.open(Path::new(&point.target), OFlags::PATH, Mode::empty()) else { continue };
            // What is there is what the container has there; a path that it has bent leads to something else of its own.
            if let Ok(mount) = clone_of(fd.as_fd(), true) {
                list.push((Hung { read_only: false, ..point }, mount));
            }
        }
        Ok::<_, io::Error>((copy, list))
    })();
    // Staying in the container's namespace would make its /proc ours.
    setns(own.as_fd(), NEWNS)?;
    taken
}

fn resting_points(mut points: Vec<Hung>, users: Option<&IdMaps>) -> io::Result<Points> {
    points.sort_by_key(|p| p.target.matches('/').count());
    let mut back = None;
    if let Some(users) = users.filter(|_| points.iter().any(|p| p.source.as_ref().is_some_and(|s| s.shifted))) {
        let (uids, gids) = users.reversed().files();
        back = Some(wharf_sys::users::make(&uids, &gids, false)?.user);
    }
    let mut list = Vec::new();
    for point in points {
        let Some(source) = &point.source else { continue };
        let Ok(mut fd) = open(&source.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        if !source.within.is_empty() {
            let Ok(inner) = Root::new(fd).open(Path::new(&source.within), OFlags::PATH, Mode::empty()) else {
                continue;
            };
            fd = inner;
        }
        let mount = clone_of(fd.as_fd(), true)?;
        if let Some(back) = back.as_ref().filter(|_| source.shifted) {
            let id_map = Some(back.as_fd());
            let shift = wharf_sys::mount::Attributes { id_map, ..wharf_sys::mount::Attributes::default() };
            // Not every file system can; its files then show the host's owners.
            let _ = wharf_sys::mount::set_attributes(mount.as_fd(), true, &shift);
        }
        list.push((point, mount));
    }
    Ok(list)
}

/// Mounts a container's layers, attached nowhere.
fn resting_root(mounts: &[Mount], read_only: bool) -> io::Result<OwnedFd> {
    let Some(mount) = mounts.first() else { return Err(Errno::INVAL.into()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = |path: &str| open(path, flags, Mode::empty());
    if mount.kind != "overlay" {
        return Ok(clone_of(folder(&mount.source)?.as_fd(), false)?);
    }
    let value = |key: &str| mount.options.iter().find_map(|o| o.strip_prefix(key));
    let mut lowers = Vec::new();
    if read_only && let Some(upper) = value("upperdir=") {
        lowers.push(folder(upper)?);
    }
    for path in value("lowerdir=").into_iter().flat_map(|l| l.split(':')) {
        lowers.push(folder(path)?);
    }
    if let ([only], true) = (lowers.as_slice(), read_only) {
        return Ok(clone_of(only.as_fd(), false)?);
    }
    let writable = match (read_only, value("upperdir="), value("workdir=")) {
        (false, Some(upper), Some(work)) => Some((folder(upper)?, folder(work)?)),
        _ => None,
    };
    let own = ["lowerdir=", "upperdir=", "workdir="];
    let others: Vec<&String> = mount.options.iter().filter(|o| !own.iter().any(|k| o.starts_with(k))).collect();
    // Before Linux 6.5 overlayfs takes any option and refuses only when the mount is made.
    overlay(&lowers, writable.as_ref(), &others, true).or_else(|_| overlay(&lowers, writable.as_ref(), &others, false))
}

fn overlay(
    lowers: &[OwnedFd],
    writable: Option<&(OwnedFd, OwnedFd)>,
    others: &[&String],
    one_by_one: bool,
) -> io::Result<OwnedFd> {
    // Paths by descriptor are short, because option strings end at 256 bytes.
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in others {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    if one_by_one {
        lowers.iter().try_for_each(|l| fsconfig_set_string(context.as_fd(), "lowerdir+", path(l)))?;
    } else {
        let all: Vec<String> = lowers.iter().map(path).collect();
        fsconfig_set_string(context.as_fd(), "lowerdir", all.join(":"))?;
    }
    let mut attributes = MountAttrFlags::empty();
    match writable {
        Some((upper, work)) => {
            fsconfig_set_string(context.as_fd(), "upperdir", path(upper))?;
            fsconfig_set_string(context.as_fd(), "workdir", path(work))?;
        }
        None => {
            fsconfig_set_flag(context.as_fd(), "ro")?;
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes a mount point, a folder or an empty file as what is to be mounted, with the folders that lead to it.
fn make_point(root: &Root, target: &str, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let is_folder =
        rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode) == rustix::fs::FileType::Directory;
    let target = Path::new(target.trim_start_matches('/'));
    let mut path = PathBuf::new();
    let mut parent = root.directory(Path::new(""))?;
    let count = target.components().count();
    for (i, part) in target.components().enumerate() {
        path.push(part);
        if i + 1 == count && !is_folder {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, part.as_os_str(), flags, Mode::from_raw_mode(0o644))?;
            return root.open(&path, OFlags::PATH, Mode::empty());
        }
        match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        parent = root.directory(&path)?;
    }
    Ok(parent)
}

/// Takes a copy of a mount of a running container, attached nowhere.
pub(crate) fn mount_of(pid: u32, container: &str, path: &str) -> io::Result<OwnedFd> {
    let namespace = namespace_of(pid, container)?;
    let path = path.to_owned();
    // A thread that was in a container's mount namespace is of no further use.
    let thread = std::thread::Builder::new().name("mounts".to_owned()).spawn(move || {
        unshare(NEWNS)?;
        setns(namespace.as_fd(), NEWNS)?;
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let fd = Root::new(root).open(Path::new(&path), OFlags::PATH, Mode::empty())?;
        Ok(clone_of(fd.as_fd(), false)?)
    });
    thread?.join().unwrap_or_else(|_| Err(Errno::IO.into()))
}

/// Opens the mount namespace of a container's first process. Its id may have become another process's meanwhile, which
/// its cgroup tells; the opened directory stays that of the process that was looked at.
pub(super) fn namespace_of(pid: u32, container: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
    let groups = openat(&process, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let groups = io::read_to_string(std::fs::File::from(groups))?;
    if !groups.contains(container) {
        return Err(Errno::SRCH.into());
    }
    Ok(openat(&process, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
