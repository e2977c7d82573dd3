//! Command line and `daemon.json`, merged and checked: raw texts in, one set of values out.
//!
//! A value comes from the command line or from the file, never from both (dockerd refuses that, and so do we).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use wharf_error::{HasKind, Kind};

use crate::collection::Policy;
use crate::flags::{Effect, FLAGS, Flag, Form, by_key, by_letter, by_name};

/// Why the daemon's configuration is not usable. Texts are dockerd's where it has them.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A flag that does not exist.
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    /// A letter that does not exist.
    #[error("unknown shorthand flag: {letter:?} in {word}")]
    UnknownLetter {
        /// The letter.
        letter: char,
        /// The argument it stands in.
        word: String,
    },
    /// A flag without its value.
    #[error("flag needs an argument: --{0}")]
    MissingValue(&'static str),
    /// A value of the wrong form.
    #[error("invalid argument \"{value}\" for \"--{flag}\" flag: {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// dockerd takes no arguments.
    #[error("\"dockerd\" accepts no arguments.")]
    Arguments,
    /// The file cannot be used.
    #[error("unable to configure the Docker daemon with file {path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A runtime cannot be used as it is configured. dockerd's texts, which name no flag.
    #[error("failed to start daemon: {0}")]
    Runtime(String),
    /// A feature that is not built yet.
    #[error("--{flag} is not supported by this version of Wharf yet")]
    Later {
        /// The flag.
        flag: &'static str,
    },
}

impl SettingsError {
    /// Whether the command line itself is wrong: dockerd then points to its help and exits with 125.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::UnknownFlag(_)
            | Self::UnknownLetter { .. }
            | Self::MissingValue(_)
            | Self::Value { .. }
            | Self::Arguments => true,
            Self::File { .. } | Self::Runtime(_) | Self::Later { .. } => false,
        }
    }
}

impl HasKind for SettingsError {
    fn kind(&self) -> Kind {
        match self {
            Self::Later { .. } => Kind::NotImplemented,
            Self::UnknownFlag(_)
            | Self::UnknownLetter { .. }
            | Self::MissingValue(_)
            | Self::Value { .. }
            | Self::Arguments
            | Self::Runtime(_)
            | Self::File { .. } => Kind::Invalid,
        }
    }
}

/// All values, by flag.
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Vec<String>>,
    collection: Policy,
}

impl Settings {
    /// How much of the build cache stays.
    pub fn collection(&self) -> &Policy {
        &self.collection
    }

    /// Reads the command line (without the program's name) and the configuration file it names.
    pub fn read(arguments: &[String]) -> Result<Self, SettingsError> {
        let mut settings = Self { values: parse(arguments)?, collection: Policy::default() };
        if !settings.switch("help") && !settings.switch("version") {
            settings.merge_file()?;
        }
        Ok(settings)
    }

