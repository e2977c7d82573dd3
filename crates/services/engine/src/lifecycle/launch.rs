//! The blocking half of a start: everything up to a running shim, with its undoing.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_fault::point;
use wharf_network::Sockets;
use wharf_oci::runtime::{NamespaceType, Process};
use wharf_task::{OtherRuntime, Relay, Shim, SpawnRequest};
use wharf_types::Mount;

use super::attach::{Attached, Wanted, write_sandbox};
use super::{Lifecycle, files};
use crate::container::{Container, ContainerRecord, Sandbox, View};
use crate::create::mounts::Source;
use crate::creator::node_name;
use crate::logging::log_config;
use crate::rootfs::Root;
use crate::spec::{self, Identity, Input, Net};
use crate::{EngineError, StartError, identity};

/// The number that the first descriptor has that a shim is given to hold, where it has a network namespace or not.
const HELD: u32 = 6;

/// The option by which a shim shifts the upper layer's owners, too.
const UPPER: &str = "wharf.upper-idmap";

/// Identities kept at most.
const IDENTITIES: usize = 256;

/// A shim that was started, and what belongs to it.
pub(super) struct Launched {
    pub(super) shim: Shim,
    pub(super) rootfs: Vec<Mount>,
    pub(super) sandbox: Option<Arc<Sandbox>>,
    pub(super) process: Arc<Process>,
    /// Whether the shim holds a network namespace that was made for this container.
    pub(super) own_netns: bool,
}

/// How a container gets its network; the joined container is looked up before anything is done.
pub(super) enum NetPlan {
    /// The default bridge and nothing else.
    Bridge,
    /// Any networks.
    Networks(Vec<Wanted>),
    Host,
    None,
    Container(Arc<Container>, u32),
}

impl Lifecycle {
    /// Finds out how the container gets its network, without effects.
    pub(super) fn plan_network(&self, record: &ContainerRecord) -> Result<NetPlan, StartError> {
        if record.config.network_disabled {
            return Ok(NetPlan::None);
        }
        match record.host.network_mode.as_str() {
            "host" => return Ok(NetPlan::Host),
            "none" => return Ok(NetPlan::None),
            mode => {
                if let Some(name) = mode.strip_prefix("container:") {
                    let join = |e: EngineError| StartError::JoinNetwork(Box::new(e));
                    let other = self.registry.find(name).map_err(|e| join(e.into()))?;
                    let task = other.view().task.clone();
                    let task = task.ok_or_else(|| join(EngineError::NotRunning(other.id.to_string())))?;
                    return Ok(NetPlan::Container(other, task.pid));
                }
            }
        }
        // A sandbox that was made before has no policy.
        let plain = || !record.networks.get("bridge").is_some_and(crate::networks::is_limited);
        // Nor does it belong to a user namespace that is joined.
        let joins = |mode: &str| mode.starts_with("container:") && self.config.users_of(&record.host).is_some();
        let alone = !joins(&record.host.pid_mode) && !joins(&record.host.ipc_mode);
        if alone && record.network_names() == ["bridge"] && !crate::networks::egress::has_own(record) && plain() {
            return Ok(NetPlan::Bridge);
        }
        Ok(NetPlan::Networks(self.wanted(record)?))
    }

    /// Namespaces of other containers that are joined.
    fn joined(&self, record: &ContainerRecord) -> Result<Vec<(NamespaceType, PathBuf)>, StartError> {
        let modes =
            [(NamespaceType::Pid, "pid", &record.host.pid_mode), (NamespaceType::Ipc, "ipc", &record.host.ipc_mode)];
        let mut list = Vec::new();
        for (kind, what, mode) in modes {
            let Some(name) = mode.strip_prefix("container:") else { continue };
            let other = self.registry.find(name).ok().and_then(|c| c.view().task.clone());
            let task = other.ok_or_else(|| StartError::Join { what, id: name.to_owned() })?;
            list.push((kind, PathBuf::from(format!("/proc/{}/ns/{what}", task.pid))));
        }
        Ok(list)
    }

