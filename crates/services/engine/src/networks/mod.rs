//! Networks: made, shown, removed, and containers connected to them.
//!
//! A network is its record. What belongs to it in the kernel (link, rules) is made before the record is committed and
//! removed after the commit that removes the record; what a crash leaves in between carries the instance id and is
//! swept when the network crate opens. Built-in networks have no stored record.

mod catalog;
mod connect;
mod create;
pub(crate) mod egress;
mod list;
mod options;
mod plugins;
mod record;
mod request;

use std::sync::Arc;

use wharf_metadata::Store;
use wharf_network::Networks;

pub(crate) use catalog::Catalog;
pub(crate) use list::digits;
pub use record::NetworkRecord;
pub(crate) use request::{endpoint_problems, is_limited, join_request, problems_text};

use crate::container::{Records, Registry};
use crate::events::Events;
use crate::lifecycle::Lifecycle;

/// The space of network names in the store.
pub(crate) const NAMES: &str = "network";

/// The networks of one engine.
pub struct NetworkList {
    pub(crate) registry: Arc<Registry>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) store: Arc<Store>,
    pub(crate) records: Arc<Records>,
    pub(crate) events: Arc<Events>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// Held while networks are made or removed, from the look at what there is to the commit.
    pub(crate) changing: tokio::sync::Mutex<()>,
}
