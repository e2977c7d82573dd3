//! Tables, templates of rows and JSON.

use proptest::prelude::*;
use wharf_template::{FunctionSet, MissingKey, Template, Value};

use crate::commands::ps;
use crate::format::row::{Row, ellipsis, short_id};
use crate::format::{Listing, column, json};
use crate::shape::Json;

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    assert_eq!(
        column::align("CONTAINER ID\tIMAGE\tNAMES\nabc\ta-long-image-name\tx\n"),
        "CONTAINER ID   IMAGE               NAMES\nabc            a-long-image-name   x\n"
    );
    assert_eq!(column::align("A\tB\n\tx\n"), "A         B\n          x\n");
    assert_eq!(column::align(""), "");
}

fn listing(format: &str) -> Result<String, String> {
    let labels = [("k".to_owned(), "v".to_owned()), ("a".to_owned(), "1".to_owned())].into();
    let row = Row::new("*formatter.Thing").with("ID", "1").with("Name", "n").with_labels(labels).value();
    let headers = &[("ID", "THE ID"), ("Name", "NAME")];
    Listing { format, table: "{{.ID}}\t{{.Name}}", headers }.render(&[row]).map_err(|e| e.message)
}

#[test]
fn formats_are_read_as_docker_does() {
    assert_eq!(listing("").unwrap(), "THE ID    NAME\n1         n\n");
    assert_eq!(listing("table").unwrap(), listing("").unwrap());
    assert_eq!(listing("table {{.Name}}\\t{{.ID}}").unwrap(), "NAME      THE ID\nn         1\n");
    assert_eq!(listing("table {{upper .Name}}").unwrap(), "NAME\nN\n");
    assert_eq!(listing("{{.ID}}:{{.Label \"k\"}}:{{.Labels}}").unwrap(), "1:v:a=1,k=v\n");
    assert_eq!(listing("json").unwrap(), "{\"ID\":\"1\",\"Labels\":\"a=1,k=v\",\"Name\":\"n\"}\n");
    assert_eq!(
        listing("{{.Nosuch}}").unwrap_err(),
        "template parsing error: template: :1:2: executing \"\" at <.Nosuch>: can't evaluate field Nosuch in type \
         *formatter.Thing"
    );
    assert_eq!(listing("{{").unwrap_err(), "template parsing error: template: :1: unclosed action");
}

#[test]
fn json_is_indented_as_it_came() {
    assert_eq!(
        json::indent(r#"[{"b":1,"a":[],"c":{},"d":"x\u003e\"{","e":[1,2]}]"#),
        "[\n    {\n        \"b\": 1,\n        \"a\": [],\n        \"c\": {},\n        \"d\": \"x\\u003e\\\"{\",\n        \
         \"e\": [\n            1,\n            2\n        ]\n    }\n]"
    );
    assert_eq!(json::compact("{ \"a\" : [ 1 , \"b c\" ] }\n"), r#"{"a":[1,"b c"]}"#);
    assert_eq!(json::indent("[]"), "[]");
}

#[test]
fn published_ports_are_joined_as_docker_does() {
    let port = |ip: &str, private: u16, public: u16| wharf_api_types::Port {
        ip: ip.into(),
        private_port: private,
        public_port: public,
        r#type: "tcp".into(),
    };
    assert_eq!(
        ps::ports(&[port("0.0.0.0", 80, 8080), port("::", 80, 8080)]),
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    );
    assert_eq!(ps::ports(&[port("", 80, 0), port("", 81, 0), port("", 90, 0)]), "80-81/tcp, 90/tcp");
    assert_eq!(ps::ports(&[port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)]), "0.0.0.0:80-81->80-81/tcp");
}

#[test]
fn ids_and_texts_are_cut_as_docker_does() {
    assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    assert_eq!(ellipsis("sh -c 'echo line1; sleep'", 20), "sh -c 'echo line1; …");
    assert_eq!(ellipsis("short", 20), "short");
}

#[test]
fn structs_print_as_go_prints_them() {
    let text = r#"{"Name":"/x","State":{"Status":"running"},"HostConfig":{"RestartPolicy":{"Name":"no","MaximumRetryCount":0},
        "Binds":null,"LogConfig":{"Type":"json-file","Config":{}}},
        "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null}},"Config":{"Labels":{"z":"1","a":"2"}}}"#;
    let json: Json = serde_json::from_str(text).unwrap();
    let run = |t: &str| {
        let mut out = String::new();
        Template::parse("", t)
            .unwrap()
            .execute(&json.typed("x"), FunctionSet::Docker, MissingKey::NoValue, &mut out)
            .map(|()| out)
            .unwrap_or_else(|e| e.to_string())
    };
    assert_eq!(run("{{.HostConfig.RestartPolicy}}"), "{no 0}");
    assert_eq!(run("{{.HostConfig.LogConfig}}"), "{json-file map[]}");
    assert_eq!(run("{{.NetworkSettings.Ports}}"), "map[80/tcp:[{0.0.0.0 8080}] 81/tcp:[]]");
    assert_eq!(run("{{.HostConfig.Binds}} {{json .HostConfig.Binds}}"), "[] null");
    assert_eq!(run("{{.Config.Labels}} {{.Config.Labels.none}}"), "map[a:2 z:1] <no value>");
    assert_eq!(run("{{.State.Health}}{{if .State.Health}}x{{end}}"), "<nil>");
    assert_eq!(run("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"), "8080");
    assert_eq!(run("{{json .HostConfig.RestartPolicy}}"), "{\"Name\":\"no\",\"MaximumRetryCount\":0}");
}

proptest! {
    #[test]
    fn aligning_keeps_every_cell(cells in proptest::collection::vec(proptest::collection::vec("[a-z]{0,12}", 1..5), 0..6)) {
        let text: String = cells.iter().map(|l| l.join("\t") + "\n").collect();
        let out = column::align(&text);
        prop_assert_eq!(out.lines().count(), cells.len());
        for (line, cells) in out.lines().zip(&cells) {
            let got: Vec<&str> = line.split_whitespace().collect();
            let want: Vec<&str> = cells.iter().map(String::as_str).filter(|c| !c.is_empty()).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn json_text_never_panics(text in "[\\[\\]{}:,\"a1 \\\\]{0,40}") {
        let _ = (json::indent(&text), json::compact(&text));
        if let Ok(j) = serde_json::from_str::<Json>(&text) {
            let _ = (wharf_template::to_json(&j.typed("x")), wharf_template::format_value(&j.plain()));
        }
    }
}

#[test]
fn values_of_rows_are_seen_by_templates() {
    let row = Row::new("*x").with("A", true).value();
    assert!(matches!(&row, Value::Record(r) if r.field("A").is_some_and(|v| v.is_true())));
}
