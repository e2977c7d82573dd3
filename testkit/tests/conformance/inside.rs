//! What a container sees of its configuration, probed from inside.

use crate::bundle::{Bundle, add_mount, add_namespace};
use serde_json::json;

#[test]
fn a_container_sees_only_its_own_processes_host_name_and_links() {
    let out =
        Bundle::new("echo $$; ps > /list; wc -l < /list; hostname; ls /sys/class/net; ip addr show lo | grep -c UP")
            .run()
            .ok();
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    // A header, the shell and ps.
    assert_eq!(lines, ["1", "3", "probe", "lo", "1"], "{out}");
}

#[test]
fn the_exit_status_is_passed_on_and_nothing_is_left() {
    let bundle = Bundle::new("exit 7");
    assert_eq!(bundle.run().code, Some(7));
    assert_eq!(bundle.leftovers(), [""; 0]);
    assert_eq!(Bundle::new("kill -9 $$; sleep 1; kill -s TERM 1; exit 3").run().code, Some(3), "pid 1 is immune");
}

#[test]
fn default_devices_and_links_are_there_and_work() {
    let script = "cd /dev; for d in null zero full tty random urandom; do stat -c '%n %t %T %a' $d; done; \
        for l in fd stdin stdout stderr ptmx; do readlink $l; done; echo x > null; head -c 3 zero | wc -c; echo x > full || echo full";
    let out = Bundle::new(script).run().ok();
    let expected = "null 1 3 666\nzero 1 5 666\nfull 1 7 666\ntty 5 0 666\nrandom 1 8 666\nurandom 1 9 666\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n3\nfull\n";
    assert_eq!(out, expected);
}

#[test]
fn devices_of_the_configuration_are_made_with_owner_and_mode() {
    let out = Bundle::new("stat -c '%F %t %T %a %u %g' /dev/fuse; stat -c '%F %a' /dev/sub/pipe")
        .with(|c| {
            c["linux"]["devices"] = json!([
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
                {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600},
            ]);
        })
        .run()
        .ok();
    assert_eq!(out, "character special file a e5 640 3 4\nfifo 600\n");
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let script = "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x 2>&1; \
        echo 1 > /proc/sys/kernel/domainname || echo refused; cat /proc/sys/kernel/hostname";
    let out = Bundle::new(script).run().ok();
    assert!(out.starts_with("0\n0\n"), "{out}");
    assert!(out.contains("Read-only file system") && out.ends_with("refused\nprobe\n"), "{out}");
}

#[test]
fn mount_options_take_effect() {
    let bundle = Bundle::new(
        "grep -E ' /(t|b|n|r) ' /proc/mounts | cut -d' ' -f2-4; touch /b/x && echo written; touch /r/x 2>/dev/null || echo ro; \
        stat -c %a /t; cat /file",
    );
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).expect("folder");
    std::fs::write(bundle.path().join("single"), "content").expect("file");
    let source = source.to_str().expect("UTF-8").to_owned();
    let out = bundle
        .with(|c| {
            add_mount(c, "/t", "tmpfs", "tmpfs", &["size=64k", "mode=700", "nodev", "noexec"]);
            add_mount(c, "/b", "bind", &source, &["rbind", "rprivate"]);
            add_mount(c, "/n", "bind", &source, &["bind", "nosuid", "noexec", "nodev"]);
            add_mount(c, "/r", "none", &source, &["rbind", "ro"]);
            // Relative to the bundle.
            add_mount(c, "/file", "bind", "single", &["bind", "ro"]);
        })
        .run()
        .ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("/t tmpfs rw,nodev,noexec,") && lines[0].contains("size=64k"), "{out}");
    assert!(lines[1].starts_with("/b ext4 rw") || lines[1].contains(" rw"), "{out}");
    assert!(lines[2].contains("nosuid,nodev,noexec"), "{out}");
    assert!(lines[3].contains(" ro"), "{out}");
    assert_eq!(&lines[4..], ["written", "ro", "700", "content"], "{out}");
}

