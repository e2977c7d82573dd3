//! What a daemon has on the host: mounts, links, firewall tables, cgroups, processes, folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Daemon, entries};

/// Things found on the host that belong to one daemon. Empty lists everywhere is "nothing left behind".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Mount points below its folder, in the host's mount namespace.
    pub mounts: Vec<String>,
    /// Its bridge, and links that are ports of it.
    pub links: Vec<String>,
    /// nftables tables and tagged rules that carry its name.
    pub firewall: Vec<String>,
    /// Container cgroups below its parent; the parent itself too, when the daemon does not run.
    pub cgroups: Vec<PathBuf>,
    /// Processes whose command line names its folder, dockerd itself excluded.
    pub processes: Vec<String>,
    /// Task folders, and folders of what containers are shown.
    pub tasks: Vec<String>,
    /// Container folders.
    pub containers: Vec<String>,
}

impl Residue {
    /// Looks now.
    pub fn of(daemon: &Daemon) -> Self {
        let folder = daemon.folder().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts.lines().filter(|l| l.contains(&folder)).map(str::to_owned).collect();
        Self {
            mounts,
            links: links(daemon.name()),
            firewall: firewall(daemon.name()),
            cgroups: cgroups(daemon.name(), !daemon.is_running()),
            processes: processes(daemon.folder()).into_iter().map(|(pid, line)| format!("{pid} {line}")).collect(),
            tasks: [entries(&daemon.exec_root().join("tasks")), entries(&daemon.exec_root().join("shown"))].concat(),
            containers: entries(&daemon.data_root().join("containers")),
        }
    }

    /// Only what containers leave: links without the bridge itself and its pool, no firewall, no daemon's files.
    pub fn of_containers(daemon: &Daemon) -> Self {
        Self { links: Vec::new(), firewall: Vec::new(), ..Self::of(daemon) }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What stands in the cgroup hierarchies for a daemon that does not run.
    pub(crate) fn cgroups(name: &str) -> Vec<PathBuf> {
        cgroups(name, true)
    }

    /// Ends every process whose command line names `folder` and says how many there were.
    pub(crate) fn end_processes(folder: &Path) -> usize {
        let found = processes(folder);
        for (pid, _) in &found {
            if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        found.len()
    }
}

fn links(name: &str) -> Vec<String> {
    let ports = entries(&Path::new("/sys/class/net").join(name).join("brif"));
    let own = Path::new("/sys/class/net").join(name).exists().then(|| name.to_owned());
    own.into_iter().chain(ports).collect()
}

fn firewall(name: &str) -> Vec<String> {
    let Ok(listed) = Command::new("nft").args(["list", "ruleset"]).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().filter(|l| l.contains(name)).map(|l| l.trim().to_owned()).collect()
}

fn cgroups(name: &str, with_parent: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next: Vec<(PathBuf, u8)> = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = next.pop() {
        let Ok(read) = fs::read_dir(&folder) else { continue };
        for entry in read.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            let path = entry.path();
            if entry.file_name().to_string_lossy() == name {
                found.extend(with_parent.then(|| path.clone()));
                found.extend(entries(&path).into_iter().map(|e| path.join(e)).filter(|p| p.is_dir()));
            } else if depth < 3 {
                next.push((path, depth + 1));
            }
        }
    }
    found.sort();
    found
}

/// Processes whose command line names the folder, without dockerd and its clients.
fn processes(folder: &Path) -> Vec<(i32, String)> {
    let folder = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for name in entries(Path::new("/proc")) {
        let Ok(pid) = name.parse::<i32>() else { continue };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().unwrap_or_default();
        if line.contains(&folder)
            && !program.ends_with("dockerd")
            && !program.ends_with("docker")
            && program != "unshare"
        {
            found.push((pid, line));
        }
    }
    found
}
