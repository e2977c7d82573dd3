//! The daemon's networks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wharf_firewall::neighbours::{self, Wish};
use wharf_firewall::{Bridge, Face, Families, GatewayMode, Published, RuleSet, Table, rule_set};
use wharf_ipam::{Cidr, MacAddress};
use wharf_netlink::{Family, Socket};

use crate::bridge::{self, Opened};
use crate::egress::{self, Hearer, Told};
use crate::links;
use crate::publish::{addresses, udp_ports};
use crate::sandbox::{Plan, Sandbox};
use crate::solitude::Solitude;
use crate::spec::{DEFAULT_NETWORK, NetworkSpec};
use crate::state::{Net, State, adopt};
use crate::worker::Worker;
use crate::zones::{FirewalldState, Zones};
use crate::{Attachment, Endpoint, EndpointRequest, NetworkConfig, NetworkError, netns};

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
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker,
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
    /// Our bridges in firewalld's zone; absent without rules.
    pub(crate) zones: Option<Zones>,
    /// Who is told of refused packets.
    pub(crate) hearer: OnceLock<Hearer>,
    pub(crate) told: Mutex<Told>,
}

/// The table and what it must hold.
pub(crate) struct Rules {
    pub(crate) table: Table,
    pub(crate) families: Families,
    /// Held while the table's content is changed, so that a rewrite and a publication do not cross.
    pub(crate) written: Mutex<Written>,
}

/// What the table holds, and what is wanted of its neighbours.
pub(crate) struct Written {
    pub(crate) set: RuleSet,
    pub(crate) wish: Wish,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its data consistent at each step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// Makes or finds the default bridge and those of `specs`, writes the rules for the endpoints of adopted
    /// containers, and removes links and rules that carry our instance id and that none of them owns. Touches nothing
    /// else. Starts the background thread that fills the pool and watches foreign tables.
    ///
    /// A user-defined network whose link cannot be made is logged; what needs it will be told.
    pub fn open(config: NetworkConfig, specs: Vec<NetworkSpec>, adopted: Vec<Endpoint>) -> Result<Self, NetworkError> {
        let fail =
            |source| NetworkError::Link { action: "configuring links of", link: config.instance.to_string(), source };
        let mut host = Socket::open(Family::Route).map_err(fail)?;
        let owned: Vec<&str> = adopted.iter().map(|e| e.host_link.as_str()).collect();
        let mut kept: Vec<&str> = specs.iter().map(links::link_name).collect();
        kept.extend(config.bridge.as_ref().map(|b| b.name.as_str()));
        bridge::sweep(&config.instance, &kept, &owned, &mut host)?;
        let opened = config.bridge.as_ref().map(|b| bridge::open(&config, b, &mut host)).transpose()?;
        let mut nets = HashMap::new();
        if let Some(opened) = &opened {
            nets.insert(DEFAULT_NETWORK.to_owned(), Net::of_default(&config, opened)?);
        }
        for spec in specs {
            let id = spec.id.clone();
            match links::open(&config, &spec, &mut host).and_then(|(base, _)| Net::new(spec, base)) {
                Ok(net) => drop(nets.insert(id, net)),
                Err(e) => tracing::error!(network = id, error = %wharf_error::Chain(&e), "cannot set up the network"),
            }
        }
        let rules = open_rules(&config, &nets)?;
        let mut state = adopt(nets, adopted);
        if let Some(rules) = rules.as_ref().filter(|_| state.endpoints.values().any(|e| e.egress.is_some())) {
            state.known = egress::adopt(&state.endpoints, &rules.table.learned()?);
        }
        let plan = plan(&config, opened.as_ref());
        let home = netns::current()?;
        let zones = rules.as_ref().map(|_| Zones::new()).transpose()?;
        let shared = Shared {
            bridge: opened,
            plan,
            home,
            solitude: Solitude::default(),
            host: Mutex::new(host),
            filling: Mutex::new(()),
            zones,
            rules,
            state: Mutex::new(state),
            hearer: OnceLock::new(),
            told: Mutex::default(),
            config,
        };
        shared.write_rules()?;
        if shared.rules.as_ref().is_some_and(|r| r.families.ipv4) {
            if let Some(bridge) = &shared.bridge {
                bridge::allow_loopback(&bridge.info.name, true)?;
            }
            let specs: Vec<_> = lock(&shared.state).nets.values().filter_map(|n| n.spec.clone()).collect();
            specs.iter().try_for_each(links::allow_loopback)?;
        }
        let shared = Arc::new(shared);
        shared.replay();
        let worker = Worker::start(Arc::clone(&shared))?;
        Ok(Self { shared, worker })
    }

