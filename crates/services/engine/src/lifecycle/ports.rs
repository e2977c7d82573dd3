//! From the host configuration's port bindings to what the network publishes.

use wharf_api_types::PortBinding;
use wharf_network::{PortRequest, Protocol};

use crate::container::ContainerRecord;

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "" | "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Reads `80/tcp`.
fn container_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, kind) = text.split_once('/').unwrap_or((text, ""));
    Some((port.parse().ok().filter(|p| *p > 0)?, protocol(kind)?))
}

fn request(container_port: u16, protocol: Protocol, binding: Option<&PortBinding>) -> PortRequest {
    let wanted = binding.map_or("", |b| b.host_port.as_str());
    let (first, last) = wanted.split_once('-').unwrap_or((wanted, wanted));
    PortRequest {
        protocol,
        container_port,
        host_ip: binding.and_then(|b| b.host_ip.trim_matches(['[', ']']).parse().ok()),
        host_port: first.parse().unwrap_or(0),
        host_port_end: last.parse().unwrap_or(0),
    }
}

/// What a container publishes: its bindings, and with `PublishAllPorts` every exposed port without one. Ports of a
/// protocol that does not exist are passed over, as Docker does.
pub(super) fn requests(record: &ContainerRecord) -> Vec<PortRequest> {
    let mut list = Vec::new();
    let bindings = record.host.port_bindings.iter().flatten();
    for (port, bound) in bindings {
        let Some((number, protocol)) = container_port(port) else { continue };
        match bound.as_deref() {
            None | Some([]) => list.push(request(number, protocol, None)),
            Some(bound) => list.extend(bound.iter().map(|b| request(number, protocol, Some(b)))),
        }
    }
    if record.host.publish_all_ports {
        for port in record.config.exposed_ports.iter().flat_map(|p| p.keys()) {
            let Some((number, protocol)) = container_port(port) else { continue };
            if !list.iter().any(|r| (r.container_port, r.protocol) == (number, protocol)) {
                list.push(request(number, protocol, None));
            }
        }
    }
    list
}
