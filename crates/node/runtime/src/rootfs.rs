//! The root file system: mounted from parts, or a folder that is there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_oci::runtime::IdMapping;
use wharf_sys::clone::{Cloned, clone3, exit_now, flags};
use wharf_sys::mount::Attributes;
use wharf_types::{Failure, Mount, Stage};

use crate::failure::OrFail;
use crate::idmap;
use crate::mounting::{attach, change, clone_tree, open_host};
use crate::options::{Options, ms};
use crate::rooted::{Missing, Root, magic};

/// mount(2) takes at most one page of data, with its terminating zero.
const DATA_LIMIT: usize = 4095;

/// One part of the root file system.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    mount: &'a Mount,
    options: Options,
    /// Mounted by the caller, where the child's user namespace may not.
    tree: Option<OwnedFd>,
}

fn failed(mount: &Mount) -> String {
    format!("error mounting rootfs: {} {:?}", mount.kind, mount.source)
}

/// Reads the options; `here` mounts at once, detached.
pub(crate) fn plan(mounts: &[Mount], here: bool) -> Result<Vec<Part<'_>>, Failure> {
    let mut parts = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let mut options = Options::parse(&mount.options);
        let upper_too = take_word(&mut options.data, UPPER);
        let map = map_of(&mut options.data).or_fail(Stage::IdMap, || failed(mount))?;
        let map = map.map(|maps| Shift::new(maps, upper_too)).transpose()?;
        let tree = if here || map.is_some() { Some(detached(mount, &options, map.as_ref())?) } else { None };
        parts.push(Part { mount, options, tree });
    }
    Ok(parts)
}

type Maps = (Vec<IdMapping>, Vec<IdMapping>);

/// An option of our own beside `uidmap=`: the upper layer is shifted as the lower ones are, so that the disk has the ids that are
/// seen inside. Without it, as with containerd, the upper layer is written with the host's ids.
pub const UPPER: &str = "wharf.upper-idmap";

/// The id on the disk of what the kernel makes in a work folder in the mounter's name, which no id inside stands for.
const MOUNTER: u32 = 0xffff_fff0;

/// How owners are shifted.
struct Shift {
    lowers: OwnedFd,
    upper: Option<OwnedFd>,
}

impl Shift {
    fn new((mut uids, mut gids): Maps, upper_too: bool) -> Result<Self, Failure> {
        let lowers = idmap::namespace(&uids, &gids)?;
        if !upper_too {
            return Ok(Self { lowers, upper: None });
        }
        // overlayfs makes its temporary files and whiteouts as who mounted it, root, and so does `docker cp`: an id that has no
        // place in the mount's map cannot make anything (EOVERFLOW).
        for map in [&mut uids, &mut gids] {
            map.push(IdMapping { container_id: MOUNTER, host_id: 0, size: 1 });
        }
        Ok(Self { lowers, upper: Some(idmap::namespace(&uids, &gids)?) })
    }
}

fn take_word(data: &mut Vec<String>, word: &str) -> bool {
    let before = data.len();
    data.retain(|option| option != word);
    data.len() != before
}

/// Takes out how owners are to be shifted: containerd's snapshotters say so by `uidmap=` and `gidmap=`, each a list of
/// `inside:outside:count` with commas between. One without the other means nothing, as with containerd.
fn map_of(data: &mut Vec<String>) -> std::io::Result<Option<Maps>> {
    let mut take = |name: &str| {
        let at = data.iter().position(|option| option.starts_with(name))?;
        Some(data.remove(at)[name.len()..].to_owned())
    };
    let (Some(uids), Some(gids)) = (take("uidmap="), take("gidmap=")) else { return Ok(None) };
    let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let one = |text: &str| {
        let mut numbers = text.split(':').map(|n| n.parse::<u32>().ok());
        let map = (numbers.next()??, numbers.next()??, numbers.next()??);
        let map = IdMapping { container_id: map.0, host_id: map.1, size: map.2 };
        numbers.next().is_none().then_some(map)
    };
    let list = |text: &str| text.split(',').map(one).collect::<Option<Vec<_>>>().ok_or_else(wrong);
    Ok(Some((list(&uids)?, list(&gids)?)))
}

