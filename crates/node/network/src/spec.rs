//! What a user-defined network is: decided once when it is created, stored by the engine, and handed in again by every
//! later daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wharf_firewall::GatewayMode;
use wharf_ipam::Cidr;
use wharf_netlink::route::MacvlanMode;

use crate::PluginPool;

/// The key of the default bridge network among [`crate::Networks`]; the others are keyed by their ids.
pub const DEFAULT_NETWORK: &str = "bridge";

/// One address range of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet, host bits zero.
    pub subnet: Cidr,
    /// The part from which addresses are handed out; the whole subnet if absent.
    pub range: Option<Cidr>,
    /// The gateway. On a bridge it is the bridge's own address.
    pub gateway: Option<IpAddr>,
    /// Addresses that other machines have, by name.
    pub taken: BTreeMap<String, IpAddr>,
    /// The plugin's pool, if a plugin hands out the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PluginPool>,
}

/// Who hands out a network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// We do.
    #[default]
    Own,
    /// Nobody: whoever makes the link knows.
    Nothing,
    /// The plugin of this name.
    Plugin(String),
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// IPv4 and IPv6 ranges in order; a bridge has at most one of each.
    pub subnets: Vec<Subnet>,
    /// Without way out.
    pub internal: bool,
    /// Bytes; 0 is the default.
    pub mtu: u32,
    /// What the names of links in containers begin with: `eth`.
    pub link_prefix: String,
    /// The driver's part.
    pub driver: Driver,
    /// Who hands out its addresses.
    #[serde(default)]
    pub addressing: Addressing,
}

/// How containers are connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host.
    Bridge(BridgeDriver),
    /// Links on a link of the host.
    Macvlan(MacvlanDriver),
    /// Links that a plugin makes.
    Remote(RemoteDriver),
}

/// A network of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDriver {
    /// The plugin.
    pub name: String,
    /// The options that are meant for it.
    pub options: BTreeMap<String, String>,
    /// Containers get IPv4 addresses.
    pub ipv4: bool,
    /// Containers get IPv6 addresses.
    pub ipv6: bool,
}

/// A bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeDriver {
    /// The bridge's name.
    pub link: String,
    /// Containers may talk to each other.
    pub icc: bool,
    /// Outgoing traffic gets the host's address.
    pub masquerade: bool,
    /// How IPv4 is reached from outside.
    pub mode_v4: GatewayMode,
    /// How IPv6 is.
    pub mode_v6: GatewayMode,
    /// The host address for published ports that name none.
    pub host_binding: Option<IpAddr>,
    /// The host's addresses that outgoing traffic gets.
    pub source_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub source_v6: Option<IpAddr>,
    /// The bridge gets no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Interfaces from which published ports are reached by the container's own address.
    pub trusted: Vec<String>,
}

/// A macvlan network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacvlanDriver {
    /// The parent link.
    pub parent: String,
    /// The parent is an 802.1q link that we make on this link with this tag.
    pub vlan: Option<(String, u16)>,
    /// The parent is a link without other end that we make.
    pub dummy: bool,
    /// How containers see each other.
    #[serde(with = "mode")]
    pub mode: MacvlanMode,
}

mod mode {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{MacvlanMode, macvlan_mode};

    pub(super) fn serialize<S: Serializer>(mode: &MacvlanMode, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match mode {
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Passthru => "passthru",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<MacvlanMode, D::Error> {
        let text = String::deserialize(d)?;
        macvlan_mode(&text).ok_or_else(|| serde::de::Error::custom("unknown macvlan mode"))
    }
}

/// Reads Docker's word for a macvlan mode.
pub fn macvlan_mode(text: &str) -> Option<MacvlanMode> {
    Some(match text {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        _ => return None,
    })
}

impl NetworkSpec {
    /// The first range of a family.
    pub fn subnet(&self, ipv6: bool) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.subnet.is_ipv6() == ipv6)
    }

    /// The containers' gateway of a family: none on internal networks.
    pub fn gateway(&self, ipv6: bool) -> Option<IpAddr> {
        self.subnet(ipv6).and_then(|s| s.gateway).filter(|_| !self.internal)
    }
}
