//! From a prepared environment to the user's program: what the first process and an exec have in common.
//!
//! ```text
//! early    keyring, scheduling, labels
//! settle   streams, descriptors, directory, user, capabilities, command look-up     (errors before the gate)
//! launch   seccomp, last capabilities, execve                                       (errors after it)
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use wharf_oci::runtime as oci;
use wharf_seccomp::Program;
use wharf_sys::{descriptor, exec, keyring, seccomp};
use wharf_types::{Failure, Stage};

use crate::capability;
use crate::failure::{OrFail, refuse};
use crate::host::Proc;
use crate::notify::Agent;
use crate::scheduling::Scheduling;
use crate::weaken::is_dropped;

/// A process with everything computed that can be.
#[derive(Debug)]
pub(crate) struct ProcessPlan<'a> {
    pub spec: &'a oci::Process,
    pub filter: Option<&'a Program>,
    /// Who answers for the filter's NOTIFY calls.
    pub agent: Option<Agent>,
    pub preserve_fds: u32,
    /// Whether the caller sets the resource limits: in a user namespace the process itself could not raise them.
    pub limited_by_caller: bool,
    args: exec::Strings,
    bounding: CapabilitySet,
    ambient: CapabilitySet,
    sets: CapabilitySets,
    scheduling: Scheduling,
    labels: Vec<(PathBuf, Vec<u8>)>,
    keyring: Option<(CString, u32)>,
}

/// What is known once everything is prepared.
#[derive(Debug)]
pub(crate) struct Ready {
    path: CString,
    env: exec::Strings,
    /// This process as the caller's namespace numbers it; 0 where nobody needs it.
    pid: i32,
}

/// What else [`ProcessPlan::new`] needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub id: &'a str,
    pub linux: &'a oci::Linux,
    pub filter: Option<&'a Program>,
    pub preserve_fds: u32,
    pub keyring: bool,
    pub user_namespace: bool,
}

impl<'a> ProcessPlan<'a> {
    pub(crate) fn new(spec: &'a oci::Process, around: Surroundings<'a>) -> Result<Self, Failure> {
        if spec.args.is_empty() {
            return Err(refuse(Stage::Config, "process.args is empty"));
        }
        if !spec.cwd.is_absolute() {
            return Err(refuse(Stage::Config, format!("Cwd must be an absolute path: {}", spec.cwd.display())));
        }
        // CVE-2024-40635's kind: the number is -1 for setresuid(2), which then leaves the process what it is: root.
        let user = &spec.user;
        let ids = [("uid", user.uid), ("gid", user.gid)].into_iter();
        let ids = ids.chain(user.additional_gids.iter().map(|gid| ("additionalGids", *gid)));
        if let Some((field, id)) = ids.into_iter().find(|(_, id)| *id == u32::MAX) {
            return Err(refuse(Stage::User, format!("process.user.{field} {id} is no id")));
        }
        let nul = |what: &str| refuse(Stage::Config, format!("{what} contains a NUL byte"));
        let args = exec::Strings::new(&spec.args).map_err(|_| nul("process.args"))?;
        if spec.env.iter().any(|e| e.contains('\0')) {
            return Err(nul("process.env"));
        }
        let none = oci::Capabilities::default();
        let caps = spec.capabilities.as_ref().unwrap_or(&none);
        let keyring = if around.keyring {
            let name = CString::new(format!("_ses.{}", around.id)).map_err(|_| nul("id"))?;
            // So that the container's processes find it: search by user, or by others where ids are mapped (as runc).
            Some((name, if around.user_namespace { 0x8 } else { 0x8_0000 }))
        } else {
            None
        };
        Ok(Self {
            spec,
            filter: around.filter,
            agent: None,
            preserve_fds: around.preserve_fds,
            limited_by_caller: around.user_namespace,
            args,
            bounding: capability::set(&caps.bounding),
            ambient: capability::set(&caps.ambient),
            sets: CapabilitySets {
                effective: capability::set(&caps.effective),
                permitted: capability::set(&caps.permitted),
                inheritable: match is_dropped("capabilities") {
                    true => capability::set(&caps.bounding),
                    false => capability::set(&caps.inheritable),
                },
            },
            scheduling: Scheduling::plan(spec, around.linux)?,
            labels: labels(spec)?,
            keyring,
        })
    }

