//! `docker context`.

mod store;

use std::fs::File;
use std::io::{self, BufReader, Write};

use wharf_template::Value;

use crate::config;
use crate::exit::{Exit, path_error};
use crate::format::Listing;
use crate::format::row::Row;
use crate::parse::Matches;
use crate::shell::{DEFAULT_CONTEXT, Shell};
use store::{DOCKER, Endpoint, FILES, Meta, TlsFiles};

const HEADERS: &[(&str, &str)] =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR")];

/// `docker context show`.
pub fn show(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    shell.line(&shell.context())
}

/// The names of all contexts, for completion.
pub(super) fn names(shell: &Shell) -> Vec<String> {
    [DEFAULT_CONTEXT.to_owned()].into_iter().chain(stored(shell).into_iter().map(|row| row.0)).collect()
}

/// `docker context ls`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let current = shell.context();
    let mut rows =
        vec![(DEFAULT_CONTEXT.to_owned(), "Current DOCKER_HOST based configuration".to_owned(), shell.default_host())];
    rows.extend(stored(shell));
    rows.sort();
    let values: Vec<Value> = rows
        .iter()
        .map(|(name, description, host)| {
            let is_current = *name == current;
            Row::new("*formatter.clientContextContext")
                .with("Name", name.as_str())
                .with("Current", is_current)
                .with("Description", description.as_str())
                .with("DockerEndpoint", host.as_str())
                .with("Error", "")
                .value()
        })
        .collect();
    if m.bool("quiet") {
        return shell.line(&rows.iter().map(|r| r.0.clone()).collect::<Vec<_>>().join("\n"));
    }
    let table = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    shell.print(&Listing { format: m.text("format"), table, headers: HEADERS }.render(&values)?)?;
    if std::env::var_os("DOCKER_HOST").is_some_and(|h| !h.is_empty()) {
        shell.warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set \
             the global --context flag, or unset DOCKER_HOST environment variable.",
        );
    }
    Ok(())
}

/// Reads name, description and address of the contexts in the configuration's folder.
fn stored(shell: &Shell) -> Vec<(String, String, String)> {
    let Ok(folders) = std::fs::read_dir(shell.folder().join("contexts/meta")) else { return Vec::new() };
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    folders
        .flatten()
        .filter_map(|f| std::fs::read(f.path().join("meta.json")).ok())
        .filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .map(|v| (text(&v["Name"]), text(&v["Metadata"]["Description"]), text(&v["Endpoints"]["docker"]["Host"])))
        .collect()
}

/// `docker context inspect`.
pub fn inspect(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let current = shell.context();
    let none = m.args.is_empty();
    let find = |name: &str| {
        if name == DEFAULT_CONTEXT {
            let mut host = String::new();
            wharf_template::quote(&shell.default_host(), &mut host);
            // Written out, so that the order is Docker's.
            return Ok(format!(
                "{{\"Name\":\"{name}\",\"Metadata\":{{}},\"Endpoints\":{{\"docker\":{{\"Host\":{host},\
                 \"SkipTLSVerify\":false}}}},\"TLSMaterial\":{{}},\"Storage\":{{\
                 \"MetadataPath\":\"\\u003cIN MEMORY\\u003e\",\"TLSPath\":\"\\u003cIN MEMORY\\u003e\"}}}}"
            ));
        }
        described(shell, name)
    };
    if none {
        let text = find(&current)?;
        return shell.line(&crate::format::json::indent(&format!("[{text}]")));
    }
    super::inspect::print(shell, m, find)
}

/// All that is known of a stored context, in Docker's order.
fn described(shell: &Shell, name: &str) -> Result<String, Exit> {
    let meta = store::read(shell.folder(), name)?;
    let json = |e: serde_json::Error| Exit::new(e.to_string());
    let base = serde_json::to_string(&meta).map_err(json)?;
    let listed: std::collections::BTreeMap<String, Vec<String>> = store::read_tls(shell.folder(), name)
        .into_iter()
        .map(|(endpoint, files)| (endpoint, files.into_keys().collect()))
        .collect();
    let text = |path: &std::path::Path| serde_json::to_string(&path.to_string_lossy()).map_err(json);
    let file = config::meta_file(shell.folder(), name);
    Ok(format!(
        "{},\"TLSMaterial\":{},\"Storage\":{{\"MetadataPath\":{},\"TLSPath\":{}}}}}",
        &base[..base.len() - 1],
        serde_json::to_string(&listed).map_err(json)?,
        text(file.parent().unwrap_or(&file))?,
        text(&config::tls_folder(shell.folder(), name))?,
    ))
}

