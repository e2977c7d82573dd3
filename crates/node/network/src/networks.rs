//! The daemon's networks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_firewall::neighbours::{self, Wish};
use wharf_firewall::{Bridge, Families, Protocol, Published, RuleSet, Table, rule_set};
use wharf_ipam::{Cidr, MacAddress, Pool};
use wharf_netlink::{Family, Socket};

use crate::bridge::{self, Opened};
use crate::ports::{Owner, PortTable, Reserved};
use crate::sandbox::{LINK, Plan, Sandbox, mac_of};
use crate::solitude::Solitude;
use crate::worker::Worker;
use crate::{Attachment, BoundPort, Endpoint, EndpointRequest, NetworkConfig, NetworkError, Relay, netns, random};

/// The default bridge network as it is, for listing and inspecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeInfo {
    /// The link's name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// IPv4 subnet, host bits zero.
    pub subnet: Cidr,
    /// `--fixed-cidr`, if given.
    pub range: Option<Cidr>,
    /// Containers' IPv4 gateway.
    pub gateway: Ipv4Addr,
    /// IPv6 subnet, when on.
    pub subnet_v6: Option<Cidr>,
    /// Containers' IPv6 gateway, when on.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Bytes.
    pub mtu: u32,
}

/// All networks of one daemon. `Send` and `Sync`; every method takes `&self` and may be called from many threads.
pub struct Networks {
    shared: Arc<Shared>,
    worker: Worker,
}

/// What callers and the background thread share.
pub(crate) struct Shared {
    pub(crate) config: NetworkConfig,
    pub(crate) bridge: Option<Opened>,
    pub(crate) plan: Option<Plan>,
    pub(crate) home: OwnedFd,
    pub(crate) solitude: Solitude,
    pub(crate) host: Mutex<Socket>,
    /// Held while the pool is filled: who finds it empty waits for the sandbox under way instead of making another.
    pub(crate) filling: Mutex<()>,
    /// The rules; absent if both families are switched off.
    pub(crate) rules: Option<Rules>,
    pub(crate) state: Mutex<State>,
}

/// The table and what it must hold.
pub(crate) struct Rules {
    pub(crate) table: Table,
    pub(crate) set: RuleSet,
    pub(crate) wish: Wish,
    /// Held while the table's content is changed, so that a rewrite and a publication do not cross.
    pub(crate) writing: Mutex<()>,
}

/// What changes with every container.
pub(crate) struct State {
    ipv4: Option<Pool>,
    ipv6: Option<Pool>,
    ports: PortTable,
    /// By endpoint id.
    endpoints: HashMap<String, Endpoint>,
    pub(crate) ready: VecDeque<Sandbox>,
    /// Addresses that neighbours may know under another Ethernet address than their own.
    strange: HashSet<IpAddr>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data consistent at each step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// Makes or finds the bridge, writes the rules for the endpoints of adopted containers, and removes links and
    /// rules that carry our instance id and that none of them owns. Touches nothing else. Starts the background
    /// thread that fills the pool and watches foreign tables.
    pub fn open(config: NetworkConfig, adopted: Vec<Endpoint>) -> Result<Self, NetworkError> {
        let fail =
            |source| NetworkError::Link { action: "configuring links of", link: config.instance.to_string(), source };
        let mut host = Socket::open(Family::Route).map_err(fail)?;
        let owned: Vec<&str> = adopted.iter().map(|e| e.host_link.as_str()).collect();
        let name = config.bridge.as_ref().map(|b| b.name.as_str());
        bridge::sweep(&config.instance, name, &owned, &mut host)?;
        let opened = config.bridge.as_ref().map(|b| bridge::open(&config, b, &mut host)).transpose()?;
        let rules = open_rules(&config, opened.as_ref())?;
        let state = adopt(opened.as_ref(), config.bridge.as_ref().and_then(|b| b.fixed_cidr_v6), adopted)?;
        let plan = plan(&config, opened.as_ref());
        let home = netns::current()?;
        let shared = Shared {
            bridge: opened,
            plan,
            home,
            solitude: Solitude::default(),
            host: Mutex::new(host),
            filling: Mutex::new(()),
            rules,
            state: Mutex::new(state),
            config,
        };
        shared.write_rules()?;
        if let (Some(bridge), Some(rules)) = (&shared.bridge, &shared.rules)
            && rules.wish.families.ipv4
        {
            bridge::allow_loopback(&bridge.info.name, true)?;
        }
        let shared = Arc::new(shared);
        let worker = Worker::start(Arc::clone(&shared))?;
        Ok(Self { shared, worker })
    }

