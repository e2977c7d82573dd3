//! Addresses of networks whose addresses a plugin hands out (`IpamDriver`). Every call blocks and is made without a lock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use wharf_ipam::{Cidr, MacAddress};
use wharf_plugin::PluginError;
use wharf_plugin::ipam::{CAPABILITY, Driver, Options};

use crate::networks::{Networks, Shared, lock};
use crate::publish::addresses;
use crate::spec::{Addressing, NetworkSpec, Subnet};
use crate::{Endpoint, NetworkError, random};

const KIND: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
const MAC: &str = "com.docker.network.endpoint.macaddress";

/// A pool that a plugin keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginPool {
    /// Its name.
    pub id: String,
    /// The space that it is cut from.
    pub space: String,
    /// The plugin wants an endpoint's Ethernet address with each request.
    pub needs_mac: bool,
    /// The plugin has to be asked again after a start for what we have.
    pub needs_replay: bool,
}

/// What is asked of a plugin: texts that are empty mean any.
#[derive(Clone, Debug, Default)]
pub struct PoolRequest {
    /// The plugin.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
    /// The subnet.
    pub subnet: String,
    /// The part of it from which addresses are handed out.
    pub range: String,
    /// The gateway.
    pub gateway: String,
    /// Addresses that others have, by name.
    pub taken: BTreeMap<String, IpAddr>,
    /// Of IPv6.
    pub ipv6: bool,
    /// No gateway is needed.
    pub no_gateway: bool,
}

/// IPv4, IPv6 and Ethernet address of an endpoint.
pub(crate) type Given = (Option<Cidr>, Option<Cidr>, Option<MacAddress>);

fn wrong(method: &str, text: &str) -> NetworkError {
    PluginError::Answer { method: format!("{CAPABILITY}.{method}"), reason: format!("invalid address {text:?}") }.into()
}

fn cidr(method: &str, text: &str, ipv6: bool) -> Result<Cidr, NetworkError> {
    text.parse::<Cidr>().ok().filter(|c| c.is_ipv6() == ipv6).ok_or_else(|| wrong(method, text))
}

impl Networks {
    /// Takes a pool of a plugin, with its gateway and the addresses that others have. On error nothing stays.
    pub fn request_pool(&self, request: &PoolRequest) -> Result<Subnet, NetworkError> {
        let plugin = self.shared.config.plugins.get(&request.driver, CAPABILITY)?;
        let driver = Driver(&plugin);
        let needs = driver.capabilities()?;
        let space = driver.address_space()?;
        let PoolRequest { subnet, range, options, ipv6, .. } = request;
        let pool = driver.request_pool(&space, subnet, range, options, *ipv6)?;
        let made = || {
            let subnet = cidr("RequestPool", &pool.subnet, *ipv6)?.network();
            let offered = pool.data.as_ref().and_then(|d| d.get(GATEWAY)).cloned();
            let gateway = match offered.filter(|_| request.gateway.is_empty()) {
                _ if request.no_gateway && request.gateway.is_empty() => None,
                Some(offered) => Some(cidr("RequestPool", &offered, *ipv6)?.address()),
                None => {
                    let options: Options = [(KIND.to_owned(), GATEWAY.to_owned())].into();
                    let given = driver.request_address(&pool.id, &request.gateway, &options)?;
                    Some(cidr("RequestAddress", &given, *ipv6)?.address())
                }
            };
            for address in request.taken.values() {
                driver.request_address(&pool.id, &address.to_string(), &Options::new())?;
            }
            let range = request.range.parse().ok();
            let pool = PluginPool {
                id: pool.id.clone(),
                space: space.clone(),
                needs_mac: needs.needs_mac,
                needs_replay: needs.needs_replay,
            };
            Ok(Subnet { subnet, range, gateway, taken: request.taken.clone(), pool: Some(pool) })
        };
        made().inspect_err(|_: &NetworkError| {
            if let Err(error) = driver.release_pool(&pool.id) {
                tracing::warn!(%error, "cannot give an address pool back");
            }
        })
    }

    /// Gives pools of a plugin back, with what [`Networks::request_pool`] took of them. Failures are logged: nobody can
    /// do anything about them.
    pub fn release_pools(&self, driver: &str, subnets: &[Subnet]) {
        let plugin = match self.shared.config.plugins.get(driver, CAPABILITY) {
            Ok(plugin) => plugin,
            Err(error) => return tracing::warn!(driver, %error, "cannot give address pools back"),
        };
        for subnet in subnets {
            let Some(pool) = &subnet.pool else { continue };
            let own = subnet.gateway.iter().chain(subnet.taken.values());
            let mut outcomes: Vec<_> = own.map(|a| Driver(&plugin).release_address(&pool.id, &a.to_string())).collect();
            outcomes.push(Driver(&plugin).release_pool(&pool.id));
            for error in outcomes.into_iter().filter_map(Result::err) {
                tracing::warn!(driver, %error, "cannot give an address pool back");
            }
        }
    }
}

