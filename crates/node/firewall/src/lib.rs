//! State → nftables rule set (pure) and applying the difference.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};
use wharf_netlink::NetlinkError;

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, number 6.
    Tcp,
    /// UDP, number 17.
    Udp,
    /// SCTP, number 132.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// The kernel refused a change of rules.
#[derive(Debug, thiserror::Error)]
#[error("{action} {table}")]
pub struct FirewallError {
    /// What was being done, in words.
    pub action: &'static str,
    /// The table.
    pub table: String,
    /// The kernel's answer.
    #[source]
    pub source: NetlinkError,
}

impl HasKind for FirewallError {
    fn kind(&self) -> Kind {
        Kind::System
    }
}
