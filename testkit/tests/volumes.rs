//! Volumes and mounts: the local driver's options, sub-paths, images, copy-up, the extras, and what a crash leaves.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{Cli, Daemon, DaemonOptions, eventually};

fn data(daemon: &Daemon, volume: &str) -> PathBuf {
    PathBuf::from(daemon.docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]).ok())
}

/// Mounts below a folder, as this process sees them.
fn mounts_below(folder: &std::path::Path) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let folder = folder.display().to_string();
    text.lines().filter(|l| l.split(' ').nth(4).is_some_and(|place| place.starts_with(&folder))).count()
}

#[test]
fn options_of_the_local_driver_are_checked_in_dockers_words() {
    let daemon = Daemon::start(DaemonOptions::default());
    let cases: &[(&[&str], &str)] = &[
        (&["-o", "foo=1"], "create vol: invalid option: \"foo\""),
        (&["-o", "type=tmpfs"], "create vol: missing required option: \"device\""),
        (&["-o", "device=x"], "create vol: missing required option: \"type\""),
        (&["-o", "o=x"], "create vol: missing required option: \"device\""),
        (&["-o", "size=xx"], "create vol: invalid size: 'xx'"),
        (&["-d", "nosuch"], "create vol: error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
    ];
    for (options, message) in cases {
        for cli in Cli::all() {
            let line = [&["volume", "create"][..], options, &["vol"]].concat();
            daemon.run(cli, &line).fails(1, message);
        }
    }
}

#[test]
fn a_tmpfs_volume_is_one_file_system_for_all_its_containers_and_goes_with_the_last() {
    let mut daemon = Daemon::with_image();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000"];
    daemon.docker(&[&["volume", "create"], &options[..], &["tt"]].concat()).ok();
    let before = mounts_below(daemon.folder());
    daemon.docker(&["run", "-d", "--name", "one", "-v", "tt:/x", "busybox", "sleep", "1000"]).ok();
    daemon.docker(&["run", "-d", "--name", "two", "-v", "tt:/y", "busybox", "sleep", "1000"]).ok();
    assert_eq!(daemon.docker(&["exec", "one", "sh", "-c", "echo hi > /x/f; stat -c %u /x"]).ok(), "1000");
    assert_eq!(daemon.docker(&["exec", "two", "cat", "/y/f"]).ok(), "hi");
    let full = daemon.docker(&["exec", "one", "dd", "if=/dev/zero", "of=/x/big", "bs=1M", "count=2"]);
    assert!(full.stderr.contains("No space left"), "{}", full.stderr);
    // An engine that was killed knows who holds it.
    daemon.kill();
    daemon.launch();
    daemon.docker(&["rm", "-f", "one"]).ok();
    assert_eq!(daemon.docker(&["exec", "two", "cat", "/y/f"]).ok(), "hi");
    assert_eq!(mounts_below(daemon.folder()), before + 1);
    daemon.docker(&["rm", "-f", "two"]).ok();
    assert_eq!(mounts_below(daemon.folder()), before);
    assert_eq!(daemon.docker(&["run", "--rm", "-v", "tt:/x", "busybox", "ls", "/x"]).ok(), "");
    daemon.docker(&["volume", "rm", "tt"]).ok();
}

#[test]
fn what_is_mounted_when_the_engine_dies_with_its_containers_is_unmounted_by_the_next() {
    let mut daemon = Daemon::with_image();
    let source = daemon.folder().join("mine");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("precious"), "x").expect("written");
    let device = format!("device={}", source.display());
    daemon.docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bb"]).ok();
    daemon.docker(&["run", "-d", "--name", "cc", "-v", "bb:/x", "busybox", "sleep", "1000"]).ok();
    let pid: i32 = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", "cc"]).ok().parse().expect("a pid");
    daemon.kill();
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    daemon.launch();
    let place = data(&daemon, "bb");
    eventually("it is unmounted", || (mounts_below(&place) == 0).then_some(()));
    daemon.docker(&["rm", "cc"]).ok();
    daemon.docker(&["volume", "rm", "bb"]).ok();
    // The volume is gone, and what was behind it is not.
    assert_eq!(fs::read_to_string(source.join("precious")).expect("kept"), "x");
}

