//! Carrying out mounts, in the container's mount namespace, onto descriptors beneath its root.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, RawMode, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use wharf_sys::mount::{Attributes, set_attributes};
use wharf_types::{Failure, Stage};

use crate::copy_up::copy_up;
use crate::failure::{OrFail, refuse};
use crate::options::{Options, ms};
use crate::rooted::{Missing, Root, file_type, magic};
use crate::weaken::is_dropped;

/// A mount with its options read and its source made absolute.
#[derive(Debug)]
pub(crate) struct PlannedMount<'a> {
    pub destination: &'a Path,
    pub kind: &'a str,
    pub source: PathBuf,
    pub options: Options,
    /// The source's tree, where the caller had to open it because the child's user namespace may not.
    pub tree: Option<OwnedFd>,
    /// The user namespace whose id maps the mount takes.
    pub id_map: Option<OwnedFd>,
}

/// What a mount of type `cgroup` shows.
#[derive(Debug, Default)]
pub(crate) struct CgroupView {
    /// Folders by controllers (`cpu,cpuacct`, `name=systemd`; empty for the v2 hierarchy).
    pub folders: Vec<(String, PathBuf)>,
    /// Whether the host has the v2 hierarchy only.
    pub unified: bool,
    /// Whether the container has a cgroup namespace of its own.
    pub namespace: bool,
}

/// Paths in procfs that may be covered by single files (lxcfs and its like), as runc allows.
const COVERABLE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Clones the tree at a path: detached, to be changed and moved into place.
pub(crate) fn clone_tree(folder: BorrowedFd<'_>, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(folder, path, flags)
}

/// Attaches a detached tree at a descriptor.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// Changes attributes of an attached mount, by mount_setattr(2) or, before kernel 5.12, by a bind remount (the topmost mount only).
pub(crate) fn change(mount: BorrowedFd<'_>, recursive: bool, what: &Attributes<'_>) -> std::io::Result<()> {
    match set_attributes(mount, recursive, what) {
        Err(e) if e.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => remount(mount, recursive, what),
        other => other,
    }
}

fn remount(mount: BorrowedFd<'_>, recursive: bool, what: &Attributes<'_>) -> std::io::Result<()> {
    if what.id_map.is_some() {
        return Err(Errno::NOSYS.into());
    }
    let path = magic(mount);
    if what.set | what.clear != 0 {
        // A bind remount replaces all flags, so those the mount has are named again.
        let present = rustix::fs::fstatvfs(mount)?.f_flag.bits();
        let pairs = [
            (Attributes::RDONLY, ms::RDONLY, 0x1),
            (Attributes::NOSUID, ms::NOSUID, 0x2),
            (Attributes::NODEV, ms::NODEV, 0x4),
            (Attributes::NOEXEC, ms::NOEXEC, 0x8),
            (Attributes::NOATIME, ms::NOATIME, 0x400),
            (Attributes::NODIRATIME, ms::NODIRATIME, 0x800),
        ];
        let mut flags = ms::BIND;
        for (attribute, flag, shown) in pairs {
            let kept = present & shown != 0 && what.clear & attribute == 0;
            if kept || what.set & attribute != 0 {
                flags |= flag;
            }
        }
        rustix::mount::mount_remount(&path, MountFlags::from_bits_retain(flags as u32), c"")?;
    }
    if what.propagation != 0 {
        let flags = what.propagation | if recursive { ms::REC } else { 0 };
        rustix::mount::mount_change(&path, MountPropagationFlags::from_bits_retain(flags as u32))?;
    }
    Ok(())
}

/// mount(2) onto a descriptor.
fn mount_at(source: &Path, target: BorrowedFd<'_>, kind: &str, flags: u64, data: &str) -> rustix::io::Result<()> {
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::from_bits_retain(flags as u32);
    rustix::mount::mount(source, magic(target), kind, flags, Some(data.as_c_str()))
}

