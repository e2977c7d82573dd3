//! The first process, from clone to the user's program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::MountPropagationFlags;
use wharf_oci::runtime as oci;
use wharf_sys::clone::{self, flags};
use wharf_sys::mount::Attributes;
use wharf_types::{Failure, Stage};

use crate::console;
use crate::device::{self, Node};
use crate::failure::OrFail;
use crate::gate::{Report, Waiting};
use crate::hook;
use crate::host::Proc;
use crate::mounting::{self, CgroupView, PlannedMount};
use crate::namespaces::{Namespaces, become_root};
use crate::net_device;
use crate::options::ms;
use crate::pivot;
use crate::process::{ProcessPlan, Ready, Streams};
use crate::rooted::Missing;
use crate::rootfs::{self, Part};
use crate::sysctl;
use crate::wire::Channel;

/// Everything the first process does, computed by the caller.
#[derive(Debug)]
pub(crate) struct InitPlan<'a> {
    pub spec: &'a oci::Spec,
    pub linux: &'a oci::Linux,
    pub hooks: &'a oci::Hooks,
    pub state: oci::State,
    pub namespaces: Namespaces<'a>,
    pub entrance: wharf_cgroup::Entrance,
    pub cgroup_view: CgroupView,
    pub proc: Proc,
    /// Propagation of the whole old tree, and of the new root.
    pub propagation: u64,
    pub parts: Vec<Part<'a>>,
    pub root_path: &'a Path,
    pub read_only: bool,
    pub mounts: Vec<PlannedMount<'a>>,
    /// `None` where the configuration brings a /dev of its own.
    pub nodes: Option<Vec<Node>>,
    pub sysctls: Vec<(std::path::PathBuf, String)>,
    pub process: ProcessPlan<'a>,
    /// Devices of the host's network namespace that come along.
    pub devices: Vec<net_device::Device>,
    /// The class of cache and memory bandwidth.
    pub rdt: Option<crate::rdt::Class>,
    pub streams: Option<[BorrowedFd<'a>; 3]>,
    pub no_pivot: bool,
}

impl InitPlan<'_> {
    /// Whether the root is mounted by the caller, and the process must be born where it is to be attached.
    pub(crate) fn in_working_directory(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(Part::is_mounted)
    }
}

/// Runs in the child. Does not return.
pub(crate) fn run(plan: &InitPlan<'_>, channel: Channel, waiting: Waiting, cloned_into: bool) -> ! {
    match prepare(plan, &channel, &waiting, cloned_into) {
        Err(failure) => {
            // Nobody is left to tell if this fails.
            let _ = channel.failed(&failure);
        }
        Ok(ready) => {
            if let Some(report) = Report::pass(channel, waiting) {
                let failure = match start_hooks(plan) {
                    Ok(()) => plan.process.launch(&ready),
                    Err(failure) => failure,
                };
                report.send(&failure);
            }
        }
    }
    clone::exit_now(1)
}

fn start_hooks(plan: &InitPlan<'_>) -> Result<(), Failure> {
    hook::run(&plan.hooks.start_container, "startContainer", &inside(plan, oci::Status::Created))
}

/// The state as hooks inside the container read it: with the process id that is valid there.
fn inside(plan: &InitPlan<'_>, status: oci::Status) -> oci::State {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    oci::State { status, pid: Some(pid), ..plan.state.clone() }
}

