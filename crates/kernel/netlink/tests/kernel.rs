//! Messages against the kernel, in private network namespaces. Runs as root.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::thread::UnshareFlags;
use wharf_netlink::nft::{self, Base, Batch, Element, Expr, Hook, Kind, MapType, Place, Verdict};
use wharf_netlink::route::{self, Veth, Which};
use wharf_netlink::{Errno, Family, Requests, Socket};

fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNET).expect("these tests run as root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn route_socket() -> Socket {
    Socket::open(Family::Route).unwrap()
}

fn call(build: impl FnOnce(&mut Requests)) -> Result<(), wharf_netlink::NetlinkError> {
    let mut requests = Requests::new();
    build(&mut requests);
    route_socket().call(&mut requests)
}

fn here() -> std::os::fd::OwnedFd {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty()).unwrap()
}

#[test]
fn a_link_is_gone_for_all_when_its_removal_returns() {
    alone(|| {
        let home = here();
        for _ in 0..5 {
            let veth =
                Veth { name: "v0", master: None, peer: "v1", peer_mac: None, peer_netns: home.as_fd(), mtu: 1500 };
            call(|r| route::add_veth(r, &veth)).expect("added: the name is free again");
            route::remove_link("v1").expect("removed");
            for name in ["v0", "v1"] {
                let found = route::link(&mut route_socket(), Which::Name(name));
                assert!(found.is_err_and(|e| e.is(Errno::NODEV)), "{name}");
            }
        }
        assert!(route::remove_link("v1").is_err_and(|e| e.is(Errno::NODEV)));
    });
}

#[test]
fn a_bridge_is_made_named_addressed_and_deleted() {
    alone(|| {
        call(|r| {
            route::add_bridge(r, "b0", [2, 0, 0, 0, 0, 7], 1400);
            route::set_alias(r, Which::Name("b0"), "wharf:test");
            route::set_up(r, Which::Name("b0"));
        })
        .unwrap();
        let link = route::link(&mut route_socket(), Which::Name("b0")).unwrap();
        assert_eq!((link.kind.as_str(), link.alias.as_str(), link.mtu, link.up), ("bridge", "wharf:test", 1400, true));
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 7]));
        let four: IpAddr = "10.1.2.3".parse().unwrap();
        let six: IpAddr = "fd00::3".parse().unwrap();
        call(|r| {
            route::add_address(r, link.index, four, 24, None);
            route::add_address(r, link.index, six, 64, None);
            route::add_route(r, None, "10.1.2.1".parse().unwrap(), link.index);
        })
        .unwrap();
        let addresses = route::addresses(&mut route_socket()).unwrap();
        let found = |a, p| addresses.iter().any(|x| (x.link, x.address, x.prefix) == (link.index, a, p));
        assert!(found(four, 24) && found(six, 64), "{addresses:?}");
        let routes = route::routes(&mut route_socket()).unwrap();
        assert!(routes.iter().any(|r| r.destination.is_none() && r.link == Some(link.index)), "{routes:?}");
        assert!(routes.iter().any(|r| r.destination == Some(("10.1.2.0".parse().unwrap(), 24))), "{routes:?}");
        call(|r| route::delete_link(r, Which::Index(link.index))).unwrap();
        assert!(route::link(&mut route_socket(), Which::Name("b0")).unwrap_err().is(Errno::NODEV));
    });
}

#[test]
fn the_peer_of_a_veth_is_born_in_the_other_namespace() {
    alone(|| {
        let (socket, netns) = std::thread::spawn(|| {
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            (route_socket(), here())
        })
        .join()
        .unwrap();
        call(|r| {
            let peer_mac = Some([2, 0, 0, 0, 0, 9]);
            let peer_netns = netns.as_fd();
            route::add_veth(r, &Veth { name: "v0", master: None, peer: "eth0", peer_mac, peer_netns, mtu: 1300 });
        })
        .unwrap();
        assert!(route::link(&mut route_socket(), Which::Name("eth0")).is_err());
        // A socket keeps the namespace in which it was made, wherever it is used.
        let mut there = socket;
        let peer = route::link(&mut there, Which::Name("eth0")).unwrap();
        assert_eq!((peer.mac, peer.mtu, peer.up), (Some([2, 0, 0, 0, 0, 9]), 1300, false));
    });
}

#[test]
fn a_refusal_names_the_request_and_the_others_are_carried_out() {
    alone(|| {
        let error = call(|r| {
            route::set_up(r, Which::Name("lo"));
            route::set_up(r, Which::Name("nowhere"));
            route::add_bridge(r, "b0", [2, 0, 0, 0, 0, 7], 1500);
        })
        .unwrap_err();
        assert!(error.is(Errno::NODEV), "{error:?}");
        assert!(error.to_string().starts_with("set link up"), "{error}");
        assert!(route::link(&mut route_socket(), Which::Name("b0")).is_ok());
    });
}

#[test]
fn many_links_are_listed_over_several_datagrams() {
    alone(|| {
        call(|r| (0..60).for_each(|i| route::add_bridge(r, &format!("b{i}"), [2, 0, 0, 0, 0, 1], 1500))).unwrap();
        let links = route::links(&mut route_socket()).unwrap();
        assert_eq!(links.iter().filter(|l| l.kind == "bridge").count(), 60);
    });
}

fn netfilter() -> Socket {
    Socket::open(Family::Netfilter).unwrap()
}

const INET: nft::Family = nft::Family::Inet;

fn map_type() -> MapType {
    MapType { key: 13, key_length: 4, value: 7 << 6 | 13, value_length: 8 }
}

