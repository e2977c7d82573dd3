//! What the daemon's flags say about networking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wharf_ipam::{AddressSpace, Cidr};
use wharf_plugin::Plugins;
use wharf_types::{IdMaps, InstanceId};

/// How this daemon does networking. Immutable.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Whose kernel objects these are.
    pub instance: InstanceId,
    /// The default bridge; `None` is `--bridge none`: containers have no default network.
    pub bridge: Option<BridgeConfig>,
    /// The name of our nftables table (family inet). Unique per daemon; default `wharf-<instance>`.
    pub table: String,
    /// Enable forwarding between interfaces if it is off (`--ip-forward`).
    pub ip_forward: bool,
    /// Write IPv4 rules (`--iptables`). Off: no NAT, no isolation; published TCP ports are relayed by the shim.
    pub iptables: bool,
    /// Write IPv6 rules (`--ip6tables`).
    pub ip6tables: bool,
    /// How many sandboxes are kept ready. 0 makes each on demand.
    pub pool_size: usize,
    /// Network and address drivers of others.
    pub plugins: Arc<Plugins>,
    /// Where subnets are cut from (`--default-address-pool`); [`AddressSpace::defaults`] unless set.
    pub spaces: Vec<AddressSpace>,
    /// The ids of containers' user namespaces (`--userns-remap`): each network namespace then belongs to one of its own.
    pub users: Option<IdMaps>,
}

impl NetworkConfig {
    /// Docker's defaults for a daemon.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            table: format!("wharf-{instance}"),
            instance,
            bridge: Some(BridgeConfig::new("docker0")),
            ip_forward: true,
            iptables: true,
            ip6tables: true,
            pool_size: 4,
            plugins: Arc::default(),
            spaces: AddressSpace::defaults(),
            users: None,
        }
    }
}

/// The default bridge network.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The link's name (`--bridge`), at most 15 bytes.
    pub name: String,
    /// Make the link if it does not exist, and remove it again at a clean close without endpoints
    /// (`--bridge-create`). `docker0` is always made, and removed only if this is set.
    pub create: bool,
    /// The bridge's own address and subnet (`--bip`). Default: the link's present address, else a free subnet.
    pub bip: Option<Cidr>,
    /// Part of the subnet from which containers get addresses (`--fixed-cidr`).
    pub fixed_cidr: Option<Cidr>,
    /// Containers' default gateway if not the bridge (`--default-gateway`).
    pub default_gateway: Option<Ipv4Addr>,
    /// Give containers IPv6 addresses (`--ipv6`).
    pub ipv6: bool,
    /// The bridge's own IPv6 address and subnet (`--bip6`).
    pub bip6: Option<Cidr>,
    /// The IPv6 subnet (`--fixed-cidr-v6`). Default with `ipv6`: a /64 of fd00::/8 derived from the instance id.
    pub fixed_cidr_v6: Option<Cidr>,
    /// Containers' IPv6 gateway if not the bridge (`--default-gateway-v6`).
    pub default_gateway_v6: Option<Ipv6Addr>,
    /// Containers may talk to each other (`--icc`).
    pub icc: bool,
    /// Outgoing traffic gets the host's address (`--ip-masq`).
    pub ip_masq: bool,
    /// Bytes; 0 is 1500.
    pub mtu: u32,
    /// The host address for published ports that name none (`--ip`). `None`: all addresses, IPv4 and IPv6.
    pub host_binding: Option<IpAddr>,
}

impl BridgeConfig {
    /// A bridge with Docker's defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            create: false,
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            ipv6: false,
            bip6: None,
            fixed_cidr_v6: None,
            default_gateway_v6: None,
            icc: true,
            ip_masq: true,
            mtu: 1500,
            host_binding: None,
        }
    }
}
