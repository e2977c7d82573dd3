//! What containers with an egress policy may reach: sets of their addresses, and of where each may go.
//!
//! ```text
//! forward: within a network · saddr ∈ policed → egress · …      input: known connections · saddr ∈ policed → egress
//! egress:  saddr.daddr.proto.port ∈ services → back             names with a port, for as long as the answer lives
//!          saddr.daddr            ∈ hosts    → back             names without one
//!          saddr.daddr.proto.port ∈ nets     → back             address ranges
//!          log group, reject
//! ```
//!
//! A container that may make raw packets could send with another's address. Its link therefore has a chain (family netdev)
//! that lets only its own addresses in.

use std::net::IpAddr;
use std::time::Duration;

use wharf_ipam::Cidr;
use wharf_netlink::nft::{Base, Batch, Element, Expr, Family, Hook, Kind, MetaKey, PayloadBase, Place, Range};
use wharf_netlink::nft::{SetType, Verdict};

use crate::rules::{Families, R0, Set, family, known, rule, verdict};
use crate::{Chain, FirewallError, Protocol, Table};

/// Set names by family: who is policed, and the three kinds of places.
const POLICED: [&str; 2] = ["policed4", "policed6"];
const SERVICES: [&str; 2] = ["services4", "services6"];
const HOSTS: [&str; 2] = ["hosts4", "hosts6"];
const NETS: [&str; 2] = ["nets4", "nets6"];

/// Bytes of a refused packet that are logged: the longest IPv4 header, or IPv6's, and ports.
pub const LOGGED: u32 = 64;
/// Refusals that are logged each second; the others are refused just the same.
const LOG_RATE: u64 = 50;
const LOG_BURST: u32 = 100;

/// ICMPv6 types of neighbour discovery (RFC 4861).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Where a container may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// An address, for a while: what a name stood for.
    Address {
        /// The address.
        to: IpAddr,
        /// This port of this protocol only.
        service: Option<(Protocol, u16)>,
    },
    /// A range of addresses, for ever.
    Range {
        /// The range.
        to: Cidr,
        /// This port of this protocol only.
        service: Option<(Protocol, u16)>,
    },
}

/// A container's address under a policy, with all that it may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policed {
    /// Its address.
    pub address: IpAddr,
    /// Where it may go; those with a lifetime for so long.
    pub places: Vec<(Destination, Option<Duration>)>,
}

/// The sets that policies need.
pub(crate) fn sets(families: Families) -> Vec<Set> {
    let mut sets = Vec::new();
    // nft(8)'s type numbers, six bits each: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13.
    for (on, six, address, bytes) in [(families.ipv4, 0, 7u32, 4u32), (families.ipv6, 1, 8, 16)] {
        if !on {
            continue;
        }
        let pair = address << 6 | address;
        let whole = (pair << 6 | 12) << 6 | 13;
        let kind = |key, key_length, timeout| SetType { key, key_length, timeout, fields: &[] };
        let fields: &'static [u32] = if six == 1 { &[16, 16, 1, 2] } else { &[4, 4, 1, 2] };
        sets.push(Set { name: POLICED[six], kind: kind(address, bytes, false) });
        sets.push(Set { name: SERVICES[six], kind: kind(whole, 2 * bytes + 8, true) });
        sets.push(Set { name: HOSTS[six], kind: kind(pair, 2 * bytes, true) });
        sets.push(Set { name: NETS[six], kind: SetType { fields, ..kind(whole, 2 * bytes + 8, false) } });
    }
    sets
}

/// The chains of policies: with `log`, the group that hears of refusals, they do something.
pub(crate) fn chains(families: Families, log: Option<u16>) -> [Chain; 2] {
    let base = Some(Base { kind: Kind::Filter, hook: Hook::Input, priority: 0, drop: false });
    let (mut egress, mut input) = (Vec::new(), Vec::new());
    if let Some(group) = log {
        for six in on(families) {
            egress.extend(permissions(six));
        }
        let limit = Expr::Limit { rate: LOG_RATE, burst: LOG_BURST };
        let log = Expr::Log { group, length: LOGGED, prefix: "wharf egress".into() };
        egress.push((vec![limit, log], "tell of refusals"));
        egress.push((vec![Expr::Counter, Expr::Reject], "refused"));
        input.push((rule([known(), verdict(Verdict::Accept)]), "known connections"));
        if families.ipv6 {
            for kind in [SOLICITATION, ADVERTISEMENT] {
                input.push((rule([neighbour_discovery(kind), verdict(Verdict::Accept)]), "neighbour discovery"));
            }
        }
        input.extend(jumps(families));
    }
    [Chain { name: "egress", base: None, rules: egress }, Chain { name: "input", base, rules: input }]
}

