//! A bundle with a root file system of busybox, run by the runtime under test.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "mount", "env", "true", "false", "sleep", "ps", "grep", "stat", "hostname", "ip", "touch",
    "mkdir", "echo", "readlink", "pwd", "chmod", "wc", "tty", "stty", "kill", "dd", "mknod", "nice", "head", "tr",
    "cut", "ln", "rm",
];

pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub id: String,
    pub config: Value,
    pub runtime: PathBuf,
}

/// What a command gave.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts success and returns what was printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "out {:?}, err {:?}", self.out, self.err);
        self.out
    }

    /// Asserts failure with this text.
    #[track_caller]
    pub fn fails_with(self, text: &str) {
        assert_ne!(self.code, Some(0), "out {:?}", self.out);
        // A log line quotes the message.
        let said = self.err.replace("\\\"", "\"").replace("\\\\", "\\");
        assert!(said.contains(text), "{text:?} not in {said:?}");
    }
}

/// Copies a program by a process of its own: a child that another test's thread forks meanwhile would hold our descriptor open for writing, and
/// executing the copy would fail with ETXTBSY.
pub fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().expect("cp runs").success());
}

/// The runtime under test.
pub fn runtime() -> PathBuf {
    std::env::var_os("WHARF_RUNTIME").map_or_else(|| testkit::binaries().join("wharf-runtime"), PathBuf::from)
}

/// Whether it is ours: for what is beyond the specification, such as this runtime's own attack surface.
pub fn is_ours() -> bool {
    runtime().file_name().is_some_and(|name| name == "wharf-runtime")
}

/// Whether groups are asked of systemd, in the virtual machine that has one.
pub fn by_systemd() -> bool {
    std::env::var_os("WHARF_SYSTEMD").is_some()
}

impl Bundle {
    /// A bundle with the namespaces and mounts of a Docker container that runs `script`.
    pub fn new(script: &str) -> Self {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "install busybox-static: its /bin/busybox is the root file system");
        let dir = tempfile::Builder::new().prefix("wharf-runtime-test-").tempdir().expect("folder");
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("folder");
        std::fs::create_dir_all(dir.path().join("rootfs/etc")).expect("folder");
        copy(busybox, &bin.join("busybox"));
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).expect("link");
        }
        // So that users who are not root can enter.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        let id = format!("wharf-rt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = runtime();
        let mut config = config(&id, script);
        if by_systemd() {
            config["linux"]["cgroupsPath"] = json!(format!("system.slice:wharf:{id}"));
        }
        Self { dir, id, config, runtime }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write_config(&self) {
        let text = serde_json::to_vec(&self.config).expect("JSON");
        std::fs::write(self.dir.path().join("config.json"), text).expect("written");
    }

    /// The command with these words after the global options.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.dir.path().join("state")).stdin(Stdio::null());
        if by_systemd() {
            command.arg("--systemd-cgroup");
        }
        command.args(words);
        command
    }

    pub fn call(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().expect("runtime runs"))
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Ran {
        self.write_config();
        let bundle = self.dir.path().to_str().expect("UTF-8");
        self.call(&["run", "--bundle", bundle, &self.id])
    }

    /// `create`, with output into the file `output` of the bundle.
    pub fn create(&self) -> Ran {
        self.write_config();
        let bundle = self.dir.path().to_str().expect("UTF-8");
        let output = std::fs::File::create(self.dir.path().join("output")).expect("file");
        let mut command = self.command(&["create", "--bundle", bundle, &self.id]);
        let errors = self.dir.path().join("errors");
        command.stdout(output).stderr(std::fs::File::create(&errors).expect("file"));
        let status = command.status().expect("runtime runs");
        Ran { code: status.code(), out: String::new(), err: std::fs::read_to_string(errors).expect("read") }
    }

    /// Creates and starts.
    pub fn start(&self) {
        self.create().ok();
        self.call(&["start", &self.id]).ok();
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).ok()).expect("JSON")
    }

    pub fn exec(&self, words: &[&str]) -> Ran {
        let mut all = vec!["exec", self.id.as_str()];
        all.extend(words);
        self.call(&all)
    }

    /// What the container has written so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).expect("read")
    }

    /// Whether the container left a folder or a cgroup.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.dir.path().join("state").join(&self.id).exists() {
            left.push("state".to_owned());
        }
        for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
            let group = Path::new(place).join(&self.id);
            // crun 1.28 leaves its folder of a hybrid host's second hierarchy.
            if place.ends_with("unified") && self.runtime.ends_with("crun") {
                for inner in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_dir(inner.path());
                }
                let _ = std::fs::remove_dir(&group);
                continue;
            }
            if group.exists() {
                left.push(group.display().to_string());
            }
        }
        left
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.dir.path().join("state").join(&self.id).exists() {
            let _ = self.call(&["delete", "--force", &self.id]);
        }
    }
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn config(id: &str, script: &str) -> Value {
    let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "rootfs"},
        "hostname": "probe",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/acpi", "/not/there"],
            "readonlyPaths": ["/proc/sys", "/proc/irq", "/not/there"],
        },
    })
}

/// Adds a mount.
pub fn add_mount(config: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
    config["mounts"].as_array_mut().expect("list").push(mount);
}

/// Adds a namespace.
pub fn add_namespace(config: &mut Value, namespace: Value) {
    let list = config["linux"]["namespaces"].as_array_mut().expect("list");
    list.retain(|n| n["type"] != namespace["type"]);
    list.push(namespace);
}
