//! Links, addresses and routes (rtnetlink(7), `include/uapi/linux/{if_link,if_addr,rtnetlink}.h`).
//!
//! The functions append one message to a [`Requests`]; the readers ask for a whole table.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::decode::{Attribute, Message, attributes, u32_at};
use crate::encode::{F_CREATE, F_EXCL, F_REPLACE, Requests};
use crate::{Family, NetlinkError, Socket};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const OPER_UP: u8 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_MODE: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const INET6_ADDR_GEN_MODE: u16 = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// A link is named or numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// By interface index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The text set with `ip link set alias`.
    pub alias: String,
    /// Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// Index of the bridge it belongs to.
    pub master: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries packets: up, with carrier, and the kernel has acted on both.
    pub running: bool,
    /// Bytes.
    pub mtu: u32,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination network; `None` is a default route.
    pub destination: Option<(IpAddr, u8)>,
    /// Outgoing interface.
    pub link: Option<u32>,
}

/// A pair of veth links; the peer is born in another network namespace, which spares moving it there (0.35 ms
/// instead of 32: moving waits for RCU).
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end here; it is made down.
    pub name: &'a str,
    /// Index of the bridge it joins, if any.
    pub master: Option<u32>,
    /// Name of the end there; it is made down.
    pub peer: &'a str,
    /// Ethernet address of the end there; random if absent.
    pub peer_mac: Option<[u8; 6]>,
    /// The other namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// Bytes, both ends.
    pub mtu: u32,
}

fn put_link(r: &mut Requests, which: Which<'_>, flags: u32, change: u32) {
    let index = if let Which::Index(i) = which { i } else { 0 };
    r.put(&link_header(AF_UNSPEC, index, flags, change));
    if let Which::Name(name) = which {
        r.attr_text(IFLA_IFNAME, name);
    }
}

const AF_UNSPEC: u8 = 0;

fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a veth pair.
pub fn add_veth(r: &mut Requests, veth: &Veth<'_>) {
    r.begin("add veth link", NEWLINK, F_CREATE | F_EXCL);
    put_link(r, Which::Name(veth.name), 0, 0);
    r.attr_u32(IFLA_MTU, veth.mtu);
    if let Some(master) = veth.master {
        r.attr_u32(IFLA_MASTER, master);
    }
    r.nest(IFLA_LINKINFO, |r| {
        r.attr(INFO_KIND, b"veth");
        r.nest(INFO_DATA, |r| {
            r.nest(VETH_INFO_PEER, |r| {
                r.put(&link_header(AF_UNSPEC, 0, 0, 0));
                r.attr_text(IFLA_IFNAME, veth.peer);
                r.attr_u32(IFLA_MTU, veth.mtu);
                if let Some(mac) = veth.peer_mac {
                    r.attr(IFLA_ADDRESS, &mac);
                }
                r.attr_u32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
            });
        });
    });
}

/// How macvlan links of one parent see each other (`include/uapi/linux/if_link.h`, MACVLAN_MODE_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// Through the switch that the parent is connected to.
    Vepa,
    /// Directly.
    Bridge,
    /// There is only one, which owns the parent.
    Passthru,
}

/// Makes a macvlan link in another network namespace, down.
pub fn add_macvlan(
    r: &mut Requests,
    parent: u32,
    mode: MacvlanMode,
    name: &str,
    mac: Option<[u8; 6]>,
    netns: BorrowedFd<'_>,
    mtu: u32,
) {
    r.begin("add macvlan link", NEWLINK, F_CREATE | F_EXCL);
    put_link(r, Which::Name(name), 0, 0);
    r.attr_u32(IFLA_LINK, parent);
    r.attr_u32(IFLA_MTU, mtu);
    if let Some(mac) = mac {
        r.attr(IFLA_ADDRESS, &mac);
    }
    r.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
    let number = match mode {
        MacvlanMode::Private => 1,
        MacvlanMode::Vepa => 2,
        MacvlanMode::Bridge => 4,
        MacvlanMode::Passthru => 8,
    };
    r.nest(IFLA_LINKINFO, |r| {
        r.attr(INFO_KIND, b"macvlan");
        r.nest(INFO_DATA, |r| r.attr_u32(1, number));
    });
}

/// Makes an 802.1q link on a parent, down.
pub fn add_vlan(r: &mut Requests, name: &str, parent: u32, tag: u16) {
    r.begin("add vlan link", NEWLINK, F_CREATE | F_EXCL);
    put_link(r, Which::Name(name), 0, 0);
    r.attr_u32(IFLA_LINK, parent);
    r.nest(IFLA_LINKINFO, |r| {
        r.attr(INFO_KIND, b"vlan");
        r.nest(INFO_DATA, |r| r.attr(1, &tag.to_ne_bytes()));
    });
}

