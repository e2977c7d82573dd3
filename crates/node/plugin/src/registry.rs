//! Finding plugins by name and activating them.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Address, PluginError, http};

/// How long a plugin that is not there yet is waited for: it may start together with the daemon (moby `pkg/plugins`, 30 s).
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where a container that has ended would have to wait; a plugin that is being restarted is back by then.
const HURRY: Duration = Duration::from_secs(3);
/// The first pause between attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Where plugins are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Folders of sockets.
    pub sockets: Vec<PathBuf>,
    /// Folders of `.spec` and `.json` files.
    pub specifications: Vec<PathBuf>,
}

impl Default for Folders {
    fn default() -> Self {
        Folders {
            sockets: vec!["/run/docker/plugins".into()],
            specifications: vec!["/etc/docker/plugins".into(), "/usr/lib/docker/plugins".into()],
        }
    }
}

/// All plugins of one daemon, found when they are asked for.
#[derive(Debug, Default)]
pub struct Plugins {
    folders: Folders,
    active: Mutex<HashMap<String, Arc<Plugin>>>,
}

/// An activated plugin.
#[derive(Clone, Debug)]
pub struct Plugin {
    name: String,
    address: Address,
    implements: Vec<String>,
    /// How long it is waited for if it does not listen.
    patience: Duration,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Implements", default)]
    implements: Option<Vec<String>>,
}

/// Whether a name may become part of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

impl Plugins {
    /// Takes the folders; touches nothing.
    pub fn new(folders: Folders) -> Plugins {
        Plugins { folders, active: Mutex::default() }
    }

    fn locate(&self, name: &str) -> Result<Address, PluginError> {
        let missing = || PluginError::NotFound(name.to_owned());
        if !is_name(name) {
            return Err(missing());
        }
        for folder in &self.folders.sockets {
            let places = [folder.join(format!("{name}.sock")), folder.join(name).join(format!("{name}.sock"))];
            if let Some(socket) = places.into_iter().find(|p| is_socket(p)) {
                return Ok(Address::Unix(socket));
            }
        }
        for folder in &self.folders.specifications {
            for ending in ["spec", "json"] {
                let file = format!("{name}.{ending}");
                let places = [folder.join(&file), folder.join(name).join(&file)];
                if let Some(path) = places.into_iter().find(|p| p.is_file()) {
                    return Address::of_file(&path);
                }
            }
        }
        Err(missing())
    }

    /// Names of all plugins that are there, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for folder in self.folders.sockets.iter().chain(&self.folders.specifications) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let file = PathBuf::from(entry.file_name());
                let known = file.extension().is_some_and(|e| e == "sock" || e == "spec" || e == "json");
                let stem = if known { file.file_stem() } else { file.file_name() };
                let name = stem.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                if self.locate(&name).is_ok() {
                    names.insert(name);
                }
            }
        }
        names.into_iter().collect()
    }

    /// Names of the plugins that were activated and are of a kind, sorted.
    pub fn activated(&self, capability: &str) -> Vec<String> {
        let known = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = known.values().filter(|p| p.implements.iter().any(|i| i == capability));
        of_kind.map(|p| p.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Finds a plugin and activates it, if that was not done before. Blocks; a plugin whose socket is there and that does
    /// not answer yet is waited for.
    pub fn get(&self, name: &str, capability: &'static str) -> Result<Arc<Plugin>, PluginError> {
        self.get_within(name, capability, PATIENCE)
    }

    /// As [`Plugins::get`], with a time limit of one's own for a plugin that does not answer.
    pub fn get_within(
        &self,
        name: &str,
        capability: &'static str,
        patience: Duration,
    ) -> Result<Arc<Plugin>, PluginError> {
        let address = self.locate(name)?;
        let known = || self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let have = known().get(name).filter(|p| p.address == address).cloned();
        let plugin = match have {
            Some(plugin) => plugin,
            None => {
                let body = call_at(&address, "Plugin.Activate", b"", ANSWER, patience)?;
                let manifest: Manifest = parse("Plugin.Activate", &body)?;
                let implements = manifest.implements.unwrap_or_default();
                tracing::info!(plugin = name, implements = implements.join(","), "activated a plugin");
                let plugin = Arc::new(Plugin { name: name.to_owned(), address, implements, patience: PATIENCE });
                known().insert(name.to_owned(), plugin.clone());
                plugin
            }
        };
        if !plugin.implements.iter().any(|i| i == capability) {
            return Err(PluginError::Capability { name: name.to_owned(), capability });
        }
        Ok(plugin)
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

impl Plugin {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same with little patience: for what has to go on without it.
    pub fn hurried(&self) -> Plugin {
        Plugin { patience: HURRY, ..self.clone() }
    }

    /// What it said it is.
    pub fn implements(&self) -> &[String] {
        &self.implements
    }

    /// Calls `<Subsystem>.<Method>`. A plugin that is being restarted is waited for. Blocks.
    pub fn call<Q: Serialize, A: DeserializeOwned>(&self, method: &str, request: &Q) -> Result<A, PluginError> {
        let body = serde_json::to_vec(request)
            .map_err(|e| PluginError::Answer { method: method.to_owned(), reason: e.to_string() })?;
        parse(method, &call_at(&self.address, method, &body, ANSWER, self.patience)?)
    }
}

fn parse<A: DeserializeOwned>(method: &str, body: &[u8]) -> Result<A, PluginError> {
    let text: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    serde_json::from_slice(text)
        .map_err(|e| PluginError::Answer { method: method.to_owned(), reason: format!("invalid JSON: {e}") })
}

fn call_at(
    address: &Address,
    method: &str,
    body: &[u8],
    answer: Duration,
    patience: Duration,
) -> Result<Vec<u8>, PluginError> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let source = match http::post(address, &format!("/{method}"), body, answer) {
            Ok((200, body)) => return Ok(body),
            Ok((status, body)) => return Err(refused(method, status, &body)),
            Err(e) => e,
        };
        // Once the request may have been taken, doing it twice could do harm.
        let again = matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        if !again || start.elapsed() + pause > patience {
            return Err(PluginError::Connection { method: method.to_owned(), address: address.to_string(), source });
        }
        tracing::warn!(%address, method, error = %source, "cannot reach a plugin, trying again");
        std::thread::sleep(pause);
        pause *= 2;
    }
}

fn refused(method: &str, status: u16, body: &[u8]) -> PluginError {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match value["Err"].as_str() {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    PluginError::Refused { method: method.to_owned(), status, text }
}
