//! Published ports: reachable from everywhere they should be, from nowhere else, whatever the neighbours' firewall says.
//!
//! Each daemon has a network namespace of its own, so fixed ports and foreign firewall rules disturb nobody.

use testkit::{Cli, Daemon, DaemonOptions, Outcome, eventually};

fn daemon(arguments: &[&str]) -> Daemon {
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    let daemon = Daemon::start(DaemonOptions { own_network: true, arguments, ..Default::default() });
    testkit::base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    daemon
}

const SERVE: &str = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www";

fn serve(daemon: &Daemon, name: &str, publish: &str) {
    daemon.docker(&["run", "-d", "--name", name, "--hostname", name, "-p", publish, "busybox", "sh", "-c", SERVE]).ok();
}

fn fetch(daemon: &Daemon, url: &str) -> Outcome {
    daemon.inside("curl", &["-gsS", "--max-time", "5", url])
}

fn fetches(daemon: &Daemon, url: &str, wanted: &str) {
    eventually(&format!("{url} answers {wanted}"), || (fetch(daemon, url).text() == wanted).then_some(()));
}

/// Fetches a page from inside a container. Debian's static busybox crashes in wget's name look-up, under any engine; nc takes
/// addresses without one.
fn get(address: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port} | tail -n 1")
}

fn gateway(daemon: &Daemon, container: &str) -> String {
    daemon.docker(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", container]).ok()
}

#[test]
fn a_published_port_answers_on_loopback_the_hosts_address_ipv6_loopback_and_from_other_containers() {
    let daemon = daemon(&[]);
    serve(&daemon, "web", "8080:80");
    fetches(&daemon, "http://127.0.0.1:8080/", "web");
    fetches(&daemon, "http://[::1]:8080/", "web");
    let gateway = gateway(&daemon, "web");
    fetches(&daemon, &format!("http://{gateway}:8080/"), "web");
    let address = daemon.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]).ok();
    fetches(&daemon, &format!("http://{address}/"), "web");
    let from =
        |address: &str, port: u16| daemon.docker(&["run", "--rm", "busybox", "sh", "-c", &get(address, port)]).ok();
    assert_eq!(from(&address, 80), "web");
    assert_eq!(from(&gateway, 8080), "web");
    assert_eq!(daemon.docker(&["exec", "web", "sh", "-c", &get(&gateway, 8080)]).ok(), "web", "through its own port");
}

#[test]
fn a_port_in_use_is_refused_with_dockers_words_and_leaves_nothing() {
    let daemon = daemon(&[]);
    serve(&daemon, "first", "8080:80");
    for cli in Cli::all() {
        let second = daemon.run(cli, &["run", "-d", "--name", "second", "-p", "8080:80", "busybox", "sleep", "100"]);
        second.fails(125, "Bind for 0.0.0.0:8080 failed: port is already allocated");
        daemon.run(cli, &["rm", "second"]).ok();
    }
    daemon.docker(&["rm", "-f", "first"]).ok();
    serve(&daemon, "third", "8080:80");
    fetches(&daemon, "http://127.0.0.1:8080/", "third");
}

#[test]
fn all_forms_of_publish_are_shown_by_port_and_reach_the_container() {
    let daemon = daemon(&[]);
    serve(&daemon, "any", "80");
    let port = daemon.docker(&["port", "any", "80/tcp"]).ok();
    let number = port.lines().next().and_then(|l| l.rsplit(':').next()).expect("a port").to_owned();
    fetches(&daemon, &format!("http://127.0.0.1:{number}/"), "any");
    serve(&daemon, "local", "127.0.0.1:8081:80");
    fetches(&daemon, "http://127.0.0.1:8081/", "local");
    assert_ne!(
        fetch(&daemon, &format!("http://{}:8081/", gateway(&daemon, "local"))).code,
        0,
        "bound to loopback only"
    );
    serve(&daemon, "range", "9000-9002:80-82");
    fetches(&daemon, "http://127.0.0.1:9000/", "range");
    let shown = daemon.docker(&["port", "range"]).ok();
    assert!(shown.contains("81/tcp -> 0.0.0.0:9001") && shown.contains("82/tcp -> [::]:9002"), "{shown}");
}

#[test]
fn a_container_cannot_reach_a_service_on_the_hosts_loopback() {
    let daemon = daemon(&[]);
    serve(&daemon, "web", "8080:80");
    std::fs::write(daemon.folder().join("index.html"), "secret").expect("written");
    let served = daemon.folder().display().to_string();
    let arguments = ["httpd", "-p", "127.0.0.1:7777", "-h", &served, "-f"];
    let mut host = std::process::Command::new("nsenter");
    host.args(["--net", "--target", &daemon.pid().to_string(), "--", "busybox"]).args(arguments);
    let mut host = host.spawn().expect("a service of the host");
    fetches(&daemon, "http://127.0.0.1:7777/", "secret");
    for address in ["127.0.0.1", &gateway(&daemon, "web")] {
        let tried = daemon.docker(&["exec", "web", "sh", "-c", &get(address, 7777)]);
        assert!(!tried.text().contains("secret"), "{address}");
    }
    host.kill().and_then(|()| host.wait()).expect("ended");
}

#[test]
fn foreign_forward_chains_that_drop_do_not_cut_containers_off() {
    let daemon = daemon(&[]);
    daemon.inside("iptables-nft", &["-P", "FORWARD", "DROP"]).ok();
    // What ufw does: its own chains below FORWARD, with a drop policy.
    for line in [
        "-N ufw-before-forward",
        "-A FORWARD -j ufw-before-forward",
        "-A ufw-before-forward -m conntrack --ctstate INVALID -j DROP",
    ] {
        daemon.inside("iptables-nft", &line.split(' ').collect::<Vec<_>>()).ok();
    }
    remote(&daemon);
    serve(&daemon, "web", "8080:80");
    eventually("a remote host reaches the published port", || (from_remote(&daemon) == "web").then_some(()));
}

