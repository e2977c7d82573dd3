//! Help texts, from the table.

use std::fmt::Write;

use crate::table::{self, Action, Command, Flag, Group};

/// Columns after which help texts wrap. Docker wraps at the terminal's width; a fixed one reads the same everywhere.
const WIDTH: usize = 80;

/// Returns the help of a command.
pub fn help(command: &Command) -> String {
    let mut out = format!("Usage:  {}\n\n{}\n", usage(command), command.summary);
    if !command.aliases.is_empty() {
        let mut names: Vec<String> = command.aliases.iter().map(|a| format!("docker {a}")).collect();
        names.push(command.full_name());
        names.sort();
        names.dedup();
        // The management form comes first.
        names.sort_by_key(|n| std::cmp::Reverse(n.split(' ').count()));
        let _ = write!(out, "\nAliases:\n  {}\n", names.join(", "));
    }
    let mut children = table::children(command.path);
    children.retain(|c| !c.hidden);
    if command.path.is_empty() {
        let heads = [
            ("Common Commands", Group::Common),
            ("Management Commands", Group::Management),
            ("Swarm Commands", Group::Swarm),
            ("Commands", Group::Other),
        ];
        for (title, group) in heads {
            let of_group: Vec<_> = children.iter().copied().filter(|c| c.group == group).collect();
            list(&mut out, title, &of_group);
        }
    } else {
        let (groups, plain): (Vec<_>, Vec<_>) =
            children.iter().copied().partition(|c| matches!(c.action, Action::Group));
        list(&mut out, "Management Commands", &groups);
        list(&mut out, "Commands", &plain);
    }
    options(&mut out, command);
    if let Action::Group = command.action {
        let name = command.full_name();
        let _ = write!(out, "\nRun '{name} COMMAND --help' for more information on a command.\n");
    }
    out
}

fn usage(command: &Command) -> String {
    format!("{} {}", command.full_name(), command.usage).trim_end().to_owned()
}

fn list(out: &mut String, title: &str, commands: &[&Command]) {
    if commands.is_empty() {
        return;
    }
    let _ = write!(out, "\n{title}:\n");
    for c in commands {
        let word = c.path.rsplit(' ').next().unwrap_or_default();
        let _ = writeln!(out, "  {word:<11} {}", c.summary);
    }
}

fn options(out: &mut String, command: &Command) {
    let mut flags: Vec<&Flag> = command.flags().filter(|f| !f.hidden).collect();
    if flags.is_empty() {
        return;
    }
    flags.sort_by_key(|f| f.long);
    let heads: Vec<String> = flags.iter().map(|f| head(f)).collect();
    let column = heads.iter().map(|h| h.chars().count()).max().unwrap_or(0) + 3;
    let _ = write!(out, "\n{}:\n", if command.path.is_empty() { "Global Options" } else { "Options" });
    for (flag, head) in flags.iter().zip(&heads) {
        let text = wrap(&description(flag), WIDTH.saturating_sub(column).max(30), column);
        let _ = writeln!(out, "{head:<column$}{text}");
    }
}

fn head(flag: &Flag) -> String {
    let short = if flag.short == ' ' { "    ".into() } else { format!("-{}, ", flag.short) };
    let word = if flag.kind.word().is_empty() { String::new() } else { format!(" {}", flag.kind.word()) };
    format!("  {short}--{}{word}", flag.long)
}

fn description(flag: &Flag) -> String {
    use crate::table::Kind;
    let home = |text: &str| text.replace("$HOME", &std::env::var("HOME").unwrap_or_default());
    match (flag.kind, flag.default) {
        (_, "") => flag.help.to_owned(),
        (Kind::Text | Kind::PemFile, d) => format!("{} (default \"{}\")", flag.help, home(d)),
        (_, d) => format!("{} (default {d})", flag.help),
    }
}

fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let n = word.chars().count();
        if column > 0 && column + 1 + n > width {
            let _ = write!(out, "\n{}", " ".repeat(indent));
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += n;
    }
    out
}
