//! A container's processes written to files and brought back, by CRIU's command.
//!
//! ```text
//! <images>/descriptors.json   what the standard streams of the first process were: pipes get others in their place at restore
//! <images>/*.img              CRIU's own
//! <work>/<log>                whose last error is shown
//! ```
//!
//! Mounts from outside are named by their place inside (`--external mnt[…]`) and found again by the configuration that is
//! restored. The root is mounted in a mount namespace of CRIU's process, which goes with it; so is the cgroup namespace made,
//! because CRIU is told to leave the groups alone: the process is in the container's group already. A terminal is refused: its
//! controlling end could be handed over by CRIU's RPC only.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_cgroup::{Cgroup, Mode};
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime::{NamespaceType, Spec};
use wharf_sys::clone::{Cloned, clone3, exit_now, flags, unshare};
use wharf_sys::descriptor::{duplicate_above, place};
use wharf_sys::exec::{Strings, execve};
use wharf_types::{Failure, Mount, Stage};

use crate::failure::OrFail;
use crate::mount_root;

/// What the standard streams were, in the images.
const DESCRIPTORS: &str = "descriptors.json";

/// What CRIU and the programs that it starts are found by, as in Debian's root shell: `ip`, `iptables-restore`, `tar`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most of CRIU's log that is read for its last error.
const LOG: u64 = 4 << 20;

/// The first number of the descriptors that CRIU inherits as the container's streams, and as namespaces.
const STREAMS: i32 = 10;
const NAMESPACES: i32 = 20;

/// Why a container could not be written or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// CRIU is not installed; runc's words.
    #[error("CRIU version check failed: exec: \"criu\": executable file not found in $PATH")]
    Missing,
    /// The container has a terminal.
    #[error("a container with a terminal cannot be checkpointed or restored")]
    Terminal,
    /// What CRIU said last.
    #[error("criu failed: type {action} exit status {code}: {last}\nlog file: {log}")]
    Refused {
        /// What it was to do.
        action: String,
        /// How it ended.
        code: i32,
        /// The last error of its log.
        last: String,
        /// Its log.
        log: PathBuf,
    },
    /// A file could not be used.
    #[error("{what} {path}")]
    File {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// CRIU could not be started.
    #[error("running criu")]
    Run(#[source] std::io::Error),
    /// What it needs could not be made.
    #[error("preparing the restore: {0}")]
    Prepare(String),
    /// The container's cgroup could not be used.
    #[error(transparent)]
    Cgroup(wharf_cgroup::CgroupError),
}

impl HasKind for CriuError {
    fn kind(&self) -> Kind {
        match self {
            // As runc's words are taken by Docker: like a command that is not there.
            CriuError::Missing => Kind::Invalid,
            CriuError::Terminal => Kind::NotImplemented,
            CriuError::Refused { .. } | CriuError::File { .. } | CriuError::Run(_) | CriuError::Prepare(_) => {
                Kind::System
            }
            CriuError::Cgroup(e) => e.kind(),
        }
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CriuError {
    let path = path.to_owned();
    move |source| CriuError::File { what, path, source }
}

/// CRIU with what it is told whatever it does.
#[derive(Debug)]
pub struct Criu {
    /// Its program.
    pub program: PathBuf,
    /// Where images are, absolute.
    pub images: PathBuf,
    /// Where it works and logs, absolute.
    pub work: PathBuf,
    /// The log's name there.
    pub log: &'static str,
    /// Further words of its command line.
    pub words: Vec<String>,
    /// Descriptors that it gets with these numbers, besides the standard streams; below 10 or above 30.
    pub keep: Vec<(i32, OwnedFd)>,
}

/// The container as it is configured.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its configuration.
    pub spec: &'a Spec,
    /// Its bundle.
    pub bundle: &'a Path,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
}

/// What is written, and what becomes of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// Memory only, ahead of the rest; it runs on.
    Before,
    /// Everything; it runs on.
    Running,
    /// Everything; it is killed.
    Ending,
}

/// Where a restored root file system comes from, and where CRIU may have it mounted.
#[derive(Clone, Copy, Debug)]
pub struct RootPlace<'a> {
    /// An existing folder that is on a mount of the host.
    pub at: &'a Path,
    /// What is mounted there; `root.path` of the configuration if empty.
    pub mounts: &'a [Mount],
}

