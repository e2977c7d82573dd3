//! The resolver's sockets in a container's namespace, and the rules by which its queries come there.

use std::os::fd::BorrowedFd;

use wharf_dns::Sockets;
use wharf_netlink::nft::{Base, Batch, Expr, Family, Hook, Kind, MetaKey, PayloadBase, Place};
use wharf_netlink::{Family as Socket_, Socket};

use crate::networks::Networks;
use crate::{NetworkError, Protocol, netns};

/// The table in the container's namespace.
const TABLE: &str = "wharf-resolver";
/// Where containers ask.
const ADDRESS: [u8; 4] = [127, 0, 0, 11];
const PORT: u16 = 53;

impl Networks {
    /// Opens the resolver's sockets in a namespace whose `lo` is up, and has queries to 127.0.0.11:53 go there. What an
    /// earlier resolver left is replaced.
    pub fn open_resolver(&self, namespace: BorrowedFd<'_>) -> Result<Sockets, NetworkError> {
        netns::within(&self.shared.home, namespace, || {
            let sockets = wharf_dns::open_sockets()?;
            redirect(sockets.ports()?)?;
            Ok(sockets)
        })
    }
}

fn redirect((udp, tcp): (u16, u16)) -> Result<(), NetworkError> {
    let mut batch = Batch::new();
    // Deleting what may not exist: add it first.
    batch.add_table(Family::Ip, TABLE);
    batch.delete_table(Family::Ip, TABLE);
    batch.add_table(Family::Ip, TABLE);
    let base = Base { kind: Kind::Nat, hook: Hook::Output, priority: -100, drop: false };
    batch.add_chain(Family::Ip, TABLE, "output", Some(base), None);
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        batch.add_rule(Family::Ip, TABLE, "output", Place::Last, &rule(protocol, port), "");
    }
    let failed = |source| NetworkError::Link { action: "redirecting queries in", link: "lo".to_owned(), source };
    let mut socket = Socket::open(Socket_::Netfilter).map_err(failed)?;
    batch.commit(&mut socket).map_err(failed)
}

fn rule(protocol: Protocol, port: u16) -> Vec<Expr> {
    const R0: u32 = 8;
    let equals = |value: Vec<u8>| Expr::Compare { from: R0, equal: true, value };
    vec![
        Expr::Payload { base: PayloadBase::Network, offset: 16, length: 4, to: R0 },
        equals(ADDRESS.to_vec()),
        Expr::Meta { key: MetaKey::Protocol, to: R0 },
        equals(vec![protocol.number()]),
        Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: R0 },
        equals(PORT.to_be_bytes().to_vec()),
        Expr::Load { to: R0, value: ADDRESS.to_vec() },
        Expr::Load { to: R0 + 1, value: port.to_be_bytes().to_vec() },
        Expr::DestinationNat { ipv6: false, address: R0, port: R0 + 1 },
    ]
}
