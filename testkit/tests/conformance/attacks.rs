//! Attacks that succeeded against runtimes of this kind, as tests under their numbers.

use std::os::unix::fs::symlink;

use crate::bundle::{Bundle, Ran, add_mount, eventually, is_ours};
use serde_json::json;

#[test]
fn cve_2024_21626_a_directory_through_a_leaked_descriptor_does_not_lead_out() {
    for number in 3..40 {
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
            let bundle = Bundle::new("pwd; ls").with(|c| c["process"]["cwd"] = json!(path));
            let ran = bundle.run();
            assert_ne!(ran.code, Some(0), "{path}: {}", ran.out);
            assert_eq!(bundle.leftovers(), [""; 0]);
        }
    }
}

#[test]
fn cve_2024_21626_the_same_for_a_process_that_is_added() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for number in 3..30 {
        let cwd = format!("/proc/self/fd/{number}");
        // The caller itself leaks a folder of the host, as a daemon might.
        let leak = "exec 7</; exec \"$@\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", leak, "sh"]).arg(&bundle.runtime).arg("--root").arg(bundle.path().join("state"));
        command.args(["exec", "--cwd", &cwd, &bundle.id, "ls"]).stdin(std::process::Stdio::null());
        let ran = command.output().expect("ran");
        assert_ne!(ran.status.code(), Some(0), "{cwd}: {}", String::from_utf8_lossy(&ran.stdout));
    }
}

/// A copy of the runtime, so that a successful attack damages nothing else.
fn with_own_copy(mut bundle: Bundle) -> (Bundle, Vec<u8>) {
    let copy = bundle.path().join("runtime-copy");
    crate::bundle::copy(&bundle.runtime, &copy);
    let content = std::fs::read(&copy).expect("read");
    bundle.runtime = copy;
    (bundle, content)
}

#[test]
fn cve_2019_5736_the_runtime_cannot_be_overwritten_when_it_is_made_to_execute_itself() {
    // The attacker waits for a process whose program is not busybox, holds that program open for reading, kills the
    // process, so that nobody executes the file any more, and opens it anew for writing.
    let attacker = "while :; do for p in /proc/[0-9]*; do case \"$(readlink $p/exe)\" in /bin/busybox|'') ;; *) \
        if exec 9<$p/exe; then touch /caught; kill -9 ${p#/proc/}; n=0; while [ $n -lt 50 ]; do n=$((n+1)); \
        (echo overwritten >> /proc/self/fd/9) 2>> /tried; sleep 0.01; done; touch /done; exit; fi ;; esac; done; done";
    let (bundle, content) = with_own_copy(Bundle::new(attacker));
    // The runtime, executed inside, waits for ever for its configuration from a FIFO.
    std::fs::create_dir(bundle.rootfs().join("b")).expect("folder");
    let (fifo, mode) = (bundle.rootfs().join("b/config.json"), rustix::fs::Mode::from_raw_mode(0o644));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
    bundle.start();
    // Inside it would protect itself anew, so that it must be told, too, what to leave out.
    let weaken = format!("WHARF_WEAKEN={}", std::env::var("WHARF_WEAKEN").unwrap_or_default());
    let words = ["exec", "-e", &weaken, &bundle.id, "/proc/self/exe", "--root", "/r", "run", "--bundle", "/b", "x"];
    let mut child = bundle.command(&words).spawn().expect("spawned");
    eventually("the attack", || bundle.rootfs().join("done").exists());
    child.wait().expect("waited");
    assert!(bundle.rootfs().join("caught").exists(), "the attacker saw the runtime");
    let tried = std::fs::read_to_string(bundle.rootfs().join("tried")).expect("read");
    assert!(tried.contains("Read-only file system") || tried.contains("not permitted"), "{tried}");
    assert_eq!(std::fs::read(&bundle.runtime).expect("read"), content);
}

