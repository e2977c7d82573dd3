//! Errors of the firewall.

use wharf_error::{HasKind, Kind};
use wharf_netlink::NetlinkError;

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
