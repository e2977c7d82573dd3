//! Networks of plugins (`NetworkDriver`): the plugin makes the link, we move it into the container and configure it.
//!
//! The order of calls is libnetwork's (seen with dockerd 28.5): `CreateEndpoint`, `Join`, `ProgramExternalConnectivity`;
//! `RevokeExternalConnectivity`, `Leave`, `DeleteEndpoint`. Plugins are called without a lock.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use serde_json::{Value, json};
use wharf_ipam::{Cidr, MacAddress};
use wharf_netlink::route::{self, Which};
use wharf_netlink::{Errno, Family, Requests, Socket};
use wharf_plugin::network::{CAPABILITY, Driver as Methods, Interface, Joined, Options, PortMap, Range};
use wharf_plugin::{Plugin, PluginError};
use wharf_types::ContainerId;

use crate::addresses::Given;
use crate::networks::{Networks, Shared, lock};
use crate::publish::addresses;
use crate::sandbox::failed;
use crate::spec::{Addressing, Driver, NetworkSpec, RemoteDriver, Subnet};
use crate::{Endpoint, JoinRequest, NetworkError, PortRequest, netns, random, sysctl};

const GENERIC: &str = "com.docker.network.generic";
const IPV4: &str = "com.docker.network.enable_ipv4";
const IPV6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";
const EXPOSED: &str = "com.docker.network.endpoint.exposedports";
const PORTS: &str = "com.docker.network.portmap";

fn remote(spec: &NetworkSpec) -> Option<&RemoteDriver> {
    match &spec.driver {
        Driver::Remote(driver) => Some(driver),
        Driver::Bridge(_) | Driver::Macvlan(_) => None,
    }
}

fn invalid(method: &str, what: &str) -> NetworkError {
    PluginError::Answer { method: format!("{CAPABILITY}.{method}"), reason: what.to_owned() }.into()
}

/// A range as plugins are told of it.
fn range(spec: &NetworkSpec, subnet: &Subnet) -> Range {
    let address_space = match (&spec.addressing, &subnet.pool) {
        (_, Some(pool)) => pool.space.clone(),
        (Addressing::Own, None) => "LocalDefault".to_owned(),
        (Addressing::Nothing | Addressing::Plugin(_), None) => "null".to_owned(),
    };
    let with_prefix = |a: &IpAddr| format!("{a}/{}", subnet.subnet.prefix());
    Range {
        address_space,
        pool: subnet.subnet.to_string(),
        gateway: subnet.gateway.as_ref().map(with_prefix).unwrap_or_default(),
        aux_addresses: subnet.taken.iter().map(|(name, a)| (name.clone(), with_prefix(a))).collect(),
    }
}

/// What [`Shared::connect_remote`] needs.
struct Link<'a> {
    interface: &'a Interface,
    joined: &'a Joined,
    request: &'a JoinRequest,
    ipv4: Option<Cidr>,
    ipv6: Option<Cidr>,
}

impl Networks {
    /// The scope of a driver behind a plugin: `local` or `global`. Blocks.
    pub fn driver_scope(&self, driver: &str) -> Result<String, NetworkError> {
        let plugin = self.shared.config.plugins.get(driver, CAPABILITY)?;
        Ok(Methods(&plugin).scope()?)
    }

    /// Names of the drivers behind plugins that were used.
    pub fn drivers(&self) -> Vec<String> {
        self.shared.config.plugins.activated(CAPABILITY)
    }
}

impl Shared {
    fn plugin(&self, driver: &RemoteDriver) -> Result<std::sync::Arc<Plugin>, NetworkError> {
        Ok(self.config.plugins.get(&driver.name, CAPABILITY)?)
    }

    /// The network, if it is a plugin's.
    pub(crate) fn remote_net(&self, network: &str) -> Option<NetworkSpec> {
        let state = lock(&self.state);
        state.nets.get(network)?.spec.clone().filter(|s| remote(s).is_some())
    }