fn prepare(plan: &InitPlan<'_>, channel: &Channel, waiting: &Waiting, cloned_into: bool) -> Result<Ready, Failure> {
    rustix::process::setsid().or_fail(Stage::Process, || "setsid")?;
    plan.entrance.enter(cloned_into).or_fail(Stage::Cgroup, || "enter cgroup")?;
    if plan.namespaces.new & flags::NEWUSER != 0 {
        channel.need_id_maps().or_fail(Stage::IdMap, || "wait for id maps")?;
        become_root()?;
    }
    plan.namespaces.join()?;
    if plan.namespaces.new & flags::NEWCGROUP != 0 {
        clone::unshare(flags::NEWCGROUP).or_fail(Stage::Namespace, || "new cgroup namespace")?;
    }
    if plan.namespaces.new & flags::NEWNET != 0 {
        wharf_sys::link::raise_loopback().or_fail(Stage::Namespace, || "raise loopback")?;
    }
    if !plan.devices.is_empty() {
        channel.need_devices().or_fail(Stage::Namespace, || "wait for network devices")?;
        net_device::settle(&plan.devices)?;
    }
    plan.process.early(&plan.proc)?;
    names(plan)?;
    let by_name = crate::weaken::is_dropped("procfs");
    if !by_name {
        sysctl::apply(&plan.proc, &plan.sysctls)?;
    }
    rustix::process::umask(Mode::empty());
    let console = file_systems(plan, channel)?;
    if by_name {
        sysctl::apply_by_name(&plan.sysctls)?;
    }
    let streams = match (console, plan.streams) {
        (Some(slave), _) => Streams::Terminal(slave),
        (None, Some(fds)) => Streams::Given(fds),
        (None, None) => return Err(crate::failure::refuse(Stage::Config, "no standard streams were given")),
    };
    let mut kept = vec![channel.as_fd().as_raw_fd()];
    if let Waiting::Listener(fd) = waiting {
        kept.push(fd.as_raw_fd());
    }
    let pid = match plan.process.agent {
        Some(_) => channel.need_pid().or_fail(Stage::Seccomp, || "ask for the process id")?,
        None => 0,
    };
    let ready = plan.process.settle(streams, &kept, pid)?;
    channel.ready().or_fail(Stage::Process, || "report readiness")?;
    Ok(ready)
}

fn names(plan: &InitPlan<'_>) -> Result<(), Failure> {
    if let Some(name) = plan.spec.hostname.as_deref().filter(|n| !n.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).or_fail(Stage::Process, || "sethostname")?;
    }
    if let Some(name) = plan.spec.domainname.as_deref().filter(|n| !n.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).or_fail(Stage::Process, || "setdomainname")?;
    }
    Ok(())
}

/// Mounts everything and enters it. Returns the process's end of the terminal, if it gets one.
fn file_systems(plan: &InitPlan<'_>, channel: &Channel) -> Result<Option<OwnedFd>, Failure> {
    let propagate = |path: &'static std::ffi::CStr, change: u64| {
        let change = MountPropagationFlags::from_bits_retain(change as u32);
        rustix::mount::mount_change(path, change).or_fail(Stage::Rootfs, || "set propagation of /")
    };
    propagate(c"/", plan.propagation)?;
    if plan.propagation & ms::SHARED != 0 {
        pivot::make_parent_private(plan.root_path)?;
    }
    let root = rootfs::mount(&plan.parts, plan.root_path)?;
    for mount in &plan.mounts {
        mount.perform(&root, &plan.cgroup_view)?;
    }
    if let Some(nodes) = &plan.nodes {
        device::make(&root, nodes)?;
        device::links(&root)?;
    }
    let console = if plan.streams.is_none() {
        let console = console::open(&root, plan.process.spec.console_size)?;
        channel.console(console.master.as_fd()).or_fail(Stage::Console, || "hand over terminal")?;
        console::bind(&root, &console.slave)?;
        Some(console.slave)
    } else {
        None
    };
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        channel.need_hooks().or_fail(Stage::Hook, || "wait for hooks")?;
    }
    hook::run(&plan.hooks.create_container, "createContainer", &inside(plan, oci::Status::Creating))?;
    let cwd = &plan.process.spec.cwd;
    if !crate::weaken::is_dropped("descriptors") {
        root.make(cwd, Missing::Folder).or_fail(Stage::WorkingDirectory, || format!("mkdir {}", cwd.display()))?;
    }
    for mount in &plan.mounts {
        mount.finish(&root)?;
    }
    mounting::make_read_only(&root, &plan.linux.readonly_paths)?;
    mounting::mask(&root, &plan.linux.masked_paths)?;
    if plan.read_only {
        let what = Attributes { set: Attributes::RDONLY, ..Attributes::default() };
        mounting::change(root.as_fd(), false, &what).or_fail(Stage::Rootfs, || "make rootfs read-only")?;
    }
    if plan.no_pivot {
        pivot::move_over(&root, plan.root_path)?
    } else {
        pivot::pivot(&root)?
    }
    if plan.linux.rootfs_propagation.as_deref().is_some_and(|p| !p.is_empty()) {
        propagate(c"/", plan.propagation)?;
    }
    Ok(console)
}
