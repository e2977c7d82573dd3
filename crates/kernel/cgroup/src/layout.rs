//! Which hierarchies this host has and where they are mounted.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::CgroupError;

/// How a host arranges its hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Controllers in hierarchies of their own, no v2.
    V1,
    /// As `V1`, with a v2 hierarchy without controllers beside them.
    Hybrid,
    /// One hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Controllers of v1, `name=…` for one without; empty for v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Which of its folders is mounted there; `/` except inside containers without cgroup namespace.
    pub root: PathBuf,
}

impl Hierarchy {
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    mode: Mode,
    pub(crate) hierarchies: Vec<Hierarchy>,
}

/// Where every distribution mounts cgroups.
const USUAL: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const MOUNTINFO: &str = "/proc/self/mountinfo";
const OWN: &str = "/proc/self/cgroup";

impl Layout {
    /// Looks at `/sys/fs/cgroup`, which is enough with cgroup v2, and otherwise reads `/proc/self/mountinfo`.
    ///
    /// Errors: [`CgroupError::Detect`] where no hierarchy is mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        // Mountinfo costs time for each mount of the host, one statfs(2) does not.
        if rustix::fs::statfs(USUAL).is_ok_and(|s| s.f_type == CGROUP2_MAGIC) {
            let only = Hierarchy { controllers: Vec::new(), mount: USUAL.into(), root: "/".into() };
            return Ok(Self { mode: Mode::V2, hierarchies: vec![only] });
        }
        Self::from_mountinfo()
    }

    fn from_mountinfo() -> Result<Self, CgroupError> {
        let failed = |source| CgroupError::Detect { path: MOUNTINFO.into(), source };
        let mut text = Vec::with_capacity(1 << 15);
        File::open(MOUNTINFO).and_then(|mut file| file.read_to_end(&mut text)).map_err(failed)?;
        Self::parse(&text).ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "no cgroup mount")))
    }

    /// Works the layout out of a mountinfo text (proc_pid_mountinfo(5)); nothing if it has no cgroup mount.
    pub(crate) fn parse(mountinfo: &[u8]) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.split(|b| *b == b'\n') {
            if let Some(found) = parse_line(line)
                && !hierarchies.iter().any(|h| h.controllers == found.controllers)
            {
                hierarchies.push(found);
            }
        }
        let v2 = hierarchies.iter().any(Hierarchy::is_v2);
        let v1 = hierarchies.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
        let mode = match (v1, v2) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::V1,
            (false, true) => Mode::V2,
            (false, false) => return None,
        };
        if mode == Mode::V2 {
            hierarchies.retain(Hierarchy::is_v2);
        }
        Some(Self { mode, hierarchies })
    }

    /// Returns how the hierarchies are arranged.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the folder of a group in each hierarchy. `path` is `linux.cgroupsPath`.
    pub(crate) fn folders(&self, path: &str) -> Result<Vec<PathBuf>, CgroupError> {
        let inner = clean(path);
        if path.starts_with('/') {
            return Ok(self.hierarchies.iter().map(|h| h.mount.join(&inner)).collect());
        }
        let text = std::fs::read_to_string(OWN).map_err(|source| CgroupError::Detect { path: OWN.into(), source })?;
        // Which folder of a hierarchy is mounted stands in mountinfo only.
        let mounted = Self::from_mountinfo()?.hierarchies;
        Ok(mounted.iter().map(|h| h.mount.join(own_folder(&text, h)).join(&inner)).collect())
    }
}

/// Drops `.`, `..` and empty parts, so that the result lies beneath whatever it is joined to (`..` counts as in a root folder).
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            name => out.push(name),
        }
    }
    out
}

/// Finds where this process is in a hierarchy, relative to the hierarchy's mount point.
fn own_folder(proc_cgroup: &str, hierarchy: &Hierarchy) -> PathBuf {
    let own = proc_cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let same = if hierarchy.is_v2() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|c| hierarchy.controllers.iter().any(|h| h == c))
        };
        same.then(|| Path::new(path))
    });
    let own = own.unwrap_or(Path::new("/"));
    let beneath = own.strip_prefix(&hierarchy.root).or_else(|_| own.strip_prefix("/")).unwrap_or(own);
    // A process outside of its cgroup namespace's root sees `/../…`.
    clean(&beneath.to_string_lossy())
}