    /// What needs the rights of the runtime and the host's /proc.
    pub(crate) fn early(&self, proc: &Proc) -> Result<(), Failure> {
        if let Some((name, permission)) = &self.keyring {
            join_keyring(name, *permission).or_fail(Stage::Process, || "unable to join session keyring")?;
        }
        self.scheduling.apply()?;
        for (path, text) in &self.labels {
            let label = || match text.starts_with(b"exec ") {
                true => format!("apparmor failed to apply profile: write /proc/{}", path.display()),
                false => format!("failed to apply label {}", String::from_utf8_lossy(text)),
            };
            proc.write(path, text).or_fail(Stage::Label, label)?;
        }
        Ok(())
    }

    /// Whether the seccomp filter needs CAP_SYS_ADMIN kept until it is loaded.
    fn filter_needs_right(&self) -> bool {
        self.filter.is_some() && !self.spec.no_new_privileges
    }

    /// Becomes the user's process in all but program. Descriptors other than the streams, the preserved ones and `kept`
    /// are closed, so the caller must own no others that it uses or drops later.
    ///
    pub(crate) fn settle(&self, streams: Streams, kept: &[RawFd], pid: i32) -> Result<Ready, Failure> {
        let env = self.environment()?;
        streams.place(self.spec)?;
        let mut kept = kept.to_vec();
        kept.extend(self.agent.iter().map(Agent::raw));
        if !is_dropped("descriptors") {
            descriptor::close_others(3 + self.preserve_fds, &kept).or_fail(Stage::Process, || "close descriptors")?;
        }
        let early_directory = self.enter_directory();
        if !self.limited_by_caller {
            // Before the rights to raise a limit are given up.
            limit(None, &self.spec.rlimits)?;
        }
        self.identity()?;
        // Tried as root first, for folders that the user may not enter; then as the user, for file systems that deny
        // root (runc does both).
        if early_directory.is_err() {
            self.enter_directory()?;
        }
        self.capabilities()?;
        rustix::process::umask(Mode::from_raw_mode(self.spec.user.umask.unwrap_or(0o022)));
        if self.spec.no_new_privileges {
            rustix::thread::set_no_new_privs(true).or_fail(Stage::Process, || "set no_new_privs")?;
        }
        let path = self.look_up()?;
        let env = exec::Strings::new(&env).map_err(|_| refuse(Stage::Config, "process.env contains a NUL byte"))?;
        Ok(Ready { path, env, pid })
    }

    /// The environment, with HOME from the container's user database where it is not given (as runc).
    fn environment(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let mut env: Vec<Vec<u8>> = self.spec.env.iter().map(|e| e.clone().into_bytes()).collect();
        let home = env.iter().rposition(|e| e.starts_with(b"HOME="));
        if home.is_none_or(|at| env[at].len() == "HOME=".len()) {
            let mut entry = b"HOME=".to_vec();
            entry.extend(crate::passwd::home_of(self.spec.user.uid).unwrap_or_else(|| b"/".to_vec()));
            match home {
                Some(at) => env[at] = entry,
                None => env.push(entry),
            }
        }
        Ok(env)
    }

    fn enter_directory(&self) -> Result<(), Failure> {
        let cwd = &self.spec.cwd;
        let failed = || format!("chdir to cwd ({:?}) set in config.json failed", cwd.display().to_string());
        rustix::process::chdir(cwd).or_fail(Stage::WorkingDirectory, failed)?;
        // CVE-2024-21626: a path through /proc/self/fd leads out of the container if a descriptor of the host is open.
        // None is, and where we are has a name inside all the same only if it is inside.
        match rustix::process::getcwd(Vec::new()) {
            _ if is_dropped("descriptors") => Ok(()),
            Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
            Ok(_) | Err(Errno::NOENT) => Err(refuse(
                Stage::WorkingDirectory,
                "current working directory is outside of container mount namespace root -- possible container breakout detected",
            )),
            Err(e) => Err(e).or_fail(Stage::WorkingDirectory, failed),
        }
    }

