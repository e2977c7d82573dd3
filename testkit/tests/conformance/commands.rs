//! The command line: what runc 1.3 prints and takes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::{Bundle, eventually};

#[test]
fn processes_are_shown_as_json_and_as_lines_of_ps() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    let number = bundle.state()["pid"].clone();
    let pid = number.to_string();
    let all: Value = serde_json::from_str(&bundle.call(&["ps", "--format", "json", &bundle.id]).ok()).expect("JSON");
    assert!(all.as_array().expect("list").contains(&number), "{all}");
    let table = bundle.call(&["ps", &bundle.id]).ok();
    let mut lines = table.lines();
    assert!(lines.next().is_some_and(|head| head.contains("PID")), "{table}");
    assert!(table.lines().skip(1).all(|l| l.contains("sleep")) && table.contains(&pid), "{table}");
    let chosen = bundle.call(&["ps", &bundle.id, "-o", "pid,comm"]).ok();
    assert!(chosen.lines().nth(1).is_some_and(|l| l.trim_start().starts_with(&pid)), "{chosen}");
    bundle.call(&["ps", "--format", "xml", &bundle.id]).fails_with("invalid format option");
}

#[test]
fn statistics_are_printed_once() {
    let bundle = Bundle::new("sleep 1000").with(|c| c["linux"]["resources"]["pids"] = json!({"limit": 77}));
    bundle.start();
    let line = bundle.call(&["events", "--stats", &bundle.id]).ok();
    let event: Value = serde_json::from_str(&line).expect("one JSON object");
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(bundle.id.as_str())));
    let data = &event["data"];
    assert_eq!(data["pids"]["limit"], 77, "{line}");
    assert!(data["pids"]["current"].as_u64() >= Some(1), "{line}");
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{line}");
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{line}");
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    eventually("end", || bundle.state()["status"] == "stopped");
    bundle.call(&["events", "--stats", &bundle.id]).fails_with("is not running");
}

/// The lines that a child prints, to be waited for with a limit. The thread ends with the child's output.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stdout.take().expect("pipe")).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

#[test]
fn events_follow_a_container_to_its_end() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    let mut child =
        bundle.command(&["events", "--interval", "50ms", &bundle.id]).stdout(Stdio::piped()).spawn().expect("spawned");
    let lines = lines_of(&mut child);
    for _ in 0..2 {
        let line = lines.recv_timeout(Duration::from_secs(10)).expect("a line");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["type"], "stats");
    }
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    eventually("the end of events", || child.try_wait().expect("waited").is_some());
    assert_eq!(child.wait().expect("waited").code(), Some(0));
}

#[test]
fn an_out_of_memory_kill_is_an_event() {
    let bundle = Bundle::new(
        "while ! [ -e /go ]; do sleep 0.05; done; (dd if=/dev/zero of=/dev/null bs=200M count=1); sleep 1000",
    )
    .with(|c| c["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20}));
    bundle.start();
    let mut child =
        bundle.command(&["events", "--interval", "1h", &bundle.id]).stdout(Stdio::piped()).spawn().expect("spawned");
    let lines = lines_of(&mut child);
    // The watch is set once it sleeps in poll, which nothing tells; a kill that came before it is not an event of it.
    eventually("the watch", || {
        let path = format!("/proc/{}/wchan", child.id());
        std::fs::read_to_string(path).is_ok_and(|w| w.contains("poll") || w.contains("futex") || w.contains("ep_"))
    });
    std::fs::write(bundle.rootfs().join("go"), "").expect("written");
    let line = lines.recv_timeout(Duration::from_secs(30));
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    eventually("the end of events", || child.try_wait().expect("waited").is_some());
    let line = line.expect("an event");
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["type"], "oom", "{line}");
}

/// A limit as the kernel has it, by v1 or v2 file.
fn limit(bundle: &Bundle, v1: &str, v2: &str) -> String {
    let (controller, _) = v1.split_once('.').expect("name");
    let controller = if controller == "cpu" { "cpu" } else { controller };
    let old = format!("/sys/fs/cgroup/{controller}/{}/{v1}", bundle.id);
    let new = format!("/sys/fs/cgroup/{}/{v2}", bundle.id);
    std::fs::read_to_string(old).or_else(|_| std::fs::read_to_string(new)).expect("limit").trim().to_owned()
}

#[test]
fn limits_are_updated_by_options_and_from_standard_input() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    bundle.call(&["update", "--memory", "100m", "--pids-limit", "50", &bundle.id]).ok();
    assert_eq!(limit(&bundle, "memory.limit_in_bytes", "memory.max"), (100 << 20).to_string());
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "50");
    bundle.call(&["update", "--cpu-period", "50000", "--cpu-quota", "25000", &bundle.id]).ok();
    let quota = limit(&bundle, "cpu.cfs_quota_us", "cpu.max");
    assert!(matches!(quota.as_str(), "25000" | "25000 50000"), "{quota}");
    let mut child =
        bundle.command(&["update", "--resources", "-", &bundle.id]).stdin(Stdio::piped()).spawn().expect("spawned");
    let json = json!({"pids": {"limit": 60}, "memory": {"limit": 200 << 20}}).to_string();
    std::io::Write::write_all(&mut child.stdin.take().expect("pipe"), json.as_bytes()).expect("written");
    assert!(child.wait().expect("waited").success());
    assert_eq!(limit(&bundle, "pids.max", "pids.max"), "60");
    assert_eq!(limit(&bundle, "memory.limit_in_bytes", "memory.max"), (200 << 20).to_string());
    // A second change finds what the first left.
    bundle.call(&["update", "--memory", "150m", "--memory-swap", "300m", &bundle.id]).ok();
    bundle.call(&["update", "--memory", "120m", &bundle.id]).ok();
    assert_eq!(limit(&bundle, "memory.limit_in_bytes", "memory.max"), (120 << 20).to_string());
    bundle.call(&["update", "--memory", "1x", &bundle.id]).fails_with("invalid");
}

