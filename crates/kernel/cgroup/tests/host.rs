//! Limits bite on the host's own cgroups, whichever version they are.
//!
//! Each test makes a group of its own below `/wharf-cgroup-test-<pid>`, clones a process into it and removes it again.

#![allow(missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use wharf_cgroup::{Cgroup, CgroupError, Entrance, Layout, Mode};
use wharf_oci::runtime::{Cpu, DeviceRule, DeviceType, LinuxResources, Memory, Pids};
use wharf_sys::clone::{Cloned, clone3, exit_now, flags, unshare};

const TESTS: [(&str, fn()); 18] = [
    ("a_process_is_in_the_group_in_every_hierarchy", a_process_is_in_the_group_in_every_hierarchy),
    ("the_groups_namespace_shows_it_as_the_root", the_groups_namespace_shows_it_as_the_root),
    ("a_process_moved_by_pid_is_in_every_hierarchy", a_process_moved_by_pid_is_in_every_hierarchy),
    ("a_group_beneath_new_ones_takes_processes", a_group_beneath_new_ones_takes_processes),
    ("memory_above_the_limit_is_an_oom_kill_that_is_told", memory_above_the_limit_is_an_oom_kill_that_is_told),
    ("a_memory_limit_below_what_is_used_is_refused", a_memory_limit_below_what_is_used_is_refused),
    ("limits_can_be_raised_and_lowered_together", limits_can_be_raised_and_lowered_together),
    ("forks_above_the_pids_limit_fail", forks_above_the_pids_limit_fail),
    ("a_cpu_quota_throttles", a_cpu_quota_throttles),
    ("a_cpuset_confines", a_cpuset_confines),
    ("devices_that_no_rule_allows_give_eperm", devices_that_no_rule_allows_give_eperm),
    ("device_rules_can_be_replaced", device_rules_can_be_replaced),
    ("a_frozen_group_stands_still_until_it_is_thawed", a_frozen_group_stands_still_until_it_is_thawed),
    ("killing_reaches_nested_and_frozen_processes", killing_reaches_nested_and_frozen_processes),
    ("removing_takes_nested_groups_along", removing_takes_nested_groups_along),
    ("a_limit_that_cannot_be_set_leaves_nothing", a_limit_that_cannot_be_set_leaves_nothing),
    ("a_group_with_processes_is_not_taken_over", a_group_with_processes_is_not_taken_over),
    ("statistics_count_what_was_used", statistics_count_what_was_used),
];

/// Behaves as libtest does towards cargo and nextest, on one thread.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-') && *a != "terse").collect();
    let matches = |name: &str, filter: &str| if has("--exact") { name == filter } else { name.contains(filter) };
    let chosen = TESTS.into_iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| matches(name, f)));
    if has("--list") {
        // Nothing here is an ignored test, which nextest lists apart.
        chosen.filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = Vec::new();
    for (name, test) in chosen {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(name);
        }
    }
    if let Ok(parent) = Cgroup::open(&Layout::detect().unwrap(), &format!("/{}", parent())) {
        parent.delete(soon()).unwrap();
    }
    println!("\ntest result: {}. {} failed: {failed:?}", if failed.is_empty() { "ok" } else { "FAILED" }, failed.len());
    std::process::exit(if failed.is_empty() { 0 } else { 101 });
}

fn parent() -> String {
    format!("wharf-cgroup-test-{}", std::process::id())
}

/// A group that is emptied and removed when the test ends, however it ends.
struct Group(Cgroup);

impl Group {
    fn new(name: &str, resources: &LinuxResources) -> Self {
        Self(create(name, resources).unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let killed = self.0.kill_all();
        let deleted = self.0.delete(soon());
        if !std::thread::panicking() {
            killed.unwrap();
            deleted.unwrap();
        }
    }
}

fn create(name: &str, resources: &LinuxResources) -> Result<Cgroup, CgroupError> {
    Cgroup::create(&Layout::detect().unwrap(), &format!("/{}/{name}", parent()), resources)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn mode() -> Mode {
    Layout::detect().unwrap().mode()
}

/// A process in a group, and the stream over which it talks with the test.
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    stream: UnixStream,
}

/// What a child runs: gets its stream, gives its exit status.
type Body<'a> = &'a dyn Fn(&mut UnixStream) -> i32;

fn spawn(entrance: &Entrance, body: Body<'_>) -> Process {
    let (stream, mut theirs) = UnixStream::pair().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    match clone3(0, entrance.clone_target()).unwrap() {
        Cloned::Child => {
            drop(stream);
            let status = catch_unwind(AssertUnwindSafe(|| {
                entrance.enter(entrance.clone_target().is_some()).unwrap();
                body(&mut theirs)
            }));
            exit_now(status.unwrap_or(99))
        }
        Cloned::Parent { pid, pidfd } => Process { pid: Pid::from_raw(pid).unwrap(), pidfd, stream },
    }
}

fn spawn_in(group: &Group, body: Body<'_>) -> Process {
    spawn(&group.0.entrance().unwrap(), body)
}

impl Process {
    /// Waits for the end: exit status, or 128 and the signal.
    fn end(&self) -> i32 {
        let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)).unwrap(), 1, "still running");
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
    }

    fn hear(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn tell(&mut self) {
        self.stream.write_all(b"x").unwrap();
    }
}

