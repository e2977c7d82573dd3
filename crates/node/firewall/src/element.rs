//! Published ports as elements of maps.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use wharf_netlink::nft::Element;

use crate::Protocol;

/// One published port: what arrives at `host` and `port` goes to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Published {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address; unspecified for every address of its family.
    pub host: IpAddr,
    /// Host port.
    pub port: u16,
    /// Container address and port, of the same family.
    pub to: SocketAddr,
    /// Whether the port is also (or only, if `port` is 0) reached by the container's own address: routed networks, and
    /// those with trusted interfaces.
    pub open: bool,
}

/// The maps' names: by address and port, and by port alone, per family.
pub(crate) const BY_ADDRESS4: &str = "address4";
pub(crate) const BY_ADDRESS6: &str = "address6";
pub(crate) const BY_PORT4: &str = "port4";
pub(crate) const BY_PORT6: &str = "port6";

/// The sets' names: container addresses with their protocol and port, per family.
pub(crate) const OPEN4: &str = "open4";
pub(crate) const OPEN6: &str = "open6";

/// Returns the elements that publish these ports, by map. A port whose two ends are of different families has none:
/// no NAT can translate between them.
pub fn elements(published: &[Published]) -> BTreeMap<&'static str, Vec<Element>> {
    let mut maps: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
    for p in published {
        if p.open {
            let mut key = Vec::with_capacity(24);
            push_address(&mut key, p.to.ip());
            key.extend_from_slice(&[p.protocol.number(), 0, 0, 0]);
            push_port(&mut key, p.to.port());
            let element = Element { key, value: Vec::new() };
            let open = maps.entry(if p.to.is_ipv6() { OPEN6 } else { OPEN4 }).or_default();
            // One container port may be published on several of the host's.
            if !open.contains(&element) {
                open.push(element);
            }
        }
        if p.port == 0 {
            continue;
        }
        let map = match (p.host, p.to.ip()) {
            (IpAddr::V4(h), IpAddr::V4(_)) if h.is_unspecified() => BY_PORT4,
            (IpAddr::V4(_), IpAddr::V4(_)) => BY_ADDRESS4,
            (IpAddr::V6(h), IpAddr::V6(_)) if h.is_unspecified() => BY_PORT6,
            (IpAddr::V6(_), IpAddr::V6(_)) => BY_ADDRESS6,
            _ => continue,
        };
        let mut key = Vec::with_capacity(24);
        if !p.host.is_unspecified() {
            push_address(&mut key, p.host);
        }
        key.extend_from_slice(&[p.protocol.number(), 0, 0, 0]);
        push_port(&mut key, p.port);
        let mut value = Vec::with_capacity(20);
        push_address(&mut value, p.to.ip());
        push_port(&mut value, p.to.port());
        maps.entry(map).or_default().push(Element { key, value });
    }
    maps
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => bytes.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => bytes.extend_from_slice(&a.octets()),
    }
}

/// Network byte order, padded to a register.
fn push_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host: &str, to: &str) -> Published {
        Published {
            protocol: Protocol::Tcp,
            host: host.parse().unwrap(),
            port: 8080,
            to: to.parse().unwrap(),
            open: false,
        }
    }

    #[test]
    fn a_port_on_all_addresses_is_keyed_by_protocol_and_port() {
        let got = elements(&[published("0.0.0.0", "172.17.0.2:80")]);
        let element = Element { key: vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0], value: vec![172, 17, 0, 2, 0, 80, 0, 0] };
        assert_eq!(got, BTreeMap::from([(BY_PORT4, vec![element])]));
    }

    #[test]
    fn a_port_on_one_address_is_keyed_by_it_too_and_ipv6_has_maps_of_its_own() {
        let got = elements(&[published("127.0.0.1", "172.17.0.2:80"), published("::", "[fd00::2]:80")]);
        assert_eq!(got[BY_ADDRESS4][0].key, [127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(got[BY_PORT6][0].value.len(), 20);
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn an_open_port_is_in_the_set_once_and_only_there_without_host_port() {
        let open = |port| Published { open: true, port, ..published("0.0.0.0", "172.17.0.2:80") };
        let got = elements(&[open(0), open(8080)]);
        assert_eq!(got[OPEN4], [Element { key: vec![172, 17, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0], value: Vec::new() }]);
        assert_eq!(got[BY_PORT4].len(), 1);
    }

    #[test]
    fn an_ipv6_port_of_an_ipv4_container_has_no_element() {
        assert!(elements(&[published("::", "172.17.0.2:80")]).is_empty());
    }
}
