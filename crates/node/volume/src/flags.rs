//! Mount options as fstab(5) writes them, split into flags of mount(2) and what the file system reads itself.

use rustix::mount::{MountFlags, MountPropagationFlags};

/// A list of mount options, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountWords {
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// Propagation, set by a second call.
    pub propagation: Option<MountPropagationFlags>,
    /// Whether the device is an image file to be put behind a loop device (Wharf extra; mount(8) has it).
    pub looped: bool,
    /// What is left, for the file system.
    pub data: String,
}

/// Words with a flag: whether they set or clear it. Source: moby `sys/mount/flags_linux.go`.
const FLAGS: &[(&str, bool, MountFlags)] = &[
    ("async", false, MountFlags::SYNCHRONOUS),
    ("atime", false, MountFlags::NOATIME),
    ("bind", true, MountFlags::BIND),
    ("defaults", false, MountFlags::empty()),
    ("dev", false, MountFlags::NODEV),
    ("diratime", false, MountFlags::NODIRATIME),
    ("dirsync", true, MountFlags::DIRSYNC),
    ("exec", false, MountFlags::NOEXEC),
    ("mand", true, MountFlags::from_bits_retain(64)),
    ("noatime", true, MountFlags::NOATIME),
    ("nodev", true, MountFlags::NODEV),
    ("nodiratime", true, MountFlags::NODIRATIME),
    ("noexec", true, MountFlags::NOEXEC),
    ("nomand", false, MountFlags::from_bits_retain(64)),
    ("norelatime", false, MountFlags::RELATIME),
    ("nostrictatime", false, MountFlags::STRICTATIME),
    ("nosuid", true, MountFlags::NOSUID),
    ("rbind", true, MountFlags::BIND.union(MountFlags::REC)),
    ("relatime", true, MountFlags::RELATIME),
    ("ro", true, MountFlags::RDONLY),
    ("rw", false, MountFlags::RDONLY),
    ("strictatime", true, MountFlags::STRICTATIME),
    ("suid", false, MountFlags::NOSUID),
    ("sync", true, MountFlags::SYNCHRONOUS),
];

const PROPAGATION: &[(&str, MountPropagationFlags)] = &[
    ("private", MountPropagationFlags::PRIVATE),
    ("rprivate", MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC)),
    ("shared", MountPropagationFlags::SHARED),
    ("rshared", MountPropagationFlags::SHARED.union(MountPropagationFlags::REC)),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("rslave", MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC)),
    ("unbindable", MountPropagationFlags::UNBINDABLE),
    ("runbindable", MountPropagationFlags::UNBINDABLE.union(MountPropagationFlags::REC)),
];

impl MountWords {
    /// Reads a comma-separated list; what is not known is for the file system.
    pub fn parse(list: &str) -> MountWords {
        let mut words =
            MountWords { flags: MountFlags::empty(), propagation: None, looped: false, data: String::new() };
        let mut data = Vec::new();
        for word in list.split(',').filter(|w| !w.is_empty()) {
            if let Some((_, set, flag)) = FLAGS.iter().find(|(name, ..)| *name == word) {
                words.flags.set(*flag, *set);
            } else if let Some((_, flag)) = PROPAGATION.iter().find(|(name, _)| *name == word) {
                words.propagation = Some(*flag);
            } else if word == "loop" {
                words.looped = true;
            } else {
                data.push(word);
            }
        }
        words.data = data.join(",");
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart_and_later_words_win() {
        let words = MountWords::parse("ro,addr=1.2.3.4,nolock,rw,nosuid,loop,rshared");
        assert_eq!((words.flags, words.data.as_str(), words.looped), (MountFlags::NOSUID, "addr=1.2.3.4,nolock", true));
        assert_eq!(words.propagation, Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC));
    }

    proptest::proptest! {
        #[test]
        fn any_list_is_read_without_panic(list in ".{0,80}") {
            let _ = MountWords::parse(&list);
        }
    }
}
