//! Capabilities by name (capabilities(7)).

use rustix::thread::CapabilitySet;

/// Names in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bits of a list of names. Names that are not known are left out, as runc does with a warning.
pub(crate) fn set<T: AsRef<str>>(names: &[T]) -> CapabilitySet {
    let mut bits = 0u64;
    for name in names {
        let name = name.as_ref().strip_prefix("CAP_").unwrap_or(name.as_ref());
        if let Some(number) = NAMES.iter().position(|known| *known == name) {
            bits |= 1 << number;
        }
    }
    CapabilitySet::from_bits_retain(bits)
}

/// All names, with `CAP_`.
pub fn names() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_kernels_bits_and_unknown_ones_nothing() {
        assert_eq!(set(&["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_MOON"]), CapabilitySet::CHOWN | CapabilitySet::SYS_ADMIN);
        assert_eq!(set(&["CAP_CHECKPOINT_RESTORE"]), CapabilitySet::CHECKPOINT_RESTORE);
        assert_eq!(names().len(), 41);
    }
}
