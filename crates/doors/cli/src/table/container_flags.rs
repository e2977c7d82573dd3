//! The flags of: commands on containers.

use super::{Flag, Kind, flag, hidden};

pub(super) const ATTACH: &[Flag] = &[
    flag("detach-keys", ' ', Kind::Text, "", "Key sequence that detaches from the container"),
    flag("no-stdin", ' ', Kind::Bool, "", "Do not attach standard input"),
    flag("sig-proxy", ' ', Kind::Bool, "true", "Pass signals on to the process"),
];

pub(super) const COMMIT: &[Flag] = &[
    flag("author", 'a', Kind::Text, "", "Author, such as \"Jane Doe <jane@example.com>\""),
    flag("change", 'c', Kind::List, "", "Apply a Dockerfile instruction to the image"),
    flag("message", 'm', Kind::Text, "", "Note to keep with the image"),
    flag("pause", 'p', Kind::Bool, "true", "Pause the container meanwhile"),
];

pub(super) const CP: &[Flag] = &[
    flag("archive", 'a', Kind::Bool, "", "Keep owners and groups of the files"),
    flag("follow-link", 'L', Kind::Bool, "", "Follow symbolic links in SRC_PATH"),
    flag("quiet", 'q', Kind::Bool, "", "Print no progress"),
];

