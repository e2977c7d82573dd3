//! Limits of directories: project quotas (ext4, XFS; quotactl(2)) and groups of btrfs quotas.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    cow: u32,
    pad: [u8; 8],
}

/// `struct fs_disk_quota` of `linux/dqblk_xfs.h`, as far as limits of blocks go.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fieldmask: u16,
    id: u32,
    blocks_hard: u64,
    blocks_soft: u64,
    rest: [u64; 11],
}

/// Puts a directory, and what is made in it from now on, into a project.
pub fn set_project(folder: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    const INHERIT: u32 = 0x200;
    let mut attributes = Attributes::default();
    // SAFETY: both requests read or write one `fsxattr`, which lives through the calls.
    unsafe {
        check(libc::ioctl(folder.as_raw_fd(), GET as _, &raw mut attributes).into())?;
        attributes.project = project;
        attributes.flags |= INHERIT;
        check(libc::ioctl(folder.as_raw_fd(), SET as _, &raw const attributes).into())?;
    }
    Ok(())
}

/// Limits the bytes of a project of the file system that `within` is on (5.14). 0 takes the limit away.
///
/// Errors: the kernel's; `ESRCH` or `ENOSYS` where the file system counts no projects.
pub fn limit_project(within: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    /// `QCMD(Q_XSETQLIM, PRJQUOTA)`.
    const SET_LIMIT: libc::c_uint = (((b'X' as u32) << 8) + 4) << 8 | 2;
    const BLOCKS: u16 = (1 << 2) | (1 << 3);
    // Units are basic blocks of 512 bytes.
    let blocks = bytes / 512;
    let quota = DiskQuota {
        version: 1,
        // `FS_PROJ_QUOTA`.
        flags: 2,
        fieldmask: BLOCKS,
        id: project,
        blocks_hard: blocks,
        blocks_soft: blocks,
        ..DiskQuota::default()
    };
    // SAFETY: the command reads one `fs_disk_quota`, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_quotactl_fd, within.as_raw_fd(), SET_LIMIT, project, &raw const quota) })
        .map(drop)
}

/// Limits the bytes that a subvolume of btrfs refers to, shared ones included. Turns quotas on where they are off.
pub fn limit_subvolume(subvolume: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    const CONTROL: libc::c_ulong = 0xc010_9428;
    const WAIT: libc::c_ulong = 0x942e;
    const LIMIT: libc::c_ulong = 0x8030_942b;
    let fd = subvolume.as_raw_fd();
    // On: already on is no error. Then counting what is there is waited for.
    let mut on: [u64; 2] = [1, 0];
    // Group 0 is the subvolume's own; the limit is one of referenced bytes.
    let limit: [u64; 6] = [0, 1, bytes, 0, 0, 0];
    // SAFETY: the requests read `btrfs_ioctl_quota_ctl_args`, nothing, and `btrfs_ioctl_qgroup_limit_args`; all live through the calls.
    unsafe {
        check(libc::ioctl(fd, CONTROL as _, &raw mut on).into())?;
        let _ = libc::ioctl(fd, WAIT as _);
        check(libc::ioctl(fd, LIMIT as _, &raw const limit).into())?;
    }
    Ok(())
}
