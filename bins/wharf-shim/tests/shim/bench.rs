//! A place to run containers in: a root file system of busybox, task folders, log folders.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use wharf_logs::{Config, Form, Progress, ReadOptions, Reader};
use wharf_task::{AttachRequest, Attached, CreateRequest, Exit, Relay, Shim, Shims, SpawnRequest, Stdin};
use wharf_types::{ContainerId, ExecId, Mount};

/// Nothing in these tests takes longer, however busy the host.
pub const LIMIT: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

fn unique() -> [u8; 32] {
    let mut bytes = [0; 32];
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    bytes[4..8].copy_from_slice(&count.to_be_bytes());
    bytes
}

pub struct Bench {
    pub shims: Shims,
    _folder: Option<tempfile::TempDir>,
    path: PathBuf,
    rootfs: PathBuf,
}

/// A test that fails leaves no shim, and no container of one.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let own = self.path.display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let (pid, folder) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            let words = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            if words.starts_with("wharf-shim\0") && words.contains(&own) {
                let children = std::fs::read_to_string(folder.join(format!("task/{pid}/children"))).unwrap_or_default();
                for pid in std::iter::once(pid.as_str()).chain(children.split_whitespace()) {
                    if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
            }
        }
    }
}

/// A container with its log.
pub struct Task {
    pub id: ContainerId,
    pub shim: Shim,
    pub log: Config,
    pub log_dir: PathBuf,
}

pub const ALL: AttachRequest =
    AttachRequest { stdin: false, stdout: true, stderr: true, from_start: false, whole_line: false };
pub const WITH_STDIN: AttachRequest = AttachRequest { stdin: true, ..ALL };

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::Builder::new().prefix("wharf-shim-").tempdir().expect("folder");
        let path = folder.path().to_owned();
        let mut bench = Bench::inside(&path);
        bench._folder = Some(folder);
        bench
    }

    /// In a folder that another process removes.
    pub fn inside(folder: &Path) -> Bench {
        let rootfs = folder.join("image");
        for dir in ["bin", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(rootfs.join(dir)).expect("rootfs");
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
        for name in ["sh", "cat", "sleep", "head", "tr", "true", "stty", "yes", "echo", "seq", "dd"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).expect("applet");
        }
        let shims = Shims::new(env!("CARGO_BIN_EXE_wharf-shim").into(), folder.join("run"));
        Bench { shims, _folder: None, path: folder.to_owned(), rootfs }
    }

    /// Spawns a shim with everything prepared for Create.
    pub fn spawn(
        &self,
        script: &str,
        log: &[(&str, &str)],
        limits: serde_json::Value,
        terminal: bool,
        kill_at: Option<&str>,
    ) -> Task {
        self.spawn_with(script, log, limits, terminal, kill_at, Vec::new())
    }

    fn spawn_with(
        &self,
        script: &str,
        log: &[(&str, &str)],
        limits: serde_json::Value,
        terminal: bool,
        kill_at: Option<&str>,
        relays: Vec<Relay>,
    ) -> Task {
        let driver = log.iter().find(|(k, _)| *k == "driver").map_or("json-file", |(_, v)| v);
        let log = Config::parse(driver, log.iter().copied().filter(|(k, _)| *k != "driver")).expect("valid");
        let id = ContainerId::from_bytes(unique());
        let log_dir = self.path.join(id.short());
        std::fs::create_dir_all(&log_dir).expect("log folder");
        let dir = std::fs::File::open(&log_dir).expect("log folder");
        let folder = self.shims.prepare(&id).expect("prepared");
        let json = config(&id, script, terminal, limits);
        folder.write_config(&serde_json::to_vec(&json).expect("JSON")).expect("written");
        let request = SpawnRequest {
            folder,
            log_dir: dir.as_fd(),
            log: &log,
            netns: None,
            hold: Vec::new(),
            relays,
            runtime: None,
        };
        let shims = kill_at.map_or_else(|| self.shims.clone(), |point| self.shims.clone().aimed_at(point));
        let shim = shims.spawn(request).expect("spawned");
        Task { id, shim, log, log_dir }
    }

    pub fn with_rootfs(&self, request: CreateRequest) -> CreateRequest {
        let source = self.rootfs.to_string_lossy().into_owned();
        let options = vec!["rbind".to_owned(), "rw".to_owned()];
        let rootfs = vec![Mount { kind: "bind".to_owned(), source, target: String::new(), options }];
        CreateRequest { rootfs, ..request }
    }

    /// Spawns a shim and creates a container that runs a shell script.
    pub async fn create(&self, script: &str, log: &[(&str, &str)], request: CreateRequest) -> Task {
        let task = self.spawn(script, log, serde_json::json!({}), request.terminal, None);
        task.shim.create(self.with_rootfs(request)).await.expect("created");
        task
    }

    /// Creates and starts with a relay.
    pub async fn run_with_relay(&self, script: &str, relay: Relay) -> Task {
        let task = self.spawn_with(script, &[], serde_json::json!({}), false, None, vec![relay]);
        task.shim.create(self.with_rootfs(CreateRequest::default())).await.expect("created");
        task.shim.start(None).await.expect("started");
        task
    }

    /// The same with resource limits.
    pub async fn create_limited(&self, script: &str, limits: serde_json::Value, request: CreateRequest) -> Task {
        let task = self.spawn(script, &[], limits, request.terminal, None);
        task.shim.create(self.with_rootfs(request)).await.expect("created");
        task
    }

    /// Creates and starts.
    pub async fn run(&self, script: &str, log: &[(&str, &str)]) -> Task {
        let task = self.create(script, log, CreateRequest::default()).await;
        task.shim.start(None).await.expect("started");
        task
    }

    /// Releases what a test ran.
    pub async fn finish(&self, task: Task) {
        task.shim.delete(None).await.expect("deleted");
        task.shim.shutdown().await.expect("shut down");
        within(task.shim.gone()).await;
        self.shims.remove(&task.id).expect("removed");
    }
}

