//! Egress policies: what containers may reach is what was allowed, by address and by name, and refusals are told.
//!
//! The host is a network namespace with a remote machine behind a link: a web server on two ports, and a name server.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{Daemon, DaemonOptions, base_image, eventually};

/// The remote machine, and the hosts of its network that only exist as addresses of its link.
const REMOTE: &str = "198.51.100.2";
const OTHER: &str = "198.51.100.3";
const NEAR: &str = "198.51.100.1";
/// The same machines by IPv6.
const REMOTE6: &str = "fd00:c633::2";
const OTHER6: &str = "fd00:c633::3";

fn within<T: Send>(file: std::fs::File, work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            work()
        });
        thread.join().expect("the thread does not panic")
    })
}

/// A remote machine; its name server knows every `….test` as [`REMOTE`], but names that begin with `six.` by IPv6 only, as
/// [`REMOTE6`].
struct Remote {
    namespace: std::fs::File,
    holder: std::process::Child,
    stop: Arc<AtomicBool>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn remote(daemon: &Daemon) -> Remote {
    let holder = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().expect("unshare runs");
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = std::fs::read_link("/proc/self/ns/net").expect("read");
    eventually("the namespace", || std::fs::read_link(&path).ok().filter(|l| *l != own));
    let namespace = std::fs::File::open(&path).expect("it is there");
    let near = format!(
        "ip link add near type veth peer name far netns {}; ip addr add {NEAR}/24 dev near; ip addr add fd00:c633::1/64 dev near nodad; ip link set near up",
        holder.id()
    );
    daemon.inside("sh", &["-ec", &near]).ok();
    let far = format!(
        "ip addr add {REMOTE}/24 dev far; ip addr add {OTHER}/24 dev far; ip addr add {REMOTE6}/64 dev far nodad; \
         ip addr add {OTHER6}/64 dev far nodad; ip link set far up; ip link set lo up"
    );
    let id = holder.id().to_string();
    assert!(Command::new("nsenter").args(["-t", &id, "-n", "sh", "-ec", &far]).status().expect("runs").success());
    let stop = Arc::new(AtomicBool::new(false));
    let made = Remote { namespace, holder, stop };
    for port in [80, 81] {
        let listener = made.run(|| std::net::TcpListener::bind(("::", port)).expect("bound"));
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut connection, b"hello\n");
            }
        });
    }
    let names = made.run(|| UdpSocket::bind("0.0.0.0:53").expect("bound"));
    names.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("set");
    let stop = made.stop.clone();
    std::thread::spawn(move || serve_names(&names, &stop));
    made
}

impl Remote {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(self.namespace.try_clone().expect("cloned"), work)
    }
}

/// Answers questions for `….test` with the remote's address for 60 seconds.
fn serve_names(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let query = &buffer[..length];
        let mut end = 12;
        while query[end] != 0 {
            end += 1 + usize::from(query[end]);
        }
        let six = query[12..].starts_with(b"\x03six");
        let is_a = query[end + 1..end + 3] == [0, if six { 28 } else { 1 }];
        let mut answer = query[..end + 5].to_vec();
        answer[2] |= 0x80;
        answer[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            answer.extend([0xc0, 12, 0, if six { 28 } else { 1 }, 0, 1, 0, 0, 0, 60, 0, if six { 16 } else { 4 }]);
            match six {
                true => answer.extend(REMOTE6.parse::<Ipv6Addr>().expect("an address").octets()),
                false => answer.extend(REMOTE.parse::<Ipv4Addr>().expect("an address").octets()),
            }
        }
        let _ = socket.send_to(&answer, from);
    }
}

fn daemon() -> Daemon {
    let daemon = Daemon::start(DaemonOptions { own_network: true, ..Default::default() });
    base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    daemon
}

/// Whether a container reaches an address or name and port.
fn reaches(daemon: &Daemon, container: &str, host: &str, port: u16) -> bool {
    let script = format!("nc -w 2 {host} {port} </dev/null");
    daemon.docker(&["exec", container, "sh", "-c", &script]).text().contains("hello")
}

fn denied(daemon: &Daemon) -> String {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 1;
    daemon.docker(&["events", "--since", "1", "--until", &until.to_string(), "--filter", "event=egress-denied"]).ok()
}

