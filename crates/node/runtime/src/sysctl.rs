//! Kernel parameters of the container's namespaces.

use std::path::PathBuf;

use wharf_oci::runtime::Linux;
use wharf_sys::clone::flags;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::host::Proc;
use crate::namespaces::Namespaces;

const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Paths below procfs and values. Only parameters of a namespace that the container has for itself are taken: others would
/// change the host.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces<'_>) -> Result<Vec<(PathBuf, String)>, Failure> {
    linux.sysctl.iter().map(|(name, value)| Ok((check(name, namespaces)?, value.clone()))).collect()
}

fn check(name: &str, namespaces: &Namespaces<'_>) -> Result<PathBuf, Failure> {
    let path = path_of(name);
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let refused = |what: &str| Err(refuse(Stage::Config, format!("sysctl {name:?} {what}")));
    if !plain {
        return refused("is no name of a kernel parameter");
    }
    let (needed, what) = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        (flags::NEWIPC, "is not allowed in the hosts ipc namespace")
    } else if path.starts_with("net/") {
        (flags::NEWNET, "not allowed in host network namespace")
    } else if matches!(path.as_str(), "kernel/domainname" | "kernel/hostname") {
        (flags::NEWUTS, "is not allowed in the hosts uts namespace")
    } else if path.starts_with("user/") {
        (flags::NEWUSER, "is not allowed in the hosts user namespace")
    } else {
        return refused("is not in a separate kernel namespace");
    };
    if !namespaces.has(needed) {
        return refused(what);
    }
    Ok(PathBuf::from("sys").join(path))
}

/// Dots separate, unless the first separator is a slash: then dots are part of names (sysctl(8)).
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

pub(crate) fn apply(proc: &Proc, all: &[(PathBuf, String)]) -> Result<(), Failure> {
    for (path, value) in all {
        proc.write(path, value.as_bytes())
            .or_fail(Stage::Sysctl, || format!("write sysctl {} = {value:?}", path.display()))?;
    }
    Ok(())
}

/// As a runtime does that trusts what the container has at /proc (CVE-2025-52881): for [`crate::weaken`] only.
pub(crate) fn apply_by_name(all: &[(PathBuf, String)]) -> Result<(), Failure> {
    for (path, value) in all {
        let path = format!("/proc/{}", path.display());
        crate::host::write_file(&path, value.as_bytes()).or_fail(Stage::Sysctl, || format!("write {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_name_the_same_parameter() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(path_of("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }

    #[test]
    fn only_parameters_of_own_namespaces_are_taken() {
        let own = Namespaces { new: flags::NEWIPC, ..Namespaces::default() };
        assert!(check("kernel.shmmax", &own).is_ok());
        for name in
            ["net.ipv4.ip_forward", "kernel.core_pattern", "kernel.hostname", "kernel/../kernel/shmmax", "", "net..x"]
        {
            assert_eq!(check(name, &own).map_err(|f| f.stage), Err(Stage::Config), "{name}");
        }
    }
}
