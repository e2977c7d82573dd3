//! Log driver and options: checked once, handed to the shim as arguments.

use std::collections::BTreeMap;

use crate::LogError;
use crate::remote::{Remote, RemoteKind};

/// Bytes of one file before rotation where `max-size` is not given for `json-file`. With [`JSON_FILES`] the default
/// bound of a container's log is 500 MB; `max-size=-1` lifts it. (Docker's json-file has no bound by default.)
const JSON_SIZE: u64 = 100_000_000;
const JSON_FILES: u32 = 5;

/// Docker's defaults for the `local` driver: five compressed files of 20 MB.
const LOCAL_SIZE: u64 = 20_000_000;
const LOCAL_FILES: u32 = 5;

/// How output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// One JSON object per line, readable by Docker and by log shippers.
    JsonFile,
    /// Our own binary records, smaller and rotated with compression.
    Local,
    /// Nothing is kept.
    None,
}

impl Driver {
    /// Docker's name of the driver.
    pub fn name(self) -> &'static str {
        match self {
            Driver::JsonFile => "json-file",
            Driver::Local => "local",
            Driver::None => "none",
        }
    }
}

/// Which stream of a process a byte came from. The number is that of Docker's stdcopy header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, or all output of a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A place in the spool: a file, by inode number because rotation renames it, and a byte in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Inode number.
    pub inode: u64,
    /// Byte offset.
    pub offset: u64,
}

/// A container's checked log configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The driver.
    pub driver: Driver,
    /// Bytes of a file at which it is rotated; `None` for never.
    pub max_size: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub max_file: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// Attributes that every json-file line carries (labels, env and tag options, resolved by the engine).
    pub attrs: BTreeMap<String, String>,
    /// Where messages are sent from the spool; the shim, which writes the spool, does not know of it.
    pub remote: Option<Remote>,
}

impl Config {
    /// Checks a driver name and its options as given by clients. `attrs` stays empty: the options `labels`,
    /// `labels-regex`, `env`, `env-regex` and `tag` are accepted here and resolved by the caller, who knows the container.
    ///
    /// Errors are Invalid, with Docker's texts.
    pub fn parse<'a>(driver: &str, options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Config, LogError> {
        let options: Vec<(&str, &str)> = options.into_iter().collect();
        check_mode(&options)?;
        let options = options.into_iter().filter(|(k, _)| !matches!(*k, "mode" | "max-buffer-size"));
        if let Some(kind) = RemoteKind::of(driver) {
            return Config::remote(kind, options);
        }
        let mut config = match driver {
            "" | "json-file" => Config::bounded(Driver::JsonFile, JSON_SIZE, JSON_FILES, false),
            "local" => Config::bounded(Driver::Local, LOCAL_SIZE, LOCAL_FILES, true),
            "none" => Config { max_size: None, ..Config::bounded(Driver::None, 0, 1, false) },
            other @ ("awslogs" | "gcplogs" | "etwlogs") => return Err(LogError::NotBuilt(other.to_owned())),
            other => return Err(LogError::UnknownDriver(other.chars().take(80).collect())),
        };
        let (mut size_given, mut files_given) = (false, false);
        for (option, value) in options {
            match (config.driver, option) {
                (Driver::None, _) => {}
                // Docker takes the options of its cache with every driver.
                (_, "cache-disabled" | "cache-max-size" | "cache-max-file" | "cache-compress") => {}
                (_, "max-size") => {
                    config.max_size = parse_size(value)?;
                    size_given = config.max_size.is_some();
                }
                (_, "max-file") => {
                    config.max_file = parse_files(value)?;
                    files_given = true;
                }
                (_, "compress") => config.compress = parse_bool(value)?,
                (Driver::JsonFile, "labels" | "labels-regex" | "env" | "env-regex" | "tag") => {}
                (driver, option) => {
                    let option = option.chars().take(80).collect();
                    return Err(LogError::UnknownOption { driver: driver.name(), option });
                }
            }
        }
        if config.driver == Driver::JsonFile && size_given && !files_given {
            config.max_file = 1;
        }
        if config.compress && (config.max_file < 2 || config.max_size.is_none()) {
            return Err(LogError::CompressWithoutRotation);
        }
        Ok(config)
    }

    fn remote<'a>(kind: RemoteKind, options: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Config, LogError> {
        let mut config = Config::bounded(Driver::Local, LOCAL_SIZE, LOCAL_FILES, true);
        let mut own = BTreeMap::new();
        for (option, value) in options {
            match option {
                "cache-max-size" => config.max_size = parse_size(value)?,
                "cache-max-file" => config.max_file = parse_files(value)?,
                "cache-compress" => config.compress = parse_bool(value)?,
                // The spool is what nothing is lost by; it cannot be switched off.
                "cache-disabled" => drop(parse_bool(value)?),
                _ => drop(own.insert(option.to_owned(), value.to_owned())),
            }
        }
        config.compress &= config.max_file > 1 && config.max_size.is_some();
        config.remote = Some(Remote::parse(kind, own)?);
        Ok(config)
    }

    fn bounded(driver: Driver, max_size: u64, max_file: u32, compress: bool) -> Config {
        Config { driver, max_size: Some(max_size), max_file, compress, attrs: BTreeMap::new(), remote: None }
    }

    /// The arguments by which `wharf-shim` gets this configuration: `--log`, `--log-opt` and `--log-attr` pairs.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = vec!["--log".to_owned(), self.driver.name().to_owned()];
        if self.driver == Driver::None {
            return args;
        }
        let size = self.max_size.map_or_else(|| "-1".to_owned(), |n| n.to_string());
        for option in
            [format!("max-size={size}"), format!("max-file={}", self.max_file), format!("compress={}", self.compress)]
        {
            args.extend(["--log-opt".to_owned(), option]);
        }
        for (key, value) in &self.attrs {
            args.extend(["--log-attr".to_owned(), format!("{key}={value}")]);
        }
        args
    }

    /// The current file, relative to the log folder; `None` if nothing is kept.
    pub fn file(&self, container: &str) -> Option<String> {
        match self.driver {
            Driver::JsonFile => Some(format!("{container}-json.log")),
            Driver::Local => Some("local-logs/container.log".to_owned()),
            Driver::None => None,
        }
    }
}

