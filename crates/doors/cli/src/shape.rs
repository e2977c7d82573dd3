//! JSON answers as Go's structs would hold them, so that templates print and compare as they do with Docker.
//!
//! Docker's templates see typed structs: an object is a struct with its fields in order unless its type is a map, and
//! a field that JSON leaves out has its zero value. Which keys hold maps and which are left out is the small table here;
//! where a typed template fails, Docker tries again on plain maps, and so do the callers.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use wharf_template::{List, Map, Nil, Record, Value};

/// JSON with the order of keys kept.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// A value that is neither a list nor an object.
    Plain(Value),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Json, E> {
                Ok(Json::Plain(Value::Bool(v)))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
                Ok(Json::Plain(Value::Int(v)))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Json, E> {
                Ok(Json::Plain(i64::try_from(v).map_or(Value::Uint(v), Value::Int)))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Json, E> {
                Ok(Json::Plain(Value::Float(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Json, E> {
                Ok(Json::Plain(Value::Str(v.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(v) = seq.next_element()? {
                    items.push(v);
                }
                Ok(Json::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(e) = map.next_entry()? {
                    entries.push(e);
                }
                Ok(Json::Object(entries))
            }
        }
        d.deserialize_any(Any)
    }
}

/// Keys whose objects are maps in Go.
const MAPS: &[&str] = &[
    "Labels",
    "ExposedPorts",
    "Volumes",
    "Sysctls",
    "Ports",
    "PortBindings",
    "Networks",
    "Options",
    "DriverOpts",
    "Tmpfs",
    "StorageOpt",
    "Annotations",
    "Attributes",
    "Data",
    "Containers",
    "Runtimes",
    "Details",
    "Status",
    "annotations",
];

/// Keys whose `null` is a slice without elements.
const LISTS: &[&str] = &[
    "Args",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "Aliases",
    "Authorization",
    "GenericResources",
    "Mirrors",
    "RemoteManagers",
    "Warnings",
    "MaskedPaths",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
];

/// Fields that JSON leaves out when empty, by the key of their object; the empty key is the whole answer.
const OMITTED: &[(&str, &[(&str, Zero)])] = &[
    ("State", &[("Health", Zero::Pointer)]),
    (
        "Config",
        &[
            ("Healthcheck", Zero::Pointer),
            ("ArgsEscaped", Zero::Bool),
            ("NetworkDisabled", Zero::Bool),
            ("MacAddress", Zero::Text),
            ("StopSignal", Zero::Text),
            ("StopTimeout", Zero::Pointer),
            ("Shell", Zero::List),
            ("ExposedPorts", Zero::Map),
        ],
    ),
    (
        "HostConfig",
        &[
            ("Mounts", Zero::List),
            ("Tmpfs", Zero::Map),
            ("Sysctls", Zero::Map),
            ("StorageOpt", Zero::Map),
            ("Annotations", Zero::Map),
            ("Runtime", Zero::Text),
            ("Init", Zero::Pointer),
        ],
    ),
    ("", &[("SizeRw", Zero::Pointer), ("SizeRootFs", Zero::Pointer), ("ImageManifestDescriptor", Zero::Pointer)]),
];

/// Keys that are not the field's name in Go: typed templates do not find them, and Docker goes on with plain maps.
const RENAMED: &[&str] = &[
    "Id",
    "ApiVersion",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "HttpProxy",
    "HttpsProxy",
    "NanoCpus",
];

#[derive(Clone, Copy)]
enum Zero {
    Pointer,
    Bool,
    Text,
    List,
    Map,
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Zero::Pointer => Value::Nil(Nil::Pointer),
            Zero::Bool => Value::Bool(false),
            Zero::Text => Value::Str(String::new()),
            Zero::List => Value::Nil(Nil::List),
            Zero::Map => Value::Nil(Nil::Map),
        }
    }
}

/// An object that is a struct in Go.
#[derive(Clone, Debug)]
struct Struct {
    type_name: &'static str,
    key: String,
    fields: Vec<(String, Value)>,
}

impl Record for Struct {
    fn type_name(&self) -> &str {
        self.type_name
    }

    fn field(&self, name: &str) -> Option<Value> {
        if RENAMED.contains(&name) {
            return None;
        }
        if let Some((_, v)) = self.fields.iter().find(|f| f.0 == name) {
            return Some(v.clone());
        }
        // Go's name of a field may be written otherwise than its key.
        if let Some((_, v)) = self.fields.iter().find(|f| f.0.eq_ignore_ascii_case(name) && is_exported(name)) {
            return Some(v.clone());
        }
        let omitted = OMITTED.iter().find(|o| o.0 == self.key)?;
        omitted.1.iter().find(|o| o.0 == name).map(|o| o.1.value())
    }

    fn fields(&self) -> Vec<(String, Value)> {
        self.fields.clone()
    }
}

fn is_exported(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

impl Json {
    /// Converts to what Go's structs would hold. `type_name` is the whole answer's type, which messages quote.
    pub fn typed(&self, type_name: &'static str) -> Value {
        typed(self, "", "", type_name)
    }

    /// Converts to plain maps and lists.
    pub fn plain(&self) -> Value {
        match self {
            Json::Null => Value::Nil(Nil::Interface),
            Json::Plain(v) => v.clone(),
            Json::List(items) => Value::list(items.iter().map(Json::plain).collect()),
            Json::Object(fields) => Value::map(fields.iter().map(|(k, v)| (k.clone(), v.plain())).collect()),
        }
    }
}

fn is_map(key: &str, parent: &str) -> bool {
    (MAPS.contains(&key) && !(key == "Containers" && parent.is_empty())) || (key == "Config" && parent == "LogConfig")
}

fn typed(json: &Json, key: &str, parent: &str, type_name: &'static str) -> Value {
    match json {
        Json::Null if is_map(key, parent) => Value::Nil(Nil::Map),
        Json::Null if LISTS.contains(&key) => Value::Nil(Nil::List),
        Json::Null => Value::Nil(Nil::Pointer),
        Json::Plain(v) => v.clone(),
        Json::List(items) => {
            let items: Vec<Value> = items.iter().map(|i| typed(i, "", key, "struct")).collect();
            let element = if items.iter().all(|v| matches!(v, Value::Str(_))) { "string" } else { "interface {}" };
            Value::List(Arc::new(List { items, element }))
        }
        Json::Object(fields) if is_map(key, parent) => {
            let entries: Vec<_> = fields
                .iter()
                .map(|(k, v)| {
                    // A port without a binding has a slice without elements.
                    let v = match v {
                        Json::Null if matches!(key, "Ports" | "PortBindings") => Value::Nil(Nil::List),
                        v => typed(v, "", key, "struct"),
                    };
                    (k.clone(), v)
                })
                .collect();
            let text = entries.iter().all(|(_, v)| matches!(v, Value::Str(_)));
            Value::Map(Arc::new(Map::new(if text { "string" } else { "interface {}" }, entries)))
        }
        Json::Object(fields) => Value::Record(Arc::new(Struct {
            type_name,
            key: key.to_owned(),
            fields: fields.iter().map(|(k, v)| (k.clone(), typed(v, k, key, "struct"))).collect(),
        })),
    }
}