#[test]
fn a_further_process_can_have_a_group_below_the_containers() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let tops: Vec<String> = if v2 {
        vec![format!("/sys/fs/cgroup/{}", bundle.id)]
    } else {
        vec![format!("/sys/fs/cgroup/pids/{}", bundle.id)]
    };
    for top in &tops {
        std::fs::create_dir(format!("{top}/sub")).expect("group");
    }
    let group = if v2 { "sub" } else { "pids:sub" };
    let out = bundle.call(&["exec", "--cgroup", group, &bundle.id, "cat", "/proc/self/cgroup"]).ok();
    assert!(out.lines().any(|l| l.ends_with(&format!("{}/sub", bundle.id))), "{out}");
    assert_ne!(bundle.call(&["exec", "--cgroup", "nowhere", &bundle.id, "true"]).code, Some(0));
}

#[test]
fn sockets_of_activation_are_passed_and_told_of() {
    let bundle = Bundle::new("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    bundle.write_config();
    let file = bundle.path().join("activated");
    std::fs::write(&file, "by three\n").expect("written");
    let dir = bundle.path().to_str().expect("UTF-8");
    let runtime = bundle.command(&[]);
    let line = format!("exec 3<{}; export LISTEN_PID=$$; exec \"$0\" \"$@\"", file.display());
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).arg(runtime.get_program()).args(runtime.get_args());
    command.args(["run", "--bundle", dir, &bundle.id]).env("LISTEN_FDS", "1").stdin(Stdio::null());
    let output = command.output().expect("ran");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 1\nby three\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_template_runs_as_it_is() {
    let bundle = Bundle::new("true");
    let dir = bundle.path().to_str().expect("UTF-8");
    bundle.call(&["spec", "--bundle", dir]).ok();
    bundle.call(&["spec", "--bundle", dir]).fails_with("File config.json exists. Remove it first");
    let text = std::fs::read_to_string(bundle.path().join("config.json")).expect("read");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (config["process"]["terminal"].as_bool(), config["root"]["path"].as_str()),
        (Some(true), Some("rootfs"))
    );
}

#[test]
fn every_command_tells_what_it_takes() {
    let bundle = Bundle::new("true");
    let commands = [
        "create", "delete", "exec", "kill", "list", "pause", "ps", "resume", "run", "spec", "start", "state", "update",
    ];
    let all = bundle.call(&["--help"]).ok();
    for command in commands {
        assert!(all.contains(command), "{command}: {all}");
        bundle.call(&[command, "--help"]).ok();
    }
}

#[test]
fn features_are_true_of_what_they_name() {
    let bundle = Bundle::new("true");
    let features: Value = serde_json::from_str(&bundle.call(&["features"]).ok()).expect("JSON");
    let has = |at: &str, what: &str| {
        features.pointer(at).and_then(Value::as_array).is_some_and(|l| l.iter().any(|v| v == what))
    };
    for name in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        assert!(has("/linux/namespaces", name), "{name}");
    }
    assert!(has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY") && has("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ"));
    assert!(has("/mountOptions", "rro") && has("/hooks", "startContainer") && has("/linux/capabilities", "CAP_BPF"));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}
