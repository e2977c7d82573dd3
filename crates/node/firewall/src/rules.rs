//! The rule set: a pure function of the bridges.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wharf_ipam::Cidr;
use wharf_netlink::nft::{Base, CtKey, Expr, Hook, Kind, MapType, MetaKey, PayloadBase, SetType, Verdict};

use crate::egress;
use crate::element::{BY_ADDRESS4, BY_ADDRESS6, BY_PORT4, BY_PORT6, OPEN4, OPEN6};

/// How containers of a bridge are reached from outside, per family (Docker's gateway modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Published ports by translation; everything else is dropped.
    #[default]
    Nat,
    /// As `Nat`, but ports that are not published can be reached by the container's own address.
    NatUnprotected,
    /// No translation in either direction; published ports by the container's own address.
    Routed,
    /// The host itself has no address on the bridge. For internal networks only.
    Isolated,
}

/// One address family of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Face {
    /// Its subnet.
    pub subnet: Cidr,
    /// How it is reached.
    pub mode: GatewayMode,
    /// Outgoing traffic gets the host's address.
    pub masquerade: bool,
    /// The host's address that outgoing traffic gets; absent: that of the outgoing interface.
    pub source: Option<IpAddr>,
}

/// A bridge, as the rules need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bridge {
    /// The link's name.
    pub name: String,
    /// IPv4.
    pub ipv4: Option<Face>,
    /// IPv6.
    pub ipv6: Option<Face>,
    /// Containers may talk to each other.
    pub icc: bool,
    /// Nothing goes in or out but from and to the host itself.
    pub internal: bool,
    /// Interfaces from which published ports are reached by the container's own address too.
    pub trusted: Vec<String>,
}

/// For which address families rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Families {
    /// IPv4 (`--iptables`).
    pub ipv4: bool,
    /// IPv6 (`--ip6tables`).
    pub ipv6: bool,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where packets enter it; absent if only rules call it.
    pub base: Option<Base>,
    /// Its rules in order, each with the comment that `nft list` shows.
    pub rules: Vec<(Vec<Expr>, &'static str)>,
}

/// A map of published ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: MapType,
}

/// A set that rules refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: SetType,
}

/// The table's content but for the elements of maps and sets. Maps and sets depend on the families only, so that the
/// rules can be replaced beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Maps, which rules refer to.
    pub maps: Vec<Map>,
    /// Sets, which rules refer to.
    pub sets: Vec<Set>,
    /// Chains; one that is called stands before its callers.
    pub chains: Vec<Chain>,
}

pub(crate) const R0: u32 = 8;
const RTN_LOCAL: u32 = 2;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const STATUS_DST_NAT: u32 = 0x20;

/// Computes the rule set for these bridges. `log` is there while containers are under egress policies: the group that
/// hears of refusals.
pub fn rule_set(bridges: &[Bridge], families: Families, log: Option<u16>) -> RuleSet {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drop: false });
    let nat = destination_nat(families);
    let [egress, input] = egress::chains(families, log);
    RuleSet {
        maps: maps(families),
        sets: sets(families),
        chains: vec![
            Chain { name: "raw", base: base(Kind::Filter, Hook::Prerouting, -300), rules: raw(families) },
            Chain { name: "prerouting", base: base(Kind::Nat, Hook::Prerouting, -100), rules: nat.clone() },
            Chain { name: "output", base: base(Kind::Nat, Hook::Output, -100), rules: nat },
            Chain {
                name: "postrouting",
                base: base(Kind::Nat, Hook::Postrouting, 100),
                rules: source_nat(bridges, families),
            },
            Chain { name: "isolation", base: None, rules: isolation(bridges) },
            Chain { name: "direct", base: None, rules: direct(bridges, families) },
            egress,
            input,
            Chain {
                name: "forward",
                base: base(Kind::Filter, Hook::Forward, 0),
                rules: forward(bridges, families, log.is_some()),
            },
        ],
    }
}