pub(super) const CONTAINER_OPTIONS: &[Flag] = &[
    flag("add-host", ' ', Kind::List, "", "Add a name to the container's hosts file (host:ip)"),
    flag("annotation", ' ', Kind::Map, "map[]", "Hand an annotation to the runtime"),
    flag("attach", 'a', Kind::List, "", "Attach to STDIN, STDOUT or STDERR"),
    flag("blkio-weight", ' ', Kind::Uint16, "0", "Share of block input and output, 10 to 1000; 0 switches it off"),
    flag("blkio-weight-device", ' ', Kind::List, "[]", "Share of block input and output for one device (path:weight)"),
    flag("cap-add", ' ', Kind::List, "", "Add a capability"),
    flag("cap-drop", ' ', Kind::List, "", "Drop a capability"),
    flag("cgroup-parent", ' ', Kind::Text, "", "Control group to put the container under"),
    flag("cgroupns", ' ', Kind::Text, "", "Control group namespace: host or private; the daemon's default if empty"),
    flag("cidfile", ' ', Kind::Text, "", "Write the container's ID to this file"),
    hidden(flag("cpu-count", ' ', Kind::Int, "", "Number of processors (Windows only)")),
    hidden(flag("cpu-percent", ' ', Kind::Int, "", "Percent of the processors (Windows only)")),
    flag("cpu-period", ' ', Kind::Int, "", "Period of the CFS quota, in microseconds"),
    flag("cpu-quota", ' ', Kind::Int, "", "CFS quota within a period, in microseconds"),
    flag("cpu-rt-period", ' ', Kind::Int, "", "Period of the real-time quota, in microseconds"),
    flag("cpu-rt-runtime", ' ', Kind::Int, "", "Real-time quota within a period, in microseconds"),
    flag("cpu-shares", 'c', Kind::Int, "", "Relative share of the processors"),
    flag("cpus", ' ', Kind::Decimal, "", "Number of processors, such as 1.5"),
    flag("cpuset-cpus", ' ', Kind::Text, "", "Processors to run on (0-3, 0,1)"),
    flag("cpuset-mems", ' ', Kind::Text, "", "Memory nodes to use (0-3, 0,1)"),
    flag("device", ' ', Kind::List, "", "Give the container a device of the host"),
    flag("device-cgroup-rule", ' ', Kind::List, "", "Add a rule to the container's list of allowed devices"),
    flag("device-read-bps", ' ', Kind::List, "[]", "Limit bytes read per second from a device (path:rate)"),
    flag("device-read-iops", ' ', Kind::List, "[]", "Limit reads per second from a device (path:rate)"),
    flag("device-write-bps", ' ', Kind::List, "[]", "Limit bytes written per second to a device (path:rate)"),
    flag("device-write-iops", ' ', Kind::List, "[]", "Limit writes per second to a device (path:rate)"),
    flag("disable-content-trust", ' ', Kind::Bool, "true", "Do not verify signatures"),
    flag("dns", ' ', Kind::List, "", "Name server to use"),
    hidden(flag("dns-opt", ' ', Kind::List, "", "Option for resolv.conf")),
    flag("dns-option", ' ', Kind::List, "", "Option for resolv.conf"),
    flag("dns-search", ' ', Kind::List, "", "Domain to search names in"),
    flag("domainname", ' ', Kind::Text, "", "Domain name of the container"),
    flag("egress", ' ', Kind::Text, "", "Whether it reaches what is outside of its networks (allow|deny)"),
    flag(
        "egress-allow",
        ' ',
        Kind::Strings,
        "",
        "Allow a name or range all the same (api.example.com:443, 10.0.0.0/8)",
    ),
    flag("entrypoint", ' ', Kind::Text, "", "Program to run in place of the image's"),
    flag("env", 'e', Kind::List, "", "Set a variable of the environment"),
    flag("env-file", ' ', Kind::List, "", "Read variables of the environment from a file"),
    flag("expose", ' ', Kind::List, "", "Note a port or range of ports as offered"),
    flag("gpus", ' ', Kind::Gpus, "", "GPUs to give to the container ('all' for every one)"),
    flag("group-add", ' ', Kind::List, "", "Join a further group"),
    flag("health-cmd", ' ', Kind::Text, "", "Command that tells whether the container is well"),
    flag("health-interval", ' ', Kind::Duration, "0s", "Time between two checks (ms|s|m|h)"),
    flag("health-on-failure", ' ', Kind::Text, "", "What to do when it becomes unhealthy (none|kill|restart|stop)"),
    flag("health-retries", ' ', Kind::Int, "", "Failures in a row until the container is unhealthy"),
    flag("health-start-interval", ' ', Kind::Duration, "0s", "Time between two checks while it starts (ms|s|m|h)"),
    flag("health-start-period", ' ', Kind::Duration, "0s", "Time to start before failures count (ms|s|m|h)"),
    flag("health-timeout", ' ', Kind::Duration, "0s", "Longest time a check may take (ms|s|m|h)"),
    flag("help", ' ', Kind::Bool, "", "Print this text"),
    flag("hostname", 'h', Kind::Text, "", "Host name of the container"),
    flag("init", ' ', Kind::Bool, "", "Run a small init that forwards signals and reaps processes"),
    flag("interactive", 'i', Kind::Bool, "", "Keep standard input open"),
    hidden(flag("io-maxbandwidth", ' ', Kind::Bytes, "", "Most bytes per second of the system drive (Windows only)")),
    hidden(flag("io-maxiops", ' ', Kind::Uint, "", "Most operations per second of the system drive (Windows only)")),
    flag("ip", ' ', Kind::Text, "", "IPv4 address (172.30.100.104)"),
    flag("ip6", ' ', Kind::Text, "", "IPv6 address (2001:db8::33)"),
    flag("ipc", ' ', Kind::Text, "", "IPC namespace to use"),
    flag("isolation", ' ', Kind::Text, "", "Isolation of the container (Windows only)"),
    flag("kernel-memory", ' ', Kind::Bytes, "", "Limit of kernel memory"),
    flag("label", 'l', Kind::List, "", "Set a label"),
    flag("label-file", ' ', Kind::List, "", "Read labels from a file"),
    flag("link", ' ', Kind::List, "", "Link to another container"),
    flag("link-local-ip", ' ', Kind::List, "", "Link-local address of the container"),
    flag("log-driver", ' ', Kind::Text, "", "Driver that keeps the output"),
    flag("log-opt", ' ', Kind::List, "", "Option of the log driver"),
    flag("mac-address", ' ', Kind::Text, "", "Ethernet address (92:d0:c6:0a:29:33)"),
    flag("memory", 'm', Kind::Bytes, "", "Limit of memory"),
    flag("memory-reservation", ' ', Kind::Bytes, "", "Memory that is kept for the container"),
    flag("memory-swap", ' ', Kind::Bytes, "", "Limit of memory and swap together; -1 for no limit on swap"),
    flag("memory-swappiness", ' ', Kind::Int, "-1", "How readily memory is swapped (0 to 100)"),
    flag("mount", ' ', Kind::Mount, "", "Mount a file system in the container"),
    flag("name", ' ', Kind::Text, "", "Name to give"),
    hidden(flag("net", ' ', Kind::Network, "", "Network to join")),
    hidden(flag("net-alias", ' ', Kind::List, "", "Further name on the network")),
    flag("network", ' ', Kind::Network, "", "Network to join"),
    flag("network-alias", ' ', Kind::List, "", "Further name on the network"),
    flag("no-healthcheck", ' ', Kind::Bool, "", "Switch the image's health check off"),
    flag("oom-kill-disable", ' ', Kind::Bool, "", "Do not kill processes when memory runs out"),
    flag("oom-score-adj", ' ', Kind::Int, "", "Which processes are killed first (-1000 to 1000)"),
    flag("pid", ' ', Kind::Text, "", "PID namespace to use"),
    flag("pids-limit", ' ', Kind::Int, "", "Most processes (-1 for no limit)"),
    flag("platform", ' ', Kind::Text, "", "Platform, such as linux/amd64"),
    flag("privileged", ' ', Kind::Bool, "", "Give all rights over the host"),
    flag("publish", 'p', Kind::List, "", "Publish a port of the container on the host"),
    flag("publish-all", 'P', Kind::Bool, "", "Publish all exposed ports on free ports of the host"),
    flag("pull", ' ', Kind::Text, "missing", "When to fetch the image (\"always\", \"missing\", \"never\")"),
    flag("quiet", 'q', Kind::Bool, "", "Print nothing while the image is fetched"),
    flag("read-only", ' ', Kind::Bool, "", "Mount the root file system read-only"),
    flag("restart", ' ', Kind::Text, "no", "When to start again after an exit"),
    flag("rm", ' ', Kind::Bool, "", "Delete the container, and its anonymous volumes, when it exits"),
    flag("runtime", ' ', Kind::Text, "", "Runtime to use"),
    flag("security-opt", ' ', Kind::List, "", "Option of security"),
    flag("shm-size", ' ', Kind::Bytes, "", "Size of /dev/shm"),
    flag("stop-signal", ' ', Kind::Text, "", "Signal that stops the container"),
    flag("stop-timeout", ' ', Kind::Int, "", "Seconds to wait before the container is killed"),
    flag("storage-opt", ' ', Kind::List, "", "Option of the storage driver"),
    flag("sysctl", ' ', Kind::Map, "map[]", "Kernel parameter of the container's namespaces"),
    flag("tmpfs", ' ', Kind::List, "", "Mount a tmpfs folder"),
    flag("tty", 't', Kind::Bool, "", "Give the process a terminal"),
    flag("ulimit", ' ', Kind::Ulimit, "[]", "Set a resource limit"),
    flag(
        "use-api-socket",
        ' ',
        Kind::Bool,
        "",
        "Give the container the daemon's socket and the registry logins (experimental)",
    ),
    flag("user", 'u', Kind::Text, "", "User and group to run as (name|uid[:group|gid])"),
    flag("userns", ' ', Kind::Text, "", "User namespace to use"),
    flag("uts", ' ', Kind::Text, "", "UTS namespace to use"),
    flag("volume", 'v', Kind::List, "", "Mount a volume or a folder of the host"),
    flag("volume-driver", ' ', Kind::Text, "", "Driver of the container's volumes"),
    flag("volumes-from", ' ', Kind::List, "", "Mount the volumes of these containers"),
    flag("workdir", 'w', Kind::Text, "", "Folder to start in"),
];

