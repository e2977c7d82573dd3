//! The default bridge: found or made, with addresses and kernel parameters.

use std::net::{IpAddr, Ipv6Addr};

use wharf_ipam::{Cidr, MacAddress, choose_subnet};
use wharf_netlink::route::{self, Which};
use wharf_netlink::{Errno, NetlinkError, Requests, Socket};
use wharf_types::InstanceId;

use crate::{BridgeConfig, BridgeInfo, NetworkConfig, NetworkError, random, resolv, sysctl};

/// The name under which Docker makes the bridge without being asked to.
const DOCKER0: &str = "docker0";

/// The bridge as it now exists.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) info: BridgeInfo,
    pub(crate) index: u32,
    /// The bridge's own address, which need not be the containers' gateway.
    pub(crate) address: IpAddr,
    pub(crate) address_v6: Option<IpAddr>,
    /// We made it, now or in an earlier life.
    pub(crate) created: bool,
}

pub(crate) fn link_failed<'a>(action: &'static str, link: &'a str) -> impl Fn(NetlinkError) -> NetworkError + 'a {
    move |source| NetworkError::Link { action, link: link.to_owned(), source }
}

/// The alias of a bridge that this instance made.
pub(crate) fn alias(instance: &InstanceId) -> String {
    format!("wharf:{instance}:bridge")
}

/// Finds or makes the bridge, gives it its addresses and raises it. Does not yet open it to loopback traffic: see
/// [`allow_loopback`].
pub(crate) fn open(config: &NetworkConfig, bridge: &BridgeConfig, host: &mut Socket) -> Result<Opened, NetworkError> {
    check_name(&bridge.name)?;
    let mtu = if bridge.mtu == 0 { 1500 } else { bridge.mtu };
    let link = match route::link(host, Which::Name(&bridge.name)) {
        Ok(link) => link,
        Err(e) if e.is(Errno::NODEV) => make(config, bridge, mtu, host)?,
        Err(e) => return Err(link_failed("finding bridge", &bridge.name)(e)),
    };
    if link.kind != "bridge" {
        return Err(NetworkError::NotABridge(bridge.name.clone()));
    }
    let created = link.alias == alias(&config.instance);
    let ipv4 = address(config, bridge, link.index, created, host)?;
    let ipv6 = if bridge.ipv6 { Some(address_v6(config, bridge)?) } else { None };
    parameters(&bridge.name, created, bridge.ipv6)?;
    let mut requests = Requests::new();
    route::add_address(&mut requests, link.index, ipv4.address(), ipv4.prefix(), ipv4.broadcast().map(IpAddr::V4));
    if let Some(ipv6) = ipv6 {
        route::add_address(&mut requests, link.index, ipv6.address(), ipv6.prefix(), None);
    }
    route::set_up(&mut requests, Which::Index(link.index));
    host.call(&mut requests).map_err(link_failed("raising bridge", &bridge.name))?;
    let gateway = match ipv4.address() {
        IpAddr::V4(own) => bridge.default_gateway.unwrap_or(own),
        IpAddr::V6(_) => return Err(mismatch(bridge, "its IPv4 address is an IPv6 address")),
    };
    if !ipv4.contains(gateway.into()) {
        return Err(mismatch(bridge, &format!("gateway {gateway} is not in {}", ipv4.network())));
    }
    let own_v6 = |c: Cidr| match c.address() {
        IpAddr::V6(own) => Some(bridge.default_gateway_v6.unwrap_or(own)),
        IpAddr::V4(_) => None,
    };
    let info = BridgeInfo {
        name: bridge.name.clone(),
        mac: MacAddress(link.mac.unwrap_or_default()),
        subnet: ipv4.network(),
        range: bridge.fixed_cidr.map(|c| c.network()),
        gateway,
        subnet_v6: ipv6.map(|c| c.network()),
        gateway_v6: ipv6.and_then(own_v6),
        mtu,
    };
    let (address, address_v6) = (ipv4.address(), ipv6.map(|c| c.address()));
    Ok(Opened { info, index: link.index, address, address_v6, created })
}

