//! Times and spans for people, and the times people write.

use std::sync::LazyLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::value;

/// A span as docker/go-units prints it: `About a minute`, `3 weeks`.
pub fn span(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a time in seconds since the epoch was: `3 weeks ago`.
pub fn ago(seconds: i64) -> String {
    format!("{} ago", span(Timestamp::now().as_second() - seconds))
}

/// The machine's zone. Read from its file: looking its name up in the zone database, as the library does, reads all
/// folders of that, which takes longer than the rest of a `docker ps`.
fn zone() -> TimeZone {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(|| {
        let unnamed = || std::env::var_os("TZ").is_none().then(|| std::fs::read("/etc/localtime").ok()).flatten();
        let read = unnamed().and_then(|bytes| TimeZone::tzif("Local", &bytes).ok());
        read.or_else(|| TimeZone::try_system().ok()).unwrap_or(TimeZone::UTC)
    });
    ZONE.clone()
}

fn local(t: Timestamp) -> Zoned {
    t.to_zoned(zone())
}

/// A time as Go prints it in the local zone: `2006-01-02 15:04:05 +0100 CET`.
pub fn go_local(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(t) => local(t).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
        Err(_) => String::new(),
    }
}

/// A time with all nine digits in the local zone, as events are printed.
pub fn nanos_local(nanos: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(t) => {
            let z = local(t);
            let offset = z.strftime("%:z").to_string();
            format!("{}{}", z.strftime("%Y-%m-%dT%H:%M:%S.%9f"), if offset == "+00:00" { "Z" } else { &offset })
        }
        Err(_) => String::new(),
    }
}

/// A time as `docker version` prints build times: `Fri May 30 12:07:14 2025`.
pub fn ansi(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(t) => t.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Turns what `--since` and `--until` take (a time, a number of seconds, or a span back from now) into what the API
/// takes: seconds with nine decimals.
///
/// # Errors
/// Docker's text.
pub fn since(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if let Ok(span) = value::parse_duration(text) {
        return Ok(seconds(Timestamp::now().as_nanosecond() - i128::from(span)));
    }
    if let Ok(t) = text.parse::<Timestamp>() {
        return Ok(seconds(t.as_nanosecond()));
    }
    if let Some(t) = local_time(text) {
        return Ok(seconds(t.as_nanosecond()));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !whole.is_empty() && digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction) && fraction.len() <= 9
    {
        return Ok(text.to_owned());
    }
    Err(format!("failed to parse value as time or duration: {}", value::quoted(text)))
}

fn seconds(nanos: i128) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// Times without a zone are local; seconds, minutes and hours may be missing.
fn local_time(text: &str) -> Option<Timestamp> {
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H"] {
        if let Ok(t) = jiff::civil::DateTime::strptime(format, text) {
            return t.to_zoned(zone()).ok().map(|z| z.timestamp());
        }
    }
    let day = jiff::civil::Date::strptime("%Y-%m-%d", text.strip_suffix('Z').unwrap_or(text)).ok()?;
    day.to_zoned(zone()).ok().map(|z| z.timestamp())
}
