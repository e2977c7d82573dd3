//! Rows about networks (`ROWS=network`): connect and disconnect, many ports, throughput beside a bare veth pair, the resolver.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Cli, Daemon, DaemonOptions};

use crate::{Engine, Measure, medians, print};

/// Bytes of one transfer.
const TRANSFER: u64 = 256 << 20;
/// How long the resolver is asked.
const ASKING: Duration = Duration::from_secs(3);
/// Questions under way at a time.
const WINDOW: usize = 32;
const NETWORK: &str = "bench-net";
const ONE: &str = "bench-one";
const TWO: &str = "bench-two";

/// Runs `work` on a thread in the network namespace of a process.
fn within<T: Send>(pid: u32, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let path = format!("/proc/{pid}/ns/net");
    let file = std::fs::File::open(&path).map_err(|e| format!("{path}: {e}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).map_err(|e| format!("{path}: {e}"))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned()))
    })
}

fn text(e: std::io::Error) -> String {
    e.to_string()
}

impl Engine {
    fn fact(&self, container: &str, pointer: &str) -> Result<serde_json::Value, String> {
        let all = self.rest.get(&format!("/v1.44/containers/{container}/json")).json();
        all.pointer(pointer).cloned().ok_or_else(|| format!("{}: no {pointer} in {all}", self.label))
    }

    fn container_pid(&self, container: &str) -> Result<u32, String> {
        let pid = self.fact(container, "/State/Pid")?;
        pid.as_u64().and_then(|p| p.try_into().ok()).ok_or_else(|| format!("{}: {container} does not run", self.label))
    }

    fn container_address(&self, container: &str) -> Result<Ipv4Addr, String> {
        let address = self.fact(container, &format!("/NetworkSettings/Networks/{NETWORK}/IPAddress"))?;
        address
            .as_str()
            .and_then(|a| a.parse().ok())
            .ok_or_else(|| format!("{}: {container} has no address", self.label))
    }
}

/// MB/s from a client in one process's namespace to a server in another's.
fn transfer(server: u32, client: u32, at: SocketAddr, to: SocketAddr) -> Result<f64, String> {
    let listener = within(server, || TcpListener::bind(at).map_err(text))?;
    let taking = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut connection, _) = listener.accept()?;
        let (mut buffer, mut taken) = (vec![0; 1 << 20], 0);
        loop {
            match connection.read(&mut buffer)? {
                0 => break,
                n => taken += n as u64,
            }
        }
        connection.write_all(b".")?;
        Ok(taken)
    });
    let begun = Instant::now();
    let mut connection = within(client, || TcpStream::connect_timeout(&to, Duration::from_secs(10)).map_err(text))?;
    let chunk = vec![0; 1 << 20];
    for _ in 0..TRANSFER >> 20 {
        connection.write_all(&chunk).map_err(text)?;
    }
    connection.shutdown(std::net::Shutdown::Write).map_err(text)?;
    connection.read_exact(&mut [0]).map_err(text)?;
    let took = begun.elapsed();
    match taking.join() {
        Ok(Ok(TRANSFER)) => Ok(TRANSFER as f64 / took.as_secs_f64() / 1e6),
        other => Err(format!("the transfer was cut: {other:?}")),
    }
}

/// A namespace with a bridge, and two on it, with nothing else: what the kernel can do. Not on the host, where other
/// programs' rules see bridged packets.
struct Bare {
    holders: Vec<std::process::Child>,
}