fn shift(tree: &OwnedFd, map: &OwnedFd, recursive: bool) -> std::io::Result<()> {
    change(tree.as_fd(), recursive, &Attributes { id_map: Some(map.as_fd()), ..Attributes::default() })
}

/// Names the layers. One by one if need be: a string of fsconfig(2) stops at 256 bytes (6.5 has `lowerdir+`).
fn set_layers(fs: &OwnedFd, layers: &str) -> rustix::io::Result<()> {
    if layers.len() <= 255 {
        return rustix::mount::fsconfig_set_string(fs, c"lowerdir", layers);
    }
    layers.split(':').try_for_each(|layer| rustix::mount::fsconfig_set_string(fs, c"lowerdir+", layer))
}

/// Configures an overlay over layers that show shifted owners: overlayfs takes no id map itself, but its layers may have one (5.19).
/// In the mount namespace of a helper those cover the plain ones, so that the names mean them; a layer that is attached nowhere is
/// refused by kernels before 6.15. All names must be looked up there: those of other namespaces are refused.
fn over_shifted(
    data: &[String],
    map: &Shift,
    configure: impl FnOnce() -> rustix::io::Result<()>,
) -> std::io::Result<()> {
    let value = |key: &str| data.iter().find_map(|option| option.strip_prefix(key)).unwrap_or_default();
    let lowers = value("lowerdir=").split(':').map(|layer| (Path::new(layer), &map.lowers));
    // Upper layer and work folder must be on one mount.
    let above = Path::new(value("upperdir=")).parent().zip(map.upper.as_ref());
    let mut shifted = Vec::new();
    for (layer, map) in lowers.chain(above) {
        let tree = clone_tree(CWD, layer, false)?;
        shift(&tree, map, false)?;
        shifted.push((tree, layer));
    }
    let perform = || {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        for (tree, layer) in &shifted {
            rustix::mount::move_mount(tree, c"", CWD, *layer, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        configure()
    };
    let pidfd = match clone3(flags::NEWNS, None)? {
        Cloned::Child => exit_now(perform().map_or_else(rustix::io::Errno::raw_os_error, |()| 0)),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?.and_then(|status| status.exit_status());
    match ended {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(code)),
        None => Err(std::io::ErrorKind::Interrupted.into()),
    }
}

/// Mounts without a place, by the new mount API, with owners shifted by the map of a user namespace if one is given.
fn detached(mount: &Mount, options: &Options, map: Option<&Shift>) -> Result<OwnedFd, Failure> {
    let failed = || failed(mount);
    if is_bind(mount, options) {
        let tree = clone_tree(CWD, Path::new(&mount.source), options.recursive).or_fail(Stage::Rootfs, failed)?;
        // The tree is what is written to, as an upper layer is.
        let map = map.map(|map| map.upper.as_ref().unwrap_or(&map.lowers));
        let mapped = map.map_or(Ok(()), |map| shift(&tree, map, options.recursive));
        return mapped.map(|()| tree).or_fail(Stage::IdMap, failed);
    }
    let fs = rustix::mount::fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).or_fail(Stage::Rootfs, failed)?;
    let configure = || {
        if !mount.source.is_empty() {
            rustix::mount::fsconfig_set_string(&fs, c"source", mount.source.as_str())?;
        }
        for option in &options.data {
            match option.split_once('=') {
                Some(("lowerdir", layers)) => set_layers(&fs, layers)?,
                Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value)?,
                None => rustix::mount::fsconfig_set_flag(&fs, option.as_str())?,
            }
        }
        rustix::mount::fsconfig_create(&fs)
    };
    let shifted = map.filter(|_| mount.kind == "overlay");
    match shifted {
        Some(map) => {
            over_shifted(&options.data, map, configure).or_fail(Stage::IdMap, failed)?;
        }
        None => configure().or_fail(Stage::Rootfs, failed)?,
    }
    let attributes = MountAttrFlags::from_bits_retain(options.attributes().0 as u32);
    let tree = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).or_fail(Stage::Rootfs, failed)?;
    if let (Some(map), None) = (map, shifted) {
        shift(&tree, &map.lowers, false).or_fail(Stage::IdMap, failed)?;
    }
    Ok(tree)
}