/// The rules that send policed containers' packets to the policies.
pub(crate) fn jumps(families: Families) -> Vec<(Vec<Expr>, &'static str)> {
    let jump = |six: bool| {
        let set = POLICED[usize::from(six)].to_owned();
        let lookup = vec![address(six, true, R0), Expr::Lookup { set, from: R0, to: None }];
        (rule([family(six), lookup, verdict(Verdict::Jump("egress".into()))]), "under an egress policy")
    };
    on(families).map(jump).collect()
}

fn on(families: Families) -> impl Iterator<Item = bool> {
    [(families.ipv4, false), (families.ipv6, true)].into_iter().filter(|(on, _)| *on).map(|(_, six)| six)
}

fn address(six: bool, source: bool, to: u32) -> Expr {
    let (offset, length) = match (six, source) {
        (false, true) => (12, 4),
        (false, false) => (16, 4),
        (true, true) => (8, 16),
        (true, false) => (24, 16),
    };
    Expr::Payload { base: PayloadBase::Network, offset, length, to }
}

fn permissions(six: bool) -> Vec<(Vec<Expr>, &'static str)> {
    let words = if six { 4 } else { 1 };
    let pair = || vec![address(six, true, R0), address(six, false, R0 + words)];
    let service = || {
        vec![
            Expr::Meta { key: MetaKey::Protocol, to: R0 + 2 * words },
            Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: R0 + 2 * words + 1 },
        ]
    };
    let found = |set: &str| vec![Expr::Lookup { set: set.to_owned(), from: R0, to: None }];
    let index = usize::from(six);
    vec![
        (rule([family(six), pair(), service(), found(SERVICES[index]), verdict(Verdict::Return)]), "allowed names"),
        (rule([family(six), pair(), found(HOSTS[index]), verdict(Verdict::Return)]), "allowed names, any port"),
        (rule([family(six), pair(), service(), found(NETS[index]), verdict(Verdict::Return)]), "allowed ranges"),
    ]
}

/// Neighbour solicitations and advertisements, without which the gateway has no Ethernet address.
fn neighbour_discovery(kind: u8) -> Vec<Expr> {
    let mut rule = family(true);
    rule.extend([
        Expr::Meta { key: MetaKey::Protocol, to: R0 },
        Expr::Compare { from: R0, equal: true, value: vec![58] },
        Expr::Payload { base: PayloadBase::Transport, offset: 0, length: 1, to: R0 },
        Expr::Compare { from: R0, equal: true, value: vec![kind] },
    ]);
    rule
}

fn push(key: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => key.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => key.extend_from_slice(&a.octets()),
    }
}

fn push_service(key: &mut Vec<u8>, protocol: u8, port: u16) {
    key.extend_from_slice(&[protocol, 0, 0, 0]);
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
}

