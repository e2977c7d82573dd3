//! Points in time in the forms that Docker's clients read: RFC 3339 with nanoseconds, UTC, trailing zeros cut, as
//! Go's `time.RFC3339Nano` prints them.

use serde::{Deserialize, Serialize};
use wharf_error::{HasKind, Kind};

/// A point in time to the nanosecond, UTC. The default is Go's zero time, `0001-01-01T00:00:00Z`, which Docker
/// shows for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(jiff::Timestamp);

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid time {0:?}: expected RFC 3339, for example 2006-01-02T15:04:05.999999999Z")]
pub struct TimestampError(String);

impl HasKind for TimestampError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// Seconds of Go's zero time before the epoch.
const ZERO_SECONDS: i64 = -62_135_596_800;

impl Timestamp {
    /// Reads the system's clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// Takes seconds and nanoseconds since the epoch; out-of-range values become Go's zero time.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Self {
        jiff::Timestamp::new(seconds, nanoseconds.min(999_999_999) as i32).map_or_else(|_| Self::default(), Self)
    }

    /// Parses RFC 3339 with any offset.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        text.parse().map(Self).map_err(|_| TimestampError(text.chars().take(80).collect()))
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.as_nanosecond().div_euclid(1_000_000_000) as i64
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    pub fn subsec_nanos(self) -> u32 {
        self.0.as_nanosecond().rem_euclid(1_000_000_000) as u32
    }

    /// Nanoseconds since the epoch.
    pub fn unix_nanos(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// Whether this is Go's zero time ("never").
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The time with all nine digits of the fraction (`2006-01-02T15:04:05.000000000Z`), as log lines carry it.
    pub fn fixed_nanos(self) -> String {
        format!("{:.9}", self.0)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self(jiff::Timestamp::from_second(ZERO_SECONDS).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;
    fn try_from(text: String) -> Result<Self, TimestampError> {
        Self::parse(&text)
    }
}

impl From<Timestamp> for String {
    fn from(t: Timestamp) -> String {
        t.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_go_prints_them() {
        assert_eq!(Timestamp::default().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_unix(1, 500_000_000).to_string(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Timestamp::from_unix(1, 0).fixed_nanos(), "1970-01-01T00:00:01.000000000Z");
    }

    #[test]
    fn any_offset_parses_to_utc() {
        let t = Timestamp::parse("2024-02-29T12:00:00.25+02:00").expect("valid");
        assert_eq!(t.to_string(), "2024-02-29T10:00:00.25Z");
        assert!(Timestamp::parse("yesterday").is_err());
    }
}
