//! `--systemd-cgroup`, with a manager of the test's own: it speaks D-Bus as systemd's private socket does, and makes the group that a
//! scope is. That real ones take the same requests was seen with systemd 252.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use crate::bundle::{Bundle, is_ours};

/// A method call as it came.
struct Call {
    serial: u32,
    member: String,
    body: Vec<u8>,
}

/// Reads one call.
fn receive(stream: &mut impl Read) -> Option<Call> {
    let mut head = [0u8; 16];
    stream.read_exact(&mut head).ok()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let mut fields = vec![0u8; word(12).next_multiple_of(8)];
    stream.read_exact(&mut fields).ok()?;
    let mut body = vec![0u8; word(4)];
    stream.read_exact(&mut body).ok()?;
    let members = ["StartTransientUnit", "StopUnit", "ResetFailedUnit", "SetUnitProperties"];
    let has = |name: &&&str| fields.windows(name.len()).any(|w| w == name.as_bytes());
    let member = members.iter().find(has).expect("a method that systemd has");
    Some(Call { serial: word(8) as u32, member: (*member).to_owned(), body })
}

/// An answer (2) or a signal (4) with strings for its body.
fn message(kind: u8, answers: u32, member: &str, signature: &str, numbers: usize, strings: &[&str]) -> Vec<u8> {
    let align = |bytes: &mut Vec<u8>, to: usize| bytes.resize(bytes.len().next_multiple_of(to), 0);
    let put = |bytes: &mut Vec<u8>, text: &str| {
        align(bytes, 4);
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    let mut body = Vec::new();
    body.resize(4 * numbers, 7);
    strings.iter().for_each(|text| put(&mut body, text));
    let mut fields = Vec::new();
    if kind == 2 {
        fields.extend([5, 1, b'u', 0]);
        fields.extend(answers.to_le_bytes());
    } else {
        fields.extend([3, 1, b's', 0]);
        put(&mut fields, member);
    }
    align(&mut fields, 8);
    fields.extend([8, 1, b'g', 0, signature.len() as u8]);
    fields.extend(signature.as_bytes());
    fields.push(0);
    let mut all = vec![b'l', kind, 0, 1];
    all.extend((body.len() as u32).to_le_bytes());
    all.extend(99u32.to_le_bytes());
    all.extend((fields.len() as u32).to_le_bytes());
    all.extend(&fields);
    align(&mut all, 8);
    all.extend(body);
    all
}

/// The first string of a body.
fn unit_of(body: &[u8]) -> String {
    let length = u32::from_le_bytes(body[..4].try_into().expect("length")) as usize;
    String::from_utf8(body[4..4 + length].to_vec()).expect("UTF-8")
}

/// The one number of the property `PIDs`.
fn pid_of(body: &[u8]) -> u32 {
    let name = b"PIDs\0\x02au\0";
    let at = body.windows(name.len()).position(|w| w == name).expect("PIDs") + name.len();
    let at = at.next_multiple_of(4) + 4;
    u32::from_le_bytes(body[at..at + 4].try_into().expect("a number"))
}

/// Where this host's groups of systemd are.
fn hierarchy() -> PathBuf {
    let named = Path::new("/sys/fs/cgroup/systemd");
    if named.exists() { named.to_owned() } else { PathBuf::from("/sys/fs/cgroup") }
}

fn serve(stream: &UnixStream, tell: &Sender<String>) {
    let mut stream = stream;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("read");
    assert!(line.starts_with("\0AUTH EXTERNAL 30"), "user 0 in hexadecimal: {line:?}");
    stream.write_all(b"OK 0123\r\n").expect("written");
    line.clear();
    reader.read_line(&mut line).expect("read");
    assert_eq!(line, "BEGIN\r\n");
    while let Some(call) = receive(&mut reader) {
        let unit = unit_of(&call.body);
        let _ = tell.send(format!("{} {unit}", call.member));
        if call.member == "StartTransientUnit" {
            let folder = hierarchy().join("wharf-test.slice").join(&unit);
            std::fs::create_dir_all(&folder).expect("group");
            std::fs::write(folder.join("cgroup.procs"), pid_of(&call.body).to_string()).expect("moved");
        }
        let job = "/org/freedesktop/systemd1/job/7";
        if matches!(call.member.as_str(), "StartTransientUnit" | "StopUnit") {
            stream.write_all(&message(2, call.serial, "", "o", 0, &[job])).expect("written");
            let words = [job, unit.as_str(), "done"];
            stream.write_all(&message(4, 0, "JobRemoved", "uoss", 1, &words)).expect("written");
        } else {
            stream.write_all(&message(2, call.serial, "", "", 0, &[])).expect("written");
        }
    }
}

fn manager(socket: &Path) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("listening");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(&stream, &tell);
        }
    });
    told
}