fn mismatch(bridge: &BridgeConfig, reason: &str) -> NetworkError {
    NetworkError::Config { bridge: bridge.name.clone(), reason: reason.to_owned() }
}

/// The kernel's own rule for interface names (`dev_valid_name`).
pub(crate) fn check_name(name: &str) -> Result<(), NetworkError> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(NetworkError::BridgeName(name.to_owned()));
    }
    Ok(())
}

fn make(
    config: &NetworkConfig,
    bridge: &BridgeConfig,
    mtu: u32,
    host: &mut Socket,
) -> Result<route::Link, NetworkError> {
    if !bridge.create && bridge.name != DOCKER0 {
        return Err(NetworkError::NoBridge(bridge.name.clone()));
    }
    let mut requests = Requests::new();
    route::add_bridge(&mut requests, &bridge.name, random::mac()?.0, mtu);
    route::set_alias(&mut requests, Which::Name(&bridge.name), &alias(&config.instance));
    host.call(&mut requests).map_err(link_failed("adding bridge", &bridge.name))?;
    route::link(host, Which::Name(&bridge.name)).map_err(link_failed("finding bridge", &bridge.name))
}

/// Decides the bridge's IPv4 address: `--bip`, else what it has, else the first of a free subnet.
fn address(
    config: &NetworkConfig,
    bridge: &BridgeConfig,
    index: u32,
    created: bool,
    host: &mut Socket,
) -> Result<Cidr, NetworkError> {
    let all = route::addresses(host).map_err(link_failed("reading addresses of", &bridge.name))?;
    let own = |a: &&route::Address| a.link == index && a.address.is_ipv4();
    let present = all.iter().find(own).and_then(|a| Cidr::new(a.address, a.prefix).ok());
    match (bridge.bip, present) {
        (Some(bip), _) if bip.is_ipv6() => Err(mismatch(bridge, &format!("{bip} is not an IPv4 address"))),
        (Some(bip), Some(present)) if present != bip => {
            let text =
                format!("Bridge IPv4 ({}) does not match requested configuration {}", present.address(), bip.address());
            Err(mismatch(bridge, &text))
        }
        (Some(bip), _) => Ok(bip),
        (None, Some(present)) => Ok(present),
        (None, None) if created || bridge.name == DOCKER0 => {
            let subnet = match bridge.fixed_cidr {
                Some(fixed) => fixed.network(),
                None => choose_subnet(&config.spaces, &taken(&all, host)?)?,
            };
            Cidr::new(subnet.at(1), subnet.prefix()).map_err(|e| mismatch(bridge, &e.to_string()))
        }
        (None, None) => Err(NetworkError::NoBridgeAddress(bridge.name.clone())),
    }
}

/// What a new subnet must not overlap: routes, addresses and name servers of the host.
pub(crate) fn taken(addresses: &[route::Address], host: &mut Socket) -> Result<Vec<Cidr>, NetworkError> {
    let mut taken: Vec<Cidr> = addresses.iter().filter_map(|a| Cidr::new(a.address, a.prefix).ok()).collect();
    let routes = route::routes(host).map_err(link_failed("reading routes for", "a free subnet"))?;
    let destinations = routes.iter().filter_map(|r| r.destination);
    taken.extend(destinations.filter(|d| d.1 > 0).filter_map(|(a, p)| Cidr::new(a, p).ok()));
    let servers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    taken.extend(resolv::servers(&servers).into_iter().map(Cidr::single));
    Ok(taken)
}