impl Bare {
    fn make() -> Result<Bare, String> {
        let mut made = Bare { holders: Vec::new() };
        for n in 1..4 {
            let holder = Command::new("unshare").args(["--net", "sleep", "10000"]).spawn().map_err(text)?;
            let pid = holder.id();
            made.holders.push(holder);
            let own = std::fs::read_link("/proc/self/ns/net").map_err(text)?;
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|l| l == own) && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            let line = match n {
                1 => "ip link add name bare type bridge; ip addr add 10.253.77.1/24 dev bare; ip link set bare up"
                    .to_owned(),
                _ => format!(
                    "ip link add v{n} master bare type veth peer name eth0 netns {pid}; ip link set v{n} up; \
                     nsenter -t {pid} -n sh -ec \"ip addr add 10.253.77.{n}/24 dev eth0; ip link set eth0 up\""
                ),
            };
            let line = format!("nsenter -t {} -n sh -ec '{line}'", made.holders[0].id());
            match Command::new("sh").args(["-ec", &line]).status() {
                Ok(status) if status.success() => {}
                other => return Err(format!("{line}: {other:?}")),
            }
        }
        Ok(made)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A question for an A record.
fn question(name: &str, id: u16) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.push(name.len() as u8);
    packet.extend(name.as_bytes());
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// Answers each second with a window of questions under way, and the 99th percentile in milliseconds with one at a time.
fn ask(pid: u32, name: &str) -> Result<(f64, f64), String> {
    let socket = within(pid, || UdpSocket::bind("127.0.0.1:0").map_err(text))?;
    within(pid, || socket.connect("127.0.0.11:53").map_err(text))?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(text)?;
    let mut buffer = [0; 512];
    let (begun, mut answers, mut id) = (Instant::now(), 0u64, 0u16);
    let mut send = || {
        id = id.wrapping_add(1);
        socket.send(&question(name, id)).map(drop).map_err(text)
    };
    (0..WINDOW).try_for_each(|_| send())?;
    while begun.elapsed() < ASKING {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                answers += 1;
                send()?;
            }
            // Lost ones: a new window.
            Err(_) => (0..WINDOW).try_for_each(|_| send())?,
        }
    }
    let rate = answers as f64 / begun.elapsed().as_secs_f64();
    socket.set_nonblocking(true).map_err(text)?;
    std::thread::sleep(Duration::from_millis(200));
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_nonblocking(false).map_err(text)?;
    let mut times = Vec::new();
    for n in 0..5000u16 {
        let begun = Instant::now();
        socket.send(&question(name, n)).map_err(text)?;
        socket.recv(&mut buffer).map_err(text)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((rate, times[times.len() * 99 / 100]))
}

