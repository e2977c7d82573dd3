//! What stays and what goes: kills, adoption, reconcile, clean close, other programs' rules.

use crate::lab::*;
use std::os::fd::AsFd;
use wharf_netlink::nft::{Base, Batch, Expr, Family, Hook, Kind, Place, Verdict};
use wharf_netlink::route::{self, Which};
use wharf_network::{Endpoint, NetworkError, Networks};

fn links(prefix: &str) -> Vec<String> {
    let all = route::links(&mut wharf_netlink::Socket::open(wharf_netlink::Family::Route).unwrap()).unwrap();
    all.into_iter().map(|l| l.name).filter(|n| n.starts_with(prefix)).collect()
}

#[test]
fn a_close_without_containers_leaves_nothing() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        networks.detach(&c.endpoint).unwrap();
        drop(c);
        networks.close().unwrap();
        assert_eq!(chains(), Vec::<String>::new());
        assert_eq!(links("w0"), Vec::<String>::new());
        eventually("links die with their namespaces", || links("veth").is_empty());
    });
}

#[test]
fn a_close_with_containers_keeps_what_they_need_and_the_next_daemon_adopts_it() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        networks.close().unwrap();
        assert_eq!(reaches(&far, "192.0.2.1:8080"), Some(ip("192.0.2.2")));
        let stored: Endpoint = serde_json::from_str(&serde_json::to_string(&c.endpoint).unwrap()).unwrap();
        let networks = Networks::open(config(), vec![], vec![stored]).unwrap();
        assert_eq!(reaches(&far, "192.0.2.1:8080"), Some(ip("192.0.2.2")));
        let other = container(&networks, &[]);
        assert_ne!(address(&other), address(&c));
        let e = networks.attach(&request(9, &[tcp(8080, 80)])).unwrap_err();
        assert!(matches!(e, NetworkError::PortAllocated { .. }), "{e}");
        networks.detach(&c.endpoint).unwrap();
        assert!(blocked(&far, "192.0.2.1:8080"));
    });
}

#[test]
fn a_killed_daemons_leavings_are_removed_and_strangers_things_are_not() {
    on_a_host(|| {
        let stranger = silent();
        rtnl(|r| {
            let veth = route::Veth {
                name: "stranger",
                master: None,
                peer: "eth0",
                peer_mac: None,
                peer_netns: stranger.as_fd(),
                mtu: 1500,
            };
            route::add_veth(r, &veth);
            route::set_alias(r, Which::Name("stranger"), "wharf:ffffffffffff:ready");
        });
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let kept = container(&networks, &[tcp(8080, 80)]);
        let lost = container(&networks, &[tcp(8081, 80)]);
        eventually("the pool is full", || links("veth").len() == 3);
        // As after a kill: nothing was told anyone.
        drop(networks);
        let networks = Networks::open(config(), vec![], vec![kept.endpoint.clone()]).unwrap();
        assert!(links("veth").contains(&kept.endpoint.host_link));
        assert!(!links("veth").contains(&lost.endpoint.host_link));
        assert_eq!(elements("port4"), 1);
        assert_eq!(links("stranger").len(), 1);
        networks.detach(&kept.endpoint).unwrap();
        networks.close().unwrap();
        assert_eq!(chains(), Vec::<String>::new());
    });
}

#[test]
fn two_hundred_containers_come_and_go_and_nothing_stays() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..8u16 {
                let networks = &networks;
                scope.spawn(move || {
                    for i in 0..25 {
                        let port = 20000 + worker * 100 + i;
                        let c = networks.attach(&request(worker as u8, &[tcp(port, 80), udp(0, 53)])).unwrap();
                        networks.detach(&c.endpoint).unwrap();
                        networks.detach(&c.endpoint).unwrap();
                    }
                });
            }
        });
        assert_eq!((elements("port4"), elements("address4")), (0, 0));
        eventually("only the pool's link is left", || links("veth").len() <= 1);
        networks.close().unwrap();
        eventually("no link is left", || links("veth").is_empty());
        assert_eq!(chains(), Vec::<String>::new());
    });
}

/// What ufw and an administrator's nftables.conf do: drop what they do not know.
fn hostile_rules() {
    let mut batch = Batch::new();
    let base = Base { kind: Kind::Filter, hook: Hook::Forward, priority: 0, drop: true };
    for (family, table, chain) in
        [(Family::Ip, "filter", "FORWARD"), (Family::Ip6, "filter", "FORWARD"), (Family::Inet, "mine", "fwd")]
    {
        batch.add_table(family, table);
        batch.add_chain(family, table, chain, Some(base), None);
        batch.add_rule(family, table, chain, Place::Last, &[Expr::Counter], "nothing");
    }
    apply(batch);
}

