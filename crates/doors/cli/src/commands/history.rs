//! `docker history`.

use wharf_api_client::{Query, Request};
use wharf_api_types::ImageHistoryItem;
use wharf_template::Value;

use super::path;
use crate::exit::Exit;
use crate::format::row::{Row, ellipsis, short_id};
use crate::format::{Listing, moment, size};
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// `docker history`.
pub fn history(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let mut query = Query::new();
    if !m.text("platform").is_empty() {
        query = query.with("platform", &super::transfer::platform_json(m.text("platform"))?);
    }
    let reply = shell.client()?.call(Request::get(path("images", m.first(), "/history")).query(query))?;
    let items: Vec<ImageHistoryItem> = reply.parse()?;
    let (full, human) = (m.bool("no-trunc"), m.bool("human"));
    let rows: Vec<Value> = items.iter().map(|i| row(i, full, human)).collect();
    let format = match (m.bool("quiet"), m.text("format")) {
        (true, "" | "table") => "{{.ID}}",
        (_, f) => f,
    };
    let created = if human { "{{.CreatedSince}}" } else { "{{.CreatedAt}}" };
    let table = format!("{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    shell.print(&Listing { format, table: &table, headers: HEADERS }.render(&rows)?)
}

fn row(item: &ImageHistoryItem, full: bool, human: bool) -> Value {
    let by = item.created_by.replace('\t', " ");
    let rfc = jiff::Timestamp::from_second(item.created).map(|t| t.to_string()).unwrap_or_default();
    Row::new("*image.historyContext")
        .with("ID", if full { item.id.clone() } else { short_id(&item.id) })
        .with("CreatedSince", if human { moment::ago(item.created) } else { rfc.clone() })
        .with("CreatedAt", rfc)
        .with("CreatedBy", if full { by } else { ellipsis(&by, 45) })
        .with("Size", if human { size::decimal_short(item.size as f64) } else { item.size.to_string() })
        .with("Comment", item.comment.as_str())
        .value()
}