#[test]
fn a_recursive_read_only_bind_covers_mounts_below_it() {
    // Its own mount namespace makes the mount below vanish with the test.
    let bundle = Bundle::new("touch /v/below/x 2>/dev/null || echo ro; touch /w/below/x && echo rw");
    let below = bundle.path().join("source/below");
    std::fs::create_dir_all(&below).expect("folder");
    let source = bundle.path().join("source").to_str().expect("UTF-8").to_owned();
    let bundle = bundle.with(|c| {
        add_mount(c, "/v", "bind", &source, &["rbind", "rro"]);
        add_mount(c, "/w", "bind", &source, &["rbind", "ro"]);
    });
    bundle.write_config();
    let script = format!("mount -t tmpfs tmpfs {} && exec \"$@\"", below.display());
    let state = bundle.path().join("state");
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(&bundle.runtime)
        .arg("--root")
        .arg(&state)
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(&bundle.id)
        .output()
        .expect("runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ro\nrw\n", "{err}");
}

#[test]
fn a_tmpfs_can_begin_with_a_copy_of_what_it_covers() {
    let bundle =
        Bundle::new("cat /data/deep/file; readlink /data/link; stat -c '%a %u' /data/deep/file; stat -f -c %T /data");
    let deep = bundle.rootfs().join("data/deep");
    std::fs::create_dir_all(&deep).expect("folder");
    std::fs::write(deep.join("file"), "copied\n").expect("file");
    std::fs::set_permissions(deep.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o4644)).expect("mode");
    std::os::unix::fs::symlink("/etc/shadow", bundle.rootfs().join("data/link")).expect("link");
    std::os::unix::fs::chown(deep.join("file"), Some(7), Some(8)).expect("owner");
    std::fs::set_permissions(deep.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o4644)).expect("mode");
    let out = bundle.with(|c| add_mount(c, "/data", "tmpfs", "tmpfs", &["tmpcopyup"])).run().ok();
    assert_eq!(out, "copied\n/etc/shadow\n4644 7\ntmpfs\n");
}

#[test]
fn a_tmpfs_takes_the_mode_of_the_folder_it_covers_and_is_open_to_all_where_there_was_none() {
    let bundle = Bundle::new("stat -c %a /was /new");
    std::fs::create_dir(bundle.rootfs().join("was")).expect("folder");
    std::fs::set_permissions(bundle.rootfs().join("was"), std::os::unix::fs::PermissionsExt::from_mode(0o710))
        .expect("mode");
    let out = bundle
        .with(|c| {
            add_mount(c, "/was", "tmpfs", "tmpfs", &[]);
            add_mount(c, "/new", "tmpfs", "tmpfs", &[]);
        })
        .run()
        .ok();
    assert_eq!(out, "710\n1777\n");
}

#[test]
fn the_root_can_be_read_only_and_a_tmpfs_too() {
    let out = Bundle::new("touch /x 2>/dev/null || echo root; touch /ro/x 2>/dev/null || echo tmpfs; ls /ro")
        .with(|c| {
            c["root"]["readonly"] = json!(true);
            add_mount(c, "/ro", "tmpfs", "tmpfs", &["ro"]);
            add_mount(c, "/ro/inner", "tmpfs", "tmpfs", &[]);
        })
        .run()
        .ok();
    assert_eq!(out, "root\ntmpfs\ninner\n");
}