fn maps(families: Families) -> Vec<Map> {
    // nft(8)'s type numbers: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13; six bits each.
    let port = 12 << 6 | 13;
    let four = MapType { key: 0, key_length: 0, value: 7 << 6 | 13, value_length: 8 };
    let six = MapType { key: 0, key_length: 0, value: 8 << 6 | 13, value_length: 20 };
    let mut maps = Vec::new();
    if families.ipv4 {
        maps.push(Map { name: BY_ADDRESS4, kind: MapType { key: 7 << 12 | port, key_length: 12, ..four } });
        maps.push(Map { name: BY_PORT4, kind: MapType { key: port, key_length: 8, ..four } });
    }
    if families.ipv6 {
        maps.push(Map { name: BY_ADDRESS6, kind: MapType { key: 8 << 12 | port, key_length: 24, ..six } });
        maps.push(Map { name: BY_PORT6, kind: MapType { key: port, key_length: 8, ..six } });
    }
    maps
}

fn sets(families: Families) -> Vec<Set> {
    // Address, protocol and port, as in the maps by address.
    let port = 12 << 6 | 13;
    let kind =
        |address: u32, length| SetType { key: address << 12 | port, key_length: length, timeout: false, fields: &[] };
    let four = families.ipv4.then(|| Set { name: OPEN4, kind: kind(7, 12) });
    let six = families.ipv6.then(|| Set { name: OPEN6, kind: kind(8, 24) });
    four.into_iter().chain(six).chain(egress::sets(families)).collect()
}

/// Loopback addresses never come from outside. `route_localnet`, which the bridges need for published loopback ports,
/// would let them in (CVE-2020-8558), and NAT before routing would let in what no route allows.
fn raw(families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    if !families.ipv4 {
        return Vec::new();
    }
    let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8).ok();
    let drop = |check: fn(Cidr) -> Vec<Expr>| {
        let loopback = loopback.map(check).unwrap_or_default();
        rule([interface(MetaKey::InputName, "lo", false), loopback, verdict(Verdict::Drop)])
    };
    vec![
        (drop(to_network), "loopback addresses from outside (CVE-2020-8558)"),
        (drop(from_network), "loopback sources from outside"),
    ]
}

fn destination_nat(families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    let mut rules = Vec::new();
    for (on, ipv6, by_address, by_port) in
        [(families.ipv4, false, BY_ADDRESS4, BY_PORT4), (families.ipv6, true, BY_ADDRESS6, BY_PORT6)]
    {
        if !on {
            continue;
        }
        // In registers: the address has one or four, protocol and port have one each.
        let words = if ipv6 { 4 } else { 1 };
        let translate = |map: &str| {
            vec![
                Expr::Lookup { set: map.to_owned(), from: R0, to: Some(R0) },
                Expr::DestinationNat { ipv6, address: R0, port: R0 + words },
            ]
        };
        let key = |at: u32| {
            vec![
                Expr::Meta { key: MetaKey::Protocol, to: at },
                Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: at + 1 },
            ]
        };
        let (offset, length) = if ipv6 { (24, 16) } else { (16, 4) };
        let address = vec![Expr::Payload { base: PayloadBase::Network, offset, length, to: R0 }];
        let mut local = vec![
            Expr::DestinationType { to: R0 },
            Expr::Compare { from: R0, equal: true, value: RTN_LOCAL.to_ne_bytes().to_vec() },
        ];
        if ipv6 {
            // A source of ::1 can not leave the loopback interface: these connections reach the shim's relay.
            local.extend(address.clone());
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
            local.push(Expr::Compare { from: R0, equal: false, value: loopback });
        }
        rules.push((rule([family(ipv6), address, key(R0 + words), translate(by_address)]), "ports of one address"));
        rules.push((rule([family(ipv6), local, key(R0), translate(by_port)]), "ports of all addresses"));
    }
    rules
}

