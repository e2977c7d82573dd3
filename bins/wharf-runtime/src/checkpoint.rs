//! `checkpoint` and `restore`: a container's processes written to files and brought back, by CRIU's command.
//!
//! ```text
//! <image path>/descriptors.json   what the standard streams of the first process were: pipes get ours in their place at restore
//! <image path>/*.img              CRIU's own
//! <work path>/dump.log            and restore.log, whose last error is shown
//! ```
//!
//! Mounts from outside are named by their place inside (`--external mnt[…]`) and found again by the configuration of the
//! bundle that is restored to. The root is bound to a folder of its own in a mount namespace of this command, as CRIU wants
//! a mount point. A terminal is refused: its controlling end could be handed over by CRIU's RPC only.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_cgroup::Cgroup;
use wharf_oci::runtime::{NamespaceType, Spec, Status};
use wharf_runtime::{Container, start_time};
use wharf_sys::clone::{Cloned, clone3, exit_now, flags, unshare};
use wharf_sys::descriptor::{duplicate_above, place};
use wharf_sys::exec::{Strings, execve};
use wharf_types::{Signal, Timestamp};

use crate::args::Invocation;
use crate::commands::{announce, bundle, read_json};
use crate::error::Error;
use crate::store::{self, Folder, Record};
use crate::supervise::Foreground;

/// What the standard streams were, in the images.
const DESCRIPTORS: &str = "descriptors.json";

/// Where the program is looked for if `--criu` names none that exists.
const PLACES: &[&str] = &["/usr/sbin/criu", "/usr/local/sbin/criu", "/usr/bin/criu", "/sbin/criu"];

/// The most of CRIU's log that is read for its last error.
const LOG: u64 = 4 << 20;

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

fn absolute(path: &str) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(file("find", Path::new(path)))
}

/// Where images and logs are, and the program.
struct Setting {
    program: PathBuf,
    images: PathBuf,
    work: PathBuf,
}

impl Setting {
    fn of(i: &Invocation) -> Result<Self, Error> {
        let named = i.criu.iter().cloned();
        let program = named.chain(PLACES.iter().map(PathBuf::from)).find(|path| path.is_file());
        let program = program.ok_or_else(|| Error::State("criu is not installed".to_owned()))?;
        let images = absolute(i.value("image-path").unwrap_or("checkpoint"))?;
        let work = match i.value("work-path") {
            Some(path) => absolute(path)?,
            None => images.clone(),
        };
        Ok(Self { program, images, work })
    }

    /// CRIU's words that every call has.
    fn words(&self, action: &str, log: &str, root: &Path) -> Vec<String> {
        let path = |p: &Path| p.display().to_string();
        let fixed = [action, "--images-dir", &path(&self.images), "--work-dir", &path(&self.work)].map(str::to_owned);
        let more = ["-v4", "--log-file", log, "--root", &path(root)].map(str::to_owned);
        fixed.into_iter().chain(more).collect()
    }

    /// The last thing that CRIU calls an error.
    fn failed(&self, action: &str, log: &str, code: i32) -> Error {
        let path = self.work.join(log);
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open(&path) {
            let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, LOG), &mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| line.contains("Error")).unwrap_or("nothing in its log");
        let last = last.split_once(") ").map_or(last, |(_, rest)| rest);
        let path = path.display();
        Error::State(format!("criu failed: type {action} exit status {code}: {last}\nlog file: {path}"))
    }
}

/// Options that both directions share.
fn common(i: &Invocation, words: &mut Vec<String>, groups: &str) -> Result<(), Error> {
    for (option, word) in [
        ("tcp-established", "--tcp-established"),
        ("ext-unix-sk", "--ext-unix-sk"),
        ("shell-job", "--shell-job"),
        ("file-locks", "--file-locks"),
        ("auto-dedup", "--auto-dedup"),
        ("lazy-pages", "--lazy-pages"),
        ("link-remap", "--link-remap"),
    ] {
        if i.is_set(option) {
            words.push(word.to_owned());
        }
    }
    let mode = i.value("manage-cgroups-mode").unwrap_or(groups);
    if !matches!(mode, "soft" | "full" | "strict" | "ignore") {
        return Err(Error::Usage("Invalid manage-cgroups-mode value".to_owned()));
    }
    words.push(format!("--manage-cgroups={mode}"));
    for kind in i.values("empty-ns") {
        if kind != "network" {
            return Err(Error::Usage(format!("namespace {kind} is not supported")));
        }
        words.extend(["--empty-ns".to_owned(), "net".to_owned()]);
    }
    Ok(())
}