fn is_bind(mount: &Mount, options: &Options) -> bool {
    options.bind || mount.kind == "bind"
}

/// Mounts the parts of a root file system over `path` in the caller's own mount namespace, for a runtime that expects them there.
/// May leave the working directory for that of the layers.
pub fn mount_root(mounts: &[Mount], path: &Path) -> Result<(), Failure> {
    // By name the last one, because `shorten` changes the working directory.
    let path = std::path::absolute(path).or_fail(Stage::Rootfs, || format!("rootfs {}", path.display()))?;
    plan(mounts, false)?.iter().try_for_each(|part| part.perform(&path))
}

/// Mounts the parts over `path`, or binds the folder onto itself where there are none, and takes it as root.
pub(crate) fn mount(parts: &[Part<'_>], path: &Path) -> Result<Root, Failure> {
    let subject = || format!("rootfs {}", path.display());
    let open = || open_host(path, OFlags::PATH | OFlags::DIRECTORY).or_fail(Stage::Rootfs, subject);
    if parts.is_empty() {
        // pivot_root(2) wants a mount point.
        let tree = clone_tree(CWD, path, true).or_fail(Stage::Rootfs, subject)?;
        attach(tree.as_fd(), open()?.as_fd()).or_fail(Stage::Rootfs, subject)?;
        // What the host mounts below it later is no business of the container (runc makes the parent mount private).
        let private = Attributes { propagation: ms::PRIVATE, ..Attributes::default() };
        change(tree.as_fd(), false, &private).or_fail(Stage::Rootfs, subject)?;
        return Ok(Root::new(tree));
    }
    if parts.iter().all(Part::is_mounted) {
        return attach_all(parts);
    }
    for part in parts {
        part.perform(path)?;
    }
    Ok(Root::new(open()?))
}

/// Attaches what the caller mounted, over the working directory: the folders above it may be closed to the root of a user
/// namespace. Nothing is looked up there, and the root is known by its mount, not by its name.
fn attach_all(parts: &[Part<'_>]) -> Result<Root, Failure> {
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let mut root: Option<Root> = None;
    for part in parts {
        let failed = || failed(part.mount);
        let Some(tree) = &part.tree else { continue };
        if let Some(root) = root.as_ref().filter(|_| !part.mount.target.is_empty()) {
            let target = root.make(Path::new(&part.mount.target), Missing::Folder).or_fail(Stage::Rootfs, failed)?;
            attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Rootfs, failed)?;
            continue;
        }
        match &root {
            Some(root) => attach(tree.as_fd(), root.as_fd()),
            None => rustix::mount::move_mount(tree, c"", CWD, c"", by_descriptor),
        }
        .or_fail(Stage::Rootfs, failed)?;
        root = Some(Root::new(rustix::io::fcntl_dupfd_cloexec(tree, 3).or_fail(Stage::Rootfs, failed)?));
    }
    root.ok_or_else(|| crate::failure::refuse(Stage::Rootfs, "no root file system"))
}

impl Part<'_> {
    /// Whether the caller has mounted it already, attached nowhere.
    pub(crate) fn is_mounted(&self) -> bool {
        self.tree.is_some()
    }

    fn perform(&self, path: &Path) -> Result<(), Failure> {
        let failed = || failed(self.mount);
        let mut target = open_host(path, OFlags::PATH | OFlags::DIRECTORY).or_fail(Stage::Rootfs, failed)?;
        if !self.mount.target.is_empty() {
            let root = Root::new(target);
            target = root.make(Path::new(&self.mount.target), Missing::Folder).or_fail(Stage::Rootfs, failed)?;
        }
        if let Some(tree) = &self.tree {
            return attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Rootfs, failed);
        }
        if is_bind(self.mount, &self.options) {
            let tree = clone_tree(CWD, Path::new(&self.mount.source), self.options.recursive)
                .or_fail(Stage::Rootfs, failed)?;
            attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Rootfs, failed)?;
            let (set, clear) = self.options.attributes();
            if set | clear == 0 {
                return Ok(());
            }
            let what = Attributes { set, clear, ..Attributes::default() };
            return change(tree.as_fd(), false, &what).or_fail(Stage::Rootfs, failed);
        }
        let mut data = self.options.data.join(",");
        if data.len() > DATA_LIMIT {
            data = shorten(&self.options.data).or_fail(Stage::Rootfs, failed)?;
        }
        if data.len() > DATA_LIMIT {
            // The kernel would cut it without a word.
            let tree = detached(self.mount, &self.options, None)?;
            return attach(tree.as_fd(), target.as_fd()).or_fail(Stage::Rootfs, failed);
        }
        let data = std::ffi::CString::new(data).or_fail(Stage::Rootfs, failed)?;
        let flags = MountFlags::from_bits_retain(self.options.flags as u32);
        let (source, kind) = (self.mount.source.as_str(), self.mount.kind.as_str());
        rustix::mount::mount(source, magic(target.as_fd()), kind, flags, Some(data.as_c_str()))
            .or_fail(Stage::Rootfs, failed)
    }
}

