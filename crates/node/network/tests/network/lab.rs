//! A laboratory of private network namespaces: a host, remote hosts, containers, and probes between them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use wharf_netlink::route::{self, Veth, Which};
use wharf_netlink::{Family, Requests, Socket, nft};
use wharf_network::{Attachment, BridgeConfig, EndpointRequest, NetworkConfig, Networks, PortRequest, Protocol};
use wharf_types::{ContainerId, InstanceId};

/// How long anything may take that is expected to happen.
pub const SOON: Duration = Duration::from_secs(10);
/// How long a connection must stay unanswered to count as blocked.
pub const BLOCKED: Duration = Duration::from_millis(300);

pub type Namespace = OwnedFd;

/// Runs a test in a host of its own: a fresh network namespace with loopback up.
pub fn on_a_host(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        fresh();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn fresh() {
    #[allow(deprecated)]
    rustix::thread::unshare(UnshareFlags::NEWNET).expect("these tests run as root");
    let mut requests = Requests::new();
    route::set_up(&mut requests, Which::Name("lo"));
    Socket::open(Family::Route).unwrap().call(&mut requests).unwrap();
}

pub fn here() -> Namespace {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty()).unwrap()
}

/// Runs `work` in a namespace, on a thread of its own.
pub fn inside<T: Send>(namespace: &impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let fd = namespace.as_fd();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub fn rtnl(build: impl FnOnce(&mut Requests)) {
    let mut requests = Requests::new();
    build(&mut requests);
    Socket::open(Family::Route).unwrap().call(&mut requests).unwrap();
}

pub fn index(name: &str) -> u32 {
    route::link(&mut Socket::open(Family::Route).unwrap(), Which::Name(name)).unwrap().index
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Adds a remote host on a network of its own: the host gets 192.0.2.1 and fd99::1 on link `name`, the remote
/// 192.0.2.2 and fd99::2, with its default routes to the host.
pub fn remote(name: &str, third: u8) -> Namespace {
    let namespace = std::thread::spawn(|| {
        fresh();
        here()
    })
    .join()
    .unwrap();
    wire(name, &namespace, third, None);
    namespace
}

/// A namespace in which not even loopback is up.
pub fn silent() -> Namespace {
    std::thread::spawn(|| {
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        here()
    })
    .join()
    .unwrap()
}

/// How many packets the rules against loopback addresses from outside have dropped.
pub fn dropped_loopback_packets() -> u64 {
    let mut socket = Socket::open(Family::Netfilter).unwrap();
    let rules = nft::rules(&mut socket, nft::Family::Inet, &config().table, "raw").unwrap();
    rules.iter().map(|r| r.packets).sum()
}

fn netfilter() -> Socket {
    Socket::open(Family::Netfilter).unwrap()
}

pub fn apply(batch: nft::Batch) {
    batch.commit(&mut netfilter()).unwrap();
}

/// All chains here, as `table chain`, sorted.
pub fn chains() -> Vec<String> {
    let all = nft::chains(&mut netfilter()).unwrap();
    let mut names: Vec<_> = all.into_iter().map(|c| format!("{} {}", c.table, c.name)).collect();
    names.sort();
    names
}

pub fn rule_count(family: nft::Family, table: &str, chain: &str) -> usize {
    nft::rules(&mut netfilter(), family, table, chain).unwrap().len()
}

/// How many elements a map of our table has.
pub fn elements(map: &str) -> usize {
    nft::element_count(&mut netfilter(), nft::Family::Inet, &config().table, map).unwrap()
}

/// `nft flush ruleset`.
pub fn flush_ruleset() {
    let mut tables: Vec<_> = nft::chains(&mut netfilter()).unwrap().into_iter().map(|c| (c.family, c.table)).collect();
    tables.sort();
    tables.dedup();
    let mut batch = nft::Batch::new();
    tables.iter().for_each(|(family, table)| batch.delete_table(*family, table));
    apply(batch);
}

pub fn wire(name: &str, namespace: &Namespace, third: u8, master: Option<u32>) {
    rtnl(|r| {
        let veth = Veth { name, master, peer: "eth0", peer_mac: None, peer_netns: namespace.as_fd(), mtu: 1500 };
        route::add_veth(r, &veth);
        route::set_up(r, Which::Name(name));
    });
    let six = |host: u8| ip(&format!("fd99:0:0:{third}::{host}"));
    let four = |host: u8| IpAddr::from([192, 0, third, host]);
    let here = index(name);
    if master.is_none() {
        rtnl(|r| {
            route::add_address(r, here, four(1), 24, None);
            route::add_address(r, here, six(1), 64, None);
        });
    }
    inside(namespace, || {
        let there = index("eth0");
        rtnl(|r| {
            route::set_up(r, Which::Index(there));
            if master.is_none() {
                route::add_address(r, there, four(2), 24, None);
                route::add_address(r, there, six(2), 64, None);
                route::add_route(r, None, four(1), there);
                route::add_route(r, None, six(1), there);
            }
        });
    });
    // Asking for a link does its carrier's deferred work, so that the first packet gets through.
    index(name);
}

pub fn config() -> NetworkConfig {
    let mut bridge = BridgeConfig::new("w0");
    bridge.create = true;
    let instance = InstanceId::from_bytes([0xab; 6]);
    NetworkConfig { bridge: Some(bridge), pool_size: 1, ..NetworkConfig::new(instance) }
}

pub fn config_with(change: impl FnOnce(&mut BridgeConfig)) -> NetworkConfig {
    let mut config = config();
    change(config.bridge.as_mut().unwrap());
    config
}

/// Another daemon on the same host.
pub fn second_config() -> NetworkConfig {
    let mut bridge = BridgeConfig::new("w1");
    bridge.create = true;
    let instance = InstanceId::from_bytes([0xcd; 6]);
    NetworkConfig { bridge: Some(bridge), pool_size: 1, ..NetworkConfig::new(instance) }
}

pub fn request(number: u8, ports: &[PortRequest]) -> EndpointRequest {
    EndpointRequest {
        container: ContainerId::from_bytes([number; 32]),
        name: format!("c{number}"),
        mac: None,
        ports: ports.to_vec(),
    }
}

pub fn tcp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, container_port, host_ip: None, host_port, host_port_end: host_port }
}

