//! A container's networks at its start, and while it runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use wharf_api_types::EndpointSettings;
use wharf_fault::point;
use wharf_network::{Endpoint, EndpointRequest, NetworkError, Sockets};
use wharf_types::ContainerId;

use super::{Lifecycle, files, ports};
use crate::container::{Container, ContainerRecord, Sandbox, View};
use crate::events::Subject;
use crate::networks::{NetworkRecord, egress, join_request};
use crate::{EngineError, StartError};

/// A network that a container is to be on.
pub(super) struct Wanted {
    pub(super) network: Arc<NetworkRecord>,
    pub(super) settings: EndpointSettings,
}

/// What a container has of its networks before its shim runs.
#[derive(Default)]
pub(super) struct Attached {
    pub(super) sandbox: Option<Sandbox>,
    pub(super) netns: Option<OwnedFd>,
    pub(super) sockets: Sockets,
}

/// Sockets of a running container that its shim does not hold yet.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) resolver: Option<wharf_dns::Sockets>,
    pub(crate) ports: Sockets,
}

impl Lifecycle {
    /// Finds the networks of a container, in the order of their links.
    pub(super) fn wanted(&self, record: &ContainerRecord) -> Result<Vec<Wanted>, StartError> {
        let mut wanted = Vec::new();
        for name in record.network_names() {
            let unknown = || StartError::NoNetwork(name.clone());
            let network = self.catalog.named(&name).or_else(|| self.catalog.find(&name).ok()).ok_or_else(unknown)?;
            if network.config_only {
                return Err(StartError::Template(name));
            }
            let settings = record.networks.get(&name).cloned().unwrap_or_default();
            wanted.push(Wanted { network, settings });
        }
        Ok(wanted)
    }

    /// Attaches a container to the default bridge only: a sandbox that is ready.
    pub(super) fn attach_default(&self, record: &ContainerRecord) -> Result<Attached, StartError> {
        let own = record.networks.get("bridge").map(|n| n.mac_address.as_str()).filter(|m| !m.is_empty());
        let request = EndpointRequest {
            container: record.id.clone(),
            name: record.name.clone(),
            mac: own.unwrap_or(&record.config.mac_address).parse().ok(),
            ports: ports::requests(record),
        };
        let made = self.networks.attach(&request).map_err(StartError::Network)?;
        let id = made.endpoint.sandbox.clone();
        let endpoints = [("bridge".to_owned(), made.endpoint)].into();
        let sandbox = Sandbox { id, endpoints, ..Sandbox::default() };
        Ok(Attached { sandbox: Some(sandbox), netns: Some(made.netns), sockets: made.sockets })
    }

    /// Attaches a container to any networks. On error nothing stays.
    pub(super) fn attach_all(
        &self,
        record: &ContainerRecord,
        wanted: &[Wanted],
        users: Option<&Path>,
    ) -> Result<Attached, StartError> {
        let netns = self.solitary(users)?;
        let mut sandbox = Sandbox { id: crate::random_hex(), ..Sandbox::default() };
        let done = self.fill(record, wanted, &netns, &mut sandbox);
        match done {
            Ok(sockets) => Ok(Attached { sandbox: Some(sandbox), netns: Some(netns), sockets }),
            Err(e) => {
                self.detach_all(record, &sandbox);
                Err(StartError::Network(e))
            }
        }
    }

    /// A network namespace of its own for a container; it belongs to the user namespace that is joined, if one is.
    pub(super) fn solitary(&self, users: Option<&Path>) -> Result<OwnedFd, StartError> {
        let Some(path) = users else { return self.networks.solitary().map_err(StartError::Network) };
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let failed =
            |e: rustix::io::Errno| StartError::File { operation: "open", path: path.to_owned(), source: e.into() };
        let user = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(failed)?;
        self.networks.solitary_in(user.as_fd()).map_err(StartError::Network)
    }

