//! Packets that rules sent to user space by `log group` (`include/uapi/linux/netfilter/nfnetlink_log.h`).

use std::net::IpAddr;

use crate::decode::{Message, attributes};
use crate::{Family, NetlinkError, Requests, Socket};

const SUBSYSTEM: u16 = 4 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIG: u16 = SUBSYSTEM | 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDPLITE: u8 = 136;
const SCTP: u8 = 132;

/// A packet, as far as its headers say where it wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Logged {
    /// Who sent it.
    pub from: IpAddr,
    /// Where to.
    pub to: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// The destination port of protocols that have ports.
    pub port: Option<u16>,
}

/// Opens a socket that hears the packets of a group, of each its first `length` bytes.
///
/// # Errors
/// `EBUSY` if another process listens to this group.
pub fn listen(group: u16, length: u32) -> Result<Socket, NetlinkError> {
    let mut socket = Socket::with_groups(Family::Netfilter, 0)?;
    let mut requests = Requests::new();
    let [high, low] = group.to_be_bytes();
    requests.begin("listen to a log group", CONFIG, 0);
    requests.put(&[0, 0, high, low]);
    const BIND: u8 = 1;
    requests.attr(1, &[BIND]);
    requests.begin("choose what is logged", CONFIG, 0);
    requests.put(&[0, 0, high, low]);
    const COPY_PACKET: u8 = 2;
    let [a, b, c, d] = length.to_be_bytes();
    requests.attr(2, &[a, b, c, d, COPY_PACKET, 0]);
    // One packet a message, at once.
    requests.attr_be32(5, 1);
    socket.call(&mut requests)?;
    Ok(socket)
}

/// Understands a logged packet.
pub fn packet(message: &Message<'_>) -> Option<Logged> {
    if message.kind != PACKET {
        return None;
    }
    let payload = attributes(message.payload.get(4..)?).find(|a| a.kind == 9)?;
    headers(payload.value)
}

/// Reads an IP packet's headers.
fn headers(packet: &[u8]) -> Option<Logged> {
    let (from, to, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 0xf) * 4;
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (address(12)?, address(16)?, *packet.get(9)?, packet.get(length..).unwrap_or_default())
        }
        6 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            // Extension headers are not followed: without a port, the address still says enough.
            (address(8)?, address(24)?, *packet.get(6)?, packet.get(40..).unwrap_or_default())
        }
        _ => return None,
    };
    let ports = matches!(protocol, TCP | UDP | UDPLITE | SCTP);
    let port = rest.get(2..4).filter(|_| ports).map(|p| u16::from_be_bytes([p[0], p[1]]));
    Some(Logged { from, to, protocol, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_of_both_families_are_read() {
        let mut four = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 172, 17, 0, 2, 192, 0, 2, 9];
        four.extend([0x80, 1, 0x01, 0xbb]);
        let got = headers(&four).expect("a packet");
        assert_eq!((got.to.to_string().as_str(), got.protocol, got.port), ("192.0.2.9", 6, Some(443)));
        let mut six = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
        six.extend(std::net::Ipv6Addr::LOCALHOST.octets());
        six.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address").octets());
        six.extend([128, 0, 1, 2]);
        let got = headers(&six).expect("a packet");
        assert_eq!((got.to.to_string().as_str(), got.protocol, got.port), ("2001:db8::1", 58, None));
    }

    proptest::proptest! {
        #[test]
        fn hostile_packets_never_panic(kind in 0x3ffu16..0x402, payload in proptest::collection::vec(0u8.., 0..120)) {
            let _ = headers(&payload);
            let _ = packet(&Message { kind, flags: 0, sequence: 0, payload: &payload });
        }
    }
}
