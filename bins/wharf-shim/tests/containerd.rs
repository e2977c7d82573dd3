//! `containerd-shim-wharf-v2` as containerd uses it; the test is containerd.

#![allow(missing_docs)]

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use wharf_proto_task::events::{Event, ForwardRequest, TaskCreate, TaskDelete, TaskExit, TaskStart};
use wharf_proto_task::{Any, Empty, Frame, FrameKind, HEADER_LEN, Message, Request, Response, metrics, task};

const PATIENCE: Duration = Duration::from_secs(20);

struct Containerd {
    folder: tempfile::TempDir,
    program: PathBuf,
    id: String,
    events: Receiver<(String, Vec<u8>)>,
}

/// Reads one frame.
fn frame(stream: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut bytes = vec![0u8; HEADER_LEN];
    stream.read_exact(&mut bytes).ok()?;
    let header = wharf_proto_task::Header::decode(bytes.as_slice().try_into().expect("whole")).expect("a frame");
    let mut payload = vec![0u8; header.len as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((header.stream, payload))
}

impl Containerd {
    fn new(script: &str, terminal: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-ctrd-").tempdir().expect("folder");
        let bin = folder.path().join("bundle/rootfs/bin");
        std::fs::create_dir_all(&bin).expect("folder");
        // By another process: a child forked by another test's thread would hold our descriptor open for writing (ETXTBSY).
        let copied = Command::new("cp").arg("/bin/busybox").arg(bin.join("busybox")).status().expect("cp runs");
        assert!(copied.success(), "install busybox-static");
        for applet in ["sh", "echo", "cat", "sleep", "tty"] {
            symlink("busybox", bin.join(applet)).expect("link");
        }
        let program = folder.path().join("containerd-shim-wharf-v2");
        symlink(env!("CARGO_BIN_EXE_wharf-shim"), &program).expect("link");
        let id = format!("wharf-ctrd-{}-{:p}", std::process::id(), &raw const folder);
        let mount = |at: &str, kind: &str| json!({"destination": at, "type": kind, "source": kind, "options": []});
        let config = json!({
            "ociVersion": "1.2.0",
            "process": {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/dev/pts", "devpts")],
            "linux": {"cgroupsPath": format!("/{id}"), "namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        std::fs::write(folder.path().join("bundle/config.json"), config.to_string()).expect("written");
        let listener = UnixListener::bind(folder.path().join("events.sock")).expect("listening");
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                while let Some((number, payload)) = frame(&mut stream) {
                    let request = Request::decode(payload.as_slice()).expect("a request");
                    assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
                    let forward = ForwardRequest::decode(request.payload.as_slice()).expect("an event");
                    let envelope = forward.envelope.expect("an envelope");
                    assert_eq!(envelope.namespace, "testing");
                    let event = envelope.event.expect("an event");
                    if tell.send((envelope.topic, event.value)).is_err() {
                        return;
                    }
                    let mut answer = Vec::new();
                    let response = Response { status: None, payload: Empty {}.encode_to_vec() };
                    Frame::put(&mut answer, number, FrameKind::Response, &response).expect("small");
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Self { folder, program, id, events }
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn program(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args([
            "-namespace",
            "testing",
            "-address",
            "/none.sock",
            "-publish-binary",
            "/bin/true",
            "-id",
            &self.id,
        ]);
        command.args(words).current_dir(self.bundle()).stdin(Stdio::null());
        command.env("TTRPC_ADDRESS", self.folder.path().join("events.sock")).output().expect("runs")
    }

    fn start(&self) -> Shim {
        let ran = self.program(&["start"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let address = String::from_utf8(ran.stdout).expect("UTF-8");
        let path = PathBuf::from(address.strip_prefix("unix://").expect("an address"));
        let stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Shim { stream, path, id: self.id.clone(), next: 1 }
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
        path
    }

    #[track_caller]
    fn event<E: Event + Default>(&self) -> E {
        let (topic, value) = self.events.recv_timeout(PATIENCE).expect("an event");
        assert_eq!(topic, E::TOPIC);
        E::decode(value.as_slice()).expect("its message")
    }
}

struct Shim {
    stream: UnixStream,
    path: PathBuf,
    id: String,
    next: u32,
}

impl Shim {
    fn call<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<A, String> {
        let request = Request {
            service: task::SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        let mut bytes = Vec::new();
        Frame::put(&mut bytes, self.next, FrameKind::Request, &request).expect("small");
        self.next += 2;
        self.stream.write_all(&bytes).expect("sent");
        let (_, payload) = frame(&mut self.stream).expect("an answer");
        let response = Response::decode(payload.as_slice()).expect("a response");
        match response.status.filter(|s| s.code != 0) {
            Some(status) => Err(status.message),
            None => Ok(A::decode(response.payload.as_slice()).expect("the answer")),
        }
    }

    fn create(&mut self, stdin: &Path, stdout: &Path, stderr: &Path, terminal: bool) -> Result<u32, String> {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            terminal,
            stdin: text(stdin),
            stdout: text(stdout),
            stderr: text(stderr),
            ..task::CreateTaskRequest::default()
        };
        self.call::<task::CreateTaskResponse>("Create", &request).map(|r| r.pid)
    }

    fn begin(&mut self) -> u32 {
        let request = task::StartRequest { id: self.id.clone(), exec_id: String::new() };
        self.call::<task::StartResponse>("Start", &request).expect("started").pid
    }

    fn wait(&mut self) -> u32 {
        let request = task::WaitRequest { id: self.id.clone(), exec_id: String::new() };
        self.call::<task::WaitResponse>("Wait", &request).expect("waited").exit_status
    }

    fn end(mut self) {
        let request = task::DeleteRequest { id: self.id.clone(), exec_id: String::new() };
        self.call::<task::DeleteResponse>("Delete", &request).expect("deleted");
        let request = task::ShutdownRequest { id: self.id.clone(), now: true };
        self.call::<Empty>("Shutdown", &request).expect("shut down");
        // The end of the connection is the end of the shim.
        assert!(frame(&mut self.stream).is_none());
        assert!(!self.path.exists(), "its socket went with it");
    }
}

#[test]
fn containerd_gets_streams_events_and_statistics() {
    let containerd = Containerd::new("cat; echo problem >&2; exit 7", false);
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| containerd.fifo(name));
    let mut shim = containerd.start();
    let pid = shim.create(&stdin, &stdout, &stderr, false).expect("created");
    assert_eq!(containerd.event::<TaskCreate>().pid, pid);
    // As containerd's client: both outputs are read until their end, the input is written and closed.
    let read = |path: PathBuf| std::thread::spawn(move || std::fs::read_to_string(path).expect("read"));
    let (out, err) = (read(stdout), read(stderr));
    assert_eq!(shim.begin(), pid);
    assert_eq!(containerd.event::<TaskStart>().pid, pid);
    let stats: task::StatsResponse =
        shim.call("Stats", &task::StatsRequest { id: shim.id.clone() }).expect("statistics");
    let any: Any = stats.stats.expect("statistics");
    assert!([metrics::V1_TYPE, metrics::V2_TYPE].contains(&any.type_url.as_str()), "{}", any.type_url);
    let long = "0123456789abcdef".repeat(20_000);
    std::fs::OpenOptions::new().write(true).open(&stdin).expect("opened").write_all(long.as_bytes()).expect("written");
    assert_eq!(shim.wait(), 7);
    assert_eq!((out.join().expect("read"), err.join().expect("read")), (long, "problem\n".to_owned()));
    let exit = containerd.event::<TaskExit>();
    assert_eq!((exit.id.as_str(), exit.pid, exit.exit_status), (containerd.id.as_str(), pid, 7));
    shim.end();
    assert_eq!(containerd.event::<TaskDelete>().exit_status, 7);
}

#[test]
fn a_terminal_goes_through_one_fifo() {
    let containerd = Containerd::new("tty; echo to the terminal", true);
    let stdout = containerd.fifo("out");
    let mut shim = containerd.start();
    shim.create(Path::new(""), &stdout, Path::new(""), true).expect("created");
    let out = std::thread::spawn(move || std::fs::read_to_string(stdout).expect("read"));
    shim.begin();
    assert_eq!(shim.wait(), 0);
    assert_eq!(out.join().expect("read"), "/dev/pts/0\r\nto the terminal\r\n");
    shim.end();
}

#[test]
fn cve_2026_53488_streams_that_name_a_program_are_refused_and_nothing_is_left() {
    let containerd = Containerd::new("true", false);
    let mut shim = containerd.start();
    let marker = containerd.folder.path().join("ran");
    let program = format!("binary:///usr/bin/touch?{}", marker.display());
    shim.create(Path::new(""), Path::new(&program), Path::new(""), false).expect_err("refused");
    assert!(!marker.exists());
    let id = shim.id.clone();
    let _ = shim.call::<Empty>("Shutdown", &task::ShutdownRequest { id, now: true });
}

#[test]
fn cve_2020_15257_the_socket_is_a_file_that_only_its_owner_reaches() {
    use std::os::unix::fs::PermissionsExt;
    let containerd = Containerd::new("true", false);
    let mut shim = containerd.start();
    let mode = |path: &Path| std::fs::metadata(path).expect("a file, no abstract name").permissions().mode() & 0o777;
    assert_eq!(mode(&shim.path), 0o600);
    assert_eq!(mode(shim.path.parent().expect("folder")) & 0o022, 0, "nobody else makes sockets there");
    let id = shim.id.clone();
    shim.call::<Empty>("Shutdown", &task::ShutdownRequest { id, now: true }).expect("shut down");
}

#[test]
fn what_a_killed_shim_left_is_cleaned_up_by_its_program() {
    let containerd = Containerd::new("sleep 1000", false);
    let mut shim = containerd.start();
    let pid = shim.create(Path::new(""), Path::new(""), Path::new(""), false).expect("created");
    shim.begin();
    let own = std::fs::read_to_string(containerd.bundle().join("shim.pid")).expect("number");
    let own = rustix::process::Pid::from_raw(own.parse().expect("number")).expect("number");
    rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("killed");
    assert!(frame(&mut shim.stream).is_none());
    let ran = containerd.program(&["-bundle", containerd.bundle().to_str().expect("UTF-8"), "delete"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let answer = task::DeleteResponse::decode(ran.stdout.as_slice()).expect("an answer");
    assert_eq!(answer.exit_status, 137);
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "the container lives");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!shim.path.exists());
    assert!(!Path::new("/sys/fs/cgroup/pids").join(&containerd.id).exists());
}