impl PlannedMount<'_> {
    pub(crate) fn failed(&self) -> String {
        let source = self.source.display();
        format!("error mounting {:?} to rootfs at {:?}", source.to_string(), self.destination.display().to_string())
    }

    /// Whether read-only is set only after everything is mounted, because things are still made inside (as runc does).
    fn read_only_last(&self) -> bool {
        self.options.flags & ms::RDONLY != 0 && !self.options.bind && (self.kind == "tmpfs" || self.is_dev())
    }

    pub(crate) fn is_dev(&self) -> bool {
        self.destination == Path::new("/dev")
    }

    /// Mounts it.
    pub(crate) fn perform(&self, root: &Root, cgroups: &CgroupView) -> Result<(), Failure> {
        if self.options.bind {
            return self.bind(root);
        }
        match self.kind {
            "cgroup" | "cgroup2" => crate::cgroup_view::mount(self, root, cgroups),
            _ => self.mount(root),
        }
    }

    /// The tree that a bind shows.
    pub(crate) fn source_tree(&self) -> rustix::io::Result<OwnedFd> {
        match clone_tree(CWD, &self.source, self.options.recursive) {
            // A detached mount that was handed over as a descriptor: before Linux 6.15 it cannot be cloned, and it is moved into
            // place.
            Err(Errno::INVAL) if self.source.starts_with("/proc/self/fd") => open_host(&self.source, OFlags::PATH),
            other => other,
        }
    }

    fn bind(&self, root: &Root) -> Result<(), Failure> {
        let opened;
        let tree = match &self.tree {
            Some(tree) => tree,
            None => {
                opened = self.source_tree().or_fail(Stage::Mount, || self.failed())?;
                &opened
            }
        };
        let folder = file_type(tree.as_fd()).or_fail(Stage::Mount, || self.failed())? == FileType::Directory;
        let missing = if folder { Missing::Folder } else { Missing::File };
        let target = root.make(self.destination, missing).or_fail(Stage::Mount, || self.failed())?;
        let onto = file_type(target.as_fd()).or_fail(Stage::Mount, || self.failed())?;
        if folder != (onto == FileType::Directory) {
            // move_mount(2) would say EINVAL; mount(2) says this, which Docker's clients know.
            return Err(Errno::NOTDIR).or_fail(Stage::Mount, || self.failed());
        }
        self.check_procfs(target.as_fd(), Some(tree.as_fd()))?;
        let late = self.prepare_tree(tree.as_fd())?;
        attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Mount, || self.failed())?;
        if late { self.attributes(tree.as_fd()) } else { Ok(()) }
    }

    /// Sets attributes while the tree is still detached, so that no one sees it without. Returns whether the kernel can
    /// only do it afterwards.
    fn prepare_tree(&self, tree: BorrowedFd<'_>) -> Result<bool, Failure> {
        if let Some(map) = &self.id_map {
            let what = Attributes { id_map: Some(map.as_fd()), ..Attributes::default() };
            let recursive = self.options.id_map == Some(true);
            set_attributes(tree, recursive, &what).or_fail(Stage::Mount, || self.failed())?;
        }
        let none = Attributes::default();
        match set_attributes(tree, false, &none) {
            Err(e) if e.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => Ok(true),
            _ => self.attributes(tree).map(|()| false),
        }
    }

    /// Sets the attributes and propagation that the options ask for.
    fn attributes(&self, mount: BorrowedFd<'_>) -> Result<(), Failure> {
        let (set, clear) = self.options.attributes();
        let failed = || self.failed();
        if self.options.bind && set | clear != 0 {
            change(mount, false, &Attributes { set, clear, ..Attributes::default() }).or_fail(Stage::Mount, failed)?;
        }
        let (set, clear) = self.options.tree;
        if set | clear != 0 {
            change(mount, true, &Attributes { set, clear, ..Attributes::default() }).or_fail(Stage::Mount, failed)?;
        }
        for propagation in &self.options.propagation {
            let what = Attributes { propagation: propagation & !ms::REC, ..Attributes::default() };
            change(mount, propagation & ms::REC != 0, &what).or_fail(Stage::Mount, failed)?;
        }
        Ok(())
    }

    fn mount(&self, root: &Root) -> Result<(), Failure> {
        // Whether there is something whose mode a tmpfs takes over.
        let existed = self.kind != "tmpfs" || root.open(self.destination).is_ok();
        let target = self.open_target(root)?;
        self.check_procfs(target.as_fd(), None)?;
        let mut data = self.options.data.join(",");
        let mut flags = self.options.flags;
        if self.kind == "tmpfs" && existed {
            // A folder that was there gives its mode, unless the options say otherwise.
            let mode = rustix::fs::fstat(&target).or_fail(Stage::Mount, || self.failed())?.st_mode & 0o7777;
            data = if data.is_empty() { format!("mode={mode:04o}") } else { format!("mode={mode:04o},{data}") };
        }
        if self.read_only_last() {
            flags &= !ms::RDONLY;
        }
        let covered = if self.options.copy_up {
            let folder = root.open_with(self.destination, OFlags::RDONLY | OFlags::DIRECTORY);
            Some(folder.or_fail(Stage::Mount, || self.failed())?)
        } else {
            None
        };
        mount_at(&self.source, target.as_fd(), self.kind, flags, &data).or_fail(Stage::Mount, || self.failed())?;
        if covered.is_none() && self.options.propagation.is_empty() && self.options.tree == (0, 0) {
            return Ok(());
        }
        let mounted = root.open(self.destination).or_fail(Stage::Mount, || self.failed())?;
        if let Some(covered) = covered {
            copy_up(covered.as_fd(), mounted.as_fd()).or_fail(Stage::Mount, || self.failed())?;
        }
        self.attributes(mounted.as_fd())
    }

    fn open_target(&self, root: &Root) -> Result<OwnedFd, Failure> {
        let ordinary = matches!(self.kind, "proc" | "sysfs") && !is_dropped("proc-folder");
        if ordinary {
            // CVE-2019-19921, CVE-2023-27561: an image whose /proc is a link would have it mounted elsewhere.
            match root.open_without_links(self.destination) {
                Ok(fd) => return Ok(fd),
                Err(Errno::NOENT) => {}
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let text = format!("filesystem {:?} must be mounted on ordinary directory", self.kind);
                    return Err(refuse(Stage::Mount, text));
                }
                Err(e) => return Err(e).or_fail(Stage::Mount, || self.failed()),
            }
        }
        root.make(self.destination, Missing::Folder).or_fail(Stage::Mount, || self.failed())
    }

    /// Refuses to cover anything in procfs, and /proc itself by anything but a procfs: what reads and writes
    /// there would be led astray.
    fn check_procfs(&self, target: BorrowedFd<'_>, tree: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        if is_dropped("proc-cover") {
            return Ok(());
        }
        let failed = || self.failed();
        let plain: PathBuf = self.destination.components().collect();
        let is_proc = |fd| -> Result<bool, Failure> {
            Ok(rustix::fs::fstatfs(fd).or_fail(Stage::Mount, failed)?.f_type as u64 == PROC_SUPER_MAGIC as u64)
        };
        if plain == Path::new("/proc") {
            let whole = match tree {
                Some(tree) => is_proc(tree)? && rustix::fs::fstat(tree).or_fail(Stage::Mount, failed)?.st_ino == 1,
                None => self.kind == "proc",
            };
            let text = || format!("{:?} cannot be mounted because it is not of type proc", "/proc");
            return if whole { Ok(()) } else { Err(refuse(Stage::Mount, text())) };
        }
        if !is_proc(target)? || COVERABLE.iter().any(|allowed| plain == Path::new(allowed)) {
            return Ok(());
        }
        // A second procfs on the root of one that is mounted elsewhere changes nothing for those who use /proc.
        let text = format!("{:?} cannot be mounted because it is inside /proc", plain.display().to_string());
        Err(refuse(Stage::Mount, text))
    }

    /// Makes it read-only if that was put off.
    pub(crate) fn finish(&self, root: &Root) -> Result<(), Failure> {
        if !self.read_only_last() {
            return Ok(());
        }
        let mounted = root.open(self.destination).or_fail(Stage::Mount, || self.failed())?;
        let what = Attributes { set: Attributes::RDONLY, ..Attributes::default() };
        change(mounted.as_fd(), false, &what).or_fail(Stage::Mount, || self.failed())
    }
}

