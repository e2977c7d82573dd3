//! The library as the shim uses it: root file systems mounted from parts inside the container's namespace, a network
//! namespace handed over, the gate opened by the creator, processes added. One thread, so no test harness.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_oci::runtime::{Process, Spec};
use wharf_runtime::{Container, CreateRequest, ExecRequest, Gate, Stdio, create};
use wharf_sys::clone::{Cloned, clone3, exit_now, flags};
use wharf_types::{Failure, Mount, Signal, Stage};

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("an overlay is mounted inside only and its upper folder gets what is written", an_overlay_is_mounted_inside_only),
    ("more layers than mount(2) takes as text are mounted", more_layers_than_a_page_are_mounted),
    ("parts can be bound below the root", parts_can_be_bound_below_the_root),
    ("an overlay works in a user namespace", an_overlay_works_in_a_user_namespace),
    ("a network namespace is joined by descriptor", a_network_namespace_is_joined_by_descriptor),
    ("a user namespace is joined by path with a new pid namespace", a_user_namespace_is_joined_by_path),
    ("failures name stage and error and leave nothing", failures_name_stage_and_error),
    ("execve errors come from start", execve_errors_come_from_start),
    ("kill, pids, pause and delete work on what was created", kill_pids_pause_and_delete),
    ("a process is added while the first one waits at the gate", a_process_is_added_before_start),
    ("the caller stays in its own namespaces and keeps its descriptors", the_caller_stays_where_it_is),
];

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    for (name, case) in CASES {
        if wanted.as_ref().is_none_or(|w| name.contains(w.as_str())) {
            let begun = Instant::now();
            case();
            println!("test {name} ... ok ({:?})", begun.elapsed());
        }
    }
}

struct Scene {
    dir: tempfile::TempDir,
    id: String,
    spec: Spec,
}

const CONFIG: &str = r#"{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"args":["/bin/true"],"env":["PATH=/bin"],"cwd":"/",
  "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}},"root":{"path":"rootfs"},
  "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
    {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]},
    {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666"]}],
  "linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"}]}}"#;

