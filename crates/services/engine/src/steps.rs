//! Steps of builds: processes that run once upon a snapshot, by the same task path as containers, without a record.
//!
//! A step has a shim, a cgroup and a place in the network as a container has. What a killed daemon leaves of it is
//! ended at the next start as a task whose container is gone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use wharf_api_types::{ContainerConfig, HostConfig, Ulimit};
use wharf_network::{
    Attachment, EndpointRequest, HostsEntry, ResolvMode, ResolvOptions, hosts_file, resolv_conf, resolv_conf_path,
};
use wharf_task::{AttachRequest, CreateRequest, Shim, SpawnRequest, Stdin};
use wharf_types::{ContainerId, Mount, Signal};

use crate::create::mounts::{Depth, Point, Source};
use crate::create::request::defaults;
use crate::lifecycle::Lifecycle;
use crate::rootfs::Root;
use crate::spec::{self, Files, Input, Net};
use crate::{EngineError, StartError, blocking, identity};

/// The network of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// The default bridge.
    #[default]
    Bridge,
    /// Only loopback.
    None,
    /// The host's.
    Host,
}

/// A folder or file that a step sees.
#[derive(Clone, Debug)]
pub struct StepBind {
    /// On the host; the engine's own paths only.
    pub source: PathBuf,
    /// In the step.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// A process to run.
#[derive(Clone, Debug, Default)]
pub struct StepRequest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// Working folder.
    pub cwd: String,
    /// Who runs it, as in `USER`.
    pub user: String,
    /// Its host name.
    pub hostname: String,
    /// Mounts that make the root.
    pub rootfs: Vec<Mount>,
    /// Whether the root cannot be written.
    pub read_only: bool,
    /// Folders and files.
    pub binds: Vec<StepBind>,
    /// Places in memory, with options.
    pub tmpfs: Vec<(String, Vec<String>)>,
    /// The network.
    pub network: StepNetwork,
    /// Whether everything is allowed (`--security=insecure`).
    pub privileged: bool,
    /// Further names in /etc/hosts.
    pub hosts: Vec<(String, String)>,
    /// Limits.
    pub ulimits: Vec<Ulimit>,
    /// Below which cgroup; empty is the daemon's default.
    pub cgroup_parent: String,
    /// Size of /dev/shm, 0 is the default.
    pub shm_size: i64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// Whether it was killed for want of memory.
    pub oom: bool,
    /// Whether it was ended because nobody waits for it any more.
    pub cancelled: bool,
}

/// A piece of output: 1 for stdout, 2 for stderr.
pub type StepOutput = (u8, Vec<u8>);

/// What a step reads; its end is the end of its input.
pub type StepInput = Box<dyn AsyncRead + Send + Unpin>;

/// Runs steps.
#[derive(Clone)]
pub struct Steps {
    pub(crate) lifecycle: Arc<Lifecycle>,
}

