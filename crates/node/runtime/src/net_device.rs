//! Network devices of the host that are moved into the container (OCI config-linux.md, "Network Devices").
//!
//! What the kernel takes from a device that changes its namespace is given back: its global addresses, and that it is up.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use wharf_netlink::route::{self, Which};
use wharf_netlink::{Family, Requests, Socket};
use wharf_oci::runtime::Linux;
use wharf_sys::clone::flags;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};
use crate::namespaces::Namespaces;

/// A name has at most so many bytes (`IFNAMSIZ` less the zero).
const LONGEST: usize = 15;

/// A device to move.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    index: u32,
    inside: String,
    addresses: Vec<(IpAddr, u8)>,
}

fn failed<T, E: std::fmt::Display>(result: Result<T, E>, what: &str, name: &str) -> Result<T, Failure> {
    result.map_err(|e| refuse(Stage::Namespace, format!("{what} network device {name:?}: {e}")))
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | ':' | '%' | '\0');
    !name.is_empty() && name.len() <= LONGEST && !matches!(name, "." | "..") && name.chars().all(plain)
}

/// Checks what is asked for and finds the devices, in the caller's network namespace.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces<'_>) -> Result<Vec<Device>, Failure> {
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    if !namespaces.has(flags::NEWNET) {
        return Err(refuse(Stage::Config, "unable to move network devices without a private NET namespace"));
    }
    let mut socket = failed(Socket::open(Family::Route), "find", "")?;
    let mut devices = Vec::with_capacity(linux.net_devices.len());
    for (name, wanted) in &linux.net_devices {
        let inside = wanted.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
        for name in [name.as_str(), inside] {
            if !is_name(name) {
                return Err(refuse(Stage::Config, format!("invalid network device name {name:?}")));
            }
        }
        let link = failed(route::link(&mut socket, Which::Name(name)), "find", name)?;
        let all = failed(route::addresses(&mut socket), "read addresses of", name)?;
        // Those of the link itself are made anew by the kernel.
        let global = |address: &IpAddr| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        let own = all.iter().filter(|a| a.link == link.index && global(&a.address));
        let addresses = own.map(|a| (a.address, a.prefix)).collect();
        devices.push(Device { name: name.clone(), index: link.index, inside: inside.to_owned(), addresses });
    }
    Ok(devices)
}

/// In the caller: moves them to the namespace of the first process.
pub(crate) fn hand_over(devices: &[Device], netns: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut socket = failed(Socket::open(Family::Route), "move", "")?;
    for device in devices {
        let mut requests = Requests::new();
        route::move_link(&mut requests, Which::Index(device.index), netns, &device.inside);
        failed(socket.call(&mut requests), "move", &device.name)?;
    }
    Ok(())
}

/// In the container's namespace: gives them back what they had.
pub(crate) fn settle(devices: &[Device]) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut socket = failed(Socket::open(Family::Route), "set up", "")?;
    for device in devices {
        let link = failed(route::link(&mut socket, Which::Name(&device.inside)), "find moved", &device.inside)?;
        let mut requests = Requests::new();
        for (address, prefix) in &device.addresses {
            route::add_address(&mut requests, link.index, *address, *prefix, None);
        }
        route::set_up(&mut requests, Which::Index(link.index));
        failed(socket.call(&mut requests), "set up", &device.inside)?;
    }
    Ok(())
}

/// The network namespace of a process.
pub(crate) fn namespace_of(pid: i32) -> Result<std::os::fd::OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/net");
    crate::mounting::open_host(path.as_ref(), rustix::fs::OFlags::RDONLY)
        .or_fail(Stage::Namespace, || format!("open {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_takes_as_a_name_is_one() {
        assert!(is_name("eth0") && is_name("a-b.c@d"));
        for name in ["", ".", "..", "a/b", "a b", "a:1", "eth%d", "sixteen-letters-"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
