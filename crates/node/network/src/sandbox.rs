//! A sandbox: a network namespace with a link to the bridge, an address and a route.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use wharf_ipam::{Cidr, MacAddress};
use wharf_netlink::route::{self, Veth, Which};
use wharf_netlink::{Family, Requests, Socket};
use wharf_types::IdMaps;

use crate::{NetworkError, netns, random, sysctl};

/// The link's name in every container.
pub(crate) const LINK: &str = "eth0";

/// What all sandboxes of a bridge have in common.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Index of the bridge.
    pub(crate) bridge: u32,
    /// Bytes.
    pub(crate) mtu: u32,
    /// The gateway, one per family.
    pub(crate) gateway: IpAddr,
    pub(crate) gateway_v6: Option<IpAddr>,
    /// Containers may not talk to each other.
    pub(crate) isolated: bool,
    /// Alias of links that no container has yet.
    pub(crate) alias: String,
    /// The ids of their user namespaces, if they have any.
    pub(crate) users: Option<IdMaps>,
}

/// A sandbox that is ready but for its last step: until [`Sandbox::enable`] it answers no ARP request, so that nothing
/// reaches an address that no container has yet.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) netns: OwnedFd,
    pub(crate) host_link: String,
    pub(crate) mac: MacAddress,
    pub(crate) ipv4: Cidr,
    pub(crate) ipv6: Option<Cidr>,
    /// Neighbours may know the address under another Ethernet address.
    pub(crate) announce: bool,
    link: u32,
    arp: OwnedFd,
    inner: Socket,
}

/// The Ethernet address that goes with an IPv4 address: whoever has the IP address has this, so neighbours'
/// caches stay right when an address is used again, and nothing has to be announced. Docker up to version 27 did so.
pub(crate) fn mac_of(address: IpAddr) -> MacAddress {
    match address {
        IpAddr::V4(a) => {
            let [b, c, d, e] = a.octets();
            MacAddress([0x02, 0x42, b, c, d, e])
        }
        IpAddr::V6(a) => {
            let [.., b, c, d, e] = a.octets();
            MacAddress([0x02, 0x43, b, c, d, e])
        }
    }
}

pub(crate) fn failed<'a>(
    action: &'static str,
    link: &'a str,
) -> impl Fn(wharf_netlink::NetlinkError) -> NetworkError + 'a {
    move |source| NetworkError::Link { action, link: link.to_owned(), source }
}

impl Sandbox {
    /// Makes a sandbox beside the bridge, whose namespace is `home` and that of the calling thread.
    pub(crate) fn build(plan: &Plan, home: &OwnedFd, ipv4: Cidr, ipv6: Option<Cidr>) -> Result<Self, NetworkError> {
        // With br_netfilter, published ports are translated on the bridge itself: a container that calls its own is
        // sent back out of the port it came in, and isolated ports could not call each other's. The rules then see
        // what stays on the bridge and do the isolation; without br_netfilter only the bridge's ports can.
        let filtered = |name: &str| sysctl::read(name).as_deref() == Some("1");
        let hairpin = filtered("bridge/bridge-nf-call-iptables");
        let isolated = plan.isolated && !(hairpin && (ipv6.is_none() || filtered("bridge/bridge-nf-call-ip6tables")));
        let host_link = random::link()?;
        let mac = mac_of(ipv4.address());
        let mut host = Socket::open(Family::Route).map_err(failed("adding link", &host_link))?;
        netns::in_new(home, plan.users.as_ref(), |netns| {
            let mut requests = Requests::new();
            let veth = Veth {
                name: &host_link,
                master: Some(plan.bridge),
                peer: LINK,
                peer_mac: Some(mac.0),
                peer_netns: netns.as_fd(),
                mtu: plan.mtu,
            };
            route::add_veth(&mut requests, &veth);
            // A port of a bridge needs no IPv6 address of its own, nor the chatter that comes with it.
            route::set_no_link_local(&mut requests, Which::Name(&host_link));
            route::set_alias(&mut requests, Which::Name(&host_link), &plan.alias);
            if hairpin || isolated {
                route::set_port(&mut requests, Which::Name(&host_link), hairpin, isolated);
            }
            route::set_up(&mut requests, Which::Name(&host_link));
            host.call(&mut requests).map_err(failed("adding link", &host_link))?;
            let mut inner = Socket::open(Family::Route).map_err(failed("configuring", LINK))?;
            let link = route::link(&mut inner, Which::Name(LINK)).map_err(failed("configuring", LINK))?.index;
            let arp = set_parameters(ipv6.is_some())?;
            let mut requests = Requests::new();
            route::set_up(&mut requests, Which::Name("lo"));
            route::set_up(&mut requests, Which::Index(link));
            let broadcast = ipv4.broadcast().map(IpAddr::V4);
            route::add_address(&mut requests, link, ipv4.address(), ipv4.prefix(), broadcast);
            route::add_route(&mut requests, None, plan.gateway, link);
            if let Some(ipv6) = ipv6 {
                // Now, not in `enable`: the kernel accepts packets for a new IPv6 address only after deferred work.
                route::add_address(&mut requests, link, ipv6.address(), ipv6.prefix(), None);
                plan.gateway_v6.iter().for_each(|gateway| route::add_route(&mut requests, None, *gateway, link));
            }
            inner.call(&mut requests).map_err(failed("configuring", LINK))?;
            // The links' carrier reaches bridge, queues and IPv6 by deferred work.
            let asked = Instant::now();
            await_running(&mut host, Which::Name(&host_link), asked)?;
            await_running(&mut host, Which::Index(plan.bridge), asked)?;
            if let Some(ipv6) = ipv6 {
                await_running(&mut inner, Which::Index(link), asked)?;
                await_local(&mut inner, ipv6.address(), asked)?;
            }
            Ok(Self { netns, host_link: host_link.clone(), mac, ipv4, ipv6, announce: false, link, arp, inner })
        })
    }

