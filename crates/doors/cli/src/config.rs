//! The client's configuration file and the contexts beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wharf_api_client::Material;

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
    /// Headers of every request.
    #[serde(rename = "HttpHeaders")]
    pub http_headers: BTreeMap<String, String>,
    /// Proxies that containers get, by daemon; `default` for all.
    pub proxies: BTreeMap<String, Proxies>,
    /// Commands that stand for others.
    pub aliases: BTreeMap<String, String>,
    /// Settings of plugins, by plugin: which commands they want to be called after (`hooks`, `error-hooks`).
    pub plugins: BTreeMap<String, BTreeMap<String, String>>,
    /// Folders of plugins beside the usual ones.
    pub cli_plugins_extra_dirs: Vec<PathBuf>,
    /// Switches.
    pub features: BTreeMap<String, String>,
}

/// The proxies of a daemon's containers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxies {
    /// For http.
    pub http_proxy: String,
    /// For https.
    pub https_proxy: String,
    /// For whom none is used.
    pub no_proxy: String,
    /// For ftp.
    pub ftp_proxy: String,
    /// For all.
    pub all_proxy: String,
}

impl Proxies {
    /// The variables, in both spellings.
    pub fn variables(&self) -> Vec<(String, String)> {
        let all = [
            ("HTTP_PROXY", &self.http_proxy),
            ("HTTPS_PROXY", &self.https_proxy),
            ("NO_PROXY", &self.no_proxy),
            ("FTP_PROXY", &self.ftp_proxy),
            ("ALL_PROXY", &self.all_proxy),
        ];
        let set = all.into_iter().filter(|(_, value)| !value.is_empty());
        set.flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]).collect()
    }
}

impl Config {
    /// The proxies that containers of a daemon get.
    pub fn proxies_of(&self, host: &str) -> Vec<(String, String)> {
        let found = self.proxies.get(host).or_else(|| self.proxies.get("default"));
        found.map(Proxies::variables).unwrap_or_default()
    }
}

/// Changes a key of the configuration file and leaves everything else in it as it is; `None` removes the key.
///
/// # Errors
/// For a file that is no JSON object, and those of writing.
pub fn store(folder: &Path, key: &str, value: Option<serde_json::Value>) -> Result<(), Exit> {
    let file = folder.join("config.json");
    let failed = |e: &std::io::Error| Exit::new(format!("open {}: {}", file.display(), go_text(e)));
    let mut content = match std::fs::read(&file) {
        Ok(bytes) if bytes.is_empty() => serde_json::Map::new(),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Exit::new(format!("parsing config file ({}): {e}", file.display())))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(e) => return Err(failed(&e)),
    };
    match value {
        Some(value) => content.insert(key.to_owned(), value),
        None => content.remove(key),
    };
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(&content, &mut writer).map_err(|e| Exit::new(e.to_string()))?;
    // A link stays one; what it names is replaced whole.
    let target = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
    replace(&target, &bytes, 0o600).map_err(|e| failed(&e))
}

/// Writes a file beside its place and renames it there.
///
/// # Errors
/// Those of the file system.
pub fn replace(file: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{}.{}", file.file_name().unwrap_or_default().display(), std::process::id()));
    let mut open = std::fs::OpenOptions::new();
    let mut out = open.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    let written = out.write_all(bytes).and_then(|()| std::fs::rename(&beside, file));
    if written.is_err() {
        // What could not be written is of no use.
        let _ = std::fs::remove_file(&beside);
    }
    written
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
#[serde(default)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: String,
    #[serde(rename = "SkipTLSVerify")]
    unverified: bool,
}

/// A daemon's address as a context names it, with what TLS needs.
#[derive(Debug)]
pub struct ContextEndpoint {
    /// The address.
    pub host: String,
    /// Certificates, if the context has any or says how they are checked.
    pub tls: Option<Material>,
}

/// Where a context's files for TLS are.
pub fn tls_folder(folder: &Path, context: &str) -> PathBuf {
    folder.join("contexts/tls").join(hash(context))
}

fn hash(context: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, context.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads `ca.pem`, `cert.pem` and `key.pem` of a folder, as far as they are there.
pub fn material(folder: &Path, unverified: bool) -> Material {
    let read = |name: &str| std::fs::read(folder.join(name)).ok();
    Material { authorities: read("ca.pem"), certificate: read("cert.pem"), key: read("key.pem"), unverified }
}

/// Returns where the metadata of a context is kept: `contexts/meta/<sha256 of its name>/meta.json`.
pub fn meta_file(folder: &Path, context: &str) -> PathBuf {
    folder.join("contexts/meta").join(hash(context)).join("meta.json")
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

/// Returns the daemon's address of a context, with its certificates.
///
/// # Errors
/// Docker's text for a context that is not there.
pub fn context_endpoint(folder: &Path, context: &str) -> Result<ContextEndpoint, Exit> {
    let text = context_meta(folder, context)
        .map_err(|e| e.context("Failed to initialize: unable to resolve docker endpoint: "))?;
    let meta: Meta = serde_json::from_str(&text)
        .map_err(|e| Exit::new(format!("Failed to initialize: unable to resolve docker endpoint: {e}")))?;
    let Some(endpoint) = meta.endpoints.get("docker") else {
        return Ok(ContextEndpoint { host: String::new(), tls: None });
    };
    let material = material(&tls_folder(folder, context).join("docker"), endpoint.unverified);
    let tls = (material != Material::default()).then_some(material);
    Ok(ContextEndpoint { host: endpoint.host.clone(), tls })
}
