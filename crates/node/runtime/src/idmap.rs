//! Id maps of user namespaces (user_namespaces(7)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_oci::runtime::IdMapping;
use wharf_sys::clone::{Cloned, clone3, exit_now, flags};
use wharf_types::{Failure, Stage};

use crate::failure::OrFail;
use crate::host::write_file;
use crate::mounting::open_host;

/// Whether the caller may give any ids, and mount in the host's name.
pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Writes the maps of a new user namespace as a user without privileges: the own ids directly, others by newuidmap(1) and
/// newgidmap(1), which look into /etc/subuid and /etc/subgid.
fn write_unprivileged(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    let own = |map: &[IdMapping], id: u32| matches!(map, [one] if one.size == 1 && one.host_id == id);
    if own(gids, rustix::process::getegid().as_raw()) {
        // Without it a process could drop a group that denies it something (CVE-2014-8989).
        write_file(&format!("/proc/{pid}/setgroups"), b"deny").or_fail(Stage::IdMap, || "write setgroups")?;
        write_one(pid, "gid_map", gids)?;
    } else {
        help("newgidmap", pid, gids)?;
    }
    if own(uids, rustix::process::geteuid().as_raw()) {
        write_one(pid, "uid_map", uids)
    } else {
        help("newuidmap", pid, uids)
    }
}

fn help(program: &str, pid: i32, map: &[IdMapping]) -> Result<(), Failure> {
    let mut words = vec![program.to_owned(), pid.to_string()];
    for m in map {
        words.extend([m.container_id, m.host_id, m.size].map(|n| n.to_string()));
    }
    // Never by a $PATH that the caller's caller chose for its own purposes.
    let found = ["/usr/bin", "/bin", "/usr/local/bin"].iter().map(|f| format!("{f}/{program}"));
    let path = found.into_iter().find(|path| std::path::Path::new(path).exists());
    let missing = || {
        crate::failure::refuse(
            Stage::IdMap,
            format!("rootless multi-id mapping needs {program}, which is not installed"),
        )
    };
    crate::hook::help(&path.ok_or_else(missing)?, &words).map_err(|what| Failure { stage: Stage::IdMap, ..what })
}

/// Writes the maps of the process's new user namespace.
pub(crate) fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    if !is_privileged() {
        return write_unprivileged(pid, uids, gids);
    }
    write_one(pid, "gid_map", gids)?;
    write_one(pid, "uid_map", uids)
}

fn write_one(pid: i32, file: &str, map: &[IdMapping]) -> Result<(), Failure> {
    let text: String = map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect();
    write_file(&format!("/proc/{pid}/{file}"), text.as_bytes())
        .or_fail(Stage::IdMap, || format!("write {file} {:?}", text.trim_end()))
}

/// Makes a user namespace with these maps that no process is in, for id-mapped mounts.
pub(crate) fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Failure> {
    let failed = || "make user namespace for id-mapped mount";
    let (pid, pidfd) = match clone3(flags::NEWUSER, None).or_fail(Stage::IdMap, failed)? {
        Cloned::Child => {
            // Ended by the caller's signal; should the caller die first, by its death.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            rustix::event::pause();
            exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let made = write(pid, uids, gids).and_then(|()| {
        open_host(format!("/proc/{pid}/ns/user").as_ref(), rustix::fs::OFlags::RDONLY).or_fail(Stage::IdMap, failed)
    });
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).or_fail(Stage::IdMap, failed)?;
    made
}
