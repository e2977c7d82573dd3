//! What cannot be: one clear error, runc's exit code, nothing left behind.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::bundle::{Bundle, add_mount, eventually, is_ours};

/// A field that is wrong, and what our own message names.
type Row = (&'static str, fn(&mut Value), &'static str);

const FIELDS: &[Row] = &[
    ("process is missing", |c| drop(c.as_object_mut().expect("object").remove("process")), "process is missing"),
    ("args is empty", |c| c["process"]["args"] = json!([]), "process.args is empty"),
    ("cwd is relative", |c| c["process"]["cwd"] = json!("bin"), "Cwd must be an absolute path"),
    ("cwd is empty", |c| c["process"]["cwd"] = json!(""), "Cwd must be an absolute path"),
    ("user is text", |c| c["process"]["user"]["uid"] = json!("root"), "config.json"),
    ("user overflows (CVE-2024-40635)", |c| c["process"]["user"]["uid"] = json!(4_294_967_296u64), "config.json"),
    ("args holds NUL", |c| c["process"]["args"] = json!(["/bin/\0sh"]), "NUL"),
    (
        "limit is not known",
        |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_MOON", "hard": 1, "soft": 1}]),
        "RLIMIT_MOON",
    ),
    (
        "soft above hard",
        |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]),
        "RLIMIT_NOFILE",
    ),
    ("root is missing", |c| drop(c.as_object_mut().expect("object").remove("root")), "root is missing"),
    ("root does not exist", |c| c["root"]["path"] = json!("nowhere"), "invalid rootfs"),
    (
        "host name without namespace",
        |c| {
            c["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "uts");
        },
        "unable to set hostname without a private UTS namespace",
    ),
    ("mount is relative", |c| add_mount(c, "x", "bind", "../../x", &["bind"]), "x"),
    ("bind source is missing", |c| add_mount(c, "/x", "bind", "/not/there", &["bind"]), "/not/there"),
    ("file system is not known", |c| add_mount(c, "/x", "moonfs", "moon", &[]), "moon"),
    (
        "namespace twice",
        |c| c["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "pid"})),
        "namespace",
    ),
    (
        "namespace is not known",
        |c| c["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "moon"})),
        "moon",
    ),
    (
        "namespace path is none",
        |c| crate::bundle::add_namespace(c, json!({"type": "ipc", "path": "/proc/self/status"})),
        "namespace",
    ),
    (
        "namespace path is of another kind",
        |c| crate::bundle::add_namespace(c, json!({"type": "ipc", "path": "/proc/self/ns/net"})),
        "namespace",
    ),
    ("user namespace without map", |c| crate::bundle::add_namespace(c, json!({"type": "user"})), "no user mapping"),
    (
        "map without user namespace",
        |c| {
            c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1}]);
        },
        "user namespace mappings specified",
    ),
    (
        "time offset without namespace",
        |c| c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}),
        "time namespace",
    ),
    (
        "sysctl of the host",
        |c| c["linux"]["sysctl"] = json!({"kernel.panic": "1"}),
        "is not in a separate kernel namespace",
    ),
    ("sysctl climbs", |c| c["linux"]["sysctl"] = json!({"net/../kernel/panic": "1"}), "sysctl"),
    (
        "device type is not known",
        |c| c["linux"]["devices"] = json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}]),
        "config.json",
    ),
    (
        "device path is relative",
        |c| c["linux"]["devices"] = json!([{"path": "dev/x", "type": "c", "major": 1, "minor": 3}]),
        "device",
    ),
    ("propagation is not known", |c| c["linux"]["rootfsPropagation"] = json!("sideways"), "rootfsPropagation=sideways"),
    (
        "seccomp action is not known",
        |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_MOON"}),
        "SCMP_ACT_MOON",
    ),
    (
        "seccomp asks nobody",
        |c| {
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
        },
        "SCMP_ACT_NOTIFY cannot be used as default action",
    ),
    ("personality is not known", |c| c["linux"]["personality"] = json!({"domain": "MOON"}), "personality"),
    ("scheduler is not known", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_MOON"}), "SCHED_MOON"),
    ("I/O class is not known", |c| c["process"]["ioPriority"] = json!({"class": "MOON", "priority": 1}), "MOON"),
    ("oom score is out of range", |c| c["process"]["oomScoreAdj"] = json!(5000), "oom_score_adj"),
    (
        "AppArmor without AppArmor",
        |c| c["process"]["apparmorProfile"] = json!("docker-default-that-is-not-there"),
        "apparmor",
    ),
    ("hook is relative", |c| c["hooks"] = json!({"createRuntime": [{"path": "bin/true"}]}), "hook"),
    ("hook is missing", |c| c["hooks"] = json!({"createRuntime": [{"path": "/not/there"}]}), "hook"),
    (
        "device moves without namespace",
        |c| {
            c["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "network");
            c["linux"]["netDevices"] = json!({"wharf-none0": {}});
        },
        "private NET namespace",
    ),
    ("device is not there", |c| c["linux"]["netDevices"] = json!({"wharf-none0": {}}), "wharf-none0"),
    (
        "resctrl is not there",
        |c| c["linux"]["intelRdt"] = json!({"closID": "wharf"}),
        "Intel RDT is not supported or enabled",
    ),
    ("SELinux is not there", |c| c["linux"]["mountLabel"] = json!("system_u:object_r:svirt_file_t:s0"), "selinux"),
    ("CPU list is none", |c| c["linux"]["resources"]["cpu"] = json!({"cpus": "moon"}), "moon"),
    ("memory is negative", |c| c["linux"]["resources"]["memory"] = json!({"limit": -5000}), "memory"),
    ("affinity is none", |c| c["process"]["execCPUAffinity"] = json!({"initial": "moon"}), "execCPUAffinity"),
];

#[test]
fn each_wrong_field_is_refused_by_name_and_leaves_nothing() {
    // Fields that are newer than the peers, or where they are more lenient than the specification.
    const OURS: &[&str] = &[
        "device moves without namespace",
        "device is not there",
        "affinity is none",
        "AppArmor without AppArmor",
        "resctrl is not there",
        "SELinux is not there",
        "time offset without namespace",
        "namespace twice",
        "propagation is not known",
        "device path is relative",
        "mount is relative",
        "oom score is out of range",
        "memory is negative",
        "hook is relative",
        "args holds NUL",
        "I/O class is not known",
        "soft above hard",
        "map without user namespace",
        "seccomp asks nobody",
        "host name without namespace",
        "namespace path is of another kind",
        "cwd is empty",
        "cwd is relative",
        "device type is not known",
        "sysctl climbs",
    ];
    for (name, change, text) in FIELDS {
        if !is_ours() && OURS.contains(name) {
            continue;
        }
        let bundle = Bundle::new("true").with(change);
        let ran = bundle.create();
        assert_eq!(ran.code, Some(1), "{name}: {}", ran.err);
        if is_ours() {
            let said = ran.err.replace("\\\"", "\"");
            assert!(said.contains(text), "{name}: {text:?} is not in {said}");
            assert_eq!(ran.err.lines().count(), 1, "{name}: {}", ran.err);
        }
        assert_eq!(bundle.leftovers(), [""; 0], "{name}");
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let bundle = Bundle::new("true");
    let dir = bundle.path().to_str().expect("UTF-8");
    assert_eq!(bundle.call(&["create", "--bundle", "/not/there", &bundle.id]).code, Some(1));
    let missing = bundle.call(&["create", "--bundle", dir, &bundle.id]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("config.json"), "{}", missing.err);
    std::fs::write(bundle.path().join("config.json"), "{ not json").expect("written");
    assert_eq!(bundle.call(&["create", "--bundle", dir, &bundle.id]).code, Some(1));
    std::fs::write(bundle.path().join("config.json"), "[]").expect("written");
    assert_eq!(bundle.call(&["create", "--bundle", dir, &bundle.id]).code, Some(1));
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn ids_are_plain_names() {
    let bundle = Bundle::new("true");
    bundle.write_config();
    let dir = bundle.path().to_str().expect("UTF-8");
    for id in ["", "a/b", "../x", "..", ".", "a b", "ä", "/abs"] {
        let ran = bundle.call(&["create", "--bundle", dir, id]);
        assert_ne!(ran.code, Some(0), "{id:?}");
        assert_ne!(bundle.call(&["state", id]).code, Some(0), "{id:?}");
        assert_ne!(bundle.call(&["delete", id]).code, Some(0), "{id:?}");
    }
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn commands_in_the_wrong_state_say_so() {
    let bundle = Bundle::new("sleep 1000");
    let id = bundle.id.clone();
    for command in ["state", "start", "pause", "resume", "delete", "kill", "ps", "events"] {
        let ran = bundle.call(&[command, &id]);
        assert_eq!(ran.code, Some(1), "{command}");
        if is_ours() {
            ran.fails_with("container does not exist");
        }
    }
    bundle.create().ok();
    assert_ne!(bundle.call(&["resume", &id]).code, Some(0), "nothing to resume");
    bundle.call(&["start", &id]).ok();
    assert_ne!(bundle.create().code, Some(0), "the id is taken");
    assert_eq!(bundle.state()["status"], "running", "the one that had it is untouched");
    assert_ne!(bundle.call(&["start", &id]).code, Some(0), "started already");
    assert_ne!(bundle.call(&["delete", &id]).code, Some(0), "it runs");
    bundle.call(&["pause", &id]).ok();
    assert_ne!(bundle.exec(&["true"]).code, Some(0), "it is paused");
    bundle.call(&["resume", &id]).ok();
    bundle.call(&["kill", &id, "KILL"]).ok();
    eventually("end", || bundle.state()["status"] == "stopped");
    for words in [&["kill", &id, "KILL"][..], &["pause", &id], &["start", &id], &["exec", &id, "true"]] {
        assert_ne!(bundle.call(words).code, Some(0), "{words:?} of a stopped container");
    }
    bundle.call(&["delete", &id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_command_line_that_is_wrong_has_runcs_exit_codes() {
    if !is_ours() {
        return;
    }
    let bundle = Bundle::new("true");
    for (words, code, text) in [
        (&["fly"][..], 3, "No help topic for 'fly'"),
        (&["create"], 1, "\"create\" requires exactly 1 argument(s)"),
        (&["start", "a", "b"], 1, "\"start\" requires exactly 1 argument(s)"),
        (&["exec"], 1, "\"exec\" requires a minimum of 1 argument(s)"),
        (&["exec", "nobody", "true"], 255, "exec failed: container does not exist"),
        (&["create", "--moon", "x"], 1, "flag provided but not defined: -moon"),
        (&["list", "--format", "xml"], 1, "invalid format option"),
        (&["kill", "nobody"], 1, "container does not exist"),
    ] {
        let ran = bundle.call(words);
        assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.err);
        ran.fails_with(text);
    }
}

#[test]
fn a_process_that_died_unseen_is_a_stopped_container() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    let pid = i32::try_from(bundle.state()["pid"].as_i64().expect("pid")).expect("pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    eventually("end", || bundle.state()["status"] == "stopped");
    assert_ne!(bundle.call(&["kill", &bundle.id, "TERM"]).code, Some(0));
    bundle.call(&["delete", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    bundle.write_config();
    let dir = bundle.path().to_str().expect("UTF-8");
    // Root may write anywhere on a disk; procfs takes nobody's folders.
    for root in ["/proc/wharf-state", "/sys/wharf-state"] {
        let mut command = std::process::Command::new(&bundle.runtime);
        command.args(["--root", root, "create", "--bundle", dir, &bundle.id]).stdin(std::process::Stdio::null());
        assert_eq!(command.output().expect("ran").status.code(), Some(1), "{root}");
    }
    let file = bundle.path().join("state");
    std::fs::write(&file, "").expect("written");
    assert_eq!(bundle.call(&["create", "--bundle", dir, &bundle.id]).code, Some(1));
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_state_file_that_is_garbage_is_an_error_and_can_be_deleted_by_force() {
    if !is_ours() {
        return;
    }
    let bundle = Bundle::new("sleep 1000");
    let folder = bundle.path().join("state").join(&bundle.id);
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("mode");
    for text in ["", "{", "{\"id\":\"x\"}", "[1]"] {
        std::fs::write(folder.join("state.json"), text).expect("written");
        assert_eq!(bundle.call(&["state", &bundle.id]).code, Some(1), "{text:?}");
        assert_eq!(bundle.call(&["list"]).code, Some(1), "{text:?}");
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}
