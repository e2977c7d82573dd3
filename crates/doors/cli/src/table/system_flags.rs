//! The flags of: the top level, and commands on the daemon, contexts, plugins, volumes and networks.

use super::{Flag, Kind, flag, hidden};

pub(super) const DOCKER: &[Flag] = &[
    flag("config", ' ', Kind::Text, "$HOME/.docker", "Folder of the client's configuration"),
    flag(
        "context",
        'c',
        Kind::Text,
        "",
        "Context to use (before DOCKER_HOST and the one set by \"docker context use\")",
    ),
    flag("debug", 'D', Kind::Bool, "", "Print debugging messages"),
    flag("host", 'H', Kind::List, "", "Daemon to talk to"),
    flag("log-level", 'l', Kind::Text, "info", "How much to log (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")"),
    flag("tls", ' ', Kind::Bool, "", "Use TLS; --tlsverify implies it"),
    flag("tlscacert", ' ', Kind::Text, "$HOME/.docker/ca.pem", "Trust certificates signed by this authority only"),
    flag("tlscert", ' ', Kind::Text, "$HOME/.docker/cert.pem", "File of the TLS certificate"),
    flag("tlskey", ' ', Kind::Text, "$HOME/.docker/key.pem", "File of the TLS key"),
    flag("tlsverify", ' ', Kind::Bool, "", "Use TLS and verify the daemon"),
    flag("version", 'v', Kind::Bool, "", "Print the version and end"),
];

pub(super) const CHECKPOINT_CREATE: &[Flag] = &[
    flag("checkpoint-dir", ' ', Kind::Text, "", "Folder that holds checkpoints"),
    flag("leave-running", ' ', Kind::Bool, "", "Let the container go on"),
];

pub(super) const CHECKPOINT_LS: &[Flag] =
    &[flag("checkpoint-dir", ' ', Kind::Text, "", "Folder that holds checkpoints")];

pub(super) const CHECKPOINT_RM: &[Flag] =
    &[flag("checkpoint-dir", ' ', Kind::Text, "", "Folder that holds checkpoints")];

pub(super) const COMPLETION_BASH: &[Flag] = &[flag("no-descriptions", ' ', Kind::Bool, "", "Leave descriptions out")];

pub(super) const COMPLETION_FISH: &[Flag] = &[flag("no-descriptions", ' ', Kind::Bool, "", "Leave descriptions out")];

pub(super) const COMPLETION_POWERSHELL: &[Flag] =
    &[flag("no-descriptions", ' ', Kind::Bool, "", "Leave descriptions out")];

pub(super) const COMPLETION_ZSH: &[Flag] = &[flag("no-descriptions", ' ', Kind::Bool, "", "Leave descriptions out")];

pub(super) const CONTEXT_CREATE: &[Flag] = &[
    flag("description", ' ', Kind::Text, "", "What the context is for"),
    flag(
        "docker",
        ' ',
        Kind::StringToString,
        "[]",
        "Endpoint of the context (host=…, ca=…, cert=…, key=…, skip-tls-verify=…)",
    ),
    flag("from", ' ', Kind::Text, "", "Copy this context"),
];

pub(super) const CONTEXT_INSPECT: &[Flag] = &[flag(
    "format",
    'f',
    Kind::Text,
    "",
    "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object",
)];

pub(super) const CONTEXT_LS: &[Flag] = &[
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

pub(super) const CONTEXT_RM: &[Flag] = &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const CONTEXT_UPDATE: &[Flag] = &[
    flag("description", ' ', Kind::Text, "", "What the context is for"),
    flag(
        "docker",
        ' ',
        Kind::StringToString,
        "[]",
        "Endpoint of the context (host=…, ca=…, cert=…, key=…, skip-tls-verify=…)",
    ),
];

pub(super) const EVENTS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag(
        "since",
        ' ',
        Kind::Text,
        "",
        "Show what was since then (a time like 2013-01-02T13:23:37Z, or a span like 42m)",
    ),
    flag(
        "until",
        ' ',
        Kind::Text,
        "",
        "Show what was until then (a time like 2013-01-02T13:23:37Z, or a span like 42m)",
    ),
];

pub(super) const INFO: &[Flag] = &[flag(
    "format",
    'f',
    Kind::Text,
    "",
    "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object",
)];

