//! `docker network`.

use wharf_api_client::{Query, Request};
use wharf_api_types::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Network, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, StringMap,
};
use wharf_template::Value;

use super::path;
use crate::exit::Exit;
use crate::format::Listing;
use crate::format::row::{Row, short_id};
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// `docker network ls`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with_some("filters", &super::filters(&m.list("filter")));
    let mut networks: Vec<Network> = shell.client()?.call(Request::get("/networks").query(query))?.parse()?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let full = m.bool("no-trunc");
    let rows: Vec<Value> = networks
        .iter()
        .map(|n| {
            Row::new("*network.networkContext")
                .with("ID", if full { n.id.clone() } else { short_id(&n.id) })
                .with("Name", n.name.as_str())
                .with("Driver", n.driver.as_str())
                .with("Scope", n.scope.as_str())
                .with("IPv4", n.enable_ipv4.to_string())
                .with("IPv6", n.enable_ipv6.to_string())
                .with("Internal", n.internal.to_string())
                .with_labels(n.labels.clone().unwrap_or_default())
                .with("CreatedAt", created(n))
                .value()
        })
        .collect();
    let quiet = m.bool("quiet");
    let configured = if m.changed("format") || quiet { "" } else { shell.config().networks_format.as_str() };
    let format = match (quiet, if configured.is_empty() { m.text("format") } else { configured }) {
        (true, "" | "table") => "{{.ID}}",
        (_, f) => f,
    };
    let table = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    shell.print(&Listing { format, table, headers: HEADERS }.render(&rows)?)
}

/// A time with its fraction, as Go prints it.
fn created(n: &Network) -> String {
    let text = n.created.fixed_nanos();
    let text = text.trim_end_matches('Z').replacen('T', " ", 1);
    format!("{} +0000 UTC", text.trim_end_matches('0').trim_end_matches('.'))
}

fn map(values: &[&str]) -> StringMap {
    values
        .iter()
        .map(|v| {
            let (k, v) = v.split_once('=').unwrap_or((v, ""));
            (k.to_owned(), v.to_owned())
        })
        .collect()
}

/// `docker network create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let config = ranges(&m.strings("subnet"), &m.strings("ip-range"), &m.strings("gateway"), &m.list("aux-address"))
        .map_err(Exit::new)?;
    let from = m.text("config-from");
    let request = NetworkCreateRequest {
        name: m.first().to_owned(),
        driver: m.text("driver").to_owned(),
        scope: m.text("scope").to_owned(),
        enable_ipv4: m.changed("ipv4").then(|| m.bool("ipv4")),
        enable_ipv6: m.changed("ipv6").then(|| m.bool("ipv6")),
        ipam: Some(Ipam {
            driver: m.text("ipam-driver").to_owned(),
            options: Some(map(&m.list("ipam-opt"))),
            config: Some(config),
        }),
        internal: m.bool("internal"),
        attachable: m.bool("attachable"),
        ingress: m.bool("ingress"),
        config_only: m.bool("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference { network: from.to_owned() }),
        options: Some(map(&m.list("opt")).into_iter().chain(super::egress(m)).collect()),
        labels: Some(map(&m.list("label"))),
    };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    let made: NetworkCreateResponse = shell.client()?.call(Request::post("/networks/create").json(body))?.parse()?;
    if !made.warning.is_empty() {
        shell.warn(&format!("WARNING: {}", made.warning));
    }
    shell.line(&made.id)
}

