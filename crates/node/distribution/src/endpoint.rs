//! Which hosts stand for a registry, and how each is talked to: defaults, mirrors, insecure registries, `certs.d`.
//!
//! ```text
//! <certs.d>/<host>[:<port>]/hosts.toml          hosts in order of preference (containerd's format, see `hosts_toml`)
//! <certs.d>/<host>[:<port>]/<name>.crt          certificate authorities of the registry
//! <certs.d>/<host>[:<port>]/<name>.cert, .key   a client certificate and its key
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::DistributionError;
use crate::hosts_toml;
use crate::proxy::Proxies;

/// Docker Hub's name in references.
pub const HUB: &str = "docker.io";
/// The host that serves Docker Hub's images.
const HUB_HOST: &str = "registry-1.docker.io";
/// Where logins to Docker Hub are kept in clients' configurations.
pub const HUB_LOGIN: &str = "https://index.docker.io/v1/";

/// What a client of registries is set up with; immutable.
#[derive(Clone, Debug)]
pub struct Config {
    /// Mirrors of Docker Hub, as URLs, in order.
    pub mirrors: Vec<String>,
    /// Registries without (valid) TLS: `host[:port]` or an address range.
    pub insecure: Vec<String>,
    /// The folder of per-registry settings, `/etc/docker/certs.d`.
    pub certificates: PathBuf,
    /// Proxies.
    pub proxies: Proxies,
    /// Downloads at a time, of one pull.
    pub downloads: usize,
    /// Uploads at a time, of one push.
    pub uploads: usize,
    /// Attempts of a download that makes no progress.
    pub attempts: usize,
    /// How long nothing may come before a connection counts as dead.
    pub stall: Duration,
    /// Bytes of one piece of an upload in pieces; 0 sends each blob whole.
    pub upload_chunk: u64,
    /// Bytes from which on a layer that comes too slowly is fetched in several ranges at a time.
    pub split_from: u64,
    /// `User-Agent`.
    pub agent: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certificates: PathBuf::from("/etc/docker/certs.d"),
            proxies: Proxies::default(),
            downloads: 3,
            uploads: 5,
            attempts: 5,
            stall: Duration::from_secs(30),
            upload_chunk: 0,
            split_from: 32 << 20,
            agent: concat!("docker/28.5.2+wharf.", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain.
    Http,
    /// TLS, or plain where the other side speaks none (an insecure registry).
    Either,
}

/// The TLS settings of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Files of certificate authorities, beside those of the system.
    pub authorities: Vec<PathBuf>,
    /// Files of client certificates and their keys; a key in the same file has no file of its own.
    pub clients: Vec<(PathBuf, Option<PathBuf>)>,
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Blobs and manifests by digest.
    pub pull: bool,
    /// What a tag means.
    pub resolve: bool,
    /// Uploads.
    pub push: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
    /// Reading only, as of mirrors.
    pub const READ: Self = Self { pull: true, resolve: true, push: false };
}

/// One host of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`.
    pub host: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The path of the API, `/v2`.
    pub prefix: String,
    /// TLS.
    pub tls: TlsSettings,
    /// Further headers of every request.
    pub headers: Vec<(String, String)>,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// Whether it is the registry itself, to which the user's login belongs.
    pub own: bool,
}

impl Endpoint {
    fn of_registry(domain: &str, config: &Config) -> Self {
        let host = if domain == HUB { HUB_HOST } else { domain };
        let insecure = is_insecure(domain, &config.insecure);
        Self {
            host: host.to_owned(),
            scheme: if insecure { Scheme::Either } else { Scheme::Https },
            prefix: "/v2".to_owned(),
            tls: TlsSettings { insecure, ..TlsSettings::default() },
            headers: Vec::new(),
            capabilities: Capabilities::ALL,
            own: true,
        }
    }

    fn of_mirror(url: &str, config: &Config) -> Result<Self, DistributionError> {
        let wrong = || DistributionError::Invalid(format!("invalid mirror: {url:?} is no URL of a host"));
        let (scheme, host, path) = split_url(url).ok_or_else(wrong)?;
        let insecure = is_insecure(&host, &config.insecure);
        let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
        Ok(Self {
            host,
            scheme,
            prefix: format!("{}/v2", path.trim_end_matches('/')),
            tls: TlsSettings { insecure, ..TlsSettings::default() },
            headers: Vec::new(),
            capabilities: Capabilities::READ,
            own: false,
        })
    }
}

/// Splits `scheme://host[:port][/path]` of http and https; everything else is none.
pub(crate) fn split_url(url: &str) -> Option<(&str, String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let valid = !host.is_empty() && host.bytes().all(plain);
    valid.then(|| (scheme, host.to_ascii_lowercase(), path.to_owned()))
}

/// A host without its port and brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether a registry may be reached without valid TLS: it is listed, in a listed range, or on this machine
/// (moby `registry/config.go`, `isSecureIndex`; loopback is always insecure).
pub fn is_insecure(domain: &str, listed: &[String]) -> bool {
    let name = without_port(domain);
    if listed.iter().any(|entry| entry == domain || entry == name) {
        return true;
    }
    if name == "localhost" {
        return true;
    }
    let Ok(address) = name.parse::<IpAddr>() else { return false };
    address.is_loopback() || listed.iter().any(|range| in_range(address, range))
}

/// Whether an address is in `network/bits`.
fn in_range(address: IpAddr, range: &str) -> bool {
    let Some((network, bits)) = range.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(a) & mask == u32::from(n) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(a) & mask == u128::from(n) & mask
        }
        _ => false,
    }
}

