//! Reservation of published ports, and Docker's messages about those that cannot be had.

use std::net::TcpListener;

use crate::lab::*;
use wharf_network::{NetworkError, Networks, PortRequest, Protocol};

fn refused(networks: &Networks, ports: &[PortRequest]) -> String {
    let e = networks.attach(&request(99, ports)).unwrap_err();
    let text = wharf_error::Chain(&e).to_string();
    match &e {
        NetworkError::PortBind { endpoint, .. } | NetworkError::PortAllocated { endpoint, .. } => {
            text.replace(endpoint, "ID")
        }
        _ => text,
    }
}

const PREFIX: &str = "driver failed programming external connectivity on endpoint c99 (ID): ";

#[test]
fn a_port_of_another_container_is_already_allocated() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8180, 80), tcp_at("127.0.0.1", 8181, 80)]);
        let all = format!("{PREFIX}Bind for 0.0.0.0:8180 failed: port is already allocated");
        assert_eq!(refused(&networks, &[tcp(8180, 80)]), all);
        assert_eq!(refused(&networks, &[tcp_at("127.0.0.1", 8180, 80)]), all);
        let one = format!("{PREFIX}Bind for 127.0.0.1:8181 failed: port is already allocated");
        assert_eq!(refused(&networks, &[tcp(8181, 80)]), one);
        networks.attach(&request(98, &[udp(8180, 80)])).unwrap();
        networks.detach(&c.endpoint).unwrap();
        drop(c);
        container(&networks, &[tcp(8180, 80), tcp(8181, 80)]);
    });
}

#[test]
fn a_port_of_another_program_cannot_be_bound_and_the_address_is_named() {
    on_a_host(|| {
        let _four = TcpListener::bind("0.0.0.0:8190").unwrap();
        let _six = TcpListener::bind("[::1]:8191").unwrap();
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let to = "172.17.0.2:80/tcp: address already in use";
        let text = format!("{PREFIX}failed to bind host port for 0.0.0.0:8190:{to}");
        assert_eq!(refused(&networks, &[tcp(8190, 80)]), text);
        let text = format!("{PREFIX}failed to bind host port for 127.0.0.1:8190:{to}");
        assert_eq!(refused(&networks, &[tcp_at("127.0.0.1", 8190, 80)]), text);
        let text = format!("{PREFIX}failed to bind host port for [::]:8191:{to}");
        assert_eq!(refused(&networks, &[tcp(8191, 80)]), text);
        let range = PortRequest { host_port_end: 8191, ..tcp(8190, 80) };
        let text = format!("{PREFIX}failed to bind host port 8191 for [::]:8190-8191:{to}");
        assert_eq!(refused(&networks, &[range]), text);
        let text = format!(
            "{PREFIX}failed to bind host port for 9.9.9.9:8192:172.17.0.2:80/tcp: cannot assign requested address"
        );
        assert_eq!(refused(&networks, &[tcp_at("9.9.9.9", 8192, 80)]), text);
    });
}

#[test]
fn a_refused_port_frees_the_others_of_the_same_container() {
    on_a_host(|| {
        let _four = TcpListener::bind("0.0.0.0:8190").unwrap();
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        refused(&networks, &[tcp(8080, 80), tcp(8190, 80)]);
        let c = container(&networks, &[tcp(8080, 80)]);
        assert_eq!(address(&c), ip("172.17.0.2"), "nor is an address lost");
    });
}

#[test]
fn a_port_that_nobody_named_comes_from_the_hosts_range_the_same_for_both_families() {
    on_a_host(|| {
        sysctl("ipv4/ip_local_port_range", "40000 40003");
        let _four = TcpListener::bind("0.0.0.0:40001").unwrap();
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let ports =
            |c: &wharf_network::Attachment| -> Vec<u16> { c.endpoint.ports.iter().map(|p| p.host_port).collect() };
        let first = container(&networks, &[tcp(0, 80)]);
        assert_eq!(ports(&first), [40000, 40000]);
        let second = container(&networks, &[tcp(0, 80), tcp(0, 81)]);
        assert_eq!(ports(&second), [40002, 40002, 40003, 40003]);
        let e = networks.attach(&request(99, &[tcp(0, 80)])).unwrap_err();
        assert!(e.to_string().ends_with("all ports are allocated"), "{e}");
        networks.detach(&first.endpoint).unwrap();
        drop(first);
        assert_eq!(ports(&container(&networks, &[tcp(0, 80)])), [40000, 40000]);
    });
}

#[test]
fn the_first_free_port_of_a_range_is_taken() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let range = PortRequest { host_port_end: 8302, ..tcp(8300, 90) };
        let got: Vec<_> = (0..3).map(|_| container(&networks, &[range])).collect();
        let ports: Vec<_> = got.iter().map(|c| c.endpoint.ports[0].host_port).collect();
        assert_eq!(ports, [8300, 8301, 8302]);
        assert!(refused(&networks, &[range]).ends_with("Bind for 0.0.0.0:8302 failed: port is already allocated"));
    });
}

#[test]
fn a_held_port_cannot_be_taken_by_another_program_and_is_free_after_its_sockets_close() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        assert!(TcpListener::bind("[::]:8080").is_err());
        // The daemon dies: the shim's descriptors still hold the port.
        drop(networks);
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        drop(c);
        TcpListener::bind("0.0.0.0:8080").unwrap();
    });
}

#[test]
fn ipv6_clients_of_an_ipv4_container_are_left_to_the_shims_relay() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let c = container(&networks, &[tcp(8080, 80)]);
        assert_eq!(c.sockets.hold.len(), 1);
        assert_eq!(c.sockets.relays.len(), 1);
        assert_eq!(c.sockets.relays[0].to, at("172.17.0.2:80"));
        let listening = inside(&here(), || std::net::TcpStream::connect("[::1]:8080").is_ok());
        assert!(listening);
    });
}

#[test]
fn sctp_ports_are_published() {
    on_a_host(|| {
        let networks = Networks::open(config(), vec![], vec![]).unwrap();
        let sctp = PortRequest { protocol: Protocol::Sctp, ..tcp(9899, 9899) };
        let c = container(&networks, &[sctp]);
        assert_eq!(c.endpoint.ports.len(), 2);
        assert_eq!(elements("port4"), 1);
        networks.detach(&c.endpoint).unwrap();
        assert_eq!(elements("port4"), 0);
    });
}

#[test]
fn the_default_binding_is_used_for_ports_that_name_no_address_and_all_zeros_means_both_families() {
    on_a_host(|| {
        for (binding, want) in [("127.0.0.1", vec!["127.0.0.1"]), ("0.0.0.0", vec!["0.0.0.0", "::"])] {
            let networks = Networks::open(config_with(|b| b.host_binding = Some(ip(binding))), vec![], vec![]).unwrap();
            let c = container(&networks, &[tcp(8080, 80)]);
            let got: Vec<_> = c.endpoint.ports.iter().map(|p| p.host_ip.to_string()).collect();
            assert_eq!(got, want);
            networks.detach(&c.endpoint).unwrap();
            drop(c);
            networks.close().unwrap();
        }
    });
}