/// Reads a network in CIDR form as (bits, length, whether IPv6); what is none matches nothing.
fn cidr(text: &str) -> Option<(u128, u32, bool)> {
    let (ip, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match ip.parse().ok()? {
        std::net::IpAddr::V4(v) if length <= 32 => Some((u128::from(v.to_bits()) << 96, length, false)),
        std::net::IpAddr::V6(v) if length <= 128 => Some((v.to_bits(), length, true)),
        _ => None,
    }
}

fn contains(subnet: &str, address: &str) -> bool {
    let host = address.split('/').next().unwrap_or_default();
    let width = if host.contains(':') { 128 } else { 32 };
    let (Some((net, length, six)), Some((ip, _, six_too))) = (cidr(subnet), cidr(&format!("{host}/{width}"))) else {
        return false;
    };
    six == six_too && (length == 0 || (net ^ ip) >> (128 - length) == 0)
}

/// Joins subnets with the ranges, gateways and taken addresses that lie in them.
fn ranges(
    subnets: &[String],
    parts: &[String],
    gateways: &[String],
    taken: &[&str],
) -> Result<Vec<IpamConfig>, String> {
    if subnets.len() < parts.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let mut all: Vec<IpamConfig> = Vec::new();
    for s in subnets {
        if all.iter().any(|c| contains(s, &c.subnet) || contains(&c.subnet, s)) {
            return Err("multiple overlapping subnet configuration is not supported".into());
        }
        all.push(IpamConfig { subnet: s.clone(), ..IpamConfig::default() });
    }
    for r in parts {
        let c = all.iter_mut().find(|c| contains(&c.subnet, r)).ok_or(format!("no matching subnet for range {r}"))?;
        if !c.ip_range.is_empty() {
            return Err(format!(
                "cannot configure multiple ranges ({r}, {}) on the same subnet ({})",
                c.ip_range, c.subnet
            ));
        }
        c.ip_range = r.clone();
    }
    for g in gateways {
        let c = all.iter_mut().find(|c| contains(&c.subnet, g)).ok_or(format!("no matching subnet for gateway {g}"))?;
        if !c.gateway.is_empty() {
            return Err(format!(
                "cannot configure multiple gateways ({g}, {}) for the same subnet ({})",
                c.gateway, c.subnet
            ));
        }
        c.gateway = g.clone();
    }
    for t in taken {
        let (name, ip) = t.split_once('=').unwrap_or((t, ""));
        let c = all
            .iter_mut()
            .find(|c| contains(&c.subnet, ip))
            .ok_or(format!("no matching subnet for aux-address {ip}"))?;
        c.auxiliary_addresses.get_or_insert_default().insert(name.to_owned(), ip.to_owned());
    }
    Ok(all)
}

/// `docker network rm`.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let force = m.bool("force");
    let mut failed = false;
    for name in &m.args {
        match client.call(Request::delete(path("networks", name, ""))) {
            Ok(_) => shell.line(name)?,
            Err(e) if force && e.status() == Some(404) => {}
            Err(e) => {
                shell.warn(&e.to_string());
                failed = true;
            }
        }
    }
    if failed { Err(Exit::new("exit status 1")) } else { Ok(()) }
}

/// `docker network connect`.
pub fn connect(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let text = |flag: &str| m.text(flag).to_owned();
    let list = |flag: &str| {
        let all: Vec<String> =
            if flag == "link" { m.list(flag).iter().map(|s| (*s).to_owned()).collect() } else { m.strings(flag) };
        if all.is_empty() { None } else { Some(all) }
    };
    let mut options = StringMap::new();
    for option in m.strings("driver-opt") {
        let (k, v) =
            option.split_once('=').ok_or_else(|| Exit::new("invalid key/value pair format in driver options"))?;
        options.insert(k.to_owned(), v.to_owned());
    }
    let request = NetworkConnectRequest {
        container: m.args[1].clone(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: text("ip"),
                ipv6_address: text("ip6"),
                link_local_ips: list("link-local-ip"),
            }),
            links: list("link"),
            aliases: Some(m.strings("alias")),
            driver_opts: Some(options),
            gw_priority: m.int("gw-priority"),
            ..EndpointSettings::default()
        }),
    };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    shell.client()?.call(Request::post(path("networks", m.first(), "/connect")).json(body))?;
    Ok(())
}

/// `docker network disconnect`.
pub fn disconnect(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let request = NetworkDisconnectRequest { container: m.args[1].clone(), force: m.bool("force") };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    shell.client()?.call(Request::post(path("networks", m.first(), "/disconnect")).json(body))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_gateways_go_to_the_subnet_they_lie_in() {
        let s = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let c =
            ranges(&s(&["10.0.0.0/8", "fd00::/64"]), &s(&["10.1.0.0/16"]), &s(&["fd00::1"]), &["a=10.2.0.1"]).unwrap();
        assert_eq!((c[0].ip_range.as_str(), c[1].gateway.as_str()), ("10.1.0.0/16", "fd00::1"));
        assert_eq!(c[0].auxiliary_addresses.as_ref().unwrap()["a"], "10.2.0.1");
        assert_eq!(
            ranges(&s(&["10.0.0.0/8"]), &[], &s(&["11.0.0.1"]), &[]).unwrap_err(),
            "no matching subnet for gateway 11.0.0.1"
        );
    }
}
