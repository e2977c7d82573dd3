//! Links of containers on the default bridge (`--link`): lines in hosts and variables, as they are when the container
//! starts. On user-defined networks a link is a name of the resolver.

use std::net::IpAddr;
use std::sync::Arc;

use super::Lifecycle;
use crate::StartError;
use crate::container::{Container, ContainerRecord, View};

/// Reads `name`, `name:alias`, or `/name:/own/alias` as inspect shows it.
pub(crate) fn split(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// A container that is linked to, as it runs now.
pub(super) struct Linked {
    alias: String,
    address: IpAddr,
    view: Arc<View>,
}

impl Lifecycle {
    /// The containers that one on the default bridge is linked to.
    pub(super) fn linked(&self, record: &ContainerRecord) -> Result<Vec<Linked>, StartError> {
        if record.host.network_mode != "bridge" {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for link in record.host.links.iter().flatten() {
            let (name, alias) = split(link);
            let gone = || StartError::Link { name: name.to_owned(), own: record.name.clone(), alias: alias.to_owned() };
            let other: Arc<Container> = self.registry.find(name).map_err(|_| gone())?;
            let view = other.view();
            let endpoint = view.sandbox.as_ref().and_then(|s| s.endpoints.get("bridge"));
            let address = endpoint.and_then(|e| e.ipv4).map(|c| c.address()).ok_or_else(gone)?;
            all.push(Linked { alias: alias.to_owned(), address, view });
        }
        Ok(all)
    }
}

impl Linked {
    /// The line in hosts: address, and the names after it.
    pub(super) fn hosts_line(&self) -> (IpAddr, String) {
        let record = &self.view.record;
        let mut names = vec![self.alias.as_str()];
        for name in [record.config.hostname.as_str(), record.name.as_str()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        (self.address, names.join(" "))
    }

    /// The variables (moby `daemon/links`).
    pub(super) fn environment(&self, own: &str) -> Vec<String> {
        let record = &self.view.record;
        let prefix = self.alias.replace('-', "_").to_uppercase();
        let address = self.address;
        let mut all = Vec::new();
        let mut ports: Vec<(u16, String)> = record
            .config
            .exposed_ports
            .iter()
            .flat_map(|p| p.keys())
            .filter_map(|text| {
                let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
                Some((port.parse().ok()?, protocol.to_owned()))
            })
            .collect();
        // The first is the lowest, TCP before others.
        ports.sort_by_key(|(port, protocol)| (*port, protocol != "tcp"));
        if let Some((port, protocol)) = ports.first() {
            all.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
        }
        for (port, protocol) in &ports {
            let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            all.push(format!("{name}={protocol}://{address}:{port}"));
            all.push(format!("{name}_ADDR={address}"));
            all.push(format!("{name}_PORT={port}"));
            all.push(format!("{name}_PROTO={protocol}"));
        }
        all.push(format!("{prefix}_NAME=/{own}/{}", self.alias));
        for entry in record.config.env.iter().flatten() {
            let name = entry.split('=').next().unwrap_or_default();
            if !matches!(name, "PATH" | "HOME") {
                all.push(format!("{prefix}_ENV_{entry}"));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_given_and_as_shown() {
        for (text, want) in [("db", ("db", "db")), ("db:alias", ("db", "alias")), ("/db:/web/alias", ("db", "alias"))] {
            assert_eq!(split(text), want);
        }
    }
}
