//! A running container's place in its networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_network::{BoundPort, Endpoint};

/// What a later daemon must know of a running container's networks; stored beside its task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// 64 hexadecimal digits.
    pub id: String,
    /// By network name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Whether the shim holds the sockets of the resolver.
    #[serde(default)]
    pub resolver: bool,
    /// The numbers of the resolver's sockets in the shim (UDP, TCP), if it got them while the container ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver_at: Option<(i32, i32)>,
    /// Published ports that lead nowhere at the moment: the container is on no network with a way out. The shim goes on to
    /// hold their sockets.
    #[serde(default)]
    pub parked: Vec<BoundPort>,
}

impl Sandbox {
    /// All published ports.
    pub fn ports(&self) -> impl Iterator<Item = &BoundPort> {
        self.endpoints.values().flat_map(|e| &e.ports)
    }

    /// The networks whose gateways are the default routes of IPv4 and of IPv6: the highest priority, then the first by
    /// name (moby `getGatewayEndpoint`).
    pub fn gateways(&self, priority: impl Fn(&str) -> i64) -> (Option<&str>, Option<&str>) {
        let best = |has: &dyn Fn(&Endpoint) -> bool| {
            let candidates = self.endpoints.iter().filter(|(_, e)| has(e));
            candidates.max_by_key(|(name, _)| (priority(name), std::cmp::Reverse(*name))).map(|(name, _)| name.as_str())
        };
        (best(&|e| e.gateway.is_some()), best(&|e| e.gateway_v6.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(gateway: bool) -> Endpoint {
        Endpoint {
            id: String::new(),
            network: String::new(),
            sandbox: String::new(),
            container: wharf_types::ContainerId::from_bytes([0; 32]),
            host_link: String::new(),
            link: String::new(),
            mac: "02:00:00:00:00:01".parse().expect("valid"),
            ipv4: None,
            gateway: gateway.then(|| [10, 0, 0, 1].into()),
            ipv6: None,
            gateway_v6: None,
            ports: Vec::new(),
            egress: None,
            source: String::new(),
            programmed: false,
        }
    }

    #[test]
    fn the_default_route_is_of_the_highest_priority_then_the_first_name_and_never_internal() {
        let mut sandbox = Sandbox::default();
        for (name, gateway) in [("a-internal", false), ("b", true), ("c", true)] {
            sandbox.endpoints.insert(name.to_owned(), endpoint(gateway));
        }
        assert_eq!(sandbox.gateways(|_| 0), (Some("b"), None));
        assert_eq!(sandbox.gateways(|n| i64::from(n == "c")).0, Some("c"));
        assert_eq!(sandbox.gateways(|n| -i64::from(n == "b")).0, Some("c"));
    }
}
