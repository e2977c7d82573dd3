//! `builder` of `daemon.json`: how much of the build cache stays.
//!
//! ```json
//! {"builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB",
//!   "policy": [{"all": false, "keepStorage": "10GB", "filter": ["unused-for=48h", "type=exec.cachemount"]}]}}}
//! ```
//!
//! Names are those of dockerd 28; `reservedSpace`, `maxUsedSpace` and `minFreeSpace` are known as well. The rules are gone
//! through in order after each build. Sizes are bytes, `10GB` (powers of 1024) or `20%` of the disk.

use serde::Deserialize;
use serde_json::Value;
use wharf_build::Collect;

/// A size, as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Bytes(u64),
    Percent(u64),
}

impl Space {
    fn parse(value: &Value) -> Result<Option<Self>, String> {
        let wrong = || format!("invalid size: '{}'", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let found = match value {
            Value::Null => return Ok(None),
            Value::Number(n) => Self::Bytes(n.as_u64().ok_or_else(wrong)?),
            Value::String(text) => match text.strip_suffix('%') {
                Some(percent) => Self::Percent(percent.parse().ok().filter(|n| *n <= 100).ok_or_else(wrong)?),
                None => Self::Bytes(wharf_volume::parse_size(text).map_err(|_| wrong())?),
            },
            _ => return Err(wrong()),
        };
        // Nothing said.
        Ok(Some(found).filter(|space| !matches!(space, Self::Bytes(0) | Self::Percent(0))))
    }

    fn bytes(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk / 100 * percent,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    all: bool,
    keep: Option<Space>,
    free: Option<Space>,
    unused_for: Option<i64>,
    kinds: Vec<String>,
}

/// All rules, in order; what is used longest ago goes first in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// Most bytes of the build cache where nothing is said, unless the disk is so small that a tenth of it is less.
const KEEP: u64 = 20 << 30;

impl Default for Policy {
    fn default() -> Self {
        Self { rules: vec![Rule { all: true, ..Rule::default() }] }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Builder {
    gc: Option<Gc>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Gc {
    enabled: Option<bool>,
    default_keep_storage: Value,
    default_reserved_space: Value,
    default_max_used_space: Value,
    default_min_free_space: Value,
    policy: Vec<GcRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GcRule {
    all: bool,
    keep_storage: Value,
    reserved_space: Value,
    max_used_space: Value,
    min_free_space: Value,
    filter: Value,
}

/// The largest of what says how much stays.
fn largest(values: &[&Value]) -> Result<Option<Space>, String> {
    let spaces = values.iter().map(|value| Space::parse(value)).collect::<Result<Vec<_>, _>>()?;
    Ok(spaces.into_iter().flatten().next())
}

impl Policy {
    /// Reads the object `builder`.
    ///
    /// # Errors
    /// The reason alone, for people.
    pub fn read(builder: Value) -> Result<Self, String> {
        let builder: Builder = serde_json::from_value(builder).map_err(|e| format!("invalid JSON: {e}"))?;
        let Some(gc) = builder.gc else { return Ok(Self::default()) };
        if gc.enabled == Some(false) {
            return Ok(Self { rules: Vec::new() });
        }
        let keep = largest(&[&gc.default_max_used_space, &gc.default_reserved_space, &gc.default_keep_storage])?;
        let free = Space::parse(&gc.default_min_free_space)?;
        if gc.policy.is_empty() {
            return Ok(Self { rules: vec![Rule { all: true, keep, free, ..Rule::default() }] });
        }
        let rules = gc.policy.into_iter().map(|rule| {
            let mut made = Rule {
                all: rule.all,
                keep: largest(&[&rule.max_used_space, &rule.reserved_space, &rule.keep_storage])?.or(keep),
                free: Space::parse(&rule.min_free_space)?,
                ..Rule::default()
            };
            for (key, value) in filters(&rule.filter)? {
                match key.as_str() {
                    "unused-for" | "until" => {
                        let unused_for = seconds(&value).ok_or_else(|| format!("invalid duration: {value:?}"));
                        made.unused_for = Some(unused_for?);
                    }
                    "type" => made.kinds.push(value),
                    _ => return Err(format!("invalid filter in the policy of the builder: {key}")),
                }
            }
            Ok(made)
        });
        Ok(Self { rules: rules.collect::<Result<_, String>>()? })
    }

    /// The rules for a disk of this size.
    pub fn rules(&self, disk: u64) -> Vec<Collect> {
        let usual = if disk == 0 { KEEP } else { KEEP.min(disk / 10).max(1 << 30) };
        let rules = self.rules.iter().map(|rule| Collect {
            all: rule.all,
            unused_for: rule.unused_for,
            keep: Some(rule.keep.map_or(usual, |keep| keep.bytes(disk))),
            free: rule.free.map(|free| free.bytes(disk)),
            kinds: rule.kinds.clone(),
            ..Collect::default()
        });
        rules.collect()
    }
}

/// A Go duration (`48h`, `1h30m`) in seconds.
pub fn seconds(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        total += match &tail[..unit] {
            "h" => number * 3600.0,
            "m" => number * 60.0,
            "s" => number,
            "ms" => number / 1000.0,
            _ => return None,
        };
        rest = &tail[unit..];
    }
    (!text.is_empty()).then_some(total as i64)
}

/// `["key=value"]`, or the map of maps that the API has.
fn filters(value: &Value) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("invalid filter in the policy of the builder: {value}");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            let pair = |item: &Value| {
                let (key, value) = item.as_str()?.split_once('=')?;
                Some((key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()))
            };
            items.iter().map(|item| pair(item).ok_or_else(wrong)).collect()
        }
        Value::Object(keys) => {
            let mut found = Vec::new();
            for (key, values) in keys {
                let values = values.as_object().ok_or_else(wrong)?;
                found.extend(values.keys().map(|value| (key.clone(), value.clone())));
            }
            Ok(found)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Collect>, String> {
        Policy::read(serde_json::from_str(text).expect("JSON")).map(|policy| policy.rules(100 << 30))
    }

    #[test]
    fn a_policy_is_rules_in_order_with_sizes_of_the_disk() {
        let all = |keep: u64| vec![Collect { all: true, keep: Some(keep), ..Collect::default() }];
        assert_eq!(read("{}"), Ok(all(10 << 30)));
        assert_eq!(read(r#"{"gc": {"enabled": false}}"#), Ok(Vec::new()));
        assert_eq!(read(r#"{"gc": {"defaultKeepStorage": "3GB"}}"#), Ok(all(3 << 30)));
        assert_eq!(read(r#"{"gc": {"defaultKeepStorage": "20%"}}"#), Ok(all((100 << 30) / 100 * 20)));
        let text = r#"{"gc": {"policy": [
            {"keepStorage": "512MB", "filter": ["unused-for=48h", "type=exec.cachemount"]},
            {"all": true, "maxUsedSpace": "1GB", "minFreeSpace": "5GB", "filter": {"type": {"regular": true}}}]}}"#;
        let first = Collect {
            unused_for: Some(48 * 3600),
            keep: Some(512 << 20),
            kinds: vec!["exec.cachemount".to_owned()],
            ..Collect::default()
        };
        let second = Collect {
            all: true,
            keep: Some(1 << 30),
            free: Some(5 << 30),
            kinds: vec!["regular".to_owned()],
            ..Collect::default()
        };
        assert_eq!(read(text), Ok(vec![first, second]));
    }

    #[test]
    fn a_policy_with_a_fault_says_which() {
        for (text, reason) in [
            (r#"{"gc": {"defaultKeepStorage": "much"}}"#, "invalid size: 'much'"),
            (r#"{"gc": {"policy": [{"filter": ["unused-for=late"]}]}}"#, "invalid duration: \"late\""),
            (
                r#"{"gc": {"policy": [{"filter": ["colour=red"]}]}}"#,
                "invalid filter in the policy of the builder: colour",
            ),
        ] {
            assert_eq!(read(text), Err(reason.to_owned()));
        }
    }
}
