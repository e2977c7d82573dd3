//! One row of the container list.

use std::collections::BTreeMap;

use wharf_api_types::{
    ContainerSummary, EndpointSettings, MountPoint, Port, PortBinding, PortMap, SummaryHostConfig,
    SummaryNetworkSettings,
};
use wharf_network::{BoundPort, Endpoint, Protocol};
use wharf_types::Timestamp;

use super::{Lists, Sizes};
use crate::container::{Status, View};
use crate::create::mounts::Source;

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn key(port: &BoundPort) -> String {
    format!("{}/{}", port.container_port, protocol(port.protocol))
}

/// Ports that are exposed or published while the container runs.
pub(super) fn ports(view: &View) -> Vec<Port> {
    if view.task.is_none() {
        return Vec::new();
    }
    let bound = view.sandbox.iter().flat_map(|s| s.ports()).filter(|p| p.host_port > 0);
    let mut list: Vec<Port> = bound
        .map(|p| Port {
            ip: p.host_ip.to_string(),
            private_port: p.container_port,
            public_port: p.host_port,
            r#type: protocol(p.protocol).to_owned(),
        })
        .collect();
    let exposed = view.record.config.exposed_ports.iter().flat_map(BTreeMap::keys);
    for text in exposed.filter(|_| view.sandbox.is_some()) {
        let (number, kind) = text.split_once('/').unwrap_or((text, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        if !list.iter().any(|p| p.private_port == private_port && p.r#type == kind) {
            list.push(Port { private_port, r#type: kind.to_owned(), ..Port::default() });
        }
    }
    list.sort_by(|a, b| {
        (a.private_port, &a.r#type, &a.ip, a.public_port).cmp(&(b.private_port, &b.r#type, &b.ip, b.public_port))
    });
    list
}

/// The port map that inspect shows.
pub(super) fn port_map(view: &View) -> PortMap {
    let mut map = PortMap::new();
    if view.task.is_none() {
        return map;
    }
    let Some(sandbox) = &view.sandbox else { return map };
    for text in view.record.config.exposed_ports.iter().flat_map(BTreeMap::keys) {
        let full = if text.contains('/') { text.clone() } else { format!("{text}/tcp") };
        map.insert(full, None);
    }
    for port in sandbox.ports() {
        let host_port = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        let binding = PortBinding { host_ip: port.host_ip.to_string(), host_port };
        map.entry(key(port)).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// `Up 2 hours`, `Exited (0) 5 minutes ago`, … (moby `container/state.go` String).
pub(super) fn status(view: &View, now: Timestamp) -> String {
    let state = &view.state;
    let since = |t: Timestamp| human((now.unix_nanos() - t.unix_nanos()).max(0));
    match state.status {
        Status::Running => match view.health.as_ref().map(|h| h.status.as_str()) {
            None => format!("Up {}", since(state.started_at)),
            Some("starting") => format!("Up {} (health: starting)", since(state.started_at)),
            Some(health) => format!("Up {} ({health})", since(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited if state.finished_at.is_zero() => String::new(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

/// A duration as docker/go-units `HumanDuration` words it.
fn human(nanos: i128) -> String {
    let seconds = nanos / 1_000_000_000;
    // Go rounds minutes away from the whole and hours to the nearest.
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// A command line as lists show it: words joined, those with spaces quoted.
fn command(args: &[String]) -> String {
    let mut words = args.iter();
    let mut text = words.next().cloned().unwrap_or_default();
    for word in words {
        text.push(' ');
        if word.contains(' ') {
            text.push_str(&format!("'{word}'"));
        } else {
            text.push_str(word);
        }
    }
    text
}

/// What came of an endpoint.
fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.endpoint_id.clone_from(&endpoint.id);
    settings.mac_address = endpoint.mac.to_string();
    settings.gateway = endpoint.gateway.map(|g| g.to_string()).unwrap_or_default();
    if let Some(address) = endpoint.ipv4 {
        settings.ip_address = address.address().to_string();
        settings.ip_prefix_len = i64::from(address.prefix());
    }
    settings.ipv6_gateway = endpoint.gateway_v6.map(|g| g.to_string()).unwrap_or_default();
    if let Some(address) = endpoint.ipv6 {
        settings.global_ipv6_address = address.address().to_string();
        settings.global_ipv6_prefix_len = i64::from(address.prefix());
    }
}

impl Lists {
    pub(super) fn summary(&self, view: &View, sizes: Option<Sizes>) -> ContainerSummary {
        let record = &view.record;
        let sizes = sizes.unwrap_or_default();
        ContainerSummary {
            id: record.id.to_string(),
            names: vec![format!("/{}", record.name)],
            image: record.config.image.clone(),
            image_id: record.image.clone(),
            image_manifest_descriptor: record.manifest.clone(),
            command: command(&record.command()),
            created: record.created.seconds(),
            ports: ports(view),
            size_rw: sizes.writable,
            size_root_fs: sizes.root,
            labels: record.config.labels.clone().unwrap_or_default(),
            state: view.state.status.as_str().to_owned(),
            status: status(view, Timestamp::now()),
            host_config: SummaryHostConfig {
                network_mode: record.host.network_mode.clone(),
                annotations: record.host.annotations.clone(),
            },
            network_settings: SummaryNetworkSettings { networks: self.endpoints(view) },
            mounts: self.mount_points(view),
        }
    }

    /// The networks of a container, with addresses while it runs.
    pub(super) fn endpoints(&self, view: &View) -> BTreeMap<String, EndpointSettings> {
        let record = &view.record;
        let names = match &view.sandbox {
            Some(sandbox) => sandbox.endpoints.keys().cloned().collect(),
            None => record.network_names(),
        };
        let of = |name: String| {
            let mut settings = record.networks.get(&name).cloned().unwrap_or_default();
            let network = self.catalog.named(&name);
            if view.task.is_some() {
                settings.network_id = network.as_ref().map(|n| n.id.clone()).unwrap_or_default();
            }
            if let Some(endpoint) = view.sandbox.as_ref().and_then(|s| s.endpoints.get(&name)) {
                fill(&mut settings, endpoint);
                if network.is_some_and(|n| n.is_user_defined()) {
                    settings.dns_names = Some(record.dns_names(&settings));
                }
            }
            (name, settings)
        };
        names.into_iter().map(of).collect()
    }

    pub(super) fn mount_points(&self, view: &View) -> Vec<MountPoint> {
        let of = |point: &crate::create::mounts::Point| {
            let mut shown = MountPoint {
                destination: point.target.clone(),
                mode: point.mode.clone(),
                rw: !point.read_only,
                propagation: point.propagation.clone(),
                ..MountPoint::default()
            };
            match &point.source {
                Source::Bind { path, .. } => {
                    "bind".clone_into(&mut shown.r#type);
                    shown.source.clone_from(path);
                }
                Source::Image { name, .. } => {
                    "image".clone_into(&mut shown.r#type);
                    shown.name.clone_from(name);
                    let number = view.record.points.iter().position(|p| p == point).unwrap_or_default();
                    let place = self.volumes.staging.place(view.record.id.as_str(), number);
                    shown.source = place.display().to_string();
                }
                Source::Volume { name, .. } => {
                    "volume".clone_into(&mut shown.r#type);
                    shown.name.clone_from(name);
                    shown.source = self.volumes.data(name).display().to_string();
                    let record = self.volumes.get(name);
                    record.as_ref().map_or("local", |r| r.driver()).clone_into(&mut shown.driver);
                }
                Source::Tmpfs { .. } => "tmpfs".clone_into(&mut shown.r#type),
            }
            shown
        };
        view.record.points.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_worded_as_docker_words_them() {
        const SECOND: i128 = 1_000_000_000;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (100 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(human(seconds * SECOND), text);
        }
    }

    #[test]
    fn words_with_spaces_are_quoted_in_the_command() {
        let words: Vec<String> = ["sh", "-c", "a b"].iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(command(&words), "sh -c 'a b'");
    }
}
