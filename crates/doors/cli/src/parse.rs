//! Reads the words of a command line against the table, with the rules and texts of pflag and cobra.
//!
//! Source: the behaviour of docker 28.2.2; spf13/pflag for what `-itp80:80` and `--rm=false` mean.

use crate::exit::Exit;
use crate::table::{self, Action, Arity, Command, Flag, Kind};
use crate::value;

/// The flag every command has.
static HELP: Flag =
    Flag { long: "help", short: 'h', kind: Kind::Bool, default: "", help: "Print this text", hidden: true };

/// A command line that was understood.
pub struct Matches {
    /// The command.
    pub command: &'static Command,
    /// The arguments that are no flags.
    pub args: Vec<String>,
    given: Vec<(&'static Flag, String)>,
}

impl Matches {
    /// Returns whether the flag was given.
    pub fn changed(&self, long: &str) -> bool {
        self.given.iter().any(|g| g.0.long == long)
    }

    fn last(&self, long: &str) -> Option<&str> {
        self.given.iter().rev().find(|g| g.0.long == long).map(|g| g.1.as_str())
    }

    /// Returns the value of a text flag, or its default.
    pub fn text(&self, long: &str) -> &str {
        self.last(long).unwrap_or_else(|| self.command.flags().find(|f| f.long == long).map_or("", |f| f.default))
    }

    /// Returns the value of a switch.
    pub fn bool(&self, long: &str) -> bool {
        value::parse_bool(self.text(long)).unwrap_or(false)
    }

    /// Returns the value of a number; it was checked when it was read.
    pub fn int(&self, long: &str) -> i64 {
        value::parse_int(self.text(long)).unwrap_or(0)
    }

    /// Returns the value of a size in bytes.
    pub fn bytes(&self, long: &str) -> i64 {
        value::parse_bytes(long, self.text(long)).unwrap_or(0)
    }

    /// Returns the value of a span in nanoseconds.
    pub fn duration(&self, long: &str) -> i64 {
        value::parse_duration(self.text(long)).unwrap_or(0)
    }

    /// Returns the values of a list flag, in order.
    pub fn list(&self, long: &str) -> Vec<&str> {
        self.given.iter().filter(|g| g.0.long == long).map(|g| g.1.as_str()).collect()
    }

    /// Returns the values of a flag that takes several with commas between.
    pub fn strings(&self, long: &str) -> Vec<String> {
        self.list(long).iter().flat_map(|v| value::split_csv(v).unwrap_or_default()).collect()
    }

    /// Returns the flags that were given, in order, with their values.
    pub fn given(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        self.given.iter().map(|(f, v)| (*f, v.as_str()))
    }