/// What is mounted from outside, by its place inside, with its source on the host.
fn external(config: &Spec, bundle: &Path, root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let bind = |options: &[String]| options.iter().any(|o| matches!(o.as_str(), "bind" | "rbind"));
    let mounts = config.mounts.iter().filter(|m| m.kind.as_deref() == Some("bind") || bind(&m.options));
    let mut list: Vec<_> =
        mounts.map(|m| (m.destination.clone(), bundle.join(m.source.as_deref().unwrap_or(Path::new(""))))).collect();
    // A masked file is covered by the null device; a masked folder by a tmpfs, which CRIU knows itself.
    let masked = config.linux.as_ref().map_or(&[][..], |l| &l.masked_paths);
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    let files = masked.iter().filter(|path| std::fs::metadata(inside(path)).is_ok_and(|m| !m.is_dir()));
    list.extend(files.map(|path| (PathBuf::from(path), PathBuf::from("/dev/null"))));
    list
}

fn root_of(config: &Spec, bundle: &Path) -> PathBuf {
    bundle.join(config.root.as_ref().map_or(Path::new("rootfs"), |root| &root.path))
}

/// The namespaces that the configuration joins instead of making: CRIU is told that they are not the container's.
fn joined(config: &Spec) -> impl Iterator<Item = (&'static str, &Path)> {
    let all = config.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    all.iter().filter_map(|namespace| {
        let name = match namespace.kind {
            NamespaceType::Network => "net",
            NamespaceType::Pid => "pid",
            _ => return None,
        };
        Some((name, namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty())?))
    })
}

/// Writes a running container to files.
pub fn checkpoint(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
    let status = folder.status(&record)?;
    if !matches!(status, Status::Running | Status::Paused) {
        let text = format!("Container cannot be checkpointed in {} state", status.as_str());
        return Err(Error::State(text));
    }
    refuse_terminal(&record.config)?;
    let setting = Setting::of(i)?;
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(&setting.images).map_err(file("create", &setting.images))?;
    builder.create(&setting.work).map_err(file("create", &setting.work))?;
    let before = i.is_set("pre-dump");
    let action = if before { "pre-dump" } else { "dump" };
    let mut words = setting.words(action, "dump.log", &root_of(&record.config, &record.bundle));
    words.extend(["--tree".to_owned(), record.pid.to_string()]);
    // The other way starts iptables-restore, which need not be here.
    words.extend(["--network-lock", "nftables"].map(str::to_owned));
    common(i, &mut words, "soft")?;
    // A first pass reads memory only, and lets the container run.
    if before {
        words.push("--track-mem".to_owned());
    } else if i.is_set("leave-running") {
        words.push("--leave-running".to_owned());
    }
    if let Some(parent) = i.value("parent-path") {
        // CRIU wants it as seen from the images.
        if Path::new(parent).is_absolute() {
            return Err(Error::Usage("--parent-path must be relative".to_owned()));
        }
        words.extend(["--prev-images-dir".to_owned(), parent.to_owned(), "--track-mem".to_owned()]);
    }
    if let Some(server) = i.value("page-server") {
        let (address, port) = server
            .rsplit_once(':')
            .ok_or_else(|| Error::Usage("Use --page-server ADDRESS:PORT to specify page server".to_owned()))?;
        let port: u16 = port.parse().map_err(|_| Error::Usage("Invalid port number".to_owned()))?;
        // With lazy pages it is CRIU who serves, there.
        if !i.is_set("lazy-pages") {
            words.push("--page-server".to_owned());
        }
        words.extend(["--address", address, "--port"].map(str::to_owned));
        words.push(port.to_string());
    }
    let mut keep = Vec::new();
    if let Some(number) = i.number::<i32>("status-fd")? {
        let descriptor = wharf_sys::descriptor::inherit(number).map_err(file("use --status-fd of", Path::new("/")))?;
        words.extend(["--status-fd".to_owned(), number.to_string()]);
        keep.push((number, descriptor));
    }
    let inside = PathBuf::from(format!("/proc/{}/root", record.pid));
    for (place, _) in external(&record.config, &record.bundle, &inside) {
        words.extend(["--external".to_owned(), format!("mnt[{0}]:{0}", place.display())]);
    }
    for (name, path) in joined(&record.config) {
        let inode = std::fs::metadata(path).map_err(file("stat", path))?;
        let inode = std::os::unix::fs::MetadataExt::ino(&inode);
        words.extend(["--external".to_owned(), format!("{name}[{inode}]:{name}")]);
    }
    let streams = [0, 1, 2].map(|n| stream_of(record.pid, n));
    for outside in streams.iter().filter(|name| name.starts_with("file[")) {
        words.extend(["--external".to_owned(), outside.clone()]);
    }
    if !before {
        let path = setting.images.join(DESCRIPTORS);
        let text = serde_json::to_vec(&streams).map_err(|source| Error::Json { path: path.clone(), source })?;
        store::write_whole(&path, &text, 0o600)?;
    }
    let code = run(&setting, &words, None, &keep)?;
    if code != 0 {
        return Err(setting.failed(&action.to_uppercase(), "dump.log", code));
    }
    if !before && !i.is_set("leave-running") {
        if let Ok(container) = record.container() {
            container.kill(Signal::KILL, true)?;
        }
        wharf_runtime::remove(&record.id, &record.bundle, &record.config)?;
        folder.remove()?;
    }
    Ok(0)
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
        (Some(id), Ok(found)) if link.starts_with('/') && !inside(id) => {
            format!("file[{id:x}:{:x}]", std::os::unix::fs::MetadataExt::ino(&found))
        }
        _ => link,
    }
}

