//! The client's configuration file and the contexts beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::{Exit, go_text};

/// What we use of `config.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    /// Format of `ps`.
    pub ps_format: String,
    /// Format of `images`.
    pub images_format: String,
    /// Format of `network ls`.
    pub networks_format: String,
    /// Format of `volume ls`.
    pub volumes_format: String,
    /// Format of `stats`.
    pub stats_format: String,
    /// Keys that detach.
    pub detach_keys: String,
    /// The context in use.
    pub current_context: String,
}

/// Returns the folder of the configuration: the flag, `DOCKER_CONFIG`, or `~/.docker`.
pub fn folder(flag: &str) -> PathBuf {
    if !flag.is_empty() {
        return flag.into();
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()) {
        Some(f) => f.into(),
        None => Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".docker"),
    }
}

/// Reads the configuration. A file that cannot be read is said on standard error and taken for empty, as Docker does.
pub fn load(folder: &Path) -> Config {
    let file = folder.join("config.json");
    let bytes = match std::fs::read(&file) {
        Ok(b) => b,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Config::default();
        }
        Err(e) => {
            eprintln!("WARNING: Error loading config file: open {}: {}", file.display(), go_text(&e));
            return Config::default();
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("WARNING: Error loading config file: parsing config file ({}): {e}", file.display());
            Config::default()
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Meta {
    endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Endpoint {
    host: String,
}

/// Returns where the metadata of a context is kept: `contexts/meta/<sha256 of its name>/meta.json`.
pub fn meta_file(folder: &Path, context: &str) -> PathBuf {
    let digest = ring::digest::digest(&ring::digest::SHA256, context.as_bytes());
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    folder.join("contexts/meta").join(hex).join("meta.json")
}

/// Returns the metadata of a context as JSON text.
///
/// # Errors
/// Docker's text for a context that is not there.
pub fn context_meta(folder: &Path, context: &str) -> Result<String, Exit> {
    let file = meta_file(folder, context);
    std::fs::read_to_string(&file).map_err(|e| {
        Exit::new(format!("context \"{context}\": context not found: open {}: {}", file.display(), go_text(&e)))
    })
}

/// Returns the daemon's address of a context.
///
/// # Errors
/// Docker's text for a context that is not there.
pub fn context_host(folder: &Path, context: &str) -> Result<String, Exit> {
    let text = context_meta(folder, context)
        .map_err(|e| e.context("Failed to initialize: unable to resolve docker endpoint: "))?;
    let meta: Meta = serde_json::from_str(&text)
        .map_err(|e| Exit::new(format!("Failed to initialize: unable to resolve docker endpoint: {e}")))?;
    Ok(meta.endpoints.get("docker").map(|e| e.host.clone()).unwrap_or_default())
}
