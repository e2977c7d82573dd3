//! Every flag of `docker run`, `create` and `update` that changes a container, each with the effect that shows it.

use std::fs;

use testkit::{Cli, Daemon};

/// Reads a limit inside a container, in the words of whichever cgroup version the host has.
fn limit(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

struct Row {
    flags: Vec<String>,
    script: String,
    /// What the script prints; `None` where the row looks at nothing but the status.
    shows: String,
}

fn row(flags: &str, script: impl Into<String>, shows: &str) -> Row {
    let flags = flags.split(' ').filter(|f| !f.is_empty()).map(|f| f.replace('~', " ")).collect();
    Row { flags, script: script.into(), shows: shows.to_owned() }
}

fn v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The value as this host's cgroup version writes it.
fn either<'a>(v1: &'a str, v2_value: &'a str) -> &'a str {
    if v2() { v2_value } else { v1 }
}

fn check(daemon: &Daemon, rows: &[Row]) {
    let mut wrong = Vec::new();
    for row in rows {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(row.flags.iter().map(String::as_str));
        arguments.extend(["busybox", "sh", "-c", &row.script]);
        let done = daemon.docker(&arguments);
        if done.text() != row.shows {
            wrong.push(format!("{:?}: {:?}, not {:?} ({})", row.flags, done.text(), row.shows, done.stderr.trim()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn resource_flags_reach_the_kernel() {
    let daemon = Daemon::with_image();
    let memory = |v1: &str, v2: &str| limit(&format!("memory/{v1}"), v2);
    check(
        &daemon,
        &[
            row("-m 64m", memory("memory.limit_in_bytes", "memory.max"), "67108864"),
            row("--memory-reservation 32m", memory("memory.soft_limit_in_bytes", "memory.low"), "33554432"),
            row(
                "-m 64m --memory-swap 96m",
                memory("memory.memsw.limit_in_bytes", "memory.swap.max"),
                either("100663296", "33554432"),
            ),
            row("--cpus 0.5", limit("cpu/cpu.cfs_quota_us", "cpu.max"), either("50000", "50000 100000")),
            row(
                "--cpu-period 50000 --cpu-quota 20000",
                limit("cpu/cpu.cfs_quota_us", "cpu.max"),
                either("20000", "20000 50000"),
            ),
            row("-c 512", limit("cpu/cpu.shares", "cpu.weight"), either("512", "20")),
            row("--cpuset-cpus 0", limit("cpuset/cpuset.cpus", "cpuset.cpus"), "0"),
            row("--cpuset-mems 0", limit("cpuset/cpuset.mems", "cpuset.mems"), "0"),
            row("--pids-limit 33", limit("pids/pids.max", "pids.max"), "33"),
            row("--ulimit nofile=123:456", "ulimit -n; ulimit -Hn", "123\n456"),
            row("--ulimit core=0", "ulimit -c", "0"),
            row("--shm-size 1m", "df -k /dev/shm | awk 'NR==2{print $2}'", "1024"),
            row("--oom-score-adj 321", "cat /proc/self/oom_score_adj", "321"),
        ],
    );
    if !v2() {
        check(
            &daemon,
            &[
                row("-m 64m --memory-swappiness 12", "cat /sys/fs/cgroup/memory/memory.swappiness", "12"),
                row(
                    "-m 64m --oom-kill-disable",
                    "grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control",
                    "oom_kill_disable 1",
                ),
            ],
        );
    }
    // Limits of block devices: on the disk that holds the data root, if that has a device of its own.
    let Some(disk) = disk() else {
        eprintln!("skipped: no block device to limit");
        return;
    };
    let throttle = |name: &str, v2_key: &str| {
        format!(
            "cat /sys/fs/cgroup/blkio/blkio.throttle.{name} 2>/dev/null || grep -o '{v2_key}=[0-9]*' /sys/fs/cgroup/io.max"
        )
    };
    let (path, numbers) = disk;
    let shown = |value: &str, key: &str| if v2() { format!("{key}={value}") } else { format!("{numbers} {value}") };
    check(
        &daemon,
        &[
            row(
                &format!("--device-read-bps {path}:1mb"),
                throttle("read_bps_device", "rbps"),
                &shown("1048576", "rbps"),
            ),
            row(
                &format!("--device-write-bps {path}:2mb"),
                throttle("write_bps_device", "wbps"),
                &shown("2097152", "wbps"),
            ),
            row(&format!("--device-read-iops {path}:77"), throttle("read_iops_device", "riops"), &shown("77", "riops")),
            row(
                &format!("--device-write-iops {path}:78"),
                throttle("write_iops_device", "wiops"),
                &shown("78", "wiops"),
            ),
        ],
    );
}

/// A whole disk of the host: its path and its numbers.
fn disk() -> Option<(String, String)> {
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let path = format!("/dev/{name}");
        let usable = std::path::Path::new(&path).exists() && !name.starts_with("loop") && !name.starts_with("ram");
        let numbers = fs::read_to_string(entry.path().join("dev")).ok()?.trim().to_owned();
        usable.then_some((path, numbers))
    })
}

#[test]
fn security_flags_reach_the_process() {
    let daemon = Daemon::with_image();
    let profile = daemon.folder().join("profile.json");
    let deny =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, deny).expect("written");
    let status = |field: &str| format!("awk '/^{field}:/{{print $2}}' /proc/self/status");
    check(
        &daemon,
        &[
            row("--cap-drop ALL", status("CapEff"), "0000000000000000"),
            row("--cap-drop ALL --cap-add NET_ADMIN", status("CapEff"), "0000000000001000"),
            row(
                "--privileged",
                "awk '/^Seccomp:/{print $2}' /proc/self/status; test -e /dev/kmsg && echo all",
                "0\nall",
            ),
            row("", status("Seccomp"), "2"),
            row("--security-opt seccomp=unconfined", status("Seccomp"), "0"),
            row(
                &format!("--security-opt seccomp={}", profile.display()),
                "mkdir /nope 2>/dev/null || echo denied",
                "denied",
            ),
            row("--security-opt no-new-privileges", status("NoNewPrivs"), "1"),
            row("", "mount | grep -c ' /proc/sys '", "1"),
            row("--security-opt systempaths=unconfined", "mount | grep -c ' /proc/sys '", "0"),
            row("--read-only", "touch /x 2>/dev/null || echo refused", "refused"),
            row("--read-only --tmpfs /x:size=64k,mode=700", "touch /x/y && stat -c %a /x", "700"),
            row("-u nobody", "id -u; id -g", "65534\n65534"),
            row("-u 12:34", "id -u; id -g", "12\n34"),
            row("-u nobody:staff", "id -g", "50"),
            row("--group-add staff --group-add 77", "id -G", "0 50 77"),
            row("--device /dev/null:/dev/mine:r", "test -c /dev/mine && echo there", "there"),
            row("--device-cgroup-rule c~1:7~rwm", "mknod /dev/f c 1 7; echo x > /dev/f || echo full", "full"),
            row("--sysctl net.ipv4.ip_forward=0 --sysctl kernel.msgmax=9999", "cat /proc/sys/kernel/msgmax", "9999"),
        ],
    );
}

#[test]
fn namespace_flags_share_what_they_name() {
    let daemon = Daemon::with_image();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "peer",
            "--ipc",
            "shareable",
            "--hostname",
            "peer",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    daemon.docker(&["exec", "peer", "sh", "-c", "echo shared > /dev/shm/word"]).ok();
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "peer"]).ok();
    let theirs =
        |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").display().to_string();
    let ns = |kind: &str| format!("readlink /proc/self/ns/{kind}");
    check(
        &daemon,
        &[
            row("--pid host", ns("pid"), &own("pid")),
            row("--pid container:peer", ns("pid"), &theirs("pid")),
            row("--pid container:peer", "ps -o args | grep -c 'sleep 100[0]'", "1"),
            row("--ipc host", ns("ipc"), &own("ipc")),
            row("--ipc container:peer", ns("ipc"), &theirs("ipc")),
            row("--ipc container:peer", "cat /dev/shm/word", "shared"),
            row("--ipc none", "mount | grep -c ' /dev/shm '", "0"),
            row("--uts host", ns("uts"), &own("uts")),
            row("--uts host", "hostname", fs::read_to_string("/proc/sys/kernel/hostname").expect("read").trim()),
            row("--userns host", ns("user"), &own("user")),
            row("--cgroupns host", ns("cgroup"), &own("cgroup")),
            row("--network container:peer", ns("net"), &theirs("net")),
            row("--network host", ns("net"), &own("net")),
            row("--network none", "ls /sys/class/net", "lo"),
            row("--hostname h1 --domainname d1", "hostname; cat /proc/sys/kernel/domainname", "h1\nd1"),
        ],
    );
    daemon.docker(&["run", "-d", "--name", "closed", "--ipc", "private", "busybox", "sleep", "1000"]).ok();
    daemon
        .docker(&["run", "--rm", "--ipc", "container:closed", "busybox", "true"])
        .fails(125, "non-shareable IPC (hint: use IpcMode:shareable for the donor container)");
}

#[test]
fn what_the_process_is_and_sees_follows_its_flags() {
    let daemon = Daemon::with_image();
    let here = daemon.folder().display().to_string();
    fs::write(daemon.folder().join("env"), "# comment\nFROM_FILE=1\nBOTH=file\n").expect("written");
    fs::write(daemon.folder().join("labels"), "one=1\ntwo=file\n").expect("written");
    check(
        &daemon,
        &[
            row("-e A=1 -e B=", "echo $A${B-unset}", "1"),
            row(&format!("--env-file {here}/env -e BOTH=flag"), "echo $FROM_FILE$BOTH", "1flag"),
            row("-w /made/by/docker", "pwd", "/made/by/docker"),
            row("--entrypoint cat", "ignored", ""),
            row("--init", "cat /proc/1/comm", "docker-init"),
            row("--add-host db:1.2.3.4", "grep db /etc/hosts", "1.2.3.4\tdb"),
            row(
                "--dns 9.9.9.9 --dns-search corp --dns-option ndots:3",
                "grep '^[nso]' /etc/resolv.conf",
                "nameserver 9.9.9.9\nsearch corp\noptions ndots:3",
            ),
            row("--mac-address 02:42:ac:11:00:77", "cat /sys/class/net/eth0/address", "02:42:ac:11:00:77"),
            row(&format!("-v {here}:/h:ro"), "test -e /h/env && ! touch /h/x 2>/dev/null && echo ro", "ro"),
            row(&format!("--mount type=bind,src={here},dst=/h"), "head -c9 /h/env", "# comment"),
            row("--mount type=tmpfs,dst=/t,tmpfs-size=128k", "df -k /t | awk 'NR==2{print $2}'", "128"),
            row("-v /anon", "mount | grep -c ' /anon '", "1"),
            row("-t", "test -t 1 && echo tty", "tty\r"),
            row("--cgroup-parent /wharf-flag", "cat /proc/self/cgroup | grep -c wharf-flag", "0"),
        ]
        .into_iter()
        // An entrypoint of its own gets the words as they are.
        .filter(|row| row.flags.first().is_none_or(|f| f != "--entrypoint" && f != "--cgroup-parent"))
        .collect::<Vec<_>>(),
    );
    let done = daemon.docker(&["run", "--rm", "--entrypoint", "echo", "busybox", "a b", "c"]);
    assert_eq!(done.ok(), "a b c");
    let id = daemon.folder().join("id");
    let cid = id.to_str().expect("plain name");
    let labels = daemon.folder().join("labels");
    let labels = labels.to_str().expect("plain name");
    let made = daemon.docker(&[
        "create",
        "--name",
        "all",
        "--cidfile",
        cid,
        "-l",
        "two=flag",
        "--label-file",
        labels,
        "--annotation",
        "a=b",
        "--stop-signal",
        "SIGUSR1",
        "--stop-timeout",
        "7",
        "--restart",
        "on-failure:4",
        "--isolation",
        "default",
        "--platform",
        "linux",
        "--pull",
        "never",
        "--runtime",
        "runc",
        "--expose",
        "80-81/udp",
        "--no-healthcheck",
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=1m",
        "-i",
        "-a",
        "stdin",
        "busybox",
        "true",
    ]);
    let made = made.ok();
    assert_eq!(fs::read_to_string(&id).expect("written"), made);
    let shown = |template: &str| daemon.docker(&["inspect", "-f", template, "all"]).ok();
    for (template, expected) in [
        ("{{json .Config.Labels}}", r#"{"one":"1","two":"flag"}"#),
        ("{{json .HostConfig.Annotations}}", r#"{"a":"b"}"#),
        ("{{.Config.StopSignal}} {{.Config.StopTimeout}}", "SIGUSR1 7"),
        ("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}", "on-failure 4"),
        ("{{json .Config.ExposedPorts}}", r#"{"80/udp":{},"81/udp":{}}"#),
        ("{{json .Config.Healthcheck.Test}}", r#"["NONE"]"#),
        ("{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}", r#"local {"max-size":"1m"}"#),
        ("{{.Config.OpenStdin}} {{.Config.AttachStdin}} {{.HostConfig.ContainerIDFile}}", &format!("true true {cid}")),
    ] {
        assert_eq!(shown(template), expected, "{template}");
    }
    daemon.docker(&["create", "--pull", "never", "nosuch"]).fails(1, "No such image: nosuch:latest");
    daemon.docker(&["run", "--cidfile", cid, "busybox", "true"]).fails(125, "container ID file found");
    daemon.docker(&["create", "--isolation", "hyperv", "busybox"]).fails(1, "linux only supports 'default'");
    daemon
        .docker(&["run", "--rm", "--gpus", "all", "busybox", "true"])
        .fails(125, "could not select device driver \"\" with capabilities: [[gpu]]");
}

#[test]
fn a_stop_signal_is_the_one_that_is_sent() {
    let daemon = Daemon::with_image();
    let script = "trap 'exit 10' USR1; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done";
    for (flags, code) in [(vec!["--stop-signal", "USR1"], "10"), (vec![], "15")] {
        let mut arguments = vec!["run", "-d", "--name", "sig"];
        arguments.extend(flags);
        arguments.extend(["busybox", "sh", "-c", script]);
        daemon.docker(&arguments).ok();
        testkit::eventually("it is up", || (daemon.docker(&["logs", "sig"]).text() == "up").then_some(()));
        daemon.docker(&["stop", "sig"]).ok();
        assert_eq!(daemon.docker(&["wait", "sig"]).ok(), code);
        daemon.docker(&["rm", "sig"]).ok();
    }
}

#[test]
fn update_changes_a_running_container() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "upd", "busybox", "sleep", "1000"]).ok();
    for (flags, script, shows) in [
        ("-m 96m --memory-swap 96m", limit("memory/memory.limit_in_bytes", "memory.max"), "100663296"),
        ("--memory-reservation 48m", limit("memory/memory.soft_limit_in_bytes", "memory.low"), "50331648"),
        ("--cpus 0.25", limit("cpu/cpu.cfs_quota_us", "cpu.max"), either("25000", "25000 100000")),
        ("-c 256", limit("cpu/cpu.shares", "cpu.weight"), either("256", "10")),
        ("--cpuset-cpus 0", limit("cpuset/cpuset.cpus", "cpuset.cpus"), "0"),
        ("--pids-limit 44", limit("pids/pids.max", "pids.max"), "44"),
    ] {
        let mut arguments = vec!["update"];
        arguments.extend(flags.split(' '));
        arguments.push("upd");
        assert_eq!(daemon.docker(&arguments).ok(), "upd");
        assert_eq!(daemon.docker(&["exec", "upd", "sh", "-c", &script]).ok(), shows, "{flags}");
    }
    daemon.docker(&["update", "--restart", "always", "upd"]).ok();
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "upd"]).ok(), "always");
    daemon.docker(&["rm", "-f", "upd"]).ok();
}

