//! Mounting and unmounting in the daemon's own mount namespace.

use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{Backing, LocalOptions, MountWords, VolumeError};

impl LocalOptions {
    /// Whether something has to be mounted before the volume can be used.
    pub fn needs_mount(&self) -> bool {
        self.backing != Backing::Folder
    }

    /// Mounts what is behind the volume in `folder` (`<data-root>/volumes/<name>`) at its `_data`. Blocks for as long as
    /// the kernel takes: a network file system may take minutes.
    pub fn mount(&self, folder: &Path) -> Result<(), VolumeError> {
        let target = folder.join("_data");
        match &self.backing {
            Backing::Folder => Ok(()),
            Backing::Disk { .. } => mount(&folder.join("image"), &target, "ext4", &MountWords::parse("loop,nodev")),
            Backing::Device { kind, device, words } => {
                let words = resolve(kind, device, words)?;
                mount(Path::new(device), &target, kind, &MountWords::parse(&words)).map_err(|e| hide(e, &words))
            }
        }
    }
}

/// Mounts, as moby's `sys/mount` does: flags, then propagation, then read-only for a bind.
fn mount(source: &Path, target: &Path, kind: &str, words: &MountWords) -> Result<(), VolumeError> {
    let failed = |source_: Errno| {
        let mut what = format!("{}:{}", source.display(), target.display());
        if !words.flags.is_empty() {
            what.push_str(&format!(", flags: {:#x}", words.flags.bits()));
        }
        if !words.data.is_empty() {
            what.push_str(&format!(", data: {}", words.data));
        }
        VolumeError::Mount { what, source: source_ }
    };
    let data = std::ffi::CString::new(words.data.as_str()).map_err(|_| failed(Errno::INVAL))?;
    let device;
    let mut from = source;
    let _attached;
    if words.looped {
        let loop_ =
            wharf_sys::loopback::attach(source).map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        device = loop_.path().to_owned();
        from = &device;
        // Kept open until it is mounted: the kernel lets the device go with its last user.
        _attached = loop_;
    }
    rustix::mount::mount(from, target, kind, words.flags, Some(data.as_c_str())).map_err(failed)?;
    let rest = || -> Result<(), Errno> {
        if let Some(propagation) = words.propagation {
            rustix::mount::mount_change(target, propagation)?;
        }
        if words.flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
            rustix::mount::mount_remount(target, words.flags, c"")?;
        }
        Ok(())
    };
    rest().map_err(|e| {
        unmount_all(target);
        failed(e)
    })
}

/// Replaces the name in `addr=` by an address: the kernel takes no names (nfs(5), mount.cifs(8)).
fn resolve(kind: &str, device: &str, words: &str) -> Result<String, VolumeError> {
    let look_up = |name: &str| -> Result<IpAddr, VolumeError> {
        let found = (name, 0).to_socket_addrs().ok().and_then(|mut list| list.next());
        found.map(|a| a.ip()).ok_or_else(|| VolumeError::Resolve(name.to_owned()))
    };
    let given = words.split(',').find_map(|w| w.strip_prefix("addr="));
    match (kind, given) {
        ("nfs" | "nfs4" | "cifs", Some(name)) if name.parse::<IpAddr>().is_err() => {
            Ok(words.replacen(&format!("addr={name}"), &format!("addr={}", look_up(name)?), 1))
        }
        ("cifs", None) => {
            let host = device.trim_start_matches("//").split('/').next().unwrap_or_default();
            let address = look_up(host)?;
            Ok(if words.is_empty() { format!("addr={address}") } else { format!("{words},addr={address}") })
        }
        _ => Ok(words.to_owned()),
    }
}

/// Takes a password out of an error's text.
fn hide(error: VolumeError, words: &str) -> VolumeError {
    let secret = words.split(',').find(|w| w.starts_with("password=") && w.len() > "password=".len());
    match (error, secret) {
        (VolumeError::Mount { what, source }, Some(secret)) => {
            VolumeError::Mount { what: what.replace(secret, "password=********"), source }
        }
        (error, _) => error,
    }
}

