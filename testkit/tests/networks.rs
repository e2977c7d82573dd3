//! User-defined networks: made, shown and removed; containers on several of them, connected and disconnected live.

use testkit::{Cli, Daemon, DaemonOptions, Outcome, Rest, eventually};

fn daemon() -> Daemon {
    let daemon = Daemon::start(DaemonOptions { own_network: true, ..Default::default() });
    testkit::base_image(&daemon);
    if std::env::var_os("WHARF_TEST_HOST").is_none() {
        daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    }
    daemon
}

fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) -> String {
    daemon.docker(&[&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat()).ok()
}

fn remove(daemon: &Daemon, names: &[&str]) {
    daemon.docker(&[&["rm", "-f"][..], names].concat()).ok();
}

fn field(daemon: &Daemon, container: &str, format: &str) -> String {
    daemon.docker(&["inspect", "-f", format, container]).ok()
}

fn ping(daemon: &Daemon, from: &str, to: &str) -> Outcome {
    daemon.docker(&["exec", from, "ping", "-c", "1", "-W", "1", to])
}

#[test]
fn a_network_is_made_with_what_was_asked_shown_and_removed() {
    let daemon = daemon();
    for cli in Cli::all() {
        let create = [
            "network",
            "create",
            "--subnet",
            "10.203.0.0/24",
            "--ip-range",
            "10.203.0.128/25",
            "--gateway",
            "10.203.0.5",
            "--aux-address",
            "router=10.203.0.128",
            "--label",
            "k=v",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "tk-made",
        ];
        let id = daemon.run(cli, &create).ok();
        assert_eq!(id.len(), 64);
        let show = |format: &str| daemon.run(cli, &["network", "inspect", "-f", format, "tk-made"]).ok();
        assert_eq!(
            show("{{.ID}} {{.Driver}} {{.Scope}} {{.EnableIPv4}} {{.EnableIPv6}}"),
            format!("{id} bridge local true false")
        );
        assert_eq!(
            show("{{json .IPAM.Config}}"),
            r#"[{"Subnet":"10.203.0.0/24","IPRange":"10.203.0.128/25","Gateway":"10.203.0.5","AuxiliaryAddresses":{"router":"10.203.0.128"}}]"#
        );
        assert_eq!(show("{{json .Options}} {{json .Labels}}"), r#"{"com.docker.network.driver.mtu":"1400"} {"k":"v"}"#);
        sleeper(&daemon, "tk-in", &["--network", "tk-made"]);
        assert_eq!(
            field(&daemon, "tk-in", "{{(index .NetworkSettings.Networks \"tk-made\").IPAddress}}"),
            "10.203.0.129"
        );
        assert_eq!(field(&daemon, "tk-in", "{{(index .NetworkSettings.Networks \"tk-made\").Gateway}}"), "10.203.0.5");
        assert_eq!(daemon.docker(&["exec", "tk-in", "cat", "/sys/class/net/eth0/mtu"]).ok(), "1400");
        let busy = daemon.run(cli, &["network", "rm", "tk-made"]);
        busy.fails(1, "has active endpoints (name:\"tk-in\" id:");
        remove(&daemon, &["tk-in"]);
        assert_eq!(daemon.run(cli, &["network", "rm", "tk-made"]).ok(), "tk-made");
        daemon.run(cli, &["network", "inspect", "tk-made"]).fails(1, "network tk-made not found");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_in_dockers_words() {
    let daemon = daemon();
    daemon.docker(&["network", "create", "--subnet", "10.204.0.0/24", "tk-first"]).ok();
    for (arguments, text) in [
        (&["tk-first"][..], "network with name tk-first already exists"),
        (&["host"], "operation is not permitted on predefined host network"),
        (
            &["--subnet", "10.204.0.0/25", "tk-x"],
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (&["--subnet", "10.99.1.5/24", "tk-x"], "invalid subnet 10.99.1.5/24: it should be 10.99.1.0/24"),
        (&["-d", "nope", "tk-x"], "plugin \"nope\" not found"),
        (&["-d", "host", "tk-x"], "only one instance of \"host\" network is allowed"),
        (&["-d", "ipvlan", "tk-x"], "operation not supported"),
        (&["--ipv4=false", "tk-x"], "IPv4 or IPv6 must be enabled"),
        (
            &["-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated", "tk-x"],
            "gateway mode 'isolated' can only be used for an internal network",
        ),
    ] {
        daemon.docker(&[&["network", "create"][..], arguments].concat()).fails(1, text);
    }
    daemon.docker(&["network", "rm", "bridge"]).fails(1, "bridge is a pre-defined network and cannot be removed");
    daemon.docker(&["network", "rm", "tk-first"]).ok();
}

#[test]
fn a_rate_of_an_endpoint_holds_in_both_directions_and_is_what_the_network_says_unless_it_says_otherwise() {
    let daemon = daemon();
    let (rate_in, rate_out) = ("com.wharf.bandwidth.in=8mbit", "com.wharf.bandwidth.out=4mbit");
    daemon.docker(&["network", "create", "-o", rate_in, "-o", rate_out, "tk-slow"]).ok();
    sleeper(&daemon, "tk-limited", &["--network", "tk-slow"]);
    sleeper(&daemon, "tk-own", &["--network", "name=tk-slow,driver-opt=com.wharf.bandwidth.out=2mbit"]);
    let buckets = |container: &str| {
        let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", container]).ok();
        daemon.inside("nsenter", &["-t", &pid, "-n", "tc", "qdisc", "show", "dev", "eth0"]).ok()
    };
    assert!(buckets("tk-limited").contains("tbf") && buckets("tk-limited").contains("rate 4Mbit"));
    assert!(buckets("tk-own").contains("rate 2Mbit"));
    let on_host = daemon.inside("tc", &["qdisc", "show"]).ok();
    assert_eq!(on_host.matches("rate 8Mbit").count(), 2, "{on_host}");
    // It holds: 2 MB at 4 Mbit/s take four seconds, less what goes at once.
    let address =
        daemon.docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "tk-own"]).ok();
    daemon.docker(&["exec", "-d", "tk-own", "sh", "-c", "sleep 1000 | nc -l -p 9000 >/dev/null"]).ok();
    testkit::eventually("it listens", || {
        (daemon.docker(&["exec", "tk-own", "sh", "-c", "grep -q :2328 /proc/net/tcp*"]).code == 0).then_some(())
    });
    let begun = std::time::Instant::now();
    let send = format!("dd if=/dev/zero bs=1000 count=2000 | nc -w 20 {address} 9000");
    daemon.docker(&["exec", "tk-limited", "sh", "-c", &send]).ok();
    let took = begun.elapsed();
    assert!((2.5..30.0).contains(&took.as_secs_f64()), "{took:?}");
    // What each endpoint carried is in its figures.
    let stats = daemon.rest().get("/containers/tk-limited/stats?stream=false&one-shot=true").json();
    assert!(stats["networks"]["eth0"]["tx_bytes"].as_u64().is_some_and(|n| n > 2_000_000), "{}", stats["networks"]);
    daemon
        .docker(&["network", "create", "-o", "com.wharf.bandwidth.in=fast", "tk-x"])
        .fails(1, "failed to parse com.wharf.bandwidth.in value: fast");
    daemon
        .docker(&["run", "--rm", "--network", "name=tk-slow,driver-opt=com.wharf.bandwidth.in=1bit", "busybox", "true"])
        .fails(125, "invalid rate \"1bit\"");
    daemon.docker(&["rm", "-f", "tk-limited", "tk-own"]).ok();
    daemon.docker(&["network", "rm", "tk-slow"]).ok();
}

#[test]
fn a_container_on_two_networks_has_a_link_on_each_and_its_default_route_by_priority() {
    let daemon = daemon();
    daemon.docker(&["network", "create", "--subnet", "10.205.0.0/24", "tk-a"]).ok();
    daemon.docker(&["network", "create", "--subnet", "10.206.0.0/24", "tk-b"]).ok();
    let second = "name=tk-b,ip=10.206.0.77,mac-address=02:00:00:00:00:05,gw-priority=5";
    sleeper(&daemon, "tk-two", &["--network", "tk-a", "--network", second]);
    let run = |line: &str| daemon.docker(&["exec", "tk-two", "sh", "-c", line]).ok();
    assert_eq!(run("ip route | grep default"), "default via 10.206.0.1 dev eth1 ");
    assert!(run("ip addr show eth0").contains("10.205.0.2/24"));
    let other = run("ip addr show eth1");
    assert!(other.contains("10.206.0.77/24") && other.contains("02:00:00:00:00:05"), "{other}");
    daemon.docker(&["network", "disconnect", "tk-b", "tk-two"]).ok();
    assert_eq!(run("ip route | grep default"), "default via 10.205.0.1 dev eth0 ");
    assert!(!run("ls /sys/class/net").contains("eth1"));
    daemon.docker(&["network", "connect", "--ip", "10.206.0.9", "tk-b", "tk-two"]).ok();
    assert!(run("ip addr show eth1").contains("10.206.0.9/24"));
    daemon
        .docker(&["network", "connect", "tk-b", "tk-two"])
        .fails(1, "endpoint with name tk-two already exists in network tk-b");
    daemon.docker(&["restart", "-t", "0", "tk-two"]).ok();
    assert!(run("ip addr show eth1").contains("10.206.0.9/24"), "as recorded");
    remove(&daemon, &["tk-two"]);
    daemon.docker(&["network", "rm", "tk-a", "tk-b"]).ok();
}

#[test]
fn networks_are_apart_and_containers_on_one_reach_each_other() {
    let daemon = daemon();
    for (name, subnet) in [("tk-l", "10.207.0.0/24"), ("tk-r", "10.208.0.0/24")] {
        daemon.docker(&["network", "create", "--subnet", subnet, name]).ok();
    }
    sleeper(&daemon, "tk-l1", &["--network", "tk-l", "--ip", "10.207.0.11"]);
    sleeper(&daemon, "tk-l2", &["--network", "tk-l", "--ip", "10.207.0.12"]);
    sleeper(&daemon, "tk-r1", &["--network", "tk-r", "--ip", "10.208.0.11"]);
    sleeper(&daemon, "tk-d1", &[]);
    let default = field(&daemon, "tk-d1", "{{.NetworkSettings.IPAddress}}");
    ping(&daemon, "tk-l1", "10.207.0.12").ok();
    assert_ne!(ping(&daemon, "tk-l1", "10.208.0.11").code, 0);
    assert_ne!(ping(&daemon, "tk-r1", "10.207.0.11").code, 0);
    assert_ne!(ping(&daemon, "tk-l1", &default).code, 0);
    assert_ne!(ping(&daemon, "tk-d1", "10.207.0.11").code, 0);
    ping(&daemon, "tk-l1", "10.207.0.1").ok();
    daemon.docker(&["network", "connect", "tk-r", "tk-l1"]).ok();
    ping(&daemon, "tk-l1", "10.208.0.11").ok();
    daemon.docker(&["network", "disconnect", "tk-r", "tk-l1"]).ok();
    assert_ne!(ping(&daemon, "tk-l1", "10.208.0.11").code, 0);
    remove(&daemon, &["tk-l1", "tk-l2", "tk-r1", "tk-d1"]);
    daemon.docker(&["network", "rm", "tk-l", "tk-r"]).ok();
}

#[test]
fn published_ports_follow_the_default_route_from_network_to_network() {
    let daemon = daemon();
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs the daemon's namespace");
    }
    for (name, subnet) in [("tk-a", "10.209.0.0/24"), ("tk-b", "10.210.0.0/24")] {
        daemon.docker(&["network", "create", "--subnet", subnet, name]).ok();
    }
    let serve = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "tk-web", "--network", "tk-b", "-p", "8088:80", "busybox", "sh", "-c", serve];
    daemon.docker(&run).ok();
    let answers = || {
        eventually("the port answers", || {
            (daemon.inside("curl", &["-sS", "--max-time", "2", "http://127.0.0.1:8088/"]).text() == "served")
                .then_some(())
        });
    };
    answers();
    daemon.docker(&["network", "connect", "tk-a", "tk-web"]).ok();
    answers();
    daemon.docker(&["network", "disconnect", "tk-b", "tk-web"]).ok();
    answers();
    daemon.docker(&["network", "disconnect", "tk-a", "tk-web"]).ok();
    assert_ne!(daemon.inside("curl", &["-sS", "--max-time", "2", "http://127.0.0.1:8088/"]).code, 0);
    assert_eq!(daemon.docker(&["port", "tk-web"]).text(), "");
    daemon.docker(&["network", "connect", "tk-b", "tk-web"]).ok();
    answers();
    remove(&daemon, &["tk-web"]);
    daemon.docker(&["network", "rm", "tk-a", "tk-b"]).ok();
}

#[test]
fn an_internal_network_has_no_way_out_and_one_without_icc_none_between_containers() {
    let daemon = daemon();
    daemon.docker(&["network", "create", "--internal", "--subnet", "10.211.0.0/24", "tk-int"]).ok();
    let no_icc = "com.docker.network.bridge.enable_icc=false";
    daemon.docker(&["network", "create", "--subnet", "10.212.0.0/24", "-o", no_icc, "tk-icc"]).ok();
    sleeper(&daemon, "tk-i1", &["--network", "tk-int", "--ip", "10.211.0.11"]);
    sleeper(&daemon, "tk-i2", &["--network", "tk-int", "--ip", "10.211.0.12"]);
    sleeper(&daemon, "tk-c1", &["--network", "tk-icc", "--ip", "10.212.0.11"]);
    sleeper(&daemon, "tk-c2", &["--network", "tk-icc", "--ip", "10.212.0.12"]);
    assert!(!daemon.docker(&["exec", "tk-i1", "ip", "route"]).ok().contains("default"));
    ping(&daemon, "tk-i1", "10.211.0.12").ok();
    // With a route of its own it still does not get out.
    for target in ["10.212.0.11", "10.212.0.1"] {
        assert_ne!(ping(&daemon, "tk-i1", target).code, 0, "{target}");
    }
    assert_ne!(ping(&daemon, "tk-c1", "10.212.0.12").code, 0);
    ping(&daemon, "tk-c1", "10.212.0.1").ok();
    remove(&daemon, &["tk-i1", "tk-i2", "tk-c1", "tk-c2"]);
    daemon.docker(&["network", "rm", "tk-int", "tk-icc"]).ok();
}

#[test]
fn an_ipv6_network_and_one_without_ipv4_connect_containers() {
    let daemon = daemon();
    daemon.docker(&["network", "create", "--ipv6", "--subnet", "fd00:77:2::/64", "tk-six"]).ok();
    daemon.docker(&["network", "create", "--ipv6", "--ipv4=false", "tk-only"]).ok();
    for network in ["tk-six", "tk-only"] {
        sleeper(&daemon, "tk-v1", &["--network", network]);
        sleeper(&daemon, "tk-v2", &["--network", network]);
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").GlobalIPv6Address}}}}");
        let address = field(&daemon, "tk-v2", &format);
        assert!(address.starts_with("fd"), "{address}");
        eventually("IPv6 answers", || (ping(&daemon, "tk-v1", &address).code == 0).then_some(()));
        let addresses = daemon.docker(&["exec", "tk-v1", "ip", "-4", "addr", "show", "eth0"]).ok();
        assert_eq!(addresses.contains("inet "), network == "tk-six", "{addresses}");
        remove(&daemon, &["tk-v1", "tk-v2"]);
    }
    daemon.docker(&["network", "rm", "tk-six", "tk-only"]).ok();
}