pub(super) const EXEC: &[Flag] = &[
    flag("detach", 'd', Kind::Bool, "", "Run in the background"),
    flag("detach-keys", ' ', Kind::Text, "", "Key sequence that detaches from the container"),
    flag("env", 'e', Kind::List, "", "Set a variable of the environment"),
    flag("env-file", ' ', Kind::List, "", "Read variables of the environment from a file"),
    flag("interactive", 'i', Kind::Bool, "", "Keep standard input open"),
    flag("privileged", ' ', Kind::Bool, "", "Give all rights over the host"),
    flag("tty", 't', Kind::Bool, "", "Give the process a terminal"),
    flag("user", 'u', Kind::Text, "", "User and group to run as (name|uid[:group|gid])"),
    flag("workdir", 'w', Kind::Text, "", "Folder to start in"),
];

pub(super) const EXPORT: &[Flag] = &[flag("output", 'o', Kind::Text, "", "Write to this file, not to standard output")];

pub(super) const CONTAINER_INSPECT: &[Flag] = &[
    flag("format", 'f', Kind::Text, "", "Shape the output: 'json' prints JSON, TEMPLATE a Go template over the object"),
    flag("size", 's', Kind::Bool, "", "Show sizes"),
];

pub(super) const KILL: &[Flag] = &[flag("signal", 's', Kind::Text, "", "Signal to send")];

pub(super) const LOGS: &[Flag] = &[
    flag("details", ' ', Kind::Bool, "", "Show further attributes given to the log"),
    flag("follow", 'f', Kind::Bool, "", "Go on as more is written"),
    flag(
        "since",
        ' ',
        Kind::Text,
        "",
        "Show what was since then (a time like 2013-01-02T13:23:37Z, or a span like 42m)",
    ),
    flag("tail", 'n', Kind::Text, "all", "Lines to show from the end"),
    flag("timestamps", 't', Kind::Bool, "", "Show when each line was written"),
    flag(
        "until",
        ' ',
        Kind::Text,
        "",
        "Show what was until then (a time like 2013-01-02T13:23:37Z, or a span like 42m)",
    ),
];

