//! What `docker build` is asked for on its command line: results, secrets, agents, limits, progress. By our own command
//! through a session, and by buildx where it is installed; both ask the same daemon.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use testkit::build::{context, each_session, path};
use testkit::{Cli, Daemon, Session, eventually};

fn names_of_tar(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let names = archive.entries().expect("an archive").map(|e| {
        e.expect("entry")
            .path()
            .expect("path")
            .to_string_lossy()
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned()
    });
    names.filter(|n| !n.is_empty()).collect()
}

#[test]
fn results_go_into_folders_archives_and_image_archives() {
    each_session(|daemon, way, build| {
        let folder =
            context(&[("Dockerfile", "FROM scratch\nCOPY tree /\n"), ("tree/a/b", "content"), ("tree/x", "2")]);
        std::fs::set_permissions(folder.path().join("tree/x"), PermissionsExt::from_mode(0o750)).expect("set");
        std::os::unix::fs::symlink("/etc", folder.path().join("tree/out")).expect("linked");
        let out = tempfile::tempdir().expect("folder");
        let at = |name: &str| out.path().join(name).to_string_lossy().into_owned();
        // A link of that name which is there already is replaced, not followed.
        std::fs::create_dir(at("elsewhere")).expect("made");
        std::fs::create_dir(at("local")).expect("made");
        std::os::unix::fs::symlink("../elsewhere", at("local/a")).expect("linked");
        std::fs::write(at("local/stays"), "s").expect("written");
        build(&["build", "-o", &at("local"), path(&folder)]).ok();
        assert_eq!(std::fs::read_to_string(at("local/a/b")).expect("reads"), "content", "{way}");
        assert_eq!(std::fs::metadata(at("local/x")).expect("there").permissions().mode() & 0o7777, 0o750, "{way}");
        assert_eq!(std::fs::read_link(at("local/out")).expect("a link"), Path::new("/etc"), "{way}");
        assert!(std::fs::read_dir(at("elsewhere")).expect("reads").next().is_none(), "{way}: a link was followed");
        assert!(Path::new(&at("local/stays")).exists(), "{way}");
        let tar = build(&["build", "-o", "-", path(&folder)]);
        tar.ok();
        assert_eq!(names_of_tar(&tar.stdout), ["a", "a/b", "out", "x"], "{way}");
        build(&["build", "-o", &format!("type=tar,dest={}", at("t.tar")), path(&folder)]).ok();
        assert_eq!(names_of_tar(&std::fs::read(at("t.tar")).expect("reads")), ["a", "a/b", "out", "x"], "{way}");
        for kind in ["docker", "oci"] {
            let (file, name) = (at(&format!("{kind}.tar")), format!("{kind}-{way}:v1"));
            build(&["build", "-t", &name, "-o", &format!("type={kind},dest={file}"), path(&folder)]).ok();
            assert_ne!(daemon.docker(&["image", "inspect", &name]).code, 0, "{way}: not here before it is loaded");
            let said = daemon.docker(&["load", "-i", &file]).ok();
            assert!(said.contains(&name), "{way}: {said}");
            assert!(names_of_tar(&std::fs::read(&file).expect("reads")).contains(&"oci-layout".to_owned()));
        }
        assert_ne!(build(&["build", "-o", "type=nosuch", path(&folder)]).code, 0, "{way}");
        build(&["build", "-o", "type=local", path(&folder)]).fails(1, "dest is required for local");
    });
}

#[test]
fn files_tell_the_image_and_what_came_of_the_build() {
    each_session(|daemon, way, build| {
        let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /one\n")]);
        let out = tempfile::tempdir().expect("folder");
        let (id, facts) = (out.path().join("id"), out.path().join("facts"));
        let name = format!("told-{way}");
        let (iid, meta) = (id.to_str().expect("text"), facts.to_str().expect("text"));
        build(&["build", "-t", &name, "--iidfile", iid, "--metadata-file", meta, path(&folder)]).ok();
        let image = std::fs::read_to_string(&id).expect("reads");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&facts).expect("reads")).expect("JSON");
        let here = daemon.docker(&["image", "inspect", "-f", "{{.Id}}", &name]).ok();
        assert_eq!(json["containerimage.digest"], here.as_str(), "{way}");
        assert_eq!(json["containerimage.descriptor"]["digest"], here.as_str(), "{way}");
        assert_eq!(json["image.name"], format!("docker.io/library/{name}:latest"), "{way}");
        assert_eq!(daemon.docker(&["run", "--rm", &image, "cat", "/one"]).ok(), "1", "{way}");
        let quiet = build(&["build", "-q", path(&folder)]);
        assert_eq!(daemon.docker(&["run", "--rm", &quiet.ok(), "cat", "/one"]).ok(), "1", "{way}");
    });
}

