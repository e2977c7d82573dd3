//! All networks by id and name.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use wharf_api_types::{IpamConfig, StringMap};
use wharf_metadata::Store;
use wharf_network::{BridgeInfo, NetworkSpec};
use wharf_types::Timestamp;

use super::NetworkRecord;
use super::list::digits;
use crate::EngineError;
use crate::config::EngineConfig;

/// The networks that exist, built-in ones included.
pub(crate) struct Catalog {
    /// By id.
    known: RwLock<BTreeMap<String, Arc<NetworkRecord>>>,
}

impl Catalog {
    /// Reads the stored networks.
    pub(crate) fn open(store: &Store) -> Result<Catalog, EngineError> {
        let stored = store.view()?.all::<NetworkRecord>()?;
        Ok(Catalog { known: RwLock::new(stored.into_iter().map(|(id, r)| (id, Arc::new(r))).collect()) })
    }

    /// What the network crate needs to make of them.
    pub(crate) fn specs(&self) -> Vec<NetworkSpec> {
        self.all().iter().filter_map(|r| r.spec.clone()).collect()
    }

    /// Adds the built-in networks.
    pub(crate) fn add_builtin(&self, config: &EngineConfig, bridge: Option<&BridgeInfo>) {
        let record = |name: &str, driver: &str| NetworkRecord {
            id: digits(config.instance.as_str(), name),
            name: name.to_owned(),
            created: Timestamp::now(),
            driver: driver.to_owned(),
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            config_only: false,
            config_from: String::new(),
            ipam_driver: String::new(),
            scope: String::new(),
            ipam_options: None,
            ranges: None,
            own_ranges: false,
            options: StringMap::new(),
            labels: StringMap::new(),
            spec: None,
        };
        self.add(record("none", "null"));
        self.add(record("host", "host"));
        if let Some(info) = bridge {
            self.add(default_bridge(record("bridge", "bridge"), config, info));
        }
    }

    pub(crate) fn add(&self, record: NetworkRecord) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(record.id.clone(), Arc::new(record));
    }

    pub(crate) fn forget(&self, id: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<NetworkRecord>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Finds a network by name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<NetworkRecord>> {
        let name = if name == "default" { "bridge" } else { name };
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().find(|r| r.name == name).cloned()
    }

    /// Finds a network as clients name it: id, name, unique prefix of an id (moby `FindNetwork`).
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<NetworkRecord>, EngineError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(exact) = known.get(reference) {
            return Ok(exact.clone());
        }
        if let Some(named) = known.values().find(|r| r.name == reference) {
            return Ok(named.clone());
        }
        let mut prefixed = known.values().filter(|r| !reference.is_empty() && r.id.starts_with(reference));
        match (prefixed.next(), prefixed.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(EngineError::NetworkAmbiguous(reference.to_owned())),
            (None, _) => Err(EngineError::NoNetwork(reference.to_owned())),
        }
    }
}

fn default_bridge(mut record: NetworkRecord, config: &EngineConfig, info: &BridgeInfo) -> NetworkRecord {
    let mut ranges = vec![IpamConfig {
        subnet: info.subnet.to_string(),
        ip_range: info.range.map(|r| r.to_string()).unwrap_or_default(),
        gateway: info.gateway.to_string(),
        auxiliary_addresses: None,
    }];
    if let Some(subnet) = info.subnet_v6 {
        record.ipv6 = true;
        ranges.push(IpamConfig {
            subnet: subnet.to_string(),
            gateway: info.gateway_v6.map(|g| g.to_string()).unwrap_or_default(),
            ..IpamConfig::default()
        });
    }
    record.ranges = Some(ranges);
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", config.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", config.ip_masq.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", config.host_binding.clone()),
        ("com.docker.network.bridge.name", info.name.clone()),
        ("com.docker.network.driver.mtu", info.mtu.to_string()),
    ];
    record.options = options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    record
}
