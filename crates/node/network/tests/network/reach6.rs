//! The same over IPv6: addresses, published ports, isolation.

use crate::lab::*;
use wharf_netlink::nft::{Base, Batch, Family, Hook, Kind};
use wharf_network::{Attachment, BridgeConfig, Networks};

fn with_ipv6(change: impl FnOnce(&mut BridgeConfig)) -> Networks {
    let config = config_with(|b| {
        b.ipv6 = true;
        change(b);
    });
    Networks::open(config, vec![], vec![]).unwrap()
}

fn address6(attachment: &Attachment) -> std::net::IpAddr {
    attachment.endpoint.ipv6.unwrap().address()
}

#[test]
fn a_container_has_an_ipv6_address_that_works_at_once() {
    on_a_host(|| {
        let far = remote("far", 2);
        serve(&far, "[::]:7000");
        let networks = with_ipv6(|_| {});
        let c = container(&networks, &[]);
        assert_eq!(c.endpoint.ipv6.unwrap().to_string(), "fdab:abab:abab::2/64");
        assert_eq!(c.endpoint.gateway_v6.unwrap().to_string(), "fdab:abab:abab::1");
        let start = std::time::Instant::now();
        assert_eq!(reaches(&c.netns, "[fd99:0:0:2::2]:7000"), Some(ip("fd99:0:0:2::1")));
        assert!(start.elapsed() < std::time::Duration::from_millis(900), "no wait for duplicate addresses");
    });
}

fn published_over_ipv6(br_nf: &'static str) {
    on_a_host(move || {
        if br_netfilter(br_nf) {
            sysctl("bridge/bridge-nf-call-ip6tables", br_nf);
        }
        let far = remote("far", 2);
        let networks = with_ipv6(|_| {});
        let web = container(&networks, &[tcp(8080, 80)]);
        let other = container(&networks, &[]);
        serve(&web.netns, "[::]:80");
        let gateway = Some(ip("fdab:abab:abab::1"));
        assert_eq!(reaches(&far, "[fd99:0:0:2::1]:8080"), Some(ip("fd99:0:0:2::2")), "a remote client");
        assert_eq!(reaches(&here(), "[fd99:0:0:2::1]:8080"), Some(ip("fd99:0:0:2::1")), "host address");
        assert_eq!(reaches(&other.netns, "[fd99:0:0:2::1]:8080"), gateway, "another container");
        assert_eq!(reaches(&web.netns, "[fd99:0:0:2::1]:8080"), gateway, "the container itself");
        assert_eq!(reaches(&other.netns, "[fdab:abab:abab::2]:80"), Some(address6(&other)), "directly");
        assert!(blocked(&far, "[fdab:abab:abab::2]:80"), "not by its own address from outside");
        assert_eq!(web.sockets.relays.len(), 1, "::1 is left to the relay");
        assert_eq!(web.sockets.relays[0].to, at("[fdab:abab:abab::2]:80"));
        networks.detach(&web.endpoint).unwrap();
        assert!(blocked(&far, "[fd99:0:0:2::1]:8080"));
    });
}

#[test]
fn a_published_port_is_reachable_over_ipv6_with_br_netfilter_off() {
    published_over_ipv6("0");
}

#[test]
fn a_published_port_is_reachable_over_ipv6_with_br_netfilter_on() {
    published_over_ipv6("1");
}

#[test]
fn without_icc_ipv6_does_not_connect_containers_either() {
    on_a_host(|| {
        let networks = with_ipv6(|b| b.icc = false);
        let web = container(&networks, &[]);
        let other = container(&networks, &[]);
        serve(&web.netns, "[::]:80");
        assert!(blocked(&other.netns, "[fdab:abab:abab::2]:80"));
        assert!(blocked(&other.netns, "172.17.0.2:80"));
    });
}

#[test]
fn an_ipv6_forwarding_chain_that_drops_does_not_stop_published_ports() {
    on_a_host(|| {
        let far = remote("far", 2);
        let mut batch = Batch::new();
        let base = Base { kind: Kind::Filter, hook: Hook::Forward, priority: 0, drop: true };
        batch.add_table(Family::Ip6, "filter");
        batch.add_chain(Family::Ip6, "filter", "FORWARD", Some(base), None);
        apply(batch);
        let networks = with_ipv6(|_| {});
        let web = container(&networks, &[tcp(8080, 80)]);
        serve(&web.netns, "[::]:80");
        assert_eq!(reaches(&far, "[fd99:0:0:2::1]:8080"), Some(ip("fd99:0:0:2::2")));
    });
}

#[test]
fn a_given_ipv6_subnet_and_address_are_used() {
    on_a_host(|| {
        let networks = with_ipv6(|b| {
            b.bip6 = Some("fd00:1::5/64".parse().unwrap());
            b.fixed_cidr_v6 = Some("fd00:1::100/120".parse().unwrap());
        });
        assert_eq!(networks.bridge().unwrap().gateway_v6, Some("fd00:1::5".parse().unwrap()));
        let c = container(&networks, &[]);
        assert_eq!(c.endpoint.ipv6.unwrap().to_string(), "fd00:1::100/64");
    });
}

#[test]
fn cve_2020_13401_router_advertisements_from_containers_are_not_heard() {
    on_a_host(|| {
        let networks = with_ipv6(|_| {});
        let c = container(&networks, &[]);
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra")).unwrap();
        assert_eq!(read("w0").trim(), "0");
        assert_eq!(inside(&c.netns, || read("eth0")).trim(), "0");
    });
}
