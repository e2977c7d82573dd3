//! Network drivers: `NetworkDriver.*` (moby `libnetwork/docs/remote.md`, `libnetwork/drivers/remote/api`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Plugin, PluginError};

/// What such a plugin says it implements.
pub const CAPABILITY: &str = "NetworkDriver";

/// Options of a call, by label.
pub type Options = BTreeMap<String, Value>;

/// An address range as the driver is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Range {
    /// Whose space it is cut from.
    pub address_space: String,
    /// The subnet.
    pub pool: String,
    /// The gateway with the subnet's prefix length; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses that others have, by name, with the prefix length.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// The addresses of an endpoint: those it has, and in an answer those that the driver gives it besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    /// IPv4 address and prefix length.
    pub address: String,
    /// IPv6 address and prefix length.
    #[serde(rename = "AddressIPv6")]
    pub address_v6: String,
    /// Ethernet address.
    pub mac_address: String,
}

/// A route of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StaticRoute {
    /// Destination network.
    pub destination: String,
    /// 0: by `next_hop`; 1: on the link.
    pub route_type: u8,
    /// The router.
    pub next_hop: String,
}

/// The link that the driver made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InterfaceName {
    /// Its name in the host's namespace.
    pub src_name: String,
    /// What its name in the container begins with; a number follows.
    pub dst_prefix: String,
    /// Its whole name in the container.
    pub dst_name: String,
}

/// What a container is connected with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Joined {
    /// The link, which is to be moved into the container.
    pub interface_name: InterfaceName,
    /// IPv4 gateway; empty for none.
    pub gateway: String,
    /// IPv6 gateway; empty for none.
    #[serde(rename = "GatewayIPv6")]
    pub gateway_v6: String,
    /// Routes besides.
    pub static_routes: Vec<StaticRoute>,
    /// The container needs no way out by a network of the engine's own.
    pub disable_gateway_service: bool,
}

/// A port that is to be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortMap {
    /// IP protocol number.
    pub proto: u8,
    /// The container's address; left to the driver.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The container's port.
    pub port: u16,
    /// The host's address.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// The host's port, or the first of a range; 0 for any.
    pub host_port: u16,
    /// The last of the range.
    pub host_port_end: u16,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    scope: String,
    interface: Option<Interface>,
    value: Option<Options>,
}

#[derive(Serialize)]
struct Call<'a, B> {
    #[serde(rename = "NetworkID")]
    network: &'a str,
    #[serde(rename = "EndpointID", skip_serializing_if = "str::is_empty")]
    endpoint: &'a str,
    #[serde(flatten)]
    body: B,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Create<'a> {
    options: &'a Options,
    #[serde(rename = "IPv4Data")]
    ipv4: &'a [Range],
    #[serde(rename = "IPv6Data")]
    ipv6: &'a [Range],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateEndpoint<'a> {
    interface: &'a Interface,
    options: &'a Options,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Join<'a> {
    sandbox_key: &'a str,
    options: &'a Options,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct External<'a> {
    options: &'a Options,
}

#[derive(Serialize)]
struct Nothing {}

/// A network driver behind a plugin. Names of methods are Docker's.
#[derive(Clone, Copy, Debug)]
pub struct Driver<'a>(pub &'a Plugin);

impl Driver<'_> {
    fn ask<A: serde::de::DeserializeOwned>(&self, method: &str, request: &impl Serialize) -> Result<A, PluginError> {
        crate::ask(self.0, &format!("{CAPABILITY}.{method}"), request)
    }

    fn call(&self, method: &str, network: &str, endpoint: &str, body: impl Serialize) -> Result<Answer, PluginError> {
        self.ask(method, &Call { network, endpoint, body })
    }

    /// `local` or `global`. A driver that says neither is refused, as by Docker.
    pub fn scope(&self) -> Result<String, PluginError> {
        let answer: Answer = self.ask("GetCapabilities", &Nothing {})?;
        match answer.scope.as_str() {
            scope @ ("local" | "global") => Ok(scope.to_owned()),
            other => Err(PluginError::Answer {
                method: format!("{CAPABILITY}.GetCapabilities"),
                reason: format!("invalid capability: expecting 'local' or 'global', got {other}"),
            }),
        }
    }

    /// Makes a network.
    pub fn create_network(
        &self,
        network: &str,
        options: &Options,
        ipv4: &[Range],
        ipv6: &[Range],
    ) -> Result<(), PluginError> {
        self.call("CreateNetwork", network, "", Create { options, ipv4, ipv6 }).map(drop)
    }

    /// Removes it.
    pub fn delete_network(&self, network: &str) -> Result<(), PluginError> {
        self.call("DeleteNetwork", network, "", Nothing {}).map(drop)
    }

    /// Makes an endpoint, and returns what the driver gave it of what it had not.
    pub fn create_endpoint(
        &self,
        network: &str,
        endpoint: &str,
        interface: &Interface,
        options: &Options,
    ) -> Result<Interface, PluginError> {
        let answer = self.call("CreateEndpoint", network, endpoint, CreateEndpoint { interface, options })?;
        Ok(answer.interface.unwrap_or_default())
    }

    /// Removes it.
    pub fn delete_endpoint(&self, network: &str, endpoint: &str) -> Result<(), PluginError> {
        self.call("DeleteEndpoint", network, endpoint, Nothing {}).map(drop)
    }

    /// Connects a container, whose namespace is at `sandbox`.
    pub fn join(&self, network: &str, endpoint: &str, sandbox: &str, options: &Options) -> Result<Joined, PluginError> {
        self.ask("Join", &Call { network, endpoint, body: Join { sandbox_key: sandbox, options } })
    }

    /// Takes it off.
    pub fn leave(&self, network: &str, endpoint: &str) -> Result<(), PluginError> {
        self.call("Leave", network, endpoint, Nothing {}).map(drop)
    }

    /// What the driver tells of an endpoint.
    pub fn endpoint_info(&self, network: &str, endpoint: &str) -> Result<Options, PluginError> {
        Ok(self.call("EndpointOperInfo", network, endpoint, Nothing {})?.value.unwrap_or_default())
    }

    /// Opens ports to the outside. A driver without this method has none.
    pub fn program_external(&self, network: &str, endpoint: &str, options: &Options) -> Result<(), PluginError> {
        optional(self.call("ProgramExternalConnectivity", network, endpoint, External { options }))
    }

    /// Closes them.
    pub fn revoke_external(&self, network: &str, endpoint: &str) -> Result<(), PluginError> {
        optional(self.call("RevokeExternalConnectivity", network, endpoint, Nothing {}))
    }
}

fn optional(outcome: Result<Answer, PluginError>) -> Result<(), PluginError> {
    match outcome {
        Err(PluginError::Refused { status: 404, .. }) => Ok(()),
        other => other.map(drop),
    }
}