/// Finds CRIU: the path that was named if it exists, else where root's shell would.
pub fn find(named: Option<&Path>) -> Result<PathBuf, CriuError> {
    let places = PATH.split(':').map(|folder| Path::new(folder).join("criu"));
    named.map(Path::to_owned).into_iter().chain(places).find(|path| path.is_file()).ok_or(CriuError::Missing)
}

/// Refuses what cannot be written or brought back, before anything is done.
pub fn check(spec: &Spec) -> Result<(), CriuError> {
    if spec.process.as_ref().is_some_and(|p| p.terminal) { Err(CriuError::Terminal) } else { Ok(()) }
}

impl Criu {
    /// Writes the processes below `pid`. Unless they are to run on, CRIU has killed them at the end.
    pub fn dump(&self, subject: &Subject<'_>, pid: i32, dump: Dump) -> Result<(), CriuError> {
        check(subject.spec)?;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for folder in [&self.images, &self.work] {
            builder.create(folder).map_err(file("create", folder))?;
        }
        let action = if dump == Dump::Before { "pre-dump" } else { "dump" };
        let mut words = self.words(action, &root_of(subject.spec, subject.bundle));
        words.extend(["--tree".to_owned(), pid.to_string()]);
        // The other way starts iptables-restore, which need not be here.
        words.extend(["--network-lock", "nftables"].map(str::to_owned));
        // Stops all at once, and lets CRIU reach into a container that is paused, which it leaves so.
        if let Some(freezer) = freezer(subject.cgroup) {
            words.extend(["--freeze-cgroup".to_owned(), freezer.display().to_string()]);
        }
        match dump {
            Dump::Before => words.push("--track-mem".to_owned()),
            Dump::Running => words.push("--leave-running".to_owned()),
            Dump::Ending => {}
        }
        let inside = PathBuf::from(format!("/proc/{pid}/root"));
        for (place, _) in external(subject, &inside) {
            words.extend(["--external".to_owned(), format!("mnt[{0}]:{0}", place.display())]);
        }
        for (name, path) in joined(subject.spec) {
            let inode = std::fs::metadata(path).map_err(file("stat", path))?.ino();
            words.extend(["--external".to_owned(), format!("{name}[{inode}]:{name}")]);
        }
        let streams = [0, 1, 2].map(|n| stream_of(pid, n));
        for outside in streams.iter().filter(|name| name.starts_with("file[")) {
            words.extend(["--external".to_owned(), outside.clone()]);
        }
        if dump != Dump::Before {
            let path = self.images.join(DESCRIPTORS);
            let text = serde_json::to_vec(&streams).unwrap_or_default();
            let mut options = std::fs::OpenOptions::new();
            let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            opened.and_then(|mut f| f.write_all(&text)).map_err(file("write", &path))?;
        }
        match self.run(&words, &[], || Ok(()))? {
            0 => Ok(()),
            code => Err(self.refused(&action.to_uppercase(), code)),
        }
    }