    /// The default bridge; absent with `--bridge none`.
    pub fn bridge(&self) -> Option<&BridgeInfo> {
        self.shared.bridge.as_ref().map(|b| &b.info)
    }

    /// Gives a container a sandbox on the default bridge with its ports published. On error nothing stays.
    pub fn attach(&self, request: &EndpointRequest) -> Result<Attachment, NetworkError> {
        let shared = &self.shared;
        let plan = shared.plan.as_ref().ok_or(NetworkError::NoDefaultNetwork)?;
        let sandbox = match shared.ready() {
            Some(sandbox) => sandbox,
            None => shared.build(plan)?,
        };
        let outcome = shared.finish(sandbox, request);
        match &outcome {
            Ok(made) => {
                self.worker.forget_ports(udp_ports(&made.endpoint));
                self.worker.taken(made.endpoint.host_link.clone(), request.container.clone());
            }
            Err(_) => self.worker.refill(),
        }
        outcome
    }

    /// Gives a container a namespace of its own without any network (`--network none`): only `lo`, which is up. It dies with
    /// its last descriptor.
    pub fn solitary(&self) -> Result<OwnedFd, NetworkError> {
        let taken = self.shared.solitude.take(&self.shared.home);
        self.worker.refill();
        taken
    }

    /// Withdraws the endpoint's rules at once and frees its address and ports. The link dies with the namespace, that
    /// is with the last descriptor of it. An endpoint that is not attached changes nothing.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let Some(endpoint) = lock(&self.shared.state).endpoints.remove(&endpoint.id) else { return Ok(()) };
        let withdrawn = self.shared.withdraw(&endpoint);
        self.shared.release(&endpoint);
        if udp_ports(&endpoint).next().is_some() {
            self.worker.forget_containers(addresses(&endpoint));
        }
        withdrawn
    }

    /// Ends a daemon cleanly; nothing may be attached afterwards. With endpoints still attached (live restore) everything they need stays; without any,
    /// rules, tagged foreign rules and a bridge we created go.
    pub fn close(&self) -> Result<(), NetworkError> {
        let shared = &self.shared;
        self.worker.stop();
        lock(&shared.state).ready.clear();
        shared.solitude.clear();
        if !lock(&shared.state).endpoints.is_empty() {
            return Ok(());
        }
        if let (Some(bridge), Some(_)) = (&shared.bridge, &shared.rules) {
            bridge::allow_loopback(&bridge.info.name, false)?;
        }
        let rules = shared.rules.as_ref().map_or(Ok(()), |rules| {
            let neighbours = neighbours::leave(&rules.table, &rules.wish.tag);
            rules.table.remove().and(neighbours)
        });
        if let Some(opened) = shared.bridge.as_ref().filter(|b| b.created)
            && shared.config.bridge.as_ref().is_some_and(|b| b.create)
        {
            bridge::remove(opened.index, &opened.info.name, &mut lock(&shared.host))?;
        }
        Ok(rules?)
    }
}

fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    [endpoint.ipv4, endpoint.ipv6].into_iter().flatten().map(|c| c.address()).collect()
}

fn udp_ports(endpoint: &Endpoint) -> impl Iterator<Item = u16> {
    endpoint.ports.iter().filter(|p| p.protocol == Protocol::Udp).map(|p| p.host_port)
}

fn open_rules(config: &NetworkConfig, opened: Option<&Opened>) -> Result<Option<Rules>, NetworkError> {
    let ipv6 = config.ip6tables && config.bridge.as_ref().is_some_and(|b| b.ipv6);
    let families = Families { ipv4: config.iptables, ipv6 };
    let (Some(bridge), Some(opened)) = (&config.bridge, opened) else { return Ok(None) };
    let (four, six) = if config.ip_forward { bridge::enable_forwarding(bridge.ipv6)? } else { (false, false) };
    let table = Table::open(&config.table)?;
    if !families.ipv4 && !families.ipv6 {
        // An earlier life of this daemon may have written rules.
        table.remove()?;
        return Ok(None);
    }
    let of_bridge = Bridge {
        name: bridge.name.clone(),
        subnet: Some(opened.info.subnet),
        subnet_v6: opened.info.subnet_v6,
        icc: bridge.icc,
        masquerade: bridge.ip_masq,
    };
    let set = rule_set(&[of_bridge], families);
    let drop_rest = Families { ipv4: four && families.ipv4, ipv6: six && families.ipv6 };
    let wish =
        Wish { tag: format!("wharf:{}", config.instance), bridges: vec![bridge.name.clone()], families, drop_rest };
    Ok(Some(Rules { table, set, wish, writing: Mutex::new(()) }))
}

