//! Go's `text/template` as Docker uses it for `--format` and log tags.
//!
//! [`Template::parse`] takes the text, [`Template::execute`] fills it from a [`Value`]. Values come from JSON
//! ([`Value::from_json`] keeps the order of keys), from `serde_json::Value`, or from any [`Record`], which stands
//! for a Go struct with methods. Error texts are Go's, because people and scripts read them.
//!
//! Source: the documentation of Go's packages text/template and fmt; behaviour compared with docker 28.2.2.

mod error;
mod evaluate;
mod function;
mod json;
mod lex;
mod node;
mod parse;
mod print;
mod value;

pub use error::{ExecuteError, ParseError};
pub use function::FunctionSet;
pub use json::{quote, to_json};
pub use print::{format_value, sprintf};
pub use value::{List, Map, Nil, Record, Row, Value};

use std::collections::BTreeMap;

/// What a missing key of a map does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MissingKey {
    /// It prints as `<no value>`, Go's default.
    #[default]
    NoValue,
    /// It is an error: `map has no entry for key "X"`.
    Error,
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
    text: String,
    trees: BTreeMap<String, node::List>,
}

impl Template {
    /// Parses `text`. `name` is what error messages call the template; Docker mostly uses the empty name.
    ///
    /// # Errors
    /// Returns Go's message, beginning with `template: NAME:LINE: `.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let trees = parse::parse(name, text)?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), trees })
    }

    /// Executes the template over `data` and appends its output to `out`.
    ///
    /// What was printed before an error stays in `out`, as with Go's writers.
    ///
    /// # Errors
    /// Returns Go's message, beginning with `template: NAME:LINE:COLUMN: executing "NAME" at <NODE>: `.
    pub fn execute(
        &self,
        data: &Value,
        functions: FunctionSet,
        missing: MissingKey,
        out: &mut String,
    ) -> Result<(), ExecuteError> {
        evaluate::execute(self, data, functions, missing, out)
    }

    /// Executes over `data` with Docker's functions and Go's default for missing keys.
    ///
    /// # Errors
    /// As [`Template::execute`].
    pub fn render(&self, data: &Value) -> Result<String, ExecuteError> {
        let mut out = String::new();
        self.execute(data, FunctionSet::Docker, MissingKey::NoValue, &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
