//! Engines with real shims, real layers and real processes, each in a folder and under a cgroup parent of its own.
//!
//! Needs root, Debian's busybox-static, and `wharf-shim` in `WHARF_BIN_DIR` (default: the `quick` profile's folder).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wharf_api_types::query::{ContainerList, ContainerStop, Logs, WaitCondition};
use wharf_api_types::{
    ContainerConfig, ContainerCreateRequest, ExecCreateRequest, ExecStartRequest, HostConfig, RestartPolicy,
};
use wharf_engine::config::{EngineConfig, Live, Reloadable, SeccompDefault};
use wharf_engine::execs::Started;
use wharf_engine::lifecycle::RemoveOptions;
use wharf_engine::streams::Wanted;
use wharf_engine::{Engine, EngineError, Setup};
use wharf_image::ImportRequest;
use wharf_network::NetworkConfig;
use wharf_types::{InstanceId, Reference};

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn shim() -> PathBuf {
    let folder = std::env::var_os("WHARF_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target");
        top.join(format!("{}-unknown-linux-gnu/quick", std::env::consts::ARCH))
    });
    let shim = folder.join("wharf-shim");
    assert!(shim.exists(), "no wharf-shim in {}: run `make binaries` first", folder.display());
    shim
}

/// A place for engines, one after the other.
struct Place {
    folder: tempfile::TempDir,
    number: u32,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("wharf-engine-").tempdir().expect("temporary folder");
        Place { folder, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    fn cgroup_parent(&self) -> String {
        format!("/wharf-engine-test-{}-{}", std::process::id(), self.number)
    }

    async fn open(&self) -> Engine {
        let mut bytes = [0; 6];
        bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[4..].copy_from_slice(&(self.number as u16).to_le_bytes());
        let instance = InstanceId::from_bytes(bytes);
        let mut network = NetworkConfig::new(instance.clone());
        network.bridge = None;
        network.iptables = false;
        network.ip6tables = false;
        network.ip_forward = false;
        network.pool_size = 0;
        let config = EngineConfig {
            storage_size: None,
            users: None,
            data_root: self.folder.path().join("d"),
            exec_root: self.folder.path().join("r"),
            instance,
            cgroup_parent: self.cgroup_parent(),
            cgroupns_mode: "private",
            ipc_mode: "private",
            shm_size: 64 << 20,
            ulimits: Vec::new(),
            init: false,
            init_path: None,
            cdi_spec_dirs: Vec::new(),
            no_new_privileges: false,
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            host_gateway: Vec::new(),
            live: Reloadable::new(Live { shutdown_timeout: 1, ..Live::default() }),
            seccomp: SeccompDefault::Builtin,
            experimental: false,
            insecure_registries: Vec::new(),
            bridge: String::new(),
            icc: true,
            ip_masq: true,
            host_binding: String::new(),
            version: "0".to_owned(),
            git_commit: String::new(),
            build_time: String::new(),
        };
        let (registries, plugins) = (Default::default(), Default::default());
        Engine::open(Setup {
            config,
            network,
            shim: shim(),
            storage_driver: None,
            registries,
            plugins,
            kept: |_| Ok(Vec::new()),
        })
        .await
        .expect("the engine opens")
    }

    async fn with_image(&self) -> Engine {
        let engine = self.open().await;
        let tar = busybox_tar(self.folder.path());
        let images = engine.images.clone();
        let import = move || {
            let mut body = std::fs::File::open(&tar).expect("tar");
            let reference = Some(Reference::parse("busybox:latest").expect("reference"));
            images.import(ImportRequest { reference, ..ImportRequest::default() }, &mut body).expect("imported")
        };
        tokio::task::spawn_blocking(import).await.expect("imported");
        engine
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let parent = self.cgroup_parent();
        let layout = wharf_cgroup::Layout::detect().expect("cgroups");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        // An engine that was closed has removed it.
        let Ok(group) = wharf_cgroup::Cgroup::open(&layout, &parent) else { return };
        group.delete(deadline).unwrap_or_else(|e| eprintln!("{parent} stays: {e}"));
    }
}

fn busybox_tar(folder: &Path) -> PathBuf {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|p| p.exists());
    let root = folder.join("rootfs");
    for name in ["bin", "tmp", "etc", "vol"] {
        std::fs::create_dir_all(root.join(name)).expect("folder");
    }
    std::fs::copy(busybox.expect("busybox-static is installed"), root.join("bin/busybox")).expect("busybox");
    for applet in ["sh", "true", "false", "sleep", "cat", "echo", "id", "env", "touch", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("applet");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:7:8::/home:/bin/sh\n")
        .expect("passwd");
    std::fs::write(root.join("etc/group"), "root:x:0:\nstaff:x:50:web\n").expect("group");
    std::fs::write(root.join("vol/file"), "from the image").expect("file");
    let tar = folder.join("busybox.tar");
    let made = std::process::Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
    assert!(made.expect("tar").success());
    tar
}

fn request(words: &[&str], change: impl FnOnce(&mut ContainerConfig, &mut HostConfig)) -> ContainerCreateRequest {
    let mut config = ContainerConfig {
        image: "busybox".to_owned(),
        cmd: Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>().into()),
        ..ContainerConfig::default()
    };
    let mut host = HostConfig { network_mode: "none".to_owned(), ..HostConfig::default() };
    change(&mut config, &mut host);
    ContainerCreateRequest { config, host_config: Some(host), networking_config: None }
}

