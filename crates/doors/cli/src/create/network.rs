//! `--network` and what belongs to the container's place in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_api_types::{EndpointIpamConfig, EndpointSettings, NetworkingConfig, StringMap};

use crate::parse::Matches;
use crate::value;

/// One network to join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name.
    pub target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    driver_opts: StringMap,
    ipv4: String,
    ipv6: String,
    link_local: Vec<String>,
    mac: String,
    priority: i64,
}

/// Reads one `--network`: a name, or `name=…,alias=…,ip=…`.
///
/// # Errors
/// Docker's text.
pub fn parse(text: &str) -> Result<Attachment, String> {
    let long = text
        .split_once('=')
        .is_some_and(|(k, v)| k.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !v.is_empty());
    let mut a = Attachment::default();
    if !long {
        a.target = text.to_owned();
        return Ok(a);
    }
    for field in value::split_csv(text)? {
        let (key, val) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let key = key.trim().to_lowercase();
        let val = val.trim();
        match key.as_str() {
            "name" => a.target = val.to_owned(),
            "alias" => a.aliases.push(val.to_owned()),
            "ip" => a.ipv4 = val.to_owned(),
            "ip6" => a.ipv6 = val.to_owned(),
            "link-local-ip" => a.link_local.push(val.to_owned()),
            "mac-address" => a.mac = val.to_owned(),
            "driver-opt" => {
                let (k, v) = val.split_once('=').ok_or("invalid key value pair format in driver options")?;
                a.driver_opts.insert(k.trim().to_lowercase(), v.trim().to_owned());
            }
            "gw-priority" => {
                a.priority = value::parse_int(val)
                    .map_err(|e| format!("invalid gw-priority: {}", e.rsplit(": ").next().unwrap_or_default()))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if a.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(a)
}

/// Returns the networks asked for, in order.
///
/// # Errors
/// As [`parse`].
pub fn attachments(m: &Matches) -> Result<Vec<Attachment>, String> {
    let given = m.given().filter(|(f, _)| matches!(f.long, "network" | "net"));
    given.map(|(_, text)| parse(text)).collect()
}

fn is_user_defined(name: &str) -> bool {
    !matches!(name, "" | "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

/// Builds the endpoints.
///
/// # Errors
/// Docker's text where options contradict each other.
pub fn networking(m: &Matches, mut networks: Vec<Attachment>) -> Result<NetworkingConfig, String> {
    let asked = networks.len();
    if networks.is_empty() {
        networks.push(Attachment { target: "default".into(), ..Attachment::default() });
    }
    let user_defined = networks.iter().filter(|n| is_user_defined(&n.target)).count();
    apply_container_options(&mut networks[0], m)?;
    if asked == 1 && endpoint(&networks[0])? == EndpointSettings::default() {
        // The network mode says it all.
        return Ok(NetworkingConfig { endpoints_config: Some(BTreeMap::new()) });
    }
    let mut endpoints = BTreeMap::new();
    for n in &networks {
        if endpoints.insert(n.target.clone(), Some(endpoint(n)?)).is_some() {
            return Err(format!("network {} is specified multiple times", value::quoted(&n.target)));
        }
    }
    if user_defined > 0 && user_defined < networks.len() {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    Ok(NetworkingConfig { endpoints_config: Some(endpoints) })
}

/// The plain flags (`--ip`, `--network-alias`, `--link` …) belong to the first network.
fn apply_container_options(n: &mut Attachment, m: &Matches) -> Result<(), String> {
    let conflict = |what: &str| {
        Err(format!("conflicting options: cannot specify both --{what} and per-network {}", per_network(what)))
    };
    let aliases: Vec<String> =
        m.given().filter(|(f, _)| matches!(f.long, "network-alias" | "net-alias")).map(|(_, v)| v.to_owned()).collect();
    if !aliases.is_empty() {
        if !n.aliases.is_empty() {
            return conflict("network-alias");
        }
        n.aliases = aliases;
    }
    if is_user_defined(&n.target) {
        n.links = m.list("link").iter().map(|l| (*l).to_owned()).collect();
    }
    for (flag, slot) in [("ip", &mut n.ipv4), ("ip6", &mut n.ipv6), ("mac-address", &mut n.mac)] {
        let text = m.text(flag);
        if !text.is_empty() {
            if !slot.is_empty() {
                return conflict(flag);
            }
            *slot = text.to_owned();
        }
    }
    let local = m.list("link-local-ip");
    if !local.is_empty() {
        if !n.link_local.is_empty() {
            return conflict("link-local-ip");
        }
        n.link_local = local.iter().map(|l| (*l).to_owned()).collect();
    }
    Ok(())
}

fn per_network(flag: &str) -> &str {
    match flag {
        "network-alias" => "aliases",
        "ip" => "IPv4 address",
        "ip6" => "IPv6 address",
        "mac-address" => "MAC address",
        _ => "link-local IP addresses",
    }
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    if items.is_empty() { None } else { Some(items) }
}

fn endpoint(n: &Attachment) -> Result<EndpointSettings, String> {
    if n.target.trim().is_empty() {
        return Err("no name set for network".into());
    }
    if !is_user_defined(&n.target) && !n.aliases.is_empty() {
        return Err("network-scoped aliases are only supported for user-defined networks".into());
    }
    let ipv4 = n.ipv4.trim();
    if !ipv4.is_empty() && ipv4.parse::<Ipv4Addr>().is_err() {
        return Err(format!("invalid IPv4 address: {ipv4}"));
    }
    let ipv6 = n.ipv6.trim();
    if !ipv6.is_empty() && ipv6.parse::<Ipv6Addr>().is_err() {
        return Err(format!("invalid IPv6 address: {ipv6}"));
    }
    if let Some(bad) = n.link_local.iter().find(|l| l.parse::<IpAddr>().is_err()) {
        return Err(format!("invalid link-local IP address: {bad}"));
    }
    if !n.mac.is_empty() && !is_mac(&n.mac) {
        return Err(format!("{} is not a valid mac address", n.mac));
    }
    let addressed = !ipv4.is_empty() || !ipv6.is_empty() || !n.link_local.is_empty();
    Ok(EndpointSettings {
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: ipv4.to_owned(),
            ipv6_address: ipv6.to_owned(),
            link_local_ips: some(n.link_local.clone()),
        }),
        links: some(n.links.clone()),
        aliases: some(n.aliases.clone()),
        mac_address: n.mac.clone(),
        driver_opts: if n.driver_opts.is_empty() { None } else { Some(n.driver_opts.clone()) },
        gw_priority: n.priority,
        ..EndpointSettings::default()
    })
}

/// Whether the text is an Ethernet address in one of Go's forms.
pub fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}