    fn merge_file(&mut self) -> Result<(), SettingsError> {
        let path = self.text("config-file").to_owned();
        let wrong = |reason: String| SettingsError::File { path: path.clone(), reason };
        let text = match std::fs::read_to_string(Path::new(&path)) {
            Ok(text) => text,
            // Only a file that was asked for must exist.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !self.values.contains_key("config-file") => {
                return Ok(());
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong(format!("open {path}: no such file or directory")));
            }
            Err(e) => return Err(wrong(format!("open {path}: {e}"))),
        };
        let (from_file, collection) = parse_file(&text).map_err(&wrong)?;
        self.collection = collection;
        let both: Vec<String> = from_file.iter().filter_map(|(long, file)| self.conflict(long, file)).collect();
        if !both.is_empty() {
            let list = both.join(", ");
            let reason = "the following directives are specified both as a flag and in the configuration file";
            return Err(wrong(format!("{reason}: {list}")));
        }
        self.values.extend(from_file);
        Ok(())
    }

    fn conflict(&self, long: &str, file: &[String]) -> Option<String> {
        let given = self.values.get(long)?;
        let flag = by_name(long)?;
        // Lists that dockerd itself adds up instead of comparing.
        let key = flag.key?;
        let show = |values: &[String]| match flag.form {
            Form::List | Form::Map => format!("[{}]", values.join(" ")),
            _ => values.join(" "),
        };
        Some(format!("{key}: (from flag: {}, from file: {})", show(given), show(file)))
    }

    /// Whether a switch is on.
    pub fn switch(&self, long: &str) -> bool {
        self.text(long) == "true"
    }

    /// A text: the last one given, or the default.
    pub fn text(&self, long: &str) -> &str {
        let default = by_name(long).map_or("", |f| f.default);
        self.values.get(long).and_then(|v| v.last()).map_or(default, String::as_str)
    }

    /// A text, if it is not empty.
    pub fn given(&self, long: &str) -> Option<&str> {
        Some(self.text(long)).filter(|t| !t.is_empty())
    }

    /// A whole number. The form was checked when it was read.
    pub fn number(&self, long: &str) -> i64 {
        self.text(long).parse().unwrap_or_default()
    }

    /// A list.
    pub fn list(&self, long: &str) -> &[String] {
        self.values.get(long).map_or(&[], Vec::as_slice)
    }

    /// A map; the last value of a key counts.
    pub fn map(&self, long: &str) -> BTreeMap<String, String> {
        let pairs = self.list(long).iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// Parses a text with `read`, naming the flag if it fails.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        long: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingsError> {
        let wrong =
            |value: &str, e: E| SettingsError::Value { flag: long, value: value.to_owned(), reason: e.to_string() };
        self.given(long).map(|value| read(value).map_err(|e| wrong(value, e))).transpose()
    }

    /// Refuses flags whose feature is not built, unless they ask for the default; lists those without effect.
    pub fn check_effects(&self) -> Result<Vec<&'static str>, SettingsError> {
        let differs = |flag: &&Flag| self.values.get(flag.long).is_some_and(|v| v.join(",") != flag.default);
        let mut idle = Vec::new();
        for flag in FLAGS.iter().filter(differs) {
            match flag.effect {
                Effect::Full => {}
                Effect::None => idle.push(flag.long),
                Effect::Later => return Err(SettingsError::Later { flag: flag.long }),
            }
        }
        Ok(idle)
    }
}

/// Splits the command line as pflag does.
fn parse(arguments: &[String]) -> Result<BTreeMap<&'static str, Vec<String>>, SettingsError> {
    let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut next = |flag: &'static Flag| rest.next().cloned().ok_or(SettingsError::MissingValue(flag.long));
        if let Some(long) = word.strip_prefix("--") {
            if long.is_empty() {
                return rest.next().map_or(Ok(values), |_| Err(SettingsError::Arguments));
            }
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
            let flag = by_name(name).ok_or_else(|| SettingsError::UnknownFlag(name.to_owned()))?;
            let value = match (value, flag.form) {
                (Some(value), _) => value,
                (None, Form::Switch) => "true".to_owned(),
                (None, _) => next(flag)?,
            };
            add(&mut values, flag, value)?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                let unknown = || SettingsError::UnknownLetter { letter, word: word.clone() };
                let flag = by_letter(letter).ok_or_else(unknown)?;
                let glued = letters.as_str();
                if flag.form == Form::Switch && !glued.starts_with('=') {
                    add(&mut values, flag, "true".to_owned())?;
                    continue;
                }
                let glued = glued.strip_prefix('=').unwrap_or(glued);
                let value = if glued.is_empty() { next(flag)? } else { glued.to_owned() };
                add(&mut values, flag, value)?;
                break;
            }
        } else {
            return Err(SettingsError::Arguments);
        }
    }
    Ok(values)
}

fn add(
    values: &mut BTreeMap<&'static str, Vec<String>>,
    flag: &'static Flag,
    value: String,
) -> Result<(), SettingsError> {
    let wrong =
        |reason: &str| SettingsError::Value { flag: flag.long, value: value.clone(), reason: reason.to_owned() };
    let checked = match flag.form {
        Form::Switch => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
            _ => return Err(wrong(&format!("strconv.ParseBool: parsing \"{value}\": invalid syntax"))),
        },
        Form::Number if value.parse::<i64>().is_err() => {
            return Err(wrong(&format!("strconv.ParseInt: parsing \"{value}\": invalid syntax")));
        }
        Form::Map if flag.long == "add-runtime" && !value.contains('=') => {
            return Err(wrong(&format!("invalid runtime argument: {value}")));
        }
        Form::Map if !value.contains('=') => return Err(wrong("expected key=value")),
        _ => value,
    };
    let slot = values.entry(flag.long).or_default();
    if !matches!(flag.form, Form::List | Form::Map) {
        slot.clear();
    }
    slot.push(checked);
    Ok(())
}

