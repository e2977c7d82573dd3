//! The mount list, in the order in which the runtime performs it.

use std::path::{Path, PathBuf};

use wharf_oci::runtime::Mount;

use super::{Input, SpecError, process};
use crate::create::mounts::{Depth, Point, Source, tmpfs_options};

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(target),
        kind: Some(kind.to_owned()),
        source: Some(PathBuf::from(source)),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}

fn bind(target: &str, source: &Path, options: &[&str]) -> Mount {
    Mount { source: Some(source.to_owned()), ..mount(target, "bind", "", options) }
}

/// Docker's own mounts (moby `oci/defaults.go`), adapted to the container.
fn basic(input: &Input<'_>) -> Vec<Mount> {
    let host = input.host;
    // Privileged containers write to /sys and to their cgroups.
    let read_only: &[&str] = if host.privileged { &[] } else { &["ro"] };
    let with = |options: &[&'static str]| -> Vec<&str> { [options, read_only].concat() };
    let writable_cgroups = host.security_opt.iter().flatten().any(|o| o == "writable-cgroups=true");
    let cgroup =
        if writable_cgroups { vec!["nosuid", "noexec", "nodev"] } else { with(&["nosuid", "noexec", "nodev"]) };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &with(&["nosuid", "noexec", "nodev"])),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
    ];
    if host.ipc_mode == "host" {
        let host = Path::new("/dev/mqueue");
        // Not every host has it mounted.
        if host.exists() {
            list.push(bind("/dev/mqueue", host, &["rbind", "nosuid", "noexec", "nodev"]));
        }
        list.push(bind("/dev/shm", Path::new("/dev/shm"), &["rbind", "nosuid", "noexec", "nodev"]));
        return list;
    }
    list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    if let Some(shm) = &input.files.shm {
        list.push(bind("/dev/shm", shm, &["rbind", "rprivate"]));
    } else if host.ipc_mode != "none" {
        let size = if host.shm_size > 0 { host.shm_size } else { input.engine.shm_size };
        let size = format!("size={size}");
        list.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    list
}

/// All mounts of a container.
pub(super) fn all(input: &Input<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut list = basic(input);
    let taken = |target: &str| input.points.iter().any(|p| p.target == target);
    // What the user mounts takes the place of Docker's own mount at that path.
    list.retain(|m| m.destination.to_str().is_none_or(|t| t == "/proc" || !taken(t)));
    let mut own: Vec<Mount> = Vec::new();
    for (target, text) in input.host.tmpfs.iter().flatten() {
        let mut options = tmpfs_options(text)?;
        options.insert(3.min(options.len()), "rprivate".to_owned());
        own.push(Mount { options, ..mount(&crate::create::mounts::clean(target), "tmpfs", "tmpfs", &[]) });
    }
    for (point, source) in input.points.iter().zip(input.sources) {
        own.push(of_point(point, source, input)?);
    }
    // A parent before what is mounted below it.
    own.sort_by_key(|m| m.destination.components().count());
    list.extend(own);
    if process::wants_init(input)
        && let Some(init) = &input.engine.init_path
    {
        list.push(bind(process::INIT, init, &["bind", "ro"]));
    }
    let files = [
        ("/etc/resolv.conf", &input.files.resolv_conf),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
    ];
    for (target, file) in files {
        if let Some(file) = file.as_ref().filter(|_| !taken(target)) {
            let options: &[&str] =
                if input.host.readonly_rootfs { &["rbind", "rprivate", "ro"] } else { &["rbind", "rprivate"] };
            list.push(bind(target, file, options));
        }
    }
    Ok(list)
}

fn of_point(point: &Point, source: &Path, input: &Input<'_>) -> Result<Mount, SpecError> {
    let mut made = match &point.source {
        Source::Tmpfs { options } => {
            let text = options.join(",");
            return Ok(Mount { options: tmpfs_options(&text)?, ..mount(&point.target, "tmpfs", "tmpfs", &[]) });
        }
        Source::Bind { .. } => {
            let how = if point.non_recursive { "bind" } else { "rbind" };
            bind(&point.target, source, &[how])
        }
        Source::Volume { .. } | Source::Image { .. } => bind(&point.target, source, &["rbind"]),
    };
    if point.read_only {
        // Docker 25 and later: what is mounted below is read-only, too (moby `daemon/oci_linux.go`).
        let whole = point.read_only_depth != Depth::Topmost && !point.non_recursive && input.recursive_read_only;
        made.options.push(if whole { "rro" } else { "ro" }.to_owned());
    }
    if !point.propagation.is_empty() {
        made.options.push(point.propagation.clone());
    }
    Ok(made)
}

/// Shared and slave binds need a root that lets mounts through.
pub(super) fn root_propagation(points: &[Point]) -> Option<String> {
    let any = |words: [&str; 2]| points.iter().any(|p| words.contains(&p.propagation.as_str()));
    if any(["shared", "rshared"]) {
        Some("rshared".to_owned())
    } else if any(["slave", "rslave"]) {
        Some("rslave".to_owned())
    } else {
        None
    }
}
