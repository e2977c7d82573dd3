//! `docker completion`, and the hidden command that the scripts call for words to offer.

use std::fmt::Write;

use wharf_api_client::{Query, Request};
use wharf_api_types::{ContainerSummary, ImageSummary, Network, VolumeList};

use crate::exit::Exit;
use crate::parse::{self, Matches};
use crate::shell::Shell;
use crate::table::{self, Action, Command, Kind};

/// `docker completion bash`.
pub fn bash(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    shell.print(BASH)
}

/// `docker completion zsh`.
pub fn zsh(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    shell.print(ZSH)
}

/// `docker completion fish`.
pub fn fish(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    shell.print(FISH)
}

const BASH: &str = r#"# bash completion V2 for docker                               -*- shell-script -*-

__docker_words() {
    local line directive=4
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) directive=${line#:} ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if ((directive == 0)); then
        compopt -o default 2>/dev/null
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F __docker_words docker
"#;

const ZSH: &str = r#"#compdef docker

_docker() {
    local line directive=4
    local -a found
    while IFS= read -r line; do
        case $line in
            :*) directive=${line#:} ;;
            *) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#found} )); then
        _describe docker found
    elif (( directive == 0 )); then
        _files
    fi
}

if [ "$funcstack[1]" = "_docker" ]; then
    _docker
else
    compdef _docker docker
fi
"#;

const FISH: &str = r#"# fish completion for docker

function __docker_words
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | string match -v -r '^:'
end

complete -c docker -f -a '(__docker_words)'
"#;

/// Prints the words that may stand in the place of the last of `words`, each with a description after a tab, then a
/// line that says whether files may stand there too: `:0` if so, `:4` if not (cobra's directives).
///
/// # Errors
/// Those of writing.
pub fn complete(words: &[String], describe: bool) -> Result<(), Exit> {
    let (typed, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let (command, rest) = resolve(before);
    let mut found: Vec<(String, &str)> = Vec::new();
    let mut files = false;
    let awaited = rest.last().and_then(|w| awaits_value(command, w));
    if let Some(flag) = awaited {
        files = matches!(flag, "env-file" | "label-file" | "cidfile" | "output" | "input" | "volume" | "config");
        if matches!(flag, "network" | "net") {
            found.extend(names("network", typed).into_iter().map(|n| (n, "")));
        }
        if matches!(flag, "volumes-from" | "link") {
            found.extend(names("container", typed).into_iter().map(|n| (n, "")));
        }
    } else if typed.starts_with('-') {
        found.extend(command.flags().filter(|f| !f.hidden).map(|f| (format!("--{}", f.long), f.help)));
        found.push(("--help".into(), "Print this text"));
    } else if let Action::Group = command.action {
        let children = table::children(command.path);
        found.extend(children.iter().filter(|c| !c.hidden).map(|c| (last_word(c).to_owned(), c.summary)));
    } else {
        let arguments = rest.iter().filter(|w| !w.starts_with('-')).count();
        match subject(command, arguments) {
            "" => files = true,
            kind => found.extend(names(kind, typed).into_iter().map(|n| (n, ""))),
        }
    }
    found.retain(|f| f.0.starts_with(typed));
    found.sort();
    found.dedup();
    let mut out = String::new();
    for (word, help) in found {
        let _ = if describe && !help.is_empty() { writeln!(out, "{word}\t{help}") } else { writeln!(out, "{word}") };
    }
    let _ = writeln!(out, ":{}", if files { 0 } else { 4 });
    crate::print(&out)
}

fn last_word(command: &Command) -> &str {
    command.path.rsplit(' ').next().unwrap_or_default()
}

/// Follows the words to the command they name; returns it with the words after it.
fn resolve(words: &[String]) -> (&'static Command, &[String]) {
    let mut path = String::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if word.starts_with('-') && path.is_empty() {
            // A flag of the top level; its value, if it takes one, follows.
            let takes = table::find("").and_then(|c| awaits_value(c, word)).is_some();
            rest = if takes { after.get(1..).unwrap_or_default() } else { after };
            continue;
        }
        match table::find(format!("{path} {word}").trim_start()) {
            Some(c) => path = c.path.to_owned(),
            None => break,
        }
        rest = after;
    }
    let top = || table::commands().find(|c| c.path.is_empty());
    match table::find(&path).or_else(top) {
        Some(c) => (c, rest),
        // The table has a top level.
        None => unreachable!("no top level"),
    }
}