#[test]
fn a_network_that_denies_lets_out_what_is_allowed_by_range_and_port_and_tells_of_the_rest() {
    let daemon = daemon();
    let _remote = remote(&daemon);
    let allow = format!("{REMOTE}:80,203.0.113.0/24");
    daemon.docker(&["network", "create", "--egress", "deny", "--egress-allow", &allow, "eg-net"]).ok();
    for name in ["eg-one", "eg-two"] {
        daemon
            .docker(&[
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "eg-net",
                "busybox",
                "sh",
                "-c",
                "while :; do echo hello | nc -l -p 80; done",
            ])
            .ok();
    }
    assert!(reaches(&daemon, "eg-one", REMOTE, 80));
    assert!(!reaches(&daemon, "eg-one", REMOTE, 81), "another port");
    assert!(!reaches(&daemon, "eg-one", OTHER, 80), "another address");
    eventually("others on the network are reached", || reaches(&daemon, "eg-one", "eg-two", 80).then_some(()));
    // The host is outside, too.
    let host = within(std::fs::File::open(format!("/proc/{}/ns/net", daemon.pid())).expect("open"), || {
        std::net::TcpListener::bind((NEAR, 82)).expect("bound")
    });
    std::thread::spawn(move || {
        for mut connection in host.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut connection, b"hello\n");
        }
    });
    assert!(!reaches(&daemon, "eg-one", NEAR, 82), "the host's own services");
    let told = eventually("the refusal is told", || Some(denied(&daemon)).filter(|t| t.contains(OTHER)));
    assert!(told.contains("name=eg-one") && told.contains("port=81") && told.contains("protocol=tcp"), "{told}");
    // One that is connected later, and one of its own that is let out.
    daemon.docker(&["run", "-d", "--name", "eg-late", "--network", "none", "busybox", "sleep", "1000"]).ok();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "eg-free",
            "--network",
            "eg-net",
            "--egress",
            "allow",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    assert!(reaches(&daemon, "eg-free", REMOTE, 81));
    daemon.docker(&["rm", "-f", "eg-one", "eg-two", "eg-late", "eg-free"]).ok();
    daemon.docker(&["network", "rm", "eg-net"]).ok();
}

