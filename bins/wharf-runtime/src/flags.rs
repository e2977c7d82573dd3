//! The command line as data: global options, commands, their options. It is what is parsed and what `--help` prints.

use std::fmt::Write as _;

/// An option.
#[derive(Debug)]
pub struct Flag {
    /// Name behind two dashes.
    pub long: &'static str,
    /// Name behind one dash; empty for none.
    pub short: &'static str,
    /// Whether a value follows.
    pub value: bool,
    /// What it does.
    pub help: &'static str,
}

/// How many words a command takes after its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// So many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// So many or fewer, one at least.
    UpTo(usize),
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Its words, as help shows them.
    pub usage: &'static str,
    /// How many words it takes.
    pub words: Words,
    /// Its options.
    pub flags: &'static [Flag],
    /// What its failures begin with, as runc's do.
    pub failure: &'static str,
    /// The exit code of its failures.
    pub code: u8,
}

const fn flag(long: &'static str, short: &'static str, value: bool, help: &'static str) -> Flag {
    Flag { long, short, value, help }
}

/// What every command takes, too.
pub const HELP: Flag = flag("help", "h", false, "show help");

/// Options before the command.
pub const GLOBAL: &[Flag] = &[
    flag("debug", "", false, "accepted; there is nothing more to log"),
    flag("log", "", true, "append errors to this file, besides standard error"),
    flag("log-format", "", true, "text (default) or json"),
    flag("root", "", true, "folder of the containers' states (default: /run/wharf-runtime, or below $XDG_RUNTIME_DIR)"),
    flag("criu", "", true, "path of CRIU's program (default: where Debian has it)"),
    flag("systemd-cgroup", "", false, "let systemd make the cgroups; cgroupsPath is then slice:prefix:name"),
    flag("rootless", "", true, "go on without cgroup rights: true, false or auto (default)"),
    HELP,
    flag("version", "v", false, "print the version"),
];

const BUNDLE: Flag = flag("bundle", "b", true, "folder with config.json; default is where we are");
const CONSOLE: Flag = flag("console-socket", "", true, "unix socket that gets the terminal's controlling end");
const PIDFD: Flag = flag("pidfd-socket", "", true, "unix socket that gets a descriptor of the process");
const PID_FILE: Flag = flag("pid-file", "", true, "file to write the process id to");
const NO_PIVOT: Flag =
    flag("no-pivot", "", false, "move the root over / instead of pivot_root, for hosts on an initramfs");
const NO_KEYRING: Flag = flag("no-new-keyring", "", false, "keep the caller's session keyring");
const PRESERVE: Flag =
    flag("preserve-fds", "", true, "pass so many descriptors after the standard streams and $LISTEN_FDS");
const DETACH: Flag = flag("detach", "d", false, "do not wait for the process");
const NO_SUBREAPER: Flag = flag("no-subreaper", "", false, "accepted; orphans never become ours");

const IMAGES: Flag = flag("image-path", "", true, "folder of the images (default: ./checkpoint)");
const WORK: Flag = flag("work-path", "", true, "folder of CRIU's logs (default: the images)");
const TCP: Flag = flag("tcp-established", "", false, "allow open TCP connections");
const UNIX: Flag = flag("ext-unix-sk", "", false, "allow unix sockets to others");
const SHELL: Flag = flag("shell-job", "", false, "allow a session that others lead");
const LOCKS: Flag = flag("file-locks", "", false, "handle file locks");
const LAZY: Flag = flag("lazy-pages", "", false, "memory on demand by userfaultfd");
const GROUPS: Flag =
    flag("manage-cgroups-mode", "", true, "soft (default), full, strict or ignore (default of restore)");
const EMPTY: Flag = flag("empty-ns", "", true, "make this namespace and restore nothing in it: network");
const DEDUP: Flag = flag("auto-dedup", "", false, "drop memory that a later image has");
const REMAP: Flag = flag("link-remap", "", false, "handle files without name by linking them");

const ID: &str = "<container-id>";

/// A command whose failures have no special form.
const fn command(name: &'static str, help: &'static str, flags: &'static [Flag]) -> Command {
    Command { name, help, usage: ID, words: Words::Exactly(1), flags, failure: "", code: 1 }
}