#[test]
fn cve_2019_19921_and_2023_27561_a_proc_that_is_a_link_is_refused() {
    let bundle = Bundle::new("true");
    std::fs::create_dir(bundle.rootfs().join("elsewhere")).expect("folder");
    symlink("elsewhere", bundle.rootfs().join("proc")).expect("link");
    bundle.run().fails_with("must be mounted on ordinary directory");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn cve_2019_16884_nothing_is_mounted_over_or_into_proc() {
    for (destination, kind, text) in [
        ("/proc", "tmpfs", "cannot be mounted because it is not of type proc"),
        ("/proc/self/attr", "tmpfs", "cannot be mounted because it is inside /proc"),
        ("/proc/sys/kernel", "tmpfs", "cannot be mounted because it is inside /proc"),
        ("/link", "tmpfs", "cannot be mounted because it is inside /proc"),
    ] {
        let bundle = Bundle::new("true").with(|c| add_mount(c, destination, kind, "x", &[]));
        symlink("proc/sys", bundle.rootfs().join("link")).expect("link");
        bundle.run().fails_with(text);
    }
    // What lxcfs covers is allowed.
    let bundle = Bundle::new("cat /proc/uptime");
    std::fs::write(bundle.path().join("uptime"), "covered\n").expect("file");
    let bundle = bundle.with(|c| add_mount(c, "/proc/uptime", "bind", "uptime", &["bind"]));
    assert_eq!(bundle.run().ok(), "covered\n");
}

/// A bundle whose /dev is a folder that somebody else controls.
fn with_foreign_dev(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    let dev = bundle.path().join("dev");
    std::fs::create_dir_all(dev.join("pts")).expect("folder");
    std::fs::create_dir_all(dev.join("shm")).expect("folder");
    bundle.with(|c| {
        c["mounts"].as_array_mut().expect("list").retain(|m| m["destination"] != "/dev");
        let mount = json!({"destination": "/dev", "type": "bind", "source": "dev", "options": ["bind"]});
        c["mounts"].as_array_mut().expect("list").insert(1, mount);
    })
}

#[test]
fn cve_2025_31133_a_false_null_device_is_not_bound_over_masked_paths() {
    let bundle = with_foreign_dev("cat /proc/keys");
    symlink("/proc/sys/kernel/core_pattern", bundle.path().join("dev/null")).expect("link");
    bundle.run().fails_with("/dev/null is not the null device");
    let bundle = with_foreign_dev("cat /proc/keys");
    std::fs::write(bundle.path().join("dev/null"), "a file").expect("file");
    bundle.run().fails_with("/dev/null is not the null device");
}

#[test]
fn cve_2025_52565_the_terminal_is_not_bound_through_a_link() {
    let bundle = with_foreign_dev("echo x").with(|c| c["process"]["terminal"] = json!(true));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundle.path().join("dev/null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .expect("node");
    symlink("/proc/sys/kernel/core_pattern", bundle.path().join("dev/console")).expect("link");
    bundle.run().fails_with("bind terminal to /dev/console");
}

#[test]
fn cve_2026_41579_a_dev_that_is_a_link_stays_inside() {
    let bundle = Bundle::new("ls /dev/null && stat -c %F /dev/null");
    let outside = bundle.path().join("outside");
    std::fs::create_dir(&outside).expect("folder");
    symlink(&outside, bundle.rootfs().join("dev")).expect("link");
    let out = bundle.run().ok();
    assert!(out.contains("character special file"), "{out}");
    assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0, "nothing was made on the host");
}

#[test]
fn cve_2021_30465_a_mount_destination_that_is_a_link_stays_inside() {
    let bundle = Bundle::new("true");
    let outside = bundle.path().join("outside");
    std::fs::create_dir(&outside).expect("folder");
    std::fs::write(bundle.path().join("source"), "").expect("file");
    symlink(&outside, bundle.rootfs().join("escape")).expect("link");
    // Up to the host's root and down to the same folder, so that an attack that succeeds harms nothing else.
    symlink(format!("../../../../..{}", outside.display()), bundle.rootfs().join("up")).expect("link");
    let bundle = bundle.with(|c| {
        add_mount(c, "/escape/file", "bind", "source", &["bind"]);
        add_mount(c, "/up/target", "bind", "source", &["bind"]);
    });
    bundle.run().ok();
    assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
    let inside = bundle.rootfs().join(outside.strip_prefix("/").expect("absolute"));
    assert!(inside.join("file").is_file() && inside.join("target").is_file());
}

#[test]
fn cve_2024_9676_a_user_database_that_is_a_fifo_holds_nobody_up() {
    let bundle = Bundle::new("echo $HOME");
    let fifo = bundle.rootfs().join("etc/passwd");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
    bundle.write_config();
    let bundle_path = bundle.path().to_str().expect("UTF-8");
    let mut command = bundle.command(&["run", "--bundle", bundle_path, &bundle.id]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("spawned");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while child.try_wait().expect("waited").is_none() {
        if std::time::Instant::now() > deadline {
            // Lets it go on, so that it ends.
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            let _ = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty());
            child.wait().expect("waited");
            panic!("held up by the container's /etc/passwd");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("output");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/\n");
}

#[test]
fn cve_2016_9962_a_process_that_is_added_cannot_be_looked_into_before_it_runs_its_program() {
    // As root of the container, with the same user id as the joining process, but without CAP_SYS_PTRACE. Any listing of
    // its descriptors that shows more than a program's own would be a leak.
    let script = "while ! [ -e /stop ]; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || \
        for f in $(ls $p/fd 2>/dev/null); do case $(readlink $p/fd/$f 2>/dev/null) in *socket*|*proc|*cgroup*) \
        [ \"$(readlink $p/exe)\" = /bin/busybox ] || echo leak $p $f >> /leaks ;; esac; done; done; done";
    let bundle = Bundle::new(script);
    std::fs::write(bundle.rootfs().join("leaks"), "").expect("file");
    bundle.start();
    // Each waits between its last step and its program, where the runtime is one that can be told: a look that is not prevented is not
    // missed.
    let weaken = std::env::var("WHARF_WEAKEN").unwrap_or_default();
    for _ in 0..40 {
        let mut command = bundle.command(&["exec", &bundle.id, "true"]);
        Ran::of(command.env("WHARF_WEAKEN", format!("{weaken},linger")).output().expect("runtime runs")).ok();
    }
    std::fs::write(bundle.rootfs().join("stop"), "").expect("file");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("leaks")).expect("read"), "");
}

#[test]
fn cve_2021_41091_the_state_folder_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let folder = bundle.path().join("state").join(&bundle.id);
    assert_eq!(std::fs::metadata(&folder).expect("stat").permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(folder.join("state.json")).expect("stat").permissions().mode() & 0o777, 0o600);
}