#[test]
fn removing_a_bind_volume_that_is_still_mounted_never_deletes_what_is_behind_it() {
    let daemon = Daemon::with_image();
    let source = daemon.folder().join("mine");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("precious"), "x").expect("written");
    let device = format!("device={}", source.display());
    daemon.docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bb"]).ok();
    // Somebody mounts it by hand where the engine would.
    rustix::mount::mount_bind(&source, data(&daemon, "bb")).expect("mounted");
    daemon.docker(&["volume", "rm", "bb"]).ok();
    assert_eq!(fs::read_to_string(source.join("precious")).expect("kept"), "x");
}

#[test]
fn a_device_that_cannot_be_mounted_fails_the_start_in_dockers_words() {
    let daemon = Daemon::with_image();
    let cases = [
        (["type=nosuch", "device=dev", "o="], "failed to mount local volume: mount dev:", "no such device"),
        (["type=none", "device=/nosuch", "o=bind"], ", flags: 0x1000: ", "no such file or directory"),
        (["type=nosuch", "device=d", "o=password=secret"], "data: password=********", "no such device"),
        (["type=nfs", "device=:/x", "o=addr=nosuch.invalid"], "lookup nosuch.invalid", "no such host"),
    ];
    for (n, (options, part, reason)) in cases.iter().enumerate() {
        let name = format!("v{n}");
        let mut line = vec!["volume", "create"];
        options.iter().for_each(|o| line.extend(["-o", *o]));
        line.push(&name);
        daemon.docker(&line).ok();
        let mount = format!("{name}:/x");
        let run = daemon.docker(&["run", "--rm", "-v", &mount, "busybox", "true"]);
        // As the stock command line: what names a missing file ends with 127.
        let code = if run.stderr.contains("no such file or directory") { 127 } else { 125 };
        run.fails(code, "error while mounting volume '").fails(code, part).fails(code, reason);
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "", "nothing is left of them");
}

/// Whether the kernel has a file system, built in or as a module that is loaded.
fn kernel_has(kind: &str) -> bool {
    let all = fs::read_to_string("/proc/filesystems").expect("read");
    all.split_whitespace().any(|word| word == kind)
}

#[test]
fn network_shares_are_mounted_with_their_address_and_a_password_is_never_shown() {
    let daemon = Daemon::with_image();
    // Port 1 of this host: nobody answers there, whether or not the kernel knows the file system.
    for (kind, device, options, shown) in [
        ("nfs", ":/x", "addr=localhost,port=1,soft,timeo=1,retrans=1", "data: addr=127.0.0.1,port=1,soft"),
        ("nfs4", ":/x", "addr=127.0.0.1,port=1,soft,timeo=1,retrans=1", "data: addr=127.0.0.1,port=1,soft"),
        ("cifs", "//127.0.0.1/x", "username=u,password=geheim,port=1", "username=u,password=********,port=1"),
    ] {
        let name = format!("net-{kind}");
        let (t, d, o) = (format!("type={kind}"), format!("device={device}"), format!("o={options}"));
        daemon.docker(&["volume", "create", "-o", &t, "-o", &d, "-o", &o, &name]).ok();
        let run = daemon.docker(&["run", "--rm", "-v", &format!("{name}:/x"), "busybox", "true"]);
        let text = format!("failed to mount local volume: mount {device}:");
        run.fails(125, "error while mounting volume '").fails(125, &text).fails(125, shown);
        assert!(!run.stderr.contains("geheim"), "{}", run.stderr);
        if !kernel_has(kind) {
            // dockerd 28.5 on the same kernel.
            run.fails(125, ": no such device");
        }
        daemon.docker(&["volume", "rm", &name]).ok();
    }
}

