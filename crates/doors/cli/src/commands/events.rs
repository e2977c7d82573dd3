//! `docker events`.

use std::io::BufReader;

use wharf_api_client::{Query, Request};
use wharf_template::{FunctionSet, MissingKey, Template};

use crate::exit::Exit;
use crate::format::moment;
use crate::parse::Matches;
use crate::shape::Json;
use crate::shell::Shell;

/// `docker events`.
pub fn events(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let format = match m.text("format") {
        "json" => "{{json .}}",
        f => f,
    };
    let template = match format {
        "" => None,
        f => {
            Some(Template::parse("", f).map_err(|e| Exit { message: format!("Error parsing format: {e}"), code: 64 })?)
        }
    };
    let time = |flag: &str| moment::since(m.text(flag)).map_err(Exit::new);
    let query = Query::new()
        .with_some("filters", &super::filters(&m.list("filter")))
        .with_some("since", &time("since")?)
        .with_some("until", &time("until")?);
    let answer = shell.client()?.open(Request::get("/events").query(query))?;
    let stream = serde_json::Deserializer::from_reader(BufReader::with_capacity(64 << 10, answer)).into_iter::<Json>();
    for event in stream {
        let event = match event {
            Ok(e) => e,
            // The daemon went away; what came was whole.
            Err(e) if e.is_io() || e.is_eof() => return Ok(()),
            Err(e) => return Err(Exit::new(e.to_string())),
        };
        let text = match &template {
            Some(t) => {
                let mut out = String::new();
                t.execute(&event.typed("events.Message"), FunctionSet::Docker, MissingKey::NoValue, &mut out)
                    .map_err(|e| Exit::new(e.to_string()))?;
                out
            }
            None => line(&event),
        };
        shell.line(&text)?;
    }
    Ok(())
}

fn get<'a>(json: &'a Json, key: &str) -> Option<&'a Json> {
    match json {
        Json::Object(fields) => fields.iter().find(|f| f.0 == key).map(|f| &f.1),
        _ => None,
    }
}

fn text(json: Option<&Json>) -> String {
    match json {
        Some(Json::Plain(v)) => wharf_template::format_value(v),
        _ => String::new(),
    }
}

/// `TIME TYPE ACTION ID (key=value, …)`.
fn line(event: &Json) -> String {
    let nanos = match get(event, "timeNano") {
        Some(Json::Plain(wharf_template::Value::Int(n))) if *n != 0 => *n,
        _ => match get(event, "time") {
            Some(Json::Plain(wharf_template::Value::Int(s))) => s.saturating_mul(1_000_000_000),
            _ => 0,
        },
    };
    let actor = get(event, "Actor");
    let mut out = format!(
        "{} {} {} {}",
        moment::nanos_local(nanos),
        text(get(event, "Type")),
        text(get(event, "Action")),
        text(actor.and_then(|a| get(a, "ID")))
    );
    if let Some(Json::Object(attributes)) = actor.and_then(|a| get(a, "Attributes"))
        && !attributes.is_empty()
    {
        let mut pairs: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={}", text(Some(v)))).collect();
        pairs.sort();
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}