fn plan(config: &NetworkConfig, opened: Option<&Opened>) -> Option<Plan> {
    let opened = opened?;
    Some(Plan {
        bridge: opened.index,
        mtu: opened.info.mtu,
        gateway: opened.info.gateway.into(),
        gateway_v6: opened.info.gateway_v6.map(IpAddr::V6),
        isolated: config.bridge.as_ref().is_some_and(|b| !b.icc),
        alias: format!("wharf:{}:ready", config.instance),
    })
}

/// Builds the state from the bridge and the containers that live already.
fn adopt(opened: Option<&Opened>, range_v6: Option<Cidr>, adopted: Vec<Endpoint>) -> Result<State, NetworkError> {
    let mut state = State {
        ipv4: None,
        ipv6: None,
        ports: PortTable::default(),
        endpoints: HashMap::new(),
        ready: VecDeque::new(),
        strange: HashSet::new(),
    };
    if let Some(opened) = opened {
        let mut four = Pool::new(opened.info.subnet, opened.info.range)?;
        let mut six = opened.info.subnet_v6.map(|s| Pool::new(s, range_v6)).transpose()?;
        let own = [Some(opened.address), Some(opened.info.gateway.into()), opened.address_v6];
        let containers = adopted.iter().flat_map(addresses);
        let gateway_v6 = opened.info.gateway_v6.map(IpAddr::V6);
        for address in own.into_iter().flatten().chain(gateway_v6).chain(containers) {
            // Taken twice (bridge and gateway are one) or of a former subnet: both leave nothing to reserve.
            let _ = four.take(address);
            let _ = six.as_mut().map(|pool| pool.take(address));
        }
        (state.ipv4, state.ipv6) = (Some(four), six);
    }
    for endpoint in adopted {
        endpoint.ports.iter().for_each(|p| state.ports.adopt(p));
        state.endpoints.insert(endpoint.id.clone(), endpoint);
    }
    Ok(state)
}

/// The ports of an endpoint that NAT serves.
fn published(endpoint: &Endpoint) -> Vec<Published> {
    let to = |p: &BoundPort| {
        let address = if p.host_ip.is_ipv6() { endpoint.ipv6 } else { endpoint.ipv4 }?;
        let to = SocketAddr::new(address.address(), p.container_port);
        Some(Published { protocol: p.protocol, host: p.host_ip, port: p.host_port, to })
    };
    endpoint.ports.iter().filter_map(to).collect()
}

impl Shared {
    fn ready(&self) -> Option<Sandbox> {
        let take = || lock(&self.state).ready.pop_front();
        take().or_else(|| {
            let _filled = lock(&self.filling);
            take()
        })
    }

    /// Makes a sandbox for which an address is free.
    pub(crate) fn build(&self, plan: &Plan) -> Result<Sandbox, NetworkError> {
        let (ipv4, ipv6, announce) = {
            let mut state = lock(&self.state);
            let State { ipv4, ipv6, strange, .. } = &mut *state;
            let pool = ipv4.as_mut().ok_or(NetworkError::NoDefaultNetwork)?;
            let four = pool.take_any()?;
            let six = match ipv6.as_mut().map(Pool::take_any) {
                Some(Err(e)) => {
                    pool.release(four.address());
                    return Err(e.into());
                }
                six => six.and_then(Result::ok),
            };
            (four, six, strange.remove(&four.address()))
        };
        let built = Sandbox::build(plan, &self.home, ipv4, ipv6);
        match built {
            Ok(mut sandbox) => {
                sandbox.announce = announce;
                Ok(sandbox)
            }
            Err(e) => {
                let mut state = lock(&self.state);
                [Some(ipv4), ipv6].into_iter().flatten().for_each(|c| state.give_back(c.address()));
                Err(e)
            }
        }
    }

