//! RUN: a process upon a snapshot, with what is mounted into it.
//!
//! Every mount is made from a descriptor that was resolved beneath its tree, and stands under
//! `<exec-root>/steps/<id>/` while the step runs, so that no name is looked up again when the container starts
//! (CVE-2024-23651: a cache's subpath swapped for a link between check and mount).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount,
    fsopen, move_mount, open_tree, unmount,
};
use tokio::sync::{OwnedMutexGuard, mpsc};
use wharf_engine::{StepBind, StepEnd, StepNetwork, StepRequest};
use wharf_error::Chain;
use wharf_proto_buildkit::pb;
use wharf_proto_buildkit::ssh::BytesMessage;
use wharf_snapshot::Snapshot;
use wharf_types::Timestamp;

use crate::BuildError;
use crate::cache::Node;
use crate::job::{Files, Job, Value};
use crate::local::in_place;
use crate::merge;
use crate::progress::Step;
use crate::session::Session;
use crate::tree::Tree;

/// What a step has while it runs; all of it goes when this is dropped.
pub(crate) struct Scene {
    pub(crate) folder: PathBuf,
    mounted: Vec<PathBuf>,
    /// What the root is.
    root: Option<Snapshot>,
    /// Snapshots that were prepared, by output.
    outputs: Vec<(i64, Snapshot)>,
    /// Prepared for writing, but thrown away afterwards.
    pub(crate) scratch: Vec<Snapshot>,
    pub(crate) snapshots: Arc<dyn wharf_snapshot::Snapshotter>,
    caches: Vec<Arc<Node>>,
    turns: Vec<OwnedMutexGuard<()>>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.abort();
        }
        for place in self.mounted.iter().rev() {
            if let Err(error) = unmount(place, UnmountFlags::DETACH) {
                tracing::warn!(%error, path = %place.display(), "cannot unmount what a step had");
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, path = %self.folder.display(), "cannot remove what a step had");
        }
        for snapshot in self.scratch.iter().chain(self.outputs.iter().map(|(_, s)| s)) {
            // What stays has no owner and goes when the daemon starts.
            let _ = self.snapshots.remove(snapshot);
        }
    }
}

fn failed(what: &str) -> impl Fn(rustix::io::Errno) -> BuildError + '_ {
    move |e| BuildError::system(what, &std::io::Error::from(e))
}

impl Scene {
    pub(crate) fn new(job: &Job) -> Result<Self, BuildError> {
        let mut bytes = [0u8; 8];
        // getrandom(2) does not fail once the pool is ready.
        let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
        let folder = job.builder.parts.steps_folder.join(format!("m{:016x}", u64::from_le_bytes(bytes)));
        std::fs::create_dir_all(&folder)?;
        // Secrets lie below for as long as the step runs.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            folder,
            mounted: Vec::new(),
            root: None,
            outputs: Vec::new(),
            scratch: Vec::new(),
            snapshots: job.builder.parts.snapshots.clone(),
            caches: Vec::new(),
            turns: Vec::new(),
            agents: Vec::new(),
        })
    }

    /// Attaches a mount that is nowhere yet, because only what is attached can be cloned in part (open_tree(2)). The root
    /// of what comes back is that mount; a folder that is no fresh mount comes back as it is.
    fn attach(&mut self, tree: Tree) -> Result<Tree, BuildError> {
        let path = self.folder.join(self.mounted.len().to_string());
        std::fs::create_dir(&path)?;
        let moved = move_mount(tree.root(), "", rustix::fs::CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        if moved.is_err() {
            std::fs::remove_dir(&path)?;
            return Ok(tree);
        }
        self.mounted.push(path.clone());
        Ok(Tree::at(&path)?)
    }

    /// Puts what a descriptor stands for at a place of its own.
    fn place(&mut self, fd: &OwnedFd) -> Result<PathBuf, BuildError> {
        let path = self.folder.join(self.mounted.len().to_string());
        let stat = rustix::fs::fstat(fd).map_err(failed("stat a mount"))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            std::fs::create_dir(&path)?;
        } else {
            std::fs::File::create(&path)?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let clone = open_tree(fd, "", flags).map_err(failed("clone a mount"))?;
        move_mount(&clone, "", rustix::fs::CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(failed("place a mount"))?;
        self.mounted.push(path.clone());
        Ok(path)
    }
}

/// Opens a path in a tree; a link on the way is followed within it.
fn select(tree: &Tree, selector: &str) -> Result<OwnedFd, BuildError> {
    let path = Path::new(selector);
    let open = if selector.is_empty() || selector == "/" {
        tree.folder(Path::new("/"))
    } else {
        tree.open(path, OFlags::PATH)
    };
    open.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => BuildError::new(
            wharf_error::Kind::NotFound,
            format!("failed to compute cache key: failed to calculate checksum of ref: \"{selector}\": not found"),
        ),
        _ => BuildError::system(&format!("open {selector}"), &e),
    })
}