/// A row where more is better.
fn print_rate(name: &str, unit: &str, values: &[f64], bare: Option<f64>) {
    let ratio = values.get(1).map(|peer| format!("{:>8.1}x", values[0] / peer)).unwrap_or_default();
    let peer = values.get(1).map(|v| format!("{v:>10.0}")).unwrap_or_default();
    let bare = bare.map(|b| format!("  bare {b:.0}, {:.0} % of it", values[0] / b * 100.0)).unwrap_or_default();
    println!("{name:<44} {:>10.0} {peer} {unit:<5}{ratio}{bare}", values[0]);
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One transfer of each way in each round; the first round is not counted.
fn rates(rounds: usize, ways: &[&dyn Fn() -> Result<f64, String>]) -> Result<Vec<f64>, String> {
    let mut all = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (way, values) in ways.iter().zip(&mut all) {
            let value = way()?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(all.into_iter().map(middle).collect())
}

/// Measures.
pub(crate) fn rows(engines: &[Engine], rounds: usize, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    clear(engines);
    for engine in engines {
        engine.docker(&["network", "create", NETWORK])?;
        let publish = |name: &str| match name {
            ONE => vec!["-p", "127.0.0.1::9000"],
            _ => Vec::new(),
        };
        for name in [ONE, TWO] {
            let first = ["run", "-d", "--name", name, "--network", NETWORK];
            engine.docker(&[&first[..], &publish(name), &["busybox", "sleep", "10000"]].concat())?;
        }
        engine.docker(&["run", "-d", "--name", "bench-connect", "busybox", "sleep", "10000"])?;
    }
    let connect = |e: &Engine| {
        e.docker(&["network", "connect", NETWORK, "bench-connect"])?;
        e.docker(&["network", "disconnect", NETWORK, "bench-connect"])
    };
    let many: Vec<String> = (0..20).flat_map(|n| ["-p".to_owned(), (9100 + n).to_string()]).collect();
    let ports = |e: &Engine| {
        let mut line = vec!["run", "--rm"];
        line.extend(many.iter().map(String::as_str));
        line.extend(["busybox", "true"]);
        e.docker(&line)
    };
    let own = |e: &Engine| e.docker(&["run", "--rm", "--network", NETWORK, "busybox", "true"]);
    let timed: [(&str, Measure<'_>); 3] = [
        ("network connect and disconnect", &connect),
        ("run --rm with 20 published ports", &ports),
        ("run --rm on a user-defined network", &own),
    ];
    for (name, measure) in timed.into_iter().filter(|(name, _)| wanted(name)) {
        print(name, "ms", &medians(engines, rounds, measure)?);
    }
    if wanted("ports") {
        curve(&engines[..1], rounds)?;
    }
    if wanted("throughput") {
        throughput(engines, rounds)?;
    }
    if wanted("resolver") {
        let mut found = Vec::new();
        for engine in engines {
            found.push(ask(engine.container_pid(ONE)?, TWO)?);
        }
        print_rate("resolver, answers to local names", "1/s", &found.iter().map(|f| f.0).collect::<Vec<_>>(), None);
        print("resolver, p99 of one at a time", "ms", &found.iter().map(|f| f.1).collect::<Vec<_>>());
    }
    clear(engines);
    Ok(())
}

/// What one more port costs beside 1 to 5,000 that are published already. Ours only: a peer with a process for each port
/// would need minutes and gigabytes.
fn curve(ours: &[Engine], rounds: usize) -> Result<(), String> {
    let one = |e: &Engine| e.docker(&["run", "--rm", "-p", "127.0.0.1:19999:80", "busybox", "true"]);
    for count in [1u16, 10, 100, 1000, 5000] {
        let range = format!("127.0.0.1:20000-{last}:20000-{last}", last = 20_000 + count - 1);
        let name = format!("bench-ports-{count}");
        let begun = Instant::now();
        for engine in ours {
            engine.docker(&["run", "-d", "--name", &name, "-p", &range, "busybox", "sleep", "10000"])?;
        }
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        print(&format!("run with {count} ports, each port"), "ms", &[took / f64::from(count)]);
        let measured = medians(ours, rounds, &one);
        ours.iter().try_for_each(|e| e.docker(&["rm", "-f", &name]))?;
        print(&format!("run --rm with one port beside {count} ports"), "ms", &measured?);
    }
    Ok(())
}

/// Our engine on a host of its own: other programs' rules, those of a peer among them, see bridged packets where
/// br_netfilter is on, and their cost is not ours.
fn alone() -> Result<(Daemon, Engine), String> {
    let options = DaemonOptions { in_memory: true, own_network: true, ..DaemonOptions::default() };
    let daemon = Daemon::start(options);
    testkit::base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]);
    let engine = Engine {
        label: "wharf alone",
        host: daemon.host(),
        cli: Cli::Ours.program().ok_or("our docker is not built")?,
        config: daemon.folder().join("config"),
        rest: daemon.rest(),
        pid: daemon.pid(),
    };
    engine.docker(&["network", "create", NETWORK])?;
    for (name, port) in [(ONE, Some("127.0.0.1::9000")), (TWO, None)] {
        let first = ["run", "-d", "--name", name, "--network", NETWORK];
        let publish: Vec<&str> = port.iter().flat_map(|p| ["-p", *p]).collect();
        engine.docker(&[&first[..], &publish, &["busybox", "sleep", "10000"]].concat())?;
    }
    Ok((daemon, engine))
}

/// One transfer, in MB/s.
type Way = Box<dyn Fn() -> Result<f64, String>>;

fn throughput(engines: &[Engine], rounds: usize) -> Result<(), String> {
    let bare = Bare::make()?;
    let here = std::process::id();
    let any = SocketAddr::from(([0, 0, 0, 0], 9000));
    let [bridge, first, second] = [0, 1, 2].map(|n: usize| bare.holders[n].id());
    let to_bare = |from: u32| move || transfer(first, from, any, SocketAddr::from(([10, 253, 77, 2], 9000)));
    let mut published: Vec<Way> = Vec::new();
    let mut between: Vec<Way> = Vec::new();
    let (_daemon, alone) = alone()?;
    for engine in engines.iter().chain([&alone]) {
        let here = if engine.label == alone.label { alone.pid } else { here };
        let (one, two) = (engine.container_pid(ONE)?, engine.container_pid(TWO)?);
        let port = engine.fact(ONE, "/NetworkSettings/Ports/9000~1tcp/0/HostPort")?;
        let port: u16 = port.as_str().and_then(|p| p.parse().ok()).ok_or("no port is published")?;
        let address = engine.container_address(ONE)?;
        published.push(Box::new(move || transfer(one, here, any, SocketAddr::from(([127, 0, 0, 1], port)))));
        between.push(Box::new(move || transfer(one, two, any, SocketAddr::from((address, 9000)))));
    }
    published.push(Box::new(to_bare(bridge)));
    between.push(Box::new(to_bare(second)));
    for (name, ways) in
        [("throughput, loopback to a published port", published), ("throughput, container to container", between)]
    {
        let ways: Vec<&dyn Fn() -> Result<f64, String>> = ways.iter().map(|w| &**w).collect();
        let mut found = rates(rounds, &ways)?;
        let bare = found.pop();
        let alone = found.pop();
        print_rate(name, "MB/s", &found, bare);
        print_rate("  the same, on a host without others' rules", "MB/s", &alone.into_iter().collect::<Vec<_>>(), bare);
    }
    Ok(())
}

/// Removes what this or an earlier bench left.
fn clear(engines: &[Engine]) {
    for engine in engines {
        let _ = engine.docker(&["rm", "-f", ONE, TWO, "bench-connect"]);
        let _ = engine.docker(&["network", "rm", NETWORK]);
    }
}
