//! Choosing a subnet that nothing on the host uses.

use std::net::{IpAddr, Ipv4Addr};

use wharf_error::{HasKind, Kind};

use crate::Cidr;

/// A large network from which subnets of one size are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// The large network.
    pub base: Cidr,
    /// The prefix length of each subnet; at least the base's.
    pub size: u8,
}

/// Docker's default IPv4 address spaces (`libnetwork/ipamutils`), in the order in which they are tried.
pub const DEFAULT_SPACES: [([u8; 4], u8, u8); 7] = [
    ([172, 17, 0, 0], 16, 16),
    ([172, 18, 0, 0], 16, 16),
    ([172, 19, 0, 0], 16, 16),
    ([172, 20, 0, 0], 14, 16),
    ([172, 24, 0, 0], 14, 16),
    ([172, 28, 0, 0], 14, 16),
    ([192, 168, 0, 0], 16, 20),
];

/// No subnet of the address spaces is free. The text is libnetwork's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all predefined address pools have been fully subnetted")]
pub struct NoSubnet;

impl HasKind for NoSubnet {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

impl AddressSpace {
    /// Docker's default spaces.
    pub fn defaults() -> Vec<AddressSpace> {
        let cidr = |a: [u8; 4], prefix| Cidr::new(IpAddr::V4(Ipv4Addr::from(a)), prefix);
        let space = |&(a, prefix, size): &([u8; 4], u8, u8)| Some(AddressSpace { base: cidr(a, prefix).ok()?, size });
        DEFAULT_SPACES.iter().filter_map(space).collect()
    }
}

/// Returns the first subnet of the spaces that overlaps nothing in `taken`: routes, interface addresses, other
/// networks and name servers of the host.
pub fn choose_subnet(spaces: &[AddressSpace], taken: &[Cidr]) -> Result<Cidr, NoSubnet> {
    for space in spaces {
        let host_bits = if space.base.is_ipv6() { 128 } else { 32 } - u32::from(space.size);
        let mut host = 0u128;
        while host <= space.base.last_host() {
            let Ok(subnet) = Cidr::new(space.base.at(host), space.size) else { break };
            let Some(blocker) = taken.iter().find(|t| t.overlaps(&subnet)) else { return Ok(subnet) };
            // Jump over the whole blocker, so that a wide route costs one step, not one per subnet.
            let step = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
            let blocked = blocker.last_host().max(step - 1);
            let past = space.base.host_of(blocker.at(blocker.last_host())).map_or(blocked, |end| end.max(host));
            let Some(next) = (past | (step - 1)).checked_add(1) else { break };
            host = next.max(host.saturating_add(step));
        }
    }
    Err(NoSubnet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn choose(taken: &[&str]) -> Option<String> {
        choose_subnet(&AddressSpace::defaults(), &cidrs(taken)).ok().map(|c| c.to_string())
    }

    #[test]
    fn the_first_free_subnet_of_the_default_spaces_is_chosen() {
        assert_eq!(choose(&[]).as_deref(), Some("172.17.0.0/16"));
        assert_eq!(choose(&["172.17.0.0/16"]).as_deref(), Some("172.18.0.0/16"));
        assert_eq!(choose(&["172.17.3.4/32", "172.16.0.0/14", "172.20.0.0/16"]).as_deref(), Some("172.21.0.0/16"));
        assert_eq!(choose(&["172.16.0.0/12"]).as_deref(), Some("192.168.0.0/20"));
        assert_eq!(choose(&["172.16.0.0/12", "192.168.0.0/24", "192.168.17.0/24"]).as_deref(), Some("192.168.32.0/20"));
    }

    #[test]
    fn a_host_that_routes_everything_private_leaves_no_subnet() {
        assert_eq!(choose(&["172.16.0.0/12", "192.168.0.0/16"]), None);
        assert_eq!(choose(&["0.0.0.0/0"]), None);
    }

    #[test]
    fn a_wide_ipv6_space_is_searched_without_trying_every_subnet() {
        let space = AddressSpace { base: "fd00::/8".parse().unwrap(), size: 64 };
        let got = choose_subnet(&[space], &cidrs(&["fd00::/9"])).unwrap();
        assert_eq!(got.to_string(), "fd80::/64");
    }

    proptest::proptest! {
        #[test]
        fn the_chosen_subnet_overlaps_nothing_taken(taken in proptest::collection::vec((0u32.., 8u8..=32), 0..12)) {
            let taken: Vec<_> = taken.into_iter()
                .map(|(a, p)| Cidr::new(IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 | (a & 0x1f_ffff))), p).unwrap())
                .collect();
            if let Ok(got) = choose_subnet(&AddressSpace::defaults(), &taken) {
                proptest::prop_assert!(taken.iter().all(|t| !t.overlaps(&got)));
            }
        }
    }
}
