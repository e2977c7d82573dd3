//! Who reaches whom: gateway modes, trusted interfaces and macvlan, as tables, from another machine (a namespace behind a
//! veth pair), from the host, and from containers of other networks.

use testkit::{Daemon, DaemonOptions, eventually};

fn daemon(arguments: &[&str]) -> Daemon {
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    let daemon = Daemon::start(DaemonOptions { own_network: true, arguments, ..Default::default() });
    testkit::base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    daemon
}

/// Makes the other machine, which sends everything to the daemon's host. Its process ends with the daemon's namespace's
/// test: `sleep` is bounded.
fn remote(daemon: &Daemon) {
    let script = "unshare --net sleep 120 >/dev/null 2>&1 & echo $! >remote.pid
        ip link add near type veth peer name far
        ip addr add 198.51.100.1/24 dev near; ip -6 addr add fd00:99::1/64 dev near nodad; ip link set near up
        until [ \"$(readlink /proc/$(cat remote.pid)/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done
        ip link set far netns $(cat remote.pid)
        nsenter -t $(cat remote.pid) -n sh -c 'ip link set lo up; ip addr add 198.51.100.2/24 dev far; ip -6 addr add fd00:99::2/64 dev far nodad; ip link set far up; ip route add default via 198.51.100.1; ip -6 route add default via fd00:99::1'";
    let script = format!("cd {}\n{script}", daemon.folder().display());
    daemon.inside("sh", &["-c", &script]).ok();
}

fn remote_pid(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.folder().join("remote.pid")).expect("the remote host runs").trim().to_owned()
}

fn end_remote(daemon: &Daemon) {
    if let Some(pid) = remote_pid(daemon).parse().ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn from_remote(daemon: &Daemon, url: &str) -> String {
    let pid = remote_pid(daemon);
    daemon.inside("nsenter", &["-t", &pid, "-n", "curl", "-gsS", "--max-time", "1", url]).text()
}

fn from_host(daemon: &Daemon, url: &str) -> String {
    daemon.inside("curl", &["-gsS", "--max-time", "1", url]).text()
}

fn from_container(daemon: &Daemon, name: &str, address: &str, port: u16) -> String {
    let line = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} {port} | tail -n 1");
    daemon.docker(&["exec", name, "sh", "-c", &line]).text()
}

/// Serves its name on ports 80, which is published as 8080, and 81, which is not.
const SERVE: &str = "mkdir /www; hostname >/www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";

fn serve(daemon: &Daemon, name: &str, network: &str, more: &[&str]) {
    let first = ["run", "-d", "--name", name, "--hostname", name, "--network", network];
    daemon.docker(&[&first[..], more, &["busybox", "sh", "-c", SERVE]].concat()).ok();
    eventually("it serves", || {
        (daemon
            .docker(&["exec", name, "sh", "-c", "nc -w 1 127.0.0.1 80 </dev/null && nc -w 1 127.0.0.1 81 </dev/null"])
            .code
            == 0)
            .then_some(())
    });
}

#[test]
fn every_gateway_mode_lets_in_what_it_should_and_nothing_else() {
    let daemon = daemon(&[]);
    remote(&daemon);
    daemon.docker(&["network", "create", "--subnet", "10.220.0.0/24", "rt-other"]).ok();
    daemon.docker(&["run", "-d", "--name", "rt-from", "--network", "rt-other", "busybox", "sleep", "1000"]).ok();
    // mode; remote → host:8080, → container:80 (published), → container:81; host → container:81;
    // another network → container:80, → container:81.
    let table = [
        ("nat", [true, false, false, true, false, false]),
        ("nat-unprotected", [true, true, true, true, false, false]),
        ("routed", [false, true, false, true, true, false]),
    ];
    for (mode, want) in table {
        let option = format!("com.docker.network.bridge.gateway_mode_ipv4={mode}");
        daemon.docker(&["network", "create", "--subnet", "10.221.0.0/24", "-o", &option, "rt-mode"]).ok();
        serve(&daemon, "rt-web", "rt-mode", &["--ip", "10.221.0.10", "-p", "8080:80"]);
        let got = [
            from_remote(&daemon, "http://198.51.100.1:8080/"),
            from_remote(&daemon, "http://10.221.0.10/"),
            from_remote(&daemon, "http://10.221.0.10:81/"),
            from_host(&daemon, "http://10.221.0.10:81/"),
            from_container(&daemon, "rt-from", "10.221.0.10", 80),
            from_container(&daemon, "rt-from", "10.221.0.10", 81),
        ]
        .map(|text| text == "rt-web");
        assert_eq!(got, want, "{mode}");
        daemon.docker(&["rm", "-f", "rt-web"]).ok();
        daemon.docker(&["network", "rm", "rt-mode"]).ok();
    }
    end_remote(&daemon);
}

