//! `docker ps`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_api_client::{Query, Request};
use wharf_api_types::{ContainerSummary, OciPlatform, Port};
use wharf_template::{Nil, Record, Template, Value};

use crate::exit::Exit;
use crate::format::row::{Row, ellipsis, short_id};
use crate::format::{Listing, moment, size, unescape};
use crate::parse::Matches;
use crate::shell::Shell;

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// `docker ps`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let quiet = m.bool("quiet");
    let configured = if m.changed("format") || quiet { "" } else { shell.config().ps_format.as_str() };
    let format = if configured.is_empty() { m.text("format") } else { configured };
    let wants_size = m.bool("size") || mentions_size(format)?;
    let filters = super::filters(&m.list("filter"));
    let last = if m.bool("latest") { 1 } else { m.int("last") };
    let mut query = Query::new().with_flag("all", m.bool("all") || last > 0);
    query = query.with_some("filters", &filters);
    if last > 0 {
        query = query.with("limit", &last.to_string());
    }
    query = query.with_flag("size", wants_size);
    let reply = shell.client()?.call(Request::get("/containers/json").query(query))?;
    let containers: Vec<ContainerSummary> = reply.parse()?;
    let full = m.bool("no-trunc");
    let rows: Vec<Value> = containers.iter().map(|c| row(c, full)).collect();
    let table = if m.bool("size") { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
    if quiet && m.changed("format") && !format.is_empty() {
        shell.warn("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let format = if quiet { "{{.ID}}" } else { format };
    shell.print(&Listing { format, table: &table, headers: HEADERS }.render(&rows)?)
}

/// Whether a format prints sizes, which the daemon measures only when asked to; reports fields that do not exist.
fn mentions_size(format: &str) -> Result<bool, Exit> {
    if matches!(format, "" | "table" | "json" | "raw") {
        return Ok(false);
    }
    let text = unescape(format.strip_prefix("table").unwrap_or(format).trim_matches(' '));
    let template = Template::parse("", &text).map_err(|e| Exit::new(format!("failed to parse template: {e}")))?;
    template
        .render(&row(&ContainerSummary::default(), true))
        .map_err(|e| Exit::new(format!("failed to execute template: {e}")))?;
    // JSON of a whole row has the size too.
    Ok([".Size", "json .}", "json . "].iter().any(|t| text.contains(t)))
}

pub(super) fn row(c: &ContainerSummary, full: bool) -> Value {
    let command = if full { c.command.clone() } else { ellipsis(&c.command, 20) };
    let mounts: Vec<String> = c
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if full { name.clone() } else { ellipsis(name, 15) }
        })
        .collect();
    let local = c.mounts.iter().filter(|mount| mount.driver == "local").count();
    let platform = match c.image_manifest_descriptor.as_ref().and_then(|d| d.platform.as_ref()) {
        Some(p) => Value::Record(Arc::new(Platform(p.clone()))),
        None => Value::Nil(Nil::Pointer),
    };
    Row::new("*formatter.ContainerContext")
        .with("ID", if full { c.id.clone() } else { short_id(&c.id) })
        .with("Names", names(&c.names, full))
        .with("Image", image(c, full))
        .with("Command", crate::value::quoted(&command))
        .with("CreatedAt", moment::go_local(c.created))
        .with("RunningFor", moment::ago(c.created))
        .with("Ports", ports(&c.ports))
        .with("State", c.state.as_str())
        .with("Status", c.status.as_str())
        .with("Size", sizes(c.size_rw, c.size_root_fs))
        .with_labels(c.labels.clone())
        .with("LocalVolumes", local.to_string())
        .with("Mounts", mounts.join(","))
        .with("Networks", networks(c))
        .with("Platform", platform)
        .value()
}

/// A platform prints as `linux/amd64`, in JSON it is an object.
#[derive(Debug)]
struct Platform(OciPlatform);

impl Record for Platform {
    fn type_name(&self) -> &str {
        "*formatter.Platform"
    }

    fn field(&self, _: &str) -> Option<Value> {
        None
    }

    fn fields(&self) -> Vec<(String, Value)> {
        let all = [("architecture", &self.0.architecture), ("os", &self.0.os), ("variant", &self.0.variant)];
        all.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect()
    }

    fn text(&self) -> Option<String> {
        let parts = [&self.0.os, &self.0.architecture, &self.0.variant];
        Some(parts.iter().filter(|p| !p.is_empty()).map(|p| p.as_str()).collect::<Vec<_>>().join("/"))
    }
}

fn sizes(written: i64, whole: i64) -> String {
    let written_text = size::decimal_short(written as f64);
    if whole > 0 {
        return format!("{written_text} (virtual {})", size::decimal_short(whole as f64));
    }
    written_text
}

/// Names without their leading slash; names that links gave are left out unless everything is asked for.
fn names(all: &[String], full: bool) -> String {
    let stripped: Vec<&str> = all.iter().map(|n| n.strip_prefix('/').unwrap_or(n)).collect();
    if !full && let Some(own) = stripped.iter().find(|n| !n.contains('/')) {
        return (*own).to_owned();
    }
    stripped.join(",")
}

fn image(c: &ContainerSummary, full: bool) -> String {
    if c.image.is_empty() {
        return "<no image>".into();
    }
    if full {
        return c.image.clone();
    }
    if short_id(&c.image_id) == short_id(&c.image) {
        return short_id(&c.image);
    }
    // The digest of a reference that also has a tag is left out.
    match c.image.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|n| n.contains(':')) => name.to_owned(),
        _ => c.image.clone(),
    }
}

fn networks(c: &ContainerSummary) -> String {
    c.network_settings.networks.keys().cloned().collect::<Vec<_>>().join(",")
}

/// Published ports, with runs of neighbours joined: `0.0.0.0:80-82->80-82/tcp, 53/udp`.
pub fn ports(all: &[Port]) -> String {
    let mut all: Vec<&Port> = all.iter().collect();
    all.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.r#type).cmp(&(b.private_port, &b.ip, b.public_port, &b.r#type))
    });
    let mut groups: BTreeMap<String, (u16, u16)> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut joined: Vec<String> = Vec::new();
    let mut mapped: Vec<String> = Vec::new();
    for port in all {
        let mut key = port.r#type.clone();
        if !port.ip.is_empty() {
            if port.public_port != port.private_port {
                mapped.push(format!(
                    "{}->{}/{}",
                    join_host_port(&port.ip, &port.public_port.to_string()),
                    port.private_port,
                    port.r#type
                ));
                continue;
            }
            key = format!("{}/{}", port.ip, port.r#type);
        }
        match groups.get_mut(&key) {
            None => {
                groups.insert(key.clone(), (port.private_port, port.private_port));
                order.push(key);
            }
            Some(g) if port.private_port == g.1 + 1 => g.1 = port.private_port,
            Some(g) => {
                joined.push(group_text(&key, g.0, g.1));
                *g = (port.private_port, port.private_port);
            }
        }
    }
    for key in order {
        let (first, last) = groups[&key];
        joined.push(group_text(&key, first, last));
    }
    joined.extend(mapped);
    joined.join(", ")
}

fn join_host_port(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn group_text(key: &str, first: u16, last: u16) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match key.rsplit_once('/') {
        Some((ip, protocol)) => format!("{}->{range}/{protocol}", join_host_port(ip, &range)),
        None => format!("{range}/{key}"),
    }
}