/// All commands.
pub const COMMANDS: &[Command] = &[
    command(
        "checkpoint",
        "write a running container to files, by CRIU",
        &[
            IMAGES,
            WORK,
            flag("parent-path", "", true, "images of an earlier pass, relative to the image path"),
            flag("leave-running", "", false, "let it run on"),
            TCP,
            UNIX,
            SHELL,
            LAZY,
            flag("status-fd", "", true, "descriptor that CRIU writes a NUL to when lazy pages are ready"),
            flag("page-server", "", true, "ADDRESS:PORT that memory is sent to"),
            LOCKS,
            flag("pre-dump", "", false, "a first pass: memory only, it runs on"),
            GROUPS,
            EMPTY,
            DEDUP,
            REMAP,
        ],
    ),
    Command {
        failure: "runc create failed: ",
        ..command(
            "create",
            "make a container and its first process, which waits for start",
            &[BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
        )
    },
    command("delete", "remove what a container left", &[flag("force", "f", false, "kill it first if it runs")]),
    command(
        "events",
        "print statistics and out-of-memory kills as JSON lines",
        &[
            flag("interval", "", true, "between two statistics (default: 5s)"),
            flag("stats", "", false, "print statistics once"),
        ],
    ),
    Command {
        usage: "<container-id> <command> [arguments...] || -p process.json <container-id>",
        words: Words::AtLeast(1),
        failure: "exec failed: ",
        code: 255,
        ..command(
            "exec",
            "run a further process in a container",
            &[
                CONSOLE,
                PIDFD,
                flag("cwd", "", true, "directory to run in"),
                flag("env", "e", true, "NAME=value, may be given many times"),
                flag("tty", "t", false, "give it a terminal"),
                flag("user", "u", true, "uid[:gid]"),
                flag("additional-gids", "g", true, "further group, may be given many times"),
                flag("process", "p", true, "file with a process object"),
                DETACH,
                PID_FILE,
                flag("process-label", "", true, "SELinux label"),
                flag("apparmor", "", true, "AppArmor profile"),
                flag("no-new-privs", "", false, "no more privileges by execve"),
                flag("cap", "c", true, "further capability, may be given many times"),
                PRESERVE,
                flag("cgroup", "", true, "[controller,...:]path of an existing group below the container's"),
                flag("ignore-paused", "", false, "allow it in a paused container"),
            ],
        )
    },
    Command {
        usage: "",
        words: Words::Exactly(0),
        ..command("features", "tell what this runtime can do, as JSON", &[])
    },
    Command {
        usage: "<container-id> [signal]",
        words: Words::UpTo(2),
        ..command(
            "kill",
            "send a signal (default: SIGTERM) to the first process",
            &[flag("all", "a", false, "to all processes")],
        )
    },
    Command {
        usage: "",
        words: Words::Exactly(0),
        ..command(
            "list",
            "list the containers of the state folder",
            &[flag("format", "f", true, "table (default) or json"), flag("quiet", "q", false, "ids only")],
        )
    },
    command("pause", "stop all processes", &[]),
    Command {
        usage: "<container-id> [ps options]",
        words: Words::AtLeast(1),
        ..command("ps", "show the processes", &[flag("format", "f", true, "table (default) or json")])
    },
    command(
        "restore",
        "bring a container back from files, by CRIU",
        &[
            CONSOLE,
            IMAGES,
            WORK,
            TCP,
            UNIX,
            SHELL,
            LOCKS,
            GROUPS,
            BUNDLE,
            DETACH,
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            EMPTY,
            DEDUP,
            LAZY,
            REMAP,
        ],
    ),
    command("resume", "let stopped processes go on", &[]),
    Command {
        failure: "runc run failed: ",
        ..command(
            "run",
            "create, start and wait for a container",
            &[
                BUNDLE,
                CONSOLE,
                PIDFD,
                PID_FILE,
                NO_PIVOT,
                NO_KEYRING,
                PRESERVE,
                DETACH,
                flag("keep", "", false, "do not delete it when it ends"),
                NO_SUBREAPER,
            ],
        )
    },
    Command {
        usage: "",
        words: Words::Exactly(0),
        ..command(
            "spec",
            "write a config.json to start from",
            &[BUNDLE, flag("rootless", "", false, "for a user without privileges")],
        )
    },
    command("start", "run the program of a created container", &[]),
    command("state", "print a container's state", &[]),
    command(
        "update",
        "change limits",
        &[
            flag(
                "resources",
                "r",
                true,
                "file with a resources object, - for standard input; other options then do nothing",
            ),
            flag("blkio-weight", "", true, "block device weight, 10 to 1000"),
            flag("cpu-period", "", true, "CPU period in microseconds"),
            flag("cpu-quota", "", true, "CPU time per period in microseconds"),
            flag("cpu-burst", "", true, "CPU time that may be saved up, in microseconds"),
            flag("cpu-share", "", true, "CPU weight"),
            flag("cpu-rt-period", "", true, "real-time period in microseconds"),
            flag("cpu-rt-runtime", "", true, "real-time CPU time per period in microseconds"),
            flag("cpuset-cpus", "", true, "CPUs"),
            flag("cpuset-mems", "", true, "memory nodes"),
            flag("memory", "", true, "memory in bytes, with suffix k, m, g"),
            flag("cpu-idle", "", true, "1 for the idle class"),
            flag("memory-reservation", "", true, "soft limit in bytes"),
            flag("memory-swap", "", true, "memory and swap in bytes, -1 for no limit"),
            flag("pids-limit", "", true, "processes"),
            flag("l3-cache-schema", "", true, "L3 line of resctrl's schemata"),
            flag("mem-bw-schema", "", true, "memory bandwidth line of resctrl's schemata"),
        ],
    ),
];

/// The command of a name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// What `--help` prints: of all, or of one command.
pub fn help(command: Option<&Command>) -> String {
    let mut text = String::new();
    let flags = match command {
        Some(command) => {
            let usage = [command.name, "[options]", command.usage].join(" ");
            text.push_str(&format!(
                "wharf-runtime {} - {}\n\nUsage: wharf-runtime [global options] ",
                command.name, command.help
            ));
            text.push_str(usage.trim_end());
            text.push_str("\n\nOptions:\n");
            command.flags
        }
        None => {
            text.push_str("wharf-runtime - an OCI runtime\n\n");
            text.push_str("Usage: wharf-runtime [global options] command [options] [arguments...]\n\nCommands:\n");
            for command in COMMANDS {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {:<12}{}", command.name, command.help);
            }
            text.push_str("\nGlobal options:\n");
            GLOBAL
        }
    };
    for flag in flags {
        let value = if flag.value { " value" } else { "" };
        let short = if flag.short.is_empty() { String::new() } else { format!(", -{}{value}", flag.short) };
        let _ = writeln!(text, "  {:<34}{}", format!("--{}{value}{short}", flag.long), flag.help);
    }
    text
}
