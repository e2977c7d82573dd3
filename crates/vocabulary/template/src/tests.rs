use super::*;
use proptest::prelude::*;
use std::sync::Arc;

#[path = "cases.rs"]
mod cases;

/// The container of [`cases::CASES`] as the maps that its JSON is.
fn data() -> Value {
    Value::from_json(
        format!(
            r#"{{"Id":"{}","Name":"/cli-tpl","Args":["b","c"],
            "State":{{"Status":"created","Running":false}},
            "HostConfig":{{"Memory":67108864,"NanoCpus":1500000000,"Binds":null,"PortBindings":{{}},"Devices":[],
                "RestartPolicy":{{"Name":"no","MaximumRetryCount":0}},"LogConfig":{{"Type":"json-file","Config":{{}}}}}},
            "Mounts":[],"NetworkSettings":{{"Ports":{{}}}},
            "Config":{{"Labels":{{"z":"26","a":"1"}},"Tty":false,"OpenStdin":false,"User":"",
                "Hostname":"0123456789ab","Env":[],"Volumes":null}}}}"#,
            "0".repeat(64)
        )
        .as_bytes(),
    )
    .unwrap()
}

fn row(fields: &[(&str, Value)]) -> Value {
    Value::row("*container.Part", fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
}

fn strings(items: &[&str]) -> Value {
    Value::List(Arc::new(List { items: items.iter().map(|s| Value::from(*s)).collect(), element: "string" }))
}

/// The same container as Go's structs.
fn typed() -> Value {
    let labels = Map::new("string", vec![("z".into(), "26".into()), ("a".into(), "1".into())]);
    let empty = || Value::Map(Arc::new(Map::new("string", vec![])));
    let restart = row(&[("Name", "no".into()), ("MaximumRetryCount", 0.into())]);
    let log = row(&[("Type", "json-file".into()), ("Config", empty())]);
    row(&[
        ("Id", "0".repeat(64).into()),
        ("Name", "/cli-tpl".into()),
        ("Args", strings(&["b", "c"])),
        ("State", row(&[("Status", "created".into()), ("Health", Value::Nil(Nil::Pointer))])),
        (
            "HostConfig",
            row(&[
                ("Memory", 67_108_864.into()),
                ("NanoCpus", 1_500_000_000.into()),
                ("DNS", Value::Nil(Nil::List)),
                ("Binds", Value::Nil(Nil::List)),
                ("PortBindings", empty()),
                ("Devices", strings(&[])),
                ("RestartPolicy", restart),
                ("LogConfig", log),
            ]),
        ),
        ("Mounts", strings(&[])),
        ("NetworkSettings", row(&[("Ports", empty())])),
        (
            "Config",
            row(&[
                ("Labels", Value::Map(Arc::new(labels))),
                ("Tty", false.into()),
                ("OpenStdin", false.into()),
                ("User", "".into()),
                ("Hostname", "0123456789ab".into()),
                ("Env", strings(&[])),
                ("Volumes", Value::Nil(Nil::Map)),
            ]),
        ),
    ])
}

/// Executes as `docker inspect` does: over the structs, and over the plain maps where that fails.
fn run(text: &str) -> String {
    let t = match Template::parse("", text) {
        Ok(t) => t,
        Err(e) => return e.to_string(),
    };
    let mut out = String::new();
    if t.execute(&typed(), FunctionSet::Docker, MissingKey::NoValue, &mut out).is_ok() {
        return out;
    }
    out.clear();
    match t.execute(&data(), FunctionSet::Docker, MissingKey::Error, &mut out) {
        Ok(()) => out,
        Err(e) => e.to_string(),
    }
}

#[test]
fn prints_what_docker_prints() {
    let wrong: Vec<String> = cases::CASES
        .iter()
        .filter_map(|(text, expected)| {
            let got = run(text);
            (got != *expected).then(|| format!("{text}\n  want {expected}\n  got  {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases::CASES.len(), wrong.join("\n"));
}

proptest! {
    #[test]
    fn parsing_and_executing_never_panics(text in "(\\{\\{|\\}\\}|[.$()|, ]|-|:=|=|if|else|end|range|with|define|template|block|break|[A-Z]|\"a\"|`|'|1|printf|index|slice|and|len|eq|\\.[A-Z][a-z]|\\PC){0,40}") {
        let _ = run(&text);
    }

    #[test]
    fn any_text_inside_an_action_never_panics(text in "\\PC{0,30}") {
        let _ = run(&format!("{{{{{text}}}}}"));
    }

    #[test]
    fn printf_never_panics(format in "(%|[-+# 0]|[0-9]{1,3}|\\.|\\*|\\[[0-9]\\]|[a-zA-Z]|\\PC){0,12}", n in any::<i64>(), f in any::<f64>(), s in "\\PC{0,5}") {
        let _ = sprintf(&format, &[Value::Int(n), Value::Float(f), Value::Str(s), Value::Uint(u64::MAX), data()]);
    }

    #[test]
    fn json_reads_back_as_written(s in "\\PC{0,20}", f in any::<f64>()) {
        let v = Value::list(vec![Value::Str(s.clone()), Value::Float(if f.is_finite() { f } else { 0.0 })]);
        let back: serde_json::Value = serde_json::from_str(&to_json(&v)).unwrap();
        prop_assert_eq!(back[0].as_str(), Some(s.as_str()));
    }
}

#[test]
fn nesting_without_end_is_refused_not_overflowed() {
    assert!(run(&"{{if .B}}".repeat(100_000)).contains("depth exceeded"));
    assert!(run(&format!("{{{{{}1", "(".repeat(100_000))).contains("depth exceeded"));
    assert!(run(&format!("{{{{if .B}}}}{}", "{{else if .B}}a".repeat(100_000))).contains("depth exceeded"));
    assert!(run(r#"{{define "x"}}{{template "x"}}{{end}}{{template "x"}}"#).contains("maximum template depth"));
}

#[test]
fn a_template_that_counts_without_end_is_stopped() {
    assert!(run("{{range 9000000000000}}{{end}}").contains("exceeded maximum number of rounds"));
    assert!(run("{{range 100000}}{{range 100000}}{{end}}{{end}}").contains("exceeded maximum number of rounds"));
}
