//! Sandboxes, pool, bridge driver, published ports, resolv.conf and hosts.
//!
//! Synchronous: the engine calls it from blocking threads. A sandbox is a network namespace that this process and
//! then the shim hold by descriptor; nothing is mounted, so a killed process leaves none behind. [`Networks`] keeps a
//! few sandboxes ready (namespace, link, address, route), so that [`Networks::attach`] only takes one and adds the
//! published ports as elements of nftables maps.

mod addresses;
mod bridge;
mod config;
mod create;
mod egress;
mod endpoint;
mod error;
mod hosts;
mod join;
mod links;
mod netns;
mod networks;
mod ports;
mod publish;
mod random;
mod rate;
mod remote;
mod resolv;
mod resolver;
mod sandbox;
mod solitude;
mod spec;
mod state;
mod sysctl;
mod worker;
mod zones;

pub use addresses::{PluginPool, PoolRequest};
pub use config::{BridgeConfig, NetworkConfig};
pub use egress::{Allowed, Egress, EgressError, Refusal, Target};
pub use endpoint::{Attachment, BoundPort, Endpoint, EndpointRequest, JoinRequest, PortRequest, Relay, Sockets};
pub use error::NetworkError;
pub use hosts::{HostsEntry, hosts_file};
pub use networks::{BridgeInfo, Networks};
pub use rate::{Rate, RateError};
pub use resolv::{ResolvMode, ResolvOptions, Server, resolv_conf, resolv_conf_path, upstreams};
pub use spec::{
    Addressing, BridgeDriver, DEFAULT_NETWORK, Driver, MacvlanDriver, NetworkSpec, RemoteDriver, Subnet, macvlan_mode,
};
pub use wharf_firewall::{GatewayMode, Protocol};
pub use wharf_ipam::{Cidr, MacAddress};
pub use wharf_netlink::route::MacvlanMode;
pub use zones::FirewalldState;