#[test]
fn a_btrfs_device_is_a_volume_whose_subvolume_is_named_by_options() {
    if !kernel_has("btrfs") || !std::path::Path::new("/usr/sbin/mkfs.btrfs").exists() {
        return println!("SKIP: needs btrfs and btrfs-progs");
    }
    let daemon = Daemon::with_image();
    let image = daemon.folder().join("disk");
    fs::File::create(&image).and_then(|f| f.set_len(128 << 20)).expect("made");
    let tool = |program: &str, arguments: &[&str]| {
        let out = std::process::Command::new(program).args(arguments).output().expect("it runs");
        assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let path = image.display().to_string();
    tool("/usr/sbin/mkfs.btrfs", &["-q", &path]);
    let device = tool("/usr/sbin/losetup", &["--find", "--show", &path]);
    let create = |name: &str, options: &str| {
        let (d, o) = (format!("device={device}"), format!("o={options}"));
        daemon.docker(&["volume", "create", "-o", "type=btrfs", "-o", &d, "-o", &o, name]).ok();
    };
    create("bt-all", "noatime");
    create("bt-none", "subvol=nosuch");
    let run = |name: &str, script: &str| {
        daemon.docker(&["run", "--rm", "-v", &format!("{name}:/x"), "busybox", "sh", "-c", script])
    };
    let shown = run("bt-all", "grep ' /x ' /proc/mounts; echo kept >/x/f").ok();
    assert!(shown.contains("btrfs") && shown.contains("noatime"), "{shown}");
    assert_eq!(run("bt-all", "cat /x/f").ok(), "kept");
    let missing = run("bt-none", "true");
    assert!(missing.code != 0 && missing.stderr.contains("failed to mount local volume"), "{}", missing.stderr);
    assert_eq!(mounts_below(&data(&daemon, "bt-all")), 0, "unmounted with the last container");
    daemon.docker(&["volume", "rm", "bt-all", "bt-none"]).ok();
    tool("/usr/sbin/losetup", &["--detach", &device]);
}

#[test]
fn a_volume_with_a_size_cannot_grow_beyond_it_and_belongs_to_whom_it_should() {
    let daemon = Daemon::with_image();
    if !std::path::Path::new("/dev/loop-control").exists() {
        println!("SKIP volumes with a size: no loop devices on this host");
        return;
    }
    daemon.docker(&["volume", "create", "--size", "8m", "--uid", "7", "--gid", "8", "ss"]).ok();
    let mount = ["run", "--rm", "-v", "ss:/x", "busybox", "sh", "-c"];
    let run = |script: &str| daemon.docker(&[&mount[..], &[script]].concat());
    assert_eq!(run("stat -c %u:%g /x; ls -A /x").ok(), "7:8");
    let full = run("dd if=/dev/zero of=/x/big bs=1M count=16");
    assert!(full.stderr.contains("No space left"), "{}", full.stderr);
    assert_eq!(run("rm /x/big; echo kept > /x/f").ok(), "");
    assert_eq!(run("cat /x/f").ok(), "kept");
    assert_eq!(mounts_below(&data(&daemon, "ss")), 0);
    daemon.docker(&["volume", "create", "--size", "1", "tiny"]).fails(1, "quota size requested but no quota support");
    // Owners without a size.
    daemon.docker(&["volume", "create", "--uid", "99", "oo"]).ok();
    assert_eq!(fs::metadata(data(&daemon, "oo")).expect("there").uid(), 99);
    daemon.docker(&["volume", "rm", "ss", "oo"]).ok();
}

#[test]
fn sub_paths_of_volumes_are_mounted_and_escapes_are_refused() {
    let daemon = Daemon::with_image();
    let script = "mkdir -p /x/a/b; echo hi > /x/a/f; ln -s /etc /x/out; ln -s a /x/in; ln -s ../../.. /x/up";
    daemon.docker(&["run", "--rm", "-v", "vv:/x", "busybox", "sh", "-c", script]).ok();
    let run = |subpath: &str, command: &[&str]| {
        let mount = format!("type=volume,src=vv,dst=/y,volume-subpath={subpath}");
        daemon.docker(&[&["run", "--rm", "--mount", &mount, "busybox"], command].concat())
    };
    assert_eq!(run("a", &["cat", "/y/f"]).ok(), "hi");
    assert_eq!(run("a/f", &["cat", "/y"]).ok(), "hi");
    assert_eq!(run("in", &["cat", "/y/f"]).ok(), "hi");
    for outside in ["out", "up"] {
        let text = format!("subpath: {outside}");
        run(outside, &["ls"]).fails(125, "path concatenation escapes the base directory, base: ").fails(125, &text);
    }
    run("nope", &["ls"]).fails(127, "cannot access path ").fails(127, "/nope: no such file or directory");
    let text = "invalid mount config for type \"volume\": subpath must be a relative path within the volume";
    run("../x", &["ls"]).fails(125, text);
    run("/a", &["ls"]).fails(125, text);
    let anonymous = ["run", "--rm", "--mount", "type=volume,dst=/y,volume-subpath=a", "busybox", "ls"];
    daemon.docker(&anonymous).fails(125, "must not set Subpath when using anonymous volumes");
    assert_eq!(mounts_below(&daemon.exec_root().join("mounts")), 0, "nothing stays mounted");
}

/// The race of CVE-2024-23651 and CVE-2021-30465: while containers start, the sub-path turns into a link to the host
/// and back, a thousand times a second.
#[test]
fn cve_2024_23651_a_sub_path_that_is_swapped_for_a_link_never_shows_the_host() {
    let daemon = Arc::new(Daemon::with_image());
    daemon.docker(&["run", "--rm", "-v", "vv:/x", "busybox", "sh", "-c", "mkdir /x/real; echo in > /x/real/mark"]).ok();
    let host = daemon.folder().join("host");
    fs::create_dir(&host).expect("made");
    fs::write(host.join("mark"), "host").expect("written");
    let folder = data(&daemon, "vv");
    // Both are made once; each turn is one atomic exchange.
    fs::rename(folder.join("real"), folder.join("sub")).expect("renamed");
    symlink(&host, folder.join("evil")).expect("linked");
    let done = Arc::new(AtomicBool::new(false));
    let (stop, place) = (done.clone(), folder.clone());
    let racer = std::thread::spawn(move || {
        let mut turns = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let (a, b) = (place.join("sub"), place.join("evil"));
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).expect("exchanged");
            turns += 1;
        }
        turns
    });
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..25 {
        let mount = "type=volume,src=vv,dst=/y,volume-subpath=sub";
        let run = daemon.docker(&["run", "--rm", "--mount", mount, "busybox", "cat", "/y/mark"]);
        match (run.code, run.text().as_str()) {
            (0, "in") => inside += 1,
            (125, _) if run.stderr.contains("path concatenation escapes") => refused += 1,
            other => panic!("{other:?}: {}", run.stderr),
        }
    }
    done.store(true, Ordering::Relaxed);
    let turns = racer.join().expect("the racer");
    assert!(turns > 100 && inside + refused == 25, "{turns} turns, {inside} inside, {refused} refused");
}

