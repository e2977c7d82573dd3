//! Network and address drivers by Docker's plugin protocol. The order and form of the calls are those that dockerd 28.5 made
//! of the same commands to a plugin that did the same.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::plugin::serve;
use testkit::{Daemon, DaemonOptions, base_image};

/// A driver that makes veth pairs on a bridge of its own, in the namespace of the daemon, and an address manager beside it.
#[derive(Default)]
struct Plugin {
    /// Every call: method and body.
    calls: Mutex<Vec<(String, Value)>>,
    /// The daemon's process, whose network is the host.
    host: Mutex<u32>,
    last: Mutex<u8>,
    /// A method that fails.
    fails: Mutex<String>,
    /// What `Join` answers besides.
    join: Mutex<Value>,
}

impl Plugin {
    fn ip(&self, line: &str) {
        let target = self.host.lock().expect("not poisoned").to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &target, "--", "ip"]).args(line.split(' '));
        // A link that is gone with its namespace cannot be deleted; what matters is looked at from the containers.
        let _ = command.stderr(std::process::Stdio::null()).status().expect("ip runs");
    }

    fn answer(&self, method: &str, body: &Value) -> Value {
        if !method.starts_with("Plugin.") {
            self.calls.lock().expect("not poisoned").push((method.to_owned(), body.clone()));
        }
        if *self.fails.lock().expect("not poisoned") == method {
            return json!({"Err": "no room"});
        }
        let short = body["EndpointID"].as_str().unwrap_or_default().get(..6).unwrap_or_default().to_owned();
        match method {
            "Plugin.Activate" => json!({"Implements": ["NetworkDriver", "IpamDriver"]}),
            "NetworkDriver.GetCapabilities" => json!({"Scope": "local", "ConnectivityScope": "local"}),
            "NetworkDriver.CreateNetwork" => {
                self.ip("link add name npbr type bridge");
                self.ip("addr add 10.77.0.1/16 dev npbr");
                self.ip("link set npbr up");
                json!({})
            }
            "NetworkDriver.DeleteNetwork" => {
                self.ip("link del npbr");
                json!({})
            }
            "NetworkDriver.CreateEndpoint" => {
                self.ip(&format!("link add npa{short} master npbr type veth peer name npb{short}"));
                self.ip(&format!("link set npa{short} up"));
                // An address only where nobody else gave one.
                match body["Interface"]["Address"].as_str() {
                    Some("") => json!({"Interface": {"Address": "10.77.9.9/16", "MacAddress": "02:11:22:33:44:55"}}),
                    _ => json!({"Interface": null, "Err": ""}),
                }
            }
            "NetworkDriver.DeleteEndpoint" => {
                self.ip(&format!("link del npa{short}"));
                json!({})
            }
            "NetworkDriver.Join" => {
                let mut answer = json!({"InterfaceName": {"SrcName": format!("npb{short}"), "DstPrefix": "np"},
                    "Gateway": "10.77.0.1", "GatewayIPv6": "", "StaticRoutes": null});
                let more = self.join.lock().expect("not poisoned").clone();
                for (key, value) in more.as_object().into_iter().flatten() {
                    answer[key] = value.clone();
                }
                answer
            }
            "IpamDriver.GetCapabilities" => json!({"RequiresMACAddress": true, "RequiresRequestReplay": true}),
            "IpamDriver.GetDefaultAddressSpaces" => json!({"LocalDefaultAddressSpace": "here"}),
            "IpamDriver.RequestPool" => {
                let pool = body["Pool"].as_str().filter(|p| !p.is_empty()).unwrap_or("10.88.0.0/16");
                json!({"PoolID": format!("pool-{pool}"), "Pool": pool, "Data": null})
            }
            "IpamDriver.RequestAddress" => {
                let pool = body["PoolID"].as_str().unwrap_or_default();
                let net = if pool.contains("10.88") { "10.88.0" } else { "10.77.0" };
                match body["Address"].as_str().filter(|a| !a.is_empty()) {
                    Some(address) => json!({"Address": format!("{address}/16")}),
                    None => {
                        let mut last = self.last.lock().expect("not poisoned");
                        *last += 1;
                        json!({"Address": format!("{net}.{last}/16")})
                    }
                }
            }
            _ => json!({}),
        }
    }

    /// Takes the calls so far, without those that only ask.
    fn taken(&self) -> Vec<(String, Value)> {
        let calls = std::mem::take(&mut *self.calls.lock().expect("not poisoned"));
        calls.into_iter().filter(|(m, _)| !m.contains(".Get")).collect()
    }

    fn methods(&self) -> Vec<String> {
        self.taken().into_iter().map(|(m, _)| m.split('.').nth(1).unwrap_or_default().to_owned()).collect()
    }
}