/// Carries out a step; returns its outputs, committed.
///
/// # Errors
/// [`BuildError`].
pub async fn carry_out(
    job: &Arc<Job>,
    op: &pb::ExecOp,
    inputs: &[Value],
    step: &Step,
) -> Result<Vec<Snapshot>, BuildError> {
    let meta = op.meta.clone().unwrap_or_default();
    let network = network(job, op)?;
    let privileged = op.security == pb::SecurityMode::Insecure as i32;
    if privileged && !job.settings.insecure {
        return Err(BuildError::new(wharf_error::Kind::Forbidden, "security.insecure is not allowed"));
    }
    if !op.cdi_devices.iter().all(|d| d.optional) {
        let name = op.cdi_devices.first().map(|d| d.name.clone()).unwrap_or_default();
        return Err(BuildError::invalid(format!("CDI device {name} is not available on this host")));
    }
    let mut scene = Scene::new(job)?;
    let mut request = StepRequest {
        args: meta.args.clone(),
        env: environment(&meta),
        cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
        user: meta.user.clone(),
        hostname: if meta.hostname.is_empty() { "buildkitsandbox".to_owned() } else { meta.hostname.clone() },
        network,
        privileged,
        hosts: meta.extra_hosts.iter().map(|h| (h.host.clone(), h.ip.clone())).collect(),
        ulimits: meta
            .ulimit
            .iter()
            .map(|u| wharf_api_types::Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard })
            .collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        ..StepRequest::default()
    };
    let mut places: Vec<String> = vec!["/etc/resolv.conf".to_owned(), "/etc/hosts".to_owned()];
    // In one order, whatever that of the mounts is: two steps that want the same two folders must not wait for each
    // other, and one that mounts a folder twice must not wait for itself.
    let locked = op.mounts.iter().filter(|m| is_locked(m));
    let locked: Result<BTreeSet<String>, BuildError> =
        locked.map(|m| Ok(cache_key(m, &input_of(m, inputs)?, &absolute(&m.dest, &request.cwd)))).collect();
    for base in &locked? {
        scene.turns.push(job.builder.turn(&format!("lock {base}")).await);
    }
    for mount in &op.mounts {
        if mount.dest != "/" {
            places.push(absolute(&mount.dest, &request.cwd));
        }
        add_mount(job, &mut scene, &mut request, mount, inputs).await?;
    }
    for secret in &op.secretenv {
        if let Some(value) = secret_value(job, &secret.id, secret.optional).await? {
            request.env.push(format!("{}={}", secret.name, String::from_utf8_lossy(&value)));
        }
    }
    let rootfs = scene.root.clone().ok_or_else(|| BuildError::invalid("exec operation without a root mount"))?;
    request.rootfs = scene.snapshots.mounts(&rootfs, false)?;
    let missing = in_place(|| stubs(job, &rootfs, &places));
    run(job, &meta, request, step).await?;
    in_place(|| clear_stubs(&scene, &rootfs, &missing))?;
    let mut outputs = std::mem::take(&mut scene.outputs);
    outputs.sort_by_key(|(n, _)| *n);
    let commit = |(_, snapshot): (i64, Snapshot)| scene.snapshots.commit(snapshot).map_err(BuildError::from);
    outputs.into_iter().map(commit).collect()
}