/// Makes a link without another end, down: the parent of a macvlan network that has none.
pub fn add_dummy(r: &mut Requests, name: &str) {
    r.begin("add dummy link", NEWLINK, F_CREATE | F_EXCL);
    put_link(r, Which::Name(name), 0, 0);
    r.nest(IFLA_LINKINFO, |r| r.attr(INFO_KIND, b"dummy"));
}

/// Makes a bridge, down. The Ethernet address is fixed so that it does not follow the lowest of its ports.
pub fn add_bridge(r: &mut Requests, name: &str, mac: [u8; 6], mtu: u32) {
    r.begin("add bridge link", NEWLINK, F_CREATE | F_EXCL);
    put_link(r, Which::Name(name), 0, 0);
    r.attr_u32(IFLA_MTU, mtu);
    r.attr(IFLA_ADDRESS, &mac);
    r.nest(IFLA_LINKINFO, |r| r.attr(INFO_KIND, b"bridge"));
}

/// Raises a link.
pub fn set_up(r: &mut Requests, which: Which<'_>) {
    r.begin("set link up", NEWLINK, 0);
    put_link(r, which, IFF_UP, IFF_UP);
}

/// Lowers a link.
pub fn set_down(r: &mut Requests, which: Which<'_>) {
    r.begin("set link down", NEWLINK, 0);
    put_link(r, which, 0, IFF_UP);
}

/// Moves a link, by its number, to another network namespace, under a new name. The kernel lowers it and takes its addresses away.
pub fn move_link(r: &mut Requests, which: Which<'_>, netns: BorrowedFd<'_>, name: &str) {
    r.begin("move link", NEWLINK, 0);
    put_link(r, which, 0, 0);
    r.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    r.attr_text(IFLA_IFNAME, name);
}

/// Sets a link's alias, at most 255 bytes.
pub fn set_alias(r: &mut Requests, which: Which<'_>, alias: &str) {
    r.begin("set link alias", NEWLINK, 0);
    put_link(r, which, 0, 0);
    r.attr(IFLA_IFALIAS, alias.as_bytes());
}

/// Sets a link's Ethernet address.
pub fn set_mac(r: &mut Requests, which: Which<'_>, mac: [u8; 6]) {
    r.begin("set link address", NEWLINK, 0);
    put_link(r, which, 0, 0);
    r.attr(IFLA_ADDRESS, &mac);
}

/// Stops the kernel from giving a link an IPv6 link-local address of its own choice.
pub fn set_no_link_local(r: &mut Requests, which: Which<'_>) {
    r.begin("set link address mode", NEWLINK, 0);
    put_link(r, which, 0, 0);
    r.nest(IFLA_AF_SPEC, |r| r.nest(u16::from(AF_INET6), |r| r.attr(INET6_ADDR_GEN_MODE, &[1])));
}

/// Sets the properties of a bridge's port: may frames go back out where they came in, and may they go only to ports
/// that are not isolated (Linux 4.18).
pub fn set_port(r: &mut Requests, which: Which<'_>, hairpin: bool, isolated: bool) {
    r.begin("set bridge port", NEWLINK, 0);
    put_link(r, which, 0, 0);
    r.nest(IFLA_LINKINFO, |r| {
        r.attr(INFO_SLAVE_KIND, b"bridge");
        r.nest(INFO_SLAVE_DATA, |r| {
            r.attr(BRPORT_MODE, &[u8::from(hairpin)]);
            r.attr(BRPORT_ISOLATED, &[u8::from(isolated)]);
        });
    });
}

/// Deletes a link.
pub fn delete_link(r: &mut Requests, which: Which<'_>) {
    r.begin("delete link", DELLINK, 0);
    put_link(r, which, 0, 0);
}

/// A token bucket: how fast a link sends (tc-tbf(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes each second; not 0.
    pub rate: u64,
    /// Bytes that may go at once.
    pub burst: u32,
    /// Bytes that may wait; more are dropped.
    pub limit: u32,
}

