//! Names of containers, by network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A container under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The container's id.
    pub key: String,
    /// Its IPv4 address on the network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
    /// What it exposes, for SRV: `tcp` or `udp`, and the port.
    pub ports: Vec<(String, u16)>,
}

/// The names of one network.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    /// The network's name, which is the domain of its containers' names.
    pub name: String,
    /// By name in lower case.
    hosts: HashMap<String, Vec<Host>>,
    /// The first name of the container that has the address.
    addresses: HashMap<IpAddr, (String, String)>,
}

impl Zone {
    /// Adds a container under its names; the first is what its addresses are resolved to. What it had before is replaced.
    pub fn set(&mut self, names: &[String], host: &Host) {
        self.remove(&host.key);
        for name in names {
            self.hosts.entry(name.to_ascii_lowercase()).or_default().push(host.clone());
        }
        let addresses = host.ipv4.map(IpAddr::V4).into_iter().chain(host.ipv6.map(IpAddr::V6));
        if let Some(first) = names.first() {
            self.addresses.extend(addresses.map(|a| (a, (host.key.clone(), first.clone()))));
        }
    }

    /// Takes a container out.
    pub fn remove(&mut self, key: &str) {
        self.hosts.retain(|_, hosts| {
            hosts.retain(|h| h.key != key);
            !hosts.is_empty()
        });
        self.addresses.retain(|_, (owner, _)| owner != key);
    }

    /// The containers of a name in lower case.
    pub(crate) fn find(&self, name: &str) -> Option<&[Host]> {
        self.hosts.get(name).map(Vec::as_slice)
    }
}

/// All names: by network id.
#[derive(Clone, Debug, Default)]
pub struct Names {
    zones: HashMap<String, Zone>,
}

impl Names {
    /// The names of a network, which is made if it is not there.
    pub fn zone(&mut self, network: &str, name: &str) -> &mut Zone {
        let zone = self.zones.entry(network.to_owned()).or_default();
        if zone.name != name {
            name.clone_into(&mut zone.name);
        }
        zone
    }

    /// Takes a container out of all networks.
    pub fn remove(&mut self, key: &str) {
        self.zones.values_mut().for_each(|zone| zone.remove(key));
        self.zones.retain(|_, zone| !zone.hosts.is_empty());
    }

    /// Takes a container out of one network.
    pub fn remove_from(&mut self, network: &str, key: &str) {
        if let Some(zone) = self.zones.get_mut(network) {
            zone.remove(key);
        }
    }

    /// The containers that a name in lower case means on these networks, in their order: `web`, or `web.<network>`.
    pub(crate) fn find(&self, networks: &[String], name: &str) -> Option<&[Host]> {
        let mut zones = networks.iter().filter_map(|id| self.zones.get(id));
        let plain = zones.clone().find_map(|zone| zone.find(name));
        plain.or_else(|| {
            zones.find_map(|zone| {
                let host = name.strip_suffix(zone.name.to_ascii_lowercase().as_str())?.strip_suffix('.')?;
                zone.find(host)
            })
        })
    }

    /// The name of an address on these networks: `<container>.<network>`.
    pub(crate) fn name_of(&self, networks: &[String], address: IpAddr) -> Option<String> {
        let zones = networks.iter().filter_map(|id| self.zones.get(id));
        zones.filter_map(|z| Some(format!("{}.{}", z.addresses.get(&address)?.1, z.name))).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(key: &str, last: u8) -> Host {
        Host { key: key.into(), ipv4: Some([10, 0, 0, last].into()), ipv6: None, ports: Vec::new() }
    }

    fn text(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_name_means_all_containers_that_have_it_on_the_clients_networks_only() {
        let mut names = Names::default();
        names.zone("n1", "front").set(&text(&["web", "alias"]), &host("a", 1));
        names.zone("n1", "front").set(&text(&["web2", "alias"]), &host("b", 2));
        names.zone("n2", "Back").set(&text(&["web"]), &host("c", 3));
        let found = |networks: &[&str], name: &str| names.find(&text(networks), name).map(<[Host]>::len);
        assert_eq!(found(&["n1"], "alias"), Some(2));
        assert_eq!(found(&["n2"], "alias"), None);
        assert_eq!(found(&["n1", "n2"], "web.back"), Some(1));
        assert_eq!(found(&["n1"], "web.back"), None);
        assert_eq!(names.name_of(&text(&["n1"]), [10, 0, 0, 1].into()).as_deref(), Some("web.front"));
        assert_eq!(names.name_of(&text(&["n1"]), [10, 0, 0, 3].into()), None);
        names.remove("a");
        assert_eq!(names.find(&text(&["n1"]), "alias").map(<[Host]>::len), Some(1));
        assert_eq!(names.find(&text(&["n1"]), "web"), None);
    }

    #[test]
    fn a_container_that_is_set_again_has_only_its_new_names() {
        let mut names = Names::default();
        names.zone("n", "net").set(&text(&["old"]), &host("a", 1));
        names.zone("n", "net").set(&text(&["new"]), &host("a", 2));
        assert_eq!(names.find(&text(&["n"]), "old"), None);
        assert_eq!(names.name_of(&text(&["n"]), [10, 0, 0, 1].into()), None);
        assert!(names.find(&text(&["n"]), "new").is_some());
    }
}