#[test]
fn a_name_opens_its_addresses_for_as_long_as_its_answer_lives_and_other_names_do_not_exist() {
    let mut daemon = daemon();
    let _remote = remote(&daemon);
    let run = ["run", "-d", "--name", "eg-web", "--dns", REMOTE, "--egress-allow", "api.test:80,*.api.test"];
    daemon.docker(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
    assert!(!reaches(&daemon, "eg-web", REMOTE, 80), "by address before the name was asked for");
    assert!(reaches(&daemon, "eg-web", "api.test", 80));
    assert!(!reaches(&daemon, "eg-web", "api.test", 81), "another port");
    assert!(!reaches(&daemon, "eg-web", "other.test", 80), "another name");
    let told =
        eventually("told", || Some(denied(&daemon)).filter(|t| t.contains("host=other.test") && t.contains("port=81")));
    assert!(told.contains("name=eg-web") && told.contains("host=api.test"), "{told}");
    // What was learned outlives the engine, and its policy too.
    daemon.kill();
    daemon.launch();
    assert!(reaches(&daemon, "eg-web", REMOTE, 80));
    assert!(!reaches(&daemon, "eg-web", REMOTE, 81));
    assert!(reaches(&daemon, "eg-web", "www.api.test", 81), "below a star, any port");
    // A restart of the container begins anew.
    daemon.docker(&["restart", "-t", "0", "eg-web"]).ok();
    assert!(!reaches(&daemon, "eg-web", REMOTE, 80));
    assert!(reaches(&daemon, "eg-web", "api.test", 80));
    daemon.docker(&["rm", "-f", "eg-web"]).ok();
    // Its address is the next one's, its policy is not.
    daemon.docker(&["run", "-d", "--name", "eg-next", "busybox", "sleep", "1000"]).ok();
    assert!(reaches(&daemon, "eg-next", REMOTE, 81));
    daemon.docker(&["rm", "-f", "eg-next"]).ok();
}

#[test]
fn a_policy_cannot_be_left_by_another_source_address_nor_by_an_images_label() {
    let daemon = daemon();
    let _remote = remote(&daemon);
    daemon.docker(&["network", "create", "--subnet", "10.226.0.0/24", "--egress", "deny", "eg-spoof"]).ok();
    let run =
        ["run", "-d", "--name", "eg-bad", "--network", "eg-spoof", "--ip", "10.226.0.10", "--cap-add", "NET_ADMIN"];
    let label = ["--label", "com.wharf.egress=allow"];
    daemon.docker(&[&run[..], &label, &["busybox", "sleep", "1000"]].concat()).ok();
    assert!(!reaches(&daemon, "eg-bad", REMOTE, 80));
    let change =
        "ip addr del 10.226.0.10/24 dev eth0; ip addr add 10.226.0.11/24 dev eth0; ip route add default via 10.226.0.1";
    daemon.docker(&["exec", "eg-bad", "sh", "-c", change]).ok();
    assert!(!reaches(&daemon, "eg-bad", REMOTE, 80), "from an address that has no policy");
    daemon.docker(&["rm", "-f", "eg-bad"]).ok();
    daemon.docker(&["network", "rm", "eg-spoof"]).ok();
}

#[test]
fn policies_that_could_not_be_kept_are_refused() {
    let daemon = daemon();
    let run = |more: &[&str]| daemon.docker(&[&["run", "--rm"][..], more, &["busybox", "true"]].concat());
    run(&["--egress", "perhaps"]).fails(125, "com.wharf.egress must be allow or deny");
    run(&["--egress", "deny", "--egress-allow", "a:b"]).fails(125, "invalid egress rule \"a:b\"");
    run(&["--egress", "deny", "--network", "host"]).fails(125, "a network of the container's own");
    daemon
        .docker(&["network", "create", "-d", "macvlan", "--egress", "deny", "eg-mac"])
        .fails(1, "only bridge networks do");
    // Stock clients have no such flags; options say the same.
    daemon.docker(&["network", "create", "-o", "com.wharf.egress=deny", "eg-opt"]).ok();
    daemon.docker(&["network", "rm", "eg-opt"]).ok();
}

#[test]
fn ipv6_is_denied_and_allowed_by_prefix_port_and_name_as_ipv4_is_and_one_family_does_not_open_the_other() {
    let mut daemon = daemon();
    let _remote = remote(&daemon);
    let allow = format!("[{REMOTE6}]:80,six.test:81,fd00:dead::/32,six.both.test,both.test:81");
    let network =
        ["network", "create", "--ipv6", "--subnet", "fd00:e6::/64", "--egress", "deny", "--egress-allow", &allow];
    daemon.docker(&[&network[..], &["eg-six"]].concat()).ok();
    let run = ["run", "-d", "--name", "eg-s", "--network", "eg-six", "--dns", REMOTE, "busybox", "sleep", "1000"];
    daemon.docker(&run).ok();
    assert!(reaches(&daemon, "eg-s", REMOTE6, 80), "address and port");
    assert!(!reaches(&daemon, "eg-s", REMOTE6, 81), "another port, before the name was asked for");
    assert!(!reaches(&daemon, "eg-s", OTHER6, 80), "another address");
    assert!(!reaches(&daemon, "eg-s", REMOTE, 80), "the other family");
    let told = eventually("told", || Some(denied(&daemon)).filter(|t| t.contains(OTHER6)));
    assert!(told.contains("name=eg-s") && told.contains("protocol=tcp") && told.contains("port=80"), "{told}");
    assert!(reaches(&daemon, "eg-s", "six.test", 81), "by the name's AAAA answer");
    assert!(!reaches(&daemon, "eg-s", REMOTE, 81), "a name's IPv6 answer opens no IPv4 address");
    assert!(reaches(&daemon, "eg-s", "both.test", 81), "a name's A answer on the same container");
    assert!(!reaches(&daemon, "eg-s", "six.other.test", 80), "another name");
    // The host is outside by IPv6, too, and the network is inside.
    let host = within(std::fs::File::open(format!("/proc/{}/ns/net", daemon.pid())).expect("open"), || {
        std::net::TcpListener::bind(("::", 82)).expect("bound")
    });
    std::thread::spawn(move || {
        for mut connection in host.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut connection, b"hello\n");
        }
    });
    assert!(!reaches(&daemon, "eg-s", "fd00:c633::1", 82), "the host's own services");
    daemon.kill();
    daemon.launch();
    assert!(reaches(&daemon, "eg-s", REMOTE6, 81), "what was learned outlives the engine");
    assert!(!reaches(&daemon, "eg-s", OTHER6, 80));
    // One container's own policy stands instead of the network's, in both directions.
    let own =
        ["run", "-d", "--name", "eg-own", "--network", "eg-six", "--egress-allow", OTHER6, "busybox", "sleep", "1000"];
    daemon.docker(&own).ok();
    assert!(reaches(&daemon, "eg-own", OTHER6, 80) && reaches(&daemon, "eg-own", OTHER6, 81));
    assert!(!reaches(&daemon, "eg-own", REMOTE6, 80), "what the network allows and the container does not");
    // Another source address of the same link has no way out.
    let spoof =
        ["run", "-d", "--name", "eg-sp", "--network", "eg-six", "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000"];
    daemon.docker(&spoof).ok();
    assert!(reaches(&daemon, "eg-sp", REMOTE6, 80));
    let change = "ip -6 addr flush dev eth0 scope global; ip addr add fd00:e6::77/64 dev eth0; \
        ip -6 route replace default via fd00:e6::1";
    daemon.docker(&["exec", "eg-sp", "sh", "-c", change]).ok();
    assert!(!reaches(&daemon, "eg-sp", REMOTE6, 80), "from an address that has no policy");
    daemon.docker(&["rm", "-f", "eg-s", "eg-own", "eg-sp"]).ok();
    daemon.docker(&["network", "rm", "eg-six"]).ok();
}
