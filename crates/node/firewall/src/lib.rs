//! State → nftables rule set (pure) and applying the difference.
//!
//! All rules of one daemon are in one table of family `inet`, named by the configuration. [`rule_set`] computes its
//! chains from the bridges; published ports are elements of its maps, so that publishing is an element added and the
//! lookup per packet a hash, whatever their number. [`Table`] applies both. [`neighbours`] keeps other programs'
//! forwarding chains from dropping what this table accepts: an accept in one base chain does not beat a drop in
//! another.

mod egress;
mod element;
mod error;
pub mod firewalld;
pub mod neighbours;
mod protocol;
mod rules;
mod table;

pub use egress::{Destination, LOGGED, Policed};
pub use element::{Published, elements};
pub use error::FirewallError;
pub use protocol::Protocol;
pub use rules::{Bridge, Chain, Face, Families, GatewayMode, Map, RuleSet, Set, rule_set};
pub use table::Table;
