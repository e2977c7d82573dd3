//! `docker images`, `docker tag` and `docker rmi`.

use std::collections::BTreeMap;

use wharf_api_client::{Query, Request};
use wharf_api_types::{ImageDeleteItem, ImageSummary};
use wharf_template::Value;

use super::{path, tree};
use crate::exit::Exit;
use crate::format::row::{Row, short_id};
use crate::format::{Listing, moment, size};
use crate::parse::Matches;
use crate::reference;
use crate::shell::Shell;

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// The title of an image without a name.
const NONE: &str = "<none>";

/// `docker images`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if m.bool("tree") {
        tree::check(m)?;
    }
    let mut filters = m.list("filter");
    let named = m.args.first().map(|r| format!("reference={r}"));
    filters.extend(named.as_deref());
    let query = Query::new().with_flag("all", m.bool("all")).with_some("filters", &super::filters(&filters));
    let query = query.with_flag("manifests", m.bool("tree"));
    let reply = shell.client()?.call(Request::get("/images/json").query(query))?;
    let images: Vec<ImageSummary> = reply.parse()?;
    if m.bool("tree") {
        return tree::print(shell, m, images);
    }
    let quiet = m.bool("quiet");
    let configured = if m.changed("format") || quiet { "" } else { shell.config().images_format.as_str() };
    let format = if configured.is_empty() { m.text("format") } else { configured };
    let digests = m.bool("digests") || format.contains(".Digest");
    let rows: Vec<Value> = images.iter().flat_map(|i| rows(i, digests, m.bool("no-trunc"))).collect();
    let format = match (quiet, format) {
        (true, "" | "table") => "{{.ID}}",
        (_, f) => f,
    };
    let table = if m.bool("digests") {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    shell.print(&Listing { format, table, headers: HEADERS }.render(&rows)?)
}

/// Returns the rows of an image: one for each tag, or for each digest where digests are shown.
pub(super) fn rows(image: &ImageSummary, digests: bool, full: bool) -> Vec<Value> {
    names(&image.repo_tags, &image.repo_digests, digests)
        .into_iter()
        .map(|(repository, tag, digest)| row(image, repository, tag, digest, full))
        .collect()
}

/// Returns the one row of an image in `docker system df -v`: its first tag.
pub(super) fn first_row(image: &ImageSummary, full: bool) -> Value {
    let first = image.repo_tags.first().and_then(|tag| reference::parse(tag).ok());
    let (name, tag) = first.and_then(|r| Some((r.name, r.tag?))).unwrap_or_else(|| (NONE.to_owned(), NONE.to_owned()));
    row(image, name, tag, NONE.to_owned(), full)
}

fn names(tags: &[String], repo_digests: &[String], show_digests: bool) -> Vec<(String, String, String)> {
    let mut by_name: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for tag in tags {
        if let Ok(r) = reference::parse(tag)
            && let Some(t) = r.tag
        {
            by_name.entry(r.name).or_default().0.push(t);
        }
    }
    for digest in repo_digests {
        if let Ok(r) = reference::parse(digest)
            && let Some(d) = r.digest
        {
            by_name.entry(r.name).or_default().1.push(d);
        }
    }
    let none = || NONE.to_owned();
    let mut all = Vec::new();
    for (name, (tags, digests)) in by_name {
        let shown = if show_digests && !digests.is_empty() { digests } else { vec![none()] };
        let tags = if tags.is_empty() { vec![none()] } else { tags };
        for t in &tags {
            for d in &shown {
                all.push((name.clone(), t.clone(), d.clone()));
            }
        }
    }
    if all.is_empty() {
        all.push((none(), none(), none()));
    }
    all
}

fn row(image: &ImageSummary, repository: String, tag: String, digest: String, full: bool) -> Value {
    let counted = |n: i64| if n == -1 { "N/A".into() } else { size::decimal(n as f64) };
    let whole = size::decimal_short(image.size as f64);
    Row::new("*formatter.imageContext")
        .with("ID", if full { image.id.clone() } else { short_id(&image.id) })
        .with("Repository", repository)
        .with("Tag", tag)
        .with("Digest", digest)
        .with("CreatedSince", if image.created <= 0 { "N/A".into() } else { moment::ago(image.created) })
        .with("CreatedAt", moment::go_local(image.created))
        .with("Size", whole.as_str())
        .with("VirtualSize", whole)
        .with("Containers", if image.containers == -1 { "N/A".into() } else { image.containers.to_string() })
        .with("SharedSize", counted(image.shared_size))
        .with(
            "UniqueSize",
            if image.shared_size == -1 { "N/A".into() } else { counted(image.size - image.shared_size) },
        )
        .value()
}

/// `docker tag`.
pub fn tag(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (source, target) = (&m.args[0], &m.args[1]);
    for text in [source, target] {
        if let Err(e) = reference::parse(text)
            && (text == target || e.contains("invalid reference format"))
        {
            return Err(Exit::new(format!(
                "Error parsing reference: {} is not a valid repository/tag: {e}",
                crate::value::quoted(text)
            )));
        }
    }
    // The target was parsed above.
    let Ok(r) = reference::parse(target) else { return Ok(()) };
    if r.digest.is_some() {
        return Err(Exit::new("refusing to create a tag with a digest reference"));
    }
    let query = Query::new().with("repo", &r.full_name()).with("tag", r.tag.as_deref().unwrap_or("latest"));
    shell.client()?.call(Request::post(path("images", source, "/tag")).query(query))?;
    Ok(())
}

/// `docker rmi`. With `--force`, an image that is not there is told of but is no failure.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let force = m.bool("force");
    let mut query = Query::new().with_flag("force", force).with_flag("noprune", m.bool("no-prune"));
    for p in m.strings("platform") {
        query = query.with("platforms", &super::transfer::platform_json(&p)?);
    }
    let (mut failures, mut fatal) = (Vec::new(), false);
    for name in &m.args {
        let removed = client
            .call(Request::delete(path("images", name, "")).query(query.clone()))
            .and_then(|r| r.parse::<Vec<ImageDeleteItem>>());
        match removed {
            Ok(items) => {
                for item in items {
                    if item.deleted.is_empty() {
                        shell.line(&format!("Untagged: {}", item.untagged))?;
                    } else {
                        shell.line(&format!("Deleted: {}", item.deleted))?;
                    }
                }
            }
            Err(e) => {
                fatal |= e.status() != Some(404);
                failures.push(e.to_string());
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let message = failures.join("\n");
    if force && !fatal {
        shell.warn(&message);
        return Ok(());
    }
    Err(Exit::new(message))
}