    /// Returns the first argument; commands that need one have said so in the table.
    pub fn first(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }
}

/// What a command line asks for.
pub enum Request {
    /// To run a command. The first matches are those of the top level.
    Run(Matches, Matches),
    /// To print the help of a command, with a note in front.
    Help(&'static Command, &'static str),
    /// To print the help of a group that was called without a command, on standard error.
    Lost(&'static Command),
    /// To print the version.
    Version,
}

/// The first word that is no global flag, if it names none of our commands or the configuration may give it to a plugin
/// (`builder`, which Docker's client lets be aliased); with the flags before it.
pub fn stranger(words: &[String]) -> Option<(Matches, String)> {
    let top = table::find("")?;
    let mut globals = Matches { command: top, args: Vec::new(), given: Vec::new() };
    let rest = read(&mut globals, words, false).ok()?;
    let word = rest.first()?;
    (table::find(word).is_none() || word == "builder").then(|| (globals, word.clone()))
}

/// Understands the words after the program's name.
///
/// # Errors
/// Returns Docker's text and exit status: 125 for flags, 1 for commands and arguments.
pub fn parse(words: &[String]) -> Result<Request, Exit> {
    // The table has a top level.
    let top = table::find("").ok_or_else(|| Exit::new("no commands"))?;
    let mut globals = Matches { command: top, args: Vec::new(), given: Vec::new() };
    let mut rest = read(&mut globals, words, false)?;
    if globals.bool("help") {
        return Ok(Request::Help(top, note(&globals)));
    }
    let mut command = top;
    loop {
        let next = rest.first().filter(|w| !w.starts_with('-')).map(|w| format!("{} {w}", command.path));
        match next.and_then(|path| table::find(path.trim_start())) {
            Some(c) if matches!(command.action, Action::Group) && !c.path.is_empty() => {
                command = c;
                rest = &rest[1..];
            }
            _ => break,
        }
    }
    if command.path.is_empty() {
        if globals.bool("version") {
            return Ok(Request::Version);
        }
        if let Some(word) = rest.first() {
            // Docker shows its help where an unknown command comes with --help.
            if rest[1..].iter().any(|w| w == "--help") {
                return Ok(Request::Help(top, ""));
            }
            let near = nearest("", word);
            let text =
                format!("docker: unknown command: docker {word}\n\n{near}Run 'docker --help' for more information");
            return Err(Exit::new(text));
        }
        return Ok(Request::Lost(top));
    }
    let mut matches = Matches { command, args: Vec::new(), given: Vec::new() };
    let left = read(&mut matches, rest, command.interspersed || matches!(command.action, Action::Group))?;
    matches.args.extend(left.iter().cloned());
    if matches.bool("help") {
        return Ok(Request::Help(command, note(&matches)));
    }
    if let Action::Group = command.action {
        let Some(word) = matches.args.first() else { return Ok(Request::Lost(command)) };
        let name = command.full_name();
        let near = nearest(command.path, word);
        let text = format!(
            "docker: unknown command: {name} {word}\n\n{near}Usage:  {name}\n\nRun '{name} --help' for more information"
        );
        return Err(Exit::new(text));
    }
    count(command, matches.args.len())?;
    Ok(Request::Run(globals, matches))
}

/// What may have been meant by a word that no command below `parent` has; ours, Docker says nothing.
fn nearest(parent: &str, word: &str) -> String {
    let mut near: Vec<(usize, &str)> = table::children(parent)
        .iter()
        .filter(|c| !c.hidden)
        .map(|c| (edits(word, c.path.rsplit(' ').next().unwrap_or_default()), c.path))
        // One edit in three letters: what differs more is another word.
        .filter(|(n, path)| *n <= (path.len() - parent.len()).div_ceil(3).min(2) && *n < word.len())
        .collect();
    near.sort_unstable();
    if near.is_empty() {
        return String::new();
    }
    let lines: String = near.iter().take(3).map(|(_, path)| format!("  docker {path}\n")).collect();
    format!("Did you mean this?\n{lines}\n")
}

/// How many letters have to be put in, left out, changed, or exchanged with their neighbour.
fn edits(from: &str, to: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (from.chars().take(40).collect(), to.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let shifted = rows[i - 1][j].min(rows[i][j - 1]) + 1;
                    let exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let best = changed.min(shifted);
                    if exchanged { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

fn note(m: &Matches) -> &'static str {
    if m.given.iter().any(|g| std::ptr::eq(g.0, &HELP) && g.1 == "-h") {
        "Flag shorthand -h has been deprecated, use --help\n"
    } else {
        ""
    }
}

fn count(command: &Command, n: usize) -> Result<(), Exit> {
    let Arity { min, max } = command.arity;
    if (min..=max).contains(&n) {
        return Ok(());
    }
    let (name, usage) = (command.full_name(), command.usage_line());
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    // "SRun" is what docker 28.2.2 prints.
    let (what, see) = match (min, max) {
        (0, 0) => ("accepts no arguments".to_owned(), "Run"),
        (a, b) if a == b => (format!("requires {a} {}", plural(a)), "Run"),
        (a, usize::MAX) => (format!("requires at least {a} {}", plural(a)), "See"),
        (0, b) => (format!("requires at most {b} {}", plural(b)), "SRun"),
        (a, b) => (format!("requires at least {a} and at most {b} {}", plural(b)), "Run"),
    };
    Err(Exit::new(format!("docker: '{name}' {what}\n\nUsage:  {usage}\n\n{see} '{name} --help' for more information")))
}

/// Ends with the text of a flag that is wrong.
pub fn flag_error(command: &Command, message: &str) -> Exit {
    let (name, usage) = (command.full_name(), command.usage_line());
    Exit { message: format!("{message}\n\nUsage:  {usage}\n\nRun '{name} --help' for more information"), code: 125 }
}

/// Reads flags; arguments go to `m.args` where flags may follow them. Returns the words that are left.
fn read<'a>(m: &mut Matches, words: &'a [String], interspersed: bool) -> Result<&'a [String], Exit> {
    let command = m.command;
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if word == "--" {
            return Ok(&words[at..]);
        }
        if let Some(body) = word.strip_prefix("--") {
            at += long_flag(m, body, words.get(at)).map_err(|e| flag_error(command, &e))?;
        } else if word.len() > 1 && word.starts_with('-') {
            at += short_flags(m, word, words.get(at)).map_err(|e| flag_error(command, &e))?;
        } else if interspersed {
            m.args.push(word.clone());
        } else {
            return Ok(&words[at - 1..]);
        }
    }
    Ok(&[])
}

/// Reads `--name`, `--name=value` or `--name value`; returns how many further words it took.
fn long_flag(m: &mut Matches, body: &str, next: Option<&String>) -> Result<usize, String> {
    if body.is_empty() || body.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: --{body}"));
    }
    let (name, given) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let flag = match m.command.flags().find(|f| f.long == name) {
        Some(f) => f,
        None if name == "help" => &HELP,
        None => return Err(format!("unknown flag: --{name}")),
    };
    let (value, taken) = match (given, flag.kind, next) {
        (Some(v), ..) => (v, 0),
        (None, Kind::Bool, _) => ("true", 0),
        (None, _, Some(v)) => (v.as_str(), 1),
        (None, _, None) => return Err(format!("flag needs an argument: --{name}")),
    };
    set(m, flag, value)?;
    Ok(taken)
}