#[test]
fn published_ports_work_beside_forwarding_chains_that_drop_and_after_their_reload() {
    on_a_host(|| {
        let far = remote("far", 2);
        hostile_rules();
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        serve(&far, "0.0.0.0:7000");
        let works = || {
            ask(&far, at("192.0.2.1:8080"), BLOCKED) == Some(ip("192.0.2.2"))
                && ask(&c.netns, at("192.0.2.2:7000"), BLOCKED) == Some(ip("192.0.2.1"))
        };
        eventually("published and outgoing connections", works);
        flush_ruleset();
        hostile_rules();
        eventually("rules are added again after a reload", works);
        networks.detach(&c.endpoint).unwrap();
        drop(c);
        networks.close().unwrap();
        assert_eq!(chains(), ["filter FORWARD", "filter FORWARD", "mine fwd"]);
        assert_eq!(rule_count(Family::Ip, "filter", "FORWARD"), 1);
        assert_eq!(rule_count(Family::Inet, "mine", "fwd"), 1);
    });
}

#[test]
fn docker_user_is_called_before_anything_is_accepted() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        assert!(reaches(&far, "192.0.2.1:8080").is_some());
        // `iptables -I DOCKER-USER -j DROP`
        let mut batch = Batch::new();
        let drop_all = [Expr::Counter, Expr::Verdict(Verdict::Drop)];
        batch.add_rule(Family::Ip, "filter", "DOCKER-USER", Place::First, &drop_all, "");
        apply(batch);
        assert!(blocked(&far, "192.0.2.1:8080"));
        networks.detach(&c.endpoint).unwrap();
        networks.close().unwrap();
        assert_eq!(rule_count(Family::Ip, "filter", "DOCKER-USER"), 1, "the administrator's rule stays");
    });
}

#[test]
fn a_flushed_ruleset_is_written_again() {
    on_a_host(|| {
        let far = remote("far", 2);
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        serve(&c.netns, "0.0.0.0:80");
        flush_ruleset();
        eventually("the port is published again", || ask(&far, at("192.0.2.1:8080"), BLOCKED) == Some(ip("192.0.2.2")));
    });
}

#[test]
fn a_named_bridge_must_exist_be_a_bridge_and_have_an_address() {
    on_a_host(|| {
        let open = || Networks::open(config_with(|b| b.create = false), vec![], vec![]).err().map(|e| e.to_string());
        let missing = "bridge device with non default name w0 must be created manually";
        assert_eq!(open().as_deref(), Some(missing));
        rtnl(|r| route::add_bridge(r, "w0", [2, 0, 0, 0, 0, 1], 1500));
        assert!(matches!(
            Networks::open(config_with(|b| b.create = false), vec![], vec![]).err(),
            Some(NetworkError::NoBridgeAddress(_))
        ));
        let link = index("w0");
        rtnl(|r| route::add_address(r, link, ip("10.88.0.1"), 24, None));
        let networks = Networks::open(config_with(|b| b.create = false), vec![], vec![]).unwrap();
        assert_eq!(networks.bridge().unwrap().subnet.to_string(), "10.88.0.0/24");
        let loopback = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/w0/route_localnet").unwrap();
        assert_eq!(loopback().trim(), "1");
        networks.close().unwrap();
        assert_eq!(links("w0").len(), 1, "a bridge that we did not make stays");
        assert_eq!(loopback().trim(), "0", "and is not left open to loopback addresses");
        let lo = Networks::open(config_with(|b| b.name = "lo".into()), vec![], vec![]).err();
        assert!(matches!(lo, Some(NetworkError::NotABridge(_))));
        for name in ["", "a/b", "sixteen-letters-", "..", "a b"] {
            let e = Networks::open(config_with(|b| b.name = name.into()), vec![], vec![]).err();
            assert!(matches!(e, Some(NetworkError::BridgeName(_))), "{name:?}");
        }
    });
}

#[test]
fn a_new_bridge_avoids_subnets_that_the_host_routes() {
    on_a_host(|| {
        let _far = remote("far", 2);
        let link = index("far");
        rtnl(|r| route::add_route(r, Some((ip("172.16.0.0"), 12)), ip("192.0.2.2"), link));
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        assert_eq!(networks.bridge().unwrap().subnet.to_string(), "192.168.0.0/20");
    });
}

