//! The daemon's flags as one table, which feeds parsing, `daemon.json`, help and validation.
//!
//! Names, defaults and which of them `daemon.json` knows are dockerd 28.5's; those marked as an extra are ours.

/// What a flag's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--flag`, `--flag=false`; a JSON boolean.
    Switch,
    /// One text; a JSON string.
    Text,
    /// One whole number; a JSON number.
    Number,
    /// Any number of texts; a JSON list of strings.
    List,
    /// Any number of `key=value`; a JSON object of strings.
    Map,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what Docker's does.
    Full,
    /// It belongs to Docker's own make-up: accepted, and the log says that it has no effect here.
    None,
    /// Its feature is not built yet: refused unless it asks for the default.
    Later,
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Name after `--`.
    pub long: &'static str,
    /// Letter after `-`.
    pub short: Option<char>,
    /// Key in `daemon.json`; none for what only the command line takes.
    pub key: Option<&'static str>,
    /// The form of its value.
    pub form: Form,
    /// Default as text; empty for none.
    pub default: &'static str,
    /// What becomes of it.
    pub effect: Effect,
    /// One line of help.
    pub help: &'static str,
}

const fn flag(long: &'static str, form: Form, default: &'static str, effect: Effect, help: &'static str) -> Flag {
    Flag { long, short: None, key: Some(long), form, default, effect, help }
}