    /// The default bridge; absent with `--bridge none`.
    pub fn bridge(&self) -> Option<&BridgeInfo> {
        self.shared.bridge.as_ref().map(|b| &b.info)
    }

    /// Whether rules are written, for IPv4 and for IPv6.
    pub fn filters(&self) -> (bool, bool) {
        self.shared.rules.as_ref().map_or((false, false), |r| (r.families.ipv4, r.families.ipv6))
    }

    /// What is known of firewalld; nothing where no rules are written.
    pub fn firewalld(&self) -> FirewalldState {
        self.shared.zones.as_ref().map(Zones::state).unwrap_or_default()
    }

    /// Whether rules of xtables-legacy are loaded, which no netlink interface shows or changes.
    pub fn has_legacy_rules(&self) -> bool {
        let loaded = |file: &str| {
            let names = std::fs::read_to_string(format!("/proc/net/{file}"));
            names.is_ok_and(|names| names.lines().any(|table| table == "filter"))
        };
        self.shared.rules.is_some() && (loaded("ip_tables_names") || loaded("ip6_tables_names"))
    }

    /// The table that our rules are in.
    pub fn table(&self) -> Option<&str> {
        self.shared.rules.as_ref().map(|r| r.table.name())
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
        let taken = self.shared.solitude.take(&self.shared.home, self.shared.config.users.as_ref());
        self.worker.refill();
        taken
    }

    /// As [`Networks::solitary`], in the user namespace of a container whose other namespaces are joined.
    pub fn solitary_in(&self, user: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
        crate::solitude::make_in(&self.shared.home, user)
    }

    /// Withdraws the endpoint's rules at once and frees its address and ports. The link dies with the namespace, that
    /// is with the last descriptor of it. An endpoint that is not attached changes nothing.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        self.detach_with(endpoint, || {})
    }

    /// As [`Networks::detach`]; `unlink` takes the link out of a namespace that goes on.
    pub(crate) fn detach_with(&self, endpoint: &Endpoint, unlink: impl FnOnce()) -> Result<(), NetworkError> {
        let known = lock(&self.shared.state).endpoints.remove(&endpoint.id);
        let Some(endpoint) = known else {
            unlink();
            return Ok(());
        };
        let withdrawn = self.shared.withdraw(&endpoint).and(self.shared.unpolice(&endpoint));
        // A plugin puts its link away itself, between leaving and deleting.
        let mut unlink = Some(unlink);
        self.shared.leave_remote(&endpoint, || unlink.take().into_iter().for_each(|unlink| unlink()));
        unlink.into_iter().for_each(|unlink| unlink());
        lock(&self.shared.state).release(&endpoint);
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
            shared.zones.iter().for_each(Zones::stop);
            return Ok(());
        }
        if let Some(zones) = &shared.zones {
            zones.want(Vec::new());
            zones.stop();
        }
        if let (Some(bridge), Some(_)) = (&shared.bridge, &shared.rules) {
            bridge::allow_loopback(&bridge.info.name, false)?;
        }
        let specs: Vec<_> = lock(&shared.state).nets.values().filter_map(|n| n.spec.clone()).collect();
        for spec in &specs {
            // Made again at the next start.
            links::close(&shared.config, spec, &mut lock(&shared.host))?;
        }
        let rules = shared.rules.as_ref().map_or(Ok(()), |rules| {
            let neighbours = neighbours::leave(&rules.table, &lock(&rules.written).wish.tag);
            rules.table.remove().and(rules.table.unguard_all()).and(neighbours)
        });
        if let Some(opened) = shared.bridge.as_ref().filter(|b| b.created)
            && shared.config.bridge.as_ref().is_some_and(|b| b.create)
        {
            bridge::remove(opened.index, &opened.info.name, &mut lock(&shared.host))?;
        }
        Ok(rules?)
    }
}

fn open_rules(config: &NetworkConfig, nets: &HashMap<String, Net>) -> Result<Option<Rules>, NetworkError> {
    let families = Families { ipv4: config.iptables, ipv6: config.ip6tables };
    let six = nets.values().any(|n| n.rules.as_ref().is_some_and(|b| b.ipv6.is_some()));
    let forwarding = config.ip_forward && !nets.is_empty();
    let (four, six) = if forwarding { bridge::enable_forwarding(six)? } else { (false, false) };
    let table = Table::open(&config.table)?;
    if !families.ipv4 && !families.ipv6 {
        // An earlier life of this daemon may have written rules.
        table.remove()?;
        return Ok(None);
    }
    let drop_rest = Families { ipv4: four && families.ipv4, ipv6: six && families.ipv6 };
    let wish = Wish { tag: format!("wharf:{}", config.instance), bridges: Vec::new(), families, drop_rest };
    let written = Mutex::new(Written { set: rule_set(&[], families, None), wish });
    Ok(Some(Rules { table, families, written }))
}

