//! The daemon's own log on standard error, in the forms of dockerd: `time="…" level=info msg="…" key=value`, or JSON lines.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};
use wharf_types::Timestamp;

use crate::settings::Settings;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// logfmt.
    Text,
    /// One JSON object a line.
    Json,
}

/// The level that is asked for.
pub fn level(settings: &Settings) -> LevelFilter {
    let name = if settings.switch("debug") { "debug" } else { settings.text("log-level") };
    let level = match name {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "warn" | "warning" => Level::WARN,
        "error" | "fatal" | "panic" => Level::ERROR,
        _ => Level::INFO,
    };
    LevelFilter::from_level(level)
}

/// Changes the level of a log that was started.
pub type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// Starts logging. Called once.
pub fn start(form: Form, level: LevelFilter) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Line(form));
    tracing_subscriber::registry().with(filter).with(lines).init();
    handle
}

struct Line(Form);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::TRACE => "trace",
            Level::DEBUG => "debug",
            Level::INFO => "info",
            Level::WARN => "warning",
            Level::ERROR => "error",
        };
        let time = Timestamp::now().fixed_nanos();
        match self.0 {
            Form::Text => {
                write!(writer, "time={time:?} level={level} msg={:?}", fields.message)?;
                for (name, value) in &fields.others {
                    write!(writer, " {name}={}", quoted(value))?;
                }
            }
            Form::Json => {
                let mut object = serde_json::Map::new();
                object.insert("level".to_owned(), level.into());
                object.insert("msg".to_owned(), fields.message.into());
                object.insert("time".to_owned(), time.into());
                object.extend(fields.others.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
                write!(writer, "{}", serde_json::Value::Object(object))?;
            }
        }
        writeln!(writer)
    }
}

/// A value as it is if it is one plain word, else in quotes.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c);
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { format!("{value:?}") }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = write!(text, "{value:?}");
        self.put(field, text);
    }
}
