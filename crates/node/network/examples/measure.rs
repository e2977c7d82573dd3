//! Measures attach and detach in a private network namespace: `cargo run --profile quick -p wharf-network --example
//! measure`. Prints medians and the processor time of this process per container.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use wharf_network::{BridgeConfig, EndpointRequest, NetworkConfig, Networks, PortRequest, Protocol};
use wharf_types::{ContainerId, InstanceId};

const ROUNDS: usize = 200;

fn request(ports: Vec<PortRequest>) -> EndpointRequest {
    EndpointRequest { container: ContainerId::from_bytes([7; 32]), name: "c".into(), mac: None, ports }
}

fn port(host_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, container_port: 80, host_ip: None, host_port, host_port_end: host_port }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn rounds(what: &str, networks: &Networks, ports: &[PortRequest], pause: Duration) {
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    let before = processor_time();
    for _ in 0..ROUNDS {
        std::thread::sleep(pause);
        let start = Instant::now();
        let made = match networks.attach(&request(ports.to_vec())) {
            Ok(made) => made,
            Err(e) => return println!("{what}: {}", wharf_error::Chain(&e)),
        };
        attach.push(start.elapsed());
        let start = Instant::now();
        if let Err(e) = networks.detach(&made.endpoint) {
            return println!("{what}: {}", wharf_error::Chain(&e));
        }
        detach.push(start.elapsed());
    }
    let each = (processor_time() - before) / ROUNDS as u32;
    println!("{what:40} attach {:>9.1?} detach {:>9.1?} processor {each:>9.1?}", median(attach), median(detach));
}

/// Sends for two seconds to a port, which a server in the container reads. Megabytes per second.
fn throughput(container: OwnedFd, to: &str) -> io::Result<f64> {
    let server = std::thread::spawn(move || -> io::Result<u64> {
        move_into_link_name_space(container.as_fd(), Some(LinkNameSpaceType::Network))?;
        let (mut stream, _) = TcpListener::bind("0.0.0.0:80")?.accept()?;
        let mut buffer = vec![0; 256 * 1024];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    });
    let start = Instant::now();
    let mut stream = loop {
        // Until the server listens.
        match TcpStream::connect(to) {
            Ok(stream) => break stream,
            Err(_) if start.elapsed() < Duration::from_secs(2) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return Err(e),
        }
    };
    let start = Instant::now();
    let data = vec![0; 256 * 1024];
    while start.elapsed() < Duration::from_secs(2) {
        stream.write_all(&data)?;
    }
    drop(stream);
    let total = server.join().unwrap_or(Ok(0))?;
    Ok(total as f64 / start.elapsed().as_secs_f64() / 1e6)
}

fn main() {
    // Deprecated because of other flags; see `netns`.
    #[allow(deprecated)]
    if let Err(e) = rustix::thread::unshare(UnshareFlags::NEWNET) {
        return println!("needs root: {e}");
    }
    let mut requests = wharf_netlink::Requests::new();
    wharf_netlink::route::set_up(&mut requests, wharf_netlink::route::Which::Name("lo"));
    if let Err(e) = wharf_netlink::Socket::open(wharf_netlink::Family::Route).and_then(|mut s| s.call(&mut requests)) {
        return println!("loopback: {e}");
    }
    let open = |pool_size: usize, ipv6: bool| {
        let mut bridge = BridgeConfig::new("m0");
        bridge.create = true;
        bridge.ipv6 = ipv6;
        let instance = InstanceId::from_bytes([9; 6]);
        let config = NetworkConfig { bridge: Some(bridge), pool_size, ..NetworkConfig::new(instance) };
        Networks::open(config, vec![], vec![])
    };
    let pause = Duration::from_millis(5);
    for (pool, ipv6) in [(4, false), (4, true), (0, false)] {
        let networks = match open(pool, ipv6) {
            Ok(networks) => networks,
            Err(e) => return println!("open: {}", wharf_error::Chain(&e)),
        };
        let name = |what: &str| format!("{what}, pool {pool}{}", if ipv6 { ", IPv6" } else { "" });
        rounds(&name("no port"), &networks, &[], pause);
        rounds(&name("one port"), &networks, &[port(8080)], pause);
        let many: Vec<_> = (0..1000).map(|i| port(20000 + i)).collect();
        let start = Instant::now();
        match networks.attach(&request(many)) {
            Ok(made) => {
                println!("{:40} attach {:>9.1?}", name("a thousand ports"), start.elapsed());
                rounds(&name("one port beside a thousand"), &networks, &[port(8080)], pause);
                drop(made);
            }
            Err(e) => println!("a thousand ports: {}", wharf_error::Chain(&e)),
        }
        rounds(&name("no port, back to back"), &networks, &[], Duration::ZERO);
        match networks.attach(&request(vec![port(8080)])) {
            Ok(made) => match throughput(made.netns, "127.0.0.1:8080") {
                Ok(rate) => println!("{:40} {rate:.0} MB/s", name("published port, loopback")),
                Err(e) => println!("throughput: {e}"),
            },
            Err(e) => println!("throughput: {}", wharf_error::Chain(&e)),
        }
    }
}
