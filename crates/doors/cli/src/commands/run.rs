//! `docker run` and `docker create`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use wharf_api_client::{Client, Error, Pending, Query, Request, Streamed};
use wharf_api_types::go::Pair;
use wharf_api_types::{ContainerCreateRequest, ContainerCreateResponse, ContainerWaitResponse};

use crate::commands::transfer;
use crate::create;
use crate::exit::{Exit, go_text};
use crate::parse::Matches;
use crate::platform;
use crate::session::{Ended, Session};
use crate::shell::Shell;
use crate::signals::Signals;
use crate::terminal::{self, DetachKeys};

/// Puts Docker's words around a failure of `run` or `create`.
fn with_help(e: Exit, command: &str, code: u8) -> Exit {
    let message = e.message;
    Exit { message: format!("docker: {message}\n\nRun 'docker {command} --help' for more information"), code }
}

/// The status of a container that could not be made or started: 127 where the program is not there, 126 where it
/// cannot be run. Docker's daemon says which only by its text.
fn failed(e: Exit) -> Exit {
    let has = |t: &str| e.message.contains(t);
    let code = if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        125
    };
    with_help(e, "run", code)
}

/// `docker create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    check_pull(m).map_err(|e| with_help(e, "create", 125))?;
    let body = create::request(m).map_err(|e| with_help(e, "create", 125))?;
    let id = make(shell, m, body)?;
    shell.line(&id)
}

/// `docker run`.
pub fn run(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    check_pull(m).map_err(|e| with_help(e, "run", 125))?;
    let mut body = create::request(m).map_err(|e| with_help(e, "run", 125))?;
    let detach = m.bool("detach");
    let config = &mut body.config;
    if detach {
        if m.changed("attach") {
            return Err(Exit::new("conflicting options: cannot specify both --attach and --detach"));
        }
        (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
        config.stdin_once = false;
    } else {
        terminal::check(config.attach_stdin, config.tty)?;
    }
    if config.tty
        && let Some(host) = &mut body.host_config
    {
        host.console_size = Pair(terminal::size());
    }
    let attached = Attached {
        stdin: body.config.attach_stdin,
        stdout: body.config.attach_stdout,
        stderr: body.config.attach_stderr,
        tty: body.config.tty,
        remove: m.bool("rm"),
    };
    let keys = match m.text("detach-keys") {
        "" => shell.config().detach_keys.clone(),
        keys => keys.to_owned(),
    };
    let id = make(shell, m, body).map_err(failed)?;
    let client = shell.client()?;
    if !attached.stdout && !attached.stderr && !attached.stdin {
        start(client, &id, "").map_err(|e| failed(e.into()))?;
        return shell.line(&id);
    }
    if !attached.stdout && !attached.stderr {
        shell.line(&id)?;
    }
    let signals = attached.signals(m.bool("sig-proxy"))?;
    attached.run(client, &id, &keys, signals)
}

/// Which streams are attached, and what becomes of the container.
struct Attached {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    remove: bool,
}

impl Attached {
    fn signals(&self, proxy: bool) -> Result<Option<Signals>, Exit> {
        match (self.tty, proxy) {
            (true, _) if terminal::stdout_is() => Signals::catch(&[libc::SIGWINCH]).map(Some),
            (false, true) => Signals::catch_all().map(Some),
            _ => Ok(None),
        }
    }

    fn run(&self, client: &Client, id: &str, keys: &str, signals: Option<Signals>) -> Result<(), Exit> {
        // Both requests are under way before either answer is read; the container starts after both.
        let attach = client.send(attach_request(id, self.stdin, self.stdout, self.stderr, keys), true);
        let wait = client.send(wait_request(id, if self.remove { "removed" } else { "next-exit" }), false)?;
        let stream = client.take_over(attach?).map_err(|e| failed(e.into()))?;
        let wait = client.receive(wait)?;
        if let Err(e) = start(client, id, "") {
            drop(stream);
            if self.remove {
                // Its end is the container's removal; what it says is of no use here.
                let _ = exit_code(client, wait);
            }
            return Err(failed(e.into()));
        }
        let keys = if self.tty && self.stdin { Some(DetachKeys::parse(keys)?) } else { None };
        let mut session =
            Session { client, path: format!("/containers/{id}"), stdin: self.stdin, tty: self.tty, signals, keys };
        if self.tty {
            session.resize();
        }
        if session.join(stream.connection)? == Ended::Detached {
            return Ok(());
        }
        match wait_for_exit(&session, wait)? {
            0 => Ok(()),
            code => Err(Exit::silent(code)),
        }
    }
}

/// Waits for a container's end while signals are still passed on; returns its exit code.
///
/// # Errors
/// Those of the connection.
pub fn wait_for_exit(session: &Session<'_>, wait: Streamed) -> Result<u8, Exit> {
    if let Some(signals) = &session.signals {
        loop {
            if !wait.connection().buffered().is_empty() {
                break;
            }
            let mut fds = [
                PollFd::from_borrowed_fd(wait.connection().as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.descriptor().as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(std::io::Error::from(e).into()),
                Ok(_) => {}
            }
            if !fds[0].revents().is_empty() {
                break;
            }
            session.handle_signals()?;
        }
    }
    exit_code(session.client, wait)
}

/// Reads the answer of a wait: the exit code, or 125 with a word on standard error.
fn exit_code(client: &Client, wait: Streamed) -> Result<u8, Exit> {
    let answer = client.finish(wait).and_then(|reply| reply.parse::<ContainerWaitResponse>());
    match answer {
        Ok(ContainerWaitResponse { error: Some(e), .. }) => {
            Err(Exit { message: format!("Error waiting for container: {}", e.message), code: 125 })
        }
        Ok(w) => Ok(u8::try_from(w.status_code & 0xff).unwrap_or(125)),
        Err(e) => Err(Exit { message: format!("error waiting for container: {e}"), code: 125 }),
    }
}

/// Builds an attach request.
pub fn attach_request(id: &str, stdin: bool, stdout: bool, stderr: bool, keys: &str) -> Request<'static> {
    let query = Query::new()
        .with_some("detachKeys", keys)
        .with_flag("stderr", stderr)
        .with_flag("stdin", stdin)
        .with_flag("stdout", stdout)
        .with("stream", "1");
    Request::post(super::path("containers", id, "/attach")).query(query)
}

/// Builds a wait request.
pub fn wait_request(id: &str, condition: &str) -> Request<'static> {
    Request::post(super::path("containers", id, "/wait")).query(Query::new().with_some("condition", condition))
}

