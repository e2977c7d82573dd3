//! One group: a folder in every hierarchy.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode as Permissions, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use wharf_oci::runtime::LinuxResources;

use crate::devices::Filter;
use crate::file::{get, get_if_present, number, put, write_value};
use crate::layout::Hierarchy;
use crate::setting::{Absent, Setting, plan_v1, plan_v2};
use crate::{CgroupError, Detail, Layout, Mode, OomWatch, Stats, detail, freezer, oom, stats_read};

/// A group: one folder in each hierarchy of the host.
#[derive(Debug)]
pub struct Cgroup {
    mode: Mode,
    folders: Vec<Folder>,
}

/// A group's folder in one hierarchy.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As [`Hierarchy::controllers`].
    controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    pub(crate) path: PathBuf,
}

impl Folder {
    fn new(hierarchy: &Hierarchy, path: PathBuf) -> Self {
        Self { controllers: hierarchy.controllers.clone(), mount: hierarchy.mount.clone(), path }
    }

    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Cgroup {
    /// Makes the group and sets its limits. On failure nothing is left.
    ///
    /// `path` is `linux.cgroupsPath`: absolute paths count from each hierarchy's root, others from where this process is.
    /// A group that exists already and is empty is taken over, as by runc. Besides the rules of `resources.devices` the
    /// devices that every container needs are allowed.
    pub fn create(layout: &Layout, path: &str, resources: &LinuxResources) -> Result<Self, CgroupError> {
        Self::create_as(layout, path, resources, false)
    }

    /// As [`Self::create`], where a process of ours may be in it already.
    pub(crate) fn create_beside(layout: &Layout, path: &str, resources: &LinuxResources) -> Result<Self, CgroupError> {
        Self::create_as(layout, path, resources, true)
    }

    fn create_as(layout: &Layout, path: &str, resources: &LinuxResources, occupied: bool) -> Result<Self, CgroupError> {
        let mode = layout.mode();
        let plan = if mode == Mode::V2 { plan_v2(resources)? } else { plan_v1(resources)? };
        let devices = Filter::new(&resources.devices)?;
        let folders = layout.folders(path)?;
        let mut group = Self { mode, folders: Vec::with_capacity(folders.len()) };
        let made = layout.hierarchies.iter().zip(folders).try_for_each(|(hierarchy, path)| {
            group.folders.push(Folder::new(hierarchy, path));
            group.folders.last().map_or(Ok(()), |folder| make(folder, mode, occupied))
        });
        let limited = made.and_then(|()| group.apply(&plan)).and_then(|()| group.filter_devices(&devices));
        match limited {
            Ok(()) => Ok(group),
            Err(e) => {
                // An empty group goes away at once; one that is not was there before, and stays.
                for folder in &group.folders {
                    let _ = unlinkat(CWD, &folder.path, AtFlags::REMOVEDIR);
                }
                Err(e)
            }
        }
    }

    /// No group: for a user who may make none.
    pub fn none(layout: &Layout) -> Self {
        Self { mode: layout.mode(), folders: Vec::new() }
    }

    /// Whether it is [`Self::none`].
    pub fn is_none(&self) -> bool {
        self.folders.is_empty()
    }

    /// Opens a group that another process made. Hierarchies in which it has no folder are left out.
    ///
    /// Errors: [`CgroupError::Open`] where it has none at all.
    pub fn open(layout: &Layout, path: &str) -> Result<Self, CgroupError> {
        let folders = layout.folders(path)?;
        let all = layout.hierarchies.iter().zip(folders).map(|(h, path)| Folder::new(h, path));
        let folders: Vec<_> = all.filter(|f| f.path.is_dir()).collect();
        if folders.is_empty() {
            return Err(CgroupError::Open { path: path.into(), source: Errno::NOENT.into() });
        }
        Ok(Self { mode: layout.mode(), folders })
    }

    /// The group that has other folders, below this one's, for some controllers: pairs of controllers separated by commas (none
    /// for all) and path. They must exist.
    ///
    /// Errors: [`CgroupError::Value`] for a controller that this group has no folder for, [`CgroupError::Open`] for a missing path.
    pub fn below(&self, groups: &[(String, String)]) -> Result<Self, CgroupError> {
        let mut folders: Vec<Folder> = self
            .folders
            .iter()
            .map(|f| Folder { controllers: f.controllers.clone(), mount: f.mount.clone(), path: f.path.clone() })
            .collect();
        for (controllers, path) in groups {
            let named: Vec<&str> = controllers.split(',').filter(|c| !c.is_empty()).collect();
            let unknown = named.iter().find(|c| self.mode == Mode::V2 || !folders.iter().any(|f| f.has(c)));
            if let Some(unknown) = unknown {
                return Err(CgroupError::Value { what: "unknown controller", value: (*unknown).to_owned() });
            }
            let inner = crate::layout::clean(path);
            for folder in folders.iter_mut().filter(|f| named.is_empty() || named.iter().any(|c| f.has(c))) {
                folder.path.push(&inner);
                if !folder.path.is_dir() {
                    return Err(CgroupError::Open { path: folder.path.clone(), source: Errno::NOENT.into() });
                }
            }
        }
        Ok(Self { mode: self.mode, folders })
    }

    fn apply(&self, plan: &[Setting]) -> Result<(), CgroupError> {
        // A value may be wrong only beside the old value of another file: a period with the old quota, memory above the old
        // limit with swap. Such ones are tried again after the rest, before they count as failed.
        let mut again: Vec<&Setting> = Vec::new();
        for setting in plan {
            match self.set(setting) {
                Err(CgroupError::Write { source, .. })
                    if source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) =>
                {
                    again.push(setting);
                }
                other => other?,
            }
        }
        again.into_iter().try_for_each(|setting| self.set(setting))
    }

