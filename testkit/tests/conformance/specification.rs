//! Small cases of the runtime specification: a change of the configuration, a script, what the script prints.

use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, add_mount, add_namespace, eventually};

/// Runs a script in a changed container and returns what it prints.
#[track_caller]
fn prints(script: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = Bundle::new(script).with(change);
    let out = bundle.run().ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
    out
}

#[test]
fn each_namespace_is_the_containers_own() {
    let script = "for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done";
    let out = prints(script, |c| {
        for kind in ["cgroup", "time"] {
            add_namespace(c, json!({"type": kind}));
        }
    });
    for (line, kind) in out.lines().zip(["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]) {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("link");
        let same = host.to_str() == Some(line);
        assert_eq!(same, kind == "user", "{kind}: {line}");
    }
}

#[test]
fn namespaces_that_are_not_named_are_the_callers() {
    let script = "for n in ipc net uts; do readlink /proc/self/ns/$n; done";
    let out = prints(script, |c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
        c.as_object_mut().expect("object").remove("hostname");
        c["mounts"].as_array_mut().expect("list").retain(|m| m["type"] != "sysfs");
    });
    for (line, kind) in out.lines().zip(["ipc", "net", "uts"]) {
        assert_eq!(std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("link").to_str(), Some(line));
    }
}

#[test]
fn host_and_domain_name_are_set() {
    let out = prints("hostname; cat /proc/sys/kernel/domainname", |c| {
        c["hostname"] = json!("ship");
        c["domainname"] = json!("harbour");
    });
    assert_eq!(out, "ship\nharbour\n");
}

#[test]
fn both_clocks_are_shifted() {
    let script = "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets";
    let out = prints(script, |c| {
        add_namespace(c, json!({"type": "time"}));
        c["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": 172_800, "nanosecs": 5}, "boottime": {"secs": 604_800}});
    });
    let up: u64 = out.lines().next().expect("line").parse().expect("number");
    assert!(up >= 604_800, "{out}");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(words.windows(3).any(|w| w == ["monotonic", "172800", "5"]), "{out}");
    assert!(words.windows(3).any(|w| w == ["boottime", "604800", "0"]), "{out}");
}

#[test]
fn several_id_ranges_are_mapped() {
    let bundle = Bundle::new("cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /etc/file").with(|c| {
        add_namespace(c, json!({"type": "user"}));
        c["linux"]["uidMappings"] =
            json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 10, "hostID": 200_000, "size": 5}]);
        c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 300_000, "size": 20}]);
    });
    std::fs::write(bundle.rootfs().join("etc/file"), "").expect("written");
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(300_000)).expect("owner");
    std::os::unix::fs::chown(bundle.rootfs().join("etc/file"), Some(200_002), Some(300_007)).expect("owner");
    let out = bundle.run().ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "10", "10", "200000", "5", "0", "300000", "20", "12:7"]);
}

#[test]
fn resource_limits_oom_score_and_umask_are_set() {
    let script = "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask";
    let out = prints(script, |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]);
        c["process"]["oomScoreAdj"] = json!(321);
        c["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o27});
    });
    assert_eq!(out, "123\n456\n321\n0027\n");
}

#[test]
fn scheduling_and_io_priority_are_set() {
    let out = prints("cut -d' ' -f19,41 /proc/self/stat", |c| {
        c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
        c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    });
    // Nice value, and policy 3, which is SCHED_BATCH.
    assert_eq!(out, "5 3\n");
}

#[test]
fn the_execution_domain_is_set() {
    let out = prints("busybox uname -m", |c| c["linux"]["personality"] = json!({"domain": "LINUX32"}));
    assert!(["i686", "armv8l"].contains(&out.trim()), "{out}");
}

#[test]
fn a_memory_policy_is_set() {
    let out = prints("grep -m1 -o 'bind:0\\|prefer:0\\|interleave:0' /proc/self/numa_maps", |c| {
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    });
    assert_eq!(out, "bind:0\n");
}

