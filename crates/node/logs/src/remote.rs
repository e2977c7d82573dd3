//! Drivers whose messages go elsewhere: their options, checked. What sends them reads the spool, which for these drivers has
//! the `local` format; `cache-max-size`, `cache-max-file` and `cache-compress` bound it (Docker's dual logging has these names).
//!
//! Texts and defaults are those of moby `daemon/logger/<driver>`.

use std::collections::BTreeMap;

use crate::LogError;
use crate::config::{parse_bool_of, parse_size_of};

/// A driver that sends messages away, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Which one.
    pub kind: RemoteKind,
    /// Its options, checked by [`check`].
    pub options: BTreeMap<String, String>,
}

/// The drivers that send messages away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Their names say what they are.
pub enum RemoteKind {
    Journald,
    Syslog,
    Gelf,
    Fluentd,
    Splunk,
}

impl RemoteKind {
    /// Docker's name of the driver.
    pub fn name(self) -> &'static str {
        match self {
            RemoteKind::Journald => "journald",
            RemoteKind::Syslog => "syslog",
            RemoteKind::Gelf => "gelf",
            RemoteKind::Fluentd => "fluentd",
            RemoteKind::Splunk => "splunk",
        }
    }

    /// The driver of a name.
    pub fn of(name: &str) -> Option<RemoteKind> {
        use RemoteKind::{Fluentd, Gelf, Journald, Splunk, Syslog};
        [Journald, Syslog, Gelf, Fluentd, Splunk].into_iter().find(|kind| kind.name() == name)
    }

    fn own_options(self) -> &'static [&'static str] {
        match self {
            RemoteKind::Journald => &[],
            RemoteKind::Syslog => &[
                "syslog-address",
                "syslog-facility",
                "syslog-tls-ca-cert",
                "syslog-tls-cert",
                "syslog-tls-key",
                "syslog-tls-skip-verify",
                "syslog-format",
            ],
            RemoteKind::Gelf => &[
                "gelf-address",
                "gelf-compression-level",
                "gelf-compression-type",
                "gelf-tcp-max-reconnect",
                "gelf-tcp-reconnect-delay",
            ],
            RemoteKind::Fluentd => &[
                "fluentd-address",
                "fluentd-async",
                "fluentd-async-connect",
                "fluentd-async-reconnect-interval",
                "fluentd-buffer-limit",
                "fluentd-max-retries",
                "fluentd-request-ack",
                "fluentd-retry-wait",
                "fluentd-sub-second-precision",
                "fluentd-write-timeout",
            ],
            RemoteKind::Splunk => &[
                "splunk-token",
                "splunk-url",
                "splunk-source",
                "splunk-sourcetype",
                "splunk-index",
                "splunk-capath",
                "splunk-caname",
                "splunk-insecureskipverify",
                "splunk-format",
                "splunk-verify-connection",
                "splunk-gzip",
                "splunk-gzip-level",
                "splunk-index-acknowledgment",
            ],
        }
    }
}

impl Remote {
    /// Checks the options of a driver, those that bound the spool left out.
    pub(crate) fn parse(kind: RemoteKind, options: BTreeMap<String, String>) -> Result<Remote, LogError> {
        const COMMON: &[&str] = &["tag", "labels", "labels-regex", "env", "env-regex"];
        let known = |name: &str| COMMON.contains(&name) || kind.own_options().contains(&name);
        if let Some(wrong) = options.keys().find(|name| !known(name)) {
            let option = wrong.chars().take(80).collect();
            return Err(LogError::UnknownOption { driver: kind.name(), option });
        }
        let remote = Remote { kind, options };
        match kind {
            RemoteKind::Journald | RemoteKind::Splunk => {}
            RemoteKind::Syslog => remote.check_syslog()?,
            RemoteKind::Gelf => remote.check_gelf()?,
            RemoteKind::Fluentd => remote.check_fluentd()?,
        }
        Ok(remote)
    }

    /// An option's value, empty if it is not given.
    pub fn get(&self, option: &str) -> &str {
        self.options.get(option).map_or("", String::as_str)
    }

    /// Whether a switch is on; what was given was checked.
    pub fn switch(&self, option: &str) -> bool {
        parse_bool_of("", self.get(option)).unwrap_or(false)
    }

