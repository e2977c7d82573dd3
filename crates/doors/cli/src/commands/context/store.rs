//! Contexts on disk, and in archives.
//!
//! ```text
//! contexts/meta/<sha256 of the name>/meta.json        contexts/tls/<sha256>/docker/{ca,cert,key}.pem
//! ```
//!
//! An archive holds `meta.json` and `tls/<endpoint>/<file>` (docker/cli `cli/context/store`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wharf_archive::{Entry, EntryKind, Reader, Time, Writer};

use crate::config;
use crate::exit::{Exit, path_error};

/// Most bytes of one file in an archive; certificates are small.
const LARGEST: u64 = 10 << 20;

/// The endpoint that commands use.
pub const DOCKER: &str = "docker";

/// The files of an endpoint, in the order in which they are listed.
pub const FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// What is known of a context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Description, and what other programs keep there.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Endpoints by name.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// Where something listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its address.
    #[serde(rename = "Host")]
    pub host: String,
    /// Whether its certificate is not checked.
    #[serde(rename = "SkipTLSVerify")]
    pub unverified: bool,
}

/// Files for TLS, by endpoint and name.
pub type TlsFiles = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// Whether a text can name a context.
///
/// # Errors
/// Docker's texts.
pub fn check_name(name: &str) -> Result<(), Exit> {
    let first = |c: char| c.is_ascii_alphanumeric();
    let good = name.len() > 1
        && name.chars().next().is_some_and(first)
        && name.chars().all(|c| first(c) || matches!(c, '_' | '.' | '+' | '-'));
    match () {
        () if name.is_empty() => Err(Exit::new("context name cannot be empty")),
        () if name == "default" => Err(Exit::new("\"default\" is a reserved context name")),
        () if !good => Err(Exit::new(format!(
            "context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ))),
        () => Ok(()),
    }
}

/// Whether a context is there.
pub fn exists(folder: &Path, name: &str) -> bool {
    config::meta_file(folder, name).exists()
}

/// Reads a context.
///
/// # Errors
/// Docker's text for one that is not there.
pub fn read(folder: &Path, name: &str) -> Result<Meta, Exit> {
    let text = config::context_meta(folder, name)?;
    serde_json::from_str(&text).map_err(|e| Exit::new(format!("context \"{name}\": {e}")))
}

/// Reads the files for TLS of a context.
pub fn read_tls(folder: &Path, name: &str) -> TlsFiles {
    let mut all = TlsFiles::new();
    for endpoint in fs::read_dir(config::tls_folder(folder, name)).into_iter().flatten().flatten() {
        let files = fs::read_dir(endpoint.path()).into_iter().flatten().flatten();
        let files: BTreeMap<String, Vec<u8>> =
            files.filter_map(|f| Some((f.file_name().into_string().ok()?, fs::read(f.path()).ok()?))).collect();
        if let (Ok(name), false) = (endpoint.file_name().into_string(), files.is_empty()) {
            all.insert(name, files);
        }
    }
    all
}

/// Writes a context, with files for TLS that take the place of those it had.
///
/// # Errors
/// Those of the file system.
pub fn write(folder: &Path, meta: &Meta, tls: &TlsFiles) -> Result<(), Exit> {
    use std::os::unix::fs::DirBuilderExt;
    let file = config::meta_file(folder, &meta.name);
    let shown = file.display().to_string();
    let json = serde_json::to_vec(meta).map_err(|e| Exit::new(e.to_string()))?;
    config::replace(&file, &json, 0o644).map_err(|e| path_error("open", &shown, &e))?;
    let top = config::tls_folder(folder, &meta.name);
    match fs::remove_dir_all(&top) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(path_error("remove", &top.to_string_lossy(), &e)),
        _ => {}
    }
    for (endpoint, files) in tls.iter().filter(|(_, files)| !files.is_empty()) {
        let place = top.join(endpoint);
        let shown = place.display().to_string();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .map_err(|e| path_error("mkdir", &shown, &e))?;
        for (name, content) in files {
            config::replace(&place.join(name), content, 0o600).map_err(|e| path_error("open", &shown, &e))?;
        }
    }
    Ok(())
}

/// Removes a context.
///
/// # Errors
/// Those of the file system.
pub fn remove(folder: &Path, name: &str) -> Result<(), Exit> {
    let meta = config::meta_file(folder, name);
    for place in [meta.parent().unwrap_or(&meta), &config::tls_folder(folder, name)] {
        match fs::remove_dir_all(place) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", &place.to_string_lossy(), &e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a context as an archive.
///
/// # Errors
/// Those of writing.
pub fn export(meta: &Meta, tls: &TlsFiles, out: &mut dyn Write) -> Result<(), Exit> {
    let failed = |e: wharf_archive::ArchiveError| Exit::new(wharf_error::Chain(&e).to_string());
    let mut writer = Writer::new(out);
    let then = Time { seconds: 0, nanoseconds: 0 };
    let json = serde_json::to_vec(meta).map_err(|e| Exit::new(e.to_string()))?;
    let mut put = |name: &str, kind: EntryKind, mode: u32, content: &[u8]| {
        writer.entry(&Entry::plain(name, kind, mode, content.len() as u64, then), &mut &*content).map_err(failed)
    };
    put("meta.json", EntryKind::File, 0o644, &json)?;
    put("tls/", EntryKind::Directory, 0o700, &[])?;
    for (endpoint, files) in tls {
        put(&format!("tls/{endpoint}/"), EntryKind::Directory, 0o700, &[])?;
        for (name, content) in files {
            put(&format!("tls/{endpoint}/{name}"), EntryKind::File, 0o600, content)?;
        }
    }
    writer.finish().map_err(failed)
}

/// Reads a context from an archive.
///
/// # Errors
/// For archives that hold none, or anything else.
pub fn import(input: &mut dyn BufRead) -> Result<(Meta, TlsFiles), Exit> {
    if input.fill_buf()?.starts_with(b"PK\x03\x04") {
        return Err(Exit::new("archives of the form zip are not read: export the context as tar"));
    }
    let failed = |e: wharf_archive::ArchiveError| Exit::new(wharf_error::Chain(&e).to_string());
    let mut reader = Reader::new(input);
    let (mut meta, mut tls) = (None, TlsFiles::new());
    while let Some(entry) = reader.entry().map_err(failed)? {
        if entry.kind != EntryKind::File {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if entry.size > LARGEST {
            return Err(Exit::new(format!("{name}: the file is too large")));
        }
        let mut content = Vec::new();
        crate::stream::EntryData(&mut reader).take(entry.size).read_to_end(&mut content)?;
        match name.split('/').collect::<Vec<_>>().as_slice() {
            ["meta.json"] => {
                meta = Some(serde_json::from_slice::<Meta>(&content).map_err(|e| Exit::new(e.to_string()))?);
            }
            // Parts that could lead elsewhere are none (docker/cli refuses archives with such names).
            ["tls", endpoint, file] if ![*endpoint, *file].iter().any(|p| matches!(*p, "" | "." | "..")) => {
                tls.entry((*endpoint).to_owned()).or_default().insert((*file).to_owned(), content);
            }
            _ => return Err(Exit::new(format!("unexpected context file: {name}"))),
        }
    }
    Ok((meta.ok_or_else(|| Exit::new("invalid context: no metadata found"))?, tls))
}
