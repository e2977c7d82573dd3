//! Errors of networking.

use std::io;
use std::net::{IpAddr, SocketAddr};

use wharf_error::{HasKind, Kind};
use wharf_firewall::{FirewallError, Protocol};
use wharf_ipam::{NoSubnet, PoolError};
use wharf_netlink::NetlinkError;

/// Why a network operation failed. Texts that Docker's clients know are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A link operation failed.
    #[error("{action} {link}")]
    Link {
        /// What was being done, in words.
        action: &'static str,
        /// The link's name.
        link: String,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// A file of /proc or a namespace could not be used.
    #[error("{action} {subject}")]
    Io {
        /// What was being done, in words.
        action: &'static str,
        /// The file or namespace.
        subject: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The rules could not be changed.
    #[error("firewall")]
    Firewall(#[from] FirewallError),
    /// A plugin's part in it.
    #[error(transparent)]
    Plugin(#[from] wharf_plugin::PluginError),
    /// No address.
    #[error(transparent)]
    Address(#[from] PoolError),
    /// No subnet for the bridge.
    #[error(transparent)]
    Subnet(#[from] NoSubnet),
    /// The named bridge does not exist.
    #[error("bridge device with non default name {0} must be created manually")]
    NoBridge(String),
    /// The named link is no bridge.
    #[error("interface {0} is not a bridge")]
    NotABridge(String),
    /// The bridge has no address and none was configured.
    #[error("bridge {0} has no IPv4 address; give it one, or use --bip or --bridge-create")]
    NoBridgeAddress(String),
    /// A name that no link can have.
    #[error("invalid bridge name {0:?}: 1 to 15 bytes without '/', ':' or white space")]
    BridgeName(String),
    /// The configured addresses contradict each other.
    #[error("bridge {bridge}: {reason}")]
    Config {
        /// The bridge.
        bridge: String,
        /// What does not fit.
        reason: String,
    },
    /// The resolver of a namespace could not be set up.
    #[error(transparent)]
    Resolver(#[from] wharf_dns::DnsError),
    /// No such network.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// The parent of a macvlan network does not exist.
    #[error("parent interface {0} does not exist")]
    NoParent(String),
    /// The kernel does not have this kind of link.
    #[error("operation not supported")]
    Unsupported,
    /// A kernel parameter of an endpoint could not be set.
    #[error("could not set sysctl {name}")]
    Sysctl {
        /// Its name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A policy that no rule would enforce.
    #[error("an egress policy needs the firewall rules of every family that the network has (--iptables, --ip6tables)")]
    EgressRules,
    /// Packets that do not pass this host's rules.
    #[error("an egress policy needs a bridge network")]
    EgressDriver,
    /// A stored policy that this daemon cannot read: better nothing than everything.
    #[error("the egress policy cannot be read")]
    EgressUnknown,
    /// There is no default bridge (`--bridge none`).
    #[error("network bridge not found")]
    NoDefaultNetwork,
    /// A published port belongs to another container of this daemon.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): Bind for {address} failed: port is already allocated"
    )]
    PortAllocated {
        /// The container's name.
        name: String,
        /// The endpoint's id.
        endpoint: String,
        /// The address that holds the port.
        address: SocketAddr,
    },
    /// A published port cannot be bound on the host.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): failed to bind host port {}for {host}:{to}/{protocol}: {}", within(.range), lower(.errno)
    )]
    PortBind {
        /// The container's name.
        name: String,
        /// The endpoint's id.
        endpoint: String,
        /// For a range: the last port tried.
        range: Option<u16>,
        /// Host address and port or range.
        host: String,
        /// Container address and port.
        to: SocketAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// The system's answer, which is part of Docker's text.
        errno: rustix::io::Errno,
    },
    /// No port of the asked-for range is free.
    #[error("driver failed programming external connectivity on endpoint {name} ({endpoint}): all ports are allocated")]
    PortsExhausted {
        /// The container's name.
        name: String,
        /// The endpoint's id.
        endpoint: String,
    },
    /// A port is asked for on an IPv6 address only, which this container cannot serve.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): cannot publish {protocol} on {address}: the container has no address of that family"
    )]
    PortFamily {
        /// The container's name.
        name: String,
        /// The endpoint's id.
        endpoint: String,
        /// Transport protocol.
        protocol: Protocol,
        /// The host address.
        address: IpAddr,
    },
}

fn within(range: &Option<u16>) -> String {
    range.map_or_else(String::new, |port| format!("{port} "))
}

/// The texts of Go's `syscall.Errno`, which clients of Docker see.
fn lower(errno: &rustix::io::Errno) -> String {
    match *errno {
        rustix::io::Errno::ADDRINUSE => "address already in use".into(),
        rustix::io::Errno::ADDRNOTAVAIL => "cannot assign requested address".into(),
        rustix::io::Errno::ACCESS => "permission denied".into(),
        other => io::Error::from(other).to_string(),
    }
}

impl HasKind for NetworkError {
    fn kind(&self) -> Kind {
        match self {
            Self::Link { .. } | Self::Io { .. } | Self::Firewall(_) => Kind::System,
            Self::Plugin(e) => e.kind(),
            Self::Address(e) => e.kind(),
            Self::Subnet(e) => e.kind(),
            Self::NoBridge(_) | Self::NotABridge(_) | Self::NoBridgeAddress(_) => Kind::System,
            Self::BridgeName(_) | Self::Config { .. } => Kind::Invalid,
            Self::NoDefaultNetwork | Self::NoNetwork(_) => Kind::NotFound,
            Self::NoParent(_) | Self::EgressRules | Self::EgressDriver | Self::EgressUnknown => Kind::Invalid,
            Self::Unsupported | Self::Resolver(_) | Self::Sysctl { .. } => Kind::System,
            Self::PortAllocated { .. } | Self::PortBind { .. } => Kind::System,
            Self::PortsExhausted { .. } | Self::PortFamily { .. } => Kind::System,
        }
    }
}