#[test]
fn secrets_reach_their_step_and_nothing_else() {
    each_session(|daemon, way, build| {
        let folder = context(&[(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=secret,id=file cp /run/secrets/file /tmp/x && wc -c < /tmp/x > /size && rm /tmp/x\n\
             RUN --mount=type=secret,id=var,env=VAR test ${#VAR} -eq 11\n\
             RUN --mount=type=secret,id=optional test ! -e /run/secrets/optional\n",
        )]);
        let place = tempfile::tempdir().expect("folder");
        let file = place.path().join("secret");
        std::fs::write(&file, "hunter2-file").expect("written");
        let source = format!("id=file,src={}", file.display());
        let name = format!("secret-{way}");
        // The variable comes from the command's own surroundings, which a test cannot set for itself alone.
        let variable = place.path().join("var");
        std::fs::write(&variable, "hunter2-env").expect("written");
        let second = format!("id=var,src={}", variable.display());
        build(&["build", "-t", &name, "--secret", &source, "--secret", &second, path(&folder)]).ok();
        assert_eq!(daemon.docker(&["run", "--rm", &name, "cat", "/size"]).ok(), "12", "{way}");
        let saved = daemon.docker(&["save", &name]);
        let bytes = saved.stdout.windows(8).any(|w| w == b"hunter2-");
        assert!(!bytes, "{way}: a secret is in the image");
        let history = daemon.docker(&["history", "--no-trunc", &name]).ok();
        assert!(!history.contains("hunter2"), "{way}: {history}");
        let needs = "FROM busybox\nRUN --mount=type=secret,id=nosuch,required true\n";
        std::fs::write(folder.path().join("Dockerfile"), needs).expect("written");
        build(&["build", path(&folder)]).fails(1, "secret nosuch: not found");
    });
}

#[test]
fn a_secret_may_be_a_variable_of_the_command() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=S cat /run/secrets/S > /copy\n")]);
    for (flag, image) in [("id=S,env=MY_SECRET", "by-name"), ("type=env,id=S,src=MY_SECRET", "by-type")] {
        let mut command =
            daemon.client(Cli::Ours, &["build", "--no-cache", "-t", image, "--secret", flag, path(&folder)]);
        testkit::run({
            command.env("MY_SECRET", "from outside");
            command
        })
        .ok();
        assert_eq!(daemon.docker(&["run", "--rm", image, "cat", "/copy"]).ok(), "from outside");
    }
    daemon.docker(&["build", "--secret", "src=x", path(&folder)]).fails(1, "secret missing id");
    daemon.docker(&["build", "--secret", "id=x,src=/no/such", path(&folder)]).fails(1, "failed to stat /no/such");
    daemon.docker(&["build", "--secret", "plain", path(&folder)]).fails(1, "must be a key=value pair");
}

#[test]
fn an_agent_is_reached_from_its_step() {
    let place = tempfile::tempdir().expect("folder");
    let socket = place.path().join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    // Keeps the socket open; the protocol of agents is not ours to know.
    let flag = format!("mine={}", socket.display());
    each_session(|_, way, build| {
        let folder = context(&[(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=ssh,id=mine test -S \"$SSH_AUTH_SOCK\"\n\
             RUN --mount=type=ssh,id=other test -z \"$SSH_AUTH_SOCK\" || test ! -S \"$SSH_AUTH_SOCK\"\n",
        )]);
        build(&["build", "--ssh", &flag, path(&folder)]).ok();
        let needs = "FROM busybox\nRUN --mount=type=ssh,required true\n";
        std::fs::write(folder.path().join("Dockerfile"), needs).expect("written");
        let said = build(&["build", "--ssh", &flag, path(&folder)]);
        assert!(said.code != 0 && said.stderr.contains("unset ssh forward key default"), "{way}: {}", said.stderr);
    });
    drop(listener);
}

