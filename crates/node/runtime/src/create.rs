//! The caller's side of making a container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_cgroup::Cgroup;
use wharf_cgroup::systemd::Scope;
use wharf_oci::runtime as oci;
use wharf_seccomp::Program;
use wharf_sys::clone::{self, Cloned, clone3, flags};
use wharf_types::{Failure, Stage};

use crate::affinity::Affinity;
use crate::container::{Container, Shared};
use crate::failure::{OrFail, refuse};
use crate::gate::Waiting;
use crate::host::Proc;
use crate::init::{self, InitPlan};
use crate::mounting::{CgroupView, PlannedMount};
use crate::namespaces::{Birthplace, Namespaces, become_root};
use crate::options::{self, Options, ms};
use crate::process::{ProcessPlan, Surroundings, limit};
use crate::wire::{self, Channel, Message};
use crate::{CreateRequest, Gate, Stdio, ahead, device, hook, idmap, net_device, notify, rdt, rootfs, sysctl};

/// How long a failed creation waits for its cgroup to become empty.
const UNDO: Duration = Duration::from_secs(2);

/// Makes a container: its cgroup, its namespaces and its first process, prepared and waiting at the gate.
///
/// Errors: all of preparation, including the look-up of the command. Nothing is left behind then.
pub fn create(request: CreateRequest<'_>) -> Result<Container, Failure> {
    let nothing = (oci::Linux::default(), oci::Hooks::default());
    let linux = request.spec.linux.as_ref().unwrap_or(&nothing.0);
    let hooks = request.spec.hooks.as_ref().unwrap_or(&nothing.1);
    let filter = compile(linux)?;
    let own_cgroup;
    let path = match linux.cgroups_path.as_deref() {
        Some(path) if !path.is_empty() => path,
        _ => {
            own_cgroup = format!("/{}", request.id);
            &own_cgroup
        }
    };
    let layout = ahead::layout().map_err(cgroup_failure)?;
    let proc = Proc::open()?;
    let root_path = root_path(&request)?;
    let draft = Draft { request: &request, linux, hooks, root_path: &root_path, filter: filter.as_ref() };
    // Everything that can be wrong with the request is found before the first effect.
    let early = draft.early()?;
    let resources = linux.resources.clone().unwrap_or_default();
    let mut placeholder = None;
    let made = if request.systemd {
        let scope =
            Scope::parse(linux.cgroups_path.as_deref().unwrap_or_default(), request.id).map_err(cgroup_failure)?;
        Cgroup::create_scope(&layout, &scope, &resources).map(|(group, path, keeper)| {
            placeholder = Some((keeper, path));
            group
        })
    } else {
        Cgroup::create(&layout, path, &resources)
    };
    let cgroup = match made {
        // A user who may make no group goes without, as long as nothing was asked of it.
        Err(e) if request.rootless && e.is_denied() && limits_nothing(&resources) => Cgroup::none(&layout),
        other => other.map_err(cgroup_failure)?,
    };
    let result = draft.finish(early, proc, &cgroup).and_then(|plan| {
        let (waiting, by_caller) = match &request.gate {
            Gate::Caller => (Waiting::Channel, true),
            Gate::Socket(fd) => (Waiting::Listener(duplicate(fd.as_fd())?), false),
        };
        birth(&plan, waiting).map(|born| (born, by_caller, plan.state))
    });
    let scope_path = placeholder.map(|(keeper, path)| {
        // From here on the container keeps its scope alive, or nobody does.
        drop(keeper);
        path
    });
    match result {
        Ok((born, by_caller, state)) => Ok(Container {
            pid: born.pid,
            pidfd: born.pidfd,
            console: born.console,
            gate: by_caller.then_some(born.channel),
            cgroup,
            scope_path,
            shared: Shared::new(linux, hooks, state, filter, !request.no_new_keyring, request.netns.is_some()),
        }),
        Err(failure) => {
            let _ = cgroup.kill_all();
            // The failure is what the caller must hear; a group that cannot be removed is found by its name later.
            let _ = cgroup.delete(Instant::now() + UNDO);
            Err(failure)
        }
    }
}

