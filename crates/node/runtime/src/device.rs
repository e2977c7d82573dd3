//! `/dev`: device nodes and the links that every container has.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Uid, openat};
use rustix::io::Errno;
use wharf_oci::runtime::{Device, DeviceType};
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::mounting::{attach, clone_tree};
use crate::rooted::Root;

/// Character devices every container has: name, major, minor (OCI config-linux.md, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("tty", 5, 0), ("random", 1, 8), ("urandom", 1, 9)];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// A node to make.
#[derive(Debug)]
pub(crate) struct Node {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
    /// The host's node to bind, where the container's user namespace may make none.
    bound: Option<OwnedFd>,
    /// Whether the first process opens that itself, because the caller has no right to.
    bound_inside: bool,
}

impl Node {
    fn failed(&self) -> String {
        format!("error creating device nodes: {}", self.path.display())
    }
}

/// The default devices and those of the configuration; `bind` takes the host's for a user namespace, opened `here` or inside.
pub(crate) fn plan(devices: &[Device], bind: bool, here: bool) -> Result<Vec<Node>, Failure> {
    let mut nodes: Vec<Node> = Vec::with_capacity(DEFAULT.len() + devices.len());
    for (name, major, minor) in DEFAULT {
        let path = PathBuf::from(format!("/dev/{name}"));
        // The configuration's own description of a default device wins.
        if devices.iter().all(|d| d.path != path) {
            let number = rustix::fs::makedev(major, minor);
            let kind = FileType::CharacterDevice;
            nodes.push(Node { path, kind, number, mode: 0o666, owner: (0, 0), bound: None, bound_inside: false });
        }
    }
    for device in devices {
        nodes.push(node(device)?);
    }
    for node in nodes.iter_mut().filter(|_| bind) {
        if !here {
            node.bound_inside = true;
            continue;
        }
        let tree = clone_tree(CWD, &node.path, false).or_fail(Stage::Device, || node.failed())?;
        node.bound = Some(tree);
    }
    Ok(nodes)
}

fn node(device: &Device) -> Result<Node, Failure> {
    let refused = |what: &str| Err(refuse(Stage::Config, format!("device {}: {what}", device.path.display())));
    if !device.path.is_absolute() {
        return refused("path is not absolute");
    }
    let kind = match device.kind {
        DeviceType::Block => FileType::BlockDevice,
        DeviceType::Char | DeviceType::Unbuffered => FileType::CharacterDevice,
        DeviceType::Fifo => FileType::Fifo,
        DeviceType::All => return refused("type \"a\" is no type of a node"),
    };
    let number = match (u32::try_from(device.major), u32::try_from(device.minor)) {
        (Ok(major), Ok(minor)) => rustix::fs::makedev(major, minor),
        _ if kind == FileType::Fifo => 0,
        _ => return refused("invalid major or minor number"),
    };
    Ok(Node {
        path: device.path.clone(),
        kind,
        number,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        bound: None,
        bound_inside: false,
    })
}

/// Makes the nodes. The file mode creation mask must be 0.
pub(crate) fn make(root: &Root, nodes: &[Node]) -> Result<(), Failure> {
    // Nearly all are in /dev: its descriptor is kept. Each path is resolved beneath the root all the same.
    let mut last: Option<(&Path, OwnedFd)> = None;
    for node in nodes {
        let failed = || node.failed();
        let parent = node.path.parent().unwrap_or(Path::new("/"));
        let name = node.path.file_name().ok_or(Errno::INVAL).or_fail(Stage::Device, failed)?;
        let folder = match &last {
            Some((path, fd)) if *path == parent => fd,
            _ => &last.insert((parent, root.parent(&node.path).or_fail(Stage::Device, failed)?.0)).1,
        };
        match &node.bound {
            Some(tree) => bind(folder, name, tree).or_fail(Stage::Device, failed)?,
            // The host's /dev is where it was: the root is not entered yet.
            None if node.bound_inside => {
                let tree = clone_tree(CWD, &node.path, false).or_fail(Stage::Device, failed)?;
                bind(folder, name, &tree).or_fail(Stage::Device, failed)?;
            }
            None => make_one(folder, name, node)?,
        }
    }
    Ok(())
}

fn make_one(folder: &OwnedFd, name: &std::ffi::OsStr, node: &Node) -> Result<(), Failure> {
    let failed = || node.failed();
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(folder, name, node.kind, mode, node.number) {
        Ok(()) if node.owner == (0, 0) => return Ok(()),
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).or_fail(Stage::Device, failed)?;
            let same = FileType::from_raw_mode(stat.st_mode as RawMode) == node.kind;
            if !same || (node.kind != FileType::Fifo && stat.st_rdev != node.number) {
                return Err(refuse(Stage::Device, format!("{}: something else is there", failed())));
            }
        }
        other => return other.or_fail(Stage::Device, failed),
    }
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).or_fail(Stage::Device, failed)
}

/// Binds a detached tree onto a file made for it.
pub(crate) fn bind(folder: &OwnedFd, name: &std::ffi::OsStr, tree: &OwnedFd) -> rustix::io::Result<()> {
    let mut flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, !crate::weaken::is_dropped("console-place"));
    let place = openat(folder, name, flags, Mode::from_raw_mode(0o644))?;
    attach(tree.as_fd(), place.as_fd())
}

/// Makes the links of /dev. What is there already is left, except that a wrong `ptmx` is replaced: an image's own would
/// open the host's terminals.
pub(crate) fn links(root: &Root) -> Result<(), Failure> {
    let failed = || "error setting up /dev symlinks";
    let dev = root.open(Path::new("/dev")).or_fail(Stage::Device, failed)?;
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Err(Errno::EXIST) if name == "ptmx" => {
                rustix::fs::unlinkat(&dev, name, AtFlags::empty()).or_fail(Stage::Device, failed)?;
                rustix::fs::symlinkat(target, &dev, name).or_fail(Stage::Device, failed)?;
            }
            Ok(()) | Err(Errno::EXIST) => {}
            other => other.or_fail(Stage::Device, failed)?,
        }
    }
    Ok(())
}