async fn run(job: &Arc<Job>, meta: &pb::Meta, request: StepRequest, step: &Step) -> Result<(), BuildError> {
    let (sender, mut receiver) = mpsc::channel::<(u8, Vec<u8>)>(64);
    let steps = job.builder.parts.steps.clone();
    let running = steps.run(request, sender);
    tokio::pin!(running);
    let end = loop {
        tokio::select! {
            piece = receiver.recv() => match piece {
                Some((stream, data)) => step.log(i64::from(stream), &data),
                None => break running.await,
            },
            end = &mut running => {
                while let Some((stream, data)) = receiver.recv().await {
                    step.log(i64::from(stream), &data);
                }
                break end;
            }
        }
    };
    let end = end.map_err(|e| BuildError::new(wharf_error::Kind::System, Chain(&e).to_string()))?;
    if end.cancelled {
        return Err(BuildError::cancelled());
    }
    judge(&end, &meta.args, &meta.valid_exit_codes)
}

/// Whether a process ended as it was to: with one of these codes, or with 0 where none are given.
pub(crate) fn judge(end: &StepEnd, args: &[String], codes: &[i32]) -> Result<(), BuildError> {
    let status = i32::try_from(end.status).unwrap_or(-1);
    let allowed = if codes.is_empty() { status == 0 } else { codes.contains(&status) };
    if allowed {
        return Ok(());
    }
    let command = args.join(" ");
    let why = if end.oom { "cannot allocate memory".to_owned() } else { format!("exit code: {status}") };
    Err(BuildError::new(
        wharf_error::Kind::Invalid,
        format!("process {command:?} did not complete successfully: {why}"),
    ))
}

fn network(job: &Job, op: &pb::ExecOp) -> Result<StepNetwork, BuildError> {
    match pb::NetMode::try_from(op.network) {
        Ok(pb::NetMode::Host) if !job.settings.network_host => {
            Err(BuildError::new(wharf_error::Kind::Forbidden, "network.host is not allowed"))
        }
        Ok(pb::NetMode::Host) => Ok(StepNetwork::Host),
        Ok(pb::NetMode::None) => Ok(StepNetwork::None),
        _ => Ok(StepNetwork::Bridge),
    }
}

fn environment(meta: &pb::Meta) -> Vec<String> {
    let mut env = meta.env.clone();
    if let Some(proxy) = &meta.proxy_env {
        let all = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        for (name, value) in all.into_iter().filter(|(_, v)| !v.is_empty()) {
            env.push(format!("{name}={value}"));
            env.push(format!("{}={value}", name.to_ascii_lowercase()));
        }
    }
    env
}

fn absolute(path: &str, cwd: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{cwd}/{path}") };
    wharf_dockerfile::ignore::clean(&whole)
}

/// What a mount stands upon.
fn input_of(mount: &pb::Mount, inputs: &[Value]) -> Result<Value, BuildError> {
    match usize::try_from(mount.input) {
        Ok(n) => inputs.get(n).cloned().ok_or_else(|| BuildError::invalid("invalid mount input")),
        Err(_) => Ok(Value::empty()),
    }
}

fn is_locked(mount: &pb::Mount) -> bool {
    mount.mount_type == pb::MountType::Cache as i32
        && mount.cache_opt.as_ref().is_some_and(|o| o.sharing == pb::CacheSharingOpt::Locked as i32)
}