impl Scene {
    /// A bundle with an empty `rootfs` and a layer of busybox.
    fn new(script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("wharf-runtime-lib-").tempdir().expect("folder");
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        let bin = dir.path().join("base/bin");
        std::fs::create_dir_all(&bin).expect("folder");
        for folder in ["rootfs", "upper", "work"] {
            std::fs::create_dir(dir.path().join(folder)).expect("folder");
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("install busybox-static");
        for applet in ["sh", "cat", "ls", "sleep", "readlink", "grep", "true", "id", "touch", "echo", "ps", "wc"] {
            symlink("busybox", bin.join(applet)).expect("link");
        }
        let name = dir.path().file_name().expect("name").to_str().expect("UTF-8").to_owned();
        let mut spec: Spec = serde_json::from_str(CONFIG).expect("valid");
        if let (Some(process), Some(linux)) = (spec.process.as_mut(), spec.linux.as_mut()) {
            process.args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
            linux.cgroups_path = Some(format!("/{name}"));
        }
        Self { dir, id: name, spec }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn overlay(&self, lower: &str) -> Mount {
        let option = |key: &str, name: &str| format!("{key}={}", self.path(name).display());
        Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![format!("lowerdir={lower}"), option("upperdir", "upper"), option("workdir", "work")],
        }
    }

    fn base(&self) -> String {
        self.path("base").display().to_string()
    }

    fn create(&self, mounts: &[Mount], netns: Option<&OwnedFd>, output: &OwnedFd) -> Result<Container, Failure> {
        let null = File::open("/dev/null").expect("open");
        create(CreateRequest {
            id: &self.id,
            bundle: self.dir.path(),
            spec: &self.spec,
            rootfs_mounts: mounts,
            stdio: Stdio::Descriptors([null.as_fd(), output.as_fd(), output.as_fd()]),
            netns: netns.map(AsFd::as_fd),
            gate: Gate::Caller,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            systemd: false,
            rootless: false,
        })
    }

    /// Runs to the end and returns what was printed.
    fn run(&self, mounts: &[Mount], netns: Option<&OwnedFd>) -> String {
        let (r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let mut container = self.create(mounts, netns, &w).expect("created");
        drop(w);
        container.start().expect("started");
        let mut text = String::new();
        File::from(r).read_to_string(&mut text).expect("read");
        reap(&container);
        container.delete().expect("deleted");
        assert_eq!(self.leftovers(), [""; 0]);
        text
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"]
            .iter()
            .map(|place| Path::new(place).join(&self.id))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        left.extend(mounts.lines().filter(|line| line.contains(&self.id)).map(str::to_owned));
        left
    }
}

fn reap(container: &Container) -> Option<i32> {
    let ended = waitid(WaitId::PidFd(container.pidfd()), WaitIdOptions::EXITED).expect("waited");
    ended.and_then(|s| s.exit_status().or_else(|| s.terminating_signal().map(|n| 128 + n)))
}

fn an_overlay_is_mounted_inside_only() {
    let scene = Scene::new("echo data > /written; cat /proc/self/mountinfo | grep -c ' / / .*overlay'");
    assert_eq!(scene.run(&[scene.overlay(&scene.base())], None), "1\n");
    assert_eq!(std::fs::read_to_string(scene.path("upper/written")).expect("in the upper folder"), "data\n");
    assert_eq!(std::fs::read_dir(scene.path("rootfs")).expect("folder").count(), 0, "the host sees an empty folder");
}

fn more_layers_than_a_page_are_mounted() {
    // Short names relative to the layers' common folder fit into a page; long ones do not.
    for name in ["", "a-name-so-long-that-it-does-not-fit-relative-to-the-common-folder/"] {
        let scene = Scene::new("ls /layers | wc -l; echo x > /written");
        let mut lower = String::new();
        for number in 0..120 {
            let layer = scene.path(&format!("{name}{number}/fs"));
            std::fs::create_dir_all(layer.join("layers")).expect("folder");
            std::fs::write(layer.join("layers").join(number.to_string()), "").expect("file");
            lower.push_str(&format!("{}:", layer.display()));
        }
        lower.push_str(&scene.base());
        assert!(lower.len() > 4096);
        assert_eq!(scene.run(&[scene.overlay(&lower)], None), "120\n");
        assert!(scene.path("upper/written").exists());
    }
}

fn parts_can_be_bound_below_the_root() {
    let scene = Scene::new("cat /part/file; touch /part/x 2>/dev/null || echo ro");
    std::fs::create_dir(scene.path("part")).expect("folder");
    std::fs::write(scene.path("part/file"), "bound\n").expect("file");
    let bind = Mount {
        kind: "bind".to_owned(),
        source: scene.path("part").display().to_string(),
        target: "part".to_owned(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    };
    assert_eq!(scene.run(&[scene.overlay(&scene.base()), bind], None), "bound\nro\n");
}

fn map_users(scene: &mut Scene) {
    let map = serde_json::from_str(r#"[{"containerID":0,"hostID":200000,"size":1000}]"#).expect("valid");
    if let Some(linux) = scene.spec.linux.as_mut() {
        linux.uid_mappings = map;
        linux.gid_mappings = linux.uid_mappings.clone();
        linux.namespaces.push(serde_json::from_str(r#"{"type":"user"}"#).expect("valid"));
    }
}

fn an_overlay_works_in_a_user_namespace() {
    let mut scene = Scene::new("id -u; echo x > /written; cat /proc/self/uid_map | grep -c 200000");
    map_users(&mut scene);
    for folder in ["upper", "base"] {
        std::os::unix::fs::chown(scene.path(folder), Some(200_000), Some(200_000)).expect("owner");
    }
    assert_eq!(scene.run(&[scene.overlay(&scene.base())], None), "0\n1\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(scene.path("upper/written")).expect("written"));
    assert_eq!(owner, 200_000);
}

/// A process that stays in new namespaces until it is dropped.
struct Holder(OwnedFd, i32);

impl Holder {
    fn new(kinds: u64) -> Self {
        match clone3(kinds, None).expect("cloned") {
            Cloned::Child => {
                rustix::event::pause();
                exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => Self(pidfd, pid),
        }
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.1)
    }

    fn link(&self, kind: &str) -> String {
        std::fs::read_link(self.namespace(kind)).expect("link").display().to_string()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, rustix::process::Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
    }
}

fn a_network_namespace_is_joined_by_descriptor() {
    let holder = Holder::new(flags::NEWNET);
    let netns = OwnedFd::from(File::open(holder.namespace("net")).expect("open"));
    let scene = Scene::new("readlink /proc/self/ns/net");
    assert_eq!(scene.run(&[scene.overlay(&scene.base())], Some(&netns)).trim(), holder.link("net"));
}

fn a_user_namespace_is_joined_by_path() {
    let holder = Holder::new(flags::NEWUSER);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{file}", holder.1), "0 200000 1000\n").expect("mapped");
    }
    let mut scene = Scene::new("readlink /proc/self/ns/user; id -u; echo $$; echo x > /written");
    for folder in ["upper", "base"] {
        std::os::unix::fs::chown(scene.path(folder), Some(200_000), Some(200_000)).expect("owner");
    }
    if let Some(linux) = scene.spec.linux.as_mut() {
        let entry = format!(r#"{{"type":"user","path":"{}"}}"#, holder.namespace("user"));
        linux.namespaces.push(serde_json::from_str(&entry).expect("valid"));
    }
    let expected = format!("{}\n0\n1\n", holder.link("user"));
    assert_eq!(scene.run(&[scene.overlay(&scene.base())], None), expected);
}

fn failures_name_stage_and_error() {
    let (_r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    let scene = Scene::new("true");
    let missing = scene.create(&[scene.overlay("/no/such/layer")], None, &w).expect_err("no layer");
    assert_eq!((missing.stage, missing.errno), (Stage::Rootfs, 2), "{missing}");
    let mut scene = Scene::new("true");
    if let Some(process) = scene.spec.process.as_mut() {
        process.args = vec!["nonesuch".to_owned()];
    }
    let unknown = scene.create(&[scene.overlay(&scene.base())], None, &w).expect_err("no command");
    assert_eq!((unknown.stage, unknown.exit_code()), (Stage::CommandNotFound, 127), "{unknown}");
    if let Some(process) = scene.spec.process.as_mut() {
        process.args = vec!["/bin".to_owned()];
    }
    let folder = scene.create(&[scene.overlay(&scene.base())], None, &w).expect_err("a folder");
    assert_eq!((folder.stage, folder.exit_code()), (Stage::CommandNotExecutable, 126), "{folder}");
    assert_eq!(scene.leftovers(), [""; 0]);
}

fn execve_errors_come_from_start() {
    let (_r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    let mut scene = Scene::new("true");
    std::fs::write(scene.path("base/broken"), "no program").expect("file");
    std::fs::set_permissions(scene.path("base/broken"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    if let Some(process) = scene.spec.process.as_mut() {
        process.args = vec!["/broken".to_owned()];
    }
    let mut container = scene.create(&[scene.overlay(&scene.base())], None, &w).expect("created");
    let failure = container.start().expect_err("no program");
    assert_eq!((failure.stage, failure.errno), (Stage::Exec, 8), "{failure}");
    assert_eq!(reap(&container), Some(1));
    container.delete().expect("deleted");
}

fn kill_pids_pause_and_delete() {
    let (_r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    let scene = Scene::new("sleep 100 & wait");
    let mut container = scene.create(&[scene.overlay(&scene.base())], None, &w).expect("created");
    assert_eq!(container.pids().expect("pids"), [container.pid()]);
    container.start().expect("started");
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while container.pids().expect("pids").len() < 2 {
        assert!(Instant::now() < deadline, "the second process did not come");
        std::thread::yield_now();
    }
    container.pause().expect("paused");
    assert!(container.cgroup().expect("cgroup").is_frozen().expect("read"));
    container.resume().expect("resumed");
    container.kill(Signal::KILL, true).expect("killed");
    assert_eq!(reap(&container), Some(137));
    assert!(matches!(container.kill(Signal::TERM, false), Err(wharf_runtime::Error::NotRunning)));
    container.delete().expect("deleted");
    assert_eq!(scene.leftovers(), [""; 0]);
}

fn a_process_is_added_before_start() {
    let (r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
    let scene = Scene::new("true");
    let container = scene.create(&[scene.overlay(&scene.base())], None, &w).expect("created");
    let process = Process {
        args: ["sh", "-c", "echo $$ $PWD"].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: PathBuf::from("/proc"),
        ..Process::default()
    };
    let null = File::open("/dev/null").expect("open");
    let stdio = Stdio::Descriptors([null.as_fd(), w.as_fd(), w.as_fd()]);
    let added = container.exec(ExecRequest { process: &process, stdio, preserve_fds: 0, groups: &[] }).expect("added");
    let ended = waitid(WaitId::PidFd(added.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waited");
    assert_eq!(ended.and_then(|s| s.exit_status()), Some(0));
    container.delete().expect("deleted with its first process waiting");
    drop(w);
    let mut text = String::new();
    File::from(r).read_to_string(&mut text).expect("read");
    assert_eq!(text, "2 /proc\n");
    assert_eq!(scene.leftovers(), [""; 0]);
}

fn the_caller_stays_where_it_is() {
    let look = || -> Vec<String> {
        let mut seen: Vec<String> = std::fs::read_dir("/proc/self/ns")
            .expect("folder")
            .filter_map(|e| Some(std::fs::read_link(e.ok()?.path()).ok()?.display().to_string()))
            .collect();
        seen.sort();
        seen.push(std::fs::read_dir("/proc/self/fd").expect("folder").count().to_string());
        seen
    };
    let before = look();
    let mut scene = Scene::new("sleep 100");
    if let Some(linux) = scene.spec.linux.as_mut() {
        for kind in ["time", "cgroup"] {
            linux.namespaces.push(serde_json::from_str(&format!(r#"{{"type":"{kind}"}}"#)).expect("valid"));
        }
    }
    {
        let (_r, w) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        let container = scene.create(&[scene.overlay(&scene.base())], None, &w).expect("created");
        let process = Process { args: vec!["/bin/true".to_owned()], cwd: PathBuf::from("/"), ..Process::default() };
        let stdio = Stdio::Descriptors([w.as_fd(), w.as_fd(), w.as_fd()]);
        let added =
            container.exec(ExecRequest { process: &process, stdio, preserve_fds: 0, groups: &[] }).expect("added");
        waitid(WaitId::PidFd(added.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waited");
        container.delete().expect("deleted");
    }
    assert_eq!(look(), before);
}
