//! What the resolver knows of containers: their names on user-defined networks, and what each may ask.
//!
//! The resolver's sockets of a container are held by its shim, as the first two of the sockets that it holds, so that
//! queries wait in them while no daemon serves; the next daemon duplicates them (pidfd_getfd(2)).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use wharf_dns::{Client, Host, Sockets, Upstream};
use wharf_network::{DEFAULT_NETWORK, Endpoint, NetworkError};

use super::{Lifecycle, files};
use crate::container::{ContainerRecord, Sandbox, View};

/// The numbers that the resolver's sockets have in a shim: its held descriptors begin at 6 (ARCHITECTURE.md).
const UDP_FD: i32 = 6;
const TCP_FD: i32 = 7;

/// Whether a container asks our resolver: it is on a network that a user defined, or its policy may name names.
pub(super) fn is_resolved(sandbox: &Sandbox) -> bool {
    sandbox.endpoints.values().any(|e| e.network != DEFAULT_NETWORK || e.egress.is_some())
}

impl Lifecycle {
    /// Opens the sockets of a container that is about to start; the shim is to hold the returned ones.
    pub(super) fn open_names(
        &self,
        record: &ContainerRecord,
        sandbox: &mut Sandbox,
        netns: &OwnedFd,
    ) -> Result<Vec<OwnedFd>, NetworkError> {
        if !is_resolved(sandbox) {
            return Ok(Vec::new());
        }
        let sockets = self.networks.open_resolver(netns.as_fd())?;
        let Sockets { udp, tcp } = sockets.try_clone()?;
        sandbox.resolver = true;
        self.serve(record, sandbox, netns, sockets);
        Ok(vec![udp, tcp])
    }

    fn serve(&self, record: &ContainerRecord, sandbox: &Sandbox, netns: &OwnedFd, sockets: Sockets) {
        self.announce(record, sandbox);
        let client = self.client(record, sandbox, netns);
        self.resolver.serve(record.id.as_str(), sockets, client);
    }

    /// Brings the resolver in line with the networks that a running container is on now.
    pub(super) fn change_names(
        &self,
        record: &ContainerRecord,
        sandbox: &Sandbox,
        netns: &OwnedFd,
    ) -> Result<(), NetworkError> {
        if self.resolver.serves(record.id.as_str()) {
            self.announce(record, sandbox);
            self.resolver.change(record.id.as_str(), self.client(record, sandbox, netns));
        } else if is_resolved(sandbox) {
            let sockets = self.networks.open_resolver(netns.as_fd())?;
            self.keep(&record.id, |kept| kept.resolver = sockets.try_clone().ok());
            self.serve(record, sandbox, netns, sockets);
        }
        Ok(())
    }

    /// Forgets a container that ended.
    pub(super) fn forget_names(&self, record: &ContainerRecord) {
        self.resolver.names(|names| names.remove(record.id.as_str()));
        self.resolver.forget(record.id.as_str());
    }

    /// A container has another name now.
    pub(crate) fn rename(&self, view: &View) {
        if let Some(sandbox) = &view.sandbox {
            self.announce(&view.record, sandbox);
        }
    }

    /// Tells the others on its networks a container's names.
    fn announce(&self, record: &ContainerRecord, sandbox: &Sandbox) {
        let ports: Vec<(String, u16)> = record
            .config
            .exposed_ports
            .iter()
            .flat_map(|p| p.keys())
            .chain(record.host.port_bindings.iter().flat_map(|p| p.keys()))
            .filter_map(|text| {
                let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
                Some((protocol.to_owned(), port.parse().ok()?))
            })
            .collect();
        self.resolver.names(|all| {
            all.remove(record.id.as_str());
            for (network, endpoint) in sandbox.endpoints.iter().filter(|(_, e)| e.network != DEFAULT_NETWORK) {
                let host = Host {
                    key: record.id.to_string(),
                    ipv4: endpoint
                        .ipv4
                        .and_then(|c| if let std::net::IpAddr::V4(a) = c.address() { Some(a) } else { None }),
                    ipv6: endpoint
                        .ipv6
                        .and_then(|c| if let std::net::IpAddr::V6(a) = c.address() { Some(a) } else { None }),
                    ports: ports.clone(),
                };
                let settings = record.networks.get(network).cloned().unwrap_or_default();
                all.zone(&endpoint.network, network).set(&record.dns_names(&settings), &host);
            }
        });
    }