/// Gives a link a bucket for all that it sends.
pub fn set_bucket(r: &mut Requests, link: u32, bucket: Bucket) {
    const NEWQDISC: u16 = 36;
    const ROOT: u32 = 0xffff_ffff;
    const LINKLAYER_ETHERNET: u8 = 1;
    r.begin("limit the rate of link", NEWQDISC, F_CREATE | F_REPLACE);
    // struct tcmsg: family and padding, link, handle, parent, info.
    let mut message = [0; 20];
    message[4..8].copy_from_slice(&link.to_ne_bytes());
    message[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    r.put(&message);
    r.attr_text(1, "tbf");
    // struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes (rate at 8), limit, buffer, mtu.
    let mut parameters = [0; 36];
    parameters[1] = LINKLAYER_ETHERNET;
    parameters[8..12].copy_from_slice(&u32::try_from(bucket.rate).unwrap_or(u32::MAX).to_ne_bytes());
    parameters[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
    r.nest(2, |r| {
        r.attr(1, &parameters);
        if bucket.rate > u64::from(u32::MAX) {
            r.attr(4, &bucket.rate.to_ne_bytes());
        }
        r.attr_u32(6, bucket.burst);
    });
}

/// Deletes a link of the calling thread's namespace, and returns when nobody finds it any more. What the kernel does
/// after that (grace periods, 10 to 20 ms) is not waited for.
///
/// # Errors
/// `ENODEV` if there is none.
pub fn remove_link(name: &str) -> Result<(), NetlinkError> {
    const RTNLGRP_LINK: u32 = 1;
    let socket = Socket::with_groups(Family::Route, 1 << (RTNLGRP_LINK - 1))?;
    let mut requests = Requests::new();
    delete_link(&mut requests, Which::Name(name));
    socket.call_until(&mut requests, |message| read_link_of(message, DELLINK).is_some_and(|link| link.name == name))
}

fn octets(address: IpAddr) -> ([u8; 16], usize, u8) {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(a) => {
            bytes[..4].copy_from_slice(&a.octets());
            (bytes, 4, AF_INET)
        }
        IpAddr::V6(a) => (a.octets(), 16, AF_INET6),
    }
}

/// Gives a link an address, usable at once: IPv6 without duplicate address detection. One that it has already stays.
pub fn add_address(r: &mut Requests, link: u32, address: IpAddr, prefix: u8, broadcast: Option<IpAddr>) {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const BROADCAST: u16 = 4;
    const F_NODAD: u8 = 0x02;
    let (bytes, length, family) = octets(address);
    r.begin("add address", NEWADDR, F_CREATE | F_REPLACE);
    let mut header = [family, prefix, if family == AF_INET6 { F_NODAD } else { 0 }, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    r.put(&header);
    r.attr(LOCAL, &bytes[..length]);
    r.attr(ADDRESS, &bytes[..length]);
    if let Some(broadcast) = broadcast {
        let (bytes, length, _) = octets(broadcast);
        r.attr(BROADCAST, &bytes[..length]);
    }
}

/// Adds a route through a gateway; `None` is the default route.
pub fn add_route(r: &mut Requests, destination: Option<(IpAddr, u8)>, gateway: IpAddr, link: u32) {
    put_route(r, NEWROUTE, F_CREATE | F_EXCL, destination, Some(gateway), Some(link));
}

/// Adds a route to what is on the link itself.
pub fn add_link_route(r: &mut Requests, destination: (IpAddr, u8), link: u32) {
    put_route(r, NEWROUTE, F_CREATE | F_EXCL, Some(destination), None, Some(link));
}

/// Sets the default route of a family to a gateway, or to a link without one, over one that is there.
pub fn replace_default(r: &mut Requests, ipv6: bool, gateway: Option<IpAddr>, link: u32) {
    let any =
        if ipv6 { IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED) };
    put_route(r, NEWROUTE, F_CREATE | F_REPLACE, Some((any, 0)), gateway, Some(link));
}

/// Deletes the default route of a family.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn delete_default(r: &mut Requests, ipv6: bool) {
    let any =
        if ipv6 { IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED) };
    put_route(r, DELROUTE, 0, Some((any, 0)), None, None);
}

fn put_route(
    r: &mut Requests,
    kind: u16,
    flags: u16,
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    link: Option<u32>,
) {
    const DST: u16 = 1;
    const OIF: u16 = 4;
    const GATEWAY: u16 = 5;
    const TABLE_MAIN: u8 = 254;
    const PROTO_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    const SCOPE_LINK: u8 = 253;
    let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let (bytes, length, family) = octets(gateway.or(destination.map(|d| d.0)).unwrap_or(any));
    r.begin(if kind == DELROUTE { "delete route" } else { "add route" }, kind, flags);
    let bits = destination.map_or(0, |d| d.1);
    // Without a gateway, what is behind the link is on the link.
    let scope = if gateway.is_none() && kind == NEWROUTE && family == AF_INET { SCOPE_LINK } else { 0 };
    let (protocol, unicast) = if kind == DELROUTE { (0, 0) } else { (PROTO_BOOT, UNICAST) };
    r.put(&[family, bits, 0, 0, TABLE_MAIN, protocol, scope, unicast, 0, 0, 0, 0]);
    if let Some((destination, bits)) = destination
        && bits > 0
    {
        let (bytes, length, _) = octets(destination);
        r.attr(DST, &bytes[..length]);
    }
    if gateway.is_some() {
        r.attr(GATEWAY, &bytes[..length]);
    }
    if let Some(link) = link {
        r.attr_u32(OIF, link);
    }
}

fn read_link(message: &Message<'_>) -> Option<Link> {
    read_link_of(message, NEWLINK)
}