/// Covers paths: files by /dev/null, folders by an empty read-only tmpfs. Paths that do not exist are left.
pub(crate) fn mask(root: &Root, paths: &[String]) -> Result<(), Failure> {
    if is_dropped("masks") {
        return Ok(());
    }
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let failed = || format!("mask path {path:?}");
        let target = match root.open(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.or_fail(Stage::Mount, failed)?,
        };
        let folder = file_type(target.as_fd()).or_fail(Stage::Mount, failed)? == FileType::Directory;
        if folder && empty.is_none() {
            // It is attached before it is cloned: kernels before 6.15 refuse to clone a mount that is attached nowhere, and
            // closing one that never was costs an RCU grace period, up to a millisecond and more.
            let cover = empty.insert(empty_folder(failed)?);
            attach(cover.as_fd(), target.as_fd()).or_fail(Stage::Mount, failed)?;
            continue;
        }
        if !folder && null.is_none() {
            null = Some(null_device(root, failed)?);
        }
        let Some(cover) = (if folder { &empty } else { &null }) else { continue };
        let tree = clone_tree(cover.as_fd(), Path::new(""), false).or_fail(Stage::Mount, failed)?;
        attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Mount, failed)?;
    }
    Ok(())
}

/// CVE-2025-31133: what is bound over masked files must really be the null device, not a link an image or a neighbour
/// put in its place.
fn null_device(root: &Root, failed: impl Fn() -> String) -> Result<OwnedFd, Failure> {
    if is_dropped("null-device") {
        return root.open(Path::new("/dev/null")).or_fail(Stage::Mount, &failed);
    }
    let fd = root.open_without_final_link(Path::new("/dev/null")).or_fail(Stage::Mount, &failed)?;
    let stat = rustix::fs::fstat(&fd).or_fail(Stage::Mount, &failed)?;
    let char_device = FileType::from_raw_mode(stat.st_mode as RawMode) == FileType::CharacterDevice;
    if !char_device || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(refuse(Stage::Mount, format!("{}: /dev/null is not the null device", failed())));
    }
    Ok(fd)
}

