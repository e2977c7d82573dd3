//! `spec`: a configuration to start from, with the meaning of runc's.

use std::path::PathBuf;

use wharf_oci::runtime::{
    Capabilities, DeviceRule, IdMapping, Linux, LinuxResources, Mount, Namespace, NamespaceType, Process, Rlimit, Root,
    Spec, VERSION,
};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// A shell on a terminal, with few capabilities and all namespaces; or what of it a user without privileges can have.
pub fn spec(rootless: bool) -> Spec {
    let mut spec = for_root();
    if !rootless {
        return spec;
    }
    let identity = |host_id| vec![IdMapping { host_id, container_id: 0, size: 1 }];
    spec.mounts.retain(|m| m.kind.as_deref() != Some("cgroup"));
    for mount in &mut spec.mounts {
        // One id is mapped: there is no group 5 to give terminals to.
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        if mount.kind.as_deref() == Some("sysfs") {
            // sysfs belongs to the network namespace, which stays the host's.
            (mount.kind, mount.source) = (Some("none".to_owned()), Some(PathBuf::from("/sys")));
            mount.options = words(&["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
    if let Some(linux) = &mut spec.linux {
        linux.resources = None;
        linux.namespaces.retain(|n| n.kind != NamespaceType::Network);
        linux.namespaces.push(Namespace { kind: NamespaceType::User, path: None });
        linux.uid_mappings = identity(rustix::process::geteuid().as_raw());
        linux.gid_mappings = identity(rustix::process::getegid().as_raw());
    }
    spec
}

fn for_root() -> Spec {
    let caps = words(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: PathBuf::from(destination),
        kind: Some(kind.to_owned()),
        source: Some(PathBuf::from(source)),
        options: words(options),
        ..Mount::default()
    };
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let namespace = |kind| Namespace { kind, path: None };
    Spec {
        oci_version: VERSION.to_owned(),
        process: Some(Process {
            terminal: true,
            args: words(&["sh"]),
            env: words(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
            cwd: PathBuf::from("/"),
            capabilities: Some(Capabilities {
                bounding: caps.clone(),
                effective: caps.clone(),
                permitted: caps,
                ..Capabilities::default()
            }),
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
            no_new_privileges: true,
            ..Process::default()
        }),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: true }),
        hostname: Some("wharf".to_owned()),
        mounts: vec![
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &pts),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        linux: Some(Linux {
            resources: Some(LinuxResources {
                devices: vec![DeviceRule { allow: false, access: Some("rwm".to_owned()), ..DeviceRule::default() }],
                ..LinuxResources::default()
            }),
            namespaces: [
                NamespaceType::Pid,
                NamespaceType::Network,
                NamespaceType::Ipc,
                NamespaceType::Uts,
                NamespaceType::Mount,
                NamespaceType::Cgroup,
            ]
            .map(namespace)
            .to_vec(),
            masked_paths: words(&[
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ]),
            readonly_paths: words(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}
