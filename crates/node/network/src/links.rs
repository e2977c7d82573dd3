//! The host's side of user-defined networks: bridges and parents of macvlan links.

use std::net::IpAddr;

use wharf_firewall::{Bridge, Face, GatewayMode};
use wharf_ipam::Cidr;
use wharf_netlink::route::{self, MacvlanMode, Which};
use wharf_netlink::{Errno, Requests, Socket};

use crate::bridge::{self, alias, check_name, link_failed};
use crate::spec::{BridgeDriver, Driver, MacvlanDriver, NetworkSpec};
use crate::{NetworkConfig, NetworkError, random, sysctl};

/// What containers' links hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Ports of this bridge; they may not talk to each other if `isolated`.
    Bridge { index: u32, isolated: bool },
    /// Macvlan links of this parent.
    Macvlan { parent: u32, mode: MacvlanMode },
    /// Nothing of ours: a plugin makes the links.
    Plugin,
}

/// Makes or finds what the network hangs on. Returns it, and whether a link was made.
pub(crate) fn open(
    config: &NetworkConfig,
    spec: &NetworkSpec,
    host: &mut Socket,
) -> Result<(Base, bool), NetworkError> {
    match &spec.driver {
        Driver::Bridge(driver) => open_bridge(config, spec, driver, host),
        Driver::Macvlan(driver) => open_parent(config, driver, host),
        Driver::Remote(_) => Ok((Base::Plugin, false)),
    }
}

fn open_bridge(
    config: &NetworkConfig,
    spec: &NetworkSpec,
    driver: &BridgeDriver,
    host: &mut Socket,
) -> Result<(Base, bool), NetworkError> {
    let name = &driver.link;
    check_name(name)?;
    let (link, made) = match route::link(host, Which::Name(name)) {
        Ok(link) => (link, false),
        Err(e) if e.is(Errno::NODEV) => (make_bridge(config, spec, name, host)?, true),
        Err(e) => return Err(link_failed("finding bridge", name)(e)),
    };
    if link.kind != "bridge" {
        return Err(NetworkError::NotABridge(name.clone()));
    }
    let base = Base::Bridge { index: link.index, isolated: !driver.icc };
    let created = made || link.alias == alias(&config.instance);
    let raised = raise_bridge(spec, driver, link.index, created, host);
    if let (Err(_), true) = (&raised, made) {
        // The first failure is the one to tell.
        let _ = bridge::remove(link.index, name, host);
    }
    raised.map(|()| (base, made))
}

fn make_bridge(
    config: &NetworkConfig,
    spec: &NetworkSpec,
    name: &str,
    host: &mut Socket,
) -> Result<route::Link, NetworkError> {
    let mut requests = Requests::new();
    route::add_bridge(&mut requests, name, random::mac()?.0, if spec.mtu == 0 { 1500 } else { spec.mtu });
    route::set_alias(&mut requests, Which::Name(name), &alias(&config.instance));
    host.call(&mut requests).map_err(link_failed("adding bridge", name))?;
    route::link(host, Which::Name(name)).map_err(link_failed("finding bridge", name))
}

fn raise_bridge(
    spec: &NetworkSpec,
    driver: &BridgeDriver,
    index: u32,
    created: bool,
    host: &mut Socket,
) -> Result<(), NetworkError> {
    let name = &driver.link;
    let ipv6 = spec.subnet(true).is_some();
    bridge::parameters(name, created, ipv6)?;
    let mut requests = Requests::new();
    for subnet in &spec.subnets {
        let six = subnet.subnet.is_ipv6();
        let mode = if six { driver.mode_v6 } else { driver.mode_v4 };
        let Some(gateway) = subnet.gateway else { continue };
        // An isolated network has no gateway, and one that is inhibited has another machine for it.
        if mode == GatewayMode::Isolated || (!six && driver.inhibit_ipv4) {
            continue;
        }
        let broadcast = subnet.subnet.broadcast().map(IpAddr::V4);
        route::add_address(&mut requests, index, gateway, subnet.subnet.prefix(), broadcast);
    }
    route::set_up(&mut requests, Which::Index(index));
    host.call(&mut requests).map_err(link_failed("raising bridge", name))
}