    /// What a container may ask, and of whom.
    fn client(&self, record: &ContainerRecord, sandbox: &Sandbox, netns: &OwnedFd) -> Client {
        let mut links = HashMap::new();
        for settings in record.networks.values() {
            for link in settings.links.iter().flatten() {
                let (name, alias) = super::links::split(link);
                let name = self.registry.find(name).map_or_else(|_| name.to_owned(), |c| c.view().record.name.clone());
                links.insert(alias.to_ascii_lowercase(), name);
            }
        }
        let (permits, observer) = self.watch_names(record, sandbox);
        // From its own namespace a policy would refuse the question.
        let policed = observer.is_some();
        let upstream = |server: wharf_network::Server| Upstream {
            address: SocketAddr::new(server.address, 53),
            from_host: server.from_host || policed,
        };
        let outside = |e: &Endpoint| e.gateway.is_some() || e.gateway_v6.is_some();
        Client {
            networks: self.searched(record, sandbox),
            links,
            upstreams: files::upstreams(self, record).into_iter().map(upstream).collect(),
            external: sandbox.endpoints.values().any(|e| outside(e) || self.is_external(e)),
            netns: netns.try_clone().ok().map(Arc::new),
            permits,
            observer,
        }
    }

    /// Networks in the order in which names are searched: that of the default route first.
    fn searched(&self, record: &ContainerRecord, sandbox: &Sandbox) -> Vec<String> {
        let mut all: Vec<(&String, &Endpoint)> = sandbox.endpoints.iter().collect();
        all.sort_by_key(|(name, _)| (std::cmp::Reverse(record.gateway_priority(name)), *name));
        all.into_iter().map(|(_, e)| e.network.clone()).filter(|n| n != DEFAULT_NETWORK).collect()
    }

    /// A network without gateway of its own that is not internal (macvlan, `inhibit_ipv4`).
    fn is_external(&self, endpoint: &Endpoint) -> bool {
        self.catalog.find(&endpoint.network).is_ok_and(|n| !n.internal)
    }

    /// Serves a container that an earlier daemon started.
    pub(crate) fn adopt_names(&self, view: &View) {
        let (Some(sandbox), Some(task)) = (&view.sandbox, &view.task) else { return };
        if !is_resolved(sandbox) {
            return;
        }
        let record = &view.record;
        let outcome = self.namespace(view).map_err(|e| e.to_string()).and_then(|netns| {
            let at = sandbox.resolver_at.or(sandbox.resolver.then_some((UDP_FD, TCP_FD)));
            let held = at.and_then(|at| held_sockets(task.shim.pid(), at));
            let sockets = match held {
                Some(sockets) => sockets,
                None => self.networks.open_resolver(netns.as_fd()).map_err(|e| wharf_error::Chain(&e).to_string())?,
            };
            self.serve(record, sandbox, &netns, sockets);
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::error!(container = %record.id, error, "cannot serve names to a running container");
        }
    }
}

/// Duplicates the resolver's sockets that a shim holds.
fn held_sockets(shim: u32, (udp, tcp): (i32, i32)) -> Option<Sockets> {
    let pid = i32::try_from(shim).ok().and_then(Pid::from_raw)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let get = |number| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok();
    let sockets = Sockets { udp: get(udp)?, tcp: get(tcp)? };
    // They are what they ought to be: bound to the resolver's address.
    sockets.ports().ok().map(|_| sockets)
}