    fn finish(&self, mut sandbox: Sandbox, request: &EndpointRequest) -> Result<Attachment, NetworkError> {
        let id = random::id()?;
        let reserved = {
            let mut state = lock(&self.state);
            let binding = self.config.bridge.as_ref().and_then(|b| b.host_binding);
            let owner = Owner { name: &request.name, endpoint: &id, address: sandbox.ipv4.address(), binding };
            match state.ports.reserve(&request.ports, owner) {
                Ok(reserved) => reserved,
                Err(e) => {
                    // Untouched so far: the next container takes it.
                    state.ready.push_front(sandbox);
                    return Err(e);
                }
            }
        };
        let mut ports: Vec<_> = reserved.iter().map(|r| r.port).collect();
        ports.sort_by_key(|p| (p.container_port, p.protocol, p.host_ip, p.host_port));
        let mut endpoint = Endpoint {
            id,
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
        };
        let done = sandbox.enable(request.mac).and_then(|()| self.publish(&endpoint));
        if let Err(e) = done {
            self.release(&endpoint);
            return Err(e);
        }
        let (hold, relays) = self.hand_over(reserved, &endpoint);
        endpoint.mac = sandbox.mac;
        Ok(Attachment { endpoint, netns: sandbox.netns, hold, relays })
    }

    /// Sorts the sockets into those that are only held and those whose clients NAT does not reach.
    fn hand_over(&self, reserved: Vec<Reserved>, endpoint: &Endpoint) -> (Vec<OwnedFd>, Vec<Relay>) {
        let nat4 = self.rules.as_ref().is_some_and(|r| r.wish.families.ipv4);
        let (mut hold, mut relays) = (Vec::new(), Vec::new());
        for Reserved { port, socket } in reserved {
            let Some(fd) = socket else { continue };
            let same = if port.host_ip.is_ipv6() { endpoint.ipv6 } else { endpoint.ipv4 };
            let to =
                same.or(endpoint.ipv4).or(endpoint.ipv6).map(|c| SocketAddr::new(c.address(), port.container_port));
            // A connection to ::1 cannot be translated: the kernel refuses to route it off the host.
            let relayed = port.protocol != Protocol::Sctp && (port.host_ip.is_ipv6() || !nat4);
            match to.filter(|_| relayed) {
                Some(to) => relays.push(Relay { fd, protocol: port.protocol, to }),
                None => hold.push(fd),
            }
        }
        (hold, relays)
    }

    fn publish(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let published = published(endpoint);
        let writing = self.rules.as_ref().map(|r| (r, lock(&r.writing)));
        if let (Some((rules, _)), false) = (&writing, published.is_empty()) {
            let families = rules.wish.families;
            let wanted: Vec<_> = published.into_iter().filter(|p| family_on(families, p)).collect();
            rules.table.publish(&wanted)?;
        }
        lock(&self.state).endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(())
    }

    fn withdraw(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let published = published(endpoint);
        if let (Some(rules), false) = (&self.rules, published.is_empty()) {
            let _writing = lock(&rules.writing);
            let families = rules.wish.families;
            let wanted: Vec<_> = published.into_iter().filter(|p| family_on(families, p)).collect();
            rules.table.withdraw(&wanted)?;
        }
        Ok(())
    }

    /// Frees an endpoint's addresses and ports.
    fn release(&self, endpoint: &Endpoint) {
        let mut state = lock(&self.state);
        endpoint.ports.iter().for_each(|p| state.ports.release(p));
        for address in addresses(endpoint) {
            state.give_back(address);
        }
        if let Some(ipv4) = endpoint.ipv4
            && endpoint.mac != mac_of(ipv4.address())
        {
            state.strange.insert(ipv4.address());
        }
    }

    /// Writes the whole table and settles with the neighbours.
    pub(crate) fn write_rules(&self) -> Result<(), NetworkError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        {
            let _writing = lock(&rules.writing);
            let families = rules.wish.families;
            let state = lock(&self.state);
            let all: Vec<_> = state.endpoints.values().flat_map(published).filter(|p| family_on(families, p)).collect();
            drop(state);
            rules.table.replace(&rules.set, &all)?;
        }
        match neighbours::settle(&rules.table, &rules.wish) {
            Ok(changes) => changes.iter().for_each(|change| tracing::debug!(?change, "firewall neighbour")),
            // A table that another program owns exclusively; ours are in place, and this daemon can work.
            Err(e) => tracing::warn!(error = %wharf_error::Chain(&e), "another firewall may drop containers' traffic"),
        }
        Ok(())
    }
}

fn family_on(families: Families, published: &Published) -> bool {
    if published.host.is_ipv6() { families.ipv6 } else { families.ipv4 }
}

impl State {
    fn give_back(&mut self, address: IpAddr) {
        let pool = if address.is_ipv6() { &mut self.ipv6 } else { &mut self.ipv4 };
        if let Some(pool) = pool {
            pool.release(address);
        }
    }
}