    /// Has the plugin make its network. Other networks need nothing.
    pub(crate) fn create_remote(&self, spec: &NetworkSpec) -> Result<(), NetworkError> {
        let Some(driver) = remote(spec) else { return Ok(()) };
        let of_family = |six: bool| -> Vec<Range> {
            let all = spec.subnets.iter().filter(|s| s.subnet.is_ipv6() == six);
            all.map(|s| range(spec, s)).collect()
        };
        let mut options: Options = [
            (GENERIC.to_owned(), json!(driver.options)),
            (IPV4.to_owned(), json!(driver.ipv4)),
            (IPV6.to_owned(), json!(driver.ipv6)),
        ]
        .into();
        if spec.internal {
            options.insert(INTERNAL.to_owned(), json!(true));
        }
        let mut four = of_family(false);
        if driver.ipv4 && four.is_empty() {
            // The null address manager's pool.
            four.push(Range { address_space: "null".into(), pool: "0.0.0.0/0".into(), ..Range::default() });
        }
        Ok(Methods(&*self.plugin(driver)?).create_network(&spec.id, &options, &four, &of_family(true))?)
    }

    /// Has the plugin remove its network. As with Docker the network is gone whatever the plugin says.
    pub(crate) fn delete_remote(&self, spec: &NetworkSpec) {
        let Some(driver) = remote(spec) else { return };
        let gone = self.plugin(driver).and_then(|p| Ok(Methods(&p).delete_network(&spec.id)?));
        if let Err(error) = gone {
            tracing::warn!(network = spec.id, driver = driver.name, %error, "the plugin cannot remove the network");
        }
    }

    /// Joins a container to a plugin's network. On error nothing stays.
    pub(crate) fn join_remote(
        &self,
        spec: &NetworkSpec,
        netns: BorrowedFd<'_>,
        container: &ContainerId,
        request: &JoinRequest,
    ) -> Result<Endpoint, NetworkError> {
        let Some(driver) = remote(spec) else { return Err(NetworkError::NoNetwork(spec.id.clone())) };
        if request.egress.is_some() {
            return Err(NetworkError::EgressDriver);
        }
        let plugin = self.plugin(driver)?;
        let (ipv4, ipv6, mac) = self.take_addresses(spec, request)?;
        let give_back = || self.give_back_addresses(spec, &[ipv4, ipv6]);
        let text = |cidr: Option<Cidr>| cidr.map(|c| c.to_string()).unwrap_or_default();
        let interface = Interface {
            address: text(ipv4),
            address_v6: text(ipv6),
            mac_address: mac.map(|m| m.to_string()).unwrap_or_default(),
        };
        let ports: Options = [(EXPOSED.to_owned(), json!([])), (PORTS.to_owned(), json!([]))].into();
        let id = random::id().inspect_err(|_| give_back())?;
        let options: Options =
            request.options.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).chain(ports.clone()).collect();
        let methods = Methods(&plugin);
        let made = methods.create_endpoint(&spec.id, &id, &interface, &options).map_err(NetworkError::from);
        let given = made.inspect_err(|_| give_back())?;
        let connected = merge(&interface, given).and_then(|interface| {
            // A path that the plugin can open while this call lasts; most need none.
            let key = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
            let joined = methods.join(&spec.id, &id, &key, &ports)?;
            let families = addresses_of(&interface)?;
            let link = Link { interface: &interface, joined: &joined, request, ipv4: families.0, ipv6: families.1 };
            let outcome = self.connect_remote(netns, &link);
            outcome.map(|(name, mac)| (name, mac, families, joined)).inspect_err(|_| {
                if let Err(error) = methods.leave(&spec.id, &id) {
                    tracing::warn!(driver = driver.name, %error, "cannot take an endpoint back");
                }
            })
        });
        let (link, mac, families, joined) = match connected {
            Ok(all) => all,
            Err(e) => {
                if let Err(error) = methods.delete_endpoint(&spec.id, &id) {
                    tracing::warn!(driver = driver.name, %error, "cannot take an endpoint back");
                }
                give_back();
                return Err(e);
            }
        };
        let endpoint = Endpoint {
            id,
            network: request.network.clone(),
            sandbox: request.sandbox.clone(),
            container: container.clone(),
            host_link: String::new(),
            link,
            mac,
            ipv4: families.0,
            gateway: joined.gateway.parse().ok(),
            ipv6: families.1,
            gateway_v6: joined.gateway_v6.parse().ok(),
            ports: Vec::new(),
            egress: None,
            source: joined.interface_name.src_name,
            programmed: false,
        };
        lock(&self.state).endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// Takes addresses from whoever has them.
    pub(crate) fn take_addresses(&self, spec: &NetworkSpec, request: &JoinRequest) -> Result<Given, NetworkError> {
        match &spec.addressing {
            Addressing::Plugin(_) => self.take_of_plugin(spec, (request.ipv4, request.ipv6), request.mac),
            Addressing::Nothing => Ok((None, None, request.mac)),
            Addressing::Own => {
                let mut state = lock(&self.state);
                let unknown = || NetworkError::NoNetwork(request.network.clone());
                let net = state.nets.get_mut(&request.network).ok_or_else(unknown)?;
                let (four, six) = net.take(request.ipv4, request.ipv6)?;
                Ok((four, six, request.mac))
            }
        }
    }