#[test]
fn steps_have_the_limits_and_names_that_were_asked_for() {
    each_session(|daemon, way, build| {
        let folder = context(&[(
            "Dockerfile",
            "FROM busybox\nARG A\nARG B=default\nRUN grep -q '10.1.2.3.*there' /etc/hosts && ulimit -n > /n && \
             df -k /dev/shm | tail -n1 | awk '{print $2}' > /shm && echo \"$A $B\" > /args\n\
             FROM scratch AS last\nCOPY --from=0 /n /shm /args /\nCOPY --from=other f /f\n",
        )]);
        let other = context(&[("f", "from elsewhere")]);
        let name = format!("limits-{way}");
        let out = tempfile::tempdir().expect("folder");
        let named = format!("other={}", path(&other));
        let words = [
            "build",
            "-t",
            &name,
            "--add-host",
            "there:10.1.2.3",
            "--ulimit",
            "nofile=321:654",
            "--shm-size",
            "3m",
            "--build-arg",
            "A=given",
            "--label",
            "l=v",
            "--target",
            "last",
            "--build-context",
            &named,
            "-o",
            path(&out),
            path(&folder),
        ];
        build(&words).ok();
        let read = |name: &str| std::fs::read_to_string(out.path().join(name)).expect("reads");
        assert_eq!(read("n").trim(), "321", "{way}");
        assert_eq!(read("shm").trim(), "3072", "{way}");
        assert_eq!(read("args").trim(), "given default", "{way}");
        assert_eq!(read("f"), "from elsewhere", "{way}");
        let none = context(&[("Dockerfile", "FROM busybox\nRUN test \"$(ls /sys/class/net)\" = lo\n")]);
        build(&["build", "--network", "none", path(&none)]).ok();
        build(&["build", "--network", "nosuch", path(&none)])
            .fails(1, "network mode \"nosuch\" not supported by buildkit");
        let labels = build(&["build", "-q", "--label", "l=v", path(&none), "--network=none"]).ok();
        let inspect = daemon.docker(&["image", "inspect", "-f", "{{json .Config.Labels}}", &labels]).ok();
        assert_eq!(inspect, "{\"l\":\"v\"}", "{way}");
    });
}

#[test]
fn stages_named_are_made_anew() {
    each_session(|_, way, build| {
        let folder = context(&[(
            "Dockerfile",
            "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /a\nFROM busybox AS two\nRUN cat /proc/sys/kernel/random/uuid > /b\n\
             FROM scratch\nCOPY --from=one /a /\nCOPY --from=two /b /\n",
        )]);
        let made = |flags: &[&str]| {
            let out = tempfile::tempdir().expect("folder");
            let mut words = vec!["build", "-o", path(&out)];
            words.extend(flags);
            words.push(path(&folder));
            build(&words).ok();
            ["a", "b"].map(|f| std::fs::read_to_string(out.path().join(f)).expect("reads"))
        };
        let first = made(&[]);
        assert_eq!(made(&[]), first, "{way}");
        let again = made(&["--no-cache-filter", "two"]);
        assert!(again[0] == first[0] && again[1] != first[1], "{way}");
        let anew = made(&["--no-cache"]);
        assert!(anew[0] != again[0] && anew[1] != again[1], "{way}");
    });
}

#[test]
fn a_dockerfile_may_come_by_standard_input() {
    let daemon = Daemon::with_image();
    let folder = context(&[("f", "in the context")]);
    let feed = |arguments: &[&str], text: &[u8]| {
        let mut session = Session::start(daemon.client(Cli::Ours, arguments));
        session.send(text);
        session.end_input();
        session.finish()
    };
    feed(&["build", "-t", "alone", "-"], b"FROM busybox\nRUN echo alone > /f\n").ok();
    assert_eq!(daemon.docker(&["run", "--rm", "alone", "cat", "/f"]).ok(), "alone");
    feed(&["build", "-t", "with", "-f", "-", path(&folder)], b"FROM busybox\nCOPY f /f\n").ok();
    assert_eq!(daemon.docker(&["run", "--rm", "with", "cat", "/f"]).ok(), "in the context");
    let mut archive = tar::Builder::new(Vec::new());
    let text = b"FROM busybox\nCOPY Dockerfile /f\n";
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", &text[..]).expect("packed");
    let archive = archive.into_inner().expect("packed");
    feed(&["build", "-t", "packed", "-"], &archive).ok();
    assert_eq!(daemon.docker(&["run", "--rm", "packed", "cat", "/f"]).ok(), "FROM busybox\nCOPY Dockerfile /f");
    feed(&["build", "--secret", "id=x,env=PATH", "-"], &archive).fails(1, "requires BuildKit");
}

