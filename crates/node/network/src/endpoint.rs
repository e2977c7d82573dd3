//! A container's place in a network: what is asked for, what is remembered, what the shim gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use wharf_firewall::Protocol;
use wharf_ipam::{Cidr, MacAddress};
use wharf_types::ContainerId;

use crate::{Egress, Rate};

/// One published port or range, as asked for. A `-p 8000-8010:80-90` is eleven of these, each with one host port;
/// `-p 8000-8010:80` is one with a range from which the first free port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRequest {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container; not 0.
    pub container_port: u16,
    /// Host address; absent means the bridge's default binding, else all addresses of both families.
    pub host_ip: Option<IpAddr>,
    /// First host port; 0 means any of the host's ephemeral range (`net.ipv4.ip_local_port_range`).
    pub host_port: u16,
    /// Last host port; equal to `host_port` for a single one.
    pub host_port_end: u16,
}

/// A wish for an endpoint on the default bridge.
#[derive(Clone, Debug)]
pub struct EndpointRequest {
    /// The container. Part of the link's alias.
    pub container: ContainerId,
    /// The container's name without slash, for messages.
    pub name: String,
    /// `--mac-address`; otherwise random.
    pub mac: Option<MacAddress>,
    /// What to publish.
    pub ports: Vec<PortRequest>,
}

/// A published port as it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BoundPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Host address; unspecified (`0.0.0.0`, `::`) for all of that family.
    pub host_ip: IpAddr,
    /// Port on the host.
    pub host_port: u16,
}

/// A wish for an endpoint on any network, in a namespace that the container has.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// The network: [`crate::DEFAULT_NETWORK`] or an id.
    pub network: String,
    /// The link's name in the container.
    pub link: String,
    /// That name was asked for; otherwise a plugin may have another.
    pub named: bool,
    /// Driver options of the endpoint, for plugins.
    pub options: BTreeMap<String, String>,
    /// The sandbox's id, the same for all endpoints of a container.
    pub sandbox: String,
    /// The Ethernet address; otherwise it follows from the IP address.
    pub mac: Option<MacAddress>,
    /// This IPv4 address, and no other.
    pub ipv4: Option<Ipv4Addr>,
    /// This IPv6 address, and no other.
    pub ipv6: Option<Ipv6Addr>,
    /// Link-local addresses to have besides.
    pub link_local: Vec<IpAddr>,
    /// Kernel parameters of the link: names as `net.ipv4.conf.IFNAME.log_martians`, and values.
    pub sysctls: Vec<(String, String)>,
    /// What may be reached outside of the network; everything if absent.
    pub egress: Option<Egress>,
    /// How fast it may receive.
    pub rate_in: Option<Rate>,
    /// How fast it may send.
    pub rate_out: Option<Rate>,
}

/// An endpoint that exists. Everything that a later daemon must know about it, so the engine stores it with the
/// container and hands it to [`crate::Networks::open`] when it adopts the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits, made here.
    pub id: String,
    /// The network: [`crate::DEFAULT_NETWORK`] or an id.
    pub network: String,
    /// Identifies the sandbox: 64 hexadecimal digits, made here.
    pub sandbox: String,
    /// The container.
    pub container: ContainerId,
    /// The link on the host; empty for macvlan, whose links are in the container only.
    pub host_link: String,
    /// The link's name in the container: `eth0`.
    pub link: String,
    /// The Ethernet address.
    pub mac: MacAddress,
    /// Address and subnet's prefix length; absent only on networks without IPv4.
    pub ipv4: Option<Cidr>,
    /// The IPv4 gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Address and prefix length, when the network has IPv6.
    pub ipv6: Option<Cidr>,
    /// The IPv6 gateway.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Published ports, ordered. One without host port is reached by the container's own address only.
    pub ports: Vec<BoundPort>,
    /// What may be reached outside of the network; everything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// The name under which a plugin made the link; empty for our own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// A plugin was told to open its ports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub programmed: bool,
}

/// A listening socket whose connections the shim relays to the container: for clients that NAT cannot serve (`::1`,
/// IPv6 clients of an IPv4-only container, all when rules are switched off).
#[derive(Debug)]
pub struct Relay {
    /// The listening TCP socket, or bound UDP socket.
    pub fd: OwnedFd,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where to connect to.
    pub to: SocketAddr,
}

/// Sockets that go with published ports.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Sockets that keep the published ports reserved while the shim holds them.
    pub hold: Vec<OwnedFd>,
    /// Sockets that the shim serves.
    pub relays: Vec<Relay>,
}

/// What [`crate::Networks::attach`] made.
#[derive(Debug)]
pub struct Attachment {
    /// To be remembered.
    pub endpoint: Endpoint,
    /// The network namespace for the container, with loopback up and these sysctls set as Docker does:
    /// `net.ipv4.ip_unprivileged_port_start=0`, `net.ipv4.ping_group_range=0 2147483647`.
    pub netns: OwnedFd,
    /// The sockets of its published ports.
    pub sockets: Sockets,
}
