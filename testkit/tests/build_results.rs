//! Where results and cached steps of builds go: registries, several platforms, caches that travel.

use std::path::Path;

use testkit::build::{buildx_command, context, each_session, path};
use testkit::registry::Registry;
use testkit::{Cli, Daemon, DaemonOptions, Outcome};

#[test]
fn an_image_is_pushed_by_the_build_that_makes_it() {
    let registry = Registry::plain();
    each_session(|daemon, way, build| {
        let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo pushed > /f\n")]);
        let (one, two) = (registry.name(&format!("{way}:v1")), registry.name(&format!("{way}:v2")));
        build(&["build", "-t", &one, "--push", path(&folder)]).ok();
        assert!(registry.content().manifests.contains_key(&(way.to_owned(), "v1".to_owned())), "{way}");
        build(&["build", "-o", &format!("type=registry,name={two}"), path(&folder)]).ok();
        assert!(registry.content().manifests.contains_key(&(way.to_owned(), "v2".to_owned())), "{way}");
        daemon.docker(&["image", "rm", &one, &two]).ok();
        assert_eq!(daemon.docker(&["run", "--rm", &one, "cat", "/f"]).ok(), "pushed", "{way}");
        build(&["build", "--push", path(&folder)]).fails(1, "tag is needed when pushing to registry");
    });
}

/// A Dockerfile that needs nothing of its platform but its name.
const PLATFORMS: &[(&str, &str)] = &[
    ("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\nCMD [\"/f\"]\n"),
    ("f-amd64", "for amd64"),
    ("f-arm64", "for arm64"),
];

#[test]
fn several_platforms_become_one_image() {
    let registry = Registry::plain();
    each_session(|daemon, way, build| {
        let folder = context(PLATFORMS);
        let name = registry.name(&format!("multi-{way}:v1"));
        let platforms = "--platform=linux/amd64,linux/arm64";
        build(&["build", platforms, "-t", &name, "--push", path(&folder)]).ok();
        let key = (format!("multi-{way}"), "v1".to_owned());
        let bytes = registry.content().manifests[&key].1.clone();
        let index: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let found: Vec<&str> = index["manifests"]
            .as_array()
            .expect("an index")
            .iter()
            .map(|m| m["platform"]["architecture"].as_str().expect("text"))
            .collect();
        assert_eq!(found, ["amd64", "arm64"], "{way}: {index}");
        let id = daemon.docker(&["image", "inspect", "-f", "{{.Id}} {{.Architecture}}", &name]).ok();
        assert!(id.ends_with(" amd64"), "{way}: {id}");
        let dangling = daemon.docker(&["images", "-q", "-f", "dangling=true"]).ok();
        assert_eq!(dangling, "", "{way}: the parts are no images of their own");
        let out = tempfile::tempdir().expect("folder");
        build(&["build", platforms, "-o", path(&out), path(&folder)]).ok();
        for arch in ["amd64", "arm64"] {
            let text = std::fs::read_to_string(out.path().join(format!("linux_{arch}/f"))).expect("reads");
            assert_eq!(text, format!("for {arch}"), "{way}");
        }
        let file = out.path().join("oci.tar");
        let wanted = format!("type=oci,dest={}", file.display());
        build(&["build", platforms, "-t", "loaded:v1", "-o", &wanted, path(&folder)]).ok();
        let said = daemon.docker(&["load", "-i", file.to_str().expect("text")]).ok();
        assert!(said.contains("loaded:v1"), "{way}: {said}");
        let wanted = format!("type=docker,dest={}", file.display());
        let refused = build(&["build", platforms, "-o", &wanted, path(&folder)]);
        refused.fails(1, "support exporting manifest lists");
    });
}

/// Builds on a daemon by our command or by buildx; `None` where that is not installed.
fn by(way: &str, daemon: &Daemon, arguments: &[&str]) -> Option<Outcome> {
    let mut words = vec!["build", "--progress=plain"];
    words.extend(arguments);
    match way {
        "ours" => Some(daemon.run(Cli::Ours, &words)),
        _ => buildx_command(daemon, &words).map(testkit::run),
    }
}

/// A daemon that has the base image of another, and nothing else.
fn second(first: &Daemon, place: &Path) -> Daemon {
    let file = place.join("base.tar");
    let file = file.to_str().expect("text");
    first.docker(&["save", "-o", file, "busybox"]).ok();
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.docker(&["load", "-i", file]).ok();
    daemon
}

