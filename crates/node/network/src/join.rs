//! Endpoints in a namespace that a container has already: user-defined networks, live connect and disconnect.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use wharf_ipam::{Cidr, MacAddress};
use wharf_netlink::route::{self, Veth, Which};
use wharf_netlink::{Errno, Family, Requests, Socket};
use wharf_types::ContainerId;

use crate::links::{Base, is_filtered};
use crate::networks::{Networks, Shared, lock};
use crate::publish::addresses;
use crate::sandbox::{failed, mac_of};
use crate::spec::{Addressing, NetworkSpec};
use crate::{Endpoint, JoinRequest, NetworkError, Rate, netns, random, sysctl};

/// What [`Shared::connect`] needs to know of a network.
struct Target {
    base: Base,
    mtu: u32,
    gateway: Option<IpAddr>,
    gateway_v6: Option<IpAddr>,
    ipv4: Option<Cidr>,
    ipv6: Option<Cidr>,
    announce: bool,
    /// The Ethernet address that a plugin was asked with.
    mac: Option<MacAddress>,
    /// The network, if a plugin handed out the addresses.
    of_plugin: Option<NetworkSpec>,
}

impl Target {
    /// A name for the host's end of the link; macvlan has none.
    fn link_name(&self) -> Result<String, NetworkError> {
        match self.base {
            Base::Bridge { .. } => random::link(),
            Base::Macvlan { .. } | Base::Plugin => Ok(String::new()),
        }
    }
}

