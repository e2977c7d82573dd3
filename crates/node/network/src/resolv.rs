//! /etc/resolv.conf of a container.

use std::net::IpAddr;

/// What replaces the host's settings: `--dns`, `--dns-search`, `--dns-opt`. Empty lists replace nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvOptions {
    /// Servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a single `.` means none.
    pub search: Vec<String>,
    /// Options such as `ndots:3`.
    pub options: Vec<String>,
}

/// How the container's resolv.conf comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvMode {
    /// `--network host`: the host's file unchanged but for the options.
    Host,
    /// The default bridge, and `none`: loopback servers mean nothing in the container and are dropped.
    Bridge {
        /// Whether the container has IPv6.
        ipv6: bool,
    },
    /// User-defined networks: our own resolver, which asks the others.
    Internal,
}

/// A server that our own resolver asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// It is the host's, and asked from there.
    pub from_host: bool,
}

/// The servers that our own resolver asks: those that were asked for, else the host's, else Docker's defaults.
pub fn upstreams(host: &str, wanted: &ResolvOptions) -> Vec<Server> {
    let all =
        |addresses: &[IpAddr], from_host| addresses.iter().map(|&address| Server { address, from_host }).collect();
    if !wanted.servers.is_empty() {
        return all(&wanted.servers, false);
    }
    let servers = servers(host);
    if servers.is_empty() { all(&[[8, 8, 8, 8].into(), [8, 8, 4, 4].into()], false) } else { all(&servers, true) }
}

const ETC: &str = "/etc/resolv.conf";
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

/// Says which of the host's files to read, given the text of `/etc/resolv.conf`: systemd-resolved's stub at
/// 127.0.0.53 is of no use in a container, so its real file is followed (moby `resolvconf.Path`).
pub fn resolv_conf_path(etc: &str) -> &'static str {
    let host = Parsed::read(etc);
    let stub = IpAddr::from([127, 0, 0, 53]);
    if host.servers == [stub.to_string()] && host.invalid.is_empty() { SYSTEMD } else { ETC }
}

/// Writes a container's resolv.conf from the text of the host's file at `source`, as Docker 28 does, comments
/// included.
pub fn resolv_conf(host: &str, source: &str, mode: ResolvMode, wanted: &ResolvOptions) -> String {
    let mut conf = Parsed::read(host);
    let mut overrides = Vec::new();
    if !wanted.servers.is_empty() {
        conf.servers = wanted.servers.iter().map(IpAddr::to_string).collect();
        overrides.push("nameservers");
    }
    if !wanted.search.is_empty() {
        conf.search = if wanted.search == ["."] { Vec::new() } else { wanted.search.clone() };
        overrides.push("search");
    }
    if !wanted.options.is_empty() {
        conf.options = wanted.options.clone();
        overrides.push("options");
    }
    if mode == ResolvMode::Internal {
        let servers = upstreams(host, wanted);
        if !conf.options.iter().any(|o| o.starts_with("ndots:")) {
            conf.options.push("ndots:0".to_owned());
            return conf.write_internal(source, &servers, &overrides, "internal");
        }
        let origin = if wanted.options.is_empty() { "host" } else { "override" };
        return conf.write_internal(source, &servers, &overrides, origin);
    }
    let mut defaults = false;
    if let (ResolvMode::Bridge { ipv6 }, true) = (mode, wanted.servers.is_empty()) {
        conf.servers.retain(|server| usable(server, ipv6));
        if conf.servers.is_empty() {
            defaults = true;
            conf.servers.extend(["8.8.8.8", "8.8.4.4"].map(str::to_owned));
            if ipv6 {
                conf.servers.extend(["2001:4860:4860::8888", "2001:4860:4860::8844"].map(str::to_owned));
            }
        }
    }
    conf.write(source, matches!(mode, ResolvMode::Bridge { .. }), defaults, &overrides, !wanted.options.is_empty())
}

