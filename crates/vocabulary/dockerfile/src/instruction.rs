//! Instructions: each line's keyword, flags and arguments as values. Nothing is expanded yet.

use crate::error::{DockerfileError, Located};
use crate::flags::Flags;
use crate::line::{Line, Range};
use crate::mount::{Mount, parse_mount};
use crate::words::split_words;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The keyword as written.
    pub keyword: String,
    /// What it says.
    pub command: Command,
    /// Where it stands.
    pub range: Range,
    /// The line as written, continuations joined.
    pub text: String,
    /// Comments right above.
    pub comments: Vec<String>,
}

/// Keywords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // They are the reference's headings.
pub enum Kind {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

/// All keywords in lower case.
const KEYWORDS: &[(&str, Kind)] = &[
    ("add", Kind::Add),
    ("arg", Kind::Arg),
    ("cmd", Kind::Cmd),
    ("copy", Kind::Copy),
    ("entrypoint", Kind::Entrypoint),
    ("env", Kind::Env),
    ("expose", Kind::Expose),
    ("from", Kind::From),
    ("healthcheck", Kind::Healthcheck),
    ("label", Kind::Label),
    ("maintainer", Kind::Maintainer),
    ("onbuild", Kind::Onbuild),
    ("run", Kind::Run),
    ("shell", Kind::Shell),
    ("stopsignal", Kind::Stopsignal),
    ("user", Kind::User),
    ("volume", Kind::Volume),
    ("workdir", Kind::Workdir),
];

impl Kind {
    fn of(keyword: &str) -> Option<Self> {
        let lower = keyword.to_ascii_lowercase();
        KEYWORDS.iter().find(|(name, _)| *name == lower).map(|(_, kind)| *kind)
    }
}

/// A pair of ENV, LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// Written as `key value`.
    pub legacy: bool,
}

/// A body that follows its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The name that ends it.
    pub name: String,
    /// The body.
    pub content: String,
    /// Whether variables in it are expanded.
    pub expand: bool,
    /// Whether leading tabs were taken away.
    pub chomp: bool,
    /// The descriptor it is for, as in a shell.
    pub descriptor: u32,
}

/// The two forms of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// For the shell.
    Shell(String),
    /// A JSON list: started as it is.
    Exec(Vec<String>),
}

/// CMD, ENTRYPOINT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellOrExec {
    /// The command.
    pub form: Form,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub form: Form,
    /// `--mount`, not expanded.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security`.
    pub security: Option<String>,
    /// `--device`.
    pub devices: Vec<String>,
    /// Bodies.
    pub heredocs: Vec<Heredoc>,
}

impl Run {
    /// Reads the mounts after expansion.
    ///
    /// # Errors
    /// Docker's texts.
    pub fn mounts(&self, expand: &dyn Fn(&str) -> Result<String, String>) -> Result<Vec<Mount>, String> {
        self.mounts.iter().map(|m| parse_mount(&expand(m)?)).collect()
    }
}

/// A file that a heredoc makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Whether variables in it are expanded.
    pub expand: bool,
}

/// COPY and ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Add {
    /// Paths, URLs.
    pub sources: Vec<String>,
    /// Files from heredocs.
    pub files: Vec<SourceFile>,
    /// Where to.
    pub destination: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub excludes: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// HEALTHCHECK; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `NONE`, or `CMD …`, or `CMD-SHELL …`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: i64,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are the reference's headings.
