//! Sockets in the namespaces to which they belong.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{DnsError, failed};

/// The address that containers ask.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where a container's queries come in.
#[derive(Debug)]
pub struct Sockets {
    /// For UDP.
    pub udp: OwnedFd,
    /// Listens for TCP.
    pub tcp: OwnedFd,
}

impl Sockets {
    /// The ports of 127.0.0.11 that they are bound to: UDP's and TCP's.
    pub fn ports(&self) -> Result<(u16, u16), DnsError> {
        let port = |fd: &OwnedFd| -> io::Result<u16> {
            let address = SocketAddr::try_from(getsockname(fd)?).map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(address.port())
        };
        let read = || Ok::<_, io::Error>((port(&self.udp)?, port(&self.tcp)?));
        read().map_err(failed("finding the ports of"))
    }

    /// Duplicates both.
    pub fn try_clone(&self) -> Result<Sockets, DnsError> {
        let clone = || Ok::<_, io::Error>(Sockets { udp: self.udp.try_clone()?, tcp: self.tcp.try_clone()? });
        clone().map_err(failed("duplicating sockets of"))
    }
}

fn open(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    // Any free port: a resolver on port 53 would be in the way of name servers in containers.
    bind(&socket, &SocketAddr::from((ADDRESS, 0)))?;
    if kind == SocketType::STREAM {
        listen(&socket, 128)?;
    }
    Ok(socket)
}

/// Makes the sockets of a container in the calling thread's network namespace, whose `lo` is up.
pub fn open_sockets() -> Result<Sockets, DnsError> {
    let made = || Ok::<_, io::Error>(Sockets { udp: open(SocketType::DGRAM)?, tcp: open(SocketType::STREAM)? });
    made().map_err(failed("opening sockets of"))
}

pub(crate) fn current_namespace() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?)
}

/// Runs `work` in another namespace; the thread comes back to `home`.
pub(crate) fn within<T>(
    home: &OwnedFd,
    netns: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(netns) = netns else { return work() };
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    let done = work();
    if move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        // We came from there; if it were refused, queries of all containers would leave through this one's namespace.
        std::process::abort();
    }
    done
}

/// Opens a socket to an upstream. A connected socket takes answers from there only, on a port that nobody can guess.
pub(crate) fn to_upstream(kind: SocketType, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}