    /// The /dev/shm of the container whose IPC namespace is joined.
    fn shared_memory(&self, record: &ContainerRecord) -> Result<Option<OwnedFd>, StartError> {
        let Some(name) = record.host.ipc_mode.strip_prefix("container:") else { return Ok(None) };
        let join = || StartError::Join { what: "ipc", id: name.to_owned() };
        let other = self.registry.find(name).map_err(|_| join())?;
        let view = other.view();
        if matches!(view.record.host.ipc_mode.as_str(), "private" | "none") {
            return Err(StartError::NotShareable(other.id.to_string()));
        }
        let pid = view.task.as_ref().ok_or_else(join)?.pid;
        let mount = crate::files::mount_of(pid, other.id.as_str(), "/dev/shm");
        mount.map(Some).map_err(|source| StartError::ShareMemory { id: other.id.to_string(), source })
    }

    /// The program that makes the container, if it is not our own runtime.
    fn runtime_of(&self, record: &ContainerRecord) -> Result<Option<OtherRuntime>, StartError> {
        let name = record.host.runtime.as_str();
        if crate::config::is_own_runtime(name) {
            return Ok(None);
        }
        let live = self.config.live.get();
        let found = live.runtimes.others.get(name).ok_or_else(|| StartError::NoRuntime(name.to_owned()))?;
        Ok(Some(OtherRuntime { path: in_path(&found.path), args: found.args.clone() }))
    }

    /// Does everything up to a running shim. On error nothing stays.
    pub(super) fn launch(&self, view: &View, plan: &NetPlan) -> Result<Launched, StartError> {
        let record = &view.record;
        let log = log_config(record)?;
        let runtime = self.runtime_of(record)?;
        let joined = self.joined(record)?;
        let mut rootfs = self.snapshots.mounts(&record.snapshot, record.host.auto_remove)?;
        let identity = self.identity(view, &rootfs)?;
        if let Some(users) = self.config.users_of(&record.host) {
            // Layers have the ids that are seen inside, those that containers write as well: the mount shifts them.
            rootfs
                .iter_mut()
                .for_each(|mount| mount.options.extend(users.options().into_iter().chain([UPPER.to_owned()])));
        }
        self.bind_sources(record)?;
        let sources = self.acquire_sources(record)?;
        self.launch_with(view, plan, &log, runtime.as_ref(), &joined, &identity, rootfs, &sources).inspect_err(|_| {
            self.release_sources(record);
            self.forwarders.abandon(record.id.as_str());
        })
    }

    #[allow(clippy::too_many_arguments)] // What was worked out before the first effect.
    fn launch_with(
        &self,
        view: &View,
        plan: &NetPlan,
        log: &wharf_logs::Config,
        runtime: Option<&OtherRuntime>,
        joined: &[(NamespaceType, PathBuf)],
        identity: &Identity,
        rootfs: Vec<Mount>,
        sources: &[PathBuf],
    ) -> Result<Launched, StartError> {
        let record = &view.record;
        self.forwarders.start(&self.config, record, log)?;
        // What an earlier run left that is not committed yet; its facts are in the view.
        self.shims.remove(&record.id).map_err(StartError::Task)?;
        let users = self.config.users_of(&record.host).and_then(|_| users_of(plan, joined));
        let attached = match plan {
            NetPlan::Bridge => self.attach_default(record)?,
            NetPlan::Networks(wanted) => self.attach_all(record, wanted, users.as_deref())?,
            NetPlan::Host | NetPlan::None | NetPlan::Container(..) => Attached::default(),
        };
        point("start.after-attach");
        let sandbox = attached.sandbox.clone().map(Arc::new);
        let spawned = self.spawn(record, plan, attached, log, runtime, joined, identity, sources);
        match spawned {
            Ok((shim, process)) => {
                let own_netns = !matches!(plan, NetPlan::Host | NetPlan::Container(..));
                Ok(Launched { shim, rootfs, sandbox, process: Arc::new(process), own_netns })
            }
            Err(e) => {
                self.undo_launch(record, sandbox.as_deref());
                Err(e)
            }
        }
    }