    /// Brings the processes back into the container's cgroup, as children of the caller, with these standard streams. Returns
    /// the id of the first.
    pub fn restore(
        &self,
        subject: &Subject<'_>,
        root: RootPlace<'_>,
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<i32, CriuError> {
        check(subject.spec)?;
        if !self.images.is_dir() {
            return Err(file("open", &self.images)(std::io::ErrorKind::NotFound.into()));
        }
        std::fs::create_dir_all(&self.work).map_err(file("create", &self.work))?;
        let pid_file = self.work.join("restored.pid");
        let _ = std::fs::remove_file(&pid_file);
        let mut words = self.words("restore", root.at);
        words.extend(["--restore-detached", "--restore-sibling", "--pidfile"].map(str::to_owned));
        words.push(pid_file.display().to_string());
        // What is masked is in procfs and sysfs, which are the host's kernel's, too: the root has neither mounted yet.
        for (place, source) in external(subject, Path::new("/")) {
            words.extend(["--external".to_owned(), format!("mnt[{}]:{}", place.display(), source.display())]);
        }
        let mut given = Vec::new();
        for (number, (name, path)) in (NAMESPACES..).zip(joined(subject.spec)) {
            let opened = std::fs::File::open(path).map_err(file("open", path))?;
            words.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{name}")]);
            given.push((number, OwnedFd::from(opened)));
        }
        // Pipes and files from outside that the process had as streams are others now.
        let path = self.images.join(DESCRIPTORS);
        let text = std::fs::read(&path).map_err(file("read", &path))?;
        let links: Vec<String> = serde_json::from_slice(&text).map_err(|e| file("read", &path)(e.into()))?;
        for (number, (link, stream)) in (STREAMS..).zip(links.iter().zip(streams)) {
            if link.contains("pipe:") || link.starts_with("file[") {
                words.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{link}")]);
                given.push((number, stream.try_clone_to_owned().map_err(CriuError::Run)?));
            }
        }
        let entrance = subject.cgroup.entrance().map_err(CriuError::Cgroup)?;
        let prepare = || {
            entrance.enter(false).or_fail(Stage::Cgroup, || "entering the cgroup")?;
            if has_cgroup_namespace(subject.spec) {
                unshare(flags::NEWCGROUP).or_fail(Stage::Namespace, || "making the cgroup namespace")?;
            }
            mount(subject, root)
        };
        let code = self.run(&words, &given, prepare)?;
        if code != 0 {
            return Err(self.refused("RESTORE", code));
        }
        let text = std::fs::read_to_string(&pid_file).map_err(file("read", &pid_file))?;
        let _ = std::fs::remove_file(&pid_file);
        text.trim().parse().map_err(|_| file("read", &pid_file)(std::io::ErrorKind::InvalidData.into()))
    }

    /// The words that every call has.
    fn words(&self, action: &str, root: &Path) -> Vec<String> {
        let path = |p: &Path| p.display().to_string();
        let fixed = [action, "--images-dir", &path(&self.images), "--work-dir", &path(&self.work)].map(str::to_owned);
        let more = ["-v4", "--log-file", self.log, "--root", &path(root)].map(str::to_owned);
        fixed.into_iter().chain(more).chain(self.words.iter().cloned()).collect()
    }

    /// The last thing that CRIU calls an error.
    fn refused(&self, action: &str, code: i32) -> CriuError {
        let log = self.work.join(self.log);
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open(&log) {
            let _ = file.take(LOG).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| line.contains("Error")).unwrap_or("nothing in its log");
        let last = last.split_once(") ").map_or(last, |(_, rest)| rest).to_owned();
        CriuError::Refused { action: action.to_owned(), code, last, log }
    }

    /// Runs CRIU to its end, with descriptors of these numbers besides the standard streams. `prepare` is done in its process.
    fn run(
        &self,
        words: &[String],
        given: &[(i32, OwnedFd)],
        prepare: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<i32, CriuError> {
        let nul = |e: std::ffi::NulError| CriuError::Run(e.into());
        let program = std::ffi::CString::new(self.program.as_os_str().as_encoded_bytes()).map_err(nul)?;
        let args = Strings::new(std::iter::once("criu".to_owned()).chain(words.iter().cloned())).map_err(nul)?;
        let env = Strings::new([format!("PATH={PATH}")]).map_err(nul)?;
        let all = || self.keep.iter().chain(given);
        let above = all().map(|(number, _)| number + 1).max().unwrap_or(0).max(64);
        let moved = all().map(|(number, fd)| Ok((*number, duplicate_above(fd.as_fd(), above)?)));
        let moved: Vec<(i32, OwnedFd)> = moved.collect::<std::io::Result<_>>().map_err(CriuError::Run)?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (report, low) = pipe.map_err(|e| CriuError::Run(e.into()))?;
        let to_report = duplicate_above(low.as_fd(), above).map_err(CriuError::Run)?;
        // Or the end of the report never came.
        drop(low);
        let pidfd = match clone3(0, None).map_err(CriuError::Run)? {
            Cloned::Parent { pidfd, .. } => pidfd,
            Cloned::Child => {
                let place = |(number, fd): &(i32, OwnedFd)| match fd.as_raw_fd() == *number {
                    true => Ok(()),
                    false => place(fd.as_fd(), *number),
                };
                let placed = prepare().map_err(|failure| failure.to_string());
                let placed = placed.and_then(|()| moved.iter().try_for_each(place).map_err(|e| e.to_string()));
                let wrong = placed.and_then(|()| wharf_sys::signal::reset_all().map_err(|e| e.to_string())).err();
                // Execution comes back only if it failed.
                let wrong = wrong.unwrap_or_else(|| execve(&program, &args, &env).to_string());
                let _ = rustix::io::write(&to_report, wrong.as_bytes());
                exit_now(127)
            }
        };
        drop(to_report);
        let mut wrong = String::new();
        let heard = std::fs::File::from(report).read_to_string(&mut wrong);
        let code = loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                ended => {
                    let ended = ended.map_err(|e| CriuError::Run(e.into()))?;
                    break ended.and_then(|status| status.exit_status()).unwrap_or(128);
                }
            }
        };
        heard.map_err(CriuError::Run)?;
        if wrong.is_empty() { Ok(code) } else { Err(CriuError::Prepare(wrong)) }
    }
}

