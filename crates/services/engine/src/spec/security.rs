//! Capabilities, hidden paths, the system call filter, no-new-privileges.

use wharf_api_types::HostConfig;
use wharf_oci::runtime::LinuxSeccomp;

use super::{Input, SpecError};
use crate::config::SeccompDefault;
use crate::create::validate::{CAPABILITIES, capability_name};

/// Docker's default set (moby `oci/caps/defaults.go`), in its order.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Docker's defaults (moby `oci/defaults.go`).
pub const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Docker's defaults (moby `oci/defaults.go`).
pub const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All capabilities that this daemon can hand on: in a container or a sandboxed host its own bounding set
/// (`CapBnd` of proc_pid_status(5)) may lack some, and asking for them would fail the start.
pub(super) fn all_capabilities() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:"));
    within(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX))
}

/// The names of a set of capabilities.
pub(super) fn within(set: u64) -> Vec<String> {
    let numbered = CAPABILITIES.iter().enumerate();
    numbered.filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// Works the set out of privileged, `CapAdd` and `CapDrop` (moby `oci/caps.TweakCapabilities`).
pub(super) fn capabilities(host: &HostConfig) -> Vec<String> {
    if host.privileged {
        return all_capabilities();
    }
    let names = |words: Option<&Vec<String>>| -> Vec<String> {
        words.into_iter().flatten().map(|w| capability_name(w)).collect()
    };
    let (add, drop) = (names(host.cap_add.as_deref()), names(host.cap_drop.as_deref()));
    let mut set: Vec<String> = if add.iter().any(|c| c == "ALL") {
        all_capabilities()
    } else if drop.iter().any(|c| c == "ALL") {
        Vec::new()
    } else {
        DEFAULT.iter().map(|c| format!("CAP_{c}")).collect()
    };
    set.retain(|c| !drop.contains(c));
    for name in add {
        if name != "ALL" && !set.contains(&name) && !(drop.contains(&name)) {
            set.push(name);
        }
    }
    set
}

/// Masked and read-only paths: the request's own, else Docker's defaults, none for privileged containers.
pub(super) fn hidden_paths(host: &HostConfig) -> (Vec<String>, Vec<String>) {
    let pick = |own: &Option<Vec<String>>, default: &[&str]| match own {
        Some(paths) => paths.clone(),
        None if host.privileged => Vec::new(),
        None => default.iter().map(|p| (*p).to_owned()).collect(),
    };
    (pick(&host.masked_paths, MASKED), pick(&host.readonly_paths, READONLY))
}

fn options<'a>(host: &'a HostConfig, key: &'a str) -> impl Iterator<Item = &'a str> {
    let of = move |option: &'a String| {
        let (name, value) = option.split_once('=').or_else(|| option.split_once(':'))?;
        (name == key).then_some(value)
    };
    host.security_opt.iter().flatten().filter_map(of)
}

pub(super) fn no_new_privileges(host: &HostConfig, default: bool) -> bool {
    if host.security_opt.iter().flatten().any(|o| o == "no-new-privileges") {
        return true;
    }
    options(host, "no-new-privileges").last().map_or(default, |v| matches!(v, "true" | "1"))
}

pub(super) fn seccomp(input: &Input<'_>, capabilities: &[String]) -> Result<Option<LinuxSeccomp>, SpecError> {
    let own = options(input.host, "seccomp").last();
    match own {
        Some("unconfined") => return Ok(None),
        None | Some("builtin") => {}
        Some(json) => return profile(json, capabilities).map(Some),
    }
    if input.host.privileged {
        return Ok(None);
    }
    match &input.engine.seccomp {
        SeccompDefault::Unconfined if own.is_none() => Ok(None),
        SeccompDefault::Profile(profile) if own.is_none() => Ok(Some((**profile).clone())),
        _ => Ok(Some(builtin(capabilities))),
    }
}

fn builtin(capabilities: &[String]) -> LinuxSeccomp {
    let arch = wharf_seccomp::Arch::NATIVE;
    wharf_seccomp::default_profile(wharf_seccomp::Situation { capabilities, arch })
}

/// Reads a profile in the form of Docker's own (`architectures` or `archMap`, rules with `includes` and `excludes`).
pub fn profile(json: &str, capabilities: &[String]) -> Result<LinuxSeccomp, SpecError> {
    let failed = |e: &dyn std::fmt::Display| SpecError::SeccompProfile(e.to_string());
    let mut value: serde_json::Value = serde_json::from_str(json).map_err(|e| failed(&e))?;
    let object = value.as_object_mut().ok_or_else(|| failed(&"not an object"))?;
    object.remove("archMap");
    object.entry("defaultAction").or_insert_with(|| "SCMP_ACT_ALLOW".into());
    if let Some(rules) = object.get_mut("syscalls").and_then(|s| s.as_array_mut()) {
        rules.retain(|rule| applies(rule, capabilities));
        for rule in rules.iter_mut().filter_map(|r| r.as_object_mut()) {
            // The oldest form names one call.
            if let Some(name) = rule.remove("name").filter(|n| n.is_string()) {
                rule.insert("names".to_owned(), serde_json::Value::Array(vec![name]));
            }
        }
    }
    serde_json::from_value(value).map_err(|e| failed(&e))
}

fn applies(rule: &serde_json::Value, capabilities: &[String]) -> bool {
    let list = |part: &str, key: &str| -> Vec<String> {
        let items = rule.get(part).and_then(|p| p.get(key)).and_then(|l| l.as_array());
        items.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let arches = list("includes", "arches");
    list("includes", "caps").iter().all(|c| capabilities.contains(c))
        && !list("excludes", "caps").iter().any(|c| capabilities.contains(c))
        && (arches.is_empty() || arches.iter().any(|a| a == arch))
        && !list("excludes", "arches").iter().any(|a| a == arch)
}
