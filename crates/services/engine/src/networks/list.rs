//! Listing and inspecting networks.

use std::collections::BTreeMap;

use wharf_api_types::{ConfigReference, Filters, Ipam, Network, NetworkContainer};

use super::{NetworkList, NetworkRecord};
use crate::EngineError;

/// 64 digits that are the same for the same instance and name, and that no other engine has: FNV-1a in four rounds.
/// They identify and protect nothing.
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

fn describe(record: &NetworkRecord) -> Network {
    Network {
        name: record.name.clone(),
        id: record.id.clone(),
        created: record.created,
        scope: record.scope().to_owned(),
        driver: record.driver.clone(),
        enable_ipv4: record.ipv4,
        enable_ipv6: record.ipv6,
        ipam: Ipam {
            driver: record.ipam_driver().to_owned(),
            options: record.ipam_options.clone(),
            config: record.ranges.clone(),
        },
        internal: record.internal,
        attachable: record.attachable,
        config_from: ConfigReference { network: record.config_from.clone() },
        config_only: record.config_only,
        options: Some(record.options.clone()),
        labels: Some(record.labels.clone()),
        ..Network::default()
    }
}

impl NetworkList {
    /// The running containers on a network.
    pub(super) fn containers(&self, network: &NetworkRecord) -> BTreeMap<String, NetworkContainer> {
        let mut map = BTreeMap::new();
        for container in self.registry.all() {
            let view = container.view();
            if view.task.is_none() {
                continue;
            }
            let endpoint = view.sandbox.as_ref().and_then(|s| s.endpoints.get(&network.name));
            if endpoint.is_none() && view.record.host.network_mode != network.name {
                continue;
            }
            if endpoint.is_none() && view.sandbox.is_some() {
                continue;
            }
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
        let fits = |n: &NetworkRecord| {
            let kind = if n.is_builtin() { "builtin" } else { "custom" };
            any("name", &|v| n.name.contains(v))
                && any("id", &|v| n.id.starts_with(v))
                && any("type", &|v| v == kind)
                && filters.match_exact("driver", &n.driver)
                && filters.match_exact("scope", n.scope())
                && filters.match_labels("label", &n.labels)
                // The built-in networks never dangle.
                && dangling.is_none_or(|d| d == (!n.is_builtin() && self.containers(n).is_empty()))
        };
        Ok(self.catalog.all().iter().filter(|n| fits(n)).map(|n| describe(n)).collect())
    }

    /// Shows one with its containers.
    pub fn inspect(&self, name: &str) -> Result<Network, EngineError> {
        let record = self.catalog.find(name)?;
        // Ours: what keeps this network from the outside, where rules do.
        let ruled = record.driver == "bridge";
        let firewall_backend = ruled.then(|| crate::system::firewall(&self.networks));
        Ok(Network { containers: self.containers(&record), firewall_backend, ..describe(&record) })
    }
}
