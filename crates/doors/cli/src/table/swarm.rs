//! Commands on the swarm, its nodes, stacks, secrets and configs.

use super::{Action, Arity, Command, Flag, Group, Kind, flag, hidden};

const CONFIG_CREATE: &[Flag] = &[
    flag("label", 'l', Kind::List, "", "Set a label"),
    flag("template-driver", ' ', Kind::Text, "", "Driver of templates"),
];

const CONFIG_INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("pretty", ' ', Kind::Bool, "", "Print for people"),
];

const CONFIG_LS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const NODE_INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("pretty", ' ', Kind::Bool, "", "Print for people"),
];

const NODE_LS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const NODE_PS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    flag("no-resolve", ' ', Kind::Bool, "", "Show IDs, not names"),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const NODE_RM: &[Flag] = &[
    flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same"),
];

const NODE_UPDATE: &[Flag] = &[
    flag("availability", ' ', Kind::Text, "", "Availability of the node (\"active\", \"pause\", \"drain\")"),
    flag("label-add", ' ', Kind::List, "", "Add or change a label (key=value)"),
    flag("label-rm", ' ', Kind::List, "", "Remove a label by its key"),
    flag("role", ' ', Kind::Text, "", "Role of the node (\"worker\", \"manager\")"),
];

const SECRET_CREATE: &[Flag] = &[
    flag("driver", 'd', Kind::Text, "", "Driver to use"),
    flag("label", 'l', Kind::List, "", "Set a label"),
    flag("template-driver", ' ', Kind::Text, "", "Driver of templates"),
];

const SECRET_INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("pretty", ' ', Kind::Bool, "", "Print for people"),
];

const SECRET_LS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const STACK: &[Flag] = &[
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use (swarm, all)")),
];