/// The key of a cache mount of a step.
pub(crate) fn mount_key(op: &pb::ExecOp, mount: &pb::Mount, input: &Value) -> String {
    let cwd = op.meta.as_ref().map_or("", |m| m.cwd.as_str());
    cache_key(mount, input, &absolute(&mount.dest, if cwd.is_empty() { "/" } else { cwd }))
}

/// What tells folders of cache mounts apart.
fn cache_key(mount: &pb::Mount, input: &Value, target: &str) -> String {
    let id = mount.cache_opt.as_ref().map_or("", |o| o.id.as_str());
    let id = if id.is_empty() { target } else { id };
    format!("{}{id}:{}", crate::transfer::MOUNT_KEY, if matches!(input.files, Files::Empty) { "" } else { &input.key })
}

async fn add_mount(
    job: &Arc<Job>,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    inputs: &[Value],
) -> Result<(), BuildError> {
    let input = input_of(mount, inputs)?;
    let target = absolute(&mount.dest, &request.cwd);
    match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Bind) if mount.dest == "/" => root(job, scene, request, mount, &input),
        Ok(pb::MountType::Bind) => in_place(|| bind(job, scene, request, mount, &input, target)),
        Ok(pb::MountType::Cache) => cache(job, scene, request, mount, &input, target).await,
        Ok(pb::MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.as_ref().map_or(0, |t| t.size);
            let options = if size > 0 { vec![format!("size={size}")] } else { Vec::new() };
            request.tmpfs.push((target, options));
            Ok(())
        }
        Ok(pb::MountType::Secret) => secret(job, scene, request, mount, target).await,
        Ok(pb::MountType::Ssh) => agent(job, scene, request, mount, target).await,
        Err(_) => Err(BuildError::invalid("unknown mount type")),
    }
}

/// What a snapshot is prepared upon for an input.
fn parent(job: &Job, input: &Value) -> Result<Option<Snapshot>, BuildError> {
    match &input.files {
        Files::Context(_) => Ok(Some(in_place(|| merge::as_snapshot(job, input))?)),
        _ => Ok(input.snapshot().cloned()),
    }
}

fn root(
    job: &Job,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    input: &Value,
) -> Result<(), BuildError> {
    let prepared = scene.snapshots.prepare(parent(job, input)?.as_ref())?;
    request.read_only = mount.readonly;
    scene.root = Some(prepared.clone());
    if mount.output < 0 {
        scene.scratch.push(prepared)
    } else {
        scene.outputs.push((mount.output, prepared))
    }
    Ok(())
}

fn bind(
    job: &Job,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    input: &Value,
    target: String,
) -> Result<(), BuildError> {
    let tree = if mount.readonly && mount.output < 0 {
        job.view(input)?
    } else {
        let prepared = scene.snapshots.prepare(parent(job, input)?.as_ref())?;
        let tree = Tree::mount(&scene.snapshots.mounts(&prepared, false)?)?;
        if mount.output >= 0 {
            scene.outputs.push((mount.output, prepared))
        } else {
            scene.scratch.push(prepared)
        }
        tree
    };
    let tree = scene.attach(tree)?;
    let source = scene.place(&select(&tree, &mount.selector)?)?;
    request.binds.push(StepBind { source, target, read_only: mount.readonly });
    Ok(())
}

/// Mounts a folder that outlives the build.
async fn cache(
    job: &Arc<Job>,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    input: &Value,
    target: String,
) -> Result<(), BuildError> {
    let options = mount.cache_opt.clone().unwrap_or_default();
    let id = if options.id.is_empty() { target.clone() } else { options.id.clone() };
    let base = cache_key(mount, input, &target);
    let private = options.sharing == pb::CacheSharingOpt::Private as i32;
    // Choosing and marking must not be interrupted by another who chooses.
    let _choosing = job.builder.turn(&format!("choose {base}")).await;
    job.note_mount(&base);
    let mut number = 0;
    let node = loop {
        let key = format!("{base}#{number}");
        match job.builder.cache.find(&key) {
            // One reference is the cache's, one is ours.
            Some(node) if private && Arc::strong_count(&node) > 2 => number += 1,
            Some(node) => break node,
            None => break make_cache(job, input, &base, key, &id).await?,
        }
    };
    let tree = Tree::mount(&scene.snapshots.mounts(&node.snapshot, false)?)?;
    let source = in_place(|| scene.place(&select(&tree, &mount.selector)?))?;
    scene.caches.push(node);
    request.binds.push(StepBind { source, target, read_only: mount.readonly });
    Ok(())
}

