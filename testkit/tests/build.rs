//! Builds: by our own command, by the stock one with the classic builder, and by buildx.

use testkit::build::{context, each_way};
use testkit::{Cli, Daemon};

#[test]
fn an_image_is_built_with_files_steps_and_configuration() {
    each_way(|daemon, way, build| {
        let folder = context(&[
            (
                "Dockerfile",
                "ARG BASE=busybox\nFROM ${BASE} AS first\nRUN echo made > /made && mkdir -p /d/e\nCOPY sub /d/\n\
                 FROM busybox\nENV A=1 B=\"two words\"\nWORKDIR /w\nCOPY --from=first /made /d ./\nADD x.txt y/\n\
                 RUN <<EOF\necho \"$A $B\" > env\nEOF\nLABEL l=v\nEXPOSE 80\nUSER nobody\nCMD [\"cat\", \"env\"]\n",
            ),
            ("sub/f", "content"),
            ("x.txt", "x"),
            ("skipped.md", "no"),
            (".dockerignore", "*.md\n"),
        ]);
        let name = format!("made-{way}");
        let path = folder.path().to_str().expect("text");
        build(&["build", "-t", &name, path]).ok();
        let out = daemon.docker(&["run", "--rm", &name]).ok();
        assert_eq!(out.trim(), "1 two words", "{way}");
        let tree = daemon.docker(&["run", "--rm", &name, "sh", "-c", "cat f made y/x.txt; ls -d e; id -un"]).ok();
        assert_eq!(tree.split_whitespace().collect::<Vec<_>>(), ["contentmade", "xe", "nobody"], "{way}");
        let facts = "{{.Config.WorkingDir}} {{.Config.User}} {{json .Config.ExposedPorts}} {{json .Config.Labels}}";
        let facts = daemon.docker(&["image", "inspect", "-f", facts, &name]).ok();
        assert_eq!(facts.trim(), "/w nobody {\"80/tcp\":{}} {\"l\":\"v\"}", "{way}");
    });
}

#[test]
fn a_second_build_takes_every_step_from_the_cache_and_gives_the_same_image() {
    each_way(|daemon, way, build| {
        let folder = context(&[
            ("Dockerfile", "FROM busybox\nCOPY a /a\nRUN cat /proc/uptime > /time\n"),
            ("a", "1"),
            ("b", "1"),
        ]);
        let path = folder.path().to_str().expect("text");
        let id = |name: &str| {
            build(&["build", "-t", name, path]).ok();
            daemon.docker(&["image", "inspect", "-f", "{{.Id}}", name]).ok()
        };
        let first = id(&format!("c1-{way}"));
        assert_eq!(id(&format!("c2-{way}")), first, "{way}");
        // What no instruction reads changes nothing; what one reads does.
        std::fs::write(folder.path().join("b"), "2").expect("written");
        assert_eq!(id(&format!("c3-{way}")), first, "{way}");
        std::fs::write(folder.path().join("a"), "2").expect("written");
        assert_ne!(id(&format!("c4-{way}")), first, "{way}");
    });
}

#[test]
fn a_step_that_fails_fails_the_build_with_its_exit_code() {
    each_way(|daemon, way, build| {
        let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo before; exit 7\n")]);
        let done = build(&["build", "-t", "never", folder.path().to_str().expect("text")]);
        assert_ne!(done.code, 0, "{way}");
        let text = format!("{}{}", done.text(), done.stderr);
        assert!(text.contains("exit 7") && text.contains("exit code: 7"), "{way}: {text}");
        assert_ne!(daemon.docker(&["image", "inspect", "never"]).code, 0);
    });
}

#[test]
fn stages_that_are_not_needed_are_not_built() {
    each_way(|_, way, build| {
        let file = "FROM busybox AS bad\nRUN exit 1\nFROM busybox AS good\nRUN true\n";
        let folder = context(&[("Dockerfile", file)]);
        let path = folder.path().to_str().expect("text");
        build(&["build", path]).ok();
        assert_ne!(build(&["build", "--target", "bad", path]).code, 0, "{way}");
    });
}

#[test]
fn a_killed_daemon_leaves_a_consistent_cache_and_no_mounts() {
    let mut daemon = Daemon::with_image();
    let folder =
        context(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /one\nRUN --mount=type=cache,target=/c sleep 30\n")]);
    let path = folder.path().to_str().expect("text").to_owned();
    let mut command = daemon.client(Cli::Ours, &["build", &path]);
    let mut running =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("started");
    let steps = daemon.exec_root().join("steps");
    testkit::eventually("the second step runs", || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table.contains(&format!("{}/m", steps.display())).then_some(())
    });
    daemon.kill();
    let _ = running.wait();
    daemon.launch();
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!table.contains(&*steps.to_string_lossy()), "a step's mounts are left");
    std::fs::write(folder.path().join("Dockerfile"), "FROM busybox\nRUN echo 1 > /one\nRUN cat /one\n")
        .expect("written");
    daemon.docker(&["build", "-t", "after", &path]).ok();
    assert_eq!(daemon.docker(&["run", "--rm", "after", "cat", "/one"]).ok().trim(), "1");
}

#[test]
fn cve_2024_23652_a_link_in_place_of_a_mount_point_removes_nothing_elsewhere() {
    let daemon = Daemon::with_image();
    let folder = context(&[(
        "Dockerfile",
        "FROM busybox\nRUN mkdir -p /victim/x\nRUN --mount=type=tmpfs,target=/m/x mkdir /n && ln -s /victim /n/l; true\n\
         RUN test -d /victim/x && test ! -e /m/x\n",
    )]);
    daemon.docker(&["build", folder.path().to_str().expect("text")]).ok();
}

#[test]
fn cve_2024_23653_a_step_does_not_get_privileges_for_the_asking() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN --security=insecure true\n")]);
    daemon.docker(&["build", folder.path().to_str().expect("text")]).fails(1, "security.insecure is not allowed");
}