/// Reads `daemon.json`; the error is the reason alone.
fn parse_file(text: &str) -> Result<(BTreeMap<&'static str, Vec<String>>, Policy), String> {
    if text.trim().is_empty() {
        return Ok((BTreeMap::new(), Policy::default()));
    }
    let document: Value = serde_json::from_str(text).map_err(|e| match e.classify() {
        serde_json::error::Category::Eof => "invalid JSON: unexpected end of JSON input".to_owned(),
        _ => format!("invalid JSON: {e}"),
    })?;
    let Value::Object(document) = document else {
        return Err("invalid JSON: json: cannot unmarshal into Go value of type config.Config".to_owned());
    };
    let (document, collection) = flatten(document)?;
    let unknown: BTreeSet<&str> = document.keys().map(String::as_str).filter(|key| by_key(key).is_none()).collect();
    if !unknown.is_empty() {
        let list = unknown.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!("the following directives don't match any configuration option: {list}"));
    }
    let mut values = BTreeMap::new();
    for (key, value) in &document {
        if let Some(flag) = by_key(key).filter(|_| !value.is_null()) {
            values.insert(flag.long, texts(flag, key, value)?);
        }
    }
    Ok((values, collection))
}

/// Takes out what stands in objects of its own: `proxies`, whose entries are flags, and `builder`.
fn flatten(mut document: serde_json::Map<String, Value>) -> Result<(serde_json::Map<String, Value>, Policy), String> {
    let mut collection = Policy::default();
    for key in ["proxies", "builder"] {
        match document.remove(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(inner)) if key == "proxies" => {
                const KNOWN: &[&str] = &["http-proxy", "https-proxy", "no-proxy"];
                if let Some(unknown) = inner.keys().find(|k| !KNOWN.contains(&k.as_str())) {
                    return Err(format!("the following directives don't match any configuration option: {unknown}"));
                }
                document.extend(inner);
            }
            Some(builder @ Value::Object(_)) => collection = Policy::read(builder)?,
            Some(_) => {
                return Err(format!("invalid JSON: json: cannot unmarshal into Go struct field Config.{key}"));
            }
        }
    }
    Ok((document, collection))
}

/// A JSON value as the flag's texts.
fn texts(flag: &Flag, key: &str, value: &Value) -> Result<Vec<String>, String> {
    let kind = match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) | Value::Null => "object",
    };
    let go = match flag.form {
        Form::Switch => "bool",
        Form::Text => "string",
        Form::Number => "int",
        Form::List => "[]string",
        Form::Map => "map[string]string",
    };
    let wrong =
        || format!("invalid JSON: json: cannot unmarshal {kind} into Go struct field Config.{key} of type {go}");
    match (flag.form, value) {
        (Form::Switch, Value::Bool(on)) => Ok(vec![on.to_string()]),
        (Form::Text, Value::String(text)) => Ok(vec![text.clone()]),
        // Sizes may stand in the file as numbers of bytes.
        (Form::Text, Value::Number(n)) if flag.long == "default-shm-size" => Ok(vec![n.to_string()]),
        (Form::Number, Value::Number(n)) if n.is_i64() => Ok(vec![n.to_string()]),
        (Form::List, Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        (Form::Map, Value::Object(map)) if flag.long == "default-ulimit" => {
            Ok(map.iter().map(|(k, v)| ulimit(k, v)).collect())
        }
        (Form::Map, Value::Object(map)) if flag.long == "add-runtime" => {
            let wrong = |k: &str| {
                format!(
                    "invalid JSON: json: cannot unmarshal into Go struct field Config.runtimes.{k} of type system.Runtime"
                )
            };
            map.iter().map(|(k, v)| v.is_object().then(|| format!("{k}={v}")).ok_or_else(|| wrong(k))).collect()
        }
        (Form::Map, Value::Object(map)) => {
            let pair = |(k, v): (&String, &Value)| match v {
                Value::String(text) => Ok(format!("{k}={text}")),
                Value::Bool(on) => Ok(format!("{k}={on}")),
                Value::Object(_) => Ok(format!("{k}={v}")),
                _ => Err(wrong()),
            };
            map.iter().map(pair).collect()
        }
        _ => Err(wrong()),
    }
}

