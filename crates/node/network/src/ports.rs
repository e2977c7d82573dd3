//! Which host ports are published, and the sockets that keep them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use wharf_firewall::Protocol;

use crate::{BoundPort, NetworkError, PortRequest, sysctl};

/// Docker's backlog for published ports (Go's `listenerBacklog`, the usual somaxconn).
const BACKLOG: i32 = 4096;
/// How long a shim may take to end after its container.
const PARTING: Duration = Duration::from_secs(2);

/// Ports of this daemon's containers. The sockets themselves are held by the shims; this is what tells a port of ours
/// from a port of someone else, and what remains when a kernel has no sockets for a protocol.
#[derive(Debug, Default)]
pub(crate) struct PortTable {
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    next: HashMap<Protocol, u16>,
    /// Ports that were let go lately, by when: the shim of a container that is gone holds its sockets until it ends.
    parting: HashMap<(Protocol, u16), Instant>,
}

/// A port with the socket that keeps it.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) port: BoundPort,
    pub(crate) socket: Option<OwnedFd>,
}

/// For whom ports are reserved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) name: &'a str,
    pub(crate) endpoint: &'a str,
    /// Container address shown in messages.
    pub(crate) address: IpAddr,
    /// The bridge's default binding.
    pub(crate) binding: Option<IpAddr>,
    /// Whether ports are bound on IPv4 and on IPv6 addresses of the host.
    pub(crate) families: (bool, bool),
}

impl PortTable {
    /// Notes a port of an adopted container.
    pub(crate) fn adopt(&mut self, port: &BoundPort) {
        self.taken.entry((port.protocol, port.host_port)).or_default().push(port.host_ip);
    }

    /// Frees a port whose socket a shim still holds for a moment. One that is not taken changes nothing.
    pub(crate) fn release(&mut self, port: &BoundPort) {
        if port.host_port > 0 {
            self.parting.insert((port.protocol, port.host_port), Instant::now());
        }
        self.free(port);
    }

    /// Frees a port that nobody's socket holds.
    fn free(&mut self, port: &BoundPort) {
        let key = (port.protocol, port.host_port);
        if let Some(addresses) = self.taken.get_mut(&key) {
            if let Some(at) = addresses.iter().position(|a| *a == port.host_ip) {
                addresses.swap_remove(at);
            }
            if addresses.is_empty() {
                self.taken.remove(&key);
            }
        }
    }

    /// Whether the ports could not be reserved because a shim that is ending still holds one: it will be free in a moment.
    pub(crate) fn is_parting(&self, error: &NetworkError, requests: &[PortRequest]) -> bool {
        let late = |key| self.parting.get(&key).is_some_and(|at: &Instant| at.elapsed() < PARTING);
        let one = |r: &PortRequest| r.host_port > 0 && (r.host_port..=r.host_port_end).any(|p| late((r.protocol, p)));
        matches!(error, NetworkError::PortBind { errno: Errno::ADDRINUSE, .. }) && requests.iter().any(one)
    }

    /// Reserves all requested ports, or none.
    pub(crate) fn reserve(
        &mut self,
        requests: &[PortRequest],
        owner: Owner<'_>,
    ) -> Result<Vec<Reserved>, NetworkError> {
        self.parting.retain(|_, at| at.elapsed() < PARTING);
        let mut all = Vec::new();
        let both = !requests.is_empty() && ipv6_works();
        for request in requests {
            match self.reserve_one(request, owner, both) {
                Ok(reserved) => all.extend(reserved),
                Err(e) => {
                    all.iter().for_each(|r: &Reserved| self.free(&r.port));
                    return Err(e);
                }
            }
        }
        Ok(all)
    }

