//! `docker push` and `docker search`.

use wharf_api_client::{Query, Request};
use wharf_api_types::{Progress, SearchResult};
use wharf_template::Value;

use super::{path, progress};
use crate::credentials::{Keeping, server_of};
use crate::exit::Exit;
use crate::format::Listing;
use crate::format::row::{Row, ellipsis};
use crate::parse::Matches;
use crate::shell::Shell;
use crate::{platform, reference};

/// Width of a description where it is not shown whole.
const DESCRIPTION: usize = 45;

const SEARCH_HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

/// The header with the login of an image's registry.
///
/// # Errors
/// Those of a credential helper. A configuration that cannot be read counts as empty, as everywhere.
pub fn auth_header(shell: &Shell, image: &str) -> Result<String, Exit> {
    let server = server_of(image);
    match Keeping::open(shell.folder()) {
        Ok(keeping) => Ok(keeping.get(&server)?.header()),
        Err(_) => Ok(crate::credentials::Login::default().header()),
    }
}

/// `docker push`.
pub fn push(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let r = reference::parse(m.first()).map_err(Exit::new)?;
    let (all, quiet) = (m.bool("all-tags"), m.bool("quiet"));
    let tag = match (&r.tag, all) {
        (Some(_), true) => return Err(Exit::new("tag can't be used with --all-tags/-a")),
        (Some(tag), false) => tag.clone(),
        (None, true) => String::new(),
        (None, false) => {
            if !quiet {
                shell.line("Using default tag: latest")?;
            }
            "latest".to_owned()
        }
    };
    let mut query = Query::new().with("tag", &tag);
    if !m.text("platform").is_empty() {
        let full = platform::parse(m.text("platform")).map_err(|e| Exit::new(format!("invalid platform: {e}")))?;
        let mut parts = full.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        let mut object = serde_json::json!({ "architecture": architecture, "os": os });
        if let Some(v) = variant {
            object["variant"] = v.into();
        }
        query = query.with("platform", &object.to_string());
        if !quiet {
            note(
                shell,
                &[
                    "Using --platform pushes only the specified platform manifest of a multi-platform image index.",
                    "Other components, like attestations, will not be included.",
                    "To push the complete multi-platform image, remove the --platform flag.",
                ],
            )?;
        }
    }
    let name = r.full_name();
    let header = auth_header(shell, &name)?;
    let request = Request::post(path("images", &name, "/push")).query(query).header("X-Registry-Auth", header);
    let mut answer = shell.client()?.open(request)?;
    let mut instead = Vec::new();
    let mut hear = |p: &Progress| {
        if let Some(aux) = &p.aux {
            instead.extend(pushed_instead(aux));
        }
    };
    match quiet {
        true => progress::drain_with(&mut answer, &mut hear)?,
        false => progress::show_with(shell, &mut answer, false, &mut hear)?,
    }
    if quiet {
        let shown = if tag.is_empty() { r.name.clone() } else { format!("{}:{tag}", r.name) };
        shell.line(&shown)?;
    }
    for (index, manifest) in instead {
        let change = format!("{index} -> {manifest}");
        note(
            shell,
            &[
                "Not all multiplatform-content is present and only the available single-platform image was pushed",
                &change,
            ],
        )?;
    }
    Ok(())
}

fn note(shell: &Shell, lines: &[&str]) -> Result<(), Exit> {
    shell.line(&format!("\n Info -> {}", lines.join("\n         ")))
}

/// The two digests of a push that sent one manifest in its index's place.
fn pushed_instead(aux: &serde_json::Value) -> Option<(String, String)> {
    if aux.get("manifestPushedInsteadOfIndex").and_then(serde_json::Value::as_bool) != Some(true) {
        return None;
    }
    let digest = |key: &str| Some(aux.get(key)?.get("digest")?.as_str()?.to_owned());
    Some((digest("originalIndex")?, digest("selectedManifest")?))
}

/// `docker search`.
pub fn search(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let term = m.first();
    let header = auth_header(shell, term)?;
    let filters = super::filters(&m.list("filter"));
    let mut query = Query::new().with_some("filters", &filters);
    if m.changed("limit") && m.int("limit") != 0 {
        query = query.with("limit", &m.int("limit").to_string());
    }
    let request = Request::get("/images/search").query(query.with("term", term)).header("X-Registry-Auth", header);
    let mut found: Vec<SearchResult> = shell.client()?.call(request)?.parse()?;
    found.sort_by_key(|f| std::cmp::Reverse(f.star_count));
    let full = m.bool("no-trunc");
    let rows: Vec<Value> = found.iter().map(|f| row(f, full)).collect();
    let table = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
    shell.print(&Listing { format: m.text("format"), table, headers: SEARCH_HEADERS }.render(&rows)?)
}

fn row(found: &SearchResult, full: bool) -> Value {
    let description = found.description.replace(['\n', '\r'], " ");
    let mark = |on: bool| if on { "[OK]" } else { "" };
    Row::new("*formatter.searchContext")
        .with("Name", found.name.as_str())
        .with("Description", if full { description } else { ellipsis(&description, DESCRIPTION) })
        .with("StarCount", found.star_count.to_string())
        .with("IsOfficial", mark(found.is_official))
        .with("IsAutomated", mark(found.is_automated))
        .value()
}
