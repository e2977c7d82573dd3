//! Commands that move containers from one state to another.

use wharf_api_client::{Query, Request};
use wharf_api_types::ContainerWaitResponse;

use super::path;
use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::{Shell, each};

fn stop_query(m: &Matches) -> Result<Query, Exit> {
    if m.changed("time") && m.changed("timeout") {
        return Err(Exit::new("conflicting options: cannot specify both --timeout and --time"));
    }
    let mut query = Query::new().with_some("signal", m.text("signal"));
    for flag in ["time", "timeout"] {
        if m.changed(flag) {
            query = query.with("t", &m.int(flag).to_string());
        }
    }
    Ok(query)
}

/// `docker stop`.
pub fn stop(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (query, client) = (stop_query(m)?, shell.client()?);
    each(shell, &m.args, true, |name| {
        client.call(Request::post(path("containers", name, "/stop")).query(query.clone()))?;
        Ok(())
    })
}

/// `docker restart`.
pub fn restart(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (query, client) = (stop_query(m)?, shell.client()?);
    each(shell, &m.args, true, |name| {
        client.call(Request::post(path("containers", name, "/restart")).query(query.clone()))?;
        Ok(())
    })
}

/// `docker kill`.
pub fn kill(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (query, client) = (Query::new().with_some("signal", m.text("signal")), shell.client()?);
    each(shell, &m.args, true, |name| {
        client.call(Request::post(path("containers", name, "/kill")).query(query.clone()))?;
        Ok(())
    })
}

/// `docker pause`.
pub fn pause(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    each(shell, &m.args, true, |name| {
        client.call(Request::post(path("containers", name, "/pause")))?;
        Ok(())
    })
}

/// `docker unpause`.
pub fn unpause(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    each(shell, &m.args, true, |name| {
        client.call(Request::post(path("containers", name, "/unpause")))?;
        Ok(())
    })
}

/// `docker rm`. With `--force`, a container that is not there is told of but is no failure.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let force = m.bool("force");
    let query =
        Query::new().with_flag("v", m.bool("volumes")).with_flag("link", m.bool("link")).with_flag("force", force);
    let mut missing = Vec::new();
    let mut failures = Vec::new();
    for name in &m.args {
        let name = name.trim_matches('/');
        if name.is_empty() {
            failures.push("container name cannot be empty".to_owned());
            continue;
        }
        match client.call(Request::delete(path("containers", name, "")).query(query.clone())) {
            Ok(_) => shell.line(name)?,
            Err(e) if force && e.status() == Some(404) => missing.push(e.to_string()),
            Err(e) => failures.push(e.to_string()),
        }
    }
    for m in missing {
        shell.warn(&m);
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(failures.join("\n"))) }
}

/// `docker rename`.
pub fn rename(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (old, new) = (m.args[0].trim(), m.args[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Exit::new("Error: Neither old nor new names may be empty"));
    }
    let query = Query::new().with("name", new);
    let renamed = shell.client()?.call(Request::post(path("containers", old, "/rename")).query(query));
    renamed.map(drop).map_err(|e| Exit::new(format!("{e}\nError: failed to rename container named {old}")))
}

/// `docker wait`: prints each container's exit code once it has ended.
pub fn wait(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    each(shell, &m.args, false, |name| {
        let answer: ContainerWaitResponse = client.call(super::run::wait_request(name, ""))?.parse()?;
        shell.line(&answer.status_code.to_string())
    })
}