/// `{"Name": "nofile", "Soft": 1, "Hard": 2}` as the flag's `nofile=1:2`.
fn ulimit(name: &str, value: &Value) -> String {
    let number = |key: &str| value[key].as_i64().unwrap_or_default();
    format!("{name}={}:{}", number("Soft"), number("Hard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], file: Option<&str>) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("folder");
        let mut words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        if let Some(text) = file {
            let path = folder.path().join("daemon.json");
            std::fs::write(&path, text).expect("written");
            words.extend(["--config-file".to_owned(), path.display().to_string()]);
        } else {
            words.extend(["--config-file=".to_owned() + "/dev/null"]);
        }
        let shown = |e: SettingsError| e.to_string().replace(&folder.path().display().to_string(), "");
        Settings::read(&words).map_err(shown)
    }

    #[test]
    fn flags_take_values_glued_spaced_and_by_letter() {
        let settings =
            read(&["-D", "-Hunix:///a", "-H", "fd://", "--icc=false", "--mtu", "1400", "--log-opt", "a=b"], None);
        let settings = settings.expect("valid");
        assert!(settings.switch("debug") && !settings.switch("icc"));
        assert_eq!(settings.list("host"), ["unix:///a", "fd://"]);
        assert_eq!((settings.number("mtu"), settings.map("log-opt")["a"].as_str()), (1400, "b"));
        assert_eq!(settings.text("pidfile"), "/var/run/docker.pid");
    }

    #[test]
    fn wrong_command_lines_are_refused_in_dockers_words() {
        let cases: &[(&[&str], &str)] = &[
            (&["--nope"], "unknown flag: --nope"),
            (&["-D", "-x"], "unknown shorthand flag: 'x' in -x"),
            (
                &["--shutdown-timeout", "x"],
                "invalid argument \"x\" for \"--shutdown-timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (&["extra"], "\"dockerd\" accepts no arguments."),
        ];
        for (words, message) in cases {
            assert_eq!(read(words, None).err().as_deref(), Some(*message));
        }
    }

    #[test]
    fn the_file_is_merged_and_its_faults_are_named_in_dockers_words() {
        let file = r#"{"debug": true, "hosts": ["unix:///x"], "log-opts": {"max-size": "1m"}}"#;
        let settings = read(&[], Some(file)).expect("valid");
        assert!(settings.switch("debug"));
        assert_eq!((settings.list("host").len(), settings.map("log-opt")["max-size"].as_str()), (1, "1m"));
        let prefix = "unable to configure the Docker daemon with file /daemon.json: ";
        let cases: &[(&[&str], &str, &str)] = &[
            (&[], r#"{"nope": 1}"#, "the following directives don't match any configuration option: nope"),
            (
                &["-D=false", "-H", "unix:///y"],
                file,
                "the following directives are specified both as a flag and in the configuration file: debug: (from flag: false, from file: true), hosts: (from flag: [unix:///y], from file: [unix:///x])",
            ),
            (
                &[],
                r#"{"debug": "x"}"#,
                "invalid JSON: json: cannot unmarshal string into Go struct field Config.debug of type bool",
            ),
            (&[], r#"{"debug"#, "invalid JSON: unexpected end of JSON input"),
        ];
        for (words, file, reason) in cases {
            assert_eq!(read(words, Some(file)).err(), Some(format!("{prefix}{reason}")));
        }
    }

    #[test]
    fn features_that_are_not_built_are_refused_and_idle_flags_are_named() {
        let effects = |words: &[&str]| read(words, None).expect("valid").check_effects().map_err(|e| e.to_string());
        assert_eq!(
            effects(&["--selinux-enabled"]),
            Err("--selinux-enabled is not supported by this version of Wharf yet".to_owned())
        );
        assert_eq!(effects(&["--tls=false", "--containerd", "/run/x"]), Ok(vec!["containerd"]));
    }
}
