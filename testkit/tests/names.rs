//! The resolver of user-defined networks: names of containers, upstreams, and what must not leak.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::{Cli, Daemon, DaemonOptions, eventually};

fn daemon() -> Daemon {
    Daemon::with_image()
}

fn network(daemon: &Daemon, name: &str, flags: &[&str]) {
    daemon.docker(&[&["network", "create"][..], flags, &[name]].concat()).ok();
}

fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) {
    daemon.docker(&[&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat()).ok();
}

/// Asks the container's resolver and returns the addresses, sorted. Debian's static busybox crashes in getaddrinfo, so
/// the question is asked by a packet of our own.
fn resolve(daemon: &Daemon, container: &str, name: &str) -> Vec<String> {
    let answer = ask(daemon, container, name, 1).unwrap_or_default();
    let mut found = addresses(&answer);
    found.sort();
    found
}

/// A question as a packet: id 0x1234, recursion wanted.
fn packet(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// Sends a packet to 127.0.0.11:53 from the container's namespace, entered by a thread of this process.
fn in_namespace<T: Send>(daemon: &Daemon, container: &str, work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", container]).ok();
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container runs");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            work()
        });
        thread.join().expect("the thread does not panic")
    })
}

fn exchange(question: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket.connect("127.0.0.11:53").expect("an address");
    socket.send(question).ok()?;
    let mut buffer = [0; 4096];
    socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec())
}

fn ask(daemon: &Daemon, container: &str, name: &str, kind: u16) -> Option<Vec<u8>> {
    let question = packet(name, kind);
    in_namespace(daemon, container, || exchange(&question, Duration::from_secs(6)))
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0xf
}

/// The IPv4 addresses at the end of an answer whose records all have compressed or full names of the question's length.
fn addresses(answer: &[u8]) -> Vec<String> {
    let count = answer.get(6..8).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let mut found = Vec::new();
    let mut at = 12;
    while answer.get(at).is_some_and(|l| *l != 0) {
        at += usize::from(answer[at]) + 1;
    }
    at += 5;
    for _ in 0..count {
        while answer.get(at).is_some_and(|l| *l != 0 && *l < 0xc0) {
            at += usize::from(answer[at]) + 1;
        }
        at += if answer.get(at).is_some_and(|l| *l >= 0xc0) { 2 } else { 1 };
        let Some(head) = answer.get(at..at + 10) else { break };
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        if let Some(&[a, b, c, d]) = answer.get(at + 10..at + 10 + length) {
            found.push(format!("{a}.{b}.{c}.{d}"));
        }
        at += 10 + length;
    }
    found
}

#[test]
fn containers_find_each_other_by_name_alias_short_id_and_link_on_common_networks_only() {
    let daemon = daemon();
    network(&daemon, "nt-front", &["--subnet", "10.213.0.0/24"]);
    network(&daemon, "nt-back", &["--subnet", "10.214.0.0/24"]);
    sleeper(&daemon, "nt-db", &["--network", "name=nt-back,alias=db,ip=10.214.0.10", "--hostname", "dbhost"]);
    sleeper(
        &daemon,
        "nt-api",
        &["--network", "name=nt-back,ip=10.214.0.11", "--network", "name=nt-front,alias=api,ip=10.213.0.11"],
    );
    sleeper(&daemon, "nt-web", &["--network", "nt-front", "--link", "nt-api:linked"]);
    let id = daemon.docker(&["inspect", "-f", "{{.ID}}", "nt-db"]).ok();
    for name in ["nt-db", "NT-DB", "db", "dbhost", "nt-db.nt-back", &id[..12]] {
        assert_eq!(resolve(&daemon, "nt-api", name), ["10.214.0.10"], "{name}");
    }
    assert_eq!(resolve(&daemon, "nt-web", "api"), ["10.213.0.11"]);
    assert_eq!(resolve(&daemon, "nt-web", "linked"), ["10.213.0.11"]);
    assert_eq!(resolve(&daemon, "nt-api", "linked"), Vec::<String>::new(), "a link is the client's alone");
    assert_eq!(resolve(&daemon, "nt-web", "db"), Vec::<String>::new(), "not on a common network");
    daemon.docker(&["network", "connect", "--alias", "late", "nt-front", "nt-db"]).ok();
    assert_eq!(resolve(&daemon, "nt-web", "late").len(), 1);
    daemon.docker(&["network", "disconnect", "nt-front", "nt-db"]).ok();
    assert_eq!(resolve(&daemon, "nt-web", "late"), Vec::<String>::new());
    daemon.docker(&["rename", "nt-db", "nt-other"]).ok();
    assert_eq!(resolve(&daemon, "nt-api", "nt-other"), ["10.214.0.10"]);
    let pointer = ask(&daemon, "nt-api", "10.0.214.10.in-addr.arpa", 12).expect("an answer");
    assert_eq!((code(&pointer), pointer[7]), (0, 1));
    assert!(String::from_utf8_lossy(&pointer).contains("nt-other"), "{pointer:?}");
    daemon.docker(&["rm", "-f", "nt-other", "nt-api", "nt-web"]).ok();
    daemon.docker(&["network", "rm", "nt-front", "nt-back"]).ok();
}