#[test]
fn ipv6_modes_are_decided_apart_from_ipv4() {
    let daemon = daemon(&[]);
    remote(&daemon);
    let options = ["-o", "com.docker.network.bridge.gateway_mode_ipv6=routed"];
    let create = ["network", "create", "--ipv6", "--subnet", "10.222.0.0/24", "--subnet", "fd00:77:3::/64"];
    daemon.docker(&[&create[..], &options, &["rt-six"]].concat()).ok();
    serve(&daemon, "rt-web", "rt-six", &["--ip6", "fd00:77:3::10", "-p", "8080:80"]);
    assert_eq!(from_remote(&daemon, "http://198.51.100.1:8080/"), "rt-web", "IPv4 is translated");
    assert_eq!(from_remote(&daemon, "http://[fd00:77:3::10]/"), "rt-web", "IPv6 is routed");
    assert_ne!(from_remote(&daemon, "http://[fd00:77:3::10]:81/"), "rt-web");
    assert_ne!(from_remote(&daemon, "http://[fd00:99::1]:8080/"), "rt-web", "and not translated");
    daemon.docker(&["rm", "-f", "rt-web"]).ok();
    daemon.docker(&["network", "rm", "rt-six"]).ok();
    end_remote(&daemon);
}

#[test]
fn a_trusted_interface_reaches_published_ports_by_the_containers_address_and_loopback_ports_stay_at_home() {
    let daemon = daemon(&[]);
    remote(&daemon);
    let trusted = "com.docker.network.bridge.trusted_host_interfaces=near";
    daemon.docker(&["network", "create", "--subnet", "10.223.0.0/24", "-o", trusted, "rt-trust"]).ok();
    serve(&daemon, "rt-web", "rt-trust", &["--ip", "10.223.0.10", "-p", "127.0.0.1:8080:80"]);
    assert_eq!(from_remote(&daemon, "http://10.223.0.10/"), "rt-web");
    assert_ne!(from_remote(&daemon, "http://10.223.0.10:81/"), "rt-web");
    assert_ne!(from_remote(&daemon, "http://198.51.100.1:8080/"), "rt-web", "published on loopback only");
    assert_eq!(from_host(&daemon, "http://127.0.0.1:8080/"), "rt-web");
    daemon.docker(&["rm", "-f", "rt-web"]).ok();
    assert_ne!(from_remote(&daemon, "http://10.223.0.10/"), "rt-web");
    daemon.docker(&["network", "rm", "rt-trust"]).ok();
    end_remote(&daemon);
}

#[test]
fn an_isolated_internal_network_is_out_of_the_hosts_own_reach() {
    let daemon = daemon(&[]);
    let isolated = "com.docker.network.bridge.gateway_mode_ipv4=isolated";
    daemon.docker(&["network", "create", "--internal", "--subnet", "10.224.0.0/24", "-o", isolated, "rt-iso"]).ok();
    serve(&daemon, "rt-web", "rt-iso", &["--ip", "10.224.0.10", "-p", "8080:80"]);
    daemon.docker(&["run", "-d", "--name", "rt-peer", "--network", "rt-iso", "busybox", "sleep", "1000"]).ok();
    assert_eq!(from_container(&daemon, "rt-peer", "10.224.0.10", 80), "rt-web");
    assert_ne!(from_host(&daemon, "http://10.224.0.10/"), "rt-web");
    assert_ne!(from_host(&daemon, "http://127.0.0.1:8080/"), "rt-web", "nothing is published");
    daemon.docker(&["rm", "-f", "rt-web", "rt-peer"]).ok();
    daemon.docker(&["network", "rm", "rt-iso"]).ok();
}

