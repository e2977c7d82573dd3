//! Answers of all GET endpoints against the specification of the API, v1.44 and v1.51: every key is known, has its type,
//! and what must be there is there. The shapes are data (`data/answers-*.txt`): one line a key, `!` must be there, `?` may be
//! null, `*` any keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use testkit::Daemon;

/// Paths and types of one endpoint.
type Shape = BTreeMap<String, String>;

/// Where dockerd 28.5 itself differs from its specification, and we with it; and what we add.
const AS_DOCKER: [&str; 6] = [
    // Ours, of a network.
    ".FirewallBackend: unknown",
    // Two keys without a version: 1.48 brought them, and older clients get them, too.
    ".GwPriority: unknown",
    ".EnableIPv4: unknown",
    // Not set, and not run: null.
    ".HostConfig.MemorySwappiness: null for integer",
    ".ExitCode: null for integer",
    // An enumeration of strings, which the specification writes as an extension of nothing.
    ".Mounts[].Type: string for object",
];

fn shapes(text: &str) -> BTreeMap<String, Shape> {
    let mut all: BTreeMap<String, Shape> = BTreeMap::new();
    let mut endpoint = String::new();
    for line in text.lines() {
        match line.strip_prefix(' ').and_then(|l| l.rsplit_once(' ')) {
            Some((path, kind)) => {
                let path = if path == "." { "" } else { path };
                all.entry(endpoint.clone()).or_default().insert(path.to_owned(), kind.to_owned());
            }
            None => endpoint = line.to_owned(),
        }
    }
    all
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(shape: &Shape, path: &str, value: &Value, wrong: &mut BTreeSet<String>) {
    let Some(kind) = shape.get(path) else {
        wrong.insert(format!("{path}: unknown"));
        return;
    };
    let kind = kind.trim_end_matches('!');
    let (kind, nullable) = kind.strip_suffix('?').map_or((kind, false), |k| (k, true));
    let (kind, any_keys) = kind.strip_suffix('*').map_or((kind, false), |k| (k, true));
    match (kind, value) {
        ("any", _) => {}
        // Go's empty lists and maps.
        ("array" | "object", Value::Null) => {}
        (_, Value::Null) if nullable => {}
        ("number", Value::Number(_)) => {}
        ("array", Value::Array(items)) => items.iter().for_each(|v| check(shape, &format!("{path}[]"), v, wrong)),
        ("object", Value::Object(_)) if any_keys => {}
        ("object", Value::Object(map)) => {
            for (key, value) in map {
                let (own, any) = (format!("{path}.{key}"), format!("{path}.{{}}"));
                let known = if shape.contains_key(&own) || !shape.contains_key(&any) { own } else { any };
                check(shape, &known, value, wrong);
            }
            let below = format!("{path}.");
            let needed =
                shape.iter().filter(|(_, kind)| kind.ends_with('!')).filter_map(|(p, _)| p.strip_prefix(&below));
            for key in needed.filter(|k| !k.is_empty() && !k.contains(['.', '[']) && !map.contains_key(*k)) {
                wrong.insert(format!("{below}{key}: missing"));
            }
        }
        (wanted, value) if wanted == kind_of(value) => {}
        (wanted, value) => drop(wrong.insert(format!("{path}: {} for {wanted}", kind_of(value)))),
    }
}

fn is_as_docker(endpoint: &str, text: &str) -> bool {
    // What events had before API 1.22.
    let event = endpoint == "/events" && [".from: unknown", ".id: unknown", ".status: unknown"].contains(&text);
    event || AS_DOCKER.iter().any(|known| text.ends_with(known))
}

#[test]
fn the_answers_of_all_get_endpoints_are_what_the_specification_says() {
    let daemon = Daemon::with_image();
    daemon.docker(&["network", "create", "sh-net"]).ok();
    daemon.docker(&["volume", "create", "sh-vol"]).ok();
    let full = [
        "run",
        "-d",
        "--name",
        "sh-full",
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "-p",
        "127.0.0.1::80",
        "-v",
        "sh-vol:/v",
        "-v",
        "/tmp:/t:ro",
        "--tmpfs",
        "/x",
        "--network",
        "sh-net",
        "--label",
        "a=b",
        "--ulimit",
        "nofile=100",
        "--device",
        "/dev/null",
        "--log-opt",
        "max-size=1m",
        "--restart",
        "on-failure:2",
        "--cap-add",
        "NET_ADMIN",
        "--dns",
        "192.0.2.1",
        "--add-host",
        "a:192.0.2.2",
        "--sysctl",
        "net.ipv4.ip_forward=0",
        "busybox",
        "sleep",
        "1000",
    ];
    daemon.docker(&full).ok();
    daemon.docker(&["create", "--name", "sh-made", "busybox", "true"]).ok();
    let body = serde_json::json!({"Cmd": ["sleep", "100"]});
    let exec = daemon.rest().post("/containers/sh-full/exec", &body).json()["Id"].as_str().expect("an id").to_owned();
    testkit::eventually("it was found healthy", || {
        let state = daemon.docker(&["inspect", "-f", "{{.State.Health.Status}}", "sh-full"]).ok();
        (state == "healthy").then_some(())
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 1;
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (version, text) in
        [("v1.44", include_str!("data/answers-1.44.txt")), ("v1.51", include_str!("data/answers-1.51.txt"))]
    {
        for (endpoint, shape) in shapes(text) {
            let mut targets = vec![endpoint.clone()];
            if endpoint.starts_with("/containers/{id}") {
                targets = vec![endpoint.replace("{id}", "sh-full")];
                if endpoint == "/containers/{id}/json" {
                    targets.push("/containers/sh-made/json?size=1".to_owned());
                }
            }
            for target in targets {
                let path = match target.as_str() {
                    "/containers/json" => "/containers/json?all=1&size=1".to_owned(),
                    "/containers/sh-full/stats" => "/containers/sh-full/stats?stream=false".to_owned(),
                    "/events" => format!("/events?since=1&until={now}"),
                    other => other
                        .replace("/exec/{id}", &format!("/exec/{exec}"))
                        .replace("/networks/{id}", "/networks/sh-net")
                        .replace("/images/{name}", "/images/busybox:latest")
                        .replace("/volumes/{name}", "/volumes/sh-vol"),
                };
                let answer = daemon.rest().get(&format!("/{version}{path}"));
                assert_eq!(answer.status, 200, "{version}{path}: {}", String::from_utf8_lossy(&answer.body));
                let values = serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>();
                let mut found = BTreeSet::new();
                for value in values {
                    check(&shape, "", &value.expect("JSON"), &mut found);
                    asked += 1;
                }
                let ours = found.into_iter().filter(|w| !is_as_docker(&endpoint, w));
                wrong.extend(ours.map(|w| format!("{version}{path} {w}")));
            }
        }
    }
    assert!(asked > 40, "{asked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    daemon.docker(&["rm", "-f", "sh-full", "sh-made"]).ok();
    daemon.docker(&["network", "rm", "sh-net"]).ok();
    daemon.docker(&["volume", "rm", "sh-vol"]).ok();
}

#[test]
fn a_wrong_answer_is_found() {
    let all = shapes("/x\n . object!\n .a string!\n .b array\n .b[] integer\n .c object\n .c.{} boolean\n");
    let found = |text: &str| {
        let mut wrong = BTreeSet::new();
        check(&all["/x"], "", &serde_json::from_str(text).expect("JSON"), &mut wrong);
        wrong.into_iter().collect::<Vec<_>>().join("; ")
    };
    assert_eq!(found(r#"{"a":"x","b":[1],"c":{"y":true}}"#), "");
    assert_eq!(
        found(r#"{"b":["1"],"c":{"y":0},"d":1}"#),
        ".a: missing; .b[]: string for integer; .c.{}: integer for boolean; .d: unknown"
    );
    assert_eq!(found(r#"{"a":null}"#), ".a: null for string");
}