fn empty_folder(failed: impl Fn() -> String) -> Result<OwnedFd, Failure> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let fs = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).or_fail(Stage::Mount, &failed)?;
    rustix::mount::fsconfig_set_string(&fs, c"nr_blocks", c"1").or_fail(Stage::Mount, &failed)?;
    rustix::mount::fsconfig_set_string(&fs, c"nr_inodes", c"1").or_fail(Stage::Mount, &failed)?;
    rustix::mount::fsconfig_create(&fs).or_fail(Stage::Mount, &failed)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).or_fail(Stage::Mount, &failed)
}

/// Makes paths read-only by binding them onto themselves. Paths that do not exist are left.
pub(crate) fn make_read_only(root: &Root, paths: &[String]) -> Result<(), Failure> {
    if is_dropped("masks") {
        return Ok(());
    }
    for path in paths {
        let failed = || format!("make path {path:?} read-only");
        let target = match root.open(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.or_fail(Stage::Mount, failed)?,
        };
        let tree = clone_tree(target.as_fd(), Path::new(""), true).or_fail(Stage::Mount, failed)?;
        let what = Attributes { set: Attributes::RDONLY, ..Attributes::default() };
        match set_attributes(tree.as_fd(), true, &what) {
            Err(e) if e.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
                attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Mount, failed)?;
                change(tree.as_fd(), true, &what).or_fail(Stage::Mount, failed)?;
            }
            other => {
                other.or_fail(Stage::Mount, failed)?;
                attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Mount, failed)?;
            }
        }
    }
    Ok(())
}

/// Opens a path of the host's.
pub(crate) fn open_host(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
}
