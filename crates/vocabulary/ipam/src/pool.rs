//! The addresses of one network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use wharf_error::{HasKind, Kind};

use crate::Cidr;

/// The addresses of one network: which are taken, and the lowest free one of the range it may hand out.
///
/// Memory grows with the addresses in use, not with the size of the network, so an IPv6 /64 costs nothing.
#[derive(Clone, Debug)]
pub struct Pool {
    subnet: Cidr,
    range: Cidr,
    taken: BTreeSet<u128>,
}

/// Why an address cannot be had. Texts are libnetwork's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every address of the range is in use.
    #[error("no available IPv{version} addresses on this network's address pools: {subnet}")]
    Exhausted {
        /// 4 or 6.
        version: u8,
        /// The network.
        subnet: Cidr,
    },
    /// The asked-for address is in use.
    #[error("Address already in use")]
    InUse(IpAddr),
    /// The asked-for address is not one of the network, or names the network itself.
    #[error("invalid address {address}: it does not belong to any of this network's subnets")]
    Outside {
        /// The address.
        address: IpAddr,
    },
    /// The range to hand out from is not part of the network.
    #[error("range {range} is not within subnet {subnet}")]
    Range {
        /// The range.
        range: Cidr,
        /// The network.
        subnet: Cidr,
    },
}

impl HasKind for PoolError {
    fn kind(&self) -> Kind {
        match self {
            Self::Exhausted { .. } => Kind::Unavailable,
            Self::InUse(_) => Kind::Conflict,
            Self::Outside { .. } | Self::Range { .. } => Kind::Invalid,
        }
    }
}

impl Pool {
    /// Makes the pool of a network that hands out addresses of `range` (the whole network if absent). The network's
    /// own address and, for IPv4, its broadcast address are never handed out.
    pub fn new(subnet: Cidr, range: Option<Cidr>) -> Result<Self, PoolError> {
        let subnet = subnet.network();
        let range = range.map_or(subnet, |r| r.network());
        if !subnet.contains(range.address()) || range.prefix() < subnet.prefix() {
            return Err(PoolError::Range { range, subnet });
        }
        let mut taken = BTreeSet::new();
        if subnet.last_host() > 1 {
            taken.insert(0);
            if !subnet.is_ipv6() {
                taken.insert(subnet.last_host());
            }
        }
        Ok(Self { subnet, range, taken })
    }

    /// The network.
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// Takes the lowest free address of the range; it comes with the network's prefix length.
    pub fn take_any(&mut self) -> Result<Cidr, PoolError> {
        let first = self.subnet.host_of(self.range.address()).unwrap_or(0);
        let last = first + self.range.last_host();
        let mut candidate = first;
        for &used in self.taken.range(first..=last) {
            if used != candidate {
                break;
            }
            candidate += 1;
        }
        if candidate > last {
            let version = if self.subnet.is_ipv6() { 6 } else { 4 };
            return Err(PoolError::Exhausted { version, subnet: self.subnet });
        }
        self.taken.insert(candidate);
        Ok(self.subnet.with_host(candidate))
    }

    /// Takes one named address of the network, within the range or not.
    pub fn take(&mut self, address: IpAddr) -> Result<(), PoolError> {
        let host = self.subnet.host_of(address).ok_or(PoolError::Outside { address })?;
        if self.taken.insert(host) { Ok(()) } else { Err(PoolError::InUse(address)) }
    }

    /// Gives an address back. One that was not taken changes nothing.
    pub fn release(&mut self, address: IpAddr) {
        let reserved = |host: u128| {
            self.subnet.last_host() > 1 && (host == 0 || (!self.subnet.is_ipv6() && host == self.subnet.last_host()))
        };
        if let Some(host) = self.subnet.host_of(address).filter(|h| !reserved(*h)) {
            self.taken.remove(&host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        Pool::new(subnet.parse().unwrap(), range.map(|r| r.parse().unwrap())).unwrap()
    }

    fn any(p: &mut Pool) -> Result<IpAddr, PoolError> {
        p.take_any().map(|c| c.address())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_taken_and_comes_back_after_release() {
        let mut p = pool("172.17.0.0/16", None);
        p.take(ip("172.17.0.1")).unwrap();
        assert_eq!(any(&mut p), Ok(ip("172.17.0.2")));
        assert_eq!(any(&mut p), Ok(ip("172.17.0.3")));
        p.release(ip("172.17.0.2"));
        assert_eq!(any(&mut p), Ok(ip("172.17.0.2")));
    }

    #[test]
    fn network_and_broadcast_addresses_are_never_handed_out_even_after_release() {
        let mut p = pool("10.0.0.0/30", None);
        p.release(ip("10.0.0.0"));
        p.release(ip("10.0.0.3"));
        assert_eq!(any(&mut p), Ok(ip("10.0.0.1")));
        assert_eq!(any(&mut p), Ok(ip("10.0.0.2")));
        assert!(matches!(p.take_any(), Err(PoolError::Exhausted { version: 4, .. })));
    }

    #[test]
    fn a_range_bounds_what_is_handed_out_but_not_what_may_be_asked_for() {
        let mut p = pool("10.0.0.0/24", Some("10.0.0.128/31"));
        assert_eq!(any(&mut p), Ok(ip("10.0.0.128")));
        assert_eq!(any(&mut p), Ok(ip("10.0.0.129")));
        assert!(p.take_any().is_err());
        p.take(ip("10.0.0.7")).unwrap();
        assert_eq!(p.take(ip("10.0.0.7")), Err(PoolError::InUse(ip("10.0.0.7"))));
        assert!(matches!(p.take(ip("10.0.1.7")), Err(PoolError::Outside { .. })));
        assert!(matches!(p.take(ip("::1")), Err(PoolError::Outside { .. })));
    }

    #[test]
    fn a_range_outside_the_network_is_refused() {
        for range in ["10.0.1.0/28", "10.0.0.0/16", "fd00::/120"] {
            let e = Pool::new("10.0.0.0/24".parse().unwrap(), Some(range.parse().unwrap())).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid, "{range}");
        }
    }

    #[test]
    fn an_ipv6_network_starts_at_one_and_has_no_broadcast_address() {
        let mut p = pool("fd00::/126", None);
        let got: Vec<_> = std::iter::from_fn(|| any(&mut p).ok()).collect();
        assert_eq!(got, [ip("fd00::1"), ip("fd00::2"), ip("fd00::3")]);
    }

    proptest::proptest! {
        #[test]
        fn no_address_is_handed_out_twice(ops in proptest::collection::vec(0u8..40, 0..200)) {
            let mut p = pool("10.9.0.0/27", None);
            let mut held = BTreeSet::new();
            for op in ops {
                if op < 20 {
                    if let Ok(a) = any(&mut p) {
                        proptest::prop_assert!(held.insert(a));
                    }
                } else if let Some(&a) = held.iter().nth(usize::from(op - 20)) {
                    held.remove(&a);
                    p.release(a);
                }
            }
        }
    }
}
