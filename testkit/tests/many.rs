//! Many containers and many clients at once; one that hangs blocks nobody.

use std::time::{Duration, Instant};

use testkit::{Daemon, Residue, eventually};

#[test]
fn two_hundred_containers_by_eight_clients_all_run_all_go_and_listing_stays_quick() {
    let daemon = Daemon::with_image();
    daemon.docker(&["run", "-d", "--name", "stuck", "busybox", "sleep", "1000"]).ok();
    let shim = shim_of(&daemon, &daemon.docker(&["inspect", "-f", "{{.Id}}", "stuck"]).ok());
    rustix::process::kill_process(shim, rustix::process::Signal::STOP).expect("the shim is there");
    let done = std::sync::atomic::AtomicBool::new(false);
    let (runs, mut times) = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|client| {
                let daemon = &daemon;
                scope.spawn(move || {
                    for n in 0..25 {
                        let word = format!("{client}-{n}");
                        assert_eq!(daemon.docker(&["run", "--rm", "busybox", "echo", &word]).ok(), word);
                    }
                })
            })
            .collect();
        let lister = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let start = Instant::now();
                let listed = daemon.rest().get("/v1.51/containers/json?all=1");
                times.push(start.elapsed());
                assert_eq!(listed.status, 200);
                std::thread::sleep(Duration::from_millis(5));
            }
            times
        });
        let runs: Vec<_> = runs.into_iter().map(|r| r.join()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (runs, lister.join().expect("the lister"))
    });
    assert!(runs.iter().all(Result::is_ok), "every client's runs are right");
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    println!("{} lists, p50 {:?}, p99 {p99:?}", times.len(), times[times.len() / 2]);
    // The bound is DESIGN's 10 ms on an otherwise idle daemon; here two cores also carry eight clients.
    assert!(p99 < Duration::from_millis(60), "p99 of the list: {p99:?}");
    rustix::process::kill_process(shim, rustix::process::Signal::CONT).expect("the shim is there");
    daemon.docker(&["rm", "-f", "stuck"]).ok();
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
    eventually("nothing is left", || Residue::of_containers(&daemon).is_empty().then_some(()));
}

#[test]
fn a_stopped_shim_is_told_of_in_seconds_and_holds_up_nobody_else() {
    let daemon = Daemon::with_image();
    for name in ["stuck", "fine"] {
        daemon.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let shim = shim_of(&daemon, &daemon.docker(&["inspect", "-f", "{{.Id}}", "stuck"]).ok());
    rustix::process::kill_process(shim, rustix::process::Signal::STOP).expect("the shim is there");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let begun = Instant::now();
            (daemon.docker(&["exec", "stuck", "true"]), begun.elapsed())
        });
        while !waiting.is_finished() {
            let begun = Instant::now();
            assert_eq!(daemon.docker(&["exec", "fine", "echo", "here"]).ok(), "here");
            daemon.docker(&["ps", "-a"]).ok();
            daemon.docker(&["inspect", "stuck"]).ok();
            assert!(begun.elapsed() < Duration::from_secs(10), "the others are as quick as before");
            std::thread::sleep(Duration::from_millis(100));
        }
        let (outcome, took) = waiting.join().expect("no panic");
        assert!(outcome.code != 0 && outcome.text().contains("did not answer Exec"), "{outcome:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    });
    rustix::process::kill_process(shim, rustix::process::Signal::CONT).expect("the shim is there");
    assert_eq!(daemon.docker(&["exec", "stuck", "echo", "again"]).ok(), "again");
    daemon.docker(&["rm", "-f", "stuck", "fine"]).ok();
}

fn shim_of(daemon: &Daemon, id: &str) -> rustix::process::Pid {
    let file = daemon.exec_root().join("tasks").join(id).join("shim.pid");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a pid")
}

/// How many elements a map of the daemon's table has.
fn elements(daemon: &Daemon, map: &str) -> usize {
    let text = daemon.inside("nft", &["list", "map", "inet", daemon.name(), map]).ok();
    // The first is of the type.
    text.matches(" : ").count() - 1
}

#[test]
fn a_thousand_published_ports_of_two_hundred_containers_come_and_go_without_a_stale_rule() {
    if !testkit::vm::wanted("a_thousand_published_ports_of_two_hundred_containers") {
        return;
    }
    let options = testkit::DaemonOptions { own_network: true, ..Default::default() };
    let mut daemon = Daemon::start(options);
    testkit::base_image(&daemon);
    daemon.inside("ip", &["link", "set", "lo", "up"]).ok();
    daemon.docker(&["network", "create", "mp-net"]).ok();
    let rules = |daemon: &Daemon| {
        let all = daemon.inside("nft", &["-s", "list", "table", "inet", daemon.name()]).ok();
        all.lines().filter(|l| !l.contains(" : ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = rules(&daemon);
    let clients = |work: &(dyn Fn(u32) + Sync)| {
        std::thread::scope(|scope| {
            for client in 0..8 {
                scope.spawn(move || (client * 25..client * 25 + 25).for_each(work));
            }
        });
    };
    let start = |daemon: &Daemon| {
        clients(&|n| {
            let first = 20_000 + n * 5;
            // Three by TCP, one by UDP, one on one address; half of them on a network of their own.
            let range = format!("{first}-{}:80-82", first + 2);
            let (udp, one) = (format!("{}:53/udp", first + 3), format!("127.0.0.1:{}:83", first + 4));
            let network = if n % 2 == 0 { "bridge" } else { "mp-net" };
            let line =
                ["run", "-d", "--name", &format!("mp-{n}"), "--network", network, "-p", &range, "-p", &udp, "-p", &one];
            daemon.docker(&[&line[..], &["busybox", "sleep", "1000"]].concat()).ok();
        });
    };
    start(&daemon);
    assert_eq!((elements(&daemon, "port4"), elements(&daemon, "address4")), (800, 200));
    // The next daemon has them all, and a container that came between has its own.
    daemon.kill();
    daemon.launch();
    assert_eq!((elements(&daemon, "port4"), elements(&daemon, "address4")), (800, 200));
    daemon.docker(&["run", "--rm", "-p", "20000:80", "busybox", "true"]).fails(125, "port is already allocated");
    daemon.docker(&["run", "--rm", "-p", "29999:80", "busybox", "true"]).ok();
    clients(&|n| drop(daemon.docker(&["rm", "-f", &format!("mp-{n}")]).ok()));
    assert_eq!((elements(&daemon, "port4"), elements(&daemon, "address4")), (0, 0));
    assert_eq!(rules(&daemon), before, "no rule is stale");
    let links = daemon.inside("ip", &["-o", "link"]).ok();
    eventually("their links are gone", || {
        let links = daemon.inside("ip", &["-o", "link"]).ok();
        (links.matches("veth").count() <= 16).then_some(())
    });
    let flows = daemon.inside("sh", &["-c", "cat /proc/net/nf_conntrack 2>/dev/null | grep -c dport=53"]).text();
    assert!(matches!(flows.trim(), "0" | ""), "{flows} {links}");
    // The same ports again, at once.
    start(&daemon);
    clients(&|n| drop(daemon.docker(&["rm", "-f", &format!("mp-{n}")]).ok()));
    daemon.docker(&["network", "rm", "mp-net"]).ok();
}