#[test]
fn no_new_privileges_is_set_or_not() {
    for (wanted, shown) in [(true, "1"), (false, "0")] {
        let out = prints("grep NoNewPrivs /proc/self/status | cut -f2", |c| {
            c["process"]["noNewPrivileges"] = json!(wanted);
        });
        assert_eq!(out.trim(), shown);
    }
}

#[test]
fn file_system_options_reach_the_file_system() {
    let script = "grep ' /t ' /proc/mounts; stat -c %a /t";
    let out = prints(script, |c| {
        add_mount(c, "/t", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "noatime", "size=64k", "mode=1750"]);
    });
    for option in ["nosuid", "nodev", "noexec", "noatime", "size=64k"] {
        assert!(out.contains(option), "{option}: {out}");
    }
    assert!(out.ends_with("1750\n"), "{out}");
}

#[test]
fn a_symbolic_link_is_not_followed_on_such_a_mount() {
    let bundle = Bundle::new("cat /t/link 2>&1; true");
    let source = bundle.path().join("links");
    std::fs::create_dir(&source).expect("folder");
    std::fs::write(source.join("file"), "followed").expect("written");
    std::os::unix::fs::symlink("file", source.join("link")).expect("link");
    let source = source.to_str().expect("UTF-8").to_owned();
    let bundle = bundle.with(|c| add_mount(c, "/t", "bind", &source, &["bind", "nosymfollow"]));
    assert!(bundle.run().ok().contains("symbolic links"));
}

#[test]
fn mounts_of_the_host_reach_a_slave_and_not_a_private_one() {
    for (propagation, seen) in [("rslave", "1"), ("rprivate", "0")] {
        let bundle =
            Bundle::new("echo ready; while ! [ -e /go ]; do sleep 0.02; done; grep -c /t/late /proc/mounts; true");
        let source = bundle.path().join("shared");
        std::fs::create_dir(&source).expect("folder");
        let run = |line: &str| {
            assert!(Command::new("sh").args(["-c", line]).status().expect("ran").success(), "{line}");
        };
        let at = source.to_str().expect("UTF-8").to_owned();
        run(&format!("mount -t tmpfs tmpfs {at} && mount --make-shared {at} && mkdir {at}/late"));
        let bundle = bundle.with(|c| {
            c["linux"]["rootfsPropagation"] = json!("rslave");
            add_mount(c, "/t", "bind", &at, &["rbind", propagation]);
        });
        bundle.start();
        eventually("ready", || bundle.output() == "ready\n");
        run(&format!("mount -t tmpfs tmpfs {at}/late"));
        std::fs::write(bundle.rootfs().join("go"), "").expect("written");
        eventually("the end", || bundle.state()["status"] == "stopped");
        let out = bundle.output();
        bundle.call(&["delete", &bundle.id]).ok();
        run(&format!("umount -R {at}"));
        assert_eq!(out, format!("ready\n{seen}\n"), "{propagation}");
    }
}

#[test]
fn what_is_below_a_bind_comes_with_rbind_only() {
    for (kind, seen) in [("bind", "0\n"), ("rbind", "1\n")] {
        let bundle = Bundle::new("grep -c ' /t/below ' /proc/mounts; true");
        let at = bundle.path().join("tree");
        std::fs::create_dir_all(at.join("below")).expect("folder");
        let at = at.to_str().expect("UTF-8").to_owned();
        let below = format!("{at}/below");
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs", &below]).status().expect("ran").success());
        let bundle = bundle.with(|c| add_mount(c, "/t", "bind", &at, &[kind, "ro"]));
        let ran = bundle.run();
        assert!(Command::new("umount").arg(&below).status().expect("ran").success());
        assert_eq!(ran.ok(), seen, "{kind}");
    }
}

#[test]
fn a_file_can_be_bound_and_its_place_is_made() {
    let bundle = Bundle::new("cat /new/place/file; echo x > /new/place/file");
    let source = bundle.path().join("source");
    std::fs::write(&source, "content\n").expect("written");
    let source_text = source.to_str().expect("UTF-8").to_owned();
    let bundle = bundle.with(|c| add_mount(c, "/new/place/file", "bind", &source_text, &["bind", "ro"]));
    let ran = bundle.run();
    assert_eq!((ran.out.as_str(), ran.code), ("content\n", Some(1)));
    assert_eq!(std::fs::read_to_string(source).expect("read"), "content\n");
}