/// CVE-2021-30465: the place in the container where a volume is to be mounted is swapped for a link by another container
/// that shares the volume above it.
#[test]
fn cve_2021_30465_a_mount_target_that_is_swapped_for_a_link_stays_in_the_container() {
    let daemon = Daemon::with_image();
    let host = daemon.folder().join("host");
    fs::create_dir(&host).expect("made");
    daemon.docker(&["volume", "create", "shared"]).ok();
    let folder = data(&daemon, "shared");
    fs::create_dir(folder.join("target")).expect("made");
    symlink("/../../../../../../../../../..".to_owned() + &host.display().to_string(), folder.join("evil"))
        .expect("linked");
    let done = Arc::new(AtomicBool::new(false));
    let (stop, place) = (done.clone(), folder.clone());
    let racer = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let (a, b) = (place.join("target"), place.join("evil"));
            rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).expect("exchanged");
        }
    });
    let before = mounts_below(&host);
    for _ in 0..20 {
        let mounts = ["-v", "shared:/s", "--mount", "type=tmpfs,dst=/s/target"];
        let run = daemon.docker(&[&["run", "--rm"], &mounts[..], &["busybox", "touch", "/s/target/mark"]].concat());
        // It may fail, when the target is a link at the wrong moment; it must never reach the host.
        assert!(run.code == 0 || run.code == 1 || run.code == 125, "{}", run.stderr);
        assert_eq!(fs::read_dir(&host).expect("read").count(), 0, "nothing came to the host");
    }
    done.store(true, Ordering::Relaxed);
    racer.join().expect("the racer");
    assert_eq!(mounts_below(&host), before);
}