/// Makes a folder for a cache mount: from elsewhere if it is there, else with what it stands upon.
async fn make_cache(job: &Arc<Job>, input: &Value, base: &str, key: String, id: &str) -> Result<Arc<Node>, BuildError> {
    let snapshots = &job.builder.parts.snapshots;
    let mut prepared = in_place(|| snapshots.prepare(None))?;
    let filled = job.fill_mount(base, &prepared).await;
    in_place(|| {
        if !filled && !job.imports.is_empty() {
            // A damaged archive may have left something in it.
            snapshots.remove(&prepared)?;
            prepared = snapshots.prepare(None)?;
        }
        if !filled && !matches!(input.files, Files::Empty) {
            let to = Tree::mount(&snapshots.mounts(&prepared, false)?)?;
            let options = crate::copy::CopyOptions { contents: true, ..Default::default() };
            crate::copy::copy(&job.view(input)?, Path::new("/"), &to, "/", &options)
                .map_err(|e| BuildError::invalid(Chain(&e).to_string()))?;
        }
        let description = format!("cached mount {id}");
        job.builder.cache.add(prepared, vec![key], &description, "exec.cachemount", Timestamp::now())
    })
}

async fn secret_value(job: &Job, id: &str, optional: bool) -> Result<Option<Vec<u8>>, BuildError> {
    let missing = || BuildError::new(wharf_error::Kind::NotFound, format!("secret {id}: not found"));
    let Some(session) = &job.session else { return if optional { Ok(None) } else { Err(missing()) } };
    match session.secret(id).await {
        Ok(data) => Ok(Some(data)),
        Err(e) if matches!(e.code, wharf_grpc::Code::NotFound | wharf_grpc::Code::Unimplemented) => {
            if optional {
                Ok(None)
            } else {
                Err(missing())
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Mounts a secret from memory that no disk ever sees.
async fn secret(
    job: &Arc<Job>,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    target: String,
) -> Result<(), BuildError> {
    let options = mount.secret_opt.clone().unwrap_or_default();
    let Some(data) = secret_value(job, &options.id, options.optional).await? else { return Ok(()) };
    let memory = |scene: &mut Scene| -> Result<OwnedFd, BuildError> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open tmpfs"))?;
        fsconfig_create(&context).map_err(failed("make tmpfs"))?;
        let flags =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let folder = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failed("mount tmpfs"))?;
        let mode = Mode::from_raw_mode(options.mode & 0o777);
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let tree = scene.attach(Tree::new(folder))?;
        let folder = tree.root();
        let file = rustix::fs::openat(folder, "secret", create, Mode::from_raw_mode(0o600))
            .map_err(failed("write a secret"))?;
        let mut done = 0;
        while done < data.len() {
            done += rustix::io::write(&file, &data[done..]).map_err(failed("write a secret"))?;
        }
        let owner = (Some(rustix::fs::Uid::from_raw(options.uid)), Some(rustix::fs::Gid::from_raw(options.gid)));
        rustix::fs::fchown(&file, owner.0, owner.1).map_err(failed("write a secret"))?;
        rustix::fs::fchmod(&file, mode).map_err(failed("write a secret"))?;
        rustix::fs::openat(folder, "secret", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open a secret"))
    };
    let source = in_place(|| {
        let file = memory(scene)?;
        scene.place(&file)
    })?;
    request.binds.push(StepBind { source, target, read_only: true });
    Ok(())
}

/// Mounts a socket that leads to the client's agent.
async fn agent(
    job: &Arc<Job>,
    scene: &mut Scene,
    request: &mut StepRequest,
    mount: &pb::Mount,
    target: String,
) -> Result<(), BuildError> {
    let options = mount.ssh_opt.clone().unwrap_or_default();
    let id = if options.id.is_empty() { "default".to_owned() } else { options.id.clone() };
    let session = match &job.session {
        Some(session) if session.check_agent(&id).await.is_ok() => session.clone(),
        _ if options.optional => return Ok(()),
        _ => {
            let text = format!("unset ssh forward key {id}");
            return Err(BuildError::invalid(text));
        }
    };
    let path = scene.folder.join(format!("agent{}", scene.agents.len()));
    let listener = tokio::net::UnixListener::bind(&path)?;
    std::os::unix::fs::chown(&path, Some(options.uid), Some(options.gid))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o777))?;
    scene.agents.push(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(forward(session.clone(), id.clone(), stream));
        }
    }));
    let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open a socket"))?;
    let source = in_place(|| scene.place(&fd))?;
    request.binds.push(StepBind { source, target, read_only: false });
    Ok(())
}