/// What stands in which set.
enum Entry {
    Element(&'static str, Vec<u8>),
    Range(&'static str, Range),
}

fn entry(from: IpAddr, place: &Destination) -> Option<Entry> {
    let six = usize::from(from.is_ipv6());
    let mut first = Vec::with_capacity(40);
    push(&mut first, from);
    match place {
        Destination::Address { to, service } if to.is_ipv6() == from.is_ipv6() => {
            push(&mut first, *to);
            match service {
                Some((protocol, port)) => {
                    push_service(&mut first, protocol.number(), *port);
                    Some(Entry::Element(SERVICES[six], first))
                }
                None => Some(Entry::Element(HOSTS[six], first)),
            }
        }
        Destination::Range { to, service } if to.is_ipv6() == from.is_ipv6() => {
            let mut last = first.clone();
            push(&mut first, to.network().address());
            push(&mut last, highest(to));
            let (low, high) = service.map_or(((0, 0), (255, u16::MAX)), |(p, port)| {
                let one = (p.number(), port);
                (one, one)
            });
            push_service(&mut first, low.0, low.1);
            push_service(&mut last, high.0, high.1);
            Some(Entry::Range(NETS[six], Range { first, last }))
        }
        // Of the other family: this address cannot go there at all.
        Destination::Address { .. } | Destination::Range { .. } => None,
    }
}

/// Reads the key of an element back.
fn destination(key: &[u8]) -> Option<(IpAddr, Destination)> {
    let width = if matches!(key.len(), 8 | 16) { 4 } else { 16 };
    let address = |at: usize| {
        let bytes = key.get(at..at + width)?;
        let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
    };
    let (from, to) = (address(0)?, address(width)?);
    let service = match key.get(2 * width..)? {
        [] => None,
        [6, _, _, _, high, low, _, _] => Some((Protocol::Tcp, u16::from_be_bytes([*high, *low]))),
        [17, _, _, _, high, low, _, _] => Some((Protocol::Udp, u16::from_be_bytes([*high, *low]))),
        [132, _, _, _, high, low, _, _] => Some((Protocol::Sctp, u16::from_be_bytes([*high, *low]))),
        _ => return None,
    };
    Some((from, Destination::Address { to, service }))
}

/// The last address of a range, broadcast included.
fn highest(range: &Cidr) -> IpAddr {
    match (range.network().address(), range.netmask()) {
        (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::from((a.to_bits() | !m.to_bits()).to_be_bytes()),
        (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::from((a.to_bits() | !m.to_bits()).to_be_bytes()),
        (other, _) => other,
    }
}

/// Ranges that lie in none of the others, the narrow ones first: a set takes no range that begins or ends in one that
/// it has already.
fn in_order(places: &[(Destination, Option<Duration>)]) -> Vec<Destination> {
    let range = |p: &Destination| if let Destination::Range { to, service } = *p { Some((to, service)) } else { None };
    let all: Vec<(Cidr, Option<(Protocol, u16)>)> = places.iter().filter_map(|(p, _)| range(p)).collect();
    let covers = |a: &(Cidr, Option<(Protocol, u16)>), b: &(Cidr, Option<(Protocol, u16)>)| {
        let wider = a.0.is_ipv6() == b.0.is_ipv6() && a.0.prefix() <= b.0.prefix() && a.0.contains(b.0.address());
        wider && (a.1.is_none() || a.1 == b.1)
    };
    let mut kept: Vec<_> = Vec::new();
    for (n, one) in all.iter().enumerate() {
        let covered =
            all.iter().enumerate().any(|(m, other)| m != n && covers(other, one) && (!covers(one, other) || m < n));
        if !covered {
            kept.push(*one);
        }
    }
    kept.sort_by_key(|(to, service)| (service.is_none(), to.prefix()));
    kept.into_iter().map(|(to, service)| Destination::Range { to, service }).collect()
}

/// Adds what a policed address needs.
fn put(batch: &mut Batch, table: &str, policed: &Policed) {
    let six = usize::from(policed.address.is_ipv6());
    let mut key = Vec::new();
    push(&mut key, policed.address);
    batch.add_elements(Family::Inet, table, POLICED[six], &[Element { key, value: Vec::new() }]);
    let ranges: Vec<Range> = in_order(&policed.places)
        .iter()
        .filter_map(|p| if let Some(Entry::Range(_, range)) = entry(policed.address, p) { Some(range) } else { None })
        .collect();
    if !ranges.is_empty() {
        batch.add_ranges(Family::Inet, table, NETS[six], &ranges);
    }
    for (place, lifetime) in &policed.places {
        put_address(batch, table, policed.address, place, lifetime.unwrap_or_default());
    }
}

fn put_address(batch: &mut Batch, table: &str, from: IpAddr, place: &Destination, lifetime: Duration) {
    if let Some(Entry::Element(set, key)) = entry(from, place) {
        batch.refresh_elements(Family::Inet, table, set, &[key], lifetime);
    }
}

/// The netdev table's chain for a link: only these addresses may come from it.
fn guard(batch: &mut Batch, table: &str, link: &str, addresses: &[IpAddr]) {
    batch.add_ingress(table, link, link);
    let ether = |number: u16| {
        vec![
            Expr::Meta { key: MetaKey::EtherType, to: R0 },
            Expr::Compare { from: R0, equal: true, value: number.to_be_bytes().to_vec() },
        ]
    };
    const ARP: u16 = 0x0806;
    const IP: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    let mut rules = vec![ether(ARP)];
    for own in addresses {
        let mut value = Vec::new();
        push(&mut value, *own);
        let six = own.is_ipv6();
        let own = vec![address(six, true, R0), Expr::Compare { from: R0, equal: true, value }];
        rules.push(rule([ether(if six { IPV6 } else { IP }), own]));
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        // Neighbour discovery also speaks from link-local addresses, and from none.
        let icmp = vec![
            Expr::Meta { key: MetaKey::Protocol, to: R0 },
            Expr::Compare { from: R0, equal: true, value: vec![58] },
        ];
        let local = vec![
            Expr::Payload { base: PayloadBase::Network, offset: 8, length: 2, to: R0 },
            Expr::Mask { from: R0, to: R0, mask: vec![0xff, 0xc0] },
            Expr::Compare { from: R0, equal: true, value: vec![0xfe, 0x80] },
        ];
        let none = vec![
            Expr::Payload { base: PayloadBase::Network, offset: 8, length: 16, to: R0 },
            Expr::Compare { from: R0, equal: true, value: vec![0; 16] },
        ];
        rules.push(rule([ether(IPV6), icmp.clone(), local]));
        rules.push(rule([ether(IPV6), icmp, none]));
    }
    for own in rules {
        let accept = rule([own, verdict(Verdict::Accept)]);
        batch.add_rule(Family::Netdev, table, link, Place::Last, &accept, "its own addresses");
    }
}

impl Table {
    /// Puts addresses under their policies.
    pub fn police(&self, policed: &[Policed]) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        policed.iter().for_each(|p| put(&mut batch, self.name(), p));
        self.commit("writing an egress policy to table", batch)
    }

    /// Adds to a batch what `police` would do.
    pub(crate) fn put_policed(&self, batch: &mut Batch, policed: &[Policed]) {
        policed.iter().for_each(|p| put(batch, self.name(), p));
    }

    /// Takes addresses out of their policies. What is not there any more is taken out already.
    pub fn unpolice(&self, policed: &[Policed]) -> Result<(), FirewallError> {
        let mut first = None;
        let mut one = |work: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            work(&mut batch);
            match self.commit("removing an egress policy from table", batch) {
                Err(e) if e.source.is(wharf_netlink::Errno::NOENT) => {}
                Err(e) => drop(first.get_or_insert(e)),
                Ok(()) => {}
            }
        };
        let table = self.name();
        for Policed { address, places } in policed {
            // Permissions first: between the two nothing is allowed that was not.
            for place in in_order(places) {
                if let Some(Entry::Range(set, range)) = entry(*address, &place) {
                    one(&|b| b.delete_ranges(Family::Inet, table, set, std::slice::from_ref(&range)));
                }
            }
            for (place, _) in places {
                if let Some(Entry::Element(set, key)) = entry(*address, place) {
                    let element = Element { key, value: Vec::new() };
                    one(&|b| b.delete_elements(Family::Inet, table, set, std::slice::from_ref(&element)));
                }
            }
            let mut key = Vec::new();
            push(&mut key, *address);
            let element = Element { key, value: Vec::new() };
            let set = POLICED[usize::from(address.is_ipv6())];
            one(&|b| b.delete_elements(Family::Inet, table, set, std::slice::from_ref(&element)));
        }
        first.map_or(Ok(()), Err)
    }

    /// Allows places for a while. One that is allowed already lives on for this long from now, not longer.
    pub fn allow(&self, from: IpAddr, places: &[(Destination, Duration)]) -> Result<(), FirewallError> {
        let action = "allowing a name's addresses in table";
        for (place, lifetime) in places {
            // Linux before 6.12 leaves an element's lifetime as it was, so the old one goes in the same transaction.
            let mut batch = Batch::new();
            if let Some(Entry::Element(set, key)) = entry(from, place) {
                batch.delete_elements(Family::Inet, self.name(), set, &[Element { key, value: Vec::new() }]);
            }
            put_address(&mut batch, self.name(), from, place, *lifetime);
            match self.commit(action, batch) {
                Err(e) if e.source.is(wharf_netlink::Errno::NOENT) => {
                    let mut batch = Batch::new();
                    put_address(&mut batch, self.name(), from, place, *lifetime);
                    self.commit(action, batch)?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// What the table holds of names: whose, where to, and for how long still.
    pub fn learned(&self) -> Result<Vec<(IpAddr, Destination, Duration)>, FirewallError> {
        let mut all = Vec::new();
        for set in SERVICES.into_iter().chain(HOSTS) {
            let read = self.with(|socket| wharf_netlink::nft::lifetimes(socket, Family::Inet, self.name(), set));
            let elements = read.map_err(|source| FirewallError {
                action: "reading allowed addresses of table",
                table: self.name().to_owned(),
                source,
            })?;
            all.extend(elements.iter().filter_map(|(key, left)| destination(key).map(|(from, to)| (from, to, *left))));
        }
        Ok(all)
    }

    /// Lets a link send with these addresses only.
    pub fn guard(&self, link: &str, addresses: &[IpAddr]) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        batch.add_table(Family::Netdev, self.name());
        guard(&mut batch, self.name(), link, addresses);
        self.commit("guarding a link in table", batch)
    }

    /// Forgets a link's guard. One that is not there is success.
    pub fn unguard(&self, link: &str) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        batch.delete_chain(Family::Netdev, self.name(), link);
        match self.commit("removing a link's guard from table", batch) {
            Err(e) if e.source.is(wharf_netlink::Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Deletes the guards of all links.
    pub fn unguard_all(&self) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        batch.delete_table(Family::Netdev, self.name());
        match self.commit("removing guards of table", batch) {
            // A kernel without the family has none either.
            Err(e)
                if [wharf_netlink::Errno::NOENT, wharf_netlink::Errno::OPNOTSUPP].iter().any(|n| e.source.is(*n)) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(to: &str, service: Option<(Protocol, u16)>) -> (Destination, Option<Duration>) {
        (Destination::Range { to: to.parse().expect("a range"), service }, None)
    }

    #[test]
    fn ranges_within_others_are_left_out_and_narrow_services_come_first() {
        let https = Some((Protocol::Tcp, 443));
        let all = [
            range("10.0.0.0/8", None),
            range("10.1.0.0/16", https),
            range("192.0.2.0/24", None),
            range("192.0.0.0/16", https),
            range("10.0.0.0/8", None),
        ];
        let got = in_order(&all);
        let text: Vec<String> = got
            .iter()
            .map(|p| match p {
                Destination::Range { to, service } => format!("{to} {}", service.is_some()),
                Destination::Address { .. } => String::new(),
            })
            .collect();
        assert_eq!(text, ["192.0.0.0/16 true", "10.0.0.0/8 false", "192.0.2.0/24 false"]);
    }

    #[test]
    fn a_range_reaches_from_its_network_to_its_last_address() {
        let place = range("10.1.2.0/23", None).0;
        let Some(Entry::Range(set, range)) = entry("172.17.0.2".parse().expect("an address"), &place) else {
            panic!("a range")
        };
        assert_eq!(set, "nets4");
        assert_eq!(range.first, [172, 17, 0, 2, 10, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(range.last, [172, 17, 0, 2, 10, 1, 3, 255, 255, 0, 0, 0, 255, 255, 0, 0]);
    }

    #[test]
    fn what_a_name_stood_for_is_read_back_from_its_key() {
        for (from, to) in [("172.17.0.2", "192.0.2.1"), ("fd00::2", "2001:db8::1")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().expect("an address"), to.parse().expect("an address"));
            for service in [None, Some((Protocol::Udp, 53))] {
                let place = Destination::Address { to, service };
                let Some(Entry::Element(_, key)) = entry(from, &place) else { panic!("an element") };
                assert_eq!(destination(&key), Some((from, place)));
            }
        }
    }

    #[test]
    fn without_policies_the_chains_are_empty_and_the_other_family_has_no_entry() {
        let both = Families { ipv4: true, ipv6: true };
        assert!(chains(both, None).iter().all(|c| c.rules.is_empty()));
        let six = range("2001:db8::/32", None).0;
        assert!(entry("172.17.0.2".parse().expect("an address"), &six).is_none());
    }
}