/// Reads `-abc`, `-avalue`, `-a=value` or `-a value`; returns how many further words it took.
fn short_flags(m: &mut Matches, word: &str, next: Option<&String>) -> Result<usize, String> {
    let mut rest = &word[1..];
    while let Some(letter) = rest.chars().next() {
        let whole = rest;
        rest = &rest[letter.len_utf8()..];
        let Some(flag) = m.command.flags().find(|f| f.short == letter) else {
            if letter == 'h' {
                m.given.push((&HELP, "-h".into()));
                m.given.push((&HELP, "true".into()));
                continue;
            }
            return Err(format!("unknown shorthand flag: {} in -{whole}", quote_letter(letter)));
        };
        if let Some(value) = rest.strip_prefix('=').filter(|_| !rest.is_empty()) {
            set(m, flag, value)?;
            return Ok(0);
        }
        if flag.kind == Kind::Bool {
            set(m, flag, "true")?;
            continue;
        }
        if !rest.is_empty() {
            set(m, flag, rest)?;
            return Ok(0);
        }
        let Some(value) = next else {
            return Err(format!("flag needs an argument: {} in -{whole}", quote_letter(letter)));
        };
        set(m, flag, value)?;
        return Ok(1);
    }
    Ok(0)
}

fn quote_letter(c: char) -> String {
    if c == '\'' || c == '\\' { format!("'\\{c}'") } else { format!("'{c}'") }
}

fn set(m: &mut Matches, flag: &'static Flag, text: &str) -> Result<(), String> {
    match value::check(m.command, flag, text) {
        Ok(()) => {
            m.given.push((flag, text.to_owned()));
            Ok(())
        }
        Err(e) => {
            let name = if flag.short == ' ' {
                format!("--{}", flag.long)
            } else {
                format!("-{}, --{}", flag.short, flag.long)
            };
            Err(format!("invalid argument {} for \"{name}\" flag: {e}", wharf_template::sprintf("%q", &[text.into()])))
        }
    }
}
