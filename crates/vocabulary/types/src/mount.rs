//! A mount as data, in the form of `containerd.types.Mount`: what a snapshotter hands out and a shim performs.

use serde::{Deserialize, Serialize};

/// One mount(2) to be done, later and perhaps in another mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mount {
    /// File system type (`overlay`, `bind`, `tmpfs`, …).
    pub kind: String,
    /// Source: a device, a path, or the type's own word.
    pub source: String,
    /// Where to mount, relative to the rootfs; empty for the rootfs itself.
    pub target: String,
    /// Flags (`ro`, `rbind`, …) and file-system options (`lowerdir=…`), one each, as in fstab(5).
    pub options: Vec<String>,
}
