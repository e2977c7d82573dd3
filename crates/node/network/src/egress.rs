//! Egress policies: what containers may reach outside of their networks.
//!
//! A policy is text that a person wrote: names and address ranges, with or without a port. Ranges are elements of nftables
//! sets for ever; the addresses of a name become elements when our resolver sees an answer, for as long as the answer
//! lives. Everything else is refused and told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf_firewall::{Destination, Families, Policed, Protocol};
use wharf_ipam::Cidr;
use wharf_netlink::nflog::Logged;
use wharf_types::{ContainerId, InstanceId};

use crate::networks::{Networks, Shared, lock};
use crate::publish::addresses;
use crate::state::State;
use crate::{Endpoint, NetworkError};

/// The shortest life of a name's address: a client may take its time between asking and connecting, and some servers
/// answer with a lifetime of zero.
const SHORTEST: u32 = 30;
/// The longest.
const LONGEST: u32 = 86_400;
/// Addresses of names that one endpoint may have at a time: whoever answers for a name decides how many there are.
const MOST: usize = 4096;
/// How long the same refusal is not told again, and how many are remembered for that.
const QUIET: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 1024;

/// A policy: all that may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Each of these.
    pub allowed: Vec<Allowed>,
}

/// One thing that may be reached: `api.example.com:443`, `*.example.com`, `10.0.0.0/8`, `[2001:db8::/32]:53/udp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Where.
    pub target: Target,
    /// This port only.
    pub port: Option<u16>,
    /// Of this protocol only; otherwise TCP and UDP.
    pub protocol: Option<Protocol>,
}

/// What one entry of a policy means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A range of addresses.
    Range(Cidr),
    /// A name in lower case; with `*.` before it all names below it.
    Name(String),
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid egress rule {text:?}: {reason}")]
pub struct EgressError {
    text: String,
    reason: &'static str,
}

impl Egress {
    /// Reads a list with commas.
    pub fn parse(list: &str) -> Result<Egress, EgressError> {
        let entries = list.split(',').map(str::trim).filter(|e| !e.is_empty());
        Ok(Egress { allowed: entries.map(str::parse).collect::<Result<_, _>>()? })
    }

    /// Whether a name may be asked for.
    pub fn permits(&self, name: &str) -> bool {
        self.allowed.iter().any(|a| a.is_of(name))
    }

    /// The addresses of a name as what may be reached.
    fn of_name(&self, name: &str, address: IpAddr) -> Vec<Destination> {
        let of = self.allowed.iter().filter(|a| a.is_of(name));
        of.flat_map(Allowed::services).map(|service| Destination::Address { to: address, service }).collect()
    }

    fn ranges(&self) -> impl Iterator<Item = Destination> {
        self.allowed.iter().flat_map(|a| {
            let range = if let Target::Range(to) = a.target { Some(to) } else { None };
            let services = if range.is_some() { a.services() } else { Vec::new() };
            services.into_iter().filter_map(move |service| Some(Destination::Range { to: range?, service }))
        })
    }
}

impl Allowed {
    fn is_of(&self, name: &str) -> bool {
        let Target::Name(own) = &self.target else { return false };
        match own.strip_prefix("*.") {
            Some(above) => name.strip_suffix(above).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            None => own == name,
        }
    }

    fn services(&self) -> Vec<Option<(Protocol, u16)>> {
        match (self.port, self.protocol) {
            (None, _) => vec![None],
            (Some(port), Some(protocol)) => vec![Some((protocol, port))],
            (Some(port), None) => [Protocol::Tcp, Protocol::Udp].map(|p| Some((p, port))).to_vec(),
        }
    }
}

impl FromStr for Allowed {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let wrong = |reason| EgressError { text: text.to_owned(), reason };
        let kinds = [("/tcp", Protocol::Tcp), ("/udp", Protocol::Udp), ("/sctp", Protocol::Sctp)];
        let kind = kinds.into_iter().find_map(|(end, p)| Some((text.strip_suffix(end)?, p)));
        let (rest, protocol) = kind.map_or((text, None), |(rest, p)| (rest, Some(p)));
        let range = |t: &str| t.parse::<Cidr>().ok().or_else(|| t.parse().ok().map(Cidr::single)).map(|c| c.network());
        let (host, port) = match (rest.strip_prefix('[').and_then(|r| r.split_once(']')), range(rest)) {
            (Some((host, "")), _) => (host, None),
            (Some((host, port)), _) => (host, Some(port.strip_prefix(':').ok_or(wrong("no port after the address"))?)),
            (None, Some(_)) => (rest, None),
            (None, None) => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port
            .map(|p| p.parse::<u16>().ok().filter(|p| *p > 0).ok_or(wrong("the port is no number from 1 to 65535")));
        let port = port.transpose()?;
        if port.is_none() && protocol.is_some() {
            return Err(wrong("a protocol needs a port"));
        }
        let target = match range(host) {
            Some(range) => Target::Range(range),
            None => Target::Name(name(host).ok_or(wrong("neither a name nor an address range"))?),
        };
        Ok(Allowed { target, port, protocol })
    }
}