impl Networks {
    /// Connects a container's namespace to a network: link, addresses, parameters. Without default route and published
    /// ports: see [`Networks::set_gateways`] and [`Networks::publish`]. On error nothing stays.
    pub fn join(
        &self,
        netns: BorrowedFd<'_>,
        container: &ContainerId,
        request: &JoinRequest,
    ) -> Result<Endpoint, NetworkError> {
        let shared = &self.shared;
        if let Some(spec) = shared.remote_net(&request.network) {
            return shared.join_remote(&spec, netns, container, request);
        }
        let target = shared.take(request)?;
        let give_back = || {
            if let Some(spec) = &target.of_plugin {
                return shared.give_back_addresses(spec, &[target.ipv4, target.ipv6]);
            }
            let mut state = lock(&shared.state);
            for address in [target.ipv4, target.ipv6].into_iter().flatten() {
                state.give_back(&request.network, address.address());
            }
        };
        let prepared = random::id().and_then(|id| Ok((id, shared.mac(&target)?, target.link_name()?)));
        let (id, mac, host_link) = prepared.inspect_err(|_| give_back())?;
        let endpoint = Endpoint {
            id,
            network: request.network.clone(),
            sandbox: request.sandbox.clone(),
            container: container.clone(),
            host_link,
            link: request.link.clone(),
            mac,
            ipv4: target.ipv4,
            gateway: target.gateway.and_then(|g| if let IpAddr::V4(g) = g { Some(g) } else { None }),
            ipv6: target.ipv6,
            gateway_v6: target.gateway_v6.and_then(|g| if let IpAddr::V6(g) = g { Some(g) } else { None }),
            ports: Vec::new(),
            egress: request.egress.clone(),
            source: String::new(),
            programmed: false,
        };
        // Before there is a link: it must never have been without its policy.
        let made = shared.police(&endpoint).and_then(|()| {
            shared.connect(netns, request, &target, &endpoint).inspect_err(|_| {
                if let Err(error) = shared.unpolice(&endpoint) {
                    tracing::warn!(error = %wharf_error::Chain(&error), "cannot take back an egress policy");
                }
            })
        });
        if let Err(e) = made {
            give_back();
            return Err(e);
        }
        if endpoint.egress.is_some() {
            // Who is to hear of refusals may have to begin to listen.
            self.worker.refill();
        }
        lock(&shared.state).endpoints.insert(endpoint.id.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// Takes an endpoint out of a namespace that goes on: link, rules, address, ports. One that is gone is success.
    pub fn leave(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let mut removed = Ok(());
        self.detach_with(endpoint, || match endpoint.source.as_str() {
            "" => {
                removed = netns::within(&self.shared.home, netns, || match route::remove_link(&endpoint.link) {
                    Err(e) if e.is(Errno::NODEV) => Ok(()),
                    other => other.map_err(failed("removing link", &endpoint.link)),
                });
            }
            source => self.shared.bring_back(netns, &endpoint.link, source),
        })
        .and(removed)
    }

    /// Sets a namespace's default routes to these endpoints' gateways; a family without endpoint has none.
    pub fn set_gateways(
        &self,
        netns: BorrowedFd<'_>,
        ipv4: Option<&Endpoint>,
        ipv6: Option<&Endpoint>,
    ) -> Result<(), NetworkError> {
        netns::within(&self.shared.home, netns, || {
            let fail = failed("setting routes in", "namespace");
            let mut inner = Socket::open(Family::Route).map_err(&fail)?;
            for (six, endpoint) in [(false, ipv4), (true, ipv6)] {
                let gateway =
                    endpoint.and_then(|e| if six { e.gateway_v6.map(IpAddr::V6) } else { e.gateway.map(IpAddr::V4) });
                let mut requests = Requests::new();
                match endpoint.zip(gateway) {
                    Some((endpoint, gateway)) => {
                        let link = route::link(&mut inner, Which::Name(&endpoint.link)).map_err(&fail)?.index;
                        if six {
                            // Replacing adds a second route where the gateways differ (RFC 4191 multipath).
                            drop_default(&mut inner, true)?;
                        }
                        route::replace_default(&mut requests, six, Some(gateway), link);
                        inner.call(&mut requests).map_err(&fail)?;
                    }
                    None => drop_default(&mut inner, six)?,
                }
            }
            Ok(())
        })
    }
}

/// Deletes the default routes of a family.
fn drop_default(inner: &mut Socket, ipv6: bool) -> Result<(), NetworkError> {
    // There is one, seldom two; a bound keeps a container that adds its own from holding us up.
    for _ in 0..8 {
        let mut requests = Requests::new();
        route::delete_default(&mut requests, ipv6);
        match inner.call(&mut requests) {
            Ok(()) => {}
            // No such route; or a kernel without IPv6.
            Err(e) if [Errno::SRCH, Errno::NOENT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT].iter().any(|n| e.is(*n)) => {
                return Ok(());
            }
            Err(e) => return Err(failed("removing routes in", "namespace")(e)),
        }
    }
    Ok(())
}

impl Shared {
    fn take(&self, request: &JoinRequest) -> Result<Target, NetworkError> {
        let unknown = || NetworkError::NoNetwork(request.network.clone());
        let of_plugin = {
            let state = lock(&self.state);
            let net = state.nets.get(&request.network).ok_or_else(unknown)?;
            net.spec.clone().filter(|s| s.addressing != Addressing::Own)
        };
        // Asked without the lock: it may take its time.
        let given = of_plugin.as_ref().map(|spec| self.take_addresses(spec, request)).transpose()?;
        let mut state = lock(&self.state);
        let Some(net) = state.nets.get_mut(&request.network) else {
            drop(state);
            if let (Some(spec), Some((ipv4, ipv6, _))) = (&of_plugin, given) {
                self.give_back_addresses(spec, &[ipv4, ipv6]);
            }
            return Err(unknown());
        };
        let (ipv4, ipv6, mac) = match given {
            Some(given) => given,
            None => {
                let (ipv4, ipv6) = net.take(request.ipv4, request.ipv6)?;
                (ipv4, ipv6, request.mac)
            }
        };
        let (base, mtu, gateway, gateway_v6) = (net.base, net.mtu, net.gateway, net.gateway_v6);
        let first = ipv4.or(ipv6).map(|c| c.address());
        let announce = first.is_some_and(|a| state.strange.remove(&(request.network.clone(), a)));
        Ok(Target { base, mtu, gateway, gateway_v6, ipv4, ipv6, announce, mac, of_plugin })
    }

    /// The Ethernet address of an endpoint.
    fn mac(&self, target: &Target) -> Result<MacAddress, NetworkError> {
        let own = target.ipv4.or(target.ipv6).map(|c| mac_of(c.address()));
        target.mac.or(own).map_or_else(random::mac, Ok)
    }

    /// Makes the link and configures it.
    fn connect(
        &self,
        netns: BorrowedFd<'_>,
        request: &JoinRequest,
        target: &Target,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let mut requests = Requests::new();
        let alias = format!("wharf:{}:{}", self.config.instance, endpoint.container);
        put_link(&mut requests, netns, &endpoint.host_link, endpoint.mac, request, target, &alias);
        lock(&self.host).call(&mut requests).map_err(failed("adding link", &request.link))?;
        let guarded = match &endpoint.egress {
            Some(_) => self.guard(&endpoint.host_link, &addresses(endpoint)),
            None => Ok(()),
        };
        // What the host's end sends, the container receives.
        let limited = guarded.and_then(|()| match request.rate_in {
            Some(rate) => limit(&mut lock(&self.host), &endpoint.host_link, rate),
            None => Ok(()),
        });
        let configured = limited.and_then(|()| netns::within(&self.home, netns, || configure(request, target)));
        if let Err(e) = configured {
            // The first failure is the one to tell; the container's end takes the host's with it.
            let _ = netns::within(&self.home, netns, || {
                let mut requests = Requests::new();
                route::delete_link(&mut requests, Which::Name(&request.link));
                let mut inner = Socket::open(Family::Route).map_err(failed("removing link", &request.link))?;
                inner.call(&mut requests).map_err(failed("removing link", &request.link))
            });
            return Err(e);
        }
        Ok(())
    }
}

fn limit(host: &mut Socket, name: &str, rate: Rate) -> Result<(), NetworkError> {
    let link = route::link(host, Which::Name(name)).map_err(failed("limiting the rate of", name))?.index;
    let mut requests = Requests::new();
    route::set_bucket(&mut requests, link, rate.bucket());
    host.call(&mut requests).map_err(failed("limiting the rate of", name))
}

fn put_link(
    requests: &mut Requests,
    netns: BorrowedFd<'_>,
    host_link: &str,
    mac: MacAddress,
    request: &JoinRequest,
    target: &Target,
    alias: &str,
) {
    match target.base {
        Base::Bridge { index, isolated } => {
            let veth = Veth {
                name: host_link,
                master: Some(index),
                peer: &request.link,
                peer_mac: Some(mac.0),
                peer_netns: netns.as_fd(),
                mtu: target.mtu,
            };
            route::add_veth(requests, &veth);
            let which = Which::Name(host_link);
            route::set_no_link_local(requests, which);
            route::set_alias(requests, which, alias);
            // See Sandbox::build.
            let hairpin = is_filtered(false);
            let isolated = isolated && !(hairpin && (target.ipv6.is_none() || is_filtered(true)));
            if hairpin || isolated {
                route::set_port(requests, which, hairpin, isolated);
            }
            route::set_up(requests, which);
        }
        Base::Macvlan { parent, mode } => {
            // Passthru takes the parent's own address unless told otherwise.
            let own = (mode != route::MacvlanMode::Passthru || request.mac.is_some()).then_some(mac.0);
            route::add_macvlan(requests, parent, mode, &request.link, own, netns, target.mtu);
        }
        // The plugin made it: see Shared::join_remote.
        Base::Plugin => {}
    }
}

/// The container's side, in its namespace: parameters first, since some act when the link is raised.
fn configure(request: &JoinRequest, target: &Target) -> Result<(), NetworkError> {
    let name = &request.link;
    let mut inner = Socket::open(Family::Route).map_err(failed("configuring", name))?;
    let link = route::link(&mut inner, Which::Name(name)).map_err(failed("configuring", name))?.index;
    if target.ipv6.is_some() {
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        // Routes come from the engine, never from who sends router advertisements (CVE-2020-13401).
        sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    } else {
        // A container on an IPv4 network must not speak IPv6 to its neighbours (CVE-2024-32473).
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    if target.mac.is_some() || target.announce {
        sysctl::write(&format!("ipv4/conf/{name}/arp_notify"), "1")?;
    }
    set_sysctls(name, &request.sysctls)?;
    let mut requests = Requests::new();
    for address in [target.ipv4, target.ipv6].into_iter().flatten() {
        let broadcast = address.broadcast().map(IpAddr::V4);
        route::add_address(&mut requests, link, address.address(), address.prefix(), broadcast);
    }
    for address in &request.link_local {
        let prefix = if address.is_ipv6() { 64 } else { 16 };
        route::add_address(&mut requests, link, *address, prefix, None);
    }
    if let Some(rate) = request.rate_out {
        route::set_bucket(&mut requests, link, rate.bucket());
    }
    route::set_up(&mut requests, Which::Index(link));
    match inner.call(&mut requests) {
        Err(e) if e.is(Errno::ADDRINUSE) => raise_patiently(&mut inner, link, name),
        other => other.map_err(failed("configuring", name)),
    }
}

/// Sets what was asked of a link, in its namespace.
pub(crate) fn set_sysctls(link: &str, wanted: &[(String, String)]) -> Result<(), NetworkError> {
    for (parameter, value) in wanted {
        let path = parameter.trim_start_matches("net.").replace('.', "/").replace("IFNAME", link);
        sysctl::write(&path, value).map_err(|e| match e {
            NetworkError::Io { source, .. } => NetworkError::Sysctl { name: parameter.clone(), source },
            other => other,
        })?;
    }
    Ok(())
}

/// How long a macvlan link waits for another one with its Ethernet address to go.
const LINGER: Duration = Duration::from_secs(5);

/// Raises a macvlan link whose Ethernet address another link of its parent has: that of a container that ended, whose
/// namespace the kernel takes down by deferred work. One that stays is another container's, and the caller is told.
fn raise_patiently(inner: &mut Socket, link: u32, name: &str) -> Result<(), NetworkError> {
    let asked = Instant::now();
    loop {
        let mut requests = Requests::new();
        route::set_up(&mut requests, Which::Index(link));
        match inner.call(&mut requests) {
            Err(e) if e.is(Errno::ADDRINUSE) && asked.elapsed() < LINGER => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other.map_err(failed("configuring", name)),
        }
    }
}
