//! What a container sees and may do: its own processes, mounts, names; limits that bite; the default profile.

use testkit::{Cli, Daemon, eventually};

fn sh(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(flags);
    arguments.extend(["busybox", "sh", "-c", script]);
    daemon.run(Cli::Ours, &arguments).ok()
}

#[test]
fn a_container_sees_only_its_own_processes_mounts_hostname_and_ipc() {
    let daemon = Daemon::with_image();
    assert_eq!(sh(&daemon, &["--hostname", "inside"], "echo $$; hostname"), "1\ninside");
    assert_eq!(sh(&daemon, &[], "echo /proc/[0-9]*"), "/proc/1");
    let mounts = sh(&daemon, &[], "cat /proc/self/mounts");
    assert!(
        !mounts.contains(daemon.folder().to_str().expect("plain"))
            || mounts.lines().filter(|l| l.contains("/etc/")).count() == 3,
        "{mounts}"
    );
    for wanted in [
        "overlay / ",
        "proc /proc ",
        "tmpfs /dev ",
        "devpts /dev/pts ",
        "sysfs /sys ",
        "mqueue /dev/mqueue ",
        "shm /dev/shm ",
    ] {
        assert!(mounts.contains(wanted), "{wanted} is missing in\n{mounts}");
    }
    assert_eq!(sh(&daemon, &[], "ipcs -m | grep -c '^0x' || true"), "0");
    assert!(sh(&daemon, &["--read-only"], "touch /x 2>&1 || true").contains("Read-only file system"));
}

#[test]
fn masked_and_read_only_paths_hide_the_host() {
    let daemon = Daemon::with_image();
    assert_eq!(sh(&daemon, &[], "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c"), "0");
    assert!(sh(&daemon, &[], "(echo 1 >/proc/sys/kernel/domainname) 2>&1 || true").contains("Read-only file system"));
    assert_eq!(sh(&daemon, &[], "ls /sys/firmware | wc -l"), "0");
}

#[test]
fn the_default_capabilities_and_profile_are_dockers() {
    let daemon = Daemon::with_image();
    let status = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    let default = "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb CapAmb:0000000000000000 NoNewPrivs:0 Seccomp:2";
    assert_eq!(sh(&daemon, &[], status).trim_end(), default);
    let user = sh(&daemon, &["--user", "nobody"], status);
    assert!(user.contains("CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb"), "{user}");
    let none = sh(&daemon, &["--cap-drop", "ALL", "--security-opt", "no-new-privileges"], status);
    assert!(none.contains("CapBnd:0000000000000000") && none.contains("NoNewPrivs:1"), "{none}");
    for forbidden in ["mkdir /m; mount -t tmpfs none /m", "unshare -m true", "hostname other"] {
        let done = daemon.docker(&["run", "--rm", "busybox", "sh", "-c", forbidden]);
        assert!(done.code != 0 && done.stderr.contains("ermi"), "{forbidden}: {} {}", done.code, done.stderr);
    }
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "--privileged", "busybox", "sh", "-c", "mkdir -p /mnt; mount -t tmpfs none /mnt"])
            .code,
        0
    );
}

#[test]
fn limits_of_memory_pids_cpu_and_cpuset_bite_and_an_oom_kill_shows() {
    let daemon = Daemon::with_image();
    let script = "tail /dev/zero";
    let done =
        daemon.docker(&["run", "--name", "big", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script]);
    assert_eq!(done.code, 137, "{}", done.stderr);
    eventually("inspect shows the OOM kill", || {
        (daemon.docker(&["inspect", "-f", "{{.State.OOMKilled}}", "big"]).ok() == "true").then_some(())
    });
    let pids = daemon.docker(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
    ]);
    assert!(pids.stderr.contains("can't fork"), "{}", pids.stderr);
    assert_eq!(sh(&daemon, &["--cpuset-cpus", "0"], "nproc"), "1");
    // Against its own processor time, not against another run: a busy host makes that one long, too.
    let script = "time -p sh -c 'i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done' 2>&1";
    let told = sh(&daemon, &["--cpus", "0.1"], script);
    let seconds = |name: &str| -> f64 {
        let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().parse().unwrap_or_else(|e| panic!("{name}: {e}: {told}"))
    };
    let (real, worked) = (seconds("real"), seconds("user") + seconds("sys"));
    assert!(worked > 0.1 && real > 4.0 * worked, "with a tenth of a cpu: {real} s for {worked} s of work");
}

#[test]
fn users_groups_rlimits_sysctls_tmpfs_devices_and_working_directory_are_set() {
    let daemon = Daemon::with_image();
    assert_eq!(sh(&daemon, &["-u", "nobody:staff", "--group-add", "7"], "id -u; id -g; id -G"), "65534\n50\n50 7");
    assert_eq!(sh(&daemon, &["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(
        sh(
            &daemon,
            &["--sysctl", "net.ipv4.ip_local_port_range=5000 6000"],
            "cat /proc/sys/net/ipv4/ip_local_port_range"
        ),
        "5000\t6000"
    );
    assert!(sh(&daemon, &["--tmpfs", "/t:size=1m"], "mount | grep ' /t '").contains("size=1024k"));
    assert_eq!(sh(&daemon, &["-w", "/made/here"], "pwd"), "/made/here");
    assert_eq!(
        sh(&daemon, &["--device", "/dev/null:/dev/mine"], "echo x >/dev/mine && ls -l /dev/mine | cut -c1"),
        "c"
    );
    assert_eq!(sh(&daemon, &["--network", "none"], "ls /sys/class/net"), "lo");
    assert_eq!(sh(&daemon, &["--shm-size", "1m"], "df -k /dev/shm | tail -n 1 | awk '{print $2}'"), "1024");
    assert_eq!(sh(&daemon, &["--init"], "cat /proc/1/comm"), "docker-init");
}