#[test]
fn cve_2022_1227_nothing_of_the_container_is_run_to_list_its_processes() {
    let bundle = Bundle::new("sleep 1000");
    let marker = bundle.path().join("run-on-the-host");
    let program = bundle.rootfs().join("bin/ps");
    std::fs::remove_file(&program).expect("removed");
    std::fs::write(&program, format!("#!/bin/sh\ntouch {} /run-inside\n", marker.display())).expect("written");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    bundle.start();
    // Until the program is there: with others, what is seen first is the runtime itself. The first column may be all there is.
    eventually("the listing", || {
        let listed = bundle.call(&["ps", &bundle.id]).ok();
        listed.contains("sleep 1000") || (!is_ours() && listed.lines().count() > 1 && !listed.contains("init"))
    });
    assert!(!marker.exists() && !bundle.rootfs().join("run-inside").exists());
}

#[test]
fn cve_2024_45310_no_file_is_made_outside_by_a_mount_whose_place_is_being_swapped() {
    let outside = tempfile::tempdir().expect("folder");
    // Without the protection it ends at the first win, and there a race must have its chance on a busy machine, too.
    let many = ["WHARF_LONG", "WHARF_WEAKEN"].iter().any(|name| std::env::var_os(name).is_some_and(|v| v != "openat2"));
    let rounds = if many { 10_000 } else { 25 };
    let bundle = Bundle::new("true");
    let (volume, spare) = (bundle.path().join("volume"), bundle.path().join("volume/spare"));
    std::fs::create_dir_all(&volume).expect("folder");
    symlink(outside.path(), &spare).expect("link");
    let at = volume.to_str().expect("UTF-8").to_owned();
    let source = bundle.path().join("config.json").to_str().expect("UTF-8").to_owned();
    let bundle = bundle.with(|c| {
        add_mount(c, "/v", "bind", &at, &["rbind"]);
        add_mount(c, "/v/place/deep/file", "bind", &source, &["bind"]);
    });
    std::fs::create_dir(volume.join("place")).expect("folder");
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stop, swapped) = (over.clone(), volume.clone());
    let swapper = std::thread::spawn(move || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let mut swaps = 0_u64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let done = renameat_with(CWD, swapped.join("place"), CWD, &spare, RenameFlags::EXCHANGE);
            swaps += u64::from(done.is_ok());
        }
        swaps
    });
    let mut made = Vec::new();
    let mut succeeded = 0;
    for _ in 0..rounds {
        // It may succeed or be refused, as the moment has it.
        succeeded += u32::from(bundle.run().code == Some(0));
        made = std::fs::read_dir(outside.path()).expect("folder").flatten().map(|e| e.file_name()).collect();
        if !made.is_empty() {
            break;
        }
        // The next round makes the places anew, wherever the folder is at the moment.
        for folder in ["place/deep", "spare/deep"] {
            let _ = std::fs::remove_file(volume.join(folder).join("file"));
            let _ = std::fs::remove_dir(volume.join(folder));
        }
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let swaps = swapper.join().expect("joined");
    println!("{rounds} rounds, {succeeded} of them ran, {swaps} swaps");
    assert!(made.is_empty(), "made outside: {made:?}");
    assert!(swaps > rounds, "the folder was swapped meanwhile");
}