fn source_nat(bridges: &[Bridge], families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    let mut rules = Vec::new();
    for bridge in bridges.iter().filter(|b| !b.internal) {
        let outside = || interface(MetaKey::OutputName, &bridge.name, false);
        let inside = || interface(MetaKey::OutputName, &bridge.name, true);
        for face in faces(bridge, families).filter(|f| f.mode != GatewayMode::Routed) {
            let subnet = face.subnet;
            if !subnet.is_ipv6() {
                let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8).ok().map(from_network).unwrap_or_default();
                rules.push((rule([inside(), loopback, vec![Expr::Masquerade]]), "published ports on 127.0.0.1"));
            }
            // Addresses, not interface names: with br_netfilter the packet never leaves the bridge.
            let hairpin = [from_network(subnet), to_network(subnet), translated(), vec![Expr::Masquerade]];
            rules.push((rule(hairpin), "published ports from the same network"));
            if face.masquerade {
                rules.push((rule([from_network(subnet), outside(), leave_as(face)]), "outgoing"));
            }
        }
    }
    rules
}

fn leave_as(face: &Face) -> Vec<Expr> {
    let Some(source) = face.source.filter(|s| s.is_ipv6() == face.subnet.is_ipv6()) else {
        return vec![Expr::Masquerade];
    };
    vec![Expr::Load { to: R0, value: bytes(source) }, Expr::SourceNat { ipv6: source.is_ipv6(), address: R0 }]
}

fn faces(bridge: &Bridge, families: Families) -> impl Iterator<Item = &Face> {
    let four = bridge.ipv4.as_ref().filter(|_| families.ipv4);
    let six = bridge.ipv6.as_ref().filter(|_| families.ipv6);
    four.into_iter().chain(six)
}

/// Called for what comes from a bridge and does not stay on it.
fn isolation(bridges: &[Bridge]) -> Vec<(Vec<Expr>, &'static str)> {
    let drop = |b: &Bridge| {
        (rule([interface(MetaKey::OutputName, &b.name, true), verdict(Verdict::Drop)]), "between networks")
    };
    bridges.iter().map(drop).collect()
}

/// Called for what comes to a bridge from somewhere else: ports that are reached by the container's own address.
fn direct(bridges: &[Bridge], families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    let mut rules = Vec::new();
    for b in bridges.iter().filter(|b| !b.internal) {
        let to = || interface(MetaKey::OutputName, &b.name, true);
        for face in faces(b, families) {
            let six = face.subnet.is_ipv6();
            if face.mode == GatewayMode::Routed {
                rules.push((rule([to(), open_port(six), verdict(Verdict::Accept)]), "published ports, routed"));
                rules.push((rule([to(), echo(six), verdict(Verdict::Accept)]), "control messages, routed"));
            }
            for name in &b.trusted {
                let from = interface(MetaKey::InputName, name, true);
                let open = rule([from, to(), open_port(six), verdict(Verdict::Accept)]);
                rules.push((open, "published ports, from a trusted interface"));
            }
        }
    }
    rules
}

/// The packet's destination is in the set of open ports.
fn open_port(ipv6: bool) -> Vec<Expr> {
    let (offset, length, words) = if ipv6 { (24, 16, 4) } else { (16, 4, 1) };
    let mut rule = family(ipv6);
    rule.extend([
        Expr::Payload { base: PayloadBase::Network, offset, length, to: R0 },
        Expr::Meta { key: MetaKey::Protocol, to: R0 + words },
        Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: R0 + words + 1 },
        Expr::Lookup { set: if ipv6 { OPEN6 } else { OPEN4 }.to_owned(), from: R0, to: None },
    ]);
    rule
}

/// ICMP or ICMPv6, without which routed networks do not work (path MTU).
fn echo(ipv6: bool) -> Vec<Expr> {
    let number = if ipv6 { 58 } else { 1 };
    let mut rule = family(ipv6);
    rule.push(Expr::Meta { key: MetaKey::Protocol, to: R0 });
    rule.push(Expr::Compare { from: R0, equal: true, value: vec![number] });
    rule
}