fn refuse_terminal(config: &Spec) -> Result<(), Error> {
    if config.process.as_ref().is_some_and(|p| p.terminal) {
        return Err(Error::State("a container with a terminal cannot be checkpointed or restored".to_owned()));
    }
    Ok(())
}

/// Brings a container back.
pub fn restore(i: &Invocation) -> Result<u8, Error> {
    store::check_id(i.id())?;
    let (bundle, config) = bundle(i)?;
    refuse_terminal(&config)?;
    let setting = Setting::of(i)?;
    if !setting.images.is_dir() {
        return Err(file("open", &setting.images)(std::io::ErrorKind::NotFound.into()));
    }
    std::fs::create_dir_all(&setting.work).map_err(file("create", &setting.work))?;
    let foreground = if i.is_set("detach") { None } else { Some(Foreground::new()?) };
    let folder = store::make(&i.root, i.id())?;
    let cgroup = wharf_runtime::make_cgroup(i.id(), &config).inspect_err(|_| drop(folder.remove()))?;
    let made = bring_back(i, &setting, &folder, &bundle, config, &cgroup);
    let container = match made {
        Ok(container) => container,
        Err(e) => {
            // What failed first is what counts.
            let _ = cgroup.kill_all();
            let _ = cgroup.delete(std::time::Instant::now() + std::time::Duration::from_secs(5));
            let _ = folder.remove();
            return Err(e);
        }
    };
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(container.pidfd(), None);
    container.delete()?;
    folder.remove()?;
    code
}

