//! What changes with every container: addresses, ports, endpoints, ready sandboxes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wharf_firewall::{Bridge, GatewayMode, Published};
use wharf_ipam::{Cidr, Pool, PoolError};

use crate::bridge::Opened;
use crate::egress::Known;
use crate::links::{Base, rules_of};
use crate::networks::default_rules;
use crate::ports::PortTable;
use crate::publish::addresses;
use crate::sandbox::{Sandbox, mac_of};
use crate::spec::{Driver, NetworkSpec};
use crate::{BoundPort, Endpoint, NetworkConfig, NetworkError};

/// One network as it is.
pub(crate) struct Net {
    /// Absent for the default bridge.
    pub(crate) spec: Option<NetworkSpec>,
    pub(crate) base: Base,
    pub(crate) rules: Option<Bridge>,
    pub(crate) mtu: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) gateway_v6: Option<IpAddr>,
    pub(crate) binding: Option<IpAddr>,
    pools: Vec<Pool>,
}

impl Net {
    pub(crate) fn of_default(config: &NetworkConfig, opened: &Opened) -> Result<Net, NetworkError> {
        let bridge = config.bridge.as_ref();
        let mut pools = vec![Pool::new(opened.info.subnet, opened.info.range)?];
        if let Some(subnet) = opened.info.subnet_v6 {
            pools.push(Pool::new(subnet, bridge.and_then(|b| b.fixed_cidr_v6))?);
        }
        let gateway_v6 = opened.info.gateway_v6.map(IpAddr::V6);
        let own = [Some(opened.address), Some(opened.info.gateway.into()), opened.address_v6, gateway_v6];
        for address in own.into_iter().flatten() {
            // Taken twice: bridge and gateway are one.
            pools.iter_mut().for_each(|pool| drop(pool.take(address)));
        }
        Ok(Net {
            spec: None,
            base: Base::Bridge { index: opened.index, isolated: bridge.is_some_and(|b| !b.icc) },
            rules: default_rules(config, opened),
            mtu: opened.info.mtu,
            gateway: Some(opened.info.gateway.into()),
            gateway_v6,
            binding: bridge.and_then(|b| b.host_binding),
            pools,
        })
    }

    pub(crate) fn new(spec: NetworkSpec, base: Base) -> Result<Net, NetworkError> {
        let mut pools = Vec::new();
        // What a plugin hands out is not ours to count.
        for subnet in spec.subnets.iter().filter(|s| s.pool.is_none()) {
            let mut pool = Pool::new(subnet.subnet, subnet.range)?;
            for address in subnet.gateway.iter().chain(subnet.taken.values()) {
                // Named twice, or outside of the subnet: both leave nothing to reserve.
                let _ = pool.take(*address);
            }
            pools.push(pool);
        }
        let binding = match &spec.driver {
            Driver::Bridge(driver) => driver.host_binding,
            Driver::Macvlan(_) | Driver::Remote(_) => None,
        };
        Ok(Net {
            base,
            rules: rules_of(&spec),
            mtu: if spec.mtu == 0 { 1500 } else { spec.mtu },
            gateway: spec.gateway(false),
            gateway_v6: spec.gateway(true),
            binding,
            pools,
            spec: Some(spec),
        })
    }