    /// Gives addresses back to whom they came from.
    pub(crate) fn give_back_addresses(&self, spec: &NetworkSpec, all: &[Option<Cidr>]) {
        let all = || all.iter().flatten().map(Cidr::address);
        match &spec.addressing {
            Addressing::Own => {
                let mut state = lock(&self.state);
                all().for_each(|a| state.give_back(&spec.id, a));
            }
            Addressing::Nothing => {}
            Addressing::Plugin(_) => self.give_back_to_plugin(spec, all()),
        }
    }

    /// Moves the plugin's link into the container and configures it. Returns its name there and its Ethernet address.
    fn connect_remote(&self, netns: BorrowedFd<'_>, wanted: &Link<'_>) -> Result<(String, MacAddress), NetworkError> {
        let source = &wanted.joined.interface_name.src_name;
        if source.is_empty() {
            return Err(invalid("Join", "no interface name"));
        }
        let name = netns::within(&self.home, netns, || inner_name(wanted))?;
        {
            let mut host = lock(&self.host);
            move_out(&mut host, source, netns, &name).map_err(failed("moving link", source))?;
        }
        let configured = netns::within(&self.home, netns, || configure(&name, wanted));
        configured.inspect_err(|_| self.bring_back(netns, &name, source)).map(|mac| (name, mac))
    }

    /// Moves a plugin's link out of a container again, where the plugin will look for it.
    pub(crate) fn bring_back(&self, netns: BorrowedFd<'_>, link: &str, source: &str) {
        let moved = netns::within(&self.home, netns, || {
            let fail = failed("moving link", link);
            let mut inner = Socket::open(Family::Route).map_err(&fail)?;
            match move_out(&mut inner, link, self.home.as_fd(), source) {
                Err(e) if e.is(Errno::NODEV) => Ok(()),
                other => other.map_err(fail),
            }
        });
        if let Err(error) = moved {
            tracing::warn!(link, error = %wharf_error::Chain(&error), "cannot give a plugin's link back");
        }
    }

