//! Query strings and path segments.

use std::fmt::Write;

/// A query string under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// Returns an empty query.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        escape(name, false, &mut self.0);
        self.0.push('=');
        escape(value, false, &mut self.0);
        self
    }

    /// Adds a parameter unless its value is empty.
    #[must_use]
    pub fn with_some(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    /// Adds `name=1` where `set`.
    #[must_use]
    pub fn with_flag(self, name: &str, set: bool) -> Self {
        if set { self.with(name, "1") } else { self }
    }

    /// Returns the text, with its question mark, or nothing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Escapes a name for use in a path; slashes stay, since image names have them.
pub fn escape_path(name: &str) -> String {
    let mut out = String::new();
    escape(name, true, &mut out);
    out
}

fn escape(text: &str, path: bool, out: &mut String) {
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b'/' | b':' | b'@' if path => out.push(char::from(b)),
            b' ' if !path => out.push('+'),
            b => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
}