/// The settings folder of a registry, if there is one. `host_5000_` is how containerd writes `host:5000` where a
/// colon cannot be in a name.
fn folder(certificates: &Path, domain: &str) -> Option<PathBuf> {
    // A domain is letters, digits, dots, dashes, colons and brackets: never a way out of the folder.
    let plain = domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !plain || domain.starts_with('.') {
        return None;
    }
    let mut names = vec![domain.to_owned()];
    if let Some((host, port)) = domain.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        names.push(format!("{host}_{port}_"));
    }
    names.push("_default".to_owned());
    names.into_iter().map(|name| certificates.join(name)).find(|path| path.is_dir())
}

/// Reads `*.crt`, `*.cert` and `*.key` of a folder (moby `registry/registry.go`, `loadTLSConfig`).
fn files(folder: &Path, tls: &mut TlsSettings) -> Result<(), DistributionError> {
    let settings = |reason: String| DistributionError::Settings { path: folder.to_owned(), reason };
    let entries = std::fs::read_dir(folder).map_err(|e| settings(e.to_string()))?;
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in &names {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.authorities.push(path.clone()),
            Some("cert") => {
                let key = path.with_extension("key");
                if !names.contains(&key) {
                    let (key, cert) = (short(&key), short(path));
                    return Err(settings(format!(
                        "missing key {key} for client certificate {cert}. CA certificates must use the extension .crt"
                    )));
                }
                tls.clients.push((path.clone(), Some(key)));
            }
            Some("key") if !names.contains(&path.with_extension("cert")) => {
                let (cert, key) = (short(&path.with_extension("cert")), short(path));
                return Err(settings(format!("missing client certificate {cert} for key {key}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn short(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The hosts of a registry in the order in which they are tried. Reads the settings folder each time, so that
/// certificates can be changed without restarting.
///
/// # Errors
/// [`DistributionError::Settings`], [`DistributionError::Invalid`].
pub fn endpoints(domain: &str, config: &Config) -> Result<Vec<Endpoint>, DistributionError> {
    let mut own = Endpoint::of_registry(domain, config);
    let folder = folder(&config.certificates, domain);
    if let Some(folder) = &folder {
        let path = folder.join("hosts.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return hosts_toml::parse(&text, folder, own)
                    .map_err(|reason| DistributionError::Settings { path, reason });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => files(folder, &mut own.tls)?,
            Err(e) => return Err(DistributionError::Settings { path, reason: e.to_string() }),
        }
    }
    let mut all = Vec::new();
    if domain == HUB {
        for mirror in &config.mirrors {
            let mut mirror = Endpoint::of_mirror(mirror, config)?;
            if let Some(folder) = self::folder(&config.certificates, &mirror.host) {
                files(&folder, &mut mirror.tls)?;
            }
            all.push(mirror);
        }
    }
    all.push(own);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        Config { certificates: folder.to_owned(), ..Config::default() }
    }

    #[test]
    fn docker_hub_has_its_host_and_its_mirrors_first() {
        let folder = tempfile::tempdir().expect("folder");
        let mirrors = vec!["https://mirror.example/".to_owned(), "http://10.0.0.1:5000/hub".to_owned()];
        let config = Config { mirrors, ..config(folder.path()) };
        let all = endpoints("docker.io", &config).expect("endpoints");
        let shown: Vec<_> = all.iter().map(|e| (e.host.as_str(), e.prefix.as_str(), e.scheme, e.own)).collect();
        assert_eq!(
            shown,
            [
                ("mirror.example", "/v2", Scheme::Https, false),
                ("10.0.0.1:5000", "/hub/v2", Scheme::Http, false),
                ("registry-1.docker.io", "/v2", Scheme::Https, true),
            ]
        );
        assert!(!all[0].capabilities.push);
        assert_eq!(endpoints("other.example", &config).expect("endpoints").len(), 1);
    }

    #[test]
    fn listed_ranges_and_loopback_are_insecure() {
        let listed = ["10.0.0.0/8".to_owned(), "reg.example:5000".to_owned(), "fd00::/8".to_owned()];
        for (domain, insecure) in [
            ("localhost:5000", true),
            ("127.3.4.5", true),
            ("[::1]:5000", true),
            ("10.9.9.9:5000", true),
            ("11.0.0.1", false),
            ("reg.example:5000", true),
            ("reg.example", false),
            ("[fd00::2]:5000", true),
            ("docker.io", false),
            ("localhost.evil.example", false),
        ] {
            assert_eq!(is_insecure(domain, &listed), insecure, "{domain}");
        }
    }

    #[test]
    fn certificates_of_a_registry_are_found_and_lost_keys_named() {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("reg.example:5000");
        std::fs::create_dir(&place).expect("made");
        for name in ["ca.crt", "me.cert", "me.key"] {
            std::fs::write(place.join(name), "").expect("written");
        }
        let all = endpoints("reg.example:5000", &config(folder.path())).expect("endpoints");
        assert_eq!((all[0].tls.authorities.len(), all[0].tls.clients.len()), (1, 1));
        std::fs::remove_file(place.join("me.key")).expect("removed");
        let error = endpoints("reg.example:5000", &config(folder.path())).expect_err("no key").to_string();
        assert!(error.contains("missing key me.key for client certificate me.cert"), "{error}");
    }

    #[test]
    fn a_domain_never_leads_out_of_the_settings_folder() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("in")).expect("made");
        assert_eq!(super::folder(&folder.path().join("in"), ".."), None);
        assert_eq!(super::folder(&folder.path().join("in"), "a/../.."), None);
    }
}