    /// Tells the plugin to open ports.
    pub(crate) fn program(&self, endpoint: &mut Endpoint, requests: &[PortRequest]) -> Result<(), NetworkError> {
        let Some(spec) = self.remote_net(&endpoint.network).filter(|_| !endpoint.programmed) else { return Ok(()) };
        let Some(driver) = remote(&spec) else { return Ok(()) };
        let exposed: Vec<Value> =
            requests.iter().map(|r| json!({"Proto": r.protocol.number(), "Port": r.container_port})).collect();
        let map = |r: &PortRequest| PortMap {
            proto: r.protocol.number(),
            ip: String::new(),
            port: r.container_port,
            host_ip: r.host_ip.map(|a| a.to_string()).unwrap_or_default(),
            host_port: r.host_port,
            host_port_end: r.host_port_end,
        };
        let ports: Vec<PortMap> = requests.iter().map(map).collect();
        let options: Options = [(EXPOSED.to_owned(), json!(exposed)), (PORTS.to_owned(), json!(ports))].into();
        Methods(&*self.plugin(driver)?).program_external(&spec.id, &endpoint.id, &options)?;
        endpoint.programmed = true;
        lock(&self.state).endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(())
    }

    /// Tells the plugin to close them.
    pub(crate) fn deprogram(&self, endpoint: &mut Endpoint) {
        if !std::mem::take(&mut endpoint.programmed) {
            return;
        }
        let Some(spec) = self.remote_net(&endpoint.network) else { return };
        let Some(driver) = remote(&spec) else { return };
        let done = self.plugin(driver).and_then(|p| Ok(Methods(&p.hurried()).revoke_external(&spec.id, &endpoint.id)?));
        if let Err(error) = done {
            tracing::warn!(driver = driver.name, %error, "the plugin cannot close ports");
        }
    }

    /// Takes an endpoint away from plugins that have a part in it. As with Docker it is gone whatever they say.
    /// `back` is called between `Leave` and `DeleteEndpoint`.
    pub(crate) fn leave_remote(&self, endpoint: &Endpoint, back: impl FnOnce()) {
        let spec = lock(&self.state).nets.get(&endpoint.network).and_then(|n| n.spec.clone());
        let Some(spec) = spec else { return };
        if let Some(driver) = remote(&spec) {
            self.deprogram(&mut endpoint.clone());
            let warn = |error: NetworkError| {
                tracing::warn!(driver = driver.name, %error, "the plugin cannot remove an endpoint");
            };
            match self.plugin(driver) {
                Ok(plugin) => {
                    let plugin = plugin.hurried();
                    let methods = Methods(&plugin);
                    let left = methods.leave(&spec.id, &endpoint.id);
                    back();
                    let gone = methods.delete_endpoint(&spec.id, &endpoint.id);
                    left.err().into_iter().chain(gone.err()).for_each(|e| warn(e.into()));
                }
                Err(e) => {
                    back();
                    warn(e);
                }
            }
        }
        self.give_back_to_plugin(&spec, addresses(endpoint).into_iter());
    }
}

/// What an endpoint has together with what its driver added. A driver must not change what there is.
fn merge(have: &Interface, given: Interface) -> Result<Interface, NetworkError> {
    let one = |what: &str, have: &str, given: String| match (have.is_empty(), given.is_empty()) {
        (false, false) => Err(invalid("CreateEndpoint", &format!("endpoint interface {what} is already set: {have}"))),
        (true, false) => Ok(given),
        (_, true) => Ok(have.to_owned()),
    };
    Ok(Interface {
        address: one("IP", &have.address, given.address)?,
        address_v6: one("IPv6", &have.address_v6, given.address_v6)?,
        mac_address: one("MAC address", &have.mac_address, given.mac_address)?,
    })
}

fn addresses_of(interface: &Interface) -> Result<(Option<Cidr>, Option<Cidr>), NetworkError> {
    let read = |text: &str, six: bool| match text {
        "" => Ok(None),
        text => {
            let parsed = text.parse::<Cidr>().ok().filter(|c| c.is_ipv6() == six);
            parsed.map(Some).ok_or_else(|| invalid("CreateEndpoint", &format!("invalid address {text:?}")))
        }
    };
    Ok((read(&interface.address, false)?, read(&interface.address_v6, true)?))
}

fn is_link_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    !name.is_empty() && name.len() <= 15 && !matches!(name, "." | ".." | "lo") && !name.contains(bad)
}