    fn set(&self, setting: &Setting) -> Result<(), CgroupError> {
        let missing =
            || CgroupError::NoController { controller: setting.controller.to_string(), file: setting.file.to_string() };
        let folder = match self.folder(&setting.controller) {
            Some(folder) => folder,
            None if setting.absent == Absent::Skip => return Ok(()),
            None => return Err(missing()),
        };
        match put(&folder.file(&setting.file), setting.value.as_bytes()) {
            Ok(()) => Ok(()),
            // A file of a controller that is not enabled cannot be made in a cgroup file system: EPERM or EACCES.
            Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) if !folder.file(&setting.file).exists() => {
                match &setting.absent {
                    Absent::Skip => Ok(()),
                    Absent::Refuse => Err(missing()),
                    Absent::Instead(file, value) if folder.file(file).exists() => {
                        write_value(&folder.file(file), value)
                    }
                    Absent::Instead(..) => Err(missing()),
                }
            }
            Err(Errno::BUSY) if setting.controller == "memory" => Err(self.in_use(folder, &setting.value)),
            Err(e) => Err(CgroupError::Write {
                path: folder.file(&setting.file),
                value: setting.value.clone(),
                source: e.into(),
            }),
        }
    }

    fn in_use(&self, folder: &Folder, limit: &str) -> CgroupError {
        let of = |file: &str| number(&folder.file(file)).unwrap_or(0);
        CgroupError::MemoryInUse {
            limit: limit.to_owned(),
            usage: of("memory.usage_in_bytes"),
            peak: of("memory.max_usage_in_bytes"),
        }
    }

    fn filter_devices(&self, filter: &Filter) -> Result<(), CgroupError> {
        if filter.allows_all() {
            return Ok(());
        }
        if self.mode == Mode::V2 {
            let Some(folder) = self.v2_folder() else { return Ok(()) };
            return attach(folder, filter).map_err(|source| CgroupError::Devices { path: folder.path.clone(), source });
        }
        let Some(folder) = self.folder("devices") else {
            return Err(CgroupError::NoController { controller: "devices".into(), file: "devices.deny".into() });
        };
        let mut open: Option<(&str, OwnedFd)> = None;
        for (file, line) in filter.requests() {
            let failed =
                |e: Errno| CgroupError::Write { path: folder.file(file), value: line.clone(), source: e.into() };
            if open.as_ref().is_none_or(|(name, _)| *name != file) {
                let fd = openat(CWD, folder.file(file), OFlags::WRONLY | OFlags::CLOEXEC, Permissions::empty());
                open = Some((file, fd.map_err(failed)?));
            }
            if let Some((_, fd)) = &open {
                rustix::io::write(fd, line.as_bytes()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Opens what a process needs to enter the group, before it is cloned.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        let mut entrance = Entrance { clone_target: None, tasks: Vec::with_capacity(self.folders.len()) };
        for folder in &self.folders {
            let (path, flags) = if folder.is_v2() {
                (folder.path.clone(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)
            } else {
                (folder.file("tasks"), OFlags::WRONLY | OFlags::CLOEXEC)
            };
            let fd = openat(CWD, &path, flags, Permissions::empty())
                .map_err(|e| CgroupError::Open { path, source: e.into() })?;
            if folder.is_v2() {
                entrance.clone_target = Some(fd);
            } else {
                entrance.tasks.push(fd);
            }
        }
        Ok(entrance)
    }

    /// Opens what a process needs to enter the group beside `init`, which may have moved itself deeper.
    ///
    /// A group of v2 that has children with controllers takes no processes, so that where a container runs systemd or another
    /// engine only its own groups do; runc falls back to the first process's group in the same way.
    pub fn entrance_beside(&self, init: Pid) -> Result<Entrance, CgroupError> {
        let mut entrance = self.entrance()?;
        let Some(folder) = self.v2_folder() else { return Ok(entrance) };
        if get(&folder.file("cgroup.subtree_control")).is_ok_and(|s| s.trim().is_empty()) {
            return Ok(entrance);
        }
        let proc = format!("/proc/{}/cgroup", init.as_raw_nonzero());
        let text = get(Path::new(&proc)).map_err(|e| CgroupError::Read { path: proc.into(), source: e.into() })?;
        let inner = text.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or_default();
        let path = folder.mount.join(inner);
        if path.starts_with(&folder.path) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = openat(CWD, &path, flags, Permissions::empty())
                .map_err(|e| CgroupError::Open { path, source: e.into() })?;
            entrance.clone_target = Some(fd);
        }
        Ok(entrance)
    }

    /// Moves a process, with all of its threads, into the group. Slow beside [`Entrance::enter`], which says why.
    pub fn join(&self, pid: Pid) -> Result<(), CgroupError> {
        let text = pid.as_raw_nonzero().to_string();
        for folder in &self.folders {
            put(&folder.file("cgroup.procs"), text.as_bytes())
                .map_err(|e| CgroupError::Enter { path: folder.path.clone(), source: e.into() })?;
        }
        Ok(())
    }

    /// Changes limits of a live group: what is absent in `resources` stays as it is, device rules are only changed if there
    /// are any.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let memory = resources.memory.as_ref().filter(|m| m.check_before_update == Some(true));
        if let (Mode::V2, Some(limit)) = (self.mode, memory.and_then(|m| m.limit).filter(|n| *n > 0)) {
            self.check_memory(limit.cast_unsigned())?;
        }
        self.apply(&if self.mode == Mode::V2 { plan_v2(resources)? } else { plan_v1(resources)? })?;
        if resources.devices.is_empty() { Ok(()) } else { self.filter_devices(&Filter::new(&resources.devices)?) }
    }

    /// v2 takes any limit and then reclaims or kills, where v1 refuses one below what is in use.
    fn check_memory(&self, limit: u64) -> Result<(), CgroupError> {
        let Some(folder) = self.v2_folder() else { return Ok(()) };
        let usage = number(&folder.file("memory.current"))?;
        if usage <= limit {
            return Ok(());
        }
        let peak = number(&folder.file("memory.peak"))?;
        Err(CgroupError::MemoryInUse { limit: limit.to_string(), usage, peak })
    }

    /// Stops every process and returns when they stand still; after two seconds lets them go on again and fails.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let Some(folder) = self.freezer() else { return Err(no_freezer()) };
        if self.mode == Mode::V2 { freezer::freeze_v2(&folder.path) } else { freezer::freeze_v1(&folder.path) }
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let Some(folder) = self.freezer() else { return Err(no_freezer()) };
        if self.mode == Mode::V2 { freezer::thaw_v2(&folder.path) } else { freezer::thaw_v1(&folder.path) }
    }

    /// Tells whether the group is frozen or about to be.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let Some(folder) = self.freezer() else { return Ok(false) };
        if self.mode == Mode::V2 {
            return Ok(number(&folder.file("cgroup.freeze"))? == 1);
        }
        let state = get_if_present(&folder.file("freezer.state"))?.unwrap_or_default();
        Ok(state.trim() != "THAWED")
    }

    /// Sends SIGKILL to every process of the group and of groups below it, frozen or not.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let at_once =
            self.folders.iter().find(|f| f.is_v2()).is_some_and(|f| put(&f.file("cgroup.kill"), b"1").is_ok());
        if !(at_once && self.mode == Mode::V2) {
            self.kill_each()?;
        }
        Ok(())
    }

    /// Kernels before 5.14 have no `cgroup.kill`, and a process may have left the v2 folder of a hybrid host alone: stop all,
    /// so that none forks meanwhile, kill each, let them go on to die.
    fn kill_each(&self) -> Result<(), CgroupError> {
        let pids = self.pids()?;
        if pids.is_empty() {
            return Ok(());
        }
        let frozen = self.freeze().is_ok();
        let pids = if frozen { self.pids()? } else { pids };
        for pid in pids {
            // A process that is gone meanwhile is what was wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        match self.freezer() {
            Some(_) => self.thaw(),
            None => Ok(()),
        }
    }

    /// Returns the processes of the group and of groups below it.
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut out = Vec::new();
        // The devices hierarchy is the one that only the host's root can move processes in, as in runc.
        if let Some(folder) = self.v2_folder().or_else(|| self.folder("devices")).or(self.folders.first()) {
            collect_pids(&folder.path, &mut out)?;
        }
        out.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        out.dedup();
        Ok(out)
    }

    /// Reads what the group has used.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        match self.v2_folder() {
            Some(folder) => stats_read::v2(&folder.path),
            None => stats_read::v1(|controller| self.folder(controller).map(|f| f.path.as_path())),
        }
    }

    /// Reads figures beyond [`Self::stats`].
    pub fn detail(&self) -> Result<Detail, CgroupError> {
        detail::read(self)
    }

    /// Returns how the host arranges its hierarchies.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn folder_of(&self, controller: &str) -> Option<&Path> {
        self.folder(controller).map(|f| f.path.as_path())
    }

    /// Returns how many processes the kernel has killed for want of memory; 0 without memory controller.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        self.folder("memory").map_or(Ok(0), |f| oom::kills(&f.path, self.mode))
    }

    /// Starts watching for OOM kills; nothing without memory controller.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        self.folder("memory").map(|f| OomWatch::new(&f.path, self.mode)).transpose()
    }

    /// Returns the folders, with the controllers of each (`cpu`, `name=systemd`; empty for the v2 hierarchy).
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        self.folders.iter().map(|f| (f.controllers.join(","), f.path.clone())).collect()
    }

    /// Removes the group and all below it; tries again until `deadline` while a dying process still holds it.
    ///
    /// Its processes must have been killed. It may be called after the exit was reported: nothing else depends on it.
    pub fn delete(&self, deadline: Instant) -> Result<(), CgroupError> {
        let mut pause = Duration::from_micros(200);
        let mut left: Vec<&Folder> = self.folders.iter().collect();
        loop {
            let mut busy = None;
            left.retain(|folder| match remove(&folder.path) {
                Ok(()) => false,
                Err(e) => {
                    busy = Some((folder.path.clone(), e));
                    true
                }
            });
            let Some((path, errno)) = busy else { return Ok(()) };
            if errno != Errno::BUSY || Instant::now() >= deadline {
                return Err(CgroupError::Delete { path, source: errno.into() });
            }
            // v1 tells nobody when its last process is gone.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn folder(&self, controller: &str) -> Option<&Folder> {
        match self.mode {
            Mode::V2 => self.folders.first(),
            Mode::V1 | Mode::Hybrid => self.folders.iter().find(|f| f.has(controller)),
        }
    }

    /// The folder that has everything; nothing but with [`Mode::V2`].
    fn v2_folder(&self) -> Option<&Folder> {
        self.folders.first().filter(|_| self.mode == Mode::V2)
    }

    fn freezer(&self) -> Option<&Folder> {
        self.folder("freezer")
    }
}

