//! `docker context`, as far as contexts are read: `ls`, `show`, `inspect`.

use wharf_template::Value;

use crate::config;
use crate::exit::Exit;
use crate::format::Listing;
use crate::format::row::Row;
use crate::parse::Matches;
use crate::shell::{DEFAULT_CONTEXT, Shell};

const HEADERS: &[(&str, &str)] =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR")];

/// `docker context show`.
pub fn show(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    shell.line(&shell.context())
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
        config::context_meta(shell.folder(), name)
    };
    if none {
        let text = find(&current)?;
        return shell.line(&crate::format::json::indent(&format!("[{text}]")));
    }
    super::inspect::print(shell, m, find)
}
