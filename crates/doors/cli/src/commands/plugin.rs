//! `docker plugin`: what a daemon that has managed plugins says of them.

use serde_json::Value as Json;
use wharf_api_client::{Query, Request};
use wharf_template::Value;

use crate::exit::Exit;
use crate::format::Listing;
use crate::format::row::{Row, short_id};
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] =
    &[("ID", "ID"), ("Name", "NAME"), ("Description", "DESCRIPTION"), ("Enabled", "ENABLED")];

/// `docker plugin ls`.
pub fn list(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with_some("filters", &super::filters(&m.list("filter")));
    let plugins: Vec<Json> = shell.client()?.call(Request::get("/plugins").query(query))?.parse()?;
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let full = m.bool("no-trunc");
    let rows: Vec<Value> = plugins
        .iter()
        .map(|p| {
            let id = text(&p["Id"]);
            Row::new("*formatter.pluginContext")
                .with("ID", if full { id } else { short_id(&id) })
                .with("Name", text(&p["Name"]))
                .with("Description", text(&p["Config"]["Description"]))
                .with("Enabled", p["Enabled"].as_bool().unwrap_or_default().to_string())
                .value()
        })
        .collect();
    let format = match (m.bool("quiet"), m.text("format")) {
        (true, "" | "table") => "{{.ID}}",
        (_, format) => format,
    };
    let table = "{{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}";
    shell.print(&Listing { format, table, headers: HEADERS }.render(&rows)?)
}