#[test]
fn a_scope_is_asked_for_used_changed_and_ended() {
    if !is_ours() {
        return;
    }
    let bundle = Bundle::new("sleep 1000");
    let unit = format!("wharf-{}.scope", bundle.id);
    let path = format!("wharf-test.slice:wharf:{}", bundle.id);
    let bundle = bundle.with(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"]["pids"] = json!({"limit": 44});
    });
    bundle.write_config();
    let socket = bundle.path().join("manager.sock");
    let told = manager(&socket);
    // /run of its own, in which systemd's socket is ours.
    let call = |words: &str| {
        let place = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd && ln -s \"$1\" /run/systemd/private && ";
        let line = format!("{place} exec \"$2\" --root \"$3/state\" --systemd-cgroup {words}");
        let output = bundle.path().join("said");
        let file = std::fs::File::create(&output).expect("file");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &line, "sh"]);
        command.arg(&socket).arg(&bundle.runtime).arg(bundle.path()).stdin(Stdio::null());
        let status = command.stdout(file.try_clone().expect("file")).stderr(file).status().expect("ran");
        let said = std::fs::read_to_string(&output).expect("read");
        assert!(status.success(), "{words}: {said}");
        said
    };
    call(&format!("run --detach --bundle {} {}", bundle.path().display(), bundle.id));
    assert_eq!(told.recv().expect("told"), format!("StartTransientUnit {unit}"));
    let pid = bundle.state()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
    assert!(groups.lines().all(|l| l.ends_with(&format!("/wharf-test.slice/{unit}"))), "{groups}");
    let procs = std::fs::read_to_string(hierarchy().join("wharf-test.slice").join(&unit).join("cgroup.procs"));
    assert_eq!(procs.expect("group").trim(), pid, "the placeholder is gone");
    call(&format!("update --pids-limit 55 {}", bundle.id));
    assert_eq!(told.recv().expect("told"), format!("SetUnitProperties {unit}"));
    call(&format!("delete --force {}", bundle.id));
    assert_eq!(told.recv().expect("told"), format!("StopUnit {unit}"));
    assert!(!hierarchy().join("wharf-test.slice").join(&unit).exists());
    for place in std::fs::read_dir("/sys/fs/cgroup").expect("hierarchies").flatten() {
        let _ = std::fs::remove_dir(place.path().join("wharf-test.slice"));
    }
    let _ = std::fs::remove_dir("/sys/fs/cgroup/wharf-test.slice");
}

#[test]
fn without_systemd_the_reason_is_told_and_nothing_is_left() {
    if !is_ours() || Path::new("/run/systemd/private").exists() {
        return;
    }
    let bundle = Bundle::new("true").with(|c| c["linux"]["cgroupsPath"] = json!("system.slice:wharf:none"));
    bundle.write_config();
    let dir = bundle.path().to_str().expect("UTF-8");
    let mut command = Command::new(&bundle.runtime);
    command.arg("--root").arg(bundle.path().join("state")).args([
        "--systemd-cgroup",
        "run",
        "--bundle",
        dir,
        &bundle.id,
    ]);
    let output = command.stdin(Stdio::null()).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no systemd runs here"), "{output:?}");
    assert_eq!(bundle.leftovers(), [""; 0]);
}
