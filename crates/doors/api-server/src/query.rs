//! Queries of URLs, read as Go's `net/url` and moby's `httputils` read them.

use wharf_api_types::{Filters, OciPlatform};
use wharf_error::Kind;

use crate::ApiError;

/// The decoded query of a request. The first value of a key counts; all values of a list are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// Decodes `%41` and, in queries, `+`. `None` is a broken escape.
pub fn unescape(text: &str, plus: bool) -> Result<String, ApiError> {
    let bad =
        |at: &str| ApiError::invalid(format!("invalid URL escape \"{}\"", at.chars().take(3).collect::<String>()));
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let hex = bytes.get(i + 1..i + 3).filter(|h| h.iter().all(u8::is_ascii_hexdigit));
                let value = hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
                out.push(value.ok_or_else(|| bad(text.get(i..).unwrap_or_default()))?);
                i += 3;
            }
            b'+' if plus => {
                out.push(b' ');
                i += 1;
            }
            b => {
                out.push(b);
                i += 1;
            }
        }
    }
    // Go keeps bytes that are no UTF-8; nothing named by them can exist here, so replacing them loses nothing.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn atoi_error(function: &str, text: &str) -> ApiError {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let range = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let reason = if range { "value out of range" } else { "invalid syntax" };
    // moby does not mark these errors, so they are a 500 there.
    ApiError::new(Kind::System, format!("strconv.{function}: parsing {text:?}: {reason}"))
}

impl Query {
    /// Parses what stands behind the question mark.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|p| !p.is_empty()) {
            if part.contains(';') {
                return Err(ApiError::invalid("invalid semicolon separator in query"));
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((unescape(key, true)?, unescape(value, true)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value of a key, empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// All values of a key.
    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    /// A boolean: everything is true but an absent or empty value and `0`, `no`, `false`, `none`.
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// A boolean with a default for an absent key.
    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(v) => !matches!(v.trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none"),
        }
    }

    /// A whole number; absent or empty is `None`.
    pub fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| atoi_error("Atoi", text)),
        }
    }

    /// Height and width of a terminal, both needed.
    pub fn size(&self) -> Result<(u32, u32), ApiError> {
        let side = |key: &str, name: &str| {
            let text = self.text(key);
            text.parse::<u32>().map_err(|_| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let reason = if digits { "value out of range" } else { "invalid syntax" };
                ApiError::invalid(format!("invalid resize {name} {text:?}: {reason}"))
            })
        };
        Ok((side("h", "height")?, side("w", "width")?))
    }

    /// A point in time, `seconds` or `seconds.nanoseconds` since the epoch, as nanoseconds; absent or empty is `None`.
    pub fn time(&self, key: &str) -> Result<Option<i128>, ApiError> {
        let text = self.text(key);
        if text.is_empty() {
            return Ok(None);
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole: i64 = seconds.parse().map_err(|_| atoi_error("ParseInt", seconds))?;
        let mut nanos: i64 = 0;
        if !fraction.is_empty() {
            let n: i64 = fraction.parse().map_err(|_| atoi_error("ParseInt", fraction))?;
            let digits = fraction.len();
            nanos = match digits {
                0..=9 => n.saturating_mul(10i64.pow(u32::try_from(9 - digits).unwrap_or(0))),
                10..=27 => n / 10i64.pow(u32::try_from(digits - 9).unwrap_or(0)),
                _ => 0,
            };
        }
        Ok(Some(i128::from(whole) * 1_000_000_000 + i128::from(nanos)))
    }

    /// The `filters` map.
    pub fn filters(&self) -> Result<Filters, ApiError> {
        Filters::parse(self.text("filters")).map_err(|e| ApiError::of(&e))
    }

    /// Platforms as JSON texts; at least operating system and architecture each.
    pub fn platforms(&self, key: &str) -> Result<Vec<OciPlatform>, ApiError> {
        self.all(key).iter().filter(|t| !t.is_empty()).map(|t| platform(t)).collect()
    }
}

fn platform(text: &str) -> Result<OciPlatform, ApiError> {
    let platform: OciPlatform = serde_json::from_str(text).map_err(|_| {
        let reason = crate::json::syntax_error(text.as_bytes()).unwrap_or_else(|| "wrong type".to_owned());
        ApiError::invalid(format!("failed to parse platform: {reason}"))
    })?;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(ApiError::invalid("both OS and Architecture must be provided"));
    }
    Ok(platform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect(text)
    }

    #[test]
    fn escapes_and_repeated_keys_are_read_as_go_reads_them() {
        let q = query("names=a%2Fb&names=c+d&x&=y");
        assert_eq!(q.all("names"), ["a/b", "c d"]);
        assert_eq!((q.get("x"), q.get("nope")), (Some(""), None));
        assert_eq!(Query::parse("a=%ZZ").expect_err("escape").message, "invalid URL escape \"%ZZ\"");
        assert_eq!(Query::parse("a=%4").expect_err("escape").message, "invalid URL escape \"%4\"");
        assert_eq!(Query::parse("a=1;b=2").expect_err("semicolon").message, "invalid semicolon separator in query");
    }

    #[test]
    fn booleans_are_true_unless_they_say_no() {
        let q = query("a=1&b=true&c=maybe&d=0&e=False&f=none&g=no&h=&i");
        let truths: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().map(|k| q.flag(k)).collect();
        assert_eq!(truths, [true, true, true, false, false, false, false, false, false]);
        assert!(q.flag_or("absent", true) && !q.flag_or("h", true));
    }

    #[test]
    fn numbers_that_are_none_give_go_s_errors() {
        let e = query("t=x").number("t").expect_err("x");
        assert_eq!((e.kind, e.message.as_str()), (Kind::System, "strconv.Atoi: parsing \"x\": invalid syntax"));
        let e = query("t=99999999999999999999").number("t").expect_err("large");
        assert_eq!(e.message, "strconv.Atoi: parsing \"99999999999999999999\": value out of range");
        assert_eq!(query("t=-1").number("t"), Ok(Some(-1)));
        let e = query("h=1&w=x").size().expect_err("w");
        assert_eq!((e.kind, e.message.as_str()), (Kind::Invalid, "invalid resize width \"x\": invalid syntax"));
        let e = query("h=99999999999&w=1").size().expect_err("h");
        assert_eq!(e.message, "invalid resize height \"99999999999\": value out of range");
    }

    #[test]
    fn times_have_seconds_and_a_fraction() {
        assert_eq!(query("since=1136073600.000000001").time("since"), Ok(Some(1_136_073_600_000_000_001)));
        assert_eq!(query("since=1.5").time("since"), Ok(Some(1_500_000_000)));
        assert_eq!(query("since=").time("since"), Ok(None));
        let e = query("since=x").time("since").expect_err("x");
        assert_eq!(e.message, "strconv.ParseInt: parsing \"x\": invalid syntax");
    }

    #[test]
    fn platforms_need_both_parts() {
        let e = query("platform=x").platforms("platform").expect_err("x");
        assert_eq!(e.message, "failed to parse platform: invalid character 'x' looking for beginning of value");
        let e = query("platform=%7B%22os%22:%22linux%22%7D").platforms("platform").expect_err("half");
        assert_eq!(e.message, "both OS and Architecture must be provided");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            if let Ok(q) = Query::parse(&text) {
                let _ = (q.filters(), q.size(), q.time("a"), q.number("a"), q.platforms("a"));
            }
        }

        #[test]
        fn times_never_panic(text in "[0-9.+-]{0,60}") {
            let _ = Query(vec![("since".to_owned(), text)]).time("since");
        }
    }
}