/// Enters the layers' common folder and names them relative to it. The process is the child, whose directory nobody
/// else needs.
fn shorten(options: &[String]) -> std::io::Result<String> {
    let layers = options.iter().find_map(|o| o.strip_prefix("lowerdir=")).unwrap_or_default();
    let common = common_folder(layers);
    rustix::process::chdir(common.as_path())?;
    let prefix = format!("{}/", common.display());
    let short = |option: &String| match option.strip_prefix("lowerdir=") {
        Some(layers) => {
            let names: Vec<&str> = layers.split(':').map(|l| l.strip_prefix(&prefix).unwrap_or(l)).collect();
            format!("lowerdir={}", names.join(":"))
        }
        None => option.clone(),
    };
    Ok(options.iter().map(short).collect::<Vec<_>>().join(","))
}

fn common_folder(layers: &str) -> PathBuf {
    let mut layers = layers.split(':').map(Path::new);
    let mut common = layers.next().and_then(Path::parent).unwrap_or(Path::new("/")).to_path_buf();
    for layer in layers {
        while !layer.starts_with(&common) {
            if !common.pop() {
                break;
            }
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_owners_are_read_from_the_options_and_taken_out() {
        let options = |list: &[&str]| list.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
        let mut data = options(&["index=off", "uidmap=0:100000:10,10:5:1", "gidmap=0:7:1", "lowerdir=/a"]);
        let (uids, gids) = map_of(&mut data).expect("valid").expect("both are there");
        assert_eq!((uids[1].container_id, uids[1].host_id, gids[0].host_id), (10, 5, 7));
        assert_eq!(data, options(&["index=off", "lowerdir=/a"]));
        assert!(map_of(&mut options(&["uidmap=0:1:1"])).expect("valid").is_none());
        for wrong in ["", "0:1", "0:1:2:3", "a:1:1", "0:4294967296:1"] {
            assert!(map_of(&mut options(&[&format!("uidmap={wrong}"), "gidmap=0:1:1"])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_common_folder_of_layers_is_found() {
        assert_eq!(common_folder("/d/overlay/1/fs:/d/overlay/22/fs"), Path::new("/d/overlay"));
        assert_eq!(common_folder("/a/x:/b/y"), Path::new("/"));
        assert_eq!(common_folder("/a/x"), Path::new("/a"));
    }
}