#[test]
fn control_groups_are_shown_read_only_and_as_the_containers() {
    let script = "ls /sys/fs/cgroup | head -n 1; mkdir /sys/fs/cgroup/x 2>&1; find /sys/fs/cgroup -name cgroup.procs | head -n 1";
    let script = script.replace("find", "busybox find");
    let out = prints(&script, |c| {
        add_namespace(c, json!({"type": "cgroup"}));
        add_mount(c, "/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    });
    assert!(out.contains("Read-only file system"), "{out}");
    assert!(out.lines().last().is_some_and(|l| l.starts_with("/sys/fs/cgroup/")), "{out}");
}

#[test]
fn devices_are_denied_unless_a_rule_allows_them() {
    // A node may be made of anything, and opened only by a rule.
    let script = "cat /dev/null && echo null; for d in full kmsg; do dd if=/dev/$d of=/dev/null bs=1 count=1 2>&1 | \
        grep -o 'not permitted' || echo $d; done; mknod /dev/other b 7 200 && dd if=/dev/other bs=1 count=1 2>&1 | \
        grep -o 'not permitted'";
    let out = prints(script, |c| {
        c["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 99, "minor": 9, "access": "rw"},
        ]);
        c["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    });
    assert_eq!(out, "null\nfull\nnot permitted\nnot permitted\n");
}

#[test]
fn the_standard_streams_and_dev_links_are_there() {
    let out = prints("for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done", |_| {});
    assert_eq!(out, "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n");
}

#[test]
fn a_filter_compares_arguments_and_answers_as_told() {
    let rule = |names: &[&str], action: &str, errno: u32, args: Value| {
        let mut rule = json!({"names": names, "action": action, "args": args});
        if errno != 0 {
            rule["errnoRet"] = json!(errno);
        }
        rule
    };
    // socket(2) with family 10 fails with ENOSPC (28), chroot(2) is killed by SIGSYS.
    let out = Bundle::new("busybox nc -h 2>&1 | head -n 1 >/dev/null; ip -6 addr >/dev/null 2>&1; busybox ping6 -c1 ::1 2>&1; busybox chroot / /bin/true; echo $?")
        .with(|c| {
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
                "syscalls": [
                    rule(&["socket"], "SCMP_ACT_ERRNO", 28, json!([{"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}])),
                    rule(&["chroot"], "SCMP_ACT_KILL_PROCESS", 0, json!([])),
                    rule(&["no_such_call_anywhere"], "SCMP_ACT_ERRNO", 0, json!([])),
                ],
            });
        })
        .run()
        .ok();
    assert!(out.contains("No space left"), "{out}");
    assert!(out.ends_with("159\n"), "{out}");
}

#[test]
fn annotations_and_bundle_are_in_the_state() {
    let bundle = Bundle::new("sleep 1000").with(|c| c["annotations"] = json!({"org.wharf.test": "yes"}));
    bundle.create().ok();
    let state = bundle.state();
    assert_eq!(state["annotations"]["org.wharf.test"], "yes");
    assert_eq!(state["bundle"].as_str().map(std::path::Path::new), Some(bundle.path()));
    assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{state}");
    assert!(state["pid"].as_i64() > Some(0), "{state}");
}

#[test]
fn the_program_is_looked_up_only_inside() {
    let bundle = Bundle::new("true").with(|c| c["process"]["args"] = json!(["marker"]));
    let inside = bundle.rootfs().join("bin/marker");
    std::fs::write(&inside, "#!/bin/sh\necho inside\n").expect("written");
    std::fs::set_permissions(&inside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    assert_eq!(bundle.run().ok(), "inside\n");
}

/// A link of the host with an address, removed with the value.
struct Dummy(String);

impl Dummy {
    fn new(name: &str) -> Option<Self> {
        let made = Command::new("ip").args(["link", "add", name, "type", "dummy"]).output().ok()?;
        if !made.status.success() {
            println!("skipped: no dummy links here: {}", String::from_utf8_lossy(&made.stderr));
            return None;
        }
        for words in [&["addr", "add", "10.99.7.3/24", "dev", name][..], &["link", "set", name, "mtu", "1234", "up"]] {
            assert!(Command::new("ip").args(words).status().expect("ran").success());
        }
        Some(Self(name.to_owned()))
    }
}

impl Drop for Dummy {
    fn drop(&mut self) {
        // Gone already where it was moved.
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

#[test]
fn a_network_device_moves_in_with_its_address_under_a_new_name() {
    let name = format!("whf{}", std::process::id() % 100_000);
    let Some(dummy) = Dummy::new(&name) else { return };
    let bundle = Bundle::new("ip addr show dev inside").with(|c| {
        c["linux"]["netDevices"] = json!({ dummy.0.as_str(): {"name": "inside"} });
    });
    let out = bundle.run().ok();
    assert!(out.contains("10.99.7.3/24") && out.contains("mtu 1234") && out.contains("UP"), "{out}");
    assert!(!std::path::Path::new("/sys/class/net").join(&name).exists(), "it is not the host's any more");
}

#[test]
fn a_further_process_runs_on_the_cpus_it_is_given() {
    let bundle = Bundle::new("sleep 1000");
    bundle.start();
    let run = |affinity: Value| {
        let process = json!({"args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/",
            "user": {"uid": 0, "gid": 0}, "execCPUAffinity": affinity});
        let file = bundle.path().join("process.json");
        std::fs::write(&file, process.to_string()).expect("written");
        bundle.call(&["exec", "--process", file.to_str().expect("UTF-8"), &bundle.id]).ok()
    };
    assert!(run(json!({"initial": "0", "final": "0"})).ends_with("\t0\n"));
    let all = run(json!({}));
    assert_eq!(run(json!({"initial": "0"})), all, "without final ones all of the group are used");
}

#[test]
fn hooks_see_the_states_of_a_life() {
    let bundle = Bundle::new("true");
    let log = bundle.path().join("log");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >> {}", log.display())]}]);
    let bundle = bundle.with(|c| {
        c["hooks"] = json!({"createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop")});
    });
    bundle.run().ok();
    let seen = std::fs::read_to_string(&log).expect("log");
    let names: Vec<&str> = seen.lines().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(names, ["createRuntime", "poststart", "poststop"]);
    assert!(seen.contains("poststop stopped"), "{seen}");
}

#[test]
fn a_poststop_hook_that_fails_keeps_no_state_and_stops_no_other() {
    let bundle = Bundle::new("true");
    let log = bundle.path().join("log");
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("{script} >>{}", log.display())]});
    let bundle = bundle.with(|c| c["hooks"] = json!({"poststop": [hook("exit 1"), hook("echo second")]}));
    // What the command says of it is the runtime's own affair.
    bundle.run();
    bundle.call(&["state", &bundle.id]).fails_with("does not exist");
    assert_eq!(std::fs::read_to_string(&log).expect("log"), "second\n");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_hook_past_its_timeout_is_ended_and_the_container_undone() {
    let bundle = Bundle::new("true").with(|c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}]});
    });
    let began = std::time::Instant::now();
    assert_ne!(bundle.create().code, Some(0));
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn cpu_and_block_limits_are_in_force() {
    let bundle = Bundle::new("sleep 1000").with(|c| {
        c["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 30_000, "period": 60_000, "cpus": "0"});
    });
    bundle.start();
    let read = |v1: &str, v2: &str| {
        let old = format!("/sys/fs/cgroup/{}/{}/{v1}", v1.split('.').next().expect("name"), bundle.id);
        let new = format!("/sys/fs/cgroup/{}/{v2}", bundle.id);
        std::fs::read_to_string(old).or_else(|_| std::fs::read_to_string(new)).expect("limit").trim().to_owned()
    };
    assert!(["512", "20", "59"].contains(&read("cpu.shares", "cpu.weight").as_str()));
    assert!(["30000", "30000 60000"].contains(&read("cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(read("cpuset.cpus", "cpuset.cpus"), "0");
}