fn bring_back(
    i: &Invocation,
    setting: &Setting,
    folder: &Folder,
    bundle: &Path,
    config: Spec,
    cgroup: &Cgroup,
) -> Result<Container, Error> {
    let root = folder.path().join("root");
    mount_root(&root_of(&config, bundle), &root).map_err(file("mount the root at", &root))?;
    let pid_file = folder.path().join("restored.pid");
    let mut words = setting.words("restore", "restore.log", &root);
    words.extend(["--restore-detached", "--restore-sibling", "--pidfile"].map(str::to_owned));
    words.push(pid_file.display().to_string());
    // CRIU is in the container's group already, whatever the group was called when it was written.
    common(i, &mut words, "ignore")?;
    // What is masked is in procfs and sysfs, which are the host's kernel's, too: the root has neither mounted yet.
    for (place, source) in external(&config, bundle, Path::new("/")) {
        words.extend(["--external".to_owned(), format!("mnt[{}]:{}", place.display(), source.display())]);
    }
    let mut keep = Vec::new();
    for (number, (name, path)) in (20..).zip(joined(&config)) {
        let opened = std::fs::File::open(path).map_err(file("open", path))?;
        words.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{name}")]);
        keep.push((number, OwnedFd::from(opened)));
    }
    // Pipes and files from outside that the process had as streams are ours now.
    let links: Vec<String> = read_json(&setting.images.join(DESCRIPTORS))?;
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (number, (link, stream)) in (10..).zip(links.iter().zip(streams)) {
        if link.contains("pipe:") || link.starts_with("file[") {
            words.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{link}")]);
            keep.push((number, stream.try_clone_to_owned().map_err(Error::Wait)?));
        }
    }
    let code = run(setting, &words, Some(cgroup), &keep)?;
    if code != 0 {
        return Err(setting.failed("RESTORE", "restore.log", code));
    }
    let text = std::fs::read_to_string(&pid_file).map_err(file("read", &pid_file))?;
    let pid = text.trim().parse().map_err(|_| file("read", &pid_file)(std::io::ErrorKind::InvalidData.into()))?;
    let (started, _) = start_time(pid).unwrap_or_default();
    let record = Record {
        id: i.id().to_owned(),
        pid,
        started,
        bundle: bundle.to_owned(),
        created: Timestamp::now(),
        config,
        systemd: None,
        rootless: false,
    };
    folder.save(&record)?;
    let container = record.container()?;
    announce(i, pid, container.pidfd())?;
    Ok(container)
}

/// Binds the root to a place that only this command and what CRIU restores see.
fn mount_root(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
    std::fs::create_dir(to)?;
    unshare(flags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount_bind_recursive(from, to)?;
    Ok(mount_change(to, MountPropagationFlags::PRIVATE)?)
}

/// Runs CRIU to its end, in a cgroup if one is given, with descriptors of these numbers besides the standard streams.
fn run(setting: &Setting, words: &[String], cgroup: Option<&Cgroup>, keep: &[(i32, OwnedFd)]) -> Result<i32, Error> {
    let nul = |e: std::ffi::NulError| Error::Wait(e.into());
    let program = std::ffi::CString::new(setting.program.as_os_str().as_encoded_bytes()).map_err(nul)?;
    let args = Strings::new(std::iter::once("criu".to_owned()).chain(words.iter().cloned())).map_err(nul)?;
    // CRIU runs `ip`, `iptables-restore` and the like for network namespaces.
    let env = Strings::new(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]).map_err(nul)?;
    let entrance = cgroup.map(Cgroup::entrance).transpose().map_err(Error::Cgroup)?;
    let above = keep.iter().map(|(number, _)| number + 1).max().unwrap_or(0).max(64);
    let moved = keep.iter().map(|(number, fd)| Ok((*number, duplicate_above(fd.as_fd(), above)?)));
    let moved: Vec<(i32, OwnedFd)> = moved.collect::<std::io::Result<_>>().map_err(Error::Wait)?;
    let pidfd = match clone3(0, None).map_err(Error::Wait)? {
        Cloned::Parent { pidfd, .. } => pidfd,
        Cloned::Child => {
            let entered = entrance.map_or(Ok(()), |entrance| entrance.enter(false));
            let placed = moved.iter().try_for_each(|(number, fd)| match fd.as_raw_fd() == *number {
                true => Ok(()),
                false => place(fd.as_fd(), *number),
            });
            if entered.is_ok() && placed.is_ok() {
                // Returns only if it failed.
                let _ = wharf_sys::signal::reset_all();
                drop(execve(&program, &args, &env));
            }
            exit_now(127)
        }
    };
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            ended => {
                let ended = ended.map_err(|e| Error::Wait(e.into()))?;
                return Ok(ended.and_then(|status| status.exit_status()).unwrap_or(128));
            }
        }
    }
}
