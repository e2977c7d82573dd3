//! The one table of every command and flag, which feeds the parser, the help texts and the completions.

mod container;
mod container_flags;
mod image;
mod service;
mod swarm;
mod system;
mod system_flags;

use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::Shell;

/// How the value of a flag is read, and what help calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A switch; takes a value only after `=`.
    Bool,
    /// One text; the last one counts.
    Text,
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// An unsigned number of 16 bits.
    Uint16,
    /// An unsigned number of 32 bits.
    Uint32,
    /// A fraction.
    Float,
    /// A number of processors, up to nine decimals.
    Decimal,
    /// A size such as `64m`.
    Bytes,
    /// A span such as `1m30s`.
    Duration,
    /// Texts, one per flag.
    List,
    /// Texts, several per flag with commas between.
    Strings,
    /// `key=value`, one per flag.
    Map,
    /// `key=value`, several per flag with commas between.
    StringToString,
    /// `key=value` that selects rows.
    Filter,
    /// A resource limit.
    Ulimit,
    /// A mount in its comma-separated form.
    Mount,
    /// A network, with options in its comma-separated form.
    Network,
    /// A request for GPUs.
    Gpus,
    /// A command line.
    Command,
    /// A preference of placement.
    Pref,
    /// A published port in its long or short form.
    Port,
    /// A config with options.
    Config,
    /// A secret with options.
    Secret,
    /// A credential specification.
    CredentialSpec,
    /// An external certificate authority.
    ExternalCa,
    /// A file in PEM form.
    PemFile,
    /// A node's address.
    NodeAddr,
    /// Networks in CIDR form.
    IpNetSlice,
}

impl Kind {
    /// Returns what help calls the value; empty for switches.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Bool => "",
            Kind::Text => "string",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Uint16 => "uint16",
            Kind::Uint32 => "uint32",
            Kind::Float => "float",
            Kind::Decimal => "decimal",
            Kind::Bytes => "bytes",
            Kind::Duration => "duration",
            Kind::List => "list",
            Kind::Strings => "strings",
            Kind::Map => "map",
            Kind::StringToString => "stringToString",
            Kind::Filter => "filter",
            Kind::Ulimit => "ulimit",
            Kind::Mount => "mount",
            Kind::Network => "network",
            Kind::Gpus => "gpu-request",
            Kind::Command => "command",
            Kind::Pref => "pref",
            Kind::Port => "port",
            Kind::Config => "config",
            Kind::Secret => "secret",
            Kind::CredentialSpec => "credential-spec",
            Kind::ExternalCa => "external-ca",
            Kind::PemFile => "pem-file",
            Kind::NodeAddr => "node-addr",
            Kind::IpNetSlice => "ipNetSlice",
        }
    }
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// The name after two dashes.
    pub long: &'static str,
    /// The letter after one dash, or a blank.
    pub short: char,
    /// How its value is read.
    pub kind: Kind,
    /// What help shows as default; empty where it shows none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether help and completion leave it out.
    pub hidden: bool,
}

/// Makes a flag.
const fn flag(long: &'static str, short: char, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { long, short, kind, default, help, hidden: false }
}

/// Hides a flag: deprecated, or for another system.
const fn hidden(flag: Flag) -> Flag {
    Flag { hidden: true, ..flag }
}

/// The heading a command is listed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Used every day.
    Common,
    /// Words that hold further commands.
    Management,
    /// Of swarm mode.
    Swarm,
    /// The rest.
    Other,
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// At least.
    pub min: usize,
    /// At most; `usize::MAX` for no limit.
    pub max: usize,
}

impl Arity {
    const ANY: Arity = Arity::new(0, usize::MAX);

    const fn new(min: usize, max: usize) -> Self {
        Self { min, max }
    }
}

/// What a command does.
#[derive(Clone, Copy)]
pub enum Action {
    /// It only holds further commands.
    Group,
    /// It runs this.
    Run(fn(&mut Shell, &Matches) -> Result<(), Exit>),
    /// It belongs to a feature that is not there yet.
    Later(&'static str),
}

/// One command.
pub struct Command {
    /// Its words after `docker`.
    pub path: &'static str,
    /// Other ways to call it, which help names.
    pub aliases: &'static [&'static str],
    /// What follows its words in the usage line.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Where it is listed.
    pub group: Group,
    /// Whether help leaves it out.
    pub hidden: bool,
    /// How many arguments it takes.
    pub arity: Arity,
    /// Whether flags may stand after arguments.
    pub interspersed: bool,
    /// Its flags, in sets that several commands may share.
    pub flags: &'static [&'static [Flag]],
    /// What it does.
    pub action: Action,
}

impl Command {
    /// Returns its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|set| set.iter())
    }

    /// Returns `docker` and its words.
    pub fn full_name(&self) -> String {
        if self.path.is_empty() { "docker".into() } else { format!("docker {}", self.path) }
    }

    /// Returns the usage line, without the word `Usage`.
    pub fn usage_line(&self) -> String {
        match (self.path, self.action) {
            ("", _) => "docker [OPTIONS] COMMAND [ARG...]".into(),
            (_, Action::Group) => self.full_name(),
            _ => format!("{} {}", self.full_name(), self.usage).trim_end().to_owned(),
        }
    }
}

const FAMILIES: [&[Command]; 5] =
    [container::COMMANDS, image::COMMANDS, service::COMMANDS, swarm::COMMANDS, system::COMMANDS];

/// Returns every command, the top level among them with an empty path.
pub fn commands() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|f| f.iter())
}

/// Finds a command by its words, or by an alias that has no entry of its own.
pub fn find(path: &str) -> Option<&'static Command> {
    commands().find(|c| c.path == path).or_else(|| commands().find(|c| c.aliases.contains(&path)))
}

/// Returns the commands one word below `parent`.
pub fn children(parent: &str) -> Vec<&'static Command> {
    let mut found: Vec<_> = commands()
        .filter(|c| match c.path.rsplit_once(' ') {
            Some((above, _)) => above == parent,
            None => parent.is_empty() && !c.path.is_empty(),
        })
        .collect();
    found.sort_by_key(|c| c.path);
    found
}
