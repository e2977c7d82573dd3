//! `docker exec`.

use wharf_api_client::Request;
use wharf_api_types::go::Pair;
use wharf_api_types::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdResponse};

use crate::create::environment;
use crate::exit::Exit;
use crate::parse::Matches;
use crate::session::{Ended, Session};
use crate::shell::Shell;
use crate::signals::Signals;
use crate::terminal::{self, DetachKeys};

/// `docker exec`.
pub fn exec(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let detach = m.bool("detach");
    let tty = m.bool("tty");
    let stdin = m.bool("interactive") && !detach;
    terminal::check(stdin, tty)?;
    let env = environment::variables(&m.list("env-file"), &m.list("env"))?;
    let keys = match m.text("detach-keys") {
        "" => shell.config().detach_keys.clone(),
        keys => keys.to_owned(),
    };
    let size = if tty { Some(terminal::size()).filter(|s| *s != [0, 0]) } else { None };
    let console_size = size.map(Pair);
    let request = ExecCreateRequest {
        user: m.text("user").to_owned(),
        privileged: m.bool("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: keys.clone(),
        env: if env.is_empty() { None } else { Some(env) },
        working_dir: m.text("workdir").to_owned(),
        cmd: Some(m.args[1..].to_vec()),
    };
    let json = |v: serde_json::Result<Vec<u8>>| v.map_err(|e| Exit::new(e.to_string()));
    let client = shell.client()?;
    let body = json(serde_json::to_vec(&request))?;
    let made: IdResponse =
        client.call(Request::post(super::path("containers", m.first(), "/exec")).json(body))?.parse()?;
    if made.id.is_empty() {
        return Err(Exit::new("exec ID empty"));
    }
    let path = format!("/exec/{}", made.id);
    let start = ExecStartRequest { detach, tty, console_size };
    let body = json(serde_json::to_vec(&start))?;
    let start = Request::post(format!("{path}/start")).json(body);
    if detach {
        client.call(start)?;
        return Ok(());
    }
    let signals = if tty && terminal::stdout_is() { Some(Signals::catch(&[libc::SIGWINCH])?) } else { None };
    let stream = client.hijack(start)?;
    let keys = if tty && stdin { Some(DetachKeys::parse(&keys)?) } else { None };
    let mut session = Session { client, path: path.clone(), stdin, tty, signals, keys };
    if tty && stdin {
        session.resize();
    }
    if session.join(stream.connection)? == Ended::Detached {
        return Err(Exit::new("read escape sequence"));
    }
    let state: ExecInspect = client.call(Request::get(format!("{path}/json")))?.parse()?;
    match state.exit_code {
        None | Some(0) => Ok(()),
        Some(code) => Err(Exit::silent(u8::try_from(code & 0xff).unwrap_or(1))),
    }
}