/// Whether no limit is asked for. Device rules are none: without privileges no node can be made that they would deny.
fn limits_nothing(resources: &oci::LinuxResources) -> bool {
    oci::LinuxResources { devices: Vec::new(), ..resources.clone() } == oci::LinuxResources::default()
}

pub(crate) fn compile(linux: &oci::Linux) -> Result<Option<Program>, Failure> {
    let Some(profile) = &linux.seccomp else { return Ok(None) };
    let program = ahead::filter(profile).map_err(|e| refuse(Stage::Seccomp, e.to_string()))?;
    // A filter that lets everything through is none; runc leaves it out in the same way.
    let everything = profile.default_action == oci::SeccompAction::Allow && profile.syscalls.is_empty();
    Ok((!everything).then_some(program))
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).or_fail(Stage::Process, || "duplicate descriptor")
}

/// A cgroup's error as failure.
pub(crate) fn cgroup_failure(e: wharf_cgroup::CgroupError) -> Failure {
    let errno = std::error::Error::source(&e)
        .and_then(|s| s.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    // What the kernel did not say has no number, only words.
    let words = std::error::Error::source(&e).filter(|_| errno.is_none()).map(|source| format!(": {source}"));
    Failure { stage: Stage::Cgroup, errno: errno.unwrap_or(0), subject: format!("{e}{}", words.unwrap_or_default()) }
}

fn root_path(request: &CreateRequest<'_>) -> Result<PathBuf, Failure> {
    let root = request.spec.root.as_ref().ok_or_else(|| refuse(Stage::Config, "root is missing"))?;
    let path = request.bundle.join(&root.path);
    // Canonical, as the root is found again among the mounts by its name.
    path.canonicalize().or_fail(Stage::Rootfs, || format!("invalid rootfs {}", path.display()))
}

/// A request on its way to a plan.
struct Draft<'a> {
    request: &'a CreateRequest<'a>,
    linux: &'a oci::Linux,
    hooks: &'a oci::Hooks,
    root_path: &'a Path,
    filter: Option<&'a Program>,
}

/// What is known before the cgroup is made.
struct Early<'a> {
    namespaces: Namespaces<'a>,
    process: ProcessPlan<'a>,
    propagation: u64,
    sysctls: Vec<(PathBuf, String)>,
    devices: Vec<net_device::Device>,
    label: Option<String>,
    rdt: Option<rdt::Class>,
    state: oci::State,
}

