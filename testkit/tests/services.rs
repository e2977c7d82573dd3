//! Client libraries do a service's whole life with PostgreSQL from Debian packages: dockerode (npm) and testcontainers (PyPI).
//!
//! Long tier: a Debian root is made by debootstrap, and the libraries are fetched by npm and pip.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::Daemon;

/// Makes the database with the first start, and then is the server.
const START: &str = r#"#!/bin/sh
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin)
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
if [ ! -d /data ]; then
	mkdir /data && chown postgres: /data && as "$bin/initdb" -D /data -A trust --no-sync >/dev/null
	echo 'host all all all trust' >>/data/pg_hba.conf
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/postgres" -D /data -k /tmp -h 0.0.0.0
"#;

fn done(command: &mut Command) -> String {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The first mirror that this host uses.
fn mirror() -> String {
    let script =
        "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -o 'https\\?://[^ ]*' | head -1";
    done(Command::new("sh").args(["-c", script])).trim().to_owned()
}

fn import_service(daemon: &Daemon) {
    let root = daemon.folder().join("root");
    let release = done(Command::new("sh").args(["-c", ". /etc/os-release; echo $VERSION_CODENAME"]));
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", "--include=postgresql", release.trim()]).arg(&root).arg(mirror());
    done(&mut make);
    std::fs::write(root.join("start.sh"), START).expect("written");
    done(Command::new("chmod").arg("755").arg(root.join("start.sh")));
    let archive = daemon.folder().join("service.tar");
    done(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
    done(Command::new("rm").arg("-rf").arg(&root));
    let path = archive.to_str().expect("plain");
    daemon.docker(&["import", "--change", r#"CMD ["/start.sh"]"#, path, "service"]).ok();
    std::fs::remove_file(&archive).expect("removed");
}

#[test]
fn dockerode_and_testcontainers_do_the_whole_life_of_a_database() {
    if std::env::var_os("WHARF_LONG").is_none() {
        println!("left to the long tier");
        return;
    }
    let daemon = Daemon::with_image();
    import_service(&daemon);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services");

    let node = daemon.folder().join("node");
    std::fs::create_dir(&node).expect("made");
    done(Command::new("npm").current_dir(&node).args(["install", "--silent", "--no-audit", "dockerode@4"]));
    std::fs::copy(scripts.join("service.js"), node.join("service.js")).expect("copied");
    let said = done(Command::new("node").current_dir(&node).arg("service.js").arg(daemon.socket()));
    assert!(said.ends_with("done\n"), "{said}");

    let python = daemon.folder().join("python");
    done(Command::new("python3").args(["-m", "venv"]).arg(&python));
    done(Command::new(python.join("bin/pip")).args(["install", "-q", "testcontainers"]));
    let mut run = Command::new(python.join("bin/python"));
    run.arg(scripts.join("service.py")).env("DOCKER_HOST", daemon.host());
    // Its cleaner is an image that would have to be pulled.
    run.env("TESTCONTAINERS_RYUK_DISABLED", "true");
    let said = done(&mut run);
    assert!(said.ends_with("done\n"), "{said}");
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}