fn read_link_of(message: &Message<'_>, kind: u16) -> Option<Link> {
    if message.kind != kind || message.payload.len() < 16 {
        return None;
    }
    let mut link =
        Link { index: u32_at(message.payload, 4), up: u32_at(message.payload, 8) & IFF_UP != 0, ..Link::default() };
    for attribute in attributes(&message.payload[16..]) {
        match attribute.kind {
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_IFALIAS => link.alias = attribute.text(),
            IFLA_ADDRESS => link.mac = attribute.value.try_into().ok(),
            IFLA_MASTER => link.master = attribute.u32(),
            IFLA_OPERSTATE => link.running = attribute.value.first() == Some(&OPER_UP),
            IFLA_MTU => link.mtu = attribute.u32().unwrap_or(0),
            IFLA_LINKINFO => link.kind = kind_of(&attribute),
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(info: &Attribute<'_>) -> String {
    info.nested().find(|a| a.kind == INFO_KIND).map(|a| a.text()).unwrap_or_default()
}

/// Finds one link.
///
/// # Errors
/// `ENODEV` if there is none: [`NetlinkError::is`].
pub fn link(socket: &mut Socket, which: Which<'_>) -> Result<Link, NetlinkError> {
    let mut requests = Requests::new();
    requests.begin("find link", GETLINK, 0);
    put_link(&mut requests, which, 0, 0);
    let mut found = None;
    socket.query(&mut requests, |message| {
        found = read_link(message);
        Ok(())
    })?;
    found.ok_or(NetlinkError::Malformed("answer without link"))
}

/// Reads all links.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list links", GETLINK, flags);
            r.put(&link_header(AF_UNSPEC, 0, 0, 0));
        },
        |links: &mut Vec<Link>, message| {
            links.extend(read_link(message));
            Ok(())
        },
    )
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// Reads the addresses of all links.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list addresses", GETADDR, flags);
            r.put(&[0; 8]);
        },
        |all: &mut Vec<Address>, message| {
            if message.kind == NEWADDR && message.payload.len() >= 8 {
                all.extend(read_address(message.payload));
            }
            Ok(())
        },
    )
}

fn read_address(payload: &[u8]) -> Option<Address> {
    let mut address = None;
    for attribute in attributes(&payload[8..]) {
        // IFA_LOCAL is the link's own address; IFA_ADDRESS is the peer's on point-to-point links.
        if attribute.kind == 2 || (attribute.kind == 1 && address.is_none()) {
            address = ip_of(attribute.value);
        }
    }
    Some(Address { link: u32_at(payload, 4), address: address?, prefix: payload[1] })
}

/// Reads the unicast routes of the main table, both families.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    socket.dump(
        |r, flags| {
            r.begin("list routes", GETROUTE, flags);
            r.put(&[0; 12]);
        },
        |all: &mut Vec<Route>, message| {
            if message.kind == NEWROUTE && message.payload.len() >= 12 {
                all.extend(read_route(message.payload));
            }
            Ok(())
        },
    )
}

/// Whether the kernel takes packets for this address as its own. A new IPv6 address is not there at once: its local
/// route is added by deferred work (addrconf_dad_work).
pub fn is_local(socket: &mut Socket, address: IpAddr) -> Result<bool, NetlinkError> {
    const DST: u16 = 1;
    const RTN_LOCAL: u8 = 2;
    let (bytes, length, family) = octets(address);
    let mut requests = Requests::new();
    requests.begin("find route", GETROUTE, 0);
    requests.put(&[family, (length * 8) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    requests.attr(DST, &bytes[..length]);
    let mut local = false;
    let outcome = socket.query(&mut requests, |message| {
        local |= message.kind == NEWROUTE && message.payload.get(7) == Some(&RTN_LOCAL);
        Ok(())
    });
    match outcome {
        Err(e) if e.is(rustix::io::Errno::NETUNREACH) || e.is(rustix::io::Errno::HOSTUNREACH) => Ok(false),
        other => other.map(|()| local),
    }
}

fn read_route(payload: &[u8]) -> Option<Route> {
    const LOCAL_TABLE: u8 = 255;
    if payload[4] == LOCAL_TABLE {
        return None;
    }
    let mut route = Route { destination: None, link: None };
    for attribute in attributes(&payload[12..]) {
        match attribute.kind {
            1 => route.destination = ip_of(attribute.value).map(|a| (a, payload[1])),
            4 => route.link = attribute.u32(),
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reading_hostile_messages_never_panics(kind in 16u16..30, payload in proptest::collection::vec(0u8.., 0..120)) {
            let _ = read_link(&Message { kind, flags: 0, sequence: 0, payload: &payload });
            if payload.len() >= 12 {
                let _ = read_address(&payload);
                let _ = read_route(&payload);
            }
        }
    }
}