    fn identity(&self) -> Result<(), Failure> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Past the last one this kernel knows.
                Err(Errno::INVAL) => break,
                Err(e) => return Err(e).or_fail(Stage::Capability, || "drop from bounding set"),
            }
        }
        let user = &self.spec.user;
        rustix::thread::set_keep_capabilities(true).or_fail(Stage::Capability, || "keep capabilities")?;
        let groups: Vec<Gid> = user.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace in which an unprivileged user denied it: there are no groups to lose.
            Err(Errno::PERM) if groups.is_empty() => {}
            other => other.or_fail(Stage::User, || "set supplementary groups")?,
        }
        let (gid, uid) = (Gid::from_raw(user.gid), Uid::from_raw(user.uid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).or_fail(Stage::User, || format!("set group {}", user.gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).or_fail(Stage::User, || format!("set user {}", user.uid))?;
        Ok(())
    }

    fn capabilities(&self) -> Result<(), Failure> {
        rustix::thread::set_keep_capabilities(false).or_fail(Stage::Capability, || "keep capabilities")?;
        let mut sets = self.sets;
        if self.filter_needs_right() {
            sets.permitted |= CapabilitySet::SYS_ADMIN;
            sets.effective |= CapabilitySet::SYS_ADMIN;
        }
        rustix::thread::set_capabilities(None, sets).or_fail(Stage::Capability, || "set capabilities")?;
        if self.ambient.is_empty() {
            // Changing users cleared it, except for root who never left.
            return match rustix::thread::clear_ambient_capability_set() {
                Ok(()) | Err(Errno::INVAL) => Ok(()),
                other => other.or_fail(Stage::Capability, || "clear ambient capabilities"),
            };
        }
        for capability in self.ambient.iter() {
            rustix::thread::configure_capability_in_ambient_set(capability, true)
                .or_fail(Stage::Capability, || format!("raise ambient capability {capability:?}"))?;
        }
        Ok(())
    }

    /// Finds the command as Go's `exec.LookPath` does, with its messages, which Docker's clients know.
    fn look_up(&self) -> Result<CString, Failure> {
        let name = &self.spec.args[0];
        let to_path = |text: Vec<u8>| CString::new(text).map_err(|_| refuse(Stage::Config, "NUL byte in command"));
        if name.contains('/') {
            return match executable(Path::new(name)) {
                Ok(()) => to_path(name.clone().into_bytes()),
                Err(Errno::NOENT) => {
                    let subject = format!("exec: {name:?}: stat {name}");
                    Err(Failure { stage: Stage::CommandNotFound, errno: Errno::NOENT.raw_os_error(), subject })
                }
                Err(e) => {
                    let subject = format!("exec: {name:?}");
                    Err(Failure { stage: Stage::CommandNotExecutable, errno: e.raw_os_error(), subject })
                }
            };
        }
        let path = self.spec.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
        for folder in path.split(':') {
            let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
            if executable(&candidate).is_ok() {
                if !candidate.is_absolute() {
                    let subject = format!("exec: {name:?}: cannot run executable found relative to current directory");
                    return Err(refuse(Stage::CommandNotExecutable, subject));
                }
                return to_path(candidate.into_os_string().into_encoded_bytes());
            }
        }
        Err(refuse(Stage::CommandNotFound, format!("exec: {name:?}: executable file not found in $PATH")))
    }

    /// Loads the filter, gives up what was kept for it, and becomes the program. Returns only the failure.
    pub(crate) fn launch(&self, ready: &Ready) -> Failure {
        if let Err(failure) = self.load_filter(ready.pid) {
            return failure;
        }
        let error = exec::execve(&ready.path, &self.args, &ready.env);
        let errno = error.raw_os_error().unwrap_or(0);
        Failure { stage: Stage::Exec, errno, subject: format!("exec {}", ready.path.to_string_lossy()) }
    }

    fn load_filter(&self, pid: i32) -> Result<(), Failure> {
        wharf_sys::signal::reset_all().or_fail(Stage::Process, || "reset signals")?;
        let Some(filter) = self.filter else { return Ok(()) };
        match &self.agent {
            Some(agent) => agent.load(filter, pid)?,
            None => {
                seccomp::load(&filter.instructions, filter.flags).or_fail(Stage::Seccomp, || "load seccomp filter")?;
            }
        }
        let kept = self.sets.permitted & self.sets.effective;
        if self.filter_needs_right() && !kept.contains(CapabilitySet::SYS_ADMIN) {
            rustix::thread::set_capabilities(None, self.sets).or_fail(Stage::Capability, || "set capabilities")?;
        }
        Ok(())
    }
}

/// Whether a file can be executed by this process: errors as Go's `findExecutable` gives them.
fn executable(path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode as rustix::fs::RawMode) == rustix::fs::FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)?;
    // Root may "execute" anything by access(2) on some file systems; execve(2) wants a bit.
    if stat.st_mode & 0o111 == 0 { Err(Errno::ACCESS) } else { Ok(()) }
}

