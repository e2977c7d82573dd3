//! Rows of lists: fields by name, sorted as Docker's JSON lists them, and the method `Label`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_template::{Record, Value};

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    type_name: &'static str,
    fields: BTreeMap<&'static str, Value>,
    labels: BTreeMap<String, String>,
}

impl Row {
    /// Begins a row; the name is that of Docker's type, which messages quote.
    pub fn new(type_name: &'static str) -> Self {
        Self { type_name, fields: BTreeMap::new(), labels: BTreeMap::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.insert(name, value.into());
        self
    }

    /// Adds labels: the field `Labels` and the method `Label`.
    #[must_use]
    pub fn with_labels(mut self, labels: BTreeMap<String, String>) -> Self {
        let text: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.labels = labels;
        self.with("Labels", text.join(","))
    }

    /// Makes it a template's value.
    pub fn value(self) -> Value {
        Value::Record(Arc::new(self))
    }
}

impl Record for Row {
    fn type_name(&self) -> &str {
        self.type_name
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.fields.get(name).cloned()
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        match (name, arguments) {
            ("Label", [Value::Str(label)]) => Some(Ok(Value::Str(self.labels.get(label).cloned().unwrap_or_default()))),
            _ => None,
        }
    }

    fn escapes_html(&self) -> bool {
        true
    }

    fn fields(&self) -> Vec<(String, Value)> {
        self.fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
    }
}

/// The first twelve characters of an ID, without its algorithm.
pub fn short_id(id: &str) -> String {
    let id = id.split_once(':').map_or(id, |p| p.1);
    id.chars().take(12).collect()
}

/// Cuts text to a width, with an ellipsis as its last character.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