/// Says that it is there and waits to be told to go on.
fn meet(stream: &mut UnixStream) {
    stream.write_all(b"x").unwrap();
    let _ = stream.read(&mut [0]);
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn deny_all() -> DeviceRule {
    DeviceRule { allow: false, access: Some("rwm".into()), ..DeviceRule::default() }
}

fn memory(limit: i64) -> LinuxResources {
    let memory = Memory { limit: Some(limit), swap: Some(limit), ..Memory::default() };
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn cpu(cpu: Cpu) -> LinuxResources {
    LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }
}

fn groups_of(pid: Pid) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    text.lines().map(|l| l.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
}

/// Touches so many MiB and keeps them.
fn use_memory(mib: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; mib << 20];
    for page in bytes.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(bytes)
}

fn a_process_is_in_the_group_in_every_hierarchy() {
    let group = Group::new("enter", &LinuxResources::default());
    let mut process = spawn_in(&group, &|s| {
        meet(s);
        7
    });
    process.hear();
    let expected = format!("/{}/enter", parent());
    let groups = groups_of(process.pid);
    assert_eq!(groups.iter().filter(|g| **g == expected).count(), group.0.paths().len(), "{groups:?}");
    assert_eq!(group.0.pids().unwrap(), [process.pid]);
    process.tell();
    assert_eq!(process.end(), 7);
    assert_eq!(group.0.pids().unwrap(), []);
}

fn the_groups_namespace_shows_it_as_the_root() {
    let group = Group::new("namespace", &LinuxResources::default());
    let process = spawn_in(&group, &|_| {
        unshare(flags::NEWCGROUP).unwrap();
        let text = fs::read_to_string("/proc/self/cgroup").unwrap();
        i32::from(!text.lines().all(|l| l.ends_with(":/")))
    });
    assert_eq!(process.end(), 0);
}

fn a_process_moved_by_pid_is_in_every_hierarchy() {
    let group = Group::new("join", &LinuxResources::default());
    let outside = Group::new("outside", &LinuxResources::default());
    let mut process = spawn_in(&outside, &|s| {
        meet(s);
        0
    });
    process.hear();
    group.0.join(process.pid).unwrap();
    assert_eq!((group.0.pids().unwrap().len(), outside.0.pids().unwrap().len()), (1, 0));
    process.tell();
    process.end();
}

fn a_group_beneath_new_ones_takes_processes() {
    let group = Group::new("deep/er/still", &LinuxResources::default());
    assert_eq!(spawn_in(&group, &|_| 3).end(), 3);
    let above = Cgroup::open(&Layout::detect().unwrap(), &format!("/{}/deep", parent())).unwrap();
    above.delete(soon()).unwrap();
    // The group went with it: removing what is gone is no error.
}

fn memory_above_the_limit_is_an_oom_kill_that_is_told() {
    let group = Group::new("oom", &memory(32 << 20));
    let mut watch = group.0.watch_oom().unwrap().expect("a memory controller");
    assert_eq!(watch.acknowledge().unwrap(), 0);
    let process = spawn_in(&group, &|_| i32::from(use_memory(128).is_empty()));
    assert_eq!(process.end(), 128 + 9);
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)).unwrap(), 1, "the watch was not told");
    wait_until("the kill is counted", || group.0.oom_kills().unwrap() == 1);
    assert_eq!(watch.acknowledge().unwrap(), 1);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // v2 tells of one kill several times, up to 10 ms apart (`max`, `oom`, `oom_kill`; CGROUP_FILE_NOTIFY_MIN_INTV).
    let watch = std::cell::RefCell::new(watch);
    wait_until("the watch falls silent", || {
        let silent = poll(&mut [PollFd::new(&*watch.borrow(), PollFlags::IN)], Some(&now)).unwrap() == 0;
        assert_eq!(watch.borrow_mut().acknowledge().unwrap(), 1, "no kill is counted twice");
        silent
    });
}