fn open_parent(
    config: &NetworkConfig,
    driver: &MacvlanDriver,
    host: &mut Socket,
) -> Result<(Base, bool), NetworkError> {
    let name = &driver.parent;
    let mut made = false;
    let link = match route::link(host, Which::Name(name)) {
        Ok(link) => link,
        Err(e) if e.is(Errno::NODEV) => {
            make_parent(config, driver, host)?;
            made = true;
            route::link(host, Which::Name(name)).map_err(link_failed("finding parent", name))?
        }
        Err(e) => return Err(link_failed("finding parent", name)(e)),
    };
    Ok((Base::Macvlan { parent: link.index, mode: driver.mode }, made))
}

fn make_parent(config: &NetworkConfig, driver: &MacvlanDriver, host: &mut Socket) -> Result<(), NetworkError> {
    let name = &driver.parent;
    let mut requests = Requests::new();
    match &driver.vlan {
        Some((below, tag)) => {
            let below = match route::link(host, Which::Name(below)) {
                Ok(link) => link.index,
                Err(e) if e.is(Errno::NODEV) => return Err(NetworkError::NoParent(below.clone())),
                Err(e) => return Err(link_failed("finding parent", below)(e)),
            };
            route::add_vlan(&mut requests, name, below, *tag);
        }
        None if driver.dummy => route::add_dummy(&mut requests, name),
        None => return Err(NetworkError::NoParent(name.clone())),
    }
    route::set_alias(&mut requests, Which::Name(name), &alias(&config.instance));
    route::set_up(&mut requests, Which::Name(name));
    host.call(&mut requests).map_err(|source| match source.errno() {
        // A kernel without vlan or dummy links; Docker's text.
        Some(Errno::OPNOTSUPP) => NetworkError::Unsupported,
        _ => link_failed("adding parent", name)(source),
    })
}

/// Removes what [`open`] made: a link that carries our alias. Others are left.
pub(crate) fn close(config: &NetworkConfig, spec: &NetworkSpec, host: &mut Socket) -> Result<(), NetworkError> {
    let name = link_name(spec);
    if name.is_empty() {
        return Ok(());
    }
    match route::link(host, Which::Name(name)) {
        Ok(link) if link.alias == alias(&config.instance) => bridge::remove(link.index, name, host),
        Ok(_) => Ok(()),
        Err(e) if e.is(Errno::NODEV) => Ok(()),
        Err(e) => Err(link_failed("finding link", name)(e)),
    }
}

/// The host's link that the network hangs on; none for a plugin's.
pub(crate) fn link_name(spec: &NetworkSpec) -> &str {
    match &spec.driver {
        Driver::Bridge(driver) => &driver.link,
        Driver::Macvlan(driver) => &driver.parent,
        Driver::Remote(_) => "",
    }
}

/// The network as the rules need to know it; macvlan networks have none.
pub(crate) fn rules_of(spec: &NetworkSpec) -> Option<Bridge> {
    let Driver::Bridge(driver) = &spec.driver else { return None };
    let face = |ipv6: bool| {
        let subnet: Cidr = spec.subnet(ipv6)?.subnet;
        let (mode, source) = if ipv6 { (driver.mode_v6, driver.source_v6) } else { (driver.mode_v4, driver.source_v4) };
        Some(Face { subnet, mode, masquerade: driver.masquerade, source })
    };
    Some(Bridge {
        name: driver.link.clone(),
        ipv4: face(false),
        ipv6: face(true),
        icc: driver.icc,
        internal: spec.internal,
        trusted: driver.trusted.clone(),
    })
}

/// Whether published loopback ports may lead to this network.
pub(crate) fn allow_loopback(spec: &NetworkSpec) -> Result<(), NetworkError> {
    match &spec.driver {
        Driver::Bridge(driver) if !spec.internal && spec.subnet(false).is_some() => {
            bridge::allow_loopback(&driver.link, true)
        }
        Driver::Bridge(_) | Driver::Macvlan(_) | Driver::Remote(_) => Ok(()),
    }
}

/// Whether packets on bridges pass the host's rules.
pub(crate) fn is_filtered(ipv6: bool) -> bool {
    let name = if ipv6 { "bridge/bridge-nf-call-ip6tables" } else { "bridge/bridge-nf-call-iptables" };
    sysctl::read(name).as_deref() == Some("1")
}