/// Returns the flag a word is, if its value is the next word.
fn awaits_value(command: &'static Command, word: &str) -> Option<&'static str> {
    let flag = match word.strip_prefix("--") {
        Some(long) => command.flags().find(|f| f.long == long)?,
        None => {
            let letter = word.strip_prefix('-')?.chars().last()?;
            command.flags().find(|f| f.short == letter)?
        }
    };
    (flag.kind != Kind::Bool).then_some(flag.long)
}

/// Returns what kind of object the next argument of a command names; empty for files.
fn subject(command: &Command, position: usize) -> &'static str {
    let (above, last) = command.path.rsplit_once(' ').unwrap_or(("", command.path));
    match (above, last) {
        ("" | "container", "run" | "create") if position == 0 => "image",
        ("" | "container", "exec" | "attach" | "logs" | "port" | "top" | "rename" | "commit" | "diff" | "export")
            if position == 0 =>
        {
            "container"
        }
        (
            "" | "container",
            "start" | "stop" | "restart" | "kill" | "rm" | "wait" | "pause" | "unpause" | "stats" | "update",
        )
        | ("container", "inspect") => "container",
        ("" | "image", "rmi" | "save" | "history" | "tag" | "push" | "pull") | ("image", "rm" | "inspect") => "image",
        ("", "inspect") => "container",
        ("network", "rm" | "inspect") => "network",
        ("network", "connect" | "disconnect") if position == 0 => "network",
        ("network", "connect" | "disconnect") => "container",
        ("volume", "rm" | "inspect") => "volume",
        ("context", "rm" | "inspect") => "context",
        ("context", "use" | "export" | "update") if position == 0 => "context",
        _ => "",
    }
}

/// Asks the daemon for names; none where it cannot be asked. Ids are offered to who has begun to type one: beside names
/// they would only be noise.
fn names(kind: &str, typed: &str) -> Vec<String> {
    let Some(top) = table::find("") else { return Vec::new() };
    let Ok(parse::Request::Run(globals, _)) = parse::parse(&["version".into()]) else { return Vec::new() };
    debug_assert_eq!(globals.command.path, top.path);
    let Ok(shell) = Shell::new(&globals) else { return Vec::new() };
    let Ok(client) = shell.client() else { return Vec::new() };
    if kind == "context" {
        return super::context::names(&shell);
    }
    let by_id = !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    let id = |id: &str| Some(id.trim_start_matches("sha256:").chars().take(12).collect()).filter(|_| by_id);
    let ask = |path: &str, query: Query| client.call(Request::get(path).query(query)).ok();
    match kind {
        "container" => ask("/containers/json", Query::new().with("all", "1"))
            .and_then(|r| r.parse::<Vec<ContainerSummary>>().ok())
            .map(|all| {
                let own = |n: String| n.trim_start_matches('/').to_owned();
                all.into_iter().flat_map(|c| id(&c.id).into_iter().chain(c.names.into_iter().map(own))).collect()
            }),
        "image" => ask("/images/json", Query::new())
            .and_then(|r| r.parse::<Vec<ImageSummary>>().ok())
            .map(|all| all.into_iter().flat_map(|i| id(&i.id).into_iter().chain(i.repo_tags)).collect()),
        "volume" => ask("/volumes", Query::new())
            .and_then(|r| r.parse::<VolumeList>().ok())
            .map(|all| all.volumes.into_iter().map(|v| v.name).collect()),
        _ => ask("/networks", Query::new())
            .and_then(|r| r.parse::<Vec<Network>>().ok())
            .map(|all| all.into_iter().flat_map(|n| id(&n.id).into_iter().chain([n.name])).collect()),
    }
    .unwrap_or_default()
}