#[test]
fn user_groups_umask_and_directory_are_set() {
    let script =
        "id -u; id -g; id -G; umask; pwd; touch f; stat -c '%a %u' f; grep -E '^Cap(Prm|Eff)' /proc/self/status";
    let bundle = Bundle::new(script);
    let out = bundle
        .with(|c| {
            c["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 1002], "umask": 0o027});
            c["process"]["cwd"] = json!("/made/for/it");
            add_mount(c, "/made/for/it", "tmpfs", "tmpfs", &["mode=777"]);
        })
        .run()
        .ok();
    let expected = "1000\n1001\n1001 5 1002\n0027\n/made/for/it\n640 1000\n";
    assert!(out.starts_with(expected), "{out}");
}

#[test]
fn a_missing_working_directory_is_made() {
    let bundle = Bundle::new("pwd").with(|c| c["process"]["cwd"] = json!("/made/for/it"));
    assert_eq!(bundle.run().ok(), "/made/for/it\n");
}

fn status_of(bundle: Bundle, field: &str) -> String {
    let out = bundle.run().ok();
    let line = out.lines().find(|l| l.starts_with(field)).unwrap_or_else(|| panic!("{field} in {out}"));
    line.split(':').nth(1).expect("value").trim().to_owned()
}

#[test]
fn each_capability_set_is_what_the_configuration_says() {
    let bundle = || {
        Bundle::new("cat /proc/self/status").with(|c| {
            c["process"]["capabilities"] = json!({
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
                "effective": ["CAP_CHOWN"],
                "permitted": ["CAP_CHOWN", "CAP_KILL"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            });
            c["process"]["user"] = json!({"uid": 1, "gid": 1});
        })
    };
    // After execve as a user who is not root: what is ambient is permitted and effective, nothing else (capabilities(7)).
    for (field, bits) in [("CapBnd", 0x2021), ("CapInh", 0x20), ("CapAmb", 0x20), ("CapPrm", 0x20), ("CapEff", 0x20)] {
        assert_eq!(u64::from_str_radix(&status_of(bundle(), field), 16), Ok(bits), "{field}");
    }
}

#[test]
fn cve_2022_24769_and_2022_29162_inheritable_and_ambient_capabilities_are_empty_unless_asked_for() {
    for field in ["CapInh", "CapAmb"] {
        assert_eq!(status_of(Bundle::new("cat /proc/self/status"), field), "0000000000000000", "{field}");
    }
    let bounding = u64::from_str_radix(&status_of(Bundle::new("cat /proc/self/status"), "CapBnd"), 16).expect("hex");
    assert_eq!(bounding & (1 << 21), 0, "CAP_SYS_ADMIN is not kept");
}

fn deny_mkdir() -> serde_json::Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]})
}

#[test]
fn a_seccomp_filter_is_in_force_and_leaves_no_capability_behind() {
    for new_privileges in [true, false] {
        let script = "mkdir /x 2>&1; grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status";
        let out = Bundle::new(script)
            .with(|c| {
                c["linux"]["seccomp"] = deny_mkdir();
                c["process"]["noNewPrivileges"] = json!(!new_privileges);
            })
            .run()
            .ok();
        assert!(out.contains("No space left on device"), "{out}");
        assert!(out.contains("Seccomp:\t2"), "{out}");
        assert!(out.contains(if new_privileges { "NoNewPrivs:\t0" } else { "NoNewPrivs:\t1" }), "{out}");
        assert!(out.contains("CapEff:\t00000000080004e1"), "{out}");
    }
}

#[test]
fn limits_of_resources_are_set_before_the_program_runs() {
    let out = Bundle::new("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")
        .with(|c| {
            c["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ]);
            c["process"]["oomScoreAdj"] = json!(345);
            // Limits are set for users who could not set them.
            c["process"]["user"] = json!({"uid": 7, "gid": 8});
        })
        .run()
        .ok();
    assert_eq!(out, "100\n200\n0\n345\n");
}

#[test]
fn sysctls_of_own_namespaces_are_set_and_others_refused() {
    let bundle = Bundle::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax").with(|c| {
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7", "kernel.msgmax": "4096"});
    });
    assert_eq!(bundle.run().ok(), "7\n4096\n");
    let bundle = Bundle::new("true").with(|c| c["linux"]["sysctl"] = json!({"kernel.core_pattern": "x"}));
    bundle.run().fails_with("is not in a separate kernel namespace");
}