/// The pairs of `--docker`.
fn options(m: &Matches) -> Vec<(String, String)> {
    let given = m.list("docker");
    let pairs = given.iter().flat_map(|text| text.split(','));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Reads the endpoint that `--docker` describes.
fn endpoint(shell: &Shell, m: &Matches) -> Result<(Endpoint, TlsFiles), Exit> {
    let failed = |what: String| Exit::new(format!("unable to create docker endpoint config: {what}"));
    let mut found = Endpoint::default();
    let mut tls = TlsFiles::new();
    let all = options(m);
    if let Some((key, _)) =
        all.iter().find(|(k, _)| !["from", "host", "ca", "cert", "key", "skip-tls-verify"].contains(&k.as_str()))
    {
        return Err(failed(format!("unrecognized config key: {key}")));
    }
    if let Some((_, from)) = all.iter().find(|(k, _)| k == "from") {
        let meta = store::read(shell.folder(), from)?;
        let endpoint = meta.endpoints.get(DOCKER).cloned();
        found = endpoint.ok_or_else(|| failed(format!("unable to get endpoint from context {from:?}")))?;
        tls = store::read_tls(shell.folder(), from);
        return Ok((found, tls));
    }
    for (key, value) in &all {
        let file = |name: &str, tls: &mut TlsFiles| {
            let content = std::fs::read(value).map_err(|e| failed(path_error("open", value, &e).message))?;
            tls.entry(DOCKER.to_owned()).or_default().insert(name.to_owned(), content);
            Ok::<(), Exit>(())
        };
        match key.as_str() {
            "host" => found.host.clone_from(value),
            "ca" => file(FILES[0], &mut tls)?,
            "cert" => file(FILES[1], &mut tls)?,
            "key" => file(FILES[2], &mut tls)?,
            _ => {
                found.unverified = match value.as_str() {
                    "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                    "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                    other => return Err(failed(format!("skip-tls-verify: parsing {other:?}: invalid syntax"))),
                }
            }
        }
    }
    if !found.host.is_empty() && wharf_api_client::Host::parse(&found.host).is_err() {
        return Err(failed(format!(
            "unable to apply docker endpoint options: unable to parse docker host `{}`",
            found.host
        )));
    }
    Ok((found, tls))
}

fn describe(meta: &mut Meta, m: &Matches) {
    if m.changed("description") {
        meta.metadata.remove("Description");
        if !m.text("description").is_empty() {
            meta.metadata.insert("Description".to_owned(), m.text("description").into());
        }
    }
}

/// `docker context create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let name = m.first();
    store::check_name(name)?;
    if store::exists(shell.folder(), name) {
        return Err(Exit::new(format!("context \"{name}\" already exists")));
    }
    let (mut meta, mut tls) = match (m.text("from"), m.changed("docker")) {
        // The one in use is copied, as with Docker.
        ("", false) => load(shell, &shell.context())?,
        ("", true) => (Meta::default(), TlsFiles::new()),
        (from, _) => load(shell, from)?,
    };
    name.clone_into(&mut meta.name);
    describe(&mut meta, m);
    if m.changed("docker") {
        let (endpoint, files) = endpoint(shell, m)?;
        meta.endpoints.insert(DOCKER.to_owned(), endpoint);
        tls = files;
    }
    store::write(shell.folder(), &meta, &tls)?;
    shell.line(name)?;
    shell.warn(&format!("Successfully created context \"{name}\""));
    Ok(())
}