#[test]
fn images_are_mounted_read_only_whole_and_in_part_and_stay_while_they_are_used() {
    let daemon = Daemon::with_image();
    let run = |more: &str, script: &str| {
        let mount = format!("type=image,src=busybox,dst=/y{more}");
        daemon.docker(&["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", script])
    };
    assert!(run("", "ls /y").ok().lines().any(|l| l == "bin"));
    let touched = run("", "touch /y/x");
    assert!(touched.stderr.contains("Read-only file system"), "{}", touched.stderr);
    assert!(run(",image-subpath=bin", "ls /y | head -3; ! touch /y/x").code == 0);
    run(",image-subpath=nope", "ls").fails(127, "cannot access path ").fails(127, "no such file or directory");
    let missing = ["create", "--mount", "type=image,dst=/y", "busybox", "true"];
    daemon.docker(&missing).fails(1, "invalid mount config for type \"image\": field Source must not be empty");
    assert_eq!(mounts_below(&daemon.exec_root().join("mounts")), 0, "nothing stays mounted");
    daemon.docker(&["create", "--name", "cc", "--mount", "type=image,src=busybox,dst=/y", "busybox", "true"]).ok();
    let shown = daemon.docker(&["inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.RW}}{{end}}", "cc"]).ok();
    assert_eq!(shown, "image busybox false");
}

#[test]
fn read_only_reaches_mounts_below_unless_asked_otherwise() {
    let daemon = Daemon::with_image();
    let source = daemon.folder().join("tree");
    fs::create_dir_all(source.join("sub")).expect("made");
    rustix::mount::mount("tmpfs", source.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None)
        .expect("mounted");
    let run = |mode: &str| {
        let mount = format!("type=bind,src={},dst=/y,readonly{mode}", source.display());
        daemon.docker(&["run", "--rm", "--mount", &mount, "busybox", "touch", "/y/sub/f"]).code
    };
    let plain = format!("{}:/y:ro", source.display());
    let short = daemon.docker(&["run", "--rm", "-v", &plain, "busybox", "touch", "/y/sub/f"]).code;
    let codes =
        [run(""), run(",bind-recursive=readonly,bind-propagation=rprivate"), run(",bind-recursive=writable"), short];
    rustix::mount::unmount(source.join("sub"), rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    assert_eq!(codes, [1, 1, 0, 1]);
}

#[test]
fn propagation_that_the_host_cannot_give_is_refused_in_dockers_words() {
    let daemon = Daemon::with_image();
    let source = daemon.folder().join("private");
    fs::create_dir(&source).expect("made");
    rustix::mount::mount_bind(&source, &source).expect("mounted");
    rustix::mount::mount_change(&source, rustix::mount::MountPropagationFlags::PRIVATE).expect("made private");
    let run = |mode: &str| {
        let bind = format!("{}:/y:{mode}", source.display());
        daemon.docker(&["run", "--rm", "-v", &bind, "busybox", "true"])
    };
    let place = source.display().to_string();
    let (shared, slave) = (run("rshared"), run("rslave"));
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    shared.fails(125, &format!("path {place} is mounted on {place} but it is not a shared mount"));
    slave.fails(125, &format!("path {place} is mounted on {place} but it is not a shared or slave mount"));
}

#[test]
fn volumes_are_renamed_cloned_exported_and_imported() {
    let mut daemon = Daemon::with_image();
    let fill = "echo one > /x/f; mkdir /x/d; ln -s f /x/l; chown 5:6 /x/d; chmod 751 /x/d";
    daemon.docker(&["volume", "create", "--label", "k=v", "aa"]).ok();
    daemon.docker(&["run", "--rm", "-v", "aa:/x", "busybox", "sh", "-c", fill]).ok();
    assert_eq!(daemon.docker(&["volume", "clone", "aa", "bb"]).ok(), "bb");
    let look = |daemon: &Daemon, volume: &str| {
        let mount = format!("{volume}:/x");
        let script = "cat /x/l; stat -c %u:%g:%a /x/d";
        daemon.docker(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script]).ok()
    };
    assert_eq!(look(&daemon, "bb"), "one\n5:6:751");
    assert_eq!(daemon.docker(&["volume", "inspect", "-f", "{{.Labels.k}}", "bb"]).ok(), "v");
    let archive = daemon.folder().join("a.tar").display().to_string();
    daemon.docker(&["volume", "export", "-o", &archive, "aa"]).ok();
    daemon.docker(&["volume", "create", "cc"]).ok();
    daemon.docker(&["volume", "import", "cc", &archive]).ok();
    assert_eq!(look(&daemon, "cc"), "one\n5:6:751");
    daemon.docker(&["volume", "rename", "aa", "zz"]).ok();
    assert_eq!(look(&daemon, "zz"), "one\n5:6:751");
    daemon.docker(&["volume", "inspect", "aa"]).fails(1, "no such volume");
    daemon.docker(&["volume", "rename", "zz", "bb"]).fails(1, "volume name must be unique");
    daemon.docker(&["create", "--name", "user", "-v", "zz:/x", "busybox", "true"]).ok();
    daemon.docker(&["volume", "rename", "zz", "yy"]).fails(1, "volume is in use");
    daemon.kill();
    daemon.launch();
    assert_eq!(look(&daemon, "zz"), "one\n5:6:751");
}