/// The servers that a host's file names.
pub(crate) fn servers(host: &str) -> Vec<IpAddr> {
    Parsed::read(host).servers.iter().filter_map(|s| s.parse().ok()).collect()
}

/// Whether a server of the host can be reached from a container's own namespace.
fn usable(server: &str, ipv6: bool) -> bool {
    match server.split('%').next().unwrap_or(server).parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => !a.is_loopback(),
        Ok(IpAddr::V6(a)) => ipv6 && !a.is_loopback(),
        Err(_) => false,
    }
}

/// What resolv.conf(5) knows, and the lines it does not.
#[derive(Default)]
struct Parsed {
    servers: Vec<String>,
    invalid: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    other: Vec<String>,
}

impl Parsed {
    fn read(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => parsed.server(words.collect()),
                Some("domain" | "search") => parsed.search = words.map(str::to_owned).collect(),
                Some("options") => parsed.options.extend(words.map(str::to_owned)),
                _ => parsed.other.push(line.to_owned()),
            }
        }
        parsed
    }

    fn server(&mut self, words: Vec<&str>) {
        let valid = |w: &str| w.split('%').next().is_some_and(|a| a.parse::<IpAddr>().is_ok());
        match words.as_slice() {
            [one] if valid(one) => self.servers.push((*one).to_owned()),
            _ => self.invalid.push(words.join(" ")),
        }
    }

    fn write_internal(&self, source: &str, servers: &[Server], overrides: &[&str], ndots: &str) -> String {
        let mut text = String::from(
            "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once it\n\
             # has been modified.\n\nnameserver 127.0.0.11\n",
        );
        for (word, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        for line in &self.other {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str(&format!("\n# Based on host file: '{source}' (internal resolver)\n"));
        let defaults = self.servers.is_empty();
        if defaults {
            text.push_str("# Used default nameservers.\n");
        }
        let one = |s: &Server| if s.from_host { format!("host({})", s.address) } else { s.address.to_string() };
        let list: Vec<String> = servers.iter().map(one).collect();
        text.push_str(&format!("# ExtServers: [{}]\n", list.join(" ")));
        if !self.invalid.is_empty() {
            text.push_str(&format!("# Invalid nameservers: [{}]\n", self.invalid.join(" ")));
        }
        text.push_str(&format!("# Overrides: [{}]\n# Option ndots from: {ndots}\n", overrides.join(" ")));
        text
    }

    fn write(&self, source: &str, legacy: bool, defaults: bool, overrides: &[&str], own_options: bool) -> String {
        let mut text = String::from(
            "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once it\n\
             # has been modified.\n\n",
        );
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for (word, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(&format!("{word} {}\n", values.join(" ")));
            }
        }
        for line in &self.other {
            text.push_str(&format!("{line}\n"));
        }
        let mark = if legacy { " (legacy)" } else { "" };
        text.push_str(&format!("\n# Based on host file: '{source}'{mark}\n"));
        if defaults {
            text.push_str("# Used default nameservers.\n");
        }
        if !self.invalid.is_empty() {
            text.push_str(&format!("# Invalid nameservers: [{}]\n", self.invalid.join(" ")));
        }
        text.push_str(&format!("# Overrides: [{}]\n", overrides.join(" ")));
        if self.options.iter().any(|o| o.starts_with("ndots:")) {
            text.push_str(&format!("# Option ndots from: {}\n", if own_options { "override" } else { "host" }));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further \
                        changes once it\n# has been modified.\n\n";
    const BRIDGE: ResolvMode = ResolvMode::Bridge { ipv6: false };

    fn none() -> ResolvOptions {
        ResolvOptions::default()
    }

    #[test]
    fn on_user_defined_networks_our_own_resolver_is_named_and_the_others_are_told_in_a_comment() {
        let text = resolv_conf("nameserver 10.255.255.53\n", ETC, ResolvMode::Internal, &none());
        let tail = "\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [host(10.255.255.53)]\n\
                    # Overrides: []\n# Option ndots from: internal\n";
        assert_eq!(text, format!("{HEAD}nameserver 127.0.0.11\noptions ndots:0\n{tail}"));
        let wanted = ResolvOptions { servers: vec![[1, 1, 1, 1].into()], ..none() };
        let text = resolv_conf("nameserver 10.255.255.53\n", ETC, ResolvMode::Internal, &wanted);
        assert!(text.contains("# ExtServers: [1.1.1.1]\n# Overrides: [nameservers]\n"), "{text}");
    }

    #[test]
    fn the_hosts_server_is_copied_with_dockers_comments() {
        let text = resolv_conf("nameserver 10.255.255.53\n", ETC, BRIDGE, &none());
        let tail = "\n# Based on host file: '/etc/resolv.conf' (legacy)\n# Overrides: []\n";
        assert_eq!(text, format!("{HEAD}nameserver 10.255.255.53\n{tail}"));
    }

    #[test]
    fn every_option_replaces_the_hosts_and_is_named() {
        let wanted = ResolvOptions {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: vec!["a.b".into()],
            options: vec!["ndots:3".into()],
        };
        let text = resolv_conf("nameserver 127.0.0.1\nsearch x y\noptions rotate\n", ETC, BRIDGE, &wanted);
        let tail = "\n# Based on host file: '/etc/resolv.conf' (legacy)\n# Overrides: [nameservers search options]\n\
                    # Option ndots from: override\n";
        assert_eq!(text, format!("{HEAD}nameserver 9.9.9.9\nsearch a.b\noptions ndots:3\n{tail}"));
    }

    #[test]
    fn loopback_and_ipv6_servers_are_dropped_for_an_ipv4_container() {
        let host = "nameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\n";
        assert!(resolv_conf(host, ETC, BRIDGE, &none()).contains("\n\nnameserver 1.1.1.1\n\n#"));
        let both = resolv_conf(host, ETC, ResolvMode::Bridge { ipv6: true }, &none());
        assert!(both.contains("\n\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\n\n#"), "{both}");
    }

    #[test]
    fn without_a_usable_server_public_ones_are_used_and_said() {
        let text = resolv_conf("nameserver 127.0.0.11\n", ETC, BRIDGE, &none());
        assert!(text.contains("\n\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n\n#"), "{text}");
        assert!(text.contains("(legacy)\n# Used default nameservers.\n# Overrides: []\n"));
    }

    #[test]
    fn host_networking_keeps_loopback_servers_and_a_dot_clears_the_search_list() {
        let wanted = ResolvOptions { search: vec![".".into()], ..none() };
        let text =
            resolv_conf("nameserver 127.0.0.53\nsearch corp\nsortlist 1.2.3.0\n", ETC, ResolvMode::Host, &wanted);
        let tail = "\n# Based on host file: '/etc/resolv.conf'\n# Overrides: [search]\n";
        assert_eq!(text, format!("{HEAD}nameserver 127.0.0.53\nsortlist 1.2.3.0\n{tail}"));
    }

    #[test]
    fn only_systemds_stub_is_followed() {
        assert_eq!(resolv_conf_path("# stub\nnameserver 127.0.0.53\noptions edns0\n"), SYSTEMD);
        assert_eq!(resolv_conf_path("nameserver 127.0.0.53\nnameserver 1.1.1.1\n"), ETC);
        assert_eq!(resolv_conf_path(""), ETC);
    }

    proptest::proptest! {
        #[test]
        fn any_host_file_gives_a_file_whose_servers_are_addresses(host in "[ -~\\n\\t]{0,200}") {
            let text = resolv_conf(&host, ETC, BRIDGE, &none());
            for line in text.lines().filter_map(|l| l.strip_prefix("nameserver ")) {
                proptest::prop_assert!(line.parse::<IpAddr>().is_ok(), "{}", line);
            }
        }
    }
}