    /// Takes back what a start made outside the shim. Failures are logged: the start has failed already.
    pub(super) fn undo_launch(&self, record: &ContainerRecord, sandbox: Option<&Sandbox>) {
        if let Err(error) = self.shims.remove(&record.id) {
            tracing::warn!(container = %record.id, %error, "cannot remove the task folder of a failed start");
        }
        self.remove_netns_link(record);
        if let Some(sandbox) = sandbox {
            self.detach_all(record, sandbox);
        }
    }

    #[allow(clippy::too_many_arguments)] // What was worked out before the first effect.
    fn spawn(
        &self,
        record: &ContainerRecord,
        plan: &NetPlan,
        attached: Attached,
        log: &wharf_logs::Config,
        runtime: Option<&OtherRuntime>,
        joined: &[(NamespaceType, PathBuf)],
        identity: &Identity,
        sources: &[PathBuf],
    ) -> Result<(Shim, Process), StartError> {
        let sandbox = attached.sandbox.as_ref();
        let users = self.config.users_of(&record.host).and_then(|_| users_of(plan, joined));
        let links = self.linked(record)?;
        let shm = self.shared_memory(record)?;
        let mut files = match plan {
            NetPlan::Container(other, _) => files::of_other(&self.config, &other.view().record),
            _ => files::write_all(self, record, sandbox)?,
        };
        // The first of the descriptors that the shim holds.
        files.shm = shm.as_ref().map(|_| PathBuf::from(format!("/proc/self/fd/{}", HELD)));
        point("start.after-files");
        let folder = self.shims.prepare(&record.id).map_err(StartError::Task)?;
        if let Some(users) = self.config.users_of(&record.host).filter(|_| runtime.is_some()) {
            // Runtimes of other makers look the root up by its name, as the namespace's root.
            let opened = std::os::unix::fs::chown(folder.path(), None, Some(users.root().1)).and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o710))
            });
            let path = folder.path().to_owned();
            opened.map_err(|source| StartError::File { operation: "open to the runtime", path, source })?;
        }
        if let Some(sandbox) = sandbox {
            write_sandbox(folder.path(), sandbox)?;
        }
        point("start.after-folder");
        let net = match plan {
            // The shim has the prepared namespace as descriptor 5.
            NetPlan::Bridge | NetPlan::Networks(_) | NetPlan::None => Net::Join(PathBuf::from("/proc/self/fd/5")),
            NetPlan::Host => Net::Host,
            NetPlan::Container(_, pid) => Net::Join(PathBuf::from(format!("/proc/{pid}/ns/net"))),
        };
        let mut config = std::borrow::Cow::Borrowed(&record.config);
        if !links.is_empty() {
            let own = record.config.env.iter().flatten().cloned();
            let all = links.iter().flat_map(|l| l.environment(&record.name)).chain(own).collect();
            config.to_mut().env = Some(all);
        }
        let built = spec::build(&Input {
            engine: &self.config,
            id: record.id.as_str(),
            config: &config,
            host: &record.host,
            args: record.command(),
            identity,
            points: &record.points,
            sources,
            recursive_read_only: self.recursive_read_only,
            net,
            joined,
            users: users.clone(),
            host_name: &node_name(),
            files: &files,
            cgroup_v2: self.cgroup_v2,
        })?;
        let json = serde_json::to_vec(&built).unwrap_or_default();
        folder.write_config(&json).map_err(StartError::Task)?;
        let Sockets { hold, relays } = attached.sockets;
        let netns = match attached.netns {
            None if matches!(plan, NetPlan::None) => Some(self.solitary(users.as_deref())?),
            netns => netns,
        };
        let hold: Vec<OwnedFd> = shm.into_iter().chain(hold).collect();
        let log_dir = open_folder(&self.config.container_folder(&record.id))?;
        point("start.before-spawn");
        let shim = self.shims.spawn(SpawnRequest {
            folder,
            log_dir: log_dir.as_fd(),
            log,
            netns: netns.as_ref().map(|n| n.as_fd()),
            hold,
            relays: relays.into_iter().map(|r| Relay { listener: r.fd, to: r.to }).collect(),
            runtime,
        });
        let shim = shim.map_err(StartError::Task)?;
        point("start.after-spawn");
        Ok((shim, built.process.unwrap_or_default()))
    }

    pub(super) fn gateway(&self) -> Option<IpAddr> {
        self.networks.bridge().map(|b| IpAddr::V4(b.gateway))
    }

    /// Looks the user up. A container that never ran still has the image's files, so those of earlier lookups serve.
    fn identity(&self, view: &View, rootfs: &[Mount]) -> Result<Identity, StartError> {
        let record = &view.record;
        let add = record.host.group_add.as_deref().unwrap_or_default();
        let fresh = view.state.started_at.is_zero();
        let key = format!("{}\0{}\0{}", record.image, record.config.user, add.join("\0"));
        let kept = || self.identities.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if fresh && let Some(found) = kept().get(&key) {
            return Ok(found.clone());
        }
        let root = Root::of_mounts(rootfs).map_err(StartError::Root)?;
        let found = identity::look_up(&record.config.user, add, &root)?;
        if fresh {
            let mut map = kept();
            if map.len() >= IDENTITIES {
                map.clear();
            }
            map.insert(key, found.clone());
        }
        Ok(found)
    }

    /// Makes missing folders that `-v` names on the host.
    fn bind_sources(&self, record: &ContainerRecord) -> Result<(), StartError> {
        for point in &record.points {
            let Source::Bind { path, create: true } = &point.source else { continue };
            if std::fs::symlink_metadata(path).is_err() {
                std::fs::create_dir_all(path)
                    .map_err(|e| StartError::BindSource { path: path.clone(), reason: spec::lower(&e) })?;
            }
        }
        Ok(())
    }

    /// Where nsenter(1) and ip-netns(8) find the namespace.
    pub(crate) fn netns_link(&self, record: &ContainerRecord) -> PathBuf {
        self.config.exec_root.join("netns").join(record.id.short())
    }

    pub(super) fn make_netns_link(&self, record: &ContainerRecord, shim: u32) {
        let link = self.netns_link(record);
        let _ = std::fs::remove_file(&link);
        if let Err(error) = std::os::unix::fs::symlink(format!("/proc/{shim}/fd/5"), &link) {
            tracing::warn!(container = %record.id, %error, "cannot link the network namespace");
        }
    }

    pub(crate) fn remove_netns_link(&self, record: &ContainerRecord) {
        // There is none with the host's network or none at all.
        let _ = std::fs::remove_file(self.netns_link(record));
    }
}

/// The user namespace of the container whose other namespaces are joined: they belong to it.
fn users_of(plan: &NetPlan, joined: &[(NamespaceType, PathBuf)]) -> Option<PathBuf> {
    if let NetPlan::Container(_, pid) = plan {
        return Some(PathBuf::from(format!("/proc/{pid}/ns/user")));
    }
    joined.first().map(|(_, path)| path.with_file_name("user"))
}

/// A program by its name alone, as dockerd's `PATH` has it; one that is not there stays a name, which the start then reports.
fn in_path(name: &str) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.map_or_else(|| name.to_owned(), |file| file.to_string_lossy().into_owned())
}

fn open_folder(path: &Path) -> Result<OwnedFd, StartError> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |e: rustix::io::Errno| StartError::File { operation: "open", path: path.to_owned(), source: e.into() };
    open(path, flags, Mode::empty()).map_err(failed)
}