/// Sends a wait request and reads the head of its answer, after which the end cannot be missed.
///
/// # Errors
/// Those of the daemon.
pub fn open_wait(client: &Client, id: &str, condition: &str) -> Result<Streamed, Error> {
    let pending: Pending = client.send(wait_request(id, condition), false)?;
    client.receive(pending)
}

/// Starts a container.
///
/// # Errors
/// Those of the daemon.
pub fn start(client: &Client, id: &str, keys: &str) -> Result<(), Error> {
    let query = Query::new().with_some("detachKeys", keys);
    client.call(Request::post(super::path("containers", id, "/start")).query(query)).map(drop)
}

fn check_pull(m: &Matches) -> Result<(), Exit> {
    match m.text("pull") {
        "always" | "missing" | "never" => Ok(()),
        p => Err(Exit::new(format!("invalid pull option: '{p}': must be one of \"always\", \"missing\" or \"never\""))),
    }
}

/// The file that receives the container's ID. It is there before the container is, and goes if that fails.
struct IdFile<'a> {
    path: &'a str,
    file: Option<File>,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a str) -> Result<Self, Exit> {
        if path.is_empty() {
            return Ok(Self { path, file: None });
        }
        if std::path::Path::new(path).exists() {
            return Err(Exit::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        match File::create(path) {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(e) => Err(Exit::new(format!("failed to create the container ID file: open {path}: {}", go_text(&e)))),
        }
    }

    fn write(mut self, id: &str) -> Result<(), Exit> {
        if let Some(mut file) = self.file.take() {
            file.write_all(id.as_bytes())
                .map_err(|e| Exit::new(format!("failed to write the container ID to the file: {}", go_text(&e))))?;
        }
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // It was empty; whoever removed it did our work.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Makes a container, with the image fetched where it must be; returns its ID.
fn make(shell: &Shell, m: &Matches, body: ContainerCreateRequest) -> Result<String, Exit> {
    let mut body = body;
    let credentials = if m.bool("use-api-socket") { give_socket(shell, &mut body)? } else { None };
    proxies(shell, &mut body)?;
    let id_file = IdFile::create(m.text("cidfile"))?;
    let image = body.config.image.clone();
    let quiet = m.bool("quiet");
    let wanted = match m.text("platform") {
        "" => String::new(),
        p => platform::parse(p).map_err(|e| Exit::new(format!("error parsing specified platform: {e}")))?,
    };
    let pull = |shell: &Shell| transfer::pull_image(shell, &image, &wanted, quiet, true);
    if m.text("pull") == "always" {
        pull(shell)?;
    }
    let json = serde_json::to_vec(&body).map_err(|e| Exit::new(e.to_string()))?;
    let client = shell.client()?;
    let query = Query::new().with_some("name", m.text("name")).with_some("platform", &wanted);
    let ask = || {
        client
            .call(Request::post("/containers/create").query(query.clone()).json(json.clone()))
            .and_then(|r| r.parse::<ContainerCreateResponse>())
    };
    let made = match ask() {
        Err(e) if e.status() == Some(404) && m.text("pull") == "missing" && e.to_string().contains("o such image") => {
            if !quiet {
                shell.warn(&format!("Unable to find image '{}' locally", transfer::tagged(&image)));
            }
            pull(shell)?;
            ask()?
        }
        answer => answer?,
    };
    for warning in &made.warnings {
        shell.warn(&format!("WARNING: {warning}"));
    }
    id_file.write(&made.id)?;
    if let Some(credentials) = credentials {
        put_credentials(shell, &made.id, &credentials)?;
    }
    Ok(made.id)
}

/// Where the container finds the registries' credentials with `--use-api-socket`.
const CREDENTIALS: &str = "/run/secrets/docker";

/// Mounts the daemon's socket; returns the credentials that are to be put into the container.
fn give_socket(shell: &Shell, body: &mut ContainerCreateRequest) -> Result<Option<Vec<u8>>, Exit> {
    let wharf_api_client::Host::Unix(socket) = shell.client()?.host() else {
        return Err(Exit::new(format!(
            "flag --use-api-socket can only be used with unix sockets: docker endpoint {} incompatible",
            shell.client()?.host()
        )));
    };
    let mount = wharf_api_types::Mount {
        r#type: "bind".to_owned(),
        source: socket.clone(),
        target: "/var/run/docker.sock".to_owned(),
        bind_options: Some(wharf_api_types::BindOptions::default()),
        ..wharf_api_types::Mount::default()
    };
    body.host_config.get_or_insert_default().mounts.get_or_insert_default().push(mount);
    let env = body.config.env.get_or_insert_default();
    let file = std::fs::read(shell.folder().join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&file).unwrap_or_default();
    let known = config["auths"].as_object().is_some_and(|a| a.values().any(|v| v.get("auth").is_some()));
    // Who names a configuration knows what he does.
    if !known || env.iter().any(|e| e.starts_with("DOCKER_CONFIG=")) {
        return Ok(None);
    }
    env.push(format!("DOCKER_CONFIG={CREDENTIALS}"));
    Ok(Some(serde_json::json!({ "auths": config["auths"] }).to_string().into_bytes()))
}

fn put_credentials(shell: &Shell, id: &str, json: &[u8]) -> Result<(), Exit> {
    use wharf_archive::{Entry, EntryKind, Time, Writer};
    let failed = |e: wharf_archive::ArchiveError| Exit::new(wharf_error::Chain(&e).to_string());
    let now = Time { seconds: 0, nanoseconds: 0 };
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    let folders = CREDENTIALS.match_indices('/').skip(1).map(|(i, _)| &CREDENTIALS[1..i]).chain([&CREDENTIALS[1..]]);
    for folder in folders {
        let entry = Entry::plain(&format!("{folder}/"), EntryKind::Directory, 0o755, 0, now);
        writer.entry(&entry, &mut std::io::empty()).map_err(failed)?;
    }
    let name = format!("{}/config.json", &CREDENTIALS[1..]);
    let entry = Entry::plain(&name, EntryKind::File, 0o600, json.len() as u64, now);
    writer.entry(&entry, &mut &*json).map_err(failed)?;
    writer.finish().map_err(failed)?;
    let request = Request::new("PUT", super::path("containers", id, "/archive")).query(Query::new().with("path", "/"));
    shell.client()?.call(request.stream("application/x-tar", &mut archive.as_slice()))?;
    Ok(())
}

/// Adds the proxies of the configuration, unless the user names them.
fn proxies(shell: &Shell, body: &mut ContainerCreateRequest) -> Result<(), Exit> {
    if shell.config().proxies.is_empty() {
        return Ok(());
    }
    let proxies = shell.config().proxies_of(&shell.client()?.host().to_string());
    let env = body.config.env.get_or_insert_default();
    for (name, value) in proxies {
        let given = |e: &String| e.split('=').next() == Some(&name);
        if !env.iter().any(given) {
            env.push(format!("{name}={value}"));
        }
    }
    Ok(())
}
