//! The functions a template may call: Go's own, and those that Docker adds.
//!
//! Source: text/template's documentation; docker/cli `templates` (json, split, join, title, lower, upper, pad,
//! truncate) and its header functions, which leave a column's title as it is.

use crate::json::to_json;
use crate::node::{Number, Operand};
use crate::print::{format_value, sprint, sprintf, sprintln};
use crate::value::{Map, Nil, Value};

/// Which functions are bound to the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSet {
    /// Go's and Docker's.
    Docker,
    /// Docker's functions return their first argument, so that a table's header keeps its titles.
    Header,
}

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "call", "eq",
    "ne", "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Returns whether a function of this name exists; `and` and `or` are evaluated by the caller, without their effects.
pub(crate) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Returns the accepted number of arguments and whether more may follow.
pub(crate) fn arity(name: &str) -> (usize, bool) {
    match name {
        "not" | "len" | "json" | "title" | "lower" | "upper" => (1, false),
        "split" | "join" | "truncate" | "ne" | "lt" | "le" | "gt" | "ge" => (2, false),
        "pad" => (3, false),
        "print" | "println" | "html" | "js" | "urlquery" => (0, true),
        _ => (1, true),
    }
}

/// Why a call failed.
pub(crate) enum CallError {
    /// The function itself failed: printed as `error calling NAME: …`.
    Failed(String),
    /// An argument had the wrong type: printed as it is.
    Type(String),
}

fn failed<T>(text: impl Into<String>) -> Result<T, CallError> {
    Err(CallError::Failed(text.into()))
}

fn wrong_type<T>(expected: &str, got: &Value) -> Result<T, CallError> {
    Err(CallError::Type(match got {
        Value::Nil(Nil::Interface) => format!("invalid value; expected {expected}"),
        _ => format!("wrong type for value; expected {expected}; got {}", got.type_name()),
    }))
}

fn string_of(v: &Value) -> Result<&str, CallError> {
    match v {
        Value::Str(s) => Ok(s),
        _ => wrong_type("string", v),
    }
}

fn int_of(v: &Value) -> Result<i64, CallError> {
    match v {
        Value::Int(i) => Ok(*i),
        _ => wrong_type("int", v),
    }
}

/// Calls `name`; the number of arguments has been checked.
pub(crate) fn call(set: FunctionSet, name: &str, args: &[Value]) -> Result<Value, CallError> {
    match name {
        "not" => Ok(Value::Bool(!args[0].is_true())),
        "len" => length(&args[0]),
        "index" => index(args),
        "slice" => slice(args),
        "print" => Ok(sprint(args).into()),
        "printf" => Ok(sprintf(string_of(&args[0])?, &args[1..]).into()),
        "println" => Ok(sprintln(args).into()),
        "html" => Ok(escape_html(&text_of(args)).into()),
        "js" => Ok(escape_js(&text_of(args)).into()),
        "urlquery" => Ok(escape_query(&text_of(args)).into()),
        "call" => failed(args[0].type_name()),
        "eq" => equal(args),
        "ne" => Ok(Value::Bool(!same(&args[0], &args[1])?)),
        "lt" | "le" | "gt" | "ge" => compare(name, &args[0], &args[1]),
        _ if set == FunctionSet::Header => Ok(string_of(&args[0])?.into()),
        _ => docker(name, args),
    }
}

fn docker(name: &str, args: &[Value]) -> Result<Value, CallError> {
    match name {
        "json" => Ok(to_json(&args[0]).into()),
        "split" => Ok(strings(split(string_of(&args[0])?, string_of(&args[1])?))),
        "join" => {
            let separator = string_of(&args[1])?;
            match &args[0] {
                Value::List(l) if l.items.iter().all(|v| matches!(v, Value::Str(_))) => {
                    Ok(l.items.iter().map(format_value).collect::<Vec<_>>().join(separator).into())
                }
                Value::Nil(Nil::List) => Ok("".into()),
                v => wrong_type("[]string", v),
            }
        }
        "title" => Ok(title(string_of(&args[0])?).into()),
        "lower" => Ok(string_of(&args[0])?.to_lowercase().into()),
        "upper" => Ok(string_of(&args[0])?.to_uppercase().into()),
        "pad" => {
            let source = string_of(&args[0])?;
            let (before, after) = (int_of(&args[1])?, int_of(&args[2])?);
            if source.is_empty() {
                return Ok(source.into());
            }
            let spaces = |n: i64| " ".repeat(usize::try_from(n).unwrap_or(0).min(1_000_000));
            Ok(format!("{}{source}{}", spaces(before), spaces(after)).into())
        }
        // exists() admits no other name: this is truncate.
        _ => {
            let source = string_of(&args[0])?;
            let n = int_of(&args[1])?;
            match usize::try_from(n) {
                Ok(n) if source.chars().count() <= n => Ok(source.into()),
                Ok(n) => Ok(source.chars().take(n).collect::<String>().into()),
                Err(_) => failed("slice bounds out of range"),
            }
        }
    }
}