impl Flag {
    const fn letter(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    const fn command_line_only(mut self) -> Self {
        self.key = None;
        self
    }
}

use Effect::{Full, Later, None as NoEffect};
use Form::{List, Map, Number, Switch, Text};

/// Every flag, in the order of help.
pub const FLAGS: &[Flag] = &[
    flag("add-runtime", Map, "", Full, "Register a further OCI runtime: name=path").key("runtimes"),
    flag(
        "allow-direct-routing",
        Switch,
        "false",
        Later,
        "Let remote hosts reach published ports on container addresses",
    ),
    flag("authorization-plugin", List, "", Full, "Plugins that authorise requests").key("authorization-plugins"),
    flag("bip", Text, "", Full, "IPv4 address and subnet of the default bridge"),
    flag("bip6", Text, "", Full, "IPv6 address and subnet of the default bridge"),
    flag("bridge", Text, "", Full, "Attach containers to this bridge; none for no default network").letter('b'),
    flag(
        "bridge-create",
        Switch,
        "false",
        Full,
        "Make the bridge of --bridge, and remove it at a clean stop (Wharf extra)",
    ),
    flag("cdi-spec-dir", List, "", Full, "Folders of CDI specifications").key("cdi-spec-dirs"),
    flag("cgroup-parent", Text, "", Full, "Parent cgroup of all containers"),
    flag("config-file", Text, "/etc/docker/daemon.json", Full, "The daemon's configuration file").command_line_only(),
    flag("containerd", Text, "", NoEffect, "Address of containerd, which Wharf does not use"),
    flag("containerd-namespace", Text, "moby", NoEffect, "Namespace in containerd, which Wharf does not use"),
    flag("containerd-plugins-namespace", Text, "plugins.moby", NoEffect, "Namespace in containerd for plugins"),
    flag("cpu-rt-period", Number, "0", Later, "Real-time period of the parent cgroup in microseconds (cgroup v1)"),
    flag("cpu-rt-runtime", Number, "0", Later, "Real-time runtime of the parent cgroup in microseconds (cgroup v1)"),
    flag("cri-containerd", Switch, "false", NoEffect, "Start containerd with CRI").command_line_only(),
    flag("data-root", Text, "/var/lib/docker", Full, "Where everything that lasts is kept"),
    flag("debug", Switch, "false", Full, "Log everything").letter('D'),
    flag("default-address-pool", List, "", Later, "Pools that subnets are cut from").key("default-address-pools"),
    flag(
        "default-cgroupns-mode",
        Text,
        "",
        Full,
        "Containers' cgroup namespace: host or private (private on cgroup v2)",
    ),
    flag("default-gateway", Text, "", Full, "Containers' IPv4 gateway on the default bridge"),
    flag("default-gateway-v6", Text, "", Full, "Containers' IPv6 gateway on the default bridge"),
    flag("default-ipc-mode", Text, "private", Full, "Containers' IPC namespace: private or shareable"),
    flag("default-network-opt", Map, "", Later, "Options of networks by driver").key("default-network-opts"),
    flag("default-runtime", Text, "runc", Full, "Runtime of containers that name none"),
    flag("default-shm-size", Text, "64m", Full, "Size of /dev/shm"),
    flag("default-ulimit", Map, "", Full, "Limits of containers that name none").key("default-ulimits"),
    flag("dns", List, "", Full, "DNS servers of containers"),
    flag("dns-opt", List, "", Full, "DNS options of containers").key("dns-opts"),
    flag("dns-search", List, "", Full, "DNS search domains of containers"),
    flag("exec-opt", List, "", Full, "Runtime options: native.cgroupdriver=cgroupfs").key("exec-opts"),
    flag("exec-root", Text, "/run/wharf", Full, "Where run-time state is kept"),
    flag("experimental", Switch, "false", Full, "Turn experimental features on"),
    flag("feature", Map, "", NoEffect, "Features of dockerd by name").key("features"),
    flag("firewall-table", Text, "", Full, "Name of the nftables table (default wharf-<instance>; Wharf extra)"),
    flag("fixed-cidr", Text, "", Full, "IPv4 addresses for containers on the default bridge"),
    flag("fixed-cidr-v6", Text, "", Full, "IPv6 addresses for containers on the default bridge"),
    flag("group", Text, "docker", Full, "Group of the unix socket").letter('G'),
    flag("host", List, "", Full, "Addresses to listen on").letter('H').key("hosts"),
    flag("host-gateway-ip", List, "", Full, "What host-gateway means in --add-host").key("host-gateway-ips"),
    flag("http-proxy", Text, "", Full, "HTTP proxy").key("http-proxy"),
    flag("https-proxy", Text, "", Full, "HTTPS proxy"),
    flag("icc", Switch, "true", Full, "Let containers on the default bridge talk to each other"),
    flag("import-apply", Switch, "false", Full, "Take over what --import-from finds, and end (Wharf extra)")
        .command_line_only(),
    flag(
        "import-from",
        Text,
        "",
        Full,
        "Say what a stopped Docker engine left in its data root, and end; its folder stays as it is (Wharf extra)",
    )
    .command_line_only(),
    flag("init", Switch, "false", Full, "Run an init in containers"),
    flag("init-path", Text, "", Full, "The init program"),
    flag("insecure-registry", List, "", Full, "Registries without TLS").key("insecure-registries"),
    flag("ip", Text, "0.0.0.0", Full, "Host address of published ports that name none"),
    flag("ip-forward", Switch, "true", Full, "Turn IP forwarding on"),
    flag("ip-forward-no-drop", Switch, "false", Later, "Do not drop foreign forwarding after turning it on"),
    flag("ip-masq", Switch, "true", Full, "Give containers' outgoing traffic the host's address"),
    flag("ip6tables", Switch, "true", Full, "Write IPv6 firewall rules"),
    flag("iptables", Switch, "true", Full, "Write IPv4 firewall rules"),
    flag("ipv6", Switch, "false", Full, "IPv6 on the default bridge"),
    flag("label", List, "", Full, "Labels of the daemon").key("labels"),
    flag("live-restore", Switch, "false", Full, "Keep containers running while the daemon is stopped"),
    flag("log-driver", Text, "json-file", Full, "Log driver of containers that name none"),
    flag("log-format", Text, "text", Full, "Form of the daemon's own log: text or json"),
    flag("log-level", Text, "info", Full, "Least level that is logged: debug, info, warn, error, fatal").letter('l'),
    flag("log-opt", Map, "", Full, "Options of the default log driver").key("log-opts"),
    flag("max-concurrent-downloads", Number, "3", Full, "Downloads at a time"),
    flag("max-concurrent-uploads", Number, "5", Full, "Uploads at a time"),
    flag("max-download-attempts", Number, "5", Full, "Attempts of a download"),
    flag("metrics-addr", Text, "", Full, "Address of the metrics endpoint (Prometheus)"),
    flag("mtu", Number, "1500", Full, "MTU of the default bridge's containers"),
    flag("network-control-plane-mtu", Number, "1500", NoEffect, "MTU of swarm's control plane"),
    flag("no-new-privileges", Switch, "false", Full, "Set no-new-privileges for all containers"),
    flag("no-proxy", Text, "", Full, "Hosts that are reached without proxy"),
    flag("node-generic-resource", List, "", NoEffect, "User-defined resources").key("node-generic-resources"),
    flag("pidfile", Text, "/var/run/docker.pid", Full, "The daemon's PID file").letter('p'),
    flag("plugin-dir", List, "", Full, "Look for plugins here only (Wharf extra)").key("plugin-dirs"),
    flag("raw-logs", Switch, "false", Full, "No colours in the log"),
    flag("registry-mirror", List, "", Full, "Mirrors of Docker Hub").key("registry-mirrors"),
    flag(
        "registry-certs",
        Text,
        "/etc/docker/certs.d",
        Full,
        "Folder of per-registry certificates and hosts (Wharf extra)",
    )
    .command_line_only(),
    flag(
        "registry-stall",
        Number,
        "30",
        Full,
        "Seconds without a byte after which a registry's connection counts as dead (Wharf extra)",
    )
    .command_line_only(),
    flag("rootless", Switch, "false", Later, "Rootless mode").command_line_only(),
    flag("sandbox-pool", Number, "4", Full, "Network sandboxes kept ready (Wharf extra)"),
    flag("seccomp-profile", Text, "builtin", Full, "Default seccomp profile: builtin, unconfined, or a file"),
    flag("selinux-enabled", Switch, "false", Later, "SELinux labels"),
    flag("shim", Text, "", Full, "The shim program (default: wharf-shim beside dockerd; Wharf extra)")
        .command_line_only(),
    flag("shutdown-timeout", Number, "15", Full, "Seconds containers get at shutdown"),
    flag("storage-driver", Text, "", Full, "Storage driver: overlay2, overlayfs or vfs").letter('s'),
    flag("storage-opt", List, "", Full, "Options of the storage driver: overlay2.size").key("storage-opts"),
    flag("swarm-default-advertise-addr", Text, "", NoEffect, "Swarm's advertised address"),
    flag("tls", Switch, "false", Full, "TLS on TCP addresses; any client may connect"),
    flag("tlscacert", Text, "", Full, "CA whose certificates clients need (ca.pem in ~/.docker)"),
    flag("tlscert", Text, "", Full, "The daemon's certificate (cert.pem in ~/.docker)"),
    flag("tlskey", Text, "", Full, "The daemon's key (key.pem in ~/.docker)"),
    flag("tlsverify", Switch, "false", Full, "TLS on TCP addresses; clients need a certificate"),
    flag("userland-proxy", Switch, "true", NoEffect, "A proxy for loopback traffic: Wharf needs none"),
    flag("userland-proxy-path", Text, "", NoEffect, "The proxy program: Wharf has none"),
    flag("userns-remap", Text, "", Full, "User whose subordinate ids containers get: default, or user[:group]"),
    flag("validate", Switch, "false", Full, "Check the configuration and exit").command_line_only(),
    flag("version", Switch, "false", Full, "Print the version and exit").letter('v').command_line_only(),
    flag("help", Switch, "false", Full, "Print this and exit").letter('h').command_line_only(),
];

/// Finds a flag by its long name.
pub fn by_name(long: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|f| f.long == long)
}

/// Finds a flag by its letter.
pub fn by_letter(short: char) -> Option<&'static Flag> {
    FLAGS.iter().find(|f| f.short == Some(short))
}

/// Finds a flag by its key in `daemon.json`.
pub fn by_key(key: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|f| f.key == Some(key))
}

/// The help text.
pub fn help() -> String {
    let mut text = String::from(
        "Usage:  dockerd [OPTIONS]\n\nThe engine of the Wharf platform: containers behind the Docker API.\n\nOptions:\n",
    );
    for flag in FLAGS {
        let kind = match flag.form {
            Switch => "",
            Text => " string",
            Number => " int",
            List => " list",
            Map => " map",
        };
        let letter = flag.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        let name = format!("{letter}--{}{kind}", flag.long);
        let default = match (flag.form, flag.default) {
            (Switch, "true") => " (default true)".to_owned(),
            (Switch, _) | (_, "") => String::new(),
            (Text, value) => format!(" (default \"{value}\")"),
            (_, value) => format!(" (default {value})"),
        };
        let note = match flag.effect {
            Full => "",
            NoEffect => " [no effect]",
            Later => " [not supported yet]",
        };
        text.push_str(&format!("  {name:<42} {}{default}{note}\n", flag.help));
    }
    text
}
