//! How Go names the types of request fields, for the messages of type mismatches.
//!
//! Clients show these messages, and tests of tools compare them; the names are moby's.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// How messages name a body: as a whole value, and in front of a field.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// `container.CreateRequest`.
    pub value: &'static str,
    /// `ExecStartOptions`; empty for bodies that embed another type.
    pub prefix: &'static str,
}

/// `POST /containers/create`.
pub const CREATE: Root = Root { value: "container.CreateRequest", prefix: "" };

/// Go types of fields whose type does not follow from our own, by field name or by parent and field name.
const NAMED: &[(&str, &str)] = &[
    ("NetworkMode", "container.NetworkMode"),
    ("IpcMode", "container.IpcMode"),
    ("PidMode", "container.PidMode"),
    ("UTSMode", "container.UTSMode"),
    ("UsernsMode", "container.UsernsMode"),
    ("CgroupnsMode", "container.CgroupnsMode"),
    ("Cgroup", "container.CgroupSpec"),
    ("Isolation", "container.Isolation"),
    ("HostConfig", "container.HostConfig"),
    ("NetworkingConfig", "network.NetworkingConfig"),
    ("EndpointsConfig", "map[string]*network.EndpointSettings"),
    ("EndpointsConfig.*", "network.EndpointSettings"),
    ("EndpointConfig", "network.EndpointSettings"),
    ("IPAMConfig", "network.EndpointIPAMConfig"),
    ("IPAM", "network.IPAM"),
    ("ConfigFrom", "network.ConfigReference"),
    ("RestartPolicy", "container.RestartPolicy"),
    ("RestartPolicy.Name", "container.RestartPolicyMode"),
    ("LogConfig", "container.LogConfig"),
    ("Healthcheck", "container.HealthConfig"),
    ("PortBindings", "nat.PortMap"),
    ("PortBindings.*", "[]nat.PortBinding"),
    ("ExposedPorts", "nat.PortSet"),
    ("ExposedPorts.*", "struct {}"),
    ("Volumes", "map[string]struct {}"),
    ("Volumes.*", "struct {}"),
    ("Devices", "[]container.DeviceMapping"),
    ("Devices.*", "container.DeviceMapping"),
    ("DeviceRequests", "[]container.DeviceRequest"),
    ("DeviceRequests.*", "container.DeviceRequest"),
    ("Capabilities", "[][]string"),
    ("Capabilities.*", "[]string"),
    ("Ulimits", "[]*container.Ulimit"),
    ("Ulimits.*", "container.Ulimit"),
    ("Mounts", "[]mount.Mount"),
    ("Mounts.*", "mount.Mount"),
    ("Mounts.*.Type", "mount.Type"),
    ("Consistency", "mount.Consistency"),
    ("Propagation", "mount.Propagation"),
    ("BindOptions", "mount.BindOptions"),
    ("VolumeOptions", "mount.VolumeOptions"),
    ("ImageOptions", "mount.ImageOptions"),
    ("TmpfsOptions", "mount.TmpfsOptions"),
    ("TmpfsOptions.Mode", "fs.FileMode"),
    ("DriverConfig", "mount.Driver"),
    ("BlkioWeightDevice", "[]*blkiodev.WeightDevice"),
    ("BlkioDeviceReadBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteBps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceReadIOps", "[]*blkiodev.ThrottleDevice"),
    ("BlkioDeviceWriteIOps", "[]*blkiodev.ThrottleDevice"),
    ("ConsoleSize", "[2]uint"),
    ("ConsoleSize.*", "uint"),
    ("Interval", "time.Duration"),
    ("Timeout", "time.Duration"),
    ("StartPeriod", "time.Duration"),
    ("StartInterval", "time.Duration"),
    ("Retries", "int"),
    ("StopTimeout", "int"),
    ("OomScoreAdj", "int"),
    ("MaximumRetryCount", "int"),
    ("IPPrefixLen", "int"),
    ("GlobalIPv6PrefixLen", "int"),
    ("GwPriority", "int"),
    ("Count", "int"),
];