fn no_freezer() -> CgroupError {
    CgroupError::NoController { controller: "freezer".into(), file: "freezer.state".into() }
}

fn attach(folder: &Folder, filter: &Filter) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = openat(CWD, &folder.path, flags, Permissions::empty())?;
    let program = wharf_sys::bpf::load_device_filter(&filter.program())?;
    // All attached programs must agree to an access; a second one would only ever narrow what the first lets through.
    let old = match wharf_sys::bpf::device_filters(cgroup.as_fd())?.as_slice() {
        [id] => Some(wharf_sys::bpf::program(*id)?),
        _ => None,
    };
    wharf_sys::bpf::attach_device_filter(cgroup.as_fd(), program.as_fd(), old.as_ref().map(AsFd::as_fd))
}

/// Makes a folder and those above it, ready to take processes and limits.
fn make(folder: &Folder, mode: Mode, occupied: bool) -> Result<(), CgroupError> {
    let failed = |e: Errno| CgroupError::Create { path: folder.path.clone(), source: e.into() };
    let fresh = match mkdir(&folder.path) {
        Err(Errno::NOENT) => {
            make_above(folder, &folder.path).map_err(failed)?;
            mkdir(&folder.path)
        }
        other => other,
    };
    match fresh {
        Ok(()) => {}
        Err(Errno::EXIST) if occupied => {}
        Err(Errno::EXIST) => refuse_occupied(&folder.path)?,
        Err(e) => return Err(failed(e)),
    }
    if folder.has("cpuset") {
        inherit_cpuset(folder, &folder.path)?;
    }
    if mode == Mode::V2 {
        enable_controllers(folder);
    }
    Ok(())
}