fn forward(bridges: &[Bridge], families: Families, policed: bool) -> Vec<(Vec<Expr>, &'static str)> {
    let from = |b: &Bridge| interface(MetaKey::InputName, &b.name, true);
    let to = |b: &Bridge| interface(MetaKey::OutputName, &b.name, true);
    let scope = match (families.ipv4, families.ipv6) {
        (true, true) => Vec::new(),
        (_, only_ipv6) => family(only_ipv6),
    };
    let mut rules = vec![(rule([known(), verdict(Verdict::Accept)]), "known connections")];
    for b in bridges {
        if !b.icc {
            rules.push((rule([from(b), to(b), translated(), verdict(Verdict::Accept)]), "published ports"));
        }
        let decision = if b.icc { Verdict::Accept } else { Verdict::Drop };
        rules.push((rule([scope.clone(), from(b), to(b), verdict(decision)]), "within a network"));
    }
    if policed {
        rules.extend(egress::jumps(families));
    }
    for b in bridges.iter().filter(|b| b.internal) {
        rules.push((rule([scope.clone(), from(b), verdict(Verdict::Drop)]), "out of an internal network"));
        rules.push((rule([scope.clone(), to(b), verdict(Verdict::Drop)]), "into an internal network"));
    }
    if bridges.iter().any(|b| !direct(std::slice::from_ref(b), families).is_empty()) {
        rules.push((rule([verdict(Verdict::Jump("direct".into()))]), "ports by the container's address"));
    }
    let external = || bridges.iter().filter(|b| !b.internal);
    for b in external() {
        let isolate = rule([scope.clone(), from(b), verdict(Verdict::Jump("isolation".into()))]);
        rules.push((isolate, "to another network"));
        rules.push((rule([from(b), verdict(Verdict::Accept)]), "outgoing"));
    }
    for b in external() {
        rules.push((rule([to(b), translated(), verdict(Verdict::Accept)]), "published ports"));
        for face in faces(b, families).filter(|f| f.mode == GatewayMode::NatUnprotected) {
            let six = face.subnet.is_ipv6();
            rules.push((rule([family(six), to(b), verdict(Verdict::Accept)]), "unprotected ports"));
        }
        rules.push((rule([scope.clone(), to(b), verdict(Verdict::Drop)]), "unpublished ports"));
    }
    rules
}

pub(crate) fn rule<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

pub(crate) fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Counter, Expr::Verdict(verdict)]
}

/// Matches the interface's name, padded as the kernel holds it.
pub(crate) fn interface(key: MetaKey, name: &str, equal: bool) -> Vec<Expr> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    vec![Expr::Meta { key, to: R0 }, Expr::Compare { from: R0, equal, value }]
}

pub(crate) fn family(ipv6: bool) -> Vec<Expr> {
    let number = if ipv6 { 10 } else { 2 };
    vec![Expr::Meta { key: MetaKey::Family, to: R0 }, Expr::Compare { from: R0, equal: true, value: vec![number] }]
}

fn from_network(network: Cidr) -> Vec<Expr> {
    within(network, if network.is_ipv6() { 8 } else { 12 })
}

fn to_network(network: Cidr) -> Vec<Expr> {
    within(network, if network.is_ipv6() { 24 } else { 16 })
}