    fn take_one(&mut self, ipv6: bool, wanted: Option<IpAddr>) -> Result<Option<Cidr>, PoolError> {
        let mut of_family = self.pools.iter_mut().filter(|p| p.subnet().is_ipv6() == ipv6);
        if let Some(address) = wanted {
            let pool = of_family.find(|p| p.subnet().contains(address)).ok_or(PoolError::Outside { address })?;
            pool.take(address)?;
            return Ok(Cidr::new(address, pool.subnet().prefix()).ok());
        }
        let mut outcome = Ok(None);
        for pool in of_family {
            outcome = pool.take_any().map(Some);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Takes an address of each family that the network has: the asked-for one, or any.
    pub(crate) fn take(
        &mut self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<(Option<Cidr>, Option<Cidr>), PoolError> {
        let four = self.take_one(false, ipv4.map(IpAddr::V4))?;
        match self.take_one(true, ipv6.map(IpAddr::V6)) {
            Ok(six) => Ok((four, six)),
            Err(e) => {
                if let Some(four) = four {
                    self.release(four.address());
                }
                Err(e)
            }
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        self.pools.iter_mut().for_each(|pool| pool.release(address));
    }

    /// The mode of a family; nothing is published on a network without one.
    pub(crate) fn mode(&self, ipv6: bool) -> Option<GatewayMode> {
        let rules = self.rules.as_ref().filter(|b| !b.internal)?;
        if ipv6 { rules.ipv6 } else { rules.ipv4 }.map(|f| f.mode)
    }

    /// Whether published ports are also reached by the container's own address.
    fn is_open(&self, ipv6: bool) -> bool {
        let trusted = self.rules.as_ref().is_some_and(|b| !b.trusted.is_empty());
        trusted || self.mode(ipv6) == Some(GatewayMode::Routed)
    }
}

/// What changes with every container.
pub(crate) struct State {
    /// By network.
    pub(crate) nets: HashMap<String, Net>,
    pub(crate) ports: PortTable,
    /// By endpoint id.
    pub(crate) endpoints: HashMap<String, Endpoint>,
    pub(crate) ready: VecDeque<Sandbox>,
    /// Addresses, by network, that neighbours may know under another Ethernet address than their own.
    pub(crate) strange: HashSet<(String, IpAddr)>,
    /// Endpoints under policies, by id: there from before the endpoint until after it.
    pub(crate) known: HashMap<String, Known>,
}

/// Builds the state from the networks and the containers that live already.
pub(crate) fn adopt(nets: HashMap<String, Net>, adopted: Vec<Endpoint>) -> State {
    let mut state = State {
        nets,
        ports: PortTable::default(),
        endpoints: HashMap::new(),
        ready: VecDeque::new(),
        strange: HashSet::new(),
        known: HashMap::new(),
    };
    for endpoint in adopted {
        if let Some(net) = state.nets.get_mut(&endpoint.network) {
            for address in addresses(&endpoint) {
                // Of a former subnet: nothing to reserve.
                net.pools.iter_mut().for_each(|pool| drop(pool.take(address)));
            }
        }
        endpoint.ports.iter().for_each(|p| state.ports.adopt(p));
        state.endpoints.insert(endpoint.id.clone(), endpoint);
    }
    state
}

impl State {
    pub(crate) fn give_back(&mut self, network: &str, address: IpAddr) {
        if let Some(net) = self.nets.get_mut(network) {
            net.release(address);
        }
    }

    /// Frees an endpoint's addresses and ports.
    pub(crate) fn release(&mut self, endpoint: &Endpoint) {
        endpoint.ports.iter().for_each(|p| self.ports.release(p));
        for address in addresses(endpoint) {
            self.give_back(&endpoint.network, address);
        }
        let first = endpoint.ipv4.or(endpoint.ipv6).map(|c| c.address());
        if let Some(address) = first.filter(|a| endpoint.mac != mac_of(*a)) {
            self.strange.insert((endpoint.network.clone(), address));
        }
    }

    /// The ports of an endpoint that the rules serve.
    pub(crate) fn published(&self, endpoint: &Endpoint) -> Vec<Published> {
        let net = self.nets.get(&endpoint.network);
        let to = |p: &BoundPort| {
            let six = p.host_ip.is_ipv6();
            let address = if six { endpoint.ipv6 } else { endpoint.ipv4 }?;
            let to = SocketAddr::new(address.address(), p.container_port);
            let open = net.is_some_and(|n| n.is_open(six));
            Some(Published { protocol: p.protocol, host: p.host_ip, port: p.host_port, to, open })
        };
        endpoint.ports.iter().filter_map(to).collect()
    }
}