/// Builds on one daemon, exports the cache, and builds on another, whose steps must come from it.
fn travels(way: &str, to: &str, from: &str, place: &Path) {
    let first = Daemon::with_image();
    let second = second(&first, place);
    let folder = context(&[
        (
            "Dockerfile",
            "FROM busybox AS tools\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /tool\n\
             FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /one\nCOPY --from=tools /tool /two\nRUN cat /one /two > /three\n",
        ),
        ("a", "1"),
    ]);
    let Some(done) = by(way, &first, &["--cache-to", to, "-t", "made", path(&folder)]) else { return };
    done.ok();
    let made = first.docker(&["run", "--rm", "made", "cat", "/three"]).ok();
    let done = by(way, &second, &["--cache-from", from, "-t", "made", path(&folder)]).expect("it is there");
    done.ok();
    assert_eq!(second.docker(&["run", "--rm", "made", "cat", "/three"]).ok(), made, "{way}: {}", done.stderr);
    // Steps of stages that are in no image come along as well (mode=max).
    let tools = ["--cache-from", from, "--target", "tools", "-t", "tools", path(&folder)];
    by(way, &second, &tools).expect("it is there").ok();
    let tool = second.docker(&["run", "--rm", "tools", "cat", "/tool"]).ok();
    assert!(made.ends_with(&tool), "{way}: {made} {tool}");
    // What differs is made.
    std::fs::write(folder.path().join("a"), "2").expect("written");
    by(way, &second, &tools).expect("it is there").ok();
    assert_ne!(second.docker(&["run", "--rm", "tools", "cat", "/tool"]).ok(), tool, "{way}");
}