#[test]
fn prune_removes_networks_that_no_container_names_and_no_others() {
    let daemon = daemon();
    for name in ["tk-used", "tk-free", "tk-kept"] {
        daemon.docker(&["network", "create", "--label", &format!("of={name}"), name]).ok();
    }
    daemon.docker(&["create", "--name", "tk-user", "--network", "tk-used", "busybox", "true"]).ok();
    let pruned = daemon.docker(&["network", "prune", "-f", "--filter", "label!=of=tk-kept"]).ok();
    assert!(pruned.contains("tk-free") && !pruned.contains("tk-used") && !pruned.contains("tk-kept"), "{pruned}");
    remove(&daemon, &["tk-user"]);
    daemon.docker(&["network", "rm", "tk-used", "tk-kept"]).ok();
}

#[test]
fn networks_and_connections_survive_the_daemon_and_a_clean_stop_leaves_no_link() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs a daemon of its own");
    }
    // In the host's namespace: one of its own would die with the daemon.
    let mut daemon = Daemon::with_image();
    daemon.docker(&["network", "create", "tk-live"]).ok();
    sleeper(&daemon, "tk-s1", &["--network", "tk-live"]);
    sleeper(&daemon, "tk-s2", &[]);
    daemon.docker(&["network", "connect", "tk-live", "tk-s2"]).ok();
    let format = "{{(index .NetworkSettings.Networks \"tk-live\").IPAddress}}";
    let address = field(&daemon, "tk-s1", format);
    let before = field(&daemon, "tk-s2", format);
    let link = format!("br-{}", &daemon.docker(&["network", "inspect", "-f", "{{.ID}}", "tk-live"]).ok()[..12]);
    let exists = || std::path::Path::new("/sys/class/net").join(&link).exists();
    assert!(exists());
    daemon.kill();
    daemon.launch();
    ping(&daemon, "tk-s2", &address).ok();
    assert_eq!(field(&daemon, "tk-s2", format), before);
    // The address is known to be taken.
    sleeper(&daemon, "tk-s3", &["--network", "tk-live"]);
    assert_ne!(field(&daemon, "tk-s3", format), address);
    daemon.docker(&["network", "disconnect", "tk-live", "tk-s2"]).ok();
    assert_ne!(ping(&daemon, "tk-s2", &address).code, 0);
    daemon.stop();
    assert!(!exists(), "a clean stop without containers takes the link along");
    daemon.launch();
    assert!(exists(), "and the next start makes it again");
    daemon.docker(&["start", "tk-s1"]).ok();
    remove(&daemon, &["tk-s1", "tk-s2", "tk-s3"]);
    daemon.docker(&["network", "rm", "tk-live"]).ok();
    assert!(!exists());
}

