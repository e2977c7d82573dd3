//! Expressions: the instructions of a rule. Registers 8 to 23 hold four bytes each.

use crate::Requests;

/// What ends or redirects the evaluation of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Discards the packet.
    Drop,
    /// Ends this base chain in favour of the packet. Other base chains of the same hook still see it.
    Accept,
    /// Goes on after the calling rule.
    Return,
    /// Calls a chain.
    Jump(String),
    /// Continues in a chain without coming back.
    Goto(String),
}

impl Verdict {
    pub(crate) fn write(&self, r: &mut Requests) {
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        r.nest(VERDICT, |r| {
            r.attr_be32(CODE, code as u32);
            if let Some(chain) = chain {
                r.attr_text(CHAIN, chain);
            }
        });
    }
}

/// A property of the packet that is not in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaKey {
    /// Name of the interface it came in by, 16 bytes.
    InputName,
    /// Name of the interface it goes out by, 16 bytes.
    OutputName,
    /// 2 for IPv4, 10 for IPv6, 1 byte.
    Family,
    /// Transport protocol number, 1 byte.
    Protocol,
    /// The Ethernet type, 2 bytes.
    EtherType,
}

/// A property of the packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtKey {
    /// Bits: invalid 1, established 2, related 4, new 8.
    State,
    /// Bits: 0x20 says the destination was translated.
    Status,
}

/// From where bytes of the packet are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadBase {
    /// The IP header.
    Network,
    /// The transport header.
    Transport,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Loads a property.
    Meta {
        /// Which.
        key: MetaKey,
        /// Into this register.
        to: u32,
    },
    /// Loads a property of the connection, 4 bytes.
    Ct {
        /// Which.
        key: CtKey,
        /// Into this register.
        to: u32,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Counted from here.
        base: PayloadBase,
        /// Offset in bytes.
        offset: u32,
        /// Length in bytes.
        length: u32,
        /// Into this register.
        to: u32,
    },
    /// Loads the kind of address (RTN_*, 4 bytes) that the packet's destination is for this host.
    DestinationType {
        /// Into this register.
        to: u32,
    },
    /// `to = (from & mask)`.
    Mask {
        /// Source register.
        from: u32,
        /// Target register.
        to: u32,
        /// The mask, as long as the value.
        mask: Vec<u8>,
    },
    /// Goes on only if the register's bytes are (or are not) these.
    Compare {
        /// The register.
        from: u32,
        /// Equal, or different.
        equal: bool,
        /// The bytes.
        value: Vec<u8>,
    },
    /// Goes on only if the key is in the set; with `to`, loads the map's value.
    Lookup {
        /// The set's name.
        set: String,
        /// The key's first register.
        from: u32,
        /// The value's first register, for maps.
        to: Option<u32>,
    },
    /// Translates the destination.
    DestinationNat {
        /// IPv6 or IPv4.
        ipv6: bool,
        /// Register of the address.
        address: u32,
        /// Register of the port.
        port: u32,
    },
    /// Translates the source to a given address.
    SourceNat {
        /// IPv6 or IPv4.
        ipv6: bool,
        /// Register of the address.
        address: u32,
    },
    /// Puts bytes into a register.
    Load {
        /// The register.
        to: u32,
        /// The bytes.
        value: Vec<u8>,
    },
    /// Translates the source to the outgoing interface's address.
    Masquerade,
    /// Sends a copy to user space (nfnetlink_log).
    Log {
        /// The group that listens.
        group: u16,
        /// Bytes of the packet that are copied.
        length: u32,
        /// A text that goes with it.
        prefix: String,
    },
    /// Goes on for so many packets each second; the others go no further in this rule.
    Limit {
        /// Packets each second.
        rate: u64,
        /// How many may come at once.
        burst: u32,
    },
    /// Answers with "administratively prohibited" (ICMP) and drops the packet.
    Reject,
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule with a verdict.
    Verdict(Verdict),
}