fn element(n: u32) -> Element {
    Element { key: n.to_be_bytes().to_vec(), value: vec![10, 0, 0, 1, 0, 80, 0, 0] }
}

#[test]
fn a_batch_takes_effect_as_a_whole_or_not_at_all() {
    alone(|| {
        let mut socket = netfilter();
        let mut batch = Batch::new();
        batch.add_table(INET, "t");
        batch.add_map(INET, "t", "m", map_type(), 1);
        batch.add_elements(INET, "t", "m", &[element(1)]);
        batch.commit(&mut socket).unwrap();
        let mut batch = Batch::new();
        batch.add_elements(INET, "t", "m", &[element(2)]);
        batch.add_elements(INET, "t", "m", &[element(1)]);
        batch.add_elements(INET, "t", "m", &[element(3)]);
        let error = batch.commit(&mut socket).unwrap_err();
        assert!(error.is(Errno::EXIST), "{error:?}");
        assert_eq!(nft::element_count(&mut socket, INET, "t", "m"), Ok(1));
        let mut batch = Batch::new();
        batch.delete_elements(INET, "t", "m", &[element(1)]);
        batch.delete_elements(INET, "t", "nothing", &[element(1)]);
        assert!(batch.commit(&mut socket).unwrap_err().is(Errno::NOENT));
        assert_eq!(nft::element_count(&mut socket, INET, "t", "m"), Ok(1));
    });
}

#[test]
fn a_batch_larger_than_a_socket_buffer_is_taken() {
    alone(|| {
        let mut socket = netfilter();
        let mut batch = Batch::new();
        batch.add_table(INET, "t");
        batch.add_map(INET, "t", "m", map_type(), 1);
        let elements: Vec<_> = (0..20_000).map(element).collect();
        batch.add_elements(INET, "t", "m", &elements);
        batch.commit(&mut socket).unwrap();
        assert_eq!(nft::element_count(&mut socket, INET, "t", "m"), Ok(20_000));
        let mut batch = Batch::new();
        batch.delete_elements(INET, "t", "m", &elements);
        batch.commit(&mut socket).unwrap();
        assert_eq!(nft::element_count(&mut socket, INET, "t", "m"), Ok(0));
    });
}

#[test]
fn rules_are_read_with_their_order_comments_and_targets() {
    alone(|| {
        let mut socket = netfilter();
        let base = Base { kind: Kind::Filter, hook: Hook::Forward, priority: 0, drop: true };
        let jump = |to: &str| vec![Expr::Counter, Expr::Verdict(Verdict::Jump(to.into()))];
        let mut batch = Batch::new();
        batch.add_table(nft::Family::Ip, "filter");
        batch.add_chain(nft::Family::Ip, "filter", "USER", None, Some("mine"));
        batch.add_chain(nft::Family::Ip, "filter", "FORWARD", Some(base), None);
        batch.add_rule(nft::Family::Ip, "filter", "FORWARD", Place::Last, &jump("USER"), "one");
        batch.add_rule(nft::Family::Ip, "filter", "FORWARD", Place::First, &[Expr::Counter], "");
        batch.commit(&mut socket).unwrap();
        let rules = nft::rules(&mut socket, nft::Family::Ip, "filter", "FORWARD").unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].comment.as_deref(), rules[0].targets.len()), (None, 0));
        assert_eq!((rules[1].comment.as_deref(), rules[1].targets[0].as_str()), (Some("one"), "USER"));
        let mut batch = Batch::new();
        let place = Place::After(rules[0].handle);
        batch.add_rule(nft::Family::Ip, "filter", "FORWARD", place, &[Expr::Counter], "between");
        batch.set_policy(nft::Family::Ip, "filter", "FORWARD", false);
        batch.delete_rule(nft::Family::Ip, "filter", "FORWARD", rules[1].handle);
        batch.commit(&mut socket).unwrap();
        let rules = nft::rules(&mut socket, nft::Family::Ip, "filter", "FORWARD").unwrap();
        assert_eq!(rules.iter().map(|r| r.comment.as_deref()).collect::<Vec<_>>(), [None, Some("between")]);
        let chains = nft::chains(&mut socket).unwrap();
        let user = chains.iter().find(|c| c.name == "USER").unwrap();
        assert_eq!((user.comment.as_deref(), user.uses, &user.base), (Some("mine"), 0, &None));
        let forward = chains.iter().find(|c| c.name == "FORWARD").unwrap();
        assert_eq!((forward.drop, &forward.base), (false, &Some((2, "filter".to_owned()))));
    });
}

#[test]
fn events_tell_of_chains_and_rules_but_not_of_elements_and_a_flood_is_an_overrun() {
    alone(|| {
        let mut monitor = Socket::with_groups(Family::Netfilter, nft::EVENTS).unwrap();
        let mut socket = netfilter();
        let mut batch = Batch::new();
        batch.add_table(INET, "t");
        batch.add_map(INET, "t", "m", map_type(), 1);
        batch.commit(&mut socket).unwrap();
        let mut heard = Vec::new();
        while heard.is_empty() {
            monitor.events(|m| heard.extend(nft::event(m))).unwrap();
        }
        assert_eq!(heard, [nft::Event { family: INET, table: "t".into() }]);
        for round in 0..200u32 {
            let elements: Vec<_> = (round * 100..round * 100 + 100).map(element).collect();
            let mut batch = Batch::new();
            batch.add_elements(INET, "t", "m", &elements);
            batch.commit(&mut socket).unwrap();
        }
        let overrun = (0..100_000).find_map(|_| monitor.events(|m| assert_eq!(nft::event(m), None)).err());
        assert_eq!(overrun, Some(wharf_netlink::NetlinkError::Overrun));
    });
}