fn daemon(folder: &Path) -> (Arc<Plugin>, Daemon) {
    let plugin = Arc::new(Plugin::default());
    let answering = plugin.clone();
    serve(folder, "np", Arc::new(move |method, body| answering.answer(method, body)));
    let arguments = vec![format!("--plugin-dir={}", folder.display())];
    let daemon = Daemon::start(DaemonOptions { arguments, own_network: true, ..DaemonOptions::default() });
    *plugin.host.lock().expect("not poisoned") = daemon.pid();
    base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    (plugin, daemon)
}

const CREATE: [&str; 12] = [
    "network",
    "create",
    "-d",
    "np",
    "--ipam-driver",
    "np",
    "-o",
    "a=b",
    "--ipam-opt",
    "c=d",
    "--subnet",
    "10.77.0.0/16",
];

fn create(daemon: &Daemon, name: &str) {
    daemon.docker(&[&CREATE[..], &[name]].concat()).ok();
}

#[test]
fn a_network_driver_and_an_address_manager_by_socket_connect_containers_in_dockerds_order_of_calls() {
    let folder = tempfile::tempdir().expect("folder");
    let (plugin, mut daemon) = daemon(folder.path());
    create(&daemon, "np-net");
    let made = plugin.taken();
    let id = daemon.docker(&["network", "inspect", "-f", "{{.ID}}", "np-net"]).ok();
    assert_eq!(
        made,
        [
            (
                "IpamDriver.RequestPool".to_owned(),
                json!({"AddressSpace": "here", "Pool": "10.77.0.0/16", "SubPool": "", "Options": {"c": "d"}, "V6": false})
            ),
            (
                "IpamDriver.RequestAddress".to_owned(),
                json!({"PoolID": "pool-10.77.0.0/16", "Address": "",
                    "Options": {"RequestAddressType": "com.docker.network.gateway"}})
            ),
            (
                "NetworkDriver.CreateNetwork".to_owned(),
                json!({"NetworkID": id, "Options": {"com.docker.network.enable_ipv4": true,
                    "com.docker.network.enable_ipv6": false, "com.docker.network.generic": {"a": "b"}},
                    "IPv4Data": [{"AddressSpace": "here", "Gateway": "10.77.0.1/16", "Pool": "10.77.0.0/16"}],
                    "IPv6Data": []})
            ),
        ]
    );
    let shown =
        "{{.Driver}} {{.Scope}} {{.IPAM.Driver}} {{.IPAM.Options.c}} {{.Options.a}} {{(index .IPAM.Config 0).Subnet}}";
    assert_eq!(daemon.docker(&["network", "inspect", "-f", shown, "np-net"]).ok(), "np local np d b 10.77.0.0/16");
    assert!(daemon.docker(&["info", "-f", "{{json .Plugins.Network}}"]).ok().contains("\"np\""));

    *plugin.join.lock().expect("not poisoned") = json!({"StaticRoutes": [{"Destination": "10.78.0.0/16", "RouteType": 0, "NextHop": "10.77.0.1"},
            {"Destination": "10.79.0.0/16", "RouteType": 1}]});
    let network = "name=np-net,driver-opt=x=y";
    daemon
        .docker(&["run", "-d", "--name", "np-one", "--network", network, "-p", "8099:80", "busybox", "sleep", "600"])
        .ok();
    let calls = plugin.taken();
    let names: Vec<&str> = calls.iter().map(|(m, _)| m.split('.').nth(1).unwrap_or_default()).collect();
    assert_eq!(names, ["RequestAddress", "CreateEndpoint", "Join", "ProgramExternalConnectivity"]);
    let mac =
        calls[0].1["Options"]["com.docker.network.endpoint.macaddress"].as_str().expect("asked with it").to_owned();
    let interface = json!({"Address": "10.77.0.2/16", "AddressIPv6": "", "MacAddress": mac});
    assert_eq!((&calls[1].1["Interface"], &calls[1].1["Options"]["x"]), (&interface, &json!("y")));
    let key = calls[2].1["SandboxKey"].as_str().expect("a path").to_owned();
    assert!(key.starts_with("/proc/"), "{key}");
    let ports = json!([{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8099, "HostPortEnd": 8099}]);
    assert_eq!(calls[3].1["Options"]["com.docker.network.portmap"], ports);
    let link = daemon.docker(&["exec", "np-one", "sh", "-c", "ip addr show np0; ip route"]).ok();
    for part in
        [mac.as_str(), "10.77.0.2/16", "default via 10.77.0.1", "10.78.0.0/16 via 10.77.0.1", "10.79.0.0/16 dev np0"]
    {
        assert!(link.contains(part), "{part} in {link}");
    }
    let shown = "{{with index .NetworkSettings.Networks \"np-net\"}}{{.IPAddress}} {{.Gateway}} {{.MacAddress}}{{end}}";
    assert_eq!(daemon.docker(&["inspect", "-f", shown, "np-one"]).ok(), format!("10.77.0.2 10.77.0.1 {mac}"));

    daemon.docker(&["run", "--rm", "--network", "np-net", "busybox", "ping", "-c", "1", "-W", "2", "np-one"]).ok();
    let whole = ["RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress"];
    assert_eq!(plugin.methods(), whole);

    daemon.docker(&["network", "disconnect", "np-net", "np-one"]).ok();
    assert_eq!(plugin.methods(), ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "ReleaseAddress"]);
    assert!(!daemon.docker(&["exec", "np-one", "ls", "/sys/class/net"]).ok().contains("np0"));
    daemon.docker(&["network", "connect", "--ip", "10.77.3.3", "np-net", "np-one"]).ok();
    let again = plugin.taken();
    assert_eq!(again[0].1["Address"], "10.77.3.3");
    assert_eq!(again.last().expect("calls").0, "NetworkDriver.ProgramExternalConnectivity");
    daemon.docker(&["exec", "np-one", "ping", "-c", "1", "-W", "2", "10.77.0.1"]).ok();

    // The next daemon knows the endpoint, asks again for what the manager forgets, and makes no network anew.
    daemon.kill();
    daemon.launch();
    *plugin.host.lock().expect("not poisoned") = daemon.pid();
    let replayed = plugin.taken();
    let asked: Vec<_> = replayed.iter().map(|(m, b)| (m.as_str(), b["Address"].as_str().unwrap_or_default())).collect();
    let (pool, address) = ("IpamDriver.RequestPool", "IpamDriver.RequestAddress");
    assert_eq!(asked, [(pool, ""), (address, "10.77.0.1"), (address, "10.77.3.3")]);
    daemon.docker(&["exec", "np-one", "ping", "-c", "1", "-W", "2", "10.77.0.1"]).ok();
    daemon.docker(&["network", "rm", "np-net"]).fails(1, "has active endpoints");
    daemon.docker(&["rm", "-f", "np-one"]).ok();
    assert_eq!(plugin.methods(), ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "ReleaseAddress"]);
    daemon.docker(&["network", "rm", "np-net"]).ok();
    assert_eq!(plugin.methods(), ["ReleaseAddress", "ReleasePool", "DeleteNetwork"]);
}

