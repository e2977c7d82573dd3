//! `exec`: a further process in a container.

use std::os::fd::AsFd;
use std::path::Path;

use wharf_oci::runtime::{Process, Spec, Status, User};
use wharf_runtime::{ExecRequest, Stdio};

use crate::args::Invocation;
use crate::commands::{announce, preserved, read_json};
use crate::error::Error;
use crate::store;
use crate::supervise::{Foreground, hand_over};

pub fn run(i: &Invocation) -> Result<u8, Error> {
    let (folder, record) = store::open(&i.root, i.id())?;
    match folder.status(&record)? {
        Status::Stopped => return Err(Error::State("cannot exec in a stopped container".to_owned())),
        Status::Paused if !i.is_set("ignore-paused") => {
            return Err(Error::State("cannot exec in a paused container (use --ignore-paused to override)".to_owned()));
        }
        _ => {}
    }
    let mut config = Spec { process: Some(process(i, &record.config)?), ..Spec::default() };
    let preserve_fds = preserved(i, &mut config)?;
    let process = config.process.unwrap_or_default();
    let groups: Vec<(String, String)> = i.values("cgroup").iter().map(|text| sub_group(text)).collect();
    let detached = i.is_set("detach");
    let socket = i.value("console-socket");
    if process.terminal && detached && socket.is_none() {
        let text = "cannot allocate tty if runc will detach without setting console socket";
        return Err(Error::Usage(text.to_owned()));
    }
    let foreground = if detached { None } else { Some(Foreground::new()?) };
    let container = record.container()?;
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let stdio = if process.terminal { Stdio::Terminal } else { Stdio::Descriptors(streams) };
    let request = ExecRequest { process: &process, stdio, preserve_fds, groups: &groups };
    let made = container.exec(request).map_err(Error::Start)?;
    announce(i, made.pid, made.pidfd.as_fd())?;
    let mut console = made.console;
    if let Some(socket) = socket
        && let Some(console) = console.take()
    {
        hand_over(Path::new(socket), "/dev/ptmx", console.as_fd())?;
    }
    match foreground {
        Some(foreground) => foreground.wait(made.pidfd.as_fd(), console.as_ref()),
        None => Ok(0),
    }
}

/// The process: that of a file, or the container's own with what the options change.
fn process(i: &Invocation, config: &Spec) -> Result<Process, Error> {
    let own = config.process.clone().unwrap_or_default();
    if let Some(path) = i.value("process") {
        let mut process: Process = read_json(Path::new(path))?;
        if process.capabilities.is_none() {
            process.capabilities = own.capabilities;
        }
        return Ok(process);
    }
    let mut process = own;
    process.args = i.words[1..].to_vec();
    if process.args.is_empty() {
        return Err(Error::Usage("process args cannot be empty".to_owned()));
    }
    // Only a container's first process has a size set at its start.
    process.console_size = None;
    process.terminal = i.is_set("tty");
    if let Some(cwd) = i.value("cwd") {
        process.cwd = cwd.into();
    }
    process.env.extend(i.values("env").iter().cloned());
    process.no_new_privileges |= i.is_set("no-new-privs");
    if let Some(label) = i.value("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    if let Some(profile) = i.value("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if let Some(user) = i.value("user") {
        process.user = user_of(user)?;
    }
    for gid in i.values("additional-gids") {
        let gid = gid.parse().map_err(|_| Error::Usage(format!("invalid group {gid:?}")))?;
        process.user.additional_gids.push(gid);
    }
    let caps = process.capabilities.get_or_insert_default();
    for cap in i.values("cap") {
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.push(cap.clone());
        }
    }
    Ok(process)
}

/// `[controllers:]path`.
fn sub_group(text: &str) -> (String, String) {
    let (controllers, path) = text.split_once(':').unwrap_or(("", text));
    (controllers.to_owned(), path.to_owned())
}

/// `uid[:gid]`, as runc takes it: numbers only, since names are the caller's business (CVE-2016-3697).
fn user_of(text: &str) -> Result<User, Error> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let number = |n: &str| n.parse().map_err(|_| Error::Usage(format!("invalid user {text:?}: expected uid[:gid]")));
    Ok(User { uid: number(uid)?, gid: number(gid)?, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2016_3697_and_2024_40635_users_are_numbers_in_range() {
        assert_eq!(user_of("7:8").map(|u| (u.uid, u.gid)).ok(), Some((7, 8)));
        for text in ["root", "4294967296", "-1", "1:x", ""] {
            assert!(user_of(text).is_err(), "{text}");
        }
    }
}
