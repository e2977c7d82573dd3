//! Logins at registries: in `config.json`, or in the keeping of a helper (`docker-credential-<name>`).
//!
//! Source: docker/cli `cli/config/configfile` and `cli/config/credentials`; docker-credential-helpers' protocol: the
//! helper gets `get`, `store` or `erase` as its argument and the server or the login as JSON on standard input.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Value};

use crate::exit::{Exit, go_text};

/// Where logins at Docker Hub are kept.
pub const HUB: &str = "https://index.docker.io/v1/";
/// The user name of a login that is a token.
const TOKEN_USER: &str = "<token>";

/// A login. Its secrets are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// A token in the password's place.
    pub identity_token: String,
    /// A token for the registry itself.
    pub registry_token: String,
    /// The server, as it is kept.
    pub server: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({:?} at {:?})", self.username, self.server)
    }
}

impl Login {
    /// The login as the daemon takes it.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        for (key, value) in [
            ("username", &self.username),
            ("password", &self.password),
            ("serveraddress", &self.server),
            ("identitytoken", &self.identity_token),
            ("registrytoken", &self.registry_token),
        ] {
            if !value.is_empty() {
                object.insert(key.to_owned(), Value::String(value.clone()));
            }
        }
        Value::Object(object)
    }

    /// The value of the header `X-Registry-Auth`.
    pub fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }

    /// Whether there is nothing in it but the server.
    pub fn is_empty(&self) -> bool {
        [&self.username, &self.password, &self.identity_token, &self.registry_token].iter().all(|t| t.is_empty())
    }
}

/// The server under which the login of an image's registry is kept.
pub fn server_of(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => server_key(first),
        _ => HUB.to_owned(),
    }
}

/// The key of a server as a person writes it.
pub fn server_key(server: &str) -> String {
    match host_of(server) {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// Takes scheme and path away.
fn host_of(server: &str) -> &str {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    bare.split('/').next().unwrap_or_default()
}

/// The configuration file with all that we do not know, so that writing loses nothing.
pub struct Keeping<'f> {
    folder: &'f Path,
    document: Map<String, Value>,
}

impl<'f> Keeping<'f> {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// A file that cannot be read or is no JSON: it must not be overwritten.
    pub fn open(folder: &'f Path) -> Result<Self, Exit> {
        let file = folder.join("config.json");
        let wrong = |e: String| Exit::new(format!("{}: {e}", file.display()));
        let document = match std::fs::read(&file) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(wrong(go_text(&e))),
        };
        Ok(Self { folder, document })
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        self.document.get("auths")?.as_object()
    }

    /// The helper that keeps the login of a server.
    fn helper(&self, server: &str) -> Option<String> {
        let own = self.document.get("credHelpers").and_then(|all| all.get(server)).and_then(Value::as_str);
        let all = self.document.get("credsStore").and_then(Value::as_str);
        own.or(all).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// Whether logins of a server are kept as plain text in the file.
    pub fn is_plain(&self, server: &str) -> bool {
        self.helper(server).is_none()
    }

    /// The login of a server; an empty one where there is none.
    ///
    /// # Errors
    /// Those of a helper.
    pub fn get(&self, server: &str) -> Result<Login, Exit> {
        let mut login = match self.helper(server) {
            Some(helper) => from_helper(&helper, server)?,
            None => self.in_file(server),
        };
        login.server = server.to_owned();
        Ok(login)
    }

    fn in_file(&self, server: &str) -> Login {
        let Some(auths) = self.auths() else { return Login::default() };
        let entry = auths.get(server).or_else(|| {
            // Old files have whole URLs.
            let wanted = host_of(server);
            auths.iter().find(|(key, _)| host_of(key) == wanted).map(|(_, entry)| entry)
        });
        let text = |key: &str| entry.and_then(|e| e.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned();
        let decoded = STANDARD.decode(text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
            None => (text("username"), text("password")),
        };
        Login {
            username,
            password,
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
            server: String::new(),
        }
    }

    /// Keeps a login.
    ///
    /// # Errors
    /// Those of a helper and of writing.
    pub fn store(&mut self, login: &Login) -> Result<(), Exit> {
        let mut entry = Map::new();
        match self.helper(&login.server) {
            Some(helper) => to_helper(&helper, login)?,
            None => {
                let pair = format!("{}:{}", login.username, login.password);
                if !login.username.is_empty() || !login.password.is_empty() {
                    entry.insert("auth".to_owned(), STANDARD.encode(pair).into());
                }
                if !login.identity_token.is_empty() {
                    entry.insert("identitytoken".to_owned(), login.identity_token.clone().into());
                }
            }
        }
        let auths = self.document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(login.server.clone(), Value::Object(entry));
        }
        self.write()
    }

    /// Forgets a server's login, under each name it may have.
    ///
    /// # Errors
    /// Those of a helper and of writing.
    pub fn erase(&mut self, server: &str) -> Result<(), Exit> {
        let host = host_of(server).to_owned();
        let names = [server.to_owned(), host.clone(), format!("https://{host}"), format!("http://{host}")];
        let mut changed = false;
        for name in &names {
            if let Some(helper) = self.helper(name) {
                // A helper that has nothing of this name says so, which is what we want.
                let _ = run_helper(&helper, "erase", name.as_bytes());
            }
            let auths = self.document.get_mut("auths").and_then(Value::as_object_mut);
            changed |= auths.is_some_and(|auths| auths.remove(name).is_some());
        }
        if changed { self.write() } else { Ok(()) }
    }

    /// Writes the file anew, whole or not at all; a link to it stays a link.
    fn write(&self) -> Result<(), Exit> {
        let file = self.folder.join("config.json");
        let file = std::fs::canonicalize(&file).unwrap_or(file);
        let failed =
            |action: &str, e: &std::io::Error| Exit::new(format!("{action} {}: {}", file.display(), go_text(e)));
        let folder = file.parent().unwrap_or(self.folder);
        std::fs::create_dir_all(folder).map_err(|e| failed("mkdir", &e))?;
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(&self.document, &mut writer).map_err(|e| Exit::new(e.to_string()))?;
        let mode = std::fs::metadata(&file).map_or(0o600, |facts| facts.permissions().mode() & 0o777);
        let partial = folder.join(format!(".config.json{}", std::process::id()));
        let written = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&partial)
            .and_then(|mut target| target.write_all(&bytes).and_then(|()| target.sync_all()))
            .and_then(|()| std::fs::rename(&partial, &file));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&partial);
            failed("open", &e)
        })
    }
}