    fn fill(
        &self,
        record: &ContainerRecord,
        wanted: &[Wanted],
        netns: &OwnedFd,
        sandbox: &mut Sandbox,
    ) -> Result<Sockets, NetworkError> {
        for Wanted { network, settings } in wanted {
            let endpoint = self.join(record, network, settings, netns, sandbox)?;
            sandbox.endpoints.insert(network.name.clone(), endpoint);
        }
        self.route(record, netns, sandbox)?;
        let resolver = self.open_names(record, sandbox, netns)?;
        let mut sockets = self.publish_ports(record, sandbox)?;
        // First, where a later daemon looks for them.
        sockets.hold.splice(0..0, resolver);
        Ok(sockets)
    }

    fn join(
        &self,
        record: &ContainerRecord,
        network: &NetworkRecord,
        settings: &EndpointSettings,
        netns: &OwnedFd,
        sandbox: &Sandbox,
    ) -> Result<Endpoint, NetworkError> {
        let taken: Vec<&str> = sandbox.endpoints.values().map(|e| e.link.as_str()).collect();
        // The container-wide address is for the network of its mode.
        let mac = if network.name == record.host.network_mode { record.config.mac_address.as_str() } else { "" };
        let mut request = join_request(network, settings, mac, &sandbox.id, &taken);
        request.egress = egress::policy(record, network).map_err(|_| NetworkError::EgressUnknown)?;
        self.networks.join(netns.as_fd(), &record.id, &request)
    }

    fn route(&self, record: &ContainerRecord, netns: &OwnedFd, sandbox: &Sandbox) -> Result<(), NetworkError> {
        let (four, six) = sandbox.gateways(|name| record.gateway_priority(name));
        let endpoint = |name: Option<&str>| name.and_then(|n| sandbox.endpoints.get(n));
        self.networks.set_gateways(netns.as_fd(), endpoint(four), endpoint(six))
    }

    /// Publishes the container's ports on the network that its default route goes to.
    fn publish_ports(&self, record: &ContainerRecord, sandbox: &mut Sandbox) -> Result<Sockets, NetworkError> {
        let requests = ports::requests(record);
        let (four, six) = sandbox.gateways(|name| record.gateway_priority(name));
        let Some(name) = four.or(six).map(str::to_owned) else { return Ok(Sockets::default()) };
        match sandbox.endpoints.get_mut(&name) {
            Some(endpoint) if !requests.is_empty() => self.networks.publish(endpoint, &record.name, &requests),
            _ => Ok(Sockets::default()),
        }
    }

    /// Detaches all endpoints of a container whose namespace goes.
    pub(super) fn detach_all(&self, record: &ContainerRecord, sandbox: &Sandbox) {
        let container = &record.id;
        if self.resolver.serves(container.as_str()) {
            self.forget_names(record);
        }
        for endpoint in sandbox.endpoints.values() {
            if let Err(error) = self.networks.detach(endpoint) {
                tracing::warn!(%container, error = %wharf_error::Chain(&error), "cannot detach from a network");
            }
        }
        self.kept_sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(container);
    }

    /// The namespace of a running container, which its shim holds.
    pub(super) fn namespace(&self, view: &View) -> Result<OwnedFd, EngineError> {
        use rustix::fs::{Mode, OFlags, open};
        let path = self.netns_link(&view.record);
        let failed =
            |e: rustix::io::Errno| EngineError::File { operation: "open", path: path.clone(), source: e.into() };
        open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    }