#[test]
fn progress_is_told_as_lines_as_json_or_not_at_all() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo out; echo err >&2\n")]);
    let plain = daemon.docker(&["build", "--progress", "plain", path(&folder)]);
    let text = plain.stderr.clone();
    plain.ok();
    assert!(text.contains("#1 [internal] load build definition from Dockerfile\n#1 transferring"), "{text}");
    assert!(text.contains("] RUN echo out; echo err >&2\n"), "{text}");
    assert!(text.lines().any(|l| l.starts_with('#') && l.ends_with(" out")), "{text}");
    assert!(text.lines().any(|l| l.starts_with('#') && l.ends_with(" err")), "{text}");
    assert!(text.lines().any(|l| l.starts_with('#') && l.ends_with("s") && l.contains(" DONE ")), "{text}");
    let again = daemon.docker(&["build", "--progress=plain", path(&folder)]).stderr;
    assert!(again.lines().any(|l| l.ends_with(" CACHED")), "{again}");
    let json = daemon.docker(&["build", "--no-cache", "--progress", "rawjson", path(&folder)]).stderr;
    let events: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
    assert!(events.iter().any(|e| e["logs"][0]["data"].as_str().is_some_and(|d| d.starts_with("b3V0"))), "{json}");
    let quiet = daemon.docker(&["build", "--progress", "quiet", path(&folder)]);
    assert_eq!((quiet.ok(), quiet.stderr.as_str()), (String::new(), ""));
    daemon.docker(&["build", "--progress", "nosuch", path(&folder)]).fails(1, "invalid progress mode nosuch");
    daemon.docker(&["build", "--progress", "tty", path(&folder)]).fails(1, "provided file is not a console");
}

#[test]
fn a_failure_shows_its_output_and_its_place() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo before; exit 7\nRUN true\n")]);
    let said = daemon.docker(&["build", path(&folder)]);
    said.fails(1, "ERROR: failed to build: failed to solve: process \"/bin/sh -c echo before; exit 7\" did not complete successfully: exit code: 7");
    assert!(said.stderr.contains("------\n > [2/3] RUN echo before; exit 7:\nbefore\n------\n"), "{}", said.stderr);
    let place = "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo before; exit 7\n   3 |     RUN true\n";
    assert!(said.stderr.contains(place), "{}", said.stderr);
    let folder = context(&[("other", "")]);
    daemon
        .docker(&["build", path(&folder)])
        .fails(1, "failed to read dockerfile: open Dockerfile: no such file or directory");
    daemon.docker(&["build", "/no/such"]).fails(1, "unable to prepare context: path \"/no/such\" not found");
}

#[test]
fn what_cannot_be_done_is_said() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\n")]);
    for (words, text) in [
        (&["--sbom=true"][..], "attestations cannot be made by this builder yet"),
        (&["--provenance=mode=max"], "attestations cannot be made by this builder yet"),
        (&["--attest", "type=sbom"], "attestations cannot be made by this builder yet"),
        (&["--squash"], "--squash is not supported by this builder"),
        (&["--memory", "1g"], "--memory is not supported by this builder"),
        (&["--push"], "tag is needed when pushing to registry"),
        (&["--no-cache", "--no-cache-filter", "x"], "mutually exclusive"),
        (&["--platform", "linux//x"], "cannot parse platform specifier"),
        (&["--build-context", "x"], "expected key=value"),
        (&["--allow", "everything"], "invalid entitlement: everything"),
    ] {
        let mut line = vec!["build"];
        line.extend(words);
        line.push(path(&folder));
        daemon.docker(&line).fails(1, text);
    }
    daemon.docker(&["build", "--sbom=false", "--provenance=false", path(&folder)]).ok();
    let mut command = daemon.client(Cli::Ours, &["build", "--secret", "id=x,env=PATH", path(&folder)]);
    command.env("DOCKER_BUILDKIT", "0");
    testkit::run(command).fails(1, "the --secret option requires BuildKit");
}

#[test]
fn an_interrupted_build_ends_its_step_at_once() {
    let daemon = Daemon::with_image();
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo begun; exec sleep 4321\n")]);
    let mut command = daemon.client(Cli::Ours, &["build", "--progress=plain", path(&folder)]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stderr = child.stderr.take().expect("piped");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(" begun") {
        let mut buffer = [0; 512];
        let n = stderr.read(&mut buffer).expect("reads");
        assert!(n > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    child.wait().expect("ended");
    let steps = format!("{}/", daemon.exec_root().join("steps").display());
    eventually("the step has ended", || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("reads");
        let running = testkit::run({
            let mut command = std::process::Command::new("pgrep");
            command.args(["-fx", "sleep 4321"]);
            command
        });
        (!table.contains(&steps) && running.code == 1).then_some(())
    });
    daemon.docker(&["build", "-t", "after", path(&context(&[("Dockerfile", "FROM busybox\nRUN true\n")]))]).ok();
}
