//! Measures the resolver: `cargo run --profile quick -p wharf-dns --example load [<namespace>]`.
//!
//! Without argument it answers itself, in a namespace of its own, on one core; with the path of a network namespace in
//! which 127.0.0.11:53 answers (`/proc/<pid>/ns/net` of a container), it asks there for the name in `NAME`. Eight
//! questions are under way at a time. Prints answers per second and the times of the middle and the slowest percent.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use wharf_dns::{Client, Host, Resolver, open_sockets};

const ROUND: usize = 200_000;
const TOGETHER: usize = 8;

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

fn ask(address: std::net::SocketAddr, name: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut sent = vec![Instant::now(); 65_536];
    let mut times = Vec::with_capacity(ROUND);
    let begin = Instant::now();
    let mut next = 0usize;
    let mut buffer = [0; 4096];
    let mut lost = 0;
    while times.len() + lost < ROUND {
        while next < ROUND && next - times.len() - lost < TOGETHER {
            let id = next as u16;
            sent[usize::from(id)] = Instant::now();
            socket.send(&question(id, name))?;
            next += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(n) if n > 12 && buffer[3] & 0xf == 0 => {
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                times.push(sent[usize::from(id)].elapsed());
            }
            Ok(_) => return Err(std::io::Error::other("an answer with an error")),
            Err(_) => lost += 1,
        }
    }
    let took = begin.elapsed();
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{:.0} answers/s, p50 {:?}, p99 {:?}, lost {lost}",
        times.len() as f64 / took.as_secs_f64(),
        at(50),
        at(99)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::var("NAME").unwrap_or_else(|_| "web7".into());
    if let Some(path) = std::env::args().nth(1) {
        let file = std::fs::File::open(path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        return Ok(ask("127.0.0.11:53".parse()?, &name)?);
    }
    // Deprecated because the flags FILES and VM can break Rust's assumptions; NEWNET touches neither.
    #[allow(deprecated)]
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    let resolver = Resolver::start()?;
    resolver.names(|names| {
        for n in 0..1000u16 {
            let ipv4 = Some([10, 0, (n / 250) as u8, (n % 250) as u8].into());
            let host = Host { key: n.to_string(), ipv4, ipv6: None, ports: Vec::new() };
            names.zone("n", "net").set(&[format!("web{n}")], &host);
        }
    });
    let sockets = open_sockets()?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 11], sockets.ports()?.0));
    resolver.serve("c", sockets, Client { networks: vec!["n".into()], ..Client::default() });
    for _ in 0..3 {
        ask(address, &name)?;
    }
    Ok(())
}
