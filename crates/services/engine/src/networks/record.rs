//! What the store keeps of a network.

use serde::{Deserialize, Serialize};
use wharf_api_types::{IpamConfig, StringMap};
use wharf_metadata::{Record, Table};
use wharf_network::{DEFAULT_NETWORK, NetworkSpec};
use wharf_types::Timestamp;

/// A network, from create to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// `bridge`, `macvlan`, `host`, `null`, or a plugin.
    pub driver: String,
    /// Whether containers get IPv4 addresses.
    pub ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// Without way out.
    pub internal: bool,
    /// Whether containers may be attached by hand; of meaning in swarms only.
    pub attachable: bool,
    /// Only a template for others.
    pub config_only: bool,
    /// The template that it was made from.
    pub config_from: String,
    /// Who hands out addresses: empty for us, `null` for nobody, else a plugin.
    #[serde(default)]
    pub ipam_driver: String,
    /// `global` if a plugin says that its networks are; else empty.
    #[serde(default)]
    pub scope: String,
    /// The address management's options.
    pub ipam_options: Option<StringMap>,
    /// Its ranges as they are shown: as they were asked for, or as they were chosen.
    pub ranges: Option<Vec<IpamConfig>>,
    /// Whether the ranges were asked for: only then may containers ask for addresses.
    pub own_ranges: bool,
    /// Driver options.
    pub options: StringMap,
    /// Labels.
    pub labels: StringMap,
    /// What the network crate makes of it; absent for templates and built-in networks.
    pub spec: Option<NetworkSpec>,
}

impl Record for NetworkRecord {
    const TABLE: Table = Table::Networks;
    const VERSION: u32 = 1;
}

impl NetworkRecord {
    /// Whether it is `bridge`, `host` or `none`.
    pub fn is_builtin(&self) -> bool {
        self.spec.is_none() && !self.config_only
    }

    /// Its key among the network crate's networks.
    pub fn key(&self) -> &str {
        if self.is_builtin() { DEFAULT_NETWORK } else { &self.id }
    }

    /// Whether containers on it may ask for addresses, names and links: all but the built-in ones.
    pub fn is_user_defined(&self) -> bool {
        !self.is_builtin()
    }

    /// `local` or `global`.
    pub fn scope(&self) -> &str {
        if self.scope.is_empty() { "local" } else { &self.scope }
    }

    /// Who hands out addresses, as clients see it.
    pub fn ipam_driver(&self) -> &str {
        if self.ipam_driver.is_empty() { "default" } else { &self.ipam_driver }
    }

    /// The kind in events.
    pub fn event_type(&self) -> &str {
        &self.driver
    }
}
