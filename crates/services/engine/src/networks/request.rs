//! What is asked of an endpoint: checked, and turned into a request to the network crate.

use std::net::IpAddr;

use wharf_api_types::EndpointSettings;
use wharf_network::{Cidr, JoinRequest, MacAddress, Rate};

use super::NetworkRecord;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// How fast an endpoint may receive and send: of an endpoint, or of all endpoints of a network.
pub(super) const RATES: [&str; 2] = ["com.wharf.bandwidth.in", "com.wharf.bandwidth.out"];
const NAME: &str = "com.docker.network.endpoint.ifname";

/// What is wrong with an endpoint's settings (moby `validateEndpointSettings`). `network` is absent where it does not
/// exist, which is an error of start.
pub(crate) fn endpoint_problems(
    name: &str,
    network: Option<&NetworkRecord>,
    settings: &EndpointSettings,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |text: &str| problems.push(text.to_owned());
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let user_defined =
        network.map_or(!matches!(name, "bridge" | "default" | "host" | "none"), NetworkRecord::is_user_defined);
    let asked = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
    if asked && !user_defined {
        say("user specified IP address is supported on user defined networks only");
    }
    if !user_defined && settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
        say("network-scoped alias is supported only for containers in user defined networks");
    }
    if !settings.mac_address.is_empty() && settings.mac_address.parse::<MacAddress>().is_err() {
        say(&format!("invalid MAC address {}", settings.mac_address));
    }
    for (text, six) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
        if text.is_empty() {
            continue;
        }
        let version = if six { 6 } else { 4 };
        let Some(address) = text.parse::<IpAddr>().ok().filter(|a| a.is_ipv6() == six) else {
            say(&format!("invalid IPv{version} address: {text}"));
            continue;
        };
        let Some(network) = network else { continue };
        if user_defined && !network.own_ranges {
            say("user specified IP address is supported only when connecting to networks with user configured subnets");
            continue;
        }
        let ranges = network.ranges.iter().flatten();
        let contains = |text: &str| text.parse::<Cidr>().is_ok_and(|c| c.contains(address));
        if !ranges.into_iter().any(|r| contains(&r.subnet)) {
            say(&format!("no configured subnet or ip-range contain the IP address {text}"));
        }
    }
    for text in ipam.link_local_ips.iter().flatten() {
        if text.parse::<IpAddr>().is_err() {
            say(&format!("invalid link-local IP address: {text}"));
        }
    }
    let options = settings.driver_opts.iter().flatten();
    for (label, value) in options {
        match label.as_str() {
            SYSCTLS => problems.extend(sysctls(value).err()),
            label if RATES.contains(&label) => {
                problems.extend(value.parse::<Rate>().err().map(|e| e.to_string()));
                if label == RATES[0] && network.is_some_and(|n| n.driver != "bridge") {
                    problems.push(format!("{label} needs a bridge network"));
                }
            }
            NAME if !is_link_name(value) => problems.push(format!("invalid interface name {value:?}")),
            _ => {}
        }
    }
    problems
}

/// Joins problems as Go's `errors.Join` with moby's bullets does.
pub(crate) fn problems_text(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => many.iter().map(|p| format!("* {p}")).collect::<Vec<_>>().join("\n"),
    }
}

fn is_link_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    !name.is_empty() && name.len() <= 15 && !matches!(name, "." | ".." | "lo") && !name.contains(bad)
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1,…`. The name becomes a path, so its form is checked to the letter.
fn sysctls(value: &str) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for entry in value.split(',').filter(|e| !e.is_empty()) {
        let unknown = || {
            format!(
                "unrecognised network interface sysctl '{entry}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V'"
            )
        };
        let (name, value) = entry.split_once('=').ok_or_else(unknown)?;
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["net", family @ ("ipv4" | "ipv6" | "mpls"), group, "IFNAME", last] if word(group) && word(last) => {
                // The engine's own decision (CVE-2024-32473).
                if (*family, *last) == ("ipv6", "disable_ipv6") && value.trim() == "0" {
                    return Err(format!("{name} is decided by the network"));
                }
            }
            _ => return Err(unknown()),
        }
        all.push((name.to_owned(), value.to_owned()));
    }
    Ok(all)
}

/// Whether an endpoint on the default bridge asks for what a sandbox that was made before does not have.
pub(crate) fn is_limited(settings: &EndpointSettings) -> bool {
    settings.driver_opts.iter().flatten().any(|(label, _)| RATES.contains(&label.as_str()))
}

/// Turns checked settings into a request. `taken` are the names of links that the container has on other networks.
pub(crate) fn join_request(
    network: &NetworkRecord,
    settings: &EndpointSettings,
    container_mac: &str,
    sandbox: &str,
    taken: &[&str],
) -> JoinRequest {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let option =
        |label: &str| settings.driver_opts.iter().flatten().find(|(k, _)| *k == label).map(|(_, v)| v.as_str());
    let prefix = network.spec.as_ref().map_or("eth", |s| s.link_prefix.as_str());
    let free = || (0..).map(|n| format!("{prefix}{n}")).find(|name| !taken.contains(&name.as_str()));
    let own = option(NAME).map(str::to_owned);
    let options = settings.driver_opts.clone().unwrap_or_default();
    let mac = if settings.mac_address.is_empty() { container_mac } else { &settings.mac_address };
    // What was checked before is a rate.
    let rate = |label: &str| {
        option(label).or(network.options.get(label).map(String::as_str)).and_then(|v| v.parse::<Rate>().ok())
    };
    JoinRequest {
        network: network.key().to_owned(),
        named: own.is_some(),
        options,
        link: own.or_else(free).unwrap_or_default(),
        sandbox: sandbox.to_owned(),
        mac: mac.parse().ok(),
        ipv4: ipam.ipv4_address.parse().ok(),
        ipv6: ipam.ipv6_address.parse().ok(),
        link_local: ipam.link_local_ips.iter().flatten().filter_map(|a| a.parse().ok()).collect(),
        sysctls: option(SYSCTLS).and_then(|v| sysctls(v).ok()).unwrap_or_default(),
        egress: None,
        rate_in: rate(RATES[0]),
        rate_out: rate(RATES[1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_a_link_are_read_and_paths_out_of_the_namespace_are_not() {
        let good = sysctls("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2").expect("valid");
        assert_eq!(good.len(), 2);
        for bad in [
            "net.ipv4.conf.eth0.log_martians=1",
            "kernel.shm=1",
            "net.ipv4.IFNAME.x=1",
            "net.ipv4.../../IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.ipv4.conf.IFNAME.x",
        ] {
            assert!(sysctls(bad).unwrap_err().contains("unrecognised network interface sysctl"), "{bad}");
        }
    }

    #[test]
    fn cve_2024_32473_an_endpoint_cannot_switch_ipv6_on_by_a_sysctl() {
        assert!(sysctls("net.ipv6.conf.IFNAME.disable_ipv6=0").is_err());
    }

    #[test]
    fn several_problems_are_a_list_and_one_is_a_line() {
        let settings = EndpointSettings {
            ipam_config: Some(wharf_api_types::EndpointIpamConfig {
                ipv4_address: "10.0.0.5".into(),
                ..Default::default()
            }),
            aliases: Some(vec!["a".into()]),
            ..Default::default()
        };
        let problems = endpoint_problems("bridge", None, &settings);
        assert_eq!(problems.len(), 2);
        assert!(problems_text(&problems).starts_with("* user specified IP address is supported on"));
        assert_eq!(problems_text(&problems[..1]), problems[0]);
    }
}
