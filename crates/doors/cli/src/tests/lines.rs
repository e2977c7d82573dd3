//! Command lines: what is said for wrong ones, and how right ones are read. Texts are those of docker 28.2.2.

use proptest::prelude::*;

use crate::create;
use crate::exit::Exit;
use crate::parse::{Matches, Request, parse};
use crate::table::{self, Action};

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn read(line: &str) -> Matches {
    match parse(&words(line)) {
        Ok(Request::Run(_, m)) => m,
        Ok(_) => panic!("{line} is no command"),
        Err(e) => panic!("{line}: {}", e.message),
    }
}

fn fails(line: &str) -> Exit {
    match parse(&words(line)) {
        Ok(_) => panic!("{line} was accepted"),
        Err(e) => e,
    }
}

#[test]
fn wrong_commands_and_counts_are_told_as_docker_does() {
    for (line, text) in [
        (
            "ispect",
            "docker: unknown command: docker ispect\n\nDid you mean this?\n  docker inspect\n\nRun 'docker --help' for more information",
        ),
        (
            "network conect",
            "docker: unknown command: docker network conect\n\nDid you mean this?\n  docker network connect\n\n\
             Usage:  docker network\n\nRun 'docker network --help' for more information",
        ),
        ("nosuchcommand", "docker: unknown command: docker nosuchcommand\n\nRun 'docker --help' for more information"),
        (
            "container nosuch",
            "docker: unknown command: docker container nosuch\n\nUsage:  docker container\n\n\
             Run 'docker container --help' for more information",
        ),
        (
            "rm",
            "docker: 'docker rm' requires at least 1 argument\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\n\
             See 'docker rm --help' for more information",
        ),
        (
            "network ls extra",
            "docker: 'docker network ls' accepts no arguments\n\nUsage:  docker network ls [OPTIONS]\n\n\
             Run 'docker network ls --help' for more information",
        ),
        (
            "tag a",
            "docker: 'docker tag' requires 2 arguments\n\nUsage:  docker tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n\n\
             Run 'docker tag --help' for more information",
        ),
        (
            "images a b",
            "docker: 'docker images' requires at most 1 argument\n\nUsage:  docker images [OPTIONS] [REPOSITORY[:TAG]]\n\n\
             SRun 'docker images --help' for more information",
        ),
        (
            "port",
            "docker: 'docker port' requires at least 1 and at most 2 arguments\n\n\
             Usage:  docker port CONTAINER [PRIVATE_PORT[/PROTO]]\n\nRun 'docker port --help' for more information",
        ),
    ] {
        assert_eq!(fails(line), Exit { message: text.into(), code: 1 }, "{line}");
    }
}

#[test]
fn wrong_flags_are_told_as_docker_does() {
    for (line, first) in [
        ("--nosuch ps", "unknown flag: --nosuch\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]"),
        ("ps --nosuch", "unknown flag: --nosuch\n\nUsage:  docker ps [OPTIONS]"),
        ("ps -Z", "unknown shorthand flag: 'Z' in -Z"),
        ("ps -aZ", "unknown shorthand flag: 'Z' in -Z"),
        ("ps -n", "flag needs an argument: 'n' in -n"),
        ("ps --last", "flag needs an argument: --last"),
        ("ps --=x", "bad flag syntax: --=x"),
        ("run ---x b", "bad flag syntax: ---x"),
        ("image nosuch --flag", "unknown flag: --flag\n\nUsage:  docker image"),
        (
            "ps --all=x",
            "invalid argument \"x\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("ps -nx", "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "ps -n99999999999999999999",
            "invalid argument \"99999999999999999999\" for \"-n, --last\" flag: strconv.ParseInt: parsing \
             \"99999999999999999999\": value out of range",
        ),
        (
            "run --blkio-weight 99999 x",
            "invalid argument \"99999\" for \"--blkio-weight\" flag: strconv.ParseUint: parsing \"99999\": value out of range",
        ),
        ("run --memory nosuch b", "invalid argument \"nosuch\" for \"-m, --memory\" flag: invalid size: 'nosuch'"),
        (
            "run --cpus nosuch b",
            "invalid argument \"nosuch\" for \"--cpus\" flag: failed to parse nosuch as a rational number",
        ),
        (
            "run --health-interval x b",
            "invalid argument \"x\" for \"--health-interval\" flag: time: invalid duration \"x\"",
        ),
        (
            "run --mount nosuch=1 b",
            "invalid argument \"nosuch=1\" for \"--mount\" flag: unexpected key 'nosuch' in 'nosuch=1'",
        ),
        (
            "run --mount type=volume,source=v b",
            "invalid argument \"type=volume,source=v\" for \"--mount\" flag: target is required",
        ),
        ("run --ulimit nosuch b", "invalid argument \"nosuch\" for \"--ulimit\" flag: invalid ulimit argument: nosuch"),
        ("run --sysctl x b", "invalid argument \"x\" for \"--sysctl\" flag: sysctl 'x' is not allowed"),
        (
            "create --gpus x b",
            "invalid argument \"x\" for \"--gpus\" flag: invalid count (x): value must be either \"all\" or an integer: \
             invalid syntax",
        ),
        (
            "images --filter nosuch",
            "invalid argument \"nosuch\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
        ),
    ] {
        let e = fails(line);
        assert!(e.message.starts_with(first) && e.code == 125, "{line}: {} {}", e.code, e.message);
        assert!(e.message.contains("\n\nUsage:  docker") && e.message.ends_with("--help' for more information"));
    }
}

