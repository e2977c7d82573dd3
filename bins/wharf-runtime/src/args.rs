//! Reading the command line: global options, a command, its options, its words.
//!
//! As Go's `flag` package reads them: one or two dashes, value after `=` or as the next word, switches take `=false`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Error;
use crate::flags::{self, Command, Flag, GLOBAL, Words};
use crate::log;

/// What was asked for.
#[derive(Debug)]
pub struct Invocation {
    /// Folder of the containers' states.
    pub root: PathBuf,
    /// Where errors are logged.
    pub log: log::Target,
    /// Whether systemd makes the cgroups.
    pub systemd: bool,
    /// Whether missing cgroup rights are passed over; nothing is said where it is found out.
    pub rootless: Option<bool>,
    /// CRIU's program, if it is named.
    pub criu: Option<PathBuf>,
    /// The command; none for help and version, which only print.
    pub command: Option<&'static Command>,
    /// What is printed instead of carrying out a command.
    pub print: Option<String>,
    /// Its options by long name; switches hold `true` or `false`.
    pub options: BTreeMap<&'static str, Vec<String>>,
    /// Its words.
    pub words: Vec<String>,
}

/// A command line that cannot be carried out, with where that is logged.
#[derive(Debug)]
pub struct Wrong {
    /// Where it is logged.
    pub log: log::Target,
    /// What is wrong.
    pub error: Error,
    /// The command whose usage is shown beside it.
    pub of: Option<&'static Command>,
}

/// Reads the arguments.
pub fn parse(words: &[String]) -> Result<Invocation, Wrong> {
    let bare = |error| Wrong { log: log::Target::default(), error, of: None };
    let (global, rest) = take(GLOBAL, words).map_err(bare)?;
    let is_set = |name| global.get(name).and_then(|v: &Vec<String>| v.last()).is_some_and(|v| v != "false");
    let last = |name| global.get(name).and_then(|v: &Vec<String>| v.last()).cloned();
    let json = match last("log-format").as_deref() {
        None | Some("" | "text") => false,
        Some("json") => true,
        Some(other) => return Err(bare(Error::Usage(format!("invalid log-format: {other}")))),
    };
    let rootless = match last("rootless").as_deref() {
        None | Some("auto" | "") => None,
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Some(true),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Some(false),
        Some(other) => return Err(bare(Error::Usage(format!("parsing \"rootless\": {other:?}: invalid syntax")))),
    };
    let file = last("log").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut this = Invocation {
        root: last("root").filter(|path| !path.is_empty()).map_or_else(default_root, PathBuf::from),
        log: log::Target { file, json },
        systemd: is_set("systemd-cgroup"),
        rootless,
        criu: last("criu").filter(|path| path.contains('/')).map(PathBuf::from),
        command: None,
        print: None,
        options: BTreeMap::new(),
        words: Vec::new(),
    };
    let first = rest.split_first().filter(|_| !is_set("version") && !is_set("help"));
    let Some((name, rest)) = first else {
        this.print = Some(if is_set("version") { crate::features::version() } else { flags::help(None) });
        return Ok(this);
    };
    if matches!(name.as_str(), "help" | "h") {
        let about = rest.first().map(|name| flags::find(name).ok_or(name)).transpose();
        let about =
            about.map_err(|name| Wrong { log: this.log.clone(), error: Error::NoCommand(name.clone()), of: None })?;
        this.print = Some(flags::help(about));
        return Ok(this);
    }
    let wrong = |error, of| Wrong { log: this.log.clone(), error, of };
    let command = flags::find(name).ok_or_else(|| wrong(Error::NoCommand(name.clone()), None))?;
    let (options, words) = take(command.flags, rest).map_err(|e| wrong(e, Some(command)))?;
    if options.contains_key("help") {
        this.print = Some(flags::help(Some(command)));
        return Ok(this);
    }
    check_number(command, words.len()).map_err(|e| wrong(e, Some(command)))?;
    (this.command, this.options, this.words) = (Some(command), options, words.to_vec());
    Ok(this)
}

/// A user without privileges keeps states where the session's files are, as with runc.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    match own.filter(|_| !rustix::process::geteuid().is_root()) {
        Some(folder) => PathBuf::from(folder).join("wharf-runtime"),
        None => PathBuf::from("/run/wharf-runtime"),
    }
}

fn check_number(command: &Command, given: usize) -> Result<(), Error> {
    let (right, what) = match command.words {
        Words::Exactly(n) => (given == n, format!("exactly {n} argument(s)")),
        Words::AtLeast(n) => (given >= n, format!("a minimum of {n} argument(s)")),
        Words::UpTo(n) if given == 0 => (false, format!("a minimum of {} argument(s)", n.min(1))),
        Words::UpTo(n) => (given <= n, format!("a maximum of {n} argument(s)")),
    };
    if right { Ok(()) } else { Err(Error::Usage(format!("wharf-runtime: {:?} requires {what}", command.name))) }
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
        let all = flags.iter().chain(std::iter::once(&flags::HELP));
        let mut named = all.filter(|flag| flag.long == name || (!flag.short.is_empty() && flag.short == name));
        let flag = named.next().ok_or_else(|| Error::Usage(format!("flag provided but not defined: -{name}")))?;
        let value = match (value, flag.value) {
            (Some(value), _) => value,
            (None, false) => "true".to_owned(),
            (None, true) => {
                let missing = || Error::Usage(format!("flag needs an argument: -{name}"));
                let (value, rest) = words.split_first().ok_or_else(missing)?;
                words = rest;
                value.clone()
            }
        };
        taken.entry(flag.long).or_default().push(value);
    }
    Ok((taken, words))
}

impl Invocation {
    /// The container's id, the first word.
    pub fn id(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

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
    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Error> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let wrong = |_| Error::Usage(format!("invalid value {text:?} for flag -{name}: parse error"));
        text.parse().map(Some).map_err(wrong)
    }

    /// Whether this process will be inside a container for a moment.
    pub fn enters_container(&self) -> bool {
        self.command.is_some_and(|c| matches!(c.name, "create" | "run" | "exec"))
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
        assert_eq!(i.command.map(|c| c.name), Some("create"));
        assert_eq!((i.value("bundle"), i.value("pid-file")), (Some("/b"), Some("/p")));
        assert!(i.log.json && !i.is_set("no-pivot") && i.words == ["x"]);
    }

    #[test]
    fn options_of_the_containers_command_are_not_ours() {
        let i = parse(&words("exec -t -e A=b x ls -l --force --help")).expect("valid");
        assert!(i.is_set("tty"));
        assert_eq!(i.values("env"), ["A=b"]);
        assert_eq!(i.words, ["x", "ls", "-l", "--force", "--help"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in
            ["create --moon x", "create --bundle", "--log-format xml list", "--rootless maybe list", "create", "list x"]
        {
            assert!(matches!(parse(&words(line)), Err(Wrong { error: Error::Usage(_), .. })), "{line}");
        }
        assert!(matches!(parse(&words("fly x")), Err(Wrong { error: Error::NoCommand(_), .. })));
    }

    #[test]
    fn every_command_and_option_has_help() {
        for command in flags::COMMANDS {
            let i = parse(&words(&format!("{} --help", command.name))).expect("help");
            let text = i.print.expect("printed");
            assert!(command.flags.iter().all(|f| text.contains(f.long) && !f.help.is_empty()), "{text}");
        }
    }
}