impl<'a> Draft<'a> {
    fn early(&self) -> Result<Early<'a>, Failure> {
        let Draft { request, linux, .. } = self;
        let spec = request.spec;
        let process = spec.process.as_ref().ok_or_else(|| refuse(Stage::Config, "process is missing"))?;
        Affinity::plan(process)?;
        hook::check(self.hooks)?;
        let label = mount_label(linux)?;
        let rdt = linux.intel_rdt.as_ref().map(|asked| rdt::plan(asked, request.id)).transpose()?;
        let namespaces = Namespaces::plan(linux, request.netns)?;
        if !idmap::is_privileged() && !namespaces.has(flags::NEWUSER) {
            return Err(refuse(Stage::Config, "rootless container requires user namespaces"));
        }
        if namespaces.new & flags::NEWNS == 0 {
            return Err(refuse(Stage::Config, "a mount namespace of the container's own is required"));
        }
        let named = spec.hostname.as_deref().or(spec.domainname.as_deref()).is_some_and(|n| !n.is_empty());
        if named && !namespaces.has(flags::NEWUTS) {
            return Err(refuse(Stage::Config, "unable to set hostname without a private UTS namespace"));
        }
        let propagation = match linux.rootfs_propagation.as_deref() {
            None | Some("") => ms::SLAVE | ms::REC,
            Some(word) => options::propagation(word)
                .ok_or_else(|| refuse(Stage::Config, format!("rootfsPropagation={word} is not supported")))?,
        };
        let around = Surroundings {
            id: request.id,
            linux,
            filter: self.filter,
            preserve_fds: request.preserve_fds,
            keyring: !request.no_new_keyring,
            user_namespace: namespaces.has(flags::NEWUSER),
        };
        let bundle = request.bundle.canonicalize();
        let bundle = bundle.or_fail(Stage::Config, || format!("bundle {}", request.bundle.display()))?;
        let state = oci::State {
            oci_version: oci::VERSION.to_owned(),
            id: request.id.to_owned(),
            status: oci::Status::Creating,
            pid: None,
            bundle,
            annotations: spec.annotations.clone(),
        };
        let mut process = ProcessPlan::new(process, around)?;
        if let Some(agent) = notify::Address::of(linux.seccomp.as_ref(), self.filter) {
            process.agent = Some(agent.connect(&state)?);
        }
        Ok(Early {
            process,
            propagation,
            sysctls: sysctl::plan(linux, &namespaces)?,
            devices: net_device::plan(linux, &namespaces)?,
            label,
            rdt,
            namespaces,
            state,
        })
    }

    fn finish(&self, early: Early<'a>, proc: Proc, cgroup: &Cgroup) -> Result<InitPlan<'a>, Failure> {
        let Draft { request, linux, hooks, root_path, .. } = self;
        let Early { namespaces, process, propagation, sysctls, devices, label, rdt, state } = early;
        // What the caller may do for a child that may not: only with privileges of its own.
        let mapped = namespaces.has(flags::NEWUSER) && idmap::is_privileged();
        let mounts: Vec<PlannedMount<'a>> =
            request.spec.mounts.iter().map(|m| self.mount(m, mapped, label.as_deref())).collect::<Result<_, _>>()?;
        let own_dev = mounts.iter().any(|m| m.is_dev() && m.options.bind);
        Ok(InitPlan {
            spec: request.spec,
            linux,
            hooks,
            state,
            entrance: cgroup.entrance().map_err(cgroup_failure)?,
            cgroup_view: CgroupView {
                folders: cgroup.paths(),
                unified: cgroup.mode() == wharf_cgroup::Mode::V2,
                namespace: namespaces.has(flags::NEWCGROUP),
            },
            proc,
            propagation,
            parts: rootfs::plan(request.rootfs_mounts, mapped)?,
            root_path,
            read_only: request.spec.root.as_ref().is_some_and(|r| r.readonly),
            mounts,
            nodes: if own_dev {
                None
            } else {
                Some(device::plan(&linux.devices, namespaces.has(flags::NEWUSER), mapped)?)
            },
            namespaces,
            sysctls,
            process,
            devices,
            rdt,
            streams: match request.stdio {
                Stdio::Descriptors(fds) => Some(fds),
                Stdio::Terminal => None,
            },
            no_pivot: request.no_pivot,
        })
    }

    fn mount(&self, mount: &'a oci::Mount, mapped: bool, label: Option<&str>) -> Result<PlannedMount<'a>, Failure> {
        let mut options = Options::parse(&mount.options);
        let kind = mount.kind.as_deref().unwrap_or("none");
        options.bind |= kind == "bind";
        // The rest has labels of its own, or none.
        let labelled = !options.bind && !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        options.data.extend(label.filter(|_| labelled).map(|label| format!("context={label:?}")));
        if !mount.destination.is_absolute() {
            let text = format!("invalid mount destination {}: not absolute", mount.destination.display());
            return Err(refuse(Stage::Config, text));
        }
        let mut source = mount.source.clone().unwrap_or_default();
        if options.bind && source.is_relative() {
            source = self.request.bundle.join(source);
        }
        let own_map = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if own_map && options.id_map.is_none() {
            options.id_map = Some(false);
        }
        let id_map = match options.id_map {
            None => None,
            Some(_) if !options.bind => {
                return Err(refuse(Stage::Config, "id-mapped mounts are only supported for bind mounts"));
            }
            Some(_) if own_map => Some(idmap::namespace(&mount.uid_mappings, &mount.gid_mappings)?),
            Some(_) => Some(idmap::namespace(&self.linux.uid_mappings, &self.linux.gid_mappings)?),
        };
        let mut planned = PlannedMount { destination: &mount.destination, kind, source, options, tree: None, id_map };
        // A child in a user namespace may not reach the source, nor map ids; the caller may.
        if planned.options.bind && (mapped || planned.id_map.is_some()) {
            let tree = planned.source_tree();
            planned.tree = Some(tree.or_fail(Stage::Mount, || planned.failed())?);
        }
        Ok(planned)
    }
}

/// What the process runs under if labels are asked for: runc refuses them on a host without SELinux, in these words.
fn mount_label(linux: &oci::Linux) -> Result<Option<String>, Failure> {
    let Some(label) = linux.mount_label.as_deref().filter(|label| !label.is_empty()) else { return Ok(None) };
    if !crate::process::has_selinux() {
        let text = "selinux label is specified in config, but selinux is disabled or not supported";
        return Err(refuse(Stage::Label, text));
    }
    Ok(Some(label.to_owned()))
}

/// A first process that is ready.
struct Born {
    pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    console: Option<OwnedFd>,
}

fn birth(plan: &InitPlan<'_>, waiting: Waiting) -> Result<Born, Failure> {
    let (ours, theirs) = wire::pair().or_fail(Stage::Process, || "socket pair")?;
    let home = plan.in_working_directory().then(|| Home::leave_for(plan.root_path)).transpose()?;
    let place = Birthplace::for_create(&plan.namespaces)?;
    let target = plan.entrance.clone_target();
    let user = plan.namespaces.joined_user();
    let first = if user.is_some() { 0 } else { plan.namespaces.at_clone() };
    let (cloned, into) = clone_into(first, target)?;
    let (mut pid, mut pidfd) = match cloned {
        Cloned::Child => {
            drop(ours);
            // Their drop would go back to the caller's namespaces and folder.
            std::mem::forget((place, home));
            match user {
                Some(user) => stand_in(plan, user, theirs, waiting, into),
                None => init::run(plan, theirs, waiting, into),
            }
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((place, home, theirs));
    if user.is_some() {
        (pid, pidfd) = receive_process(&ours, &pidfd)?;
    }
    match attend(plan, pid, &ours) {
        Ok(console) => Ok(Born { pid, pidfd, channel: ours, console }),
        Err(failure) => {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            // All processes of its pid namespace die before it can be waited for.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            Err(failure)
        }
    }
}

/// The caller's working directory while the first process is born in another one.
struct Home(OwnedFd);

impl Home {
    fn leave_for(folder: &Path) -> Result<Self, Failure> {
        let failed = || format!("enter {}", folder.display());
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let own = crate::mounting::open_host(Path::new("."), flags).or_fail(Stage::Rootfs, failed)?;
        rustix::process::chdir(folder).or_fail(Stage::Rootfs, failed)?;
        Ok(Self(own))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It was ours a moment ago; relative paths of the caller would lead elsewhere.
        if let Err(e) = rustix::process::fchdir(&self.0) {
            eprintln!("cannot return to own folder: {e}");
            std::process::abort();
        }
    }
}

/// In a child that joins a user namespace only to make the container's first process in it, as its own sibling.
fn stand_in(plan: &InitPlan<'_>, user: BorrowedFd<'_>, channel: Channel, waiting: Waiting, cloned_into: bool) -> ! {
    let made = clone::setns(user, flags::NEWUSER)
        .or_fail(Stage::Namespace, || "join user namespace")
        .and_then(|()| become_root())
        .and_then(|()| clone3(plan.namespaces.at_clone() | flags::PARENT, None).or_fail(Stage::Namespace, || "clone3"));
    // Nobody is left to tell if telling fails.
    let _ = match made {
        Ok(Cloned::Child) => init::run(plan, channel, waiting, cloned_into),
        Ok(Cloned::Parent { pidfd, .. }) => channel.process(pidfd.as_fd()),
        Err(failure) => channel.failed(&failure),
    };
    clone::exit_now(0)
}

/// Takes the process that a stand-in made, and reaps the stand-in.
pub(crate) fn receive_process(channel: &Channel, stand_in: &OwnedFd) -> Result<(i32, OwnedFd), Failure> {
    let failed = || "receive the container's first process";
    let message = channel.receive().or_fail(Stage::Process, failed);
    waitid(WaitId::PidFd(stand_in.as_fd()), WaitIdOptions::EXITED).or_fail(Stage::Process, failed)?;
    let pidfd = match message? {
        Message::Process(pidfd) => pidfd,
        Message::Failed(failure) => return Err(failure),
        other => return Err(refuse(Stage::Process, format!("unexpected message {other:?}"))),
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let info = info.or_fail(Stage::Process, failed)?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok());
    Ok((pid.ok_or_else(|| refuse(Stage::Process, failed()))?, pidfd))
}

/// Clones into the cgroup if it can be; a hierarchy of v2 that does not allow it is entered by writing.
pub(crate) fn clone_into(flags: u64, target: Option<BorrowedFd<'_>>) -> Result<(Cloned, bool), Failure> {
    let failed = || "clone3";
    match clone3(flags, target) {
        Err(_) if target.is_some() => Ok((clone3(flags, None).or_fail(Stage::Namespace, failed)?, false)),
        other => Ok((other.or_fail(Stage::Namespace, failed)?, target.is_some())),
    }
}

/// Serves the first process until it is ready.
fn attend(plan: &InitPlan<'_>, pid: i32, channel: &Channel) -> Result<Option<OwnedFd>, Failure> {
    if let Some(score) = plan.process.spec.oom_score_adj {
        let path = PathBuf::from(format!("{pid}/oom_score_adj"));
        plan.proc
            .write(&path, score.to_string().as_bytes())
            .or_fail(Stage::Process, || format!("set oom_score_adj to {score}"))?;
    }
    if let Some(class) = &plan.rdt {
        class.apply(pid)?;
    }
    let mut console = None;
    loop {
        match channel.receive().or_fail(Stage::Process, || "read from container's first process")? {
            Message::NeedIdMaps => idmap::write(pid, &plan.linux.uid_mappings, &plan.linux.gid_mappings)?,
            Message::NeedDevices => {
                net_device::hand_over(&plan.devices, net_device::namespace_of(pid)?.as_fd())?;
            }
            Message::NeedPid => {
                channel.give_pid(pid).or_fail(Stage::Process, || "answer container's first process")?;
                continue;
            }
            Message::NeedHooks => {
                let state = oci::State { pid: Some(pid), ..plan.state.clone() };
                hook::run(&plan.hooks.prestart, "prestart", &state)?;
                hook::run(&plan.hooks.create_runtime, "createRuntime", &state)?;
            }
            Message::Console(fd) => {
                console = Some(fd);
                continue;
            }
            Message::Ready => {
                if plan.process.limited_by_caller {
                    limit(Some(pid), &plan.process.spec.rlimits)?;
                }
                return Ok(console);
            }
            Message::Failed(failure) => return Err(failure),
            Message::Process(_) => return Err(refuse(Stage::Process, "unexpected message")),
            Message::Closed => {
                return Err(refuse(Stage::Process, "container's first process died while it was prepared"));
            }
        }
        channel.give_leave().or_fail(Stage::Process, || "answer container's first process")?;
    }
}
