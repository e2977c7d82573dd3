//! Device nodes and device rules.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use wharf_api_types::{DeviceMapping, HostConfig};
use wharf_oci::runtime::{Device, DeviceRule, DeviceType, LinuxResources};

use super::SpecError;

/// Devices every container may use (moby `oci/defaults.go`): zero, null, urandom, random, tty, console.
const DEFAULT: &[(i64, i64)] = &[(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

fn rule(allow: bool, kind: Option<DeviceType>, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access: Some(access.to_owned()) }
}

/// Adds the rules to the limits and returns the nodes to make.
pub(super) fn add(host: &HostConfig, resources: &mut LinuxResources) -> Result<Vec<Device>, SpecError> {
    resources.devices.push(rule(false, None, None, None, "rwm"));
    if host.privileged {
        resources.devices.push(rule(true, None, None, None, "rwm"));
        let mut nodes = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut nodes);
        return Ok(nodes);
    }
    let char_device = Some(DeviceType::Char);
    for (major, minor) in DEFAULT {
        resources.devices.push(rule(true, char_device, Some(*major), Some(*minor), "rwm"));
    }
    let mut nodes = Vec::new();
    for mapping in host.devices.iter().flatten() {
        mapped(mapping, &mut nodes, resources)?;
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        resources.devices.push(parse_rule(text)?);
    }
    Ok(nodes)
}

fn mapped(mapping: &DeviceMapping, nodes: &mut Vec<Device>, resources: &mut LinuxResources) -> Result<(), SpecError> {
    let host_path = mapping.path_on_host.as_str();
    let path =
        std::fs::canonicalize(host_path).map_err(|error| SpecError::Device { path: host_path.to_owned(), error })?;
    let target = match mapping.path_in_container.as_str() {
        "" => host_path,
        own => own,
    };
    let access = match mapping.cgroup_permissions.as_str() {
        "" => "rwm",
        own => own,
    };
    let mut found = Vec::new();
    if path.is_dir() {
        walk(&path, Path::new(target), &mut found);
    } else {
        let node = node(&path, PathBuf::from(target));
        found.push(node.ok_or_else(|| SpecError::NotADevice(host_path.to_owned()))?);
    }
    for device in &found {
        resources.devices.push(rule(true, Some(device.kind), Some(device.major), Some(device.minor), access));
    }
    nodes.extend(found);
    Ok(())
}

/// The rule by which a container may use a device.
pub(super) fn allow(device: &Device, access: &str) -> DeviceRule {
    rule(true, Some(device.kind), Some(device.major), Some(device.minor), access)
}

pub(super) fn node(path: &Path, target: PathBuf) -> Option<Device> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = match meta.file_type() {
        t if t.is_block_device() => DeviceType::Block,
        t if t.is_char_device() => DeviceType::Char,
        _ => return None,
    };
    let dev = meta.rdev();
    Some(Device {
        path: target,
        kind,
        major: i64::from(rustix::fs::major(dev)),
        minor: i64::from(rustix::fs::minor(dev)),
        file_mode: Some(meta.mode() & 0o7777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

/// Collects the devices of a folder as moby does: not those that a container has of its own, no links.
fn walk(folder: &Path, target: &Path, nodes: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(kind) = entry.file_type() else { continue };
        let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"];
        if own.iter().any(|o| name == **o) {
            continue;
        }
        if kind.is_dir() {
            walk(&path, &target.join(name), nodes);
        } else if kind.is_char_device() || kind.is_block_device() {
            nodes.extend(node(&path, target.join(name)));
        }
    }
}

/// Reads `c 1:3 rwm`, `a *:* rwm`, `b 8:* r`.
fn parse_rule(text: &str) -> Result<DeviceRule, SpecError> {
    let wrong = || SpecError::DeviceRule(text.to_owned());
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words.as_slice() else { return Err(wrong()) };
    let kind = match *kind {
        "a" => DeviceType::All,
        "b" => DeviceType::Block,
        "c" => DeviceType::Char,
        _ => return Err(wrong()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(wrong());
    }
    Ok(rule(true, Some(kind), number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_read_and_what_is_none_is_refused() {
        let parsed = parse_rule("c 1:* rw").expect("valid");
        assert_eq!((parsed.kind, parsed.major, parsed.minor), (Some(DeviceType::Char), Some(1), None));
        for text in ["", "zzz", "c 1:3", "x 1:3 r", "c 1:3 rwx", "c 1 r", "c -1:3 r", "c 1:3  r", "c 1:3 rwmr"] {
            assert_eq!(
                parse_rule(text).unwrap_err().to_string(),
                format!("invalid device cgroup rule format: '{text}'")
            );
        }
    }
}
