//! The networks as clients see them: `bridge`, `host` and `none`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_api_types::{Filters, Ipam, IpamConfig, Network, NetworkContainer, NetworkPruneResponse, StringMap};
use wharf_network::Networks;
use wharf_types::{InstanceId, Timestamp};

use crate::EngineError;
use crate::config::EngineConfig;
use crate::container::Registry;

/// An id that is the same whenever this engine runs and that no other engine has: the name, hashed with the instance
/// id by FNV-1a in four rounds. It identifies and protects nothing.
pub(crate) fn fixed_id(instance: &InstanceId, name: &str) -> String {
    digits(instance.as_str(), name)
}

pub(crate) fn digits(instance: &str, name: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for round in 0..4_u8 {
        for byte in instance.bytes().chain(name.bytes()).chain([round]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{hash:016x}");
    }
    text
}

/// The networks of one engine.
pub struct NetworkList {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) created: Timestamp,
}

impl NetworkList {
    fn network(&self, name: &str, driver: &str) -> Network {
        Network {
            name: name.to_owned(),
            id: fixed_id(&self.config.instance, name),
            created: self.created,
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            ipam: Ipam { driver: "default".to_owned(), options: None, config: None },
            options: Some(StringMap::new()),
            labels: Some(StringMap::new()),
            ..Network::default()
        }
    }

    fn bridge(&self) -> Option<Network> {
        let info = self.networks.bridge()?;
        let mut network = self.network("bridge", "bridge");
        let mut ranges = vec![IpamConfig {
            subnet: info.subnet.to_string(),
            ip_range: info.range.map(|r| r.to_string()).unwrap_or_default(),
            gateway: info.gateway.to_string(),
            auxiliary_addresses: None,
        }];
        if let Some(subnet) = info.subnet_v6 {
            network.enable_ipv6 = true;
            ranges.push(IpamConfig {
                subnet: subnet.to_string(),
                gateway: info.gateway_v6.map(|g| g.to_string()).unwrap_or_default(),
                ..IpamConfig::default()
            });
        }
        network.ipam.config = Some(ranges);
        let options = [
            ("com.docker.network.bridge.default_bridge", "true".to_owned()),
            ("com.docker.network.bridge.enable_icc", self.config.icc.to_string()),
            ("com.docker.network.bridge.enable_ip_masquerade", self.config.ip_masq.to_string()),
            ("com.docker.network.bridge.host_binding_ipv4", self.config.host_binding.clone()),
            ("com.docker.network.bridge.name", info.name.clone()),
            ("com.docker.network.driver.mtu", info.mtu.to_string()),
        ];
        network.options = Some(options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        Some(network)
    }

    fn all(&self) -> Vec<Network> {
        let mut list = vec![self.network("none", "null"), self.network("host", "host")];
        list.extend(self.bridge());
        list
    }

    fn containers(&self, name: &str) -> BTreeMap<String, NetworkContainer> {
        let mut map = BTreeMap::new();
        for container in self.registry.all() {
            let view = container.view();
            if view.task.is_none() || view.record.host.network_mode != name {
                continue;
            }
            let endpoint = view.endpoint.as_deref();
            let text = |cidr: Option<wharf_network::Cidr>| cidr.map(|c| c.to_string()).unwrap_or_default();
            let entry = NetworkContainer {
                name: view.record.name.clone(),
                endpoint_id: endpoint.map(|e| e.id.clone()).unwrap_or_default(),
                mac_address: endpoint.map(|e| e.mac.to_string()).unwrap_or_default(),
                ipv4_address: text(endpoint.and_then(|e| e.ipv4)),
                ipv6_address: text(endpoint.and_then(|e| e.ipv6)),
            };
            map.insert(container.id.to_string(), entry);
        }
        map
    }

    /// Lists.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Network>, EngineError> {
        filters.check_keys(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        if let Some(other) = filters.get("type").find(|v| !matches!(*v, "builtin" | "custom")) {
            return Err(EngineError::NetworkType(other.to_owned()));
        }
        let dangling = filters.contains("dangling").then(|| filters.bool_or("dangling", false)).transpose()?;
        let any =
            |key: &str, test: &dyn Fn(&str) -> bool| filters.get(key).next().is_none() || filters.get(key).any(test);
        let none = StringMap::new();
        let fits = |n: &Network| {
            any("name", &|v| n.name.contains(v))
                && any("id", &|v| n.id.starts_with(v))
                && any("type", &|v| v == "builtin")
                && filters.match_exact("driver", &n.driver)
                && filters.match_exact("scope", &n.scope)
                && filters.match_labels("label", &none)
                // The built-in networks never dangle.
                && dangling != Some(true)
        };
        Ok(self.all().into_iter().filter(fits).collect())
    }

    /// Finds a network by name, id or prefix of an id.
    fn find(&self, name: &str) -> Result<Network, EngineError> {
        let all = self.all();
        let exact = all.iter().find(|n| n.name == name || n.id == name);
        let prefixed = || all.iter().find(|n| !name.is_empty() && n.id.starts_with(name));
        exact.or_else(prefixed).cloned().ok_or_else(|| EngineError::NoNetwork(name.to_owned()))
    }

    /// Shows one with its containers.
    pub fn inspect(&self, name: &str) -> Result<Network, EngineError> {
        let network = self.find(name)?;
        Ok(Network { containers: self.containers(&network.name), ..network })
    }

    /// Refuses: the built-in networks stay.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        Err(EngineError::NetworkPredefined(self.find(name)?.name))
    }

    /// Removes unused networks: there are none but the built-in ones.
    pub fn prune(&self, filters: &Filters) -> Result<NetworkPruneResponse, EngineError> {
        filters.check_keys(&["label", "label!", "until"])?;
        Ok(NetworkPruneResponse { networks_deleted: None })
    }
}