impl Steps {
    /// Runs a step to its end. Dropping the future kills it; what it had is cleared away in any case.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run(&self, request: StepRequest, output: mpsc::Sender<StepOutput>) -> Result<StepEnd, EngineError> {
        self.converse(request, None, output).await
    }

    /// As [`Steps::run`], with input.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn converse(
        &self,
        request: StepRequest,
        input: Option<StepInput>,
        output: mpsc::Sender<StepOutput>,
    ) -> Result<StepEnd, EngineError> {
        let (waiting, gone) = oneshot::channel::<()>();
        let steps = self.clone();
        let work = tokio::spawn(async move { steps.carry_out(request, input, output, gone).await });
        let end = work.await.map_err(|_| EngineError::Worker)?;
        drop(waiting);
        end
    }

    async fn carry_out(
        &self,
        request: StepRequest,
        input: Option<StepInput>,
        output: mpsc::Sender<StepOutput>,
        gone: oneshot::Receiver<()>,
    ) -> Result<StepEnd, EngineError> {
        let id = ContainerId::from_bytes(crate::random_bytes());
        let folder = self.lifecycle.config.exec_root.join("steps").join(id.as_str());
        let launched = {
            let (this, request, id, folder) = (self.clone(), request.clone(), id.clone(), folder.clone());
            let work = move || {
                let runtime = tokio::runtime::Handle::current();
                let _within = runtime.enter();
                this.launch(&request, &id, &folder)
            };
            blocking(work).await?
        };
        let (shim, endpoint) = match launched {
            Ok(launched) => launched,
            Err(e) => {
                self.clear(&id, &folder, None).await;
                return Err(e.into());
            }
        };
        let ended = self.attend(&shim, request.rootfs, input, output, gone).await;
        // Failures to end a shim that is gone already mean nothing.
        let _ = shim.delete(None).await;
        if shim.shutdown().await.is_ok() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), shim.gone()).await;
        }
        self.clear(&id, &folder, endpoint).await;
        Ok(ended?)
    }

    /// Creates, starts, passes output on and waits.
    async fn attend(
        &self,
        shim: &Shim,
        rootfs: Vec<Mount>,
        input: Option<StepInput>,
        output: mpsc::Sender<StepOutput>,
        mut gone: oneshot::Receiver<()>,
    ) -> Result<StepEnd, StartError> {
        let stdin = if input.is_some() { Stdin::Once } else { Stdin::Null };
        shim.create(CreateRequest { rootfs, stdin, ..CreateRequest::default() }).await.map_err(StartError::Task)?;
        let given = input.is_some();
        let wanted = AttachRequest { stdin: given, stdout: true, stderr: true, from_start: true, whole_line: false };
        let attached = shim.attach(None, wanted).await.map_err(StartError::Task)?;
        shim.start(None).await.map_err(StartError::Task)?;
        let (from, to) = attached.stream.into_split();
        let reading = tokio::spawn(pass_on(from, output));
        let writing = tokio::spawn(feed(input, to));
        let mut cancelled = false;
        let exit = loop {
            tokio::select! {
                exit = shim.wait(None) => break exit.map_err(StartError::Task)?,
                _ = &mut gone, if !cancelled => {
                    cancelled = true;
                    // If it has ended meanwhile, Wait tells.
                    let _ = shim.kill(None, Signal::KILL, true).await;
                }
            }
        };
        // The stream ends when all was delivered; who does not read any more ends it too.
        let _ = reading.await;
        // Nobody reads any more what is still to be read.
        writing.abort();
        Ok(StepEnd { status: exit.status, oom: exit.oom, cancelled })
    }

    /// Starts the shim with everything it needs; blocking.
    fn launch(
        &self,
        request: &StepRequest,
        id: &ContainerId,
        folder: &Path,
    ) -> Result<(Shim, Option<wharf_network::Endpoint>), StartError> {
        let life = &self.lifecycle;
        let failed = |operation: &'static str| {
            let path = folder.to_owned();
            move |source| StartError::File { operation, path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("make"))?;
        let root = Root::of_mounts(&request.rootfs).map_err(StartError::Root)?;
        let identity = identity::look_up(&request.user, &[], &root)?;
        let attachment = match request.network {
            StepNetwork::Bridge if life.networks.bridge().is_some() => {
                let wanted = EndpointRequest {
                    container: id.clone(),
                    name: id.short().to_owned(),
                    mac: None,
                    ports: Vec::new(),
                };
                Some(life.networks.attach(&wanted).map_err(StartError::Network)?)
            }
            _ => None,
        };
        let endpoint = attachment.as_ref().map(|a| a.endpoint.clone());
        match self.spawn(request, id, folder, attachment, &identity) {
            Ok(shim) => Ok((shim, endpoint)),
            Err(e) => {
                if let Some(endpoint) = &endpoint
                    && let Err(error) = life.networks.detach(endpoint)
                {
                    tracing::warn!(step = %id, %error, "cannot detach the network of a step that failed to start");
                }
                Err(e)
            }
        }
    }

    fn spawn(
        &self,
        request: &StepRequest,
        id: &ContainerId,
        folder: &Path,
        attachment: Option<Attachment>,
        identity: &spec::Identity,
    ) -> Result<Shim, StartError> {
        let life = &self.lifecycle;
        let on_host = request.network == StepNetwork::Host;
        let files = self.files(request, folder, attachment.as_ref())?;
        let config = ContainerConfig {
            hostname: request.hostname.clone(),
            user: request.user.clone(),
            env: Some(request.env.clone()),
            working_dir: request.cwd.clone(),
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            privileged: request.privileged,
            readonly_rootfs: request.read_only,
            network_mode: if on_host { "host".to_owned() } else { String::new() },
            ulimits: Some(request.ulimits.clone()).filter(|u| !u.is_empty()),
            cgroup_parent: request.cgroup_parent.clone(),
            shm_size: request.shm_size,
            init: Some(false),
            // What a step mounts beside its root are trees of layers, whose owners cannot be shifted once they are mounted.
            userns_mode: "host".to_owned(),
            ..HostConfig::default()
        };
        defaults(&mut host, &life.config);
        let points: Vec<Point> = points(request);
        let sources: Vec<PathBuf> = points.iter().map(path_of).collect();
        let built = spec::build(&Input {
            engine: &life.config,
            id: id.as_str(),
            config: &config,
            host: &host,
            args: request.args.clone(),
            identity,
            points: &points,
            sources: &sources,
            recursive_read_only: life.recursive_read_only,
            net: if on_host { Net::Host } else { Net::Join(PathBuf::from("/proc/self/fd/5")) },
            joined: &[],
            users: None,
            host_name: &request.hostname,
            files: &files,
            cgroup_v2: life.cgroup_v2,
        })?;
        life.shims.remove(id).map_err(StartError::Task)?;
        let task = life.shims.prepare(id).map_err(StartError::Task)?;
        task.write_config(&serde_json::to_vec(&built).unwrap_or_default()).map_err(StartError::Task)?;
        // Nothing of a step is published, so its place in the network has no sockets.
        let netns = match attachment {
            Some(a) => Some(a.netns),
            None if on_host => None,
            None => Some(life.networks.solitary().map_err(StartError::Network)?),
        };
        let log_dir = open_folder(folder)?;
        let none = wharf_logs::Config::parse("none", std::iter::empty()).map_err(|e| StartError::Log(e.into()))?;
        let spawned = life.shims.spawn(SpawnRequest {
            folder: task,
            log_dir: log_dir.as_fd(),
            log: &none,
            netns: netns.as_ref().map(AsFd::as_fd),
            hold: Vec::new(),
            relays: Vec::new(),
            runtime: None,
        });
        spawned.map_err(StartError::Task)
    }

    fn files(
        &self,
        request: &StepRequest,
        folder: &Path,
        attachment: Option<&Attachment>,
    ) -> Result<Files, StartError> {
        let life = &self.lifecycle;
        let own: Vec<IpAddr> = attachment.and_then(|a| a.endpoint.ipv4).map(|c| c.address()).into_iter().collect();
        let gateway = life.networks.bridge().map(|b| IpAddr::V4(b.gateway));
        let entry = |(name, address): &(String, String)| {
            let address = match address.as_str() {
                "host-gateway" => life.config.host_gateway.first().copied().or(gateway)?,
                text => text.trim_matches(['[', ']']).parse().ok()?,
            };
            Some(HostsEntry { address, name: name.clone() })
        };
        let extra: Vec<HostsEntry> = request.hosts.iter().filter_map(entry).collect();
        let on_host = request.network == StepNetwork::Host;
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let source = if on_host { "/etc/resolv.conf" } else { resolv_conf_path(&text) };
        let text = std::fs::read_to_string(source).unwrap_or_default();
        let ipv6 = attachment.is_some_and(|a| a.endpoint.ipv6.is_some());
        let mode = if on_host { ResolvMode::Host } else { ResolvMode::Bridge { ipv6 } };
        let options = ResolvOptions {
            servers: life.config.dns.clone(),
            search: life.config.dns_search.clone(),
            options: life.config.dns_options.clone(),
        };
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            match std::fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(source) => Err(StartError::File { operation: "write", path, source }),
            }
        };
        Ok(Files {
            resolv_conf: Some(write("resolv.conf", &resolv_conf(&text, source, mode, &options))?),
            hostname: None,
            hosts: Some(write("hosts", &hosts_file(&own, &request.hostname, "", &extra))?),
            shm: None,
        })
    }

    /// Takes away what a step had outside its snapshot. Failures are logged; a restart clears up as well.
    async fn clear(&self, id: &ContainerId, folder: &Path, endpoint: Option<wharf_network::Endpoint>) {
        let (this, id, folder) = (self.clone(), id.clone(), folder.to_owned());
        let work = move || {
            let life = &this.lifecycle;
            if let Some(endpoint) = &endpoint
                && let Err(error) = life.networks.detach(endpoint)
            {
                tracing::warn!(step = %id, %error, "cannot detach the network of a step");
            }
            if let Err(error) = life.shims.remove(&id) {
                tracing::warn!(step = %id, %error, "cannot remove the task folder of a step");
            }
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(step = %id, %error, "cannot remove the folder of a step");
            }
        };
        // It fails only while the daemon ends.
        let _ = blocking(work).await;
    }
}