/// How a slow reader is treated is fixed here (the spool never makes the container wait), but what Docker refuses is refused.
fn check_mode(options: &[(&str, &str)]) -> Result<(), LogError> {
    let get = |key: &str| options.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let mode = get("mode").unwrap_or("blocking");
    if !matches!(mode, "blocking" | "non-blocking" | "") {
        return Err(LogError::Mode(mode.chars().take(80).collect()));
    }
    let Some(size) = get("max-buffer-size") else { return Ok(()) };
    if mode != "non-blocking" {
        return Err(LogError::BufferSize);
    }
    let text = format!("error parsing option max-buffer-size: invalid size: '{size}'");
    parse_size(size).map(drop).map_err(|_| LogError::Value { option: "max-buffer-size", text })
}

/// `10m`, `1.5g`, `512`: units are powers of 1000, as go-units' `FromHumanSize` has it. `-1` is no limit.
fn parse_size(value: &str) -> Result<Option<u64>, LogError> {
    if value == "-1" {
        return Ok(None);
    }
    parse_size_of("max-size", value).map(Some)
}

pub(crate) fn parse_size_of(option: &'static str, value: &str) -> Result<u64, LogError> {
    let wrong = || LogError::Value { option, text: format!("invalid size: '{value}'") };
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let scale = match value[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * scale;
    if !(bytes.is_finite() && (1.0..=9e18).contains(&bytes)) {
        return Err(LogError::Value { option, text: format!("{option} must be a positive number") });
    }
    Ok(bytes as u64)
}

fn parse_files(value: &str) -> Result<u32, LogError> {
    let wrong = |text: String| LogError::Value { option: "max-file", text };
    let n: i64 = value.parse().map_err(|_| wrong(format!("strconv.Atoi: parsing {value:?}: invalid syntax")))?;
    match u32::try_from(n) {
        Ok(n) if n >= 1 => Ok(n.min(10_000)),
        _ => Err(wrong("max-file cannot be less than 1".to_owned())),
    }
}

fn parse_bool(value: &str) -> Result<bool, LogError> {
    parse_bool_of("compress", value)
}

pub(crate) fn parse_bool_of(option: &'static str, value: &str) -> Result<bool, LogError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let text = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
            Err(LogError::Value { option, text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, options: &[(&str, &str)]) -> Result<Config, LogError> {
        Config::parse(driver, options.iter().copied())
    }

    #[test]
    fn the_default_is_bounded_and_minus_one_lifts_the_bound() {
        let config = parse("", &[]).expect("valid");
        assert_eq!((config.max_size, config.max_file), (Some(JSON_SIZE), JSON_FILES));
        assert_eq!(parse("json-file", &[("max-size", "-1")]).expect("valid").max_size, None);
    }

    #[test]
    fn max_size_alone_keeps_one_file_as_docker_does() {
        let config = parse("json-file", &[("max-size", "10m")]).expect("valid");
        assert_eq!((config.max_size, config.max_file), (Some(10_000_000), 1));
    }

    #[test]
    fn wrong_options_give_dockers_texts() {
        let text = |driver, options: &[_]| parse(driver, options).expect_err("invalid").to_string();
        assert_eq!(text("json-file", &[("foo", "1")]), "unknown log opt 'foo' for json-file log driver");
        assert_eq!(text("nosuch", &[]), "logger: no log driver named 'nosuch' is registered");
        assert_eq!(text("", &[("mode", "foo")]), "logger: logging mode not supported: foo");
        let buffer = ("max-buffer-size", "1m");
        assert_eq!(text("", &[buffer]), "logger: max-buffer-size option is only supported with 'mode=non-blocking'");
        assert_eq!(
            text("json-file", &[("max-file", "0")]),
            "invalid value for max-file: max-file cannot be less than 1"
        );
        assert_eq!(
            text("json-file", &[("compress", "true"), ("max-size", "1m")]),
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        );
        for size in ["", "x", "0", "-2", "1q", "nan", "inf", "1e400"] {
            assert!(parse("local", &[("max-size", size)]).is_err(), "{size}");
        }
    }

    #[test]
    fn a_remote_driver_spools_in_the_local_format_and_the_shim_is_told_only_that() {
        let options = [("syslog-address", "udp://h:514"), ("cache-max-size", "1m"), ("mode", "non-blocking")];
        let config = parse("syslog", &options).expect("valid");
        assert_eq!((config.driver, config.max_size, config.compress), (Driver::Local, Some(1_000_000), true));
        assert_eq!(config.remote.as_ref().map(|r| r.get("syslog-address")), Some("udp://h:514"));
        let args = config.to_args();
        assert_eq!(args[..2], ["--log", "local"]);
        assert!(!args.iter().any(|a| a.contains("syslog")), "{args:?}");
        assert!(parse("awslogs", &[]).expect_err("not built").to_string().contains("awslogs"));
    }

    #[test]
    fn arguments_parse_back_to_the_same_configuration() {
        for config in [parse("local", &[]), parse("", &[("max-size", "-1")]), parse("", &[("max-size", "1k")])] {
            let config = config.expect("valid");
            let args = config.to_args();
            let options = args.iter().filter_map(|a| a.split_once('='));
            assert_eq!(Config::parse(&args[1], options).expect("valid"), config);
        }
    }
}
