//! Networks and a container's place in them.

use std::collections::BTreeMap;

use wharf_types::Timestamp;

use crate::go::{empty, nil_or_empty};
use crate::{FirewallInfo, StringMap};

bodies! {
    /// A container's endpoint on one network: what was asked for, and what came of it.
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        ipam_config: Option<EndpointIpamConfig>,
        links: Option<Vec<String>>,
        aliases: Option<Vec<String>>,
        mac_address: String,
        driver_opts: Option<StringMap>,
        gw_priority: i64,
        #[serde(rename = "NetworkID")]
        network_id: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "DNSNames")]
        dns_names: Option<Vec<String>>,
    }

    /// Addresses asked for an endpoint.
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address", skip_serializing_if = "empty")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "empty")]
        ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "nil_or_empty")]
        link_local_ips: Option<Vec<String>>,
    }

    /// A network, as listed and inspected.
    pub struct Network {
        name: String,
        id: String,
        created: Timestamp,
        scope: String,
        driver: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        /// By container id; the list shows it empty.
        containers: BTreeMap<String, NetworkContainer>,
        options: Option<StringMap>,
        labels: Option<StringMap>,
        /// Ours, in inspect only: what writes the network's packet rules.
        #[serde(skip_serializing_if = "Option::is_none")]
        firewall_backend: Option<FirewallInfo>,
    }

    /// The network that another takes its configuration from.
    pub struct ConfigReference {
        network: String,
    }

    /// A network's address management.
    pub struct Ipam {
        driver: String,
        options: Option<StringMap>,
        config: Option<Vec<IpamConfig>>,
    }

    /// One address range of a network.
    pub struct IpamConfig {
        #[serde(skip_serializing_if = "empty")]
        subnet: String,
        #[serde(rename = "IPRange", skip_serializing_if = "empty")]
        ip_range: String,
        #[serde(skip_serializing_if = "empty")]
        gateway: String,
        #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "nil_or_empty")]
        auxiliary_addresses: Option<StringMap>,
    }

    /// A container on a network.
    pub struct NetworkContainer {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        mac_address: String,
        /// With prefix length.
        #[serde(rename = "IPv4Address")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String,
    }

    /// The body of `POST /networks/create`.
    pub struct NetworkCreateRequest {
        name: String,
        driver: String,
        scope: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: Option<bool>,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: Option<bool>,
        #[serde(rename = "IPAM")]
        ipam: Option<Ipam>,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        config_from: Option<ConfigReference>,
        options: Option<StringMap>,
        labels: Option<StringMap>,
    }

    /// The answer of `POST /networks/create`.
    pub struct NetworkCreateResponse {
        id: String,
        warning: String,
    }

    /// The body of `POST /networks/{id}/connect`.
    pub struct NetworkConnectRequest {
        container: String,
        endpoint_config: Option<EndpointSettings>,
    }

    /// The body of `POST /networks/{id}/disconnect`.
    pub struct NetworkDisconnectRequest {
        container: String,
        force: bool,
    }

    /// The answer of `POST /networks/prune`.
    pub struct NetworkPruneResponse {
        networks_deleted: Option<Vec<String>>,
    }
}
