//! Making and removing user-defined networks.

use wharf_ipam::{AddressSpace, Cidr, choose_subnet};

use crate::links;
use crate::networks::{Networks, lock};
use crate::spec::{Addressing, Driver, NetworkSpec};
use crate::state::Net;
use crate::{NetworkError, bridge};

impl Networks {
    /// Finds a subnet that no network of ours and nothing on the host uses: of the configured spaces for IPv4, of a
    /// unique local network (RFC 4193) whose global id is the instance id for IPv6.
    pub fn free_subnet(&self, ipv6: bool) -> Result<Cidr, NetworkError> {
        let shared = &self.shared;
        let mut host = lock(&shared.host);
        let all =
            wharf_netlink::route::addresses(&mut host).map_err(bridge::link_failed("reading addresses of", "host"))?;
        let mut taken = bridge::taken(&all, &mut host)?;
        drop(host);
        taken.extend(self.subnets());
        let mut spaces: Vec<AddressSpace> =
            shared.config.spaces.iter().filter(|s| s.base.is_ipv6() == ipv6).copied().collect();
        if ipv6 && spaces.is_empty() {
            let base = bridge::unique_local(&shared.config.instance, 48);
            spaces.push(AddressSpace { base, size: 64 });
        }
        Ok(choose_subnet(&spaces, &taken)?)
    }

    /// The subnets of all networks.
    pub fn subnets(&self) -> Vec<Cidr> {
        let state = lock(&self.shared.state);
        let of_specs = state.nets.values().filter_map(|n| n.spec.as_ref()).flat_map(|s| &s.subnets).map(|s| s.subnet);
        let of_default = self.shared.bridge.iter().flat_map(|b| [Some(b.info.subnet), b.info.subnet_v6]).flatten();
        of_specs.chain(of_default).collect()
    }

    /// Whether the host has a link of this name.
    pub fn has_link(&self, name: &str) -> bool {
        wharf_netlink::route::link(&mut lock(&self.shared.host), wharf_netlink::route::Which::Name(name)).is_ok()
    }

    /// Makes a network: its link and its rules. On error nothing stays.
    pub fn create(&self, spec: &NetworkSpec) -> Result<(), NetworkError> {
        let shared = &self.shared;
        if matches!(spec.driver, Driver::Bridge(_)) && shared.config.ip_forward {
            let (four, six) = bridge::enable_forwarding(spec.subnet(true).is_some())?;
            if let Some(rules) = &shared.rules {
                let drop_rest = &mut lock(&rules.written).wish.drop_rest;
                drop_rest.ipv4 |= four && rules.families.ipv4;
                drop_rest.ipv6 |= six && rules.families.ipv6;
            }
        }
        shared.create_remote(spec)?;
        let (base, _) = links::open(&shared.config, spec, &mut lock(&shared.host))?;
        let made = Net::new(spec.clone(), base).and_then(|net| {
            lock(&shared.state).nets.insert(spec.id.clone(), net);
            shared.change_rules()?;
            if shared.rules.as_ref().is_some_and(|r| r.families.ipv4) { links::allow_loopback(spec) } else { Ok(()) }
        });
        if let Err(e) = made {
            if let Err(error) = self.remove(&spec.id) {
                tracing::warn!(%error, "cannot take back a network that was not made");
            }
            return Err(e);
        }
        Ok(())
    }

    /// Removes a network: rules, then link; a plugin's pools are given back. One that is not there is success.
    pub fn delete(&self, id: &str) -> Result<(), NetworkError> {
        let spec = lock(&self.shared.state).nets.get(id).and_then(|n| n.spec.clone());
        // The order of dockerd: addresses first.
        if let Some((spec, Addressing::Plugin(driver))) = spec.as_ref().map(|s| (s, &s.addressing)) {
            self.release_pools(driver, &spec.subnets);
        }
        self.remove(id)
    }

    fn remove(&self, id: &str) -> Result<(), NetworkError> {
        let shared = &self.shared;
        let net = lock(&shared.state).nets.remove(id);
        let Some(spec) = net.and_then(|n| n.spec) else { return Ok(()) };
        shared.delete_remote(&spec);
        let ruled = shared.change_rules();
        links::close(&shared.config, &spec, &mut lock(&shared.host)).and(ruled)
    }
}
