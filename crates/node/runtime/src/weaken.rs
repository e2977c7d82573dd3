//! Protections that a test may have dropped: each attack that has a test was seen to succeed without the protection that stops it
//! (`testkit/tests/weakened.rs`). Without the feature `weaken`, which nothing that ships has, all of this is constant.

/// The protections that can be dropped, and what then happens.
pub const PROTECTIONS: &[(&str, &str)] = &[
    ("beneath", "paths of the configuration are resolved by name, through links that lead out of the root"),
    ("proc-folder", "procfs and sysfs are mounted wherever a link leads"),
    ("proc-cover", "anything may be mounted over and into /proc"),
    ("null-device", "what is found as /dev/null covers masked paths, whatever it is"),
    ("console-place", "the terminal is bound to where /dev/console leads"),
    ("masks", "masked and read-only paths are left as they are"),
    ("capabilities", "what is in the bounding set is inheritable, too"),
    ("descriptors", "descriptors of the host stay open, and any working directory will do"),
    ("image", "the runtime runs from its own file, which a container can write to"),
    ("dumpable", "a process that joins can be looked into"),
    (
        "linger",
        "no protection by itself: a process that joins waits before its program, so that a look at it need win no race",
    ),
    ("state-mode", "the state of containers is open to all users"),
    (
        "openat2",
        "no protection by itself: openat2(2) counts as denied, so that paths are resolved component by component",
    ),
    ("user-database", "whatever the container has as /etc/passwd is opened and waited for"),
    ("procfs", "kernel parameters are written by name once the container's mounts are there"),
];

/// Whether a protection is dropped: `WHARF_WEAKEN` names it, alone or in a list with commas.
#[cfg(feature = "weaken")]
pub fn is_dropped(protection: &str) -> bool {
    debug_assert!(PROTECTIONS.iter().any(|(name, _)| *name == protection), "{protection} is in no list");
    std::env::var("WHARF_WEAKEN").is_ok_and(|named| named.split(',').any(|name| name == protection))
}

/// Whether a protection is dropped: never.
#[cfg(not(feature = "weaken"))]
#[inline(always)]
pub fn is_dropped(_: &str) -> bool {
    false
}