fn a_memory_limit_below_what_is_used_is_refused() {
    let group = Group::new("busy", &memory(128 << 20));
    let mut process = spawn_in(&group, &|s| {
        let kept = use_memory(64);
        meet(s);
        i32::from(kept.is_empty())
    });
    process.hear();
    let mut lower = memory(16 << 20);
    lower.memory.as_mut().unwrap().check_before_update = Some(true);
    let error = group.0.update(&lower).unwrap_err();
    assert!(matches!(&error, CgroupError::MemoryInUse { usage, .. } if *usage > 48 << 20), "{error:?}");
    process.tell();
    assert_eq!(process.end(), 0);
}

fn limits_can_be_raised_and_lowered_together() {
    let group = Group::new("update", &memory(64 << 20));
    for limit in [256 << 20, 32 << 20] {
        group.0.update(&memory(limit)).unwrap();
        assert_eq!(group.0.stats().unwrap().memory.limit, limit.cast_unsigned());
    }
    for (quota, period) in [(50_000, 100_000), (1_000_000, 1_000_000), (2_000, 4_000)] {
        group.0.update(&cpu(Cpu { quota: Some(quota), period: Some(period), ..Cpu::default() })).unwrap();
    }
}

fn forks_above_the_pids_limit_fail() {
    let limit = LinuxResources { pids: Some(Pids { limit: Some(3) }), ..LinuxResources::default() };
    let group = Group::new("pids", &limit);
    let process = spawn_in(&group, &|_| {
        let mut made = 0;
        while let (true, Ok(outcome)) = (made < 10, clone3(0, None)) {
            match outcome {
                Cloned::Child => loop {
                    std::thread::park();
                },
                Cloned::Parent { .. } => made += 1,
            }
        }
        made
    });
    assert_eq!(process.end(), 2);
    let stats = group.0.stats().unwrap().pids;
    assert_eq!((stats.current, stats.limit), (2, 3));
}

fn a_cpu_quota_throttles() {
    let quota = Cpu { quota: Some(5_000), period: Some(50_000), shares: Some(512), ..Cpu::default() };
    let group = Group::new("quota", &cpu(quota));
    let process = spawn_in(&group, &|_| {
        loop {
            std::hint::black_box(0);
        }
    });
    wait_until("the quota runs out", || group.0.stats().unwrap().cpu.throttling.throttled_periods > 1);
    kill_process(process.pid, Signal::KILL).unwrap();
    assert_eq!(process.end(), 128 + 9);
}

fn a_cpuset_confines() {
    let group = Group::new("cpuset", &cpu(Cpu { cpus: Some("0".into()), mems: Some("0".into()), ..Cpu::default() }));
    let process = spawn_in(&group, &|_| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        i32::from(!status.lines().any(|l| l == "Cpus_allowed_list:\t0"))
    });
    assert_eq!(process.end(), 0);
}

const EPERM: i32 = 1;

/// Makes a node, tries to open it, removes it; gives the errno, 0 if it could.
fn open_device(major: u32, minor: u32) -> i32 {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let path = format!("/dev/wharf-cgroup-test-{}", std::process::id());
    if let Err(e) = mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(major, minor)) {
        return e.raw_os_error();
    }
    let opened = fs::File::open(&path);
    fs::remove_file(&path).unwrap();
    opened.map_or_else(|e| e.raw_os_error().unwrap(), |_| 0)
}

fn devices_that_no_rule_allows_give_eperm() {
    let group = Group::new("devices", &LinuxResources { devices: vec![deny_all()], ..LinuxResources::default() });
    for (major, minor, expected) in [(1, 3, 0), (1, 9, 0), (1, 11, EPERM), (1, 1, EPERM)] {
        assert_eq!(spawn_in(&group, &|_| open_device(major, minor)).end(), expected, "{major}:{minor}");
    }
}

