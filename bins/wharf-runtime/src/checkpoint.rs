//! `checkpoint` and `restore`: a container's processes written to files and brought back (`wharf_runtime::criu`).

use std::path::{Path, PathBuf};

use wharf_cgroup::Cgroup;
use wharf_oci::runtime::{Spec, Status};
use wharf_runtime::criu::{self, Criu, Dump, RootPlace, Subject};
use wharf_runtime::{Container, start_time};
use wharf_types::{Signal, Timestamp};

use crate::args::Invocation;
use crate::commands::{announce, bundle, forget};
use crate::error::Error;
use crate::store::{self, Folder, Record};
use crate::supervise::Foreground;

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

fn absolute(path: &str) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(file("find", Path::new(path)))
}

/// CRIU with what both directions are told; `groups` is what it does with control groups unless told otherwise.
fn setting(i: &Invocation, log: &'static str, groups: &str) -> Result<Criu, Error> {
    let program = criu::find(i.criu.as_deref())?;
    let images = absolute(i.value("image-path").unwrap_or("checkpoint"))?;
    let work = match i.value("work-path") {
        Some(path) => absolute(path)?,
        None => images.clone(),
    };
    Ok(Criu { program, images, work, log, words: common(i, groups)?, keep: Vec::new() })
}

/// Options that both directions share.
fn common(i: &Invocation, groups: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
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
    Ok(words)
}

/// Writes a running container to files.
pub fn checkpoint(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
    let status = folder.status(&record)?;
    if !matches!(status, Status::Running | Status::Paused) {
        let text = format!("Container cannot be checkpointed in {} state", status.as_str());
        return Err(Error::State(text));
    }
    criu::check(&record.config)?;
    let mut setting = setting(i, "dump.log", "soft")?;
    let dump = match (i.is_set("pre-dump"), i.is_set("leave-running")) {
        (true, _) => Dump::Before,
        (_, true) => Dump::Running,
        _ => Dump::Ending,
    };
    let words = &mut setting.words;
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
    if let Some(number) = i.number::<i32>("status-fd")? {
        let descriptor = wharf_sys::descriptor::inherit(number).map_err(file("use --status-fd of", Path::new("/")))?;
        words.extend(["--status-fd".to_owned(), number.to_string()]);
        setting.keep.push((number, descriptor));
    }
    let container = record.container()?;
    let cgroup = container.cgroup().ok_or_else(|| Error::State("container has no cgroup".to_owned()))?;
    let subject = Subject { spec: &record.config, bundle: &record.bundle, cgroup };
    setting.dump(&subject, record.pid, dump)?;
    if dump == Dump::Ending {
        // CRIU has killed it already, which is no failure.
        match container.kill(Signal::KILL, true) {
            Ok(()) | Err(wharf_runtime::Error::NotRunning) => {}
            Err(e) => return Err(e.into()),
        }
        forget(&folder, wharf_runtime::remove(&record.id, &record.bundle, &record.config))?;
    }
    Ok(0)
}

/// Brings a container back.
pub fn restore(i: &Invocation) -> Result<u8, Error> {
    store::check_id(i.id())?;
    let (bundle, config) = bundle(i)?;
    criu::check(&config)?;
    // CRIU is in the container's group already, whatever the group was called when it was written.
    let setting = setting(i, "restore.log", "ignore")?;
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
    forget(&folder, container.delete())?;
    code
}

fn bring_back(
    i: &Invocation,
    setting: &Criu,
    folder: &Folder,
    bundle: &Path,
    config: Spec,
    cgroup: &Cgroup,
) -> Result<Container, Error> {
    let root = folder.path().join("root");
    std::fs::create_dir(&root).map_err(file("create", &root))?;
    let subject = Subject { spec: &config, bundle, cgroup };
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let pid = setting.restore(&subject, RootPlace { at: &root, mounts: &[] }, streams)?;
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
