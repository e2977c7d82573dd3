//! Two things about network links that rustix lacks: raising the loopback of a fresh namespace without netlink, and
//! netlink's own socket options.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::check;

/// Raises `lo` in the caller's network namespace.
pub fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all bytes zero is a valid ifreq (netdevice(7)): an empty name and an empty union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

/// Makes a netlink socket's acknowledgements carry the kernel's own explanation and not a copy of the request
/// (`NETLINK_EXT_ACK`, `NETLINK_CAP_ACK`; netlink(7)).
pub fn explain_refusals(netlink: BorrowedFd<'_>) -> io::Result<()> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let length = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `on`, which lives through the call.
        let result =
            unsafe { libc::setsockopt(netlink.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length) };
        check(result.into())?;
    }
    Ok(())
}
