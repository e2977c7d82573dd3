//! An address with a prefix length, IPv4 or IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};

/// An address and the length of its network prefix: `172.17.0.1/16`. Host bits are kept, so it names an interface
/// address as well as a network; [`Cidr::network`] clears them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text or a pair that is no address with prefix length. The text is the one Docker's clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {text}")]
pub struct CidrError {
    text: String,
}

impl HasKind for CidrError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Cidr {
    /// Joins an address and a prefix length of at most 32 (IPv4) or 128 (IPv6) bits.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        if prefix > width(address) {
            return Err(CidrError { text: format!("{address}/{prefix}") });
        }
        Ok(Self { address, prefix })
    }

    /// The network of one address.
    pub fn single(address: IpAddr) -> Self {
        Self { address, prefix: width(address) }
    }

    /// The address, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is an IPv6 network.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The same network with all host bits zero.
    pub fn network(&self) -> Cidr {
        Self { address: self.at(0), prefix: self.prefix }
    }

    /// Whether the address lies in this network. Addresses of the other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && number(address) & self.mask() == number(self.address) & self.mask()
    }

    /// Whether any address lies in both networks.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// The number of addresses minus one: the highest host number.
    pub fn last_host(&self) -> u128 {
        !self.mask() & full(self.address)
    }

    /// The address with the given host number; bits beyond the host part are dropped.
    pub fn at(&self, host: u128) -> IpAddr {
        let n = (number(self.address) & self.mask()) | (host & self.last_host());
        if self.is_ipv6() { IpAddr::V6(Ipv6Addr::from_bits(n)) } else { IpAddr::V4(Ipv4Addr::from_bits(n as u32)) }
    }

    /// The address with the given host number, with this network's prefix length.
    pub(crate) fn with_host(&self, host: u128) -> Cidr {
        Self { address: self.at(host), prefix: self.prefix }
    }

    /// The host number of an address of this network.
    pub fn host_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) & self.last_host())
    }

    /// The IPv4 broadcast address; absent for IPv6 and for networks without one (/31, /32).
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.at(self.last_host()) {
            IpAddr::V4(a) if self.prefix < 31 => Some(a),
            _ => None,
        }
    }

    /// The network mask as an address of the same family.
    pub fn netmask(&self) -> IpAddr {
        if self.is_ipv6() {
            IpAddr::V6(Ipv6Addr::from_bits(self.mask()))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(self.mask() as u32))
        }
    }

    fn mask(&self) -> u128 {
        let host_bits = u32::from(width(self.address) - self.prefix);
        full(self.address) & u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn full(address: IpAddr) -> u128 {
    if address.is_ipv6() { u128::MAX } else { u128::from(u32::MAX) }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError { text: text.chars().take(80).collect() };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let digits = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(error());
        }
        let address = address.parse().map_err(|_| error())?;
        Self::new(address, prefix.parse().map_err(|_| error())?).map_err(|_| error())
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(c: Cidr) -> String {
        c.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_text_keeps_its_host_bits_and_prints_the_same() {
        for text in ["172.17.0.1/16", "10.0.0.0/8", "0.0.0.0/0", "1.2.3.4/32", "fd00::1/64", "::/0", "::1/128"] {
            assert_eq!(cidr(text).to_string(), text);
        }
        assert_eq!(cidr("172.17.0.1/16").network(), cidr("172.17.0.0/16"));
    }

    #[test]
    fn texts_that_are_no_networks_are_refused_with_dockers_text() {
        for text in
            ["", "/", "1.2.3.4", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/+1", "::/129", "1.2.3/8", "a/8", "1.2.3.4/0008"]
        {
            assert_eq!(text.parse::<Cidr>().unwrap_err().to_string(), format!("invalid CIDR address: {text}"));
        }
    }

    #[test]
    fn membership_overlap_and_broadcast_follow_the_prefix() {
        let net = cidr("192.168.4.0/22");
        assert!(net.contains("192.168.7.255".parse().unwrap()));
        assert!(!net.contains("192.168.8.0".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(net.overlaps(&cidr("192.168.0.0/16")) && cidr("192.168.0.0/16").overlaps(&net));
        assert!(!net.overlaps(&cidr("192.168.8.0/22")));
        assert_eq!(net.broadcast(), Some("192.168.7.255".parse().unwrap()));
        assert_eq!(cidr("10.0.0.0/31").broadcast(), None);
        assert_eq!(net.netmask(), "255.255.252.0".parse::<IpAddr>().unwrap());
        assert_eq!(cidr("0.0.0.0/0").last_host(), u128::from(u32::MAX));
        assert_eq!(cidr("::/0").last_host(), u128::MAX);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Cidr>();
        }

        #[test]
        fn the_address_of_a_host_number_has_that_host_number(bits: u32, prefix in 0u8..=32, host: u32) {
            let net = Cidr::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix).unwrap();
            let host = u128::from(host) & net.last_host();
            proptest::prop_assert_eq!(net.host_of(net.at(host)), Some(host));
        }
    }
}