#[test]
fn macvlan_containers_are_on_their_parents_network_and_see_each_other_by_mode() {
    let daemon = daemon(&[]);
    remote(&daemon);
    for (mode, together) in [("bridge", true), ("private", false)] {
        let option = format!("macvlan_mode={mode}");
        let create = ["network", "create", "-d", "macvlan", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.2"];
        daemon.docker(&[&create[..], &["-o", "parent=near", "-o", &option, "rt-mac"]].concat()).ok();
        serve(&daemon, "rt-web", "rt-mac", &["--ip", "198.51.100.10"]);
        daemon
            .docker(&[
                "run",
                "-d",
                "--name",
                "rt-peer",
                "--network",
                "rt-mac",
                "--ip",
                "198.51.100.11",
                "busybox",
                "sleep",
                "1000",
            ])
            .ok();
        assert_eq!(from_remote(&daemon, "http://198.51.100.10/"), "rt-web", "{mode}: on the wire itself");
        assert_eq!(from_container(&daemon, "rt-peer", "198.51.100.10", 80) == "rt-web", together, "{mode}");
        let routes = daemon.docker(&["exec", "rt-peer", "ip", "route"]).ok();
        assert!(routes.contains("default via 198.51.100.2 dev eth0"), "{routes}");
        daemon.docker(&["rm", "-f", "rt-web", "rt-peer"]).ok();
        daemon.docker(&["network", "rm", "rt-mac"]).ok();
    }
    daemon
        .docker(&["network", "create", "-d", "macvlan", "-o", "parent=nolink", "rt-x"])
        .fails(1, "invalid subinterface vlan name nolink");
    end_remote(&daemon);
}

/// Runs `work` on a thread in the namespace of a process.
fn within<T: Send>(pid: &str, work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the process runs");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            work()
        });
        thread.join().expect("the thread does not panic")
    })
}