pub enum Command {
    Add(Add),
    Arg(Vec<(String, Option<String>)>),
    Cmd(ShellOrExec),
    Copy(Add),
    Entrypoint(ShellOrExec),
    Env(Vec<KeyValue>),
    Expose(Vec<String>),
    From { image: String, name: Option<String>, as_keyword: Option<String>, platform: Option<String> },
    Healthcheck(Health),
    Label(Vec<KeyValue>),
    Maintainer(String),
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl Command {
    /// Its keyword.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Add(_) => Kind::Add,
            Self::Arg(_) => Kind::Arg,
            Self::Cmd(_) => Kind::Cmd,
            Self::Copy(_) => Kind::Copy,
            Self::Entrypoint(_) => Kind::Entrypoint,
            Self::Env(_) => Kind::Env,
            Self::Expose(_) => Kind::Expose,
            Self::From { .. } => Kind::From,
            Self::Healthcheck(_) => Kind::Healthcheck,
            Self::Label(_) => Kind::Label,
            Self::Maintainer(_) => Kind::Maintainer,
            Self::Onbuild(_) => Kind::Onbuild,
            Self::Run(_) => Kind::Run,
            Self::Shell(_) => Kind::Shell,
            Self::Stopsignal(_) => Kind::Stopsignal,
            Self::User(_) => Kind::User,
            Self::Volume(_) => Kind::Volume,
            Self::Workdir(_) => Kind::Workdir,
        }
    }
}

/// Reads one line, also the text of an ONBUILD trigger.
///
/// # Errors
/// [`DockerfileError`] with Docker's texts.
pub fn parse_instruction(line: &Line, escape: char) -> Result<Instruction, DockerfileError> {
    let text = line.text.trim();
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let Some(kind) = Kind::of(keyword) else {
        let known = KEYWORDS.iter().map(|(name, _)| *name);
        let hint = crate::stage::nearest(&keyword.to_ascii_lowercase(), known);
        let hint = hint.map(|h| format!(" (did you mean {}?)", h.to_ascii_uppercase())).unwrap_or_default();
        return Err(format!("unknown instruction: {keyword}{hint}")).at(line.range);
    };
    let (flags, arguments) = Flags::take(rest, escape);
    let parser = Parser {
        name: keyword.to_ascii_uppercase(),
        flags,
        arguments: arguments.trim(),
        escape,
        heredocs: &line.heredocs,
    };
    Ok(Instruction {
        keyword: keyword.to_owned(),
        command: parser.command(kind).at(line.range)?,
        range: line.range,
        text: text.to_owned(),
        comments: line.comments.clone(),
    })
}

struct Parser<'a> {
    name: String,
    flags: Flags,
    arguments: &'a str,
    escape: char,
    heredocs: &'a [Heredoc],
}