pub(super) const INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("size", 's', Kind::Bool, "", "Add sizes where the object is a container"),
    flag("type", ' ', Kind::Text, "", "Kind of object"),
];

pub(super) const LOGIN: &[Flag] = &[
    flag("password", 'p', Kind::Text, "", "Password or token"),
    flag("password-stdin", ' ', Kind::Bool, "", "Read the password from standard input"),
    flag("username", 'u', Kind::Text, "", "User name"),
];

pub(super) const NETWORK_CONNECT: &[Flag] = &[
    flag("alias", ' ', Kind::Strings, "", "Further name on the network"),
    flag("driver-opt", ' ', Kind::Strings, "", "Option for the network's driver"),
    flag("gw-priority", ' ', Kind::Int, "", "The network with the highest priority has the default gateway"),
    flag("ip", ' ', Kind::Text, "", "IPv4 address (172.30.100.104)"),
    flag("ip6", ' ', Kind::Text, "", "IPv6 address (2001:db8::33)"),
    flag("link", ' ', Kind::List, "", "Link to another container"),
    flag("link-local-ip", ' ', Kind::Strings, "", "Link-local address of the container"),
];

pub(super) const NETWORK_CREATE: &[Flag] = &[
    flag("attachable", ' ', Kind::Bool, "", "Let containers attach by hand"),
    flag("aux-address", ' ', Kind::Map, "map[]", "Address that is used by something else (name=ip)"),
    flag("config-from", ' ', Kind::Text, "", "Network to take the configuration from"),
    flag("config-only", ' ', Kind::Bool, "", "Make a configuration without a network"),
    flag("driver", 'd', Kind::Text, "bridge", "Driver to use"),
    flag("egress", ' ', Kind::Text, "", "Whether containers reach what is outside (allow|deny)"),
    flag(
        "egress-allow",
        ' ',
        Kind::Strings,
        "",
        "Allow a name or range all the same (api.example.com:443, 10.0.0.0/8)",
    ),
    flag("gateway", ' ', Kind::Strings, "", "Gateway of the subnet"),
    flag("ingress", ' ', Kind::Bool, "", "Make the swarm's routing mesh"),
    flag("internal", ' ', Kind::Bool, "", "Cut the network off from outside"),
    flag("ip-range", ' ', Kind::Strings, "", "Take addresses from this part of the subnet"),
    flag("ipam-driver", ' ', Kind::Text, "default", "Driver that manages addresses"),
    flag("ipam-opt", ' ', Kind::Map, "map[]", "Option of the driver that manages addresses"),
    flag("ipv4", ' ', Kind::Bool, "true", "Give IPv4 addresses"),
    flag("ipv6", ' ', Kind::Bool, "", "Give IPv6 addresses"),
    flag("label", ' ', Kind::List, "", "Set a label"),
    flag("opt", 'o', Kind::Map, "map[]", "Option of the driver"),
    flag("scope", ' ', Kind::Text, "", "How far the network reaches"),
    flag("subnet", ' ', Kind::Strings, "", "Subnet in CIDR form"),
];

pub(super) const NETWORK_DISCONNECT: &[Flag] =
    &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const NETWORK_INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("verbose", 'v', Kind::Bool, "", "Print more"),
];

pub(super) const NETWORK_LS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

