//! Subvolumes of btrfs (ioctls of `linux/btrfs.h`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// `struct btrfs_ioctl_vol_args`: a descriptor and a name with its end, 4096 bytes together.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

const SNAP_CREATE: libc::c_ulong = 0x5000_9401;
const SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;

/// What statfs(2) calls the file system.
pub const MAGIC: u64 = 0x9123_683e;

fn call(folder: BorrowedFd<'_>, request: libc::c_ulong, source: i64, name: &CStr) -> io::Result<()> {
    let mut args = VolumeArgs { fd: source, name: [0; 4088] };
    let bytes = name.to_bytes();
    // The kernel takes names of 255 bytes at most.
    if bytes.len() >= args.name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    args.name[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the three requests read one `btrfs_ioctl_vol_args`, which lives until the call returns.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), request as _, &raw const args) };
    check(libc::c_long::from(done)).map(drop)
}

/// Makes an empty subvolume in a directory.
pub fn create(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    call(folder, SUBVOL_CREATE, 0, name)
}

/// Makes a writable snapshot of a subvolume in a directory.
pub fn snapshot(source: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    call(folder, SNAP_CREATE, i64::from(source.as_raw_fd()), name)
}

/// Takes a subvolume away. Its blocks are freed in the background.
pub fn destroy(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    call(folder, SNAP_DESTROY, 0, name)
}