/// Commands, which Go decodes by a function of their own that loses the field's name.
const WORDS: &[&str] = &["Cmd", "Entrypoint", "Shell", "CapAdd", "CapDrop"];

/// The message for a value of the wrong type, found at a path of the decoded body.
pub fn mismatch(whole: &Value, path: &Path, serde: &str, root: Root) -> String {
    let mut value = Some(whole);
    let mut names: Vec<String> = Vec::new();
    let mut at_index = false;
    for segment in path {
        (value, at_index) = match segment {
            Segment::Map { key } => {
                names.push(key.clone());
                (value.and_then(|v| v.get(key)), false)
            }
            Segment::Seq { index } => {
                names.push(index.to_string());
                (value.and_then(|v| v.get(index)), true)
            }
            Segment::Enum { .. } | Segment::Unknown => (value, at_index),
        };
    }
    let kind = kind_of(value.unwrap_or(&Value::Null));
    let words = root.prefix.is_empty() && names.len() <= 3 && names.iter().any(|n| WORDS.contains(&n.as_str()));
    if words {
        // Go tries a list, then a string, and reports the second failure about the value as a whole.
        let kind = if at_index { "array" } else { kind.split(' ').next().unwrap_or(kind.as_str()) };
        return format!("json: cannot unmarshal {kind} into Go value of type string");
    }
    if names.is_empty() {
        let kind = kind.split(' ').next().unwrap_or_default();
        return format!("json: cannot unmarshal {kind} into Go value of type {}", root.value);
    }
    let go = go_type(&names, serde, value);
    let number = matches!(value, Some(Value::Number(_)));
    let kind = if number && !is_numeric(&go) { "number".to_owned() } else { kind };
    let pointer: String = names.iter().map(|n| format!(".{}", n.replace('~', "~0").replace('/', "~1"))).collect();
    let place = if at_index { "into " } else { "into Go struct field " };
    format!("json: cannot unmarshal {kind} {place}{}{pointer} of type {go}", root.prefix)
}

