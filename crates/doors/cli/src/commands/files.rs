//! `docker diff`, `docker export` and `docker commit`.

use wharf_api_client::{Query, Request};
use wharf_api_types::{FilesystemChange, IdResponse};

use super::{path, transfer};
use crate::exit::Exit;
use crate::parse::Matches;
use crate::reference;
use crate::shell::Shell;
use crate::terminal;

/// `docker diff`.
pub fn diff(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if m.first().is_empty() {
        return Err(Exit::new("Container name cannot be empty"));
    }
    let reply = shell.client()?.call(Request::get(path("containers", m.first(), "/changes")))?;
    let changes: Vec<FilesystemChange> = reply.parse::<Option<_>>()?.unwrap_or_default();
    let mut out = String::new();
    for c in changes {
        let kind = match c.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        out.push_str(&format!("{kind} {}\n", c.path));
    }
    shell.print(&out)
}

/// `docker export`.
pub fn export(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let output = m.text("output");
    if output.is_empty() && terminal::stdout_is() {
        return Err(Exit::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    transfer::check_output(output).map_err(|e| e.context("failed to export container: "))?;
    let mut answer = shell.client()?.open(Request::get(path("containers", m.first(), "/export")))?;
    transfer::write_output(&mut answer, output)
}

/// `docker commit`.
pub fn commit(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (mut repository, mut tag) = (String::new(), String::new());
    if let Some(target) = m.args.get(1).filter(|t| !t.is_empty()) {
        let r = reference::parse(target).map_err(Exit::new)?;
        if r.digest.is_some() {
            return Err(Exit::new("refusing to create a tag with a digest reference"));
        }
        tag = r.tag.clone().unwrap_or_else(|| "latest".into());
        repository = r.full_name();
    }
    let mut query = Query::new().with_some("author", m.text("author"));
    for change in m.list("change") {
        query = query.with("changes", change);
    }
    query = query
        .with_some("comment", m.text("message"))
        .with("container", m.first())
        .with_some("repo", &repository)
        .with_some("tag", &tag);
    if !m.bool("pause") {
        query = query.with("pause", "0");
    }
    let made: IdResponse = shell.client()?.call(Request::post("/commit").query(query))?.parse()?;
    shell.line(&made.id)
}
