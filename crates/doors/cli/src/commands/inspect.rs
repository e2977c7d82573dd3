//! `docker inspect` and its forms by kind.

use std::collections::BTreeSet;

use wharf_api_client::{Client, Error, Query, Request};
use wharf_template::{FunctionSet, MissingKey, Template};

use crate::exit::Exit;
use crate::format::json;
use crate::parse::Matches;
use crate::shape::Json;
use crate::shell::Shell;

/// The kinds `docker inspect` searches, in its order, with where they are asked for.
const SEARCHED: &[(&str, &str)] = &[
    ("container", "/containers/{}/json"),
    ("image", "/images/{}/json"),
    ("network", "/networks/{}"),
    ("volume", "/volumes/{}"),
    ("service", "/services/{}"),
    ("task", "/tasks/{}"),
    ("node", "/nodes/{}"),
    ("plugin", "/plugins/{}/json"),
    ("secret", "/secrets/{}"),
    ("config", "/configs/{}"),
];

fn ask(client: &Client, kind: (&str, &str), name: &str, query: &Query) -> Result<String, Error> {
    let path = kind.1.replace("{}", &wharf_api_client::escape_path(name));
    let reply = client.call(Request::get(path).query(query.clone()))?;
    String::from_utf8(reply.body).map_err(|e| Error::Answer(e.to_string()))
}

/// `docker inspect`.
pub fn any(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let wanted = m.text("type");
    if m.changed("type") && wanted.is_empty() {
        return Err(Exit::new(
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
        ));
    }
    if !wanted.is_empty() && !SEARCHED.iter().any(|k| k.0 == wanted) {
        let names: BTreeSet<String> = SEARCHED.iter().map(|k| format!("\"{}\"", k.0)).collect();
        let names: Vec<String> = names.into_iter().collect();
        return Err(Exit::new(format!("unknown type: \"{wanted}\": must be one of {}", names.join(", "))));
    }
    let client = shell.client()?;
    let size = m.bool("size");
    print(shell, m, |name| {
        for kind in SEARCHED.iter().filter(|k| wanted.is_empty() || k.0 == wanted) {
            let query = if kind.0 == "container" { Query::new().with_flag("size", size) } else { Query::new() };
            match ask(client, *kind, name, &query) {
                Ok(text) => return Ok(text),
                Err(e) if !wanted.is_empty() => return Err(e.into()),
                // Not there, or swarm mode and plugins are not there at all.
                Err(Error::Daemon { status: 404 | 501 | 503, .. }) => {}
                // Volume names that are none are no error of the search.
                Err(Error::Daemon { status: 400 | 500, .. }) if kind.0 != "container" && kind.0 != "image" => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(Exit::new(format!("Error: No such object: {name}")))
    })
}

fn of_kind(shell: &Shell, m: &Matches, kind: usize, query: Query) -> Result<(), Exit> {
    let client = shell.client()?;
    print(shell, m, |name| Ok(ask(client, SEARCHED[kind], name, &query)?))
}

/// `docker container inspect`.
pub fn container(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    of_kind(shell, m, 0, Query::new().with_flag("size", m.bool("size")))
}

/// `docker image inspect`.
pub fn image(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = match m.text("platform") {
        "" => Query::new(),
        p => Query::new().with("platform", &super::transfer::platform_json(p)?),
    };
    of_kind(shell, m, 1, query)
}

/// `docker network inspect`.
pub fn network(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new();
    let query = if m.bool("verbose") { query.with("verbose", "true") } else { query };
    of_kind(shell, m, 2, query)
}

/// `docker volume inspect`.
pub fn volume(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    of_kind(shell, m, 3, Query::new())
}

/// Prints what `find` returns for each name: as one indented list, or through the user's template.
///
/// Names that were not found are told after the others were printed.
///
/// # Errors
/// Those of `find`, and of the template: status 64 where it cannot be parsed.
pub fn print(shell: &Shell, m: &Matches, mut find: impl FnMut(&str) -> Result<String, Exit>) -> Result<(), Exit> {
    let format = m.text("format");
    let wrong = |e: &dyn std::fmt::Display, code| Exit { message: format!("template parsing error: {e}"), code };
    let template = match format {
        "" | "json" => None,
        f => Some(Template::parse("", f).map_err(|e| wrong(&e, 64))?),
    };
    let mut failures = Vec::new();
    let mut found = Vec::new();
    let mut out = String::new();
    let mut broken = None;
    for name in &m.args {
        let text = match find(name) {
            Ok(text) => text,
            Err(e) => {
                failures.push(e.message);
                continue;
            }
        };
        let Some(template) = &template else {
            found.push(text);
            continue;
        };
        match execute(template, &text) {
            Ok(line) => out.push_str(&(line + "\n")),
            Err(e) => {
                broken = Some(wrong(&e, 1));
                break;
            }
        }
    }
    match format {
        "" => out = format!("{}\n", json::indent(&format!("[{}]", found.join(",")))),
        "json" => out = format!("[{}]\n", found.iter().map(|t| json::compact(t)).collect::<Vec<_>>().join(",")),
        // As Docker, which ends the output of nothing with a line's end too.
        _ if out.is_empty() => out.push('\n'),
        _ => {}
    }
    shell.print(&out)?;
    if let Some(e) = broken {
        failures.push(e.message);
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(failures.join("\n"))) }
}

/// Executes over the typed form and, where that fails, over plain maps.
fn execute(template: &Template, text: &str) -> Result<String, wharf_template::ExecuteError> {
    // The daemon's answer was JSON when it was asked for; what is none is an empty object.
    let parsed: Json = serde_json::from_str(text).unwrap_or(Json::Object(Vec::new()));
    let mut out = String::new();
    if template.execute(&parsed.typed("struct"), FunctionSet::Docker, MissingKey::NoValue, &mut out).is_ok() {
        return Ok(out);
    }
    out.clear();
    template.execute(&parsed.plain(), FunctionSet::Docker, MissingKey::Error, &mut out).map(|()| out)
}