#[test]
fn what_a_network_plugin_refuses_or_says_wrongly_fails_in_its_words_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let (plugin, daemon) = daemon(folder.path());
    let fail = |method: &str| method.clone_into(&mut plugin.fails.lock().expect("not poisoned"));
    let run = |name: &str| daemon.docker(&["run", "--rm", "--name", name, "--network", "np-net", "busybox", "true"]);
    fail("NetworkDriver.CreateNetwork");
    daemon.docker(&[&CREATE[..], &["np-net"]].concat()).fails(1, "remote: no room");
    assert_eq!(plugin.methods(), ["RequestPool", "RequestAddress", "CreateNetwork", "ReleaseAddress", "ReleasePool"]);
    fail("IpamDriver.RequestPool");
    daemon.docker(&[&CREATE[..], &["np-net"]].concat()).fails(1, "remote: no room");
    assert_eq!(plugin.methods(), ["RequestPool"]);
    assert_eq!(daemon.docker(&["network", "ls", "-q", "-f", "driver=np"]).ok(), "");
    fail("");
    create(&daemon, "np-net");
    plugin.taken();
    for (method, calls) in [
        ("IpamDriver.RequestAddress", &["RequestAddress"][..]),
        ("NetworkDriver.CreateEndpoint", &["RequestAddress", "CreateEndpoint", "ReleaseAddress"]),
        ("NetworkDriver.Join", &["RequestAddress", "CreateEndpoint", "Join", "DeleteEndpoint", "ReleaseAddress"]),
    ] {
        fail(method);
        run("np-bad").fails(125, "remote: no room");
        assert_eq!(plugin.methods(), calls, "{method}");
    }
    fail("");
    let whole = ["RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress"];
    for (answer, text) in [
        (json!({"InterfaceName": {"SrcName": "lo", "DstPrefix": "np"}}), "moving link lo"),
        (json!({"InterfaceName": {"SrcName": "no-such", "DstPrefix": "np"}}), "moving link no-such"),
        (json!({"InterfaceName": {"SrcName": "x", "DstPrefix": "../../x"}}), "invalid interface name"),
        (json!({"StaticRoutes": [{"Destination": "nonsense"}]}), "invalid static route"),
        (
            json!({"StaticRoutes": [{"Destination": "10.9.0.0/16", "NextHop": "192.0.2.1"}]}),
            "failed to add static route 10.9.0.0/16",
        ),
    ] {
        *plugin.join.lock().expect("not poisoned") = answer.clone();
        run("np-bad").fails(125, text);
        assert_eq!(plugin.methods(), whole, "{answer}");
    }
    *plugin.join.lock().expect("not poisoned") = Value::Null;
    run("np-good").ok();
    daemon
        .docker(&["run", "--rm", "--network", "np-net", "--egress", "deny", "busybox", "true"])
        .fails(125, "bridge network");
    daemon.docker(&["network", "create", "-d", "nosuch", "xx"]).fails(1, "plugin \"nosuch\" not found");
    daemon.docker(&["network", "create", "--ipam-driver", "nosuch", "xx"]).fails(1, "plugin \"nosuch\" not found");
    daemon.docker(&["network", "rm", "np-net"]).ok();
    let links = daemon.inside("ip", &["-br", "link"]).ok();
    assert!(!links.contains("npa") && !links.contains("npb"), "{links}");
}