/// Takes off everything that is mounted at a path, at once; whoever still uses it keeps it until he is done.
pub fn unmount_all(path: &Path) {
    while rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

/// Whether something is mounted at a path, as mountinfo says.
pub fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    mount_points().iter().any(|(place, _)| *place == path)
}

/// All mount points, with the optional fields that tell of propagation (proc_pid_mountinfo(5)).
fn mount_points() -> Vec<(PathBuf, String)> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let optional = fields.get(6..)?.iter().take_while(|f| **f != "-").copied().collect::<Vec<_>>().join(" ");
        Some((PathBuf::from(unescape(fields.get(4)?)), optional))
    };
    text.lines().filter_map(line).collect()
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        if let (b'\\', [a, b, c, after @ ..]) = (first, rest)
            && let Ok(code) = u8::from_str_radix(&String::from_utf8_lossy(&[*a, *b, *c]), 8)
        {
            plain.push(code);
            bytes = after;
        } else {
            plain.push(*first);
            bytes = rest;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// How mounts spread from and to the mount that a path is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// Where that mount is.
    pub mounted_on: PathBuf,
    /// Whether it is shared.
    pub shared: bool,
    /// Whether it is a slave.
    pub slave: bool,
}

/// Looks up the propagation of the mount that a path is on.
pub fn propagation_of(path: &Path) -> Propagation {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let all = mount_points();
    // The last of several at one place is the topmost.
    let best = all.iter().filter(|(place, _)| path.starts_with(place)).max_by_key(|(p, _)| p.components().count());
    let (mounted_on, optional) = best.cloned().unwrap_or_else(|| (PathBuf::from("/"), String::new()));
    Propagation { mounted_on, shared: optional.contains("shared:"), slave: optional.contains("master:") }
}

/// Whether the kernel can make a whole tree of mounts read-only: mount_setattr(2), Linux 5.12.
pub fn recursive_read_only() -> bool {
    let Ok(root) = std::fs::File::open("/") else { return false };
    let none = wharf_sys::mount::Attributes::default();
    // Nothing is changed: only an absent call is told apart.
    match wharf_sys::mount::set_attributes(root.as_fd(), true, &none) {
        Err(e) => e.raw_os_error() != Some(Errno::NOSYS.raw_os_error()),
        Ok(()) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_errors_have_dockers_text_without_the_password() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("_data")).expect("made");
        let device = |kind: &str, device: &str, words: &str| LocalOptions {
            backing: Backing::Device { kind: kind.into(), device: device.into(), words: words.into() },
            owner: (None, None),
        };
        let text = |options: LocalOptions| {
            let text = options.mount(folder.path()).expect_err("fails").to_string();
            text.replace(&folder.path().display().to_string(), "")
        };
        let cases = [
            (device("nosuch", "dev", ""), "failed to mount local volume: mount dev:/_data: no such device"),
            (
                device("none", "/nosuch", "bind"),
                "failed to mount local volume: mount /nosuch:/_data, flags: 0x1000: no such file or directory",
            ),
            (
                device("nosuch", "d", "ro,password=x,user=y"),
                "failed to mount local volume: mount d:/_data, flags: 0x1, data: password=********,user=y: no such device",
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(text(options), expected);
        }
    }

    #[test]
    fn addresses_are_left_as_they_are_and_names_are_looked_up() {
        assert_eq!(resolve("nfs", ":/x", "addr=::1,ro").as_deref(), Ok("addr=::1,ro"));
        assert_eq!(resolve("tmpfs", "x", "addr=name").as_deref(), Ok("addr=name"));
        let found = resolve("nfs", ":/x", "addr=localhost,ro").expect("found");
        assert!(found == "addr=127.0.0.1,ro" || found == "addr=::1,ro", "{found}");
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c\0"), r"/a b\c\0");
    }
}
