//! The rule set: a pure function of the bridges.

use std::net::IpAddr;

use wharf_ipam::Cidr;
use wharf_netlink::nft::{Base, CtKey, Expr, Hook, Kind, MapType, MetaKey, PayloadBase, Verdict};

use crate::element::{BY_ADDRESS4, BY_ADDRESS6, BY_PORT4, BY_PORT6};

/// A bridge, as the rules need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bridge {
    /// The link's name.
    pub name: String,
    /// IPv4 subnet.
    pub subnet: Option<Cidr>,
    /// IPv6 subnet.
    pub subnet_v6: Option<Cidr>,
    /// Containers may talk to each other.
    pub icc: bool,
    /// Outgoing traffic gets the host's address.
    pub masquerade: bool,
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

/// The table's content but for the maps' elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Maps, which rules refer to.
    pub maps: Vec<Map>,
    /// Chains; one that is called stands before its callers.
    pub chains: Vec<Chain>,
}

const R0: u32 = 8;
const RTN_LOCAL: u32 = 2;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const STATUS_DST_NAT: u32 = 0x20;

/// Computes the rule set for these bridges.
pub fn rule_set(bridges: &[Bridge], families: Families) -> RuleSet {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drop: false });
    let nat = destination_nat(families);
    RuleSet {
        maps: maps(families),
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
            Chain { name: "forward", base: base(Kind::Filter, Hook::Forward, 0), rules: forward(bridges, families) },
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
    for bridge in bridges {
        let outside = || interface(MetaKey::OutputName, &bridge.name, false);
        let inside = || interface(MetaKey::OutputName, &bridge.name, true);
        if families.ipv4 && bridge.subnet.is_some() {
            let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8).ok().map(from_network).unwrap_or_default();
            rules.push((rule([inside(), loopback, vec![Expr::Masquerade]]), "published ports on 127.0.0.1"));
        }
        for subnet in subnets(bridge, families) {
            // Addresses, not interface names: with br_netfilter the packet never leaves the bridge.
            let hairpin = [from_network(subnet), to_network(subnet), translated(), vec![Expr::Masquerade]];
            rules.push((rule(hairpin), "published ports from the same network"));
            if bridge.masquerade {
                rules.push((rule([from_network(subnet), outside(), vec![Expr::Masquerade]]), "outgoing"));
            }
        }
    }
    rules
}

fn subnets(bridge: &Bridge, families: Families) -> impl Iterator<Item = Cidr> {
    let four = bridge.subnet.filter(|_| families.ipv4);
    let six = bridge.subnet_v6.filter(|_| families.ipv6);
    four.into_iter().chain(six)
}

/// Called for what comes from a bridge and does not stay on it.
fn isolation(bridges: &[Bridge]) -> Vec<(Vec<Expr>, &'static str)> {
    let drop = |b: &Bridge| {
        (rule([interface(MetaKey::OutputName, &b.name, true), verdict(Verdict::Drop)]), "between networks")
    };
    bridges.iter().map(drop).collect()
}

fn forward(bridges: &[Bridge], families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    let from = |b: &Bridge| interface(MetaKey::InputName, &b.name, true);
    let to = |b: &Bridge| interface(MetaKey::OutputName, &b.name, true);
    let scope = match (families.ipv4, families.ipv6) {
        (true, true) => Vec::new(),
        (_, only_ipv6) => family(only_ipv6),
    };
    let known = bits(CtKey::State, ESTABLISHED_OR_RELATED);
    let mut rules = vec![(rule([known, verdict(Verdict::Accept)]), "known connections")];
    for b in bridges {
        if !b.icc {
            rules.push((rule([from(b), to(b), translated(), verdict(Verdict::Accept)]), "published ports"));
        }
        let decision = if b.icc { Verdict::Accept } else { Verdict::Drop };
        rules.push((rule([scope.clone(), from(b), to(b), verdict(decision)]), "within a network"));
    }
    for b in bridges {
        let isolate = rule([scope.clone(), from(b), verdict(Verdict::Jump("isolation".into()))]);
        rules.push((isolate, "to another network"));
        rules.push((rule([from(b), verdict(Verdict::Accept)]), "outgoing"));
    }
    for b in bridges {
        rules.push((rule([to(b), translated(), verdict(Verdict::Accept)]), "published ports"));
        rules.push((rule([scope.clone(), to(b), verdict(Verdict::Drop)]), "unpublished ports"));
    }
    rules
}

fn rule<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Counter, Expr::Verdict(verdict)]
}

/// Matches the interface's name, padded as the kernel holds it.
pub(crate) fn interface(key: MetaKey, name: &str, equal: bool) -> Vec<Expr> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    vec![Expr::Meta { key, to: R0 }, Expr::Compare { from: R0, equal, value }]
}

fn family(ipv6: bool) -> Vec<Expr> {
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
    let bytes = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let value = bytes(network.network().address());
    let mut rule = family(network.is_ipv6());
    rule.push(Expr::Payload { base: PayloadBase::Network, offset, length: value.len() as u32, to: R0 });
    rule.push(Expr::Mask { from: R0, to: R0, mask: bytes(network.netmask()) });
    rule.push(Expr::Compare { from: R0, equal: true, value });
    rule
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
        let subnet = Some("172.17.0.0/16".parse().unwrap());
        Bridge { name: name.into(), subnet, subnet_v6: None, icc, masquerade: true }
    }

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    fn comments(set: &RuleSet, chain: &str) -> Vec<&'static str> {
        let chain = set.chains.iter().find(|c| c.name == chain).unwrap();
        chain.rules.iter().map(|r| r.1).collect()
    }

    #[test]
    fn a_bridge_is_isolated_before_it_may_go_out_and_unpublished_ports_come_last() {
        let set = rule_set(&[bridge("a", true)], BOTH);
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
        let set = rule_set(&[bridge("a", false)], BOTH);
        let forward = &set.chains.iter().find(|c| c.name == "forward").unwrap().rules;
        assert_eq!(forward[1].1, "published ports");
        assert_eq!(forward[2].0.last(), Some(&Expr::Verdict(Verdict::Drop)));
    }

    #[test]
    fn cve_2020_8558_loopback_addresses_from_outside_are_dropped_before_anything_else() {
        let set = rule_set(&[], BOTH);
        assert_eq!(set.chains[0].name, "raw");
        assert_eq!(set.chains[0].rules.len(), 2);
        for (rule, _) in &set.chains[0].rules {
            assert_eq!(rule.last(), Some(&Expr::Verdict(Verdict::Drop)));
        }
    }

    #[test]
    fn a_switched_off_family_has_no_maps_and_no_nat() {
        let set = rule_set(&[bridge("a", true)], Families { ipv4: false, ipv6: true });
        assert_eq!(set.maps.iter().map(|m| m.name).collect::<Vec<_>>(), [BY_ADDRESS6, BY_PORT6]);
        assert!(comments(&set, "postrouting").is_empty());
        assert!(comments(&set, "raw").is_empty());
    }

    #[test]
    fn the_number_of_rules_grows_linearly_with_bridges() {
        let count = |n: usize| {
            let bridges: Vec<_> = (0..n).map(|i| bridge(&format!("b{i}"), true)).collect();
            rule_set(&bridges, BOTH).chains.iter().map(|c| c.rules.len()).sum::<usize>()
        };
        assert_eq!(count(21) - count(20), count(2) - count(1));
    }
}