#[test]
fn cgroup_limits_are_in_force_and_the_view_is_of_the_container() {
    let bundle =
        Bundle::new("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; ls /sys/fs/cgroup | wc -l")
            .with(|c| {
                add_mount(c, "/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
                c["linux"]["resources"] = json!({"pids": {"limit": 37}});
            });
    let out = bundle.run().ok();
    assert!(out.starts_with("37\n"), "{out}");
}

#[test]
fn a_cgroup_namespace_hides_where_the_container_is() {
    let out = Bundle::new("cut -d: -f3 /proc/self/cgroup | grep -v '^/$' | wc -l")
        .with(|c| add_namespace(c, json!({"type": "cgroup"})))
        .run()
        .ok();
    assert_eq!(out.trim(), "0");
}

#[test]
fn a_time_namespace_shifts_the_clock() {
    let out = Bundle::new("cut -d. -f1 /proc/uptime")
        .with(|c| {
            add_namespace(c, json!({"type": "time"}));
            c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
        })
        .run()
        .ok();
    let uptime: u64 = out.trim().parse().expect("number");
    assert!(uptime >= 1_000_000_000, "{out}");
}

#[test]
fn a_user_namespace_maps_ids_and_still_has_devices_and_mounts() {
    let bundle = Bundle::new(
        "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo null; touch /mine && stat -c %u /mine; cat /b",
    );
    let root = bundle.rootfs();
    std::fs::write(bundle.path().join("single"), "bound\n").expect("file");
    for place in ["", "etc"] {
        std::os::unix::fs::chown(root.join(place), Some(100_000), Some(100_000)).expect("owner");
    }
    let bundle = bundle.with(|c| {
        add_namespace(c, json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        add_mount(c, "/b", "bind", "single", &["bind", "ro"]);
    });
    assert_eq!(bundle.run().ok(), "0\n 0 100000 65536\nnull\n0\nbound\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(root.join("mine")).expect("stat"));
    assert_eq!(owner, 100_000);
}

#[test]
fn an_id_mapped_bind_shows_shifted_owners() {
    let bundle = Bundle::new("stat -c %u /m/file");
    std::fs::create_dir(bundle.path().join("source")).expect("folder");
    std::fs::write(bundle.path().join("source/file"), "").expect("file");
    std::os::unix::fs::chown(bundle.path().join("source/file"), Some(1), Some(1)).expect("owner");
    let bundle = bundle.with(|c| {
        let map = json!([{"containerID": 0, "hostID": 5_000, "size": 100}]);
        add_mount(c, "/m", "bind", "source", &["bind"]);
        let last = c["mounts"].as_array_mut().and_then(|m| m.last_mut()).expect("mount");
        last["uidMappings"] = map.clone();
        last["gidMappings"] = map;
    });
    assert_eq!(bundle.run().ok(), "5001\n");
}

#[test]
fn home_comes_from_the_containers_user_database() {
    let bundle = Bundle::new("echo $HOME");
    std::fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0::/r:/bin/sh\nu:x:7:7::/home/u:/bin/sh\n")
        .expect("file");
    let bundle = bundle.with(|c| c["process"]["user"]["uid"] = json!(7));
    assert_eq!(bundle.run().ok(), "/home/u\n");
}

#[test]
fn signals_the_caller_ignores_are_not_ignored_inside() {
    // The shell has signals of its own mind, so it is not asked.
    let words = json!(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]);
    let bundle = Bundle::new("").with(|c| c["process"]["args"] = words);
    bundle.write_config();
    let command = bundle.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' HUP INT QUIT PIPE TERM USR1; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .expect("runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn cve_2015_3627_no_descriptor_of_the_runtime_is_open_inside() {
    // ls itself holds the folder open as 3.
    assert_eq!(Bundle::new("ls /proc/self/fd").run().ok(), "0\n1\n2\n3\n");
}
