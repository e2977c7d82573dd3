//! Filters of list calls: several values of one key are alternatives, several keys must all hold.

use std::collections::BTreeMap;

/// Keys with their values, as clients send them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// A filter that this call does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The key is not known here.
    #[error("invalid filter '{0}'")]
    Key(String),
    /// The key is known, the value makes no sense.
    #[error("invalid filter '{key}={value}'{}", .reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: Option<String>,
    },
}

impl wharf_error::HasKind for FilterError {
    fn kind(&self) -> wharf_error::Kind {
        match self {
            FilterError::Key(_) | FilterError::Value { .. } => wharf_error::Kind::Invalid,
        }
    }
}

impl Filters {
    /// Takes what the client sent.
    pub fn new(map: BTreeMap<String, Vec<String>>) -> Self {
        Self(map)
    }

    /// Makes filters of pairs.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let mut map = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in pairs {
            map.entry((*key).to_owned()).or_default().push((*value).to_owned());
        }
        Self(map)
    }

    /// Refuses keys outside the list.
    pub fn only(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(FilterError::Key(key.clone())),
            None => Ok(()),
        }
    }

    /// The values of one key; empty if it was not given.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether the key was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether there is nothing to filter by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether for every key at least one value is accepted by `accept(key, value)`.
    pub fn all(&self, mut accept: impl FnMut(&str, &str) -> bool) -> bool {
        self.0.iter().all(|(key, values)| values.is_empty() || values.iter().any(|value| accept(key, value)))
    }

    /// Whether one key's values, if given, include one that is accepted.
    pub fn any(&self, key: &str, accept: impl FnMut(&String) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(accept)
    }

    /// Reads a Boolean filter as Docker does: `1`/`true` or `0`/`false`, not both.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let values = self.values(key);
        let wrong = |value: &str| FilterError::Value { key: key.to_owned(), value: value.to_owned(), reason: None };
        let mut seen = None;
        for value in values {
            let now = match value.as_str() {
                "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                _ => return Err(wrong(value)),
            };
            if seen.is_some_and(|before| before != now) {
                return Err(wrong(value));
            }
            seen = Some(now);
        }
        Ok(seen)
    }

    /// Whether every `label` and no `label!` filter holds for these labels.
    pub fn labels<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => get(key) == Some(value),
            None => get(wanted).is_some(),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_must_all_hold() {
        let filters = Filters::of(&[("a", "1"), ("a", "2"), ("b", "3")]);
        assert!(filters.all(|k, v| matches!((k, v), ("a", "2") | ("b", "3"))));
        assert!(!filters.all(|k, v| matches!((k, v), ("a", "1") | ("a", "2"))));
    }

    #[test]
    fn unknown_keys_and_unclear_booleans_are_refused_with_dockers_text() {
        assert_eq!(Filters::of(&[("nosuch", "1")]).only(&["a"]).unwrap_err().to_string(), "invalid filter 'nosuch'");
        assert_eq!(Filters::of(&[("d", "x")]).flag("d").unwrap_err().to_string(), "invalid filter 'd=x'");
        assert!(Filters::of(&[("d", "1"), ("d", "0")]).flag("d").is_err());
        assert_eq!(Filters::of(&[("d", "1"), ("d", "true")]).flag("d"), Ok(Some(true)));
    }

    #[test]
    fn all_labels_must_hold() {
        let get = |k: &str| (k == "k").then_some("v");
        assert!(Filters::of(&[("label", "k"), ("label", "k=v")]).labels(get));
        assert!(!Filters::of(&[("label", "k"), ("label", "x")]).labels(get));
        assert!(!Filters::of(&[("label!", "k=v")]).labels(get));
    }
}