fn mkdir(path: &Path) -> Result<(), Errno> {
    mkdirat(CWD, path, Permissions::from_raw_mode(0o755))
}

fn make_above(folder: &Folder, path: &Path) -> Result<(), Errno> {
    let Some(parent) = path.parent().filter(|p| p.starts_with(&folder.mount)) else { return Err(Errno::NOENT) };
    let made = match mkdir(parent) {
        Err(Errno::NOENT) => {
            make_above(folder, parent)?;
            mkdir(parent)
        }
        other => other,
    };
    match made {
        Ok(()) if folder.has("cpuset") => {
            // Groups made in this one then start with its CPUs and memory nodes, which saves reading and writing them.
            let _ = put(&parent.join("cgroup.clone_children"), b"1");
            Ok(())
        }
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

fn refuse_occupied(path: &Path) -> Result<(), CgroupError> {
    let procs = get_if_present(&path.join("cgroup.procs"))?.unwrap_or_default();
    match procs.lines().count() {
        0 => Ok(()),
        processes => Err(CgroupError::Occupied { path: path.into(), processes }),
    }
}

/// A v1 cpuset takes no process before it has CPUs and memory nodes; they are taken from the nearest group that has some.
fn inherit_cpuset(folder: &Folder, path: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        if get_if_present(&own)?.is_some_and(|text| !text.trim().is_empty()) {
            continue;
        }
        let Some(parent) = path.parent().filter(|p| p.starts_with(&folder.mount)) else { continue };
        if parent != folder.mount {
            inherit_cpuset(folder, parent)?;
        }
        let above = get_if_present(&parent.join(file))?.unwrap_or_default();
        write_value(&own, above.trim())?;
    }
    Ok(())
}

/// The controllers that limits and statistics need.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// Has every group above this one hand its controllers down. What cannot be handed down (the group above has processes, or is
/// threaded) shows when a limit needs it.
fn enable_controllers(folder: &Folder) {
    let read = |path: PathBuf| get(&path).unwrap_or_default();
    let has = |text: &str, name: &str| text.split_whitespace().any(|c| c == name);
    let own = read(folder.file("cgroup.controllers"));
    if CONTROLLERS.iter().all(|c| has(&own, c)) {
        return;
    }
    let Ok(inner) = folder.path.strip_prefix(&folder.mount) else { return };
    let mut at = folder.mount.clone();
    for part in inner.components() {
        let available = read(at.join("cgroup.controllers"));
        let enabled = read(at.join("cgroup.subtree_control"));
        for controller in available.split_whitespace().filter(|c| !has(&enabled, c)) {
            let _ = put(&at.join("cgroup.subtree_control"), format!("+{controller}").as_bytes());
        }
        at.push(part);
    }
}

fn collect_pids(path: &Path, out: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let file = path.join("cgroup.procs");
    let text = match get(&file) {
        Ok(text) => text,
        // A group of threads has its processes in the group above.
        Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::NODEV) => String::new(),
        Err(e) => return Err(CgroupError::Read { path: file, source: e.into() }),
    };
    // 0 stands for a process of a pid namespace that cannot be seen from here.
    out.extend(text.lines().filter_map(|l| l.parse().ok()).filter_map(Pid::from_raw));
    for child in children(path) {
        collect_pids(&child, out)?;
    }
    Ok(())
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    folders.map(|e| e.path()).collect()
}