fn plan(config: &NetworkConfig, opened: Option<&Opened>) -> Option<Plan> {
    let opened = opened?;
    Some(Plan {
        users: config.users.clone(),
        bridge: opened.index,
        mtu: opened.info.mtu,
        gateway: opened.info.gateway.into(),
        gateway_v6: opened.info.gateway_v6.map(IpAddr::V6),
        isolated: config.bridge.as_ref().is_some_and(|b| !b.icc),
        alias: format!("wharf:{}:ready", config.instance),
    })
}

/// The default bridge as the rules need to know it.
pub(crate) fn default_rules(config: &NetworkConfig, opened: &Opened) -> Option<Bridge> {
    let bridge = config.bridge.as_ref()?;
    let face = |subnet| Face { subnet, mode: GatewayMode::Nat, masquerade: bridge.ip_masq, source: None };
    Some(Bridge {
        name: bridge.name.clone(),
        ipv4: Some(face(opened.info.subnet)),
        ipv6: opened.info.subnet_v6.map(face),
        icc: bridge.icc,
        internal: false,
        trusted: Vec::new(),
    })
}

impl Shared {
    pub(crate) fn ready(&self) -> Option<Sandbox> {
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
            let net = state.nets.get_mut(DEFAULT_NETWORK).ok_or(NetworkError::NoDefaultNetwork)?;
            let (four, six) = net.take(None, None)?;
            let four = four.ok_or(NetworkError::NoDefaultNetwork)?;
            (four, six, state.strange.remove(&(DEFAULT_NETWORK.to_owned(), four.address())))
        };
        let built = Sandbox::build(plan, &self.home, ipv4, ipv6);
        match built {
            Ok(mut sandbox) => {
                sandbox.announce = announce;
                Ok(sandbox)
            }
            Err(e) => {
                let mut state = lock(&self.state);
                [Some(ipv4), ipv6].into_iter().flatten().for_each(|c| state.give_back(DEFAULT_NETWORK, c.address()));
                Err(e)
            }
        }
    }

    /// The bridges as the rules need to know them, in an order that stays.
    fn bridges(&self) -> Vec<Bridge> {
        let state = lock(&self.state);
        let mut all: Vec<_> = state.nets.iter().filter_map(|(key, n)| Some((key.clone(), n.rules.clone()?))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, b)| b).collect()
    }

    fn all_published(&self, families: Families) -> Vec<Published> {
        let state = lock(&self.state);
        let all = state.endpoints.values().flat_map(|e| state.published(e));
        all.filter(|p| family_on(families, p)).collect()
    }

    /// Writes the whole table and settles with the neighbours.
    pub(crate) fn write_rules(&self) -> Result<(), NetworkError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        {
            let mut written = lock(&rules.written);
            let bridges = self.bridges();
            written.set = rule_set(&bridges, rules.families, self.log_group());
            written.wish.bridges = bridges.into_iter().map(|b| b.name).collect();
            rules.table.replace(&written.set, &self.all_published(rules.families), &self.all_policed())?;
            self.write_guards()?;
        }
        self.settle(rules);
        Ok(())
    }

    /// Brings the rules in line with the bridges that there are, and settles with the neighbours. Elements stay.
    pub(crate) fn change_rules(&self) -> Result<(), NetworkError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        {
            let mut written = lock(&rules.written);
            let bridges = self.bridges();
            let set = rule_set(&bridges, rules.families, self.log_group());
            rules.table.change(&written.set, &set)?;
            written.set = set;
            written.wish.bridges = bridges.into_iter().map(|b| b.name).collect();
        }
        self.settle(rules);
        Ok(())
    }

    fn settle(&self, rules: &Rules) {
        let wish = lock(&rules.written).wish.clone();
        if let Some(zones) = &self.zones {
            zones.want(wish.bridges.clone());
        }
        match neighbours::settle(&rules.table, &wish) {
            Ok(changes) => changes.iter().for_each(|change| tracing::debug!(?change, "firewall neighbour")),
            // A table that another program owns exclusively; ours are in place, and this daemon can work.
            Err(e) => tracing::warn!(error = %wharf_error::Chain(&e), "another firewall may drop containers' traffic"),
        }
    }
}

pub(crate) fn family_on(families: Families, published: &Published) -> bool {
    if published.host.is_ipv6() { families.ipv6 } else { families.ipv4 }
}