    /// Makes it answer: the last step before a container has it.
    pub(crate) fn enable(&mut self, mac: Option<MacAddress>) -> Result<(), NetworkError> {
        answer_arp(&self.arp, b"0")?;
        let mut requests = Requests::new();
        if mac.is_some() || self.announce {
            // Setting the address, even to what it is, makes the kernel announce it (arp_notify).
            self.mac = mac.unwrap_or(self.mac);
            route::set_mac(&mut requests, Which::Index(self.link), self.mac.0);
        }
        self.inner.call(&mut requests).map_err(failed("configuring", LINK))
    }
}

/// How long a sandbox may take to become ready before it is handed out as it is, and between two looks at it.
const PATIENCE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_micros(100);

/// Waits until a link carries packets, lest the first one be lost and repeated after a second. Since Linux 6.9 asking
/// does the deferred work (linkwatch_sync_dev in rtnl_getlink), so that the first answer is the last.
fn await_running(socket: &mut Socket, link: Which<'_>, asked: Instant) -> Result<(), NetworkError> {
    while !route::link(socket, link).map_err(failed("raising", LINK))?.running && asked.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until packets for a new IPv6 address are taken.
fn await_local(inner: &mut Socket, address: IpAddr, asked: Instant) -> Result<(), NetworkError> {
    while !route::is_local(inner, address).map_err(failed("configuring", LINK))? && asked.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Sets the namespace's parameters and returns the one that keeps it silent.
/// What every namespace of a container gets, as Docker does, so that ping and ports below 1024 need no rights.
pub(crate) fn set_common_parameters() -> Result<(), NetworkError> {
    sysctl::write("ipv4/ip_unprivileged_port_start", "0")?;
    sysctl::write("ipv4/ping_group_range", "0 2147483647")
}

fn set_parameters(ipv6: bool) -> Result<OwnedFd, NetworkError> {
    set_common_parameters()?;
    if ipv6 {
        sysctl::write_if_present("ipv6/conf/eth0/accept_dad", "0")?;
        // Routes come from the engine, never from who sends router advertisements (CVE-2020-13401).
        sysctl::write_if_present("ipv6/conf/eth0/accept_ra", "0")?;
    } else {
        // A container on an IPv4 network must not speak IPv6 to its neighbours (CVE-2024-32473).
        sysctl::write_if_present("ipv6/conf/eth0/disable_ipv6", "1")?;
    }
    sysctl::write("ipv4/conf/eth0/arp_notify", "1")?;
    let arp = sysctl::open("ipv4/conf/eth0/arp_ignore")?;
    answer_arp(&arp, b"8")?;
    Ok(arp)
}

/// Writes `arp_ignore`: 0 answers, 8 does not. At offset 0, since the kernel ignores numbers written elsewhere.
fn answer_arp(parameter: &OwnedFd, value: &[u8]) -> Result<(), NetworkError> {
    rustix::io::pwrite(parameter, value, 0).map_err(|e| NetworkError::Io {
        action: "writing",
        subject: "net/ipv4/conf/eth0/arp_ignore".to_owned(),
        source: e.into(),
    })?;
    Ok(())
}