/// Runs a helper and returns what it prints.
fn run_helper(helper: &str, action: &str, input: &[u8]) -> Result<Vec<u8>, Exit> {
    let plain = helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain {
        return Err(Exit::new(format!(
            "error getting credentials - err: {helper:?} is no name of a credential helper"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String, out: &str| {
        Exit::new(format!("error {} credentials - err: {reason}, out: `{out}`", gerund(action)))
    };
    let spawned = Command::new(&program).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failed(format!("exec: \"{program}\": executable file not found in $PATH"), ""),
        _ => failed(go_text(&e), ""),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has its own reasons, which it tells.
        let _ = stdin.write_all(input);
    }
    let done = child.wait_with_output().map_err(|e| failed(go_text(&e), ""))?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let out = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    let status = done.status.code().map_or_else(|| "signal".to_owned(), |code| format!("exit status {code}"));
    Err(failed(status, &out))
}

fn gerund(action: &str) -> &str {
    match action {
        "get" => "getting",
        "store" => "storing",
        _ => "erasing",
    }
}

fn from_helper(helper: &str, server: &str) -> Result<Login, Exit> {
    let out = match run_helper(helper, "get", server.as_bytes()) {
        Ok(out) => out,
        // What every helper says of a server it does not know.
        Err(e) if e.message.contains("credentials not found in native keychain") => return Ok(Login::default()),
        Err(e) => return Err(e),
    };
    let found: Value =
        serde_json::from_slice(&out).map_err(|e| Exit::new(format!("error getting credentials - err: {e}")))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    Ok(match username.as_str() {
        TOKEN_USER => Login { identity_token: secret, ..Login::default() },
        _ => Login { username, password: secret, ..Login::default() },
    })
}

fn to_helper(helper: &str, login: &Login) -> Result<(), Exit> {
    let (username, secret) = match login.identity_token.is_empty() {
        true => (login.username.as_str(), &login.password),
        false => (TOKEN_USER, &login.identity_token),
    };
    let body = serde_json::json!({ "ServerURL": login.server, "Username": username, "Secret": secret });
    run_helper(helper, "store", body.to_string().as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob(server: &str) -> Login {
        Login { username: "bob".into(), password: "s:e".into(), server: server.into(), ..Login::default() }
    }

    #[test]
    fn logins_are_kept_and_nothing_else_is_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("config.json");
        std::fs::write(&file, "{\"psFormat\":\"x\",\"unknown\":[1],\"auths\":{\"old.example\":{\"auth\":\"YTpi\"}}}")
            .expect("written");
        let mut keeping = Keeping::open(folder.path()).expect("opens");
        keeping.store(&bob("reg.example:5000")).expect("stores");
        let text = std::fs::read_to_string(&file).expect("there");
        for part in [
            "\"psFormat\": \"x\"",
            "\"unknown\"",
            "\"old.example\"",
            "\t\t\"reg.example:5000\": {\n\t\t\t\"auth\": \"Ym9iOnM6ZQ==\"",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let mut keeping = Keeping::open(folder.path()).expect("opens");
        assert_eq!(keeping.get("reg.example:5000").expect("read"), bob("reg.example:5000"));
        assert_eq!(keeping.get("old.example").expect("read").password, "b");
        keeping.erase("reg.example:5000").expect("erases");
        assert!(Keeping::open(folder.path()).expect("opens").get("reg.example:5000").expect("read").is_empty());
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("folder");
        Keeping::open(folder.path()).expect("opens").store(&bob("r.example")).expect("stores");
        let mode = std::fs::metadata(folder.path().join("config.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("config.json"), "{").expect("written");
        assert!(Keeping::open(folder.path()).is_err());
    }

    #[test]
    fn servers_have_one_key_each() {
        for (image, server) in [
            ("busybox", HUB),
            ("user/app", HUB),
            ("docker.io/user/app", HUB),
            ("localhost:5000/a", "localhost:5000"),
            ("reg.example/a/b", "reg.example"),
        ] {
            assert_eq!(server_of(image), server, "{image}");
        }
        assert_eq!(server_key("https://reg.example/v2/"), "reg.example");
        assert_eq!(server_key("docker.io"), HUB);
    }

    #[test]
    fn a_helpers_name_is_never_a_path() {
        let refused = run_helper("../../evil", "get", b"").expect_err("refused").message;
        assert!(refused.contains("no name of a credential helper"), "{refused}");
    }
}