fn is_numeric(go: &str) -> bool {
    matches!(go, "int" | "int64" | "uint" | "uint16" | "uint32" | "uint64" | "time.Duration" | "fs.FileMode")
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(names: &[String], serde: &str, value: Option<&Value>) -> String {
    let last = names.last().map_or("", String::as_str);
    let parent = names.len().checked_sub(2).map_or("", |i| names[i].as_str());
    let above = names.len().checked_sub(3).map_or("", |i| names[i].as_str());
    let named = |wanted: &str| NAMED.iter().find(|(name, _)| *name == wanted).map(|(_, go)| (*go).to_owned());
    if let Some(go) = named(&format!("{above}.*.{last}"))
        .or_else(|| named(&format!("{parent}.{last}")))
        .or_else(|| named(&format!("{parent}.*")))
        .or_else(|| named(last))
    {
        return go;
    }
    let expected = serde.split("expected ").nth(1).unwrap_or_default();
    let expected = expected.split(" at line").next().unwrap_or_default();
    let go = match expected {
        "a string" => "string",
        "a boolean" => "bool",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        "i64" => "int64",
        "u64" => "uint64",
        "u32" => "uint32",
        "u16" => "uint16",
        // Numbers out of range name no type beyond the integer's own, and large ones come as floating point.
        _ if matches!(value, Some(Value::Number(_))) => "int64",
        other => other,
    };
    go.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::decode;
    use wharf_api_types as api;

    fn error(body: &str) -> String {
        crate::create::decode(body.as_bytes()).expect_err(body).message
    }

    #[test]
    fn type_mismatches_read_as_those_of_dockerd_28_5() {
        for (body, rest) in [
            ("[]", "array into Go value of type container.CreateRequest"),
            ("3", "number into Go value of type container.CreateRequest"),
            (r#"{"Image":3}"#, "number into Go struct field .Image of type string"),
            (r#"{"Cmd":3}"#, "number into Go value of type string"),
            (r#"{"Cmd":[3]}"#, "array into Go value of type string"),
            (r#"{"Env":"x"}"#, "string into Go struct field .Env of type []string"),
            (r#"{"Env":[3]}"#, "number into .Env.0 of type string"),
            (r#"{"Tty":"x"}"#, "string into Go struct field .Tty of type bool"),
            (r#"{"Labels":["x"]}"#, "array into Go struct field .Labels of type map[string]string"),
            (r#"{"Labels":{"a":1}}"#, "number into Go struct field .Labels.a of type string"),
            (r#"{"HostConfig":{"Memory":"x"}}"#, "string into Go struct field .HostConfig.Memory of type int64"),
            (r#"{"HostConfig":{"Memory":1.5}}"#, "number 1.5 into Go struct field .HostConfig.Memory of type int64"),
            (
                r#"{"HostConfig":{"BlkioWeight":-1}}"#,
                "number -1 into Go struct field .HostConfig.BlkioWeight of type uint16",
            ),
            (
                r#"{"HostConfig":{"NetworkMode":3}}"#,
                "number into Go struct field .HostConfig.NetworkMode of type container.NetworkMode",
            ),
            (
                r#"{"HostConfig":{"RestartPolicy":"always"}}"#,
                "string into Go struct field .HostConfig.RestartPolicy of type container.RestartPolicy",
            ),
            (
                r#"{"HostConfig":{"RestartPolicy":{"Name":3}}}"#,
                "number into Go struct field .HostConfig.RestartPolicy.Name of type container.RestartPolicyMode",
            ),
            (
                r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":8080}]}}}"#,
                "number into Go struct field .HostConfig.PortBindings.80~1tcp.0.HostPort of type string",
            ),
            (
                r#"{"HostConfig":{"PortBindings":{"80/tcp":"x"}}}"#,
                "string into Go struct field .HostConfig.PortBindings.80~1tcp of type []nat.PortBinding",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":3}]}}"#,
                "number into Go struct field .HostConfig.Mounts.0.Type of type mount.Type",
            ),
            (
                r#"{"HostConfig":{"Ulimits":[{"Soft":"a"}]}}"#,
                "string into Go struct field .HostConfig.Ulimits.0.Soft of type int64",
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Config":{"a":1}}}}"#,
                "number into Go struct field .HostConfig.LogConfig.Config.a of type string",
            ),
            (
                r#"{"HostConfig":{"Devices":"a"}}"#,
                "string into Go struct field .HostConfig.Devices of type []container.DeviceMapping",
            ),
            (r#"{"HostConfig":{"Init":"a"}}"#, "string into Go struct field .HostConfig.Init of type bool"),
            (r#"{"HostConfig":{"ConsoleSize":[-1,2]}}"#, "number -1 into .HostConfig.ConsoleSize.0 of type uint"),
            (r#"{"HostConfig":"a"}"#, "string into Go struct field .HostConfig of type container.HostConfig"),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAddress":3}}}}"#,
                "number into Go struct field .NetworkingConfig.EndpointsConfig.a.IPAddress of type string",
            ),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"a":3}}}"#,
                "number into Go struct field .NetworkingConfig.EndpointsConfig.a of type network.EndpointSettings",
            ),
            (
                r#"{"Healthcheck":{"Interval":"3s"}}"#,
                "string into Go struct field .Healthcheck.Interval of type time.Duration",
            ),
            (r#"{"ExposedPorts":{"80/tcp":3}}"#, "number into Go struct field .ExposedPorts.80~1tcp of type struct {}"),
            (r#"{"StopTimeout":"3"}"#, "string into Go struct field .StopTimeout of type int"),
        ] {
            assert_eq!(error(body), format!("invalid JSON: json: cannot unmarshal {rest}"), "{body}");
        }
    }

    #[test]
    fn fields_of_other_bodies_carry_their_type_s_name() {
        let root = Root { value: "container.ExecStartOptions", prefix: "ExecStartOptions" };
        let e = decode::<api::ExecStartRequest>(br#"{"Detach":3}"#, root).expect_err("number");
        let text =
            "invalid JSON: json: cannot unmarshal number into Go struct field ExecStartOptions.Detach of type bool";
        assert_eq!(e.message, text);
    }
}