#[test]
fn cached_steps_travel_in_a_folder() {
    for way in ["ours", "buildx"] {
        let place = tempfile::tempdir().expect("folder");
        let cache = place.path().join("cache");
        let to = format!("type=local,dest={},mode=max", cache.display());
        let from = format!("type=local,src={}", cache.display());
        travels(way, &to, &from, place.path());
        let left = std::fs::read_dir(cache.join("ingest")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{way}: drafts are left");
    }
}

#[test]
fn cached_steps_travel_by_a_registry() {
    for way in ["ours", "buildx"] {
        let place = tempfile::tempdir().expect("folder");
        let registry = Registry::plain();
        let name = registry.name("cache:v1");
        travels(way, &format!("type=registry,ref={name},mode=max"), &format!("type=registry,ref={name}"), place.path());
    }
}

#[test]
fn cached_steps_travel_in_the_image_itself() {
    for way in ["ours", "buildx"] {
        let place = tempfile::tempdir().expect("folder");
        let registry = Registry::plain();
        let first = Daemon::with_image();
        let second = second(&first, place.path());
        let uuid = "cat /proc/sys/kernel/random/uuid";
        let file = format!("FROM busybox\nCOPY a /a\nRUN {uuid} > /one\nRUN {uuid} > /two\n");
        let folder = context(&[("Dockerfile", &file), ("a", "1")]);
        let name = registry.name("inline:v1");
        let Some(done) = by(way, &first, &["--cache-to", "type=inline", "-t", &name, "--push", path(&folder)]) else {
            continue;
        };
        done.ok();
        let read = |daemon: &Daemon, name: &str| daemon.docker(&["run", "--rm", name, "cat", "/one", "/two"]).ok();
        let made = read(&first, &name);
        // Same image again, with it in: its own digest does not change.
        let id = |daemon: &Daemon| daemon.docker(&["image", "inspect", "-f", "{{.Id}}", &name]).ok();
        let before = id(&first);
        by(way, &first, &["--cache-to", "type=inline", "-t", &name, "--push", path(&folder)]).expect("there").ok();
        assert_eq!(id(&first), before, "{way}");
        let from = format!("type=registry,ref={name}");
        let done = by(way, &second, &["--cache-from", &from, "-t", "again", path(&folder)]).expect("it is there");
        done.ok();
        assert_eq!(read(&second, "again"), made, "{way}: {}", done.stderr);
        // Only what is upon a change is made, and an image without it has none to give.
        std::fs::write(folder.path().join("Dockerfile"), format!("{file}RUN {uuid} > /three\n")).expect("written");
        by(way, &second, &["--cache-from", &from, "-t", "more", path(&folder)]).expect("it is there").ok();
        assert_eq!(read(&second, "more"), made, "{way}");
        let plain = registry.name("plain:v1");
        by(way, &second, &["-t", &plain, "--push", path(&folder)]).expect("it is there").ok();
        let from = format!("type=registry,ref={plain}");
        let done = by(way, &first, &["--cache-from", &from, path(&folder)]).expect("it is there");
        assert!(done.stderr.contains("no cache configuration in the manifest"), "{way}: {}", done.stderr);
        // A local image is asked before a registry is.
        second.docker(&["image", "rm", "-f", "again", "more", &plain]).ok();
        second.docker(&["builder", "prune", "-af"]).ok();
        second.docker(&["pull", &name]).ok();
        drop(registry);
        let from = format!("type=registry,ref={name}");
        let done = by(way, &second, &["--cache-from", &from, "-t", "local", path(&folder)]).expect("it is there");
        done.ok();
        assert_eq!(read(&second, "local"), made, "{way}: {}", done.stderr);
    }
}

#[test]
fn buildx_shows_what_the_cache_holds_and_takes_away_what_fits() {
    let daemon = Daemon::with_image();
    let folder = context(&[(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 > /c/f\nRUN echo two > /two\n",
    )]);
    daemon.docker(&["build", path(&folder)]).ok();
    let ask = |words: &[&str]| Some(testkit::run(buildx_command(&daemon, words)?).ok());
    let Some(all) = ask(&["du", "--verbose"]) else { return };
    assert!(all.contains("exec.cachemount") && all.contains("RUN echo two"), "{all}");
    let mounts = ask(&["du", "--verbose", "--filter", "type=exec.cachemount"]).expect("there");
    assert!(mounts.contains("exec.cachemount") && !mounts.contains("RUN echo two"), "{mounts}");
    let none = ask(&["du", "--filter", "id=nosuch"]).expect("there");
    assert!(!none.contains("Reclaimable:\t1") && !none.contains("RUN"), "{none}");
    ask(&["prune", "-f", "--filter", "until=24h"]);
    assert_eq!(ask(&["du", "--verbose"]).expect("there").matches("ID:").count(), all.matches("ID:").count());
    ask(&["prune", "-f", "--filter", "type=exec.cachemount"]);
    let left = ask(&["du", "--verbose"]).expect("there");
    assert!(!left.contains("exec.cachemount") && left.contains("RUN echo two"), "{left}");
    ask(&["prune", "-af"]);
    let left = ask(&["du", "--verbose"]).expect("there");
    assert!(!left.contains("RUN echo two"), "{left}");
}

#[test]
fn the_same_inputs_give_the_same_image_from_two_data_roots() {
    let place = tempfile::tempdir().expect("folder");
    let first = Daemon::with_image();
    let second = second(&first, place.path());
    let file = "FROM busybox AS one\nWORKDIR /w\nCOPY b a ./\nRUN mkdir d && echo x > d/y && touch z && rm /w/a\n\
                FROM busybox\nCOPY --from=one /w /w\nRUN adduser -D me || true; echo more >> /w/d/y\nENV A=1\n";
    let base = first.docker(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", "busybox"]).ok();
    let base = base.trim_end_matches(']').to_owned();
    for way in ["ours", "buildx"] {
        let build = |daemon: &Daemon, order: &[&str], flags: &[&str]| {
            let folder = context(&[("Dockerfile", file)]);
            // Made in another order, at another time.
            for name in order {
                std::fs::write(folder.path().join(name), name).expect("written");
            }
            let mut words = vec!["--no-cache"];
            words.extend(flags);
            words.push(path(&folder));
            let done = by(way, daemon, &words)?;
            done.ok();
            let shown = "{{.Id}} {{.Created}} {{json .RootFS.Layers}}";
            Some(daemon.docker(&["image", "inspect", "-f", shown, "same"]).ok())
        };
        let output =
            ["-o", "type=image,name=same,rewrite-timestamp=true", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
        let Some(one) = build(&first, &["a", "b"], &output) else { continue };
        let two = build(&second, &["b", "a"], &output).expect("it is there");
        assert_eq!(one, two, "{way}");
        assert!(one.contains(" 2023-11-14T22:13:20Z "), "{way}: {one}");
        assert!(one.contains(&base), "{way}: the base's layers are as they were: {one}");
        let late = first.docker(&["run", "--rm", "same", "sh", "-c", "stat -c %Y /w/d/y /w /w/z | sort -u"]).ok();
        assert_eq!(late, "1700000000", "{way}");
        // Without it every build has its own times.
        let plain = ["-t", "same"];
        assert_ne!(build(&first, &["a", "b"], &plain), build(&second, &["a", "b"], &plain), "{way}");
        if way == "ours" {
            let flags = ["-t", "same", "--reproducible"];
            let one = build(&first, &["a", "b"], &flags).expect("ours");
            assert_eq!(build(&second, &["b", "a"], &flags).expect("ours"), one);
            assert!(one.contains(" 1970-01-01T00:00:00Z "), "{one}");
        }
        let wrong = ["--build-arg", "SOURCE_DATE_EPOCH=yesterday", path(&place)];
        by(way, &first, &wrong).expect("it is there").fails(1, "invalid SOURCE_DATE_EPOCH: yesterday");
    }
}

#[test]
fn cache_mounts_travel() {
    let place = tempfile::tempdir().expect("folder");
    let registry = Registry::plain();
    let cache = place.path().join("mounts");
    let dest = format!("type=mounts,dest={}", cache.display());
    let src = format!("type=mounts,src={}", cache.display());
    let name = format!("type=mounts,ref={}", registry.name("mounts:v1"));
    let first = Daemon::with_image();
    let file = |mark: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,id=a,target=/c echo {mark} >> /c/list; cp /c/list /list\n\
             RUN --mount=type=cache,target=/d,uid=7,mode=0700 touch /d/{mark}; ls /d > /names; stat -c '%u %a' /d >> /names\n"
        )
    };
    let folder = context(&[("Dockerfile", &file("one"))]);
    first.docker(&["build", "--cache-to", &dest, path(&folder)]).ok();
    // Cached steps have their mounts all the same.
    first.docker(&["build", "--cache-to", &name, path(&folder)]).ok();
    std::fs::write(folder.path().join("Dockerfile"), file("two")).expect("written");
    for from in [&src, &name] {
        let second = second(&first, place.path());
        let done = second.docker(&["build", "--cache-from", from, "-t", "made", path(&folder)]);
        done.ok();
        let list = second.docker(&["run", "--rm", "made", "cat", "/list", "/names"]).ok();
        assert_eq!(
            list.split_whitespace().collect::<Vec<_>>(),
            ["one", "two", "one", "two", "7", "700"],
            "{from}: {}",
            done.stderr
        );
        // What is here already stays.
        second.docker(&["build", "--no-cache", "--cache-from", from, "-t", "made", path(&folder)]).ok();
        let list = second.docker(&["run", "--rm", "made", "cat", "/list"]).ok();
        assert_eq!(list.split_whitespace().collect::<Vec<_>>(), ["one", "two", "two"], "{from}");
    }
    first.docker(&["build", "--cache-to", "type=mounts", path(&folder)]).fails(1, "mounts cache requires a dest");
}

#[test]
fn a_cache_that_is_damaged_or_unknown_is_left_out() {
    let place = tempfile::tempdir().expect("folder");
    let cache = place.path().join("cache");
    let first = Daemon::with_image();
    let second = second(&first, place.path());
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo made > /f\n")]);
    let to = format!("type=local,dest={},mode=max", cache.display());
    first.docker(&["build", "--cache-to", &to, path(&folder)]).ok();
    for blob in std::fs::read_dir(cache.join("blobs/sha256")).expect("reads") {
        let file = blob.expect("entry").path();
        let mut bytes = std::fs::read(&file).expect("reads");
        // Layers are changed, and what tells of them is not.
        if !bytes.starts_with(b"{") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&file, bytes).expect("written");
        }
    }
    let from = format!("type=local,src={}", cache.display());
    second.docker(&["build", "-t", "after", "--cache-from", &from, path(&folder)]).ok();
    assert_eq!(second.docker(&["run", "--rm", "after", "cat", "/f"]).ok(), "made");
    let none = second.docker(&["build", "--cache-from", "type=local,src=/no/such", path(&folder)]);
    assert!(none.stderr.contains("local cache import at /no/such not found"), "{}", none.stderr);
    none.ok();
    second
        .docker(&["build", "--cache-to", "type=nosuch", path(&folder)])
        .fails(1, "cache exporter \"nosuch\" is not supported");
    second.docker(&["build", "--cache-to", "type=local", path(&folder)]).fails(1, "local cache requires a dest");
}

#[test]
fn steps_that_want_the_same_locked_folders_do_not_wait_for_each_other_forever() {
    let daemon = Daemon::with_image();
    let mount = |id: &str, at: &str| format!("--mount=type=cache,sharing=locked,id={id},target=/{at}");
    let run = |mounts: &[String], mark: &str| {
        format!("RUN {} test ! -e /one/busy; touch /one/busy; sleep 0.2; rm /one/busy; echo {mark}\n", mounts.join(" "))
    };
    // One order in one build, the other in another; and one folder twice in one step.
    let ahead = [mount("x", "one"), mount("y", "two")];
    let back = [mount("y", "two"), mount("x", "one")];
    let twice = [mount("x", "one"), mount("x", "again")];
    let folders: Vec<_> = (0..6)
        .map(|n| {
            let mounts = [&ahead, &back, &twice][n % 3];
            context(&[("Dockerfile", &format!("FROM busybox\n{}", run(mounts, &n.to_string())))])
        })
        .collect();
    std::thread::scope(|scope| {
        let builds: Vec<_> =
            folders.iter().map(|f| scope.spawn(|| daemon.docker(&["build", "--no-cache", path(f)]))).collect();
        for build in builds {
            build.join().expect("ended").ok();
        }
    });
}
