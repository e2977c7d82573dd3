//! `docker start` and `docker attach`.

use wharf_api_client::{Client, Error, Query, Request};
use wharf_api_types::ContainerInspect;

use super::run;
use crate::exit::Exit;
use crate::parse::Matches;
use crate::session::{Ended, Session};
use crate::shell::{Shell, each};
use crate::signals::Signals;
use crate::terminal::{self, DetachKeys};

fn detach_keys(shell: &Shell, m: &Matches) -> String {
    match m.text("detach-keys") {
        "" => shell.config().detach_keys.clone(),
        keys => keys.to_owned(),
    }
}

fn inspect(shell: &Shell, name: &str) -> Result<ContainerInspect, Exit> {
    Ok(shell.client()?.call(Request::get(super::path("containers", name, "/json")))?.parse()?)
}

/// `docker start`.
pub fn start(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let flags = ["checkpoint", "checkpoint-dir"].into_iter().filter(|flag| m.changed(flag));
    let flags: Vec<String> = flags.map(|flag| format!("\"--{flag}\"")).collect();
    if !flags.is_empty() {
        super::checkpoint::check_experimental(shell, &flags)?;
    }
    if m.bool("attach") || m.bool("interactive") {
        if m.args.len() > 1 {
            return Err(Exit::new("you cannot start and attach multiple containers at once"));
        }
        return start_attached(shell, m);
    }
    let client = shell.client()?;
    if !m.text("checkpoint").is_empty() {
        if m.args.len() > 1 {
            return Err(Exit::new("you cannot restore multiple containers at once"));
        }
        return Ok(start_from(client, m.first(), m)?);
    }
    let mut failed = Vec::new();
    let result = each(shell, &m.args, true, |name| {
        run::start(client, name, "").map_err(|e| {
            failed.push(name.to_owned());
            e.into()
        })
    });
    match result {
        Err(e) if !failed.is_empty() => {
            Err(Exit::new(format!("{}\nError: failed to start containers: {}", e.message, failed.join(", "))))
        }
        result => result,
    }
}

/// Starts a container, from a checkpoint if one is named.
fn start_from(client: &Client, id: &str, m: &Matches) -> Result<(), Error> {
    let query = Query::new().with_some("checkpoint", m.text("checkpoint"));
    let query = query.with_some("checkpoint-dir", m.text("checkpoint-dir"));
    client.call(Request::post(super::path("containers", id, "/start")).query(query)).map(drop)
}

fn start_attached(shell: &Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let container = inspect(shell, m.first())?;
    let id = container.id.as_str();
    let config = container.config.clone();
    let stdin = m.bool("interactive") && config.open_stdin;
    let keys = detach_keys(shell, m);
    let signals = if config.tty {
        if terminal::stdout_is() { Some(Signals::catch(&[libc::SIGWINCH])?) } else { None }
    } else {
        Some(Signals::catch_all()?)
    };
    let stream = client.hijack(run::attach_request(id, stdin, true, true, &keys))?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait = run::open_wait(client, id, condition)?;
    start_from(client, id, m)
        .map_err(|e| Exit::new(format!("{e}\nError: failed to start containers: {}", m.first())))?;
    let keys = if config.tty && stdin { Some(DetachKeys::parse(&keys)?) } else { None };
    let mut session = Session { client, path: format!("/containers/{id}"), stdin, tty: config.tty, signals, keys };
    if config.tty {
        session.resize();
    }
    if session.join(stream.connection)? == Ended::Detached {
        return Ok(());
    }
    match run::wait_for_exit(&session, wait)? {
        0 => Ok(()),
        code => Err(Exit::silent(code)),
    }
}

/// `docker attach`.
pub fn attach(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let container = inspect(shell, m.first())?;
    let state = container.state.clone();
    if !state.running {
        return Err(Exit::new("You cannot attach to a stopped container, start it first"));
    }
    if state.paused {
        return Err(Exit::new("You cannot attach to a paused container, unpause it first"));
    }
    if state.restarting {
        return Err(Exit::new("You cannot attach to a restarting container, wait until it is running"));
    }
    let config = container.config.clone();
    let stdin = !m.bool("no-stdin") && config.open_stdin;
    terminal::check(stdin, config.tty)?;
    let keys = detach_keys(shell, m);
    let id = container.id.as_str();
    let signals = match (config.tty, m.bool("sig-proxy")) {
        (true, _) if terminal::stdout_is() => Some(Signals::catch(&[libc::SIGWINCH])?),
        (false, true) => Some(Signals::catch_all()?),
        _ => None,
    };
    // Without a condition: the wait is for a container that already runs.
    let wait = run::open_wait(client, id, "")?;
    let stream = client.hijack(run::attach_request(id, stdin, true, true, &keys))?;
    let keys = if config.tty && stdin { Some(DetachKeys::parse(&keys)?) } else { None };
    let mut session = Session { client, path: format!("/containers/{id}"), stdin, tty: config.tty, signals, keys };
    if config.tty {
        session.resize();
    }
    if session.join(stream.connection)? == Ended::Detached {
        return Err(Exit::new("read escape sequence"));
    }
    match run::wait_for_exit(&session, wait)? {
        0 => Ok(()),
        code => Err(Exit::silent(code)),
    }
}
