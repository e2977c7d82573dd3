//! Groups that systemd makes: a scope for each container, by its manager's D-Bus interface.
//!
//! A scope begins with a process in it, which the container's first one cannot be: it is to be born inside. So a placeholder
//! stands in until it is.
//!
//! ```text
//! placeholder ── StartTransientUnit(scope, PIDs=[placeholder]) ── JobRemoved ── limits ── clone into ── placeholder ends
//! ```
//!
//! Source: systemd `org.freedesktop.systemd1(5)`, `systemd.resource-control(5)`, "Control Group APIs and Delegation".

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_oci::runtime::LinuxResources;
use wharf_sys::clone::{Cloned, clone3, exit_now};

use crate::file::get;
use crate::{Cgroup, CgroupError, Layout, Mode};
use wharf_dbus::{Body, Call, Connection};

/// How long systemd may take for one job, as runc.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a scope without living processes may take to end, and how long systemd may take to answer that it shall.
const STOPPING: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";

/// A scope, by `slice:prefix:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    slice: String,
    /// The unit's name, `prefix-name.scope`.
    pub unit: String,
}

/// Keeps a scope alive until dropped.
#[derive(Debug)]
pub struct Placeholder(OwnedFd);

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
        let _ = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.0)), WaitIdOptions::EXITED);
    }
}

impl Scope {
    /// Reads `linux.cgroupsPath`; an empty one is a scope of `id` in the usual slice.
    pub fn parse(path: &str, id: &str) -> Result<Self, CgroupError> {
        let usual = if rustix::process::geteuid().is_root() { "system.slice" } else { "user.slice" };
        if path.is_empty() {
            return Ok(Self { slice: usual.to_owned(), unit: format!("wharf-{id}.scope") });
        }
        let wrong = || CgroupError::Value {
            what: "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got",
            value: path.to_owned(),
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else { return Err(wrong()) };
        let plain = |text: &str| !text.contains(['/', '\0']) && text.len() < 200;
        let slice = if slice.is_empty() { usual } else { slice };
        if !plain(slice) || !plain(prefix) || !plain(name) || name.is_empty() || !slice.ends_with(".slice") {
            return Err(wrong());
        }
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Self { slice: slice.to_owned(), unit })
    }
}

fn failed(unit: &str, operation: &'static str) -> impl Fn(io::Error) -> CgroupError {
    let unit = unit.to_owned();
    move |source| CgroupError::Systemd { operation, unit: unit.clone(), source }
}

/// The manager's own socket, or the bus; of the user's manager for a user.
fn sockets() -> Vec<(PathBuf, bool)> {
    if rustix::process::geteuid().is_root() {
        return vec![("/run/systemd/private".into(), false), ("/run/dbus/system_bus_socket".into(), true)];
    }
    let mut all = Vec::new();
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        all.push((folder.join("systemd/private"), false));
        all.push((folder.join("bus"), true));
    }
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    all.extend(named.strip_prefix("unix:path=").and_then(|p| p.split(',').next()).map(|p| (p.into(), true)));
    all
}

fn connect(patience: Duration) -> io::Result<Connection> {
    connect_to(&sockets(), patience)
}