/// Reads a host name, perhaps with `*.` before it.
fn name(text: &str) -> Option<String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    let label = |l: &str| {
        let known = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        known && (1..=63).contains(&l.len())
    };
    // All digits and dots is an address that somebody mistyped.
    let digits = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (bare.len() <= 253 && !digits && bare.split('.').all(label)).then_some(name)
}

/// A packet that a policy refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Whose it was.
    pub container: ContainerId,
    /// The network's key.
    pub network: String,
    /// Where it wanted to go.
    pub to: IpAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// The port, for protocols that have ports.
    pub port: Option<u16>,
    /// The name under which the container knows the address, if it asked for one that is allowed.
    pub name: Option<String>,
}

/// Who is told of refusals.
pub type Hearer = Box<dyn Fn(Refusal) + Send + Sync>;

/// Told refusals, by when.
pub(crate) type Told = HashMap<(IpAddr, IpAddr, u8, Option<u16>), Instant>;

/// What is known of an endpoint under a policy.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Addresses of names, and until when.
    learned: BTreeMap<Destination, Instant>,
    /// The names of addresses.
    names: BTreeMap<IpAddr, String>,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} allowed", self.allowed.len())
    }
}

/// The log group of this instance's refusals.
pub(crate) fn group(instance: &InstanceId) -> u16 {
    let text = instance.as_str();
    u16::from_str_radix(text.get(text.len().saturating_sub(4)..).unwrap_or_default(), 16).unwrap_or(1)
}

/// What the rules need to know of an endpoint.
fn policed(endpoint: &Endpoint, known: Option<&Known>) -> Vec<Policed> {
    let Some(egress) = &endpoint.egress else { return Vec::new() };
    let now = Instant::now();
    let learned = || {
        let alive = known.iter().flat_map(|k| &k.learned).filter(|(_, until)| **until > now);
        alive.map(|(to, until)| (*to, Some(*until - now)))
    };
    let of = |address: IpAddr| Policed {
        address,
        places: egress.ranges().map(|r| (r, None)).chain(learned()).filter(|(to, _)| is_of(address, to)).collect(),
    };
    addresses(endpoint).into_iter().map(of).collect()
}

fn is_of(from: IpAddr, to: &Destination) -> bool {
    match to {
        Destination::Address { to, .. } => to.is_ipv6() == from.is_ipv6(),
        Destination::Range { to, .. } => to.is_ipv6() == from.is_ipv6(),
    }
}

/// Addresses that an answer from outside has no business to open: this machine, its links, groups.
fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_unspecified() || a.is_broadcast())
        }
        IpAddr::V6(a) => !(a.is_loopback() || a.is_unicast_link_local() || a.is_multicast() || a.is_unspecified()),
    }
}

impl Networks {
    /// Tells `hear` of packets that policies refuse. The same one is told again after ten seconds at the earliest.
    pub fn on_refusal(&self, hear: Hearer) {
        // The first one stays; there is one engine.
        let _ = self.shared.hearer.set(hear);
    }