#[test]
fn a_rename_that_is_killed_at_any_step_leaves_one_whole_volume() {
    for point in ["volume.rename-aside", "volume.rename-committed"] {
        let mut daemon = Daemon::with_image();
        daemon.docker(&["run", "--rm", "-v", "aa:/x", "busybox", "sh", "-c", "echo kept > /x/f"]).ok();
        daemon.kill();
        daemon.options().environment = vec![("WHARF_KILL_AT".to_owned(), point.to_owned())];
        daemon.launch();
        assert_ne!(daemon.docker(&["volume", "rename", "aa", "bb"]).code, 0);
        daemon.wait_for_end();
        daemon.options().environment.clear();
        daemon.launch();
        let names = daemon.docker(&["volume", "ls", "-q"]).ok();
        assert!(names == "aa" || names == "bb", "{point}: {names:?}");
        let mount = format!("{names}:/x");
        assert_eq!(daemon.docker(&["run", "--rm", "-v", &mount, "busybox", "cat", "/x/f"]).ok(), "kept", "{point}");
        let mut folders: Vec<String> = fs::read_dir(daemon.data_root().join("volumes"))
            .expect("read")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        folders.sort();
        assert_eq!(folders, [names], "{point}");
    }
}

#[test]
fn anonymous_volumes_go_with_rm_and_prune_and_named_ones_stay() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "--rm", "-v", "/anon", "-v", "named:/n", "busybox", "true"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "named");
    daemon.docker(&["run", "--name", "cc", "-v", "/anon", "busybox", "true"]).ok();
    daemon.docker(&["rm", "cc"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok().lines().count(), 2);
    assert_eq!(daemon.docker(&["volume", "ls", "-q", "-f", "dangling=true"]).ok().lines().count(), 2);
    daemon.docker(&["volume", "create", "--label", "keep", "labelled"]).ok();
    daemon.docker(&["volume", "prune", "-f"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "labelled\nnamed");
    daemon.docker(&["volume", "prune", "-af", "--filter", "label!=keep"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "labelled");
}

#[test]
fn an_image_s_files_fill_an_empty_volume_with_owners_and_attributes_unless_asked_not_to() {
    let daemon = Daemon::with_image();
    let copied = |mount: &str| {
        let line = ["run", "--rm", "-v", mount, "busybox", "sh", "-c", "ls /bin | wc -l"];
        daemon.docker(&line).ok().parse::<u32>().expect("a number")
    };
    // The command itself must not come from what is covered, so the volume covers another folder with content.
    let list = |mount: &str| daemon.docker(&["run", "--rm", "-v", mount, "busybox", "ls", "/etc"]).ok();
    assert!(copied("full:/bin") > 1);
    let filled = list("etc:/etc");
    let bare = list("bare:/etc:nocopy");
    assert!(filled.lines().count() >= bare.lines().count(), "{filled} {bare}");
    assert!(fs::read_dir(data(&daemon, "full")).expect("read").count() > 1);
    assert_eq!(
        fs::read_dir(data(&daemon, "bare"))
            .expect("read")
            .filter(|e| {
                // What the engine itself mounts there leaves empty files.
                e.as_ref().is_ok_and(|e| e.metadata().is_ok_and(|m| m.len() > 0))
            })
            .count(),
        0
    );
}

/// CVE-2022-23648: the image's `VOLUME` is a link to a folder of the host, whose content came into the volume.
#[test]
fn cve_2022_23648_a_volume_of_the_image_that_is_a_link_brings_nothing_of_the_host() {
    let daemon = Daemon::start(DaemonOptions::default());
    let host = daemon.folder().join("secret");
    fs::create_dir(&host).expect("made");
    fs::write(host.join("key"), "secret").expect("written");
    let tree = daemon.folder().join("tree");
    fs::create_dir_all(tree.join("bin")).expect("made");
    symlink(&host, tree.join("absolute")).expect("linked");
    symlink(format!("../../../../../../../..{}", host.display()), tree.join("relative")).expect("linked");
    let tar = daemon.folder().join("image.tar");
    let made = std::process::Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg(".").status();
    assert!(made.expect("tar runs").success());
    let changes = ["-c", "VOLUME /absolute", "-c", "VOLUME /relative", "-c", "CMD /bin/sh"];
    let file = tar.display().to_string();
    daemon.docker(&[&["import"], &changes[..], &[file.as_str(), "hostile"]].concat()).ok();
    daemon.docker(&["create", "--name", "cc", "hostile"]).ok();
    let names = daemon.docker(&["volume", "ls", "-q"]).ok();
    assert_eq!(names.lines().count(), 2);
    for name in names.lines() {
        assert_eq!(fs::read_dir(data(&daemon, name)).expect("read").count(), 0, "{name} is empty");
    }
}

/// Import of a hostile archive: every name stays in the volume.
#[test]
fn an_imported_archive_cannot_leave_its_volume() {
    let daemon = Daemon::start(DaemonOptions::default());
    let host = daemon.folder().join("host");
    fs::create_dir(&host).expect("made");
    let tree = daemon.folder().join("tree");
    fs::create_dir(&tree).expect("made");
    symlink(&host, tree.join("out")).expect("linked");
    let first = daemon.folder().join("first.tar").display().to_string();
    let second = daemon.folder().join("second.tar").display().to_string();
    let tar = |arguments: &[&str]| {
        let done = std::process::Command::new("tar").arg("-C").arg(&tree).args(arguments).status();
        assert!(done.expect("tar runs").success());
    };
    tar(&["-cf", &first, "out"]);
    fs::remove_file(tree.join("out")).expect("removed");
    fs::create_dir(tree.join("out")).expect("made");
    fs::write(tree.join("out/mark"), "x").expect("written");
    tar(&["-cf", &second, "out/mark"]);
    daemon.docker(&["volume", "create", "vv"]).ok();
    daemon.docker(&["volume", "import", "vv", &first]).ok();
    // The second archive writes through what the first one left.
    daemon.docker(&["volume", "import", "vv", &second]);
    assert_eq!(fs::read_dir(&host).expect("read").count(), 0, "nothing came to the host");
}