/// Makes networks, connects, disconnects and removes while the daemon may die at any step; says what was acknowledged.
fn life(daemon: &Daemon) -> (bool, bool, bool) {
    let ok = |arguments: &[&str]| daemon.docker(arguments).code == 0;
    if !ok(&["network", "create", "tk-k1"]) {
        return (false, false, false);
    }
    let connected = ok(&["network", "connect", "tk-k1", "tk-kept"]);
    let removed = connected && ok(&["network", "disconnect", "tk-k1", "tk-kept"]) && ok(&["network", "rm", "tk-k1"]);
    (true, connected, removed)
}

fn bridges() -> Vec<String> {
    let all = std::fs::read_dir("/sys/class/net").expect("links").flatten();
    all.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with("br-")).collect()
}

#[test]
fn killed_at_any_step_of_a_networks_life_the_next_daemon_has_all_of_it_or_nothing() {
    if std::env::var_os("WHARF_TEST_HOST").is_some() {
        return println!("SKIP: needs a daemon of its own");
    }
    let mut daemon = Daemon::with_image();
    sleeper(&daemon, "tk-kept", &[]);
    let points: Vec<&str> = wharf_fault::POINTS
        .iter()
        .copied()
        .filter(|p| ["network.", "connect.", "disconnect."].iter().any(|verb| p.starts_with(verb)))
        .collect();
    assert!(points.len() >= 12);
    let mut reached = 0;
    for point in points {
        daemon.kill();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), point.to_owned())];
        daemon.launch();
        let (made, connected, removed) = life(&daemon);
        eventually(&format!("{point}: dockerd dies"), || daemon.has_ended().then_some(()));
        reached += 1;
        daemon.kill();
        daemon.options().environment.clear();
        daemon.launch();
        let listed = daemon.docker(&["network", "ls", "-q", "--filter", "name=tk-k1"]).ok();
        if made && !removed && !point.starts_with("network.") {
            assert_ne!(listed, "", "{point}: the network was acknowledged");
        }
        let format = "{{if (index .NetworkSettings.Networks \"tk-k1\")}}yes{{end}}";
        let on = field(&daemon, "tk-kept", format) == "yes";
        if connected && point.starts_with("connect.") {
            assert!(on, "{point}: the connection was acknowledged");
        }
        let links = daemon.docker(&["exec", "tk-kept", "ls", "/sys/class/net"]).ok();
        assert_eq!(links.contains("eth1"), on, "{point}: the link is there as the record says");
        if on {
            daemon.docker(&["network", "disconnect", "tk-k1", "tk-kept"]).ok();
        }
        if !listed.is_empty() {
            daemon.docker(&["network", "rm", "tk-k1"]).ok();
        }
        let own = format!("br-{}", listed.trim());
        assert!(!bridges().contains(&own), "{point}: the bridge is left over");
        let (made, connected, removed) = life(&daemon);
        assert!(made && connected && removed, "{point}: a later life fails");
    }
    assert!(reached >= 12);
    remove(&daemon, &["tk-kept"]);
}

#[test]
fn the_api_answers_with_dockers_statuses() {
    let daemon = daemon();
    let rest: Rest = daemon.rest();
    let post = |path: &str, body: serde_json::Value| rest.post(path, &body).status;
    assert_eq!(post("/networks/create", serde_json::json!({"Name": "tk-rest"})), 201);
    assert_eq!(post("/networks/create", serde_json::json!({"Name": "tk-rest"})), 409);
    assert_eq!(post("/networks/create", serde_json::json!({"Name": ""})), 400);
    assert_eq!(post("/networks/create", serde_json::json!({"Name": "x", "Driver": "nope"})), 404);
    assert_eq!(post("/networks/tk-rest/connect", serde_json::json!({"Container": "tk-nobody"})), 404);
    assert_eq!(post("/networks/tk-none/connect", serde_json::json!({"Container": "tk-nobody"})), 404);
    assert_eq!(rest.call("DELETE", "/networks/bridge", b"").expect("an answer").status, 403);
    assert_eq!(rest.call("DELETE", "/networks/tk-rest", b"").expect("an answer").status, 204);
    assert_eq!(rest.call("DELETE", "/networks/tk-rest", b"").expect("an answer").status, 404);
}