    /// Opens what a container's policies allow under this name: its addresses, for as long as the answer lives.
    pub fn learn(&self, container: &ContainerId, name: &str, answer: &[(IpAddr, u32)]) -> Result<(), NetworkError> {
        let shared = &self.shared;
        let Some(rules) = &shared.rules else { return Ok(()) };
        // Held until the table has them, so that a rewrite does not miss them.
        let _writing = lock(&rules.written);
        let mut wanted: Vec<(IpAddr, Vec<(Destination, Duration)>)> = Vec::new();
        {
            let mut state = lock(&shared.state);
            let State { endpoints, known, .. } = &mut *state;
            let now = Instant::now();
            for endpoint in endpoints.values().filter(|e| e.container == *container) {
                let (Some(egress), Some(known)) = (&endpoint.egress, known.get_mut(&endpoint.id)) else { continue };
                known.learned.retain(|_, until| *until > now);
                for (address, seconds) in answer.iter().filter(|(a, _)| is_outside(*a)) {
                    let lifetime = Duration::from_secs((*seconds).clamp(SHORTEST, LONGEST).into());
                    let fresh = known.add(egress, name, *address, lifetime, now);
                    let own = addresses(endpoint).into_iter().filter(|own| own.is_ipv6() == address.is_ipv6());
                    wanted.extend(own.map(|own| (own, fresh.iter().map(|to| (*to, lifetime)).collect())));
                }
            }
        }
        wanted.iter().try_for_each(|(from, places)| rules.table.allow(*from, places))?;
        Ok(())
    }
}

impl Known {
    /// Notes an address of a name; returns what the table has not, or not for long enough.
    fn add(
        &mut self,
        egress: &Egress,
        name: &str,
        address: IpAddr,
        lifetime: Duration,
        now: Instant,
    ) -> Vec<Destination> {
        let mut fresh = egress.of_name(name, address);
        fresh.retain(|to| {
            let until = self.learned.get(to).copied();
            // Half of the lifetime left is enough: every answer would be a transaction otherwise.
            let wanted = until.is_none_or(|u| u < now + lifetime / 2);
            wanted && (until.is_some() || self.learned.len() < MOST)
        });
        fresh.dedup();
        self.learned.extend(fresh.iter().map(|to| (*to, now + lifetime)));
        if self.names.len() >= MOST {
            self.names.clear();
        }
        self.names.insert(address, name.to_owned());
        fresh
    }
}

impl Shared {
    /// The group that hears of refusals, while there are policies.
    pub(crate) fn log_group(&self) -> Option<u16> {
        (!lock(&self.state).known.is_empty()).then(|| group(&self.config.instance))
    }

    /// All endpoints under policies, as the table must hold them.
    pub(crate) fn all_policed(&self) -> Vec<Policed> {
        let state = lock(&self.state);
        state.endpoints.values().flat_map(|e| policed(e, state.known.get(&e.id))).collect()
    }

