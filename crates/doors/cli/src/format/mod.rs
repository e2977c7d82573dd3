//! How lists and objects are printed: tables, templates, JSON, sizes and times.

pub mod column;
pub mod json;
pub mod moment;
pub mod row;
pub mod size;

use wharf_template::{FunctionSet, MissingKey, Template, Value};

use crate::exit::Exit;

/// A list about to be printed in the format the user asked for.
pub struct Listing<'a> {
    /// What the user asked for; empty for the table.
    pub format: &'a str,
    /// The template of the table.
    pub table: &'a str,
    /// Titles by field.
    pub headers: &'a [(&'a str, &'a str)],
}

impl Listing<'_> {
    /// Prints the rows.
    ///
    /// # Errors
    /// `template parsing error: …`, as Docker.
    pub fn render(&self, rows: &[Value]) -> Result<String, Exit> {
        let (text, table) = match self.format {
            "" | "table" => (self.table, true),
            "json" => ("{{json .}}", false),
            f => match f.strip_prefix("table") {
                Some(rest) => (rest, true),
                None => (f, false),
            },
        };
        let text = unescape(text.trim_matches(' '));
        let wrong = |e: &dyn std::fmt::Display| Exit::new(format!("template parsing error: {e}"));
        let template = Template::parse("", &text).map_err(|e| wrong(&e))?;
        let mut body = String::new();
        for row in rows {
            template.execute(row, FunctionSet::Docker, MissingKey::NoValue, &mut body).map_err(|e| wrong(&e))?;
            body.push('\n');
        }
        if !table {
            return Ok(body);
        }
        let titles = self.headers.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
        let mut out = String::new();
        // As in Docker, a header that cannot be printed does not keep the rows from being printed.
        let _ = template.execute(&Value::map(titles), FunctionSet::Header, MissingKey::NoValue, &mut out);
        out.push('\n');
        out.push_str(&body);
        Ok(column::align(&out))
    }
}

/// Reads `\t` and `\n` as a shell's user writes them.
pub fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}