    fn reserve_one(
        &mut self,
        request: &PortRequest,
        owner: Owner<'_>,
        both: bool,
    ) -> Result<Vec<Reserved>, NetworkError> {
        // `--ip 0.0.0.0`, which is the default, means every address of both families.
        let binding = owner.binding.filter(|b| !b.is_unspecified());
        let addresses = match request.host_ip.or(binding) {
            Some(address) => vec![address],
            None if both => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        };
        let bound = |a: &IpAddr| if a.is_ipv6() { owner.families.1 } else { owner.families.0 };
        let addresses: Vec<IpAddr> = addresses.into_iter().filter(bound).collect();
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let any = request.host_port == 0;
        let (first, last) = if any { ephemeral() } else { (request.host_port, request.host_port_end) };
        let start = match self.next.get(&request.protocol) {
            Some(next) if any && (first..=last).contains(next) => *next,
            _ => first,
        };
        let mut failure = None;
        for port in (start..=last).chain(first..start) {
            match self.try_port(request, owner, &addresses, port) {
                Ok(reserved) => {
                    if any {
                        self.next.insert(request.protocol, if port == last { first } else { port + 1 });
                    }
                    return Ok(reserved);
                }
                // An address that this host does not have will not do for the next port either.
                Err(e @ NetworkError::PortBind { errno, .. }) if errno != Errno::ADDRINUSE => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        match failure {
            Some(e) if !any => Err(e),
            _ => Err(NetworkError::PortsExhausted { name: owner.name.into(), endpoint: owner.endpoint.into() }),
        }
    }

    fn try_port(
        &mut self,
        request: &PortRequest,
        owner: Owner<'_>,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<Vec<Reserved>, NetworkError> {
        let key = (request.protocol, port);
        let mut reserved = Vec::with_capacity(addresses.len());
        for &address in addresses {
            if let Some(holder) = self.taken.get(&key).and_then(|t| t.iter().find(|held| clash(**held, address))) {
                let address = SocketAddr::new(*holder, port);
                let (name, endpoint) = (owner.name.to_owned(), owner.endpoint.to_owned());
                return Err(NetworkError::PortAllocated { name, endpoint, address });
            }
            let socket = bind(request.protocol, SocketAddr::new(address, port)).map_err(|errno| {
                let single = request.host_port == request.host_port_end;
                NetworkError::PortBind {
                    name: owner.name.to_owned(),
                    endpoint: owner.endpoint.to_owned(),
                    range: (!single).then_some(port),
                    host: host_text(address, request),
                    to: SocketAddr::new(owner.address, request.container_port),
                    protocol: request.protocol,
                    errno,
                }
            })?;
            let PortRequest { protocol, container_port, .. } = *request;
            let port = BoundPort { protocol, container_port, host_ip: address, host_port: port };
            reserved.push(Reserved { port, socket });
        }
        reserved.iter().for_each(|r| self.adopt(&r.port));
        Ok(reserved)
    }
}

fn host_text(address: IpAddr, request: &PortRequest) -> String {
    let one = SocketAddr::new(address, request.host_port).to_string();
    if request.host_port == request.host_port_end { one } else { format!("{one}-{}", request.host_port_end) }
}

/// Whether two host addresses cannot both have the same port.
fn clash(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv6() == b.is_ipv6() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// The range for ports that nobody named, as Docker takes it from the kernel.
fn ephemeral() -> (u16, u16) {
    let range = sysctl::read("ipv4/ip_local_port_range").and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<u16>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    range.filter(|(first, last)| *first > 0 && first <= last).unwrap_or((49153, 65535))
}

fn ipv6_works() -> bool {
    sysctl::read("ipv6/conf/all/disable_ipv6").as_deref() == Some("0")
}

/// Binds a socket that keeps the port: TCP also listens, because two bound sockets that do not listen may share.
/// Absent if this kernel has no sockets for the protocol (SCTP as a module that is not loaded).
fn bind(protocol: Protocol, address: SocketAddr) -> Result<Option<OwnedFd>, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
        Ok(socket) => socket,
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        Err(e) => return Err(e),
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier holder that still wait for their end do not hinder.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol != Protocol::Udp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(Some(socket))
}