    /// Writes the guards of all links anew.
    pub(crate) fn write_guards(&self) -> Result<(), NetworkError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        rules.table.unguard_all()?;
        let guarded: Vec<Endpoint> = {
            let state = lock(&self.state);
            state.endpoints.values().filter(|e| e.egress.is_some() && !e.host_link.is_empty()).cloned().collect()
        };
        for endpoint in guarded {
            match rules.table.guard(&endpoint.host_link, &addresses(&endpoint)) {
                // Its container is ending.
                Err(e) if e.source.is(wharf_netlink::Errno::NOENT) || e.source.is(wharf_netlink::Errno::NODEV) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Puts an endpoint that does not exist yet under its policy, so that it has never been without. One without policy
    /// changes nothing.
    pub(crate) fn police(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        if endpoint.egress.is_none() {
            return Ok(());
        }
        if endpoint.host_link.is_empty() {
            return Err(NetworkError::EgressDriver);
        }
        let covers = |f: Families| (endpoint.ipv4.is_none() || f.ipv4) && (endpoint.ipv6.is_none() || f.ipv6);
        let rules = self.rules.as_ref().filter(|r| covers(r.families)).ok_or(NetworkError::EgressRules)?;
        let first = {
            let mut state = lock(&self.state);
            state.known.insert(endpoint.id.clone(), Known::default());
            state.known.len() == 1
        };
        let written = if first { self.change_rules() } else { Ok(()) };
        let done = written.and_then(|()| {
            let _writing = lock(&rules.written);
            Ok(rules.table.police(&policed(endpoint, None))?)
        });
        if done.is_err() {
            // The first failure is the one to tell.
            let _ = self.unpolice(endpoint);
        }
        done
    }

    /// Lets an endpoint's link send with its own addresses only.
    pub(crate) fn guard(&self, link: &str, own: &[IpAddr]) -> Result<(), NetworkError> {
        let Some(rules) = &self.rules else { return Err(NetworkError::EgressRules) };
        let _writing = lock(&rules.written);
        Ok(rules.table.guard(link, own)?)
    }

    /// Forgets an endpoint's policy.
    pub(crate) fn unpolice(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let (Some(_), Some(rules)) = (&endpoint.egress, &self.rules) else { return Ok(()) };
        let (known, last) = {
            let mut state = lock(&self.state);
            let known = state.known.remove(&endpoint.id);
            (known, state.known.is_empty())
        };
        let forgotten = {
            let _writing = lock(&rules.written);
            let unguarded =
                if endpoint.host_link.is_empty() { Ok(()) } else { rules.table.unguard(&endpoint.host_link) };
            rules.table.unpolice(&policed(endpoint, known.as_ref())).and(unguarded)
        };
        let changed = if last && known.is_some() { self.change_rules() } else { Ok(()) };
        changed.and(Ok(forgotten?))
    }

    /// Tells of a refused packet.
    pub(crate) fn refused(&self, packet: &Logged) {
        let Some(hear) = self.hearer.get() else { return };
        {
            let mut told = lock(&self.told);
            let now = Instant::now();
            if told.len() >= REMEMBERED {
                told.retain(|_, at| now.duration_since(*at) < QUIET);
            }
            let key = (packet.from, packet.to, packet.protocol, packet.port);
            let recent = told.get(&key).is_some_and(|at| now.duration_since(*at) < QUIET);
            if recent || told.len() >= REMEMBERED {
                return;
            }
            told.insert(key, now);
        }
        let refusal = {
            let state = lock(&self.state);
            let own = |e: &&Endpoint| e.egress.is_some() && addresses(e).contains(&packet.from);
            state.endpoints.values().find(own).map(|e| Refusal {
                container: e.container.clone(),
                network: e.network.clone(),
                to: packet.to,
                protocol: packet.protocol,
                port: packet.port,
                name: state.known.get(&e.id).and_then(|k| k.names.get(&packet.to).cloned()),
            })
        };
        if let Some(refusal) = refusal {
            hear(refusal);
        }
    }
}

/// What adopted endpoints are known to reach by names: what the table of an earlier daemon holds.
pub(crate) fn adopt(
    endpoints: &HashMap<String, Endpoint>,
    held: &[(IpAddr, Destination, Duration)],
) -> HashMap<String, Known> {
    let now = Instant::now();
    let of = |e: &Endpoint| {
        let own = addresses(e);
        let learned = held.iter().filter(|(from, ..)| own.contains(from)).map(|(_, to, left)| (*to, now + *left));
        Known { learned: learned.collect(), names: BTreeMap::new() }
    };
    endpoints.values().filter(|e| e.egress.is_some()).map(|e| (e.id.clone(), of(e))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_names_ranges_and_ports() {
        let parse = |text: &str| text.parse::<Allowed>().expect(text);
        let name = |text: &str| Target::Name(text.to_owned());
        let range = |text: &str| Target::Range(text.parse().expect("a range"));
        let got = parse("API.example.com.:443");
        assert_eq!((got.target, got.port, got.protocol), (name("api.example.com"), Some(443), None));
        assert_eq!(parse("*.example.com").target, name("*.example.com"));
        assert_eq!(parse("10.1.2.3/8").target, range("10.0.0.0/8"));
        let got = parse("192.0.2.1:53/udp");
        assert_eq!((got.target, got.port, got.protocol), (range("192.0.2.1/32"), Some(53), Some(Protocol::Udp)));
        let got = parse("[2001:db8::/32]:443/tcp");
        assert_eq!((got.target, got.port), (range("2001:db8::/32"), Some(443)));
        assert_eq!(parse("2001:db8::1").target, range("2001:db8::1/128"));
        for wrong in ["", "*", "a..b", "a:0", "a:x", "x/tcp", "1.2.3", "[::1]443", "a b", "10.0.0.0/33", "*.*.x"] {
            assert!(wrong.parse::<Allowed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_star_stands_for_names_below_and_not_for_the_name_itself() {
        let egress = Egress::parse("*.example.com:443, db.internal, 10.0.0.0/8").expect("valid");
        assert!(egress.permits("a.example.com") && egress.permits("a.b.example.com") && egress.permits("db.internal"));
        for not in ["example.com", "aexample.com", "db.internal.evil.com", ".example.com", "10.0.0.1"] {
            assert!(!egress.permits(not), "{not}");
        }
        assert_eq!(egress.of_name("a.example.com", IpAddr::from([192, 0, 2, 1])).len(), 2, "TCP and UDP");
        assert_eq!(egress.ranges().count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn reading_any_text_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Allowed>();
        }
    }
}