#[test]
fn bip_and_fixed_cidr_place_bridge_and_containers() {
    on_a_host(|| {
        let config = config_with(|b| {
            b.bip = Some("10.9.0.5/24".parse().unwrap());
            b.fixed_cidr = Some("10.9.0.128/25".parse().unwrap());
        });
        let networks = Networks::open(config, vec![], vec![]).unwrap();
        assert_eq!(networks.bridge().unwrap().gateway.to_string(), "10.9.0.5");
        let c = container(&networks, &[]);
        assert_eq!(c.endpoint.ipv4.unwrap().to_string(), "10.9.0.128/24");
    });
}

#[test]
fn without_a_bridge_there_is_no_default_network() {
    on_a_host(|| {
        let mut config = config();
        config.bridge = None;
        let networks = Networks::open(config, vec![], vec![]).unwrap();
        assert!(matches!(networks.attach(&request(1, &[])), Err(NetworkError::NoDefaultNetwork)));
        networks.close().unwrap();
    });
}

#[test]
fn with_rules_switched_off_no_rule_is_written_and_the_shim_relays_all() {
    on_a_host(|| {
        let mut config = config();
        config.iptables = false;
        config.ip6tables = false;
        let networks = Networks::open(config, vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        assert_eq!(c.sockets.relays.len(), 2);
        assert_eq!(chains(), Vec::<String>::new());
    });
}

#[test]
fn containers_of_two_daemons_are_isolated_and_one_closes_without_touching_the_other() {
    on_a_host(|| {
        let far = remote("far", 2);
        let first = Networks::open(config(), vec![], vec![]).unwrap();
        let second = Networks::open(second_config(), vec![], vec![]).unwrap();
        let a = container(&first, &[tcp(8080, 80)]);
        let b = container(&second, &[tcp(8081, 80)]);
        assert_ne!(first.bridge().unwrap().subnet, second.bridge().unwrap().subnet);
        for c in [&a, &b] {
            serve(&c.netns, "0.0.0.0:80");
        }
        let target = |c: &wharf_network::Attachment| format!("{}:80", address(c));
        assert!(blocked(&a.netns, &target(&b)));
        assert!(blocked(&b.netns, &target(&a)));
        assert!(reaches(&far, "192.0.2.1:8080").is_some());
        assert!(reaches(&far, "192.0.2.1:8081").is_some());
        first.detach(&a.endpoint).unwrap();
        first.close().unwrap();
        assert!(reaches(&far, "192.0.2.1:8081").is_some());
        assert_eq!(links("w1").len(), 1);
        let user = || chains().iter().any(|c| c == "filter DOCKER-USER");
        eventually("who still wants DOCKER-USER makes it again", user);
    });
}

#[test]
fn cve_2025_54388_and_54410_a_reload_of_other_rules_opens_neither_loopback_ports_nor_isolation() {
    on_a_host(|| {
        let far = remote("far", 2);
        hostile_rules();
        let first = Networks::open(config(), vec![], vec![]).unwrap();
        let second = Networks::open(second_config(), vec![], vec![]).unwrap();
        let a = container(&first, &[tcp_at("127.0.0.1", 8081, 80)]);
        let b = container(&second, &[]);
        serve(&a.netns, "0.0.0.0:80");
        // firewalld deletes and writes its own tables; an accept of everything is the worst it can leave.
        for table in [(Family::Ip, "filter"), (Family::Ip6, "filter"), (Family::Inet, "mine")] {
            let mut batch = Batch::new();
            batch.delete_table(table.0, table.1);
            apply(batch);
        }
        assert!(blocked(&far, "192.0.2.1:8081"));
        assert!(blocked(&far, &format!("{}:80", address(&a))));
        assert!(blocked(&b.netns, &format!("{}:80", address(&a))));
    });
}

#[test]
fn a_container_without_network_has_lo_and_nothing_else_and_shares_it_with_nobody() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        // More than are kept ready, so that both ways of getting one are taken.
        let taken: Vec<_> = (0..5).map(|_| networks.solitary().unwrap()).collect();
        for namespace in &taken {
            assert_eq!(inside(namespace, || links("")), ["lo"]);
            serve(namespace, "127.0.0.1:80");
            assert_eq!(reaches(namespace, "127.0.0.1:80"), Some(ip("127.0.0.1")), "lo is up");
        }
        let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let different: std::collections::BTreeSet<_> = taken.iter().map(inode).collect();
        assert_eq!(different.len(), taken.len());
        networks.close().unwrap();
    });
}