#[test]
fn cve_2025_52881_a_kernel_parameter_is_written_to_the_hosts_procfs_and_to_no_file_of_the_image() {
    let script = "cat /proc/sys/kernel/domainname /elsewhere/sys/kernel/domainname";
    let bundle = Bundle::new(script).with(|c| {
        c["mounts"].as_array_mut().expect("list").retain(|m| m["destination"] != "/proc");
        add_mount(c, "/elsewhere", "proc", "proc", &[]);
        c["linux"]["sysctl"] = json!({"kernel.domainname": "mine.test"});
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    let folder = bundle.rootfs().join("proc/sys/kernel");
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("domainname"), "victim\n").expect("file");
    assert_eq!(bundle.run().ok(), "victim\nmine.test\n");
}

#[test]
fn cve_2015_3630_2017_16539_and_2018_10892_hidden_paths_of_proc_and_sys_show_nothing_and_take_nothing() {
    let script = "for p in /proc/keys /proc/timer_list /proc/sched_debug /proc/kcore; do [ -e $p ] && head -c 64 $p | wc -c; done; \
        for d in /proc/acpi /proc/scsi /sys/firmware; do [ -d $d ] && ls -A $d | wc -l; done; \
        for p in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
        [ ! -e $p ] || (echo h > $p) 2>/dev/null && [ -e $p ] && echo written $p; done; echo end";
    let bundle = Bundle::new(script).with(|c| {
        c["linux"]["maskedPaths"] = json!([
            "/proc/keys",
            "/proc/timer_list",
            "/proc/sched_debug",
            "/proc/kcore",
            "/proc/acpi",
            "/proc/scsi",
            "/sys/firmware"
        ]);
        c["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/sysrq-trigger", "/proc/irq"]);
    });
    let text = bundle.run().ok();
    let (figures, end) = text.split_at(text.len() - "end\n".len());
    assert!(figures.lines().count() > 0 && figures.lines().all(|line| line == "0"), "{text}");
    assert_eq!(end, "end\n");
}

#[test]
fn cve_2024_40635_and_2026_46680_a_user_id_that_does_not_fit_is_refused_and_not_cut_to_root() {
    for uid in [json!(4_294_967_296_u64), json!(-1), json!(4_294_967_295_u64), json!("0")] {
        let bundle = Bundle::new("id -u").with(|c| c["process"]["user"]["uid"] = uid.clone());
        let ran = bundle.run();
        assert_ne!(ran.code, Some(0), "{uid}: {}", ran.out);
        assert_eq!(bundle.leftovers(), [""; 0], "{uid}");
    }
    // -1 is "leave it as it is" for setresuid(2) and setresgid(2).
    for (field, value) in [("gid", json!(u32::MAX)), ("additionalGids", json!([u32::MAX]))] {
        let bundle = Bundle::new("id -g").with(|c| c["process"]["user"][field] = value.clone());
        bundle.run().fails_with("4294967295");
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let ran = bundle.call(&["exec", "--user", "4294967295", &bundle.id, "id", "-u"]);
    assert_ne!(ran.code, Some(0), "{}", ran.out);
}

#[test]
fn cve_2016_8867_a_user_who_is_not_root_has_no_capability_but_the_ambient_ones_asked_for() {
    let out = Bundle::new("grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | sort -u")
        .with(|c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}))
        .run()
        .ok();
    assert_eq!(out, "0000000000000000\n");
}

#[test]
fn cve_2023_25809_the_control_groups_of_the_host_cannot_be_changed_through_the_containers_mount() {
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do (mkdir $d/escape) 2>/dev/null && echo made in $d; done; \
        for f in $(ls /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent 2>/dev/null); do \
        (echo /bin/sh > $f) 2>/dev/null && echo wrote $f; done; echo end";
    assert_eq!(Bundle::new(script).run().ok(), "end\n");
}

#[test]
fn an_id_cannot_name_a_path() {
    let bundle = Bundle::new("true");
    bundle.write_config();
    for id in ["../escape", "a/b", "..", ""] {
        let ran = bundle.call(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), id]);
        assert_ne!(ran.code, Some(0), "{id}");
    }
    assert!(!bundle.path().join("escape").exists());
}
