//! Driver options of networks, read as Go reads them (libnetwork `drivers/bridge`, `drivers/macvlan`).

use std::net::IpAddr;

use wharf_api_types::StringMap;
use wharf_network::{BridgeDriver, Driver, GatewayMode, MacvlanDriver, MacvlanMode, macvlan_mode};

use crate::EngineError;

const BRIDGE: &str = "com.docker.network.bridge.";

fn wrong(label: &str, value: &str, reason: &str) -> EngineError {
    EngineError::NetworkOption { label: label.to_owned(), value: value.to_owned(), reason: reason.to_owned() }
}

fn boolean(label: &str, value: &str) -> Result<bool, EngineError> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => Err(wrong(label, other, &format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
    }
}

fn number(label: &str, value: &str) -> Result<u32, EngineError> {
    let parsed = value
        .parse::<i64>()
        .map_err(|_| wrong(label, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax")))?;
    u32::try_from(parsed).map_err(|_| EngineError::NetworkMtu(parsed))
}

fn address(label: &str, value: &str) -> Result<IpAddr, EngineError> {
    value.parse().map_err(|_| wrong(label, value, "invalid ip address"))
}

fn mode(label: &str, value: &str, internal: bool) -> Result<GatewayMode, EngineError> {
    match value {
        "" | "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" if internal => Ok(GatewayMode::Isolated),
        "isolated" => Err(EngineError::NetworkIsolated),
        other => Err(wrong(label, other, &format!("unknown gateway mode {other}"))),
    }
}

/// What driver options say that is common to all drivers.
pub(super) struct Common {
    pub(super) mtu: u32,
    pub(super) link_prefix: String,
}

/// Reads the options of all drivers.
pub(super) fn common(options: &StringMap) -> Result<Common, EngineError> {
    let mut common = Common { mtu: 0, link_prefix: "eth".to_owned() };
    for (label, value) in options {
        match label.as_str() {
            "com.docker.network.driver.mtu" => common.mtu = number(label, value)?,
            "com.docker.network.container_iface_prefix" if !value.is_empty() => {
                // With a number after it, it must be a name that a link can have.
                let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
                if value.len() > 12 || value.contains(bad) {
                    return Err(wrong(label, value, "not the beginning of an interface name"));
                }
                common.link_prefix.clone_from(value);
            }
            _ => {}
        }
    }
    Ok(common)
}

/// Reads the options of a bridge. Unknown ones are kept and mean nothing, as with Docker.
pub(super) fn bridge(id: &str, internal: bool, options: &StringMap) -> Result<Driver, EngineError> {
    let mut driver = BridgeDriver {
        link: format!("br-{}", &id[..12]),
        icc: true,
        masquerade: true,
        mode_v4: GatewayMode::Nat,
        mode_v6: GatewayMode::Nat,
        host_binding: None,
        source_v4: None,
        source_v6: None,
        inhibit_ipv4: false,
        trusted: Vec::new(),
    };
    for (label, value) in options {
        let short = label.strip_prefix(BRIDGE).unwrap_or(label);
        match short {
            "name" if label != short && !value.is_empty() => driver.link.clone_from(value),
            "enable_icc" if label != short => driver.icc = boolean(label, value)?,
            "enable_ip_masquerade" if label != short => driver.masquerade = boolean(label, value)?,
            "inhibit_ipv4" if label != short => driver.inhibit_ipv4 = boolean(label, value)?,
            "host_binding_ipv4" if label != short => driver.host_binding = Some(address(label, value)?),
            "gateway_mode_ipv4" if label != short => driver.mode_v4 = mode(label, value, internal)?,
            "gateway_mode_ipv6" if label != short => driver.mode_v6 = mode(label, value, internal)?,
            "trusted_host_interfaces" if label != short => {
                driver.trusted = value.split(':').filter(|n| !n.is_empty()).map(str::to_owned).collect();
            }
            "com.docker.network.host_ipv4" => driver.source_v4 = Some(address(label, value)?),
            "com.docker.network.host_ipv6" => driver.source_v6 = Some(address(label, value)?),
            _ => {}
        }
    }
    Ok(Driver::Bridge(driver))
}

/// Reads the options of a macvlan network.
pub(super) fn macvlan(
    id: &str,
    internal: bool,
    options: &StringMap,
    has_link: impl Fn(&str) -> bool,
) -> Result<Driver, EngineError> {
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let wanted = option("macvlan_mode");
    let mode = macvlan_mode(wanted).ok_or_else(|| EngineError::MacvlanMode(wanted.to_owned()))?;
    let parent = option("parent");
    let mut driver = MacvlanDriver { parent: parent.to_owned(), vlan: None, dummy: false, mode };
    if parent.is_empty() || internal {
        // A network without a way out hangs on a link that leads nowhere.
        if mode == MacvlanMode::Passthru && parent.is_empty() {
            return Err(EngineError::MacvlanMode("passthru".to_owned()));
        }
        if parent.is_empty() {
            driver.parent = format!("dm-{}", &id[..12]);
            driver.dummy = true;
        }
    }
    if parent == "lo" {
        return Err(EngineError::MacvlanParent);
    }
    if !parent.is_empty() && !has_link(parent) {
        let invalid = || EngineError::MacvlanVlan(parent.to_owned());
        let (below, tag) = parent.split_once('.').ok_or_else(invalid)?;
        let tag = tag.parse::<u16>().ok().filter(|t| (1..4095).contains(t)).ok_or_else(invalid)?;
        driver.vlan = Some((below.to_owned(), tag));
    }
    Ok(Driver::Macvlan(driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_bridges_options_are_read_and_unknown_ones_mean_nothing() {
        let options = map(&[
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
            ("com.docker.network.bridge.trusted_host_interfaces", "eth1:wg0"),
            ("name", "not-the-label"),
            ("foo", "bar"),
        ]);
        let Driver::Bridge(driver) = bridge(ID, false, &options).expect("valid") else { panic!("a bridge") };
        assert_eq!(driver.link, "br-0123456789ab");
        assert!(!driver.icc && driver.masquerade);
        assert_eq!((driver.mode_v4, driver.mode_v6), (GatewayMode::Nat, GatewayMode::Routed));
        assert_eq!(driver.trusted, ["eth1", "wg0"]);
    }

    #[test]
    fn wrong_values_are_refused_with_dockers_texts() {
        for (label, value, text) in [
            (
                "com.docker.network.bridge.enable_icc",
                "x",
                "failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing \"x\": invalid syntax)",
            ),
            (
                "com.docker.network.bridge.gateway_mode_ipv4",
                "foo",
                "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: foo (unknown gateway mode foo)",
            ),
            (
                "com.docker.network.bridge.gateway_mode_ipv4",
                "isolated",
                "gateway mode 'isolated' can only be used for an internal network",
            ),
        ] {
            assert_eq!(bridge(ID, false, &map(&[(label, value)])).unwrap_err().to_string(), text);
        }
        let mtu = common(&map(&[("com.docker.network.driver.mtu", "x")])).err().expect("refused").to_string();
        assert_eq!(
            mtu,
            "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)"
        );
    }

    #[test]
    fn a_macvlan_parent_that_is_missing_must_be_a_vlan() {
        let text = macvlan(ID, false, &map(&[("parent", "nolink")]), |_| false).unwrap_err().to_string();
        assert_eq!(text, "invalid subinterface vlan name nolink, example formatting is eth0.10");
        let Ok(Driver::Macvlan(driver)) = macvlan(ID, false, &map(&[("parent", "nolink.7")]), |_| false) else {
            panic!("valid")
        };
        assert_eq!(driver.vlan, Some(("nolink".to_owned(), 7)));
        let Ok(Driver::Macvlan(driver)) = macvlan(ID, false, &map(&[]), |_| false) else { panic!("valid") };
        assert!(driver.dummy && driver.parent == "dm-0123456789ab");
    }
}