fn device_rules_can_be_replaced() {
    let mut resources = LinuxResources { devices: vec![deny_all()], ..LinuxResources::default() };
    let group = Group::new("redevices", &resources);
    assert_eq!(spawn_in(&group, &|_| open_device(1, 11)).end(), EPERM);
    resources.devices.push(DeviceRule {
        allow: true,
        kind: Some(DeviceType::Char),
        major: Some(1),
        minor: Some(11),
        access: Some("r".into()),
    });
    group.0.update(&resources).unwrap();
    assert_eq!(spawn_in(&group, &|_| open_device(1, 11)).end(), 0);
    resources.devices.pop();
    group.0.update(&resources).unwrap();
    assert_eq!(spawn_in(&group, &|_| open_device(1, 11)).end(), EPERM);
}

fn a_frozen_group_stands_still_until_it_is_thawed() {
    let group = Group::new("freeze", &LinuxResources::default());
    let mut process = spawn_in(&group, &|s| {
        meet(s);
        s.write_all(b"y").unwrap();
        5
    });
    process.hear();
    assert!(!group.0.is_frozen().unwrap());
    group.0.freeze().unwrap();
    assert!(group.0.is_frozen().unwrap());
    process.tell();
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    assert_eq!(poll(&mut [PollFd::new(&process.stream, PollFlags::IN)], Some(&moment)).unwrap(), 0, "it went on");
    group.0.thaw().unwrap();
    assert_eq!(process.hear(), b'y');
    assert_eq!(process.end(), 5);
}

fn killing_reaches_nested_and_frozen_processes() {
    let group = Group::new("kill", &LinuxResources::default());
    let inner = create("kill/inner", &LinuxResources::default()).unwrap();
    let body: Body<'_> = &|s| {
        meet(s);
        0
    };
    // On v2 a group that hands controllers down takes no processes: both are in the inner one.
    let outer = if mode() == Mode::V2 { inner.entrance() } else { group.0.entrance() }.unwrap();
    let mut processes = [spawn(&outer, body), spawn(&inner.entrance().unwrap(), body)];
    for process in &mut processes {
        process.hear();
    }
    group.0.freeze().unwrap();
    assert_eq!(group.0.pids().unwrap().len(), 2);
    group.0.kill_all().unwrap();
    for process in &processes {
        assert_eq!(process.end(), 128 + 9);
    }
}

fn removing_takes_nested_groups_along() {
    let group = create("nested", &LinuxResources::default()).unwrap();
    let paths = group.paths();
    for (_, path) in &paths {
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::create_dir(path.join("c")).unwrap();
    }
    group.delete(soon()).unwrap();
    assert!(paths.iter().all(|(_, path)| !path.exists()));
    group.delete(soon()).unwrap();
}

fn a_limit_that_cannot_be_set_leaves_nothing() {
    let error = create("impossible", &cpu(Cpu { cpus: Some("4000".into()), ..Cpu::default() })).unwrap_err();
    assert!(matches!(&error, CgroupError::Write { value, .. } if value == "4000"), "{error:?}");
    let found = Cgroup::open(&Layout::detect().unwrap(), &format!("/{}/impossible", parent()));
    assert!(matches!(found, Err(CgroupError::Open { .. })));
}

fn a_group_with_processes_is_not_taken_over() {
    let group = Group::new("taken", &LinuxResources::default());
    let mut process = spawn_in(&group, &|s| {
        meet(s);
        0
    });
    process.hear();
    let error = create("taken", &LinuxResources::default()).unwrap_err();
    assert!(matches!(error, CgroupError::Occupied { processes: 1, .. }), "{error:?}");
    process.tell();
    assert_eq!(process.end(), 0);
}

fn statistics_count_what_was_used() {
    let group = Group::new("stats", &memory(128 << 20));
    let mut process = spawn_in(&group, &|s| {
        let kept = use_memory(24);
        meet(s);
        i32::from(kept.is_empty())
    });
    process.hear();
    let stats = group.0.stats().unwrap();
    assert!(stats.memory.usage > 24 << 20 && stats.memory.usage < 64 << 20, "{}", stats.memory.usage);
    assert_eq!(stats.memory.limit, 128 << 20);
    assert!(stats.memory.detail.values().any(|n| *n > 20 << 20));
    assert!(stats.cpu.total > 0 && stats.cpu.total < 20_000_000_000, "{}", stats.cpu.total);
    assert_eq!(stats.pids.current, 1);
    assert_eq!(stats.cpu.per_cpu.is_empty(), mode() == Mode::V2);
    process.tell();
    assert_eq!(process.end(), 0);
}