impl Shared {
    /// Takes an address of each family from a plugin, and the Ethernet address that goes with them if it wants one.
    pub(crate) fn take_of_plugin(
        &self,
        spec: &NetworkSpec,
        wanted: (Option<Ipv4Addr>, Option<Ipv6Addr>),
        mac: Option<MacAddress>,
    ) -> Result<Given, NetworkError> {
        let Addressing::Plugin(name) = &spec.addressing else { return Ok((None, None, mac)) };
        let plugin = self.config.plugins.get(name, CAPABILITY)?;
        let needs_mac = spec.subnets.iter().any(|s| s.pool.as_ref().is_some_and(|p| p.needs_mac));
        let mac = if needs_mac && mac.is_none() { Some(random::mac()?) } else { mac };
        let mut options = Options::new();
        if let (true, Some(mac)) = (needs_mac, mac) {
            options.insert(MAC.to_owned(), mac.to_string());
        }
        let mut got: [Option<Cidr>; 2] = [None, None];
        for (six, wanted) in [(false, wanted.0.map(IpAddr::V4)), (true, wanted.1.map(IpAddr::V6))] {
            let Some(subnet) = spec.subnet(six) else { continue };
            let Some(pool) = &subnet.pool else { continue };
            let text = wanted.map(|a| a.to_string()).unwrap_or_default();
            let given = Driver(&plugin)
                .request_address(&pool.id, &text, &options)
                .map_err(NetworkError::from)
                .and_then(|text| cidr("RequestAddress", &text, six));
            match given {
                Ok(address) => got[usize::from(six)] = Some(address),
                Err(e) => {
                    self.give_back_to_plugin(spec, got.iter().flatten().map(Cidr::address));
                    return Err(e);
                }
            }
        }
        Ok((got[0], got[1], mac))
    }

    /// Gives addresses back. Failures are logged.
    pub(crate) fn give_back_to_plugin(&self, spec: &NetworkSpec, addresses: impl Iterator<Item = IpAddr>) {
        let Addressing::Plugin(name) = &spec.addressing else { return };
        for address in addresses {
            let pool = spec.subnet(address.is_ipv6()).and_then(|s| s.pool.as_ref());
            let Some(pool) = pool else { continue };
            let plugin = self.config.plugins.get(name, CAPABILITY);
            let given = plugin.and_then(|p| Driver(&p.hurried()).release_address(&pool.id, &address.to_string()));
            if let Err(error) = given {
                tracing::warn!(driver = name, %address, %error, "cannot give an address back");
            }
        }
    }

    /// Asks plugins that forget again for the pools and addresses that there are.
    pub(crate) fn replay(&self) {
        let (specs, endpoints) = {
            let state = lock(&self.state);
            let specs: Vec<NetworkSpec> = state.nets.values().filter_map(|n| n.spec.clone()).collect();
            (specs, state.endpoints.values().cloned().collect::<Vec<_>>())
        };
        for spec in &specs {
            let Addressing::Plugin(name) = &spec.addressing else { continue };
            if !spec.subnets.iter().any(|s| s.pool.as_ref().is_some_and(|p| p.needs_replay)) {
                continue;
            }
            if let Err(error) = self.replay_one(name, spec, &endpoints) {
                tracing::warn!(driver = name, network = spec.id, %error, "cannot ask again for addresses");
            }
        }
    }

    fn replay_one(&self, name: &str, spec: &NetworkSpec, endpoints: &[Endpoint]) -> Result<(), NetworkError> {
        let plugin = self.config.plugins.get(name, CAPABILITY)?;
        let driver = Driver(&plugin);
        for subnet in &spec.subnets {
            let Some(pool) = &subnet.pool else { continue };
            let range = subnet.range.map(|r| r.to_string()).unwrap_or_default();
            let six = subnet.subnet.is_ipv6();
            driver.request_pool(&pool.space, &subnet.subnet.to_string(), &range, &Options::new(), six)?;
            let of_endpoints = endpoints.iter().filter(|e| e.network == spec.id).flat_map(addresses);
            let all = subnet.gateway.iter().chain(subnet.taken.values()).copied().chain(of_endpoints);
            for address in all.filter(|a| a.is_ipv6() == six) {
                driver.request_address(&pool.id, &address.to_string(), &Options::new())?;
            }
        }
        Ok(())
    }
}
