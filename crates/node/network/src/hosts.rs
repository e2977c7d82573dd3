//! /etc/hosts of a container.

use std::net::IpAddr;

/// One `--add-host` line. `host-gateway` is resolved by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsEntry {
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
}

/// Writes a container's hosts file as Docker does: localhost lines, `--add-host` lines, then one line per own address
/// with host name and, for `--hostname foo.bar`, the short name.
pub fn hosts_file(own: &[IpAddr], hostname: &str, domain: &str, extra: &[HostsEntry]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for entry in extra {
        text.push_str(&format!("{}\t{}\n", entry.address, entry.name));
    }
    let full = if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain}") };
    let short = full.split('.').next().filter(|s| *s != full);
    for address in own {
        match short {
            Some(short) => text.push_str(&format!("{address}\t{full} {short}\n")),
            None => text.push_str(&format!("{address}\t{full}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                        ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

    #[test]
    fn a_dotted_hostname_gets_its_short_name_and_extra_hosts_come_first() {
        let extra = [
            HostsEntry { address: "172.28.0.1".parse().unwrap(), name: "x".into() },
            HostsEntry { address: "::1".parse().unwrap(), name: "z".into() },
        ];
        let text = hosts_file(&["172.28.0.3".parse().unwrap()], "foo.bar", "", &extra);
        assert_eq!(text, format!("{HEAD}172.28.0.1\tx\n::1\tz\n172.28.0.3\tfoo.bar foo\n"));
    }

    #[test]
    fn a_container_without_address_has_only_the_localhost_lines() {
        assert_eq!(hosts_file(&[], "b79dd1b42d3a", "", &[]), HEAD);
    }

    #[test]
    fn each_address_family_gets_a_line_and_a_domain_is_joined() {
        let own = ["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let text = hosts_file(&own, "web", "example.org", &[]);
        assert_eq!(text, format!("{HEAD}172.17.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"));
    }
}