    /// Connects a running container to a network. Blocks. The caller holds its lock.
    pub(crate) fn connect_live(
        &self,
        container: &Container,
        view: &View,
        network: &NetworkRecord,
    ) -> Result<(), EngineError> {
        let record = &view.record;
        let netns = self.namespace(view)?;
        let mut sandbox = view.sandbox.as_deref().cloned().unwrap_or_default();
        let settings = record.networks.get(&network.name).cloned().unwrap_or_default();
        let before = ways_out(record, &sandbox);
        let endpoint = self.join(record, network, &settings, &netns, &sandbox).map_err(EngineError::Connect)?;
        point("connect.after-join");
        sandbox.endpoints.insert(network.name.clone(), endpoint.clone());
        let named = self.change_names(record, &sandbox, &netns).map_err(EngineError::Connect);
        let done = named.and_then(|()| {
            let rerouted = ways_out(record, &sandbox) != before;
            self.adjust(record, &netns, &mut sandbox, rerouted)
        });
        if let Err(e) = done {
            if let Err(error) = self.networks.leave(netns.as_fd(), &endpoint) {
                tracing::warn!(container = %record.id, %error, "cannot take back a connection to a network");
            }
            return Err(e);
        }
        self.written(container, view, sandbox)?;
        point("connect.after-file");
        Ok(())
    }

    /// Disconnects a running container from a network. Blocks. The caller holds its lock. One that is not connected is
    /// success.
    pub(crate) fn disconnect_live(&self, container: &Container, network: &str) -> Result<(), EngineError> {
        let view = container.view();
        let mut sandbox = view.sandbox.as_deref().cloned().unwrap_or_default();
        let record = &view.record;
        let Some(endpoint) = sandbox.endpoints.remove(network) else { return Ok(()) };
        let netns = self.namespace(&view)?;
        self.networks.leave(netns.as_fd(), &endpoint).map_err(EngineError::Connect)?;
        sandbox.parked.extend(endpoint.ports.iter().filter(|p| p.host_port > 0));
        point("disconnect.after-leave");
        self.change_names(record, &sandbox, &netns).map_err(EngineError::Connect)?;
        // The record does not tell the priority any more by which it was the way out, or was not.
        let rerouted = endpoint.gateway.is_some() || endpoint.gateway_v6.is_some();
        self.adjust(record, &netns, &mut sandbox, rerouted)?;
        self.written(container, &view, sandbox)
    }

    /// Moves default route and published ports where they belong now. The shim goes on to hold the sockets that reserve
    /// the ports, wherever they lead.
    fn adjust(
        &self,
        record: &ContainerRecord,
        netns: &OwnedFd,
        sandbox: &mut Sandbox,
        rerouted: bool,
    ) -> Result<(), EngineError> {
        if rerouted {
            self.route(record, netns, sandbox).map_err(EngineError::Connect)?;
        }
        let requests = ports::requests(record);
        if requests.is_empty() {
            return Ok(());
        }
        let (four, six) = sandbox.gateways(|name| record.gateway_priority(name));
        let target = four.or(six).map(str::to_owned);
        let mut moved = std::mem::take(&mut sandbox.parked);
        for (name, endpoint) in &mut sandbox.endpoints {
            if target.as_ref() != Some(name) && !endpoint.ports.is_empty() {
                moved.extend(endpoint.ports.clone());
                self.networks.unpublish(endpoint).map_err(EngineError::Connect)?;
            }
        }
        moved.retain(|p| p.host_port > 0);
        let Some(endpoint) = target.and_then(|name| sandbox.endpoints.get_mut(&name)) else {
            sandbox.parked = moved;
            return Ok(());
        };
        if !endpoint.ports.is_empty() {
            return Ok(());
        }
        if !moved.is_empty() {
            return self.networks.move_ports(endpoint, moved, &requests).map_err(EngineError::Connect);
        }
        let sockets = self.networks.publish(endpoint, &record.name, &requests).map_err(EngineError::Connect)?;
        self.keep(&record.id, |kept| kept.ports = sockets);
        Ok(())
    }

    /// Notes sockets that a container's shim is to hold.
    pub(super) fn keep(&self, container: &ContainerId, note: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept_sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        note(kept.entry(container.clone()).or_default());
    }