#[test]
fn devices_named_by_cdi_come_with_their_nodes_variables_and_mounts() {
    let mut daemon = Daemon::prepare(testkit::DaemonOptions::default());
    let specs = daemon.folder().join("cdi");
    fs::create_dir(&specs).expect("made");
    let spec = format!(
        r#"{{"cdiVersion":"0.6.0","kind":"vendor.example/toy","containerEdits":{{"env":["TOY_ALL=1"]}},
            "devices":[{{"name":"one","containerEdits":{{"env":["TOY=one"],
            "deviceNodes":[{{"path":"/dev/toy","hostPath":"/dev/null"}}],
            "mounts":[{{"hostPath":"{}","containerPath":"/toys","options":["ro","rbind"]}}]}}}}]}}"#,
        daemon.folder().display()
    );
    fs::write(specs.join("toy.json"), spec).expect("written");
    daemon.options().arguments = vec!["--cdi-spec-dir".to_owned(), specs.display().to_string()];
    daemon.launch();
    testkit::base_image(&daemon);
    let script =
        "echo $TOY$TOY_ALL; test -c /dev/toy && echo x > /dev/toy && echo node; test -d /toys/cdi && echo mount";
    let done = daemon.docker(&["run", "--rm", "--device", "vendor.example/toy=one", "busybox", "sh", "-c", script]);
    assert_eq!(done.ok(), "one1\nnode\nmount");
    daemon
        .docker(&["run", "--rm", "--device", "vendor.example/toy=two", "busybox", "true"])
        .fails(125, "unresolvable CDI devices vendor.example/toy=two");
}

#[test]
fn a_socket_in_a_mounted_folder_works_on_after_a_restart_of_the_daemon() {
    let mut daemon = Daemon::with_image();
    let folder = format!("{}:/engine", daemon.folder().display());
    // Our client is static, so it runs anywhere.
    let client = format!("{}:/docker:ro", testkit::binaries().join("docker").display());
    daemon.docker(&["run", "-d", "--name", "inside", "-v", &folder, "-v", &client, "busybox", "sleep", "1000"]).ok();
    let ask = ["exec", "inside", "/docker", "-H", "unix:///engine/s", "version", "-f", "{{.Server.Os}}"];
    assert_eq!(daemon.docker(&ask).ok(), "linux");
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker(&ask).ok(), "linux");
}

#[test]
fn the_engines_socket_is_given_by_use_api_socket() {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let script = "test -S /var/run/docker.sock && echo there";
        let done = daemon.run(cli, &["run", "--rm", "--use-api-socket", "busybox", "sh", "-c", script]);
        assert_eq!(done.ok(), "there");
    }
}
