//! What plugins have to say when a network is made.

use wharf_api_types::IpamConfig;
use wharf_network::{PoolRequest, Subnet};

use super::{NetworkList, NetworkRecord};
use crate::{EngineError, blocking};

impl NetworkList {
    /// Asks the driver, if a plugin is it, for its scope, and the address manager, if a plugin is it, for pools.
    pub(super) async fn ask_plugins(&self, record: &mut NetworkRecord) -> Result<Vec<Subnet>, EngineError> {
        let remote = !matches!(record.driver.as_str(), "bridge" | "macvlan");
        if remote {
            let (networks, driver) = (self.networks.clone(), record.driver.clone());
            let scope = blocking(move || networks.driver_scope(&driver)).await??;
            if scope != "local" {
                record.scope = scope;
            }
        }
        match record.ipam_driver.as_str() {
            "" => return Ok(Vec::new()),
            "null" if record.own_ranges => return Err(EngineError::NetworkNullRange),
            "null" if !remote => return Err(EngineError::NetworkEmptyPool(if record.ipv4 { 4 } else { 6 })),
            "null" => return Ok(Vec::new()),
            _ => {}
        }
        let wanted = pool_requests(record);
        let networks = self.networks.clone();
        let asked = blocking(move || {
            let mut pools = Vec::new();
            for request in &wanted {
                match networks.request_pool(request) {
                    Ok(pool) => pools.push(pool),
                    Err(e) => {
                        networks.release_pools(&request.driver, &pools);
                        return Err(e);
                    }
                }
            }
            Ok(pools)
        });
        Ok(asked.await??)
    }

    /// Gives pools of a network that was not made back to the plugin that they are from.
    pub(super) async fn release_pools(&self, record: &NetworkRecord, pools: Vec<Subnet>) {
        if pools.iter().all(|p| p.pool.is_none()) {
            return;
        }
        let (networks, driver) = (self.networks.clone(), record.ipam_driver.clone());
        if let Err(error) = blocking(move || networks.release_pools(&driver, &pools)).await {
            tracing::warn!(%error, "cannot give address pools back");
        }
    }
}

/// One request for each range that was asked for, and for each family without.
fn pool_requests(record: &NetworkRecord) -> Vec<PoolRequest> {
    let mut requests = Vec::new();
    for (ipv6, wanted) in [(false, record.ipv4), (true, record.ipv6)] {
        if !wanted {
            continue;
        }
        let of_family = |r: &&IpamConfig| r.subnet.contains(':') == ipv6 && !r.subnet.is_empty();
        let mut given: Vec<IpamConfig> = record.ranges.iter().flatten().filter(of_family).cloned().collect();
        if given.is_empty() {
            given.push(IpamConfig::default());
        }
        requests.extend(given.into_iter().map(|range| {
            PoolRequest {
                driver: record.ipam_driver.clone(),
                options: record.ipam_options.clone().unwrap_or_default(),
                subnet: range.subnet,
                range: range.ip_range,
                gateway: range.gateway,
                taken: range
                    .auxiliary_addresses
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, a)| Some((name, a.parse().ok()?)))
                    .collect(),
                ipv6,
                no_gateway: record.options.values().any(|v| v == "isolated"),
            }
        }));
    }
    requests
}

/// A plugin's pool as clients see it where they asked for none.
pub(super) fn as_shown(subnet: &Subnet) -> IpamConfig {
    IpamConfig {
        subnet: subnet.subnet.to_string(),
        gateway: subnet.gateway.map(|g| g.to_string()).unwrap_or_default(),
        ..IpamConfig::default()
    }
}
