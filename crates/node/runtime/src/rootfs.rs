//! The root file system: mounted from parts, or a folder that is there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use wharf_sys::mount::Attributes;
use wharf_types::{Failure, Mount, Stage};

use crate::failure::OrFail;
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
        let options = Options::parse(&mount.options);
        let tree = if here { Some(detached(mount, &options)?) } else { None };
        parts.push(Part { mount, options, tree });
    }
    Ok(parts)
}

/// Mounts without a place, by the new mount API.
fn detached(mount: &Mount, options: &Options) -> Result<OwnedFd, Failure> {
    let failed = || failed(mount);
    if is_bind(mount, options) {
        return clone_tree(CWD, Path::new(&mount.source), options.recursive).or_fail(Stage::Rootfs, failed);
    }
    let fs = rustix::mount::fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).or_fail(Stage::Rootfs, failed)?;
    if !mount.source.is_empty() {
        rustix::mount::fsconfig_set_string(&fs, c"source", mount.source.as_str()).or_fail(Stage::Rootfs, failed)?;
    }
    for option in &options.data {
        match option.split_once('=') {
            // One by one: a string of fsconfig(2) stops at 256 bytes (6.5 has `lowerdir+`).
            Some(("lowerdir", layers)) if layers.len() > 255 => {
                for layer in layers.split(':') {
                    rustix::mount::fsconfig_set_string(&fs, c"lowerdir+", layer).or_fail(Stage::Rootfs, failed)?;
                }
            }
            Some((key, value)) => {
                rustix::mount::fsconfig_set_string(&fs, key, value).or_fail(Stage::Rootfs, failed)?;
            }
            None => rustix::mount::fsconfig_set_flag(&fs, option.as_str()).or_fail(Stage::Rootfs, failed)?,
        }
    }
    rustix::mount::fsconfig_create(&fs).or_fail(Stage::Rootfs, failed)?;
    let attributes = MountAttrFlags::from_bits_retain(options.attributes().0 as u32);
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).or_fail(Stage::Rootfs, failed)
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
    for part in parts {
        part.perform(path)?;
    }
    Ok(Root::new(open()?))
}

impl Part<'_> {
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
            let tree = detached(self.mount, &self.options)?;
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
    fn the_common_folder_of_layers_is_found() {
        assert_eq!(common_folder("/d/overlay/1/fs:/d/overlay/22/fs"), Path::new("/d/overlay"));
        assert_eq!(common_folder("/a/x:/b/y"), Path::new("/"));
        assert_eq!(common_folder("/a/x"), Path::new("/a"));
    }
}