fn join_keyring(name: &CString, permission: u32) -> std::io::Result<()> {
    let key = match keyring::join_session(name) {
        // A kernel without keys, or a sandbox without the call.
        Err(e) if e.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => return Ok(()),
        other => other?,
    };
    keyring::set_permissions(key, keyring::permissions(key)? | permission)
}

/// Labels to write to the process's attributes at its next exec.
fn labels(spec: &oci::Process) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let mut labels = Vec::new();
    if let Some(profile) = spec.apparmor_profile.as_deref().filter(|p| !p.is_empty()) {
        if !matches!(std::fs::read("/sys/module/apparmor/parameters/enabled").as_deref(), Ok([b'Y', ..])) {
            let text = "apparmor failed to apply profile: apparmor: config provided but apparmor not supported";
            return Err(refuse(Stage::Label, text));
        }
        let stacked = "/proc/self/attr/apparmor/exec";
        let file = if Path::new(stacked).exists() { "apparmor/exec" } else { "exec" };
        labels.push((Path::new("thread-self/attr").join(file), format!("exec {profile}").into_bytes()));
    }
    if let Some(label) = spec.selinux_label.as_deref().filter(|l| !l.is_empty()) {
        if !has_selinux() {
            let text = "selinux label is specified in config, but selinux is disabled or not supported";
            return Err(refuse(Stage::Label, text));
        }
        labels.push((PathBuf::from("thread-self/attr/exec"), label.as_bytes().to_vec()));
    }
    Ok(labels)
}

/// Whether the host's kernel enforces SELinux, or would.
pub(crate) fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Where the standard streams come from.
#[derive(Debug)]
pub(crate) enum Streams<'a> {
    /// The caller's descriptors.
    Given([BorrowedFd<'a>; 3]),
    /// A terminal, which becomes the controlling one.
    Terminal(OwnedFd),
}

impl Streams<'_> {
    /// Puts them at 0, 1 and 2 and gives them to the user, so that `/dev/stdout` can be opened (as runc).
    fn place(self, spec: &oci::Process) -> Result<(), Failure> {
        let failed = || "set up standard streams";
        let terminal = matches!(self, Streams::Terminal(_));
        let sources = match &self {
            Streams::Given(fds) => *fds,
            Streams::Terminal(fd) => [fd.as_fd(); 3],
        };
        if terminal {
            rustix::process::ioctl_tiocsctty(sources[0]).or_fail(Stage::Console, || "set controlling terminal")?;
        }
        let already = sources.iter().enumerate().all(|(at, fd)| fd.as_raw_fd() == at as RawFd);
        let mut above = Vec::with_capacity(3);
        for fd in sources.iter().filter(|_| !already) {
            above.push(descriptor::duplicate_above(*fd, 3).or_fail(Stage::Process, failed)?);
        }
        for (number, fd) in above.iter().enumerate() {
            descriptor::place(fd.as_fd(), number as RawFd).or_fail(Stage::Process, failed)?;
        }
        for number in 0..3 {
            give_to(number, spec).or_fail(Stage::Process, failed)?;
        }
        Ok(())
    }
}

fn give_to(number: RawFd, spec: &oci::Process) -> rustix::io::Result<()> {
    let (uid, gid) = (spec.user.uid, spec.user.gid);
    descriptor::with_standard(number, |fd| {
        let stat = rustix::fs::fstat(fd)?;
        // The null device is everyone's.
        if stat.st_uid == uid || stat.st_rdev == rustix::fs::makedev(1, 3) {
            return Ok(());
        }
        match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Not ours to give: ids that are not mapped, read-only file systems, sockets of others.
            Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
            other => other,
        }
    })
}

/// Sets resource limits of a process, or of the calling one.
pub(crate) fn limit(pid: Option<i32>, rlimits: &[oci::Rlimit]) -> Result<(), Failure> {
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    for rlimit in rlimits {
        let wrong = || refuse(Stage::Config, format!("rlimit {:?} is not known", rlimit.kind));
        let resource = crate::scheduling::resource(&rlimit.kind).ok_or_else(wrong)?;
        let value = |n: u64| if n == u64::MAX { None } else { Some(n) };
        let new = rustix::process::Rlimit { current: value(rlimit.soft), maximum: value(rlimit.hard) };
        rustix::process::prlimit(pid, resource, new)
            .or_fail(Stage::Process, || format!("error setting rlimit type {}", rlimit.kind))?;
    }
    Ok(())
}
