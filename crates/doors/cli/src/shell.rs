//! What every command works with: standard streams, configuration and the client of the daemon.

use std::cell::OnceCell;
use std::io::Write;
use std::path::PathBuf;

use wharf_api_client::{Client, Host, Material, Tls};

use crate::config::{self, Config};
use crate::exit::Exit;
use crate::parse::Matches;

/// `--tls`, `--tlsverify` and the files they use.
#[derive(Debug)]
struct TlsFlags {
    verify: bool,
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFlags {
    /// What the flags and the environment ask for; nothing unless one of them does.
    fn read(globals: &Matches, verify: bool, tls: bool) -> Option<TlsFlags> {
        let verify = globals.bool("tlsverify") || (verify && !globals.changed("tlsverify"));
        let named = |flag: &str| globals.changed(flag).then(|| PathBuf::from(globals.text(flag)));
        let flags =
            TlsFlags { verify, authorities: named("tlscacert"), certificate: named("tlscert"), key: named("tlskey") };
        (globals.bool("tls") || tls || verify).then_some(flags)
    }

    /// Reads the files: those that are named, or else those of `DOCKER_CERT_PATH` or the configuration's folder that
    /// are there.
    fn material(&self, folder: &std::path::Path) -> Result<Material, Exit> {
        let default = std::env::var_os("DOCKER_CERT_PATH").filter(|p| !p.is_empty());
        let default = default.map_or_else(|| folder.to_owned(), PathBuf::from);
        let mut material = config::material(&default, !self.verify);
        let named = [
            (&self.authorities, &mut material.authorities),
            (&self.certificate, &mut material.certificate),
            (&self.key, &mut material.key),
        ];
        for (path, content) in named {
            if let Some(path) = path {
                let read = std::fs::read(path).map_err(|e| {
                    Exit::new(format!(
                        "Failed to initialize: unable to resolve docker endpoint: open {}: {}",
                        path.display(),
                        crate::exit::go_text(&e)
                    ))
                });
                *content = Some(read?);
            }
        }
        Ok(material)
    }
}

/// The surroundings of one command.
pub struct Shell {
    folder: PathBuf,
    context: String,
    host: Option<String>,
    tls: Option<TlsFlags>,
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
            tls: TlsFlags::read(globals, set("DOCKER_TLS_VERIFY"), set("DOCKER_TLS")),
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

    fn address(&self) -> Result<Host, Exit> {
        let (host, material) = match self.context() {
            c if c == DEFAULT_CONTEXT => {
                let material = self.tls.as_ref().map(|flags| flags.material(&self.folder)).transpose()?;
                (self.default_host(), material)
            }
            c => {
                let endpoint = config::context_endpoint(&self.folder, &c)?;
                (endpoint.host, endpoint.tls)
            }
        };
        Ok(match material {
            Some(material) if host.trim().starts_with("tcp:") || !host.contains("://") && !host.starts_with('/') => {
                let tls = Tls::new(&material).map_err(|e| Exit::new(wharf_error::Chain(&e).to_string()))?;
                Host::parse_for_tls(&host, tls)?
            }
            _ => Host::parse(&host)?,
        })
    }

    /// Returns the client, which is made on first use.
    ///
    /// # Errors
    /// Docker's text for an address that is none.
    pub fn client(&self) -> Result<&Client, Exit> {
        if let Some(c) = self.client.get() {
            return Ok(c);
        }
        let host = self.address()?;
        let pinned = match std::env::var("DOCKER_API_VERSION") {
            Ok(v) if !v.is_empty() => {
                Some(v.parse().map_err(|_| Exit::new(format!("invalid DOCKER_API_VERSION: {v}")))?)
            }
            _ => None,
        };
        let agent = format!("Docker-Client/{} (linux)", crate::VERSION);
        Ok(self
            .client
            .get_or_init(|| Client::new(host, pinned, &agent).with_headers(self.config().http_headers.clone())))
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
