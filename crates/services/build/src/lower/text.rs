//! Texts of instructions: history entries, quoting, paths, owners, ports.

use wharf_dockerfile::{Add, Form};
use wharf_oci::image::{self as oci, History};
use wharf_proto_buildkit::pb;

use super::{Lower, State};

/// The comment of history entries, by which tools know who made them.
const COMMENT: &str = "buildkit.dockerfile.v0";

pub(super) fn device(text: &str) -> pb::CDIDevice {
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    pb::CDIDevice { name: name.trim_start_matches("name=").to_owned(), optional: !rest.contains("required") }
}

/// Adds an entry to the history.
pub(super) fn commit(state: &mut State, text: String, layer: bool) {
    state.config.history.push(History {
        created_by: text,
        comment: COMMENT.to_owned(),
        empty_layer: !layer,
        ..History::default()
    });
}

pub(super) fn with_shell(state: &State, form: &Form) -> Vec<String> {
    match form {
        Form::Exec(args) => args.clone(),
        Form::Shell(text) => {
            let shell = &state.config.config.shell;
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = if shell.is_empty() { &default[..] } else { shell.as_slice() };
            shell.iter().cloned().chain([text.clone()]).collect()
        }
    }
}

/// Go's `%q` of a list.
pub(super) fn quoted(list: &[String]) -> String {
    let all: Vec<String> = list.iter().map(|t| go_quote(t)).collect();
    format!("[{}]", all.join(" "))
}

pub(super) fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `%q` of the structure, as Docker's history has it.
pub(super) fn shown_health(check: &oci::Healthcheck) -> String {
    let time = |n: i64| format!("\"{}\"", go_duration(n));
    let retries = match u32::try_from(check.retries).ok().and_then(char::from_u32) {
        Some('\0') | None => "'\\x00'".to_owned(),
        Some(c @ '\u{7}') => format!("'{}'", if c == '\u{7}' { "\\a" } else { "" }),
        Some(c) if (c as u32) < 0x20 => match c {
            '\u{8}' => "'\\b'".to_owned(),
            '\t' => "'\\t'".to_owned(),
            '\n' => "'\\n'".to_owned(),
            '\u{b}' => "'\\v'".to_owned(),
            '\u{c}' => "'\\f'".to_owned(),
            '\r' => "'\\r'".to_owned(),
            c => format!("'\\x{:02x}'", c as u32),
        },
        Some(c) => format!("'{c}'"),
    };
    format!(
        "&{{{} {} {} {} {} {retries}}}",
        quoted(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval)
    )
}

pub(super) fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", nanos as f64 / 1e6);
    }
    let seconds = nanos / 1_000_000_000;
    let rest = (nanos % 1_000_000_000) as f64 / 1e9;
    let last = (seconds % 60) as f64 + rest;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{last}s"),
        (0, m) => format!("{m}m{last}s"),
        (h, m) => format!("{h}h{m}m{last}s"),
    }
}

pub(super) fn run_text(state: &State, args: &[String]) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (key, value) in &state.args {
        let value = Lower::lookup(state, key).or_else(|| value.clone()).unwrap_or_default();
        let text = format!("{key}={value}");
        match names.iter().position(|n| n == key) {
            Some(at) => shown[at] = text,
            None => {
                names.push(key);
                shown.push(text);
            }
        }
    }
    if !shown.is_empty() {
        shown.insert(0, format!("|{}", shown.len()));
    }
    shown.extend(args.iter().cloned());
    shown.join(" ")
}

/// Whether a command line is nothing but the start of one heredoc.
pub(super) fn is_opening(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("<<") && !line.contains(char::is_whitespace)
}

pub(super) fn summary(content: &str) -> String {
    let mut lines = content.split('\n');
    let first = lines.next().unwrap_or_default();
    let mut text: String = first.chars().take(61).collect();
    if first.chars().count() > 61 || lines.any(|l| !l.is_empty()) {
        text = format!("{}...", text.chars().take(61).collect::<String>());
    }
    text
}

pub(super) fn within(base: &str, path: &str) -> String {
    if path.starts_with('/') {
        return wharf_dockerfile::ignore::clean(path);
    }
    let base = if base.is_empty() { "/" } else { base };
    wharf_dockerfile::ignore::clean(&format!("{base}/{path}"))
}

/// The destination as a path from the root; a slash at its end stays, because it means a folder.
pub(super) fn destination_path(base: &str, path: &str) -> String {
    let whole = within(base, path);
    let folder = path.ends_with('/') || path.ends_with("/.") || path == ".";
    if folder && whole != "/" { format!("{whole}/") } else { whole }
}

pub(super) fn chown_of(text: &str) -> pb::ChownOpt {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let opt = |name: &str| pb::UserOpt {
        user: Some(match name.parse::<u32>() {
            Ok(id) => pb::UserOptUser::ByID(id),
            Err(_) => pb::UserOptUser::ByName(pb::NamedUserOpt { name: name.to_owned(), input: 0 }),
        }),
    };
    // A number without a group means the same number for both.
    let group = group.map(opt).or_else(|| user.parse::<u32>().ok().map(|_| opt(user)));
    pb::ChownOpt { user: Some(opt(user)), group }
}

pub(super) fn copy_message(
    is_add: bool,
    sources: &[String],
    add: &Add,
    destination: &str,
    chown: Option<&str>,
    chmod: Option<&str>,
) -> String {
    let mut text = String::from(if is_add { "ADD" } else { "COPY" });
    if let Some(chown) = chown {
        text.push_str(&format!(" --chown={chown}"));
    }
    if let Some(chmod) = chmod {
        text.push_str(&format!(" --chmod={chmod}"));
    }
    if add.link {
        text.push_str(" --link");
    }
    for source in sources {
        text.push(' ');
        text.push_str(source);
    }
    for file in &add.files {
        text.push_str(&format!(" <<{}", file.name));
    }
    text.push(' ');
    text.push_str(destination);
    text
}

/// `80`, `80/udp`, `80-82` as single ports with their protocol.
pub(super) fn port_range(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let wrong = || format!("invalid containerPort: {text}");
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |t: &str| t.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(wrong());
    }
    Ok((first..=last).map(|p| format!("{p}/{protocol}")).collect())
}
