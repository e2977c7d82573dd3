//! Connection tracking entries (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use crate::decode::{Attribute, Message, attributes};
use crate::{NetlinkError, Requests, Socket};

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What one entry says, as far as forgetting it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Protocol number.
    pub protocol: u8,
    /// Destination of the first packet.
    pub destination: IpAddr,
    /// Its port.
    pub port: u16,
    /// Who answers: the destination after NAT.
    pub answered_by: IpAddr,
}

struct Entry {
    flow: Flow,
    orig: Vec<u8>,
}

/// Forgets the entries for which `forget` says so, and returns how many. Reads the whole table of the family.
pub fn forget(socket: &mut Socket, ipv6: bool, forget: impl Fn(&Flow) -> bool) -> Result<usize, NetlinkError> {
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    let entries = socket.dump(
        |r, flags| {
            r.begin("list connections", GET, flags);
            r.put(&[family, 0, 0, 0]);
        },
        |all: &mut Vec<Entry>, message| {
            all.extend(read(message).filter(|e| forget(&e.flow)));
            Ok(())
        },
    )?;
    let mut gone = 0;
    for entry in &entries {
        let mut requests = Requests::new();
        requests.begin("forget connection", DELETE, 0);
        requests.put(&[family, 0, 0, 0]);
        requests.nest(TUPLE_ORIG, |r| r.put(&entry.orig));
        match socket.call(&mut requests) {
            Ok(()) => gone += 1,
            // It timed out meanwhile.
            Err(e) if e.is(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(gone)
}

fn read(message: &Message<'_>) -> Option<Entry> {
    let body = message.payload.get(4..)?;
    let find = |kind| attributes(body).find(|a| a.kind == kind);
    let orig = find(TUPLE_ORIG)?;
    let reply = find(TUPLE_REPLY)?;
    let (protocol, port) = protocol_of(&orig)?;
    let flow = Flow { protocol, port, destination: address_of(&orig, false)?, answered_by: address_of(&reply, true)? };
    Some(Entry { flow, orig: orig.value.to_vec() })
}

/// Source (1 and 3) or destination (2 and 4) of a tuple.
fn address_of(tuple: &Attribute<'_>, source: bool) -> Option<IpAddr> {
    let ip = tuple.nested().find(|a| a.kind == TUPLE_IP)?;
    ip.nested().find_map(|a| match (a.kind, source) {
        (1, true) | (2, false) => <[u8; 4]>::try_from(a.value).ok().map(IpAddr::from),
        (3, true) | (4, false) => <[u8; 16]>::try_from(a.value).ok().map(IpAddr::from),
        _ => None,
    })
}

fn protocol_of(tuple: &Attribute<'_>) -> Option<(u8, u16)> {
    let proto = tuple.nested().find(|a| a.kind == TUPLE_PROTO)?;
    let number = proto.nested().find(|a| a.kind == 1)?.value.first().copied()?;
    let port =
        proto.nested().find(|a| a.kind == 3).and_then(|a| Some(u16::from_be_bytes(a.value.get(..2)?.try_into().ok()?)));
    Some((number, port.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reading_hostile_entries_never_panics(payload in proptest::collection::vec(0u8.., 0..160)) {
            let _ = read(&Message { kind: GET, flags: 0, sequence: 0, payload: &payload });
        }
    }
}
