//! Front ends that come as images (`# syntax=`): one of our own, written against the gateway protocol, by our command,
//! by buildx and by the classic door.

use std::path::Path;

use testkit::build::{context, each_way, path};
use testkit::registry::Registry;
use testkit::{Daemon, Outcome};

/// Makes the front end's image, with these labels.
fn front_end(daemon: &Daemon, name: &str, labels: &str) {
    let file = format!("FROM scratch\nCOPY frontend /frontend\nENTRYPOINT [\"/frontend\"]\n{labels}");
    let folder = context(&[("Dockerfile", &file)]);
    std::fs::copy(env!("CARGO_BIN_EXE_frontend"), folder.path().join("frontend")).expect("copied");
    daemon.docker(&["build", "-t", name, path(&folder)]).ok();
}

const LABELS: &str = "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.subrequests,moby.buildkit.frontend.inputs\n\
                      LABEL moby.buildkit.frontend.network.none=true\n";

fn said(outcome: &Outcome) -> String {
    format!("{}{}", outcome.text(), outcome.stderr)
}

#[test]
fn an_image_is_built_by_a_front_end_that_comes_as_an_image() {
    each_way(|daemon, way, build| {
        front_end(daemon, "recipe", LABELS);
        let folder = context(&[
            (
                "Dockerfile",
                "# syntax=recipe\nbase busybox\nrun echo made > /made\nholds /made made\nlists /bin sh\n\
                 copy sub/f /there\nrun cat /there >> /made\nlabel word $WORD\n",
            ),
            ("sub/f", "from the context"),
        ]);
        let name = format!("cooked-{way}");
        build(&["build", "-t", &name, "--build-arg", "WORD=given", path(&folder)]).ok();
        let text = daemon.docker(&["run", "--rm", &name, "cat", "/made"]).ok();
        assert_eq!(text, "made\nfrom the context", "{way}");
        let label = daemon.docker(&["image", "inspect", "-f", "{{.Config.Labels.word}}", &name]).ok();
        assert_eq!(label, "given", "{way}");
        // What it has made is cached as anything is.
        let first = daemon.docker(&["image", "inspect", "-f", "{{.RootFS.Layers}}", &name]).ok();
        build(&["build", "-t", &name, "--build-arg", "WORD=given", path(&folder)]).ok();
        assert_eq!(daemon.docker(&["image", "inspect", "-f", "{{.RootFS.Layers}}", &name]).ok(), first, "{way}");
        // It may hand on to the front end for Dockerfiles, and its own line does not lead back to it.
        let file = "# syntax=recipe\ndockerfile # syntax=recipe;FROM busybox;COPY sub/f /f;CMD cat /f\n";
        std::fs::write(folder.path().join("Dockerfile"), file).expect("written");
        build(&["build", "-t", &name, path(&folder)]).ok();
        assert_eq!(daemon.docker(&["run", "--rm", &name]).ok(), "from the context", "{way}");
        // One without files.
        std::fs::write(folder.path().join("Dockerfile"), "# syntax=recipe\nlabel only this\n").expect("written");
        build(&["build", "-t", &name, path(&folder)]).ok();
        let layers = daemon.docker(&["image", "inspect", "-f", "{{json .RootFS}} {{.Config.Labels}}", &name]).ok();
        assert!(!layers.contains("sha256") && layers.ends_with(" map[only:this]"), "{way}: {layers}");
    });
}

#[test]
fn a_front_end_that_fails_fails_the_build_in_its_own_words() {
    each_way(|daemon, way, build| {
        front_end(daemon, "recipe", LABELS);
        for (line, text) in [
            ("fail in my own words", "in my own words"),
            // Where it stands, which only sessions are told.
            ("fail there", if way == "classic" { "there" } else { "1 | >>> # syntax=recipe" }),
            ("die 7", "process \"/frontend\" did not complete successfully: exit code: 7"),
            ("die 0", "no result for incomplete build"),
            ("base busybox\nrun exit 9", "did not complete successfully: exit code: 9"),
            ("base nosuch.invalid/image", "nosuch.invalid"),
        ] {
            let folder = context(&[("Dockerfile", &format!("# syntax=recipe\n{line}\n"))]);
            let done = build(&["build", path(&folder)]);
            assert!(done.code != 0 && said(&done).contains(text), "{way} {line}: {}", said(&done));
        }
        let folder = context(&[("Dockerfile", "# syntax=127.0.0.1:1/nosuch\n")]);
        let done = build(&["build", path(&folder)]);
        assert!(
            done.code != 0 && said(&done).contains("failed to resolve source metadata for"),
            "{way}: {}",
            said(&done)
        );
        let steps = daemon.exec_root().join("steps");
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("reads");
        assert!(!table.contains(&format!("{}/", steps.display())), "{way}: mounts are left");
        assert_eq!(std::fs::read_dir(&steps).map_or(0, Iterator::count), 0, "{way}: folders are left");
    });
}

#[test]
fn a_front_end_is_asked_only_for_what_it_says_it_can_do() {
    testkit::build::each_session(|daemon, way, build| {
        front_end(daemon, "recipe", LABELS);
        let folder = context(&[("Dockerfile", "# syntax=recipe\nbase busybox\n")]);
        front_end(daemon, "plain", "");
        let syntax = "BUILDKIT_SYNTAX=plain";
        // Our own command asks a front end for nothing but builds.
        if way == "buildx" {
            let done = build(&["build", "--call=outline", path(&folder)]);
            assert!(said(&done).contains("asked-of-the-recipe"), "{way}: {}", said(&done));
            let done = build(&["build", "--call=outline", "--build-arg", syntax, path(&folder)]);
            let lacks = "unsupported frontend capability moby.buildkit.frontend.subrequests";
            assert!(done.code != 0 && said(&done).contains(lacks), "{way}: {}", said(&done));
        }
        build(&["build", "--build-arg", syntax, path(&folder)]).ok();
    });
}

#[test]
fn a_front_end_makes_images_of_several_platforms_and_comes_from_a_registry() {
    let registry = Registry::plain();
    testkit::build::each_session(|daemon, way, build| {
        let image = registry.name(&format!("recipe-{way}:1"));
        front_end(daemon, &image, LABELS);
        daemon.docker(&["push", &image]).ok();
        daemon.docker(&["image", "rm", "-f", &image]).ok();
        let file = format!("# syntax={image}\nbase busybox\nrun echo $PLATFORM > /platform\n");
        let folder = context(&[("Dockerfile", &file)]);
        let out = tempfile::tempdir().expect("folder");
        let words = ["build", "--platform=linux/amd64,linux/arm64", "-o", path(&out), path(&folder)];
        build(&words).ok();
        for platform in ["linux/amd64", "linux/arm64"] {
            let file = out.path().join(platform.replace('/', "_")).join("platform");
            assert_eq!(std::fs::read_to_string(file).expect("reads").trim(), platform, "{way}");
        }
    });
}

#[test]
fn dockers_own_front_end_is_built_in_and_not_fetched() {
    each_way(|daemon, way, build| {
        for line in
            ["docker/dockerfile:1", "docker.io/docker/dockerfile:1.19-labs", "docker/dockerfile-upstream:master"]
        {
            let folder = context(&[("Dockerfile", &format!("# syntax={line}\nFROM busybox\nRUN true\n"))]);
            build(&["build", "-t", "own", path(&folder)]).ok();
        }
        assert!(!daemon.docker(&["images"]).ok().contains("docker/dockerfile"), "{way}");
        assert!(Path::new(&daemon.data_root()).exists());
    });
}