fn within(network: Cidr, offset: u32) -> Vec<Expr> {
    let value = bytes(network.network().address());
    let mut rule = family(network.is_ipv6());
    rule.push(Expr::Payload { base: PayloadBase::Network, offset, length: value.len() as u32, to: R0 });
    rule.push(Expr::Mask { from: R0, to: R0, mask: bytes(network.netmask()) });
    rule.push(Expr::Compare { from: R0, equal: true, value });
    rule
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The packet belongs to a connection that was allowed, or tells of one.
pub(crate) fn known() -> Vec<Expr> {
    bits(CtKey::State, ESTABLISHED_OR_RELATED)
}

/// The connection's destination was translated: it came for a published port.
fn translated() -> Vec<Expr> {
    bits(CtKey::Status, STATUS_DST_NAT)
}

fn bits(key: CtKey, mask: u32) -> Vec<Expr> {
    vec![
        Expr::Ct { key, to: R0 },
        Expr::Mask { from: R0, to: R0, mask: mask.to_ne_bytes().to_vec() },
        Expr::Compare { from: R0, equal: false, value: vec![0; 4] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, icc: bool) -> Bridge {
        let subnet = "172.17.0.0/16".parse().unwrap();
        let face = Face { subnet, mode: GatewayMode::Nat, masquerade: true, source: None };
        Bridge { name: name.into(), ipv4: Some(face), ipv6: None, icc, internal: false, trusted: Vec::new() }
    }

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    fn comments(set: &RuleSet, chain: &str) -> Vec<&'static str> {
        let chain = set.chains.iter().find(|c| c.name == chain).unwrap();
        chain.rules.iter().map(|r| r.1).collect()
    }

    #[test]
    fn a_bridge_is_isolated_before_it_may_go_out_and_unpublished_ports_come_last() {
        let set = rule_set(&[bridge("a", true)], BOTH, None);
        let want = [
            "known connections",
            "within a network",
            "to another network",
            "outgoing",
            "published ports",
            "unpublished ports",
        ];
        assert_eq!(comments(&set, "forward"), want);
        assert_eq!(comments(&set, "isolation"), ["between networks"]);
    }

    #[test]
    fn without_icc_only_published_ports_stay_reachable_within_the_network() {
        let set = rule_set(&[bridge("a", false)], BOTH, None);
        let forward = &set.chains.iter().find(|c| c.name == "forward").unwrap().rules;
        assert_eq!(forward[1].1, "published ports");
        assert_eq!(forward[2].0.last(), Some(&Expr::Verdict(Verdict::Drop)));
    }

    #[test]
    fn cve_2020_8558_loopback_addresses_from_outside_are_dropped_before_anything_else() {
        let set = rule_set(&[], BOTH, None);
        assert_eq!(set.chains[0].name, "raw");
        assert_eq!(set.chains[0].rules.len(), 2);
        for (rule, _) in &set.chains[0].rules {
            assert_eq!(rule.last(), Some(&Expr::Verdict(Verdict::Drop)));
        }
    }

    #[test]
    fn a_switched_off_family_has_no_maps_and_no_nat() {
        let set = rule_set(&[bridge("a", true)], Families { ipv4: false, ipv6: true }, None);
        assert_eq!(set.maps.iter().map(|m| m.name).collect::<Vec<_>>(), [BY_ADDRESS6, BY_PORT6]);
        assert!(comments(&set, "postrouting").is_empty());
        assert!(comments(&set, "raw").is_empty());
    }

    #[test]
    fn the_number_of_rules_grows_linearly_with_bridges() {
        let count = |n: usize| {
            let bridges: Vec<_> = (0..n).map(|i| bridge(&format!("b{i}"), true)).collect();
            rule_set(&bridges, BOTH, None).chains.iter().map(|c| c.rules.len()).sum::<usize>()
        };
        assert_eq!(count(21) - count(20), count(2) - count(1));
    }

    #[test]
    fn an_internal_network_is_closed_before_anything_else_is_decided() {
        let set = rule_set(&[Bridge { internal: true, ..bridge("a", true) }, bridge("b", true)], BOTH, None);
        let want = ["known connections", "within a network", "within a network", "out of an internal network"];
        assert_eq!(comments(&set, "forward")[..4], want);
        let nat = set.chains.iter().find(|c| c.name == "postrouting").unwrap();
        assert_eq!(nat.rules.len(), 3, "only the other network's");
    }

    #[test]
    fn a_routed_network_is_not_translated_and_opens_its_published_ports_by_address() {
        let mut routed = bridge("a", true);
        routed.ipv4.as_mut().unwrap().mode = GatewayMode::Routed;
        let set = rule_set(&[routed], BOTH, None);
        assert!(comments(&set, "postrouting").is_empty());
        assert_eq!(comments(&set, "direct"), ["published ports, routed", "control messages, routed"]);
        assert!(comments(&set, "forward").contains(&"ports by the container's address"));
        assert!(
            !comments(&rule_set(&[bridge("a", true)], BOTH, None), "forward")
                .contains(&"ports by the container's address")
        );
    }
}
