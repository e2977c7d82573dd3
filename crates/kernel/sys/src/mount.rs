//! mount_setattr(2), which rustix lacks. The rest of the mount API is in `rustix::mount`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// What mount_setattr(2) changes of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// Bits to clear, before those of `set` are set.
    pub clear: u64,
    /// New propagation (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`), 0 to leave it.
    pub propagation: u64,
    /// User namespace whose id maps the mount takes; only for a detached tree (5.12).
    pub id_map: Option<BorrowedFd<'a>>,
}

impl Attributes<'_> {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// The bits of the access time mode, one of which is set: to be cleared whenever one is set.
    pub const ATIME: u64 = 0x70;
    /// Access times are kept if older than modification (the value of the mode is 0).
    pub const RELATIME: u64 = 0x0;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always kept.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of folders.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed (5.14).
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
    const IDMAP: u64 = 0x10_0000;
}

#[repr(C)]
struct Raw {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `mount` is opened on, and all below it if `recursive` (5.12).
///
/// Errors: `ENOSYS` on older kernels, where a bind remount is the way.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes<'_>) -> io::Result<()> {
    let raw = Raw {
        attr_set: attributes.set | if attributes.id_map.is_some() { Attributes::IDMAP } else { 0 },
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: attributes.id_map.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string; the kernel reads `size_of::<Raw>()` bytes of `raw`, which lives through the call.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const raw, size_of::<Raw>())
    })
    .map(drop)
}
