//! Every error status that the API reference documents for containers, execs and the system, produced once.

use serde_json::{Value, json};
use testkit::Daemon;

/// A request and what is to come of it; the text is a part of the message.
type Case = (&'static str, &'static str, Value, u16, &'static str);

#[test]
fn every_documented_error_of_containers_and_execs_is_produced() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    daemon.docker(&["create", "--name", "made", "busybox", "true"]).ok();
    daemon.docker(&["run", "--name", "done", "busybox", "true"]).ok();
    daemon.docker(&["run", "-d", "--name", "frozen", "busybox", "sleep", "1000"]).ok();
    daemon.docker(&["pause", "frozen"]).ok();
    let exec = |name: &str| {
        let made = daemon.rest().post(&format!("/v1.51/containers/{name}/exec"), &json!({"Cmd": ["true"]}));
        made.json()["Id"].as_str().map(str::to_owned).expect("an id")
    };
    let ran = exec("up");
    let started = daemon.rest().post(&format!("/v1.51/exec/{ran}/start"), &json!({"Detach": true}));
    assert_eq!(started.status, 200);
    let none = Value::Null;
    let cases: Vec<Case> = vec![
        ("GET", "/containers/json?filters=%7B%22nosuch%22:[%22x%22]%7D", none.clone(), 400, "invalid filter 'nosuch'"),
        ("POST", "/containers/create", json!({"Image": "busybox", "WorkingDir": "x"}), 400, "absolute path"),
        (
            "POST",
            "/containers/create?name=a/b",
            json!({"Image": "busybox", "Cmd": ["x"]}),
            400,
            "Invalid container name",
        ),
        ("POST", "/containers/create", json!({"Image": "nosuch"}), 404, "No such image"),
        ("POST", "/containers/create?name=up", json!({"Image": "busybox", "Cmd": ["x"]}), 409, "already in use"),
        ("GET", "/containers/nosuch/json", none.clone(), 404, "No such container: nosuch"),
        ("GET", "/containers/nosuch/top", none.clone(), 404, "No such container"),
        ("GET", "/containers/made/top", none.clone(), 409, "is not running"),
        ("GET", "/containers/nosuch/logs?stdout=1", none.clone(), 404, "No such container"),
        ("GET", "/containers/up/logs", none.clone(), 400, "you must choose at least one stream"),
        ("GET", "/containers/nosuch/changes", none.clone(), 404, "No such container"),
        ("GET", "/containers/nosuch/stats?stream=0", none.clone(), 404, "No such container"),
        ("POST", "/containers/nosuch/resize?h=1&w=1", none.clone(), 404, "No such container"),
        ("POST", "/containers/up/resize?h=x&w=1", none.clone(), 400, ""),
        ("POST", "/containers/up/start", none.clone(), 304, ""),
        ("POST", "/containers/nosuch/start", none.clone(), 404, "No such container"),
        ("POST", "/containers/frozen/start", none.clone(), 409, "cannot start a paused container"),
        ("POST", "/containers/done/stop", none.clone(), 304, ""),
        ("POST", "/containers/nosuch/stop", none.clone(), 404, "No such container"),
        ("POST", "/containers/nosuch/restart", none.clone(), 404, "No such container"),
        ("POST", "/containers/nosuch/kill", none.clone(), 404, "No such container"),
        ("POST", "/containers/done/kill", none.clone(), 409, "is not running"),
        ("POST", "/containers/up/kill?signal=NOSUCH", none.clone(), 400, "nvalid signal"),
        ("POST", "/containers/nosuch/update", json!({}), 404, "No such container"),
        ("POST", "/containers/up/update", json!({"Memory": 1}), 400, "Minimum memory limit"),
        ("POST", "/containers/nosuch/rename?name=x1", none.clone(), 404, "No such container"),
        ("POST", "/containers/up/rename?name=done", none.clone(), 409, "already in use"),
        ("POST", "/containers/up/rename?name=a/b", none.clone(), 400, "Invalid container name"),
        ("POST", "/containers/nosuch/pause", none.clone(), 404, "No such container"),
        ("POST", "/containers/frozen/pause", none.clone(), 409, "already paused"),
        ("POST", "/containers/nosuch/unpause", none.clone(), 404, "No such container"),
        ("POST", "/containers/up/unpause", none.clone(), 500, "is not paused"),
        ("POST", "/containers/nosuch/attach", none.clone(), 404, "No such container"),
        ("POST", "/containers/up/attach?detachKeys=nosuch-key", none.clone(), 400, "nvalid detach keys"),
        ("POST", "/containers/frozen/attach", none.clone(), 409, "is paused, unpause the container"),
        ("GET", "/containers/nosuch/attach/ws", none.clone(), 404, "No such container"),
        ("POST", "/containers/nosuch/wait", none.clone(), 404, "No such container"),
        ("POST", "/containers/up/wait?condition=nosuch", none.clone(), 400, "invalid condition"),
        ("DELETE", "/containers/nosuch", none.clone(), 404, "No such container"),
        ("DELETE", "/containers/up", none.clone(), 409, "container is running"),
        ("HEAD", "/containers/up/archive", none.clone(), 400, ""),
        ("HEAD", "/containers/up/archive?path=/nosuch", none.clone(), 404, ""),
        ("GET", "/containers/up/archive", none.clone(), 400, "cannot be empty"),
        ("GET", "/containers/nosuch/archive?path=/", none.clone(), 404, "No such container"),
        ("GET", "/containers/up/archive?path=/nosuch", none.clone(), 404, "Could not find the file"),
        ("PUT", "/containers/up/archive?path=/nosuch", none.clone(), 404, "Could not find the file"),
        ("PUT", "/containers/up/archive?path=/etc/passwd", none.clone(), 400, "extraction point is not a directory"),
        (
            "POST",
            "/containers/prune?filters=%7B%22nosuch%22:[%22x%22]%7D",
            none.clone(),
            400,
            "invalid filter 'nosuch'",
        ),
        ("POST", "/containers/nosuch/exec", json!({"Cmd": ["true"]}), 404, "No such container"),
        ("POST", "/containers/frozen/exec", json!({"Cmd": ["true"]}), 409, "is paused"),
        ("POST", "/containers/done/exec", json!({"Cmd": ["true"]}), 409, "is not running"),
        ("POST", "/containers/up/exec", json!({}), 400, "No exec command specified"),
        ("POST", "/exec/nosuch/start", json!({}), 404, "No such exec instance"),
        ("POST", "/exec/nosuch/resize?h=1&w=1", none.clone(), 404, "No such exec instance"),
        ("GET", "/exec/nosuch/json", none.clone(), 404, "No such exec instance"),
        ("GET", "/events?since=2&until=1", none.clone(), 400, "cannot be after `until`"),
        ("GET", "/system/df?type=nosuch", none.clone(), 400, "unknown object type"),
        ("GET", "/nosuch", none.clone(), 404, "page not found"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, status, message) in cases {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = daemon.rest().call(method, &format!("/v1.51{path}"), &bytes).expect("answered");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status != status || !said.contains(message) {
            wrong.push(format!("{method} {path}: {} {said:?}, not {status} {message:?}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let again = daemon.rest().post(&format!("/v1.51/exec/{ran}/start"), &json!({"Detach": true}));
    assert_eq!(again.status, 409, "{}", String::from_utf8_lossy(&again.body));
    let old = daemon.rest().get("/v1.23/containers/json");
    assert_eq!(old.status, 400, "{}", String::from_utf8_lossy(&old.body));
    let new = daemon.rest().get("/v1.99/containers/json");
    assert_eq!(new.status, 400, "{}", String::from_utf8_lossy(&new.body));
}