/// Decides the bridge's IPv6 address: `--bip6`, else the first of `--fixed-cidr-v6`, else of a unique local network
/// (RFC 4193) whose global id is the instance id, so that it is the same after every start.
fn address_v6(config: &NetworkConfig, bridge: &BridgeConfig) -> Result<Cidr, NetworkError> {
    let wrong = |c: Cidr| mismatch(bridge, &format!("{c} is not an IPv6 network"));
    if let Some(bip6) = bridge.bip6 {
        return if bip6.is_ipv6() { Ok(bip6) } else { Err(wrong(bip6)) };
    }
    let subnet = match bridge.fixed_cidr_v6 {
        Some(fixed) if fixed.is_ipv6() => fixed.network(),
        Some(fixed) => return Err(wrong(fixed)),
        None => unique_local(&config.instance, 64),
    };
    Cidr::new(subnet.at(1), subnet.prefix()).map_err(|e| mismatch(bridge, &e.to_string()))
}

/// The unique local network (RFC 4193) whose global id is the instance id.
pub(crate) fn unique_local(instance: &InstanceId, prefix: u8) -> Cidr {
    let id = u128::from_str_radix(&instance.as_str()[..10], 16).unwrap_or_default();
    let network = IpAddr::V6(Ipv6Addr::from_bits(0xfd << 120 | id << 80));
    Cidr::new(network, prefix).unwrap_or(Cidr::single(network))
}

pub(crate) fn parameters(name: &str, created: bool, ipv6: bool) -> Result<(), NetworkError> {
    // The host must not take routes from a container's router advertisements (CVE-2020-13401).
    sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
    if created {
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), if ipv6 { "0" } else { "1" })?;
    }
    Ok(())
}

/// Lets connections to published ports of 127.0.0.1 leave through the bridge, or no longer. Only while the rules are in
/// place that drop loopback addresses from outside (CVE-2020-8558).
pub(crate) fn allow_loopback(name: &str, allow: bool) -> Result<(), NetworkError> {
    sysctl::write_if_present(&format!("ipv4/conf/{name}/route_localnet"), if allow { "1" } else { "0" })
}

/// Removes links that carry this instance's alias and that nobody owns: sandboxes of a dead daemon, and bridges and
/// parents of no network, that nothing hangs on.
pub(crate) fn sweep(
    instance: &InstanceId,
    networks: &[&str],
    owned: &[&str],
    host: &mut Socket,
) -> Result<(), NetworkError> {
    let links = route::links(host).map_err(link_failed("listing links of", instance.as_str()))?;
    let prefix = format!("wharf:{instance}:");
    let kept = |l: &route::Link| owned.contains(&l.name.as_str());
    for link in links.iter().filter(|l| l.alias.starts_with(&prefix)) {
        let in_use = || links.iter().any(|port| port.master == Some(link.index) && kept(port));
        let keep = match link.kind.as_str() {
            "veth" => kept(link),
            "bridge" | "vlan" | "dummy" => networks.contains(&link.name.as_str()) || in_use(),
            _ => true,
        };
        if !keep {
            remove(link.index, &link.name, host)?;
        }
    }
    Ok(())
}

/// Deletes a link. One that is gone already is as wanted.
pub(crate) fn remove(index: u32, name: &str, host: &mut Socket) -> Result<(), NetworkError> {
    let mut requests = Requests::new();
    route::delete_link(&mut requests, Which::Index(index));
    match host.call(&mut requests) {
        Err(e) if e.is(Errno::NODEV) => Ok(()),
        other => other.map_err(link_failed("removing link", name)),
    }
}

/// Whether IPv4 forwarding was off and is now on, and the same for IPv6.
pub(crate) fn enable_forwarding(ipv6: bool) -> Result<(bool, bool), NetworkError> {
    let mut enabled = [false; 2];
    let names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    for (name, done) in names.into_iter().zip(&mut enabled).take(if ipv6 { 2 } else { 1 }) {
        if sysctl::read(name).as_deref() == Some("0") {
            sysctl::write(name, "1")?;
            *done = true;
        }
    }
    Ok((enabled[0], enabled[1]))
}