#[test]
fn a_shared_alias_means_all_its_containers_in_turn() {
    let daemon = daemon();
    network(&daemon, "nt-turn", &[]);
    for n in ["nt-t1", "nt-t2", "nt-t3"] {
        sleeper(&daemon, n, &["--network", "nt-turn", "--network-alias", "pool"]);
    }
    assert_eq!(resolve(&daemon, "nt-t1", "pool").len(), 3);
    let firsts: std::collections::BTreeSet<String> =
        (0..12).filter_map(|_| addresses(&ask(&daemon, "nt-t1", "pool", 1)?).into_iter().next()).collect();
    assert!(firsts.len() > 1, "always the same first: {firsts:?}");
    let none = ask(&daemon, "nt-t1", "pool", 28).expect("an answer");
    assert_eq!((code(&none), none[7]), (0, 0), "a known name without IPv6 is no error");
    daemon.docker(&["rm", "-f", "nt-t2"]).ok();
    assert_eq!(resolve(&daemon, "nt-t1", "pool").len(), 2);
    daemon.docker(&["rm", "-f", "nt-t1", "nt-t3"]).ok();
    daemon.docker(&["network", "rm", "nt-turn"]).ok();
}

#[test]
fn stock_and_own_clients_show_the_names_and_resolv_conf_names_our_resolver() {
    let daemon = daemon();
    network(&daemon, "nt-show", &[]);
    sleeper(&daemon, "nt-s", &["--network", "nt-show", "--network-alias", "x", "--hostname", "h.example"]);
    for cli in Cli::all() {
        let names = daemon
            .run(cli, &["inspect", "-f", "{{json (index .NetworkSettings.Networks \"nt-show\").DNSNames}}", "nt-s"])
            .ok();
        let id = daemon.run(cli, &["inspect", "-f", "{{.ID}}", "nt-s"]).ok();
        assert_eq!(names, format!("[\"nt-s\",\"x\",\"{}\",\"h.example\"]", &id[..12]));
    }
    let resolv = daemon.docker(&["exec", "nt-s", "cat", "/etc/resolv.conf"]).ok();
    assert!(
        resolv.contains("nameserver 127.0.0.11\n") && resolv.contains("options") && resolv.contains("ndots:0"),
        "{resolv}"
    );
    daemon.docker(&["rm", "-f", "nt-s"]).ok();
    daemon.docker(&["network", "rm", "nt-show"]).ok();
}