async fn create(
    engine: &Engine,
    name: &str,
    words: &[&str],
    change: impl FnOnce(&mut ContainerConfig, &mut HostConfig),
) -> String {
    engine.creator.create(name, "", request(words, change)).await.expect("created").id
}

async fn ended(engine: &Engine, name: &str) -> i64 {
    let wait = engine.streams.wait(name, WaitCondition::NotRunning).expect("known");
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it ends").code
}

async fn gone(engine: &Engine, name: &str) {
    let wait = engine.streams.wait(name, WaitCondition::Removed);
    if let Ok(wait) = wait {
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it is removed");
    }
}

async fn log(engine: &Engine, name: &str) -> String {
    let query = Logs { stdout: true, stderr: true, follow: true, ..Logs::default() };
    let mut reading = engine.streams.logs(name, &query).expect("a log");
    let mut bytes = Vec::new();
    while let Some(chunk) = reading.chunks.recv().await {
        bytes.extend(chunk.expect("readable"));
    }
    payload(&bytes)
}

/// Waits until a running container has put a text out.
async fn says(engine: &Engine, name: &str, text: &str) {
    let query = Logs { stdout: true, stderr: true, follow: true, ..Logs::default() };
    let mut reading = engine.streams.logs(name, &query).expect("a log");
    let mut bytes = Vec::new();
    let deadline = tokio::time::sleep(Duration::from_secs(20));
    tokio::pin!(deadline);
    while !payload(&bytes).contains(text) {
        tokio::select! {
            chunk = reading.chunks.recv() => bytes.extend(chunk.expect("it goes on").expect("readable")),
            () = &mut deadline => panic!("no {text:?} in {:?}", payload(&bytes)),
        }
    }
}