/// A context with its files; the default one has what the environment says.
fn load(shell: &Shell, name: &str) -> Result<(Meta, TlsFiles), Exit> {
    if name != DEFAULT_CONTEXT {
        return Ok((store::read(shell.folder(), name)?, store::read_tls(shell.folder(), name)));
    }
    let mut meta = Meta::default();
    let endpoint = Endpoint { host: shell.default_host(), unverified: false };
    meta.endpoints.insert(DOCKER.to_owned(), endpoint);
    Ok((meta, TlsFiles::new()))
}

/// `docker context update`.
pub fn update(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let name = m.first();
    store::check_name(name)?;
    let (mut meta, mut tls) = load(shell, name)?;
    describe(&mut meta, m);
    if m.changed("docker") {
        let (endpoint, files) = endpoint(shell, m)?;
        meta.endpoints.insert(DOCKER.to_owned(), endpoint);
        tls.remove(DOCKER);
        tls.extend(files);
    }
    store::write(shell.folder(), &meta, &tls)?;
    shell.line(name)?;
    shell.warn(&format!("Successfully updated context \"{name}\""));
    Ok(())
}

/// `docker context rm`.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (current, force) = (shell.context(), m.bool("force"));
    let remove = |name: &str| {
        if name == DEFAULT_CONTEXT {
            return Err(Exit::new("context \"default\" cannot be removed"));
        }
        if !store::exists(shell.folder(), name) {
            return if force { Ok(()) } else { Err(Exit::new(format!("context \"{name}\" does not exist"))) };
        }
        if name == current {
            if !force {
                return Err(Exit::new(format!("context \"{name}\" is in use, set -f flag to force remove")));
            }
            config::store(shell.folder(), "currentContext", None)?;
        }
        store::remove(shell.folder(), name)
    };
    crate::shell::each(shell, &m.args, true, remove)
}

/// `docker context use`.
pub fn set(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let name = m.first();
    if name == DEFAULT_CONTEXT {
        config::store(shell.folder(), "currentContext", None)?;
    } else {
        store::check_name(name)?;
        store::read(shell.folder(), name)?;
        config::store(shell.folder(), "currentContext", Some(name.into()))?;
    }
    shell.line(name)?;
    shell.warn(&format!("Current context is now \"{name}\""));
    if name != DEFAULT_CONTEXT && std::env::var_os("DOCKER_HOST").is_some_and(|h| !h.is_empty()) {
        shell.warn(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use \"{name}\", either set the \
             global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(())
}

/// `docker context export`.
pub fn export(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = m.first();
    store::check_name(name)?;
    let (meta, tls) = (store::read(shell.folder(), name)?, store::read_tls(shell.folder(), name));
    let default = format!("{name}.dockercontext");
    let target = m.args.get(1).map_or(default.as_str(), String::as_str);
    if target == "-" {
        if rustix::termios::isatty(rustix::stdio::stdout()) {
            return Err(Exit::new("cowardly refusing to export to a terminal, specify a file path"));
        }
        return store::export(&meta, &tls, &mut io::stdout().lock());
    }
    let mut open = File::options();
    // Keys are for their owner only, and nothing is written over.
    let mut file =
        open.write(true).create_new(true).mode(0o600).open(target).map_err(|e| path_error("open", target, &e))?;
    store::export(&meta, &tls, &mut file)?;
    file.flush()?;
    shell.warn(&format!("Written file \"{target}\""));
    Ok(())
}

/// `docker context import`.
pub fn import(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (name, source) = (m.first(), m.args[1].as_str());
    store::check_name(name)?;
    if store::exists(shell.folder(), name) {
        return Err(Exit::new(format!("context \"{name}\" already exists")));
    }
    let (mut meta, tls) = match source {
        "-" => store::import(&mut io::stdin().lock())?,
        path => store::import(&mut BufReader::new(File::open(path).map_err(|e| path_error("open", path, &e))?))?,
    };
    name.clone_into(&mut meta.name);
    store::write(shell.folder(), &meta, &tls)?;
    shell.line(name)?;
    shell.warn(&format!("Successfully imported context \"{name}\""));
    Ok(())
}