pub(super) const PS: &[Flag] = &[
    flag("all", 'a', Kind::Bool, "", "Show all containers, not only running ones"),
    flag("filter", 'f', Kind::Filter, "", "Show only what fits (key=value)"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("last", 'n', Kind::Int, "-1", "Show the last n made containers, whatever their state"),
    flag("latest", 'l', Kind::Bool, "", "Show the last made container, whatever its state"),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
    flag("quiet", 'q', Kind::Bool, "", "Print less: IDs, or nothing"),
    flag("size", 's', Kind::Bool, "", "Show sizes"),
];

pub(super) const CONTAINER_PRUNE: &[Flag] = &[
    flag("filter", ' ', Kind::Filter, "", "Show only what fits (key=value)"),
    flag("force", 'f', Kind::Bool, "", "Do not ask, or do it all the same"),
];

pub(super) const RESTART: &[Flag] = &[
    flag("signal", 's', Kind::Text, "", "Signal to send"),
    hidden(flag("time", ' ', Kind::Int, "", "Seconds to wait before it is killed")),
    flag("timeout", 't', Kind::Int, "", "Seconds to wait before it is killed"),
];

pub(super) const RM: &[Flag] = &[
    flag("force", 'f', Kind::Bool, "", "Kill it first if it runs (SIGKILL)"),
    flag("link", 'l', Kind::Bool, "", "Remove the given link"),
    flag("volumes", 'v', Kind::Bool, "", "Delete anonymous volumes too"),
];

pub(super) const RUN: &[Flag] = &[
    flag("detach", 'd', Kind::Bool, "", "Run in the background and print the container's ID"),
    flag("detach-keys", ' ', Kind::Text, "", "Key sequence that detaches from the container"),
    flag("sig-proxy", ' ', Kind::Bool, "true", "Pass signals on to the process"),
];

pub(super) const START: &[Flag] = &[
    flag("attach", 'a', Kind::Bool, "", "Attach to its output and errors, and pass signals on"),
    flag("checkpoint", ' ', Kind::Text, "", "Start from this checkpoint"),
    flag("checkpoint-dir", ' ', Kind::Text, "", "Folder that holds checkpoints"),
    flag("detach-keys", ' ', Kind::Text, "", "Key sequence that detaches from the container"),
    flag("interactive", 'i', Kind::Bool, "", "Attach to its standard input"),
];

pub(super) const STATS: &[Flag] = &[
    flag("all", 'a', Kind::Bool, "", "Show all containers, not only running ones"),
    flag(
        "format",
        ' ',
        Kind::Text,
        "",
        "Shape the output: 'json' prints JSON, 'table' a table, 'table TEMPLATE' a table of the fields of a Go template, TEMPLATE that template for each row",
    ),
    flag("no-stream", ' ', Kind::Bool, "", "Print one reading and end"),
    flag("no-trunc", ' ', Kind::Bool, "", "Print all of every field"),
];

pub(super) const STOP: &[Flag] = &[
    flag("signal", 's', Kind::Text, "", "Signal to send"),
    hidden(flag("time", ' ', Kind::Int, "", "Seconds to wait before it is killed")),
    flag("timeout", 't', Kind::Int, "", "Seconds to wait before it is killed"),
];

pub(super) const UPDATE: &[Flag] = &[
    flag("blkio-weight", ' ', Kind::Uint16, "0", "Share of block input and output, 10 to 1000; 0 switches it off"),
    flag("cpu-period", ' ', Kind::Int, "", "Period of the CFS quota, in microseconds"),
    flag("cpu-quota", ' ', Kind::Int, "", "CFS quota within a period, in microseconds"),
    flag("cpu-rt-period", ' ', Kind::Int, "", "Period of the real-time quota, in microseconds"),
    flag("cpu-rt-runtime", ' ', Kind::Int, "", "Real-time quota within a period, in microseconds"),
    flag("cpu-shares", 'c', Kind::Int, "", "Relative share of the processors"),
    flag("cpus", ' ', Kind::Decimal, "", "Number of processors, such as 1.5"),
    flag("cpuset-cpus", ' ', Kind::Text, "", "Processors to run on (0-3, 0,1)"),
    flag("cpuset-mems", ' ', Kind::Text, "", "Memory nodes to use (0-3, 0,1)"),
    hidden(flag("kernel-memory", ' ', Kind::Bytes, "", "Limit of kernel memory")),
    flag("memory", 'm', Kind::Bytes, "", "Limit of memory"),
    flag("memory-reservation", ' ', Kind::Bytes, "", "Memory that is kept for the container"),
    flag("memory-swap", ' ', Kind::Bytes, "", "Limit of memory and swap together; -1 for no limit on swap"),
    flag("pids-limit", ' ', Kind::Int, "", "Most processes (-1 for no limit)"),
    flag("restart", ' ', Kind::Text, "", "When to start again after an exit"),
];
