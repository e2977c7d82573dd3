//! Publishing an endpoint's ports: sockets that reserve them, elements of the maps, relays for what NAT cannot serve.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use wharf_firewall::{GatewayMode, Protocol};
use wharf_ipam::Cidr;

use crate::networks::{Networks, Shared, family_on, lock};
use crate::ports::{Owner, Reserved};
use crate::sandbox::{LINK, Sandbox};
use crate::spec::DEFAULT_NETWORK;
use crate::state::Net;
use crate::{Attachment, BoundPort, Endpoint, EndpointRequest, NetworkError, PortRequest, Relay, Sockets, random};

/// Between two looks at a port that is about to be free.
const MOMENT: Duration = Duration::from_millis(1);

pub(crate) fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    [endpoint.ipv4, endpoint.ipv6].into_iter().flatten().map(|c| c.address()).collect()
}

pub(crate) fn udp_ports(endpoint: &Endpoint) -> impl Iterator<Item = u16> {
    endpoint.ports.iter().filter(|p| p.protocol == Protocol::Udp && p.host_port > 0).map(|p| p.host_port)
}

/// Whether ports are bound on the host's IPv4 and IPv6 addresses. IPv6 clients of an IPv4-only container are relayed.
fn families(net: &Net, ipv4: Option<Cidr>, ipv6: Option<Cidr>) -> (bool, bool) {
    let translated = |six| matches!(net.mode(six), Some(GatewayMode::Nat | GatewayMode::NatUnprotected));
    let four = ipv4.is_some() && translated(false);
    (four, if ipv6.is_some() { translated(true) } else { four })
}

/// Ports of routed families, which have no port on the host.
fn routed(net: &Net, endpoint: &Endpoint, requests: &[PortRequest]) -> Vec<BoundPort> {
    let mut ports = Vec::new();
    for six in [false, true] {
        let has = if six { endpoint.ipv6 } else { endpoint.ipv4 }.is_some();
        if !has || net.mode(six) != Some(GatewayMode::Routed) {
            continue;
        }
        let host_ip: IpAddr = if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        ports.extend(requests.iter().map(|r| BoundPort {
            protocol: r.protocol,
            container_port: r.container_port,
            host_ip,
            host_port: 0,
        }));
    }
    ports
}

fn sort(ports: &mut Vec<BoundPort>) {
    ports.sort_by_key(|p| (p.container_port, p.protocol, p.host_ip, p.host_port));
    ports.dedup();
}

impl Networks {
    /// Publishes ports of an endpoint that has none yet. On error none is published.
    pub fn publish(
        &self,
        endpoint: &mut Endpoint,
        name: &str,
        requests: &[PortRequest],
    ) -> Result<Sockets, NetworkError> {
        if requests.is_empty() {
            return Ok(Sockets::default());
        }
        let shared = &self.shared;
        shared.program(endpoint, requests)?;
        let reserved = loop {
            let mut guard = lock(&shared.state);
            let state = &mut *guard;
            let net = state.nets.get(&endpoint.network);
            let Some(net) = net.filter(|n| n.mode(false).is_some() || n.mode(true).is_some()) else {
                return Ok(Sockets::default());
            };
            let shown = endpoint.ipv4.or(endpoint.ipv6).map_or(Ipv4Addr::UNSPECIFIED.into(), |c| c.address());
            let families = families(net, endpoint.ipv4, endpoint.ipv6);
            let owner = Owner { name, endpoint: &endpoint.id, address: shown, binding: net.binding, families };
            let reserved = match state.ports.reserve(requests, owner) {
                Err(e) if state.ports.is_parting(&e, requests) => {
                    drop(guard);
                    std::thread::sleep(MOMENT);
                    continue;
                }
                other => other?,
            };
            endpoint.ports = reserved.iter().map(|r| r.port).collect();
            endpoint.ports.extend(routed(net, endpoint, requests));
            break reserved;
        };
        sort(&mut endpoint.ports);
        if let Err(e) = shared.publish(endpoint) {
            let mut state = lock(&shared.state);
            endpoint.ports.drain(..).for_each(|p| state.ports.release(&p));
            state.endpoints.insert(endpoint.id.clone(), endpoint.clone());
            return Err(e);
        }
        self.worker.forget_ports(udp_ports(endpoint));
        self.worker.refill();
        Ok(shared.hand_over(reserved, endpoint))
    }

    /// Publishes ports on an endpoint that were another's until [`Networks::unpublish`], on the same ports of the host:
    /// the sockets that reserve them stay where they are.
    pub fn move_ports(
        &self,
        endpoint: &mut Endpoint,
        ports: Vec<BoundPort>,
        requests: &[PortRequest],
    ) -> Result<(), NetworkError> {
        let shared = &self.shared;
        {
            let mut state = lock(&shared.state);
            let state = &mut *state;
            let Some(net) = state.nets.get(&endpoint.network) else { return Ok(()) };
            let families = families(net, endpoint.ipv4, endpoint.ipv6);
            let bound = |p: &BoundPort| if p.host_ip.is_ipv6() { families.1 } else { families.0 };
            endpoint.ports = ports.into_iter().filter(|p| p.host_port > 0 && bound(p)).collect();
            endpoint.ports.iter().for_each(|p| state.ports.adopt(p));
            endpoint.ports.extend(routed(net, endpoint, requests));
        }
        sort(&mut endpoint.ports);
        shared.publish(endpoint)
    }

