//! The default bridge in private namespaces: addresses, published ports, isolation. Runs as root.

use crate::lab::*;
use wharf_netlink::route::{self, Which};
use wharf_netlink::{Family, Socket};
use wharf_network::Networks;

#[test]
fn a_container_has_an_address_and_reaches_host_and_remote() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[]);
        assert_eq!(c.endpoint.ipv4.unwrap().to_string(), "172.17.0.2/16");
        assert_eq!(c.endpoint.mac.to_string(), "02:42:ac:11:00:02");
        serve(&far, "0.0.0.0:7000");
        serve(&here(), "0.0.0.0:7001");
        // Outgoing traffic has the host's address on that side; the host itself sees the container.
        assert_eq!(reaches(&c.netns, "192.0.2.2:7000"), Some(ip("192.0.2.1")));
        assert_eq!(reaches(&c.netns, "172.17.0.1:7001"), Some(ip("172.17.0.2")));
        assert_eq!(reaches(&c.netns, "192.0.2.1:7001"), Some(ip("172.17.0.2")));
    });
}

fn published_port_is_reachable_from_everywhere(br_nf: &'static str) {
    on_a_host(move || {
        let far = remote("far", 2);
        if !br_netfilter(br_nf) {
            println!("skipped: this kernel has no br_netfilter");
            return;
        }
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let web = container(&networks, &[tcp(8080, 80)]);
        let other = container(&networks, &[]);
        serve(&web.netns, "0.0.0.0:80");
        let home = here();
        let gateway = Some(ip("172.17.0.1"));
        assert_eq!(reaches(&home, "127.0.0.1:8080"), gateway, "loopback");
        assert_eq!(reaches(&home, "127.0.0.7:8080"), gateway, "another loopback address");
        assert_eq!(reaches(&home, "192.0.2.1:8080"), Some(ip("192.0.2.1")), "host address");
        assert_eq!(reaches(&home, "172.17.0.1:8080"), gateway, "gateway address");
        assert_eq!(reaches(&far, "192.0.2.1:8080"), Some(ip("192.0.2.2")), "a remote client keeps its address");
        assert_eq!(reaches(&other.netns, "192.0.2.1:8080"), gateway, "another container");
        assert_eq!(reaches(&other.netns, "172.17.0.1:8080"), gateway, "another container by the gateway");
        assert_eq!(reaches(&web.netns, "192.0.2.1:8080"), gateway, "the container itself");
        assert_eq!(reaches(&other.netns, "172.17.0.2:80"), Some(address(&other)), "directly");
        assert!(blocked(&far, "172.17.0.2:80"), "not by its own address from outside");
    });
}

#[test]
fn a_published_port_is_reachable_from_everywhere_with_br_netfilter_off() {
    published_port_is_reachable_from_everywhere("0");
}

#[test]
fn a_published_port_is_reachable_from_everywhere_with_br_netfilter_on() {
    published_port_is_reachable_from_everywhere("1");
}

#[test]
fn a_udp_port_is_reachable_and_its_answers_come_from_the_host_address() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[udp(5353, 53)]);
        serve_udp(&c.netns, "0.0.0.0:53");
        assert_eq!(ask_udp(&far, "0.0.0.0:0", "192.0.2.1:5353", SOON), Some(ip("192.0.2.2")));
        assert_eq!(ask_udp(&here(), "0.0.0.0:0", "127.0.0.1:5353", SOON), Some(ip("172.17.0.1")));
    });
}

#[test]
fn an_old_udp_client_finds_the_next_container_on_the_same_port() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let first = container(&networks, &[udp(5353, 53)]);
        serve_udp(&first.netns, "0.0.0.0:53");
        assert!(ask_udp(&far, "0.0.0.0:4000", "192.0.2.1:5353", SOON).is_some());
        networks.detach(&first.endpoint).unwrap();
        drop(first);
        let second = container(&networks, &[udp(5353, 53)]);
        serve_udp(&second.netns, "0.0.0.0:53");
        eventually("the old flow is forgotten", || ask_udp(&far, "0.0.0.0:4000", "192.0.2.1:5353", BLOCKED).is_some());
    });
}

#[test]
fn a_port_on_one_host_address_is_reachable_only_there() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let local = container(&networks, &[tcp_at("127.0.0.1", 8081, 80), tcp_at("192.0.2.1", 8082, 80)]);
        let other = container(&networks, &[]);
        serve(&local.netns, "0.0.0.0:80");
        assert_eq!(reaches(&here(), "127.0.0.1:8081"), Some(ip("172.17.0.1")));
        assert!(blocked(&here(), "192.0.2.1:8081"));
        assert!(blocked(&far, "192.0.2.1:8081"));
        assert!(blocked(&other.netns, "172.17.0.1:8081"));
        assert_eq!(reaches(&far, "192.0.2.1:8082"), Some(ip("192.0.2.2")));
        assert!(blocked(&here(), "127.0.0.1:8082"));
    });
}