fn connect_to(sockets: &[(PathBuf, bool)], patience: Duration) -> io::Result<Connection> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no systemd runs here");
    for (path, bus) in sockets {
        match Connection::open(path, patience) {
            Ok(mut connection) => {
                if *bus {
                    introduce(&mut connection)?;
                }
                return Ok(connection);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// On a bus: takes a name, and asks for the manager's signals.
fn introduce(connection: &mut Connection) -> io::Result<()> {
    connection.introduce()?;
    connection.subscribe("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'")?;
    connection.call(&manager("Subscribe", ""), &Body::default()).map(drop)
}

fn manager<'a>(member: &'a str, signature: &'a str) -> Call<'a> {
    Call { destination: DESTINATION, path: OBJECT, interface: MANAGER, member, signature }
}

/// Waits until a job is over.
fn finish(connection: &mut Connection, job: &str, patience: Duration) -> io::Result<()> {
    let result = connection.signal(Instant::now() + patience, |message| {
        let words = (message.member == "JobRemoved").then(|| message.strings())?;
        // Number, job, unit, result: the number is passed over.
        (words.first().map(String::as_str) == Some(job)).then(|| words.last().cloned().unwrap_or_default())
    })?;
    match result.as_str() {
        "done" | "skipped" => Ok(()),
        other => Err(io::Error::other(format!("the job ended as {other:?}"))),
    }
}

/// Appends one property.
fn property(body: &mut Body, name: &str, signature: &str, value: impl FnOnce(&mut Body) -> &mut Body) {
    body.structure().string(name).signature(signature);
    value(body);
}

/// Limits as unit properties, without which systemd would undo them when it reloads.
fn limits(body: &mut Body, resources: &LinuxResources, mode: Mode) {
    let number = |n: i64| if n < 0 { u64::MAX } else { n.cast_unsigned() };
    if let Some(memory) = &resources.memory {
        let name = if mode == Mode::V2 { "MemoryMax" } else { "MemoryLimit" };
        if let Some(limit) = memory.limit.filter(|n| *n != 0) {
            property(body, name, "t", |b| b.u64(number(limit)));
        }
        if let Some(low) = memory.reservation.filter(|n| *n != 0 && mode == Mode::V2) {
            property(body, "MemoryLow", "t", |b| b.u64(number(low)));
        }
        if let (Some(swap), Some(limit), Mode::V2) = (memory.swap.filter(|n| *n != 0), memory.limit, mode) {
            let alone = if swap < 0 { u64::MAX } else { (swap - limit).max(0).cast_unsigned() };
            property(body, "MemorySwapMax", "t", |b| b.u64(alone));
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
            match mode {
                Mode::V2 => property(body, "CPUWeight", "t", |b| b.u64(crate::setting::weight_of_shares(shares))),
                Mode::V1 | Mode::Hybrid => property(body, "CPUShares", "t", |b| b.u64(shares)),
            }
        }
        let period = cpu.period.filter(|n| *n != 0).unwrap_or(100_000);
        if let Some(quota) = cpu.quota.filter(|n| *n != 0) {
            // By second, rounded up to what systemd keeps: ten milliseconds.
            let per_second =
                u64::try_from(quota).map_or(u64::MAX, |q| (q * 1_000_000 / period).next_multiple_of(10_000));
            property(body, "CPUQuotaPerSecUSec", "t", |b| b.u64(per_second));
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|n| *n != 0) {
        property(body, "TasksMax", "t", |b| b.u64(number(limit)));
    }
}

/// Starts the scope with a placeholder in it and returns where systemd put it.
fn start(scope: &Scope, resources: &LinuxResources, mode: Mode) -> Result<(String, Placeholder), CgroupError> {
    let failed = failed(&scope.unit, "start");
    let mut connection = connect(PATIENCE).map_err(&failed)?;
    let (pid, placeholder) = match clone3(0, None).map_err(&failed)? {
        Cloned::Child => {
            // Ended by the caller's signal; should the caller die first, by its death.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            rustix::event::pause();
            exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, Placeholder(pidfd)),
    };
    let mut body = Body::default();
    body.string(&scope.unit).string("replace").array(8, |list| {
        property(list, "Description", "s", |b| b.string(&format!("container {}", scope.unit)));
        property(list, "Slice", "s", |b| b.string(&scope.slice));
        property(list, "PIDs", "au", |b| {
            b.array(4, |b| {
                b.u32(pid.unsigned_abs());
            })
        });
        for name in ["Delegate", "MemoryAccounting", "CPUAccounting", "TasksAccounting", "IOAccounting"] {
            // v1 has block accounting by another name.
            let name = if name == "IOAccounting" && mode != Mode::V2 { "BlockIOAccounting" } else { name };
            property(list, name, "b", |b| b.bool(true));
        }
        property(list, "DefaultDependencies", "b", |b| b.bool(false));
        limits(list, resources, mode);
    });
    body.array(8, |_| {});
    let call = manager("StartTransientUnit", "ssa(sv)a(sa(sv))");
    let answer = match connection.call(&call, &body) {
        // One of that name that failed before: it is forgotten, and the name is free.
        Err(e) if e.to_string().contains("UnitExists") => {
            let mut name = Body::default();
            name.string(&scope.unit);
            connection.call(&manager("ResetFailedUnit", "s"), &name).map_err(|_| failed(e))?;
            connection.call(&call, &body)
        }
        other => other,
    };
    let job = answer.map_err(&failed)?.strings().into_iter().next().unwrap_or_default();
    finish(&mut connection, &job, PATIENCE).map_err(&failed)?;
    let file = format!("/proc/{pid}/cgroup");
    let text = get(Path::new(&file)).map_err(|e| CgroupError::Read { path: file.into(), source: e.into() })?;
    // v2's line on a host that has only that, otherwise the hierarchy that is systemd's own.
    let own = text.lines().find_map(|l| match mode {
        Mode::V2 => l.strip_prefix("0::"),
        Mode::V1 | Mode::Hybrid => l.split_once(":name=systemd:").map(|(_, path)| path),
    });
    match own.filter(|path| path.ends_with(&scope.unit)) {
        Some(path) => Ok((path.to_owned(), placeholder)),
        None => Err(failed(io::Error::other("its process is not in it"))),
    }
}

impl Cgroup {
    /// Makes the group as a scope of systemd's and sets its limits. The placeholder must be kept until a process of the container is in
    /// it. Returns the group's path beside it, which is absolute.
    pub fn create_scope(
        layout: &Layout,
        scope: &Scope,
        resources: &LinuxResources,
    ) -> Result<(Self, String, Placeholder), CgroupError> {
        let (path, placeholder) = start(scope, resources, layout.mode())?;
        match Self::create_beside(layout, &path, resources) {
            Ok(group) => Ok((group, path, placeholder)),
            Err(e) => {
                drop(placeholder);
                // The failure is what counts; an empty scope ends by itself.
                let _ = stop(&scope.unit);
                Err(e)
            }
        }
    }
}

/// Ends a scope. One that is gone is as wanted.
pub fn stop(unit: &str) -> Result<(), CgroupError> {
    let failed = failed(unit, "stop");
    let mut connection = connect(ANSWER).map_err(&failed)?;
    let mut body = Body::default();
    body.string(unit).string("replace");
    match connection.call(&manager("StopUnit", "ss"), &body) {
        Ok(answer) => {
            let job = answer.strings().into_iter().next().unwrap_or_default();
            // Its processes are dead already. A manager that does not hear of that (a user's, with cgroup v1) would wait
            // for them, and we do not wait for it.
            let _ = finish(&mut connection, &job, STOPPING);
        }
        Err(e) if e.to_string().contains("NoSuchUnit") => {}
        Err(e) => return Err(failed(e)),
    }
    let mut name = Body::default();
    name.string(unit);
    // Only one that ended badly is there to be forgotten.
    let _ = connection.call(&manager("ResetFailedUnit", "s"), &name);
    Ok(())
}

/// Has systemd know of new limits, so that it does not undo them.
pub fn set_limits(unit: &str, resources: &LinuxResources, mode: Mode) -> Result<(), CgroupError> {
    let failed = failed(unit, "change");
    let mut body = Body::default();
    body.string(unit).bool(true).array(8, |list| limits(list, resources, mode));
    connect(PATIENCE)
        .and_then(|mut c| c.call(&manager("SetUnitProperties", "sba(sv)"), &body))
        .map(drop)
        .map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_name_a_scope() {
        let scope = Scope::parse("machine.slice:libpod:abc", "x").expect("valid");
        assert_eq!((scope.slice.as_str(), scope.unit.as_str()), ("machine.slice", "libpod-abc.scope"));
        assert_eq!(Scope::parse(":docker:abc", "x").expect("valid").unit, "docker-abc.scope");
        assert_eq!(Scope::parse("", "x").expect("valid").unit, "wharf-x.scope");
        for path in ["/a/b", "a:b", "a:b:c", "a.slice:../b:c", "a.slice:b:", "a.slice:b:c:d"] {
            assert!(Scope::parse(path, "x").is_err(), "{path}");
        }
    }

    #[test]
    fn without_systemd_the_reason_is_told() {
        let error = connect_to(&[("/not/there".into(), false)], ANSWER).expect_err("nobody");
        assert_eq!(error.to_string(), "no systemd runs here");
    }
}