pub fn tcp_at(host: &str, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { host_ip: Some(ip(host)), ..tcp(host_port, container_port) }
}

pub fn udp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Udp, ..tcp(host_port, container_port) }
}

static NUMBER: AtomicU16 = AtomicU16::new(1);

pub fn container(networks: &Networks, ports: &[PortRequest]) -> Attachment {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) as u8;
    networks.attach(&request(number, ports)).unwrap()
}

pub fn address(attachment: &Attachment) -> IpAddr {
    attachment.endpoint.ipv4.unwrap().address()
}

/// A TCP server in a namespace that tells every client the address it sees. It ends with its process.
pub fn serve(namespace: &impl AsFd, local: &str) {
    let listener = inside(namespace, || TcpListener::bind(local).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// Asks a server who it thinks we are.
pub fn ask(namespace: &impl AsFd, to: SocketAddr, patience: Duration) -> Option<IpAddr> {
    inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

pub fn reaches(namespace: &impl AsFd, to: &str) -> Option<IpAddr> {
    ask(namespace, at(to), SOON)
}

pub fn blocked(namespace: &impl AsFd, to: &str) -> bool {
    ask(namespace, at(to), BLOCKED).is_none()
}

/// A UDP server that answers with the client's address.
pub fn serve_udp(namespace: &impl AsFd, local: &str) {
    let socket = inside(namespace, || UdpSocket::bind(local).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

pub fn ask_udp(namespace: &impl AsFd, from: &str, to: &str, patience: Duration) -> Option<IpAddr> {
    inside(namespace, || {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send_to(b"?", at(to)).ok()?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        std::str::from_utf8(&buffer[..length]).ok()?.parse().ok()
    })
}

/// Waits until a state holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

/// Whether the sysctl of bridged traffic through iptables exists here, and sets it.
pub fn br_netfilter(value: &str) -> bool {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    std::path::Path::new(path).exists() && std::fs::write(path, value).is_ok()
}