    /// Withdraws all ports of an endpoint, which stays, and frees them.
    pub fn unpublish(&self, endpoint: &mut Endpoint) -> Result<(), NetworkError> {
        self.shared.deprogram(endpoint);
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        let withdrawn = self.shared.withdraw(endpoint);
        if udp_ports(endpoint).next().is_some() {
            self.worker.forget_containers(addresses(endpoint));
        }
        let mut state = lock(&self.shared.state);
        endpoint.ports.drain(..).for_each(|p| state.ports.release(&p));
        if let Some(known) = state.endpoints.get_mut(&endpoint.id) {
            known.ports.clear();
        }
        withdrawn
    }
}

impl Shared {
    pub(crate) fn finish(&self, mut sandbox: Sandbox, request: &EndpointRequest) -> Result<Attachment, NetworkError> {
        let id = random::id()?;
        let reserved = loop {
            let mut state = lock(&self.state);
            let binding = self.config.bridge.as_ref().and_then(|b| b.host_binding);
            let address = sandbox.ipv4.address();
            let owner = Owner { name: &request.name, endpoint: &id, address, binding, families: (true, true) };
            match state.ports.reserve(&request.ports, owner) {
                Ok(reserved) => break reserved,
                Err(e) if state.ports.is_parting(&e, &request.ports) => {
                    drop(state);
                    std::thread::sleep(MOMENT);
                }
                Err(e) => {
                    // Untouched so far: the next container takes it.
                    state.ready.push_front(sandbox);
                    return Err(e);
                }
            }
        };
        let mut ports: Vec<_> = reserved.iter().map(|r| r.port).collect();
        sort(&mut ports);
        let mut endpoint = Endpoint {
            id,
            network: DEFAULT_NETWORK.to_owned(),
            sandbox: random::id()?,
            container: request.container.clone(),
            host_link: sandbox.host_link.clone(),
            link: LINK.to_owned(),
            mac: request.mac.unwrap_or(sandbox.mac),
            ipv4: Some(sandbox.ipv4),
            gateway: self.bridge.as_ref().map(|b| b.info.gateway),
            ipv6: sandbox.ipv6,
            gateway_v6: self.bridge.as_ref().and_then(|b| b.info.gateway_v6),
            ports,
            egress: None,
            source: String::new(),
            programmed: false,
        };
        let done = sandbox.enable(request.mac).and_then(|()| self.publish(&endpoint));
        if let Err(e) = done {
            lock(&self.state).release(&endpoint);
            return Err(e);
        }
        let sockets = self.hand_over(reserved, &endpoint);
        endpoint.mac = sandbox.mac;
        Ok(Attachment { endpoint, netns: sandbox.netns, sockets })
    }

    /// Sorts the sockets into those that are only held and those whose clients NAT does not reach.
    fn hand_over(&self, reserved: Vec<Reserved>, endpoint: &Endpoint) -> Sockets {
        let nat4 = self.rules.as_ref().is_some_and(|r| r.families.ipv4);
        let mut sockets = Sockets::default();
        for Reserved { port, socket } in reserved {
            let Some(fd) = socket else { continue };
            let same = if port.host_ip.is_ipv6() { endpoint.ipv6 } else { endpoint.ipv4 };
            let to =
                same.or(endpoint.ipv4).or(endpoint.ipv6).map(|c| SocketAddr::new(c.address(), port.container_port));
            // A connection to ::1 cannot be translated: the kernel refuses to route it off the host.
            let relayed = port.protocol != Protocol::Sctp && (port.host_ip.is_ipv6() || !nat4);
            match to.filter(|_| relayed) {
                Some(to) => sockets.relays.push(Relay { fd, protocol: port.protocol, to }),
                None => sockets.hold.push(fd),
            }
        }
        sockets
    }

    /// Writes the elements of an endpoint's ports and remembers it.
    pub(crate) fn publish(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        // Held until the endpoint is known, so that a rewrite of the table does not miss it.
        let writing = self.rules.as_ref().map(|r| (r, lock(&r.written)));
        if let (Some((rules, _)), false) = (&writing, endpoint.ports.is_empty()) {
            let published = lock(&self.state).published(endpoint);
            let wanted: Vec<_> = published.into_iter().filter(|p| family_on(rules.families, p)).collect();
            rules.table.publish(&wanted)?;
        }
        lock(&self.state).endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(())
    }

    pub(crate) fn withdraw(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        if let (Some(rules), false) = (&self.rules, endpoint.ports.is_empty()) {
            let _writing = lock(&rules.written);
            let published = lock(&self.state).published(endpoint);
            let wanted: Vec<_> = published.into_iter().filter(|p| family_on(rules.families, p)).collect();
            rules.table.withdraw(&wanted)?;
        }
        Ok(())
    }
}