/// Options of a v1 superblock that are no controllers (`cgroup1_show_options`).
const OPTIONS: [&str; 7] = ["rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods", "clone_children"];

fn parse_line(line: &[u8]) -> Option<Hierarchy> {
    let line = std::str::from_utf8(line).ok()?;
    let (mount, superblock) = line.split_once(" - ")?;
    let mut superblock = superblock.split(' ');
    let kind = superblock.next()?;
    let options = superblock.nth(1)?;
    let controllers: Vec<String> = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => {
            let named = |o: &&str| !OPTIONS.contains(o) && (!o.contains('=') || o.starts_with("name="));
            options.split(',').filter(named).map(str::to_owned).collect()
        }
        _ => return None,
    };
    if kind == "cgroup" && controllers.is_empty() {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some(Hierarchy { controllers, root: unescape(fields.next()?), mount: unescape(fields.next()?) })
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> PathBuf {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|d| u8::from_str_radix(d, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:29 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn a_hybrid_host_has_each_hierarchy_once() {
        let layout = Layout::parse(HYBRID.as_bytes()).unwrap();
        assert_eq!(layout.mode(), Mode::Hybrid);
        let found: Vec<_> = layout.hierarchies.iter().map(|h| (h.controllers.join(","), h.mount.clone())).collect();
        let expected = [
            ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            ("memory", "/sys/fs/cgroup/memory"),
            ("name=systemd", "/sys/fs/cgroup/systemd"),
            ("", "/sys/fs/cgroup/unified"),
        ];
        assert_eq!(found, expected.map(|(c, m)| (c.to_owned(), PathBuf::from(m))));
    }

    #[test]
    fn a_lone_cgroup2_mount_is_v2_even_beside_a_named_hierarchy() {
        let text =
            "25 30 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n26 30 0:24 / /run/sd rw - cgroup c rw,name=systemd\n";
        let layout = Layout::parse(text.as_bytes()).unwrap();
        assert_eq!(layout.mode(), Mode::V2);
        assert_eq!(layout.hierarchies.len(), 1);
    }

    #[test]
    fn a_host_without_cgroups_has_no_layout() {
        assert_eq!(Layout::parse(b"1 2 0:3 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn relative_paths_count_from_where_the_process_is() {
        let layout = Layout::parse(HYBRID.as_bytes()).unwrap();
        let text = "4:memory:/user/7\n3:cpuacct,cpu:/a\n1:name=systemd:/\n0::/../outside\n";
        let own: Vec<_> = layout.hierarchies.iter().map(|h| own_folder(text, h)).collect();
        assert_eq!(own, ["a", "user/7", "", "outside"].map(PathBuf::from));
    }

    #[test]
    fn what_is_mounted_deeper_is_taken_off() {
        let text = "32 31 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let layout = Layout::parse(text.as_bytes()).unwrap();
        assert_eq!(own_folder("4:memory:/docker/abc/inner\n", &layout.hierarchies[0]), PathBuf::from("inner"));
    }

    #[test]
    fn paths_cannot_climb_out_of_the_hierarchy() {
        let layout = Layout::parse(HYBRID.as_bytes()).unwrap();
        let folders = layout.folders("/../../../etc/./x//y/..").unwrap();
        assert_eq!(folders[1], PathBuf::from("/sys/fs/cgroup/memory/etc/x"));
    }

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape("/a\\040b\\134c\\9"), PathBuf::from("/a b\\c\\9"));
    }

    proptest! {
        #[test]
        fn any_mountinfo_is_survived(text in "(\\PC{0,80}( - cgroup2? x rw,[a-z=,]{0,9}\n)?){0,6}", raw in any::<Vec<u8>>()) {
            let _ = Layout::parse(text.as_bytes());
            let _ = Layout::parse(&raw);
        }
    }
}