impl Task {
    pub async fn wait(&self) -> Exit {
        within(self.shim.wait(None)).await.expect("waited")
    }

    /// The log's exact bytes.
    pub fn log(&self) -> Vec<u8> {
        let dir = std::fs::File::open(&self.log_dir).expect("log folder");
        let options = ReadOptions {
            since: None,
            until: None,
            tail: None,
            follow: false,
            stdout: true,
            stderr: true,
            timestamps: false,
            details: false,
            form: Form::Raw,
            before: None,
        };
        let mut reader = Reader::open(dir.as_fd(), self.id.as_str(), &self.log, options).expect("readable");
        let mut out = Vec::new();
        while reader.read(&mut out).expect("read") != Progress::End {}
        out
    }

    /// What the engine does with a lost container: ends its processes and removes its cgroup.
    pub fn clear_away(&self) {
        let layout = wharf_cgroup::Layout::detect().expect("cgroups");
        let Ok(cgroup) = wharf_cgroup::Cgroup::open(&layout, &cgroup_path(&self.id)) else {
            // Not made yet when the shim was killed.
            return;
        };
        cgroup.kill_all().expect("killed");
        cgroup.delete(std::time::Instant::now() + LIMIT).expect("deleted");
    }

    pub async fn attach(&self, request: AttachRequest) -> Attached {
        within(self.shim.attach(None, request)).await.expect("attached")
    }

    /// Runs an exec to its end with its output and exit code.
    pub async fn exec(&self, script: &str) -> (Vec<u8>, u32) {
        let exec = self.prepare_exec(script, Stdin::Null).await;
        let mut attached = within(self.shim.attach(Some(&exec), ALL)).await.expect("attached");
        self.shim.start(Some(&exec)).await.expect("started");
        let out = read_frames(&mut attached).await;
        let exit = within(self.shim.wait(Some(&exec))).await.expect("waited");
        self.shim.delete(Some(&exec)).await.expect("deleted");
        (out, exit.status)
    }

    pub async fn prepare_exec(&self, script: &str, stdin: Stdin) -> ExecId {
        let exec = ExecId::from_bytes(unique());
        let process = serde_json::to_vec(&process(script, false)).expect("JSON");
        let request = wharf_task::ExecRequest { exec: exec.clone(), process, terminal: false, stdin };
        self.shim.exec(request).await.expect("prepared");
        exec
    }
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("in time")
}

/// Reads stdcopy frames to the end and joins their contents.
pub async fn read_frames(attached: &mut Attached) -> Vec<u8> {
    let mut raw = Vec::new();
    within(attached.stream.read_to_end(&mut raw)).await.expect("read");
    unframe(&raw)
}

pub fn unframe(mut raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((head, rest)) = raw.split_first_chunk::<8>() {
        assert!(matches!(head[0], 1 | 2) && head[1..4] == [0, 0, 0], "frame header {head:?}");
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        out.extend_from_slice(&rest[..len]);
        raw = &rest[len..];
    }
    assert!(raw.is_empty(), "torn frame");
    out
}

fn process(script: &str, terminal: bool) -> serde_json::Value {
    serde_json::json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

fn config(id: &ContainerId, script: &str, terminal: bool, limits: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": process(script, terminal),
        "hostname": "shim",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        ],
        "linux": {
            "cgroupsPath": cgroup_path(id),
            "resources": limits,
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    })
}

/// One level only: a parent group would be left over.
fn cgroup_path(id: &ContainerId) -> String {
    format!("/wharf-shim-test-{}", id.as_str().trim_end_matches('0'))
}

/// The value of a field of `/proc/<pid>/status` or `smaps_rollup`, in the file's unit.
pub fn proc_field(path: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).expect("there");
    let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("field");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("number")
}