    /// Has a running container's shim hold what was opened after its start, so that it outlives this daemon. The caller
    /// holds the container's lock. A shim that does not take it leaves it here: then it lives as long as this daemon.
    pub(crate) async fn hand_over(&self, container: &Container) {
        let all = || self.kept_sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(kept) = all().remove(&container.id) else { return };
        let view = container.view();
        let (Some(task), Some(sandbox)) = (&view.task, &view.sandbox) else { return };
        let resolver = kept.resolver.iter().flat_map(|s| [s.udp.as_fd(), s.tcp.as_fd()]);
        let sockets: Vec<_> = resolver.chain(kept.ports.hold.iter().map(AsFd::as_fd)).collect();
        let relays: Vec<_> = kept.ports.relays.iter().map(|r| (r.fd.as_fd(), r.to)).collect();
        let outcome = task.shim.hold(&sockets, &relays).await.map_err(|e| wharf_error::Chain(&e).to_string());
        let written = outcome.and_then(|numbers| {
            let [udp, tcp, ..] = numbers[..] else { return Ok(()) };
            if kept.resolver.is_none() {
                return Ok(());
            }
            let sandbox = Sandbox { resolver_at: Some((udp, tcp)), ..(**sandbox).clone() };
            let folder = self.shims.folder(&container.id);
            write_sandbox(&folder, &sandbox).map_err(|e| wharf_error::Chain(&e).to_string())?;
            container.publish(|v| v.sandbox = Some(Arc::new(sandbox)));
            Ok(())
        });
        point("connect.after-hold");
        if let Err(error) = written {
            tracing::warn!(container = %container.id, error, "sockets of a connected network end with this daemon");
            all().insert(container.id.clone(), kept);
        }
    }

    /// Writes down and publishes a changed sandbox, with the container's hosts and resolv.conf.
    fn written(&self, container: &Container, view: &View, sandbox: Sandbox) -> Result<(), EngineError> {
        write_sandbox(&self.shims.folder(&view.record.id), &sandbox)?;
        files::rewrite(self, &view.record, &sandbox)?;
        container.publish(|v| v.sandbox = Some(Arc::new(sandbox)));
        Ok(())
    }

    /// Tells of a container's coming to and leaving a network.
    pub(crate) fn tell_network(&self, action: &str, container: &ContainerId, network: &NetworkRecord) {
        let pairs = [("container", container.as_str()), ("name", &network.name), ("type", network.event_type())];
        let attributes = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.events.publish(Subject::Network, action, &network.id, attributes);
    }

    /// Tells of a container's coming to and leaving all its networks.
    pub(super) fn tell_networks(&self, action: &str, view: &View) {
        let names = match &view.sandbox {
            Some(sandbox) => sandbox.endpoints.keys().cloned().collect(),
            None => view.record.network_names(),
        };
        for network in names.iter().filter_map(|name| self.catalog.named(name)) {
            self.tell_network(action, &view.record.id, &network);
        }
    }
}

/// The endpoints by which a container's default routes go, per family.
fn ways_out(record: &ContainerRecord, sandbox: &Sandbox) -> (Option<String>, Option<String>) {
    let (four, six) = sandbox.gateways(|name| record.gateway_priority(name));
    let id = |name: Option<&str>| name.and_then(|n| sandbox.endpoints.get(n)).map(|e| e.id.clone());
    (id(four), id(six))
}

/// The file in the task folder by which a later daemon knows the container's place in its networks.
pub(crate) const SANDBOX_FILE: &str = "endpoint.json";

/// Writes the sandbox's file, whole or not at all.
pub(super) fn write_sandbox(folder: &Path, sandbox: &Sandbox) -> Result<(), StartError> {
    let path = folder.join(SANDBOX_FILE);
    let new = folder.join(".endpoint.json");
    let failed = |operation| {
        let path = path.clone();
        move |source| StartError::File { operation, path, source }
    };
    std::fs::write(&new, serde_json::to_vec(sandbox).unwrap_or_default()).map_err(failed("write"))?;
    std::fs::rename(&new, &path).map_err(failed("rename"))
}
