//! Id maps of user namespaces (user_namespaces(7)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_oci::runtime::IdMapping;
use wharf_sys::clone::{Cloned, clone3, exit_now, flags};
use wharf_types::{Failure, Stage};

use crate::failure::OrFail;
use crate::host::write_file;
use crate::mounting::open_host;

/// Writes the maps of the process's new user namespace.
pub(crate) fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    for (file, map) in [("gid_map", gids), ("uid_map", uids)] {
        let text: String = map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect();
        write_file(&format!("/proc/{pid}/{file}"), text.as_bytes())
            .or_fail(Stage::IdMap, || format!("write {file} {:?}", text.trim_end()))?;
    }
    Ok(())
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