    fn refuse<T>(option: &'static str, text: impl Into<String>) -> Result<T, LogError> {
        Err(LogError::Value { option, text: text.into() })
    }

    fn check_syslog(&self) -> Result<(), LogError> {
        let address = self.get("syslog-address");
        if !address.is_empty() {
            let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
            match scheme {
                "tcp" | "udp" | "tcp+tls" => {}
                "unix" | "unixgram" => {
                    if let Err(e) = std::fs::metadata(rest) {
                        let reason = match e.kind() {
                            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                            _ => e.to_string(),
                        };
                        return Self::refuse("syslog-address", format!("stat {rest}: {reason}"));
                    }
                }
                _ => return Self::refuse("syslog-address", format!("unsupported scheme: '{scheme}'")),
            }
        }
        if facility(self.get("syslog-facility")).is_none() {
            return Self::refuse("syslog-facility", "invalid syslog facility");
        }
        match self.get("syslog-format") {
            "" | "rfc3164" | "rfc5424" | "rfc5424micro" => Ok(()),
            _ => Self::refuse("syslog-format", "Invalid syslog format"),
        }
    }

    fn check_gelf(&self) -> Result<(), LogError> {
        let address = self.get("gelf-address");
        if address.is_empty() {
            return Self::refuse("gelf-address", "gelf-address is a required parameter");
        }
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        if !matches!(scheme, "udp" | "tcp") {
            return Self::refuse("gelf-address", "gelf: endpoint needs to be TCP or UDP");
        }
        if rest.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Self::refuse("gelf-address", "gelf: please provide gelf-address as proto://host:port");
        }
        for (option, value) in &self.options {
            let unknown = || format!("unknown value {value:?} for log opt {option:?} for gelf log driver");
            match option.as_str() {
                "gelf-compression-level" | "gelf-compression-type" if scheme != "udp" => {
                    return Self::refuse("gelf-compression-type", "compression is only supported on UDP");
                }
                "gelf-compression-level" if !value.parse::<i8>().is_ok_and(|n| (-1..=9).contains(&n)) => {
                    return Self::refuse("gelf-compression-level", unknown());
                }
                "gelf-compression-type" if !matches!(value.as_str(), "gzip" | "zlib" | "none") => {
                    return Self::refuse("gelf-compression-type", unknown());
                }
                "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" if scheme != "tcp" => {
                    return Self::refuse("gelf-tcp-max-reconnect", format!("{option:?} is only valid for TCP"));
                }
                "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" if value.parse::<u32>().is_err() => {
                    return Self::refuse("gelf-tcp-max-reconnect", format!("{option:?} must be a positive integer"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_fluentd(&self) -> Result<(), LogError> {
        let address = self.get("fluentd-address");
        let wrong =
            |reason: String| Self::refuse("fluentd-address", format!("invalid fluentd-address ({address}): {reason}"));
        if let Some((scheme, rest)) = address.split_once("://") {
            match scheme {
                "unix" if rest.is_empty() => return wrong("path is empty".to_owned()),
                "unix" => {}
                "tcp" | "tls" if rest.contains('/') => {
                    return wrong("should not contain a path element".to_owned());
                }
                "tcp" | "tls" => {}
                _ => return wrong(format!("unsupported scheme: '{scheme}'")),
            }
        }
        for (option, value) in &self.options {
            let plain = |text: String| Self::refuse("fluentd-async", text);
            let syntax = |go: &str| plain(format!("strconv.{go}: parsing {value:?}: invalid syntax"));
            match option.as_str() {
                "fluentd-async" | "fluentd-async-connect" | "fluentd-request-ack" | "fluentd-sub-second-precision" => {
                    parse_bool_of("fluentd-async", value)?;
                }
                "fluentd-buffer-limit" => {
                    parse_size_of("fluentd-buffer-limit", value)?;
                }
                "fluentd-max-retries" if value.parse::<u64>().is_err() => return syntax("ParseUint"),
                "fluentd-retry-wait" | "fluentd-async-reconnect-interval" | "fluentd-write-timeout"
                    if !is_duration(value) =>
                {
                    return plain(format!("time: invalid duration {value:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a text is a duration of Go: `1s`, `1m30s`, `500ms`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        let Some(unit) = units.iter().filter(|u| digits.starts_with(**u)).max_by_key(|u| u.len()) else {
            return rest == "0";
        };
        if digits.len() == rest.len() {
            return false;
        }
        rest = &digits[unit.len()..];
    }
    true
}

/// The number of a syslog facility by name or number, shifted (RFC 5424 table 1); empty is `daemon`.
pub fn facility(text: &str) -> Option<u8> {
    const NAMES: &[&str] =
        &["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
    let number = match text {
        "" => 3,
        name => match NAMES.iter().position(|n| *n == name) {
            Some(at) => at as u8,
            None => match name.strip_prefix("local").and_then(|n| n.parse::<u8>().ok()) {
                Some(n) if n < 8 => 16 + n,
                _ => name.parse::<u8>().ok().filter(|n| *n <= 23)?,
            },
        },
    };
    Some(number << 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: RemoteKind, options: &[(&str, &str)]) -> Option<String> {
        let map = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        match Remote::parse(kind, map) {
            Ok(_) => None,
            Err(LogError::Value { text, .. }) => Some(text),
            Err(e) => Some(e.to_string()),
        }
    }

    #[test]
    fn wrong_options_give_dockers_texts() {
        use RemoteKind::{Fluentd, Gelf, Journald, Syslog};
        type Case = (RemoteKind, &'static [(&'static str, &'static str)], &'static str);
        const UDP: (&str, &str) = ("gelf-address", "udp://localhost:1");
        let cases: &[Case] = &[
            (Journald, &[("foo", "1")], "unknown log opt 'foo' for journald log driver"),
            (Syslog, &[("syslog-address", "foo")], "unsupported scheme: ''"),
            (Syslog, &[("syslog-address", "foo://x")], "unsupported scheme: 'foo'"),
            (Syslog, &[("syslog-address", "unix:///nosuch")], "stat /nosuch: no such file or directory"),
            (Syslog, &[("syslog-facility", "foo")], "invalid syslog facility"),
            (Syslog, &[("syslog-format", "foo")], "Invalid syslog format"),
            (Gelf, &[], "gelf-address is a required parameter"),
            (Gelf, &[("gelf-address", "foo")], "gelf: endpoint needs to be TCP or UDP"),
            (
                Gelf,
                &[UDP, ("gelf-compression-type", "x")],
                "unknown value \"x\" for log opt \"gelf-compression-type\" for gelf log driver",
            ),
            (
                Gelf,
                &[("gelf-address", "tcp://h:1"), ("gelf-compression-level", "7")],
                "compression is only supported on UDP",
            ),
            (Gelf, &[UDP, ("gelf-tcp-max-reconnect", "7")], "\"gelf-tcp-max-reconnect\" is only valid for TCP"),
            (
                Fluentd,
                &[("fluentd-address", "foo://x")],
                "invalid fluentd-address (foo://x): unsupported scheme: 'foo'",
            ),
            (Fluentd, &[("fluentd-address", "unix://")], "invalid fluentd-address (unix://): path is empty"),
            (Fluentd, &[("fluentd-async", "x")], "strconv.ParseBool: parsing \"x\": invalid syntax"),
            (Fluentd, &[("fluentd-buffer-limit", "x")], "invalid size: 'x'"),
            (Fluentd, &[("fluentd-max-retries", "x")], "strconv.ParseUint: parsing \"x\": invalid syntax"),
        ];
        for (kind, options, expected) in cases {
            assert_eq!(text(*kind, options).as_deref(), Some(*expected));
        }
        for (kind, options) in [
            (Syslog, &[("syslog-address", "udp://h:514"), ("syslog-format", "rfc5424micro")][..]),
            (Gelf, &[UDP, ("tag", "{{.Name}}")][..]),
            (Fluentd, &[("fluentd-address", "h:24224"), ("fluentd-retry-wait", "1m30s")][..]),
        ] {
            assert_eq!(text(kind, options), None);
        }
    }

    #[test]
    fn facilities_have_names_and_numbers() {
        for (text, number) in [("", 24), ("kern", 0), ("local7", 184), ("23", 184), ("ftp", 88)] {
            assert_eq!(facility(text), Some(number), "{text}");
        }
        assert_eq!((facility("24"), facility("local8")), (None, None));
    }
}
