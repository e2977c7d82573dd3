//! Mount options as text (fstab(5), and OCI config.md "Linux mount options") to flags. Pure.

use wharf_sys::mount::Attributes;

/// Flags of mount(2), as in `linux/mount.h`.
pub(crate) mod ms {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const SYNCHRONOUS: u64 = 0x10;
    pub const REMOUNT: u64 = 0x20;
    pub const MANDLOCK: u64 = 0x40;
    pub const DIRSYNC: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x100;
    pub const NOATIME: u64 = 0x400;
    pub const NODIRATIME: u64 = 0x800;
    pub const BIND: u64 = 0x1000;
    pub const REC: u64 = 0x4000;
    pub const SILENT: u64 = 0x8000;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const RELATIME: u64 = 1 << 21;
    pub const I_VERSION: u64 = 1 << 23;
    pub const STRICTATIME: u64 = 1 << 24;
    pub const LAZYTIME: u64 = 1 << 25;
}

/// What a list of options says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Flags of mount(2), without propagation.
    pub flags: u64,
    /// Flags that were named in their negative form, and not set again later.
    pub cleared: u64,
    /// Whether the source is bound instead of mounted.
    pub bind: bool,
    /// Whether the bound tree includes the mounts below it.
    pub recursive: bool,
    /// Propagation changes in order, each with [`ms::REC`] or not.
    pub propagation: Vec<u64>,
    /// Attributes for the whole tree (`rro` and its like): set, clear.
    pub tree: (u64, u64),
    /// Whether the content of the covered folder is copied into a fresh tmpfs.
    pub copy_up: bool,
    /// Whether the mount takes the id map of the container's user namespace or of its own, and if the tree does.
    pub id_map: Option<bool>,
    /// What the file system itself reads.
    pub data: Vec<String>,
}

/// Plain flags: name, flag, whether the name sets it.
const FLAGS: &[(&str, u64, bool)] = &[
    ("async", ms::SYNCHRONOUS, false),
    ("atime", ms::NOATIME, false),
    ("dev", ms::NODEV, false),
    ("diratime", ms::NODIRATIME, false),
    ("dirsync", ms::DIRSYNC, true),
    ("exec", ms::NOEXEC, false),
    ("iversion", ms::I_VERSION, true),
    ("lazytime", ms::LAZYTIME, true),
    ("loud", ms::SILENT, false),
    ("mand", ms::MANDLOCK, true),
    ("noatime", ms::NOATIME, true),
    ("nodev", ms::NODEV, true),
    ("nodiratime", ms::NODIRATIME, true),
    ("noexec", ms::NOEXEC, true),
    ("noiversion", ms::I_VERSION, false),
    ("nolazytime", ms::LAZYTIME, false),
    ("nomand", ms::MANDLOCK, false),
    ("norelatime", ms::RELATIME, false),
    ("nostrictatime", ms::STRICTATIME, false),
    ("nosuid", ms::NOSUID, true),
    ("nosymfollow", ms::NOSYMFOLLOW, true),
    ("relatime", ms::RELATIME, true),
    ("remount", ms::REMOUNT, true),
    ("ro", ms::RDONLY, true),
    ("rw", ms::RDONLY, false),
    ("silent", ms::SILENT, true),
    ("strictatime", ms::STRICTATIME, true),
    ("suid", ms::NOSUID, false),
    ("symfollow", ms::NOSYMFOLLOW, false),
    ("sync", ms::SYNCHRONOUS, true),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("private", ms::PRIVATE),
    ("rprivate", ms::PRIVATE | ms::REC),
    ("shared", ms::SHARED),
    ("rshared", ms::SHARED | ms::REC),
    ("slave", ms::SLAVE),
    ("rslave", ms::SLAVE | ms::REC),
    ("unbindable", ms::UNBINDABLE),
    ("runbindable", ms::UNBINDABLE | ms::REC),
];

/// Attributes of the whole tree: name, what is set, what is cleared.
const TREE: &[(&str, u64, u64)] = &[
    ("rro", Attributes::RDONLY, 0),
    ("rrw", 0, Attributes::RDONLY),
    ("rnosuid", Attributes::NOSUID, 0),
    ("rsuid", 0, Attributes::NOSUID),
    ("rnodev", Attributes::NODEV, 0),
    ("rdev", 0, Attributes::NODEV),
    ("rnoexec", Attributes::NOEXEC, 0),
    ("rexec", 0, Attributes::NOEXEC),
    ("rnodiratime", Attributes::NODIRATIME, 0),
    ("rdiratime", 0, Attributes::NODIRATIME),
    ("rrelatime", Attributes::RELATIME, Attributes::ATIME),
    ("rnorelatime", Attributes::STRICTATIME, Attributes::ATIME),
    ("rnoatime", Attributes::NOATIME, Attributes::ATIME),
    ("ratime", Attributes::RELATIME, Attributes::ATIME),
    ("rstrictatime", Attributes::STRICTATIME, Attributes::ATIME),
    ("rnostrictatime", Attributes::RELATIME, Attributes::ATIME),
    ("rnosymfollow", Attributes::NOSYMFOLLOW, 0),
    ("rsymfollow", 0, Attributes::NOSYMFOLLOW),
];