#[test]
fn a_bridge_takes_addresses_of_a_plugin_and_a_plugins_network_can_do_without_a_manager() {
    let folder = tempfile::tempdir().expect("folder");
    let (plugin, daemon) = daemon(folder.path());
    daemon.docker(&["network", "create", "--ipam-driver", "np", "np-br"]).ok();
    let shown = "{{.Driver}} {{.IPAM.Driver}} {{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}";
    assert_eq!(daemon.docker(&["network", "inspect", "-f", shown, "np-br"]).ok(), "bridge np 10.88.0.0/16 10.88.0.1");
    assert_eq!(plugin.methods(), ["RequestPool", "RequestAddress"]);
    let line = "ip addr show eth0; ping -c 1 -W 2 10.88.0.1";
    let out = daemon.docker(&["run", "--rm", "--network", "np-br", "busybox", "sh", "-c", line]).ok();
    assert!(out.contains("10.88.0.2/16"), "{out}");
    assert_eq!(plugin.methods(), ["RequestAddress", "ReleaseAddress"]);
    daemon.docker(&["network", "rm", "np-br"]).ok();
    assert_eq!(plugin.methods(), ["ReleaseAddress", "ReleasePool"]);
    // Without a manager the driver brings the address itself.
    daemon.docker(&["network", "create", "-d", "np", "--ipam-driver", "null", "np-null"]).ok();
    let shown = "{{.IPAM.Driver}} {{(index .IPAM.Config 0).Subnet}}";
    assert_eq!(daemon.docker(&["network", "inspect", "-f", shown, "np-null"]).ok(), "null 0.0.0.0/0");
    let made = plugin.taken();
    assert_eq!(made[0].1["IPv4Data"], json!([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]));
    let out = daemon.docker(&["run", "--rm", "--network", "np-null", "busybox", "ip", "addr", "show", "np0"]).ok();
    assert!(out.contains("10.77.9.9/16") && out.contains("02:11:22:33:44:55"), "{out}");
    daemon.docker(&["network", "rm", "np-null"]).ok();
    // In dockerd's words.
    daemon.docker(&["network", "create", "--ipam-driver", "null", "xx"]).fails(1, "ipv4 pool is empty");
    let line = ["network", "create", "--ipam-driver", "null", "--subnet", "10.3.0.0/16", "xx"];
    daemon.docker(&line).fails(1, "null ipam driver does not handle specific address pool requests");
}

#[test]
fn a_plugin_that_is_gone_holds_up_neither_the_end_of_a_container_nor_the_engine() {
    let folder = tempfile::tempdir().expect("folder");
    let (_plugin, mut daemon) = daemon(folder.path());
    create(&daemon, "np-net");
    for name in ["np-one", "np-two"] {
        daemon.docker(&["run", "-d", "--name", name, "--network", "np-net", "busybox", "sleep", "600"]).ok();
    }
    // A socket on which nobody listens any more.
    let socket = folder.path().join("np.sock");
    std::fs::remove_file(&socket).expect("removed");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let start = std::time::Instant::now();
    daemon.docker(&["rm", "-f", "np-one"]).ok();
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    // And no socket at all: at once, also for the next daemon.
    std::fs::remove_file(&socket).expect("removed");
    daemon.kill();
    daemon.launch();
    let run = daemon.docker(&["run", "--rm", "--network", "np-net", "busybox", "true"]);
    run.fails(125, "plugin \"np\" not found");
    daemon.docker(&["rm", "-f", "np-two"]).ok();
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
    daemon.docker(&["network", "rm", "np-net"]).ok();
    assert_eq!(daemon.docker(&["network", "ls", "-q", "-f", "driver=np"]).ok(), "");
    assert!(daemon.log().contains("the plugin cannot remove"), "it is said");
}
