//! `docker volume`.

use wharf_api_client::{Query, Request};
use wharf_api_types::{StringMap, Volume, VolumeCreateRequest, VolumeList};
use wharf_template::Value;

use super::{path, transfer};
use crate::exit::{Exit, path_error};
use crate::format::Listing;
use crate::format::row::Row;
use crate::format::size;
use crate::parse::Matches;
use crate::shell::{Shell, each};

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// Makes the row of a volume.
pub(super) fn row(v: &Volume) -> Row {
    let (links, used) = match &v.usage_data {
        Some(u) => (u.ref_count.to_string(), size::decimal(u.size as f64)),
        None => ("N/A".to_owned(), "N/A".to_owned()),
    };
    Row::new("*formatter.volumeContext")
        .with("Name", v.name.as_str())
        .with("Driver", v.driver.as_str())
        .with("Scope", v.scope.as_str())
        .with("Mountpoint", v.mountpoint.as_str())
        .with_labels(v.labels.clone().unwrap_or_default())
        .with("Links", links)
        .with("Size", used)
        .with("Group", "N/A")
        .with("Status", "N/A")
        .with("Availability", "N/A")
}

/// `docker volume ls`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    if m.bool("cluster") {
        return Err(Exit::new("--cluster is not available yet: cluster volumes come later"));
    }
    let query = Query::new().with_some("filters", &super::filters(&m.list("filter")));
    let mut volumes: VolumeList = shell.client()?.call(Request::get("/volumes").query(query))?.parse()?;
    volumes.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Value> = volumes.volumes.iter().map(|v| row(v).value()).collect();
    let quiet = m.bool("quiet");
    let configured = if m.changed("format") || quiet { "" } else { shell.config().volumes_format.as_str() };
    let format = match (quiet, if configured.is_empty() { m.text("format") } else { configured }) {
        (true, "" | "table") => "{{.Name}}",
        (_, f) => f,
    };
    shell.print(&Listing { format, table: "{{.Driver}}\t{{.Name}}", headers: HEADERS }.render(&rows)?)
}

/// `docker volume create`.
pub fn create(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    for flag in [
        "availability",
        "group",
        "limit-bytes",
        "required-bytes",
        "scope",
        "secret",
        "sharing",
        "topology-preferred",
        "topology-required",
        "type",
    ] {
        if m.changed(flag) {
            return Err(Exit::new(format!("--{flag} is not available yet: cluster volumes come later")));
        }
    }
    if m.changed("name") && !m.args.is_empty() {
        return Err(Exit::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let map = |flag: &str| -> Option<StringMap> {
        let map: StringMap = m
            .list(flag)
            .iter()
            .map(|v| {
                let (k, v) = v.split_once('=').unwrap_or((v, ""));
                (k.to_owned(), v.to_owned())
            })
            .collect();
        if map.is_empty() { None } else { Some(map) }
    };
    let mut options = map("opt");
    for extra in ["uid", "gid", "size"] {
        if m.changed(extra) {
            options.get_or_insert_default().insert(extra.to_owned(), m.text(extra).to_owned());
        }
    }
    let name = if m.args.is_empty() { m.text("name") } else { m.first() };
    let request = VolumeCreateRequest {
        name: name.to_owned(),
        driver: m.text("driver").to_owned(),
        driver_opts: options,
        labels: map("label"),
    };
    let body = serde_json::to_vec(&request).map_err(|e| Exit::new(e.to_string()))?;
    let made: Volume = shell.client()?.call(Request::post("/volumes/create").json(body))?.parse()?;
    shell.line(&made.name)
}

/// `docker volume rename` (Wharf extra).
pub fn rename(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with("name", &m.args[1]);
    shell.client()?.call(Request::post(path("volumes", m.first(), "/rename")).query(query))?;
    Ok(())
}

/// `docker volume clone` (Wharf extra).
pub fn clone(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with("name", &m.args[1]);
    let made: Volume =
        shell.client()?.call(Request::post(path("volumes", m.first(), "/clone")).query(query))?.parse()?;
    shell.line(&made.name)
}

/// `docker volume export` (Wharf extra).
pub fn export(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let output = m.text("output");
    if output.is_empty() && crate::terminal::stdout_is() {
        return Err(Exit::new("cowardly refusing to export to a terminal. Use the -o flag or redirect"));
    }
    transfer::check_output(output)?;
    let mut answer = shell.client()?.open(Request::get(path("volumes", m.first(), "/export")))?;
    transfer::write_output(&mut answer, output)
}

/// `docker volume import` (Wharf extra).
pub fn import(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let send = |source: &mut dyn std::io::Read| {
        let request = Request::new("PUT", path("volumes", m.first(), "/import")).stream("application/x-tar", source);
        client.call(request)
    };
    match m.args.get(1).map_or("-", String::as_str) {
        "-" => send(&mut std::io::stdin().lock())?,
        file => send(&mut std::fs::File::open(file).map_err(|e| path_error("open", file, &e))?)?,
    };
    Ok(())
}

/// `docker volume rm`.
pub fn remove(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let client = shell.client()?;
    let query = Query::new().with_flag("force", m.bool("force"));
    each(shell, &m.args, true, |name| {
        client.call(Request::delete(path("volumes", name, "")).query(query.clone()))?;
        Ok(())
    })
}