/// Takes the payload out of stdcopy frames.
fn payload(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let [_, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        text.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_all(stream: &mut tokio::net::UnixStream) -> String {
    use tokio::io::AsyncReadExt;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("it ends").expect("readable");
    payload(&bytes)
}

fn nothing_is_left(place: &Place) {
    let count = |path: &str| std::fs::read_dir(place.folder.path().join(path)).map_or(0, |d| d.flatten().count());
    assert_eq!(count("d/containers"), 0, "container folders");
    assert_eq!(count("r/tasks"), 0, "task folders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_from_create_to_remove() {
    let place = Place::new();
    let engine = place.with_image().await;
    let id = create(&engine, "web", &["sh", "-c", "echo out; echo err >&2; exit 3"], |_, _| {}).await;
    let (tty, attach) = engine
        .streams
        .attach("web", Wanted { stdout: true, stderr: true, stream: true, ..Wanted::default() })
        .expect("attached");
    assert!(!tty);
    let attached = tokio::spawn(attach);
    engine.lifecycle.start("web").await.expect("started");
    assert_eq!(ended(&engine, "web").await, 3);
    let mut stream = attached.await.expect("joined").expect("connected");
    let seen = read_all(&mut stream).await;
    assert!(seen.contains("out\n") && seen.contains("err\n"), "{seen:?}");
    assert!(log(&engine, &id[..12]).await.contains("out\n"));
    let shown = engine.lists.inspect("web", false).expect("known");
    assert_eq!((shown.state.status.as_str(), shown.state.exit_code), ("exited", 3));
    engine.lifecycle.remove("web", RemoveOptions::default()).await.expect("removed");
    assert!(matches!(engine.lists.inspect("web", false), Err(EngineError::Lookup(_))));
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_rm_goes_with_its_process_and_its_anonymous_volumes() {
    let place = Place::new();
    let engine = place.with_image().await;
    create(&engine, "once", &["true"], |config, host| {
        host.auto_remove = true;
        config.volumes = Some([("/vol".to_owned(), Default::default())].into());
    })
    .await;
    let wait = engine.streams.wait("once", WaitCondition::Removed).expect("known");
    engine.lifecycle.start("once").await.expect("started");
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), wait).await.expect("removed").code, 0);
    assert!(engine.volumes.list(&Default::default()).expect("list").volumes.is_empty());
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_gives_dockers_text_and_code_and_leaves_nothing() {
    let place = Place::new();
    let engine = place.with_image().await;
    for (name, words, code, text) in [
        ("c1", "nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("c2", "/tmp", 126, "permission denied"),
        ("c3", "/nosuch", 127, "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
    ] {
        create(&engine, name, &[words], |_, _| {}).await;
        let error = engine.lifecycle.start(name).await.expect_err("cannot start");
        let message = wharf_error::Chain(&error).to_string();
        assert!(message.contains(text) && message.starts_with("failed to create task for container"), "{message}");
        let state = engine.lists.inspect(name, false).expect("known").state;
        assert_eq!((state.status.as_str(), state.exit_code), ("created", code), "{message}");
        assert_eq!(state.error, message);
        engine.lifecycle.remove(name, RemoveOptions::default()).await.expect("removed");
    }
    create(&engine, "c4", &["true"], |c, _| "nosuch".clone_into(&mut c.user)).await;
    let error = engine.lifecycle.start("c4").await.expect_err("cannot start");
    assert_eq!(error.to_string(), "unable to find user nosuch: no matching entries in passwd file");
    engine.lifecycle.remove("c4", RemoveOptions::default()).await.expect("removed");
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kill_and_restart_end_and_begin_runs() {
    let place = Place::new();
    let engine = place.with_image().await;
    create(&engine, "run", &["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"], |_, _| {})
        .await;
    engine.lifecycle.start("run").await.expect("started");
    assert!(matches!(engine.lifecycle.start("run").await, Err(EngineError::AlreadyRunning(_))));
    says(&engine, "run", "ready").await;
    engine.lifecycle.stop("run", &ContainerStop::default()).await.expect("stopped");
    assert_eq!(engine.lists.inspect("run", false).expect("known").state.exit_code, 7);
    let again = engine.lifecycle.stop("run", &ContainerStop::default()).await;
    assert!(matches!(again, Err(EngineError::AlreadyStopped(_))));
    engine.lifecycle.restart("run", &ContainerStop::default()).await.expect("restarted");
    engine.lifecycle.kill("run", "").await.expect("killed");
    assert_eq!(engine.lists.inspect("run", false).expect("known").state.exit_code, 137);
    let error = engine.lifecycle.kill("run", "TERM").await.expect_err("not running").to_string();
    assert!(error.starts_with("cannot kill container: run: container ") && error.ends_with(" is not running"));
    let error = engine.lifecycle.kill("run", "NOSUCH").await.expect_err("no signal").to_string();
    assert_eq!(error, "cannot kill container: run: invalid signal: NOSUCH");
    engine.lifecycle.remove("run", RemoveOptions::default()).await.expect("removed");
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_run_with_output_exit_code_and_identity() {
    let place = Place::new();
    let engine = place.with_image().await;
    create(&engine, "host", &["sleep", "100"], |_, _| {}).await;
    engine.lifecycle.start("host").await.expect("started");
    let exec = |words: &[&str], user: &str| ExecCreateRequest {
        cmd: Some(words.iter().map(|w| (*w).to_owned()).collect()),
        attach_stdout: true,
        attach_stderr: true,
        user: user.to_owned(),
        ..ExecCreateRequest::default()
    };
    let id = engine.execs.create("host", exec(&["sh", "-c", "id; exit 5"], "web")).expect("created");
    let Started::Attached(mut attached) =
        engine.execs.start(id.as_str(), ExecStartRequest::default()).await.expect("started")
    else {
        panic!("attached")
    };
    let seen = read_all(&mut attached.stream).await;
    assert!(seen.contains("uid=7(web) gid=8 groups=8,50(staff)"), "{seen}");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while engine.execs.inspect(id.as_str()).expect("known").exit_code != Some(5) {
        assert!(std::time::Instant::now() < deadline, "no exit code");
        tokio::task::yield_now().await;
    }
    let again = engine.execs.start(id.as_str(), ExecStartRequest::default()).await;
    assert!(matches!(again, Err(EngineError::ExecRan(_))));
    let id = engine.execs.create("host", exec(&["nosuch"], "")).expect("created");
    let error = engine.execs.start(id.as_str(), ExecStartRequest::default()).await.expect_err("cannot start");
    assert_eq!(
        error.to_string(),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not \
         found in $PATH"
    );
    assert_eq!(engine.execs.inspect(id.as_str()).expect("known").exit_code, Some(127));
    engine.lifecycle.remove("host", RemoveOptions { force: true, volumes: false }).await.expect("removed");
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_policy_starts_again_until_its_count_or_a_stop() {
    let place = Place::new();
    let engine = place.with_image().await;
    create(&engine, "again", &["false"], |_, host| {
        host.restart_policy = RestartPolicy { name: "on-failure".to_owned(), maximum_retry_count: 2 };
    })
    .await;
    engine.lifecycle.start("again").await.expect("started");
    assert_eq!(ended(&engine, "again").await, 1);
    assert_eq!(engine.lists.inspect("again", false).expect("known").restart_count, 2);
    engine.lifecycle.remove("again", RemoveOptions::default()).await.expect("removed");
    nothing_is_left(&place);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_filled_from_the_image_and_outlive_their_container() {
    let place = Place::new();
    let engine = place.with_image().await;
    let bind = |_: &mut ContainerConfig, host: &mut HostConfig| host.binds = Some(vec!["data:/vol".to_owned()]);
    create(&engine, "v1", &["sh", "-c", "cat /vol/file; echo more > /vol/two"], bind).await;
    engine.lifecycle.start("v1").await.expect("started");
    assert_eq!(ended(&engine, "v1").await, 0);
    assert_eq!(log(&engine, "v1").await, "from the image");
    let error = engine.volumes.remove("data", false).await.expect_err("in use").to_string();
    assert!(error.starts_with("remove data: volume is in use - ["), "{error}");
    engine.lifecycle.remove("v1", RemoveOptions { force: false, volumes: true }).await.expect("removed");
    create(&engine, "v2", &["cat", "/vol/two"], bind).await;
    engine.lifecycle.start("v2").await.expect("started");
    assert_eq!(ended(&engine, "v2").await, 0);
    assert_eq!(log(&engine, "v2").await, "more\n");
    engine.lifecycle.remove("v2", RemoveOptions::default()).await.expect("removed");
    engine.volumes.remove("data", false).await.expect("removed");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_clients_at_once_get_their_own_containers_and_a_name_only_once() {
    let place = Place::new();
    let engine = std::sync::Arc::new(place.with_image().await);
    let runs: Vec<_> = (0..8)
        .map(|i| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let name = format!("many{i}");
                let word = format!("exit {i}");
                create(&engine, &name, &["sh", "-c", &word], |_, host| host.auto_remove = true).await;
                let wait = engine.streams.wait(&name, WaitCondition::Removed).expect("known");
                engine.lifecycle.start(&name).await.expect("started");
                assert_eq!(tokio::time::timeout(Duration::from_secs(30), wait).await.expect("removed").code, i);
            })
        })
        .collect();
    for run in runs {
        run.await.expect("a run");
    }
    create(&engine, "same", &["true"], |_, _| {}).await;
    let error = engine.creator.create("same", "", request(&["true"], |_, _| {})).await.expect_err("taken").to_string();
    assert!(error.starts_with("Conflict. The container name \"/same\" is already in use by container \""), "{error}");
    assert_eq!(engine.lists.list(&ContainerList { all: true, ..ContainerList::default() }).expect("list").len(), 1);
    engine.lifecycle.remove("same", RemoveOptions::default()).await.expect("removed");
    nothing_is_left(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_engine_knows_what_the_last_one_left() {
    let place = Place::new();
    let engine = place.with_image().await;
    create(&engine, "done", &["sh", "-c", "exit 9"], |_, _| {}).await;
    engine.lifecycle.start("done").await.expect("started");
    assert_eq!(ended(&engine, "done").await, 9);
    create(&engine, "new", &["true"], |_, _| {}).await;
    engine.close().await;
    drop(engine);
    let engine = place.open().await;
    let done = engine.lists.inspect("done", false).expect("known");
    assert_eq!((done.state.status.as_str(), done.state.exit_code), ("exited", 9));
    assert_eq!(engine.lists.inspect("new", false).expect("known").state.status, "created");
    for name in ["done", "new"] {
        engine.lifecycle.remove(name, RemoveOptions::default()).await.expect("removed");
        gone(&engine, name).await;
    }
    nothing_is_left(&place);
    engine.close().await;
}