impl Expr {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::DestinationType { .. } => "fib",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::DestinationNat { .. } | Self::SourceNat { .. } => "nat",
            Self::Load { .. } => "immediate",
            Self::Log { .. } => "log",
            Self::Limit { .. } => "limit",
            Self::Reject => "reject",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Verdict(_) => "immediate",
        }
    }

    pub(crate) fn write(&self, r: &mut Requests) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        r.attr_text(NAME, self.name());
        r.nest(DATA, |r| self.write_data(r));
    }

    fn write_data(&self, r: &mut Requests) {
        match self {
            Self::Meta { key, to } => {
                let number = match key {
                    MetaKey::InputName => 6,
                    MetaKey::OutputName => 7,
                    MetaKey::Family => 15,
                    MetaKey::Protocol => 16,
                    MetaKey::EtherType => 1,
                };
                numbers(r, &[(1, *to), (2, number)]);
            }
            Self::Ct { key, to } => {
                let number = match key {
                    CtKey::State => 0,
                    CtKey::Status => 2,
                };
                numbers(r, &[(1, *to), (2, number)]);
            }
            Self::Payload { base, offset, length, to } => {
                let base = match base {
                    PayloadBase::Network => 1,
                    PayloadBase::Transport => 2,
                };
                numbers(r, &[(1, *to), (2, base), (3, *offset), (4, *length)]);
            }
            Self::DestinationType { to } => numbers(r, &[(1, *to), (2, 3), (3, 2)]),
            Self::Mask { from, to, mask } => {
                numbers(r, &[(1, *from), (2, *to), (3, mask.len() as u32)]);
                value(r, 4, mask);
                value(r, 5, &vec![0; mask.len()]);
            }
            Self::Compare { from, equal, value: bytes } => {
                numbers(r, &[(1, *from), (2, u32::from(!equal))]);
                value(r, 3, bytes);
            }
            Self::Lookup { set, from, to } => {
                r.attr_text(1, set);
                numbers(r, &[(2, *from)]);
                if let Some(to) = to {
                    numbers(r, &[(3, *to)]);
                }
            }
            Self::DestinationNat { ipv6, address, port } => {
                numbers(r, &[(1, 1), (2, if *ipv6 { 10 } else { 2 }), (3, *address), (5, *port)]);
            }
            Self::SourceNat { ipv6, address } => {
                numbers(r, &[(1, 0), (2, if *ipv6 { 10 } else { 2 }), (3, *address)]);
            }
            Self::Load { to, value: bytes } => {
                numbers(r, &[(1, *to)]);
                value(r, 2, bytes);
            }
            Self::Masquerade => {}
            Self::Log { group, length, prefix } => {
                r.attr(1, &group.to_be_bytes());
                r.attr_text(2, prefix);
                numbers(r, &[(3, *length)]);
                r.attr(4, &1u16.to_be_bytes());
            }
            Self::Limit { rate, burst } => {
                r.attr(1, &rate.to_be_bytes());
                r.attr(2, &1u64.to_be_bytes());
                numbers(r, &[(3, *burst), (4, 0)]);
            }
            Self::Reject => {
                // NFT_REJECT_ICMPX_UNREACH with NFT_REJECT_ICMPX_ADMIN_PROHIBITED.
                numbers(r, &[(1, 2)]);
                r.attr(2, &[3]);
            }
            Self::Counter => {
                r.attr(1, &[0; 8]);
                r.attr(2, &[0; 8]);
            }
            Self::Verdict(verdict) => {
                numbers(r, &[(1, 0)]);
                r.nest(2, |r| verdict.write(r));
            }
        }
    }
}

fn numbers(r: &mut Requests, pairs: &[(u16, u32)]) {
    for (kind, number) in pairs {
        r.attr_be32(*kind, *number);
    }
}

pub(crate) fn value(r: &mut Requests, kind: u16, bytes: &[u8]) {
    const VALUE: u16 = 1;
    r.nest(kind, |r| r.attr(VALUE, bytes));
}
