//! Reads the values of flags, with the texts of Go's strconv and of Docker's own option types.

use crate::create;
use crate::table::{Command, Flag, Kind};

/// Checks a value as it is read from the command line.
///
/// # Errors
/// Returns what follows `invalid argument "x" for "--flag" flag: `.
pub fn check(command: &Command, flag: &Flag, text: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool => parse_bool(text).map(drop),
        Kind::Int => parse_int(text).map(drop),
        Kind::Uint => parse_uint(text, u64::MAX).map(drop),
        Kind::Uint16 => parse_uint(text, u64::from(u16::MAX)).map(drop),
        Kind::Uint32 => parse_uint(text, u64::from(u32::MAX)).map(drop),
        Kind::Float => match text.parse::<f64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("strconv.ParseFloat: parsing {}: invalid syntax", quoted(text))),
        },
        Kind::Decimal => parse_nano(text).map(drop),
        Kind::Bytes => parse_bytes(flag.long, text).map(drop),
        Kind::Duration => parse_duration(text).map(drop),
        Kind::Strings => split_csv(text).map(drop),
        Kind::Filter => check_filter(text),
        Kind::Mount => create::mount::parse(text).map(drop),
        Kind::Network => create::network::parse(text).map(drop),
        Kind::Gpus => create::device::parse_gpus(text).map(drop),
        Kind::Ulimit => create::resource::parse_ulimit(text).map(drop),
        Kind::Map | Kind::List | Kind::Text => create::check::check(command.path, flag.long, text),
        _ => Ok(()),
    }
}

/// Quotes as Go's `%q`.
pub fn quoted(text: &str) -> String {
    wharf_template::sprintf("%q", &[text.into()])
}

/// Reads a switch as strconv.ParseBool does; nothing is false.
///
/// # Errors
/// Go's text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(text))),
    }
}

fn radix(digits: &str) -> (u32, &str) {
    match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    }
}

fn number(function: &str, text: &str, signed: bool, max: u128) -> Result<i128, String> {
    let fail = |why: &str| format!("strconv.{function}: parsing {}: {why}", quoted(text));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') if signed => (true, &text[1..]),
        Some(b'+') if signed => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = radix(digits);
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(fail("invalid syntax"));
    }
    let magnitude = u128::from_str_radix(digits, base).unwrap_or(u128::MAX);
    if magnitude > max + u128::from(negative) {
        return Err(fail("value out of range"));
    }
    let value = i128::try_from(magnitude).unwrap_or(i128::MAX);
    Ok(if negative { -value } else { value })
}

/// Reads a signed number in Go's notations (0x, 0o, 0b).
///
/// # Errors
/// Go's text.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let value = number("ParseInt", text, true, i64::MAX as u128)?;
    Ok(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Reads an unsigned number up to `max`.
///
/// # Errors
/// Go's text.
pub fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let value = number("ParseUint", text, false, u128::from(max))?;
    Ok(u64::try_from(value).unwrap_or(u64::MAX))
}

/// Reads a number of processors as billionths.
///
/// # Errors
/// Docker's text.
pub fn parse_nano(text: &str) -> Result<i64, String> {
    let fail = || format!("failed to parse {text} as a rational number");
    let (negative, body) = match text.strip_prefix('-') {
        Some(b) => (true, b),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(fail());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".into());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| fail())? };
    let nano: i64 = format!("{fraction:0<9}").parse().map_err(|_| fail())?;
    let value = whole.checked_mul(1_000_000_000).and_then(|w| w.checked_add(nano)).ok_or_else(fail)?;
    Ok(if negative { -value } else { value })
}

/// Reads a size: a number with a unit of 1024s (`64m`, `1.5GiB`, `512`). `memory-swap` may be -1.
///
/// # Errors
/// Docker's text.
pub fn parse_bytes(flag: &str, text: &str) -> Result<i64, String> {
    if flag == "memory-swap" && text == "-1" {
        return Ok(-1);
    }
    let fail = || format!("invalid size: '{text}'");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|i| i + 1).ok_or_else(fail)?;
    let (amount, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let amount: f64 = amount.parse().map_err(|_| fail())?;
    if amount < 0.0 {
        return Err(fail());
    }
    let letter = match unit.as_str() {
        "" | "b" => return Ok(amount as i64),
        u if u.len() == 1 => u,
        u if u.len() == 2 && u.ends_with('b') => &u[..1],
        u if u.len() == 3 && u.ends_with("ib") => &u[..1],
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    let power = match letter {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    Ok((amount * 1024f64.powi(power)) as i64)
}

/// Reads a span of time as Go's time.ParseDuration does, in nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let amount: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        let nanos = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quoted(text))),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(format!("time: unknown unit {} in duration {}", quoted(unit), quoted(text))),
        };
        total += amount * nanos;
        rest = &rest[end..];
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// Splits one record of comma-separated values, with quotes.
///
/// # Errors
/// `EOF` for nothing, and Go's text for quotes in the wrong place.
pub fn split_csv(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("EOF".into());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut inner) = rest.strip_prefix('"') {
            loop {
                let Some(at) = inner.find('"') else {
                    return Err(format!(
                        "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                        text.len() + 1
                    ));
                };
                field.push_str(&inner[..at]);
                inner = &inner[at + 1..];
                match inner.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inner = more;
                    }
                    None => break,
                }
            }
            rest = inner;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(at) = rest[..end].find('"') {
                let column = text.len() - rest.len() + at + 1;
                return Err(format!("parse error on line 1, column {column}: bare \" in non-quoted-field"));
            }
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => {
                let column = text.len() - rest.len();
                return Err(format!(
                    "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                ));
            }
        }
    }
}

fn check_filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".into())
}
