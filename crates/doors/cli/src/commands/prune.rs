//! `docker container prune` and its kind.

use std::io::{BufRead, Write};

use wharf_api_client::{Query, Request};
use wharf_api_types::{ContainerPruneResponse, ImagePruneResponse, NetworkPruneResponse, VolumePruneResponse};

use super::filters;
use crate::exit::Exit;
use crate::format::size;
use crate::parse::Matches;
use crate::shell::Shell;

/// Asks before deleting, unless told not to; returns whether to go on.
pub(super) fn confirmed(m: &Matches, what: &str) -> Result<bool, Exit> {
    if m.bool("force") {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "WARNING! {what}\nAre you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

/// Deletes; the extra filter stands for `--all`.
fn ask(shell: &Shell, m: &Matches, kind: &str, extra: &str) -> Result<wharf_api_client::Reply, Exit> {
    let mut values = m.list("filter");
    if !extra.is_empty() {
        values.push(extra);
    }
    let query = Query::new().with_some("filters", &filters(&values));
    Ok(shell.client()?.call(Request::post(format!("/{kind}/prune")).query(query))?)
}

fn listing(title: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{title}:\n{}\n\n", names.join("\n")) }
}

fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}\n", size::decimal(bytes as f64))
}

/// `docker container prune`.
pub fn containers(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if !confirmed(m, "This will remove all stopped containers.")? {
        return Ok(());
    }
    let r: ContainerPruneResponse = ask(shell, m, "containers", "")?.parse()?;
    let names = r.containers_deleted.unwrap_or_default();
    shell.print(&(listing("Deleted Containers", &names) + &reclaimed(r.space_reclaimed)))
}

/// `docker image prune`.
pub fn images(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let all = m.bool("all");
    let what = if all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    let dry = m.bool("dry-run");
    if !dry && !confirmed(m, what)? {
        return Ok(());
    }
    let mut wanted = m.list("filter");
    wanted.push(if all { "dangling=false" } else { "dangling=true" });
    let mut query = Query::new().with_some("filters", &filters(&wanted));
    if dry {
        query = query.with("dry-run", "1");
    }
    let r: ImagePruneResponse = shell.client()?.call(Request::post("/images/prune").query(query))?.parse()?;
    let names: Vec<String> = r
        .images_deleted
        .unwrap_or_default()
        .into_iter()
        .map(|i| {
            if i.untagged.is_empty() { format!("deleted: {}", i.deleted) } else { format!("untagged: {}", i.untagged) }
        })
        .collect();
    if dry {
        let space = size::decimal(r.space_reclaimed as f64);
        return shell.print(&format!("{}Reclaimable space: {space}\n", listing("Would Delete Images", &names)));
    }
    shell.print(&(listing("Deleted Images", &names) + &reclaimed(r.space_reclaimed)))
}

/// `docker network prune`.
pub fn networks(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if !confirmed(m, "This will remove all custom networks not used by at least one container.")? {
        return Ok(());
    }
    let r: NetworkPruneResponse = ask(shell, m, "networks", "")?.parse()?;
    shell.print(&listing("Deleted Networks", &r.networks_deleted.unwrap_or_default()))
}

/// `docker volume prune`.
pub fn volumes(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let all = m.bool("all");
    let what = if all {
        "This will remove all local volumes not used by at least one container."
    } else {
        "This will remove anonymous local volumes not used by at least one container."
    };
    if !confirmed(m, what)? {
        return Ok(());
    }
    let r: VolumePruneResponse = ask(shell, m, "volumes", if all { "all=true" } else { "" })?.parse()?;
    shell.print(&(listing("Deleted Volumes", &r.volumes_deleted) + &reclaimed(r.space_reclaimed)))
}