#[test]
fn a_client_of_a_removed_udp_port_reaches_the_next_container_that_publishes_it() {
    use std::net::UdpSocket;
    use std::time::Duration;
    let daemon = daemon(&[]);
    daemon.docker(&["network", "create", "--subnet", "10.225.0.0/24", "rt-udp"]).ok();
    // One client with one source port: a stale entry would send it to the address that is gone.
    let client = within(&daemon.pid().to_string(), || UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for (name, address) in [("rt-one", "10.225.0.11"), ("rt-two", "10.225.0.12")] {
        let run = ["run", "-d", "--name", name, "--network", "rt-udp", "--ip", address, "-p", "5000:5000/udp"];
        daemon.docker(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
        let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", name]).ok();
        let server = within(&pid, || UdpSocket::bind("0.0.0.0:5000").expect("a socket"));
        server.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        eventually(name, || {
            client.send_to(b"hello", "127.0.0.1:5000").ok()?;
            let mut buffer = [0; 16];
            let (n, from) = server.recv_from(&mut buffer).ok()?;
            server.send_to(name.as_bytes(), from).ok()?;
            assert_eq!(n, 5);
            let (n, _) = client.recv_from(&mut buffer).ok()?;
            (&buffer[..n] == name.as_bytes()).then_some(())
        });
        daemon.docker(&["rm", "-f", name]).ok();
        drop(server);
    }
    daemon.docker(&["network", "rm", "rt-udp"]).ok();
}

#[test]
fn a_storm_of_networks_and_containers_leaves_no_link_rule_or_record() {
    let daemon = daemon(&[]);
    let rules = || daemon.inside("nft", &["list", "table", "inet", daemon.name()]).ok().lines().count();
    let before = rules();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..3 {
                    let (net, one) = (format!("rt-n{worker}x{round}"), format!("rt-c{worker}x{round}"));
                    daemon.docker(&["network", "create", &net]).ok();
                    daemon
                        .docker(&[
                            "run",
                            "-d",
                            "--name",
                            &one,
                            "--network",
                            &net,
                            "-p",
                            "80",
                            "busybox",
                            "sleep",
                            "1000",
                        ])
                        .ok();
                    daemon.docker(&["network", "connect", "bridge", &one]).ok();
                    daemon.docker(&["network", "disconnect", &net, &one]).ok();
                    daemon.docker(&["rm", "-f", &one]).ok();
                    daemon.docker(&["network", "rm", &net]).ok();
                }
            });
        }
    });
    assert_eq!(daemon.docker(&["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
    let links = daemon.inside("ip", &["-o", "link"]).ok();
    assert!(!links.contains("br-"), "{links}");
    assert_eq!(rules(), before);
}

#[test]
fn every_gateway_mode_of_ipv6_lets_in_what_it_should_and_nothing_else() {
    let daemon = daemon(&[]);
    remote(&daemon);
    daemon.docker(&["network", "create", "--ipv6", "--subnet", "fd00:77:5::/64", "rt-other"]).ok();
    daemon.docker(&["run", "-d", "--name", "rt-from", "--network", "rt-other", "busybox", "sleep", "1000"]).ok();
    // As the table of IPv4.
    let table = [
        ("nat", [true, false, false, true, false, false]),
        ("nat-unprotected", [true, true, true, true, false, false]),
        ("routed", [false, true, false, true, true, false]),
    ];
    for (mode, want) in table {
        let option = format!("com.docker.network.bridge.gateway_mode_ipv6={mode}");
        let create = ["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:77:4::/64", "-o", &option];
        daemon.docker(&[&create[..], &["rt-mode"]].concat()).ok();
        serve(&daemon, "rt-web", "rt-mode", &["--ip6", "fd00:77:4::10", "-p", "8080:80"]);
        let got = [
            from_remote(&daemon, "http://[fd00:99::1]:8080/"),
            from_remote(&daemon, "http://[fd00:77:4::10]/"),
            from_remote(&daemon, "http://[fd00:77:4::10]:81/"),
            from_host(&daemon, "http://[fd00:77:4::10]:81/"),
            from_container(&daemon, "rt-from", "fd00:77:4::10", 80),
            from_container(&daemon, "rt-from", "fd00:77:4::10", 81),
        ]
        .map(|text| text == "rt-web");
        assert_eq!(got, want, "{mode}");
        daemon.docker(&["rm", "-f", "rt-web"]).ok();
        daemon.docker(&["network", "rm", "rt-mode"]).ok();
    }
    end_remote(&daemon);
}

#[test]
fn every_kind_of_network_reaches_what_it_should_by_both_families_and_nothing_else() {
    let daemon = daemon(&[]);
    remote(&daemon);
    // A service of the other machine, which stands for the world.
    let world = format!(
        "cd {} && mkdir -p w && echo world >w/index.html && (nsenter -t {} -n busybox httpd -f -p '[::]:70' -h w >/dev/null 2>&1 & echo $! >w.pid)",
        daemon.folder().display(),
        remote_pid(&daemon)
    );
    daemon.inside("sh", &["-c", &world]).ok();
    let two = |name: &str, four: &str, six: &str, more: &[&str]| {
        let first = ["network", "create", "--ipv6", "--subnet", four, "--subnet", six];
        daemon.docker(&[&first[..], more, &[name]].concat()).ok();
    };
    two("rt-k1", "10.230.0.0/24", "fd00:77:a::/64", &[]);
    two("rt-k2", "10.231.0.0/24", "fd00:77:b::/64", &[]);
    two("rt-int", "10.232.0.0/24", "fd00:77:c::/64", &["--internal"]);
    let at =
        |name: &str, network: &str, four: &str, six: &str| serve(&daemon, name, network, &["--ip", four, "--ip6", six]);
    at("rt-a", "rt-k1", "10.230.0.10", "fd00:77:a::10");
    at("rt-b", "rt-k2", "10.231.0.10", "fd00:77:b::10");
    at("rt-c", "rt-int", "10.232.0.10", "fd00:77:c::10");
    let sleeper = |name: &str, network: &str| {
        daemon.docker(&["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"]).ok();
    };
    for (name, network) in
        [("rt-1", "rt-k1"), ("rt-2", "rt-k2"), ("rt-i", "rt-int"), ("rt-n", "none"), ("rt-h", "host")]
    {
        sleeper(name, network);
    }
    sleeper("rt-s", "container:rt-1");
    // From: to the container on the first network, on the second, on the internal one, and to the world.
    let table = [
        ("rt-1", [true, false, false, true]),
        ("rt-2", [false, true, false, true]),
        ("rt-i", [false, false, true, false]),
        ("rt-n", [false, false, false, false]),
        ("rt-h", [true, true, true, true]),
        ("rt-s", [true, false, false, true]),
    ];
    for (from, want) in table {
        for (family, to) in [
            ("IPv4", ["10.230.0.10", "10.231.0.10", "10.232.0.10", "198.51.100.2"]),
            ("IPv6", ["fd00:77:a::10", "fd00:77:b::10", "fd00:77:c::10", "fd00:99::2"]),
        ] {
            let got = [(to[0], 80, "rt-a"), (to[1], 80, "rt-b"), (to[2], 80, "rt-c"), (to[3], 70, "world")]
                .map(|(address, port, text)| from_container(&daemon, from, address, port) == text);
            assert_eq!(got, want, "from {from} by {family}");
        }
    }
    daemon.inside("sh", &["-c", &format!("kill $(cat {}/w.pid)", daemon.folder().display())]).ok();
    end_remote(&daemon);
}

/// What busybox's httpd says of its client: a program in its folder `cgi-bin`.
const WHO: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo from=$REMOTE_ADDR\\n' >/www/cgi-bin/who; \
    chmod 755 /www/cgi-bin/who; exec httpd -f -p 80 -h /www";

#[test]
fn cve_2021_20199_a_published_service_sees_its_clients_addresses_and_never_loopback() {
    let daemon = daemon(&[]);
    remote(&daemon);
    let create = ["network", "create", "--ipv6", "--subnet", "10.233.0.0/24", "--subnet", "fd00:77:d::/64", "rt-who"];
    daemon.docker(&create).ok();
    let run = ["run", "-d", "--name", "rt-w", "--network", "rt-who", "-p", "8080:80", "busybox", "sh", "-c", WHO];
    daemon.docker(&run).ok();
    eventually("it serves", || {
        (daemon.docker(&["exec", "rt-w", "nc", "-w", "1", "127.0.0.1", "80"]).code == 0).then_some(())
    });
    // Its socket is of both families.
    let who = |text: String| {
        let from = text.rsplit("from=").next().unwrap_or_default().trim().to_owned();
        from.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_owned()
    };
    let path = "cgi-bin/who";
    assert_eq!(who(from_remote(&daemon, &format!("http://198.51.100.1:8080/{path}"))), "198.51.100.2");
    let six = who(from_remote(&daemon, &format!("http://[fd00:99::1]:8080/{path}")));
    assert!(six.contains("fd00:99::2"), "{six}");
    // The host's own loopback is the gateway, as with Docker, so that no trust in 127.0.0.1 is abused.
    assert_eq!(who(from_host(&daemon, &format!("http://127.0.0.1:8080/{path}"))), "10.233.0.1");
    let six = who(from_host(&daemon, &format!("http://[::1]:8080/{path}")));
    assert!(!six.contains("127.") && six != "::1" && !six.is_empty(), "{six}");
    daemon.docker(&["rm", "-f", "rt-w"]).ok();
    daemon.docker(&["network", "rm", "rt-who"]).ok();
    end_remote(&daemon);
}

/// The rule set as nft lists it, without counters and names that are another's every time.
fn rules(daemon: &Daemon) -> String {
    let text = daemon.inside("nft", &["-s", "list", "table", "inet", daemon.name()]).ok();
    let text = text.replace(daemon.name(), "TABLE").replace('\t', "    ");
    // The log group follows from the instance.
    match text.split_once("\" group ") {
        Some((first, rest)) => format!("{first}\" group N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text,
    }
}

#[test]
fn the_rules_of_every_mode_are_as_recorded() {
    let daemon = daemon(&["--bip", "10.240.0.1/24"]);
    let create = |name: &str, four: &str, six: &str, more: &[&str]| {
        let link = format!("com.docker.network.bridge.name={name}");
        let first = ["network", "create", "--ipv6", "--subnet", four, "--subnet", six, "-o", &link];
        daemon.docker(&[&first[..], more, &[name]].concat()).ok();
    };
    const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
    let before = rules(&daemon);
    let mut recorded = format!("# one bridge\n{before}\n");
    // Keys of networks are random, and rules are in their order: one network at a time.
    for (title, more) in [
        ("nat", vec![]),
        ("routed", vec!["-o".to_owned(), format!("{MODE4}=routed"), "-o".to_owned(), format!("{MODE6}=routed")]),
        ("nat-unprotected by IPv4 only", vec!["-o".to_owned(), format!("{MODE4}=nat-unprotected")]),
        ("internal", vec!["--internal".to_owned()]),
        ("internal, isolated", vec!["--internal".to_owned(), "-o".to_owned(), format!("{MODE4}=isolated")]),
        ("without icc", vec!["-o".to_owned(), "com.docker.network.bridge.enable_icc=false".to_owned()]),
        (
            "without masquerade",
            vec!["-o".to_owned(), "com.docker.network.bridge.enable_ip_masquerade=false".to_owned()],
        ),
        (
            "trusted interface",
            vec!["-o".to_owned(), "com.docker.network.bridge.trusted_host_interfaces=lan0".to_owned()],
        ),
        (
            "egress",
            vec!["--egress=deny".to_owned(), "--egress-allow=192.0.2.0/24:443,[2001:db8::/32]:53/udp".to_owned()],
        ),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        create("gold0", "10.241.0.0/24", "fd00:77:e::/64", &more);
        let run = ["run", "-d", "--name", "rt-g", "--network", "gold0", "--ip", "10.241.0.9", "--ip6", "fd00:77:e::9"];
        let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:81/udp", "-p", "[::1]:8082:82"];
        daemon.docker(&[&run[..], &ports, &["busybox", "sleep", "1000"]].concat()).ok();
        // What both have in common stands in the first part.
        let now = rules(&daemon);
        let old: std::collections::BTreeSet<&str> = before.lines().collect();
        recorded += &format!("# {title}\n");
        let mut chain = "";
        for line in now.lines() {
            if line.starts_with("    ") && !line.starts_with("        ") && line.ends_with('{') {
                chain = line.trim().trim_end_matches(" {");
            }
            let trimmed = line.trim();
            if line.starts_with("        ") && !old.contains(line) && !trimmed.starts_with("type ") {
                recorded += &format!("{chain}: {trimmed}\n");
            }
        }
        daemon.docker(&["rm", "-f", "rt-g"]).ok();
        daemon.docker(&["network", "rm", "gold0"]).ok();
        assert_eq!(rules(&daemon), before, "{title}: what was added is gone");
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rules.txt");
    if std::env::var_os("WHARF_RECORD").is_some() {
        std::fs::write(file, &recorded).expect("written");
    }
    let want = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(recorded, want, "WHARF_RECORD=1 records anew");
}