/// Removes a folder and those below it. The common case is one rmdir(2).
fn remove(path: &Path) -> Result<(), Errno> {
    let rmdir = || match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    };
    match rmdir() {
        Err(Errno::BUSY) => {
            for child in children(path) {
                remove(&child)?;
            }
            rmdir()
        }
        other => other,
    }
}

/// Descriptors through which a process enters a group. All are close-on-exec.
#[derive(Debug)]
pub struct Entrance {
    clone_target: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Entrance {
    /// Returns the folder for clone3's `CLONE_INTO_CGROUP`, where the host has a v2 hierarchy.
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        self.clone_target.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process into the group; it must be single-threaded. One write(2) per hierarchy, no allocation, so that
    /// it may be called between clone and exec. `cloned_into`: [`Self::clone_target`] was given to clone3.
    ///
    /// v1's `tasks` with pid 0 is used on purpose: moving only oneself takes no lock against forks of the whole machine, which
    /// `cgroup.procs` pays for with an RCU grace period when it was unused for a while (`cgroup_procs_write_start`; 6 to 10 ms
    /// measured on 6.18, against 0.1 ms for all hierarchies this way). Being cloned into the v2 folder takes no such lock either,
    /// which is why clone3 should be given [`Self::clone_target`].
    pub fn enter(&self, cloned_into: bool) -> Result<(), Errno> {
        if let Some(folder) = self.clone_target.as_ref().filter(|_| !cloned_into) {
            let procs = openat(folder, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Permissions::empty())?;
            rustix::io::write(&procs, b"0")?;
        }
        self.tasks.iter().try_for_each(|tasks| rustix::io::write(tasks, b"0").map(drop))
    }
}
