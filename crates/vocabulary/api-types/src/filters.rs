//! The `filters` query: a JSON map from key to values, in both forms that Docker's clients have sent.

use std::collections::{BTreeMap, BTreeSet};

use wharf_error::{HasKind, Kind};

/// Filters by key; a key that has no entry lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// A `filters` query that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is no JSON map of the two known forms; why not is for logs.
    #[error("invalid filter")]
    Malformed(String),
    /// The endpoint does not know the key.
    #[error("invalid filter '{0}'")]
    UnknownKey(String),
    /// The key is known, a value is not.
    #[error("invalid filter '{key}={value}'")]
    BadValue {
        /// The key.
        key: String,
        /// The refused value.
        value: String,
    },
}

impl HasKind for FilterError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Filters {
    /// Parses `{"status":{"running":true}}` and the older `{"status":["running"]}`; an empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let current = serde_json::from_str::<Option<BTreeMap<String, Option<BTreeMap<String, Option<bool>>>>>>(text);
        let error = match current {
            Ok(map) => {
                let values = |v: Option<BTreeMap<String, Option<bool>>>| v.unwrap_or_default().into_keys().collect();
                return Ok(Self(map.unwrap_or_default().into_iter().map(|(k, v)| (k, values(v))).collect()));
            }
            Err(e) => e,
        };
        match serde_json::from_str::<BTreeMap<String, Option<Vec<String>>>>(text) {
            Ok(map) => {
                let set = |v: Option<Vec<String>>| v.unwrap_or_default().into_iter().collect();
                Ok(Self(map.into_iter().map(|(k, v)| (k, set(v))).collect()))
            }
            Err(_) => Err(FilterError::Malformed(error.to_string())),
        }
    }

    /// Adds a value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key was given.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of a key, sorted; none if it was not given.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Refuses keys outside the given ones.
    pub fn check_keys(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(FilterError::UnknownKey(key.clone())),
            None => Ok(()),
        }
    }

    /// Whether one of the key's values equals the text exactly, or the key was not given.
    pub fn match_exact(&self, key: &str, text: &str) -> bool {
        self.0.get(key).is_none_or(|values| values.is_empty() || values.contains(text))
    }

    /// Whether a `key` or `key=value` filter named `filter` fits the labels; all values must fit.
    pub fn match_labels(&self, filter: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(filter).all(|wanted| match wanted.split_once('=') {
            Some((k, v)) => labels.get(k).is_some_and(|have| have == v),
            None => labels.contains_key(wanted),
        })
    }

    /// The truth of a boolean filter: `default` if absent; `1`, `true`, `0`, `false` in one value, else an error.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, FilterError> {
        let mut values = self.get(key);
        match (values.next(), values.next()) {
            (None, _) => Ok(default),
            (Some("1" | "true"), None) => Ok(true),
            (Some("0" | "false"), None) => Ok(false),
            (Some("1" | "true"), Some("1" | "true")) => Ok(true),
            (Some("0" | "false"), Some("0" | "false")) => Ok(false),
            // Docker prints the values as Go prints a list.
            _ => {
                let value = format!("[{}]", self.get(key).collect::<Vec<_>>().join(" "));
                Err(FilterError::BadValue { key: key.to_owned(), value })
            }
        }
    }

    /// The JSON of the newer form, as clients send it.
    pub fn to_json(&self) -> String {
        let map: BTreeMap<&str, BTreeMap<&str, bool>> =
            self.iter().map(|(k, v)| (k, v.iter().map(|s| (s.as_str(), true)).collect())).collect();
        serde_json::to_string(&map).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_of_the_map_mean_the_same() {
        let new = Filters::parse(r#"{"label":{"a=b":true},"status":{"exited":true,"dead":true}}"#).expect("new form");
        let old = Filters::parse(r#"{"label":["a=b"],"status":["dead","exited"]}"#).expect("old form");
        assert_eq!(new, old);
        assert_eq!(Filters::parse(&new.to_json()), Ok(new));
    }

    #[test]
    fn text_that_is_no_map_is_refused() {
        for text in ["x", "[]", "{\"a\":1}", "{\"a\":{\"b\":3}}", "3"] {
            assert!(matches!(Filters::parse(text), Err(FilterError::Malformed(_))), "{text}");
        }
        assert_eq!(Filters::parse("null"), Ok(Filters::default()));
    }

    #[test]
    fn unknown_keys_and_bad_booleans_are_named() {
        let f = Filters::parse(r#"{"dangling":{"maybe":true}}"#).expect("map");
        assert_eq!(f.check_keys(&["status"]).expect_err("unknown").to_string(), "invalid filter 'dangling'");
        let e = f.bool_or("dangling", false).expect_err("maybe");
        assert_eq!(e.to_string(), "invalid filter 'dangling=[maybe]'");
    }

    #[test]
    fn labels_match_by_key_or_by_key_and_value() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let fits = |v: &str| {
            let mut f = Filters::default();
            f.add("label", v);
            f.match_labels("label", &labels)
        };
        assert!(fits("a") && fits("a=b"));
        assert!(!fits("a=c") && !fits("b"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = Filters::parse(&text);
        }
    }
}
