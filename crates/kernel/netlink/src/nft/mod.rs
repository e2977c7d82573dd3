//! nf_tables: tables, chains, rules, sets and maps (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! Changes are collected in a [`Batch`], which takes effect as a whole or not at all.

mod batch;
mod expression;
mod read;

pub use batch::{Base, Batch, Element, Hook, Kind, MapType, Place, Range, SetType};
pub use expression::{CtKey, Expr, MetaKey, PayloadBase, Verdict};
pub use read::{ChainInfo, Event, RuleInfo, chains, element_count, event, lifetimes, rules};

/// The packets that a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// What comes in by one link.
    Netdev,
    /// Another family (arp, bridge), which is only ever read.
    Other(u8),
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Netdev => 5,
            Self::Ip6 => 10,
            Self::Other(n) => n,
        }
    }

    pub(crate) fn of(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ip,
            5 => Self::Netdev,
            10 => Self::Ip6,
            n => Self::Other(n),
        }
    }
}

/// The group of nf_tables events, as a bit for [`crate::Socket::with_groups`].
pub const EVENTS: u32 = 1 << 6;

pub(crate) const SUBSYSTEM: u16 = 10 << 8;