pub(super) const NETWORK_PRUNE: &[Flag] = &[
    flag("filter", ' ', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same"),
];

pub(super) const NETWORK_RM: &[Flag] = &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const PLUGIN_CREATE: &[Flag] = &[flag("compress", ' ', Kind::Bool, "", "Compress with gzip")];

pub(super) const PLUGIN_DISABLE: &[Flag] = &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const PLUGIN_ENABLE: &[Flag] = &[flag("timeout", ' ', Kind::Int, "30", "Seconds to wait for the plugin")];

pub(super) const PLUGIN_INSPECT: &[Flag] = &[flag(
    "format",
    'f',
    Kind::Text,
    "",
    "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object",
)];

pub(super) const PLUGIN_INSTALL: &[Flag] = &[
    flag("alias", ' ', Kind::Text, "", "Further name on the network"),
    flag("disable", ' ', Kind::Bool, "", "Leave the plugin switched off"),
    flag("disable-content-trust", ' ', Kind::Bool, "true", "Do not verify signatures"),
    flag("grant-all-permissions", ' ', Kind::Bool, "", "Grant all that the plugin asks for"),
];

pub(super) const PLUGIN_LS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

pub(super) const PLUGIN_PUSH: &[Flag] =
    &[flag("disable-content-trust", ' ', Kind::Bool, "true", "Do not verify signatures")];

pub(super) const PLUGIN_RM: &[Flag] = &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const PLUGIN_UPGRADE: &[Flag] = &[
    flag("disable-content-trust", ' ', Kind::Bool, "true", "Do not verify signatures"),
    flag("grant-all-permissions", ' ', Kind::Bool, "", "Grant all that the plugin asks for"),
    flag("skip-remote-check", ' ', Kind::Bool, "", "Do not check that it is the same plugin"),
];

pub(super) const SYSTEM_CHECK: &[Flag] = &[flag(
    "repair",
    ' ',
    Kind::Bool,
    "",
    "Fetch again what is missing or damaged, and remove images that cannot be made whole",
)];

pub(super) const SYSTEM_DF: &[Flag] = &[
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("verbose", 'v', Kind::Bool, "", "Show each image, container and volume"),
];

pub(super) const SYSTEM_PRUNE: &[Flag] = &[
    flag("all", 'a', Kind::Bool, "", "Delete all unused images, not only dangling ones"),
    flag("filter", ' ', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same"),
    flag("volumes", ' ', Kind::Bool, "", "Delete anonymous volumes too"),
];

pub(super) const VERSION: &[Flag] = &[flag(
    "format",
    'f',
    Kind::Text,
    "",
    "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object",
)];

pub(super) const VOLUME_CREATE: &[Flag] = &[
    flag(
        "availability",
        ' ',
        Kind::Text,
        "active",
        "Availability of the cluster volume (\"active\", \"pause\", \"drain\")",
    ),
    flag("driver", 'd', Kind::Text, "local", "Driver to use"),
    flag("gid", ' ', Kind::Text, "", "Group that owns the volume's root (Wharf extra)"),
    flag("group", ' ', Kind::Text, "", "Group of cluster volumes"),
    flag("label", ' ', Kind::List, "", "Set a label"),
    flag("limit-bytes", ' ', Kind::Bytes, "", "Largest size of the volume"),
    hidden(flag("name", ' ', Kind::Text, "", "Name to give")),
    flag("opt", 'o', Kind::Map, "map[]", "Option of the driver"),
    flag("required-bytes", ' ', Kind::Bytes, "", "Smallest size of the volume"),
    flag("scope", ' ', Kind::Text, "single", "How many nodes may use the cluster volume (single, multi)"),
    flag("secret", ' ', Kind::Map, "map[]", "Secrets of the cluster volume"),
    flag("sharing", ' ', Kind::Text, "none", "Who may use the volume at once"),
    flag("size", ' ', Kind::Text, "", "Bound on what the volume holds, e.g. 1g (Wharf extra)"),
    flag("topology-preferred", ' ', Kind::List, "", "Topology the volume would best be in"),
    flag("topology-required", ' ', Kind::List, "", "Topology the volume must be in"),
    flag("type", ' ', Kind::Text, "block", "Kind of access to the cluster volume (mount, block)"),
    flag("uid", ' ', Kind::Text, "", "User that owns the volume's root (Wharf extra)"),
];

pub(super) const VOLUME_EXPORT: &[Flag] =
    &[flag("output", 'o', Kind::Text, "", "Write to a file instead of standard output")];

pub(super) const VOLUME_INSPECT: &[Flag] = &[flag(
    "format",
    'f',
    Kind::Text,
    "",
    "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object",
)];

pub(super) const VOLUME_LS: &[Flag] = &[
    flag("cluster", ' ', Kind::Bool, "", "Show cluster volumes only"),
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

pub(super) const VOLUME_PRUNE: &[Flag] = &[
    flag("all", 'a', Kind::Bool, "", "Delete all unused volumes, not only anonymous ones"),
    flag("filter", ' ', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same"),
];

pub(super) const VOLUME_RM: &[Flag] = &[flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same")];

pub(super) const VOLUME_UPDATE: &[Flag] = &[flag(
    "availability",
    ' ',
    Kind::Text,
    "active",
    "Availability of the cluster volume (\"active\", \"pause\", \"drain\")",
)];