fn strings(items: Vec<String>) -> Value {
    Value::List(std::sync::Arc::new(crate::value::List {
        items: items.into_iter().map(Value::Str).collect(),
        element: "string",
    }))
}

fn split(text: &str, separator: &str) -> Vec<String> {
    if separator.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(separator).map(str::to_owned).collect()
}

/// Go's deprecated strings.Title: a capital after everything that is no letter, digit or underscore.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut previous = ' ';
    for c in text.chars() {
        let starts = !(previous.is_alphanumeric() || previous == '_');
        if starts {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        previous = c;
    }
    out
}

fn length(v: &Value) -> Result<Value, CallError> {
    let n = match v {
        Value::Str(s) => s.len(),
        Value::List(l) => l.items.len(),
        Value::Map(m) => m.entries().len(),
        Value::Nil(Nil::Map | Nil::List) => 0,
        Value::Nil(_) => return failed("len of nil pointer"),
        v => return failed(format!("len of type {}", v.type_name())),
    };
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

fn position(v: &Value, length: usize) -> Result<usize, CallError> {
    let n = match v {
        Value::Int(i) => *i,
        Value::Uint(_) => i64::MAX,
        Value::Nil(_) => return failed("cannot index slice/array with nil"),
        v => return failed(format!("cannot index slice/array with type {}", v.type_name())),
    };
    match usize::try_from(n) {
        Ok(at) if at <= length => Ok(at),
        _ => failed(format!("index out of range: {n}")),
    }
}

fn index(args: &[Value]) -> Result<Value, CallError> {
    let mut item = args[0].clone();
    for key in &args[1..] {
        item = match &item {
            Value::Nil(Nil::Interface) => return failed("index of untyped nil"),
            Value::Nil(Nil::Pointer) => return failed("index of nil pointer"),
            Value::List(l) => {
                let at = position(key, l.items.len())?;
                match l.items.get(at) {
                    Some(v) => v.clone(),
                    None => return failed(format!("index out of range: {at}")),
                }
            }
            Value::Nil(Nil::List) => {
                let at = position(key, 0)?;
                return failed(format!("index out of range: {at}"));
            }
            Value::Str(s) => {
                let at = position(key, s.len())?;
                match s.as_bytes().get(at) {
                    Some(b) => Value::Int(i64::from(*b)),
                    None => return failed(format!("index out of range: {at}")),
                }
            }
            Value::Map(m) => match key {
                Value::Str(k) => m.get(k).cloned().unwrap_or_else(|| zero_of(m)),
                Value::Nil(_) => return failed("value is nil; should be of type string"),
                v => return failed(format!("value has type {}; should be string", v.type_name())),
            },
            Value::Nil(Nil::Map) => Value::Nil(Nil::Interface),
            v => return failed(format!("can't index item of type {}", v.type_name())),
        };
    }
    Ok(item)
}

/// The zero value of a map's element type, which `index` returns for a missing key.
fn zero_of(m: &Map) -> Value {
    match m.element {
        "string" => "".into(),
        "bool" => false.into(),
        e if e.starts_with("[]") => Value::Nil(Nil::List),
        e if e.starts_with("map[") => Value::Nil(Nil::Map),
        e if e.starts_with('*') => Value::Nil(Nil::Pointer),
        _ => Value::Nil(Nil::Interface),
    }
}

fn slice(args: &[Value]) -> Result<Value, CallError> {
    if args.len() > 4 {
        return failed(format!("too many slice indexes: {}", args.len() - 1));
    }
    let length = match &args[0] {
        Value::Str(_) if args.len() == 4 => return failed("cannot 3-index slice a string"),
        Value::Str(s) => s.len(),
        Value::List(l) => l.items.len(),
        Value::Nil(Nil::List) => 0,
        Value::Nil(Nil::Interface) => return failed("slice of untyped nil"),
        v => return failed(format!("can't slice item of type {}", v.type_name())),
    };
    let mut bounds = [0, length, length];
    for (i, v) in args[1..].iter().enumerate() {
        bounds[i] = position(v, length)?;
    }
    if bounds[0] > bounds[1] {
        return failed(format!("invalid slice index: {} > {}", bounds[0], bounds[1]));
    }
    if args.len() == 4 && bounds[1] > bounds[2] {
        return failed(format!("invalid slice index: {} > {}", bounds[1], bounds[2]));
    }
    Ok(match &args[0] {
        Value::Str(s) => String::from_utf8_lossy(&s.as_bytes()[bounds[0]..bounds[1]]).into_owned().into(),
        Value::List(l) => Value::List(std::sync::Arc::new(crate::value::List {
            items: l.items[bounds[0]..bounds[1]].to_vec(),
            element: l.element,
        })),
        v => v.clone(),
    })
}

fn basic(v: &Value) -> Option<&'static str> {
    match v {
        Value::Bool(_) => Some("bool"),
        Value::Int(_) | Value::Uint(_) => Some("integer"),
        Value::Float(_) => Some("float"),
        Value::Str(_) => Some("string"),
        _ => None,
    }
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn wide(v: &Value) -> Option<i128> {
    match v {
        Value::Int(i) => Some(i128::from(*i)),
        Value::Uint(u) => Some(i128::from(*u)),
        _ => None,
    }
}

fn same(a: &Value, b: &Value) -> Result<bool, CallError> {
    if let (Some(x), Some(y)) = (wide(a), wide(b)) {
        return Ok(x == y);
    }
    match (a, b) {
        (Value::Bool(x), Value::Bool(y)) => Ok(x == y),
        (Value::Float(x), Value::Float(y)) => Ok(x == y),
        (Value::Str(x), Value::Str(y)) => Ok(x == y),
        (Value::Nil(x), Value::Nil(y)) => Ok(x == y),
        (Value::List(_) | Value::Map(_), v) | (v, Value::List(_) | Value::Map(_)) if !matches!(v, Value::Nil(_)) => {
            let odd = if matches!(a, Value::List(_) | Value::Map(_)) { a } else { b };
            failed(format!("non-comparable type {}: {}", format_value(odd), odd.type_name()))
        }
        (Value::Nil(_), _) | (_, Value::Nil(_)) => Ok(false),
        _ if basic(a) != basic(b) => failed(INCOMPATIBLE),
        _ => Ok(false),
    }
}

fn equal(args: &[Value]) -> Result<Value, CallError> {
    if args.len() == 1 {
        return failed("missing argument for comparison");
    }
    for other in &args[1..] {
        if same(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn compare(name: &str, a: &Value, b: &Value) -> Result<Value, CallError> {
    use std::cmp::Ordering;
    let order = match (a, b) {
        _ if wide(a).is_some() && wide(b).is_some() => wide(a).cmp(&wide(b)),
        (Value::Float(x), Value::Float(y)) => match x.partial_cmp(y) {
            Some(o) => o,
            None => return Ok(Value::Bool(false)),
        },
        (Value::Str(x), Value::Str(y)) => x.cmp(y),
        _ => match (basic(a), basic(b)) {
            (None, _) | (_, None) | (Some("bool"), Some("bool")) => return failed("invalid type for comparison"),
            _ => return failed(INCOMPATIBLE),
        },
    };
    Ok(Value::Bool(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn text_of(args: &[Value]) -> String {
    match args {
        [Value::Str(s)] => s.clone(),
        [Value::Nil(Nil::Interface)] => "<no value>".into(),
        args => sprint(args),
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b' ' => out.push('+'),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Returns Go's message for a wrong number of arguments, if it is wrong.
pub(crate) fn check_count(name: &str, count: usize) -> Option<String> {
    let (want, variadic) = arity(name);
    if variadic && count < want {
        return Some(format!("wrong number of args for {name}: want at least {want} got {count}"));
    }
    if !variadic && count != want {
        return Some(format!("wrong number of args for {name}: want {want} got {count}"));
    }
    None
}

/// Returns Go's message for a constant that cannot be the argument at `position`.
pub(crate) fn check_literal(name: &str, position: usize, node: &Operand) -> Option<String> {
    let want = match (name, position) {
        ("printf" | "title" | "lower" | "upper", 0) | ("split", _) | ("join", 1) | ("truncate" | "pad", 0) => "string",
        ("truncate" | "pad", _) => "integer",
        ("join", 0) => "[]string",
        _ => return None,
    };
    let fits = match node {
        Operand::Str { .. } => want == "string",
        Operand::Number { value, .. } => want == "integer" && !matches!(value, Number::Float(_)),
        Operand::Bool { .. } => false,
        _ => true,
    };
    match want {
        _ if fits => None,
        "[]string" => Some(format!("can't handle {node} for arg of type {want}")),
        _ => Some(format!("expected {want}; found {node}")),
    }
}
