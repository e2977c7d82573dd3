//! runc's argument grammar: global options, a command, its options, its words.
//!
//! As Go's `flag` package reads them: one or two dashes, value after `=` or as the next word, switches take `=false`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Error;
use crate::log;

/// What was asked for.
#[derive(Debug)]
pub struct Invocation {
    /// Folder of the containers' states.
    pub root: PathBuf,
    /// Where errors are logged.
    pub log: log::Target,
    /// The command.
    pub command: &'static str,
    /// Its options by long name; switches hold `true` or `false`.
    pub options: BTreeMap<&'static str, Vec<String>>,
    /// Its words.
    pub words: Vec<String>,
}

/// An option: long name, short name, whether it takes a value.
type Flag = (&'static str, &'static str, bool);

const GLOBAL: &[Flag] = &[
    ("root", "", true),
    ("log", "", true),
    ("log-format", "", true),
    ("debug", "", false),
    ("systemd-cgroup", "", false),
    ("rootless", "", true),
    ("criu", "", true),
    ("version", "v", false),
    ("help", "h", false),
];

const CREATE: &[Flag] = &[
    ("bundle", "b", true),
    ("console-socket", "", true),
    ("pid-file", "", true),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
];
const RUN: &[Flag] = &[
    ("bundle", "b", true),
    ("console-socket", "", true),
    ("pid-file", "", true),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
    ("detach", "d", false),
    ("keep", "", false),
    ("no-subreaper", "", false),
];
const EXEC: &[Flag] = &[
    ("console-socket", "", true),
    ("cwd", "", true),
    ("env", "e", true),
    ("tty", "t", false),
    ("user", "u", true),
    ("additional-gids", "g", true),
    ("process", "p", true),
    ("detach", "d", false),
    ("pid-file", "", true),
    ("process-label", "", true),
    ("apparmor", "", true),
    ("no-new-privs", "", false),
    ("cap", "c", true),
    ("preserve-fds", "", true),
    ("ignore-paused", "", false),
];

/// Commands with their options.
const COMMANDS: &[(&str, &[Flag])] = &[
    ("create", CREATE),
    ("run", RUN),
    ("exec", EXEC),
    ("start", &[]),
    ("state", &[]),
    ("kill", &[("all", "a", false)]),
    ("delete", &[("force", "f", false)]),
    ("list", &[("format", "f", true), ("quiet", "q", false)]),
    ("ps", &[("format", "f", true)]),
    ("pause", &[]),
    ("resume", &[]),
    ("update", &[("resources", "r", true)]),
    ("spec", &[("bundle", "b", true)]),
    ("features", &[]),
];

/// What `--help` prints.
pub const HELP: &str = "\
wharf-runtime - an OCI runtime

Usage: wharf-runtime [global options] command [command options] [arguments...]

Commands: create run exec start state kill delete list ps pause resume update spec features

Global options:
  --root value        folder of the containers' states (default: /run/wharf-runtime)
  --log value         file that errors are appended to, besides standard error
  --log-format value  text or json (default: text)
  --version, -v       print the version
";

/// Reads the arguments.
pub fn parse(words: &[String]) -> Result<Invocation, Error> {
    let (global, rest) = take(GLOBAL, words)?;
    let is_set = |name| global.get(name).and_then(|v: &Vec<String>| v.last()).is_some_and(|v| v != "false");
    let last = |name| global.get(name).and_then(|v: &Vec<String>| v.last()).cloned();
    if is_set("systemd-cgroup") {
        return Err(Error::Usage("systemd cgroup flag passed, but systemd support is not built in".to_owned()));
    }
    let json = match last("log-format").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Error::Usage(format!("invalid log-format: {other}"))),
    };
    let log = log::Target { file: last("log").map(PathBuf::from), json };
    let root = last("root").map_or_else(|| PathBuf::from("/run/wharf-runtime"), PathBuf::from);
    let empty = |command| Invocation {
        root: root.clone(),
        log: log::Target::default(),
        command,
        options: BTreeMap::new(),
        words: Vec::new(),
    };
    let Some((name, rest)) = rest.split_first() else {
        return Ok(empty(if is_set("version") { "version" } else { "help" }));
    };
    if is_set("version") {
        return Ok(empty("version"));
    }
    if is_set("help") || name == "help" {
        return Ok(empty("help"));
    }
    let known = COMMANDS.iter().find(|(command, _)| command == name);
    let (command, flags) = known.ok_or_else(|| Error::Usage(format!("No help topic for '{name}'")))?;
    let (options, words) = take(flags, rest)?;
    Ok(Invocation { root, log, command, options, words: words.to_vec() })
}

type Taken<'a> = (BTreeMap<&'static str, Vec<String>>, &'a [String]);

/// Takes options up to the first word.
fn take<'a>(flags: &[Flag], mut words: &'a [String]) -> Result<Taken<'a>, Error> {
    let mut taken: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    while let Some((word, rest)) = words.split_first() {
        if word == "--" {
            return Ok((taken, rest));
        }
        let Some(text) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|t| !t.is_empty()) else {
            break;
        };
        words = rest;
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_owned())));
        let known = flags.iter().find(|(long, short, _)| *long == name || (!short.is_empty() && *short == name));
        let unknown = || Error::Usage(format!("flag provided but not defined: -{name}"));
        let (long, _, takes_value) = known.ok_or_else(unknown)?;
        let value = match (value, takes_value) {
            (Some(value), _) => value,
            (None, false) => "true".to_owned(),
            (None, true) => {
                let missing = || Error::Usage(format!("flag needs an argument: -{name}"));
                let (value, rest) = words.split_first().ok_or_else(missing)?;
                words = rest;
                value.clone()
            }
        };
        taken.entry(long).or_default().push(value);
    }
    Ok((taken, words))
}

impl Invocation {
    /// Whether a switch is on.
    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v != "false")
    }

    /// The last value of an option; an empty one counts as none.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.get(name).and_then(|v| v.last()).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// All values of an option.
    pub fn values(&self, name: &str) -> &[String] {
        self.options.get(name).map_or(&[], Vec::as_slice)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<u32, Error> {
        let Some(text) = self.value(name) else { return Ok(0) };
        text.parse().map_err(|_| Error::Usage(format!("invalid value {text:?} for flag -{name}")))
    }

    /// Whether this process will be inside a container for a moment.
    pub fn enters_container(&self) -> bool {
        matches!(self.command, "create" | "run" | "exec")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_containerds_shim_passes_is_read() {
        let line = "--root /r --log /l --log-format json create --bundle /b --pid-file /p --no-pivot=false x";
        let i = parse(&words(line)).expect("valid");
        assert_eq!((i.command, i.value("bundle"), i.value("pid-file")), ("create", Some("/b"), Some("/p")));
        assert!(i.log.json && !i.is_set("no-pivot") && i.words == ["x"]);
    }

    #[test]
    fn options_of_the_containers_command_are_not_ours() {
        let i = parse(&words("exec -t -e A=b x ls -l --force")).expect("valid");
        assert!(i.is_set("tty"));
        assert_eq!(i.values("env"), ["A=b"]);
        assert_eq!(i.words, ["x", "ls", "-l", "--force"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in
            ["create --moon x", "fly x", "create --bundle", "--systemd-cgroup create x", "--log-format xml list"]
        {
            assert!(matches!(parse(&words(line)), Err(Error::Usage(_))), "{line}");
        }
    }
}