/// Makes a remote host: a namespace behind a veth pair, held by a sleeping process.
fn remote(daemon: &Daemon) {
    let script = "unshare --net sleep 300 >/dev/null 2>&1 & echo $! >remote.pid
        ip link add near type veth peer name far && ip addr add 198.51.100.1/24 dev near && ip link set near up
        until [ \"$(readlink /proc/$(cat remote.pid)/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done
        ip link set far netns $(cat remote.pid)
        nsenter -t $(cat remote.pid) -n sh -c 'ip addr add 198.51.100.2/24 dev far; ip link set far up; ip route add default via 198.51.100.1'";
    let script = format!("cd {}\n{script}", daemon.folder().display());
    daemon.inside("sh", &["-c", &script]).ok();
}

fn from_remote(daemon: &Daemon) -> String {
    let pid = std::fs::read_to_string(daemon.folder().join("remote.pid")).expect("the remote host runs");
    let arguments = ["-t", pid.trim(), "-n", "curl", "-sS", "--max-time", "3", "http://198.51.100.1:8080/"];
    daemon.inside("nsenter", &arguments).text()
}

#[test]
fn containers_have_hosts_resolv_conf_and_names_as_asked() {
    let daemon = daemon(&[]);
    let flags = [
        "run",
        "--rm",
        "--hostname",
        "me",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.test",
    ];
    let show = |path: &str| daemon.docker(&[&flags[..], &["busybox", "cat", path]].concat()).ok();
    let hosts = show("/etc/hosts");
    assert!(
        hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("10.1.2.3\tdb") && hosts.contains("\tme"),
        "{hosts}"
    );
    let resolv = show("/etc/resolv.conf");
    assert!(resolv.contains("nameserver 192.0.2.53") && resolv.contains("search example.test"), "{resolv}");
    assert_eq!(show("/etc/hostname"), "me");
    let host = daemon.docker(&["run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net"]).ok();
    assert!(host.contains(daemon.name()), "{host}");
}

#[test]
fn without_icc_containers_do_not_reach_each_other() {
    let daemon = daemon(&["--icc=false"]);
    serve(&daemon, "web", "8080:80");
    fetches(&daemon, "http://127.0.0.1:8080/", "web");
    let address = daemon.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]).ok();
    let tried = daemon.docker(&["run", "--rm", "busybox", "sh", "-c", &get(&address, 80)]);
    assert!(!tried.text().contains("web"), "{tried:?}");
}

#[test]
fn an_ipv6_bridge_gives_addresses_and_publishes_on_ipv6() {
    let daemon = daemon(&["--ipv6", "--fixed-cidr-v6", "fd00:77:1::/64"]);
    serve(&daemon, "web", "8080:80");
    let address = daemon.docker(&["inspect", "-f", "{{.NetworkSettings.GlobalIPv6Address}}", "web"]).ok();
    assert!(address.starts_with("fd00:77:1:"), "{address}");
    fetches(&daemon, &format!("http://[{address}]/"), "web");
    fetches(&daemon, "http://[::1]:8080/", "web");
    fetches(&daemon, "http://[fd00:77:1::1]:8080/", "web");
    let other = daemon.docker(&["run", "--rm", "busybox", "sh", "-c", &get(&address, 80)]);
    assert_eq!(other.ok(), "web");
}

#[test]
fn a_port_is_free_again_as_soon_as_its_container_is_gone() {
    let daemon = Daemon::start(DaemonOptions { own_network: true, ..Default::default() });
    testkit::base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    daemon.docker(&["network", "create", "pb-net"]).ok();
    // The shim, which holds the port, ends a moment after its container.
    for round in 0..60 {
        let network = if round % 2 == 0 { "bridge" } else { "pb-net" };
        let line = ["run", "--rm", "--network", network, "-p", "19999:80", "-p", "19999:80/udp", "busybox", "true"];
        daemon.docker(&line).ok();
    }
    // Somebody else's port is told at once.
    let stranger = std::fs::File::open(format!("/proc/{}/ns/net", daemon.pid())).expect("open");
    let held = std::thread::spawn(move || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        move_into_link_name_space(stranger.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
        std::net::TcpListener::bind("0.0.0.0:19998").expect("bound")
    });
    let held = held.join().expect("bound");
    daemon.docker(&["run", "--rm", "-p", "19998:80", "busybox", "true"]).fails(125, "address already in use");
    drop(held);
    daemon.docker(&["network", "rm", "pb-net"]).ok();
}

#[test]
fn rules_of_xtables_legacy_are_told_of_since_nobody_else_can_change_them() {
    if !std::path::Path::new("/usr/sbin/iptables-legacy").exists()
        || !std::path::Path::new("/proc/net/ip_tables_names").exists()
    {
        return println!("SKIP: needs iptables-legacy, and a kernel that has it");
    }
    let daemon = daemon(&[]);
    let warned = || daemon.docker(&["info", "-f", "{{.Warnings}}"]).ok().contains("legacy iptables rules are loaded");
    assert!(!warned());
    let legacy = |line: &str| daemon.inside("iptables-legacy", &line.split(' ').collect::<Vec<_>>()).ok();
    legacy("-P FORWARD DROP");
    assert!(warned());
    legacy("-P FORWARD ACCEPT");
}
