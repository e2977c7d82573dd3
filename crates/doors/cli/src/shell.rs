//! What every command works with: standard streams, configuration and the client of the daemon.

use std::cell::OnceCell;
use std::io::Write;
use std::path::PathBuf;

use wharf_api_client::{Client, Host};

use crate::config::{self, Config};
use crate::exit::Exit;
use crate::parse::Matches;

/// The surroundings of one command.
pub struct Shell {
    folder: PathBuf,
    context: String,
    host: Option<String>,
    tls: bool,
    config: OnceCell<Config>,
    client: OnceCell<Client>,
}

/// The name of the context that follows DOCKER_HOST.
pub const DEFAULT_CONTEXT: &str = "default";

impl Shell {
    /// Reads the flags of the top level.
    ///
    /// # Errors
    /// Docker's text for a level of logging that is none and for flags that contradict each other.
    pub fn new(globals: &Matches) -> Result<Self, Exit> {
        let level = globals.text("log-level");
        if !matches!(
            level.to_lowercase().as_str(),
            "panic" | "fatal" | "error" | "warn" | "warning" | "info" | "debug" | "trace"
        ) {
            return Err(Exit::new(format!("Unable to parse logging level: {level}")));
        }
        let hosts = globals.list("host");
        if hosts.len() > 1 {
            return Err(Exit::new("Specify only one -H"));
        }
        let host = hosts.first().map(|h| (*h).to_owned());
        if host.is_some() && globals.changed("context") {
            return Err(Exit::new("conflicting options: cannot specify both --host and --context"));
        }
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        Ok(Self {
            folder: config::folder(if globals.changed("config") { globals.text("config") } else { "" }),
            context: globals.text("context").to_owned(),
            host,
            tls: globals.bool("tls") || globals.bool("tlsverify") || set("DOCKER_TLS_VERIFY") || set("DOCKER_TLS"),
            config: OnceCell::new(),
            client: OnceCell::new(),
        })
    }

    /// Returns the folder of the configuration.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Returns the configuration file's content.
    pub fn config(&self) -> &Config {
        self.config.get_or_init(|| config::load(&self.folder))
    }

    /// Returns the name of the context in use.
    pub fn context(&self) -> String {
        if !self.context.is_empty() {
            return self.context.clone();
        }
        let from = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        if self.host.is_some() || from("DOCKER_HOST").is_some() {
            return DEFAULT_CONTEXT.into();
        }
        match from("DOCKER_CONTEXT").unwrap_or_else(|| self.config().current_context.clone()) {
            c if c.is_empty() => DEFAULT_CONTEXT.into(),
            c => c,
        }
    }

    /// Returns the daemon's address of the default context.
    pub fn default_host(&self) -> String {
        let given = self.host.clone().or_else(|| std::env::var("DOCKER_HOST").ok());
        given.filter(|h| !h.is_empty()).unwrap_or_else(|| Host::DEFAULT.into())
    }

    fn address(&self) -> Result<String, Exit> {
        match self.context() {
            c if c == DEFAULT_CONTEXT => Ok(self.default_host()),
            c => config::context_host(&self.folder, &c),
        }
    }

    /// Returns the client, which is made on first use.
    ///
    /// # Errors
    /// Docker's text for an address that is none.
    pub fn client(&self) -> Result<&Client, Exit> {
        if let Some(c) = self.client.get() {
            return Ok(c);
        }
        let host = Host::parse(&self.address()?)?;
        if self.tls && matches!(host, Host::Tcp(_)) {
            return Err(Exit::new("connecting by TLS is not available yet"));
        }
        let pinned = match std::env::var("DOCKER_API_VERSION") {
            Ok(v) if !v.is_empty() => {
                Some(v.parse().map_err(|_| Exit::new(format!("invalid DOCKER_API_VERSION: {v}")))?)
            }
            _ => None,
        };
        let agent = format!("Docker-Client/{} (linux)", crate::VERSION);
        Ok(self.client.get_or_init(|| Client::new(host, pinned, &agent)))
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// That of write(2); a reader that went away ends the command silently.
    pub fn print(&self, text: &str) -> Result<(), Exit> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes a line to standard output.
    ///
    /// # Errors
    /// As [`Shell::print`].
    pub fn line(&self, text: &str) -> Result<(), Exit> {
        self.print(&format!("{text}\n"))
    }

    /// Writes a line to standard error; where that fails there is nobody to tell.
    pub fn warn(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Runs an operation for each name; prints a name that went well where `echo` says so, and each failure as it comes.
///
/// # Errors
/// A silent exit with status 1 where any failed.
pub fn each(
    shell: &Shell,
    names: &[String],
    echo: bool,
    mut operation: impl FnMut(&str) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let mut failures = Vec::new();
    for name in names {
        match operation(name) {
            Ok(()) if echo => shell.line(name)?,
            Ok(()) => {}
            Err(e) => failures.push(e.message),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(failures.join("\n"))) }
}
