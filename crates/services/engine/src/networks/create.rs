//! Making and removing networks.

use std::net::IpAddr;

use wharf_api_types::{
    Filters, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse, NetworkPruneResponse, StringMap,
};
use wharf_fault::point;
use wharf_metadata::{Batch, StoreError, Table};
use wharf_network::{Addressing, Cidr, Driver, GatewayMode, NetworkSpec, RemoteDriver, Subnet};
use wharf_types::Timestamp;

use super::plugins::as_shown;
use super::{NAMES, NetworkList, NetworkRecord, egress, options};
use crate::events::Subject;
use crate::{EngineError, blocking};

impl NetworkList {
    /// Makes one: everything is checked, then the link and its rules are made, and one commit makes it exist.
    pub async fn create(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse, EngineError> {
        let _changing = self.changing.lock().await;
        let request = self.complete(request)?;
        let mut record = self.check(&request)?;
        if !record.config_only {
            let pools = self.ask_plugins(&mut record).await?;
            let kept = pools.clone();
            match self.plan(&mut record, &request, pools) {
                Ok(spec) => record.spec = Some(spec),
                Err(e) => {
                    self.release_pools(&record, kept).await;
                    return Err(e);
                }
            }
        }
        let response = NetworkCreateResponse { id: record.id.clone(), warning: String::new() };
        point("network.begin");
        if let Some(spec) = record.spec.clone() {
            let networks = self.networks.clone();
            let pools = spec.subnets.clone();
            if let Err(e) = blocking(move || networks.create(&spec)).await? {
                self.release_pools(&record, pools).await;
                return Err(e.into());
            }
        }
        point("network.after-link");
        let mut batch = Batch::new();
        batch.claim(NAMES, &record.name, &record.id).put(&record.id, &record);
        if let Err(e) = self.store.submit(batch).await {
            self.take_back(&record.id).await;
            return Err(match e {
                StoreError::NameTaken { .. } => EngineError::NetworkExists(record.name),
                e => e.into(),
            });
        }
        point("network.after-commit");
        let attributes = attributes(&record);
        self.catalog.add(record);
        self.events.publish(Subject::Network, "create", &response.id, attributes);
        Ok(response)
    }

    async fn take_back(&self, id: &str) {
        let (networks, id) = (self.networks.clone(), id.to_owned());
        let removed = blocking(move || networks.delete(&id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(error = %wharf_error::Chain(&error), "cannot take back a network");
        }
    }

    /// Fills a request in from the template it names.
    fn complete(&self, mut request: NetworkCreateRequest) -> Result<NetworkCreateRequest, EngineError> {
        let from = request.config_from.as_ref().map_or("", |c| c.network.as_str());
        if from.is_empty() {
            return Ok(request);
        }
        let template = self.catalog.find(from).map_err(|_| EngineError::NetworkTemplate(from.to_owned()))?;
        if !template.config_only {
            return Err(EngineError::NetworkNoTemplate(from.to_owned()));
        }
        let own = request.ipam.as_ref().is_some_and(|i| i.config.as_ref().is_some_and(|c| !c.is_empty()));
        let options = request.options.as_ref().is_some_and(|o| !o.is_empty());
        let labels = request.labels.as_ref().is_some_and(|l| !l.is_empty());
        if own || options || labels {
            return Err(EngineError::NetworkTemplateMixed);
        }
        request.ipam = Some(Ipam {
            driver: template.ipam_driver().to_owned(),
            options: template.ipam_options.clone(),
            config: template.ranges.clone(),
        });
        request.enable_ipv4 = Some(template.ipv4);
        request.enable_ipv6 = Some(template.ipv6);
        request.internal = template.internal;
        request.options = Some(template.options.clone());
        request.labels = Some(template.labels.clone());
        request.config_from = Some(wharf_api_types::ConfigReference { network: template.name.clone() });
        Ok(request)
    }

    /// Checks what needs no addresses.
    fn check(&self, request: &NetworkCreateRequest) -> Result<NetworkRecord, EngineError> {
        let name = request.name.as_str();
        if name.trim().is_empty() {
            return Err(EngineError::NetworkName);
        }
        if matches!(name, "bridge" | "host" | "none" | "default") {
            return Err(EngineError::NetworkReserved(name.to_owned()));
        }
        if request.scope == "swarm" || (request.scope == "global" && !request.ingress) {
            return Err(EngineError::NetworkSwarmScope);
        }
        if request.ingress {
            return Err(EngineError::NetworkIngress);
        }
        if self.catalog.named(name).is_some() {
            return Err(EngineError::NetworkExists(name.to_owned()));
        }
        let driver = match request.driver.as_str() {
            "" | "default" if request.config_only => "null",
            "" | "default" | "bridge" => "bridge",
            "macvlan" => "macvlan",
            "host" | "null" => return Err(EngineError::NetworkOne(request.driver.clone())),
            // This build has no ipvlan links: the kernel that it is tested with has none either.
            "ipvlan" => return Err(EngineError::NetworkUnsupported),
            "overlay" => return Err(EngineError::NoManager),
            // A plugin's: see `ask_plugins`.
            other => other,
        };
        let ipam = request.ipam.clone().unwrap_or_default();
        let ipam_driver = if ipam.driver == "default" { String::new() } else { ipam.driver };
        let ranges = ipam.config.unwrap_or_default();
        let has = |six: bool| ranges.iter().any(|r| r.subnet.contains(':') == six && !r.subnet.is_empty());
        let ipv6 = request.enable_ipv6.unwrap_or_else(|| has(true) && request.enable_ipv4 == Some(false));
        let ipv4 = request.enable_ipv4.unwrap_or(true);
        if !ipv4 && !ipv6 {
            return Err(EngineError::NetworkNoFamily);
        }
        let problems = range_problems(&ranges, ipv6);
        if !problems.is_empty() {
            return Err(EngineError::NetworkRanges(problems.join("\n")));
        }
        Ok(NetworkRecord {
            id: crate::random_hex(),
            name: name.to_owned(),
            created: Timestamp::now(),
            driver: driver.to_owned(),
            ipv4,
            ipv6,
            internal: request.internal,
            attachable: request.attachable,
            config_only: request.config_only,
            config_from: request.config_from.as_ref().map(|c| c.network.clone()).unwrap_or_default(),
            ipam_driver,
            scope: String::new(),
            ipam_options: Some(ipam.options.unwrap_or_default()),
            own_ranges: !ranges.is_empty(),
            ranges: (!ranges.is_empty()).then_some(ranges),
            options: request.options.clone().unwrap_or_default(),
            labels: request.labels.clone().unwrap_or_default(),
            spec: None,
        })
    }

    /// Decides addresses and reads the driver's options.
    fn plan(
        &self,
        record: &mut NetworkRecord,
        request: &NetworkCreateRequest,
        pools: Vec<Subnet>,
    ) -> Result<NetworkSpec, EngineError> {
        let mut option_map = record.options.clone();
        // `--internal` and `--ipv6` also come as generic options from old clients; the fields decide.
        option_map.retain(|label, _| !label.starts_with("com.docker.network.enable_ipv"));
        let driver = match record.driver.as_str() {
            "macvlan" => {
                options::macvlan(&record.id, request.internal, &option_map, |name| self.networks.has_link(name))?
            }
            "bridge" => options::bridge(&record.id, request.internal, &option_map)?,
            name => Driver::Remote(RemoteDriver {
                name: name.to_owned(),
                options: option_map.clone(),
                ipv4: record.ipv4,
                ipv6: record.ipv6,
            }),
        };
        for label in super::request::RATES {
            let Some(value) = record.options.get(label) else { continue };
            let wrong =
                |reason: String| EngineError::NetworkOption { label: label.to_owned(), value: value.clone(), reason };
            value.parse::<wharf_network::Rate>().map_err(|e| wrong(e.to_string()))?;
            if record.driver != "bridge" && label == super::request::RATES[0] {
                return Err(wrong("only bridge networks can".to_owned()));
            }
        }
        if egress::read(&record.options)?.flatten().is_some() {
            if record.driver != "bridge" {
                return Err(EngineError::Egress(format!("driver {} has none: only bridge networks do", record.driver)));
            }
            let (four, six) = self.networks.filters();
            if (record.ipv4 && !four) || (record.ipv6 && !six) {
                return Err(EngineError::Egress(
                    "firewall rules are switched off (--iptables, --ip6tables)".to_owned(),
                ));
            }
        }
        let options::Common { mtu, link_prefix } = options::common(&option_map)?;
        let modes = match &driver {
            Driver::Bridge(b) => (b.mode_v4, b.mode_v6),
            Driver::Macvlan(_) | Driver::Remote(_) => (GatewayMode::Nat, GatewayMode::Nat),
        };
        let addressing = match record.ipam_driver.as_str() {
            "" => Addressing::Own,
            "null" => Addressing::Nothing,
            name => Addressing::Plugin(name.to_owned()),
        };
        let known = self.networks.subnets();
        let mut subnets = Vec::new();
        let mut shown = Vec::new();
        for (six, wanted, mode) in [(false, record.ipv4, modes.0), (true, record.ipv6, modes.1)] {
            if !wanted {
                continue;
            }
            let of_family = |r: &&IpamConfig| r.subnet.contains(':') == six && !r.subnet.is_empty();
            let given: Vec<IpamConfig> = record.ranges.iter().flatten().filter(of_family).cloned().collect();
            if given.len() > 1 && record.driver == "bridge" {
                return Err(EngineError::NetworkManySubnets);
            }
            match addressing {
                Addressing::Own => {}
                Addressing::Nothing => {
                    let subnet = if six { "::/0" } else { "0.0.0.0/0" };
                    shown.push(IpamConfig { subnet: subnet.to_owned(), ..IpamConfig::default() });
                    continue;
                }
                Addressing::Plugin(_) => {
                    let of_plugin: Vec<_> = pools.iter().filter(|p| p.subnet.is_ipv6() == six).cloned().collect();
                    shown.extend(if given.is_empty() { of_plugin.iter().map(as_shown).collect() } else { given });
                    subnets.extend(of_plugin);
                    continue;
                }
            }
            if given.is_empty() {
                let subnet = self.networks.free_subnet(six)?;
                let gateway = (mode != GatewayMode::Isolated).then(|| subnet.at(1));
                shown.push(IpamConfig {
                    subnet: subnet.to_string(),
                    gateway: gateway.map(|g| g.to_string()).unwrap_or_default(),
                    ..IpamConfig::default()
                });
                subnets.push(Subnet { subnet, range: None, gateway, taken: Default::default(), pool: None });
            }
            for range in given {
                let subnet = of_request(&range, mode)?;
                let clash = |other: &Cidr| other.overlaps(&subnet.subnet);
                if known.iter().any(clash) || subnets.iter().any(|s| clash(&s.subnet)) {
                    return Err(EngineError::NetworkOverlap);
                }
                shown.push(range);
                subnets.push(subnet);
            }
        }
        record.ranges = Some(shown);
        let id = record.id.clone();
        Ok(NetworkSpec { id, subnets, internal: record.internal, mtu, link_prefix, driver, addressing })
    }

    /// Removes one that no running container is on.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        let record = self.catalog.find(name)?;
        if record.is_builtin() {
            return Err(EngineError::NetworkPredefined(record.name.clone()));
        }
        self.remove_record(&record).await
    }

    async fn remove_record(&self, record: &NetworkRecord) -> Result<(), EngineError> {
        let busy: Vec<String> = self
            .containers(record)
            .values()
            .map(|c| format!("name:{:?} id:{:?}", c.name, &c.endpoint_id[..c.endpoint_id.len().min(12)]))
            .collect();
        if !busy.is_empty() {
            return Err(EngineError::NetworkBusy { name: record.name.clone(), endpoints: busy.join(", ") });
        }
        // From here on no container finds it; one that is on its way is refused by the network crate.
        self.catalog.forget(&record.id);
        let mut batch = Batch::new();
        batch.remove(Table::Networks, &record.id).release(NAMES, &record.name);
        point("network.before-removal");
        if let Err(e) = self.store.submit(batch).await {
            self.catalog.add(record.clone());
            return Err(e.into());
        }
        point("network.after-removal");
        self.take_back(&record.id).await;
        self.events.publish(Subject::Network, "destroy", &record.id, attributes(record));
        Ok(())
    }

    /// Removes those that no container is on, running or not.
    pub async fn prune(&self, filters: &Filters) -> Result<NetworkPruneResponse, EngineError> {
        filters.check_keys(&["label", "label!", "until"])?;
        let until = filters.get("until").next().map(crate::changes::until).transpose()?;
        let _changing = self.changing.lock().await;
        let mut done = NetworkPruneResponse::default();
        for record in self.catalog.all() {
            let unwanted = filters.contains("label!") && filters.match_labels("label!", &record.labels);
            let young = until.is_some_and(|t| record.created > t);
            let used = self.registry.all().iter().any(|c| c.view().on_network(&record.name));
            if record.is_builtin() || unwanted || young || used || !filters.match_labels("label", &record.labels) {
                continue;
            }
            match self.remove_record(&record).await {
                Ok(()) => done.networks_deleted.get_or_insert_default().push(record.name.clone()),
                Err(error) => tracing::warn!(network = record.name, %error, "cannot prune"),
            }
        }
        let attributes = [("reclaimed".to_owned(), "0".to_owned())].into();
        self.events.publish(Subject::Network, "prune", "", attributes);
        Ok(done)
    }
}

fn attributes(record: &NetworkRecord) -> StringMap {
    [("name".to_owned(), record.name.clone()), ("type".to_owned(), record.event_type().to_owned())].into()
}

/// What is wrong with the ranges asked for (moby `network.ValidateIPAM`), one line each.
fn range_problems(ranges: &[IpamConfig], ipv6: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for range in ranges {
        let Ok(subnet) = range.subnet.parse::<Cidr>() else {
            problems.push(format!("invalid subnet {}: invalid CIDR block notation", range.subnet));
            continue;
        };
        if subnet.is_ipv6() && !ipv6 {
            continue;
        }
        if subnet != subnet.network() {
            problems.push(format!("invalid subnet {subnet}: it should be {}", subnet.network()));
        }
        if !range.ip_range.is_empty() {
            match range.ip_range.parse::<Cidr>() {
                Ok(part) if part.is_ipv6() != subnet.is_ipv6() => {
                    problems.push(format!("invalid ip-range {part}: it should be an IPv{} ip-range", version(&subnet)));
                }
                Ok(part) if part != part.network() => {
                    problems.push(format!("invalid ip-range {part}: it should be {}", part.network()));
                }
                Ok(part) if !subnet.contains(part.address()) || part.prefix() < subnet.prefix() => {
                    problems.push(format!("invalid ip-range {part}: parent subnet {subnet} doesn't contain ip-range"));
                }
                Ok(_) => {}
                Err(_) => problems.push(format!("invalid ip-range {}: invalid CIDR block notation", range.ip_range)),
            }
        }
        let gateway = (!range.gateway.is_empty()).then_some(("gateway", &range.gateway));
        let taken = range.auxiliary_addresses.iter().flatten().map(|(_, a)| ("auxiliary address", a));
        for (what, text) in gateway.into_iter().chain(taken) {
            let text = text.as_str();
            match text.parse::<IpAddr>() {
                Err(_) => problems.push(format!("invalid {what} {text}: invalid address")),
                Ok(a) if a.is_ipv6() != subnet.is_ipv6() => {
                    problems.push(format!("invalid {what} {text}: parent subnet is an IPv{} block", version(&subnet)));
                }
                Ok(a) if !subnet.contains(a) => {
                    problems
                        .push(format!("invalid {what} {text}: parent subnet {subnet} doesn't contain this address"));
                }
                Ok(_) => {}
            }
        }
    }
    problems
}

fn version(subnet: &Cidr) -> u8 {
    if subnet.is_ipv6() { 6 } else { 4 }
}

/// Reads a range that was checked. Without a gateway the first address of the range, or of the subnet, is taken.
fn of_request(range: &IpamConfig, mode: GatewayMode) -> Result<Subnet, EngineError> {
    let subnet = range.subnet.parse::<Cidr>().map_err(|e| EngineError::NetworkRanges(e.to_string()))?;
    let part = range.ip_range.parse::<Cidr>().ok();
    let taken: std::collections::BTreeMap<String, IpAddr> = range
        .auxiliary_addresses
        .iter()
        .flatten()
        .filter_map(|(name, a)| Some((name.clone(), a.parse().ok()?)))
        .collect();
    let given = range.gateway.parse::<IpAddr>().ok();
    let free = || {
        let from = part.unwrap_or(subnet);
        let hosts = u8::from(part.is_none())..;
        hosts.map(|n| from.at(u128::from(n))).find(|a| *a != subnet.at(0) && !taken.values().any(|t| t == a))
    };
    let gateway = given.or_else(|| (mode != GatewayMode::Isolated).then(free).flatten());
    Ok(Subnet { subnet, range: part, gateway, taken, pool: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, ip_range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            auxiliary_addresses: None,
        }
    }

    #[test]
    fn ranges_that_do_not_fit_are_refused_with_dockers_texts() {
        for (wrong, text) in [
            (range("10.99.1.5/24", "", ""), "invalid subnet 10.99.1.5/24: it should be 10.99.1.0/24"),
            (range("x", "", ""), "invalid subnet x: invalid CIDR block notation"),
            (
                range("10.0.0.0/24", "10.0.1.0/28", ""),
                "invalid ip-range 10.0.1.0/28: parent subnet 10.0.0.0/24 doesn't contain ip-range",
            ),
            (
                range("10.0.0.0/24", "", "10.0.1.1"),
                "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
            ),
        ] {
            assert_eq!(range_problems(&[wrong], false), [text]);
        }
        assert!(range_problems(&[range("10.0.0.0/24", "10.0.0.128/25", "10.0.0.1")], false).is_empty());
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_range_that_nobody_has() {
        let gateway = |r: &IpamConfig| of_request(r, GatewayMode::Nat).expect("valid").gateway.map(|g| g.to_string());
        assert_eq!(gateway(&range("10.0.0.0/24", "", "")).as_deref(), Some("10.0.0.1"));
        assert_eq!(gateway(&range("10.0.0.0/24", "10.0.0.128/25", "")).as_deref(), Some("10.0.0.128"));
        let mut taken = range("10.0.0.0/24", "", "");
        taken.auxiliary_addresses = Some([("router".to_owned(), "10.0.0.1".to_owned())].into());
        assert_eq!(gateway(&taken).as_deref(), Some("10.0.0.2"));
        assert_eq!(of_request(&range("10.0.0.0/24", "", ""), GatewayMode::Isolated).expect("valid").gateway, None);
    }
}