#[test]
fn without_icc_containers_reach_each_other_only_by_published_ports() {
    for br_nf in ["0", "1"] {
        on_a_host(move || {
            br_netfilter(br_nf);
            let far = remote("far", 2);
            let networks = Networks::open(config_with(|b| b.icc = false), vec![], vec![]).unwrap();
            let web = container(&networks, &[tcp(8080, 80)]);
            let other = container(&networks, &[]);
            serve(&web.netns, "0.0.0.0:80");
            serve(&web.netns, "0.0.0.0:81");
            serve(&far, "0.0.0.0:7000");
            assert!(blocked(&other.netns, "172.17.0.2:81"), "br_netfilter {br_nf}");
            assert!(blocked(&other.netns, "172.17.0.2:80"), "br_netfilter {br_nf}");
            assert_eq!(reaches(&other.netns, "192.0.2.1:8080"), Some(ip("172.17.0.1")), "br_netfilter {br_nf}");
            assert_eq!(reaches(&other.netns, "192.0.2.2:7000"), Some(ip("192.0.2.1")));
        });
    }
}

#[test]
fn cve_2020_8558_neighbours_do_not_reach_services_on_the_hosts_loopback() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let web = container(&networks, &[tcp_at("127.0.0.1", 8081, 80)]);
        serve(&web.netns, "0.0.0.0:80");
        serve(&here(), "127.0.0.1:9000");
        // A container, or a machine on the same wire, that routes loopback addresses to the host.
        let container = silent();
        wire("evil", &container, 0, Some(index("w0")));
        inside(&container, || {
            let link = index("eth0");
            rtnl(|r| route::add_address(r, link, ip("172.17.9.9"), 16, None));
        });
        for (attacker, gateway) in [(&container, "172.17.0.1"), (&far, "192.0.2.1")] {
            inside(attacker, || {
                sysctl("ipv4/conf/all/route_localnet", "1");
                sysctl("ipv4/conf/eth0/route_localnet", "1");
                let link = index("eth0");
                // The far host has its own loopback; 127.0.0.2 there would be itself, so it has none here.
                rtnl(|r| {
                    route::set_down(r, Which::Name("lo"));
                    route::set_up(r, Which::Index(link));
                });
                rtnl(|r| route::add_route(r, Some((ip("127.0.0.0"), 8)), ip(gateway), link));
            });
            assert!(blocked(attacker, "127.0.0.1:9000"));
            assert!(blocked(attacker, "127.0.0.1:8081"));
        }
        assert!(dropped_loopback_packets() > 0, "the attack did not even arrive");
    });
}

#[test]
fn cve_2024_32473_a_container_of_an_ipv4_network_has_no_ipv6() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[]);
        inside(&c.netns, || {
            let mut socket = Socket::open(Family::Route).unwrap();
            let link = index("eth0");
            let all = route::addresses(&mut socket).unwrap();
            assert!(!all.iter().any(|a| a.link == link && a.address.is_ipv6()), "{all:?}");
        });
    });
}

#[test]
fn forwarding_that_is_not_ours_stays_off_when_we_switch_forwarding_on() {
    on_a_host(|| {
        sysctl("ipv4/ip_forward", "0");
        let a = remote("a", 2);
        let b = remote("b", 3);
        serve(&b, "0.0.0.0:7000");
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        assert_eq!(reaches(&a, "192.0.2.1:8080"), Some(ip("192.0.2.2")));
        assert_eq!(reaches(&c.netns, "192.0.3.2:7000"), Some(ip("192.0.3.1")));
        assert!(blocked(&a, "192.0.3.2:7000"));
    });
}

#[test]
fn an_own_ethernet_address_is_announced_and_so_is_the_return_to_the_usual_one() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let other = container(&networks, &[]);
        let usual = address(&other);
        let mac = "02:00:00:00:00:99".parse().unwrap();
        let mut wish = request(200, &[]);
        wish.mac = Some(mac);
        let strange = networks.attach(&wish).unwrap();
        assert_eq!(strange.endpoint.mac, mac);
        serve(&strange.netns, "0.0.0.0:80");
        let to = format!("{}:80", address(&strange));
        assert_eq!(reaches(&other.netns, &to), Some(usual));
        networks.detach(&strange.endpoint).unwrap();
        let before = address(&strange);
        drop(strange);
        let mut held = Vec::new();
        let again = loop {
            let c = container(&networks, &[]);
            if address(&c) == before {
                break c;
            }
            held.push(c);
        };
        serve(&again.netns, "0.0.0.0:80");
        assert_eq!(ask(&other.netns, at(&to), std::time::Duration::from_millis(900)), Some(usual));
    });
}

#[test]
fn a_udp_client_that_asked_before_the_port_was_published_is_answered() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        assert_eq!(ask_udp(&far, "0.0.0.0:4000", "192.0.2.1:5353", BLOCKED), None);
        let c = container(&networks, &[udp(5353, 53)]);
        serve_udp(&c.netns, "0.0.0.0:53");
        eventually("the old flow is forgotten", || ask_udp(&far, "0.0.0.0:4000", "192.0.2.1:5353", BLOCKED).is_some());
    });
}