async fn forward(session: Arc<Session>, id: String, stream: tokio::net::UnixStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok((sender, mut receiver)) = session.agent(&id).await else { return };
    let (mut reading, mut writing) = stream.into_split();
    let out = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(n) = reading.read(&mut buffer).await {
            if n == 0 || sender.send(&BytesMessage { data: buffer[..n].to_vec() }).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let back = async {
        while let Ok(Some(message)) = receiver.message::<BytesMessage>().await {
            if writing.write_all(&message.data).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(out, back);
}

/// Which of the places that are mounted to are not there yet, so that what is made for the mounts goes again.
fn stubs(job: &Job, rootfs: &Snapshot, places: &[String]) -> Vec<PathBuf> {
    let Ok(mounts) = job.builder.parts.snapshots.mounts(rootfs, false) else { return Vec::new() };
    let Ok(tree) = Tree::mount(&mounts) else { return Vec::new() };
    let mut missing: Vec<PathBuf> = Vec::new();
    for place in places {
        let path = tree.follow(Path::new(place));
        // What leads there is made as well.
        let absent = path.ancestors().take_while(|p| tree.look(p).is_none());
        missing.extend(absent.map(Path::to_path_buf));
    }
    // What is in a folder goes before it.
    missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    missing.dedup();
    missing
}

/// Removes what was made only to be mounted to, if nothing is in it. Links are not followed: what a step put in place of
/// a folder must not lead anywhere (CVE-2024-23652).
fn clear_stubs(scene: &Scene, rootfs: &Snapshot, missing: &[PathBuf]) -> Result<(), BuildError> {
    if missing.is_empty() {
        return Ok(());
    }
    let tree = Tree::mount(&scene.snapshots.mounts(rootfs, false)?)?;
    for path in missing {
        let Some(name) = path.file_name() else { continue };
        let above = path.parent().unwrap_or(Path::new("/")).strip_prefix("/").unwrap_or(Path::new("."));
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let strict = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        let Ok(folder) = rustix::fs::openat2(tree.root(), above, flags, Mode::empty(), strict) else { continue };
        let Ok(stat) = crate::tree::look_at(folder.as_fd(), name) else { continue };
        let before = rustix::fs::fstat(&folder).ok();
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::REMOVEDIR),
            FileType::RegularFile if stat.st_size == 0 => {
                rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty())
            }
            _ => continue,
        };
        if removed.is_ok()
            && let Some(before) = before
        {
            let time = rustix::fs::Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as _ };
            crate::tree::set_times(folder.as_fd(), time)?;
        }
    }
    Ok(())
}
