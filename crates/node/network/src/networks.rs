//! The daemon's networks.

use std::net::{Ipv4Addr, Ipv6Addr};

use wharf_ipam::{Cidr, MacAddress};

use crate::{Attachment, Endpoint, EndpointRequest, NetworkConfig, NetworkError};

/// The default bridge network as it is, for listing and inspecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeInfo {
    /// The link's name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// IPv4 subnet, host bits zero.
    pub subnet: Cidr,
    /// `--fixed-cidr`, if given.
    pub range: Option<Cidr>,
    /// Containers' IPv4 gateway.
    pub gateway: Ipv4Addr,
    /// IPv6 subnet, when on.
    pub subnet_v6: Option<Cidr>,
    /// Containers' IPv6 gateway, when on.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Bytes.
    pub mtu: u32,
}

/// All networks of one daemon. `Send` and `Sync`; every method takes `&self` and may be called from many threads.
pub struct Networks {}

impl Networks {
    /// Makes or finds the bridge, writes the rules for the endpoints of adopted containers, and removes links and
    /// rules that carry our instance id and that none of them owns. Touches nothing else. Starts the background
    /// thread that fills the pool and watches foreign tables.
    #[allow(clippy::unimplemented)]
    pub fn open(config: NetworkConfig, adopted: Vec<Endpoint>) -> Result<Self, NetworkError> {
        let _ = (config, adopted);
        unimplemented!()
    }

    /// The default bridge; absent with `--bridge none`.
    #[allow(clippy::unimplemented)]
    pub fn bridge(&self) -> Option<&BridgeInfo> {
        unimplemented!()
    }

    /// Gives a container a sandbox on the default bridge with its ports published. On error nothing stays.
    #[allow(clippy::unimplemented)]
    pub fn attach(&self, request: &EndpointRequest) -> Result<Attachment, NetworkError> {
        let _ = request;
        unimplemented!()
    }

    /// Withdraws the endpoint's rules at once and frees its address and ports. The link dies with the namespace, that
    /// is with the last descriptor of it. An endpoint that is not attached changes nothing.
    #[allow(clippy::unimplemented)]
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let _ = endpoint;
        unimplemented!()
    }

    /// Ends a daemon cleanly. With endpoints still attached (live restore) everything they need stays; without any,
    /// rules, tagged foreign rules and a bridge we created go.
    #[allow(clippy::unimplemented)]
    pub fn close(self) -> Result<(), NetworkError> {
        unimplemented!()
    }
}
