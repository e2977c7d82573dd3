//! Go's fmt: `%v` and the other verbs of `printf`.
//!
//! Source: the documentation of Go's package fmt. Pointers have no address here, so `%p` and `%#v` of structs print
//! what `%v` prints.

use std::fmt::Write;

use crate::value::{Nil, Value};

/// Widths and precisions beyond this are refused, as in Go.
const TOO_LARGE: usize = 1_000_000;

/// Returns the value as `%v` prints it.
pub fn format_value(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out, false);
    out
}

fn write_value(value: &Value, out: &mut String, names: bool) {
    let written = match value {
        Value::Nil(Nil::Interface | Nil::Pointer) => write!(out, "<nil>"),
        Value::Nil(Nil::Map) => write!(out, "map[]"),
        Value::Nil(Nil::List) => write!(out, "[]"),
        Value::Bool(b) => write!(out, "{b}"),
        Value::Int(i) => write!(out, "{i}"),
        Value::Uint(u) => write!(out, "{u}"),
        Value::Float(f) => write!(out, "{}", float_general(*f)),
        Value::Str(s) => write!(out, "{s}"),
        Value::List(l) => {
            out.push('[');
            for (i, v) in l.items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_value(v, out, names);
            }
            out.push(']');
            Ok(())
        }
        Value::Map(m) => {
            out.push_str("map[");
            for (i, (k, v)) in m.entries().iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(k);
                out.push(':');
                write_value(v, out, names);
            }
            out.push(']');
            Ok(())
        }
        Value::Record(r) => {
            if let Some(text) = r.text() {
                out.push_str(&text);
                return;
            }
            out.push('{');
            for (i, (k, v)) in r.fields().iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                if names {
                    out.push_str(k);
                    out.push(':');
                }
                write_value(v, out, names);
            }
            out.push('}');
            Ok(())
        }
    };
    // Writing to a String cannot fail.
    debug_assert!(written.is_ok());
}

/// Go's `%v` of a float: shortest digits, with an exponent below 1e-4 and from 1e6 up (strconv's `%g`).
fn float_general(f: f64) -> String {
    let magnitude = f.abs();
    if magnitude != 0.0 && magnitude.is_finite() && !(1e-4..1e6).contains(&magnitude) {
        return float_text(f, 'e', None);
    }
    float_text(f, 'f', None)
}