#[test]
fn flags_are_read_as_pflag_reads_them() {
    let m = read("run -itp80:80 -p=81:81 -p 82:82 --rm=false -e A=1 --name x busybox --help -it --rm");
    assert!(m.bool("interactive") && m.bool("tty") && !m.bool("rm"));
    assert_eq!(m.list("publish"), ["80:80", "81:81", "82:82"]);
    assert_eq!(m.args, ["busybox", "--help", "-it", "--rm"]);
    let m = read("run --rm true alpine");
    assert_eq!(m.args, ["true", "alpine"]);
    let m = read("run -- busybox -x");
    assert_eq!(m.args, ["busybox", "-x"]);
    let m = read("rm a -f b -- -c");
    assert!(m.bool("force"));
    assert_eq!(m.args, ["a", "b", "-c"]);
    let m = read("container ps --no-trunc");
    assert_eq!(m.command.path, "container ls");
    let m = read("exec -it=false c ls -l");
    assert!(m.bool("interactive") && !m.bool("tty"));
    assert_eq!(m.args, ["c", "ls", "-l"]);
    let m = read("logs c --tail=5 -f");
    assert_eq!((m.text("tail"), m.bool("follow")), ("5", true));
    assert_eq!(read("logs c").text("tail"), "all");
    let m = read("-H unix:///x -D ps -aq");
    assert!(m.bool("all") && m.bool("quiet"));
}

#[test]
fn help_is_asked_for_in_every_way() {
    let help = |line: &str| match parse(&words(line)) {
        Ok(Request::Help(c, note)) => format!("{}{note}", c.path),
        _ => "none".into(),
    };
    assert_eq!(help("--help"), "");
    assert_eq!(help("run --help"), "run");
    assert_eq!(help("ps -h"), "psFlag shorthand -h has been deprecated, use --help\n");
    assert_eq!(help("container ls --help extra"), "container ls");
    assert_eq!(help("run -h name busybox"), "none");
}

#[test]
fn every_command_has_help_that_names_its_flags() {
    for c in table::commands() {
        let text = crate::help::help(c);
        assert!(text.starts_with("Usage:  docker") && !c.summary.is_empty(), "{}", c.path);
        for f in c.flags().filter(|f| !f.hidden) {
            assert!(text.contains(&format!("--{}", f.long)), "{} --{}", c.path, f.long);
            assert!(!f.help.is_empty(), "{} --{}", c.path, f.long);
        }
    }
}

#[test]
fn no_command_has_two_flags_of_one_name_and_every_alias_leads_somewhere() {
    for c in table::commands() {
        let mut longs: Vec<_> = c.flags().map(|f| f.long).collect();
        let mut shorts: Vec<_> = c.flags().map(|f| f.short).filter(|s| *s != ' ').collect();
        let (l, s) = (longs.len(), shorts.len());
        longs.sort_unstable();
        longs.dedup();
        shorts.sort_unstable();
        shorts.dedup();
        assert_eq!((longs.len(), shorts.len()), (l, s), "{}", c.path);
        for alias in c.aliases {
            assert!(table::find(alias).is_some(), "{alias}");
        }
        if let Action::Later(feature) = c.action {
            assert!(!feature.is_empty());
        }
    }
}

fn body(line: &str) -> Result<serde_json::Value, String> {
    create::request(&read(line)).map(|r| serde_json::to_value(r).unwrap()).map_err(|e| e.message)
}

