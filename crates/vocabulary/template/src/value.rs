//! The values a template works on.

use std::fmt;
use std::sync::Arc;

/// The kinds of nothing that Go tells apart when it prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nil {
    /// An empty interface: prints as `<no value>`, JSON `null`.
    Interface,
    /// A pointer: prints as `<nil>`, JSON `null`.
    Pointer,
    /// A map: prints as `map[]`, JSON `null`.
    Map,
    /// A slice: prints as `[]`, JSON `null`.
    List,
}

/// A slice with the name of its element type.
#[derive(Clone, Debug)]
pub struct List {
    /// The elements.
    pub items: Vec<Value>,
    /// Go's name of the element type, such as `string` or `interface {}`.
    pub element: &'static str,
}

/// A map with string keys, sorted by key.
#[derive(Clone, Debug)]
pub struct Map {
    entries: Vec<(String, Value)>,
    /// Go's name of the element type.
    pub element: &'static str,
}

impl Map {
    /// Builds a map; of equal keys the last one counts.
    pub fn new(element: &'static str, mut entries: Vec<(String, Value)>) -> Self {
        entries.reverse();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|a, b| a.0 == b.0);
        Self { entries, element }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.binary_search_by(|e| e.0.as_str().cmp(key)).ok().map(|i| &self.entries[i].1)
    }

    /// Returns the entries in the order of their keys.
    pub fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }
}

/// What stands for a Go struct: named fields in order, and methods.
pub trait Record: fmt::Debug + Send + Sync {
    /// Returns Go's name of the type, for messages: `*formatter.ContainerContext`.
    fn type_name(&self) -> &str;

    /// Returns a field or the result of a method without arguments.
    fn field(&self, name: &str) -> Option<Value>;

    /// Calls a method that takes arguments; `None` where there is no such method.
    fn call(&self, _name: &str, _arguments: &[Value]) -> Option<Result<Value, String>> {
        None
    }

    /// Returns names and values in order, for printing and JSON.
    fn fields(&self) -> Vec<(String, Value)>;

    /// Returns what `%v` prints, where Go's type has a method for it.
    fn text(&self) -> Option<String> {
        None
    }

    /// Returns whether JSON of it writes `<`, `>` and `&` as escapes: Go does so where a type makes its JSON itself.
    fn escapes_html(&self) -> bool {
        false
    }
}

/// A [`Record`] made of a type's name and a list of fields.
#[derive(Clone, Debug)]
pub struct Row {
    /// Go's name of the type.
    pub type_name: &'static str,
    /// Fields in order.
    pub fields: Vec<(String, Value)>,
}

impl Record for Row {
    fn type_name(&self) -> &str {
        self.type_name
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.fields.iter().find(|f| f.0 == name).map(|f| f.1.clone())
    }

    fn fields(&self) -> Vec<(String, Value)> {
        self.fields.clone()
    }
}

/// One value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, of some kind.
    Nil(Nil),
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number beyond the signed range.
    Uint(u64),
    /// A floating point number.
    Float(f64),
    /// A string.
    Str(String),
    /// A slice.
    List(Arc<List>),
    /// A map.
    Map(Arc<Map>),
    /// A struct.
    Record(Arc<dyn Record>),
}

impl Value {
    /// Builds a slice of `interface {}`.
    pub fn list(items: Vec<Value>) -> Self {
        Value::List(Arc::new(List { items, element: ANY }))
    }

    /// Builds a `map[string]interface {}`.
    pub fn map(entries: Vec<(String, Value)>) -> Self {
        Value::Map(Arc::new(Map::new(ANY, entries)))
    }

    /// Builds a struct from fields in order.
    pub fn row(type_name: &'static str, fields: Vec<(String, Value)>) -> Self {
        Value::Record(Arc::new(Row { type_name, fields }))
    }

    /// Builds a value from JSON text: objects become maps, numbers are integers where they are written as such.
    ///
    /// # Errors
    /// Fails where the text is not one JSON value.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Returns whether `if` takes this value for true: not zero, not empty, not nil; a struct always.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil(_) => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Uint(u) => *u != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(l) => !l.items.is_empty(),
            Value::Map(m) => !m.entries.is_empty(),
            Value::Record(_) => true,
        }
    }

    /// Returns Go's name of the value's type.
    pub fn type_name(&self) -> String {
        match self {
            Value::Nil(Nil::Interface) => "<nil>".into(),
            Value::Nil(Nil::Pointer) => "*interface {}".into(),
            Value::Nil(Nil::Map) => "map[string]interface {}".into(),
            Value::Nil(Nil::List) => "[]interface {}".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Uint(_) => "uint64".into(),
            Value::Float(_) => "float64".into(),
            Value::Str(_) => "string".into(),
            Value::List(l) => format!("[]{}", l.element),
            Value::Map(m) => format!("map[string]{}", m.element),
            Value::Record(r) => r.type_name().to_owned(),
        }
    }
}

/// Go's name of the empty interface.
pub(crate) const ANY: &str = "interface {}";

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::Str(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Str(s)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Value::Int(i)
    }
}

impl From<serde_json::Value> for Value {
    fn from(v: serde_json::Value) -> Self {
        match v {
            serde_json::Value::Null => Value::Nil(Nil::Interface),
            serde_json::Value::Bool(b) => Value::Bool(b),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Value::Int(i),
                (None, Some(u)) => Value::Uint(u),
                (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => Value::Str(s),
            serde_json::Value::Array(a) => Value::list(a.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(o) => Value::map(o.into_iter().map(|(k, v)| (k, Value::from(v))).collect()),
        }
    }
}
