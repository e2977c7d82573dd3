//! The commands from create to delete, and processes added meanwhile.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::bundle::{Bundle, add_mount, eventually};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

#[test]
fn a_container_goes_from_created_to_running_to_stopped_to_gone() {
    let bundle = Bundle::new("echo started; sleep 100");
    bundle.create().ok();
    let state = bundle.state();
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id.as_str())));
    assert_eq!(bundle.output(), "", "nothing runs before start");
    bundle.call(&["start", &bundle.id]).ok();
    eventually("output", || bundle.output() == "started\n");
    assert_eq!(bundle.state()["status"], "running");
    bundle.call(&["start", &bundle.id]).fails_with("cannot start an already running container");
    bundle.call(&["delete", &bundle.id]).fails_with("that is not stopped");
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    eventually("end", || bundle.state()["status"] == "stopped");
    bundle.call(&["kill", &bundle.id]).fails_with("container not running");
    bundle.exec(&["true"]).fails_with("cannot exec in a stopped container");
    bundle.call(&["delete", &bundle.id]).ok();
    bundle.call(&["state", &bundle.id]).fails_with("does not exist");
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn an_id_is_used_once_and_listed() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.create().fails_with("already exists");
    assert_eq!(bundle.call(&["list", "--quiet"]).ok(), format!("{}\n", bundle.id));
    let list: serde_json::Value = serde_json::from_str(&bundle.call(&["list", "--format", "json"]).ok()).expect("JSON");
    assert_eq!((list[0]["id"].as_str(), list[0]["status"].as_str()), (Some(bundle.id.as_str()), Some("running")));
    assert!(bundle.call(&["list"]).ok().starts_with("ID "));
    bundle.call(&["delete", "-f", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_created_container_can_be_deleted_without_being_started() {
    let bundle = Bundle::new("sleep 100");
    bundle.create().ok();
    bundle.call(&["delete", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_process_is_added_to_all_namespaces_and_the_cgroup() {
    let bundle = Bundle::new("sleep 100").with(|c| {
        crate::bundle::add_namespace(c, json!({"type": "cgroup"}));
        add_mount(c, "/t", "tmpfs", "tmpfs", &[]);
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    });
    bundle.start();
    let script = "for n in pid net mnt ipc uts cgroup; do \
        [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done; mkdir /x 2>&1; \
        [ \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" ] && echo same; cut -d' ' -f2 /proc/mounts | grep -c ^/t$";
    let out = bundle.exec(&["sh", "-c", script]).ok();
    assert!(out.starts_with("pid\nnet\nmnt\nipc\nuts\ncgroup\n"), "{out}");
    assert!(out.contains("No space left") && out.ends_with("same\n1\n"), "{out}");
    let pids: Vec<i32> =
        serde_json::from_str(&bundle.call(&["ps", "--format", "json", &bundle.id]).ok()).expect("JSON");
    assert_eq!(pids, [bundle.state()["pid"].as_i64().expect("pid") as i32]);
}

#[test]
fn a_process_can_be_added_to_a_container_with_user_and_time_namespaces() {
    let bundle = Bundle::new("sleep 100").with(|c| {
        crate::bundle::add_namespace(c, json!({"type": "user"}));
        crate::bundle::add_namespace(c, json!({"type": "time"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("owner");
    bundle.start();
    let out = bundle.exec(&["sh", "-c", "id -u; readlink /proc/self/ns/user /proc/self/ns/time; ps | wc -l"]);
    let inside =
        bundle.exec(&["sh", "-c", "for n in user time; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done"]);
    assert!(out.ok().starts_with("0\n"));
    let inside = inside.ok();
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!((lines[0], lines[2]), (lines[1], lines[3]), "{inside}");
}

#[test]
fn options_of_exec_change_user_directory_and_environment() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let words =
        ["--user", "5:6", "--cwd", "/bin", "--env", "A=b c", "-g", "9", "sh", "-c", "id -u; id -G; pwd; echo $A"];
    let mut all = vec!["exec"];
    all.extend(&words[..8]);
    all.push(&bundle.id);
    all.extend(&words[8..]);
    assert_eq!(bundle.call(&all).ok(), "5\n6 9\n/bin\nb c\n");
    assert_eq!(bundle.exec(&["sh", "-c", "exit 9"]).code, Some(9));
    bundle.exec(&["nonesuch"]).fails_with("exec: \"nonesuch\": executable file not found in $PATH");
}

#[test]
fn a_process_can_come_from_a_file_and_stay_in_the_background() {
    let bundle = Bundle::new("while ! [ -e /done ]; do sleep 0.05; done; cat /done");
    bundle.start();
    let process =
        json!({"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", "echo from exec > /done"], "cwd": "/"});
    let (file, pid) = (bundle.path().join("process.json"), bundle.path().join("pid"));
    std::fs::write(&file, process.to_string()).expect("written");
    let (file, pid_path) = (file.to_str().expect("UTF-8"), pid.to_str().expect("UTF-8"));
    bundle.call(&["exec", "--process", file, "--detach", "--pid-file", pid_path, &bundle.id]).ok();
    assert!(std::fs::read_to_string(&pid).expect("pid file").parse::<i32>().is_ok());
    eventually("output", || bundle.output() == "from exec\n");
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.call(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.exec(&["true"]).fails_with("paused");
    bundle.call(&["resume", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "running");
    bundle.exec(&["true"]).ok();
    bundle.call(&["pause", &bundle.id]).ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn limits_can_be_changed_while_it_runs() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let file = bundle.path().join("resources.json");
    std::fs::write(&file, json!({"pids": {"limit": 1}}).to_string()).expect("written");
    bundle.call(&["update", "--resources", file.to_str().expect("UTF-8"), &bundle.id]).ok();
    assert_ne!(bundle.exec(&["sh", "-c", "true & true & wait"]).code, Some(0), "no process can be added");
}

fn console_of(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("connection");
    let mut name = [0u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("message");
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.expect("a descriptor")
}

#[test]
fn a_terminal_is_handed_to_the_console_socket_and_resized() {
    let script = "tty; stty size; read line; echo got $line; stty size; stat -c %t:%T /dev/console | wc -l; \
        echo to console > /dev/console";
    let bundle = Bundle::new(script).with(|c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 12, "width": 34});
    });
    bundle.write_config();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let (path, socket) = (bundle.path().to_str().expect("UTF-8"), socket.to_str().expect("UTF-8"));
    bundle.call(&["create", "--bundle", path, &bundle.id]).fails_with("without setting console socket");
    let mut child = bundle.command(&["create", "--bundle", path, "--console-socket", socket, &bundle.id]);
    let mut child = child.spawn().expect("spawned");
    let mut console = std::fs::File::from(console_of(&listener));
    assert!(child.wait().expect("waited").success());
    bundle.call(&["start", &bundle.id]).ok();
    let mut seen = String::new();
    let mut buffer = [0u8; 256];
    while !seen.contains("12 34") {
        let n = console.read(&mut buffer).expect("read");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen}");
    let size = rustix::termios::Winsize { ws_row: 50, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&console, size).expect("resized");
    console.write_all(b"hello\n").expect("written");
    // EIO is the end.
    while let Ok(n @ 1..) = console.read(&mut buffer) {
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    for text in ["got hello", "50 60", "to console"] {
        assert!(seen.contains(text), "{text} in {seen}");
    }
}

#[test]
fn a_process_added_with_a_terminal_gets_one_of_the_containers() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let words = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        socket.to_str().expect("UTF-8"),
        &bundle.id,
        "sh",
        "-c",
        "tty; ps -o tty,comm",
    ];
    let mut child = bundle.command(&words).spawn().expect("spawned");
    let mut console = std::fs::File::from(console_of(&listener));
    assert!(child.wait().expect("waited").success());
    let (mut seen, mut buffer) = (String::new(), [0u8; 256]);
    while let Ok(n @ 1..) = console.read(&mut buffer) {
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen}");
}

#[test]
fn namespaces_of_another_container_are_joined_by_path() {
    let first = Bundle::new("sleep 100");
    first.start();
    let pid = first.state()["pid"].as_i64().expect("pid");
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid; hostname; ps | grep -c 'sleep 100'";
    let second = Bundle::new(script).with(|c| {
        for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("pid", "pid"), ("uts", "uts")] {
            crate::bundle::add_namespace(c, json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
        }
        c.as_object_mut().expect("object").remove("hostname");
    });
    let out = second.run().ok();
    let expected: Vec<String> = ["net", "ipc", "pid"]
        .map(|n| std::fs::read_link(format!("/proc/{pid}/ns/{n}")).expect("link").display().to_string())
        .to_vec();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..4], [&expected[0], &expected[1], &expected[2], "probe"], "{out}");
    // With a pid namespace that was there before, grep and the shell's own command line are seen as well.
    assert!(lines[4].parse::<u32>().expect("number") >= 1, "{out}");
}

#[test]
fn hooks_run_in_order_with_the_state_on_their_input() {
    let bundle = Bundle::new("echo program >> /log");
    let log = bundle.path().join("log");
    std::fs::write(&log, "").expect("file");
    let path = log.to_str().expect("UTF-8").to_owned();
    let hook = |name: &str, file: &str| {
        let script = format!(
            "read s; echo {name} $(echo $s | grep -o 'status\":\"[a-z]*' | cut -d: -f2 | tr -d '\"') >> {file}"
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let bundle = bundle.with(|c| {
        add_mount(c, "/log", "bind", &path, &["bind"]);
        c["hooks"] = json!({
            "prestart": hook("prestart", &path), "createRuntime": hook("createRuntime", &path),
            "createContainer": hook("createContainer", &path), "startContainer": hook("startContainer", "/log"),
            "poststart": hook("poststart", &path), "poststop": hook("poststop", &path),
        });
    });
    bundle.create().ok();
    let read = || std::fs::read_to_string(&log).expect("log");
    assert_eq!(read(), "prestart creating\ncreateRuntime creating\ncreateContainer creating\n");
    bundle.call(&["start", &bundle.id]).ok();
    eventually("end", || bundle.state()["status"] == "stopped");
    bundle.call(&["delete", &bundle.id]).ok();
    let all = read();
    // The program and poststart run side by side.
    assert!(all.contains("startContainer created\n") && all.contains("program\n"), "{all}");
    assert!(all.ends_with("poststop stopped\n"), "{all}");
}

#[test]
fn a_hook_that_fails_or_hangs_undoes_the_container() {
    for (script, text) in [("echo why >&2; exit 3", "exit status 3, output: why"), ("sleep 100", "timeout")] {
        let bundle = Bundle::new("true").with(|c| {
            c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 1}]});
        });
        bundle.run().fails_with("error running createRuntime hook #0");
        bundle.run().fails_with(text);
        assert_eq!(bundle.leftovers(), [""; 0]);
    }
}

#[test]
fn what_cannot_be_started_is_said_as_docker_clients_know_it_and_leaves_nothing() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 12] = [
        (|c| c["process"]["args"] = json!(["nonesuch"]), "exec: \"nonesuch\": executable file not found in $PATH"),
        (
            |c| c["process"]["args"] = json!(["/no/such"]),
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (|c| c["process"]["args"] = json!(["/etc"]), "exec: \"/etc\": is a directory"),
        (|c| c["process"]["args"] = json!(["/plain"]), "exec: \"/plain\": permission denied"),
        (|c| c["process"]["args"] = json!(["/broken"]), "exec /broken: exec format error"),
        (|c| c["process"]["args"] = json!([]), "process.args is empty"),
        (|c| c["process"]["cwd"] = json!("relative"), "Cwd must be an absolute path"),
        (
            |c| c["process"]["cwd"] = json!("/plain"),
            "chdir to cwd (\"/plain\") set in config.json failed: not a directory",
        ),
        (
            |c| add_mount(c, "/m", "bind", "/no/such/source", &["rbind"]),
            "error mounting \"/no/such/source\" to rootfs at \"/m\": no such file",
        ),
        (|c| add_mount(c, "/plain", "bind", "/etc", &["rbind"]), "not a directory"),
        (|c| c["process"]["apparmorProfile"] = json!("docker-default"), "apparmor"),
        (
            |c| c["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "pid"})),
            "duplicated namespace",
        ),
    ];
    for (change, text) in cases {
        let bundle = Bundle::new("true").with(change);
        std::fs::write(bundle.rootfs().join("plain"), "").expect("file");
        std::fs::write(bundle.rootfs().join("broken"), "no program").expect("file");
        std::fs::set_permissions(bundle.rootfs().join("broken"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("mode");
        bundle.run().fails_with(text);
        assert_eq!(bundle.leftovers(), [""; 0], "{text}");
    }
}

#[test]
fn errors_are_logged_as_json_for_the_caller() {
    let bundle = Bundle::new("true").with(|c| c["process"]["args"] = json!(["nonesuch"]));
    bundle.write_config();
    let log = bundle.path().join("log.json");
    let (log_path, path) = (log.to_str().expect("UTF-8"), bundle.path().to_str().expect("UTF-8"));
    let words = ["--log", log_path, "--log-format", "json", "create", "--bundle", path, &bundle.id];
    assert_ne!(bundle.call(&words).code, Some(0));
    let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&log).expect("log")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|m| m.contains("executable file not found in $PATH")), "{line}");
}

#[test]
fn a_file_handed_over_by_number_stays_open_inside() {
    let bundle = Bundle::new("cat <&3; ls /proc/self/fd | wc -l");
    bundle.write_config();
    let (ours, theirs) = UnixStream::pair().expect("pair");
    (&ours).write_all(b"through three\n").expect("written");
    ours.shutdown(std::net::Shutdown::Both).expect("shut");
    let command =
        bundle.command(&["run", "--preserve-fds", "1", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    let output = std::process::Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(OwnedFd::from(theirs))
        .output()
        .expect("runs");
    // 0, 1, 2, 3 and the folder that ls reads.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through three\n5\n");
}

#[test]
fn the_configuration_of_spec_runs() {
    let bundle = Bundle::new("");
    bundle.call(&["spec", "--bundle", bundle.path().to_str().expect("UTF-8")]).ok();
    let text = std::fs::read_to_string(bundle.path().join("config.json")).expect("written");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/hostname"]);
    let bundle = bundle.with(|c| *c = spec);
    assert_eq!(bundle.run().ok(), "wharf\n");
    let features: serde_json::Value = serde_json::from_str(&bundle.call(&["features"]).ok()).expect("JSON");
    assert_eq!(features["linux"]["namespaces"].as_array().map(Vec::len), Some(8));
}

#[test]
fn without_pivot_the_root_is_moved_and_the_host_is_not_seen() {
    let bundle = Bundle::new(
        "ls /; ls /../..; cat /proc/mounts | cut -d' ' -f2 | grep -c '^/$'; cat /proc/1/root/etc/hostname 2>&1; true",
    );
    bundle.write_config();
    let ran = bundle.call(&["run", "--no-pivot", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    let out = ran.ok();
    let listing = "bin\ndev\netc\nproc\nsys\n";
    assert!(out.starts_with(&format!("{listing}{listing}1\n")), "{out}");
    assert!(out.contains("No such file"), "{out}");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_terminal_in_the_foreground_is_relayed() {
    let bundle = Bundle::new("tty; read line; echo got $line; exit 4").with(|c| c["process"]["terminal"] = json!(true));
    bundle.write_config();
    let path = bundle.path().to_str().expect("UTF-8");
    let mut command = bundle.command(&["run", "--bundle", path, &bundle.id]);
    let mut child =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("spawned");
    child.stdin.take().expect("stdin").write_all(b"hello\n").expect("written");
    let mut out = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut out).expect("read");
    assert_eq!(child.wait().expect("waited").code(), Some(4));
    assert!(out.contains("/dev/pts/0\r\n") && out.contains("got hello\r\n"), "{out}");
}

#[test]
fn signals_sent_to_the_runtime_reach_the_process() {
    let bundle = Bundle::new("trap 'echo caught; exit 6' TERM; echo ready > /ready; while :; do sleep 0.05; done");
    bundle.write_config();
    let path = bundle.path().to_str().expect("UTF-8");
    let mut command = bundle.command(&["run", "--bundle", path, &bundle.id]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("spawned");
    eventually("the trap", || bundle.rootfs().join("ready").exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    let mut out = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut out).expect("read");
    assert_eq!((child.wait().expect("waited").code(), out.as_str()), (Some(6), "caught\n"));
}