/// Moves a link to another namespace and gives it another name. By its number: with a name the kernel would look for the
/// new one.
fn move_out(
    socket: &mut Socket,
    link: &str,
    netns: BorrowedFd<'_>,
    name: &str,
) -> Result<(), wharf_netlink::NetlinkError> {
    let index = route::link(socket, Which::Name(link))?.index;
    let mut requests = Requests::new();
    route::set_down(&mut requests, Which::Index(index));
    route::move_link(&mut requests, Which::Index(index), netns, name);
    socket.call(&mut requests)
}

/// The link's name in the container: what the client asked for, the plugin's whole name, or its prefix and a number.
/// Called in the container's namespace.
fn inner_name(wanted: &Link<'_>) -> Result<String, NetworkError> {
    let names = &wanted.joined.interface_name;
    let name = if wanted.request.named {
        wanted.request.link.clone()
    } else if !names.dst_name.is_empty() {
        names.dst_name.clone()
    } else {
        let mut inner = Socket::open(Family::Route).map_err(failed("reading links in", "namespace"))?;
        let links = route::links(&mut inner).map_err(failed("reading links in", "namespace"))?;
        let prefix = if names.dst_prefix.is_empty() { "eth" } else { &names.dst_prefix };
        let free = (0..).map(|n| format!("{prefix}{n}")).find(|n| !links.iter().any(|l| l.name == *n));
        free.unwrap_or_default()
    };
    if is_link_name(&name) { Ok(name) } else { Err(invalid("Join", &format!("invalid interface name {name:?}"))) }
}

/// The container's side, in its namespace.
fn configure(name: &str, wanted: &Link<'_>) -> Result<MacAddress, NetworkError> {
    let fail = failed("configuring", name);
    let mut inner = Socket::open(Family::Route).map_err(&fail)?;
    let link = route::link(&mut inner, Which::Name(name)).map_err(&fail)?;
    if wanted.ipv6.is_some() {
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        // As on our own links (CVE-2020-13401, CVE-2024-32473).
        sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    } else {
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    crate::join::set_sysctls(name, &wanted.request.sysctls)?;
    let mut requests = Requests::new();
    let mac = match wanted.interface.mac_address.as_str() {
        "" => link.mac.map(MacAddress),
        text => {
            let wrong = || invalid("CreateEndpoint", &format!("invalid MAC address {text:?}"));
            let mac: MacAddress = text.parse().map_err(|_| wrong())?;
            route::set_mac(&mut requests, Which::Index(link.index), mac.0);
            Some(mac)
        }
    };
    for address in [wanted.ipv4, wanted.ipv6].into_iter().flatten() {
        let broadcast = address.broadcast().map(IpAddr::V4);
        route::add_address(&mut requests, link.index, address.address(), address.prefix(), broadcast);
    }
    for address in &wanted.request.link_local {
        route::add_address(&mut requests, link.index, *address, if address.is_ipv6() { 64 } else { 16 }, None);
    }
    if let Some(rate) = wanted.request.rate_out {
        route::set_bucket(&mut requests, link.index, rate.bucket());
    }
    route::set_up(&mut requests, Which::Index(link.index));
    inner.call(&mut requests).map_err(&fail)?;
    for wanted in &wanted.joined.static_routes {
        let wrong = || invalid("Join", &format!("invalid static route {:?}", wanted.destination));
        let to: Cidr = wanted.destination.parse().map_err(|_| wrong())?;
        let to = (to.network().address(), to.prefix());
        let mut requests = Requests::new();
        match wanted.route_type {
            0 => {
                let by: IpAddr = wanted.next_hop.parse().map_err(|_| wrong())?;
                route::add_route(&mut requests, Some(to), by, link.index);
            }
            1 => route::add_link_route(&mut requests, to, link.index),
            _ => return Err(wrong()),
        }
        inner.call(&mut requests).map_err(failed("failed to add static route", &wanted.destination))?;
    }
    // A link without Ethernet address (a tunnel) is shown with zeros.
    Ok(mac.unwrap_or(MacAddress([0; 6])))
}