impl Parser<'_> {
    fn command(&self, kind: Kind) -> Result<Command, String> {
        match kind {
            Kind::Add => self.add().map(Command::Add),
            Kind::Copy => self.add().map(Command::Copy),
            Kind::From => self.from(),
            Kind::Run => self.run().map(Command::Run),
            Kind::Healthcheck => self.healthcheck().map(Command::Healthcheck),
            Kind::Maintainer => {
                self.no_flags()?;
                match self.arguments {
                    "" => Err(self.exactly_one()),
                    text => Ok(Command::Maintainer(text.to_owned())),
                }
            }
            _ => {
                self.no_flags()?;
                self.plain(kind)
            }
        }
    }

    fn plain(&self, kind: Kind) -> Result<Command, String> {
        let one = || if self.arguments.is_empty() { Err(self.exactly_one()) } else { Ok(self.arguments.to_owned()) };
        match kind {
            Kind::Arg => self.arg(),
            Kind::Env => self.pairs().map(Command::Env),
            Kind::Label => self.pairs().map(Command::Label),
            Kind::Cmd => Ok(Command::Cmd(ShellOrExec { form: self.form() })),
            Kind::Entrypoint => {
                if self.arguments.is_empty() {
                    return Err(self.at_least_one());
                }
                Ok(Command::Entrypoint(ShellOrExec { form: self.form() }))
            }
            Kind::Expose => {
                let ports: Vec<String> = self.arguments.split_whitespace().map(str::to_owned).collect();
                if ports.is_empty() { Err(self.at_least_one()) } else { Ok(Command::Expose(ports)) }
            }
            Kind::Onbuild => {
                let trigger = one().map_err(|_| self.at_least_one())?;
                let word = trigger.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
                match word.as_str() {
                    "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
                    "FROM" | "MAINTAINER" => Err(format!("{word} isn't allowed as an ONBUILD trigger")),
                    _ => Ok(Command::Onbuild(trigger)),
                }
            }
            Kind::Shell => match self.form() {
                Form::Exec(list) if list.is_empty() => Err(self.at_least_one()),
                Form::Exec(list) => Ok(Command::Shell(list)),
                Form::Shell(_) if self.arguments.is_empty() => Err(self.at_least_one()),
                Form::Shell(_) => Err("SHELL requires the arguments to be in JSON form".to_owned()),
            },
            Kind::Stopsignal => one().map(Command::Stopsignal),
            Kind::User => one().map(Command::User),
            Kind::Workdir => one().map(Command::Workdir),
            _ => {
                let list = match self.form() {
                    Form::Exec(list) => list,
                    Form::Shell(text) => text.split_whitespace().map(str::to_owned).collect(),
                };
                if list.is_empty() {
                    return Err(self.at_least_one());
                }
                match list.iter().any(|v| v.trim().is_empty()) {
                    true => Err("VOLUME specified can not be an empty string".to_owned()),
                    false => Ok(Command::Volume(list)),
                }
            }
        }
    }

    fn no_flags(&self) -> Result<(), String> {
        self.flags.check(&[], &[])
    }

    fn exactly_one(&self) -> String {
        format!("{} requires exactly one argument", self.name)
    }

    fn at_least_one(&self) -> String {
        format!("{} requires at least one argument", self.name)
    }

    /// The JSON form if it is one, else the text for the shell.
    fn form(&self) -> Form {
        match json_list(self.arguments) {
            Some(list) => Form::Exec(list),
            None => Form::Shell(self.arguments.to_owned()),
        }
    }

    fn from(&self) -> Result<Command, String> {
        self.flags.check(&["platform"], &[])?;
        let words: Vec<&str> = self.arguments.split_whitespace().collect();
        let (image, name, keyword) = match words.as_slice() {
            [image] => (*image, None, None),
            [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                let lower = name.to_ascii_lowercase();
                let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
                    && lower.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
                if !valid {
                    return Err(format!(
                        "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                    ));
                }
                (*image, Some((*name).to_owned()), Some((*keyword).to_owned()))
            }
            _ => return Err("FROM requires either one or three arguments".to_owned()),
        };
        let platform = self.flags.text("platform")?;
        Ok(Command::From { image: image.to_owned(), name, as_keyword: keyword, platform })
    }

    fn run(&self) -> Result<Run, String> {
        self.flags.check(&["network", "security"], &["mount", "device"])?;
        if self.arguments.is_empty() {
            return Err(self.at_least_one());
        }
        let mounts = self.flags.list("mount")?;
        for mount in mounts.iter().filter(|m| !m.contains('$')) {
            parse_mount(mount)?;
        }
        let network = self.flags.text("network")?;
        if let Some(network) = network.as_deref().filter(|n| !matches!(*n, "default" | "none" | "host")) {
            return Err(format!("invalid network mode: {network:?}"));
        }
        let security = self.flags.text("security")?;
        if let Some(mode) = security.as_deref().filter(|n| !matches!(*n, "sandbox" | "insecure")) {
            return Err(format!("security {mode:?} is not valid"));
        }
        let devices = self.flags.list("device")?;
        let form = if self.heredocs.is_empty() { self.form() } else { Form::Shell(self.arguments.to_owned()) };
        Ok(Run { form, mounts, network, security, devices, heredocs: self.heredocs.to_vec() })
    }

    fn add(&self) -> Result<Add, String> {
        let is_add = self.name == "ADD";
        let mut known = vec!["chown", "chmod", "link"];
        known.extend(if is_add { ["keep-git-dir", "checksum", "unpack"].iter() } else { ["from", "parents"].iter() });
        self.flags.check(&known, &["exclude"])?;
        let words = match json_list(self.arguments) {
            Some(list) => list,
            None => self.arguments.split_whitespace().map(str::to_owned).collect(),
        };
        let Some((destination, sources)) = words.split_last() else {
            return Err(format!("{} requires at least two arguments, but none were provided", self.name));
        };
        if sources.is_empty() {
            return Err(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.name
            ));
        }
        let mut add = Add {
            destination: destination.clone(),
            from: self.flags.text("from")?,
            chown: self.flags.text("chown")?,
            chmod: self.flags.text("chmod")?,
            link: self.flags.switch("link")?.unwrap_or_default(),
            parents: self.flags.switch("parents")?.unwrap_or_default(),
            excludes: self.flags.list("exclude")?,
            checksum: self.flags.text("checksum")?,
            keep_git_dir: self.flags.switch("keep-git-dir")?,
            unpack: self.flags.switch("unpack")?,
            ..Add::default()
        };
        for source in sources {
            let heredoc = crate::line::opening(source);
            match heredoc.and_then(|h| self.heredocs.iter().find(|body| body.name == h.name)) {
                Some(h) => {
                    add.files.push(SourceFile { name: h.name.clone(), content: h.content.clone(), expand: h.expand })
                }
                None => add.sources.push(source.clone()),
            }
        }
        if crate::line::opening(destination).is_some_and(|h| self.heredocs.iter().any(|b| b.name == h.name)) {
            return Err(format!("{} cannot accept a heredoc as a destination", self.name));
        }
        Ok(add)
    }

    fn arg(&self) -> Result<Command, String> {
        let words = split_words(self.arguments, self.escape);
        if words.is_empty() {
            return Err(self.at_least_one());
        }
        let mut list = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some(("", _)) => return Err("ARG names can not be blank".to_owned()),
                Some((key, value)) => list.push((key.to_owned(), Some(value.to_owned()))),
                None => list.push((word, None)),
            }
        }
        Ok(Command::Arg(list))
    }

    fn pairs(&self) -> Result<Vec<KeyValue>, String> {
        let words = split_words(self.arguments, self.escape);
        let Some(first) = words.first() else { return Err(self.at_least_one()) };
        if !first.contains('=') {
            let (key, value) = self
                .arguments
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("{} must have two arguments", self.name))?;
            return Ok(vec![KeyValue { key: key.to_owned(), value: value.trim().to_owned(), legacy: true }]);
        }
        let pair = |word: &String| match word.split_once('=') {
            None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
            Some(("", _)) => Err(format!("{} names can not be blank", self.name)),
            Some((key, value)) => Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false }),
        };
        words.iter().map(pair).collect()
    }

    fn healthcheck(&self) -> Result<Health, String> {
        self.flags.check(&["interval", "timeout", "start-period", "start-interval", "retries"], &[])?;
        if self.arguments.is_empty() {
            return Err(self.at_least_one());
        }
        let (kind, rest) = self.arguments.split_once(char::is_whitespace).unwrap_or((self.arguments, ""));
        let rest = rest.trim();
        let mut health = Health::default();
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if !rest.is_empty() => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
            "NONE" if !self.flags.is_empty() => return Err("HEALTHCHECK NONE takes no flags".to_owned()),
            "NONE" => {
                health.test = vec!["NONE".to_owned()];
                return Ok(health);
            }
            "CMD" if rest.is_empty() => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
            "CMD" => match json_list(rest) {
                Some(list) => health.test = std::iter::once("CMD".to_owned()).chain(list).collect(),
                None => health.test = vec!["CMD-SHELL".to_owned(), rest.to_owned()],
            },
            other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
        }
        let time = |name: &str| -> Result<i64, String> {
            let Some(text) = self.flags.text(name)? else { return Ok(0) };
            let value = duration(&text).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
            if value != 0 && value < 1_000_000 {
                return Err(format!("Interval {name:?} cannot be less than 1ms"));
            }
            Ok(value)
        };
        health.interval = time("interval")?;
        health.timeout = time("timeout")?;
        health.start_period = time("start-period")?;
        health.start_interval = time("start-interval")?;
        if let Some(text) = self.flags.text("retries")? {
            let retries: i64 =
                text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
            if retries < 0 {
                return Err(format!("--retries cannot be negative ({retries})"));
            }
            health.retries = retries;
        }
        Ok(health)
    }
}

/// A JSON list of strings, else nothing: the shell form.
fn json_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A Go duration in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0f64;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    (0.0..9e18).contains(&total).then_some(total as i64)
}