#[test]
fn a_plain_create_sends_what_docker_sends() {
    let body = body("create busybox true").unwrap();
    let host = &body["HostConfig"];
    assert_eq!(body["Cmd"], serde_json::json!(["true"]));
    assert_eq!((&body["AttachStdout"], &body["AttachStdin"]), (&true.into(), &false.into()));
    assert_eq!(host["NetworkMode"], "default");
    assert_eq!(host["MemorySwappiness"], -1);
    assert_eq!(host["RestartPolicy"], serde_json::json!({"Name": "no", "MaximumRetryCount": 0}));
    assert!(host["Binds"].is_null() && body.get("ExposedPorts").is_none());
    assert!(body["NetworkingConfig"]["EndpointsConfig"]["default"].is_object());
}

#[test]
fn flags_of_create_arrive_in_the_body() {
    let b = body("create -itp 8080:80 -p 7000-7001:90 -v /a:/b:ro -v /c --cap-add net_admin --network n1 --ip 1.2.3.4 -m 64m busybox")
        .unwrap();
    let h = &b["HostConfig"];
    assert_eq!(h["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
    assert_eq!(h["PortBindings"]["90/tcp"][0]["HostPort"], "7000-7001");
    assert_eq!(
        (&h["Binds"][0], &h["CapAdd"][0], &h["Memory"]),
        (&"/a:/b:ro".into(), &"CAP_NET_ADMIN".into(), &67_108_864.into())
    );
    assert!(b["Volumes"]["/c"].is_object() && b["StdinOnce"] == true);
    assert_eq!(b["NetworkingConfig"]["EndpointsConfig"]["n1"]["IPAMConfig"]["IPv4Address"], "1.2.3.4");
    let b = body("create --network host busybox").unwrap();
    assert_eq!(b["NetworkingConfig"]["EndpointsConfig"], serde_json::json!({}));
}

#[test]
fn values_that_contradict_each_other_are_told_as_docker_does() {
    for (line, text) in [
        ("run -p nosuch b", "invalid containerPort: nosuch"),
        ("run -p 99999:80 b", "invalid hostPort: 99999"),
        ("run -p 1.2.3:80:80 b", "invalid IP address: 1.2.3"),
        ("run --env-file /nonexistent/x b", "open /nonexistent/x: no such file or directory"),
        ("run --rm --restart always b", "conflicting options: cannot specify both --restart and --rm"),
        ("create -v :/x: b", "invalid spec: :/x:: empty section between colons"),
        ("run --no-healthcheck --health-cmd x b", "--no-healthcheck conflicts with --health-* options"),
        ("run --memory-swappiness 101 b", "invalid value: 101. Valid memory swappiness range is 0-100"),
        ("run --pid nosuch b", "--pid: invalid PID mode"),
        ("run --log-driver none --log-opt a=b b", "invalid logging opts for driver none"),
        ("run --network a --network a b", "network \"a\" is specified multiple times"),
    ] {
        assert_eq!(body(line).unwrap_err(), text, "{line}");
    }
}

proptest! {
    #[test]
    fn command_lines_never_panic(words in proptest::collection::vec("(run|ps|create|exec|container|ls|-{1,3}[a-z]{0,3}=?[a-z0-9:=,/.\"]{0,12}|\\PC{0,6})", 0..6)) {
        if let Ok(Request::Run(_, m)) = parse(&words)
            && matches!(m.command.path, "run" | "create")
        {
            let _ = create::request(&m);
        }
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,24}", shaped in "[a-z0-9:/=,.\\-\\[\\]\"]{0,24}") {
        for t in [text.as_str(), shaped.as_str()] {
            let _ = create::mount::parse(t);
            let _ = create::mount::parse_volume(t);
            let _ = create::network::parse(t);
            let _ = create::port::parse(&[t], &[t]);
            let _ = create::device::parse(t);
            let _ = create::device::parse_gpus(t);
            let _ = create::resource::parse_ulimit(t);
            let _ = create::resource::parse_rate(t, true);
            let _ = create::resource::parse_weight(t);
            let _ = crate::reference::parse(t);
            let _ = crate::platform::parse(t);
            let _ = crate::terminal::DetachKeys::parse(t);
            for flag in ["env", "label", "add-host", "dns", "dns-search", "sysctl", "link", "device-cgroup-rule"] {
                let _ = create::check::check("run", flag, t);
            }
        }
    }
}
