//! `docker login` and `docker logout`.

use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{self, LocalModes, OptionalActions};
use wharf_api_client::Request;
use wharf_api_types::AuthResponse;

use crate::credentials::{HUB, Keeping, Login, server_key};
use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::terminal;

/// `docker login`.
pub fn login(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (user, password) = (m.text("username").to_owned(), m.text("password").to_owned());
    if !password.is_empty() {
        shell.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if m.bool("password-stdin") {
            return Err(Exit::new("--password and --password-stdin are mutually exclusive"));
        }
    }
    let password = match m.bool("password-stdin") {
        true if user.is_empty() => return Err(Exit::new("Must provide --username with --password-stdin")),
        true => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            text.trim_end_matches('\n').trim_end_matches('\r').to_owned()
        }
        false => password,
    };
    let server = m.args.first().map_or_else(|| HUB.to_owned(), |server| server_key(server));
    let folder = shell.folder().to_owned();
    let mut keeping = Keeping::open(&folder)?;
    let mut known = keeping.get(&server)?;
    if user.is_empty() && password.is_empty() && !known.is_empty() {
        let name = if known.username.is_empty() { String::new() } else { format!(" [Username: {}]", known.username) };
        shell.line(&format!("Authenticating with existing credentials...{name}"))?;
        match attempt(shell, &mut known) {
            Ok(status) => {
                keeping.store(&known)?;
                return shell.line(&status);
            }
            Err(e) => shell.warn(&format!("Login did not succeed, error: {}", e.message)),
        }
    }
    let mut login = ask(shell, user, password, &known.username, &server)?;
    let status = attempt(shell, &mut login)?;
    let plain = keeping.is_plain(&server);
    keeping.store(&login)?;
    // A token can be taken back; Docker warns of passwords only.
    if plain && !login.password.is_empty() {
        let file = folder.join("config.json");
        shell.warn(&format!("\nWARNING! Your credentials are stored unencrypted in '{}'.", file.display()));
        shell.warn("Configure a credential helper to remove this warning. See");
        shell.warn("https://docs.docker.com/go/credential-store/\n");
    }
    shell.line(&status)
}

/// Has the daemon try a login. A token that comes back takes the password's place.
fn attempt(shell: &Shell, login: &mut Login) -> Result<String, Exit> {
    let body = serde_json::to_vec(&login.json()).map_err(|e| Exit::new(e.to_string()))?;
    let reply = shell.client()?.call(Request::post("/auth").json(body))?;
    let answer: AuthResponse = reply.parse()?;
    if !answer.identity_token.is_empty() {
        login.password.clear();
        login.identity_token = answer.identity_token;
    }
    Ok(answer.status)
}

/// Asks for what was not given.
fn ask(shell: &Shell, mut user: String, mut password: String, known: &str, server: &str) -> Result<Login, Exit> {
    if user.is_empty() || password.is_empty() {
        if !terminal::stdin_is() {
            return Err(Exit::new("Error: Cannot perform an interactive login from a non TTY device"));
        }
        user = user.trim().to_owned();
        if user.is_empty() {
            let hint = if known.is_empty() { String::new() } else { format!(" ({known})") };
            shell.print(&format!("Username{hint}: "))?;
            user = line()?.trim().to_owned();
            if user.is_empty() {
                user = known.to_owned();
            }
        }
        if user.is_empty() {
            return Err(Exit::new("Error: Non-null Username Required"));
        }
        if password.is_empty() {
            shell.print("Password: ")?;
            let hidden = Hidden::enter()?;
            password = line()?;
            drop(hidden);
            shell.line("")?;
        }
        if password.is_empty() {
            return Err(Exit::new("Error: Password Required"));
        }
    }
    Ok(Login { username: user, password, server: server.to_owned(), ..Login::default() })
}

fn line() -> Result<String, Exit> {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal that does not show what is typed, until dropped.
struct Hidden(termios::Termios);

impl Hidden {
    fn enter() -> Result<Self, Exit> {
        let stdin = rustix::stdio::stdin();
        let failed = |e: rustix::io::Errno| Exit::from(std::io::Error::from(e));
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that went away needs no mode.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
        let _ = std::io::stdout().flush();
    }
}

/// `docker logout`.
pub fn logout(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let server = m.args.first().map_or_else(|| HUB.to_owned(), |server| server_key(server));
    shell.line(&format!("Removing login credentials for {server}"))?;
    let folder = shell.folder().to_owned();
    Keeping::open(&folder)?.erase(&server).map_err(|e| e.context("WARNING: could not erase credentials: "))
}