/// Mounts the root where only CRIU and what it restores see it.
fn mount(subject: &Subject<'_>, root: RootPlace<'_>) -> Result<(), Failure> {
    let failed = || format!("rootfs {}", root.at.display());
    unshare(flags::NEWNS).or_fail(Stage::Namespace, || "making a mount namespace")?;
    let slaves = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slaves).or_fail(Stage::Rootfs, failed)?;
    if root.mounts.is_empty() {
        let from = root_of(subject.spec, subject.bundle);
        mount_bind_recursive(&from, root.at).or_fail(Stage::Rootfs, failed)?;
    } else {
        mount_root(root.mounts, root.at)?;
    }
    mount_change(root.at, MountPropagationFlags::PRIVATE).or_fail(Stage::Rootfs, failed)
}

/// The folder whose `freezer.state` or `cgroup.freeze` stops the container.
fn freezer(cgroup: &Cgroup) -> Option<PathBuf> {
    let unified = cgroup.mode() == Mode::V2;
    let fits = |names: &str| if unified { names.is_empty() } else { names.split(',').any(|name| name == "freezer") };
    cgroup.paths().into_iter().find(|(names, _)| fits(names)).map(|(_, folder)| folder)
}

fn has_cgroup_namespace(spec: &Spec) -> bool {
    let all = spec.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    all.iter().any(|n| n.kind == NamespaceType::Cgroup && n.path.is_none())
}

/// What is mounted from outside, by its place inside, with its source on the host.
fn external(subject: &Subject<'_>, root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Subject { spec, bundle, cgroup } = subject;
    let bind = |options: &[String]| options.iter().any(|o| matches!(o.as_str(), "bind" | "rbind"));
    let mounts = spec.mounts.iter().filter(|m| m.kind.as_deref() == Some("bind") || bind(&m.options));
    let mut list: Vec<_> =
        mounts.map(|m| (m.destination.clone(), bundle.join(m.source.as_deref().unwrap_or(Path::new(""))))).collect();
    // Without a cgroup namespace the container's own folders are bound (`cgroup_view`), which CRIU would not find again.
    let groups = spec.mounts.iter().filter(|m| m.kind.as_deref() == Some("cgroup") && !has_cgroup_namespace(spec));
    for mount in groups {
        for (controllers, folder) in cgroup.paths() {
            let name = match controllers.as_str() {
                "" if cgroup.mode() == Mode::V2 => "",
                "" => "unified",
                named => named.strip_prefix("name=").unwrap_or(named),
            };
            let place = if name.is_empty() { mount.destination.clone() } else { mount.destination.join(name) };
            list.push((place, folder));
        }
    }
    // A masked file is covered by the null device; a masked folder by a tmpfs, which CRIU knows itself.
    let masked = spec.linux.as_ref().map_or(&[][..], |l| &l.masked_paths);
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    let files = masked.iter().filter(|path| std::fs::metadata(inside(path)).is_ok_and(|m| !m.is_dir()));
    list.extend(files.map(|path| (PathBuf::from(path), PathBuf::from("/dev/null"))));
    list
}

fn root_of(spec: &Spec, bundle: &Path) -> PathBuf {
    bundle.join(spec.root.as_ref().map_or(Path::new("rootfs"), |root| &root.path))
}

/// The namespaces that the configuration joins instead of making: CRIU is told that they are not the container's.
fn joined(spec: &Spec) -> impl Iterator<Item = (&'static str, &Path)> {
    let all = spec.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    all.iter().filter_map(|namespace| {
        let name = match namespace.kind {
            NamespaceType::Network => "net",
            NamespaceType::Pid => "pid",
            _ => return None,
        };
        Some((name, namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty())?))
    })
}

/// What a stream of the first process is by CRIU's name for it: a pipe, a file that is on no mount of the container, or else its path.
fn stream_of(pid: i32, number: i32) -> String {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = std::fs::read_link(&path).map(|link| link.display().to_string()).unwrap_or_default();
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let inside = |id: u64| mounts.lines().any(|l| l.split(' ').next().and_then(|n| n.parse().ok()) == Some(id));
    match (mount, std::fs::metadata(&path)) {
        (Some(id), Ok(found)) if link.starts_with('/') && !inside(id) => format!("file[{id:x}:{:x}]", found.ino()),
        _ => link,
    }
}