/// Takes away what steps of a killed daemon had mounted. Their processes are ended like those of stray tasks.
pub(crate) fn clear_all(folder: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is the mount point, with blanks as octal (proc(5)).
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(|p| p.replace("\\040", " "));
    let mut below: Vec<PathBuf> = points.map(PathBuf::from).filter(|p| p.starts_with(folder) && p != folder).collect();
    below.sort();
    for point in below.iter().rev() {
        if let Err(error) = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
            tracing::warn!(%error, path = %point.display(), "cannot unmount what a build step left");
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %folder.display(), "cannot remove what build steps left");
        }
        _ => {}
    }
}

/// The path of the host that is mounted at a point; empty for memory.
fn path_of(point: &Point) -> PathBuf {
    match &point.source {
        Source::Bind { path, .. } => PathBuf::from(path),
        _ => PathBuf::new(),
    }
}

fn points(request: &StepRequest) -> Vec<Point> {
    let point = |target: &str, source: Source, read_only: bool| Point {
        target: target.to_owned(),
        source,
        read_only,
        read_only_depth: Depth::Possible,
        mode: String::new(),
        propagation: String::new(),
        non_recursive: false,
        labels: BTreeMap::new(),
        explicit: true,
    };
    let binds = request.binds.iter().map(|b| {
        let source = Source::Bind { path: b.source.to_string_lossy().into_owned(), create: false };
        point(&b.target, source, b.read_only)
    });
    let tmpfs = request.tmpfs.iter().map(|(t, o)| point(t, Source::Tmpfs { options: o.clone() }, false));
    binds.chain(tmpfs).collect()
}

/// Undoes the framing of stdout and stderr (stdcopy: stream byte, three zeros, length).
async fn pass_on(mut stream: OwnedReadHalf, output: mpsc::Sender<StepOutput>) {
    loop {
        let mut head = [0; 8];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let size = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut data = vec![0; size.min(1 << 20)];
        let mut left = size;
        while left > 0 {
            let part = left.min(data.len());
            if stream.read_exact(&mut data[..part]).await.is_err() {
                return;
            }
            left -= part;
            // Nobody may be listening any more; the process goes on to its end all the same.
            let _ = output.send((head[0], data[..part].to_vec())).await;
        }
    }
}

/// Passes input on; holds the writing end otherwise, since its end would end the attachment's.
async fn feed(input: Option<StepInput>, mut to: OwnedWriteHalf) {
    let Some(mut input) = input else { return std::future::pending().await };
    // Who does not read its input any more is not owed it.
    let _ = tokio::io::copy(&mut input, &mut to).await;
    let _ = to.shutdown().await;
}

fn open_folder(path: &Path) -> Result<OwnedFd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |e: rustix::io::Errno| StartError::File { operation: "open", path: path.to_owned(), source: e.into() };
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed)
}