/// Formats a float with verb `e`, `f` or `g`; no precision means the shortest text that reads back the same.
pub(crate) fn float_text(f: f64, verb: char, precision: Option<usize>) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    match verb {
        'e' => {
            let text = match precision {
                Some(p) => format!("{f:.p$e}"),
                None => format!("{f:e}"),
            };
            // Rust writes 1e-7, Go at least two digits and a sign: 1e-07.
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(d) => ('-', d),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        'g' => match precision {
            None => float_general(f),
            Some(p) => {
                let p = p.max(1);
                let scientific = format!("{:.*e}", p - 1, f);
                let exponent: i32 = scientific.split_once('e').and_then(|e| e.1.parse().ok()).unwrap_or(0);
                if exponent < -4 || exponent >= i32::try_from(p).unwrap_or(i32::MAX) {
                    let text = float_text(f, 'e', Some(p - 1));
                    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
                    return format!("{}e{exponent}", strip_zeros(mantissa));
                }
                let decimals = usize::try_from(i32::try_from(p).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
                strip_zeros(&format!("{f:.decimals$}")).to_owned()
            }
        },
        _ => match precision {
            Some(p) => format!("{f:.p$}"),
            None => format!("{f}"),
        },
    }
}

fn strip_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Go's `%q` of a string.
pub(crate) fn quote_go(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `fmt.Sprint`: a space between two operands of which neither is a string.
pub(crate) fn sprint(args: &[Value]) -> String {
    let mut out = String::new();
    for (i, v) in args.iter().enumerate() {
        if i > 0 && !matches!(v, Value::Str(_)) && !matches!(args[i - 1], Value::Str(_)) {
            out.push(' ');
        }
        write_value(v, &mut out, false);
    }
    out
}

/// Go's `fmt.Sprintln`.
pub(crate) fn sprintln(args: &[Value]) -> String {
    let mut out = args.iter().map(format_value).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

#[derive(Clone, Copy, Default)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's `fmt.Sprintf`, with its notes for wrong verbs and missing or extra operands.
pub fn sprintf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0usize;
    let mut reordered = false;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '+' => spec.plus = true,
                '-' => spec.minus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        let mut good_index = argument_index(&mut chars, args.len(), &mut next, &mut reordered);
        if chars.peek() == Some(&'*') {
            chars.next();
            match star(args, &mut next) {
                Some(w) => {
                    spec.minus |= w < 0;
                    spec.width = usize::try_from(w.unsigned_abs()).ok();
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
            good_index &= argument_index(&mut chars, args.len(), &mut next, &mut reordered);
        } else {
            spec.width = digits(&mut chars);
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            good_index &= argument_index(&mut chars, args.len(), &mut next, &mut reordered);
            if chars.peek() == Some(&'*') {
                chars.next();
                match star(args, &mut next) {
                    Some(p) => spec.precision = usize::try_from(p).ok(),
                    None => out.push_str("%!(BADPREC)"),
                }
            } else {
                spec.precision = Some(digits(&mut chars).unwrap_or(0));
            }
            good_index &= argument_index(&mut chars, args.len(), &mut next, &mut reordered);
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
        } else if !good_index {
            let _ = write!(out, "%!{verb}(BADINDEX)");
        } else if let Some(arg) = args.get(next) {
            next += 1;
            out.push_str(&one(verb, spec, arg));
        } else {
            let _ = write!(out, "%!{verb}(MISSING)");
        }
    }
    if !reordered && next < args.len() {
        out.push_str("%!(EXTRA ");
        for (i, a) in args[next..].iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            match a {
                Value::Nil(Nil::Interface) => out.push_str("<nil>"),
                a => {
                    let _ = write!(out, "{}={}", a.type_name(), format_value(a));
                }
            }
        }
        out.push(')');
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn digits(chars: &mut Chars<'_>) -> Option<usize> {
    let mut n: Option<usize> = None;
    while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        n = Some((n.unwrap_or(0) * 10 + d as usize).min(TOO_LARGE));
    }
    n
}

fn star(args: &[Value], next: &mut usize) -> Option<i64> {
    let v = args.get(*next)?;
    *next += 1;
    match v {
        Value::Int(i) if i.unsigned_abs() <= TOO_LARGE as u64 => Some(*i),
        _ => None,
    }
}

/// Reads `[n]`; returns false for an index that no operand has.
fn argument_index(chars: &mut Chars<'_>, count: usize, next: &mut usize, reordered: &mut bool) -> bool {
    if chars.peek() != Some(&'[') {
        return true;
    }
    *reordered = true;
    chars.next();
    let n = digits(chars);
    let closed = chars.peek() == Some(&']');
    if closed {
        chars.next();
    }
    match n {
        Some(n) if closed && n >= 1 && n <= count => {
            *next = n - 1;
            true
        }
        _ => false,
    }
}

fn one(verb: char, spec: Spec, arg: &Value) -> String {
    match verb {
        'T' => return pad(arg.type_name(), spec, false),
        'v' | 'p' => {
            if let Value::Str(s) = arg {
                return if spec.sharp { pad(quote_go(s), spec, false) } else { string(s, spec) };
            }
            if let Value::Float(f) = arg {
                return number_text(float_text(*f, 'g', spec.precision), spec);
            }
            if let Value::Int(_) | Value::Uint(_) = arg {
                return integer('d', spec, arg);
            }
            let mut text = String::new();
            write_value(arg, &mut text, spec.plus);
            return pad(text, spec, spec.zero);
        }
        _ => {}
    }
    match (arg, verb) {
        (Value::Bool(b), 't') => pad(b.to_string(), spec, spec.zero),
        (Value::Int(_) | Value::Uint(_), 'd' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U') => {
            integer(verb, spec, arg)
        }
        (Value::Float(f), 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => {
            let precision = spec.precision.or(if verb.eq_ignore_ascii_case(&'g') { None } else { Some(6) });
            let text = float_text(*f, verb.to_ascii_lowercase(), precision);
            number_text(if matches!(verb, 'E' | 'G') { text.to_uppercase() } else { text }, spec)
        }
        (Value::Str(s), 's') => string(s, spec),
        (Value::Str(s), 'q') => {
            let cut = truncate(s, spec);
            let text = if spec.sharp && !cut.contains(['`', '\n']) { format!("`{cut}`") } else { quote_go(cut) };
            pad(text, spec, spec.zero)
        }
        (Value::Str(s), 'x' | 'X') => {
            let end = spec.precision.map_or(s.len(), |p| p.min(s.len()));
            let separator = if spec.space { " " } else { "" };
            let hex: Vec<String> = s.as_bytes()[..end]
                .iter()
                .map(|b| if verb == 'x' { format!("{b:02x}") } else { format!("{b:02X}") })
                .collect();
            pad(hex.join(separator), spec, spec.zero)
        }
        (Value::List(l), _) => {
            let items: Vec<String> = l.items.iter().map(|v| one(verb, spec, v)).collect();
            format!("[{}]", items.join(" "))
        }
        (Value::Map(m), _) => {
            let items: Vec<String> = m
                .entries()
                .iter()
                .map(|(k, v)| format!("{}:{}", one(verb, spec, &Value::Str(k.clone())), one(verb, spec, v)))
                .collect();
            format!("map[{}]", items.join(" "))
        }
        (Value::Record(r), _) => {
            let items: Vec<String> = r.fields().iter().map(|(_, v)| one(verb, spec, v)).collect();
            format!("{{{}}}", items.join(" "))
        }
        (Value::Nil(Nil::List), _) => "[]".into(),
        (Value::Nil(Nil::Map), _) => "map[]".into(),
        (Value::Nil(_), _) => format!("%!{verb}(<nil>)"),
        (arg, _) => format!("%!{verb}({}={})", arg.type_name(), format_value(arg)),
    }
}

fn truncate(s: &str, spec: Spec) -> &str {
    match spec.precision.and_then(|p| s.char_indices().nth(p)) {
        Some((at, _)) => &s[..at],
        None => s,
    }
}

fn string(s: &str, spec: Spec) -> String {
    pad(truncate(s, spec).to_owned(), spec, spec.zero)
}

fn pad(text: String, spec: Spec, zero: bool) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    match (missing, spec.minus, zero) {
        (0, ..) => text,
        (n, true, _) => text + &" ".repeat(n),
        (n, false, true) => "0".repeat(n) + &text,
        (n, false, false) => " ".repeat(n) + &text,
    }
}

/// Adds a sign and pads; zeros go between sign and digits.
fn number_text(text: String, spec: Spec) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(d) => ("-", d),
        None if spec.plus => ("+", text.strip_prefix('+').unwrap_or(&text)),
        None if spec.space => (" ", text.as_str()),
        None => ("", text.as_str()),
    };
    let width = spec.width.unwrap_or(0);
    if spec.zero && !spec.minus && width > sign.len() + digits.len() {
        return format!("{sign}{digits:0>fill$}", fill = width - sign.len());
    }
    pad(format!("{sign}{digits}"), spec, false)
}

fn integer(verb: char, spec: Spec, arg: &Value) -> String {
    let (negative, magnitude) = match arg {
        Value::Int(i) => (*i < 0, i.unsigned_abs()),
        Value::Uint(u) => (false, *u),
        _ => return String::new(),
    };
    let character = || u32::try_from(magnitude).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let mut digits = match verb {
        'c' => return pad(character().to_string(), spec, spec.zero),
        'q' => return pad(format!("'{}'", character()), spec, spec.zero),
        'U' => return pad(format!("U+{magnitude:04X}"), spec, false),
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    };
    let mut spec = spec;
    if let Some(p) = spec.precision {
        digits = format!("{digits:0>p$}");
        spec.zero = false;
    }
    let prefix = match (verb, spec.sharp) {
        ('O', _) => "0o",
        ('x', true) => "0x",
        ('X', true) => "0X",
        ('o', true) => "0",
        ('b', true) => "0b",
        _ => "",
    };
    number_text(format!("{}{prefix}{digits}", if negative { "-" } else { "" }), spec)
}
