//! `docker checkpoint`, which a daemon has in experimental mode only.

use wharf_api_client::{Query, Request};
use wharf_api_types::{CheckpointCreateRequest, CheckpointSummary};
use wharf_template::Value;

use super::path;
use crate::exit::Exit;
use crate::format::Listing;
use crate::format::row::Row;
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] = &[("Name", "CHECKPOINT NAME")];

/// Refuses what the daemon has in experimental mode only: `what` are names of flags in quotes, or of a command.
pub(super) fn check_experimental(shell: &Shell, what: &[String]) -> Result<(), Exit> {
    let reply = shell.client()?.call(Request::get("/_ping"))?;
    if reply.head.header("docker-experimental") == Some("true") {
        return Ok(());
    }
    let lines = what
        .iter()
        .map(|what| format!("{what} is only supported on a Docker daemon with experimental features enabled"));
    Err(Exit::new(lines.collect::<Vec<_>>().join("\n")))
}

fn check(shell: &Shell, m: &Matches) -> Result<(), Exit> {
    check_experimental(shell, &[m.command.full_name()])
}

fn at(m: &Matches) -> Query {
    Query::new().with_some("dir", m.text("checkpoint-dir"))
}

/// `docker checkpoint create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    check(shell, m)?;
    let request = CheckpointCreateRequest {
        checkpoint_id: m.args[1].clone(),
        checkpoint_dir: m.text("checkpoint-dir").to_owned(),
        exit: !m.bool("leave-running"),
    };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    shell.client()?.call(Request::post(path("containers", m.first(), "/checkpoints")).json(body))?;
    shell.line(&m.args[1])
}

/// `docker checkpoint ls`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    check(shell, m)?;
    let request = Request::get(path("containers", m.first(), "/checkpoints")).query(at(m));
    let found: Vec<CheckpointSummary> = shell.client()?.call(request)?.parse()?;
    let row = |c: &CheckpointSummary| Row::new("*checkpoint.checkpointContext").with("Name", c.name.as_str()).value();
    let rows: Vec<Value> = found.iter().map(row).collect();
    shell.print(&Listing { format: "", table: "{{.Name}}", headers: HEADERS }.render(&rows)?)
}

/// `docker checkpoint rm`.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    check(shell, m)?;
    let rest = path("checkpoints", &m.args[1], "");
    let request = Request::delete(path("containers", m.first(), &rest)).query(at(m));
    shell.client()?.call(request).map(drop).map_err(Exit::from)
}