/// A name server on an address of the daemon's namespace that answers what `reply` makes of a question.
struct Upstream {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    fn start(address: &str, reply: impl Fn(&[u8], usize) -> Vec<Vec<u8>> + Send + 'static) -> Upstream {
        let socket = UdpSocket::bind(address).expect("the address is ours");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, count) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !ended.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                let turn = count.fetch_add(1, Ordering::Relaxed);
                for packet in reply(&buffer[..n], turn) {
                    let _ = socket.send_to(&packet, from);
                }
            }
        });
        Upstream { stop, asked, thread: Some(thread) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer with one address.
fn with_address(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend_from_slice(&address);
    answer
}

#[test]
fn upstreams_that_are_slow_dead_lying_or_cutting_are_dealt_with() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs addresses of the daemon's host");
    }
    let daemon = Daemon::start(DaemonOptions::default());
    testkit::base_image(&daemon);
    network(&daemon, "nt-up", &["--subnet", "10.215.0.0/24"]);
    // Reached from the container's own namespace through the gateway, which is the host.
    let good = Upstream::start("10.215.0.1:53", |q, _| vec![with_address(q, [192, 0, 2, 1])]);
    sleeper(&daemon, "nt-u", &["--network", "nt-up", "--dns", "10.215.0.1"]);
    assert_eq!(resolve(&daemon, "nt-u", "example.test"), ["192.0.2.1"]);
    drop(good);
    // Two packets: a guess with a wrong id, and one that answers another question. Neither is taken.
    let liar = Upstream::start("10.215.0.1:53", |q, _| {
        let mut guess = with_address(q, [192, 0, 2, 66]);
        guess[0] ^= 0xff;
        let mut other = with_address(q, [192, 0, 2, 67]);
        other[13] ^= 1;
        vec![guess, other, with_address(q, [192, 0, 2, 1])]
    });
    assert_eq!(resolve(&daemon, "nt-u", "example.test"), ["192.0.2.1"]);
    drop(liar);
    let cutting = Upstream::start("10.215.0.1:53", |q, _| {
        let mut answer = q.to_vec();
        answer[2] = 0x83;
        vec![answer]
    });
    let answer = ask(&daemon, "nt-u", "example.test", 1).expect("an answer");
    assert_eq!(answer[2] & 2, 2, "the client is told to use TCP");
    drop(cutting);
    // The first server is dead, the second says it does not know, the third answers.
    let refusing = Upstream::start("10.215.0.1:53", |q, _| {
        let mut answer = q.to_vec();
        answer[2] = 0x81;
        answer[3] = 5;
        vec![answer]
    });
    let third = Upstream::start("127.0.0.1:5300", |_, _| Vec::new());
    sleeper(&daemon, "nt-v", &["--network", "nt-up", "--dns", "10.215.0.250", "--dns", "10.215.0.1"]);
    let start = Instant::now();
    let answer = ask(&daemon, "nt-v", "example.test", 1).expect("an answer");
    assert_eq!(code(&answer), 5, "what the one that lives said");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop((refusing, third));
    daemon.docker(&["rm", "-f", "nt-u", "nt-v"]).ok();
    daemon.docker(&["network", "rm", "nt-up"]).ok();
}

#[test]
fn cve_2024_29018_names_asked_on_internal_networks_leave_by_no_way() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs addresses of the daemon's host");
    }
    let daemon = Daemon::start(DaemonOptions::default());
    testkit::base_image(&daemon);
    network(&daemon, "nt-int", &["--internal", "--subnet", "10.216.0.0/24"]);
    let witness = Upstream::start("10.216.0.1:53", |q, _| vec![with_address(q, [192, 0, 2, 1])]);
    sleeper(&daemon, "nt-i", &["--network", "nt-int", "--dns", "10.216.0.1"]);
    for kind in [1, 28, 16, 12] {
        let answer = ask(&daemon, "nt-i", "secret.attacker.test", kind).expect("an answer");
        assert_eq!(code(&answer), 2, "type {kind}");
    }
    // The same by TCP.
    let line = "printf '\\000\\035\\001\\002\\001\\000\\000\\001\\000\\000\\000\\000\\000\\000\\006secret\\004test\\000\\000\\001\\000\\001' \
        | nc -w 2 127.0.0.11 53 | wc -c";
    daemon.docker(&["exec", "nt-i", "sh", "-c", line]).ok();
    assert_eq!(witness.asked.load(Ordering::Relaxed), 0, "nobody was asked");
    assert_eq!(resolve(&daemon, "nt-i", "nt-i").len(), 1, "its own names are answered");
    daemon.docker(&["rm", "-f", "nt-i"]).ok();
    daemon.docker(&["network", "rm", "nt-int"]).ok();
}