impl Options {
    /// Reads a list. Later options win; what is not known is for the file system.
    pub(crate) fn parse<T: AsRef<str>>(list: &[T]) -> Self {
        let mut this = Self::default();
        for option in list {
            this.take(option.as_ref());
        }
        this
    }

    fn take(&mut self, option: &str) {
        if let Some((_, flag, set)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            if *set {
                self.flags |= flag;
                self.cleared &= !flag;
            } else {
                self.flags &= !flag;
                self.cleared |= flag;
            }
        } else if let Some((_, change)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
            self.propagation.push(*change);
        } else if let Some((_, set, clear)) = TREE.iter().find(|(name, ..)| *name == option) {
            self.tree = ((self.tree.0 & !clear) | set, (self.tree.1 & !set) | clear);
        } else {
            match option {
                "bind" => self.bind = true,
                "rbind" => (self.bind, self.recursive) = (true, true),
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.id_map = Some(false),
                "ridmap" => self.id_map = Some(true),
                "defaults" | "" => {}
                data => self.data.push(data.to_owned()),
            }
        }
    }

    /// The flags as attributes of one mount: set, clear.
    pub(crate) fn attributes(&self) -> (u64, u64) {
        let pairs = [
            (ms::RDONLY, Attributes::RDONLY),
            (ms::NOSUID, Attributes::NOSUID),
            (ms::NODEV, Attributes::NODEV),
            (ms::NOEXEC, Attributes::NOEXEC),
            (ms::NODIRATIME, Attributes::NODIRATIME),
            (ms::NOSYMFOLLOW, Attributes::NOSYMFOLLOW),
        ];
        let (mut set, mut clear) = (0, 0);
        for (flag, attribute) in pairs {
            if self.flags & flag != 0 {
                set |= attribute;
            }
            if self.cleared & flag != 0 {
                clear |= attribute;
            }
        }
        let modes = [
            (ms::NOATIME, Attributes::NOATIME),
            (ms::STRICTATIME, Attributes::STRICTATIME),
            (ms::RELATIME, Attributes::RELATIME),
        ];
        if let Some((_, mode)) = modes.into_iter().find(|(flag, _)| self.flags & flag != 0) {
            set |= mode;
            clear |= Attributes::ATIME;
        }
        (set, clear)
    }
}

/// Reads `linux.rootfsPropagation`.
pub(crate) fn propagation(word: &str) -> Option<u64> {
    PROPAGATION.iter().find(|(name, _)| *name == word).map(|(_, change)| *change)
}

/// The plain flag names a mount can take, for `features`.
pub fn names() -> Vec<&'static str> {
    let mut all: Vec<&str> = FLAGS.iter().map(|(name, ..)| *name).collect();
    all.extend(PROPAGATION.iter().map(|(name, _)| *name));
    all.extend(TREE.iter().map(|(name, ..)| *name));
    all.extend(["bind", "rbind", "defaults", "idmap", "ridmap", "tmpcopyup"]);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn later_options_win_and_unknown_ones_are_data() {
        let o = Options::parse(&["ro", "nosuid", "rw", "size=64k", "mode=755", "rprivate"]);
        assert_eq!(o.flags, ms::NOSUID);
        assert_eq!(o.cleared, ms::RDONLY);
        assert_eq!(o.data, ["size=64k", "mode=755"]);
        assert_eq!(o.propagation, [ms::PRIVATE | ms::REC]);
    }

    #[test]
    fn an_access_time_mode_clears_the_others() {
        let (set, clear) = Options::parse(&["rbind", "noatime", "ro"]).attributes();
        assert_eq!(set, Attributes::RDONLY | Attributes::NOATIME);
        assert_eq!(clear, Attributes::ATIME);
        let o = Options::parse(&["rro", "rnoatime", "rrw"]);
        assert_eq!(o.tree, (Attributes::NOATIME, Attributes::ATIME | Attributes::RDONLY));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_panic(list in proptest::collection::vec(".{0,12}", 0..8)) {
            let _ = Options::parse(&list).attributes();
        }
    }
}