const STACK_CONFIG: &[Flag] = &[
    flag("compose-file", 'c', Kind::Strings, "", "Compose file, or - for standard input"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
    flag("skip-interpolation", ' ', Kind::Bool, "", "Print the files merged only"),
];

const STACK_DEPLOY: &[Flag] = &[
    flag("compose-file", 'c', Kind::Strings, "", "Compose file, or - for standard input"),
    flag("detach", 'd', Kind::Bool, "true", "Do not wait for the end"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
    flag("prune", ' ', Kind::Bool, "", "Delete services that are named no more"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
    flag("resolve-image", ' ', Kind::Text, "always", "When to ask the registry for digests (\"always\", \"changed\", \"never\")"),
    flag("with-registry-auth", ' ', Kind::Bool, "", "Hand the registry login to the nodes"),
];

const STACK_LS: &[Flag] = &[
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
];

const STACK_PS: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    flag("no-resolve", ' ', Kind::Bool, "", "Show IDs, not names"),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const STACK_RM: &[Flag] = &[
    flag("detach", 'd', Kind::Bool, "true", "Do not wait for the end"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
];

const STACK_SERVICES: &[Flag] = &[
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("format", ' ', Kind::Text, "", "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row"),
    hidden(flag("orchestrator", ' ', Kind::Text, "", "Orchestrator to use")),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
];

const SWARM_CA: &[Flag] = &[
    flag("ca-cert", ' ', Kind::PemFile, "", "File of the root certificate to use from now on"),
    flag("ca-key", ' ', Kind::PemFile, "", "File of the root key to use from now on"),
    flag("cert-expiry", ' ', Kind::Duration, "2160h0m0s", "How long node certificates are valid (ns|us|ms|s|m|h)"),
    flag("detach", 'd', Kind::Bool, "", "Do not wait for the end"),
    flag("external-ca", ' ', Kind::ExternalCa, "", "Certificate signing endpoints outside the swarm"),
    flag("quiet", 'q', Kind::Bool, "", "Print nothing while it goes on"),
    flag("rotate", ' ', Kind::Bool, "", "Replace it by a new one"),
];

const SWARM_INIT: &[Flag] = &[
    flag("advertise-addr", ' ', Kind::Text, "", "Address that other nodes reach this one at (IP|interface[:port])"),
    flag("autolock", ' ', Kind::Bool, "", "Lock managers until a key is given"),
    flag("availability", ' ', Kind::Text, "active", "Availability of the node (\"active\", \"pause\", \"drain\")"),
    flag("cert-expiry", ' ', Kind::Duration, "2160h0m0s", "How long node certificates are valid (ns|us|ms|s|m|h)"),
    flag("data-path-addr", ' ', Kind::Text, "", "Address for the traffic of containers (IP|interface)"),
    flag("data-path-port", ' ', Kind::Uint32, "", "Port for the traffic of containers (1024-49151); 0 is the default, 4789"),
    flag("default-addr-pool", ' ', Kind::IpNetSlice, "[]", "Pools of addresses for overlay networks (CIDR)"),
    flag("default-addr-pool-mask-length", ' ', Kind::Uint32, "24", "Mask length of subnets from the pools"),
    flag("dispatcher-heartbeat", ' ', Kind::Duration, "5s", "How often nodes report (ns|us|ms|s|m|h)"),
    flag("external-ca", ' ', Kind::ExternalCa, "", "Certificate signing endpoints outside the swarm"),
    flag("force-new-cluster", ' ', Kind::Bool, "", "Begin anew from the present state"),
    flag("listen-addr", ' ', Kind::NodeAddr, "0.0.0.0:2377", "Address to listen on (IP|interface[:port])"),
    flag("max-snapshots", ' ', Kind::Uint, "", "Further raft snapshots to keep"),
    flag("snapshot-interval", ' ', Kind::Uint, "10000", "Entries of the log between raft snapshots"),
    flag("task-history-limit", ' ', Kind::Int, "5", "How many old tasks to remember"),
];

const SWARM_JOIN: &[Flag] = &[
    flag("advertise-addr", ' ', Kind::Text, "", "Address that other nodes reach this one at (IP|interface[:port])"),
    flag("availability", ' ', Kind::Text, "active", "Availability of the node (\"active\", \"pause\", \"drain\")"),
    flag("data-path-addr", ' ', Kind::Text, "", "Address for the traffic of containers (IP|interface)"),
    flag("listen-addr", ' ', Kind::NodeAddr, "0.0.0.0:2377", "Address to listen on (IP|interface[:port])"),
    flag("token", ' ', Kind::Text, "", "Token for joining"),
];

const SWARM_JOIN_TOKEN: &[Flag] = &[
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
    flag("rotate", ' ', Kind::Bool, "", "Replace it by a new one"),
];

const SWARM_LEAVE: &[Flag] = &[
    flag("force", 'f', Kind::Bool, "", "Leave even if this is a manager"),
];

const SWARM_UNLOCK_KEY: &[Flag] = &[
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
    flag("rotate", ' ', Kind::Bool, "", "Replace it by a new one"),
];

const SWARM_UPDATE: &[Flag] = &[
    flag("autolock", ' ', Kind::Bool, "", "Lock managers until a key is given"),
    flag("cert-expiry", ' ', Kind::Duration, "2160h0m0s", "How long node certificates are valid (ns|us|ms|s|m|h)"),
    flag("dispatcher-heartbeat", ' ', Kind::Duration, "5s", "How often nodes report (ns|us|ms|s|m|h)"),
    flag("external-ca", ' ', Kind::ExternalCa, "", "Certificate signing endpoints outside the swarm"),
    flag("max-snapshots", ' ', Kind::Uint, "", "Further raft snapshots to keep"),
    flag("snapshot-interval", ' ', Kind::Uint, "10000", "Entries of the log between raft snapshots"),
    flag("task-history-limit", ' ', Kind::Int, "5", "How many old tasks to remember"),
];

/// The commands of this family.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        path: "config",
        aliases: &[],
        usage: "COMMAND",
        summary: "Manage swarm configs",
        group: Group::Swarm,
        hidden: false,
        arity: Arity::ANY,
        interspersed: false,
        flags: &[],
        action: Action::Group,
    },
    Command {
        path: "config create",
        aliases: &[],
        usage: "[OPTIONS] CONFIG file|-",
        summary: "Store a config from a file or standard input",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(2, 2),
        interspersed: true,
        flags: &[CONFIG_CREATE],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "config inspect",
        aliases: &[],
        usage: "[OPTIONS] CONFIG [CONFIG...]",
        summary: "Show all that is known of configs",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[CONFIG_INSPECT],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "config ls",
        aliases: &["config list"],
        usage: "[OPTIONS]",
        summary: "List configs",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[CONFIG_LS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "config rm",
        aliases: &["config remove"],
        usage: "CONFIG [CONFIG...]",
        summary: "Delete configs",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node",
        aliases: &[],
        usage: "COMMAND",
        summary: "Manage swarm nodes",
        group: Group::Swarm,
        hidden: false,
        arity: Arity::ANY,
        interspersed: false,
        flags: &[],
        action: Action::Group,
    },
    Command {
        path: "node demote",
        aliases: &[],
        usage: "NODE [NODE...]",
        summary: "Make managers workers",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node inspect",
        aliases: &[],
        usage: "[OPTIONS] self|NODE [NODE...]",
        summary: "Show all that is known of nodes",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[NODE_INSPECT],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node ls",
        aliases: &["node list"],
        usage: "[OPTIONS]",
        summary: "List the nodes of the swarm",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[NODE_LS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node promote",
        aliases: &[],
        usage: "NODE [NODE...]",
        summary: "Make workers managers",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node ps",
        aliases: &[],
        usage: "[OPTIONS] [NODE...]",
        summary: "List the tasks on nodes (default: this one)",
        group: Group::Other,
        hidden: false,
        arity: Arity::ANY,
        interspersed: true,
        flags: &[NODE_PS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node rm",
        aliases: &["node remove"],
        usage: "[OPTIONS] NODE [NODE...]",
        summary: "Remove nodes from the swarm",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[NODE_RM],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "node update",
        aliases: &[],
        usage: "[OPTIONS] NODE",
        summary: "Change a node",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[NODE_UPDATE],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "secret",
        aliases: &[],
        usage: "COMMAND",
        summary: "Manage swarm secrets",
        group: Group::Swarm,
        hidden: false,
        arity: Arity::ANY,
        interspersed: false,
        flags: &[],
        action: Action::Group,
    },
    Command {
        path: "secret create",
        aliases: &[],
        usage: "[OPTIONS] SECRET [file|-]",
        summary: "Store a secret from a file or standard input",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 2),
        interspersed: true,
        flags: &[SECRET_CREATE],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "secret inspect",
        aliases: &[],
        usage: "[OPTIONS] SECRET [SECRET...]",
        summary: "Show all that is known of secrets, except their content",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[SECRET_INSPECT],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "secret ls",
        aliases: &["secret list"],
        usage: "[OPTIONS]",
        summary: "List secrets",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SECRET_LS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "secret rm",
        aliases: &["secret remove"],
        usage: "SECRET [SECRET...]",
        summary: "Delete secrets",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack",
        aliases: &[],
        usage: "COMMAND",
        summary: "Manage swarm stacks",
        group: Group::Swarm,
        hidden: false,
        arity: Arity::ANY,
        interspersed: false,
        flags: &[STACK],
        action: Action::Group,
    },
    Command {
        path: "stack config",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Print the Compose files as they will be deployed",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[STACK_CONFIG],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack deploy",
        aliases: &["stack up"],
        usage: "[OPTIONS] STACK",
        summary: "Deploy a stack or change it",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[STACK_DEPLOY],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack ls",
        aliases: &["stack list"],
        usage: "[OPTIONS]",
        summary: "List stacks",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[STACK_LS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack ps",
        aliases: &[],
        usage: "[OPTIONS] STACK",
        summary: "List the tasks of a stack",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[STACK_PS],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack rm",
        aliases: &["stack down", "stack remove"],
        usage: "[OPTIONS] STACK [STACK...]",
        summary: "Delete stacks",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, usize::MAX),
        interspersed: true,
        flags: &[STACK_RM],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "stack services",
        aliases: &[],
        usage: "[OPTIONS] STACK",
        summary: "List the services of a stack",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[STACK_SERVICES],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm",
        aliases: &[],
        usage: "COMMAND",
        summary: "Manage the swarm",
        group: Group::Swarm,
        hidden: false,
        arity: Arity::ANY,
        interspersed: false,
        flags: &[],
        action: Action::Group,
    },
    Command {
        path: "swarm ca",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Show or replace the swarm's root certificate",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SWARM_CA],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm init",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Begin a swarm",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SWARM_INIT],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm join",
        aliases: &[],
        usage: "[OPTIONS] HOST:PORT",
        summary: "Join a swarm as worker or manager",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[SWARM_JOIN],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm join-token",
        aliases: &[],
        usage: "[OPTIONS] (worker|manager)",
        summary: "Show or replace the tokens for joining",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(1, 1),
        interspersed: true,
        flags: &[SWARM_JOIN_TOKEN],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm leave",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Leave the swarm",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SWARM_LEAVE],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm unlock",
        aliases: &[],
        usage: "",
        summary: "Unlock a manager",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm unlock-key",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Show or replace the key for unlocking",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SWARM_UNLOCK_KEY],
        action: Action::Later("swarm mode"),
    },
    Command {
        path: "swarm update",
        aliases: &[],
        usage: "[OPTIONS]",
        summary: "Change the swarm's settings",
        group: Group::Other,
        hidden: false,
        arity: Arity::new(0, 0),
        interspersed: true,
        flags: &[SWARM_UPDATE],
        action: Action::Later("swarm mode"),
    },
];