#[test]
fn a_query_that_comes_while_no_daemon_runs_waits_for_the_next_one() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs a daemon of its own");
    }
    let mut daemon = Daemon::with_image();
    network(&daemon, "nt-wait", &[]);
    sleeper(&daemon, "nt-w", &["--network", "nt-wait"]);
    assert_eq!(resolve(&daemon, "nt-w", "nt-w").len(), 1);
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "nt-w"]).ok();
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container runs");
    daemon.kill();
    let asker = std::thread::spawn(move || {
        use std::os::fd::AsFd;
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).expect("entered");
        exchange(&packet("nt-w", 1), Duration::from_secs(20))
    });
    // The question is on its way before the next daemon starts.
    std::thread::sleep(Duration::from_millis(50));
    daemon.launch();
    let answer = asker.join().expect("no panic").expect("an answer to the one question");
    assert_eq!(addresses(&answer).len(), 1);
    daemon.docker(&["rm", "-f", "nt-w"]).ok();
    daemon.docker(&["network", "rm", "nt-wait"]).ok();
}

/// As above, of a container that came to its first user-defined network while it ran: its shim was given the sockets.
#[test]
fn a_live_connects_resolver_and_ports_outlive_the_daemon() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs a daemon of its own");
    }
    let mut daemon = Daemon::with_image();
    network(&daemon, "nt-live", &[]);
    network(&daemon, "nt-shut", &["--internal"]);
    sleeper(&daemon, "nt-l", &[]);
    daemon.docker(&["network", "connect", "nt-live", "nt-l"]).ok();
    // On an internal network nothing is published; its port is with the live connect.
    sleeper(&daemon, "nt-p", &["--network", "nt-shut", "-p", "80"]);
    daemon.docker(&["network", "connect", "nt-live", "nt-p"]).ok();
    let port = daemon.docker(&["port", "nt-p", "80"]).ok();
    let port: u16 =
        port.lines().next().and_then(|l| l.rsplit_once(':')).and_then(|(_, p)| p.parse().ok()).expect("a port");
    assert_eq!(resolve(&daemon, "nt-l", "nt-l").len(), 1);
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "nt-l"]).ok();
    for round in 0..2 {
        let file = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container runs");
        daemon.kill();
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err(), "{round}: the port is held");
        let asker = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).expect("entered");
            exchange(&packet("nt-l", 1), Duration::from_secs(20))
        });
        // The question is on its way before the next daemon starts.
        std::thread::sleep(Duration::from_millis(50));
        daemon.launch();
        let answer = asker.join().expect("no panic").expect("an answer to the one question");
        assert_eq!(addresses(&answer).len(), 1, "{round}");
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err(), "{round}: the port is held");
    }
    daemon.docker(&["rm", "-f", "nt-l", "nt-p"]).ok();
    std::net::TcpListener::bind(("0.0.0.0", port)).expect("free again");
    daemon.docker(&["network", "rm", "nt-live", "nt-shut"]).ok();
}

#[test]
fn malformed_packets_and_a_flood_do_not_end_the_resolver() {
    let daemon = daemon();
    network(&daemon, "nt-flood", &[]);
    sleeper(&daemon, "nt-f", &["--network", "nt-flood"]);
    in_namespace(&daemon, "nt-f", || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect("127.0.0.11:53").expect("an address");
        let mut seed = 1u32;
        for n in 0..5000usize {
            let bytes: Vec<u8> = (0..n % 120)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            // A full buffer is what a flood meets.
            let _ = socket.send(&bytes);
        }
    });
    eventually("it still answers", || (resolve(&daemon, "nt-f", "nt-f").len() == 1).then_some(()));
    daemon.docker(&["rm", "-f", "nt-f"]).ok();
    daemon.docker(&["network", "rm", "nt-flood"]).ok();
}
